//! Decides what runs next: fair between tenants, under the limits of tenant, module and host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::leases::LEASE;
use super::{Inner, Lane, lock, worker};
use modhost_core::backoff::Backoff;
use modhost_core::event::{DeliveryId, Name};
use modhost_storage::journal::{Claim, Claimed, Lease};

/// The longest the scheduler sleeps without looking at the clock: clocks are set while it sleeps.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// The shortest it sleeps when all that is due is held up elsewhere.
const MIN_SLEEP: Duration = Duration::from_millis(50);

/// The shortest it sleeps while a module is paused, coming up or gone from the settings: what waits for that one is always due, and not looked for
/// as often.
const WAITING_SLEEP: Duration = Duration::from_secs(1);

/// How long nothing of a lane is claimed after a claim failed.
const CLAIM_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));

/// How many deliveries of a lane are taken at once.
const BATCH: usize = 64;

/// What runs now, counted.
#[derive(Default)]
pub(super) struct Running {
    total: usize,
    tenants: HashMap<Name, usize>,
    modules: HashMap<Name, usize>,
    attempts: HashMap<DeliveryId, RunningAttempt>,
    /// How many attempts have begun.
    begun: u64,
}

/// An attempt that runs.
struct RunningAttempt {
    lease: Lease,
    /// The number of its slot. That of the attempt won't do: one that was given back is claimed under the same again.
    slot: u64,
    /// Cancelled when its lease is lost.
    lost: CancellationToken,
}

/// Runs deliveries until the host closes.
pub(super) async fn run(inner: Arc<Inner>) {
    let changes = inner.modules.changes();
    let mut scheduler = Scheduler { inner: inner.clone(), turn: 0, changes, lanes: Failing::default(), looks: 0 };
    // Whoever ran before may have panicked with lanes in hand.
    inner.look_again(inner.clock.now());
    // A step isn't broken off: what the journal has given out by then would never begin.
    while !inner.closing.is_cancelled() {
        scheduler.step().await;
    }
}

struct Scheduler {
    inner: Arc<Inner>,
    /// Whose turn is first.
    turn: usize,
    /// Marked when a module has come up.
    changes: watch::Receiver<()>,
    /// Lanes whose claims fail.
    lanes: Failing,
    /// How often in a row it couldn't be found out when the next delivery is due.
    looks: u32,
}

/// Lanes whose claims fail: each is left alone for a while of its own.
#[derive(Default)]
struct Failing(HashMap<Lane, (u32, SystemTime)>);

impl Failing {
    /// Notes that a claim failed; answers with how long the lane is left alone.
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

    fn is_held_off(&self, tenant: &Name, module: &Name, now: SystemTime) -> bool {
        // Hardly ever is there any.
        !self.0.is_empty() && self.0.get(&(tenant.clone(), module.clone())).is_some_and(|(_, until)| *until > now)
    }

    /// When the first lane is tried again that is left alone now.
    fn next(&self, now: SystemTime) -> Option<SystemTime> {
        self.0.values().map(|(_, until)| *until).filter(|until| *until > now).min()
    }
}

impl Scheduler {
    /// Begins what may begin now, or waits until something changes.
    async fn step(&mut self) {
        self.look().await;
        let claims = self.plan();
        if claims.is_empty() {
            return self.wait().await;
        }
        let claimed = join_all(claims.iter().map(|claim| self.inner.journal.claim(claim.clone()))).await;
        let mut failure = None;
        for (claim, claimed) in claims.into_iter().zip(claimed) {
            let lane = (claim.tenant.clone(), claim.module.clone());
            match claimed {
                Ok(claimed) => {
                    self.lanes.succeeded(&lane);
                    self.begin(&claim, claimed);
                }
                // It stays ready, and the others don't wait for it.
                Err(error) => {
                    let wait = self.lanes.failed(lane, self.inner.clock.now());
                    let (lanes, ..) = failure.get_or_insert((0_usize, claim, error, wait));
                    *lanes += 1;
                }
            }
        }
        if let Some((lanes, Claim { tenant, module, .. }, error, retry_in)) = failure {
            tracing::error!(%tenant, %module, lanes, ?retry_in, %error, "cannot claim deliveries");
        }
    }

    /// Takes in the lanes that were woken, and all of them when something has become due.
    async fn look(&mut self) {
        let woken = std::mem::take(&mut *lock(&self.inner.woken));
        let now = self.inner.clock.now();
        let due = lock(&self.inner.next_due).take_if(|due| *due <= now).is_some();
        self.make_ready(woken);
        if due && let Err(error) = self.look_at_all(now).await {
            let retry_in = CLAIM_BACKOFF.delay(self.looks);
            self.looks = self.looks.saturating_add(1);
            tracing::error!(?retry_in, %error, "cannot look for deliveries that are due");
            self.inner.look_again(now + retry_in);
        }
    }

    async fn look_at_all(&mut self, now: SystemTime) -> modhost_storage::journal::Result<()> {
        let lanes = self.inner.journal.lanes().await?;
        self.make_ready(lanes.into_iter().map(|lane| (lane.tenant, lane.module)));
        if let Some(next) = self.inner.journal.next_due().await? {
            // What is due now is ready; the timer is for what comes later.
            let any_waits = self.inner.modules.any_makes_wait() || self.any_waits_for_settings();
            let shortest = if any_waits { WAITING_SLEEP } else { MIN_SLEEP };
            self.inner.look_again(now + next.max(shortest));
        }
        self.looks = 0;
        Ok(())
    }

    fn make_ready(&self, lanes: impl IntoIterator<Item = Lane>) {
        let mut ready = lock(&self.inner.ready);
        for (tenant, module) in lanes {
            ready.entry(tenant).or_default().insert(module);
        }
    }

    /// Whether any of the lanes waits for its module or tenant to be back in the settings, or dropped from them.
    fn any_waits_for_settings(&self) -> bool {
        let routes = self.inner.routes.load();
        let waits = |tenant: &Name, modules: &BTreeSet<Name>| {
            modules.iter().any(|module| self.inner.waits_for_settings(&routes, tenant, module))
        };
        lock(&self.inner.ready).iter().any(|(tenant, modules)| waits(tenant, modules))
    }

    /// Shares the free slots out: every tenant the same, whatever it has waiting.
    fn plan(&mut self) -> Vec<Claim> {
        let routes = self.inner.routes.load();
        let now = self.inner.clock.now();
        let known = lock(&self.inner.ready);
        let running = lock(&self.inner.running);
        let held_off = |tenant: &Name, module: &Name| self.lanes.is_held_off(tenant, module, now);
        let mut free = self.inner.settings.concurrency.saturating_sub(running.total);
        // What waits for a module that is paused, coming up or gone from the settings takes nobody's share.
        let all = &self.inner.modules;
        let can_begin = |tenant: &Name, module: &Name| {
            let waits = all.makes_wait(module) || self.inner.waits_for_settings(&routes, tenant, module);
            !waits && !held_off(tenant, module)
        };
        let ready: BTreeMap<&Name, Vec<&Name>> = known
            .iter()
            .map(|(tenant, modules)| (tenant, modules.iter().filter(|module| can_begin(tenant, module)).collect()))
            .filter(|(_, modules): &(_, Vec<_>)| !modules.is_empty())
            .collect();
        let tenants: Vec<&Name> = ready.keys().copied().collect();
        if tenants.is_empty() || free == 0 {
            return Vec::new();
        }
        let share = (free / tenants.len()).max(1);
        let mut claims = Vec::new();
        // Several tenants may have deliveries for one module: what this round claims for one of them counts for the next.
        let mut planned: BTreeMap<&Name, usize> = BTreeMap::new();
        self.turn = self.turn.wrapping_add(1);
        for index in 0..tenants.len() {
            let tenant = tenants[(index + self.turn) % tenants.len()];
            // A tenant or a module that is no longer configured has no limits of its own; its deliveries end at once.
            let of_tenant = routes.tenant(tenant).map_or(BATCH, |tenant| tenant.concurrency);
            let mut mine = free.min(share).min(of_tenant.saturating_sub(running.of_tenant(tenant)));
            let modules = &ready[tenant];
            for offset in 0..modules.len() {
                let module = modules[(offset + self.turn) % modules.len()];
                let of_module = routes.module(module).map_or(BATCH, |module| module.concurrency);
                let planned = planned.entry(module).or_default();
                let taken = mine.min(BATCH).min(of_module.saturating_sub(running.of_module(module) + *planned));
                if taken > 0 {
                    *planned += taken;
                    claims.push(self.claim(tenant, module, taken));
                    mine -= taken;
                    free -= taken;
                }
            }
        }
        claims
    }

    fn claim(&self, tenant: &Name, module: &Name, limit: usize) -> Claim {
        Claim {
            tenant: tenant.clone(),
            module: module.clone(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            owner: self.inner.settings.owner.clone(),
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
            let slot = RunSlot::take(self.inner.clone(), claim, &claimed);
            self.inner.tasks.spawn(worker::attempt(self.inner.clone(), claimed, slot));
        }
    }

    /// Waits until a lane is woken, a slot is free, a module has come up, something becomes due, or a lane whose claim failed
    /// is tried again.
    async fn wait(&mut self) {
        let due = *lock(&self.inner.next_due);
        let now = self.inner.clock.now();
        let due = due.into_iter().chain(self.lanes.next(now)).min();
        let sleep = due.map_or(MAX_SLEEP, |due| due.duration_since(now).unwrap_or_default());
        tokio::select! {
            biased;
            () = self.inner.wake.notified() => {}
            // What waited for it is in `ready`.
            _ = self.changes.changed() => {}
            () = self.inner.closing.cancelled() => {}
            () = self.inner.clock.sleep(sleep.clamp(Duration::from_millis(1), MAX_SLEEP)) => {}
        }
    }
}

impl Running {
    fn of_tenant(&self, tenant: &Name) -> usize {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    pub(super) fn of_module(&self, module: &Name) -> usize {
        self.modules.get(module).copied().unwrap_or_default()
    }

    /// The attempts that run: their leases, and the numbers of their slots.
    pub(super) fn attempts(&self) -> Vec<(Lease, u64)> {
        self.attempts.values().map(|attempt| (attempt.lease.clone(), attempt.slot)).collect()
    }

    /// Whether nothing runs.
    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Ends the attempt of a slot, as its lease is lost; one that has ended is none.
    pub(super) fn lose(&self, delivery: &DeliveryId, slot: u64) {
        if let Some(attempt) = self.attempts.get(delivery).filter(|attempt| attempt.slot == slot) {
            attempt.lost.cancel();
        }
    }
}

/// What an attempt holds while it runs: its share of the limits, and its lease. Freed when it is dropped.
pub(super) struct RunSlot {
    inner: Arc<Inner>,
    tenant: Name,
    module: Name,
    delivery: DeliveryId,
    number: u64,
    lost: CancellationToken,
}

impl RunSlot {
    fn take(inner: Arc<Inner>, claim: &Claim, claimed: &Claimed) -> Self {
        let (tenant, module, delivery) = (claim.tenant.clone(), claim.module.clone(), claimed.id().clone());
        let lost = CancellationToken::new();
        let mut slot = Self { inner, tenant, module, delivery, number: 0, lost: lost.clone() };
        let mut running = lock(&slot.inner.running);
        running.total += 1;
        running.begun += 1;
        let number = running.begun;
        *running.tenants.entry(slot.tenant.clone()).or_default() += 1;
        *running.modules.entry(slot.module.clone()).or_default() += 1;
        let before = running
            .attempts
            .insert(slot.delivery.clone(), RunningAttempt { lease: claimed.lease.clone(), slot: number, lost });
        drop(running);
        slot.number = number;
        // Whoever gives a delivery out again has taken it from the attempt before.
        if let Some(before) = before {
            before.lost.cancel();
        }
        slot
    }

    /// Waits until the delivery isn't this attempt's any more.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for RunSlot {
    fn drop(&mut self) {
        let mut running = lock(&self.inner.running);
        running.total = running.total.saturating_sub(1);
        less(&mut running.tenants, &self.tenant);
        less(&mut running.modules, &self.module);
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

fn less(counts: &mut HashMap<Name, usize>, name: &Name) {
    if let Some(count) = counts.get_mut(name) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(name);
        }
    }
}
