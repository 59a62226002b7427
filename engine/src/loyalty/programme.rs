//! What a campaign does beyond its earning rules: expiry, multipliers, bonuses, tiers, leaderboards, referrals;
//! and what an advertiser sets for all campaigns.
//!
//! # Invariants
//!
//! - A [`Programme`] that exists has passed [`Programme::validate`]: no two ids are alike, thresholds
//!   ascend, ranks do not overlap, every number is within its bound.
//! - Nothing here refers to what refers to it: tiers go by points, multipliers by tiers, and no multiplier
//!   changes what tiers go by in the same decision.
//!
//! # What is absent on purpose
//!
//! - Balances and ranks: see [`member`](super::member).

use jiff::tz::TimeZone;
use jiff::{Span, civil};
use serde::{Deserialize, Serialize};

use crate::expression::{Expression, RULE_NAMES};
use crate::id::{LeaderboardId, MultiplierId, RewardId, RuleId, SegmentId, TierId};
use crate::loyalty::campaign::{REWARD_MAX, Validity};
use crate::quantity::{Coins, Points};
use crate::rejection::InvalidField;
use crate::time::{Period, UnixMillis};

/// Most tiers of a campaign.
pub const TIERS_MAX: usize = 50;
/// Most multipliers of a campaign: each is tried on each line that matches.
pub const MULTIPLIERS_MAX: usize = 50;
/// Most leaderboards of a campaign: each has a place on every card.
pub const LEADERBOARDS_MAX: usize = 10;
/// Most members that one round of a leaderboard rewards.
pub const WINNERS_MAX: u32 = 1_000;
/// Most segments of a tenant: each is evaluated whenever a member changes.
pub const SEGMENTS_MAX: usize = 50;
/// Most that a multiplier makes of an amount.
pub const PERCENT_MAX: u32 = 10_000;
/// Longest time after which points expire, in days.
pub const EXPIRE_DAYS_MAX: u32 = 36_500;
/// Most months that a tier looks back.
pub const TIER_MONTHS_MAX: u32 = 36;

/// What a campaign does beyond its earning rules. Empty: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Programme {
    /// How long points live, and how far a balance may go below zero.
    pub points: PointsPolicy,
    /// What makes more of points.
    pub multipliers: Vec<Multiplier>,
    /// What several multipliers come to.
    pub stacking: Stacking,
    /// Given for the first consumption that a rule matches.
    pub first_bonus: Bonus,
    /// Given on a birthday.
    pub birthday_bonus: Bonus,
    /// Ranks of members, lowest first; empty: none.
    pub tiers: Vec<Tier>,
    /// What tiers go by.
    pub tier_basis: TierBasis,
    /// Recurring rankings.
    pub leaderboards: Vec<Leaderboard>,
    /// What bringing a friend gives.
    pub referral: Option<Referral>,
}

/// How long points live, and how far a balance may go below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PointsPolicy {
    /// Days after which points expire, at the end of that day; never where 0.
    pub expire_after_days: u32,
    /// Days before that at which the member is told; not told where 0.
    pub expiring_soon_days: u32,
    /// How far corrections and reversals may take a balance below zero.
    pub overdraft: i64,
}

/// Points and coins given at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bonus {
    /// Points.
    pub points: Points,
    /// Coins.
    pub coins: Coins,
}

impl Bonus {
    /// Whether it gives nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Bonus::default()
    }
}

/// Makes more of the points that a line earns. All that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multiplier {
    /// Unique within the campaign.
    pub id: MultiplierId,
    /// 200 doubles; at least 100.
    pub percent: u32,
    /// The card's tier.
    #[serde(default)]
    pub tier: Option<TierId>,
    /// A segment of the member.
    #[serde(default)]
    pub segment: Option<SegmentId>,
    /// Over `line`, `consumption`, `member`, `card`.
    #[serde(default)]
    pub condition: Option<Expression>,
    /// By the consumption's date.
    #[serde(default)]
    pub validity: Validity,
}

/// What several multipliers that hold come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stacking {
    /// The largest counts.
    #[default]
    Best,
    /// What each adds is added: 200 and 150 are 250.
    Add,
    /// One after the other, in the order written, each rounded down: 200 and 150 are 300.
    Multiply,
}

impl Stacking {
    /// What `amount` becomes under these percentages; `None` on overflow.
    pub fn apply(self, amount: i64, percents: &[u32]) -> Option<i64> {
        let times = |amount: i64, percent: u32| amount.checked_mul(i64::from(percent)).map(|p| p / 100);
        match self {
            Stacking::Best => times(amount, percents.iter().copied().max().unwrap_or(100)),
            Stacking::Add => times(amount, 100 + percents.iter().map(|p| p - 100).sum::<u32>()),
            Stacking::Multiply => percents.iter().try_fold(amount, |amount, percent| times(amount, *percent)),
        }
    }
}

/// A rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// Unique within the campaign.
    pub id: TierId,
    /// For people.
    pub name: String,
    /// Reached from here on; 0: everybody has it.
    pub threshold: i64,
}

/// What tiers go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierBasis {
    /// The balance of points.
    #[default]
    Balance,
    /// Points earned in the last calendar months, this one included; ever where 0.
    Earned {
        /// How many.
        months: u32,
    },
}

/// A ranking by points earned in a period, by the time they came in (UTC). Of equals the member that
/// registered first comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaderboard {
    /// Unique within the campaign.
    pub id: LeaderboardId,
    /// For people.
    pub name: String,
    /// How long a round lasts; not the whole campaign.
    pub period: Period,
    /// What ranks give at the end of a round.
    pub prizes: Vec<Prize>,
}

/// What the ranks from one to another give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prize {
    /// From 1.
    pub from_rank: u32,
    /// Inclusive.
    pub to_rank: u32,
    /// To each.
    pub bonus: Bonus,
    /// A reward that the subscriber pays out, to each.
    #[serde(default)]
    pub reward_id: Option<RewardId>,
}

impl Leaderboard {
    /// Members that a round rewards.
    pub fn winners(&self) -> u32 {
        self.prizes.iter().map(|p| p.to_rank).max().unwrap_or(0)
    }

    /// What a rank gives.
    pub fn prize(&self, rank: u32) -> Option<&Prize> {
        self.prizes.iter().find(|p| (p.from_rank..=p.to_rank).contains(&rank))
    }
}

/// What bringing a friend gives, at the friend's first qualifying consumption.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Referral {
    /// To the advocate.
    pub advocate: ReferralReward,
    /// To the friend.
    pub friend: ReferralReward,
    /// Rules whose match qualifies; empty: any.
    pub rule_ids: Vec<RuleId>,
}

/// What one side of a referral gets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReferralReward {
    /// Booked by us.
    pub bonus: Bonus,
    /// Paid out by the subscriber.
    pub reward_id: Option<RewardId>,
}

/// Members who have something in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Unique within the tenant.
    pub id: SegmentId,
    /// For people.
    pub name: String,
    /// Over `member`.
    pub condition: Expression,
    /// Counts changes, from 1; the etag.
    pub version: u64,
}

/// What an advertiser sets for all campaigns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// IANA name, as `Europe/Bucharest`: when days begin and daily jobs run.
    pub time_zone: String,
    /// As [`PointsPolicy`]'s, for coins.
    pub coins: PointsPolicy,
    /// Counts changes; the etag.
    pub version: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { time_zone: "UTC".into(), coins: PointsPolicy::default(), version: 0 }
    }
}

impl Settings {
    /// Checks the time zone and the numbers.
    ///
    /// # Errors
    ///
    /// The first field that is out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if TimeZone::get(&self.time_zone).is_err() {
            return Err(InvalidField::new("time_zone", &self.time_zone, "must be an IANA name, as Europe/Bucharest"));
        }
        self.coins.validate("coins")
    }

    fn zone(&self) -> TimeZone {
        TimeZone::get(&self.time_zone).unwrap_or(TimeZone::UTC)
    }

    /// The day that it is at `at`, here.
    pub fn day(&self, at: UnixMillis) -> civil::Date {
        at.timestamp().to_zoned(self.zone()).date()
    }

    /// The instant of a wall clock's time on a day, here; after it where the clock skips that time.
    pub fn instant(&self, day: civil::Date, hour: i8) -> UnixMillis {
        let zoned = day.at(hour, 0, 0, 0).to_zoned(self.zone());
        UnixMillis(zoned.map_or(UnixMillis::MAX.0, |zoned| zoned.timestamp().as_millisecond()))
    }

    /// When an amount that comes in at `at` expires: at the end of the day `days` later; never where 0.
    pub fn expiry(&self, policy: &PointsPolicy, at: UnixMillis) -> Option<UnixMillis> {
        if policy.expire_after_days == 0 {
            return None;
        }
        let days = Span::new().days(i64::from(policy.expire_after_days) + 1);
        let day = self.day(at).checked_add(days).ok()?;
        Some(self.instant(day, 0))
    }
}

impl PointsPolicy {
    fn validate(&self, at: &str) -> Result<(), InvalidField> {
        let bad = |field: &str, value: String, rule: &str| Err(InvalidField::new(format!("{at}.{field}"), value, rule));
        if self.expire_after_days > EXPIRE_DAYS_MAX {
            return bad("expire_after_days", self.expire_after_days.to_string(), "must be from 0 to 36500");
        }
        if self.expiring_soon_days > 0 && self.expiring_soon_days >= self.expire_after_days {
            let rule = "must be less than expire_after_days";
            return bad("expiring_soon_days", self.expiring_soon_days.to_string(), rule);
        }
        if !(0..=OVERDRAFT_MAX).contains(&self.overdraft) {
            return bad("overdraft", self.overdraft.to_string(), "must be from 0 to 1000000000");
        }
        Ok(())
    }
}

/// Farthest that a balance may be allowed to go below zero.
const OVERDRAFT_MAX: i64 = 1_000_000_000;

impl Programme {
    /// The tier that `value` reaches.
    pub fn tier_at(&self, value: i64) -> Option<&Tier> {
        self.tiers.iter().rev().find(|tier| tier.threshold <= value)
    }

    /// The tier of that id.
    pub fn tier(&self, id: &TierId) -> Option<&Tier> {
        self.tiers.iter().find(|tier| tier.id == *id)
    }

    /// Checks everything that could contradict itself later; `has_rule` says which rules the campaign has.
    ///
    /// # Errors
    ///
    /// The first field that is out of its bounds, with its path and value.
    pub fn validate(&self, has_rule: impl Fn(&RuleId) -> bool) -> Result<(), InvalidField> {
        let bad = |field: String, value: String, rule: &str| Err(InvalidField::new(field, value, rule));
        count("multipliers", self.multipliers.len(), MULTIPLIERS_MAX)?;
        count("tiers", self.tiers.len(), TIERS_MAX)?;
        count("leaderboards", self.leaderboards.len(), LEADERBOARDS_MAX)?;
        self.points.validate("points")?;
        for (field, bonus) in [("first_bonus", &self.first_bonus), ("birthday_bonus", &self.birthday_bonus)] {
            check_bonus(field, bonus)?;
        }
        for (i, tier) in self.tiers.iter().enumerate() {
            let at = |field: &str| format!("tiers[{i}].{field}");
            check_name(&at("name"), &tier.name)?;
            if self.tiers[..i].iter().any(|other| other.id == tier.id) {
                return bad(at("id"), tier.id.to_string(), "stands twice");
            }
            let below = i.checked_sub(1).map_or(-1, |before| self.tiers[before].threshold);
            if tier.threshold <= below {
                let rule = if i == 0 { "must be at least 0" } else { "must be more than the tier's before" };
                return bad(at("threshold"), tier.threshold.to_string(), rule);
            }
        }
        if let TierBasis::Earned { months } = self.tier_basis
            && months > TIER_MONTHS_MAX
        {
            return bad("tier_basis.months".into(), months.to_string(), "must be from 0 to 36");
        }
        for (i, multiplier) in self.multipliers.iter().enumerate() {
            let at = |field: &str| format!("multipliers[{i}].{field}");
            if self.multipliers[..i].iter().any(|other| other.id == multiplier.id) {
                return bad(at("id"), multiplier.id.to_string(), "stands twice");
            }
            if !(100..=PERCENT_MAX).contains(&multiplier.percent) {
                return bad(at("percent"), multiplier.percent.to_string(), "must be from 100 to 10000");
            }
            if let Some(tier) = multiplier.tier.as_ref().filter(|tier| self.tier(tier).is_none()) {
                return bad(at("tier"), tier.to_string(), "names no tier of this campaign");
            }
            if let Some(condition) = &multiplier.condition {
                Expression::parse(&at("condition"), condition.as_str(), RULE_NAMES)?;
            }
            super::campaign::check_validity(&at("validity"), &multiplier.validity)?;
        }
        for (i, board) in self.leaderboards.iter().enumerate() {
            let at = |field: &str| format!("leaderboards[{i}].{field}");
            check_name(&at("name"), &board.name)?;
            if self.leaderboards[..i].iter().any(|other| other.id == board.id) {
                return bad(at("id"), board.id.to_string(), "stands twice");
            }
            if board.period == Period::Campaign {
                return bad(at("period"), "campaign".into(), "must be day, week or month: a round must end");
            }
            if board.prizes.is_empty() {
                return bad(at("prizes"), "[]".into(), "must have at least one entry");
            }
            for (j, prize) in board.prizes.iter().enumerate() {
                let at = |field: &str| format!("leaderboards[{i}].prizes[{j}].{field}");
                let before = j.checked_sub(1).map_or(0, |j| board.prizes[j].to_rank);
                if prize.from_rank <= before {
                    let rule = "must be at least 1, and more than the prize's before";
                    return bad(at("from_rank"), prize.from_rank.to_string(), rule);
                }
                if !(prize.from_rank..=WINNERS_MAX).contains(&prize.to_rank) {
                    return bad(at("to_rank"), prize.to_rank.to_string(), "must be from from_rank to 1000");
                }
                check_bonus(&at("bonus"), &prize.bonus)?;
            }
        }
        if let Some(referral) = &self.referral {
            check_bonus("referral.advocate.bonus", &referral.advocate.bonus)?;
            check_bonus("referral.friend.bonus", &referral.friend.bonus)?;
            for (i, id) in referral.rule_ids.iter().enumerate() {
                if !has_rule(id) {
                    let field = format!("referral.rule_ids[{i}]");
                    return bad(field, id.to_string(), "names no rule of this campaign");
                }
            }
        }
        Ok(())
    }
}

impl Segment {
    /// Checks the name and the condition.
    ///
    /// # Errors
    ///
    /// The field, with its value.
    pub fn validate(&self) -> Result<(), InvalidField> {
        check_name("name", &self.name)?;
        Expression::parse_segment("condition", self.condition.as_str()).map(drop)
    }
}

pub(crate) fn count(field: &str, len: usize, max: usize) -> Result<(), InvalidField> {
    if len <= max {
        return Ok(());
    }
    Err(InvalidField::new(field, len.to_string(), format!("at most {max} are allowed")))
}

pub(crate) fn check_name(field: &str, name: &str) -> Result<(), InvalidField> {
    if name.len() <= 200 && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(InvalidField::new(field, name, "must be at most 200 bytes without control characters"))
}

fn check_bonus(field: &str, bonus: &Bonus) -> Result<(), InvalidField> {
    for (part, amount) in [("points", bonus.points.0), ("coins", bonus.coins.0)] {
        if !(0..=REWARD_MAX).contains(&amount) {
            return Err(InvalidField::new(format!("{field}.{part}"), amount.to_string(), "must be from 0 to 1000000"));
        }
    }
    Ok(())
}
