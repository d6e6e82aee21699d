//! Where a running host listens: it writes that beside its data, so that commands on the same machine find it whatever its
//! ports are.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

/// What the file is called in the data directory.
const FILE: &str = "running.json";

/// The largest file that is read, in bytes: it has a few lines.
const MAX_FILE: u64 = 64 << 10;

/// A host that runs on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunningHost {
    /// The number of its process.
    process: u32,
    /// Where events come in.
    pub(super) listen: SocketAddr,
    /// Where operators look.
    pub(super) admin_listen: SocketAddr,
    /// The local platform, if it has one.
    pub(super) platform: Option<SocketAddr>,
}

/// The file, for as long as the host runs.
pub(super) struct Announcement {
    /// None if it couldn't be written.
    path: Option<PathBuf>,
}

impl RunningHost {
    /// This process.
    pub(super) fn this(listen: SocketAddr, admin_listen: SocketAddr, platform: Option<SocketAddr>) -> Self {
        Self { process: std::process::id(), listen, admin_listen, platform }
    }

    /// Writes where this host listens into its data directory. Commands need a flag if that can't be done, and the host
    /// needs nothing.
    pub(super) fn announce(&self, data_dir: &Path) -> Announcement {
        let path = data_dir.join(FILE);
        match self.write(data_dir, &path) {
            Ok(()) => Announcement { path: Some(path) },
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "cannot write where the host listens");
                Announcement { path: None }
            }
        }
    }

    fn write(&self, data_dir: &Path, path: &Path) -> std::io::Result<()> {
        // Whole or not at all: a command may be reading it.
        let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // There is nothing secret in it, and operators needn't be the host's user.
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path)?;
        Ok(())
    }

    /// The host that runs on a data directory; none if its process is gone, however it ended.
    pub(super) fn find(data_dir: &Path) -> Option<Self> {
        let path = data_dir.join(FILE);
        let about = fs::metadata(&path).ok()?;
        if !about.is_file() || about.len() > MAX_FILE {
            return None;
        }
        let running: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        is_alive(running.process).then_some(running)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path); // one that is left names a process that is gone
        }
    }
}

/// An address as a client on this machine asks it: a listener on all addresses is reached over loopback.
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
    fn a_host_is_found_for_as_long_as_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(RunningHost::find(folder.path()), None);
        let this = RunningHost::this(address(1), address(2), Some(address(3)));
        let announcement = this.announce(folder.path());
        assert_eq!(RunningHost::find(folder.path()), Some(this.clone()));
        drop(announcement);
        assert_eq!(RunningHost::find(folder.path()), None);

        // One that was killed leaves its file.
        let gone = RunningHost { process: i32::MAX as u32, ..this };
        gone.write(folder.path(), &folder.path().join(FILE)).unwrap();
        assert_eq!(RunningHost::find(folder.path()), None);
        for nonsense in ["", "{}", "null", "{\"process\":-1}"] {
            fs::write(folder.path().join(FILE), nonsense).unwrap();
            assert_eq!(RunningHost::find(folder.path()), None, "{nonsense}");
        }
        // A host that can't write it runs all the same.
        assert!(this_in(&folder.path().join("missing")).path.is_none());
    }

    fn this_in(data_dir: &Path) -> Announcement {
        RunningHost::this(address(1), address(2), None).announce(data_dir)
    }

    #[test]
    fn an_address_is_one_that_can_be_asked() {
        let url = |text: &str| base_url(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(url("0.0.0.0:8081"), "http://127.0.0.1:8081/");
        assert_eq!(url("[::]:8081"), "http://[::1]:8081/");
        assert_eq!(url("192.0.2.1:80"), "http://192.0.2.1/");
    }
}
