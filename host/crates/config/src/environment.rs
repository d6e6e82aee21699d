//! What references lead to: the process's own variables over those of a `.env` file, and the content of files.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reference::Origin;
use super::{ConfigError, Reference, Secret, Settings, dotenv};
use modhost_core::files::{self, NotRegular, ReadError};

/// The largest `.env`, in bytes.
const MAX_DOTENV: u64 = 1 << 20;

/// The largest file a reference or a certificate may name, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What references lead to, read once into maps: the process's own environment is never changed, and the values stay what they
/// were when they were read.
#[derive(Clone, Default)]
pub struct Environment {
    variables: HashMap<String, Secret>,
    /// Files as they were when this was made. Others are read when they are asked for.
    files: HashMap<PathBuf, Content>,
    /// Values that count for some time more in place of what is there now.
    pub(super) kept: HashMap<Origin, Secret>,
}

/// What a file holds, or why it can't be read.
type Content = Result<Arc<[u8]>, Arc<ReadError>>;

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
        Ok(Self { variables, ..Self::default() })
    }

    /// The same for a settings file, with the content of every file that the settings name.
    ///
    /// # Errors
    ///
    /// If there is a `.env` file that can't be read or understood. A file that can't be read is an error of its reference.
    pub fn of(settings: &Settings) -> Result<Self, ConfigError> {
        let mut environment = Self::load(settings.file.parent().unwrap_or(Path::new("")))?;
        environment.read_files(settings);
        Ok(environment)
    }

    /// Reads the files that these settings name, unless they were read already.
    fn read_files(&mut self, settings: &Settings) {
        let certificates = settings.server.tls.iter().map(|tls| tls.certificate.as_path());
        for path in settings.all_references().filter_map(Reference::file).chain(certificates) {
            if !self.files.contains_key(path) {
                self.files.insert(path.to_owned(), content(path));
            }
        }
    }

    /// The same, with the files that other settings name.
    pub fn with_files_of(&self, settings: &Settings) -> Self {
        let mut environment = self.clone();
        environment.read_files(settings);
        environment
    }

    /// What a variable is set to.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(Secret::expose)
    }

    /// What a file holds.
    pub fn file(&self, path: &Path) -> Result<Arc<[u8]>, Arc<ReadError>> {
        self.files.get(path).cloned().unwrap_or_else(|| content(path))
    }

    /// Puts another content in the place of a file's.
    pub(super) fn set_file(&mut self, path: PathBuf, bytes: Arc<[u8]>) {
        self.files.insert(path, Ok(bytes));
    }
}

fn content(path: &Path) -> Content {
    files::read(path, MAX_FILE).map(Into::into).map_err(Arc::new)
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), Secret::new(value))).collect();
        Self { variables, ..Self::default() }
    }
}

impl fmt::Debug for Environment {
    /// Names only: what the values are is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

fn read_dotenv(path: &Path) -> Result<HashMap<String, Secret>, ConfigError> {
    let shown = path.display();
    let bytes = match files::read(path, MAX_DOTENV) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(HashMap::new()),
        Err(ReadError::NotRegular(kind)) => return Err(not_regular(path, kind)),
        Err(error) => return Err(ConfigError::new(format!("{shown} {}", unread(&error)))),
    };
    let text = String::from_utf8(bytes)
        .map_err(|_| ConfigError::new(format!("{shown} is not written in UTF-8")).advice("save it as UTF-8"))?;
    dotenv::read(&text, path)
}

/// That something is no regular file.
pub(super) fn not_regular(path: &Path, kind: NotRegular) -> ConfigError {
    ConfigError::new(format!("{} {}", path.display(), kind.described())).advice("put a regular file there")
}

/// Why a file can't be read, to follow its name.
pub fn unread(error: &ReadError) -> String {
    use std::io::ErrorKind;

    match error {
        ReadError::Io(error) if error.kind() == ErrorKind::PermissionDenied => "may not be read by this user".into(),
        ReadError::Io(error) => format!("can't be read: {error}"),
        ReadError::NotRegular(kind) => kind.described().into(),
        ReadError::TooLarge { max, .. } => {
            format!("is larger than {}, which such a file never is", bytesize::ByteSize::b(*max).display().iec())
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
        assert!(error.contains("this line can't be understood\n  = help: write NAME=value"), "{error}");
        assert!(!error.contains("sesame"), "{error}");

        let unclosed = load("A=1\nMODHOST_TEST_KEY='sesame\nB=2\n").unwrap_err();
        assert!(unclosed.starts_with("…/.env:2:18: "), "{unclosed}");
    }

    #[cfg(unix)]
    #[test]
    fn a_dotenv_that_is_no_regular_file_is_refused() {
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
        assert!(error().contains("is larger than 1.0 MiB"), "{}", error());
    }

    #[test]
    fn values_are_never_printed() {
        let environment: Environment = [("KEY", "sesame")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), r#"{"KEY"}"#);
    }
}
