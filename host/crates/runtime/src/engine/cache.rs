//! Compiled components on disk: what was compiled once is mapped the next time.
//!
//! An entry is named by the hash of the component, by what the compiler was and how it was set, and by the hash of its own
//! bytes. It is written beside its place and then renamed, and never changed after that; one that was cut short or damaged
//! since is told by its name. The folder is this user's alone: what lies in it is run as code.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir, TempPath};
use wasmtime::component::Component;

use super::version::ContentHash;
use modhost_core::sync::lock;

/// How an entry's file name ends.
const ENDING: &str = "cwasm";

/// From what age on a file without such a name is nobody's any more.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of compiled components.
pub(super) struct Cache {
    folder: PathBuf,
    /// What the compiler is and how it is set: what another one made is of no use.
    compiler: String,
    max_bytes: u64,
    entries: Mutex<HashMap<ContentHash, Entry>>,
    /// A folder that goes with the cache; then nothing is kept in it.
    fleeting: Option<TempDir>,
}

#[derive(Clone)]
struct Entry {
    path: PathBuf,
    /// The hash of its bytes, as its name has it.
    hash: String,
}

/// A compiled component on disk that is as it was written.
pub(super) struct Kept {
    path: PathBuf,
    /// Removes the file in the end, if it isn't to be found again. What is mapped of it stays.
    _fleeting: Option<TempPath>,
}

impl Cache {
    /// Opens a folder, or makes it; beyond `max_bytes` what was used longest ago is removed.
    ///
    /// # Errors
    ///
    /// When it can't be made, or others than this user can write or read in it.
    pub fn open(folder: PathBuf, engine: &wasmtime::Engine, max_bytes: u64) -> io::Result<Self> {
        make(&folder)?;
        let was_private = keep_private(&folder)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let compiler = format!("{:016x}", hasher.finish());
        let cache = Self { folder, compiler, max_bytes, entries: Mutex::default(), fleeting: None };
        if !was_private {
            tracing::warn!(folder = %cache.folder.display(), "other users could write to the cache; its components are compiled again");
            return Ok(cache);
        }
        for file in fs::read_dir(&cache.folder)? {
            let file = file?;
            if is_entry(&file.path()) {
                cache.take_in(&file.path());
            } else if is_forgotten(&file) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(cache)
    }

    /// A cache that keeps nothing: what is compiled goes by way of a folder of the system's for temporary files.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn fleeting(engine: &wasmtime::Engine) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("modhost-").tempdir()?;
        keep_private(folder.path())?;
        let cache = Self::open(folder.path().to_owned(), engine, u64::MAX)?;
        Ok(Self { fleeting: Some(folder), ..cache })
    }

    /// Whether it keeps nothing.
    pub fn is_fleeting(&self) -> bool {
        self.fleeting.is_some()
    }

    /// Where it is, for people.
    pub fn shown(&self) -> String {
        self.folder.display().to_string()
    }

    /// The compiled component of these bytes, if it is here.
    pub fn get(&self, hash: ContentHash) -> Option<Kept> {
        let entry = self.entries().get(&hash)?.clone();
        match is_as_written(&entry) {
            Ok(()) => {
                // What is used stays: the time of the file is that of its last use.
                let now = fs::File::options()
                    .append(true)
                    .open(&entry.path)
                    .and_then(|it| it.set_modified(SystemTime::now()));
                if let Err(error) = now {
                    tracing::debug!(%error, "cannot update the time of a cached component");
                }
                Some(Kept { path: entry.path, _fleeting: None })
            }
            Err(reason) => {
                self.refuse(hash, &reason);
                None
            }
        }
    }

    /// Gives up an entry that is of no use, and says so.
    pub fn refuse(&self, hash: ContentHash, reason: &str) {
        tracing::warn!(version = %hash, folder = self.shown(), reason, "cached component is unusable; compiling it again");
        self.forget(hash);
    }

    /// Removes an entry.
    pub fn forget(&self, hash: ContentHash) {
        if let Some(entry) = self.entries().remove(&hash)
            && let Err(error) = fs::remove_file(&entry.path)
        {
            tracing::debug!(file = %entry.path.display(), %error, "cannot remove a cached component");
        }
    }

    /// A file to write a compiled component into, readable for this user alone. Nobody finds it before it is kept.
    ///
    /// # Errors
    ///
    /// When the folder can't be written to.
    pub fn blank(&self) -> io::Result<NamedTempFile> {
        match NamedTempFile::new_in(&self.folder) {
            // Someone has cleared up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&self.folder)?;
                NamedTempFile::new_in(&self.folder)
            }
            blank => blank,
        }
    }

    /// Keeps what was written into a blank file. If room has to be made for it, `serving` stay: whoever saves many versions
    /// of their own must not have those of others compiled again at the next start.
    ///
    /// # Errors
    ///
    /// When it can't be read, or not be given its name.
    pub fn keep(
        &self,
        hash: ContentHash,
        written: NamedTempFile,
        mut serving: HashSet<ContentHash>,
    ) -> io::Result<Kept> {
        if self.is_fleeting() {
            return Ok(Kept::fleeting(written));
        }
        // Not waited for until it is on disk: what a crash cuts short doesn't have the hash of its name.
        let own = hash_of(written.path())?;
        let path = self.folder.join(format!("{}-{}-{own}.{ENDING}", hash.in_full(), self.compiler));
        written.persist(&path)?;
        self.entries().insert(hash, Entry { path: path.clone(), hash: own });
        serving.insert(hash);
        if let Err(error) = self.make_room(&serving) {
            tracing::warn!(folder = self.shown(), %error, "cannot shrink the cache");
        }
        Ok(Kept { path, _fleeting: None })
    }

    /// Takes in a file that was there before; what this compiler can't use is left until there is no room for it.
    fn take_in(&self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = name.strip_suffix(ENDING).and_then(|name| name.strip_suffix('.')) else { return };
        let mut parts = name.split('-');
        if let (Some(component), Some(compiler), Some(own), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
            && compiler == self.compiler
            && let Some(hash) = ContentHash::from_hex(component)
        {
            self.entries().insert(hash, Entry { path: path.to_owned(), hash: own.to_owned() });
        }
    }

    /// Removes what was used longest ago but for these, until the rest has room. What is mapped stays so: its file is only
    /// unlinked.
    fn make_room(&self, stay: &HashSet<ContentHash>) -> io::Result<()> {
        let stay: HashSet<PathBuf> = {
            let entries = self.entries();
            stay.iter().filter_map(|hash| entries.get(hash)).map(|entry| entry.path.clone()).collect()
        };
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            // What has no name yet is being written.
            if is_entry(&file.path())
                && let Ok(metadata) = file.metadata()
            {
                files.push((metadata.modified()?, metadata.len(), file.path()));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        files.sort();
        for (_, length, path) in files.iter().filter(|(_, _, path)| !stay.contains(path)) {
            if bytes <= self.max_bytes {
                break;
            }
            fs::remove_file(path)?;
            self.entries().retain(|_, entry| entry.path != *path);
            bytes -= length;
        }
        Ok(())
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ContentHash, Entry>> {
        lock(&self.entries)
    }
}

impl Kept {
    /// What is only to be mapped once.
    pub fn fleeting(written: NamedTempFile) -> Self {
        let path = written.into_temp_path();
        Self { path: path.to_path_buf(), _fleeting: Some(path) }
    }

    /// Maps it, if this engine can use it.
    ///
    /// # Errors
    ///
    /// When it is none of this compiler's, or has no place in the engine's pool.
    pub fn map(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        // SAFETY: `deserialize_file` wants bytes that Wasmtime's compiler made and that nobody changes while they are
        // mapped. They are either what a compiling process of this very program has just written, or an entry whose bytes
        // were just compared with the hash in its name (`get`), which is that of such bytes (`keep`); Wasmtime itself
        // compares the version and the settings of the compiler. The folder is readable and writable by this user alone
        // (`keep_private`), and this program never writes into a file there once it can be mapped: a new one is renamed into
        // its place, and an old one is unlinked. Who can change it all the same can change this program as well.
        #[allow(unsafe_code)]
        unsafe {
            Component::deserialize_file(engine, &self.path)
        }
    }
}

/// Whether a file has the name of a compiled component.
fn is_entry(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == ENDING)
}

/// Whether a file was left by a host that was killed while it compiled, and not by one that is just about to.
fn is_forgotten(file: &fs::DirEntry) -> bool {
    let age = file.metadata().ok().filter(fs::Metadata::is_file).and_then(|it| it.modified().ok()?.elapsed().ok());
    age.is_some_and(|age| age > FORGOTTEN)
}

/// Whether an entry's bytes have the hash of its name.
fn is_as_written(entry: &Entry) -> Result<(), String> {
    match hash_of(&entry.path) {
        Ok(hash) if hash == entry.hash => Ok(()),
        Ok(_) => Err("it is not as it was written".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn hash_of(path: &Path) -> io::Result<String> {
    Ok(hex::encode(Sha256::digest(fs::read(path)?)))
}

/// Makes a folder that is this user's alone, unless it is there.
#[cfg(unix)]
fn make(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Sees to it that a folder is this user's alone; false if others could write in it before.
#[cfg(unix)]
fn keep_private(folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    /// The bits that let the group and all others write.
    const WRITABLE: u32 = 0o022;

    let before = fs::symlink_metadata(folder)?.permissions().mode();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    // Only its owner may change a folder's mode, and root any: who owns it is told by a file of our own.
    let own = NamedTempFile::new_in(folder)?;
    if fs::symlink_metadata(folder)?.uid() != own.as_file().metadata()?.uid() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    Ok(before & WRITABLE == 0)
}

#[cfg(not(unix))]
fn keep_private(_: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_serves_stays_when_room_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("components"), &wasmtime::Engine::default(), 250).unwrap();
        let hashes = [1, 2, 3].map(|number: u8| ContentHash::of(&[number]));
        for hash in hashes {
            let mut blank = cache.blank().unwrap();
            blank.write_all(&[0; 100]).unwrap();
            cache.keep(hash, blank, HashSet::from([hashes[0]])).unwrap();
        }
        assert_eq!(hashes.map(|hash| cache.get(hash).is_some()), [true, false, true]);
    }
}
