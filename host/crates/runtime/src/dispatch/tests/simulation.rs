//! Random interleavings, by seed, of events, claims, attempts, admin operations and faults.
//!
//! A failing run reports its seed and fails in the same way each time.

use std::collections::HashMap;
use std::sync::Mutex;

use modhost_storage::journal::{Filter, Journal, Summary};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::journal::{Op, Pass, Point};
use super::script::Answer;
use super::*;

/// The number of runs of each kind.
const SEEDS: u64 = 150;

/// The number of actions in a run.
const ACTIONS: usize = 250;

/// The number of yields after each action: few, so that actions overlap with other tasks.
const YIELDS: usize = 6;

/// Maximum number of timers until all deliveries have ended.
const MAX_TIMERS: usize = 1_000;

const TENANTS: [&str; 2] = ["acme", "other"];
const MODULES: [&str; 3] = ["Ordered", "Narrow", "Wide"];

/// The faults in a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No faults: modules fail and are retried, clients disconnect, modules are paused.
    Calm,
    /// The journal fails before and after its operations take effect, other hosts take deliveries over, operators
    /// resend and drop deliveries.
    Faults,
}

type Stopped = Arc<Mutex<Vec<(Op, Point, oneshot::Sender<bool>)>>>;

struct Simulation {
    seed: u64,
    kind: Kind,
    host: TestHost,
    /// Journal operations that are held.
    stopped: Stopped,
    clients: Vec<(DeliveryId, JoinHandle<Result<Accepted, Refused>>)>,
    /// Deliveries of events that were acknowledged to the client.
    acknowledged: Vec<DeliveryId>,
    sent: u64,
    /// The limits of host, tenants and modules.
    limits: (usize, HashMap<Name, usize>, HashMap<Name, usize>),
}

impl Simulation {
    async fn new(seed: u64, kind: Kind) -> Self {
        fastrand::seed(seed);
        let concurrency = fastrand::usize(1..6);
        let tenants = TENANTS.map(|name| TenantSetup { name, concurrency: fastrand::usize(1..5), max_deliveries: 40 });
        let modules = MODULES.map(|name| RouteSpec {
            concurrency: if name == "Narrow" { 1 } else { fastrand::usize(1..5) },
            ordered_by_chat: name == "Ordered",
            ..module(name)
        });
        let limits = (
            concurrency,
            tenants.iter().map(|tenant| (tenant.name.into(), tenant.concurrency)).collect(),
            modules.iter().map(|module| (module.module.clone(), module.concurrency)).collect(),
        );
        let sweep_every = if kind == Kind::Faults { Duration::from_secs(30) } else { NEVER };
        let (tenants, modules) = (tenants.to_vec(), modules.to_vec());
        let setup = Setup { concurrency, max_deliveries: 60, sweep_every, tenants, modules };
        let host = TestHost::stopped(setup).await;
        host.journal.lease_on_record(seed.is_multiple_of(2));
        let stopped = Stopped::default();
        let stopping = stopped.clone();
        host.journal.decide_by(Some(Box::new(move |op, point, _| {
            if fastrand::bool() {
                return Pass::Go;
            }
            let (go_on, goes_on) = oneshot::channel();
            lock(&stopping).push((op, point, go_on));
            Pass::Wait(goes_on)
        })));
        host.dispatcher.run();
        Self { seed, kind, host, stopped, clients: Vec::new(), acknowledged: Vec::new(), sent: 0, limits }
    }

    async fn run(mut self) {
        for _ in 0..ACTIONS {
            self.act().await;
            self.yield_to_tasks().await;
            self.check_limits();
        }
        self.calm_down().await;
        self.check_end().await;
    }

    async fn yield_to_tasks(&self) {
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
    }

    async fn act(&mut self) {
        match fastrand::u32(..100) {
            0..20 => self.send(),
            20..50 => self.release_one(),
            50..70 => self.end_attempt(),
            70..78 => self.host.clock.advance(Duration::from_millis(fastrand::u64(1..20_000))),
            78..84 => self.advance_to_next_timer(),
            84..88 => self.disconnect(),
            88..90 => self.host.modules.pause(fastrand::choice(MODULES).unwrap()),
            90..93 => {
                self.host.modules.resume(fastrand::choice(MODULES).unwrap());
                self.host.dispatcher.rescan();
            }
            93..94 => self.host.platform.hold(),
            94..95 => self.host.platform.release(),
            95..97 => self.host.platform.answers(fastrand::choice([Answer::Ok, Answer::Unavailable]).unwrap()),
            _ if self.kind == Kind::Calm => {}
            97..98 => drop(self.host.journal.memory.reclaim(Some(OWNER)).await),
            _ => self.operate().await,
        }
    }

    fn send(&mut self) {
        // Some events are sent a second time.
        let number = if fastrand::u32(..10) == 0 { fastrand::u64(..=self.sent) } else { self.sent };
        self.sent += 1;
        let module = MODULES[(number % 3) as usize];
        let id = format!("evt_{number}");
        let sent = if number.is_multiple_of(5) {
            question(&id, module)
        } else {
            message(TENANTS[(number % 2) as usize], &id, module, &format!("chat_{}", number / 3 % 2))
        };
        let delivery = DeliveryId::new(&sent, &module.into());
        let dispatcher = self.host.dispatcher.clone();
        self.clients.push((delivery, tokio::spawn(async move { dispatcher.accept(sent).await })));
    }

    /// Releases one of the held operations, chosen at random.
    fn release_one(&self) {
        let mut stopped = lock(&self.stopped);
        if stopped.is_empty() {
            return;
        }
        let at = fastrand::usize(..stopped.len());
        let (_, _, go_on) = stopped.swap_remove(at);
        let succeeds = self.kind == Kind::Calm || fastrand::u32(..5) > 0;
        // The operation may have been canceled.
        let _ = go_on.send(succeeds);
    }

    fn end_attempt(&self) {
        let running = self.host.modules.running();
        let Some(delivery) = fastrand::choice(&running) else { return };
        let ends =
            [answered(), answered(), failed(Retry::Yes), failed(Retry::After(Duration::from_secs(5))), End::Panic];
        let end = fastrand::choice(&ends).unwrap().clone();
        if let Some(attempt) = self.host.modules.attempt_of(delivery)
            && fastrand::bool()
        {
            attempt.progress().reply.text = Some("here you are".to_owned());
        }
        if self.host.modules.can_end(delivery) {
            self.host.modules.end(delivery, end);
        }
    }

    fn advance_to_next_timer(&self) {
        if let Some(next) = self.host.clock.next_wake() {
            self.host.clock.set(next.max(self.host.clock.now()));
        }
    }

    /// A client disconnects, whatever the state of its event.
    fn disconnect(&mut self) {
        if !self.clients.is_empty() {
            let (_, client) = self.clients.swap_remove(fastrand::usize(..self.clients.len()));
            client.abort();
        }
    }

    /// An operator resends or drops a delivery.
    async fn operate(&self) {
        let known = self.deliveries().await;
        let Some(summary) = fastrand::choice(&known) else { return };
        let details = self.host.details(&summary.id).await;
        let (dispatcher, inside) = (self.host.dispatcher.clone(), self.host.dispatcher.clone());
        tokio::spawn(async move {
            let sends = fastrand::bool();
            let operation = async move {
                match sends {
                    true => inside.resend(&details, fastrand::bool()).await,
                    false => inside.drop_waiting(&details, "not needed").await,
                }
            };
            dispatcher.run_to_completion(operation).await
        });
    }

    async fn deliveries(&self) -> Vec<Summary> {
        self.host.journal.memory.list(Filter::default()).await.unwrap()
    }

    fn check_limits(&self) {
        let peak = self.host.modules.peak();
        let (total, tenants, modules) = &self.limits;
        let is_within = |peak: &HashMap<Name, usize>, limits: &HashMap<Name, usize>| {
            peak.iter().all(|(name, peak)| limits.get(name).is_some_and(|limit| peak <= limit))
        };
        let within = peak.total <= *total && is_within(&peak.tenants, tenants) && is_within(&peak.modules, modules);
        assert!(within, "seed {}: {peak:?} of {:?}", self.seed, self.limits);
    }

    /// Ends all faults and pauses, and lets every attempt end.
    async fn calm_down(&mut self) {
        let host = &self.host;
        host.journal.decide_by(None);
        let stopped = std::mem::take(&mut *lock(&self.stopped));
        for (_, _, go_on) in stopped {
            let _ = go_on.send(true);
        }
        host.platform.answers(Answer::Ok);
        host.platform.release();
        for module in MODULES {
            host.modules.end_automatically(module, answered());
            host.modules.resume(module);
        }
        host.dispatcher.rescan();
        for _ in 0..MAX_STEPS {
            for delivery in host.modules.running() {
                if host.modules.can_end(&delivery) {
                    host.modules.end(&delivery, answered());
                }
            }
            tokio::task::yield_now().await;
        }
        if self.kind == Kind::Calm {
            let due = host.journal.memory.due(1_000).await.unwrap();
            assert!(due.is_empty(), "seed {}: due but not run, although nothing blocks it: {due:?}", self.seed);
        }
        for (delivery, client) in self.clients.drain(..) {
            assert!(client.is_finished(), "seed {}: the client of {delivery} is still waiting", self.seed);
            if let Ok(Ok(_)) = client.await {
                self.acknowledged.push(delivery);
            }
        }
        for _ in 0..MAX_TIMERS {
            if self.deliveries().await.iter().all(|delivery| delivery.state.is_final()) {
                break;
            }
            self.advance_to_next_timer();
            self.host.settle().await;
        }
    }

    async fn check_end(&self) {
        let deliveries = self.deliveries().await;
        for delivery in &deliveries {
            assert!(delivery.state.is_final(), "seed {}: {delivery:?}", self.seed);
        }
        for delivery in &self.acknowledged {
            let is_there = deliveries.iter().any(|known| known.id == *delivery);
            assert!(is_there, "seed {}: {delivery} was acknowledged and then lost", self.seed);
        }
        self.check_limits();
        if self.kind == Kind::Calm {
            self.check_chats(&deliveries);
        }
        // The last slots are released by tasks of their own.
        self.host.settle().await;
        self.host.assert_idle(&TENANTS);
    }

    /// Asserts that a delivery of a chat starts for the first time only after the last start of each delivery of the
    /// chat that was recorded before it.
    fn check_chats(&self, deliveries: &[Summary]) {
        let history = self.host.modules.history();
        let started = |delivery: &DeliveryId| history.iter().position(|(of, _)| of == delivery);
        let last_started = |delivery: &DeliveryId| history.iter().rposition(|(of, _)| of == delivery);
        // The list is sorted from newest to oldest.
        let ordered: Vec<&Summary> = deliveries.iter().rev().filter(|it| it.module.as_str() == "Ordered").collect();
        for (at, earlier) in ordered.iter().enumerate() {
            for later in &ordered[at + 1..] {
                if self.chat_of(earlier) == self.chat_of(later) && earlier.tenant == later.tenant {
                    let is_in_order = last_started(&earlier.id) < started(&later.id);
                    assert!(is_in_order, "seed {}: {} before {}", self.seed, later.event_id, earlier.event_id);
                }
            }
        }
    }

    fn chat_of(&self, summary: &Summary) -> String {
        let number: u64 = summary.event_id.trim_start_matches("evt_").parse().unwrap();
        if number.is_multiple_of(5) {
            format!("chat of {}", summary.event_id)
        } else {
            format!("chat_{}", number / 3 % 2)
        }
    }
}

#[tokio::test]
async fn runs_every_delivery_once_it_can_run() {
    for seed in 0..SEEDS {
        Simulation::new(seed, Kind::Calm).await.run().await;
    }
}

#[tokio::test]
async fn loses_no_delivery_whatever_fails() {
    for seed in 0..SEEDS {
        Simulation::new(seed, Kind::Faults).await.run().await;
    }
}
