//! Discovery of a running host: it writes its addresses to its data directory, so that commands on the same machine find it
//! on any port.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

/// Name of the file in the data directory.
const FILE: &str = "running.json";

/// Maximum size of the file, in bytes.
const MAX_FILE_SIZE: u64 = 64 << 10;

/// The addresses of a host that runs on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunningHost {
    /// Its process id.
    process: u32,
    /// The listener for events.
    pub(super) listen: SocketAddr,
    /// The listener of the admin API.
    pub(super) admin_listen: SocketAddr,
    /// The listener of the local platform, under `modhost dev`.
    pub(super) platform: Option<SocketAddr>,
}

/// The file with the addresses. Dropping this removes it.
pub(super) struct Announcement {
    /// `None` if the file could not be written.
    path: Option<PathBuf>,
}

impl RunningHost {
    /// Returns the addresses of this process.
    pub(super) fn this(listen: SocketAddr, admin_listen: SocketAddr, platform: Option<SocketAddr>) -> Self {
        Self { process: std::process::id(), listen, admin_listen, platform }
    }

    /// Writes the addresses to the data directory. If that fails, the host continues, and commands need `--admin`.
    pub(super) fn announce(&self, data_dir: &Path) -> Announcement {
        let path = data_dir.join(FILE);
        match self.write(data_dir, &path) {
            Ok(()) => Announcement { path: Some(path) },
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "cannot write the addresses of the host");
                Announcement { path: None }
            }
        }
    }

    fn write(&self, data_dir: &Path, path: &Path) -> std::io::Result<()> {
        // Atomic, because a command may be reading the file.
        let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Operators may be other users. The file contains no secrets.
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path)?;
        Ok(())
    }

    /// Returns the host that runs on a data directory, or `None` if its process has ended.
    pub(super) fn find(data_dir: &Path) -> Option<Self> {
        let path = data_dir.join(FILE);
        let metadata = fs::metadata(&path).ok()?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_SIZE {
            return None;
        }
        let running: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        is_alive(running.process).then_some(running)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path); // `find` ignores a stale file
        }
    }
}

/// Returns the URL at which a client on this machine reaches a listener. A listener on all addresses is reached over loopback.
pub(super) fn base_url(address: SocketAddr) -> Option<Url> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Url::parse(&format!("http://{}", SocketAddr::new(ip, address.port()))).ok()
}

#[cfg(unix)]
fn is_alive(process: u32) -> bool {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| matches!(test_kill_process(process), Ok(()) | Err(Errno::PERM)))
}

#[cfg(not(unix))]
fn is_alive(_: u32) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn finds_a_host_only_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(RunningHost::find(folder.path()), None);
        let this = RunningHost::this(address(1), address(2), Some(address(3)));
        let announcement = this.announce(folder.path());
        assert_eq!(RunningHost::find(folder.path()), Some(this.clone()));
        drop(announcement);
        assert_eq!(RunningHost::find(folder.path()), None);

        // A killed host leaves its file.
        let killed = RunningHost { process: i32::MAX as u32, ..this };
        killed.write(folder.path(), &folder.path().join(FILE)).unwrap();
        assert_eq!(RunningHost::find(folder.path()), None);
        for invalid in ["", "{}", "null", "{\"process\":-1}"] {
            fs::write(folder.path().join(FILE), invalid).unwrap();
            assert_eq!(RunningHost::find(folder.path()), None, "{invalid}");
        }
        // Failing to write the file is not an error.
        assert!(announce_in(&folder.path().join("missing")).path.is_none());
    }

    fn announce_in(data_dir: &Path) -> Announcement {
        RunningHost::this(address(1), address(2), None).announce(data_dir)
    }

    #[test]
    fn unspecified_addresses_are_reached_over_loopback() {
        let url = |text: &str| base_url(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(url("0.0.0.0:8081"), "http://127.0.0.1:8081/");
        assert_eq!(url("[::]:8081"), "http://[::1]:8081/");
        assert_eq!(url("192.0.2.1:80"), "http://192.0.2.1/");
    }
}
