//! Keys of the views' rows. `docs/format.md` draws them.
//!
//! # Invariants
//!
//! - No personal data: identifiers and command keys are digests.

use punchline_engine::event::CommandKey;
use punchline_engine::id::{AdvertiserId, Environment, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::member::Identifier;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Of the checkpoint, in [`Table::Meta`](crate::layout::Table::Meta).
pub(super) const CHECKPOINT: &[u8] = b"checkpoint";
/// Of the format version, in [`Table::Meta`](crate::layout::Table::Meta).
pub(super) const FORMAT: &[u8] = b"format";

/// 128 bits of SHA-256: two of 10^12 ids collide with a probability of 10^-15.
pub(super) type Hash = [u8; 16];
pub(super) type MemberKey = (Tenant, MemberId);

fn hash(tenant: Tenant, kind: u8, text: &str) -> Hash {
    let digest = Sha256::new().chain_update(tenant.to_key()).chain_update([kind]).chain_update(text).finalize();
    digest[..16].try_into().expect("a SHA-256 digest has 32 bytes")
}

pub(super) fn identifier(tenant: Tenant, identifier: &Identifier) -> Hash {
    hash(tenant, identifier.kind as u8, &identifier.value)
}

pub(super) fn command(tenant: Tenant, key: &CommandKey) -> Hash {
    match key {
        CommandKey::Consumption(id) => hash(tenant, b'c', id),
        CommandKey::Request(id) => hash(tenant, b'r', id),
    }
}

pub(super) fn member(tenant: Tenant, id: MemberId) -> Vec<u8> {
    [&tenant.to_key()[..], id.0.as_bytes()].concat()
}

pub(super) fn chunk(tenant: Tenant, id: MemberId, number: u32) -> Vec<u8> {
    [&tenant.to_key()[..], id.0.as_bytes(), &number.to_be_bytes()].concat()
}

pub(super) fn delivery(id: SubscriptionId, sequence: Sequence) -> Vec<u8> {
    [&id.0.as_bytes()[..], &sequence.0.to_be_bytes()].concat()
}

pub(super) fn parse_tenant(key: &[u8]) -> Option<Tenant> {
    let (advertiser, environment) = key.split_first_chunk()?;
    let environment = Environment::ALL.into_iter().find(|e| *e as u8 == environment[0])?;
    Some(Tenant { advertiser: AdvertiserId(u64::from_be_bytes(*advertiser)), environment })
}

pub(super) fn parse_subscription(key: &[u8]) -> Option<SubscriptionId> {
    Uuid::from_slice(key).ok().map(SubscriptionId)
}

pub(super) fn parse_member_id(bytes: &[u8]) -> Option<MemberId> {
    Uuid::from_slice(bytes).ok().map(MemberId)
}

/// A big-endian number; 0 where there is none.
pub(super) fn read_u64(bytes: Option<Vec<u8>>) -> u64 {
    bytes.and_then(|b| b.get(..8).map(|b| u64::from_be_bytes(b.try_into().expect("8 bytes")))).unwrap_or(0)
}
