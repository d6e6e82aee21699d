//! The compile queue: tenants take turns, and a tenant's components are ordered by priority and size.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use modhost_core::event::Name;
use modhost_core::sync::lock;

/// The maximum size of a small component, in bytes. Almost all small components compile in well under a second.
const SMALL: usize = 1 << 20;

/// The priority of a compilation, the highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// The module has no version that serves.
    Initial,
    /// The module has an older version that serves.
    Update,
    /// The component already serves on Winch's code and is recompiled with Cranelift.
    Optimize,
}

/// A component to compile.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Job {
    /// The tenants of its module; empty for all tenants. The queue shares the slots among distinct lists of tenants.
    pub tenants: Vec<Name>,
    pub priority: Priority,
    /// The size of the component, in bytes.
    pub bytes: usize,
    /// Whether its compilation exceeded the time of the short permit, or was preempted.
    pub takes_long: bool,
}

impl Job {
    fn is_small(&self) -> bool {
        self.bytes <= SMALL && !self.takes_long
    }
}

/// A queue that shares a few compile slots among tenants.
///
/// The tenant with the fewest slots is next. The last free slot is reserved for tenants that have none, so that no
/// tenant can take all slots. An extra slot is for small components only, and for a short time, so that small
/// components never wait for large ones.
pub(super) struct Queue {
    state: Arc<Mutex<QueueState>>,
}

struct QueueState {
    /// The number of regular slots, without the small one.
    slots: usize,
    /// The number of regular slots in use.
    taken: usize,
    /// Whether the small slot is in use.
    small_taken: bool,
    /// The number of slots in use by tenant.
    in_use: HashMap<Vec<Name>, usize>,
    /// The tenants whose jobs reached a limit, each with the time until which its slot still counts as in use.
    overdrawn: Vec<(Vec<Name>, Instant)>,
    /// The number of permits granted by tenant since the queue was last empty.
    granted: HashMap<Vec<Name>, usize>,
    /// The waiting jobs in the order of arrival.
    waiting: Vec<WaitingJob>,
    /// The permits that are preempted when a job of a higher priority waits, by number.
    preemptible: HashMap<u64, CancellationToken>,
    /// The number of the next preemptible permit.
    next_preemptible: u64,
}

struct WaitingJob {
    job: Job,
    sender: oneshot::Sender<CompilePermit>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum QueuePosition {
    /// A regular slot.
    Regular,
    /// The extra slot for small components.
    Small,
}

/// The right to compile one component. Dropping it frees the slot for the next job.
pub(in crate::engine) struct CompilePermit {
    state: Arc<Mutex<QueueState>>,
    tenants: Vec<Name>,
    slot: QueuePosition,
    began: Instant,
    overdrawn: bool,
    /// Its number and its cancellation token, if it is preemptible.
    preemptible: Option<(u64, CancellationToken)>,
}

impl Queue {
    /// Creates a queue with this number of regular slots, and one for small components.
    pub fn new(slots: usize) -> Self {
        let state = QueueState {
            slots,
            taken: 0,
            small_taken: false,
            in_use: HashMap::new(),
            overdrawn: Vec::new(),
            granted: HashMap::new(),
            waiting: Vec::new(),
            preemptible: HashMap::new(),
            next_preemptible: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Waits for a permit. If none is free, preempts the jobs of [`Priority::Optimize`], unless this job has that
    /// priority too: otherwise an author who saves twice would wait for the recompilation of the first version.
    pub async fn acquire(&self, job: Job) -> CompilePermit {
        let (sender, mut receiver) = oneshot::channel();
        let preempts = job.priority != Priority::Optimize;
        lock(&self.state).waiting.push(WaitingJob { job, sender });
        grant_permits(&self.state);
        if let Ok(permit) = receiver.try_recv() {
            return permit;
        }
        if preempts {
            lock(&self.state).preempt();
        }
        match receiver.await {
            Ok(permit) => permit,
            // A job leaves the queue only with a permit, and the state lives as long as the queue.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Grants permits to all jobs that may have one now.
fn grant_permits(state: &Arc<Mutex<QueueState>>) {
    let granted: Vec<_> = {
        let mut locked = lock(state);
        let next = || {
            let (waiting, slot) = locked.next()?;
            let preemptible = (waiting.job.priority == Priority::Optimize).then(|| locked.add_preemptible());
            Some((waiting.sender, CompilePermit::new(state, waiting.job, slot, preemptible)))
        };
        std::iter::from_fn(next).collect()
    };
    for (sender, permit) in granted {
        // If the receiver was dropped, the permit is dropped too, and its slot goes to the next job.
        let _ = sender.send(permit);
    }
}

impl QueueState {
    /// Removes the next job from the queue and assigns a slot; `None` if no job may have a slot now.
    fn next(&mut self) -> Option<(WaitingJob, QueuePosition)> {
        if self.small_taken && self.taken >= self.slots {
            return None;
        }
        let now = Instant::now();
        self.waiting.retain(|waiting| !waiting.sender.is_closed());
        self.overdrawn.retain(|(_, until)| *until > now);
        let next = [QueuePosition::Small, QueuePosition::Regular]
            .into_iter()
            .find_map(|slot| Some((self.first_for(slot)?, slot)));
        let taken = next.map(|(index, slot)| (self.waiting.remove(index), slot));
        if let Some((WaitingJob { job, .. }, slot)) = &taken {
            match slot {
                QueuePosition::Regular => self.taken += 1,
                QueuePosition::Small => self.small_taken = true,
            }
            *self.in_use.entry(job.tenants.clone()).or_default() += 1;
            *self.granted.entry(job.tenants.clone()).or_default() += 1;
        }
        if self.waiting.is_empty() {
            // Permits granted before a new queue forms must not affect its order.
            self.granted.clear();
        }
        taken
    }

    /// Returns the index of the first job that may have this slot.
    fn first_for(&self, slot: QueuePosition) -> Option<usize> {
        let eligible = self.waiting.iter().enumerate().filter(|(_, waiting)| self.has_room(slot, &waiting.job));
        eligible.min_by_key(|(_, waiting)| self.rank(&waiting.job)).map(|(index, _)| index)
    }

    fn has_room(&self, slot: QueuePosition, job: &Job) -> bool {
        match slot {
            QueuePosition::Small => !self.small_taken && job.is_small(),
            QueuePosition::Regular => {
                let keeps_one_free = self.slots > 1 && self.in_use_by(&job.tenants) > 0;
                self.taken + usize::from(keeps_one_free) < self.slots
            }
        }
    }

    /// Returns the rank of a job; the lowest is next, and equals keep the order of arrival. The tenant's slots and
    /// permits rank before the priority: otherwise a tenant that always has urgent jobs would starve the others.
    fn rank(&self, job: &Job) -> (usize, usize, Priority, usize) {
        let granted = self.granted.get(&job.tenants).copied().unwrap_or_default();
        (self.in_use_by(&job.tenants), granted, job.priority, job.bytes)
    }

    /// Returns the number of slots that count as in use by a tenant.
    fn in_use_by(&self, tenants: &[Name]) -> usize {
        let overdrawn = self.overdrawn.iter().filter(|(whose, _)| whose == tenants).count();
        self.in_use.get(tenants).copied().unwrap_or_default() + overdrawn
    }

    /// Registers a preemptible permit.
    fn add_preemptible(&mut self) -> (u64, CancellationToken) {
        let (number, token) = (self.next_preemptible, CancellationToken::new());
        self.next_preemptible += 1;
        self.preemptible.insert(number, token.clone());
        (number, token)
    }

    /// Cancels all preemptible permits.
    fn preempt(&mut self) {
        self.preemptible.drain().for_each(|(_, token)| token.cancel());
    }

    /// Frees the slot of a permit.
    fn free(&mut self, permit: &mut CompilePermit) {
        match permit.slot {
            QueuePosition::Regular => self.taken = self.taken.saturating_sub(1),
            QueuePosition::Small => self.small_taken = false,
        }
        if let Some((number, _)) = permit.preemptible.take() {
            self.preemptible.remove(&number);
        }
        let tenants = std::mem::take(&mut permit.tenants);
        if let Some(in_use) = self.in_use.get_mut(&tenants) {
            *in_use = in_use.saturating_sub(1);
            if *in_use == 0 {
                self.in_use.remove(&tenants);
            }
        }
        if permit.overdrawn {
            let now = Instant::now();
            self.overdrawn.push((tenants, now + now.duration_since(permit.began)));
        }
    }
}

impl CompilePermit {
    fn new(
        state: &Arc<Mutex<QueueState>>,
        job: Job,
        slot: QueuePosition,
        preemptible: Option<(u64, CancellationToken)>,
    ) -> Self {
        Self { state: state.clone(), tenants: job.tenants, slot, began: Instant::now(), overdrawn: false, preemptible }
    }

    /// Whether the job runs in the background: its component already serves.
    pub fn is_background(&self) -> bool {
        self.preemptible.is_some()
    }

    /// Waits until the permit is preempted. Only permits of [`Priority::Optimize`] can be preempted.
    pub async fn preempted(&self) {
        match &self.preemptible {
            Some((_, token)) => token.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the permit has the slot for small components, and so a short time limit.
    pub fn is_short(&self) -> bool {
        self.slot == QueuePosition::Small
    }

    /// Records that the job reached a limit. The tenant's slot counts as in use for as long again.
    pub fn mark_overdrawn(&mut self) {
        self.overdrawn = true;
    }
}

impl Drop for CompilePermit {
    fn drop(&mut self) {
        let state = self.state.clone();
        lock(&state).free(self);
        grant_permits(&state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::LocalBoxFuture;

    use super::Priority::{Initial, Optimize, Update};
    use super::*;

    const LARGE: usize = SMALL + 1;

    fn job(tenant: &str, priority: Priority, bytes: usize) -> Job {
        Job { tenants: vec![Name::from(tenant)], priority, bytes, takes_long: false }
    }

    /// A large job of a tenant, with normal priority.
    fn large(tenant: &str) -> Job {
        job(tenant, Update, LARGE)
    }

    /// A queue and the jobs that wait in it.
    struct Waiters<'q> {
        queue: &'q Queue,
        jobs: Vec<(usize, LocalBoxFuture<'q, CompilePermit>)>,
    }

    impl<'q> Waiters<'q> {
        /// Queues these jobs in this order.
        fn new(queue: &'q Queue, jobs: impl IntoIterator<Item = Job>) -> Self {
            let mut waiters = Self { queue, jobs: Vec::new() };
            for (number, job) in jobs.into_iter().enumerate() {
                waiters.jobs.push((number, queue.acquire(job).boxed_local()));
                let (_, last) = waiters.jobs.last_mut().unwrap();
                assert!(last.now_or_never().is_none(), "job {number} got a permit immediately");
            }
            waiters
        }

        /// Returns the permits granted so far.
        fn granted(&mut self) -> Vec<(usize, CompilePermit)> {
            let mut granted = Vec::new();
            self.jobs.retain_mut(|(number, wait)| match wait.now_or_never() {
                Some(permit) => {
                    granted.push((*number, permit));
                    false
                }
                None => true,
            });
            granted
        }

        /// Drops a permit and each one granted after it, and returns the order in which the jobs got theirs.
        fn order(mut self, permit: CompilePermit) -> Vec<usize> {
            let mut permit = Some(permit);
            let mut order = Vec::new();
            while !self.jobs.is_empty() {
                drop(permit.take());
                let mut granted = self.granted();
                assert_eq!(granted.len(), 1, "each dropped permit must admit exactly one job");
                let (number, next) = granted.remove(0);
                order.push(number);
                permit = Some(next);
            }
            drop(permit);
            assert_eq!(lock(&self.queue.state).taken, 0);
            order
        }
    }

    fn numbers(granted: &[(usize, CompilePermit)]) -> Vec<usize> {
        granted.iter().map(|(number, _)| *number).collect()
    }

    fn at_once(queue: &Queue, job: Job) -> Option<CompilePermit> {
        queue.acquire(job).now_or_never()
    }

    /// Returns a queue with a single slot, and the permit for it.
    fn busy() -> (Queue, CompilePermit) {
        let queue = Queue::new(1);
        let permit = at_once(&queue, large("somebody else")).unwrap();
        (queue, permit)
    }

    #[test]
    fn orders_a_tenants_jobs_by_priority_and_size() {
        let (queue, permit) = busy();
        let sizes = [(Optimize, 1), (Update, 5), (Update, 4), (Initial, 900), (Initial, 800), (Initial, 800)];
        let jobs = sizes.map(|(priority, bytes)| job("one", priority, LARGE + bytes));
        assert_eq!(Waiters::new(&queue, jobs).order(permit), [4, 5, 3, 2, 1, 0]);
    }

    #[test]
    fn tenants_take_turns_regardless_of_priority() {
        let (queue, permit) = busy();
        let many = (0..4).map(|number| job("many", Initial, LARGE + number));
        let jobs = many.chain([job("few", Update, 9 * LARGE), job("few", Optimize, LARGE), job("one", Update, LARGE)]);
        // No tenant has had a permit at first, so the order is by priority, then one job of each other tenant, then
        // again.
        assert_eq!(Waiters::new(&queue, jobs).order(permit), [0, 6, 4, 1, 5, 2, 3]);
    }

    #[test]
    fn resets_granted_counts_when_the_queue_is_empty() {
        let (queue, permit) = busy();
        assert_eq!(Waiters::new(&queue, [large("one"), large("one")]).order(permit), [0, 1]);
        let permit = at_once(&queue, large("somebody else")).unwrap();
        assert_eq!(Waiters::new(&queue, [large("other"), job("one", Initial, LARGE)]).order(permit), [1, 0]);
    }

    #[test]
    fn reserves_the_last_slot_for_tenants_without_slots() {
        let queue = Queue::new(2);
        let first = at_once(&queue, large("one")).unwrap();
        let mut waiters = Waiters::new(&queue, [job("one", Initial, LARGE)]);
        let other = at_once(&queue, job("other", Optimize, 9 * LARGE))
            .expect("the last slot must be reserved for a tenant without slots");
        drop(other);
        assert!(waiters.granted().is_empty(), "the last slot must be reserved again");
        drop(first);
        assert_eq!(waiters.granted().len(), 1);
    }

    #[test]
    fn prefers_tenants_without_slots() {
        let queue = Queue::new(3);
        let mut one = vec![at_once(&queue, large("one")).unwrap(), at_once(&queue, large("one")).unwrap()];
        let other = at_once(&queue, large("other")).unwrap();
        let jobs = [job("one", Initial, LARGE), job("other", Initial, LARGE), job("third", Optimize, 9 * LARGE)];
        let mut waiters = Waiters::new(&queue, jobs);
        one.pop();
        let third = waiters.granted();
        assert_eq!(numbers(&third), [2]);
        drop(other);
        let other = waiters.granted();
        assert_eq!(numbers(&other), [1]);
    }

    #[test]
    fn slot_of_a_job_that_reached_a_limit_counts_for_as_long_again() {
        let queue = Queue::new(2);
        let mut permit = at_once(&queue, large("one")).unwrap();
        permit.began -= Duration::from_secs(60);
        permit.mark_overdrawn();
        drop(permit);
        let _other = at_once(&queue, large("other")).unwrap();
        let mut waiters = Waiters::new(&queue, [job("one", Initial, LARGE)]);
        assert!(at_once(&queue, large("third")).is_some(), "the last slot must stay reserved");
        assert!(waiters.granted().is_empty());

        lock(&queue.state).overdrawn[0].1 = Instant::now();
        drop(at_once(&queue, large("fourth")));
        assert_eq!(numbers(&waiters.granted()), [0], "the overdrawn slot must stop counting");
    }

    #[test]
    fn single_slot_goes_last_to_a_tenant_that_reached_a_limit() {
        let (queue, mut permit) = busy();
        permit.began -= Duration::from_secs(60);
        permit.mark_overdrawn();
        let jobs = [job("somebody else", Initial, LARGE), large("one"), large("one")];
        assert_eq!(Waiters::new(&queue, jobs).order(permit), [1, 2, 0]);
        let only = at_once(&queue, large("somebody else"));
        assert!(only.is_some(), "without competition the job must start");
    }

    #[test]
    fn small_jobs_never_wait_for_large_ones() {
        let (queue, permit) = busy();
        let small = at_once(&queue, job("one", Update, SMALL)).expect("the small slot must be free");
        let mut waiters = Waiters::new(&queue, [large("other"), job("other", Optimize, SMALL), job("one", Initial, 1)]);
        drop(small);
        let small = waiters.granted();
        assert_eq!(numbers(&small), [2]);
        drop(permit);
        let regular = waiters.granted();
        assert_eq!(numbers(&regular), [0], "a large job must not use the small slot");
        drop(small);
        assert_eq!(numbers(&waiters.granted()), [1]);
    }

    #[test]
    fn small_slot_is_for_small_and_short_jobs() {
        let queue = Queue::new(2);
        let [small, regular] = [1, SMALL].map(|bytes| at_once(&queue, job("one", Update, bytes)).unwrap());
        assert!(small.is_short() && !regular.is_short());
        assert!(at_once(&queue, job("one", Update, 1)).is_none(), "the last slot must be reserved from small jobs too");
        drop(small);
        assert!(at_once(&queue, Job { takes_long: true, ..job("one", Update, 1) }).is_none());
    }

    #[test]
    fn skips_dropped_jobs() {
        let (queue, permit) = busy();
        let mut gone = queue.acquire(job("one", Initial, LARGE)).boxed_local();
        let mut stays = queue.acquire(job("one", Update, LARGE)).boxed_local();
        assert!((&mut gone).now_or_never().is_none() && (&mut stays).now_or_never().is_none());
        drop(gone);
        drop(permit);
        let permit = (&mut stays).now_or_never().expect("the remaining job must get the permit");
        // A job that is dropped after its permit was granted frees the slot as well.
        let mut handed = queue.acquire(large("one")).boxed_local();
        assert!((&mut handed).now_or_never().is_none());
        drop(permit);
        drop(handed);
        assert!(at_once(&queue, large("one")).is_some());
    }

    #[test]
    fn preempts_background_jobs() {
        let queue = Queue::new(2);
        let optimization = at_once(&queue, job("one", Optimize, LARGE)).unwrap();
        assert!(optimization.is_background() && optimization.preempted().now_or_never().is_none());
        let mut another = Waiters::new(&queue, [job("one", Optimize, LARGE)]);
        assert!(optimization.preempted().now_or_never().is_none(), "a job of the same priority must not preempt");

        let mut waiters = Waiters::new(&queue, [job("one", Update, LARGE)]);
        assert!(optimization.preempted().now_or_never().is_some());
        drop(optimization);
        let next = waiters.granted();
        assert_eq!(numbers(&next), [0]);
        assert!(!next[0].1.is_background() && next[0].1.preempted().now_or_never().is_none());
        assert!(another.granted().is_empty(), "it must wait for the more urgent job");
        drop(next);
        let another = another.granted();
        assert!(another[0].1.preempted().now_or_never().is_none(), "a new permit must not be preempted yet");
    }

    #[test]
    fn admits_at_most_one_job_per_slot() {
        let queue = Queue::new(2);
        let _permits = [large("one"), large("other")].map(|job| at_once(&queue, job).unwrap());
        assert!(at_once(&queue, large("third")).is_none());
    }
}
