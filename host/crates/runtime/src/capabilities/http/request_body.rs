//! Collects the body of a guest's request. When the body is complete, the request takes its position in the call log.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use hyper::body::Body;
use tokio::sync::Notify;
use wasmtime_wasi_http::WasiBody;

use super::failure::{Failure, HttpErrorCode};
use super::log_failure;
use super::record;
use super::send::Request;
use crate::call_log::{Begun, Requested, refused};
use crate::capabilities::Delivery;
use modhost_core::limits::{Limits, Resource};
use modhost_core::memory_budget::HeldMemory;
use modhost_core::sync::lock;

/// A request whose body is being collected.
pub(super) struct RequestBody {
    state: Mutex<State>,
    /// Notified when a task other than the waiting one has polled the body: the body then has that task's waker.
    polled_elsewhere: Notify,
}

enum State {
    Collecting {
        request: Request,
        body: WasiBody,
        collected: BytesMut,
        /// The memory of the collected part.
        held: HeldMemory,
        delivery: Arc<Delivery>,
    },
    /// The result, which is taken once.
    Complete(Option<Result<Positioned, Failure>>),
}

/// A request with its position in the call log.
pub(super) struct Positioned {
    pub call: Requested<Begun>,
    pub request: Request,
}

impl RequestBody {
    pub fn new(request: Request, body: WasiBody, delivery: &Arc<Delivery>) -> Self {
        let (collected, held, delivery) = (BytesMut::new(), delivery.memory().hold(), delivery.clone());
        let state = State::Collecting { request, body, collected, held, delivery };
        Self { state: Mutex::new(state), polled_elsewhere: Notify::new() }
    }

    /// Collects the available part of the body. Returns whether the body is complete; then the request has its
    /// position.
    pub fn is_complete(&self) -> bool {
        let complete = self.poll(&mut Context::from_waker(Waker::noop())).is_ready();
        self.polled_elsewhere.notify_one();
        complete
    }

    /// Waits until the request has its position.
    ///
    /// # Errors
    ///
    /// When the request is refused.
    pub async fn positioned(&self) -> Result<Positioned, Failure> {
        loop {
            tokio::select! {
                biased;
                () = std::future::poll_fn(|cx| self.poll(cx)) => break,
                () = self.polled_elsewhere.notified() => {}
            }
        }
        match &mut *self.lock() {
            State::Complete(positioned) => positioned.take(),
            State::Collecting { .. } => None,
        }
        // Only one task waits, and only until the body is complete.
        .unwrap_or_else(|| Err(Failure::new(HttpErrorCode::Internal, "the request was already taken")))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let State::Collecting { request, body, collected, held, delivery } = &mut *state else {
            return Poll::Ready(());
        };
        let complete_body = ready!(collect(body, request.content_length, collected, held, delivery.limits(), cx));
        let positioned = complete_body.and_then(|()| {
            let held = std::mem::replace(held, delivery.memory().hold());
            request.body = held.attach(std::mem::take(collected));
            request.dry_run = delivery.call_log.is_dry_run();
            reserve_position(request, delivery)
        });
        // Logged here, because the guest may never wait for the answer and only gets a code.
        let positioned = positioned.map_err(|failure| log_failure(delivery, failure.with_request(&request.describe())));
        *state = State::Complete(Some(positioned));
        Poll::Ready(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Collects the available part of the body.
fn collect(
    body: &mut WasiBody,
    content_length: Option<u64>,
    collected: &mut BytesMut,
    held: &mut HeldMemory,
    limits: &Limits,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Failure>> {
    while let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)) {
        let length = collected.len() as u64;
        let body_error = |_| match content_length {
            Some(content_length) if content_length != length => wrong_length(content_length, &length.to_string()),
            _ => Failure::new(HttpErrorCode::Protocol, "the module dropped its body before it was finished"),
        };
        let Ok(piece) = frame.map_err(body_error)?.into_data() else {
            return Poll::Ready(Err(Failure::new(HttpErrorCode::RequestTrailers, "trailers can't be sent")));
        };
        let length = length + piece.len() as u64;
        if let Some(content_length) = content_length.filter(|content_length| length > *content_length) {
            return Poll::Ready(Err(wrong_length(content_length, "more")));
        }
        if length > limits.amount(Resource::HttpRequest) {
            let why = limits.reached(Resource::HttpRequest, None).to_string();
            return Poll::Ready(Err(Failure::new(HttpErrorCode::RequestBodySize, why)));
        }
        if let Err(limit) = held.grow(piece.len()) {
            return Poll::Ready(Err(refused(limit).into()));
        }
        collected.extend_from_slice(&piece);
    }
    Poll::Ready(Ok(()))
}

/// Returns the failure for a body whose size differs from `Content-Length`. `wasi:http` reports only a code, and a
/// module that sets the header itself often counts characters instead of bytes.
pub(super) fn wrong_length(content_length: u64, has: &str) -> Failure {
    let why = format!(
        "its Content-Length says {content_length} bytes, but its body has {has}; leave the header out, the host writes it"
    );
    Failure::new(HttpErrorCode::RequestBodySize, why)
}

fn reserve_position(request: &Request, delivery: &Arc<Delivery>) -> Result<Positioned, Failure> {
    let arguments = record::arguments(request, &delivery.random(record::REDACTION_KEY));
    let call = delivery.request(record::spec_of(&request.head.method), &arguments)?.begin()?;
    Ok(Positioned { call, request: request.clone() })
}
