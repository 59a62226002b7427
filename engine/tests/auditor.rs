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

use auditor::model::Auditor;
use auditor::shadow::Shadow;
use auditor::step::{Step, step};
use auditor::{compare, programme};
use proptest::prelude::*;
use punchline_engine::command::Action;
use punchline_engine::id::Sequence;
use punchline_engine::loyalty::job::Job;
use punchline_engine::loyalty::programme::{PointsPolicy, Settings};
use punchline_engine::time::UnixMillis;
use support::{NOW, TENANT, World};

/// Lists tried where nobody says how many: about twenty seconds.
const CASES: u32 = 2_500;

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

/// Takes the steps in both worlds.
fn check(steps: &[Step]) -> Result<(), String> {
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
        if let Err(why) = check(&steps) {
            prop_assert!(false, "{}", why);
        }
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
