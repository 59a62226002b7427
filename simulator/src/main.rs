//! The command line of the simulator.
#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use punchline_runtime::clock::{Clock, Stopwatch, SystemClock};
use simulator::machine::{self, Outcome};

/// Steps before faults stop, where nothing is said.
const STEPS: u64 = 4_000;
/// Seeds of the fixed set.
const SET: std::ops::RangeInclusive<u64> = 1..=30;

/// Runs a node in a simulated world: all that happens comes from a seed.
#[derive(Debug, Parser)]
#[command(name = "simulator", args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Args {
    /// The seed of one run.
    #[arg(required = true)]
    seed: Option<u64>,
    /// Steps before faults stop.
    #[arg(long, default_value_t = STEPS)]
    steps: u64,
    /// Print the event log, whatever came of it.
    #[arg(long)]
    log: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The seeds that are run before anything lands.
    Set,
    /// Seeds that nobody has tried, for a while.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// The bugs that are planted on purpose: each has to be found by the seed that is listed for it.
    #[cfg(feature = "planted-bugs")]
    Bugs {
        /// Look for the first seed that finds each, rather than try the listed one.
        #[arg(long)]
        search: bool,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let is_well = match args.command {
        None => {
            report(args.seed.unwrap_or_default(), &machine::run(args.seed.unwrap_or_default(), args.steps), args.log)
        }
        Some(Command::Set) => SET.map(run).filter(|is_well| !is_well).count() == 0,
        Some(Command::Soak { minutes }) => soak(Duration::from_secs(60 * minutes)),
        #[cfg(feature = "planted-bugs")]
        Some(Command::Bugs { search }) => bugs(search),
    };
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn soak(time: Duration) -> bool {
    let watch = Stopwatch::start();
    let first = SystemClock.now().0 as u64;
    let mut seeds = first..;
    std::iter::from_fn(|| seeds.next().filter(|_| watch.elapsed() < time)).all(run)
}

/// Runs a seed; gives whether all was well.
fn run(seed: u64) -> bool {
    report(seed, &machine::run(seed, STEPS), false)
}

/// Prints what a run came to; its log too where it is asked for, or something was wrong.
fn report(seed: u64, outcome: &Outcome, log: bool) -> bool {
    if log || outcome.fault.is_some() {
        outcome.log.iter().for_each(|line| println!("{line}"));
    }
    let Outcome { digest, fault, passed, acknowledged, arrivals, starts, .. } = outcome;
    let passed = passed.as_secs();
    println!(
        "seed {seed}: {acknowledged} acknowledged, {arrivals} requests, {starts} starts, {passed} s, digest {digest:016x}"
    );
    if let Some(fault) = fault {
        println!("FAULT with seed {seed}: {fault}");
    }
    fault.is_none()
}

#[cfg(feature = "planted-bugs")]
fn bugs(search: bool) -> bool {
    use punchline_engine::planted::{Bug, plant};
    use simulator::bugs::{SEARCHED_MAX, seed_for};

    let found = |bug: Bug, seed: u64| {
        plant(Some(bug));
        let fault = machine::run(seed, STEPS).fault;
        plant(None);
        fault
    };
    let mut all = true;
    for bug in Bug::ALL {
        let seeds = if search { 1..=SEARCHED_MAX } else { seed_for(bug)..=seed_for(bug) };
        // A seed that finds something by itself finds nothing here: the set is without a fault.
        let first = seeds.clone().find_map(|seed| Some((seed, found(bug, seed)?)));
        match &first {
            Some((seed, fault)) => println!("{bug:?}: found with seed {seed}: {fault}"),
            None => println!("{bug:?}: NOT FOUND with seeds {seeds:?}"),
        }
        all &= first.is_some();
    }
    all
}
