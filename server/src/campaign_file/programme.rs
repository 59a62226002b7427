//! What a campaign does beyond its rules, as people write it.

use punchline_proto::v1;
use serde::Deserialize;
use toml::Spanned;

use super::{PeriodName, Refusal, instant};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyEntry {
    #[serde(default)]
    expire_after_days: u32,
    #[serde(default)]
    expiring_soon_days: u32,
    #[serde(default)]
    overdraft: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BonusEntry {
    #[serde(default)]
    points: i64,
    #[serde(default)]
    coins: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MultiplierEntry {
    id: String,
    percent: u32,
    #[serde(default)]
    tier: String,
    #[serde(default)]
    segment: String,
    #[serde(default)]
    condition: String,
    starts_at: Option<Spanned<toml::Value>>,
    ends_at: Option<Spanned<toml::Value>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StackingName {
    #[default]
    Best,
    Add,
    Multiply,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierEntry {
    id: String,
    name: String,
    threshold: i64,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TierBasisName {
    #[default]
    Balance,
    Earned,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaderboardEntry {
    id: String,
    name: String,
    period: PeriodName,
    prizes: Vec<PrizeEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrizeEntry {
    from_rank: u32,
    to_rank: u32,
    #[serde(default)]
    points: i64,
    #[serde(default)]
    coins: i64,
    #[serde(default)]
    reward: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReferralEntry {
    advocate: Option<SideEntry>,
    friend: Option<SideEntry>,
    #[serde(default)]
    rules: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SideEntry {
    #[serde(default)]
    points: i64,
    #[serde(default)]
    coins: i64,
    #[serde(default)]
    reward: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExternalEntry {
    reward: String,
    #[serde(default)]
    name: String,
    amount: i64,
}

impl PolicyEntry {
    pub(super) fn into_proto(self) -> v1::PointsPolicy {
        let PolicyEntry { expire_after_days, expiring_soon_days, overdraft } = self;
        v1::PointsPolicy { expire_after_days, expiring_soon_days, overdraft }
    }
}

impl BonusEntry {
    pub(super) fn into_proto(self) -> v1::Bonus {
        v1::Bonus { points: self.points, coins: self.coins }
    }
}

impl MultiplierEntry {
    pub(super) fn into_proto(self) -> Result<v1::Multiplier, Refusal> {
        Ok(v1::Multiplier {
            multiplier_id: self.id,
            percent: self.percent,
            tier_id: self.tier,
            segment_id: self.segment,
            condition: self.condition,
            starts_at: instant(self.starts_at)?,
            ends_at: instant(self.ends_at)?,
        })
    }
}

impl StackingName {
    pub(super) fn into_proto(self) -> v1::Stacking {
        match self {
            StackingName::Best => v1::Stacking::Best,
            StackingName::Add => v1::Stacking::Add,
            StackingName::Multiply => v1::Stacking::Multiply,
        }
    }
}

impl TierEntry {
    pub(super) fn into_proto(self) -> v1::Tier {
        v1::Tier { tier_id: self.id, name: self.name, threshold: self.threshold }
    }
}

impl TierBasisName {
    pub(super) fn into_proto(self, months: u32) -> v1::TierBasis {
        let kind = match self {
            TierBasisName::Balance => v1::TierBasisKind::Balance,
            TierBasisName::Earned => v1::TierBasisKind::Earned,
        };
        v1::TierBasis { kind: kind.into(), months }
    }
}

impl LeaderboardEntry {
    pub(super) fn into_proto(self) -> v1::Leaderboard {
        let prize = |prize: PrizeEntry| v1::Prize {
            from_rank: prize.from_rank,
            to_rank: prize.to_rank,
            bonus: Some(v1::Bonus { points: prize.points, coins: prize.coins }),
            reward_id: prize.reward,
        };
        v1::Leaderboard {
            leaderboard_id: self.id,
            name: self.name,
            period: self.period.into_proto().into(),
            prizes: self.prizes.into_iter().map(prize).collect(),
        }
    }
}

impl ReferralEntry {
    pub(super) fn into_proto(self) -> v1::Referral {
        let side = |side: SideEntry| v1::ReferralReward {
            bonus: Some(v1::Bonus { points: side.points, coins: side.coins }),
            reward_id: side.reward,
        };
        v1::Referral { advocate: self.advocate.map(side), friend: self.friend.map(side), rule_ids: self.rules }
    }
}

impl ExternalEntry {
    pub(super) fn into_proto(self) -> v1::ExternalReward {
        v1::ExternalReward { reward_id: self.reward, reward_name: self.name, amount: self.amount }
    }
}
