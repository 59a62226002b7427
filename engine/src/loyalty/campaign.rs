//! Campaigns: rules, punchcards and a period, as the operator writes them.
//!
//! # Invariants
//!
//! - A [`Campaign`] that exists has passed [`Campaign::validate`]: every reference within it resolves,
//!   every number is within its bound, no id stands twice. Contradictions are refused when written.
//!
//! # What is absent on purpose
//!
//! - Balances: a campaign says what a unit earns, the member's card says what was earned.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::expression::{Expression, RULE_NAMES};
use crate::id::{CampaignId, CouponBookId, PunchcardId, RewardId, RuleId};
use crate::loyalty::programme::Programme;
use crate::quantity::{Coins, Points, Quantity};
use crate::rejection::InvalidField;
use crate::time::{Period, UnixMillis};

/// Most rules of one campaign: every line is tried against each.
pub const RULES_MAX: usize = 500;
/// Most punchcards of one campaign: each may hold a place on every card.
pub const PUNCHCARDS_MAX: usize = 50;
/// Most dynamic events of one campaign.
pub const DYNAMIC_EVENTS_MAX: usize = 1_000;
/// Most SKUs in one rule's list.
pub const SKUS_MAX: usize = 1_000;
/// Longest SKU, in bytes.
pub const SKU_LEN_MAX: usize = 128;
/// Most points or coins that one unit earns: 10 000 units of 100 lines stay below 10^12.
pub const REWARD_MAX: i64 = 1_000_000;
/// Most points that a rule may make of one line, all multipliers counted: as many as a record holds stay below
/// what a balance can hold.
pub const LINE_POINTS_MAX: i64 = 10_000_000_000_000;
/// Most stamps that one unit earns.
pub const STAMPS_PER_UNIT_MAX: u32 = 100;
/// Longest row of a punchcard.
pub const ROW_LENGTH_MAX: u32 = 1_000;

/// Rules, rewards and a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Campaign {
    /// Its id, chosen by the one who writes it.
    pub id: CampaignId,
    /// Its name, for people.
    pub name: String,
    /// When it is valid, by the consumption's date.
    pub validity: Validity,
    /// What earns what.
    pub rules: Vec<EarningRule>,
    /// Rows to fill.
    pub punchcards: Vec<Punchcard>,
    /// Action types represented by a SKU, for people; rules say what they earn.
    pub dynamic_events: Vec<DynamicEvent>,
    /// What it does beyond its rules.
    #[serde(flatten)]
    pub programme: Programme,
    /// Counts changes, from 1; the etag.
    pub version: u64,
}

/// From the first instant up to, not including, the second; open where absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Validity {
    /// First instant.
    pub starts_at: Option<UnixMillis>,
    /// First instant after.
    pub ends_at: Option<UnixMillis>,
}

impl Validity {
    /// Whether `at` is inside.
    pub fn contains(&self, at: UnixMillis) -> bool {
        self.starts_at.is_none_or(|from| from <= at) && self.ends_at.is_none_or(|until| at < until)
    }
}

/// What a unit of certain SKUs earns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EarningRule {
    /// Unique within the campaign.
    pub id: RuleId,
    /// Which SKUs.
    pub skus: SkuSelector,
    /// Points a unit; 0 for none.
    pub points: Points,
    /// Coins a unit; 0 for none.
    pub coins: Coins,
    /// Stamps a unit, and where they go.
    pub stamps: Option<StampReward>,
    /// All of them hold.
    pub caps: Vec<Cap>,
    /// When it is valid, within the campaign's own validity.
    pub validity: Validity,
    /// What must hold besides, over `line`, `consumption`, `member`, `card`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Expression>,
    /// One coupon of this book for each line that matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupon_book: Option<CouponBookId>,
    /// What the subscriber is to pay out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalReward>,
}

/// A reward whose payout is not ours: an obligation of the subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalReward {
    /// What it is called there.
    pub reward_id: RewardId,
    /// For people.
    pub reward_name: String,
    /// How much of it a unit gives; at least 1.
    pub amount: i64,
}

/// Stamps for a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StampReward {
    /// Where they go: a punchcard of the same campaign.
    pub punchcard_id: PunchcardId,
    /// How many a unit; at least 1.
    pub per_unit: u32,
}

/// Which SKUs a rule is about. Compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum SkuSelector {
    /// This one.
    Exact(String),
    /// All that begin with it.
    Prefix(String),
    /// Any of these.
    List(BTreeSet<String>),
}

impl SkuSelector {
    /// Whether the rule is about `sku`.
    pub fn matches(&self, sku: &str) -> bool {
        match self {
            SkuSelector::Exact(exact) => exact == sku,
            SkuSelector::Prefix(prefix) => sku.starts_with(prefix.as_str()),
            SkuSelector::List(skus) => skus.contains(sku),
        }
    }
}

/// A bound on what a rule gives one member in one period (UTC, by the consumption's date).
///
/// Counted in units, not in points, so that splitting a consumption changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cap {
    /// Over what.
    pub period: Period,
    /// How many units earn; at least 1.
    pub units_max: u64,
}

/// A row to fill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Punchcard {
    /// Unique within the campaign.
    pub id: PunchcardId,
    /// Its name, for people.
    pub name: String,
    /// Stamps of a full row.
    pub row_length: u32,
    /// Milestones: ascending stamp counts below `row_length`. The full row is not one of them.
    pub steps: Vec<u32>,
    /// What happens to stamps beyond a full row.
    pub overflow: Overflow,
    /// Whether a new row begins after a full one.
    pub repeatable: bool,
}

/// What happens to stamps beyond a full row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// They begin the next row.
    CarryOver,
    /// They are lost, and an event says so.
    Discard,
}

/// An action type represented by a SKU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DynamicEvent {
    /// The SKU that stands for it.
    pub sku: String,
    /// What it is, for people.
    pub name: String,
}

impl Campaign {
    /// The punchcard of that id.
    pub fn punchcard(&self, id: &PunchcardId) -> Option<&Punchcard> {
        self.punchcards.iter().find(|p| &p.id == id)
    }

    /// Checks everything that could contradict itself later.
    ///
    /// # Errors
    ///
    /// The first field that is out of its bounds, with its path and value.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let bad = |field: String, value: String, rule: &str| Err(InvalidField::new(field, value, rule));
        let count = |field: &str, len: usize, max: usize| {
            if len <= max {
                return Ok(());
            }
            Err(InvalidField::new(field, len.to_string(), format!("at most {max} are allowed")))
        };
        if self.name.len() > 200 {
            return bad("name".into(), self.name.clone(), "at most 200 bytes");
        }
        count("rules", self.rules.len(), RULES_MAX)?;
        count("punchcards", self.punchcards.len(), PUNCHCARDS_MAX)?;
        count("dynamic_events", self.dynamic_events.len(), DYNAMIC_EVENTS_MAX)?;
        check_validity("validity", &self.validity)?;
        for (i, punchcard) in self.punchcards.iter().enumerate() {
            let at = |field: &str| format!("punchcards[{i}].{field}");
            if self.punchcards[..i].iter().any(|other| other.id == punchcard.id) {
                return bad(at("id"), punchcard.id.to_string(), "stands twice");
            }
            if !(1..=ROW_LENGTH_MAX).contains(&punchcard.row_length) {
                let rule = "must be from 1 to 1000";
                return bad(at("row_length"), punchcard.row_length.to_string(), rule);
            }
            let steps = &punchcard.steps;
            let ascending = steps.windows(2).all(|w| w[0] < w[1]);
            let inside = steps.iter().all(|s| (1..punchcard.row_length).contains(s));
            if !ascending || !inside {
                let rule = "must ascend and stay from 1 to below row_length";
                return bad(at("steps"), format!("{steps:?}"), rule);
            }
        }
        for (i, rule) in self.rules.iter().enumerate() {
            if self.rules[..i].iter().any(|other| other.id == rule.id) {
                return bad(format!("rules[{i}].id"), rule.id.to_string(), "stands twice");
            }
            self.check_rule(&format!("rules[{i}]"), rule)?;
        }
        for (i, dynamic) in self.dynamic_events.iter().enumerate() {
            check_sku(&format!("dynamic_events[{i}].sku"), &dynamic.sku)?;
            if self.dynamic_events[..i].iter().any(|other| other.sku == dynamic.sku) {
                return bad(format!("dynamic_events[{i}].sku"), dynamic.sku.clone(), "stands twice");
            }
        }
        self.programme.validate(|id| self.rules.iter().any(|rule| rule.id == *id))?;
        self.check_multiplied()
    }

    /// Multipliers may all hold at once.
    fn check_multiplied(&self) -> Result<(), InvalidField> {
        let percents: Vec<u32> = self.programme.multipliers.iter().map(|multiplier| multiplier.percent).collect();
        for rule in &self.rules {
            let line = rule.points.checked_mul(u64::from(Quantity::MAX));
            let most = line.and_then(|line| self.programme.stacking.apply(line.0, &percents));
            if most.is_none_or(|most| most > LINE_POINTS_MAX) {
                let why = format!("would make more than {LINE_POINTS_MAX} points of one line by rule {}", rule.id);
                return Err(InvalidField::new("multipliers", format!("{percents:?}"), why));
            }
        }
        Ok(())
    }

    fn check_rule(&self, at: &str, rule: &EarningRule) -> Result<(), InvalidField> {
        let bad = |field: &str, value: String, why: &str| Err(InvalidField::new(format!("{at}.{field}"), value, why));
        match &rule.skus {
            SkuSelector::Exact(sku) | SkuSelector::Prefix(sku) => check_sku(&format!("{at}.skus"), sku)?,
            SkuSelector::List(skus) => {
                if skus.is_empty() || skus.len() > SKUS_MAX {
                    return bad("skus", skus.len().to_string(), "must list 1 to 1000 SKUs");
                }
                for sku in skus {
                    check_sku(&format!("{at}.skus"), sku)?;
                }
            }
        }
        for (field, amount) in [("points", rule.points.0), ("coins", rule.coins.0)] {
            if !(0..=REWARD_MAX).contains(&amount) {
                return bad(field, amount.to_string(), "must be from 0 to 1000000");
            }
        }
        if let Some(stamps) = &rule.stamps {
            if self.punchcard(&stamps.punchcard_id).is_none() {
                let id = stamps.punchcard_id.to_string();
                return bad("stamps.punchcard_id", id, "names no punchcard of this campaign");
            }
            if !(1..=STAMPS_PER_UNIT_MAX).contains(&stamps.per_unit) {
                let per_unit = stamps.per_unit.to_string();
                return bad("stamps.per_unit", per_unit, "must be from 1 to 100");
            }
        }
        for (i, cap) in rule.caps.iter().enumerate() {
            if cap.units_max == 0 {
                return bad(&format!("caps[{i}].units_max"), "0".into(), "must be at least 1");
            }
            if rule.caps[..i].iter().any(|other| other.period == cap.period) {
                let period = format!("{:?}", cap.period);
                return bad(&format!("caps[{i}].period"), period, "has a cap already");
            }
        }
        if let Some(condition) = &rule.condition {
            Expression::parse(&format!("{at}.condition"), condition.as_str(), RULE_NAMES)?;
        }
        if let Some(external) = &rule.external {
            super::programme::check_name(&format!("{at}.external.reward_name"), &external.reward_name)?;
            if !(1..=REWARD_MAX).contains(&external.amount) {
                return bad("external.amount", external.amount.to_string(), "must be from 1 to 1000000");
            }
        }
        check_validity(&format!("{at}.validity"), &rule.validity)
    }
}

fn check_sku(field: &str, sku: &str) -> Result<(), InvalidField> {
    if sku.is_empty() || sku.len() > SKU_LEN_MAX {
        return Err(InvalidField::new(field, sku, "must be 1 to 128 bytes"));
    }
    Ok(())
}

pub(crate) fn check_validity(field: &str, validity: &Validity) -> Result<(), InvalidField> {
    match (validity.starts_at, validity.ends_at) {
        (Some(from), Some(until)) if until <= from => {
            let field = format!("{field}.ends_at");
            Err(InvalidField::new(field, until.to_string(), "must be after starts_at"))
        }
        _ => Ok(()),
    }
}
