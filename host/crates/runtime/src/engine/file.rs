//! Reads component files. The path is not trusted: it may be a huge file, a pipe or a device.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::LoadError;
use super::loaded_components::off_thread;
use super::version::ContentHash;
use modhost_contract::compat::{Incompatibility, MAX_SIZE};
use modhost_core::files::{self, NotRegular, ReadError};

/// A component that was read, and its hash, which takes milliseconds to compute. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ComponentFile {
    pub(crate) hash: ContentHash,
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl ComponentFile {
    /// Hashes a component. Blocks the thread for milliseconds.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { hash: ContentHash::of(&bytes), bytes: Arc::new(bytes) }
    }

    /// Reads and hashes a component.
    ///
    /// # Errors
    ///
    /// See [`read`].
    pub(crate) async fn read(path: &Path) -> Result<Self, LoadError> {
        let path = path.to_owned();
        off_thread(move || Ok(Self::new(read(&path)?))).await
    }
}

/// Reads a component. Doesn't block on a pipe or device, and reads nothing of a file that is too large.
///
/// # Errors
///
/// If the file can't be read, isn't a regular file, or exceeds [`MAX_SIZE`].
fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |error| LoadError::Unreadable { path: path.display().to_string(), error };
    files::read(path, MAX_SIZE).map_err(|error| match error {
        ReadError::Io(error) => unreadable(error),
        ReadError::NotRegular(NotRegular::Folder) => {
            unreadable(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"))
        }
        ReadError::NotRegular(NotRegular::Special) => {
            unreadable(io::Error::other("it is not a regular file, but a pipe, a device or similar"))
        }
        ReadError::TooLarge { size, max } => Incompatibility::TooLarge { size, max_size: max }.into(),
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn error_text(path: impl AsRef<Path>) -> String {
        read(path.as_ref()).expect_err("reading must fail").to_string()
    }

    #[test]
    fn refuses_folders_pipes_devices_and_huge_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(error_text(folder.path()).ends_with(": it is a folder"));
        assert!(error_text(at("nothing")).contains("there is no such file"));
        assert!(error_text("/dev/zero").ends_with("it is not a regular file, but a pipe, a device or similar"));
        // The pipe never gets a writer.
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        assert!(error_text(at("pipe")).ends_with("it is not a regular file, but a pipe, a device or similar"));
        // A sparse file of 1 TiB.
        std::fs::File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(error_text(at("sparse")).contains("1.0 TiB"), "{}", error_text(at("sparse")));
        std::fs::write(at("component"), b"\0asm").unwrap();
        assert_eq!(read(&at("component")).unwrap(), b"\0asm");
    }
}
