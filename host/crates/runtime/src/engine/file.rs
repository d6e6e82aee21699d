//! Reading a component's file. Who writes it may be anybody, so it may be as long as a disk, or no file at all.

use std::io;
use std::path::Path;

use super::LoadError;
use modhost_contract::compat::{Incompatibility, MAX_SIZE};
use modhost_core::files::{self, NotRegular, ReadError};

/// Reads a component. Waits for nobody who might write one, and reads nothing of what is too large to be one.
///
/// # Errors
///
/// When it can't be read, is no file, or is larger than a component may be.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |error| LoadError::Unreadable { path: path.display().to_string(), error };
    files::read(path, MAX_SIZE).map_err(|error| match error {
        ReadError::Io(error) => unreadable(error),
        ReadError::NotRegular(NotRegular::Folder) => {
            unreadable(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"))
        }
        ReadError::NotRegular(NotRegular::Special) => {
            unreadable(io::Error::other("it is no file, but a pipe, a device or the like"))
        }
        ReadError::TooLarge { size, max } => Incompatibility::TooLarge { size, max_size: max }.into(),
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn said(path: impl AsRef<Path>) -> String {
        read(path.as_ref()).expect_err("it can't be read").to_string()
    }

    #[test]
    fn what_is_no_component_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(said(folder.path()).ends_with(": it is a folder"));
        assert!(said(at("nothing")).contains("there is no such file"));
        assert!(said("/dev/zero").ends_with("it is no file, but a pipe, a device or the like"));
        // Nobody will ever write into it.
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        assert!(said(at("pipe")).ends_with("it is no file, but a pipe, a device or the like"));
        // As large as a disk, and takes no room on it.
        std::fs::File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(said(at("sparse")).contains("1.0 TiB"), "{}", said(at("sparse")));
        std::fs::write(at("component"), b"\0asm").unwrap();
        assert_eq!(read(&at("component")).unwrap(), b"\0asm");
    }
}
