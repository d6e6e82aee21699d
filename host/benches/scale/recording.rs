//! Recording events in PostgreSQL compared to SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use modhost_storage::journal::{Journal, Sqlite, SqliteSettings};

use crate::database;
use crate::figures::median;
use crate::postgres_server::PostgresServer;
use crate::work::event;

const ROUNDS: usize = 3;
const CALLERS: usize = 256;

/// The time of each measurement.
const MEASURED: Duration = Duration::from_secs(4);

/// Prints the number of events a second with both engines, in alternating rounds.
pub async fn measure(server: &PostgresServer) -> anyhow::Result<()> {
    let (mut sqlite, mut postgres, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let folder = tempfile::tempdir()?;
        let journal = Sqlite::open(SqliteSettings { directory: folder.path().to_owned() }).await?;
        let of_sqlite = rate(Arc::new(journal)).await?;
        let of_postgres = rate(database::journal(&server.new_database()).await?).await?;
        sqlite.push(of_sqlite);
        postgres.push(of_postgres);
        ratios.push(of_postgres / of_sqlite);
    }
    println!("\n| recording, {CALLERS} callers | events/s | ratio |\n|---|--:|--:|");
    println!(
        "| SQLite | {:.0} | 1.00 |\n| PostgreSQL | {:.0} | {:.2} |",
        median(sqlite),
        median(postgres),
        median(ratios)
    );
    Ok(())
}

/// Returns the number of events that a journal records in a second.
async fn rate(journal: Arc<dyn Journal>) -> anyhow::Result<f64> {
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let callers = (0..CALLERS).map(|_| {
        let (journal, next) = (Arc::clone(&journal), Arc::clone(&next));
        tokio::spawn(async move {
            while began.elapsed() < MEASURED {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let (event, deliveries) =
                    event(&format!("evt_{number}"), &format!("tenant-{}", number % 100), Duration::ZERO);
                journal.record(event, deliveries).await?;
            }
            anyhow::Ok(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    let rate = next.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    journal.close().await?;
    Ok(rate)
}
