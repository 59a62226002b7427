//! Contradictory and hostile configuration: what is refused when it is written, with the field and its value.

use std::str::FromStr;

use punchline_engine::command::Action;
use punchline_engine::expression::{Expression, RULE_NAMES};
use punchline_engine::loyalty::campaign::*;
use punchline_engine::loyalty::coupon::{BookKind, CouponBook};
use punchline_engine::loyalty::programme::*;
use punchline_engine::loyalty::reward::{Cost, Offered, Reward};
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::rejection::Rejection;
use punchline_engine::time::Period;

use crate::support::{NOW, World, campaign};

pub fn slug<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a slug")
}

pub fn book(id: &str) -> CouponBook {
    CouponBook {
        coupon_book_id: slug(id),
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
        uses_max: 1,
        version: 0,
    }
}

pub fn reward(id: &str) -> Reward {
    Reward {
        reward_id: slug(id),
        campaign_id: slug("club"),
        reward_name: id.into(),
        description: String::new(),
        picture_url: String::new(),
        reward_link: String::new(),
        reward_value: String::new(),
        cost: Cost::Points(1),
        stock: None,
        per_member_max: None,
        coupon_book_id: None,
        offered: Offered::default(),
        hold_ms: 60_000,
        cool_down_ms: 0,
        active: true,
        version: 0,
    }
}

/// Refused with this field, and a value that begins so.
fn check(world: &World, action: Action, reason: &str, field: &str, value: &str) {
    let mut after = world.clone();
    match after.submit(action) {
        Err(Rejection::Invalid(refused)) => {
            assert_eq!((refused.reason, refused.field.as_str()), (reason, field), "{refused}");
            assert!(refused.value.starts_with(value), "{field}: {:?} is not {value:?}", refused.value);
            assert!(refused.to_string().starts_with(&format!("{field} ")) && !refused.rule.is_empty());
        }
        other => panic!("{field} {value}: {other:?}"),
    }
    assert_eq!(after, *world, "{field} {value}");
}

fn condition(text: &str) -> Option<Expression> {
    Some(Expression::parse("condition", text, RULE_NAMES).expect("an expression"))
}

fn tier(id: &str, threshold: i64) -> Tier {
    Tier { id: slug(id), name: id.into(), threshold }
}

fn multiplier(percent: u32) -> Multiplier {
    let validity = Validity::default();
    Multiplier { id: slug("m"), percent, tier: None, segment: None, condition: None, validity }
}

fn bonus(points: i64, coins: i64) -> Bonus {
    Bonus { points: Points(points), coins: Coins(coins) }
}

fn board(period: Period, ranks: &[(u32, u32)]) -> Leaderboard {
    let prize = |&(from_rank, to_rank): &(u32, u32)| Prize { from_rank, to_rank, bonus: bonus(1, 0), reward_id: None };
    Leaderboard { id: slug("b"), name: "B".into(), period, prizes: ranks.iter().map(prize).collect() }
}

fn never() -> Validity {
    Validity { starts_at: Some(NOW), ends_at: Some(NOW) }
}

fn dynamic(sku: &str) -> DynamicEvent {
    DynamicEvent { sku: sku.into(), name: String::new() }
}

fn external(amount: i64) -> Option<ExternalReward> {
    Some(ExternalReward { reward_id: slug("r"), reward_name: String::new(), amount })
}

fn referral(change: fn(&mut Referral)) -> Option<Referral> {
    let mut referral = Referral::default();
    change(&mut referral);
    Some(referral)
}

/// As NOW is told.
const AT_NOW: &str = "2026-09-21T14:13:20.000Z";

#[test]
fn campaigns() {
    type Spoil = fn(&mut Campaign);
    let cases: &[(Spoil, &str, &str)] = &[
        (|c| c.name = "x".repeat(201), "name", "xxx"),
        (|c| c.rules = vec![c.rules[0].clone(); 501], "rules", "501"),
        (|c| c.punchcards = vec![c.punchcards[0].clone(); 51], "punchcards", "51"),
        (|c| c.dynamic_events = vec![dynamic("a"); 1_001], "dynamic_events", "1001"),
        (|c| c.validity = never(), "validity.ends_at", AT_NOW),
        (|c| c.punchcards.push(c.punchcards[0].clone()), "punchcards[1].id", "card"),
        (|c| c.punchcards[0].row_length = 0, "punchcards[0].row_length", "0"),
        (|c| c.punchcards[0].row_length = 1_001, "punchcards[0].row_length", "1001"),
        (|c| c.punchcards[0].steps = vec![5, 5], "punchcards[0].steps", "[5, 5]"),
        (|c| c.punchcards[0].steps = vec![10], "punchcards[0].steps", "[10]"),
        (|c| c.rules.push(c.rules[0].clone()), "rules[3].id", "coffee"),
        (|c| c.rules[0].skus = SkuSelector::Exact(String::new()), "rules[0].skus", ""),
        (|c| c.rules[0].skus = SkuSelector::Prefix("x".repeat(129)), "rules[0].skus", "xxx"),
        (|c| c.rules[0].skus = SkuSelector::List(Default::default()), "rules[0].skus", "0"),
        (|c| c.rules[0].skus = SkuSelector::List([String::new()].into()), "rules[0].skus", ""),
        (|c| c.rules[0].points = Points(-1), "rules[0].points", "-1"),
        (|c| c.rules[0].points = Points(i64::MAX), "rules[0].points", "9223372036854775807"),
        (|c| c.rules[0].coins = Coins(1_000_001), "rules[0].coins", "1000001"),
        (
            |c| c.rules[0].stamps = Some(StampReward { punchcard_id: slug("none"), per_unit: 1 }),
            "rules[0].stamps.punchcard_id",
            "none",
        ),
        (
            |c| c.rules[0].stamps = Some(StampReward { punchcard_id: slug("card"), per_unit: 0 }),
            "rules[0].stamps.per_unit",
            "0",
        ),
        (|c| c.rules[2].caps[0].units_max = 0, "rules[2].caps[0].units_max", "0"),
        (|c| c.rules[2].caps[1].period = Period::Day, "rules[2].caps[1].period", "Day"),
        (|c| c.rules[0].validity = never(), "rules[0].validity.ends_at", AT_NOW),
        (|c| c.rules[0].external = external(0), "rules[0].external.amount", "0"),
        (|c| c.rules[0].external = external(1_000_001), "rules[0].external.amount", "1000001"),
        (
            |c| {
                let reward_name = "\u{1b}".into();
                c.rules[0].external = external(1).map(|reward| ExternalReward { reward_name, ..reward });
            },
            "rules[0].external.reward_name",
            "\u{1b}",
        ),
        (|c| c.rules[0].coupon_book = Some(slug("none")), "rules[0].coupon_book", "none"),
        (|c| c.dynamic_events = vec![dynamic("")], "dynamic_events[0].sku", ""),
        (|c| c.dynamic_events = vec![dynamic("a"), dynamic("a")], "dynamic_events[1].sku", "a"),
        (|c| c.programme.multipliers = vec![multiplier(100); 51], "multipliers", "51"),
        (|c| c.programme.tiers = vec![tier("t", 0); 51], "tiers", "51"),
        (|c| c.programme.leaderboards = vec![board(Period::Day, &[(1, 1)]); 11], "leaderboards", "11"),
        (|c| c.programme.points.expire_after_days = 36_501, "points.expire_after_days", "36501"),
        (|c| c.programme.points.expiring_soon_days = 1, "points.expiring_soon_days", "1"),
        (|c| c.programme.points.overdraft = -1, "points.overdraft", "-1"),
        (|c| c.programme.points.overdraft = i64::MAX, "points.overdraft", "9223372036854775807"),
        (|c| c.programme.first_bonus = bonus(-1, 0), "first_bonus.points", "-1"),
        (|c| c.programme.birthday_bonus = bonus(0, 1_000_001), "birthday_bonus.coins", "1000001"),
        (|c| c.programme.tiers = vec![Tier { name: "\n".into(), ..tier("t", 0) }], "tiers[0].name", "\n"),
        (|c| c.programme.tiers = vec![tier("t", 0), tier("t", 1)], "tiers[1].id", "t"),
        (|c| c.programme.tiers = vec![tier("t", -1)], "tiers[0].threshold", "-1"),
        // A ring: each would be above the other.
        (|c| c.programme.tiers = vec![tier("a", 2), tier("b", 1)], "tiers[1].threshold", "1"),
        (|c| c.programme.tiers = vec![tier("a", 1), tier("b", 1)], "tiers[1].threshold", "1"),
        (|c| c.programme.tier_basis = TierBasis::Earned { months: 37 }, "tier_basis.months", "37"),
        (|c| c.programme.multipliers = vec![multiplier(100), multiplier(100)], "multipliers[1].id", "m"),
        (|c| c.programme.multipliers = vec![multiplier(0)], "multipliers[0].percent", "0"),
        (|c| c.programme.multipliers = vec![multiplier(10_001)], "multipliers[0].percent", "10001"),
        (
            |c| c.programme.multipliers = vec![Multiplier { tier: Some(slug("none")), ..multiplier(100) }],
            "multipliers[0].tier",
            "none",
        ),
        (
            |c| c.programme.multipliers = vec![Multiplier { segment: Some(slug("none")), ..multiplier(100) }],
            "multipliers[0].segment",
            "none",
        ),
        (
            |c| c.programme.multipliers = vec![Multiplier { validity: never(), ..multiplier(100) }],
            "multipliers[0].validity.ends_at",
            AT_NOW,
        ),
        (
            |c| {
                let ids = ["a", "b", "c", "d"].map(slug);
                c.programme.multipliers = ids.map(|id| Multiplier { id, ..multiplier(10_000) }).into();
                c.programme.stacking = Stacking::Multiply;
                c.rules[0].points = Points(1_000_000);
            },
            "multipliers",
            "[10000, 10000, 10000, 10000]",
        ),
        (|c| c.programme.leaderboards = vec![board(Period::Campaign, &[(1, 1)])], "leaderboards[0].period", "campaign"),
        (|c| c.programme.leaderboards = vec![board(Period::Day, &[])], "leaderboards[0].prizes", "[]"),
        (|c| c.programme.leaderboards = vec![board(Period::Day, &[(1, 1)]); 2], "leaderboards[1].id", "b"),
        (
            |c| {
                let name = "x".repeat(201);
                c.programme.leaderboards = vec![Leaderboard { name, ..board(Period::Day, &[(1, 1)]) }];
            },
            "leaderboards[0].name",
            "xxx",
        ),
        (
            |c| c.programme.leaderboards = vec![board(Period::Day, &[(0, 1)])],
            "leaderboards[0].prizes[0].from_rank",
            "0",
        ),
        (
            |c| c.programme.leaderboards = vec![board(Period::Day, &[(1, 3), (3, 4)])],
            "leaderboards[0].prizes[1].from_rank",
            "3",
        ),
        (|c| c.programme.leaderboards = vec![board(Period::Day, &[(2, 1)])], "leaderboards[0].prizes[0].to_rank", "1"),
        (
            |c| c.programme.leaderboards = vec![board(Period::Day, &[(1, 1_001)])],
            "leaderboards[0].prizes[0].to_rank",
            "1001",
        ),
        (
            |c| {
                c.programme.leaderboards = vec![board(Period::Day, &[(1, 1)])];
                c.programme.leaderboards[0].prizes[0].bonus = bonus(-1, 0);
            },
            "leaderboards[0].prizes[0].bonus.points",
            "-1",
        ),
        (
            |c| c.programme.referral = referral(|r| r.advocate.bonus = bonus(-1, 0)),
            "referral.advocate.bonus.points",
            "-1",
        ),
        (|c| c.programme.referral = referral(|r| r.friend.bonus = bonus(0, -1)), "referral.friend.bonus.coins", "-1"),
        (|c| c.programme.referral = referral(|r| r.rule_ids = vec![slug("none")]), "referral.rule_ids[0]", "none"),
    ];
    let world = World::new();
    for (spoil, field, value) in cases {
        let mut other = Campaign { id: slug("other"), ..campaign() };
        spoil(&mut other);
        let changed = Campaign { id: slug("club"), ..other.clone() };
        check(&world, Action::CreateCampaign { campaign: other }, "INVALID_FIELD", field, value);
        check(&world, Action::UpdateCampaign { campaign: changed, etag: None }, "INVALID_FIELD", field, value);
    }
    // Names that are not there: another place may have them.
    let elsewhere = Expression::parse("condition", "event.type == 'a'", &["event"]).expect("an expression");
    let mut other = Campaign { id: slug("other"), ..campaign() };
    other.rules[1].condition = Some(elsewhere.clone());
    let create = Action::CreateCampaign { campaign: other.clone() };
    check(&world, create, "INVALID_EXPRESSION", "rules[1].condition", "event.type");
    other.rules[1].condition = condition("line.quantity > 1");
    other.programme.multipliers = vec![Multiplier { condition: Some(elsewhere), ..multiplier(100) }];
    let create = Action::CreateCampaign { campaign: other };
    check(&world, create, "INVALID_EXPRESSION", "multipliers[0].condition", "event.type");
}

#[test]
fn segments() {
    let world = World::new();
    let segment = |text: &str| Segment {
        id: slug("s"),
        name: String::new(),
        condition: condition(text).expect("given"),
        version: 0,
    };
    let create = |segment| Action::CreateSegment { segment };
    let named = Segment { name: "x".repeat(201), ..segment("true") };
    check(&world, create(named), "INVALID_FIELD", "name", "xxx");
    for text in ["card.points > 1", "line.sku == 'a'", "size(member.segments) == 0"] {
        check(&world, create(segment(text)), "INVALID_EXPRESSION", "condition", text);
    }
    let mut there = world.clone();
    there.accept(create(segment("member.coins > 1")));
    let update = Action::UpdateSegment { segment: segment("consumption.lines == []"), etag: None };
    check(&there, update, "INVALID_EXPRESSION", "condition", "consumption.lines");
}

#[test]
fn rewards() {
    type Spoil = fn(&mut Reward);
    let cases: &[(Spoil, &str, &str)] = &[
        (|r| r.reward_name = "\u{7}".into(), "reward_name", "\u{7}"),
        (|r| r.reward_value = "x".repeat(201), "reward_value", "xxx"),
        (|r| r.description = "x".repeat(2_001), "description", "xxx"),
        (|r| r.picture_url = "x".repeat(2_001), "picture_url", "xxx"),
        (|r| r.reward_link = "x".repeat(2_001), "reward_link", "xxx"),
        (|r| r.cost = Cost::Points(0), "cost", "0"),
        (|r| r.cost = Cost::Coins(-1), "cost", "-1"),
        (|r| r.cost = Cost::Coins(1_000_000_001), "cost", "1000000001"),
        (|r| r.per_member_max = Some(0), "per_member_max", "0"),
        (|r| r.hold_ms = 0, "hold_ms", "0"),
        (|r| r.hold_ms = -1, "hold_ms", "-1"),
        (|r| r.hold_ms = i64::MAX, "hold_ms", "9223372036854775807"),
        (|r| r.cool_down_ms = -1, "cool_down_ms", "-1"),
        (|r| r.cool_down_ms = i64::MAX, "cool_down_ms", "9223372036854775807"),
        (|r| r.offered = Offered { valid_from: Some(NOW), valid_to: Some(NOW) }, "valid.ends_at", AT_NOW),
        (|r| r.campaign_id = slug("none"), "campaign_id", "none"),
        (|r| r.coupon_book_id = Some(slug("none")), "coupon_book_id", "none"),
    ];
    let mut world = World::new();
    world.accept(Action::CreateReward { reward: reward("mug") });
    for (spoil, field, value) in cases {
        let mut other = reward("other");
        spoil(&mut other);
        let changed = Reward { reward_id: slug("mug"), ..other.clone() };
        check(&world, Action::CreateReward { reward: other }, "INVALID_FIELD", field, value);
        check(&world, Action::UpdateReward { reward: changed, etag: None }, "INVALID_FIELD", field, value);
    }
}

#[test]
fn coupon_books() {
    type Spoil = fn(&mut CouponBook);
    let cases: &[(Spoil, &[&str], &str, &str)] = &[
        (|b| b.name = "\n".into(), &[], "name", "\n"),
        (|b| b.external_id = "x".repeat(201), &[], "external_id", "xxx"),
        (|b| b.discount_type = "\u{0}".into(), &[], "discount_type", "\u{0}"),
        (|b| b.discount_amount = -1, &[], "discount_amount", "-1"),
        (|b| b.description = "x".repeat(2_001), &[], "description", "xxx"),
        (|b| b.picture_url = "x".repeat(2_001), &[], "picture_url", "xxx"),
        (|b| b.uses_max = 0, &[], "uses_max", "0"),
        (|b| b.uses_max = 101, &[], "uses_max", "101"),
        (|b| b.expire_after_days = 36_501, &[], "expire_after_days", "36501"),
        (|b| b.offered = Offered { valid_from: Some(NOW), valid_to: Some(NOW) }, &[], "valid.ends_at", AT_NOW),
        (|b| b.campaign_id = Some(slug("none")), &[], "campaign_id", "none"),
        (|_| {}, &["a", "b", "a"], "codes[2]", "a"),
        (|_| {}, &["a", ""], "codes[1]", ""),
        (|_| {}, &["a b"], "codes[0]", "a b"),
    ];
    let mut world = World::new();
    for (spoil, codes, field, value) in cases {
        let mut coupon_book = book("other");
        spoil(&mut coupon_book);
        let codes = codes.iter().map(|&code| code.to_owned()).collect();
        check(&world, Action::CreateCouponBook { coupon_book, codes }, "INVALID_FIELD", field, value);
    }
    let codes = |codes: &[&str]| codes.iter().map(|&code| code.to_owned()).collect::<Vec<_>>();
    world.accept(Action::CreateCouponBook { coupon_book: book("book"), codes: codes(&["a"]) });
    let add = |codes| Action::AddCoupons { coupon_book_id: slug("book"), kind: BookKind::Listed, codes };
    check(&world, add(codes(&["b", "a"])), "INVALID_FIELD", "codes[1]", "a");
    check(&world, add(codes(&[])), "INVALID_FIELD", "codes", "[]");
    check(&world, add(vec!["a".into(); 10_001]), "INVALID_FIELD", "codes", "10001");
}

#[test]
fn settings() {
    type Spoil = fn(&mut Settings);
    let cases: &[(Spoil, &str, &str)] = &[
        (|s| s.time_zone = "Europe/Atlantis".into(), "time_zone", "Europe/Atlantis"),
        (|s| s.time_zone = String::new(), "time_zone", ""),
        (|s| s.time_zone = "../../etc/passwd".into(), "time_zone", "../../etc/passwd"),
        (|s| s.coins.expire_after_days = 36_501, "coins.expire_after_days", "36501"),
        (|s| s.coins.expiring_soon_days = 3, "coins.expiring_soon_days", "3"),
        (|s| s.coins.overdraft = -1, "coins.overdraft", "-1"),
    ];
    let world = World::new();
    for (spoil, field, value) in cases {
        let mut settings = Settings::default();
        spoil(&mut settings);
        check(&world, Action::UpdateSettings { settings, etag: None }, "INVALID_FIELD", field, value);
    }
}
