//! What a campaign does beyond its rules; segments and settings.

use punchline_engine::expression::{Expression, RULE_NAMES, SEGMENT_NAMES};
use punchline_engine::loyalty::programme::{
    Bonus, Leaderboard, Multiplier, PointsPolicy, Prize, Programme, Referral, ReferralReward, Segment, Settings,
    Stacking, Tier, TierBasis,
};
use punchline_engine::quantity::{Coins, Points};
use punchline_proto::v1;

use super::campaign::{period, period_to_wire, validity};
use super::{id, optional_id, timestamp, word};
use crate::refuse::Refused;

/// The programme of a campaign as it came in; its bounds are the engine's to check.
///
/// # Errors
///
/// `INVALID_FIELD` or `INVALID_EXPRESSION`, with the field.
pub fn programme(given: &v1::Campaign) -> Result<Programme, Refused> {
    let multipliers = given.multipliers.iter().enumerate();
    let tiers = given.tiers.iter().enumerate();
    let leaderboards = given.leaderboards.iter().enumerate();
    let tier = |(i, tier): (usize, &v1::Tier)| {
        let id = id(&format!("tiers[{i}].tier_id"), &tier.tier_id)?;
        Ok::<_, Refused>(Tier { id, name: tier.name.clone(), threshold: tier.threshold })
    };
    Ok(Programme {
        points: policy(given.points),
        multipliers: multipliers.map(|(i, m)| multiplier(&format!("multipliers[{i}]"), m)).collect::<Result<_, _>>()?,
        stacking: match word("stacking", given.stacking, "must be best, to add or to multiply")? {
            v1::Stacking::Unspecified | v1::Stacking::Best => Stacking::Best,
            v1::Stacking::Add => Stacking::Add,
            v1::Stacking::Multiply => Stacking::Multiply,
        },
        first_bonus: bonus(given.first_bonus),
        birthday_bonus: bonus(given.birthday_bonus),
        tiers: tiers.map(tier).collect::<Result<_, _>>()?,
        tier_basis: tier_basis(given.tier_basis)?,
        leaderboards: leaderboards
            .map(|(i, board)| leaderboard(&format!("leaderboards[{i}]"), board))
            .collect::<Result<_, _>>()?,
        referral: given.referral.as_ref().map(referral).transpose()?,
    })
}

/// Lays a programme into the message of its campaign.
pub fn programme_to_wire(programme: &Programme, campaign: v1::Campaign) -> v1::Campaign {
    let tier =
        |tier: &Tier| v1::Tier { tier_id: tier.id.to_string(), name: tier.name.clone(), threshold: tier.threshold };
    let stacking = match programme.stacking {
        Stacking::Best => v1::Stacking::Best,
        Stacking::Add => v1::Stacking::Add,
        Stacking::Multiply => v1::Stacking::Multiply,
    };
    let (kind, months) = match programme.tier_basis {
        TierBasis::Balance => (v1::TierBasisKind::Balance, 0),
        TierBasis::Earned { months } => (v1::TierBasisKind::Earned, months),
    };
    v1::Campaign {
        points: policy_to_wire(&programme.points),
        multipliers: programme.multipliers.iter().map(multiplier_to_wire).collect(),
        stacking: stacking.into(),
        first_bonus: bonus_to_wire(&programme.first_bonus),
        birthday_bonus: bonus_to_wire(&programme.birthday_bonus),
        tiers: programme.tiers.iter().map(tier).collect(),
        tier_basis: Some(v1::TierBasis { kind: kind.into(), months }),
        leaderboards: programme.leaderboards.iter().map(leaderboard_to_wire).collect(),
        referral: programme.referral.as_ref().map(referral_to_wire),
        ..campaign
    }
}

fn policy(given: Option<v1::PointsPolicy>) -> PointsPolicy {
    let given = given.unwrap_or_default();
    PointsPolicy {
        expire_after_days: given.expire_after_days,
        expiring_soon_days: given.expiring_soon_days,
        overdraft: given.overdraft,
    }
}

fn policy_to_wire(policy: &PointsPolicy) -> Option<v1::PointsPolicy> {
    let PointsPolicy { expire_after_days, expiring_soon_days, overdraft } = *policy;
    (*policy != PointsPolicy::default()).then_some(v1::PointsPolicy {
        expire_after_days,
        expiring_soon_days,
        overdraft,
    })
}

fn bonus(given: Option<v1::Bonus>) -> Bonus {
    let given = given.unwrap_or_default();
    Bonus { points: Points(given.points), coins: Coins(given.coins) }
}

fn bonus_to_wire(bonus: &Bonus) -> Option<v1::Bonus> {
    (!bonus.is_nothing()).then_some(v1::Bonus { points: bonus.points.0, coins: bonus.coins.0 })
}

/// A condition over a rule's names; none where it is empty.
///
/// # Errors
///
/// `INVALID_EXPRESSION`, with the field.
pub fn condition(field: &str, text: &str) -> Result<Option<Expression>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(Expression::parse(field, text, RULE_NAMES)?))
}

fn multiplier(at: &str, given: &v1::Multiplier) -> Result<Multiplier, Refused> {
    Ok(Multiplier {
        id: id(&format!("{at}.multiplier_id"), &given.multiplier_id)?,
        percent: given.percent,
        tier: optional_id(&format!("{at}.tier_id"), &given.tier_id)?,
        segment: optional_id(&format!("{at}.segment_id"), &given.segment_id)?,
        condition: condition(&format!("{at}.condition"), &given.condition)?,
        validity: validity(&format!("{at}."), given.starts_at, given.ends_at)?,
    })
}

fn multiplier_to_wire(multiplier: &Multiplier) -> v1::Multiplier {
    v1::Multiplier {
        multiplier_id: multiplier.id.to_string(),
        percent: multiplier.percent,
        tier_id: multiplier.tier.as_ref().map(ToString::to_string).unwrap_or_default(),
        segment_id: multiplier.segment.as_ref().map(ToString::to_string).unwrap_or_default(),
        condition: multiplier.condition.as_ref().map(|c| c.as_str().to_owned()).unwrap_or_default(),
        starts_at: multiplier.validity.starts_at.map(timestamp),
        ends_at: multiplier.validity.ends_at.map(timestamp),
    }
}

fn tier_basis(given: Option<v1::TierBasis>) -> Result<TierBasis, Refused> {
    let given = given.unwrap_or_default();
    match word("tier_basis.kind", given.kind, "must be the balance or what was earned")? {
        v1::TierBasisKind::Earned => Ok(TierBasis::Earned { months: given.months }),
        v1::TierBasisKind::Unspecified | v1::TierBasisKind::Balance if given.months == 0 => Ok(TierBasis::Balance),
        v1::TierBasisKind::Unspecified | v1::TierBasisKind::Balance => {
            let rule = "must be 0 where tiers go by the balance";
            Err(Refused::field("tier_basis.months", given.months.to_string(), rule))
        }
    }
}

fn leaderboard(at: &str, given: &v1::Leaderboard) -> Result<Leaderboard, Refused> {
    let prize = |(j, prize): (usize, &v1::Prize)| {
        Ok::<_, Refused>(Prize {
            from_rank: prize.from_rank,
            to_rank: prize.to_rank,
            bonus: bonus(prize.bonus),
            reward_id: optional_id(&format!("{at}.prizes[{j}].reward_id"), &prize.reward_id)?,
        })
    };
    Ok(Leaderboard {
        id: id(&format!("{at}.leaderboard_id"), &given.leaderboard_id)?,
        name: given.name.clone(),
        period: period(&format!("{at}.period"), given.period)?,
        prizes: given.prizes.iter().enumerate().map(prize).collect::<Result<_, _>>()?,
    })
}

fn leaderboard_to_wire(board: &Leaderboard) -> v1::Leaderboard {
    let prize = |prize: &Prize| v1::Prize {
        from_rank: prize.from_rank,
        to_rank: prize.to_rank,
        bonus: bonus_to_wire(&prize.bonus),
        reward_id: prize.reward_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    v1::Leaderboard {
        leaderboard_id: board.id.to_string(),
        name: board.name.clone(),
        period: period_to_wire(board.period).into(),
        prizes: board.prizes.iter().map(prize).collect(),
    }
}

fn referral(given: &v1::Referral) -> Result<Referral, Refused> {
    let side = |at: &str, given: Option<&v1::ReferralReward>| {
        let Some(given) = given else { return Ok(ReferralReward::default()) };
        let reward_id = optional_id(&format!("referral.{at}.reward_id"), &given.reward_id)?;
        Ok::<_, Refused>(ReferralReward { bonus: bonus(given.bonus), reward_id })
    };
    let rules = given.rule_ids.iter().enumerate();
    Ok(Referral {
        advocate: side("advocate", given.advocate.as_ref())?,
        friend: side("friend", given.friend.as_ref())?,
        rule_ids: rules.map(|(i, rule)| id(&format!("referral.rule_ids[{i}]"), rule)).collect::<Result<_, _>>()?,
    })
}

fn referral_to_wire(referral: &Referral) -> v1::Referral {
    let side = |side: &ReferralReward| v1::ReferralReward {
        bonus: bonus_to_wire(&side.bonus),
        reward_id: side.reward_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    v1::Referral {
        advocate: Some(side(&referral.advocate)),
        friend: Some(side(&referral.friend)),
        rule_ids: referral.rule_ids.iter().map(ToString::to_string).collect(),
    }
}

/// A segment as it came in; its bounds are the engine's to check.
///
/// # Errors
///
/// `INVALID_FIELD` or `INVALID_EXPRESSION`, with the field.
pub fn segment(given: v1::Segment) -> Result<Segment, Refused> {
    Ok(Segment {
        id: id("segment_id", &given.segment_id)?,
        name: given.name,
        condition: Expression::parse("condition", &given.condition, SEGMENT_NAMES)?,
        version: 0,
    })
}

/// A segment, for the wire.
pub fn segment_to_wire(segment: &Segment) -> v1::Segment {
    v1::Segment {
        segment_id: segment.id.to_string(),
        name: segment.name.clone(),
        condition: segment.condition.as_str().into(),
        etag: segment.version.to_string(),
    }
}

/// Settings as they came in; their bounds are the engine's to check.
pub fn settings(given: v1::Settings) -> Settings {
    let utc = Settings::default().time_zone;
    let time_zone = if given.time_zone.is_empty() { utc } else { given.time_zone };
    Settings { time_zone, coins: policy(given.coins), version: 0 }
}

/// Settings, for the wire.
pub fn settings_to_wire(settings: &Settings) -> v1::Settings {
    v1::Settings {
        time_zone: settings.time_zone.clone(),
        coins: policy_to_wire(&settings.coins),
        etag: settings.version.to_string(),
    }
}
