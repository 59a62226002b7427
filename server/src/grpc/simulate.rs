//! Dry runs: a consumption that nobody reports, and a changed campaign against the past.
//!
//! # Invariants
//!
//! - Nothing is written, and no id is used up.
//! - One simulation of a campaign runs at a time: what it remembers of members is bounded, but not small.

use std::time::Duration;

use futures_util::stream::BoxStream;
use punchline_engine::command::{Action, Command};
use punchline_engine::decide::simulate::{MEMBERS_MAX, Side, Simulation, Totals};
use punchline_engine::dispatch::subscription::bit;
use punchline_engine::event::EventType;
use punchline_engine::id::{CampaignId, MemberId, RuleId, Sequence, Tenant};
use punchline_engine::loyalty::campaign::Campaign;
use punchline_engine::loyalty::tenant::Scope;
use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;
use punchline_runtime::feed::{EventRef, Wanted};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::delivery::Range;
use super::{Api, Authorized};
use crate::convert::campaign::{campaign, campaign_field};
use crate::convert::required;
use crate::refuse::Refused;

/// What a simulation answers with.
pub(super) type Simulated = BoxStream<'static, Result<v1::SimulateCampaignResponse, Status>>;

/// Simulations of the whole server at once.
static RUNNING: Semaphore = Semaphore::const_new(1);
/// How often a simulation says how far it has come.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Messages that wait for a slow client, before the simulation waits for it.
const MESSAGES_WAITING: usize = 4;
/// Members read between two commands.
const MEMBERS_READ: usize = 256;

impl Api {
    pub(super) async fn simulate_past(
        &self,
        request: Request<v1::SimulateCampaignRequest>,
    ) -> Result<Response<Simulated>, Status> {
        let caller = Authorized { api: self.clone(), metadata: request.metadata().clone(), scope: Scope::Read };
        let tenant = caller.tenant()?;
        let request = request.into_inner();
        let campaign = campaign(required("campaign", request.campaign)?)?;
        let is_new = !self.config(tenant)?.campaigns.contains_key(&campaign.id);
        let action = match is_new {
            true => Action::CreateCampaign { campaign: campaign.clone() },
            false => Action::UpdateCampaign { campaign: campaign.clone(), etag: None },
        };
        self.try_out(&Command { tenant, request_id: None, action }).map_err(campaign_field)?;
        let range = Range {
            from: request.from_sequence,
            to: request.to_sequence,
            from_time: request.from_time,
            to_time: request.to_time,
        };
        let (from, to) = self.positions(range).await?;
        let (sender, messages) = mpsc::channel(MESSAGES_WAITING);
        let past = Past { caller, campaign, is_new, from, to, sender: sender.clone() };
        tokio::spawn(async move {
            let last = past.run().await.map_err(Status::from);
            // Where nobody listens any more, nothing is lost.
            drop(sender.send(last).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// A simulation's task.
struct Past {
    caller: Authorized,
    campaign: Campaign,
    is_new: bool,
    from: Sequence,
    to: Sequence,
    sender: mpsc::Sender<Result<v1::SimulateCampaignResponse, Status>>,
}

impl Past {
    /// Reads block by block; gives the last message.
    async fn run(self) -> Result<v1::SimulateCampaignResponse, Refused> {
        let api = &self.caller.api;
        let _turn = RUNNING.acquire().await.map_err(|_| Refused::shutting_down())?;
        let tenant = self.caller.tenant()?;
        let campaign_id = self.campaign.id.clone();
        let config = api.config(tenant)?;
        let mut simulation = Simulation::new(tenant, &config, self.campaign.clone(), MEMBERS_MAX);
        let wanted = Wanted { tenant, types: bit(EventType::ConsumptionRecorded), member: None };
        let (mut position, mut told) = (self.from, None::<Stopwatch>);
        while position <= self.to {
            self.caller.tenant()?;
            if *api.down.borrow() {
                return Err(Refused::shutting_down());
            }
            if told.as_ref().is_none_or(|told| told.elapsed() >= PROGRESS_EVERY) {
                let progress = v1::SimulationProgress {
                    next_sequence: position.0,
                    to_sequence: self.to.0,
                    consumptions: simulation.consumptions,
                };
                let kind = Some(v1::simulate_campaign_response::Kind::Progress(progress));
                if self.sender.send(Ok(v1::SimulateCampaignResponse { kind })).await.is_err() {
                    // Nobody listens any more.
                    return Err(Refused::new(tonic::Code::Cancelled, 499, "CANCELLED", "the caller has gone"));
                }
                told = Some(Stopwatch::start());
            }
            let page = api.journal(move |feed| feed.read_block(&wanted, position)).await?;
            let to = self.to;
            let events: Vec<EventRef> = page.events.into_iter().filter(|e| e.get().sequence <= to).collect();
            self.introduce(&mut simulation, tenant, &campaign_id, &events).await?;
            let taken = tokio::task::spawn_blocking(move || {
                events.iter().for_each(|event| simulation.take(event.record()));
                simulation
            });
            simulation = taken.await.map_err(|error| Refused::internal("simulate a campaign", &error))?;
            position = page.next.max(position.next());
        }
        let kind = Some(v1::simulate_campaign_response::Kind::Result(result(&simulation)));
        Ok(v1::SimulateCampaignResponse { kind })
    }

    async fn introduce(
        &self,
        simulation: &mut Simulation,
        tenant: Tenant,
        campaign_id: &CampaignId,
        events: &[EventRef],
    ) -> Result<(), Refused> {
        let mut unknown: Vec<MemberId> = events.iter().filter_map(|event| event.get().member).collect();
        unknown.retain(|id| simulation.wants(*id));
        unknown.sort();
        unknown.dedup();
        for ids in unknown.chunks(MEMBERS_READ) {
            let ids = ids.to_vec();
            let found = self.caller.api.read(move |views| {
                let member = |id: MemberId| Ok((id, views.member(tenant, id)?.cloned()));
                ids.into_iter().map(member).collect::<Result<Vec<_>, _>>()
            });
            for (id, member) in found.await? {
                let counts = |member: &punchline_engine::loyalty::member::Member| {
                    self.is_new || member.card(campaign_id).is_some()
                };
                if simulation.wants(id) {
                    simulation.introduce(id, member.filter(counts));
                }
            }
        }
        Ok(())
    }
}

fn result(simulation: &Simulation) -> v1::SimulationResult {
    let (given, would_give) = (&simulation.given, &simulation.would_give);
    let mut rules: Vec<&RuleId> = given.rules.keys().chain(would_give.rules.keys()).collect();
    rules.sort();
    rules.dedup();
    let of = |side: &Side, rule: &RuleId| Some(totals(side.rules.get(rule).copied().unwrap_or_default()));
    let rule = |rule: &RuleId| v1::SimulatedRule {
        rule_id: rule.to_string(),
        given: of(given, rule),
        would_give: of(would_give, rule),
    };
    v1::SimulationResult {
        consumptions: simulation.consumptions,
        members: simulation.members(),
        consumptions_left_out: simulation.left_out,
        consumptions_failed: simulation.failed,
        given: Some(totals(given.totals)),
        would_give: Some(totals(would_give.totals)),
        rules: rules.into_iter().map(rule).collect(),
    }
}

fn totals(totals: Totals) -> v1::SimulationTotals {
    let Totals { members, points, coins, stamps, rows_completed, units, external } = totals;
    v1::SimulationTotals { members, points, coins, stamps, rows_completed, units, external }
}
