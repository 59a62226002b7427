//! How a connection is made: resolve ▶ check ▶ TCP, or a tunnel through the proxy ▶ TLS.
//!
//! # Invariants
//!
//! - Without a proxy, the connection is made to an address that was checked. With one, the name is
//!   resolved and checked here all the same, and the proxy is asked for the *name*, because proxies'
//!   own rules and logs are about names.
//!
//!   What that guarantees: a name that resolves to a forbidden address here is refused before the
//!   proxy hears of it, and literal addresses are as safe as without a proxy. What it does not: the
//!   proxy resolves the name again, so one that answers us and the proxy differently (DNS rebinding,
//!   split horizon) reaches whatever the proxy can reach. An egress proxy has to refuse private
//!   destinations itself.
//! - Making a connection ends, whether or not somebody still waits for it: hyper finishes connections
//!   in the background when another one became free in the meantime.

use std::error::Error as StdError;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use crate::counted::{Counted, Open};
use crate::endpoint::parse_host;
use crate::proxy::{EgressProxy, ProxyError};
use crate::resolver::GuardedResolver;

type BoxError = Box<dyn StdError + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Makes connections, encrypted for `https`, within a bound of time.
#[derive(Clone)]
pub(crate) struct Connector {
    https: HttpsConnector<Dial>,
    timeout: Duration,
}

impl Connector {
    pub(crate) fn new(dial: Dial, tls: ClientConfig, timeout: Duration) -> Self {
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http() // http is refused by the guard, which knows the policy
            .enable_http1()
            .wrap_connector(dial);
        Self { https, timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Counted<TokioIo<TcpStream>>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, timeout) = (self.https.call(uri), self.timeout);
        Box::pin(async move {
            let connected = tokio::time::timeout(timeout, connecting).await;
            connected.unwrap_or_else(|_| Err(NotInTime { limit_ms: timeout.as_millis() }.into()))
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no connection within {limit_ms} ms")]
struct NotInTime {
    limit_ms: u128,
}

/// Makes TCP connections, directly or through the proxy.
#[derive(Clone)]
pub(crate) struct Dial {
    direct: HttpConnector<GuardedResolver>,
    via: Option<Arc<Via>>,
    open: Open,
}

struct Via {
    proxy: EgressProxy,
    resolver: GuardedResolver,
    connect_timeout: Duration,
}

impl Dial {
    pub(crate) fn new(resolver: GuardedResolver, proxy: Option<EgressProxy>, connect_timeout: Duration) -> Self {
        let mut direct = HttpConnector::new_with_resolver(resolver.clone());
        direct.enforce_http(false); // https comes through here as well, to be wrapped
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(connect_timeout));
        let via = proxy.map(|proxy| Arc::new(Via { proxy, resolver, connect_timeout }));
        Self { direct, via, open: Open::default() }
    }

    /// How many connections are open, in use or not.
    pub(crate) fn open(&self) -> usize {
        self.open.count()
    }
}

impl Service<Uri> for Dial {
    type Response = Counted<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let open = self.open.clone();
        match &self.via {
            None => {
                let connecting = self.direct.call(uri);
                Box::pin(async move { Ok(open.counted(connecting.await?)) })
            }
            Some(via) => {
                let via = Arc::clone(via);
                Box::pin(async move { Ok(open.counted(via.connect(&uri).await?)) })
            }
        }
    }
}

impl Via {
    async fn connect(&self, uri: &Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        let host = uri.host().unwrap_or_default();
        let is_name = matches!(parse_host(host), Some(None));
        if is_name {
            // Literal addresses were checked before the attempt.
            self.resolver.clone().resolve(host.to_owned()).await?;
        }
        let implied = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
        let mut stream = self.reach_proxy().await?;
        self.proxy.tunnel(&mut stream, host, uri.port_u16().unwrap_or(implied)).await?;
        Ok(TokioIo::new(stream))
    }

    async fn reach_proxy(&self) -> Result<TcpStream, ProxyError> {
        let (host, port) = (self.proxy.host(), self.proxy.port());
        let addresses: Vec<SocketAddr> = match host.parse() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let found = self.resolver.resolve_unchecked(host).await;
                let found = found.map_err(|source| ProxyError::Unknown { source })?;
                found.into_iter().map(|address| SocketAddr::new(address.ip(), port)).collect()
            }
        };
        let connected = tokio::time::timeout(self.connect_timeout, TcpStream::connect(&*addresses)).await;
        let stream = connected
            .unwrap_or_else(|late| Err(late.into()))
            .map_err(|source| ProxyError::Unreachable { proxy: self.proxy.to_string(), source })?;
        let _ = stream.set_nodelay(true); // slower without, not wrong
        Ok(stream)
    }
}
