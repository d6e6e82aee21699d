//! `.env`: lines `NAME=value`, each value taken as it is written.
//!
//! The readers there are for such files replace `$NAME` in values, drop what stands behind a quote, or let the last of two
//! lines win, and say nothing; a secret that is read as another one expires an endpoint. This one replaces nothing, and
//! refuses with its line what tools read differently. docs/configuration.md has the rules.

use std::collections::HashMap;
use std::path::Path;

use super::{ConfigError, Secret, SourceLocation};

/// What every error about a line advises.
const ADVICE: &str =
    "write NAME=value; a value with spaces, quotes or $ in it goes into single quotes: NAME='the value'";

/// Reads the text of a `.env` file; `path` is what it is called in errors.
///
/// # Errors
///
/// The first line that can't be taken as it is written. Says which line and never what it holds: that may be a secret.
pub(crate) fn read(text: &str, path: &Path) -> Result<HashMap<String, Secret>, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { path, rest: text, line: 1, column: 1 };
    let mut variables: HashMap<String, (Secret, usize)> = HashMap::new();
    while let Some((name, value, line)) = reader.variable()? {
        match variables.get(&name) {
            Some((before, first)) if before.expose() != value => {
                let message = format!("{name} is set a second time, to another value than in line {first}");
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
    /// Where `rest` begins, from 1.
    line: usize,
    column: usize,
}

impl Reader<'_> {
    /// The next variable and the line it stands on; none at the end.
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
                // `export =` sets a variable of that name.
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

    /// Everything in it stands for itself, line breaks included.
    fn single_quoted(&mut self) -> Result<String, ConfigError> {
        let opened = (self.line, self.column);
        self.next();
        let mut value = String::new();
        loop {
            match self.next() {
                None => return Err(self.unclosed(opened)),
                Some('\'') => return Ok(value),
                Some(c) => value.push(self.plain(c)?),
            }
        }
    }

    /// A backslash and one of `\`, `"`, `$`, n, r, t stand for one character; everything else stands for itself.
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
                        let message = "in double quotes, a backslash stands before one of \\ \" $ n r t";
                        return Err(self.error_at(at.0, at.1, message).advice(ADVICE));
                    }
                }),
                Some('$') if self.peek() == Some('{') => return Err(self.substitution(at)),
                Some(c) => value.push(self.plain(c)?),
            }
        }
    }

    /// Up to the end of the line, or to a # behind a space; without the spaces before that.
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
                        // Two words: most tools take the first, and some both.
                        Some(_) => Err(self.malformed()),
                    };
                }
                '#' if value.is_empty() => return self.end_of_line().map(|()| value),
                '\\' | '"' | '\'' => {
                    let message = "a backslash or a quote in a value without quotes is read differently by other tools";
                    return Err(self.error_at(at.0, at.1, message).advice(ADVICE));
                }
                '$' if self.rest.starts_with("${") => return Err(self.substitution(at)),
                _ => {
                    self.next();
                    value.push(self.plain(c)?);
                }
            }
        }
    }

    /// Only a comment may follow a value on its line.
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

    /// A character of a value, unless nobody sees it: it came from a clipboard, and is no part of the secret.
    fn plain(&self, c: char) -> Result<char, ConfigError> {
        let is_invisible = (c.is_control() && !"\n\t".contains(c))
            || (c.is_whitespace() && !" \n\t".contains(c))
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}');
        if !is_invisible {
            return Ok(c);
        }
        let message = format!("there is an invisible character (U+{:04X}) in this value", u32::from(c));
        let column = self.column.saturating_sub(1).max(1);
        Err(self.error_at(self.line, column, message).advice("remove it; it may come from where the value was copied"))
    }

    fn peek(&self) -> Option<char> {
        match self.rest.starts_with("\r\n") {
            true => Some('\n'),
            false => self.rest.chars().next(),
        }
    }

    /// The next character; both ways to end a line are one.
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
        self.error_at(self.line, self.column, "this line can't be understood").advice(ADVICE)
    }

    fn unclosed(&self, (line, column): (usize, usize)) -> ConfigError {
        self.error_at(line, column, "the quote that begins here is never closed").advice(ADVICE)
    }

    fn substitution(&self, (line, column): (usize, usize)) -> ConfigError {
        let advice = "write the value itself; if ${ is a part of it, put it into single quotes: NAME='the value'";
        self.error_at(line, column, "nothing is put in the place of ${…} here").advice(advice)
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
    fn a_value_arrives_as_written() {
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
    fn what_tools_read_differently_is_refused_with_its_line() {
        for (text, place, words) in [
            ("B=1\nA=sesame ${HOME}", ".env:2:10: ", "can't be understood"),
            ("A=sesame${HOME}", ".env:1:9: ", "in the place of ${…}"),
            ("A=\"sesame${HOME}\"", ".env:1:10: ", "in the place of ${…}"),
            ("A=sesame\\$x", ".env:1:9: ", "a backslash or a quote"),
            ("A=sesame\"x\"", ".env:1:9: ", "a backslash or a quote"),
            ("A='sesame'x", ".env:1:11: ", "can't be understood"),
            ("A=\"sesame\\x\"", ".env:1:10: ", "in double quotes, a backslash"),
            ("A=1\n\nB='sesame\nC=2\n", ".env:3:3: ", "never closed"),
            ("A=\"sesame", ".env:1:3: ", "never closed"),
            ("A sesame", ".env:1:3: ", "can't be understood"),
            ("sesame", ".env:1:7: ", "can't be understood"),
            ("A: sesame", ".env:1:2: ", "can't be understood"),
            ("1A=sesame", ".env:1:3: ", "can't be understood"),
            ("A=sesame\nA=open\n", ".env:2:1: ", "a second time, to another value than in line 1"),
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
        /// A value without blanks and quotes arrives as it is, however it is quoted, or its line is refused.
        #[test]
        fn a_value_is_never_changed(written in r#"[!-~ä€]{1,24}"#, quote in prop::sample::select(vec!["", "'", "\""])) {
            let text = format!("A={quote}{written}{quote}\n");
            if let Ok(variables) = read(&text, Path::new(".env")) {
                let read = variables["A"].expose();
                let is_comment = quote.is_empty() && written.starts_with('#');
                let is_quoted = quote.is_empty() && written.starts_with(['\'', '"']);
                let is_escaped = quote == "\"" && written.contains('\\');
                // One that ends a quote in the middle is two values with a comment, or refused.
                let is_closed_early = !quote.is_empty() && written.contains(quote);
                if !is_comment && !is_quoted && !is_escaped && !is_closed_early {
                    prop_assert_eq!(read, written.as_str());
                }
            }
        }

        /// In single quotes everything but a single quote arrives.
        #[test]
        fn single_quotes_take_everything(written in r#"[ -&(-~\n\t]{0,40}"#) {
            prop_assert_eq!(value(&format!("B=1\nA='{written}'\nC=2")).unwrap(), written);
        }

        /// No text makes it panic, and no error shows what stands in a value.
        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,60}", line in 0_usize..3) {
            let text = format!("{}{text}\nA=\"sesame\\q", "\n".repeat(line));
            let error = read(&text, Path::new(".env")).unwrap_err().to_string();
            prop_assert!(!error.contains("sesame"), "{}", error);
        }
    }
}
