//! A decision in the making: events, and the members as they are after each of them.
//!
//! # Invariants
//!
//! - What an event changes is seen by whatever is decided after it.
//! - An amount that would leave the range of what can be counted is refused, not wrapped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{RECORD_BYTES_MAX, WorkingSet};
use crate::event::*;
use crate::id::{CampaignId, MemberId, RewardId};
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::Member;
use crate::loyalty::tenant::TenantConfig;
use crate::quantity::{Coins, Points};
use crate::rejection::Rejection;
use crate::time::UnixMillis;

/// What an event takes in a record at the least; a test in `storage` holds it.
pub const EARNED_EVENT_BYTES_MIN: usize = 12;

/// A member that the decision is about, before it and now.
pub(super) struct Party<'a> {
    pub(super) before: Cow<'a, Member>,
    pub(super) now: Member,
}

pub(super) struct Draft<'a> {
    pub(super) set: &'a WorkingSet<'a>,
    pub(super) config: &'a TenantConfig,
    /// The record's own member comes first.
    pub(super) parties: Vec<Party<'a>>,
    pub(super) events: Vec<Event>,
    obligations: u32,
    /// What all members together have more by now.
    moved: BTreeMap<Currency, i64>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(set: &'a WorkingSet<'a>, config: &'a TenantConfig, member: &'a Member) -> Draft<'a> {
        // Without what no decision looks at there: this is done for each consumption.
        let lead = Party { before: Cow::Borrowed(member), now: member.without_person(config.segments.is_empty()) };
        Draft { set, config, parties: vec![lead], events: Vec::new(), obligations: 0, moved: BTreeMap::new() }
    }

    /// The record's own member, as it is now.
    pub(super) fn member(&self) -> &Member {
        &self.parties[0].now
    }

    /// A member that takes part, as it is now.
    pub(super) fn party(&self, id: MemberId) -> &Member {
        let party = self.parties.iter().find(|p| p.now.id == id);
        &party.expect("only those who take part are asked for").now
    }

    /// Lets another member take part; `None` where there is none.
    pub(super) fn invite(&mut self, id: MemberId) -> Option<&Member> {
        if let Some(at) = self.parties.iter().position(|p| p.now.id == id) {
            return Some(&self.parties[at].now);
        }
        let member = self.set.world.member(id)?;
        self.parties.push(Party { before: Cow::Owned(member.clone()), now: member });
        self.parties.last().map(|p| &p.now)
    }

    /// Adds an event, and folds it in.
    pub(super) fn push(&mut self, event: impl Into<Event>) -> Result<(), Rejection> {
        let event = event.into();
        let bytes = self.events.len() * EARNED_EVENT_BYTES_MIN;
        if bytes > RECORD_BYTES_MAX {
            return Err(Rejection::RecordTooLarge { bytes, max: RECORD_BYTES_MAX });
        }
        let lead = self.parties[0].now.id;
        let about = event.other_member().unwrap_or(lead);
        if let Some(party) = self.parties.iter_mut().find(|p| p.now.id == about) {
            let sequence = party.now.as_of.next();
            let (time, tenant) = (self.set.now, self.set.tenant);
            let member = Some(about);
            let (key_slot, quiet, event) = (party.now.key_slot, false, &event);
            party.now.apply(&Recorded { sequence, cause: sequence, time, tenant, member, key_slot, quiet, event });
        }
        self.events.push(event);
        Ok(())
    }

    /// Gives a member an amount that expires as the currency's policy says.
    pub(super) fn earn(
        &mut self,
        member_id: MemberId,
        currency: &Currency,
        amount: i64,
        origin: Origin,
    ) -> Result<(), Rejection> {
        let expires_at = self.config.settings.expiry(&self.config.policy(currency), self.set.now);
        self.credit(member_id, currency, amount, expires_at, origin)
    }

    /// Gives a member an amount; nothing where it is 0.
    pub(super) fn credit(
        &mut self,
        member_id: MemberId,
        currency: &Currency,
        amount: i64,
        expires_at: Option<UnixMillis>,
        origin: Origin,
    ) -> Result<(), Rejection> {
        if amount == 0 {
            return Ok(());
        }
        let before = self.balance(member_id, currency)?;
        let after = before.checked_add(amount).ok_or_else(|| overflow(currency))?;
        self.count(currency, amount)?;
        match currency {
            Currency::Points(campaign_id) => self.push(PointsCredited {
                member_id,
                campaign_id: campaign_id.clone(),
                amount: Points(amount),
                previous_balance: Points(before),
                new_balance: Points(after),
                expires_at,
                origin,
            }),
            Currency::Coins => self.push(CoinsChanged {
                member_id,
                amount: Coins(amount),
                previous_balance: Coins(before),
                new_balance: Coins(after),
                expires_at,
                hold_id: None,
                origin,
            }),
        }
    }

    /// Takes an amount from a member; nothing where it is 0. Whether there is enough was checked.
    pub(super) fn debit(
        &mut self,
        member_id: MemberId,
        currency: &Currency,
        amount: i64,
        hold_id: Option<String>,
        origin: Origin,
    ) -> Result<(), Rejection> {
        if amount == 0 {
            return Ok(());
        }
        let before = self.balance(member_id, currency)?;
        let after = before.checked_sub(amount).ok_or_else(|| overflow(currency))?;
        self.count(currency, -amount)?;
        match currency {
            Currency::Points(campaign_id) => self.push(PointsDebited {
                member_id,
                campaign_id: campaign_id.clone(),
                amount: Points(amount),
                previous_balance: Points(before),
                new_balance: Points(after),
                hold_id,
                origin,
            }),
            Currency::Coins => self.push(CoinsChanged {
                member_id,
                amount: Coins(-amount),
                previous_balance: Coins(before),
                new_balance: Coins(after),
                expires_at: None,
                hold_id,
                origin,
            }),
        }
    }

    /// The house's account holds the opposite of all balances together.
    fn count(&mut self, currency: &Currency, amount: i64) -> Result<(), Rejection> {
        let all = self.set.house.accounts.get(currency).map_or(0, |account| account.members);
        let moved = self.moved.entry(currency.clone()).or_default();
        let sum = moved.checked_add(amount).filter(|moved| all.checked_add(*moved).is_some_and(|sum| sum > i64::MIN));
        *moved = sum.ok_or_else(|| overflow(currency))?;
        Ok(())
    }

    fn balance(&self, member_id: MemberId, currency: &Currency) -> Result<i64, Rejection> {
        let member = self.party(member_id);
        member.account(currency).map(|a| a.balance).ok_or_else(|| not_joined(member, currency))
    }

    /// Owes a member what the subscriber pays out.
    pub(super) fn owe(&mut self, member_id: MemberId, owed: Owed<'_>, origin: Origin) -> Result<(), Rejection> {
        self.obligations += 1;
        let obligation_id = format!("ob-{}-{}", self.set.next, self.obligations);
        self.push(ObligationCreated {
            member_id,
            obligation_id,
            campaign_id: owed.campaign_id.clone(),
            campaign_type: owed.campaign_type.into(),
            reward_id: owed.reward_id.clone(),
            reward_name: owed.reward_name.into(),
            amount: owed.amount,
            origin,
        })
    }
}

/// What a subscriber is to pay out.
pub(super) struct Owed<'a> {
    pub(super) campaign_id: &'a CampaignId,
    pub(super) campaign_type: &'a str,
    pub(super) reward_id: &'a RewardId,
    pub(super) reward_name: &'a str,
    pub(super) amount: i64,
}

pub(super) fn overflow(currency: &Currency) -> Rejection {
    Rejection::BalanceOverflow { currency: currency.to_string() }
}

/// The member has no account of points without a card.
pub(super) fn not_joined(member: &Member, currency: &Currency) -> Rejection {
    let Currency::Points(campaign) = currency else { unreachable!("everybody has an account of coins") };
    Rejection::NotJoined { member: member.id, campaign: campaign.clone() }
}
