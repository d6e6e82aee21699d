//! The queue of jobs that are written in batches: tenants take turns, and each may queue a share of what fits.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use tokio::sync::Notify;

use super::schema::STORE;
use crate::error::StorageError;
use modhost_core::event::Name;
use modhost_core::fair_share;
use modhost_core::sync::lock;

/// Maximum size of the jobs that wait in a queue, in bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The size counted at least for a job, so that their number is limited, too.
const MIN_JOB_BYTES: usize = 8 * 1024;

/// The maximum number of jobs in a batch.
const MAX_BATCH: usize = 256;

/// The size of jobs in a batch, but for the last one, in bytes.
const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// A job of a queue.
pub(super) trait QueuedJob: Send + 'static {
    /// The tenant in whose turn it runs.
    fn tenant(&self) -> &Name;

    /// The size of what it writes, in bytes.
    fn bytes(&self) -> usize;

    /// Returns whether it can be in a batch with earlier jobs.
    fn fits(&self, batch: &[Self]) -> bool
    where
        Self: Sized;
}

/// Jobs that wait. Those of one tenant leave in the order in which they were added.
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    added: Notify,
}

struct State<J> {
    tenants: HashMap<Name, TenantJobs<J>>,
    /// The tenants with jobs. It is the first one's turn.
    turns: VecDeque<Name>,
    bytes: usize,
    is_closed: bool,
}

struct TenantJobs<J> {
    jobs: VecDeque<J>,
    bytes: usize,
}

fn counted<J: QueuedJob>(job: &J) -> usize {
    job.bytes().max(MIN_JOB_BYTES)
}

impl<J: QueuedJob> Queue<J> {
    pub(super) fn new() -> Self {
        let state = State { tenants: HashMap::new(), turns: VecDeque::new(), bytes: 0, is_closed: false };
        Self { state: Mutex::new(state), added: Notify::new() }
    }

    /// Adds a job. A tenant may queue a single job of any size.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Full`](crate::error::StorageErrorKind::Full) if the jobs of the tenant would exceed its share.
    pub(super) fn push(&self, job: J) -> Result<(), StorageError> {
        let mut state = lock(&self.state);
        if state.is_closed {
            return Err(StorageError::closed(STORE));
        }
        let (tenant, bytes) = (job.tenant().clone(), counted(&job));
        let own = state.tenants.get(&tenant).map_or(0, |jobs| jobs.bytes);
        let (total, after) = (state.bytes.saturating_add(bytes), own.saturating_add(bytes));
        if own > 0 && !fair_share::allows(MAX_BYTES as u64, total as u64, after as u64) {
            let detail = format!("{own} bytes of tenant {tenant} are already waiting to be written; try again later");
            return Err(StorageError::full(STORE, detail));
        }
        state.bytes = total;
        if !state.tenants.contains_key(&tenant) {
            state.turns.push_back(tenant.clone());
        }
        let jobs = state.tenants.entry(tenant).or_insert_with(|| TenantJobs { jobs: VecDeque::new(), bytes: 0 });
        jobs.bytes = after;
        jobs.jobs.push_back(job);
        drop(state);
        self.added.notify_one();
        Ok(())
    }

    /// Waits for jobs and removes a batch of them. Returns `None` once the queue is closed and empty.
    pub(super) async fn next_batch(&self) -> Option<Vec<J>> {
        loop {
            let added = self.added.notified();
            {
                let mut state = lock(&self.state);
                let batch = state.take_batch();
                if !batch.is_empty() {
                    if !state.turns.is_empty() {
                        self.added.notify_one();
                    }
                    return Some(batch);
                }
                if state.is_closed {
                    self.added.notify_one();
                    return None;
                }
            }
            added.await;
        }
    }

    /// Refuses further jobs. Those in the queue are still returned.
    pub(super) fn close(&self) {
        lock(&self.state).is_closed = true;
        self.added.notify_one();
    }
}

impl<J: QueuedJob> State<J> {
    /// Removes jobs, one of each tenant in turn.
    fn take_batch(&mut self) -> Vec<J> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut refused = 0;
        while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES && refused < self.turns.len() {
            let Some(tenant) = self.turns.pop_front() else { break };
            let Some(jobs) = self.tenants.get_mut(&tenant) else { continue };
            match jobs.jobs.front().is_some_and(|job| job.fits(&batch)).then(|| jobs.jobs.pop_front()).flatten() {
                Some(job) => {
                    let counted = counted(&job);
                    bytes += counted;
                    jobs.bytes = jobs.bytes.saturating_sub(counted);
                    self.bytes = self.bytes.saturating_sub(counted);
                    refused = 0;
                    batch.push(job);
                }
                None => refused += 1,
            }
            match jobs.jobs.is_empty() {
                true => drop(self.tenants.remove(&tenant)),
                false => self.turns.push_back(tenant),
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct TestJob(Name, usize, u32);

    impl QueuedJob for TestJob {
        fn tenant(&self) -> &Name {
            &self.0
        }

        fn bytes(&self) -> usize {
            self.1
        }

        fn fits(&self, batch: &[Self]) -> bool {
            batch.iter().all(|other| other.2 != self.2)
        }
    }

    #[tokio::test]
    async fn tenants_take_turns_and_keep_their_order() {
        let queue = Queue::new();
        for number in 0..300 {
            queue.push(TestJob("busy".into(), 1 << 16, number)).unwrap();
        }
        queue.push(TestJob("quiet".into(), 10, 1_000)).unwrap();
        queue.push(TestJob("quiet".into(), 10, 1_000)).unwrap();
        let batch = queue.next_batch().await.unwrap();
        assert_eq!((batch[0].2, batch[1].2, batch[2].2), (0, 1_000, 1));
        assert!(batch.len() < 40, "it has a maximum size");
        assert_eq!(queue.next_batch().await.unwrap()[0].2, 1_000, "it did not fit before");
    }

    #[tokio::test]
    async fn limits_the_jobs_of_a_tenant_and_drains_when_closed() {
        let queue = Queue::new();
        let mut count = 0;
        let refused = loop {
            match queue.push(TestJob("busy".into(), 1 << 20, count)) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(refused.to_string().contains("tenant busy"), "{refused}");
        assert_eq!(count, 48);
        queue.push(TestJob("quiet".into(), 1 << 20, 0)).unwrap();
        queue.close();
        assert!(queue.push(TestJob("quiet".into(), 1, 0)).is_err());
        let mut drained = 0;
        while let Some(batch) = queue.next_batch().await {
            drained += batch.len();
        }
        assert_eq!(drained, 49);
        assert!(queue.next_batch().await.is_none(), "each worker has to see the end");
    }
}
