//! Connections, bounded in number, encrypted where configured.
//!
//! # What is absent on purpose
//!
//! - Refusals: beyond the bound connections wait in the system's queue, as on the HTTP door.
//! - Tonic's TLS: its certificate is read once, and ours is reloaded.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::first_bytes::FirstBytes;
use crate::http::listen::HANDSHAKE_TIME_MAX;

/// Pause where the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, at most `max` open at once, those among them whose handshake is under way.
pub(super) fn accept(
    listener: TcpListener,
    max: usize,
    tls: Option<TlsAcceptor>,
) -> impl Stream<Item = io::Result<FirstBytes<Connection>>> {
    let places = Arc::new(Semaphore::new(max));
    let accepted = stream::unfold((listener, places), |(listener, places)| async {
        let place = places.clone().acquire_owned().await.ok()?;
        let accepted = match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small: never wait for more to send.
                drop(stream.set_nodelay(true));
                Ok((stream, place))
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                Err(error)
            }
        };
        Some((accepted, (listener, places)))
    });
    let opened = accepted.map(move |accepted| {
        let tls = tls.clone();
        async move {
            let (stream, place) = accepted?;
            let stream = match tls {
                None => Socket::Plain(stream),
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
                    Ok(done) => Socket::Tls(Box::new(done?)),
                    Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                },
            };
            Ok(FirstBytes::of(Connection { stream, _place: place }))
        }
    });
    opened.buffer_unordered(max)
}

/// An open connection, which keeps its place until it is closed.
pub(super) struct Connection {
    stream: Socket,
    _place: OwnedSemaphorePermit,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Calls a method of whichever it is.
macro_rules! either {
    ($connection:expr, $stream:ident => $call:expr) => {
        match &mut $connection.stream {
            Socket::Plain($stream) => $call,
            Socket::Tls($stream) => $call,
        }
    };
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.stream {
            Socket::Plain(stream) => stream.connect_info(),
            Socket::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl Connected for FirstBytes<Connection> {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.get_ref().connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Socket::Plain(stream) => stream.is_write_vectored(),
            Socket::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn connections_are_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let mut accepted = Box::pin(accept(listener, 2, None));
        let _clients = [(); 3].map(|()| std::net::TcpStream::connect(address).expect("connects"));
        let first = accepted.next().await;
        let _second = accepted.next().await.expect("goes on").expect("accepted");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(accepted.next().now_or_never().is_none(), "the third one waits");
        drop(first);
        accepted.next().await.expect("goes on").expect("has a place now");
    }
}
