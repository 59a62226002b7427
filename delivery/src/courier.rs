//! The seam between the dispatcher and the network: a request goes in, a report comes out.
//!
//! # What is absent on purpose
//!
//! - No error type: an attempt that fails is an attempt, and its report says how.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::auth::Auth;
use crate::endpoint::Endpoint;
use crate::headers::StaticHeaders;
use crate::identity::ClientIdentity;
use crate::outcome::{AttemptReport, PermanentStatuses};

/// `content-type` of the default dialect.
pub const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One request to one subscriber. Cheap to clone: what is large is shared.
#[derive(Clone, Debug)]
pub struct AttemptRequest {
    /// Where to.
    pub endpoint: Arc<Endpoint>,
    /// What the subscription adds to each request.
    pub headers: StaticHeaders,
    /// What the dialect adds to this request, such as a signature of its own. They replace the
    /// subscription's headers of the same name, and none of ours: a name that
    /// [`crate::headers::is_reserved`] is left out.
    pub extra_headers: Vec<(HeaderName, HeaderValue)>,
    /// The credentials that the receiver asks for; they win over an `authorization` among `headers`.
    pub auth: Option<Arc<Auth>>,
    /// The client certificate that the receiver asks for.
    pub identity: Option<Arc<ClientIdentity>>,
    /// After which statuses the subscription wants no retry.
    pub permanent_statuses: Arc<PermanentStatuses>,
    /// `webhook-id`: the same for every attempt, redrive and replay.
    pub webhook_id: String,
    /// `webhook-timestamp`, and the instant from which a `Retry-After` date is counted.
    pub timestamp_unix_s: i64,
    /// `webhook-signature` (see [`crate::signature::sign`]); `None` for dialects without one.
    pub signature: Option<String>,
    /// `punchline-attempt`, from 1.
    pub attempt: u32,
    /// `punchline-sequence`.
    pub sequence: u64,
    /// `content-type`.
    pub content_type: HeaderValue,
    /// The very bytes that were signed.
    pub body: Bytes,
    /// How long the attempt may take from its first step to the last byte of the answer.
    pub timeout: Duration,
}

/// The future of one attempt.
pub type AttemptFuture<'a> = Pin<Box<dyn Future<Output = AttemptReport> + Send + 'a>>;

/// Makes single attempts: [`crate::transport::Transport`] over HTTP, and
/// [`crate::scripted::ScriptedCourier`] for tests.
///
/// Used as `Arc<dyn Courier>`. The box costs an allocation per attempt, well below a hundredth of
/// what the request itself costs, and keeps a type parameter out of the dispatcher.
///
/// Dropping the future gives the attempt up; the subscriber may have received the request.
pub trait Courier: Send + Sync + 'static {
    /// Makes one attempt.
    fn attempt(&self, request: AttemptRequest) -> AttemptFuture<'_>;
}
