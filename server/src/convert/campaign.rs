//! Campaigns.

use prost_types::Timestamp;
use punchline_engine::loyalty::campaign::{
    Campaign, Cap, DynamicEvent, EarningRule, ExternalReward, Overflow, Punchcard, SkuSelector, StampReward, Validity,
};
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::time::Period;
use punchline_proto::v1;
use v1::earning_rule::Skus;

use super::programme::{condition, programme, programme_to_wire};
use super::{id, instant, optional_id, timestamp, word};
use crate::refuse::Refused;

/// A campaign as it came in; its bounds are the engine's to check.
///
/// # Errors
///
/// `INVALID_FIELD`, with the field.
pub fn campaign(given: v1::Campaign) -> Result<Campaign, Refused> {
    let programme = programme(&given)?;
    let punchcards = given.punchcards.into_iter().enumerate();
    let rules = given.rules.into_iter().enumerate();
    Ok(Campaign {
        id: id("campaign_id", &given.campaign_id)?,
        name: given.name,
        validity: validity("", given.starts_at, given.ends_at)?,
        rules: rules.map(|(i, r)| rule(&format!("rules[{i}]"), r)).collect::<Result<_, _>>()?,
        punchcards: punchcards.map(|(i, p)| punchcard(&format!("punchcards[{i}]"), p)).collect::<Result<_, _>>()?,
        dynamic_events: (given.dynamic_events.into_iter())
            .map(|event| DynamicEvent { sku: event.sku, name: event.name })
            .collect(),
        programme,
        version: 0,
    })
}

/// A field of a campaign under its name in the proto files: the engine has its own, shorter ones.
pub fn campaign_field(mut refused: Refused) -> Refused {
    const NAMES: [(&str, &str, &str); 10] = [
        ("rules[", "].id", "].rule_id"),
        ("rules[", "].coupon_book", "].coupon_book_id"),
        ("punchcards[", "].id", "].punchcard_id"),
        ("tiers[", "].id", "].tier_id"),
        ("multipliers[", "].id", "].multiplier_id"),
        ("multipliers[", "].tier", "].tier_id"),
        ("multipliers[", "].segment", "].segment_id"),
        ("leaderboards[", "].id", "].leaderboard_id"),
        ("", "].validity.ends_at", "].ends_at"),
        ("validity.", "ends_at", "ends_at"),
    ];
    let Some(field) = refused.field.as_mut() else { return refused };
    let named = NAMES.iter().find(|(begins, ends, _)| field.path.starts_with(begins) && field.path.ends_with(ends));
    let Some((_, ends, wire)) = named else { return refused };
    let stem = field.path.strip_suffix(ends).unwrap_or_default().trim_end_matches("validity.");
    let path = format!("{stem}{wire}");
    if let Some(rest) = refused.message.strip_prefix(field.path.as_str()) {
        refused.message = format!("{path}{rest}");
    }
    field.path = path;
    refused
}

pub(super) fn validity(at: &str, from: Option<Timestamp>, until: Option<Timestamp>) -> Result<Validity, Refused> {
    let instant =
        |field: &str, given: Option<Timestamp>| given.map(|t| instant(&format!("{at}{field}"), t)).transpose();
    Ok(Validity { starts_at: instant("starts_at", from)?, ends_at: instant("ends_at", until)? })
}

fn rule(at: &str, given: v1::EarningRule) -> Result<EarningRule, Refused> {
    let skus = match given.skus {
        Some(Skus::SkuExact(sku)) => SkuSelector::Exact(sku),
        Some(Skus::SkuPrefix(prefix)) => SkuSelector::Prefix(prefix),
        Some(Skus::SkuList(list)) => SkuSelector::List(list.skus.into_iter().collect()),
        None => {
            let rule = "must be sku_exact, sku_prefix or sku_list";
            return Err(Refused::field(format!("{at}.skus"), "", rule));
        }
    };
    let stamps = |stamps: v1::StampReward| {
        let punchcard_id = id(&format!("{at}.stamps.punchcard_id"), &stamps.punchcard_id)?;
        Ok::<_, Refused>(StampReward { punchcard_id, per_unit: stamps.per_unit })
    };
    let external = |external: v1::ExternalReward| {
        let reward_id = id(&format!("{at}.external.reward_id"), &external.reward_id)?;
        let (reward_name, amount) = (external.reward_name, external.amount);
        Ok::<_, Refused>(ExternalReward { reward_id, reward_name, amount })
    };
    let caps = given.caps.into_iter().enumerate();
    Ok(EarningRule {
        id: id(&format!("{at}.rule_id"), &given.rule_id)?,
        skus,
        points: Points(given.points),
        coins: Coins(given.coins),
        stamps: given.stamps.map(stamps).transpose()?,
        caps: caps.map(|(i, c)| cap(&format!("{at}.caps[{i}]"), c)).collect::<Result<_, _>>()?,
        validity: validity(&format!("{at}."), given.starts_at, given.ends_at)?,
        condition: condition(&format!("{at}.condition"), &given.condition)?,
        coupon_book: optional_id(&format!("{at}.coupon_book_id"), &given.coupon_book_id)?,
        external: given.external.map(external).transpose()?,
    })
}

fn cap(at: &str, given: v1::Cap) -> Result<Cap, Refused> {
    let period = period(&format!("{at}.period"), given.period)?;
    Ok(Cap { period, units_max: given.units_max })
}

pub(super) fn period(field: &str, given: i32) -> Result<Period, Refused> {
    let rule = "must be a day, a week, a month or the campaign";
    match word(field, given, rule)? {
        v1::Period::Day => Ok(Period::Day),
        v1::Period::Week => Ok(Period::Week),
        v1::Period::Month => Ok(Period::Month),
        v1::Period::Campaign => Ok(Period::Campaign),
        v1::Period::Unspecified => Err(Refused::field(field, given.to_string(), rule)),
    }
}

pub(super) fn period_to_wire(period: Period) -> v1::Period {
    match period {
        Period::Day => v1::Period::Day,
        Period::Week => v1::Period::Week,
        Period::Month => v1::Period::Month,
        Period::Campaign => v1::Period::Campaign,
    }
}

fn punchcard(at: &str, given: v1::Punchcard) -> Result<Punchcard, Refused> {
    let overflow = match v1::Overflow::try_from(given.overflow) {
        Ok(v1::Overflow::Unspecified | v1::Overflow::CarryOver) => Overflow::CarryOver,
        Ok(v1::Overflow::Discard) => Overflow::Discard,
        Err(_) => {
            let rule = "must be to carry over or to discard";
            return Err(Refused::field(format!("{at}.overflow"), given.overflow.to_string(), rule));
        }
    };
    Ok(Punchcard {
        id: id(&format!("{at}.punchcard_id"), &given.punchcard_id)?,
        name: given.name,
        row_length: given.row_length,
        steps: given.steps,
        overflow,
        repeatable: !given.once,
    })
}

/// A campaign, for the wire.
pub fn to_wire(campaign: &Campaign) -> v1::Campaign {
    let dynamic_event = |event: &DynamicEvent| v1::DynamicEvent { sku: event.sku.clone(), name: event.name.clone() };
    let wire = v1::Campaign {
        campaign_id: campaign.id.to_string(),
        name: campaign.name.clone(),
        starts_at: campaign.validity.starts_at.map(timestamp),
        ends_at: campaign.validity.ends_at.map(timestamp),
        rules: campaign.rules.iter().map(rule_to_wire).collect(),
        punchcards: campaign.punchcards.iter().map(punchcard_to_wire).collect(),
        dynamic_events: campaign.dynamic_events.iter().map(dynamic_event).collect(),
        etag: campaign.version.to_string(),
        ..Default::default()
    };
    programme_to_wire(&campaign.programme, wire)
}

fn rule_to_wire(rule: &EarningRule) -> v1::EarningRule {
    let skus = match &rule.skus {
        SkuSelector::Exact(sku) => Skus::SkuExact(sku.clone()),
        SkuSelector::Prefix(prefix) => Skus::SkuPrefix(prefix.clone()),
        SkuSelector::List(skus) => Skus::SkuList(v1::SkuList { skus: skus.iter().cloned().collect() }),
    };
    let stamps = |stamps: &StampReward| v1::StampReward {
        punchcard_id: stamps.punchcard_id.to_string(),
        per_unit: stamps.per_unit,
    };
    let cap = |cap: &Cap| v1::Cap { period: period_to_wire(cap.period).into(), units_max: cap.units_max };
    let external = |external: &ExternalReward| v1::ExternalReward {
        reward_id: external.reward_id.to_string(),
        reward_name: external.reward_name.clone(),
        amount: external.amount,
    };
    v1::EarningRule {
        rule_id: rule.id.to_string(),
        skus: Some(skus),
        points: rule.points.0,
        coins: rule.coins.0,
        stamps: rule.stamps.as_ref().map(stamps),
        caps: rule.caps.iter().map(cap).collect(),
        starts_at: rule.validity.starts_at.map(timestamp),
        ends_at: rule.validity.ends_at.map(timestamp),
        condition: rule.condition.as_ref().map(|c| c.as_str().to_owned()).unwrap_or_default(),
        coupon_book_id: rule.coupon_book.as_ref().map(ToString::to_string).unwrap_or_default(),
        external: rule.external.as_ref().map(external),
    }
}

fn punchcard_to_wire(punchcard: &Punchcard) -> v1::Punchcard {
    let overflow = match punchcard.overflow {
        Overflow::CarryOver => v1::Overflow::CarryOver,
        Overflow::Discard => v1::Overflow::Discard,
    };
    v1::Punchcard {
        punchcard_id: punchcard.id.to_string(),
        name: punchcard.name.clone(),
        row_length: punchcard.row_length,
        steps: punchcard.steps.clone(),
        overflow: overflow.into(),
        once: !punchcard.repeatable,
    }
}
