//! A client certificate: who Punchline is to a receiver that asks within TLS (mTLS).
//!
//! # Invariants
//!
//! - A [`ClientIdentity`] can be used: its certificates parse, and its key belongs to the first.
//! - The key is never shown: `Debug` is redacted, errors never hold it.
//!
//! # What is absent on purpose
//!
//! - No look at dates: a certificate that has run out is the receiver's to refuse, and the attempt
//!   says so. There is no clock here.
//! - No pass phrase: the PEM is encrypted at rest as every other secret is.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::digest::Digest;

/// The most bytes of either PEM text.
pub const PEM_BYTES_MAX: usize = 64 * 1024;
/// The most certificates of a chain: what TLS implementations verify at most by default.
pub const CHAIN_CERTIFICATES_MAX: usize = 10;

/// A certificate chain and the key of its first certificate. Cheap to clone.
#[derive(Clone)]
pub struct ClientIdentity {
    certified: Arc<CertifiedKey>,
    digest: Digest,
}

impl ClientIdentity {
    /// Takes a PEM chain, the client's own certificate first, and the PEM of its private key
    /// (PKCS#8, PKCS#1 or SEC1; RSA, ECDSA P-256 or P-384, or ed25519).
    ///
    /// # Errors
    ///
    /// [`IdentityError`], which says what to mend.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        for (what, text) in [("certificate", certificates), ("key", key)] {
            if text.len() > PEM_BYTES_MAX {
                return Err(IdentityError::TooLong { what, length_bytes: text.len() });
            }
        }
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| IdentityError::Pem { what: "certificate", source })?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(IdentityError::LongChain { count: chain.len() });
        }
        let key = read_key(key)?;
        let parts = chain.iter().map(AsRef::as_ref).chain([key.secret_der()]);
        let digest = Digest::of(parts);
        let certified = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => IdentityError::Mismatch,
            rustls::Error::InvalidCertificate(_) => IdentityError::Certificate { source },
            _ => IdentityError::Key { source },
        })?;
        Ok(Self { certified: Arc::new(certified), digest })
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// Names certificate and key.
    pub(crate) const fn digest(&self) -> Digest {
        self.digest
    }
}

fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, IdentityError> {
    if text.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        return Err(IdentityError::Encrypted);
    }
    let mut keys = <(SectionKind, Vec<u8>)>::pem_slice_iter(text)
        .filter_map(|section| section.map(|(kind, der)| PrivateKeyDer::from_pem(kind, der)).transpose());
    match (keys.next(), keys.next()) {
        (None, _) => Err(IdentityError::NoKey),
        (Some(Ok(key)), None) => Ok(key),
        (Some(Err(source)), _) | (_, Some(Err(source))) => Err(IdentityError::Pem { what: "key", source }),
        (Some(Ok(_)), Some(Ok(_))) => Err(IdentityError::SeveralKeys),
    }
}

/// In PKCS#8's label, and in the header of older forms (`Proc-Type: 4,ENCRYPTED`).
const ENCRYPTED: &[u8] = b"ENCRYPTED";

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("certificates", &self.certified.cert.len()).finish_non_exhaustive()
    }
}

/// Why PEM texts are no client identity. Never holds the key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Longer than [`PEM_BYTES_MAX`].
    #[error("client {what} has {length_bytes} bytes, more than 65536")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its length.
        length_bytes: usize,
    },
    /// The text is broken within a section.
    #[error("client {what} is no valid PEM: {source}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What the parser said.
        source: pem::Error,
    },
    /// No `CERTIFICATE` section.
    #[error("client certificate holds no section \"BEGIN CERTIFICATE\"")]
    NoCertificate,
    /// More than [`CHAIN_CERTIFICATES_MAX`].
    #[error("client certificate is a chain of {count}, more than 10")]
    LongChain {
        /// How many there are.
        count: usize,
    },
    /// No private key section.
    #[error("client key holds no section \"BEGIN PRIVATE KEY\" (or \"RSA\" or \"EC PRIVATE KEY\")")]
    NoKey,
    /// More than one private key.
    #[error("client key holds more than one private key")]
    SeveralKeys,
    /// The key is protected by a pass phrase.
    #[error("client key is encrypted: decrypt it first (openssl pkey -in key.pem)")]
    Encrypted,
    /// The first section is no X.509 certificate.
    #[error("client certificate is malformed: {source}")]
    Certificate {
        /// What the parser said.
        source: rustls::Error,
    },
    /// A malformed key, or of a kind that is not supported.
    #[error("client key cannot be used: {source}")]
    Key {
        /// What the provider said.
        source: rustls::Error,
    },
    /// The key is another certificate's.
    #[error("client key does not belong to the first client certificate")]
    Mismatch,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["client".to_owned()]).expect("certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn pem_texts_are_checked_one_by_one() {
        let ((certificate, key), (other_certificate, other_key)) = (made(), made());
        let identity = |certificate: &str, key: &str| ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes());
        let text = |certificate: &str, key: &str| identity(certificate, key).expect_err("refused").to_string();

        let one = identity(&certificate, &key).expect("fits");
        let again = identity(&format!("a comment\n{certificate}"), &format!("{key}\n")).expect("fits");
        let other = identity(&other_certificate, &other_key).expect("fits");
        let chain = identity(&format!("{certificate}{other_certificate}"), &key).expect("a chain");
        assert_eq!(one.digest(), again.digest());
        assert!(one.digest() != other.digest() && one.digest() != chain.digest());
        let body: String = key.lines().nth(1).expect("base64").to_owned();
        assert!(!format!("{one:?}").contains(&body));

        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let broken = certificate.replace("-----END", "-----");
        let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let hollow_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let cases = [
            (text("", &key), "no section \"BEGIN CERTIFICATE\""),
            (text(&key, &key), "no section \"BEGIN CERTIFICATE\""),
            (text(&broken, &key), "no valid PEM"),
            (text(hollow, &key), "certificate is malformed"),
            (text(&certificate.repeat(11), &key), "a chain of 11"),
            (text(&"x".repeat(70_000), &key), "70000 bytes"),
            (text(&certificate, ""), "no section \"BEGIN PRIVATE KEY\""),
            (text(&certificate, &certificate), "no section \"BEGIN PRIVATE KEY\""),
            (text(&certificate, &encrypted), "is encrypted"),
            (text(&certificate, hollow_key), "cannot be used"),
            (text(&certificate, &format!("{key}{other_key}")), "more than one"),
            (text(&certificate, &other_key), "does not belong"),
            (text(&other_certificate, &key), "does not belong"),
        ];
        for (text, expected) in cases {
            assert!(text.contains(expected), "{text}: {expected}");
            assert!(!text.contains(&body), "{text}");
        }
    }
}
