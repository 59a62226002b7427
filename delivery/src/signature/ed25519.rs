//! Key pairs for `v1a`, ed25519: `whsk_…` signs, `whpk_…` verifies and need not be kept secret.
//!
//! # Invariants
//!
//! - A [`PrivateKey`] never shows itself: [`PrivateKey::to_whsk_string`] and [`PrivateKey::as_seed`]
//!   are the ways out.
//! - A private key that comes with its public half has the half that belongs to it: signing with
//!   another one would give the private key away (the "double public key" attack on ed25519).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::LENIENT;

/// The prefix that marks a private key.
pub(super) const PRIVATE_PREFIX: &str = "whsk_";
/// The prefix that marks a public key.
pub(super) const PUBLIC_PREFIX: &str = "whpk_";
/// The bytes of a seed, and of a public key (RFC 8032, section 5.1.5).
pub const KEY_BYTES: usize = 32;

/// An ed25519 key that signs. Cheap to clone.
#[derive(Clone)]
pub struct PrivateKey(Arc<Keys>);

struct Keys {
    seed: [u8; KEY_BYTES],
    pair: Ed25519KeyPair,
}

impl PrivateKey {
    /// Makes a key of 32 bytes from the runtime's random source.
    #[must_use]
    pub fn from_seed(seed: &[u8; KEY_BYTES]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed");
        Self(Arc::new(Keys { seed: *seed, pair }))
    }

    /// Takes a seed (32 bytes), or a seed and its public key (64 bytes).
    ///
    /// # Errors
    ///
    /// [`KeyError::Length`] or [`KeyError::Halves`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let length = || KeyError::Length { length_bytes: bytes.len() };
        let (seed, public) = bytes.split_first_chunk::<KEY_BYTES>().ok_or_else(length)?;
        let key = Self::from_seed(seed);
        match public.len() {
            0 => Ok(key),
            KEY_BYTES if public == key.public_key().0 => Ok(key),
            KEY_BYTES => Err(KeyError::Halves),
            _ => Err(length()),
        }
    }

    /// Parses `whsk_<base64>`.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; its text never holds the key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let encoded = text.strip_prefix(PRIVATE_PREFIX).ok_or(KeyError::Prefix { expected: PRIVATE_PREFIX })?;
        Self::from_bytes(&LENIENT.decode(encoded).map_err(|_| KeyError::Base64)?)
    }

    /// Writes the key out as `whsk_<base64 of seed and public key>`, the form that other senders use.
    #[must_use]
    pub fn to_whsk_string(&self) -> String {
        let both = [self.0.seed, self.public_key().0].concat();
        format!("{PRIVATE_PREFIX}{}", STANDARD.encode(both))
    }

    /// The seed: for the store, which encrypts it under the master key.
    #[must_use]
    pub fn as_seed(&self) -> &[u8; KEY_BYTES] {
        &self.0.seed
    }

    /// What receivers verify with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let bytes = self.0.pair.public_key().as_ref();
        PublicKey(bytes.try_into().expect("ed25519 has public keys of 32 bytes"))
    }

    pub(super) fn signature(&self, content: &[u8]) -> impl AsRef<[u8]> {
        self.0.pair.sign(content)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(whsk_***)")
    }
}

/// An ed25519 key that verifies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Takes the 32 bytes of a public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Parses `whpk_<base64>`.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let encoded = text.strip_prefix(PUBLIC_PREFIX).ok_or(KeyError::Prefix { expected: PUBLIC_PREFIX })?;
        let bytes = LENIENT.decode(encoded).map_err(|_| KeyError::Base64)?;
        let bytes = bytes.as_slice().try_into().map_err(|_| KeyError::Length { length_bytes: bytes.len() })?;
        Ok(Self(bytes))
    }

    pub(super) fn has_signed(&self, content: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(content, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Why a text or a byte string is no ed25519 key. Never holds the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text begins with something else.
    #[error("key does not begin with {expected:?}")]
    Prefix {
        /// What it has to begin with.
        expected: &'static str,
    },
    /// What follows the prefix is not base64 (standard alphabet).
    #[error("key is not base64 after its prefix")]
    Base64,
    /// Neither 32 bytes nor, if it is private, 64.
    #[error("key has {length_bytes} bytes, not 32 (or, with its public half, 64)")]
    Length {
        /// How many bytes there were.
        length_bytes: usize,
    },
    /// The second half of 64 bytes is not the public key of the first.
    #[error("key's public half does not belong to its private half")]
    Halves,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    const SEED: [u8; 32] = [
        0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f, 0x5b, 0x8a,
        0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
    ];

    #[test]
    fn the_vector_of_the_rfc_holds() {
        let key = PrivateKey::from_seed(&SEED);
        let signature = key.signature(&[0x72]);
        let hex: String = signature.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(key.public_key().has_signed(&[0x72], signature.as_ref()));
        assert!(!key.public_key().has_signed(&[0x73], signature.as_ref()));
        assert!(!key.public_key().has_signed(&[0x72], &signature.as_ref()[1..]));
    }

    #[test]
    fn keys_are_checked_and_kept_to_themselves() {
        let key = PrivateKey::from_seed(&SEED);
        let text = key.to_whsk_string();
        let again = PrivateKey::parse(&text).expect("what was written");
        assert_eq!((again.as_seed(), again.public_key()), (&SEED, key.public_key()));
        assert!(!format!("{key:?}").contains(&text[5..20]));

        let public = key.public_key().to_string();
        assert_eq!(public.parse(), Ok(key.public_key()));
        let private = |bytes: &[u8]| PrivateKey::from_bytes(bytes).map(|k| k.public_key());
        assert_eq!(private(&SEED), Ok(key.public_key()));
        assert_eq!(private(&[SEED, SEED].concat()), Err(KeyError::Halves));
        for length_bytes in [0, 31, 33, 63, 65] {
            assert_eq!(private(&vec![7; length_bytes]), Err(KeyError::Length { length_bytes }));
        }
        assert!(matches!(PrivateKey::parse(&public), Err(KeyError::Prefix { .. })));
        assert_eq!(PublicKey::parse("whpk_*"), Err(KeyError::Base64));
        assert_eq!(PublicKey::parse("whpk_AAAA"), Err(KeyError::Length { length_bytes: 3 }));
    }
}
