//! Views that do not go with the journal are rebuilt from it; a journal that does not fold never is.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use punchline_delivery::scripted::ScriptedCourier;
use punchline_engine::event::{CoinsChanged, Origin, Record};
use punchline_engine::id::{KeySlot, Sequence};
use punchline_engine::quantity::Coins;
use punchline_engine::time::UnixMillis;
use punchline_runtime::ids::fill_random;
use punchline_runtime::node::{Node, OpenError};
use punchline_runtime::sequencer::FoldError;
use punchline_storage::block::BlockBuilder;
use punchline_storage::codec;
use punchline_storage::data_dir::{DataDir, DataDirOptions};
use punchline_storage::journal::Journal;
use punchline_storage::layout::Table;
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::memory::MemoryDisk;
use punchline_storage::rows::Rows;
use support::*;

const MASTER_KEY: [u8; 32] = [7; 32];

fn keys(path: &Path) -> MemberKeys {
    DataDir::open(path, DataDirOptions::default()).unwrap().member_keys(&MASTER_KEY, fill_random).unwrap()
}

fn open(path: &Path) -> Result<Node, OpenError> {
    Node::open(path.to_owned(), &MASTER_KEY, options(&Arc::new(ScriptedCourier::new())))
}

/// Runs it to its end, and that of every task it started: those have the data directory open.
fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

/// A data directory in which member 1 has 30 points, closed.
fn some_data(path: &Path) {
    run(async {
        let node = open(path).unwrap();
        set_up(&node).await;
        accepted(&node, register(1)).await;
        for n in 1..=3 {
            accepted(&node, consume(&format!("c{n}"), 1, "coffee", 1)).await;
        }
        node.close().await;
    });
}

/// What a row becomes.
type Spoil = fn(Vec<u8>, &MemberKeys) -> Option<Vec<u8>>;

/// Changes the member's row, and sets the checkpoint back to its registration.
fn spoil_member(path: &Path, spoil: Spoil) {
    let keys = keys(path);
    let rows = DataDir::open(path, DataDirOptions::default()).unwrap().open_views().unwrap().rows;
    let (key, row) = rows.scan(Table::Members, &[], 1).unwrap().remove(0);
    rows.write(Table::Members, &[(key, spoil(row, &keys))]).unwrap();
    let registered = 4_u64.to_be_bytes().to_vec();
    rows.write(Table::Meta, &[(b"checkpoint".to_vec(), Some(registered))]).unwrap();
    rows.sync().unwrap();
}

fn contradict(row: Vec<u8>, keys: &MemberKeys) -> Option<Vec<u8>> {
    let mut member = codec::decode_member(&row, keys).unwrap();
    member.as_of = Sequence(4);
    member.cards[0].points.balance = 7;
    codec::encode_member(&member, keys).ok()
}

#[test]
fn views_that_the_journal_does_not_continue_are_rebuilt() {
    let spoilt: [(&str, Spoil); 3] =
        [("does not decode", |_, _| Some(vec![0xff])), ("is missing", |_, _| None), ("contradicts", contradict)];
    for (what, spoil) in spoilt {
        let dir = tempfile::tempdir().unwrap();
        some_data(dir.path());
        spoil_member(dir.path(), spoil);
        run(async {
            let node = open(dir.path()).unwrap_or_else(|error| panic!("a row that {what}: {error}"));
            assert!(node.recovery().views_rebuilt, "{what}");
            assert!(dir.path().join("views.damaged-1").exists(), "{what}");
            assert_eq!(balances(&node, 1).await, (30, 0, 3, 0), "{what}");
            assert_eq!(node.verify().unwrap().difference, None, "{what}");
            node.close().await;
        });
        assert!(!run(async { open(dir.path()).unwrap().recovery().views_rebuilt }), "{what}: once is enough");
    }
}

#[test]
fn a_journal_that_does_not_fold_leaves_the_views_alone() {
    let coins = CoinsChanged {
        member_id: member_id(1),
        amount: Coins(1),
        previous_balance: Coins(70),
        new_balance: Coins(71),
        expires_at: None,
        hold_id: None,
        origin: Origin::Adjustment { reason: "never decided".into() },
    };
    let (time, member, events) = (UnixMillis(0), Some(member_id(1)), vec![coins.into()]);
    let keys_of_nobody = MemoryDisk::new().member_keys();
    let contradiction = codec::encode_record(
        &Record { tenant: TENANT, time, member, key_slot: KeySlot::NONE, key: None, quiet: false, events },
        &keys_of_nobody,
    )
    .unwrap();
    for (record, decodes) in [(vec![0xff], false), (contradiction, true)] {
        let dir = tempfile::tempdir().unwrap();
        some_data(dir.path());
        {
            let data = DataDir::open(dir.path(), DataDirOptions::default()).unwrap();
            let (journal, report) = data.open_journal(1).unwrap();
            let mut block = BlockBuilder::new();
            block.push(&record, 1).unwrap();
            let block = block.finish(report.head + 1, report.head, journal.head_hash());
            journal.append(report.head + 1, &[block]).unwrap();
        }
        let opened = std::panic::catch_unwind(|| run(async { open(dir.path()).map(drop) }));
        match opened {
            Ok(Err(OpenError::Fold(FoldError::Read(_)))) => assert!(!decodes),
            Err(_) => assert!(decodes),
            Ok(other) => panic!("{other:?}"),
        }
        assert!(!dir.path().join("views.damaged-1").exists());
        let rows = DataDir::open(dir.path(), DataDirOptions::default()).unwrap().open_views().unwrap().rows;
        let member = rows.scan(Table::Members, &[], 1).unwrap().remove(0).1;
        assert_eq!(codec::decode_member(&member, &keys(dir.path())).unwrap().cards[0].points.balance, 30);
    }
}
