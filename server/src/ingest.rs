//! The way in that gRPC and HTTP share: a consumption as it came becomes a receipt or a refusal.
//!
//! ```text
//! RawConsumption ──check──▶ Consumption ──submit──▶ on disk ──▶ Receipt | Refusal
//! ```
//!
//! # Invariants
//!
//! - A receipt is given out only once its consumption is on disk.
//! - Each consumption is counted once, under one outcome, whichever way it came in.
//!
//! # What is absent on purpose
//!
//! - Credentials and rate limits: who asks is known before the body is read.

use std::sync::LazyLock;

use metrics::{Counter, Histogram};
use punchline_engine::command::{Action, Command};
use punchline_engine::id::Tenant;
use punchline_engine::loyalty::consumption::{Consumption, RawConsumption, Receipt};
use punchline_engine::rejection::{InvalidField, Rejection};
use punchline_runtime::clock::Stopwatch;
use punchline_runtime::committer::{Answer, Outcome, Refusal, Unavailable};
use punchline_runtime::node::Node;

/// Takes one consumption in; answers once it is on disk.
///
/// # Errors
///
/// The first check that fails, in API.md's order from the body on, or why nothing is taken in now.
pub async fn record(node: &Node, tenant: Tenant, raw: RawConsumption) -> Result<Receipt, Refusal> {
    let watch = Stopwatch::start();
    let result = match check(node, raw) {
        Ok(consumption) => receipt(node.submitter().submit(command(tenant, consumption)).await),
        Err(invalid) => Err(Rejection::Invalid(invalid).into()),
    };
    count(&result, &watch);
    result
}

/// The shape check, with the node's time. What comes out is bounded, whatever came in.
///
/// # Errors
///
/// The first field that is missing or out of bounds.
pub fn check(node: &Node, raw: RawConsumption) -> Result<Consumption, InvalidField> {
    raw.check(node.clock().now())
}

/// Takes checked consumptions in, each on its own; gives their results in their order once all are on disk.
///
/// A `patient` caller waits where the queue is full, as a stream does whose sender is held back by that;
/// the others are refused at once.
pub async fn record_all(
    node: &Node,
    tenant: Tenant,
    checked: Vec<Result<Consumption, InvalidField>>,
    patient: bool,
) -> Vec<Result<Receipt, Refusal>> {
    let watch = Stopwatch::start();
    let mut results: Vec<Option<Refusal>> = Vec::with_capacity(checked.len());
    let mut commands = Vec::with_capacity(checked.len());
    for checked in checked {
        let taken = checked.map(|consumption| commands.push(command(tenant, consumption)));
        results.push(taken.map_err(|invalid| Rejection::Invalid(invalid).into()).err());
    }
    let sent = commands.len();
    let answers = match commands.is_empty() {
        true => Ok(Vec::new()),
        false => node.submitter().submit_all(commands, patient).await,
    };
    let answers = answers.unwrap_or_else(|why| (0..sent).map(|_| Err(why.clone().into())).collect());
    let mut answers = answers.into_iter();
    let stopped = || Err(Unavailable::ShuttingDown.into());
    let finish = |refused: Option<Refusal>| {
        let result = match refused {
            Some(refusal) => Err(refusal),
            None => receipt(answers.next().unwrap_or_else(stopped)),
        };
        count(&result, &watch);
        result
    };
    results.into_iter().map(finish).collect()
}

/// Carries out commands of whatever kind, each on its own; gives their answers in their order once all are on
/// disk. Consumptions among them are counted.
pub async fn carry_out(node: &Node, commands: Vec<Command>, patient: bool) -> Vec<Answer> {
    let watch = Stopwatch::start();
    let is_consumption = |command: &Command| matches!(command.action, Action::RecordConsumption(_));
    let consumptions: Vec<bool> = commands.iter().map(is_consumption).collect();
    let answers = match commands.is_empty() {
        true => Ok(Vec::new()),
        false => node.submitter().submit_all(commands, patient).await,
    };
    let answers = answers.unwrap_or_else(|why| consumptions.iter().map(|_| Err(why.clone().into())).collect());
    let counted = answers.iter().zip(&consumptions).filter(|(_, is_consumption)| **is_consumption);
    counted.for_each(|(answer, _)| count(answer, &watch));
    answers
}

/// Why none of a batch was looked at, if none was: then the call as a whole is to be tried again.
pub fn all_unavailable<T>(results: &[Result<T, Refusal>]) -> Option<Unavailable> {
    let Some(Err(Refusal::Unavailable(why))) = results.first() else { return None };
    let all = results.iter().all(|result| matches!(result, Err(Refusal::Unavailable(_))));
    all.then(|| why.clone())
}

/// Counts something that was refused and is no consumption.
pub fn count_rejection(reason: &'static str) {
    metrics::counter!("punchline_ingest_rejections_total", "reason" => reason).increment(1);
}

/// Counts consumptions that were refused before their body was looked at: credentials, rate, size, form.
pub fn count_refused(reason: &'static str, consumptions: usize) {
    METRICS.rejected.increment(consumptions as u64);
    metrics::counter!("punchline_ingest_rejections_total", "reason" => reason).increment(consumptions as u64);
}

fn command(tenant: Tenant, consumption: Consumption) -> Command {
    Command { tenant, request_id: None, action: Action::RecordConsumption(consumption) }
}

fn receipt(answer: Answer) -> Result<Receipt, Refusal> {
    match answer? {
        Outcome::Accepted(stored) => {
            let receipt = Receipt::of(stored.first, stored.record.time, &stored.record.events);
            Ok(receipt.expect("the events of an accepted consumption begin with consumption.recorded"))
        }
        Outcome::Already(_) => unreachable!("a repeated consumption is rejected with the first one's receipt"),
    }
}

fn count<T>(result: &Result<T, Refusal>, watch: &Stopwatch) {
    let metrics = &*METRICS;
    let reason = match result {
        Ok(_) => {
            metrics.accepted.increment(1);
            metrics.commit_duration.record(watch.seconds());
            return;
        }
        Err(Refusal::Rejected(rejection)) => {
            let duplicate = matches!(rejection, Rejection::ConsumptionExists { .. } | Rejection::UsedUp { .. });
            if duplicate {
                metrics.duplicate.increment(1)
            } else {
                metrics.rejected.increment(1)
            }
            rejection.reason()
        }
        Err(Refusal::Unavailable(why)) => {
            metrics.unavailable.increment(1);
            unavailable_reason(why)
        }
    };
    metrics::counter!("punchline_ingest_rejections_total", "reason" => reason).increment(1);
}

/// The stable code of why nothing is taken in.
pub fn unavailable_reason(why: &Unavailable) -> &'static str {
    match why {
        Unavailable::QueueFull => "QUEUE_FULL",
        Unavailable::DiskFull { .. } => "DISK_FULL",
        Unavailable::Stopped { .. } => "JOURNAL_STOPPED",
        Unavailable::ShuttingDown => "SHUTTING_DOWN",
    }
}

struct Metrics {
    accepted: Counter,
    duplicate: Counter,
    rejected: Counter,
    unavailable: Counter,
    commit_duration: Histogram,
}

/// Made at the first consumption, which comes after the recorder is installed.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let outcome = |outcome| metrics::counter!("punchline_ingest_consumptions_total", "outcome" => outcome);
    Metrics {
        accepted: outcome("accepted"),
        duplicate: outcome("duplicate"),
        rejected: outcome("rejected"),
        unavailable: outcome("unavailable"),
        commit_duration: metrics::histogram!("punchline_ingest_commit_duration_seconds"),
    }
});

/// Makes the series, so that they are there, as 0, before the first consumption.
pub fn begin_counting() {
    LazyLock::force(&METRICS);
}
