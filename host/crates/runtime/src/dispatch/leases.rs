//! Extends the lease of this host and those of its running deliveries, and returns the deliveries of hosts that are gone
//! to the queue.
//!
//! On a storage that several hosts share, a host whose lease was not extended in time has stopped everything it ran (see
//! `watchdog.rs`), and begins a new life here, under another owner.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Inner, lock};
use crate::call_log::HostLease;
use modhost_storage::journal::{JournalError, Lease};

/// How long a lease is valid without a heartbeat.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// How often a host extends its leases.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// The same if other hosts wait for the leases of this one to expire, and its own lease ends it earlier.
pub(super) const SHARED_HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// How soon a failed heartbeat on a shared storage is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Extends this host's leases and reclaims those of others until the host closes and no attempt is running.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut unknown = UnknownLeases::default();
    let mut failures = 0_u32;
    loop {
        let started = inner.clock.now();
        let result = beat_once(&inner, &mut unknown).await;
        let every = match (inner.membership.is_shared(), &result) {
            (true, Ok(())) => SHARED_HEARTBEAT_EVERY,
            (true, Err(_)) => RETRY_AFTER,
            (false, _) => HEARTBEAT_EVERY,
        };
        match result {
            Ok(()) if failures > 0 => {
                tracing::info!(failures, "leases are extended again");
                failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                failures += 1;
                // A database may be away for hours.
                if failures.is_power_of_two() {
                    tracing::error!(failures, %error, "cannot extend leases");
                }
            }
        }
        let remaining = (started + every).duration_since(inner.clock.now()).unwrap_or_default();
        tokio::select! {
            biased;
            () = all_ended(&inner) => return,
            () = inner.membership.changed() => {}
            () = inner.clock.sleep(remaining) => {}
        }
    }
}

/// Makes one heartbeat. A heartbeat of a life that has ended meanwhile is not waited for: the next life must begin even
/// if the storage never answers the earlier one.
async fn beat_once(inner: &Inner, unknown: &mut UnknownLeases) -> Result<(), JournalError> {
    let lease = inner.membership.lease();
    if lease.holds() {
        let beat = lease.ended().run_until_cancelled(beat(inner, &lease, unknown)).await;
        match beat {
            Some(Ok(true)) => return look_after_others(inner).await,
            Some(Err(error)) => return Err(error),
            Some(Ok(false)) => tracing::error!("another host took over the deliveries of this host"),
            None => {}
        }
    }
    lease.end();
    inner.membership.begin_life().await?;
    tracing::info!(owner = %inner.membership.owner(), "the host has a lease again");
    look_after_others(inner).await
}

/// Extends the leases of one life. Returns whether that life still counts.
async fn beat(inner: &Inner, lease: &HostLease, unknown: &mut UnknownLeases) -> Result<bool, JournalError> {
    let sent = inner.clock.since_boot();
    if inner.membership.is_shared() && !inner.membership.beat(lease.owner()).await? {
        return Ok(false);
    }
    // Before the running attempts are read: what is leased later than this is not taken for a lost claim.
    let in_flight_since = inner.lease_operations.oldest();
    let attempts = lock(&inner.running).attempts();
    let running = attempts.iter().map(|(lease, _)| lease.clone());
    let running = running.filter(|running| running.owner == *lease.owner()).collect();
    let heartbeat = inner.journal.heartbeat(lease.owner(), running, LEASE).await?;
    lease.extend(sent);
    inner.membership.publish().await?;
    for (lost, slot) in attempts.iter().filter(|(lease, _)| heartbeat.lost.contains(lease)) {
        lock(&inner.running).cancel(&lost.delivery, *slot);
    }
    if inner.membership.is_shared() {
        let mut not_named = heartbeat.unknown;
        inner.lease_operations.remove_unrecorded(&mut not_named);
        let now = inner.clock.since_boot();
        for lost in unknown.update(not_named, in_flight_since, now) {
            give_back(inner, &lost).await;
        }
    }
    Ok(true)
}

/// Returns deliveries of hosts that are gone to the queue, among them those of earlier lives of this host, and reads
/// which hosts live.
async fn look_after_others(inner: &Inner) -> Result<(), JournalError> {
    let own = reclaim_earlier_lives(inner).await?;
    let others = inner.journal.reclaim(None).await?;
    if others > 0 {
        tracing::warn!(deliveries = others, "leases of another host expired; their deliveries wait again");
    }
    if own + others > 0 || inner.membership.is_shared() {
        inner.rescan(inner.clock.now());
    }
    if inner.membership.is_shared() {
        inner.membership.refresh().await?;
    }
    Ok(())
}

/// Returns the deliveries of earlier lives of this host to the queue. Returns their number.
pub(super) async fn reclaim_earlier_lives(inner: &Inner) -> Result<u64, JournalError> {
    let mut reclaimed = 0;
    while let Some(owner) = inner.membership.next_gone() {
        reclaimed += inner.journal.reclaim(Some(&owner)).await?;
        inner.membership.reclaimed(&owner);
    }
    Ok(reclaimed)
}

/// Returns a delivery to the queue that was leased to this host and that it doesn't know of: the result of the claim was
/// lost. Nothing runs under that lease.
async fn give_back(inner: &Inner, lease: &Lease) {
    match inner.journal.unclaim(lease).await {
        Ok(true) => {
            tracing::warn!(delivery = %lease.delivery, "the result of a claim was lost; the delivery waits again");
            inner.rescan(inner.clock.now());
        }
        Ok(false) => {}
        Err(error) => tracing::error!(delivery = %lease.delivery, %error, "cannot return a delivery"),
    }
}

/// The leases that the journal has and this host doesn't know of, with the time at which that was first seen.
#[derive(Default)]
struct UnknownLeases(HashMap<Lease, Duration>);

impl UnknownLeases {
    /// Takes the unknown leases of a heartbeat. Returns those that no operation in flight can still return: each of
    /// these operations began after the lease was seen. `in_flight_since` is when the oldest of them began.
    fn update(&mut self, unknown: Vec<Lease>, in_flight_since: Option<Duration>, now: Duration) -> Vec<Lease> {
        let mut before = std::mem::take(&mut self.0);
        let mut lost = Vec::new();
        for lease in unknown {
            match before.remove(&lease) {
                Some(seen) if in_flight_since.is_none_or(|since| since > seen) => lost.push(lease),
                Some(seen) => drop(self.0.insert(lease, seen)),
                None => drop(self.0.insert(lease, now)),
            }
        }
        lost
    }
}

/// The operations in flight that take leases or give them up. Meanwhile the journal may have a lease that no running
/// attempt has.
#[derive(Default)]
pub(super) struct LeaseOperations(Mutex<Operations>);

#[derive(Default)]
struct Operations {
    next: u64,
    /// When each operation began, by [`Clock::since_boot`](modhost_core::clock::Clock::since_boot).
    began: BTreeMap<u64, Duration>,
    /// The leases of attempts whose outcome could not be recorded. Their attempts count, so they expire.
    unrecorded: HashSet<Lease>,
}

impl LeaseOperations {
    /// Notes an operation until the guard is dropped: when the attempts of the deliveries that it leased are running, or
    /// when the result of giving a lease up is known.
    pub(super) fn begin(&self, now: Duration) -> LeaseOperation<'_> {
        let mut operations = lock(&self.0);
        let number = operations.next;
        operations.next += 1;
        operations.began.insert(number, now);
        LeaseOperation { operations: self, number }
    }

    /// Notes that the outcome of an attempt could not be recorded.
    pub(super) fn not_recorded(&self, lease: &Lease) {
        lock(&self.0).unrecorded.insert(lease.clone());
    }

    /// Returns when the oldest operation in flight began.
    fn oldest(&self) -> Option<Duration> {
        lock(&self.0).began.values().min().copied()
    }

    /// Removes from the unknown leases of a heartbeat those that are known to expire.
    fn remove_unrecorded(&self, unknown: &mut Vec<Lease>) {
        let unrecorded = &mut lock(&self.0).unrecorded;
        if !unrecorded.is_empty() {
            let held: HashSet<&Lease> = unknown.iter().collect();
            unrecorded.retain(|lease| held.contains(lease));
            unknown.retain(|lease| !unrecorded.contains(lease));
        }
    }
}

/// An operation in flight that takes leases or gives them up.
pub(super) struct LeaseOperation<'a> {
    operations: &'a LeaseOperations,
    number: u64,
}

impl Drop for LeaseOperation<'_> {
    fn drop(&mut self) {
        lock(&self.operations.0).began.remove(&self.number);
    }
}

/// Waits until the host closes and no attempt is running.
pub(super) async fn all_ended(inner: &Inner) {
    inner.closing.cancelled().await;
    loop {
        let idle = inner.idle.notified();
        if lock(&inner.running).is_empty() {
            return;
        }
        idle.await;
    }
}
