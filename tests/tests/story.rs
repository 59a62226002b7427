//! The product from one end to the other, as its users meet it.

use std::sync::Arc;

use punchline_proto::v1;
use punchline_tests::api::{Refused, consumption};
use punchline_tests::campaign::{CAMPAIGN, PUNCHCARD};
use punchline_tests::http;
use punchline_tests::receiver::{Received, Script, exactly_once};
use punchline_tests::server::Server;
use punchline_tests::wait::{SOON, until};
use punchline_tests::world::{PHONE, World};
use serde_json::json;
use tonic::Code;

#[tokio::test]
async fn from_a_credential_to_a_webhook() {
    let mut world = World::start(Server::setup()).await;
    let subscription = world.subscribe("/shop", &["*"], &[]).await;
    let token = world.token(&world.advertiser_id, &[v1::Scope::Ingest]).await;

    // Over HTTP, as Wecheer's clients do.
    let body = json!({
        "consumptionId": "I198037776491223",
        "consumptionDate": "20260915T12:34:00Z",
        "identifiers": [{"key": "phoneNumber", "value": "+40 720 005 123"}],
        "consumptionLines": [{"sku": "coffee_large", "productName": "Large", "quantity": 12}],
    })
    .to_string();
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json-patch+json")];
    let path = "/campaigns/api/advertiser-integration/v1/consumption";
    let answer = http::post(&world.server.http_address(), path, &headers, body.clone()).await;
    assert_eq!((answer.status, &answer.json()["message"]), (200, &json!("Event successfully published")), "{answer:?}");
    let again = http::post(&world.server.http_address(), path, &headers, body).await;
    assert_eq!((again.status, again.code().as_str()), (409, "CONSUMPTION_EXISTS"), "{again:?}");
    assert_eq!(again.message(), "Consumption already processed");
    assert_eq!(again.json()["error"]["details"]["receipt"], answer.json()["receipt"], "the first receipt");

    // Over gRPC, with the same token, and the same ids.
    let api = world.api.bearer(&token);
    let receipt = api.record(consumption("G1", PHONE, &[("article", 2), ("can_yuzu", 3)])).await.expect("accepted");
    assert_eq!((receipt.points, receipt.coins, receipt.stamps, receipt.rows_completed), (109, 6, 0, 0));
    assert_eq!(receipt.member_id, world.member_id);
    let same = api.record(consumption("I198037776491223", PHONE, &[("article", 1)])).await.expect_err("a repeat");
    assert_eq!((same.code, same.reason.as_str()), (Code::AlreadyExists, "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT"));

    // What it came to, and why.
    let balances = world.api.balances(&world.member_id).await;
    assert_eq!((balances[CAMPAIGN], balances["coins"]), (12 * 5 + 109, 6));
    assert_eq!(world.api.punchcards(&world.member_id).await[PUNCHCARD], (2, 1));
    let request = v1::ListEntriesRequest { member_id: world.member_id.clone(), ..Default::default() };
    let entries = world.api.ledger().list_entries(request).await.expect("the member exists").into_inner().entries;
    let amounts: Vec<i64> = entries.iter().map(|entry| entry.amount).collect();
    assert_eq!(amounts, [6, 9, 100, 60], "newest first");
    assert_eq!(entries[2].cause_sequence, receipt.sequence);
    let request = v1::ExplainEntryRequest { sequence: entries[2].sequence };
    let explained = world.api.ledger().explain_entry(request).await.expect("the entry exists").into_inner();
    let cause = explained.cause.expect("a cause");
    assert_eq!((cause.sequence, cause.r#type.as_str()), (receipt.sequence, "consumption.recorded"));
    assert!(explained.rule_json.contains("articles"), "{}", explained.rule_json);
    assert!(!explained.explanation.is_empty());

    // And who was told.
    let (events, _) = world.api.events_from(1, &["consumption.*", "points.*", "coins.*", "punchcard.*"]).await;
    assert!(events.len() > 10, "{events:?}");
    world.delivered("/shop", events.len()).await;
    let received = world.receiver.received("/shop");
    let firsts = exactly_once(&received).expect("as a receiver may expect");
    for event in &events {
        let webhook = firsts.iter().find(|one| one.sequence == event.sequence).expect("every event was delivered");
        check_webhook(webhook, event, &subscription, &world.advertiser_id);
    }
    let credited = firsts.iter().find(|one| one.event_type == "points.credited").expect("points");
    let data = &credited.json()["data"];
    for (field, expected) in [
        ("member_id", json!(world.member_id)),
        ("campaign_id", json!(CAMPAIGN)),
        ("amount", json!(60)),
        ("previous_balance", json!(0)),
        ("new_balance", json!(60)),
        (
            "origin",
            json!({"kind": "consumption", "consumption_id": "I198037776491223", "line": 0, "sku": "coffee_large", "rule_id": "coffees"}),
        ),
    ] {
        assert_eq!(data[field], expected, "{field} of {data}");
    }

    let metrics = http::get(&world.server.metrics_address(), "/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let accepted =
        text.lines().any(|line| line.starts_with("punchline_ingest_consumptions_total{") && line.ends_with(" 2"));
    assert!(accepted, "two accepted: {text}");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http::get(&world.server.http_address(), path).await.status, 200, "{path}");
    }
    assert!(world.server.stop().await.success());
    world.server.verify().expect("what is on disk is sound");
}

fn check_webhook(webhook: &Received, event: &v1::Event, subscription: &str, advertiser_id: &str) {
    let json = webhook.json();
    assert_eq!(json.as_object().expect("an object").keys().collect::<Vec<_>>(), ["type", "timestamp", "data"]);
    assert_eq!(json["type"], event.r#type.as_str());
    assert!(json["timestamp"].as_str().expect("a text").ends_with('Z'), "{json}");
    let data: serde_json::Value = serde_json::from_str(&event.data_json).expect("data is JSON");
    assert_eq!(json["data"], data, "the event service tells the same");
    assert_eq!(data["sequence"], event.sequence);
    assert_eq!(data["cause_sequence"], event.cause_sequence);
    assert_eq!((&data["advertiser_id"], &data["environment"]), (&json!(advertiser_id), &json!("production")));
    assert_eq!((webhook.attempt, webhook.signers.as_slice()), (1, &[0][..]));
    assert!(webhook.webhook_id.contains(&event.sequence.to_string()), "{}", webhook.webhook_id);
    assert!(webhook.webhook_id.contains(&subscription.replace('-', "")), "{}", webhook.webhook_id);
    let header = |name: &str| webhook.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(header("user-agent").starts_with("Punchline/"), "{:?}", webhook.headers);
    assert_eq!(header("content-type"), "application/json");
}

#[tokio::test]
async fn both_secrets_sign_while_one_is_rotated() {
    let world = World::start(Server::setup()).await;
    let subscription_id = world.subscribe("/shop", &["points.credited"], &[]).await;
    let signers = async |id: &str| {
        let count = world.receiver.delivered_count("/shop") + 1;
        world.article(id).await;
        world.delivered("/shop", count).await;
        world.receiver.received("/shop").pop().expect("one came").signers
    };
    assert_eq!(signers("before").await, [0]);
    let rotate = async |overlap_seconds| {
        let request =
            v1::RotateSecretRequest { subscription_id: subscription_id.clone(), overlap_seconds, ..Default::default() };
        let rotated = world.api.subscriptions().rotate_secret(request).await.expect("it exists").into_inner();
        world.receiver.secret("/shop", &rotated.secret);
    };
    rotate(3_600).await;
    assert_eq!(signers("during").await, [0, 1]);
    rotate(1).await;
    let mut sent = 0;
    until("the old secret stops signing", SOON, async || {
        sent += 1;
        match signers(&format!("after-{sent}")).await.as_slice() {
            [2] => Ok(()),
            others => Err(others.to_vec()),
        }
    })
    .await;
}

#[tokio::test]
async fn what_happens_during_a_pause_is_delivered_after_it() {
    let world = World::start(Server::setup()).await;
    let paused = world.subscribe("/paused", &["points.credited"], &[]).await;
    world.subscribe("/other", &["points.credited"], &[]).await;
    world.article("1").await;
    world.delivered("/paused", 1).await;
    let request = v1::PauseSubscriptionRequest { subscription_id: paused.clone(), reason: "stocktaking".into() };
    world.api.subscriptions().pause_subscription(request).await.expect("it exists");
    let state = world.api.subscription(&paused).await;
    assert_eq!((state.state(), state.state_reason.as_str()), (v1::SubscriptionState::Paused, "stocktaking"));
    for id in ["2", "3", "4"] {
        world.article(id).await;
    }
    // The other one has them all: had the paused one been served, it would have them by now.
    let all = world.delivered("/other", 4).await;
    assert_eq!(world.receiver.requests("/paused"), 1);
    let request = v1::ResumeSubscriptionRequest { subscription_id: paused.clone() };
    world.api.subscriptions().resume_subscription(request).await.expect("it exists");
    assert_eq!(world.delivered("/paused", 4).await, all);
    let received = world.receiver.received("/paused");
    assert_eq!(exactly_once(&received).expect("in order").len(), received.len(), "each came once");
}

#[tokio::test]
async fn a_dead_letter_is_listed_and_can_be_redriven() {
    let world = World::start(Server::setup()).await;
    let subscription_id = world.subscribe("/shop", &["points.credited"], &[20, 20]).await;
    world.receiver.script("/shop", Script::Status(500));
    world.article("1").await;
    let dead_letters = async || {
        let request = v1::ListDeadLettersRequest { subscription_id: subscription_id.clone(), ..Default::default() };
        world.api.deliveries().list_dead_letters(request).await.expect("it exists").into_inner().dead_letters
    };
    let dead = until("there is a dead letter", SOON, async || match dead_letters().await.as_slice() {
        [one] => Ok(one.clone()),
        others => Err(others.to_vec()),
    })
    .await;
    assert_eq!((dead.attempts, dead.last_status, dead.event_type.as_str()), (3, 500, "points.credited"));
    assert_eq!(dead.state(), v1::DeliveryState::DeadLettered);
    let request = v1::ListAttemptsRequest { subscription_id: subscription_id.clone(), sequence: dead.sequence };
    let attempts = world.api.deliveries().list_attempts(request).await.expect("it exists").into_inner().attempts;
    let mut numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(attempts.iter().all(|attempt| attempt.status == 500 && attempt.response_body == b"noted"), "{attempts:?}");

    // Its successor goes on without it.
    world.receiver.script("/shop", Script::Ok);
    world.article("2").await;
    let delivered = world.delivered("/shop", 1).await;
    assert!(!delivered.contains(&dead.sequence));

    let redrive = async |preview| {
        let subscription_id = subscription_id.clone();
        let request = v1::RedriveDeadLettersRequest { subscription_id, preview, ..Default::default() };
        world.api.deliveries().redrive_dead_letters(request).await.expect("it exists").into_inner()
    };
    assert_eq!(redrive(true).await.redriven, 1);
    assert_eq!(dead_letters().await.len(), 1, "a preview changes nothing");
    let job = redrive(false).await.job.expect("all of them are a job");
    assert!(world.delivered("/shop", 2).await.contains(&dead.sequence));
    let received = world.receiver.received("/shop");
    let of_it: Vec<&Received> = received.iter().filter(|one| one.sequence == dead.sequence).collect();
    assert_eq!(of_it.len(), 4, "three that failed, one that did not");
    assert!(job.to_sequence >= dead.sequence && job.state() != v1::DeliveryJobState::Cancelled, "{job:?}");
    assert!(of_it.iter().all(|one| one.webhook_id == dead.webhook_id && one.body == of_it[0].body));
    until("no dead letter is left", SOON, async || match dead_letters().await.len() {
        0 => Ok(()),
        n => Err(n),
    })
    .await;
}

#[tokio::test]
async fn the_test_button() {
    let world = World::start(Server::setup()).await;
    let subscription_id = world.subscribe("/shop", &["coins.*"], &[]).await;
    let test = async |event_type: &str| {
        let request =
            v1::TestSubscriptionRequest { subscription_id: subscription_id.clone(), event_type: event_type.into() };
        world.api.subscriptions().test_subscription(request).await.map(tonic::Response::into_inner)
    };
    let went = test("").await.expect("it exists");
    assert_eq!((went.status, went.error.as_str(), went.response_body.as_slice()), (200, "", &b"noted"[..]));
    let received = world.receiver.received("/shop");
    assert_eq!(received.len(), 1);
    assert_eq!((received[0].event_type.as_str(), &received[0].body[..]), ("coins.changed", &went.request_body[..]));
    world.receiver.script("/shop", Script::Status(500));
    let went = test("points.credited").await.expect("any type's example can be had");
    assert_eq!(went.status, 500);
    world.receiver.script("/shop", Script::Drop);
    let went = test("").await.expect("a failure is an answer");
    assert!(went.status == 0 && !went.error.is_empty(), "{went:?}");
    let refused = Refused::of(&test("coins.eaten").await.expect_err("there is no such type"));
    assert_eq!((refused.code, refused.field.as_str()), (Code::InvalidArgument, "event_type"), "{refused:?}");
    assert_eq!(world.receiver.requests("/shop"), 3, "nothing is retried");
}

#[tokio::test]
async fn gone_disables_and_resuming_goes_on() {
    let world = World::start(Server::setup()).await;
    let subscription_id = world.subscribe("/shop", &["points.credited"], &[20, 20]).await;
    world.receiver.script("/shop", Script::Status(410));
    world.article("1").await;
    until("410 disables the subscription", SOON, async || {
        let subscription = world.api.subscription(&subscription_id).await;
        if subscription.state() == v1::SubscriptionState::Disabled { Ok(()) } else { Err(subscription) }
    })
    .await;
    world.article("2").await;
    world.receiver.script("/shop", Script::Ok);
    let request = v1::ResumeSubscriptionRequest { subscription_id: subscription_id.clone() };
    world.api.subscriptions().resume_subscription(request).await.expect("it exists");
    world.delivered("/shop", 2).await;
    let received = world.receiver.received("/shop");
    let firsts = exactly_once(&received).expect("in order");
    assert_eq!(firsts.len(), 2);
    assert_eq!(received.iter().filter(|one| one.answered == 410).count(), 1, "no attempt after the first 410");
}

#[tokio::test]
async fn over_tls() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let certificate = issued.cert.pem();
    let dir = tempfile::tempdir().expect("a directory");
    let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert_file, &certificate).expect("a file");
    std::fs::write(&key_file, issued.signing_key.serialize_pem()).expect("a file");
    let setup = Server::setup()
        .with("server.tls.cert_file", cert_file.display())
        .with("server.tls.key_file", key_file.display())
        .tls("localhost", &certificate);
    let world = World::start(setup).await;
    world.article("1").await;
    let answer = https_get(&world.server.http_address(), issued.cert.der(), "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Whoever speaks in the clear is not answered in the clear.
    let plain = punchline_tests::api::Api::new(&world.server.grpc_address(), None);
    let refused = plain.record(v1::Consumption::default()).await.expect_err("no TLS");
    assert!(refused.reason.is_empty(), "not even a refusal of ours");
    let plain = http::send(&world.server.http_address(), "GET", "/healthz", &[], "").await;
    assert!(plain.is_err(), "{plain:?}");
}

async fn https_get(address: &str, trusted: &[u8], path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(trusted.to_vec())).expect("a certificate");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them all")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.expect("the server listens");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("the certificate is right");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    // Whether the connection is closed politely is not the question here.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn verify_finds_a_changed_byte() {
    let mut world = World::start(Server::setup()).await;
    for id in ["before", "the-changed-one", "after"] {
        world.article(id).await;
    }
    assert!(world.server.stop().await.success());
    world.server.verify().expect("what is on disk is sound");
    let path = world.server.data_dir().join("journal/db");
    let mut bytes = std::fs::read(&path).expect("the journal is a file");
    let marker = b"the-changed-one";
    let at = bytes.windows(marker.len()).position(|window| window == marker).expect("the journal holds the id");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("the journal can be written");
    let verified = world.server.verify();
    let said = verified.expect_err("a changed byte is damage");
    assert!(said.contains("journal"), "it says where: {said}");
}
