//! The figures: `cargo run --release -p punchline-benches -- <scenario>`, or `-- report` for all of them.
//!
//! ```text
//! scenario ──run, several times──▶ figures, each with its ceiling of the same run ──▶ medians, verdicts, page
//! ```
//!
//! Server, driver and receiver share the machine's cores. What has a ceiling is measured beside it: a bare
//! server or client in a process of its own ([`ceiling`], [`poster`]), or the raw store.
//!
//! # Invariants
//!
//! - Workloads are the same in every run: ids and members are counted through, nothing is random.
//! - A run has a server and a tokio runtime of its own; nothing is left of the one before.

mod ceiling;
mod delivery;
mod fan_out;
mod growth;
mod hot;
mod idle;
mod ingest;
mod instructions;
mod jobs;
mod load;
mod options;
mod overload;
mod plot;
mod poster;
mod process;
mod reading;
mod report;
mod scenario;
mod sink;

use std::process::ExitCode;

use clap::Parser as _;
use options::Options;
use report::{Results, line};
use scenario::Scenario;

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "unary", about: "single calls, 256 in flight", run: |s| block_on(ingest::unary(s)) },
    Scenario { name: "batch", about: "batches of 500, eight in flight", run: |s| block_on(ingest::batch(s)) },
    Scenario { name: "stream", about: "four streams as fast as they go", run: |s| block_on(ingest::stream(s)) },
    Scenario {
        name: "ack-latency",
        about: "from call to durable answer, at 1 000/s and at half of the peak",
        run: |s| block_on(ingest::ack_latency(s)),
    },
    Scenario {
        name: "delivery",
        about: "a backlog to 1, 100 and 1 000 subscriptions, each with a receiver of its own",
        run: |s| block_on(delivery::throughput(s)),
    },
    Scenario {
        name: "delivery-latency",
        about: "from commit to receipt at 500 consumptions/s, each a webhook",
        run: |s| block_on(delivery::latency(s)),
    },
    Scenario {
        name: "isolation",
        about: "100 subscriptions, one of which hangs and one of which fails",
        run: |s| block_on(delivery::isolation(s)),
    },
    Scenario {
        name: "backlog",
        about: "a subscription resumed far behind, beside ten live ones",
        run: |s| block_on(delivery::backlog(s)),
    },
    Scenario {
        name: "fan-out",
        about: "one event at a time, to 10 subscriptions among many that do not match",
        run: |s| block_on(fan_out::matching(s)),
    },
    Scenario {
        name: "subscribe",
        about: "`Subscribe` from the journal, one reader and 100",
        run: |s| block_on(reading::subscribe(s)),
    },
    Scenario {
        name: "ids",
        about: "a journal that grows by consumptions of 10 000 members",
        run: |s| block_on(growth::ids(s)),
    },
    Scenario { name: "members", about: "members that grow", run: |s| block_on(growth::members(s)) },
    Scenario {
        name: "memory",
        about: "1 000 000 consumptions of 100 000 members: memory, disk, restart after SIGKILL",
        run: |s| block_on(growth::memory(s)),
    },
    Scenario {
        name: "jobs",
        about: "a recalculation over all members beside 1 000 calls/s",
        run: |s| block_on(jobs::daily(s)),
    },
    Scenario { name: "overload", about: "batches at twice the peak", run: |s| block_on(overload::overload(s)) },
    Scenario { name: "idle", about: "a server with nothing to do", run: |s| block_on(idle::idle(s)) },
];

fn block_on<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(run)
}

fn main() -> ExitCode {
    let options = Options::parse();
    process::raise_descriptors();
    match options.what.as_str() {
        "echo-server" => block_on(ceiling::serve_echo()),
        "post" => block_on(poster::post(&options.rest)),
        "hot" => hot::run(&options.rest),
        "instructions" => return instructions::check(options.write),
        "list" => SCENARIOS.iter().for_each(|s| line(&format!("{:<18} {}", s.name, s.about))),
        "report" => return report(&options),
        name => match SCENARIOS.iter().find(|scenario| scenario.name == name) {
            Some(scenario) => measure(scenario, &options).print(),
            None => return unknown(name),
        },
    }
    ExitCode::SUCCESS
}

fn unknown(name: &str) -> ExitCode {
    line(&format!("{name:?} is no scenario; `list` shows them"));
    ExitCode::from(2)
}

fn measure(scenario: &Scenario, options: &Options) -> Results {
    let run = |n| {
        line(&format!("{}: run {n} of {}", scenario.name, options.runs));
        (scenario.run)(&options.sizes)
    };
    let (commit, sizes) = (process::commit(), options.sizes.to_string());
    Results { scenario: scenario.name.into(), commit, sizes, runs: (1..=options.runs).map(run).collect() }
}

fn report(options: &Options) -> ExitCode {
    if let Some(name) = options.only.iter().find(|name| !SCENARIOS.iter().any(|s| s.name == **name)) {
        return unknown(name);
    }
    let wanted = |s: &&Scenario| options.only.is_empty() || options.only.iter().any(|name| name == s.name);
    for scenario in SCENARIOS.iter().filter(wanted) {
        let results = measure(scenario, options);
        results.print();
        report::keep(&results, SCENARIOS);
    }
    ExitCode::SUCCESS
}
