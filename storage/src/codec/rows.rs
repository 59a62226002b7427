//! The rows of the views.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use punchline_engine::dispatch::{
    AttemptLog, BreakerState, DeliveryJob, DeliveryRow, DeliveryState, EventSelection, JobKind, JobState, RowState,
};
use punchline_engine::id::{CouponBookId, KeySlot, MemberId, RewardId, SegmentId, Sequence};
use punchline_engine::loyalty::account::{Account, Hold, Lot};
use punchline_engine::loyalty::job::Job;
use punchline_engine::loyalty::ledger::{BookState, Currency, House, HouseAccount, JobRun};
use punchline_engine::loyalty::member::{CapUse, Card, Member, PunchcardProgress, Referred, RewardUse, Score};
use punchline_engine::quantity::Stamps;
use punchline_engine::time::{Period, UnixMillis};
use punchline_proto::journal as wire;
use serde::{Deserialize, Serialize};

use super::CodecError;
use super::person::{Personal, person_from_wire, person_to_wire};
use super::word::{
    Kind, deltas, each, id, job_id, json_or_default, json_unless_default, member_id, status, tenant, undeltas,
    uuid_bytes,
};
use crate::member_keys::{KeysError, MemberKeys};

pub(super) fn member_to_wire(member: &Member, keys: &MemberKeys) -> Result<wire::MemberRow, KeysError> {
    let personal = person_to_wire(&member.identifiers, &member.profile, member.key_slot, keys)?;
    Ok(wire::MemberRow {
        id: uuid_bytes(&member.id.0),
        advertiser_id: member.tenant.advertiser.0,
        environment: member.tenant.environment.wire_number(),
        identifiers: personal.identifiers,
        profile: personal.profile,
        blocked: member.blocked.clone(),
        coins: member.coins.balance,
        coins_parts: parts_to_wire(&member.coins),
        merged_into: member.merged_into.map(|MemberId(id)| uuid_bytes(&id)),
        more: json_unless_default(&MoreOfMember {
            segments: Cow::Borrowed(&member.segments),
            channels: Cow::Borrowed(&member.channels),
            rewards: Cow::Borrowed(&member.rewards),
            referrals: Cow::Borrowed(&member.referrals),
        }),
        cards: member.cards.iter().map(card_to_wire).collect(),
        created_at_ms: member.created_at.0,
        updated_at_ms: member.updated_at.0,
        entries: member.entries,
        entries_tail_deltas: deltas(member.entries_tail.iter()).collect(),
        as_of: member.as_of.0,
        person: personal.person,
        key_slot: member.key_slot.0,
        erased_at_ms: member.erased_at.map(|at| at.0),
    })
}

pub(super) fn member_from_wire(row: wire::MemberRow, keys: &MemberKeys) -> Result<Member, CodecError> {
    let id = member_id("id", &row.id)?;
    let personal = Personal { identifiers: row.identifiers, profile: row.profile, person: row.person };
    let key_slot = KeySlot(row.key_slot);
    let (identifiers, profile) = person_from_wire(personal, key_slot, keys)?;
    let more: MoreOfMember<'_> = json_or_default("more", &row.more)?;
    Ok(Member {
        id,
        tenant: tenant(row.advertiser_id, row.environment)?,
        identifiers,
        profile,
        key_slot,
        erased_at: row.erased_at_ms.map(UnixMillis),
        blocked: row.blocked,
        coins: account_from_wire(row.coins, row.coins_parts),
        cards: each("cards", row.cards, card_from_wire)?,
        segments: more.segments.into_owned(),
        channels: more.channels.into_owned(),
        rewards: more.rewards.into_owned(),
        referrals: more.referrals.into_owned(),
        merged_into: row.merged_into.map(|bytes| member_id("merged_into", &bytes)).transpose()?,
        created_at: UnixMillis(row.created_at_ms),
        updated_at: UnixMillis(row.updated_at_ms),
        entries: row.entries,
        entries_tail: undeltas(row.entries_tail_deltas.into_iter()).collect(),
        as_of: Sequence(row.as_of),
    })
}

/// What few members have any of.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct MoreOfMember<'a> {
    segments: Cow<'a, BTreeSet<SegmentId>>,
    channels: Cow<'a, BTreeMap<String, bool>>,
    rewards: Cow<'a, BTreeMap<RewardId, RewardUse>>,
    referrals: Cow<'a, [Referred]>,
}

/// What an account without [`parts_to_wire`] is made of.
fn plain_lots(balance: i64) -> Vec<Lot> {
    if balance > 0 { vec![Lot { expires_at: None, amount: balance }] } else { Vec::new() }
}

fn parts_to_wire(account: &Account) -> Option<wire::AccountParts> {
    if account.holds.is_empty() && account.lots == plain_lots(account.balance) {
        return None;
    }
    let lots = |lots: &[Lot]| {
        let lot = |lot: &Lot| wire::Lot { expires_at_ms: lot.expires_at.map(|t| t.0), amount: lot.amount };
        lots.iter().map(lot).collect()
    };
    let hold = |hold: &Hold| wire::Hold { id: hold.id.clone(), lots: lots(&hold.lots), until_ms: hold.until.0 };
    Some(wire::AccountParts { lots: lots(&account.lots), holds: account.holds.iter().map(hold).collect() })
}

fn account_from_wire(balance: i64, parts: Option<wire::AccountParts>) -> Account {
    let Some(parts) = parts else { return Account { balance, lots: plain_lots(balance), holds: Vec::new() } };
    let lots = |lots: Vec<wire::Lot>| {
        let lot = |lot: wire::Lot| Lot { expires_at: lot.expires_at_ms.map(UnixMillis), amount: lot.amount };
        lots.into_iter().map(lot).collect()
    };
    let hold = |hold: wire::Hold| Hold { id: hold.id, lots: lots(hold.lots), until: UnixMillis(hold.until_ms) };
    Account { balance, lots: lots(parts.lots), holds: parts.holds.into_iter().map(hold).collect() }
}

fn card_to_wire(card: &Card) -> wire::Card {
    let progress = |p: &PunchcardProgress| wire::PunchcardProgress {
        punchcard_id: p.punchcard_id.as_str().into(),
        stamps: p.stamps.0,
        rows_completed: p.rows_completed,
    };
    wire::Card {
        campaign_id: card.campaign_id.as_str().into(),
        joined_at_ms: card.joined_at.0,
        points: card.points.balance,
        points_parts: parts_to_wire(&card.points),
        tier_id: card.tier.as_ref().map(|id| id.as_str().into()),
        earned_months: card.earned.iter().map(|(month, _)| *month).collect(),
        earned_points: card.earned.iter().map(|(_, points)| *points).collect(),
        scores: (card.scores.iter())
            .map(|s| wire::Score { leaderboard_id: s.leaderboard_id.as_str().into(), round: s.round, points: s.points })
            .collect(),
        consumptions: card.consumptions,
        punchcards: card.punchcards.iter().map(progress).collect(),
        cap_uses: card.cap_uses.iter().map(cap_use_to_wire).collect(),
    }
}

fn card_from_wire(card: wire::Card) -> Result<Card, CodecError> {
    let progress = |p: wire::PunchcardProgress| {
        let (stamps, rows_completed) = (Stamps(p.stamps), p.rows_completed);
        Ok(PunchcardProgress { punchcard_id: id("punchcard_id", &p.punchcard_id)?, stamps, rows_completed })
    };
    let score = |s: wire::Score| {
        Ok(Score { leaderboard_id: id("leaderboard_id", &s.leaderboard_id)?, round: s.round, points: s.points })
    };
    if card.earned_months.len() != card.earned_points.len() {
        return Err(CodecError::invalid("earned_points", "are not as many as earned_months"));
    }
    Ok(Card {
        campaign_id: id("campaign_id", &card.campaign_id)?,
        joined_at: UnixMillis(card.joined_at_ms),
        points: account_from_wire(card.points, card.points_parts),
        tier: card.tier_id.map(|tier| id("tier_id", &tier)).transpose()?,
        earned: card.earned_months.into_iter().zip(card.earned_points).collect(),
        scores: each("scores", card.scores, score)?,
        consumptions: card.consumptions,
        punchcards: each("punchcards", card.punchcards, progress)?,
        cap_uses: each("cap_uses", card.cap_uses, cap_use_from_wire)?,
    })
}

pub(super) fn cap_use_to_wire(used: &CapUse) -> wire::CapUse {
    wire::CapUse {
        rule_id: used.rule_id.as_str().into(),
        period: used.period.wire_number(),
        number: used.number,
        units: used.units,
    }
}

pub(super) fn cap_use_from_wire(used: wire::CapUse) -> Result<CapUse, CodecError> {
    let (rule_id, period) = (id("rule_id", &used.rule_id)?, Period::of("period", used.period)?);
    Ok(CapUse { rule_id, period, number: used.number, units: used.units })
}

pub(super) fn house_to_wire(house: &House) -> wire::HouseRow {
    let account = |(currency, account): (&Currency, &HouseAccount)| wire::HouseAccount {
        campaign_id: match currency {
            Currency::Points(campaign) => Some(campaign.as_str().into()),
            Currency::Coins => None,
        },
        house: account.house,
        members: account.members,
    };
    wire::HouseRow {
        accounts: house.accounts.iter().map(account).collect(),
        members: house.members,
        consumptions: house.consumptions,
        as_of: house.as_of.0,
        more: json_unless_default(&MoreOfHouse {
            redeemed: Cow::Borrowed(&house.redeemed),
            books: Cow::Borrowed(&house.books),
            jobs: Cow::Borrowed(&house.jobs),
        }),
    }
}

/// What few houses have any of.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct MoreOfHouse<'a> {
    redeemed: Cow<'a, BTreeMap<RewardId, u64>>,
    books: Cow<'a, BTreeMap<CouponBookId, BookState>>,
    jobs: Cow<'a, BTreeMap<Job, JobRun>>,
}

pub(super) fn house_from_wire(row: wire::HouseRow) -> Result<House, CodecError> {
    let account = |a: wire::HouseAccount| {
        let currency = match a.campaign_id {
            Some(campaign) => Currency::Points(id("campaign_id", &campaign)?),
            None => Currency::Coins,
        };
        Ok((currency, HouseAccount { house: a.house, members: a.members }))
    };
    let listed = each("accounts", row.accounts, account)?;
    let count = listed.len();
    let accounts = BTreeMap::from_iter(listed);
    if accounts.len() < count {
        return Err(CodecError::invalid("accounts", "a currency stands twice"));
    }
    let more: MoreOfHouse<'_> = json_or_default("more", &row.more)?;
    Ok(House {
        accounts,
        members: row.members,
        consumptions: row.consumptions,
        redeemed: more.redeemed.into_owned(),
        books: more.books.into_owned(),
        jobs: more.jobs.into_owned(),
        as_of: Sequence(row.as_of),
    })
}

pub(super) fn delivery_state_to_wire(state: &DeliveryState) -> wire::DeliveryStateRow {
    wire::DeliveryStateRow {
        cursor: state.cursor.0,
        finished_deltas: deltas(state.finished.iter()).map(u64::cast_signed).collect(),
        as_of: state.as_of.0,
        breaker: Some(state.breaker).filter(|b| *b != BreakerState::Closed).map(breaker_to_wire),
        jobs: state.jobs.iter().map(job_to_wire).collect(),
    }
}

pub(super) fn breaker_to_wire(breaker: BreakerState) -> wire::Breaker {
    let (state, failing_since, until, round) = match breaker {
        BreakerState::Closed => (wire::BreakerState::Closed, UnixMillis(0), UnixMillis(0), 0),
        BreakerState::Open { failing_since, until, round } => (wire::BreakerState::Open, failing_since, until, round),
        BreakerState::HalfOpen { failing_since, round } => {
            (wire::BreakerState::HalfOpen, failing_since, UnixMillis(0), round)
        }
    };
    wire::Breaker { state: state as i32, failing_since_ms: failing_since.0, until_ms: until.0, round }
}

pub(super) fn breaker_from_wire(breaker: Option<wire::Breaker>) -> Result<BreakerState, CodecError> {
    let Some(breaker) = breaker else { return Ok(BreakerState::Closed) };
    let (failing_since, round) = (UnixMillis(breaker.failing_since_ms), breaker.round);
    match wire::BreakerState::try_from(breaker.state) {
        Ok(wire::BreakerState::Unspecified | wire::BreakerState::Closed) => Ok(BreakerState::Closed),
        Ok(wire::BreakerState::Open) => {
            Ok(BreakerState::Open { failing_since, until: UnixMillis(breaker.until_ms), round })
        }
        Ok(wire::BreakerState::HalfOpen) => Ok(BreakerState::HalfOpen { failing_since, round }),
        Err(_) => Err(CodecError::invalid("breaker.state", format_args!("{} is not known", breaker.state))),
    }
}

pub(super) fn job_to_wire(job: &DeliveryJob) -> wire::DeliveryJob {
    wire::DeliveryJob {
        id: uuid_bytes(&job.id.0),
        kind: job.kind.wire_number(),
        from_sequence: job.from_sequence.0,
        to_sequence: job.to_sequence.0,
        event_types: job.event_types.patterns().to_vec(),
        member_ids: job.members.iter().map(|m| uuid_bytes(&m.0)).collect(),
        sequence_deltas: deltas(job.sequences.iter()).collect(),
        limit: job.limit,
        per_second: job.per_second,
        started_at_ms: job.started_at.0,
        state: job.state.wire_number(),
        next_sequence: job.next_sequence.0,
        put_back: job.put_back,
    }
}

pub(super) fn job_from_wire(job: wire::DeliveryJob) -> Result<DeliveryJob, CodecError> {
    let event_types = EventSelection::parse("event_types", job.event_types);
    Ok(DeliveryJob {
        id: job_id("id", &job.id)?,
        kind: JobKind::of("kind", job.kind)?,
        from_sequence: Sequence(job.from_sequence),
        to_sequence: Sequence(job.to_sequence),
        event_types: event_types.map_err(|why| CodecError::invalid("event_types", why))?,
        members: each("member_ids", job.member_ids, |bytes| member_id("id", &bytes))?,
        sequences: undeltas(job.sequence_deltas.into_iter()).collect(),
        limit: job.limit,
        per_second: job.per_second,
        started_at: UnixMillis(job.started_at_ms),
        state: JobState::of("state", job.state)?,
        next_sequence: Sequence(job.next_sequence),
        put_back: job.put_back,
    })
}

pub(super) fn delivery_state_from_wire(row: wire::DeliveryStateRow) -> Result<DeliveryState, CodecError> {
    Ok(DeliveryState {
        cursor: Sequence(row.cursor),
        finished: undeltas(row.finished_deltas.into_iter().map(i64::cast_unsigned)).collect(),
        breaker: breaker_from_wire(row.breaker)?,
        jobs: each("jobs", row.jobs, job_from_wire)?,
        as_of: Sequence(row.as_of),
    })
}

pub(super) fn delivery_row_to_wire(row: &DeliveryRow) -> wire::DeliveryRow {
    let (state, step, due_ms) = match row.state {
        RowState::Waiting { step, due } => (wire::RowState::Waiting, step, due.0),
        RowState::Held => (wire::RowState::Held, 0, 0),
        RowState::Dead => (wire::RowState::Dead, 0, 0),
        RowState::Delivered => (wire::RowState::Delivered, 0, 0),
        RowState::Dropped => (wire::RowState::Dropped, 0, 0),
    };
    wire::DeliveryRow {
        sequence: row.sequence.0,
        member_id: row.member.map(|MemberId(id)| uuid_bytes(&id)),
        state: state as i32,
        step,
        due_ms,
        attempts: row.attempts,
        log: row.log.iter().map(attempt_to_wire).collect(),
    }
}

pub(super) fn delivery_row_from_wire(row: wire::DeliveryRow) -> Result<DeliveryRow, CodecError> {
    let state = match wire::RowState::try_from(row.state) {
        Ok(wire::RowState::Waiting) => RowState::Waiting { step: row.step, due: UnixMillis(row.due_ms) },
        Ok(wire::RowState::Held) => RowState::Held,
        Ok(wire::RowState::Dead) => RowState::Dead,
        Ok(wire::RowState::Delivered) => RowState::Delivered,
        Ok(wire::RowState::Dropped) => RowState::Dropped,
        Ok(wire::RowState::Unspecified) => return Err(CodecError::missing("state")),
        Err(_) => return Err(CodecError::invalid("state", format_args!("{} is not known", row.state))),
    };
    Ok(DeliveryRow {
        sequence: Sequence(row.sequence),
        member: row.member_id.map(|bytes| member_id("member_id", &bytes)).transpose()?,
        state,
        attempts: row.attempts,
        log: each("log", row.log, attempt_from_wire)?,
    })
}

fn attempt_to_wire(attempt: &AttemptLog) -> wire::AttemptLog {
    wire::AttemptLog {
        number: attempt.number,
        at_ms: attempt.at.0,
        latency_ms: attempt.latency_ms,
        status: attempt.status.map(u32::from),
        error: attempt.error.clone(),
        response: attempt.response.clone(),
        key_slot: attempt.key_slot.0,
    }
}

fn attempt_from_wire(attempt: wire::AttemptLog) -> Result<AttemptLog, CodecError> {
    Ok(AttemptLog {
        number: attempt.number,
        at: UnixMillis(attempt.at_ms),
        latency_ms: attempt.latency_ms,
        status: attempt.status.map(|s| status("status", s)).transpose()?,
        error: attempt.error,
        response: attempt.response,
        key_slot: KeySlot(attempt.key_slot),
    })
}
