//! The catalogue, redemptions, obligations.

use super::draft::Draft;
use super::ledger::{check_id, spendable};
use super::{Decision, WorkingSet, check_etag, coupon, limit, live, one, text};
use crate::event::*;
use crate::id::RewardId;
use crate::loyalty::coupon::check_code;
use crate::loyalty::item::ItemKey;
use crate::loyalty::member::Member;
use crate::loyalty::reward::{Cost, REDEMPTION_ID_LEN_MAX, REWARDS_MAX, Redemption, RedemptionState, Reward, hold_id};
use crate::loyalty::tenant::TenantConfig;
use crate::rejection::{InvalidField, Rejection};

pub(super) fn create(config: &TenantConfig, reward: &Reward) -> Result<Decision, Rejection> {
    if config.rewards.contains_key(&reward.reward_id) {
        return Err(Rejection::RewardExists(reward.reward_id.clone()));
    }
    limit("rewards", config.rewards.len(), REWARDS_MAX)?;
    check(config, reward)?;
    Ok(one(RewardCatalogueCreated { reward: Box::new(Reward { version: 1, ..reward.clone() }) }.into()))
}

pub(super) fn update(config: &TenantConfig, reward: &Reward, etag: Option<&str>) -> Result<Decision, Rejection> {
    let current = config.rewards.get(&reward.reward_id);
    let current = current.ok_or_else(|| Rejection::RewardNotFound(reward.reward_id.clone()))?;
    check_etag(etag, current.version)?;
    check(config, reward)?;
    Ok(one(
        RewardCatalogueUpdated { reward: Box::new(Reward { version: current.version + 1, ..reward.clone() }) }.into()
    ))
}

fn check(config: &TenantConfig, reward: &Reward) -> Result<(), Rejection> {
    reward.validate()?;
    if !config.campaigns.contains_key(&reward.campaign_id) {
        let id = reward.campaign_id.as_str();
        return Err(InvalidField::new("campaign_id", id, "names no campaign").into());
    }
    if let Some(book) = reward.coupon_book_id.as_ref().filter(|book| !config.coupon_books.contains_key(*book)) {
        return Err(InvalidField::new("coupon_book_id", book.as_str(), "names no coupon book").into());
    }
    Ok(())
}

/// The name of a redemption's reward.
pub(super) fn name(config: &TenantConfig, redemption: &Redemption) -> String {
    config.rewards.get(&redemption.reward_id).map(|reward| reward.reward_name.clone()).unwrap_or_default()
}

pub(super) fn start(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    redemption_id: &str,
    reward_id: &RewardId,
) -> Result<Decision, Rejection> {
    check_id("redemption_id", redemption_id, REDEMPTION_ID_LEN_MAX)?;
    let key = ItemKey::Redemption(redemption_id.into());
    if let Some(item) = set.world.item(&key) {
        let first = item.redemption().expect("the key leads to a redemption");
        if first.member_id == member.id && first.reward_id == *reward_id {
            return Ok(Decision::Already(item.as_of));
        }
        return Err(Rejection::IdReused { what: "redemption_id", id: redemption_id.into() });
    }
    let reward = config.rewards.get(reward_id).ok_or_else(|| Rejection::RewardNotFound(reward_id.clone()))?;
    if member.blocked.is_some() {
        return Err(Rejection::UserBlocked);
    }
    if member.card(&reward.campaign_id).is_none() {
        return Err(Rejection::NotJoined { member: member.id, campaign: reward.campaign_id.clone() });
    }
    if !reward.active || !reward.offered.contains(set.now) {
        return Err(Rejection::RewardNotOffered(reward_id.clone()));
    }
    let given = set.house.redeemed.get(reward_id).copied().unwrap_or(0);
    if reward.stock.is_some_and(|stock| given >= stock) {
        return Err(Rejection::OutOfStock(reward_id.clone()));
    }
    let had = member.rewards.get(reward_id).map_or(0, |used| used.redeemed);
    if let Some(max) = reward.per_member_max.filter(|max| had >= *max) {
        return Err(Rejection::RewardLimitReached { member: member.id, reward: reward_id.clone(), max });
    }
    let currency = reward.cost.currency(&reward.campaign_id);
    spendable(member, &currency, reward.cost.amount())?;
    let holds = member.account(&currency).map_or(0, |account| account.holds.len());
    limit("holds of this account", holds, crate::loyalty::account::HOLDS_MAX)?;
    Ok(one(RedemptionStarted {
        member_id: member.id,
        redemption_id: redemption_id.into(),
        campaign_id: reward.campaign_id.clone(),
        reward_id: reward_id.clone(),
        reward_name: reward.reward_name.clone(),
        cost: reward.cost,
        until: set.now.plus_ms(reward.hold_ms),
    }
    .into()))
}

/// A redemption that is to go from one state to another: `Ok(Err(position))` where it is there already.
fn to_go(
    set: &WorkingSet<'_>,
    redemption_id: &str,
    from: RedemptionState,
    to: RedemptionState,
) -> Result<Result<Redemption, Decision>, Rejection> {
    let item = set.world.item(&ItemKey::Redemption(redemption_id.into()));
    let item = item.ok_or_else(|| Rejection::RedemptionNotFound(redemption_id.into()))?;
    let redemption = item.redemption().expect("the key leads to a redemption");
    match redemption.state {
        state if state == from => Ok(Ok(redemption.clone())),
        state if state == to => Ok(Err(Decision::Already(item.as_of))),
        state => Err(Rejection::RedemptionState {
            redemption_id: redemption_id.into(),
            state: state.as_str(),
            wanted: from.as_str(),
        }),
    }
}

pub(super) fn complete(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    redemption_id: &str,
    voucher_code: Option<&str>,
) -> Result<Decision, Rejection> {
    live(member)?;
    let redemption = match to_go(set, redemption_id, RedemptionState::Started, RedemptionState::Completed)? {
        Ok(redemption) => redemption,
        Err(already) => return Ok(already),
    };
    let reward = config.rewards.get(&redemption.reward_id).expect("rewards are never removed");
    let book = reward.coupon_book_id.as_ref();
    let (voucher_code, assigned) = match (voucher_code, book) {
        (Some(code), None) => {
            check_code("voucher_code", code)?;
            (code.to_owned(), None)
        }
        (Some(code), Some(_)) => {
            let rule = "must be absent: the codes of this reward come from its coupon book";
            return Err(InvalidField::new("voucher_code", code, rule).into());
        }
        (None, None) => {
            let rule = "is required: this reward has no coupon book";
            return Err(InvalidField::new("voucher_code", "", rule).into());
        }
        (None, Some(book)) => {
            let coupon = coupon::next_free(set, book, 0)?;
            let usage_id = hold_id(redemption_id);
            let assigned = coupon::assigned(set, config, &coupon, member, "redemption", &usage_id);
            (coupon.code, Some(assigned))
        }
    };
    let Redemption { campaign_id, reward_id, cost, .. } = redemption;
    let currency = cost.currency(&campaign_id);
    let origin = Origin::Redemption { redemption_id: redemption_id.into(), reward_id: reward_id.clone() };
    let mut draft = Draft::new(set, config, member);
    draft.push(RedemptionCompleted {
        member_id: member.id,
        redemption_id: redemption_id.into(),
        campaign_id,
        reward_id,
        reward_name: reward.reward_name.clone(),
        cost,
        voucher_code,
        reward_link: reward.reward_link.clone(),
    })?;
    draft.debit(member.id, &currency, cost.amount(), Some(hold_id(redemption_id)), origin)?;
    if let Some(assigned) = assigned {
        draft.push(assigned)?;
    }
    super::follow::up(draft)
}

pub(super) fn fail(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    redemption_id: &str,
    reason: &str,
) -> Result<Decision, Rejection> {
    text("reason", reason, 500)?;
    let redemption = match to_go(set, redemption_id, RedemptionState::Started, RedemptionState::Failed)? {
        Ok(redemption) => redemption,
        Err(already) => return Ok(already),
    };
    let reward_name = name(config, &redemption);
    let Redemption { member_id, redemption_id, campaign_id, reward_id, cost, .. } = redemption;
    let reason = reason.into();
    Ok(one(RedemptionFailed { member_id, redemption_id, campaign_id, reward_id, reward_name, cost, reason }.into()))
}

/// Gives back what was paid, as if it had been earned now.
pub(super) fn refund(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    redemption_id: &str,
    reason: &str,
) -> Result<Decision, Rejection> {
    live(member)?;
    text("reason", reason, 500)?;
    let redemption = match to_go(set, redemption_id, RedemptionState::Completed, RedemptionState::Refunded)? {
        Ok(redemption) => redemption,
        Err(already) => return Ok(already),
    };
    let reward_name = name(config, &redemption);
    let Redemption { member_id, redemption_id, campaign_id, reward_id, cost, voucher_code, .. } = redemption;
    let currency = cost.currency(&campaign_id);
    let origin = Origin::Refund { redemption_id: redemption_id.clone(), reward_id: reward_id.clone() };
    let mut draft = Draft::new(set, config, member);
    draft.push(RedemptionRefunded {
        member_id,
        redemption_id,
        campaign_id,
        reward_id,
        reward_name,
        cost,
        voucher_code,
        reason: reason.into(),
    })?;
    draft.earn(member_id, &currency, cost.amount(), origin)?;
    super::follow::up(draft)
}

pub(super) fn confirm(set: &WorkingSet<'_>, obligation_id: &str, reference: &str) -> Result<Decision, Rejection> {
    text("reference", reference, 200)?;
    let item = set.world.item(&ItemKey::Obligation(obligation_id.into()));
    let item = item.ok_or_else(|| Rejection::ObligationNotFound(obligation_id.into()))?;
    let obligation = item.obligation().expect("the key leads to an obligation");
    if obligation.confirmed_at.is_some() {
        return Ok(Decision::Already(item.as_of));
    }
    let (member_id, obligation_id, reference) = (obligation.member_id, obligation_id.into(), reference.into());
    Ok(one(ObligationConfirmed { member_id, obligation_id, reference }.into()))
}

/// Rewards that came within reach.
pub(super) fn redeemable(draft: &mut Draft<'_>) -> Result<(), Rejection> {
    for at in 0..draft.parties.len() {
        let (before, now) = (&draft.parties[at].before, &draft.parties[at].now);
        let available = |member: &Member, reward: &Reward| {
            member.account(&reward.cost.currency(&reward.campaign_id)).map_or(0, |account| account.available())
        };
        let reached: Vec<Event> = (draft.config.rewards.values())
            .filter(|reward| now.card(&reward.campaign_id).is_some())
            .filter(|reward| {
                let cost = reward.cost.amount();
                available(before, reward) < cost && available(now, reward) >= cost
            })
            .filter(|reward| {
                let told_at = now.rewards.get(&reward.reward_id).and_then(|used| used.told_at);
                let cooled = told_at.is_none_or(|at| at.plus_ms(reward.cool_down_ms) <= draft.set.now);
                cooled && reward.active && reward.offered.contains(draft.set.now)
            })
            .map(|reward| {
                let cost: Cost = reward.cost;
                RewardRedeemable {
                    member_id: now.id,
                    campaign_id: reward.campaign_id.clone(),
                    reward_id: reward.reward_id.clone(),
                    reward_name: reward.reward_name.clone(),
                    reward_link: reward.reward_link.clone(),
                    reward_value: reward.reward_value.clone(),
                    cost,
                    balance: available(now, reward),
                }
                .into()
            })
            .collect();
        for event in reached {
            draft.push(event)?;
        }
    }
    Ok(())
}
