//! Runs one instance for one delivery: creates it, calls `handle` once, and ends it at its limits.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tracing::Instrument;
use tracing::instrument::WithSubscriber;
use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::backtrace;
use super::cpu_time;
use super::executor::Running;
use super::limits::{Clock, Limiter, MAX_MEMORIES};
use super::sources;
use super::version::Version;
use super::wasmtime_engine::LinkedComponent;
use crate::capabilities::{self, Capabilities, Delivery, LineStream, MonotonicClock, Stream, WallClock, events};
use modhost_core::event::{Event, Subject};
use modhost_core::limits::{LimitReached, Limits, Resource};
use modhost_core::text::prefix;

/// The error of a delivery whose event needs a reply and whose module returned ok without writing one.
pub const NO_REPLY: &str =
    "it returned ok but never wrote a reply, and the user would look at an empty message; call `messages.reply`";

/// The maximum length of a reason that contains text of the guest, in bytes. Longer reasons are truncated.
const MAX_REASON: usize = 16 * 1024;

/// The maximum length of a failed guest's message to the user, in bytes. Longer messages are truncated.
const MAX_USER_TEXT: usize = 16 * 1024;

/// The start of Rust's note after a panic. It is omitted, because nobody can set this variable for a guest.
const RUST_NOTE: &str = "note: run with `RUST_BACKTRACE=";

/// The outcome of an instance.
#[derive(Clone, Debug, PartialEq)]
pub enum GuestOutcome {
    /// The guest returned ok.
    Answered,
    /// The guest returned a failure.
    Failed(Failure),
    /// The guest trapped or exited.
    Trapped {
        /// The reason for operators, with the guest's last error lines and its backtrace.
        reason: String,
    },
    /// The guest reached a limit.
    LimitReached(LimitReached),
}

/// A failure that a guest returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason for operators.
    pub reason: String,
    /// The message to the user.
    pub user_text: Option<String>,
    /// Whether a retry may succeed.
    pub retry: Retry,
}

/// Whether a retry may succeed, according to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// A retry would fail as well.
    No,
    /// A retry may succeed; the host chooses the delay.
    Yes,
    /// A retry may succeed after at least this delay.
    After(Duration),
}

/// The data of a delivery's store.
pub(super) struct StoreData {
    wasi: WasiCtx,
    capabilities: Capabilities,
    limiter: Limiter,
}

impl WasiView for StoreData {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.capabilities.table }
    }
}

impl capabilities::Host for StoreData {
    fn capabilities(&mut self) -> &mut Capabilities {
        &mut self.capabilities
    }
}

/// Starts a delivery in a new instance of a version, on the executor's threads. The result is the outcome.
pub(super) fn start(version: &Version, delivery: &Arc<Delivery>) -> Running<GuestOutcome> {
    let instance = Instance {
        code: version.code(),
        sources: version.sources().cloned(),
        capabilities: version.prepared().begin(delivery),
        delivery: delivery.clone(),
    };
    let (tenant, meter) = (&delivery.event.tenant, delivery.tenant_meter().clone());
    version.executor().spawn(tenant, meter, instance.run().in_current_span().with_current_subscriber())
}

/// An instance that is not created yet.
struct Instance {
    code: Arc<LinkedComponent>,
    sources: Option<Arc<str>>,
    capabilities: Capabilities,
    delivery: Arc<Delivery>,
}

impl Instance {
    async fn run(self) -> GuestOutcome {
        let Self { code, sources, capabilities, delivery } = self;
        // Acquired before any limit counts, and released after the store is dropped.
        let _slot = code.acquire_pool_slot().await;
        let mut store = store(&code, sources.as_ref(), capabilities, &delivery);
        let limits = delivery.limits();
        let ended = {
            let guest = pin!(call(&code, &mut store, &delivery));
            tokio::time::timeout(limits.time(Resource::Timeout), run_metered(guest, &delivery)).await
        };
        delivery.log.finish();
        match ended {
            Ok(Ok(Ok(Ok(())))) => GuestOutcome::Answered,
            Ok(Ok(Ok(Err(failure)))) => GuestOutcome::Failed(failure.into()),
            Ok(Ok(Err(error))) => trap_outcome(&error, &store, &delivery),
            Ok(Err(limit)) => GuestOutcome::LimitReached(limit),
            Err(_) => GuestOutcome::LimitReached(limits.reached(Resource::Timeout, None)),
        }
    }
}

/// Creates the store of an instance, with the delivery's limits.
fn store(
    code: &LinkedComponent,
    sources: Option<&Arc<str>>,
    capabilities: Capabilities,
    delivery: &Arc<Delivery>,
) -> Store<StoreData> {
    let limits = delivery.limits();
    let state = StoreData {
        wasi: wasi(sources, delivery),
        capabilities,
        limiter: Limiter::new(*limits, delivery.tenant_memory().cloned()),
    };
    let mut store = Store::new(code.engine(), state);
    store.limiter(|state| &mut state.limiter);
    // Bounds how much the host copies out of the guest's memory for one call.
    store.set_hostcall_fuel(limits.size(Resource::Arguments));
    store.set_max_component_handles(limits.size(Resource::Handles));
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// Polls a guest to its end, or until its CPU time or its calls reach a limit. Each poll is a slice of the executor, whose
/// CPU time is read only if the guest goes on: reading it is a system call.
async fn run_metered<T>(mut guest: Pin<&mut impl Future<Output = T>>, delivery: &Delivery) -> Result<T, LimitReached> {
    let mut clock = Clock::new(delivery.limits());
    std::future::poll_fn(|context| {
        let polled = guest.as_mut().poll(context);
        match (delivery.usage().reached(), polled) {
            (Some(limit), _) => Poll::Ready(Err(limit)),
            (None, Poll::Ready(ended)) => Poll::Ready(Ok(ended)),
            (None, Poll::Pending) => match clock.count(cpu_time::of_this_slice()) {
                Ok(()) => Poll::Pending,
                Err(limit) => Poll::Ready(Err(limit)),
            },
        }
    })
    .await
}

async fn call(
    code: &LinkedComponent,
    store: &mut Store<StoreData>,
    delivery: &Delivery,
) -> wasmtime::Result<Result<(), events::Failure>> {
    if code.memories() > MAX_MEMORIES {
        return Err(LimitReached::Memories(MAX_MEMORIES).into());
    }
    let instance = code.world().instantiate_async(&mut *store).await?;
    let event = guest_event(&delivery.event, delivery.attempt);
    instance.call_handle(store, event).await
}

/// Creates the WASI context of a guest: its output goes to the log, and its clocks read from the call log. It has no
/// files and no sockets. Its environment and standard input are empty, except for the sources of a component that reads
/// them.
fn wasi(sources: Option<&Arc<str>>, delivery: &Arc<Delivery>) -> WasiCtx {
    let mut wasi = WasiCtxBuilder::new();
    if let Some(sources) = sources {
        wasi.env(sources::VARIABLE, sources).stdin(MemoryInputPipe::new(sources.as_bytes().to_vec()));
    }
    wasi.stdout(LineStream::new(delivery.log.clone(), Stream::Stdout))
        .stderr(LineStream::new(delivery.log.clone(), Stream::Stderr))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .wall_clock(WallClock(delivery.call_log.clone()))
        .monotonic_clock(MonotonicClock::new(delivery.call_log.clone()))
        .build()
}

/// Returns the outcome of a guest that ended with an error: the limit it reached, or the trap with its details.
fn trap_outcome(error: &wasmtime::Error, store: &Store<StoreData>, delivery: &Delivery) -> GuestOutcome {
    let stack = store.engine().get_max_wasm_stack() as u64;
    // A guest that is refused memory aborts by itself, so its trap doesn't mention the limit.
    if let Some(limit) = store.data().limiter.refused().or_else(|| limit_reached(error, delivery.limits(), stack)) {
        return GuestOutcome::LimitReached(limit);
    }
    tracing::debug!(module = %delivery.module, delivery = %delivery.id, ?error, "guest trapped");
    let cause = match error.downcast_ref::<Trap>() {
        // An overflow of the stack that Rust and C keep in linear memory ends like this.
        Some(Trap::MemoryOutOfBounds) => "it accessed memory out of bounds: a recursion without end?".to_owned(),
        Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        None => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(status)) => format!("it called exit({status}) instead of returning from `handle`"),
            None => error.root_cause().to_string(),
        },
    };
    let lines: Vec<_> = delivery.log.last_errors().into_iter().filter(|line| !line.starts_with(RUST_NOTE)).collect();
    let lines = lines.join("\n");
    let lines = lines.trim();
    let mut reason = if lines.is_empty() { cause } else { format!("{cause}; it said:\n{lines}") };
    let frames = backtrace::format_backtrace(error);
    if !frames.is_empty() {
        reason = format!("{reason}\n{frames}");
    }
    GuestOutcome::Trapped { reason: bounded(reason, MAX_REASON) }
}

/// Returns the limit that an error reports, if any. `stack` is the size of the guest's stack in bytes.
fn limit_reached(error: &wasmtime::Error, limits: &Limits, stack: u64) -> Option<LimitReached> {
    /// Wasmtime 48 has no public types for these errors, only messages. The tests with hostile components fail if a
    /// message changes.
    const MESSAGES: [(&str, Resource); 3] = [
        ("fuel allocated for hostcalls has been exhausted", Resource::Arguments),
        ("instance count too high", Resource::Instances),
        ("store handle limit exceeded", Resource::Handles),
    ];
    if let Some(limit) = error.downcast_ref::<LimitReached>() {
        return Some(*limit);
    }
    if let Some(Trap::StackOverflow) = error.downcast_ref() {
        return Some(LimitReached::Stack(stack));
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Some(limits.reached(Resource::Handles, None));
    }
    let message = error.root_cause().to_string();
    let (_, resource) = MESSAGES.iter().find(|(part, _)| message.contains(part))?;
    Some(limits.reached(*resource, None))
}

/// Truncates a text to `bytes` and marks the cut with an ellipsis.
fn bounded(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(prefix(&text, bytes).len());
        text.push('…');
    }
    text
}

/// Converts an event for the guest, without copying.
fn guest_event(event: &Event, attempt: u32) -> events::Event<'_> {
    events::Event {
        id: &event.id,
        source: event.source.as_str(),
        name: &event.name,
        created_at: event.created_at,
        attempt,
        subject: guest_subject(&event.subject),
        payload: event.payload(),
    }
}

fn guest_subject(subject: &Subject) -> events::Subject<'_> {
    match subject {
        Subject::ModuleChosen(chosen) => events::Subject::ModuleChosen(events::ModuleChosen {
            name: &chosen.name,
            description: &chosen.description,
            configuration: &chosen.configuration,
            chat_id: &chosen.chat_id,
            assistant_id: &chosen.assistant_id,
            user_message: events::UserMessage {
                id: &chosen.user_message.id,
                text: &chosen.user_message.text,
                original_text: chosen.user_message.original_text.as_deref(),
                language: chosen.user_message.language.as_deref(),
                created_at: &chosen.user_message.created_at,
            },
            assistant_message_id: &chosen.assistant_message_id,
        }),
        Subject::UserMessageCreated(created) => events::Subject::UserMessageCreated(events::UserMessageCreated {
            chat_id: &created.chat_id,
            assistant_id: &created.assistant_id,
            text: &created.text,
        }),
        Subject::MessageFinalized(_) | Subject::Other => events::Subject::Other,
    }
}

impl From<events::Failure> for Failure {
    fn from(failure: events::Failure) -> Self {
        Self {
            reason: bounded(failure.reason, MAX_REASON),
            user_text: failure.user_text.map(|text| bounded(text, MAX_USER_TEXT)),
            retry: failure.retry.into(),
        }
    }
}

impl From<events::Retry> for Retry {
    fn from(retry: events::Retry) -> Self {
        match retry {
            events::Retry::No => Self::No,
            events::Retry::Yes => Self::Yes,
            events::Retry::After(seconds) => Self::After(Duration::from_secs(seconds.into())),
        }
    }
}
