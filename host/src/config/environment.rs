//! The environment: the process's own variables, over those of a `.env` file.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, ErrorKind, Read};
use std::path::Path;

use super::{ConfigError, Place, Secret};

/// What variables are set to. Read once into a map: the process's own environment is never changed.
#[derive(Clone, Default)]
pub struct Environment {
    variables: HashMap<String, Secret>,
}

impl Environment {
    /// The variables of the process, and those of the `.env` file in this folder, if there is one, that the process
    /// doesn't have. Variables that are not UTF-8 count as not set.
    ///
    /// # Errors
    ///
    /// If there is a `.env` file that can't be read or understood.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let mut variables = read_dotenv(&folder.as_ref().join(".env"))?;
        let process =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        variables.extend(process.map(|(name, value)| (name, Secret::new(value))));
        Ok(Self { variables })
    }

    /// What a variable is set to.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(Secret::expose)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.into(), Secret::new(value))).collect() }
    }
}

impl fmt::Debug for Environment {
    /// Names only: what the values are is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

fn read_dotenv(path: &Path) -> Result<HashMap<String, Secret>, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(
                ConfigError::new(format!("{} is not written in UTF-8", path.display())).advice("save it as UTF-8")
            );
        }
        Err(error) => return Err(ConfigError::new(format!("{} can't be read: {error}", path.display()))),
    };
    let lines = Cell::new(0);
    dotenvy::from_read_iter(Lines { rest: tidy(&text).as_bytes(), read: &lines })
        .map(|variable| match variable {
            Ok((name, value)) => Ok((name, Secret::new(value))),
            Err(error) => Err(malformed(path, &error, lines.get())),
        })
        .collect()
}

/// The text as dotenvy wants it: without a byte order mark, and with a newline at the end, for it takes a last line
/// that ends in a space for an unfinished one.
fn tidy(text: &str) -> String {
    format!("{}\n", text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Says which line is malformed without showing it: it may hold a secret.
fn malformed(path: &Path, error: &dotenvy::Error, last_line: usize) -> ConfigError {
    let dotenvy::Error::LineParse(text, column) = error else {
        return ConfigError::new(format!("{} can't be read: {error}", path.display()));
    };
    let line = (last_line + 1).saturating_sub(text.lines().count().max(1));
    let column = text.get(..*column).map_or(1, |before| before.chars().count() + 1);
    let place = Place { file: path.into(), line, column: if text.contains('\n') { 1 } else { column } };
    ConfigError::new("this line can't be understood")
        .at(Some(place))
        .advice("write NAME=value; a value with spaces, quotes or $ in it goes into single quotes: NAME='the value'")
}

/// Hands a text on line by line and counts them, so that an error of dotenvy's, which knows the text of a line but
/// not its number, can be placed.
struct Lines<'t> {
    rest: &'t [u8],
    read: &'t Cell<usize>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let line = self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest, |newline| &self.rest[..=newline]);
        let length = line.len().min(buffer.len());
        buffer[..length].copy_from_slice(&line[..length]);
        if length > 0 && length == line.len() {
            self.read.set(self.read.get() + 1);
        }
        self.rest.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(dotenv: &str) -> Result<Environment, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".env"), dotenv).unwrap();
        Environment::load(folder.path())
            .map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), "…"))
    }

    #[test]
    fn reads_a_dotenv_file() {
        let environment = load("\u{feff}# keys\nexport MODHOST_TEST_A='a b' # why\n\nMODHOST_TEST_B=b ").unwrap();
        assert_eq!(environment.get("MODHOST_TEST_A"), Some("a b"));
        assert_eq!(environment.get("MODHOST_TEST_B"), Some("b"));
        assert_eq!(environment.get("MODHOST_TEST_C"), None);
    }

    #[test]
    fn the_process_has_the_last_word() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!(load("PATH=nowhere\n").unwrap().get("PATH"), Some(path.as_str()));
    }

    #[test]
    fn a_folder_without_a_dotenv_file_is_fine() {
        assert!(Environment::load(tempfile::tempdir().unwrap()).unwrap().get("PATH").is_some());
    }

    #[test]
    fn names_the_malformed_line_without_showing_it() {
        let error = load("A=1\n\n# two\nMODHOST_TEST_KEY = sesame open\n").unwrap_err();
        assert!(error.starts_with("…/.env:4:"), "{error}");
        assert!(error.contains("this line can't be understood\n  = write NAME=value"), "{error}");
        assert!(!error.contains("sesame"), "{error}");

        let unclosed = load("A=1\nMODHOST_TEST_KEY='sesame\nB=2\n").unwrap_err();
        assert!(unclosed.starts_with("…/.env:2:1: "), "{unclosed}");
    }

    #[test]
    fn values_are_never_printed() {
        let environment: Environment = [("KEY", "sesame")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), r#"{"KEY"}"#);
    }
}
