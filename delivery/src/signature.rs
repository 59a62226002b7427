//! Signatures of Standard Webhooks 1.0.0: `v1,<base64 of HMAC-SHA256 over id.timestamp.body>`.
//!
//! ```text
//! whsec_<base64> ──parse──▶ Secret ──sign──▶ "v1,… v1,…" ──verify──▶ Ok | VerifyError
//! ```
//!
//! # Invariants
//!
//! - A [`Secret`] never shows itself: `Debug` and `Display` are redacted, and
//!   [`Secret::to_whsec_string`] is the one way out.
//! - The bytes that are signed are the bytes that are sent: [`sign`] takes the body as it goes out.
//! - [`verify`] compares in constant time, over every secret, whichever matched.
//!
//! # What is absent on purpose
//!
//! - No clock: the caller says what time it is.
//! - No generation of secrets: randomness belongs to the runtime; see [`Secret::from_bytes`].
//! - No asymmetric signatures (`v1a`): they are skipped by [`verify`], as the standard asks.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, general_purpose};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The prefix that marks a secret, so that scanners for leaked secrets know one.
const SECRET_PREFIX: &str = "whsec_";
/// The fewest bytes a secret has (Standard Webhooks 1.0.0, "Symmetric signatures").
pub const SECRET_BYTES_MIN: usize = 24;
/// The most bytes a secret has: SHA-256's block, beyond which HMAC would hash the key first.
pub const SECRET_BYTES_MAX: usize = 64;
/// How many signatures of one header are looked at. Two are usual while a secret is rotated; the
/// limit keeps a hostile header from buying hash computations.
const SIGNATURES_MAX: usize = 16;
/// `v1,`, 44 characters of base64, and the space before the next one.
const SIGNATURE_TEXT_BYTES: usize = 48;

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

    fn mac_of(&self, id: &str, timestamp_unix_s: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(id.as_bytes());
        mac.update(format!(".{timestamp_unix_s}.").as_bytes());
        mac.update(body);
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

/// Signs `body` as message `id` at `timestamp_unix_s` with every one of `secrets`.
///
/// Returns the value of `webhook-signature`: `v1,<base64>`, one per secret, separated by spaces, in
/// the order given (current secret first, then those that are being rotated out).
#[must_use]
pub fn sign(id: &str, timestamp_unix_s: i64, body: &[u8], secrets: &[&Secret]) -> String {
    let mut header = String::with_capacity(secrets.len() * SIGNATURE_TEXT_BYTES);
    for secret in secrets {
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str("v1,");
        let tag = secret.mac_of(id, timestamp_unix_s, body).finalize();
        general_purpose::STANDARD.encode_string(tag.into_bytes(), &mut header);
    }
    header
}

/// Checks that one of the signatures in `header` was made with one of `secrets` over exactly this
/// id, timestamp and body, and that the timestamp lies within `tolerance_s` of `now_unix_s`.
///
/// Signatures of versions other than `v1` are passed over.
///
/// # Errors
///
/// [`VerifyError`]. The age is checked first: a stale message is refused whoever signed it.
///
/// # Sources
///
/// Standard Webhooks 1.0.0, "Verifying webhook authenticity"; its libraries tolerate 300 s.
pub fn verify(
    id: &str,
    timestamp_unix_s: i64,
    body: &[u8],
    header: &str,
    secrets: &[&Secret],
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

    let mut any_v1 = false;
    let mut matched = false;
    for signature in header.split_ascii_whitespace().take(SIGNATURES_MAX) {
        let Some(encoded) = signature.strip_prefix("v1,") else {
            continue;
        };
        let Ok(tag) = LENIENT.decode(encoded) else {
            continue;
        };
        any_v1 = true;
        for secret in secrets {
            let mac = secret.mac_of(id, timestamp_unix_s, body);
            matched |= mac.verify_slice(&tag).is_ok();
        }
    }
    match (matched, any_v1) {
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
    /// The header holds nothing of the form `v1,<base64>`.
    #[error("header holds no v1 signature")]
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
        assert_eq!(check(&[]), Err(VerifyError::Mismatch));
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
}
