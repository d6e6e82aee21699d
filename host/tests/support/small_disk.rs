//! A disk that is soon full.

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "notice.rs"]
pub mod notice;

/// An in-memory file system of a few megabytes, unmounted on drop.
pub struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts it; `None` if this test may not mount.
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

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fills this many bytes with a file; removing the file frees them.
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
