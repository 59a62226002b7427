//! Named consumers over gRPC: two clients of one consumer, one of which is killed; then the server is.

use std::collections::{BTreeMap, BTreeSet};

use punchline_proto::v1;
use punchline_proto::v1::consume_request::Kind as Say;
use punchline_proto::v1::consume_response::Kind as Told;
use punchline_tests::api::{Api, consumption};
use punchline_tests::campaign::CAMPAIGN;
use punchline_tests::server::Server;
use punchline_tests::wait::{SOON, until};
use punchline_tests::world::World;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

const MEMBERS: usize = 20;
const EACH: usize = 5;

/// A client of the consumer "shop".
struct Client {
    says: mpsc::UnboundedSender<v1::ConsumeRequest>,
    told: tonic::Streaming<v1::ConsumeResponse>,
}

#[derive(Clone, Debug)]
struct Got {
    sequence: u64,
    member: String,
    attempt: u32,
}

impl Client {
    async fn connect(api: &Api) -> Client {
        let (says, said) = mpsc::unbounded_channel();
        let filter = v1::EventFilter { event_types: vec!["points.credited".into()], ..Default::default() };
        let start = v1::ConsumeStart {
            consumer: "shop".into(),
            filter: Some(filter),
            start: Some(v1::consume_start::Start::FromStart(true)),
            // Longer than the test takes: what comes again comes because somebody died.
            ack_timeout_ms: 600_000,
            ..Default::default()
        };
        says.send(v1::ConsumeRequest { kind: Some(Say::Start(start)) }).expect("it is open");
        let told = api.events().consume(UnboundedReceiverStream::new(said)).await.expect("it may consume");
        let mut client = Client { says, told: told.into_inner() };
        match client.hear().await {
            Told::Started(_) => client,
            other => panic!("{other:?}"),
        }
    }

    async fn hear(&mut self) -> Told {
        let message =
            tokio::time::timeout(SOON, self.told.message()).await.expect("it says something, heartbeats at least");
        message.expect("no error").expect("not the end").kind.expect("a kind")
    }

    /// So many events, as they come.
    async fn all(&mut self, at_least: usize) -> Vec<Got> {
        let mut got = Vec::new();
        while got.len() < at_least {
            if let Told::Event(consumed) = self.hear().await {
                let event = consumed.event.expect("an event");
                got.push(Got { sequence: event.sequence, member: event.member_id, attempt: consumed.attempt });
            }
        }
        got
    }

    fn ack(&self, sequence: u64) {
        let ack = v1::Ack { sequences: vec![sequence] };
        self.says.send(v1::ConsumeRequest { kind: Some(Say::Ack(ack)) }).expect("it is open");
    }
}

async fn the_consumer(api: &Api) -> v1::Consumer {
    let answer = api.events().list_consumers(v1::ListConsumersRequest {}).await.expect("it may ask");
    answer.into_inner().consumers.pop().expect("there is one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_what_is_not_acknowledged_comes_again() {
    let mut world = World::start(Server::setup()).await;
    let phones: Vec<String> = (0..MEMBERS).map(|n| format!("4072200{n:04}")).collect();
    for phone in &phones {
        world.api.new_member(phone, &[CAMPAIGN]).await;
    }
    let (mut a, mut b) = (Client::connect(&world.api).await, Client::connect(&world.api).await);
    let mut done: BTreeSet<u64> = BTreeSet::new();
    let mut order: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for round in 0..EACH {
        for phone in &phones {
            let one = consumption(&format!("{phone}-{round}"), phone, &[("article", 1)]);
            world.api.record(one).await.expect("accepted");
        }
    }
    // Each member's first comes, to one of the two; the second only after it.
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    while of_a.len() + of_b.len() < MEMBERS {
        tokio::select! {
            got = a.all(1) => of_a.extend(got),
            got = b.all(1) => of_b.extend(got),
        }
    }
    let came: BTreeSet<&str> = of_a.iter().chain(&of_b).map(|got| got.member.as_str()).collect();
    assert_eq!(came.len(), MEMBERS, "one of each member, to one of the two: {of_a:?} {of_b:?}");
    assert!(!of_a.is_empty() && !of_b.is_empty());
    // B has done half of its, and is killed; A has everything else.
    let half = of_b.len() / 2;
    for got in &of_b[..half] {
        b.ack(got.sequence);
        done.insert(got.sequence);
        order.entry(got.member.clone()).or_default().push(got.sequence);
    }
    // The acknowledged ones' successors say that the acks have arrived.
    let next_of_b = b.all(half).await;
    drop(b);
    let lost: BTreeSet<u64> = of_b[half..].iter().chain(&next_of_b).map(|got| got.sequence).collect();
    let again = a.all(lost.len()).await;
    assert_eq!(again.iter().map(|got| got.sequence).collect::<BTreeSet<_>>(), lost, "exactly what B had not done");
    assert!(again.iter().all(|got| got.attempt == 2), "{again:?}");
    // A does its own, and half of what was B's. What it leaves has been sent before and so has a row: it does
    // not keep the cursor before what is done, which a crash would repeat then.
    let (of_b_now, later) = again.split_at(again.len() / 2);
    let now: Vec<&Got> = of_a.iter().chain(of_b_now).collect();
    for got in &now {
        a.ack(got.sequence);
        done.insert(got.sequence);
        order.entry(got.member.clone()).or_default().push(got.sequence);
    }
    let successors = a.all(now.len()).await;
    let unacked: BTreeSet<u64> = later.iter().chain(&successors).map(|got| got.sequence).collect();

    // The server dies, once it has written down what was done.
    let shop = the_consumer(&world.api).await.subscription_id;
    for sequence in done.iter().copied() {
        until(&format!("{sequence} is written down"), SOON, async || {
            let request = v1::GetDeliveryRequest { subscription_id: shop.clone(), sequence };
            let answer = world.api.deliveries().get_delivery(request).await.expect("it may ask");
            let delivery = answer.into_inner().delivery.expect("a delivery");
            if delivery.state() == v1::DeliveryState::Delivered { Ok(()) } else { Err(delivery) }
        })
        .await;
    }
    drop(a);
    world.server.kill();
    world.server.restart().await;
    let mut c = Client::connect(&world.api).await;
    let first = c.all(unacked.len()).await;
    let came: BTreeSet<u64> = first.iter().map(|got| got.sequence).collect();
    assert_eq!(came, unacked, "exactly what was not acknowledged");
    let mut queue: Vec<Got> = first;
    let total = MEMBERS * EACH;
    while let Some(got) = queue.pop() {
        assert!(done.insert(got.sequence), "{} was done", got.sequence);
        order.entry(got.member.clone()).or_default().push(got.sequence);
        c.ack(got.sequence);
        if queue.is_empty() && done.len() < total {
            queue = c.all(1).await;
        }
    }
    assert_eq!(done.len(), total);
    assert!(order.values().all(|its| its.is_sorted() && its.len() == EACH), "{order:?}");
    until("nothing is pending", SOON, async || {
        let consumer = the_consumer(&world.api).await;
        let last = done.last().copied().unwrap_or(0);
        if consumer.cursor >= last && consumer.parked == 0 { Ok(()) } else { Err(consumer) }
    })
    .await;
}
