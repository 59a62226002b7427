//! `LedgerService`.

use std::sync::Arc;

use punchline_engine::command::Action;
use punchline_engine::id::{MemberId, Sequence};
use punchline_engine::loyalty::ledger::Entry;
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::Rejection;
use punchline_proto::v1;
use punchline_proto::v1::ledger_service_server::LedgerService;
use punchline_runtime::feed::{Feed, ReadError, Stored};
use tonic::{Request, Response};

use super::{Answer, Api, explain};
use crate::convert::member::{balances, punchcards};
use crate::convert::page::{self, List};
use crate::convert::{currency, entry, event, id};
use crate::refuse::Refused;

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
        let answer = v1::GetBalancesResponse { balances: balances(&member), as_of_sequence: as_of.0 };
        Ok(Response::new(answer))
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
            currency: currency(request.currency)?,
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
        Ok(Response::new(v1::ExplainEntryResponse {
            entry: Some(entry(found)),
            cause: Some(event(&stored.record.recorded(stored.first, 0))),
            rule_json: explained.rule_json,
            explanation: explained.sentence,
        }))
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
