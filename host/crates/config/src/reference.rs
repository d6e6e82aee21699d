//! Values that are not in modules.toml but named by it.

use std::path::{Path, PathBuf};

use url::Url;

use super::environment::unread;
use super::table::Value;
use super::{ConfigError, Environment, Secret, SourceLocation};

/// Where a value is: `env:NAME`, `env:A|B|C` (the first that is set and not empty), `file:PATH`, or the value
/// itself where it is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    origin: Origin,
    place: Option<SourceLocation>,
}

/// Where a value is, whoever refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// The first of these variables that is set and not empty. Never none.
    Variables(Vec<String>),
    /// The content of this file.
    File(PathBuf),
    /// No secret, and so written down.
    Literal(String),
    /// Known already.
    Given(Secret),
}

/// As modules.toml has it; never a value.
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
    /// A value that is known already, as the local platform's credentials are.
    pub fn given(value: impl Into<String>) -> Self {
        Self { origin: Origin::Given(Secret::new(value)), place: None }
    }

    /// Looks the value up.
    ///
    /// # Errors
    ///
    /// If no variable is set or the file can't be read; says which, and what to do.
    pub fn resolve(&self, environment: &Environment) -> Result<Secret, ConfigError> {
        if let Some(kept) = environment.kept.get(&self.origin) {
            return Ok(kept.clone());
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

    /// Looks up a value that has to be a web address; `example` is what one looks like.
    ///
    /// # Errors
    ///
    /// As [`Reference::resolve`], and if the value is no address.
    pub fn resolve_url(&self, environment: &Environment, example: &str) -> Result<Url, ConfigError> {
        let value = self.resolve(environment)?;
        web_address(value.expose()).ok_or_else(|| {
            self.error("what this names is not a web address".into()).advice(format!("it has to look like {example}"))
        })
    }

    /// Reads a reference to a secret from the command line; `flag` names where it stood.
    ///
    /// # Errors
    ///
    /// If it is no reference: the secret itself would stand in the shell's history.
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
        Ok(Self { origin, place: None })
    }

    /// Where the value is.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How many of its variables have no value before the first one that has; none if it names no variables, or none of
    /// them has a value.
    pub(super) fn passed_over(&self, environment: &Environment) -> Option<usize> {
        let Origin::Variables(names) = &self.origin else { return None };
        names.iter().position(|name| environment.get(name).is_some_and(|value| !value.is_empty()))
    }

    /// The value, if it stands in the file itself.
    pub(crate) fn literal(&self) -> Option<&str> {
        match &self.origin {
            Origin::Literal(text) => Some(text),
            _ => None,
        }
    }

    /// An error about what this names.
    pub fn error(&self, message: String) -> ConfigError {
        ConfigError::new(message).at(self.place.clone())
    }

    /// What a shell reads the value with, inside double quotes.
    pub fn in_shell(&self) -> String {
        match &self.origin {
            Origin::Variables(names) => {
                // The first that has a value, as here.
                let (last, others) = names.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
                others.iter().rev().fold(format!("${{{last}}}"), |rest, name| format!("${{{name}:-{rest}}}"))
            }
            Origin::File(path) => format!("$(cat '{}')", path.display()),
            Origin::Literal(_) | Origin::Given(_) => "…".to_owned(),
        }
    }

    /// The file it names, if it names one.
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
        // The first is the one we would rather see.
        let name = names.first().map(String::as_str).unwrap_or_default();
        let file = self.place.as_ref().and_then(|place| place.file.file_name()).unwrap_or("modules.toml".as_ref());
        let file = file.to_string_lossy();
        self.error(message).advice(format!("export {name}, or write a line {name}=… into .env beside {file}"))
    }

    fn content(&self, path: &Path, environment: &Environment) -> Result<Secret, ConfigError> {
        const ADVICE: &str = "put the value, and nothing else, into this file";
        let shown = path.display();
        let refuse = |what: String| self.error(what).advice(format!("{ADVICE}, or name another"));
        let bytes = environment.file(path).map_err(|error| match error.is_not_found() {
            true => refuse(format!("there is no file {shown}")),
            false => refuse(format!("{shown} {}", unread(&error))),
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|_| refuse(format!("{shown} is not written in UTF-8")))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(self.error(format!("{shown} is empty")).advice(ADVICE)),
            value => Ok(Secret::new(value)),
        }
    }
}

/// Reads a reference to something that may be written down.
pub(super) fn read(value: &Value<'_>) -> Option<Reference> {
    read_text(value, value.text()?)
}

fn read_text(value: &Value<'_>, text: &str) -> Option<Reference> {
    let origin = match scheme(text) {
        Some(("env", names)) => Origin::Variables(variables(value, names)?),
        Some((_, path)) => Origin::File(file(value, path)?),
        None => Origin::Literal(text.to_owned()),
    };
    Some(Reference { origin, place: Some(value.document.place(value.span().start)) })
}

/// Reads a reference to a secret: the secret itself is refused, and not repeated.
pub(super) fn read_secret(value: &Value<'_>) -> Option<Reference> {
    let text = value.text()?;
    if scheme(text).is_none() {
        let message = format!("`{}` holds a secret itself, and secrets don't belong in this file", value.key);
        value.wrong(message, r#"write where it is: "env:NAME" for an environment variable, "file:PATH" for a file"#);
        return None;
    }
    read(value)
}

/// Reads a reference to a secret that may have a word and a space before it, as in `Bearer env:API_TOKEN`; answers with
/// what stands before it, and with the reference.
pub(super) fn read_secret_behind(value: &Value<'_>) -> Option<(String, Reference)> {
    let text = value.text()?;
    let at = text.rfind(' ').map_or(0, |space| space + 1);
    let (before, text) = text.split_at(at);
    if scheme(text).is_none() || before.bytes().any(|byte| !(byte.is_ascii_graphic() || byte == b' ')) {
        let message = format!("`{}` doesn't say where its value is, and secrets don't belong in this file", value.key);
        value.wrong(
            message,
            r#"write "env:NAME" or "file:PATH", with a word before it if need be: "Bearer env:API_TOKEN""#,
        );
        return None;
    }
    Some((before.to_owned(), read_text(value, text)?))
}

/// The address a text is, if it is one of the web.
pub(super) fn web_address(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
}

/// Whether a text can be taken for a reference, and so be shown: `env:` and names of variables, or `file:`.
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
        // What was written may be the secret, so it isn't repeated.
        let message = format!("`{}` doesn't name an environment variable", value.key);
        value.wrong(message, r#"write its name behind env: as in "env:UNIQUE_API_KEY", several as in "env:A|B""#);
        return None;
    }
    Some(names.split('|').map(|name| name.trim().to_owned()).collect())
}

fn file(value: &Value<'_>, path: &str) -> Option<PathBuf> {
    if path.trim().is_empty() {
        value.wrong(
            format!("`{}` names no file", value.key),
            r#"write its path behind file: as in "file:secrets/api-key""#,
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
        let place = SourceLocation { file: Path::new("config/modules.toml").into(), line: 3, column: 11 };
        Reference { origin: Origin::Variables(names.iter().map(|name| name.to_string()).collect()), place: Some(place) }
    }

    fn file(path: PathBuf) -> Reference {
        Reference { origin: Origin::File(path), place: None }
    }

    #[test]
    fn takes_the_first_variable_with_a_value() {
        let environment: Environment = [("B", ""), ("C", "third"), ("D", "fourth")].into_iter().collect();
        assert_eq!(variables(&["A", "B", "C", "D"]).resolve(&environment).unwrap().expose(), "third");
    }

    #[test]
    fn says_which_variables_it_looked_for() {
        let environment: Environment = [("B", "")].into_iter().collect();
        assert_eq!(
            variables(&["A"]).resolve(&environment).unwrap_err().to_string(),
            "config/modules.toml:3:11: the environment variable A is not set\n  \
             = help: export A, or write a line A=… into .env beside modules.toml"
        );
        let empty = variables(&["B"]).resolve(&environment).unwrap_err();
        assert_eq!(empty.message(), "the environment variable B is empty");
        let none = variables(&["A", "B"]).resolve(&environment).unwrap_err();
        assert_eq!(none.message(), "none of these environment variables has a value: A, B");
    }

    #[test]
    fn reads_a_file_without_its_last_newline() {
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
    fn what_is_given_is_never_printed() {
        let given = Reference::given("ukey_local");
        assert_eq!(given.resolve(&Environment::default()).unwrap().expose(), "ukey_local");
        assert!(!format!("{given:?}").contains("ukey_local"));
    }
}
