//! SIGKILL at random moments, under load: guarantees G1, G3, G4, G5, G6 and G7.
//!
//! A load of unary calls, batches and streams, with repeats among them, runs until the server is killed;
//! the server is started again and audited; and so on. `PUNCHLINE_TEST_KILLS` sets how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punchline_proto::v1;
use punchline_tests::api::{Api, Refused, consumption, outcome};
use punchline_tests::campaign::{CAMPAIGN, SKUS, campaign};
use punchline_tests::dice::Dice;
use punchline_tests::model::Model;
use punchline_tests::receiver::{Receiver, Script, exactly_once};
use punchline_tests::server::Server;
use punchline_tests::wait::until;
use tokio::task::JoinSet;

const KILLS: u32 = 50;
const MEMBERS: usize = 24;
/// Webhooks that one kill may cause to be delivered once more, to one subscription (docs/guarantees.md, G6):
/// what was begun or unreported, and what was on its way.
const REPEATS_MAX: usize = 2 * 1024;
/// Waits of the subscriptions: short, and so many that fifty kills use up none of them.
const RETRY_DELAYS_MS: [u64; 12] = [20, 20, 50, 50, 100, 100, 200, 200, 500, 500, 1000, 1000];

/// What all senders share.
#[derive(Clone)]
struct Load {
    api: Api,
    model: Arc<Mutex<Model>>,
    sent: Arc<Mutex<Vec<v1::Consumption>>>,
    phones: Arc<Vec<String>>,
    name: String,
}

impl Load {
    fn named(&self, name: String) -> Load {
        Load { name, ..self.clone() }
    }

    /// A new consumption, or one of the last that went out once more; noted as sent.
    fn next(&self, dice: &mut Dice, number: &mut u64) -> v1::Consumption {
        let mut sent = self.sent.lock().expect("no sender panics here");
        if !sent.is_empty() && dice.percent(15) {
            let back = dice.below(sent.len().min(500) as u64) as usize;
            return sent[sent.len() - 1 - back].clone();
        }
        *number += 1;
        let id = format!("{}-{number}", self.name);
        let lines: Vec<(&str, u64)> =
            (0..dice.between(1, 3)).map(|_| (*dice.pick(&SKUS), dice.between(1, 4))).collect();
        let new = consumption(&id, dice.pick::<String>(&self.phones), &lines);
        self.model.lock().expect("the model is sound").sent(&new);
        sent.push(new.clone());
        new
    }

    /// Notes an answer; whether the server is still there.
    fn answered(&self, id: &str, answer: &Result<v1::Receipt, Refused>) -> bool {
        self.model.lock().expect("the model is sound").answered(id, answer);
        !answer.as_ref().is_err_and(Refused::is_unknown_outcome)
    }

    async fn pause(dice: &mut Dice) {
        tokio::time::sleep(Duration::from_millis(dice.below(60))).await;
    }

    async fn unary(self, mut dice: Dice) {
        let mut number = 0;
        loop {
            let one = self.next(&mut dice, &mut number);
            let id = one.consumption_id.clone();
            if !self.answered(&id, &self.api.record(one).await) {
                return;
            }
            Load::pause(&mut dice).await;
        }
    }

    async fn batches(self, mut dice: Dice) {
        let mut number = 0;
        loop {
            let some: Vec<_> = (0..dice.between(1, 12)).map(|_| self.next(&mut dice, &mut number)).collect();
            let ids: Vec<_> = some.iter().map(|one| one.consumption_id.clone()).collect();
            let request = v1::BatchRecordConsumptionsRequest { consumptions: some };
            let results = match self.api.ingest().batch_record_consumptions(request).await {
                Ok(answer) => answer.into_inner().results,
                Err(status) => {
                    let refused = Refused::of(&status);
                    assert!(refused.is_unknown_outcome(), "a batch as such is not refused: {refused:?}");
                    return;
                }
            };
            assert_eq!(results.len(), ids.len(), "a result for each");
            for (id, result) in ids.iter().zip(results) {
                self.answered(id, &outcome(result));
            }
            Load::pause(&mut dice).await;
        }
    }

    /// Up to 16 under way on one stream, which lasts until the server dies.
    async fn stream(self, mut dice: Dice) {
        let (requests, taken) = tokio::sync::mpsc::channel(16);
        let taken = tokio_stream::wrappers::ReceiverStream::new(taken);
        let order = Arc::new(Mutex::new(std::collections::VecDeque::new()));
        let sender = {
            let (load, order) = (self.clone(), order.clone());
            async move {
                let mut number = 0;
                loop {
                    let one = load.next(&mut dice, &mut number);
                    order.lock().expect("sound").push_back(one.consumption_id.clone());
                    let request = v1::StreamConsumptionsRequest { consumption: Some(one) };
                    if requests.send(request).await.is_err() {
                        return;
                    }
                    Load::pause(&mut dice).await;
                }
            }
        };
        let reader = async {
            let Ok(answer) = self.api.ingest().stream_consumptions(taken).await else { return };
            let mut results = answer.into_inner();
            // An error ends it: what was under way then has no known outcome.
            while let Ok(Some(message)) = results.message().await {
                let id = order.lock().expect("sound").pop_front().expect("a result follows a request");
                self.answered(&id, &outcome(message.result.expect("a result")));
            }
        };
        tokio::select! {
            () = sender => {}
            () = reader => {}
        }
    }
}

/// The auditor's visit to a server that was just started.
struct Audit {
    api: Api,
    model: Arc<Mutex<Model>>,
    members: BTreeMap<String, String>,
    next_sequence: u64,
}

impl Audit {
    /// Every consumption that the journal has gained; nothing acknowledged is missing.
    async fn journal(&mut self) {
        let (events, next_sequence) = self.api.events_from(self.next_sequence, &["consumption.recorded"]).await;
        self.next_sequence = next_sequence;
        let mut model = self.model.lock().expect("the model is sound");
        for event in events {
            let data: serde_json::Value = serde_json::from_str(&event.data_json).expect("data is JSON");
            let id = data["consumption_id"].as_str().expect("a consumption has an id");
            model.recorded(id, event.sequence);
        }
        model.check_nothing_is_lost();
    }

    /// Once more, please: the first receipt, and no second one.
    async fn repeats(&self, some: Vec<(v1::Consumption, u64)>) {
        for (one, sequence) in some {
            let id = one.consumption_id.clone();
            let refused = self.api.record(one).await.expect_err("an acknowledged consumption is a repeat");
            assert_eq!(refused.code, tonic::Code::AlreadyExists, "{id}: {refused:?}");
            assert_eq!(refused.reason, "CONSUMPTION_EXISTS", "{id}: {refused:?}");
            assert_eq!(refused.receipt.expect("the first receipt").sequence, sequence, "{id}");
        }
    }

    /// What a member has is what the model has for it.
    async fn member(&self, phone: &str) {
        let id = &self.members[phone];
        let expected = self.model.lock().expect("the model is sound").holdings(phone);
        let mut balances = self.api.balances(id).await;
        let mut punchcards = self.api.punchcards(id).await;
        let mut expected = expected;
        // Whether nothing is shown as 0 or not at all is no matter of this test.
        balances.retain(|_, amount| *amount != 0);
        punchcards.retain(|_, state| *state != (0, 0));
        expected.balances.retain(|_, amount| *amount != 0);
        expected.punchcards.retain(|_, state| *state != (0, 0));
        assert_eq!((balances, punchcards), (expected.balances, expected.punchcards), "of {phone}");
    }

    /// A member's entries add up to its balances.
    async fn entries(&self, phone: &str) {
        let member_id = self.members[phone].clone();
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListEntriesRequest { member_id: member_id.clone(), page_size: 500, page_token };
            let page = self.api.ledger().list_entries(request).await.expect("the member exists").into_inner();
            for entry in page.entries {
                let balance = entry.new_balance.expect("an entry says what it came to");
                *sums.entry(punchline_tests::api::currency(&balance)).or_default() += entry.amount;
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let mut balances = self.api.balances(&member_id).await;
        balances.retain(|_, amount| *amount != 0);
        assert_eq!(sums, balances, "entries of {phone} add up to its balances");
    }
}

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
    let mut audit = Audit { api: api.clone(), model: model.clone(), members, next_sequence: 1 };
    let load = Load {
        api: api.clone(),
        model: model.clone(),
        sent: Arc::default(),
        phones: Arc::new(phones.clone()),
        name: String::new(),
    };

    let mut killed = 0;
    for round in 0..kills {
        let mut senders = JoinSet::new();
        for n in 0..4 {
            senders.spawn(load.named(format!("u{round}-{n}")).unary(dice.split()));
        }
        senders.spawn(load.named(format!("b{round}")).batches(dice.split()));
        senders.spawn(load.named(format!("s{round}")).stream(dice.split()));
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
        audit.journal().await;
        let (count, known) = (20, model.lock().expect("sound").acknowledged_count() as u64);
        let from = dice.below(known.saturating_sub(count).max(1)) as usize;
        let some = model.lock().expect("sound").acknowledged(from, count as usize);
        audit.repeats(some).await;
        for _ in 0..2 {
            audit.member(dice.pick::<String>(&phones)).await;
        }
    }

    let all = model.lock().expect("sound").acknowledged(0, usize::MAX);
    assert!(all.len() > 20 * kills as usize, "there was a load: {} acknowledged", all.len());
    audit.repeats(all).await;
    audit.journal().await;
    for phone in &phones {
        audit.member(phone).await;
        audit.entries(phone).await;
    }

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
