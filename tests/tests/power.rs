//! Power cuts at random writes and syncs, under load: guarantees G1, G2, G4, G5 and G6 on the real binary with real
//! files. Of what was not synced, the disk holds what `power/power.c` chooses.
//!
//! `PUNCHLINE_TEST_CUTS` sets how often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punchline_proto::v1;
use punchline_tests::audit::Audit;
use punchline_tests::campaign::CAMPAIGN;
use punchline_tests::dice::Dice;
use punchline_tests::load::Load;
use punchline_tests::model::Model;
use punchline_tests::power::{CUT, Power};
use punchline_tests::receiver::exactly_once;
use punchline_tests::server::Server;
use punchline_tests::wait::until;
use punchline_tests::world::World;

const CUTS: u32 = 100;
const MEMBERS: usize = 24;
/// Cuts between two audits: what is lost stays lost.
const AUDIT_EVERY: u32 = 10;
/// Writes and syncs of a start, more or less, and of a second of the load.
const START: u64 = 60;
const LOAD: u64 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_nothing_that_was_acknowledged() {
    let mut dice = Dice::from_environment("power");
    let cuts = std::env::var("PUNCHLINE_TEST_CUTS").map_or(CUTS, |n| n.parse().expect("a number of cuts"));
    let power = Power::new();
    let through = power.through();
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    // Checkpoints often, so that cuts meet them too.
    let setup = Server::setup().with("storage.checkpoint_interval_ms", 250).through(&through);
    let mut world = World::start(setup).await;
    let (api, receiver) = (world.api.clone(), world.receiver.clone());
    let mut members = BTreeMap::new();
    for number in 0..MEMBERS {
        let phone = format!("407300{number:05}");
        members.insert(phone.clone(), api.new_member(&phone, &[CAMPAIGN]).await);
    }
    let (_, secret) = api
        .new_subscription(v1::Subscription {
            url: receiver.url("/shop"),
            event_types: vec!["points.*".into()],
            retry_delays_ms: vec![50; 20],
            ..Default::default()
        })
        .await;
    receiver.secret("/shop", &secret);
    let first_sequence = world.server.operator().head().await + 1;
    let model = Arc::new(Mutex::new(Model::default()));
    let load = Load::new(api.clone(), model.clone(), members.keys().cloned().collect());
    let mut audit = Audit::new(api.clone(), model.clone(), members);

    let mut at_start = 0;
    for round in 0..cuts {
        world.server.stop().await;
        let cut_at = if dice.percent(25) { dice.between(1, START) } else { dice.between(START, START + LOAD) };
        power.plan(cut_at, dice.roll());
        world.server.spawn();
        let ended = match world.server.ready_or_ended().await {
            Some(ended) => {
                at_start += 1;
                ended
            }
            None => {
                let mut senders = load.senders(round, &mut dice);
                while let Some(sender) = senders.join_next().await {
                    sender.expect("a sender finds no contradiction");
                }
                world.server.ended().await
            }
        };
        assert_eq!(ended.code(), Some(CUT), "{}", world.server.log_tail());
        power.back(&world.server.data_dir());
        power.plan(0, 0);
        world.server.restart().await;
        if round % AUDIT_EVERY == 0 {
            audit.spot_check(&mut dice).await;
        }
    }
    audit.everything().await;

    let (events, _) = api.events_from(first_sequence, &["points.*"]).await;
    let expected: std::collections::BTreeSet<u64> = events.iter().map(|event| event.sequence).collect();
    until("all is delivered", Duration::from_secs(120), async || {
        let delivered = receiver.delivered_count("/shop");
        if delivered >= expected.len() { Ok(()) } else { Err(format!("{delivered} of {}", expected.len())) }
    })
    .await;
    assert_eq!(
        receiver.delivered("/shop"),
        expected,
        "what was delivered stands in the journal, and nothing is left out"
    );
    exactly_once(&receiver.received("/shop")).expect("as a receiver may expect");

    assert!(world.server.stop().await.success(), "{}", world.server.log_tail());
    world.server.verify().unwrap_or_else(|said| panic!("{said}\n{}", world.server.log_tail()));
    let model = model.lock().expect("sound");
    println!(
        "power: {cuts} cuts, {at_start} of them at the start; {} sent, {} acknowledged, {} recorded, {} events delivered",
        model.sent_count(),
        model.acknowledged_count(),
        model.recorded_count(),
        expected.len(),
    );
    assert!(model.acknowledged_count() > 10 * cuts as usize && at_start > 0, "there was something to lose");
}
