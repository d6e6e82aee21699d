//! Measures the journal: events recorded per second with 1, 16 and 256 callers, compared to one commit per row on the
//! same disk; the same with their deliveries, leased as they are recorded and completed after; and dispatch from a backlog
//! of a million deliveries. Each line also says how many bytes were written per event, the log and the checkpoints
//! together.
//!
//! `cargo bench --bench journal` uses the system's temporary directory; `JOURNAL_BENCH_DIR` sets another one.
//! `JOURNAL_BENCH_BACKLOG` sets the size of the backlog.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_storage::journal::{
    AttemptReport, Call, Claim, Disposition, Journal, NewDelivery, NewLease, Recorded, Sqlite, SqliteSettings,
};

/// The time of each measurement.
const MEASURED: Duration = Duration::from_secs(4);

/// The size of a body in bytes, as a chat platform's events have.
const BODY: usize = 1_200;

const LANES: u64 = 100;

fn main() {
    // `cargo test --all-targets` runs this too; only `cargo bench` passes `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let parent = std::env::var_os("JOURNAL_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = parent.join(format!("modhost-journal-bench-{}", std::process::id()));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    raw_commits(&directory.join("raw"));
    runtime.block_on(async {
        for callers in [1, 16, 256] {
            record(&directory.join(format!("record-{callers}")), callers).await;
        }
        for callers in [1, 16, 256] {
            deliver(&directory.join(format!("deliver-{callers}")), callers).await;
        }
        whole_way(&directory.join("way")).await;
        backlog(&directory.join("backlog")).await;
    });
    std::fs::remove_dir_all(&directory).expect("cannot remove the benchmark's directory");
}

/// Commits one row of an event's size per transaction with plain SQLite: the cost of a commit on this disk.
fn raw_commits(directory: &Path) {
    std::fs::create_dir_all(directory).expect("the directory is created");
    let tables = rusqlite::Connection::open(directory.join("raw.sqlite")).expect("SQLite opens");
    tables
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE rows (body BLOB)")
        .expect("the table is created");
    let body = vec![7_u8; BODY];
    let mut insert = tables.prepare("INSERT INTO rows (body) VALUES (?1)").expect("the statement is valid");
    let written_before = written();
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < MEASURED {
        let one = Instant::now();
        insert.execute([&body]).expect("the row is inserted");
        times.push(one.elapsed());
    }
    report("SQLite alone, a row a transaction", began.elapsed(), written() - written_before, &mut times);
}

async fn open(directory: &Path) -> Arc<Sqlite> {
    Arc::new(Sqlite::open(SqliteSettings { directory: directory.to_owned() }).await.expect("the journal opens"))
}

async fn record(directory: &Path, callers: u64) {
    let journal = open(directory).await;
    let next = Arc::new(AtomicU64::new(0));
    let written_before = written();
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (journal, next) = (Arc::clone(&journal), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while began.elapsed() < MEASURED {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (event, deliveries) = event(number);
                    let one = Instant::now();
                    let recorded = journal.record(event, deliveries).await.expect("the event is recorded");
                    times.push(one.elapsed());
                    assert!(recorded.is_new());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("the task ends"));
    }
    report(&format!("record, {callers} callers"), began.elapsed(), written() - written_before, &mut times);
    journal.close().await.expect("the journal closes");
}

/// Records events of one tenant whose deliveries start at once and do nothing. As in a host, nobody waits for the end of
/// an attempt; the times are those of recording.
async fn deliver(directory: &Path, callers: u64) {
    let journal = open(directory).await;
    let next = Arc::new(AtomicU64::new(0));
    let completing = Arc::new(tokio::sync::Semaphore::new(1024));
    let written_before = written();
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (journal, next, completing) = (Arc::clone(&journal), Arc::clone(&next), Arc::clone(&completing));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while began.elapsed() < MEASURED {
                    let (event, mut deliveries) = event(next.fetch_add(LANES, Ordering::Relaxed));
                    let lease = NewLease { owner: "bench".into(), duration: Duration::from_secs(60) };
                    deliveries.iter_mut().for_each(|new| new.lease = Some(lease.clone()));
                    let permit = Arc::clone(&completing).acquire_owned().await.expect("the semaphore stays open");
                    let one = Instant::now();
                    let recorded = journal.record(event, deliveries).await.expect("the event is recorded");
                    times.push(one.elapsed());
                    let Recorded::New { leases, .. } = recorded else { panic!("a new event is a duplicate") };
                    let journal = Arc::clone(&journal);
                    tokio::spawn(async move {
                        for lease in &leases {
                            let completed =
                                journal.complete_attempt(lease, report_of_attempt(), Disposition::Completed);
                            completed.await.expect("the attempt is completed");
                        }
                        drop(permit);
                    });
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("the task ends"));
    }
    let all = completing.acquire_many(1024).await.expect("the semaphore stays open");
    report(
        &format!("record leased, complete; {callers} callers"),
        began.elapsed(),
        written() - written_before,
        &mut times,
    );
    drop(all);
    journal.close().await.expect("the journal closes");
}

/// Runs complete deliveries through the journal, 64 at a time: recorded, claimed, three calls, completed.
async fn whole_way(directory: &Path) {
    let journal = open(directory).await;
    let written_before = written();
    let began = Instant::now();
    let mut times = Vec::new();
    let mut number = 0;
    while began.elapsed() < MEASURED {
        let one = Instant::now();
        let ways = (0..64).map(|_| {
            number += LANES; // all in one lane
            let (event, deliveries) = event(number);
            journal.record(event, deliveries)
        });
        futures::future::try_join_all(ways).await.expect("the events are recorded");
        let claimed = journal.claim(claim(0, 64)).await.expect("the deliveries are claimed");
        assert_eq!(claimed.len(), 64);
        let ends = claimed.iter().map(|claimed| {
            for number in 0..3 {
                let answer = Some(vec![1; 500]);
                let call = Call {
                    number,
                    import: "search.search".into(),
                    arguments: vec![0; 32],
                    answer,
                    at: SystemTime::now(),
                };
                drop(journal.write(&claimed.lease, call).expect("the write buffer has capacity"));
            }
            journal.complete_attempt(&claimed.lease, report_of_attempt(), Disposition::Completed)
        });
        futures::future::try_join_all(ends).await.expect("the attempts are completed");
        times.extend(std::iter::repeat_n(one.elapsed() / 64, 64));
    }
    let written = written() - written_before;
    report("record, claim, 3 calls, complete_attempt; 64 at a time", began.elapsed(), written, &mut times);
    journal.close().await.expect("the journal closes");
}

async fn backlog(directory: &Path) {
    let wanted = std::env::var("JOURNAL_BENCH_BACKLOG").ok().and_then(|it| it.parse().ok()).unwrap_or(1_000_000_u64);
    let journal = open(directory).await;
    let began = Instant::now();
    let mut number = 0;
    while number < wanted {
        let end = wanted.min(number + 1_024);
        let some = (number..end).map(|number| {
            let (event, deliveries) = event(number);
            journal.record(event, deliveries)
        });
        futures::future::try_join_all(some).await.expect("the events are recorded");
        number = end;
    }
    println!("a backlog of {wanted} in {LANES} lanes: recorded in {:.1?}, {}", began.elapsed(), memory());
    journal.close().await.expect("the journal closes");
    drop(journal);

    let began = Instant::now();
    let journal = open(directory).await;
    println!("  opened in {:.2?}, {}", began.elapsed(), memory());
    let lanes = journal.lanes().await.expect("the lanes are listed");
    assert_eq!(lanes.iter().map(|lane| lane.waiting).sum::<u64>(), wanted);

    let written_before = written();
    let began = Instant::now();
    let mut times = Vec::new();
    let mut claimed = 0;
    for lane in (0..LANES).cycle() {
        let one = Instant::now();
        claimed += journal.claim(claim(lane, 16)).await.expect("the deliveries are claimed").len();
        times.push(one.elapsed());
        if began.elapsed() > MEASURED {
            break;
        }
    }
    let rate = claimed as f64 / began.elapsed().as_secs_f64();
    report("  claims of 16", began.elapsed(), written() - written_before, &mut times);
    println!("  {rate:.0} deliveries claimed a second, {}", memory());
    journal.close().await.expect("the journal closes");
}

fn event(number: u64) -> (Arc<Event>, Vec<NewDelivery>) {
    let head = format!(r#"{{"id":"evt_{number}","payload":{{"text":""#);
    let mut raw = head.into_bytes();
    let start = raw.iter().rposition(|byte| *byte == b'{').unwrap_or_default();
    raw.resize(BODY - 3, b'x');
    raw.extend(br#""}}"#);
    let header = Header {
        // Ids as random as a platform's.
        id: format!("evt_{:016x}{number:08x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        source: "unique".into(),
        name: "bench.happened".to_owned(),
        tenant: format!("tenant-{}", number % LANES).into(),
        user_id: Some("user_1".to_owned()),
        company_id: Some("company_1".to_owned()),
        created_at: Some(1_790_000_000),
    };
    let end = raw.len() - 1;
    let event = Event::new(header, Bytes::from(raw), start..end);
    let module = Name::from("Echo");
    let delivery = NewDelivery { id: DeliveryId::new(&event, &module), module, ordered_chat: None, lease: None };
    (Arc::new(event), vec![delivery])
}

fn claim(lane: u64, limit: u32) -> Claim {
    let tenant = format!("tenant-{lane}").into();
    Claim { tenant, module: "Echo".into(), limit, owner: "bench".into(), lease: Duration::from_secs(60) }
}

fn report_of_attempt() -> AttemptReport {
    let (version, outcome) = (Some("v1".to_owned()), "completed".to_owned());
    AttemptReport { took: Duration::ZERO, version, outcome, log: Vec::new() }
}

fn report(what: &str, took: Duration, written: u64, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    let rate = times.len() as f64 / took.as_secs_f64();
    let each = written as f64 / times.len() as f64 / 1_024.0;
    let (p50, p99, worst) = (at(0.5), at(0.99), at(1.0 - 1e-9));
    println!("{what}: {rate:.0} a second, p50 {p50:.2?}, p99 {p99:.2?}, worst {worst:.2?}, {each:.1} KiB written each");
}

/// Returns the bytes that the process has written on Linux; 0 elsewhere.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default()
}

/// The memory of the process on Linux; empty elsewhere.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or(" unknown");
    format!("resident memory {}", line.trim())
}
