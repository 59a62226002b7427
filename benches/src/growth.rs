//! What becomes of rate, memory, disk and recovery while journal or members grow.

use std::path::Path;
use std::time::Duration;

use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;
use punchline_storage::data_dir::{DataDir, DataDirOptions};
use punchline_storage::journal::Journal;
use punchline_storage::layout::Table;
use punchline_storage::rows::Rows;

use crate::load::Load;
use crate::options::{Sizes, short};
use crate::process::disk_bytes;
use crate::report::line;
use crate::scenario::{Measured, Target};

/// Members of `ids`: so few that what is measured is the journal and the index.
const FEW_MEMBERS: u64 = 10_000;
/// Members of `memory`.
const MEMBERS: u64 = 100_000;
/// Consumptions of `memory`.
const CONSUMPTIONS: u64 = 1_000_000;
/// Rows read at once.
const PAGE: usize = 1_000;

/// Consumptions grow, members do not.
pub async fn ids(sizes: &Sizes) -> Measured {
    let (mut measured, mut first) = (Measured::default(), None);
    let mut load = Load::start(FEW_MEMBERS).await;
    for &size in &sizes.ids {
        let (added, seconds) = load.batches(Duration::MAX, size.saturating_sub(load.consumptions())).await;
        let name = format!("{} ids", short(size));
        measured.figure(format!("rate on the way to {name}"), added as f64 / seconds, "consumptions/s");
        look(&mut measured, &mut load, &name, size, sizes, &mut first).await;
    }
    measured
}

/// Members grow; consumptions are spread over all of them.
pub async fn members(sizes: &Sizes) -> Measured {
    let (mut measured, mut first) = (Measured::default(), None);
    let (mut load, mut registered) = (Load::start(0).await, 0);
    for &size in &sizes.members {
        let watch = Stopwatch::start();
        load.register(size).await;
        let name = format!("{} members", short(size));
        let added = size.saturating_sub(registered);
        measured.figure(format!("import on the way to {name}"), added as f64 / watch.seconds(), "members/s");
        registered = size.max(registered);
        look(&mut measured, &mut load, &name, size, sizes, &mut first).await;
    }
    measured
}

/// Rate, memory, recovery, verification and disk at one size; `first` is the rate at the first.
async fn look(measured: &mut Measured, load: &mut Load, name: &str, size: u64, sizes: &Sizes, first: &mut Option<f64>) {
    line(&format!("  at {name}"));
    let cpu = load.cpu_seconds();
    let (added, seconds) = load.batches(sizes.window(), u64::MAX).await;
    let (rate, cpu) = (added as f64 / seconds, load.cpu_seconds() - cpu);
    measured
        .figure(format!("rate at {name}"), rate, "consumptions/s")
        .against("at the smallest size", first, Target::ShareAtLeast(0.8))
        .on("rate", size);
    measured.figure(format!("server CPU of one at {name}"), 1e6 * cpu / added as f64, "us").on("CPU", size);
    measured.figure(format!("memory at {name}"), load.resident_mb(), "MB").on("memory", size);

    let status = recover(measured, load, name, size).await;
    let records = status.consumptions + status.members;
    load.server.stop().await;
    let watch = Stopwatch::start();
    let verified = load.server.verify();
    let seconds = watch.seconds();
    verified.expect("what is on disk is sound");
    measured
        .figure(format!("full verify at {name}"), records as f64 / seconds, "records/s")
        .target(Target::AtLeast(500_000.0))
        .on("verify", size);
    let encoded = encoded_bytes(&load.server.data_dir(), status.head_sequence);
    measured
        .figure(format!("disk at {name}"), disk_bytes(&load.server.data_dir()) as f64 / 1e6, "MB")
        .beside("encoded records and rows", encoded as f64 / 1e6)
        .target(Target::ShareAtMost(1.5))
        .on("disk", size);
    load.server.restart().await;
}

/// Kills the server and starts it again; gives how it is then.
async fn recover(measured: &mut Measured, load: &mut Load, name: &str, size: u64) -> v1::GetStatusResponse {
    load.server.kill();
    let watch = Stopwatch::start();
    load.server.restart().await;
    measured
        .figure(format!("ready after SIGKILL at {name}"), watch.seconds(), "s")
        .target(Target::AtMost(10.0))
        .on("recovery", size);
    let status = load.api.status().await;
    assert!(status.consumptions >= load.consumptions(), "nothing is lost");
    measured.figure(format!("memory after the restart at {name}"), load.resident_mb(), "MB");
    measured.figure(format!("journal at {name}"), status.journal_bytes as f64 / 1e6, "MB");
    measured.figure(format!("views at {name}"), status.views_bytes as f64 / 1e6, "MB");
    status
}

/// Bytes of all records in the journal, and of all rows of the views with their keys: what must be on disk.
/// The journal was verified up to `head`.
fn encoded_bytes(dir: &Path, head: u64) -> u64 {
    let options = DataDirOptions { create: false, ..DataDirOptions::default() };
    let data_dir = DataDir::open(dir, options).expect("the server has closed it");
    let (journal, _) = data_dir.open_journal(head).expect("the journal opens");
    let (mut bytes, mut next) = (0, journal.first());
    while let Some(block) = journal.read(next).expect("it can be read") {
        bytes += block.records().map(|(_, _, record)| record.len() as u64).sum::<u64>();
        next = block.last_sequence() + 1;
    }
    let rows = data_dir.open_views().expect("the views open").rows;
    for table in Table::ALL {
        let mut from = Vec::new();
        loop {
            let page = rows.scan(table, &from, PAGE).expect("rows can be read");
            bytes += page.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
            let Some((last, _)) = page.last() else { break };
            from = [last.as_slice(), &[0]].concat();
        }
    }
    bytes
}

/// What a million consumptions leave behind.
pub async fn memory(_: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let mut load = Load::start(MEMBERS).await;
    let (added, seconds) = load.batches(Duration::MAX, CONSUMPTIONS).await;
    measured.figure("rate", added as f64 / seconds, "consumptions/s");
    measured.figure("memory after them", load.resident_mb(), "MB").target(Target::AtMost(300.0));
    let status = load.api.status().await;
    measured.figure("journal on disk", status.journal_bytes as f64 / 1e6, "MB");
    measured.figure("views on disk", status.views_bytes as f64 / 1e6, "MB");
    load.server.kill();
    let watch = Stopwatch::start();
    load.server.restart().await;
    measured.figure("restart after SIGKILL until ready", watch.seconds(), "s").target(Target::AtMost(5.0));
    measured.figure("memory after the restart", load.resident_mb(), "MB").target(Target::AtMost(300.0));
    assert!(load.api.status().await.consumptions >= CONSUMPTIONS, "nothing is lost");
    measured
}
