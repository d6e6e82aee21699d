//! Where a record stands: what is still to be replayed, and what was asked for so far.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::types::{Answer, CallRequest, Lookup, Place, Turn, value};
use crate::capabilities::delivery::CallEffect;
use modhost_platform::{CallError, ErrorKind};
use modhost_storage::journal::Call;

/// What is recorded under this name is no call: readings of the clocks.
pub(super) const CLOCK: &str = "wasi:clocks";

/// What is recorded under this name is no call: what an earlier attempt made and this one hasn't asked for yet.
pub(super) const KEPT_ASIDE: &str = "modhost:kept-aside";

/// How many entries a delivery's record may have.
const MAX_ENTRIES: u32 = 20_000;

pub(super) struct State {
    /// What is still to be replayed, in order.
    pub(super) ahead: VecDeque<Entry>,
    /// Clock readings that are still to be replayed, in order.
    pub(super) readings_ahead: VecDeque<u64>,
    /// What was made by calls that are not replayed.
    pub(super) kept_aside: Vec<Made>,
    /// Whether nothing is replayed.
    pub(super) afresh: bool,
    /// The number of the next entry.
    pub(super) next: u32,
    /// Clock readings not written yet.
    pub(super) readings: Vec<u64>,
    /// How much is on record, in bytes.
    pub(super) bytes: u64,
    /// Calls that were in flight when the attempt before was cut off, and are made again.
    pub(super) again: u32,
    /// The calls of this attempt that failed and may succeed another time.
    pub(super) failed: Vec<(Place, String, Vec<u8>)>,
    /// Every call that was asked for, in a dry run.
    pub(super) asked: Vec<CallRequest>,
    /// Who answers what the record doesn't, in a dry run.
    pub(super) answering: Option<Answering>,
    /// Whether the delivery is another attempt's by now.
    pub(super) revoked: bool,
}

/// Who answers calls of a dry run that have no record, by their names and arguments: with an answer in the record's form.
pub(super) type Answering = Box<dyn FnMut(&str, &Value) -> Option<Vec<u8>> + Send>;

/// A recorded call.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) at: SystemTime,
    pub(super) import: String,
    pub(super) arguments: Vec<u8>,
    pub(super) answer: Option<Answer>,
}

/// Something that was made and can't be unmade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) import: String,
    pub(super) arguments: Value,
    pub(super) answer: Value,
}

impl State {
    pub(super) fn load(&mut self, call: Call) {
        self.next = call.number + 1;
        let size = call.arguments.len() + call.answer.as_ref().map_or(0, Vec::len);
        self.bytes = self.bytes.saturating_add(size as u64);
        // An answer in a form this version can't read is as good as none: the call is made again.
        let answer = call.answer.and_then(|answer| serde_json::from_slice::<Answer>(&answer).ok());
        match (call.import.as_str(), &answer) {
            (CLOCK, Some(Answer::Ok(readings))) => {
                self.readings_ahead.extend(serde_json::from_str::<Vec<u64>>(readings.get()).unwrap_or_default());
            }
            (KEPT_ASIDE, Some(Answer::Ok(made))) => {
                self.kept_aside = serde_json::from_str(made.get()).unwrap_or_default();
            }
            (CLOCK | KEPT_ASIDE, _) => {}
            _ => {
                self.asked_for_since(&call.import, answer.as_ref());
                let Call { number, import, arguments, at, .. } = call;
                self.ahead.push_back(Entry { number, at, import, arguments, answer });
            }
        }
    }

    /// What was kept aside and then asked for again is no longer aside: it stands in the record itself.
    fn asked_for_since(&mut self, import: &str, answer: Option<&Answer>) {
        let Some(Answer::Ok(answer)) = answer else { return };
        if self.kept_aside.is_empty() {
            return;
        }
        let answer = value(answer);
        if let Some(index) = self.kept_aside.iter().position(|made| made.import == import && made.answer == answer) {
            self.kept_aside.remove(index);
        }
    }

    /// The next recorded call, if it is this one.
    pub(super) fn replay(&mut self, effect: CallEffect, import: &str, arguments: &[u8]) -> Option<Turn> {
        let entry = self.ahead.pop_front_if(|entry| entry.import == import && entry.arguments == arguments)?;
        let place = Place { number: entry.number, begun: entry.at };
        match entry.answer {
            Some(Answer::Again) => Some(Turn::Live(place)),
            Some(answer) => {
                self.remember_failure(place, import, arguments, &answer);
                Some(Turn::Replayed(place, answer))
            }
            None => {
                // One that only reads is made again at no cost.
                self.again += u32::from(effect != CallEffect::Read);
                Some(Turn::Live(place))
            }
        }
    }

    pub(super) fn remember_failure(&mut self, place: Place, import: &str, arguments: &[u8], answer: &Answer) {
        if answer.error().is_some_and(CallError::is_temporary) {
            self.failed.push((place, import.to_owned(), arguments.to_vec()));
        }
    }

    /// Answers a call from whatever is recorded: the same call, else the next one of the same function.
    pub(super) fn dry_run(&mut self, effect: CallEffect, import: &str, arguments: &[u8]) -> Turn {
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let is_answer = |answer: &Answer| !matches!(answer, Answer::Again);
        let answered = |entry: &Entry| entry.import == import && entry.answer.as_ref().is_some_and(is_answer);
        // Compared as JSON: what was looked up through the admin API has its fields in another order.
        let wanted = json(arguments);
        let same = self.ahead.iter().position(|entry| answered(entry) && json(&entry.arguments) == wanted);
        let found = same.or_else(|| self.ahead.iter().position(answered)).and_then(|index| self.ahead.remove(index));
        let given = match (&found, &mut self.answering) {
            (None, Some(answer)) => answer(import, &wanted),
            _ => None,
        };
        let known = match &found {
            None if given.is_some() => Lookup::Same,
            Some(_) if same.is_some() => Lookup::Same,
            Some(entry) => Lookup::Changed(json(&entry.arguments)),
            None => Lookup::Added,
        };
        let given = given.and_then(|answer| serde_json::from_slice(&answer).ok());
        let answer = found.and_then(|entry| entry.answer).or(given);
        let place = Place::new(u32::try_from(self.asked.len()).unwrap_or(u32::MAX));
        self.asked.push(CallRequest {
            import: import.to_owned(),
            arguments: wanted,
            lasting: effect != CallEffect::Read,
            known,
            answer: answer.clone().and_then(Answer::taken_apart),
        });
        answer.map_or(Turn::Live(place), |answer| Turn::Replayed(place, answer))
    }

    pub(super) fn take_made(&mut self, import: &str, arguments: &[u8]) -> Option<Made> {
        if self.kept_aside.is_empty() {
            return None;
        }
        let arguments: Value = serde_json::from_slice(arguments).ok()?;
        let index = self.kept_aside.iter().position(|made| made.import == import && made.arguments == arguments)?;
        Some(self.kept_aside.remove(index))
    }

    pub(super) fn place(&mut self) -> Result<Place, CallError> {
        if self.next >= MAX_ENTRIES {
            return Err(CallError::new(ErrorKind::Invalid, format!("more than {MAX_ENTRIES} calls in one delivery")));
        }
        self.next += 1;
        Ok(Place::new(self.next - 1))
    }
}
