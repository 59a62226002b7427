//! One story for each source system, in data (`server/stories/`): calls come in, and exactly the events that
//! follow go out, in the words of that system's dialect.
//!
//! A step is one of
//!
//! ```text
//! {"at": "2026-03-01T09:00:00Z"}                         the time from now on
//! {"call": "MemberService/RegisterMember", "with": {…},  a call, in proto3's JSON
//!  "save": {"ana": "/member/memberId"},                  names for parts of the answer, as $ana from then on
//!  "refused": "OUT_OF_STOCK",                            the reason, where it is to be refused
//!  "told": [{…}, …]}                                     bodies that go out, in order; "*" stands for anything
//! ```
//!
//! `PUNCHLINE_STORIES=write` writes down what goes out, to be read before it is committed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use punchline_delivery::courier::AttemptRequest;
use punchline_engine::time::UnixMillis;
use punchline_runtime::clock::Clock;
use serde_json::{Value, json};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::*;

const ADVERTISER: &str = "1000000001";
const NAMED_BY: &str = "x-jericommerce-event-type";

/// A clock that a story sets.
struct StoryClock(AtomicI64);

impl Clock for StoryClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Acquire))
    }
}

/// Messages by their descriptors.
#[derive(Clone)]
struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Dynamic;
    type Decoder = Dynamic;

    fn encoder(&mut self) -> Dynamic {
        self.clone()
    }

    fn decoder(&mut self) -> Dynamic {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::Message::encode(&item, buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let decoded = DynamicMessage::decode(self.0.clone(), buffer);
        decoded.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

struct Teller {
    running: Running,
    clock: Arc<StoryClock>,
    pool: DescriptorPool,
    saved: BTreeMap<String, Value>,
    subscription_id: String,
    told: usize,
}

impl Teller {
    async fn call(&self, name: &str, with: Value) -> Result<Value, Status> {
        let (service, method) = name.split_once('/').expect("a service and a method");
        let service = format!("punchline.v1.{service}");
        let found = self.pool.get_service_by_name(&service).expect(&service);
        let found = found.methods().find(|found| found.name() == method).expect(name);
        let request = DynamicMessage::deserialize(found.input(), with).expect(name);
        let mut client = tonic::client::Grpc::new(self.running.operator_for(ADVERTISER));
        client.ready().await.expect("the server is there");
        let path = format!("/{service}/{method}").parse().expect("a path");
        let answered = client.unary(Request::new(request), path, Dynamic(found.output())).await?.into_inner();
        let options = SerializeOptions::new();
        Ok(answered.serialize_with_options(serde_json::value::Serializer, &options).expect("JSON says it"))
    }

    /// `$name` becomes what was saved under it, also within a text.
    fn fill(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                for (name, saved) in &self.saved {
                    *text = text.replace(&format!("${name}"), saved.as_str().unwrap_or_default());
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.fill(field)),
            _ => {}
        }
    }

    /// What went out since the last time, once everything that there is has.
    async fn told(&mut self) -> Vec<Value> {
        let status = self.call("AdminService/GetStatus", json!({})).await.expect("the operator asks");
        let head = number(&status["headSequence"]);
        let settled = async {
            loop {
                let with = json!({"subscriptionId": self.subscription_id});
                let now = self.call("SubscriptionService/GetSubscription", with).await.expect("it exists");
                if number(&now["subscription"]["cursor"]) >= head {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), settled).await.expect("everything is delivered");
        let received = self.running.courier.received();
        let new = received[self.told..].iter().map(told_of).collect();
        self.told = received.len();
        new
    }

    async fn step(&mut self, step: &mut Value) {
        if let Some(at) = step["at"].as_str() {
            let at = UnixMillis::parse(at).expect("a date");
            self.clock.0.store(at.0, Ordering::Release);
            return;
        }
        let name = step["call"].as_str().expect("a call or a time").to_owned();
        let mut with = step.get("with").cloned().unwrap_or_else(|| json!({}));
        self.fill(&mut with);
        let answered = self.call(&name, with).await;
        match (answered, step.get("refused")) {
            (Ok(answered), None) => {
                for (key, pointer) in step["save"].as_object().into_iter().flatten() {
                    let part = answered.pointer(pointer.as_str().expect("a pointer"));
                    let part = part.unwrap_or_else(|| panic!("{name} answers no {pointer}: {answered}"));
                    self.saved.insert(key.clone(), part.clone());
                }
            }
            (Err(status), Some(reason)) => {
                let info = status.get_details_error_info().expect("every error has a reason");
                assert_eq!(info.reason, reason.as_str().unwrap_or_default(), "{name}: {status}");
            }
            (Ok(answered), Some(reason)) => panic!("{name} is to be refused with {reason}: {answered}"),
            (Err(status), None) => panic!("{name} {}: {status}", step["with"]),
        }
        let told = self.told().await;
        if std::env::var("PUNCHLINE_STORIES").is_ok_and(|how| how == "write") {
            step.as_object_mut().expect("a step").remove("told");
            if !told.is_empty() {
                let told = told.into_iter().map(|one| self.anonymous(one)).collect();
                step["told"] = Value::Array(told);
            }
            return;
        }
        let mut expected = step.get("told").cloned().unwrap_or_else(|| json!([]));
        self.fill(&mut expected);
        let told = Value::Array(told);
        if let Err(why) = same(&expected, &told, "told") {
            panic!("{name}: {why}\n{}", serde_json::to_string_pretty(&told).expect("JSON"));
        }
    }

    /// What differs from run to run, by its name where it has one.
    fn anonymous(&self, value: Value) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(|item| self.anonymous(item)).collect(),
            Value::Object(fields) => fields.into_iter().map(|(name, field)| (name, self.anonymous(field))).collect(),
            Value::String(text) => {
                let name = self.saved.iter().find(|(_, saved)| saved.as_str() == Some(&text)).map(|(name, _)| name);
                let made = text.contains("evt_") || text.contains("msg_") || text.len() >= 26 && is_random(&text);
                match name {
                    Some(name) => format!("${name}").into(),
                    None if made => "*".into(),
                    None => text.into(),
                }
            }
            other => other,
        }
    }
}

/// A number of 64 bits, which JSON has as a text.
fn number(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.parse().expect("a number"))
}

/// The body; with the header that names the event, where the dialect has one.
fn told_of(one: &AttemptRequest) -> Value {
    let body: Value = serde_json::from_slice(&one.body).expect("JSON");
    match one.extra_headers.iter().find(|(header, _)| header == NAMED_BY) {
        Some((_, name)) => json!({NAMED_BY: name.to_str().expect("text"), "body": body}),
        None => body,
    }
}

/// Whether a text holds an id that is made anew in each run: a UUID or an ULID.
fn is_random(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let longest = text.as_bytes().split(|b| !plain(*b)).map(<[u8]>::len).max().unwrap_or(0);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    longest >= 26 && digits >= 5 && !text.contains(':')
}

/// Whether `told` is what was expected, field for field.
fn same(expected: &Value, told: &Value, at: &str) -> Result<(), String> {
    match (expected, told) {
        (Value::String(any), _) if any == "*" => Ok(()),
        (Value::Array(expected), Value::Array(told)) => {
            for (i, (expected, told)) in expected.iter().zip(told).enumerate() {
                same(expected, told, &format!("{at}[{i}]"))?;
            }
            let (wanted, came) = (expected.len(), told.len());
            if wanted == came { Ok(()) } else { Err(format!("{at} has {came} entries, not {wanted}")) }
        }
        (Value::Object(expected), Value::Object(told)) => {
            if let Some(name) = told.keys().find(|name| !expected.contains_key(*name)) {
                return Err(format!("{at}.{name} was not expected"));
            }
            expected.iter().try_for_each(|(name, field)| match told.get(name) {
                Some(told) => same(field, told, &format!("{at}.{name}")),
                None => Err(format!("{at}.{name} is missing")),
            })
        }
        _ if expected == told => Ok(()),
        _ => Err(format!("{at} is {told}, not {expected}")),
    }
}

fn path(system: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("stories/{system}.json"))
}

async fn tell(system: &str) {
    let text = std::fs::read_to_string(path(system)).expect(system);
    let mut story: Value = serde_json::from_str(&text).expect(system);
    let clock = Arc::new(StoryClock(AtomicI64::new(UnixMillis::parse("2026-03-01T08:00:00Z").expect("a date").0)));
    let running = Running::with_clock(clock.clone(), 0).await;
    running.advertiser(ADVERTISER, Vec::new()).await;
    let pool = DescriptorPool::decode(v1::FILE_DESCRIPTOR_SET).expect("the build made it");
    let mut teller = Teller { running, clock, pool, saved: BTreeMap::new(), subscription_id: String::new(), told: 0 };
    let mut subscription = story["subscription"].clone();
    subscription["url"] = URL.into();
    subscription["dialect"] = system.into();
    // Else two members' events go out in any order.
    subscription["ordering"] = "ORDERING_STRICT".into();
    let with = json!({"subscription": subscription});
    let made = teller.call("SubscriptionService/CreateSubscription", with).await.expect("created");
    teller.subscription_id = made["subscription"]["subscriptionId"].as_str().expect("it has an id").into();
    for step in story["steps"].as_array_mut().expect("steps") {
        teller.step(step).await;
    }
    teller.running.end().await;
    if std::env::var("PUNCHLINE_STORIES").is_ok_and(|how| how == "write") {
        let text = serde_json::to_string_pretty(&story).expect("JSON") + "\n";
        std::fs::write(path(system), text).expect(system);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wecheer() {
    tell("wecheer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rehook() {
    tell("rehook").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jericommerce() {
    tell("jericommerce").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qurable() {
    tell("qurable").await;
}
