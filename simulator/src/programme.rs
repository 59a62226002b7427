//! What the tenants of a run are configured with, and the subscriptions of each.

use std::str::FromStr;

use punchline_engine::command::Action;
use punchline_engine::dispatch::{BreakerPolicy, EventSelection, OnDeadLetter, Ordering, RetrySchedule, Subscription};
use punchline_engine::expression::{Expression, RULE_NAMES};
use punchline_engine::id::SubscriptionId;
use punchline_engine::loyalty::campaign::{
    Campaign, Cap, EarningRule, ExternalReward, Overflow, Punchcard, SkuSelector, StampReward, Validity,
};
use punchline_engine::loyalty::coupon::{BookKind, CouponBook};
use punchline_engine::loyalty::fact_type::FactType;
use punchline_engine::loyalty::programme::{
    Bonus, Leaderboard, Multiplier, PointsPolicy, Prize, Programme, Referral, ReferralReward, Segment, Settings,
    Stacking, Tier, TierBasis,
};
use punchline_engine::loyalty::reward::{Cost, Offered, Reward};
use punchline_engine::loyalty::tenant::SealedSecret;
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::time::Period;
use uuid::Uuid;

/// The rule that the auditor knows: nothing multiplies or caps it.
pub const PLAIN_RULE: &str = "plain";
/// What one unit earns by it.
pub const PLAIN_POINTS: i64 = 10;

const HOUR_MS: i64 = 3_600_000;

/// Reads an id.
///
/// # Panics
///
/// If it is none.
pub fn slug<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a slug")
}

fn rule(id: &str, sku: &str, points: i64, coins: i64) -> EarningRule {
    EarningRule {
        id: slug(id),
        skus: SkuSelector::Exact(sku.into()),
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

fn bonus(points: i64, coins: i64) -> Bonus {
    Bonus { points: Points(points), coins: Coins(coins) }
}

fn card() -> Punchcard {
    let (id, name) = (slug("card"), "Card".into());
    Punchcard { id, name, row_length: 10, steps: vec![5], overflow: Overflow::CarryOver, repeatable: true }
}

/// Simple, so that the auditor can tell what a consumption earns.
pub fn alpha() -> Campaign {
    let stamps = Some(StampReward { punchcard_id: slug("card"), per_unit: 1 });
    Campaign {
        id: slug("alpha"),
        name: "Alpha".into(),
        validity: Validity::default(),
        rules: vec![EarningRule { stamps, ..rule(PLAIN_RULE, "coffee", PLAIN_POINTS, 0) }, rule("tea", "tea", 0, 1)],
        punchcards: vec![card()],
        dynamic_events: Vec::new(),
        programme: Programme::default(),
        version: 0,
    }
}

/// With everything.
pub fn beta() -> Campaign {
    let external = ExternalReward { reward_id: slug("voucher"), reward_name: "Voucher".into(), amount: 2 };
    let condition = |text| Some(Expression::parse("condition", text, RULE_NAMES).expect("an expression"));
    let multiplier = |id: &str, percent| {
        let validity = Validity::default();
        Multiplier { id: slug(id), percent, tier: None, segment: None, condition: None, validity }
    };
    let tier = |id: &str, threshold| Tier { id: slug(id), name: id.into(), threshold };
    let prize = |rank, bonus| Prize { from_rank: rank, to_rank: rank, bonus, reward_id: None };
    Campaign {
        id: slug("beta"),
        name: "Beta".into(),
        validity: Validity::default(),
        rules: vec![
            rule("bread", "bread", 7, 1),
            EarningRule { condition: condition("line.quantity >= 3"), ..rule("bulk", "coffee", 3, 0) },
            EarningRule {
                caps: vec![Cap { period: Period::Day, units_max: 2 }, Cap { period: Period::Month, units_max: 9 }],
                ..rule("review", "review", 40, 0)
            },
            EarningRule { coupon_book: Some(slug("small")), ..rule("gift", "gift", 1, 0) },
            EarningRule { external: Some(external), ..rule("partner", "partner", 0, 0) },
        ],
        punchcards: vec![card()],
        dynamic_events: Vec::new(),
        programme: Programme {
            points: PointsPolicy { expire_after_days: 1, expiring_soon_days: 1, overdraft: 50 },
            multipliers: vec![
                Multiplier { tier: Some(slug("gold")), ..multiplier("gold", 200) },
                Multiplier { segment: Some(slug("rich")), ..multiplier("rich", 133) },
            ],
            stacking: Stacking::Multiply,
            first_bonus: bonus(25, 5),
            birthday_bonus: bonus(7, 1),
            tiers: vec![tier("silver", 50), tier("gold", 120)],
            tier_basis: TierBasis::Balance,
            leaderboards: vec![Leaderboard {
                id: slug("daily"),
                name: "Daily".into(),
                period: Period::Day,
                prizes: vec![prize(1, bonus(30, 0)), prize(2, bonus(0, 10))],
            }],
            referral: Some(Referral {
                advocate: ReferralReward { bonus: bonus(40, 0), reward_id: None },
                friend: ReferralReward { bonus: bonus(0, 20), reward_id: Some(slug("hat")) },
                rule_ids: vec![slug("bread")],
            }),
        },
        version: 0,
    }
}

/// A reward.
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
        cool_down_ms: 24 * HOUR_MS,
        active: true,
        version: 0,
    }
}

/// The rewards that may be asked for.
pub const REWARDS: [&str; 3] = ["mug", "pass", "hat"];

/// A book of listed codes.
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

/// A segment by coins.
pub fn segment(id: &str, coins: u64) -> Segment {
    let condition = format!("member.coins >= {coins}");
    let condition = Expression::parse("condition", &condition, &["member"]).expect("an expression");
    Segment { id: slug(id), name: id.into(), condition, version: 0 }
}

/// What holds for all campaigns.
pub fn settings(expire_after_days: u32) -> Settings {
    let coins = PointsPolicy { expire_after_days, expiring_soon_days: 0, overdraft: 0 };
    Settings { time_zone: "Asia/Kolkata".into(), coins, version: 0 }
}

/// A type of facts.
pub fn fact_type(name: &str, description: &str) -> FactType {
    FactType { name: name.into(), description: description.into(), schema: "{}".into(), version: 0 }
}

/// Everything that comes before the first member, but the advertiser.
pub fn set_up(tenant: usize) -> Vec<Action> {
    let codes = |book: &str| (0..12).map(|place| format!("{book}-{place}")).collect();
    let mut actions = vec![
        Action::UpdateSettings { settings: settings(2), etag: None },
        Action::CreateSegment { segment: segment("rich", 20) },
        Action::CreateCouponBook { coupon_book: book("small", 2), codes: codes("small") },
        Action::CreateCouponBook { coupon_book: book("vouchers", 1), codes: codes("vouchers") },
        Action::CreateCampaign { campaign: alpha() },
        Action::CreateCampaign { campaign: beta() },
        Action::CreateReward { reward: Reward { stock: Some(9), ..reward("mug", "alpha", Cost::Points(60)) } },
        Action::CreateReward {
            reward: Reward { coupon_book_id: Some(slug("vouchers")), ..reward("pass", "beta", Cost::Coins(6)) },
        },
        Action::CreateReward { reward: reward("hat", "beta", Cost::Points(10)) },
        Action::RegisterFactType { fact_type: fact_type("fitting.booked", "A fitting"), etag: None },
    ];
    actions.extend(subscriptions(tenant).into_iter().map(|subscription| Action::CreateSubscription {
        subscription,
        secret: secret(),
        owed_after: None,
    }));
    actions
}

/// A signing secret, sealed under the master key of every run: sealing draws from the system, and a run must not.
pub fn secret() -> SealedSecret {
    SealedSecret(SEALED.to_vec())
}

/// `[3; 32]` as [`punchline_runtime::dispatch::target::SIGNING_SECRET`], under [`crate::machine::MASTER_KEY`].
#[rustfmt::skip]
const SEALED: [u8; 60] = [
    0x05, 0x05, 0x05, 0x05, 0x05, 0x05, 0x05, 0x05, 0x05, 0x05, 0x05, 0x05,
    0xe1, 0xf2, 0x84, 0x2b, 0xd2, 0x9e, 0x7c, 0x30, 0xe3, 0x74, 0x5e, 0x73,
    0x86, 0x6e, 0x8a, 0xb7, 0x54, 0x45, 0x0b, 0x00, 0xf0, 0xdd, 0x41, 0x84,
    0x26, 0xf3, 0x9b, 0x45, 0xff, 0x21, 0xa1, 0xd5, 0xb0, 0x9d, 0x4c, 0x0f,
    0xe2, 0x6b, 0x1f, 0x80, 0x74, 0xe0, 0xd8, 0xb6, 0xda, 0x61, 0x9a, 0x82,
];

/// The subscriptions of a tenant.
pub fn subscriptions(tenant: usize) -> Vec<Subscription> {
    let selection = |types: &[&str]| {
        let types = types.iter().map(|t| (*t).to_owned()).collect();
        EventSelection::parse("event_types", types).expect("types")
    };
    let short = RetrySchedule { delays_ms: vec![50, 200, 1_000, 5_000] };
    let long = RetrySchedule { delays_ms: vec![500, 2_000, 10_000, 60_000, 600_000] };
    let patient = BreakerPolicy { failures: 0, ..BreakerPolicy::default() };
    let base = |n: usize| Subscription {
        timeout_ms: 2_000,
        schedule: short.clone(),
        breaker: patient,
        ..Subscription::to(subscription_id(tenant, n), &format!("http://r{n}.t{tenant}.example/"))
    };
    vec![
        Subscription { schedule: long.clone(), ..base(0) },
        Subscription {
            on_dead_letter: OnDeadLetter::Hold,
            event_types: selection(&["points.*", "member.*"]),
            ..base(1)
        },
        Subscription { ordering: Ordering::Strict, event_types: selection(&["coins.*", "tier.changed"]), ..base(2) },
        Subscription { ordering: Ordering::None, event_types: selection(&["consumption.*"]), ..base(3) },
        Subscription {
            breaker: BreakerPolicy { failures: 5, ..BreakerPolicy::default() },
            max_in_flight: 2,
            rate_per_second: 50,
            event_types: selection(&["points.*", "delivery.*", "breaker.*", "subscription.*", "fitting.booked"]),
            ..base(4)
        },
    ]
}

/// The id of a tenant's subscription.
pub fn subscription_id(tenant: usize, n: usize) -> SubscriptionId {
    SubscriptionId(Uuid::from_u128(((tenant as u128) << 64) + 0x5000 + n as u128))
}

/// A subscription that comes and goes, one of many.
pub fn extra(tenant: usize, n: u64) -> Subscription {
    let id = subscription_id(tenant, EXTRA + n as usize);
    let (url, like) = (format!("http://x{n}.t{tenant}.example/"), subscriptions(tenant).swap_remove(3));
    Subscription { id, url, ..like }
}

/// Whether it is one of those.
pub fn is_extra(id: SubscriptionId) -> bool {
    id.0.as_u128() as u64 >= 0x5000 + EXTRA as u64
}

/// Numbers of those that come and go begin here.
const EXTRA: usize = 100;
