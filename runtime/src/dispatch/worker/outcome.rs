//! What the outcome of an attempt leads to: settled, tried again or buried; the breaker turned, the
//! subscription disabled.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome};
use punchline_engine::command::Died;
use punchline_engine::dispatch::progress::RESPONSE_KEPT_BYTES_MAX;
use punchline_engine::dispatch::{AttemptLog, BreakerState, RowState, SubscriptionState};
use punchline_engine::event::{Event, Recorded};
use punchline_engine::id::SubscriptionId;
use punchline_storage::attempts::{LoggedAttempt, LoggedOutcome};

use super::{AFTER_READ_ERROR, Done, GATHER_ROWS, REPORT_AFTER, Worker};
use crate::dispatch::lanes::{Settled, WINDOW_MAX};

impl Worker {
    pub(super) fn settle(&mut self, done: Done) {
        let sequence = done.task.sequence;
        let (Ok(event), Some(report)) = (&done.event, &done.report) else {
            if done.event.is_ok() {
                // The connection that it was for is gone: another one may have it at once.
                return self.lanes.abandon(sequence, self.shared.clock.now());
            }
            let error = done.event.err().flatten().map(|e| e.to_string()).unwrap_or_else(|| "not there".into());
            tracing::error!(subscription = %self.id, %sequence, error, "the event to deliver cannot be read");
            let due = self.shared.clock.now().plus_ms(AFTER_READ_ERROR.as_millis() as i64);
            return self.lanes.abandon(sequence, due);
        };
        let recorded = event.get();
        let now = self.shared.clock.now();
        let first = done.task.attempt == 1;
        self.shared.metrics.attempt(report, done.latency, first.then_some(done.at.0 - recorded.time.0));
        let log = AttemptLog {
            number: done.task.attempt,
            at: done.at,
            latency_ms: u32::try_from(done.latency.as_millis()).unwrap_or(u32::MAX),
            status: report.status,
            error: error_text(report).into(),
            response: if report.outcome == Outcome::Delivered {
                Vec::new()
            } else {
                let kept = &report.response_snippet[..report.response_snippet.len().min(RESPONSE_KEPT_BYTES_MAX)];
                self.shared.feed.keys().seal_response(recorded.key_slot, kept)
            },
            key_slot: recorded.key_slot,
        };
        self.shared.log.record(|| logged(self.id, &recorded, &done, report));
        let turned = match endpoint_answered(report) {
            true => self.breaker.succeeded(),
            false => self.breaker.failed(&self.breaker_policy, now),
        };
        self.turned(turned);
        if self.disable.is_none()
            && self.state == SubscriptionState::Active
            && self.breaker.is_hopeless(&self.breaker_policy, now)
        {
            self.state = SubscriptionState::Disabled;
            let ms = self.breaker_policy.disable_after_ms;
            self.disable = Some(format!("nothing but failure for {ms} ms, the last was {}", error_or_status(report)));
        }
        let before = self.lanes.step(sequence);
        let asked = self.asked.remove(&sequence);
        let (how, step) = match report.outcome {
            Outcome::Delivered => {
                self.shared.metrics.end_to_end((now.0 - recorded.time.0).max(0) as f64 / 1_000.0);
                (Settled::Delivered, before)
            }
            Outcome::Gone => {
                self.state = SubscriptionState::Disabled;
                let how = if report.status == Some(410) { "answered 410 Gone" } else { "asked for it" };
                self.disable = Some(format!("the receiver {how}"));
                (Settled::Again { due: now }, before)
            }
            // An attempt that somebody asked for leaves the schedule as it was.
            Outcome::Retry if let Some((_, Some(RowState::Waiting { step, due }))) = &asked => {
                (Settled::Again { due: *due }, *step)
            }
            Outcome::Retry => {
                let schedule = self.target.as_ref().map(|t| t.schedule.clone()).unwrap_or_default();
                let step = before + 1;
                match schedule.next_attempt((self.id, sequence), step, now, report.retry_after_ms) {
                    Ok(due) => (Settled::Again { due }, step),
                    Err(_) => (Settled::Dead, step),
                }
            }
            Outcome::Refused | Outcome::AbortedByReceiver => (Settled::Dead, before + 1),
        };
        if report.asks_to_disable && self.disable.is_none() {
            self.state = SubscriptionState::Disabled;
            self.disable = Some("the receiver asked for it by webhook-delivery: disable".into());
        }
        if how == Settled::Dead {
            self.bury(&log, &done, recorded.event);
        }
        if !matches!(how, Settled::Again { .. }) {
            self.events.remove(&sequence);
        }
        self.lanes.settle(sequence, how, step, log);
        self.forget_held_events();
        if let Some((asked, _)) = asked {
            let _ = asked.send(true);
        }
        let much = self.lanes.unreported() >= WINDOW_MAX / 4;
        let soon = self.lanes.has_changed_rows() || self.disable.is_some();
        self.report_within(if much {
            Duration::ZERO
        } else if soon {
            GATHER_ROWS
        } else {
            REPORT_AFTER
        });
    }

    fn bury(&mut self, log: &AttemptLog, done: &Done, event: &Event) {
        let reason = Died::reason_of(Some(log));
        tracing::warn!(subscription = %self.id, sequence = %done.task.sequence, reason, "dead letter");
        self.shared.metrics.dead_letter(&reason);
        self.stats.dead.fetch_add(1, Relaxed);
        if !event.event_type().is_about_delivery() {
            let (sequence, attempts) = (done.task.sequence, done.task.attempt);
            self.died.push(Died { sequence, event_type: event.type_name().into(), attempts, reason });
        }
    }

    /// Held events are read again when their time comes: the window's memory is for those without a row.
    fn forget_held_events(&mut self) {
        if self.events.len() > WINDOW_MAX {
            let lanes = &self.lanes;
            self.events.retain(|sequence, _| lanes.row(*sequence).is_none());
        }
    }

    pub(super) fn turned(&mut self, state: Option<BreakerState>) {
        let Some(state) = state else { return };
        tracing::info!(subscription = %self.id, ?state, "the breaker turned");
        self.breaker_turned.push(state);
        self.stats.set_breaker(state);
        self.report_within(GATHER_ROWS);
    }
}

/// Whether the endpoint is at work, whatever it thinks of the event: a refusal of one event is no sign that
/// it would refuse the next.
fn endpoint_answered(report: &AttemptReport) -> bool {
    report.outcome != Outcome::Retry || report.status.is_some_and(|status| status < 500 && status != 408)
}

fn error_or_status(report: &AttemptReport) -> String {
    match (report.error, report.status) {
        (Some(error), _) => error.as_str().into(),
        (None, Some(status)) => format!("http_{status}"),
        (None, None) => "unknown".into(),
    }
}

/// An attempt, for the delivery log.
fn logged(id: SubscriptionId, recorded: &Recorded<'_>, done: &Done, report: &AttemptReport) -> LoggedAttempt {
    LoggedAttempt {
        subscription_id: id,
        sequence: recorded.sequence,
        event_type: recorded.event.type_name().into(),
        number: done.task.attempt,
        at: done.at,
        latency_ms: u32::try_from(done.latency.as_millis()).unwrap_or(u32::MAX),
        status: report.status,
        error: error_text(report).into(),
        outcome: match report.outcome {
            Outcome::Delivered => LoggedOutcome::Delivered,
            Outcome::Retry => LoggedOutcome::Retry,
            Outcome::Gone => LoggedOutcome::Gone,
            Outcome::Refused => LoggedOutcome::Refused,
            Outcome::AbortedByReceiver => LoggedOutcome::AbortedByReceiver,
        },
        response: report.response_snippet.clone(),
        key_slot: recorded.key_slot,
    }
}

fn error_text(report: &AttemptReport) -> &'static str {
    report.error.map_or("", ErrorCode::as_str)
}
