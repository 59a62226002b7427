//! What the clock asks for, end to end: in the journal once for each period, whatever happens on the way.

mod support;

use std::sync::Arc;
use std::time::Duration;

use punchline_delivery::scripted::ScriptedCourier;
use punchline_engine::command::{Action, Command};
use punchline_engine::event::{Event, EventType, Origin};
use punchline_engine::id::{AdvertiserId, MemberId, Sequence, Tenant};
use punchline_engine::loyalty::campaign::Campaign;
use punchline_engine::loyalty::job::Job;
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::Profile;
use punchline_engine::loyalty::programme::{Bonus, Leaderboard, PointsPolicy, Prize, Programme, Tier, TierBasis};
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::time::{Period, UnixMillis};
use punchline_runtime::clock::TokioClock;
use punchline_runtime::jobs::{JobError, Standing};
use punchline_runtime::node::{Node, NodeOptions};
use punchline_storage::memory::{AppendFault, Faults, MemoryDisk};
use support::*;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// 2026-09-21, 14:13:20 UTC: what the clock of a new node shows.
const BEGIN: UnixMillis = UnixMillis(1_790_000_000_000);

/// Every event so far, with its time.
fn journal(node: &Node) -> Vec<(UnixMillis, Event)> {
    let (mut found, mut at) = (Vec::new(), Sequence(1));
    while at <= node.feed().head() {
        let stored = node.feed().record_at(at).expect("readable").expect("up to the head");
        found.extend(stored.record.events.iter().map(|event| (stored.record.time, event.clone())));
        at = stored.last().next();
    }
    found
}

fn of_type(node: &Node, event_type: EventType) -> Vec<(UnixMillis, Event)> {
    journal(node).into_iter().filter(|(_, event)| event.event_type() == event_type).collect()
}

/// The runs that came to their end: job, and days since 1970.
fn runs(node: &Node) -> Vec<(Job, i64)> {
    let run = |(_, event)| match event {
        Event::JobCompleted(e) => (e.job, e.run.period),
        other => panic!("{other:?}"),
    };
    of_type(node, EventType::JobCompleted).into_iter().map(run).collect()
}

fn at(text: &str) -> UnixMillis {
    UnixMillis::parse(text).expect("a date")
}

fn born(n: u128, birth_date: &str) -> Action {
    match register(n) {
        Action::RegisterMember { member_id, identifiers, registration_source, join, quiet, .. } => {
            let profile = Profile { birth_date: birth_date.into(), ..Profile::default() };
            Action::RegisterMember { member_id, identifiers, profile, registration_source, join, quiet }
        }
        other => panic!("{other:?}"),
    }
}

async fn found(node: &Node, programme: Programme) {
    set_up(node).await;
    let campaign = Campaign { programme, ..campaign() };
    accepted(node, Action::UpdateCampaign { campaign, etag: None }).await;
}

fn birthday_bonus(points: i64) -> Programme {
    Programme { birthday_bonus: Bonus { points: Points(points), coins: Coins(0) }, ..Programme::default() }
}

#[tokio::test]
async fn each_job_runs_once_for_a_period_and_is_made_up_once() {
    let time = StillTime::hold();
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    for day in 1..=2 {
        let since_midnight = BEGIN.0 % UnixMillis::DAY_MS;
        let noon = Duration::from_millis((day * UnixMillis::DAY_MS - since_midnight + 12 * 3_600_000) as u64);
        let passed = || node.clock().now() >= BEGIN.plus_ms(noon.as_millis() as i64);
        time.pass_until("noon", HOUR, 2 * DAY, || (passed() && runs(&node).len() >= 4 * day as usize).then_some(()))
            .await;
    }
    let today = BEGIN.0 / UnixMillis::DAY_MS;
    let of_day = |day| [Job::Expiry, Job::Leaderboards, Job::Recalculation, Job::Birthdays].map(|job| (job, day));
    assert_eq!(runs(&node), [of_day(today + 1), of_day(today + 2)].concat(), "none for what was due before it all");
    let listed = node.jobs(Some(TENANT)).await.expect("readable");
    let birthdays = listed.iter().find(|status| status.job == Job::Birthdays).expect("each is listed");
    assert_eq!(birthdays.last.map(|last| last.run.at), Some(at("2026-09-23T09:00:00Z")));
    assert_eq!(birthdays.next.at, at("2026-09-24T09:00:00Z"));
    // Again on request, which is the same run: it finds nothing to do.
    let again = node.run_job(TENANT, Job::Birthdays).await.expect("it runs");
    assert_eq!((again.run.period, again.seen, again.concerned), (today + 2, 1, 0));
    assert_eq!(runs(&node).len(), 8);
    node.close().await;
    // Nine days later.
    let clock = Arc::new(TokioClock::starting_at(at("2026-10-02T12:00:00Z")));
    let node = start_with(&disk.after_kill(), NodeOptions { clock, ..options(&courier) }).expect("the node starts");
    let second = Duration::from_secs(1);
    time.pass_until("all are made up", second, HOUR, || (runs(&node).len() >= 12).then_some(())).await;
    for _ in 0..5 {
        tokio::time::advance(second).await;
        settle().await;
    }
    assert_eq!(runs(&node)[8..], of_day(today + 11), "once, not for each day");
    let nobody = Tenant { advertiser: AdvertiserId(5), ..TENANT };
    assert!(matches!(node.run_job(nobody, Job::Expiry).await, Err(JobError::UnknownTenant(_))));
    node.close().await;
}

#[tokio::test]
async fn what_time_brings_is_in_the_journal() {
    let time = StillTime::hold();
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    let prize = |rank, coins| Prize {
        from_rank: rank,
        to_rank: rank,
        bonus: Bonus { points: Points(0), coins: Coins(coins) },
        reward_id: None,
    };
    let board = Leaderboard {
        id: "daily".parse().expect("a slug"),
        name: "Daily".into(),
        period: Period::Day,
        prizes: vec![prize(1, 3), prize(2, 1)],
    };
    found(
        &node,
        Programme {
            points: PointsPolicy { expire_after_days: 3, expiring_soon_days: 1, overdraft: 0 },
            tiers: vec![Tier { id: "gold".parse().expect("a slug"), name: "Gold".into(), threshold: 100 }],
            tier_basis: TierBasis::Earned { months: 1 },
            leaderboards: vec![board],
            ..birthday_bonus(7)
        },
    )
    .await;
    accepted(&node, born(1, "1990-09-23")).await;
    for n in 2..=4 {
        accepted(&node, register(n)).await;
    }
    // 120, 50, 50 and 10 points in the first round.
    for (n, quantity) in [(1, 12), (2, 5), (3, 5), (4, 1)] {
        accepted(&node, consume(&format!("c{n}"), n, "coffee", quantity)).await;
    }
    let round = Period::Day.number(BEGIN);
    let (club, daily) = ("club".parse().expect("a slug"), "daily".parse().expect("a slug"));
    let standings = node.standings(TENANT, &club, &daily, round, 3).await.expect("readable");
    let standing = |n, score| Standing { member_id: member_id(n), score };
    assert_eq!(standings, [standing(1, 120), standing(2, 50), standing(3, 50)], "of equals the first comes first");
    let hold = Action::PlaceHold {
        member_id: member_id(4),
        hold_id: "h".into(),
        currency: Currency::Points(club),
        amount: 10,
        until: BEGIN.plus_ms(30_000),
        reason: "order".into(),
    };
    accepted(&node, hold).await;
    let voided = || of_type(&node, EventType::HoldVoided).first().cloned();
    let (ended, voided) = 'ended: loop {
        // The sequencer lives in real time, and is given some before another second passes.
        for _ in 0..200 {
            settle().await;
            if let Some(found) = voided() {
                break 'ended found;
            }
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    };
    assert!(ended >= BEGIN.plus_ms(30_000) && ended <= BEGIN.plus_ms(33_000), "{ended}");
    assert!(matches!(voided, Event::HoldVoided(e) if e.hold_id == "h" && e.reason == "timed_out" && e.amount == 10));
    let october = || (node.clock().now() >= at("2026-10-01T06:00:00Z")).then_some(());
    time.pass_until("October", HOUR, 12 * DAY, october).await;
    let second = Duration::from_secs(1);
    let done = || runs(&node).contains(&(Job::Recalculation, at("2026-10-01T05:00:00Z").0 / UnixMillis::DAY_MS));
    time.pass_until("the tier is looked at", second, HOUR, || done().then_some(())).await;

    let told = |event_type, day: &str, member: u128| {
        let day = at(&format!("{day}T00:00:00Z"));
        let about = |event: &Event| whom(event) == Some(member_id(member));
        let on_day = |at: &UnixMillis| (day..day.plus_ms(UnixMillis::DAY_MS)).contains(at);
        of_type(&node, event_type).into_iter().filter(|(at, event)| on_day(at) && about(event)).count()
    };
    use EventType as T;
    let award = |(_, event)| match event {
        Event::LeaderboardAwarded(e) => (e.round_started_at, e.member_id, e.rank, e.score),
        other => panic!("{other:?}"),
    };
    let awards: Vec<_> = of_type(&node, T::LeaderboardAwarded).into_iter().map(award).collect();
    let (first, third) = (at("2026-09-21T00:00:00Z"), at("2026-09-23T00:00:00Z"));
    // The bonus for the birthday counts for the round of that day.
    let expected = [(first, member_id(1), 1, 120), (first, member_id(2), 2, 50), (third, member_id(1), 1, 7)];
    assert_eq!(awards, expected);
    assert_eq!((balances(&node, 1).await.1, balances(&node, 2).await.1), (6, 1));
    assert_eq!(told(T::MemberBirthday, "2026-09-23", 1), 1);
    assert_eq!(of_type(&node, T::MemberBirthday).len(), 1);
    // What came on the 21st ends with the 24th.
    for member in 1..=4 {
        assert_eq!(told(T::PointsExpiringSoon, "2026-09-24", member), 1, "{member}");
        assert_eq!(told(T::PointsExpired, "2026-09-25", member), 1, "{member}");
    }
    let taken = |event: &Event| matches!(event, Event::PointsDebited(e) if matches!(e.origin, Origin::Expiry { .. }));
    assert_eq!(journal(&node).iter().filter(|(_, event)| taken(event)).count(), of_type(&node, T::PointsExpired).len(),);
    assert_eq!(balances(&node, 3).await.0, 0);
    let tiers: Vec<_> = of_type(&node, T::TierChanged)
        .into_iter()
        .map(|(at, event)| match event {
            Event::TierChanged(e) => (at >= BEGIN.plus_ms(UnixMillis::DAY_MS), e.current),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tiers, [(false, Some("Gold".into())), (true, None)], "nothing was earned in October");
    assert_eq!(node.verify().expect("readable").difference, None);
    node.close().await;
}

/// Whom an event tells of.
fn whom(event: &Event) -> Option<MemberId> {
    match event {
        Event::MemberBirthday(e) => Some(e.member_id),
        Event::PointsExpiringSoon(e) => Some(e.member_id),
        Event::PointsExpired(e) => Some(e.member_id),
        _ => None,
    }
}

#[tokio::test]
async fn a_run_that_was_cut_off_is_done_once() {
    // One slice: time stands still, and between two a walk rests.
    const MEMBERS: u128 = 60;
    let time = StillTime::hold();
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    found(&node, birthday_bonus(7)).await;
    for n in 1..=MEMBERS {
        accepted(&node, born(n, "1990-09-21")).await;
    }
    // The second batch cannot be written.
    let second = disk.append_count() + 2;
    disk.set_faults(Faults { appends: [(second, AppendFault::Io)].into(), ..Faults::default() });
    let cut_off = node.run_job(TENANT, Job::Birthdays).await;
    assert!(matches!(cut_off, Err(JobError::Unavailable(_))), "{cut_off:?}");
    node.close().await;
    let node = start(&disk.after_kill(), &courier);
    let done = of_type(&node, EventType::MemberBirthday).len();
    assert!(done > 0 && done < MEMBERS as usize, "{done}");
    assert_eq!(runs(&node), []);
    let progress = node.run_job(TENANT, Job::Birthdays).await.expect("it runs");
    assert_eq!((progress.seen, progress.concerned), (MEMBERS as u64, MEMBERS as u64 - done as u64));
    assert_eq!(of_type(&node, EventType::MemberBirthday).len(), MEMBERS as usize);
    for n in 1..=MEMBERS {
        assert_eq!(balances(&node, n).await.0, 7, "member {n}");
    }
    drop(time);
    node.close().await;
}

#[tokio::test]
async fn consumptions_are_taken_in_during_a_run() {
    const MEMBERS: u128 = 3_000;
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = Arc::new(start(&disk, &courier));
    found(&node, birthday_bonus(7)).await;
    let members = (1..=MEMBERS).map(|n| Command { tenant: TENANT, request_id: None, action: born(n, "1990-09-21") });
    let answers = node.submitter().submit_all(members.collect(), true).await.expect("taken in");
    assert!(answers.iter().all(Result::is_ok));
    let run = tokio::spawn({
        let node = node.clone();
        async move { node.run_job(TENANT, Job::Birthdays).await }
    });
    let (mut taken_in, mut seen_running) = (0u32, false);
    while !run.is_finished() {
        accepted(&node, consume(&format!("c{taken_in}"), 1, "tea", 1)).await;
        taken_in += 1;
        let jobs = node.jobs(Some(TENANT)).await.expect("readable");
        let running = jobs.iter().filter_map(|status| status.running);
        seen_running |= running.into_iter().any(|progress| progress.seen > 0 && progress.seen < MEMBERS as u64);
    }
    let progress = run.await.expect("it ends").expect("it runs");
    assert_eq!((progress.seen, progress.concerned), (MEMBERS as u64, MEMBERS as u64));
    // One for each batch of 32, and the list beside it; less where the machine is busy.
    assert!(taken_in > 20 && seen_running, "{taken_in}, {seen_running}");
    assert_eq!(balances(&node, 1).await, (7, i64::from(taken_in), 0, 0));
    assert_eq!(runs(&node).len(), 1);
    node.close().await;
}
