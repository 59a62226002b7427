//! One slow and one broken receiver among a hundred: they delay nobody else (DESIGN section 6).
//!
//! How long the others take is for the benches; here it is shown that they do not wait at all: the slow
//! one answers only after all the others have everything.

use punchline_proto::v1;
use punchline_tests::api::consumption;
use punchline_tests::campaign::CAMPAIGN;
use punchline_tests::receiver::{Script, exactly_once};
use punchline_tests::server::Server;
use punchline_tests::wait::{SOON, until};
use punchline_tests::world::World;

const SUBSCRIPTIONS: usize = 100;
const MEMBERS: usize = 10;
const ROUNDS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_slow_or_the_broken() {
    let world = World::start(Server::setup()).await;
    let paths: Vec<String> = (0..SUBSCRIPTIONS).map(|n| format!("/{n:02}")).collect();
    let (slow, broken, healthy) = (&paths[17], &paths[42], |path: &&String| **path != paths[17] && **path != paths[42]);
    world.receiver.script(slow, Script::Hang);
    world.receiver.script(broken, Script::Status(500));
    let mut ids = Vec::new();
    for path in &paths {
        // The broken one is tried again and again while the others are served, and often enough afterwards.
        ids.push(world.subscribe(path, &["points.credited"], &[200; 15]).await);
    }
    let phones: Vec<String> = (0..MEMBERS).map(|n| format!("4072100{n:04}")).collect();
    for phone in &phones {
        world.api.new_member(phone, &[CAMPAIGN]).await;
    }
    for round in 0..ROUNDS {
        let consumptions =
            phones.iter().map(|phone| consumption(&format!("{phone}-{round}"), phone, &[("article", 1)]));
        let request = v1::BatchRecordConsumptionsRequest { consumptions: consumptions.collect() };
        world.api.ingest().batch_record_consumptions(request).await.expect("all are accepted");
    }
    let events = MEMBERS * ROUNDS;
    let expected = world.delivered(&paths[0], events).await;
    for path in paths.iter().filter(healthy) {
        assert_eq!(world.delivered(path, events).await, expected, "{path}");
    }
    // All that while, the two were what they were meant to be.
    assert!(world.receiver.requests(slow) > 0, "the slow one was asked");
    assert_eq!(world.receiver.delivered_count(slow), 0, "and has answered nothing");
    assert!(world.receiver.requests(broken) > 0, "the broken one was asked");
    assert_eq!(world.receiver.delivered_count(broken), 0, "and has taken nothing");

    // Nothing was dropped for them either: taken in the end, or a dead letter.
    world.receiver.script(slow, Script::Ok);
    world.receiver.script(broken, Script::Ok);
    assert_eq!(world.delivered(slow, events).await, expected);
    until("the broken one has what it is owed", SOON, async || {
        let dead = world.api.subscription(&ids[42]).await.dead_letters as usize;
        let delivered = world.receiver.delivered_count(broken);
        if delivered + dead == events { Ok(()) } else { Err((delivered, dead)) }
    })
    .await;
    for path in &paths {
        let received = world.receiver.received(path);
        exactly_once(&received).unwrap_or_else(|fault| panic!("{path}: {fault}"));
        let once = healthy(&path) && received.len() != events;
        assert!(!once, "{path} got {} requests for {events} events", received.len());
    }
}
