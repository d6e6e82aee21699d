//! Model test: random operations in random order have the same results with every engine and with a simple model.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use modhost_core::clock::ManualClock;
use modhost_core::event::{DeliveryId, Event};
use modhost_storage::journal::{
    AttemptReport, Backlog, Call, Claim, Disposition, Filter, Heartbeat, Journal, JournalError, Lease, Memory,
    NewDelivery, NewLease, Recorded, Retention, State, TenantLimits, TenantUsage,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::postgres_server::PostgresServer;
use crate::support::{Engine, at, event_of, new_database, open_postgres_with_clock, open_with_clock};

const MODULES: [&str; 2] = ["Echo", "Log"];
const TENANTS: [&str; 2] = ["acme", "globex"];
const KEEP: Retention = Retention {
    completed: Duration::from_millis(1_000),
    dead: Duration::from_millis(3_000),
    ids: Duration::from_millis(2_000),
    max_bytes: None,
    tenant_limits: TenantLimits::new(),
};

#[derive(Clone, Debug)]
enum Ending {
    Completed,
    Retry(u64),
    Dead,
    Dropped,
}

#[derive(Clone, Debug)]
enum Step {
    Record {
        tenant: usize,
        modules: [bool; 2],
        chat: Option<u8>,
        /// The owner that leases the deliveries as they are recorded.
        by: Option<u8>,
    },
    Redeliver(Index),
    /// Records an event of the other tenant with the same id.
    SameId(Index),
    Claim {
        lane: usize,
        limit: u32,
        owner: u8,
    },
    Unclaim(Index),
    Complete(Index, Ending),
    CompleteStale(Index),
    Heartbeat(Index, u8),
    Reclaim(Option<u8>),
    Drop(Index),
    Resend(Index, bool),
    Write(Index, u32, Option<usize>),
    WriteStale(Index, u32),
    Forget(Index, u32),
    Wait(u64),
    Purge,
    /// Purges with a limit of one tenant, in bytes.
    PurgeTo(usize, u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let ending = prop_oneof![
        3 => Just(Ending::Completed),
        3 => (0..2_000_u64).prop_map(Ending::Retry),
        1 => Just(Ending::Dead),
        1 => Just(Ending::Dropped),
    ];
    prop_oneof![
        8 => (0..2_usize, any::<[bool; 2]>(), proptest::option::weighted(0.7, 0..2_u8), proptest::option::of(0..2_u8))
            .prop_map(|(tenant, modules, chat, by)| Step::Record { tenant, modules, chat, by }),
        1 => index().prop_map(Step::Redeliver),
        1 => index().prop_map(Step::SameId),
        8 => (0..4_usize, 0..4_u32, 0..2_u8).prop_map(|(lane, limit, owner)| Step::Claim { lane, limit, owner }),
        1 => index().prop_map(Step::Unclaim),
        8 => (index(), ending).prop_map(|(which, ending)| Step::Complete(which, ending)),
        1 => index().prop_map(Step::CompleteStale),
        1 => (index(), 0..2_u8).prop_map(|(which, owner)| Step::Heartbeat(which, owner)),
        1 => proptest::option::of(0..2_u8).prop_map(Step::Reclaim),
        2 => index().prop_map(Step::Drop),
        2 => (index(), any::<bool>()).prop_map(|(which, fresh)| Step::Resend(which, fresh)),
        3 => (index(), 0..4_u32, proptest::option::of(prop_oneof![0..20_usize, 8_190..8_200_usize]))
            .prop_map(|(which, number, answer)| Step::Write(which, number, answer)),
        1 => (index(), 0..4_u32).prop_map(|(which, from)| Step::Forget(which, from)),
        1 => (index(), 0..4_u32).prop_map(|(which, number)| Step::WriteStale(which, number)),
        3 => (1..1_500_u64).prop_map(Step::Wait),
        1 => Just(Step::Purge),
        1 => (0..2_usize, 0..20_000_u64).prop_map(|(tenant, limit)| Step::PurgeTo(tenant, limit)),
        1 => Just(Step::Reopen),
    ]
}

/// A delivery in the model.
#[derive(Clone, Debug)]
struct Delivery {
    event: Arc<Event>,
    lane: usize,
    chat: Option<u8>,
    /// Whether an unfinished delivery of the chat comes before it.
    blocked: bool,
    state: State,
    attempt: u32,
    earlier_attempts: u32,
    interrupted: u32,
    /// The number of attempts that were completed.
    completed_attempts: u64,
    due: u64,
    has_due_time: bool,
    lease: Option<(Arc<str>, u64)>,
    changed: u64,
    calls: BTreeMap<u32, Call>,
}

/// The expected content of the journal.
#[derive(Default)]
struct Model {
    now: u64,
    /// The deliveries, in the order they were recorded.
    deliveries: Vec<(DeliveryId, Delivery)>,
    /// When each known event was recorded, by tenant and id.
    known: HashMap<(String, String), u64>,
    events: Vec<Arc<Event>>,
}

fn owner(number: u8) -> Arc<str> {
    format!("host-{number}").into()
}

/// Returns the key of an event without its source, because the test has only one source.
fn key(event: &Event) -> (String, String) {
    (event.tenant.as_str().to_owned(), event.id.clone())
}

/// Returns the lane of a tenant and a module.
fn lane(tenant: &str, module: &str) -> usize {
    let index = |names: [&str; 2], name| names.iter().position(|known| *known == name).expect("unknown name");
    index(TENANTS, tenant) * 2 + index(MODULES, module)
}

impl Model {
    fn of(&mut self, id: &DeliveryId) -> &mut Delivery {
        &mut self.deliveries.iter_mut().find(|(known, _)| known == id).expect("unknown delivery").1
    }

    fn pick(&self, which: &Index) -> Option<DeliveryId> {
        (!self.deliveries.is_empty()).then(|| which.get(&self.deliveries).0.clone())
    }

    /// Returns the indexes of the unfinished deliveries of a chat.
    fn unfinished(&self, lane: usize, chat: Option<u8>) -> Vec<usize> {
        let of_chat = |delivery: &Delivery| {
            chat.is_some() && delivery.chat == chat && delivery.lane == lane && !delivery.state.is_final()
        };
        (0..self.deliveries.len()).filter(|index| of_chat(&self.deliveries[*index].1)).collect()
    }

    /// Moves a delivery to a state. Returns whether the next delivery of its chat can be claimed now.
    fn enter(&mut self, id: &DeliveryId, state: State) -> bool {
        let now = self.now;
        let it = self.of(id);
        let was_first = !std::mem::replace(&mut it.blocked, false);
        it.state = state;
        it.changed = now;
        it.lease = None;
        let (lane, chat) = (it.lane, it.chat);
        if !state.is_final() {
            self.of(id).blocked = !was_first;
        } else if was_first && let Some(next) = self.unfinished(lane, chat).first() {
            self.deliveries[*next].1.blocked = false;
            return true;
        }
        false
    }

    fn record(&mut self, event: &Arc<Event>, new: &[NewDelivery], chat: Option<u8>, by: Option<u8>) -> Recorded {
        if self.known.contains_key(&key(event)) {
            return Recorded::Duplicate;
        }
        self.known.insert(key(event), self.now);
        let mut leases = Vec::new();
        for new in new {
            let lane = lane(event.tenant.as_str(), new.module.as_str());
            let delivery = Delivery {
                event: Arc::clone(event),
                lane,
                chat,
                blocked: !self.unfinished(lane, chat).is_empty(),
                state: State::Waiting,
                attempt: 0,
                earlier_attempts: 0,
                interrupted: 0,
                completed_attempts: 0,
                due: self.now,
                has_due_time: false,
                lease: None,
                changed: self.now,
                calls: BTreeMap::new(),
            };
            let blocked = delivery.blocked;
            self.deliveries.push((new.id.clone(), delivery));
            if let Some(by) = by.filter(|_| !blocked) {
                self.lease(&new.id, by);
                let (delivery, tenant) = (new.id.clone(), event.tenant.clone());
                leases.push(Lease { delivery, tenant, owner: owner(by), attempt: 1 });
            }
        }
        Recorded::New { at: at(self.now), leases }
    }

    /// Returns the deliveries of a lane that can be claimed, longest waiting first.
    fn due(&self, lane: usize) -> Vec<DeliveryId> {
        let now = self.now;
        let can = |it: &Delivery| {
            it.lane == lane && it.state == State::Waiting && !it.blocked && (!it.has_due_time || it.due <= now)
        };
        let mut due: Vec<(u64, usize)> = (0..self.deliveries.len())
            .filter(|index| can(&self.deliveries[*index].1))
            .map(|index| (self.deliveries[index].1.due, index))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, index)| self.deliveries[index].0.clone()).collect()
    }

    /// Returns since when the delivery of a lane that has been due for longest is due.
    fn due_since(&self, lane: usize) -> Option<SystemTime> {
        let due = self.due(lane);
        let since = |id: &DeliveryId| self.deliveries.iter().find(|(other, _)| other == id).map(|(_, it)| it.due);
        due.iter().filter_map(since).min().map(at)
    }

    fn lease(&mut self, id: &DeliveryId, by: u8) {
        let until = self.now + 500;
        self.enter(id, State::Running);
        let it = self.of(id);
        it.attempt += 1;
        it.lease = Some((owner(by), until));
    }

    fn claim(&mut self, lane: usize, limit: u32, by: u8) -> Vec<(DeliveryId, [u32; 4])> {
        let taken: Vec<DeliveryId> = self.due(lane).into_iter().take(limit as usize).collect();
        for id in &taken {
            self.lease(id, by);
        }
        taken
            .into_iter()
            .map(|id| {
                let it = self.of(&id);
                let calls = if it.attempt == 1 { 0 } else { it.calls.len() as u32 };
                (id, [it.attempt, it.earlier_attempts, calls, it.interrupted])
            })
            .collect()
    }

    fn next_due(&self) -> Option<u64> {
        let waiting = self.deliveries.iter().filter(|(_, it)| it.state == State::Waiting && !it.blocked);
        waiting.map(|(_, it)| if it.has_due_time { it.due } else { 0 }).min()
    }

    fn reclaim(&mut self, gone: Option<u8>) -> u64 {
        let now = self.now;
        let lost = |it: &Delivery| {
            let lease = it.lease.as_ref().filter(|_| it.state == State::Running);
            lease.is_some_and(|(by, until)| *until <= now || gone.is_some_and(|gone| owner(gone) == *by))
        };
        let ids: Vec<DeliveryId> =
            self.deliveries.iter().filter(|(_, it)| lost(it)).map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.enter(id, State::Waiting);
            let it = self.of(id);
            it.has_due_time = false;
            it.interrupted += 1;
        }
        ids.len() as u64
    }

    /// Returns the leases that an owner holds.
    fn held_by(&self, owner: &str) -> Vec<Lease> {
        let held = self.deliveries.iter().filter_map(|(id, it)| {
            let (holder, _) = it.lease.as_ref().filter(|(holder, _)| **holder == *owner)?;
            let tenant = it.event.tenant.clone();
            Some(Lease { delivery: id.clone(), tenant, owner: holder.clone(), attempt: it.attempt })
        });
        held.collect()
    }

    fn resend(&mut self, id: &DeliveryId, fresh: bool) -> bool {
        let (now, it) = (self.now, self.of(id).clone());
        if !it.state.is_final() {
            return false;
        }
        let busy = !self.unfinished(it.lane, it.chat).is_empty();
        self.enter(id, State::Waiting);
        let it = self.of(id);
        (it.blocked, it.earlier_attempts, it.due, it.has_due_time) = (busy, it.attempt, now, false);
        it.interrupted = 0;
        if fresh {
            it.calls.clear();
        }
        true
    }

    /// Returns the size of a delivery without its event.
    fn bytes(it: &Delivery) -> u64 {
        let call = |call: &Call| {
            64 + (call.import.as_str().len() + call.arguments.len() + call.answer.as_ref().map_or(0, Vec::len)) as u64
        };
        // The outcome is "ended", the log is "[]".
        512 + it.calls.values().map(call).sum::<u64>() + it.completed_attempts * (256 + 5 + 2)
    }

    /// Returns the bytes of a tenant: of unfinished deliveries, of ended ones, and of ids.
    fn usage(&self, tenant: &str) -> [u64; 3] {
        let of_tenant = || self.deliveries.iter().filter(|(_, it)| it.event.tenant.as_str() == tenant);
        let [mut unfinished, mut ended] = [true, false].map(|wanted| {
            of_tenant().filter(|(_, it)| it.state.is_final() != wanted).map(|(_, it)| Self::bytes(it)).sum::<u64>()
        });
        let events: BTreeMap<&str, &Event> = of_tenant().map(|(_, it)| (it.event.id.as_str(), &*it.event)).collect();
        for (id, event) in events {
            let bytes = 256 + event.raw().len() as u64;
            match of_tenant().any(|(_, it)| it.event.id == id && !it.state.is_final()) {
                true => unfinished += bytes,
                false => ended += bytes,
            }
        }
        let ids = self.known.keys().filter(|(owner, _)| owner == tenant).map(|(_, id)| 128 + id.len() as u64).sum();
        [unfinished, ended, ids]
    }

    /// Removes the ended deliveries of a tenant until it is within a limit, and then its ids until they are within a
    /// quarter of it.
    fn purge_to(&mut self, tenant: usize, limit: u64) {
        let tenant = TENANTS[tenant];
        while self.usage(tenant).iter().sum::<u64>() > limit {
            let ended = |(index, (_, it)): (usize, &(DeliveryId, Delivery))| {
                let of_tenant = it.event.tenant.as_str() == tenant && it.state.is_final();
                of_tenant.then_some((it.state == State::Dead, it.changed, index))
            };
            let Some((.., first)) = self.deliveries.iter().enumerate().filter_map(ended).min() else { break };
            self.deliveries.remove(first);
            self.purge_ids();
        }
        while self.usage(tenant)[2] > limit / 4 {
            let has_delivery =
                |key: &(String, String)| self.deliveries.iter().any(|(_, it)| self::key(&it.event) == *key);
            let idle = self.known.iter().filter(|(key, _)| key.0 == tenant && !has_delivery(key));
            let Some((_, key)) = idle.map(|(key, at)| (*at, key.clone())).min() else { break };
            self.known.remove(&key);
        }
    }

    fn purge(&mut self) {
        let now = self.now;
        self.deliveries.retain(|(_, it)| match it.state {
            State::Completed | State::Dropped => it.changed + 1_000 >= now,
            State::Dead => it.changed + 3_000 >= now,
            State::Waiting | State::Running => true,
        });
        self.purge_ids();
    }

    fn purge_ids(&mut self) {
        let now = self.now;
        let kept: Vec<(String, String)> = self.deliveries.iter().map(|(_, it)| key(&it.event)).collect();
        self.known.retain(|key, recorded| *recorded + 2_000 >= now || kept.contains(key));
    }
}

struct Run {
    engine: Engine,
    directory: tempfile::TempDir,
    url: String,
    clock: Arc<ManualClock>,
    journal: Option<Box<dyn Journal>>,
    model: Model,
}

impl Run {
    async fn new(engine: Engine) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(at(10_000)));
        let url = if engine == Engine::Postgres { new_database() } else { String::new() };
        let journal: Box<dyn Journal> = match engine {
            Engine::Sqlite => Box::new(open_with_clock(directory.path(), &clock).await),
            Engine::Memory => Box::new(Memory::new(clock.clone(), [0; 32])),
            Engine::Postgres => Box::new(open_postgres_with_clock(&url, &clock).await),
        };
        let model = Model { now: 10_000, ..Model::default() };
        Self { engine, directory, url, clock, journal: Some(journal), model }
    }

    fn journal(&self) -> &dyn Journal {
        &**self.journal.as_ref().expect("the journal is not open")
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Record { tenant, modules, chat, by } => {
                let event = event_of(TENANTS[*tenant], &format!("evt_{}", self.model.events.len()));
                self.model.events.push(Arc::clone(&event));
                self.record(&event, *modules, *chat, *by).await;
            }
            Step::Redeliver(which) if !self.model.events.is_empty() => {
                let event = Arc::clone(which.get(&self.model.events));
                self.record(&event, [true, false], None, None).await;
            }
            Step::SameId(which) if !self.model.events.is_empty() => {
                let event = Arc::clone(which.get(&self.model.events));
                let other = if event.tenant.as_str() == TENANTS[0] { TENANTS[1] } else { TENANTS[0] };
                self.record(&event_of(other, &event.id), [true, true], None, None).await;
            }
            Step::Claim { lane, limit, owner } => self.claim(*lane, *limit, *owner).await,
            Step::Reclaim(gone) => {
                let gone_name = gone.map(owner);
                let reclaimed = self.journal().reclaim(gone_name.as_deref()).await.unwrap();
                assert_eq!(reclaimed, self.model.reclaim(*gone));
            }
            Step::Wait(millis) => {
                self.model.now += millis;
                self.clock.set(at(self.model.now));
            }
            Step::Purge => {
                while self.journal().purge(KEEP, 3).await.unwrap() > 0 {}
                self.model.purge();
            }
            Step::PurgeTo(tenant, limit) => {
                let tenant_limits = TenantLimits::from([(TENANTS[*tenant].into(), *limit)]);
                let keep = Retention { tenant_limits, ..KEEP };
                while self.journal().purge(keep.clone(), 3).await.unwrap() > 0 {}
                self.model.purge();
                self.model.purge_to(*tenant, *limit);
            }
            Step::Reopen if self.engine == Engine::Memory => {}
            Step::Reopen => {
                if self.model.now.is_multiple_of(2) {
                    self.journal().close().await.unwrap();
                }
                self.journal = None;
                self.journal = Some(match self.engine {
                    Engine::Postgres => Box::new(open_postgres_with_clock(&self.url, &self.clock).await),
                    _ => Box::new(open_with_clock(self.directory.path(), &self.clock).await),
                });
            }
            Step::Complete(which, _)
            | Step::CompleteStale(which)
            | Step::Heartbeat(which, _)
            | Step::Unclaim(which)
            | Step::Write(which, ..)
            | Step::Forget(which, _) => self.with_running(which, step).await,
            Step::Drop(which) | Step::Resend(which, _) | Step::WriteStale(which, _) => self.with_any(which, step).await,
            Step::Redeliver(_) | Step::SameId(_) => {}
        }
    }

    async fn record(&mut self, event: &Arc<Event>, modules: [bool; 2], chat: Option<u8>, by: Option<u8>) {
        let wanted = MODULES.iter().zip(modules).filter(|(_, wanted)| *wanted);
        let new: Vec<NewDelivery> = wanted
            .map(|(module, _)| NewDelivery {
                id: DeliveryId::new(event, &(*module).into()),
                module: (*module).into(),
                ordered_chat: chat.map(|chat| format!("chat_{chat}")),
                lease: by.map(|by| NewLease { owner: owner(by), duration: Duration::from_millis(500) }),
            })
            .collect();
        let recorded = self.journal().record(Arc::clone(event), new.clone()).await.unwrap();
        assert_eq!(recorded, self.model.record(event, &new, chat, by));
    }

    async fn claim(&mut self, lane: usize, limit: u32, by: u8) {
        let claim = Claim {
            tenant: TENANTS[lane / 2].into(),
            module: MODULES[lane % 2].into(),
            limit,
            owner: owner(by),
            lease: Duration::from_millis(500),
        };
        let claimed = self.journal().claim(claim).await.unwrap();
        for claimed in &claimed {
            assert_eq!(*claimed.event, *self.model.of(claimed.id()).event);
        }
        let claimed: Vec<_> = claimed
            .into_iter()
            .map(|it| (it.id().clone(), [it.attempt(), it.earlier_attempts, it.calls, it.interrupted]))
            .collect();
        assert_eq!(claimed, self.model.claim(lane, limit, by));
    }

    async fn with_running(&mut self, which: &Index, step: &Step) {
        let running: Vec<DeliveryId> = self
            .model
            .deliveries
            .iter()
            .filter(|(_, it)| it.state == State::Running)
            .map(|(id, _)| id.clone())
            .collect();
        if running.is_empty() {
            return;
        }
        let id = which.get(&running).clone();
        let now = self.model.now;
        let (number, (holder, _)) = {
            let it = self.model.of(&id);
            (it.attempt, it.lease.clone().expect("a running delivery without a lease"))
        };
        let tenant = self.model.of(&id).event.tenant.clone();
        let lease = Lease { delivery: id.clone(), tenant, owner: holder.clone(), attempt: number };
        let report =
            AttemptReport { took: Duration::ZERO, version: None, outcome: "ended".to_owned(), log: Vec::new() };
        match step {
            Step::Complete(_, ending) => {
                let reason = "because";
                let (next, state) = match ending {
                    Ending::Completed => (Disposition::Completed, State::Completed),
                    Ending::Retry(after) => (
                        Disposition::Retry { after: Duration::from_millis(*after), reason: reason.into() },
                        State::Waiting,
                    ),
                    Ending::Dead => (Disposition::Dead { reason: reason.into() }, State::Dead),
                    Ending::Dropped => (Disposition::Dropped { reason: reason.into() }, State::Dropped),
                };
                let released = self.journal().complete_attempt(&lease, report, next).await.unwrap();
                self.model.of(&id).completed_attempts += 1;
                assert_eq!(released, self.model.enter(&id, state));
                if let Ending::Retry(after) = ending {
                    let it = self.model.of(&id);
                    (it.due, it.has_due_time) = (now + after, true);
                }
            }
            Step::CompleteStale(_) => {
                let stale = Lease { attempt: number + 1, ..lease };
                let result = self.journal().complete_attempt(&stale, report, Disposition::Completed).await;
                assert_eq!(result, Err(JournalError::LeaseLost(id)));
            }
            Step::Heartbeat(_, by) => {
                let running = vec![lease.clone()];
                let heartbeat =
                    self.journal().heartbeat(&owner(*by), running, Duration::from_millis(900)).await.unwrap();
                let Heartbeat { lost, mut unknown } = heartbeat;
                if owner(*by) == holder {
                    assert!(lost.is_empty());
                    self.model.of(&id).lease = Some((holder, now + 900));
                } else {
                    assert_eq!(lost, [lease]);
                }
                let mut held = self.model.held_by(&owner(*by));
                held.retain(|lease| lease.delivery != id);
                unknown.sort_by(|a, b| a.delivery.cmp(&b.delivery));
                held.sort_by(|a, b| a.delivery.cmp(&b.delivery));
                assert_eq!(unknown, held);
            }
            Step::Unclaim(_) => {
                assert!(self.journal().unclaim(&lease).await.unwrap());
                self.model.enter(&id, State::Waiting);
                let it = self.model.of(&id);
                (it.attempt, it.has_due_time) = (number - 1, false);
            }
            Step::Write(_, number, answer) => {
                let call = Call {
                    number: *number,
                    import: "search.search".into(),
                    arguments: vec![9; 32],
                    answer: answer.map(|length| vec![length as u8; length]),
                    at: at(now),
                };
                self.journal().write(&lease, call.clone()).unwrap().durable().await.unwrap();
                self.model.of(&id).calls.insert(*number, call);
            }
            Step::Forget(_, from) => {
                self.journal().forget(&lease, *from).unwrap().durable().await.unwrap();
                self.model.of(&id).calls.retain(|number, _| number < from);
            }
            _ => unreachable!("the step needs no running delivery"),
        }
    }

    async fn with_any(&mut self, which: &Index, step: &Step) {
        let Some(id) = self.model.pick(which) else { return };
        match step {
            Step::Drop(_) => {
                let waits = self.model.of(&id).state == State::Waiting;
                assert_eq!(self.journal().drop_waiting(&id, "not needed").await.unwrap(), waits);
                if waits {
                    self.model.enter(&id, State::Dropped);
                }
            }
            Step::Resend(_, fresh) => {
                let sent = self.journal().resend(&id, *fresh).await.unwrap();
                assert_eq!(sent, self.model.resend(&id, *fresh));
            }
            Step::WriteStale(_, number) => {
                let Delivery { attempt, event, .. } = self.model.of(&id).clone();
                let tenant = event.tenant.clone();
                let stale = Lease { delivery: id.clone(), tenant, owner: owner(9), attempt };
                let call = Call {
                    number: *number,
                    import: "stale".into(),
                    arguments: Vec::new(),
                    answer: None,
                    at: at(self.model.now),
                };
                let written = self.journal().write(&stale, call).unwrap().durable().await;
                let forgotten = self.journal().forget(&stale, 0).unwrap().durable().await;
                assert_eq!(
                    (written, forgotten),
                    (Err(JournalError::LeaseLost(id.clone())), Err(JournalError::LeaseLost(id)))
                );
            }
            _ => unreachable!("the step needs a running delivery"),
        }
    }

    /// Compares everything the journal returns with the model.
    async fn compare(&mut self) {
        let listed = self.journal().list(Filter::default()).await.unwrap();
        let listed: Vec<_> =
            listed.into_iter().map(|it| (it.id, it.state, it.attempts, it.changed_at, it.due_at)).collect();
        let expected: Vec<_> = self
            .model
            .deliveries
            .iter()
            .rev()
            .map(|(id, it)| {
                let due = (it.state == State::Waiting).then(|| at(it.due));
                (id.clone(), it.state, it.attempt, at(it.changed), due)
            })
            .collect();
        assert_eq!(listed, expected);

        let count = |state| self.model.deliveries.iter().filter(|(_, it)| it.state == state).count() as u64;
        assert_eq!(self.journal().totals().await.unwrap().deliveries, State::ALL.map(count));
        let waiting: u64 = self.journal().lanes().await.unwrap().iter().map(|lane| lane.waiting).sum();
        assert_eq!(waiting, count(State::Waiting));
        for tenant in TENANTS {
            let unfinished = |it: &Delivery, tenant: Option<&str>| {
                !it.state.is_final() && tenant.is_none_or(|tenant| it.event.tenant.as_str() == tenant)
            };
            let count = |tenant| self.model.deliveries.iter().filter(|(_, it)| unfinished(it, tenant)).count() as u64;
            let expected = Backlog {
                host: count(None),
                tenant: count(Some(tenant)),
                host_bytes: TENANTS.into_iter().map(|tenant| self.model.usage(tenant)[0]).sum(),
                tenant_bytes: self.model.usage(tenant)[0],
            };
            assert_eq!(self.journal().backlog(&tenant.into()), expected);
        }
        let used = TENANTS.into_iter().map(|tenant| {
            let [unfinished_bytes, ended, ids] = self.model.usage(tenant);
            TenantUsage { tenant: tenant.into(), bytes: unfinished_bytes + ended + ids, unfinished_bytes }
        });
        let used: Vec<TenantUsage> = used.filter(|usage| usage.bytes > 0).collect();
        assert_eq!(self.journal().usage(), used);
        let due = self.journal().due(1000).await.unwrap();
        for (number, found) in
            (0..4).map(|number| (number, due.iter().find(|it| lane(it.tenant.as_str(), it.module.as_str()) == number)))
        {
            let sorted = |mut ids: Vec<DeliveryId>| {
                ids.sort();
                ids
            };
            assert_eq!(found.map(|it| it.since), self.model.due_since(number));
            let found = found.map(|it| it.deliveries.clone()).unwrap_or_default();
            assert_eq!(sorted(found), sorted(self.model.due(number)));
        }
        let due = self.journal().next_due().await.unwrap();
        let expected = self.model.next_due().map(|due| Duration::from_millis(due.saturating_sub(self.model.now)));
        assert_eq!(due, expected);
    }

    async fn compare_calls(&mut self) {
        for (id, it) in &self.model.deliveries {
            let calls = self.journal().calls(id).await.unwrap();
            assert_eq!(calls, it.calls.values().cloned().collect::<Vec<_>>());
        }
    }
}

/// Performs the steps on a journal and on the model, and compares the two after each step.
fn compare(engine: Engine, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(engine).await;
        for step in steps {
            run.take(step).await;
            run.compare().await;
        }
        run.compare_calls().await;
    });
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn matches_the_model_in_sqlite(steps in proptest::collection::vec(step(), 1..100)) {
        compare(Engine::Sqlite, &steps);
    }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn matches_the_model_in_memory(steps in proptest::collection::vec(step(), 1..100)) {
        compare(Engine::Memory, &steps);
    }
}

proptest! {
    #![proptest_config(config(25))]

    #[test]
    fn matches_the_model_in_postgres(steps in proptest::collection::vec(step(), 1..100)) {
        if PostgresServer::shared().is_some() {
            compare(Engine::Postgres, &steps);
        }
    }
}
