//! The components of versions. Each is stored in a file that is named by the hash of its bytes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::ContentHash;
use modhost_core::event::Name;

/// The extension of a component's file.
const EXTENSION: &str = "wasm";

/// The limits of the kept components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Maximum number of components for each module, including the serving one.
    pub of_module: usize,
    /// Maximum size of all components together, in bytes. Components that serve, are canaries or are pinned are always
    /// kept.
    pub bytes: u64,
}

/// A version in the record, as input of [`Components::purge`].
pub(super) struct Known {
    pub(super) module: Name,
    pub(super) hash: ContentHash,
    /// Whether it must be kept, because it serves, is a canary or is pinned.
    pub(super) must_keep: bool,
}

/// The files of components, with their sizes in bytes.
pub(super) type Files = HashMap<ContentHash, (PathBuf, u64)>;

/// The folder of components.
pub(super) struct Components {
    folder: PathBuf,
    keep: Keep,
}

/// Returns the folder of the components of a data directory.
pub(crate) fn folder(directory: &Path) -> PathBuf {
    directory.join("versions")
}

/// Returns whether a folder contains a component.
pub(super) fn has(folder: &Path, hash: ContentHash) -> bool {
    path(folder, hash).is_file()
}

fn path(folder: &Path, hash: ContentHash) -> PathBuf {
    folder.join(format!("{}.{EXTENSION}", hash.to_hex()))
}

impl Components {
    pub(super) fn open(folder: PathBuf, keep: Keep) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, keep })
    }

    fn path(&self, hash: ContentHash) -> PathBuf {
        path(&self.folder, hash)
    }

    pub(super) fn has(&self, hash: ContentHash) -> bool {
        has(&self.folder, hash)
    }

    /// Returns the bytes of a component, if it is kept and unchanged. Removes a file that was changed.
    pub(super) fn get(&self, hash: ContentHash) -> Option<Vec<u8>> {
        let path = self.path(hash);
        let bytes = fs::read(&path).ok()?;
        if ContentHash::of(&bytes) == hash {
            return Some(bytes);
        }
        tracing::warn!(file = %path.display(), "kept component does not match its hash; removing it");
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(%error, "cannot remove a component");
        }
        None
    }

    /// Writes a component atomically, unless it exists. Returns whether it was written.
    pub(super) fn put(&self, hash: ContentHash, bytes: &[u8]) -> io::Result<bool> {
        let path = self.path(hash);
        if fs::metadata(&path).is_ok_and(|file| file.len() == bytes.len() as u64) {
            return Ok(false);
        }
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(true)
    }

    /// Returns the files of the kept components, with their sizes in bytes.
    pub(super) fn files(&self) -> io::Result<Files> {
        let mut files = HashMap::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let name = file.file_name();
            let digits =
                name.to_str().and_then(|name| name.strip_suffix(EXTENSION)).and_then(|name| name.strip_suffix('.'));
            // Other files are not components, or are being written.
            if let Some(hash) = digits.and_then(ContentHash::from_hex) {
                match file.metadata() {
                    Ok(metadata) => drop(files.insert(hash, (file.path(), metadata.len()))),
                    // `get` has removed a damaged one.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(files)
    }

    /// Removes those of `files` that have no version in the record and, beyond the limits, those of the versions recorded
    /// longest ago. `known` is ordered newest first. Those in `unrecorded` were just written and are kept even if they
    /// are not in the record yet.
    pub(super) fn purge(&self, files: Files, unrecorded: &HashSet<ContentHash>, known: Vec<Known>) -> io::Result<()> {
        let sizes = files.iter().map(|(hash, (_, length))| (*hash, *length)).collect();
        let wanted = choose(&self.keep, &sizes, unrecorded, known);
        for (_, (path, _)) in files.into_iter().filter(|(hash, _)| !wanted.contains(hash)) {
            match fs::remove_file(path) {
                // `get` has removed a damaged one.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Chooses the components to keep, of those with these sizes in bytes; see [`Components::purge`].
pub(super) fn choose(
    keep: &Keep,
    sizes: &HashMap<ContentHash, u64>,
    unrecorded: &HashSet<ContentHash>,
    known: Vec<Known>,
) -> HashSet<ContentHash> {
    let mut wanted: HashSet<ContentHash> =
        known.iter().filter(|it| it.must_keep).map(|it| it.hash).chain(unrecorded.iter().copied()).collect();
    let size = |hash: &ContentHash| sizes.get(hash).copied().unwrap_or_default();
    let mut bytes: u64 = wanted.iter().map(size).sum();
    let mut of_module = HashMap::<Name, usize>::new();
    for Known { module, hash, .. } in known {
        let count = of_module.entry(module).or_default();
        *count += usize::from(sizes.contains_key(&hash));
        if *count <= keep.of_module && !wanted.contains(&hash) && bytes + size(&hash) <= keep.bytes {
            bytes += size(&hash);
            wanted.insert(hash);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u8) -> Vec<u8> {
        vec![number; 100]
    }

    fn hash(number: u8) -> ContentHash {
        ContentHash::of(&bytes(number))
    }

    fn known(module: &str, number: u8, must_keep: bool) -> Known {
        Known { module: module.into(), hash: hash(number), must_keep }
    }

    fn with(keep: Keep, numbers: std::ops::Range<u8>) -> (tempfile::TempDir, Components) {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::open(folder.path().join("versions"), keep).unwrap();
        for number in numbers {
            assert!(components.put(hash(number), &bytes(number)).unwrap());
        }
        (folder, components)
    }

    fn kept_numbers(components: &Components, numbers: std::ops::Range<u8>) -> Vec<u8> {
        numbers.filter(|number| components.has(hash(*number))).collect()
    }

    #[test]
    fn keeps_the_latest_components_of_each_module() {
        let (_folder, components) = with(Keep { of_module: 2, bytes: 1 << 20 }, 0..6);
        let list = vec![known("a", 5, true), known("a", 4, false), known("b", 3, true), known("a", 2, false)];
        components.purge(components.files().unwrap(), &HashSet::from([hash(5)]), list).unwrap();
        assert_eq!(kept_numbers(&components, 0..6), [3, 4, 5], "2 exceeds the limit, 0 and 1 have no version");
    }

    #[test]
    fn keeps_serving_components_whatever_their_size() {
        let (_folder, components) = with(Keep { of_module: 9, bytes: 250 }, 0..6);
        let list = (0..6).rev().map(|number| known("a", number, number == 0 || number == 5)).collect();
        components.purge(components.files().unwrap(), &HashSet::from([hash(5)]), list).unwrap();
        assert_eq!(kept_numbers(&components, 0..6), [0, 5]);
    }

    #[test]
    fn rejects_a_damaged_component() {
        let (_folder, components) = with(Keep { of_module: 2, bytes: 1 << 20 }, 0..2);
        fs::write(components.path(hash(0)), bytes(7)).unwrap();
        assert_eq!(components.get(hash(0)), None);
        assert_eq!(components.get(hash(1)), Some(bytes(1)));
        assert_eq!(kept_numbers(&components, 0..2), [1]);
    }
}
