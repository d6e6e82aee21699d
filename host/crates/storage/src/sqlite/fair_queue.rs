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

/// The number of tenants that are remembered without jobs, to know when they may write again.
const MAX_REMEMBERED: usize = 1_000;

/// Who causes a job, and the size of what it writes.
#[derive(Clone, Debug)]
pub(crate) struct JobClass {
    /// None: the host. Its jobs come first: others wait for their results, and they are few.
    cause: Option<Cause>,
    /// The size in bytes.
    bytes: usize,
}

/// Who causes a job of a tenant. Jobs of the same cause leave in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cause {
    tenant: Name,
    /// Whether a module causes it; otherwise an event.
    is_module: bool,
}

impl JobClass {
    /// The class of the host's own jobs.
    pub(crate) const HOST: Self = Self { cause: None, bytes: 0 };

    /// Returns the class of jobs of this size that a tenant's events cause.
    pub(crate) fn of_event(tenant: &Name, bytes: usize) -> Self {
        Self { cause: Some(Cause { tenant: tenant.clone(), is_module: false }), bytes }
    }

    /// Returns the class of jobs of this size that a tenant's modules cause.
    pub(crate) fn of_module(tenant: &Name, bytes: usize) -> Self {
        Self { cause: Some(Cause { tenant: tenant.clone(), is_module: true }), bytes }
    }
}

/// Jobs that wait. Those of one cause leave in the order in which they were added.
pub(super) struct FairQueue<J> {
    host: VecDeque<J>,
    causes: HashMap<Cause, CauseQueue<J>>,
    /// The causes with jobs. It is the first one's turn.
    turns: VecDeque<Cause>,
    len: usize,
    /// When the modules of each tenant have paid for what they wrote, at [`BYTES_PER_SECOND`].
    paid_until: HashMap<Name, Instant>,
    /// The tenant of the job that was added last.
    last_tenant: Option<Name>,
    /// Until when several tenants count as writing.
    shared_until: Option<Instant>,
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

struct CauseQueue<J> {
    jobs: VecDeque<(usize, J)>,
    /// The bytes that may still be written in this turn.
    left: usize,
}

impl<J> FairQueue<J> {
    pub(super) fn new() -> Self {
        Self {
            host: VecDeque::new(),
            causes: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
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
        let JobClass { cause, bytes } = class;
        let Some(cause) = cause else { return self.host.push_back(job) };
        let is_other = self.last_tenant.as_ref() != Some(&cause.tenant);
        if is_other && self.last_tenant.replace(cause.tenant.clone()).is_some() {
            self.shared_until = Some(now + SHARED_FOR);
        }
        let queue = self.causes.entry(cause.clone()).or_insert_with(|| {
            self.turns.push_back(cause);
            CauseQueue { jobs: VecDeque::new(), left: 0 }
        });
        queue.jobs.push_back((bytes, job));
    }

    /// Removes the next job. With `at_once`, no tenant has to wait.
    pub(super) fn pop(&mut self, now: Instant, at_once: bool) -> Next<J> {
        if let Some(job) = self.host.pop_front() {
            self.len -= 1;
            return Next::Job(MIN_JOB_BYTES, job);
        }
        let is_shared = !at_once && self.shared_until.is_some_and(|until| now < until);
        let (mut waiting, mut wait) = (0, Duration::MAX);
        loop {
            let Some(cause) = self.turns.front() else { return Next::Empty };
            let Some(queue) = self.causes.get_mut(cause) else {
                self.turns.pop_front();
                continue;
            };
            let paid_until = self.paid_until.get(&cause.tenant).filter(|_| is_shared && cause.is_module);
            let debt = paid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
            match queue.jobs.front() {
                None => {
                    self.causes.remove(cause);
                    self.turns.pop_front();
                }
                Some(_) if debt > BURST => {
                    (waiting, wait) = (waiting + 1, wait.min(debt - BURST));
                    if waiting >= self.turns.len() {
                        return Next::Wait(wait);
                    }
                    self.turns.rotate_left(1);
                }
                Some((bytes, _)) if (*bytes).max(MIN_JOB_BYTES) <= queue.left => {
                    let Some((bytes, job)) = queue.jobs.pop_front() else { continue };
                    queue.left -= bytes.max(MIN_JOB_BYTES);
                    self.len -= 1;
                    if cause.is_module {
                        let tenant = cause.tenant.clone();
                        self.charge(tenant, bytes.saturating_add(JOB_OVERHEAD), now);
                    }
                    return Next::Job(bytes.max(MIN_JOB_BYTES), job);
                }
                Some(_) => {
                    queue.left += TURN_BYTES;
                    waiting = 0;
                    self.turns.rotate_left(1);
                }
            }
        }
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
        let pop = |_| match queue.pop(Instant::now(), true) {
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
        assert_eq!((queue.len(), queue.pop(Instant::now(), false)), (0, Next::Empty));
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
            queue.pop(now, false)
        };
        for _ in 0..10 {
            assert_eq!(large(&mut queue, start), Next::Job(LARGE, 0), "it is alone");
        }
        queue.push(class("quiet", 0), 1, start);
        assert_eq!(queue.pop(start, false), Next::Job(MIN_JOB_BYTES, 1));
        assert_eq!(large(&mut queue, start), Next::Wait(MAX_DEBT - BURST), "it wrote 40 MiB");
        queue.push(class("quiet", 0), 2, start);
        assert_eq!(queue.pop(start, false), Next::Job(MIN_JOB_BYTES, 2));
        queue.push(JobClass::of_event(&"busy".into(), LARGE), 5, start);
        assert_eq!(queue.pop(start, false), Next::Job(LARGE, 5), "events don't wait");
        assert_eq!(queue.pop(start, true), Next::Job(LARGE, 0), "when the queue is closed");
        // Nobody else has written for a second.
        let later = start + SHARED_FOR;
        queue.push(class("busy", LARGE), 3, later);
        queue.push(class("busy", LARGE), 4, later);
        assert_eq!(queue.pop(later + SHARED_FOR, false), Next::Job(LARGE, 3));
    }

    #[test]
    fn tenant_with_many_small_jobs_does_not_wait() {
        let (mut queue, now) = (FairQueue::new(), Instant::now());
        (0..2_000).for_each(|job| queue.push(class("busy", 200), job, now));
        queue.push(class("quiet", 200), 2_000, now);
        let left = (0..=2_000).filter(|_| matches!(queue.pop(now, false), Next::Job(..))).count();
        assert_eq!(left, 2_001);
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
                let Next::Job(bytes, number) = queue.pop(Instant::now(), true) else { panic!("a job is missing") };
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
            prop_assert_eq!(queue.pop(Instant::now(), true), Next::Empty);
        }
    }
}
