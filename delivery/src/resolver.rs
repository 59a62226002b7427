//! The guarded resolver: a name is called only if everything it resolves to may be called.
//!
//! The connector connects to the very addresses that were checked here, so that a name which
//! resolves to something else a moment later (DNS rebinding) gains nothing.
//!
//! # Invariants
//!
//! - One forbidden address among many refuses the name: half a split-horizon answer is an attack or
//!   a mistake, and choosing for the subscriber would hide it.
//! - At most `lookups_max` lookups occupy the blocking pool, also after their attempts timed out:
//!   the permit is held by the lookup, not by the attempt.
//!
//! # What is absent on purpose
//!
//! - No cache: connections are reused, so a lookup is made once per new connection.
//! - No literal addresses: hyper asks no resolver about them. [`crate::endpoint::Endpoint::check`]
//!   does, before each attempt.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower::Service;

use crate::address::ForbiddenAddress;
use crate::endpoint::EndpointPolicy;

/// The future of one lookup.
pub type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// The one door to names: the system's resolver, or a test's.
pub trait Lookup: fmt::Debug + Send + Sync + 'static {
    /// All addresses of `name`, unchecked.
    fn lookup(&self, name: &str) -> LookupFuture;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: &str) -> LookupFuture {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Resolves names and checks every address.
#[derive(Clone, Debug)]
pub struct GuardedResolver {
    policy: Arc<EndpointPolicy>,
    lookup: Arc<dyn Lookup>,
    lookups: Arc<Semaphore>,
}

impl GuardedResolver {
    /// A resolver that asks the system, checks under `policy`, and makes at most `lookups_max` lookups
    /// at a time.
    #[must_use]
    pub fn new(policy: Arc<EndpointPolicy>, lookups_max: usize) -> Self {
        Self::with_lookup(policy, Arc::new(SystemLookup), lookups_max)
    }

    /// A resolver that asks `lookup`.
    #[must_use]
    pub fn with_lookup(policy: Arc<EndpointPolicy>, lookup: Arc<dyn Lookup>, lookups_max: usize) -> Self {
        Self { policy, lookup, lookups: Arc::new(Semaphore::new(lookups_max)) }
    }

    /// Resolves `name`. The ports of the addresses are 0: the connector knows the port.
    ///
    /// # Errors
    ///
    /// [`ResolveError`].
    pub async fn resolve(self, name: String) -> Result<Vec<SocketAddr>, ResolveError> {
        let addresses = self.resolve_unchecked(&name).await?;
        for address in &addresses {
            self.policy
                .check_address(address.ip())
                .map_err(|source| ResolveError::Forbidden { name: name.clone(), source })?;
        }
        Ok(addresses)
    }

    /// Resolves a name that the operator chose, and no subscriber: the proxy's.
    pub(crate) async fn resolve_unchecked(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.expect("the semaphore is never closed");
        let lookup = self.lookup.lookup(name);
        // A task of its own, so that the permit outlives an attempt that gives up waiting.
        let lookup = tokio::spawn(async move {
            let _permit = permit;
            lookup.await
        });
        let found = lookup.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
        let found = found.map_err(|source| ResolveError::Lookup { name: name.to_owned(), source })?;
        if found.is_empty() {
            return Err(ResolveError::Empty { name: name.to_owned() });
        }
        Ok(found.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
    }
}

impl Service<Name> for GuardedResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolved = self.clone().resolve(name.as_str().to_owned());
        Box::pin(async move { Ok(resolved.await?.into_iter()) })
    }
}

/// Why a name cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The lookup failed: no such name, or no resolver.
    #[error("name {name:?} cannot be resolved: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// What the system's resolver said.
        source: io::Error,
    },
    /// The name exists and has no address.
    #[error("name {name:?} has no address")]
    Empty {
        /// The name.
        name: String,
    },
    /// At least one of its addresses may not be called.
    #[error("name {name:?} is not allowed: {source}")]
    Forbidden {
        /// The name.
        name: String,
        /// The first such address.
        source: ForbiddenAddress,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_of_a_name_is_checked() {
        let strict = GuardedResolver::new(Arc::default(), 1);
        let refused = strict.resolve("localhost".to_owned()).await;
        assert!(matches!(refused, Err(ResolveError::Forbidden { .. })), "{refused:?}");

        let policy = EndpointPolicy {
            allow_http: false,
            allow_private: ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("network")).to_vec(),
        };
        let open = GuardedResolver::new(Arc::new(policy), 1);
        let allowed = open.resolve("localhost".to_owned()).await;
        let addresses = allowed.expect("localhost resolves");
        assert!(addresses.iter().all(|a| a.ip().is_loopback()), "{addresses:?}");
    }

    #[tokio::test]
    async fn what_the_system_takes_for_an_address_is_checked_too() {
        // Endpoint::parse refuses these; the resolver does not rely on it.
        for odd in ["127.1", "2130706433", "0x7f000001"] {
            let resolver = GuardedResolver::new(Arc::default(), 1);
            assert!(resolver.resolve(odd.to_owned()).await.is_err(), "{odd}");
        }
    }
}
