//! Calls over HTTP, one connection each, down to the bytes where a test wants to send what no library would.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest that a call may take.
const CALL_MAX: Duration = Duration::from_secs(60);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As 200.
    pub status: u16,
    /// All of them.
    pub headers: http::HeaderMap,
    /// As it came.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// `error.code` of an error body; empty where there is none.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().into()
    }

    /// `error.message` of an error body; empty where there is none.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().into()
    }

    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request.
///
/// # Errors
///
/// If the connection broke before an answer came.
pub async fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let call = async {
        let stream = TcpStream::connect(address).await.map_err(|e| format!("connect: {e}"))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| format!("handshake: {e}"))?;
        let connection = tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path).header("host", address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|e| format!("request: {e}"))?;
        let answer = sender.send_request(request).await.map_err(|e| format!("send: {e}"))?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|e| format!("receive: {e}"))?.to_bytes();
        connection.abort();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    tokio::time::timeout(CALL_MAX, call).await.map_err(|_| format!("no answer within {CALL_MAX:?}"))?
}

/// GET.
///
/// # Panics
///
/// If there is no answer.
pub async fn get(address: &str, path: &str) -> Answer {
    send(address, "GET", path, &[], Bytes::new()).await.expect("an answer")
}

/// POST.
///
/// # Panics
///
/// If there is no answer.
pub async fn post(address: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    send(address, "POST", path, headers, body).await.expect("an answer")
}

/// Sends these bytes, reads until the server closes or says nothing for `quiet`, and returns the first line.
pub async fn raw(address: &str, bytes: &[u8], quiet: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    // The server may well hang up in the middle: what it said before counts.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(Ok(n @ 1..)) = tokio::time::timeout(quiet, stream.read(&mut chunk)).await {
        answer.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}
