//! Every service once, over a real connection, on a node with a scripted courier.

use std::sync::Arc;
use std::time::Duration;

use punchline_delivery::dialect::Dialects;
use punchline_delivery::endpoint::EndpointPolicy;
use punchline_delivery::scripted::{ScriptedCourier, Step};
use punchline_engine::id::Environment;
use punchline_proto::v1;
use punchline_runtime::clock::{Clock, SystemClock};
use punchline_runtime::dispatch::dispatcher::Couriers;
use punchline_runtime::dispatch::target::Rulebook;
use punchline_runtime::node::{Node, NodeOptions};
use punchline_runtime::seal::Sealer;
use punchline_storage::attempts::AttemptLimits;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::{RpcStatusExt, StatusExt};
use v1::admin_service_client::AdminServiceClient;
use v1::campaign_service_client::CampaignServiceClient;
use v1::delivery_service_client::DeliveryServiceClient;
use v1::event_service_client::EventServiceClient;
use v1::ingest_service_client::IngestServiceClient;
use v1::ledger_service_client::LedgerServiceClient;
use v1::member_service_client::MemberServiceClient;
use v1::reward_service_client::RewardServiceClient;
use v1::subscription_service_client::SubscriptionServiceClient;

use super::serve;
use crate::state::State;

mod fact;
mod ledger;
mod log;
mod member;
mod stories;

mod reward;

const OPERATOR: &str = "dev-operator";
const URL: &str = "https://example.com/hooks";

type As = InterceptedService<Channel, Meta>;

/// Adds who calls to every call.
#[derive(Clone)]
struct Meta(Vec<(&'static str, String)>);

impl tonic::service::Interceptor for Meta {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (key, value) in &self.0 {
            request.metadata_mut().insert(*key, value.parse().expect("metadata"));
        }
        Ok(request)
    }
}

struct Running {
    state: Arc<State>,
    courier: Arc<ScriptedCourier>,
    channel: Channel,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Running {
    async fn start() -> Running {
        Running::limited(0).await
    }

    async fn limited(per_minute: u32) -> Running {
        Running::with_clock(Arc::new(SystemClock), per_minute).await
    }

    async fn with_clock(clock: Arc<dyn Clock>, per_minute: u32) -> Running {
        let dir = tempfile::tempdir().expect("a directory");
        let courier = Arc::new(ScriptedCourier::new());
        let options = NodeOptions {
            clock,
            couriers: Couriers { http: courier.clone(), segment: courier.clone() },
            delivering: None,
            rulebook: Rulebook {
                sealer: Arc::new(Sealer::new(&[7; 32])),
                policy: EndpointPolicy::default(),
                dialects: Arc::new(Dialects::builtin()),
            },
            queue_max: 1_024,
            in_flight_max: 64,
            reserve_bytes: 0,
            checkpoint_interval: Duration::from_millis(500),
            members_cached: 1_024,
            delivery_log: AttemptLimits { bytes_max: 1 << 20, keep_ms: 3_600_000 },
        };
        let node = Arc::new(Node::open(dir.path().join("data"), &[7; 32], options).expect("opens"));
        let state = Arc::new(State::new(node, OPERATOR, &[7; 32], None).with_grpc_limit(per_minute));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let serving = serve(state.clone(), listener, None, async { drop(stopped.await) });
        let served = tokio::spawn(async { serving.await.expect("serves") });
        let channel = Channel::from_shared(format!("http://{address}")).expect("a URI").connect().await.expect("there");
        Running { state, courier, channel, stop, served, _dir: dir }
    }

    fn with(&self, metadata: &[(&'static str, &str)]) -> As {
        let metadata = metadata.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        InterceptedService::new(self.channel.clone(), Meta(metadata))
    }

    fn operator_for(&self, advertiser: &str) -> As {
        self.with(&[("authorization", &format!("Bearer {OPERATOR}")), ("punchline-advertiser", advertiser)])
    }

    /// An advertiser with a key, and who holds a token of it.
    async fn advertiser(&self, id: &str, scopes: Vec<i32>) -> As {
        let mut admin = AdminServiceClient::new(self.operator_for(id));
        let create =
            || v1::CreateAdvertiserRequest { advertiser_id: id.into(), name: id.into(), request_id: id.into() };
        let admin_alone = self.with(&[("authorization", &format!("Bearer {OPERATOR}"))]);
        let mut alone = AdminServiceClient::new(admin_alone);
        let made = alone.create_advertiser(create()).await.expect("made").into_inner();
        let again = alone.create_advertiser(create()).await.expect("the same").into_inner();
        assert_eq!(made, again);
        let api_key = format!("key-{id}");
        let request = v1::IssueCredentialRequest { api_key: api_key.clone(), scopes, ..Default::default() };
        let secret = admin.issue_credential(request).await.expect("issued").into_inner().api_secret;
        let token =
            self.state.auth.authorize(&api_key, &secret, Environment::Production, Some(id)).expect("authorized");
        assert!(self.state.auth.authorize(&api_key, "wrong", Environment::Production, Some(id)).is_err());
        assert!(self.state.auth.authorize(&api_key, &secret, Environment::Staging, Some(id)).is_err());
        self.with(&[("authorization", &format!("Bearer {}", token.token))])
    }

    async fn end(self) {
        self.stop.send(()).expect("serving");
        drop(self.channel);
        tokio::time::timeout(Duration::from_secs(5), self.served).await.expect("ends in time").expect("ends");
        self.state.node.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn write_keys_have_no_secret_and_one_tenant() {
    let running = Running::start().await;
    running.advertiser("1000000001", Vec::new()).await;
    let mut production = AdminServiceClient::new(running.operator_for("1000000001"));
    let operator = ("authorization", &*format!("Bearer {OPERATOR}"));
    let mut staging = AdminServiceClient::new(running.with(&[
        operator,
        ("punchline-advertiser", "1000000001"),
        ("punchline-environment", "staging"),
    ]));
    let write_key =
        |api_key: &str| v1::IssueCredentialRequest { api_key: api_key.into(), write_key: true, ..Default::default() };
    let with_secret = v1::IssueCredentialRequest { api_secret: "a-long-secret".into(), ..write_key("") };
    let to_manage = v1::IssueCredentialRequest { scopes: vec![v1::Scope::Manage.into()], ..write_key("") };
    for bad in [with_secret, to_manage] {
        assert_eq!(reason(&production.issue_credential(bad).await.expect_err("refused")), "INVALID_FIELD");
    }
    let issued = production.issue_credential(write_key("")).await.expect("issued").into_inner();
    let credential = issued.credential.expect("there");
    assert!(credential.write_key && credential.api_key.starts_with("wk-") && issued.api_secret.is_empty());
    assert_eq!(credential.scopes, [i32::from(v1::Scope::Ingest)]);
    let auth = &running.state.auth;
    let tenant = auth.reports_for(&credential.api_key).expect("known");
    assert_eq!((tenant.advertiser.0, tenant.environment), (1_000_000_001, Environment::Production));
    assert!(auth.authorize(&credential.api_key, "", Environment::Production, None).is_err());
    assert!(auth.reports_for("key-1000000001").is_err(), "a pair's key is no write key");
    // Neither twice nor where a pair has the name.
    for taken in [credential.api_key.as_str(), "key-1000000001"] {
        let refused = staging.issue_credential(write_key(taken)).await.expect_err("in use in production");
        assert_eq!(reason(&refused), "INVALID_FIELD");
    }
    let revoke = v1::RevokeCredentialRequest { api_key: credential.api_key.clone() };
    production.revoke_credential(revoke).await.expect("revoked");
    assert!(auth.reports_for(&credential.api_key).is_err());
    running.end().await;
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("every error has an ErrorInfo").reason
}

/// A refusal: code, reason and message, which names the field and the value.
fn told(status: &Status) -> String {
    format!("{:?} {}: {}", status.code(), reason(status), status.message())
}

/// The first field that a refusal blames; empty where it blames none.
fn field(status: &Status) -> String {
    status.get_details_bad_request().map(|bad| bad.field_violations[0].field.clone()).unwrap_or_default()
}

/// Each call was refused, and how: what it says stands in the table, ids of members shortened to names.
fn all_refused<const N: usize>(names: &[(&str, &str)], calls: [(Result<(), Status>, &str); N]) {
    for (outcome, expected) in calls {
        let status = outcome.expect_err(expected);
        let short = names.iter().fold(told(&status), |told, (id, name)| told.replace(id, name));
        assert_eq!(short, expected);
        if status.code() == Code::InvalidArgument {
            let field = field(&status);
            assert!(status.message().starts_with(&field) && !field.is_empty(), "{field}: {expected}");
        }
        if status.code() == Code::FailedPrecondition {
            assert!(status.get_details_precondition_failure().is_some(), "{expected}");
        }
    }
}

/// What a call came to, without its answer.
fn outcome<T>(result: Result<tonic::Response<T>, Status>) -> Result<(), Status> {
    result.map(drop)
}

fn campaign() -> v1::Campaign {
    v1::Campaign {
        campaign_id: "velo-club".into(),
        rules: vec![v1::EarningRule {
            rule_id: "review".into(),
            skus: Some(v1::earning_rule::Skus::SkuExact("velo_review".into())),
            points: 150,
            coins: 3,
            stamps: Some(v1::StampReward { punchcard_id: "card".into(), per_unit: 1 }),
            ..Default::default()
        }],
        punchcards: vec![v1::Punchcard {
            punchcard_id: "card".into(),
            row_length: 10,
            steps: vec![5],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn consumption(id: &str, quantity: f64) -> v1::Consumption {
    v1::Consumption {
        consumption_id: id.into(),
        consumption_date: "20250425T12:34:00Z".into(),
        identifiers: vec![v1::Identifier { key: "email".into(), value: "user@example.com".into() }],
        lines: vec![v1::ConsumptionLine { sku: "velo_review".into(), quantity, ..Default::default() }],
    }
}

fn member_request() -> v1::RegisterMemberRequest {
    v1::RegisterMemberRequest {
        identifiers: vec![v1::Identifier { key: "email".into(), value: "User@Example.com".into() }],
        join_campaign_ids: vec!["velo-club".into()],
        request_id: "member-1".into(),
        ..Default::default()
    }
}

/// Registers another member, who has joined.
async fn register(caller: &As, email: &str) -> String {
    let request = v1::RegisterMemberRequest {
        identifiers: vec![v1::Identifier { key: "email".into(), value: email.into() }],
        join_campaign_ids: vec!["velo-club".into()],
        ..Default::default()
    };
    let made = MemberServiceClient::new(caller.clone()).register_member(request).await.expect("registered");
    made.into_inner().member.expect("answered").member_id
}

/// Reports reviews of the first member: 150 points and 3 coins each.
async fn reviews(caller: &As, id: &str, quantity: f64) -> v1::Receipt {
    let request = v1::RecordConsumptionRequest { consumption: Some(consumption(id, quantity)) };
    let answer = IngestServiceClient::new(caller.clone()).record_consumption(request).await.expect("accepted");
    answer.into_inner().receipt.expect("answered")
}

fn points() -> Option<v1::Currency> {
    Some(v1::Currency { kind: Some(v1::currency::Kind::PointsOfCampaignId("velo-club".into())) })
}

/// So much later than now.
fn in_ms(ms: i64) -> prost_types::Timestamp {
    crate::convert::timestamp(SystemClock.now().plus_ms(ms))
}

fn in_an_hour() -> prost_types::Timestamp {
    in_ms(3_600_000)
}

/// A campaign and a member who has joined; gives the member.
async fn set_up(caller: &As) -> v1::Member {
    let mut campaigns = CampaignServiceClient::new(caller.clone());
    let create =
        |validate_only| v1::CreateCampaignRequest { campaign: Some(campaign()), validate_only, ..Default::default() };
    campaigns.create_campaign(create(true)).await.expect("valid");
    campaigns.create_campaign(create(false)).await.expect("created");
    let again = campaigns.create_campaign(create(true)).await.expect_err("exists");
    assert_eq!((again.code(), reason(&again).as_str()), (Code::AlreadyExists, "CAMPAIGN_EXISTS"));
    let mut members = MemberServiceClient::new(caller.clone());
    let made = members.register_member(member_request()).await.expect("registered").into_inner();
    let again = members.register_member(member_request()).await.expect("the same").into_inner();
    assert_eq!(made, again);
    made.member.expect("answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumptions_and_the_ledger() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let member = set_up(&caller).await;
    let mut ingest = IngestServiceClient::new(caller.clone());
    let mut record = async |c: v1::Consumption| {
        let request = v1::RecordConsumptionRequest { consumption: Some(c) };
        ingest.record_consumption(request).await.map(|answer| answer.into_inner().receipt.expect("answered"))
    };
    let mut campaigns = CampaignServiceClient::new(caller.clone());
    let simulate = v1::SimulateConsumptionRequest { consumption: Some(consumption("I1", 1.0)) };
    let simulated = campaigns.simulate_consumption(simulate.clone()).await.expect("simulated").into_inner().receipt;
    let receipt = record(consumption("I1", 1.0)).await.expect("accepted");
    assert_eq!((receipt.points, receipt.coins, receipt.stamps), (150, 3, 1));
    let simulated = simulated.expect("answered");
    assert_eq!((simulated.sequence, &simulated.new_balances), (0, &receipt.new_balances));

    let repeated = record(consumption("I1", 1.0)).await.expect_err("repeated");
    assert_eq!((repeated.code(), reason(&repeated).as_str()), (Code::AlreadyExists, "CONSUMPTION_EXISTS"));
    let info = repeated.get_details_error_info().expect("has one");
    assert_eq!(info.metadata["sequence"], receipt.sequence.to_string());
    let simulated = campaigns.simulate_consumption(simulate).await.expect_err("its id is used up");
    assert_eq!(reason(&simulated), "CONSUMPTION_EXISTS");
    for (spoilt, code, expected, field) in [
        (consumption("", 1.0), Code::InvalidArgument, "CONSUMPTION_ID_REQUIRED", Some("consumption.consumption_id")),
        (consumption("I1", 2.0), Code::AlreadyExists, "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT", None),
        (consumption("I2", 0.5), Code::InvalidArgument, "INVALID_QUANTITY", Some("consumption.lines[0].quantity")),
        (consumption("I2", f64::NAN), Code::InvalidArgument, "INVALID_QUANTITY", Some("consumption.lines[0].quantity")),
    ] {
        let refused = record(spoilt).await.expect_err(expected);
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, expected));
        let named = refused.get_details_bad_request().map(|bad| bad.field_violations[0].field.clone());
        assert_eq!(named.as_deref(), field);
    }

    let consumptions = vec![consumption("B1", 1.0), consumption("I1", 1.0), consumption("B2", 2.0)];
    let batch = v1::BatchRecordConsumptionsRequest { consumptions };
    let results = ingest.batch_record_consumptions(batch).await.expect("answered").into_inner().results;
    let accepted = |results: &[v1::ConsumptionResult]| -> Vec<bool> {
        let is_receipt =
            |r: &v1::ConsumptionResult| matches!(r.outcome, Some(v1::consumption_result::Outcome::Receipt(_)));
        results.iter().map(is_receipt).collect()
    };
    assert_eq!(accepted(&results), [true, false, true]);
    let batch = v1::BatchRecordConsumptionsRequest { consumptions: vec![consumption("I1", 1.0), consumption("", 1.0)] };
    let results = ingest.batch_record_consumptions(batch).await.expect("answered").into_inner().results;
    let Some(v1::consumption_result::Outcome::Error(error)) = &results[1].outcome else { panic!("{results:?}") };
    let field = &error.get_details_bad_request().expect("names it").field_violations[0].field;
    assert_eq!(field, "consumptions[1].consumption_id");
    let too_many = v1::BatchRecordConsumptionsRequest { consumptions: vec![consumption("X", 1.0); 1_001] };
    assert_eq!(ingest.batch_record_consumptions(too_many).await.expect_err("refused").code(), Code::InvalidArgument);

    let messages = (0..600).map(|i| v1::StreamConsumptionsRequest {
        consumption: (i != 7).then(|| consumption(&format!("S{i}"), if i == 300 { 0.0 } else { 1.0 })),
    });
    let answers = ingest.stream_consumptions(tokio_stream::iter(messages)).await.expect("opened").into_inner();
    let results: Vec<v1::ConsumptionResult> =
        answers.map(|answer| answer.expect("never ends the stream").result.expect("answered")).collect().await;
    let expected: Vec<bool> = (0..600).map(|i| i != 7 && i != 300).collect();
    assert_eq!(accepted(&results), expected);

    let mut ledger = LedgerServiceClient::new(caller.clone());
    let member_id = member.member_id.clone();
    let request = v1::GetBalancesRequest { member_id: member_id.clone(), at: None };
    let balances = ledger.get_balances(request).await.expect("answered").into_inner().balances;
    let units = 1 + 3 + 598;
    assert_eq!(balances.iter().map(|b| b.amount).collect::<Vec<_>>(), [150 * units, 3 * units]);
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListEntriesRequest { member_id: member_id.clone(), page_size: 500, page_token };
        let page = ledger.list_entries(request).await.expect("answered").into_inner();
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(entries.len(), 2 * 601);
    assert!(entries.windows(2).all(|pair| pair[0].sequence > pair[1].sequence), "newest first");
    let oldest = entries.last().expect("there are some");
    let request = v1::ExplainEntryRequest { sequence: oldest.sequence };
    let explained = ledger.explain_entry(request).await.expect("explained").into_inner();
    assert_eq!(
        explained.explanation,
        "150 points because rule 'review' of campaign 'velo-club' gives 150 a unit of 'velo_review', \
         line 0 × 1 of consumption I1"
    );
    assert!(explained.rule_json.contains("velo_review"));
    assert_eq!(explained.cause.expect("named").sequence, receipt.sequence);
    let request = v1::AdjustBalanceRequest {
        member_id: member_id.clone(),
        currency: Some(v1::adjust_balance_request::Currency::Coins(true)),
        amount: -1_000_000,
        reason: "a mistake".into(),
        ..Default::default()
    };
    let refused = ledger.adjust_balance(request).await.expect_err("too much");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "INSUFFICIENT_BALANCE"));
    let punchcards = ledger.list_punchcards(v1::ListPunchcardsRequest { member_id }).await.expect("answered");
    let punchcard = &punchcards.get_ref().punchcards[0];
    assert_eq!((punchcard.stamps, punchcard.rows_completed, punchcard.next_step), (2, 60, 5));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_consumption_refused_is_counted() {
    let recorder = crate::telemetry::install_metrics().expect("the only one of this process");
    let counted = |reason: &str| {
        let series = format!("punchline_ingest_rejections_total{{reason=\"{reason}\"}} ");
        let text = recorder.render();
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let reader = running.advertiser("2", vec![v1::Scope::Read.into()]).await;
    let empty = || v1::RecordConsumptionRequest { consumption: None };
    for (who, reason) in [
        (running.with(&[]), "CREDENTIALS_MISSING"),
        (running.with(&[("authorization", "Bearer x.y.z")]), "INVALID_CREDENTIALS"),
        (reader, "SCOPE_MISSING"),
        (caller.clone(), "REQUEST_BODY_REQUIRED"),
    ] {
        // Other tests of this process count too.
        let before = counted(reason);
        IngestServiceClient::new(who).record_consumption(empty()).await.expect_err(reason);
        assert!(counted(reason) > before, "{reason}");
    }
    let before = counted("REQUEST_BODY_REQUIRED");
    let messages = tokio_stream::iter([v1::StreamConsumptionsRequest { consumption: None }]);
    let mut answers =
        IngestServiceClient::new(caller).stream_consumptions(messages).await.expect("opened").into_inner();
    answers.next().await.expect("answered").expect("goes on");
    assert!(counted("REQUEST_BODY_REQUIRED") > before, "of a stream");
    drop(answers);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_member_has_its_balances_and_is_found_by_nobody() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let member = set_up(&caller).await;
    let member_id = member.member_id.clone();
    let mut members = MemberServiceClient::new(caller.clone());
    let erase = |member_id: &str| v1::EraseMemberRequest { member_id: member_id.into() };
    let reader = running.advertiser("2", vec![v1::Scope::Read.into()]).await;
    let unscoped = MemberServiceClient::new(reader).erase_member(erase(&member_id)).await.expect_err("read only");
    assert_eq!(reason(&unscoped), "SCOPE_MISSING");
    for _ in 0..2 {
        let erased = members.erase_member(erase(&member_id)).await.expect("erased").into_inner().member;
        let erased = erased.expect("answered");
        assert!(erased.erased_at.is_some() && erased.identifiers.is_empty(), "{erased:?}");
        assert_eq!((erased.profile, erased.cards.len()), (Some(v1::Profile::default()), member.cards.len()));
    }
    let identifier = Some(v1::Identifier { key: "email".into(), value: "user@example.com".into() });
    let lookup = v1::LookupMemberRequest { identifier };
    let nobody = members.lookup_member(lookup).await.expect_err("nobody");
    assert_eq!(reason(&nobody), "ACCOUNT_NOT_FOUND");
    let block = v1::BlockMemberRequest { member_id: member_id.clone(), reason: "late".into() };
    let refused = members.block_member(block).await.expect_err("erased");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "MEMBER_ERASED"));
    let mut ledger = LedgerServiceClient::new(caller.clone());
    ledger
        .get_balances(v1::GetBalancesRequest { member_id: member_id.clone(), ..Default::default() })
        .await
        .expect("there");
    let repeated = members.register_member(member_request()).await.expect_err("what it was is not known");
    assert_eq!(reason(&repeated), "MEMBER_ERASED");
    let request = v1::RegisterMemberRequest { request_id: "member-2".into(), ..member_request() };
    let again = members.register_member(request).await.expect("free again").into_inner().member;
    assert_ne!(again.expect("answered").member_id, member_id);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_walls() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let other = running.advertiser("2", vec![v1::Scope::Read.into()]).await;
    let member = set_up(&caller).await;
    let mut members = MemberServiceClient::new(caller.clone());
    let update = |paths: &[&str], etag: &str| v1::UpdateMemberRequest {
        member_id: member.member_id.clone(),
        profile: Some(v1::Profile { first_name: "Ana".into(), locale: "ro-RO".into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|p| (*p).to_owned()).collect() }),
        etag: etag.into(),
        ..Default::default()
    };
    let updated = members.update_member(update(&["profile.locale"], &member.etag)).await.expect("updated").into_inner();
    let profile = updated.member.expect("answered").profile.expect("has one");
    assert_eq!((profile.locale.as_str(), profile.first_name.as_str()), ("ro-RO", ""));
    for (request, code, expected) in [
        (update(&["profile"], &member.etag), Code::Aborted, "ETAG_MISMATCH"),
        (update(&["profile.shoe_size"], ""), Code::InvalidArgument, "INVALID_FIELD"),
    ] {
        let refused = members.update_member(request).await.expect_err(expected);
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, expected));
    }
    let member_id = member.member_id.clone();
    let block = v1::BlockMemberRequest { member_id: member_id.clone(), reason: "fraud".into() };
    let blocked = members.block_member(block).await.expect("blocked").into_inner().member.expect("answered");
    assert_eq!((blocked.blocked, blocked.blocked_reason.as_str()), (true, "fraud"));
    let identifier = Some(v1::Identifier { key: "email".into(), value: " USER@example.com".into() });
    let found = members.lookup_member(v1::LookupMemberRequest { identifier }).await.expect("found").into_inner();
    assert_eq!(found.member.expect("answered").member_id, member_id);
    let listed = members.list_members(v1::ListMembersRequest::default()).await.expect("listed").into_inner();
    assert_eq!((listed.members.len(), listed.next_page_token.as_str()), (1, ""));

    let get = || v1::GetMemberRequest { member_id: member_id.clone() };
    let refused = |status: Status| (status.code(), reason(&status));
    let nobody = running.with(&[]);
    let token = "Bearer x.y.z";
    let operator = format!("Bearer {OPERATOR}");
    for (who, code, expected) in [
        (nobody, Code::Unauthenticated, "CREDENTIALS_MISSING"),
        (running.with(&[("authorization", token)]), Code::Unauthenticated, "INVALID_CREDENTIALS"),
        (running.with(&[("authorization", &operator)]), Code::InvalidArgument, "ADVERTISER_REQUIRED"),
        (running.operator_for("3"), Code::NotFound, "ADVERTISER_NOT_FOUND"),
        (other.clone(), Code::NotFound, "MEMBER_NOT_FOUND"),
        (running.operator_for("2"), Code::NotFound, "MEMBER_NOT_FOUND"),
    ] {
        let got = MemberServiceClient::new(who).get_member(get()).await.expect_err(expected);
        assert_eq!(refused(got), (code, expected.to_owned()));
    }
    let unscoped =
        MemberServiceClient::new(other.clone()).register_member(member_request()).await.expect_err("read only");
    assert_eq!(refused(unscoped), (Code::PermissionDenied, "SCOPE_MISSING".into()));
    let status =
        AdminServiceClient::new(other.clone()).get_status(v1::GetStatusRequest {}).await.expect_err("no operator");
    assert_eq!(refused(status), (Code::PermissionDenied, "OPERATOR_REQUIRED".into()));
    let entry = v1::ExplainEntryRequest { sequence: 1 };
    let foreign = LedgerServiceClient::new(other.clone()).explain_entry(entry).await.expect_err("another's");
    assert_eq!(refused(foreign), (Code::NotFound, "ENTRY_NOT_FOUND".into()));

    let mut admin = AdminServiceClient::new(running.operator_for("2"));
    admin.revoke_credential(v1::RevokeCredentialRequest { api_key: "key-2".into() }).await.expect("revoked");
    let revoked = MemberServiceClient::new(other).get_member(get()).await.expect_err("revoked");
    assert_eq!(refused(revoked), (Code::Unauthenticated, "INVALID_CREDENTIALS".into()));
    let status = admin.get_status(v1::GetStatusRequest {}).await.expect("answered").into_inner();
    assert_eq!((status.writable, status.members), (true, 1));
    let verified = admin.verify(v1::VerifyRequest {}).await.expect("verified").into_inner();
    assert_eq!((verified.ok, verified.difference.as_str()), (true, ""));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_deliveries_and_events() {
    let running = Running::start().await;
    let caller = running.advertiser("1000000001", vec![]).await;
    let other = running.advertiser("2", vec![]).await;
    let member = set_up(&caller).await;
    running.courier.always(URL, Step::Status(500));
    let mut subscriptions = SubscriptionServiceClient::new(caller.clone());
    let given = || v1::Subscription {
        url: URL.into(),
        event_types: vec!["points.*".into()],
        headers: [("x-key".to_owned(), "s3cret".to_owned())].into(),
        no_retries: true,
        ..Default::default()
    };
    let create =
        v1::CreateSubscriptionRequest { subscription: Some(given()), request_id: "s".into(), ..Default::default() };
    let made = subscriptions.create_subscription(create.clone()).await.expect("created").into_inner();
    assert!(made.secret.starts_with("whsec_"));
    let again = subscriptions.create_subscription(create).await.expect("the same").into_inner();
    assert_eq!(again.secret, "", "a secret is answered once");
    let secret = made.secret;
    let made = made.subscription.expect("answered");
    assert_eq!(again.subscription.expect("answered").subscription_id, made.subscription_id);
    let id = made.subscription_id.clone();
    let private = v1::Subscription { url: "https://127.0.0.1/".into(), ..given() };
    let create = v1::CreateSubscriptionRequest { subscription: Some(private), ..Default::default() };
    let refused = subscriptions.create_subscription(create).await.expect_err("private");
    assert_eq!(refused.get_details_bad_request().expect("names it").field_violations[0].field, "url");
    let update = v1::Subscription { subscription_id: id.clone(), description: "CRM".into(), ..made.clone() };
    let request = v1::UpdateSubscriptionRequest { subscription: Some(update) };
    let updated = subscriptions.update_subscription(request).await.expect("updated, secrets kept").into_inner();
    assert_eq!(updated.subscription.expect("answered").description, "CRM");

    let mut ingest = IngestServiceClient::new(caller.clone());
    let request = v1::RecordConsumptionRequest { consumption: Some(consumption("I1", 1.0)) };
    let receipt = ingest.record_consumption(request).await.expect("accepted").into_inner().receipt.expect("answered");
    let mut deliveries = DeliveryServiceClient::new(caller.clone());
    let list = || v1::ListDeadLettersRequest { subscription_id: id.clone(), ..Default::default() };
    let dead = loop {
        let dead = deliveries.list_dead_letters(list()).await.expect("listed").into_inner().dead_letters;
        if let Some(dead) = dead.into_iter().next() {
            break dead;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((dead.event_type.as_str(), dead.attempts, dead.last_status), ("points.credited", 1, 500));
    assert_eq!(dead.member_id, member.member_id);
    let (subscription_id, sequence) = (id.clone(), dead.sequence);
    let foreign = v1::GetDeliveryRequest { subscription_id: id.clone(), sequence };
    let refused = DeliveryServiceClient::new(other).get_delivery(foreign).await.expect_err("another's");
    assert_eq!(reason(&refused), "SUBSCRIPTION_NOT_FOUND");
    let request = v1::GetDeliveryRequest { subscription_id: id.clone(), sequence: receipt.sequence };
    let unselected = deliveries.get_delivery(request).await.expect("answered").into_inner().delivery.expect("answered");
    assert_eq!(unselected.state(), v1::DeliveryState::NotSelected);
    let preview = v1::RedriveDeadLettersRequest { subscription_id: id.clone(), preview: true, ..Default::default() };
    let count = deliveries.redrive_dead_letters(preview).await.expect("counted").into_inner().redriven;
    assert_eq!(count, 1);
    running.courier.always(URL, Step::Status(204));
    let retry = v1::RetryDeliveryRequest { subscription_id, sequence };
    let retried = deliveries.retry_delivery(retry).await.expect("retried").into_inner().delivery.expect("answered");
    assert_eq!((retried.state(), retried.attempts), (v1::DeliveryState::Delivered, 2));
    let request = v1::ListAttemptsRequest { subscription_id: id.clone(), sequence };
    let attempts = deliveries.list_attempts(request).await.expect("listed").into_inner().attempts;
    assert_eq!(attempts.iter().map(|a| a.status).collect::<Vec<_>>(), [500, 204]);

    let request = v1::TestSubscriptionRequest { subscription_id: id.clone(), ..Default::default() };
    let tested = subscriptions.test_subscription(request).await.expect("tested").into_inner();
    assert_eq!(tested.status, 204);
    assert!(String::from_utf8_lossy(&tested.request_body).contains("points.credited"));
    let types =
        subscriptions.list_event_types(v1::ListEventTypesRequest::default()).await.expect("listed").into_inner();
    assert!(types.event_types.iter().any(|t| t.name == "coins.changed" && t.example_json.contains("new_balance")));
    let pause = v1::PauseSubscriptionRequest { subscription_id: id.clone(), reason: "maintenance".into() };
    let paused = subscriptions.pause_subscription(pause).await.expect("paused").into_inner().subscription;
    assert_eq!(paused.expect("answered").state(), v1::SubscriptionState::Paused);
    let rotate = v1::RotateSecretRequest { subscription_id: id.clone(), secret: secret.clone(), ..Default::default() };
    let refused = subscriptions.rotate_secret(rotate).await.expect_err("signs already");
    assert_eq!(refused.get_details_bad_request().expect("names it").field_violations[0].field, "secret");
    assert!(!refused.message().contains(&secret));
    let rotate = v1::RotateSecretRequest { subscription_id: id.clone(), ..Default::default() };
    assert!(subscriptions.rotate_secret(rotate).await.expect("rotated").into_inner().secret.starts_with("whsec_"));
    let delete = v1::DeleteSubscriptionRequest { subscription_id: id.clone() };
    subscriptions.delete_subscription(delete).await.expect("deleted");
    let gone =
        subscriptions.get_subscription(v1::GetSubscriptionRequest { subscription_id: id }).await.expect_err("gone");
    assert_eq!((gone.code(), reason(&gone).as_str()), (Code::NotFound, "SUBSCRIPTION_NOT_FOUND"));

    let mut events = EventServiceClient::new(caller.clone());
    let filter = || Some(v1::EventFilter { event_types: vec!["points.*".into()], ..Default::default() });
    let read = v1::ReadEventsRequest { filter: filter(), ..Default::default() };
    let page = events.read_events(read).await.expect("read").into_inner();
    assert_eq!(page.events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [sequence]);
    assert!(page.next_sequence > page.head_sequence);
    let start = Some(v1::subscribe_request::Start::FromTime(prost_types::Timestamp { seconds: 0, nanos: 0 }));
    let subscribe = v1::SubscribeRequest { start, filter: filter(), heartbeat_ms: 100 };
    let mut stream = events.subscribe(subscribe).await.expect("opened").into_inner();
    let mut kinds = Vec::new();
    while kinds.len() < 4 {
        use v1::subscribe_response::Kind;
        let message = stream.next().await.expect("goes on").expect("fine").kind.expect("has one");
        kinds.push(match message {
            Kind::Event(event) => event.r#type,
            Kind::CaughtUp(_) => {
                let request = v1::RecordConsumptionRequest { consumption: Some(consumption("I2", 1.0)) };
                ingest.record_consumption(request).await.expect("accepted");
                "caught up".into()
            }
            Kind::Heartbeat(_) if kinds.len() < 3 => continue,
            Kind::Heartbeat(_) => "heartbeat".into(),
            Kind::FellBehind(_) => "fell behind".into(),
        });
    }
    assert_eq!(kinds, ["points.credited", "caught up", "points.credited", "heartbeat"]);
    let mut admin = AdminServiceClient::new(running.operator_for("1000000001"));
    admin.revoke_credential(v1::RevokeCredentialRequest { api_key: "key-1000000001".into() }).await.expect("revoked");
    let until_refused = async {
        loop {
            if let Err(status) = stream.next().await.expect("ends with why") {
                break status;
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(5), until_refused).await.expect("a stream ends with its key");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "INVALID_CREDENTIALS"));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_and_the_framework_refuse_with_reasons() {
    let running = Running::limited(4).await;
    let caller = running.advertiser("1000000001", vec![]).await;
    set_up(&caller).await;
    let mut ingest = IngestServiceClient::new(caller.clone());
    let batch = |n| v1::BatchRecordConsumptionsRequest { consumptions: vec![consumption("I1", 1.0); n] };
    ingest.batch_record_consumptions(batch(2)).await.expect("within the limit");
    for (count, is_worth_trying) in [(3, true), (5, false)] {
        let limited = ingest.batch_record_consumptions(batch(count)).await.expect_err("too many");
        assert_eq!((limited.code(), reason(&limited).as_str()), (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED"));
        assert!(limited.get_details_quota_failure().is_some());
        assert_eq!(limited.get_details_retry_info().is_some(), is_worth_trying, "{count}");
    }
    let message = |i| v1::StreamConsumptionsRequest { consumption: Some(consumption(&format!("S{i}"), 1.0)) };
    let messages = tokio_stream::iter((0..3).map(message));
    let answers = ingest.stream_consumptions(messages).await.expect("opened").into_inner();
    let outcome = |answer: Result<v1::StreamConsumptionsResponse, Status>| match answer
        .expect("never ends the stream")
        .result
        .expect("answered")
        .outcome
        .expect("has one")
    {
        v1::consumption_result::Outcome::Receipt(_) => String::from("accepted"),
        v1::consumption_result::Outcome::Error(error) => error.message,
    };
    let outcomes: Vec<String> = answers.map(outcome).collect().await;
    assert_eq!(outcomes, ["accepted", "accepted", "Rate limit exceeded"], "what fits is taken in");

    let long = v1::Consumption { consumption_id: "x".repeat(5 * 1024 * 1024), ..consumption("", 1.0) };
    let request = v1::RecordConsumptionRequest { consumption: Some(long) };
    let mut nobody = IngestServiceClient::new(running.with(&[]));
    let refused = nobody.record_consumption(request.clone()).await.expect_err("unknown");
    let unknown = (Code::Unauthenticated, "CREDENTIALS_MISSING");
    assert_eq!((refused.code(), reason(&refused).as_str()), unknown, "known before the message is read");
    let refused = ingest.record_consumption(request).await.expect_err("too large");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::OutOfRange, "MESSAGE_TOO_LARGE"));

    let mut grpc = tonic::client::Grpc::new(caller);
    for (path, code, expected) in [
        ("/punchline.v1.MemberService/Nothing", Code::Unimplemented, "METHOD_NOT_FOUND"),
        ("/punchline.v1.NothingService/Nothing", Code::Unimplemented, "METHOD_NOT_FOUND"),
        // A member id is a string, and 0xff is no UTF-8.
        ("/punchline.v1.MemberService/GetMember", Code::InvalidArgument, "MALFORMED_MESSAGE"),
    ] {
        grpc.ready().await.expect("there");
        // A message whose field 1 is bytes on the wire.
        let codec = tonic_prost::ProstCodec::<Vec<u8>, v1::GetMemberResponse>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let refused = grpc.unary(Request::new(vec![0xff_u8]), path, codec).await.expect_err(expected);
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, expected));
    }
    running.end().await;
}
