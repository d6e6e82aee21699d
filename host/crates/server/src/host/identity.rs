//! Who this host is among those that share a storage, and which storage its data directory belongs to.
//!
//! The name of a host is kept in its data directory, which one process at a time uses: so two hosts never have the same
//! name, even if both have the same modules.toml, and a restarted host is recognized.

use std::io::{self, Write};
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use modhost_config::ActiveHost;
use modhost_core::files;
use modhost_storage::cluster::HostInfo;

/// The file in the data directory.
const FILE: &str = "host.id";

/// The journal of a host with files of its own.
pub(super) const JOURNAL_FILE: &str = "journal.sqlite";

/// The maximum size of the file, in bytes.
const MAX_SIZE: u64 = 4 << 10;

/// The owner of the leases of a host with files of its own. They belong to one process at a time, so the name is the same
/// for every run: leases that a host finds at its start belong to its own previous run.
const OWNER: &str = "this host";

/// What a host keeps about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    /// The part of the name that no other host has.
    id: String,
    /// The name of the machine on which the data directory was first used.
    machine: String,
}

/// Returns the name of the host with this data directory, which is created if there is none. `name` is the part of it
/// that the settings choose.
///
/// # Errors
///
/// When the file can't be read or written.
pub(super) fn host_name(data_dir: &Path, name: Option<&str>) -> io::Result<String> {
    let path = data_dir.join(FILE);
    let kept = match files::read(&path, MAX_SIZE) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
        Err(error) if error.is_not_found() => create(data_dir, &path)?,
        Err(error) => return Err(io::Error::other(format!("{error:?}"))),
    };
    let Kept { id, machine } = kept;
    Ok(format!("{}-{id}", name.unwrap_or(&machine)))
}

/// Returns whether a host with this data directory has used a database.
pub(super) fn has_used_database(data_dir: &Path) -> bool {
    data_dir.join(FILE).exists()
}

/// Returns whether the deliveries and versions of the host with this data directory are in a database, and not also in
/// files of the directory, as after `modhost dev`.
pub fn uses_database(data_dir: &Path) -> bool {
    has_used_database(data_dir) && !data_dir.join(JOURNAL_FILE).exists()
}

fn create(data_dir: &Path, path: &Path) -> io::Result<Kept> {
    let kept = Kept { id: random_id::<4>()?, machine: machine() };
    let mut temporary = tempfile::NamedTempFile::new_in(data_dir)?;
    serde_json::to_writer(&mut temporary, &kept)?;
    temporary.write_all(b"\n")?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(kept)
}

/// Returns a random id of this many bytes.
pub(super) fn random_id<const BYTES: usize>() -> io::Result<String> {
    let mut id = [0; BYTES];
    SystemRandom::new().fill(&mut id).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(hex::encode(id))
}

/// Returns the name of this machine, as far as it has one that can be shown.
pub(super) fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME").map_err(|error| io::Error::other(error.to_string())));
    let name: String = name.unwrap_or_default().trim().chars().take(60).collect();
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if is_plain { name } else { "host".to_owned() }
}

/// Returns what this host says of itself. On a shared storage, each life gets an owner of its own.
pub(super) fn host_info(name: String, admin: String, settings: &ActiveHost) -> HostInfo {
    let mut info = HostInfo {
        owner: OWNER.into(),
        name,
        admin: Some(admin),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: String::new(),
        modules: Default::default(),
    };
    describe(&mut info, settings);
    info
}

/// Updates what this host says of its settings.
pub(super) fn describe(info: &mut HostInfo, settings: &ActiveHost) {
    info.settings = settings_hash(settings);
    let modules = settings.parts().flat_map(|part| &part.settings().modules);
    info.modules = modules.map(|module| module.name.clone()).collect();
}

/// Returns a hash of the texts of modules.toml and of the files that it includes, by their names without folders: hosts
/// may keep the same files in different folders.
fn settings_hash(settings: &ActiveHost) -> String {
    let mut texts: Vec<(String, &str)> = settings
        .parts()
        .enumerate()
        .map(|(position, part)| {
            let written = part.as_written();
            let name = written.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // modules.toml comes first, whatever it is called.
            (if position == 0 { String::new() } else { name }, written.text.as_str())
        })
        .collect();
    texts.sort_unstable();
    let mut hash = Sha256::new();
    for (name, text) in texts {
        for bytes in [name.as_bytes(), text.as_bytes()] {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
    }
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_host_stays_with_its_data_directory() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        assert!(!has_used_database(one.path()));
        let name = host_name(one.path(), Some("web")).unwrap();
        assert!(name.starts_with("web-"), "{name}");
        assert_eq!(host_name(one.path(), Some("web")).unwrap(), name);
        assert_ne!(host_name(other.path(), Some("web")).unwrap(), name, "even with the same modules.toml");
        assert!(!host_name(one.path(), None).unwrap().starts_with("web-"));
        assert!(has_used_database(one.path()));
    }
}
