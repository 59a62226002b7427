//! The catalogue: what points or coins are exchanged for; and the exchanges.
//!
//! ```text
//! started (the cost is held) ──▶ completed (a voucher code) ──▶ refunded
//!                            └─▶ failed (the cost is free again)
//! ```

use serde::{Deserialize, Serialize};

use crate::id::{CampaignId, CouponBookId, MemberId, RewardId};
use crate::loyalty::campaign::{Validity, check_validity};
use crate::loyalty::ledger::Currency;
use crate::loyalty::programme::check_name;
use crate::rejection::InvalidField;
use crate::time::UnixMillis;

/// Most rewards of a tenant: whether each came into reach is looked at whenever a balance grows.
pub const REWARDS_MAX: usize = 500;
/// Most that a reward costs.
pub const COST_MAX: i64 = 1_000_000_000;
/// How long a cost is held where the reward says nothing: 15 minutes.
pub const HOLD_MS_DEFAULT: i64 = 15 * 60 * 1000;
/// How long after it was told that a reward is within reach it is not told again, by default: a day.
pub const COOL_DOWN_MS_DEFAULT: i64 = UnixMillis::DAY_MS;
/// Longest hold: 31 days.
pub const HOLD_MS_MAX: i64 = 31 * UnixMillis::DAY_MS;
/// Longest cool-down: a year.
pub const COOL_DOWN_MS_MAX: i64 = 366 * UnixMillis::DAY_MS;
/// Longest id of a redemption, in bytes: it is part of a key.
pub const REDEMPTION_ID_LEN_MAX: usize = 128;

/// What a reward costs: one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// Points of the reward's campaign.
    Points(i64),
    /// The advertiser's coins.
    Coins(i64),
}

impl Cost {
    /// How much.
    pub fn amount(self) -> i64 {
        match self {
            Cost::Points(amount) | Cost::Coins(amount) => amount,
        }
    }

    /// Of what, in a campaign.
    pub fn currency(self, campaign: &CampaignId) -> Currency {
        match self {
            Cost::Points(_) => Currency::Points(campaign.clone()),
            Cost::Coins(_) => Currency::Coins,
        }
    }
}

/// Something to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reward {
    /// Unique within the tenant.
    pub reward_id: RewardId,
    /// Whose members may have it, and whose points it costs.
    pub campaign_id: CampaignId,
    /// For people.
    pub reward_name: String,
    /// For people.
    pub description: String,
    /// A picture of it; empty for none.
    pub picture_url: String,
    /// Where it is got; empty for none.
    pub reward_link: String,
    /// What it is worth, as `3.50 EUR`; empty for none.
    pub reward_value: String,
    /// What it costs.
    pub cost: Cost,
    /// How many there are in all; any number where absent.
    pub stock: Option<u64>,
    /// How many one member may have, refunded ones left out; any number where absent.
    pub per_member_max: Option<u32>,
    /// Where voucher codes come from; whoever completes a redemption gives the code where absent.
    pub coupon_book_id: Option<CouponBookId>,
    /// When it may be asked for.
    #[serde(flatten)]
    pub offered: Offered,
    /// How long the cost is held before the redemption fails by itself.
    pub hold_ms: i64,
    /// How long after it was told that the reward is within reach it is not told again.
    pub cool_down_ms: i64,
    /// Whether it may be asked for at all.
    pub active: bool,
    /// Counts changes, from 1; the etag.
    pub version: u64,
}

/// When a reward or a coupon is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offered {
    /// First instant.
    #[serde(default)]
    pub valid_from: Option<UnixMillis>,
    /// First instant after.
    #[serde(default)]
    pub valid_to: Option<UnixMillis>,
}

impl Offered {
    /// Whether `at` is inside.
    pub fn contains(&self, at: UnixMillis) -> bool {
        self.as_validity().contains(at)
    }

    pub(crate) fn as_validity(&self) -> Validity {
        Validity { starts_at: self.valid_from, ends_at: self.valid_to }
    }
}

impl Reward {
    /// Checks every bound.
    ///
    /// # Errors
    ///
    /// The first field that is out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let bad = |field: &str, value: i64, rule: &str| Err(InvalidField::new(field, value.to_string(), rule));
        check_name("reward_name", &self.reward_name)?;
        check_name("reward_value", &self.reward_value)?;
        let texts = [("description", &self.description), ("picture_url", &self.picture_url)];
        for (field, text) in texts.into_iter().chain([("reward_link", &self.reward_link)]) {
            if text.len() > 2_000 {
                return Err(InvalidField::new(field, text, "must be at most 2000 bytes"));
            }
        }
        if !(1..=COST_MAX).contains(&self.cost.amount()) {
            return bad("cost", self.cost.amount(), "must be from 1 to 1000000000");
        }
        if self.per_member_max == Some(0) {
            return bad("per_member_max", 0, "must be at least 1");
        }
        if !(1_000..=HOLD_MS_MAX).contains(&self.hold_ms) {
            return bad("hold_ms", self.hold_ms, "must be from a second to 31 days");
        }
        if !(0..=COOL_DOWN_MS_MAX).contains(&self.cool_down_ms) {
            return bad("cool_down_ms", self.cool_down_ms, "must be from 0 to 366 days");
        }
        check_validity("valid", &self.offered.as_validity())
    }
}

/// An exchange of points or coins for a reward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redemption {
    /// Chosen by the caller: exactly once per tenant, for ever.
    pub redemption_id: String,
    /// Whose.
    pub member_id: MemberId,
    /// For what.
    pub reward_id: RewardId,
    /// In which campaign.
    pub campaign_id: CampaignId,
    /// What it cost when it was started.
    pub cost: Cost,
    /// How far it has come.
    pub state: RedemptionState,
    /// The code, once completed.
    pub voucher_code: String,
    /// Why it failed or was refunded.
    pub reason: String,
    /// Began.
    pub started_at: UnixMillis,
    /// Last changed.
    pub updated_at: UnixMillis,
    /// When the hold ends.
    pub until: UnixMillis,
}

/// How far a redemption has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedemptionState {
    /// The cost is held.
    Started,
    /// The cost is paid.
    Completed,
    /// The cost is free again.
    Failed,
    /// The cost was given back.
    Refunded,
}

impl RedemptionState {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            RedemptionState::Started => "started",
            RedemptionState::Completed => "completed",
            RedemptionState::Failed => "failed",
            RedemptionState::Refunded => "refunded",
        }
    }
}

/// The hold of a redemption.
pub fn hold_id(redemption_id: &str) -> String {
    format!("redemption/{redemption_id}")
}
