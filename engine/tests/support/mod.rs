//! A world in memory: what the sequencer does, without any of its machinery.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, HashMap};

use punchline_engine::command::{Action, Command};
use punchline_engine::decide::{self, Decision, WorkingSet, decide, resolve};
use punchline_engine::event::{CommandKey, Event, Record};
use punchline_engine::id::{AdvertiserId, Environment, KeySlot, MemberId, Sequence, Tenant};
use punchline_engine::loyalty::campaign::*;
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine, Receipt};
use punchline_engine::loyalty::item::{self, Item, ItemKey};
use punchline_engine::loyalty::ledger::{Entry, House};
use punchline_engine::loyalty::member::{Identifier, Member, Profile};
use punchline_engine::loyalty::programme::Programme;
use punchline_engine::loyalty::tenant::Directory;
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::rejection::Rejection;
use punchline_engine::time::{Period, UnixMillis};
use uuid::Uuid;

pub const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1_000_000_001), environment: Environment::Production };
pub const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

#[derive(Clone, PartialEq, Debug)]
pub struct World {
    pub directory: Directory,
    pub members: BTreeMap<MemberId, Member>,
    pub owners: BTreeMap<Identifier, MemberId>,
    pub house: House,
    pub items: BTreeMap<ItemKey, Item>,
    pub now: UnixMillis,
    pub journal: Vec<(Sequence, Record)>,
    seen: HashMap<CommandKey, usize>,
    head: u64,
    pub digest_key: &'static [u8],
    /// Whose commands are submitted; [`TENANT`] where none is named.
    pub tenant: Option<Tenant>,
}

impl Default for World {
    fn default() -> World {
        World {
            directory: Directory::default(),
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            house: House::default(),
            items: BTreeMap::new(),
            now: NOW,
            journal: Vec::new(),
            seen: HashMap::new(),
            head: 0,
            tenant: None,
            digest_key: &[],
        }
    }
}

impl decide::World for World {
    fn member(&self, id: MemberId) -> Option<Member> {
        self.members.get(&id).cloned()
    }

    fn item(&self, key: &ItemKey) -> Option<Item> {
        self.items.get(key).cloned()
    }

    fn entry(&self, at: Sequence) -> Option<Entry> {
        let (first, record) = self.journal.iter().rfind(|(first, _)| *first <= at)?;
        let index = (at.0 - first.0) as usize;
        if index >= record.events.len() { None } else { Entry::of(&record.recorded(*first, index)) }
    }
}

impl World {
    /// Advertiser and the campaign "club": see [`campaign`].
    pub fn new() -> World {
        let mut world = World::default();
        let advertiser = Action::CreateAdvertiser { advertiser_id: Some(TENANT.advertiser), name: "Acme".into() };
        world.accept(advertiser);
        world.accept(Action::CreateCampaign { campaign: campaign() });
        world
    }

    pub fn submit(&mut self, action: Action) -> Result<Vec<Event>, Rejection> {
        self.submit_as(None, action)
    }

    pub fn submit_as(&mut self, request_id: Option<&str>, action: Action) -> Result<Vec<Event>, Rejection> {
        let tenant = self.tenant.unwrap_or(TENANT);
        let command = Command { tenant, request_id: request_id.map(str::to_owned), action };
        let key = command.key();
        let seen = key.as_ref().and_then(|key| self.seen.get(key)).map(|i| &self.journal[*i]);
        let owners: Vec<_> = command.identifiers().iter().map(|i| self.owners.get(i).copied()).collect();
        let by_identifiers = || resolve(command.identifiers(), &owners).ok().flatten();
        let by_item = || self.items.get(&command.item()?)?.member();
        let by_id = || command.member_id().or_else(by_item);
        let member_id = if command.names_by_identifiers() { by_identifiers() } else { by_id() };
        let set = WorkingSet {
            tenant,
            now: self.now,
            directory: &self.directory,
            seen: seen.map(|(sequence, record)| (*sequence, record)),
            owners: &owners,
            member: member_id.and_then(|id| self.members.get(&id)),
            house: &self.house,
            next: Sequence(self.head + 1),
            world: self,
            digest_key: self.digest_key,
        };
        let Decision::Events(events) = decide(&set, &command)? else { return Ok(Vec::new()) };
        let member = match &events[0] {
            Event::MemberCreated(e) => Some(e.member_id),
            _ => member_id,
        };
        let (time, key_slot, quiet) = (self.now, KeySlot::NONE, command.is_quiet());
        let record = Record { tenant, time, member, key_slot, key, quiet, events: events.clone() };
        self.apply(record);
        Ok(events)
    }

    pub fn accept(&mut self, action: Action) -> Vec<Event> {
        self.submit(action).expect("accepted")
    }

    pub fn apply(&mut self, record: Record) {
        let first = Sequence(self.head + 1);
        self.head += record.events.len() as u64;
        if let [Event::MemberErased(erased)] = &record.events[..] {
            // As their journal reads once the key is destroyed.
            for (_, before) in self.journal.iter_mut().filter(|(_, before)| before.member == Some(erased.member_id)) {
                *before = before.impersonal().unwrap_or_else(|| before.clone());
            }
        }
        for recorded in record.all_recorded(first) {
            for (nth, key) in item::keys(recorded.event).into_iter().enumerate() {
                if let Some(item) = item::apply((nth, &key), self.items.get(&key).cloned(), &recorded) {
                    self.items.insert(key, item);
                }
            }
            self.directory.apply(&recorded);
            self.house.apply(&recorded);
            if let Some(member) = Member::created_by(&recorded) {
                self.owners.extend(member.identifiers.iter().map(|i| (i.clone(), member.id)));
                self.members.insert(member.id, member);
            } else if let Some(member) = recorded.member.and_then(|id| self.members.get_mut(&id)) {
                if matches!(recorded.event, Event::MemberUpdated(_) | Event::MemberMergedInto(_)) {
                    self.owners.retain(|identifier, _| !member.identifiers.contains(identifier));
                }
                member.apply(&recorded);
                self.owners.retain(|identifier, owner| *owner != member.id || member.identifiers.contains(identifier));
                self.owners.extend(member.identifiers.iter().map(|i| (i.clone(), member.id)));
            }
        }
        if let Some(key) = &record.key {
            self.seen.insert(key.clone(), self.journal.len());
        }
        self.journal.push((first, record));
    }

    /// Points, coins, stamps in the row, rows of member `n`.
    pub fn balances(&self, n: u128) -> (i64, i64, u64, u64) {
        let member = &self.members[&member_id(n)];
        let (stamps, rows) = member.cards[0].row(&"card".parse().expect("a slug"));
        (member.cards[0].points.balance, member.coins.balance, stamps.0, rows)
    }
}

/// `coffee` 10 points and a stamp, `tea*` 2 coins, `review` 100 points once a day and three times a month.
pub fn campaign() -> Campaign {
    let rule = |id: &str, skus, points, coins, stamps, caps| EarningRule {
        id: id.parse().expect("a slug"),
        skus,
        points: Points(points),
        coins: Coins(coins),
        stamps,
        caps,
        validity: Validity::default(),
        condition: None,
        coupon_book: None,
        external: None,
    };
    let stamps = StampReward { punchcard_id: "card".parse().expect("a slug"), per_unit: 1 };
    let caps = vec![Cap { period: Period::Day, units_max: 1 }, Cap { period: Period::Month, units_max: 3 }];
    let list = SkuSelector::List(["review".to_owned(), "survey".to_owned()].into());
    Campaign {
        id: "club".parse().expect("a slug"),
        name: "Club".into(),
        validity: Validity { starts_at: UnixMillis::parse("2026-01-01T00:00:00Z"), ends_at: None },
        rules: vec![
            rule("coffee", SkuSelector::Exact("coffee".into()), 10, 0, Some(stamps), Vec::new()),
            rule("tea", SkuSelector::Prefix("tea".into()), 0, 2, None, Vec::new()),
            rule("review", list, 100, 0, None, caps),
        ],
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

pub fn email(n: u128) -> Identifier {
    Identifier::parse("identifiers[0]", "email", &format!("m{n}@example.com")).expect("an address")
}

pub fn register(n: u128, joined: bool) -> Action {
    Action::RegisterMember {
        member_id: member_id(n),
        identifiers: vec![email(n)],
        profile: Profile::default(),
        registration_source: String::new(),
        join: if joined { vec!["club".parse().expect("a slug")] } else { Vec::new() },
        quiet: false,
    }
}

/// A consumption as `id who date sku×n sku×n`, where `who` is as `1` or `1,2`.
pub fn consumption(text: &str) -> Action {
    let words: Vec<&str> = text.split_whitespace().collect();
    let lines = words[3..].iter().map(|line| {
        let (sku, quantity) = line.split_once('×').unwrap_or((line, "1"));
        RawLine { sku: sku.into(), quantity: quantity.parse().expect("a number"), ..RawLine::default() }
    });
    let raw = RawConsumption {
        consumption_id: words[0].into(),
        consumed_at: words[2].into(),
        identifiers: words[1].split(',').map(|n| ("email".into(), format!("m{n}@example.com"))).collect(),
        lines: lines.collect(),
    };
    Action::RecordConsumption(raw.check(NOW).expect("a valid consumption"))
}

/// What a consumption came to, in a line.
pub fn told(outcome: &Result<Vec<Event>, Rejection>) -> String {
    match outcome {
        Err(rejection) => rejection.reason().to_owned(),
        Ok(events) => {
            let receipt = Receipt::of(Sequence(1), NOW, events).expect("a consumption");
            format!("{} points, {} coins, {} stamps", receipt.points, receipt.coins, receipt.stamps.0)
        }
    }
}
