//! The queue of a writer: tenants take turns by the bytes that their jobs write.
//!
//! This is deficit round robin (Shreedhar and Varghese, 1995): a tenant whose turn it is may write a number of bytes, and
//! what it doesn't use counts for its next turn while it has jobs. So the jobs of a tenant wait for their own, and for a
//! little of every other tenant's, however much the others have queued.

use std::collections::{HashMap, VecDeque};

use modhost_core::event::Name;

/// The bytes that a tenant may write per turn.
const TURN_BYTES: usize = 64 * 1024;

/// The bytes counted at least for a job: the pages that it changes.
const MIN_JOB_BYTES: usize = 4 * 1024;

/// The tenant of a job and the size of what it writes.
#[derive(Clone, Debug)]
pub(crate) struct JobClass {
    /// The tenant. Jobs without one are the host's own, and come first: others wait for their results, and they are few.
    pub(crate) tenant: Option<Name>,
    /// The size in bytes.
    pub(crate) bytes: usize,
}

impl JobClass {
    /// The class of the host's own jobs.
    pub(crate) const HOST: Self = Self { tenant: None, bytes: 0 };

    /// Returns the class of a tenant's jobs of this size.
    pub(crate) fn of_tenant(tenant: &Name, bytes: usize) -> Self {
        Self { tenant: Some(tenant.clone()), bytes }
    }
}

/// Jobs that wait. Those of one tenant, and those of the host, leave in the order in which they were added.
pub(super) struct FairQueue<J> {
    host: VecDeque<J>,
    tenants: HashMap<Name, TenantQueue<J>>,
    /// The tenants with jobs. It is the first one's turn.
    turns: VecDeque<Name>,
    len: usize,
}

struct TenantQueue<J> {
    jobs: VecDeque<(usize, J)>,
    /// The bytes that the tenant may still write in this turn.
    left: usize,
}

impl<J> FairQueue<J> {
    pub(super) fn new() -> Self {
        Self { host: VecDeque::new(), tenants: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }

    /// Returns the number of jobs.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a job.
    pub(super) fn push(&mut self, class: JobClass, job: J) {
        self.len += 1;
        let Some(tenant) = class.tenant else { return self.host.push_back(job) };
        let queue = self.tenants.entry(tenant.clone()).or_insert_with(|| {
            self.turns.push_back(tenant);
            TenantQueue { jobs: VecDeque::new(), left: 0 }
        });
        queue.jobs.push_back((class.bytes.max(MIN_JOB_BYTES), job));
    }

    /// Removes the next job. Also returns the bytes that are counted for it.
    pub(super) fn pop(&mut self) -> Option<(usize, J)> {
        if let Some(job) = self.host.pop_front() {
            self.len -= 1;
            return Some((MIN_JOB_BYTES, job));
        }
        loop {
            let tenant = self.turns.front()?;
            let Some(queue) = self.tenants.get_mut(tenant) else {
                self.turns.pop_front();
                continue;
            };
            match queue.jobs.front() {
                Some((bytes, _)) if *bytes <= queue.left => queue.left -= bytes,
                Some(_) => {
                    queue.left += TURN_BYTES;
                    self.turns.rotate_left(1);
                    continue;
                }
                None => {
                    self.tenants.remove(tenant);
                    self.turns.pop_front();
                    continue;
                }
            }
            let next = queue.jobs.pop_front();
            self.len -= usize::from(next.is_some());
            return next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(tenant: &str, bytes: usize) -> JobClass {
        JobClass::of_tenant(&tenant.into(), bytes)
    }

    fn popped(queue: &mut FairQueue<u32>, count: usize) -> Vec<u32> {
        (0..count).map_while(|_| queue.pop()).map(|(_, job)| job).collect()
    }

    #[test]
    fn small_jobs_overtake_large_ones_of_other_tenants() {
        let mut queue = FairQueue::new();
        (0..10).for_each(|job| queue.push(class("busy", 1 << 20), job));
        (100..110).for_each(|job| queue.push(class("quiet", 100), job));
        assert_eq!(popped(&mut queue, 10), (100..110).collect::<Vec<_>>());
        queue.push(JobClass::HOST, 200);
        assert_eq!(popped(&mut queue, 20), [200, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((queue.len(), queue.pop()), (0, None));
    }

    #[test]
    fn equal_jobs_take_turns() {
        let mut queue = FairQueue::new();
        for job in 0..100 {
            queue.push(class("one", TURN_BYTES / 2), job);
            queue.push(class("two", TURN_BYTES / 2), 100 + job);
        }
        let first: Vec<u32> = popped(&mut queue, 100);
        let of_one = first.iter().filter(|job| **job < 100).count();
        assert!((48..=52).contains(&of_one), "{of_one} of 100 are of one tenant");
    }

    proptest! {
        /// Every job leaves once, and those of a tenant in their order. While two tenants have jobs, neither gets ahead by
        /// more than a turn and its largest job.
        #[test]
        fn is_fair_and_keeps_the_order(jobs in proptest::collection::vec((0..3_usize, 0..200_000_usize), 0..200)) {
            let mut queue = FairQueue::new();
            for (number, (tenant, bytes)) in jobs.iter().enumerate() {
                let tenant = ["one", "two", "three"][*tenant];
                queue.push(class(tenant, *bytes), number);
            }
            let mut waiting = [0; 3];
            jobs.iter().for_each(|(tenant, _)| waiting[*tenant] += 1);
            let (mut last, mut written) = ([None; 3], [0_usize; 3]);
            for _ in 0..jobs.len() {
                let all_wait = waiting.iter().all(|count| *count > 0);
                let (bytes, number) = queue.pop().expect("a job is missing");
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
            prop_assert!(queue.pop().is_none());
        }
    }
}
