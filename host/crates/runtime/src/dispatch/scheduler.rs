//! Decides which deliveries run next: fairly among tenants, within the limits of tenant, module and host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::leases::LEASE;
use super::{Inner, Lane, lock, worker};
use modhost_core::backoff::Backoff;
use modhost_core::event::{DeliveryId, Name};
use modhost_storage::journal::{Claim, Claimed, Lease};

/// Maximum sleep of the scheduler: the system clock may be set while it sleeps.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Minimum sleep when every due delivery is blocked by another limit.
const MIN_SLEEP: Duration = Duration::from_millis(50);

/// Minimum sleep while a module is paused, loading or removed from the settings: its deliveries are always due, and are
/// checked less often.
const WAITING_SLEEP: Duration = Duration::from_secs(1);

/// The delay before a lane is claimed again after a failed claim.
const CLAIM_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));

/// Maximum number of deliveries of one lane in one claim.
const BATCH: usize = 64;

/// The running attempts, with their counts.
#[derive(Default)]
pub(super) struct Running {
    total: usize,
    tenants: HashMap<Name, usize>,
    modules: HashMap<Name, usize>,
    attempts: HashMap<DeliveryId, RunningAttempt>,
    /// The number of attempts started so far.
    started: u64,
}

/// What waits for the limits that deliveries share, as of the scheduler's last plan.
pub(super) struct Contention {
    /// Whether deliveries wait for a run slot of the host.
    host: bool,
    /// The modules whose deliveries wait for the module's concurrency.
    modules: BTreeSet<Name>,
}

impl Contention {
    /// The contention before the first plan: there may be anything.
    pub(super) fn unknown() -> Self {
        Self { host: true, modules: BTreeSet::new() }
    }

    /// Returns whether deliveries wait for a limit that a delivery to this module would use, too.
    pub(super) fn concerns(&self, module: &Name) -> bool {
        self.host || self.modules.contains(module)
    }
}

/// A running attempt.
struct RunningAttempt {
    lease: Lease,
    /// The number of its slot. The attempt number is not unique: a returned delivery is claimed again under the same
    /// number.
    slot: u64,
    /// Canceled when the lease is lost.
    lease_lost: CancellationToken,
}

/// Schedules deliveries until the host closes.
pub(super) async fn run(inner: Arc<Inner>) {
    let changes = inner.modules.changes();
    let mut scheduler =
        Scheduler { inner: inner.clone(), round: 0, changes, backoff: LaneBackoff::default(), failed_reads: 0 };
    // A previous scheduler may have panicked after it had taken lanes out of `woken`.
    inner.rescan(inner.clock.now());
    // A step is never canceled: deliveries claimed by it would not start.
    while !inner.closing.is_cancelled() {
        scheduler.step().await;
    }
}

struct Scheduler {
    inner: Arc<Inner>,
    /// The round-robin position.
    round: usize,
    /// Changes when deliveries of a module may be able to start.
    changes: watch::Receiver<()>,
    /// Lanes whose last claim failed.
    backoff: LaneBackoff,
    /// The number of consecutive failures to read the lanes and the next due time.
    failed_reads: u32,
}

/// The lanes whose last claim failed: the number of failures and the time of the next claim.
#[derive(Default)]
struct LaneBackoff(HashMap<Lane, (u32, SystemTime)>);

impl LaneBackoff {
    /// Records a failed claim. Returns how long the lane is not claimed.
    fn failed(&mut self, lane: Lane, now: SystemTime) -> Duration {
        let (failures, until) = self.0.entry(lane).or_insert((0, now));
        let wait = CLAIM_BACKOFF.delay(*failures);
        *failures = failures.saturating_add(1);
        *until = now + wait;
        wait
    }

    fn succeeded(&mut self, lane: &Lane) {
        if !self.0.is_empty() {
            self.0.remove(lane);
        }
    }

    fn is_backing_off(&self, tenant: &Name, module: &Name, now: SystemTime) -> bool {
        // Usually empty.
        !self.0.is_empty() && self.0.get(&(tenant.clone(), module.clone())).is_some_and(|(_, until)| *until > now)
    }

    /// Returns when the first of these lanes may be claimed again.
    fn next(&self, now: SystemTime) -> Option<SystemTime> {
        self.0.values().map(|(_, until)| *until).filter(|until| *until > now).min()
    }
}

impl Scheduler {
    /// Claims and starts the deliveries that may start now, or waits until something changes.
    async fn step(&mut self) {
        self.update_ready().await;
        let claims = self.plan();
        if claims.is_empty() {
            return self.wait().await;
        }
        let inner = self.inner.clone();
        let _in_flight = inner.lease_operations.begin(inner.clock.since_boot());
        let claimed = join_all(claims.iter().map(|claim| self.inner.journal.claim(claim.clone()))).await;
        let mut failure = None;
        for (claim, claimed) in claims.into_iter().zip(claimed) {
            let lane = (claim.tenant.clone(), claim.module.clone());
            match claimed {
                Ok(claimed) => {
                    self.backoff.succeeded(&lane);
                    self.begin(&claim, claimed);
                }
                // The lane stays ready; other lanes are not delayed.
                Err(error) => {
                    let wait = self.backoff.failed(lane, self.inner.clock.now());
                    let (lanes, ..) = failure.get_or_insert((0_usize, claim, error, wait));
                    *lanes += 1;
                }
            }
        }
        if let Some((lanes, Claim { tenant, module, .. }, error, retry_in)) = failure {
            tracing::error!(%tenant, %module, lanes, ?retry_in, %error, "cannot claim deliveries");
        }
    }

    /// Marks the woken lanes as ready, and reads all lanes when a delivery has become due.
    async fn update_ready(&mut self) {
        let woken = std::mem::take(&mut *lock(&self.inner.woken));
        let now = self.inner.clock.now();
        let due = lock(&self.inner.next_due).take_if(|due| *due <= now).is_some();
        self.make_ready(woken);
        if due && let Err(error) = self.read_lanes(now).await {
            let retry_in = CLAIM_BACKOFF.delay(self.failed_reads);
            self.failed_reads = self.failed_reads.saturating_add(1);
            tracing::error!(?retry_in, %error, "cannot look for deliveries that are due");
            self.inner.rescan(now + retry_in);
        }
    }

    async fn read_lanes(&mut self, now: SystemTime) -> modhost_storage::journal::Result<()> {
        if self.inner.membership.is_shared() {
            // Often, so only lanes with something to claim: others would cost a claim each.
            let due = self.inner.journal.due(1).await?;
            self.make_ready(due.into_iter().map(|due| (due.tenant, due.module)));
        } else {
            let lanes = self.inner.journal.lanes().await?;
            self.make_ready(lanes.into_iter().map(|lane| (lane.tenant, lane.module)));
        }
        if let Some(next) = self.inner.journal.next_due().await? {
            // The lanes that are due now are ready; the timer is for later ones.
            let any_waits = self.inner.modules.any_blocked() || self.any_waits_for_settings();
            let shortest = if any_waits { WAITING_SLEEP } else { MIN_SLEEP };
            self.inner.rescan(now + next.max(shortest));
        }
        if let Some(every) = self.inner.membership.poll_every() {
            self.inner.rescan(now + every);
        }
        self.failed_reads = 0;
        Ok(())
    }

    fn make_ready(&self, lanes: impl IntoIterator<Item = Lane>) {
        let mut ready = lock(&self.inner.ready);
        for (tenant, module) in lanes {
            ready.entry(tenant).or_default().insert(module);
        }
    }

    /// Returns whether a ready lane waits because its module or tenant is missing from the settings.
    fn any_waits_for_settings(&self) -> bool {
        let routes = self.inner.routes.load();
        let waits = |tenant: &Name, modules: &BTreeSet<Name>| {
            modules.iter().any(|module| self.inner.waits_for_settings(&routes, tenant, module))
        };
        lock(&self.inner.ready).iter().any(|(tenant, modules)| waits(tenant, modules))
    }

    /// Divides the free run slots equally among the tenants, whatever their backlogs.
    fn plan(&mut self) -> Vec<Claim> {
        // A host without its lease begins again with its next life.
        if !self.inner.membership.can_claim() {
            return Vec::new();
        }
        let routes = self.inner.routes.load();
        let now = self.inner.clock.now();
        let ready_lanes = lock(&self.inner.ready);
        let running = lock(&self.inner.running);
        let backing_off = |tenant: &Name, module: &Name| self.backoff.is_backing_off(tenant, module, now);
        let mut free = self.inner.settings.concurrency.saturating_sub(running.total);
        // A module that is paused, loading or removed from the settings takes no share.
        let all = &self.inner.modules;
        let can_start = |tenant: &Name, module: &Name| {
            let waits = all.is_blocked(module) || self.inner.waits_for_settings(&routes, tenant, module);
            !waits && !backing_off(tenant, module)
        };
        let ready: BTreeMap<&Name, Vec<&Name>> = ready_lanes
            .iter()
            .map(|(tenant, modules)| (tenant, modules.iter().filter(|module| can_start(tenant, module)).collect()))
            .filter(|(_, modules): &(_, Vec<_>)| !modules.is_empty())
            .collect();
        let tenants: Vec<&Name> = ready.keys().copied().collect();
        let mut contention = Contention { host: free == 0 && !tenants.is_empty(), modules: BTreeSet::new() };
        if tenants.is_empty() || free == 0 {
            *lock(&self.inner.contention) = contention;
            return Vec::new();
        }
        let share = (free / tenants.len()).max(1);
        let mut claims = Vec::new();
        // The concurrency limit of a module spans tenants, so claims planned for one tenant count for the next.
        let mut planned: BTreeMap<&Name, usize> = BTreeMap::new();
        self.round = self.round.wrapping_add(1);
        for index in 0..tenants.len() {
            let tenant = tenants[(index + self.round) % tenants.len()];
            // A tenant or module that is no longer configured has no limit of its own; its deliveries end immediately.
            let of_tenant = routes.tenant(tenant).map_or(BATCH, |tenant| tenant.concurrency);
            let mut tenant_slots = free.min(share).min(of_tenant.saturating_sub(running.of_tenant(tenant)));
            let modules = &ready[tenant];
            for offset in 0..modules.len() {
                let module = modules[(offset + self.round) % modules.len()];
                let of_module = routes.module(module).map_or(BATCH, |module| module.concurrency);
                let planned = planned.entry(module).or_default();
                let of_module = of_module.saturating_sub(running.of_module(module) + *planned);
                let taken = tenant_slots.min(BATCH).min(of_module);
                if of_module == taken {
                    contention.modules.insert(module.clone());
                }
                if taken > 0 {
                    *planned += taken;
                    claims.push(self.claim(tenant, module, taken));
                    tenant_slots -= taken;
                    free -= taken;
                }
            }
        }
        contention.host = free == 0;
        *lock(&self.inner.contention) = contention;
        claims
    }

    fn claim(&self, tenant: &Name, module: &Name, limit: usize) -> Claim {
        Claim {
            tenant: tenant.clone(),
            module: module.clone(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            owner: self.inner.membership.owner(),
            lease: LEASE,
        }
    }

    fn begin(&mut self, claim: &Claim, claimed: Vec<Claimed>) {
        if claimed.len() < claim.limit as usize {
            let mut ready = lock(&self.inner.ready);
            if let Some(modules) = ready.get_mut(&claim.tenant) {
                modules.remove(&claim.module);
                if modules.is_empty() {
                    ready.remove(&claim.tenant);
                }
            }
        }
        for claimed in claimed {
            let slot = RunSlot::take(self.inner.clone(), &claimed.lease, &claimed.module);
            start(&self.inner, claimed, slot);
        }
    }

    /// Waits until a lane is woken, a slot becomes free, a module becomes available, a delivery becomes due, or a
    /// failed claim may be repeated.
    async fn wait(&mut self) {
        let due = *lock(&self.inner.next_due);
        let now = self.inner.clock.now();
        let due = due.into_iter().chain(self.backoff.next(now)).min();
        let sleep = due.map_or(MAX_SLEEP, |due| due.duration_since(now).unwrap_or_default());
        tokio::select! {
            biased;
            () = self.inner.wake.notified() => {}
            // The lanes of the module are already in `ready`.
            _ = self.changes.changed() => {}
            () = self.inner.closing.cancelled() => {}
            () = self.inner.clock.sleep(sleep.clamp(Duration::from_millis(1), MAX_SLEEP)) => {}
        }
    }
}

/// Starts the attempt of a claimed delivery.
pub(super) fn start(inner: &Arc<Inner>, claimed: Claimed, slot: RunSlot) {
    let span = tracing::debug_span!("attempt", module = %claimed.module, delivery = %claimed.id(), attempt = claimed.attempt());
    inner.tasks.spawn(worker::attempt(inner.clone(), claimed, slot).instrument(span));
}

impl Running {
    /// Returns the number of running attempts.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn of_tenant(&self, tenant: &Name) -> usize {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    /// Returns the number of running attempts of each tenant that has any.
    pub(super) fn by_tenant(&self) -> &HashMap<Name, usize> {
        &self.tenants
    }

    pub(super) fn of_module(&self, module: &Name) -> usize {
        self.modules.get(module).copied().unwrap_or_default()
    }

    /// Returns the leases of the running attempts and the numbers of their slots.
    pub(super) fn attempts(&self) -> Vec<(Lease, u64)> {
        self.attempts.values().map(|attempt| (attempt.lease.clone(), attempt.slot)).collect()
    }

    /// Returns whether no attempt is running.
    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Cancels the attempt of a slot because its lease is lost. Does nothing if that attempt has ended.
    pub(super) fn cancel(&self, delivery: &DeliveryId, slot: u64) {
        if let Some(attempt) = self.attempts.get(delivery).filter(|attempt| attempt.slot == slot) {
            attempt.lease_lost.cancel();
        }
    }
}

/// The share of the limits and the lease that a running attempt holds. Released on drop.
pub(super) struct RunSlot {
    inner: Arc<Inner>,
    tenant: Name,
    module: Name,
    delivery: DeliveryId,
    number: u64,
    lease_lost: CancellationToken,
}

impl RunSlot {
    /// Takes a slot for a delivery that is leased.
    fn take(inner: Arc<Inner>, lease: &Lease, module: &Name) -> Self {
        let slot = {
            let mut running = lock(&inner.running);
            Self::reserve(&inner, &mut running, &lease.tenant, module, &lease.delivery)
        };
        slot.hold(lease.clone());
        slot
    }

    /// Takes a slot for a delivery that will be leased. The caller has checked the limits.
    pub(super) fn reserve(
        inner: &Arc<Inner>,
        running: &mut Running,
        tenant: &Name,
        module: &Name,
        delivery: &DeliveryId,
    ) -> Self {
        running.total += 1;
        running.started += 1;
        *running.tenants.entry(tenant.clone()).or_default() += 1;
        *running.modules.entry(module.clone()).or_default() += 1;
        Self {
            inner: inner.clone(),
            tenant: tenant.clone(),
            module: module.clone(),
            delivery: delivery.clone(),
            number: running.started,
            lease_lost: inner.membership.lease().ended().child_token(),
        }
    }

    /// Returns the module.
    pub(super) fn module(&self) -> &Name {
        &self.module
    }

    /// Adds the lease of the delivery to those that the host extends.
    pub(super) fn hold(&self, lease: Lease) {
        let lease_owner = lease.owner.clone();
        let attempt = RunningAttempt { lease, slot: self.number, lease_lost: self.lease_lost.clone() };
        let previous = lock(&self.inner.running).attempts.insert(self.delivery.clone(), attempt);
        // The host has begun another life since it asked for this lease.
        if *lease_owner != *self.inner.membership.owner() {
            self.lease_lost.cancel();
        }
        // The journal leased the delivery again, so the previous attempt has lost its lease.
        if let Some(previous) = previous {
            previous.lease_lost.cancel();
        }
    }

    /// Waits until the lease is lost.
    pub(super) async fn lease_lost(&self) {
        self.lease_lost.cancelled().await;
    }
}

impl Drop for RunSlot {
    fn drop(&mut self) {
        let mut running = lock(&self.inner.running);
        running.total = running.total.saturating_sub(1);
        decrement(&mut running.tenants, &self.tenant);
        decrement(&mut running.modules, &self.module);
        if running.attempts.get(&self.delivery).is_some_and(|attempt| attempt.slot == self.number) {
            running.attempts.remove(&self.delivery);
        }
        let is_idle = running.total == 0;
        drop(running);
        if is_idle {
            self.inner.idle.notify_waiters();
        }
        self.inner.wake.notify_one();
    }
}

fn decrement(counts: &mut HashMap<Name, usize>, name: &Name) {
    if let Some(count) = counts.get_mut(name) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(name);
        }
    }
}
