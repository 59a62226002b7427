//! `events types`: what there is to subscribe to, and what it looks like.

use punchline_proto::v1;
use punchline_proto::v1::subscription_service_client::SubscriptionServiceClient;
use serde_json::Value;

use super::super::client::Client;
use super::super::dialects::unknown;
use super::super::failure::Failure;
use super::super::message::json;
use super::super::output::{Answer, Format, harmless_lines};

/// `events types`.
#[derive(clap::Args, Debug)]
pub(in super::super) struct TypesArgs {
    /// Show this type's example and JSON Schema
    event_type: Option<String>,
    /// Only in this dialect, as `dialects list` shows them; in all if absent
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    dialect: String,
}

pub(super) async fn run(args: TypesArgs, client: &Client, format: Format) -> Result<Answer, Failure> {
    let mut service = SubscriptionServiceClient::new(client.service());
    let request = v1::ListEventTypesRequest { dialect: args.dialect };
    let event_types = service.list_event_types(request).await?.into_inner().event_types;
    let Some(wanted) = args.event_type else {
        let row = |event_type: &v1::EventType| {
            let mut row = json(event_type);
            row["dialects"] = event_type.forms.iter().map(|form| form.dialect.as_str()).collect();
            row
        };
        return Ok(Answer::Rows(&["name", "description", "dialects"], event_types.iter().map(row).collect()));
    };
    let names = event_types.iter().map(|event_type| event_type.name.as_str());
    let unknown = unknown("event type", &wanted, names);
    let found = event_types.iter().find(|event_type| event_type.name == wanted).ok_or(unknown)?;
    Ok(match format {
        Format::Json => Answer::One(json(found)),
        Format::Table => Answer::Text(shown(found)),
    })
}

fn shown(event_type: &v1::EventType) -> String {
    let pretty = |text: &str| match serde_json::from_str::<Value>(text) {
        Ok(value) => format!("{value:#}"),
        Err(_) => text.to_owned(),
    };
    let mut text = format!("{}: {}\n", event_type.name, event_type.description);
    for form in &event_type.forms {
        let (example, schema) = (pretty(&form.example_json), pretty(&form.json_schema));
        text += &format!("\n── {}: example\n{example}\n── {}: JSON Schema\n{schema}\n", form.dialect, form.dialect);
    }
    harmless_lines(&text)
}
