//! The hot paths, each in one thread and many times over: what `instructions` counts.
//!
//! Everything comes from the crates that the server is made of, on stores in memory; what waits for a disk, a
//! socket or another thread is left out.

use std::sync::Arc;

use punchline_delivery::dialect::Dialects;
use punchline_delivery::endpoint::EndpointPolicy;
use punchline_engine::command::{Action, Command};
use punchline_engine::decide::{Decision, EmptyWorld, WorkingSet, decide, resolve};
use punchline_engine::dispatch::{AttemptLog, EventSelection, Subscription};
use punchline_engine::event::{Event, Record};
use punchline_engine::filter::Filter;
use punchline_engine::id::{AdvertiserId, Environment, KeySlot, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::campaign::{
    Campaign, EarningRule, Overflow, Punchcard, SkuSelector, StampReward, Validity,
};
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine};
use punchline_engine::loyalty::ledger::House;
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_engine::loyalty::programme::Programme;
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::time::UnixMillis;
use punchline_runtime::dispatch::lanes::{Lanes, Rules, Settled};
use punchline_runtime::dispatch::target::{Rulebook, SIGNING_SECRET, Target};
use punchline_runtime::seal::Sealer;
use punchline_storage::codec;
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::memory::MemoryDisk;
use punchline_storage::views::Views;
use uuid::Uuid;

const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1_000_000_001), environment: Environment::Production };
/// Whose the taking on of advertisers is.
const NOBODY: Tenant = Tenant { advertiser: AdvertiserId(0), environment: Environment::Production };
const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const MEMBERS: u64 = 100;
/// Deliveries under way.
const PLACES: usize = 64;
/// Rows in one report.
const ROWS_REPORTED_MAX: usize = 256;

/// A path that is counted.
pub struct Path {
    pub name: &'static str,
    /// How often: enough that what is done once, and differs with the hash maps' seeds, does not show.
    pub operations: u64,
    run: fn(u64),
}

pub const PATHS: &[Path] = &[
    Path { name: "consume", operations: 1_000, run: consume },
    Path { name: "webhook", operations: 4_000, run: webhook },
    Path { name: "filter", operations: 4_000, run: filter },
    Path { name: "lanes", operations: 5_000, run: lanes },
];

/// Runs a path so many times.
pub fn run(arguments: &[String]) {
    let [name, count] = arguments else { panic!("path and count") };
    let path = PATHS.iter().find(|path| path.name == name).expect("a path");
    (path.run)(count.parse().expect("a count"));
}

/// A consumption is decided, encoded and applied.
fn consume(count: u64) {
    let mut engine = Engine::start();
    for n in 0..count {
        engine.consume(n);
    }
}

/// A delivery is rendered and signed.
fn webhook(count: u64) {
    let mut engine = Engine::start();
    let rulebook = Rulebook {
        sealer: Arc::new(Sealer::new(&[7; 32])),
        policy: EndpointPolicy { allow_http: true, allow_private: Vec::new() },
        dialects: Arc::new(Dialects::builtin()),
    };
    let id = SubscriptionId(Uuid::from_u128(1));
    engine.carry_out(Action::CreateSubscription {
        subscription: Subscription {
            event_types: EventSelection::parse("event_types", vec!["*".into()]).expect("all types"),
            ..Subscription::to(id, "http://hook.example/")
        },
        secret: rulebook.sealer.seal(SIGNING_SECRET, &[3; 32]),
        owed_after: None,
    });
    let (_, entry) = engine.views.directory().subscription(id).expect("it was created");
    let target = Target::new(entry, &rulebook).expect("it can be sent to");
    let (first, record) = engine.consume(0);
    let credited = credited(&record, first);
    for n in 0..count {
        let recorded = record.recorded(first, credited);
        let request = target.request(&recorded, 1, NOW.plus_ms(n as i64)).expect("it can be told");
        std::hint::black_box(request);
    }
}

/// A filter looks into an event.
fn filter(count: u64) {
    let mut engine = Engine::start();
    let text = "event.type == 'points.credited' && event.data.amount >= 100";
    let filter = Filter::parse(text).expect("it is one").expect("it is not empty");
    let (first, record) = engine.consume(0);
    let credited = credited(&record, first);
    for _ in 0..count {
        assert!(!filter.passes(&record.recorded(first, credited)), "it was ten points");
    }
}

/// Deliveries are taken in, taken up, settled and reported.
fn lanes(count: u64) {
    let mut lanes = Lanes::new(Rules::default(), Sequence(0), Vec::new());
    for n in 1..=count {
        lanes.offer(Sequence(n), Some(member_id(n % MEMBERS)));
        if n.is_multiple_of(PLACES as u64) || n == count {
            while let Some(task) = lanes.take(PLACES) {
                let log = AttemptLog {
                    number: task.attempt,
                    at: NOW,
                    latency_ms: 1,
                    status: Some(200),
                    error: String::new(),
                    response: Vec::new(),
                    key_slot: KeySlot::NONE,
                };
                lanes.settle(task.sequence, Settled::Delivered, 1, log);
            }
            std::hint::black_box(lanes.report(ROWS_REPORTED_MAX));
        }
    }
    assert_eq!(lanes.pending(), 0, "all are delivered");
}

fn credited(record: &Record, first: Sequence) -> usize {
    let is_credited = |i: &usize| matches!(record.recorded(first, *i).event, Event::PointsCredited(_));
    (0..record.events.len()).find(is_credited).expect("a consumption gives points")
}

fn member_id(n: u64) -> MemberId {
    MemberId(Uuid::from_u128(u128::from(n) + 1))
}

fn phone(n: u64) -> (String, String) {
    ("phoneNumber".into(), format!("407{n:08}"))
}

/// Decides as the sequencer does, without its threads.
struct Engine {
    views: Views,
    keys: Arc<MemberKeys>,
    next: Sequence,
    encoded: Vec<u8>,
}

impl Engine {
    /// An advertiser, its campaign, and members who have joined it.
    fn start() -> Engine {
        let disk = MemoryDisk::new();
        let keys = Arc::new(disk.member_keys());
        let views = Views::open(Arc::new(disk.rows()), keys.clone(), 2 * MEMBERS as usize).expect("memory opens");
        let mut engine = Engine { views, keys, next: Sequence(1), encoded: Vec::new() };
        let advertiser_id = Some(TENANT.advertiser);
        engine.carry_out(Action::CreateAdvertiser { advertiser_id, name: "Hot".into() });
        engine.carry_out(Action::CreateCampaign { campaign: campaign() });
        for n in 0..MEMBERS {
            let (key, value) = phone(n);
            engine.carry_out(Action::RegisterMember {
                member_id: member_id(n),
                identifiers: vec![Identifier::parse("identifiers[0]", &key, &value).expect("a number")],
                profile: Profile::default(),
                registration_source: "bench".into(),
                join: vec!["bench".parse().expect("a slug")],
                quiet: true,
            });
        }
        engine
    }

    fn consume(&mut self, n: u64) -> (Sequence, Record) {
        let raw = RawConsumption {
            consumption_id: format!("B{n:015}"),
            consumed_at: "2026-09-01T10:00:00Z".into(),
            identifiers: vec![phone(n % MEMBERS)],
            lines: vec![RawLine { sku: "coffee".into(), product_name: String::new(), quantity: 1.0 }],
        };
        self.carry_out(Action::RecordConsumption(raw.check(NOW).expect("a valid consumption")))
    }

    fn carry_out(&mut self, action: Action) -> (Sequence, Record) {
        let command = Command { tenant: TENANT, request_id: None, action };
        let creates_advertiser = matches!(command.action, Action::CreateAdvertiser { .. });
        let tenant = if creates_advertiser { NOBODY } else { TENANT };
        let key = command.key();
        let seen = key.as_ref().and_then(|key| self.views.seen(tenant, key).expect("memory can be read"));
        assert!(seen.is_none(), "every command is new");
        let mut owners = Vec::new();
        for identifier in command.identifiers() {
            owners.push(self.views.owner(tenant, identifier).expect("memory can be read"));
        }
        let member_id = resolve(command.identifiers(), &owners).expect("one identifier has one owner");
        if let Some(id) = member_id {
            self.views.member(tenant, id).expect("memory can be read");
        }
        let member = member_id.and_then(|id| self.views.peek_member(tenant, id).expect("memory can be read"));
        let nothing_yet = House::default();
        let set = WorkingSet {
            tenant,
            now: NOW,
            directory: self.views.directory(),
            seen: None,
            owners: &owners,
            member: member.as_deref(),
            house: self.views.houses().get(&tenant).unwrap_or(&nothing_yet),
            next: self.next,
            world: &EmptyWorld,
            digest_key: self.keys.digest_key(),
        };
        let Decision::Events(events) = decide(&set, &command).expect("it is accepted") else {
            unreachable!("every command is new");
        };
        let (member, key_slot) = match (&events[0], member) {
            (Event::MemberCreated(created), _) => {
                let slot = KeySlot(self.views.key_slot().0 + 1);
                self.keys.prepare(slot).expect("memory can be written");
                (Some(created.member_id), slot)
            }
            (_, Some(member)) => (Some(member.id), member.key_slot),
            (_, None) => (None, KeySlot::NONE),
        };
        let record = Record { tenant, time: NOW, member, key_slot, key, quiet: command.is_quiet(), events };
        self.encoded.clear();
        codec::encode_record_into(&record, &self.keys, &mut self.encoded).expect("its key is there");
        let first = self.next;
        self.views.apply(first, &record).expect("memory can be read");
        self.next = Sequence(first.0 + record.events.len() as u64);
        (first, record)
    }
}

fn campaign() -> Campaign {
    Campaign {
        id: "bench".parse().expect("a slug"),
        name: "Bench".into(),
        validity: Validity::default(),
        rules: vec![EarningRule {
            id: "coffee".parse().expect("a slug"),
            skus: SkuSelector::Exact("coffee".into()),
            points: Points(10),
            coins: Coins(0),
            stamps: Some(StampReward { punchcard_id: "card".parse().expect("a slug"), per_unit: 1 }),
            caps: Vec::new(),
            validity: Validity::default(),
            condition: None,
            coupon_book: None,
            external: None,
        }],
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
