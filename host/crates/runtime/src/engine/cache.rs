//! The cache of compiled components on disk.
//!
//! The file name of an entry contains the hash of the component, a hash of the compiler's version and settings, and the
//! hash of the entry's own bytes. An entry is written to a temporary file, renamed, and never changed afterwards. A
//! truncated or damaged entry is detected because its bytes don't match its name. The folder is accessible to this user
//! only, because its files are executed as code.
//!
//! The bytes of an entry are hashed each time before they are mapped, which is most of the time that a cached component
//! takes to load. So they are hashed with BLAKE3, which takes a fraction of the time of SHA-256, in pieces that stay in the
//! caches of the core. The hash of the component is its identity elsewhere, too, and stays SHA-256.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tempfile::{NamedTempFile, TempDir, TempPath};
use wasmtime::component::Component;

use super::version::ContentHash;
use modhost_core::sync::lock;

/// The file name extension of an entry.
const EXTENSION: &str = "cwasm";

/// Precedes the hash of an entry's bytes in its file name. Earlier versions of the host wrote a SHA-256 hash without it.
/// Their files are left alone until they are evicted, like those of other compilers.
const BLAKE3_PREFIX: &str = "b3_";

/// The age at which a file with another extension counts as left over from a killed host.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of compiled components.
pub(super) struct Cache {
    folder: PathBuf,
    /// The hash of the compiler's version and settings. Entries of other compilers aren't used.
    compiler: String,
    max_bytes: u64,
    entries: Mutex<HashMap<ContentHash, Entry>>,
    /// The temporary folder of a cache that keeps nothing; removed with the cache.
    temporary: Option<TempDir>,
}

#[derive(Clone)]
struct Entry {
    path: PathBuf,
    /// The hash of its bytes, from its file name.
    hash: String,
}

/// A compiled component on disk whose bytes were verified or just written.
pub(super) struct CachedCode {
    path: PathBuf,
    /// Removes the file on drop, if it isn't part of a cache. Mappings of the file stay valid.
    _temporary: Option<TempPath>,
}

impl Cache {
    /// Opens a folder as a cache and creates it if necessary. Above `max_bytes`, the least recently used entries are
    /// removed.
    ///
    /// # Errors
    ///
    /// If the folder can't be created, or belongs to another user.
    pub fn open(folder: PathBuf, engine: &wasmtime::Engine, max_bytes: u64) -> io::Result<Self> {
        create_folder(&folder)?;
        let was_private = make_private(&folder)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let compiler = format!("{:016x}", hasher.finish());
        let cache = Self { folder, compiler, max_bytes, entries: Mutex::default(), temporary: None };
        if !was_private {
            tracing::warn!(folder = %cache.folder.display(), "other users could write to the cache; its components are compiled again");
            return Ok(cache);
        }
        for file in fs::read_dir(&cache.folder)? {
            let file = file?;
            if is_entry(&file.path()) {
                cache.add_existing(&file.path());
            } else if is_abandoned(&file) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(cache)
    }

    /// Creates a cache that keeps nothing: compiled code goes through a folder among the system's temporary files.
    ///
    /// # Errors
    ///
    /// If that folder can't be created.
    pub fn temporary(engine: &wasmtime::Engine) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("modhost-").tempdir()?;
        make_private(folder.path())?;
        let cache = Self::open(folder.path().to_owned(), engine, u64::MAX)?;
        Ok(Self { temporary: Some(folder), ..cache })
    }

    /// Whether the cache keeps nothing.
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Returns the path of the folder for messages.
    pub fn display_folder(&self) -> String {
        self.folder.display().to_string()
    }

    /// Returns the compiled component with this hash, if the cache has it.
    pub fn get(&self, hash: ContentHash) -> Option<CachedCode> {
        let entry = self.entries().get(&hash)?.clone();
        match verify(&entry) {
            Ok(()) => {
                // Eviction uses the modification time as the time of the last use.
                let now = fs::File::options()
                    .append(true)
                    .open(&entry.path)
                    .and_then(|it| it.set_modified(SystemTime::now()));
                if let Err(error) = now {
                    tracing::debug!(%error, "cannot update the time of a cached component");
                }
                Some(CachedCode { path: entry.path, _temporary: None })
            }
            Err(reason) => {
                self.evict_unusable(hash, &reason);
                None
            }
        }
    }

    /// Removes an entry that can't be used and logs the reason.
    pub fn evict_unusable(&self, hash: ContentHash, reason: &str) {
        tracing::warn!(version = %hash, folder = self.display_folder(), reason, "cached component is unusable; compiling it again");
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

    /// Creates a file for a compiled component, readable by this user only. It isn't an entry until
    /// [`keep`](Self::keep) is called.
    ///
    /// # Errors
    ///
    /// If the folder can't be written to.
    pub fn create_file(&self) -> io::Result<NamedTempFile> {
        match NamedTempFile::new_in(&self.folder) {
            // Somebody deleted the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folder(&self.folder)?;
                NamedTempFile::new_in(&self.folder)
            }
            file => file,
        }
    }

    /// Adds a file with compiled code to the cache. If other entries must be evicted, those of `serving` stay: a tenant
    /// that saves many versions must not cause recompilations for other tenants at the next start.
    ///
    /// # Errors
    ///
    /// If the file can't be read or renamed.
    pub fn keep(
        &self,
        hash: ContentHash,
        written: NamedTempFile,
        mut serving: HashSet<ContentHash>,
    ) -> io::Result<CachedCode> {
        if self.is_temporary() {
            return Ok(CachedCode::temporary(written));
        }
        // No fsync: if a crash truncates the file, its bytes don't match the hash in its name.
        let file_hash = hash_of(written.path())?;
        let name = format!("{}-{}-{BLAKE3_PREFIX}{file_hash}.{EXTENSION}", hash.to_hex(), self.compiler);
        let path = self.folder.join(name);
        written.persist(&path)?;
        self.entries().insert(hash, Entry { path: path.clone(), hash: file_hash });
        serving.insert(hash);
        if let Err(error) = self.evict(&serving) {
            tracing::warn!(folder = self.display_folder(), %error, "cannot shrink the cache");
        }
        Ok(CachedCode { path, _temporary: None })
    }

    /// Adds an existing file to the entries. Files of other compilers stay on disk until they are evicted.
    fn add_existing(&self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = name.strip_suffix(EXTENSION).and_then(|name| name.strip_suffix('.')) else { return };
        let mut parts = name.split('-');
        if let (Some(component), Some(compiler), Some(file_hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
            && compiler == self.compiler
            && let Some(file_hash) = file_hash.strip_prefix(BLAKE3_PREFIX)
            && let Some(hash) = ContentHash::from_hex(component)
        {
            self.entries().insert(hash, Entry { path: path.to_owned(), hash: file_hash.to_owned() });
        }
    }

    /// Removes the least recently used entries, except those of `keep`, until the size limit is met. Mappings of a
    /// removed file stay valid, because the file is only unlinked.
    fn evict(&self, keep: &HashSet<ContentHash>) -> io::Result<()> {
        let keep: HashSet<PathBuf> = {
            let entries = self.entries();
            keep.iter().filter_map(|hash| entries.get(hash)).map(|entry| entry.path.clone()).collect()
        };
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            // Other files are still being written.
            if is_entry(&file.path())
                && let Ok(metadata) = file.metadata()
            {
                files.push((metadata.modified()?, metadata.len(), file.path()));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        files.sort();
        for (_, length, path) in files.iter().filter(|(_, _, path)| !keep.contains(path)) {
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

impl CachedCode {
    /// Wraps a file that is mapped once and then removed.
    pub fn temporary(written: NamedTempFile) -> Self {
        let path = written.into_temp_path();
        Self { path: path.to_path_buf(), _temporary: Some(path) }
    }

    /// Maps the compiled code for an engine.
    ///
    /// # Errors
    ///
    /// If another compiler made the code, or the component doesn't fit the engine's pool.
    pub fn map(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        // SAFETY: `deserialize_file` requires bytes that Wasmtime's compiler made and that nobody changes while they
        // are mapped. The file was either just written by a compile process of this program, or it is an entry whose
        // bytes were just compared with the hash in its name (`get`), which is the hash of such bytes (`keep`).
        // Wasmtime itself checks the version and the settings of the compiler. The folder is accessible to this user
        // only (`make_private`), and this program never writes to a file there once it can be mapped: new files are
        // renamed into place, and old ones are unlinked. Anyone who can change a file anyway can also change this
        // program.
        #[allow(unsafe_code)]
        unsafe {
            Component::deserialize_file(engine, &self.path)
        }
    }
}

/// Whether a file has the extension of an entry.
fn is_entry(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// Whether a file was left by a host that was killed while it compiled. Younger files may still be written.
fn is_abandoned(file: &fs::DirEntry) -> bool {
    let age = file.metadata().ok().filter(fs::Metadata::is_file).and_then(|it| it.modified().ok()?.elapsed().ok());
    age.is_some_and(|age| age > ABANDONED_AFTER)
}

/// Checks that an entry's bytes match the hash in its name.
fn verify(entry: &Entry) -> Result<(), String> {
    match hash_of(&entry.path) {
        Ok(hash) if hash == entry.hash => Ok(()),
        Ok(_) => Err("its bytes don't match the hash in its name".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn hash_of(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Creates a folder that only this user can access, unless it exists.
#[cfg(unix)]
fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Restricts a folder to this user. Returns false if others could write to it before.
///
/// # Errors
///
/// If the folder belongs to another user.
#[cfg(unix)]
fn make_private(folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    /// The write permissions of the group and of others.
    const WRITABLE: u32 = 0o022;

    let before = fs::symlink_metadata(folder)?.permissions().mode();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    // Root can change the mode of any folder, so compare the folder's owner with the owner of a new file.
    let probe = NamedTempFile::new_in(folder)?;
    if fs::symlink_metadata(folder)?.uid() != probe.as_file().metadata()?.uid() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    Ok(before & WRITABLE == 0)
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A cache with one entry, and the file of the entry.
    fn with_entry(folder: &Path, hash: ContentHash) -> (Cache, PathBuf) {
        let cache = Cache::open(folder.to_owned(), &wasmtime::Engine::default(), u64::MAX).unwrap();
        let mut file = cache.create_file().unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        let code = cache.keep(hash, file, HashSet::new()).unwrap();
        (cache, code.path)
    }

    #[test]
    fn entry_is_found_by_the_next_host() {
        let (folder, hash) = (tempfile::tempdir().unwrap(), ContentHash::of(b"component"));
        let (cache, file) = with_entry(&folder.path().join("components"), hash);
        drop(cache);
        let (cache, _) = with_entry(&folder.path().join("components"), ContentHash::of(b"another"));
        assert_eq!(cache.get(hash).map(|code| code.path), Some(file));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

        /// Whatever is changed in a file, cut off or added, the file is refused and removed.
        #[test]
        fn changed_entry_is_refused_and_removed(place in 0_usize..100_000, xor in 1_u8.., change in 0..3) {
            let (folder, hash) = (tempfile::tempdir().unwrap(), ContentHash::of(b"component"));
            let (cache, file) = with_entry(&folder.path().join("components"), hash);
            let mut bytes = fs::read(&file).unwrap();
            match change {
                0 => bytes[place] ^= xor,
                1 => bytes.truncate(place),
                _ => bytes.push(xor),
            }
            fs::write(&file, bytes).unwrap();
            proptest::prop_assert!(cache.get(hash).is_none());
            proptest::prop_assert!(!file.exists());
        }
    }

    #[test]
    fn entry_of_an_earlier_version_is_not_used() {
        let (folder, hash) = (tempfile::tempdir().unwrap(), ContentHash::of(b"component"));
        let (cache, file) = with_entry(&folder.path().join("components"), hash);
        let earlier = folder.path().join("components").join(format!(
            "{}-{}-{}.{EXTENSION}",
            hash.to_hex(),
            cache.compiler,
            ContentHash::of(&fs::read(&file).unwrap()).to_hex()
        ));
        fs::rename(&file, &earlier).unwrap();
        drop(cache);
        let cache = Cache::open(folder.path().join("components"), &wasmtime::Engine::default(), u64::MAX).unwrap();
        assert!(cache.get(hash).is_none());
        assert!(earlier.exists(), "it stays until it is evicted");
    }

    #[test]
    fn eviction_keeps_serving_components() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("components"), &wasmtime::Engine::default(), 250).unwrap();
        let hashes = [1, 2, 3].map(|number: u8| ContentHash::of(&[number]));
        for hash in hashes {
            let mut file = cache.create_file().unwrap();
            file.write_all(&[0; 100]).unwrap();
            cache.keep(hash, file, HashSet::from([hashes[0]])).unwrap();
        }
        assert_eq!(hashes.map(|hash| cache.get(hash).is_some()), [true, false, true]);
    }
}
