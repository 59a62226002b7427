//! What answers of an endpoint lead to: breaker, rate, schedule, disabling, signatures.

use std::collections::BTreeMap;
use std::time::Duration;

use punchline_delivery::outcome::{AttemptReport, DeliveryControl, PermanentStatuses};
use punchline_engine::command::Action;
use punchline_engine::dispatch::{AttemptLog, BreakerPolicy, OnDeadLetter, RetrySchedule, RowState, SubscriptionState};
use punchline_engine::event::Event;
use punchline_runtime::clock::Clock;
use punchline_runtime::dispatch::target::SIGNING_SECRET;
use punchline_storage::member_keys::SEALED_EXTRA_BYTES;

use crate::support::scene::{Play, SUBSCRIPTION, Scene, in_a_runtime};
use crate::support::*;

const MINUTE: Duration = Duration::from_secs(60);

fn answer(status: u16) -> AttemptReport {
    let none = PermanentStatuses::new([]).expect("none is fine");
    AttemptReport::answered(http::StatusCode::from_u16(status).expect("a status"), &none)
}

#[tokio::test]
async fn a_breaker_opens_uses_up_nothing_tries_one_and_closes() {
    let mut scene = Scene::start(10, |subscription| {
        subscription.breaker = BreakerPolicy { failures: 5, open_ms: 60_000, disable_after_ms: 0 };
        subscription.schedule = RetrySchedule { delays_ms: vec![1_000; 3] };
        subscription.max_in_flight = 5;
    })
    .await;
    scene.stage.always(503);
    scene.load("c", 10, 10).await;
    let breaker = |scene: &Scene| scene.stats().map_or("", |stats| stats.breaker());
    scene.until("five fail", || (breaker(&scene) == "open").then_some(())).await;
    // What was under way at the fifth failure has ended too.
    let begun = scene.stage.count();
    assert!((5..10).contains(&begun), "{begun}");
    scene.pass(MINUTE * 9 / 10).await;
    assert_eq!(scene.stage.count(), begun, "nothing is sent while it is open");
    let one_more = || (scene.stage.count() == begun + 1).then_some(());
    scene.until("its time is over, and the one that tries fails", one_more).await;
    scene.until("it opens again", || (breaker(&scene) == "open").then_some(())).await;
    scene.pass(MINUTE).await;

    // It stands after a restart as it stood before: 120 s are not over.
    scene.kill().await;
    scene.until("the worker is back", || (breaker(&scene) == "open").then_some(())).await;
    scene.pass(MINUTE / 3).await;
    assert_eq!((scene.stage.count(), breaker(&scene)), (begun + 1, "open"));

    // One tries; while it does, no other.
    scene.stage.rule(|_| Play::Hang);
    scene.until("one tries", || (scene.stage.count() == begun + 2).then_some(())).await;
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!((scene.stage.count(), breaker(&scene)), (begun + 2, "half_open"));
    scene.stage.always(200);
    scene.stage.release();
    scene.taken(10).await;
    assert_eq!(breaker(&scene), "closed");
    scene.reported().await;
    let told = scene.told("breaker.");
    let twice = ["breaker.opened", "breaker.half_opened", "breaker.opened", "breaker.half_opened", "breaker.closed"];
    assert_eq!(told, twice);
    assert!(scene.rows().await.iter().all(|row| row.state == RowState::Delivered), "none was used up");
    let mut attempts: BTreeMap<u64, u32> = BTreeMap::new();
    scene.stage.seen().iter().for_each(|one| *attempts.entry(one.sequence).or_default() += 1);
    assert!(attempts.values().all(|n| *n <= 3), "{attempts:?}");
    scene.close().await;
}

#[tokio::test]
async fn nothing_but_failure_for_so_long_disables() {
    let mut scene = Scene::start(3, |subscription| {
        subscription.breaker = BreakerPolicy { failures: 2, open_ms: 60_000, disable_after_ms: 600_000 };
        subscription.schedule = RetrySchedule { delays_ms: vec![1_000; 40] };
    })
    .await;
    scene.stage.always(500);
    scene.load("c", 3, 3).await;
    let disabled = || (scene.state() == SubscriptionState::Disabled).then(|| scene.stage.seen());
    let seen = scene.time.pass_until("it is disabled", Duration::from_secs(1), 60 * MINUTE, disabled).await;
    let since = seen.last().expect("attempts").at - seen[0].at;
    assert!((10 * MINUTE..20 * MINUTE).contains(&since), "after {since:?}");
    assert_eq!(scene.told("subscription.disabled").len(), 1);
    scene.pass(60 * MINUTE).await;
    assert_eq!(scene.stage.count(), seen.len(), "nothing more is sent");
    scene.kill().await;
    scene.pass(60 * MINUTE).await;
    assert_eq!(scene.stage.count(), seen.len(), "after a restart neither");
    // Whoever resumes it believes that the endpoint is back: all is sent at once.
    scene.stage.always(200);
    scene.set_state(SubscriptionState::Active).await;
    scene.taken(3).await;
    assert_eq!(scene.stats().expect("served").breaker(), "closed");
    scene.close().await;
}

#[tokio::test]
async fn a_rate_is_kept() {
    let mut scene = Scene::start(20, |subscription| subscription.rate_per_second = 10).await;
    scene.load("c", 60, 20).await;
    scene.taken(60).await;
    let mut times: Vec<u64> = scene.stage.seen().iter().map(|one| one.at.as_millis() as u64).collect();
    times.sort_unstable();
    for (i, from) in times.iter().enumerate() {
        let within = times[i..].iter().take_while(|at| **at < from + 1_000).count();
        assert!(within <= 11, "{within} attempts in the second from {from} ms on");
    }
    let took = times[59] - times[0];
    // The test looks every 20 ms, and each attempt may begin so much later.
    assert!((5_500..7_500).contains(&took), "and it is used: 60 took {took} ms");
    // A new rate holds from now on.
    scene.stage.forget();
    scene.update(|subscription| subscription.rate_per_second = 0).await;
    scene.load("d", 60, 20).await;
    scene.taken(60).await;
    let seen = scene.stage.seen();
    assert!(seen[59].at - seen[0].at < Duration::from_millis(500));
    scene.close().await;
}

#[tokio::test]
async fn a_filter_selects_and_can_be_changed() {
    let mut scene = Scene::start(1, |subscription| subscription.filter = "event.data.amount >= 100".into()).await;
    let earn = async |scene: &Scene, id: &str, quantity| {
        accepted(scene.node(), consume(id, 1, "coffee", quantity)).await;
    };
    for (id, quantity) in [("a", 12), ("b", 1), ("c", 30)] {
        earn(&scene, id, quantity).await;
    }
    scene.taken(2).await;
    let all = scene.credited();
    assert_eq!(scene.stage.of(1), [all[0], all[2]]);
    scene.update(|subscription| subscription.filter = "event.data.amount < 100".into()).await;
    for (id, quantity) in [("d", 12), ("e", 1), ("f", 2)] {
        earn(&scene, id, quantity).await;
    }
    scene.taken(4).await;
    scene.reported().await;
    let all = scene.credited();
    assert_eq!(scene.stage.of(1), [all[0], all[2], all[4], all[5]]);
    // What did not pass is not owed to anybody, after a restart neither.
    scene.kill().await;
    earn(&scene, "g", 3).await;
    scene.taken(5).await;
    assert_eq!(scene.stage.count(), 5);
    scene.close().await;
}

#[tokio::test]
async fn attempts_are_made_by_the_schedule_and_no_more() {
    let mut scene = Scene::start(1, |subscription| {
        subscription.schedule = RetrySchedule { delays_ms: vec![1_000, 20_000] };
    })
    .await;
    scene.stage.always(500);
    scene.consume("c", 1).await;
    scene.until("it dies", || scene.stats().filter(|s| s.dead.load(std::sync::atomic::Ordering::Relaxed) == 1)).await;
    scene.pass(10 * MINUTE).await;
    let seen = scene.stage.seen();
    assert_eq!(seen.iter().map(|one| one.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    let waits = [seen[1].at - seen[0].at, seen[2].at - seen[1].at].map(|wait| wait.as_millis());
    // A fifth longer at the most, and a step of the test.
    assert!((1_000..1_250).contains(&waits[0]) && (20_000..24_050).contains(&waits[1]), "{waits:?}");
    assert!(scene.rows().await.iter().all(|row| row.state == RowState::Dead && row.attempts == 3));
    let died = scene.journal().into_iter().find_map(|(_, event)| match event {
        Event::DeliveryDeadLettered(event) => Some(event),
        _ => None,
    });
    assert_eq!(died.expect("it is told").reason, "http_500");
    scene.close().await;
}

#[tokio::test]
async fn retry_after_lengthens_and_never_shortens() {
    let mut scene = Scene::start(1, |subscription| {
        subscription.schedule = RetrySchedule { delays_ms: vec![10_000, 10_000, 10_000] };
    })
    .await;
    let mut asked = [Some(120_000), Some(1), None].into_iter();
    scene.stage.rule(move |_| match asked.next() {
        Some(retry_after_ms) => Play::Report(AttemptReport { retry_after_ms, ..answer(429) }),
        None => Play::Status(200),
    });
    scene.consume("c", 1).await;
    scene.until("it is asked to wait", || (scene.stage.count() == 1).then_some(())).await;
    scene.pass(Duration::from_secs(1)).await;
    // What was asked for holds after a restart too.
    scene.kill().await;
    scene.taken(1).await;
    let at: Vec<u128> = scene.stage.seen().iter().map(|one| one.at.as_millis()).collect();
    let waits: Vec<u128> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((120_000..121_000).contains(&waits[0]), "{waits:?}");
    assert!((10_000..12_050).contains(&waits[1]) && (10_000..12_050).contains(&waits[2]), "{waits:?}");
    scene.close().await;
}

#[test]
fn gone_and_a_request_to_disable_disable() {
    let taken_but_no_more = answer(200).controlled(DeliveryControl::Disable);
    for (report, owed) in [(answer(410), 3), (taken_but_no_more, 2)] {
        in_a_runtime(disabled_by(report, owed));
    }
}

async fn disabled_by(report: AttemptReport, owed: usize) {
    let mut scene = Scene::start(1, |_| {}).await;
    scene.stage.rule(move |_| Play::Report(report.clone()));
    scene.load("c", 3, 1).await;
    scene.until("disabled", || (scene.state() == SubscriptionState::Disabled).then_some(())).await;
    scene.pass(10 * MINUTE).await;
    assert_eq!(scene.stage.count(), 1, "nothing more is sent");
    scene.kill().await;
    scene.pass(10 * MINUTE).await;
    assert_eq!(scene.stage.count(), 1, "nor after a restart");
    scene.stage.forget();
    scene.stage.always(200);
    scene.set_state(SubscriptionState::Active).await;
    scene.taken(owed).await;
    scene.reported().await;
    assert!(scene.stage.of(1).is_sorted());
    assert_eq!(scene.stage.count(), owed, "the backlog was kept, what was taken is not sent again");
    scene.close().await;
}

#[tokio::test]
async fn both_secrets_sign_until_the_overlap_is_over() {
    let mut scene = Scene::start(1, |_| {}).await;
    let signatures = async |scene: &Scene, id: &str| {
        let count = scene.stage.taken().len() + 1;
        scene.consume(id, 1).await;
        scene.taken(count).await;
        scene.reported().await;
        scene.stage.seen().pop().expect("one came").signatures.len()
    };
    assert_eq!(signatures(&scene, "before").await, 1);
    let secret = scene.node().sealer().seal(SIGNING_SECRET, &[4; 32]);
    let previous_until = scene.clock.now().plus_ms(3_600_000);
    accepted(scene.node(), Action::RotateSecret { subscription_id: SUBSCRIPTION, secret, previous_until }).await;
    assert_eq!(signatures(&scene, "during").await, 2);
    scene.kill().await;
    scene.pass(50 * MINUTE).await;
    assert_eq!(signatures(&scene, "still during").await, 2, "after a restart too");
    let left = previous_until.0 - scene.clock.now().0;
    scene.pass(Duration::from_millis(left as u64 - 1_000)).await;
    assert_eq!(signatures(&scene, "just before the end").await, 2);
    scene.pass(Duration::from_secs(2)).await;
    assert_eq!(signatures(&scene, "after").await, 1);
    scene.close().await;
}

#[tokio::test]
async fn a_report_of_many_long_rows_stays_within_a_record() {
    const MEMBERS: u128 = 300;
    let mut scene = Scene::start(MEMBERS, |subscription| {
        // All at once, so that all is reported at once.
        subscription.schedule = RetrySchedule { delays_ms: vec![0; 17] };
        subscription.on_dead_letter = OnDeadLetter::GoOn;
        subscription.max_in_flight = 1_024;
    })
    .await;
    let mut long = answer(500);
    long.response_snippet = vec![b'x'; 4_096].into();
    scene.stage.rule(move |_| Play::Report(long.clone()));
    scene.load("c", MEMBERS as usize, MEMBERS).await;
    let dead = || scene.stats().filter(|s| s.dead.load(std::sync::atomic::Ordering::Relaxed) == MEMBERS as u64);
    scene.until("all die", dead).await;
    scene.reported().await;
    let rows = scene.rows().await;
    assert_eq!(rows.len(), MEMBERS as usize);
    assert!(rows.iter().all(|row| row.state == RowState::Dead && row.attempts == 18), "each was reported");
    let is_long = |log: &AttemptLog| log.response.len() == 512 + SEALED_EXTRA_BYTES;
    assert!(rows.iter().all(|row| row.log.len() == 16 && row.log.iter().all(is_long)));
    assert_eq!(scene.stage.count(), 18 * MEMBERS as usize, "no report was refused: nothing was sent again");
    scene.close().await;
}
