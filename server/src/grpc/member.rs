//! `MemberService`.

use punchline_engine::command::{Action, Command};
use punchline_engine::event::Event;
use punchline_engine::id::{MemberId, Tenant};
use punchline_engine::loyalty::member::{Identifier, Member};
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::Rejection;
use punchline_proto::v1;
use punchline_proto::v1::member_service_server::MemberService;
use punchline_runtime::committer::{self, Outcome, Unavailable};
use punchline_runtime::ids;
use tonic::{Request, Response};

use super::{Answer, Api, change, request_id_of};
use crate::convert::member::{MemberMask, member, profile_of};
use crate::convert::page::{self, List};
use crate::convert::{id, identifiers, required};
use crate::ingest;
use crate::refuse::Refused;

/// Most members of one batch, as of consumptions.
const BATCH_MAX: usize = 1_000;

impl Api {
    pub(super) async fn member(&self, tenant: Tenant, id: MemberId) -> Result<Member, Refused> {
        let found = self.read(move |views| Ok(views.member(tenant, id)?.cloned())).await?;
        found.ok_or_else(|| Rejection::MemberNotFound(id).into())
    }

    /// Carries out a command on a member, and answers with the member as it is then.
    async fn member_after(&self, tenant: Tenant, id: MemberId, action: Action) -> Result<Option<v1::Member>, Refused> {
        self.submit(tenant, "", action).await?;
        Ok(Some(member(&self.member(tenant, id).await?)))
    }

    fn registration(&self, request: v1::RegisterMemberRequest) -> Result<Action, Refused> {
        let join = request.join_campaign_ids.iter().enumerate();
        Ok(Action::RegisterMember {
            member_id: ids::member_id(self.state.node.clock().now()),
            identifiers: identifiers("identifiers", request.identifiers).map_err(Refused::from)?,
            profile: profile_of(request.profile),
            registration_source: request.registration_source,
            join: join.map(|(i, c)| id(&format!("join_campaign_ids[{i}]"), c)).collect::<Result<_, _>>()?,
            quiet: request.suppress_events,
        })
    }

    async fn update(
        &self,
        tenant: Tenant,
        mask: &MemberMask,
        request: &v1::UpdateMemberRequest,
    ) -> Result<Option<v1::Member>, Refused> {
        let member_id: MemberId = id("member_id", &request.member_id)?;
        let identifiers: Option<Vec<Identifier>> =
            mask.identifiers.then(|| identifiers("identifiers", request.identifiers.clone())).transpose()?;
        let given = profile_of(request.profile.clone());
        let mut etag = Some(request.etag.clone()).filter(|etag| !etag.is_empty());
        let profile = if mask.fields.is_empty() {
            mask.profile.then_some(given)
        } else {
            // Laid over what was read, so what was read must still be there when it is written.
            let current = self.member(tenant, member_id).await?;
            etag.get_or_insert(current.as_of.to_string());
            mask.lay(&given, &current.profile)
        };
        let action = Action::UpdateMember { member_id, identifiers, profile, etag };
        self.member_after(tenant, member_id, action).await
    }
}

impl Api {
    /// Who was registered by a command of a batch, now or the first time.
    async fn registered(&self, answer: Option<committer::Answer>) -> Result<MemberId, Refused> {
        let stored = match answer.unwrap_or_else(|| Err(Unavailable::ShuttingDown.into()))? {
            Outcome::Accepted(stored) => stored,
            Outcome::Already(sequence) => self.first_record(sequence).await?,
        };
        match stored.record.events.first() {
            Some(Event::MemberCreated(created)) => Ok(created.member_id),
            _ => Err(Refused::internal("find the member that was registered", &stored.first)),
        }
    }
}

#[tonic::async_trait]
impl MemberService for Api {
    async fn register_member(&self, request: Request<v1::RegisterMemberRequest>) -> Answer<v1::RegisterMemberResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let request_id = request.request_id.clone();
        let action = self.registration(request)?;
        let stored = self.create(tenant, &request_id, action).await?;
        let Some(Event::MemberCreated(created)) = stored.record.events.first() else {
            return Err(Refused::internal("find the member that was registered", &stored.first).into());
        };
        let registered = member(&self.member(tenant, created.member_id).await?);
        Ok(Response::new(v1::RegisterMemberResponse { member: Some(registered) }))
    }

    async fn update_member(&self, request: Request<v1::UpdateMemberRequest>) -> Answer<v1::UpdateMemberResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let mask = MemberMask::parse(&request)?;
        let member = change(&request.etag, || self.update(tenant, &mask, &request)).await?;
        Ok(Response::new(v1::UpdateMemberResponse { member }))
    }

    async fn get_member(&self, request: Request<v1::GetMemberRequest>) -> Answer<v1::GetMemberResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let found = self.member(tenant, id("member_id", &request.member_id)?).await?;
        Ok(Response::new(v1::GetMemberResponse { member: Some(member(&found)) }))
    }

    async fn lookup_member(&self, request: Request<v1::LookupMemberRequest>) -> Answer<v1::LookupMemberResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let v1::Identifier { key, value } = required("identifier", request.identifier)?;
        let identifier = Identifier::parse("identifier", &key, &value).map_err(Refused::from)?;
        let found = self.read(move |views| match views.owner(tenant, &identifier)? {
            Some(id) => Ok(views.member(tenant, id)?.cloned()),
            None => Ok(None),
        });
        let found = found.await?.ok_or_else(|| Refused::from(Rejection::AccountNotFound))?;
        Ok(Response::new(v1::LookupMemberResponse { member: Some(member(&found)) }))
    }

    async fn list_members(&self, request: Request<v1::ListMembersRequest>) -> Answer<v1::ListMembersResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let size = page::size(request.page_size)?;
        let after: Option<MemberId> = page::after(List::Members, &request.page_token)?;
        let mut found = self.read(move |views| views.members(tenant, after, size + 1)).await?;
        let next_page_token = page::cut(List::Members, &mut found, size, |member| member.id);
        let members = found.iter().map(member).collect();
        Ok(Response::new(v1::ListMembersResponse { members, next_page_token }))
    }

    async fn block_member(&self, request: Request<v1::BlockMemberRequest>) -> Answer<v1::BlockMemberResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let member_id = id("member_id", &request.member_id)?;
        let action = Action::BlockMember { member_id, reason: request.reason };
        let member = self.member_after(tenant, member_id, action).await?;
        Ok(Response::new(v1::BlockMemberResponse { member }))
    }

    async fn unblock_member(&self, request: Request<v1::UnblockMemberRequest>) -> Answer<v1::UnblockMemberResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let member_id = id("member_id", &request.member_id)?;
        let member = self.member_after(tenant, member_id, Action::UnblockMember { member_id }).await?;
        Ok(Response::new(v1::UnblockMemberResponse { member }))
    }

    async fn erase_member(&self, request: Request<v1::EraseMemberRequest>) -> Answer<v1::EraseMemberResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let member_id = id("member_id", &request.member_id)?;
        let member = self.member_after(tenant, member_id, Action::EraseMember { member_id }).await?;
        Ok(Response::new(v1::EraseMemberResponse { member }))
    }

    async fn join_campaign(&self, request: Request<v1::JoinCampaignRequest>) -> Answer<v1::JoinCampaignResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let member_id = id("member_id", &request.member_id)?;
        let action = Action::JoinCampaign { member_id, campaign_id: id("campaign_id", &request.campaign_id)? };
        let member = self.member_after(tenant, member_id, action).await?;
        Ok(Response::new(v1::JoinCampaignResponse { member }))
    }

    async fn batch_register_members(
        &self,
        request: Request<v1::BatchRegisterMembersRequest>,
    ) -> Answer<v1::BatchRegisterMembersResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let count = request.requests.len();
        if !(1..=BATCH_MAX).contains(&count) {
            let rule = format!("must be from 1 to {BATCH_MAX}");
            return Err(Refused::field("requests", count.to_string(), rule).into());
        }
        let mut commands = Vec::with_capacity(count);
        let checked: Vec<Option<Refused>> = (request.requests.into_iter())
            .map(|request| {
                let request_id = request_id_of(&request.request_id)?;
                let action = self.registration(request)?;
                commands.push(Command { tenant, request_id, action });
                Ok(())
            })
            .map(|checked: Result<(), Refused>| checked.err())
            .collect();
        let mut answers = ingest::carry_out(&self.state.node, commands, false).await.into_iter();
        let mut results = Vec::with_capacity(count);
        for refused in checked {
            let outcome = match refused {
                Some(refused) => Err(refused),
                None => self.registered(answers.next()).await,
            };
            let outcome = match outcome {
                Ok(member_id) => v1::register_member_result::Outcome::MemberId(member_id.to_string()),
                Err(refused) => v1::register_member_result::Outcome::Error(refused.into_rpc_status()),
            };
            results.push(v1::RegisterMemberResult { outcome: Some(outcome) });
        }
        Ok(Response::new(v1::BatchRegisterMembersResponse { results }))
    }

    async fn merge_members(&self, request: Request<v1::MergeMembersRequest>) -> Answer<v1::MergeMembersResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let member_id = id("member_id", &request.member_id)?;
        let from_member_id = id("from_member_id", &request.from_member_id)?;
        let action = Action::MergeMembers { member_id, from_member_id };
        let member = self.member_after(tenant, member_id, action).await?;
        Ok(Response::new(v1::MergeMembersResponse { member }))
    }
}
