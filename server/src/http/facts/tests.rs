//! The route as its callers see it.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use punchline_engine::id::Environment;
use serde_json::{Value, json};

use crate::dev;
use crate::http::tests::{Server, ask, error, post};

fn fact(id: &str, fact_type: &str, properties: Value) -> Value {
    json!({
        "source": "wallet", "factId": id, "type": fact_type,
        "identifiers": [{"key": "phoneNumber", "value": dev::PHONE}],
        "occurredAt": "2026-01-02T03:04:05Z",
        "properties": properties,
    })
}

fn pass(id: &str) -> Value {
    fact(id, "wallet_pass.installed", json!({"platform": "apple", "email": "ana@example.com"}))
}

fn request(headers: &[(&str, &str)], body: &Value) -> Request<Body> {
    post("/v1/facts", headers, body.to_string())
}

async fn told(router: &Router, token: &str, body: Value) -> (u16, String, String) {
    let (status, _, answer) = ask(router, request(&[("authorization", token)], &body)).await;
    let (code, _) = error(&answer);
    let field = answer["error"]["details"]["field"].as_str().unwrap_or_default();
    (status, code.to_owned(), field.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fact() {
    let server = Server::start(&[]).await;
    let router = server.router(0);
    let token = server.token(Environment::Staging);
    let (status, _, answer) = ask(&router, request(&[("authorization", &token)], &pass("1"))).await;
    assert_eq!(status, 200, "{answer}");
    let receipt = &answer["receipt"];
    assert!(receipt["sequence"].as_u64().is_some_and(|at| at > 0), "{answer}");
    assert!(receipt["memberId"].is_string() && receipt["recordedAt"].is_string(), "{answer}");

    let (status, _, repeated) = ask(&router, request(&[("authorization", &token)], &pass("1"))).await;
    assert_eq!((status, error(&repeated).0), (409, "FACT_EXISTS"));
    assert_eq!(repeated["error"]["details"]["sequence"], receipt["sequence"].to_string(), "{repeated}");
    let mut unknown = pass("2");
    unknown["propertys"] = json!({});
    let mut late = pass("2");
    late["occurredAt"] = json!("soon");
    let mut numbered = pass("2");
    numbered["factId"] = json!(7);
    let mut stranger = pass("2");
    stranger["identifiers"] = json!([{"key": "email", "value": "nobody@example.com"}]);
    for (body, expected) in [
        (
            fact("1", "wallet_pass.installed", json!({"platform": "google"})),
            (409, "FACT_EXISTS_WITH_DIFFERENT_CONTENT", "properties"),
        ),
        (
            fact("2", "wallet_pass.installed", json!({"platform": 1})),
            (400, "FACT_SCHEMA_MISMATCH", "properties.platform"),
        ),
        (
            fact("2", "redemption.started", json!({"cost": {"points": "x"}})),
            (400, "FACT_SCHEMA_MISMATCH", "properties.cost.points"),
        ),
        (fact("2", "wallet_pas.installed", json!({})), (400, "UNKNOWN_FACT_TYPE", "type")),
        (fact("2", "points.credited", json!({})), (400, "INVALID_FIELD", "type")),
        (fact("", "wallet_pass.installed", json!({})), (400, "INVALID_FIELD", "factId")),
        (fact("2", "wallet_pass.installed", json!([])), (400, "INVALID_FIELD", "properties")),
        (unknown, (400, "INVALID_FIELD", "propertys")),
        (late, (400, "INVALID_FIELD", "occurredAt")),
        (numbered, (400, "INVALID_FIELD", "factId")),
        (stranger, (404, "ACCOUNT_NOT_FOUND", "")),
        (json!("x"), (400, "INVALID_FIELD", "body")),
        (json!([]), (400, "INVALID_FIELD", "body")),
        (json!(null), (400, "REQUEST_BODY_REQUIRED", "body")),
    ] {
        let (status, code, field) = told(&router, &token, body.clone()).await;
        assert_eq!((status, code.as_str(), field.as_str()), expected, "{body}");
    }
    let raw = |body: &str| post("/v1/facts", &[("authorization", &token)], body.to_owned());
    let (status, _, answer) = ask(&router, raw("{")).await;
    assert_eq!((status, error(&answer).0), (400, "INVALID_JSON"));
    let (status, _, answer) = ask(&router, raw(&"[".repeat(100_000))).await;
    assert_eq!((status, error(&answer).0), (400, "INVALID_JSON"));
    let long = format!("{}{}", pass("3"), " ".repeat(1024 * 1024));
    let (status, _, answer) = ask(&router, raw(&long)).await;
    assert_eq!((status, error(&answer).0), (413, "REQUEST_TOO_LARGE"));
    let text = [("authorization", token.as_str()), ("content-type", "text/plain")];
    let (status, _, answer) = ask(&router, request(&text, &pass("3"))).await;
    assert_eq!((status, error(&answer).0), (415, "UNSUPPORTED_MEDIA_TYPE"));
    server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_a_result_for_each() {
    let server = Server::start(&[]).await;
    let router = server.router(0);
    let token = server.token(Environment::Production);
    let list = json!([pass("1"), 7, pass("1"), fact("2", "x.y", json!({})), pass("2"), {"factId": "3"}]);
    let (status, _, answer) = ask(&router, request(&[("authorization", &token)], &list)).await;
    assert_eq!(status, 200);
    let results = answer["results"].as_array().expect("a list");
    let told: Vec<&str> = results
        .iter()
        .map(|result| match result.get("receipt") {
            Some(_) => "ok",
            None => result["error"]["code"].as_str().expect("a code"),
        })
        .collect();
    assert_eq!(told, ["ok", "INVALID_FIELD", "FACT_EXISTS", "UNKNOWN_FACT_TYPE", "ok", "INVALID_FIELD"]);
    assert_eq!(results[1]["error"]["details"]["field"], "[1]");
    assert_eq!(results[5]["error"]["details"]["field"], "source");
    let first = results[0]["receipt"]["sequence"].as_u64().expect("a position");
    assert_eq!(results[4]["receipt"]["sequence"], first + 1, "in their order, with nothing between");
    let many: Vec<Value> = (0..1_001).map(|n| json!({"factId": n.to_string()})).collect();
    let (status, _, answer) = ask(&router, request(&[("authorization", &token)], &json!(many))).await;
    assert_eq!((status, error(&answer).0), (400, "INVALID_FIELD"));
    server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_are_known_and_limited() {
    let server = Server::start(&[]).await;
    let router = server.router(3);
    let operator = format!("Bearer {}", dev::OPERATOR_TOKEN);
    let of = |environment: &'static str| {
        [
            ("authorization", operator.as_str()),
            ("punchline-advertiser", "1000000001"),
            ("punchline-environment", environment),
        ]
    };
    for (headers, expected) in [
        (&[][..], (400, "CREDENTIALS_MISSING")),
        (&[("authorization", "Bearer x")][..], (401, "INVALID_CREDENTIALS")),
        (&of("staging")[..1], (400, "ADVERTISER_REQUIRED")),
        (&[of("staging")[0], ("punchline-advertiser", "7")][..], (404, "ADVERTISER_NOT_FOUND")),
    ] {
        let (status, _, answer) = ask(&router, request(headers, &pass("1"))).await;
        assert_eq!((status, error(&answer).0), expected, "{headers:?}");
    }
    let (status, headers, _) = ask(&router, request(&of("staging"), &pass("1"))).await;
    assert_eq!((status, headers["x-ratelimit-remaining"].to_str().expect("text")), (200, "2"));
    // All of a list or none.
    let (status, headers, answer) =
        ask(&router, request(&of("staging"), &json!([pass("2"), pass("3"), pass("4")]))).await;
    assert_eq!((status, error(&answer).0), (429, "RATE_LIMIT_EXCEEDED"));
    assert!(headers.contains_key("retry-after"));
    let four = json!([pass("2"), pass("3"), pass("4"), pass("5")]);
    let (status, headers, answer) = ask(&router, request(&of("staging"), &four)).await;
    assert_eq!((status, headers.contains_key("retry-after")), (429, false), "it would never fit");
    assert!(error(&answer).1.contains("split it"), "{answer}");
    let (status, _, _) = ask(&router, request(&of("staging"), &json!([pass("2"), pass("3")]))).await;
    assert_eq!(status, 200);
    let (status, _, answer) = ask(&router, request(&of("staging"), &pass("4"))).await;
    assert_eq!((status, error(&answer).0), (429, "RATE_LIMIT_EXCEEDED"));
    // The environments are apart, and so are their facts.
    let (status, _, _) = ask(&router, request(&of("production"), &pass("1"))).await;
    assert_eq!(status, 200);
    server.running.shutdown().await;
}
