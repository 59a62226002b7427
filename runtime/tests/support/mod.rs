//! A node over memory, with a scripted courier, and a small campaign.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod scene;

use std::sync::Arc;
use std::time::Duration;

use punchline_delivery::dialect::Dialects;
use punchline_delivery::endpoint::EndpointPolicy;
use punchline_delivery::scripted::ScriptedCourier;
use punchline_engine::command::{Action, Command};
use punchline_engine::dispatch::{BreakerPolicy, EventSelection, RetrySchedule, Subscription};
use punchline_engine::id::{AdvertiserId, Environment, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::campaign::{
    Campaign, EarningRule, Overflow, Punchcard, SkuSelector, StampReward, Validity,
};
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine};
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_engine::loyalty::programme::Programme;
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::time::UnixMillis;
use punchline_runtime::clock::TokioClock;
use punchline_runtime::committer::{Answer, Outcome};
use punchline_runtime::dispatch::dispatcher::Couriers;
use punchline_runtime::dispatch::target::Rulebook;
use punchline_runtime::node::{Node, NodeOptions, Recovery, Stores};
use punchline_runtime::seal::Sealer;
use punchline_storage::attempts::AttemptLimits;
use punchline_storage::memory::MemoryDisk;
use punchline_storage::views::Views;
use uuid::Uuid;

pub const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1_000_000_001), environment: Environment::Production };
pub const HOOK: &str = "http://hook.example/";

pub fn start(disk: &MemoryDisk, courier: &Arc<ScriptedCourier>) -> Node {
    try_start(disk, courier).expect("the node starts")
}

pub fn try_start(disk: &MemoryDisk, courier: &Arc<ScriptedCourier>) -> Result<Node, String> {
    start_with(disk, options(courier))
}

pub fn start_with(disk: &MemoryDisk, options: NodeOptions) -> Result<Node, String> {
    let (rows, keys) = (Arc::new(disk.rows()), Arc::new(disk.member_keys()));
    let views = Views::open(rows.clone(), keys.clone(), 1).map_err(|e| e.to_string())?;
    let checkpoint = views.checkpoint();
    let (journal, report) = disk.journal(checkpoint.0).map_err(|e| e.to_string())?;
    if report.head < checkpoint.0 {
        return Err(format!("the views are at {checkpoint}, the journal ends at {}", report.head));
    }
    let stores = Stores { journal: Arc::new(journal), rows, keys, free_bytes: Box::new(|| None) };
    Node::start(stores, Recovery::default(), options, None).map_err(|e| e.to_string())
}

pub fn options(courier: &Arc<ScriptedCourier>) -> NodeOptions {
    NodeOptions {
        clock: Arc::new(TokioClock::starting_at(UnixMillis(1_790_000_000_000))),
        couriers: Couriers { http: courier.clone(), segment: courier.clone() },
        delivering: None,
        rulebook: Rulebook {
            sealer: Arc::new(Sealer::new(&[7; 32])),
            policy: EndpointPolicy { allow_http: true, allow_private: Vec::new() },
            dialects: Arc::new(Dialects::builtin()),
        },
        queue_max: 10_000,
        in_flight_max: 1_000,
        reserve_bytes: 0,
        checkpoint_interval: Duration::from_millis(50),
        members_cached: 100,
        delivery_log: AttemptLimits::default(),
    }
}

pub async fn submit(node: &Node, action: Action) -> Answer {
    node.submitter().submit(Command { tenant: TENANT, request_id: None, action }).await
}

pub async fn accepted(node: &Node, action: Action) -> Sequence {
    match submit(node, action).await {
        Ok(Outcome::Accepted(stored)) => stored.first,
        other => panic!("accepted expected, not {other:?}"),
    }
}

/// Advertiser, campaign "club": `coffee` earns 10 points and a stamp of a ten-stamp card, `tea` a coin.
pub async fn set_up(node: &Node) {
    accepted(node, Action::CreateAdvertiser { advertiser_id: Some(TENANT.advertiser), name: "Acme".into() }).await;
    accepted(node, Action::CreateCampaign { campaign: campaign() }).await;
}

pub fn campaign() -> Campaign {
    let rule = |id: &str, sku: &str, points, coins, stamps| EarningRule {
        id: id.parse().expect("a slug"),
        skus: SkuSelector::Exact(sku.into()),
        points: Points(points),
        coins: Coins(coins),
        stamps,
        caps: Vec::new(),
        validity: Validity::default(),
        condition: None,
        coupon_book: None,
        external: None,
    };
    let stamps = StampReward { punchcard_id: "card".parse().expect("a slug"), per_unit: 1 };
    Campaign {
        id: "club".parse().expect("a slug"),
        name: "Club".into(),
        validity: Validity::default(),
        rules: vec![rule("coffee", "coffee", 10, 0, Some(stamps)), rule("tea", "tea", 0, 1, None)],
        punchcards: vec![Punchcard {
            id: "card".parse().expect("a slug"),
            name: "Card".into(),
            row_length: 10,
            steps: vec![5],
            overflow: Overflow::CarryOver,
            repeatable: true,
        }],
        dynamic_events: Vec::new(),
        programme: Programme::default(),
        version: 0,
    }
}

pub fn member_id(n: u128) -> MemberId {
    MemberId(Uuid::from_u128(n))
}

pub fn register(n: u128) -> Action {
    Action::RegisterMember {
        member_id: member_id(n),
        identifiers: vec![email(n)],
        profile: Profile::default(),
        registration_source: "test".into(),
        join: vec!["club".parse().expect("a slug")],
        quiet: false,
    }
}

pub fn email(n: u128) -> Identifier {
    Identifier::parse("identifiers[0]", "email", &format!("m{n}@example.com")).expect("an address")
}

pub fn consume(id: &str, member: u128, sku: &str, quantity: u32) -> Action {
    let raw = RawConsumption {
        consumption_id: id.into(),
        consumed_at: "2026-09-01T10:00:00Z".into(),
        identifiers: vec![("email".into(), format!("m{member}@example.com"))],
        lines: vec![RawLine { sku: sku.into(), product_name: String::new(), quantity: f64::from(quantity) }],
    };
    Action::RecordConsumption(raw.check(UnixMillis(1_790_000_000_000)).expect("a valid consumption"))
}

pub fn subscription_id(n: u128) -> SubscriptionId {
    SubscriptionId(Uuid::from_u128(n))
}

pub fn subscribe(node: &Node, n: u128, url: &str, types: &[&str], delays_ms: &[u64]) -> Action {
    let types = types.iter().map(|t| (*t).to_owned()).collect();
    Action::CreateSubscription {
        subscription: Subscription {
            event_types: EventSelection::parse("event_types", types).expect("types"),
            schedule: RetrySchedule { delays_ms: delays_ms.to_vec() },
            // Breakers have tests of their own.
            breaker: BreakerPolicy { failures: 0, ..BreakerPolicy::default() },
            ..Subscription::to(subscription_id(n), url)
        },
        secret: node.sealer().seal(punchline_runtime::dispatch::target::SIGNING_SECRET, &[3; 32]),
        owed_after: None,
    }
}

/// Polls until `check` gives something. Real time bounds it: the sequencer's threads are real.
pub async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..50_000 {
        if let Some(found) = check() {
            return found;
        }
        settle().await;
    }
    panic!("{what}: never came true");
}

pub async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    std::thread::sleep(Duration::from_micros(100));
}

/// Time that stands still until it is told to pass. Tokio's paused time would run on by itself
/// whenever everyone waits for the sequencer, which lives in real time.
pub struct StillTime(#[expect(dead_code, reason = "dropping it ends the hold")] std::sync::mpsc::Sender<()>);

impl StillTime {
    pub fn hold() -> StillTime {
        tokio::time::pause();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        // While a blocking task runs, paused time does not advance by itself.
        tokio::task::spawn_blocking(move || held.recv());
        StillTime(hold)
    }

    /// Lets time pass in steps until `check` gives something, `most` at the most.
    pub async fn pass_until<T>(
        &self,
        what: &str,
        step: Duration,
        most: Duration,
        mut check: impl FnMut() -> Option<T>,
    ) -> T {
        let mut passed = Duration::ZERO;
        while passed < most {
            for _ in 0..5 {
                settle().await;
                if let Some(found) = check() {
                    return found;
                }
            }
            tokio::time::advance(step).await;
            passed += step;
        }
        panic!("{what}: not within {most:?}");
    }
}

/// A member's balance of points in "club", coins, stamps and rows.
pub async fn balances(node: &Node, n: u128) -> (i64, i64, u64, u64) {
    let read = move |views: &mut punchline_storage::views::Views| {
        let member = views.member(TENANT, member_id(n)).expect("readable").expect("registered").clone();
        let card = member.cards[0].clone();
        let (stamps, rows) = card.row(&"card".parse().expect("a slug"));
        (card.points.balance, member.coins.balance, stamps.0, rows)
    };
    node.submitter().read(read).await.expect("reads are served")
}
