//! One instance for one delivery: made, called once, ended at its limits.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::backtrace;
use super::limits::{Clock, Limiter, MAX_MEMORIES};
use super::sources;
use super::version::Version;
use super::wasmtime_engine::LinkedComponent;
use crate::capabilities::{self, Capabilities, Delivery, LineStream, MonotonicClock, Stream, WallClock, events};
use modhost_core::event::{Event, Subject};
use modhost_core::limits::{LimitReached, Limits, Resource};
use modhost_core::text::prefix;

/// Why an event that waits for a reply isn't answered by a module that wrote none.
pub const NO_REPLY: &str =
    "it returned ok but never wrote a reply, and the user would look at an empty message; call `messages.reply`";

/// How long a reason may be that a guest has part in, in bytes; the rest of a longer one is left out.
const MAX_REASON: usize = 16 * 1024;

/// How long a guest's words for the user may be when it fails, in bytes; the rest of longer ones is left out.
const MAX_USER_TEXT: usize = 16 * 1024;

/// How Rust advises whoever sees a panic: by a variable that nobody can set for a guest.
const RUST_NOTE: &str = "note: run with `RUST_BACKTRACE=";

/// How an instance ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// It answered the event.
    Answered,
    /// It said that it can't.
    Failed(Failure),
    /// It broke.
    Trapped {
        /// What broke, for operators; what the guest itself said about it included.
        reason: String,
    },
    /// It wanted more than it may have.
    LimitReached(LimitReached),
}

/// What a guest says about an event it couldn't answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For operators.
    pub reason: String,
    /// For the user.
    pub user_text: Option<String>,
    /// Whether another try may help.
    pub retry: Retry,
}

/// Whether another try may help, in a guest's opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would end the same.
    No,
    /// It may, whenever it suits the host.
    Yes,
    /// It may, but not before this time has passed.
    After(Duration),
}

/// What a store holds: everything that belongs to one delivery's instance.
pub(super) struct State {
    wasi: WasiCtx,
    capabilities: Capabilities,
    limiter: Limiter,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.capabilities.table }
    }
}

impl capabilities::Host for State {
    fn capabilities(&mut self) -> &mut Capabilities {
        &mut self.capabilities
    }
}

/// Runs a fresh instance of a version on a delivery, to whatever end.
pub(super) async fn run(version: &Version, delivery: &Arc<Delivery>) -> Ended {
    let code = version.code();
    // Before anything is counted against the delivery, and given back after the store is gone.
    let _place = code.place().await;
    let limits = delivery.limits();
    let mut store = store(&code, version, delivery);
    let ended = {
        let guest = pin!(call(&code, &mut store, delivery));
        tokio::time::timeout(limits.time(Resource::Timeout), in_turns(guest, delivery)).await
    };
    delivery.log.finish();
    match ended {
        Ok(Ok(Ok(Ok(())))) => Ended::Answered,
        Ok(Ok(Ok(Err(failure)))) => Ended::Failed(failure.into()),
        Ok(Ok(Err(error))) => broken(&error, &store, delivery),
        Ok(Err(limit)) => Ended::LimitReached(limit),
        Err(_) => Ended::LimitReached(limits.reached(Resource::Timeout, None)),
    }
}

/// What an instance lives in, with the delivery's limits.
fn store(code: &LinkedComponent, version: &Version, delivery: &Arc<Delivery>) -> Store<State> {
    let limits = delivery.limits();
    let state = State {
        wasi: wasi(version, delivery),
        capabilities: version.prepared().begin(delivery),
        limiter: Limiter::new(*limits, delivery.tenant_memory().cloned()),
    };
    let mut store = Store::new(code.engine(), state);
    store.limiter(|state| &mut state.limiter);
    // How much the host copies out of the guest's memory for one call.
    store.set_hostcall_fuel(limits.size(Resource::Arguments));
    store.set_max_component_handles(limits.size(Resource::Handles));
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// Runs a guest to its end, or until it has run for too long or its calls have reached a limit.
async fn in_turns<T>(mut guest: Pin<&mut impl Future<Output = T>>, delivery: &Delivery) -> Result<T, LimitReached> {
    let mut clock = Clock::new(delivery.limits());
    std::future::poll_fn(|context| {
        let began = Instant::now();
        let turn = guest.as_mut().poll(context);
        let counted = clock.count(began.elapsed());
        match (delivery.usage().reached(), turn) {
            (Some(limit), _) => Poll::Ready(Err(limit)),
            (None, Poll::Ready(ended)) => Poll::Ready(Ok(ended)),
            (None, Poll::Pending) => counted.map_or_else(|limit| Poll::Ready(Err(limit)), |()| Poll::Pending),
        }
    })
    .await
}

async fn call(
    code: &LinkedComponent,
    store: &mut Store<State>,
    delivery: &Delivery,
) -> wasmtime::Result<Result<(), events::Failure>> {
    if code.memories() > MAX_MEMORIES {
        return Err(LimitReached::Memories(MAX_MEMORIES).into());
    }
    let instance = code.world().instantiate_async(&mut *store).await?;
    let event = guest_event(&delivery.event, delivery.attempt);
    instance.call_handle(store, event).await
}

/// Standard streams into the log, clocks out of the call log; no files, no sockets, and nothing in the environment
/// or on standard input but the sources of a component that reads them.
fn wasi(version: &Version, delivery: &Arc<Delivery>) -> WasiCtx {
    let mut wasi = WasiCtxBuilder::new();
    if let Some(sources) = version.sources() {
        wasi.env(sources::VARIABLE, &**sources).stdin(MemoryInputPipe::new(sources.as_bytes().to_vec()));
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

/// Finds out what a trap means.
fn broken(error: &wasmtime::Error, store: &Store<State>, delivery: &Delivery) -> Ended {
    let stack = store.engine().get_max_wasm_stack() as u64;
    // A guest that is refused memory aborts on its own terms, and so looks like any other trap.
    if let Some(limit) = store.data().limiter.refused().or_else(|| limit_reached(error, delivery.limits(), stack)) {
        return Ended::LimitReached(limit);
    }
    tracing::debug!(module = %delivery.module, delivery = %delivery.id, ?error, "guest trapped");
    let what = match error.downcast_ref::<Trap>() {
        // What the stack of Rust and C runs into first.
        Some(Trap::MemoryOutOfBounds) => "it reached beyond its memory: a recursion without end?".to_owned(),
        Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        None => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(status)) => format!("it called exit({status}) instead of returning from `handle`"),
            None => error.root_cause().to_string(),
        },
    };
    let said: Vec<_> = delivery.log.last_errors().into_iter().filter(|line| !line.starts_with(RUST_NOTE)).collect();
    let said = said.join("\n");
    let said = said.trim();
    let mut reason = if said.is_empty() { what } else { format!("{what}; it said:\n{said}") };
    let frames = backtrace::told(error);
    if !frames.is_empty() {
        reason = format!("{reason}\n{frames}");
    }
    Ended::Trapped { reason: bounded(reason, MAX_REASON) }
}

/// Returns the limit at which a guest was ended, whose stack had so many bytes.
fn limit_reached(error: &wasmtime::Error, limits: &Limits, stack: u64) -> Option<LimitReached> {
    /// Wasmtime 48 has no public types for these, only messages. Hostile components in the tests notice when a message
    /// changes.
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

/// A text of a guest, cut where it gets too long.
fn bounded(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(prefix(&text, bytes).len());
        text.push('…');
    }
    text
}

/// An event as it is lent to a guest.
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
