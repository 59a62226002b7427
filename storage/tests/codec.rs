//! The codec: what was written is read again, by this version and by every later one.
//!
//! `golden/records-v1.txt` holds one record of each kind as it was first written. After a new kind of
//! event was added: `PUNCHLINE_GOLDEN=append cargo test -p punchline-storage --test codec` adds its
//! line; lines that stand there are never changed.

#![allow(clippy::unwrap_used)]

mod samples;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use punchline_engine::command::Actor;
use punchline_engine::decide;
use punchline_engine::dispatch::subscription::{ClientCertificate, OAuth2, SignatureScheme};
use punchline_engine::dispatch::{
    Auth, BreakerPolicy, BreakerState, DeliveryState, DialectChoice, OnDeadLetter, Ordering, Subscription,
};
use punchline_engine::event::*;
use punchline_engine::expression::{Expression, RULE_NAMES};
use punchline_engine::id::{
    AdvertiserId, CampaignId, Environment, KeySlot, PunchcardId, RewardId, RuleId, Sequence, Tenant,
};
use punchline_engine::loyalty::account::{Account, Hold, Lot};
use punchline_engine::loyalty::campaign::{EarningRule, ExternalReward};
use punchline_engine::loyalty::consumption::Line;
use punchline_engine::loyalty::item::{Body, Item, Obligation};
use punchline_engine::loyalty::job::{Job, Run};
use punchline_engine::loyalty::ledger::{BookState, Currency, House, HouseAccount, JobRun};
use punchline_engine::loyalty::member::{CapUse, Card, Member, Profile, PunchcardProgress, Referred, RewardUse, Score};
use punchline_engine::loyalty::programme::{Programme, Stacking, Tier, TierBasis};
use punchline_engine::loyalty::tenant::SealedSecret;
use punchline_engine::quantity::{Coins, Points, Quantity, Stamps};
use punchline_engine::time::{Period, UnixMillis};
use punchline_storage::block::RECORD_BYTES_MAX;
use punchline_storage::codec::{
    self, CodecError, decode_delivery_row, decode_delivery_state, decode_house, encode_delivery_row,
    encode_delivery_state, encode_house,
};
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::memory::MemoryDisk;
use samples::*;

/// Keys that are the same in every run.
fn keys() -> MemberKeys {
    MemoryDisk::new().member_keys()
}

fn encode_record(record: &Record) -> Vec<u8> {
    codec::encode_record(record, &keys()).unwrap()
}

fn encode_record_into(record: &Record, out: &mut Vec<u8>) {
    codec::encode_record_into(record, &keys(), out).unwrap();
}

fn decode_record(bytes: &[u8]) -> Result<Record, CodecError> {
    codec::decode_record(bytes, &keys())
}

fn encode_member(member: &Member) -> Vec<u8> {
    codec::encode_member(member, &keys()).unwrap()
}

fn decode_member(bytes: &[u8]) -> Result<Member, CodecError> {
    codec::decode_member(bytes, &keys())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn every_setting_of_a_subscription_comes_back() {
    let oauth2 = OAuth2 {
        token_url: "https://auth.example.com/token".into(),
        client_id: "punchline".into(),
        client_secret: SealedSecret(vec![1]),
        scopes: vec!["write".into()],
        audience: "crm".into(),
    };
    let full = Subscription {
        client_certificate: Some(ClientCertificate { chain_pem: "PEM".into(), key_pem: SealedSecret(vec![2]) }),
        signature: SignatureScheme::V1a,
        dialect: DialectChoice {
            name: "jericommerce".into(),
            settings: BTreeMap::from([("signature_encoding".into(), "hex".into())]),
        },
        filter: "event.type == 'points.credited'".into(),
        ordering: Ordering::Strict,
        on_dead_letter: OnDeadLetter::Hold,
        rate_per_second: 100,
        breaker: BreakerPolicy { failures: 5, open_ms: 1_000, disable_after_ms: 60_000 },
        consumer: "crm-sync".into(),
        ..subscription()
    };
    let auths = [
        Auth::None,
        Auth::Bearer { token: SealedSecret(vec![3]) },
        Auth::WriteKey { key: SealedSecret(vec![4]) },
        Auth::OAuth2(oauth2),
    ];
    for auth in auths {
        let subscription = Subscription { auth, ..full.clone() };
        let events = vec![SubscriptionUpdated { subscription: Box::new(subscription) }.into()];
        let (member, key_slot, key, quiet) = (None, KeySlot::NONE, None, false);
        let record = Record { tenant: TENANT, time: NOW, member, key_slot, key, quiet, events };
        assert_eq!(decode_record(&encode_record(&record)), Ok(record));
    }
}

#[test]
fn what_a_campaign_does_beyond_its_rules_comes_back() {
    let mut full = campaign();
    full.programme = Programme {
        stacking: Stacking::Multiply,
        tiers: vec![Tier { id: "gold".parse().unwrap(), name: "Gold".into(), threshold: 100 }],
        tier_basis: TierBasis::Earned { months: 12 },
        ..Programme::default()
    };
    let condition = Expression::parse("condition", "line.quantity > 2", RULE_NAMES).unwrap();
    let (reward_id, reward_name) = ("tea".parse().unwrap(), "Tea".into());
    full.rules[0] = EarningRule {
        condition: Some(condition),
        coupon_book: Some("book".parse().unwrap()),
        external: Some(ExternalReward { reward_id, reward_name, amount: 2 }),
        ..full.rules[0].clone()
    };
    let record = Record {
        tenant: TENANT,
        time: NOW,
        member: None,
        key_slot: KeySlot::NONE,
        key: None,
        quiet: false,
        events: vec![CampaignUpdated { campaign: Box::new(full) }.into()],
    };
    assert_eq!(decode_record(&encode_record(&record)), Ok(record));
}

#[test]
fn every_kind_comes_back() {
    for &kind in EventType::ALL {
        let record = sample(kind);
        assert_eq!(record.events.last().unwrap().event_type(), kind);
        let bytes = encode_record(&record);
        assert_eq!(decode_record(&bytes).as_ref(), Ok(&record), "{}", kind.as_str());
        let mut buffer = vec![0xee];
        encode_record_into(&record, &mut buffer);
        assert_eq!(buffer[0], 0xee);
        assert_eq!(buffer[1..], bytes, "{}", kind.as_str());
        // The same without anything around: nothing can be left out, and all of it comes back.
        let events = vec![record.events.last().unwrap().clone()];
        let alone = Record { member: None, key: None, events, ..record };
        assert_eq!(decode_record(&encode_record(&alone)), Ok(alone), "{} alone", kind.as_str());
    }
}

fn check_golden(golden: &mut String, append: bool, name: &str, record: &Record, bytes: &[u8]) {
    let known = golden.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    match known {
        Some(known) => {
            assert_eq!(decode_record(&unhex(known)).as_ref(), Ok(record), "{name} is read");
            assert_eq!(hex(bytes), known, "{name} is written");
        }
        None => {
            assert!(append, "{name} has no line: see the head of this file");
            writeln!(golden, "{name} {}", hex(bytes)).unwrap();
        }
    }
}

/// What the words of a member's personal fields are found in.
fn is_legible(bytes: &[u8]) -> bool {
    let words = ["ana@example.com", "40720005123", "Ana", "ro-RO"];
    words.iter().any(|word| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
}

#[test]
fn personal_fields_are_sealed_until_their_key_is_destroyed() {
    let keys = keys();
    let slot = KeySlot(3);
    let personal = [EventType::MemberCreated, EventType::MemberUpdated];
    let records = personal.map(|kind| {
        let mut record = Record { key_slot: slot, ..sample(kind) };
        if let Event::MemberUpdated(event) = &mut record.events[0] {
            (event.identifiers, event.profile) = (identifiers(), profile());
        }
        record
    });
    let rows = [sample_member()].map(|member| Member { key_slot: slot, ..member });
    let sealed = records.each_ref().map(|record| codec::encode_record(record, &keys).unwrap());
    let sealed_rows = rows.each_ref().map(|member| codec::encode_member(member, &keys).unwrap());
    assert!(is_legible(&codec::encode_record(&sample(EventType::MemberCreated), &keys).unwrap()), "the words are its");
    assert!(!sealed.iter().chain(&sealed_rows).any(|bytes| is_legible(bytes)));
    for (record, bytes) in records.iter().zip(&sealed) {
        assert_eq!(codec::decode_record(bytes, &keys).as_ref(), Ok(record));
        assert_eq!(&codec::encode_record(record, &keys).unwrap(), bytes, "the same each time");
        let other = Record { key_slot: KeySlot(4), ..record.clone() };
        let of_another = codec::encode_record(&other, &keys).unwrap();
        assert!(!of_another.ends_with(&bytes[bytes.len() - 16..]), "each member has its own key");
    }
    keys.destroy(slot).unwrap();
    for (record, bytes) in records.iter().zip(&sealed) {
        let erased = record.impersonal().unwrap();
        assert!(!erased.events[0].is_personal());
        assert_eq!(codec::decode_record(bytes, &keys), Ok(erased), "all but the personal fields is what it was");
        assert!(codec::encode_record(record, &keys).is_err());
    }
    let erased = Member { identifiers: vec![], profile: Profile::default(), ..rows[0].clone() };
    assert_eq!(codec::decode_member(&sealed_rows[0], &keys), Ok(erased));
}

#[test]
fn mere_reports_are_told_from_what_is_told() {
    for &kind in EventType::ALL {
        let mut record = sample(kind);
        let is_report = |record: &Record| codec::is_mere_report(&encode_record(record));
        assert_eq!(is_report(&record), Ok(kind == EventType::DeliveryProgressed), "{kind:?}");
        record.events.push(sample(EventType::DeliveryProgressed).events[0].clone());
        assert_eq!(is_report(&record), Ok(kind == EventType::DeliveryProgressed), "{kind:?} and a report");
    }
    assert!(codec::is_mere_report(b"\x3a\x05").is_err());
}

/// Who may have asked for a record.
fn actors() -> [(&'static str, Actor); 2] {
    let method = "SubscriptionService/PauseSubscription".to_owned();
    let actor = |credential| Actor { credential, method: method.clone() };
    [
        ("subscription.paused#by_operator", actor(None)),
        ("subscription.paused#by_key", actor(Some("key-1".parse().unwrap()))),
    ]
}

#[test]
fn old_records_are_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/records-v1.txt");
    let mut golden = std::fs::read_to_string(&path).unwrap_or_default();
    let append = std::env::var("PUNCHLINE_GOLDEN").as_deref() == Ok("append");
    for &kind in EventType::ALL {
        let record = sample(kind);
        check_golden(&mut golden, append, kind.as_str(), &record, &encode_record(&record));
        if kind == EventType::MemberCreated {
            let sealed = Record { key_slot: KeySlot(300), ..record };
            check_golden(&mut golden, append, "member.created#sealed", &sealed, &encode_record(&sealed));
        } else if kind == EventType::SubscriptionPaused {
            for (name, actor) in actors() {
                let mut bytes = encode_record(&record);
                assert_eq!(codec::decode_actor(&bytes), Ok(None));
                codec::encode_actor_into(&actor, &mut bytes);
                check_golden(&mut golden, append, name, &record, &bytes);
                assert_eq!(codec::decode_actor(&bytes), Ok(Some(actor.clone())), "{name}");
                let trace = std::array::from_fn(|i| i as u8);
                codec::encode_trace_into(&trace, &mut bytes);
                check_golden(&mut golden, append, &format!("{name}_traced"), &record, &bytes);
                assert_eq!(codec::decode_traced(&bytes, &keys()), Ok((record.clone(), Some(trace))), "{name}");
                assert_eq!(codec::decode_actor(&bytes), Ok(Some(actor)), "{name}");
            }
            assert_eq!(codec::decode_traced(&encode_record(&record), &keys()), Ok((record, None)));
        }
    }
    if append {
        std::fs::write(&path, golden).unwrap();
    }
}

#[test]
fn a_write_key_is_read_as_one() {
    let mut record = sample(EventType::CredentialIssued);
    let Event::CredentialIssued(issued) = &mut record.events[0] else { panic!("another kind") };
    issued.credential.write_key = true;
    assert_eq!(decode_record(&encode_record(&record)), Ok(record));
}

#[test]
fn what_is_personal_of_a_fact_comes_back() {
    let mut record = sample(EventType::FactPublished);
    let Event::FactPublished(fact) = &mut record.events[0] else { panic!("another kind") };
    fact.personal = Json(r#"{"email":"ana@example.com"}"#.into());
    let bytes = encode_record(&record);
    assert_eq!(decode_record(&bytes), Ok(record));
    // A field of its own, so that it can be sealed apart from the rest: number 7, bytes.
    let text = br#"{"email":"ana@example.com"}"#;
    let field = [&[7 << 3 | 2, text.len() as u8][..], text].concat();
    assert!(bytes.windows(field.len()).any(|window| window == field));
}

/// What an account is without expiry and holds.
fn plain_account(balance: i64) -> Account {
    let lots = if balance > 0 { vec![Lot { expires_at: None, amount: balance }] } else { vec![] };
    Account { balance, lots, holds: vec![] }
}

fn account() -> Account {
    let lots = vec![Lot { expires_at: Some(NOW), amount: 3 }, Lot { expires_at: None, amount: 4 }];
    let held = vec![Lot { expires_at: Some(UnixMillis(0)), amount: 2 }];
    Account { balance: 9, lots, holds: vec![Hold { id: "h-1".into(), lots: held, until: NOW }] }
}

fn sample_member() -> Member {
    let card = |id: &str, points, punchcards, cap_uses| Card {
        campaign_id: id.parse().unwrap(),
        joined_at: NOW,
        points,
        tier: Some("gold".parse().unwrap()),
        earned: vec![(24_300, 5), (24_301, -7)],
        scores: vec![Score { leaderboard_id: "weekly".parse().unwrap(), round: 2_900, points: 12 }],
        consumptions: 3,
        punchcards,
        cap_uses,
    };
    let progress =
        |id: &str| PunchcardProgress { punchcard_id: id.parse().unwrap(), stamps: Stamps(9), rows_completed: 1 };
    let used = CapUse { rule_id: "double".parse().unwrap(), period: Period::Day, number: 20_000, units: 5 };
    Member {
        id: member(1),
        tenant: TENANT,
        identifiers: identifiers(),
        profile: profile(),
        key_slot: KeySlot(3),
        erased_at: None,
        blocked: Some(String::new()),
        coins: plain_account(i64::MAX),
        cards: vec![
            card("a", plain_account(-4), vec![progress("tea"), progress("coffee")], vec![used]),
            card("b", account(), vec![], vec![]),
        ],
        segments: ["regulars".parse().unwrap()].into(),
        channels: [("email".into(), false)].into(),
        rewards: [("tea".parse().unwrap(), RewardUse { redeemed: 2, told_at: Some(NOW) })].into(),
        referrals: vec![Referred {
            campaign_id: "a".parse().unwrap(),
            advocate_id: member(2),
            code: "C".into(),
            succeeded: true,
        }],
        merged_into: Some(member(3)),
        created_at: UnixMillis(0),
        updated_at: NOW,
        entries: 70,
        entries_tail: [1_000, 1_003, 2_000, 5, u64::MAX].map(Sequence).into(),
        as_of: Sequence(2_001),
    }
}

fn sample_house() -> House {
    let points = |id: &str| Currency::Points(id.parse().unwrap());
    let account = |house, members| HouseAccount { house, members };
    let accounts = BTreeMap::from([
        (Currency::Coins, account(i64::MIN, 7)),
        (points("a"), account(-5, 5)),
        (points("b"), account(0, 0)),
    ]);
    let run = Run { period: 20_778, at: NOW };
    House {
        accounts,
        members: 3,
        consumptions: 9,
        redeemed: [("tea".parse().unwrap(), 4)].into(),
        books: [("book".parse().unwrap(), BookState { codes: 5, assigned: 4, next_place: 3, used: 2 })].into(),
        jobs: [(Job::Expiry, JobRun { run, completed_at: NOW, concerned: 7 })].into(),
        as_of: Sequence(44),
    }
}

fn sample_delivery_state() -> DeliveryState {
    let finished = [900, 4, 5, u64::MAX, 0].map(Sequence).into();
    let breaker = BreakerState::Open { failing_since: UnixMillis(1), until: NOW, round: 2 };
    DeliveryState { cursor: Sequence(1_000), finished, breaker, jobs: vec![job()], as_of: Sequence(1_002) }
}

fn obligation() -> Obligation {
    Obligation {
        obligation_id: "ob-1-1".into(),
        member_id: member(1),
        campaign_id: "a".parse().unwrap(),
        reward_id: "tea".parse().unwrap(),
        amount: 2,
        created_at: NOW,
        confirmed_at: Some(NOW),
        reference: "pay".into(),
    }
}

#[test]
fn rows_come_back() {
    let plain =
        Member { blocked: None, cards: vec![], profile: Profile::default(), entries_tail: vec![], ..sample_member() };
    let unsealed = Member { key_slot: KeySlot::NONE, ..sample_member() };
    let erased = Member { identifiers: vec![], erased_at: Some(NOW), ..plain.clone() };
    // Odd accounts: none of these is what its balance alone would say.
    let odd = [
        Account { balance: 5, ..Account::default() },
        Account { balance: 0, ..account() },
        Account { holds: vec![], ..account() },
        Account { balance: -1, ..plain_account(1) },
    ];
    let odd = odd.map(|coins| Member { coins, merged_into: None, ..sample_member() });
    for member in [sample_member(), plain, unsealed, erased].into_iter().chain(odd) {
        assert_eq!(decode_member(&encode_member(&member)), Ok(member));
    }
    for house in [sample_house(), House::default()] {
        assert_eq!(decode_house(&encode_house(&house)), Ok(house));
    }
    let item = Item { body: Body::Obligation(obligation()), as_of: Sequence(7) };
    assert_eq!(codec::decode_item(&codec::encode_item(&item)), Ok(item));
    for state in [sample_delivery_state(), DeliveryState::default()] {
        assert_eq!(decode_delivery_state(&encode_delivery_state(&state)), Ok(state));
    }
    let mut sealed = delivery_rows().remove(0);
    sealed.log[0].key_slot = KeySlot(7);
    for row in delivery_rows().into_iter().chain([sealed]) {
        assert_eq!(decode_delivery_row(&encode_delivery_row(&row)), Ok(row));
    }
}

#[test]
fn errors_name_the_field() {
    let said = |error: CodecError| error.to_string();
    assert_eq!(said(decode_record(&[0xff]).unwrap_err()), "bytes are no Record");
    assert_eq!(said(decode_record(&[]).unwrap_err()), "environment is missing");
    assert_eq!(said(decode_record(&[0x10, 3]).unwrap_err()), "environment is not valid: 3 is not known");
    assert_eq!(said(decode_record(&[0x10, 1]).unwrap_err()), "events is missing");
    assert_eq!(said(decode_record(&[0x10, 1, 0x3a, 0]).unwrap_err()), "events[0].kind is missing");
    // consumption.counted without its campaign; points.credited without a member.
    assert_eq!(said(decode_record(&[0x10, 1, 0x3a, 2, 0x22, 0]).unwrap_err()), "events[0].campaign_id is missing");
    assert_eq!(said(decode_record(&[0x10, 1, 0x3a, 2, 0x32, 0]).unwrap_err()), "events[0].member_id is missing");
    assert_eq!(said(decode_member(&[]).unwrap_err()), "id is missing");
    assert_eq!(said(decode_delivery_row(&[]).unwrap_err()), "state is missing");
    assert_eq!(said(decode_house(&[0x0a, 0, 0x0a, 0]).unwrap_err()), "accounts is not valid: a currency stands twice");
}

#[test]
fn nothing_is_repeated() {
    let bytes = encode_record(&sample(EventType::PointsCredited));
    for once in [member(1).0.as_bytes().as_slice(), b"cons-1", b"SKU-1", b"SKU-2"] {
        assert_eq!(bytes.windows(once.len()).filter(|w| *w == once).count(), 1, "{once:?}");
    }
}

/// What a rule can give, as small as that can be beside a consumption "c" of member 1 with one line "s".
fn smallest_earned() -> [Event; 8] {
    let (member_id, consumption_id, sku) = (member(1), String::from("c"), String::from("s"));
    let (campaign_id, rule_id, punchcard_id) = ("c".parse().unwrap(), "r".parse().unwrap(), "p".parse().unwrap());
    let origin = || Origin::Consumption {
        consumption_id: consumption_id.clone(),
        line: 0,
        sku: sku.clone(),
        rule_id: "r".parse().unwrap(),
        multipliers: vec![],
    };
    let campaign_id = || CampaignId::clone(&campaign_id);
    let punchcard_id = || PunchcardId::clone(&punchcard_id);
    let none = RowState { stamps: Stamps(0), rows_completed: 0 };
    [
        ConsumptionMatched {
            consumption_id: consumption_id.clone(),
            member_id,
            campaign_id: campaign_id(),
            rule_id: RuleId::clone(&rule_id),
            line: 0,
            sku: sku.clone(),
            units: 1,
        }
        .into(),
        ConsumptionRejected {
            consumption_id: consumption_id.clone(),
            member_id,
            reason: Unrewarded::CapReached,
            line: 0,
            sku: sku.clone(),
            units: 1,
            campaign_id: Some(campaign_id()),
            rule_id: Some(rule_id.clone()),
        }
        .into(),
        PointsCredited {
            member_id,
            campaign_id: campaign_id(),
            amount: Points(1),
            previous_balance: Points(0),
            new_balance: Points(1),
            expires_at: None,
            origin: origin(),
        }
        .into(),
        CoinsChanged {
            member_id,
            amount: Coins(1),
            previous_balance: Coins(0),
            new_balance: Coins(1),
            expires_at: None,
            hold_id: None,
            origin: origin(),
        }
        .into(),
        PunchcardStampsReceived {
            member_id,
            campaign_id: campaign_id(),
            punchcard_id: punchcard_id(),
            stamps: Stamps(1),
            row_length: 1,
            previous: none,
            new: none,
            origin: origin(),
        }
        .into(),
        PunchcardStepCompleted {
            member_id,
            campaign_id: campaign_id(),
            punchcard_id: punchcard_id(),
            step: 1,
            times: 1,
        }
        .into(),
        PunchcardCompleted {
            member_id,
            campaign_id: campaign_id(),
            punchcard_id: punchcard_id(),
            rows: 1,
            rows_completed: 1,
        }
        .into(),
        PunchcardStampsDiscarded {
            member_id,
            campaign_id: campaign_id(),
            punchcard_id: punchcard_id(),
            stamps: Stamps(1),
            origin: origin(),
        }
        .into(),
    ]
}

/// `decide` gives up where so many events have more bytes than a record holds.
#[test]
fn no_earned_event_is_smaller_than_decide_counts_on() {
    const { assert!(RECORD_BYTES_MAX <= decide::RECORD_BYTES_MAX, "decide refuses what a record holds") };
    let recorded = ConsumptionRecorded {
        consumption_id: "c".into(),
        member_id: member(1),
        consumed_at: NOW,
        lines: vec![Line { sku: "s".into(), product_name: None, quantity: Quantity::new(1).unwrap() }],
        identifiers_digest: 1,
    };
    let bytes = |events| {
        let key = Some(CommandKey::Consumption("c".into()));
        let (member, key_slot, quiet) = (Some(member(1)), KeySlot::NONE, false);
        encode_record(&Record { tenant: TENANT, time: NOW, member, key_slot, key, quiet, events }).len()
    };
    let alone = bytes(vec![recorded.clone().into()]);
    for event in smallest_earned() {
        let taken = bytes(vec![recorded.clone().into(), event.clone()]) - alone;
        assert!(taken >= decide::EARNED_EVENT_BYTES_MIN, "{taken} bytes: {event:?}");
    }
}

/// Whatever these bytes are, no decoder panics, and what one accepts is stable.
fn check_decoders(bytes: &[u8]) {
    if let Ok(record) = decode_record(bytes) {
        assert_eq!(decode_record(&encode_record(&record)), Ok(record));
    }
    if let Ok(member) = decode_member(bytes) {
        assert_eq!(decode_member(&encode_member(&member)), Ok(member));
    }
    if let Ok(house) = decode_house(bytes) {
        assert_eq!(decode_house(&encode_house(&house)), Ok(house));
    }
    if let Ok(state) = decode_delivery_state(bytes) {
        assert_eq!(decode_delivery_state(&encode_delivery_state(&state)), Ok(state));
    }
    if let Ok(row) = decode_delivery_row(bytes) {
        assert_eq!(decode_delivery_row(&encode_delivery_row(&row)), Ok(row));
    }
}

/// An origin, where it is not a consumption's.
fn from() -> impl Strategy<Value = Option<Origin>> {
    let reason = String::from("\"\\☕");
    let (redemption_id, reward_id) = (reason.clone(), "tea".parse().unwrap());
    prop::sample::select(vec![
        None,
        None,
        Some(Origin::Adjustment { reason: reason.clone() }),
        Some(Origin::FirstConsumption { consumption_id: "c".into() }),
        Some(Origin::Birthday),
        Some(Origin::Referral { advocate_id: member(1), friend_id: member(2) }),
        Some(Origin::Leaderboard { leaderboard_id: "weekly".parse().unwrap(), rank: 3 }),
        Some(Origin::Redemption { redemption_id: redemption_id.clone(), reward_id: RewardId::clone(&reward_id) }),
        Some(Origin::Refund { redemption_id, reward_id }),
        Some(Origin::Hold { hold_id: "h".into(), reason: reason.clone() }),
        Some(Origin::Expiry { expired_at: NOW }),
        Some(Origin::Transfer { other_member_id: member(1), reason: reason.clone() }),
        Some(Origin::Reversal { reversed_sequence: Sequence(9), reason, earned: false }),
        Some(Origin::Merge { other_member_id: member(1) }),
    ])
}

/// An event of those that leave things out, with values that may or may not be the record's.
fn derived() -> impl Strategy<Value = Event> {
    let amounts = (any::<i64>(), any::<i64>(), any::<i64>(), any::<bool>());
    (0u128..3, "[ab]?", 0u32..4, "[AB]?", amounts, 0..6, from()).prop_map(
        |(m, consumption_id, line, sku, (amount, previous, new, holds), kind, other)| {
            let (member_id, campaign_id, rule_id) = (member(m), "c".parse().unwrap(), "r".parse().unwrap());
            let debits = kind == 3;
            let after = if debits { previous.checked_sub(amount) } else { previous.checked_add(amount) };
            let new = after.filter(|_| holds).unwrap_or(new);
            let units = amount.unsigned_abs();
            let multipliers = (0..line).map(|i| ("m".parse().unwrap(), 100 + i)).collect();
            let from = other.unwrap_or(Origin::Consumption {
                consumption_id: consumption_id.clone(),
                line,
                sku: sku.clone(),
                rule_id: "r".parse().unwrap(),
                multipliers,
            });
            let expires_at = (line > 1).then_some(UnixMillis(new));
            let hold_id = (line > 2).then(|| sku.clone());
            let (amount, previous_balance, new_balance) = (Points(amount), Points(previous), Points(new));
            match kind {
                0 => ConsumptionFirst { consumption_id, member_id, campaign_id }.into(),
                1 => ConsumptionMatched { consumption_id, member_id, campaign_id, rule_id, line, sku, units }.into(),
                2 => PointsCredited {
                    member_id,
                    campaign_id,
                    amount,
                    previous_balance,
                    new_balance,
                    expires_at,
                    origin: from,
                }
                .into(),
                3 => PointsDebited {
                    member_id,
                    campaign_id,
                    amount,
                    previous_balance,
                    new_balance,
                    hold_id,
                    origin: from,
                }
                .into(),
                4 => ConsumptionRejected {
                    consumption_id,
                    member_id,
                    reason: Unrewarded::NoRuleMatched,
                    line,
                    sku,
                    units,
                    campaign_id: None,
                    rule_id: None,
                }
                .into(),
                _ => CoinsChanged {
                    member_id,
                    amount: Coins(amount.0),
                    previous_balance: Coins(previous),
                    new_balance: Coins(new),
                    expires_at,
                    hold_id,
                    origin: from,
                }
                .into(),
            }
        },
    )
}

fn any_record() -> impl Strategy<Value = Record> {
    let line = ("[AB]?", prop::option::of(".{0,3}"), 1u64..=10_000).prop_map(|(sku, product_name, units)| Line {
        sku,
        product_name,
        quantity: Quantity::new(units).unwrap(),
    });
    let recorded = ("[ab]?", 0u128..3, any::<i64>(), prop::collection::vec(line, 0..4), any::<u64>()).prop_map(
        |(consumption_id, m, at, lines, identifiers_digest)| {
            let (member_id, consumed_at) = (member(m), UnixMillis(at));
            Event::from(ConsumptionRecorded { consumption_id, member_id, consumed_at, lines, identifiers_digest })
        },
    );
    let event = prop_oneof![1 => recorded.clone(), 8 => derived()];
    let first = prop_oneof![4 => recorded, 1 => derived()];
    let key = prop_oneof![
        Just(None),
        "[ab]?".prop_map(|id| Some(CommandKey::Consumption(id))),
        "[ab]?".prop_map(|id| Some(CommandKey::Request(id))),
        ("[ab]?", "[ab]?").prop_map(|(source, fact_id)| Some(CommandKey::Fact { source, fact_id })),
        ("[ab]?", "[ab]?", any::<i64>())
            .prop_map(|(job, subject, period)| { Some(CommandKey::Job { job, subject, period }) }),
    ];
    let around = (any::<u64>(), any::<bool>(), any::<i64>(), prop::option::of(0u128..3), any::<u64>(), key);
    (around, first, prop::collection::vec(event, 0..6)).prop_map(
        |((advertiser, production, time, m, slot, key), first, mut events)| {
            events.insert(0, first);
            let environment = if production { Environment::Production } else { Environment::Staging };
            let tenant = Tenant { advertiser: AdvertiserId(advertiser), environment };
            let (time, member, key_slot) = (UnixMillis(time), m.map(member), KeySlot(slot));
            Record { tenant, time, member, key_slot, key, quiet: time.0 % 2 == 0, events }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_record_comes_back(record in any_record()) {
        let bytes = encode_record(&record);
        prop_assert_eq!(&encode_record(&record), &bytes);
        prop_assert_eq!(decode_record(&bytes), Ok(record));
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_decoders(&bytes);
    }

    #[test]
    fn damaged_bytes_are_taken(
        which in 0..EventType::ALL.len() + 4, at: prop::sample::Index, with: u8, cut: Option<prop::sample::Index>,
    ) {
        let mut bytes = match which.checked_sub(EventType::ALL.len()) {
            None => encode_record(&sample(EventType::ALL[which])),
            Some(0) => encode_member(&sample_member()),
            Some(1) => encode_house(&sample_house()),
            Some(2) => encode_delivery_state(&sample_delivery_state()),
            Some(_) => encode_delivery_row(&delivery_rows()[0]),
        };
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check_decoders(&bytes);
    }
}

/// What a consumption's record costs: `cargo test --release … -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, clippy::disallowed_methods)]
fn speed() {
    let mut record = sample(EventType::PointsCredited);
    for kind in [EventType::ConsumptionFirst, EventType::ConsumptionMatched, EventType::ConsumptionCounted] {
        record.events.extend(sample(kind).events.pop());
    }
    let mut buffer = Vec::with_capacity(4_096);
    let times = 1_000_000;
    let began = std::time::Instant::now();
    for _ in 0..times {
        buffer.clear();
        encode_record_into(std::hint::black_box(&record), &mut buffer);
    }
    let encode = began.elapsed() / times;
    let began = std::time::Instant::now();
    for _ in 0..times {
        std::hint::black_box(decode_record(&buffer)).unwrap();
    }
    println!("{} bytes, encode {encode:?}, decode {:?}", buffer.len(), began.elapsed() / times);
}
