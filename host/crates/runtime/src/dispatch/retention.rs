//! Removes what need not be kept any longer, a little at a time.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use modhost_core::plural::counted;

/// How often it is looked for what may go.
const EVERY: Duration = Duration::from_secs(30);

/// How many deliveries go at once: few enough that nobody waits for it.
const BATCH: u32 = 200;

/// Between two batches others have their turn.
const BREATH: Duration = Duration::from_millis(20);

/// Keeps the journal small for as long as the host runs.
pub(super) async fn keep(inner: Arc<Inner>) {
    let upkeep = async {
        loop {
            inner.clock.sleep(EVERY).await;
            remove(&inner).await;
        }
    };
    inner.closing.run_until_cancelled(upkeep).await;
}

/// How often it is looked whether the journal can be written again, once it couldn't.
const PROBE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How many times less often it is looked whether a journal that could be written still can: nobody may have come to find
/// out.
const PROBE_HEALTHY_EVERY: u32 = 6;

/// Keeps what the journal says of its health true for as long as the host runs.
pub(super) async fn probe(inner: Arc<Inner>) {
    let probing = async {
        for turn in 1_u32.. {
            inner.clock.sleep(PROBE_AFTER_FAILURE).await;
            let before = inner.journal.health();
            if before.is_ok() && !turn.is_multiple_of(PROBE_HEALTHY_EVERY) {
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

async fn remove(inner: &Inner) {
    let mut removed = 0;
    loop {
        match inner.journal.purge(inner.settings.retention.clone(), BATCH).await {
            Ok(0) => break,
            Ok(more) => removed += more,
            Err(error) => {
                tracing::error!("what need not be kept can't be removed: {error}");
                break;
            }
        }
        inner.clock.sleep(BREATH).await;
    }
    if removed > 0 {
        let removed = counted(removed, "delivery that ended long ago was", "deliveries that ended long ago were");
        tracing::info!("{removed} removed from the journal");
    }
}
