//! A request on its way out of the guest: its body comes in pieces, and when it is whole the request takes its place in
//! the record.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use hyper::body::Body;
use tokio::sync::Notify;
use wasmtime_wasi_http::WasiBody;

use super::failure::{Failure, HttpErrorCode};
use super::record;
use super::send::Request;
use super::told;
use crate::call_log::{Begun, Requested};
use crate::capabilities::Delivery;
use modhost_core::limits::{Limits, Resource};
use modhost_core::sync::lock;

/// A request whose body is being collected.
pub(super) struct RequestBody {
    state: Mutex<State>,
    /// Told when somebody else than the task that waits has looked at the body: the waker left there is theirs.
    looked: Notify,
}

enum State {
    RequestBody {
        request: Request,
        body: WasiBody,
        collected: BytesMut,
        delivery: Arc<Delivery>,
    },
    /// To be taken, once.
    Complete(Option<Result<Placed, Failure>>),
}

/// A request that has its place in the record.
pub(super) struct Placed {
    pub call: Requested<Begun>,
    pub request: Request,
}

impl RequestBody {
    pub fn new(request: Request, body: WasiBody, delivery: &Arc<Delivery>) -> Self {
        let state = State::RequestBody { request, body, collected: BytesMut::new(), delivery: delivery.clone() };
        Self { state: Mutex::new(state), looked: Notify::new() }
    }

    /// Takes in what is there of the body, and says whether that is all: then the request has its place.
    pub fn is_complete(&self) -> bool {
        let complete = self.poll(&mut Context::from_waker(Waker::noop())).is_ready();
        self.looked.notify_one();
        complete
    }

    /// Waits until the request has its place.
    pub async fn placed(&self) -> Result<Placed, Failure> {
        loop {
            tokio::select! {
                biased;
                () = std::future::poll_fn(|cx| self.poll(cx)) => break,
                () = self.looked.notified() => {}
            }
        }
        match &mut *self.lock() {
            State::Complete(placed) => placed.take(),
            State::RequestBody { .. } => None,
        }
        // Only one task waits, and only for what is complete.
        .unwrap_or_else(|| Err(Failure::new(HttpErrorCode::Internal, "the request is gone")))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let State::RequestBody { request, body, collected, delivery } = &mut *state else {
            return Poll::Ready(());
        };
        let whole = ready!(collect(body, request.announced, collected, delivery.limits(), cx));
        let placed = whole.and_then(|()| {
            request.body = std::mem::take(collected).freeze();
            request.dry_run = delivery.call_log.is_dry_run();
            place(request, delivery)
        });
        // The guest need not wait for the answer, and is told only a code.
        let placed = placed.map_err(|failure| told(delivery, failure.about(&request.shown())));
        *state = State::Complete(Some(placed));
        Poll::Ready(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Collects what is there.
fn collect(
    body: &mut WasiBody,
    announced: Option<u64>,
    collected: &mut BytesMut,
    limits: &Limits,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Failure>> {
    while let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)) {
        let length = collected.len() as u64;
        let broken = |_| match announced {
            Some(announced) if announced != length => wrong_length(announced, &length.to_string()),
            _ => Failure::new(HttpErrorCode::Protocol, "the module dropped its body before it was finished"),
        };
        let Ok(piece) = frame.map_err(broken)?.into_data() else {
            return Poll::Ready(Err(Failure::new(HttpErrorCode::RequestTrailers, "trailers can't be sent")));
        };
        let length = length + piece.len() as u64;
        if let Some(announced) = announced.filter(|announced| length > *announced) {
            return Poll::Ready(Err(wrong_length(announced, "more")));
        }
        if length > limits.amount(Resource::HttpRequest) {
            let why = limits.reached(Resource::HttpRequest, None).to_string();
            return Poll::Ready(Err(Failure::new(HttpErrorCode::RequestBodySize, why)));
        }
        collected.extend_from_slice(&piece);
    }
    Poll::Ready(Ok(()))
}

/// A body that isn't as long as the request says. `wasi:http` ends it with no more than a code, and a module that writes
/// `Content-Length` itself most often counts characters for bytes.
pub(super) fn wrong_length(announced: u64, has: &str) -> Failure {
    let why = format!(
        "its Content-Length says {announced} bytes, but its body has {has}; leave the header out, the host writes it"
    );
    Failure::new(HttpErrorCode::RequestBodySize, why)
}

fn place(request: &Request, delivery: &Arc<Delivery>) -> Result<Placed, Failure> {
    let arguments = record::arguments(request, &delivery.random(record::HIDING));
    let call = delivery.request(record::spec_of(&request.head.method), &arguments)?.begin()?;
    Ok(Placed { call, request: request.clone() })
}
