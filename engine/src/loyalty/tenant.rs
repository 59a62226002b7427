//! The directory: advertisers, their keys, campaigns, fact types and subscriptions. Small, and always in memory.
//!
//! # Invariants
//!
//! - Both environments of an advertiser exist, or none.
//! - Nothing here holds a secret in the clear: API secrets as hashes, the others sealed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::dispatch::{Subscription, SubscriptionState};
use crate::event::{Event, Recorded, RewardCatalogueCreated, RewardCatalogueUpdated, SegmentCreated, SegmentUpdated};
use crate::id::{
    AdvertiserId, CampaignId, CouponBookId, CredentialId, Environment, RewardId, SegmentId, Sequence, SubscriptionId,
    Tenant,
};
use crate::loyalty::campaign::Campaign;
use crate::loyalty::coupon::CouponBook;
use crate::loyalty::fact_type::FactType;
use crate::loyalty::ledger::Currency;
use crate::loyalty::programme::{PointsPolicy, Segment, Settings};
use crate::loyalty::reward::Reward;
use crate::time::UnixMillis;

/// Most advertisers of one server: the directory is kept in memory.
pub const ADVERTISERS_MAX: usize = 10_000;
/// Most campaigns of one tenant.
pub const CAMPAIGNS_MAX: usize = 1_000;
/// Most keys of one tenant, revoked ones included.
pub const CREDENTIALS_MAX: usize = 1_000;
/// Most subscriptions of one tenant.
pub const SUBSCRIPTIONS_MAX: usize = 2_000;

/// Bytes that only the server can read: encrypted under its master key.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SealedSecret(pub Vec<u8>);

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealedSecret(…)")
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Report consumptions and facts.
    Ingest,
    /// Read members, balances, events, deliveries.
    Read,
    /// Change members, campaigns, subscriptions.
    Manage,
}

/// An `apiKey` and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// The `apiKey`.
    pub id: CredentialId,
    /// SHA-256 of the `apiSecret`.
    #[serde(skip)]
    pub secret_hash: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// What it is for, for people.
    pub description: String,
    /// Since when.
    pub created_at: UnixMillis,
    /// Since when not any more.
    pub revoked_at: Option<UnixMillis>,
    /// A key without a secret, which Segment's clients report with; its `secret_hash` is [`NO_SECRET`].
    /// Whoever knows it can report, so it opens nothing else; and a pair's key is never one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub write_key: bool,
}

/// What stands in place of a hash where there is no secret: the hash of nothing that is known.
pub const NO_SECRET: [u8; 32] = [0; 32];

/// A subscription with what changes apart from its definition.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionEntry {
    /// The definition.
    pub definition: Arc<Subscription>,
    /// Whether it is served.
    pub state: SubscriptionState,
    /// Why it is in that state, for people.
    pub state_reason: String,
    /// Signing secrets, newest first, each with the instant up to which it signs.
    pub secrets: Vec<(SealedSecret, Option<UnixMillis>)>,
    /// It is owed what comes after this position.
    pub owed_after: Sequence,
    /// Created.
    pub created_at: UnixMillis,
}

/// One tenant's configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TenantConfig {
    /// Keys.
    pub credentials: BTreeMap<CredentialId, Credential>,
    /// Campaigns.
    pub campaigns: BTreeMap<CampaignId, Arc<Campaign>>,
    /// Types of facts that were registered, by name.
    pub fact_types: BTreeMap<String, Arc<FactType>>,
    /// Standing orders.
    pub subscriptions: BTreeMap<SubscriptionId, SubscriptionEntry>,
    /// What holds for all campaigns.
    pub settings: Settings,
    /// Segments.
    pub segments: BTreeMap<SegmentId, Arc<Segment>>,
    /// The catalogue.
    pub rewards: BTreeMap<RewardId, Arc<Reward>>,
    /// Coupon books.
    pub coupon_books: BTreeMap<CouponBookId, Arc<CouponBook>>,
}

impl TenantConfig {
    /// What points or coins of a currency are subject to.
    pub fn policy(&self, currency: &Currency) -> PointsPolicy {
        match currency {
            Currency::Points(id) => self.campaigns.get(id).map(|c| c.programme.points).unwrap_or_default(),
            Currency::Coins => self.settings.coins,
        }
    }

    /// The longest time before an expiry at which anybody is told.
    pub fn expiring_soon_ms(&self) -> i64 {
        let campaigns = self.campaigns.values().map(|c| c.programme.points.expiring_soon_days);
        let days = campaigns.chain([self.settings.coins.expiring_soon_days]).max().unwrap_or(0);
        i64::from(days) * UnixMillis::DAY_MS
    }

    /// Whether a change of a member may lead to another: there are tiers, segments, rewards or leaderboards.
    pub fn follows_up(&self) -> bool {
        let programme = |c: &Arc<Campaign>| !c.programme.tiers.is_empty() || !c.programme.leaderboards.is_empty();
        !self.segments.is_empty() || !self.rewards.is_empty() || self.campaigns.values().any(programme)
    }
}

/// An advertiser.
#[derive(Debug, Clone, PartialEq)]
pub struct Advertiser {
    /// Its name, for people.
    pub name: String,
    /// Since when.
    pub created_at: UnixMillis,
}

/// Everything that is configured. Cloning is cheap: tenants are shared until one changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Directory {
    /// Advertisers.
    pub advertisers: BTreeMap<AdvertiserId, Advertiser>,
    /// Their environments.
    pub tenants: BTreeMap<Tenant, Arc<TenantConfig>>,
}

impl Directory {
    /// The configuration of a tenant.
    pub fn tenant(&self, tenant: Tenant) -> Option<&Arc<TenantConfig>> {
        self.tenants.get(&tenant)
    }

    /// A subscription, wherever it is.
    pub fn subscription(&self, id: SubscriptionId) -> Option<(Tenant, &SubscriptionEntry)> {
        self.tenants.iter().find_map(|(tenant, config)| Some((*tenant, config.subscriptions.get(&id)?)))
    }

    /// Folds an event in; returns whether it changed anything.
    ///
    /// # Panics
    ///
    /// If the event names what does not exist: `decide` checked it.
    pub fn apply(&mut self, recorded: &Recorded<'_>) -> bool {
        if let Event::AdvertiserCreated(event) = recorded.event {
            let advertiser = Advertiser { name: event.name.clone(), created_at: recorded.time };
            self.advertisers.insert(event.advertiser_id, advertiser);
            for environment in Environment::ALL {
                let tenant = Tenant { advertiser: event.advertiser_id, environment };
                self.tenants.insert(tenant, Arc::default());
            }
            return true;
        }
        if !concerns_directory(recorded.event) {
            return false;
        }
        let config = self.tenants.get_mut(&recorded.tenant).expect("decide checked that the tenant exists");
        Arc::make_mut(config).apply(recorded);
        true
    }
}

/// Whether an event changes the directory.
pub fn concerns_directory(event: &Event) -> bool {
    matches!(
        event,
        Event::AdvertiserCreated(_)
            | Event::CredentialIssued(_)
            | Event::CredentialRevoked(_)
            | Event::CampaignCreated(_)
            | Event::CampaignUpdated(_)
            | Event::FactTypeRegistered(_)
            | Event::SubscriptionCreated(_)
            | Event::SubscriptionUpdated(_)
            | Event::SubscriptionDeleted(_)
            | Event::SubscriptionPaused(_)
            | Event::SubscriptionResumed(_)
            | Event::SubscriptionDisabled(_)
            | Event::SubscriptionSecretRotated(_)
            | Event::SettingsUpdated(_)
            | Event::SegmentCreated(_)
            | Event::SegmentUpdated(_)
            | Event::RewardCatalogueCreated(_)
            | Event::RewardCatalogueUpdated(_)
            | Event::CouponBookCreated(_)
    )
}

impl TenantConfig {
    fn apply(&mut self, recorded: &Recorded<'_>) {
        match recorded.event {
            Event::CredentialIssued(e) => {
                self.credentials.insert(e.credential.id.clone(), e.credential.clone());
            }
            Event::CredentialRevoked(e) => {
                let credential = self.credentials.get_mut(&e.credential_id);
                credential.expect("decide checked it").revoked_at = Some(recorded.time);
            }
            Event::CampaignCreated(e) => {
                self.campaigns.insert(e.campaign.id.clone(), Arc::new((*e.campaign).clone()));
            }
            Event::CampaignUpdated(e) => {
                self.campaigns.insert(e.campaign.id.clone(), Arc::new((*e.campaign).clone()));
            }
            Event::FactTypeRegistered(e) => {
                self.fact_types.insert(e.fact_type.name.clone(), Arc::new(e.fact_type.clone()));
            }
            Event::SubscriptionCreated(e) => {
                let entry = SubscriptionEntry {
                    definition: Arc::new((*e.subscription).clone()),
                    state: SubscriptionState::Active,
                    state_reason: String::new(),
                    secrets: vec![(e.secret.clone(), None)],
                    owed_after: e.owed_after.unwrap_or(recorded.sequence),
                    created_at: recorded.time,
                };
                self.subscriptions.insert(e.subscription.id, entry);
            }
            Event::SubscriptionUpdated(e) => {
                self.subscription_mut(e.subscription.id).definition = Arc::new((*e.subscription).clone());
            }
            Event::SubscriptionDeleted(e) => {
                self.subscriptions.remove(&e.subscription_id);
            }
            Event::SubscriptionPaused(e) => self.turn(e.subscription_id, SubscriptionState::Paused, &e.reason),
            Event::SubscriptionResumed(e) => self.turn(e.subscription_id, SubscriptionState::Active, &e.reason),
            Event::SubscriptionDisabled(e) => self.turn(e.subscription_id, SubscriptionState::Disabled, &e.reason),
            Event::SubscriptionSecretRotated(e) => {
                let entry = self.subscription_mut(e.subscription_id);
                entry.secrets.truncate(1);
                entry.secrets[0].1 = Some(e.previous_until);
                entry.secrets.insert(0, (e.secret.clone(), None));
            }
            Event::SettingsUpdated(e) => self.settings = e.settings.clone(),
            Event::SegmentCreated(SegmentCreated { segment }) | Event::SegmentUpdated(SegmentUpdated { segment }) => {
                self.segments.insert(segment.id.clone(), Arc::new(segment.clone()));
            }
            Event::RewardCatalogueCreated(RewardCatalogueCreated { reward })
            | Event::RewardCatalogueUpdated(RewardCatalogueUpdated { reward }) => {
                self.rewards.insert(reward.reward_id.clone(), Arc::new((**reward).clone()));
            }
            Event::CouponBookCreated(e) => {
                self.coupon_books.insert(e.coupon_book.coupon_book_id.clone(), Arc::new((*e.coupon_book).clone()));
            }
            _ => {}
        }
    }

    fn turn(&mut self, id: SubscriptionId, state: SubscriptionState, reason: &str) {
        let entry = self.subscription_mut(id);
        entry.state = state;
        reason.clone_into(&mut entry.state_reason);
    }

    fn subscription_mut(&mut self, id: SubscriptionId) -> &mut SubscriptionEntry {
        self.subscriptions.get_mut(&id).expect("decide checked that the subscription exists")
    }
}
