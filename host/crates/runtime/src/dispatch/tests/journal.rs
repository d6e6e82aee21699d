//! A journal whose operations a test can hold and fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::dispatch::lock;
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_storage::cluster::{self, Cluster, HostInfo, HostStatus};
use modhost_storage::error::StorageError;
use modhost_storage::journal::{
    AttemptReport, Backlog, Call, Claim, Claimed, CommitHandle, Details, Disposition, Due, Filter, Heartbeat, Journal,
    Lane, Lease, Memory, NewDelivery, Recorded, Result, Retention, Summary, TenantUsage, Totals,
};

/// An operation of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Record,
    Lanes,
    Due,
    Claim,
    NextDue,
    Heartbeat,
    Reclaim,
    Unclaim,
    Complete,
    Calls,
    Resend,
    Drop,
    Purge,
    Join,
    Beat,
    Duty,
}

/// A point of an operation: before it takes effect, or after, when its result is about to be returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    Before,
    After,
}

/// Decides how operations continue at a point.
type Decide = dyn FnMut(Op, Point, Option<&Name>) -> Pass + Send;

/// How an operation continues at a point.
pub(super) enum Pass {
    /// It continues.
    Go,
    /// It fails. At [`Point::After`], it has taken effect nonetheless.
    Fail,
    /// It panics.
    Panic,
    /// It continues when the sender sends true, and fails when it sends false.
    Wait(oneshot::Receiver<bool>),
}

/// The in-memory journal, with a gate before and after every operation. Several of them may share one journal: each is
/// the connection of one host.
pub(super) struct GatedJournal {
    pub(super) memory: Arc<Memory>,
    gates: Mutex<Gates>,
    leases_on_record: AtomicBool,
}

#[derive(Default)]
struct Gates {
    held: Vec<Armed>,
    /// The operations that fail, for one module or for all.
    failing: Vec<(Op, Point, Option<Name>)>,
    /// The operations that were started.
    started: Vec<(Op, Option<Name>)>,
    decide: Option<Box<Decide>>,
}

struct Armed {
    op: Op,
    point: Point,
    reached: oneshot::Sender<()>,
    go_on: oneshot::Receiver<bool>,
}

/// An operation that is held at a point until the test releases it.
pub(super) struct Held {
    reached: oneshot::Receiver<()>,
    go_on: oneshot::Sender<bool>,
}

impl Held {
    /// Returns whether the operation has reached the point.
    pub(super) fn is_reached(&mut self) -> bool {
        self.reached.try_recv().is_ok()
    }

    /// Lets the operation continue.
    pub(super) fn release(self) {
        // The operation may have been canceled.
        let _ = self.go_on.send(true);
    }

    /// Makes the operation fail.
    pub(super) fn fail(self) {
        let _ = self.go_on.send(false);
    }
}

impl GatedJournal {
    pub(super) fn new(memory: Memory) -> Self {
        Self::shared(Arc::new(memory))
    }

    pub(super) fn shared(memory: Arc<Memory>) -> Self {
        Self { memory, gates: Mutex::default(), leases_on_record: AtomicBool::new(true) }
    }

    /// Sets whether deliveries are leased as they are recorded, where the dispatcher asks for it. Otherwise they are claimed.
    pub(super) fn lease_on_record(&self, leases_on_record: bool) {
        self.leases_on_record.store(leases_on_record, Ordering::Relaxed);
    }

    /// Holds the next operation of this kind at a point.
    pub(super) fn hold(&self, op: Op, point: Point) -> Held {
        let (reached, when_reached) = oneshot::channel();
        let (release, go_on) = oneshot::channel();
        lock(&self.gates).held.push(Armed { op, point, reached, go_on });
        Held { reached: when_reached, go_on: release }
    }

    /// Makes every operation of this kind fail, for one module or for all.
    pub(super) fn fail(&self, op: Op, point: Point, module: Option<&str>) {
        lock(&self.gates).failing.push((op, point, module.map(Name::from)));
    }

    /// Lets all operations succeed again.
    pub(super) fn recover(&self) {
        lock(&self.gates).failing.clear();
    }

    /// Returns how many operations of this kind were started, for one module or for all.
    pub(super) fn started(&self, op: Op, module: Option<&str>) -> usize {
        let matches = |(started, of): &&(Op, Option<Name>)| {
            *started == op && module.is_none_or(|module| of.as_ref().is_some_and(|of| of.as_str() == module))
        };
        lock(&self.gates).started.iter().filter(matches).count()
    }

    /// Lets a function decide at every point of every operation; none: every operation continues.
    pub(super) fn decide_by(&self, decide: Option<Box<Decide>>) {
        lock(&self.gates).decide = decide;
    }

    async fn pass(&self, op: Op, point: Point, module: Option<&Name>) -> Result<()> {
        let error = || StorageError::broken("journal", format!("failure of {op:?} injected by the test")).into();
        let (armed, pass) = {
            let mut gates = lock(&self.gates);
            if point == Point::Before {
                gates.started.push((op, module.cloned()));
            }
            let armed = gates.held.iter().position(|armed| armed.op == op && armed.point == point);
            let armed = armed.map(|at| gates.held.remove(at));
            let matches = |of: &Option<Name>| of.is_none() || of.as_ref() == module;
            let fails = gates.failing.iter().any(|(failing, at, of)| *failing == op && *at == point && matches(of));
            let pass = match gates.decide.as_mut() {
                _ if fails => Pass::Fail,
                Some(decide) => decide(op, point, module),
                None => Pass::Go,
            };
            (armed, pass)
        };
        if let Some(armed) = armed {
            // The test may have dropped the receiver.
            let _ = armed.reached.send(());
            if !armed.go_on.await.unwrap_or(true) {
                return Err(error());
            }
        }
        match pass {
            Pass::Go => Ok(()),
            Pass::Fail => Err(error()),
            Pass::Panic => panic!("panic in {op:?} injected by the test"),
            Pass::Wait(go_on) => match go_on.await.unwrap_or(true) {
                true => Ok(()),
                false => Err(error()),
            },
        }
    }

    async fn gated<T>(
        &self,
        op: Op,
        module: Option<&Name>,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.pass(op, Point::Before, module).await?;
        let result = operation.await;
        self.pass(op, Point::After, module).await?;
        result
    }

    async fn gated_cluster<T>(
        &self,
        op: Op,
        operation: impl Future<Output = cluster::Result<T>> + Send,
    ) -> cluster::Result<T> {
        let result = self.gated(op, None, async { operation.await.map_err(Into::into) }).await;
        result
            .map_err(|error: modhost_storage::journal::JournalError| StorageError::broken("cluster", error.to_string()))
    }
}

#[async_trait]
impl Journal for GatedJournal {
    async fn record(&self, event: Arc<Event>, mut deliveries: Vec<NewDelivery>) -> Result<Recorded> {
        if !self.leases_on_record.load(Ordering::Relaxed) {
            deliveries.iter_mut().for_each(|new| new.lease = None);
        }
        self.gated(Op::Record, None, self.memory.record(event, deliveries)).await
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        self.gated(Op::Lanes, None, self.memory.lanes()).await
    }

    fn backlog(&self, tenant: &Name) -> Backlog {
        self.memory.backlog(tenant)
    }

    fn usage(&self) -> Vec<TenantUsage> {
        self.memory.usage()
    }

    async fn due(&self, limit: u32) -> Result<Vec<Due>> {
        self.gated(Op::Due, None, self.memory.due(limit)).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        let module = claim.module.clone();
        self.gated(Op::Claim, Some(&module), self.memory.claim(claim)).await
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        self.gated(Op::NextDue, None, self.memory.next_due()).await
    }

    async fn heartbeat(&self, owner: &str, running: Vec<Lease>, lease: Duration) -> Result<Heartbeat> {
        self.gated(Op::Heartbeat, None, self.memory.heartbeat(owner, running, lease)).await
    }

    async fn reclaim(&self, gone: Option<&str>) -> Result<u64> {
        self.gated(Op::Reclaim, None, self.memory.reclaim(gone)).await
    }

    async fn unclaim(&self, lease: &Lease) -> Result<bool> {
        self.gated(Op::Unclaim, None, self.memory.unclaim(lease)).await
    }

    async fn complete_attempt(&self, lease: &Lease, report: AttemptReport, next: Disposition) -> Result<bool> {
        self.gated(Op::Complete, None, self.memory.complete_attempt(lease, report, next)).await
    }

    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>> {
        self.gated(Op::Calls, None, self.memory.calls(delivery)).await
    }

    fn write(&self, lease: &Lease, call: Call) -> Result<CommitHandle> {
        self.memory.write(lease, call)
    }

    fn forget(&self, lease: &Lease, from: u32) -> Result<CommitHandle> {
        self.memory.forget(lease, from)
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        self.memory.list(filter).await
    }

    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        self.memory.show(delivery).await
    }

    async fn resend(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool> {
        self.gated(Op::Resend, None, self.memory.resend(delivery, fresh)).await
    }

    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str) -> Result<bool> {
        self.gated(Op::Drop, None, self.memory.drop_waiting(delivery, reason)).await
    }

    async fn totals(&self) -> Result<Totals> {
        self.memory.totals().await
    }

    fn health(&self) -> Result<()> {
        self.memory.health()
    }

    async fn probe(&self) -> Result<()> {
        self.memory.probe().await
    }

    fn salt(&self) -> [u8; 32] {
        self.memory.salt()
    }

    async fn purge(&self, keep: Retention, batch: u32) -> Result<u64> {
        self.gated(Op::Purge, None, self.memory.purge(keep, batch)).await
    }

    async fn close(&self) -> Result<()> {
        // A test can still read the journal afterwards.
        Ok(())
    }
}

#[async_trait]
impl Cluster for GatedJournal {
    async fn join(&self, host: &HostInfo, lease: Duration) -> cluster::Result<Vec<Arc<str>>> {
        self.gated_cluster(Op::Join, self.memory.join(host, lease)).await
    }

    async fn beat(&self, owner: &str, lease: Duration) -> cluster::Result<bool> {
        self.gated_cluster(Op::Beat, self.memory.beat(owner, lease)).await
    }

    async fn leave(&self, owner: &str) -> cluster::Result<()> {
        self.memory.leave(owner).await
    }

    async fn hosts(&self) -> cluster::Result<Vec<HostStatus>> {
        self.memory.hosts().await
    }

    async fn hold_duty(&self, duty: &str, owner: &str, lease: Duration) -> cluster::Result<bool> {
        self.gated_cluster(Op::Duty, self.memory.hold_duty(duty, owner, lease)).await
    }

    fn poll_every(&self) -> Option<Duration> {
        self.memory.poll_every()
    }
}
