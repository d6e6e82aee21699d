//! Values that references resolve to: the variables of the process, those of a `.env` file, and the contents of
//! files.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reference::Origin;
use super::{ConfigError, Reference, Secret, Settings, dotenv};
use modhost_core::files::{self, NotRegular, ReadError};

/// The maximum size of a `.env` file, in bytes.
const MAX_DOTENV_SIZE: u64 = 1 << 20;

/// The maximum size of a file that a reference or a certificate names, in bytes.
const MAX_FILE_SIZE: u64 = 1 << 20;

/// The values that references resolve to, read once: the environment of the process is never changed, and the values
/// stay as they were when they were read.
#[derive(Clone, Default)]
pub struct Environment {
    /// Shared by the environments of all included files.
    variables: Arc<HashMap<String, Secret>>,
    /// The contents of files when this was created. Other files are read on demand.
    files: HashMap<PathBuf, Content>,
    /// Retained values that take precedence over the current ones.
    pub(super) overrides: HashMap<Origin, Secret>,
}

/// The content of a file, or the error of reading it.
type Content = Result<Arc<[u8]>, Arc<ReadError>>;

impl Environment {
    /// Reads the variables of the process and, if this folder has a `.env` file, the variables of that file.
    /// Variables of the process take precedence. Variables that are not UTF-8 count as unset.
    ///
    /// # Errors
    ///
    /// Returns an error if a `.env` file exists and cannot be read or parsed.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let mut variables = read_dotenv(&folder.as_ref().join(".env"))?;
        let process =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        variables.extend(process.map(|(name, value)| (name, Secret::new(value))));
        Ok(Self { variables: Arc::new(variables), ..Self::default() })
    }

    /// Reads the variables for a settings file, and the contents of all files that the settings name.
    ///
    /// # Errors
    ///
    /// Returns an error if a `.env` file exists and cannot be read or parsed. A file that cannot be read is an error
    /// of its reference.
    pub fn of(settings: &Settings) -> Result<Self, ConfigError> {
        let mut environment = Self::load(settings.file.parent().unwrap_or(Path::new("")))?;
        environment.read_files(settings);
        Ok(environment)
    }

    /// Reads the files that the settings name and that were not read before.
    fn read_files(&mut self, settings: &Settings) {
        let certificates = settings.server.tls.iter().map(|tls| tls.certificate.as_path());
        for path in settings.all_references().filter_map(Reference::file).chain(certificates) {
            if !self.files.contains_key(path) {
                self.files.insert(path.to_owned(), content(path));
            }
        }
    }

    /// Returns the same environment, plus the files that other settings name.
    pub fn with_files_of(&self, settings: &Settings) -> Self {
        let mut environment = self.clone();
        environment.read_files(settings);
        environment
    }

    /// Makes a file unreadable, because its file system did not respond before.
    pub fn set_unresponsive(&mut self, path: PathBuf) {
        let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "its file system does not respond");
        self.files.insert(path, Err(Arc::new(ReadError::Io(error))));
    }

    /// Whether the variables are the same, without the contents of files.
    pub fn has_same_variables(&self, other: &Self) -> bool {
        self.variables == other.variables
    }

    /// Returns the value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(Secret::expose)
    }

    /// Returns the content of a file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read.
    pub fn file(&self, path: &Path) -> Result<Arc<[u8]>, Arc<ReadError>> {
        self.files.get(path).cloned().unwrap_or_else(|| content(path))
    }

    /// Replaces the content of a file.
    pub(super) fn set_file(&mut self, path: PathBuf, bytes: Arc<[u8]>) {
        self.files.insert(path, Ok(bytes));
    }
}

fn content(path: &Path) -> Content {
    files::read(path, MAX_FILE_SIZE).map(Into::into).map_err(Arc::new)
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables: HashMap<_, _> =
            variables.into_iter().map(|(name, value)| (name.into(), Secret::new(value))).collect();
        Self { variables: Arc::new(variables), ..Self::default() }
    }
}

impl fmt::Debug for Environment {
    /// Shows names only: the values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

fn read_dotenv(path: &Path) -> Result<HashMap<String, Secret>, ConfigError> {
    let shown = path.display();
    let bytes = match files::read(path, MAX_DOTENV_SIZE) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(HashMap::new()),
        Err(ReadError::NotRegular(kind)) => return Err(not_regular(path, kind)),
        Err(error) => return Err(ConfigError::new(format!("{shown} {}", describe_read_error(&error)))),
    };
    let text = String::from_utf8(bytes)
        .map_err(|_| ConfigError::new(format!("{shown} is not UTF-8")).advice("save it as UTF-8"))?;
    dotenv::read(&text, path)
}

/// Returns the error for a path that is not a regular file.
pub(super) fn not_regular(path: &Path, kind: NotRegular) -> ConfigError {
    ConfigError::new(format!("{} {}", path.display(), kind.description())).advice("replace it with a regular file")
}

/// Returns why a file cannot be read, as the rest of a sentence that starts with its name.
pub fn describe_read_error(error: &ReadError) -> String {
    use std::io::ErrorKind;

    match error {
        ReadError::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
            "cannot be read: permission denied".into()
        }
        ReadError::Io(error) => format!("cannot be read: {error}"),
        ReadError::NotRegular(kind) => kind.description().into(),
        ReadError::TooLarge { max, .. } => {
            format!("is larger than the limit of {}", bytesize::ByteSize::b(*max).display().iec())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn prefers_process_variables() {
        let path = std::env::var("PATH").unwrap();
        assert_eq!(load("PATH=nowhere\n").unwrap().get("PATH"), Some(path.as_str()));
    }

    #[test]
    fn accepts_folder_without_dotenv_file() {
        assert!(Environment::load(tempfile::tempdir().unwrap()).unwrap().get("PATH").is_some());
    }

    #[test]
    fn names_the_malformed_line_without_showing_it() {
        let error = load("A=1\n\n# two\nMODHOST_TEST_KEY = sesame open\n").unwrap_err();
        assert!(error.starts_with("…/.env:4:"), "{error}");
        assert!(error.contains("this line is not NAME=value\n  = help: write NAME=value"), "{error}");
        assert!(!error.contains("sesame"), "{error}");

        let unclosed = load("A=1\nMODHOST_TEST_KEY='sesame\nB=2\n").unwrap_err();
        assert!(unclosed.starts_with("…/.env:2:18: "), "{unclosed}");
    }

    #[cfg(unix)]
    #[test]
    fn rejects_dotenv_that_is_not_a_regular_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        let error = || Environment::load(folder.path()).unwrap_err().to_string();
        fs::create_dir(&path).unwrap();
        assert!(error().contains("is a folder, not a file"), "{}", error());
        fs::remove_dir(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(error().contains("is not a regular file"), "{}", error());
        fs::remove_file(&path).unwrap();
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(error().contains("is larger than the limit of 1.0 MiB"), "{}", error());
    }

    #[test]
    fn never_prints_values() {
        let environment: Environment = [("KEY", "sesame")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), r#"{"KEY"}"#);
    }
}
