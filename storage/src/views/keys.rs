//! Keys of the views' rows. `docs/format.md` draws them.
//!
//! # Invariants
//!
//! - No personal data: identifiers are digests that nobody can look for without the master key, command keys
//!   are digests.

use punchline_engine::event::CommandKey;
use punchline_engine::id::{AdvertiserId, Environment, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::item::ItemKey;
use punchline_engine::loyalty::member::Identifier;
use punchline_engine::time::UnixMillis;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::items::{DueHold, ItemList};
use crate::member_keys::MemberKeys;

/// Of the checkpoint, in [`Table::Meta`](crate::layout::Table::Meta).
pub(super) const CHECKPOINT: &[u8] = b"checkpoint";
/// Of the last slot that a member's key has, in [`Table::Meta`](crate::layout::Table::Meta).
pub(super) const KEY_SLOT: &[u8] = b"key_slot";
/// Of the format version, in [`Table::Meta`](crate::layout::Table::Meta).
pub(super) const FORMAT: &[u8] = b"format";

/// 128 bits of SHA-256: two of 10^12 collide with a probability of 10^-15. On disk the exactly-once index keeps
/// 80 of them.
pub(super) type Hash = [u8; 16];
pub(super) type MemberKey = (Tenant, MemberId);

fn hash(tenant: Tenant, kind: u8, text: &str) -> Hash {
    let digest = Sha256::new().chain_update(tenant.to_key()).chain_update([kind]).chain_update(text).finalize();
    digest[..16].try_into().expect("a SHA-256 digest has 32 bytes")
}

pub(super) fn identifier(keys: &MemberKeys, tenant: Tenant, identifier: &Identifier) -> Hash {
    let digest = keys.digest([&tenant.to_key()[..], &[identifier.kind as u8], identifier.value.as_bytes()]);
    digest[..16].try_into().expect("an HMAC has 32 bytes")
}

pub(super) fn command(tenant: Tenant, key: &CommandKey) -> Hash {
    match key {
        CommandKey::Consumption(id) => hash(tenant, b'c', id),
        CommandKey::Request(id) => hash(tenant, b'r', id),
        // The length keeps ("a", "bc") apart from ("ab", "c").
        CommandKey::Fact { source, fact_id } => hash(tenant, b'f', &format!("{}:{source}{fact_id}", source.len())),
        CommandKey::Job { job, subject, period } => {
            hash(tenant, b'j', &format!("{}:{job}{}:{subject}{period}", job.len(), subject.len()))
        }
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

/// Of an item, in [`Table::Items`](crate::layout::Table::Items). No book's id has a `/`.
pub(super) fn item(tenant: Tenant, key: &ItemKey) -> Vec<u8> {
    let tenant = &tenant.to_key()[..];
    match key {
        ItemKey::Redemption(id) => [tenant, b"r", id.as_bytes()].concat(),
        ItemKey::Coupon(book, code) => [tenant, b"c", book.as_str().as_bytes(), b"/", code.as_bytes()].concat(),
        ItemKey::Place(book, place) => {
            [tenant, b"p", book.as_str().as_bytes(), b"/", &place.to_be_bytes()[..]].concat()
        }
        ItemKey::Obligation(id) => [tenant, b"o", id.as_bytes()].concat(),
    }
}

/// What the keys of the items listed together begin with.
pub(super) fn items(tenant: Tenant, list: &ItemList) -> Vec<u8> {
    match list {
        ItemList::Redemptions => item(tenant, &ItemKey::Redemption(String::new())),
        ItemList::Coupons(book) => item(tenant, &ItemKey::Coupon(book.clone(), String::new())),
        ItemList::Obligations => item(tenant, &ItemKey::Obligation(String::new())),
    }
}

/// What the keys of the deadlines at `at` begin with. Nothing was held before 1970.
pub(super) fn deadline_at(at: UnixMillis) -> [u8; 8] {
    at.0.max(0).cast_unsigned().to_be_bytes()
}

pub(super) fn deadline(hold: &DueHold) -> Vec<u8> {
    [&deadline_at(hold.until)[..], &member(hold.tenant, hold.member_id), hold.hold_id.as_bytes()].concat()
}

pub(super) fn parse_deadline(key: &[u8]) -> Option<DueHold> {
    let (until, rest) = key.split_first_chunk()?;
    let (tenant, rest) = rest.split_at_checked(9)?;
    let (member, hold_id) = rest.split_at_checked(16)?;
    Some(DueHold {
        until: UnixMillis(i64::from_be_bytes(*until)),
        tenant: parse_tenant(tenant)?,
        member_id: parse_member_id(member)?,
        hold_id: String::from_utf8(hold_id.to_vec()).ok()?,
    })
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
