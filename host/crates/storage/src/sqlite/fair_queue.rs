//! The queue of a writer: tenants take turns by the bytes that their jobs write.
//!
//! This is deficit round robin (Shreedhar and Varghese, 1995): a tenant whose turn it is may write a number of bytes, and
//! what it doesn't use counts for its next turn while it has jobs. So the jobs of a tenant wait for their own, and for a
//! little of every other tenant's, however much the others have queued.
//!
//! That doesn't help against a tenant that keeps the disk busy: whatever is written next waits for a commit. So while
//! several tenants write, the modules of each may write so many bytes per second on average; those above that wait, and the
//! disk is idle meanwhile. A tenant that writes alone may use all of the disk. Events have turns of their own and don't
//! wait: a client waits for them, and holds memory that clients of all tenants share.
//!
//! Events come before what modules write, because a client waits for the acknowledgement. Jobs that nobody waits for are
//! deferred: they join the next transaction that somebody needs, or have one of their own after [`MAX_DEFERRAL`].

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use modhost_core::event::Name;

/// The bytes that a tenant may write per turn.
const TURN_BYTES: usize = 64 * 1024;

/// The bytes counted at least for a job in a turn: the pages that it changes.
const MIN_JOB_BYTES: usize = 4 * 1024;

/// The bytes counted for a job besides what it writes, at [`BYTES_PER_SECOND`]: most jobs share pages and a commit.
const JOB_OVERHEAD: usize = 512;

/// The bytes that a tenant's modules may write per second on average while others write, too.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// The time whose worth of bytes a tenant may write at once.
const BURST: Duration = Duration::from_millis(250);

/// The longest time that a tenant waits for what it wrote while it was alone.
const MAX_DEBT: Duration = Duration::from_secs(2);

/// How long after a job of another tenant several tenants count as writing.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// The longest time that a deferred job waits for a transaction to join.
const MAX_DEFERRAL: Duration = Duration::from_millis(2);

/// The number of events that leave in a row while modules have jobs.
const EVENTS_IN_A_ROW: u32 = 4;

/// The number of tenants that are remembered without jobs, to know when they may write again.
const MAX_REMEMBERED: usize = 1_000;

/// Who causes a job, the size of what it writes, and whether somebody waits for it.
#[derive(Clone, Debug)]
pub(crate) struct JobClass {
    /// None: the host. Its jobs come first: others wait for their results, and they are few.
    cause: Option<Cause>,
    /// The size in bytes.
    bytes: usize,
    is_deferred: bool,
}

/// Who causes a job of a tenant. Jobs of the same cause leave in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// An event of the tenant.
    Event(Name),
    /// A module of the tenant.
    Module(Name),
}

impl JobClass {
    /// The class of the host's own jobs.
    pub(crate) const HOST: Self = Self { cause: None, bytes: 0, is_deferred: false };

    /// Returns the class of jobs of this size that a tenant's events cause.
    pub(crate) fn of_event(tenant: &Name, bytes: usize) -> Self {
        Self { cause: Some(Cause::Event(tenant.clone())), bytes, is_deferred: false }
    }

    /// Returns the class of jobs of this size that a tenant's modules cause.
    pub(crate) fn of_module(tenant: &Name, bytes: usize) -> Self {
        Self { cause: Some(Cause::Module(tenant.clone())), bytes, is_deferred: false }
    }

    /// Returns the class of such jobs that nobody waits for. They are not overtaken by later ones of the same cause.
    pub(crate) fn deferred(self) -> Self {
        Self { is_deferred: true, ..self }
    }
}

/// Jobs that wait. Those of one cause leave in the order in which they were added.
pub(super) struct FairQueue<J> {
    host: VecDeque<Waiting<J>>,
    events: Turns<J>,
    modules: Turns<J>,
    /// The number of events that left since a module's job did.
    events_in_a_row: u32,
    len: usize,
    /// The number of deferred jobs.
    deferred: usize,
    /// Since when there are deferred jobs, if there are.
    deferred_since: Option<Instant>,
    /// When the modules of each tenant have paid for what they wrote, at [`BYTES_PER_SECOND`].
    paid_until: HashMap<Name, Instant>,
    /// The tenant of the job that was added last.
    last_tenant: Option<Name>,
    /// Until when several tenants count as writing.
    shared_until: Option<Instant>,
}

/// A job that waits.
struct Waiting<J> {
    job: J,
    bytes: usize,
    is_deferred: bool,
}

/// When a job may leave a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pop {
    /// When it is its turn.
    InTurn,
    /// The same, into a transaction that is open already: deferred jobs join it.
    IntoTransaction,
    /// Now, whatever its tenant has written.
    AtOnce,
}

/// The next job of a queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<J> {
    /// A job, and the bytes that are counted for it.
    Job(usize, J),
    /// All jobs belong to tenants that have to wait, at least for this long.
    Wait(Duration),
    /// There are no jobs.
    Empty,
}

/// The jobs of the tenants, which take turns.
struct Turns<J> {
    tenants: HashMap<Name, TenantJobs<J>>,
    /// The tenants with jobs. It is the first one's turn.
    turns: VecDeque<Name>,
}

struct TenantJobs<J> {
    jobs: VecDeque<Waiting<J>>,
    /// The bytes that may still be written in this turn.
    left: usize,
}

impl<J> Turns<J> {
    fn new() -> Self {
        Self { tenants: HashMap::new(), turns: VecDeque::new() }
    }

    fn push(&mut self, tenant: Name, waiting: Waiting<J>) {
        let turns = &mut self.turns;
        let of_tenant = self.tenants.entry(tenant.clone()).or_insert_with(|| {
            turns.push_back(tenant);
            TenantJobs { jobs: VecDeque::new(), left: 0 }
        });
        of_tenant.jobs.push_back(waiting);
    }

    /// Removes the next job. `debt` is how long a tenant has to wait.
    fn pop(&mut self, debt: impl Fn(&Name) -> Duration) -> Popped<J> {
        let (mut waiting, mut wait) = (0, Duration::MAX);
        loop {
            let Some(tenant) = self.turns.front() else { return Popped::Empty };
            let Some(of_tenant) = self.tenants.get_mut(tenant) else {
                self.turns.pop_front();
                continue;
            };
            let debt = debt(tenant);
            match of_tenant.jobs.front() {
                None => {
                    self.tenants.remove(tenant);
                    self.turns.pop_front();
                }
                Some(_) if debt > BURST => {
                    (waiting, wait) = (waiting + 1, wait.min(debt - BURST));
                    if waiting >= self.turns.len() {
                        return Popped::Wait(wait);
                    }
                    self.turns.rotate_left(1);
                }
                Some(next) if next.bytes.max(MIN_JOB_BYTES) <= of_tenant.left => {
                    let Some(next) = of_tenant.jobs.pop_front() else { continue };
                    of_tenant.left -= next.bytes.max(MIN_JOB_BYTES);
                    return Popped::Job(tenant.clone(), next);
                }
                Some(_) => {
                    of_tenant.left += TURN_BYTES;
                    waiting = 0;
                    self.turns.rotate_left(1);
                }
            }
        }
    }
}

/// The result of [`Turns::pop`].
enum Popped<J> {
    Job(Name, Waiting<J>),
    Wait(Duration),
    Empty,
}

impl<J> FairQueue<J> {
    pub(super) fn new() -> Self {
        Self {
            host: VecDeque::new(),
            events: Turns::new(),
            modules: Turns::new(),
            events_in_a_row: 0,
            len: 0,
            deferred: 0,
            deferred_since: None,
            paid_until: HashMap::new(),
            last_tenant: None,
            shared_until: None,
        }
    }

    /// Returns the number of jobs.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a job.
    pub(super) fn push(&mut self, class: JobClass, job: J, now: Instant) {
        self.len += 1;
        let JobClass { cause, bytes, is_deferred } = class;
        if is_deferred {
            self.deferred += 1;
            self.deferred_since.get_or_insert(now);
        }
        let waiting = Waiting { job, bytes, is_deferred };
        let (turns, tenant) = match cause {
            None => return self.host.push_back(waiting),
            Some(Cause::Event(tenant)) => (&mut self.events, tenant),
            Some(Cause::Module(tenant)) => (&mut self.modules, tenant),
        };
        let is_other = self.last_tenant.as_ref() != Some(&tenant);
        if is_other && self.last_tenant.replace(tenant.clone()).is_some() {
            self.shared_until = Some(now + SHARED_FOR);
        }
        turns.push(tenant, waiting);
    }

    /// Removes the next job.
    pub(super) fn pop(&mut self, now: Instant, pop: Pop) -> Next<J> {
        if let Some(deferred_for) = self.deferred_for(now).filter(|_| pop == Pop::InTurn) {
            return Next::Wait(deferred_for);
        }
        if let Some(next) = self.host.pop_front() {
            return self.left(next, MIN_JOB_BYTES);
        }
        let is_module_next = self.events_in_a_row >= EVENTS_IN_A_ROW;
        if !is_module_next && let Popped::Job(_, next) = self.events.pop(|_| Duration::ZERO) {
            self.events_in_a_row += 1;
            let bytes = next.bytes.max(MIN_JOB_BYTES);
            return self.left(next, bytes);
        }
        let is_shared = pop != Pop::AtOnce && self.shared_until.is_some_and(|until| now < until);
        let paid_until = |tenant: &Name| self.paid_until.get(tenant).filter(|_| is_shared);
        let debt =
            |tenant: &Name| paid_until(tenant).map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        self.events_in_a_row = 0;
        match self.modules.pop(debt) {
            Popped::Job(tenant, next) => {
                self.charge(tenant, next.bytes.saturating_add(JOB_OVERHEAD), now);
                let bytes = next.bytes.max(MIN_JOB_BYTES);
                self.left(next, bytes)
            }
            // It was a module's turn, and there are events.
            _ if is_module_next && !self.events.turns.is_empty() => self.pop(now, pop),
            Popped::Wait(wait) => Next::Wait(wait),
            Popped::Empty => Next::Empty,
        }
    }

    /// Returns how much longer all jobs are deferred; `None` if they are not.
    fn deferred_for(&self, now: Instant) -> Option<Duration> {
        let since = self.deferred_since.filter(|_| self.deferred == self.len)?;
        Some(MAX_DEFERRAL.saturating_sub(now.saturating_duration_since(since))).filter(|wait| !wait.is_zero())
    }

    /// Counts a job that leaves. `bytes` is the size that is counted for it.
    fn left(&mut self, waiting: Waiting<J>, bytes: usize) -> Next<J> {
        self.len -= 1;
        if waiting.is_deferred {
            self.deferred -= 1;
            if self.deferred == 0 {
                self.deferred_since = None;
            }
        }
        Next::Job(bytes, waiting.job)
    }

    /// Counts what the modules of a tenant write.
    fn charge(&mut self, tenant: Name, bytes: usize, now: Instant) {
        if self.paid_until.len() >= MAX_REMEMBERED {
            self.paid_until.retain(|_, until| *until > now);
        }
        let until = self.paid_until.entry(tenant).or_insert(now);
        let cost = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / BYTES_PER_SECOND);
        *until = ((*until).max(now) + cost).min(now + MAX_DEBT);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(tenant: &str, bytes: usize) -> JobClass {
        JobClass::of_module(&tenant.into(), bytes)
    }

    fn push(queue: &mut FairQueue<u32>, tenant: &str, bytes: usize, job: u32) {
        queue.push(class(tenant, bytes), job, Instant::now());
    }

    /// Removes jobs, whatever their tenants have written.
    fn popped(queue: &mut FairQueue<u32>, count: usize) -> Vec<u32> {
        let pop = |_| match queue.pop(Instant::now(), Pop::AtOnce) {
            Next::Job(_, job) => Some(job),
            _ => None,
        };
        (0..count).map_while(pop).collect()
    }

    #[test]
    fn small_jobs_overtake_large_ones_of_other_tenants() {
        let mut queue = FairQueue::new();
        (0..10).for_each(|job| push(&mut queue, "busy", 1 << 20, job));
        (100..110).for_each(|job| push(&mut queue, "quiet", 100, job));
        assert_eq!(popped(&mut queue, 10), (100..110).collect::<Vec<_>>());
        queue.push(JobClass::HOST, 200, Instant::now());
        assert_eq!(popped(&mut queue, 20), [200, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((queue.len(), queue.pop(Instant::now(), Pop::InTurn)), (0, Next::Empty));
    }

    #[test]
    fn equal_jobs_take_turns() {
        let mut queue = FairQueue::new();
        for job in 0..100 {
            push(&mut queue, "one", TURN_BYTES / 2, job);
            push(&mut queue, "two", TURN_BYTES / 2, 100 + job);
        }
        let first: Vec<u32> = popped(&mut queue, 100);
        let of_one = first.iter().filter(|job| **job < 100).count();
        assert!((48..=52).contains(&of_one), "{of_one} of 100 are of one tenant");
    }

    #[test]
    fn tenant_waits_for_what_it_wrote_only_while_others_write() {
        let (mut queue, start) = (FairQueue::new(), Instant::now());
        const LARGE: usize = 4 << 20;
        let large = |queue: &mut FairQueue<u32>, now| {
            queue.push(class("busy", LARGE), 0, now);
            queue.pop(now, Pop::InTurn)
        };
        for _ in 0..10 {
            assert_eq!(large(&mut queue, start), Next::Job(LARGE, 0), "it is alone");
        }
        queue.push(class("quiet", 0), 1, start);
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Job(MIN_JOB_BYTES, 1));
        assert_eq!(large(&mut queue, start), Next::Wait(MAX_DEBT - BURST), "it wrote 40 MiB");
        queue.push(class("quiet", 0), 2, start);
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Job(MIN_JOB_BYTES, 2));
        queue.push(JobClass::of_event(&"busy".into(), LARGE), 5, start);
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Job(LARGE, 5), "events don't wait");
        assert_eq!(queue.pop(start, Pop::AtOnce), Next::Job(LARGE, 0), "when the queue is closed");
        // Nobody else has written for a second.
        let later = start + SHARED_FOR;
        queue.push(class("busy", LARGE), 3, later);
        queue.push(class("busy", LARGE), 4, later);
        assert_eq!(queue.pop(later + SHARED_FOR, Pop::InTurn), Next::Job(LARGE, 3));
    }

    #[test]
    fn tenant_with_many_small_jobs_does_not_wait() {
        let (mut queue, now) = (FairQueue::new(), Instant::now());
        (0..2_000).for_each(|job| queue.push(class("busy", 200), job, now));
        queue.push(class("quiet", 200), 2_000, now);
        let left = (0..=2_000).filter(|_| matches!(queue.pop(now, Pop::InTurn), Next::Job(..))).count();
        assert_eq!(left, 2_001);
    }

    #[test]
    fn events_come_first_and_modules_still_get_their_turn() {
        let (mut queue, now) = (FairQueue::new(), Instant::now());
        (0..100).for_each(|job| push(&mut queue, "acme", 100, job));
        (100..200).for_each(|job| queue.push(JobClass::of_event(&"acme".into(), 100), job, now));
        let order = popped(&mut queue, 200);
        assert_eq!(order[..7], [100, 101, 102, 103, 0, 104, 105]);
        assert_eq!(order[123..126], [199, 24, 25]);
    }

    #[test]
    fn deferred_jobs_wait_for_a_transaction_to_join() {
        let (mut queue, start) = (FairQueue::new(), Instant::now());
        let deferred = |queue: &mut FairQueue<u32>, job, at| queue.push(class("acme", 100).deferred(), job, at);
        deferred(&mut queue, 0, start);
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Wait(MAX_DEFERRAL));
        deferred(&mut queue, 1, start + MAX_DEFERRAL / 2);
        assert_eq!(queue.pop(start + MAX_DEFERRAL / 2, Pop::InTurn), Next::Wait(MAX_DEFERRAL / 2));
        queue.push(JobClass::of_event(&"acme".into(), 100), 2, start);
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Job(MIN_JOB_BYTES, 2), "somebody waits for it");
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Wait(MAX_DEFERRAL));
        assert_eq!(queue.pop(start, Pop::IntoTransaction), Next::Job(MIN_JOB_BYTES, 0));
        assert_eq!(queue.pop(start, Pop::AtOnce), Next::Job(MIN_JOB_BYTES, 1));
        // The time counts from the oldest one.
        deferred(&mut queue, 3, start);
        assert_eq!(queue.pop(start + MAX_DEFERRAL, Pop::InTurn), Next::Job(MIN_JOB_BYTES, 3));
        // A later job of the same cause doesn't overtake one, and takes it along.
        deferred(&mut queue, 4, start);
        queue.push(class("acme", 100), 5, start);
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Job(MIN_JOB_BYTES, 4));
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Job(MIN_JOB_BYTES, 5));
        assert_eq!(queue.pop(start, Pop::InTurn), Next::Empty);
    }

    proptest! {
        /// Every job leaves once, and those of a tenant in their order. While two tenants have jobs, neither gets ahead by
        /// more than a turn and its largest job.
        #[test]
        fn is_fair_and_keeps_the_order(jobs in proptest::collection::vec((0..3_usize, 0..200_000_usize), 0..200)) {
            let mut queue = FairQueue::new();
            for (number, (tenant, bytes)) in jobs.iter().enumerate() {
                let tenant = ["one", "two", "three"][*tenant];
                queue.push(class(tenant, *bytes), number, Instant::now());
            }
            let mut waiting = [0; 3];
            jobs.iter().for_each(|(tenant, _)| waiting[*tenant] += 1);
            let (mut last, mut written) = ([None; 3], [0_usize; 3]);
            for _ in 0..jobs.len() {
                let all_wait = waiting.iter().all(|count| *count > 0);
                let Next::Job(bytes, number) = queue.pop(Instant::now(), Pop::AtOnce) else { panic!("a job is missing") };
                let (tenant, _) = jobs[number];
                prop_assert!(last[tenant] < Some(number));
                last[tenant] = Some(number);
                waiting[tenant] -= 1;
                written[tenant] += bytes;
                if all_wait {
                    let (most, least) = (written.iter().max().unwrap(), written.iter().min().unwrap());
                    prop_assert!(most - least <= 200_000 + 2 * TURN_BYTES, "{written:?}");
                }
            }
            prop_assert_eq!(queue.pop(Instant::now(), Pop::AtOnce), Next::Empty);
        }
    }
}
