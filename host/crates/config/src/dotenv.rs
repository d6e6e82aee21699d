//! Parses `.env` files: lines `NAME=value`, each value taken literally.
//!
//! Common `.env` readers replace `$NAME` in values, drop text after a quote, or silently let the last of two lines
//! win. If a secret is read as a different one, the platform expires the endpoint. This parser substitutes nothing,
//! and rejects with its line whatever other tools read differently. docs/configuration.md has the rules.

use std::collections::HashMap;
use std::path::Path;

use super::{ConfigError, Secret, SourceLocation};

/// The help text of errors about a line.
const ADVICE: &str =
    "write NAME=value; put a value that contains spaces, quotes or $ in single quotes: NAME='the value'";

/// Parses the text of a `.env` file; `path` names the file in errors.
///
/// # Errors
///
/// Returns an error for the first line that cannot be taken literally. The error names the line but never shows it,
/// because it may contain a secret.
pub(crate) fn read(text: &str, path: &Path) -> Result<HashMap<String, Secret>, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { path, rest: text, line: 1, column: 1 };
    let mut variables: HashMap<String, (Secret, usize)> = HashMap::new();
    while let Some((name, value, line)) = reader.variable()? {
        match variables.get(&name) {
            Some((before, first)) if before.expose() != value => {
                let message = format!("{name} is already set to a different value at line {first}");
                return Err(reader.error_at(line, 1, message).advice("remove one of the two lines"));
            }
            _ => variables.insert(name, (Secret::new(value), line)),
        };
    }
    Ok(variables.into_iter().map(|(name, (value, _))| (name, value)).collect())
}

struct Reader<'t> {
    path: &'t Path,
    rest: &'t str,
    /// The position of `rest`, from 1.
    line: usize,
    column: usize,
}

impl Reader<'_> {
    /// Returns the next variable and its line, or `None` at the end.
    fn variable(&mut self) -> Result<Option<(String, String, usize)>, ConfigError> {
        loop {
            self.skip_blanks();
            match self.peek() {
                None => return Ok(None),
                Some('#') => self.skip_comment(),
                Some('\n') => drop(self.next()),
                Some(_) => break,
            }
        }
        let line = self.line;
        let name = self.name()?;
        self.skip_blanks();
        if self.peek() != Some('=') {
            return Err(self.malformed());
        }
        self.next();
        self.skip_blanks();
        let value = match self.peek() {
            Some('\'') => self.single_quoted()?,
            Some('"') => self.double_quoted()?,
            _ => return Ok(Some((name, self.unquoted()?, line))),
        };
        self.end_of_line()?;
        Ok(Some((name, value, line)))
    }

    fn name(&mut self) -> Result<String, ConfigError> {
        let name = self.word();
        let name = match (name.as_str(), self.peek()) {
            ("export", Some(' ' | '\t')) => {
                self.skip_blanks();
                // `export =` sets a variable named `export`.
                if self.peek() == Some('=') { name } else { self.word() }
            }
            _ => name,
        };
        let is_name = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
        if is_name { Ok(name) } else { Err(self.malformed()) }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || "_.-".contains(*c)) {
            self.next();
            word.push(c);
        }
        word
    }

    /// Reads a value in single quotes: every character is literal, line breaks included.
    fn single_quoted(&mut self) -> Result<String, ConfigError> {
        let opened = (self.line, self.column);
        self.next();
        let mut value = String::new();
        loop {
            match self.next() {
                None => return Err(self.unclosed(opened)),
                Some('\'') => return Ok(value),
                Some(c) => value.push(self.visible(c)?),
            }
        }
    }

    /// Reads a value in double quotes. A backslash followed by `\`, `"`, `$`, n, r or t is an escape; every other
    /// character is literal.
    fn double_quoted(&mut self) -> Result<String, ConfigError> {
        let opened = (self.line, self.column);
        self.next();
        let mut value = String::new();
        loop {
            let at = (self.line, self.column);
            match self.next() {
                None => return Err(self.unclosed(opened)),
                Some('"') => return Ok(value),
                Some('\\') => value.push(match self.next() {
                    Some(c @ ('\\' | '"' | '$')) => c,
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    _ => {
                        let message =
                            "invalid escape in double quotes: a backslash must be followed by \\ \" $ n r or t";
                        return Err(self.error_at(at.0, at.1, message).advice(ADVICE));
                    }
                }),
                Some('$') if self.peek() == Some('{') => return Err(self.substitution(at)),
                Some(c) => value.push(self.visible(c)?),
            }
        }
    }

    /// Reads a value without quotes, up to the end of the line or a `#` after a space. Trailing spaces are removed.
    fn unquoted(&mut self) -> Result<String, ConfigError> {
        let mut value = String::new();
        loop {
            let at = (self.line, self.column);
            let Some(c) = self.peek() else { return Ok(value) };
            match c {
                '\n' => return Ok(value),
                ' ' | '\t' => {
                    self.skip_blanks();
                    return match self.peek() {
                        None | Some('\n' | '#') => self.end_of_line().map(|()| value),
                        // Two words: most tools take the first, some take both.
                        Some(_) => Err(self.malformed()),
                    };
                }
                '#' if value.is_empty() => return self.end_of_line().map(|()| value),
                '\\' | '"' | '\'' => {
                    let message =
                        "an unquoted value contains a backslash or a quote, which other tools read differently";
                    return Err(self.error_at(at.0, at.1, message).advice(ADVICE));
                }
                '$' if self.rest.starts_with("${") => return Err(self.substitution(at)),
                _ => {
                    self.next();
                    value.push(self.visible(c)?);
                }
            }
        }
    }

    /// Checks that only a comment follows a value on its line.
    fn end_of_line(&mut self) -> Result<(), ConfigError> {
        self.skip_blanks();
        match self.peek() {
            None | Some('\n') => Ok(()),
            Some('#') => {
                self.skip_comment();
                Ok(())
            }
            Some(_) => Err(self.malformed()),
        }
    }

    /// Returns a character of a value. Invisible characters are rejected: they come from a clipboard and are not part
    /// of the secret.
    fn visible(&self, c: char) -> Result<char, ConfigError> {
        let is_invisible = (c.is_control() && !"\n\t".contains(c))
            || (c.is_whitespace() && !" \n\t".contains(c))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}');
        if !is_invisible {
            return Ok(c);
        }
        let message = format!("this value contains an invisible character (U+{:04X})", u32::from(c));
        let column = self.column.saturating_sub(1).max(1);
        Err(self.error_at(self.line, column, message).advice("remove it; copying the value may have added it"))
    }

    fn peek(&self) -> Option<char> {
        match self.rest.starts_with("\r\n") {
            true => Some('\n'),
            false => self.rest.chars().next(),
        }
    }

    /// Returns the next character. Both kinds of line ending count as one `\n`.
    fn next(&mut self) -> Option<char> {
        self.rest = if self.rest.starts_with("\r\n") { &self.rest[1..] } else { self.rest };
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            (self.line, self.column) = (self.line + 1, 1);
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.next();
        }
    }

    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
    }

    fn malformed(&self) -> ConfigError {
        self.error_at(self.line, self.column, "this line is not NAME=value").advice(ADVICE)
    }

    fn unclosed(&self, (line, column): (usize, usize)) -> ConfigError {
        self.error_at(line, column, "this quote is never closed").advice(ADVICE)
    }

    fn substitution(&self, (line, column): (usize, usize)) -> ConfigError {
        let advice = "write the value itself; if it contains ${, put it in single quotes: NAME='the value'";
        self.error_at(line, column, "variables such as ${…} are not substituted in this file").advice(advice)
    }

    fn error_at(&self, line: usize, column: usize, message: impl Into<String>) -> ConfigError {
        ConfigError::new(message).at(Some(SourceLocation { file: self.path.into(), line, column }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Result<String, String> {
        let variables = read(text, Path::new(".env")).map_err(|error| error.to_string())?;
        Ok(variables.get("A").expect("A is set").expose().to_owned())
    }

    #[test]
    fn takes_values_literally() {
        for (text, expected) in [
            ("A=ab$defgh@jk", "ab$defgh@jk"),
            ("A=\"ab$defgh@jk\"", "ab$defgh@jk"),
            ("A='ab$defgh@jk'", "ab$defgh@jk"),
            ("A=$HOME", "$HOME"),
            ("A=$", "$"),
            ("A='${HOME}'", "${HOME}"),
            ("A=\"\\${HOME}\"", "${HOME}"),
            ("A=a#b", "a#b"),
            ("A=a #b", "a"),
            ("A='a #b'", "a #b"),
            ("A=#b", ""),
            ("A=", ""),
            ("A=  ", ""),
            ("A=''", ""),
            ("A = a\t", "a"),
            ("export A=a", "a"),
            ("export\tA=a", "a"),
            ("  A=a=b==", "a=b=="),
            ("A=a\r\nB=b\r\n", "a"),
            ("A='a\\b'", "a\\b"),
            ("A=\"a\\\\b\\n\\t\\\"c\"", "a\\b\n\t\"c"),
            ("A='it\"s'", "it\"s"),
            ("A=\"it's\" # why", "it's"),
            ("A='-----BEGIN\r\nKEY-----'\n", "-----BEGIN\nKEY-----"),
            ("\u{feff}A=a", "a"),
            ("A=`a`", "`a`"),
            ("A=ä€😀", "ä€😀"),
            ("A=a\nA=a", "a"),
            ("A=a!%^&*()[]{}|;:<>,.?/~+", "a!%^&*()[]{}|;:<>,.?/~+"),
        ] {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn rejects_ambiguous_values_with_their_line() {
        for (text, place, words) in [
            ("B=1\nA=sesame ${HOME}", ".env:2:10: ", "is not NAME=value"),
            ("A=sesame${HOME}", ".env:1:9: ", "such as ${…} are not substituted"),
            ("A=\"sesame${HOME}\"", ".env:1:10: ", "such as ${…} are not substituted"),
            ("A=sesame\\$x", ".env:1:9: ", "contains a backslash or a quote"),
            ("A=sesame\"x\"", ".env:1:9: ", "contains a backslash or a quote"),
            ("A='sesame'x", ".env:1:11: ", "is not NAME=value"),
            ("A=\"sesame\\x\"", ".env:1:10: ", "invalid escape in double quotes"),
            ("A=1\n\nB='sesame\nC=2\n", ".env:3:3: ", "never closed"),
            ("A=\"sesame", ".env:1:3: ", "never closed"),
            ("A sesame", ".env:1:3: ", "is not NAME=value"),
            ("sesame", ".env:1:7: ", "is not NAME=value"),
            ("A: sesame", ".env:1:2: ", "is not NAME=value"),
            ("1A=sesame", ".env:1:3: ", "is not NAME=value"),
            ("A=sesame\nA=open\n", ".env:2:1: ", "already set to a different value at line 1"),
            ("A=sesame\u{200b}", ".env:1:9: ", "invisible character (U+200B)"),
            ("A=sesame\u{a0}", ".env:1:9: ", "invisible character (U+00A0)"),
            ("A=sesame\0", ".env:1:9: ", "invisible character (U+0000)"),
            ("A=sesame\rB=2", ".env:1:9: ", "invisible character (U+000D)"),
        ] {
            let error = value(text).expect_err(text);
            assert!(error.starts_with(place) && error.contains(words), "{text:?}: {error}");
            assert!(!error.contains("sesame") && !error.contains("open"), "{error}");
        }
    }

    proptest! {
        /// A value without spaces and quotes is taken literally, whether quoted or not, or its line is rejected.
        #[test]
        fn never_changes_values(written in r#"[!-~ä€]{1,24}"#, quote in prop::sample::select(vec!["", "'", "\""])) {
            let text = format!("A={quote}{written}{quote}\n");
            if let Ok(variables) = read(&text, Path::new(".env")) {
                let read = variables["A"].expose();
                let is_comment = quote.is_empty() && written.starts_with('#');
                let is_quoted = quote.is_empty() && written.starts_with(['\'', '"']);
                let is_escaped = quote == "\"" && written.contains('\\');
                // A quote in the middle ends the value: the rest is a comment, or the line is rejected.
                let is_closed_early = !quote.is_empty() && written.contains(quote);
                if !is_comment && !is_quoted && !is_escaped && !is_closed_early {
                    prop_assert_eq!(read, written.as_str());
                }
            }
        }

        /// In single quotes every character but a single quote is literal.
        #[test]
        fn takes_single_quoted_values_literally(written in r#"[ -&(-~\n\t]{0,40}"#) {
            prop_assert_eq!(value(&format!("B=1\nA='{written}'\nC=2")).unwrap(), written);
        }

        /// No text causes a panic, and no error shows a value.
        #[test]
        fn never_panics_or_shows_values(text in "\\PC{0,60}", line in 0_usize..3) {
            let text = format!("{}{text}\nA=\"sesame\\q", "\n".repeat(line));
            let error = read(&text, Path::new(".env")).unwrap_err().to_string();
            prop_assert!(!error.contains("sesame"), "{}", error);
        }
    }
}
