//! The lists of deliveries, with each filter.

use std::time::{Duration, Instant, SystemTime};

use modhost_storage::journal::{Filter, Journal, State};

use crate::database;
use crate::figures::{Milliseconds, median};
use crate::postgres_server::PostgresServer;
use crate::size;

/// The number of lists with each filter.
const LISTS: usize = 25;

/// The number of deliveries in a list.
const LIMIT: u32 = 50;

/// Fills the tables with deliveries of 100 tenants and 3 modules: mostly completed, as in a host that has run for long.
const FILL: &str = "
    INSERT INTO lanes (tenant, module) SELECT 'tenant-' || t, 'module-' || m FROM generate_series(0, 99) t, generate_series(0, 2) m;
    INSERT INTO events (number, source, id, name, tenant, received_at, payload_start, payload_length, siblings, bytes, body)
    SELECT n, 'chat', 'evt_' || n, 'bench.happened', 'tenant-' || n % 100, $now - (COUNT - n) * 10, 0, 2, 1, 258, '{}'
    FROM generate_series(1, COUNT) n;
    INSERT INTO known_events (key, tenant, at, event, token, bytes)
    SELECT substr(sha256(('evt_' || n)::bytea), 1, 16) || substr(sha256(n::text::bytea), 1, 16), 'tenant-' || n % 100, 0, n, n, 140
    FROM generate_series(1, COUNT) n;
    INSERT INTO deliveries (id, event, lane, behind, state, attempt, earlier, due_at, timed, changed_at, changes)
    SELECT md5(n::text), n, l.id, false,
           CASE WHEN n % 1000 = 0 THEN 'dead' WHEN n % 500 = 0 THEN 'dropped' WHEN n % 100 = 0 THEN 'waiting' ELSE 'completed' END,
           1, 0, 0, false, $now - (COUNT - n) * 10, 1
    FROM generate_series(1, COUNT) n
         JOIN lanes l ON l.tenant = 'tenant-' || n % 100 AND l.module = 'module-' || n % 3;
    ANALYZE;";

/// Prints the median time of a list with each filter.
pub async fn measure(server: &PostgresServer) -> anyhow::Result<()> {
    let deliveries = size("SCALE_BENCH_DELIVERIES", 1_000_000)?;
    let url = server.new_database();
    database::journal(&url).await?.close().await?;
    let now = "(extract(epoch FROM now()) * 1000)::bigint";
    database::query(&url, &FILL.replace("COUNT", &deliveries.to_string()).replace("$now", now))?;
    let journal = database::journal(&url).await?;
    let none = Filter { limit: Some(LIMIT), ..Filter::default() };
    let minute_ago = SystemTime::now().checked_sub(Duration::from_secs(60));
    let filters = [
        ("none", none.clone()),
        ("state completed", Filter { state: Some(State::Completed), ..none.clone() }),
        ("state dead", Filter { state: Some(State::Dead), ..none.clone() }),
        ("state running (there is none)", Filter { state: Some(State::Running), ..none.clone() }),
        ("module", Filter { module: Some("module-1".into()), ..none.clone() }),
        ("tenant", Filter { tenant: Some("tenant-7".into()), ..none.clone() }),
        ("tenant and state", Filter { tenant: Some("tenant-0".into()), state: Some(State::Dead), ..none.clone() }),
        ("event", Filter { event: Some(format!("evt_{}", deliveries / 2)), ..none.clone() }),
        ("the last minute", Filter { since: minute_ago, ..none.clone() }),
        ("an unknown tenant", Filter { tenant: Some("nobody".into()), ..none.clone() }),
    ];
    println!("\n| list of {LIMIT}, of {deliveries} deliveries | p50 ms | found |\n|---|--:|--:|");
    for (name, filter) in filters {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..LISTS {
            let began = Instant::now();
            found = journal.list(filter.clone()).await?.len();
            times.push(began.elapsed().milliseconds());
        }
        println!("| {name} | {:.2} | {found} |", median(times));
    }
    journal.close().await?;
    Ok(())
}
