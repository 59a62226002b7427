//! What a changed campaign would have given for consumptions of the past, beside what the campaign gave.
//!
//! ```text
//! record of a consumption ──┬─ its own events ─────────────────▶ given
//!                           └─ decide(changed campaign) ─events─▶ would give
//! ```
//!
//! # Invariants
//!
//! - Both sides count the same things of the same consumptions: rules, their multipliers, the bonus for the first
//!   consumption.
//! - A member begins with nothing, and has no other card: what the simulation gave it is all that it has.
//! - Memory grows with the members followed, never with the consumptions.
//!
//! # What is absent on purpose
//!
//! - Referrals, leaderboards, birthdays, coupons, expiry, spending: they are not the consumption's, or would need
//!   others to be followed too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Decision, EmptyWorld, WorkingSet, decide};
use crate::command::{Action, Command};
use crate::event::{ConsumptionRecorded, Event, Origin, Record, Recorded};
use crate::id::{CampaignId, MemberId, RuleId, Sequence, Tenant};
use crate::loyalty::account::Account;
use crate::loyalty::campaign::Campaign;
use crate::loyalty::consumption::Consumption;
use crate::loyalty::ledger::House;
use crate::loyalty::member::{Card, Identifier, IdentifierKind, Member};
use crate::loyalty::tenant::{Directory, TenantConfig};
use crate::time::UnixMillis;

/// Most members that a simulation follows: each takes about a kilobyte.
pub const MEMBERS_MAX: usize = 100_000;

/// What was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Members that got anything.
    pub members: u64,
    /// Points.
    pub points: i64,
    /// Coins.
    pub coins: i64,
    /// Stamps that found a place.
    pub stamps: u64,
    /// Rows of punchcards filled.
    pub rows_completed: u64,
    /// Units that earned.
    pub units: u64,
    /// What subscribers were to pay out, over all external rewards.
    pub external: i64,
}

/// One side of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Side {
    /// All of it.
    pub totals: Totals,
    /// By rule: the bonus for the first consumption is no rule's.
    pub rules: BTreeMap<RuleId, Totals>,
    members: HashSet<MemberId>,
    rule_members: HashSet<(RuleId, MemberId)>,
}

/// A simulation under way.
#[derive(Debug)]
pub struct Simulation {
    tenant: Tenant,
    campaign_id: CampaignId,
    directory: Directory,
    house: House,
    /// Those followed; `None` for one whose consumptions do not count.
    members: HashMap<MemberId, Option<Member>>,
    members_max: usize,
    /// Consumptions counted.
    pub consumptions: u64,
    /// Consumptions left out because too many members were followed already.
    pub left_out: u64,
    /// Consumptions whose outcome is none: a balance would have overflowed, or the record is too large.
    pub failed: u64,
    /// What the campaign gave.
    pub given: Side,
    /// What the changed one would have given.
    pub would_give: Side,
}

impl Simulation {
    /// A simulation of `campaign`, which was validated, among the settings of `config`. Follows `members_max`
    /// members at most.
    pub fn new(tenant: Tenant, config: &TenantConfig, mut campaign: Campaign, members_max: usize) -> Simulation {
        campaign.programme.referral = None;
        campaign.programme.leaderboards.clear();
        campaign.rules.iter_mut().for_each(|rule| rule.coupon_book = None);
        let campaign_id = campaign.id.clone();
        let campaigns = BTreeMap::from([(campaign_id.clone(), Arc::new(campaign))]);
        // Without segments: members stay in those that they are in.
        let config = TenantConfig { campaigns, settings: config.settings.clone(), ..TenantConfig::default() };
        let directory = Directory { tenants: BTreeMap::from([(tenant, Arc::new(config))]), ..Directory::default() };
        Simulation {
            tenant,
            campaign_id,
            directory,
            house: House::default(),
            members: HashMap::new(),
            members_max,
            consumptions: 0,
            left_out: 0,
            failed: 0,
            given: Side::default(),
            would_give: Side::default(),
        }
    }

    /// Whether somebody must be introduced before a consumption of theirs is taken.
    pub fn wants(&self, id: MemberId) -> bool {
        self.members.len() < self.members_max && !self.members.contains_key(&id)
    }

    /// Introduces somebody as of now; `None` for one whose consumptions do not count. What they have is taken from
    /// them, what they are stays.
    pub fn introduce(&mut self, id: MemberId, member: Option<Member>) {
        let follow = |mut member: Member| {
            let known = member.cards.iter().find(|card| card.campaign_id == self.campaign_id);
            let joined_at = known.map_or(member.created_at, |card| card.joined_at);
            member.id = id;
            member.blocked = None;
            member.merged_into = None;
            member.erased_at = None;
            member.coins = Account::default();
            member.rewards.clear();
            member.referrals.clear();
            member.identifiers = Vec::new();
            member.entries_tail = Vec::new();
            member.cards = vec![Card {
                campaign_id: self.campaign_id.clone(),
                joined_at,
                points: Account::default(),
                tier: None,
                earned: Vec::new(),
                scores: Vec::new(),
                consumptions: 0,
                punchcards: Vec::new(),
                cap_uses: Vec::new(),
            }];
            member
        };
        let followed = member.map(follow);
        self.members.insert(id, followed);
    }

    /// Takes one record of a consumption of this tenant; others change nothing.
    pub fn take(&mut self, record: &Record) {
        let Some(Event::ConsumptionRecorded(recorded)) = record.events.first() else { return };
        let id = recorded.member_id;
        let member = match self.members.get_mut(&id) {
            Some(Some(member)) => member,
            Some(None) => return,
            None => return self.left_out += 1,
        };
        self.consumptions += 1;
        self.given.count(&self.campaign_id, id, &record.events);
        let (command, owners) = command(self.tenant, recorded, id);
        let set = WorkingSet {
            tenant: self.tenant,
            now: record.time,
            directory: &self.directory,
            seen: None,
            owners: &owners,
            member: Some(member),
            house: &self.house,
            next: Sequence(0),
            digest_key: &[],
            world: &EmptyWorld,
        };
        let Ok(Decision::Events(events)) = decide(&set, &command) else { return self.failed += 1 };
        fold(member, self.tenant, record.time, &events);
        self.would_give.count(&self.campaign_id, id, &events);
    }

    /// Members whose consumptions count.
    pub fn members(&self) -> u64 {
        self.members.values().filter(|member| member.is_some()).count() as u64
    }
}

/// The consumption that a record is of, by somebody whom one made-up identifier names.
fn command(tenant: Tenant, recorded: &ConsumptionRecorded, member: MemberId) -> (Command, [Option<MemberId>; 1]) {
    let consumption = Consumption {
        consumption_id: recorded.consumption_id.clone(),
        consumed_at: recorded.consumed_at,
        identifiers: vec![Identifier { kind: IdentifierKind::ExternalId, value: String::new() }],
        lines: recorded.lines.clone(),
    };
    (Command { tenant, request_id: None, action: Action::RecordConsumption(consumption) }, [Some(member)])
}

fn fold(member: &mut Member, tenant: Tenant, time: UnixMillis, events: &[Event]) {
    for event in events {
        let sequence = member.as_of.next();
        let (id, key_slot, quiet) = (Some(member.id), member.key_slot, false);
        member.apply(&Recorded { sequence, cause: sequence, time, tenant, member: id, key_slot, quiet, event });
    }
    member.entries_tail.clear();
}

impl Side {
    /// Counts what a consumption's events gave in a campaign.
    fn count(&mut self, campaign: &CampaignId, member: MemberId, events: &[Event]) {
        // Coins and obligations name no campaign: they are of the one whose rule matched last before them.
        let mut ours = false;
        for event in events {
            let mut more = Totals::default();
            let origin = match event {
                Event::ConsumptionMatched(e) => {
                    ours = e.campaign_id == *campaign;
                    if ours {
                        let units = Totals { units: e.units, ..Totals::default() };
                        self.add(member, Some(&e.rule_id), units);
                    }
                    continue;
                }
                _ if !ours => continue,
                Event::PointsCredited(e) => {
                    more.points = e.amount.0;
                    &e.origin
                }
                Event::CoinsChanged(e) => {
                    more.coins = e.amount.0;
                    &e.origin
                }
                Event::PunchcardStampsReceived(e) => {
                    more.stamps = e.stamps.0;
                    more.rows_completed = e.new.rows_completed - e.previous.rows_completed;
                    &e.origin
                }
                Event::ObligationCreated(e) => {
                    more.external = e.amount;
                    &e.origin
                }
                _ => continue,
            };
            match origin {
                Origin::Consumption { rule_id, .. } => self.add(member, Some(rule_id), more),
                Origin::FirstConsumption { .. } => self.add(member, None, more),
                _ => {}
            }
        }
    }

    fn add(&mut self, member: MemberId, rule: Option<&RuleId>, more: Totals) {
        self.totals.add(more, self.members.insert(member));
        if let Some(rule) = rule {
            let is_new = self.rule_members.insert((rule.clone(), member));
            self.rules.entry(rule.clone()).or_default().add(more, is_new);
        }
    }
}

impl Totals {
    /// Sums of what was given: what has no room is not worth refusing a simulation for.
    fn add(&mut self, more: Totals, is_new_member: bool) {
        self.members += u64::from(is_new_member);
        self.points = self.points.saturating_add(more.points);
        self.coins = self.coins.saturating_add(more.coins);
        self.stamps = self.stamps.saturating_add(more.stamps);
        self.rows_completed = self.rows_completed.saturating_add(more.rows_completed);
        self.units = self.units.saturating_add(more.units);
        self.external = self.external.saturating_add(more.external);
    }
}
