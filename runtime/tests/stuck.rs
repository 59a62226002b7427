//! Loops that are held up: each is named while it is, and not a moment longer.

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punchline_delivery::courier::{AttemptFuture, AttemptRequest, Courier};
use punchline_delivery::scripted::ScriptedCourier;
use punchline_runtime::dispatch::dispatcher::Couriers;
use punchline_runtime::node::{Node, NodeOptions, Recovery, Stores};
use punchline_storage::block::{Block, BlockHash, EncodedBlock};
use punchline_storage::journal::{Journal, JournalError};
use punchline_storage::layout::Table;
use punchline_storage::memory::{MemoryDisk, MemoryJournal, MemoryRows};
use punchline_storage::rows::{Row, RowChange, Rows, RowsError};
use support::*;

/// Far above what any step takes here, far below what a test waits.
const STUCK_AFTER: Duration = Duration::from_millis(200);

/// Holds whoever passes, once it was closed and until it is opened.
#[derive(Default)]
struct Barrier(Mutex<Option<Receiver<()>>>);

impl Barrier {
    fn close(&self) -> Sender<()> {
        let (open, closed) = channel();
        *self.0.lock().expect("held") = Some(closed);
        open
    }

    fn pass(&self) {
        if let Some(closed) = self.0.lock().expect("held").take() {
            // Opening it is dropping the sender.
            _ = closed.recv();
        }
    }
}

/// Where each of the loops can be held up.
#[derive(Clone, Default)]
struct Barriers {
    journal: Arc<Barrier>,
    rows: Arc<Barrier>,
    courier: Arc<Barrier>,
}

struct SlowJournal(MemoryJournal, Arc<Barrier>);

impl Journal for SlowJournal {
    fn append(&self, expected_next: u64, blocks: &[EncodedBlock]) -> Result<(), JournalError> {
        self.1.pass();
        self.0.append(expected_next, blocks)
    }

    fn read(&self, sequence: u64) -> Result<Option<Block>, JournalError> {
        self.0.read(sequence)
    }

    fn head(&self) -> u64 {
        self.0.head()
    }

    fn head_hash(&self) -> BlockHash {
        self.0.head_hash()
    }

    fn first(&self) -> u64 {
        self.0.first()
    }

    fn reopen(&self) -> Result<u64, JournalError> {
        self.0.reopen()
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn trim(&self, before: u64) -> Result<(), JournalError> {
        self.0.trim(before)
    }
}

struct SlowRows(MemoryRows, Arc<Barrier>);

impl Rows for SlowRows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        self.0.get(table, key)
    }

    fn write(&self, table: Table, rows: &[RowChange]) -> Result<(), RowsError> {
        self.1.pass();
        self.0.write(table, rows)
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, RowsError> {
        self.0.scan(table, from, limit)
    }

    fn sync(&self) -> Result<(), RowsError> {
        self.0.sync()
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
}

struct SlowCourier(Arc<Barrier>);

impl Courier for SlowCourier {
    fn attempt(&self, request: AttemptRequest) -> AttemptFuture<'_> {
        Box::pin(async move {
            self.0.pass();
            ScriptedCourier::new().attempt(request).await
        })
    }
}

fn start(barriers: &Barriers) -> Node {
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(0).expect("opens");
    let stores = Stores {
        journal: Arc::new(SlowJournal(journal, barriers.journal.clone())),
        rows: Arc::new(SlowRows(disk.rows(), barriers.rows.clone())),
        keys: Arc::new(disk.member_keys()),
        free_bytes: Box::new(|| None),
    };
    let courier: Arc<dyn Courier> = Arc::new(SlowCourier(barriers.courier.clone()));
    let couriers = Couriers { http: courier.clone(), segment: courier };
    let options = NodeOptions { couriers, ..options(&Arc::new(ScriptedCourier::new())) };
    Node::start(stores, Recovery::default(), options, None).expect("the node starts")
}

async fn names(node: &Node, what: &str, expected: &[&str]) {
    until(what, || (node.stuck(STUCK_AFTER) == expected).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_loop_that_is_held_up_is_named_until_it_goes_on() {
    let barriers = Barriers::default();
    let node = start(&barriers);
    set_up(&node).await;
    accepted(&node, register(1)).await;
    accepted(&node, subscribe(&node, 9, HOOK, &["points.*"], &[])).await;
    tokio::time::sleep(2 * STUCK_AFTER).await;
    assert_eq!(node.stuck(STUCK_AFTER), [""; 0], "who has nothing to do is not stuck");

    // A read that does not come back.
    let (open, closed) = channel::<()>();
    let read = {
        let submitter = node.submitter().clone();
        tokio::spawn(async move { submitter.read(move |_| _ = closed.recv()).await })
    };
    names(&node, "the read holds the sequencer", &["sequencer"]).await;
    assert!(node.dispatcher().stuck(STUCK_AFTER).is_empty());
    drop(open);
    read.await.expect("ends").expect("is served");
    names(&node, "the sequencer goes on", &[]).await;

    // A disk that does not answer, once for the journal and once for the views.
    let open = barriers.journal.close();
    let consume_1 = tokio::spawn({
        let submitter = node.submitter().clone();
        let command = punchline_engine::command::Command {
            tenant: TENANT,
            request_id: None,
            action: consume("c1", 1, "coffee", 1),
        };
        async move { submitter.submit(command).await }
    });
    names(&node, "the journal holds the committer, and nobody else", &["committer"]).await;
    drop(open);
    consume_1.await.expect("ends").expect("is accepted");
    names(&node, "the committer goes on", &[]).await;

    let open = barriers.rows.close();
    accepted(&node, consume("c2", 1, "coffee", 1)).await;
    names(&node, "the views hold the write-behind", &["write-behind"]).await;
    drop(open);
    names(&node, "the write-behind goes on", &[]).await;

    // A courier that blocks the thread that it runs on.
    let open = barriers.courier.close();
    accepted(&node, consume("c3", 1, "coffee", 1)).await;
    names(&node, "the courier holds a worker", &["dispatcher"]).await;
    assert_eq!(node.dispatcher().stuck(STUCK_AFTER), [subscription_id(9)]);
    drop(open);
    names(&node, "the worker goes on", &[]).await;
    node.close().await;
}
