//! `deliveries` and `dead-letters`: what became of each event.

use clap::{Args, Subcommand, ValueEnum};
use prost_types::Timestamp;
use punchline_proto::v1;
use punchline_proto::v1::delivery_service_client::DeliveryServiceClient;

use super::client::{Client, ListOptions};
use super::failure::Failure;
use super::input;
use super::jobs;
use super::message::{json, json_all, json_of};
use super::output::{self, Answer};

#[derive(Debug, Subcommand)]
pub(super) enum DeliveriesCommand {
    /// Deliveries that departed from "delivered in order at the first attempt"
    List {
        /// As `subscriptions list` shows it
        subscription_id: String,
        /// Only these
        #[arg(long, value_enum)]
        state: Option<StateName>,
        /// Only what this lets through, as 'status = DEAD_LETTERED AND last_status_code >= 500'
        #[arg(long, value_name = "FILTER", default_value = "")]
        filter: String,
        #[command(flatten)]
        list: ListOptions,
    },
    /// Every attempt that the delivery log keeps, the newest first
    Log {
        /// As `subscriptions list` shows it
        subscription_id: String,
        /// Only what this lets through, as 'status_code >= 500 OR latency_ms > 1000'
        #[arg(long, value_name = "FILTER", default_value = "")]
        filter: String,
        #[command(flatten)]
        list: ListOptions,
    },
    /// One delivery, whatever its state
    Get(DeliveryRef),
    /// Its attempts
    Attempts(DeliveryRef),
    /// One attempt more, now
    Retry(DeliveryRef),
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// Dead letters of one subscription
    List {
        /// As `subscriptions list` shows it
        subscription_id: String,
        /// Only what this lets through, as 'last_error = timeout AND event_type = points.*'
        #[arg(long, value_name = "FILTER", default_value = "")]
        filter: String,
        #[command(flatten)]
        list: ListOptions,
    },
    /// Put dead letters back, with a fresh schedule: as a job, unless few are named
    Redrive(RedriveArgs),
    /// Give dead letters up; where the subscription holds what is behind them, that goes on
    Drop {
        /// As `subscriptions list` shows it
        subscription_id: String,
        /// This event; may be repeated, also as 5,7,9
        #[arg(long = "sequence", value_name = "SEQUENCE", value_delimiter = ',', required = true)]
        sequences: Vec<u64>,
        /// Why, for the journal
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// `dead-letters redrive`.
#[derive(Args, Debug)]
pub(super) struct RedriveArgs {
    /// As `subscriptions list` shows it
    subscription_id: String,
    /// Only this event; may be repeated, also as 5,7,9
    #[arg(long = "sequence", value_name = "SEQUENCE", value_delimiter = ',')]
    sequences: Vec<u64>,
    /// Only this type, as points.*; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Only this member's
    #[arg(long, value_name = "MEMBER_ID", default_value = "", hide_default_value = true)]
    member: String,
    /// Only what happened from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    from_time: Option<Timestamp>,
    /// Only what happened before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    to_time: Option<Timestamp>,
    /// At most so many, oldest first; all if absent
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    limit: u64,
    /// At most so many a second; as fast as they are taken if absent
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    max_per_second: u32,
    /// Count only
    #[arg(long)]
    preview: bool,
    /// Start it, and do not wait for its end
    #[arg(long, conflicts_with = "preview")]
    no_wait: bool,
}

/// One event to one subscription.
#[derive(Args, Debug)]
pub(super) struct DeliveryRef {
    /// As `subscriptions list` shows it
    subscription_id: String,
    /// The event
    sequence: u64,
}

/// The states that are listed: what is pending has not departed from anything.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum StateName {
    Waiting,
    Held,
    Delivered,
    DeadLettered,
    Dropped,
}

impl StateName {
    fn state(self) -> v1::DeliveryState {
        match self {
            Self::Waiting => v1::DeliveryState::Waiting,
            Self::Held => v1::DeliveryState::Held,
            Self::Delivered => v1::DeliveryState::Delivered,
            Self::DeadLettered => v1::DeliveryState::DeadLettered,
            Self::Dropped => v1::DeliveryState::Dropped,
        }
    }
}

const DELIVERY_COLUMNS: &[&str] =
    &["sequence", "event_type", "member_id", "state", "attempts", "next_attempt_at", "last_status", "last_error"];
const ATTEMPT_COLUMNS: &[&str] = &["number", "at", "latency_ms", "outcome", "status", "error", "response_body"];
const LOG_COLUMNS: &[&str] =
    &["at", "sequence", "event_type", "number", "latency_ms", "outcome", "status", "error", "response_body"];

pub(super) async fn deliveries(command: DeliveriesCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = DeliveryServiceClient::new(client.service());
    match command {
        DeliveriesCommand::Log { subscription_id, filter, list } => {
            let all = list
                .collect(async |page_size, page_token| {
                    let (subscription_id, filter) = (subscription_id.clone(), filter.clone());
                    let request = v1::ListRecentAttemptsRequest { subscription_id, filter, page_size, page_token };
                    let page = service.list_recent_attempts(request).await?.into_inner();
                    Ok((page.attempts, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(LOG_COLUMNS, json_all(&all)))
        }
        DeliveriesCommand::List { subscription_id, state, filter, list } => {
            let state = state.map_or(v1::DeliveryState::Unspecified, StateName::state);
            let all = list
                .collect(async |page_size, page_token| {
                    let subscription_id = subscription_id.clone();
                    let request = v1::ListDeliveriesRequest {
                        subscription_id,
                        state: state.into(),
                        page_size,
                        page_token,
                        filter: filter.clone(),
                    };
                    let page = service.list_deliveries(request).await?.into_inner();
                    Ok((page.deliveries, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(DELIVERY_COLUMNS, json_all(&all)))
        }
        DeliveriesCommand::Get(DeliveryRef { subscription_id, sequence }) => {
            let request = v1::GetDeliveryRequest { subscription_id, sequence };
            Ok(Answer::One(json_of(&service.get_delivery(request).await?.into_inner().delivery)))
        }
        DeliveriesCommand::Attempts(DeliveryRef { subscription_id, sequence }) => {
            let request = v1::ListAttemptsRequest { subscription_id, sequence };
            let listed = service.list_attempts(request).await?.into_inner();
            Ok(Answer::Rows(ATTEMPT_COLUMNS, json_all(&listed.attempts)))
        }
        DeliveriesCommand::Retry(DeliveryRef { subscription_id, sequence }) => {
            let request = v1::RetryDeliveryRequest { subscription_id, sequence };
            Ok(Answer::One(json_of(&service.retry_delivery(request).await?.into_inner().delivery)))
        }
    }
}

pub(super) async fn dead_letters(command: DeadLettersCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = DeliveryServiceClient::new(client.service());
    match command {
        DeadLettersCommand::List { subscription_id, filter, list } => {
            let all = list
                .collect(async |page_size, page_token| {
                    let (subscription_id, filter) = (subscription_id.clone(), filter.clone());
                    let request = v1::ListDeadLettersRequest { subscription_id, page_size, page_token, filter };
                    let page = service.list_dead_letters(request).await?.into_inner();
                    Ok((page.dead_letters, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(DELIVERY_COLUMNS, json_all(&all)))
        }
        DeadLettersCommand::Redrive(args) => {
            let request = v1::RedriveDeadLettersRequest {
                subscription_id: args.subscription_id,
                sequences: args.sequences,
                event_types: args.event_types,
                member_id: args.member,
                preview: args.preview,
                limit: args.limit,
                max_per_second: args.max_per_second,
                from_time: args.from_time,
                to_time: args.to_time,
            };
            let redriven = service.redrive_dead_letters(request).await?.into_inner();
            match redriven.job {
                Some(job) => jobs::begun(job, args.no_wait, client).await,
                None => Ok(Answer::One(serde_json::json!({ "redriven": redriven.redriven, "preview": args.preview }))),
            }
        }
        DeadLettersCommand::Drop { subscription_id, mut sequences, reason } => {
            sequences.sort_unstable();
            sequences.dedup();
            let asked = sequences.len() as u64;
            let request = v1::DropDeadLettersRequest { subscription_id, sequences, reason };
            let dropped = service.drop_dead_letters(request).await?.into_inner();
            if dropped.dropped < asked {
                output::note(&format!("{} of {asked} are no dead letters", asked - dropped.dropped));
            }
            Ok(Answer::One(json(&dropped)))
        }
    }
}
