//! The server's certificate, for gRPC and HTTP: read at start and reloaded.
//!
//! ```text
//! files ──read──▶ CertifiedKey ──▶ Certificate ──asked at each handshake──▶ both doors
//! ```
//!
//! # Invariants
//!
//! - A certificate that does not go with its key never takes the place of one that does.
//! - Connections that are open keep what they were opened with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Tls;

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or is no PEM of what it should be.
    #[error("{what} {path} cannot be used: {source}", path = path.display())]
    Pem {
        /// What it should be.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not work together.
    #[error("certificate {path} and its key cannot be used: {source}", path = path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The certificate that is shown now.
#[derive(Debug)]
pub struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// Shows `pair`.
    pub fn new(pair: CertifiedKey) -> Arc<Certificate> {
        Arc::new(Certificate(RwLock::new(Arc::new(pair))))
    }

    /// From now on shows `pair`.
    pub fn replace(&self, pair: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
    }

    /// What connections are accepted by.
    ///
    /// # Panics
    ///
    /// Never: ring can do the versions that are asked for.
    pub fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("ring can do the default versions");
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Reads certificate and key.
///
/// # Errors
///
/// [`TlsError`], with the file.
pub fn read(tls: &Tls) -> Result<CertifiedKey, TlsError> {
    let pem = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { what, path, source }
    };
    let certificates = CertificateDer::pem_file_iter(&tls.cert_file)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .map_err(pem("certificate", &tls.cert_file))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file).map_err(pem("private key", &tls.key_file))?;
    let pair = CertifiedKey::from_der(certificates, key, &rustls::crypto::ring::default_provider());
    pair.map_err(|source| TlsError::Pair { path: tls.cert_file.clone(), source })
}
