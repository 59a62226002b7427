//! The gRPC API: every service of `punchline.v1`, health and reflection.
//!
//! ```text
//! connection ──layer (metrics, ErrorInfo, is the caller known?)──▶ service ──caller, scope──▶ convert ──▶ node ──▶ convert
//! ```
//!
//! One [`Api`] stands behind all services; each file here is one service's way from a message to the
//! node and back.
//!
//! # Invariants
//!
//! - Nobody's message is read before its sender is known.
//! - The first thing every call does is to find its tenant, through [`Api::tenant`] or [`Api::operator`];
//!   one that streams finds it again for each part, through [`Authorized`].
//! - What reads the journal's blocks runs on the blocking pool.

mod admin;
mod audit;
mod campaign;
mod connection;
mod consume;
mod delivery;
mod event;
mod explain;
mod fact_type;
mod ingest;
mod layer;
mod ledger;
mod member;
mod reward;
mod serve;
mod simulate;
mod standings;
mod subscription;

use std::future::Future;
use std::sync::Arc;

use punchline_engine::command::{Action, Command};
use punchline_engine::id::{Sequence, Tenant};
use punchline_engine::loyalty::tenant::{Scope, SubscriptionEntry, TenantConfig};
use punchline_runtime::committer::Outcome;
use punchline_runtime::feed::{Feed, ReadError, Stored};
use punchline_storage::views::{Views, ViewsError};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::auth::Caller;
use crate::refuse::Refused;
use crate::state::State;

pub use serve::serve;

/// Longest `request_id`, in bytes: it is part of a key.
const REQUEST_ID_LEN_MAX: usize = 128;
/// Times that a change is worked out anew because somebody else wrote in between.
const CHANGE_TRIES_MAX: usize = 5;

/// What a unary call answers.
type Answer<T> = Result<Response<T>, Status>;

/// Stands behind all services.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<State>,
    /// True once the server goes down: endless calls end then.
    down: watch::Receiver<bool>,
}

impl Api {
    /// The tenant that a call is about, if its caller holds `scope`; and the message.
    fn tenant<T>(&self, request: Request<T>, scope: Scope) -> Result<(Tenant, T), Refused> {
        let tenant = caller(&request)?.require(scope)?;
        Ok((tenant, request.into_inner()))
    }

    /// Lets operators pass, with the tenant that they name, if they do; and the message.
    fn operator<T>(&self, request: Request<T>) -> Result<(Caller, T), Refused> {
        let caller = caller(&request)?;
        caller.require_operator()?;
        Ok((caller, request.into_inner()))
    }

    async fn submit(&self, tenant: Tenant, request_id: &str, action: Action) -> Result<Outcome, Refused> {
        let request_id = request_id_of(request_id)?;
        Ok(self.state.node.submitter().submit(Command { tenant, request_id, action }).await?)
    }

    /// Carries out a create verb; gives the record that it wrote, now or the first time.
    async fn create(&self, tenant: Tenant, request_id: &str, action: Action) -> Result<Arc<Stored>, Refused> {
        match self.submit(tenant, request_id, action).await? {
            Outcome::Accepted(stored) => Ok(stored),
            Outcome::Already(sequence) => self.first_record(sequence).await,
        }
    }

    async fn first_record(&self, sequence: Sequence) -> Result<Arc<Stored>, Refused> {
        let stored = self.journal(move |feed| feed.record_at(sequence)).await?;
        stored.ok_or_else(|| Refused::internal("read the first record of a request_id", &sequence))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Views) -> Result<T, ViewsError> + Send + 'static,
    ) -> Result<T, Refused> {
        Ok(self.state.node.submitter().read(read).await??)
    }

    /// Reads the journal, on the blocking pool.
    async fn journal<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Feed) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Refused> {
        let feed = self.state.node.feed().clone();
        match tokio::task::spawn_blocking(move || read(&feed)).await {
            Ok(read) => Ok(read?),
            Err(error) => Err(Refused::internal("read the journal", &error)),
        }
    }

    fn head(&self) -> Sequence {
        self.state.node.feed().head()
    }

    fn config(&self, tenant: Tenant) -> Result<Arc<TenantConfig>, Refused> {
        let directory = self.state.node.directory();
        let not_found = || Refused::not_found("ADVERTISER_NOT_FOUND", "advertiser", tenant.advertiser);
        directory.tenant(tenant).cloned().ok_or_else(not_found)
    }

    /// A subscription of this tenant: what keeps deliveries, which are known by subscription, apart.
    fn subscription(&self, tenant: Tenant, id: &str) -> Result<SubscriptionEntry, Refused> {
        let id = crate::convert::id("subscription_id", id)?;
        let entry = self.config(tenant)?.subscriptions.get(&id).cloned();
        entry.ok_or_else(|| Refused::not_found("SUBSCRIPTION_NOT_FOUND", "subscription", id))
    }
}

/// Who calls, as the layer found.
fn caller<T>(request: &Request<T>) -> Result<Caller, Refused> {
    request.extensions().get().copied().ok_or_else(Refused::credentials_missing)
}

/// A `request_id`, if there is one.
fn request_id_of(given: &str) -> Result<Option<String>, Refused> {
    let bad = given.len() > REQUEST_ID_LEN_MAX || given.chars().any(char::is_control);
    if bad {
        return Err(Refused::field("request_id", given, "must be at most 128 bytes without control characters"));
    }
    Ok(Some(given.to_owned()).filter(|id| !id.is_empty()))
}

/// Who has a stream open: asked again for each part of it, since a stream may outlive its token.
struct Authorized {
    api: Api,
    metadata: MetadataMap,
    scope: Scope,
}

impl Authorized {
    fn tenant(&self) -> Result<Tenant, Refused> {
        self.api.state.auth.caller_by(self.metadata.as_ref())?.require(self.scope)
    }
}

/// Reads, changes and writes, and does so again where somebody else wrote in between, unless the caller
/// named an etag: then it is the caller's to decide.
async fn change<T, F: Future<Output = Result<T, Refused>>>(etag: &str, try_once: impl Fn() -> F) -> Result<T, Refused> {
    for _ in 1..CHANGE_TRIES_MAX {
        match try_once().await {
            Err(refused) if refused.reason == "ETAG_MISMATCH" && etag.is_empty() => {}
            done => return done,
        }
    }
    try_once().await
}

#[cfg(test)]
mod tests;
