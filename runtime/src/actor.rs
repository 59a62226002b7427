//! Who asks: known to the door, written down with what came of it.
//!
//! ```text
//! door ──asked_by──▶ every command that is submitted meanwhile ──▶ its record, if it has one
//! ```
//!
//! # Invariants
//!
//! - What is refused, or was so already, writes nothing down, also not who asked.
//!
//! # What is absent on purpose
//!
//! - Tasks that a call leaves behind (an attempt, a job's steps): what they do, the server does.

use std::future::Future;
use std::sync::Arc;

use opentelemetry::Context;
use punchline_engine::command::Actor;
use punchline_storage::codec::TraceBytes;

use crate::trace;

tokio::task_local! {
    static ASKING: Arc<Actor>;
}

/// Does what `actor` asks for.
pub async fn asked_by<F: Future>(actor: Actor, work: F) -> F::Output {
    ASKING.scope(Arc::new(actor), work).await
}

/// Where a command comes from.
#[derive(Clone, Default)]
pub(crate) struct Asked {
    /// Who asks for it.
    pub(crate) actor: Option<Arc<Actor>>,
    /// The span that it is committed in.
    pub(crate) trace: Option<TraceBytes>,
}

impl Asked {
    /// By what this task does, committed in this span.
    pub(crate) fn within(commit: Option<&Context>) -> Asked {
        Asked { actor: ASKING.try_with(Arc::clone).ok(), trace: commit.map(trace::bytes) }
    }
}
