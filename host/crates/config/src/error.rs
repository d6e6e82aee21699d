//! Configuration errors, written for the author of the file.

use std::fmt;

use super::SourceLocation;

/// A configuration error: what is wrong, where, and how to fix it. Never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    location: Option<SourceLocation>,
    excerpt: Option<Excerpt>,
    message: String,
    advice: Option<String>,
}

/// The line of an error, and how much of it to mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// The whole line, with secrets redacted.
    pub line: String,
    /// How many characters to mark, starting at the column of the location.
    pub width: usize,
}

impl ConfigError {
    /// Creates an error without a location and without help.
    pub fn new(message: impl Into<String>) -> Self {
        Self { location: None, excerpt: None, message: message.into(), advice: None }
    }

    /// Sets the location.
    #[must_use]
    pub fn at(mut self, location: Option<SourceLocation>) -> Self {
        self.location = location;
        self
    }

    pub(super) fn excerpt(mut self, excerpt: Excerpt) -> Self {
        self.excerpt = Some(excerpt);
        self
    }

    /// Sets the help: how to fix it.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Returns the location, or `None` if the error is about the whole file.
    pub fn location(&self) -> Option<&SourceLocation> {
        self.location.as_ref()
    }

    /// Returns the message, without the location and the help.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ConfigError {
    /// Writes the location and the message, the line with markers, and the help.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)?;
        // Without a line, the help is indented as it is below a line with a one-digit number.
        let mut margin = String::from("  ");
        if let (Some(location), Some(excerpt)) = (&self.location, &self.excerpt) {
            let number = location.line.to_string();
            margin = " ".repeat(number.len() + 1);
            let marks = " ".repeat(location.column.saturating_sub(1)) + &"^".repeat(excerpt.width.max(1));
            write!(f, "\n{margin}|\n{number} | {}\n{margin}| {marks}", excerpt.line)?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n{margin}= help: {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// All errors of a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Returns `Ok` if there are no errors.
    ///
    /// # Errors
    ///
    /// Returns the errors, sorted by location.
    pub fn ok_if_empty(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| error.location.as_ref().map(|location| (location.line, location.column)));
        Err(Self(errors))
    }

    /// Returns errors that are known to exist, in the order of the file.
    pub(crate) fn of(errors: Vec<ConfigError>) -> Self {
        Self::ok_if_empty(errors).err().unwrap_or_else(|| Self(vec![ConfigError::new("the settings conflict")]))
    }

    /// Returns the errors, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    /// Writes the errors, separated by empty lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn location(line: usize, column: usize) -> SourceLocation {
        SourceLocation { file: Path::new("modules.toml").into(), line, column }
    }

    #[test]
    fn shows_location_line_and_help() {
        let error = ConfigError::new("`port` is wrong")
            .at(Some(location(12, 8)))
            .excerpt(Excerpt { line: "port = 1".into(), width: 1 })
            .advice("try 2");
        assert_eq!(
            error.to_string(),
            "modules.toml:12:8: `port` is wrong\n   |\n12 | port = 1\n   |        ^\n   = help: try 2"
        );
    }

    #[test]
    fn shows_no_line_for_whole_file() {
        assert_eq!(ConfigError::new("it is empty").advice("fill it").to_string(), "it is empty\n  = help: fill it");
    }

    #[test]
    fn sorts_errors_by_location() {
        let later = ConfigError::new("later").at(Some(location(10, 1)));
        let sooner = ConfigError::new("sooner").at(Some(location(9, 5)));
        let errors = ConfigErrors::ok_if_empty(vec![later, sooner]).unwrap_err();
        let messages: Vec<_> = errors.iter().map(ConfigError::message).collect();
        assert_eq!(messages, ["sooner", "later"]);
    }
}
