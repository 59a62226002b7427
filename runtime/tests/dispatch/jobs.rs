//! Replays and redrives: what they send again, how fast, and that neither a kill nor a power cut makes them
//! skip anything or do it over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use punchline_engine::dispatch::{
    DeliveryJob, EventSelection, JobKind, JobState, RetrySchedule, RowState, Subscription,
};
use punchline_engine::id::Sequence;
use punchline_storage::memory::{Faults, MemoryDisk};

use crate::support::scene::{Play, SUBSCRIPTION, Scene, in_a_runtime};
use crate::support::*;

fn types(patterns: &[&str]) -> EventSelection {
    EventSelection::parse("event_types", patterns.iter().map(|p| (*p).to_owned()).collect()).expect("patterns")
}

/// 400 is for good.
fn refusing(subscription: &mut Subscription) {
    subscription.permanent_statuses = vec![400];
}

#[tokio::test]
async fn a_replay_sends_what_it_names_and_under_the_same_ids() {
    let both = |subscription: &mut Subscription| subscription.event_types = types(&["points.*", "consumption.*"]);
    let mut scene = Scene::start(3, both).await;
    scene.load("c", 12, 3).await;
    scene.taken(24).await;
    scene.reported().await;
    let first = scene.stage.seen();
    let ids: BTreeMap<u64, String> = first.iter().map(|one| (one.sequence, one.webhook_id.clone())).collect();
    let all: Vec<u64> = ids.keys().copied().collect();
    let named = |by: &dyn Fn(&crate::support::scene::Seen) -> bool| -> Vec<u64> {
        let mut named: Vec<u64> = first.iter().filter(|one| by(one)).map(|one| one.sequence).collect();
        named.sort_unstable();
        named
    };
    let (from, to) = (all[5], all[17]);
    let whole = |n| scene.new_job(n, JobKind::Replay);
    let jobs = [
        (whole(1), all.clone()),
        (
            DeliveryJob {
                from_sequence: Sequence(from),
                next_sequence: Sequence(from),
                to_sequence: Sequence(to),
                ..whole(2)
            },
            named(&|one| (from..=to).contains(&one.sequence)),
        ),
        (
            DeliveryJob { event_types: types(&["points.*"]), ..whole(3) },
            named(&|one| one.event_type == "points.credited"),
        ),
        (DeliveryJob { members: vec![member_id(2)], ..whole(4) }, named(&|one| one.member == 2)),
        (DeliveryJob { limit: 7, ..whole(5) }, all[..7].to_vec()),
        (DeliveryJob { event_types: types(&["points.*"]), members: vec![member_id(9)], ..whole(6) }, Vec::new()),
    ];
    for (job, expected) in jobs {
        scene.stage.forget();
        scene.start_job(&job).await;
        assert_eq!(scene.job_ended(job.id).await, (JobState::Completed, expected.len() as u64), "{job:?}");
        scene.taken(expected.len()).await;
        scene.reported().await;
        let again = scene.stage.seen();
        let mut sent: Vec<u64> = again.iter().map(|one| one.sequence).collect();
        sent.sort_unstable();
        assert_eq!(sent, expected, "{job:?}");
        assert!(again.iter().all(|one| one.webhook_id == ids[&one.sequence]), "the same ids as ever");
        assert!((1..=3).all(|member| scene.stage.of(member).is_sorted()), "in order");
        assert_eq!(scene.job(job.id).await.expect("remembered").progress(), 1.0);
    }
    scene.kill().await;
    scene.stage.forget();
    scene.consume("last", 1).await;
    scene.taken(2).await;
    scene.pass(Duration::from_secs(10)).await;
    let new = scene.stage.seen();
    assert!(new.iter().all(|one| one.sequence > all[all.len() - 1]), "nothing of it is sent once more");
    scene.close().await;
}

/// What is under way, or not even taken in, when a replay asks for it: it arrives, and nothing of it stays
/// behind as waiting.
#[tokio::test]
async fn a_replay_of_what_is_still_on_its_way() {
    let mut scene = Scene::start(40, |subscription| subscription.timeout_ms = 60_000).await;
    scene.stage.rule(|_| Play::Hang);
    // More than the lanes take in at once, in members that each wait for the first.
    scene.load("c", 1_500, 40).await;
    scene.until("all places are taken", || (scene.stage.count() == 40).then_some(())).await;
    let job = scene.new_job(1, JobKind::Replay);
    scene.start_job(&job).await;
    assert_eq!(scene.job_ended(job.id).await, (JobState::Completed, 1_500));
    scene.stage.always(200);
    scene.stage.release();
    scene.taken(1_500).await;
    scene.reported().await;
    let taken = scene.stage.taken();
    let often: BTreeMap<_, _> = taken.iter().filter(|(_, times)| **times > 1).collect();
    assert!(often.is_empty(), "it was owed once, and asked for before it was sent: {often:?}");
    assert!((1..=40).all(|member| scene.stage.of(member).is_sorted()), "in order");
    let left: Vec<_> = scene.states().await.into_iter().filter(|(_, state)| !state.is_settled()).collect();
    assert!(left.is_empty(), "{} are left, as {:?}", left.len(), left[0]);
    let count = scene.stage.count();
    scene.kill().await;
    scene.pass(Duration::from_secs(120)).await;
    assert_eq!(scene.stage.count(), count, "after a restart nothing is sent again");
    scene.close().await;
}

#[tokio::test]
async fn a_redrive_tries_dead_letters_again() {
    let mut scene = Scene::start(3, refusing).await;
    scene.stage.always(400);
    scene.load("c", 30, 3).await;
    let dead = |scene: &Scene| scene.stats().map_or(0, |s| s.dead.load(std::sync::atomic::Ordering::Relaxed));
    scene.until("all die", || (dead(&scene) == 30).then_some(())).await;
    scene.reported().await;
    let ids: BTreeSet<String> = scene.stage.seen().into_iter().map(|one| one.webhook_id).collect();
    scene.stage.always(200);
    let some = DeliveryJob { members: vec![member_id(2)], limit: 4, ..scene.new_job(1, JobKind::Redrive) };
    scene.stage.forget();
    scene.start_job(&some).await;
    assert_eq!(scene.job_ended(some.id).await, (JobState::Completed, 4));
    scene.taken(4).await;
    assert_eq!((scene.stage.of(2).len(), scene.stage.count(), dead(&scene)), (4, 4, 26));
    scene.reported().await;
    scene.kill().await;
    scene.start_job(&scene.new_job(2, JobKind::Redrive)).await;
    scene.taken(30).await;
    scene.reported().await;
    assert_eq!(scene.stage.count(), 30, "each once");
    assert!((1..=3).all(|member| scene.stage.of(member).is_sorted()), "in order");
    assert_eq!(scene.stage.seen().into_iter().map(|one| one.webhook_id).collect::<BTreeSet<_>>(), ids);
    assert_eq!(dead(&scene), 0);
    assert!(scene.states().await.iter().all(|(_, state)| *state == RowState::Delivered));
    scene.close().await;
}

#[tokio::test]
async fn a_job_keeps_its_rate_and_can_be_cancelled() {
    let mut scene = Scene::start(20, |_| {}).await;
    scene.load("c", 100, 20).await;
    scene.taken(100).await;
    scene.reported().await;
    scene.stage.forget();
    let job = DeliveryJob { per_second: 10, ..scene.new_job(1, JobKind::Replay) };
    scene.start_job(&job).await;
    scene.until("thirty are sent", || (scene.stage.count() >= 30).then_some(())).await;
    let progress = scene.job(job.id).await.expect("it runs").progress();
    assert!((0.2..0.5).contains(&progress), "{progress}");
    // It goes on where it was, as fast as before.
    scene.kill().await;
    scene.until("sixty are sent", || (scene.stage.count() >= 60).then_some(())).await;
    let mut at: Vec<u64> = scene.stage.seen().iter().map(|one| one.at.as_millis() as u64).collect();
    at.sort_unstable();
    for (i, from) in at.iter().enumerate() {
        let within = at[i..].iter().take_while(|at| **at < from + 1_000).count();
        assert!(within <= 12, "{within} in the second from {from} ms on: {at:?}");
    }
    scene.node().dispatcher().cancel_job(TENANT, SUBSCRIPTION, job.clone()).await.expect("it runs");
    scene.pass(Duration::from_secs(2)).await;
    let sent = scene.stage.count();
    assert!((60..70).contains(&sent), "{sent}");
    scene.kill().await;
    scene.pass(Duration::from_secs(60)).await;
    assert_eq!(scene.stage.count(), sent, "what was cancelled does not come back");
    let (state, put_back) = scene.job_ended(job.id).await;
    assert_eq!(state, JobState::Cancelled);
    assert_eq!(scene.stage.taken().len() as u64, put_back, "what it had put back was sent");
    scene.close().await;
}

/// Whatever a job is at when it is cancelled, what it has put back is sent: nothing waits for the next restart.
#[tokio::test]
async fn a_job_that_is_cancelled_in_the_midst_of_a_page_leaves_nothing_behind() {
    let mut scene = Scene::start(20, |_| {}).await;
    scene.load("c", 600, 20).await;
    scene.taken(600).await;
    scene.reported().await;
    for n in 1..=20 {
        scene.stage.forget();
        let job = scene.new_job(n, JobKind::Replay);
        scene.start_job(&job).await;
        // A little later each time.
        for _ in 1..n {
            settle().await;
        }
        scene.node().dispatcher().cancel_job(TENANT, SUBSCRIPTION, job.clone()).await.expect("it is there");
        scene.reported().await;
        let (_, put_back) = scene.job_ended(job.id).await;
        assert!(scene.stage.taken().len() as u64 >= put_back, "{put_back} were put back");
    }
    scene.close().await;
}

#[tokio::test]
async fn a_large_job_takes_bounded_memory() {
    const EVENTS: usize = 20_000;
    let mut scene = Scene::start(50, |subscription| subscription.timeout_ms = 60_000).await;
    scene.load("c", EVENTS, 50).await;
    scene.until("all are taken", || (scene.stage.count() >= EVENTS).then_some(())).await;
    scene.reported().await;
    scene.stage.forget();
    scene.stage.rule(|_| Play::Hang);
    let job = scene.new_job(1, JobKind::Replay);
    scene.start_job(&job).await;
    scene.until("it fills the lanes", || (scene.waiting() >= 2_048).then_some(())).await;
    // Time enough for ten times as many.
    for _ in 0..100 {
        scene.pass(Duration::from_millis(200)).await;
    }
    let most = scene.waiting();
    assert!(most < 2_048 + 256, "{most} rows are in memory");
    let running = scene.job(job.id).await.expect("it runs");
    assert!(running.state == JobState::Running && running.progress() < 0.5, "{running:?}");
    scene.stage.always(200);
    scene.stage.release();
    let mut most = 0;
    let all_taken = || {
        most = most.max(scene.waiting());
        (scene.stage.count() >= EVENTS).then_some(())
    };
    scene.until("all are taken again", all_taken).await;
    assert_eq!(scene.job_ended(job.id).await, (JobState::Completed, EVENTS as u64));
    assert!(most < 2_048 + 256, "{most} rows were in memory");
    assert!((1..=50).all(|member| scene.stage.of(member).is_sorted()), "in order");
    assert!(scene.stage.taken().values().all(|times| *times == 1));
    scene.close().await;
}

/// Deliveries, then a replay of all, then a redrive of those that were refused. Gives the scene as far as it
/// came, and whether it came to the end.
async fn run_jobs(disk: MemoryDisk) -> (Option<Scene>, bool) {
    let Ok(scene) = Scene::bare(disk) else { return (None, false) };
    let mut refused = BTreeSet::new();
    // Every third member's events are refused once.
    scene.stage.rule(move |one| Play::Status(if one.member == 3 && refused.insert(one.sequence) { 400 } else { 200 }));
    let subscribing = scene.subscription(|subscription| {
        refusing(subscription);
        subscription.schedule = RetrySchedule { delays_ms: vec![1_000; 3] };
    });
    let setup = [
        punchline_engine::command::Action::CreateAdvertiser {
            advertiser_id: Some(TENANT.advertiser),
            name: "Acme".into(),
        },
        punchline_engine::command::Action::CreateCampaign { campaign: campaign() },
        register(1),
        register(2),
        register(3),
        subscribing,
    ];
    for action in setup {
        if submit(scene.node(), action).await.is_err() {
            return (Some(scene), false);
        }
    }
    for n in 0..12 {
        if submit(scene.node(), consume(&format!("c{n}"), n % 3 + 1, "coffee", 1)).await.is_err() {
            return (Some(scene), false);
        }
    }
    for (n, kind) in [(1, JobKind::Replay), (2, JobKind::Redrive)] {
        // A small page at a time, so that the cuts fall into the midst of it.
        let job = DeliveryJob { per_second: 30, ..scene.new_job(n, kind) };
        let before = scene.stage.count();
        if scene.node().dispatcher().start_job(TENANT, SUBSCRIPTION, job.clone()).await.is_err() {
            return (Some(scene), false);
        }
        if n == 1 {
            // Everything was settled or not: a replay sends it all the same.
            assert!(before <= 12);
        }
        for _ in 0..2_000 {
            scene.settle().await;
            tokio::time::advance(Duration::from_millis(20)).await;
            if scene.node().stopped().is_some() {
                return (Some(scene), false);
            }
            if scene.job(job.id).await.is_some_and(|job| job.state != JobState::Running) {
                break;
            }
        }
        for _ in 0..30 {
            scene.settle().await;
            tokio::time::advance(Duration::from_millis(20)).await;
        }
    }
    let whole = scene.node().stopped().is_none();
    (Some(scene), whole)
}

#[test]
fn a_power_cut_at_any_sync_of_a_job_skips_nothing_and_repeats_only_what_was_under_way() {
    let whole = MemoryDisk::new();
    let disk = whole.clone();
    let events = in_a_runtime(async move {
        let (scene, ended) = run_jobs(disk).await;
        let mut scene = scene.expect("it starts");
        assert!(ended);
        let taken = scene.stage.taken();
        // 8 were taken, then replayed; 4 were refused, then replayed, and there was nothing left to redrive.
        assert_eq!((taken.len(), taken.values().sum::<usize>()), (12, 8 * 2 + 4), "{taken:?}");
        scene.close().await;
        taken.len()
    });
    let syncs = whole.sync_count();
    assert!(events == 12 && syncs > 30, "{syncs} syncs");
    for cut in 1..=syncs {
        in_a_runtime(async move {
            let disk = MemoryDisk::with_faults(Faults { power_cut_at_sync: Some(cut), ..Faults::default() });
            let (scene, _) = run_jobs(disk).await;
            let Some(mut scene) = scene else { return };
            scene.power_returns(cut).await;
            if scene.stats().is_none() && scene.node().directory().subscription(SUBSCRIPTION).is_none() {
                return scene.close().await;
            }
            scene.until("the worker is there", || scene.stats()).await;
            let owed = scene.credited();
            let state = scene.delivery_state().await;
            for job in state.jobs.iter().filter(|job| job.state == JobState::Running) {
                scene.job_ended(job.id).await;
            }
            scene.reported().await;
            let jobs = scene.delivery_state().await.jobs;
            let taken = scene.stage.taken();
            let rows: BTreeMap<u64, RowState> = scene.states().await.into_iter().collect();
            for sequence in &owed {
                let is_dead = rows.get(sequence) == Some(&RowState::Dead);
                assert!(is_dead || taken.contains_key(sequence), "cut at {cut}: {sequence} is lost");
            }
            if let Some(replay) = jobs.first() {
                assert_eq!(replay.put_back, 12, "cut at {cut}: each is put back once, in one run or two");
                for sequence in &owed {
                    // Taken before and by the replay (the refused ones by the replay alone), and at the most
                    // once more where it was under way or not yet written down at the cut.
                    let refused = scene.stage.seen().iter().any(|one| one.sequence == *sequence && one.member == 3);
                    let least = if refused { 1 } else { 2 };
                    let times = taken.get(sequence).copied().unwrap_or(0);
                    assert!((least..=least + 1).contains(&times), "cut at {cut}: {sequence} was taken {times} times");
                }
            }
            scene.close().await;
        });
    }
}
