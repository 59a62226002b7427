//! What the auditor's world is configured with: two campaigns that differ in everything that matters.
//!
//! `alpha`: points expire, the balance may go 50 below zero, multipliers add up, tiers go by the balance, friends
//! are rewarded. `beta`: points stay, no overdraft, multipliers multiply, tiers go by what was earned this month,
//! stamps beyond a row are lost, and it ends.

use std::str::FromStr;

use punchline_engine::command::Action;
use punchline_engine::expression::{Expression, RULE_NAMES};
use punchline_engine::loyalty::campaign::*;
use punchline_engine::loyalty::coupon::{BookKind, CouponBook};
use punchline_engine::loyalty::programme::*;
use punchline_engine::loyalty::reward::{Cost, Offered, Reward};
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::time::{Period, UnixMillis};

use crate::support::NOW;

pub const HOUR_MS: i64 = 3_600_000;
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// No summer time, and days that do not begin with UTC's: simple to count, easy to get wrong.
pub const ZONE: (&str, i64) = ("Asia/Kolkata", 5 * HOUR_MS + HOUR_MS / 2);
/// Coins that a member of the segment `rich` has.
pub const RICH: i64 = 20;
/// When `beta` ends.
pub const BETA_ENDS: UnixMillis = UnixMillis(NOW.0 + 25 * DAY_MS);

pub fn slug<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a slug")
}

fn condition(text: &str) -> Option<Expression> {
    Some(Expression::parse("condition", text, RULE_NAMES).expect("an expression"))
}

fn rule(id: &str, skus: SkuSelector, points: i64, coins: i64) -> EarningRule {
    EarningRule {
        id: slug(id),
        skus,
        points: Points(points),
        coins: Coins(coins),
        stamps: None,
        caps: Vec::new(),
        validity: Validity::default(),
        condition: None,
        coupon_book: None,
        external: None,
    }
}

fn exact(sku: &str) -> SkuSelector {
    SkuSelector::Exact(sku.into())
}

fn stamps(card: &str, per_unit: u32) -> Option<StampReward> {
    Some(StampReward { punchcard_id: slug(card), per_unit })
}

fn card(id: &str, row_length: u32, overflow: Overflow, repeatable: bool) -> Punchcard {
    Punchcard { id: slug(id), name: id.into(), row_length, steps: vec![2], overflow, repeatable }
}

fn multiplier(id: &str, percent: u32) -> Multiplier {
    let validity = Validity::default();
    Multiplier { id: slug(id), percent, tier: None, segment: None, condition: None, validity }
}

fn tier(id: &str, threshold: i64) -> Tier {
    Tier { id: slug(id), name: id.into(), threshold }
}

fn bonus(points: i64, coins: i64) -> Bonus {
    Bonus { points: Points(points), coins: Coins(coins) }
}

fn board(id: &str, period: Period, prizes: Vec<Prize>) -> Leaderboard {
    Leaderboard { id: slug(id), name: id.into(), period, prizes }
}

pub fn alpha() -> Campaign {
    let cap = |period, units_max| Cap { period, units_max };
    let list = SkuSelector::List(["review".to_owned(), "survey".to_owned()].into());
    let external = ExternalReward { reward_id: slug("voucher"), reward_name: "Voucher".into(), amount: 2 };
    let happy = Validity { starts_at: Some(NOW.plus_ms(-DAY_MS)), ends_at: Some(NOW.plus_ms(6 * DAY_MS)) };
    Campaign {
        id: slug("alpha"),
        name: "Alpha".into(),
        validity: Validity { starts_at: Some(NOW.plus_ms(-2 * DAY_MS)), ends_at: None },
        rules: vec![
            EarningRule { stamps: stamps("card", 1), ..rule("coffee", exact("coffee"), 10, 0) },
            rule("tea", SkuSelector::Prefix("tea".into()), 3, 2),
            EarningRule { caps: vec![cap(Period::Day, 1), cap(Period::Month, 3)], ..rule("review", list, 100, 0) },
            EarningRule { condition: condition("line.quantity >= 3"), ..rule("bulk", exact("coffee"), 7, 0) },
            EarningRule { condition: condition("card.points >= 100"), ..rule("rich", exact("coffee"), 0, 1) },
            EarningRule { coupon_book: Some(slug("small")), ..rule("gift", exact("gift"), 1, 0) },
            EarningRule { coupon_book: Some(slug("codes")), ..rule("gift-code", exact("gift"), 0, 0) },
            EarningRule { external: Some(external), ..rule("partner", exact("partner"), 0, 0) },
            EarningRule {
                stamps: stamps("once", 2),
                caps: vec![cap(Period::Week, 4), cap(Period::Campaign, 9)],
                ..rule("green", SkuSelector::Prefix("tea_".into()), 1, 0)
            },
        ],
        punchcards: vec![card("card", 10, Overflow::CarryOver, true), card("once", 6, Overflow::CarryOver, false)],
        dynamic_events: Vec::new(),
        programme: Programme {
            points: PointsPolicy { expire_after_days: 5, expiring_soon_days: 2, overdraft: 50 },
            multipliers: vec![
                Multiplier { tier: Some(slug("gold")), ..multiplier("gold", 200) },
                Multiplier { condition: condition("line.sku == 'tea_green'"), ..multiplier("green", 150) },
                Multiplier { segment: Some(slug("rich")), ..multiplier("rich", 133) },
                Multiplier { validity: happy, ..multiplier("happy", 110) },
            ],
            stacking: Stacking::Add,
            first_bonus: bonus(25, 5),
            birthday_bonus: bonus(7, 1),
            tiers: vec![tier("silver", 100), tier("gold", 300)],
            tier_basis: TierBasis::Balance,
            leaderboards: vec![board(
                "daily",
                Period::Day,
                vec![
                    Prize { from_rank: 1, to_rank: 1, bonus: bonus(30, 0), reward_id: None },
                    Prize { from_rank: 2, to_rank: 3, bonus: bonus(0, 10), reward_id: Some(slug("cup")) },
                ],
            )],
            referral: Some(Referral {
                advocate: ReferralReward { bonus: bonus(40, 0), reward_id: None },
                friend: ReferralReward { bonus: bonus(0, 20), reward_id: Some(slug("hat")) },
                rule_ids: vec![slug("coffee")],
            }),
        },
        version: 0,
    }
}

pub fn beta() -> Campaign {
    Campaign {
        id: slug("beta"),
        name: "Beta".into(),
        validity: Validity { starts_at: None, ends_at: Some(BETA_ENDS) },
        rules: vec![
            EarningRule { stamps: stamps("row", 2), ..rule("coffee", exact("coffee"), 5, 0) },
            EarningRule { stamps: stamps("row", 1), ..rule("bread", exact("bread"), 9, 1) },
            EarningRule { coupon_book: Some(slug("small")), ..rule("gift", exact("gift"), 0, 0) },
        ],
        punchcards: vec![card("row", 5, Overflow::Discard, true)],
        dynamic_events: Vec::new(),
        programme: Programme {
            multipliers: vec![
                Multiplier { condition: condition("consumption.lines.size() > 1"), ..multiplier("several", 150) },
                Multiplier { tier: Some(slug("up")), ..multiplier("up", 133) },
            ],
            stacking: Stacking::Multiply,
            birthday_bonus: bonus(3, 0),
            tiers: vec![tier("base", 0), tier("up", 60)],
            tier_basis: TierBasis::Earned { months: 1 },
            leaderboards: vec![board(
                "weekly",
                Period::Week,
                vec![Prize { from_rank: 1, to_rank: 2, bonus: bonus(11, 1), reward_id: None }],
            )],
            ..Programme::default()
        },
        version: 0,
    }
}

pub fn reward(id: &str, campaign: &str, cost: Cost) -> Reward {
    Reward {
        reward_id: slug(id),
        campaign_id: slug(campaign),
        reward_name: id.into(),
        description: String::new(),
        picture_url: String::new(),
        reward_link: String::new(),
        reward_value: String::new(),
        cost,
        stock: None,
        per_member_max: None,
        coupon_book_id: None,
        offered: Offered::default(),
        hold_ms: HOUR_MS,
        cool_down_ms: DAY_MS,
        active: true,
        version: 0,
    }
}

/// What may be asked for; the order is the one that steps count in.
pub fn rewards() -> [Reward; 4] {
    let offered = Offered { valid_from: None, valid_to: Some(NOW.plus_ms(8 * DAY_MS)) };
    [
        Reward { stock: Some(3), per_member_max: Some(2), ..reward("mug", "alpha", Cost::Points(60)) },
        Reward { coupon_book_id: Some(slug("vouchers")), ..reward("pass", "beta", Cost::Coins(6)) },
        Reward { offered, ..reward("sock", "beta", Cost::Points(10)) },
        Reward { active: false, ..reward("gone", "beta", Cost::Points(1)) },
    ]
}

pub fn book(id: &str, uses_max: u32) -> CouponBook {
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
        uses_max,
        version: 0,
    }
}

/// Books, each with how many codes it has.
pub fn books() -> [(CouponBook, usize); 3] {
    [(book("small", 2), 6), (book("vouchers", 1), 3), (CouponBook { expire_after_days: 2, ..book("codes", 3) }, 3)]
}

pub fn code(book: &str, place: usize) -> String {
    format!("{book}-{place}")
}

pub fn settings() -> Settings {
    let coins = PointsPolicy { expire_after_days: 3, expiring_soon_days: 1, overdraft: 0 };
    Settings { time_zone: ZONE.0.into(), coins, version: 0 }
}

/// The commands that set all of it up.
pub fn actions() -> Vec<Action> {
    let condition = Expression::parse("condition", "member.coins >= 20", &["member"]).expect("an expression");
    let segment = Segment { id: slug("rich"), name: "Rich".into(), condition, version: 0 };
    let mut actions =
        vec![Action::UpdateSettings { settings: settings(), etag: None }, Action::CreateSegment { segment }];
    let book = |(coupon_book, codes): (CouponBook, usize)| {
        let codes = (0..codes).map(|place| code(coupon_book.coupon_book_id.as_str(), place)).collect();
        Action::CreateCouponBook { coupon_book, codes }
    };
    actions.extend(books().map(book));
    actions.extend([alpha(), beta()].map(|campaign| Action::CreateCampaign { campaign }));
    actions.extend(rewards().map(|reward| Action::CreateReward { reward }));
    actions
}
