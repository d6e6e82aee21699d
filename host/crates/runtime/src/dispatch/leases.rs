//! Extends the leases of running deliveries, and returns deliveries with expired leases to the queue.

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, lock};

/// How long a lease is valid without a heartbeat.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// How often a host extends its leases.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// Extends this host's leases and reclaims expired ones until the host closes and no attempt is running.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let next = inner.clock.now() + HEARTBEAT_EVERY;
        if let Err(error) = heartbeat_once(&inner).await {
            tracing::error!(%error, "cannot extend leases");
        }
        let remaining = next.duration_since(inner.clock.now()).unwrap_or_default();
        tokio::select! {
            biased;
            () = all_ended(&inner) => return,
            () = inner.clock.sleep(remaining) => {}
        }
    }
}

async fn heartbeat_once(inner: &Inner) -> modhost_storage::journal::Result<()> {
    let attempts = lock(&inner.running).attempts();
    let running = attempts.iter().map(|(lease, _)| lease.clone()).collect();
    let heartbeat = inner.journal.heartbeat(&inner.settings.owner, running, LEASE).await?;
    for (lease, slot) in attempts.iter().filter(|(lease, _)| heartbeat.lost.contains(lease)) {
        lock(&inner.running).cancel(&lease.delivery, *slot);
    }
    let given_up = inner.journal.reclaim(None).await?;
    if given_up > 0 {
        tracing::warn!(deliveries = given_up, "leases of another host expired; their deliveries wait again");
        inner.rescan(inner.clock.now());
    }
    Ok(())
}

/// Waits until the host closes and no attempt is running.
async fn all_ended(inner: &Inner) {
    inner.closing.cancelled().await;
    loop {
        let idle = inner.idle.notified();
        if lock(&inner.running).is_empty() {
            return;
        }
        idle.await;
    }
}
