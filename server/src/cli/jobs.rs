//! `replay` and `jobs`: work that a server does by itself, and that one may watch or ask for.
//!
//! ```text
//! replay, dead-letters redrive ──▶ job on the server ──GetDeliveryJob──▶ bar ──▶ the job as it ended
//! ```
//!
//! # Invariants
//!
//! - Who stops watching stops nothing: only `jobs cancel` does.

use std::time::Duration;

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use punchline_proto::v1;
use punchline_proto::v1::admin_service_client::AdminServiceClient;
use punchline_proto::v1::delivery_service_client::DeliveryServiceClient;
use punchline_proto::v1::subscription_service_client::SubscriptionServiceClient;
use tonic::{Code, Status};

use super::client::Client;
use super::failure::Failure;
use super::input;
use super::message::{json, json_all, json_of};
use super::output::{self, Answer};
use super::progress::Progress;

/// How often a job is asked how it stands, at first and later: a small job should not seem slow.
const POLL_FIRST: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_millis(500);
/// How long a lost server is left alone.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// `replay`.
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// As `subscriptions list` or `consumers list` shows it
    subscription_id: String,
    /// The first position wanted; from the start if absent
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, hide_default_value = true)]
    from_sequence: u64,
    /// The last position wanted; up to the head if absent
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0, hide_default_value = true)]
    to_sequence: u64,
    /// Only what happened from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    from_time: Option<Timestamp>,
    /// Only what happened before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = input::time)]
    to_time: Option<Timestamp>,
    /// Only this type, as points.*; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    event_types: Vec<String>,
    /// Only this member's; may be repeated
    #[arg(long = "member", value_name = "MEMBER_ID")]
    members: Vec<String>,
    /// At most so many, oldest first; all if absent
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    limit: u64,
    /// At most so many a second; as fast as they are taken if absent
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    max_per_second: u32,
    /// Count only
    #[arg(long)]
    preview: bool,
    /// Start it, and do not wait for its end
    #[arg(long, conflicts_with = "preview")]
    no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// What the clock does, with last and next runs; or jobs of one subscription
    List {
        /// All of its jobs that run, and the newest that ended; as `subscriptions list` or `consumers list` shows it
        subscription_id: Option<String>,
    },
    /// Run a job of the clock now, for the period that was due last, and wait for its end
    Run {
        /// As `jobs list` shows it
        job: String,
    },
    /// How a job stands
    Get {
        #[command(flatten)]
        job: JobRef,
        /// Wait for its end
        #[arg(long)]
        wait: bool,
    },
    /// Stop a job; what it has put back stays put back
    Cancel(JobRef),
}

/// One job of one subscription.
#[derive(Args, Debug)]
pub(super) struct JobRef {
    /// As `subscriptions list` or `consumers list` shows it
    subscription_id: String,
    /// As `jobs list` shows it
    job_id: String,
}

const CLOCK_COLUMNS: &[&str] = &["job", "next_run_at", "last_run_at", "last_completed_at", "last_concerned", "running"];
const COLUMNS: &[&str] = &["job_id", "kind", "state", "started_at", "from_sequence", "to_sequence", "done", "put_back"];

pub(super) async fn replay(args: ReplayArgs, client: &Client) -> Result<Answer, Failure> {
    let request = v1::ReplayEventsRequest {
        subscription_id: args.subscription_id,
        from_sequence: args.from_sequence,
        to_sequence: args.to_sequence,
        from_time: args.from_time,
        to_time: args.to_time,
        event_types: args.event_types,
        member_ids: args.members,
        limit: args.limit,
        max_per_second: args.max_per_second,
        preview: args.preview,
    };
    let replayed = DeliveryServiceClient::new(client.service()).replay_events(request).await?.into_inner();
    match replayed.job {
        Some(job) => begun(job, args.no_wait, client).await,
        None => {
            if replayed.incomplete {
                output::note("the range is long: there are more than were counted");
            }
            let counted = serde_json::json!({ "matching": replayed.matching, "incomplete": replayed.incomplete });
            Ok(Answer::One(counted))
        }
    }
}

pub(super) async fn jobs(command: JobsCommand, client: &Client) -> Result<Answer, Failure> {
    let mut service = DeliveryServiceClient::new(client.service());
    match command {
        JobsCommand::List { subscription_id: None } => {
            let mut admin = AdminServiceClient::new(client.service());
            let listed = admin.list_jobs(v1::ListJobsRequest {}).await?.into_inner();
            Ok(Answer::Rows(CLOCK_COLUMNS, json_all(&listed.jobs)))
        }
        JobsCommand::Run { job } => {
            let mut admin = AdminServiceClient::new(client.service());
            Ok(Answer::One(json_of(&admin.run_job(v1::RunJobRequest { job }).await?.into_inner().job)))
        }
        JobsCommand::List { subscription_id: Some(subscription_id) } => {
            let request = v1::ListDeliveryJobsRequest { subscription_id };
            let listed = service.list_delivery_jobs(request).await?.into_inner();
            let row = |job: &v1::DeliveryJob| {
                let mut row = json(job);
                row["done"] = format!("{:.0}%", job.progress * 100.0).into();
                row
            };
            Ok(Answer::Rows(COLUMNS, listed.jobs.iter().map(row).collect()))
        }
        JobsCommand::Get { job: JobRef { subscription_id, job_id }, wait } => {
            let request = v1::GetDeliveryJobRequest { subscription_id, job_id };
            let job = service.get_delivery_job(request).await?.into_inner().job;
            match job {
                Some(job) if wait => watch(job, client).await,
                job => Ok(Answer::One(json_of(&job))),
            }
        }
        JobsCommand::Cancel(JobRef { subscription_id, job_id }) => {
            let request = v1::CancelDeliveryJobRequest { subscription_id, job_id };
            Ok(Answer::One(json_of(&service.cancel_delivery_job(request).await?.into_inner().job)))
        }
    }
}

/// A job that was started: as it is, or as it ends.
pub(super) async fn begun(job: v1::DeliveryJob, no_wait: bool, client: &Client) -> Result<Answer, Failure> {
    output::note(&format!("started job {}", job.job_id));
    if no_wait { Ok(Answer::One(json(&job))) } else { watch(job, client).await }
}

/// Shows how a job comes along until it ends.
async fn watch(mut job: v1::DeliveryJob, client: &Client) -> Result<Answer, Failure> {
    let mut service = DeliveryServiceClient::new(client.service());
    let progress = Progress::of_job();
    let mut poll = POLL_FIRST;
    let mut told_stopped = false;
    while job.state() == v1::DeliveryJobState::Running {
        progress.at_part(job.progress, format!("{} put back", job.put_back));
        tokio::select! {
            () = tokio::time::sleep(poll) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                progress.finish();
                return Err(Failure::Interrupted(left_running(&job)));
            }
        }
        poll = (poll * 2).min(POLL);
        let request =
            v1::GetDeliveryJobRequest { subscription_id: job.subscription_id.clone(), job_id: job.job_id.clone() };
        match service.get_delivery_job(request).await {
            Ok(got) => job = owed(got.into_inner().job)?,
            // It survives a restart, and so does who waits for it.
            Err(status) if status.code() == Code::Unavailable => {
                progress.note(&format!("{}; trying again", status.message()));
                tokio::time::sleep(RECONNECT_DELAY).await;
                continue;
            }
            Err(status) => return Err(status.into()),
        }
        if poll == POLL && !told_stopped && job.state() == v1::DeliveryJobState::Running {
            told_stopped = true;
            if let Some(why) = stopped(&job.subscription_id, client).await {
                progress.note(&why);
            }
        }
    }
    progress.finish();
    let answer = Answer::One(json(&job));
    if job.state() == v1::DeliveryJobState::Completed {
        return Ok(answer);
    }
    let failure = Failure::Negative(format!("job {} was cancelled", job.job_id));
    Ok(Answer::Although(Box::new(answer), failure))
}

fn owed(job: Option<v1::DeliveryJob>) -> Result<v1::DeliveryJob, Failure> {
    job.ok_or_else(|| Status::internal("the answer holds no job").into())
}

/// Why a job may wait for long: its subscription is not served.
async fn stopped(subscription_id: &str, client: &Client) -> Option<String> {
    let request = v1::GetSubscriptionRequest { subscription_id: subscription_id.to_owned() };
    let answer = SubscriptionServiceClient::new(client.service()).get_subscription(request).await.ok()?;
    let subscription = answer.into_inner().subscription?;
    if subscription.url.is_empty() {
        // What is put back is only taken up where somebody takes it.
        return Some("a consumer's job may wait until the consumer is connected: `events consume`".to_owned());
    }
    let how = match subscription.state() {
        v1::SubscriptionState::Paused => "paused",
        v1::SubscriptionState::Disabled => "disabled",
        v1::SubscriptionState::Active if subscription.breaker() == v1::BreakerState::Open => {
            return Some("the breaker is open: the job waits for the endpoint".to_owned());
        }
        v1::SubscriptionState::Active | v1::SubscriptionState::Unspecified => return None,
    };
    Some(format!("the subscription is {how}: the job waits for `subscriptions resume {subscription_id}`"))
}

fn left_running(job: &v1::DeliveryJob) -> String {
    let v1::DeliveryJob { subscription_id: id, job_id, .. } = job;
    format!(
        "job {job_id} goes on without you. `punchline jobs get {id} {job_id} --wait` watches it again, \
         `punchline jobs cancel {id} {job_id}` stops it"
    )
}
