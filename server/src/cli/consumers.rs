//! `consumers`: named readers whose cursor the server keeps. `events consume` is one.

use clap::Subcommand;
use punchline_proto::v1;
use punchline_proto::v1::event_service_client::EventServiceClient;

use super::client::Client;
use super::failure::Failure;
use super::message::json_all;
use super::output::{self, Answer};

#[derive(Debug, Subcommand)]
pub(super) enum ConsumersCommand {
    /// All named consumers, with their cursor and what is pending
    List,
    /// Forget a consumer and its cursor
    Delete {
        /// As `consumers list` shows it
        consumer: String,
    },
}

const COLUMNS: &[&str] = &[
    "name",
    "subscription_id",
    "types:filter.event_types",
    "filter:filter.expression",
    "cursor",
    "head:head_sequence",
    "pending",
    "parked",
    "connections",
];

pub(super) async fn run(command: ConsumersCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = EventServiceClient::new(client.service());
    match command {
        ConsumersCommand::List => {
            let listed = service.list_consumers(v1::ListConsumersRequest {}).await?.into_inner();
            Ok(Answer::Rows(COLUMNS, json_all(&listed.consumers)))
        }
        ConsumersCommand::Delete { consumer } => {
            service.delete_consumer(v1::DeleteConsumerRequest { consumer: consumer.clone() }).await?;
            output::note(&format!("deleted {consumer}"));
            Ok(Answer::Nothing)
        }
    }
}
