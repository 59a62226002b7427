//! SIGHUP: what can be changed while the server runs, read anew from where it was read at the start.
//!
//! ```text
//! sources ──▶ Config ──▶ certificate, dialects ──all of it is sound──▶ in effect
//!                   └──────── something is not ──────────────────────▶ logged; everything stays as it was
//! ```
//!
//! # Invariants
//!
//! - All or nothing: what is wrong with one setting leaves the others as they were too.
//! - What needs a restart is named in the log, and never half in effect.

use punchline_engine::id::SubscriptionId;
use punchline_runtime::dispatch::target::TargetError;

use crate::config::{Config, ConfigError, Sources};
use crate::serve::{Running, StartError, dialects};
use crate::telemetry;
use crate::tls::{self, TlsError};

/// The settings that are taken over; the files that they name are read anew each time.
const RELOADED: [&str; 7] = [
    "delivery.dialects_dir",
    "ingest.rate_limit_grpc_per_minute",
    "ingest.rate_limit_http_per_minute",
    "log.filter",
    "security.operator_token",
    "server.tls.cert_file",
    "server.tls.key_file",
];

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificate or key.
    #[error("{0}; see server.tls.cert_file and server.tls.key_file")]
    Tls(#[from] TlsError),
    /// A dialect file.
    #[error(transparent)]
    Dialect(#[from] StartError),
    /// A subscription that would be left without its dialect.
    #[error("delivery.dialects_dir: nothing could be sent to subscription {id} any more: {source}")]
    Subscription {
        /// Which.
        id: SubscriptionId,
        /// Why.
        source: TargetError,
    },
}

/// Takes over what can be, and gives the settings that differ from those of the start and need a restart.
///
/// # Errors
///
/// [`ReloadError`]; nothing has changed then.
pub fn reload(running: &Running, started: &Config, sources: &Sources) -> Result<Vec<String>, ReloadError> {
    let config = Config::load(sources)?;
    let pair = config.server.tls.as_ref().map(tls::read).transpose()?;
    let dialects = dialects(&config)?;
    let replaced = running.node.replace_dialects(dialects);
    replaced.map_err(|(id, source)| ReloadError::Subscription { id, source })?;

    let mut restart = started.differences(&config);
    match (&running.certificate, pair) {
        (Some(certificate), Some(pair)) => {
            certificate.replace(pair);
            restart.retain(|key| !RELOADED.contains(&key.as_str()));
        }
        // Whether there is TLS at all is part of the doors.
        _ => restart.retain(|key| key.starts_with("server.tls") || !RELOADED.contains(&key.as_str())),
    }
    running.state.auth.set_operator_token(config.security.operator_token.expose());
    running.state.grpc_limit.set_per_minute(config.ingest.rate_limit_grpc_per_minute);
    running.http.set_limit(config.ingest.rate_limit_http_per_minute);
    telemetry::set_filter(&config.log.filter);
    Ok(restart)
}

/// [`reload`], told in the log.
pub fn reload_and_tell(running: &Running, started: &Config, sources: &Sources) {
    match reload(running, started, sources) {
        Ok(restart) if restart.is_empty() => tracing::info!("configuration reloaded"),
        Ok(restart) => {
            tracing::warn!(needs_restart = restart.join(", "), "configuration reloaded, but for what needs a restart");
        }
        Err(error) => tracing::error!(%error, "configuration not reloaded, everything stays as it was"),
    }
}
