//! What is run, how often, and how large.

use clap::Parser;

/// The figures, side by side with their ceilings.
#[derive(Debug, Parser)]
#[command(name = "punchline-benches")]
pub struct Options {
    /// A scenario, `report` (all of them, into docs/performance.md), `instructions`, or `list`.
    pub what: String,
    /// Of `report`: only these scenarios are run; the others stay in the report as they were measured before.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// How often each scenario is run; the figures are medians.
    #[arg(long, env = "PUNCHLINE_BENCH_RUNS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Of `instructions`: writes down what was counted.
    #[arg(long)]
    pub write: bool,
    #[command(flatten)]
    pub sizes: Sizes,
    /// Of this program's own child processes.
    #[arg(hide = true)]
    pub rest: Vec<String>,
}

/// How large the scenarios are.
#[derive(Debug, Clone, clap::Args)]
pub struct Sizes {
    /// Consumptions in the journal at which `ids` measures.
    #[arg(long, env = "PUNCHLINE_BENCH_IDS", value_delimiter = ',', value_parser = count, default_value = "1M,10M,50M")]
    pub ids: Vec<u64>,
    /// Members at which `members` measures.
    #[arg(long, env = "PUNCHLINE_BENCH_MEMBERS", value_delimiter = ',', value_parser = count, default_value = "10k,1M,10M")]
    pub members: Vec<u64>,
    /// Events that a subscription is behind in `backlog`.
    #[arg(long, env = "PUNCHLINE_BENCH_BACKLOG", value_parser = count, default_value = "5M")]
    pub backlog: u64,
    /// Subscriptions at which `fan-out` measures; the largest is that of `idle`.
    #[arg(long, env = "PUNCHLINE_BENCH_SUBSCRIPTIONS", value_delimiter = ',', value_parser = count, default_value = "10,1k,10k")]
    pub subscriptions: Vec<u64>,
    /// Webhooks in each part of `delivery`.
    #[arg(long, env = "PUNCHLINE_BENCH_DELIVERIES", value_parser = count, default_value = "150k")]
    pub deliveries: u64,
    /// Events that the readers of `subscribe` read in all.
    #[arg(long, env = "PUNCHLINE_BENCH_EVENTS", value_parser = count, default_value = "2M")]
    pub events: u64,
    /// Members of `jobs`.
    #[arg(long, env = "PUNCHLINE_BENCH_JOB_MEMBERS", value_parser = count, default_value = "1M")]
    pub job_members: u64,
    /// How long what is measured over time is measured.
    #[arg(long, env = "PUNCHLINE_BENCH_SECONDS", value_parser = clap::value_parser!(u64).range(1..), default_value_t = 8)]
    pub seconds: u64,
}

impl Sizes {
    /// [`Sizes::seconds`].
    pub fn window(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.seconds)
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |counts: &[u64]| counts.iter().map(|n| short(*n)).collect::<Vec<_>>().join(",");
        write!(f, "--ids {} --members {} --backlog {} ", list(&self.ids), list(&self.members), short(self.backlog))?;
        let (subscriptions, deliveries) = (list(&self.subscriptions), short(self.deliveries));
        write!(f, "--subscriptions {subscriptions} --deliveries {deliveries} --events {} ", short(self.events))?;
        write!(f, "--job-members {} --seconds {}", short(self.job_members), self.seconds)
    }
}

/// `10k`, `50M`, `1234`.
fn count(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let number = digits.parse::<u64>().ok().filter(|n| *n > 0).and_then(|n| n.checked_mul(unit));
    number.ok_or_else(|| format!("{text:?} is no count: write 1234, 10k or 5M"))
}

/// As [`count`] reads it.
pub fn short(n: u64) -> String {
    match n {
        n if n > 0 && n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n > 0 && n.is_multiple_of(1_000) => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}
