//! Tests every transition of a recorded call, with a disk and a remote that the test controls, and with a process that
//! can be killed between any two steps.

use std::collections::{BTreeMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::poll;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;
use crate::call_log::{CallLog, HostLease, Lookup, RELY_FOR, as_recorded};
use modhost_core::clock::{Clock, ManualClock};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::{LimitReached, Limits, Resource};
use modhost_core::memory_budget::{MemoryBudget, MemoryCounter};
use modhost_storage::error::StorageError;
use modhost_storage::journal::{
    AttemptReport, Backlog, Call, Claim, Claimed, Details, Disposition, Due, Filter, Heartbeat, Journal, JournalError,
    Lane, Lease, NewDelivery, Recorded, Result as JournalResult, Retention, Summary, TenantUsage, Totals,
};

const READ: CallSpec<Vec<Value>> = CallSpec::new(Import::SearchSearch, CallEffect::Read);
const PAID: CallSpec<Vec<Value>> = CallSpec::new(Import::CompletionComplete, CallEffect::Paid);
const CHANGE: CallSpec<Vec<Value>> = CallSpec::new(Import::MessagesReply, CallEffect::Change);
const STORE: CallSpec<Vec<Value>> = CallSpec::new(Import::KeyValueSet, CallEffect::Store);
const SEND: CallSpec<Vec<Value>> = CallSpec::new(Import::HttpHandle, CallEffect::Send);
/// A change whose result is kept aside and restores the progress: here, the list of all results.
const CREATE: CallSpec<Vec<Value>> = CallSpec::new(Import::MessagesCreate, CallEffect::Change)
    .keeping_result()
    .restored_by(|progress, answer| progress.push(answer.clone()));

const ALL_SPECS: [&CallSpec<Vec<Value>>; 6] = [&READ, &PAID, &CHANGE, &STORE, &SEND, &CREATE];

type GuestResult = Result<String, CallError>;

/// A journal that commits only when the test calls [`Disk::commit`].
#[derive(Default)]
struct Disk(Mutex<DiskState>);

#[derive(Default)]
struct DiskState {
    calls: BTreeMap<u32, Call>,
    submitted: VecDeque<(Submitted, oneshot::Sender<JournalResult<()>>)>,
    /// Set once a commit has failed: all later ones fail too.
    failed: bool,
    /// Rejects every submission immediately.
    full: bool,
}

enum Submitted {
    Write(Call),
    Forget(u32),
}

impl Disk {
    /// Commits the next submissions.
    fn commit(&self, count: usize) {
        let mut state = self.0.lock().unwrap();
        for _ in 0..count {
            let (submitted, done) = state.submitted.pop_front().expect("not enough submissions");
            let result = match submitted {
                _ if state.failed => Err(broken()),
                Submitted::Write(call) => {
                    state.calls.insert(call.number, call);
                    Ok(())
                }
                Submitted::Forget(from) => {
                    state.calls.split_off(&from);
                    Ok(())
                }
            };
            drop(done.send(result));
        }
    }

    fn commit_all(&self) {
        self.commit(self.submitted());
    }

    /// Fails all current and later submissions.
    fn fail(&self) {
        self.0.lock().unwrap().failed = true;
        self.commit_all();
    }

    fn fill(&self) {
        self.0.lock().unwrap().full = true;
    }

    /// Returns the number of uncommitted submissions.
    fn submitted(&self) -> usize {
        self.0.lock().unwrap().submitted.len()
    }

    /// Returns the calls on disk: names, and answers if recorded.
    fn calls(&self) -> Vec<(String, Option<Value>)> {
        let answer = |call: &Call| call.answer.as_ref().map(|answer| serde_json::from_slice(answer).unwrap());
        let state = self.0.lock().unwrap();
        state.calls.values().map(|call| (call.import.to_string(), answer(call))).collect()
    }

    /// Returns whether the only call on disk has an answer; none if no call is on disk.
    fn answered(&self) -> Option<bool> {
        let calls = self.calls();
        assert!(calls.len() < 2, "{calls:?}");
        calls.first().map(|(_, answer)| answer.is_some())
    }
}

fn broken() -> JournalError {
    StorageError::broken("journal", "no disk").into()
}

/// The memory of a tenant, with a limit that a test can lower.
struct Memory {
    used: AtomicU64,
    limit: AtomicU64,
}

impl Memory {
    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Allows this many bytes more than are in use.
    fn leave(&self, bytes: u64) {
        self.limit.store(self.used() + bytes, Ordering::Relaxed);
    }
}

impl MemoryCounter for Memory {
    fn take(&self, bytes: u64) -> Result<(), LimitReached> {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.used() + bytes > limit {
            return Err(LimitReached::TenantMemory(limit));
        }
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self, bytes: u64) {
        assert!(self.used.fetch_sub(bytes, Ordering::Relaxed) >= bytes, "more was released than was taken");
    }
}

/// A host that runs one delivery, in consecutive processes.
struct Host {
    disk: Arc<Disk>,
    limits: Limits,
    memory: Arc<Memory>,
    clock: Arc<ManualClock>,
    lease: Arc<HostLease>,
}

impl Host {
    fn new() -> Self {
        let memory = Memory { used: AtomicU64::new(0), limit: AtomicU64::new(1 << 30) };
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH));
        let lease = Arc::new(HostLease::new("host".into(), clock.clone(), clock.since_boot()));
        Self { disk: Arc::default(), limits: Limits::default(), memory: Arc::new(memory), clock, lease }
    }

    /// Starts an attempt with the calls on disk.
    fn start(&self) -> Arc<CallLog> {
        self.start_with(&mut Vec::new())
    }

    fn start_with(&self, progress: &mut Vec<Value>) -> Arc<CallLog> {
        let state = self.disk.0.lock().unwrap();
        let recorded = state.calls.values().cloned().collect();
        drop(state);
        let lease =
            Lease { delivery: DeliveryId::from_text("dlv_1"), tenant: "acme".into(), owner: "host".into(), attempt: 1 };
        let log = CallLog::new(self.disk.clone(), lease, recorded);
        let log = log.with_memory(MemoryBudget::new(self.memory.clone())).with_host_lease(self.lease.clone());
        let spec_of = |import| ALL_SPECS.into_iter().find(|spec| spec.import == import).copied();
        Arc::new(log.start(Name::from("test"), Arc::default(), self.limits, spec_of, progress))
    }

    /// Kills the process, which loses everything that isn't on disk, and starts the next one.
    fn kill(&self, log: Arc<CallLog>) -> Arc<CallLog> {
        assert_eq!(Arc::strong_count(&log), 1, "the killed process still holds its call log");
        drop(log);
        assert_eq!(self.memory.used(), 0, "the ended attempt still holds memory");
        let mut state = self.disk.0.lock().unwrap();
        state.submitted.clear();
        drop(state);
        self.start()
    }
}

/// The remote that calls reach: it counts them and answers when the test says so.
#[derive(Default)]
struct Remote {
    made: Mutex<Vec<String>>,
}

impl Remote {
    /// Returns a function that makes a call, and the sender of its answer.
    fn call(
        self: &Arc<Self>,
    ) -> (
        impl FnOnce(&RecordedCall<InFlight>) -> BoxFuture<'static, GuestResult> + Send + 'static,
        oneshot::Sender<GuestResult>,
    ) {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        let make = move |call: &RecordedCall<InFlight>| -> BoxFuture<'static, GuestResult> {
            let key = call.idempotency_key().to_string();
            Box::pin(async move {
                this.made.lock().unwrap().push(key);
                answered.await.unwrap()
            })
        };
        (make, answer)
    }

    fn made(&self) -> usize {
        self.made.lock().unwrap().len()
    }
}

type Guest = Pin<Box<dyn Future<Output = GuestResult> + Send>>;

/// A call that a guest waits for, with counters of its effects.
struct Running {
    guest: Option<Guest>,
    remote: Arc<Remote>,
    answer: Option<oneshot::Sender<GuestResult>>,
    applied: Arc<AtomicU32>,
    committed: Arc<AtomicU32>,
}

impl Running {
    fn request(log: &Arc<CallLog>, spec: &CallSpec<Vec<Value>>) -> Self {
        Self::carry_out(Requested::new(log, spec, &json!(["x"])).unwrap())
    }

    fn carry_out<S: Live>(call: Requested<S>) -> Self {
        let remote = Arc::new(Remote::default());
        let (make, answer) = remote.call();
        let (applied, committed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (apply, commit) = (applied.clone(), committed.clone());
        let apply = move |_: &String| _ = apply.fetch_add(1, Ordering::Relaxed);
        let commit = move |_: &RecordedCall<Committed>| _ = commit.fetch_add(1, Ordering::Relaxed);
        let guest: Guest = Box::pin(call.carry_out(make, apply, commit));
        Self { guest: Some(guest), remote, answer: Some(answer), applied, committed }
    }

    /// Polls the guest, and lets the tasks of the host run as far as they can.
    async fn run(&mut self) -> Poll<GuestResult> {
        let polled = match &mut self.guest {
            Some(guest) => poll!(guest.as_mut()),
            None => Poll::Pending,
        };
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        polled
    }

    /// Lets the tasks of the host run as far as they can.
    async fn run_pending_task(&mut self) {
        self.guest = None;
        self.run_pending().await;
    }

    async fn run_pending(&mut self) {
        assert!(self.run().await.is_pending());
    }

    async fn result(&mut self) -> GuestResult {
        match self.run().await {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("the guest is still waiting"),
        }
    }

    async fn guest_drops(&mut self) {
        self.guest = None;
        self.run_pending().await;
    }

    fn answer(&mut self, answer: GuestResult) {
        self.answer.take().unwrap().send(answer).expect("the call was canceled");
    }

    fn is_canceled(&self) -> bool {
        self.answer.as_ref().unwrap().is_closed()
    }

    fn is_made(&self) -> bool {
        self.remote.made() == 1
    }
}

fn ok(text: &str) -> GuestResult {
    Ok(text.to_owned())
}

fn timeout() -> CallError {
    CallError::new(ErrorKind::Timeout, "too slow")
}

fn live(requested: Requested) -> RecordedCall<Reserved> {
    match requested {
        Requested::Live(call) => call,
        Requested::Replayed(call) => panic!("replayed: {:?}", call.answer()),
    }
}

fn replayed(requested: Requested) -> RecordedCall<Replayed> {
    match requested {
        Requested::Replayed(call) => call,
        Requested::Live(_) => panic!("not in the log"),
    }
}

fn request(log: &Arc<CallLog>, spec: &CallSpec<Vec<Value>>) -> Requested {
    Requested::new(log, spec, &json!(["x"])).unwrap()
}

fn reserve(log: &Arc<CallLog>, spec: &CallSpec<Vec<Value>>) -> RecordedCall<Reserved> {
    live(request(log, spec))
}

async fn leave(host: &Host, log: &Arc<CallLog>, spec: &CallSpec<Vec<Value>>) -> RecordedCall<InFlight> {
    let mut leaving = pin!(reserve(log, spec).leave());
    if spec.effect.needs_durable_intent() {
        assert!(poll!(leaving.as_mut()).is_pending());
        host.disk.commit_all();
    }
    leaving.await.unwrap()
}

// ---- transitions

#[tokio::test]
async fn reserves_position_without_writing() {
    let host = Host::new();
    let log = host.start();
    let call = reserve(&log, &CHANGE);
    assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 1));
    drop(call);
    assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 0), "an abandoned call releases its slot");
}

#[tokio::test]
async fn begin_submits_the_intent() {
    let host = Host::new();
    let log = host.start();
    let call = reserve(&log, &CHANGE).begin().unwrap();
    assert_eq!((host.disk.submitted(), host.disk.answered()), (1, None));
    drop(call);
    assert_eq!(log.usage().in_flight(), 0);
    host.disk.commit(1);
    assert_eq!(host.disk.answered(), Some(false), "a submitted intent is written even if the call is dropped");
}

#[tokio::test]
async fn leaves_when_intent_is_on_disk() {
    for spec in [&PAID, &CHANGE, &STORE, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut leaving = pin!(reserve(&log, spec).leave());
        assert!(poll!(leaving.as_mut()).is_pending(), "{}", spec.import);
        assert_eq!((host.disk.submitted(), log.usage().in_flight()), (1, 1));
        host.disk.commit(1);
        assert!(poll!(leaving.as_mut()).is_ready(), "{}", spec.import);
    }
}

/// The intent took longer than the lease: another host may have taken the delivery over meanwhile.
#[tokio::test]
async fn does_not_leave_after_the_lease_of_the_host() {
    for spec in [&PAID, &CHANGE, &STORE, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.run_pending().await;
        host.clock.advance(RELY_FOR);
        host.disk.commit_all();
        let error = running.result().await.unwrap_err();
        assert!(error.to_string().contains("lease"), "{error}");
        assert!(!running.is_made(), "{}", spec.import);
    }
}

#[tokio::test]
async fn cancels_call_in_flight_when_the_lease_of_the_host_ends() {
    for spec in [&PAID, &CHANGE, &STORE, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.run_pending().await;
        host.disk.commit_all();
        running.run_pending().await;
        assert!(running.is_made());
        host.lease.end();
        assert!(running.result().await.is_err());
        assert!(running.is_canceled(), "{}: the client must not send it again", spec.import);
        assert_eq!((host.disk.submitted(), host.disk.answered()), (0, Some(false)), "its answer is unknown");
    }
}

#[tokio::test]
async fn read_leaves_immediately() {
    let host = Host::new();
    let log = host.start();
    let mut leaving = pin!(reserve(&log, &READ).leave());
    assert!(poll!(leaving.as_mut()).is_ready());
    assert_eq!(host.disk.submitted(), 0);
    let mut leaving = pin!(reserve(&log, &READ).begin().unwrap().leave());
    assert!(poll!(leaving.as_mut()).is_ready());
    assert_eq!(host.disk.submitted(), 1);
}

#[tokio::test]
async fn submits_answer_immediately_and_commits_when_it_is_on_disk() {
    for spec in ALL_SPECS {
        let host = Host::new();
        let log = host.start();
        let call = leave(&host, &log, spec).await;
        let answered = call.answer(&Answer::ok(&"yes").unwrap()).unwrap();
        assert_eq!(host.disk.submitted(), 1);
        let waits = u64::from(spec.effect.needs_durable_answer());
        assert_eq!(
            log.usage().in_flight(),
            waits,
            "{} keeps its slot only if the guest waits for the disk",
            spec.import
        );
        let mut committing = pin!(answered.commit());
        assert!(poll!(committing.as_mut()).is_pending());
        host.disk.commit(1);
        assert!(poll!(committing.as_mut()).is_ready());
        assert_eq!((host.disk.answered(), log.usage().in_flight()), (Some(true), 0));
    }
}

#[tokio::test]
async fn replays_without_touching_the_disk() {
    for spec in ALL_SPECS {
        let host = Host::new();
        let log = host.start();
        let call = leave(&host, &log, spec).await;
        drop(call.answer(&Answer::ok(&"yes").unwrap()).unwrap());
        host.disk.commit_all();

        let log = host.kill(log);
        let mut running = Running::request(&log, spec);
        assert_eq!(log.usage().in_flight(), 0, "a replayed call holds no slot");
        assert_eq!(running.result().await, ok("yes"));
        assert!(!running.is_made());
        assert_eq!((running.applied.load(Ordering::Relaxed), host.disk.submitted()), (1, 0));
        assert_eq!(log.repeated_calls(), 0);
    }
}

// ---- the whole path

#[tokio::test]
async fn follows_the_path_of_each_effect() {
    for spec in ALL_SPECS {
        let (host, effect) = (Host::new(), spec.effect);
        let log = host.start();
        let mut running = Running::request(&log, spec);
        if effect.needs_durable_intent() {
            running.run_pending().await;
            assert!(!running.is_made(), "{effect:?}: the intent is not on disk");
            host.disk.commit(1);
        }
        running.run_pending().await;
        assert!(running.is_made(), "{effect:?}");
        assert_eq!(running.applied.load(Ordering::Relaxed), 0);

        running.answer(ok("yes"));
        if effect.needs_durable_answer() {
            running.run_pending().await;
            assert_eq!(host.disk.answered(), Some(false), "{effect:?}: the answer is not on disk");
            host.disk.commit(1);
        }
        assert_eq!(running.result().await, ok("yes"), "{effect:?}");
        assert_eq!(running.applied.load(Ordering::Relaxed), 1);
        assert_eq!(log.usage().in_flight(), 0);
        log.wait_for_detached_calls().await;

        assert_eq!(running.committed.load(Ordering::Relaxed), 0);
        host.disk.commit_all();
        running.guest_drops().await;
        assert_eq!(host.disk.answered(), Some(true), "{effect:?}");
        let notified = u32::from(effect == CallEffect::Store);
        assert_eq!(running.committed.load(Ordering::Relaxed), notified, "{effect:?}: only the store is notified");
    }
}

#[tokio::test]
async fn records_and_replays_an_error() {
    let host = Host::new();
    let log = host.start();
    let mut running = Running::request(&log, &READ);
    running.run_pending().await;
    running.answer(Err(timeout()));
    assert_eq!(running.result().await, Err(timeout()));
    assert_eq!(running.applied.load(Ordering::Relaxed), 0, "an error changes no progress");
    host.disk.commit_all();
    drop(running);
    let log = host.kill(log);
    assert_eq!(Running::request(&log, &READ).result().await, Err(timeout()));
}

#[tokio::test]
async fn writes_calls_in_order() {
    let host = Host::new();
    let log = host.start();
    // Two concurrent requests: the second starts while the first is in flight.
    let first = Requested::new(&log, &READ, &"first").unwrap().begin().unwrap();
    let second = Requested::new(&log, &SEND, &"second").unwrap().begin().unwrap();
    let (mut first, mut second) = (Running::carry_out(first), Running::carry_out(second));
    second.run_pending().await;
    assert!(!second.is_made());
    host.disk.commit(2);
    second.run_pending().await;
    second.answer(ok("second"));
    second.run_pending().await;
    first.run_pending().await;
    first.answer(ok("first"));
    assert_eq!(first.result().await, ok("first"));
    let names = |host: &Host| host.disk.calls().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&host), ["search.search", "wasi:http.handle"]);
    host.disk.commit(1);
    let answered: Vec<_> = host.disk.calls().into_iter().map(|(_, answer)| answer.is_some()).collect();
    assert_eq!(answered, [false, true], "answers are written in order of arrival, each at its call's position");
    assert_eq!(second.result().await, ok("second"));
}

// ---- the guest drops the call

#[tokio::test]
async fn guest_drop_before_intent_is_on_disk_cancels_reads_and_paid_calls() {
    for spec in ALL_SPECS {
        let (host, effect) = (Host::new(), spec.effect);
        let log = host.start();
        let mut running = Running::carry_out(request(&log, spec).begin().unwrap());
        if effect.needs_durable_intent() {
            running.run_pending().await;
        }
        running.guest_drops().await;
        host.disk.commit(1);
        running.run_pending().await;
        assert_eq!(running.is_made(), effect.outlives_guest(), "{effect:?}");
        assert_eq!(running.is_canceled(), !effect.outlives_guest(), "{effect:?}");
        assert_eq!(log.usage().in_flight(), u64::from(effect.outlives_guest()), "{effect:?}");
        assert_eq!(host.disk.answered(), Some(false), "{effect:?}");
    }
}

#[tokio::test]
async fn guest_drop_in_flight_cancels_reads_and_paid_calls() {
    for spec in ALL_SPECS {
        let (host, effect) = (Host::new(), spec.effect);
        let log = host.start();
        let mut running = Running::request(&log, spec);
        let _pending = running.run().await;
        host.disk.commit_all();
        running.run_pending().await;
        assert!(running.is_made());
        running.guest_drops().await;
        assert_eq!(running.is_canceled(), !effect.outlives_guest(), "{effect:?}");
        if !effect.outlives_guest() {
            assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 0), "{effect:?}");
            continue;
        }
        {
            let mut ended = pin!(log.wait_for_detached_calls());
            assert!(poll!(ended.as_mut()).is_pending(), "{effect:?} runs to completion");
            running.answer(ok("yes"));
            running.run_pending().await;
            host.disk.commit_all();
            ended.await;
        }
        running.run_pending().await;
        assert_eq!(running.applied.load(Ordering::Relaxed), 1);
        assert_eq!((host.disk.answered(), log.usage().in_flight()), (Some(true), 0), "{effect:?}");
        assert_eq!(running.committed.load(Ordering::Relaxed), u32::from(effect == CallEffect::Store));
    }
}

#[tokio::test]
async fn guest_drop_after_answer_keeps_the_answer() {
    for spec in [&PAID, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.run_pending().await;
        host.disk.commit(1);
        running.run_pending().await;
        running.answer(ok("yes"));
        running.run_pending().await;
        running.guest_drops().await;
        host.disk.commit(1);
        running.run_pending().await;
        assert_eq!((host.disk.answered(), log.usage().in_flight()), (Some(true), 0));
        drop(running);
        let log = host.kill(log);
        assert_eq!(replayed(request(&log, spec)).answer().to_result::<String>(), ok("yes"));
    }
}

#[tokio::test]
async fn guest_drop_before_first_poll_releases_everything() {
    for spec in ALL_SPECS {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.guest_drops().await;
        assert!(!running.is_made() && running.is_canceled());
        assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 0));
        log.wait_for_detached_calls().await;
    }
}

// ---- failed writes

#[tokio::test]
async fn call_does_not_leave_when_intent_is_rejected() {
    for spec in [&PAID, &CHANGE, &STORE, &SEND] {
        let host = Host::new();
        let log = host.start();
        host.disk.fill();
        let mut running = Running::request(&log, spec);
        assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!((running.is_made(), log.usage().in_flight()), (false, 0));
        log.wait_for_detached_calls().await;
    }
}

#[tokio::test]
async fn call_does_not_leave_when_intent_commit_fails() {
    for spec in [&PAID, &CHANGE, &STORE, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.run_pending().await;
        host.disk.fail();
        assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!((running.is_made(), log.usage().in_flight()), (false, 0));
        assert_eq!(host.disk.answered(), None);
    }
}

#[tokio::test]
async fn paid_answer_is_withheld_when_its_commit_fails() {
    for spec in [&PAID, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.run_pending().await;
        host.disk.commit(1);
        running.run_pending().await;
        running.answer(ok("yes"));
        running.run_pending().await;
        host.disk.fail();
        assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(log.usage().in_flight(), 0);
        drop(running);
        let log = host.kill(log);
        drop(reserve(&log, spec));
        assert_eq!(log.repeated_calls(), 1, "the next attempt repeats the call");
    }
}

#[tokio::test]
async fn store_is_not_notified_when_answer_commit_fails() {
    let host = Host::new();
    let log = host.start();
    let mut running = Running::request(&log, &STORE);
    running.run_pending().await;
    host.disk.commit(1);
    running.run_pending().await;
    running.answer(ok("yes"));
    assert_eq!(running.result().await, ok("yes"));
    host.disk.fail();
    running.guest_drops().await;
    assert_eq!(running.committed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn answer_above_limit_fails_the_call() {
    let mut host = Host::new();
    host.limits = host.limits.with(Resource::Answers, 10);
    let log = host.start();
    let mut running = Running::request(&log, &READ);
    running.run_pending().await;
    running.answer(ok("much more than that"));
    assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Invalid);
    assert!(log.usage().reached().is_some());
    assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 0));
}

/// The arguments count from the request on, the answer until the guest has it: for most effects, until it is on disk.
#[tokio::test]
async fn arguments_and_answers_count_as_memory() {
    for spec in ALL_SPECS {
        let (host, effect) = (Host::new(), spec.effect);
        let log = host.start();
        let mut running = Running::request(&log, spec);
        let arguments = r#"["x"]"#.len() as u64;
        assert_eq!(host.memory.used(), arguments, "{effect:?}");
        let _pending = running.run().await;
        host.disk.commit_all();
        running.run_pending().await;
        running.answer(ok("yes"));
        let polled = running.run().await;
        if effect.needs_durable_answer() {
            assert!(polled.is_pending());
            assert_eq!(host.memory.used(), arguments + r#""yes""#.len() as u64, "{effect:?}");
            host.disk.commit_all();
            assert_eq!(running.result().await.unwrap(), "yes");
        }
        host.disk.commit_all();
        running.run_pending_task().await;
        assert_eq!(host.memory.used(), 0, "{effect:?}");
        drop(running);

        // In the next attempt, the recorded call counts until the guest repeats it.
        let log = host.kill(log);
        assert!(host.memory.used() >= arguments, "{effect:?}");
        let before = host.memory.used();
        let replayed = Requested::new(&log, spec, &json!(["x"])).unwrap();
        assert!(matches!(replayed, Requested::Replayed(_)) && host.memory.used() < before, "{effect:?}");
        drop(replayed);
        host.kill(log);
    }
}

/// An answer that doesn't fit ends the guest. It is recorded, so that the next attempt doesn't repeat the call.
#[tokio::test]
async fn answer_above_the_tenants_memory_ends_the_guest_and_is_recorded() {
    for spec in [&READ, &PAID, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        let _pending = running.run().await;
        host.disk.commit_all();
        running.run_pending().await;
        host.memory.leave(3);
        running.answer(ok("yes"));
        let mut polled = running.run().await;
        host.disk.commit_all();
        if polled.is_pending() {
            polled = running.run().await;
        }
        let Poll::Ready(Err(error)) = polled else { panic!("the guest got the answer") };
        assert!(error.message.starts_with("limit reached: tenant memory: "), "{error}");
        assert!(matches!(log.usage().reached(), Some(LimitReached::TenantMemory(_))));
        drop(running);
        host.memory.leave(1 << 20);
        let log = host.kill(log);
        assert!(matches!(Requested::new(&log, spec, &json!(["x"])).unwrap(), Requested::Replayed(_)));
    }
}

/// Arguments that don't fit end the guest, and so do recorded calls.
#[tokio::test]
async fn arguments_and_recorded_calls_above_the_tenants_memory_end_the_guest() {
    let host = Host::new();
    let log = host.start();
    host.memory.leave(4);
    assert!(Requested::new(&log, &CHANGE, &json!(["x"])).is_err());
    assert_eq!((host.memory.used(), log.usage().in_flight()), (0, 0));
    assert!(log.usage().reached().is_some());

    host.memory.leave(1 << 20);
    let log = host.kill(log);
    assert!(log.usage().reached().is_none());
    let mut running = Running::request(&log, &READ);
    running.run_pending().await;
    running.answer(ok("yes"));
    running.result().await.unwrap();
    host.disk.commit_all();
    drop(running);
    host.memory.leave(4);
    let log = host.kill(log);
    assert!(log.usage().reached().is_some(), "the recorded call doesn't fit");
    assert!(Requested::new(&log, &READ, &json!(["x"])).is_err());
}

#[tokio::test]
async fn revoked_log_rejects_calls_and_answers() {
    let host = Host::new();
    let log = host.start();
    let call = leave(&host, &log, &CHANGE).await;
    log.revoke();
    assert!(call.answer(&Answer::ok(&"yes").unwrap()).is_err());
    let mut running = Running::request(&log, &SEND);
    assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Unavailable);
    assert!(!running.is_made());
    assert_eq!((host.disk.answered(), host.disk.submitted(), log.usage().in_flight()), (Some(false), 0, 0));
}

#[tokio::test]
async fn panic_in_a_call_becomes_an_error() {
    let host = Host::new();
    let log = host.start();
    async fn broken() -> GuestResult {
        panic!("a bug")
    }
    let make = |_: &RecordedCall<InFlight>| broken();
    let mut guest: Guest = Box::pin(request(&log, &CHANGE).carry_out(make, |_| {}, |_| {}));
    assert!(poll!(guest.as_mut()).is_pending());
    host.disk.commit(1);
    let error = guest.await.unwrap_err();
    assert!(error.message.starts_with("`messages.reply` failed: internal error"), "{error}");
    assert_eq!((host.disk.answered(), log.usage().in_flight()), (Some(false), 0));
}

#[tokio::test]
async fn refuses_too_many_calls_in_flight() {
    let mut host = Host::new();
    host.limits = host.limits.with(Resource::ConcurrentCalls, 1);
    let log = host.start();
    let first = reserve(&log, &SEND);
    assert!(Requested::new(&log, &SEND, &"another").is_err());
    assert_eq!(log.usage().in_flight(), 1);
    drop(first);
    assert_eq!(log.usage().in_flight(), 0);
    log.wait_for_detached_calls().await;
}

// ---- the process is killed

/// Kills the process with a call in the given state. Returns whether the next attempt finds the answer, how many calls
/// it counts as repeated, and the idempotency and change keys before and after.
async fn killed(spec: &CallSpec<Vec<Value>>, state: &str) -> (bool, u32, [String; 2], [String; 2]) {
    fn keys<S>(call: &RecordedCall<S>) -> [String; 2] {
        [call.idempotency_key().to_string(), call.change_key()]
    }
    let host = Host::new();
    let log = host.start();
    let before = match state {
        "reserved" => keys(&reserve(&log, spec)),
        "begun" => keys(&reserve(&log, spec).begin().unwrap()),
        "begun, on disk" => {
            let call = reserve(&log, spec).begin().unwrap();
            host.disk.commit(1);
            keys(&call)
        }
        "in flight" => keys(&leave(&host, &log, spec).await),
        "answered" => keys(&leave(&host, &log, spec).await.answer(&Answer::ok(&"yes").unwrap()).unwrap()),
        "committed" => {
            let answered = leave(&host, &log, spec).await.answer(&Answer::ok(&"yes").unwrap()).unwrap();
            host.disk.commit(1);
            keys(&answered.commit().await.unwrap())
        }
        other => unreachable!("{other}"),
    };
    let log = host.kill(log);
    let (found, after) = match request(&log, spec) {
        Requested::Replayed(call) => (true, keys(&call)),
        Requested::Live(call) => (false, keys(&call)),
    };
    (found, log.repeated_calls(), before, after)
}

#[tokio::test]
async fn next_attempt_resumes_from_the_log_on_disk_after_a_kill() {
    for spec in ALL_SPECS {
        let counted = u32::from(spec.effect.needs_durable_intent());
        for (state, found, again, is_on_disk) in [
            ("reserved", false, 0, false),
            ("begun", false, 0, false),
            ("begun, on disk", false, counted, true),
            ("in flight", false, counted, counted == 1),
            ("answered", false, counted, counted == 1),
            ("committed", true, 0, true),
        ] {
            let (is_found, repeated_calls, before, after) = killed(spec, state).await;
            assert_eq!((is_found, repeated_calls), (found, again), "{} {state}", spec.import);
            assert_eq!(before[0], after[0], "{} {state}: the idempotency key is stable", spec.import);
            if is_on_disk {
                assert_eq!(before[1], after[1], "{} {state}: the change key is stable", spec.import);
            }
        }
    }
}

#[tokio::test]
async fn different_call_at_same_position_has_different_key() {
    let host = Host::new();
    let log = host.start();
    let one = live(Requested::new(&log, &SEND, &"one").unwrap()).begin().unwrap();
    host.disk.commit(1);
    let key = one.idempotency_key().to_string();
    drop(one);
    let log = host.kill(log);
    let other = live(Requested::new(&log, &SEND, &"other").unwrap());
    assert_eq!(log.repeated_calls(), 0, "the first call was not repeated");
    assert_ne!(key, other.idempotency_key().to_string());
}

// ---- large arguments

/// Returns arguments that are recorded with a digest.
fn large(end: &str) -> Value {
    json!({ "bucket": "default", "entries": [["key", "v".repeat(1 << 20) + end]] })
}

/// Records an answered call with these arguments, and ends the attempt. Returns its idempotency key.
async fn record(host: &Host, spec: &CallSpec<Vec<Value>>, arguments: &Value) -> String {
    let log = host.start();
    let call = live(Requested::new(&log, spec, arguments).unwrap());
    let mut leaving = pin!(call.leave());
    assert!(poll!(leaving.as_mut()).is_pending());
    host.disk.commit_all();
    let call = leaving.await.unwrap();
    let key = call.idempotency_key().to_string();
    drop(call.answer(&Answer::ok(&"msg_1").unwrap()).unwrap());
    host.disk.commit_all();
    key
}

impl Disk {
    /// Returns the arguments of a call on disk.
    fn arguments(&self, number: u32) -> Vec<u8> {
        self.0.lock().unwrap().calls[&number].arguments.clone()
    }

    /// Replaces the arguments of the first call on disk.
    fn replace_arguments(&self, arguments: &Value) {
        let arguments = serde_json::to_vec(arguments).unwrap();
        self.0.lock().unwrap().calls.get_mut(&0).unwrap().arguments = arguments;
    }
}

#[tokio::test]
async fn large_arguments_are_not_written_to_disk_and_still_compared() {
    let host = Host::new();
    let key = record(&host, &STORE, &large("")).await;
    assert!(host.disk.arguments(0).len() < 1024, "{}", host.disk.arguments(0).len());
    let log = host.start();
    let call = replayed(Requested::new(&log, &STORE, &large("")).unwrap());
    assert_eq!(call.idempotency_key().to_string(), key);
    drop(call);
    let log = host.kill(log);
    drop(live(Requested::new(&log, &STORE, &large("!")).unwrap()));
}

/// The host of 7e3fbfe recorded large arguments whole.
#[tokio::test]
async fn replays_large_arguments_of_an_earlier_version() {
    let host = Host::new();
    let key = record(&host, &STORE, &large("")).await;
    host.disk.replace_arguments(&large(""));
    let log = host.start();
    let call = replayed(Requested::new(&log, &STORE, &large("")).unwrap());
    assert_eq!(call.idempotency_key().to_string(), key);
    drop(call);
    let log = host.kill(log);
    drop(live(Requested::new(&log, &STORE, &large("!")).unwrap()));
}

#[tokio::test]
async fn kept_result_of_a_large_call_is_used_for_the_same_call() {
    for is_whole in [false, true] {
        let host = Host::new();
        record(&host, &CREATE, &large("")).await;
        if is_whole {
            host.disk.replace_arguments(&large(""));
        }
        let log = host.start();
        // The next version makes a different call first.
        drop(live(Requested::new(&log, &READ, &"another").unwrap()));
        drop(live(Requested::new(&log, &CREATE, &large("!")).unwrap()));
        let call = replayed(Requested::new(&log, &CREATE, &large("")).unwrap());
        assert_eq!(call.answer().to_result::<String>(), ok("msg_1"));
        assert!(call.entry.arguments.recorded().len() < 1024);
    }
}

#[tokio::test]
async fn dry_run_finds_large_calls_and_reports_whole_arguments() {
    let host = Host::new();
    record(&host, &STORE, &large("")).await;
    let recorded: Vec<_> = host.disk.0.lock().unwrap().calls.values().cloned().collect();
    for (end, known) in [("", Lookup::Same), ("!", Lookup::Changed(as_recorded(&large(""))))] {
        let log = Arc::new(CallLog::dry_run(DeliveryId::from_text("dlv_1"), recorded.clone()));
        drop(replayed(Requested::new(&log, &STORE, &large(end)).unwrap()));
        let calls = log.requested_calls();
        assert_eq!((&calls[0].arguments, &calls[0].known), (&large(end), &known));
    }
}

// ---- repeated calls

#[tokio::test]
async fn next_attempt_repeats_temporary_failure() {
    let host = Host::new();
    let log = host.start();
    let call = leave(&host, &log, &PAID).await;
    let key = call.idempotency_key().to_string();
    drop(call.answer(&Answer::Error(timeout())).unwrap());
    log.clear_temporary_failures().unwrap();
    host.disk.commit_all();
    let log = host.kill(log);
    let call = reserve(&log, &PAID);
    assert_eq!(
        (call.idempotency_key().to_string(), log.repeated_calls()),
        (key, 0),
        "the outcome of the call was known"
    );
}

#[tokio::test]
async fn next_attempt_replays_permanent_failure() {
    let host = Host::new();
    let log = host.start();
    let call = leave(&host, &log, &PAID).await;
    drop(call.answer(&Answer::Error(CallError::new(ErrorKind::Denied, "no"))).unwrap());
    log.clear_temporary_failures().unwrap();
    host.disk.commit_all();
    let log = host.kill(log);
    assert!(replayed(request(&log, &PAID)).answer().error().is_some());
}

#[tokio::test]
async fn next_attempt_repeats_unusable_replayed_answer() {
    let host = Host::new();
    let log = host.start();
    let call = leave(&host, &log, &PAID).await;
    drop(call.answer(&Answer::ok(&"half").unwrap()).unwrap());
    host.disk.commit_all();
    let log = host.kill(log);
    replayed(request(&log, &PAID)).repeat_next_attempt();
    log.clear_temporary_failures().unwrap();
    host.disk.commit_all();
    let log = host.kill(log);
    drop(reserve(&log, &PAID));
}

// ---- the log is truncated

#[tokio::test]
async fn truncated_log_returns_each_kept_result_once() {
    let host = Host::new();
    let log = host.start();
    drop(leave(&host, &log, &CREATE).await.answer(&Answer::ok(&"msg_1").unwrap()).unwrap());
    drop(leave(&host, &log, &CHANGE).await);
    host.disk.commit_all();

    // The next version makes a different call first.
    let log = host.kill(log);
    drop(leave_after_truncation(&host, &log).await);
    assert_eq!(replayed(request(&log, &CREATE)).answer().to_result::<String>(), ok("msg_1"));
    host.disk.commit_all();
    drop(reserve(&log, &CREATE));

    // So does the version after it; the log now has the result twice.
    let mut progress = Vec::new();
    drop(log);
    let log = host.start_with(&mut progress);
    assert_eq!(progress, [json!("msg_1")], "restored once, although it was kept aside and then requested");
    drop(reserve(&log, &PAID));
    assert_eq!(replayed(request(&log, &CREATE)).answer().to_result::<String>(), ok("msg_1"));
    assert_eq!(log.repeated_calls(), 1, "the paid call was in flight");
}

async fn leave_after_truncation(host: &Host, log: &Arc<CallLog>) -> RecordedCall<InFlight> {
    let mut leaving = pin!(reserve(log, &PAID).leave());
    assert!(poll!(leaving.as_mut()).is_pending());
    // Three submissions: the truncation, the kept result, the intent.
    assert_eq!(host.disk.submitted(), 3);
    host.disk.commit(3);
    let names: Vec<_> = host.disk.calls().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["modhost:kept-aside", "completion.complete"]);
    leaving.await.unwrap()
}

#[tokio::test]
async fn restores_progress_of_earlier_attempts() {
    let host = Host::new();
    let log = host.start();
    for result in ["msg_1", "msg_2"] {
        drop(leave(&host, &log, &CREATE).await.answer(&Answer::ok(&result).unwrap()).unwrap());
    }
    drop(leave(&host, &log, &CHANGE).await.answer(&Answer::ok(&"not restored").unwrap()).unwrap());
    host.disk.commit_all();
    drop(log);
    let mut progress = Vec::new();
    drop(host.start_with(&mut progress));
    assert_eq!(progress, [json!("msg_1"), json!("msg_2")]);
}

// ---- without a journal

#[tokio::test]
async fn dry_run_does_not_wait_for_disk_and_records_requests() {
    let log = Arc::new(CallLog::dry_run(DeliveryId::from_text("dlv_1"), Vec::new()));
    let mut running = Running::request(&log, &SEND);
    running.run_pending().await;
    assert!(running.is_made());
    running.answer(ok("yes"));
    assert_eq!(running.result().await, ok("yes"));
    let calls = log.requested_calls();
    assert_eq!((calls.len(), calls[0].import, calls[0].lasting), (1, Import::HttpHandle, true));
    assert_eq!((&calls[0].known, &calls[0].answer), (&Lookup::Added, &Some(Ok(json!("yes")))));
}

#[tokio::test]
async fn disabled_log_writes_nothing() {
    let log = Arc::new(CallLog::disabled(DeliveryId::from_text("dlv_1")));
    let mut running = Running::request(&log, &PAID);
    running.run_pending().await;
    running.answer(ok("yes"));
    assert_eq!(running.result().await, ok("yes"));
    assert_eq!(log.usage().in_flight(), 0);
}

#[async_trait]
impl Journal for Disk {
    fn write(&self, _: &Lease, call: Call) -> JournalResult<CommitHandle> {
        self.submit(Submitted::Write(call))
    }

    fn forget(&self, _: &Lease, from: u32) -> JournalResult<CommitHandle> {
        self.submit(Submitted::Forget(from))
    }

    // The call log uses no other operation of the journal.

    async fn record(&self, _: Arc<Event>, _: Vec<NewDelivery>) -> JournalResult<Recorded> {
        unimplemented!()
    }

    async fn lanes(&self) -> JournalResult<Vec<Lane>> {
        unimplemented!()
    }

    fn backlog(&self, _: &Name) -> Backlog {
        unimplemented!()
    }

    fn usage(&self) -> Vec<TenantUsage> {
        unimplemented!()
    }

    async fn due(&self, _: u32) -> JournalResult<Vec<Due>> {
        unimplemented!()
    }

    async fn claim(&self, _: Claim) -> JournalResult<Vec<Claimed>> {
        unimplemented!()
    }

    async fn next_due(&self) -> JournalResult<Option<Duration>> {
        unimplemented!()
    }

    async fn heartbeat(&self, _: &str, _: Vec<Lease>, _: Duration) -> JournalResult<Heartbeat> {
        unimplemented!()
    }

    async fn reclaim(&self, _: Option<&str>) -> JournalResult<u64> {
        unimplemented!()
    }

    async fn unclaim(&self, _: &Lease) -> JournalResult<bool> {
        unimplemented!()
    }

    async fn complete_attempt(&self, _: &Lease, _: AttemptReport, _: Disposition) -> JournalResult<bool> {
        unimplemented!()
    }

    async fn calls(&self, _: &DeliveryId) -> JournalResult<Vec<Call>> {
        unimplemented!()
    }

    async fn list(&self, _: Filter) -> JournalResult<Vec<Summary>> {
        unimplemented!()
    }

    async fn show(&self, _: &DeliveryId) -> JournalResult<Option<Details>> {
        unimplemented!()
    }

    async fn resend(&self, _: &DeliveryId, _: bool) -> JournalResult<bool> {
        unimplemented!()
    }

    async fn drop_waiting(&self, _: &DeliveryId, _: &str) -> JournalResult<bool> {
        unimplemented!()
    }

    async fn totals(&self) -> JournalResult<Totals> {
        unimplemented!()
    }

    fn health(&self) -> JournalResult<()> {
        unimplemented!()
    }

    async fn probe(&self) -> JournalResult<()> {
        unimplemented!()
    }

    fn salt(&self) -> [u8; 32] {
        unimplemented!()
    }

    async fn purge(&self, _: Retention, _: u32) -> JournalResult<u64> {
        unimplemented!()
    }

    async fn close(&self) -> JournalResult<()> {
        unimplemented!()
    }
}

impl Disk {
    fn submit(&self, submitted: Submitted) -> JournalResult<CommitHandle> {
        let mut state = self.0.lock().unwrap();
        if state.full {
            return Err(StorageError::full("journal", "no room").into());
        }
        let (done, handle) = oneshot::channel();
        state.submitted.push_back((submitted, done));
        Ok(CommitHandle::pending(handle))
    }
}
