//! What a build writes among the sources it is made from: compilers leave files there, generators write bindings there. A
//! change of these is no reason to build again, or the building would never end.
//!
//! Nobody says which these are, so it is found out. What the first build writes is of its making. So is what two builds
//! running write; after the one, it may as well have been a person who saved in the meantime, and the second finds out.
//! Whatever changes while nothing is built is a person's again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use modhost_runtime::engine::{Stamp, stamp, stamps};

/// What is known about a module's files from the builds so far.
#[derive(Debug, Default)]
pub(super) struct BuiltComponents {
    /// Whether there was a build.
    built: bool,
    /// The files as they were when the last build began, and when it had ended.
    before: BTreeMap<PathBuf, Stamp>,
    after: BTreeMap<PathBuf, Stamp>,
    /// Those that builds write.
    files: BTreeSet<PathBuf>,
    /// Those that changed during the last build, but may be a person's.
    doubtful: BTreeSet<PathBuf>,
}

impl BuiltComponents {
    /// Whether a change of this file calls for a build.
    pub fn counts(&mut self, file: &PathBuf) -> bool {
        if !self.built {
            return true;
        }
        let now = stamp(file);
        if self.files.contains(file) {
            if now.as_ref() == self.after.get(file) {
                return false;
            }
            self.files.remove(file);
            return true;
        }
        // What the last build began with is built already.
        now.as_ref() != self.before.get(file)
    }

    /// A build begins, with these files.
    pub fn begin(&mut self, files: &BTreeSet<PathBuf>) {
        self.before = stamps(files);
    }

    /// It has ended, and these files are there.
    pub fn end(&mut self, files: &BTreeSet<PathBuf>) {
        self.after = stamps(files);
        let all = self.before.keys().chain(self.after.keys());
        let changed = all.filter(|file| self.before.get(*file) != self.after.get(*file));
        let (made, doubtful): (BTreeSet<_>, _) =
            changed.cloned().partition(|file| !self.built || self.files.contains(file) || self.doubtful.contains(file));
        self.files.extend(made);
        self.doubtful = doubtful;
        self.built = true;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with a source and what is built of it.
    struct Folder {
        folder: tempfile::TempDir,
        made: BuiltComponents,
        writes: u64,
    }

    impl Folder {
        fn new() -> Self {
            let mut new = Self { folder: tempfile::tempdir().unwrap(), made: BuiltComponents::default(), writes: 0 };
            new.save("source");
            new
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn files(&self) -> BTreeSet<PathBuf> {
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
        }

        /// Writes a file, longer each time: its stamp is another whatever the clock of the file system can tell apart.
        fn save(&mut self, name: &str) {
            self.writes += 1;
            fs::write(self.path(name), "x".repeat(self.writes as usize)).unwrap();
        }

        fn build(&mut self, writes: &[&str]) {
            let files = self.files();
            self.made.begin(&files);
            for name in writes {
                self.save(name);
            }
            let files = self.files();
            self.made.end(&files);
        }

        fn counts(&mut self, name: &str) -> bool {
            let path = self.path(name);
            self.made.counts(&path)
        }
    }

    #[test]
    fn what_the_first_build_writes_is_its_own() {
        let mut folder = Folder::new();
        assert!(folder.counts("source"));
        folder.build(&["out"]);
        assert!(!folder.counts("out"));
        folder.save("source");
        assert!(folder.counts("source"));
        folder.build(&["out"]);
        assert!(!folder.counts("out") && !folder.counts("source"));
    }

    #[test]
    fn what_two_builds_running_write_is_theirs() {
        let mut folder = Folder::new();
        folder.build(&["out"]);
        folder.save("source");
        folder.build(&["out", "new"]);
        assert!(folder.counts("new"), "it may be somebody's");
        folder.build(&["out", "new"]);
        assert!(!folder.counts("new") && !folder.counts("out"));
    }

    #[test]
    fn who_saves_during_a_build_has_it_built_again() {
        let mut folder = Folder::new();
        folder.build(&["out"]);
        folder.save("source");
        folder.build(&["out", "source"]);
        assert!(folder.counts("source"));
        folder.build(&["out"]);
        assert!(!folder.counts("source"));
        folder.save("source");
        assert!(folder.counts("source"));
    }

    #[test]
    fn what_changes_while_nothing_is_built_is_somebodys() {
        let mut folder = Folder::new();
        folder.build(&["out", "source"]);
        assert!(!folder.counts("source"));
        folder.save("source");
        assert!(folder.counts("source"));
        fs::remove_file(folder.path("out")).unwrap();
        assert!(folder.counts("out"));
    }
}
