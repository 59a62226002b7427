//! `facts`: a file of them in, and what they may be.
//!
//! ```text
//! reader thread ─lines─▶ batch ─BatchPublishFacts─▶ results, in order ─▶ Tally
//!                          ▲            │
//!                          └─UNAVAILABLE┘
//! ```
//!
//! # Invariants
//!
//! - Facts are told in the file's order: one batch is under way at once.
//! - Every line that is read ends in exactly one row of the summary.

mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use prost::Message as _;
use punchline_proto::v1;
use punchline_proto::v1::fact_result::Outcome;
use punchline_proto::v1::ingest_service_client::IngestServiceClient;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::client::{Client, Service};
use super::failure::{Failure, reason_of};
use super::input;
use super::lines::{self, Item, Line};
use super::output::{self, Answer, Format};
use super::progress::Progress;

/// Most facts of a batch: enough to fill the server's commits, few enough to tell them apart when a connection
/// is lost.
const BATCH: usize = 256;
/// Bytes of properties after which a batch is full: with one line more it fits into a message.
const BATCH_BYTES: usize = 1024 * 1024;
/// How often a fact is sent that the server has no room for.
const TRIES_MAX: u32 = 6;
/// A repeat of what is told already, with the same content.
const EXISTS: &str = "FACT_EXISTS";

#[derive(Debug, Subcommand)]
pub(super) enum FactsCommand {
    /// Publish facts, one JSON object a line
    ///
    /// A line is {"source", "factId", "type", "identifiers": [{"key", "value"}], "occurredAt",
    /// "properties": {…}}. Sending a file again is harmless: what is told already is counted as
    /// FACT_EXISTS, and is no failure. Facts are told in the file's order.
    Publish {
        /// The file; standard input if absent or `-`
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The source of lines that name none
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        source: String,
        /// Send nothing more after the first line that is refused; up to 256 may be under way by then
        #[arg(long)]
        stop_on_error: bool,
    },
    /// The types that facts may have
    Types {
        #[command(subcommand)]
        command: types::TypesCommand,
    },
}

/// A line. What is missing is left empty: the server says which check it fails. A word that is not known
/// is refused: it would be lost without a sound.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    source: Option<String>,
    #[serde(alias = "fact_id")]
    fact_id: Option<String>,
    r#type: Option<String>,
    identifiers: Option<Vec<lines::Identifier>>,
    #[serde(alias = "occurred_at")]
    occurred_at: Option<String>,
    properties: Option<Box<RawValue>>,
}

fn parse(text: &[u8]) -> Result<v1::Fact, String> {
    let body: Body = lines::json(text)?;
    Ok(v1::Fact {
        source: body.source.unwrap_or_default(),
        fact_id: body.fact_id.unwrap_or_default(),
        r#type: body.r#type.unwrap_or_default(),
        identifiers: body.identifiers.unwrap_or_default().into_iter().map(Into::into).collect(),
        occurred_at: body.occurred_at.unwrap_or_default(),
        properties_json: body.properties.map(|properties| properties.get().to_owned()).unwrap_or_default(),
    })
}

pub(super) async fn run(command: FactsCommand, client: &Client, format: Format) -> Result<Answer, Failure> {
    match command {
        FactsCommand::Publish { file, source, stop_on_error } => {
            publish(file.as_deref(), source, stop_on_error, client).await
        }
        FactsCommand::Types { command } => types::run(command, client, format).await,
    }
}

async fn publish(file: Option<&Path>, source: String, stop_on_error: bool, client: &Client) -> Result<Answer, Failure> {
    let (reader, size_bytes) = input::open(file)?;
    let ingest = IngestServiceClient::new(client.service());
    let mut publisher = Publisher::new(ingest, source, stop_on_error, Progress::over(size_bytes));
    let outcome = publisher.pass(lines::read(reader, parse).boxed()).await;
    publisher.progress.finish();
    let tally = publisher.tally;
    let rows = Answer::Rows(&["outcome", "facts"], tally.rows());
    match outcome {
        Err(failure) => Ok(Answer::Although(Box::new(rows), failure)),
        Ok(()) if tally.has_failures() => Ok(Answer::Although(Box::new(rows), Failure::Reported)),
        Ok(()) => Ok(rows),
    }
}

/// One file's way in.
struct Publisher {
    ingest: IngestServiceClient<Service>,
    source: String,
    tally: Tally,
    progress: Progress,
    stop_on_error: bool,
    stopped: bool,
}

impl Publisher {
    fn new(ingest: IngestServiceClient<Service>, source: String, stop_on_error: bool, progress: Progress) -> Publisher {
        Publisher { ingest, source, tally: Tally::default(), progress, stop_on_error, stopped: false }
    }

    /// Sends all lines in batches of what there is to read, one at a time.
    async fn pass(&mut self, mut lines: impl Stream<Item = Line<v1::Fact>> + Unpin) -> Result<(), Failure> {
        let mut batch: Vec<Item<v1::Fact>> = Vec::new();
        let mut bytes = 0;
        loop {
            let next = if batch.is_empty() { Some(lines.next().await) } else { lines.next().now_or_never() };
            let ended = matches!(next, Some(None));
            let mut outcome = Ok(None);
            match next {
                Some(Some(Line::Item(mut item))) => {
                    if item.what.source.is_empty() {
                        item.what.source.clone_from(&self.source);
                    }
                    bytes += item.what.properties_json.len();
                    batch.push(item);
                    if batch.len() < BATCH && bytes < BATCH_BYTES {
                        continue;
                    }
                }
                Some(Some(Line::Malformed { line, message })) => outcome = Ok(Some((line, message))),
                Some(Some(Line::Unreadable(source))) => {
                    outcome = Err(Failure::Unreadable { path: "the rest of the input".into(), source });
                }
                // What has arrived does not wait for more.
                Some(None) | None => {}
            }
            bytes = 0;
            self.send(std::mem::take(&mut batch)).await?;
            if let Some((line, message)) = outcome? {
                self.refuse(line, "", "MALFORMED_LINE", &message);
            }
            if self.stopped || ended {
                return Ok(());
            }
        }
    }

    /// Sends a batch, and again what the server has no room for; an error where there is no server any more.
    async fn send(&mut self, mut batch: Vec<Item<v1::Fact>>) -> Result<(), Failure> {
        while !batch.is_empty() {
            let facts = batch.iter().map(|item| item.what.clone()).collect();
            let answer = self.ingest.batch_publish_facts(v1::BatchPublishFactsRequest { facts }).await;
            let results = match answer {
                Ok(answer) => answer.into_inner().results.into_iter().map(status_of).collect(),
                Err(status) if is_lost(&status) => {
                    self.tally.unanswered += batch.len() as u64;
                    let (first, last) = (batch[0].line, batch[batch.len() - 1].line);
                    self.progress
                        .note(&format!("no answer to lines {first} to {last}: repeating the file is harmless"));
                    return Err(status.into());
                }
                Err(status) => vec![Err(status); batch.len()],
            };
            let mut again = Vec::new();
            let missing = || Err(Status::internal("the answer has too few results"));
            let mut results: std::vec::IntoIter<Result<(), Status>> = results.into_iter();
            for (i, mut item) in batch.into_iter().enumerate() {
                self.progress.at(item.end_bytes);
                item.tries += 1;
                match results.next().unwrap_or_else(missing) {
                    Ok(()) => self.tally.published += 1,
                    Err(status) if status.code() == Code::Unavailable && item.tries < TRIES_MAX => {
                        let asked = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
                        item.wait = asked.unwrap_or(Duration::from_millis(100 << item.tries));
                        again.push(item);
                    }
                    Err(status) => {
                        // The line says where it is; its place in the batch says nothing to whoever has the file.
                        let message = status.message();
                        let message = message.strip_prefix(&format!("facts[{i}].")).unwrap_or(message);
                        self.refuse(item.line, &item.what.fact_id, &reason_of(&status), message);
                    }
                }
            }
            if let Some(wait) = again.iter().map(|item| item.wait).max() {
                tokio::time::sleep(wait).await;
            }
            batch = again;
        }
        Ok(())
    }

    fn refuse(&mut self, line: usize, id: &str, reason: &str, message: &str) {
        *self.tally.refused.entry(reason.to_owned()).or_default() += 1;
        if reason != EXISTS {
            let id = if id.is_empty() { String::new() } else { format!(" {id}:") };
            self.progress.note(&output::harmless(&format!("line {line}:{id} {reason}: {message}")));
            self.stopped |= self.stop_on_error;
        }
    }
}

fn status_of(result: v1::FactResult) -> Result<(), Status> {
    match result.outcome {
        Some(Outcome::Receipt(_)) => Ok(()),
        Some(Outcome::Error(error)) => {
            let details = error.encode_to_vec().into();
            Err(Status::with_details(Code::from_i32(error.code), error.message, details))
        }
        None => Err(Status::internal("the answer is empty")),
    }
}

/// Whether nobody says whether it was carried out: a server that refuses gives its reason.
fn is_lost(status: &Status) -> bool {
    status.get_details_error_info().is_none()
        && matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown)
}

/// What came of the lines.
#[derive(Default)]
struct Tally {
    published: u64,
    refused: BTreeMap<String, u64>,
    unanswered: u64,
}

impl Tally {
    fn has_failures(&self) -> bool {
        self.unanswered > 0 || self.refused.keys().any(|reason| reason != EXISTS)
    }

    fn rows(&self) -> Vec<serde_json::Value> {
        let mut rows = vec![json!({ "outcome": "published", "facts": self.published })];
        rows.extend(self.refused.iter().map(|(reason, count)| json!({ "outcome": reason, "facts": count })));
        if self.unanswered > 0 {
            rows.push(json!({ "outcome": "unanswered", "facts": self.unanswered }));
        }
        rows
    }
}

#[cfg(test)]
mod tests;
