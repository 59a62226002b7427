//! Deliveries.

use punchline_delivery::dialect::standard;
use punchline_engine::dispatch::{AttemptLog, DeliveryJob, DeliveryRow, JobKind, JobState, RowState};
use punchline_engine::id::{MemberId, Sequence, SubscriptionId};
use punchline_proto::v1;
use punchline_storage::attempts::{LoggedAttempt, LoggedOutcome};

use super::timestamp;
use crate::filter::{Field, Filter, Kind, Value};
use crate::refuse::Refused;

/// A delivery that has no row, for the wire.
pub fn plain(
    id: SubscriptionId,
    (sequence, event_type, member): (Sequence, &str, Option<MemberId>),
    state: v1::DeliveryState,
) -> v1::Delivery {
    v1::Delivery {
        subscription_id: id.to_string(),
        sequence: sequence.0,
        webhook_id: standard::webhook_id(id, sequence),
        event_type: event_type.into(),
        member_id: member.map(|id| id.to_string()).unwrap_or_default(),
        state: state.into(),
        // Without a row it went at the first attempt, or was not attempted.
        attempts: u32::from(state == v1::DeliveryState::Delivered),
        ..v1::Delivery::default()
    }
}

/// A delivery that departed, for the wire.
pub fn departed(id: SubscriptionId, event_type: &str, row: &DeliveryRow) -> v1::Delivery {
    let mut delivery = plain(id, (row.sequence, event_type, row.member), state(row.state));
    delivery.attempts = row.attempts;
    if let RowState::Waiting { due, .. } = row.state {
        delivery.next_attempt_at = Some(timestamp(due));
    }
    if let Some(last) = row.log.last() {
        delivery.last_status = last.status.map_or(0, u32::from);
        delivery.last_error.clone_from(&last.error);
    }
    delivery
}

/// The state of a row, for the wire.
pub fn state(state: RowState) -> v1::DeliveryState {
    match state {
        RowState::Waiting { .. } => v1::DeliveryState::Waiting,
        RowState::Held => v1::DeliveryState::Held,
        RowState::Dead => v1::DeliveryState::DeadLettered,
        RowState::Delivered => v1::DeliveryState::Delivered,
        RowState::Dropped => v1::DeliveryState::Dropped,
    }
}

/// The state that a list is narrowed to; `None` for all.
///
/// # Errors
///
/// `INVALID_FIELD` for one that no list holds.
pub fn filter(given: i32) -> Result<Option<v1::DeliveryState>, Refused> {
    use v1::DeliveryState as S;
    match S::try_from(given) {
        Ok(S::Unspecified) => Ok(None),
        Ok(state @ (S::Waiting | S::Held | S::Delivered | S::DeadLettered | S::Dropped)) => Ok(Some(state)),
        Ok(S::Pending | S::NotSelected) | Err(_) => {
            let rule = "must be waiting, held, delivered, dead-lettered or dropped: the others are not listed";
            Err(Refused::field("state", given.to_string(), rule))
        }
    }
}

/// What [`v1::ListDeliveriesRequest::filter`] may name.
pub const DELIVERY_FIELDS: &[Field] = &[
    Field("status", Kind::Word(&["WAITING", "HELD", "DELIVERED", "DEAD_LETTERED", "DROPPED"])),
    Field("sequence", Kind::Number),
    Field("event_type", Kind::Text),
    Field("member_id", Kind::Text),
    Field("attempts", Kind::Number),
    Field("last_status_code", Kind::Number),
    Field("last_error", Kind::Text),
];

/// What [`v1::ListRecentAttemptsRequest::filter`] may name.
pub const ATTEMPT_FIELDS: &[Field] = &[
    Field("status_code", Kind::Number),
    Field("error", Kind::Text),
    Field("outcome", Kind::Word(&["DELIVERED", "RETRY", "GONE", "REFUSED", "ABORTED_BY_RECEIVER"])),
    Field("latency_ms", Kind::Number),
    Field("number", Kind::Number),
    Field("sequence", Kind::Number),
    Field("event_type", Kind::Text),
    Field("time", Kind::Time),
];

/// Whether `filter` lets a departed delivery through; `event_type` matters only where it names it.
pub fn lets_row_through(filter: &Filter, event_type: &str, row: &DeliveryRow) -> bool {
    let last = row.log.last();
    let member = if filter.names("member_id") { row.member.map(|id| id.to_string()) } else { None };
    filter.matches(|field| match field {
        "status" => Value::Text(match row.state {
            RowState::Waiting { .. } => "WAITING",
            RowState::Held => "HELD",
            RowState::Delivered => "DELIVERED",
            RowState::Dead => "DEAD_LETTERED",
            RowState::Dropped => "DROPPED",
        }),
        "sequence" => Value::Number(row.sequence.0),
        "event_type" => Value::Text(event_type),
        "member_id" => Value::Text(member.as_deref().unwrap_or_default()),
        "attempts" => Value::Number(u64::from(row.attempts)),
        "last_status_code" => Value::Number(last.and_then(|last| last.status).map_or(0, u64::from)),
        "last_error" => Value::Text(last.map_or("", |last| &last.error)),
        _ => unreachable!("{field} is not among DELIVERY_FIELDS"),
    })
}

/// Whether `filter` lets a logged attempt through.
pub fn lets_attempt_through(filter: &Filter, attempt: &LoggedAttempt) -> bool {
    filter.matches(|field| match field {
        "status_code" => Value::Number(attempt.status.map_or(0, u64::from)),
        "error" => Value::Text(&attempt.error),
        "outcome" => Value::Text(match attempt.outcome {
            LoggedOutcome::Delivered => "DELIVERED",
            LoggedOutcome::Retry => "RETRY",
            LoggedOutcome::Gone => "GONE",
            LoggedOutcome::Refused => "REFUSED",
            LoggedOutcome::AbortedByReceiver => "ABORTED_BY_RECEIVER",
        }),
        "latency_ms" => Value::Number(u64::from(attempt.latency_ms)),
        "number" => Value::Number(u64::from(attempt.number)),
        "sequence" => Value::Number(attempt.sequence.0),
        "event_type" => Value::Text(&attempt.event_type),
        "time" => Value::Time(attempt.at),
        _ => unreachable!("{field} is not among ATTEMPT_FIELDS"),
    })
}

/// An attempt that a row remembers, for the wire.
pub fn attempt(log: AttemptLog, (sequence, event_type): (Sequence, &str)) -> v1::Attempt {
    v1::Attempt {
        number: log.number,
        at: Some(timestamp(log.at)),
        latency_ms: u64::from(log.latency_ms),
        status: log.status.map_or(0, u32::from),
        error: log.error,
        response_body: log.response,
        sequence: sequence.0,
        event_type: event_type.into(),
        outcome: v1::AttemptOutcome::Unspecified.into(),
    }
}

/// An attempt of the delivery log, for the wire.
pub fn logged(attempt: LoggedAttempt) -> v1::Attempt {
    v1::Attempt {
        number: attempt.number,
        at: Some(timestamp(attempt.at)),
        latency_ms: u64::from(attempt.latency_ms),
        status: attempt.status.map_or(0, u32::from),
        error: attempt.error.into_owned(),
        response_body: attempt.response.into(),
        sequence: attempt.sequence.0,
        event_type: attempt.event_type,
        outcome: match attempt.outcome {
            LoggedOutcome::Delivered => v1::AttemptOutcome::Delivered,
            LoggedOutcome::Retry => v1::AttemptOutcome::Retry,
            LoggedOutcome::Gone => v1::AttemptOutcome::Gone,
            LoggedOutcome::Refused => v1::AttemptOutcome::Refused,
            LoggedOutcome::AbortedByReceiver => v1::AttemptOutcome::AbortedByReceiver,
        }
        .into(),
    }
}

/// A job, for the wire.
pub fn job(id: SubscriptionId, job: &DeliveryJob) -> v1::DeliveryJob {
    v1::DeliveryJob {
        job_id: job.id.to_string(),
        subscription_id: id.to_string(),
        kind: match job.kind {
            JobKind::Replay => v1::DeliveryJobKind::Replay,
            JobKind::Redrive => v1::DeliveryJobKind::Redrive,
        }
        .into(),
        state: match job.state {
            JobState::Running => v1::DeliveryJobState::Running,
            JobState::Completed => v1::DeliveryJobState::Completed,
            JobState::Cancelled => v1::DeliveryJobState::Cancelled,
        }
        .into(),
        from_sequence: job.from_sequence.0,
        to_sequence: job.to_sequence.0,
        event_types: job.event_types.patterns().to_vec(),
        member_ids: job.members.iter().map(ToString::to_string).collect(),
        limit: job.limit,
        max_per_second: job.per_second,
        started_at: Some(timestamp(job.started_at)),
        next_sequence: job.next_sequence.0,
        put_back: job.put_back,
        progress: job.progress(),
    }
}
