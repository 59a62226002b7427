//! `RewardService`.

use std::ops::Bound;

use punchline_engine::command::Action;
use punchline_engine::event::Event;
use punchline_engine::id::{CouponBookId, MemberId, RewardId, Tenant};
use punchline_engine::loyalty::coupon::{BookKind, CODE_LEN_MAX, CODES_MAX};
use punchline_engine::loyalty::item::{Item, ItemKey};
use punchline_engine::loyalty::ledger::BookState;
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::Rejection;
use punchline_proto::v1;
use punchline_proto::v1::reward_service_server::RewardService;
use punchline_runtime::ids;
use punchline_storage::views::ItemList;
use tonic::{Request, Response};

use super::{Answer, Api};
use crate::convert::page::{self, List};
use crate::convert::reward::{
    coupon, coupon_book, coupon_book_to_wire, gift_card, obligation, redemption, reward, reward_to_wire,
};
use crate::convert::{etag, id, optional_id, required};
use crate::refuse::Refused;

/// Characters of a made code: those that are not taken for others.
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Random bytes of a made code: 16 characters of five bits.
const CODE_BYTES: usize = 10;
/// Characters of a made code.
const CODE_LEN: usize = CODE_BYTES * 8 / 5;
/// Items looked at for one page, where only some of them are wanted: what is read between two commands holds
/// these up.
const ITEMS_READ_MAX: usize = 1_000;

impl Api {
    async fn item(&self, tenant: Tenant, key: ItemKey) -> Result<Option<Item>, Refused> {
        self.read(move |views| views.item(tenant, &key)).await
    }

    async fn redemption(&self, tenant: Tenant, redemption_id: String) -> Result<Option<v1::Redemption>, Refused> {
        let found = self.item(tenant, ItemKey::Redemption(redemption_id.clone())).await?;
        let found = found.as_ref().and_then(Item::redemption).map(redemption);
        found.map(Some).ok_or_else(|| Rejection::RedemptionNotFound(redemption_id).into())
    }

    async fn redemption_after(
        &self,
        tenant: Tenant,
        redemption_id: String,
        action: Action,
    ) -> Result<Option<v1::Redemption>, Refused> {
        self.submit(tenant, "", action).await?;
        self.redemption(tenant, redemption_id).await
    }

    async fn coupon(
        &self,
        tenant: Tenant,
        coupon_book: CouponBookId,
        code: String,
    ) -> Result<Option<v1::Coupon>, Refused> {
        if !self.config(tenant)?.coupon_books.contains_key(&coupon_book) {
            return Err(Rejection::CouponBookNotFound(coupon_book).into());
        }
        let found = self.item(tenant, ItemKey::Coupon(coupon_book.clone(), code.clone())).await?;
        let found = found.as_ref().and_then(Item::coupon).map(coupon);
        found.map(Some).ok_or_else(|| Rejection::CouponNotFound { coupon_book, code }.into())
    }

    async fn reward(&self, tenant: Tenant, reward_id: RewardId) -> Result<Option<v1::Reward>, Refused> {
        let found = self.config(tenant)?.rewards.get(&reward_id).cloned();
        let found = found.ok_or_else(|| Refused::from(Rejection::RewardNotFound(reward_id.clone())))?;
        let counted = self.read(move |views| {
            let house = views.houses().get(&tenant);
            Ok(house.and_then(|house| house.redeemed.get(&reward_id)).copied().unwrap_or(0))
        });
        Ok(Some(reward_to_wire(&found, counted.await?)))
    }

    async fn coupon_book(&self, tenant: Tenant, book: CouponBookId) -> Result<Option<v1::CouponBook>, Refused> {
        let found = self.config(tenant)?.coupon_books.get(&book).cloned();
        let found = found.ok_or_else(|| Refused::from(Rejection::CouponBookNotFound(book.clone())))?;
        let state = self.read(move |views| {
            let house = views.houses().get(&tenant);
            Ok(house.and_then(|house| house.books.get(&book)).copied().unwrap_or_default())
        });
        Ok(Some(coupon_book_to_wire(&found, state.await?)))
    }

    /// A page of items, by their ids, of those that `wants` picks; and the token of the next page.
    async fn item_page<T: Send + 'static>(
        &self,
        tenant: Tenant,
        (list, items): (List, ItemList),
        (page_size, page_token): (i32, &str),
        wants: impl Fn(&Item) -> Option<(String, T)> + Send + 'static,
    ) -> Result<(Vec<T>, String), Refused> {
        let size = page::size(page_size)?;
        let after: Option<String> = page::after(list, page_token)?;
        let key = match list {
            List::Redemptions => ItemKey::Redemption,
            _ => ItemKey::Obligation,
        };
        // What is picked is not known before it is read, so a page ends where enough was looked at.
        let read = self.read(move |views| {
            let after = after.map(key);
            let read = views.items(tenant, &items, after.as_ref(), ITEMS_READ_MAX)?;
            let is_last = read.len() < ITEMS_READ_MAX;
            let (mut found, mut last_seen) = (Vec::new(), None);
            for item in &read {
                if let Some((id, picked)) = wants(item) {
                    if found.len() == size {
                        return Ok((found, last_seen));
                    }
                    found.push(picked);
                    last_seen = Some(id);
                }
            }
            let end = read.last().and_then(id_of).filter(|_| !is_last);
            Ok((found, end))
        });
        let (found, last) = read.await?;
        Ok((found, last.map(|last| page::token(list, last)).unwrap_or_default()))
    }

    /// A book with the codes that the call brought, and those that were made for it.
    async fn filled(
        &self,
        tenant: Tenant,
        coupon_book_id: CouponBookId,
        events: &[Event],
        kind: BookKind,
    ) -> Result<(Option<v1::CouponBook>, Vec<String>), Refused> {
        let generated_codes = events.iter().find_map(|event| match event {
            Event::CouponsAdded(added) if kind == BookKind::Generated => Some(added.codes.clone()),
            _ => None,
        });
        Ok((self.coupon_book(tenant, coupon_book_id).await?, generated_codes.unwrap_or_default()))
    }
}

fn id_of(item: &Item) -> Option<String> {
    let redemption = item.redemption().map(|redemption| redemption.redemption_id.clone());
    redemption.or_else(|| item.obligation().map(|obligation| obligation.obligation_id.clone()))
}

/// The codes that a call brings, or asks for.
fn codes(given: Option<v1::CouponCodes>) -> Result<(BookKind, Vec<String>), Refused> {
    use v1::coupon_codes::Kind;
    match given.and_then(|codes| codes.kind) {
        None => Ok((BookKind::Listed, Vec::new())),
        Some(Kind::Listed(listed)) => Ok((BookKind::Listed, listed.codes)),
        Some(Kind::Generated(asked)) => Ok((BookKind::Generated, generated(&asked)?)),
    }
}

fn generated(asked: &v1::GeneratedCodes) -> Result<Vec<String>, Refused> {
    let count = usize::try_from(asked.count).unwrap_or(usize::MAX);
    if !(1..=CODES_MAX).contains(&count) {
        let rule = format!("must be from 1 to {CODES_MAX}");
        return Err(Refused::field("codes.generated.count", asked.count.to_string(), rule));
    }
    let prefix = asked.prefix.as_str();
    if prefix.len() > CODE_LEN_MAX - CODE_LEN || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        let rule = format!("must be at most {} visible ASCII characters", CODE_LEN_MAX - CODE_LEN);
        return Err(Refused::field("codes.generated.prefix", prefix, rule));
    }
    let code = |_| {
        let random = ids::random_bytes::<CODE_BYTES>().iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let character = |at: usize| ALPHABET[(random >> (at * 5) & 31) as usize] as char;
        prefix.chars().chain((0..CODE_LEN).map(character)).collect()
    };
    Ok((0..count).map(code).collect())
}

#[tonic::async_trait]
impl RewardService for Api {
    async fn create_reward(&self, request: Request<v1::CreateRewardRequest>) -> Answer<v1::CreateRewardResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let given = reward(required("reward", request.reward)?)?;
        let reward_id = given.reward_id.clone();
        self.submit(tenant, &request.request_id, Action::CreateReward { reward: given }).await?;
        Ok(Response::new(v1::CreateRewardResponse { reward: self.reward(tenant, reward_id).await? }))
    }

    async fn get_reward(&self, request: Request<v1::GetRewardRequest>) -> Answer<v1::GetRewardResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let reward = self.reward(tenant, id("reward_id", &request.reward_id)?).await?;
        Ok(Response::new(v1::GetRewardResponse { reward }))
    }

    async fn list_rewards(&self, request: Request<v1::ListRewardsRequest>) -> Answer<v1::ListRewardsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let size = page::size(request.page_size)?;
        let after: Option<RewardId> = page::after(List::Rewards, &request.page_token)?;
        let config = self.config(tenant)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<_> = config.rewards.range((from, Bound::Unbounded)).take(size + 1).collect();
        let next_page_token = page::cut(List::Rewards, &mut found, size, |(id, _)| *id);
        let counted = self
            .read(move |views| Ok(views.houses().get(&tenant).map(|house| house.redeemed.clone()).unwrap_or_default()));
        let redeemed = counted.await?;
        let of = |id: &RewardId| redeemed.get(id).copied().unwrap_or(0);
        let rewards = found.into_iter().map(|(id, reward)| reward_to_wire(reward, of(id))).collect();
        Ok(Response::new(v1::ListRewardsResponse { rewards, next_page_token }))
    }

    async fn update_reward(&self, request: Request<v1::UpdateRewardRequest>) -> Answer<v1::UpdateRewardResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let given = required("reward", request.reward)?;
        let etag = etag(&given.etag);
        let given = reward(given)?;
        let reward_id = given.reward_id.clone();
        self.submit(tenant, "", Action::UpdateReward { reward: given, etag }).await?;
        Ok(Response::new(v1::UpdateRewardResponse { reward: self.reward(tenant, reward_id).await? }))
    }

    async fn start_redemption(
        &self,
        request: Request<v1::StartRedemptionRequest>,
    ) -> Answer<v1::StartRedemptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let redemption_id = request.redemption_id;
        let action = Action::StartRedemption {
            member_id: id("member_id", &request.member_id)?,
            redemption_id: redemption_id.clone(),
            reward_id: id("reward_id", &request.reward_id)?,
        };
        let redemption = self.redemption_after(tenant, redemption_id, action).await?;
        Ok(Response::new(v1::StartRedemptionResponse { redemption }))
    }

    async fn complete_redemption(
        &self,
        request: Request<v1::CompleteRedemptionRequest>,
    ) -> Answer<v1::CompleteRedemptionResponse> {
        let (tenant, v1::CompleteRedemptionRequest { redemption_id, voucher_code }) =
            self.tenant(request, Scope::Manage)?;
        let voucher_code = Some(voucher_code).filter(|code| !code.is_empty());
        let action = Action::CompleteRedemption { redemption_id: redemption_id.clone(), voucher_code };
        let redemption = self.redemption_after(tenant, redemption_id, action).await?;
        Ok(Response::new(v1::CompleteRedemptionResponse { redemption }))
    }

    async fn fail_redemption(&self, request: Request<v1::FailRedemptionRequest>) -> Answer<v1::FailRedemptionResponse> {
        let (tenant, v1::FailRedemptionRequest { redemption_id, reason }) = self.tenant(request, Scope::Manage)?;
        let action = Action::FailRedemption { redemption_id: redemption_id.clone(), reason };
        let redemption = self.redemption_after(tenant, redemption_id, action).await?;
        Ok(Response::new(v1::FailRedemptionResponse { redemption }))
    }

    async fn refund_redemption(
        &self,
        request: Request<v1::RefundRedemptionRequest>,
    ) -> Answer<v1::RefundRedemptionResponse> {
        let (tenant, v1::RefundRedemptionRequest { redemption_id, reason }) = self.tenant(request, Scope::Manage)?;
        let action = Action::RefundRedemption { redemption_id: redemption_id.clone(), reason };
        let redemption = self.redemption_after(tenant, redemption_id, action).await?;
        Ok(Response::new(v1::RefundRedemptionResponse { redemption }))
    }

    async fn get_redemption(&self, request: Request<v1::GetRedemptionRequest>) -> Answer<v1::GetRedemptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let redemption = self.redemption(tenant, request.redemption_id).await?;
        Ok(Response::new(v1::GetRedemptionResponse { redemption }))
    }

    async fn list_redemptions(
        &self,
        request: Request<v1::ListRedemptionsRequest>,
    ) -> Answer<v1::ListRedemptionsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let member: Option<MemberId> = optional_id("member_id", &request.member_id)?;
        let wants = move |item: &Item| {
            let found = item.redemption().filter(|found| member.is_none_or(|member| found.member_id == member))?;
            Some((found.redemption_id.clone(), redemption(found)))
        };
        let page = (request.page_size, request.page_token.as_str());
        let list = (List::Redemptions, ItemList::Redemptions);
        let (redemptions, next_page_token) = self.item_page(tenant, list, page, wants).await?;
        Ok(Response::new(v1::ListRedemptionsResponse { redemptions, next_page_token }))
    }

    async fn confirm_obligation(
        &self,
        request: Request<v1::ConfirmObligationRequest>,
    ) -> Answer<v1::ConfirmObligationResponse> {
        let (tenant, v1::ConfirmObligationRequest { obligation_id, reference }) =
            self.tenant(request, Scope::Manage)?;
        let key = ItemKey::Obligation(obligation_id.clone());
        self.submit(tenant, "", Action::ConfirmObligation { obligation_id, reference }).await?;
        let found = self.item(tenant, key).await?;
        let obligation = found.as_ref().and_then(Item::obligation).map(obligation);
        Ok(Response::new(v1::ConfirmObligationResponse { obligation }))
    }

    async fn list_obligations(
        &self,
        request: Request<v1::ListObligationsRequest>,
    ) -> Answer<v1::ListObligationsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let member: Option<MemberId> = optional_id("member_id", &request.member_id)?;
        let open_only = request.open_only;
        let wants = move |item: &Item| {
            let found = item.obligation().filter(|found| member.is_none_or(|member| found.member_id == member))?;
            let wanted = !open_only || found.confirmed_at.is_none();
            wanted.then(|| (found.obligation_id.clone(), obligation(found)))
        };
        let page = (request.page_size, request.page_token.as_str());
        let list = (List::Obligations, ItemList::Obligations);
        let (obligations, next_page_token) = self.item_page(tenant, list, page, wants).await?;
        Ok(Response::new(v1::ListObligationsResponse { obligations, next_page_token }))
    }

    async fn create_coupon_book(
        &self,
        request: Request<v1::CreateCouponBookRequest>,
    ) -> Answer<v1::CreateCouponBookResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let given = required("coupon_book", request.coupon_book)?;
        let (kind, codes) = codes(request.codes)?;
        let book = coupon_book(given, kind)?;
        let coupon_book_id = book.coupon_book_id.clone();
        let action = Action::CreateCouponBook { coupon_book: book, codes };
        let stored = self.create(tenant, &request.request_id, action).await?;
        let (coupon_book, generated_codes) = self.filled(tenant, coupon_book_id, &stored.record.events, kind).await?;
        Ok(Response::new(v1::CreateCouponBookResponse { coupon_book, generated_codes }))
    }

    async fn add_coupons(&self, request: Request<v1::AddCouponsRequest>) -> Answer<v1::AddCouponsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let (kind, codes) = codes(request.codes)?;
        let coupon_book_id: CouponBookId = id("coupon_book_id", &request.coupon_book_id)?;
        let action = Action::AddCoupons { coupon_book_id: coupon_book_id.clone(), kind, codes };
        let stored = self.create(tenant, &request.request_id, action).await?;
        let (coupon_book, generated_codes) = self.filled(tenant, coupon_book_id, &stored.record.events, kind).await?;
        Ok(Response::new(v1::AddCouponsResponse { coupon_book, generated_codes }))
    }

    async fn get_coupon_book(&self, request: Request<v1::GetCouponBookRequest>) -> Answer<v1::GetCouponBookResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let coupon_book = self.coupon_book(tenant, id("coupon_book_id", &request.coupon_book_id)?).await?;
        Ok(Response::new(v1::GetCouponBookResponse { coupon_book }))
    }

    async fn list_coupon_books(
        &self,
        request: Request<v1::ListCouponBooksRequest>,
    ) -> Answer<v1::ListCouponBooksResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let size = page::size(request.page_size)?;
        let after: Option<CouponBookId> = page::after(List::CouponBooks, &request.page_token)?;
        let config = self.config(tenant)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<_> = config.coupon_books.range((from, Bound::Unbounded)).take(size + 1).collect();
        let next_page_token = page::cut(List::CouponBooks, &mut found, size, |(id, _)| *id);
        let counted = self
            .read(move |views| Ok(views.houses().get(&tenant).map(|house| house.books.clone()).unwrap_or_default()));
        let states = counted.await?;
        let of = |id: &CouponBookId| states.get(id).copied().unwrap_or(BookState::default());
        let coupon_books = found.into_iter().map(|(id, book)| coupon_book_to_wire(book, of(id))).collect();
        Ok(Response::new(v1::ListCouponBooksResponse { coupon_books, next_page_token }))
    }

    async fn assign_coupon(&self, request: Request<v1::AssignCouponRequest>) -> Answer<v1::AssignCouponResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let coupon_book_id: CouponBookId = id("coupon_book_id", &request.coupon_book_id)?;
        let action = Action::AssignCoupon {
            member_id: id("member_id", &request.member_id)?,
            coupon_book_id: coupon_book_id.clone(),
            code: Some(request.code).filter(|code| !code.is_empty()),
            usage_id: request.usage_id,
        };
        let stored = self.create(tenant, "", action).await?;
        let Some(Event::CouponAssigned(assigned)) = stored.record.events.first() else {
            return Err(Refused::internal("find the coupon that was assigned", &stored.first).into());
        };
        let coupon = self.coupon(tenant, coupon_book_id, assigned.code.clone()).await?;
        Ok(Response::new(v1::AssignCouponResponse { coupon }))
    }

    async fn use_coupon(&self, request: Request<v1::UseCouponRequest>) -> Answer<v1::UseCouponResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let coupon_book_id: CouponBookId = id("coupon_book_id", &request.coupon_book_id)?;
        let action = Action::UseCoupon {
            coupon_book_id: coupon_book_id.clone(),
            code: request.code.clone(),
            usage_id: request.usage_id,
            order_id: request.order_id,
            discount_amount: request.discount_amount,
        };
        self.submit(tenant, "", action).await?;
        let coupon = self.coupon(tenant, coupon_book_id, request.code).await?;
        Ok(Response::new(v1::UseCouponResponse { coupon }))
    }

    async fn roll_back_coupon(
        &self,
        request: Request<v1::RollBackCouponRequest>,
    ) -> Answer<v1::RollBackCouponResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let coupon_book_id: CouponBookId = id("coupon_book_id", &request.coupon_book_id)?;
        let action = Action::RollBackCoupon {
            coupon_book_id: coupon_book_id.clone(),
            code: request.code.clone(),
            reverted_usage_id: request.reverted_usage_id,
            reason: request.reason,
        };
        self.submit(tenant, "", action).await?;
        let coupon = self.coupon(tenant, coupon_book_id, request.code).await?;
        Ok(Response::new(v1::RollBackCouponResponse { coupon }))
    }

    async fn get_coupon(&self, request: Request<v1::GetCouponRequest>) -> Answer<v1::GetCouponResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let coupon = self.coupon(tenant, id("coupon_book_id", &request.coupon_book_id)?, request.code).await?;
        Ok(Response::new(v1::GetCouponResponse { coupon }))
    }

    async fn send_gift_card(&self, request: Request<v1::SendGiftCardRequest>) -> Answer<v1::SendGiftCardResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let gift_card = gift_card(required("gift_card", request.gift_card)?)?;
        let stored = self.create(tenant, "", Action::SendGiftCard { gift_card }).await?;
        Ok(Response::new(v1::SendGiftCardResponse { sequence: stored.first.0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_codes_are_unambiguous_and_all_different() {
        let made = generated(&v1::GeneratedCodes { count: 2_000, prefix: "SUMMER-".into() }).expect("made");
        let distinct: std::collections::HashSet<&String> = made.iter().collect();
        assert_eq!(distinct.len(), 2_000);
        for code in &made {
            let rest = code.strip_prefix("SUMMER-").expect("begins with it");
            assert!(rest.len() == 16 && rest.bytes().all(|byte| ALPHABET.contains(&byte)), "{code}");
        }
        // Every character comes up at the first and at the last place: no bit is lost.
        for at in [7, 22] {
            let seen: std::collections::BTreeSet<u8> = made.iter().map(|code| code.as_bytes()[at]).collect();
            assert_eq!(seen.len(), 32, "place {at}");
        }
        for (count, prefix, field) in [
            (0, "", "codes.generated.count"),
            (10_001, "", "codes.generated.count"),
            (1, "a b", "codes.generated.prefix"),
            (1, &"x".repeat(49), "codes.generated.prefix"),
        ] {
            let refused = generated(&v1::GeneratedCodes { count, prefix: prefix.into() }).expect_err(field);
            assert_eq!(refused.field.expect("names it").path, field);
        }
    }
}
