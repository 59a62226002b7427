//! `events`: the journal as a server tells it, a page or without end.

mod consume;
mod types;

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use punchline_proto::v1;
use punchline_proto::v1::event_service_client::EventServiceClient;
use punchline_proto::v1::subscribe_request::Start;
use punchline_proto::v1::subscribe_response::Kind;
use serde_json::Value;
use tonic::{Code, Status};

use super::client::{Client, ListOptions, Service};
use super::failure::Failure;
use super::message::{json, json_all};
use super::output::{self, Answer, Format};
use crate::campaign_file::timestamp;

/// How long a lost server is left alone.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// Events from a position on
    Read {
        /// The first position wanted
        #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
        from: u64,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        list: ListOptions,
    },
    /// Events as they happen, a line each, until stopped; goes on where it was when the server returns
    Tail {
        /// A position, a time (RFC 3339), `start` or `end`
        #[arg(long, value_name = "WHERE", default_value = "end")]
        from: From,
        #[command(flatten)]
        filter: Filter,
    },
    /// Events to a named consumer whose cursor the server keeps: each until it is acknowledged
    Consume(consume::ConsumeArgs),
    /// The event types there are, or one of them with its example and JSON Schema in each dialect
    Types(types::TypesArgs),
}

#[derive(Args, Clone, Debug)]
pub(super) struct Filter {
    /// Only this type, as points.credited or points.*; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Only this member's
    #[arg(long, value_name = "MEMBER_ID", default_value = "")]
    member: String,
    /// CEL over `event` that must hold, as 'event.data.amount >= 100'
    #[arg(long, value_name = "CEL", default_value = "")]
    filter: String,
}

impl Filter {
    fn message(&self) -> v1::EventFilter {
        v1::EventFilter {
            event_types: self.event_types.clone(),
            member_id: self.member.clone(),
            expression: self.filter.clone(),
        }
    }
}

/// Where a tail begins.
#[derive(Clone, Debug)]
pub(super) struct From(Start);

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let start = match text {
            "start" => Some(Start::FromSequence(1)),
            "end" => Some(Start::FromEnd(true)),
            _ => text.parse().map(Start::FromSequence).ok().or_else(|| timestamp(text).map(Start::FromTime)),
        };
        start.map(Self).ok_or_else(|| "is to be a position, a time as 2025-01-31T12:00:00Z, start or end".to_owned())
    }
}

pub(super) async fn run(command: EventsCommand, client: &Client, format: Format) -> Result<Answer, Failure> {
    let mut service = EventServiceClient::new(client.service());
    match command {
        EventsCommand::Read { from, filter, list } => {
            let all = list
                .collect(async |page_size, page_token: String| {
                    // The position is the token: there is no end but the head.
                    let from_sequence = page_token.parse().unwrap_or(from);
                    let request = v1::ReadEventsRequest { from_sequence, filter: Some(filter.message()), page_size };
                    let page = service.read_events(request).await?.into_inner();
                    let more = page.next_sequence <= page.head_sequence && page.next_sequence > from_sequence;
                    Ok((page.events, if more { page.next_sequence.to_string() } else { String::new() }))
                })
                .await?;
            let columns = &["sequence", "time", "type", "member_id", "data"];
            Ok(Answer::Rows(columns, json_all(&all)))
        }
        EventsCommand::Consume(args) => consume::run(&args, &mut service).await,
        EventsCommand::Types(args) => types::run(args, client, format).await,
        EventsCommand::Tail { from, filter } => tail(from.0, &filter, &mut service, format).await,
    }
}

async fn tail(
    start: Start,
    filter: &Filter,
    service: &mut EventServiceClient<Service>,
    format: Format,
) -> Result<Answer, Failure> {
    let mut start = start;
    let mut reached = false;
    loop {
        let lost = match follow(&mut start, &mut reached, filter, service, format).await {
            Ok(()) => Status::unavailable("the server ended the stream"),
            Err(Failure::Status(status)) if status.code() == Code::Unavailable && reached => *status,
            Err(failure) => return Err(failure),
        };
        output::note(&format!("{}; trying again", lost.message()));
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

/// One connection's worth of events; `start` moves on behind what was seen.
async fn follow(
    start: &mut Start,
    reached: &mut bool,
    filter: &Filter,
    service: &mut EventServiceClient<Service>,
    format: Format,
) -> Result<(), Failure> {
    let request = v1::SubscribeRequest { start: Some(*start), filter: Some(filter.message()), heartbeat_ms: 0 };
    let mut stream = service.subscribe(request).await?.into_inner();
    *reached = true;
    while let Some(message) = stream.message().await? {
        match message.kind {
            Some(Kind::Event(event)) => {
                output::line(&event_line(&event, format))?;
                *start = Start::FromSequence(event.sequence + 1);
            }
            Some(Kind::Heartbeat(heartbeat)) => *start = Start::FromSequence(heartbeat.sequence + 1),
            Some(Kind::CaughtUp(mark)) => {
                *start = Start::FromSequence(mark.sequence + 1);
                output::note(&format!("caught up at {}", mark.sequence));
            }
            Some(Kind::FellBehind(mark)) => {
                output::note(&format!("fell behind: at {} of {}", mark.sequence, mark.head_sequence));
            }
            None => {}
        }
    }
    Ok(())
}

fn event_line(event: &v1::Event, format: Format) -> String {
    let value = json(event);
    match format {
        Format::Json => value.to_string(),
        Format::Table => {
            let time = value.get("time").and_then(Value::as_str).unwrap_or_default();
            let member = if event.member_id.is_empty() { "-" } else { &event.member_id };
            let (kind, data) = (&event.r#type, &event.data_json);
            output::harmless(&format!("{:>10}  {time:<24}  {kind:<32}  {member:<36}  {data}", event.sequence))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_does_nothing_to_a_terminal() {
        let event = v1::Event { data_json: "{\"name\":\"\u{9b}2J\"}".into(), ..v1::Event::default() };
        let line = event_line(&event, Format::Table);
        assert!(line.ends_with(r#"{"name":"\u{9b}2J"}"#), "{line}");
    }

    #[test]
    fn a_tail_begins_where_it_is_told() {
        let time = prost_types::Timestamp { seconds: 1_735_689_600, nanos: 0 };
        let cases = [
            ("17", Some(Start::FromSequence(17))),
            ("start", Some(Start::FromSequence(1))),
            ("end", Some(Start::FromEnd(true))),
            ("2025-01-01T00:00:00Z", Some(Start::FromTime(time))),
            ("2025-01-01", Some(Start::FromTime(time))),
            ("soon", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<From>().ok().map(|from| from.0), expected, "{text}");
        }
    }
}
