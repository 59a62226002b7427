//! The business saying no: values with a stable code, never errors of ours.
//!
//! # Invariants
//!
//! - A rejection changes nothing, and uses up no id.
//! - [`Rejection::reason`] is part of the API and never changes; the message is for people.

use crate::id::{AdvertiserId, CampaignId, CredentialId, MemberId, SubscriptionId};
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
    /// The campaign is over, or has not begun.
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
            Rejection::RecordTooLarge { .. } => "REQUEST_TOO_LARGE",
        }
    }
}
