//! Every rejection: its reason, and a message that names what is wrong and the value.

mod rejections {
    pub mod fields;
}
mod support;

use std::collections::BTreeSet;

use punchline_engine::command::{Action, Command};
use punchline_engine::decide::{Decision, used_up};
use punchline_engine::dispatch::Subscription;
use punchline_engine::expression::{Expression, RULE_NAMES};
use punchline_engine::id::{AdvertiserId, Environment, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::account::HOLDS_MAX;
use punchline_engine::loyalty::campaign::{Campaign, EarningRule};
use punchline_engine::loyalty::fact::RawFact;
use punchline_engine::loyalty::job::{Job, Run};
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::programme::Segment;
use punchline_engine::loyalty::reward::{Cost, Reward};
use punchline_engine::loyalty::tenant::{Credential, NO_SECRET, Scope, SealedSecret};
use punchline_engine::rejection::Rejection;
use rejections::fields::{book, reward, slug};
use support::*;
use uuid::Uuid;

/// Makes a name of each variant and the list of all: a new one does not compile until it stands here, and does not
/// pass until it has a case.
macro_rules! variants {
    ($($name:ident $rest:tt),* $(,)?) => {
        const ALL: &[&str] = &[$(stringify!($name)),*];
        fn variant(rejection: &Rejection) -> &'static str {
            match rejection {
                $(Rejection::$name $rest => stringify!($name),)*
            }
        }
    };
}

variants! {
    Invalid(_),
    ConsumptionExists { .. },
    ConsumptionExistsWithDifferentContent { .. },
    FactExists { .. },
    FactExistsWithDifferentContent { .. },
    UsedUp { .. },
    AccountNotFound {},
    IdentifiersConflict { .. },
    UserBlocked {},
    UserHasNoCards {},
    BalanceOverflow { .. },
    InsufficientBalance { .. },
    MemberNotFound(_),
    IdentifierTaken { .. },
    NotJoined { .. },
    CampaignNotFound(_),
    CampaignExists(_),
    CampaignNotActive(_),
    EtagMismatch { .. },
    AdvertiserNotFound(_),
    AdvertiserExists(_),
    CredentialNotFound(_),
    CredentialExists(_),
    SubscriptionNotFound(_),
    SubscriptionExists(_),
    LimitReached { .. },
    RequestIdReused { .. },
    IdReused { .. },
    MemberMerged { .. },
    MemberErased(_),
    MemberBusy { .. },
    HoldNotFound(_),
    EntryNotFound(_),
    EntryNotReversible { .. },
    SegmentNotFound(_),
    SegmentExists(_),
    RewardNotFound(_),
    RewardExists(_),
    RewardNotOffered(_),
    OutOfStock(_),
    RewardLimitReached { .. },
    RedemptionNotFound(_),
    RedemptionState { .. },
    ObligationNotFound(_),
    CouponBookNotFound(_),
    CouponBookExists(_),
    NoCouponsLeft(_),
    CouponNotFound { .. },
    CouponState { .. },
    RecordTooLarge { .. },
}

const MEMBER_1: &str = "00000000-0000-0000-0000-000000000001";
const MEMBER_9: &str = "00000000-0000-0000-0000-000000000009";

fn because() -> String {
    "because".into()
}

fn points() -> Currency {
    Currency::Points(slug("club"))
}

fn adjust(n: u128, currency: Currency, amount: i64) -> Action {
    Action::AdjustBalance { member_id: member_id(n), currency, amount, reason: because() }
}

fn place(n: u128, hold: &str, amount: i64) -> Action {
    Action::PlaceHold {
        member_id: member_id(n),
        hold_id: hold.into(),
        currency: points(),
        amount,
        until: NOW.plus_ms(1_000),
        reason: because(),
    }
}

fn fact(id: &str, n: u128, properties: &str) -> Action {
    let raw = RawFact {
        source: "shop".into(),
        fact_id: id.into(),
        fact_type: "shop.visited".into(),
        identifiers: vec![("email".into(), format!("m{n}@example.com"))],
        properties: properties.into(),
        ..RawFact::default()
    };
    Action::PublishFact(raw.check(NOW, |_| false).expect("well-formed"))
}

fn start(n: u128, id: &str, reward: &str) -> Action {
    Action::StartRedemption { member_id: member_id(n), redemption_id: id.into(), reward_id: slug(reward) }
}

fn complete(id: &str) -> Action {
    Action::CompleteRedemption { redemption_id: id.into(), voucher_code: Some("V".into()) }
}

fn assign(n: u128, book: &str, code: Option<&str>, usage: &str) -> Action {
    let code = code.map(str::to_owned);
    Action::AssignCoupon { member_id: member_id(n), coupon_book_id: slug(book), code, usage_id: usage.into() }
}

fn use_(code: &str, usage: &str) -> Action {
    Action::UseCoupon {
        coupon_book_id: slug("book"),
        code: code.into(),
        usage_id: usage.into(),
        order_id: String::new(),
        discount_amount: 0,
    }
}

fn segment(id: &str) -> Segment {
    let condition = Expression::parse("condition", "member.points > 1000000", RULE_NAMES).expect("an expression");
    Segment { id: slug(id), name: String::new(), condition, version: 0 }
}

fn credential(id: &str) -> Action {
    Action::IssueCredential {
        credential: Credential {
            id: slug(id),
            secret_hash: NO_SECRET,
            scopes: vec![Scope::Ingest],
            description: String::new(),
            created_at: NOW,
            revoked_at: None,
            write_key: false,
        },
    }
}

fn subscription(n: u128) -> SubscriptionId {
    SubscriptionId(Uuid::from_u128(n))
}

fn subscribe(n: u128) -> Action {
    let subscription = Subscription::to(subscription(n), "https://example.com/");
    Action::CreateSubscription { subscription, secret: SealedSecret(vec![1]), owed_after: None }
}

fn merge(into: u128, from: u128) -> Action {
    Action::MergeMembers { member_id: member_id(into), from_member_id: member_id(from) }
}

fn reverse(n: u128, entry: Sequence) -> Action {
    Action::ReverseEntry { member_id: member_id(n), entry, reason: because() }
}

fn refund(id: &str) -> Action {
    Action::RefundRedemption { redemption_id: id.into(), reason: because() }
}

/// Members 1, 2 and 4 have joined, 3 is registered only; 1 has 100 points, a hold, redemptions, a coupon; 5 is
/// blocked, 6 was merged into 2, 7 is erased. The second is what reversed an entry.
fn world() -> (World, Sequence) {
    let mut world = World::new();
    let mut over = Campaign { id: slug("over"), ..campaign() };
    over.validity.ends_at = Some(NOW);
    world.accept(Action::CreateCampaign { campaign: over });
    world.accept(Action::CreateSegment { segment: segment("all") });
    let codes = ["a", "b"].map(str::to_owned).into();
    world.accept(Action::CreateCouponBook { coupon_book: book("book"), codes });
    world.accept(Action::CreateCouponBook { coupon_book: book("empty"), codes: Vec::new() });
    let rewards = [
        reward("mug"),
        Reward { active: false, ..reward("gone") },
        Reward { stock: Some(0), ..reward("none") },
        Reward { per_member_max: Some(1), ..reward("once") },
        Reward { cost: Cost::Points(1_000), ..reward("dear") },
        Reward { coupon_book_id: Some(slug("empty")), ..reward("coupon") },
    ];
    rewards.into_iter().for_each(|reward| drop(world.accept(Action::CreateReward { reward })));
    for n in 1..8 {
        world.accept(register(n, n != 3));
    }
    world.accept(Action::BlockMember { member_id: member_id(5), reason: because() });
    world.accept(merge(2, 6));
    world.accept(Action::EraseMember { member_id: member_id(7) });
    world.accept(adjust(1, points(), 100));
    world.accept(place(1, "h", 10));
    for (id, reward) in [("started", "mug"), ("completed", "once"), ("coupon", "coupon")] {
        world.accept(start(1, id, reward));
    }
    world.accept(complete("completed"));
    world.accept(assign(1, "book", Some("a"), "assignment"));
    world.accept(use_("a", "use"));
    world.accept(consumption("c1 1 2026-09-01T10:00:00Z tea"));
    world.accept(fact("f1", 1, r#"{"a":1}"#));
    world.accept(credential("key"));
    world.accept(subscribe(1));
    world.accept(adjust(1, Currency::Coins, 1));
    world.accept(reverse(1, world.journal.last().expect("a record").0));
    let reversal = world.journal.last().expect("a record").0;
    world.submit_as(Some("request"), adjust(1, points(), 5)).expect("accepted");
    (world, reversal)
}

#[test]
fn every_rejection_has_a_reason_and_says_what_is_wrong() {
    let (world, reversal) = world();
    let etag = || Some("9".to_owned());
    let none = || "none".to_owned();
    let mut namesake = register(1, false);
    if let Action::RegisterMember { member_id: id, .. } = &mut namesake {
        *id = member_id(8);
    }
    let cases: Vec<(Action, &str, &[&str])> = vec![
        (adjust(1, points(), 0), "INVALID_FIELD", &["amount", "\"0\""]),
        (consumption("c1 1 2026-09-01T10:00:00Z tea"), "CONSUMPTION_EXISTS", &["Consumption already processed"]),
        (
            consumption("c1 1 2026-09-01T10:00:00Z coffee"),
            "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT",
            &["consumptionLines"],
        ),
        (fact("f1", 1, r#"{"a":1}"#), "FACT_EXISTS", &["Fact already published"]),
        (fact("f1", 1, r#"{"a":2}"#), "FACT_EXISTS_WITH_DIFFERENT_CONTENT", &["properties"]),
        (consumption("c2 9 2026-09-01T10:00:00Z tea"), "ACCOUNT_NOT_FOUND", &["user not registered"]),
        (consumption("c2 1,2 2026-09-01T10:00:00Z tea"), "IDENTIFIERS_CONFLICT", &["email"]),
        (consumption("c2 5 2026-09-01T10:00:00Z tea"), "USER_BLOCKED", &["User is blocked"]),
        (consumption("c2 3 2026-09-01T10:00:00Z tea"), "USER_HAS_NO_CARDS", &["user did not join campaign"]),
        (adjust(1, points(), i64::MAX), "BALANCE_OVERFLOW", &["points of campaign club"]),
        (adjust(1, points(), -1_000), "INSUFFICIENT_BALANCE", &["points of campaign club", "1000"]),
        (start(1, "r", "dear"), "INSUFFICIENT_BALANCE", &["points of campaign club", "1000"]),
        (adjust(9, points(), 1), "MEMBER_NOT_FOUND", &[MEMBER_9]),
        (namesake, "IDENTIFIER_TAKEN", &["email", MEMBER_1]),
        (adjust(3, points(), 1), "NOT_JOINED", &["club", "000000000003"]),
        (
            Action::JoinCampaign { member_id: member_id(1), campaign_id: slug("none") },
            "CAMPAIGN_NOT_FOUND",
            &["campaign none"],
        ),
        (Action::CreateCampaign { campaign: campaign() }, "CAMPAIGN_EXISTS", &["campaign club"]),
        (
            Action::JoinCampaign { member_id: member_id(1), campaign_id: slug("over") },
            "CAMPAIGN_NOT_ACTIVE",
            &["campaign over"],
        ),
        (Action::UpdateCampaign { campaign: campaign(), etag: etag() }, "ETAG_MISMATCH", &["\"9\"", "\"1\""]),
        (
            Action::CreateAdvertiser { advertiser_id: Some(TENANT.advertiser), name: String::new() },
            "ADVERTISER_EXISTS",
            &["1000000001"],
        ),
        (Action::RevokeCredential { credential_id: slug("none") }, "CREDENTIAL_NOT_FOUND", &["none"]),
        (credential("key"), "CREDENTIAL_EXISTS", &["key"]),
        (Action::DeleteSubscription { subscription_id: subscription(9) }, "SUBSCRIPTION_NOT_FOUND", &[MEMBER_9]),
        (subscribe(1), "SUBSCRIPTION_EXISTS", &[MEMBER_1]),
        (place(1, "h", 11), "ID_REUSED", &["hold_id", "\"h\""]),
        (assign(2, "book", Some("a"), "assignment"), "ID_REUSED", &["usage_id", "\"assignment\""]),
        (use_("b", "use"), "ID_REUSED", &["usage_id", "\"use\""]),
        (start(2, "started", "mug"), "ID_REUSED", &["redemption_id", "\"started\""]),
        (adjust(6, points(), 1), "MEMBER_MERGED", &["000000000006", "000000000002"]),
        (adjust(7, points(), 1), "MEMBER_ERASED", &["000000000007"]),
        (merge(2, 1), "MEMBER_BUSY", &[MEMBER_1, "the hold h"]),
        (
            Action::VoidHold { member_id: member_id(1), hold_id: none(), reason: because() },
            "HOLD_NOT_FOUND",
            &["\"none\""],
        ),
        (reverse(1, Sequence(1)), "ENTRY_NOT_FOUND", &["ledger entry 1"]),
        (reverse(1, reversal), "ENTRY_NOT_REVERSIBLE", &["it is a reversal itself"]),
        (Action::UpdateSegment { segment: segment("none"), etag: None }, "SEGMENT_NOT_FOUND", &["segment none"]),
        (Action::CreateSegment { segment: segment("all") }, "SEGMENT_EXISTS", &["segment all"]),
        (start(1, "r", "nothing"), "REWARD_NOT_FOUND", &["reward nothing"]),
        (Action::CreateReward { reward: reward("mug") }, "REWARD_EXISTS", &["reward mug"]),
        (start(1, "r", "gone"), "REWARD_NOT_OFFERED", &["reward gone"]),
        (start(1, "r", "none"), "OUT_OF_STOCK", &["reward none"]),
        (start(1, "r", "once"), "REWARD_LIMIT_REACHED", &[MEMBER_1, "reward once", "1 times"]),
        (complete("none"), "REDEMPTION_NOT_FOUND", &["\"none\""]),
        (refund("started"), "REDEMPTION_STATE", &["\"started\"", "completed"]),
        (
            Action::ConfirmObligation { obligation_id: none(), reference: String::new() },
            "OBLIGATION_NOT_FOUND",
            &["\"none\""],
        ),
        (assign(1, "none", None, "u"), "COUPON_BOOK_NOT_FOUND", &["coupon book none"]),
        (
            Action::CreateCouponBook { coupon_book: book("book"), codes: Vec::new() },
            "COUPON_BOOK_EXISTS",
            &["coupon book book"],
        ),
        (assign(1, "empty", None, "u"), "NO_COUPONS_LEFT", &["coupon book empty"]),
        (
            Action::CompleteRedemption { redemption_id: "coupon".into(), voucher_code: None },
            "NO_COUPONS_LEFT",
            &["coupon book empty"],
        ),
        (use_("c", "u"), "COUPON_NOT_FOUND", &["\"c\"", "book"]),
        (use_("a", "u"), "COUPON_STATE", &["\"a\"", "used as often as allowed"]),
        (assign(1, "book", Some("a"), "u"), "COUPON_STATE", &["\"a\"", "given to somebody already"]),
    ];
    let mut seen = BTreeSet::new();
    let mut check = |world: &World, request_id, action: Action, reason, parts: &[&str]| {
        let mut after = world.clone();
        let refused = match after.submit_as(request_id, action.clone()) {
            Err(refused) => refused,
            Ok(events) => panic!("{action:?} is accepted: {events:?}"),
        };
        assert_eq!(refused.reason(), reason, "{action:?}: {refused}");
        let message = refused.to_string();
        parts.iter().for_each(|part| assert!(message.contains(part), "{reason}: {message:?} lacks {part:?}"));
        assert_eq!(after, *world, "a refusal changes nothing: {action:?}");
        seen.insert(variant(&refused));
    };
    for (action, reason, parts) in cases {
        check(&world, None, action, reason, parts);
    }
    check(&world, Some("request"), adjust(1, points(), 6), "REQUEST_ID_REUSED", &["\"request\""]);

    let mut elsewhere = world.clone();
    elsewhere.tenant = Some(Tenant { advertiser: AdvertiserId(7), environment: Environment::Production });
    check(&elsewhere, None, Action::UnblockMember { member_id: member_id(1) }, "ADVERTISER_NOT_FOUND", &["7"]);

    let mut full = world.clone();
    for n in full.members[&member_id(1)].cards[0].points.holds.len()..HOLDS_MAX {
        full.accept(adjust(1, points(), 1));
        full.accept(place(1, &format!("h{n}"), 1));
    }
    check(&full, None, place(1, "more", 1), "LIMIT_REACHED", &["100", "holds of this account"]);

    let mut large = world.clone();
    let rule = campaign().rules[0].clone();
    let rules = (0..500).map(|n| EarningRule { id: slug(&format!("r{n}")), ..rule.clone() }).collect();
    large.accept(Action::UpdateCampaign { campaign: Campaign { rules, ..campaign() }, etag: None });
    let lines = consumption(&format!("c9 1 2026-09-01T10:00:00Z {}", "coffee ".repeat(200)));
    check(&large, None, lines, "REQUEST_TOO_LARGE", &["1048576", "split the request"]);

    let trimmed = |action| used_up(&Command { tenant: TENANT, request_id: Some("r".into()), action }, Sequence(7));
    for (action, reason) in [
        (consumption("c1 1 2026-09-01T10:00:00Z tea"), "CONSUMPTION_EXISTS"),
        (fact("f1", 1, "{}"), "FACT_EXISTS"),
        (place(1, "h", 10), "ID_REUSED"),
        (adjust(1, points(), 5), "REQUEST_ID_REUSED"),
    ] {
        let refused = trimmed(action).expect_err("it is used up");
        assert_eq!(refused.reason(), reason);
        assert!(refused.to_string().contains("by the event at 7, which is not kept"), "{refused}");
        seen.insert(variant(&refused));
    }
    let run = Run { period: 1, at: NOW };
    let completed = Action::CompleteJob { job: Job::Birthdays, run, concerned: 1 };
    assert_eq!(trimmed(completed), Ok(Decision::Already(Sequence(7))), "the clock has nothing to be told");

    let left_out: Vec<_> = ALL.iter().filter(|name| !seen.contains(*name)).collect();
    assert!(left_out.is_empty(), "no case for {left_out:?}");
}
