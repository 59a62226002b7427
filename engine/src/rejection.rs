//! The business saying no: values with a stable code, never errors of ours.
//!
//! # Invariants
//!
//! - A rejection changes nothing, and uses up no id.
//! - [`Rejection::reason`] is part of the API and never changes; the message is for people.

use crate::id::{
    AdvertiserId, CampaignId, CouponBookId, CredentialId, MemberId, RewardId, SegmentId, Sequence, SubscriptionId,
};
use crate::loyalty::consumption::Receipt;
use crate::loyalty::fact::FactReceipt;

/// A field that is out of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} {rule}")]
pub struct InvalidField {
    /// Path of the field, as `rules[2].points`.
    pub field: String,
    /// What was given, cut to 80 characters.
    pub value: String,
    /// The rule it breaks, as `must be from 1 to 10`.
    pub rule: String,
    /// Stable code.
    pub reason: &'static str,
}

impl InvalidField {
    /// A field with the general code `INVALID_FIELD`.
    pub fn new(field: impl Into<String>, value: impl AsRef<str>, rule: impl Into<String>) -> Self {
        Self::with_reason("INVALID_FIELD", field, value, rule)
    }

    /// A field with a code of its own.
    pub fn with_reason(
        reason: &'static str,
        field: impl Into<String>,
        value: impl AsRef<str>,
        rule: impl Into<String>,
    ) -> Self {
        let value = value.as_ref().chars().take(80).collect();
        InvalidField { field: field.into(), value, rule: rule.into(), reason }
    }
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// A field is out of its bounds.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The id was used by a consumption with the same content.
    #[error("Consumption already processed")]
    ConsumptionExists {
        /// What the first one was answered.
        first: Box<Receipt>,
    },
    /// The id was used by another consumption.
    #[error("Consumption already processed, with another {field}")]
    ConsumptionExistsWithDifferentContent {
        /// The first field that differs.
        field: &'static str,
        /// What the first one was answered.
        first: Box<Receipt>,
    },
    /// The fact was published before, with the same content.
    #[error("Fact already published")]
    FactExists {
        /// What the first one was answered.
        first: FactReceipt,
    },
    /// The id was used by another fact of this source.
    #[error("Fact already published, with another {field}")]
    FactExistsWithDifferentContent {
        /// The first field that differs.
        field: &'static str,
        /// What the first one was answered.
        first: FactReceipt,
    },
    /// The id was used by what was trimmed since.
    #[error("it was used before, by the event at {first}, which is not kept any more")]
    UsedUp {
        /// As for what is kept.
        reason: &'static str,
        /// Where it was used.
        first: Sequence,
    },
    /// No identifier names a member.
    #[error("Account not found (user not registered)")]
    AccountNotFound,
    /// The identifiers name more than one member.
    #[error("Identifiers {first} and {second} belong to two members")]
    IdentifiersConflict {
        /// Kind of one identifier.
        first: &'static str,
        /// Kind of the other.
        second: &'static str,
    },
    /// The member is blocked.
    #[error("User is blocked")]
    UserBlocked,
    /// The member has joined no campaign.
    #[error("User has no cards (user did not join campaign)")]
    UserHasNoCards,
    /// A balance would leave the range of what can be counted.
    #[error("balance of {currency} would overflow")]
    BalanceOverflow {
        /// Of what.
        currency: String,
    },
    /// More would be taken than there is.
    #[error("balance of {currency} is {balance}, {wanted} are needed")]
    InsufficientBalance {
        /// Of what.
        currency: String,
        /// What there is.
        balance: i64,
        /// What would be taken.
        wanted: i64,
    },
    /// No such member.
    #[error("member {0} not found")]
    MemberNotFound(MemberId),
    /// The member's personal fields were erased; nothing about it changes any more.
    #[error("member {0} is erased")]
    MemberErased(MemberId),
    /// Another member is known by this identifier.
    #[error("{kind} belongs to member {owner} already")]
    IdentifierTaken {
        /// Kind of the identifier; its value is personal data.
        kind: &'static str,
        /// Who has it.
        owner: MemberId,
    },
    /// The member has no card of the campaign.
    #[error("member {member} has not joined campaign {campaign}")]
    NotJoined {
        /// Who.
        member: MemberId,
        /// Which campaign.
        campaign: CampaignId,
    },
    /// No such campaign.
    #[error("campaign {0} not found")]
    CampaignNotFound(CampaignId),
    /// A campaign of that id exists.
    #[error("campaign {0} exists already")]
    CampaignExists(CampaignId),
    /// The campaign is over.
    #[error("campaign {0} is not active at this time")]
    CampaignNotActive(CampaignId),
    /// Somebody else changed it in between.
    #[error("etag {given:?} is out of date, the current one is {current:?}")]
    EtagMismatch {
        /// What the caller had.
        given: String,
        /// What it is.
        current: String,
    },
    /// No such advertiser.
    #[error("advertiser {0} not found")]
    AdvertiserNotFound(AdvertiserId),
    /// An advertiser of that id exists.
    #[error("advertiser {0} exists already")]
    AdvertiserExists(AdvertiserId),
    /// No such key.
    #[error("api key {0} not found")]
    CredentialNotFound(CredentialId),
    /// A key of that name exists.
    #[error("api key {0} exists already")]
    CredentialExists(CredentialId),
    /// No such subscription.
    #[error("subscription {0} not found")]
    SubscriptionNotFound(SubscriptionId),
    /// A subscription of that id exists.
    #[error("subscription {0} exists already")]
    SubscriptionExists(SubscriptionId),
    /// There are as many as there may be.
    #[error("there are {max} {what} already, which is the limit")]
    LimitReached {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// The `request_id` was used before, for something else.
    #[error("request_id {request_id:?} was used before, for a call with other content")]
    RequestIdReused {
        /// The id.
        request_id: String,
    },
    /// The id was used before, for something else.
    #[error("{what} {id:?} was used before, with other content")]
    IdReused {
        /// What kind of id, as `hold_id`.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// The member is another one by now.
    #[error("member {member} was merged into {into}")]
    MemberMerged {
        /// Who is no more.
        member: MemberId,
        /// Who it is now.
        into: MemberId,
    },
    /// The two cannot become one now.
    #[error("member {member} has {what}: finish it before merging")]
    MemberBusy {
        /// Who.
        member: MemberId,
        /// What is open, as `the hold h-1`.
        what: String,
    },
    /// Nothing of that id is set aside.
    #[error("hold {0:?} not found, or finished already")]
    HoldNotFound(String),
    /// No such entry of this member.
    #[error("ledger entry {0} not found")]
    EntryNotFound(Sequence),
    /// What it moved cannot be taken back by itself.
    #[error("ledger entry {entry} cannot be reversed: {why}")]
    EntryNotReversible {
        /// Which.
        entry: Sequence,
        /// Why.
        why: &'static str,
    },
    /// No such segment.
    #[error("segment {0} not found")]
    SegmentNotFound(SegmentId),
    /// A segment of that id exists.
    #[error("segment {0} exists already")]
    SegmentExists(SegmentId),
    /// No such reward.
    #[error("reward {0} not found")]
    RewardNotFound(RewardId),
    /// A reward of that id exists.
    #[error("reward {0} exists already")]
    RewardExists(RewardId),
    /// The reward is not on offer.
    #[error("reward {0} is not on offer at this time")]
    RewardNotOffered(RewardId),
    /// None is left.
    #[error("reward {0} is out of stock")]
    OutOfStock(RewardId),
    /// The member had as many as allowed.
    #[error("member {member} had reward {reward} {max} times already, which is the limit")]
    RewardLimitReached {
        /// Who.
        member: MemberId,
        /// Which.
        reward: RewardId,
        /// How many are allowed.
        max: u32,
    },
    /// No such redemption.
    #[error("redemption {0:?} not found")]
    RedemptionNotFound(String),
    /// It has come too far, or not far enough.
    #[error("redemption {redemption_id:?} is {state}, it must be {wanted}")]
    RedemptionState {
        /// Which.
        redemption_id: String,
        /// What it is.
        state: &'static str,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// No such obligation.
    #[error("obligation {0:?} not found")]
    ObligationNotFound(String),
    /// No such coupon book.
    #[error("coupon book {0} not found")]
    CouponBookNotFound(CouponBookId),
    /// A coupon book of that id exists.
    #[error("coupon book {0} exists already")]
    CouponBookExists(CouponBookId),
    /// Every code was given to somebody.
    #[error("coupon book {0} has no code left")]
    NoCouponsLeft(CouponBookId),
    /// No such code.
    #[error("coupon {code:?} of book {coupon_book} not found")]
    CouponNotFound {
        /// Of which book.
        coupon_book: CouponBookId,
        /// Which.
        code: String,
    },
    /// The code cannot be given, used or rolled back as it is.
    #[error("coupon {code:?} {why}")]
    CouponState {
        /// Which.
        code: String,
        /// Why, as `was used as often as allowed`.
        why: &'static str,
    },
    /// One command would write more than a journal record holds.
    #[error("the outcome would need {bytes} bytes in the journal, at most {max} are allowed: split the request")]
    RecordTooLarge {
        /// What it needs.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
}

impl Rejection {
    /// The stable code, as in API.md's tables.
    pub fn reason(&self) -> &'static str {
        match self {
            Rejection::Invalid(field) => field.reason,
            Rejection::ConsumptionExists { .. } => "CONSUMPTION_EXISTS",
            Rejection::ConsumptionExistsWithDifferentContent { .. } => "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT",
            Rejection::FactExists { .. } => "FACT_EXISTS",
            Rejection::FactExistsWithDifferentContent { .. } => "FACT_EXISTS_WITH_DIFFERENT_CONTENT",
            Rejection::UsedUp { reason, .. } => reason,
            Rejection::AccountNotFound => "ACCOUNT_NOT_FOUND",
            Rejection::IdentifiersConflict { .. } => "IDENTIFIERS_CONFLICT",
            Rejection::UserBlocked => "USER_BLOCKED",
            Rejection::UserHasNoCards => "USER_HAS_NO_CARDS",
            Rejection::BalanceOverflow { .. } => "BALANCE_OVERFLOW",
            Rejection::InsufficientBalance { .. } => "INSUFFICIENT_BALANCE",
            Rejection::MemberNotFound(_) => "MEMBER_NOT_FOUND",
            Rejection::MemberErased(_) => "MEMBER_ERASED",
            Rejection::IdentifierTaken { .. } => "IDENTIFIER_TAKEN",
            Rejection::NotJoined { .. } => "NOT_JOINED",
            Rejection::CampaignNotFound(_) => "CAMPAIGN_NOT_FOUND",
            Rejection::CampaignExists(_) => "CAMPAIGN_EXISTS",
            Rejection::CampaignNotActive(_) => "CAMPAIGN_NOT_ACTIVE",
            Rejection::EtagMismatch { .. } => "ETAG_MISMATCH",
            Rejection::AdvertiserNotFound(_) => "ADVERTISER_NOT_FOUND",
            Rejection::AdvertiserExists(_) => "ADVERTISER_EXISTS",
            Rejection::CredentialNotFound(_) => "CREDENTIAL_NOT_FOUND",
            Rejection::CredentialExists(_) => "CREDENTIAL_EXISTS",
            Rejection::SubscriptionNotFound(_) => "SUBSCRIPTION_NOT_FOUND",
            Rejection::SubscriptionExists(_) => "SUBSCRIPTION_EXISTS",
            Rejection::LimitReached { .. } => "LIMIT_REACHED",
            Rejection::RequestIdReused { .. } => "REQUEST_ID_REUSED",
            Rejection::IdReused { .. } => "ID_REUSED",
            Rejection::MemberMerged { .. } => "MEMBER_MERGED",
            Rejection::MemberBusy { .. } => "MEMBER_BUSY",
            Rejection::HoldNotFound(_) => "HOLD_NOT_FOUND",
            Rejection::EntryNotFound(_) => "ENTRY_NOT_FOUND",
            Rejection::EntryNotReversible { .. } => "ENTRY_NOT_REVERSIBLE",
            Rejection::SegmentNotFound(_) => "SEGMENT_NOT_FOUND",
            Rejection::SegmentExists(_) => "SEGMENT_EXISTS",
            Rejection::RewardNotFound(_) => "REWARD_NOT_FOUND",
            Rejection::RewardExists(_) => "REWARD_EXISTS",
            Rejection::RewardNotOffered(_) => "REWARD_NOT_OFFERED",
            Rejection::OutOfStock(_) => "OUT_OF_STOCK",
            Rejection::RewardLimitReached { .. } => "REWARD_LIMIT_REACHED",
            Rejection::RedemptionNotFound(_) => "REDEMPTION_NOT_FOUND",
            Rejection::RedemptionState { .. } => "REDEMPTION_STATE",
            Rejection::ObligationNotFound(_) => "OBLIGATION_NOT_FOUND",
            Rejection::CouponBookNotFound(_) => "COUPON_BOOK_NOT_FOUND",
            Rejection::CouponBookExists(_) => "COUPON_BOOK_EXISTS",
            Rejection::NoCouponsLeft(_) => "NO_COUPONS_LEFT",
            Rejection::CouponNotFound { .. } => "COUPON_NOT_FOUND",
            Rejection::CouponState { .. } => "COUPON_STATE",
            Rejection::RecordTooLarge { .. } => "REQUEST_TOO_LARGE",
        }
    }
}
