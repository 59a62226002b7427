//! `punchline serve`: a data directory and its doors, opened, served and closed.
//!
//! ```text
//! start:    lock ▶ master key ▶ node ▶ listeners bound ▶ gRPC, HTTP, metrics
//! SIGHUP:   see reload
//! shutdown: /readyz says no ▶ drain ▶ doors closed, calls under way end ▶ node closed ▶ lock
//! ```
//!
//! # Invariants
//!
//! - Addresses are bound before anything is served: a server that started serves on all of them.
//! - The master key is made, and read, under the data directory's lock.
//! - A shutdown ends within its deadline, come what may: what was acknowledged is on disk already.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use punchline_delivery::dialect::Dialects;
use punchline_delivery::endpoint::EndpointPolicy;
use punchline_delivery::segment::{SegmentBatcher, SegmentLimits};
use punchline_delivery::transport::{Transport, TransportConfig, TransportLimits};
use punchline_engine::id::Tenant;
use punchline_runtime::backup::backed_up;
use punchline_runtime::clock::{Clock, SystemClock};
use punchline_runtime::committer::Unavailable;
use punchline_runtime::dispatch::dispatcher::Couriers;
use punchline_runtime::dispatch::target::Rulebook;
use punchline_runtime::node::{Node, NodeOptions, OpenError, open_stores};
use punchline_runtime::seal::Sealer;
use punchline_storage::backup::{Manifest, manifest_in};
use punchline_storage::data_dir::{DataDir, DataDirOptions};
use punchline_storage::member_keys::KeysError;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cli::ServeArgs;
use crate::config::{Config, Sources};
use crate::http::{self, Http};
use crate::master_key::{self, MasterKeyError};
use crate::refuse::Refused;
use crate::state::State;
use crate::tls::{Certificate, TlsError};
use crate::{dev, grpc, otel, reload, systemd, telemetry, tls};

/// `EX_SOFTWARE` of sysexits.h: something failed.
const EXIT_FAILED: u8 = 70;
/// `EX_CONFIG` of sysexits.h: the configuration is wrong.
const EXIT_CONFIG: u8 = 78;
/// Connections to receivers kept for later, over all of them: a tenth of the descriptors below.
const CONNECTIONS_UNUSED_MAX: usize = 4_096;
/// Descriptors for files and for what is not counted in `delivery.in_flight_max`: the connections of both doors.
const DESCRIPTORS_SPARE: u64 = 40_960;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or is none of this machine's.
    #[error("cannot listen on {address} for {what}: {source}; set {key} to another address")]
    Bind {
        /// Which door.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The setting.
        key: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Certificate or key.
    #[error("{0}; see server.tls.cert_file and server.tls.key_file")]
    Tls(#[from] TlsError),
    /// A dialect file.
    #[error("{0}; dialect files are in delivery.dialects_dir")]
    Dialect(String),
    /// The master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The data directory.
    #[error("{0}; its place is storage.data_dir")]
    Open(Box<OpenError>),
    /// The collector of traces.
    #[error("cannot send traces: {0}; see tracing.otlp_endpoint")]
    Tracing(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The metrics.
    #[error("cannot install the metrics recorder: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// What `--dev` loads.
    #[error("cannot load the development data: {what}: {}", refused.message)]
    Dev {
        /// Which part.
        what: &'static str,
        /// Why.
        refused: Box<Refused>,
    },
    /// `--dev` on what was not made by it.
    #[error(
        "storage.data_dir holds data that `serve --dev` did not make, and would get credentials that everybody \
         knows: name another directory with --data-dir"
    )]
    NotDevData,
    /// Without `--dev`, on what was made by it.
    #[error(
        "storage.data_dir was made by `serve --dev`: everybody knows the credentials {key} of advertiser {} \
         ({}); name another directory with --data-dir, or start with --dev and revoke {key} in both environments",
        tenant.advertiser, tenant.environment, key = dev::API_KEY
    )]
    KnownCredentials {
        /// Whose credentials.
        tenant: Tenant,
    },
    /// `--dev` on an address that others reach.
    #[error("{key} is {address}, which is not loopback: `serve --dev` has known credentials and listens nowhere else")]
    NotLoopback {
        /// The setting.
        key: &'static str,
        /// What it is.
        address: SocketAddr,
    },
    /// The system.
    #[error("cannot {what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl StartError {
    fn exit_code(&self) -> u8 {
        match self {
            StartError::Tls(_) | StartError::NotLoopback { .. } => EXIT_CONFIG,
            StartError::NotDevData | StartError::KnownCredentials { .. } | StartError::Dialect(_) => EXIT_CONFIG,
            StartError::MasterKey(MasterKeyError::Missing { .. } | MasterKeyError::Malformed { .. }) => EXIT_CONFIG,
            StartError::Open(error) if matches!(**error, OpenError::Keys(KeysError::MasterKey { .. })) => EXIT_CONFIG,
            _ => EXIT_FAILED,
        }
    }
}

/// A server that serves, in this process.
pub struct Running {
    /// Where gRPC is, with the port that the system chose where 0 was configured.
    pub grpc_addr: SocketAddr,
    /// Where HTTP is.
    pub http_addr: SocketAddr,
    /// Where `/metrics` is.
    pub metrics_addr: SocketAddr,
    /// What the doors share.
    pub state: Arc<State>,
    /// The node behind them.
    pub node: Arc<Node>,
    /// What is shown to whoever connects, where there is TLS.
    pub certificate: Option<Arc<Certificate>>,
    /// The HTTP door.
    pub http: Arc<Http>,
    drain: Duration,
    stop: watch::Sender<bool>,
    stop_metrics: watch::Sender<bool>,
    doors: Vec<JoinHandle<()>>,
    metrics: Vec<JoinHandle<()>>,
    delivering: Delivering,
}

/// Starts a server; to be called inside a tokio runtime. Metrics go to this process's one recorder.
///
/// # Errors
///
/// [`StartError`], with the path or address and what to do.
pub async fn start(config: Config) -> Result<Running, StartError> {
    start_with(config, false).await
}

/// As [`start`]; with `dev`, the development data is there before the first request is answered.
async fn start_with(config: Config, dev: bool) -> Result<Running, StartError> {
    let recorder = telemetry::install_metrics()?;
    let pair = config.server.tls.as_ref().map(tls::read).transpose()?;
    let certificate = pair.map(Certificate::new);
    let tls = certificate.as_ref().map(Certificate::server_config);
    let grpc_tls = tls.clone();
    let (grpc_listener, grpc_addr) = bind("gRPC", "server.grpc_bind", config.server.grpc_bind).await?;
    let (http_listener, http_addr) = bind("HTTP", "server.http_bind", config.server.http_bind).await?;
    let (metrics_listener, metrics_addr) = bind("metrics", "server.metrics_bind", config.server.metrics_bind).await?;
    let delivering = Delivering::start()?;
    let (node, master_key) = open_node(&config, &delivering)?;
    let node = Arc::new(node);
    if let Err(refused) = dev::check_journal(&node.directory(), dev) {
        node.close().await;
        return Err(refused);
    }
    if dev {
        dev::load(&node).await?;
    }
    let data_dir = std::fs::canonicalize(&config.storage.data_dir).unwrap_or(config.storage.data_dir.clone());
    let token = config.security.operator_token.expose();
    let state = State::new(node.clone(), token, &master_key, Some(data_dir));
    let state = state.with_grpc_limit(config.ingest.rate_limit_grpc_per_minute);
    let mut state = state.with_backup(config.backup.configured(), config.retention.journal_keep_days);
    state.stuck_after = Duration::from_millis(config.server.stuck_after_ms);
    let state = Arc::new(state);
    if let Some(manifest) = config.backup.configured().and_then(backup_in) {
        backed_up(manifest.made_at());
    }

    let (stop, stopped) = watch::channel(false);
    let (stop_metrics, metrics_stopped) = watch::channel(false);
    let http = Http::new(state.clone(), config.ingest.rate_limit_http_per_minute);
    let mut grpc_stopped = stopped.clone();
    let grpc_state = state.clone();
    let doors = vec![
        tokio::spawn(http::listen::serve(http_listener, http::router(http.clone()), tls, stopped)),
        tokio::spawn(async move {
            let down = async move { drop(grpc_stopped.wait_for(|stop| *stop).await) };
            if let Err(error) = grpc::serve(grpc_state, grpc_listener, grpc_tls, down).await {
                tracing::error!(%error, "gRPC stopped");
            }
        }),
    ];
    let metrics_router = telemetry::router(recorder.clone(), node.clone(), config.metrics.per_subscription);
    let metrics = vec![
        tokio::spawn(http::listen::serve(metrics_listener, metrics_router, None, metrics_stopped)),
        tokio::spawn(telemetry::upkeep(recorder)),
        tokio::spawn(systemd::watch(state.clone())),
    ];
    let drain = Duration::from_millis(config.server.drain_ms);
    Ok(Running {
        grpc_addr,
        http_addr,
        metrics_addr,
        state,
        node,
        certificate,
        http,
        drain,
        stop,
        stop_metrics,
        doors,
        metrics,
        delivering,
    })
}

/// The threads that deliveries are made on. Those that answer callers are others: however much there is to deliver,
/// the system gives a call its turn.
struct Delivering(Option<Runtime>);

impl Delivering {
    fn start() -> Result<Delivering, StartError> {
        let runtime = Builder::new_multi_thread().thread_name("delivery").enable_all().build();
        let runtime = runtime.map_err(|source| StartError::System { what: "start the threads of delivery", source })?;
        Ok(Delivering(Some(runtime)))
    }

    fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        // The node is closed by now, or ends with the process: nothing is to be waited for, least of all by a task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Running {
    /// Says no to probes, closes the doors a while later, lets what is under way end, and closes the node. Gives why the node had stopped
    /// by itself, if it had.
    pub async fn shutdown(self) -> Option<Unavailable> {
        let failed = self.node.stopped();
        self.state.announce_shutdown();
        tokio::time::sleep(self.drain).await;
        self.stop.send_replace(true);
        for door in self.doors {
            if let Err(error) = door.await {
                tracing::error!(%error, "a listener failed");
            }
        }
        self.node.close().await;
        self.stop_metrics.send_replace(true);
        self.metrics.iter().for_each(JoinHandle::abort);
        drop(self.delivering);
        failed
    }
}

async fn bind(
    what: &'static str,
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let error = |source| StartError::Bind { what, address, key, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

/// The built-in dialects, and the operator's own.
pub(crate) fn dialects(config: &Config) -> Result<Arc<Dialects>, StartError> {
    let mut dialects = Dialects::builtin();
    let dir = &config.delivery.dialects_dir;
    if dir.as_os_str().is_empty() {
        return Ok(Arc::new(dialects));
    }
    let unreadable = |path: &Path, error: io::Error| StartError::Dialect(format!("{}: {error}", path.display()));
    let entries = std::fs::read_dir(dir).map_err(|error| unreadable(dir, error))?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(|error| unreadable(dir, error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        let loaded = dialects.load(&path.display().to_string(), &text);
        loaded.map_err(|error| StartError::Dialect(error.to_string()))?;
    }
    Ok(Arc::new(dialects))
}

fn transport(config: &Config, policy: &EndpointPolicy) -> Transport {
    let limits = TransportLimits {
        connect_timeout: Duration::from_millis(config.delivery.connect_timeout_ms),
        connections_max: config.delivery.in_flight_max + CONNECTIONS_UNUSED_MAX,
        ..TransportLimits::default()
    };
    let proxy = config.delivery.egress_proxy();
    Transport::from_config(TransportConfig { limits, proxy, ..TransportConfig::new(policy.clone()) })
}

fn open_node(config: &Config, delivering: &Delivering) -> Result<(Node, [u8; 32]), StartError> {
    let open = |source| StartError::Open(Box::new(source));
    let data_dir = DataDir::open(&config.storage.data_dir, DataDirOptions::default());
    let data_dir = data_dir.map_err(|source| open(source.into()))?;
    let master_key = master_key::load(&data_dir, config.security.master_key_bytes())?;
    let (stores, recovery) = open_stores(&data_dir, &master_key).map_err(open)?;
    let policy =
        EndpointPolicy { allow_http: config.delivery.allow_http, allow_private: config.delivery.allow_private.clone() };
    let transport = transport(config, &policy);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = NodeOptions {
        clock,
        couriers: Couriers {
            segment: Arc::new(SegmentBatcher::new(transport.clone(), SegmentLimits::default())),
            http: Arc::new(transport),
        },
        delivering: delivering.handle(),
        rulebook: Rulebook { sealer: Arc::new(Sealer::new(&master_key)), policy, dialects: dialects(config)? },
        queue_max: config.ingest.queue_max,
        in_flight_max: config.delivery.in_flight_max,
        reserve_bytes: config.storage.reserve_bytes,
        checkpoint_interval: Duration::from_millis(config.storage.checkpoint_interval_ms),
        members_cached: config.storage.members_cached,
        delivery_log: config.delivery.log_limits(),
    };
    let node = Node::start(stores, recovery, options, Some(data_dir)).map_err(open)?;
    Ok((node, master_key))
}

/// The backup that there is.
fn backup_in(directory: &Path) -> Option<Manifest> {
    let found = manifest_in(directory);
    found.inspect_err(|error| tracing::warn!(%error, "the backup cannot be read")).ok().flatten()
}

/// `punchline serve`: runs until SIGINT or SIGTERM; reads `sources` anew at each SIGHUP.
#[must_use]
pub fn run(config: Config, sources: &Sources, args: &ServeArgs) -> ExitCode {
    telemetry::init_log(&config.log);
    raise_descriptors(config.delivery.in_flight_max);
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| StartError::System { what: "start the async runtime", source });
    let served = runtime.and_then(|runtime| runtime.block_on(serve(&config, sources, args.dev)));
    match served {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(why)) => {
            dev::tell(&format!("punchline: the server had stopped taking commands: {why}"));
            ExitCode::from(EXIT_FAILED)
        }
        Err(error) => {
            dev::tell(&format!("punchline: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

async fn serve(config: &Config, sources: &Sources, is_dev: bool) -> Result<Option<Unavailable>, StartError> {
    let listen = |kind| signal(kind).map_err(|source| StartError::System { what: "listen for signals", source });
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    if is_dev {
        dev::check(config)?;
    }
    let traces = otel::install(&config.tracing)?;
    let running = start_with(config.clone(), is_dev).await?;
    let recovery = running.node.recovery();
    tracing::info!(
        grpc = %running.grpc_addr,
        http = %running.http_addr,
        metrics = %running.metrics_addr,
        tls = config.server.tls.is_some(),
        data_dir = %config.storage.data_dir.display(),
        head = recovery.head.0,
        events_applied = recovery.events_applied,
        recovered_in_ms = recovery.took.as_millis() as u64,
        "serving"
    );
    if is_dev {
        dev::tell(&dev::greeting(&running, config));
    } else if config.security.operator_token.is_empty() {
        tracing::warn!("security.operator_token is empty: nobody can administer this server");
    }
    systemd::ready("serving");
    loop {
        tokio::select! {
            () = any(&mut interrupt, &mut terminate) => break,
            _ = hang_up.recv() => {
                systemd::reloading();
                reload::reload_and_tell(&running, config, sources);
                systemd::ready("serving");
            }
        }
    }
    systemd::stopping();
    tracing::info!("shutting down; a second signal ends at once");
    let deadline = running.drain + Duration::from_millis(config.server.shutdown_max_ms);
    let state = running.state.clone();
    let failed = tokio::select! {
        failed = running.shutdown() => failed.filter(|why| matches!(why, Unavailable::Stopped { .. })),
        () = tokio::time::sleep(deadline) => {
            let stuck = state.stuck().join(", ");
            tracing::error!(deadline = ?deadline, stuck, "ended before everything was closed");
            std::process::exit(i32::from(EXIT_FAILED));
        }
        // What was acknowledged is on disk: ending now loses nothing.
        () = any(&mut interrupt, &mut terminate) => {
            tracing::warn!("ended before everything was closed");
            std::process::exit(i32::from(EXIT_FAILED));
        }
    };
    if let Some(traces) = traces {
        otel::flush(traces).await;
    }
    tracing::info!("closed");
    Ok(failed)
}

async fn any(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Raises the soft limit of descriptors to what attempts and connections may need, as far as allowed.
fn raise_descriptors(in_flight_max: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = in_flight_max as u64 + DESCRIPTORS_SPARE;
    let Some(current) = limit.current.filter(|current| *current < wanted) else { return };
    let raised = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if raised <= current {
        return;
    }
    let raised = Rlimit { current: Some(raised), maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current, wanted, "the limit of open files stays low");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    /// Starts and stops, on a runtime of its own: its end lets go of the data directory.
    fn start_and_stop(config: &Config, dev: bool) -> Result<(), StartError> {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            start_with(config.clone(), dev).await?.shutdown().await;
            Ok(())
        })
    }

    #[test]
    fn what_dev_made_is_not_served_without_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut flags: Vec<(String, String)> = Vec::new();
        for bind in ["server.grpc_bind", "server.http_bind", "server.metrics_bind"] {
            flags.push((bind.into(), "127.0.0.1:0".into()));
        }
        flags.push(("storage.data_dir".into(), dir.path().join("data").display().to_string()));
        let config = Config::load(&Sources { flags, ..Sources::default() }).expect("valid");
        for _ in 0..2 {
            start_and_stop(&config, true).expect("its own data");
        }
        let refused = start_and_stop(&config, false).expect_err("the credentials are known");
        assert_eq!(refused.exit_code(), EXIT_CONFIG);
        let told = refused.to_string();
        assert!(told.contains("dev-key") && told.contains("--data-dir"), "{told}");
    }
}
