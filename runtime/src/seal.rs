//! Secrets at rest: AES-256-GCM under the server's master key.
//!
//! # Invariants
//!
//! - What is sealed is bound to its purpose: a subscription's header cannot be read as its secret.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use punchline_engine::loyalty::tenant::SealedSecret;

use crate::ids::random_bytes;

const NONCE_BYTES: usize = 12;

/// Seals and opens secrets.
pub struct Sealer {
    cipher: Aes256Gcm,
}

/// A sealed secret does not open: another master key, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed {purpose} does not open: is the master key the one it was sealed with?")]
pub struct Unreadable {
    /// What it was for.
    pub purpose: &'static str,
}

impl Sealer {
    /// Under this master key.
    pub fn new(master_key: &[u8; 32]) -> Sealer {
        Sealer { cipher: Aes256Gcm::new(&Key::<Aes256Gcm>::from(*master_key)) }
    }

    /// Encrypts `secret` for `purpose`.
    pub fn seal(&self, purpose: &'static str, secret: &[u8]) -> SealedSecret {
        let nonce: [u8; NONCE_BYTES] = random_bytes();
        let payload = Payload { msg: secret, aad: purpose.as_bytes() };
        let sealed = self.cipher.encrypt(&Nonce::from(nonce), payload);
        SealedSecret([&nonce[..], &sealed.expect("short messages can be encrypted")].concat())
    }

    /// Decrypts what was sealed for `purpose`.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] under another key, for another purpose, or when damaged.
    pub fn open(&self, purpose: &'static str, sealed: &SealedSecret) -> Result<Vec<u8>, Unreadable> {
        let unreadable = Unreadable { purpose };
        let (nonce, sealed) = sealed.0.split_first_chunk::<NONCE_BYTES>().ok_or(unreadable)?;
        let payload = Payload { msg: sealed, aad: purpose.as_bytes() };
        self.cipher.decrypt(&Nonce::from(*nonce), payload).map_err(|_| unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_for_its_purpose_and_key() {
        let sealer = Sealer::new(&[1; 32]);
        let sealed = sealer.seal("signing secret", b"abc");
        assert_eq!(sealer.open("signing secret", &sealed).as_deref(), Ok(&b"abc"[..]));
        assert!(sealer.open("header", &sealed).is_err());
        assert!(Sealer::new(&[2; 32]).open("signing secret", &sealed).is_err());
        assert!(sealer.open("signing secret", &SealedSecret(vec![1, 2, 3])).is_err());
        assert_ne!(sealed, sealer.seal("signing secret", b"abc"), "a nonce is never used twice");
    }
}
