//! What every scenario needs: a server with a campaign and members, consumptions for it, and ways to send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use punchline_engine::loyalty::tenant::SUBSCRIPTIONS_MAX;
use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;
use punchline_tests::api::Api;
use punchline_tests::server::Server;
use tokio::task::JoinSet;

const CAMPAIGN: &str = "bench";
/// Connections that calls are spread over.
const LINES: usize = 4;
/// Members in one call.
const MEMBERS_AT_ONCE: usize = 250;
/// Consumptions in one call.
pub const BATCH: usize = 500;
/// Batches under way.
const BATCHES: usize = 8;
/// Single calls under way.
pub const IN_FLIGHT: usize = 256;
/// Subscriptions that are made or changed at once.
const SUBSCRIBING: usize = 64;

/// A server under load, and who calls it.
pub struct Load {
    pub server: Server,
    pub api: Api,
    /// The same, each over a connection of its own.
    pub lines: Vec<Api>,
    members: u64,
    next: Arc<AtomicU64>,
}

impl Load {
    /// A server with `members` members who have joined a campaign of two rules and a punchcard.
    pub async fn start(members: u64) -> Load {
        let server = Server::setup().with("log.filter", "warn").start().await;
        let (advertiser_id, api) = server.operator().new_advertiser("Bench").await;
        let campaign = v1::CreateCampaignRequest { campaign: Some(campaign()), ..Default::default() };
        api.campaigns().create_campaign(campaign).await.expect("the campaign is accepted");
        let lines = (0..LINES).map(|_| server.operator().advertiser(&advertiser_id)).collect();
        let mut load = Load { server, api, lines, members: 0, next: Arc::default() };
        load.register(members).await;
        load
    }

    /// Registers members until there are so many.
    pub async fn register(&mut self, upto: u64) {
        let mut registering = JoinSet::new();
        for (n, api) in self.lines.iter().cloned().enumerate() {
            let ids = (self.members + n as u64..upto).step_by(LINES);
            registering.spawn(async move {
                let mut requests = ids.map(|n| v1::RegisterMemberRequest {
                    identifiers: vec![phone(n)],
                    join_campaign_ids: vec![CAMPAIGN.into()],
                    suppress_events: true,
                    ..Default::default()
                });
                loop {
                    let requests: Vec<_> = requests.by_ref().take(MEMBERS_AT_ONCE).collect();
                    if requests.is_empty() {
                        return;
                    }
                    let request = v1::BatchRegisterMembersRequest { requests };
                    let answer = api.members().batch_register_members(request).await.expect("members are registered");
                    let registered = |r: &v1::RegisterMemberResult| {
                        matches!(r.outcome, Some(v1::register_member_result::Outcome::MemberId(_)))
                    };
                    assert!(answer.into_inner().results.iter().all(registered), "all of them");
                }
            });
        }
        registering.join_all().await;
        self.members = upto.max(self.members);
    }

    /// Makes consumptions, each with an id of its own.
    pub fn source(&self) -> Source {
        Source { members: self.members, next: self.next.clone() }
    }

    /// Consumptions made so far.
    pub fn consumptions(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Seconds of CPU that the server has used.
    pub fn cpu_seconds(&self) -> f64 {
        crate::process::cpu_seconds(&self.server.pid().to_string())
    }

    /// Resident memory of the server.
    pub fn resident_mb(&self) -> f64 {
        self.server.resident_bytes() as f64 / 1e6
    }

    /// Sends batches for a while, or until `most` consumptions were accepted; gives how many, and in what time.
    pub async fn batches(&self, run: Duration, most: u64) -> (u64, f64) {
        let (watch, begun) = (Stopwatch::start(), Arc::new(AtomicU64::new(0)));
        let mut senders = JoinSet::new();
        for n in 0..BATCHES {
            let (mut client, source, begun) = (self.lines[n % LINES].ingest(), self.source(), begun.clone());
            senders.spawn(async move {
                let mut accepted = 0;
                while watch.elapsed() < run {
                    let before = begun.fetch_add(BATCH as u64, Ordering::Relaxed);
                    let batch = most.saturating_sub(before).min(BATCH as u64) as usize;
                    if batch == 0 {
                        break;
                    }
                    let consumptions = (0..batch).map(|_| source.next()).collect();
                    let request = v1::BatchRecordConsumptionsRequest { consumptions };
                    let results =
                        client.batch_record_consumptions(request).await.expect("answered").into_inner().results;
                    assert!(results.len() == batch && results.iter().all(is_accepted), "all are accepted");
                    accepted += batch as u64;
                }
                accepted
            });
        }
        let accepted = senders.join_all().await.into_iter().sum();
        (accepted, watch.seconds())
    }

    /// Makes `count` subscriptions, each as `make` says; where one advertiser may have no more, of further
    /// ones. Gives the first advertiser's.
    pub async fn subscribe(&self, count: usize, make: impl Fn(usize) -> v1::Subscription) -> Vec<String> {
        let (mut api, mut making, mut ids) = (self.api.clone(), JoinSet::new(), Vec::new());
        for n in 0..count {
            if n > 0 && n.is_multiple_of(SUBSCRIPTIONS_MAX) {
                api = self.server.operator().new_advertiser("More").await.1;
            }
            if making.len() >= SUBSCRIBING {
                ids.push(making.join_next().await.expect("there are some").expect("it is made"));
            }
            let (api, subscription) = (api.clone(), make(n));
            making.spawn(async move { (n, api.new_subscription(subscription).await.0) });
        }
        ids.extend(making.join_all().await);
        ids.sort();
        ids.into_iter().take(SUBSCRIPTIONS_MAX).map(|(_, id)| id).collect()
    }

    /// Pauses these subscriptions, so that what happens waits for them.
    pub async fn pause(&self, ids: &[String]) {
        for ids in ids.chunks(SUBSCRIBING) {
            let mut pausing = JoinSet::new();
            for subscription_id in ids.iter().cloned() {
                let mut subscriptions = self.api.subscriptions();
                let request = v1::PauseSubscriptionRequest { subscription_id, reason: "a backlog is made".into() };
                pausing.spawn(async move { subscriptions.pause_subscription(request).await.expect("it pauses") });
            }
            pausing.join_all().await;
        }
    }

    /// Resumes them.
    pub async fn resume(&self, ids: &[String]) {
        for ids in ids.chunks(SUBSCRIBING) {
            let mut resuming = JoinSet::new();
            for subscription_id in ids.iter().cloned() {
                let mut subscriptions = self.api.subscriptions();
                let request = v1::ResumeSubscriptionRequest { subscription_id };
                resuming.spawn(async move { subscriptions.resume_subscription(request).await.expect("it resumes") });
            }
            resuming.join_all().await;
        }
    }
}

/// Whether a consumption of a batch or stream was accepted.
pub fn is_accepted(result: &v1::ConsumptionResult) -> bool {
    matches!(result.outcome, Some(v1::consumption_result::Outcome::Receipt(_)))
}

/// Single calls, [`IN_FLIGHT`] under way: how many were answered, and in what time.
pub async fn calls(lines: &[Api], source: &Source, run: Duration) -> (u64, f64) {
    let (watch, mut callers) = (Stopwatch::start(), JoinSet::new());
    for n in 0..IN_FLIGHT {
        let (mut client, source) = (lines[n % lines.len()].ingest(), source.clone());
        callers.spawn(async move {
            let mut answered = 0_u64;
            while watch.elapsed() < run {
                let request = v1::RecordConsumptionRequest { consumption: Some(source.next()) };
                client.record_consumption(request).await.expect("answered");
                answered += 1;
            }
            answered
        });
    }
    let answered = callers.join_all().await.into_iter().sum();
    (answered, watch.seconds())
}

/// Single calls at a steady rate for as long as `goes_on`: how long each took, in milliseconds, sorted. What the
/// driver is late with it makes up for.
pub async fn steady(load: &Load, per_second: u64, goes_on: impl Fn() -> bool) -> Vec<f64> {
    let (watch, source) = (Stopwatch::start(), load.source());
    let (mut ticks, mut calls, mut sent) = (tokio::time::interval(Duration::from_millis(1)), JoinSet::new(), 0);
    while goes_on() {
        ticks.tick().await;
        let due = (watch.seconds() * per_second as f64) as usize;
        for n in sent..due {
            let (mut client, source) = (load.lines[n % LINES].ingest(), source.clone());
            calls.spawn(async move {
                let request = v1::RecordConsumptionRequest { consumption: Some(source.next()) };
                let watch = Stopwatch::start();
                client.record_consumption(request).await.expect("accepted");
                watch.seconds() * 1_000.0
            });
        }
        sent = due;
    }
    let mut times = calls.join_all().await;
    times.sort_by(f64::total_cmp);
    times
}

/// Makes consumptions, each with an id of its own.
#[derive(Clone)]
pub struct Source {
    members: u64,
    next: Arc<AtomicU64>,
}

impl Source {
    /// The next one: 10 points and a stamp, one in eight also a coin; members in a scattered order.
    pub fn next(&self) -> v1::Consumption {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let member = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.members;
        let sku = if n.is_multiple_of(8) { "coffee_and_tea" } else { "coffee" };
        v1::Consumption {
            consumption_id: format!("B{n:015}"),
            consumption_date: "2026-09-01T10:00:00Z".into(),
            identifiers: vec![phone(member)],
            lines: vec![v1::ConsumptionLine { sku: sku.into(), product_name: String::new(), quantity: 1.0 }],
        }
    }
}

fn phone(n: u64) -> v1::Identifier {
    v1::Identifier { key: "phoneNumber".into(), value: format!("407{n:08}") }
}

fn campaign() -> v1::Campaign {
    let stamps = || Some(v1::StampReward { punchcard_id: "card".into(), per_unit: 1 });
    let rule = |id: &str, sku: &str, coins| v1::EarningRule {
        rule_id: id.into(),
        skus: Some(v1::earning_rule::Skus::SkuExact(sku.into())),
        points: 10,
        coins,
        stamps: stamps(),
        ..Default::default()
    };
    v1::Campaign {
        campaign_id: CAMPAIGN.into(),
        rules: vec![rule("coffee", "coffee", 0), rule("both", "coffee_and_tea", 1)],
        punchcards: vec![v1::Punchcard { punchcard_id: "card".into(), row_length: 10, ..Default::default() }],
        ..Default::default()
    }
}
