//! What waits for what, and what a dead letter means for its successors.

use std::collections::BTreeSet;
use std::time::Duration;

use punchline_engine::dispatch::{OnDeadLetter, Ordering, RowState};
use punchline_engine::id::Sequence;

use crate::support::TENANT;
use crate::support::scene::{Play, SUBSCRIPTION, Scene, in_a_runtime};

/// Nine events of three members, of which the first is hung up on; what arrives meanwhile, and after it.
async fn with_the_first_hanging(ordering: Ordering) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
    let mut scene = Scene::start(3, |subscription| subscription.ordering = ordering).await;
    scene.stage.rule(|one| if one.attempt == 1 && one.member == 1 { Play::Hang } else { Play::Status(200) });
    scene.load("c", 9, 3).await;
    let all = scene.credited();
    scene.until("the first is under way", || (scene.stage.count() > 0).then_some(())).await;
    // Well before its time-out.
    scene.pass(Duration::from_secs(2)).await;
    let before: Vec<u64> = scene.stage.seen().iter().map(|one| one.sequence).collect();
    scene.stage.always(200);
    scene.stage.release();
    scene.taken(9).await;
    let after: Vec<u64> = scene.stage.seen().iter().map(|one| one.sequence).collect();
    scene.close().await;
    (all, before, after)
}

#[tokio::test]
async fn strictly_nothing_overtakes() {
    let (all, before, after) = with_the_first_hanging(Ordering::Strict).await;
    assert_eq!(before, all[..1]);
    assert_eq!(after, all);
}

#[tokio::test]
async fn per_member_only_its_own_wait() {
    let (all, before, after) = with_the_first_hanging(Ordering::PerMember).await;
    let of_others = |at: &usize| !at.is_multiple_of(3);
    let expected: BTreeSet<u64> = (0..9).filter(of_others).map(|at| all[at]).chain([all[0]]).collect();
    assert_eq!(before.iter().copied().collect::<BTreeSet<_>>(), expected);
    for member in 0..3 {
        let its: Vec<u64> = after.iter().copied().filter(|s| (0..3).any(|n| all[member + 3 * n] == *s)).collect();
        assert!(its.is_sorted() && its.len() == 3, "{its:?}");
    }
}

#[tokio::test]
async fn without_order_nothing_waits() {
    let (all, before, _) = with_the_first_hanging(Ordering::None).await;
    assert_eq!(before.into_iter().collect::<BTreeSet<_>>(), all.into_iter().collect());
}

#[tokio::test]
async fn strict_order_holds_through_retries_and_a_restart() {
    let mut scene = Scene::start(3, |subscription| subscription.ordering = Ordering::Strict).await;
    let mut count = 0;
    scene.stage.rule(move |_| {
        count += 1;
        Play::Status(if count % 3 == 0 { 503 } else { 200 })
    });
    scene.load("c", 12, 3).await;
    scene.taken(5).await;
    scene.kill().await;
    scene.taken(12).await;
    let mut firsts = Vec::new();
    for one in scene.stage.seen().iter().filter(|one| one.taken) {
        if !firsts.contains(&one.sequence) {
            firsts.push(one.sequence);
        }
    }
    assert_eq!(firsts, scene.credited());
    scene.close().await;
}

/// Three events of member 1 of which the first is refused, and one of member 2.
async fn held() -> (Scene, Vec<u64>) {
    let scene = Scene::start(2, |subscription| {
        subscription.on_dead_letter = OnDeadLetter::Hold;
        subscription.permanent_statuses = vec![400];
    })
    .await;
    let mut refused = false;
    scene.stage.rule(move |one| {
        let refuse = one.member == 1 && !refused;
        refused |= one.member == 1;
        Play::Status(if refuse { 400 } else { 200 })
    });
    for (id, member) in [("a", 1), ("b", 1), ("c", 2), ("d", 1)] {
        scene.consume(id, member).await;
    }
    let all = scene.credited();
    let is_held = async |scene: &Scene| (scene.states().await.len() == 3).then_some(());
    scene.until_views("one is dead and two are held", Duration::from_millis(20), is_held).await;
    (scene, all)
}

async fn assert_held(scene: &Scene, all: &[u64]) {
    scene.pass(Duration::from_secs(120)).await;
    let expected = [(all[0], RowState::Dead), (all[1], RowState::Held), (all[3], RowState::Held)];
    assert_eq!(scene.states().await, expected, "they are seen as held");
    assert_eq!(scene.stage.of(1), [all[0]], "and not sent");
    assert_eq!(scene.stage.of(2), [all[2]], "the other member goes on");
}

#[tokio::test]
async fn behind_a_dead_letter_successors_are_held_until_it_is_redriven() {
    let (mut scene, all) = held().await;
    assert_held(&scene, &all).await;
    scene.kill().await;
    assert_held(&scene, &all).await;
    // One that comes later is held too.
    scene.consume("e", 1).await;
    scene.pass(Duration::from_secs(60)).await;
    let all = scene.credited();
    assert_eq!(scene.stage.of(1), [all[0]]);
    let redriven = scene.node().dispatcher().redrive(TENANT, SUBSCRIPTION, vec![Sequence(all[0])]).await;
    assert_eq!(redriven, Ok(1));
    scene.taken(5).await;
    assert_eq!(scene.stage.of(1), [all[0], all[0], all[1], all[3], all[4]], "in order");
    scene.reported().await;
    assert!(scene.states().await.iter().all(|(_, state)| *state == RowState::Delivered), "{:?}", scene.states().await);
    scene.kill().await;
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(scene.stage.count(), 6, "after a restart nothing is sent again");
    scene.close().await;
}

#[test]
fn a_dead_letter_that_is_dropped_lets_its_successors_go() {
    in_a_runtime(dropped(false));
    in_a_runtime(dropped(true));
}

async fn dropped(after_a_restart: bool) {
    let (mut scene, all) = held().await;
    if after_a_restart {
        scene.kill().await;
        assert_held(&scene, &all).await;
    }
    let dispatcher = scene.node().dispatcher();
    let dropped = dispatcher.drop_dead_letters(TENANT, SUBSCRIPTION, vec![Sequence(all[0])], "lost".into()).await;
    assert_eq!(dropped, Ok(1));
    scene.taken(3).await;
    assert_eq!(scene.stage.of(1), [all[0], all[1], all[3]]);
    scene.reported().await;
    let expected = [(all[0], RowState::Dropped), (all[1], RowState::Delivered), (all[3], RowState::Delivered)];
    assert_eq!(scene.states().await, expected);
    assert_eq!(scene.told("delivery.dropped").len(), 1);
    scene.kill().await;
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(scene.stage.count(), 4, "what was dropped stays dropped");
    scene.close().await;
}

/// A member with more waiting than the window of the lanes holds, and an attempt that hangs: the others of
/// the same subscription do not wait for it.
#[tokio::test]
async fn a_long_queue_of_one_member_holds_up_nobody_else() {
    let mut scene = Scene::start(3, |subscription| subscription.timeout_ms = 60_000).await;
    scene.stage.rule(|one| if one.member == 1 { Play::Hang } else { Play::Status(200) });
    scene.load("hot", 2_000, 1).await;
    let others = [2, 3];
    for member in others {
        scene.consume(&format!("m{member}"), member).await;
    }
    scene.until("the hot one hangs", || (scene.stage.of(1).len() == 1).then_some(())).await;
    scene.pass(Duration::from_secs(20)).await;
    for member in others {
        assert_eq!(scene.stage.of(member).len(), 1, "member {member} waits for the hot one");
    }
    scene.stage.always(200);
    scene.stage.release();
    scene.taken(2_002).await;
    assert!(scene.stage.of(1).is_sorted());
    scene.close().await;
}
