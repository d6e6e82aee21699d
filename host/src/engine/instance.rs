//! One instance for one delivery: made, called once, ended at its limits.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::backtrace;
use super::limits::{Clock, LimitReached, Limiter};
use super::machine::Code;
use super::version::Version;
use crate::capabilities::{self, Capabilities, Delivery, LineStream, MonotonicClock, Stream, WallClock, events};
use crate::event::{Event, Subject};

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
    clock: Clock,
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
    let stdout = LineStream::new(delivery.log.clone(), Stream::Stdout);
    let stderr = LineStream::new(delivery.log.clone(), Stream::Stderr);
    let mut store = Store::new(
        code.engine(),
        State {
            wasi: wasi(&stdout, &stderr, delivery),
            capabilities: version.prepared().begin(delivery),
            limiter: Limiter::new(version.limits()),
            clock: Clock::new(version.limits()),
        },
    );
    store.limiter(|state| &mut state.limiter);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        store.data_mut().clock.tick()?;
        Ok(UpdateDeadline::Yield(1))
    });

    let limit = version.limits().timeout;
    let ended = tokio::time::timeout(limit, call(&code, &mut store, delivery)).await;
    stdout.finish();
    stderr.finish();
    match ended {
        Ok(Ok(Ok(()))) => Ended::Answered,
        Ok(Ok(Err(failure))) => Ended::Failed(failure.into()),
        Ok(Err(error)) => broken(&error, store.data(), delivery),
        Err(_) => Ended::LimitReached(LimitReached::Timeout(limit)),
    }
}

async fn call(
    code: &Code,
    store: &mut Store<State>,
    delivery: &Delivery,
) -> wasmtime::Result<Result<(), events::Failure>> {
    let instance = code.world().instantiate_async(&mut *store).await?;
    let event = guest_event(&delivery.event, delivery.attempt);
    instance.call_handle(store, &event).await
}

/// Standard streams into the log, clocks and chance out of the record; no files, no sockets, an empty environment.
fn wasi(stdout: &LineStream, stderr: &LineStream, delivery: &Delivery) -> WasiCtx {
    let seed = |use_: u8| StdRng::from_seed(delivery.chance(use_));
    WasiCtxBuilder::new()
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .wall_clock(WallClock(delivery.tape.clone()))
        .monotonic_clock(MonotonicClock::new(delivery.tape.clone()))
        .secure_random(seed(0))
        .insecure_random(seed(1))
        .insecure_random_seed(seed(2).random())
        .build()
}

/// Finds out what a trap means.
fn broken(error: &wasmtime::Error, state: &State, delivery: &Delivery) -> Ended {
    if let Some(limit) = error.downcast_ref::<LimitReached>() {
        return Ended::LimitReached(*limit);
    }
    // A guest that is refused memory aborts on its own terms, and so looks like any other trap.
    if let Some(limit) = state.limiter.refused() {
        return Ended::LimitReached(limit);
    }
    tracing::debug!(module = %delivery.module, delivery = %delivery.id, "{error:?}");
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "its call stack is exhausted: a recursion without end?".to_owned(),
        // What the stack of Rust and C runs into first.
        Some(Trap::MemoryOutOfBounds) => "it reached beyond its memory: a recursion without end?".to_owned(),
        Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        None => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(status)) => format!("it called exit({status}) instead of returning from `handle`"),
            None => error.root_cause().to_string(),
        },
    };
    let said = delivery.log.last_errors().join("\n");
    let said = said.trim();
    let mut reason = if said.is_empty() { what } else { format!("{what}; it said:\n{said}") };
    let frames = backtrace::told(error);
    if !frames.is_empty() {
        reason = format!("{reason}\n{frames}");
    }
    Ended::Trapped { reason }
}

fn guest_event(event: &Event, attempt: u32) -> events::Event {
    events::Event {
        id: event.id.clone(),
        source: event.source.to_string(),
        name: event.name.clone(),
        created_at: event.created_at,
        attempt,
        subject: guest_subject(&event.subject),
        payload: event.payload().to_owned(),
    }
}

fn guest_subject(subject: &Subject) -> events::Subject {
    match subject {
        Subject::ModuleChosen(chosen) => events::Subject::ModuleChosen(events::ModuleChosen {
            name: chosen.name.clone(),
            description: chosen.description.clone(),
            configuration: chosen.configuration.to_string(),
            chat_id: chosen.chat_id.clone(),
            assistant_id: chosen.assistant_id.clone(),
            user_message: events::UserMessage {
                id: chosen.user_message.id.clone(),
                text: chosen.user_message.text.clone(),
                original_text: chosen.user_message.original_text.clone(),
                language: chosen.user_message.language.clone(),
                created_at: chosen.user_message.created_at.clone(),
            },
            assistant_message_id: chosen.assistant_message_id.clone(),
        }),
        Subject::UserMessageCreated(created) => events::Subject::UserMessageCreated(events::UserMessageCreated {
            chat_id: created.chat_id.clone(),
            assistant_id: created.assistant_id.clone(),
            text: created.text.clone(),
        }),
        Subject::MessageFinalized(_) | Subject::Other => events::Subject::Other,
    }
}

impl From<events::Failure> for Failure {
    fn from(failure: events::Failure) -> Self {
        Self { reason: failure.reason, user_text: failure.user_text, retry: failure.retry.into() }
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
