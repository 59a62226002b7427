use super::page::{List, after, cut, size, token};
use super::*;
use crate::convert::member::{MemberMask, ProfileField};
use punchline_engine::id::{AdvertiserId, CampaignId, MemberId};
use punchline_engine::loyalty::member::Profile;

#[test]
fn instants_go_there_and_back() {
    for (seconds, nanos, millis) in [
        (0, 0, Some(0)),
        (1, 999_999_999, Some(1_999)),
        (-1, 500_000_000, Some(-500)),
        (i64::MAX, 0, None),
        (253_402_300_800, 0, None),
        (0, -1, None),
        (0, 1_000_000_000, None),
    ] {
        let got = instant("t", Timestamp { seconds, nanos });
        assert_eq!(got.as_ref().ok().map(|at| at.0), millis, "{seconds}.{nanos}");
        if let Ok(at) = got {
            let cut = nanos / 1_000_000 * 1_000_000;
            assert_eq!(timestamp(at), Timestamp { seconds, nanos: cut });
        }
    }
}

#[test]
fn pages() {
    for (given, expected) in [(0, Some(50)), (1, Some(1)), (500, Some(500)), (501, Some(500)), (-1, None)] {
        assert_eq!(size(given).ok(), expected, "{given}");
    }
    let id = MemberId(Default::default());
    let given = token(List::Members, id);
    assert_eq!(after::<MemberId>(List::Members, &given), Ok(Some(id)));
    assert_eq!(after::<MemberId>(List::Members, ""), Ok(None));
    for bad in [token(List::Campaigns, id), token(List::Members, "x"), "!".into(), "bQ".into(), "_w".into()] {
        let refused = after::<MemberId>(List::Members, &bad).expect_err(&bad);
        assert_eq!(refused.reason, "INVALID_PAGE_TOKEN", "{bad}");
    }
    let mut found = vec![1, 2, 3];
    assert_eq!(cut(List::Entries, &mut found, 3, |n| *n), "");
    let next = cut(List::Entries, &mut found, 2, |n| *n);
    assert_eq!((found, after::<u64>(List::Entries, &next)), (vec![1, 2], Ok(Some(2))));
}

#[test]
fn ids_are_named_by_their_field() {
    let refused = id::<AdvertiserId>("advertiser_id", "x1").expect_err("no digits");
    assert_eq!(refused.message, "advertiser_id \"x1\" must be 1 to 19 decimal digits, not zero");
    assert_eq!(optional_id::<CampaignId>("campaign_id", ""), Ok(None));
}

#[test]
fn fields_of_consumptions_have_their_names_in_the_proto() {
    for (engine, wire) in [
        ("consumptionId", "consumption.consumption_id"),
        ("consumptionDate", "consumption.consumption_date"),
        ("consumptionLines[3].productName", "consumption.lines[3].product_name"),
        ("identifiers[0].value", "consumption.identifiers[0].value"),
    ] {
        assert_eq!(consumption_field("consumption", InvalidField::new(engine, "", "")).field, wire);
    }
}

#[test]
fn masks() {
    let request = |paths: &[&str], identifiers: usize, profile: bool| v1::UpdateMemberRequest {
        identifiers: vec![v1::Identifier::default(); identifiers],
        profile: profile.then(v1::Profile::default),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|p| (*p).to_owned()).collect() }),
        ..Default::default()
    };
    let mask = |identifiers, profile, fields: &[ProfileField]| {
        Ok(MemberMask { identifiers, profile, fields: fields.to_vec() })
    };
    for (request, expected) in [
        (request(&[], 1, false), mask(true, false, &[])),
        (request(&[], 0, true), mask(false, true, &[])),
        (request(&[], 0, false), Err("update_mask \"\" must name what is to change")),
        (request(&["profile"], 1, true), mask(false, true, &[])),
        (request(&["*"], 0, true), mask(true, true, &[])),
        (request(&["profile.locale"], 0, true), mask(false, false, &[ProfileField::Locale])),
        (
            request(&["identifiers", "coins"], 1, true),
            Err("update_mask \"coins\" must be identifiers, profile or profile.<field>"),
        ),
    ] {
        let got = MemberMask::parse(&request).map_err(|refused| refused.message);
        assert_eq!(got, expected.map_err(str::to_owned));
    }
    let profile =
        |name: &str, locale: &str| Profile { first_name: name.into(), locale: locale.into(), ..Profile::default() };
    let (given, current) = (profile("Ana", "ro-RO"), profile("Ion", "en-GB"));
    for (mask, expected) in [
        (MemberMask { profile: true, ..Default::default() }, Some(given.clone())),
        (MemberMask { fields: vec![ProfileField::Locale], ..Default::default() }, Some(profile("Ion", "ro-RO"))),
        (MemberMask { identifiers: true, ..Default::default() }, None),
    ] {
        assert_eq!(mask.lay(&given, &current), expected);
    }
}

#[test]
fn campaigns_go_there_and_back() {
    let wire = v1::Campaign {
        campaign_id: "velo-club".into(),
        name: "VELO Club".into(),
        starts_at: Some(Timestamp { seconds: 1_735_689_600, nanos: 0 }),
        rules: vec![v1::EarningRule {
            rule_id: "coffee".into(),
            skus: Some(v1::earning_rule::Skus::SkuPrefix("coffee_".into())),
            points: 10,
            coins: 1,
            stamps: Some(v1::StampReward { punchcard_id: "card".into(), per_unit: 1 }),
            caps: vec![v1::Cap { period: v1::Period::Day.into(), units_max: 3 }],
            condition: "member.points > 1".into(),
            coupon_book_id: "summer".into(),
            external: Some(v1::ExternalReward { reward_id: "cash".into(), reward_name: "Cash".into(), amount: 2 }),
            ..Default::default()
        }],
        punchcards: vec![v1::Punchcard {
            punchcard_id: "card".into(),
            row_length: 10,
            steps: vec![5],
            overflow: v1::Overflow::Discard.into(),
            once: true,
            ..Default::default()
        }],
        dynamic_events: vec![v1::DynamicEvent { sku: "read".into(), name: "Article read".into() }],
        etag: "0".into(),
        points: Some(v1::PointsPolicy { expire_after_days: 365, expiring_soon_days: 30, overdraft: 5 }),
        multipliers: vec![v1::Multiplier {
            multiplier_id: "gold-doubles".into(),
            percent: 200,
            tier_id: "gold".into(),
            segment_id: "vip".into(),
            condition: "line.quantity > 1".into(),
            starts_at: Some(Timestamp { seconds: 1_735_689_600, nanos: 0 }),
            ends_at: Some(Timestamp { seconds: 1_735_689_601, nanos: 0 }),
        }],
        stacking: v1::Stacking::Multiply.into(),
        first_bonus: Some(v1::Bonus { points: 5, coins: 0 }),
        birthday_bonus: Some(v1::Bonus { points: 0, coins: 7 }),
        tiers: vec![v1::Tier { tier_id: "gold".into(), name: "Gold".into(), threshold: 100 }],
        tier_basis: Some(v1::TierBasis { kind: v1::TierBasisKind::Earned.into(), months: 12 }),
        leaderboards: vec![v1::Leaderboard {
            leaderboard_id: "weekly".into(),
            name: "Of the week".into(),
            period: v1::Period::Week.into(),
            prizes: vec![v1::Prize {
                from_rank: 1,
                to_rank: 3,
                bonus: Some(v1::Bonus { points: 9, coins: 8 }),
                reward_id: "mug".into(),
            }],
        }],
        referral: Some(v1::Referral {
            advocate: Some(v1::ReferralReward {
                bonus: Some(v1::Bonus { points: 1, coins: 2 }),
                reward_id: "mug".into(),
            }),
            friend: Some(v1::ReferralReward::default()),
            rule_ids: vec!["coffee".into()],
        }),
        ..Default::default()
    };
    let campaign = super::campaign::campaign(wire.clone()).expect("valid");
    assert_eq!(campaign.validate(), Ok(()));
    assert_eq!(super::campaign::to_wire(&campaign), wire);

    type Spoil = fn(&mut v1::Campaign);
    let cases: [(Spoil, &str); 9] = [
        (|c| c.campaign_id = "Velo".into(), "campaign_id"),
        (|c| c.rules[0].skus = None, "rules[0].skus"),
        (|c| c.rules[0].caps[0].period = 9, "rules[0].caps[0].period"),
        (|c| c.punchcards[0].overflow = 9, "punchcards[0].overflow"),
        (|c| c.rules[0].ends_at = Some(Timestamp { seconds: i64::MIN, nanos: 0 }), "rules[0].ends_at"),
        (|c| c.stacking = 9, "stacking"),
        (|c| c.multipliers[0].condition = "1 +".into(), "multipliers[0].condition"),
        (|c| c.leaderboards[0].prizes[0].reward_id = "A mug".into(), "leaderboards[0].prizes[0].reward_id"),
        (|c| c.referral.as_mut().expect("there").rule_ids[0] = "!".into(), "referral.rule_ids[0]"),
    ];
    for (spoil, field) in cases {
        let mut wire = wire.clone();
        spoil(&mut wire);
        let refused = super::campaign::campaign(wire).expect_err(field);
        assert_eq!(refused.field.expect("names it").path, field);
    }
}

#[test]
fn subscriptions_keep_secrets_that_are_left_out() {
    use super::subscription::{subscription, to_wire};
    use punchline_engine::dispatch::{Auth, SubscriptionState};
    use punchline_engine::id::{Sequence, SubscriptionId};
    use punchline_engine::loyalty::tenant::SubscriptionEntry;
    use punchline_runtime::dispatch::target::{HEADER_VALUE, PASSWORD};
    let sealer = punchline_runtime::seal::Sealer::new(&[1; 32]);
    let id = SubscriptionId(Default::default());
    let given = |value: &str, password: &str| v1::Subscription {
        url: "https://example.com/".into(),
        headers: [("X-Key".to_owned(), value.to_owned())].into(),
        basic_auth: Some(v1::BasicAuth { username: "me".into(), password: password.into() }),
        ..Default::default()
    };
    let made = subscription(id, given("s3cret", "pa55"), None, &sealer).expect("valid");
    assert_eq!((made.timeout_ms, made.max_in_flight, made.schedule.attempts_max()), (15_000, 64, 10));
    let kept = subscription(id, given("", ""), Some(&made), &sealer).expect("valid");
    assert_eq!((&kept.headers, &kept.auth), (&made.headers, &made.auth));
    let changed = subscription(id, given("0ther", "w0rd"), Some(&made), &sealer).expect("valid");
    assert_eq!(sealer.open(HEADER_VALUE, &changed.headers[0].1).expect("opens"), b"0ther");
    let Auth::Basic(auth) = &changed.auth else { panic!("{:?}", changed.auth) };
    assert_eq!(sealer.open(PASSWORD, &auth.password).expect("opens"), b"w0rd");
    let refused = subscription(id, given("", ""), None, &sealer).expect_err("nothing to keep");
    assert_eq!(refused.field.expect("names it").path, "headers[x-key]");

    let entry = SubscriptionEntry {
        definition: made.into(),
        state: SubscriptionState::Paused,
        state_reason: String::new(),
        secrets: Vec::new(),
        owed_after: Sequence(10),
        created_at: UnixMillis(0),
    };
    let wire = to_wire(&entry, None, Sequence(25));
    assert_eq!((wire.cursor, wire.pending), (10, 15));
    assert_eq!((wire.headers["x-key"].as_str(), wire.basic_auth.expect("named").password.as_str()), ("", ""));
}

#[test]
fn fields_of_campaigns_have_their_names_in_the_proto() {
    for (engine, wire) in [
        ("rules[2].id", "rules[2].rule_id"),
        ("rules[2].coupon_book", "rules[2].coupon_book_id"),
        ("rules[2].points", "rules[2].points"),
        ("rules[2].validity.ends_at", "rules[2].ends_at"),
        ("punchcards[0].id", "punchcards[0].punchcard_id"),
        ("tiers[0].id", "tiers[0].tier_id"),
        ("multipliers[1].tier", "multipliers[1].tier_id"),
        ("multipliers[1].segment", "multipliers[1].segment_id"),
        ("multipliers[1].validity.ends_at", "multipliers[1].ends_at"),
        ("leaderboards[0].id", "leaderboards[0].leaderboard_id"),
        ("validity.ends_at", "ends_at"),
        ("name", "name"),
    ] {
        let refused = super::campaign::campaign_field(Refused::field(engine, "x", "is bad"));
        assert_eq!(refused.message, format!("{wire} \"x\" is bad"));
        assert_eq!(refused.field.expect("named").path, wire);
    }
}

#[test]
fn rewards_and_books_go_there_and_back() {
    use super::reward::{coupon_book, coupon_book_to_wire, reward, reward_to_wire};
    use punchline_engine::loyalty::coupon::BookKind;
    use punchline_engine::loyalty::ledger::BookState;
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let wire = v1::Reward {
        reward_id: "mug".into(),
        campaign_id: "velo-club".into(),
        reward_name: "A mug".into(),
        description: "d".into(),
        picture_url: "p".into(),
        reward_link: "l".into(),
        reward_value: "v".into(),
        cost: Some(v1::Cost { kind: Some(v1::cost::Kind::Coins(3)) }),
        stock: Some(0),
        per_member_max: Some(2),
        coupon_book_id: "summer".into(),
        valid_from: at(5),
        valid_to: at(6),
        hold_ms: 1_000,
        cool_down_ms: Some(0),
        inactive: true,
        redeemed: 7,
        etag: "0".into(),
    };
    assert_eq!(reward_to_wire(&reward(wire.clone()).expect("valid"), 7), wire);
    let wire = v1::CouponBook {
        coupon_book_id: "summer".into(),
        campaign_id: "velo-club".into(),
        name: "n".into(),
        external_id: "e".into(),
        description: "d".into(),
        picture_url: "p".into(),
        discount_type: "percentage".into(),
        discount_amount: 10,
        valid_from: at(5),
        valid_to: at(6),
        expire_after_days: 4,
        uses_max: 3,
        generated: true,
        codes: 9,
        assigned: 8,
        used: 7,
    };
    let state = BookState { codes: 9, assigned: 8, next_place: 0, used: 7 };
    assert_eq!(coupon_book_to_wire(&coupon_book(wire.clone(), BookKind::Generated).expect("valid"), state), wire);
}
