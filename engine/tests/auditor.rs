//! The engine beside an auditor that was written apart from it: random commands, and after each the same answer and
//! the same books, or a list of steps that shows the difference.
//!
//! `PROPTEST_CASES` sets how many lists are tried.

mod auditor {
    pub mod book;
    pub mod commands;
    pub mod compare;
    pub mod earn;
    pub mod model;
    pub mod programme;
    pub mod shadow;
    pub mod step;
}
mod support;

use std::collections::BTreeSet;

use auditor::model::Auditor;
use auditor::shadow::Shadow;
use auditor::step::{Step, step};
use auditor::{compare, programme};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use punchline_engine::command::Action;
use punchline_engine::event::Event;
use punchline_engine::id::Sequence;
use punchline_engine::loyalty::campaign::Campaign;
use punchline_engine::loyalty::job::Job;
use punchline_engine::loyalty::programme::{PointsPolicy, Settings};
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use support::{NOW, TENANT, World, consumption, member_id, register};

/// Lists tried where nobody says how many: under twenty seconds.
const CASES: u32 = 1_800;

fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(default),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

fn world() -> World {
    let mut world = World::default();
    world.accept(Action::CreateAdvertiser { advertiser_id: Some(TENANT.advertiser), name: "Acme".into() });
    programme::actions().into_iter().for_each(|action| drop(world.accept(action)));
    world
}

/// Takes the steps in both worlds; notes what came of which command.
fn check(steps: &[Step], reached: &mut BTreeSet<String>) -> Result<(), String> {
    let (mut world, mut auditor, mut shadow) = (world(), Auditor::new(NOW.0), Shadow::default());
    for (i, step) in steps.iter().enumerate() {
        if let Step::Wait { minutes } = step {
            world.now = UnixMillis(world.now.0 + i64::from(*minutes) * 60_000);
            auditor.now = world.now.0;
        }
        for action in step.actions(&auditor) {
            let now = world.now;
            let failed = |why| format!("step {i}, {action:?} at {now}: {why}");
            let verdict = auditor.hear(&action);
            let first = world.journal.last().map_or(1, |(first, record)| first.0 + record.events.len() as u64);
            let outcome = world.submit(action.clone());
            compare::answer(&verdict, &outcome).map_err(failed)?;
            note(reached, &action, &outcome);
            auditor.answered(&action, Sequence(first), outcome.as_deref().unwrap_or_default());
            auditor.compare(&world).map_err(failed)?;
            shadow.follow(&world).map_err(failed)?;
        }
        if let Step::Run { job } = step {
            let job = Job::ALL[usize::from(*job) % 3];
            auditor.completed.insert(job, auditor.due(job));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(CASES))]

    #[test]
    fn the_engine_and_the_auditor_agree(steps in prop::collection::vec(step(), 1..250)) {
        if let Err(why) = check(&steps, &mut BTreeSet::new()) {
            prop_assert!(false, "{}", why);
        }
    }
}

/// A command with its refusal, or what was told.
fn note(reached: &mut BTreeSet<String>, action: &Action, outcome: &Result<Vec<Event>, Rejection>) {
    let action = format!("{action:?}");
    let name = action.split([' ', '(']).next().expect("there is a first word");
    match outcome {
        Ok(events) if events.is_empty() => drop(reached.insert(format!("{name} nothing"))),
        Ok(events) => reached.extend(events.iter().map(|event| event.event_type().as_str().to_owned())),
        Err(rejection) => drop(reached.insert(format!("{name} {}", rejection.reason()))),
    }
}

/// What random steps come to.
const EVENTS: &str = "
    coins.changed coins.expired coins.expiring_soon consumption.counted consumption.first consumption.matched
    consumption.recorded consumption.rejected coupon.assigned coupon.used fact.published hold.placed hold.voided
    leaderboard.awarded leaderboard.scored member.birthday member.blocked member.created member.joined_campaign
    member.merged member.merged_into member.unblocked member.updated points.credited points.debited points.expired
    points.expiring_soon punchcard.completed punchcard.stamps_discarded punchcard.stamps_received
    punchcard.step_completed redemption.completed redemption.failed redemption.refunded redemption.rolled_back
    redemption.started referral.linked referral.succeeded.advocate referral.succeeded.friend
    reward.obligation_created reward.redeemable segment.entered segment.left tier.changed
";

/// By command: what it is refused for, and whether it is found done already.
const ANSWERS: &str = "
    AdjustBalance: INSUFFICIENT_BALANCE INVALID_FIELD MEMBER_MERGED MEMBER_NOT_FOUND NOT_JOINED
    AssignCoupon: COUPON_NOT_FOUND COUPON_STATE ID_REUSED MEMBER_MERGED MEMBER_NOT_FOUND NO_COUPONS_LEFT nothing
    AwardLeaderboard: nothing
    BlockMember: MEMBER_MERGED MEMBER_NOT_FOUND nothing
    CompleteRedemption: INVALID_FIELD NO_COUPONS_LEFT REDEMPTION_NOT_FOUND REDEMPTION_STATE nothing
    FailRedemption: REDEMPTION_NOT_FOUND REDEMPTION_STATE nothing
    JoinCampaign: CAMPAIGN_NOT_ACTIVE MEMBER_MERGED MEMBER_NOT_FOUND nothing
    MergeMembers: INVALID_FIELD MEMBER_BUSY MEMBER_MERGED MEMBER_NOT_FOUND nothing
    PlaceHold: ID_REUSED INSUFFICIENT_BALANCE INVALID_FIELD MEMBER_MERGED MEMBER_NOT_FOUND NOT_JOINED nothing
    PostHold: HOLD_NOT_FOUND INVALID_FIELD MEMBER_MERGED MEMBER_NOT_FOUND
    PublishFact: ACCOUNT_NOT_FOUND FACT_EXISTS FACT_EXISTS_WITH_DIFFERENT_CONTENT INVALID_FIELD
    RecordConsumption: ACCOUNT_NOT_FOUND CONSUMPTION_EXISTS CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT IDENTIFIERS_CONFLICT USER_BLOCKED USER_HAS_NO_CARDS
    RefundRedemption: MEMBER_MERGED REDEMPTION_NOT_FOUND REDEMPTION_STATE
    RegisterMember: CAMPAIGN_NOT_ACTIVE
    ReverseEntry: ENTRY_NOT_FOUND ENTRY_NOT_REVERSIBLE INSUFFICIENT_BALANCE MEMBER_MERGED MEMBER_NOT_FOUND nothing
    RollBackCoupon: COUPON_NOT_FOUND COUPON_STATE
    RunJob: nothing
    StartRedemption: ID_REUSED INSUFFICIENT_BALANCE MEMBER_MERGED MEMBER_NOT_FOUND NOT_JOINED REWARD_LIMIT_REACHED REWARD_NOT_FOUND REWARD_NOT_OFFERED USER_BLOCKED nothing
    TimeOutHold: MEMBER_NOT_FOUND nothing
    Transfer: INSUFFICIENT_BALANCE INVALID_FIELD MEMBER_MERGED MEMBER_NOT_FOUND NOT_JOINED USER_BLOCKED
    UnblockMember: MEMBER_MERGED MEMBER_NOT_FOUND nothing
    UseCoupon: COUPON_NOT_FOUND COUPON_STATE ID_REUSED nothing
    VoidHold: HOLD_NOT_FOUND MEMBER_MERGED MEMBER_NOT_FOUND
";

/// An auditor that is shown nothing agrees with everybody.
#[test]
fn the_steps_reach_every_command_and_its_refusals() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..150 {
        let steps = prop::collection::vec(step(), 250).new_tree(&mut runner).expect("steps").current();
        check(&steps, &mut reached).expect("both agree");
    }
    let answers = ANSWERS.lines().filter_map(|line| line.trim().split_once(": "));
    let answers = answers.flat_map(|(name, all)| all.split(' ').map(move |answer| format!("{name} {answer}")));
    let expected: BTreeSet<String> = EVENTS.split_whitespace().map(str::to_owned).chain(answers).collect();
    let missed: Vec<_> = expected.difference(&reached).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}

/// Whom the orders below are about: member 1 in `alpha`, whose tier, segment and multipliers they change.
fn earned(lines: &[(usize, u32)], change: impl FnOnce(&mut Campaign)) -> (World, Vec<i64>) {
    const SKUS: [&str; 6] = ["coffee", "tea", "gift", "partner", "survey", "unknown"];
    let mut world = world();
    let mut alpha = programme::alpha();
    change(&mut alpha);
    world.accept(Action::UpdateCampaign { campaign: alpha, etag: None });
    let mut register = register(1, false);
    if let Action::RegisterMember { join, .. } = &mut register {
        join.push(programme::slug("alpha"));
    }
    world.accept(register);
    let lines: Vec<String> = lines.iter().map(|(sku, n)| format!("{}×{n}", SKUS[*sku])).collect();
    world.accept(consumption(&format!("c 1 {NOW} {}", lines.join(" "))));
    let member = &world.members[&member_id(1)];
    let card = &member.cards[0];
    let (stamps, rows) = card.row(&programme::slug("card"));
    let owed = world.items.values().filter_map(|item| item.obligation()).map(|o| o.amount).sum();
    let coupons = world.items.values().filter_map(|item| item.coupon()).filter(|c| c.member_id.is_some()).count();
    let (stamps, rows) = (stamps.0 as i64, rows as i64);
    let sums = vec![card.points.balance, member.coins.balance, stamps, rows, owed, coupons as i64];
    (world, sums)
}

proptest! {
    #![proptest_config(cases(100))]

    /// Neither the order of lines nor that of rules makes a difference, caps that all lines share apart.
    #[test]
    fn order_makes_no_difference(
        (lines, shuffled) in prop::collection::vec((0usize..6, 1u32..7), 1..12)
            .prop_flat_map(|lines| (Just(lines.clone()), Just(lines).prop_shuffle())),
        rules in Just((0..programme::alpha().rules.len()).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (world, sums) = earned(&lines, |_| {});
        let (other, same) = earned(&shuffled, |alpha| {
            alpha.rules = rules.iter().map(|at| alpha.rules[*at].clone()).collect();
        });
        prop_assert_eq!(sums, same);
        let state = |world: &World| {
            let member = &world.members[&member_id(1)];
            (member.cards[0].tier.clone(), member.segments.clone(), member.cards[0].points.lots.clone())
        };
        prop_assert_eq!(state(&world), state(&other));
    }
}

/// The auditor's zone has no summer time; these have.
#[test]
fn what_expires_ends_with_the_day_of_the_advertiser() {
    let settings = |zone: &str| Settings { time_zone: zone.into(), ..Settings::default() };
    let policy = PointsPolicy { expire_after_days: 1, ..PointsPolicy::default() };
    for (zone, at, ends) in [
        ("UTC", "2026-03-28T23:30:00Z", "2026-03-30T00:00:00Z"),
        ("Europe/Bucharest", "2026-03-28T21:30:00Z", "2026-03-29T21:00:00Z"),
        ("Europe/Bucharest", "2026-03-28T22:30:00Z", "2026-03-30T21:00:00Z"),
        ("Asia/Kolkata", "2026-03-28T18:29:00Z", "2026-03-29T18:30:00Z"),
        ("Asia/Kolkata", "2026-03-28T18:30:00Z", "2026-03-30T18:30:00Z"),
    ] {
        let at = UnixMillis::parse(at).expect("a date");
        assert_eq!(settings(zone).expiry(&policy, at), UnixMillis::parse(ends), "{zone} {at}");
    }
}
