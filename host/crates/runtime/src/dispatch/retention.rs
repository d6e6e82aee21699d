//! Removes ended deliveries whose retention time has passed, in small batches, and probes the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Inner;
use modhost_storage::journal::Retention;

/// How often to purge.
const PURGE_EVERY: Duration = Duration::from_secs(30);

/// How often to check whether the journal or the records of a tenant exceed their maximum size. Then it purges at once.
const CHECK_SIZE_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of deliveries per batch: small, so that other operations don't wait.
const BATCH: u32 = 200;

/// The pause between two batches, for other operations.
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// What one host of a cluster does for all.
const DUTY: &str = "retention";

/// Purges the journal until the host closes.
pub(super) async fn run(inner: Arc<Inner>) {
    let has_duty = inner.want_duty(DUTY);
    let purging = async {
        loop {
            let mut waited = Duration::ZERO;
            while waited < PURGE_EVERY {
                inner.clock.sleep(CHECK_SIZE_EVERY).await;
                waited += CHECK_SIZE_EVERY;
                if is_too_large(&inner) {
                    break;
                }
            }
            if *has_duty.borrow() {
                purge(&inner, &has_duty).await;
            }
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

/// Returns whether the records of the journal or of a tenant exceed their maximum size.
fn is_too_large(inner: &Inner) -> bool {
    let (usage, limits) = (inner.journal.usage(), inner.routes.load().journal_limits());
    let total = usage.iter().map(|usage| usage.bytes).sum::<u64>();
    inner.settings.retention.max_bytes.is_some_and(|max| total > max)
        || usage.iter().any(|usage| limits.get(&usage.tenant).is_some_and(|limit| usage.bytes > *limit))
}

async fn purge(inner: &Inner, has_duty: &watch::Receiver<bool>) {
    let mut removed = 0;
    let tenant_limits = inner.routes.load().journal_limits();
    let keep = Retention { tenant_limits, ..inner.settings.retention.clone() };
    while *has_duty.borrow() {
        match inner.journal.purge(keep.clone(), BATCH).await {
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
