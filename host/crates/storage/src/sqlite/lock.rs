//! The lock that makes a data directory one process's.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::StorageError;

/// What makes a data directory this process's, for as long as it is held.
#[derive(Debug)]
pub struct DirectoryLock(File);

impl DirectoryLock {
    /// Takes the lock of a directory that is there. The journal gave it its name, being the first to be opened.
    pub fn take(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join("journal.lock");
        let unusable = |error: std::io::Error| StorageError::unreachable(directory, &error);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {
                // For the message of the one that comes second; nothing depends on it.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                Err(StorageError::Unusable(format!(
                    "another modhost{holder} already runs on the data directory {}; stop it, or give this one another \
                     directory",
                    directory.display()
                )))
            }
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

impl Drop for DirectoryLock {
    /// Said, not left to the closing of the file: a process that is just being started has it open too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}
