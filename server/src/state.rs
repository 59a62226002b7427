//! What every door of the server shares.

use std::path::PathBuf;
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
            node,
        }
    }

    /// With a limit of consumptions a minute and tenant over gRPC; 0, as without it, lets everything pass.
    #[must_use]
    pub fn with_grpc_limit(self, per_minute: u32) -> State {
        State { grpc_limit: RateLimiter::new(per_minute), ..self }
    }
}
