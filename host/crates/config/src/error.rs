//! What is wrong with the configuration, in the words of the person who wrote it.

use std::fmt;

use super::SourceLocation;

/// Something wrong with the configuration: where, what, and what to do about it. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    place: Option<SourceLocation>,
    excerpt: Option<Excerpt>,
    message: String,
    advice: Option<String>,
}

/// The line an error is about, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// The whole line, secrets concealed.
    pub line: String,
    /// How many characters are meant, counted from the place's column.
    pub width: usize,
}

impl ConfigError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { place: None, excerpt: None, message: message.into(), advice: None }
    }

    pub fn at(mut self, place: Option<SourceLocation>) -> Self {
        self.place = place;
        self
    }

    pub(super) fn excerpt(mut self, excerpt: Excerpt) -> Self {
        self.excerpt = Some(excerpt);
        self
    }

    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Where it is wrong; nothing if it is about the file as a whole.
    pub fn place(&self) -> Option<&SourceLocation> {
        self.place.as_ref()
    }

    /// What is wrong, without the place and the advice.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ConfigError {
    /// The place and what is wrong, the line with the spot marked, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        // Without a line to stand under, the advice is set in as deep as beside a one-digit line number.
        let mut margin = String::from("  ");
        if let (Some(place), Some(excerpt)) = (&self.place, &self.excerpt) {
            let number = place.line.to_string();
            margin = " ".repeat(number.len() + 1);
            let marks = " ".repeat(place.column.saturating_sub(1)) + &"^".repeat(excerpt.width.max(1));
            write!(f, "\n{margin}|\n{number} | {}\n{margin}| {marks}", excerpt.line)?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n{margin}= help: {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Everything wrong with the configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors as a result: fine if there are none.
    pub fn none_of(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| error.place.as_ref().map(|place| (place.line, place.column)));
        Err(Self(errors))
    }

    /// Each error, in the order of the file.
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
    /// One after the other, an empty line between them.
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

    fn place(line: usize, column: usize) -> SourceLocation {
        SourceLocation { file: Path::new("modules.toml").into(), line, column }
    }

    #[test]
    fn shows_place_line_and_advice() {
        let error = ConfigError::new("`port` is wrong")
            .at(Some(place(12, 8)))
            .excerpt(Excerpt { line: "port = 1".into(), width: 1 })
            .advice("try 2");
        assert_eq!(
            error.to_string(),
            "modules.toml:12:8: `port` is wrong\n   |\n12 | port = 1\n   |        ^\n   = help: try 2"
        );
    }

    #[test]
    fn an_error_of_the_whole_file_has_no_line() {
        assert_eq!(ConfigError::new("it is empty").advice("fill it").to_string(), "it is empty\n  = help: fill it");
    }

    #[test]
    fn errors_come_in_the_order_of_the_file() {
        let later = ConfigError::new("later").at(Some(place(10, 1)));
        let sooner = ConfigError::new("sooner").at(Some(place(9, 5)));
        let errors = ConfigErrors::none_of(vec![later, sooner]).unwrap_err();
        let messages: Vec<_> = errors.iter().map(ConfigError::message).collect();
        assert_eq!(messages, ["sooner", "later"]);
    }
}
