//! Bad input, on both doors: a clear refusal that names what is wrong, and nothing has changed (issue 2, "Proof").
//!
//! The tables say what each input is answered; [`Untouched`] holds the journal's head and the member's
//! balances against what they were before.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use punchline_proto::v1;
use punchline_tests::api::{Refused, consumption, identifier, outcome};
use punchline_tests::http;
use punchline_tests::server::Server;
use punchline_tests::world::{PHONE, World};
use tonic::{Code, Status};

/// What must not change.
struct Untouched<'a> {
    world: &'a World,
    head: u64,
    balances: BTreeMap<String, i64>,
    punchcards: BTreeMap<String, (u64, u64)>,
}

impl Untouched<'_> {
    async fn by(world: &World) -> Untouched<'_> {
        // Something is there that could be damaged.
        let lines = [("coffee_small", 3), ("can_yuzu", 2)];
        world.api.record(consumption("the-good-one", PHONE, &lines)).await.expect("accepted");
        Untouched {
            world,
            head: world.api.head().await,
            balances: world.api.balances(&world.member_id).await,
            punchcards: world.api.punchcards(&world.member_id).await,
        }
    }

    async fn check(&self, after: &str) {
        let World { api, member_id, .. } = self.world;
        assert_eq!(api.head().await, self.head, "the journal grew by {after}");
        assert_eq!(api.balances(member_id).await, self.balances, "balances after {after}");
        assert_eq!(api.punchcards(member_id).await, self.punchcards, "punchcards after {after}");
    }
}

/// A consumption of which one thing is wrong.
fn bad(spoil: impl FnOnce(&mut v1::Consumption)) -> v1::Consumption {
    let mut one = consumption("bad", PHONE, &[("coffee_small", 1)]);
    spoil(&mut one);
    one
}

/// A field of HTTP's JSON, as the proto files have it; `at` is where the consumption stands.
fn in_proto(at: &str, field: &str) -> String {
    let names = [
        ("consumptionId", "consumption_id"),
        ("consumptionDate", "consumption_date"),
        ("consumptionLines", "lines"),
        ("productName", "product_name"),
    ];
    let renamed = names.iter().fold(field.to_owned(), |field, (json, proto)| field.replace(json, proto));
    format!("{at}.{renamed}")
}

/// What is wrong, the consumption, and the reason and field of the refusal; the field as HTTP calls it.
type Row = (String, v1::Consumption, &'static str, &'static str);

fn bad_consumptions() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |what: String, one, reason, field| rows.push((what, one, reason, field));
    let long = |n: usize| "x".repeat(n);

    for (id, reason) in [
        (String::new(), "CONSUMPTION_ID_REQUIRED"),
        ("   ".into(), "CONSUMPTION_ID_REQUIRED"),
        (long(129), "INVALID_FIELD"),
        (long(1_000_000), "INVALID_FIELD"),
        ("a\nb".into(), "INVALID_FIELD"),
        ("a\0b".into(), "INVALID_FIELD"),
        ("a\u{7f}".into(), "INVALID_FIELD"),
    ] {
        row(format!("id {id:.20?}"), bad(|c| c.consumption_id = id), reason, "consumptionId");
    }
    for date in [
        "",
        "yesterday",
        "1757939640",
        "2026-09-15",
        "2026-02-30T00:00:00Z",
        "20261315T12:34:00Z",
        "20260915T25:00:00Z",
        "20260915T12:34:00",
        "20260915T12:34:00Z ; drop table",
        "2100-01-01T00:00:00Z",
        "-9999-01-01T00:00:00Z",
        "\u{0}",
        "２０２６0915T12:34:00Z",
    ] {
        let one = bad(|c| c.consumption_date = date.into());
        row(format!("date {date:?}"), one, "INVALID_CONSUMPTION_DATE", "consumptionDate");
    }
    row(
        "a long date".into(),
        bad(|c| c.consumption_date = long(1_000_000)),
        "INVALID_CONSUMPTION_DATE",
        "consumptionDate",
    );
    for quantity in
        [0.0, -0.5, -1.0, 0.5, 1.5, 1e-300, 10_001.0, 1e18, 1e300, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]
    {
        let one = bad(|c| c.lines[0].quantity = quantity);
        row(format!("quantity {quantity:e}"), one, "INVALID_QUANTITY", "consumptionLines[0].quantity");
    }
    let second = bad(|c| c.lines.push(v1::ConsumptionLine { sku: "a".into(), quantity: -3.0, ..Default::default() }));
    row("the second quantity".into(), second, "INVALID_QUANTITY", "consumptionLines[1].quantity");

    row("no identifiers".into(), bad(|c| c.identifiers.clear()), "IDENTIFIERS_REQUIRED", "identifiers");
    let many = bad(|c| c.identifiers = vec![identifier("phoneNumber", PHONE); 11]);
    row("11 identifiers".into(), many, "INVALID_FIELD", "identifiers");
    for (key, value, field) in [
        ("loyaltyId", "1", "identifiers[0].key"),
        ("", PHONE, "identifiers[0].key"),
        ("phonenumber", PHONE, "identifiers[0].key"),
        ("phoneNumber", "", "identifiers[0].value"),
        ("phoneNumber", "1234", "identifiers[0].value"),
        ("phoneNumber", "1234567890123456", "identifiers[0].value"),
        ("phoneNumber", "0800-FLOWERS", "identifiers[0].value"),
        ("phoneNumber", "40720\n005123", "identifiers[0].value"),
        ("email", "", "identifiers[0].value"),
        ("email", "nobody", "identifiers[0].value"),
        ("email", "a@b@c", "identifiers[0].value"),
        ("email", "@example.com", "identifiers[0].value"),
        ("email", "a\u{1}b@example.com", "identifiers[0].value"),
    ] {
        let one = bad(|c| c.identifiers = vec![identifier(key, value)]);
        row(format!("identifier {key:?} {value:?}"), one, "INVALID_IDENTIFIER", field);
    }
    let one = bad(|c| c.identifiers = vec![identifier("email", &format!("{}@example.com", long(300)))]);
    row("a long address".into(), one, "INVALID_IDENTIFIER", "identifiers[0].value");

    row("no lines".into(), bad(|c| c.lines.clear()), "CONSUMPTION_LINES_REQUIRED", "consumptionLines");
    let many = bad(|c| c.lines = vec![c.lines[0].clone(); 201]);
    row("201 lines".into(), many, "INVALID_FIELD", "consumptionLines");
    row("no SKU".into(), bad(|c| c.lines[0].sku.clear()), "INVALID_FIELD", "consumptionLines[0].sku");
    row("a long SKU".into(), bad(|c| c.lines[0].sku = long(129)), "INVALID_FIELD", "consumptionLines[0].sku");
    let one = bad(|c| c.lines[0].product_name = long(257));
    row("a long name".into(), one, "INVALID_FIELD", "consumptionLines[0].productName");
    rows
}

#[tokio::test]
async fn bad_consumptions_change_nothing() {
    let world = World::start(Server::setup()).await;
    let untouched = Untouched::by(&world).await;
    let rows = bad_consumptions();
    let check = |way: &str, at: &str, (what, _, reason, field): &Row, refused: Refused| {
        let field = in_proto(at, field);
        let got = (refused.code, refused.reason.as_str(), refused.field.as_str());
        assert_eq!(got, (Code::InvalidArgument, *reason, field.as_str()), "{what}, {way}: {refused:?}");
        // What is missing has Wecheer's own message; what is wrong is named.
        assert!(reason.ends_with("_REQUIRED") || refused.message.contains(&field), "{what}: {}", refused.message);
        assert!(refused.message.len() < 1_000, "{what}: a message is for reading, not {} bytes", refused.message.len());
    };
    for row in &rows {
        let refused = world.api.record(row.1.clone()).await.expect_err(&row.0);
        check("alone", "consumption", row, refused);
        untouched.check(&row.0).await;
    }
    // The same in batches, among repeats that are as harmless.
    for some in rows.chunks(20) {
        let good = consumption("the-good-one", PHONE, &[("coffee_small", 3), ("can_yuzu", 2)]);
        let mixed = some.iter().flat_map(|row| [good.clone(), row.1.clone()]).collect();
        let request = v1::BatchRecordConsumptionsRequest { consumptions: mixed };
        let results =
            world.api.ingest().batch_record_consumptions(request).await.expect("a result for each").into_inner();
        assert_eq!(results.results.len(), 2 * some.len());
        for (i, result) in results.results.into_iter().enumerate() {
            let refused = outcome(result).expect_err("all are refused");
            match i % 2 {
                0 => assert_eq!(refused.reason, "CONSUMPTION_EXISTS"),
                _ => check("in a batch", &format!("consumptions[{i}]"), &some[i / 2], refused),
            }
        }
        untouched.check("a batch").await;
    }
    // And on a stream, which goes on after each.
    let requests = rows.iter().map(|row| v1::StreamConsumptionsRequest { consumption: Some(row.1.clone()) });
    let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
    let mut results = world.api.ingest().stream_consumptions(requests).await.expect("a stream").into_inner();
    for row in &rows {
        let result = results.message().await.expect("the stream goes on").expect("a result for each").result;
        check("on a stream", "consumption", row, outcome(result.expect("a result")).expect_err(&row.0));
    }
    untouched.check("a stream").await;
    // None of it used up its id.
    world.api.record(bad(|_| {})).await.expect("the id `bad` is still free");
}

#[tokio::test]
async fn bad_batches() {
    let world = World::start(Server::setup()).await;
    let untouched = Untouched::by(&world).await;
    let one = |n: usize| consumption(&format!("b{n}"), PHONE, &[("article", 1)]);
    for (what, count, field) in [("an empty batch", 0, "consumptions"), ("1001 items", 1_001, "consumptions")] {
        let request = v1::BatchRecordConsumptionsRequest { consumptions: (0..count).map(one).collect() };
        let status = world.api.ingest().batch_record_consumptions(request).await.expect_err(what);
        let refused = Refused::of(&status);
        assert_eq!((refused.code, refused.field.as_str()), (Code::InvalidArgument, field), "{what}: {refused:?}");
        assert!(!refused.reason.is_empty(), "{what}: {refused:?}");
        untouched.check(what).await;
    }
    let request = v1::RecordConsumptionRequest { consumption: None };
    let refused = Refused::of(&world.api.ingest().record_consumption(request).await.expect_err("no consumption"));
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::InvalidArgument, "REQUEST_BODY_REQUIRED"),
        "{refused:?}"
    );
    untouched.check("no consumption").await;
}

/// A codec that puts any bytes on the wire.
#[derive(Clone, Copy, Default)]
struct AnyBytes;

impl tonic::codec::Codec for AnyBytes {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AnyBytes;
    type Decoder = AnyBytes;

    fn encoder(&mut self) -> AnyBytes {
        AnyBytes
    }

    fn decoder(&mut self) -> AnyBytes {
        AnyBytes
    }
}

impl tonic::codec::Encoder for AnyBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl tonic::codec::Decoder for AnyBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let n = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(n)))
    }
}

/// Sends these bytes as the message of a call, as an operator about the world's advertiser.
async fn call_with_bytes(world: &World, path: &'static str, bytes: Bytes) -> Result<Bytes, Refused> {
    let mut grpc = tonic::client::Grpc::new(world.api.channel());
    grpc.ready().await.expect("the server is there");
    let mut request = tonic::Request::new(bytes);
    let token = format!("Bearer {}", punchline_tests::server::OPERATOR_TOKEN);
    let metadata = request.metadata_mut();
    metadata.insert("authorization", token.parse().expect("ASCII"));
    metadata.insert("punchline-advertiser", world.advertiser_id.parse().expect("digits"));
    let path = http_path(path);
    grpc.unary(request, path, AnyBytes).await.map(tonic::Response::into_inner).map_err(|status| Refused::of(&status))
}

fn http_path(path: &'static str) -> ::http::uri::PathAndQuery {
    ::http::uri::PathAndQuery::from_static(path)
}

const RECORD: &str = "/punchline.v1.IngestService/RecordConsumption";

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

#[tokio::test]
async fn bytes_that_are_no_message() {
    let world = World::start(Server::setup()).await;
    let untouched = Untouched::by(&world).await;
    let whole = v1::RecordConsumptionRequest { consumption: Some(bad(|_| {})) }.encode_to_vec();
    let half = whole[..whole.len() / 2].to_vec();
    let bad_utf8 = field(1, &field(1, b"\xff\xfe\xc0"));
    let wrong_type = field(1, &[1 << 3, 17]);
    let deep = (0..300).fold(Vec::new(), |inner, _| field(1, &inner));
    let huge = field(1, &field(1, &vec![b'x'; 10 << 20]));
    for (what, bytes, code, reason) in [
        ("noise", vec![0xff; 64], Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("half a message", half, Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("bad UTF-8", bad_utf8, Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("a number for a text", wrong_type, Code::InvalidArgument, "MALFORMED_MESSAGE"),
        (
            "a length beyond the end",
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
        ),
        ("groups without end", [0x0b; 4_000].to_vec(), Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("messages in messages", deep, Code::InvalidArgument, "MALFORMED_MESSAGE"),
        ("nothing at all", Vec::new(), Code::InvalidArgument, "REQUEST_BODY_REQUIRED"),
        ("10 MB", huge, Code::OutOfRange, "MESSAGE_TOO_LARGE"),
    ] {
        let refused = call_with_bytes(&world, RECORD, bytes.into()).await.expect_err(what);
        assert_eq!((refused.code, refused.reason.as_str()), (code, reason), "{what}: {refused:?}");
        untouched.check(what).await;
    }
    let refused = call_with_bytes(&world, "/punchline.v1.IngestService/Nothing", Bytes::new()).await;
    assert_eq!(refused.map_err(|r| r.code), Err(Code::Unimplemented), "no such method");
    // Fields of later versions are no fault.
    let mut newer = field(15, b"from the future");
    newer.extend_from_slice(&whole);
    call_with_bytes(&world, RECORD, newer.into()).await.expect("unknown fields are skipped");
}

const GOOD: &str = r#"{"consumptionId":"bad","consumptionDate":"20260915T12:34:00Z","identifiers":[{"key":"phoneNumber","value":"40720005123"}],"consumptionLines":[{"sku":"coffee_small","quantity":1}]}"#;
const CONSUMPTION: &str = "/campaigns/api/advertiser-integration/v1/consumption";

#[tokio::test]
async fn bad_bodies_over_http_change_nothing() {
    let world = World::start(Server::setup()).await;
    let untouched = Untouched::by(&world).await;
    let bearer = format!("Bearer {}", world.token(&world.advertiser_id, &[v1::Scope::Ingest]).await);
    let untouched = Untouched { head: world.api.head().await, ..untouched };
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1).into_bytes()
    };
    let quantity = |text: &str| with("\"quantity\":1", &format!("\"quantity\":{text}"));
    let date = |text: &str| with("\"20260915T12:34:00Z\"", text);
    let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let quantity_field = "consumptionLines[0].quantity";
    // What is wrong, the body, and status, code and a part of the message.
    let mut rows: Vec<(&str, Vec<u8>, u16, &str, &str)> = vec![
        ("no body", Vec::new(), 400, "REQUEST_BODY_REQUIRED", "Request body cannot be null"),
        ("null", b"null".to_vec(), 400, "REQUEST_BODY_REQUIRED", "Request body cannot be null"),
        ("an empty object", b"{}".to_vec(), 400, "CONSUMPTION_ID_REQUIRED", "ConsumptionId is required"),
        ("half an object", b"{\"consumptionId\":".to_vec(), 400, "INVALID_JSON", "not JSON"),
        ("something behind it", [GOOD.as_bytes(), b"}"].concat(), 400, "INVALID_JSON", "not JSON"),
        ("a list", b"[]".to_vec(), 400, "INVALID_FIELD", "body"),
        ("a number", b"17".to_vec(), 400, "INVALID_FIELD", "body"),
        ("a text", b"\"x\"".to_vec(), 400, "INVALID_FIELD", "body"),
        ("no JSON", b"consumptionId=bad&sku=x".to_vec(), 400, "INVALID_JSON", "not JSON"),
        (
            "bad UTF-8",
            with("bad", "\u{1}").iter().map(|&b| if b == 1 { 0xff } else { b }).collect(),
            400,
            "INVALID_JSON",
            "UTF-8",
        ),
        ("a bare control character", with("bad", "\u{1}"), 400, "INVALID_JSON", "not JSON"),
        ("an escaped control character", with("bad", "\\u0000"), 400, "INVALID_FIELD", "consumptionId"),
        ("half a surrogate", with("bad", "\\ud800"), 400, "INVALID_FIELD", "consumptionId"),
        ("lists without end", deep, 400, "INVALID_FIELD", "body"),
        ("an empty id", with("\"bad\"", "\"\""), 400, "CONSUMPTION_ID_REQUIRED", "ConsumptionId is required"),
        ("an id of null", with("\"bad\"", "null"), 400, "CONSUMPTION_ID_REQUIRED", "ConsumptionId is required"),
        ("a number for an id", with("\"bad\"", "17"), 400, "INVALID_FIELD", "consumptionId"),
        ("a list for an id", with("\"bad\"", "[\"bad\"]"), 400, "INVALID_FIELD", "consumptionId"),
        (
            "no identifiers",
            with("[{\"key\":\"phoneNumber\",\"value\":\"40720005123\"}]", "[]"),
            400,
            "IDENTIFIERS_REQUIRED",
            "Identifiers are required",
        ),
        (
            "identifiers of null",
            with("[{\"key\":\"phoneNumber\",\"value\":\"40720005123\"}]", "null"),
            400,
            "IDENTIFIERS_REQUIRED",
            "Identifiers are required",
        ),
        (
            "an object for identifiers",
            with("[{\"key\":\"phoneNumber\",\"value\":\"40720005123\"}]", "{}"),
            400,
            "INVALID_IDENTIFIER",
            "identifiers",
        ),
        ("an unknown key", with("phoneNumber", "loyaltyId"), 400, "INVALID_IDENTIFIER", "identifiers[0].key"),
        (
            "a number for a phone",
            with("\"40720005123\"", "40720005123"),
            400,
            "INVALID_IDENTIFIER",
            "identifiers[0].value",
        ),
        (
            "no lines",
            with("[{\"sku\":\"coffee_small\",\"quantity\":1}]", "[]"),
            400,
            "CONSUMPTION_LINES_REQUIRED",
            "ConsumptionLines are required",
        ),
        (
            "a line of null",
            with("{\"sku\":\"coffee_small\",\"quantity\":1}", "null"),
            400,
            "INVALID_FIELD",
            "consumptionLines[0]",
        ),
        ("a number for a SKU", with("\"coffee_small\"", "5"), 400, "INVALID_FIELD", "consumptionLines[0].sku"),
        ("no quantity", with(",\"quantity\":1", ""), 400, "INVALID_QUANTITY", quantity_field),
        ("a date of null", date("null"), 400, "INVALID_CONSUMPTION_DATE", "consumptionDate"),
        ("a number for a date", date("1757939640"), 400, "INVALID_CONSUMPTION_DATE", "consumptionDate"),
        ("a date that is none", date("\"20261315T12:34:00Z\""), 400, "INVALID_CONSUMPTION_DATE", "20261315T12:34:00Z"),
        ("a date of the future", date("\"2100-01-01T00:00:00Z\""), 400, "INVALID_CONSUMPTION_DATE", "consumptionDate"),
        ("10 MB", with("bad", &"x".repeat(10 << 20)), 413, "REQUEST_TOO_LARGE", "too large"),
        ("10 MB of blanks", vec![b' '; 10 << 20], 413, "REQUEST_TOO_LARGE", "too large"),
    ];
    for text in ["0", "-1", "0.5", "1.5", "-0.5", "10001", "1e18", "1e400", "\"1\"", "true", "[1]", "{}"] {
        rows.push(("a quantity", quantity(text), 400, "INVALID_QUANTITY", quantity_field));
    }
    for text in ["NaN", "Infinity", "0x1", "1.", "+1"] {
        rows.push(("a quantity", quantity(text), 400, "INVALID_JSON", "not JSON"));
    }
    let address = world.server.http_address();
    for (what, body, status, code, message) in rows {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let answer = http::post(&address, CONSUMPTION, &headers, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {shown}: {answer:?}");
        assert!(answer.message().contains(message), "{what}: {shown}: {answer:?}");
        assert!(answer.body.len() < 2_000 && answer.json()["error"]["details"].is_object(), "{what}: {answer:?}");
        untouched.check(what).await;
    }
    // Unknown fields are no fault, however deep; and the id is still free.
    let newer =
        with("{\"consumptionId\"", &format!("{{\"new\":{}1{},\"consumptionId\"", "[".repeat(5_000), "]".repeat(5_000)));
    let answer = http::post(&address, CONSUMPTION, &[("Authorization", &bearer)], newer).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn bad_requests_over_http_change_nothing() {
    let world = World::start(Server::setup()).await;
    let bearer = format!("Bearer {}", world.token(&world.advertiser_id, &[v1::Scope::Ingest]).await);
    let untouched = Untouched::by(&world).await;
    let address = world.server.http_address();
    let (good, json) = (("Authorization", bearer.as_str()), ("Content-Type", "application/json"));
    let forged = format!("Bearer {}x", &bearer[7..]);
    let staging = "/staging-campaigns/api/advertiser-integration/v1/consumption";
    for (what, method, path, headers, status, code) in [
        ("no credentials", "POST", CONSUMPTION, &[json][..], 400, "CREDENTIALS_MISSING"),
        ("wrong credentials", "POST", CONSUMPTION, &[("Authorization", "Bearer nonsense")], 401, "INVALID_CREDENTIALS"),
        ("a forged token", "POST", CONSUMPTION, &[("Authorization", &forged)], 401, "INVALID_CREDENTIALS"),
        ("another scheme", "POST", CONSUMPTION, &[("Authorization", "Basic YTpi")], 401, "INVALID_CREDENTIALS"),
        ("the other environment", "POST", staging, &[good], 401, "INVALID_CREDENTIALS"),
        ("another type", "POST", CONSUMPTION, &[good, ("Content-Type", "text/csv")], 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("another method", "GET", CONSUMPTION, &[good], 405, "METHOD_NOT_ALLOWED"),
        ("no such route", "POST", "/nothing", &[good], 404, "NOT_FOUND"),
    ] {
        let answer = http::send(&address, method, path, headers, GOOD).await.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {answer:?}");
        untouched.check(what).await;
    }
    let head = format!("POST {CONSUMPTION} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n");
    let long_header = format!("{head}x: {}\r\n\r\n", "x".repeat(1 << 20));
    let early_end = format!("{head}content-length: {}\r\n\r\n{GOOD}", GOOD.len() + 100);
    let bad_chunk = format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{GOOD}\r\n0\r\n\r\n");
    let two_lengths = format!("{head}content-length: {}\r\ncontent-length: 3\r\n\r\n{GOOD}", GOOD.len());
    for (what, bytes) in [
        ("noise", vec![0x16, 3, 1, 0, 0xff, 0, 0]),
        ("no HTTP", b"HELO example.com\r\n\r\n".to_vec()),
        ("a long header", long_header.into_bytes()),
        ("a body that ends early", early_end.into_bytes()),
        ("a chunk without a length", bad_chunk.into_bytes()),
        ("two lengths", two_lengths.into_bytes()),
    ] {
        let first_line = http::raw(&address, &bytes, Duration::from_millis(300)).await;
        assert!(!first_line.starts_with("HTTP/1.1 2"), "{what}: {first_line}");
        untouched.check(what).await;
    }
    assert_eq!(http::get(&address, "/readyz").await.status, 200, "and it still serves");
}

/// How much more memory the server may hold than before, after the burst and at any time during it: the
/// bodies are 640 MB in all.
const BURST_GROWTH_MAX: u64 = 200 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_large_bodies_is_not_kept() {
    let world = World::start(Server::setup()).await;
    let bearer = format!("Bearer {}", world.token(&world.advertiser_id, &[v1::Scope::Ingest]).await);
    let untouched = Untouched::by(&world).await;
    let before = world.server.resident_bytes();
    let body = Bytes::from(GOOD.replace("bad", &"x".repeat(10 << 20)));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (address, bearer, body) = (world.server.http_address(), bearer.clone(), body.clone());
        senders.spawn(async move {
            let answer = http::post(&address, CONSUMPTION, &[("Authorization", &bearer)], body).await;
            assert_eq!(answer.code(), "REQUEST_TOO_LARGE");
        });
        let api = world.api.clone();
        senders.spawn(async move {
            let huge = bad(|c| c.lines[0].product_name = "x".repeat(10 << 20));
            let refused = api.record(huge).await.expect_err("too large");
            assert_eq!(refused.reason, "MESSAGE_TOO_LARGE", "{refused:?}");
        });
    }
    let mut highest = before;
    while let Some(ended) = senders.join_next().await {
        ended.expect("a refusal");
        highest = highest.max(world.server.resident_bytes());
    }
    let after = world.server.resident_bytes();
    println!("inputs: resident before {before}, highest {highest}, after {after}");
    assert!(highest.saturating_sub(before) <= BURST_GROWTH_MAX, "{before} grew to {highest}");
    untouched.check("the burst").await;
}
