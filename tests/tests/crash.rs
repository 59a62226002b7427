//! SIGKILL at random moments, under load: guarantees G1, G3, G4, G5, G6 and G7.
//!
//! A load of unary calls, batches and streams, with repeats among them, runs until the server is killed;
//! the server is started again and audited; and so on. `PUNCHLINE_TEST_KILLS` sets how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punchline_proto::v1;
use punchline_tests::audit::Audit;
use punchline_tests::campaign::{CAMPAIGN, campaign};
use punchline_tests::dice::Dice;
use punchline_tests::load::Load;
use punchline_tests::model::Model;
use punchline_tests::receiver::{Receiver, Script, exactly_once};
use punchline_tests::server::Server;
use punchline_tests::wait::until;

const KILLS: u32 = 50;
const MEMBERS: usize = 24;
/// Webhooks that one kill may cause to be delivered once more, to one subscription (docs/guarantees.md, G6):
/// what was begun or unreported, and what was on its way.
const REPEATS_MAX: usize = 2 * 1024;
/// Waits of the subscriptions: short, and so many that fifty kills use up none of them.
const RETRY_DELAYS_MS: [u64; 12] = [20, 20, 50, 50, 100, 100, 200, 200, 500, 500, 1000, 1000];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_loses_nothing_and_doubles_nothing() {
    let mut dice = Dice::from_environment("crash");
    let kills = std::env::var("PUNCHLINE_TEST_KILLS").map_or(KILLS, |n| n.parse().expect("a number of kills"));
    // Checkpoints often, so that kills meet them too.
    let mut server = Server::setup().with("storage.checkpoint_interval_ms", 250).start().await;
    let (_, api) = server.operator().new_advertiser("Crash").await;
    let request = v1::CreateCampaignRequest { campaign: Some(campaign()), ..Default::default() };
    api.campaigns().create_campaign(request).await.expect("the campaign is sound");
    let mut members = BTreeMap::new();
    for number in 0..MEMBERS {
        let phone = format!("407200{number:05}");
        members.insert(phone.clone(), api.new_member(&phone, &[CAMPAIGN]).await);
    }

    let receiver = Receiver::start().await;
    let subscriptions = [
        ("/steady", vec!["consumption.*", "points.*", "coins.*", "punchcard.*"], Script::Ok),
        ("/moody", vec!["points.*", "punchcard.completed"], Script::FailEvery(5)),
    ];
    let first_sequence = server.operator().head().await + 1;
    for (path, types, script) in &subscriptions {
        receiver.script(path, script.clone());
        let (_, secret) = api
            .new_subscription(v1::Subscription {
                url: receiver.url(path),
                event_types: types.iter().map(|&name| name.into()).collect(),
                retry_delays_ms: RETRY_DELAYS_MS.to_vec(),
                ..Default::default()
            })
            .await;
        receiver.secret(path, &secret);
    }

    let phones: Vec<String> = members.keys().cloned().collect();
    let model = Arc::new(Mutex::new(Model::default()));
    let mut audit = Audit::new(api.clone(), model.clone(), members);
    let load = Load::new(api.clone(), model.clone(), phones);

    let mut killed = 0;
    for round in 0..kills {
        let mut senders = load.senders(round, &mut dice);
        // Not a wait for anything: the moment of the kill, rolled.
        tokio::time::sleep(Duration::from_millis(dice.between(300, 1_200))).await;
        server.kill();
        killed += 1;
        while let Some(ended) = senders.join_next().await {
            ended.expect("a sender finds no contradiction");
        }
        while dice.percent(20) {
            // Recovery is interrupted too.
            server.spawn();
            tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
            server.kill();
            killed += 1;
        }
        server.restart().await;
        audit.spot_check(&mut dice).await;
    }

    let acknowledged = model.lock().expect("sound").acknowledged_count();
    assert!(acknowledged > 20 * kills as usize, "there was a load: {acknowledged} acknowledged");
    audit.everything().await;

    let mut twice = 0;
    for (path, types, _) in &subscriptions {
        let (events, _) = api.events_from(first_sequence, types).await;
        let expected: BTreeSet<u64> = events.iter().map(|event| event.sequence).collect();
        assert!(expected.len() > all_events_at_least(kills), "there was something to deliver: {}", expected.len());
        until(&format!("{path} has received everything"), Duration::from_secs(120), async || {
            let delivered = receiver.delivered_count(path);
            if delivered >= expected.len() { Ok(()) } else { Err(format!("{delivered} of {}", expected.len())) }
        })
        .await;
        assert_eq!(receiver.delivered(path), expected, "{path} received what the journal holds, and nothing else");
        let received = receiver.received(path);
        let firsts = exactly_once(&received).expect("as a receiver may expect");
        assert_eq!(firsts.len(), expected.len(), "one webhook-id for each event");
        let settled = received.iter().filter(|one| one.answered == 200).count();
        assert!(settled - expected.len() <= killed * REPEATS_MAX, "repeats are bounded");
        twice += settled - expected.len();
        println!("crash: {path}: {} events, {} requests, {settled} answered with 200", expected.len(), received.len());
    }

    let status = server.stop().await;
    assert!(status.success(), "an orderly stop: {status}");
    let verified = server.verify();
    assert!(verified.is_ok(), "{verified:?}\n{}", server.log_tail());
    let model = model.lock().expect("sound");
    println!(
        "crash: {killed} kills, {} sent, {} acknowledged, {} recorded, {twice} webhooks delivered once more",
        model.sent_count(),
        model.acknowledged_count(),
        model.recorded_count(),
    );
}

fn all_events_at_least(kills: u32) -> usize {
    10 * kills as usize
}
