//! Failures: the error type of a module's function.

use std::error::Error as StdError;
use std::fmt;
use std::iter;
use std::time::Duration;

use crate::bindings::{self, modhost::module::events as wit};
use crate::error::Error;

/// The result of a module's function: `Ok`, or the [`Failure`] of the delivery.
///
/// ```
/// use modhost_sdk::Result;
///
/// fn year(text: &str) -> Result<u16> {
///     Ok(text.trim().parse()?)
/// }
/// # assert_eq!(year(" 2026").unwrap(), 2026);
/// ```
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why the module couldn't handle an event: a reason for operators, a text for the user, and whether to retry.
///
/// `?` converts any error into a failure. If a failed call caused the error, the failure takes over [whether a retry
/// may succeed](Error::retry): the host retries the delivery if the platform was busy, unreachable or too slow, and
/// doesn't retry after any other error.
///
/// ```
/// use modhost_sdk::prelude::*;
///
/// fn seats(text: &str) -> Result<u8> {
///     let seats = text.parse()?;
///     if seats > 8 {
///         return Err(Failure::new(format!("asked for {seats} seats")).user_text("We have eight seats at most."));
///     }
///     Ok(seats)
/// }
///
/// assert_eq!(seats("many").unwrap_err().reason, "invalid digit found in string");
/// ```
///
/// Like `anyhow::Error`, it doesn't implement [`std::error::Error`], because then `?` couldn't convert every error.
#[derive(Clone, PartialEq)]
#[must_use]
pub struct Failure {
    /// For operators: written to the log with the delivery, never shown to the user.
    pub reason: String,
    /// For the user, in place of the host's default apology, in Markdown.
    pub user_text: Option<String>,
    /// Whether a retry may succeed, and when.
    pub retry: Retry,
}

/// Whether a retry of the event may succeed, and when. The host limits the number of attempts.
///
/// ```
/// use modhost_sdk::{Failure, Retry};
///
/// let failure = Failure { retry: Retry::Yes, ..Failure::new("the calendar is locked") };
/// # assert_eq!(failure, Failure::new("the calendar is locked").retry());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// A retry would fail the same way: give up now.
    #[default]
    No,
    /// A retry may succeed, on the module's retry schedule in `modules.toml`.
    Yes,
    /// A retry may succeed, but not before this delay, rounded up to whole seconds.
    After(Duration),
}

impl Failure {
    /// Creates a failure with this reason and without a retry.
    ///
    /// ```
    /// # use modhost_sdk::Failure;
    /// let failure = Failure::new("the calendar has no such day");
    /// assert_eq!(failure.to_string(), "the calendar has no such day");
    /// ```
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), user_text: None, retry: Retry::No }
    }

    /// Sets the text for the user, in place of the host's default apology.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(question: &str) -> Result<()> {
    /// let hits = Search::new(question).run()
    ///     .map_err(|error| Failure::from(error).user_text("The library is closed, sorry."))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn user_text(mut self, text: impl Into<String>) -> Self {
        self.user_text = Some(text.into());
        self
    }

    /// Asks for a retry, on the module's retry schedule in `modules.toml`.
    ///
    /// ```
    /// # use modhost_sdk::{Failure, Retry};
    /// let failure = Failure::new("the index is locked").retry();
    /// # assert_eq!(failure.retry, Retry::Yes);
    /// ```
    pub fn retry(mut self) -> Self {
        self.retry = Retry::Yes;
        self
    }

    /// Asks for a retry after at least this delay.
    ///
    /// ```
    /// # use modhost_sdk::{Failure, Retry};
    /// use std::time::Duration;
    ///
    /// let failure = Failure::new("the index is being built").retry_after(Duration::from_secs(60));
    /// # assert_eq!(failure.retry, Retry::After(Duration::from_secs(60)));
    /// ```
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry = Retry::After(wait);
        self
    }

    /// Asks for no retry, whatever error caused the failure.
    ///
    /// ```
    /// # use modhost_sdk::{Error, ErrorKind, Failure, Retry};
    /// let slow = Error::new("completion.complete", ErrorKind::Timeout);
    /// assert_eq!(Failure::from(slow).no_retry().retry, Retry::No);
    /// ```
    pub fn no_retry(mut self) -> Self {
        self.retry = Retry::No;
        self
    }
}

/// The reason is the error's text, followed by its causes unless the text already contains them.
impl<E: StdError + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut failure = Self::new(error.to_string());
        for cause in iter::successors(Some(&error as &(dyn StdError + 'static)), |error| (*error).source()) {
            let text = cause.to_string();
            if !failure.reason.ends_with(&text) {
                failure.reason = format!("{}: {text}", failure.reason);
            }
            if let Some(call) = cause.downcast_ref::<Error>() {
                failure.retry = call.retry();
            }
        }
        failure
    }
}

impl From<Failure> for bindings::Failure {
    fn from(failure: Failure) -> Self {
        Self { reason: failure.reason, user_text: failure.user_text, retry: failure.retry.into() }
    }
}

impl From<Retry> for wit::Retry {
    fn from(retry: Retry) -> Self {
        match retry {
            Retry::No => Self::No,
            Retry::Yes => Self::Yes,
            Retry::After(wait) => Self::After(whole_seconds(wait)),
        }
    }
}

/// Converts a delay to whole seconds. Rounds up, so that no retry is early, and saturates at `u32::MAX` (136 years).
fn whole_seconds(wait: Duration) -> u32 {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl fmt::Debug for Failure {
    /// Formats the failure as a sentence, because `unwrap` prints it in an author's tests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if let Some(text) = &self.user_text {
            write!(f, " (user text: {text:?})")?;
        }
        match self.retry {
            Retry::No => Ok(()),
            Retry::Yes => f.write_str(" (retry)"),
            Retry::After(wait) => write!(f, " (retry after {wait:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn call(kind: ErrorKind) -> Error {
        Error::new("search.search", kind)
    }

    #[test]
    fn retries_temporary_errors() {
        let wait = Duration::from_secs(7);
        let retries = [
            (ErrorKind::RateLimited(Some(wait)), Retry::After(wait)),
            (ErrorKind::RateLimited(None), Retry::Yes),
            (ErrorKind::Unavailable("connection refused".into()), Retry::Yes),
            (ErrorKind::Timeout, Retry::Yes),
        ];
        for (kind, retry) in retries {
            let failure = Failure::from(call(kind.clone()));
            assert_eq!(failure.retry, retry, "{kind:?}");
        }
    }

    #[test]
    fn does_not_retry_permanent_errors() {
        let text = || "it said".to_owned();
        for kind in [
            ErrorKind::Invalid(text()),
            ErrorKind::Denied(text()),
            ErrorKind::NotFound(text()),
            ErrorKind::Unsupported(text()),
            ErrorKind::Misconfigured(text()),
        ] {
            let failure = Failure::from(call(kind.clone()));
            assert_eq!(failure.retry, Retry::No, "{kind:?}");
            assert!(failure.reason.starts_with("search.search: "), "{failure}");
            assert!(failure.reason.contains("it said"), "{failure}");
        }
    }

    #[test]
    fn any_error_becomes_the_reason() {
        fn parse(text: &str) -> Result<i32> {
            Ok(text.parse()?)
        }
        let failure = parse("x").unwrap_err();
        assert_eq!(failure, Failure::new("invalid digit found in string"));
    }

    /// Stands for an author's own error type.
    #[derive(Debug)]
    struct Wrapped {
        text: &'static str,
        cause: Error,
    }

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.text)
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.cause)
        }
    }

    #[test]
    fn wrapped_call_error_decides_about_the_retry() {
        let failure = Failure::from(Wrapped { text: "no passages", cause: call(ErrorKind::Unavailable("502".into())) });
        assert_eq!(failure.reason, "no passages: search.search: unavailable: 502");
        assert_eq!(failure.retry, Retry::Yes);
    }

    #[test]
    fn does_not_repeat_a_cause_that_the_text_contains() {
        let failure = Failure::from(Wrapped {
            text: "no passages: search.search: rate limited",
            cause: call(ErrorKind::RateLimited(None)),
        });
        assert_eq!(failure.reason, "no passages: search.search: rate limited");
    }

    #[test]
    fn rounds_a_delay_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
        assert_eq!(whole_seconds(Duration::MAX), u32::MAX);
    }
}
