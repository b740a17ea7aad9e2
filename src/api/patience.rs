//! Connections of the API that end when their client neither sends nor reads for too long.
//!
//! Owned by [`serve`](super::serve), on the control thread. Invariant: a connection on which no
//! byte has moved for [`API_SILENCE_MAX`] is closed, whoever's turn it was: half a request, an idle
//! keep-alive, or an event stream whose reader has stopped reading. Event streams that are read
//! stay: their keep-alive comments move bytes. It does not bound how many connections there are.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};

use crate::limits::API_SILENCE_MAX;

/// Accepts connections that are [`Patient`].
#[derive(Debug)]
pub(super) struct PatientListener(pub(super) TcpListener);

impl Listener for PatientListener {
    type Io = Patient<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Without it, answers of two packets wait for an acknowledgement; its failure is harmless.
        let _ = stream.set_nodelay(true);
        (Patient::new(stream, API_SILENCE_MAX), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] once no byte has moved for its patience.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    end: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, end: Box::pin(tokio::time::sleep(patience)) }
    }

    /// What moved a byte (or failed) begins the patience anew; what waits may use it up.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.end.as_mut().reset(Instant::now() + self.patience);
            return polled;
        }
        self.end.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.judge(cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.judge(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// A flush of a socket is always ready and moves nothing, so it begins no patience anew.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// A client that neither sends nor reads.
    #[derive(Debug)]
    struct Stalled;

    impl AsyncRead for Stalled {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stalled {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_client_that_stalls_is_given_up_in_both_directions() {
        let mut stream = Patient::new(Stalled, Duration::ZERO);
        let written = poll_fn(|cx| {
            // Hyper flushes between its attempts; that must not count as life.
            let flushed = Pin::new(&mut stream).poll_flush(cx);
            assert!(flushed.is_ready());
            Pin::new(&mut stream).poll_write(cx, b"event")
        })
        .await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);

        let mut stream = Patient::new(Stalled, Duration::ZERO);
        let mut buffer = [0; 8];
        let mut buffer = ReadBuf::new(&mut buffer);
        let read = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buffer)).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn every_byte_begins_the_patience_anew() {
        let mut stream = Patient::new(Stalled, Duration::from_secs(3600));
        let before = stream.end.deadline();
        poll_fn(|cx| {
            assert!(stream.judge(cx, Poll::<io::Result<()>>::Pending).is_pending());
            assert_eq!(stream.end.deadline(), before);
            stream.judge(cx, Poll::Ready(Ok(())))
        })
        .await
        .unwrap();
        assert!(stream.end.deadline() > before);
    }
}
