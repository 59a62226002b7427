//! The wire itself: connections that speak slowly, frames that are too large, streams that are opened to be reset,
//! header values with line breaks.

use std::time::Duration;

use punchline_proto::v1;
use punchline_tests::api::Refused;
use punchline_tests::http;
use punchline_tests::server::Server;
use punchline_tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// What a client may take for its first bytes is 10 s; and machines are shared.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
/// The beginning of an HTTP/2 connection, with empty SETTINGS.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Sends a byte of `bytes` every half second, from the beginning again, until the server hangs up; gives how long
/// that took.
async fn drip(address: String, bytes: &'static [u8]) -> Duration {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let begun = tokio::time::Instant::now();
    let mut left = bytes.iter();
    let mut buffer = [0; 1024];
    while begun.elapsed() < 4 * ENDED_WITHIN {
        if let Some(byte) = left.next()
            && stream.write_all(&[*byte]).await.is_err()
        {
            return begun.elapsed();
        }
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut buffer)).await {
            return begun.elapsed();
        }
    }
    panic!("{:?} was let in for ever", String::from_utf8_lossy(bytes));
}

#[tokio::test]
async fn who_speaks_slowly_is_hung_up_on() {
    let server = Server::start().await;
    let (grpc, http) = (server.grpc_address(), server.http_address());
    let drips = [
        (&grpc, &b""[..]),
        (&grpc, &PREFACE[..20]),
        (&grpc, b"GET / HTTP/1.1\r\n"),
        (&http, b""),
        (&http, b"P"),
        (&http, &PREFACE[..20]),
        (&http, b"POST /v1/facts"),
    ];
    let all = drips.map(|(address, bytes)| tokio::spawn(drip(address.clone(), bytes)));
    for ended in all {
        let took = ended.await.expect("it is ended");
        assert!(took < ENDED_WITHIN, "{took:?}");
    }
    // A body that does not come: the head was in time.
    let begun = tokio::time::Instant::now();
    let head = b"POST /v1/track HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nauthorization: Basic eDo=\r\n\r\n{";
    let mut stream = TcpStream::connect(&http).await.expect("listens");
    stream.write_all(head).await.expect("written");
    let mut answer = Vec::new();
    drop(tokio::time::timeout(4 * ENDED_WITHIN, stream.read_to_end(&mut answer)).await.expect("it is ended"));
    assert!(begun.elapsed() < ENDED_WITHIN, "{:?}", begun.elapsed());
    server.operator().head().await;
    assert_eq!(http::get(&http, "/readyz").await.status, 200);
}

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The head of a call, by HPACK without the table: POST, http, path, authority, content-type, te.
pub(crate) fn head() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let path = b"/punchline.v1.AdminService/GetStatus";
    block.extend([0x04, path.len() as u8]);
    block.extend(path);
    block.extend([0x01, 1, b'x']);
    let content_type = b"application/grpc";
    // Index 31 with 4 bits of prefix: 15, then 16.
    block.extend([0x0f, 16, content_type.len() as u8]);
    block.extend(content_type);
    block.extend([0x00, 2, b't', b'e', 8]);
    block.extend(b"trailers");
    block
}

/// Writes until the server hangs up, reading meanwhile; gives what it said, or nothing where it took all.
async fn until_hung_up(address: &str, parts: impl Iterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let (mut reader, mut writer) = stream.into_split();
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), reader.read_to_end(&mut said)).await;
        read.is_ok().then_some(said)
    });
    for part in parts {
        if writer.write_all(&part).await.is_err() {
            break;
        }
    }
    let said = said.await.expect("read");
    drop(writer);
    said
}

/// The error code of the GOAWAY in what was said.
fn goaway(said: &[u8]) -> Option<u32> {
    let mut rest = said;
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let payload = rest.get(9..9 + length)?;
        if rest[3] == 7 {
            return Some(u32::from_be_bytes(payload[4..8].try_into().expect("8 bytes")));
        }
        rest = &rest[9 + length..];
    }
    None
}

#[tokio::test]
async fn streams_that_are_opened_to_be_reset_end_the_connection() {
    const RESETS: u32 = 20_000;
    let server = Server::start().await;
    server.operator().head().await;
    let before = server.resident_bytes();
    let block = head();
    let pairs = (0..RESETS).map(|n| {
        let stream = 2 * n + 1;
        // HEADERS that end both themselves and the stream; RST_STREAM with CANCEL.
        [frame(1, 0x05, stream, &block), frame(3, 0, stream, &8u32.to_be_bytes())].concat()
    });
    let said = until_hung_up(&server.grpc_address(), std::iter::once(PREFACE.to_vec()).chain(pairs)).await;
    let said = said.expect("the server does not put up with it");
    // ENHANCE_YOUR_CALM; a connection that is reset outright may lose it.
    assert!(matches!(goaway(&said), Some(11) | None), "{:?}", goaway(&said));
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "it grew by {grown}");
    server.operator().head().await;
}

#[tokio::test]
async fn frames_that_are_too_large_are_refused() {
    let server = Server::start().await;
    // 16 MiB announced where 16 KiB are agreed; a header block that never ends.
    let mut huge = vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1];
    huge.extend([0; 64]);
    let endless = std::iter::once(frame(1, 0, 1, &head())).chain((0..2_000).map(|_| frame(9, 0, 1, &[0x40; 16_000])));
    let first = || std::iter::once(PREFACE.to_vec());
    let said = until_hung_up(&server.grpc_address(), first().chain([huge])).await.expect("refused");
    // FRAME_SIZE_ERROR.
    assert!(matches!(goaway(&said), Some(6) | None), "{:?}", goaway(&said));
    until_hung_up(&server.grpc_address(), first().chain(endless)).await.expect("refused");
    let before = server.resident_bytes();
    server.operator().head().await;
    assert!(before < 400 << 20, "{before}");
}

#[tokio::test]
async fn header_values_stay_one_line() {
    let world = World::start(Server::setup()).await;
    let head = world.api.head().await;
    for (name, value) in [
        ("x-one", "a\r\nevil: 1"),
        ("x-one", "a\nevil: 1"),
        ("x-one", "a\0b"),
        ("x-one\r\nevil", "1"),
        ("x one", "1"),
        ("x:one", "1"),
        ("", "1"),
        ("host", "elsewhere"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("webhook-signature", "v1,forged"),
        ("webhook-id", "mine"),
        ("authorization", "Bearer x\r\nevil: 1"),
    ] {
        let subscription = v1::Subscription {
            url: world.receiver.url("/a"),
            event_types: vec!["*".into()],
            headers: [(name.to_owned(), value.to_owned())].into(),
            ..Default::default()
        };
        let request = v1::CreateSubscriptionRequest { subscription: Some(subscription), ..Default::default() };
        let refused = world.api.subscriptions().create_subscription(request).await.expect_err("no such header");
        let refused = Refused::of(&refused);
        assert_eq!(refused.code, Code::InvalidArgument, "{name:?}: {value:?}: {refused:?}");
        assert!(!refused.message.contains("evil: 1"), "its value is a secret: {refused:?}");
    }
    for request_id in ["a\r\nb", "a\nb", "\0"] {
        let request =
            v1::CreateAdvertiserRequest { name: "x".into(), request_id: request_id.into(), ..Default::default() };
        let refused = world.api.admin().create_advertiser(request).await.expect_err("a line break");
        assert_eq!(Refused::of(&refused).field, "request_id");
    }
    assert_eq!(world.api.head().await, head, "nothing was written");
}
