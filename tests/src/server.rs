//! The binary as a process: started on addresses of its own, killed, started again.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::api::Api;
use crate::wait::until;

/// The operator token of every [`Server`].
pub const OPERATOR_TOKEN: &str = "an-operators-token-for-tests-only";

/// Longest that a start may take, recovery included.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest that an orderly stop may take.
const STOP_MAX: Duration = Duration::from_secs(60);

/// The binary, built once in this process. `PUNCHLINE_BIN` names one that is built already.
///
/// # Panics
///
/// If it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("PUNCHLINE_BIN") {
            return path.into();
        }
        // A test is <target>/<profile>/deps/<name>, a benchmark stands beside `deps`: the binary belongs into
        // the same <target>/<profile>.
        let test = std::env::current_exe().expect("a running test has a path");
        let folder = test.parent().expect("a test stands in a folder");
        let is_deps = folder.file_name().is_some_and(|name| name == "deps");
        let profile_dir = if is_deps { folder.parent().expect("deps stands in a profile") } else { folder };
        let profile = match profile_dir.file_name().and_then(OsStr::to_str) {
            Some("debug") => "dev",
            Some(name) => name,
            None => panic!("{} names no profile", profile_dir.display()),
        };
        // As `cargo test --workspace` has built it already; in another profile, as it is shipped.
        let what = match profile {
            "dev" => ["--workspace", "--test", "binary"].as_slice(),
            _ => &["-p", "punchline", "--bin", "punchline"],
        };
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo tells its tests of themselves, build scripts would take for a change: ring's, and with it all that
        // stands on it, would be built anew.
        let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
            cargo.env_remove(name);
        }
        let status = cargo
            .args(["build", "--quiet", "--profile", profile])
            .args(what)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .env("CARGO_TARGET_DIR", profile_dir.parent().expect("a profile stands in a target directory"))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the binary does not build: {status}");
        profile_dir.join("punchline")
    })
}

/// What a server is to be started with.
#[derive(Debug)]
pub struct Setup {
    settings: Vec<(String, String)>,
    through: Vec<String>,
    arguments: Vec<String>,
    tls_domain: Option<(String, String)>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// A setting, as `delivery.connect_timeout_ms`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Setup {
        self.settings.push((key.into(), value.to_string()));
        self
    }

    /// Leaves a setting to what else says it, a file for instance.
    #[must_use]
    pub fn without(mut self, key: &str) -> Setup {
        self.settings.retain(|(own, _)| own != key);
        self
    }

    /// A variable of its environment that is no setting.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl ToString) -> Setup {
        self.environment.push((name.into(), value.to_string()));
        self
    }

    /// A further argument of `serve`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Setup {
        self.arguments.push(argument.into());
        self
    }

    /// Runs it through another program, as `strace -f`.
    #[must_use]
    pub fn through(mut self, program: &[&str]) -> Setup {
        self.through = program.iter().map(|&word| word.into()).collect();
        self
    }

    /// Calls it with TLS: as `domain`, trusting this certificate (PEM).
    #[must_use]
    pub fn tls(mut self, domain: &str, trusted_pem: &str) -> Setup {
        self.tls_domain = Some((domain.into(), trusted_pem.into()));
        self
    }

    /// Starts it, on an empty data directory, and waits until it serves.
    pub async fn start(self) -> Server {
        static STARTED: AtomicU16 = AtomicU16::new(0);
        // Every process has a loopback address of its own, so that no port is ever taken by another,
        // not even while the server is down: 127.64.0.0 to 127.127.255.255, by process id (22 bits).
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        let host = format!("127.{}.{middle}.{low}", 64 + (high & 63));
        let port = 10_000 + 10 * STARTED.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::with_prefix("punchline-test-").expect("a temporary directory can be made");
        let log = dir.path().join("server.log");
        let mut server = Server { setup: self, host, port, dir, log, child: None };
        server.restart().await;
        server
    }
}

/// A running (or killed) server, with a data directory that goes with it.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    host: String,
    port: u16,
    dir: TempDir,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// A server with an operator token, that may send webhooks to loopback.
    pub fn setup() -> Setup {
        Setup {
            settings: Vec::new(),
            through: Vec::new(),
            arguments: Vec::new(),
            tls_domain: None,
            environment: Vec::new(),
        }
        .with("security.operator_token", OPERATOR_TOKEN)
        .with("delivery.allow_http", true)
        .with("delivery.allow_private", "127.0.0.0/8")
        .with("ingest.rate_limit_http_per_minute", 0)
        .with("log.filter", "info")
    }

    /// [`setup`](Server::setup) as it is, started.
    pub async fn start() -> Server {
        Server::setup().start().await
    }

    /// `127.x.y.z:port` of gRPC.
    pub fn grpc_address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// `127.x.y.z:port` of HTTP.
    pub fn http_address(&self) -> String {
        format!("{}:{}", self.host, self.port + 1)
    }

    /// `127.x.y.z:port` of the metrics.
    pub fn metrics_address(&self) -> String {
        format!("{}:{}", self.host, self.port + 2)
    }

    /// Everything that must survive.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A place for other files of the test.
    pub fn scratch_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Calls as an operator who has named no advertiser.
    pub fn operator(&self) -> Api {
        let tls = self.setup.tls_domain.as_ref().map(|(domain, pem)| (domain.as_str(), pem.as_str()));
        Api::new(&self.grpc_address(), tls).bearer(OPERATOR_TOKEN)
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Resident memory, by the kernel's account; in bytes.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).expect("a running process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has a VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("VmRSS is in kB");
        kib * 1024
    }

    /// SIGKILL, between any two instructions.
    ///
    /// # Panics
    ///
    /// If it does not run: then the test killed nothing.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            panic!("the server had ended by itself: {status}\n{}", self.log_tail());
        }
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Sends it a signal, as `-HUP`.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success(), "the server had ended by itself\n{}", self.log_tail());
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ended().await
    }

    /// Starts it, on the data directory as it is, and waits until it serves.
    ///
    /// # Panics
    ///
    /// If it runs already, or does not serve in time.
    pub async fn restart(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    ///
    /// If it runs already.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let mut command = self.command_through(&self.setup.through);
        command.arg("serve").args(&self.setup.arguments);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log can be opened");
        let log_too: File = log.try_clone().expect("a file can be shared");
        let child = command.stdout(log_too).stderr(log).spawn().expect("the server starts");
        self.child = Some(child);
    }

    /// Waits until it serves.
    ///
    /// # Panics
    ///
    /// If it ends instead, or does not serve in time.
    pub async fn ready(&mut self) {
        if let Some(status) = self.ready_or_ended().await {
            panic!("the server ended at start: {status}\n{}", self.log_tail());
        }
    }

    /// Waits until it serves, or has ended: gives how it has.
    ///
    /// # Panics
    ///
    /// If it does neither in time.
    pub async fn ready_or_ended(&mut self) -> Option<ExitStatus> {
        let api = self.operator();
        let ended = until("the server serves", START_MAX, async || {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return Ok(Some(status));
            }
            let request = HealthCheckRequest { service: String::new() };
            match HealthClient::new(api.channel()).check(request).await {
                Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => Ok(None),
                Ok(answer) => Err(answer.get_ref().status().as_str_name().to_owned()),
                Err(status) => Err(format!("{status}\n{}", self.log_tail())),
            }
        })
        .await;
        if ended.is_some() {
            self.child = None;
        }
        ended
    }

    /// Waits until it has ended by itself: gives how it has.
    ///
    /// # Panics
    ///
    /// If it does not in time.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let tried = async || child.try_wait().expect("a child can be waited for").ok_or("it still runs");
        until("the server ends", STOP_MAX, tried).await
    }

    /// Runs another command of the binary with the server's settings, to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be run at all.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("the binary runs")
    }

    /// Another command of the binary, with the server's settings and nothing on its standard input.
    pub fn command(&self) -> Command {
        self.command_through(&[])
    }

    /// `punchline verify` on the data directory of the stopped server: whether it is satisfied, and what
    /// it says.
    ///
    /// # Panics
    ///
    /// If the server runs.
    pub fn verify(&self) -> Result<String, String> {
        assert!(self.child.is_none(), "verify wants the data directory for itself");
        let output = self.run(&["verify"]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}{}", output.status, text(&output.stdout), text(&output.stderr));
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    fn command_through(&self, program: &[String]) -> Command {
        let mut words = program.iter().map(OsStr::new).chain([binary().as_os_str()]);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PUNCHLINE_") {
                command.env_remove(name);
            }
        }
        let own = [
            ("server.grpc_bind", self.grpc_address()),
            ("server.http_bind", self.http_address()),
            ("server.metrics_bind", self.metrics_address()),
            ("storage.data_dir", self.data_dir().display().to_string()),
        ];
        let set = self.setup.settings.iter().map(|(key, value)| (key.as_str(), value.clone()));
        for (key, value) in own.into_iter().chain(set) {
            command.env(format!("PUNCHLINE_{}", key.to_uppercase().replace('.', "__")), value);
        }
        command.envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines that it logged.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Server {
    #[allow(clippy::print_stderr, reason = "a failed test should show what the server had to say")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Whatever went wrong before: nothing is left running.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}\n------", self.log_tail());
        }
    }
}
