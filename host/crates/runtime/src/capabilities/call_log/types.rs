//! What a record is made of: answers, the places of calls, and what a dry run finds out about each.

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use modhost_platform::{CallError, ErrorKind};

/// A recorded answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was answered, as it stands in the journal: nothing is taken apart before somebody asks for it.
    Ok(Box<RawValue>),
    /// How it failed.
    Error(CallError),
    /// How it failed when a part of it had come.
    BrokenOff {
        /// What had come.
        part: Box<RawValue>,
        /// How it failed.
        error: CallError,
    },
    /// It failed, and is to be made again.
    Again,
}

/// A call a guest asked for in a dry run.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRequest {
    /// What was called.
    pub import: String,
    /// Its arguments.
    pub arguments: Value,
    /// Whether it costs money or changes something.
    pub lasting: bool,
    /// What the record has of it.
    pub known: Lookup,
    /// Its answer, if it has one.
    pub answer: Option<Result<Value, CallError>>,
}

/// What the record has of a call that was asked for in a dry run.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// The same call, and so its answer.
    Same,
    /// The same function with these arguments: its answer then is its answer now.
    Changed(Value),
    /// Nothing: what it would make is made up, what it would read isn't there.
    Added,
}

/// What becomes of a call.
pub(in crate::capabilities) enum Turn {
    /// It was made before: this is its answer.
    Replayed(Place, Answer),
    /// It is to be made now.
    Live(Place),
}

/// The place of a live call in the record.
#[derive(Clone, Copy, Debug)]
pub(in crate::capabilities) struct Place {
    /// Its number.
    pub(in crate::capabilities) number: u32,
    /// When the call was first begun, in whole milliseconds: by an earlier attempt, if it has no answer from there.
    pub(in crate::capabilities) begun: SystemTime,
}

impl Place {
    /// A place for a call that begins now.
    pub(super) fn new(number: u32) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or_default();
        Self { number, begun: SystemTime::UNIX_EPOCH + Duration::from_millis(millis) }
    }
}

impl Answer {
    pub(super) fn of<T: Serialize>(answer: &Result<T, CallError>) -> Result<Self, CallError> {
        match answer {
            Ok(value) => Self::ok(value),
            Err(error) => Ok(Self::Error(error.clone())),
        }
    }

    /// What it says; none if the call is to be made again.
    pub(super) fn taken_apart(self) -> Option<Result<Value, CallError>> {
        match self {
            Self::Ok(answer) => Some(Ok(value(&answer))),
            Self::Error(error) | Self::BrokenOff { error, .. } => Some(Err(error)),
            Self::Again => None,
        }
    }

    /// What was answered.
    pub(in crate::capabilities) fn ok<T: Serialize>(value: &T) -> Result<Self, CallError> {
        to_raw_value(value).map(Self::Ok).map_err(unwritable)
    }

    /// How it failed when this part of it had come.
    pub(in crate::capabilities) fn broken_off<T: Serialize>(part: &T, error: CallError) -> Result<Self, CallError> {
        Ok(Self::BrokenOff { part: to_raw_value(part).map_err(unwritable)?, error })
    }

    /// How it failed, if it did.
    pub(in crate::capabilities) fn error(&self) -> Option<&CallError> {
        match self {
            Self::Error(error) | Self::BrokenOff { error, .. } => Some(error),
            Self::Ok(_) | Self::Again => None,
        }
    }

    pub(in crate::capabilities) fn into_result<T: DeserializeOwned>(self) -> Result<T, CallError> {
        match self {
            Self::Ok(answer) => serde_json::from_str(answer.get()).map_err(unwritable),
            Self::Error(error) | Self::BrokenOff { error, .. } => Err(error),
            Self::Again => Err(CallError::new(ErrorKind::Unavailable, "it is to be made again")),
        }
    }
}

/// What stands in the journal, taken apart. It was written by this program, and so can be read.
pub(super) fn value(answer: &RawValue) -> Value {
    serde_json::from_str(answer.get()).unwrap_or_default()
}

pub(super) fn unwritable(error: serde_json::Error) -> CallError {
    CallError::new(ErrorKind::Unavailable, format!("an answer can't be put into the journal: {error}"))
}
