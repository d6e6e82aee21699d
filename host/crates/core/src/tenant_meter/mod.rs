//! Counts what each tenant uses of this process: CPU time, calls, connections, and the time that its work waits.
//!
//! A [`TenantMeter`] consists of atomic counters. Code that works for a tenant looks its meter up once ([`of`]) and keeps
//! it, so that counting takes no lock. Like the [metrics](crate::metrics), the meters belong to the process.

mod exposition;
mod registry;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::import::{Import, Interface};

pub use exposition::Gauges;
pub use registry::{Snapshot, configure, label, maintain, of, render, snapshots};

/// The bounds of the histogram of delivery waits, in seconds. Longer waits have a bucket of their own.
const WAIT_BOUNDS: [f64; 6] = [0.01, 0.1, 1.0, 10.0, 60.0, 600.0];

// The positions of the counters. Times are in nanoseconds.
const CPU: usize = 0;
const CPU_WAIT: usize = 1;
const DELIVERY_WAIT: usize = 2;
/// The first of one counter for each interface.
const CALLS: usize = 3;
/// The first of one counter for each bucket of delivery waits.
const WAIT_BUCKETS: usize = CALLS + Interface::ALL.len();
const COUNTERS: usize = WAIT_BUCKETS + WAIT_BOUNDS.len() + 1;

/// The counters of one tenant.
#[derive(Debug, Default)]
pub struct TenantMeter {
    counters: [AtomicU64; COUNTERS],
    connections: [AtomicU64; ConnectionKind::ALL.len()],
}

/// The other side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// The tenant's platform or model.
    Platform,
    /// A host that a module sends HTTP requests to.
    Http,
}

impl ConnectionKind {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 2] = [Self::Platform, Self::Http];

    /// Returns the name in metrics and in the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Http => "http",
        }
    }
}

impl TenantMeter {
    /// Adds CPU time of a guest.
    pub fn add_cpu(&self, used: Duration) {
        self.add(CPU, nanos(used));
    }

    /// Adds the time for which a guest could have continued and waited for a thread.
    pub fn add_cpu_wait(&self, waited: Duration) {
        self.add(CPU_WAIT, nanos(waited));
    }

    /// Counts a delivery that began after it had waited for this time.
    pub fn add_delivery_wait(&self, waited: Duration) {
        let seconds = waited.as_secs_f64();
        let bucket = WAIT_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(WAIT_BOUNDS.len());
        self.add(DELIVERY_WAIT, nanos(waited));
        self.add(WAIT_BUCKETS + bucket, 1);
    }

    /// Counts a call of a module.
    pub fn count_call(&self, import: Import) {
        if let Some(interface) = import.interface() {
            self.add(CALLS + interface as usize, 1);
        }
    }

    /// Counts a connection until the returned value is dropped.
    pub fn connection(self: &Arc<Self>, kind: ConnectionKind) -> ConnectionInUse {
        self.connections[kind as usize].fetch_add(1, Ordering::Relaxed);
        ConnectionInUse { meter: self.clone(), kind }
    }

    /// Returns the number of connections of a kind that are in use.
    pub fn connections(&self, kind: ConnectionKind) -> u64 {
        self.connections[kind as usize].load(Ordering::Relaxed)
    }

    /// Returns the counters.
    pub fn totals(&self) -> Totals {
        Totals(std::array::from_fn(|counter| self.counters[counter].load(Ordering::Relaxed)))
    }

    fn add(&self, counter: usize, amount: u64) {
        self.counters[counter].fetch_add(amount, Ordering::Relaxed);
    }
}

/// A connection that is counted as in use.
#[derive(Debug)]
#[must_use = "the connection is counted until this is dropped"]
pub struct ConnectionInUse {
    meter: Arc<TenantMeter>,
    kind: ConnectionKind,
}

impl Drop for ConnectionInUse {
    fn drop(&mut self) {
        self.meter.connections[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// The values of the counters of a tenant, or their sum over several tenants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([u64; COUNTERS]);

impl Totals {
    /// Returns the CPU time of guests.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.0[CPU])
    }

    /// Returns the time for which guests could have continued and waited for a thread.
    pub fn cpu_wait(&self) -> Duration {
        Duration::from_nanos(self.0[CPU_WAIT])
    }

    /// Returns the number of calls of modules to an interface.
    pub fn calls(&self, interface: Interface) -> u64 {
        self.0[CALLS + interface as usize]
    }

    /// Returns the total time for which deliveries waited before they began.
    fn delivery_wait(&self) -> Duration {
        Duration::from_nanos(self.0[DELIVERY_WAIT])
    }

    /// Returns the number of deliveries in each bucket of [`WAIT_BOUNDS`], and in the last one for longer waits.
    fn wait_buckets(&self) -> &[u64] {
        &self.0[WAIT_BUCKETS..]
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, value)| *sum += value);
    }

    /// Returns the difference to an earlier value of the same counters.
    fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|counter| self.0[counter].saturating_sub(earlier.0[counter])))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_connections_until_they_are_dropped() {
        let meter = Arc::<TenantMeter>::default();
        let one = meter.connection(ConnectionKind::Platform);
        let other = meter.connection(ConnectionKind::Platform);
        let http = meter.connection(ConnectionKind::Http);
        drop(one);
        assert_eq!(ConnectionKind::ALL.map(|kind| meter.connections(kind)), [1, 1]);
        drop((other, http));
        assert_eq!(ConnectionKind::ALL.map(|kind| meter.connections(kind)), [0, 0]);
    }

    #[test]
    fn sorts_waits_into_buckets() {
        let meter = TenantMeter::default();
        for millis in [0, 10, 11, 100, 60_000, 600_001] {
            meter.add_delivery_wait(Duration::from_millis(millis));
        }
        assert_eq!(meter.totals().wait_buckets(), [2, 2, 0, 0, 1, 0, 1]);
        assert_eq!(meter.totals().delivery_wait(), Duration::from_millis(660_122));
    }
}
