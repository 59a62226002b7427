//! What the demo counted, and what it must have counted.

use std::collections::BTreeMap;
use std::time::Duration;

use punchline_proto::v1::Receipt;
use serde_json::{Map, Value, json};

use super::receiver::Deliveries;
use crate::cli::output::{self, Format};

/// What the generator of the data foretells, by a fold of its own (deploy/demo/generate.py).
const EXPECTED: [(&str, u64); 10] = [
    ("accepted", 2_700),
    ("refused: ACCOUNT_NOT_FOUND", 69),
    ("refused: CONSUMPTION_EXISTS", 144),
    ("refused: CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT", 32),
    ("refused: USER_BLOCKED", 60),
    ("refused: USER_HAS_NO_CARDS", 55),
    ("points", 161_275),
    ("coins", 4_090),
    ("stamps", 1_895),
    ("rows completed", 124),
];

/// What was counted.
#[derive(Default)]
pub(super) struct Tally {
    counts: BTreeMap<String, u64>,
    pub(super) sent_in: Duration,
    pub(super) settled_in: Duration,
    /// Positions and members of the events that the receiver is owed.
    pub(super) owed: BTreeMap<u64, String>,
    pub(super) deliveries: Deliveries,
    pub(super) dead_letters: u64,
    /// Events read, rows compared, the first difference.
    pub(super) verified: Option<(u64, u64, String)>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally::default()
    }

    fn count(&mut self, what: &str, n: u64) {
        *self.counts.entry(what.to_owned()).or_default() += n;
    }

    pub(super) fn accepted(&mut self, receipt: &Receipt) {
        self.count("accepted", 1);
        self.count("points", receipt.points.unsigned_abs());
        self.count("coins", receipt.coins.unsigned_abs());
        self.count("stamps", receipt.stamps);
        self.count("rows completed", receipt.rows_completed);
    }

    pub(super) fn refused(&mut self, reason: String) {
        self.count(&format!("refused: {reason}"), 1);
    }

    /// What is not as it must be; empty where all is well.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (what, expected) in EXPECTED {
            let counted = self.counts.get(what).copied().unwrap_or(0);
            if counted != expected {
                failures.push(format!("{what}: {counted}, the data's generator foretells {expected}"));
            }
        }
        for what in self.counts.keys().filter(|what| !EXPECTED.iter().any(|(name, _)| name == what)) {
            failures.push(format!("{what}: {} that nobody foretold", self.counts[what]));
        }
        let deliveries = &self.deliveries;
        if let Some((id, times)) = deliveries.taken.iter().find(|(_, times)| **times != 1) {
            failures.push(format!("{id} was received {times} times"));
        }
        let mut received: Vec<u64> = deliveries.order.values().flatten().copied().collect();
        received.sort_unstable();
        if !received.iter().eq(self.owed.keys()) {
            failures.push(format!("{} events were received, {} are owed", received.len(), self.owed.len()));
        }
        for (member, order) in &deliveries.order {
            let owed = self.owed.iter().filter(|(_, of)| *of == member).map(|(sequence, _)| sequence);
            if !order.iter().eq(owed) {
                failures.push(format!("events of member {member} came out of order: {order:?}"));
            }
        }
        if deliveries.bad_signatures > 0 {
            failures.push(format!("{} signatures were wrong", deliveries.bad_signatures));
        }
        if deliveries.retries == 0 {
            failures.push("nothing was retried, although the receiver failed".into());
        }
        match &self.verified {
            Some((_, rows, difference)) if difference.is_empty() && *rows > 0 => {}
            Some((_, _, difference)) => failures.push(format!("verify: {difference}")),
            None => failures.push("verify did not run".into()),
        }
        failures
    }

    pub(super) fn print(&self, format: Format) {
        let mut rows = Map::new();
        for (what, _) in EXPECTED {
            rows.insert(what.into(), json!(self.counts.get(what).copied().unwrap_or(0)));
        }
        let mut latencies = self.deliveries.latencies_ms.clone();
        latencies.sort_unstable();
        let percentile = |p: usize| latencies.get((latencies.len() * p / 100).min(latencies.len().saturating_sub(1)));
        let milliseconds = |p| percentile(p).map_or(Value::Null, |ms| json!(ms));
        let (events, compared, _) = self.verified.clone().unwrap_or_default();
        let more = [
            ("events delivered", json!(self.deliveries.taken.len())),
            ("attempts", json!(self.deliveries.attempts)),
            ("retried", json!(self.deliveries.retries)),
            ("dead letters", json!(self.dead_letters)),
            ("commit to receipt, p50 ms", milliseconds(50)),
            ("commit to receipt, p99 ms", milliseconds(99)),
            ("sent in, s", json!(format!("{:.1}", self.sent_in.as_secs_f64()))),
            ("all delivered in, s", json!(format!("{:.1}", self.settled_in.as_secs_f64()))),
            ("verified: events folded", json!(events)),
            ("verified: rows compared", json!(compared)),
            ("checks", json!(if self.failures().is_empty() { "all hold" } else { "FAILED" })),
        ];
        rows.extend(more.map(|(what, value)| (what.to_owned(), value)));
        output::print_one(format, Value::Object(rows));
    }
}
