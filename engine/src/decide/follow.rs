//! What follows when a member has changed: points counted for leaderboards, tiers, segments, rewards within reach.
//!
//! # Invariants
//!
//! - In this order, each looked at once: none of them changes what one before it goes by.

use std::collections::BTreeSet;

use cel::Value;
use serde::Serialize;

use super::draft::Draft;
use super::{Decision, reward};
use crate::event::*;
use crate::expression::variable;
use crate::id::MemberId;
use crate::loyalty::member::{Card, Member};
use crate::loyalty::programme::TierBasis;
use crate::loyalty::tenant::TenantConfig;
use crate::rejection::Rejection;
use crate::time::UnixMillis;

/// Ends a draft: what follows is added.
pub(super) fn up(mut draft: Draft<'_>) -> Result<Decision, Rejection> {
    if draft.config.follows_up() {
        scores(&mut draft)?;
        for at in 0..draft.parties.len() {
            for event in changes(draft.config, &draft.parties[at].now, draft.set.now) {
                draft.push(event)?;
            }
        }
        reward::redeemable(&mut draft)?;
    }
    Ok(Decision::Events(draft.events))
}

/// Points that were earned, or taken back, count for the rounds that run now.
fn scores(draft: &mut Draft<'_>) -> Result<(), Rejection> {
    let mut scored: Vec<(MemberId, crate::id::CampaignId, i64)> = Vec::new();
    for event in &draft.events {
        let (member_id, campaign_id, points) = match event {
            Event::PointsCredited(e) if e.origin.is_earned() => (e.member_id, &e.campaign_id, e.amount.0),
            Event::PointsDebited(e) if matches!(e.origin, Origin::Reversal { earned: true, .. }) => {
                (e.member_id, &e.campaign_id, -e.amount.0)
            }
            _ => continue,
        };
        match scored.iter_mut().find(|(member, campaign, _)| *member == member_id && campaign == campaign_id) {
            Some((_, _, sum)) => *sum = sum.saturating_add(points),
            None => scored.push((member_id, campaign_id.clone(), points)),
        }
    }
    for (member_id, campaign_id, points) in scored {
        let campaign = draft.config.campaigns.get(&campaign_id).expect("campaigns are never removed");
        for board in &campaign.programme.leaderboards {
            let (leaderboard_id, round) = (board.id.clone(), board.period.number(draft.set.now));
            let campaign_id = campaign_id.clone();
            draft.push(LeaderboardScored { member_id, campaign_id, leaderboard_id, round, points })?;
        }
    }
    Ok(())
}

/// Tiers and segments that are not what they should be at `now`.
pub(super) fn changes(config: &TenantConfig, member: &Member, now: UnixMillis) -> Vec<Event> {
    if member.is_gone() {
        return Vec::new();
    }
    let mut events = Vec::new();
    for card in &member.cards {
        let campaign = config.campaigns.get(&card.campaign_id).expect("campaigns are never removed");
        let programme = &campaign.programme;
        let value = match programme.tier_basis {
            TierBasis::Balance => card.points.balance,
            TierBasis::Earned { months } => card.earned_in(months, now),
        };
        let tier = programme.tier_at(value);
        if tier.map(|tier| &tier.id) == card.tier.as_ref() {
            continue;
        }
        // A tier that is no more has no name either.
        let previous = card.tier.as_ref().and_then(|id| programme.tier(id));
        events.push(
            TierChanged {
                member_id: member.id,
                campaign_id: card.campaign_id.clone(),
                previous: previous.map(|tier| tier.name.clone()),
                current: tier.map(|tier| tier.name.clone()),
                previous_tier_id: card.tier.clone(),
                current_tier_id: tier.map(|tier| tier.id.clone()),
            }
            .into(),
        );
    }
    if config.segments.is_empty() {
        return events;
    }
    // Segments see the tiers as they will be.
    let after = |event: &Event| match event {
        Event::TierChanged(e) => Some((e.campaign_id.clone(), e.current_tier_id.clone())),
        _ => None,
    };
    // None of them goes by another: they would take turns for ever.
    let mut seen = Member { segments: BTreeSet::new(), ..member.clone() };
    for (campaign_id, tier) in events.iter().filter_map(after) {
        if let Some(card) = seen.cards.iter_mut().find(|card| card.campaign_id == campaign_id) {
            card.tier = tier;
        }
    }
    let variables = [("member", member_variable(&seen))];
    for segment in config.segments.values() {
        let (member_id, segment_id, segment_name) = (member.id, segment.id.clone(), segment.name.clone());
        match (member.segments.contains(&segment.id), segment.condition.holds(&variables)) {
            (false, true) => events.push(SegmentEntered { member_id, segment_id, segment_name }.into()),
            (true, false) => events.push(SegmentLeft { member_id, segment_id, segment_name }.into()),
            _ => {}
        }
    }
    events
}

/// What expressions see of a member. Names, phone numbers and addresses are not there.
pub(super) fn member_variable(member: &Member) -> Value {
    #[derive(Serialize)]
    struct Seen<'a> {
        id: MemberId,
        created_at_ms: i64,
        blocked: bool,
        birth_date: &'a str,
        locale: &'a str,
        marketing_consent: bool,
        attributes: &'a std::collections::BTreeMap<String, String>,
        channels: &'a std::collections::BTreeMap<String, bool>,
        segments: &'a BTreeSet<crate::id::SegmentId>,
        coins: i64,
        /// Of all cards.
        points: i64,
        /// Of all cards.
        consumptions: u64,
        cards: Vec<SeenCard<'a>>,
    }
    variable(&Seen {
        id: member.id,
        created_at_ms: member.created_at.0,
        blocked: member.blocked.is_some(),
        birth_date: &member.profile.birth_date,
        locale: &member.profile.locale,
        marketing_consent: member.profile.marketing_consent == Some(true),
        attributes: &member.profile.attributes,
        channels: &member.channels,
        segments: &member.segments,
        coins: member.coins.balance,
        points: member.cards.iter().fold(0, |sum, card| sum.saturating_add(card.points.balance)),
        consumptions: member.cards.iter().map(|card| card.consumptions).sum(),
        cards: member.cards.iter().map(seen_card).collect(),
    })
}

/// What expressions see of a card.
pub(super) fn card_variable(card: &Card) -> Value {
    variable(&seen_card(card))
}

#[derive(Serialize)]
struct SeenCard<'a> {
    campaign_id: &'a str,
    joined_at_ms: i64,
    points: i64,
    /// In all.
    earned: i64,
    /// Empty without one.
    tier: &'a str,
    consumptions: u64,
}

fn seen_card(card: &Card) -> SeenCard<'_> {
    SeenCard {
        campaign_id: card.campaign_id.as_str(),
        joined_at_ms: card.joined_at.0,
        points: card.points.balance,
        earned: card.earned_in(0, UnixMillis(0)),
        tier: card.tier.as_ref().map_or("", |tier| tier.as_str()),
        consumptions: card.consumptions,
    }
}
