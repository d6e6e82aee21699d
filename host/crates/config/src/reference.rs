//! References from modules.toml to values outside it.

use std::path::{Path, PathBuf};

use url::Url;

use super::environment::describe_read_error;
use super::table::Value;
use super::{ConfigError, Environment, Secret, SourceLocation};

/// A reference to a value: `env:NAME`, `env:A|B|C` (the first variable that is set and not empty), `file:PATH`, or
/// the value itself if it is not a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    origin: Origin,
    location: Option<SourceLocation>,
}

/// Where a value is, regardless of which setting refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// The first of these variables that is set and not empty. The list is never empty.
    Variables(Vec<String>),
    /// The content of this file.
    File(PathBuf),
    /// The value itself, which is not a secret.
    Literal(String),
    /// A value from the host itself.
    Given(Secret),
}

/// Writes the reference as in modules.toml, never a value.
impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variables(names) => write!(f, "env:{}", names.join("|")),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Literal(_) | Self::Given(_) => f.write_str("…"),
        }
    }
}

impl Reference {
    /// Creates a reference to a known value, such as the credentials of the local platform.
    pub fn given(value: impl Into<String>) -> Self {
        Self { origin: Origin::Given(Secret::new(value)), location: None }
    }

    /// Resolves the value.
    ///
    /// # Errors
    ///
    /// Returns an error if no variable is set or the file cannot be read.
    pub fn resolve(&self, environment: &Environment) -> Result<Secret, ConfigError> {
        if let Some(overrides) = environment.overrides.get(&self.origin) {
            return Ok(overrides.clone());
        }
        match &self.origin {
            Origin::Variables(names) => {
                let value = names.iter().find_map(|name| environment.get(name).filter(|value| !value.is_empty()));
                value.map(Secret::new).ok_or_else(|| self.unset(names, environment))
            }
            Origin::File(path) => self.content(path, environment),
            Origin::Literal(text) => Ok(Secret::new(text.as_str())),
            Origin::Given(secret) => Ok(secret.clone()),
        }
    }

    /// Resolves a value that must be a URL. `example` shows one in the error.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Reference::resolve`], and an error if the value is not a URL.
    pub fn resolve_url(&self, environment: &Environment, example: &str) -> Result<Url, ConfigError> {
        let value = self.resolve(environment)?;
        parse_url(value.expose())
            .ok_or_else(|| self.error("this value is not a URL".into()).advice(format!("it must look like {example}")))
    }

    /// Parses a reference to a secret from the command line. `flag` names the flag in errors.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not a reference: a secret would end up in the history of the shell.
    pub fn from_flag(flag: &str, text: &str) -> Result<Self, ConfigError> {
        let origin = match scheme(text) {
            Some(("env", _)) if is_reference(text) => {
                Origin::Variables(text["env:".len()..].split('|').map(|name| name.trim().to_owned()).collect())
            }
            Some(("file", path)) if !path.trim().is_empty() => Origin::File(PathBuf::from(path)),
            _ => {
                return Err(ConfigError::new(format!("{flag} takes a reference, not the secret itself"))
                    .advice("write env:NAME for an environment variable, file:PATH for a file"));
            }
        };
        Ok(Self { origin, location: None })
    }

    /// Returns where the value is.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns how many variables without a value precede the first one with a value, or `None` if there is no such
    /// variable.
    pub(super) fn skipped_variables(&self, environment: &Environment) -> Option<usize> {
        let Origin::Variables(names) = &self.origin else { return None };
        names.iter().position(|name| environment.get(name).is_some_and(|value| !value.is_empty()))
    }

    /// Returns the value if it is in the file itself.
    pub(crate) fn literal(&self) -> Option<&str> {
        match &self.origin {
            Origin::Literal(text) => Some(text),
            _ => None,
        }
    }

    /// Creates an error about the value of this reference.
    pub fn error(&self, message: String) -> ConfigError {
        ConfigError::new(message).at(self.location.clone())
    }

    /// Returns a shell expression for the value, for use inside double quotes.
    pub fn in_shell(&self) -> String {
        match &self.origin {
            Origin::Variables(names) => {
                // The first variable with a value, as in `resolve`.
                let (last, others) = names.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
                others.iter().rev().fold(format!("${{{last}}}"), |rest, name| format!("${{{name}:-{rest}}}"))
            }
            Origin::File(path) => format!("$(cat '{}')", path.display()),
            Origin::Literal(_) | Origin::Given(_) => "…".to_owned(),
        }
    }

    /// Returns the path of the file, if it refers to one.
    pub fn file(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File(path) => Some(path),
            _ => None,
        }
    }

    fn unset(&self, names: &[String], environment: &Environment) -> ConfigError {
        let message = match names {
            [name] if environment.get(name).is_some() => format!("the environment variable {name} is empty"),
            [name] => format!("the environment variable {name} is not set"),
            names => format!("none of these environment variables has a value: {}", names.join(", ")),
        };
        // The first variable is the preferred one.
        let name = names.first().map(String::as_str).unwrap_or_default();
        let file =
            self.location.as_ref().and_then(|location| location.file.file_name()).unwrap_or("modules.toml".as_ref());
        let file = file.to_string_lossy();
        self.error(message).advice(format!("export {name}, or add {name}=… to the .env file next to {file}"))
    }

    fn content(&self, path: &Path, environment: &Environment) -> Result<Secret, ConfigError> {
        const ADVICE: &str = "put only the value in this file";
        let shown = path.display();
        let fail = |what: String| self.error(what).advice(format!("{ADVICE}, or use another file"));
        let bytes = environment.file(path).map_err(|error| match error.is_not_found() {
            true => fail(format!("there is no file {shown}")),
            false => fail(format!("{shown} {}", describe_read_error(&error))),
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|_| fail(format!("{shown} is not UTF-8")))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(self.error(format!("{shown} is empty")).advice(ADVICE)),
            value => Ok(Secret::new(value)),
        }
    }
}

/// Reads a reference to a value that may be in the file.
pub(super) fn read(value: &Value<'_>) -> Option<Reference> {
    read_text(value, value.text()?)
}

fn read_text(value: &Value<'_>, text: &str) -> Option<Reference> {
    let origin = match scheme(text) {
        Some(("env", names)) => Origin::Variables(variables(value, names)?),
        Some((_, path)) => Origin::File(file(value, path)?),
        None => Origin::Literal(text.to_owned()),
    };
    Some(Reference { origin, location: Some(value.document.location(value.span().start)) })
}

/// Reads a reference to a secret. The secret itself is rejected, and not shown.
pub(super) fn read_secret(value: &Value<'_>) -> Option<Reference> {
    let text = value.text()?;
    if scheme(text).is_none() {
        let message = format!("`{}` contains a secret, and secrets must not be in this file", value.key);
        value.reject(message, r#"refer to the secret: "env:NAME" for an environment variable, "file:PATH" for a file"#);
        return None;
    }
    read(value)
}

/// Reads a reference to a secret with an optional prefix and a space, as in `Bearer env:API_TOKEN`. Returns the
/// prefix and the reference.
pub(super) fn read_prefixed_secret(value: &Value<'_>) -> Option<(String, Reference)> {
    let text = value.text()?;
    let at = text.rfind(' ').map_or(0, |space| space + 1);
    let (prefix, text) = text.split_at(at);
    if scheme(text).is_none() || prefix.bytes().any(|byte| !(byte.is_ascii_graphic() || byte == b' ')) {
        let message = format!("`{}` must refer to its value, because secrets must not be in this file", value.key);
        value.reject(message, r#"write "env:NAME" or "file:PATH", with an optional prefix: "Bearer env:API_TOKEN""#);
        return None;
    }
    Some((prefix.to_owned(), read_text(value, text)?))
}

/// Parses an `http` or `https` URL.
pub(super) fn parse_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
}

/// Whether a text is a reference, so that it can be shown: `env:` and names of variables, or `file:`.
pub(super) fn is_reference(text: &str) -> bool {
    match scheme(text) {
        Some(("env", names)) => names.split('|').all(is_variable),
        Some(_) => true,
        None => false,
    }
}

fn scheme(text: &str) -> Option<(&'static str, &str)> {
    ["env", "file"].into_iter().find_map(|scheme| Some((scheme, text.strip_prefix(scheme)?.strip_prefix(':')?)))
}

fn is_variable(name: &str) -> bool {
    let name = name.trim();
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn variables(value: &Value<'_>, names: &str) -> Option<Vec<String>> {
    if !names.split('|').all(is_variable) {
        // The value may be the secret, so it is not shown.
        let message = format!("`{}` does not name an environment variable", value.key);
        value.reject(message, r#"write the name after env:, for example, "env:UNIQUE_API_KEY", or several: "env:A|B""#);
        return None;
    }
    Some(names.split('|').map(|name| name.trim().to_owned()).collect())
}

fn file(value: &Value<'_>, path: &str) -> Option<PathBuf> {
    if path.trim().is_empty() {
        value.reject(
            format!("`{}` does not name a file", value.key),
            r#"write the path after file:, for example, "file:secrets/api-key""#,
        );
        return None;
    }
    Some(value.document.file().parent().unwrap_or(Path::new("")).join(path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn variables(names: &[&str]) -> Reference {
        let location = SourceLocation { file: Path::new("config/modules.toml").into(), line: 3, column: 11 };
        Reference {
            origin: Origin::Variables(names.iter().map(|name| name.to_string()).collect()),
            location: Some(location),
        }
    }

    fn file(path: PathBuf) -> Reference {
        Reference { origin: Origin::File(path), location: None }
    }

    #[test]
    fn uses_first_variable_with_value() {
        let environment: Environment = [("B", ""), ("C", "third"), ("D", "fourth")].into_iter().collect();
        assert_eq!(variables(&["A", "B", "C", "D"]).resolve(&environment).unwrap().expose(), "third");
    }

    #[test]
    fn names_unset_variables() {
        let environment: Environment = [("B", "")].into_iter().collect();
        assert_eq!(
            variables(&["A"]).resolve(&environment).unwrap_err().to_string(),
            "config/modules.toml:3:11: the environment variable A is not set\n  \
             = help: export A, or add A=… to the .env file next to modules.toml"
        );
        let empty = variables(&["B"]).resolve(&environment).unwrap_err();
        assert_eq!(empty.message(), "the environment variable B is empty");
        let none = variables(&["A", "B"]).resolve(&environment).unwrap_err();
        assert_eq!(none.message(), "none of these environment variables has a value: A, B");
    }

    #[test]
    fn strips_trailing_newline_of_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, " a key \r\n").unwrap();
        assert_eq!(file(path.clone()).resolve(&Environment::default()).unwrap().expose(), " a key ");

        fs::write(&path, "\n").unwrap();
        assert!(file(path).resolve(&Environment::default()).unwrap_err().message().ends_with("key is empty"));
        let missing = file(folder.path().join("none")).resolve(&Environment::default()).unwrap_err();
        assert!(missing.message().starts_with("there is no file "), "{missing}");
    }

    #[test]
    fn never_prints_given_values() {
        let given = Reference::given("ukey_local");
        assert_eq!(given.resolve(&Environment::default()).unwrap().expose(), "ukey_local");
        assert!(!format!("{given:?}").contains("ukey_local"));
    }
}
