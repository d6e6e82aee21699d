//! The rows of the deliveries that this host runs, kept in memory, so that a call or the end of an attempt need not read
//! them. They are a cache of the tables: what is missing is read.

use std::collections::HashMap;

use super::delivery_row::DeliveryRow;
use crate::journal::Lease;
use modhost_core::event::DeliveryId;

/// A running delivery.
pub(super) struct RunningDelivery {
    /// Its row.
    pub(super) row: DeliveryRow,
    /// The size of the delivery with its calls and attempts, in bytes; `None` if it isn't known.
    pub(super) bytes: Option<i64>,
    /// The size of its event, in bytes.
    pub(super) event_bytes: i64,
}

/// The running deliveries.
#[derive(Default)]
pub(super) struct RunningDeliveries(HashMap<DeliveryId, RunningDelivery>);

impl RunningDeliveries {
    /// Adds a delivery that was leased.
    pub(super) fn insert(&mut self, running: RunningDelivery) {
        self.0.insert(running.row.id.clone(), running);
    }

    /// Returns a delivery, if the lease is held.
    pub(super) fn get(&self, lease: &Lease) -> Option<&RunningDelivery> {
        let running = self.0.get(&lease.delivery)?;
        let is_held = running.row.attempt == lease.attempt && running.row.owner.as_deref() == Some(&*lease.owner);
        is_held.then_some(running)
    }

    /// Returns the sizes of a delivery and of its event, if they are known.
    pub(super) fn bytes(&self, delivery: &DeliveryId) -> Option<(i64, i64)> {
        let running = self.0.get(delivery)?;
        Some((running.bytes?, running.event_bytes))
    }

    /// Adds to the size of a delivery.
    pub(super) fn add_bytes(&mut self, delivery: &DeliveryId, bytes: i64) {
        if let Some(known) = self.0.get_mut(delivery).and_then(|running| running.bytes.as_mut()) {
            *known += bytes;
        }
    }

    /// Removes a delivery that no longer runs.
    pub(super) fn remove(&mut self, delivery: &DeliveryId) {
        self.0.remove(delivery);
    }

    /// Removes all deliveries: a transaction that may have changed them was rolled back.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
