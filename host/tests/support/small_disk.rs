//! A disk that is full soon.

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "notice.rs"]
pub mod notice;

/// A file system of a few megabytes in memory, gone with this.
pub struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// None where this test may not mount one.
    pub fn mount(megabytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { directory }),
            other => {
                notice::notice(&format!("SKIPPED a full disk: no small one can be mounted here ({other:?})"));
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes this much of it away; given back by removing the file.
    pub fn ballast(&self, bytes: usize) -> PathBuf {
        let path = self.path().join("ballast");
        std::fs::write(&path, vec![1; bytes]).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
