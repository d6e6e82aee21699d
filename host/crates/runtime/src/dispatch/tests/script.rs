//! Modules and a platform that follow the script of a test.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use modhost_core::event::{DeliveryId, Name};
use modhost_platform::{CallError, Caller, ErrorKind, Message, MessageChange, Platform, Role, StepChange};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::capabilities::Delivery;
use crate::dispatch::{Modules, Runner, lock};
use crate::engine::GuestOutcome;

/// How a scripted module ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    With(GuestOutcome),
    /// The host panics while the module runs.
    Panic,
}

/// Modules whose attempts run until the test ends them. Cheap to clone.
#[derive(Clone)]
pub(super) struct ScriptedModules(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    paused: HashSet<Name>,
    /// Modules without a version.
    missing: HashSet<Name>,
    /// Modules whose attempts end immediately.
    automatic: HashMap<Name, End>,
    running: Vec<Run>,
    started: u64,
    /// All attempts that have started, in order.
    history: Vec<(DeliveryId, u32)>,
    /// Whether each first attempt completed: the evidence for a canary.
    evidence: Vec<bool>,
    /// The maximum number of concurrent attempts: in total, per tenant, per module.
    peak: Peak,
}

/// The maximum numbers of concurrent attempts.
#[derive(Clone, Debug, Default)]
pub(super) struct Peak {
    pub(super) total: usize,
    pub(super) tenants: HashMap<Name, usize>,
    pub(super) modules: HashMap<Name, usize>,
}

/// A running attempt.
struct Run {
    number: u64,
    delivery: Arc<Delivery>,
    end: Option<oneshot::Sender<End>>,
}

impl ScriptedModules {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), changes: watch::Sender::new(()) }))
    }

    /// Makes every attempt of a module end immediately.
    pub(super) fn end_automatically(&self, module: &str, end: End) {
        lock(&self.0.state).automatic.insert(module.into(), end);
    }

    pub(super) fn pause(&self, module: &str) {
        lock(&self.0.state).paused.insert(module.into());
    }

    /// Resumes a module; the caller has to wake the dispatcher, as the admin API does.
    pub(super) fn resume(&self, module: &str) {
        lock(&self.0.state).paused.remove(&Name::from(module));
    }

    /// Removes the version of a module, without marking its deliveries as waiting.
    pub(super) fn remove_version(&self, module: &str) {
        lock(&self.0.state).missing.insert(module.into());
    }

    pub(super) fn serve_version(&self, module: &str) {
        lock(&self.0.state).missing.remove(&Name::from(module));
        self.0.changes.send_replace(());
    }

    /// Returns the deliveries with running attempts, in the order they started.
    pub(super) fn running(&self) -> Vec<DeliveryId> {
        lock(&self.0.state).running.iter().map(|run| run.delivery.id.clone()).collect()
    }

    /// Returns the latest attempt at a delivery, if it is running.
    pub(super) fn attempt_of(&self, delivery: &DeliveryId) -> Option<Arc<Delivery>> {
        let state = lock(&self.0.state);
        state.running.iter().rev().find(|run| run.delivery.id == *delivery).map(|run| run.delivery.clone())
    }

    /// Returns whether an attempt at a delivery is running that the test has not ended yet.
    pub(super) fn can_end(&self, delivery: &DeliveryId) -> bool {
        lock(&self.0.state).running.iter().any(|run| run.delivery.id == *delivery && run.end.is_some())
    }

    /// Ends the latest attempt at a delivery.
    pub(super) fn end(&self, delivery: &DeliveryId, end: End) {
        let mut state = lock(&self.0.state);
        let mut open = state.running.iter_mut().rev().filter(|run| run.end.is_some());
        let run = open.find(|run| run.delivery.id == *delivery);
        let run = run.unwrap_or_else(|| panic!("no attempt at {delivery} is running"));
        // The attempt may have been canceled.
        let _ = run.end.take().map(|sender| sender.send(end));
    }

    /// Returns all attempts that have started, in order: their deliveries and numbers since the delivery was last sent.
    pub(super) fn history(&self) -> Vec<(DeliveryId, u32)> {
        lock(&self.0.state).history.clone()
    }

    /// Returns how many attempts at a delivery have started.
    pub(super) fn starts_of(&self, delivery: &DeliveryId) -> usize {
        lock(&self.0.state).history.iter().filter(|(started, _)| started == delivery).count()
    }

    pub(super) fn evidence(&self) -> Vec<bool> {
        lock(&self.0.state).evidence.clone()
    }

    pub(super) fn peak(&self) -> Peak {
        lock(&self.0.state).peak.clone()
    }
}

impl Modules for ScriptedModules {
    fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    fn is_blocked(&self, module: &Name) -> bool {
        lock(&self.0.state).paused.contains(module)
    }

    fn any_blocked(&self) -> bool {
        !lock(&self.0.state).paused.is_empty()
    }

    fn choose(&self, module: &Name, _: &DeliveryId, _: SystemTime) -> Option<Box<dyn Runner>> {
        let has_version = !lock(&self.0.state).missing.contains(module);
        has_version.then(|| -> Box<dyn Runner> { Box::new(ScriptedRunner(self.0.clone())) })
    }
}

struct ScriptedRunner(Arc<Shared>);

#[async_trait]
impl Runner for ScriptedRunner {
    fn version(&self) -> String {
        "version-1".to_owned()
    }

    async fn run(&self, delivery: &Arc<Delivery>, stop: &CancellationToken) -> Option<GuestOutcome> {
        let (end, ended) = oneshot::channel();
        let number = self.0.start(delivery, end);
        let _running = StopOnDrop { shared: &self.0, number };
        let end = tokio::select! {
            end = ended => end.unwrap_or(End::Panic),
            () = stop.cancelled() => return None,
        };
        match end {
            End::With(ended) => Some(ended),
            End::Panic => panic!("panic injected by the test"),
        }
    }

    fn ended(&self, completed: bool) {
        lock(&self.0.state).evidence.push(completed);
    }
}

impl Shared {
    fn start(&self, delivery: &Arc<Delivery>, end: oneshot::Sender<End>) -> u64 {
        let mut state = lock(&self.state);
        state.started += 1;
        let number = state.started;
        state.history.push((delivery.id.clone(), delivery.attempt));
        let end = match state.automatic.get(&delivery.module).cloned() {
            Some(at_once) => {
                let _ = end.send(at_once);
                None
            }
            None => Some(end),
        };
        state.running.push(Run { number, delivery: delivery.clone(), end });
        let State { running, peak, .. } = &mut *state;
        let (tenant, module) = (&delivery.event.tenant, &delivery.module);
        let of =
            |is_counted: &dyn Fn(&Delivery) -> bool| running.iter().filter(|run| is_counted(&run.delivery)).count();
        let (of_tenant, of_module) = (of(&|it| it.event.tenant == *tenant), of(&|it| it.module == *module));
        peak.total = peak.total.max(running.len());
        let tenant_peak = peak.tenants.entry(tenant.clone()).or_default();
        *tenant_peak = of_tenant.max(*tenant_peak);
        let module_peak = peak.modules.entry(module.clone()).or_default();
        *module_peak = of_module.max(*module_peak);
        number
    }
}

/// Removes a running attempt from the list on drop, also when it is canceled.
struct StopOnDrop<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        lock(&self.shared.state).running.retain(|run| run.number != self.number);
    }
}

/// The result of calls to a scripted platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    /// A temporary error.
    Unavailable,
    /// A permanent error.
    Denied,
    Panic,
}

/// A platform that answers as the test says and records the texts written to it.
pub(super) struct ScriptedPlatform {
    answer: Mutex<Answer>,
    /// Whether calls are held.
    held: watch::Sender<bool>,
    calls: Mutex<u64>,
    written: Mutex<Vec<(String, bool)>>,
}

impl ScriptedPlatform {
    pub(super) fn new() -> Self {
        let held = watch::Sender::new(false);
        Self { answer: Mutex::new(Answer::Ok), held, calls: Mutex::default(), written: Mutex::default() }
    }

    pub(super) fn answers(&self, answer: Answer) {
        *lock(&self.answer) = answer;
    }

    /// Holds the answers of all calls until [`ScriptedPlatform::release`].
    pub(super) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(super) fn release(&self) {
        self.held.send_replace(false);
    }

    /// Returns the number of calls.
    pub(super) fn calls(&self) -> u64 {
        *lock(&self.calls)
    }

    /// Returns the written texts in order, and whether each was marked as final.
    pub(super) fn written(&self) -> Vec<(String, bool)> {
        lock(&self.written).clone()
    }

    async fn answer(&self) -> Result<(), CallError> {
        *lock(&self.calls) += 1;
        drop(self.held.subscribe().wait_for(|held| !held).await);
        let answer = *lock(&self.answer);
        match answer {
            Answer::Ok => Ok(()),
            Answer::Unavailable => Err(CallError::new(ErrorKind::Unavailable, "no route to the platform")),
            Answer::Denied => Err(CallError::new(ErrorKind::Denied, "the key is revoked")),
            Answer::Panic => panic!("panic injected by the test"),
        }
    }

    fn write(&self, id: &str, change: &MessageChange) -> Message {
        let text = change.text.clone();
        lock(&self.written).push((text.clone().unwrap_or_default(), change.completed));
        Message { id: id.to_owned(), role: Role::Assistant, text, references: Vec::new(), created_at: None }
    }
}

#[async_trait]
impl Platform for ScriptedPlatform {
    fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("there is no {what} in this test"))
    }

    async fn modify_message(
        &self,
        _: &Caller,
        _: &str,
        id: &str,
        change: &MessageChange,
    ) -> modhost_platform::Result<Message> {
        self.answer().await?;
        Ok(self.write(id, change))
    }

    async fn create_message(
        &self,
        _: &Caller,
        _: Option<&str>,
        _: &str,
        change: &MessageChange,
    ) -> modhost_platform::Result<Message> {
        self.answer().await?;
        Ok(self.write("new", change))
    }

    async fn update_step(&self, _: &Caller, _: &str, _: &StepChange) -> modhost_platform::Result<()> {
        self.answer().await
    }
}
