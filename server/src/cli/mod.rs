//! The command line: one binary that serves, and that talks to one that serves.
//!
//! ```text
//! Cli ──run──▶ command(family) ──gRPC──▶ Answer | Failure ──▶ table or JSON on stdout | stderr, exit code
//! ```
//!
//! A file per family of commands. Each command is a call and an [`Answer`](output::Answer); only what
//! goes on (a stream, a listener) writes lines itself.

mod admin;
mod backup;
mod balances;
mod campaigns;
mod client;
mod consumers;
mod consumptions;
mod coupons;
mod deliveries;
mod dialects;
mod events;
mod facts;
mod failure;
mod input;
mod jobs;
mod lines;
mod members;
mod message;
pub(crate) mod output;
mod progress;
mod rewards;
mod segments;
mod subscriptions;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::config::{Config, Sources};

use client::{Client, ClientOptions};
use failure::{EXIT_CODES, Failure};
use output::{Answer, Format};

/// A durable loyalty and event-delivery engine.
#[derive(Debug, Parser)]
#[command(name = "punchline", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How answers are written
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// Configuration file
    #[arg(long, global = true, env = "PUNCHLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Show the whole product at work, in a temporary directory, and check the result
    Demo(DemoArgs),
    /// Check and show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Ask a server whether it serves: exit code 0 or 1
    Healthcheck,
    /// How a server is: positions, sizes, backlog
    Status,
    /// Who asked for what: calls that changed something, oldest first
    Audit(admin::AuditArgs),
    /// Take advertisers on
    Advertisers {
        #[command(subcommand)]
        command: admin::AdvertisersCommand,
    },
    /// Issue and revoke API keys
    Credentials {
        #[command(subcommand)]
        command: admin::CredentialsCommand,
    },
    /// Campaigns with their rules
    Campaigns {
        #[command(subcommand)]
        command: campaigns::CampaignsCommand,
    },
    /// Report what customers did
    Consumptions {
        #[command(subcommand)]
        command: consumptions::ConsumptionsCommand,
    },
    /// Tell of what is no consumption
    Facts {
        #[command(subcommand)]
        command: facts::FactsCommand,
    },
    /// Members, what they have, and why
    Members {
        #[command(subcommand)]
        command: members::MembersCommand,
    },
    /// Correct, set aside, move and take back what members have
    Balances {
        #[command(subcommand)]
        command: balances::BalancesCommand,
    },
    /// What members may have for points and coins
    Rewards {
        #[command(subcommand)]
        command: rewards::RewardsCommand,
    },
    /// Exchanges of points and coins for rewards
    Redemptions {
        #[command(subcommand)]
        command: rewards::RedemptionsCommand,
    },
    /// What subscribers have to pay out
    Obligations {
        #[command(subcommand)]
        command: rewards::ObligationsCommand,
    },
    /// Books of codes
    Coupons {
        #[command(subcommand)]
        command: coupons::CouponsCommand,
    },
    /// Gift cards
    GiftCards {
        #[command(subcommand)]
        command: rewards::GiftCardsCommand,
    },
    /// Members who have something in common
    Segments {
        #[command(subcommand)]
        command: segments::SegmentsCommand,
    },
    /// What holds for all campaigns of the advertiser
    Settings {
        #[command(subcommand)]
        command: segments::SettingsCommand,
    },
    /// Webhook subscriptions
    Subscriptions {
        #[command(subcommand)]
        command: Box<subscriptions::SubscriptionsCommand>,
    },
    /// The forms in which events are told
    Dialects {
        #[command(subcommand)]
        command: dialects::DialectsCommand,
    },
    /// What became of each event's delivery
    Deliveries {
        #[command(subcommand)]
        command: deliveries::DeliveriesCommand,
    },
    /// Deliveries that failed for good
    DeadLetters {
        #[command(subcommand)]
        command: deliveries::DeadLettersCommand,
    },
    /// Send past events to one subscription again, with the same webhook-id: as a job
    Replay(jobs::ReplayArgs),
    /// What the clock does; and replays and redrives of a subscription
    Jobs {
        #[command(subcommand)]
        command: jobs::JobsCommand,
    },
    /// Named consumers, whose cursor the server keeps; `events consume` is one
    Consumers {
        #[command(subcommand)]
        command: consumers::ConsumersCommand,
    },
    /// The journal's events, from a server
    Events {
        #[command(subcommand)]
        command: events::EventsCommand,
    },
    /// Try webhooks out, without a server
    Webhooks {
        #[command(subcommand)]
        command: webhooks::WebhooksCommand,
    },
    /// The journal
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Read the whole journal on disk, fold it afresh and compare with every view, without a server
    Verify(VerifyArgs),
    /// Copy journal and keys to a directory, adding what is new, or to standard output; while a server runs, or not
    Backup(backup::BackupArgs),
    /// Put a backup into an empty data directory and verify it, or only check it; without a server
    Restore(backup::RestoreArgs),
    /// Write a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Settings from the command line, stronger than file and environment.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigFlags {
    /// Set storage.data_dir
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Set any key, as server.http_bind=127.0.0.1:9000; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("is to be of the form section.key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// For development: loopback only, the demo campaign loaded, fixed credentials, which are printed
    #[arg(long)]
    pub dev: bool,
    #[command(flatten)]
    config: ConfigFlags,
}

/// `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Work in this directory, which must be empty, and keep it
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Write the journal's records, as they are; on disk, without a server
    Cat(LogCatArgs),
    /// Remove the beginning that the server's backup has and nothing needs any more
    Trim {
        /// Only say what would go, and what needs the rest
        #[arg(long)]
        dry_run: bool,
    },
}

/// `log cat`.
#[derive(Args, Clone, Debug)]
pub struct LogCatArgs {
    /// The first position wanted
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    pub from: u64,
    /// The last position wanted
    #[arg(long, value_name = "SEQUENCE")]
    pub to: Option<u64>,
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say OK, or what is wrong
    Check(ConfigArgs),
    /// Write what is in effect, and where it comes from; secrets are redacted
    Print(ConfigArgs),
}

#[derive(Args, Debug)]
struct ConfigArgs {
    /// With the settings of `serve --dev`
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// The process: reads the command line, runs it, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    run(Cli::parse())
}

/// Runs a command line.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let format = cli.output;
    let outcome = match cli.command {
        Command::Serve(ref args) => {
            let sources = sources(&cli, &args.config, args.dev);
            return with_config(&cli, &args.config, args.dev, |c| crate::serve::run(c, &sources, args));
        }
        Command::Demo(ref args) => return crate::demo::run(args, format),
        Command::Verify(ref args) => {
            return with_config(&cli, &args.config, false, |c| crate::offline::verify(&c, format));
        }
        Command::Log { command: LogCommand::Cat(ref args) } => {
            return with_config(&cli, &args.config, false, |c| crate::offline::log_cat(&c, args, format));
        }
        Command::Config { ref command } => config(&cli, command),
        Command::Backup(ref args) => {
            load(&cli, &args.config, false).and_then(|config| backup::backup(&config, args, &cli.client))
        }
        Command::Restore(ref args) => load(&cli, &args.config, false).and_then(|config| backup::restore(&config, args)),
        Command::Completion { shell } => completion(shell),
        Command::Dialects { command: dialects::DialectsCommand::Check(ref args) } => dialects::check(args, format),
        // The journal is read twice for it: that may take a while.
        command @ Command::Log { .. } => remote(command, &backup::patient(&cli.client), format),
        command => remote(command, &cli.client, format),
    };
    finish(outcome.and_then(|answer| format.print(answer)))
}

/// Loads the configuration and goes on with it, or tells what is wrong.
fn with_config(cli: &Cli, flags: &ConfigFlags, dev: bool, go_on: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match load(cli, flags, dev) {
        Ok(config) => go_on(config),
        Err(failure) => finish(Err(failure)),
    }
}

fn finish(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.told() {
                output::note(&text);
            }
            failure.exit_code()
        }
    }
}

fn load(cli: &Cli, flags: &ConfigFlags, dev: bool) -> Result<Config, Failure> {
    Ok(Config::load(&sources(cli, flags, dev))?)
}

fn sources(cli: &Cli, flags: &ConfigFlags, dev: bool) -> Sources {
    let mut sources = Sources { dev, ..Sources::of_process(cli.config.clone()) };
    sources.flags.extend(flags.data_dir.iter().map(|dir| ("storage.data_dir".to_owned(), dir.clone())));
    sources.flags.extend(flags.set.iter().cloned());
    sources
}

fn config(cli: &Cli, command: &ConfigCommand) -> Result<Answer, Failure> {
    let (ConfigCommand::Check(args) | ConfigCommand::Print(args)) = command;
    let config = load(cli, &args.flags, args.dev)?;
    Ok(match (command, cli.output) {
        (ConfigCommand::Check(_), Format::Table) => Answer::Text("OK".into()),
        (ConfigCommand::Check(_), Format::Json) => Answer::One(serde_json::json!({ "ok": true })),
        (ConfigCommand::Print(_), Format::Table) => Answer::Text(config.to_toml()),
        (ConfigCommand::Print(_), Format::Json) => {
            Answer::One(serde_json::to_value(&config).expect("a Config consists of what JSON can say"))
        }
    })
}

fn completion(shell: clap_complete::Shell) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "punchline", &mut script);
    Ok(Answer::Text(String::from_utf8_lossy(&script).into_owned()))
}

/// Commands that need sockets. One thread does: most of the time is waiting.
fn remote(command: Command, options: &ClientOptions, format: Format) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Healthcheck => return healthcheck(options).await,
            Command::Webhooks { command } => return webhooks::run(command, format).await,
            _ => {}
        }
        let client = Client::connect(options).await?;
        match command {
            Command::Status => admin::status(&client).await,
            Command::Audit(args) => admin::audit(args, &client).await,
            Command::Advertisers { command } => admin::advertisers(command, &client).await,
            Command::Credentials { command } => admin::credentials(command, &client).await,
            Command::Campaigns { command } => campaigns::run(command, &client).await,
            Command::Consumptions { command } => consumptions::run(command, &client).await,
            Command::Facts { command } => facts::run(command, &client, format).await,
            Command::Members { command } => members::run(command, &client).await,
            Command::Balances { command } => balances::run(command, &client).await,
            Command::Rewards { command } => rewards::rewards(command, &client).await,
            Command::Redemptions { command } => rewards::redemptions(command, &client).await,
            Command::Obligations { command } => rewards::obligations(command, &client).await,
            Command::Coupons { command } => coupons::run(command, &client).await,
            Command::GiftCards { command } => rewards::gift_cards(command, &client).await,
            Command::Segments { command } => segments::segments(command, &client).await,
            Command::Settings { command } => segments::settings(command, &client).await,
            Command::Subscriptions { command } => subscriptions::run(*command, &client).await,
            Command::Dialects { command } => dialects::run(command, &client).await,
            Command::Deliveries { command } => deliveries::deliveries(command, &client).await,
            Command::DeadLetters { command } => deliveries::dead_letters(command, &client).await,
            Command::Replay(args) => jobs::replay(args, &client).await,
            Command::Jobs { command } => jobs::jobs(command, &client).await,
            Command::Consumers { command } => consumers::run(command, &client).await,
            Command::Log { command: LogCommand::Trim { dry_run } } => backup::trim(dry_run, &client).await,
            Command::Events { command } => events::run(command, &client, format).await,
            local => unreachable!("{local:?} needs no server"),
        }
    })
}

/// Every failure is the same to whoever asks, as Docker has it: 1.
async fn healthcheck(options: &ClientOptions) -> Result<Answer, Failure> {
    let unhealthy = |why: &dyn std::fmt::Display| Failure::Negative(format!("unhealthy: {why}"));
    let channel = client::channel(options).await.map_err(|failure| unhealthy(&failure))?;
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel).check(request).await.map_err(|status| unhealthy(&Failure::from(status)))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(Answer::One(serde_json::json!({ "status": "SERVING" }))),
        status => Err(unhealthy(&status.as_str_name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_are_read() {
        let right = [
            "serve --dev --data-dir /tmp/x --set log.format=json",
            "demo",
            "config check --config x.toml",
            "config print --output json",
            "healthcheck --endpoint http://127.0.0.1:1",
            "advertisers create --name Acme",
            "credentials issue --scope ingest --scope read",
            "credentials revoke dev-key",
            "campaigns apply --file -",
            "consumptions record --file x.jsonl --stop-on-error",
            "members get 0198",
            "members balances --phone 40720005123",
            "members register --phone 40720005123 --email a@b --join velo-club --attribute a=b",
            "members explain 17",
            "members balances 0198 --at-sequence 5",
            "members balances --external-id u-1 --at-time 2025-01-01",
            "members holds 0198",
            "members merge 0198 --from 0199",
            "members import --file x.jsonl --suppress-events --join velo-club",
            "members register --external-id u-1 --suppress-events",
            "balances adjust 0198 --coins --amount -5 --reason x",
            "balances hold 0198 --hold-id h --points-of velo --amount 5 --expires-at 2030-01-01",
            "balances post 0198 --hold-id h --amount 3",
            "balances void 0198 --hold-id h",
            "balances transfer --phone 1 --to 0199 --coins --amount 5 --reason x",
            "balances reverse 0198 --entry 17 --reason x",
            "campaigns simulate --file x.toml --from-time 2025-01-01 --to-sequence 9",
            "campaigns standings velo weekly --previous-round --limit 3",
            "rewards apply --file x.toml",
            "redemptions start 0198 --reward mug --redemption-id r-1",
            "redemptions complete r-1 --voucher-code X",
            "redemptions fail r-1 --reason x",
            "redemptions refund r-1",
            "redemptions list --member 0198 --limit 5",
            "obligations list --open",
            "obligations confirm ob-1-1 --reference x",
            "coupons create-book summer --generate 5 --prefix S- --uses-max 2",
            "coupons add summer --codes-file x",
            "coupons assign 0198 --book summer --usage-id u",
            "coupons use summer X --usage-id u --order-id o --discount-amount 5",
            "coupons roll-back summer X --usage-id u",
            "gift-cards send 0198 --gift-card-id g --code X --value 10",
            "segments apply vip --condition member.points>=5 --name VIP",
            "settings set --time-zone Europe/Bucharest --coins-overdraft 5",
            "jobs list",
            "jobs run birthdays",
            "subscriptions create --url https://x --type points.* --header X-A:b --retry-delays 5s,5m",
            "subscriptions update 0198 --no-retries",
            "deliveries list 0198 --state waiting",
            "subscriptions create --url https://x --dialect rehook --dialect-setting a=b --filter true --ordering strict",
            "subscriptions create --url https://x --signature v1a --bearer-token-file t --rate 5 --max-attempts 3",
            "subscriptions create --url https://x --client-cert c --client-key k --segment-write-key-file w",
            "subscriptions update 0198 --on-dead-letter hold --breaker-failures 5 --breaker-open 1m --disable-after 2h",
            "dialects list",
            "dialects show rehook",
            "dialects check own.toml --setting a=b",
            "dead-letters redrive 0198 --preview",
            "dead-letters redrive 0198 --max-per-second 5 --from-time 2025-01-01 --to-time 2025-01-02T00:00:00Z --no-wait",
            "dead-letters drop 0198 --sequence 5,7 --sequence 9 --reason x",
            "deliveries list 0198 --state dropped",
            "replay 0198 --from-sequence 5 --to-sequence 9 --type points.* --member 0198 --limit 5 --max-per-second 2",
            "replay 0198 --preview",
            "jobs list 0198",
            "jobs get 0198 0199 --wait",
            "jobs cancel 0198 0199",
            "consumers list",
            "consumers delete mail",
            "facts publish --file x.jsonl --source shop",
            "facts types list",
            "facts types register fitting.booked --schema x.json --description y --etag 3",
            "facts types show fitting.booked",
            "events consume mail --from-start --type points.* --max-in-flight 4 --exec cat",
            "events consume mail --from-sequence 5 --limit 1",
            "events types points.credited --dialect rehook",
            "events tail --from 5 --type points.* --output json",
            "events read --from 5 --limit 10",
            "webhooks listen --port 0 --fail-every 3",
            "log cat --from 5",
            "log trim --dry-run",
            "verify",
            "backup",
            "backup --to - --data-dir x",
            "restore --from x --data-dir y --master-key-file z",
            "restore --from - --validate-only",
            "completion bash",
        ];
        for line in right {
            let parsed = Cli::try_parse_from(["punchline"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("an error"));
        }
        // Checked later: clap shows what it refuses, and it may be a secret.
        let later =
            ["subscriptions create --url https://x --header s3cret --basic-auth s3cret", "webhooks listen --secret x"];
        for line in later {
            let parsed = Cli::try_parse_from(["punchline"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}");
        }
        let wrong = [
            "restore --data-dir x",
            "members get",
            "members get 0198 --phone 1",
            "members balances 0198 --at-sequence 5 --at-time 2025-01-01",
            "balances adjust 0198 --coins --points-of velo --amount 5 --reason x",
            "coupons add summer --codes-file x --generate 5",
            "settings set",
            "subscriptions create",
            "subscriptions create --url https://x --no-retries --retry-delays 5s",
            "serve --set nonsense",
            "deliveries list 0198 --state pending",
            "dead-letters drop 0198 --reason x",
            "dead-letters redrive 0198 --from-time soon",
            "replay 0198 --preview --no-wait",
            "events consume mail --from-start --from-sequence 5",
            "subscriptions create --url https://x --retry-delays soon",
        ];
        for line in wrong {
            let parsed = Cli::try_parse_from(["punchline"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_err(), "{line}");
        }
    }
}
