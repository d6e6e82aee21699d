//! The reason of a failed attempt, as the journal stores it.

use std::fmt;

/// Separates the reason from the notice error in the stored text.
const SEPARATOR: &str = "; the user could not be notified: ";

/// The separator that earlier versions wrote; old data directories contain it.
const EARLIER_SEPARATOR: &str = "; the user could not be told: ";

/// The reason why an attempt failed and, if the user could not be notified, the error of the notice.
///
/// The journal and the admin API use one text for both: [`fmt::Display`] formats it, [`FailureReason::parse`] parses
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureReason {
    /// Contains neither separator, so that the text can be parsed.
    reason: String,
    notice_error: Option<String>,
}

impl FailureReason {
    /// Creates a reason without a notice error.
    pub fn new(reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        // The reason may come from a module, so it may contain a separator.
        for separator in [SEPARATOR, EARLIER_SEPARATOR] {
            if reason.contains(separator) {
                reason = reason.replace(separator, &separator.replacen(';', ",", 1));
            }
        }
        Self { reason, notice_error: None }
    }

    /// Adds the error of the notice to the user. Removes a period at the end of the reason, because the text continues.
    #[must_use]
    pub fn with_notice_error(mut self, error: impl fmt::Display) -> Self {
        if self.reason.ends_with('.') {
            self.reason.pop();
        }
        self.notice_error = Some(error.to_string());
        self
    }

    /// Parses a stored text.
    pub fn parse(text: &str) -> Self {
        let found =
            [SEPARATOR, EARLIER_SEPARATOR].map(|separator| text.find(separator).map(|at| (at, separator.len())));
        match found.into_iter().flatten().min() {
            Some((at, length)) => {
                Self { reason: text[..at].to_owned(), notice_error: Some(text[at + length..].to_owned()) }
            }
            None => Self { reason: text.to_owned(), notice_error: None },
        }
    }

    /// Returns the reason why the attempt failed.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the error of the notice, if the user could not be notified.
    pub fn notice_error(&self) -> Option<&str> {
        self.notice_error.as_deref()
    }
}

impl From<&str> for FailureReason {
    fn from(reason: &str) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.notice_error {
            Some(error) => write!(f, "{SEPARATOR}{error}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn joins_reason_and_notice_error_in_one_text() {
        let reason = FailureReason::new("it failed.").with_notice_error("no connection");
        assert_eq!(reason.to_string(), "it failed; the user could not be notified: no connection");
        assert_eq!(FailureReason::new("it failed.").to_string(), "it failed.");
    }

    #[test]
    fn parses_text_of_earlier_versions() {
        let parsed = FailureReason::parse("trap: unreachable; the user could not be told: unavailable: no route");
        assert_eq!((parsed.reason(), parsed.notice_error()), ("trap: unreachable", Some("unavailable: no route")));
    }

    /// Generates text that contains separators and parts of them.
    fn text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just(SEPARATOR.to_owned()),
            Just(EARLIER_SEPARATOR.to_owned()),
            Just("; the user could not be ".to_owned()),
            "[a-z.;: \n]{0,8}",
            "\\PC{0,8}",
        ];
        prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn parses_its_own_display(reason in text(), error in prop::option::of(text())) {
            let mut written = FailureReason::new(reason);
            if let Some(error) = error {
                written = written.with_notice_error(error);
            }
            prop_assert_eq!(FailureReason::parse(&written.to_string()), written);
        }
    }
}
