//! Every transition of a recorded call, driven by hand: a disk that commits when it is told to, a far side that answers when
//! it is told to, and a process that can be killed between any two steps.

use std::collections::{BTreeMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::poll;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;
use crate::call_log::{CallLog, Lookup};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::{Limits, Resource};
use modhost_storage::error::StorageError;
use modhost_storage::journal::{
    AttemptReport, Backlog, Call, Claim, Claimed, Details, Disposition, Due, Filter, Heartbeat, Journal, JournalError,
    Lane, Lease, NewDelivery, Recorded, Result as JournalResult, Retention, Summary, Totals,
};

const READ: CallSpec<Vec<Value>> = CallSpec::new(Import::SearchSearch, CallEffect::Read);
const PAID: CallSpec<Vec<Value>> = CallSpec::new(Import::CompletionComplete, CallEffect::Paid);
const CHANGE: CallSpec<Vec<Value>> = CallSpec::new(Import::MessagesReply, CallEffect::Change);
const STORE: CallSpec<Vec<Value>> = CallSpec::new(Import::KeyValueSet, CallEffect::Store);
const SEND: CallSpec<Vec<Value>> = CallSpec::new(Import::HttpHandle, CallEffect::Send);
/// A change whose result is kept aside, and which restores the progress: here, the list of all results.
const CREATE: CallSpec<Vec<Value>> = CallSpec::new(Import::MessagesCreate, CallEffect::Change)
    .keeping_its_result()
    .restored_by(|progress, answer| progress.push(answer.clone()));

const ALL: [&CallSpec<Vec<Value>>; 6] = [&READ, &PAID, &CHANGE, &STORE, &SEND, &CREATE];

type GuestResult = Result<String, CallError>;

/// A journal whose disk commits when it is told to.
#[derive(Default)]
struct Disk(Mutex<DiskState>);

#[derive(Default)]
struct DiskState {
    calls: BTreeMap<u32, Call>,
    submitted: VecDeque<(Submitted, oneshot::Sender<JournalResult<()>>)>,
    /// Set once a commit has failed: none that follows succeeds.
    failed: bool,
    /// Takes nothing, not even into memory.
    full: bool,
}

enum Submitted {
    Write(Call),
    Forget(u32),
}

impl Disk {
    /// Commits the next so many.
    fn commit(&self, count: usize) {
        let mut state = self.0.lock().unwrap();
        for _ in 0..count {
            let (submitted, done) = state.submitted.pop_front().expect("nothing more is submitted");
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

    /// Fails everything that is submitted, now and later.
    fn fail(&self) {
        self.0.lock().unwrap().failed = true;
        self.commit_all();
    }

    fn fill(&self) {
        self.0.lock().unwrap().full = true;
    }

    /// How many writes wait for the disk.
    fn submitted(&self) -> usize {
        self.0.lock().unwrap().submitted.len()
    }

    /// The calls on disk: name, and the answer if there is one.
    fn calls(&self) -> Vec<(String, Option<Value>)> {
        let answer = |call: &Call| call.answer.as_ref().map(|answer| serde_json::from_slice(answer).unwrap());
        let state = self.0.lock().unwrap();
        state.calls.values().map(|call| (call.import.to_string(), answer(call))).collect()
    }

    /// The only call on disk: whether it is answered.
    fn answered(&self) -> Option<bool> {
        let calls = self.calls();
        assert!(calls.len() < 2, "{calls:?}");
        calls.first().map(|(_, answer)| answer.is_some())
    }
}

fn broken() -> JournalError {
    StorageError::broken("journal", "no disk").into()
}

/// The processes of one delivery, one after the other.
struct Host {
    disk: Arc<Disk>,
    limits: Limits,
}

impl Host {
    fn new() -> Self {
        Self { disk: Arc::default(), limits: Limits::default() }
    }

    /// Starts an attempt with what is on disk.
    fn start(&self) -> Arc<CallLog> {
        self.start_with(&mut Vec::new())
    }

    fn start_with(&self, progress: &mut Vec<Value>) -> Arc<CallLog> {
        let state = self.disk.0.lock().unwrap();
        let recorded = state.calls.values().cloned().collect();
        drop(state);
        let lease = Lease { delivery: DeliveryId::from_text("dlv_1"), owner: "host".into(), attempt: 1 };
        let log = CallLog::new(self.disk.clone(), lease, recorded);
        let spec_of = |import| ALL.into_iter().find(|spec| spec.import == import).copied();
        Arc::new(log.start(Name::from("test"), self.limits, spec_of, progress))
    }

    /// Kills the process: whatever isn't on disk is gone. Starts the next one.
    fn kill(&self, log: Arc<CallLog>) -> Arc<CallLog> {
        assert_eq!(Arc::strong_count(&log), 1, "something of the killed process is still there");
        drop(log);
        let mut state = self.disk.0.lock().unwrap();
        state.submitted.clear();
        drop(state);
        self.start()
    }
}

/// What a call reaches: it is told when to answer, and counts what reaches it.
#[derive(Default)]
struct FarSide {
    made: Mutex<Vec<String>>,
}

impl FarSide {
    /// What makes a call here, and what answers it.
    fn call(
        self: &Arc<Self>,
    ) -> (
        impl FnOnce(&RecordedCall<InFlight>) -> BoxFuture<'static, GuestResult> + Send + 'static,
        oneshot::Sender<GuestResult>,
    ) {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        let make = move |call: &RecordedCall<InFlight>| -> BoxFuture<'static, GuestResult> {
            let key = call.idempotency_key();
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

/// A call that a guest waits for, with everything that happens to it.
struct Running {
    guest: Option<Guest>,
    far_side: Arc<FarSide>,
    answer: Option<oneshot::Sender<GuestResult>>,
    applied: Arc<AtomicU32>,
    committed: Arc<AtomicU32>,
}

impl Running {
    fn request(log: &Arc<CallLog>, spec: &CallSpec<Vec<Value>>) -> Self {
        Self::carry_out(Requested::new(log, spec, &json!(["x"])).unwrap())
    }

    fn carry_out<S: Live>(call: Requested<S>) -> Self {
        let far_side = Arc::new(FarSide::default());
        let (make, answer) = far_side.call();
        let (applied, committed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (apply, commit) = (applied.clone(), committed.clone());
        let apply = move |_: &String| _ = apply.fetch_add(1, Ordering::Relaxed);
        let commit = move |_: &RecordedCall<Committed>| _ = commit.fetch_add(1, Ordering::Relaxed);
        let guest: Guest = Box::pin(call.carry_out(make, apply, commit));
        Self { guest: Some(guest), far_side, answer: Some(answer), applied, committed }
    }

    /// Lets the guest and the tasks of the host run as far as they get.
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

    async fn run_in_vain(&mut self) {
        assert!(self.run().await.is_pending());
    }

    async fn result(&mut self) -> GuestResult {
        match self.run().await {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("the guest still waits"),
        }
    }

    async fn guest_drops(&mut self) {
        self.guest = None;
        self.run_in_vain().await;
    }

    fn answer(&mut self, answer: GuestResult) {
        self.answer.take().unwrap().send(answer).expect("the call is canceled");
    }

    fn is_canceled(&self) -> bool {
        self.answer.as_ref().unwrap().is_closed()
    }

    fn is_made(&self) -> bool {
        self.far_side.made() == 1
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
        Requested::Live(_) => panic!("it is to be made"),
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
async fn request_reserves_a_position_and_writes_nothing() {
    let host = Host::new();
    let log = host.start();
    let call = reserve(&log, &CHANGE);
    assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 1));
    drop(call);
    assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 0), "an abandoned call leaves nothing");
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
    assert_eq!(host.disk.answered(), Some(false), "what was submitted is written all the same");
}

#[tokio::test]
async fn leaves_when_the_intent_is_on_disk() {
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

#[tokio::test]
async fn a_read_leaves_at_once_begun_or_not() {
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
async fn answer_is_submitted_at_once_and_commit_waits_for_the_disk() {
    for spec in ALL {
        let host = Host::new();
        let log = host.start();
        let call = leave(&host, &log, spec).await;
        let answered = call.answer(&Answer::ok(&"yes").unwrap()).unwrap();
        assert_eq!(host.disk.submitted(), 1);
        let waits = u64::from(spec.effect.needs_durable_answer());
        assert_eq!(log.usage().in_flight(), waits, "{} occupies nothing if nobody waits", spec.import);
        let mut committing = pin!(answered.commit());
        assert!(poll!(committing.as_mut()).is_pending());
        host.disk.commit(1);
        assert!(poll!(committing.as_mut()).is_ready());
        assert_eq!((host.disk.answered(), log.usage().in_flight()), (Some(true), 0));
    }
}

#[tokio::test]
async fn replays_without_touching_the_disk() {
    for spec in ALL {
        let host = Host::new();
        let log = host.start();
        let call = leave(&host, &log, spec).await;
        drop(call.answer(&Answer::ok(&"yes").unwrap()).unwrap());
        host.disk.commit_all();

        let log = host.kill(log);
        let mut running = Running::request(&log, spec);
        assert_eq!(log.usage().in_flight(), 0, "a replayed call occupies nothing");
        assert_eq!(running.result().await, ok("yes"));
        assert!(!running.is_made());
        assert_eq!((running.applied.load(Ordering::Relaxed), host.disk.submitted()), (1, 0));
        assert_eq!(log.made_again(), 0);
    }
}

// ---- the whole path

#[tokio::test]
async fn carries_each_effect_along_its_path() {
    for spec in ALL {
        let (host, effect) = (Host::new(), spec.effect);
        let log = host.start();
        let mut running = Running::request(&log, spec);
        if effect.needs_durable_intent() {
            running.run_in_vain().await;
            assert!(!running.is_made(), "{effect:?}: the intent is not on disk");
            host.disk.commit(1);
        }
        running.run_in_vain().await;
        assert!(running.is_made(), "{effect:?}");
        assert_eq!(running.applied.load(Ordering::Relaxed), 0);

        running.answer(ok("yes"));
        if effect.needs_durable_answer() {
            running.run_in_vain().await;
            assert_eq!(host.disk.answered(), Some(false), "{effect:?}: the answer is not on disk");
            host.disk.commit(1);
        }
        assert_eq!(running.result().await, ok("yes"), "{effect:?}");
        assert_eq!(running.applied.load(Ordering::Relaxed), 1);
        assert_eq!(log.usage().in_flight(), 0);
        log.outliving_calls().await;

        assert_eq!(running.committed.load(Ordering::Relaxed), 0);
        host.disk.commit_all();
        running.guest_drops().await;
        assert_eq!(host.disk.answered(), Some(true), "{effect:?}");
        let told = u32::from(effect == CallEffect::Store);
        assert_eq!(running.committed.load(Ordering::Relaxed), told, "{effect:?}: only the store is told");
    }
}

#[tokio::test]
async fn records_and_replays_an_error() {
    let host = Host::new();
    let log = host.start();
    let mut running = Running::request(&log, &READ);
    running.run_in_vain().await;
    running.answer(Err(timeout()));
    assert_eq!(running.result().await, Err(timeout()));
    assert_eq!(running.applied.load(Ordering::Relaxed), 0, "an error changes no progress");
    host.disk.commit_all();
    drop(running);
    let log = host.kill(log);
    assert_eq!(Running::request(&log, &READ).result().await, Err(timeout()));
}

#[tokio::test]
async fn calls_reach_the_disk_in_their_order() {
    let host = Host::new();
    let log = host.start();
    // Two requests of which the second is begun while the first is under way, as a guest sends them.
    let first = Requested::new(&log, &READ, &"first").unwrap().begin().unwrap();
    let second = Requested::new(&log, &SEND, &"second").unwrap().begin().unwrap();
    let (mut first, mut second) = (Running::carry_out(first), Running::carry_out(second));
    second.run_in_vain().await;
    assert!(!second.is_made());
    host.disk.commit(2);
    second.run_in_vain().await;
    second.answer(ok("second"));
    second.run_in_vain().await;
    first.run_in_vain().await;
    first.answer(ok("first"));
    assert_eq!(first.result().await, ok("first"));
    let names = |host: &Host| host.disk.calls().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&host), ["search.search", "wasi:http.handle"]);
    host.disk.commit(1);
    let answered: Vec<_> = host.disk.calls().into_iter().map(|(_, answer)| answer.is_some()).collect();
    assert_eq!(answered, [false, true], "answers are written as they arrive, each at its call's position");
    assert_eq!(second.result().await, ok("second"));
}

// ---- the guest drops the call

#[tokio::test]
async fn guest_drop_before_the_intent_is_on_disk_cancels_what_may_be_canceled() {
    for spec in ALL {
        let (host, effect) = (Host::new(), spec.effect);
        let log = host.start();
        let mut running = Running::carry_out(request(&log, spec).begin().unwrap());
        if effect.needs_durable_intent() {
            running.run_in_vain().await;
        }
        running.guest_drops().await;
        host.disk.commit(1);
        running.run_in_vain().await;
        assert_eq!(running.is_made(), effect.outlives_guest(), "{effect:?}");
        assert_eq!(running.is_canceled(), !effect.outlives_guest(), "{effect:?}");
        assert_eq!(log.usage().in_flight(), u64::from(effect.outlives_guest()), "{effect:?}");
        assert_eq!(host.disk.answered(), Some(false), "{effect:?}");
    }
}

#[tokio::test]
async fn guest_drop_in_flight_cancels_what_may_be_canceled() {
    for spec in ALL {
        let (host, effect) = (Host::new(), spec.effect);
        let log = host.start();
        let mut running = Running::request(&log, spec);
        let _in_vain = running.run().await;
        host.disk.commit_all();
        running.run_in_vain().await;
        assert!(running.is_made());
        running.guest_drops().await;
        assert_eq!(running.is_canceled(), !effect.outlives_guest(), "{effect:?}");
        if !effect.outlives_guest() {
            assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 0), "{effect:?}");
            continue;
        }
        {
            let mut ended = pin!(log.outliving_calls());
            assert!(poll!(ended.as_mut()).is_pending(), "{effect:?} goes on");
            running.answer(ok("yes"));
            running.run_in_vain().await;
            host.disk.commit_all();
            ended.await;
        }
        running.run_in_vain().await;
        assert_eq!(running.applied.load(Ordering::Relaxed), 1);
        assert_eq!((host.disk.answered(), log.usage().in_flight()), (Some(true), 0), "{effect:?}");
        assert_eq!(running.committed.load(Ordering::Relaxed), u32::from(effect == CallEffect::Store));
    }
}

#[tokio::test]
async fn guest_drop_after_the_answer_loses_no_answer() {
    for spec in [&PAID, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.run_in_vain().await;
        host.disk.commit(1);
        running.run_in_vain().await;
        running.answer(ok("yes"));
        running.run_in_vain().await;
        running.guest_drops().await;
        host.disk.commit(1);
        running.run_in_vain().await;
        assert_eq!((host.disk.answered(), log.usage().in_flight()), (Some(true), 0));
        drop(running);
        let log = host.kill(log);
        assert_eq!(replayed(request(&log, spec)).answer().to_result::<String>(), ok("yes"));
    }
}

#[tokio::test]
async fn guest_drop_before_the_call_begins_leaves_nothing() {
    for spec in ALL {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.guest_drops().await;
        assert!(!running.is_made() && running.is_canceled());
        assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 0));
        log.outliving_calls().await;
    }
}

// ---- what can't be written

#[tokio::test]
async fn a_call_whose_intent_is_refused_never_leaves() {
    for spec in [&PAID, &CHANGE, &STORE, &SEND] {
        let host = Host::new();
        let log = host.start();
        host.disk.fill();
        let mut running = Running::request(&log, spec);
        assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!((running.is_made(), log.usage().in_flight()), (false, 0));
        log.outliving_calls().await;
    }
}

#[tokio::test]
async fn a_call_whose_intent_is_not_committed_never_leaves() {
    for spec in [&PAID, &CHANGE, &STORE, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.run_in_vain().await;
        host.disk.fail();
        assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!((running.is_made(), log.usage().in_flight()), (false, 0));
        assert_eq!(host.disk.answered(), None);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_committed_is_not_given_to_the_guest_that_pays() {
    for spec in [&PAID, &SEND] {
        let host = Host::new();
        let log = host.start();
        let mut running = Running::request(&log, spec);
        running.run_in_vain().await;
        host.disk.commit(1);
        running.run_in_vain().await;
        running.answer(ok("yes"));
        running.run_in_vain().await;
        host.disk.fail();
        assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(log.usage().in_flight(), 0);
        drop(running);
        let log = host.kill(log);
        drop(reserve(&log, spec));
        assert_eq!(log.made_again(), 1, "the next attempt makes it again");
    }
}

#[tokio::test]
async fn the_store_is_not_told_of_an_answer_that_is_not_committed() {
    let host = Host::new();
    let log = host.start();
    let mut running = Running::request(&log, &STORE);
    running.run_in_vain().await;
    host.disk.commit(1);
    running.run_in_vain().await;
    running.answer(ok("yes"));
    assert_eq!(running.result().await, ok("yes"));
    host.disk.fail();
    running.guest_drops().await;
    assert_eq!(running.committed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_answer_beyond_the_limit_ends_the_call_with_an_error() {
    let mut host = Host::new();
    host.limits = host.limits.with(Resource::Answers, 10);
    let log = host.start();
    let mut running = Running::request(&log, &READ);
    running.run_in_vain().await;
    running.answer(ok("much more than that"));
    assert_eq!(running.result().await.unwrap_err().kind, ErrorKind::Invalid);
    assert!(log.usage().reached().is_some());
    assert_eq!((host.disk.submitted(), log.usage().in_flight()), (0, 0));
}

#[tokio::test]
async fn a_log_that_belongs_to_another_attempt_begins_no_call_and_takes_no_answer() {
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
async fn a_panic_in_a_change_becomes_an_error() {
    let host = Host::new();
    let log = host.start();
    async fn broken() -> GuestResult {
        panic!("a mistake")
    }
    let make = |_: &RecordedCall<InFlight>| broken();
    let mut guest: Guest = Box::pin(request(&log, &CHANGE).carry_out(make, |_| {}, |_| {}));
    assert!(poll!(guest.as_mut()).is_pending());
    host.disk.commit(1);
    let error = guest.await.unwrap_err();
    assert!(error.message.starts_with("`messages.reply` broke off"), "{error}");
    assert_eq!((host.disk.answered(), log.usage().in_flight()), (Some(false), 0));
}

#[tokio::test]
async fn too_many_calls_in_flight_are_refused_and_occupy_nothing() {
    let mut host = Host::new();
    host.limits = host.limits.with(Resource::ConcurrentCalls, 1);
    let log = host.start();
    let first = reserve(&log, &SEND);
    assert!(Requested::new(&log, &SEND, &"another").is_err());
    assert_eq!(log.usage().in_flight(), 1);
    drop(first);
    assert_eq!(log.usage().in_flight(), 0);
    log.outliving_calls().await;
}

// ---- the process is killed

/// Kills the process with a call in each state; returns whether the next attempt finds the answer, whether it counts the call
/// as made again, and the keys before and after.
async fn killed(spec: &CallSpec<Vec<Value>>, state: &str) -> (bool, u32, [String; 2], [String; 2]) {
    fn keys<S>(call: &RecordedCall<S>) -> [String; 2] {
        [call.idempotency_key(), call.change_key()]
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
    (found, log.made_again(), before, after)
}

#[tokio::test]
async fn after_a_kill_the_next_attempt_goes_on_from_what_is_on_disk() {
    for spec in ALL {
        let counted = u32::from(spec.effect.needs_durable_intent());
        for (state, found, again, is_on_disk) in [
            ("reserved", false, 0, false),
            ("begun", false, 0, false),
            ("begun, on disk", false, counted, true),
            ("in flight", false, counted, counted == 1),
            ("answered", false, counted, counted == 1),
            ("committed", true, 0, true),
        ] {
            let (is_found, made_again, before, after) = killed(spec, state).await;
            assert_eq!((is_found, made_again), (found, again), "{} {state}", spec.import);
            assert_eq!(before[0], after[0], "{} {state}: the idempotency key stays", spec.import);
            if is_on_disk {
                assert_eq!(before[1], after[1], "{} {state}: the store knows the change", spec.import);
            }
        }
    }
}

#[tokio::test]
async fn another_call_at_the_same_position_has_another_key() {
    let host = Host::new();
    let log = host.start();
    let one = live(Requested::new(&log, &SEND, &"one").unwrap()).begin().unwrap();
    host.disk.commit(1);
    let key = one.idempotency_key();
    drop(one);
    let log = host.kill(log);
    let other = live(Requested::new(&log, &SEND, &"other").unwrap());
    assert_eq!(log.made_again(), 0, "nobody asked for the first one again");
    assert_ne!(key, other.idempotency_key());
}

// ---- calls that are made again on purpose

#[tokio::test]
async fn a_temporary_failure_is_made_again_by_the_next_attempt() {
    let host = Host::new();
    let log = host.start();
    let call = leave(&host, &log, &PAID).await;
    let key = call.idempotency_key();
    drop(call.answer(&Answer::Error(timeout())).unwrap());
    log.forgive().unwrap();
    host.disk.commit_all();
    let log = host.kill(log);
    let call = reserve(&log, &PAID);
    assert_eq!((call.idempotency_key(), log.made_again()), (key, 0), "it is known that the call failed");
}

#[tokio::test]
async fn a_failure_that_would_stay_is_replayed_for_good() {
    let host = Host::new();
    let log = host.start();
    let call = leave(&host, &log, &PAID).await;
    drop(call.answer(&Answer::Error(CallError::new(ErrorKind::Denied, "no"))).unwrap());
    log.forgive().unwrap();
    host.disk.commit_all();
    let log = host.kill(log);
    assert!(replayed(request(&log, &PAID)).answer().error().is_some());
}

#[tokio::test]
async fn a_replayed_answer_of_no_use_is_made_again_by_the_next_attempt() {
    let host = Host::new();
    let log = host.start();
    let call = leave(&host, &log, &PAID).await;
    drop(call.answer(&Answer::ok(&"half").unwrap()).unwrap());
    host.disk.commit_all();
    let log = host.kill(log);
    replayed(request(&log, &PAID)).make_again();
    log.forgive().unwrap();
    host.disk.commit_all();
    let log = host.kill(log);
    drop(reserve(&log, &PAID));
}

// ---- the log is cut

#[tokio::test]
async fn a_cut_log_keeps_results_aside_and_gives_each_once() {
    let host = Host::new();
    let log = host.start();
    drop(leave(&host, &log, &CREATE).await.answer(&Answer::ok(&"msg_1").unwrap()).unwrap());
    drop(leave(&host, &log, &CHANGE).await);
    host.disk.commit_all();

    // The next version makes another call first.
    let log = host.kill(log);
    drop(leave_behind_a_cut(&host, &log).await);
    assert_eq!(replayed(request(&log, &CREATE)).answer().to_result::<String>(), ok("msg_1"));
    host.disk.commit_all();
    drop(reserve(&log, &CREATE));

    // So does the one after it, with the result in the log once more.
    let mut progress = Vec::new();
    drop(log);
    let log = host.start_with(&mut progress);
    assert_eq!(progress, [json!("msg_1")], "found once, although it was kept aside and asked for since");
    drop(reserve(&log, &PAID));
    assert_eq!(replayed(request(&log, &CREATE)).answer().to_result::<String>(), ok("msg_1"));
    assert_eq!(log.made_again(), 1, "the paid call was in flight");
}

async fn leave_behind_a_cut(host: &Host, log: &Arc<CallLog>) -> RecordedCall<InFlight> {
    let mut leaving = pin!(reserve(log, &PAID).leave());
    assert!(poll!(leaving.as_mut()).is_pending());
    // The old calls are forgotten, the result is kept, and then the intent.
    assert_eq!(host.disk.submitted(), 3);
    host.disk.commit(3);
    let names: Vec<_> = host.disk.calls().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["modhost:kept-aside", "completion.complete"]);
    leaving.await.unwrap()
}

#[tokio::test]
async fn progress_of_earlier_attempts_is_restored_when_an_attempt_starts() {
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
async fn a_dry_run_waits_for_no_disk_and_notes_what_was_asked() {
    let log = Arc::new(CallLog::dry_run(DeliveryId::from_text("dlv_1"), Vec::new()));
    let mut running = Running::request(&log, &SEND);
    running.run_in_vain().await;
    assert!(running.is_made());
    running.answer(ok("yes"));
    assert_eq!(running.result().await, ok("yes"));
    let asked = log.asked();
    assert_eq!((asked.len(), asked[0].import, asked[0].lasting), (1, Import::HttpHandle, true));
    assert_eq!((&asked[0].known, &asked[0].answer), (&Lookup::Added, &Some(Ok(json!("yes")))));
}

#[tokio::test]
async fn a_log_that_is_off_writes_nothing() {
    let log = Arc::new(CallLog::off(DeliveryId::from_text("dlv_1")));
    let mut running = Running::request(&log, &PAID);
    running.run_in_vain().await;
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

    // Nothing else of a journal has to do with calls.

    async fn record(&self, _: Arc<Event>, _: Vec<NewDelivery>) -> JournalResult<Recorded> {
        unimplemented!()
    }

    async fn lanes(&self) -> JournalResult<Vec<Lane>> {
        unimplemented!()
    }

    fn backlog(&self, _: &Name) -> Backlog {
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

    async fn complete_attempt(&self, _: &Lease, _: AttemptReport, _: Disposition) -> JournalResult<()> {
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
        Ok(CommitHandle::when(handle))
    }
}
