//! Signatures of Standard Webhooks 1.0.0 over `id.timestamp.body`: `v1,<base64 of HMAC-SHA256>`,
//! and `v1a,<base64 of ed25519>` for receivers that should not be able to sign themselves.
//!
//! ```text
//! whsec_… ──parse──▶ Secret      ┐                               ┌ Secret    ◀──parse── whsec_…
//! whsk_…  ──parse──▶ PrivateKey  ┴─sign─▶ "v1,… v1a,…" ─verify─▶ ┴ PublicKey ◀──parse── whpk_…
//! ```
//!
//! # Invariants
//!
//! - What signs never shows itself: `Debug` and `Display` are redacted, and
//!   [`SigningKey::to_key_string`] and its likes are the one way out.
//! - The bytes that are signed are the bytes that are sent: [`sign`] takes the body as it goes out.
//! - [`verify`] compares in constant time, with every key, whichever matched.
//!
//! # What is absent on purpose
//!
//! - No clock: the caller says what time it is.
//! - No generation of keys: randomness belongs to the runtime; see [`Secret::from_bytes`] and
//!   [`ed25519::PrivateKey::from_seed`].
//! - Which keys a subscription has, and until when: the runtime says.

pub mod ed25519;

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, general_purpose};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use self::ed25519::{KeyError, PrivateKey, PublicKey};

/// The prefix that marks a secret, so that scanners for leaked secrets know one.
const SECRET_PREFIX: &str = "whsec_";
/// The fewest bytes a secret has (Standard Webhooks 1.0.0, "Symmetric signatures").
pub const SECRET_BYTES_MIN: usize = 24;
/// The most bytes a secret has: SHA-256's block, beyond which HMAC would hash the key first.
pub const SECRET_BYTES_MAX: usize = 64;
/// How many signatures of one header are looked at. Two are usual while a secret is rotated; the
/// limit keeps a hostile header from buying hash computations.
const SIGNATURES_MAX: usize = 16;
/// `v1a,`, 88 characters of base64, and the space before the next one.
const SIGNATURE_TEXT_BYTES: usize = 93;

/// Padding is written, and not insisted upon: people copy secrets without the `=`.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A symmetric signing secret with its HMAC key schedule already computed.
#[derive(Clone)]
pub struct Secret {
    bytes: Box<[u8]>,
    /// The state after the key's two blocks; cloning it saves two of the four compressions that a
    /// signature over a short body costs.
    keyed: Hmac<Sha256>,
}

impl Secret {
    /// Makes a secret of raw bytes, as many as the runtime's random source gave.
    ///
    /// # Errors
    ///
    /// [`SecretError::Length`] unless there are 24 to 64 of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(SecretError::Length { length_bytes: bytes.len() });
        }
        let keyed = Hmac::<Sha256>::new_from_slice(bytes).expect("HMAC takes a key of any length");
        Ok(Self { bytes: bytes.into(), keyed })
    }

    /// Parses `whsec_<base64>`.
    ///
    /// # Errors
    ///
    /// [`SecretError`]; its text never holds the secret.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(SecretError::Prefix)?;
        let bytes = LENIENT.decode(encoded).map_err(|_| SecretError::Base64)?;
        Self::from_bytes(&bytes)
    }

    /// Writes the secret out as `whsec_<base64>`: for the answer that hands it to its owner, once.
    #[must_use]
    pub fn to_whsec_string(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.bytes))
    }

    /// The raw bytes: for the store, which encrypts them under the master key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn mac_of(&self, content: &Content<'_>) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(content.prefix.as_bytes());
        mac.update(content.body);
        mac
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(whsec_***)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_***")
    }
}

/// Why a text or a byte string is no signing secret. Never holds the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text does not begin with `whsec_`.
    #[error("secret does not begin with \"whsec_\"")]
    Prefix,
    /// What follows `whsec_` is not base64 (standard alphabet).
    #[error("secret is not base64 after \"whsec_\"")]
    Base64,
    /// Too short to be safe, or longer than HMAC-SHA256 can use.
    #[error("secret has {length_bytes} bytes, not 24 to 64")]
    Length {
        /// How many bytes there were.
        length_bytes: usize,
    },
}

/// A key of either kind that signs.
#[derive(Clone, Debug)]
pub enum SigningKey {
    /// Makes `v1`.
    Symmetric(Secret),
    /// Makes `v1a`.
    Ed25519(PrivateKey),
}

impl SigningKey {
    /// Parses `whsec_<base64>` or `whsk_<base64>`.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError`]; its text never holds the key.
    pub fn parse(text: &str) -> Result<Self, SigningKeyError> {
        if text.starts_with(SECRET_PREFIX) {
            Ok(Self::Symmetric(Secret::parse(text)?))
        } else if text.starts_with(ed25519::PRIVATE_PREFIX) {
            Ok(Self::Ed25519(PrivateKey::parse(text)?))
        } else {
            Err(SigningKeyError::Prefix)
        }
    }

    /// Writes the key out, so that [`SigningKey::parse`] reads it: for the store, which encrypts it
    /// under the master key, and for the answer that hands a `whsec_` to its owner, once.
    #[must_use]
    pub fn to_key_string(&self) -> String {
        match self {
            Self::Symmetric(secret) => secret.to_whsec_string(),
            Self::Ed25519(key) => key.to_whsk_string(),
        }
    }

    /// What verifies the signatures of this key: for a symmetric one, itself.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        match self {
            Self::Symmetric(secret) => VerifyingKey::Symmetric(secret.clone()),
            Self::Ed25519(key) => VerifyingKey::Ed25519(key.public_key()),
        }
    }
}

impl From<Secret> for SigningKey {
    fn from(secret: Secret) -> Self {
        Self::Symmetric(secret)
    }
}

impl From<PrivateKey> for SigningKey {
    fn from(key: PrivateKey) -> Self {
        Self::Ed25519(key)
    }
}

/// A key of either kind that verifies.
#[derive(Clone, Debug)]
pub enum VerifyingKey {
    /// Verifies `v1`.
    Symmetric(Secret),
    /// Verifies `v1a`.
    Ed25519(PublicKey),
}

impl VerifyingKey {
    /// Parses `whsec_<base64>` or `whpk_<base64>`.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError`]; its text never holds the key.
    pub fn parse(text: &str) -> Result<Self, SigningKeyError> {
        if text.starts_with(SECRET_PREFIX) {
            Ok(Self::Symmetric(Secret::parse(text)?))
        } else if text.starts_with(ed25519::PUBLIC_PREFIX) {
            Ok(Self::Ed25519(PublicKey::parse(text)?))
        } else {
            Err(SigningKeyError::Prefix)
        }
    }
}

/// Why a text is no key of either kind. Never holds the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// It begins with none of the prefixes.
    #[error("key begins with none of \"whsec_\", \"whsk_\" (signing) and \"whpk_\" (verifying)")]
    Prefix,
    /// It is a malformed symmetric secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It is a malformed ed25519 key.
    #[error(transparent)]
    Ed25519(#[from] KeyError),
}

/// Keys that sign and verify, of one kind or mixed. Sealed: the schemes are the standard's.
mod scheme {
    use super::*;

    /// What is signed: `id.timestamp.body`, in two parts, as the body may be long.
    pub struct Content<'a> {
        pub prefix: String,
        pub body: &'a [u8],
    }

    impl Content<'_> {
        fn joined(&self) -> Vec<u8> {
            [self.prefix.as_bytes(), self.body].concat()
        }
    }

    /// Appends its signature.
    pub trait Sign {
        fn append_signature(&self, content: &Content<'_>, header: &mut String);
    }

    /// Knows its signatures.
    pub trait Verify {
        fn version(&self) -> &'static str;
        fn has_signed(&self, content: &Content<'_>, signature: &[u8]) -> bool;
    }

    impl Sign for Secret {
        fn append_signature(&self, content: &Content<'_>, header: &mut String) {
            header.push_str("v1,");
            general_purpose::STANDARD.encode_string(self.mac_of(content).finalize().into_bytes(), header);
        }
    }

    impl Verify for Secret {
        fn version(&self) -> &'static str {
            "v1"
        }

        fn has_signed(&self, content: &Content<'_>, signature: &[u8]) -> bool {
            self.mac_of(content).verify_slice(signature).is_ok()
        }
    }

    impl Sign for PrivateKey {
        fn append_signature(&self, content: &Content<'_>, header: &mut String) {
            header.push_str("v1a,");
            general_purpose::STANDARD.encode_string(self.signature(&content.joined()), header);
        }
    }

    impl Verify for PublicKey {
        fn version(&self) -> &'static str {
            "v1a"
        }

        fn has_signed(&self, content: &Content<'_>, signature: &[u8]) -> bool {
            Self::has_signed(self, &content.joined(), signature)
        }
    }

    impl Sign for SigningKey {
        fn append_signature(&self, content: &Content<'_>, header: &mut String) {
            match self {
                Self::Symmetric(secret) => secret.append_signature(content, header),
                Self::Ed25519(key) => key.append_signature(content, header),
            }
        }
    }

    impl Verify for VerifyingKey {
        fn version(&self) -> &'static str {
            match self {
                Self::Symmetric(secret) => secret.version(),
                Self::Ed25519(key) => key.version(),
            }
        }

        fn has_signed(&self, content: &Content<'_>, signature: &[u8]) -> bool {
            match self {
                Self::Symmetric(secret) => secret.has_signed(content, signature),
                Self::Ed25519(key) => Verify::has_signed(key, content, signature),
            }
        }
    }
}

use scheme::Content;

fn content<'a>(id: &str, timestamp_unix_s: i64, body: &'a [u8]) -> Content<'a> {
    Content { prefix: format!("{id}.{timestamp_unix_s}."), body }
}

/// Signs `body` as message `id` at `timestamp_unix_s` with every one of `keys`: [`Secret`]s,
/// [`PrivateKey`]s, or [`SigningKey`]s of both kinds.
///
/// Returns the value of `webhook-signature`: `v1,<base64>` or `v1a,<base64>`, one per key, separated
/// by spaces, in the order given (current key first, then those that are being rotated out).
#[must_use]
pub fn sign<K: scheme::Sign>(id: &str, timestamp_unix_s: i64, body: &[u8], keys: &[&K]) -> String {
    let content = content(id, timestamp_unix_s, body);
    let mut header = String::with_capacity(keys.len() * SIGNATURE_TEXT_BYTES);
    for key in keys {
        if !header.is_empty() {
            header.push(' ');
        }
        key.append_signature(&content, &mut header);
    }
    header
}

/// Checks that one of the signatures in `header` was made with one of `keys` ([`Secret`]s,
/// [`PublicKey`]s, or [`VerifyingKey`]s of both kinds) over exactly this id, timestamp and body, and
/// that the timestamp lies within `tolerance_s` of `now_unix_s`.
///
/// A signature is only held against keys of its own version, so that no public key is ever taken
/// for a shared secret; signatures of versions that no key is for are passed over.
///
/// # Errors
///
/// [`VerifyError`]. The age is checked first: a stale message is refused whoever signed it.
///
/// # Sources
///
/// Standard Webhooks 1.0.0, "Verifying webhook authenticity"; its libraries tolerate 300 s.
pub fn verify<K: scheme::Verify>(
    id: &str,
    timestamp_unix_s: i64,
    body: &[u8],
    header: &str,
    keys: &[&K],
    now_unix_s: i64,
    tolerance_s: u32,
) -> Result<(), VerifyError> {
    let age_s = now_unix_s.saturating_sub(timestamp_unix_s);
    if age_s > i64::from(tolerance_s) {
        return Err(VerifyError::TooOld { age_s, tolerance_s });
    }
    if age_s < -i64::from(tolerance_s) {
        return Err(VerifyError::TooNew { ahead_s: age_s.saturating_neg(), tolerance_s });
    }

    let content = content(id, timestamp_unix_s, body);
    let mut any_known = false;
    let mut matched = false;
    for signature in header.split_ascii_whitespace().take(SIGNATURES_MAX) {
        let Some((version, encoded)) = signature.split_once(',') else {
            continue;
        };
        let Ok(tag) = LENIENT.decode(encoded) else {
            continue;
        };
        for key in keys.iter().filter(|key| key.version() == version) {
            any_known = true;
            matched |= key.has_signed(&content, &tag);
        }
    }
    match (matched, any_known) {
        (true, _) => Ok(()),
        (false, true) => Err(VerifyError::Mismatch),
        (false, false) => Err(VerifyError::NoSignature),
    }
}

/// Why a message is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The timestamp lies too far in the past: a replayed message, or a clock that is wrong.
    #[error("timestamp is {age_s} s old, more than the {tolerance_s} s tolerated")]
    TooOld {
        /// How far the timestamp lies behind the receiver's clock.
        age_s: i64,
        /// How far it may.
        tolerance_s: u32,
    },
    /// The timestamp lies too far in the future.
    #[error("timestamp is {ahead_s} s ahead, more than the {tolerance_s} s tolerated")]
    TooNew {
        /// How far the timestamp lies ahead of the receiver's clock.
        ahead_s: i64,
        /// How far it may.
        tolerance_s: u32,
    },
    /// The header holds no well-formed signature of a version that there is a key for.
    #[error("header holds no signature of a known version")]
    NoSignature,
    /// No signature fits: another secret, another id or timestamp, or a body that was changed.
    #[error("no signature matches")]
    Mismatch,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the Standard Webhooks libraries (`sign_function_works` and its likes).
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret(text: &str) -> Secret {
        Secret::parse(text).expect("test secret")
    }

    #[test]
    fn the_published_vector_holds() {
        assert_eq!(sign(ID, TIMESTAMP, BODY, &[&secret(SECRET)]), SIGNATURE);
    }

    #[test]
    fn secrets_are_checked_and_kept_to_themselves() {
        let cases: &[(&str, Result<(), SecretError>)] = &[
            (SECRET, Ok(())),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Err(SecretError::Prefix)),
            ("whsec_", Err(SecretError::Length { length_bytes: 0 })),
            ("whsec_AAAA", Err(SecretError::Length { length_bytes: 3 })),
            ("whsec_no*base64", Err(SecretError::Base64)),
            (
                "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                Ok(()), // 32 bytes, its padding left off
            ),
        ];
        for (text, expected) in cases {
            let got = Secret::parse(text).map(|_| ());
            assert_eq!(got, *expected, "{text}");
        }
        for (length_bytes, fits) in [(23, false), (24, true), (64, true), (65, false)] {
            let got = Secret::from_bytes(&vec![7; length_bytes]);
            assert_eq!(got.is_ok(), fits, "{length_bytes} bytes");
        }
        let shown = format!("{0:?} {0}", secret(SECRET));
        assert_eq!(shown, "Secret(whsec_***) whsec_***");
        assert_eq!(secret(SECRET).to_whsec_string(), SECRET);
    }

    #[test]
    fn both_secrets_sign_while_one_is_rotated() {
        let old = secret(SECRET);
        let new = Secret::from_bytes(&[9; 32]).expect("32 bytes");
        let stranger = Secret::from_bytes(&[8; 32]).expect("32 bytes");
        let header = sign(ID, TIMESTAMP, BODY, &[&new, &old]);
        assert_eq!(header.split(' ').count(), 2);
        assert!(header.ends_with(SIGNATURE), "{header}");

        let check = |secrets: &[&Secret]| verify(ID, TIMESTAMP, BODY, &header, secrets, TIMESTAMP, 300);
        assert_eq!(check(&[&old]), Ok(()));
        assert_eq!(check(&[&new]), Ok(()));
        assert_eq!(check(&[&stranger, &new]), Ok(()));
        assert_eq!(check(&[&stranger]), Err(VerifyError::Mismatch));
        assert_eq!(check(&[]), Err(VerifyError::NoSignature));
    }

    #[test]
    fn what_was_changed_or_is_stale_is_refused() {
        let key = secret(SECRET);
        let on_time = |id: &str, timestamp: i64, body: &[u8], header: &str| {
            verify(id, timestamp, body, header, &[&key], timestamp, 300)
        };
        assert_eq!(on_time(ID, TIMESTAMP, BODY, SIGNATURE), Ok(()));
        let mismatch = Err(VerifyError::Mismatch);
        assert_eq!(on_time("msg_other", TIMESTAMP, BODY, SIGNATURE), mismatch);
        assert_eq!(on_time(ID, TIMESTAMP + 1, BODY, SIGNATURE), mismatch);
        assert_eq!(on_time(ID, TIMESTAMP, b"{}", SIGNATURE), mismatch);
        assert_eq!(on_time(ID, TIMESTAMP, BODY, "v1,AAAA"), mismatch);
        for header in ["", "v1", "v1,*", "v1a,AAAA", "v2,AAAA g0hM9SsE"] {
            let got = on_time(ID, TIMESTAMP, BODY, header);
            assert_eq!(got, Err(VerifyError::NoSignature), "{header}");
        }

        let at = |now: i64| verify(ID, TIMESTAMP, BODY, SIGNATURE, &[&key], now, 300);
        assert_eq!(at(TIMESTAMP + 300), Ok(()));
        assert_eq!(at(TIMESTAMP - 300), Ok(()));
        let (age_s, ahead_s, tolerance_s) = (301, 301, 300);
        assert_eq!(at(TIMESTAMP + 301), Err(VerifyError::TooOld { age_s, tolerance_s }));
        assert_eq!(at(TIMESTAMP - 301), Err(VerifyError::TooNew { ahead_s, tolerance_s }));
        let extreme = verify(ID, i64::MIN, BODY, SIGNATURE, &[&key], i64::MAX, 300);
        assert!(matches!(extreme, Err(VerifyError::TooOld { .. })));
    }

    /// The asymmetric signature in the standard's own example of a header, and the key that Svix's
    /// server tests made it with.
    const PRIVATE_KEY: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC_KEY: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    const SIGNATURE_V1A: &str =
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    #[test]
    fn the_published_asymmetric_vector_holds() {
        let key = SigningKey::parse(PRIVATE_KEY).expect("key");
        assert_eq!(sign(ID, TIMESTAMP, BODY, &[&key]), SIGNATURE_V1A);
        assert_eq!(key.to_key_string(), PRIVATE_KEY);
        let public = PublicKey::parse(PUBLIC_KEY).expect("key");
        assert!(matches!(key.verifying_key(), VerifyingKey::Ed25519(derived) if derived == public));
        let check = |id: &str, header: &str| verify(id, TIMESTAMP, BODY, header, &[&public], TIMESTAMP, 300);
        assert_eq!(check(ID, SIGNATURE_V1A), Ok(()));
        assert_eq!(check("msg_other", SIGNATURE_V1A), Err(VerifyError::Mismatch));
        assert_eq!(check(ID, "v1a,AAAA"), Err(VerifyError::Mismatch));
        assert_eq!(check(ID, SIGNATURE), Err(VerifyError::NoSignature));
    }

    #[test]
    fn keys_of_both_kinds_sign_side_by_side() {
        let keys = [SECRET, PRIVATE_KEY].map(|text| SigningKey::parse(text).expect("key"));
        let header = sign(ID, TIMESTAMP, BODY, &[&keys[0], &keys[1]]);
        assert_eq!(header, format!("{SIGNATURE} {SIGNATURE_V1A}"));
        for text in [SECRET, PUBLIC_KEY] {
            let key = VerifyingKey::parse(text).expect("key");
            assert_eq!(verify(ID, TIMESTAMP, BODY, &header, &[&key], TIMESTAMP, 300), Ok(()), "{text}");
        }
        // What a public key would "sign" as a shared secret is not believed.
        let confused = Secret::from_bytes(&LENIENT.decode(&PUBLIC_KEY[5..]).expect("base64")).expect("32 bytes");
        let forged = sign(ID, TIMESTAMP, BODY, &[&confused]);
        let public = VerifyingKey::parse(PUBLIC_KEY).expect("key");
        for header in [forged.clone(), forged.replace("v1,", "v1a,")] {
            assert!(verify(ID, TIMESTAMP, BODY, &header, &[&public], TIMESTAMP, 300).is_err());
        }
        assert!(matches!(SigningKey::parse(PUBLIC_KEY), Err(SigningKeyError::Prefix)));
        assert!(matches!(VerifyingKey::parse(PRIVATE_KEY), Err(SigningKeyError::Prefix)));
        assert!(!format!("{keys:?}").contains("6Xb"));
    }
}
