//! The log of a delivery's calls: written as the delivery runs, and replayed when the delivery starts again.
//!
//! Calls are matched in order. As long as the guest repeats the calls of earlier attempts, it gets their recorded
//! answers and nothing leaves the host. At the first call that differs, the log is truncated and the rest runs live. A
//! result that can't be undone (a step, a message) is kept aside: when the guest makes the same call later, it gets
//! that result, and nothing is created twice.
//!
//! The log is independent of the capabilities. Each capability declares its calls ([`CallSpec`]) and makes them through
//! [`Requested`]; [`recorded_call`] describes how a call gets from the guest's request to an answer on disk.

mod arguments;
mod call_spec;
mod detach_on_drop;
mod host_lease;
mod journal_quota;
mod log_state;
mod recorded_call;
mod types;
mod usage;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio_util::task::TaskTracker;

use arguments::Arguments;
pub use arguments::{LongText, as_recorded, replace_long_texts};
pub(crate) use call_spec::{CallEffect, CallSpec};
pub use host_lease::{HostLease, RELY_FOR};
pub use journal_quota::JournalQuota;
use log_state::{KeptCall, LogState};
use modhost_core::event::{DeliveryId, Name};
use modhost_core::import::{Import, RecordedImport};
use modhost_core::limits::Limits;
use modhost_core::memory_budget::MemoryBudget;
use modhost_core::sync::{get_mut, lock};
use modhost_core::tenant_meter::TenantMeter;
use modhost_platform::{CallError, ErrorKind};
use modhost_storage::journal::{Call, CommitHandle, Journal, JournalError, Lease};
pub(crate) use recorded_call::{Begun, InFlight, RecordedCall, Replayed, Requested};
pub use types::{Answer, CallRequest, Lookup};
use types::{LogPosition, json, not_serializable};
pub use usage::UsageMeter;
pub(crate) use usage::refused;

/// The size of a clock reading in the log, in bytes: nanoseconds in decimal.
const READING_BYTES: u64 = 20;

/// The size up to which the answer of a call with a lasting effect is written even if the quota is exhausted, in bytes.
const MAX_UNCHECKED_ANSWER: usize = 16 * 1024;

/// The log of one delivery's calls.
pub struct CallLog {
    delivery: DeliveryId,
    /// The module; set when an attempt starts.
    module: Option<Name>,
    /// The counters of what the tenant uses; set when an attempt starts.
    tenant_meter: Option<Arc<TenantMeter>>,
    /// The journal, and the lease under which the attempt writes to it.
    journal: Option<(Arc<dyn Journal>, Lease)>,
    /// The lease of the host, without which nothing may be changed any more; none: nobody else runs the delivery.
    host_lease: Option<Arc<HostLease>>,
    /// What the unfinished deliveries of the tenant may take in the journal; none: unlimited.
    quota: Option<JournalQuota>,
    dry_run: bool,
    /// Makes the keys of a disabled log unique: it can't tell that an attempt repeats a call.
    nonce: Option<u64>,
    /// The fixed time of the wall clock; none: the system clock.
    clock: Option<SystemTime>,
    usage: Arc<UsageMeter>,
    /// The memory that the host can hold for the attempt, counted by `usage`; unlimited until the attempt starts.
    memory: MemoryBudget,
    state: Mutex<LogState>,
    /// The memory of the tenant's deliveries.
    tenant_memory: MemoryBudget,
    /// Calls that run to completion even if the guest drops them.
    detached: TaskTracker,
}

impl CallLog {
    /// Creates the log of a delivery with the calls of earlier attempts.
    pub fn new(journal: Arc<dyn Journal>, lease: Lease, recorded: Vec<Call>) -> Self {
        let delivery = lease.delivery.clone();
        Self::with(Some((journal, lease)), delivery, recorded, false)
    }

    /// Creates a log that is read and never written, for code that may make other calls than the recorded ones.
    pub fn dry_run(delivery: DeliveryId, recorded: Vec<Call>) -> Self {
        Self::with(None, delivery, recorded, true)
    }

    /// Creates a disabled log: every call is made, and none is recorded.
    pub fn disabled(delivery: DeliveryId) -> Self {
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nonce = u64::try_from(created.as_nanos()).unwrap_or(u64::MAX);
        Self { nonce: Some(nonce), ..Self::with(None, delivery, Vec::new(), false) }
    }

    fn with(
        journal: Option<(Arc<dyn Journal>, Lease)>,
        delivery: DeliveryId,
        recorded: Vec<Call>,
        dry_run: bool,
    ) -> Self {
        let mut state = LogState::default();
        for call in recorded {
            state.load(call);
        }
        Self {
            delivery,
            module: None,
            tenant_meter: None,
            journal,
            host_lease: None,
            quota: None,
            dry_run,
            nonce: None,
            clock: None,
            memory: MemoryBudget::default(),
            usage: Arc::new(UsageMeter::new(Limits::default(), MemoryBudget::default())),
            tenant_memory: MemoryBudget::default(),
            state: Mutex::new(state),
            detached: TaskTracker::new(),
        }
    }

    /// Limits what the unfinished deliveries of the tenant take in the journal.
    #[must_use]
    pub fn with_quota(mut self, quota: JournalQuota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Lets calls with an effect leave only while the host has its lease.
    #[must_use]
    pub fn with_host_lease(mut self, lease: Arc<HostLease>) -> Self {
        self.host_lease = Some(lease);
        self
    }

    /// Fixes the wall clock at this time, so that every run reads the same.
    pub fn with_fixed_clock(mut self, time: SystemTime) -> Self {
        self.clock = Some(time);
        self
    }

    /// Answers those calls of a dry run that are not in the log. `answering` gets the import and the arguments of a
    /// call, and returns the answer in the format of the journal.
    pub fn with_answers(mut self, answering: impl FnMut(Import, &Value) -> Option<Vec<u8>> + Send + 'static) -> Self {
        get_mut(&mut self.state).answering = Some(Box::new(answering));
        self
    }

    /// Counts the memory of the log and of its calls, from the start of the attempt on.
    pub(crate) fn with_memory(mut self, tenant_memory: MemoryBudget) -> Self {
        self.tenant_memory = tenant_memory;
        self
    }

    /// Starts an attempt of a module within limits, and restores the progress of earlier attempts. `spec_of` returns
    /// the declarations of calls. The meter counts the calls that are made.
    #[must_use]
    pub(crate) fn start<P: 'static>(
        mut self,
        module: Name,
        tenant_meter: Arc<TenantMeter>,
        limits: Limits,
        spec_of: impl Fn(Import) -> Option<CallSpec<P>>,
        progress: &mut P,
    ) -> Self {
        self.module = Some(module);
        self.tenant_meter = Some(tenant_meter);
        self.usage = Arc::new(UsageMeter::new(limits, self.tenant_memory.clone()));
        self.memory = MemoryBudget::new(self.usage.clone());
        let state = get_mut(&mut self.state);
        state.held = self.memory.hold();
        // If the recorded calls don't fit, the guest ends at its first turn.
        let _ = state.held.grow(usize::try_from(state.bytes).unwrap_or(usize::MAX));
        let spec_of = |import: &RecordedImport| import.known().and_then(&spec_of);
        for entry in &mut state.to_replay {
            let Some(spec) = spec_of(&entry.import) else { continue };
            entry.keeps_result = spec.keeps_result;
            if let (Some(restore), Some(Answer::Ok(answer))) = (spec.restore, &entry.answer) {
                restore(progress, &json(answer));
            }
        }
        for kept in &state.kept_aside {
            if let Some(restore) = spec_of(&kept.import).and_then(|spec| spec.restore) {
                restore(progress, &kept.answer);
            }
        }
        self
    }

    /// Returns the time of the wall clock, for when the log has no recorded reading.
    pub(crate) fn wall_time(&self) -> SystemTime {
        self.clock.unwrap_or_else(SystemTime::now)
    }

    /// Returns the delivery's id.
    pub fn delivery(&self) -> &DeliveryId {
        &self.delivery
    }

    /// Returns the resource usage of the calls.
    pub fn usage(&self) -> &UsageMeter {
        &self.usage
    }

    /// Returns the memory that the host can hold for the attempt. Exceeding it ends the guest.
    pub(crate) fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// Returns whether this is a dry run: calls that the log doesn't have get invented answers, and nothing may leave
    /// the host.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Returns whether the log is disabled: nothing is written and answers are not kept.
    fn is_disabled(&self) -> bool {
        self.journal.is_none() && !self.dry_run
    }

    /// Disables replay: the log only restores the progress shown to the user. Results that can't be undone are still
    /// reused.
    pub fn disable_replay(&mut self) {
        let state = get_mut(&mut self.state);
        state.readings_to_replay.clear();
        state.replay_disabled = true;
    }

    /// Repeats failed calls instead of replaying their errors: an operator has sent the delivery again, after fixing
    /// the cause.
    pub fn repeat_failed_calls(&mut self) {
        let state = get_mut(&mut self.state);
        for entry in &mut state.to_replay {
            if entry.answer.as_ref().is_some_and(|answer| answer.error().is_some()) {
                entry.answer = Some(Answer::Repeat);
            }
        }
    }

    /// Lets the next attempt repeat the calls that failed with a temporary error, instead of replaying their errors.
    ///
    /// # Errors
    ///
    /// When the journal can't be written.
    pub fn clear_temporary_failures(&self) -> Result<(), CallError> {
        let mut state = self.state();
        for (position, import, arguments) in std::mem::take(&mut state.failed) {
            drop(self.write(&mut state, position, import, &arguments, Some(&Answer::Repeat))?);
        }
        Ok(())
    }

    /// Disables writing, because another attempt now owns the delivery and its log. Calls in flight run to completion,
    /// but no answer is written, and no further call can start.
    pub fn revoke(&self) {
        self.state().revoked = true;
    }

    /// Checks that a change may leave the host now: this attempt still owns the delivery, and the host has its lease.
    ///
    /// # Errors
    ///
    /// When another host may own the delivery.
    pub(crate) fn check_may_leave(&self) -> Result<(), CallError> {
        self.check_lease(&self.state())?;
        match &self.host_lease {
            Some(lease) if !lease.holds() => Err(self.lease_lost()),
            _ => Ok(()),
        }
    }

    /// Waits until the lease of the host has ended, and returns the error of calls in flight.
    async fn host_lease_ended(&self) -> CallError {
        match &self.host_lease {
            Some(lease) => lease.ended().cancelled().await,
            None => std::future::pending().await,
        }
        self.lease_lost()
    }

    fn lease_lost(&self) -> CallError {
        unavailable(JournalError::LeaseLost(self.delivery.clone()))
    }

    /// Waits until every call that outlives its guest has ended.
    pub async fn wait_for_detached_calls(&self) {
        self.detached.close();
        self.detached.wait().await;
    }

    /// Returns a clock reading: the recorded one, or the real one, which is then recorded.
    pub(crate) fn reading(&self, real: impl FnOnce() -> u64) -> u64 {
        let mut state = self.state();
        if let Some(reading) = state.readings_to_replay.pop_front() {
            return reading;
        }
        let reading = real();
        if self.journal.is_some() {
            let bytes = state.bytes + (state.readings.len() + 1) as u64 * READING_BYTES;
            // Reading the time can't fail, so the guest gets no error, but the meter ends it.
            if self.usage.check_journal(bytes).is_ok() {
                state.readings.push(reading);
            }
        }
        reading
    }

    /// Returns whether the next clock reading comes from the log.
    pub(crate) fn replays_clocks(&self) -> bool {
        !self.state().readings_to_replay.is_empty()
    }

    /// Returns the number of calls that were repeated because their outcome was unknown.
    pub fn repeated_calls(&self) -> u32 {
        self.state().repeated_calls
    }

    /// Returns the recorded calls that the guest didn't make, in order: names and arguments.
    pub fn unreplayed(&self) -> Vec<(RecordedImport, Value)> {
        let state = self.state();
        let unreplayed = state.to_replay.iter();
        unreplayed
            .map(|entry| (entry.import.clone(), serde_json::from_slice(&entry.arguments).unwrap_or_default()))
            .collect()
    }

    /// Returns the calls made in a dry run, in order.
    pub fn requested_calls(&self) -> Vec<CallRequest> {
        self.state().requested.clone()
    }

    /// Takes a position for a call. Also returns the answer, if the call doesn't have to be made.
    ///
    /// # Errors
    ///
    /// When the log is full, or another attempt owns the delivery.
    fn reserve<P: 'static>(
        &self,
        spec: &CallSpec<P>,
        arguments: &Arguments,
    ) -> Result<(LogPosition, Option<Answer>), CallError> {
        let (effect, import) = (spec.effect, spec.import);
        let mut state = self.state();
        if self.dry_run {
            return Ok(state.dry_run(effect, import, arguments));
        }
        if !state.replay_disabled
            && let Some(replayed) = state.replay(effect, import, arguments)
        {
            return Ok(replayed);
        }
        if !state.to_replay.is_empty() {
            self.cut(&mut state)?;
        }
        if spec.keeps_result
            && let Some(kept) = state.take_kept(import, arguments)
        {
            let position = state.next_position()?;
            let answer = Answer::Ok(to_raw_value(&kept.answer).map_err(not_serializable)?);
            drop(self.write(&mut state, position, import, arguments.recorded(), Some(&answer))?);
            return Ok((position, Some(answer)));
        }
        Ok((state.next_position()?, None))
    }

    /// Submits the intent of a call to the journal, without waiting.
    fn begin(&self, position: LogPosition, import: Import, arguments: &[u8]) -> Result<CommitHandle, CallError> {
        let mut state = self.state();
        self.write_readings(&mut state)?;
        self.write_checked(&mut state, position, import, arguments, None)
    }

    /// Submits the answer of a call to the journal, without waiting.
    fn end(
        &self,
        position: LogPosition,
        import: Import,
        effect: CallEffect,
        arguments: &[u8],
        answer: &Answer,
    ) -> Result<CommitHandle, CallError> {
        let mut state = self.state();
        // In a dry run, the position of a call is its index in `requested`.
        if self.dry_run
            && let Some(call) = state.requested.get_mut(position.number as usize)
        {
            call.answer = answer.to_json();
        }
        state.remember_failure(position, import, arguments, answer);
        self.write_checked(&mut state, position, import, arguments, Some((answer, effect)))
    }

    /// Adds a replayed call to those that failed and may succeed in the next attempt.
    fn repeat_next_attempt(&self, position: LogPosition, import: Import, arguments: &[u8]) {
        self.state().failed.push((position, import, arguments.to_vec()));
    }

    /// Truncates the log at the first call that the guest didn't repeat. Results that can't be undone are kept aside.
    fn cut(&self, state: &mut LogState) -> Result<(), CallError> {
        let Some(from) = state.to_replay.front().map(|entry| entry.number) else { return Ok(()) };
        for entry in std::mem::take(&mut state.to_replay) {
            if !entry.keeps_result {
                state.held.shrink(entry.bytes());
            }
            if let (true, Some(Answer::Ok(answer))) = (entry.keeps_result, entry.answer) {
                let arguments = serde_json::from_slice(&entry.arguments).unwrap_or_default();
                state.kept_aside.push(KeptCall { import: entry.import, arguments, answer: json(&answer) });
            }
        }
        state.readings_to_replay.clear();
        state.next = from;
        let Some((journal, lease)) = &self.journal else { return Ok(()) };
        self.check_lease(state)?;
        tracing::debug!(delivery = %self.delivery, from, "call log cut: the module made a call that is not the recorded one");
        // Neither write is awaited: the journal commits in order, so later entries are on disk after both.
        drop(journal.forget(lease, from).map_err(unavailable)?);
        if !state.kept_aside.is_empty() {
            let aside = to_raw_value(&state.kept_aside).map_err(not_serializable)?;
            let position = state.next_position()?;
            drop(self.write(state, position, Import::KeptAside, b"null", Some(&Answer::Ok(aside)))?);
        }
        Ok(())
    }

    fn check_lease(&self, state: &LogState) -> Result<(), CallError> {
        if state.revoked { Err(self.lease_lost()) } else { Ok(()) }
    }

    fn write_readings(&self, state: &mut LogState) -> Result<(), CallError> {
        if state.readings.is_empty() {
            return Ok(());
        }
        let readings = to_raw_value(&std::mem::take(&mut state.readings)).map_err(not_serializable)?;
        let position = state.next_position()?;
        drop(self.write(state, position, Import::Clocks, b"null", Some(&Answer::Ok(readings)))?);
        Ok(())
    }

    /// Writes the intent of a call, or its answer, if the quota of the tenant allows it.
    fn write_checked(
        &self,
        state: &mut LogState,
        position: LogPosition,
        import: Import,
        arguments: &[u8],
        answer: Option<(&Answer, CallEffect)>,
    ) -> Result<CommitHandle, CallError> {
        let Some((journal, lease)) = &self.journal else { return Ok(CommitHandle::committed()) };
        let written = answer.map(|(answer, _)| serde_json::to_vec(answer)).transpose().map_err(not_serializable)?;
        let answer_bytes = written.as_ref().map_or(0, Vec::len);
        // The next attempt must know of an effect that has happened: of a step, to close it.
        let must_be_written =
            answer.is_some_and(|(_, effect)| effect.is_lasting()) && answer_bytes <= MAX_UNCHECKED_ANSWER;
        if let (Some(quota), false) = (&self.quota, must_be_written) {
            let checked = quota.check(journal.backlog(&lease.tenant), (arguments.len() + answer_bytes) as u64);
            checked.map_err(|limit| self.usage.reach_limit(limit))?;
        }
        self.write_bytes(state, position, import, arguments, written)
    }

    fn write(
        &self,
        state: &mut LogState,
        position: LogPosition,
        import: Import,
        arguments: &[u8],
        answer: Option<&Answer>,
    ) -> Result<CommitHandle, CallError> {
        if self.journal.is_none() {
            return Ok(CommitHandle::committed());
        }
        let answer = answer.map(serde_json::to_vec).transpose().map_err(not_serializable)?;
        self.write_bytes(state, position, import, arguments, answer)
    }

    fn write_bytes(
        &self,
        state: &mut LogState,
        position: LogPosition,
        import: Import,
        arguments: &[u8],
        answer: Option<Vec<u8>>,
    ) -> Result<CommitHandle, CallError> {
        let Some((journal, lease)) = &self.journal else { return Ok(CommitHandle::committed()) };
        self.check_lease(state)?;
        let answer_bytes = answer.as_ref().map_or(0, Vec::len);
        if import.is_call() {
            self.usage.check_answer(answer_bytes)?;
        }
        let bytes = state.bytes.saturating_add((arguments.len() + answer_bytes) as u64);
        self.usage.check_journal(bytes)?;
        state.bytes = bytes;
        let (import, arguments) = (import.into(), arguments.to_vec());
        let call = Call { number: position.number, import, arguments, answer, at: position.begun };
        journal.write(lease, call).map_err(unavailable)
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        lock(&self.state)
    }
}

fn unavailable(error: JournalError) -> CallError {
    CallError::new(ErrorKind::Unavailable, error.to_string())
}
