//! A receiver on loopback, which can be told to fail.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use clap::Args;
use punchline_delivery::dialect::{Dialect, Dialects, Settings};
use punchline_delivery::signature::{self, VerifyingKey};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::super::dialects::unknown;
use super::super::failure::Failure;
use super::super::input;
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
    /// whsec_…, or whpk_… of Ed25519; signatures are not checked if absent; may be repeated while a
    /// secret is rotated
    #[arg(long, env = "PUNCHLINE_WEBHOOK_SECRET", hide_env_values = true)]
    secret: Vec<String>,
    /// Check this dialect's own signature too, as jericommerce has one
    #[arg(long, value_name = "NAME")]
    dialect: Option<String>,
    /// What the subscription has chosen of the dialect; may be repeated
    #[arg(long = "dialect-setting", value_name = "KEY=VALUE", value_parser = input::pair, requires = "dialect")]
    dialect_settings: Vec<(String, String)>,
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
    keys: Vec<VerifyingKey>,
    dialect: Option<(Arc<Dialect>, Settings)>,
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
    let keys = args.secret.iter().map(|text| super::verifying_key(text)).collect::<Result<Vec<_>, _>>()?;
    let dialect = dialect(&args)?;
    let socket = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port))).await?;
    output::note(&format!("listening on http://{}", socket.local_addr()?));
    if keys.is_empty() {
        output::note("no --secret: signatures are not checked");
    }
    let listener = Arc::new(Listener { args, keys, dialect, format, seen: Mutex::default(), done: Notify::new() });
    let router =
        Router::new().fallback(receive).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(Arc::clone(&listener));
    let done = async move { listener.done.notified().await };
    axum::serve(socket, router).with_graceful_shutdown(done).await?;
    Ok(Answer::Nothing)
}

fn dialect(args: &ListenArgs) -> Result<Option<(Arc<Dialect>, Settings)>, Failure> {
    let Some(name) = &args.dialect else { return Ok(None) };
    let dialects = Dialects::builtin();
    let dialect = dialects.get(name).ok_or_else(|| unknown("dialect", name, dialects.names()))?;
    let chosen = args.dialect_settings.iter().cloned().collect();
    let settings = dialect.settings(&chosen).map_err(|error| Failure::Usage(format!("--dialect-setting: {error}")))?;
    Ok(Some((dialect, settings)))
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
    let signature = listener.check(&headers, &body);
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
    /// What is to be said about the signatures: fine, or why not.
    fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<String, String> {
        if self.keys.is_empty() {
            return Ok("unchecked".to_owned());
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let keys: Vec<&VerifyingKey> = self.keys.iter().collect();
        let timestamp = header("webhook-timestamp");
        let timestamp = timestamp.parse().map_err(|_| "webhook-timestamp is missing or no number".to_owned())?;
        let (id, signatures) = (header("webhook-id"), header("webhook-signature"));
        signature::verify(id, timestamp, body, signatures, &keys, super::now_unix_s(), super::TOLERANCE_S)
            .map_err(|error| error.to_string())?;
        self.check_dialect(headers, body)
    }

    /// A dialect's own signature is made with the newest secret's text alone.
    fn check_dialect(&self, headers: &HeaderMap, body: &[u8]) -> Result<String, String> {
        let Some((dialect, settings)) = &self.dialect else { return Ok("ok".to_owned()) };
        let made = self.args.secret.iter().filter_map(|secret| dialect.signature(settings, secret, body));
        let mut name = None;
        for (header, expected) in made {
            let given = headers.get(&header).map(HeaderValue::as_bytes).unwrap_or_default();
            if given.ct_eq(expected.as_bytes()).into() {
                return Ok(format!("ok, {header} ok"));
            }
            name = Some(header);
        }
        match name {
            Some(header) if headers.contains_key(&header) => Err(format!("{header} does not match")),
            Some(header) => Err(format!("{header} is missing")),
            None => Ok("ok".to_owned()),
        }
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
        ListenArgs {
            port: 0,
            secret: Vec::new(),
            dialect: None,
            dialect_settings: Vec::new(),
            fail_every: NonZeroU64::new(fail_every),
            status,
            count: None,
        }
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

    #[test]
    fn a_dialects_own_signature_is_checked() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let args = ListenArgs { secret: vec![secret.into()], dialect: Some("jericommerce".into()), ..args(0, None) };
        let dialect = dialect(&args).expect("it is there");
        let keys = vec![super::super::verifying_key(secret).expect("a key")];
        let (made, settings) = dialect.clone().expect("chosen");
        let (name, value) = made.signature(&settings, secret, b"{}").expect("it has one");
        let listener =
            Listener { args, keys, dialect, format: Format::Json, seen: Mutex::default(), done: Notify::new() };
        let mut headers = HeaderMap::new();
        assert_eq!(listener.check_dialect(&headers, b"{}"), Err(format!("{name} is missing")));
        headers.insert(name.clone(), value);
        assert_eq!(listener.check_dialect(&headers, b"{}"), Ok(format!("ok, {name} ok")));
        assert_eq!(listener.check_dialect(&headers, b"{1}"), Err(format!("{name} does not match")));
    }
}
