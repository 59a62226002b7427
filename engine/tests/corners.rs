//! What the auditor and hostile configuration found: each story failed once.

mod support;

use punchline_engine::command::Action;
use punchline_engine::event::{Event, EventType};
use punchline_engine::expression::{Expression, RULE_NAMES};
use punchline_engine::id::{MemberId, Sequence};
use punchline_engine::loyalty::account::sum;
use punchline_engine::loyalty::campaign::{Campaign, EarningRule, SkuSelector};
use punchline_engine::loyalty::coupon::{BookKind, CouponBook};
use punchline_engine::loyalty::fact::RawFact;
use punchline_engine::loyalty::item::Item;
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::programme::*;
use punchline_engine::loyalty::reward::Offered;
use punchline_engine::quantity::Points;
use punchline_engine::time::Period;
use support::*;

fn club() -> Currency {
    Currency::Points("club".parse().expect("a slug"))
}

fn adjust(currency: Currency, amount: i64) -> Action {
    Action::AdjustBalance { member_id: member_id(1), currency, amount, reason: "because".into() }
}

fn update(world: &mut World, change: impl FnOnce(&mut Campaign)) {
    let mut campaign = campaign();
    change(&mut campaign);
    world.accept(Action::UpdateCampaign { campaign, etag: None });
}

fn create_book(world: &mut World, id: &str, codes: &[&str]) {
    let coupon_book = CouponBook {
        coupon_book_id: id.parse().expect("a slug"),
        campaign_id: None,
        name: id.into(),
        kind: BookKind::Listed,
        external_id: String::new(),
        description: String::new(),
        picture_url: String::new(),
        discount_type: String::new(),
        discount_amount: 0,
        offered: Offered::default(),
        expire_after_days: 0,
        uses_max: 2,
        version: 0,
    };
    let codes = codes.iter().map(|&code| code.to_owned()).collect();
    world.accept(Action::CreateCouponBook { coupon_book, codes });
}

/// A rule that gives a coupon of `book` for a gift.
fn gift(id: &str, book: &str) -> EarningRule {
    EarningRule {
        id: id.parse().expect("a slug"),
        skus: SkuSelector::Exact("gift".into()),
        coupon_book: Some(book.parse().expect("a slug")),
        stamps: None,
        points: Points(0),
        ..campaign().rules[0].clone()
    }
}

fn owners(world: &World) -> Vec<(String, Option<MemberId>)> {
    let coupons = world.items.values().filter_map(Item::coupon);
    coupons.map(|coupon| (coupon.code.clone(), coupon.member_id)).collect()
}

#[test]
fn each_book_gives_its_next_code() {
    let mut world = World::new();
    create_book(&mut world, "a", &["a0", "a1"]);
    create_book(&mut world, "b", &["b0", "b1"]);
    update(&mut world, |campaign| campaign.rules = vec![gift("one", "a"), gift("two", "b")]);
    world.accept(register(1, true));
    world.accept(consumption("c1 1 2026-09-01T10:00:00Z gift"));
    let one = Some(member_id(1));
    let expected = [("a0", one), ("a1", None), ("b0", one), ("b1", None)];
    assert_eq!(owners(&world), expected.map(|(code, owner)| (code.to_owned(), owner)));
}

#[test]
fn two_campaigns_do_not_give_the_same_code() {
    let mut world = World::new();
    create_book(&mut world, "a", &["a0", "a1", "a2"]);
    update(&mut world, |campaign| campaign.rules = vec![gift("one", "a")]);
    let other = Campaign { id: "other".parse().unwrap(), rules: vec![gift("one", "a")], ..campaign() };
    let joined = Action::JoinCampaign { member_id: member_id(1), campaign_id: other.id.clone() };
    world.accept(Action::CreateCampaign { campaign: other });
    world.accept(register(1, true));
    world.accept(joined);
    let events = world.accept(consumption("c1 1 2026-09-01T10:00:00Z gift"));
    let code = |event: &Event| if let Event::CouponAssigned(e) = event { Some(e.code.clone()) } else { None };
    assert_eq!(events.iter().filter_map(code).collect::<Vec<_>>(), ["a0", "a1"]);
}

#[test]
fn what_a_hold_leaves_pays_the_debt() {
    let mut world = World::new();
    update(&mut world, |campaign| campaign.programme.points.overdraft = 10);
    world.accept(register(1, true));
    world.accept(adjust(club(), 5));
    world.accept(Action::PlaceHold {
        member_id: member_id(1),
        hold_id: "h".into(),
        currency: club(),
        amount: 5,
        until: NOW.plus_ms(1_000),
        reason: String::new(),
    });
    world.accept(adjust(club(), -6));
    let (hold_id, reason) = ("h".into(), String::new());
    world.accept(Action::PostHold { member_id: member_id(1), hold_id, amount: Some(1), reason });
    let points = &world.members[&member_id(1)].cards[0].points;
    assert_eq!((points.balance, points.available(), sum(&points.lots)), (-2, -2, 0));
}

#[test]
fn what_was_never_earned_is_not_taken_back_from_what_was() {
    let mut world = World::new();
    update(&mut world, |campaign| {
        let tier = |id: &str, threshold| Tier { id: id.parse().unwrap(), name: id.into(), threshold };
        campaign.programme.tiers = vec![tier("gold", 100)];
        campaign.programme.tier_basis = TierBasis::Earned { months: 0 };
        let bonus = Bonus { points: Points(1), ..Bonus::default() };
        campaign.programme.leaderboards = vec![Leaderboard {
            id: "daily".parse().unwrap(),
            name: String::new(),
            period: Period::Day,
            prizes: vec![Prize { from_rank: 1, to_rank: 1, bonus, reward_id: None }],
        }];
    });
    world.accept(register(1, true));
    world.accept(consumption("c1 1 2026-09-01T10:00:00Z coffee×12"));
    let reversal = |entry| Action::ReverseEntry { member_id: member_id(1), entry, reason: "a slip".into() };
    let state = |world: &World| {
        let card = &world.members[&member_id(1)].cards[0];
        let round = Period::Day.number(NOW);
        (card.points.balance, card.earned_in(0, NOW), card.score(&"daily".parse().unwrap(), round), card.tier.is_some())
    };
    assert_eq!(state(&world), (120, 120, 120, true));
    world.accept(adjust(club(), 50));
    let entry = world.journal.last().unwrap().0;
    world.accept(reversal(entry));
    assert_eq!(state(&world), (120, 120, 120, true), "a correction and its reversal");
    let (first, record) =
        world.journal.iter().find(|(_, r)| matches!(r.events[0], Event::ConsumptionRecorded(_))).unwrap();
    let credited = record.events.iter().position(|e| e.event_type() == EventType::PointsCredited).unwrap();
    let entry = Sequence(first.0 + credited as u64);
    world.accept(reversal(entry));
    assert_eq!(state(&world), (0, 0, 0, false), "what was earned is");
    // Whose entry it is not is told the same before and after.
    world.accept(register(2, true));
    let stranger = Action::ReverseEntry { member_id: member_id(2), entry, reason: "a slip".into() };
    assert_eq!(world.submit(stranger).unwrap_err().reason(), "ENTRY_NOT_FOUND");
    assert_eq!(world.submit(reversal(entry)), Ok(vec![]));
}

#[test]
fn the_blocked_win_nothing() {
    let mut world = World::new();
    update(&mut world, |campaign| {
        let bonus = Bonus { points: Points(7), ..Bonus::default() };
        campaign.programme.leaderboards = vec![Leaderboard {
            id: "daily".parse().unwrap(),
            name: String::new(),
            period: Period::Day,
            prizes: vec![Prize { from_rank: 1, to_rank: 1, bonus, reward_id: None }],
        }];
    });
    world.accept(register(1, true));
    world.accept(Action::BlockMember { member_id: member_id(1), reason: "fraud".into() });
    let award = Action::AwardLeaderboard {
        member_id: member_id(1),
        campaign_id: "club".parse().unwrap(),
        leaderboard_id: "daily".parse().unwrap(),
        round: Period::Day.number(NOW) - 1,
        rank: 1,
        score: 10,
    };
    assert_eq!(world.submit(award), Ok(vec![]));
    assert_eq!(world.balances(1).0, 0);
}

#[test]
fn a_code_that_was_given_back_is_given_again() {
    let mut world = World::new();
    create_book(&mut world, "a", &["a0", "a1"]);
    world.accept(register(1, true));
    let book = || "a".parse().unwrap();
    let (code, usage_id) = (|| String::from("a0"), |n: u32| format!("u{n}"));
    world.accept(Action::UseCoupon {
        coupon_book_id: book(),
        code: code(),
        usage_id: usage_id(1),
        order_id: String::new(),
        discount_amount: 0,
    });
    let assign =
        |n| Action::AssignCoupon { member_id: member_id(1), coupon_book_id: book(), code: None, usage_id: usage_id(n) };
    world.accept(assign(2));
    let roll_back = |code: &str| Action::RollBackCoupon {
        coupon_book_id: book(),
        code: code.into(),
        reverted_usage_id: usage_id(1),
        reason: String::new(),
    };
    world.accept(roll_back("a0"));
    assert_eq!(world.submit(roll_back("a0")), Ok(vec![]));
    assert_eq!(world.submit(roll_back("a1")).unwrap_err().reason(), "ID_REUSED");
    world.accept(assign(3));
    assert!(owners(&world).iter().all(|(_, owner)| *owner == Some(member_id(1))), "{:?}", owners(&world));
}

#[test]
fn a_fact_is_the_same_after_its_member_was_merged() {
    let mut world = World::new();
    world.accept(register(1, true));
    world.accept(register(2, true));
    let fact = |n: u128| {
        let raw = RawFact {
            source: "shop".into(),
            fact_id: "f".into(),
            fact_type: "shop.visited".into(),
            identifiers: vec![("email".into(), format!("m{n}@example.com"))],
            ..RawFact::default()
        };
        Action::PublishFact(raw.check(NOW, |_| false).expect("well-formed"))
    };
    world.accept(fact(2));
    assert_eq!(world.submit(fact(1)).unwrap_err().reason(), "FACT_EXISTS_WITH_DIFFERENT_CONTENT");
    world.accept(Action::MergeMembers { member_id: member_id(1), from_member_id: member_id(2) });
    assert_eq!(world.submit(fact(2)).unwrap_err().reason(), "FACT_EXISTS");
}

#[test]
fn sums_over_cards_do_not_overflow() {
    let mut world = World::new();
    let other = Campaign { id: "other".parse().unwrap(), ..campaign() };
    let joined = Action::JoinCampaign { member_id: member_id(1), campaign_id: other.id.clone() };
    world.accept(Action::CreateCampaign { campaign: other });
    let condition = Expression::parse("condition", "member.points > 0", RULE_NAMES).unwrap();
    let segment = Segment { id: "any".parse().unwrap(), name: String::new(), condition, version: 0 };
    world.accept(Action::CreateSegment { segment });
    world.accept(register(1, true));
    world.accept(joined);
    world.accept(adjust(club(), i64::MAX));
    world.accept(adjust(Currency::Points("other".parse().unwrap()), i64::MAX));
    assert_eq!(world.members[&member_id(1)].segments.len(), 1);
    world.accept(register(2, true));
    let more = Action::AdjustBalance { member_id: member_id(2), currency: club(), amount: 1, reason: "x".into() };
    assert_eq!(world.submit(more).unwrap_err().reason(), "BALANCE_OVERFLOW", "nor the house's account");
    world.accept(adjust(Currency::Points("other".parse().unwrap()), -i64::MAX));
    // Nor does what is earned again and again.
    update(&mut world, |campaign| campaign.rules[0].points = Points(1_000_000));
    world.accept(adjust(club(), -i64::MAX));
    let lines = "coffee×10000 ".repeat(200);
    world.accept(consumption(&format!("c1 1 2026-09-01T10:00:00Z {lines}")));
    assert_eq!(world.balances(1).0, 200 * 10_000 * 1_000_000);
}

/// A segment that left whoever entered it would be entered and left with every change, for ever.
#[test]
fn segments_do_not_go_by_segments() {
    let mut world = World::new();
    let segment = |condition: &str| {
        let condition = Expression::parse("condition", condition, RULE_NAMES).unwrap();
        Action::CreateSegment {
            segment: Segment { id: "ring".parse().unwrap(), name: String::new(), condition, version: 0 },
        }
    };
    let refused = world.submit(segment("!('ring' in member.segments)")).unwrap_err();
    assert_eq!((refused.reason(), refused.to_string().contains("segments")), ("INVALID_EXPRESSION", true));
    world.accept(segment("!('ring' in member['segments'])"));
    world.accept(register(1, true));
    for amount in [1, 2, 3] {
        world.accept(adjust(club(), amount));
        assert_eq!(world.members[&member_id(1)].segments.len(), 1, "it rests");
    }
}

#[test]
fn hostile_expressions_are_refused_when_written() {
    let longer = |list: &str| format!("[{list}.map(x, {})[0]]", vec!["x"; 100].join(" + "));
    let exploding = format!("{}[0] == ''", (0..4).fold("['aaaaaaaaaa']".to_owned(), |list, _| longer(&list)));
    let deep = ["(", "[", "!", "-", "member[", "member.id.contains("];
    let deep = deep.map(|word| word.repeat(1_990 / word.len()));
    for (text, why) in [
        (exploding.as_str(), "walks what a walk"),
        ("member.id.matches('(a{100}){1000}')", "too large"),
        (r"member.id.matches('\\w{100}')", "too large"),
        ("member.id.matches('(')", "no pattern"),
        ("member.id.matches(member.locale)", "not written out"),
        ("member.cards.exists(c, member.cards.exists(d, true))", "within a list"),
    ] {
        let refused = Expression::parse("condition", text, RULE_NAMES).expect_err(text);
        assert_eq!((refused.reason, refused.field.as_str()), ("INVALID_EXPRESSION", "condition"));
        assert!(refused.rule.contains(why), "{refused}");
    }
    for text in deep {
        Expression::parse("condition", &text, RULE_NAMES).expect_err("it is no expression");
    }
    // Deep, but whole: refused or evaluated, never an overflow of the stack.
    let nested = |open: &str, inner: &str, close: &str| {
        let depth = 1_900 / (open.len() + close.len());
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    for text in [
        nested("[", "", "]") + " == []",
        nested("!", "true", ""),
        nested("-", "1", "") + " == 1",
        nested("member", "", ".a"),
        nested("true ? ", "true", " : true"),
        nested("size(", "'a'", ")") + " == 1",
        format!("member{}", ".a".repeat(900)),
        format!("member{}", "[0]".repeat(600)),
    ] {
        if let Ok(expression) = Expression::parse("condition", &text, RULE_NAMES) {
            expression.holds(&[]);
        }
    }
    assert!(Expression::parse("condition", "member.id.matches('^[0-9a-f]{8}-')", RULE_NAMES).is_ok());
}

#[test]
fn multipliers_that_would_overflow_are_refused_when_written() {
    let mut world = World::new();
    let multipliers = |percents: &[u32]| {
        let one = |(i, percent): (usize, &u32)| Multiplier {
            id: format!("m{i}").parse().unwrap(),
            percent: *percent,
            tier: None,
            segment: None,
            condition: None,
            validity: Default::default(),
        };
        percents.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    for (stacking, percents, accepted) in [
        (Stacking::Best, &[10_000; 50][..], true),
        (Stacking::Add, &[10_000; 50], true),
        (Stacking::Multiply, &[10_000; 50], false),
        (Stacking::Multiply, &[10_000; 4], false),
        (Stacking::Multiply, &[10_000; 3], true),
        (Stacking::Multiply, &[200; 20], true),
    ] {
        let mut campaign = campaign();
        campaign.programme.multipliers = multipliers(percents);
        campaign.programme.stacking = stacking;
        let outcome = world.submit(Action::UpdateCampaign { campaign, etag: None });
        match outcome {
            Ok(_) => assert!(accepted, "{stacking:?} {percents:?}"),
            Err(refused) => {
                assert!(!accepted, "{stacking:?} {percents:?}: {refused}");
                assert!(refused.to_string().starts_with("multipliers \"["), "{refused}");
            }
        }
    }
}
