//! What the clock asks for, member by member.
//!
//! # Invariants
//!
//! - A run looks at its own time, not at the time it is made up at.
//! - A member whom it does not concern any more is passed over.

use jiff::civil;

use super::draft::{Draft, Owed};
use super::{Decision, WorkingSet, follow};
use crate::event::*;
use crate::id::{CampaignId, LeaderboardId, MemberId};
use crate::loyalty::account::sum;
use crate::loyalty::job::{self, Job, Run};
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::Member;
use crate::loyalty::tenant::TenantConfig;
use crate::rejection::Rejection;
use crate::time::UnixMillis;

pub(super) fn run(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    (job, run, last): (Job, Run, Option<Run>),
) -> Result<Decision, Rejection> {
    let mut draft = Draft::new(set, config, member);
    match job {
        Job::Recalculation => {
            for event in follow::changes(config, member, run.at) {
                draft.push(event)?;
            }
        }
        Job::Expiry => {
            expire(&mut draft, run.at)?;
            soon(&mut draft, run, last)?;
        }
        Job::Birthdays => {
            if let Some((day, age)) = job::birthday(member, run, last) {
                birthday(&mut draft, day, age)?;
            }
        }
        Job::Leaderboards => {}
    }
    if draft.events.is_empty() {
        return Ok(Decision::Already(member.as_of));
    }
    if job == Job::Recalculation {
        return Ok(Decision::Events(draft.events));
    }
    follow::up(draft)
}

/// Every account of the member, with its campaign.
fn currencies(member: &Member) -> Vec<Currency> {
    let points = member.cards.iter().map(|card| Currency::Points(card.campaign_id.clone()));
    points.chain([Currency::Coins]).collect()
}

fn expire(draft: &mut Draft<'_>, at: UnixMillis) -> Result<(), Rejection> {
    let member_id = draft.member().id;
    for currency in currencies(draft.member()) {
        let account = draft.member().account(&currency).expect("it is one of the member's");
        let lots: Vec<_> = account.expired(at).copied().collect();
        for lot in lots {
            let (amount, expired_at) = (lot.amount, lot.expires_at.expect("what never expires has not"));
            match &currency {
                Currency::Points(campaign_id) => {
                    draft.push(PointsExpired { member_id, campaign_id: campaign_id.clone(), amount, expired_at })?;
                }
                Currency::Coins => draft.push(CoinsExpired { member_id, amount, expired_at })?,
            }
            draft.debit(member_id, &currency, amount, None, Origin::Expiry { expired_at })?;
        }
    }
    Ok(())
}

/// Tells of each lot once: by the first run after which less time is left than the policy says.
fn soon(draft: &mut Draft<'_>, run: Run, last: Option<Run>) -> Result<(), Rejection> {
    let member_id = draft.member().id;
    for currency in currencies(draft.member()) {
        let days = i64::from(draft.config.policy(&currency).expiring_soon_days);
        if days == 0 {
            continue;
        }
        let told_until = last.map_or(run.at, |last| last.at.plus_ms(days * UnixMillis::DAY_MS)).max(run.at);
        let tell_until = run.at.plus_ms(days * UnixMillis::DAY_MS);
        let account = draft.member().account(&currency).expect("it is one of the member's");
        let near: Vec<_> = (account.lots.iter())
            .filter_map(|lot| Some((lot.expires_at?, lot.amount)))
            .filter(|(at, _)| *at > told_until && *at <= tell_until)
            .collect();
        for (expires_at, amount) in near {
            match &currency {
                Currency::Points(campaign_id) => {
                    let campaign_id = campaign_id.clone();
                    draft.push(PointsExpiringSoon { member_id, campaign_id, amount, expires_at })?;
                }
                Currency::Coins => draft.push(CoinsExpiringSoon { member_id, amount, expires_at })?,
            }
        }
    }
    debug_assert!(draft.member().accounts().all(|(_, account)| sum(&account.lots) >= 0));
    Ok(())
}

fn birthday(draft: &mut Draft<'_>, day: civil::Date, age: i16) -> Result<(), Rejection> {
    let member_id = draft.member().id;
    draft.push(MemberBirthday { member_id, age })?;
    let campaigns: Vec<CampaignId> = draft.member().cards.iter().map(|card| card.campaign_id.clone()).collect();
    let at = crate::loyalty::programme::Settings::default().instant(day, 9);
    for id in campaigns {
        let campaign = draft.config.campaigns.get(&id).expect("campaigns are never removed");
        if !campaign.validity.contains(at) || draft.member().blocked.is_some() {
            continue;
        }
        let bonus = campaign.programme.birthday_bonus;
        draft.earn(member_id, &Currency::Points(id), bonus.points.0, Origin::Birthday)?;
        draft.earn(member_id, &Currency::Coins, bonus.coins.0, Origin::Birthday)?;
    }
    Ok(())
}

pub(super) fn award(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    (campaign_id, leaderboard_id): (&CampaignId, &LeaderboardId),
    (round, rank, score): (i32, u32, i64),
) -> Result<Decision, Rejection> {
    let campaign = config.campaigns.get(campaign_id).ok_or_else(|| Rejection::CampaignNotFound(campaign_id.clone()))?;
    let board = campaign.programme.leaderboards.iter().find(|board| board.id == *leaderboard_id);
    let prize = board.and_then(|board| Some((board, board.prize(rank)?)));
    // The board may have been changed since the round was ranked, and the member merged or blocked.
    let earns = !member.is_gone() && member.blocked.is_none();
    let (Some((board, prize)), true) = (prize, earns) else { return Ok(Decision::Already(member.as_of)) };
    let member_id: MemberId = member.id;
    let mut draft = Draft::new(set, config, member);
    draft.push(LeaderboardAwarded {
        member_id,
        campaign_id: campaign_id.clone(),
        leaderboard_id: leaderboard_id.clone(),
        rank,
        score,
        amount: prize.bonus.points.0,
        round_started_at: board.period.start(round),
        round_ended_at: board.period.start(round + 1),
    })?;
    let origin = Origin::Leaderboard { leaderboard_id: leaderboard_id.clone(), rank };
    draft.earn(member_id, &Currency::Points(campaign_id.clone()), prize.bonus.points.0, origin.clone())?;
    draft.earn(member_id, &Currency::Coins, prize.bonus.coins.0, origin.clone())?;
    if let Some(reward_id) = &prize.reward_id {
        let owed = Owed { campaign_id, campaign_type: "leaderboard", reward_id, reward_name: &board.name, amount: 1 };
        draft.owe(member_id, owed, origin)?;
    }
    follow::up(draft)
}
