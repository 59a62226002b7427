//! Every HTTP route that takes a body, through the router, to a node with a journal: whatever comes, the answer is
//! JSON and none of ours is a 5xx.
#![no_main]

use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use punchline::config::{Config, Sources};
use punchline::http::{Http, router};
use punchline::{dev, serve};
use punchline_engine::id::Environment;
use tokio::runtime::Runtime;
use tower::ServiceExt;

const ROUTES: [&str; 9] = [
    "/staging-usermanagement/api/advertiser/v1/authorize",
    "/staging-campaigns/api/advertiser-integration/v1/consumption",
    "/v1/facts",
    "/v1/track",
    "/v1/identify",
    "/v1/batch",
    "/v1/page",
    "/v1/group",
    "/v1/alias",
];

struct Server {
    runtime: Runtime,
    router: Router,
    token: String,
    // Its threads go on until the process ends.
    _running: serve::Running,
    _directory: tempfile::TempDir,
}

fn start() -> Server {
    let runtime = Runtime::new().expect("threads");
    let directory = tempfile::tempdir().expect("a directory");
    let any = "127.0.0.1:0".to_owned();
    let mut flags: Vec<(String, String)> =
        ["server.grpc_bind", "server.http_bind", "server.metrics_bind"].map(|key| (key.into(), any.clone())).into();
    flags.push(("storage.data_dir".into(), directory.path().join("data").display().to_string()));
    let config = Config::load(&Sources { dev: true, flags, ..Sources::default() }).expect("valid");
    let running = runtime.block_on(serve::start(config)).expect("starts");
    runtime.block_on(dev::load(&running.node)).expect("loads");
    let auth = &running.state.auth;
    let token = auth.authorize(dev::API_KEY, dev::API_SECRET, Environment::Staging, None).expect("known").token;
    let router = router(Http::new(running.state.clone(), 0));
    Server { runtime, router, token: format!("Bearer {token}"), _running: running, _directory: directory }
}

fuzz_target!(|data: &[u8]| {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(start);
    let Some((route, body)) = data.split_first() else { return };
    let path = ROUTES[usize::from(*route) % ROUTES.len()];
    let authorization = match path.starts_with("/v1/") && path != "/v1/facts" {
        // dev-write-key as Segment's clients send it: as user name, without a password.
        true => "Basic ZGV2LXdyaXRlLWtleTo=",
        false => &server.token,
    };
    let request = Request::post(path).header("authorization", authorization).header("content-type", "application/json");
    let request = request.body(Body::from(body.to_vec())).expect("a request");
    server.runtime.block_on(async {
        let response = server.router.clone().oneshot(request).await.expect("answers");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        assert!(parts.status.as_u16() < 500, "{path}: {} {}", parts.status, String::from_utf8_lossy(&body));
        serde_json::from_slice::<serde_json::Value>(&body).expect("JSON, whatever the status");
    });
});
