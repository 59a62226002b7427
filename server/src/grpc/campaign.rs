//! `CampaignService`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Bound;
use std::sync::Arc;

use punchline_engine::command::{Action, Command};
use punchline_engine::decide::{Decision, EmptyWorld, WorkingSet, World, decide, resolve};
use punchline_engine::event::{Event, Record, Recorded};
use punchline_engine::id::{CampaignId, KeySlot, MemberId, SegmentId, Sequence, Tenant};
use punchline_engine::loyalty::campaign::Campaign;
use punchline_engine::loyalty::consumption::{Consumption, Receipt};
use punchline_engine::loyalty::item::{Item, ItemKey};
use punchline_engine::loyalty::ledger::{Entry, House};
use punchline_engine::loyalty::member::Member;
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;
use punchline_proto::v1::campaign_service_server::CampaignService;
use punchline_storage::views::{Views, ViewsError};
use tonic::{Request, Response};

use super::simulate::Simulated;
use super::{Answer, Api};
use crate::convert::campaign::{campaign, campaign_field, to_wire};
use crate::convert::page::{self, List};
use crate::convert::programme::{segment, segment_to_wire, settings, settings_to_wire};
use crate::convert::{consumption, consumption_field, etag, event, id, receipt, required};
use crate::refuse::Refused;

impl Api {
    pub(super) fn campaign(&self, tenant: Tenant, id: &CampaignId) -> Result<Arc<Campaign>, Refused> {
        let found = self.config(tenant)?.campaigns.get(id).cloned();
        found.ok_or_else(|| Rejection::CampaignNotFound(id.clone()).into())
    }

    /// Decides what needs nothing but the configuration, and writes nothing.
    pub(super) fn try_out(&self, command: &Command) -> Result<Decision, Refused> {
        let set = WorkingSet {
            tenant: command.tenant,
            now: self.state.node.clock().now(),
            directory: &self.state.node.directory(),
            seen: None,
            owners: &[],
            member: None,
            house: &House::default(),
            next: Sequence(0),
            digest_key: &[],
            world: &EmptyWorld,
        };
        Ok(decide(&set, command)?)
    }

    fn segment(&self, tenant: Tenant, id: &SegmentId) -> Result<Option<v1::Segment>, Refused> {
        let found = self.config(tenant)?.segments.get(id).map(|segment| segment_to_wire(segment));
        found.map(Some).ok_or_else(|| Rejection::SegmentNotFound(id.clone()).into())
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
            match self.try_out(&Command { tenant, request_id: None, action }).map_err(campaign_field)? {
                Decision::Events(events) => campaign_in(&events),
                Decision::Already(_) => None,
            }
        } else {
            let stored = self.create(tenant, request_id, action).await.map_err(campaign_field)?;
            let id = campaign_in(&stored.record.events).map(|campaign| campaign.id);
            // As it is now: a repeated request_id may lead to one that was changed since.
            id.map(|id| self.campaign(tenant, &id)).transpose()?.map(|campaign| (*campaign).clone())
        };
        Ok(written.as_ref().map(to_wire))
    }
}

fn campaign_in(events: &[Event]) -> Option<Campaign> {
    match events.first() {
        Some(Event::CampaignCreated(event)) => Some((*event.campaign).clone()),
        Some(Event::CampaignUpdated(event)) => Some((*event.campaign).clone()),
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
        let etag = etag(&given.etag);
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
            let set = WorkingSet {
                tenant,
                now,
                directory: &self.state.node.directory(),
                seen: Some((first.first, &first.record)),
                owners: &[],
                member: None,
                house: &House::default(),
                next: Sequence(0),
                digest_key: self.state.node.member_keys().digest_key(),
                world: &EmptyWorld,
            };
            decide(&set, &repeated).map_err(Refused::from)?;
        }
        let record = simulated.map_err(Refused::from)?;
        let receipt = Receipt::of(Sequence(0), now, &record.events).map(receipt);
        let told = record.all_recorded(Sequence(0)).filter(Recorded::is_told);
        // They have no place in the journal.
        let nowhere = |told: Recorded<'_>| event(&Recorded { sequence: Sequence(0), cause: Sequence(0), ..told });
        let events = told.map(nowhere).collect();
        Ok(Response::new(v1::SimulateConsumptionResponse { receipt, events }))
    }

    type SimulateCampaignStream = Simulated;

    async fn simulate_campaign(
        &self,
        request: Request<v1::SimulateCampaignRequest>,
    ) -> Answer<Self::SimulateCampaignStream> {
        self.simulate_past(request).await
    }

    async fn list_leaderboard_standings(
        &self,
        request: Request<v1::ListLeaderboardStandingsRequest>,
    ) -> Answer<v1::ListLeaderboardStandingsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        Ok(Response::new(self.standings(tenant, request).await?))
    }

    async fn create_segment(&self, request: Request<v1::CreateSegmentRequest>) -> Answer<v1::CreateSegmentResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let given = segment(required("segment", request.segment)?)?;
        let segment_id = given.id.clone();
        self.submit(tenant, &request.request_id, Action::CreateSegment { segment: given }).await?;
        // As it is now: a repeated request_id may lead to one that was changed since.
        Ok(Response::new(v1::CreateSegmentResponse { segment: self.segment(tenant, &segment_id)? }))
    }

    async fn get_segment(&self, request: Request<v1::GetSegmentRequest>) -> Answer<v1::GetSegmentResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let segment = self.segment(tenant, &id("segment_id", &request.segment_id)?)?;
        Ok(Response::new(v1::GetSegmentResponse { segment }))
    }

    async fn list_segments(&self, request: Request<v1::ListSegmentsRequest>) -> Answer<v1::ListSegmentsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let size = page::size(request.page_size)?;
        let after: Option<SegmentId> = page::after(List::Segments, &request.page_token)?;
        let config = self.config(tenant)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found: Vec<_> = config.segments.range((from, Bound::Unbounded)).take(size + 1).collect();
        let next_page_token = page::cut(List::Segments, &mut found, size, |(id, _)| *id);
        let segments = found.into_iter().map(|(_, segment)| segment_to_wire(segment)).collect();
        Ok(Response::new(v1::ListSegmentsResponse { segments, next_page_token }))
    }

    async fn update_segment(&self, request: Request<v1::UpdateSegmentRequest>) -> Answer<v1::UpdateSegmentResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let given = required("segment", request.segment)?;
        let etag = etag(&given.etag);
        let given = segment(given)?;
        let segment_id = given.id.clone();
        self.submit(tenant, "", Action::UpdateSegment { segment: given, etag }).await?;
        Ok(Response::new(v1::UpdateSegmentResponse { segment: self.segment(tenant, &segment_id)? }))
    }

    async fn get_settings(&self, request: Request<v1::GetSettingsRequest>) -> Answer<v1::GetSettingsResponse> {
        let (tenant, _) = self.tenant(request, Scope::Read)?;
        let settings = Some(settings_to_wire(&self.config(tenant)?.settings));
        Ok(Response::new(v1::GetSettingsResponse { settings }))
    }

    async fn update_settings(&self, request: Request<v1::UpdateSettingsRequest>) -> Answer<v1::UpdateSettingsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let given = required("settings", request.settings)?;
        let etag = etag(&given.etag);
        self.submit(tenant, "", Action::UpdateSettings { settings: settings(given), etag }).await?;
        let settings = Some(settings_to_wire(&self.config(tenant)?.settings));
        Ok(Response::new(v1::UpdateSettingsResponse { settings }))
    }
}

/// What a consumption that nobody saw before would be written down as, and where its id was used up, if it was.
fn simulate(
    views: &mut Views,
    command: &Command,
    consumption: &Consumption,
    now: UnixMillis,
) -> Result<(Option<Sequence>, Result<Record, Rejection>), ViewsError> {
    let tenant = command.tenant;
    let key = command.key();
    let seen = match &key {
        Some(key) => views.seen(tenant, key)?,
        None => None,
    };
    let owners = (consumption.identifiers.iter())
        .map(|identifier| views.owner(tenant, identifier))
        .collect::<Result<Vec<_>, _>>()?;
    let member = match resolve(&consumption.identifiers, &owners) {
        Ok(Some(id)) => views.member(tenant, id)?.cloned(),
        _ => None,
    };
    let around = Around { tenant, views, failed: RefCell::default() };
    let no_house = House::default();
    let set = WorkingSet {
        tenant,
        now,
        directory: views.directory(),
        seen: None,
        owners: &owners,
        member: member.as_ref(),
        house: views.houses().get(&tenant).unwrap_or(&no_house),
        next: Sequence(0),
        // Nothing shows the digest of what is only simulated.
        digest_key: &[],
        world: &around,
    };
    let simulated = decide(&set, command).map(|decision| match decision {
        Decision::Events(events) => Record {
            tenant,
            time: now,
            member: member.as_ref().map(|m| m.id),
            key_slot: KeySlot::NONE,
            key,
            quiet: false,
            events,
        },
        Decision::Already(_) => unreachable!("a repeated consumption is refused"),
    });
    match around.failed.into_inner() {
        Some(error) => Err(error),
        None => Ok((seen, simulated)),
    }
}

/// What the views have of a tenant, for a decision that is not written down.
struct Around<'a> {
    tenant: Tenant,
    views: &'a Views,
    /// A row that could not be read: then the decision is worth nothing.
    failed: RefCell<Option<ViewsError>>,
}

impl Around<'_> {
    fn found<T>(&self, read: Result<Option<T>, ViewsError>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            None
        })
    }
}

impl std::fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Around({})", self.tenant)
    }
}

impl World for Around<'_> {
    fn member(&self, id: MemberId) -> Option<Member> {
        self.found(self.views.peek_member(self.tenant, id)).map(Cow::into_owned)
    }

    fn item(&self, key: &ItemKey) -> Option<Item> {
        self.found(self.views.item(self.tenant, key))
    }

    fn entry(&self, _: Sequence) -> Option<Entry> {
        // A consumption goes back to none.
        None
    }
}
