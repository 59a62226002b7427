use serde_json::json;

use super::*;
use punchline_engine::event::is_type_name;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn prepare(kind: Option<Kind>, message: &Value) -> Result<Prepared, InvalidField> {
    let text = message.to_string();
    let skus = ["coffee", "Bike Ride"].into();
    Message::of(kind, &text, "batch[7]").and_then(|message| message.prepare(NOW, &skus))
}

/// What a message comes to, or the reason and field for which it is refused.
fn told(message: Value) -> String {
    match prepare(None, &message).map(|prepared| prepared.action) {
        Ok(Action::RecordConsumption(c)) => {
            let who: Vec<_> = c.identifiers.iter().map(|i| i.value.as_str()).collect();
            let line = &c.lines[0];
            format!("{} of {} at {} by {}", line.quantity.units(), line.sku, c.consumed_at, who.join(", "))
        }
        Ok(Action::PublishFact(f)) => {
            let who: Vec<_> = f.identifiers.iter().map(|i| i.value.as_str()).collect();
            format!("{} {} about {}: {}", f.source, f.fact_type, who.join(", "), f.properties.0)
        }
        Ok(Action::IdentifyMember { identifiers, profile: p, registration_source, .. }) => {
            let who: Vec<_> = identifiers.iter().map(|i| i.value.as_str()).collect();
            let profile = [p.first_name, p.last_name, p.birth_date, p.locale].join("|");
            format!("{registration_source}: {} is {profile} {:?}", who.join(", "), p.attributes)
        }
        Ok(other) => panic!("{other:?}"),
        Err(invalid) => format!("{} {}", invalid.reason, invalid.field),
    }
}

#[test]
fn messages_become_commands() {
    let at = "2026-03-08T12:00:00.000Z";
    for (message, expected) in [
        (
            json!({"type": "track", "messageId": "m", "event": "coffee", "userId": 42, "timestamp": at}),
            "1 of coffee at 2026-03-08T12:00:00.000Z by 42",
        ),
        (
            json!({"type": "track", "messageId": "m", "event": "Bike Ride", "properties": {"quantity": 3.0,
                "email": "friend@example.com", "phone": 40720005123_u64},
                "context": {"traits": {"email": "Ana@Example.com", "phone": "none"}}}),
            "3 of Bike Ride at 2026-09-21T14:13:20.000Z by ana@example.com, 40720005123",
        ),
        (
            json!({"type": "track", "messageId": "m", "event": "Order Completed", "userId": "u", "anonymousId": "a",
                "properties": {"total": 9.5, "event": "lost"}, "sentAt": at, "extra": {},
                "context": {"ip": "192.0.2.1", "library": {"name": "x", "big": [1]}, "os": "y", "locale": "ro"}}),
            r#"segment segment.order_completed about u: {"total":9.5,"event":"Order Completed","user_id":"u","anonymous_id":"a","context":{"library":{"name":"x"},"locale":"ro"}}"#,
        ),
        (
            json!({"type": "track", "messageId": "m", "event": "wallet_pass.installed", "userId": "u".repeat(129)}),
            &format!(
                r#"segment wallet_pass.installed about : {{"event":"wallet_pass.installed","user_id":"{}"}}"#,
                "u".repeat(129)
            ),
        ),
        (
            json!({"type": "page", "messageId": "m", "name": "Home", "category": "Shop", "properties": {"url": "/"},
                "context": null, "userId": null}),
            r#"segment segment.page about : {"url":"/","name":"Home","category":"Shop"}"#,
        ),
        (
            json!({"type": "group", "messageId": "m", "groupId": 7, "userId": "u", "traits": {"email": "a@b.c"}}),
            r#"segment segment.group about u: {"traits":{"email":"a@b.c"},"user_id":"u","group_id":"7"}"#,
        ),
        (
            json!({"type": "alias", "messageId": "m", "previousId": "p", "userId": "u"}),
            r#"segment segment.alias about u: {"user_id":"u","previous_id":"p"}"#,
        ),
        (
            json!({"type": "identify", "messageId": "m", "userId": "u", "traits": {"email": "A@b.c", "phone": "no phone",
                "firstName": "Ana", "name": "Ana Pop", "lastName": "Pop", "birthday": "1990-04-01T00:00:00.000Z",
                "age": 36, "vip": true, "address": {"city": "Cluj"}, "long": "x".repeat(257), "none": null},
                "context": {"locale": "ro-RO"}}),
            r#"segment: u, a@b.c is Ana|Pop|1990-04-01|ro-RO {"age": "36", "name": "Ana Pop", "phone": "no phone", "vip": "true"}"#,
        ),
        (
            json!({"type": "identify", "messageId": "m", "context": {"traits": {"phone": "+40 720 005 123"}},
                "traits": {"name": "Ana Pop", "birthday": "soon", "locale": "en"}}),
            r#"segment: 40720005123 is Ana Pop|||en {"birthday": "soon"}"#,
        ),
        (json!({"type": "identify", "messageId": "m", "anonymousId": "a"}), "IDENTIFIERS_REQUIRED batch[7].userId"),
        (json!({"type": "identify", "messageId": "m", "userId": {}}), "INVALID_IDENTIFIER batch[7].userId"),
        (json!({"type": "track", "messageId": "m", "event": "coffee"}), "IDENTIFIERS_REQUIRED batch[7].identifiers"),
        (
            json!({"type": "track", "messageId": "m", "event": "coffee", "userId": "u", "properties": {"quantity": 0}}),
            "INVALID_QUANTITY batch[7].properties.quantity",
        ),
        (
            json!({"type": "track", "messageId": "m", "event": "coffee", "userId": "u", "properties": {"quantity": "1"}}),
            "INVALID_QUANTITY batch[7].properties.quantity",
        ),
        (
            json!({"type": "track", "messageId": "m", "event": "coffee", "userId": "u", "timestamp": "soon"}),
            "INVALID_CONSUMPTION_DATE batch[7].timestamp",
        ),
        (json!({"type": "page", "messageId": "m", "timestamp": 1}), "INVALID_FIELD batch[7].timestamp"),
        (json!({"type": "page", "messageId": "m", "properties": []}), "INVALID_FIELD batch[7].properties"),
        (json!({"type": "track", "messageId": "m", "event": " "}), "EVENT_REQUIRED batch[7].event"),
        (json!({"type": "delete", "messageId": "m"}), "INVALID_FIELD batch[7].type"),
        (json!({"type": "page", "messageId": "m".repeat(101)}), "INVALID_FIELD batch[7].messageId"),
        (json!({"type": "page", "messageId": []}), "INVALID_FIELD batch[7].messageId"),
        (json!({"type": "page", "messageId": ""}), "MESSAGE_ID_REQUIRED batch[7].messageId"),
        (json!(["page"]), "INVALID_FIELD batch[7]"),
    ] {
        assert_eq!(told(message.clone()), expected, "{message}");
    }
    let prepared = prepare(Some(Kind::Identify), &json!({"type": "track", "messageId": 5, "userId": "u"}));
    assert_eq!(prepared.expect("the route says what it is").request_id.as_deref(), Some("segment:5"));
}

#[test]
fn attributes_are_bounded() {
    let traits: Map<String, Value> = (0..200).map(|i| (format!("k{i}"), i.into())).collect();
    let identify = json!({"type": "identify", "messageId": "m", "userId": "u", "traits": traits});
    let action = prepare(None, &identify).expect("accepted").action;
    let Action::IdentifyMember { profile, .. } = action else { panic!("an identification") };
    assert_eq!((profile.attributes.len(), profile.validate()), (ATTRIBUTES_MAX, Ok(())));
}

#[test]
fn events_have_types() {
    for (event, fact_type) in [
        ("Order Completed", "segment.order_completed"),
        ("orderCompleted", "segment.order_completed"),
        ("HTTPError 500", "segment.http_error_500"),
        ("  App   Opened! ", "segment.app_opened"),
        ("signup", "segment.signup"),
        ("wallet_pass.installed", "wallet_pass.installed"),
        ("Wallet.Installed", "segment.wallet_installed"),
        ("points.credited", "segment.points_credited"),
        ("3D viewed", "segment.event_3_d_viewed"),
        ("Comandă", "segment.comand"),
        ("购买", "segment.track"),
        ("_", "segment.track"),
    ] {
        assert_eq!(type_of(event), fact_type, "{event}");
        assert!(is_type_name(fact_type));
    }
    assert!(is_type_name(&type_of(&"Very Long ".repeat(50))));
}
