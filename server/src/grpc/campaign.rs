//! `CampaignService`.

use std::ops::Bound;
use std::sync::Arc;

use punchline_engine::command::{Action, Command};
use punchline_engine::decide::{Decision, WorkingSet, decide, resolve};
use punchline_engine::event::Event;
use punchline_engine::id::{CampaignId, Sequence, Tenant};
use punchline_engine::loyalty::campaign::Campaign;
use punchline_engine::loyalty::consumption::{Consumption, Receipt};
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;
use punchline_proto::v1::campaign_service_server::CampaignService;
use punchline_storage::views::{Views, ViewsError};
use tonic::{Request, Response};

use super::{Answer, Api};
use crate::convert::campaign::{campaign, to_wire};
use crate::convert::page::{self, List};
use crate::convert::{consumption, consumption_field, id, receipt, required};
use crate::refuse::Refused;

impl Api {
    fn campaign(&self, tenant: Tenant, id: &CampaignId) -> Result<Arc<Campaign>, Refused> {
        let found = self.config(tenant)?.campaigns.get(id).cloned();
        found.ok_or_else(|| Rejection::CampaignNotFound(id.clone()).into())
    }

    /// Writes a campaign, or only checks what writing it would come to.
    async fn write_campaign(
        &self,
        tenant: Tenant,
        request_id: &str,
        action: Action,
        validate_only: bool,
    ) -> Result<Option<v1::Campaign>, Refused> {
        let written = if validate_only {
            let directory = self.state.node.directory();
            let now = self.state.node.clock().now();
            let set = WorkingSet { now, directory: &directory, seen: None, owners: &[], member: None, digest_key: &[] };
            match decide(&set, &Command { tenant, request_id: None, action })? {
                Decision::Events(events) => campaign_in(&events),
                Decision::Already(_) => None,
            }
        } else {
            let stored = self.create(tenant, request_id, action).await?;
            let id = campaign_in(&stored.record.events).map(|campaign| campaign.id);
            // As it is now: a repeated request_id may lead to one that was changed since.
            id.map(|id| self.campaign(tenant, &id)).transpose()?.map(|campaign| (*campaign).clone())
        };
        Ok(written.as_ref().map(to_wire))
    }
}

fn campaign_in(events: &[Event]) -> Option<Campaign> {
    match events.first() {
        Some(Event::CampaignCreated(event)) => Some(event.campaign.clone()),
        Some(Event::CampaignUpdated(event)) => Some(event.campaign.clone()),
        _ => None,
    }
}

#[tonic::async_trait]
impl CampaignService for Api {
    async fn create_campaign(&self, request: Request<v1::CreateCampaignRequest>) -> Answer<v1::CreateCampaignResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let campaign = campaign(required("campaign", request.campaign)?)?;
        let action = Action::CreateCampaign { campaign };
        let campaign = self.write_campaign(tenant, &request.request_id, action, request.validate_only).await?;
        Ok(Response::new(v1::CreateCampaignResponse { campaign }))
    }

    async fn get_campaign(&self, request: Request<v1::GetCampaignRequest>) -> Answer<v1::GetCampaignResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let found = self.campaign(tenant, &id("campaign_id", &request.campaign_id)?)?;
        Ok(Response::new(v1::GetCampaignResponse { campaign: Some(to_wire(&found)) }))
    }

    async fn list_campaigns(&self, request: Request<v1::ListCampaignsRequest>) -> Answer<v1::ListCampaignsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let size = page::size(request.page_size)?;
        let after: Option<CampaignId> = page::after(List::Campaigns, &request.page_token)?;
        let config = self.config(tenant)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<_> = config.campaigns.range((from, Bound::Unbounded)).take(size + 1).collect();
        let next_page_token = page::cut(List::Campaigns, &mut found, size, |(id, _)| *id);
        let campaigns = found.into_iter().map(|(_, campaign)| to_wire(campaign)).collect();
        Ok(Response::new(v1::ListCampaignsResponse { campaigns, next_page_token }))
    }

    async fn update_campaign(&self, request: Request<v1::UpdateCampaignRequest>) -> Answer<v1::UpdateCampaignResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let given = required("campaign", request.campaign)?;
        let etag = Some(given.etag.clone()).filter(|etag| !etag.is_empty());
        let action = Action::UpdateCampaign { campaign: campaign(given)?, etag };
        let campaign = self.write_campaign(tenant, "", action, request.validate_only).await?;
        Ok(Response::new(v1::UpdateCampaignResponse { campaign }))
    }

    async fn simulate_consumption(
        &self,
        request: Request<v1::SimulateConsumptionRequest>,
    ) -> Answer<v1::SimulateConsumptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let raw = consumption(required("consumption", request.consumption)?);
        let now = self.state.node.clock().now();
        let checked = raw.check(now).map_err(|invalid| Refused::from(consumption_field("consumption", invalid)))?;
        let command = Command { tenant, request_id: None, action: Action::RecordConsumption(checked.clone()) };
        let repeated = command.clone();
        let (seen, simulated) = self.read(move |views| simulate(views, &command, &checked, now)).await?;
        if let Some(sequence) = seen
            && let Some(first) = self.journal(move |feed| feed.record_at(sequence)).await?
            && first.record.key == repeated.key()
        {
            let directory = self.state.node.directory();
            let seen = Some((first.first, &first.record));
            let digest_key = self.state.node.member_keys().digest_key();
            let set = WorkingSet { now, directory: &directory, seen, owners: &[], member: None, digest_key };
            decide(&set, &repeated).map_err(Refused::from)?;
        }
        let receipt = receipt(simulated.map_err(Refused::from)?);
        Ok(Response::new(v1::SimulateConsumptionResponse { receipt: Some(receipt) }))
    }
}

/// What a consumption that nobody saw before would come to, and where its id was used up, if it was.
fn simulate(
    views: &mut Views,
    command: &Command,
    consumption: &Consumption,
    now: UnixMillis,
) -> Result<(Option<Sequence>, Result<Receipt, Rejection>), ViewsError> {
    let tenant = command.tenant;
    let seen = match command.key() {
        Some(key) => views.seen(tenant, &key)?,
        None => None,
    };
    let owners = (consumption.identifiers.iter())
        .map(|identifier| views.owner(tenant, identifier))
        .collect::<Result<Vec<_>, _>>()?;
    let directory = views.directory().clone();
    let member = match resolve(&consumption.identifiers, &owners) {
        Ok(Some(id)) => views.member(tenant, id)?,
        _ => None,
    };
    // Nothing shows the digest of what is only simulated.
    let digest_key = &[];
    let set = WorkingSet { now, directory: &directory, seen: None, owners: &owners, member, digest_key };
    let simulated = decide(&set, command).map(|decision| match decision {
        Decision::Events(events) => {
            Receipt::of(Sequence(0), now, &events).expect("an accepted consumption's events begin with it")
        }
        Decision::Already(_) => unreachable!("a repeated consumption is refused"),
    });
    Ok((seen, simulated))
}
