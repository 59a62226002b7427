//! A receiver on loopback, which can be told to fail.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use clap::Args;
use punchline_delivery::signature::{self, Secret};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::super::failure::Failure;
use super::super::output::{self, Answer, Format};

/// The largest body that is looked at.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Ids that are remembered, to tell repeats.
const IDS_MAX: usize = 1 << 16;

/// `webhooks listen`.
#[derive(Args, Debug)]
pub(in super::super) struct ListenArgs {
    /// Port on 127.0.0.1; 0: any that is free
    #[arg(long, default_value_t = 9090)]
    port: u16,
    /// whsec_…; signatures are not checked if absent; may be repeated while a secret is rotated
    #[arg(long, env = "PUNCHLINE_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Vec<String>,
    /// Answer every so many requests, counted from 1, with a failure
    #[arg(long, value_name = "N")]
    fail_every: Option<NonZeroU64>,
    /// What a failure is answered with: all requests fail if --fail-every is absent
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: Option<u16>,
    /// Stop after so many requests
    #[arg(long, value_name = "COUNT")]
    count: Option<NonZeroU64>,
}

struct Listener {
    args: ListenArgs,
    secrets: Vec<Secret>,
    format: Format,
    /// Held while a line is written, so that lines come in the order of their numbers.
    seen: Mutex<Seen>,
    /// Told when enough has arrived, or nobody reads on.
    done: Notify,
}

#[derive(Default)]
struct Seen {
    requests: u64,
    ids: HashSet<String>,
}

pub(super) async fn run(args: ListenArgs, format: Format) -> Result<Answer, Failure> {
    let secrets = args.secret.iter().map(|text| super::secret(text)).collect::<Result<Vec<_>, _>>()?;
    let socket = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port))).await?;
    output::note(&format!("listening on http://{}", socket.local_addr()?));
    if secrets.is_empty() {
        output::note("no --secret: signatures are not checked");
    }
    let listener = Arc::new(Listener { args, secrets, format, seen: Mutex::default(), done: Notify::new() });
    let router =
        Router::new().fallback(receive).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(Arc::clone(&listener));
    let done = async move { listener.done.notified().await };
    axum::serve(socket, router).with_graceful_shutdown(done).await?;
    Ok(Answer::Nothing)
}

async fn receive(
    State(listener): State<Arc<Listener>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let id = header("webhook-id");
    let signature = listener.check(id, header("webhook-timestamp"), header("webhook-signature"), &body);
    let parsed: Value =
        serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());

    let mut seen = listener.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.requests += 1;
    let status = listener.args.answer(seen.requests, signature.is_ok());
    let repeat = !id.is_empty() && seen.ids.contains(id);
    if status.is_success() && !id.is_empty() {
        if seen.ids.len() == IDS_MAX {
            seen.ids.clear();
        }
        seen.ids.insert(id.to_owned());
    }
    let arrival = json!({
        "number": seen.requests, "status": status.as_u16(),
        "signature": signature.unwrap_or_else(|why| why),
        "webhook_id": id, "repeat": repeat,
        "attempt": header("punchline-attempt"), "sequence": header("punchline-sequence"),
        "method": method.as_str(), "path": uri.path(), "body": parsed,
    });
    let enough = listener.args.count.is_some_and(|count| seen.requests >= count.get());
    if output::line(&listener.shown(&arrival)).is_err() || enough {
        listener.done.notify_one();
    }
    status
}

impl Listener {
    /// What is to be said about the signature: fine, or why not.
    fn check(&self, id: &str, timestamp: &str, header: &str, body: &[u8]) -> Result<String, String> {
        let secrets: Vec<&Secret> = self.secrets.iter().collect();
        if secrets.is_empty() {
            return Ok("unchecked".to_owned());
        }
        let timestamp = timestamp.parse().map_err(|_| "webhook-timestamp is missing or no number".to_owned())?;
        signature::verify(id, timestamp, body, header, &secrets, super::now_unix_s(), super::TOLERANCE_S)
            .map(|()| "ok".to_owned())
            .map_err(|error| error.to_string())
    }

    fn shown(&self, arrival: &Value) -> String {
        if self.format == Format::Json {
            return arrival.to_string();
        }
        let text =
            |name: &str| arrival.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or("-");
        let event_type = arrival.pointer("/body/type").and_then(Value::as_str).unwrap_or("-");
        output::harmless(&format!(
            "#{} {}  signature: {}  attempt {}{}  {}  {event_type}  {}",
            arrival["number"],
            arrival["status"],
            text("signature"),
            text("attempt"),
            if arrival["repeat"] == true { "  repeat" } else { "" },
            text("webhook_id"),
            arrival["body"],
        ))
    }
}

impl ListenArgs {
    fn answer(&self, number: u64, signature_is_fine: bool) -> StatusCode {
        if !signature_is_fine {
            return StatusCode::UNAUTHORIZED;
        }
        let fails = match self.fail_every {
            Some(every) => number.is_multiple_of(every.get()),
            None => self.status.is_some(),
        };
        let failure = StatusCode::from_u16(self.status.unwrap_or(503)).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        if fails { failure } else { StatusCode::OK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(fail_every: u64, status: Option<u16>) -> ListenArgs {
        ListenArgs { port: 0, secret: Vec::new(), fail_every: NonZeroU64::new(fail_every), status, count: None }
    }

    #[test]
    fn it_fails_as_it_is_told() {
        let cases: &[(ListenArgs, u64, bool, u16)] = &[
            (args(0, None), 1, true, 200),
            (args(0, None), 1, false, 401),
            (args(3, None), 2, true, 200),
            (args(3, None), 3, true, 503),
            (args(3, Some(500)), 6, true, 500),
            (args(0, Some(410)), 1, true, 410),
        ];
        for (args, number, fine, status) in cases {
            assert_eq!(args.answer(*number, *fine).as_u16(), *status, "{args:?} {number} {fine}");
        }
    }
}
