//! What the clock asks for: jobs over all members of a tenant, and holds that nobody finished.
//!
//! ```text
//! is a run due? ──▶ slices of members ──▶ those it concerns ──▶ commands ──▶ job.completed
//! ```
//!
//! # Invariants
//!
//! - One run at a time. It has one slice in memory, or the best of each leaderboard, and one small batch of
//!   commands under way: whoever reports consumptions waits for nothing but that batch.
//! - A run that was cut off begins again from the first member; the keys of its commands make what it did
//!   before harmless.
//! - A run that was missed is made up once, by the last that was due. What was due before an advertiser was taken
//!   on is not made up.
//!
//! # What is absent on purpose
//!
//! - Places kept on disk: a walk is short beside the day between two.
//! - What a run does to a member: the engine decides.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use punchline_engine::command::{Action, Command};
use punchline_engine::id::{CampaignId, LeaderboardId, MemberId, Tenant};
use punchline_engine::loyalty::job::{Job, Run, concerns};
use punchline_engine::loyalty::ledger::JobRun;
use punchline_engine::loyalty::member::Member;
use punchline_engine::loyalty::programme::Leaderboard;
use punchline_engine::loyalty::tenant::{Directory, TenantConfig};
use punchline_engine::time::UnixMillis;
use punchline_storage::views::{DueHold, ViewsError};
use tokio::sync::watch;

use crate::clock::{Clock, Stopwatch};
use crate::committer::{Outcome, Refusal, Unavailable};
use crate::node::Submitter;
use crate::threads::Blocking;

/// Members read at once: a fraction of a millisecond of the sequencer's time.
const SLICE: usize = 64;
/// Commands under way at once.
const BATCH: usize = 16;
/// A walk rests so many times as long as it worked: whoever reports consumptions has the rest of the machine.
const REST: u32 = 2;
/// Tenants whose houses are read at once.
const TENANTS_AT_ONCE: usize = 512;
/// Winners kept at once, of one round each; where there may be more, members are walked over once more.
const WINNERS_AT_ONCE: u32 = 100_000;
/// How often the clock is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Why a job did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Nothing is taken in or read.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A member cannot be read.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// There is no such tenant.
    #[error("there is no tenant {0}")]
    UnknownTenant(Tenant),
}

impl JobError {
    /// That nothing is taken in is told elsewhere, and not each second.
    fn log(&self, what: &str) {
        match self {
            JobError::Unavailable(why) => tracing::debug!(%why, what),
            JobError::Views(_) | JobError::UnknownTenant(_) => tracing::warn!(error = %self, what),
        }
    }
}

/// How a job of a tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub job: Job,
    /// The last run that came to its end.
    pub last: Option<JobRun>,
    /// The next one by the clock.
    pub next: Run,
    /// The one that is under way.
    pub running: Option<Progress>,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub run: Run,
    /// Members looked at.
    pub seen: u64,
    /// Members to whom something happened.
    pub concerned: u64,
}

/// A place in a leaderboard's round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub member_id: MemberId,
    /// Points in the round.
    pub score: i64,
}

/// The jobs of all tenants.
pub(crate) struct Jobs {
    clock: Arc<dyn Clock>,
    submitter: Submitter,
    directory: watch::Receiver<Arc<Directory>>,
    blocking: Blocking,
    /// Held by the run that is under way.
    turn: tokio::sync::Mutex<()>,
    running: Mutex<Option<(Tenant, Job, Progress)>>,
}

impl Jobs {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        submitter: Submitter,
        directory: watch::Receiver<Arc<Directory>>,
        blocking: Blocking,
    ) -> Arc<Jobs> {
        let (turn, running) = (tokio::sync::Mutex::default(), Mutex::default());
        Arc::new(Jobs { clock, submitter, directory, blocking, turn, running })
    }

    /// Runs what is due, until the node is gone.
    pub(crate) async fn keep_time(self: Arc<Jobs>) {
        tokio::join!(self.run_due_jobs(), self.time_out_holds());
    }

    async fn run_due_jobs(&self) {
        let mut directory = self.directory.clone();
        directory.mark_changed();
        let mut look_at = UnixMillis::MAX;
        while let Ok(changed) = directory.has_changed() {
            if changed || self.clock.now() >= look_at {
                directory.mark_unchanged();
                look_at = self.run_due().await.unwrap_or_else(|error| {
                    error.log("a job did not come to its end, it is tried again");
                    UnixMillis::MIN
                });
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Runs everything that is due; gives when something else will be.
    async fn run_due(&self) -> Result<UnixMillis, JobError> {
        let directory = self.directory.borrow().clone();
        let now = self.clock.now();
        let mut next = UnixMillis::MAX;
        let tenants: Vec<Tenant> = directory.tenants.keys().copied().collect();
        for tenants in tenants.chunks(TENANTS_AT_ONCE) {
            for (tenant, members, completed) in self.completed(tenants.to_vec()).await? {
                let config = &directory.tenants[&tenant];
                let since = directory.advertisers.get(&tenant.advertiser).map(|a| a.created_at);
                let mut due = Vec::new();
                for job in Job::ALL {
                    next = next.min(job.next_run(&config.settings, now).at);
                    let run = job.last_run(&config.settings, now);
                    let is_due = match completed.get(&job) {
                        Some(last) => last.run.period < run.period,
                        None => since.is_none_or(|since| since <= run.at),
                    };
                    if is_due && members > 0 {
                        due.push((run.at, job));
                    }
                }
                due.sort_unstable();
                for (_, job) in due {
                    self.run(tenant, job).await?;
                }
            }
        }
        Ok(next)
    }

    /// Members and last completed runs of tenants.
    async fn completed(&self, tenants: Vec<Tenant>) -> Result<Vec<(Tenant, u64, BTreeMap<Job, JobRun>)>, JobError> {
        let read = self.submitter.read(move |views| {
            let house = |tenant| {
                let house = views.houses().get(&tenant);
                (tenant, house.map_or(0, |h| h.members), house.map(|h| h.jobs.clone()).unwrap_or_default())
            };
            tenants.into_iter().map(house).collect::<Vec<_>>()
        });
        let completed = read.await?;
        for job in Job::ALL {
            let last = completed.iter().filter_map(|(_, _, jobs)| jobs.get(&job)).map(|run| run.completed_at).max();
            if let Some(last) = last {
                succeeded(job, last);
            }
        }
        Ok(completed)
    }

    fn config(&self, tenant: Tenant) -> Result<Arc<TenantConfig>, JobError> {
        self.directory.borrow().tenant(tenant).cloned().ok_or(JobError::UnknownTenant(tenant))
    }

    /// Does the last run that is due, from the beginning; gives what it came to.
    pub(crate) async fn run(&self, tenant: Tenant, job: Job) -> Result<Progress, JobError> {
        let _turn = self.turn.lock().await;
        let run = job.last_run(&self.config(tenant)?.settings, self.clock.now());
        let last = self.completed(vec![tenant]).await?.pop().and_then(|(_, _, jobs)| jobs.get(&job).map(|j| j.run));
        *self.lock() = Some((tenant, job, Progress { run, seen: 0, concerned: 0 }));
        let walked = match job {
            Job::Recalculation | Job::Expiry | Job::Birthdays => self.run_for_each(tenant, job, run, last).await,
            Job::Leaderboards => self.award(tenant, run, last).await,
        };
        let (_, _, progress) = self.lock().take().expect("whoever has the turn put it there");
        walked?;
        let action = Action::CompleteJob { job, run, concerned: progress.concerned };
        self.carry_out(vec![Command { tenant, request_id: None, action }]).await?;
        succeeded(job, self.clock.now());
        tracing::debug!(%tenant, job = job.as_str(), seen = progress.seen, concerned = progress.concerned, "a job ran");
        Ok(progress)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Tenant, Job, Progress)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, seen: usize, concerned: u64) {
        if let Some((_, _, progress)) = &mut *self.lock() {
            progress.seen += seen as u64;
            progress.concerned += concerned;
        }
    }

    async fn run_for_each(&self, tenant: Tenant, job: Job, run: Run, last: Option<Run>) -> Result<(), JobError> {
        let mut walk = self.walk(tenant);
        while let Some(members) = walk.next().await? {
            let (seen, config) = (members.len(), self.config(tenant)?);
            // Conditions of segments are looked at: not for async tasks, nor for the sequencer.
            let filter = move || {
                let concerned = members.iter().filter(|member| concerns(job, &config, member, run, last));
                concerned.map(|member| member.id).collect::<Vec<_>>()
            };
            let members = self.blocking.run(filter).await.ok_or(Unavailable::ShuttingDown)?;
            let mut concerned = 0;
            for batch in members.chunks(BATCH) {
                let action = |member_id| Action::RunJob { job, member_id, run, last };
                concerned += self.carry_out(commands(tenant, batch.iter().map(|id| action(*id)))).await?;
            }
            self.advance(seen, concerned);
        }
        Ok(())
    }

    /// Rewards the best of each round that ended since the last run.
    async fn award(&self, tenant: Tenant, run: Run, last: Option<Run>) -> Result<(), JobError> {
        let config = self.config(tenant)?;
        let mut boards: Vec<(CampaignId, Leaderboard)> = Vec::new();
        for (id, campaign) in &config.campaigns {
            boards.extend(campaign.programme.leaderboards.iter().map(|board| (id.clone(), board.clone())));
        }
        while !boards.is_empty() {
            let mut winners = 0;
            let fit = boards.iter().take_while(|(_, board)| {
                winners += board.winners();
                winners <= WINNERS_AT_ONCE
            });
            let rest = boards.split_off(fit.count().max(1));
            self.award_boards(tenant, &boards, run, last).await?;
            boards = rest;
        }
        Ok(())
    }

    async fn award_boards(
        &self,
        tenant: Tenant,
        boards: &[(CampaignId, Leaderboard)],
        run: Run,
        last: Option<Run>,
    ) -> Result<(), JobError> {
        // By board, the rounds that ended: a card keeps no more than two of a board, whichever they are.
        let mut rounds: Vec<BTreeMap<i32, Top>> = boards.iter().map(|_| BTreeMap::new()).collect();
        let mut walk = self.walk(tenant);
        while let Some(members) = walk.next().await? {
            for member in members.iter().filter(|member| !member.is_gone()) {
                for ((campaign_id, board), rounds) in boards.iter().zip(&mut rounds) {
                    let running = board.period.number(run.at);
                    let first = last.map_or(running - 2, |last| board.period.number(last.at));
                    let scores = member.card(campaign_id).map(|card| card.scores.as_slice()).unwrap_or_default();
                    for score in scores.iter().filter(|score| score.leaderboard_id == board.id) {
                        if (first..running).contains(&score.round) {
                            let top = rounds.entry(score.round).or_insert_with(|| Top::of(board.winners() as usize));
                            top.put(score.points, member.id);
                        }
                    }
                }
            }
            self.advance(members.len(), 0);
        }
        for ((campaign_id, board), rounds) in boards.iter().zip(rounds) {
            for (round, top) in rounds {
                let award = |(rank, standing): (u32, Standing)| Action::AwardLeaderboard {
                    member_id: standing.member_id,
                    campaign_id: campaign_id.clone(),
                    leaderboard_id: board.id.clone(),
                    round,
                    rank,
                    score: standing.score,
                };
                let ranked = (1..).zip(top.ranked()).filter(|(rank, _)| board.prize(*rank).is_some());
                let awards: Vec<Action> = ranked.map(award).collect();
                for batch in awards.chunks(BATCH) {
                    let concerned = self.carry_out(commands(tenant, batch.iter().cloned())).await?;
                    self.advance(0, concerned);
                }
            }
        }
        Ok(())
    }

    /// The best `n` of a round.
    pub(crate) async fn standings(
        &self,
        tenant: Tenant,
        campaign: &CampaignId,
        board: &LeaderboardId,
        round: i32,
        n: usize,
    ) -> Result<Vec<Standing>, JobError> {
        let mut top = Top::of(n);
        let mut walk = self.walk(tenant);
        while let Some(members) = walk.next().await? {
            for member in members.iter().filter(|member| !member.is_gone()) {
                top.put(member.card(campaign).map_or(0, |card| card.score(board, round)), member.id);
            }
        }
        Ok(top.ranked())
    }

    /// How the jobs stand: of one tenant, or of all.
    pub(crate) async fn list(&self, tenant: Option<Tenant>) -> Result<Vec<JobStatus>, JobError> {
        let directory = self.directory.borrow().clone();
        let wanted = directory.tenants.keys().copied().filter(|t| tenant.is_none_or(|tenant| *t == tenant));
        let wanted: Vec<Tenant> = wanted.collect();
        if let Some(tenant) = tenant.filter(|_| wanted.is_empty()) {
            return Err(JobError::UnknownTenant(tenant));
        }
        let (now, mut found) = (self.clock.now(), Vec::new());
        for tenants in wanted.chunks(TENANTS_AT_ONCE) {
            for (tenant, _, completed) in self.completed(tenants.to_vec()).await? {
                let settings = &directory.tenants[&tenant].settings;
                let running = *self.lock();
                let running = |job| running.filter(|(t, j, _)| (*t, *j) == (tenant, job)).map(|(_, _, p)| p);
                found.extend(Job::ALL.into_iter().map(|job| JobStatus {
                    tenant,
                    job,
                    last: completed.get(&job).copied(),
                    next: job.next_run(settings, now),
                    running: running(job),
                }));
            }
        }
        Ok(found)
    }

    fn walk(&self, tenant: Tenant) -> Walk<'_> {
        Walk { jobs: self, tenant, after: None, ended: false, since_slice: Stopwatch::start() }
    }

    /// Carries commands out; gives how many of them changed anything.
    async fn carry_out(&self, commands: Vec<Command>) -> Result<u64, JobError> {
        let mut changed = 0;
        for answer in self.submitter.submit_all(commands, true).await? {
            match answer {
                Ok(Outcome::Accepted(_)) => changed += 1,
                Ok(Outcome::Already(_)) => {}
                Err(Refusal::Rejected(why)) => tracing::warn!(%why, "what the clock asked for was refused"),
                Err(Refusal::Unavailable(why)) => return Err(why.into()),
            }
        }
        Ok(changed)
    }

    async fn time_out_holds(&self) {
        loop {
            match self.time_out_due().await {
                // There may be more.
                Ok(timed_out) if timed_out >= BATCH as u64 => continue,
                Ok(_) => {}
                Err(JobError::Unavailable(Unavailable::ShuttingDown)) => return,
                Err(error) => error.log("holds that are due could not be looked at"),
            }
            tokio::time::sleep(TICK).await;
        }
    }

    async fn time_out_due(&self) -> Result<u64, JobError> {
        let now = self.clock.now();
        let due = self.submitter.read(move |views| views.due_holds(now, BATCH)).await??;
        let time_out = |due: DueHold| Command {
            tenant: due.tenant,
            request_id: None,
            action: Action::TimeOutHold { member_id: due.member_id, hold_id: due.hold_id },
        };
        self.carry_out(due.into_iter().map(time_out).collect()).await
    }
}

fn commands(tenant: Tenant, actions: impl Iterator<Item = Action>) -> Vec<Command> {
    actions.map(|action| Command { tenant, request_id: None, action }).collect()
}

fn succeeded(job: Job, at: UnixMillis) {
    metrics::gauge!("punchline_job_last_success_timestamp_seconds", "job" => job.as_str()).set(at.0 as f64 / 1_000.0);
}

/// A way over all members of a tenant.
struct Walk<'a> {
    jobs: &'a Jobs,
    tenant: Tenant,
    after: Option<MemberId>,
    ended: bool,
    /// Since the last slice was asked for.
    since_slice: Stopwatch,
}

impl Walk<'_> {
    async fn next(&mut self) -> Result<Option<Vec<Member>>, JobError> {
        if self.ended {
            return Ok(None);
        }
        let (tenant, after) = (self.tenant, self.after);
        if after.is_some() {
            tokio::time::sleep(self.since_slice.elapsed() * REST).await;
        }
        self.since_slice = Stopwatch::start();
        let members = self.jobs.submitter.read(move |views| views.members(tenant, after, SLICE)).await??;
        self.ended = members.len() < SLICE;
        self.after = members.last().map(|member| member.id);
        Ok(Some(members))
    }
}

/// The best of those put in: of equals the member that registered first.
struct Top {
    most: usize,
    /// The worst on top.
    kept: BinaryHeap<(Reverse<i64>, MemberId)>,
}

impl Top {
    fn of(most: usize) -> Top {
        Top { most, kept: BinaryHeap::new() }
    }

    /// Who has no points has no place.
    fn put(&mut self, score: i64, member: MemberId) {
        if score > 0 {
            self.kept.push((Reverse(score), member));
            if self.kept.len() > self.most {
                self.kept.pop();
            }
        }
    }

    fn ranked(self) -> Vec<Standing> {
        let best_first = self.kept.into_sorted_vec();
        best_first.into_iter().map(|(Reverse(score), member_id)| Standing { member_id, score }).collect()
    }
}
