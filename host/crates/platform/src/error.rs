//! What can go wrong with a call to a platform.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A call to a platform that failed: what kind of failure, for the guest; the platform's own words, for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallError {
    /// What a guest can do about it.
    pub kind: ErrorKind,
    /// What happened, with the platform's own message. Never holds a credential.
    pub message: String,
    /// The name the interface that was called has for it, where it has finer ones than the kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Kinds of failure, told apart by what can be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The platform can't make sense of the request; the same one fails again.
    Invalid,
    /// The credentials don't allow it.
    Denied,
    /// What the request names isn't there.
    NotFound,
    /// Too many requests; worth another try after this time.
    RateLimited(Option<Duration>),
    /// The platform is out of order or out of reach; worth another try.
    Unavailable,
    /// The platform didn't answer in time; what was asked may have happened.
    Timeout,
    /// The platform has no such call.
    Unsupported,
}

impl ErrorKind {
    /// The word for it, as metrics have it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::RateLimited(_) => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
        }
    }
}

impl CallError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None }
    }

    /// Whether the same call can succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, ErrorKind::RateLimited(_) | ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ErrorKind::Invalid => "invalid",
            ErrorKind::Denied => "denied",
            ErrorKind::NotFound => "not found",
            ErrorKind::RateLimited(_) => "rate limited",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Unsupported => "unsupported",
        };
        write!(f, "{kind}: {}", self.message)
    }
}

impl std::error::Error for CallError {}
