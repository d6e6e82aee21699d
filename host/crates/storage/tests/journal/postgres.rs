//! The PostgreSQL engine: fencing, hosts that share a database, broken connections, upgrades, clocks, queries.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use modhost_core::event::DeliveryId;
use modhost_core::secret::Secret;
use modhost_storage::error::StorageErrorKind;
use modhost_storage::journal::{
    Call, Claim, Disposition, Filter, Journal, JournalError, Lease, NewLease, Postgres, Recorded, State,
};
use modhost_storage::postgres::Database;
use tokio_postgres::{Client, NoTls};

use crate::postgres_server::PostgresServer;
use crate::support::{
    at, call, claim, committed, event, event_of, in_chat, new_database, open_postgres, report, retry, storage_error, to,
};

/// Runs a test with a new database, unless PostgreSQL isn't installed.
async fn with_database(test: impl AsyncFnOnce(String)) {
    if PostgresServer::shared().is_some() {
        test(new_database()).await;
    }
}

/// Connects to a database beside the engine.
async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("cannot connect");
    tokio::spawn(connection);
    client
}

async fn try_open(url: &str) -> Result<Postgres, JournalError> {
    Postgres::open(Database::new(&Secret::new(url)).expect("cannot use the URL")).await
}

fn claim_by(owner: &str, limit: u32) -> Claim {
    Claim { owner: owner.into(), lease: Duration::from_secs(60), ..claim("acme", limit) }
}

async fn record(journal: &Postgres, id: &str) -> DeliveryId {
    let event = event(id);
    let delivery = to(&event, "Echo");
    assert!(journal.record(event, vec![delivery.clone()]).await.unwrap().is_new());
    delivery.id
}

/// An attempt writes one intent after the other while another host takes its delivery over. What the other host reads after its
/// claim is all there ever is.
#[tokio::test(flavor = "multi_thread")]
async fn writes_no_intent_after_a_take_over() {
    with_database(async |url| {
        let (first, second) = (Arc::new(open_postgres(&url).await), Arc::new(open_postgres(&url).await));
        let mut intents = 0;
        for round in 0..60 {
            let lanes = (0..5).map(|lane| {
                let (first, second) = (first.clone(), second.clone());
                async move {
                    let event = event(&format!("evt_{round}_{lane}"));
                    let mut delivery = to(&event, &format!("Module{lane}"));
                    let owner: Arc<str> = format!("host-1-{round}-{lane}").into();
                    delivery.lease = Some(NewLease { owner: owner.clone(), duration: Duration::from_secs(60) });
                    let module = delivery.module.clone();
                    let Recorded::New { leases, .. } = first.record(event, vec![delivery.clone()]).await.unwrap()
                    else {
                        panic!("it is known")
                    };
                    let [lease] = &leases[..] else { panic!("it is not leased") };
                    let writing = async {
                        for number in 0.. {
                            let intent = Call { answer: None, ..call(number, "") };
                            match first.write(lease, intent).unwrap().durable().await {
                                Ok(()) => {}
                                Err(JournalError::LeaseLost(_)) => return number as usize,
                                Err(error) => panic!("{error}"),
                            }
                        }
                        unreachable!()
                    };
                    let taking_over = async {
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..20))).await;
                        assert_eq!(second.reclaim(Some(&owner)).await.unwrap(), 1);
                        // A claim skips a delivery that a late write locks until it sees that the lease is lost.
                        let claim = Claim { module, ..claim_by("host-2", 1) };
                        while second.claim(claim.clone()).await.unwrap().is_empty() {}
                        second.calls(&delivery.id).await.unwrap()
                    };
                    let (written, read) = tokio::join!(writing, taking_over);
                    assert_eq!(written, read.len(), "an acknowledged intent is missing");
                    assert_eq!(first.calls(&delivery.id).await.unwrap(), read, "an intent was written late");
                    written
                }
            });
            intents += join_all(lanes).await.into_iter().sum::<usize>();
        }
        assert!(intents > 100, "{intents} intents test nothing");
        first.close().await.unwrap();
        second.close().await.unwrap();
    })
    .await;
}

/// Counts the deliveries in each state by reading the table.
async fn counted(client: &Client) -> [u64; 5] {
    let rows = client.query("SELECT state, count(*) FROM deliveries GROUP BY state", &[]).await.unwrap();
    let counts: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    State::ALL.map(|state| counts.get(state.name()).copied().unwrap_or_default() as u64)
}

/// Sums what each tenant uses by reading the tables: bytes of unfinished deliveries, of ended ones, of ids.
async fn used(client: &Client) -> BTreeMap<String, [i64; 3]> {
    let sql = "
        SELECT tenant, sum(bytes) FILTER (WHERE part = 0)::bigint, sum(bytes) FILTER (WHERE part = 1)::bigint,
               sum(bytes) FILTER (WHERE part = 2)::bigint
        FROM (
            SELECT l.tenant, (d.state NOT IN ('waiting', 'running'))::integer AS part,
                   512 + coalesce((SELECT sum(bytes) FROM calls WHERE delivery = d.seq), 0)
                       + coalesce((SELECT sum(bytes) FROM attempts WHERE delivery = d.seq), 0) AS bytes
            FROM deliveries d JOIN lanes l ON l.id = d.lane
            UNION ALL
            SELECT tenant, (NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.number
                                        AND d.state IN ('waiting', 'running')))::integer, bytes
            FROM events e
            UNION ALL
            SELECT tenant, 2, bytes FROM known_events
        ) AS records GROUP BY tenant";
    let rows = client.query(sql, &[]).await.unwrap();
    let part = |row: &tokio_postgres::Row, part| row.get::<_, Option<i64>>(part).unwrap_or_default();
    rows.iter().map(|row| (row.get(0), [1, 2, 3].map(|index| part(row, index)))).collect()
}

/// Checks that what a journal counts is what is in the tables.
async fn check_counts(journal: &Postgres, client: &Client) {
    assert_eq!(journal.totals().await.unwrap().deliveries, counted(client).await);
    let expected = used(client).await;
    let reported: BTreeMap<String, [i64; 3]> = journal
        .usage()
        .into_iter()
        .map(|usage| {
            let (all, unfinished) = (usage.bytes as i64, usage.unfinished_bytes as i64);
            let ids = expected.get(usage.tenant.as_str()).map_or(0, |bytes| bytes[2]);
            (usage.tenant.to_string(), [unfinished, all - unfinished - ids, ids])
        })
        .collect();
    assert_eq!(reported, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_share_the_work_and_count_exactly() {
    with_database(async |url| {
        let hosts = [open_postgres(&url).await, open_postgres(&url).await];
        let (claimed, running) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
        let recording = hosts.iter().enumerate().map(|(host, journal)| async move {
            for number in 0..150 {
                let event = event_of(["acme", "globex"][number % 2], &format!("evt_{host}_{number}"));
                let chat = format!("chat_{}", number % 5);
                let deliveries = match number % 3 {
                    0 => vec![to(&event, "Echo")],
                    1 => vec![in_chat(&event, "Echo", &chat)],
                    _ => vec![in_chat(&event, "Echo", &chat), to(&event, "Log")],
                };
                assert!(journal.record(event, deliveries).await.unwrap().is_new());
            }
        });
        let working = hosts.iter().enumerate().flat_map(|(host, journal)| {
            let lanes = [("acme", "Echo"), ("acme", "Log"), ("globex", "Echo"), ("globex", "Log")];
            lanes.map(|(tenant, module)| (host, journal, tenant, module))
        });
        let (claimed, running) = (&claimed, &running);
        let is_recorded = &AtomicBool::new(false);
        let working = working.map(|(host, journal, tenant, module)| async move {
            loop {
                let was_recorded = is_recorded.load(Ordering::Relaxed);
                let claim =
                    Claim { tenant: tenant.into(), module: module.into(), ..claim_by(&format!("host-{host}"), 7) };
                let taken = journal.claim(claim).await.unwrap();
                if taken.is_empty() {
                    let waiting = journal.lanes().await.unwrap();
                    let is_done =
                        !waiting.iter().any(|lane| lane.tenant.as_str() == tenant && lane.module.as_str() == module);
                    if was_recorded && is_done {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                for delivery in taken {
                    assert!(
                        claimed.lock().unwrap().insert(delivery.id().clone()),
                        "{} was claimed twice",
                        delivery.id()
                    );
                    // Those in chats have a number that isn't divisible by three.
                    let number: usize = delivery.event.id.rsplit('_').next().unwrap().parse().unwrap();
                    let chat = (!number.is_multiple_of(3) && module == "Echo").then_some((tenant, number % 5));
                    if let Some(chat) = chat {
                        assert!(running.lock().unwrap().insert(chat), "two deliveries of {chat:?} run at once");
                    }
                    let _ = journal.write(&delivery.lease, call(0, "answer")).unwrap();
                    chat.map(|chat| running.lock().unwrap().remove(&chat));
                    journal.complete_attempt(&delivery.lease, report(), Disposition::Completed).await.unwrap();
                }
            }
        });
        let recording = async {
            join_all(recording).await;
            is_recorded.store(true, Ordering::Relaxed);
        };
        tokio::join!(recording, join_all(working));
        assert_eq!(claimed.lock().unwrap().len(), 400);
        let client = connect(&url).await;
        for host in &hosts {
            assert_eq!(host.totals().await.unwrap().deliveries, [0, 0, 400, 0, 0]);
            check_counts(host, &client).await;
            assert_eq!(host.backlog(&"acme".into()).host_bytes, 0);
        }
        let chats: i64 = client.query_one("SELECT count(*) FROM chats", &[]).await.unwrap().get(0);
        assert_eq!(chats, 0);
    })
    .await;
}

/// Somebody ends connections at random, in the middle of transactions and of commits.
#[tokio::test(flavor = "multi_thread")]
async fn resolves_commits_whose_outcome_is_unknown() {
    with_database(async |url| {
        let journal = Arc::new(open_postgres(&url).await);
        let client = connect(&url).await;
        let is_done = Arc::new(AtomicBool::new(false));
        let killing = {
            let (client, is_done) = (connect(&url).await, is_done.clone());
            tokio::spawn(async move {
                let sql = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                           WHERE application_name = 'modhost' AND datname = current_database() AND state <> 'idle' \
                           ORDER BY random() LIMIT 1) AS victim";
                let mut killed = 0;
                while !is_done.load(Ordering::Relaxed) {
                    killed += client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
                killed
            })
        };
        let attempts = (0..12).map(|task| {
            let journal = journal.clone();
            async move {
                for number in 0..25 {
                    let event = event(&format!("evt_{task}_{number}"));
                    let mut delivery = to(&event, "Echo");
                    delivery.lease = Some(NewLease { owner: "host-1".into(), duration: Duration::from_secs(600) });
                    let recorded = journal.record(event, vec![delivery]).await.expect("cannot record an event");
                    let Recorded::New { leases, .. } = recorded else { panic!("its own work is a duplicate") };
                    let [lease]: &[Lease; 1] = leases[..].try_into().expect("it was not leased");
                    for call_number in 0..2 {
                        let intent = Call { answer: None, ..call(call_number, "") };
                        committed(journal.write(lease, intent)).await;
                        committed(journal.write(lease, call(call_number, vec![7; 500]))).await;
                    }
                    let next = if number % 5 == 0 { retry(60_000) } else { Disposition::Completed };
                    journal.complete_attempt(lease, report(), next).await.expect("cannot complete an attempt");
                }
            }
        });
        join_all(attempts).await;
        is_done.store(true, Ordering::Relaxed);
        let killed = killing.await.unwrap();
        assert!(killed > 20, "{killed} ended connections test nothing");
        assert_eq!(counted(&client).await, [60, 0, 240, 0, 0]);
        check_counts(&journal, &client).await;
        let calls: i64 =
            client.query_one("SELECT count(*) FROM calls WHERE answer IS NOT NULL", &[]).await.unwrap().get(0);
        assert_eq!(calls, 600);
        let attempts: i64 = client.query_one("SELECT count(*) FROM attempts", &[]).await.unwrap().get(0);
        assert_eq!(attempts, 300);
        journal.close().await.unwrap();
    })
    .await;
}

/// A pgbouncer in transaction mode, with fewer connections to the server than the engine has to it.
struct Pgbouncer {
    process: Child,
    url: String,
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Pgbouncer {
    /// Starts one in front of the server of a database, if it is installed.
    async fn start(directory: &Path, url: &str) -> Option<Self> {
        let program =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).is_file())?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n",
            PostgresServer::shared().unwrap().port()
        );
        let file = directory.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(program);
        if rustix::process::getuid().is_root() {
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", program]);
        }
        let process = command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let database = url.rsplit('/').next().unwrap();
        let started = Self { process, url: format!("postgres://postgres@127.0.0.1:{port}/{database}") };
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(started)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn works_through_pgbouncer_in_transaction_mode() {
    with_database(async |url| {
        let directory = tempfile::tempdir().unwrap();
        let Some(pgbouncer) = Pgbouncer::start(directory.path(), &url).await else {
            let _ = std::io::stderr().write_all(b"SKIPPED: a test with pgbouncer, because it is not installed\n");
            return;
        };
        let journal = open_postgres(&pgbouncer.url).await;
        let attempts = (0..20).map(|task| {
            let journal = &journal;
            async move {
                for number in 0..5 {
                    let event = event(&format!("evt_{task}_{number}"));
                    let delivery = in_chat(&event, &format!("Module{task}"), "chat");
                    let module = delivery.module.clone();
                    journal.record(event, vec![delivery]).await.unwrap();
                    let claimed =
                        journal.claim(Claim { module, ..claim_by("host-1", 1) }).await.unwrap().pop().unwrap();
                    committed(journal.write(&claimed.lease, call(0, "answer"))).await;
                    journal.complete_attempt(&claimed.lease, report(), Disposition::Completed).await.unwrap();
                }
            }
        });
        join_all(attempts).await;
        check_counts(&journal, &connect(&url).await).await;
        assert_eq!(journal.totals().await.unwrap().deliveries, [0, 0, 100, 0, 0]);
        journal.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn refuses_tables_that_are_too_new_and_uses_those_that_were_only_expanded() {
    with_database(async |url| {
        record(&open_postgres(&url).await, "evt_1").await;
        let client = connect(&url).await;
        client
            .execute("UPDATE schema_version SET version = 99, oldest_that_runs = 1 WHERE store = 'journal'", &[])
            .await
            .unwrap();
        assert_eq!(open_postgres(&url).await.totals().await.unwrap().deliveries[0], 1);
        client.execute("UPDATE schema_version SET oldest_that_runs = 98 WHERE store = 'journal'", &[]).await.unwrap();
        let (kind, text) = storage_error(try_open(&url).await.map(drop));
        assert_eq!(kind, StorageErrorKind::Unusable, "{text}");
        assert!(text.contains("version 99") && text.contains("start a newer modhost"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn hosts_that_start_at_once_create_the_tables_once() {
    with_database(async |url| {
        let opened = join_all((0..4).map(|_| open_postgres(&url))).await;
        let salts: HashSet<[u8; 32]> = opened.iter().map(|journal| journal.salt()).collect();
        assert_eq!(salts.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn refuses_a_database_that_loses_what_it_acknowledges() {
    with_database(async |url| {
        let database = url.rsplit('/').next().unwrap();
        let client = connect(&url).await;
        client.execute(&format!("ALTER DATABASE {database} SET synchronous_commit = off"), &[]).await.unwrap();
        let (kind, text) = storage_error(try_open(&url).await.map(drop));
        assert_eq!(kind, StorageErrorKind::Unusable, "{text}");
        assert!(text.contains("synchronous_commit = on"), "{text}");
        client.execute(&format!("ALTER DATABASE {database} SET synchronous_commit = on"), &[]).await.unwrap();
        let durability = Database::new(&Secret::new(&*url)).unwrap().durability().await.unwrap();
        assert_eq!((durability.synchronous_commit.as_str(), durability.synchronous_standby_names.as_str()), ("on", ""));
    })
    .await;
}

#[tokio::test]
async fn errors_name_the_server_and_never_the_password() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("postgres://modhost:hunter2@127.0.0.1:{port}/journal?sslmode=disable");
    let (kind, text) = storage_error(try_open(&url).await.map(drop));
    assert_eq!(kind, StorageErrorKind::Unavailable, "{text}");
    assert!(text.contains(&format!("database journal on 127.0.0.1:{port}")) && text.contains("refused"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

/// Hosts whose clocks differ agree, because each statement takes the time of the server.
#[tokio::test]
async fn takes_the_time_of_the_server() {
    with_database(async |url| {
        let client = connect(&url).await;
        // A server whose clock is ten minutes fast: the function that the statements call is found in another schema first.
        let fake = "CREATE SCHEMA fast; CREATE FUNCTION fast.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE \
                    AS 'SELECT pg_catalog.statement_timestamp() + interval ''10 minutes'''";
        client.batch_execute(fake).await.unwrap();
        let database = url.rsplit('/').next().unwrap();
        let path = format!("ALTER DATABASE {database} SET search_path = fast, pg_catalog, public");
        client.batch_execute(&path).await.unwrap();
        let journal = open_postgres(&format!("{url}?options=-csearch_path%3Dfast,pg_catalog,public")).await;
        let ahead = |time: SystemTime| time.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
        let event = event("evt_1");
        let delivery = to(&event, "Echo");
        let Recorded::New { at, .. } = journal.record(event, vec![delivery.clone()]).await.unwrap() else { panic!("known") };
        assert!((590..=600).contains(&ahead(at)), "{at:?}");
        let claimed = journal.claim(claim_by("host-1", 1)).await.unwrap().pop().unwrap();
        journal.complete_attempt(&claimed.lease, report(), retry(30_000)).await.unwrap();
        let due = journal.next_due().await.unwrap().unwrap();
        assert!((28..=30).contains(&due.as_secs()), "{due:?}");
        let listed = journal.list(Filter::default()).await.unwrap().pop().unwrap();
        assert!((618..=630).contains(&ahead(listed.due_at.unwrap())), "{listed:?}");
    })
    .await;
}

/// Whatever the filter, a list reads a few rows of an index.
#[tokio::test]
async fn lists_without_reading_the_whole_table() {
    with_database(async |url| {
        drop(open_postgres(&url).await);
        let client = connect(&url).await;
        let fill = "
            INSERT INTO lanes (tenant, module) SELECT 'tenant' || t, 'Module' || m FROM generate_series(0, 4) t, generate_series(0, 3) m ORDER BY t, m;
            INSERT INTO events (number, source, id, name, tenant, received_at, payload_start, payload_length, siblings, bytes, body)
            SELECT n, 'unique', 'evt_' || n, 'test', 'tenant' || n % 5, 1790000000000 + n, 0, 2, 1, 258, '{}' FROM generate_series(1, 30000) n;
            INSERT INTO known_events (key, tenant, at, event, token, bytes)
            SELECT substring(sha256(convert_to('evt_' || n, 'UTF8')) FOR 16) || decode(repeat('00', 16), 'hex'),
                   'tenant' || n % 5, 1790000000000 + n, n, n, 133
            FROM generate_series(1, 30000) n;
            INSERT INTO deliveries (id, event, lane, behind, state, attempt, earlier, due_at, timed, changed_at, changes)
            SELECT 'dlv_' || n, n, (n % 5) * 4 + n % 4 + 1, false,
                   CASE WHEN n % 1000 = 7 THEN 'dead' WHEN n % 500 = 3 THEN 'waiting' ELSE 'completed' END, 1, 0,
                   1790000000000 + n, false, 1790000000000 + n, 2
            FROM generate_series(1, 30000) n;
            ANALYZE;";
        client.batch_execute(fill).await.unwrap();
        let scans = async || -> i64 {
            client.query_one("SELECT pg_stat_clear_snapshot()", &[]).await.unwrap();
            let sql = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'deliveries'";
            client.query_one(sql, &[]).await.unwrap().get(0)
        };
        let before = scans().await;
        let journal = open_postgres(&url).await;
        let all = Filter { limit: Some(20), ..Filter::default() };
        let (tenant, module) = (Some("tenant2".into()), Some("Module3".into()));
        let filters = [
            (20, all.clone()),
            (20, Filter { state: Some(State::Completed), ..all.clone() }),
            (20, Filter { state: Some(State::Dead), ..all.clone() }),
            (20, Filter { tenant: tenant.clone(), ..all.clone() }),
            (20, Filter { module: module.clone(), ..all.clone() }),
            (20, Filter { tenant: tenant.clone(), module: module.clone(), ..all.clone() }),
            (0, Filter { tenant: tenant.clone(), state: Some(State::Running), ..all.clone() }),
            (1, Filter { event: Some("evt_29998".into()), ..all.clone() }),
            (0, Filter { event: Some("evt_29998".into()), state: Some(State::Dead), ..all.clone() }),
            (20, Filter { since: Some(SystemTime::UNIX_EPOCH), ..all.clone() }),
            (5, Filter { since: Some(at(29_996)), ..all.clone() }),
            (1, Filter { since: Some(at(29_996)), tenant: tenant.clone(), ..all.clone() }),
            (5, Filter { since: Some(at(29_996)), state: Some(State::Completed), ..all.clone() }),
        ];
        for (expected, filter) in &filters {
            let listed = journal.list(filter.clone()).await.unwrap();
            assert_eq!(listed.len(), *expected, "{filter:?}");
            assert!(listed.windows(2).all(|pair| pair[0].received_at > pair[1].received_at), "{filter:?}");
        }
        assert!(journal.next_due().await.unwrap().is_some());
        journal.close().await.unwrap();
        drop(journal);
        // The statistics of a connection are there once it has ended.
        let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'modhost' AND datname = current_database()";
        while client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(scans().await, before, "a list read the table");
    })
    .await;
}
