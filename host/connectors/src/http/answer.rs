//! The body of an answer on its way: until when, how much of it, how fast, and the place among the connection's
//! requests that it keeps until it is consumed or dropped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::client::failed;
use crate::error::{Error, ErrorKind};
use crate::operation::Flow;

/// The bounds of an answer.
pub(super) struct Bounds {
    /// What was attempted, for messages.
    pub(super) attempt: String,
    pub(super) deadline: Option<Instant>,
    pub(super) bytes_max: Option<u64>,
    pub(super) flow: Flow,
    /// Held until the body is consumed or dropped.
    pub(super) _permit: OwnedSemaphorePermit,
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// An answer's body within its bounds.
pub(super) struct Bounded {
    body: reqwest::Body,
    bounds: Bounds,
    seen: u64,
    timer: Option<Pin<Box<Sleep>>>,
    /// What is here already, and the wait that keeps it within the bandwidth.
    held: Option<(Frame<Bytes>, Wait)>,
}

impl Bounded {
    /// # Errors
    /// `TooLarge` when the answer announces more than it may have.
    pub(super) fn new(body: reqwest::Body, bounds: Bounds) -> Result<Self, Error> {
        if bounds.bytes_max.is_some_and(|most| body.size_hint().lower() > most) {
            return Err(too_large(&bounds));
        }
        let timer = bounds.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Ok(Self { body, bounds, seen: 0, timer, held: None })
    }
}

fn too_large(bounds: &Bounds) -> Error {
    let most = bounds.bytes_max.unwrap_or(u64::MAX);
    Error::new(ErrorKind::TooLarge, format!("the answer is larger than the {most} bytes that answer-max allows"))
        .during(&bounds.attempt)
}

/// The error of a request that did not end within the connection's total timeout.
pub(super) fn out_of_time() -> Error {
    let what = "request and answer did not end within the total-timeout of the connection";
    Error::new(ErrorKind::Timeout, what)
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Some(Err(out_of_time().during(&this.bounds.attempt))));
        }
        loop {
            if let Some((_, within_the_rate)) = &mut this.held {
                ready!(within_the_rate.as_mut().poll(context));
                return Poll::Ready(this.held.take().map(|(frame, _)| Ok(frame)));
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(failed("the origin", error).during(&this.bounds.attempt))));
                }
                Some(Ok(frame)) => frame,
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            this.seen += bytes as u64;
            if this.bounds.bytes_max.is_some_and(|most| this.seen > most) {
                return Poll::Ready(Some(Err(too_large(&this.bounds))));
            }
            let Some(within_the_rate) = this.bounds.flow.count(bytes) else { return Poll::Ready(Some(Ok(frame))) };
            this.held = Some((frame, Box::pin(within_the_rate)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
