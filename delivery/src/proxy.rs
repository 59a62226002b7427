//! The operator's egress proxy: every connection is a tunnel through it (HTTP `CONNECT`).
//!
//! # Invariants
//!
//! - A subscriber cannot name the proxy and cannot go around it; that is why its address is not
//!   guarded, and may well be private.
//! - `http` is tunnelled as `https` is: the proxy never sees a request, so it can neither read nor
//!   change what was signed, and the header `proxy-authorization` never reaches a receiver.
//! - The password is never shown: `Debug` is redacted, errors never hold it.
//!
//! # What is absent on purpose
//!
//! - No `HTTP_PROXY` from the environment: what is not configured does not happen.
//! - No TLS to the proxy and no SOCKS.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::endpoint::parse_host;
use crate::resolver::ResolveError;

/// The most bytes of the proxy's answer to `CONNECT`.
const ANSWER_BYTES_MAX: usize = 8192;

/// Where the proxy is, and how to be let through.
#[derive(Clone, PartialEq, Eq)]
pub struct EgressProxy {
    host: String,
    port: u16,
    /// `Basic …`, already encoded.
    authorization: Option<String>,
}

impl EgressProxy {
    /// Parses `http://host:port` or `http://user:password@host:port`; user and password may be
    /// percent-encoded.
    ///
    /// # Errors
    ///
    /// [`EgressProxyError`]; it never holds the password.
    pub fn parse(url: &str) -> Result<Self, EgressProxyError> {
        let rest = url.strip_prefix("http://").ok_or(EgressProxyError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (userinfo, authority) = match rest.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, rest),
        };
        let (host, port) = authority.rsplit_once(':').ok_or(EgressProxyError::Port)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(EgressProxyError::Port)?;
        if parse_host(host).is_none() {
            return Err(EgressProxyError::Host);
        }
        let authorization = match userinfo {
            None => None,
            Some(userinfo) => {
                let decoded = percent_decoded(userinfo).ok_or(EgressProxyError::Userinfo)?;
                Some(format!("Basic {}", STANDARD.encode(decoded)))
            }
        };
        Ok(Self { host: host.to_owned(), port, authorization })
    }

    /// The host without brackets.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Asks the proxy behind `stream` to connect to `host` (with brackets, if it is IPv6) and `port`.
    ///
    /// # Errors
    ///
    /// [`ProxyError`]; `stream` is of no use afterwards.
    pub(crate) async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        host: &str,
        port: u16,
    ) -> Result<(), ProxyError> {
        let broken = |source| ProxyError::Broken { proxy: self.to_string(), source };
        let mut ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n");
        if let Some(authorization) = &self.authorization {
            ask.push_str("proxy-authorization: ");
            ask.push_str(authorization);
            ask.push_str("\r\n");
        }
        ask.push_str("\r\n");
        stream.write_all(ask.as_bytes()).await.map_err(broken)?;

        let mut answer = Vec::with_capacity(256);
        while !answer.ends_with(b"\r\n\r\n") {
            // By single bytes: what comes after the head is the receiver's. It is a few hundred reads
            // once per connection.
            let byte = stream.read_u8().await.map_err(broken)?;
            answer.push(byte);
            if answer.len() > ANSWER_BYTES_MAX {
                return Err(ProxyError::Garbled { proxy: self.to_string() });
            }
        }
        match status_of(&answer) {
            Some(200..=299) => Ok(()),
            Some(status) => Err(ProxyError::Refused { proxy: self.to_string(), status }),
            None => Err(ProxyError::Garbled { proxy: self.to_string() }),
        }
    }
}

/// Without user and password.
impl fmt::Display for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EgressProxy({self})")
    }
}

/// `HTTP/1.x SSS …`
fn status_of(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|b| *b == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next().filter(|status| status.len() == 3)?.parse().ok()
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    Some(decoded)
}

/// Why a text names no proxy. Never holds the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressProxyError {
    /// Something other than `http://`.
    #[error("proxy URL does not begin with \"http://\"")]
    Scheme,
    /// No port, or none that can be: proxies have no port of their own.
    #[error("proxy URL has no valid port")]
    Port,
    /// Neither a name nor an address, or followed by a path.
    #[error("proxy URL has no valid host")]
    Host,
    /// A percent sign that encodes nothing.
    #[error("proxy URL has a malformed user or password")]
    Userinfo,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("proxy cannot be found")]
    Unknown { source: ResolveError },
    #[error("proxy {proxy} cannot be reached")]
    Unreachable { proxy: String, source: io::Error },
    #[error("connection to proxy {proxy} broke")]
    Broken { proxy: String, source: io::Error },
    #[error("proxy {proxy} refused to connect with status {status}")]
    Refused { proxy: String, status: u16 },
    #[error("proxy {proxy} did not answer as one")]
    Garbled { proxy: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_and_passwords_kept() {
        let parsed = |url: &str| EgressProxy::parse(url).map(|p| (p.to_string(), p.authorization));
        let shown = |url: &str| Ok((url.to_owned(), None));
        assert_eq!(parsed("http://proxy.internal:3128"), shown("http://proxy.internal:3128"));
        assert_eq!(parsed("http://10.0.0.1:3128/"), shown("http://10.0.0.1:3128"));
        assert_eq!(parsed("http://[fd00::1]:3128"), shown("http://[fd00::1]:3128"));
        let (_, authorization) = parsed("http://me:s3%40cret@proxy:1").expect("valid");
        assert_eq!(authorization, Some(format!("Basic {}", STANDARD.encode("me:s3@cret"))));
        let proxy = EgressProxy::parse("http://me:s3cret@proxy:1").expect("valid");
        assert_eq!(format!("{proxy:?} {proxy}"), "EgressProxy(http://proxy:1) http://proxy:1");

        let cases = [
            ("https://proxy:1", EgressProxyError::Scheme),
            ("proxy:1", EgressProxyError::Scheme),
            ("http://proxy", EgressProxyError::Port),
            ("http://proxy:0", EgressProxyError::Port),
            ("http://proxy:1/path", EgressProxyError::Port),
            ("http://:1", EgressProxyError::Host),
            ("http://a b:1", EgressProxyError::Host),
            ("http://me:%zz@proxy:1", EgressProxyError::Userinfo),
            ("http://me:%4@proxy:1", EgressProxyError::Userinfo),
        ];
        for (url, error) in cases {
            assert_eq!(EgressProxy::parse(url), Err(error), "{url}");
        }
    }

    #[tokio::test]
    async fn answers_are_read_up_to_the_receivers_first_byte() {
        let proxy = EgressProxy::parse("http://proxy:1").expect("valid");
        let endless = format!("HTTP/1.1 200 {}", "x".repeat(9000));
        let cases: [(&str, &str); 7] = [
            ("HTTP/1.1 200 OK\r\n\r\nHELLO", "ok HELLO"),
            ("HTTP/1.0 200 Connection established\r\nvia: x\r\n\r\nHELLO", "ok HELLO"),
            ("HTTP/1.1 407 Who\r\n\r\n", "refused to connect with status 407"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "did not answer as one"),
            ("SSH-2.0-x\r\n\r\n", "did not answer as one"),
            ("HTTP/1.1 200 OK\r\n", "broke"),
            (&endless, "did not answer as one"),
        ];
        for (answer, expected) in cases {
            let (mut ours, mut theirs) = tokio::io::duplex(16 * 1024);
            theirs.write_all(answer.as_bytes()).await.expect("fits");
            theirs.shutdown().await.expect("open");
            let got = match proxy.tunnel(&mut ours, "example.com", 443).await {
                Ok(()) => {
                    let mut rest = String::new();
                    ours.read_to_string(&mut rest).await.expect("text");
                    format!("ok {rest}")
                }
                Err(error) => error.to_string(),
            };
            assert!(got.contains(expected), "{answer:?}: {got}");
        }
    }
}
