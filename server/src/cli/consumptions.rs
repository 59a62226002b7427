//! `consumptions`: a file of them in, over the fast lane.
//!
//! ```text
//! reader thread ─lines─▶ window of unanswered items ─StreamConsumptions─▶ results, in order ─▶ Tally
//!                                    ▲                                          │
//!                                    └────── after the pass: UNAVAILABLE ───────┘
//! ```
//!
//! # Invariants
//!
//! - Results come in order of arrival, so the oldest unanswered item is the one a result is about.
//! - Every line ends in exactly one row of the summary.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use punchline_proto::v1;
use punchline_proto::v1::campaign_service_client::CampaignServiceClient;
use punchline_proto::v1::consumption_result::Outcome;
use punchline_proto::v1::ingest_service_client::IngestServiceClient;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::client::{Client, Service};
use super::failure::{Failure, reason_of};
use super::input;
use super::lines::{self, Item, Line};
use super::message::json;
use super::output::{self, Answer};
use super::progress::Progress;

/// Consumptions that wait for their result at once: enough to fill the server's commits, few enough to
/// tell them apart when a connection is lost.
const WINDOW: usize = 1024;
/// How often a consumption is sent that the server has no room for.
const TRIES_MAX: u32 = 6;
/// A repeat of what is recorded already, with the same content.
const EXISTS: &str = "CONSUMPTION_EXISTS";

#[derive(Debug, Subcommand)]
pub(super) enum ConsumptionsCommand {
    /// Record consumptions, one JSON object a line, as Wecheer's API takes them
    ///
    /// A line is {"consumptionId", "consumptionDate", "identifiers": [{"key", "value"}],
    /// "consumptionLines": [{"sku", "productName", "quantity"}]}. Sending a file again is harmless: what
    /// is recorded already is counted as CONSUMPTION_EXISTS, and is no failure.
    Record {
        /// The file; standard input if absent or `-`
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Send nothing more after the first line that is refused; up to 1024 may be under way by then
        #[arg(long)]
        stop_on_error: bool,
    },
    /// What one consumption would come to now; nothing is recorded
    Simulate {
        /// A file with one JSON object; standard input if absent or `-`
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

pub(super) async fn run(command: ConsumptionsCommand, client: &Client) -> Result<Answer, Failure> {
    match command {
        ConsumptionsCommand::Record { file, stop_on_error } => record(file.as_deref(), stop_on_error, client).await,
        ConsumptionsCommand::Simulate { file } => {
            let consumption = parse(&input::read(file.as_deref())?)
                .map_err(|message| Failure::Malformed { path: input::name_of(file.as_deref()), message })?;
            let request = v1::SimulateConsumptionRequest { consumption: Some(consumption) };
            let mut campaigns = CampaignServiceClient::new(client.service());
            Ok(Answer::One(json(&campaigns.simulate_consumption(request).await?.into_inner())))
        }
    }
}

async fn record(file: Option<&Path>, stop_on_error: bool, client: &Client) -> Result<Answer, Failure> {
    let (reader, size_bytes) = input::open(file)?;
    let mut recorder = Recorder {
        ingest: IngestServiceClient::new(client.service()),
        tally: Tally::default(),
        progress: Progress::over(size_bytes),
        stop_on_error,
        stopped: false,
        again: Vec::new(),
    };
    let mut outcome = recorder.pass(lines::read(reader, parse).boxed()).await;
    while outcome.is_ok() && !recorder.stopped && !recorder.again.is_empty() {
        let again = std::mem::take(&mut recorder.again);
        tokio::time::sleep(again.iter().map(|item| item.wait).max().unwrap_or_default()).await;
        outcome = recorder.pass(stream::iter(again.into_iter().map(Line::Item)).boxed()).await;
    }
    let Recorder { mut tally, progress, again, .. } = recorder;
    tally.unanswered += again.len() as u64;
    progress.finish();
    let rows = Answer::Rows(&["outcome", "consumptions", "points", "coins", "stamps"], tally.rows());
    match outcome {
        Err(failure) => Ok(Answer::Although(Box::new(rows), failure)),
        Ok(()) if tally.has_failures() => Ok(Answer::Although(Box::new(rows), Failure::Reported)),
        Ok(()) => Ok(rows),
    }
}

/// One file's way in.
struct Recorder {
    ingest: IngestServiceClient<Service>,
    tally: Tally,
    progress: Progress,
    stop_on_error: bool,
    stopped: bool,
    /// What the server had no room for.
    again: Vec<Item<v1::Consumption>>,
}

impl Recorder {
    /// Sends all lines over one stream, and takes all results.
    async fn pass(&mut self, mut lines: impl Stream<Item = Line<v1::Consumption>> + Unpin) -> Result<(), Failure> {
        // The first one goes ahead of the call: a server may answer the call with the first result only.
        let Some(first) = self.next_item(&mut lines).await? else { return Ok(()) };
        // As wide as the window, so that sending never waits.
        let (sender, receiver) = mpsc::channel(WINDOW);
        let mut sender = Some(sender);
        let mut pending = VecDeque::with_capacity(WINDOW);
        send(first, &sender, &mut pending);
        let mut results = match self.ingest.stream_consumptions(ReceiverStream::new(receiver)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Err(self.lost(pending, status)),
        };
        loop {
            if self.stopped {
                sender = None;
            }
            tokio::select! {
                item = self.next_item(&mut lines), if sender.is_some() && pending.len() < WINDOW => match item? {
                    Some(item) => send(item, &sender, &mut pending),
                    None => sender = None,
                },
                result = results.message() => match result {
                    Ok(Some(response)) => match pending.pop_front() {
                        Some(item) => self.settle(item, response.result.and_then(|result| result.outcome)),
                        None => return Err(Status::internal("a result came that nothing was sent for").into()),
                    },
                    Ok(None) if pending.is_empty() && sender.is_none() => return Ok(()),
                    Ok(None) => return Err(self.lost(pending, Status::unavailable("the server ended the stream early"))),
                    Err(status) => return Err(self.lost(pending, status)),
                },
            }
        }
    }

    /// The next line that can be sent; those that cannot are told.
    async fn next_item(
        &mut self,
        lines: &mut (impl Stream<Item = Line<v1::Consumption>> + Unpin),
    ) -> Result<Option<Item<v1::Consumption>>, Failure> {
        while !self.stopped {
            match lines.next().await {
                Some(Line::Item(item)) => return Ok(Some(item)),
                Some(Line::Malformed { line, message }) => self.refuse(line, "", "MALFORMED_LINE", &message),
                Some(Line::Unreadable(source)) => {
                    return Err(Failure::Unreadable { path: "the rest of the input".into(), source });
                }
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    fn settle(&mut self, mut item: Item<v1::Consumption>, outcome: Option<Outcome>) {
        self.progress.at(item.end_bytes);
        match outcome {
            Some(Outcome::Receipt(receipt)) => self.tally.accept(&receipt),
            Some(Outcome::Error(error)) => {
                let details = error.encode_to_vec().into();
                let status = Status::with_details(Code::from_i32(error.code), error.message, details);
                item.tries += 1;
                if status.code() == Code::Unavailable && item.tries < TRIES_MAX {
                    let asked = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
                    item.wait = asked.unwrap_or(Duration::from_millis(100 << item.tries));
                    return self.again.push(item);
                }
                self.refuse(item.line, &item.what.consumption_id, &reason_of(&status), status.message());
            }
            None => self.refuse(item.line, &item.what.consumption_id, "NO_OUTCOME", "the answer is empty"),
        }
    }

    fn refuse(&mut self, line: usize, id: &str, reason: &str, message: &str) {
        *self.tally.refused.entry(reason.to_owned()).or_default() += 1;
        if reason != EXISTS {
            let id = if id.is_empty() { String::new() } else { format!(" {id}:") };
            self.progress.note(&output::harmless(&format!("line {line}:{id} {reason}: {message}")));
            self.stopped |= self.stop_on_error;
        }
    }

    fn lost(&mut self, pending: VecDeque<Item<v1::Consumption>>, status: Status) -> Failure {
        self.tally.unanswered += pending.len() as u64;
        if let Some(first) = pending.front() {
            self.progress.note(&format!(
                "no answer from line {} on ({} sent): repeating the file is harmless",
                first.line,
                pending.len()
            ));
        }
        status.into()
    }
}

fn send(
    item: Item<v1::Consumption>,
    sender: &Option<mpsc::Sender<v1::StreamConsumptionsRequest>>,
    pending: &mut VecDeque<Item<v1::Consumption>>,
) {
    let request = v1::StreamConsumptionsRequest { consumption: Some(item.what.clone()) };
    // A channel that is closed is a stream that failed: the results say so next.
    let _ = sender.as_ref().map(|sender| sender.try_send(request));
    pending.push_back(item);
}

/// What came of the lines.
#[derive(Default)]
struct Tally {
    accepted: u64,
    points: i64,
    coins: i64,
    stamps: u64,
    refused: BTreeMap<String, u64>,
    unanswered: u64,
}

impl Tally {
    fn accept(&mut self, receipt: &v1::Receipt) {
        self.accepted += 1;
        self.points += receipt.points;
        self.coins += receipt.coins;
        self.stamps += receipt.stamps;
    }

    fn has_failures(&self) -> bool {
        self.unanswered > 0 || self.refused.keys().any(|reason| reason != EXISTS)
    }

    fn rows(&self) -> Vec<serde_json::Value> {
        let mut rows = vec![json!({
            "outcome": "accepted", "consumptions": self.accepted,
            "points": self.points, "coins": self.coins, "stamps": self.stamps,
        })];
        rows.extend(self.refused.iter().map(|(reason, count)| json!({ "outcome": reason, "consumptions": count })));
        if self.unanswered > 0 {
            rows.push(json!({ "outcome": "unanswered", "consumptions": self.unanswered }));
        }
        rows
    }
}

/// Wecheer's body. What is missing is left empty: the server says which check it fails.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    consumption_id: Option<String>,
    consumption_date: Option<String>,
    identifiers: Option<Vec<lines::Identifier>>,
    consumption_lines: Option<Vec<LineBody>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LineBody {
    sku: String,
    product_name: Option<String>,
    quantity: f64,
}

/// Reads one consumption.
pub(super) fn parse(text: &[u8]) -> Result<v1::Consumption, String> {
    let body: Body = lines::json(text)?;
    let identifiers = body.identifiers.unwrap_or_default();
    let lines = body.consumption_lines.unwrap_or_default();
    Ok(v1::Consumption {
        consumption_id: body.consumption_id.unwrap_or_default(),
        consumption_date: body.consumption_date.unwrap_or_default(),
        identifiers: identifiers.into_iter().map(Into::into).collect(),
        lines: lines
            .into_iter()
            .map(|line| v1::ConsumptionLine {
                sku: line.sku,
                product_name: line.product_name.unwrap_or_default(),
                quantity: line.quantity,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests;
