//! Tokens: fetched once, kept, shared, dropped; and what becomes of an attempt that gets none.

mod support;

use std::sync::Arc;
use std::time::Duration;

use punchline_delivery::auth::{Auth, BearerToken};
use punchline_delivery::courier::AttemptRequest;
use punchline_delivery::endpoint::EndpointPolicy;
use punchline_delivery::oauth2::{ClientAuth, OAuth2Client, OAuth2Params};
use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome, PermanentStatuses};
use punchline_delivery::transport::{Transport, TransportConfig, TransportLimits};
use support::{
    Answer, Gate, NOW_UNIX_S, Seen, Server, answer, in_turn, loopback_policy, request, roots, tls_config, transport,
};

fn params(token_url: String) -> OAuth2Params {
    OAuth2Params {
        token_url,
        client_id: "me".to_owned(),
        client_secret: "s3cret".to_owned(),
        scopes: vec!["events".to_owned()],
        ..OAuth2Params::default()
    }
}

fn auth_of(params: &OAuth2Params) -> Arc<Auth> {
    Arc::new(OAuth2Client::new(params, &loopback_policy()).expect("valid").into())
}

fn auth(tokens: &Server) -> Arc<Auth> {
    auth_of(&params(tokens.url("/token")))
}

fn token(name: &str, expires_in: u32) -> Answer {
    let body = format!(r#"{{"access_token":"{name}","token_type":"Bearer","expires_in":{expires_in}}}"#);
    answer(200, "content-type: application/json\r\n", &body)
}

/// Tokens `t1`, `t2`, … each good for an hour.
async fn token_server() -> Server {
    Server::start(in_turn((1..=9).map(|n| token(&format!("t{n}"), 3600)).collect())).await
}

fn with(auth: &Arc<Auth>, url: &str) -> AttemptRequest {
    AttemptRequest { auth: Some(Arc::clone(auth)), ..request(url) }
}

fn authorizations(server: &Server) -> Vec<String> {
    let header = |seen: Seen| seen.header("authorization").unwrap_or("none").to_owned();
    server.seen().into_iter().map(header).collect()
}

fn gist(report: &AttemptReport) -> (Outcome, Option<u16>, Option<ErrorCode>) {
    (report.outcome, report.status, report.error)
}

const AUTH_FAILED: (Outcome, Option<u16>, Option<ErrorCode>) = (Outcome::Retry, None, Some(ErrorCode::Auth));

#[tokio::test]
async fn a_bearer_token_is_sent_as_it_is() {
    let receiver = Server::always(answer(200, "", "")).await;
    let auth: Arc<Auth> = Arc::new(BearerToken::new("s3cret").expect("valid").into());
    let request = with(&auth, &receiver.url("/"));
    assert!(!format!("{request:?}").contains("s3cret"));
    transport().attempt(request).await;
    assert_eq!(authorizations(&receiver), ["Bearer s3cret"]);
}

#[tokio::test]
async fn a_token_is_fetched_once_and_kept_until_shortly_before_it_runs_out() {
    let (tokens, receiver) = (token_server().await, Server::always(answer(200, "", "")).await);
    let (transport, auth) = (transport(), auth(&tokens));
    // An hour, less the minute that it is not trusted with.
    for after_s in [0, 1, 3539, 3540, 3541] {
        let mut request = with(&auth, &receiver.url("/"));
        request.timestamp_unix_s = NOW_UNIX_S + after_s;
        let report = transport.attempt(request).await;
        assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
    }
    let (t1, t2) = ("Bearer t1", "Bearer t2");
    assert_eq!(authorizations(&receiver), [t1, t1, t1, t2, t2]);

    let fetches = tokens.seen();
    assert_eq!(fetches.len(), 2);
    assert_eq!(fetches[0].head[0], "POST /token HTTP/1.1");
    assert_eq!(fetches[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(fetches[0].header("authorization"), Some("Basic bWU6czNjcmV0"));
    assert_eq!(fetches[0].text(), "grant_type=client_credentials&scope=events");
}

#[tokio::test]
async fn clients_are_told_apart_by_all_that_a_token_depends_on() {
    let (tokens, receiver) = (token_server().await, Server::always(answer(200, "", "")).await);
    let transport = transport();
    let own = params(tokens.url("/token"));
    let form = OAuth2Params { client_auth: ClientAuth::Form, ..own.clone() };
    let guesser = OAuth2Params { client_secret: "guessed".to_owned(), ..own.clone() };
    for params in [&own, &form, &guesser, &own] {
        transport.attempt(with(&auth_of(params), &receiver.url("/"))).await;
    }
    assert_eq!(authorizations(&receiver), ["Bearer t1", "Bearer t2", "Bearer t3", "Bearer t1"]);
    let form = &tokens.seen()[1];
    assert_eq!(form.header("authorization"), None);
    assert_eq!(form.text(), "grant_type=client_credentials&client_id=me&client_secret=s3cret&scope=events");
}

#[tokio::test]
async fn a_refused_token_is_dropped_and_is_not_the_events_fault() {
    let tokens = token_server().await;
    let refusal = answer(401, "", "");
    let answers = vec![answer(200, "", ""), refusal.clone(), answer(200, "", ""), refusal.clone(), refusal];
    let receiver = Server::start(in_turn(answers)).await;
    let (transport, auth) = (transport(), auth(&tokens));
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        let mut request = with(&auth, &receiver.url("/"));
        request.permanent_statuses = Arc::new(PermanentStatuses::new([401]).expect("valid"));
        outcomes.push(transport.attempt(request).await.outcome);
    }
    assert_eq!(authorizations(&receiver), ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]);
    // A kept token that is refused says nothing about the event; a new one that is refused does what
    // the subscription asked for.
    use Outcome::{Delivered, Refused, Retry};
    assert_eq!(outcomes, [Delivered, Retry, Delivered, Retry, Refused]);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let huge = format!(r#"{{"access_token":"t","padding":"{}"}}"#, "x".repeat(100_000));
    let cases = [
        (answer(500, "", "s3cret oops"), "answered 500"),
        (answer(400, "", r#"{"error":"invalid_client","error_description":"s3cret"}"#), "answered 400: invalid_client"),
        (answer(302, "location: /elsewhere\r\n", ""), "answered 302"),
        (answer(200, "", "<html>s3cret"), "no JSON object"),
        (answer(200, "", "{}"), "no access_token"),
        (answer(200, "", &huge), "length limit exceeded"),
        (Answer::Reset(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()), "cannot be reached"),
        (Answer::Close(Vec::new()), "cannot be reached"),
        (Answer::Close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()), "cannot be reached"),
    ];
    for (broken, expected) in cases {
        let tokens = Server::start(in_turn(vec![broken, token("good", 3600)])).await;
        let receiver = Server::always(answer(200, "", "")).await;
        let (transport, auth) = (transport(), auth(&tokens));
        let report = transport.attempt(with(&auth, &receiver.url("/"))).await;
        assert_eq!(gist(&report), AUTH_FAILED, "{report:?}");
        let detail = report.error_detail.expect("says why");
        assert!(detail.contains(expected) && !detail.contains("s3cret"), "{detail}: {expected}");
        assert!(authorizations(&receiver).is_empty());
        // Failures are not kept.
        let report = transport.attempt(with(&auth, &receiver.url("/"))).await;
        assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
        assert_eq!(receiver.seen().len(), 1);
    }
}

#[tokio::test]
async fn the_token_endpoint_is_guarded_as_a_receiver_is() {
    let (tokens, receiver) = (token_server().await, Server::always(answer(200, "", "")).await);
    let strict = EndpointPolicy { allow_http: true, allow_private: Vec::new() };
    assert!(OAuth2Client::new(&params(tokens.url("/")), &strict).is_err());

    // Names are checked when they are resolved.
    let lookup = support::ScriptedLookup::new(&[&["127.0.0.1"], &["10.0.0.1"]]);
    let config = TransportConfig { lookup, ..TransportConfig::new(loopback_policy()) };
    let auth = auth_of(&params(tokens.named_url("id.test", "/")));
    let transport = Transport::from_config(config);
    let _ = transport.attempt(request(&receiver.named_url("receiver.test", "/"))).await; // takes the first answer
    let report = transport.attempt(with(&auth, &receiver.url("/"))).await;
    assert_eq!(gist(&report), AUTH_FAILED, "{report:?}");
    assert!(report.error_detail.is_some_and(|detail| detail.contains("private")));
    assert!(tokens.seen().is_empty());
}

#[tokio::test]
async fn the_token_endpoints_certificate_is_checked() {
    let (own, receiver) = (support::certified("localhost"), Server::always(answer(200, "", "")).await);
    let tokens = Server::start_tls(tls_config(&own, &[]), in_turn(vec![token("t", 60)])).await;
    let auth = auth_of(&params(tokens.named_url("localhost", "/")));
    let report = transport().attempt(with(&auth, &receiver.url("/"))).await;
    assert_eq!(gist(&report), AUTH_FAILED, "{report:?}");
    let config = TransportConfig { roots: roots([&own]), ..TransportConfig::new(loopback_policy()) };
    let report = Transport::from_config(config).attempt(with(&auth, &receiver.url("/"))).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
}

/// A token endpoint that answers when the gate is open.
async fn gated(gate: &Gate, with: Answer) -> Server {
    let gate = gate.clone();
    Server::start(move |_| {
        let (gate, with) = (gate.clone(), with.clone());
        Box::pin(async move {
            gate.passed().await;
            with
        })
    })
    .await
}

#[tokio::test]
async fn attempts_share_one_fetch_and_its_outcome() {
    let cases = [(token("t1", 3600), (Outcome::Delivered, Some(200), None)), (answer(503, "", ""), AUTH_FAILED)];
    for (with_answer, expected) in cases {
        let gate = Gate::closed();
        let (tokens, receiver) = (gated(&gate, with_answer).await, Server::always(answer(200, "", "")).await);
        let (transport, auth) = (transport(), auth(&tokens));
        let attempts: Vec<_> = (0..20)
            .map(|_| {
                let (transport, request) = (transport.clone(), with(&auth, &receiver.url("/")));
                tokio::spawn(async move { transport.attempt(request).await })
            })
            .collect();
        tokens.has_seen(1).await;
        gate.open();
        for attempt in attempts {
            assert_eq!(gist(&attempt.await.expect("no panic")), expected);
        }
        assert_eq!(tokens.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_attempt_that_gives_up_takes_the_token_from_nobody() {
    let gate = Gate::closed();
    let (tokens, receiver) = (gated(&gate, token("t1", 3600)).await, Server::always(answer(200, "", "")).await);
    let (transport, auth) = (transport(), auth(&tokens));

    let mut hasty = with(&auth, &receiver.url("/"));
    hasty.timeout = Duration::from_millis(50);
    let report = transport.attempt(hasty).await;
    assert_eq!(gist(&report), AUTH_FAILED, "{report:?}");

    let dropped = tokio::spawn({
        let (transport, request) = (transport.clone(), with(&auth, &receiver.url("/")));
        async move { transport.attempt(request).await }
    });
    tokio::task::yield_now().await;
    dropped.abort();
    assert!(dropped.await.expect_err("aborted").is_cancelled());

    gate.open();
    let report = transport.attempt(with(&auth, &receiver.url("/"))).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
    assert_eq!((tokens.seen().len(), receiver.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_token_endpoint_that_hangs_is_given_up() {
    let tokens = gated(&Gate::closed(), token("t1", 3600)).await;
    let limits = TransportLimits { token_timeout: Duration::from_millis(50), ..TransportLimits::default() };
    let transport = Transport::new(loopback_policy(), &limits);
    for fetches in 1..=2 {
        let report = transport.attempt(with(&auth(&tokens), &tokens.url("/receiver"))).await;
        assert_eq!(gist(&report), AUTH_FAILED, "{report:?}");
        assert_eq!(tokens.seen().len(), fetches);
    }
}
