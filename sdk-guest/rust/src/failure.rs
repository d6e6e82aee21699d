//! Why an event was not answered.

use std::error::Error as StdError;
use std::fmt;
use std::iter;
use std::time::Duration;

use crate::bindings::{self, modhost::module::events as wit};
use crate::error::Error;

/// What a module's function returns: `Ok`, or why the event was not answered.
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

/// Why an event was not answered: what the operators read, what the user reads, and whether to try again.
///
/// `?` makes one of any error. If there is a failed call behind it, the failure knows [whether another try is worth
/// it](Error::retry): when the platform was busy, out of reach or too slow, the delivery is tried again; after any other
/// error, it isn't.
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
/// Like the errors of `anyhow` it isn't a [`std::error::Error`] itself, or `?` could not take every error.
#[derive(Clone, PartialEq)]
#[must_use]
pub struct Failure {
    /// For the operators: goes to the log with the delivery, never to the user.
    pub reason: String,
    /// For the user, in place of the host's default apology. Markdown.
    pub user_text: Option<String>,
    /// Whether another try may help, and when.
    pub retry: Retry,
}

/// Whether another try at an event may help, and when. The host decides how many there may be.
///
/// ```
/// use modhost_sdk::{Failure, Retry};
///
/// let failure = Failure { retry: Retry::Yes, ..Failure::new("the calendar is locked") };
/// # assert_eq!(failure, Failure::new("the calendar is locked").retry());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// It would end the same: give up now.
    #[default]
    No,
    /// It may help, on the schedule that the module has in `modules.toml`.
    Yes,
    /// It may help, but not before this long; in whole seconds, rounded up.
    After(Duration),
}

impl Failure {
    /// A failure with this reason, without another try.
    ///
    /// ```
    /// # use modhost_sdk::Failure;
    /// let failure = Failure::new("the calendar has no such day");
    /// assert_eq!(failure.to_string(), "the calendar has no such day");
    /// ```
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), user_text: None, retry: Retry::No }
    }

    /// Says this to the user in place of the host's default apology.
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

    /// Asks for another try, on the schedule that the module has in `modules.toml`.
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

    /// Asks for another try, but not before this long.
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

    /// Asks for no other try, whatever the error behind it was.
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

/// The reason is the error's text with its causes, as far as the text doesn't tell them already.
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

/// Rounded up, so that nothing is tried earlier than asked; more than fits is as long as fits (136 years).
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
    /// As a sentence: this is what `unwrap` shows in an author's tests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if let Some(text) = &self.user_text {
            write!(f, " (the user reads {text:?})")?;
        }
        match self.retry {
            Retry::No => Ok(()),
            Retry::Yes => f.write_str(" (to be tried again)"),
            Retry::After(wait) => write!(f, " (to be tried again after {wait:?})"),
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
    fn what_may_pass_is_tried_again() {
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
    fn what_stays_is_not() {
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
    fn any_error_is_a_reason() {
        fn parse(text: &str) -> Result<i32> {
            Ok(text.parse()?)
        }
        let failure = parse("x").unwrap_err();
        assert_eq!(failure, Failure::new("invalid digit found in string"));
    }

    /// As an author's own error type would be.
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
    fn a_wrapped_call_still_says_when_to_try_again() {
        let failure = Failure::from(Wrapped { text: "no passages", cause: call(ErrorKind::Unavailable("502".into())) });
        assert_eq!(failure.reason, "no passages: search.search: unavailable: 502");
        assert_eq!(failure.retry, Retry::Yes);
    }

    #[test]
    fn a_cause_the_text_tells_already_is_not_told_twice() {
        let failure = Failure::from(Wrapped {
            text: "no passages: search.search: too many calls",
            cause: call(ErrorKind::RateLimited(None)),
        });
        assert_eq!(failure.reason, "no passages: search.search: too many calls");
    }

    #[test]
    fn a_wait_is_never_shortened() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
        assert_eq!(whole_seconds(Duration::MAX), u32::MAX);
    }
}
