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

use punchline_engine::command::Actor;

tokio::task_local! {
    static ASKING: Arc<Actor>;
}

/// Does what `actor` asks for.
pub async fn asked_by<F: Future>(actor: Actor, work: F) -> F::Output {
    ASKING.scope(Arc::new(actor), work).await
}

/// Who asks for what this task does.
pub(crate) fn asking() -> Option<Arc<Actor>> {
    ASKING.try_with(Arc::clone).ok()
}
