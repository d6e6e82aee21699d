//! What a tenant with a long backlog costs the others: how long their events wait.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use modhost_storage::journal::Journal;

use crate::database;
use crate::postgres_server::PostgresServer;
use crate::size;
use crate::work::{RunningHost, body, completed, event, post, start};

/// The number of quiet tenants, and of the events of each.
const QUIET: usize = 20;
const EVENTS: usize = 25;

/// The time between two events of all quiet tenants together.
const EVERY: Duration = Duration::from_millis(25);

/// How long the module waits for an event of a quiet tenant, and of the one with the backlog, three times.
const WAIT: Duration = Duration::from_millis(10);
const BACKLOG_WAIT: Duration = Duration::from_millis(20);

const HOSTS: usize = 2;
const CONCURRENCY: usize = 16;

/// The number of events that are recorded at the same time.
const RECORDED_AT_ONCE: usize = 512;

/// Prints the p95 of the time that events of quiet tenants wait, without and with the backlog of another tenant.
pub async fn measure(server: &PostgresServer) -> anyhow::Result<()> {
    let backlog = size("SCALE_BENCH_BACKLOG", 100_000)?;
    let url = server.new_database();
    let mut tenants: Vec<String> =
        (0..QUIET).flat_map(|number| [format!("calm-{number}"), format!("beside-{number}")]).collect();
    tenants.push("loud".to_owned());
    let hosts = start(&url, HOSTS, &tenants, CONCURRENCY)?;
    let before = waits(&url, &hosts, "calm").await?;
    let journal = database::journal(&url).await?;
    stream::iter(0..backlog)
        .map(|number| {
            let (event, deliveries) = event(&format!("evt_loud_{number}"), "loud", BACKLOG_WAIT);
            journal.record(event, deliveries)
        })
        .buffer_unordered(RECORDED_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let beside = waits(&url, &hosts, "beside").await?;
    let left = database::number(
        &url,
        "SELECT count(*) FROM deliveries d JOIN lanes l ON l.id = d.lane WHERE l.tenant = 'loud' AND d.state = 'waiting'",
    )?;
    println!("\n| events of {QUIET} quiet tenants | p95 wait ms | ratio |\n|---|--:|--:|");
    println!(
        "| alone | {before:.0} | 1.00 |\n| beside {left:.0} waiting ones of another tenant | {beside:.0} | {:.2} |",
        beside / before
    );
    journal.close().await?;
    Ok(())
}

/// Posts events of quiet tenants, and returns the p95 of the time from recording to the start of the first attempt, in
/// milliseconds.
async fn waits(url: &str, hosts: &[RunningHost], prefix: &str) -> anyhow::Result<f64> {
    let client = modhost_platform::http_client()?;
    let mut ticks = tokio::time::interval(EVERY);
    let mut posts = Vec::new();
    for number in 0..QUIET * EVENTS {
        ticks.tick().await;
        let tenant = format!("{prefix}-{}", number % QUIET);
        let (client, public) = (client.clone(), hosts[number % hosts.len()].host.public.clone());
        posts.push(tokio::spawn(
            async move { post(&client, &public, &tenant, body(&format!("evt_{number}"), WAIT)).await },
        ));
    }
    for post in posts {
        post.await??;
    }
    completed(url, prefix).await?;
    let sql = format!(
        "SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY c.at - e.received_at) \
         FROM deliveries d JOIN lanes l ON l.id = d.lane JOIN events e ON e.number = d.event \
              JOIN changes c ON c.delivery = d.seq AND c.number = 1 AND c.state = 'running' \
         WHERE l.tenant LIKE '{prefix}-%'"
    );
    Ok(database::number(url, &sql)?.max(1.0))
}
