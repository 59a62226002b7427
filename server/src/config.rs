//! Configuration: what an operator may set, from where, and how a mistake is told.
//!
//! ```text
//! Sources ──layers──▶ dotted keys with origins ──read──▶ Config | ConfigError (all problems at once)
//! ```
//!
//! `config/default.toml` is the schema and its documentation.
//!
//! # Invariants
//!
//! - A [`Config`] is valid: whoever holds one checks nothing again.
//! - Every refused value is named with its key and the place where it stands; a secret never is.

mod layers;
mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use ipnet::IpNet;
use punchline_delivery::proxy::EgressProxy;
use punchline_storage::attempts::AttemptLimits;
use serde::Serialize;

pub use layers::{Origin, Problem};
pub use secret::Secret;

use layers::Settings;

/// The fewest characters of an operator token: `dev-operator` has as many.
const OPERATOR_TOKEN_CHARS_MIN: usize = 12;
/// The bytes of a master key: AES-256.
const MASTER_KEY_BYTES: usize = 32;

/// What is in effect.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Where the server listens.
    pub server: Server,
    /// What it keeps.
    pub storage: Storage,
    /// Whom it trusts.
    pub security: Security,
    /// What it takes in.
    pub ingest: Ingest,
    /// What it sends.
    pub delivery: Delivery,
    /// Where copies go.
    pub backup: Backup,
    /// What is kept.
    pub retention: Retention,
    /// What it counts.
    pub metrics: Metrics,
    /// What it tells.
    pub log: Log,
    /// Where it sends traces.
    pub tracing: Tracing,
    /// Where each value comes from, by dotted key.
    #[serde(skip)]
    pub origins: BTreeMap<String, Origin>,
}

/// Section `server`.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// The gRPC API.
    pub grpc_bind: SocketAddr,
    /// Ingress, health, console.
    pub http_bind: SocketAddr,
    /// Prometheus.
    pub metrics_bind: SocketAddr,
    /// How long the doors stay open after probes were told of the shutdown.
    pub drain_ms: u64,
    /// Longest that the shutdown may take from then on.
    pub shutdown_max_ms: u64,
    /// How long a loop may take for one step, before it counts as stuck.
    pub stuck_after_ms: u64,
    /// Certificate for gRPC and HTTP; `None`: plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Section `server.tls`.
#[derive(Clone, Debug, Serialize)]
pub struct Tls {
    /// PEM, the chain.
    pub cert_file: PathBuf,
    /// PEM, the private key.
    pub key_file: PathBuf,
}

/// Section `storage`.
#[derive(Clone, Debug, Serialize)]
pub struct Storage {
    /// Everything that must survive.
    pub data_dir: PathBuf,
    /// With less free disk, commands are refused.
    pub reserve_bytes: u64,
    /// How often the views are written.
    pub checkpoint_interval_ms: u64,
    /// Members kept in memory.
    pub members_cached: usize,
}

/// Section `security`.
#[derive(Clone, Debug, Serialize)]
pub struct Security {
    /// Bearer token of operators; empty: nobody is one.
    pub operator_token: Secret,
    /// Base64 of 32 bytes; empty: `<data_dir>/master.key` is made at the first start.
    pub master_key: Secret,
}

impl Security {
    /// The master key's bytes, where it is configured.
    #[must_use]
    pub fn master_key_bytes(&self) -> Option<[u8; MASTER_KEY_BYTES]> {
        decode_master_key(&self.master_key).ok().flatten()
    }
}

/// Section `ingest`.
#[derive(Clone, Debug, Serialize)]
pub struct Ingest {
    /// Commands that wait for the writer.
    pub queue_max: usize,
    /// Consumptions a minute and advertiser over HTTP; 0: no limit.
    pub rate_limit_http_per_minute: u32,
    /// The same over gRPC.
    pub rate_limit_grpc_per_minute: u32,
}

/// Section `delivery`.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// Whether receivers may be `http://`.
    pub allow_http: bool,
    /// Private networks that receivers may live in.
    pub allow_private: Vec<IpNet>,
    /// Attempts under way at once.
    pub in_flight_max: usize,
    /// Longest that a connection may take to open.
    pub connect_timeout_ms: u64,
    /// How long attempts are kept in the delivery log.
    pub log_keep_hours: u64,
    /// Space for them; 0: there is no log.
    pub log_max_bytes: u64,
    /// Proxy that everything goes out through; it may hold a password. Empty: none.
    pub proxy: Secret,
    /// Where the operator's own dialect files are; empty: there are none.
    pub dialects_dir: PathBuf,
}

impl Delivery {
    /// How much of the attempts is kept.
    #[must_use]
    pub fn log_limits(&self) -> AttemptLimits {
        AttemptLimits { bytes_max: self.log_max_bytes, keep_ms: self.log_keep_hours as i64 * 3_600_000 }
    }

    /// The proxy, if there is one.
    #[must_use]
    pub fn egress_proxy(&self) -> Option<EgressProxy> {
        (!self.proxy.is_empty())
            .then(|| EgressProxy::parse(self.proxy.expose()).expect("it was checked when it was read"))
    }
}

/// Section `backup`.
#[derive(Clone, Debug, Serialize)]
pub struct Backup {
    /// Where a backup is written; empty: nowhere.
    pub directory: PathBuf,
}

impl Backup {
    /// Where a backup is written, if it is.
    #[must_use]
    pub fn configured(&self) -> Option<&Path> {
        Some(&*self.directory).filter(|path| !path.as_os_str().is_empty())
    }
}

/// Section `retention`.
#[derive(Clone, Debug, Serialize)]
pub struct Retention {
    /// Days of the journal that are kept in any case.
    pub journal_keep_days: u64,
}

/// Section `metrics`.
#[derive(Clone, Debug, Serialize)]
pub struct Metrics {
    /// Whether there are series for each subscription.
    pub per_subscription: bool,
}

/// Section `log`.
#[derive(Clone, Debug, Serialize)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// As tracing's `EnvFilter` has it.
    pub filter: String,
}

/// Section `tracing`.
#[derive(Clone, Debug, Serialize)]
pub struct Tracing {
    /// Collector that takes OTLP over gRPC; empty: no traces.
    pub otlp_endpoint: String,
    /// Of calls without a trace of their own, one in so many is traced.
    pub sample_one_in: u32,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("is to be \"text\" or \"json\""),
        }
    }
}

/// Where to look for settings, the defaults aside.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Whether the development settings lie on the defaults.
    pub dev: bool,
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: Vec<(String, OsString)>,
    /// `key`, `value` of the command line.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// With this process's environment.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        // A name that is not UTF-8 is none of ours, or none of our keys: then it is refused as unknown.
        let env = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect();
        Self { dev: false, file, env, flags: Vec::new() }
    }
}

/// Why a configuration is refused: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Lays the sources over each other and reads the result.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every unknown key, wrong type and wrong value.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut settings = Settings::defaults();
        if sources.dev {
            settings.lay_toml(layers::DEV, |_| Origin::Dev);
        }
        if let Some(path) = &sources.file {
            match layers::read_file(path) {
                Ok(text) => settings.lay_toml(&text, |line| Origin::File { path: path.clone(), line }),
                Err(problem) => settings.problems.push(problem),
            }
        }
        settings.lay_env(sources.env.iter().map(|(k, v)| (k.as_str(), v.as_os_str())));
        for (key, text) in &sources.flags {
            settings.lay_text(key, text, Origin::Flag);
        }
        Self::read(settings, sources.dev)
    }

    fn read(settings: Settings, dev: bool) -> Result<Self, ConfigError> {
        let mut reader = Reader { settings, problems: Vec::new() };
        let config = Self {
            server: Server {
                grpc_bind: reader.bind("server.grpc_bind", dev),
                http_bind: reader.bind("server.http_bind", dev),
                metrics_bind: reader.bind("server.metrics_bind", dev),
                drain_ms: reader.whole("server.drain_ms", 0..=600_000),
                shutdown_max_ms: reader.whole("server.shutdown_max_ms", 1_000..=3_600_000),
                stuck_after_ms: reader.whole("server.stuck_after_ms", 1_000..=3_600_000),
                tls: reader.tls(),
            },
            storage: Storage {
                data_dir: reader.filled("storage.data_dir").into(),
                reserve_bytes: reader.whole("storage.reserve_bytes", 0..=i64::MAX as u64),
                checkpoint_interval_ms: reader.whole("storage.checkpoint_interval_ms", 100..=600_000),
                members_cached: reader.whole("storage.members_cached", 128..=16_777_216) as usize,
            },
            security: Security {
                operator_token: reader.secret("security.operator_token", check_operator_token),
                master_key: reader.secret("security.master_key", |key| decode_master_key(key).map(drop)),
            },
            ingest: Ingest {
                queue_max: reader.whole("ingest.queue_max", 16..=1_048_576) as usize,
                rate_limit_http_per_minute: reader.whole("ingest.rate_limit_http_per_minute", 0..=60_000_000) as u32,
                rate_limit_grpc_per_minute: reader.whole("ingest.rate_limit_grpc_per_minute", 0..=60_000_000) as u32,
            },
            delivery: Delivery {
                allow_http: reader.flag("delivery.allow_http"),
                allow_private: reader.networks("delivery.allow_private"),
                in_flight_max: reader.whole("delivery.in_flight_max", 1..=65_536) as usize,
                connect_timeout_ms: reader.whole("delivery.connect_timeout_ms", 100..=60_000),
                log_keep_hours: reader.whole("delivery.log_keep_hours", 1..=8_760),
                log_max_bytes: reader.log_bytes("delivery.log_max_bytes"),
                proxy: reader.secret("delivery.proxy", check_proxy),
                dialects_dir: reader.text("delivery.dialects_dir").into(),
            },
            backup: Backup { directory: reader.text("backup.directory").into() },
            retention: Retention { journal_keep_days: reader.whole("retention.journal_keep_days", 0..=36_500) },
            metrics: Metrics { per_subscription: reader.flag("metrics.per_subscription") },
            log: Log { format: reader.parsed("log.format"), filter: reader.filter("log.filter") },
            tracing: Tracing {
                otlp_endpoint: reader.endpoint("tracing.otlp_endpoint"),
                sample_one_in: reader.whole("tracing.sample_one_in", 1..=1_000_000) as u32,
            },
            origins: BTreeMap::new(),
        };
        let Reader { mut settings, problems } = reader;
        let mut all = std::mem::take(&mut settings.problems);
        all.extend(problems);
        if all.is_empty() {
            Ok(Self { origins: settings.into_origins(), ..config })
        } else {
            Err(ConfigError { problems: all })
        }
    }

    /// The keys of the settings that have another value in `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let [own, others] = [self, other].map(|config| {
            let plain = toml::Table::try_from(config).expect("a Config consists of what TOML can say");
            let mut leaves = BTreeMap::new();
            for (section, settings) in plain {
                flatten(section, settings, &mut leaves);
            }
            for (key, secret) in config.secrets() {
                leaves.insert(key.to_owned(), toml::Value::from(secret.expose()));
            }
            leaves
        });
        let keys: BTreeSet<&String> = own.keys().chain(others.keys()).collect();
        keys.into_iter().filter(|key| own.get(*key) != others.get(*key)).cloned().collect()
    }

    fn secrets(&self) -> [(&'static str, &Secret); 3] {
        [
            ("security.operator_token", &self.security.operator_token),
            ("security.master_key", &self.security.master_key),
            ("delivery.proxy", &self.delivery.proxy),
        ]
    }

    /// The effective configuration as TOML, secrets redacted, with the origin of what is no default.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let plain = toml::to_string(self).expect("a Config consists of what TOML can say");
        let mut section = String::new();
        let mut text = String::with_capacity(2 * plain.len());
        for line in plain.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            }
            text.push_str(line);
            let origin = line.split_once(" = ").and_then(|(key, _)| self.origins.get(&format!("{section}.{key}")));
            if let Some(origin) = origin.filter(|origin| **origin != Origin::Default) {
                text.push_str(&format!("  # {origin}"));
            }
            text.push('\n');
        }
        text
    }
}

fn flatten(key: String, value: toml::Value, leaves: &mut BTreeMap<String, toml::Value>) {
    match value {
        toml::Value::Table(table) => table.into_iter().for_each(|(k, v)| flatten(format!("{key}.{k}"), v, leaves)),
        leaf => drop(leaves.insert(key, leaf)),
    }
}

/// Reads typed values; what is wrong is noted, and read as the default, so that all problems are found.
struct Reader {
    settings: Settings,
    problems: Vec<Problem>,
}

impl Reader {
    fn refuse(&mut self, key: &str, why: impl fmt::Display) {
        let setting = self.settings.get(key);
        let problem = Problem { origin: setting.origin.clone(), message: format!("{key} = {} {why}", setting.value) };
        self.problems.push(problem);
    }

    /// A value as `read` sees it, which refuses with a reason.
    fn value<T, E: fmt::Display>(&mut self, key: &str, read: impl Fn(&toml::Value) -> Result<T, E>) -> T {
        match read(&self.settings.get(key).value) {
            Ok(value) => value,
            Err(why) => {
                self.refuse(key, why);
                read(self.settings.default_of(key)).unwrap_or_else(|why| panic!("default of {key} {why}"))
            }
        }
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> T {
        self.value(key, |value| text_of(value).parse())
    }

    fn filled(&mut self, key: &str) -> String {
        self.value(key, |value| match text_of(value) {
            "" => Err("is not to be empty"),
            text => Ok(text.to_owned()),
        })
    }

    fn flag(&mut self, key: &str) -> bool {
        self.value(key, |value| value.as_bool().ok_or("is to be true or false"))
    }

    fn whole(&mut self, key: &str, range: RangeInclusive<u64>) -> u64 {
        self.value(key, |value| {
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            number
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("is to be from {} to {}", range.start(), range.end()))
        })
    }

    fn log_bytes(&mut self, key: &str) -> u64 {
        let range = 1 << 20..=64_u64 << 30;
        self.value(key, |value| {
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            let is_one = |number: &u64| *number == 0 || range.contains(number);
            let rule = || format!("is to be from {} to {}, or 0 for none", range.start(), range.end());
            number.filter(is_one).ok_or_else(rule)
        })
    }

    fn bind(&mut self, key: &str, loopback_only: bool) -> SocketAddr {
        self.value(key, |value| match text_of(value).parse::<SocketAddr>() {
            Ok(address) if loopback_only && !address.ip().is_loopback() => {
                Err("is not loopback, and --dev listens nowhere else")
            }
            Ok(address) => Ok(address),
            Err(_) => Err("is to be an address and a port, as 127.0.0.1:8080"),
        })
    }

    fn networks(&mut self, key: &str) -> Vec<IpNet> {
        self.value(key, |value| {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let parse = |item: &toml::Value| {
                let network = item.as_str().and_then(|text| text.parse::<IpNet>().ok());
                network.ok_or_else(|| format!("holds {item}, which is no network, as 10.1.0.0/16"))
            };
            items.iter().map(parse).collect::<Result<Vec<IpNet>, String>>()
        })
    }

    fn filter(&mut self, key: &str) -> String {
        self.value(key, |value| {
            let text = text_of(value);
            match tracing_subscriber::EnvFilter::try_new(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(error) => Err(format!("is no filter: {error}")),
            }
        })
    }

    fn endpoint(&mut self, key: &str) -> String {
        self.value(key, |value| {
            let text = text_of(value);
            let uri = text.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some());
            let is_one = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
            let is_one = text.is_empty() || is_one;
            is_one.then(|| text.to_owned()).ok_or("is to be a URL, as http://127.0.0.1:4317, or empty")
        })
    }

    fn tls(&mut self) -> Option<Tls> {
        const CERT: &str = "server.tls.cert_file";
        const KEY: &str = "server.tls.key_file";
        let cert_file: String = self.parsed(CERT);
        let key_file: String = self.parsed(KEY);
        match (cert_file.is_empty(), key_file.is_empty()) {
            (true, true) => None,
            (false, false) => Some(Tls { cert_file: cert_file.into(), key_file: key_file.into() }),
            (false, true) => {
                self.refuse(CERT, format_args!("needs {KEY} too"));
                None
            }
            (true, false) => {
                self.refuse(KEY, format_args!("needs {CERT} too"));
                None
            }
        }
    }

    fn text(&mut self, key: &str) -> String {
        text_of(&self.settings.get(key).value).to_owned()
    }

    fn secret(&mut self, key: &str, check: impl Fn(&Secret) -> Result<(), &'static str>) -> Secret {
        let setting = self.settings.get(key);
        let secret = Secret::new(text_of(&setting.value));
        if let Err(why) = check(&secret) {
            let origin = setting.origin.clone();
            self.problems.push(Problem { origin, message: format!("{key} {why} (its value is not shown)") });
        }
        secret
    }
}

/// The text of a value; the layers let nothing but a text through where the default is one.
fn text_of(value: &toml::Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn check_proxy(proxy: &Secret) -> Result<(), &'static str> {
    if proxy.is_empty() || EgressProxy::parse(proxy.expose()).is_ok() {
        Ok(())
    } else {
        Err("is to be the URL of a proxy, as http://user:password@proxy.example.com:3128")
    }
}

fn check_operator_token(token: &Secret) -> Result<(), &'static str> {
    let text = token.expose();
    if text.chars().any(|c| !c.is_ascii_graphic()) {
        Err("is to consist of visible ASCII characters, as a header can carry them")
    } else if !text.is_empty() && text.len() < OPERATOR_TOKEN_CHARS_MIN {
        Err("is to have at least 12 characters")
    } else {
        Ok(())
    }
}

fn decode_master_key(key: &Secret) -> Result<Option<[u8; MASTER_KEY_BYTES]>, &'static str> {
    if key.is_empty() {
        return Ok(None);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(key.expose()).map_err(|_| "is not base64")?;
    bytes.try_into().map(Some).map_err(|_| "is not base64 of 32 bytes")
}

#[cfg(test)]
mod tests;
