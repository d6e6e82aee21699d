//! A recorded call, from the guest's request to its answer on disk: one state machine.
//!
//! ```text
//!   Requested::new
//!     │
//!     ├── the log has the answer ──► Replayed              nothing leaves the host
//!     │
//!     ▼
//!   Reserved ─── begin ───► Begun                          position taken; intent submitted to the journal
//!     │                       │
//!     │ leave                 │ leave                      waits until the intent is on disk, unless the call only reads
//!     ▼                       ▼
//!   InFlight ◄────────────────┘                            only now the call may leave the host
//!     │
//!     │ answer                                             submits the answer to the journal
//!     ▼
//!   Answered ─── commit ──► Committed                      waits until the answer is on disk
//! ```
//!
//! Each state is a type ([`RecordedCall<S>`]), and each transition consumes the call: a call can't leave before its
//! intent is on disk, and can't be answered twice. [`CallEffect`](super::CallEffect) decides which of the waits apply.
//! [`Requested::carry_out`] makes all the transitions.
//!
//! # States
//!
//! | state       | on disk                    | if the process is killed, the next attempt               |
//! |-------------|----------------------------|----------------------------------------------------------|
//! | `Replayed`  | the answer                 | replays the answer                                       |
//! | `Reserved`  | nothing¹                   | makes the call for the first time¹                       |
//! | `Begun`     | nothing¹, or the intent    | as `Reserved`, or as `InFlight`                          |
//! | `InFlight`  | the intent²                | makes the call again, with the same idempotency key³     |
//! | `Answered`  | the intent², or the answer | as `InFlight`, or as `Committed`                         |
//! | `Committed` | the answer                 | replays the answer                                       |
//!
//! 1. The intent, if the call was in flight in an earlier attempt. It keeps the position and the keys of that attempt.
//! 2. Nothing, if the call only reads and [`Requested::begin`] was not called.
//! 3. [`CallLog::repeated_calls`](super::CallLog::repeated_calls) counts it, unless the call only reads.
//!
//! # Early exits
//!
//! - **The guest drops the call.** In [`Requested::carry_out`], a call that [outlives its
//!   guest](super::CallEffect::outlives_guest) runs to completion in a task of its own. Any other call is canceled:
//!   nothing more is submitted, and the log is as if the process had been killed. Earlier submissions are written.
//! - **The intent can't be written** (journal full or broken, lease lost, limit reached). The call never leaves the
//!   host, and the guest gets the error.
//! - **The host loses its lease** (a storage that several hosts share). A call with an effect that has not left the host
//!   doesn't, and one in flight is canceled: the host that takes the delivery over repeats it.
//! - **The answer can't be written.** The next attempt repeats the call. The guest gets the error instead of the
//!   answer, unless it doesn't wait for the disk and already has the answer.
//! - **The call failed and may succeed later.** The answer, an error, is recorded and replayed like any other. When the
//!   delivery is retried, [`CallLog::clear_temporary_failures`](super::CallLog::clear_temporary_failures) overwrites it,
//!   so that the next attempt makes the call again from `Reserved`, at the same position.
//!   [`RecordedCall::repeat_next_attempt`] does the same for a replayed answer.
//!
//! # Invariants
//!
//! - The intents and answers of a delivery reach the disk in the order of submission. If one can't be written, the
//!   journal refuses all later ones, so the log on disk never has a hole.
//! - A state change and its consequences have no `await` between them. Once an answer has arrived, it is applied,
//!   reported and submitted before the task can be canceled.
//! - The resources of a live call ([`CallSlot`]) are released only by dropping the slot: when the answer is submitted,
//!   or, if the guest has to wait for the disk, when the answer is on disk. Dropping a call in any earlier state
//!   releases them too.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::arguments::Arguments;
use super::call_spec::{CallEffect, CallSpec};
use super::detach_on_drop::DetachOnDrop;
use super::types::LogPosition;
use super::{Answer, CallLog, refused, unavailable};
use modhost_core::event::push_hex;
use modhost_core::import::Import;
use modhost_core::memory_budget::HeldMemory;
use modhost_core::metrics;
use modhost_platform::{CallError, ErrorKind, IdempotencyKey, KeySource};
use modhost_storage::journal::CommitHandle;

/// A recorded call in the state `S`.
#[must_use = "a call that is dropped is abandoned"]
pub(crate) struct RecordedCall<S> {
    entry: Arc<LogEntry>,
    state: S,
}

/// The log has the answer. The call holds no [`CallSlot`].
pub(crate) struct Replayed {
    answer: Answer,
}

/// The call has a position in the log. Nothing is on disk.
pub(crate) struct Reserved {
    slot: CallSlot,
}

/// The intent is submitted to the journal.
pub(crate) struct Begun {
    slot: CallSlot,
    intent: CommitHandle,
}

/// The call may have left the host: its intent is on disk, or it only reads.
pub(crate) struct InFlight {
    slot: CallSlot,
    since: Instant,
}

/// The answer is submitted to the journal.
pub(crate) struct Answered {
    answer: CommitHandle,
    /// Kept if the guest waits for the disk.
    slot: Option<CallSlot>,
}

/// The answer is on disk.
pub(crate) struct Committed;

/// The states of a call without a recorded answer, before it leaves the host.
pub(crate) trait Live: Sized + Send + 'static {
    /// Lets the call leave the host.
    fn leave(call: RecordedCall<Self>) -> impl Future<Output = Result<RecordedCall<InFlight>, CallError>> + Send;
}

/// A requested call: replayed from the log, or to be made.
#[must_use = "a call that is dropped is abandoned"]
pub(crate) enum Requested<S = Reserved> {
    /// The log has the answer.
    Replayed(RecordedCall<Replayed>),
    /// The call has to be made.
    Live(RecordedCall<S>),
}

/// The log entry of a call, the same in all states.
struct LogEntry {
    log: Arc<CallLog>,
    position: LogPosition,
    import: Import,
    effect: CallEffect,
    arguments: Arguments,
}

/// The resources of a live call, released on drop: one of the delivery's calls in flight, the memory of its arguments,
/// and, if the call outlives its guest, a token that [`CallLog::wait_for_detached_calls`] waits for.
struct CallSlot {
    log: Arc<CallLog>,
    _arguments: HeldMemory,
    _detached: Option<TaskTrackerToken>,
}

impl CallSlot {
    fn take(log: &Arc<CallLog>, effect: CallEffect, argument_bytes: usize) -> Result<Self, CallError> {
        log.usage().count_call(argument_bytes)?;
        let detached = effect.outlives_guest().then(|| log.detached.token());
        let mut arguments = log.memory().hold();
        let fits = arguments.grow(argument_bytes);
        let slot = Self { log: log.clone(), _arguments: arguments, _detached: detached };
        log.usage().entered_flight()?;
        fits.map_err(refused)?;
        Ok(slot)
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.log.usage().left_flight();
    }
}

impl Requested {
    /// Takes a position in the log for a call, and looks up whether an earlier attempt made it.
    ///
    /// # Errors
    ///
    /// When a limit is reached, the arguments can't be serialized, or the log can't be written.
    pub(crate) fn new<P: 'static>(
        log: &Arc<CallLog>,
        spec: &CallSpec<P>,
        arguments: &impl Serialize,
    ) -> Result<Self, CallError> {
        let CallSpec { import, effect, .. } = *spec;
        // Without a log, nobody reads them. Wasmtime has checked their size as it copied them out of the guest.
        let arguments = if log.is_disabled() { Ok(Arguments::default()) } else { Arguments::new(arguments) };
        let arguments = arguments
            .map_err(|error| CallError::new(ErrorKind::Invalid, format!("arguments of `{import}`: {error}")))?;
        let slot = CallSlot::take(log, effect, arguments.json().len())?;
        let (position, answer) = log.reserve(spec, &arguments)?;
        let entry = Arc::new(LogEntry { log: log.clone(), position, import, effect, arguments });
        Ok(match answer {
            Some(answer) => Self::Replayed(RecordedCall { entry, state: Replayed { answer } }),
            None => Self::Live(RecordedCall { entry, state: Reserved { slot } }),
        })
    }

    /// Submits the intent now, although the call leaves the host later. The guest continues meanwhile, and its next
    /// calls must not be in the log without this one: the next attempt would truncate the log at such a hole.
    ///
    /// # Errors
    ///
    /// When the log can't be written.
    pub(crate) fn begin(self) -> Result<Requested<Begun>, CallError> {
        Ok(match self {
            Self::Replayed(call) => Requested::Replayed(call),
            Self::Live(call) => Requested::Live(call.begin()?),
        })
    }
}

impl<S: Live> Requested<S> {
    /// Makes the call and records its answer, unless the log has the answer.
    ///
    /// `make` makes the call. `apply` receives a successful answer, recorded or new, before the guest gets it.
    /// `committed` is called once the answer of a live call is on disk, if its effect is [`CallEffect::Store`].
    ///
    /// # Errors
    ///
    /// When the call failed, its intent or answer can't be written, or the call panicked.
    pub(crate) async fn carry_out<T, F>(
        self,
        make: impl FnOnce(&RecordedCall<InFlight>) -> F + Send + 'static,
        apply: impl FnOnce(&T) + Send + 'static,
        committed: impl FnOnce(&RecordedCall<Committed>) + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let call = match self {
            Self::Replayed(call) => return call.answer().to_result().inspect(apply),
            Self::Live(call) => call,
        };
        let (import, effect) = (call.entry.import, call.entry.effect);
        let span = tracing::debug_span!("call", %import);
        let full_call = async move { call.leave().await?.finish(make, apply, committed).await }.instrument(span);
        if !effect.outlives_guest() {
            return full_call.await;
        }
        DetachOnDrop::new(full_call).await.unwrap_or_else(|_| {
            let panicked = format!("`{import}` failed: internal error in the host; please report it");
            Err(CallError::new(ErrorKind::Unavailable, panicked))
        })
    }
}

impl Live for Reserved {
    async fn leave(call: RecordedCall<Self>) -> Result<RecordedCall<InFlight>, CallError> {
        if call.entry.effect.needs_durable_intent() {
            return call.begin()?.leave().await;
        }
        let RecordedCall { entry, state: Self { slot } } = call;
        Ok(RecordedCall { entry, state: InFlight { slot, since: Instant::now() } })
    }
}

impl Live for Begun {
    async fn leave(call: RecordedCall<Self>) -> Result<RecordedCall<InFlight>, CallError> {
        let RecordedCall { entry, state: Self { slot, intent } } = call;
        if entry.effect.needs_durable_intent() {
            intent.durable().await.map_err(unavailable)?;
            // After the wait: meanwhile another host may have taken the delivery over.
            entry.log.check_may_leave()?;
        }
        Ok(RecordedCall { entry, state: InFlight { slot, since: Instant::now() } })
    }
}

impl<S: Live> RecordedCall<S> {
    /// Lets the call leave the host. When this returns, its intent and all calls before it are on disk, unless the call
    /// only reads.
    ///
    /// # Errors
    ///
    /// When the intent can't be written.
    pub(crate) async fn leave(self) -> Result<RecordedCall<InFlight>, CallError> {
        S::leave(self).await
    }
}

impl RecordedCall<Reserved> {
    fn begin(self) -> Result<RecordedCall<Begun>, CallError> {
        let Self { entry, state: Reserved { slot } } = self;
        let intent = entry.log.begin(entry.position, entry.import, entry.arguments.recorded())?;
        Ok(RecordedCall { entry, state: Begun { slot, intent } })
    }
}

impl RecordedCall<Replayed> {
    /// Returns the recorded answer.
    pub(crate) fn answer(&self) -> &Answer {
        &self.state.answer
    }

    /// Lets the next attempt repeat the call, because the recorded answer can't be used.
    pub(crate) fn repeat_next_attempt(&self) {
        let LogEntry { log, position, import, arguments, .. } = &*self.entry;
        log.repeat_next_attempt(*position, *import, arguments.recorded());
    }
}

impl RecordedCall<InFlight> {
    /// Checks the size of an answer of which this many bytes have arrived.
    ///
    /// # Errors
    ///
    /// When it is too large.
    pub(crate) fn check_answer(&self, bytes: usize) -> Result<(), CallError> {
        self.entry.log.usage().check_answer(bytes)
    }

    /// Submits the answer, without waiting for the disk.
    ///
    /// # Errors
    ///
    /// When the log can't be written.
    pub(crate) fn answer(self, answer: &Answer) -> Result<RecordedCall<Answered>, CallError> {
        self.report(answer.error());
        let Self { entry, state } = self;
        let submitted =
            entry.log.end(entry.position, entry.import, entry.effect, entry.arguments.recorded(), answer)?;
        Ok(Self::answered(entry, state.slot, submitted))
    }

    /// Makes the call and records its answer.
    async fn finish<T, F>(
        self,
        make: impl FnOnce(&Self) -> F,
        apply: impl FnOnce(&T),
        committed: impl FnOnce(&RecordedCall<Committed>) + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize,
        F: Future<Output = Result<T, CallError>>,
    {
        let effect = self.entry.effect;
        let answer = if effect.needs_durable_intent() {
            // A call that the platform client repeats must not be sent again once another host may make it. Its answer
            // is unknown then, so nothing is recorded.
            tokio::select! {
                biased;
                answer = make(&self) => answer,
                error = self.entry.log.host_lease_ended() => return Err(error),
            }
        } else {
            make(&self).await
        };
        // The answer has arrived: no `await` until it is submitted.
        if let Ok(answer) = &answer {
            apply(answer);
        }
        // Counted until the guest gets it. One that doesn't fit is recorded nevertheless, for the next attempt.
        let mut held = None;
        let mut fits = Ok(());
        let answered = if self.entry.log.is_disabled() {
            self.report(answer.as_ref().err());
            Self::answered(self.entry, self.state.slot, CommitHandle::committed())
        } else {
            let recorded = Answer::of(&answer)?;
            fits = held.insert(self.entry.log.memory().hold()).grow(recorded.bytes());
            self.answer(&recorded)?
        };
        if effect.needs_durable_answer() {
            drop(answered.commit().await?);
        } else if effect == CallEffect::Store {
            drop(tokio::spawn(async move {
                if let Ok(call) = answered.commit().await {
                    committed(&call);
                }
            }));
        }
        fits.map_err(refused)?;
        answer
    }

    fn answered(entry: Arc<LogEntry>, slot: CallSlot, answer: CommitHandle) -> RecordedCall<Answered> {
        let slot = entry.effect.needs_durable_answer().then_some(slot);
        RecordedCall { entry, state: Answered { answer, slot } }
    }

    /// Counts and logs the end of the call.
    fn report(&self, error: Option<&CallError>) {
        let LogEntry { log, import, .. } = &*self.entry;
        if log.dry_run {
            return;
        }
        let took = self.state.since.elapsed();
        let (module, delivery) = (log.module.as_ref().map(tracing::field::display), &log.delivery);
        if let Some(meter) = &log.tenant_meter {
            meter.count_call(*import);
        }
        metrics::call(*import, error.map_or(metrics::OK, |error| error.kind.as_str()), took);
        match error {
            None => tracing::debug!(module, %delivery, %import, ?took, "call answered"),
            Some(error) => tracing::warn!(module, %delivery, %import, ?took, %error, "call failed"),
        }
    }
}

impl RecordedCall<Answered> {
    /// Waits until the answer is on disk.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub(crate) async fn commit(self) -> Result<RecordedCall<Committed>, CallError> {
        let Self { entry, state: Answered { answer, slot } } = self;
        answer.durable().await.map_err(unavailable)?;
        drop(slot);
        Ok(RecordedCall { entry, state: Committed })
    }
}

impl<S> RecordedCall<S> {
    /// Returns a key that stays the same whenever this call is repeated. It covers the arguments: another version of a
    /// module may make another call at the same position and must not get the answer of this one.
    pub(crate) fn idempotency_key(&self) -> IdempotencyKey {
        IdempotencyKey::new(self.entry.clone())
    }

    /// Returns a key that stays the same only while the outcome of the call is unknown. After its answers are
    /// forgotten, a delivery may make the same call at the same position and mean a new change.
    pub(crate) fn change_key(&self) -> String {
        let begun = self.entry.position.begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}", self.entry.key(), begun.as_millis())
    }
}

impl KeySource for LogEntry {
    fn key(&self) -> String {
        if let Some(nonce) = self.log.nonce {
            return format!("{}-{}-{nonce:016x}", self.log.delivery, self.position.number);
        }
        let mut hash = Sha256::new();
        hash.update(self.import.as_str());
        hash.update([0]);
        hash.update(self.arguments.json());
        let mut key = format!("{}-{}-", self.log.delivery, self.position.number);
        push_hex(&mut key, &hash.finalize()[..8]);
        key
    }
}
