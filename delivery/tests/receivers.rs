//! Receivers that steer delivery, and receivers that misbehave.

mod support;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use punchline_delivery::auth::{Auth, BasicAuth};
use punchline_delivery::headers::StaticHeaders;
use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome, PermanentStatuses, SNIPPET_BYTES_MAX};
use punchline_delivery::transport::{Transport, TransportConfig, TransportLimits};
use support::{Answer, ScriptedLookup, Server, answer, loopback_policy, request, transport};

fn gist(report: &AttemptReport) -> (Outcome, Option<u16>, Option<ErrorCode>) {
    (report.outcome, report.status, report.error)
}

#[tokio::test]
async fn webhook_delivery_is_obeyed() {
    use Outcome::{AbortedByReceiver, Delivered, Gone, Refused, Retry};
    let cases = [
        (answer(500, "Webhook-Delivery: disable\r\n", ""), Gone, true, None),
        (answer(500, "webhook-delivery: ABORT-MESSAGE\r\n", ""), AbortedByReceiver, false, None),
        (answer(429, "webhook-delivery: abort-message\r\nretry-after: 5\r\n", ""), AbortedByReceiver, false, None),
        (answer(200, "webhook-delivery: abort-message\r\n", ""), Delivered, false, None),
        (answer(200, "webhook-delivery: disable\r\n", ""), Delivered, true, None),
        (answer(410, "", ""), Gone, true, None),
        (answer(422, "webhook-delivery: abort-message\r\n", ""), Refused, false, None),
        (answer(422, "webhook-delivery: disable\r\n", ""), Gone, true, None),
        (answer(429, "webhook-delivery: something\r\nretry-after: 5\r\n", ""), Retry, false, Some(5_000)),
        // A yes that was cut off is none; that it wants nothing more was said in full.
        (
            Answer::Close(b"HTTP/1.1 200 OK\r\nwebhook-delivery: disable\r\ncontent-length: 9\r\n\r\nx".to_vec()),
            Gone,
            true,
            None,
        ),
    ];
    let permanent = Arc::new(PermanentStatuses::new([422]).expect("valid"));
    for (answer, outcome, disables, retry_after_ms) in cases {
        let receiver = Server::always(answer.clone()).await;
        let mut request = request(&receiver.url("/"));
        request.permanent_statuses = Arc::clone(&permanent);
        let report = transport().attempt(request).await;
        let got = (report.outcome, report.asks_to_disable, report.retry_after_ms);
        assert_eq!(got, (outcome, disables, retry_after_ms), "{answer:?}: {report:?}");
    }
}

#[tokio::test]
async fn a_dialects_headers_replace_none_of_ours() {
    let receiver = Server::always(answer(200, "", "")).await;
    let auth: Arc<Auth> = Arc::new(BasicAuth::new("me", "pass").expect("valid").into());
    let custom = [("x-jericommerce-hmac-sha256", "custom"), ("x-own", "custom")];
    let plain = {
        let mut request = request(&receiver.url("/"));
        request.headers = StaticHeaders::new(custom, Some(&*auth)).expect("valid");
        request.auth = Some(Arc::clone(&auth));
        request
    };
    let mut dressed = plain.clone();
    let names = [
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "webhook-anything",
        "punchline-attempt",
        "punchline-sequence",
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "user-agent",
        "authorization",
        "proxy-authorization",
        "x-forwarded-for",
        "metadata-flavor",
        "expect",
    ];
    let pair = |name: &'static str| (HeaderName::from_static(name), HeaderValue::from_static("theirs"));
    dressed.extra_headers = names.map(pair).to_vec();
    dressed.extra_headers.extend(["x-jericommerce-hmac-sha256", "ce-id"].map(pair));
    for request in [plain, dressed] {
        let report = transport().attempt(request).await;
        assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
    }
    let [plain, dressed] = &receiver.seen()[..] else { panic!("two requests") };
    assert_eq!(dressed.header("x-jericommerce-hmac-sha256"), Some("theirs"), "the dialect's before the subscription's");
    assert_eq!(dressed.header("ce-id"), Some("theirs"));
    let others = |head: &[String]| {
        let mut lines: Vec<String> =
            head.iter().filter(|line| !line.contains("x-jeri") && !line.contains("ce-id")).cloned().collect();
        lines.sort();
        lines
    };
    assert_eq!(others(&dressed.head), others(&plain.head));
    assert!(!dressed.head.iter().any(|line| line.starts_with("webhook-anything") || line.starts_with("x-forwarded")));
}

#[tokio::test]
async fn connections_that_end_badly_are_tried_again() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab";
    let cases = [
        (Answer::Reset(format!("{head}part").into_bytes()), Some(200), ErrorCode::Body),
        (Answer::Close(chunked.into()), Some(200), ErrorCode::Body),
        (Answer::Close(format!("{}zz\r\n", &chunked[..chunked.len() - 5]).into_bytes()), Some(200), ErrorCode::Body),
        (Answer::Reset(Vec::new()), None, ErrorCode::Closed),
        (Answer::Close(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), None, ErrorCode::Closed),
    ];
    for (answer, status, error) in cases {
        let receiver = Server::always(answer.clone()).await;
        let report = transport().attempt(request(&receiver.url("/"))).await;
        // A reset may overtake the head that was written before it.
        let overtaken = (Outcome::Retry, None, Some(ErrorCode::Closed));
        let got = gist(&report);
        let is_reset = matches!(answer, Answer::Reset(_));
        assert!(
            got == (Outcome::Retry, status, Some(error)) || (is_reset && got == overtaken),
            "{answer:?}: {report:?}"
        );
        assert_eq!(receiver.seen().len(), 1, "one attempt in, one request out");
    }
}

#[tokio::test]
async fn redirects_are_answers() {
    let elsewhere = Server::always(answer(200, "", "")).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}\r\n", elsewhere.url("/"));
        let receiver = Server::always(answer(status, &location, "")).await;
        let report = transport().attempt(request(&receiver.url("/"))).await;
        assert_eq!(gist(&report), (Outcome::Retry, Some(status), None));
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn bodies_without_end_are_not_waited_for() {
    let mut endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..1000 {
        endless.extend(format!("400\r\n{}\r\n", "x".repeat(0x400)).into_bytes());
    }
    let receiver = Server::always(Answer::Keep(endless)).await; // and the last chunk never comes
    let report = transport().attempt(request(&receiver.url("/"))).await;
    assert_eq!(gist(&report), (Outcome::Delivered, Some(200), None), "{report:?}");
    assert_eq!(report.response_snippet.len(), SNIPPET_BYTES_MAX);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_gains_nothing() {
    // Each connection is closed, so that each attempt makes one.
    let receiver =
        Server::always(Answer::Close(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec()))
            .await;
    let lookup =
        ScriptedLookup::new(&[&["127.0.0.1"], &["10.0.0.1"], &["127.0.0.1", "169.254.169.254"], &[], &["127.0.0.1"]]);
    let config = TransportConfig { lookup: lookup.clone(), ..TransportConfig::new(loopback_policy()) };
    let transport = Transport::from_config(config);
    let url = receiver.named_url("rebinding.test", "/");
    let expected = [
        // What was checked is what is connected to: there is no second lookup to answer differently.
        (1, (Outcome::Delivered, Some(200), None)),
        (2, (Outcome::Refused, None, Some(ErrorCode::AddressRefused))),
        (3, (Outcome::Refused, None, Some(ErrorCode::AddressRefused))),
        (4, (Outcome::Retry, None, Some(ErrorCode::Dns))),
        (5, (Outcome::Delivered, Some(200), None)),
    ];
    for (lookups, expected) in expected {
        let report = transport.attempt(request(&url)).await;
        assert_eq!((lookup.asked().len(), gist(&report)), (lookups, expected), "{report:?}");
    }
    assert_eq!((receiver.seen().len(), receiver.connections()), (2, 2));
}

#[tokio::test]
async fn unused_connections_are_closed_once_there_are_too_many() {
    for (connections_max, of_the_first) in [(3, 1), (2, 2)] {
        let limits = TransportLimits { connections_max, ..TransportLimits::default() };
        let config = TransportConfig { limits, ..TransportConfig::new(loopback_policy()) };
        let transport = Transport::from_config(config);
        let ok = || Server::always(answer(200, "", ""));
        let receivers = [ok().await, ok().await, ok().await];
        for receiver in receivers.iter().chain(&receivers[..1]) {
            let report = transport.attempt(request(&receiver.url("/"))).await;
            assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
        }
        assert_eq!(receivers[0].connections(), of_the_first, "with {connections_max} allowed");
    }
}
