//! Compiled components on disk: what was compiled once is mapped the next time.
//!
//! An entry is named by the hash of the component, by what the compiler was and how it was set, and by the hash of its own
//! bytes. It is written beside its place and then renamed, and never changed after that; so one that is there is whole, and
//! one that was damaged since is told by its name. The folder is this user's alone: what lies in it is run as code.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::version::ContentHash;

/// How an entry's file name ends.
const ENDING: &str = "cwasm";

/// A folder of compiled components.
pub(super) struct Cache {
    folder: PathBuf,
    /// What the compiler is and how it is set: what another one made is of no use.
    compiler: String,
    max_bytes: u64,
    entries: Mutex<HashMap<ContentHash, Entry>>,
}

#[derive(Clone)]
struct Entry {
    path: PathBuf,
    /// The hash of its bytes, as its name has it.
    hash: String,
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
        let cache = Self { folder, compiler, max_bytes, entries: Mutex::default() };
        if !was_private {
            tracing::warn!(folder = %cache.folder.display(), "others could write there: what was compiled is compiled again");
            return Ok(cache);
        }
        for file in fs::read_dir(&cache.folder)? {
            cache.take_in(&file?.path());
        }
        Ok(cache)
    }

    /// The compiled component of these bytes, if it is here.
    pub fn get(&self, engine: &wasmtime::Engine, hash: ContentHash) -> Option<Component> {
        let entry = self.entries().get(&hash)?.clone();
        match map(engine, &entry) {
            Ok(component) => {
                // What is used stays: the time of the file is that of its last use.
                let now = fs::File::options()
                    .append(true)
                    .open(&entry.path)
                    .and_then(|it| it.set_modified(SystemTime::now()));
                if let Err(error) = now {
                    tracing::debug!("the use of a compiled component can't be noted: {error}");
                }
                Some(component)
            }
            Err(reason) => {
                tracing::warn!(file = %entry.path.display(), "a compiled component is compiled again: {reason}");
                self.forget(hash);
                None
            }
        }
    }

    /// Keeps what was compiled. A cache that can't be written to is slow, and no reason to serve nobody: the log says so.
    pub fn put(&self, hash: ContentHash, component: &Component) {
        let written = component.serialize().map_err(io::Error::other).and_then(|compiled| self.write(hash, &compiled));
        if let Err(error) = written {
            tracing::warn!(folder = %self.folder.display(), "a compiled component can't be kept: {error}");
        }
        if let Err(error) = self.make_room() {
            tracing::warn!(folder = %self.folder.display(), "compiled components can't be removed: {error}");
        }
    }

    fn write(&self, hash: ContentHash, compiled: &[u8]) -> io::Result<()> {
        let own = hex::encode(Sha256::digest(compiled));
        let path = self.folder.join(format!("{}-{}-{own}.{ENDING}", hash.in_full(), self.compiler));
        // Made readable for this user alone; whole or not there at all, whatever happens in between.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(compiled)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        self.entries().insert(hash, Entry { path, hash: own });
        Ok(())
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

    fn forget(&self, hash: ContentHash) {
        if let Some(entry) = self.entries().remove(&hash)
            && let Err(error) = fs::remove_file(&entry.path)
        {
            tracing::debug!(file = %entry.path.display(), "it can't be removed: {error}");
        }
    }

    /// Removes what was used longest ago, until the rest has room. What is mapped stays so: its file is only unlinked.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let metadata = file.metadata()?;
            if metadata.is_file() {
                files.push((metadata.modified()?, metadata.len(), file.path()));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        files.sort();
        // The one that was just written is the last, and stays whatever its size.
        for (_, length, path) in files.iter().rev().skip(1).rev() {
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
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps an entry, if it is as it was written.
fn map(engine: &wasmtime::Engine, entry: &Entry) -> Result<Component, String> {
    let bytes = fs::read(&entry.path).map_err(|error| error.to_string())?;
    if hex::encode(Sha256::digest(&bytes)) != entry.hash {
        return Err("it is not as it was written".into());
    }
    // SAFETY: `deserialize_file` wants bytes that `Component::serialize` made and that nobody changes while they are
    // mapped. The name holds the hash of what `put` wrote, which was just compared; Wasmtime itself compares the version and
    // the settings of the compiler. The folder is readable and writable by this user alone (`keep_private`), and this
    // program never writes into a file there: a new one is renamed into its place, and an old one is unlinked. Who can
    // change it all the same can change this program as well.
    #[allow(unsafe_code)]
    let component = unsafe { Component::deserialize_file(engine, &entry.path) };
    component.map_err(|error| format!("{error:#}"))
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
    let own = tempfile::NamedTempFile::new_in(folder)?;
    if fs::symlink_metadata(folder)?.uid() != own.as_file().metadata()?.uid() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    Ok(before & WRITABLE == 0)
}

#[cfg(not(unix))]
fn keep_private(_: &Path) -> io::Result<bool> {
    Ok(true)
}
