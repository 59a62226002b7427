//! Campaigns.

use prost_types::Timestamp;
use punchline_engine::loyalty::campaign::{
    Campaign, Cap, DynamicEvent, EarningRule, Overflow, Punchcard, SkuSelector, StampReward, Validity,
};
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::time::Period;
use punchline_proto::v1;
use v1::earning_rule::Skus;

use super::{id, instant, timestamp};
use crate::refuse::Refused;

/// A campaign as it came in; its bounds are the engine's to check.
///
/// # Errors
///
/// `INVALID_FIELD`, with the field.
pub fn campaign(given: v1::Campaign) -> Result<Campaign, Refused> {
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
        version: 0,
    })
}

fn validity(at: &str, from: Option<Timestamp>, until: Option<Timestamp>) -> Result<Validity, Refused> {
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
    let caps = given.caps.into_iter().enumerate();
    Ok(EarningRule {
        id: id(&format!("{at}.rule_id"), &given.rule_id)?,
        skus,
        points: Points(given.points),
        coins: Coins(given.coins),
        stamps: given.stamps.map(stamps).transpose()?,
        caps: caps.map(|(i, c)| cap(&format!("{at}.caps[{i}]"), c)).collect::<Result<_, _>>()?,
        validity: validity(&format!("{at}."), given.starts_at, given.ends_at)?,
    })
}

fn cap(at: &str, given: v1::Cap) -> Result<Cap, Refused> {
    let period = match given.period() {
        v1::Period::Day => Period::Day,
        v1::Period::Week => Period::Week,
        v1::Period::Month => Period::Month,
        v1::Period::Campaign => Period::Campaign,
        v1::Period::Unspecified => {
            let rule = "must be a day, a week, a month or the campaign";
            return Err(Refused::field(format!("{at}.period"), given.period.to_string(), rule));
        }
    };
    Ok(Cap { period, units_max: given.units_max })
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
    v1::Campaign {
        campaign_id: campaign.id.to_string(),
        name: campaign.name.clone(),
        starts_at: campaign.validity.starts_at.map(timestamp),
        ends_at: campaign.validity.ends_at.map(timestamp),
        rules: campaign.rules.iter().map(rule_to_wire).collect(),
        punchcards: campaign.punchcards.iter().map(punchcard_to_wire).collect(),
        dynamic_events: campaign.dynamic_events.iter().map(dynamic_event).collect(),
        etag: campaign.version.to_string(),
    }
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
    let cap = |cap: &Cap| {
        let period = match cap.period {
            Period::Day => v1::Period::Day,
            Period::Week => v1::Period::Week,
            Period::Month => v1::Period::Month,
            Period::Campaign => v1::Period::Campaign,
        };
        v1::Cap { period: period.into(), units_max: cap.units_max }
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
