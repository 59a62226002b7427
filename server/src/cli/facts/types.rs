//! `facts types`: what may be published, and what it must look like.

use std::path::PathBuf;

use clap::Subcommand;
use punchline_proto::v1;
use punchline_proto::v1::ingest_service_client::IngestServiceClient;
use serde_json::Value;

use super::super::client::{Client, ListOptions};
use super::super::failure::Failure;
use super::super::input;
use super::super::message::{json, json_of};
use super::super::output::{Answer, Format, harmless_lines};

#[derive(Debug, Subcommand)]
pub(in super::super) enum TypesCommand {
    /// All types, built in and registered
    List(ListOptions),
    /// Register a type, or register it anew
    ///
    /// From then on its facts are checked by the schema: a JSON Schema, draft 2020-12, of their properties. A
    /// property with "x-personal": true says who somebody is, and is kept apart from the rest.
    Register {
        /// As fitting.booked
        name: String,
        /// The file with the JSON Schema; standard input if absent or `-`
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
        /// What facts of this type say, for people
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
        /// Only if the type is still what it was with this etag; 0: only if there is none
        #[arg(long, value_name = "ETAG", default_value = "", hide_default_value = true)]
        etag: String,
    },
    /// One type with its schema
    Show {
        /// As wallet_pass.installed
        name: String,
    },
}

pub(super) async fn run(command: TypesCommand, client: &Client, format: Format) -> Result<Answer, Failure> {
    let mut ingest = IngestServiceClient::new(client.service());
    match command {
        TypesCommand::List(list) => {
            let all = list
                .collect(async |page_size, page_token| {
                    let request = v1::ListFactTypesRequest { page_size, page_token };
                    let page = ingest.list_fact_types(request).await?.into_inner();
                    Ok((page.fact_types, page.next_page_token))
                })
                .await?;
            Ok(Answer::Rows(&["name", "description", "built_in", "etag"], all.iter().map(json).collect()))
        }
        TypesCommand::Register { name, schema, description, etag } => {
            let schema_json = input::read_text(schema.as_deref())?;
            let fact_type = v1::FactType { name, description, schema_json, etag, built_in: false };
            let request = v1::RegisterFactTypeRequest { fact_type: Some(fact_type) };
            Ok(answer(ingest.register_fact_type(request).await?.into_inner().fact_type, format))
        }
        TypesCommand::Show { name } => {
            let fact_type = ingest.get_fact_type(v1::GetFactTypeRequest { name }).await?.into_inner().fact_type;
            Ok(answer(fact_type, format))
        }
    }
}

fn answer(fact_type: Option<v1::FactType>, format: Format) -> Answer {
    match format {
        Format::Json => Answer::One(json_of(&fact_type)),
        Format::Table => Answer::Text(shown(&fact_type.unwrap_or_default())),
    }
}

fn shown(fact_type: &v1::FactType) -> String {
    let v1::FactType { name, description, schema_json, etag, built_in } = fact_type;
    let schema =
        serde_json::from_str(schema_json).map_or_else(|_| schema_json.clone(), |json: Value| format!("{json:#}"));
    let whence = if *built_in { "built in".to_owned() } else { format!("registered, etag {etag}") };
    harmless_lines(&format!("{name}: {description}\n{whence}\n\n{schema}\n"))
}
