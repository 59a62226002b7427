//! The server as a service: what it tells systemd, what it takes over at SIGHUP, how it goes down.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use punchline_proto::v1;
use punchline_tests::api::{Api, Refused, consumption};
use punchline_tests::http;
use punchline_tests::server::{OPERATOR_TOKEN, Server};
use punchline_tests::wait::{SOON, until};
use punchline_tests::world::PHONE;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// What systemd hears. It always listens: who tells it waits where its queue is full.
struct Systemd {
    messages: mpsc::Receiver<String>,
    heard: Vec<String>,
}

impl Systemd {
    fn listen(path: &Path) -> Systemd {
        let socket = UnixDatagram::bind(path).expect("a socket");
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                if sender.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Systemd { messages, heard: Vec::new() }
    }

    /// Waits for a message that has a line for each of `lines` that begins so.
    async fn hear(&mut self, lines: &[&str]) {
        until(&format!("systemd hears {lines:?}"), SOON, async || {
            while let Ok(message) = self.messages.try_recv() {
                let says = |wanted: &&str| message.lines().any(|line| line.starts_with(wanted));
                let is_it = lines.iter().all(says);
                self.heard.push(message);
                if is_it {
                    return Ok(());
                }
            }
            Err(self.heard.clone())
        })
        .await;
    }
}

#[tokio::test]
async fn systemd_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let mut systemd = Systemd::listen(&path);
    let setup = Server::setup().environment("NOTIFY_SOCKET", path.display()).environment("WATCHDOG_USEC", 200_000);
    let mut server = setup.with("server.drain_ms", 5_000).start().await;
    systemd.hear(&["READY=1", "STATUS=serving"]).await;
    systemd.hear(&["WATCHDOG=1"]).await;
    server.signal("-HUP");
    systemd.hear(&["RELOADING=1", "MONOTONIC_USEC="]).await;
    systemd.hear(&["READY=1"]).await;
    systemd.hear(&["WATCHDOG=1"]).await;

    // While it drains it says no to probes, and takes calls all the same.
    server.signal("-TERM");
    systemd.hear(&["STOPPING=1"]).await;
    let address = server.http_address();
    assert_eq!(http::get(&address, "/readyz").await.code(), "SHUTTING_DOWN");
    assert_eq!(http::get(&address, "/healthz").await.status, 200);
    let api = server.operator();
    api.head().await;
    let mut health = HealthClient::new(api.channel());
    until("the health service says no", SOON, async || {
        let answer = health.check(HealthCheckRequest::default()).await.map_err(|status| status.to_string())?;
        let status = answer.into_inner().status();
        if status == ServingStatus::NotServing { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_shutdown_has_a_deadline() {
    let mut server = Server::setup().with("server.shutdown_max_ms", 1_000).start().await;
    // A connection that says nothing would be waited for.
    let address = server.grpc_address();
    let (_, api) = server.operator().new_advertiser("Slow").await;
    let head = api.head().await;
    let request = v1::SubscribeRequest::default();
    let mut stream = api.events().subscribe(request).await.expect("a stream").into_inner();
    let _silent = tokio::net::TcpStream::connect(address).await.expect("connects");
    server.signal("-TERM");
    let status = server.ended().await;
    assert!(status.code() == Some(70) || status.success(), "{status}");
    drop(stream.message().await);
    server.restart().await;
    assert_eq!(server.operator().head().await, head, "what was acknowledged is there");
}

/// The files that a server's configuration consists of.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    fn config(&self, rate: &str, filter: &str, members_cached: u32) {
        self.write(
            "punchline.toml",
            &format!(
                "[ingest]\nrate_limit_grpc_per_minute = {rate}\n[log]\nfilter = \"{filter}\"\n[storage]\n\
                 members_cached = {members_cached}\n[delivery]\ndialects_dir = {:?}\n",
                self.path("dialects").display().to_string()
            ),
        );
    }

    /// A new certificate for `localhost`, as PEM.
    fn certificate(&self) -> String {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        self.write("cert.pem", &issued.cert.pem());
        self.write("key.pem", &issued.signing_key.serialize_pem());
        issued.cert.pem()
    }
}

const DIALECT: &str = r#"
name = "own"
description = "One of ours."
content_type = "application/json"

[[message]]
type = "*"
name = "any"
body = '{ "n": {{ sequence }} }'
"#;

#[tokio::test]
async fn a_reload_takes_over_what_it_can() {
    let files = Files { dir: tempfile::tempdir().expect("a directory") };
    std::fs::create_dir(files.path("dialects")).expect("a directory");
    files.config("0", "info", 8_192);
    files.write("token", OPERATOR_TOKEN);
    let first = files.certificate();
    let config = files.path("punchline.toml").display().to_string();
    let server = Server::setup()
        .without("security.operator_token")
        .without("log.filter")
        .environment("PUNCHLINE_SECURITY__OPERATOR_TOKEN_FILE", files.path("token").display())
        .with("server.tls.cert_file", files.path("cert.pem").display())
        .with("server.tls.key_file", files.path("key.pem").display())
        .argument("--config")
        .argument(&config)
        .tls("localhost", &first)
        .start()
        .await;
    let (advertiser, api) = server.operator().new_advertiser("Reloaded").await;
    punchline_tests::world::populate(&api).await;
    let record = async |api: &Api, id: &str| api.record(consumption(id, PHONE, &[("article", 1)])).await;
    record(&api, "before").await.expect("no limit");
    assert!(!dialects(&api).await.contains(&"own".to_owned()));

    // All at once.
    let second = files.certificate();
    files.write("token", "another-operators-token");
    files.write("dialects/own.toml", DIALECT);
    files.config("1", "info,punchline=debug", 4_096);
    server.signal("-HUP");
    logged(&server, "configuration reloaded").await;
    let reloaded = Api::new(&server.grpc_address(), Some(("localhost", &second)));
    let reloaded = reloaded.bearer("another-operators-token").advertiser(&advertiser);
    assert!(dialects(&reloaded).await.contains(&"own".to_owned()));
    record(&reloaded, "first").await.expect("within the limit");
    let refused = record(&reloaded, "second").await.expect_err("above it");
    assert_eq!(refused.reason, "RATE_LIMIT_EXCEEDED");
    // The old token, on a connection that is still open: its certificate is its own affair.
    let refused = api.admin().get_status(v1::GetStatusRequest {}).await.expect_err("another token");
    assert_eq!(Refused::of(&refused).reason, "INVALID_CREDENTIALS");
    let before = Api::new(&server.grpc_address(), Some(("localhost", &first))).bearer("another-operators-token");
    before.admin().get_status(v1::GetStatusRequest {}).await.expect_err("the first certificate is not shown any more");
    let needs = server.log().lines().find(|line| line.contains("needs_restart")).expect("it is told").to_owned();
    assert!(needs.contains("storage.members_cached") && !needs.contains("rate_limit"), "{needs}");

    // Somebody needs the dialect now.
    let subscription = v1::Subscription {
        url: "http://127.0.0.1:9/".into(),
        event_types: vec!["points.*".into()],
        dialect: "own".into(),
        ..Default::default()
    };
    let (subscription, _) = reloaded.new_subscription(subscription).await;

    // What is wrong with one thing leaves all as it was, and is told with its place.
    for (spoil, told) in [
        (&(|| files.config("-1", "info", 8_192)) as &dyn Fn(), vec!["ingest.rate_limit_grpc_per_minute = -1"]),
        (&|| files.write("key.pem", "no key"), vec!["server.tls.key_file", "key.pem"]),
        (&|| files.write("dialects/own.toml", "name = 1"), vec!["own.toml:1"]),
        (&|| std::fs::remove_file(files.path("dialects/own.toml")).expect("removed"), vec!["dialect", &subscription]),
        (&|| files.write("token", "short"), vec!["security.operator_token"]),
    ] {
        let key = std::fs::read_to_string(files.path("key.pem")).expect("a file");
        let seen = server.log().len();
        files.write("token", "a-token-that-never-counts");
        spoil();
        server.signal("-HUP");
        let line = until("the reload is refused", SOON, async || {
            let log = server.log()[seen..].to_owned();
            let line = log.lines().find(|line| line.contains("configuration not reloaded")).map(str::to_owned);
            line.ok_or(log)
        })
        .await;
        let all = server.log()[seen..].to_owned();
        assert!(told.iter().all(|word| all.contains(word)), "{told:?} in {line}");
        assert!(!all.contains("a-token-that-never-counts"), "{all}");
        reloaded.head().await;
        files.config("1", "info", 4_096);
        files.write("key.pem", &key);
        files.write("dialects/own.toml", DIALECT);
    }
    files.write("token", "another-operators-token");
    let seen = server.log().matches("configuration reloaded").count();
    server.signal("-HUP");
    until("all is well again", SOON, async || {
        let count = server.log().matches("configuration reloaded").count();
        if count > seen { Ok(()) } else { Err(server.log_tail()) }
    })
    .await;
    reloaded.head().await;
}

async fn logged(server: &Server, what: &str) {
    until(
        what,
        Duration::from_secs(30),
        async || {
            if server.log().contains(what) { Ok(()) } else { Err(server.log_tail()) }
        },
    )
    .await;
}

async fn dialects(api: &Api) -> Vec<String> {
    let listed = api.subscriptions().list_dialects(v1::ListDialectsRequest {}).await.expect("listed").into_inner();
    listed.dialects.into_iter().map(|dialect| dialect.name).collect()
}
