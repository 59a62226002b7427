//! Names for secrets: caches are keyed by them, so that no key of a map is a password.

use sha2::{Digest as _, Sha256};

/// SHA-256 over a list of parts, each with its length before it, so that no two lists run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}
