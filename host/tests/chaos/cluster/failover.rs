//! The primary of a database under Patroni is killed, and its synchronous standby takes over.
//!
//! The test runs the reference deployment, docs/postgres-ha/run. It is skipped if a program of it is missing, unless CI is
//! set. `MODHOST_FAILOVER_EVENTS` sets the number of events (default: 300); the primary is killed at a third of them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};

use super::super::audit::{Expected, RepeatedCalls, Surplus};
use super::super::harness::{Signal, http, signal, until};
use super::super::host::{Host, TENANT};
use super::super::kills::{PostedEvent, check_answers, come_to_rest};
use super::super::small_disk::notice::notice;
use super::{config, platform, start_all};

/// The number of clients that post at the same time.
const CLIENTS: usize = 16;

/// The time within which events are acknowledged again after the primary was killed.
const FAILOVER: Duration = Duration::from_secs(30);

/// A highly available PostgreSQL. It ends with the test.
struct Deployment {
    directory: PathBuf,
    /// Direct connections to the nodes.
    nodes: String,
    /// Connections through pgbouncer.
    pgbouncer: String,
    api_port: u16,
    /// Kept open: the deployment ends when it is closed.
    alive: Option<ChildStdin>,
    shell: Child,
}

impl Deployment {
    /// Starts it; `None` if a program is missing.
    fn start() -> Option<Self> {
        let missing = ["/usr/bin/patroni", "/usr/bin/etcd", "/usr/sbin/pgbouncer", "/usr/lib/postgresql"]
            .iter()
            .any(|path| !Path::new(path).exists());
        if missing {
            // CI has it installed.
            assert!(std::env::var_os("CI").is_none(), "patroni, etcd-server, pgbouncer or postgresql is missing");
            notice(
                "SKIPPED the failover: postgresql, patroni, etcd-server or pgbouncer is missing (that is what Debian \
                 calls them)",
            );
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/postgres-ha/run");
        // Below the ports that the system gives to clients.
        let port = fastrand::u16(10_000..30_000);
        // The shell outlives a killed test, and stops the deployment.
        let wait = r#""$@" & run=$!; cat >/dev/null; kill "$run"; wait "$run""#;
        let mut shell = Command::new("sh")
            .args(["-c", wait, "sh"])
            .arg(script)
            .args(["--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let alive = shell.stdin.take();
        let mut fields = std::collections::HashMap::new();
        for line in BufReader::new(shell.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if line.starts_with("ready") {
                break;
            }
            if let Some((name, value)) = line.split_once(char::is_whitespace) {
                fields.insert(name.to_owned(), value.trim().to_owned());
            }
        }
        let mut field = |name| fields.remove(name).unwrap_or_else(|| panic!("the deployment did not start: no {name}"));
        let (directory, nodes, pgbouncer) = (PathBuf::from(field("directory")), field("nodes"), field("pgbouncer"));
        Some(Self { directory, nodes, pgbouncer, api_port: port + 10, alive, shell })
    }

    /// Kills the primary's PostgreSQL and Patroni, as if its machine lost power. Returns the node.
    async fn kill_primary(&self) -> u16 {
        let client = http();
        for node in 1..=3 {
            let url = format!("http://127.0.0.1:{}/primary", self.api_port + node);
            if client.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                let directory = self.directory.join(format!("node{node}"));
                for file in ["patroni.pid", "data/postmaster.pid"] {
                    let text = std::fs::read_to_string(directory.join(file)).unwrap();
                    signal(text.lines().next().unwrap().trim().parse().unwrap(), Signal::KILL);
                }
                return node;
            }
        }
        panic!("there is no primary");
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.shell.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_primary_is_killed() {
    let Some(deployment) = Deployment::start() else { return };
    let events = std::env::var("MODHOST_FAILOVER_EVENTS").map_or(300, |number| number.parse().unwrap());
    let faulty_platform = platform().await;
    // One host follows the primary itself, the others through pgbouncer.
    let urls = [&deployment.nodes, &deployment.pgbouncer, &deployment.pgbouncer];
    let hosts: Arc<[Host]> = urls.iter().map(|url| config(url).lay_out(&faulty_platform)).collect();
    start_all(&hosts).await;

    let acknowledged = AtomicUsize::new(0);
    let posts = stream::iter(0..events).map(|number: usize| {
        let (faulty_platform, hosts, acknowledged) = (&faulty_platform, &hosts, &acknowledged);
        async move {
            let question = faulty_platform.ask("Test", "create A note", None).await;
            let mut host = number;
            // Until it is acknowledged, as a platform does: any host.
            until("the event to be acknowledged", async || {
                host += 1;
                let answer = hosts[host % hosts.len()].post_to(TENANT, &question.event).await;
                answer.is_some_and(|answer| answer.is_acknowledged()).then_some(())
            })
            .await;
            acknowledged.fetch_add(1, Ordering::SeqCst);
            PostedEvent { question, expected: Expected { steps: 0, new_messages: 1 }, acknowledged: true }
        }
    });
    let posts = posts.buffer_unordered(CLIENTS).collect::<Vec<_>>();
    let failover = async {
        until("a third of the events", async || (acknowledged.load(Ordering::SeqCst) >= events / 3).then_some(()))
            .await;
        let node = deployment.kill_primary().await;
        let (begin, before) = (Instant::now(), acknowledged.load(Ordering::SeqCst));
        // More than the answers that were under way.
        let resumed = async || (acknowledged.load(Ordering::SeqCst) >= before + 2 * CLIENTS).then_some(());
        until("events to be acknowledged again", resumed).await;
        println!("node {node} was killed; events were acknowledged again after {:?}", begin.elapsed());
        begin.elapsed()
    };
    let (posted, took) = tokio::join!(posts, failover);
    for host in &*hosts {
        come_to_rest(host).await;
    }
    let (surplus, acknowledged) = check_answers(&faulty_platform, &hosts[0], &posted).await;
    let repeated = RepeatedCalls::among(&faulty_platform.seen(), 0);
    println!("{acknowledged} acknowledged, 0 missing; {} calls made twice, in flight each", repeated.effects());
    assert_eq!(acknowledged, events);
    assert_eq!(surplus, Surplus { steps: repeated.steps, messages: repeated.messages }, "{repeated:?}");
    assert!(took < FAILOVER, "{took:?}");
}
