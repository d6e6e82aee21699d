//! Distinguishes a build's own output among a module's sources from changes by the author: compilers and generators may
//! write there. Building again because of such output would never end.
//!
//! `dev` learns which files are output: those that the first build writes, and those that two successive builds write.
//! If only one build wrote a file, the author may have saved the file during that build. A change while no build runs
//! is always the author's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use modhost_runtime::engine::{Stamp, stamp, stamps};

/// What the builds so far have shown about the files of a module.
#[derive(Debug, Default)]
pub(super) struct BuildOutputs {
    /// Whether a build has ended.
    has_built: bool,
    /// The files before and after the last build.
    before: BTreeMap<PathBuf, Stamp>,
    after: BTreeMap<PathBuf, Stamp>,
    /// Files that builds write.
    outputs: BTreeSet<PathBuf>,
    /// Files that changed during the last build, by the build or by the author.
    undecided: BTreeSet<PathBuf>,
}

impl BuildOutputs {
    /// Returns whether a change of this file requires a build.
    pub fn is_source_change(&mut self, file: &PathBuf) -> bool {
        if !self.has_built {
            return true;
        }
        let now = stamp(file);
        if self.outputs.contains(file) {
            if now.as_ref() == self.after.get(file) {
                return false;
            }
            self.outputs.remove(file);
            return true;
        }
        // The last build included the content from before it.
        now.as_ref() != self.before.get(file)
    }

    /// Records the files at the start of a build.
    pub fn begin(&mut self, files: &BTreeSet<PathBuf>) {
        self.before = stamps(files);
    }

    /// Records the files at the end of a build.
    pub fn end(&mut self, files: &BTreeSet<PathBuf>) {
        self.after = stamps(files);
        let all = self.before.keys().chain(self.after.keys());
        let changed = all.filter(|file| self.before.get(*file) != self.after.get(*file));
        let (outputs, undecided): (BTreeSet<_>, _) = changed
            .cloned()
            .partition(|file| !self.has_built || self.outputs.contains(file) || self.undecided.contains(file));
        self.outputs.extend(outputs);
        self.undecided = undecided;
        self.has_built = true;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with a source file and build output.
    struct Folder {
        folder: tempfile::TempDir,
        outputs: BuildOutputs,
        writes: u64,
    }

    impl Folder {
        fn new() -> Self {
            let mut new = Self { folder: tempfile::tempdir().unwrap(), outputs: BuildOutputs::default(), writes: 0 };
            new.save("source");
            new
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn files(&self) -> BTreeSet<PathBuf> {
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
        }

        /// Writes a file, longer each time, so that its stamp changes whatever the resolution of the file system's clock.
        fn save(&mut self, name: &str) {
            self.writes += 1;
            fs::write(self.path(name), "x".repeat(self.writes as usize)).unwrap();
        }

        fn build(&mut self, writes: &[&str]) {
            let files = self.files();
            self.outputs.begin(&files);
            for name in writes {
                self.save(name);
            }
            let files = self.files();
            self.outputs.end(&files);
        }

        fn is_source_change(&mut self, name: &str) -> bool {
            let path = self.path(name);
            self.outputs.is_source_change(&path)
        }
    }

    #[test]
    fn ignores_files_of_the_first_build() {
        let mut folder = Folder::new();
        assert!(folder.is_source_change("source"));
        folder.build(&["out"]);
        assert!(!folder.is_source_change("out"));
        folder.save("source");
        assert!(folder.is_source_change("source"));
        folder.build(&["out"]);
        assert!(!folder.is_source_change("out") && !folder.is_source_change("source"));
    }

    #[test]
    fn ignores_files_of_two_successive_builds() {
        let mut folder = Folder::new();
        folder.build(&["out"]);
        folder.save("source");
        folder.build(&["out", "new"]);
        assert!(folder.is_source_change("new"), "the author may have saved it");
        folder.build(&["out", "new"]);
        assert!(!folder.is_source_change("new") && !folder.is_source_change("out"));
    }

    #[test]
    fn rebuilds_if_a_source_is_saved_during_a_build() {
        let mut folder = Folder::new();
        folder.build(&["out"]);
        folder.save("source");
        folder.build(&["out", "source"]);
        assert!(folder.is_source_change("source"));
        folder.build(&["out"]);
        assert!(!folder.is_source_change("source"));
        folder.save("source");
        assert!(folder.is_source_change("source"));
    }

    #[test]
    fn rebuilds_on_changes_between_builds() {
        let mut folder = Folder::new();
        folder.build(&["out", "source"]);
        assert!(!folder.is_source_change("source"));
        folder.save("source");
        assert!(folder.is_source_change("source"));
        fs::remove_file(folder.path("out")).unwrap();
        assert!(folder.is_source_change("out"));
    }
}
