//! Commands on a data directory that no server has open: `verify` and `log cat`.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use punchline_delivery::dialect::standard;
use punchline_engine::event::{CommandKey, Record};
use punchline_engine::id::Sequence;
use punchline_runtime::feed::{ReadError, decode};
use punchline_runtime::ids::fill_random;
use punchline_runtime::node::{OfflineError, OpenError, Recovery, verify_offline};
use punchline_runtime::verify::Verified;
use punchline_storage::data_dir::{DataDir, DataDirOptions};
use punchline_storage::journal::Journal;
use serde_json::{Value, json};

use crate::cli::LogCatArgs;
use crate::cli::output::{self, Format};
use crate::config::Config;
use crate::master_key;

/// `punchline verify`: 0 where all is well, 1 with the first difference where it is not, 70 where it
/// cannot be told.
pub fn verify(config: &Config, format: Format) -> ExitCode {
    let (data_dir, master_key) = match open(config) {
        Ok(opened) => opened,
        Err(error) => {
            output::note(&format!("punchline: {error}"));
            return ExitCode::from(70);
        }
    };
    let bar = progress_bar();
    let outcome = verify_offline(&data_dir, &master_key, &mut |at, head| {
        bar.set_length(head);
        bar.set_position(at);
    });
    bar.finish_and_clear();
    match outcome {
        Ok((verified, recovery)) => {
            output::print_one(format, report(&verified, &recovery));
            if verified.difference.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => failed(&error),
    }
}

/// The data directory, and the key that its personal fields are sealed under.
fn open(config: &Config) -> Result<(DataDir, [u8; 32]), Box<dyn std::error::Error>> {
    let options = DataDirOptions { create: false, ..DataDirOptions::default() };
    let data_dir = DataDir::open(&config.storage.data_dir, options)?;
    let master_key = master_key::load(&data_dir, config.security.master_key_bytes())?;
    Ok((data_dir, master_key))
}

fn report(verified: &Verified, recovery: &Recovery) -> Value {
    json!({
        "ok": verified.difference.is_none(),
        "difference": verified.difference,
        "head_sequence": recovery.head.0,
        "events": verified.events,
        "blocks": verified.blocks,
        "rows_compared": verified.rows,
        "events_recovered": recovery.events_applied,
        "cut_off": recovery.cut_off,
        "views_rebuilt": recovery.views_rebuilt,
    })
}

/// A bar for a verification.
pub(crate) fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("verifying {bar:40} {pos}/{len} events, {eta} left");
    // Draws only where standard error is a terminal.
    ProgressBar::new(0).with_style(style.expect("the template is a constant"))
}

fn failed(error: &OfflineError) -> ExitCode {
    output::note(&format!("punchline: {error}"));
    let corrupt = matches!(error, OfflineError::Open(OpenError::Journal(_)));
    // A journal that does not open is the answer to the question, not a failure to answer it.
    if corrupt { ExitCode::FAILURE } else { ExitCode::from(70) }
}

/// `punchline log cat`: the journal's records, one a line.
pub fn log_cat(config: &Config, args: &LogCatArgs, format: Format) -> ExitCode {
    match cat(config, args, format) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("punchline: {error}"));
            ExitCode::from(70)
        }
    }
}

fn cat(config: &Config, args: &LogCatArgs, format: Format) -> Result<(), Box<dyn std::error::Error>> {
    let (data_dir, master_key) = open(config)?;
    let keys = data_dir.member_keys(&master_key, fill_random)?;
    let (journal, report) = data_dir.open_journal(0)?;
    if let Some(cut) = report.cut_off {
        output::note(&format!("a tail that was never acknowledged was cut off from {} on", cut.from_sequence));
    }
    let mut next = args.from.max(journal.first());
    while let Some(block) = journal.read(next).map_err(ReadError::from)? {
        for (first, events, bytes) in block.records() {
            let last = first + u64::from(events) - 1;
            if last < args.from {
                continue;
            }
            if args.to.is_some_and(|to| first > to) {
                return Ok(());
            }
            print_record(first, &decode(first, bytes, &keys)?, format)?;
        }
        next = block.last_sequence() + 1;
    }
    Ok(())
}

fn print_record(first: u64, record: &Record, format: Format) -> Result<(), Box<dyn std::error::Error>> {
    let key = record.key.as_ref().map(|key| match key {
        CommandKey::Consumption(id) => format!("consumption:{id}"),
        CommandKey::Request(id) => format!("request:{id}"),
        CommandKey::Fact { source, fact_id } => format!("fact:{source}:{fact_id}"),
        CommandKey::Job { job, subject, period } => format!("{job}:{subject}:{period}"),
    });
    for recorded in record.all_recorded(Sequence(first)) {
        let name = recorded.event.event_type().as_str();
        let data = standard::data(&recorded);
        let text = match format {
            Format::Table => {
                let key = key.as_deref().unwrap_or("-");
                let (sequence, time, tenant) = (recorded.sequence.0, recorded.time, recorded.tenant);
                output::harmless(&format!("{sequence:>10} {time} {tenant} {name:<28} {key} {data}"))
            }
            Format::Json => json!({
                "sequence": recorded.sequence.0,
                "cause_sequence": recorded.cause.0,
                "time": recorded.time.to_string(),
                "advertiser_id": recorded.tenant.advertiser.to_string(),
                "environment": recorded.tenant.environment.as_str(),
                "key": key,
                "type": name,
                "data": serde_json::from_str::<Value>(&data)?,
            })
            .to_string(),
        };
        output::line(&text)?;
    }
    Ok(())
}
