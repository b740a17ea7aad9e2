//! Bodies in both directions, as a connection's [`Course`] sees them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::course::Course;
use crate::metrics::connections::TimedOut;

/// The client took too long over its body.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body took too long")]
pub(in crate::api) struct BodyLate;

/// A request's body, which fails with [`BodyLate`] once its time is over.
#[derive(Debug)]
pub(super) struct TimedBody {
    body: Incoming,
    course: Arc<Course>,
    end: Pin<Box<Sleep>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, course: Arc<Course>) -> Self {
        let end = Box::pin(sleep(course.patience.body));
        Self { body, course, end }
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if frame.is_none() || self.body.is_end_stream() {
                self.course.has_body();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.end.as_mut().poll(cx));
        self.course.timed_out(TimedOut::Body);
        Poll::Ready(Some(Err(BodyLate.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which tells when it was written or given up.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    _end: AnswerEnd,
}

#[derive(Debug)]
struct AnswerEnd(Arc<Course>);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        self.0.answered();
    }
}

impl AnswerBody {
    pub(super) fn new(body: Body, course: Arc<Course>) -> Self {
        Self { body, _end: AnswerEnd(course) }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
