//! `facts`: a file of them in.
//!
//! ```text
//! reader thread ─lines─▶ window: a lane for each member ─PublishFact─▶ answers, as they come ─▶ Tally
//! ```
//!
//! # Invariants
//!
//! - Facts that name the same identifiers are told in the file's order: one of them is under way at once.
//! - Every line ends in exactly one row of the summary.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use clap::Subcommand;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use punchline_proto::v1;
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
use super::output::{self, Answer};
use super::progress::Progress;

/// Facts that wait for their answer, or for their turn, at once.
const WINDOW: usize = 256;
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
    /// FACT_EXISTS, and is no failure. Facts with the same identifiers are told in the file's order.
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

pub(super) async fn run(command: FactsCommand, client: &Client) -> Result<Answer, Failure> {
    let FactsCommand::Publish { file, source, stop_on_error } = command;
    publish(file.as_deref(), source, stop_on_error, client).await
}

async fn publish(file: Option<&Path>, source: String, stop_on_error: bool, client: &Client) -> Result<Answer, Failure> {
    let (reader, size_bytes) = input::open(file)?;
    let mut publisher = Publisher {
        ingest: IngestServiceClient::new(client.service()),
        source,
        tally: Tally::default(),
        progress: Progress::over(size_bytes),
        stop_on_error,
        stopped: false,
        lanes: HashMap::new(),
        under_way: FuturesUnordered::new(),
        waiting: 0,
    };
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

/// Whom a fact is about, or itself where it is about nobody.
type Lane = Vec<String>;

type Answered = (Item<v1::Fact>, Lane, Result<v1::PublishFactResponse, Status>);

/// One file's way in.
struct Publisher {
    ingest: IngestServiceClient<Service>,
    source: String,
    tally: Tally,
    progress: Progress,
    stop_on_error: bool,
    stopped: bool,
    /// Facts that wait for the one of their lane that is under way: each lane here has one.
    lanes: HashMap<Lane, VecDeque<Item<v1::Fact>>>,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Answered>>>>,
    /// Facts in `lanes`.
    waiting: usize,
}

impl Publisher {
    /// Sends all lines, and takes all answers.
    async fn pass(&mut self, mut lines: impl Stream<Item = Line<v1::Fact>> + Unpin) -> Result<(), Failure> {
        let mut outcome = Ok(());
        let mut more = true;
        loop {
            let has_room = self.under_way.len() + self.waiting < WINDOW;
            tokio::select! {
                line = lines.next(), if more && has_room && !self.stopped => match line {
                    Some(Line::Item(item)) => self.enqueue(item),
                    Some(Line::Malformed { line, message }) => self.refuse(line, "", "MALFORMED_LINE", &message),
                    Some(Line::Unreadable(source)) => {
                        more = false;
                        outcome = Err(Failure::Unreadable { path: "the rest of the input".into(), source });
                    }
                    None => more = false,
                },
                Some((item, lane, answer)) = self.under_way.next() => {
                    if let Err(lost) = self.settle(item, answer) {
                        outcome = outcome.and(Err(lost));
                        self.stopped = true;
                    }
                    self.next_of(lane);
                }
                else => return outcome,
            }
        }
    }

    fn enqueue(&mut self, mut item: Item<v1::Fact>) {
        if item.what.source.is_empty() {
            item.what.source.clone_from(&self.source);
        }
        let mut lane: Lane = item.what.identifiers.iter().map(|i| format!("{}:{}", i.key, i.value)).collect();
        lane.sort();
        if lane.is_empty() {
            lane = vec![item.what.source.clone(), item.what.fact_id.clone()];
        }
        match self.lanes.get_mut(&lane) {
            Some(queue) => {
                queue.push_back(item);
                self.waiting += 1;
            }
            None => {
                self.lanes.insert(lane.clone(), VecDeque::new());
                self.send(item, lane);
            }
        }
    }

    /// Lets the next fact of a lane go.
    fn next_of(&mut self, lane: Lane) {
        let next = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front);
        self.waiting -= usize::from(next.is_some());
        match next {
            Some(item) if self.stopped => {
                // It never left; so with those behind it.
                let behind = self.lanes.remove(&lane).map_or(0, |queue| queue.len());
                self.waiting -= behind;
                self.tally.unsent += 1 + behind as u64;
                drop(item);
            }
            Some(item) => self.send(item, lane),
            None => drop(self.lanes.remove(&lane)),
        }
    }

    fn send(&self, mut item: Item<v1::Fact>, lane: Lane) {
        let mut ingest = self.ingest.clone();
        self.under_way.push(Box::pin(async move {
            loop {
                let request = v1::PublishFactRequest { fact: Some(item.what.clone()) };
                item.tries += 1;
                let answer = ingest.publish_fact(request).await.map(tonic::Response::into_inner);
                match &answer {
                    Err(status) if status.code() == Code::Unavailable && item.tries < TRIES_MAX => {
                        let asked = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
                        item.wait = asked.unwrap_or(Duration::from_millis(100 << item.tries));
                        tokio::time::sleep(item.wait).await;
                    }
                    _ => return (item, lane, answer),
                }
            }
        }));
    }

    /// Puts an answer down; an error where there is no server any more.
    fn settle(&mut self, item: Item<v1::Fact>, answer: Result<v1::PublishFactResponse, Status>) -> Result<(), Failure> {
        self.progress.at(item.end_bytes);
        match answer {
            Ok(_) => self.tally.published += 1,
            Err(status) if is_lost(&status) => {
                self.tally.unanswered += 1;
                if !self.stopped {
                    self.progress.note(&format!("no answer to line {}: repeating the file is harmless", item.line));
                }
                return Err(status.into());
            }
            Err(status) => self.refuse(item.line, &item.what.fact_id, &reason_of(&status), status.message()),
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
    unsent: u64,
}

impl Tally {
    fn has_failures(&self) -> bool {
        self.unanswered + self.unsent > 0 || self.refused.keys().any(|reason| reason != EXISTS)
    }

    fn rows(&self) -> Vec<serde_json::Value> {
        let mut rows = vec![json!({ "outcome": "published", "facts": self.published })];
        rows.extend(self.refused.iter().map(|(reason, count)| json!({ "outcome": reason, "facts": count })));
        for (outcome, count) in [("unanswered", self.unanswered), ("unsent", self.unsent)] {
            if count > 0 {
                rows.push(json!({ "outcome": outcome, "facts": count }));
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests;
