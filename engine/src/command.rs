//! What somebody wants to happen: validated, and stamped with the time and the ids it will need.

use crate::dispatch::{
    AttemptLog, BreakerState, DeliveryJob, DeliveryProgress, PutBack, Subscription, SubscriptionState,
};
use crate::event::CommandKey;
use crate::id::{AdvertiserId, CampaignId, CredentialId, JobId, MemberId, Sequence, SubscriptionId, Tenant};
use crate::loyalty::campaign::Campaign;
use crate::loyalty::consumption::Consumption;
use crate::loyalty::fact::Fact;
use crate::loyalty::fact_type::FactType;
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::{Identifier, Profile};
use crate::loyalty::tenant::{Credential, SealedSecret};
use crate::time::UnixMillis;

/// A command of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Whose.
    pub tenant: Tenant,
    /// Makes a create verb exactly-once (AIP-155); `None` where the verb is idempotent or the caller
    /// did not ask for it.
    pub request_id: Option<String>,
    /// What.
    pub action: Action,
}

/// What is to happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Take a consumption in.
    RecordConsumption(Consumption),
    /// Take a fact in.
    PublishFact(Fact),
    /// Register a member under a new id.
    RegisterMember {
        /// The new id.
        member_id: MemberId,
        /// Known by; at least one.
        identifiers: Vec<Identifier>,
        /// What is known.
        profile: Profile,
        /// From where, as `campaign_link`.
        registration_source: String,
        /// Campaigns to join at once.
        join: Vec<CampaignId>,
    },
    /// Change identifiers, profile or both.
    UpdateMember {
        /// Who.
        member_id: MemberId,
        /// The new ones, all of them.
        identifiers: Option<Vec<Identifier>>,
        /// The new one, all of it.
        profile: Option<Profile>,
        /// What the caller believes to change: the etag it read.
        etag: Option<String>,
    },
    /// Register whoever the identifiers do not name yet, add to what is known of the member that they name.
    IdentifyMember {
        /// The id of a new one.
        member_id: MemberId,
        /// Known by; at least one.
        identifiers: Vec<Identifier>,
        /// What is known; what is empty in it stays as it is.
        profile: Profile,
        /// From where, if it is a new one.
        registration_source: String,
    },
    /// Let a member earn nothing.
    BlockMember {
        /// Who.
        member_id: MemberId,
        /// Why.
        reason: String,
    },
    /// Let a member earn again.
    UnblockMember {
        /// Who.
        member_id: MemberId,
    },
    /// Issue a card.
    JoinCampaign {
        /// Who.
        member_id: MemberId,
        /// What.
        campaign_id: CampaignId,
    },
    /// Correct a balance.
    AdjustBalance {
        /// Whose.
        member_id: MemberId,
        /// Of what.
        currency: Currency,
        /// Signed.
        amount: i64,
        /// Why.
        reason: String,
    },
    /// Take an advertiser on.
    CreateAdvertiser {
        /// Its id; the next free one if absent.
        advertiser_id: Option<AdvertiserId>,
        /// Its name.
        name: String,
    },
    /// Issue a key.
    IssueCredential {
        /// All of it.
        credential: Credential,
    },
    /// Stop a key.
    RevokeCredential {
        /// Which.
        credential_id: CredentialId,
    },
    /// Write a new campaign; its version is ignored.
    CreateCampaign {
        /// All of it.
        campaign: Campaign,
    },
    /// Replace a campaign; its version is ignored.
    UpdateCampaign {
        /// All of it.
        campaign: Campaign,
        /// What the caller believes to replace.
        etag: Option<String>,
    },
    /// Register a type of facts, or register it anew; its version is ignored.
    RegisterFactType {
        /// All of it.
        fact_type: FactType,
        /// What the caller believes to replace; `0` where it believes that there is none.
        etag: Option<String>,
    },
    /// Place a standing order.
    CreateSubscription {
        /// All of it; its version is ignored.
        subscription: Subscription,
        /// The first signing secret.
        secret: SealedSecret,
        /// Deliver what comes after this position; what comes from now on where absent.
        owed_after: Option<Sequence>,
    },
    /// Replace a standing order; its version is ignored.
    UpdateSubscription {
        /// All of it.
        subscription: Subscription,
        /// What the caller believes to replace.
        etag: Option<String>,
    },
    /// Withdraw a standing order.
    DeleteSubscription {
        /// Which.
        subscription_id: SubscriptionId,
    },
    /// Pause, resume, disable.
    SetSubscriptionState {
        /// Which.
        subscription_id: SubscriptionId,
        /// To what.
        state: SubscriptionState,
        /// Why.
        reason: String,
    },
    /// Sign with a new secret, and with the old one for a while.
    RotateSecret {
        /// Whose.
        subscription_id: SubscriptionId,
        /// The new one.
        secret: SealedSecret,
        /// Until when the old one signs too.
        previous_until: UnixMillis,
    },
    /// Take down how far the dispatcher has come.
    ReportDeliveries {
        /// Whose.
        subscription_id: SubscriptionId,
        /// What changed.
        progress: DeliveryProgress,
        /// Deliveries that died since the last report.
        died: Vec<Died>,
        /// How the breaker turned since the last report, in order.
        breaker: Vec<BreakerState>,
        /// Why the subscription is to be disabled, if it is.
        disable: Option<String>,
    },
    /// Begin a replay or a redrive.
    StartJob {
        /// On what.
        subscription_id: SubscriptionId,
        /// All of it.
        job: DeliveryJob,
    },
    /// Take down how far a job has come.
    AdvanceJob {
        /// On what.
        subscription_id: SubscriptionId,
        /// Which.
        job_id: JobId,
        /// Everything before was looked at.
        next_sequence: Sequence,
        /// Deliveries that it puts back.
        put_back: Vec<PutBack>,
    },
    /// End a job.
    EndJob {
        /// On what.
        subscription_id: SubscriptionId,
        /// Which.
        job: DeliveryJob,
        /// Whether somebody stopped it.
        cancelled: bool,
    },
    /// Give dead letters up.
    DropDeadLetters {
        /// Whose.
        subscription_id: SubscriptionId,
        /// Which; those that are not dead are left alone.
        sequences: Vec<Sequence>,
        /// Why.
        reason: String,
    },
    /// Put dead letters back.
    Redrive {
        /// Whose.
        subscription_id: SubscriptionId,
        /// Which; those that are not dead are left alone by the dispatcher.
        sequences: Vec<Sequence>,
    },
}

/// A delivery whose last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Died {
    /// The event.
    pub sequence: Sequence,
    /// Its type.
    pub event_type: String,
    /// Attempts made.
    pub attempts: u32,
    /// Why, as `http_500`.
    pub reason: String,
}

impl Died {
    /// Names the reason of the last attempt in a row's log.
    pub fn reason_of(last: Option<&AttemptLog>) -> String {
        match last {
            Some(AttemptLog { status: Some(status), error, .. }) if error.is_empty() => format!("http_{status}"),
            Some(last) => last.error.clone(),
            None => "unknown".into(),
        }
    }
}

impl Command {
    /// The exactly-once key that it uses up if accepted.
    pub fn key(&self) -> Option<CommandKey> {
        match &self.action {
            Action::RecordConsumption(c) => Some(CommandKey::Consumption(c.consumption_id.clone())),
            Action::PublishFact(f) => Some(CommandKey::Fact { source: f.source.clone(), fact_id: f.fact_id.clone() }),
            _ => self.request_id.clone().map(CommandKey::Request),
        }
    }

    /// Identifiers whose owners `decide` must know.
    pub fn identifiers(&self) -> &[Identifier] {
        match &self.action {
            Action::RecordConsumption(c) => &c.identifiers,
            Action::PublishFact(f) => &f.identifiers,
            Action::RegisterMember { identifiers, .. } | Action::IdentifyMember { identifiers, .. } => identifiers,
            Action::UpdateMember { identifiers: Some(identifiers), .. } => identifiers,
            _ => &[],
        }
    }

    /// Whether it is about the member that its identifiers name.
    pub fn names_by_identifiers(&self) -> bool {
        use Action::{IdentifyMember, PublishFact, RecordConsumption};
        matches!(self.action, RecordConsumption(_) | PublishFact(_) | IdentifyMember { .. })
    }

    /// The member that it names by id.
    pub fn member_id(&self) -> Option<MemberId> {
        match &self.action {
            Action::UpdateMember { member_id, .. }
            | Action::BlockMember { member_id, .. }
            | Action::UnblockMember { member_id }
            | Action::JoinCampaign { member_id, .. }
            | Action::AdjustBalance { member_id, .. } => Some(*member_id),
            _ => None,
        }
    }
}
