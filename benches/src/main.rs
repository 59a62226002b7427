//! The figures: `cargo run --release -p punchline-benches -- <scenario>`.
//!
//! Server, driver and receiver share the machine's cores. Each figure is printed with its target, with
//! the ceiling measured in the same run where there is one, and with the ratio.

mod ceiling;
mod delivery;
mod ingest;
mod jobs;
mod load;
mod report;

use std::process::ExitCode;

const SCENARIOS: &str =
    "unary | batch | stream | ack-latency | delivery | delivery-latency | isolation | memory | jobs | all";

fn main() -> ExitCode {
    let scenario = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        match scenario.as_str() {
            "echo-server" => ceiling::serve_echo().await,
            "unary" => ingest::unary().await,
            "batch" => ingest::batch().await,
            "stream" => ingest::stream().await,
            "ack-latency" => ingest::ack_latency().await,
            "delivery" => delivery::throughput().await,
            "delivery-latency" => delivery::latency().await,
            "isolation" => delivery::isolation().await,
            "memory" => ingest::memory().await,
            "jobs" => jobs::daily().await,
            "all" => {
                ingest::unary().await;
                ingest::batch().await;
                ingest::stream().await;
                ingest::ack_latency().await;
                delivery::throughput().await;
                delivery::latency().await;
                delivery::isolation().await;
                ingest::memory().await;
                jobs::daily().await;
            }
            _ => {
                report::line(&format!("usage: punchline-benches {SCENARIOS}"));
                return ExitCode::from(2);
            }
        }
        ExitCode::SUCCESS
    })
}
