//! `dialects`: the forms in which events are told; those of a server, and one's own before a server has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use punchline_delivery::dialect::catalogue;
use punchline_delivery::dialect::message::Message;
use punchline_delivery::dialect::{Dialect, Dialects, Settings};
use punchline_engine::id::{AdvertiserId, Environment};
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;
use punchline_proto::v1::subscription_service_client::SubscriptionServiceClient;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::input;
use super::message;
use super::output::{Answer, Format, harmless_lines};

#[derive(Debug, Subcommand)]
pub(super) enum DialectsCommand {
    /// The dialects that a server speaks
    List,
    /// One of them: its settings, and the event types it has a word for
    Show {
        /// As `dialects list` shows it
        name: String,
    },
    /// Check a dialect file of your own, without a server, and show an example of each message
    Check(CheckArgs),
}

/// `dialects check`.
#[derive(clap::Args, Debug)]
pub(super) struct CheckArgs {
    /// The file, TOML; `-` is standard input
    file: PathBuf,
    /// Show the examples with this setting; may be repeated
    #[arg(long = "setting", value_name = "KEY=VALUE", value_parser = input::pair)]
    settings: Vec<(String, String)>,
}

pub(super) async fn run(command: DialectsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = SubscriptionServiceClient::new(client.service());
    let dialects = service.list_dialects(v1::ListDialectsRequest {}).await?.into_inner().dialects;
    match command {
        DialectsCommand::List => {
            let columns = &["name", "description", "settings:setting_keys", "event_types:event_type_count"];
            let row = |dialect: &v1::Dialect| {
                let mut row = message::json(dialect);
                row["setting_keys"] = dialect.settings.iter().map(|setting| setting.key.as_str()).collect();
                row["event_type_count"] = dialect.event_types.len().into();
                row
            };
            Ok(Answer::Rows(columns, dialects.iter().map(row).collect()))
        }
        DialectsCommand::Show { name } => {
            let names = dialects.iter().map(|dialect| dialect.name.as_str());
            let unknown = unknown("dialect", &name, names);
            let found = dialects.iter().find(|dialect| dialect.name == name).ok_or(unknown)?;
            Ok(Answer::One(message::json(found)))
        }
        DialectsCommand::Check(_) => unreachable!("it needs no server"),
    }
}

/// What is not there, and the nearest that is.
pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let nearest = known.map(|word| (strsim::osa_distance(name, word), word)).min();
    let hint = match nearest {
        Some((distance, word)) if distance <= 1 + word.len() / 3 => format!("; did you mean {word}?"),
        _ => String::new(),
    };
    Failure::Negative(format!("there is no {what} {name}{hint}"))
}

/// `dialects check`.
///
/// # Errors
///
/// [`Failure::Malformed`] with line and column; [`Failure::Usage`] for a setting that it does not have.
pub(super) fn check(args: &CheckArgs, format: Format) -> Result<Answer, Failure> {
    let text = input::read_text(Some(&args.file))?;
    let name = input::name_of(Some(&args.file));
    let mut dialects = Dialects::builtin();
    dialects.load(&name, &text).map_err(|error| Failure::Malformed {
        path: format!("{}:{}:{}", error.file, error.line, error.column),
        message: error.problem.to_string(),
    })?;
    let file: toml::Table = toml::from_str(&text).expect("it was just read");
    let loaded = file.get("name").and_then(toml::Value::as_str).and_then(|name| dialects.get(name));
    let dialect = loaded.expect("it was just loaded under this name");
    let chosen: BTreeMap<_, _> = args.settings.iter().cloned().collect();
    let settings = dialect.settings(&chosen).map_err(|error| Failure::Usage(format!("--setting: {error}")))?;
    let examples = examples(&dialect, &settings, &own_examples(&file));
    Ok(match format {
        Format::Json => Answer::One(json!({
            "name": dialect.name(), "description": dialect.description(), "examples": examples,
        })),
        Format::Table => Answer::Text(shown(&dialect, &args.file, &examples)),
    })
}

/// Types of the file that are its own, with their example; the file is sound.
fn own_examples(file: &toml::Table) -> BTreeMap<String, Value> {
    let messages = file.get("message").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let mut own = BTreeMap::new();
    for message in messages {
        let types: Vec<String> = match message.get("type") {
            Some(toml::Value::String(one)) => vec![one.clone()],
            Some(toml::Value::Array(all)) => all.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        let example = message.get("example").and_then(toml::Value::as_str);
        let example = example.and_then(|text| serde_json::from_str(text).ok());
        for event_type in types.into_iter().filter(|event_type| event_type != "*") {
            let catalogued = || catalogue::example_data(&event_type).unwrap_or_else(|| json!({}));
            own.insert(event_type.clone(), example.clone().unwrap_or_else(catalogued));
        }
    }
    own
}

/// What each event type is told as; nothing where the settings leave it out.
fn examples(dialect: &Dialect, settings: &Settings, own: &BTreeMap<String, Value>) -> Vec<Value> {
    let known = catalogue::event_types().into_iter().filter(|event_type| !own.contains_key(*event_type));
    let known = known.filter_map(|event_type| Some((event_type.to_owned(), catalogue::example_data(event_type)?)));
    let mut all: BTreeMap<String, Value> = known.collect();
    all.extend(own.clone());
    let told = all.iter().filter(|(event_type, _)| dialect.speaks(event_type)).map(|(event_type, data)| {
        let mut example = json!({ "event_type": event_type });
        match dialect.render(settings, &message_of(event_type, data)) {
            Ok(Some(rendered)) => {
                let headers = rendered.headers.iter();
                let headers = headers.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
                example["headers"] = headers.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
                example["body"] = serde_json::from_slice(&rendered.body).unwrap_or_default();
            }
            Ok(None) => example["note"] = "not told with these settings".into(),
            Err(error) => example["note"] = error.to_string().into(),
        }
        example
    });
    told.collect()
}

/// A message that stands nowhere in any journal.
fn message_of<'a>(event_type: &'a str, data: &'a Value) -> Message<'a> {
    Message {
        event_type,
        time: UnixMillis::parse("2025-04-25T12:34:01.250Z").expect("a date"),
        sequence: 1_042,
        cause_sequence: 1_040,
        advertiser_id: AdvertiserId::FIRST,
        environment: Environment::Production,
        member_id: Some("01966cf2-3c40-7000-8000-000000000001".parse().expect("a UUID")),
        webhook_id: "msg_1042_01966cf23c4070008000000000000002",
        data: data.into(),
    }
}

fn shown(dialect: &Dialect, file: &Path, examples: &[Value]) -> String {
    let mut text = format!("{}: {} is sound, {} event types\n", file.display(), dialect.name(), examples.len());
    for example in examples {
        text += &format!("\n{}\n", example["event_type"].as_str().unwrap_or_default());
        for (name, value) in example["headers"].as_object().into_iter().flatten() {
            text += &format!("  {name}: {}\n", value.as_str().unwrap_or_default());
        }
        match example["note"].as_str() {
            Some(note) => text += &format!("  {note}\n"),
            None => text += &format!("{:#}\n", example["body"]),
        }
    }
    harmless_lines(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"
name = "own"
description = "Ours."
content_type = "application/json"
body = '{"event": {{ name }}, "to": {{ settings.to }}}'

[settings.to]
description = "Whom."
values = ["a", "b"]
default = "a"

[[message]]
type = "points.credited"
name = "points"

[[message]]
type = "shop.visited"
name = "visit"
example = '{"shop": "x"}'
"#;

    fn checked(text: &str, settings: &[(&str, &str)]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("written");
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let args = CheckArgs { file: file.path().to_owned(), settings };
        match check(&args, Format::Json) {
            Ok(Answer::One(value)) => Ok(value["examples"].to_string()),
            Ok(_) => panic!("one document"),
            Err(failure) => Err(failure.to_string().replace(&file.path().display().to_string(), "FILE")),
        }
    }

    #[test]
    fn a_sound_file_shows_its_messages() {
        let got = checked(OWN, &[("to", "b")]).expect("sound");
        assert!(got.contains(r#""body":{"event":"points","to":"b"}"#), "{got}");
        assert!(got.contains("shop.visited"), "{got}");
    }

    #[test]
    fn a_wrong_file_is_told_with_its_place() {
        let broken = OWN.replace("{{ name }}", "{{ nam }}");
        let told = checked(&broken, &[]).expect_err("no such word");
        assert!(told.starts_with("FILE:5:") && told.contains("nam"), "{told}");
        let told = checked(OWN, &[("to", "c")]).expect_err("no such value");
        assert!(told.contains("--setting"), "{told}");
    }

    #[test]
    fn the_nearest_word_is_suggested() {
        let told = |name: &str| unknown("dialect", name, ["standard", "rehook"].into_iter()).to_string();
        assert_eq!(told("rehok"), "there is no dialect rehok; did you mean rehook?");
        assert_eq!(told("zzz"), "there is no dialect zzz");
    }
}
