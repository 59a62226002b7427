//! What every door of the server shares.

use std::path::{Path, PathBuf};
use std::sync::Arc;

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
}

impl State {
    /// What is shared about `node`, as of now.
    pub fn new(node: Arc<Node>, operator_token: &str, master_key: &[u8; 32], data_dir: Option<PathBuf>) -> State {
        State {
            auth: Auth::new(node.clone(), operator_token, master_key),
            grpc_limit: RateLimiter::new(0),
            fact_types: FactTypes::default(),
            started_at: node.clock().now(),
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
}
