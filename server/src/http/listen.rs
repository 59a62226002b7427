//! Connections: accepted, bounded, encrypted where configured, and ended gracefully.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::first_bytes::FirstBytes;

/// Open connections; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the head of a request may take, and how long a connection may be unused: a little longer than
/// clients keep theirs, so that they close first.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// Longest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Requests under way on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How long requests under way may take when the server stops.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause where the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` holds `true`, and then the requests that are under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    mut stop: watch::Receiver<bool>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            // A sender that has gone is a server that has gone.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some((stream, place)) = accepted else { continue };
        let (router, tls, watcher) = (router.clone(), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            // Answers are small: never wait for more to send.
            drop(stream.set_nodelay(true));
            match tls {
                None => connection(FirstBytes::of(stream), router, watcher).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(FirstBytes::of(stream), router, watcher).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIME_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("HTTP requests were still under way when the server stopped");
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "failed to accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection<S>(stream: S, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).max_buf_size(HEAD_BYTES_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX).keep_alive_interval(HEAD_TIME_MAX);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(served.into_owned()).await {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
