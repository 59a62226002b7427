//! `campaigns simulate`: a changed campaign against the past.

use std::path::PathBuf;

use clap::Args;
use prost_types::Timestamp;
use punchline_proto::v1;
use punchline_proto::v1::campaign_service_client::CampaignServiceClient;
use punchline_proto::v1::simulate_campaign_response::Kind;
use serde_json::{Value, json};
use tonic::Status;

use super::super::client::Service;
use super::super::failure::Failure;
use super::super::input;
use super::super::output::{self, Answer};
use super::super::progress::Progress;
use super::read;

#[derive(Args, Debug)]
pub(in crate::cli) struct SimulateArgs {
    /// The campaign as it would be; standard input if absent or `-`
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The first position looked at; from the start if absent
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, hide_default_value = true)]
    from_sequence: u64,
    /// The last position looked at; up to the head if absent
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, hide_default_value = true)]
    to_sequence: u64,
    /// Only what was taken in from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    from_time: Option<Timestamp>,
    /// Only what was taken in before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    to_time: Option<Timestamp>,
}

const COLUMNS: &[&str] =
    &["rule", "side", "members", "units", "points", "coins", "stamps", "rows_completed", "external"];

pub(super) async fn run(args: SimulateArgs, campaigns: &mut CampaignServiceClient<Service>) -> Result<Answer, Failure> {
    let request = v1::SimulateCampaignRequest {
        campaign: Some(read(args.file.as_deref())?),
        from_sequence: args.from_sequence,
        to_sequence: args.to_sequence,
        from_time: args.from_time,
        to_time: args.to_time,
    };
    let mut messages = campaigns.simulate_campaign(request).await?.into_inner();
    let progress = Progress::of_job();
    let mut first = None;
    while let Some(message) = messages.message().await? {
        match message.kind {
            Some(Kind::Progress(at)) => {
                let first = *first.get_or_insert(at.next_sequence);
                let whole = at.to_sequence.saturating_sub(first).max(1);
                let done = at.next_sequence.saturating_sub(first);
                progress.at_part(done as f64 / whole as f64, format!("{} consumptions", at.consumptions));
            }
            Some(Kind::Result(result)) => {
                progress.finish();
                return Ok(told(&result));
            }
            None => {}
        }
    }
    Err(Status::internal("the simulation ended without a result").into())
}

fn told(result: &v1::SimulationResult) -> Answer {
    let v1::SimulationResult { consumptions, members, consumptions_left_out, consumptions_failed, .. } = result;
    output::note(&format!("{consumptions} consumptions of {members} members"));
    if *consumptions_left_out > 0 {
        output::note(&format!("{consumptions_left_out} were left out: too many members"));
    }
    if *consumptions_failed > 0 {
        output::note(&format!("{consumptions_failed} could not be simulated"));
    }
    let row = |rule: &str, side: &str, totals: Option<&v1::SimulationTotals>| -> Value {
        let totals = totals.copied().unwrap_or_default();
        json!({
            "rule": rule, "side": side, "members": totals.members, "units": totals.units, "points": totals.points,
            "coins": totals.coins, "stamps": totals.stamps, "rows_completed": totals.rows_completed,
            "external": totals.external,
        })
    };
    let both = |rule: &str, given, would_give| [row(rule, "gave", given), row(rule, "would give", would_give)];
    let mut rows = Vec::from(both("all", result.given.as_ref(), result.would_give.as_ref()));
    for rule in &result.rules {
        rows.extend(both(&rule.rule_id, rule.given.as_ref(), rule.would_give.as_ref()));
    }
    Answer::Rows(COLUMNS, rows)
}
