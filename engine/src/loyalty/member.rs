//! Members: a person in one tenant's programme, with cards, coins and what upstream knows them by.
//!
//! # Invariants
//!
//! - Balances here are the sum of the ledger's entries: [`Member::apply`] asserts that each entry
//!   continues the one before.
//! - Personal data lives here and in `member.*` events, nowhere else. A member that is erased has none.
//!
//! # What is absent on purpose
//!
//! - Ledger entries themselves: a member lists the positions of its entries, the journal has them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::event::{Event, Origin, Recorded, RowState};
use crate::id::{
    CampaignId, KeySlot, LeaderboardId, MemberId, PunchcardId, RewardId, RuleId, SegmentId, Sequence, Tenant, TierId,
};
use crate::loyalty::account::Account;
use crate::loyalty::ledger::Currency;
use crate::loyalty::programme::TIER_MONTHS_MAX;
use crate::loyalty::reward;
use crate::planted::{self, Bug, is_planted};
use crate::quantity::Stamps;
use crate::rejection::InvalidField;
use crate::time::{Period, UnixMillis};

/// Most identifiers of one member.
pub const MEMBER_IDENTIFIERS_MAX: usize = 20;
/// Most campaigns that one member takes part in.
pub const CARDS_MAX: usize = 100;
/// Most attributes of a profile.
pub const ATTRIBUTES_MAX: usize = 50;
/// Longest text field of a profile, in bytes.
pub const PROFILE_TEXT_LEN_MAX: usize = 256;
/// Most periods that a card remembers for one rule's caps. A consumption dated before all of them
/// earns nothing from that rule, since its cap can no longer be told.
pub const CAP_PERIODS_MAX: usize = 400;

/// What kind of thing an identifier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum IdentifierKind {
    /// `phoneNumber`: compared as digits.
    PhoneNumber = 1,
    /// `email`: compared trimmed and in lower case.
    Email = 2,
    /// `externalId`: the id in an upstream system, compared byte by byte.
    ExternalId = 3,
}

impl IdentifierKind {
    /// The key used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            IdentifierKind::PhoneNumber => "phoneNumber",
            IdentifierKind::Email => "email",
            IdentifierKind::ExternalId => "externalId",
        }
    }
}

/// What upstream systems know a member by, in its one normal form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Identifier {
    /// What it is.
    pub kind: IdentifierKind,
    /// Digits, or a lower-case address.
    pub value: String,
}

impl Identifier {
    /// Brings (`key`, `value`) into normal form; `at` is the path for the error.
    ///
    /// # Errors
    ///
    /// `INVALID_IDENTIFIER` for an unknown key or a value that cannot be one.
    pub fn parse(at: &str, key: &str, value: &str) -> Result<Identifier, InvalidField> {
        let invalid = |field: &str, value: &str, rule: &str| {
            InvalidField::with_reason("INVALID_IDENTIFIER", format!("{at}.{field}"), value, rule)
        };
        match key {
            "phoneNumber" => {
                let digits: String = value.chars().filter(char::is_ascii_digit).collect();
                let rest = value.trim().strip_prefix('+').unwrap_or(value.trim());
                let clean = rest.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '/'));
                if !clean || !(5..=15).contains(&digits.len()) {
                    return Err(invalid("value", value, "must be a phone number of 5 to 15 digits"));
                }
                Ok(Identifier { kind: IdentifierKind::PhoneNumber, value: digits })
            }
            "email" => {
                let address = value.trim().to_lowercase();
                let well_formed = address
                    .split_once('@')
                    .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
                let plain = !address.chars().any(|c| c.is_whitespace() || c.is_control());
                if !well_formed || !plain || address.len() > 254 {
                    return Err(invalid("value", value, "must be an e-mail address of at most 254 bytes"));
                }
                Ok(Identifier { kind: IdentifierKind::Email, value: address })
            }
            "externalId" => {
                let id = value.trim();
                if id.is_empty() || id.len() > 128 || id.chars().any(char::is_control) {
                    return Err(invalid("value", value, "must be 1 to 128 bytes without control characters"));
                }
                Ok(Identifier { kind: IdentifierKind::ExternalId, value: id.into() })
            }
            _ => Err(invalid("key", key, "must be phoneNumber, email or externalId")),
        }
    }
}

/// What is known about the person. Personal data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Profile {
    /// Given name; empty if unknown.
    pub first_name: String,
    /// Family name; empty if unknown.
    pub last_name: String,
    /// `YYYY-MM-DD`; empty if unknown.
    pub birth_date: String,
    /// BCP 47, as `ro-RO`; empty if unknown.
    pub locale: String,
    /// Whether marketing is allowed, if it was asked.
    pub marketing_consent: Option<bool>,
    /// Anything else.
    pub attributes: BTreeMap<String, String>,
}

impl Profile {
    /// Checks lengths, counts and the birth date.
    ///
    /// # Errors
    ///
    /// The first field out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let texts = [("first_name", &self.first_name), ("last_name", &self.last_name), ("locale", &self.locale)];
        for (field, text) in texts {
            if text.len() > PROFILE_TEXT_LEN_MAX {
                return Err(InvalidField::new(format!("profile.{field}"), text, "must be at most 256 bytes"));
            }
        }
        let birth_date = &self.birth_date;
        if !birth_date.is_empty() && (birth_date.len() != 10 || birth_date.parse::<jiff::civil::Date>().is_err()) {
            return Err(InvalidField::new("profile.birth_date", birth_date, "must be YYYY-MM-DD"));
        }
        if self.attributes.len() > ATTRIBUTES_MAX {
            let count = self.attributes.len().to_string();
            return Err(InvalidField::new("profile.attributes", count, "must be at most 50"));
        }
        for (key, value) in &self.attributes {
            if key.is_empty() || key.len() > 64 || value.len() > PROFILE_TEXT_LEN_MAX {
                let rule = "must have a key of 1 to 64 bytes and a value of at most 256";
                return Err(InvalidField::new("profile.attributes", format!("{key}={value}"), rule));
            }
        }
        Ok(())
    }
}

/// A person in one tenant's programme.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Whose programme.
    pub tenant: Tenant,
    /// What upstream knows the member by.
    pub identifiers: Vec<Identifier>,
    /// What is known about the person.
    pub profile: Profile,
    /// Under which key both are sealed; none where an earlier version wrote them.
    pub key_slot: KeySlot,
    /// When both were erased, if they were.
    pub erased_at: Option<UnixMillis>,
    /// Why the member is blocked, if so.
    pub blocked: Option<String>,
    /// Coins, over all campaigns.
    pub coins: Account,
    /// One for each campaign joined, in order of joining.
    pub cards: Vec<Card>,
    /// Segments that the member belongs to.
    pub segments: BTreeSet<SegmentId>,
    /// What the member wants to hear from, and what not.
    pub channels: BTreeMap<String, bool>,
    /// Rewards asked for or told to be within reach.
    pub rewards: BTreeMap<RewardId, RewardUse>,
    /// Who brought the member to which campaign.
    pub referrals: Vec<Referred>,
    /// Who the member is now, if merged into another.
    pub merged_into: Option<MemberId>,
    /// Registered.
    pub created_at: UnixMillis,
    /// Last changed.
    pub updated_at: UnixMillis,
    /// Ledger entries in all.
    pub entries: u64,
    /// Positions of the newest entries, ascending; older ones were moved out in full chunks.
    pub entries_tail: Vec<Sequence>,
    /// Position of the last event applied: what makes applying one twice harmless.
    pub as_of: Sequence,
}

/// A member's participation in a campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Which campaign.
    pub campaign_id: CampaignId,
    /// Since when.
    pub joined_at: UnixMillis,
    /// Points.
    pub points: Account,
    /// The tier, if it has one.
    pub tier: Option<TierId>,
    /// Points earned, by calendar month, ascending; older months are added up in the first.
    pub earned: Vec<(i32, i64)>,
    /// Points of the newest rounds of leaderboards: two of each.
    pub scores: Vec<Score>,
    /// Consumptions that a rule of this campaign matched.
    pub consumptions: u64,
    /// Punchcards with any stamps so far.
    pub punchcards: Vec<PunchcardProgress>,
    /// Units counted against caps.
    pub cap_uses: Vec<CapUse>,
}

/// What a member did with a reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RewardUse {
    /// How often it was had, refunded ones left out.
    pub redeemed: u32,
    /// When it was last told to be within reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<UnixMillis>,
}

/// Who brought a member to a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referred {
    /// To which.
    pub campaign_id: CampaignId,
    /// Who.
    pub advocate_id: MemberId,
    /// By which code; empty if unknown.
    pub code: String,
    /// Whether it was rewarded.
    pub succeeded: bool,
}

/// Points in one round of a leaderboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Which.
    pub leaderboard_id: LeaderboardId,
    /// The number of the round.
    pub round: i32,
    /// How many.
    pub points: i64,
}

/// How far one punchcard has come.
#[derive(Debug, Clone, PartialEq)]
pub struct PunchcardProgress {
    /// Which.
    pub punchcard_id: PunchcardId,
    /// In the row that is being filled; below the row length.
    pub stamps: Stamps,
    /// Rows filled.
    pub rows_completed: u64,
}

/// Units of one rule used in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapUse {
    /// Which rule.
    pub rule_id: RuleId,
    /// Over what it counts.
    pub period: Period,
    /// Which one.
    pub number: i32,
    /// Units so far.
    pub units: u64,
}

impl Card {
    /// Units that `rule` may still give in the period that holds `at`.
    pub fn cap_left(&self, rule_id: &RuleId, period: Period, units_max: u64, at: UnixMillis) -> u64 {
        let number = period.number(at);
        let mut of_rule = self.cap_uses.iter().filter(|u| &u.rule_id == rule_id && u.period == period);
        if let Some(used) = of_rule.clone().find(|u| u.number == number) {
            return units_max.saturating_sub(used.units);
        }
        let forgotten = of_rule.clone().count() >= CAP_PERIODS_MAX && of_rule.all(|u| u.number > number);
        if forgotten { 0 } else { units_max }
    }

    /// The progress on a punchcard; nothing so far if it has none.
    pub fn row(&self, id: &PunchcardId) -> (Stamps, u64) {
        let progress = self.punchcards.iter().find(|p| &p.punchcard_id == id);
        progress.map_or((Stamps(0), 0), |p| (p.stamps, p.rows_completed))
    }

    /// Sets how far a punchcard has come.
    pub(crate) fn set_row(&mut self, id: &PunchcardId, row: RowState) {
        let RowState { stamps, rows_completed } = row;
        match self.punchcards.iter_mut().find(|p| &p.punchcard_id == id) {
            Some(place) => (place.stamps, place.rows_completed) = (stamps, rows_completed),
            None => {
                self.punchcards.push(PunchcardProgress { punchcard_id: id.clone(), stamps, rows_completed });
            }
        }
    }

    /// Points earned in the last `months` calendar months up to the one that holds `at`; ever where 0.
    pub fn earned_in(&self, months: u32, at: UnixMillis) -> i64 {
        let now = Period::Month.number(at);
        let inside = |month: i32| months == 0 || month > now - months as i32;
        let inside = self.earned.iter().filter(|(month, _)| inside(*month));
        inside.fold(0, |sum, (_, points)| sum.saturating_add(*points))
    }

    /// Points of a round.
    pub fn score(&self, board: &LeaderboardId, round: i32) -> i64 {
        let of_round = self.scores.iter().find(|s| s.leaderboard_id == *board && s.round == round);
        of_round.map_or(0, |s| s.points)
    }

    fn earn(&mut self, points: i64, at: UnixMillis) {
        let month = Period::Month.number(at);
        match self.earned.last_mut().filter(|(last, _)| *last >= month) {
            // What was spent can be earned again, without end: this is no balance.
            Some((_, earned)) => *earned = earned.saturating_add(points),
            None => self.earned.push((month, points)),
        }
        if self.earned.len() > TIER_MONTHS_MAX as usize + 1 {
            let (_, oldest) = self.earned.remove(0);
            self.earned[0].1 = self.earned[0].1.saturating_add(oldest);
        }
    }

    fn count_score(&mut self, board: &LeaderboardId, round: i32, points: i64) {
        if let Some(score) = self.scores.iter_mut().find(|s| s.leaderboard_id == *board && s.round == round) {
            score.points = score.points.saturating_add(points);
            return;
        }
        let of_board = || self.scores.iter().enumerate().filter(|(_, s)| s.leaderboard_id == *board);
        if of_board().count() >= 2 {
            let oldest = of_board().min_by_key(|(_, s)| s.round).map(|(i, _)| i).expect("there are two");
            self.scores.remove(oldest);
        }
        self.scores.push(Score { leaderboard_id: board.clone(), round, points });
    }

    fn use_cap(&mut self, rule_id: &RuleId, period: Period, number: i32, units: u64) {
        let same = |u: &CapUse| &u.rule_id == rule_id && u.period == period;
        if let Some(used) = self.cap_uses.iter_mut().find(|u| same(u) && u.number == number) {
            used.units += units;
            return;
        }
        if self.cap_uses.iter().filter(|u| same(u)).count() >= CAP_PERIODS_MAX {
            let oldest = (self.cap_uses.iter().enumerate().filter(|(_, u)| same(u)))
                .min_by_key(|(_, u)| u.number)
                .map(|(i, _)| i)
                .expect("the count is above 0");
            self.cap_uses.remove(oldest);
        }
        self.cap_uses.push(CapUse { rule_id: rule_id.clone(), period, number, units });
    }
}

impl Member {
    /// The member that `member.created` brings into being; `None` for any other event.
    pub fn created_by(recorded: &Recorded<'_>) -> Option<Member> {
        let Event::MemberCreated(event) = recorded.event else { return None };
        Some(Member {
            id: event.member_id,
            tenant: recorded.tenant,
            identifiers: event.identifiers.clone(),
            profile: event.profile.clone(),
            key_slot: recorded.key_slot,
            erased_at: None,
            blocked: None,
            coins: Account::default(),
            cards: Vec::new(),
            segments: BTreeSet::new(),
            channels: BTreeMap::new(),
            rewards: BTreeMap::new(),
            referrals: Vec::new(),
            merged_into: None,
            created_at: recorded.time,
            updated_at: recorded.time,
            entries: 0,
            entries_tail: Vec::new(),
            as_of: recorded.sequence,
        })
    }

    /// The card of a campaign.
    pub fn card(&self, campaign: &CampaignId) -> Option<&Card> {
        self.cards.iter().find(|c| &c.campaign_id == campaign)
    }

    /// A copy to try events on, without identifiers and positions of entries; and without the profile, if so asked.
    pub(crate) fn without_person(&self, without_profile: bool) -> Member {
        Member {
            id: self.id,
            tenant: self.tenant,
            identifiers: Vec::new(),
            profile: if without_profile { Profile::default() } else { self.profile.clone() },
            key_slot: self.key_slot,
            erased_at: self.erased_at,
            blocked: self.blocked.clone(),
            coins: self.coins.clone(),
            cards: self.cards.clone(),
            segments: self.segments.clone(),
            channels: self.channels.clone(),
            rewards: self.rewards.clone(),
            referrals: self.referrals.clone(),
            merged_into: self.merged_into,
            created_at: self.created_at,
            updated_at: self.updated_at,
            entries: self.entries,
            entries_tail: Vec::new(),
            as_of: self.as_of,
        }
    }

    /// Whether there is nobody any more whom anything could happen to.
    pub fn is_gone(&self) -> bool {
        self.merged_into.is_some() || self.erased_at.is_some()
    }

    /// All accounts, with the campaigns of those that are points.
    pub fn accounts(&self) -> impl Iterator<Item = (Option<&CampaignId>, &Account)> {
        let points = self.cards.iter().map(|card| (Some(&card.campaign_id), &card.points));
        points.chain([(None, &self.coins)])
    }

    /// The account of a currency; `None` without a card.
    pub fn account(&self, currency: &Currency) -> Option<&Account> {
        match currency {
            Currency::Points(campaign) => self.card(campaign).map(|card| &card.points),
            Currency::Coins => Some(&self.coins),
        }
    }

    fn account_mut(&mut self, currency: &Currency) -> &mut Account {
        match currency {
            Currency::Points(campaign) => &mut self.card_mut(campaign).points,
            Currency::Coins => &mut self.coins,
        }
    }

    fn card_mut(&mut self, campaign: &CampaignId) -> &mut Card {
        let card = self.cards.iter_mut().find(|c| &c.campaign_id == campaign);
        card.expect("decide gives points and stamps to cards that exist")
    }

    /// Folds one of this member's events in. One that was folded in before changes nothing.
    ///
    /// # Panics
    ///
    /// If a balance does not continue the one before: a bug of ours, or a journal that is not ours.
    pub fn apply(&mut self, recorded: &Recorded<'_>) {
        if recorded.sequence <= self.as_of {
            return;
        }
        self.as_of = recorded.sequence;
        self.updated_at = recorded.time;
        if is_planted(Bug::ApplyReadsClock) {
            self.updated_at = recorded.time.plus_ms(planted::reading());
        }
        self.key_slot = self.key_slot.max(recorded.key_slot);
        match recorded.event {
            Event::MemberUpdated(e) => {
                self.identifiers.clone_from(&e.identifiers);
                self.profile.clone_from(&e.profile);
            }
            Event::MemberBlocked(e) => self.blocked = Some(e.reason.clone()),
            Event::MemberUnblocked(_) => self.blocked = None,
            Event::MemberErased(_) => {
                (self.identifiers, self.profile, self.blocked) = (Vec::new(), Profile::default(), None);
                self.erased_at = Some(recorded.time);
                self.channels.clear();
                self.segments.clear();
            }
            Event::MemberJoinedCampaign(e) => self.cards.push(Card {
                campaign_id: e.campaign_id.clone(),
                joined_at: recorded.time,
                points: Account::default(),
                tier: None,
                earned: Vec::new(),
                scores: Vec::new(),
                consumptions: 0,
                punchcards: Vec::new(),
                cap_uses: Vec::new(),
            }),
            Event::ConsumptionCounted(e) => {
                let card = self.card_mut(&e.campaign_id);
                card.consumptions += 1;
                for used in &e.cap_uses {
                    card.use_cap(&used.rule_id, used.period, used.number, used.units);
                }
            }
            Event::PointsCredited(e) => {
                let card = self.card_mut(&e.campaign_id);
                assert_eq!(card.points.balance, e.previous_balance.0, "points at {}", recorded.sequence);
                card.points.credit(e.amount.0, e.expires_at);
                if e.origin.is_earned() {
                    card.earn(e.amount.0, recorded.time);
                }
                self.entered(recorded.sequence);
            }
            Event::PointsDebited(e) => {
                let card = self.card_mut(&e.campaign_id);
                assert_eq!(card.points.balance, e.previous_balance.0, "points at {}", recorded.sequence);
                card.points.debit(e.amount.0, e.hold_id.as_deref());
                if matches!(e.origin, Origin::Reversal { earned: true, .. }) {
                    card.earn(-e.amount.0, recorded.time);
                }
                self.entered(recorded.sequence);
            }
            Event::CoinsChanged(e) => {
                assert_eq!(self.coins.balance, e.previous_balance.0, "coins of {} at {}", self.id, recorded.sequence);
                match e.amount.0 {
                    amount if amount > 0 => self.coins.credit(amount, e.expires_at),
                    amount => self.coins.debit(-amount, e.hold_id.as_deref()),
                }
                self.entered(recorded.sequence);
            }
            Event::HoldPlaced(e) => self.account_mut(&e.currency).place(&e.hold_id, e.amount, e.until),
            Event::HoldVoided(e) => self.account_mut(&e.currency).release(&e.hold_id),
            Event::RedemptionStarted(e) => {
                let hold = reward::hold_id(&e.redemption_id);
                self.account_mut(&e.cost.currency(&e.campaign_id)).place(&hold, e.cost.amount(), e.until);
                self.rewards.entry(e.reward_id.clone()).or_default().redeemed += 1;
            }
            Event::RedemptionFailed(e) => {
                let hold = reward::hold_id(&e.redemption_id);
                self.account_mut(&e.cost.currency(&e.campaign_id)).release(&hold);
                self.give_back(&e.reward_id);
            }
            Event::RedemptionRefunded(e) => self.give_back(&e.reward_id),
            Event::RewardRedeemable(e) => {
                self.rewards.entry(e.reward_id.clone()).or_default().told_at = Some(recorded.time);
            }
            Event::TierChanged(e) => self.card_mut(&e.campaign_id).tier.clone_from(&e.current_tier_id),
            Event::SegmentEntered(e) => {
                self.segments.insert(e.segment_id.clone());
            }
            Event::SegmentLeft(e) => {
                self.segments.remove(&e.segment_id);
            }
            Event::LeaderboardScored(e) => {
                self.card_mut(&e.campaign_id).count_score(&e.leaderboard_id, e.round, e.points);
            }
            Event::ReferralLinked(e) => self.referrals.push(Referred {
                campaign_id: e.campaign_id.clone(),
                advocate_id: e.advocate_id,
                code: e.code.clone(),
                succeeded: false,
            }),
            Event::ReferralSucceededFriend(e) => {
                if let Some(referred) = self.referrals.iter_mut().find(|r| r.campaign_id == e.campaign_id) {
                    referred.succeeded = true;
                }
            }
            Event::MemberChannelSet(e) => {
                self.channels.insert(e.channel.clone(), e.subscribed);
            }
            Event::MemberMergedInto(e) => {
                self.merged_into = Some(e.into_member_id);
                self.identifiers.clear();
                self.profile = Profile::default();
                self.segments.clear();
                self.channels.clear();
            }
            Event::PunchcardStampsReceived(e) => {
                let card = self.card_mut(&e.campaign_id);
                let before = (e.previous.stamps, e.previous.rows_completed);
                assert_eq!(card.row(&e.punchcard_id), before, "stamps at {}", recorded.sequence);
                card.set_row(&e.punchcard_id, e.new);
            }
            _ => {}
        }
    }

    fn give_back(&mut self, reward: &RewardId) {
        let used = self.rewards.entry(reward.clone()).or_default();
        used.redeemed = used.redeemed.saturating_sub(1);
    }

    fn entered(&mut self, at: Sequence) {
        self.entries += 1;
        self.entries_tail.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_one_form() {
        for (key, value, expected) in [
            ("phoneNumber", "40720005123", Some("40720005123")),
            ("phoneNumber", "+40 720-005.123", Some("40720005123")),
            ("phoneNumber", "(0720) 005123", Some("0720005123")),
            ("phoneNumber", "1234", None),
            ("phoneNumber", "1234567890123456", None),
            ("phoneNumber", "40720x05123", None),
            ("phoneNumber", "", None),
            ("email", " User@Example.COM ", Some("user@example.com")),
            ("email", "user", None),
            ("email", "@example.com", None),
            ("email", "a b@example.com", None),
            ("email", "a@b@c", None),
            ("loyaltyId", "1", None),
        ] {
            let parsed = Identifier::parse("identifiers[0]", key, value).ok().map(|i| i.value);
            assert_eq!(parsed.as_deref(), expected, "{key} {value}");
        }
    }
}
