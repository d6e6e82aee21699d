//! Leases: what a host that dies was working on is given to whoever lives.

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, clock, lock};
use modhost_core::plural::counted;

/// How long a delivery is a host's own without a heartbeat.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// Prolongs this host's leases, and takes up those that have run out, until all its deliveries have ended.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut beat = tokio::time::interval(LEASE / 3);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            () = all_ended(&inner) => return,
        }
        if let Err(error) = one_beat(&inner).await {
            tracing::error!("leases can't be prolonged: {error}");
        }
    }
}

async fn one_beat(inner: &Inner) -> modhost_storage::journal::Result<()> {
    let now = clock::now();
    let mine = lock(&inner.running).attempts();
    let deliveries = mine.iter().map(|(delivery, _)| delivery.clone()).collect();
    let lost = inner.journal.heartbeat(&inner.settings.owner, deliveries, now + LEASE).await?;
    for (delivery, slot) in mine.iter().filter(|(delivery, _)| lost.contains(delivery)) {
        lock(&inner.running).lose(delivery, *slot);
    }
    let given_up = inner.journal.reclaim(None, now).await?;
    if given_up > 0 {
        let waiting =
            counted(given_up, "delivery of a host that is gone waits", "deliveries of a host that is gone wait");
        tracing::warn!("{waiting} again");
        inner.look_again(now);
    }
    Ok(())
}

/// Waits until the host closes and nothing runs any more.
async fn all_ended(inner: &Inner) {
    inner.closing.cancelled().await;
    while !lock(&inner.running).is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
