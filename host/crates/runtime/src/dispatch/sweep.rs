//! The safety net: now and then it is looked for deliveries that are due and that the scheduler doesn't know of.
//!
//! There should be none. Whatever makes a delivery due wakes its lane, and does so to its end. Where that fails after all,
//! a delivery would wait for the next event of its lane; here it is found, counted and run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Lane, lock};
use modhost_core::event::DeliveryId;
use modhost_core::metrics;
use modhost_storage::journal::Due;

/// How long it is waited before it is looked a second time: what is on its way to the scheduler has arrived by then.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// How many deliveries of a lane are counted.
const MAX_COUNTED: u32 = 1000;

/// Looks for as long as the host runs.
pub(super) async fn keep(inner: Arc<Inner>) {
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
    for Due { tenant, module, mut deliveries } in missed(inner).await? {
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

/// What is due and isn't known to the scheduler.
async fn missed(inner: &Inner) -> modhost_storage::journal::Result<Vec<Due>> {
    let now = inner.clock.now();
    let mut due = inner.journal.due(MAX_COUNTED).await?;
    // It looks at all lanes then.
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
