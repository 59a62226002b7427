//! Tokens that were fetched, kept until shortly before they run out.
//!
//! # Invariants
//!
//! - For one client there is at most one fetch at a time; attempts that come while it runs share its
//!   outcome, also a failure.
//! - A fetch belongs to no attempt: one that gives up waiting takes nothing from the others.
//! - At most `clients_max` clients are known; a forgotten one costs a fetch.
//!
//! # What is absent on purpose
//!
//! - No clock: tokens run out against the instants of the attempts. A clock that is set back keeps a
//!   token longer than it is good for; the receiver's 401 then drops it.
//! - No memory of failures: the next attempt asks again, and when that is the engine's schedule says.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::bounded::Lru;
use crate::digest::Digest;
use crate::oauth2::{OAuth2Token, TokenError};

type Fetched = Result<OAuth2Token, TokenError>;

/// A token for one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) token: OAuth2Token,
    /// Whether it was fetched just now, and not kept from before.
    pub(crate) is_new: bool,
}

#[derive(Debug)]
pub(crate) struct TokenCache {
    clients: Mutex<Lru<Digest, State>>,
}

#[derive(Debug)]
enum State {
    Fetching(watch::Receiver<Option<Fetched>>),
    Kept(OAuth2Token),
}

impl TokenCache {
    pub(crate) fn new(clients_max: usize) -> Self {
        Self { clients: Mutex::new(Lru::new(clients_max)) }
    }

    /// The kept token of `client`, or the one that `fetch` brings; `fetch` is called only if no other
    /// fetch for `client` is under way.
    pub(crate) async fn get<F>(
        self: &Arc<Self>,
        client: Digest,
        now_unix_s: i64,
        fetch: impl FnOnce() -> F,
    ) -> Result<Issued, TokenError>
    where
        F: Future<Output = Fetched> + Send + 'static,
    {
        let mut arriving = {
            let mut clients = self.lock();
            match clients.get(&client) {
                Some(State::Kept(token)) if now_unix_s < token.good_until_unix_s => {
                    return Ok(Issued { token: token.clone(), is_new: false });
                }
                // An error here means that the fetching task has gone.
                Some(State::Fetching(arriving)) if arriving.has_changed().is_ok() => arriving.clone(),
                _ => {
                    let (sender, arriving) = watch::channel(None);
                    clients.insert(client, State::Fetching(arriving.clone()));
                    tokio::spawn(Arc::clone(self).fetched(client, fetch(), sender));
                    arriving
                }
            }
        };
        let fetched = match arriving.wait_for(Option::is_some).await {
            Ok(fetched) => fetched.clone().expect("waited for"),
            Err(_) => Err(TokenError::GivenUp),
        };
        fetched.map(|token| Issued { token, is_new: true })
    }

    async fn fetched(
        self: Arc<Self>,
        client: Digest,
        fetch: impl Future<Output = Fetched>,
        sender: watch::Sender<Option<Fetched>>,
    ) {
        let fetched = fetch.await;
        {
            let mut clients = self.lock();
            match &fetched {
                Ok(token) => clients.insert(client, State::Kept(token.clone())),
                Err(_) => clients.remove(&client),
            }
        }
        sender.send_replace(Some(fetched));
    }

    /// Drops `token`, which the receiver refused, unless another one has taken its place.
    pub(crate) fn forget(&self, client: Digest, token: &OAuth2Token) {
        let mut clients = self.lock();
        if matches!(clients.get(&client), Some(State::Kept(kept)) if kept == token) {
            clients.remove(&client);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lru<Digest, State>> {
        // Nothing in here panics half-way; a poisoned cache is still a cache.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
