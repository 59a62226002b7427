//! Campaigns as people write them: TOML in, the API's [`v1::Campaign`] out.
//!
//! ```toml
//! id = "velo-club"
//! name = "VELO Club"
//! starts_at = 2025-01-01T00:00:00Z    # or 2025-01-01, which is its midnight in UTC; may be absent
//!
//! [[rules]]
//! id = "coffee"
//! sku_prefix = "coffee_"              # or sku = "…", or skus = ["…", "…"]
//! points = 10                         # a unit
//! coins = 1
//! stamps = { punchcard = "coffee-card", per_unit = 1 }
//! caps = [{ period = "day", units_max = 3 }]
//! condition = "line.quantity >= 2"    # CEL over line, consumption, member, card
//! coupon_book = "summer"              # one of its codes for each line that matches
//! external = { reward = "mug", name = "A mug", amount = 1 }   # paid out by the subscriber
//!
//! [[punchcards]]
//! id = "coffee-card"
//! name = "Coffee card"
//! row_length = 10
//! steps = [5]
//! overflow = "carry-over"             # or "discard"
//!
//! [[dynamic_events]]
//! sku = "velo_pk_article_thr"
//! name = "Article read"
//!
//! [[tiers]]                           # tier_basis = "balance" or "earned", with tier_months = 12
//! id = "gold"
//! name = "Gold"
//! threshold = 1000
//!
//! [[multipliers]]                     # stacking = "best", "add" or "multiply"
//! id = "gold-doubles"
//! percent = 200
//! tier = "gold"                       # and, or instead, segment = "…", condition = "…", starts_at, ends_at
//!
//! [[leaderboards]]
//! id = "weekly"
//! name = "Of the week"
//! period = "week"
//! prizes = [{ from_rank = 1, to_rank = 3, points = 500 }]     # and coins, reward
//!
//! [points]                            # first_bonus and birthday_bonus = { points = 50, coins = 1 }
//! expire_after_days = 365
//! expiring_soon_days = 30
//! overdraft = 0
//!
//! [referral]
//! advocate = { points = 100 }         # and coins, reward
//! friend = { points = 50 }
//! rules = ["coffee"]                  # those that qualify; any if absent
//! ```
//!
//! # What is absent on purpose
//!
//! - The campaign's own laws (unique ids, limits, punchcards that exist): the server holds them, for
//!   every way in.

use std::fmt;
use std::ops::Range;

use punchline_proto::v1;
use serde::Deserialize;
use toml::Spanned;

mod programme;

use programme::{
    BonusEntry, ExternalEntry, LeaderboardEntry, MultiplierEntry, PolicyEntry, ReferralEntry, StackingName,
    TierBasisName, TierEntry,
};

/// Why a campaign file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignFileError {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for CampaignFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for CampaignFileError {}

/// Reads a campaign.
///
/// # Errors
///
/// [`CampaignFileError`] with the line: no TOML, an unknown or missing key, a wrong type, a rule that
/// names its SKUs in more or fewer than one way, a time that is none.
pub fn parse(text: &str) -> Result<v1::Campaign, CampaignFileError> {
    let error = |(message, span): Refusal| {
        let before = text.as_bytes().get(..span.start).unwrap_or_default();
        CampaignFileError { line: 1 + before.iter().filter(|byte| **byte == b'\n').count(), message }
    };
    let file: CampaignFile = toml::from_str(text).map_err(|e| {
        let span = e.span().unwrap_or_default();
        error((e.message().trim_end().replace('\n', ", "), span))
    })?;
    file.into_proto().map_err(error)
}

/// What is wrong, and where in the text.
type Refusal = (String, Range<usize>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CampaignFile {
    id: String,
    name: String,
    starts_at: Option<Spanned<toml::Value>>,
    ends_at: Option<Spanned<toml::Value>>,
    #[serde(default)]
    rules: Vec<Spanned<RuleEntry>>,
    #[serde(default)]
    punchcards: Vec<PunchcardEntry>,
    #[serde(default)]
    dynamic_events: Vec<DynamicEventEntry>,
    points: Option<PolicyEntry>,
    #[serde(default)]
    multipliers: Vec<MultiplierEntry>,
    #[serde(default)]
    stacking: StackingName,
    first_bonus: Option<BonusEntry>,
    birthday_bonus: Option<BonusEntry>,
    #[serde(default)]
    tiers: Vec<TierEntry>,
    #[serde(default)]
    tier_basis: TierBasisName,
    #[serde(default)]
    tier_months: u32,
    #[serde(default)]
    leaderboards: Vec<LeaderboardEntry>,
    referral: Option<ReferralEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    id: String,
    sku: Option<String>,
    sku_prefix: Option<String>,
    skus: Option<Vec<String>>,
    #[serde(default)]
    points: i64,
    #[serde(default)]
    coins: i64,
    stamps: Option<StampsEntry>,
    #[serde(default)]
    caps: Vec<CapEntry>,
    #[serde(default)]
    condition: String,
    #[serde(default)]
    coupon_book: String,
    external: Option<ExternalEntry>,
    starts_at: Option<Spanned<toml::Value>>,
    ends_at: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StampsEntry {
    punchcard: String,
    #[serde(default = "one")]
    per_unit: u32,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CapEntry {
    period: PeriodName,
    units_max: u64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PeriodName {
    Day,
    Week,
    Month,
    Campaign,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PunchcardEntry {
    id: String,
    name: String,
    row_length: u32,
    #[serde(default)]
    steps: Vec<u32>,
    #[serde(default)]
    overflow: OverflowName,
    #[serde(default)]
    once: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OverflowName {
    #[default]
    CarryOver,
    Discard,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DynamicEventEntry {
    sku: String,
    name: String,
}

impl CampaignFile {
    fn into_proto(self) -> Result<v1::Campaign, Refusal> {
        Ok(v1::Campaign {
            campaign_id: self.id,
            name: self.name,
            starts_at: instant(self.starts_at)?,
            ends_at: instant(self.ends_at)?,
            rules: self.rules.into_iter().map(rule).collect::<Result<_, _>>()?,
            punchcards: self.punchcards.into_iter().map(PunchcardEntry::into_proto).collect(),
            dynamic_events: self
                .dynamic_events
                .into_iter()
                .map(|event| v1::DynamicEvent { sku: event.sku, name: event.name })
                .collect(),
            etag: String::new(),
            points: self.points.map(PolicyEntry::into_proto),
            multipliers: self.multipliers.into_iter().map(MultiplierEntry::into_proto).collect::<Result<_, _>>()?,
            stacking: self.stacking.into_proto().into(),
            first_bonus: self.first_bonus.map(BonusEntry::into_proto),
            birthday_bonus: self.birthday_bonus.map(BonusEntry::into_proto),
            tiers: self.tiers.into_iter().map(TierEntry::into_proto).collect(),
            tier_basis: Some(self.tier_basis.into_proto(self.tier_months)),
            leaderboards: self.leaderboards.into_iter().map(LeaderboardEntry::into_proto).collect(),
            referral: self.referral.map(ReferralEntry::into_proto),
        })
    }
}

fn rule(entry: Spanned<RuleEntry>) -> Result<v1::EarningRule, Refusal> {
    use v1::earning_rule::Skus;

    let span = entry.span();
    let rule = entry.into_inner();
    let skus = match (rule.sku, rule.sku_prefix, rule.skus) {
        (Some(sku), None, None) => Skus::SkuExact(sku),
        (None, Some(prefix), None) => Skus::SkuPrefix(prefix),
        (None, None, Some(skus)) => Skus::SkuList(v1::SkuList { skus }),
        _ => return Err((format!("rule {} needs exactly one of sku, sku_prefix and skus", rule.id), span)),
    };
    Ok(v1::EarningRule {
        rule_id: rule.id,
        skus: Some(skus),
        points: rule.points,
        coins: rule.coins,
        stamps: rule.stamps.map(|s| v1::StampReward { punchcard_id: s.punchcard, per_unit: s.per_unit }),
        caps: rule.caps.into_iter().map(CapEntry::into_proto).collect(),
        starts_at: instant(rule.starts_at)?,
        ends_at: instant(rule.ends_at)?,
        condition: rule.condition,
        coupon_book_id: rule.coupon_book,
        external: rule.external.map(ExternalEntry::into_proto),
    })
}

impl PeriodName {
    fn into_proto(self) -> v1::Period {
        match self {
            PeriodName::Day => v1::Period::Day,
            PeriodName::Week => v1::Period::Week,
            PeriodName::Month => v1::Period::Month,
            PeriodName::Campaign => v1::Period::Campaign,
        }
    }
}

impl CapEntry {
    fn into_proto(self) -> v1::Cap {
        v1::Cap { period: self.period.into_proto().into(), units_max: self.units_max }
    }
}

impl PunchcardEntry {
    fn into_proto(self) -> v1::Punchcard {
        let overflow = match self.overflow {
            OverflowName::CarryOver => v1::Overflow::CarryOver,
            OverflowName::Discard => v1::Overflow::Discard,
        };
        v1::Punchcard {
            punchcard_id: self.id,
            name: self.name,
            row_length: self.row_length,
            steps: self.steps,
            overflow: overflow.into(),
            once: self.once,
        }
    }
}

/// A TOML time or a text: RFC 3339, or a date, which is its midnight in UTC.
fn instant(value: Option<Spanned<toml::Value>>) -> Result<Option<prost_types::Timestamp>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let text = match value.get_ref() {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match timestamp(&text) {
        Some(timestamp) => Ok(Some(timestamp)),
        None => Err((format!("{text} is neither a time, as 2025-01-31T12:00:00Z, nor a date"), value.span())),
    }
}

/// Reads RFC 3339, or a date as its midnight in UTC.
#[must_use]
pub fn timestamp(text: &str) -> Option<prost_types::Timestamp> {
    let parsed = text.parse::<jiff::Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse()).ok()?;
    Some(prost_types::Timestamp { seconds: parsed.as_second(), nanos: parsed.subsec_nanosecond() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_campaign_says_what_wecheer_documents() {
        let campaign = parse(include_str!("../../deploy/demo/campaign.toml")).expect("the demo campaign is valid");
        assert_eq!(campaign.campaign_id, "velo-club");
        let documented = [
            ("glo_kz_deviceregist", 990),
            ("velo_pk_article_thr", 50),
            ("velo_pk_product_review", 100),
            ("velo_pk_poll_location", 100),
            ("velo_pk_poll_experience", 100),
            ("velo_pk_poll_strength", 100),
        ];
        for (sku, points) in documented {
            let pays = |rule: &&v1::EarningRule| matches!(&rule.skus, Some(v1::earning_rule::Skus::SkuExact(exact)) if exact == sku);
            let rule = campaign.rules.iter().find(pays).unwrap_or_else(|| panic!("no rule for {sku}"));
            assert_eq!(rule.points, points, "{sku}");
            assert!(campaign.dynamic_events.iter().any(|event| event.sku == sku), "{sku}");
        }
        let card = &campaign.punchcards[0];
        assert_eq!((card.punchcard_id.as_str(), card.row_length, card.steps.as_slice()), ("coffee-card", 10, &[5][..]));
        assert_eq!(card.overflow(), v1::Overflow::CarryOver);
        for rule in &campaign.rules {
            let exists =
                |stamps: &v1::StampReward| campaign.punchcards.iter().any(|p| p.punchcard_id == stamps.punchcard_id);
            assert!(rule.stamps.as_ref().is_none_or(exists), "{}", rule.rule_id);
        }
    }

    /// What the head of this file shows is a campaign, down to its last key.
    #[test]
    fn the_documented_file_is_read() {
        let head = include_str!("campaign_file.rs").lines().skip_while(|line| *line != "//! ```toml").skip(1);
        let text: Vec<&str> = head.take_while(|line| *line != "//! ```").map(|line| &line[3..]).collect();
        let campaign = parse(&text.join("\n")).expect("it is documented");
        let rule = &campaign.rules[0];
        assert_eq!((rule.condition.as_str(), rule.coupon_book_id.as_str()), ("line.quantity >= 2", "summer"));
        assert_eq!(rule.external.as_ref().expect("there").amount, 1);
        assert_eq!((campaign.tiers[0].threshold, campaign.multipliers[0].tier_id.as_str()), (1_000, "gold"));
        assert_eq!(campaign.leaderboards[0].prizes[0].bonus.expect("there").points, 500);
        assert_eq!(campaign.points.expect("there").expire_after_days, 365);
        let referral = campaign.referral.clone().expect("there");
        assert_eq!((referral.advocate.expect("there").bonus.expect("there").points, referral.rule_ids.len()), (100, 1));
        crate::convert::campaign::campaign(campaign).expect("converts").validate().expect("valid");
    }

    #[test]
    fn times_are_read() {
        let cases = [
            ("2025-01-01T00:00:00Z", Some(1_735_689_600)),
            ("2025-01-01T02:00:00+02:00", Some(1_735_689_600)),
            ("2025-01-01", Some(1_735_689_600)),
            ("2025-01-01T00:00:00", None),
            ("yesterday", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(timestamp(text).map(|t| t.seconds), seconds, "{text}");
        }
        for written in ["2025-01-01T00:00:00Z", "2025-01-01", "\"2025-01-01\""] {
            let campaign = parse(&format!("id = \"a\"\nname = \"A\"\nstarts_at = {written}\n")).expect(written);
            assert_eq!(campaign.starts_at.expect("set").seconds, 1_735_689_600, "{written}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let head = "id = \"a\"\nname = \"A\"\n";
        let cases = [
            ("pionts = 3", 3, "unknown field `pionts`"),
            ("[[rules]]\nid = \"r\"\nsku = \"s\"\npionts = 3", 6, "unknown field `pionts`"),
            ("[[rules]]\nid = \"r\"\n", 3, "rule r needs exactly one of sku, sku_prefix and skus"),
            ("\n\n[[rules]]\nid = \"r\"\nsku = \"s\"\nsku_prefix = \"s\"", 5, "exactly one of"),
            ("[[rules]]\nid = \"r\"\nsku = \"s\"\npoints = \"many\"", 6, "invalid type: string \"many\", expected i64"),
            (
                "[[rules]]\nid = \"r\"\nsku = \"s\"\ncaps = [{ period = \"hour\", units_max = 1 }]",
                6,
                "unknown variant `hour`",
            ),
            ("[[punchcards]]\nid = \"p\"\nname = \"P\"\n", 3, "missing field `row_length`"),
            ("starts_at = \"soon\"", 3, "soon is neither a time"),
            ("ends_at = 2025-01-01T00:00:00", 3, "is neither a time"),
            ("starts_at = ", 3, ""),
        ];
        for (rest, line, message) in cases {
            let error = parse(&format!("{head}{rest}\n")).expect_err(rest);
            assert!(error.line == line && error.message.contains(message), "{rest}\n  told: {error}");
        }
    }
}
