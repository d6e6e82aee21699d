//! Stops everything that this host runs before another host can take it over.
//!
//! A host extends its lease with heartbeats. If none is confirmed in time, because the host is cut off, the storage
//! hangs, or the machine was suspended, other hosts will run its deliveries. So this host cancels them first. It waits
//! for nobody: neither for the storage nor for the heartbeat that hangs.

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, lock};
use modhost_core::metrics;

/// How often to look at the lease. A timer may be late by the time for which the machine was suspended; changes look at
/// the lease themselves, just before they leave the host.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches the lease of this host until no attempt is running any more.
pub(super) async fn run(inner: Arc<Inner>) {
    if !inner.membership.is_shared() {
        return;
    }
    let watching = async {
        loop {
            inner.clock.sleep(LOOK_EVERY).await;
            look(&inner);
        }
    };
    tokio::select! {
        biased;
        () = super::leases::all_ended(&inner) => {}
        () = watching => {}
    }
}

/// Ends the lease of this host if it was not extended in time, and with it every attempt and duty.
fn look(inner: &Inner) {
    let lease = inner.membership.lease();
    if lease.holds() {
        return inner.duties.expire(inner.clock.since_boot());
    }
    inner.duties.give_up_all();
    if lease.ended().is_cancelled() {
        return;
    }
    // Cancels the running attempts and the calls in flight; a claim that returns later starts nothing.
    lease.end();
    let deliveries = lock(&inner.running).attempts().len();
    metrics::host_lease_lost();
    tracing::error!(
        deliveries,
        "the storage confirmed no heartbeat in time; everything that runs is canceled, and other hosts take it over"
    );
}
