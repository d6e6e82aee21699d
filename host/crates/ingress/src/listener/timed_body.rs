//! A request's body on its way, which has its time like everything else, and shares its room with the others.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::body_budget::Reservation;
use super::connection_activity::RequestGuard;

/// Why a body is not read to its end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum BodyError {
    /// It took longer than `body_timeout` in `[server.limits]`, which is this.
    #[error("the body took longer than {}", humantime::format_duration(*.0))]
    TooSlow(Duration),
    /// All bodies on their way are as large together as `max_bodies` in `[server.limits]` allows.
    #[error("too much is on its way to this host at once")]
    NoRoom,
}

/// A body that fails with [`BodyError`] when its time is up or there is no room for it, and tells when it has come.
pub(super) struct TimedBody {
    body: Incoming,
    flight: Arc<RequestGuard>,
    share: Arc<Reservation>,
    limit: Duration,
    deadline: Instant,
    /// Made when the body is waited for: most are there with their head.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub fn new(body: Incoming, flight: Arc<RequestGuard>, share: Arc<Reservation>, limit: Duration) -> Self {
        if body.is_end_stream() {
            flight.has_come();
        }
        Self { body, flight, share, limit, deadline: Instant::now() + limit, sleep: None }
    }

    fn too_slow(&self) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        Poll::Ready(Some(Err(BodyError::TooSlow(self.limit).into())))
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(None) => {
                this.flight.has_come();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                if frame.data_ref().is_some_and(|data| !this.share.grow(data.len())) {
                    return Poll::Ready(Some(Err(BodyError::NoRoom.into())));
                }
                if this.body.is_end_stream() {
                    this.flight.has_come();
                } else if Instant::now() >= this.deadline {
                    // One who always has another byte is never waited for.
                    return this.too_slow();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => {
                let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
                match sleep.as_mut().poll(cx) {
                    Poll::Ready(()) => this.too_slow(),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
