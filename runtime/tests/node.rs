//! A whole node over memory: from command to webhook, through crashes and power cuts.

mod support;

use std::sync::Arc;
use std::time::Duration;

use punchline_delivery::scripted::{ScriptedCourier, Step};
use punchline_engine::command::{Action, Actor, Command};
use punchline_engine::dispatch::RowState;
use punchline_engine::id::Sequence;
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use punchline_runtime::actor::asked_by;
use punchline_runtime::clock::TokioClock;
use punchline_runtime::committer::{Refusal, Unavailable};
use punchline_runtime::node::{Node, NodeOptions};
use punchline_runtime::sequencer::fold;
use punchline_runtime::verify::verify;
use punchline_storage::journal::Journal;
use punchline_storage::memory::{AppendFault, Faults, MemoryDisk};
use punchline_storage::rows::Rows;
use punchline_storage::views::{Views, write_behind};
use support::*;

#[tokio::test]
async fn a_consumption_becomes_a_balance_and_a_webhook() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    accepted(&node, subscribe(&node, 9, HOOK, &["points.*", "punchcard.completed"], &[])).await;
    let sequence = accepted(&node, consume("c1", 1, "coffee", 12)).await;
    assert_eq!(balances(&node, 1).await, (120, 0, 2, 1));
    let received = until("two webhooks", || (courier.received_count() == 2).then(|| courier.received())).await;
    let body: String = String::from_utf8(received[0].body.to_vec()).unwrap();
    assert!(body.contains(r#""type":"points.credited""#) && body.contains(r#""new_balance":120"#), "{body}");
    assert!(body.contains(&format!(r#""cause_sequence":{sequence}"#)), "{body}");
    assert!(received[1].body.starts_with(br#"{"type":"punchcard.completed""#));
    node.close().await;
}

#[tokio::test]
async fn who_asked_is_in_the_journal() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    let actor = |method: &str| Actor { credential: Some("pk-1".parse().expect("an id")), method: method.into() };
    let at = asked_by(actor("Register"), accepted(&node, register(1))).await;
    // Nobody in particular, and nothing that changes anything.
    accepted(&node, register(2)).await;
    let block = |member_id, reason: &str| Action::BlockMember { member_id, reason: reason.into() };
    assert!(asked_by(actor("Block"), submit(&node, block(member_id(99), "x"))).await.is_err());
    let many = [1, 2].map(|n| Command { tenant: TENANT, request_id: None, action: block(member_id(n), "x") });
    let blocked = asked_by(actor("Block"), node.submitter().submit_all(many.into(), false)).await.expect("taken");
    assert!(blocked.iter().all(Result::is_ok));
    let asked = |node: &Node| {
        let (mut found, mut next) = (Vec::new(), Sequence(1));
        loop {
            let (asked, after) = node.feed().read_asked(next).expect("readable");
            found.extend(asked.into_iter().map(|(actor, stored)| (stored.first, actor)));
            if after == next {
                return found;
            }
            next = after;
        }
    };
    let expected = asked(&node);
    let methods: Vec<&str> = expected.iter().map(|(_, actor)| actor.method.as_str()).collect();
    assert_eq!((methods, expected[0].0), (vec!["Register", "Block", "Block"], at));
    assert_eq!(expected[0].1, actor("Register"));
    assert_eq!(asked(&start(&disk.after_kill(), &courier)), expected);
    node.close().await;
}

#[tokio::test]
async fn a_repeat_is_refused_with_the_first_receipt() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    let first = accepted(&node, consume("c1", 1, "coffee", 2)).await;
    for node in [node, start(&disk.after_kill(), &courier)] {
        match submit(&node, consume("c1", 1, "coffee", 2)).await {
            Err(Refusal::Rejected(Rejection::ConsumptionExists { first: receipt })) => {
                assert_eq!((receipt.sequence, receipt.points.0), (first, 20));
            }
            other => panic!("{other:?}"),
        }
        match submit(&node, consume("c1", 1, "coffee", 3)).await {
            Err(Refusal::Rejected(Rejection::ConsumptionExistsWithDifferentContent { field, .. })) => {
                assert_eq!(field, "consumptionLines");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(balances(&node, 1).await, (20, 0, 2, 0));
        node.close().await;
    }
}

/// Runs the script until a sync fails; gives the ids that were acknowledged.
async fn run_script(disk: &MemoryDisk, courier: &Arc<ScriptedCourier>) -> Vec<u32> {
    let Ok(node) = try_start(disk, courier) else { return Vec::new() };
    let mut acknowledged = Vec::new();
    let setup = [
        Action::CreateAdvertiser { advertiser_id: Some(TENANT.advertiser), name: "Acme".into() },
        Action::CreateCampaign { campaign: campaign() },
        register(1),
        register(2),
        subscribe(&node, 9, HOOK, &["points.*"], &[1, 1, 1, 1, 1]),
    ];
    for action in setup {
        if submit(&node, action).await.is_err() {
            return acknowledged;
        }
    }
    for n in 0..30 {
        let member = u128::from(n % 2 + 1);
        match submit(&node, consume(&format!("c{n}"), member, "coffee", 1)).await {
            Ok(_) => acknowledged.push(n),
            Err(Refusal::Unavailable(Unavailable::Stopped { .. })) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    node.close().await;
    acknowledged
}

#[tokio::test]
async fn a_power_cut_at_any_sync_loses_nothing_acknowledged() {
    let courier = Arc::new(ScriptedCourier::new());
    let whole = MemoryDisk::new();
    assert_eq!(run_script(&whole, &courier).await.len(), 30);
    let syncs = whole.sync_count();
    assert!(syncs > 30, "the script syncs at each consumption, {syncs} syncs");
    for cut in 1..=syncs {
        let disk = MemoryDisk::with_faults(Faults { power_cut_at_sync: Some(cut), ..Faults::default() });
        let acknowledged = run_script(&disk, &courier).await;
        for seed in 0..3 {
            let after = disk.after_power_cut(seed);
            let courier = Arc::new(ScriptedCourier::new());
            let node = try_start(&after, &courier).unwrap_or_else(|e| panic!("cut at {cut}, seed {seed}: {e}"));
            for n in &acknowledged {
                let again = submit(&node, consume(&format!("c{n}"), u128::from(n % 2 + 1), "coffee", 1)).await;
                let exists = matches!(again, Err(Refusal::Rejected(Rejection::ConsumptionExists { .. })));
                assert!(exists, "cut at {cut}, seed {seed}: c{n} was acknowledged, but: {again:?}");
            }
            node.close().await;
            let (journal, _) = after.journal(0).unwrap();
            let (rows, fresh): (Arc<dyn Rows>, Arc<dyn Rows>) =
                (Arc::new(after.rows()), Arc::new(MemoryDisk::new().rows()));
            let keys = Arc::new(after.member_keys());
            let verified = verify(&journal, &rows, &keys, &fresh, &mut |_, _| {}).unwrap();
            assert_eq!(verified.difference, None, "cut at {cut}, seed {seed}");
            assert!(acknowledged.is_empty() || verified.rows > 0, "there was something to compare");
        }
    }
}

#[tokio::test]
async fn the_journals_time_never_goes_back() {
    let (mut disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let day = 86_400_000;
    let mut times = Vec::new();
    for (n, clock) in [3 * day, day, 2 * day, 4 * day].into_iter().enumerate() {
        let clock = Arc::new(TokioClock::starting_at(UnixMillis(1_790_000_000_000 + clock)));
        let node = start_with(&disk, NodeOptions { clock, ..options(&courier) }).unwrap();
        if n == 0 {
            set_up(&node).await;
        }
        let at = accepted(&node, register(n as u128)).await;
        times.push(node.feed().record_at(at).unwrap().unwrap().record.time);
        node.close().await;
        disk = disk.after_kill();
    }
    assert!(times.is_sorted() && times[0] == times[2] && times[2] < times[3], "{times:?}");
}

#[tokio::test]
async fn more_commands_than_the_queue_holds_take_all_of_it() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start_with(&disk, NodeOptions { queue_max: 4, ..options(&courier) }).unwrap();
    set_up(&node).await;
    for (patient, members) in [(true, 1..=10), (false, 11..=20)] {
        let command = |n| Command { tenant: TENANT, request_id: None, action: register(n) };
        let commands: Vec<Command> = members.map(command).collect();
        let all = async {
            loop {
                // A place is given back just after the answer that it was held for.
                match node.submitter().submit_all(commands.clone(), patient).await {
                    Err(Unavailable::QueueFull) if !patient => tokio::task::yield_now().await,
                    answered => return answered.unwrap(),
                }
            }
        };
        let answers = tokio::time::timeout(Duration::from_secs(5), all).await.expect("there is a place some time");
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10, "patient: {patient}");
    }
    node.close().await;
}

/// The journal of a node that took in some members and consumptions.
async fn some_journal() -> MemoryDisk {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    for n in 1..=40 {
        accepted(&node, register(n)).await;
        accepted(&node, consume(&format!("c{n}"), n.min(n % 7 + 1), "coffee", 1)).await;
    }
    node.close().await;
    disk
}

#[tokio::test]
async fn folding_a_long_journal_writes_the_views_on_the_way() {
    const ROWS_MAX: usize = 10;
    let disk = some_journal().await;
    let ((journal, _), keys) = (disk.journal(0).unwrap(), Arc::new(disk.member_keys()));
    let fresh = MemoryDisk::new();
    let rows: Arc<dyn Rows> = Arc::new(fresh.rows());
    let (views, applied) = fold(&journal, rows.clone(), &keys, 5, ROWS_MAX).unwrap();
    assert_eq!((applied, views.applied().0), (journal.head(), journal.head()));
    assert!(views.waiting_rows() < ROWS_MAX, "{} rows wait", views.waiting_rows());
    assert!(views.checkpoint().0 > journal.head() / 2, "a restart goes on from {}", views.checkpoint());
    for cut in 1..fresh.sync_count() {
        let fresh = MemoryDisk::with_faults(Faults { power_cut_at_sync: Some(cut), ..Faults::default() });
        assert!(fold(&journal, Arc::new(fresh.rows()), &keys, 5, ROWS_MAX).is_err(), "cut at {cut}");
        let rows: Arc<dyn Rows> = Arc::new(fresh.after_power_cut(cut).rows());
        let (mut views, _) = fold(&journal, rows.clone(), &keys, 5, ROWS_MAX).unwrap();
        views.freeze().inspect(|overlay| write_behind(&*rows, &keys, overlay, || {}).unwrap());
        let other: Arc<dyn Rows> = Arc::new(MemoryDisk::new().rows());
        let verified = verify(&journal, &rows, &keys, &other, &mut |_, _| {}).unwrap();
        assert_eq!(verified.difference, None, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_passes() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    accepted(&node, consume("c1", 1, "coffee", 1)).await;
    disk.set_full(true);
    for n in 2..5 {
        match submit(&node, consume(&format!("c{n}"), 1, "coffee", 1)).await {
            Err(Refusal::Unavailable(Unavailable::DiskFull { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(balances(&node, 1).await, (10, 0, 1, 0), "reads go on, and show nothing that was refused");
    disk.set_full(false);
    until("the journal opens again", || node.stopped().is_none().then_some(())).await;
    accepted(&node, consume("c2", 1, "coffee", 1)).await;
    assert_eq!(balances(&node, 1).await, (20, 0, 2, 0));
    assert_eq!(node.verify().unwrap().difference, None);
    node.close().await;
}

#[tokio::test]
async fn a_failed_write_stops_the_node_and_loses_nothing() {
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    accepted(&node, consume("c1", 1, "coffee", 1)).await;
    let next = disk.append_count() + 1;
    disk.set_faults(Faults { appends: [(next, AppendFault::Io)].into(), ..Faults::default() });
    for n in 2..5 {
        match submit(&node, consume(&format!("c{n}"), 1, "coffee", 1)).await {
            Err(Refusal::Unavailable(Unavailable::Stopped { what })) => assert!(what.contains("journal"), "{what}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(balances(&node, 1).await, (10, 0, 1, 0));
    node.close().await;
    let node = start(&disk.after_kill(), &courier);
    assert_eq!(balances(&node, 1).await, (10, 0, 1, 0));
    accepted(&node, consume("c2", 1, "coffee", 1)).await;
    node.close().await;
}

#[tokio::test]
async fn ten_attempts_then_a_dead_letter_then_a_redrive() {
    let time = StillTime::hold();
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    let schedule = punchline_engine::dispatch::RetrySchedule::default();
    accepted(&node, subscribe(&node, 9, HOOK, &["points.*"], &schedule.delays_ms)).await;
    courier.always(HOOK, Step::Status(500));
    let first = accepted(&node, consume("c1", 1, "coffee", 1)).await;
    accepted(&node, consume("c2", 1, "coffee", 1)).await;
    let stats = node.dispatcher().stats(subscription_id(9)).unwrap();
    let dead = || stats.dead.load(std::sync::atomic::Ordering::Relaxed);
    let (step, most) = (Duration::from_secs(1_800), Duration::from_secs(200 * 3_600));
    time.pass_until("both die", step, most, || (dead() == 2).then_some(())).await;
    let reported = async || {
        let read = |views: &mut Views| views.delivery_rows(subscription_id(9), Sequence(0), 10).unwrap();
        node.submitter().read(read).await.unwrap().iter().filter(|row| row.state == RowState::Dead).count()
    };
    while reported().await < 2 {
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    let received = courier.received();
    assert_eq!(received.len(), 20, "ten attempts each");
    let order: Vec<u64> = received.iter().map(|r| r.sequence).collect();
    assert!(order[..10].iter().all(|s| *s == order[0]), "the second waits until the first is dead: {order:?}");
    let credited = Sequence(order[0]);
    assert!(credited > first);
    let id = received[0].webhook_id.clone();
    courier.always(HOOK, Step::Status(200));
    let sequences = vec![credited, Sequence(order[10])];
    assert_eq!(node.dispatcher().redrive(TENANT, subscription_id(9), sequences).await.unwrap(), 2);
    until("both arrive", || (courier.received_count() == 22).then_some(())).await;
    assert_eq!(courier.received()[20].webhook_id, id, "the same id as ever");
    node.close().await;
}

#[tokio::test]
async fn a_member_that_waits_holds_up_nobody_else() {
    let time = StillTime::hold();
    let (disk, courier) = (MemoryDisk::new(), Arc::new(ScriptedCourier::new()));
    let node = start(&disk, &courier);
    set_up(&node).await;
    for n in 1..=3 {
        accepted(&node, register(n)).await;
    }
    accepted(&node, subscribe(&node, 9, HOOK, &["points.*"], &[60_000, 60_000])).await;
    courier.next(HOOK, [Step::Status(503)]);
    accepted(&node, consume("a1", 1, "coffee", 1)).await;
    until("the first attempt", || (courier.received_count() == 1).then_some(())).await;
    for n in 2..=4 {
        accepted(&node, consume(&format!("a{n}"), 1, "coffee", 1)).await;
        accepted(&node, consume(&format!("b{n}"), 2, "coffee", 1)).await;
        accepted(&node, consume(&format!("c{n}"), 3, "coffee", 1)).await;
    }
    let received = until("the others", || (courier.received_count() >= 7).then(|| courier.received())).await;
    let of_first = |received: &[punchline_delivery::courier::AttemptRequest]| {
        let member = member_id(1).to_string();
        let mine = received.iter().filter(|r| String::from_utf8_lossy(&r.body).contains(&member));
        mine.map(|r| r.sequence).collect::<Vec<_>>()
    };
    assert_eq!(of_first(&received[..7]).len(), 1, "the others went past the one that waits");
    // Killed while some are held: they are owed all the same.
    let disk = disk.after_kill();
    node.close().await;
    let node = start(&disk, &courier);
    let (step, most) = (Duration::from_secs(10), Duration::from_secs(600));
    time.pass_until("all arrive", step, most, || {
        let mut arrived: Vec<u64> = courier.received().iter().skip(1).map(|r| r.sequence).collect();
        arrived.sort_unstable();
        arrived.dedup();
        (arrived.len() >= 10).then_some(())
    })
    .await;
    let order = of_first(&courier.received());
    assert!(order.is_sorted(), "one member's events arrive in order: {order:?}");
    node.close().await;
}
