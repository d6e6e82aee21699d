//! Recorded answers, positions in a log, and the calls of a dry run.

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use modhost_core::import::Import;
use modhost_platform::{CallError, ErrorKind};

/// A recorded answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The call succeeded. The value is the JSON from the journal, parsed only when it is needed.
    Ok(Box<RawValue>),
    /// The call failed.
    Error(CallError),
    /// The call failed after a part of its answer had arrived.
    #[serde(rename = "broken_off")]
    Interrupted {
        /// The part that arrived.
        part: Box<RawValue>,
        /// The error.
        error: CallError,
    },
    /// The call failed, and the next attempt repeats it.
    #[serde(rename = "again")]
    Repeat,
}

/// A call that a guest made in a dry run.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRequest {
    /// The import.
    pub import: Import,
    /// Its arguments.
    pub arguments: Value,
    /// Whether it costs money or changes something.
    pub lasting: bool,
    /// How the log answered it.
    pub known: Lookup,
    /// Its answer, if it has one.
    pub answer: Option<Result<Value, CallError>>,
}

/// The result of looking up a call of a dry run in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// The log has the same call, or the answers supplied to the dry run include it.
    Same,
    /// The log has a call of the same function with these arguments; its recorded answer is used.
    Changed(Value),
    /// The log has no such call: a change gets an invented answer, a read gets an error.
    Added,
}

/// The position of a call in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogPosition {
    /// Its number.
    pub(super) number: u32,
    /// When the call was first started, in whole milliseconds: by an earlier attempt, if that one left it unanswered.
    pub(super) begun: SystemTime,
}

impl LogPosition {
    /// Creates the position of a call that starts now.
    pub(super) fn new(number: u32) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or_default();
        Self { number, begun: SystemTime::UNIX_EPOCH + Duration::from_millis(millis) }
    }
}

impl Answer {
    /// Creates a success with this value.
    pub(crate) fn ok<T: Serialize>(value: &T) -> Result<Self, CallError> {
        to_raw_value(value).map(Self::Ok).map_err(not_serializable)
    }

    /// Creates a failure after this part of the answer had arrived.
    pub(crate) fn interrupted<T: Serialize>(part: &T, error: CallError) -> Result<Self, CallError> {
        Ok(Self::Interrupted { part: to_raw_value(part).map_err(not_serializable)?, error })
    }

    pub(super) fn of<T: Serialize>(answer: &Result<T, CallError>) -> Result<Self, CallError> {
        match answer {
            Ok(value) => Self::ok(value),
            Err(error) => Ok(Self::Error(error.clone())),
        }
    }

    /// Returns its size in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Ok(answer) => answer.get().len(),
            Self::Error(error) => error.message.len(),
            Self::Interrupted { part, error } => part.get().len() + error.message.len(),
            Self::Repeat => 0,
        }
    }

    /// Returns the error, if the call failed.
    pub(crate) fn error(&self) -> Option<&CallError> {
        match self {
            Self::Error(error) | Self::Interrupted { error, .. } => Some(error),
            Self::Ok(_) | Self::Repeat => None,
        }
    }

    /// Parses the value.
    ///
    /// # Errors
    ///
    /// When the call failed.
    pub(crate) fn to_result<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        match self {
            Self::Ok(answer) => parse(answer),
            Self::Error(error) | Self::Interrupted { error, .. } => Err(error.clone()),
            Self::Repeat => Err(CallError::new(ErrorKind::Unavailable, "the call has to be made again")),
        }
    }

    /// Parses the part of the answer that arrived before the call failed; none unless the answer was interrupted.
    pub(crate) fn part<T: DeserializeOwned>(&self) -> Result<Option<T>, CallError> {
        if let Self::Interrupted { part, .. } = self { parse(part).map(Some) } else { Ok(None) }
    }

    /// Returns the answer as JSON; none if the call has to be repeated.
    pub(super) fn to_json(&self) -> Option<Result<Value, CallError>> {
        match self {
            Self::Ok(answer) => Some(Ok(json(answer))),
            Self::Error(error) | Self::Interrupted { error, .. } => Some(Err(error.clone())),
            Self::Repeat => None,
        }
    }
}

/// Parses a value from the journal. This program wrote it, so it is valid JSON.
pub(super) fn json(answer: &RawValue) -> Value {
    serde_json::from_str(answer.get()).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(value: &RawValue) -> Result<T, CallError> {
    serde_json::from_str(value.get()).map_err(not_serializable)
}

pub(super) fn not_serializable(error: serde_json::Error) -> CallError {
    CallError::new(ErrorKind::Unavailable, format!("can't read or write an answer as JSON: {error}"))
}
