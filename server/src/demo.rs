//! `punchline demo`: the whole product in half a minute, and whether it kept its word.
//!
//! Starts a server in a directory of its own, loads the demo's campaign and members, sends some thousand
//! consumptions over gRPC, delivers every event to a receiver that fails now and then, and checks at the
//! end: counts as foretold by the data's generator, each event received once, in order per member, and
//! the journal verified against every view.

mod receiver;
mod report;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use punchline_proto::v1::admin_service_client::AdminServiceClient;
use punchline_proto::v1::campaign_service_client::CampaignServiceClient;
use punchline_proto::v1::consumption_result::Outcome;
use punchline_proto::v1::event_service_client::EventServiceClient;
use punchline_proto::v1::ingest_service_client::IngestServiceClient;
use punchline_proto::v1::member_service_client::MemberServiceClient;
use punchline_proto::v1::subscription_service_client::SubscriptionServiceClient;
use punchline_proto::v1::{self, Consumption};
use punchline_runtime::clock::Stopwatch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt;

use crate::cli::DemoArgs;
use crate::cli::output::{Format, note};
use crate::config::{Config, ConfigError, Secret, Sources};
use crate::serve;
use receiver::Receiver;
use report::Tally;

const CAMPAIGN: &str = include_str!("../../deploy/demo/campaign.toml");
const MEMBERS: &str = include_str!("../../deploy/demo/members.jsonl");
const CONSUMPTIONS: &str = include_str!("../../deploy/demo/consumptions.jsonl");
const ADVERTISER: &str = "1000000001";
const TOKEN: &str = "demo-operator-token";
/// Waits between attempts: the default ten attempts, on a schedule that fits a demonstration.
const RETRY_DELAYS_MS: [u64; 9] = [100, 200, 300, 400, 500, 600, 700, 800, 900];
/// Consumptions sent at a time and how long until the next: a steady 1 000 a second, so that the
/// latencies shown are those of a server at work, not of a backlog.
const SENT_AT_ONCE: usize = 10;
const SENT_EVERY: Duration = Duration::from_millis(10);
/// By then everything is delivered, or something is wrong.
const DELIVERED_WITHIN: Duration = Duration::from_secs(60);

/// Anything that ends the demo: all of it is told to people.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the demo: 0 where every check holds, 1 where one does not, 70 where it could not be run.
pub fn run(args: &DemoArgs, format: Format) -> ExitCode {
    let directory = match &args.dir {
        Some(path) => Directory::Given(path.clone()),
        None => match temporary_directory() {
            Ok(path) => Directory::Temporary(path),
            Err(error) => return failed(&error.into()),
        },
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(demonstrate(&directory)) {
        Ok(tally) => {
            let failures = tally.failures();
            tally.print(format);
            if let Directory::Given(path) = &directory {
                note(&format!("the data is in {}: try `punchline verify --data-dir {0}`", path.display()));
            }
            for failure in &failures {
                note(&format!("FAILED: {failure}"));
            }
            if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &Failure) -> ExitCode {
    note(&format!("punchline demo: {error}"));
    ExitCode::from(70)
}

enum Directory {
    Given(std::path::PathBuf),
    Temporary(std::path::PathBuf),
}

impl Directory {
    fn path(&self) -> &std::path::Path {
        let (Directory::Given(path) | Directory::Temporary(path)) = self;
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Directory::Temporary(path) = self {
            // Left behind, it is in the system's temporary directory.
            drop(std::fs::remove_dir_all(path));
        }
    }
}

fn temporary_directory() -> std::io::Result<std::path::PathBuf> {
    let unique = u64::from_be_bytes(punchline_runtime::ids::random_bytes());
    let path = std::env::temp_dir().join(format!("punchline-demo-{unique:016x}"));
    std::fs::create_dir(&path)?;
    Ok(path)
}

/// An operator, for the demo's advertiser once there is one.
#[derive(Clone)]
struct AsOperator {
    token: MetadataValue<Ascii>,
    advertiser: Option<MetadataValue<Ascii>>,
}

impl Interceptor for AsOperator {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.token.clone());
        if let Some(advertiser) = &self.advertiser {
            request.metadata_mut().insert("punchline-advertiser", advertiser.clone());
        }
        Ok(request)
    }
}

type Connection = InterceptedService<Channel, AsOperator>;

async fn demonstrate(directory: &Directory) -> Result<Tally, Failure> {
    let running = serve::start(config(directory)?).await?;
    let token: MetadataValue<Ascii> = format!("Bearer {TOKEN}").parse()?;
    let channel = Channel::from_shared(format!("http://{}", running.grpc_addr))?.connect().await?;
    let operator = AsOperator { token: token.clone(), advertiser: None };
    let mut admin = AdminServiceClient::new(InterceptedService::new(channel.clone(), operator));
    let (advertiser_id, name) = (ADVERTISER.into(), "Demo".into());
    admin.create_advertiser(v1::CreateAdvertiserRequest { advertiser_id, name, ..Default::default() }).await?;
    let advertiser = Some(MetadataValue::from_static(ADVERTISER));
    let connection = InterceptedService::new(channel, AsOperator { token, advertiser });
    let receiver = Receiver::start(running.node.clock().clone()).await?;
    let watch = Stopwatch::start();
    let members = set_up(&connection, &receiver).await?;
    note(&format!("{members} members registered, a subscription to every event of theirs placed"));
    let mut tally = Tally::new();
    send(&connection, &mut tally).await?;
    tally.sent_in = watch.elapsed();
    let head = settle(&connection, &receiver).await?;
    tally.settled_in = watch.elapsed();
    check(&connection, &receiver, head, &mut tally).await?;
    running.shutdown().await;
    Ok(tally)
}

fn config(directory: &Directory) -> Result<Config, ConfigError> {
    let mut config = Config::load(&Sources::default())?;
    let any_port = || "127.0.0.1:0".parse().expect("a constant address");
    config.server.grpc_bind = any_port();
    config.server.http_bind = any_port();
    config.server.metrics_bind = any_port();
    config.storage.data_dir = directory.path().to_owned();
    config.security.operator_token = Secret::new(TOKEN);
    config.delivery.allow_http = true;
    config.delivery.allow_private = vec!["127.0.0.0/8".parse().expect("a constant network")];
    Ok(config)
}

async fn set_up(connection: &Connection, receiver: &Receiver) -> Result<usize, Failure> {
    let campaign = crate::campaign_file::parse(CAMPAIGN)?;
    let campaign_id = campaign.campaign_id.clone();
    let mut campaigns = CampaignServiceClient::new(connection.clone());
    campaigns.create_campaign(v1::CreateCampaignRequest { campaign: Some(campaign), ..Default::default() }).await?;
    let mut subscriptions = SubscriptionServiceClient::new(connection.clone());
    let subscription = v1::Subscription {
        description: "the demo's receiver".into(),
        url: receiver.url(),
        event_types: event_types(),
        retry_delays_ms: RETRY_DELAYS_MS.into(),
        ..Default::default()
    };
    let request = v1::CreateSubscriptionRequest { subscription: Some(subscription), ..Default::default() };
    let created = subscriptions.create_subscription(request).await?.into_inner();
    receiver.trust(&created.secret)?;
    let mut service = MemberServiceClient::new(connection.clone());
    let mut members = 0;
    for line in MEMBERS.lines() {
        let member: serde_json::Value = serde_json::from_str(line)?;
        let identifiers = identifiers(&member["identifiers"]);
        let joined = member["joined"].as_bool().unwrap_or(false);
        let text = |field: &str| member["profile"][field].as_str().unwrap_or_default().to_owned();
        let profile = v1::Profile {
            first_name: text("firstName"),
            last_name: text("lastName"),
            birth_date: text("birthDate"),
            locale: text("locale"),
            marketing_consent: member["profile"]["marketingConsent"].as_bool(),
            ..Default::default()
        };
        let request = v1::RegisterMemberRequest {
            identifiers,
            profile: Some(profile),
            registration_source: "demo".into(),
            join_campaign_ids: if joined { vec![campaign_id.clone()] } else { Vec::new() },
            ..Default::default()
        };
        let registered = service.register_member(request).await?.into_inner().member.unwrap_or_default();
        if member["blocked"].as_bool() == Some(true) {
            let (member_id, reason) = (registered.member_id, "demo".into());
            service.block_member(v1::BlockMemberRequest { member_id, reason }).await?;
        }
        members += 1;
    }
    Ok(members)
}

/// All that is about members: what the server says of itself is not part of the demonstration.
fn event_types() -> Vec<String> {
    ["member.*", "consumption.*", "points.*", "coins.*", "punchcard.*"].map(String::from).into()
}

fn identifiers(list: &serde_json::Value) -> Vec<v1::Identifier> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let each = list.as_array().into_iter().flatten();
    each.map(|i| v1::Identifier { key: text(&i["key"]), value: text(&i["value"]) }).collect()
}

fn consumption(line: &str) -> Result<Consumption, serde_json::Error> {
    let body: serde_json::Value = serde_json::from_str(line)?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let lines = body["consumptionLines"].as_array().into_iter().flatten();
    Ok(Consumption {
        consumption_id: text(&body["consumptionId"]),
        consumption_date: text(&body["consumptionDate"]),
        identifiers: identifiers(&body["identifiers"]),
        lines: lines
            .map(|line| v1::ConsumptionLine {
                sku: text(&line["sku"]),
                product_name: text(&line["productName"]),
                quantity: line["quantity"].as_f64().unwrap_or(f64::NAN),
            })
            .collect(),
    })
}

fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:12} {bar:40} {pos}/{len}").expect("the template is a constant");
    ProgressBar::new(length).with_style(style).with_message(what)
}

async fn send(connection: &Connection, tally: &mut Tally) -> Result<(), Failure> {
    let consumptions = CONSUMPTIONS.lines().map(consumption).collect::<Result<Vec<_>, _>>()?;
    let bar = bar("consumptions", consumptions.len() as u64);
    let (sender, receiver) = tokio::sync::mpsc::channel(SENT_AT_ONCE);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut service = IngestServiceClient::new(connection.clone());
    let mut answers = service.stream_consumptions(requests).await?.into_inner();
    let sending = tokio::spawn(async move {
        let mut every = tokio::time::interval(SENT_EVERY);
        for chunk in consumptions.chunks(SENT_AT_ONCE) {
            every.tick().await;
            for consumption in chunk {
                let request = v1::StreamConsumptionsRequest { consumption: Some(consumption.clone()) };
                if sender.send(request).await.is_err() {
                    return;
                }
            }
        }
    });
    while let Some(answer) = answers.message().await? {
        bar.inc(1);
        match answer.result.and_then(|result| result.outcome) {
            Some(Outcome::Receipt(receipt)) => tally.accepted(&receipt),
            Some(Outcome::Error(status)) => {
                let details = Status::with_details(status.code.into(), status.message.clone(), details(&status));
                let reason = details.get_details_error_info().map_or(status.message, |info| info.reason);
                tally.refused(reason);
            }
            None => return Err("a result without an outcome".into()),
        }
    }
    bar.finish_and_clear();
    sending.await?;
    Ok(())
}

/// `google.rpc.Status` as it would have come with a call of its own.
fn details(status: &tonic_types::pb::Status) -> bytes::Bytes {
    prost::Message::encode_to_vec(status).into()
}

/// Waits until everything is delivered; gives the journal's head then.
async fn settle(connection: &Connection, receiver: &Receiver) -> Result<u64, Failure> {
    let mut admin = AdminServiceClient::new(connection.clone());
    let mut events = EventServiceClient::new(connection.clone());
    let head = admin.get_status(v1::GetStatusRequest {}).await?.into_inner().head_sequence;
    let expected = read_events(&mut events, head).await?;
    let bar = bar("deliveries", expected.len() as u64);
    let watch = Stopwatch::start();
    while receiver.received() < expected.len() {
        if watch.elapsed() > DELIVERED_WITHIN {
            return Err(format!("{} of {} events were received", receiver.received(), expected.len()).into());
        }
        bar.set_position(receiver.received() as u64);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bar.finish_and_clear();
    Ok(head)
}

/// Sequences and members of the events that the subscription is owed, up to `head`.
async fn read_events(events: &mut EventServiceClient<Connection>, head: u64) -> Result<BTreeMap<u64, String>, Failure> {
    let (mut owed, mut next) = (BTreeMap::new(), 1);
    while next <= head {
        let filter = v1::EventFilter { event_types: event_types(), ..Default::default() };
        let request = v1::ReadEventsRequest { from_sequence: next, filter: Some(filter), page_size: 500 };
        let page = events.read_events(request).await?.into_inner();
        owed.extend(page.events.into_iter().filter(|e| e.sequence <= head).map(|e| (e.sequence, e.member_id)));
        next = page.next_sequence;
    }
    Ok(owed)
}

async fn check(connection: &Connection, receiver: &Receiver, head: u64, tally: &mut Tally) -> Result<(), Failure> {
    let mut events = EventServiceClient::new(connection.clone());
    let mut admin = AdminServiceClient::new(connection.clone());
    tally.owed = read_events(&mut events, head).await?;
    tally.deliveries = receiver.deliveries();
    let status = admin.get_status(v1::GetStatusRequest {}).await?.into_inner();
    tally.dead_letters = status.dead_letters;
    let verified = admin.verify(v1::VerifyRequest {}).await?.into_inner();
    tally.verified = Some((verified.events, verified.rows, verified.difference));
    Ok(())
}
