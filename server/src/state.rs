//! What every door of the server shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use punchline_engine::time::UnixMillis;
use punchline_runtime::node::Node;

use crate::auth::Auth;
use crate::facts::FactTypes;
use crate::limits::RateLimiter;

/// What every door of the server shares.
pub struct State {
    /// The running node.
    pub node: Arc<Node>,
    /// Knows callers.
    pub auth: Auth,
    /// Where the node keeps its data; `None` where that is no directory.
    pub data_dir: Option<PathBuf>,
    /// Where backups go, if they are to go anywhere.
    pub backup_dir: Option<PathBuf>,
    /// How much of the journal is kept in any case.
    pub journal_keep_days: u64,
    /// Consumptions a minute and tenant over gRPC.
    pub grpc_limit: RateLimiter,
    /// Knows what facts must look like.
    pub fact_types: FactTypes,
    /// When the server started.
    pub started_at: UnixMillis,
    /// How long a loop may take for one step, before it counts as stuck.
    pub stuck_after: Duration,
    closing: AtomicBool,
}

/// `stuck_after`, unless it is set.
const STUCK_AFTER: Duration = Duration::from_secs(30);

impl State {
    /// What is shared about `node`, as of now.
    pub fn new(node: Arc<Node>, operator_token: &str, master_key: &[u8; 32], data_dir: Option<PathBuf>) -> State {
        State {
            auth: Auth::new(node.clone(), operator_token, master_key),
            grpc_limit: RateLimiter::new(0),
            fact_types: FactTypes::default(),
            started_at: node.clock().now(),
            stuck_after: STUCK_AFTER,
            closing: AtomicBool::new(false),
            data_dir,
            backup_dir: None,
            journal_keep_days: 0,
            node,
        }
    }

    /// With a directory for backups, and so many days of the journal that are not trimmed.
    #[must_use]
    pub fn with_backup(self, directory: Option<&Path>, journal_keep_days: u64) -> State {
        State { backup_dir: directory.map(Path::to_owned), journal_keep_days, ..self }
    }

    /// With a limit of consumptions a minute and tenant over gRPC; 0, as without it, lets everything pass.
    #[must_use]
    pub fn with_grpc_limit(self, per_minute: u32) -> State {
        State { grpc_limit: RateLimiter::new(per_minute), ..self }
    }

    /// The loops that are stuck, by name.
    pub fn stuck(&self) -> Vec<&'static str> {
        self.node.stuck(self.stuck_after)
    }

    /// Whether it takes in and delivers: as `/readyz` says.
    pub fn is_ready(&self) -> bool {
        !self.is_closing() && self.node.stopped().is_none() && self.stuck().is_empty()
    }

    /// From now on `/readyz` and the health service say no, so that nobody sends more.
    pub fn announce_shutdown(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether the server goes down.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}
