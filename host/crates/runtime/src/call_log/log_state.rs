//! The state of a log: the entries left to replay, and the calls made so far.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::arguments::Arguments;
use super::call_spec::CallEffect;
use super::types::{Answer, CallRequest, LogPosition, Lookup, json};
use modhost_core::import::{Import, RecordedImport};
use modhost_core::memory_budget::{HeldMemory, MemoryBudget};
use modhost_platform::{CallError, ErrorKind};
use modhost_storage::journal::Call;

/// Maximum number of entries in the log of a delivery.
const MAX_ENTRIES: u32 = 20_000;

pub(super) struct LogState {
    /// The calls left to replay, in order.
    pub(super) to_replay: VecDeque<Entry>,
    /// The clock readings left to replay, in order.
    pub(super) readings_to_replay: VecDeque<u64>,
    /// The results kept aside from truncated calls.
    pub(super) kept_aside: Vec<KeptCall>,
    /// Whether replay is disabled.
    pub(super) replay_disabled: bool,
    /// The number of the next entry.
    pub(super) next: u32,
    /// Clock readings not written yet.
    pub(super) readings: Vec<u64>,
    /// The size of the log in bytes.
    pub(super) bytes: u64,
    /// The memory of the calls left to replay and of the results kept aside.
    pub(super) held: HeldMemory,
    /// The number of calls that were in flight when the previous attempt ended and are repeated.
    pub(super) repeated_calls: u32,
    /// The calls of this attempt that failed with a temporary error.
    pub(super) failed: Vec<(LogPosition, Import, Vec<u8>)>,
    /// The calls made in a dry run, in order.
    pub(super) requested: Vec<CallRequest>,
    /// Answers calls of a dry run that are not in the log.
    pub(super) answering: Option<Answering>,
    /// Whether another attempt now owns the delivery.
    pub(super) revoked: bool,
}

/// Returns the answer to a call of a dry run by its import and arguments, in the format of the journal.
pub(super) type Answering = Box<dyn FnMut(Import, &Value) -> Option<Vec<u8>> + Send>;

/// A recorded call.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) at: SystemTime,
    pub(super) import: RecordedImport,
    pub(super) arguments: Vec<u8>,
    pub(super) answer: Option<Answer>,
    /// Whether its result is kept aside when the log is truncated.
    pub(super) keeps_result: bool,
}

/// The result of a call whose effect can't be undone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeptCall {
    pub(super) import: RecordedImport,
    pub(super) arguments: Value,
    pub(super) answer: Value,
}

impl Default for LogState {
    fn default() -> Self {
        Self {
            to_replay: VecDeque::new(),
            readings_to_replay: VecDeque::new(),
            kept_aside: Vec::new(),
            replay_disabled: false,
            next: 0,
            readings: Vec::new(),
            bytes: 0,
            held: MemoryBudget::default().hold(),
            repeated_calls: 0,
            failed: Vec::new(),
            requested: Vec::new(),
            answering: None,
            revoked: false,
        }
    }
}

impl Entry {
    /// Returns its size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.arguments.len() + self.answer.as_ref().map_or(0, Answer::bytes)
    }
}

impl LogState {
    pub(super) fn load(&mut self, call: Call) {
        self.next = call.number + 1;
        let size = call.arguments.len() + call.answer.as_ref().map_or(0, Vec::len);
        self.bytes = self.bytes.saturating_add(size as u64);
        // An answer that this version can't parse counts as missing: the call is repeated.
        let answer = call.answer.and_then(|answer| serde_json::from_slice::<Answer>(&answer).ok());
        match (call.import.known(), &answer) {
            (Some(Import::Clocks), Some(Answer::Ok(readings))) => {
                self.readings_to_replay.extend(serde_json::from_str::<Vec<u64>>(readings.get()).unwrap_or_default());
            }
            (Some(Import::KeptAside), Some(Answer::Ok(kept))) => {
                self.kept_aside = serde_json::from_str(kept.get()).unwrap_or_default();
            }
            (Some(Import::Clocks | Import::KeptAside), _) => {}
            _ => {
                self.remove_kept(&call.import, answer.as_ref());
                let Call { number, import, arguments, at, .. } = call;
                self.to_replay.push_back(Entry { number, at, import, arguments, answer, keeps_result: false });
            }
        }
    }

    /// Removes a kept result that the guest has since requested: it has an entry of its own.
    fn remove_kept(&mut self, import: &RecordedImport, answer: Option<&Answer>) {
        let Some(Answer::Ok(answer)) = answer else { return };
        if self.kept_aside.is_empty() {
            return;
        }
        let answer = json(answer);
        if let Some(index) = self.kept_aside.iter().position(|kept| kept.import == *import && kept.answer == answer) {
            self.kept_aside.remove(index);
        }
    }

    /// Returns the position of the next recorded call if it matches, and its answer unless the call has to be made.
    pub(super) fn replay(
        &mut self,
        effect: CallEffect,
        import: Import,
        arguments: &Arguments,
    ) -> Option<(LogPosition, Option<Answer>)> {
        let is_same = |entry: &mut Entry| entry.import == import && arguments.is_recorded_as(&entry.arguments);
        let entry = self.to_replay.pop_front_if(is_same)?;
        self.held.shrink(entry.bytes());
        let position = LogPosition { number: entry.number, begun: entry.at };
        match entry.answer {
            Some(Answer::Repeat) => Some((position, None)),
            Some(answer) => {
                self.remember_failure(position, import, arguments.recorded(), &answer);
                Some((position, Some(answer)))
            }
            None => {
                // Repeating a read costs nothing, so it isn't counted.
                self.repeated_calls += u32::from(effect.needs_durable_intent());
                Some((position, None))
            }
        }
    }

    pub(super) fn remember_failure(
        &mut self,
        position: LogPosition,
        import: Import,
        arguments: &[u8],
        answer: &Answer,
    ) {
        if answer.error().is_some_and(CallError::is_temporary) {
            self.failed.push((position, import, arguments.to_vec()));
        }
    }

    /// Answers a call of a dry run from the log: from the same call, otherwise from the next call of the same function.
    pub(super) fn dry_run(
        &mut self,
        effect: CallEffect,
        import: Import,
        arguments: &Arguments,
    ) -> (LogPosition, Option<Answer>) {
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let is_answer = |answer: &Answer| !matches!(answer, Answer::Repeat);
        let answered = |entry: &Entry| entry.import == import && entry.answer.as_ref().is_some_and(is_answer);
        // Compared as JSON values: the admin API may order the fields of a call differently.
        let requested = json(arguments.json());
        let same = self.to_replay.iter().position(|entry| answered(entry) && arguments.equal(&json(&entry.arguments)));
        let recorded =
            same.or_else(|| self.to_replay.iter().position(answered)).and_then(|index| self.to_replay.remove(index));
        let supplied = match (&recorded, &mut self.answering) {
            (None, Some(answer)) => answer(import, &requested),
            _ => None,
        };
        let known = match &recorded {
            None if supplied.is_some() => Lookup::Same,
            Some(_) if same.is_some() => Lookup::Same,
            Some(entry) => Lookup::Changed(json(&entry.arguments)),
            None => Lookup::Added,
        };
        let supplied = supplied.and_then(|answer| serde_json::from_slice(&answer).ok());
        let answer = recorded.and_then(|entry| entry.answer).or(supplied);
        let position = LogPosition::new(u32::try_from(self.requested.len()).unwrap_or(u32::MAX));
        self.requested.push(CallRequest {
            import,
            arguments: requested,
            lasting: effect.is_lasting(),
            known,
            answer: answer.as_ref().and_then(Answer::to_json),
        });
        (position, answer)
    }

    /// Takes the result kept aside for the same call.
    pub(super) fn take_kept(&mut self, import: Import, arguments: &Arguments) -> Option<KeptCall> {
        if self.kept_aside.is_empty() {
            return None;
        }
        let is_same = |kept: &KeptCall| kept.import == import && arguments.equal(&kept.arguments);
        let index = self.kept_aside.iter().position(is_same)?;
        Some(self.kept_aside.remove(index))
    }

    /// Takes the next position.
    ///
    /// # Errors
    ///
    /// When the log has [`MAX_ENTRIES`] entries.
    pub(super) fn next_position(&mut self) -> Result<LogPosition, CallError> {
        if self.next >= MAX_ENTRIES {
            return Err(CallError::new(ErrorKind::Invalid, format!("more than {MAX_ENTRIES} calls in one delivery")));
        }
        self.next += 1;
        Ok(LogPosition::new(self.next - 1))
    }
}
