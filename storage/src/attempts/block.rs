//! A block of the delivery log: a header that says what is in it, and the attempts.
//!
//! `docs/format.md`, "Delivery log", draws it. Header and body have a checksum each, so that a damaged body
//! still says where the next block begins.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use punchline_engine::id::{KeySlot, Sequence, SubscriptionId};
use punchline_engine::time::UnixMillis;
use punchline_proto::journal as wire;
use wire::AttemptOutcome as Wire;

use super::{BLOCK_ATTEMPTS_MAX, Holds, LoggedAttempt, LoggedOutcome, RESPONSE_KEPT_BYTES_MAX};
use crate::member_keys::SEALED_EXTRA_BYTES;

/// Magic and format version.
const MAGIC: [u8; 4] = *b"PNA\x01";
/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 56;
/// Longest body that is believed: attempts with a full response each, and as much again for all the rest.
const BODY_BYTES_MAX: usize = 2 * BLOCK_ATTEMPTS_MAX * RESPONSE_KEPT_BYTES_MAX;

/// What stands before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) body_bytes: u32,
    body_crc: u32,
    pub(super) holds: Holds,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.body_crc.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.body_bytes.to_be_bytes());
        let holds = &self.holds;
        bytes[16..24].copy_from_slice(&holds.times.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&holds.times.1.to_be_bytes());
        bytes[32..40].copy_from_slice(&holds.sequences.0.to_be_bytes());
        bytes[40..48].copy_from_slice(&holds.sequences.1.to_be_bytes());
        bytes[48..56].copy_from_slice(&holds.subscriptions.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The header that these bytes are, if they are one.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let u32_at = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes[..4] != MAGIC || u32_at(4) != crc32c::crc32c(&bytes[8..]) || u32_at(12) as usize > BODY_BYTES_MAX {
            return None;
        }
        let holds = Holds {
            times: (u64_at(16) as i64, u64_at(24) as i64),
            sequences: (u64_at(32), u64_at(40)),
            subscriptions: u64_at(48),
        };
        Some(Header { body_crc: u32_at(8), body_bytes: u32_at(12), holds })
    }

    /// Whether `body` is what this header was written for.
    pub(super) fn is_of(&self, body: &[u8]) -> bool {
        self.body_crc == crc32c::crc32c(body)
    }
}

/// A header, its body unless that is damaged, and what comes after them.
type Split<'a> = (Header, Option<&'a [u8]>, &'a [u8]);

/// Splits the first block off; `None` where there is no sound header.
pub(super) fn split(bytes: &[u8]) -> Option<Split<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let header = Header::decode(header)?;
    let (body, rest) = rest.split_at_checked(header.body_bytes as usize)?;
    Some((header, Some(body).filter(|body| header.is_of(body)), rest))
}

/// Numbers names in the order in which they first come.
struct Names<K>(HashMap<K, u32>);

impl<K: std::hash::Hash + Eq> Names<K> {
    fn number(&mut self, key: K, first: impl FnOnce()) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(key).or_insert_with(|| {
            first();
            next
        })
    }
}

/// The block of these attempts.
pub(super) fn encode(attempts: &[LoggedAttempt], holds: Holds) -> Vec<u8> {
    let (mut subscriptions, mut types) = (Names(HashMap::new()), Names(HashMap::new()));
    let mut block = wire::AttemptBlock::default();
    block.attempts.reserve_exact(attempts.len());
    for attempt in attempts {
        let sealing = if attempt.key_slot == KeySlot::NONE { 0 } else { SEALED_EXTRA_BYTES };
        let most = RESPONSE_KEPT_BYTES_MAX + sealing;
        let id = attempt.subscription_id.0.as_bytes();
        let subscription = subscriptions.number(id, || block.subscription_ids.push(id.to_vec()));
        let name = &attempt.event_type;
        let event_type = types.number(name, || block.event_types.push(name.clone()));
        block.attempts.push(wire::LoggedAttempt {
            subscription,
            event_type,
            sequence: attempt.sequence.0,
            number: attempt.number,
            at_ms: (attempt.at.0 - holds.times.0) as u64,
            latency_ms: attempt.latency_ms,
            status: attempt.status.map_or(0, u32::from),
            error: attempt.error.clone().into_owned(),
            outcome: match attempt.outcome {
                LoggedOutcome::Delivered => Wire::Delivered,
                LoggedOutcome::Retry => Wire::Retry,
                LoggedOutcome::Gone => Wire::Gone,
                LoggedOutcome::Refused => Wire::Refused,
                LoggedOutcome::AbortedByReceiver => Wire::AbortedByReceiver,
            }
            .into(),
            response: attempt.response[..attempt.response.len().min(most)].to_vec(),
            key_slot: attempt.key_slot.0,
        });
    }
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.reserve(block.encoded_len());
    block.encode(&mut bytes).expect("a Vec grows");
    let body = &bytes[HEADER_BYTES..];
    let body_bytes = u32::try_from(body.len()).expect("a block's attempts are bounded");
    let header = Header { body_bytes, body_crc: crc32c::crc32c(body), holds };
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    bytes
}

/// The attempts of a body; `None` for an attempt that this program does not understand.
pub(super) fn decode(header: &Header, body: &[u8]) -> Option<Vec<Option<LoggedAttempt>>> {
    let block = wire::AttemptBlock::decode(body).ok()?;
    let ids: Vec<Option<SubscriptionId>> =
        block.subscription_ids.iter().map(|id| uuid::Uuid::from_slice(id).ok().map(SubscriptionId)).collect();
    let types = &block.event_types;
    let one = |attempt: wire::LoggedAttempt| {
        Some(LoggedAttempt {
            subscription_id: (*ids.get(attempt.subscription as usize)?)?,
            sequence: Sequence(attempt.sequence),
            event_type: types.get(attempt.event_type as usize)?.clone(),
            number: attempt.number,
            at: UnixMillis(header.holds.times.0).plus_ms(i64::try_from(attempt.at_ms).ok()?),
            latency_ms: attempt.latency_ms,
            status: Some(attempt.status).filter(|status| *status > 0).and_then(|status| u16::try_from(status).ok()),
            outcome: match attempt.outcome() {
                Wire::Unspecified => return None,
                Wire::Delivered => LoggedOutcome::Delivered,
                Wire::Retry => LoggedOutcome::Retry,
                Wire::Gone => LoggedOutcome::Gone,
                Wire::Refused => LoggedOutcome::Refused,
                Wire::AbortedByReceiver => LoggedOutcome::AbortedByReceiver,
            },
            error: Cow::Owned(attempt.error),
            response: Bytes::from(attempt.response),
            key_slot: KeySlot(attempt.key_slot),
        })
    };
    Some(block.attempts.into_iter().map(one).collect())
}
