//! What outlives a node: the log, the evidence, the receivers, and where chance comes from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use punchline_engine::id::{AdvertiserId, Environment, Tenant};
use punchline_storage::memory::MemoryDisk;

use crate::auditor::Auditor;
use crate::clients::Clients;
use crate::log::Log;
use crate::programme;
use crate::random::Random;
use crate::receivers::{Receivers, host_of};
use crate::time::SimulatedClock;

/// The tenants there are.
pub const TENANTS: [Tenant; 2] = [
    Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Production },
    Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Staging },
];

/// What everybody in a run shares.
pub struct World {
    /// The time.
    pub clock: Arc<SimulatedClock>,
    state: Mutex<State>,
}

/// What is behind the lock.
pub struct State {
    /// The event log.
    pub log: Log,
    /// The second opinion.
    pub auditor: Auditor,
    /// Who is delivered to.
    pub receivers: Receivers,
    /// Who sends commands.
    pub clients: Clients,
    /// What the network does.
    pub network: Random,
    /// What is under the node.
    pub disk: MemoryDisk,
    /// The machine is off: whatever the node still does never happened.
    pub is_off: bool,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Arc<World> {
        let mut receivers = Receivers::default();
        for subscription in (0..TENANTS.len()).flat_map(programme::subscriptions) {
            receivers.add(host_of(&subscription.url), subscription.schedule.attempts_max());
        }
        let clock = Arc::<SimulatedClock>::default();
        let state = State {
            log: Log::new(clock.clone()),
            auditor: Auditor::default(),
            receivers,
            clients: Clients::new(seed, 4),
            network: Random::new(seed, "network"),
            disk: MemoryDisk::new(),
            is_off: false,
        };
        Arc::new(World { clock, state: Mutex::new(state) })
    }

    /// Everything. Not to be held over an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
