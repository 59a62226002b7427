//! Secrets in the log: a whole run at TRACE, libraries included, and not a line holds one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use punchline_proto::v1;
use punchline_tests::api::{consumption, identifier};
use punchline_tests::campaign::CAMPAIGN;
use punchline_tests::http;
use punchline_tests::receiver::Script;
use punchline_tests::server::{OPERATOR_TOKEN, Server};
use punchline_tests::wait::{SOON, until};
use punchline_tests::world::{World, authorize};

const API_SECRET: &str = "api-secret-that-nobody-logs";
const HEADER: &str = "header-value-that-nobody-logs";
const PASSWORD: &str = "password-that-nobody-logs";
const BEARER: &str = "bearer-token-that-nobody-logs";
const CLIENT_SECRET: &str = "client-secret-that-nobody-logs";
const SEGMENT_KEY: &str = "segment-key-that-nobody-logs";
const URL_TOKEN: &str = "url-token-that-nobody-logs";
const PHONE: &str = "40766123987";
const EMAIL: &str = "nobody.logs.me@example.com";
const FIRST_NAME: &str = "Vornameverborgen";
const LAST_NAME: &str = "Nachnameverborgen";
const BIRTH_DATE: &str = "1987-03-21";

/// Secrets that came up in the run, with what they are.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn known() -> Secrets {
        let master_key = [9; 32];
        let known = [
            ("operator token", OPERATOR_TOKEN.to_owned()),
            ("master key", STANDARD.encode(master_key)),
            ("api secret", API_SECRET.into()),
            ("header value", HEADER.into()),
            ("basic password", PASSWORD.into()),
            ("basic credentials", STANDARD.encode(format!("user:{PASSWORD}"))),
            ("bearer token", BEARER.into()),
            ("oauth2 client secret", CLIENT_SECRET.into()),
            ("oauth2 credentials", STANDARD.encode(format!("client:{CLIENT_SECRET}"))),
            ("segment write key", SEGMENT_KEY.into()),
            ("token in an URL", URL_TOKEN.into()),
            ("phone number", PHONE.into()),
            ("e-mail", EMAIL.into()),
            ("first name", FIRST_NAME.into()),
            ("last name", LAST_NAME.into()),
            ("birth date", BIRTH_DATE.into()),
        ];
        Secrets(known.into())
    }

    fn add(&mut self, what: &'static str, secret: &str) {
        assert!(secret.len() >= 8, "{what} {secret:?} would be found anywhere");
        self.0.push((what, secret.to_owned()));
    }

    /// The first line that holds one.
    fn check(&self, log: &str) {
        for line in log.lines() {
            for (what, secret) in &self.0 {
                assert!(!line.contains(secret.as_str()), "the {what} is logged: {line}");
            }
        }
    }
}

async fn subscribe(world: &World, secrets: &mut Secrets, path: &str, subscription: v1::Subscription) -> String {
    let (id, secret) = world.api.new_subscription(subscription).await;
    if !secret.is_empty() {
        world.receiver.secret(path, &secret);
        secrets.add("signing secret", &secret);
        secrets.add("signing key", secret.trim_start_matches("whsec_"));
    }
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_logged_at_any_level() {
    let mut secrets = Secrets::known();
    let setup = Server::setup().with("log.filter", "trace").with("security.master_key", STANDARD.encode([9; 32]));
    let mut world = World::start(setup).await;

    // Who calls: a key pair, its token, a write key, and what is wrong with them.
    let request =
        v1::IssueCredentialRequest { api_key: "pk-logged".into(), api_secret: API_SECRET.into(), ..Default::default() };
    world.api.admin().issue_credential(request).await.expect("issued");
    let token = authorize(&world.server, &world.advertiser_id, "pk-logged", API_SECRET).await;
    secrets.add("access token", &token);
    secrets.add("access token's signature", token.rsplit('.').next().expect("three parts"));
    let request = v1::IssueCredentialRequest { write_key: true, ..Default::default() };
    let issued = world.api.admin().issue_credential(request).await.expect("issued").into_inner();
    let write_key = issued.credential.expect("a key").api_key;
    let basic = STANDARD.encode(format!("{write_key}:"));
    secrets.add("write key's credentials", &basic);
    let address = world.server.http_address();
    let wrong = "a-wrong-secret-that-nobody-logs";
    secrets.add("wrong secret", wrong);
    let headers = [("apiKey", "pk-logged"), ("apiSecret", wrong), ("Content-Type", "application/json")];
    let body = format!(r#"{{"advertiserId":"{}"}}"#, world.advertiser_id);
    assert_eq!(http::post(&address, "/api/advertiser/v1/authorize", &headers, body).await.status, 401);
    let wrong_api = world.api.bearer(wrong);
    wrong_api.members().list_members(v1::ListMembersRequest::default()).await.expect_err("a wrong token");

    // Subscribers, with every kind of credentials; one of them fails.
    world.receiver.script("/fails", Script::Status(500));
    let to = |path: &str| v1::Subscription {
        url: world.receiver.url(&format!("{path}?token={URL_TOKEN}")),
        event_types: vec!["*".into()],
        headers: [("x-key".to_owned(), HEADER.to_owned())].into(),
        retry_delays_ms: vec![10, 10],
        ..Default::default()
    };
    let basic_auth = Some(v1::BasicAuth { username: "user".into(), password: PASSWORD.into() });
    let oauth2 = Some(v1::OAuth2 {
        token_url: world.receiver.url("/token"),
        client_id: "client".into(),
        client_secret: CLIENT_SECRET.into(),
        ..Default::default()
    });
    let failing = v1::Subscription { basic_auth, ..to("/fails") };
    let segment = v1::Subscription {
        url: world.receiver.url(""),
        dialect: "segment".into(),
        segment_write_key: SEGMENT_KEY.into(),
        event_types: vec!["*".into()],
        ..Default::default()
    };
    let failing = subscribe(&world, &mut secrets, "/fails", failing).await;
    let fine = v1::Subscription { bearer_token: BEARER.into(), ..to("/fine") };
    let fine = subscribe(&world, &mut secrets, "/fine", fine).await;
    subscribe(&world, &mut secrets, "/oauth2", v1::Subscription { oauth2, ..to("/oauth2") }).await;
    subscribe(&world, &mut secrets, "/v1/batch", segment).await;
    let rotate = v1::RotateSecretRequest { subscription_id: fine.clone(), ..Default::default() };
    let rotated = world.api.subscriptions().rotate_secret(rotate).await.expect("rotated").into_inner().secret;
    secrets.add("rotated secret", &rotated);
    world.receiver.secret("/fine", &rotated);
    let bad = v1::Subscription { url: format!("ftp://x/{URL_TOKEN}"), bearer_token: BEARER.into(), ..to("/fine") };
    let request = v1::CreateSubscriptionRequest { subscription: Some(bad), ..Default::default() };
    world.api.subscriptions().create_subscription(request).await.expect_err("no such scheme");

    // Members, by both doors, well and badly.
    let profile = v1::Profile {
        first_name: FIRST_NAME.into(),
        last_name: LAST_NAME.into(),
        birth_date: BIRTH_DATE.into(),
        ..Default::default()
    };
    let register = v1::RegisterMemberRequest {
        identifiers: vec![identifier("phoneNumber", PHONE), identifier("email", EMAIL)],
        profile: Some(profile),
        join_campaign_ids: vec![CAMPAIGN.into()],
        ..Default::default()
    };
    let member = world.api.members().register_member(register.clone()).await.expect("registered").into_inner().member;
    let member_id = member.expect("a member").member_id;
    world.api.members().register_member(register).await.expect_err("they are taken");
    world.api.record(consumption("c-1", PHONE, &[("article", 1)])).await.expect("accepted");
    world.api.record(consumption("c-2", &format!("{PHONE}x"), &[("article", 1)])).await.expect_err("no number");
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json")];
    for date in ["20260915T12:34:00Z", "never"] {
        let body = format!(
            r#"{{"consumptionId":"h-{date}","consumptionDate":"{date}","identifiers":[{{"key":"email","value":"{EMAIL}"}}],"consumptionLines":[{{"sku":"article","quantity":1}}]}}"#
        );
        http::post(&address, "/api/advertiser-integration/v1/consumption", &headers, body).await;
    }
    let basic_header = format!("Basic {basic}");
    let headers = [("authorization", &*basic_header), ("content-type", "application/json")];
    let identify =
        format!(r#"{{"messageId":"m-1","userId":"u-1","traits":{{"email":"{EMAIL}","firstName":"{FIRST_NAME}"}}}}"#);
    http::post(&address, "/v1/identify", &headers, identify.clone()).await;
    http::post(&address, "/v1/identify", &headers, identify.replace('}', "")).await;
    let fact = v1::Fact {
        source: "shop".into(),
        fact_id: "f-1".into(),
        r#type: "wallet_pass.installed".into(),
        identifiers: vec![identifier("email", EMAIL)],
        occurred_at: "2026-09-15T12:34:00Z".into(),
        properties_json: format!(r#"{{"email":"{EMAIL}","phone":"{PHONE}"}}"#),
    };
    // Whether the type takes it or not.
    drop(world.api.ingest().publish_fact(v1::PublishFactRequest { fact: Some(fact) }).await);

    until("webhooks are tried, and fail", SOON, async || {
        match (world.receiver.delivered_count("/fine"), world.receiver.requests("/fails")) {
            (1.., 2..) => Ok(()),
            counts => Err(counts),
        }
    })
    .await;
    let test = v1::TestSubscriptionRequest { subscription_id: failing, ..Default::default() };
    drop(world.api.subscriptions().test_subscription(test).await);
    let erase = v1::EraseMemberRequest { member_id };
    world.api.members().erase_member(erase).await.expect("erased");
    world.server.signal("-HUP");
    world.server.kill();
    world.server.restart().await;
    world.api.head().await;
    assert!(world.server.stop().await.success());
    let log = world.server.log();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "it is a log of everything");
    assert!(log.lines().count() > 1_000, "{}", log.lines().count());
    secrets.check(&log);
}
