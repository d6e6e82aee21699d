//! Why a call to the host failed.

use std::fmt;
use std::time::Duration;

use crate::Retry;
use crate::bindings::modhost::module::types as wit;

/// Why a call to the host failed: which call, and what can be done about it.
///
/// Mostly it is handed on with `?` (see [`Failure`](crate::Failure)); where a module can do better, it looks at the
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

/// What went wrong with a call, told apart by what can be done about it. The texts are for logs, not for users.
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
    /// The platform can't make sense of the request, or the host refuses it: the same call fails again.
    Invalid(String),
    /// Not allowed for the user, or for this module.
    Denied(String),
    /// What the call names isn't there.
    NotFound(String),
    /// Too many calls. Worth another try after this long, where the platform says how long.
    RateLimited(Option<Duration>),
    /// The platform is out of order or out of reach: worth another try.
    Unavailable(String),
    /// No answer in time. What was asked for may have happened all the same.
    Timeout,
    /// The platform of this event has no such function, or the event lacks what it needs (a chat, a reply).
    Unsupported(String),
    /// A setting is there but isn't what the module wants to read; see [`config::parse`](crate::config::parse).
    Misconfigured(String),
}

impl Error {
    /// An error as a call would return it, for tests of what your module does then.
    ///
    /// ```
    /// use modhost_sdk::{Error, ErrorKind};
    ///
    /// let error = Error::new("search.search", ErrorKind::Timeout);
    /// assert_eq!(
    ///     error.to_string(),
    ///     "search.search: no answer in time; what was asked for may have happened all the same"
    /// );
    /// ```
    pub fn new(call: &'static str, kind: ErrorKind) -> Self {
        Self { call, kind }
    }

    /// The call that failed, by its name in the contract: `messages.reply`.
    ///
    /// ```
    /// # use modhost_sdk::{Error, ErrorKind};
    /// assert_eq!(Error::new("messages.reply", ErrorKind::Timeout).call(), "messages.reply");
    /// ```
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// What went wrong.
    ///
    /// ```
    /// # use modhost_sdk::{Error, ErrorKind};
    /// assert_eq!(Error::new("messages.reply", ErrorKind::Timeout).kind(), &ErrorKind::Timeout);
    /// ```
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Whether another try is worth it, and when: at the time the platform names, or else at the host's choice.
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

    /// Turns the contract's error into one that names the call, for `map_err`.
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
            Self::Invalid(text) => write!(f, "refused as invalid: {text}"),
            Self::Denied(text) => write!(f, "not allowed: {text}"),
            Self::NotFound(text) => write!(f, "not found: {text}"),
            Self::RateLimited(None) => f.write_str("too many calls"),
            Self::RateLimited(Some(wait)) => write!(f, "too many calls; free again in {} s", wait.as_secs()),
            Self::Unavailable(text) => write!(f, "unavailable: {text}"),
            Self::Timeout => f.write_str("no answer in time; what was asked for may have happened all the same"),
            Self::Unsupported(text) => write!(f, "not supported here: {text}"),
            Self::Misconfigured(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}
