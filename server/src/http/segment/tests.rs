use std::io::Write as _;

use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use punchline_engine::event::Event;
use punchline_engine::id::{MemberId, Sequence};
use punchline_engine::loyalty::member::{Identifier, Member};
use serde_json::Value;

use super::*;
use crate::dev;
use crate::http::tests::{Server, ask, error, post};

const SKU: &str = "velo_pk_poll_strength";

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(user))
}

/// A server, and what its journal and views hold.
struct World {
    server: Server,
    router: Router,
}

impl World {
    async fn start(per_minute: u32) -> World {
        let server = Server::start(&[]).await;
        let router = server.router(per_minute);
        World { server, router }
    }

    /// Sends with the right write key; gives status and the reason of an error.
    async fn send(&self, path: &str, body: impl ToString) -> (u16, String) {
        let key = basic("dev-write-key:");
        self.send_as(path, &[("authorization", &key)], body.to_string().into_bytes()).await
    }

    async fn send_as(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String) {
        let (status, _, answer) = ask(&self.router, post(path, headers, body)).await;
        if status == 200 {
            assert_eq!(answer, json!({"success": true}));
            return (200, String::new());
        }
        (status, error(&answer).0.to_owned())
    }

    async fn member(&self, key: &str, value: &str) -> Option<Member> {
        let tenant = self.server.running.state.auth.reports_for(dev::WRITE_KEY).expect("known");
        let identifier = Identifier::parse("", key, value).expect("an identifier");
        let read = self.server.running.node.submitter().read(move |views| {
            let owner = views.owner(tenant, &identifier).expect("read");
            owner.and_then(|id: MemberId| views.member(tenant, id).expect("read").cloned())
        });
        read.await.expect("read")
    }

    async fn points(&self) -> i64 {
        self.member("email", dev::EMAIL).await.expect("there").cards[0].points.balance
    }

    /// Types of what came in from here, and about whom.
    async fn facts(&self) -> Vec<(String, Option<MemberId>)> {
        let feed = self.server.running.node.feed().clone();
        let head = feed.head().0;
        let facts = (1..=head).filter_map(|sequence| {
            let stored = feed.record_at(Sequence(sequence)).expect("read")?;
            let Event::FactPublished(fact) = stored.record.events.first()? else { return None };
            Some((fact.fact_type.clone(), fact.member_id))
        });
        facts.collect()
    }
}

fn track(id: &str, event: &str) -> Value {
    json!({"type": "track", "messageId": id, "userId": "u1", "event": event, "timestamp": "2026-03-08T12:00:00.000Z"})
}

fn identify(id: &str, user: &str) -> Value {
    let traits = json!({"email": dev::EMAIL, "firstName": "Ana"});
    json!({"type": "identify", "messageId": id, "userId": user, "traits": traits})
}

fn batch(messages: impl Into<Value>) -> Value {
    json!({"batch": messages.into(), "sentAt": "2026-03-08T12:00:00.000Z"})
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_taken_in_once() {
    let world = World::start(0).await;
    let ok = (200, String::new());
    // Each message twice, singly and in a batch: the order counts, the number does not.
    let messages = [identify("1", "u1"), track("2", SKU), track("3", "Order Completed"), identify("4", "u2")];
    for _ in 0..2 {
        assert_eq!(world.send("/v1/identify", &messages[0]).await, ok);
        assert_eq!(world.send("/v1/track", &messages[1]).await, ok);
        assert_eq!(world.send("/v1/t", &messages[2]).await, ok);
        assert_eq!(world.send("/v1/batch", batch(messages.to_vec())).await, ok);
        assert_eq!(world.send("/v1/import", batch([&messages[..], &messages[..]].concat())).await, ok);
    }
    assert_eq!(world.points().await, 100);
    let member = world.member("externalId", "u2").await.expect("both ids name it");
    assert_eq!(world.member("externalId", "u1").await.as_ref(), Some(&member));
    assert_eq!((member.profile.first_name.as_str(), member.identifiers.len()), ("Ana", 4));
    assert_eq!(world.facts().await, [("segment.order_completed".into(), Some(member.id))]);

    for path in ["/v1/page", "/v1/p", "/v1/screen", "/v1/s", "/v1/group", "/v1/g", "/v1/alias", "/v1/a"] {
        assert_eq!(world.send(path, json!({"messageId": path, "userId": "stranger"})).await, ok, "{path}");
    }
    let types: Vec<_> = world.facts().await.into_iter().skip(1).map(|(name, about)| (name, about.is_none())).collect();
    let twice = |name: &str| [(format!("segment.{name}"), true), (format!("segment.{name}"), true)];
    assert_eq!(types, [twice("page"), twice("screen"), twice("group"), twice("alias")].concat());
    world.server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_may_say_no_date_and_know_more() {
    let world = World::start(0).await;
    let ok = (200, String::new());
    let mut undated = track("1", SKU);
    undated.as_object_mut().expect("an object").remove("timestamp");
    undated["context"] = json!({"traits": {"email": dev::EMAIL}});
    let early = track("2", "Order Completed");
    for _ in 0..2 {
        assert_eq!(world.send("/v1/track", &undated).await, ok);
        // The first time nobody is known by that id, the second time somebody is.
        assert_eq!(world.send("/v1/track", &early).await, ok);
        assert_eq!(world.send("/v1/identify", identify("3", "u1")).await, ok);
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    assert_eq!(world.points().await, 100);
    assert_eq!(world.facts().await, [("segment.order_completed".into(), None)]);

    // One id with two contents is told; in a batch it is given up, and the rest is taken in.
    let other = |message: &Value| {
        let mut other = message.clone();
        other["properties"] = json!({"quantity": 2});
        other["traits"] = json!({"email": dev::EMAIL, "firstName": "Anna"});
        other
    };
    let known = [track("4", SKU), early.clone(), identify("3", "u1")];
    assert_eq!(world.send("/v1/track", &known[0]).await, ok);
    let (consumption, fact) = ("CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT", "FACT_EXISTS_WITH_DIFFERENT_CONTENT");
    assert_eq!(world.send("/v1/track", other(&known[0])).await, (409, consumption.into()));
    assert_eq!(world.send("/v1/track", other(&known[1])).await, (409, fact.into()));
    assert_eq!(world.send("/v1/identify", other(&known[2])).await, (409, "REQUEST_ID_REUSED".into()));
    let mut messages: Vec<Value> = known.iter().map(other).collect();
    messages.push(track("5", SKU));
    assert_eq!(world.send("/v1/batch", batch(messages)).await, ok);
    assert_eq!(world.points().await, 300);
    world.server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_singly_and_given_up_in_batches() {
    let world = World::start(0).await;
    let ok = (200, String::new());
    let unknown = track("1", SKU);
    assert_eq!(world.send("/v1/track", &unknown).await, (404, "ACCOUNT_NOT_FOUND".into()));
    assert_eq!(world.send("/v1/identify", json!({"messageId": "2", "userId": "u1"})).await, ok);
    assert_eq!(world.send("/v1/track", &unknown).await, (404, "USER_HAS_NO_CARDS".into()));
    let conflict = json!({"messageId": "3", "userId": "u1", "traits": {"email": dev::EMAIL}});
    assert_eq!(world.send("/v1/identify", &conflict).await, (400, "IDENTIFIERS_CONFLICT".into()));
    let messages = [unknown, conflict, json!({"type": "nonsense", "messageId": "4"}), track("5", "Seen")];
    assert_eq!(world.send("/v1/batch", batch(messages.to_vec())).await, ok);
    assert_eq!(world.facts().await.len(), 1, "what is behind a refused one is taken in");

    let member = world.member("email", dev::EMAIL).await.expect("there").id;
    let tenant = world.server.running.state.auth.reports_for(dev::WRITE_KEY).expect("known");
    let block = Action::BlockMember { member_id: member, reason: "test".into() };
    let blocked = world.server.running.node.submitter().submit(Command { tenant, request_id: None, action: block });
    blocked.await.expect("accepted");
    let by_email = json!({"type": "track", "messageId": "6", "event": SKU, "properties": {"email": dev::EMAIL}});
    assert_eq!(world.send("/v1/track", &by_email).await, (403, "USER_BLOCKED".into()));
    assert_eq!(world.send("/v1/batch", batch([by_email])).await, ok);
    world.server.running.shutdown().await;
    // Whatever is taken in now is not: all of it is to be sent again.
    let (status, headers, body) = ask(
        &world.router,
        post("/v1/batch", &[("authorization", &basic("dev-write-key:"))], batch([track("7", "Seen")]).to_string()),
    )
    .await;
    assert_eq!((status, error(&body).0), (503, "SHUTTING_DOWN"));
    assert!(headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn write_keys_open_these_routes_and_no_others() {
    let world = World::start(0).await;
    let message = |key: Option<&str>| {
        let mut message = track("1", "Seen");
        message["writeKey"] = key.into();
        message.to_string().into_bytes()
    };
    let in_batch = |key: &str| json!({"batch": [track("2", "Seen")], "writeKey": key}).to_string().into_bytes();
    let pair = basic("dev-key:dev-secret");
    let with_password = basic("dev-write-key:x");
    let (right, bare, wrong) = (basic("dev-write-key:"), basic("dev-write-key"), basic("nobody:"));
    let token = world.server.running.state.auth.authorize(
        dev::API_KEY,
        dev::API_SECRET,
        punchline_engine::id::Environment::Production,
        None,
    );
    let token = format!("Bearer {}", token.expect("known").token);
    let (missing, invalid) = ((400, "CREDENTIALS_MISSING"), (401, "INVALID_CREDENTIALS"));
    for (path, authorization, body, expected) in [
        ("/v1/track", None, message(None), missing),
        ("/v1/track", None, b"nonsense".to_vec(), missing),
        ("/v1/track", None, message(Some("nobody")), invalid),
        ("/v1/track", None, message(Some("dev-key")), invalid),
        ("/v1/track", Some(&wrong), message(Some(dev::WRITE_KEY)), invalid),
        ("/v1/track", Some(&pair), message(None), invalid),
        ("/v1/track", Some(&basic("dev-key:")), message(None), invalid),
        ("/v1/track", Some(&with_password), message(None), invalid),
        ("/v1/track", Some(&token), message(None), invalid),
        ("/v1/track", Some(&"Basic !".to_owned()), message(None), invalid),
        ("/v1/track", Some(&"Bearer dev-operator".to_owned()), message(None), invalid),
        ("/v1/batch", None, in_batch("nobody"), invalid),
        ("/v1/track", None, message(Some(dev::WRITE_KEY)), (200, "")),
        ("/v1/batch", None, in_batch(dev::WRITE_KEY), (200, "")),
        ("/v1/track", Some(&right), message(Some("nobody")), (200, "")),
        ("/v1/track", Some(&bare), message(None), (200, "")),
    ] {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let (status, reason) = world.send_as(path, &headers, body).await;
        assert_eq!((status, reason.as_str()), expected, "{path} {authorization:?}");
    }
    assert_eq!(world.facts().await.len(), 2);

    // No access token for it, however it is tried, and nobody is locked out by trying.
    let auth = &world.server.running.state.auth;
    for secret in ["", "x", "\0"].iter().cycle().take(100) {
        let tried = auth.authorize(dev::WRITE_KEY, secret, punchline_engine::id::Environment::Production, None);
        assert_eq!(tried.map_err(|refused| refused.reason), Err("INVALID_CREDENTIALS"));
    }
    let tenant = auth.reports_for(dev::WRITE_KEY).expect("known");
    let action = Action::RevokeCredential { credential_id: dev::WRITE_KEY.parse().expect("a slug") };
    let command = Command { tenant, request_id: None, action };
    world.server.running.node.submitter().submit(command).await.expect("accepted");
    assert_eq!(world.send("/v1/track", track("3", "Seen")).await.0, 401, "revoked at once");
    world.server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_at_the_boundary() {
    let world = World::start(0).await;
    let (ok, large) = ((200, String::new()), (400, "REQUEST_TOO_LARGE".to_owned()));
    // A message of exactly so many bytes.
    let of_bytes = |id: &str, bytes: usize| {
        let empty = json!({"type": "track", "messageId": id, "event": "Seen", "pad": ""}).to_string();
        let message = empty.replace(r#""pad":"""#, &format!(r#""pad":"{}""#, "x".repeat(bytes - empty.len())));
        assert_eq!(message.len(), bytes);
        message
    };
    assert_eq!(world.send("/v1/track", of_bytes("1", 32 * 1024)).await, ok);
    assert_eq!(world.send("/v1/track", of_bytes("2", 32 * 1024 + 1)).await, large);
    assert_eq!(world.send("/v1/batch", format!("{{\"batch\":[{}]}}", of_bytes("3", 32 * 1024))).await, ok);
    let too_large = format!("{{\"batch\":[{},{}]}}", track("4", "Seen"), of_bytes("5", 32 * 1024 + 1));
    assert_eq!(world.send("/v1/batch", too_large).await, large);
    let of_batch = |bytes: usize| {
        let messages: Vec<String> = (0..15).map(|i| of_bytes(&format!("b{i}"), 32 * 1024)).collect();
        let batch = format!("{{\"batch\":[{}]}}", messages.join(","));
        let padded = format!("{batch}{}", " ".repeat(bytes - batch.len()));
        padded
    };
    assert_eq!(world.send("/v1/batch", of_batch(500 * 1024)).await, ok);
    assert_eq!(world.send("/v1/batch", of_batch(500 * 1024 + 1)).await, large);
    let of_count = |count: usize| {
        let messages: Vec<Value> = (0..count).map(|i| json!({"type": "page", "messageId": format!("c{i}")})).collect();
        batch(messages)
    };
    assert_eq!(world.send("/v1/batch", of_count(2_501)).await, (400, "INVALID_FIELD".into()));
    assert_eq!(world.facts().await.len(), 2 + 15, "of what is beyond a limit nothing is taken in");
    assert_eq!(world.send("/v1/batch", of_count(2_500)).await, ok);
    assert_eq!(world.facts().await.len(), 2 + 15 + 2_500);
    world.server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_in_many_ways() {
    let world = World::start(0).await;
    let key = basic("dev-write-key:");
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).expect("compressed");
        encoder.finish().expect("compressed")
    };
    let one = batch([track("1", "Seen")]).to_string();
    let bomb = format!("{one}{}", " ".repeat(500 * 1024));
    let with_bom = [BYTE_ORDER_MARK, batch([track("2", "Seen")]).to_string().as_bytes()].concat();
    let without_id = batch([track("3", "Seen"), json!({"type": "page"})]).to_string();
    for (encoding, content_type, body, expected) in [
        ("", "application/json", one.clone().into_bytes(), (200, "")),
        ("", "text/plain; charset=utf-8", one.clone().into_bytes(), (200, "")),
        ("gzip", "application/json", gzip(&one), (200, "")),
        ("GZIP", "", gzip(&one), (200, "")),
        ("identity", "", with_bom, (200, "")),
        ("gzip", "", gzip(&bomb), (400, "REQUEST_TOO_LARGE")),
        ("gzip", "", one.clone().into_bytes(), (400, "INVALID_BODY")),
        ("gzip", "", gzip(&one)[..20].to_vec(), (400, "INVALID_BODY")),
        ("br", "", one.clone().into_bytes(), (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("", "", Vec::new(), (400, "REQUEST_BODY_REQUIRED")),
        ("", "", b"{\"batch\":[".to_vec(), (400, "INVALID_JSON")),
        ("", "", b"\"\xff\"".to_vec(), (400, "INVALID_JSON")),
        ("", "", b"[]".to_vec(), (400, "INVALID_FIELD")),
        ("", "", b"{}".to_vec(), (400, "INVALID_FIELD")),
        ("", "", b"{\"batch\":{}}".to_vec(), (400, "INVALID_FIELD")),
        ("", "", b"{\"batch\":[1]}".to_vec(), (400, "INVALID_FIELD")),
        ("", "", b"{\"batch\":[]}".to_vec(), (200, "")),
        ("", "", without_id.into_bytes(), (400, "MESSAGE_ID_REQUIRED")),
        ("", "", format!("{{\"batch\":{}", "[".repeat(400_000)).into_bytes(), (400, "INVALID_JSON")),
    ] {
        let headers = [("authorization", key.as_str()), ("content-encoding", encoding), ("content-type", content_type)];
        let headers: Vec<_> = headers.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let (status, reason) = world.send_as("/v1/batch", &headers, body.clone()).await;
        assert_eq!((status, reason.as_str()), expected, "{}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    }
    assert_eq!(world.facts().await.len(), 2);
    world.server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_counts_messages() {
    let world = World::start(3).await;
    let pages = |from: usize, count: usize| {
        let message = |i: usize| json!({"type": "page", "messageId": i.to_string()});
        batch((from..from + count).map(message).collect::<Vec<_>>())
    };
    assert_eq!(world.send("/v1/batch", pages(0, 2)).await.0, 200);
    assert_eq!(world.send("/v1/batch", pages(2, 2)).await, (429, "RATE_LIMIT_EXCEEDED".into()));
    assert_eq!(world.send("/v1/page", json!({"messageId": "2"})).await.0, 200);
    let (status, headers, _) =
        ask(&world.router, post("/v1/page", &[("authorization", &basic("dev-write-key:"))], "not read")).await;
    assert_eq!(status, 429);
    for name in ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
        assert!(headers.contains_key(name), "{name}");
    }
    assert_eq!(world.facts().await.len(), 3);
    // More than a minute allows goes through in a fresh one: it could never be sent otherwise.
    let fresh = World { router: world.server.router(3), server: world.server };
    assert_eq!(fresh.send("/v1/batch", pages(10, 9)).await.0, 200);
    assert_eq!(fresh.send("/v1/page", json!({"messageId": "99"})).await.0, 429);
    fresh.server.running.shutdown().await;
}
