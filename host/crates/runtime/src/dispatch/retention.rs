//! Removes ended deliveries whose retention time has passed, in small batches, and probes the journal.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;

/// How often to purge.
const PURGE_EVERY: Duration = Duration::from_secs(30);

/// Maximum number of deliveries per batch: small, so that other operations don't wait.
const BATCH: u32 = 200;

/// The pause between two batches, for other operations.
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// Purges the journal until the host closes.
pub(super) async fn run(inner: Arc<Inner>) {
    let purging = async {
        loop {
            inner.clock.sleep(PURGE_EVERY).await;
            purge(&inner).await;
        }
    };
    inner.closing.run_until_cancelled(purging).await;
}

/// How often to probe a journal that could not be written.
const PROBE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// A healthy journal is probed once in this many rounds: without events, nothing else would detect a failure.
const PROBE_HEALTHY_EVERY: u32 = 6;

/// Probes the journal until the host closes, so that its reported health is current.
pub(super) async fn probe(inner: Arc<Inner>) {
    let probing = async {
        for round in 1_u32.. {
            inner.clock.sleep(PROBE_AFTER_FAILURE).await;
            let before = inner.journal.health();
            if before.is_ok() && !round.is_multiple_of(PROBE_HEALTHY_EVERY) {
                continue;
            }
            match (before, inner.journal.probe().await) {
                (Ok(()), Err(error)) => tracing::error!(%error, "cannot write the journal; events are refused"),
                (Err(_), Ok(())) => tracing::info!("the journal can be written again"),
                _ => {}
            }
        }
    };
    inner.closing.run_until_cancelled(probing).await;
}

async fn purge(inner: &Inner) {
    let mut removed = 0;
    loop {
        match inner.journal.purge(inner.settings.retention.clone(), BATCH).await {
            Ok(0) => break,
            Ok(count) => removed += count,
            Err(error) => {
                tracing::error!(%error, "cannot purge the journal");
                break;
            }
        }
        inner.clock.sleep(BATCH_PAUSE).await;
    }
    if removed > 0 {
        tracing::info!(deliveries = removed, "journal purged");
    }
}
