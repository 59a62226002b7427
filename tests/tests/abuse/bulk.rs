//! Too much of it: ten thousand connections, and small messages that become large ones.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use punchline_proto::v1;
use punchline_tests::api::Refused;
use punchline_tests::http;
use punchline_tests::server::Server;
use punchline_tests::world::World;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::wire::{PREFACE, frame, head};

const CONNECTIONS: usize = 10_000;
/// Of the server, for each of them while it is open and has nothing under way.
const CONNECTION_BYTES_MAX: u64 = 48 << 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// As many descriptors as this process may have; false: that is too few for the test.
fn has_descriptors() -> bool {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("its own limit");
    limit.maximum.is_none_or(|maximum| maximum > CONNECTIONS as u64 + 1_000)
}

/// Opens them all, says `request` on each, and waits until each is answered; they stay open.
async fn crowd(address: &str, request: &[u8], is_answered: fn(&[u8]) -> bool) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        stream.write_all(request).await.expect("there is room for a request");
        streams.push(stream);
    }
    let answered = async {
        for (n, stream) in streams.iter_mut().enumerate() {
            let mut said = Vec::new();
            while !is_answered(&said) {
                let read = stream.read_buf(&mut said).await.unwrap_or_else(|e| panic!("connection {n}: {e}"));
                assert!(read > 0, "connection {n} was closed after {said:?}");
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("every connection is answered");
    streams
}

/// Whether there is a frame of HEADERS in what was said.
fn has_headers(mut said: &[u8]) -> bool {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = said {
        if *kind == 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        said = rest.get(length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn ten_thousand_connections_are_answered_and_let_others_in() {
    if !has_descriptors() {
        eprintln!("SKIPPED: this process may not have {CONNECTIONS} descriptors (ulimit -Hn)");
        return;
    }
    let server = Server::start().await;
    server.operator().head().await;
    let call = [PREFACE.to_vec(), frame(1, 0x05, 1, &head())].concat();
    let get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    let is_answer: fn(&[u8]) -> bool = |said| said.starts_with(b"HTTP/1.1 200");
    for (address, request, is_answered) in
        [(server.grpc_address(), call, has_headers as fn(&[u8]) -> bool), (server.http_address(), get, is_answer)]
    {
        let before = server.resident_bytes();
        let open = crowd(&address, &request, is_answered).await;
        let each = server.resident_bytes().saturating_sub(before) / CONNECTIONS as u64;
        println!("bulk: {each} bytes for a connection to {address}");
        assert!(each < CONNECTION_BYTES_MAX, "{each}");
        // Whoever comes now, on a connection of its own, is served too.
        server.operator().head().await;
        assert_eq!(http::get(&server.http_address(), "/readyz").await.status, 200);
        drop(open);
    }
}

#[tokio::test]
async fn what_is_small_only_while_compressed_is_refused() {
    let world = World::start(Server::setup()).await;
    let head = world.api.head().await;
    let before = world.server.resident_bytes();
    // 48 MiB in some 48 KiB, over gRPC.
    for _ in 0..20 {
        let request = v1::CreateAdvertiserRequest { name: "x".repeat(48 << 20), ..Default::default() };
        let mut client = world.api.admin().send_compressed(CompressionEncoding::Gzip);
        let refused = client.create_advertiser(request).await.expect_err("too large");
        let refused = Refused::of(&refused);
        assert_eq!((refused.code, refused.reason.as_str()), (Code::OutOfRange, "MESSAGE_TOO_LARGE"), "{refused:?}");
    }
    // Within what the routes take while it is compressed: 400 MiB in a batch, 24 in a message.
    let headers = [("content-encoding", "gzip"), ("content-type", "application/json")];
    for (path, mebibytes, bytes_max) in [("/v1/batch", 400, 500 << 10), ("/v1/track", 24, 32 << 10)] {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        let blanks = vec![b' '; 1 << 20];
        (0..mebibytes).for_each(|_| bomb.write_all(&blanks).expect("into memory"));
        let bomb = bomb.finish().expect("into memory");
        assert!(bomb.len() < bytes_max, "{path}: {}", bomb.len());
        let refused = http::post(&world.server.http_address(), path, &headers, bomb).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "REQUEST_TOO_LARGE"), "{path}: {refused:?}");
    }
    let grown = world.server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "it grew by {grown}");
    assert_eq!(world.api.head().await, head, "nothing was written");
}
