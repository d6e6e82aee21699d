//! Decides what runs next: fair between tenants, under the limits of tenant, module and host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use tokio::sync::watch;

use super::leases::LEASE;
use super::{Inner, Lane, clock, lock, worker};
use crate::event::Name;
use crate::journal::{Claim, Claimed};

/// The longest the scheduler sleeps without looking at the clock: clocks are set while it sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The shortest it sleeps when all that is due is held up elsewhere.
const SHORTEST_SLEEP: Duration = Duration::from_millis(50);

/// The shortest it sleeps while a module is paused or coming up: what waits for that one is always due, and not looked for
/// as often.
const WAITING_SLEEP: Duration = Duration::from_secs(1);

/// How long it waits after the journal failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How many deliveries of a lane are taken at once.
const BATCH: usize = 64;

/// What runs now, counted.
#[derive(Default)]
pub(super) struct Running {
    total: usize,
    tenants: HashMap<Name, usize>,
    modules: HashMap<Name, usize>,
    pub(super) deliveries: BTreeSet<crate::event::DeliveryId>,
}

/// Runs deliveries until the host closes.
pub(super) async fn run(inner: Arc<Inner>) {
    let changes = inner.registry.changes();
    let mut scheduler = Scheduler { inner: inner.clone(), ready: BTreeMap::new(), turn: 0, changes };
    // A step isn't broken off: what the journal has given out by then would never begin.
    while !inner.closing.is_cancelled() {
        scheduler.step().await;
    }
}

struct Scheduler {
    inner: Arc<Inner>,
    /// Lanes that may have deliveries due, by tenant.
    ready: BTreeMap<Name, BTreeSet<Name>>,
    /// Whose turn is first.
    turn: usize,
    /// Marked when a module has come up.
    changes: watch::Receiver<()>,
}

impl Scheduler {
    /// Begins what may begin now, or waits until something changes.
    async fn step(&mut self) {
        if let Err(error) = self.look().await {
            tracing::error!("no deliveries begin: {error}");
            // The lanes it was about are not known any more: all are looked at.
            self.inner.look_again(clock::now());
            return tokio::time::sleep(AFTER_FAILURE).await;
        }
        let claims = self.plan();
        if claims.is_empty() {
            return self.wait().await;
        }
        let claimed = join_all(claims.iter().map(|claim| self.inner.journal.claim(claim.clone()))).await;
        for (claim, claimed) in claims.into_iter().zip(claimed) {
            match claimed {
                Ok(claimed) => self.begin(&claim, claimed),
                Err(error) => {
                    tracing::error!("no deliveries begin: {error}");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Takes in the lanes that were woken, and all of them when something has become due.
    async fn look(&mut self) -> crate::journal::Result<()> {
        let woken = std::mem::take(&mut *lock(&self.inner.woken));
        let now = clock::now();
        let due = lock(&self.inner.next_due).take_if(|due| *due <= now).is_some();
        let lanes: Vec<Lane> = if due {
            let lanes = self.inner.journal.lanes().await?;
            lanes.into_iter().map(|lane| (lane.tenant, lane.module)).collect()
        } else {
            Vec::new()
        };
        for (tenant, module) in woken.into_iter().chain(lanes) {
            self.ready.entry(tenant).or_default().insert(module);
        }
        if due && let Some(next) = self.inner.journal.next_due().await? {
            // What is due now is in `ready`; the timer is for what comes later.
            let shortest = if self.inner.registry.any_makes_wait() { WAITING_SLEEP } else { SHORTEST_SLEEP };
            self.inner.look_again(next.max(now + shortest));
        }
        Ok(())
    }

    /// Shares the free places out: every tenant the same, whatever it has waiting.
    fn plan(&mut self) -> Vec<Claim> {
        let routes = self.inner.routes.load();
        let running = lock(&self.inner.running);
        let mut free = self.inner.settings.concurrency.saturating_sub(running.total);
        // What waits for a module that is paused or coming up takes nobody's share.
        let registry = &self.inner.registry;
        let ready: BTreeMap<&Name, Vec<&Name>> = self
            .ready
            .iter()
            .map(|(tenant, modules)| (tenant, modules.iter().filter(|module| !registry.makes_wait(module)).collect()))
            .filter(|(_, modules): &(_, Vec<_>)| !modules.is_empty())
            .collect();
        let tenants: Vec<&Name> = ready.keys().copied().collect();
        if tenants.is_empty() || free == 0 {
            return Vec::new();
        }
        let share = (free / tenants.len()).max(1);
        let (now, mut claims) = (clock::now(), Vec::new());
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
                let taken = mine.min(BATCH).min(of_module.saturating_sub(running.of_module(module)));
                if taken > 0 {
                    claims.push(self.claim(tenant, module, taken, now));
                    mine -= taken;
                    free -= taken;
                }
            }
        }
        claims
    }

    fn claim(&self, tenant: &Name, module: &Name, limit: usize, now: SystemTime) -> Claim {
        Claim {
            tenant: tenant.clone(),
            module: module.clone(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            now,
            owner: self.inner.settings.owner.clone(),
            until: now + LEASE,
        }
    }

    fn begin(&mut self, claim: &Claim, claimed: Vec<Claimed>) {
        if claimed.len() < claim.limit as usize
            && let Some(modules) = self.ready.get_mut(&claim.tenant)
        {
            modules.remove(&claim.module);
            if modules.is_empty() {
                self.ready.remove(&claim.tenant);
            }
        }
        for claimed in claimed {
            let place = Place::take(self.inner.clone(), claim, &claimed);
            self.inner.tasks.spawn(worker::attempt(self.inner.clone(), claimed, place));
        }
    }

    /// Waits until a lane is woken, a place is free, a module has come up, or something becomes due.
    async fn wait(&mut self) {
        let due = *lock(&self.inner.next_due);
        let sleep = due.map_or(LONGEST_SLEEP, |due| due.duration_since(clock::now()).unwrap_or_default());
        tokio::select! {
            () = self.inner.wake.notified() => {}
            // What waited for it is in `ready`.
            _ = self.changes.changed() => {}
            () = self.inner.closing.cancelled() => {}
            () = tokio::time::sleep(sleep.clamp(Duration::from_millis(1), LONGEST_SLEEP)) => {}
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
}

/// A delivery's place among those that run; freed when it is dropped.
pub(super) struct Place {
    inner: Arc<Inner>,
    tenant: Name,
    module: Name,
    delivery: crate::event::DeliveryId,
}

impl Place {
    fn take(inner: Arc<Inner>, claim: &Claim, claimed: &Claimed) -> Self {
        let place =
            Self { inner, tenant: claim.tenant.clone(), module: claim.module.clone(), delivery: claimed.id.clone() };
        let mut running = lock(&place.inner.running);
        running.total += 1;
        *running.tenants.entry(place.tenant.clone()).or_default() += 1;
        *running.modules.entry(place.module.clone()).or_default() += 1;
        running.deliveries.insert(place.delivery.clone());
        drop(running);
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = lock(&self.inner.running);
        running.total = running.total.saturating_sub(1);
        less(&mut running.tenants, &self.tenant);
        less(&mut running.modules, &self.module);
        running.deliveries.remove(&self.delivery);
        drop(running);
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
