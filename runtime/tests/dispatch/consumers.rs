//! Named consumers: verdicts, stickiness, connections that die, and a client that does anything at random
//! against an auditor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;
use punchline_engine::dispatch::{RetrySchedule, RowState, Subscription};
use punchline_engine::id::Sequence;
use punchline_runtime::dispatch::consumer::{Connection, Pushed, Verdict};

use crate::support::member_id;
use crate::support::scene::{SUBSCRIPTION, Scene, in_a_runtime};

const ACK_TIMEOUT: Duration = Duration::from_secs(30);

fn consumer(subscription: &mut Subscription) {
    subscription.url = String::new();
    subscription.consumer = "shop".into();
    subscription.timeout_ms = ACK_TIMEOUT.as_millis() as u64;
    subscription.schedule = RetrySchedule { delays_ms: vec![0; 4] };
}

async fn connect(scene: &Scene, places: usize) -> Connection {
    let connected = || scene.node().dispatcher().connect(SUBSCRIPTION, places);
    scene.until("the consumer's worker is there", connected).await
}

async fn next(scene: &Scene, connection: &mut Connection) -> (u64, u128, u32) {
    let got = scene.until("an event comes", || connection.next().now_or_never()).await;
    read(&got)
}

fn read(pushed: &Pushed) -> (u64, u128, u32) {
    let recorded = pushed.event.get();
    (recorded.sequence.0, recorded.member.expect("about a member").0.as_u128(), pushed.attempt)
}

/// All that comes within so much time.
async fn all(scene: &Scene, connection: &mut Connection, within: Duration) -> Vec<(u64, u128, u32)> {
    let mut got = Vec::new();
    for _ in 0..5 {
        scene.pass(within / 5).await;
        while let Some(pushed) = connection.next().now_or_never() {
            got.push(read(&pushed));
        }
    }
    got
}

fn retry(after_ms: u64) -> Verdict {
    Verdict::Retry { after_ms, reason: "not yet".into() }
}

#[tokio::test]
async fn what_a_client_says_is_done() {
    let mut scene = Scene::start(2, consumer).await;
    let mut connection = connect(&scene, 8).await;
    for (id, member) in [("a", 1), ("b", 1), ("c", 1), ("d", 2)] {
        scene.consume(id, member).await;
    }
    let owed = scene.credited();
    let (a, b, c, d) = (owed[0], owed[1], owed[2], owed[3]);
    let first: BTreeSet<_> = [next(&scene, &mut connection).await, next(&scene, &mut connection).await].into();
    assert_eq!(first, [(a, 1, 1), (d, 2, 1)].into(), "a member's second comes after its first");
    connection.settle(Sequence(d), Verdict::Done);

    // RETRY: not before its time, and what is behind waits.
    connection.settle(Sequence(a), retry(60_000));
    assert_eq!(all(&scene, &mut connection, Duration::from_secs(59)).await, []);
    assert_eq!(next(&scene, &mut connection).await, (a, 1, 2));
    connection.settle(Sequence(a), Verdict::Done);

    // PARK: a dead letter, and what is behind goes on.
    assert_eq!(next(&scene, &mut connection).await, (b, 1, 1));
    connection.settle(Sequence(b), Verdict::Park { reason: "poison".into() });
    assert_eq!(next(&scene, &mut connection).await, (c, 1, 1));
    connection.settle(Sequence(c), Verdict::Done);
    scene.reported().await;
    let states = scene.states().await;
    // What waited or was held behind another has a row, which says how it ended.
    assert_eq!(states, [(a, RowState::Delivered), (b, RowState::Dead), (c, RowState::Delivered)]);

    // The cursor is in the journal: after a restart only what is new comes.
    scene.kill().await;
    let mut connection = connect(&scene, 8).await;
    assert_eq!(all(&scene, &mut connection, Duration::from_secs(60)).await, []);
    scene.consume("e", 2).await;
    let e = scene.credited()[4];
    assert_eq!(next(&scene, &mut connection).await, (e, 2, 1));

    // STOP: it is another connection's, at once, and was not looked at.
    connection.stop();
    connection.settle(Sequence(e), Verdict::Untouched);
    assert_eq!(all(&scene, &mut connection, Duration::from_secs(60)).await, []);
    let mut other = connect(&scene, 8).await;
    assert_eq!(next(&scene, &mut other).await, (e, 2, 1));
    other.settle(Sequence(e), Verdict::Done);
    scene.reported().await;
    scene.close().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_comes_again_and_is_parked_in_the_end() {
    let mut scene = Scene::start(1, consumer).await;
    let mut connection = connect(&scene, 8).await;
    scene.load("c", 2, 1).await;
    let owed = scene.credited();
    for attempt in 1..=5 {
        assert_eq!(next(&scene, &mut connection).await, (owed[0], 1, attempt));
        let early = all(&scene, &mut connection, ACK_TIMEOUT - Duration::from_secs(1)).await;
        assert_eq!(early, [], "not before the time-out");
    }
    assert_eq!(next(&scene, &mut connection).await, (owed[1], 1, 1), "then it is parked");
    connection.settle(Sequence(owed[1]), Verdict::Done);
    scene.reported().await;
    assert_eq!(scene.states().await, [(owed[0], RowState::Dead), (owed[1], RowState::Delivered)]);
    scene.close().await;
}

#[tokio::test]
async fn members_stick_to_a_connection_and_go_over_to_another_when_it_dies() {
    const MEMBERS: u128 = 30;
    let mut scene = Scene::start(MEMBERS, consumer).await;
    let (mut a, mut b) = (connect(&scene, 64).await, connect(&scene, 64).await);
    let mut home: BTreeMap<u128, &str> = BTreeMap::new();
    for round in 0..3 {
        scene.load(&format!("r{round}-"), MEMBERS as usize, MEMBERS).await;
        for (name, connection) in [("a", &mut a), ("b", &mut b)] {
            for (sequence, member, _) in all(&scene, connection, Duration::from_secs(1)).await {
                assert_eq!(*home.entry(member).or_insert(name), name, "member {member} stays where it is");
                connection.settle(Sequence(sequence), Verdict::Done);
            }
        }
    }
    let of_a = home.values().filter(|name| **name == "a").count();
    assert!(home.len() == MEMBERS as usize && (5..26).contains(&of_a), "{home:?}");

    // A dies with everything unacknowledged; B gets that, in order, beside its own.
    scene.load("last", 2 * MEMBERS as usize, MEMBERS).await;
    assert_eq!(all(&scene, &mut a, Duration::from_secs(1)).await.len(), of_a);
    drop(a);
    let mut got: BTreeMap<u128, Vec<u64>> = BTreeMap::new();
    for _ in 0..4 {
        for (sequence, member, attempt) in all(&scene, &mut b, Duration::from_secs(1)).await {
            let is_second = home[&member] == "a" && !got.contains_key(&member);
            assert_eq!(attempt, if is_second { 2 } else { 1 }, "{sequence} of {member}");
            got.entry(member).or_default().push(sequence);
            b.settle(Sequence(sequence), Verdict::Done);
        }
    }
    assert!(got.len() == MEMBERS as usize && got.values().all(|its| its.len() == 2 && its.is_sorted()), "{got:?}");
    scene.reported().await;
    scene.close().await;
}

/// A client that takes its events and says nothing more does not hold up the members of another.
#[tokio::test]
async fn a_connection_that_is_stuck_holds_up_only_its_own_members() {
    const MEMBERS: u128 = 40;
    let mut scene = Scene::start(MEMBERS, consumer).await;
    let (mut stuck, mut quick) = (connect(&scene, 4).await, connect(&scene, 4).await);
    scene.load("c", 5 * MEMBERS as usize, MEMBERS).await;
    let of_stuck = all(&scene, &mut stuck, Duration::from_secs(1)).await.len();
    assert_eq!(of_stuck, 4, "as many as it asked for");
    let mut got: BTreeMap<u128, usize> = BTreeMap::new();
    for _ in 0..200 {
        scene.pass(Duration::from_millis(10)).await;
        while let Some(pushed) = quick.next().now_or_never() {
            let (sequence, member, _) = read(&pushed);
            *got.entry(member).or_default() += 1;
            quick.settle(Sequence(sequence), Verdict::Done);
        }
    }
    assert!(got.len() > 5 && got.values().all(|count| *count == 5), "{got:?}, well before the other's time-out");
    scene.close().await;
}

#[derive(Debug, Clone)]
enum Step {
    Consume(u128),
    Connect(usize),
    Drop(usize),
    /// Which connection, which of those it has, and what it says.
    Settle(usize, usize, u8),
    Pass(u64),
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..5u128).prop_map(Step::Consume),
        2 => (1..4usize).prop_map(Step::Connect),
        1 => any::<usize>().prop_map(Step::Drop),
        8 => (any::<usize>(), any::<usize>(), 0..8u8).prop_map(|(c, e, v)| Step::Settle(c, e, v)),
        3 => (1..20_000u64).prop_map(Step::Pass),
        1 => Just(Step::Kill),
    ]
}

/// What must be true whatever clients do.
struct Auditor {
    scene: Scene,
    connections: Vec<(Connection, usize, BTreeSet<u64>)>,
    member_of: BTreeMap<u64, u128>,
    /// Acknowledged or parked, in the journal or on the way there.
    settled: BTreeSet<u64>,
    /// Acknowledged before a kill, and perhaps not in time: they come again, or are written down after all.
    open: BTreeSet<u64>,
    consumed: usize,
}

impl Auditor {
    fn listen(&mut self) {
        for at in 0..self.connections.len() {
            while let Some(pushed) = self.connections[at].0.next().now_or_never() {
                let (sequence, member, _) = read(&pushed);
                assert!(!self.settled.contains(&sequence), "{sequence} is settled, and comes again");
                self.open.remove(&sequence);
                let earlier = self.member_of.range(..sequence).filter(|(_, of)| **of == member);
                for (earlier, _) in earlier {
                    let is_over = self.settled.contains(earlier) || self.open.contains(earlier);
                    assert!(is_over, "{sequence} of member {member} overtakes {earlier}");
                }
                let is_elsewhere = self.connections.iter().any(|(_, _, has)| has.contains(&sequence));
                assert!(!is_elsewhere, "{sequence} is under way already");
                let (_, places, has) = &mut self.connections[at];
                has.insert(sequence);
                assert!(has.len() <= *places, "{} under way in {places} places", has.len());
            }
        }
    }

    async fn pass(&mut self, time: Duration) {
        self.scene.pass(time).await;
        self.listen();
    }

    async fn act(&mut self, step: Step) {
        match step {
            Step::Consume(member) => {
                self.consumed += 1;
                self.scene.consume(&format!("c{}", self.consumed), member).await;
                let sequence = *self.scene.credited().last().expect("one at least");
                self.member_of.insert(sequence, member);
            }
            Step::Connect(places) if self.connections.len() < 4 => {
                let connection = connect(&self.scene, places).await;
                self.connections.push((connection, places, BTreeSet::new()));
            }
            Step::Drop(which) if !self.connections.is_empty() => {
                self.listen();
                drop(self.connections.swap_remove(which % self.connections.len()));
            }
            Step::Settle(which, event, verdict) if !self.connections.is_empty() => {
                let which = which % self.connections.len();
                let (connection, _, has) = &mut self.connections[which];
                let Some(sequence) = has.iter().nth(event % has.len().max(1)).copied() else { return };
                has.remove(&sequence);
                match verdict {
                    0 => connection.settle(Sequence(sequence), retry(5_000)),
                    1 => {
                        connection.settle(Sequence(sequence), Verdict::Park { reason: "put aside".into() });
                        self.settled.insert(sequence);
                    }
                    2 => connection.settle(Sequence(sequence), Verdict::Untouched),
                    _ => {
                        connection.settle(Sequence(sequence), Verdict::Done);
                        self.settled.insert(sequence);
                    }
                }
            }
            Step::Pass(ms) => self.pass(Duration::from_millis(ms)).await,
            Step::Kill => {
                // What was settled is written down first, so that none of it may come again.
                self.pass(Duration::from_secs(1)).await;
                let unwritten = self.unwritten(self.settled.clone()).await;
                self.settled.retain(|sequence| !unwritten.contains(sequence));
                self.open.extend(unwritten);
                self.connections.clear();
                self.scene.kill().await;
            }
            Step::Connect(_) | Step::Drop(_) | Step::Settle(..) => {}
        }
        self.pass(Duration::from_millis(20)).await;
    }

    /// Those of which the journal does not know that they are settled. Beyond the cursor, what was delivered at
    /// once is not written down.
    async fn unwritten(&self, settled: BTreeSet<u64>) -> BTreeSet<u64> {
        let cursor = self.scene.delivery_state().await.cursor.0;
        let rows: BTreeMap<u64, RowState> = self.scene.states().await.into_iter().collect();
        let is_known = |sequence: &u64| match rows.get(sequence) {
            Some(RowState::Delivered | RowState::Dead) => true,
            Some(_) => false,
            None => *sequence <= cursor,
        };
        settled.into_iter().filter(|sequence| !is_known(sequence)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_clients_do_nothing_is_lost_and_order_is_kept(steps in prop::collection::vec(step(), 1..60)) {
        in_a_runtime(async {
            let scene = Scene::start(4, |subscription| {
                consumer(subscription);
                // None is parked but by its client, and time-outs have a test of their own.
                subscription.timeout_ms = 3_600_000;
                subscription.schedule = RetrySchedule { delays_ms: vec![0; 49] };
            })
            .await;
            assert_eq!(member_id(1).0.as_u128(), 1);
            let mut auditor = Auditor {
                scene,
                connections: Vec::new(),
                member_of: BTreeMap::new(),
                settled: BTreeSet::new(),
                open: BTreeSet::new(),
                consumed: 0,
            };
            for step in steps {
                auditor.act(step).await;
            }
            // Two clients that do their work get all that is left: with a place each, so that members wait for it.
            auditor.connections.clear();
            for _ in 0..2 {
                let connection = connect(&auditor.scene, 1).await;
                auditor.connections.push((connection, 1, BTreeSet::new()));
            }
            for _ in 0..400 {
                if auditor.settled.len() + auditor.open.len() == auditor.member_of.len() {
                    break;
                }
                auditor.pass(Duration::from_millis(200)).await;
                for (connection, _, has) in &mut auditor.connections {
                    for sequence in std::mem::take(has) {
                        connection.settle(Sequence(sequence), Verdict::Done);
                        auditor.settled.insert(sequence);
                    }
                }
            }
            let over = auditor.settled.len() + auditor.open.len();
            assert_eq!(over, auditor.member_of.len(), "all is settled in the end");
            auditor.scene.reported().await;
            let unwritten = auditor.unwritten(auditor.member_of.keys().copied().collect()).await;
            assert_eq!(unwritten, BTreeSet::new(), "and the journal says so");
            auditor.scene.close().await;
        });
    }
}
