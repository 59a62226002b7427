//! What a crash may repeat, and what a journal that takes nothing leads to.

use std::time::Duration;

use punchline_engine::dispatch::Ordering;
use punchline_runtime::dispatch::lanes::WINDOW_MAX;
use punchline_storage::memory::{AppendFault, Faults};

use crate::support::scene::{Play, Scene};

/// One request hangs while thousands of other members' events arrive: a crash must not send those again.
#[tokio::test]
async fn a_request_that_hangs_does_not_make_a_crash_repeat_more_than_the_window() {
    const EVENTS: usize = 6_000;
    let mut scene = Scene::start(50, |subscription| subscription.timeout_ms = 60_000).await;
    scene.stage.rule(|one| if one.member == 1 { Play::Hang } else { Play::Status(200) });
    scene.consume("hangs", 1).await;
    scene.until("it hangs", || (scene.stage.count() == 1).then_some(())).await;
    // Of the members 2 to 50.
    for round in 0..EVENTS / 49 {
        let name = format!("r{round}-");
        for member in 2..=50 {
            if member == 2 && round % 40 == 39 {
                scene.pass(Duration::from_millis(100)).await;
            }
            let command = crate::support::consume(&format!("{name}{member}"), member, "coffee", 1);
            drop(crate::support::submit(scene.node(), command).await.expect("accepted"));
        }
    }
    let others = EVENTS / 49 * 49;
    scene.until("the others have theirs", || (scene.stage.count() == others + 1).then_some(())).await;
    scene.pass(Duration::from_secs(1)).await;
    scene.kill().await;
    scene.stage.always(200);
    scene.taken(others + 1).await;
    scene.pass(Duration::from_secs(5)).await;
    let again: usize = scene.stage.taken().values().map(|times| times - 1).sum();
    assert!(again <= WINDOW_MAX, "{again} were sent again");
    assert!((1..=50).all(|member| {
        let mut of = scene.stage.of(member);
        of.dedup();
        let first_time: Vec<u64> =
            of.iter().enumerate().filter(|(i, s)| !of[..*i].contains(s)).map(|(_, s)| *s).collect();
        first_time.is_sorted()
    }));
    scene.close().await;
}

/// After an orderly stop nothing is sent again, whatever order was asked for.
#[tokio::test]
async fn an_orderly_stop_repeats_nothing() {
    let mut scene = Scene::start(10, |subscription| subscription.ordering = Ordering::None).await;
    scene.load("c", 500, 10).await;
    scene.taken(500).await;
    scene.restart().await;
    scene.load("d", 1, 1).await;
    scene.taken(501).await;
    scene.pass(Duration::from_secs(10)).await;
    assert_eq!(scene.stage.count(), 501);
    scene.close().await;
}

/// What cannot be written down would only be sent again and again.
#[tokio::test]
async fn a_journal_that_stopped_causes_no_redeliveries() {
    let mut scene = Scene::start(5, |_| {}).await;
    scene.load("c", 50, 5).await;
    scene.taken(50).await;
    // The report of these fails, and so does everything after it.
    let next = scene.disk.append_count() + 1;
    scene.disk.set_faults(Faults { appends: [(next, AppendFault::Io)].into(), ..Faults::default() });
    scene.pass(Duration::from_secs(1)).await;
    scene.until("the journal stopped", || scene.node().stopped()).await;
    scene.pass(Duration::from_secs(600)).await;
    let again = scene.stage.count() - 50;
    assert!(again <= 50, "{again} were sent again while nothing could be written");
    let count = scene.stage.count();
    scene.pass(Duration::from_secs(3_600)).await;
    assert_eq!(scene.stage.count(), count, "and no more of them as time goes on");
    scene.kill().await;
    scene.reported().await;
    assert!(scene.stage.taken().len() == 50 && scene.stage.count() <= count + 50);
    scene.close().await;
}

/// A disk that is full, and says so at each append, for minutes.
#[tokio::test]
async fn a_full_disk_causes_no_storm_of_redeliveries() {
    let mut scene = Scene::start(5, |_| {}).await;
    scene.load("c", 50, 5).await;
    scene.taken(50).await;
    scene.disk.set_full(true);
    scene.pass(Duration::from_secs(1)).await;
    scene.until("the journal stopped", || scene.node().stopped()).await;
    // The sequencer looks once a second of real time whether there is room again; a worker's seconds pass faster.
    let tried = scene.disk.reopen_count();
    scene.until("there is no room again and again", || (scene.disk.reopen_count() >= tried + 3).then_some(())).await;
    let again = scene.stage.count() - 50;
    assert!(again <= 50, "{again} were sent again while the disk was full");
    scene.disk.set_full(false);
    scene.until("the journal opens again", || scene.node().stopped().is_none().then_some(())).await;
    scene.load("d", 5, 5).await;
    scene.taken(55).await;
    scene.close().await;
}
