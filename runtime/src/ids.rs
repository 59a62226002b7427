//! The one door to randomness: ids and secrets.

use punchline_engine::id::{JobId, MemberId, SubscriptionId};
use punchline_engine::time::UnixMillis;
use uuid::{Builder, Uuid};

/// Random bytes from the system.
///
/// # Panics
///
/// If the system has none: nothing safe can be made then.
#[expect(clippy::disallowed_methods, reason = "the one door to randomness")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Fills `bytes` with random ones from the system.
///
/// # Panics
///
/// If the system has none: nothing safe can be made then.
#[expect(clippy::disallowed_methods, reason = "the one door to randomness")]
pub fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system gives random bytes");
}

fn uuid_v7(now: UnixMillis) -> Uuid {
    let millis = u64::try_from(now.0).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &random_bytes()).into_uuid()
}

/// A new member's id.
pub fn member_id(now: UnixMillis) -> MemberId {
    MemberId(uuid_v7(now))
}

/// The id of a new replay or redrive.
pub fn job_id(now: UnixMillis) -> JobId {
    JobId(uuid_v7(now))
}

/// A new subscription's id.
pub fn subscription_id(now: UnixMillis) -> SubscriptionId {
    SubscriptionId(uuid_v7(now))
}
