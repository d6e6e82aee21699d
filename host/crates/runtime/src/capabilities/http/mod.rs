//! `wasi:http`: HTTP requests of the module, to the hosts that its entry in `modules.toml` allows.
//!
//! The standard's types come from `wasmtime-wasi-http`; the host implements the sending. It collects the body of a
//! request, takes a position in the delivery's call log, and sends the request unless the log has its answer. The
//! answer is read to its end, recorded, and passed to the guest from memory. So a delivery that starts again sends no
//! answered request twice, and the guest never sees a truncated answer.

mod buffered_requests;
mod failure;
mod guarded_resolver;
mod policy;
mod record;
mod refused;
mod request_body;
mod send;

use std::sync::{Arc, Weak};

use http::{HeaderName, Response, header};
use http_body_util::{BodyExt, Full};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi_http::p2::bindings::LinkOptions;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, HostOutgoingBody as _};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, FieldMap, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks,
};

pub use policy::{HttpGrant, HttpGrants};
pub use record::redact;

use super::{CallSpec, Capability, Delivery, Grants, Host};
use crate::call_log::{InFlight, RecordedCall, refused};
use failure::Failure;
use guarded_resolver::Clients;
use modhost_core::limits::Resource as Limited;
use modhost_core::memory_budget::{HeldMemory, MemoryBudget};
use modhost_core::tenant_meter::ConnectionKind;
use record::Answered;
use request_body::{Positioned, RequestBody};
use send::{Request, Timeouts};

/// The types interface, as `wasmtime-wasi-http` links it.
const TYPES: &str = "wasi:http/types@0.2.12";

/// The interface that sends requests, as `wasmtime-wasi-http` links it.
const HANDLER: &str = "wasi:http/outgoing-handler@0.2.12";

/// Maximum size of the headers of a request, in bytes as `wasmtime-wasi-http` counts them: about twice their size on
/// the wire.
const MAX_REQUEST_HEADERS: usize = 64 * 1024;

/// Headers that only the host may set, in addition to those that `wasmtime-wasi-http` forbids.
const FORBIDDEN: [HeaderName; 3] = [header::EXPECT, header::TE, header::TRAILER];

type Sent = Result<Received, Error>;

/// The capability.
pub(super) struct HttpCapability {
    wasi: WasiHttpCtx,
    requests: Requests,
}

/// The HTTP grants and clients of a module version.
pub(super) struct Sender {
    grants: HttpGrants,
    clients: Clients,
}

/// The requests of a delivery.
struct Requests {
    sender: Arc<Sender>,
    delivery: Arc<Delivery>,
    /// The memory of the unsent requests.
    buffered: HeldMemory,
    /// The requests whose bodies are incomplete, in the order they were started.
    collecting: Vec<Weak<RequestBody>>,
}

impl Capability for HttpCapability {
    const CALLS: &'static [CallSpec] = &record::CALLS;
    type Prepared = Arc<Sender>;

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        outgoing_handler::add_to_linker::<T, WasiHttp>(linker, view)?;
        types::add_to_linker::<T, WasiHttp>(linker, &(&LinkOptions::default()).into(), view)?;
        // A request takes its position in the call log when its body is complete. To keep the guest's order, that has
        // to happen before `finish` returns, whatever the host's tasks are doing.
        linker.allow_shadowing(true);
        linker.instance(TYPES)?.func_wrap("[static]outgoing-body.finish", finish::<T>)?;
        // Requests that `wasmtime-wasi-http` refuses are reported in the delivery's log too.
        linker.instance(HANDLER)?.func_wrap("handle", refused::handle::<T>)?;
        linker.allow_shadowing(false);
        Ok(())
    }

    fn prepare(grants: &Grants) -> Self::Prepared {
        Arc::new(Sender { grants: grants.http.clone(), clients: Clients::default() })
    }

    fn begin(sender: &Self::Prepared, delivery: &Arc<Delivery>) -> Self {
        let mut wasi = WasiHttpCtx::new();
        wasi.set_field_size_limit(MAX_REQUEST_HEADERS);
        let (sender, delivery, buffered) = (sender.clone(), delivery.clone(), delivery.memory().hold());
        let requests = Requests { sender, delivery, buffered, collecting: Vec::new() };
        Self { wasi, requests }
    }
}

fn view<T: Host>(data: &mut T) -> WasiHttpCtxView<'_> {
    let capabilities = data.capabilities();
    capabilities.http.requests.check_buffered(&mut capabilities.table);
    WasiHttpCtxView {
        hooks: &mut capabilities.http.requests,
        table: &mut capabilities.table,
        ctx: &mut capabilities.http.wasi,
    }
}

/// `outgoing-body.finish`: finishes the body, then gives the request its position in the call log.
fn finish<T: Host>(
    mut store: StoreContextMut<'_, T>,
    (body, trailers): (Resource<HostOutgoingBody>, Option<Resource<FieldMap>>),
) -> wasmtime::Result<(Result<(), ErrorCode>,)> {
    let finished = match view(store.data_mut()).finish(body, trailers) {
        Ok(()) => Ok(()),
        Err(error) => Err(error.downcast()?),
    };
    store.data_mut().capabilities().http.requests.position_complete();
    Ok((finished,))
}

impl Requests {
    /// Counts the memory of unsent requests. Ends a guest whose unsent requests together exceed the size limit of
    /// arguments: they become arguments when they are sent.
    fn check_buffered(&mut self, table: &mut ResourceTable) {
        let (buffered, usage) = (buffered_requests::bytes(table), self.delivery.usage());
        if buffered > usage.limits().amount(Limited::Arguments) {
            usage.reach(Limited::Arguments, Some(buffered));
        }
        // If they don't fit, the meter ends the guest.
        let _ = self.buffered.set(usize::try_from(buffered).unwrap_or(usize::MAX));
    }

    /// Checks whether another request with an incomplete body may start.
    ///
    /// # Errors
    ///
    /// When there are as many as calls may be in flight.
    fn check_collecting(&self) -> Result<(), Failure> {
        let usage = self.delivery.usage();
        if self.collecting.len() < usage.limits().size(Limited::ConcurrentCalls) {
            return Ok(());
        }
        Err(usage.reach(Limited::ConcurrentCalls, None).into())
    }

    /// Gives every request with a complete body its position in the call log.
    fn position_complete(&mut self) {
        self.collecting.retain(|collecting| collecting.upgrade().is_some_and(|it| !it.is_complete()));
    }
}

impl WasiHttpHooks for Requests {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name) || FORBIDDEN.contains(name))
    }

    /// The HTTP client sets it from the URL that was checked against the grants.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        buffered_requests::CHUNK
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        self.position_complete();
        if let Err(failure) = self.check_collecting() {
            return Box::new(async { Err(failure.into_wasi()) });
        }
        let (head, body) = request.into_parts();
        let request = Request::new(head, Timeouts::of(options));
        let collecting = Arc::new(RequestBody::new(request, body, &self.delivery));
        if !collecting.is_complete() {
            self.collecting.push(Arc::downgrade(&collecting));
        }
        let (sender, delivery) = (self.sender.clone(), self.delivery.clone());
        let memory = delivery.memory().clone();
        Box::new(async move {
            let answered = match collecting.positioned().await {
                Ok(positioned) => send(sender, delivery.clone(), positioned).await,
                // The failure is already in the delivery's log.
                Err(failure) => Err(failure),
            };
            answered.and_then(|answered| response(answered, &memory)).map_err(|failure| failure.into_wasi())
        })
    }
}

/// Sends a request, unless the call log has its answer.
async fn send(sender: Arc<Sender>, delivery: Arc<Delivery>, positioned: Positioned) -> Result<Answered, Failure> {
    let Positioned { call, request } = positioned;
    let make = move |call: &RecordedCall<InFlight>| {
        let idempotency_key = call.idempotency_key().to_string();
        async move {
            let _connection = delivery.tenant_meter().connection(ConnectionKind::Http);
            let answered = send::send(&sender, &delivery, request, &idempotency_key).await;
            answered.map_err(|failure| log_failure(&delivery, failure).into())
        }
    };
    call.carry_out(make, |_| {}, |_| {}).await.map_err(Failure::from)
}

/// Writes the failure to the delivery's log for the module's author: the guest only gets a code.
fn log_failure(delivery: &Delivery, failure: Failure) -> Failure {
    delivery.log.keep_only(tracing::Level::WARN, "http", &failure.message);
    failure
}

/// A response for the guest, and the task that receives it.
type Received = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// Returns the answer as the guest reads it. Its body counts as memory until the guest has read or dropped it.
///
/// # Errors
///
/// When it doesn't fit into the memory.
fn response(answered: Answered, memory: &MemoryBudget) -> Result<Received, Failure> {
    let (head, body) = answered.into_parts();
    let mut held = memory.hold();
    held.grow(body.len()).map_err(refused)?;
    let body = Full::new(held.attach(body)).map_err(Error::from).boxed_unsync();
    Ok((Response::from_parts(head, body), Box::new(async { Ok(()) })))
}
