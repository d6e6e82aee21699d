//! The safety net: periodically looks for due deliveries that the scheduler has missed.
//!
//! Normally it finds none, because every change that makes a delivery due also wakes its lane. If a wake-up is lost
//! nevertheless, the delivery would wait for the next event of its lane; the sweep finds it, counts it and schedules
//! it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Lane, lock};
use modhost_core::event::DeliveryId;
use modhost_core::metrics;
use modhost_storage::journal::Due;

/// The delay before a suspected delivery is checked again: a wake-up in progress has reached the scheduler by then.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// Maximum number of deliveries counted per lane.
const MAX_COUNTED: u32 = 1000;

/// Sweeps until the host closes.
pub(super) async fn run(inner: Arc<Inner>) {
    let sweeping = async {
        loop {
            inner.clock.sleep(inner.settings.sweep_every).await;
            if let Err(error) = sweep(&inner).await {
                tracing::warn!(%error, "cannot look for deliveries that are due");
            }
        }
    };
    inner.closing.run_until_cancelled(sweeping).await;
}

async fn sweep(inner: &Inner) -> modhost_storage::journal::Result<()> {
    let suspected: BTreeSet<DeliveryId> = missed(inner).await?.into_iter().flat_map(|due| due.deliveries).collect();
    if suspected.is_empty() {
        return Ok(());
    }
    inner.clock.sleep(CONFIRM_AFTER.min(inner.settings.sweep_every)).await;
    let mut found: Vec<(Lane, Vec<DeliveryId>)> = Vec::new();
    for Due { tenant, module, mut deliveries, .. } in missed(inner).await? {
        deliveries.retain(|delivery| suspected.contains(delivery));
        if !deliveries.is_empty() {
            found.push(((tenant, module), deliveries));
        }
    }
    let count = found.iter().map(|(_, deliveries)| deliveries.len() as u64).sum();
    let Some(first) = found.first().and_then(|(_, deliveries)| deliveries.first()) else { return Ok(()) };
    metrics::missed_wakeups(count);
    tracing::warn!(deliveries = count, first = %first, "deliveries were due but not scheduled; they are scheduled now");
    inner.woken(found.into_iter().map(|(lane, _)| lane));
    Ok(())
}

/// Returns the due deliveries of lanes that the scheduler has not been woken for.
async fn missed(inner: &Inner) -> modhost_storage::journal::Result<Vec<Due>> {
    let now = inner.clock.now();
    let mut due = inner.journal.due(MAX_COUNTED).await?;
    // The scheduler is about to read all lanes.
    if lock(&inner.next_due).is_some_and(|next| next <= now) {
        return Ok(Vec::new());
    }
    let (woken, ready) = (lock(&inner.woken).clone(), lock(&inner.ready).clone());
    due.retain(|due| {
        let is_ready = ready.get(&due.tenant).is_some_and(|modules| modules.contains(&due.module));
        !(is_ready || woken.contains(&(due.tenant.clone(), due.module.clone())))
    });
    Ok(due)
}
