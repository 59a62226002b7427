//! The transport over TLS: delivered to whom the roots trust, and to nobody else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use punchline_delivery::courier::{APPLICATION_JSON, AttemptRequest};
use punchline_delivery::endpoint::{Endpoint, EndpointPolicy};
use punchline_delivery::headers::StaticHeaders;
use punchline_delivery::outcome::{ErrorCode, Outcome};
use punchline_delivery::transport::{Transport, TransportLimits};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn certificates_are_checked() {
    let (port, certificate) = receiver().await;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("valid root");
    let limits = TransportLimits::default();
    let trusting = Transport::with_roots(policy(), &limits, roots);
    let public = Transport::new(policy(), &limits);

    let named = format!("https://localhost:{port}/");
    let report = trusting.attempt(request(&named)).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");

    let unknown_authority = public.attempt(request(&named)).await;
    let other_name = format!("https://127.0.0.1:{port}/");
    let other_name = trusting.attempt(request(&other_name)).await;
    for report in [unknown_authority, other_name] {
        assert_eq!(report.error, Some(ErrorCode::Tls), "{report:?}");
        assert_eq!(report.outcome, Outcome::Retry);
    }
}

/// Answers 200 as `localhost`; returns its port and its self-signed certificate.
async fn receiver() -> (u16, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("default versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key))
        .expect("key fits");
    let acceptor = TlsAcceptor::from(Arc::new(config));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("accept");
            let Ok(mut stream) = acceptor.accept(socket).await else {
                continue; // the client did not trust us
            };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    (port, certificate)
}

fn policy() -> EndpointPolicy {
    EndpointPolicy {
        allow_http: false,
        allow_private: ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("network")).to_vec(),
    }
}

fn request(url: &str) -> AttemptRequest {
    AttemptRequest {
        endpoint: Arc::new(Endpoint::parse(url, &policy()).expect("allowed")),
        headers: StaticHeaders::default(),
        permanent_statuses: Arc::default(),
        webhook_id: "msg_1".to_owned(),
        timestamp_unix_s: 0,
        signature: None,
        attempt: 1,
        sequence: 1,
        content_type: APPLICATION_JSON,
        body: Bytes::from_static(b"{}"),
        timeout: Duration::from_secs(10),
    }
}
