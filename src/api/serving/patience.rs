//! Connections of the API that end when their client takes too long.
//!
//! Invariant: a connection is closed once its [`Course`] says that its client took too long, or no
//! byte has moved for [`API_SILENCE_MAX`](crate::limits::API_SILENCE_MAX), whoever's turn it was:
//! half a request, an idle keep-alive, or an event stream whose reader has stopped reading. Event
//! streams that are read stay: their keep-alive comments move bytes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::course::Course;
use crate::metrics::connections::TimedOut;

/// A stream that fails with [`io::ErrorKind::TimedOut`] once its client took too long.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    course: Arc<Course>,
    silent_until: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, course: Arc<Course>) -> Self {
        let silent_until = Instant::now() + course.patience.silence;
        let sleep = Box::pin(sleep_until(silent_until));
        Self { stream, course, silent_until, sleep }
    }

    /// What moved a byte (or failed) begins the silence anew; what waits may use its time up.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.silent_until = Instant::now() + self.course.patience.silence;
            return polled;
        }
        self.wait(cx).map(Err)
    }

    /// Ready when the client has taken too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let silence = (self.silent_until, TimedOut::Silence);
        let (end, over) = match self.course.end() {
            Some(end) if end.0 <= silence.0 => end,
            _ => silence,
        };
        if self.sleep.deadline() != end {
            self.sleep.as_mut().reset(end);
        }
        ready!(self.sleep.as_mut().poll(cx));
        self.course.timed_out(over);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.course.heard();
        }
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

    /// A flush of a socket is always ready and moves nothing, so it begins no silence anew; one of
    /// TLS waits for a client that does not read.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.wait(cx).map(Err),
            flushed => {
                self.course.flushed();
                flushed
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.wait(cx).map(Err),
            shut => shut,
        }
    }
}
