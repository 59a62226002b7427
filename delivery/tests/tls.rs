//! The transport over TLS: delivered to whom the roots trust, and to nobody else; and as whom.

mod support;

use std::sync::Arc;

use punchline_delivery::courier::AttemptRequest;
use punchline_delivery::identity::ClientIdentity;
use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome};
use punchline_delivery::transport::{Transport, TransportConfig, TransportLimits};
use support::{Answering, Certified, Seen, Server, answer, certified, loopback_policy, request, roots, tls_config};

fn ok(_: Seen) -> Answering {
    Box::pin(async { answer(200, "", "") })
}

fn trusting(server: &Certified, limits: TransportLimits) -> Transport {
    let roots = roots([server]);
    Transport::from_config(TransportConfig { roots, limits, ..TransportConfig::new(loopback_policy()) })
}

#[tokio::test]
async fn certificates_are_checked() {
    let own = certified("localhost");
    let server = Server::start_tls(tls_config(&own, &[]), ok).await;
    let trusting = trusting(&own, TransportLimits::default());

    let named = server.named_url("localhost", "/");
    let report = trusting.attempt(request(&named)).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");

    let unknown_authority = support::transport().attempt(request(&named)).await;
    let other_name = trusting.attempt(request(&server.url("/"))).await;
    for report in [unknown_authority, other_name] {
        assert_eq!(report.error, Some(ErrorCode::Tls), "{report:?}");
        assert_eq!(report.outcome, Outcome::Retry);
    }
    assert_eq!(server.seen().len(), 1);
}

fn identity(of: &Certified) -> Arc<ClientIdentity> {
    let identity = ClientIdentity::from_pem(of.certificate_pem.as_bytes(), of.key_pem.as_bytes());
    Arc::new(identity.expect("valid"))
}

async fn attempt_as(transport: &Transport, url: &str, identity: Option<&Arc<ClientIdentity>>) -> AttemptReport {
    transport.attempt(AttemptRequest { identity: identity.cloned(), ..request(url) }).await
}

#[tokio::test]
async fn receivers_that_ask_for_a_certificate_get_it() {
    let (own, ours, stranger) = (certified("localhost"), certified("client"), certified("client"));
    let server = Server::start_tls(tls_config(&own, &[&ours]), ok).await;
    let transport = trusting(&own, TransportLimits::default());
    let url = server.named_url("localhost", "/");

    let report = attempt_as(&transport, &url, Some(&identity(&ours))).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
    assert_eq!(server.seen()[0].certificate, Some(ours.certificate.clone()));

    for refused in [None, Some(&identity(&stranger))] {
        let report = attempt_as(&transport, &url, refused).await;
        // Within TLS 1.3 the refusal comes after the handshake; a reset may overtake the alert.
        assert!(matches!(report.error, Some(ErrorCode::Tls | ErrorCode::Closed)), "{report:?}");
        assert_eq!(report.outcome, Outcome::Retry);
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn identities_never_share_a_connection() {
    let (own, a, b) = (certified("localhost"), certified("a"), certified("b"));
    let server = Server::start_tls(tls_config(&own, &[&a, &b]), ok).await;
    let transport = trusting(&own, TransportLimits::default());
    let url = server.named_url("localhost", "/");
    // The same PEM parsed again is the same identity.
    let identities = [identity(&a), identity(&b), identity(&a), identity(&b), identity(&a)];
    for identity in &identities {
        let report = attempt_as(&transport, &url, Some(identity)).await;
        assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
    }
    let who: Vec<_> = server.seen().into_iter().map(|seen| (seen.connection, seen.certificate)).collect();
    let (a, b) = (Some(a.certificate), Some(b.certificate));
    assert_eq!(who, [(0, a.clone()), (1, b.clone()), (0, a.clone()), (1, b), (0, a)]);
}

#[tokio::test]
async fn pools_of_identities_are_bounded_and_resume_nobody_elses_session() {
    let (own, a, b) = (certified("localhost"), certified("a"), certified("b"));
    let server = Server::start_tls(tls_config(&own, &[&a, &b]), ok).await;
    let transport = trusting(&own, TransportLimits { identities_max: 1, ..TransportLimits::default() });
    let url = server.named_url("localhost", "/");
    for (connection, who) in [&a, &b, &a, &a].into_iter().enumerate() {
        let report = attempt_as(&transport, &url, Some(&identity(who))).await;
        assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
        let seen = server.seen().pop().expect("seen");
        // Each change of identity pushes the other one out; the last attempt finds its connection.
        assert_eq!(seen.connection, connection.min(2));
        assert_eq!(seen.certificate, Some(who.certificate.clone()));
    }
}
