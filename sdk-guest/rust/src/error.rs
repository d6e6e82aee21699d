//! Errors of calls to the host.

use std::fmt;
use std::time::Duration;

use crate::Retry;
use crate::bindings::modhost::module::types as wit;

/// The error of a call to the host: the name of the call and the kind of error.
///
/// Modules usually return it with `?` (see [`Failure`](crate::Failure)). A module that can recover checks the
/// [`kind`](Error::kind):
///
/// ```no_run
/// use modhost_sdk::prelude::*;
/// use modhost_sdk::ErrorKind;
///
/// fn hits(question: &str) -> Result<Vec<Hit>> {
///     match Search::new(question).run() {
///         Err(error) if matches!(error.kind(), ErrorKind::Denied(_)) => Ok(vec![]),
///         searched => Ok(searched?),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    call: &'static str,
    kind: ErrorKind,
}

/// The kind of an error, by the action the module can take. The texts are for logs, not for users.
///
/// ```
/// use modhost_sdk::ErrorKind;
///
/// fn advice(kind: &ErrorKind) -> &'static str {
///     match kind {
///         ErrorKind::RateLimited(_) | ErrorKind::Unavailable(_) | ErrorKind::Timeout => "try again later",
///         ErrorKind::Denied(_) => "ask for access",
///         _ => "report it",
///     }
/// }
/// # assert_eq!(advice(&ErrorKind::Timeout), "try again later");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The platform or the host rejects the request: the same call would fail again.
    Invalid(String),
    /// The user or this module isn't allowed to make the call.
    Denied(String),
    /// The object the call refers to doesn't exist.
    NotFound(String),
    /// Too many calls. Retry after this delay, if the platform reports one.
    RateLimited(Option<Duration>),
    /// The platform is down or unreachable: a retry may succeed.
    Unavailable(String),
    /// No answer in time. The call may still have taken effect.
    Timeout,
    /// The event's platform has no such function, or the event lacks something it needs (a chat, a reply).
    Unsupported(String),
    /// A setting doesn't fit the type that the module expects; see [`config::parse`](crate::config::parse).
    Misconfigured(String),
}

impl Error {
    /// Creates an error as a call would return it, for tests of your error handling.
    ///
    /// ```
    /// use modhost_sdk::{Error, ErrorKind};
    ///
    /// let error = Error::new("search.search", ErrorKind::Timeout);
    /// assert_eq!(
    ///     error.to_string(),
    ///     "search.search: timed out; the call may still have taken effect"
    /// );
    /// ```
    pub fn new(call: &'static str, kind: ErrorKind) -> Self {
        Self { call, kind }
    }

    /// Returns the call that failed, by its name in the contract, such as `messages.reply`.
    ///
    /// ```
    /// # use modhost_sdk::{Error, ErrorKind};
    /// assert_eq!(Error::new("messages.reply", ErrorKind::Timeout).call(), "messages.reply");
    /// ```
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// Returns the kind of error.
    ///
    /// ```
    /// # use modhost_sdk::{Error, ErrorKind};
    /// assert_eq!(Error::new("messages.reply", ErrorKind::Timeout).kind(), &ErrorKind::Timeout);
    /// ```
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Returns whether a retry may succeed, and when: after the delay the platform reports, otherwise when the host
    /// decides.
    ///
    /// ```
    /// use std::time::Duration;
    /// use modhost_sdk::{Error, ErrorKind, Retry};
    ///
    /// let busy = Error::new("search.search", ErrorKind::RateLimited(Some(Duration::from_secs(30))));
    /// assert_eq!(busy.retry(), Retry::After(Duration::from_secs(30)));
    ///
    /// let slow = Error::new("search.search", ErrorKind::Timeout);
    /// assert_eq!(slow.retry(), Retry::Yes);
    ///
    /// let denied = Error::new("search.search", ErrorKind::Denied("no access to the scope".into()));
    /// assert_eq!(denied.retry(), Retry::No);
    /// ```
    pub fn retry(&self) -> Retry {
        match &self.kind {
            ErrorKind::RateLimited(Some(wait)) => Retry::After(*wait),
            ErrorKind::RateLimited(None) | ErrorKind::Unavailable(_) | ErrorKind::Timeout => Retry::Yes,
            ErrorKind::Invalid(_)
            | ErrorKind::Denied(_)
            | ErrorKind::NotFound(_)
            | ErrorKind::Unsupported(_)
            | ErrorKind::Misconfigured(_) => Retry::No,
        }
    }

    /// Converts the contract's error into one that names the call, for `map_err`.
    pub(crate) fn of(call: &'static str) -> impl Fn(wit::Error) -> Error {
        move |error| Self::new(call, error.into())
    }
}

impl From<wit::Error> for ErrorKind {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::Invalid(text) => Self::Invalid(text),
            wit::Error::Denied(text) => Self::Denied(text),
            wit::Error::NotFound(text) => Self::NotFound(text),
            wit::Error::RateLimited(seconds) => Self::RateLimited(seconds.map(|s| Duration::from_secs(s.into()))),
            wit::Error::Unavailable(text) => Self::Unavailable(text),
            wit::Error::Timeout => Self::Timeout,
            wit::Error::Unsupported(text) => Self::Unsupported(text),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => write!(f, "invalid: {text}"),
            Self::Denied(text) => write!(f, "not allowed: {text}"),
            Self::NotFound(text) => write!(f, "not found: {text}"),
            Self::RateLimited(None) => f.write_str("rate limited"),
            Self::RateLimited(Some(wait)) => write!(f, "rate limited; retry after {} s", wait.as_secs()),
            Self::Unavailable(text) => write!(f, "unavailable: {text}"),
            Self::Timeout => f.write_str("timed out; the call may still have taken effect"),
            Self::Unsupported(text) => write!(f, "not supported: {text}"),
            Self::Misconfigured(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}
