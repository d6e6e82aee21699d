//! Three hosts compared to one, with modules that wait.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use modhost_storage::journal::Journal;

use crate::database;
use crate::figures::median;
use crate::postgres_server::PostgresServer;
use crate::work::{completed, event, start};

const ROUNDS: usize = 3;

/// The deliveries of a host that run at the same time.
const CONCURRENCY: usize = 16;

/// The number of events for each host, and how long their module waits, three times.
const EVENTS: usize = 1_000;
const WAIT: Duration = Duration::from_millis(50);

/// The number of events that are recorded at the same time.
const RECORDED_AT_ONCE: usize = 256;

/// Prints the ratio of what three hosts and one host complete in the same time.
pub async fn measure(server: &PostgresServer) -> anyhow::Result<()> {
    let mut ratios = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let mut round = [0.0; 2];
        for (index, hosts) in [1, 3].into_iter().enumerate() {
            let rate = throughput(&server.new_database(), hosts).await?;
            rates[index].push(rate);
            round[index] = rate;
        }
        ratios.push(round[1] / round[0]);
    }
    let [one, three] = rates.map(median);
    println!("\n| modules that wait 3 × {} ms | deliveries/s | ratio |\n|---|--:|--:|", WAIT.as_millis());
    println!("| 1 host | {one:.0} | 1.00 |\n| 3 hosts | {three:.0} | {:.2} |", median(ratios));
    Ok(())
}

/// Returns the number of deliveries that hosts complete in a second. Their events are recorded at once, as by another host, so
/// that what the hosts acknowledge doesn't count.
async fn throughput(url: &str, hosts: usize) -> anyhow::Result<f64> {
    let _running = start(url, hosts, &["acme".to_owned()], CONCURRENCY)?;
    let journal = database::journal(url).await?;
    let events = EVENTS * hosts;
    stream::iter(0..events)
        .map(|number| {
            let (event, deliveries) = event(&format!("evt_{number}"), "acme", WAIT);
            journal.record(event, deliveries)
        })
        .buffer_unordered(RECORDED_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    completed(url, "acme").await?;
    journal.close().await?;
    let sql = "SELECT (max(d.changed_at) - min(e.received_at)) / 1000.0 FROM deliveries d JOIN events e ON e.number = d.event";
    Ok(events as f64 / database::number(url, sql)?)
}
