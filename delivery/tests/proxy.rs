//! The egress proxy: everything goes through it, and what may not be called does not reach it.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome};
use punchline_delivery::proxy::EgressProxy;
use punchline_delivery::transport::{Transport, TransportConfig};
use support::{ScriptedLookup, Server, answer, certified, loopback_policy, request, roots, tls_config};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A public address, which nothing here connects to.
const PUBLIC: &str = "93.184.216.34";

/// Tunnels to this machine whatever name it is asked for, or answers with `refusal`.
struct ConnectProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

impl ConnectProxy {
    async fn start(refusal: Option<&'static str>) -> ConnectProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let proxy = ConnectProxy { address: listener.local_addr().expect("bound"), asked: Arc::default() };
        let asked = Arc::clone(&proxy.asked);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("accept");
                tokio::spawn(tunnel(client, Arc::clone(&asked), refusal));
            }
        });
        proxy
    }

    fn asked(&self) -> Vec<Vec<String>> {
        self.asked.lock().expect("no panic").clone()
    }

    fn transport(&self, own: Option<&support::Certified>, lookup: &Arc<ScriptedLookup>) -> Transport {
        let proxy = EgressProxy::parse(&format!("http://me:s3cret@{}", self.address)).expect("valid");
        Transport::from_config(TransportConfig {
            proxy: Some(proxy),
            roots: roots(own),
            lookup: lookup.clone(),
            ..TransportConfig::new(loopback_policy())
        })
    }
}

async fn tunnel(client: TcpStream, asked: Arc<Mutex<Vec<Vec<String>>>>, refusal: Option<&'static str>) {
    let mut client = BufReader::new(client);
    let Some(head) = support::read_request(&mut client).await else {
        return;
    };
    let port = head.head[0].split([' ', ':']).nth(2).expect("CONNECT name:port").parse::<u16>();
    asked.lock().expect("no panic").push(head.head);
    if let Some(refusal) = refusal {
        let _ = client.write_all(refusal.as_bytes()).await;
        return;
    }
    let mut receiver = TcpStream::connect(("127.0.0.1", port.expect("port"))).await.expect("receiver");
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("client");
    let _ = tokio::io::copy_bidirectional(&mut client, &mut receiver).await;
}

fn gist(report: &AttemptReport) -> (Outcome, Option<u16>, Option<ErrorCode>) {
    (report.outcome, report.status, report.error)
}

#[tokio::test]
async fn http_and_https_are_tunnelled_alike() {
    let own = certified("receiver.test");
    let https = Server::start_tls(tls_config(&own, &[]), |_| Box::pin(async { answer(200, "", "") })).await;
    let http = Server::always(answer(200, "", "")).await;
    for server in [&https, &http] {
        let (proxy, lookup) = (ConnectProxy::start(None).await, ScriptedLookup::new(&[&[PUBLIC]]));
        let transport = proxy.transport(Some(&own), &lookup);
        for _ in 0..2 {
            let report = transport.attempt(request(&server.named_url("receiver.test", "/hook"))).await;
            assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
        }
        // One tunnel for both, asked for by name, after the name was checked here.
        let port = server.address.port();
        assert_eq!(lookup.asked(), ["receiver.test"]);
        let asked = [
            format!("CONNECT receiver.test:{port} HTTP/1.1"),
            format!("host: receiver.test:{port}"),
            "proxy-authorization: Basic bWU6czNjcmV0".to_owned(),
        ];
        assert_eq!(proxy.asked(), [asked]);
        // The receiver sees an ordinary request.
        let seen = &server.seen()[0];
        assert_eq!(seen.head[0], "POST /hook HTTP/1.1");
        assert_eq!(seen.header("proxy-authorization"), None);
    }
}

#[tokio::test]
async fn the_guard_stands_before_the_proxy() {
    let receiver = Server::always(answer(200, "", "")).await;
    let (proxy, lookup) =
        (ConnectProxy::start(None).await, ScriptedLookup::new(&[&["10.0.0.1"], &[PUBLIC, "10.0.0.1"]]));
    let transport = proxy.transport(None, &lookup);
    let literal = support::endpoint(&receiver.url("/"));
    for url in ["http://receiver.test/", "https://receiver.test/"] {
        let report = transport.attempt(request(url)).await;
        assert_eq!(gist(&report), (Outcome::Refused, None, Some(ErrorCode::AddressRefused)), "{report:?}");
    }
    // A literal address that the policy no longer allows.
    let strict = Transport::from_config(TransportConfig {
        proxy: Some(EgressProxy::parse(&format!("http://{}", proxy.address)).expect("valid")),
        ..TransportConfig::new(punchline_delivery::endpoint::EndpointPolicy {
            allow_http: true,
            allow_private: Vec::new(),
        })
    });
    let mut by_address = request("http://127.0.0.1/");
    by_address.endpoint = literal;
    let report = strict.attempt(by_address).await;
    assert_eq!(report.error, Some(ErrorCode::AddressRefused), "{report:?}");

    assert!(proxy.asked().is_empty() && receiver.seen().is_empty());
    let report = transport.attempt(request(&receiver.url("/"))).await;
    assert_eq!(report.outcome, Outcome::Delivered, "an allowed literal address: {report:?}");
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn the_proxys_refusals_are_the_proxys() {
    let cases = [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "status 407"),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", "status 403"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "status 502"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "did not answer as one"),
        ("", "broke"),
    ];
    for (refusal, expected) in cases {
        let (proxy, lookup) = (ConnectProxy::start(Some(refusal)).await, ScriptedLookup::new(&[&[PUBLIC]]));
        for url in ["http://receiver.test/", "https://receiver.test/"] {
            let report = proxy.transport(None, &lookup).attempt(request(url)).await;
            assert_eq!(gist(&report), (Outcome::Retry, None, Some(ErrorCode::Proxy)), "{report:?}");
            let detail = report.error_detail.expect("says why");
            assert!(detail.contains(expected) && !detail.contains("s3cret"), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_not_gone_around() {
    let receiver = Server::always(answer(200, "", "")).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("free port").local_addr().expect("bound");
    let proxy = ConnectProxy { address: nobody, asked: Arc::default() };
    let report = proxy.transport(None, &ScriptedLookup::new(&[&[PUBLIC]])).attempt(request(&receiver.url("/"))).await;
    assert_eq!(gist(&report), (Outcome::Retry, None, Some(ErrorCode::Proxy)), "{report:?}");
    assert!(receiver.seen().is_empty());
}
