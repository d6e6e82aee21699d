//! The errors of calls to a platform.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A failed call to a platform, with the kind of failure for the guest and the platform's message for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallError {
    /// The kind of failure, which determines how a guest can react.
    pub kind: ErrorKind,
    /// The message, including the platform's own. Never contains a credential.
    pub message: String,
    /// The error code of the called interface, if it has more specific codes than the kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Kinds of failure, distinguished by how the caller can react.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The platform rejected the request as invalid. The same request fails again.
    Invalid,
    /// The credentials don't permit the call.
    Denied,
    /// Something that the request names doesn't exist.
    NotFound,
    /// Too many requests. A retry may succeed after this time.
    RateLimited(Option<Duration>),
    /// The platform is unreachable or failed. A retry may succeed.
    Unavailable,
    /// The platform didn't answer in time. The request may have been carried out.
    Timeout,
    /// The platform doesn't support the operation.
    Unsupported,
}

impl ErrorKind {
    /// Returns the name of the kind in metrics.
    pub fn as_str(&self) -> &'static str {
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
    /// Creates an error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None }
    }

    /// Returns whether the same call can succeed later.
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
