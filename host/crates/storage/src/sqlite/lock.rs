//! The lock that lets only one process use a data directory.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::directory_error;
use crate::error::StorageError;

/// The name of the store that the lock file belongs to.
const STORE: &str = "journal";

/// The lock of a data directory, held by this process.
#[derive(Debug)]
pub struct DirectoryLock(File);

impl DirectoryLock {
    /// Acquires the lock of an existing directory. The lock file is named after the journal, which is opened first.
    ///
    /// # Errors
    ///
    /// If another process holds the lock, or the directory cannot be used.
    pub fn take(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join("journal.lock");
        let unusable = |error: std::io::Error| directory_error(STORE, directory, &error);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {
                // The process id is only for the error message of a second process.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                let directory = directory.display();
                Err(StorageError::unusable(
                    STORE,
                    format!(
                        "another modhost{holder} already runs on the data directory {directory}; stop it, or give this \
                         one another directory"
                    ),
                ))
            }
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

impl Drop for DirectoryLock {
    /// Unlocks explicitly, because a child process that is being started may still have the file open.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}
