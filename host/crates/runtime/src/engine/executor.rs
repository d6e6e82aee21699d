//! Runs guests on threads of their own and divides the CPU time between tenants.
//!
//! A guest that computes would otherwise occupy the runtime's worker threads, which accept events, answer the admin API
//! and drive every connection. Here it occupies a guest thread, which has a lower priority in the operating system.
//!
//! Each tenant has a queue of guests that can continue. A guest thread takes the next guest of the tenant with the
//! lowest virtual time (stride scheduling), and polls it once: until the guest waits for a call, ends, or yields at the
//! next epoch. The virtual time of a tenant is the CPU time that its guests have used, divided by its weight. So while
//! all have work, the tenants' shares are proportional to their weights, however many guests they have, and each gets
//! all threads while the others are idle. A tenant that has used much less than one that runs doesn't wait: further
//! threads, with a higher priority, run its guests at once, until it has caught up.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use async_task::{Runnable, Task};
use futures::FutureExt;
use tokio::runtime::Handle;

use super::cpu_time;
use modhost_core::event::Name;
use modhost_core::limits::DEFAULT_CPU_WEIGHT;
use modhost_core::sync::lock;
use modhost_core::tenant_meter::TenantMeter;

/// How much lower the priority of guest threads is, as a nice value: the threads that accept events and serve the admin
/// API run first when all cores are busy.
const NICE: i32 = 5;

/// The minimum time between two interruptions of running guests, so that they make progress however often other guests
/// become ready.
const MIN_SLICE: Duration = Duration::from_millis(1);

/// The maximum virtual time that a tenant may catch up on after it was idle: a tenant that was idle for an hour must not
/// occupy the threads for an hour.
const MAX_LAG: Duration = Duration::from_millis(20);

/// A pool of threads that run guests. Dropping it ends the threads.
pub(super) struct Executor {
    shared: Arc<Shared>,
}

struct Shared {
    queues: Mutex<Queues>,
    /// Notified when a guest can continue and a core is free.
    ready: Idle,
    /// Notified when a guest can continue whose tenant is behind.
    behind: Idle,
    /// The number of guests that run at a time, unless tenants are behind: one per core.
    cores: usize,
    /// Makes running guests return to the executor soon.
    interrupt: Box<dyn Fn() + Send + Sync>,
}

/// The threads that wait for guests. Notifying is a system call, and most of the time no thread waits.
#[derive(Default)]
struct Idle {
    condvar: Condvar,
    /// The number of threads that wait. Changes only while the queues are locked.
    threads: AtomicUsize,
}

impl Idle {
    /// Waits until the threads are notified.
    fn wait<'q>(&self, queues: MutexGuard<'q, Queues>) -> MutexGuard<'q, Queues> {
        self.threads.fetch_add(1, Ordering::Relaxed);
        let queues = self.condvar.wait(queues).unwrap_or_else(std::sync::PoisonError::into_inner);
        self.threads.fetch_sub(1, Ordering::Relaxed);
        queues
    }

    /// Wakes a thread, if one waits. The caller has changed the queues while they were locked: a thread that doesn't wait
    /// yet will see the change.
    fn notify_one(&self) {
        if self.threads.load(Ordering::Relaxed) > 0 {
            self.condvar.notify_one();
        }
    }
}

#[derive(Default)]
struct Queues {
    tenants: HashMap<Name, Tenant>,
    /// The weights that differ from the default.
    weights: HashMap<Name, u32>,
    /// The tenants with guests that can continue, ordered by virtual time.
    order: BTreeSet<(Duration, Name)>,
    /// The highest virtual time of a tenant when one of its guests was chosen.
    now: Duration,
    /// For each running guest, the virtual time of its tenant when the guest was chosen.
    running: Vec<Duration>,
    interrupted_at: Option<Instant>,
    closed: bool,
}

/// The guests of a tenant.
struct Tenant {
    weight: u32,
    meter: Arc<TenantMeter>,
    /// The guests that can continue, each since when.
    ready: VecDeque<(Instant, Runnable)>,
    /// The CPU time of its guests, divided by the weight that the tenant had at the time, as a multiple of the default.
    /// After an idle period, it is raised to at most [`MAX_LAG`] behind `Queues::now`.
    virtual_time: Duration,
    /// The number of its guests that are running.
    running: usize,
}

impl Executor {
    /// Starts a pool with two threads per core: one runs any guest; the other one, which has a higher priority, runs those
    /// of tenants that are behind, and waits otherwise. `interrupt` makes all running guests yield soon.
    ///
    /// # Errors
    ///
    /// If the operating system refuses to start a thread.
    pub(super) fn start(interrupt: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            ready: Idle::default(),
            behind: Idle::default(),
            cores,
            interrupt: Box::new(interrupt),
        });
        let executor = Self { shared };
        for number in 0..cores {
            let shared = executor.shared.clone();
            thread::Builder::new().name(format!("modhost-guest-{number}")).spawn(move || shared.run_any())?;
            let shared = executor.shared.clone();
            thread::Builder::new().name(format!("modhost-guest-{number}b")).spawn(move || shared.run_behind())?;
        }
        Ok(executor)
    }

    /// Sets the weights of the tenants. All others have the default weight. The change applies to guests that run, too.
    pub(super) fn set_weights(&self, weights: impl IntoIterator<Item = (Name, u32)>) {
        let weights = weights.into_iter().filter(|(_, weight)| *weight != DEFAULT_CPU_WEIGHT).collect();
        lock(&self.shared.queues).set_weights(weights);
    }

    /// Runs a future as a guest of a tenant, in the context of the caller's runtime. The meter counts its CPU time, and the
    /// time that it waits for a thread.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        tenant: &Name,
        meter: Arc<TenantMeter>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Running<T> {
        let future = InRuntime { runtime: Handle::current(), future: Some(Box::pin(future)) };
        let (shared, tenant) = (Arc::downgrade(&self.shared), tenant.clone());
        let schedule = move |runnable| {
            if let Some(shared) = shared.upgrade() {
                shared.schedule(&tenant, &meter, runnable);
            }
        };
        let (runnable, task) = async_task::spawn(AssertUnwindSafe(future).catch_unwind(), schedule);
        runnable.schedule();
        Running(Some(task))
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let mut queues = lock(&self.shared.queues);
        queues.closed = true;
        self.shared.ready.condvar.notify_all();
        self.shared.behind.condvar.notify_all();
        // Dropping a guest can wake other guests, which acquires the lock.
        let tenants = std::mem::take(&mut queues.tenants);
        drop(queues);
        drop(tenants);
    }
}

impl Shared {
    /// Queues a guest that can continue.
    fn schedule(&self, tenant: &Name, meter: &Arc<TenantMeter>, runnable: Runnable) {
        let mut guard = lock(&self.queues);
        let queues = &mut *guard;
        if queues.closed {
            drop(guard);
            return drop(runnable);
        }
        let virtual_time = queues.push(tenant, meter, runnable);
        if queues.running.len() < self.cores {
            drop(guard);
            return self.ready.notify_one();
        }
        if queues.is_behind(virtual_time) {
            self.behind.notify_one();
        }
        // All cores run guests. If a tenant of a running guest has used more time than this tenant, all running guests
        // are interrupted.
        let at = Instant::now();
        let is_behind = queues.running.iter().any(|other| *other > virtual_time);
        let may_interrupt = queues.interrupted_at.is_none_or(|last| at.duration_since(last) >= MIN_SLICE);
        if is_behind && may_interrupt {
            queues.interrupted_at = Some(at);
            drop(guard);
            (self.interrupt)();
        }
    }

    /// Runs guests of any tenant until the executor is dropped.
    fn run_any(&self) {
        lower_priority();
        let _ = modhost_sandbox::restore_time_slice(); // a shorter one only costs some switches
        self.run_guests(&self.ready, |queues| queues.running.len() < self.cores);
    }

    /// Runs guests of tenants that are behind, until the executor is dropped.
    fn run_behind(&self) {
        self.run_guests(&self.behind, Queues::first_is_behind);
    }

    /// Runs the next guest whenever `may_run`. Waits for `ready` otherwise.
    fn run_guests(&self, ready: &Idle, may_run: impl Fn(&Queues) -> bool) {
        let mut queues = lock(&self.queues);
        loop {
            if queues.closed {
                return;
            }
            let next = if may_run(&queues) { queues.next() } else { None };
            let Some((tenant, virtual_time, runnable)) = next else {
                queues = ready.wait(queues);
                continue;
            };
            drop(queues);
            cpu_time::start_slice();
            // A guest's panic reaches its caller. If dropping it panics, this thread goes on; the panic hook logs it.
            let _ = catch_unwind(AssertUnwindSafe(|| runnable.run()));
            let used = cpu_time::of_this_slice();
            queues = lock(&self.queues);
            queues.charge(&tenant, virtual_time, used);
            // This thread may wait now, although guests can continue.
            if !queues.order.is_empty() && queues.running.len() < self.cores {
                self.ready.notify_one();
            }
        }
    }
}

impl Queues {
    fn set_weights(&mut self, weights: HashMap<Name, u32>) {
        self.weights = weights;
        for (name, tenant) in &mut self.tenants {
            tenant.weight = weight_of(&self.weights, name);
        }
    }

    /// Adds a guest that can continue. Returns the virtual time of its tenant.
    fn push(&mut self, tenant: &Name, meter: &Arc<TenantMeter>, runnable: Runnable) -> Duration {
        let new = || Tenant::new(weight_of(&self.weights, tenant), meter.clone());
        let state = self.tenants.entry(tenant.clone()).or_insert_with(new);
        // A tenant that was removed from the settings and added again has a new meter.
        if !Arc::ptr_eq(&state.meter, meter) {
            state.meter = meter.clone();
        }
        if state.ready.is_empty() {
            if state.running == 0 {
                state.virtual_time = state.virtual_time.max(self.now.saturating_sub(MAX_LAG));
            }
            self.order.insert((state.virtual_time, tenant.clone()));
        }
        state.ready.push_back((Instant::now(), runnable));
        state.virtual_time
    }

    /// Returns whether a tenant with this virtual time is behind that of a running guest, by so much that it need not wait
    /// until a core is free.
    fn is_behind(&self, virtual_time: Duration) -> bool {
        let limit = virtual_time.saturating_add(MAX_LAG / 2);
        self.running.iter().any(|running| *running >= limit)
    }

    fn first_is_behind(&self) -> bool {
        self.order.first().is_some_and(|(virtual_time, _)| self.is_behind(*virtual_time))
    }

    /// Takes the next guest of the tenant that is furthest behind.
    fn next(&mut self) -> Option<(Name, Duration, Runnable)> {
        let (virtual_time, tenant) = self.order.pop_first()?;
        let state = self.tenants.get_mut(&tenant)?;
        let (since, runnable) = state.ready.pop_front()?;
        state.meter.add_cpu_wait(since.elapsed());
        state.running += 1;
        if !state.ready.is_empty() {
            self.order.insert((virtual_time, tenant.clone()));
        }
        self.now = self.now.max(virtual_time);
        self.running.push(virtual_time);
        Some((tenant, virtual_time, runnable))
    }

    /// Adds the CPU time that a guest of the tenant has used. `started_at` is the virtual time that [`next`](Self::next)
    /// returned.
    fn charge(&mut self, tenant: &Name, started_at: Duration, used: Duration) {
        if let Some(position) = self.running.iter().position(|running| *running == started_at) {
            self.running.swap_remove(position);
        }
        let Some(state) = self.tenants.get_mut(tenant) else { return };
        state.running -= 1;
        state.meter.add_cpu(used);
        let is_ready = !state.ready.is_empty();
        if is_ready {
            self.order.remove(&(state.virtual_time, tenant.clone()));
        }
        state.virtual_time = state.virtual_time.saturating_add(virtual_time(used, state.weight));
        if is_ready {
            self.order.insert((state.virtual_time, tenant.clone()));
        }
        // Nobody waits: who used how much before doesn't matter any more.
        if self.running.is_empty() && self.order.is_empty() {
            self.tenants.clear();
        }
    }
}

impl Tenant {
    fn new(weight: u32, meter: Arc<TenantMeter>) -> Self {
        Self { weight, meter, ready: VecDeque::new(), virtual_time: Duration::ZERO, running: 0 }
    }
}

fn weight_of(weights: &HashMap<Name, u32>, tenant: &Name) -> u32 {
    weights.get(tenant).copied().unwrap_or(DEFAULT_CPU_WEIGHT)
}

/// Returns the virtual time for which a tenant is charged for this CPU time.
fn virtual_time(used: Duration, weight: u32) -> Duration {
    used.saturating_mul(DEFAULT_CPU_WEIGHT) / weight.max(1)
}

/// Lowers the priority of the calling thread, where the system supports that.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    // On Linux, this is the priority of the calling thread. A failure is harmless.
    let _ = rustix::process::nice(NICE);
}

/// A future that is polled and dropped in the context of a runtime: it may use timers, sockets and tasks.
struct InRuntime<F> {
    runtime: Handle,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for InRuntime<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _entered = this.runtime.enter();
        match &mut this.future {
            Some(future) => {
                let polled = future.as_mut().poll(context);
                if polled.is_ready() {
                    this.future = None;
                }
                polled
            }
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for InRuntime<F> {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        self.future = None;
    }
}

/// A guest on the executor. Dropping this handle cancels the guest; its thread drops the guest when the guest next
/// yields, at the latest.
pub(super) struct Running<T>(Option<Task<std::thread::Result<T>>>);

impl<T> Running<T> {
    /// Cancels the guest and waits until it is dropped. Returns the result if the guest has ended already.
    pub(super) async fn cancel(mut self) -> Option<T> {
        let ended = self.0.take()?.cancel().await?;
        Some(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl<T> Future for Running<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            Some(task) => {
                Pin::new(task).poll(context).map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            }
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;

    const SLICE: Duration = Duration::from_millis(10);

    fn name(name: &str) -> Name {
        Name::from(name)
    }

    fn meter() -> Arc<TenantMeter> {
        Arc::default()
    }

    /// Adds guests of a tenant that can continue.
    fn push(queues: &mut Queues, tenant: &str, guests: usize) {
        for _ in 0..guests {
            let (runnable, task) = async_task::spawn(std::future::pending::<()>(), |_| {});
            task.detach();
            queues.push(&name(tenant), &meter(), runnable);
        }
    }

    /// Runs guests that each compute for a slice and can then continue. Returns the number of slices by tenant.
    fn run(queues: &mut Queues, slices: usize) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for _ in 0..slices {
            let (tenant, started_at, runnable) = queues.next().unwrap();
            queues.charge(&tenant, started_at, SLICE);
            *counts.entry(tenant.to_string()).or_default() += 1;
            queues.push(&tenant, &meter(), runnable);
        }
        counts
    }

    #[test]
    fn divides_time_equally_between_tenants() {
        let mut queues = Queues::default();
        push(&mut queues, "many", 100);
        push(&mut queues, "one", 1);
        push(&mut queues, "two", 2);
        let counts = run(&mut queues, 300);
        assert!(counts.values().all(|count| *count == 100), "{counts:?}");
    }

    fn set_weights(queues: &mut Queues, weights: &[(&str, u32)]) {
        queues.set_weights(weights.iter().map(|(tenant, weight)| (name(tenant), *weight)).collect());
    }

    /// Runs guests that are always ready, with slices of different lengths, until they have used this much CPU time.
    /// Returns the CPU time of each tenant. `threads` guests run at a time.
    fn cpu_times(queues: &mut Queues, threads: usize, total: Duration, slice: &mut dyn FnMut() -> Duration) -> Shares {
        let mut shares = Shares::new();
        let mut used = Duration::ZERO;
        // The guests that run, by the time at which they end.
        let mut running: Vec<(Duration, Duration, (Name, Duration, Runnable))> = Vec::new();
        let mut now = Duration::ZERO;
        while used < total {
            while running.len() < threads {
                let Some(next) = queues.next() else { break };
                let slice = slice();
                running.push((now + slice, slice, next));
            }
            let first = (0..running.len()).min_by_key(|index| running[*index].0).unwrap();
            let (ended, slice, (tenant, started_at, runnable)) = running.swap_remove(first);
            now = ended;
            queues.charge(&tenant, started_at, slice);
            queues.push(&tenant, &meter(), runnable);
            used += slice;
            *shares.entry(tenant.to_string()).or_default() += slice;
        }
        for (_, slice, (tenant, started_at, runnable)) in running {
            queues.charge(&tenant, started_at, slice);
            queues.push(&tenant, &meter(), runnable);
        }
        shares
    }

    type Shares = HashMap<String, Duration>;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Tenants that always have work get CPU time in proportion to their weights, whatever the number of their guests
        /// and the lengths of their slices.
        #[test]
        fn shares_converge_to_the_weights(
            tenants in prop::collection::vec((10_u32..=1000, 2_usize..8), 2..6),
            seed in any::<u64>(),
            threads in 1_usize..=2,
        ) {
            let sum: u32 = tenants.iter().map(|(weight, _)| weight).sum();
            let mut queues = Queues::default();
            let names: Vec<String> = (0..tenants.len()).map(|number| format!("tenant-{number}")).collect();
            let weights: Vec<_> = names.iter().zip(&tenants).map(|(name, (weight, _))| (name.as_str(), *weight)).collect();
            set_weights(&mut queues, &weights);
            for (name, (_, guests)) in names.iter().zip(&tenants) {
                push(&mut queues, name, *guests);
            }
            let mut random = fastrand::Rng::with_seed(seed);
            let total = Duration::from_secs(50);
            let shares = cpu_times(&mut queues, threads, total, &mut || Duration::from_micros(random.u64(1..=10_000)));
            for (tenant, weight) in weights {
                let share = shares.get(tenant).copied().unwrap_or_default().as_secs_f64() / total.as_secs_f64();
                let fair = f64::from(weight) / f64::from(sum);
                prop_assert!((share - fair).abs() < 0.01, "{tenant} of {tenants:?} has {share:.3} instead of {fair:.3}");
            }
        }
    }

    #[test]
    fn changed_weight_applies_to_guests_that_run() {
        let mut queues = Queues::default();
        push(&mut queues, "heavy", 3);
        push(&mut queues, "light", 3);
        let counts = run(&mut queues, 100);
        assert_eq!((counts["heavy"], counts["light"]), (50, 50));
        // One of its guests is on a thread while the weight changes.
        let on_thread = queues.next().unwrap();
        set_weights(&mut queues, &[("heavy", 400)]);
        let (tenant, started_at, runnable) = on_thread;
        queues.charge(&tenant, started_at, SLICE);
        queues.push(&tenant, &meter(), runnable);
        let counts = run(&mut queues, 500);
        assert!((395..=405).contains(&counts["heavy"]), "{counts:?}");
        set_weights(&mut queues, &[]);
        let counts = run(&mut queues, 100);
        assert!((48..=52).contains(&counts["heavy"]), "{counts:?}");
    }

    #[test]
    fn idle_tenant_saves_up_nothing_whatever_its_weight() {
        let mut queues = Queues::default();
        set_weights(&mut queues, &[("idle", 300)]);
        push(&mut queues, "busy", 10);
        run(&mut queues, 1000);
        push(&mut queues, "idle", 10);
        let counts = run(&mut queues, 400);
        // It has three quarters, and may catch up on 20 ms of virtual time: six slices of its own.
        assert!((300..=306).contains(&counts["idle"]), "{counts:?}");
    }

    #[test]
    fn tenant_that_was_idle_runs_first_and_catches_up_a_little() {
        let mut queues = Queues::default();
        push(&mut queues, "busy", 10);
        run(&mut queues, 1000);
        push(&mut queues, "idle", 10);
        let first = run(&mut queues, 1);
        assert_eq!(first.get("idle"), Some(&1), "{first:?}");
        let counts = run(&mut queues, 100);
        assert!((50..=53).contains(&counts["idle"]), "an idle tenant saved up more than the lag: {counts:?}");
    }

    #[test]
    fn idle_executor_forgets_all_tenants() {
        let mut queues = Queues::default();
        for tenant in 0..100 {
            push(&mut queues, &format!("tenant-{tenant}"), 1);
        }
        for left in (0..100).rev() {
            let (tenant, started_at, _ended) = queues.next().unwrap();
            queues.charge(&tenant, started_at, SLICE);
            assert_eq!(queues.tenants.len(), if left > 0 { 100 } else { 0 });
        }
    }

    fn executor() -> Executor {
        Executor::start(|| ()).unwrap()
    }

    #[tokio::test]
    async fn guests_use_the_runtime_of_the_caller() {
        let executor = executor();
        let tenant = name("acme");
        let slept = executor.spawn(&tenant, meter(), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::spawn(async { 7 }).await.unwrap()
        });
        assert_eq!(slept.await, 7);
    }

    #[tokio::test]
    async fn panic_of_a_guest_reaches_the_caller_and_no_other_guest() {
        let executor = executor();
        let tenant = name("acme");
        let guest = executor.spawn(&tenant, meter(), async { panic!("the guest broke") });
        let panic = AssertUnwindSafe(guest).catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the guest broke"));
        for _ in 0..4 * executor.shared.cores {
            assert_eq!(executor.spawn(&tenant, meter(), async { 1 }).await, 1);
        }
    }

    /// Sends a message when it is dropped, from a spawned task, which requires a runtime.
    struct SendsOnDrop(Option<oneshot::Sender<()>>);

    impl Drop for SendsOnDrop {
        fn drop(&mut self) {
            let sender = self.0.take().unwrap();
            tokio::spawn(async move { sender.send(()) });
        }
    }

    #[tokio::test]
    async fn cancel_waits_until_the_guest_is_dropped() {
        let executor = executor();
        let (sender, mut dropped) = oneshot::channel();
        let guest = SendsOnDrop(Some(sender));
        let running = executor.spawn(&name("acme"), meter(), async move {
            let _guest = guest;
            std::future::pending::<()>().await;
        });
        assert!(dropped.try_recv().is_err());
        assert_eq!(running.cancel().await, None);
        dropped.await.unwrap();
    }

    #[tokio::test]
    async fn dropping_the_handle_or_the_executor_drops_the_guest() {
        for drops_executor in [false, true] {
            let executor = executor();
            let (sender, dropped) = oneshot::channel();
            let guest = SendsOnDrop(Some(sender));
            let (started, starts) = oneshot::channel();
            let running = executor.spawn(&name("acme"), meter(), async move {
                let _guest = guest;
                let _ = started.send(());
                std::future::pending::<()>().await;
            });
            starts.await.unwrap();
            if drops_executor {
                drop(executor);
            }
            drop(running);
            dropped.await.unwrap();
        }
    }
}
