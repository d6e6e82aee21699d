//! A host that is killed with SIGKILL at random moments loses no acknowledged write.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use modhost_storage::journal::{Disposition, Filter, Journal, Sqlite, State};

use crate::support::{OWNER, call, claim, committed, event, open, report, to};

const DIRECTORY: &str = "MODHOST_TEST_CRASH_DIRECTORY";
const ROUND: &str = "MODHOST_TEST_CRASH_ROUND";
const ROUNDS: u32 = 12;

/// The writes that the killed hosts reported as acknowledged.
#[derive(Default)]
struct Acknowledged {
    recorded: HashSet<String>,
    completed: HashSet<String>,
    /// The number of durable calls of a delivery.
    called: HashMap<String, u32>,
}

#[tokio::test]
async fn loses_no_acknowledged_write_when_the_host_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut random = fastrand::Rng::new();
    for round in 0..ROUNDS {
        let mut host = start(directory.path(), round);
        let lines = random.usize(1..2_000);
        collect_and_kill(&mut host, lines, &mut acknowledged);
        check(directory.path(), &acknowledged).await;
    }
    assert!(acknowledged.recorded.len() > 500, "only {} events were recorded", acknowledged.recorded.len());
    assert!(!acknowledged.completed.is_empty() && !acknowledged.called.is_empty());
}

fn start(directory: &Path, round: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["crash::host", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Collects the lines that a host prints, and kills the host after that many lines.
fn collect_and_kill(host: &mut Child, lines: usize, acknowledged: &mut Acknowledged) {
    let mut received = 0;
    let mut out = BufReader::new(host.stdout.take().unwrap());
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["recorded", id, ".\n"] => drop(acknowledged.recorded.insert(id.to_owned())),
            ["completed", id, ".\n"] => drop(acknowledged.completed.insert(id.to_owned())),
            ["called", id, count, ".\n"] => drop(acknowledged.called.insert(id.to_owned(), count.parse().unwrap())),
            _ => {} // lines of the test harness, or truncated lines
        }
        line.clear();
        received += 1;
        if received == lines {
            host.kill().unwrap(); // lines that are already in the pipe are still read
        }
    }
    host.wait().unwrap();
    assert!(received >= lines, "the host stopped before it was killed");
}

async fn check(directory: &Path, acknowledged: &Acknowledged) {
    let journal = open(directory).await;
    let found: HashMap<String, State> =
        journal.list(Filter::default()).await.unwrap().into_iter().map(|it| (it.event_id, it.state)).collect();
    for id in &acknowledged.recorded {
        assert!(found.contains_key(id), "{id} was acknowledged and is lost");
    }
    for id in &acknowledged.completed {
        assert_eq!(found.get(id), Some(&State::Completed), "{id}");
    }
    for (id, count) in &acknowledged.called {
        let event = event(id);
        let calls = journal.calls(&to(&event, "Echo").id).await.unwrap();
        assert!(calls.len() >= *count as usize, "{id}: {count} calls were durable, {} were found", calls.len());
        assert!(calls.iter().enumerate().all(|(index, call)| call.number as usize == index), "{id}");
    }
    let sum: u64 = journal.totals().await.unwrap().deliveries.iter().sum();
    assert_eq!(sum, found.len() as u64);
    journal.close().await.unwrap();
}

/// Runs the host that is killed, in a child process of this test executable.
#[test]
#[ignore = "started by the test above"]
fn host() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let round = std::env::var(ROUND).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let journal = Arc::new(open(&directory).await);
        journal.reclaim(Some(OWNER)).await.unwrap();
        for task in 0..8 {
            tokio::spawn(record(Arc::clone(&journal), format!("{round}_{task}")));
        }
        run(&journal).await;
    });
}

fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line} .\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

async fn record(journal: Arc<Sqlite>, name: String) {
    for number in 0.. {
        let event = event(&format!("evt_{name}_{number}"));
        let delivery = to(&event, "Echo");
        journal.record(Arc::clone(&event), vec![delivery]).await.unwrap();
        print_line(&format!("recorded {}", event.id));
    }
}

async fn run(journal: &Sqlite) {
    loop {
        for claimed in journal.claim(claim("acme", 5)).await.unwrap() {
            for number in 0..3 {
                let answer = vec![number as u8; 3_000 * (number as usize + 1)];
                committed(journal.write(&claimed.lease, call(number, answer))).await;
                print_line(&format!("called {} {}", claimed.event.id, number + 1));
            }
            journal.complete_attempt(&claimed.lease, report(), Disposition::Completed).await.unwrap();
            print_line(&format!("completed {}", claimed.event.id));
        }
    }
}
