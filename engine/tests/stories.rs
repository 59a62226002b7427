//! What the rules say, told as stories in data.

mod support;

use proptest::prelude::*;
use punchline_engine::command::Action;
use punchline_engine::dispatch::Subscription;
use punchline_engine::event::{Event, EventType};
use punchline_engine::id::{AdvertiserId, Environment, SubscriptionId, Tenant};
use punchline_engine::loyalty::campaign::{Campaign, EarningRule, Overflow, Punchcard};
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine};
use punchline_engine::loyalty::fact_type::FactType;
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_engine::loyalty::tenant::{Credential, NO_SECRET, Scope, SealedSecret};
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use support::*;
use uuid::Uuid;

/// Member 1 has joined, 2 is registered only, 3 has joined and is blocked. Each line: `consumption => outcome`.
fn check(story: &str) -> World {
    let mut world = World::new();
    world.accept(register(1, true));
    world.accept(register(2, false));
    world.accept(register(3, true));
    world.accept(Action::BlockMember { member_id: member_id(3), reason: "fraud".into() });
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (given, expected) = line.split_once("=>").expect("=>");
        let before = world.clone();
        let outcome = world.submit(consumption(given));
        assert_eq!(told(&outcome), expected.trim(), "{given}");
        if outcome.is_err() {
            assert_eq!(world, before, "a refusal changes nothing: {given}");
        }
    }
    world
}

#[test]
fn consumptions_are_checked_in_order() {
    check(
        "
        c1 1   2026-09-01T10:00:00Z coffee   => 10 points, 0 coins, 1 stamps
        c1 1   2026-09-01T10:00:00Z coffee   => CONSUMPTION_EXISTS
        c1 1   2026-09-01T10:00:01Z coffee   => CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT
        c1 1   2026-09-01T10:00:00Z coffee×2 => CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT
        c1 2   2026-09-01T10:00:00Z coffee   => CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT
        c2 9   2026-09-01T10:00:00Z coffee   => ACCOUNT_NOT_FOUND
        c2 1,2 2026-09-01T10:00:00Z coffee   => IDENTIFIERS_CONFLICT
        c2 3   2026-09-01T10:00:00Z coffee   => USER_BLOCKED
        c2 2   2026-09-01T10:00:00Z coffee   => USER_HAS_NO_CARDS
        c2 9,1 2026-09-01T10:00:00Z coffee   => 10 points, 0 coins, 1 stamps
        ",
    );
}

#[test]
fn a_type_of_facts_is_registered_version_by_version() {
    let mut world = World::new();
    let register = |schema: &str, etag: Option<&str>| Action::RegisterFactType {
        fact_type: FactType {
            name: "fitting.booked".into(),
            description: String::new(),
            schema: schema.into(),
            version: 99,
        },
        etag: etag.map(str::to_owned),
    };
    let (first, second) = (r#"{"type":"object"}"#, r#"{"required":["shop"]}"#);
    for (schema, etag, expected) in [
        (first, Some("1"), Err("ETAG_MISMATCH")),
        (first, Some("0"), Ok(Some(1))),
        (first, Some("0"), Err("ETAG_MISMATCH")),
        (first, None, Ok(None)),
        (second, Some("1"), Ok(Some(2))),
        (first, None, Ok(Some(3))),
        ("[]", None, Err("INVALID_SCHEMA")),
    ] {
        let told = world.submit(register(schema, etag)).map(|events| match &events[..] {
            [Event::FactTypeRegistered(event)] => Some(event.fact_type.version),
            _ => None,
        });
        assert_eq!(
            told.as_ref().map_err(Rejection::reason),
            expected.as_ref().map_err(|reason| *reason),
            "{schema} {etag:?}"
        );
    }
    let known = &world.directory.tenant(TENANT).expect("there").fact_types["fitting.booked"];
    assert_eq!((known.schema.as_str(), known.version), (first, 3));
}

#[test]
fn lines_earn_what_rules_say() {
    let world = check(
        "
        c1 1 2026-09-01T10:00:00Z coffee×12 tea tea_green×2 bread => 120 points, 6 coins, 12 stamps
        c2 1 2026-09-01T10:00:00Z bread                           => 0 points, 0 coins, 0 stamps
        c3 1 2025-12-31T23:59:59Z coffee                          => 0 points, 0 coins, 0 stamps
        c4 1 2026-01-01T00:00:00Z coffee                          => 10 points, 0 coins, 1 stamps
        ",
    );
    assert_eq!(world.balances(1), (130, 6, 3, 1));
}

#[test]
fn caps_count_units_by_the_consumptions_date() {
    check(
        "
        r1 1 2026-09-01T10:00:00Z review×2      => 100 points, 0 coins, 0 stamps
        r2 1 2026-09-01T23:59:59Z survey        => 0 points, 0 coins, 0 stamps
        r3 1 2026-09-02T00:00:00Z review survey => 100 points, 0 coins, 0 stamps
        r4 1 2026-08-31T10:00:00Z review        => 100 points, 0 coins, 0 stamps
        r5 1 2026-09-03T10:00:00Z review        => 100 points, 0 coins, 0 stamps
        r6 1 2026-09-04T10:00:00Z review        => 0 points, 0 coins, 0 stamps
        ",
    );
}

#[test]
fn one_consumption_tells_everything_that_follows() {
    let mut world = check("c0 1 2026-09-01T10:00:00Z coffee×4 => 40 points, 0 coins, 4 stamps");
    let events = world.accept(consumption("c1 1 2026-09-01T11:00:00Z coffee×6 tea review×2 bread"));
    let names: Vec<&str> = events.iter().map(|e| e.event_type().as_str()).collect();
    assert_eq!(
        names,
        [
            "consumption.recorded",
            "consumption.matched",
            "points.credited",
            "punchcard.stamps_received",
            "punchcard.step_completed",
            "punchcard.completed",
            "consumption.matched",
            "coins.changed",
            "consumption.rejected",
            "consumption.matched",
            "points.credited",
            "consumption.counted",
            "consumption.rejected",
        ]
    );
    let first = world.journal.iter().flat_map(|(_, record)| &record.events);
    assert_eq!(first.filter(|e| e.event_type() == EventType::ConsumptionFirst).count(), 1, "only once");
    let Event::PointsCredited(credited) = &events[2] else { panic!("{:?}", events[2]) };
    assert_eq!((credited.previous_balance.0, credited.new_balance.0), (40, 100));
}

#[test]
fn a_row_that_is_shortened_is_completed_once() {
    for (overflow, repeatable) in [(Overflow::Discard, true), (Overflow::CarryOver, false)] {
        let mut world = World::new();
        let shorten = |row_length| {
            let mut campaign = campaign();
            let card =
                Punchcard { row_length, steps: Vec::new(), overflow, repeatable, ..campaign.punchcards[0].clone() };
            campaign.punchcards = vec![card];
            Action::UpdateCampaign { campaign, etag: None }
        };
        world.accept(shorten(10));
        world.accept(register(1, true));
        world.accept(consumption("c1 1 2026-09-01T10:00:00Z coffee×9"));
        world.accept(shorten(5));
        for n in 2..5 {
            world.accept(consumption(&format!("c{n} 1 2026-09-01T10:00:00Z coffee")));
        }
        let all = world.journal.iter().flat_map(|(_, record)| &record.events);
        let completed = all.filter(|e| e.event_type() == EventType::PunchcardCompleted).count();
        assert_eq!((completed, world.balances(1).3), (1, 1), "{overflow:?}, repeatable: {repeatable}");
    }
}

#[test]
fn more_than_a_record_holds_is_refused_before_it_is_worked_out() {
    let mut world = check("");
    let mut campaign = campaign();
    let coffee = campaign.rules[0].clone();
    campaign.rules = (0..500).map(|n| EarningRule { id: format!("r{n}").parse().unwrap(), ..coffee.clone() }).collect();
    world.accept(Action::UpdateCampaign { campaign, etag: None });
    let lines = |n| consumption(&format!("c{n} 1 2026-09-01T10:00:00Z {}", "coffee ".repeat(n)));
    assert!(world.submit(lines(40)).is_ok(), "40 lines by 500 rules by three events are within bounds");
    match world.submit(lines(200)) {
        Err(Rejection::RecordTooLarge { bytes, max }) => assert!(bytes > max && bytes < max + max / 10, "{bytes}"),
        other => panic!("{} events", other.unwrap().len()),
    }
}

#[test]
fn a_request_id_stands_for_one_content() {
    let adjust = |who, currency: &Currency, amount, reason: &str| Action::AdjustBalance {
        member_id: member_id(who),
        currency: currency.clone(),
        amount,
        reason: reason.into(),
    };
    let coins = Currency::Coins;
    let points = Currency::Points("club".parse().expect("a slug"));
    let advertiser = |id, name: &str| Action::CreateAdvertiser { advertiser_id: id, name: name.into() };
    let other_campaign = Campaign { id: "other".parse().expect("a slug"), ..campaign() };
    let with = |change: fn(&mut Subscription)| {
        let mut subscription = subscription();
        change(&mut subscription);
        let secret = SealedSecret(vec![subscription.id.0.as_bytes()[15]]);
        Action::CreateSubscription { subscription, secret, owed_after: None }
    };
    let new_id = AdvertiserId(1_000_000_002);
    // What was asked first; the same again, with what the server makes made anew; something else.
    let cases = [
        (adjust(1, &coins, 5, "gift"), vec![adjust(1, &coins, 5, "gift")], {
            let others = [(2, &coins, 5, "gift"), (1, &coins, 6, "gift"), (1, &coins, 5, "x"), (1, &points, 5, "gift")];
            others.map(|(who, currency, amount, reason)| adjust(who, currency, amount, reason)).into()
        }),
        (adjust(1, &points, 7, "a"), vec![adjust(1, &points, 7, "a")], vec![adjust(1, &points, -7, "a")]),
        (adjust(1, &points, -7, "a"), vec![adjust(1, &points, -7, "a")], vec![adjust(1, &points, 7, "a")]),
        (register(7, true), vec![register(7, true)], vec![register(8, true), register(7, false)]),
        (advertiser(None, "B"), vec![advertiser(None, "B"), advertiser(Some(new_id), "B")], {
            vec![advertiser(None, "C"), advertiser(Some(TENANT.advertiser), "B")]
        }),
        (
            Action::CreateCampaign { campaign: other_campaign.clone() },
            vec![Action::CreateCampaign { campaign: Campaign { version: 9, ..other_campaign.clone() } }],
            vec![
                Action::CreateCampaign { campaign: Campaign { name: "X".into(), ..other_campaign } },
                register(9, true),
            ],
        ),
        (
            with(|_| {}),
            vec![with(|s| s.id = SubscriptionId(Uuid::from_u128(2))), with(|s| s.headers[0].1 = SealedSecret(vec![7]))],
            vec![with(|s| s.url.push('x')), with(|s| s.headers[0].0.push('x')), with(|s| s.headers.clear())],
        ),
    ];
    let mut world = World::new();
    world.accept(register(1, true));
    world.accept(register(2, true));
    for (i, (first, again, others)) in cases.into_iter().enumerate() {
        let request_id = format!("request-{i}");
        let submit = |world: &mut World, action| world.submit_as(Some(&request_id), action);
        assert!(!submit(&mut world, first).expect("accepted").is_empty());
        for again in again {
            assert_eq!(submit(&mut world, again.clone()), Ok(Vec::new()), "{again:?}");
        }
        for other in others {
            let refused = submit(&mut world, other.clone()).map_err(|rejection| rejection.reason());
            assert_eq!(refused, Err("REQUEST_ID_REUSED"), "{other:?}");
        }
    }
}

fn subscription() -> Subscription {
    Subscription {
        headers: vec![("x-key".into(), SealedSecret(vec![1]))],
        ..Subscription::to(SubscriptionId(Uuid::from_u128(1)), "https://example.com/")
    }
}

#[test]
fn an_identification_registers_or_adds() {
    let mut world = World::new();
    world.accept(register(1, true));
    let identify = |identifiers: Vec<Identifier>, first_name: &str, attributes: &[(&str, &str)]| {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let profile = Profile { first_name: first_name.into(), attributes, ..Profile::default() };
        let registration_source = "segment".into();
        Action::IdentifyMember { member_id: member_id(2), identifiers, profile, registration_source }
    };
    let external = |id: &str| Identifier::parse("identifiers[0]", "externalId", id).expect("an id");
    let told = |events: Vec<Event>| events.iter().map(|e| e.event_type().as_str()).collect::<Vec<_>>();

    // Known by one of its identifiers: the others are added, and nothing is taken away.
    let both = || vec![external("u1"), email(1)];
    let ana = identify(both(), "Ana", &[("plan", "gold")]);
    assert_eq!(told(world.submit_as(Some("a"), ana.clone()).expect("accepted")), ["member.updated"]);
    assert_eq!(world.submit_as(Some("a"), ana), Ok(vec![]), "a repeat changes nothing");
    let other = identify(both(), "Anna", &[]);
    let reused = Rejection::RequestIdReused { request_id: "a".into() };
    assert_eq!(world.submit_as(Some("a"), other.clone()), Err(reused));
    assert_eq!(told(world.submit_as(Some("b"), other).expect("accepted")), ["member.updated"]);
    assert_eq!(world.submit(identify(vec![external("u1")], "", &[("plan", "gold")])), Ok(vec![]), "known already");
    let member = &world.members[&member_id(1)];
    assert_eq!(member.identifiers, [email(1), external("u1")]);
    let Profile { first_name, attributes, .. } = &member.profile;
    assert_eq!((first_name.as_str(), attributes["plan"].as_str()), ("Anna", "gold"));

    // Nobody yet.
    let new = identify(vec![external("u2"), email(2)], "Dan", &[]);
    assert_eq!(told(world.submit_as(Some("c"), new.clone()).expect("accepted")), ["member.created"]);
    assert_eq!(world.submit_as(Some("c"), new), Ok(vec![]));
    assert_eq!(world.members.len(), 2);

    // Two at once, nobody at all, and more than there is room for.
    let two = world.submit(identify(vec![external("u1"), email(2)], "", &[])).expect_err("two members");
    assert_eq!(two.reason(), "IDENTIFIERS_CONFLICT");
    assert_eq!(world.submit(identify(vec![], "", &[])).expect_err("nobody").reason(), "IDENTIFIERS_REQUIRED");
    let twenty: Vec<_> = (0..20).map(|i| external(&format!("x{i}"))).chain([email(1)]).collect();
    assert_eq!(world.submit(identify(twenty, "", &[])).expect_err("too many").reason(), "INVALID_FIELD");
    let many: Vec<(String, String)> = (0..60).map(|i| (format!("k{i:02}"), "v".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    world.submit_as(Some("d"), identify(vec![email(1)], "", &many)).expect("as many as there is room for");
    assert_eq!(world.members[&member_id(1)].profile.attributes.len(), 50);
    assert_eq!(world.submit_as(Some("d"), identify(vec![email(1)], "", &many)), Ok(vec![]), "the same again");
}

#[test]
fn a_write_key_names_one_tenant() {
    let mut world = World::new();
    let credential = |write_key| Credential {
        id: "key".parse().expect("a slug"),
        secret_hash: NO_SECRET,
        scopes: vec![Scope::Ingest],
        description: String::new(),
        created_at: NOW,
        revoked_at: None,
        write_key,
    };
    let issue = |write_key| Action::IssueCredential { credential: credential(write_key) };
    let staging = Tenant { environment: Environment::Staging, ..TENANT };
    world.accept(issue(false));
    world.tenant = Some(staging);
    assert_eq!(world.submit(issue(true)).expect_err("a key of production").reason(), "INVALID_FIELD");
    world.accept(issue(false));
}

#[test]
fn shapes_are_checked_field_by_field() {
    let valid = || RawConsumption {
        consumption_id: "c".into(),
        consumed_at: "20260901T10:00:00Z".into(),
        identifiers: vec![("email".into(), "a@b.c".into())],
        lines: vec![RawLine { sku: "coffee".into(), product_name: String::new(), quantity: 1.0 }],
    };
    assert!(valid().check(NOW).is_ok());
    type Change = fn(&mut RawConsumption);
    let cases: [(Change, &str, &str); 20] = [
        (|c| c.consumption_id.clear(), "CONSUMPTION_ID_REQUIRED", "consumptionId"),
        (|c| c.consumption_id = "x".repeat(129), "INVALID_FIELD", "consumptionId"),
        (|c| c.consumption_id = "a\u{0}b".into(), "INVALID_FIELD", "consumptionId"),
        (|c| c.identifiers.clear(), "IDENTIFIERS_REQUIRED", "identifiers"),
        (|c| c.identifiers[0].0 = "loyalty".into(), "INVALID_IDENTIFIER", "identifiers[0].key"),
        (|c| c.identifiers[0].1 = "nobody".into(), "INVALID_IDENTIFIER", "identifiers[0].value"),
        (|c| c.identifiers = vec![c.identifiers[0].clone(); 11], "INVALID_FIELD", "identifiers"),
        (|c| c.lines.clear(), "CONSUMPTION_LINES_REQUIRED", "consumptionLines"),
        (|c| c.lines = vec![c.lines[0].clone(); 201], "INVALID_FIELD", "consumptionLines"),
        (|c| c.lines[0].sku = "  ".into(), "INVALID_FIELD", "consumptionLines[0].sku"),
        (|c| c.lines[0].sku = "a\u{1b}[2J".into(), "INVALID_FIELD", "consumptionLines[0].sku"),
        (|c| c.lines[0].product_name = "\u{7}".into(), "INVALID_FIELD", "consumptionLines[0].productName"),
        (|c| c.lines[0].sku.clear(), "INVALID_FIELD", "consumptionLines[0].sku"),
        (|c| c.lines[0].quantity = 0.0, "INVALID_QUANTITY", "consumptionLines[0].quantity"),
        (|c| c.lines[0].quantity = -1.0, "INVALID_QUANTITY", "consumptionLines[0].quantity"),
        (|c| c.lines[0].quantity = 1.5, "INVALID_QUANTITY", "consumptionLines[0].quantity"),
        (|c| c.lines[0].quantity = 10_001.0, "INVALID_QUANTITY", "consumptionLines[0].quantity"),
        (|c| c.lines[0].quantity = f64::NAN, "INVALID_QUANTITY", "consumptionLines[0].quantity"),
        (|c| c.consumed_at = "1.9.2026".into(), "INVALID_CONSUMPTION_DATE", "consumptionDate"),
        (
            |c| c.consumed_at = NOW.plus_ms(2 * UnixMillis::DAY_MS).to_string(),
            "INVALID_CONSUMPTION_DATE",
            "consumptionDate",
        ),
    ];
    for (change, reason, field) in cases {
        let mut raw = valid();
        change(&mut raw);
        let refused = raw.check(NOW).expect_err(reason);
        assert_eq!((refused.reason, refused.field.as_str()), (reason, field));
    }
}

#[test]
fn balances_never_fall_below_nothing() {
    let mut world = check("c1 1 2026-09-01T10:00:00Z coffee tea => 10 points, 2 coins, 1 stamps");
    let adjust = |currency: &Currency, amount| Action::AdjustBalance {
        member_id: member_id(1),
        currency: currency.clone(),
        amount,
        reason: "goodwill".into(),
    };
    let points = Currency::Points("club".parse().expect("a slug"));
    for (currency, amount, expected) in [
        (&points, -10, "points.debited"),
        (&points, -1, "INSUFFICIENT_BALANCE"),
        (&points, i64::MIN, "BALANCE_OVERFLOW"),
        (&points, i64::MAX, "points.credited"),
        (&points, 1, "BALANCE_OVERFLOW"),
        (&points, 0, "INVALID_FIELD"),
        (&Currency::Coins, -2, "coins.changed"),
        (&Currency::Coins, -1, "INSUFFICIENT_BALANCE"),
    ] {
        let outcome = world.submit(adjust(currency, amount));
        let got = outcome.map_or_else(|r| r.reason(), |events| events[0].event_type().as_str());
        assert_eq!(got, expected, "{currency} {amount}");
        assert_eq!(world.house.imbalance(), 0);
    }
}

#[test]
fn an_erased_member_keeps_its_balances_and_nothing_else() {
    let mut world = check("c1 1 2026-09-01T10:00:00Z coffee×3 tea => 30 points, 2 coins, 3 stamps");
    let erase = |n| Action::EraseMember { member_id: member_id(n) };
    let reason = |outcome: Result<Vec<Event>, Rejection>| outcome.map(|_| ()).map_err(|refused| refused.reason());
    assert_eq!(reason(world.submit_as(Some("r1"), register(7, false))), Ok(()));
    let Action::RegisterMember { identifiers: known, .. } = register(7, false) else { unreachable!() };
    let profile = Profile { first_name: "Ana".into(), ..Profile::default() };
    let (source, other) = (String::from("site"), member_id(8));
    let identify =
        Action::IdentifyMember { member_id: other, identifiers: known, profile, registration_source: source };
    assert_eq!(reason(world.submit_as(Some("r2"), identify.clone())), Ok(()));
    assert_eq!(reason(world.submit_as(Some("r2"), identify.clone())), Ok(()), "a repeat");
    for n in [1, 3, 7] {
        assert_eq!(world.accept(erase(n)).len(), 1);
        assert_eq!(world.accept(erase(n)).len(), 0, "it is so already");
        let erased = &world.members[&member_id(n)];
        let nothing = (Vec::new(), Profile::default(), None, Some(support::NOW));
        assert_eq!(
            (erased.identifiers.clone(), erased.profile.clone(), erased.blocked.clone(), erased.erased_at),
            nothing
        );
    }
    assert_eq!(world.balances(1), (30, 2, 3, 0));
    let (member_id, reason_given) = (member_id(1), String::from("late"));
    let currency = Currency::Coins;
    let profile = Some(Profile::default());
    for refused in [
        Action::UpdateMember { member_id, identifiers: None, profile, etag: None },
        Action::BlockMember { member_id, reason: reason_given.clone() },
        Action::UnblockMember { member_id },
        Action::JoinCampaign { member_id, campaign_id: "club".parse().expect("a slug") },
        Action::AdjustBalance { member_id, currency, amount: 1, reason: reason_given.clone() },
    ] {
        assert_eq!(reason(world.submit(refused.clone())), Err("MEMBER_ERASED"), "{refused:?}");
    }
    assert_eq!(reason(world.submit_as(Some("r1"), register(7, false))), Err("MEMBER_ERASED"), "not known any more");
    assert_eq!(reason(world.submit_as(Some("r2"), identify)), Err("MEMBER_ERASED"), "nor what changed it");
    assert_eq!(reason(world.submit(erase(9))), Err("MEMBER_NOT_FOUND"));
    let consume = |id: &str| consumption(&format!("{id} 1 2026-09-01T10:00:00Z coffee×3 tea"));
    assert_eq!(reason(world.submit(consume("c2"))), Err("ACCOUNT_NOT_FOUND"));
    assert_eq!(reason(world.submit(consume("c1"))), Err("CONSUMPTION_EXISTS"), "for ever");
    let Action::RegisterMember { identifiers, profile, registration_source, join, .. } = register(1, true) else {
        unreachable!()
    };
    let member_id = support::member_id(8);
    world.accept(Action::RegisterMember { member_id, identifiers, profile, registration_source, join, quiet: false });
    assert_eq!(told(&world.submit(consume("c2"))), "30 points, 2 coins, 3 stamps");
    assert_eq!((world.balances(1), world.house.imbalance()), ((30, 2, 3, 0), 0));
}

#[test]
fn consumptions_of_the_first_versions_are_known_by_a_digest_without_a_key() {
    let mut world = check("c1 1 2026-09-01T10:00:00Z coffee => 10 points, 0 coins, 1 stamps");
    let digest = |world: &World| match &world.journal.last().expect("there is one").1.events[0] {
        Event::ConsumptionRecorded(recorded) => recorded.identifiers_digest,
        other => panic!("{other:?}"),
    };
    let without = digest(&world);
    world.digest_key = b"a key";
    for (line, expected) in [
        ("c1 1 2026-09-01T10:00:00Z coffee", "CONSUMPTION_EXISTS"),
        ("c1 2 2026-09-01T10:00:00Z coffee", "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT"),
        ("c2 1 2026-09-01T10:00:00Z coffee", "10 points, 0 coins, 1 stamps"),
        ("c2 1 2026-09-01T10:00:00Z coffee", "CONSUMPTION_EXISTS"),
        ("c2 2 2026-09-01T10:00:00Z coffee", "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT"),
    ] {
        assert_eq!(told(&world.submit(consumption(line))), expected, "{line}");
    }
    assert_ne!(digest(&world), without);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However units are split over lines and consumptions, they earn the same.
    #[test]
    fn splitting_changes_nothing(parts in prop::collection::vec((0usize..4, 1u32..9), 1..25), split in any::<u64>()) {
        let skus = ["coffee", "tea", "review", "bread"];
        let lines = |parts: &[(usize, u32)]| {
            parts.iter().map(|(sku, n)| format!("{}×{n}", skus[*sku])).collect::<Vec<_>>().join(" ")
        };
        let (mut whole, mut split_up) = (World::new(), World::new());
        whole.accept(register(1, true));
        split_up.accept(register(1, true));
        whole.accept(consumption(&format!("c 1 2026-09-01T10:00:00Z {}", lines(&parts))));
        let mut rest = &parts[..];
        let mut n = 0;
        while !rest.is_empty() {
            let take = 1 + (split >> (n % 60)) as usize % rest.len();
            split_up.accept(consumption(&format!("c{n} 1 2026-09-01T10:00:00Z {}", lines(&rest[..take]))));
            rest = &rest[take..];
            n += 1;
        }
        prop_assert_eq!(whole.balances(1), split_up.balances(1));
    }

    /// The ledger sums to zero, stamps are conserved, and folding the journal again gives the same world.
    #[test]
    fn what_is_earned_is_accounted_for(steps in prop::collection::vec((0usize..5, 1u128..4, 1u32..30), 1..60)) {
        let mut world = World::new();
        (1..4).for_each(|n| drop(world.accept(register(n, true))));
        let mut stamps = [0; 4];
        for (n, (sku, who, quantity)) in steps.iter().enumerate() {
            let sku = ["coffee", "tea_green", "survey", "bread", "coffee"][*sku];
            let quantity = if n % 7 == 0 { 1 } else { *quantity };
            // Every third id stands twice.
            let id = n - usize::from(n % 3 == 2);
            let outcome = world.submit(consumption(&format!("c{id} {who} 2026-09-01T10:00:00Z {sku}×{quantity}")));
            if sku == "coffee" && outcome.is_ok() {
                stamps[*who as usize] += u64::from(quantity);
            }
            prop_assert_eq!(world.house.imbalance(), 0);
        }
        for who in 1..4u128 {
            let (_, _, in_row, rows) = world.balances(who);
            prop_assert_eq!(in_row + rows * 10, stamps[who as usize]);
        }
        let members: i64 = world.members.values().map(|m| m.cards[0].points.balance + m.coins.balance).sum();
        let house: i64 = world.house.accounts.values().map(|a| a.house).sum();
        prop_assert_eq!(members + house, 0);
        let mut again = World::default();
        for (_, record) in &world.journal {
            again.apply(record.clone());
        }
        prop_assert_eq!(&again, &world);
        prop_assert_eq!(format!("{:?}", again.members), format!("{:?}", world.members));
    }
}
