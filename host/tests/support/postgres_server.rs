//! A PostgreSQL server of its own for the tests of a process, with a database for each test.
//!
//! The server runs on a free port of the loopback address, from a temporary directory. It ends with the process: a shell
//! waits for the end of a pipe that only this process holds.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

/// Set by CI, where a missing server is an error.
const REQUIRED: &str = "MODHOST_REQUIRE_POSTGRES";

/// A running server.
pub struct PostgresServer {
    port: u16,
    /// Kept open: the server ends when it is closed.
    _alive: Mutex<ChildStdin>,
    _shell: Mutex<Child>,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl PostgresServer {
    /// Returns the server of this process, starting it if necessary. Returns `None`, and says so past cargo's capture of
    /// the output, if PostgreSQL isn't installed.
    pub fn shared() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<PostgresServer>> = OnceLock::new();
        SERVER
            .get_or_init(|| {
                let Some(programs) = programs() else {
                    assert!(std::env::var_os(REQUIRED).is_none(), "PostgreSQL is not installed");
                    let text = "SKIPPED: the tests on PostgreSQL, because it is not installed (Debian: postgresql)\n";
                    // Not `eprintln!`, whose output cargo captures.
                    let _ = std::io::stderr().write_all(text.as_bytes());
                    return None;
                };
                Some(Self::start(&programs))
            })
            .as_ref()
    }

    /// Starts a server.
    ///
    /// # Panics
    ///
    /// If it doesn't start.
    pub fn start(programs: &Path) -> Self {
        Self::start_with(programs, &["-c", "fsync=off", "-c", "full_page_writes=off"])
    }

    /// Starts a server that survives a power failure, as in production; for benchmarks. Returns `None` if PostgreSQL isn't
    /// installed.
    #[allow(dead_code, reason = "only benchmarks need it")]
    pub fn start_durable() -> Option<Self> {
        Some(Self::start_with(&programs()?, &["-c", "synchronous_commit=on"]))
    }

    fn start_with(programs: &Path, options: &[&str]) -> Self {
        // PostgreSQL refuses to run as root; `postgres` is the user that Debian's package creates.
        let script = r#"
            set -eu
            programs=$1
            as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi; }
            directory=$(mktemp -d /tmp/modhost-postgres.XXXXXX)
            [ "$(id -u)" = 0 ] && chown postgres "$directory"
            port=$2
            shift 2
            as_user "$programs/initdb" --pgdata="$directory/data" --username=postgres --auth=trust --no-sync --encoding=UTF8 --locale=C >"$directory/log" 2>&1
            # The shell of the background command becomes the server, so that the signal reaches it.
            exec_as_user() { if [ "$(id -u)" = 0 ]; then exec setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else exec "$@"; fi; }
            exec_as_user "$programs/postgres" -D "$directory/data" -p "$port" -k "$directory" -c listen_addresses=127.0.0.1 \
                -c max_connections=400 -c shared_buffers=64MB "$@" >>"$directory/log" 2>&1 &
            server=$!
            until as_user "$programs/pg_isready" -q -h 127.0.0.1 -p "$port"; do
                kill -0 "$server" || { cat "$directory/log" >&2; exit 1; }
                sleep 0.05
            done
            echo ready
            cat >/dev/null
            kill -QUIT "$server"
            wait "$server" || true
            rm -rf "$directory"
        "#;
        let port = free_port();
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(programs)
            .arg(port.to_string())
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot start a shell");
        let alive = shell.stdin.take().expect("no pipe to the shell");
        let mut answer = String::new();
        let mut output = BufReader::new(shell.stdout.take().expect("no pipe from the shell"));
        output.read_line(&mut answer).expect("cannot read the answer of the shell");
        assert_eq!(answer.trim(), "ready", "PostgreSQL did not start");
        Self { port, _alive: Mutex::new(alive), _shell: Mutex::new(shell) }
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates an empty database. Returns its URL.
    ///
    /// # Panics
    ///
    /// If it can't be created.
    pub fn new_database(&self) -> String {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name}");
        let url = self.url("postgres");
        let programs = programs().expect("PostgreSQL is not installed");
        let created = Command::new(programs.join("psql")).args(["-q", "-d", &url, "-c", &sql]).status();
        assert!(created.expect("cannot run psql").success(), "cannot create a database");
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// Returns a port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("no free port");
    listener.local_addr().expect("a listener without an address").port()
}

/// Returns the folder of PostgreSQL's programs: the newest version of Debian's, or the one in the search path.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").is_file())
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file());
    versions.pop().or(in_path)
}
