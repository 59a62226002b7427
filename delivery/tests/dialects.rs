//! The built-in dialects against the documents of the systems they speak to, and the loader against bad
//! files.
//!
//! `tests/payloads` has each document's example bodies, unchanged; `tests/facts` has for each the event
//! that gives it, under the same path: type, time, data, and settings where they are not the default.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use punchline_delivery::dialect::catalogue::{event_types, example, example_data, json_schema_of};
use punchline_delivery::dialect::message::{Message, RenderError, Rendered};
use punchline_delivery::dialect::{Dialect, Dialects, SettingError, examples, standard};
use punchline_engine::event::EventType;
use punchline_engine::id::{AdvertiserId, Environment};
use punchline_engine::time::UnixMillis;
use serde_json::{Value as Json, json};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn read_json(path: &Path) -> Json {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn message<'a>(event_type: &'a str, data: &'a Json) -> Message<'a> {
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

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn header<'a>(rendered: &'a Rendered, name: &str) -> Option<&'a str> {
    let found = rendered.headers.iter().find(|(n, _)| n == name);
    found.map(|(_, value)| value.to_str().expect("ASCII"))
}

fn body(rendered: &Rendered) -> Json {
    serde_json::from_slice(&rendered.body).expect("JSON")
}

/// Renders the fact that belongs to a payload.
fn golden(dialect: &str, name: &str) -> (Rendered, Json, Json) {
    let path = Path::new(dialect).join(format!("{name}.json"));
    let fact = read_json(&directory("facts").join(&path));
    let payload = read_json(&directory("payloads").join(&path));
    let dialect = Dialects::builtin().get(dialect).expect(dialect);
    let given: BTreeMap<String, String> =
        fact.get("settings").map_or(BTreeMap::new(), |s| serde_json::from_value(s.clone()).expect("texts"));
    let settings = dialect.settings(&given).expect("valid");
    let time = UnixMillis::parse(fact["time"].as_str().expect("a time")).expect("a date");
    let message = Message { time, member_id: None, ..message(fact["type"].as_str().expect("a type"), &fact["data"]) };
    let rendered = dialect.render(&settings, &message).expect(name).expect(name);
    let got = body(&rendered);
    (rendered, got, payload)
}

#[test]
fn rehook_and_qurable_are_told_the_bodies_of_their_documents() {
    for dialect in ["rehook", "qurable"] {
        let mut files = 0;
        for entry in fs::read_dir(directory("payloads").join(dialect)).expect(dialect) {
            let path = entry.expect(dialect).path();
            let (_, got, payload) = golden(dialect, path.file_stem().and_then(|s| s.to_str()).expect("a name"));
            assert_eq!(got, payload, "{}", path.display());
            files += 1;
        }
        assert_eq!(files, if dialect == "rehook" { 8 } else { 3 });
    }
}

/// The envelope's document has `timestamp` and `context`, which three of the examples leave out in part
/// (contracts/wecheer.md). We follow the envelope for all: what an example lacks must be in the envelope.
#[test]
fn wecheer_is_told_the_bodies_of_its_documents_in_its_envelope() {
    let (_, got, envelope) = golden("wecheer", "_track_envelope");
    let without = |body: &Json| {
        let mut body = body.clone();
        body.as_object_mut().expect("an object").retain(|key, _| key != "event" && key != "properties");
        body
    };
    assert_eq!(without(&got), without(&envelope), "the event's name and properties are placeholders there");
    for (name, lacks) in [
        ("points_received", &["context"][..]),
        ("user_created", &["timestamp", "context"]),
        ("CatalogRedeem", &["timestamp", "context"]),
    ] {
        let (_, got, mut payload) = golden("wecheer", name);
        for key in lacks {
            assert!(payload.get(key).is_none(), "{name}: {key}");
            payload[*key] = envelope[*key].clone();
        }
        assert_eq!(got, payload, "{name}");
    }
}

/// The documents have a base and, for the older edition, the shapes of properties: values there are names
/// of types, unless they are constants.
#[test]
fn jericommerce_is_told_the_base_and_the_shapes_of_its_documents() {
    let (rendered, mut got, base) = golden("jericommerce", "_base_payload");
    assert_eq!(header(&rendered, "x-jericommerce-event-type"), Some("Customer tapped"));
    got["properties"] = json!({});
    assert_eq!(got, base);

    let (_, got, base) = golden("jericommerce", "legacy-shapes/_base_payload");
    let keys = |json: &Json| -> BTreeSet<String> {
        json.as_object().expect("an object").keys().map(|key| key.trim_end_matches('?').to_owned()).collect()
    };
    assert_eq!(keys(&got), keys(&base), "no email in the older edition");

    for (name, constants) in [
        ("Wallet click", &["name", "utm_source", "utm_medium"][..]),
        ("Wallet visit", &["name", "utm_campaign", "utm_source", "utm_medium"]),
        ("Wallet pass installed", &[]),
        ("Wallet pass uninstalled", &[]),
        ("Customer scanned", &[]),
        ("Customer created", &[]),
    ] {
        let (rendered, got, shape) = golden("jericommerce", &format!("legacy-shapes/{name}.properties"));
        assert_eq!(header(&rendered, "x-jericommerce-event-type"), Some(name));
        assert_eq!(keys(&got["properties"]), keys(&shape), "{name}");
        for key in constants {
            assert_eq!(got["properties"][key], shape[key], "{name}: {key}");
        }
    }
    let (_, got, _) = golden("jericommerce", "legacy-shapes/Wallet click.properties");
    assert_eq!(got["properties"]["utm_campaign"], "campaign-uuid");
}

#[test]
fn optional_members_of_the_base_are_left_out_where_they_are_unknown() {
    let dialects = Dialects::builtin();
    let dialect = dialects.get("jericommerce").expect("built in");
    for (given, lacks) in [(vec![], false), (vec![("edition", "legacy")], true)] {
        let settings = dialect.settings(&settings(&given)).expect("valid");
        let data = json!({});
        let got =
            dialect.render(&settings, &message("wallet_pass.requested", &data)).expect("renders").expect("spoken");
        let got = body(&got);
        let keys: Vec<&str> = got.as_object().expect("an object").keys().map(String::as_str).collect();
        let rest = ["id", "customerId", "createdAt", "properties"];
        assert_eq!(keys, [if lacks { &[][..] } else { &["email"] }, &rest].concat());
    }
}

/// Every name that the contracts list, and no other.
#[test]
fn all_published_names_are_spoken() {
    let legacy = [("edition", "legacy")];
    let rewarded = [("points", "customer.rewarded")];
    for (name, given, names) in [
        (
            "wecheer",
            &[][..],
            "any_consumption, first_consumption, consumption_match_item, points_received, PunchcardStampsReceived, \
             punchcard_step_completed, card_received, CheercoinsUpdated, user_created, user_updated, \
             user_data_shared, UserChannelSubscriptionChanged, RewardCreated, CatalogRedeem, Redeem Reward Started, \
             Redeem Reward Failed",
        ),
        (
            "rehook",
            &rewarded,
            "customer.rewarded, order_success, signup, coupon.rewarded, coupon.created, coupon.redeemed, \
             customer.meta.updated, customer.referred, customer.referral.successfull.advocate, \
             customer.referral.successfull.friend, customer.leaderboard.awarded, customer.created, \
             coupon.redemption.rollback, customer.updated, customer.segment.entered, customer.segment.left, \
             wallet.credited, wallet.debited",
        ),
        (
            "jericommerce",
            &[],
            "Customer created, Customer birthday, Customer scanned, Customer tapped, Wallet pass requested, \
             Wallet pass installed, Wallet pass uninstalled, Balance changed, Tier changed, Coupon assigned, \
             Coupon pass installed, Coupon pass uninstalled, Gift card sent, Reward redeemable, Reward redeemed, \
             Reward refunded, Wallet click, Wallet visit",
        ),
        (
            "jericommerce",
            &legacy,
            "Wallet click, Wallet visit, Wallet pass installed, Wallet pass uninstalled, Customer scanned, \
             Customer created, Wallet Pass Requested",
        ),
        ("qurable", &[], "member-created, coupon-code-assigned, coupon-code-used"),
    ] {
        let dialect = Dialects::builtin().get(name).expect(name);
        let settings = dialect.settings(&settings(given)).expect("valid");
        // Facts that are told apart by what they say, beside the catalogue's examples.
        let more = [
            ("member.created", json!({"registration_source": "signup"})),
            ("member.updated", json!({"changed": ["profile.attributes.size", "profile.attributes.shoe"]})),
            ("member.updated", json!({"changed": ["profile.attributes.size", "profile.locale"]})),
            ("points.credited", json!({"amount": 5, "origin": {"kind": "adjustment", "reason": "sorry"}})),
        ];
        let examples = event_types().into_iter().map(|t| (t, example_data(t).expect(t)));
        let mut spoken = BTreeSet::new();
        for (event_type, data) in examples.chain(more) {
            let rendered = dialect.render(&settings, &message(event_type, &data)).expect(event_type);
            assert!(rendered.is_none() || dialect.speaks(event_type), "{name}: {event_type}");
            let Some(rendered) = rendered else { continue };
            let body = body(&rendered);
            let said = [&body["event"], &body["event_name"], &body["event"]["eventType"]].map(Json::as_str);
            let said = said.into_iter().flatten().next().or(header(&rendered, "x-jericommerce-event-type"));
            spoken.insert(said.unwrap_or_else(|| panic!("{name}: {event_type}: {body}")).to_owned());
        }
        let expected: BTreeSet<String> = names.split(", ").map(str::to_owned).collect();
        assert_eq!(spoken, expected, "{name} {given:?}");
    }
}

#[test]
fn the_engines_own_events_are_spoken_with_their_own_fields() {
    let dialects = Dialects::builtin();
    for name in dialects.names() {
        let dialect = dialects.get(name).expect(name);
        let settings = dialect.settings(&BTreeMap::new()).expect("valid");
        for &event_type in EventType::ALL {
            let event = examples::example(event_type);
            let rendered = dialect.render(&settings, &Message::of(&examples::recorded(&event), "msg_1_x"));
            let rendered = rendered.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(rendered.is_some(), dialect.speaks(event.type_name()), "{name}: {}", event.type_name());
            if name == "standard" {
                let recorded = examples::recorded(&event);
                assert_eq!(rendered.expect("any").body, standard::body(&recorded), "the fast road and this one");
            }
        }
    }
    let say = |dialect: &str, event_type: EventType| {
        let dialect = dialects.get(dialect).expect("built in");
        let event = examples::example(event_type);
        let settings = dialect.settings(&BTreeMap::new()).expect("valid");
        let recorded = examples::recorded(&event);
        body(&dialect.render(&settings, &Message::of(&recorded, "msg_1_x")).expect("renders").expect("spoken"))
    };
    let credited = say("wecheer", EventType::PointsCredited);
    assert_eq!(credited["userId"], "01966cf2-3c40-7000-8000-000000000001");
    assert_eq!(credited["properties"]["points"], 150);
    assert_eq!(credited["properties"]["reason"], "product_scan");
    assert_eq!(credited["properties"]["newBalance"], 1350);
    let debited = say("jericommerce", EventType::PointsDebited);
    assert_eq!(debited["properties"]["amount"], -150);
    assert_eq!(debited["properties"]["reference"], "credited twice by mistake");
    let order = say("rehook", EventType::ConsumptionRecorded);
    let line = json!({"id": "velo_pk_product_review", "title": "velo_pk_product_review", "quantity": 1});
    assert_eq!(order["metadata"], json!({"cart": [line], "mode": "NA", "total": 0}));
    let wallet = say("rehook", EventType::PointsDebited);
    assert_eq!(wallet["metadata"]["wallet"]["type"], "debit");
    assert_eq!(wallet["metadata"]["wallet"]["created_at"], "2025-04-25T12:34:01Z");
    let member = say("qurable", EventType::MemberCreated);
    assert_eq!(member["event"]["executionResults"]["profile"]["emails"], json!(["user@example.com"]));
    let key = member["event"]["loyaltyEventKey"].as_str().expect("a key");
    assert!(key.starts_with("ev_") && key.len() == 29, "{key}");
}

#[test]
fn cloudevents_are_structured_or_binary() {
    let dialect = Dialects::builtin().get("cloudevents").expect("built in");
    let data = json!({"current": "Gold", "member_id": "a\"b ü"});
    let message = message("tier.changed", &data);
    let render = |given: &[(&str, &str)]| {
        let settings = dialect.settings(&settings(given)).expect("valid");
        dialect.render(&settings, &message).expect("renders").expect("spoken")
    };
    let structured = render(&[]);
    assert_eq!(structured.content_type, "application/cloudevents+json");
    assert!(structured.headers.is_empty());
    let mut got = body(&structured);
    let id = got["id"].take();
    assert_eq!(
        got,
        json!({
            "specversion": "1.0", "id": null, "source": "/punchline/1000000001/production", "type": "tier.changed",
            "time": "2025-04-25T12:34:01.250Z", "subject": "a\"b ü", "sequence": "00000000000000001042",
            "datacontenttype": "application/json", "data": data,
        })
    );
    let binary = render(&[("mode", "binary"), ("type_prefix", "com.velo."), ("source", "https://velo.example/%")]);
    assert_eq!(binary.content_type, "application/json");
    assert_eq!(body(&binary), data);
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", id.as_str().expect("an id")),
        ("ce-source", "https://velo.example/%25"),
        ("ce-type", "com.velo.tier.changed"),
        ("ce-time", "2025-04-25T12:34:01.250Z"),
        ("ce-subject", "a%22b%20%C3%BC"),
        ("ce-sequence", "00000000000000001042"),
    ] {
        assert_eq!(header(&binary, name), Some(value), "{name}");
    }
    assert_eq!(render(&[]), render(&[]), "every attempt sends the same");
}

#[test]
fn facts_are_said_in_the_standard_dialect_too() {
    let dialect = Dialects::builtin().get("standard").expect("built in");
    let data = json!({"current": "Gold", "sequence": 7});
    let rendered = dialect.render(&dialect.settings(&BTreeMap::new()).expect("none"), &message("tier.changed", &data));
    assert_eq!(
        String::from_utf8_lossy(&rendered.expect("renders").expect("any").body),
        r#"{"type":"tier.changed","timestamp":"2025-04-25T12:34:01.250Z","data":{"sequence":1042,"cause_sequence":1040,"#
            .to_owned()
            + r#""advertiser_id":"1000000001","environment":"production","#
            + r#""member_id":"01966cf2-3c40-7000-8000-000000000001","current":"Gold"}}"#
    );
}

/// Names for which the example stands in the tables of `facts.toml` and nowhere else.
#[test]
fn every_type_has_a_description_an_example_and_a_schema() {
    let dialects = Dialects::builtin();
    for event_type in event_types() {
        let description = punchline_delivery::dialect::catalogue::description(event_type).expect(event_type);
        assert!(description.ends_with('.') && description.len() < 100, "{event_type}: {description}");
        for name in dialects.names() {
            let dialect = dialects.get(name).expect(name);
            if let Some(rendered) = example(&dialect, event_type) {
                let example = body(&rendered);
                let schema = json_schema_of(&example);
                assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
                assert_eq!(schema["type"], "object", "{name}: {event_type}");
                assert_fits(&example, &schema, event_type);
            }
        }
        assert!(example(&dialects.get("standard").expect("built in"), event_type).is_some(), "{event_type}");
        assert!(example(&dialects.get("cloudevents").expect("built in"), event_type).is_some(), "{event_type}");
    }
    assert!(example(&dialects.get("standard").expect("built in"), "no.such").is_none());
    let example = json!({"at": "2025-04-25T12:34:01Z", "n": 1, "f": 1.5, "l": [{"b": true}], "x": null, "s": "a"});
    let mut schema = json_schema_of(&example);
    schema.as_object_mut().expect("an object").remove("$schema");
    assert_eq!(
        schema,
        json!({"type": "object", "properties": {
            "at": {"type": "string", "format": "date-time"}, "n": {"type": "integer"}, "f": {"type": "number"},
            "l": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "boolean"}}}},
            "x": {}, "s": {"type": "string"},
        }})
    );
}

fn assert_fits(value: &Json, schema: &Json, at: &str) {
    let kind = match value {
        Json::Null => return,
        Json::Bool(_) => "boolean",
        Json::Number(n) if n.is_f64() => "number",
        Json::Number(_) => "integer",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    assert_eq!(schema["type"], kind, "{at}");
    if let Json::Object(fields) = value {
        fields.iter().for_each(|(key, value)| assert_fits(value, &schema["properties"][key], &format!("{at}.{key}")));
    }
}

#[test]
fn settings_are_checked_by_key_and_value() {
    let dialects = Dialects::builtin();
    for (dialect, key, value, expected) in [
        ("jericommerce", "edition", "legacy", "ok"),
        (
            "jericommerce",
            "edition",
            "legasy",
            r#"setting "edition" of dialect "jericommerce" is "legasy", must be legacy, current"#,
        ),
        (
            "jericommerce",
            "editon",
            "legacy",
            r#"dialect "jericommerce" has no setting "editon", it has edition, signature_encoding"#,
        ),
        ("standard", "edition", "legacy", r#"dialect "standard" has no setting "edition", it has none"#),
        ("cloudevents", "source", "https://velo.example", "ok"),
        (
            "cloudevents",
            "source",
            "a\r\nx-evil: 1",
            "setting \"source\" of dialect \"cloudevents\" is \"a\\r\\nx-evil: 1\", must be at most 256 bytes without control characters",
        ),
    ] {
        let checked = dialects.get(dialect).expect(dialect).settings(&settings(&[(key, value)]));
        let got = checked.map_or_else(|e: SettingError| e.to_string(), |_| "ok".to_owned());
        assert_eq!(got, expected);
    }
}

/// Known answers, made with Python's hmac and base64.
#[test]
fn bodies_are_signed_with_the_secrets_text() {
    let dialects = Dialects::builtin();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let sign = |name: &str, given: &[(&str, &str)]| {
        let dialect = dialects.get(name).expect(name);
        let settings = dialect.settings(&settings(given)).expect("valid");
        dialect.signature(&settings, secret, br#"{"id":"event-uuid"}"#)
    };
    let name = HeaderName::from_static("x-jericommerce-hmac-sha256");
    for (given, digits) in [
        (&[("signature_encoding", "hex")][..], "a3c23ddb8f6c0bb37cb33dc766045fd20cfea867eddc7ce33c210ccf9a162953"),
        (&[], "o8I9249sC7N8sz3HZgRf0gz+qGft3HzjPCEMz5oWKVM="),
    ] {
        let (header, value) = sign("jericommerce", given).expect("signed");
        assert_eq!((header, value.to_str().expect("ASCII")), (name.clone(), digits));
    }
    for unsigned in ["standard", "cloudevents", "wecheer", "rehook", "qurable"] {
        assert!(sign(unsigned, &[]).is_none(), "{unsigned}");
    }
}

/// A small file; tests change it.
const GOOD: &str = r##"name = "acme"
content_type = "application/json"
body = '''
{
  "event": {{ name }},
  "props": {{ properties }}
}
'''

[settings.mode]
values = ["plain", "hex"]
default = "plain"

[headers]
x-acme-event = "{{ name }}"

[signature]
header = "x-acme-signature"
encoding = "hex"
prefix = "sha256="

[[message]]
type = "points.credited"
when = 'data.amount > 100'
name = "Points!"
properties = '''
{
  "points": {{ data.amount }},
  "at": {{ time | rfc3339(7) }}
}
'''

[[message]]
type = "acme.opened"
name = "Opened"
"##;

fn load(text: &str) -> Result<Arc<Dialect>, String> {
    let mut dialects = Dialects::builtin();
    dialects.load("acme.toml", text).map_err(|e| e.to_string())?;
    Ok(dialects.get("acme").expect("loaded"))
}

#[test]
fn an_operators_file_is_a_dialect() {
    let mut dialects = Dialects::builtin();
    dialects.load("acme.toml", GOOD).expect("good");
    assert_eq!(
        dialects.names().collect::<Vec<_>>(),
        ["acme", "cloudevents", "jericommerce", "qurable", "rehook", "standard", "wecheer"]
    );
    let dialect = dialects.get("acme").expect("loaded");
    assert!(dialect.speaks("points.credited") && dialect.speaks("acme.opened") && !dialect.speaks("points.debited"));
    let settings = dialect.settings(&BTreeMap::new()).expect("defaults");
    let say = |event_type: &str, data: &Json| dialect.render(&settings, &message(event_type, data)).expect("renders");
    assert_eq!(say("points.credited", &json!({"amount": 100})), None, "`when` does not hold");
    let said = say("points.credited", &json!({"amount": 101})).expect("spoken");
    let expected = r#"{"event":"Points!","props":{"points":101,"at":"2025-04-25T12:34:01.2500000Z"}}"#;
    assert_eq!(String::from_utf8_lossy(&said.body), expected);
    assert_eq!(header(&said, "x-acme-event"), Some("Points!"));
    let (_, value) = dialect.signature(&settings, "whsec_x", b"{}").expect("signed");
    assert!(value.to_str().expect("ASCII").starts_with("sha256="));

    let again = dialects.load("acme-2.toml", GOOD).expect_err("taken").to_string();
    assert_eq!(again, r#"acme-2.toml:1:8: dialect "acme" is already there, from acme.toml"#);
    let standard = GOOD.replace("\"acme\"", "\"standard\"");
    assert!(dialects.load("s.toml", &standard).is_err(), "standard is code");
    let own_wecheer = GOOD.replace("\"acme\"", "\"wecheer\"");
    dialects.load("wecheer.toml", &own_wecheer).expect("a built-in one is replaced");
    assert!(!dialects.get("wecheer").expect("there").speaks("coins.changed"));
}

#[test]
fn the_file_in_the_readme_loads() {
    let readme = include_str!("../dialects/README.md");
    let (_, file) = readme.split_once("```toml\n").expect("an example");
    let dialect = load(file.split("```").next().expect("ends")).expect("loads");
    let settings = dialect.settings(&BTreeMap::new()).expect("defaults");
    let data = json!({"amount": 5, "shop": "Bukarest"});
    let said = dialect.render(&settings, &message("points.credited", &data)).expect("renders").expect("spoken");
    assert_eq!(body(&said)["data"], json!({"points": 5, "at": "2025-04-25T12:34:01.250Z", "shop": "Bukarest"}));
}

#[test]
fn bad_files_are_refused_with_their_place() {
    load(GOOD).expect("good");
    for (from, to, expected) in BAD_FILES {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        assert_eq!(load(&text).expect_err(to), format!("acme.toml:{expected}"), "{to}");
        // The same with the line ends of other systems, unless the place is one of TOML's own.
        let place_ends = if expected.contains("not TOML") { ':' } else { ' ' };
        let crlf = load(&text.replace('\n', "\r\n")).expect_err(to);
        assert!(crlf.contains(expected.split(place_ends).next().expect("a place")), "{to}: {crlf}");
    }
}

const BAD_FILES: &[(&str, &str, &str)] = &[
    (r##"name = "acme""##, r##"name = "acme"##, r#"1:13: not TOML: invalid basic string, expected `"`"#),
    (
        r##"name = "acme""##,
        r##"name = "Acme""##,
        r#"1:8: `name` is "Acme", must be 1 to 64 characters of a-z 0-9 - _, a letter first"#,
    ),
    (
        r##"name = "acme""##,
        r##"title = "acme""##,
        "1:1: unknown key `title`, known are body, content_type, description, headers, message, name, settings, signature",
    ),
    (r##"content_type = "application/json""##, "", "1:1: `content_type` is missing"),
    (
        r##"content_type = "application/json""##,
        r##"content_type = "a\u0007""##,
        "2:16: with any event this does not give a header's value",
    ),
    ("[headers]", "[header]", "14:2: unknown key `header`, did you mean `headers`?"),
    ("x-acme-event", "content-length", r#"15:1: header "content-length" may not be set"#),
    ("x-acme-event", "x acme", "15:3: not TOML: key with no value, expected `=`"),
    (r##"default = "plain""##, r##"default = "json""##, r#"12:11: `default` is "json", must be one of plain, hex"#),
    (
        r##"values = ["plain", "hex"]"##,
        r##"values = "plain""##,
        "11:10: `values` must be an array of strings, is string",
    ),
    (
        r##"encoding = "hex""##,
        r##"encoding = "settings.mode""##,
        r#"19:12: `encoding` is "settings.mode", must be hex, base64, or settings.<key> of a setting with these values"#,
    ),
    (
        r##"type = "points.credited""##,
        r##"type = "Points Credited""##,
        r#"23:8: `type` is "Points Credited", must be `*` or dotted lower-case words, as points.credited"#,
    ),
    (r##"type = "points.credited""##, "type = 7", "23:8: `type` must be a string, is integer"),
    (
        r##"type = "acme.opened""##,
        r##"type = ["acme.opened", "tier.changed"]
wenn = "1""##,
        "35:1: unknown key `wenn`, did you mean `when`?",
    ),
    (
        r##"type = "acme.opened""##,
        r##"type = "*"

[[message]]
type = "acme.opened""##,
        "36:1: this message is never used: the one at line 33 takes every `acme.opened`",
    ),
    (r##"name = "Opened""##, r##"nam = "Opened""##, "35:1: unknown key `nam`, did you mean `name`?"),
    (
        r##"name = "Opened""##,
        r##"properties = "{}"
body = "{}"
name = "Opened""##,
        "35:14: a message with its own `body` has no use for `properties`",
    ),
    (
        r##"name = "Opened""##,
        r##"name = "Opened"
example = '[1]'"##,
        r#"36:11: `example` is "[1]", must be a JSON object"#,
    ),
    (
        "when = 'data.amount > 100'",
        "when = 'data.amount >'",
        "24:21: syntax error: unexpected end of input, expected expression",
    ),
    (
        "when = 'data.amount > 100'",
        "when = 'data.ammount > 100'",
        "24:14: unknown field `ammount`, did you mean `amount`?",
    ),
    ("{{ data.amount }}", "{{ data.amount | uper }}", "28:30: unknown filter `uper`, did you mean `upper`?"),
    ("{{ data.amount }}", "{{ data.origin.sko }}", "28:28: unknown field `sko`, did you mean `sku`?"),
    ("{{ data.amount }}", "{{ amount }}", "28:16: unknown variable `amount`, did you mean `data.amount`?"),
    ("{{ data.amount }}", "{{ settings.mod }}", "28:25: unknown setting `mod`, did you mean `mode`?"),
    (
        "{{ data.amount }}",
        "{{ data.amount if data.amount is a_number }}",
        "28:46: unknown test `a_number`, did you mean `number`?",
    ),
    ("{{ data.amount }}", "{{ data.amount }", "28:28: syntax error: unexpected `}`, expected end of variable block"),
    ("{{ data.amount }}", "{% set x = 1 %}", "28:16: unknown tag `set`, known are elif, else, endfor, endif, for, if"),
    (
        "{{ data.amount }}",
        "{% for a in [1, 2] %}{{ a }}{% endfor %}",
        "28:25: `[` is not allowed in a `for`, only the lists that an event has",
    ),
    (
        "{{ data.amount }}",
        r##"{{ "x" * 1000000 }}"##,
        "28:20: `*` is not allowed here, only `times`, as in `data.amount | times(100)`",
    ),
    (
        "{{ data.amount }}",
        "{{ data.amount | rfc3339(12) }}",
        r#"28:30: with the example of points.credited and mode "plain": invalid operation: needs "s", "ms" or 0 to 9 digits"#,
    ),
    (
        "{{ data.amount }},",
        "{{ data.amount }}",
        r#"27:1: with the example of points.credited and mode "plain" this does not give JSON: expected `,` or `}`, near `{"points":150"at":"202`"#,
    ),
    (
        r##""points": {{ data.amount }},"##,
        r##"{% if settings.mode == "plain" %}"points": 1{% endif %}"##,
        r#"27:1: with the example of points.credited and mode "plain" this does not give JSON: expected `,` or `}`, near `{ "points":1"at":"202`"#,
    ),
    (
        r##"  "props": {{ properties }}
"##,
        r##"  "props": "{{ properties }}"
"##,
        r#"4:1: with the example of points.credited and mode "plain" this does not give JSON: expected `,` or `}`, near `:"Points!","props":"{"points":1`"#,
    ),
    (
        r##""{{ name }}""##,
        r##""{{ name | pad }}""##,
        r#"15:27: with the example of points.credited and mode "plain": missing argument"#,
    ),
];

#[test]
fn hostile_templates_end() {
    let numbers: Vec<u32> = (0..2_000).collect();
    let loops = GOOD.replace(
        "\"points\": {{ data.amount }},",
        "\"points\": [{% for a in data.list %}{% for b in data.list %}1,{% endfor %}{% endfor %}1],",
    );
    let loops = loops.replace("name = \"Points!\"", "name = \"Points!\"\nexample = '{\"amount\": 1, \"list\": [1]}'");
    let dialect = load(&loops).expect("nothing wrong with it, yet");
    let settings = dialect.settings(&BTreeMap::new()).expect("defaults");
    let data = json!({"amount": 101, "list": numbers});
    let started = Stopwatch::start();
    let error = dialect.render(&settings, &message("points.credited", &data)).expect_err("4 000 000 rounds");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(&error, RenderError::Template { line: 29, .. }), "{error}");
    assert!(error.to_string().ends_with("engine ran out of fuel"), "{error}");

    let long = GOOD.replace(
        "\"points\": {{ data.amount }},",
        "\"points\": [{% for a in data.list %}{{ data.text }},{% endfor %}1],",
    );
    let long = long.replace(
        "name = \"Points!\"",
        "name = \"Points!\"\nexample = '{\"amount\": 1, \"list\": [1], \"text\": \"\"}'",
    );
    let dialect = load(&long).expect("nothing wrong with it, yet");
    let data = json!({"amount": 101, "list": numbers, "text": "x".repeat(1_000)});
    let error = dialect.render(&settings, &message("points.credited", &data)).expect_err("2 MB").to_string();
    assert!(error.ends_with("longer than 1 MiB"), "{error}");
}

/// Wall time, in a test that only asks whether something ends.
struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "measures the machine, not the business")]
    fn start() -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[test]
fn no_header_is_smuggled_in_through_data() {
    let text = GOOD.replace("\"{{ name }}\"", "\"{{ data.note }}\"");
    let text = text.replace("name = \"Opened\"", "name = \"Opened\"\nexample = '{\"note\": \"a\"}'");
    let text = text.replace("name = \"Points!\"", "name = \"Points!\"\nexample = '{\"note\": \"a\", \"amount\": 1}'");
    let dialect = load(&text).expect("good");
    let settings = dialect.settings(&BTreeMap::new()).expect("defaults");
    let say = |note: &str| dialect.render(&settings, &message("acme.opened", &json!({ "note": note })));
    assert_eq!(header(&say("plain").expect("renders").expect("spoken"), "x-acme-event"), Some("plain"));
    assert!(say("").expect("renders").expect("spoken").headers.is_empty(), "an empty header is left out");
    let long = "x".repeat(5_000);
    for smuggled in ["a\r\nx-evil: 1", "a\nb", "a\0b", "\u{7f}", &long] {
        let error = say(smuggled).expect_err("refused");
        let expected = r#"dialect "acme" cannot say acme.opened: the value of header "x-acme-event" is invalid"#;
        assert_eq!(error.to_string(), expected);
    }
}

/// `cargo test --release -p punchline-delivery --test dialects -- --ignored --nocapture cost`
#[test]
#[ignore = "measures; run it in release"]
fn cost_of_a_rendering() {
    let dialects = Dialects::builtin();
    let event = examples::example(EventType::PointsCredited);
    let recorded = examples::recorded(&event);
    let message = Message::of(&recorded, "msg_1042_01966cf23c4070008000000000000002");
    for name in dialects.names() {
        let dialect = dialects.get(name).expect(name);
        let settings = dialect.settings(&BTreeMap::new()).expect("defaults");
        let Ok(Some(rendered)) = dialect.render(&settings, &message) else { continue };
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let started = Stopwatch::start();
            for _ in 0..20_000 {
                std::hint::black_box(dialect.render(&settings, std::hint::black_box(&message)).expect("renders"));
            }
            best = best.min(started.elapsed());
        }
        println!("{name:>12}: {:6.2} µs, {} bytes", best.as_secs_f64() * 1e6 / 20_000.0, rendered.body.len());
    }
}
