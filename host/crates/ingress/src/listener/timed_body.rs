//! A request body with a time limit and a reservation in the body budget.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::body_budget::Reservation;
use super::connection_activity::RequestGuard;

/// Why reading a body failed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum BodyError {
    /// The body took longer than `body_timeout` in `[server.limits]`, which is this.
    #[error("the body took longer than {}", humantime::format_duration(*.0))]
    TooSlow(Duration),
    /// The bodies in memory have reached `max_bodies` in `[server.limits]`.
    #[error("this host is receiving too much data at once")]
    BudgetExhausted,
}

/// A body that fails with [`BodyError`] when its time is up or the budget is exhausted. It notifies the
/// [`RequestGuard`] when it is complete.
pub(super) struct TimedBody {
    body: Incoming,
    guard: Arc<RequestGuard>,
    reservation: Arc<Reservation>,
    limit: Duration,
    deadline: Instant,
    /// Created at the first `Pending`: most bodies arrive together with the head.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub fn new(body: Incoming, guard: Arc<RequestGuard>, reservation: Arc<Reservation>, limit: Duration) -> Self {
        if body.is_end_stream() {
            guard.body_complete();
        }
        Self { body, guard, reservation, limit, deadline: Instant::now() + limit, sleep: None }
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
                this.guard.body_complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                if frame.data_ref().is_some_and(|data| !this.reservation.grow(data.len())) {
                    return Poll::Ready(Some(Err(BodyError::BudgetExhausted.into())));
                }
                if this.body.is_end_stream() {
                    this.guard.body_complete();
                } else if Instant::now() >= this.deadline {
                    // A client that always has another byte ready never reaches the `Pending` branch.
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
