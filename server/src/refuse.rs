//! Refusals: one value for everything that a caller may be refused, whichever door it came through.
//!
//! ```text
//! Rejection, Unavailable, InvalidField, TargetError, … ──▶ Refused ──▶ tonic::Status (gRPC)
//!                                                             └─────▶ status, reason, message (HTTP)
//! ```
//!
//! # Invariants
//!
//! - Every refusal has a stable reason, which stands in `google.rpc.ErrorInfo` with the domain `punchline`.
//! - What fails inside is logged here with its cause, and told to the caller without it.
//!
//! # Sources
//!
//! API.md, "A consumption, checked in this order"; google.rpc.Code for the HTTP statuses.

use punchline_engine::id::InvalidId;
use punchline_engine::rejection::{InvalidField, Rejection};
use punchline_proto::v1;
use punchline_runtime::committer::{Refusal, Unavailable};
use punchline_runtime::dispatch::target::TargetError;
use punchline_runtime::feed::ReadError;
use punchline_runtime::jobs::JobError;
use punchline_runtime::trim::TrimError;
use punchline_storage::backup::BackupError;
use punchline_storage::views::ViewsError;
use tonic::{Code, Status};

use crate::convert;
use crate::ingest::unavailable_reason;

mod details;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "punchline";
/// How soon to come back where too many commands wait: a few commits later.
const QUEUE_FULL_RETRY_MS: u64 = 100;
/// How soon to come back where the disk is full, the journal stopped or the server going down.
const DOWN_RETRY_MS: u64 = 5_000;

/// A field that is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its path.
    pub path: String,
    /// The rule it breaks.
    pub rule: String,
}

/// A thing that is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// What kind of thing, as `member`.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
}

/// A call that was refused, or that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Status in gRPC.
    pub code: Code,
    /// Status in HTTP.
    pub http_status: u16,
    /// Stable code.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The field to blame, if one is.
    pub field: Option<Box<Field>>,
    /// The thing to blame, if one is.
    pub resource: Option<Box<Resource>>,
    /// How soon to come back, where that may help.
    pub retry_after_ms: Option<u64>,
    /// Further facts, by name.
    pub metadata: Vec<(&'static str, String)>,
    /// What the first of two equal consumptions was answered.
    pub receipt: Option<Box<v1::Receipt>>,
}

impl Refused {
    /// A refusal with nothing but its code, its statuses and its message.
    pub fn new(code: Code, http_status: u16, reason: &'static str, message: impl Into<String>) -> Refused {
        Refused {
            code,
            http_status,
            reason,
            message: message.into(),
            field: None,
            resource: None,
            retry_after_ms: None,
            metadata: Vec::new(),
            receipt: None,
        }
    }

    fn about(mut self, kind: &'static str, name: impl ToString) -> Refused {
        self.resource = Some(Box::new(Resource { kind, name: name.to_string() }));
        self
    }

    fn retry_after(mut self, ms: u64) -> Refused {
        self.retry_after_ms = Some(ms);
        self
    }

    /// No `authorization` at all.
    pub fn credentials_missing() -> Refused {
        Refused::new(Code::Unauthenticated, 400, "CREDENTIALS_MISSING", "Missing AdvertiserId or ApiKey")
    }

    /// Wrong, expired or revoked.
    pub fn invalid_credentials() -> Refused {
        Refused::new(Code::Unauthenticated, 401, "INVALID_CREDENTIALS", "Client not authorized")
    }

    /// Known, but not allowed to.
    pub fn denied(reason: &'static str, message: impl Into<String>) -> Refused {
        Refused::new(Code::PermissionDenied, 403, reason, message)
    }

    /// Nothing of that kind and name.
    pub fn not_found(reason: &'static str, kind: &'static str, name: impl ToString) -> Refused {
        let name = name.to_string();
        Refused::new(Code::NotFound, 404, reason, format!("{kind} {name} not found")).about(kind, name)
    }

    /// A field out of its bounds, with the general code `INVALID_FIELD`.
    pub fn field(path: impl Into<String>, value: impl AsRef<str>, rule: impl Into<String>) -> Refused {
        InvalidField::new(path, value, rule).into()
    }

    /// A request without its main part.
    pub fn body_required(field: &str) -> Refused {
        let rule = "Request body cannot be null";
        InvalidField::with_reason("REQUEST_BODY_REQUIRED", field, "", rule).into()
    }

    /// More calls than the advertiser's limit allows.
    pub fn rate_limited(retry_after_ms: u64) -> Refused {
        Refused::new(Code::ResourceExhausted, 429, "RATE_LIMIT_EXCEEDED", "Rate limit exceeded")
            .retry_after(retry_after_ms)
    }

    /// More in one call than the advertiser's limit has left.
    pub fn batch_rate_limited(retry_after_ms: u64, count: usize, per_minute: u32) -> Refused {
        let mut refused = Refused::rate_limited(retry_after_ms);
        if count > per_minute as usize {
            // No window is ever large enough.
            refused.retry_after_ms = None;
            refused.message =
                format!("a batch of {count} never fits into the limit of {per_minute} a minute: split it");
        }
        refused
    }

    /// The state of things does not allow it.
    pub fn precondition(reason: &'static str, message: impl Into<String>) -> Refused {
        Refused::new(Code::FailedPrecondition, 409, reason, message)
    }

    /// A failure of ours: logged here, and told without its cause.
    pub fn internal(what: &'static str, error: &dyn std::fmt::Display) -> Refused {
        tracing::error!(%error, "failed to {what}");
        Refused::new(Code::Internal, 500, "INTERNAL", "Internal server error")
    }

    /// The server is on its way down.
    pub fn shutting_down() -> Refused {
        Unavailable::ShuttingDown.into()
    }

    /// The answer of gRPC.
    pub fn into_status(self) -> Status {
        let details = details::encode(&self);
        Status::with_details(self.code, self.message, details.into())
    }

    /// The same as a message within a message, for results of batches.
    pub fn into_rpc_status(self) -> tonic_types::pb::Status {
        details::rpc_status(&self)
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        refused.into_status()
    }
}

impl From<InvalidField> for Refused {
    fn from(invalid: InvalidField) -> Refused {
        // What is missing has no value to show, and its message is the table's.
        let missing = invalid.value.is_empty() && invalid.reason.ends_with("_REQUIRED");
        let message = if missing { invalid.rule.clone() } else { invalid.to_string() };
        let mut refused = Refused::new(Code::InvalidArgument, 400, invalid.reason, message);
        refused.field = Some(Box::new(Field { path: invalid.field, rule: invalid.rule }));
        refused
    }
}

/// An id in `field` that is none.
pub fn invalid_id(field: &str) -> impl FnOnce(InvalidId) -> Refused {
    move |id| Refused::field(field, id.value, format!("must be {}", id.rule))
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Refused {
        use Code::{Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted};
        use Rejection as R;
        let (reason, message) = (rejection.reason(), rejection.to_string());
        let refuse = |code, http_status| Refused::new(code, http_status, reason, message);
        match rejection {
            R::Invalid(invalid) => invalid.into(),
            R::ConsumptionExists { first } => {
                let mut refused = refuse(AlreadyExists, 409);
                refused.metadata = convert::receipt_facts(&first);
                refused.receipt = Some(Box::new(convert::receipt(*first)));
                refused
            }
            R::ConsumptionExistsWithDifferentContent { field, first } => {
                let mut refused = refuse(AlreadyExists, 409);
                refused.metadata = convert::receipt_facts(&first);
                refused.metadata.push(("field", field.into()));
                refused.receipt = Some(Box::new(convert::receipt(*first)));
                refused
            }
            R::FactExists { first } => {
                let mut refused = refuse(AlreadyExists, 409);
                refused.metadata = convert::fact::receipt_facts(&first);
                refused
            }
            R::FactExistsWithDifferentContent { field, first } => {
                let mut refused = refuse(AlreadyExists, 409);
                refused.metadata = convert::fact::receipt_facts(&first);
                refused.metadata.push(("field", field.into()));
                refused
            }
            R::UsedUp { first, .. } => {
                let mut refused = refuse(AlreadyExists, 409);
                refused.metadata = vec![("sequence", first.to_string())];
                refused.receipt = Some(Box::new(v1::Receipt { sequence: first.0, ..v1::Receipt::default() }));
                refused
            }
            R::AccountNotFound | R::UserHasNoCards => refuse(NotFound, 404),
            R::IdentifiersConflict { .. } => refuse(FailedPrecondition, 400),
            R::UserBlocked => refuse(FailedPrecondition, 403),
            R::BalanceOverflow { .. } => refuse(FailedPrecondition, 409),
            R::InsufficientBalance { balance, wanted, .. } => {
                let mut refused = refuse(FailedPrecondition, 409);
                refused.metadata = vec![("balance", balance.to_string()), ("wanted", wanted.to_string())];
                refused
            }
            R::NotJoined { member, .. } => refuse(FailedPrecondition, 409).about("member", member),
            R::CampaignNotActive(id) => refuse(FailedPrecondition, 409).about("campaign", id),
            R::MemberNotFound(id) => refuse(NotFound, 404).about("member", id),
            R::MemberErased(id) => refuse(FailedPrecondition, 409).about("member", id),
            R::CampaignNotFound(id) => refuse(NotFound, 404).about("campaign", id),
            R::AdvertiserNotFound(id) => refuse(NotFound, 404).about("advertiser", id),
            R::CredentialNotFound(id) => refuse(NotFound, 404).about("credential", id),
            R::SubscriptionNotFound(id) => refuse(NotFound, 404).about("subscription", id),
            R::IdentifierTaken { owner, .. } => refuse(AlreadyExists, 409).about("member", owner),
            R::CampaignExists(id) => refuse(AlreadyExists, 409).about("campaign", id),
            R::AdvertiserExists(id) => refuse(AlreadyExists, 409).about("advertiser", id),
            R::CredentialExists(id) => refuse(AlreadyExists, 409).about("credential", id),
            R::SubscriptionExists(id) => refuse(AlreadyExists, 409).about("subscription", id),
            R::RequestIdReused { .. } => refuse(AlreadyExists, 409),
            R::EtagMismatch { current, .. } => {
                let mut refused = refuse(Aborted, 409);
                refused.metadata = vec![("current", current)];
                refused
            }
            R::IdReused { what, id } => refuse(AlreadyExists, 409).about(what, id),
            R::MemberMerged { member, into } => {
                let mut refused = refuse(FailedPrecondition, 409).about("member", member);
                refused.metadata = vec![("merged_into", into.to_string())];
                refused
            }
            R::MemberBusy { member, .. } => refuse(FailedPrecondition, 409).about("member", member),
            R::HoldNotFound(id) => refuse(NotFound, 404).about("hold", id),
            R::EntryNotFound(entry) => refuse(NotFound, 404).about("entry", entry),
            R::EntryNotReversible { entry, .. } => refuse(FailedPrecondition, 409).about("entry", entry),
            R::SegmentNotFound(id) => refuse(NotFound, 404).about("segment", id),
            R::SegmentExists(id) => refuse(AlreadyExists, 409).about("segment", id),
            R::RewardNotFound(id) => refuse(NotFound, 404).about("reward", id),
            R::RewardExists(id) => refuse(AlreadyExists, 409).about("reward", id),
            R::RewardNotOffered(id) | R::OutOfStock(id) => refuse(FailedPrecondition, 409).about("reward", id),
            R::RewardLimitReached { reward, max, .. } => {
                let mut refused = refuse(FailedPrecondition, 409).about("reward", reward);
                refused.metadata = vec![("max", max.to_string())];
                refused
            }
            R::RedemptionNotFound(id) => refuse(NotFound, 404).about("redemption", id),
            R::RedemptionState { redemption_id, state, wanted } => {
                let mut refused = refuse(FailedPrecondition, 409).about("redemption", redemption_id);
                refused.metadata = vec![("state", state.into()), ("wanted", wanted.into())];
                refused
            }
            R::ObligationNotFound(id) => refuse(NotFound, 404).about("obligation", id),
            R::CouponBookNotFound(id) => refuse(NotFound, 404).about("coupon_book", id),
            R::CouponBookExists(id) => refuse(AlreadyExists, 409).about("coupon_book", id),
            R::NoCouponsLeft(id) => refuse(FailedPrecondition, 409).about("coupon_book", id),
            R::CouponNotFound { code, .. } => refuse(NotFound, 404).about("coupon", code),
            R::CouponState { code, .. } => refuse(FailedPrecondition, 409).about("coupon", code),
            R::LimitReached { what, .. } => refuse(ResourceExhausted, 429).about("limit", what),
            R::RecordTooLarge { .. } => refuse(InvalidArgument, 413),
        }
    }
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Refused {
        let (message, retry_ms) = match &unavailable {
            Unavailable::QueueFull => ("the queue is full, try again", QUEUE_FULL_RETRY_MS),
            // What was found names paths: it stands in the log and in GetStatus.
            Unavailable::DiskFull { .. } => ("the disk is full", DOWN_RETRY_MS),
            Unavailable::Stopped { .. } => ("the journal is stopped", DOWN_RETRY_MS),
            Unavailable::ShuttingDown => ("the server is shutting down", DOWN_RETRY_MS),
        };
        let reason = unavailable_reason(&unavailable);
        Refused::new(Code::Unavailable, 503, reason, message).retry_after(retry_ms)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        match refusal {
            Refusal::Rejected(rejection) => rejection.into(),
            Refusal::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<TargetError> for Refused {
    fn from(error: TargetError) -> Refused {
        match error {
            TargetError::Invalid(invalid) => invalid.into(),
            TargetError::Unreadable(unreadable) => Refused::precondition("SECRET_UNREADABLE", unreadable.to_string()),
        }
    }
}

impl From<JobError> for Refused {
    fn from(error: JobError) -> Refused {
        match error {
            JobError::Unavailable(unavailable) => unavailable.into(),
            JobError::Views(error) => error.into(),
            JobError::UnknownTenant(tenant) => {
                Refused::not_found("ADVERTISER_NOT_FOUND", "advertiser", tenant.advertiser)
            }
        }
    }
}

impl From<BackupError> for Refused {
    /// For operators, who are to know which file it was.
    fn from(error: BackupError) -> Refused {
        tracing::error!(%error, "the backup failed");
        Refused::new(Code::FailedPrecondition, 409, "BACKUP_FAILED", error.to_string())
    }
}

impl From<TrimError> for Refused {
    /// For operators, likewise.
    fn from(error: TrimError) -> Refused {
        match error {
            TrimError::Backup(error) => error.into(),
            TrimError::Unavailable(unavailable) => unavailable.into(),
            error => {
                tracing::error!(%error, "the journal was not trimmed");
                Refused::new(Code::FailedPrecondition, 409, "TRIM_FAILED", error.to_string())
            }
        }
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Refused {
        Refused::internal("read the journal", &error)
    }
}

impl From<ViewsError> for Refused {
    fn from(error: ViewsError) -> Refused {
        Refused::internal("read the views", &error)
    }
}

#[cfg(test)]
mod tests;
