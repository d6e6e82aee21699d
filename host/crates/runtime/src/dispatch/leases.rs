//! Leases: what a host that dies was working on is given to whoever lives.

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, lock};
use modhost_core::plural::counted;

/// How long a delivery is a host's own without a heartbeat.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// How often a host extends its leases.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// Prolongs this host's leases, and takes up those that have run out, until all its deliveries have ended.
pub(super) async fn keep(inner: Arc<Inner>) {
    loop {
        let next = inner.clock.now() + HEARTBEAT_EVERY;
        if let Err(error) = one_beat(&inner).await {
            tracing::error!(%error, "cannot extend leases");
        }
        let rest = next.duration_since(inner.clock.now()).unwrap_or_default();
        tokio::select! {
            biased;
            () = all_ended(&inner) => return,
            () = inner.clock.sleep(rest) => {}
        }
    }
}

async fn one_beat(inner: &Inner) -> modhost_storage::journal::Result<()> {
    let mine = lock(&inner.running).attempts();
    let running = mine.iter().map(|(lease, _)| lease.clone()).collect();
    let heartbeat = inner.journal.heartbeat(&inner.settings.owner, running, LEASE).await?;
    for (lease, slot) in mine.iter().filter(|(lease, _)| heartbeat.lost.contains(lease)) {
        lock(&inner.running).lose(&lease.delivery, *slot);
    }
    let given_up = inner.journal.reclaim(None).await?;
    if given_up > 0 {
        let waiting =
            counted(given_up, "delivery of a host that is gone waits", "deliveries of a host that is gone wait");
        tracing::warn!("{waiting} again");
        inner.look_again(inner.clock.now());
    }
    Ok(())
}

/// Waits until the host closes and nothing runs any more.
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
