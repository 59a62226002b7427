//! `LedgerService`.

use std::sync::Arc;

use punchline_engine::command::Action;
use punchline_engine::event::Event;
use punchline_engine::id::{MemberId, Sequence, Tenant};
use punchline_engine::loyalty::ledger::{Currency, Entry};
use punchline_engine::loyalty::member::Member;
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::Rejection;
use punchline_proto::v1;
use punchline_proto::v1::ledger_service_server::LedgerService;
use punchline_runtime::feed::{Feed, ReadError, Stored};
use tonic::{Code, Request, Response};

use super::event::first_at;
use super::{Answer, Api, explain};
use crate::convert::ledger::{accounts_of, adjusted_currency, balance, currency, entry, hold, holds};
use crate::convert::member::{accounts, balances, punchcards};
use crate::convert::page::{self, List};
use crate::convert::{event, id, instant, required};
use crate::refuse::Refused;

/// Entries read at once on the way back to a past balance.
const ENTRIES_READ: usize = 500;

#[tonic::async_trait]
impl LedgerService for Api {
    async fn get_balances(&self, request: Request<v1::GetBalancesRequest>) -> Answer<v1::GetBalancesResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let id: MemberId = id("member_id", &request.member_id)?;
        let (member, as_of) = self
            .read(move |views| {
                let member = views.member(tenant, id)?.cloned();
                Ok((member, views.applied()))
            })
            .await?;
        let member = member.ok_or_else(|| Refused::from(Rejection::MemberNotFound(id)))?;
        let at = match request.at {
            None => {
                let (balances, accounts) = (balances(&member), accounts(&member));
                return Ok(Response::new(v1::GetBalancesResponse { balances, as_of_sequence: as_of.0, accounts }));
            }
            Some(v1::get_balances_request::At::AtSequence(at)) if at <= as_of.0 => Sequence(at),
            Some(v1::get_balances_request::At::AtSequence(at)) => {
                let rule = format!("must be at most {as_of}, which is the head");
                return Err(Refused::field("at_sequence", at.to_string(), rule).into());
            }
            Some(v1::get_balances_request::At::AtTime(time)) => {
                let time = instant("at_time", time)?;
                if time > self.state.node.clock().now() {
                    return Err(Refused::field("at_time", time.to_string(), "must not be in the future").into());
                }
                let next = self.journal(move |feed| first_at(feed, time.plus_ms(1))).await?;
                Sequence(next.0 - 1).min(as_of)
            }
        };
        let balances = self.balances_at(tenant, &member, at).await?;
        Ok(Response::new(v1::GetBalancesResponse { balances, as_of_sequence: at.0, accounts: Vec::new() }))
    }

    async fn list_entries(&self, request: Request<v1::ListEntriesRequest>) -> Answer<v1::ListEntriesResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let id: MemberId = id("member_id", &request.member_id)?;
        let size = page::size(request.page_size)?;
        let before: Option<u64> = page::after(List::Entries, &request.page_token)?;
        let before = before.map(Sequence);
        let found = self
            .read(move |views| {
                let known = views.member(tenant, id)?.is_some();
                Ok((known, views.entries(tenant, id, before, size + 1)?))
            })
            .await?;
        let (true, mut positions) = found else {
            return Err(Refused::from(Rejection::MemberNotFound(id)).into());
        };
        let next_page_token = page::cut(List::Entries, &mut positions, size, |sequence| sequence.0);
        let entries = self.journal(move |feed| entries_at(feed, &positions)).await?;
        let entries = entries.into_iter().map(entry).collect();
        Ok(Response::new(v1::ListEntriesResponse { entries, next_page_token }))
    }

    async fn adjust_balance(&self, request: Request<v1::AdjustBalanceRequest>) -> Answer<v1::AdjustBalanceResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let action = Action::AdjustBalance {
            member_id: id("member_id", &request.member_id)?,
            currency: adjusted_currency(request.currency)?,
            amount: request.amount,
            reason: request.reason,
        };
        let stored = self.create(tenant, &request.request_id, action).await?;
        let entry = Entry::of(&stored.record.recorded(stored.first, 0)).map(entry);
        Ok(Response::new(v1::AdjustBalanceResponse { entry }))
    }

    async fn list_punchcards(&self, request: Request<v1::ListPunchcardsRequest>) -> Answer<v1::ListPunchcardsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let member = self.member(tenant, id("member_id", &request.member_id)?).await?;
        let config = self.config(tenant)?;
        let of_card = |card| punchcards(card, config.campaigns.get(&card.campaign_id).map(|c| &**c));
        let punchcards = member.cards.iter().flat_map(of_card).collect();
        Ok(Response::new(v1::ListPunchcardsResponse { punchcards }))
    }

    async fn explain_entry(&self, request: Request<v1::ExplainEntryRequest>) -> Answer<v1::ExplainEntryResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let sequence = Sequence(request.sequence);
        let stored = self.journal(move |feed| feed.record_at(sequence)).await?;
        // Another tenant's entry is as good as none.
        let stored = stored.filter(|stored| stored.record.tenant == tenant);
        let at = |stored: &Stored| (sequence.0 - stored.first.0) as usize;
        let found = stored.and_then(|s| Entry::of(&s.record.recorded(s.first, at(&s))).map(|entry| (s, entry)));
        let (stored, found) = found.ok_or_else(|| Refused::not_found("ENTRY_NOT_FOUND", "entry", sequence))?;
        let explained = explain::explain(&stored.record.events[..at(&stored)], &found, &*self.config(tenant)?);
        let origin_event = match explain::source(&found.origin) {
            Some(source) => self.source_event(tenant, source).await?,
            None => None,
        };
        Ok(Response::new(v1::ExplainEntryResponse {
            entry: Some(entry(found)),
            cause: Some(event(&stored.record.recorded(stored.first, 0))),
            rule_json: explained.rule_json,
            explanation: explained.sentence,
            origin_event,
        }))
    }

    async fn place_hold(&self, request: Request<v1::PlaceHoldRequest>) -> Answer<v1::PlaceHoldResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let action = Action::PlaceHold {
            member_id: id("member_id", &request.member_id)?,
            hold_id: request.hold_id,
            currency: currency(request.currency)?,
            amount: request.amount,
            until: instant("expires_at", required("expires_at", request.expires_at)?)?,
            reason: request.reason,
        };
        let stored = self.create(tenant, "", action).await.map_err(hold_field)?;
        let Some(Event::HoldPlaced(placed)) = stored.record.events.first() else {
            return Err(Refused::internal("find the hold that was placed", &stored.first).into());
        };
        let hold = hold(placed.member_id, &placed.currency, &placed.hold_id, placed.amount, placed.until);
        Ok(Response::new(v1::PlaceHoldResponse { hold: Some(hold) }))
    }

    async fn post_hold(&self, request: Request<v1::PostHoldRequest>) -> Answer<v1::PostHoldResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let v1::PostHoldRequest { member_id, hold_id, amount, reason, request_id } = request;
        let action = Action::PostHold { member_id: id("member_id", &member_id)?, hold_id, amount, reason };
        let entry = self.entries_made(tenant, &request_id, action).await?.into_iter().next();
        Ok(Response::new(v1::PostHoldResponse { entry }))
    }

    async fn void_hold(&self, request: Request<v1::VoidHoldRequest>) -> Answer<v1::VoidHoldResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let v1::VoidHoldRequest { member_id, hold_id, reason, request_id } = request;
        let action = Action::VoidHold { member_id: id("member_id", &member_id)?, hold_id, reason };
        self.submit(tenant, &request_id, action).await?;
        Ok(Response::new(v1::VoidHoldResponse {}))
    }

    async fn list_holds(&self, request: Request<v1::ListHoldsRequest>) -> Answer<v1::ListHoldsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let member = self.member(tenant, id("member_id", &request.member_id)?).await?;
        Ok(Response::new(v1::ListHoldsResponse { holds: holds(&member) }))
    }

    async fn transfer_balance(
        &self,
        request: Request<v1::TransferBalanceRequest>,
    ) -> Answer<v1::TransferBalanceResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let action = Action::Transfer {
            member_id: id("member_id", &request.member_id)?,
            to_member_id: id("to_member_id", &request.to_member_id)?,
            currency: currency(request.currency)?,
            amount: request.amount,
            reason: request.reason,
        };
        let entries = self.entries_made(tenant, &request.request_id, action).await?;
        Ok(Response::new(v1::TransferBalanceResponse { entries }))
    }

    async fn reverse_entry(&self, request: Request<v1::ReverseEntryRequest>) -> Answer<v1::ReverseEntryResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let v1::ReverseEntryRequest { member_id, sequence, reason } = request;
        let action =
            Action::ReverseEntry { member_id: id("member_id", &member_id)?, entry: Sequence(sequence), reason };
        let entry = self.entries_made(tenant, "", action).await?.into_iter().next();
        Ok(Response::new(v1::ReverseEntryResponse { entry }))
    }
}

/// The engine knows the end of a hold by another name.
fn hold_field(mut refused: Refused) -> Refused {
    if let Some(field) = refused.field.as_mut().filter(|field| field.path == "until") {
        field.path = "expires_at".into();
        refused.message = refused.message.replacen("until", "expires_at", 1);
    }
    refused
}

impl Api {
    /// Carries out a command, and gives the entries of its record, now or the first time.
    async fn entries_made(&self, tenant: Tenant, request_id: &str, action: Action) -> Result<Vec<v1::Entry>, Refused> {
        let stored = self.create(tenant, request_id, action).await?;
        Ok(stored.record.all_recorded(stored.first).filter_map(|recorded| Entry::of(&recorded)).map(entry).collect())
    }

    /// The balances of a member as of a position: what its newest entries up to there say.
    async fn balances_at(&self, tenant: Tenant, member: &Member, at: Sequence) -> Result<Vec<v1::Balance>, Refused> {
        let member_id = member.id;
        let mut wanted: Vec<(Currency, Option<i64>)> = accounts_of(member).map(|(c, _)| (c, None)).collect();
        let mut before = Some(at.next());
        let first = self.state.node.feed().first();
        let mut is_trimmed = false;
        while let Some(end) = before.filter(|_| wanted.iter().any(|(_, found)| found.is_none())) {
            let positions = self.read(move |views| views.entries(tenant, member_id, Some(end), ENTRIES_READ)).await?;
            before = positions.last().copied().filter(|_| positions.len() == ENTRIES_READ);
            is_trimmed |= positions.last().is_some_and(|oldest| *oldest < first);
            for entry in self.journal(move |feed| entries_at(feed, &positions)).await? {
                let of_currency = wanted.iter_mut().find(|(currency, _)| *currency == entry.currency);
                if let Some((_, found)) = of_currency {
                    found.get_or_insert(entry.balance);
                }
            }
        }
        if is_trimmed && wanted.iter().any(|(_, found)| found.is_none()) {
            let message = format!("balances as of {at} are not known any more: the journal begins at sequence {first}");
            return Err(Refused::new(Code::FailedPrecondition, 409, "TRIMMED", message));
        }
        Ok(wanted.iter().map(|(currency, found)| balance(currency, found.unwrap_or(0))).collect())
    }

    /// The event that an entry goes back to.
    async fn source_event(&self, tenant: Tenant, source: explain::Source) -> Result<Option<v1::Event>, Refused> {
        let (sequence, key) = match source {
            explain::Source::At(sequence) => (Some(sequence), None),
            explain::Source::Key(key) => {
                let looked_up = key.clone();
                (self.read(move |views| views.seen(tenant, &looked_up)).await?, Some(key))
            }
        };
        let Some(sequence) = sequence else { return Ok(None) };
        let stored = self.journal(move |feed| feed.record_at(sequence)).await?;
        // A key is known by its hash.
        let is_it = |stored: &Arc<Stored>| {
            stored.record.tenant == tenant && key.as_ref().is_none_or(|key| stored.record.key.as_ref() == Some(key))
        };
        let stored = stored.filter(is_it);
        Ok(stored.map(|s| event(&s.record.recorded(s.first, (sequence.0 - s.first.0) as usize))))
    }
}

/// The entries at these positions. Neighbours mostly stand in one record, which is read once.
fn entries_at(feed: &Feed, positions: &[Sequence]) -> Result<Vec<Entry>, ReadError> {
    let mut entries = Vec::with_capacity(positions.len());
    let mut last: Option<Arc<Stored>> = None;
    for &sequence in positions {
        let holds = |stored: &Arc<Stored>| stored.first <= sequence && sequence <= stored.last();
        if !last.as_ref().is_some_and(holds) {
            last = feed.record_at(sequence)?;
        }
        let Some(stored) = &last else { continue };
        entries.extend(Entry::of(&stored.record.recorded(stored.first, (sequence.0 - stored.first.0) as usize)));
    }
    Ok(entries)
}
