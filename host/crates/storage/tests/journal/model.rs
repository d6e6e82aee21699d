//! The engine beside a model of it in a few lines: whatever is asked in whatever order, both say the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use modhost_core::event::{DeliveryId, Event};
use modhost_storage::journal::{
    Attempt, Backlog, Call, Claim, Claimed, Disposition, FailureReason, Filter, Journal, JournalError, NewDelivery,
    Recorded, Retention, Sqlite, State,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{at, event_of, open};

const MODULES: [&str; 2] = ["Echo", "Log"];
const TENANTS: [&str; 2] = ["acme", "globex"];
const KEEP: Retention = Retention {
    completed: Duration::from_millis(1_000),
    dead: Duration::from_millis(3_000),
    ids: Duration::from_millis(2_000),
    max_bytes: None,
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
    },
    Redeliver(Index),
    /// The other tenant's event of the same id.
    Shadow(Index),
    Claim {
        lane: usize,
        limit: u32,
        owner: u8,
    },
    Unclaim(Index),
    Settle(Index, Ending),
    SettleLate(Index),
    Heartbeat(Index, u8),
    Reclaim(Option<u8>),
    Drop(Index),
    Resend(Index, bool),
    Write(Index, u32, Option<usize>),
    Forget(Index, u32),
    Wait(u64),
    Retain,
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
        8 => (0..2_usize, any::<[bool; 2]>(), proptest::option::weighted(0.7, 0..2_u8))
            .prop_map(|(tenant, modules, chat)| Step::Record { tenant, modules, chat }),
        1 => index().prop_map(Step::Redeliver),
        1 => index().prop_map(Step::Shadow),
        8 => (0..4_usize, 0..4_u32, 0..2_u8).prop_map(|(lane, limit, owner)| Step::Claim { lane, limit, owner }),
        1 => index().prop_map(Step::Unclaim),
        8 => (index(), ending).prop_map(|(which, ending)| Step::Settle(which, ending)),
        1 => index().prop_map(Step::SettleLate),
        1 => (index(), 0..2_u8).prop_map(|(which, owner)| Step::Heartbeat(which, owner)),
        1 => proptest::option::of(0..2_u8).prop_map(Step::Reclaim),
        2 => index().prop_map(Step::Drop),
        2 => (index(), any::<bool>()).prop_map(|(which, fresh)| Step::Resend(which, fresh)),
        3 => (index(), 0..4_u32, proptest::option::of(prop_oneof![0..20_usize, 8_190..8_200_usize]))
            .prop_map(|(which, number, answer)| Step::Write(which, number, answer)),
        1 => (index(), 0..4_u32).prop_map(|(which, from)| Step::Forget(which, from)),
        3 => (1..1_500_u64).prop_map(Step::Wait),
        1 => Just(Step::Retain),
        1 => Just(Step::Reopen),
    ]
}

/// A delivery as the model sees it.
#[derive(Clone, Debug)]
struct Delivery {
    event: Arc<Event>,
    lane: usize,
    chat: Option<u8>,
    /// Whether it is another's turn in the chat.
    behind: bool,
    state: State,
    attempt: u32,
    earlier: u32,
    due: u64,
    timed: bool,
    lease: Option<(String, u64)>,
    changed: u64,
    calls: BTreeMap<u32, Call>,
}

/// What the journal should be.
#[derive(Default)]
struct Model {
    now: u64,
    /// In the order they were recorded.
    deliveries: Vec<(DeliveryId, Delivery)>,
    /// Every event that is known, by its tenant and its id, and when it was recorded.
    known: HashMap<(String, String), u64>,
    events: Vec<Arc<Event>>,
}

fn owner(number: u8) -> String {
    format!("host-{number}")
}

/// What an event is known by, but for its source, of which there is one.
fn key(event: &Event) -> (String, String) {
    (event.tenant.as_str().to_owned(), event.id.clone())
}

/// The lane of a tenant and a module.
fn lane(tenant: &str, module: &str) -> usize {
    let place = |names: [&str; 2], name| names.iter().position(|known| *known == name).expect("it is one of them");
    place(TENANTS, tenant) * 2 + place(MODULES, module)
}

impl Model {
    fn of(&mut self, id: &DeliveryId) -> &mut Delivery {
        &mut self.deliveries.iter_mut().find(|(known, _)| known == id).expect("the model has it").1
    }

    fn pick(&self, which: &Index) -> Option<DeliveryId> {
        (!self.deliveries.is_empty()).then(|| which.get(&self.deliveries).0.clone())
    }

    /// The places of the deliveries of a chat that have not ended.
    fn unfinished(&self, lane: usize, chat: Option<u8>) -> Vec<usize> {
        let of_chat = |delivery: &Delivery| {
            chat.is_some() && delivery.chat == chat && delivery.lane == lane && !delivery.state.is_final()
        };
        (0..self.deliveries.len()).filter(|place| of_chat(&self.deliveries[*place].1)).collect()
    }

    fn enter(&mut self, id: &DeliveryId, state: State) {
        let now = self.now;
        let it = self.of(id);
        let had_turn = !std::mem::replace(&mut it.behind, false);
        it.state = state;
        it.changed = now;
        it.lease = None;
        let (lane, chat) = (it.lane, it.chat);
        if !state.is_final() {
            self.of(id).behind = !had_turn;
        } else if had_turn && let Some(next) = self.unfinished(lane, chat).first() {
            self.deliveries[*next].1.behind = false;
        }
    }

    fn record(&mut self, event: &Arc<Event>, new: &[NewDelivery], chat: Option<u8>) -> Recorded {
        if self.known.contains_key(&key(event)) {
            return Recorded::Duplicate;
        }
        self.known.insert(key(event), self.now);
        for new in new {
            let lane = lane(event.tenant.as_str(), new.module.as_str());
            let delivery = Delivery {
                event: Arc::clone(event),
                lane,
                chat,
                behind: !self.unfinished(lane, chat).is_empty(),
                state: State::Waiting,
                attempt: 0,
                earlier: 0,
                due: self.now,
                timed: false,
                lease: None,
                changed: self.now,
                calls: BTreeMap::new(),
            };
            self.deliveries.push((new.id.clone(), delivery));
        }
        Recorded::New
    }

    /// The deliveries of a lane that can be claimed, the longest waiting first.
    fn due(&self, lane: usize) -> Vec<DeliveryId> {
        let now = self.now;
        let can =
            |it: &Delivery| it.lane == lane && it.state == State::Waiting && !it.behind && (!it.timed || it.due <= now);
        let mut due: Vec<(u64, usize)> = (0..self.deliveries.len())
            .filter(|place| can(&self.deliveries[*place].1))
            .map(|place| (self.deliveries[place].1.due, place))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, place)| self.deliveries[place].0.clone()).collect()
    }

    fn claim(&mut self, lane: usize, limit: u32, by: u8) -> Vec<(DeliveryId, u32, u32, u32)> {
        let now = self.now;
        let taken: Vec<DeliveryId> = self.due(lane).into_iter().take(limit as usize).collect();
        for id in &taken {
            self.enter(id, State::Running);
            let it = self.of(id);
            it.attempt += 1;
            it.lease = Some((owner(by), now + 500));
        }
        taken
            .into_iter()
            .map(|id| {
                let it = self.of(&id);
                let calls = if it.attempt == 1 { 0 } else { it.calls.len() as u32 };
                (id, it.attempt, it.earlier, calls)
            })
            .collect()
    }

    fn next_due(&self) -> Option<u64> {
        let waiting = self.deliveries.iter().filter(|(_, it)| it.state == State::Waiting && !it.behind);
        waiting.map(|(_, it)| if it.timed { it.due } else { 0 }).min()
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
            self.of(id).timed = false;
        }
        ids.len() as u64
    }

    fn resend(&mut self, id: &DeliveryId, fresh: bool) -> bool {
        let (now, it) = (self.now, self.of(id).clone());
        if !it.state.is_final() {
            return false;
        }
        let busy = !self.unfinished(it.lane, it.chat).is_empty();
        self.enter(id, State::Waiting);
        let it = self.of(id);
        (it.behind, it.earlier, it.due, it.timed) = (busy, it.attempt, now, false);
        if fresh {
            it.calls.clear();
        }
        true
    }

    fn retain(&mut self) {
        let now = self.now;
        self.deliveries.retain(|(_, it)| match it.state {
            State::Completed | State::Dropped => it.changed + 1_000 >= now,
            State::Dead => it.changed + 3_000 >= now,
            State::Waiting | State::Running => true,
        });
        let kept: Vec<(String, String)> = self.deliveries.iter().map(|(_, it)| key(&it.event)).collect();
        self.known.retain(|key, recorded| *recorded + 2_000 >= now || kept.contains(key));
    }
}

struct Run {
    directory: tempfile::TempDir,
    journal: Option<Sqlite>,
    model: Model,
}

impl Run {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let journal = Some(open(directory.path()).await);
        Self { directory, journal, model: Model { now: 10_000, ..Model::default() } }
    }

    fn journal(&self) -> &Sqlite {
        self.journal.as_ref().expect("it is open")
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Record { tenant, modules, chat } => {
                let event = event_of(TENANTS[*tenant], &format!("evt_{}", self.model.events.len()));
                self.model.events.push(Arc::clone(&event));
                self.record(&event, *modules, *chat).await;
            }
            Step::Redeliver(which) if !self.model.events.is_empty() => {
                let event = Arc::clone(which.get(&self.model.events));
                self.record(&event, [true, false], None).await;
            }
            Step::Shadow(which) if !self.model.events.is_empty() => {
                let event = Arc::clone(which.get(&self.model.events));
                let other = if event.tenant.as_str() == TENANTS[0] { TENANTS[1] } else { TENANTS[0] };
                self.record(&event_of(other, &event.id), [true, true], None).await;
            }
            Step::Claim { lane, limit, owner } => self.claim(*lane, *limit, *owner).await,
            Step::Reclaim(gone) => {
                let gone_name = gone.map(owner);
                let reclaimed = self.journal().reclaim(gone_name.as_deref(), at(self.model.now)).await.unwrap();
                assert_eq!(reclaimed, self.model.reclaim(*gone));
            }
            Step::Wait(millis) => self.model.now += millis,
            Step::Retain => {
                while self.journal().retain(KEEP, at(self.model.now), 3).await.unwrap() > 0 {}
                self.model.retain();
            }
            Step::Reopen => {
                if self.model.now.is_multiple_of(2) {
                    self.journal().close().await.unwrap();
                }
                self.journal = None;
                self.journal = Some(open(self.directory.path()).await);
            }
            Step::Settle(which, _) | Step::SettleLate(which) | Step::Heartbeat(which, _) | Step::Unclaim(which) => {
                self.with_running(which, step).await;
            }
            Step::Drop(which) | Step::Resend(which, _) | Step::Write(which, ..) | Step::Forget(which, _) => {
                self.with_any(which, step).await;
            }
            Step::Redeliver(_) | Step::Shadow(_) => {}
        }
    }

    async fn record(&mut self, event: &Arc<Event>, modules: [bool; 2], chat: Option<u8>) {
        let wanted = MODULES.iter().zip(modules).filter(|(_, wanted)| *wanted);
        let new: Vec<NewDelivery> = wanted
            .map(|(module, _)| NewDelivery {
                id: DeliveryId::new(event, &(*module).into()),
                module: (*module).into(),
                one_at_a_time: chat.map(|chat| format!("chat_{chat}")),
            })
            .collect();
        let recorded = self.journal().record(Arc::clone(event), new.clone(), at(self.model.now)).await.unwrap();
        assert_eq!(recorded, self.model.record(event, &new, chat));
    }

    async fn claim(&mut self, lane: usize, limit: u32, by: u8) {
        let now = self.model.now;
        let claim = Claim {
            tenant: TENANTS[lane / 2].into(),
            module: MODULES[lane % 2].into(),
            limit,
            now: at(now),
            owner: owner(by),
            until: at(now + 500),
        };
        let claimed = self.journal().claim(claim).await.unwrap();
        for claimed in &claimed {
            assert_eq!(*claimed.event, *self.model.of(&claimed.id).event);
        }
        let claimed: Vec<_> = claimed.into_iter().map(|it| (it.id, it.attempt, it.earlier, it.calls)).collect();
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
            (it.attempt, it.lease.clone().expect("it runs"))
        };
        let attempt = |number| Attempt {
            number,
            owner: holder.clone(),
            started: at(now),
            ended: at(now),
            version: None,
            outcome: "ended".to_owned(),
            log: Vec::new(),
        };
        match step {
            Step::Settle(_, ending) => {
                let reason = "because".to_owned();
                let (next, state) = match ending {
                    Ending::Completed => (Disposition::Completed, State::Completed),
                    Ending::Retry(after) => {
                        (Disposition::Retry { at: at(now + after), reason: FailureReason::new(reason) }, State::Waiting)
                    }
                    Ending::Dead => (Disposition::Dead { reason: FailureReason::new(reason) }, State::Dead),
                    Ending::Dropped => (Disposition::Dropped { reason }, State::Dropped),
                };
                self.journal().complete_attempt(id.clone(), attempt(number), next).await.unwrap();
                self.model.enter(&id, state);
                if let Ending::Retry(after) = ending {
                    let it = self.model.of(&id);
                    (it.due, it.timed) = (now + after, true);
                }
            }
            Step::SettleLate(_) => {
                let late =
                    self.journal().complete_attempt(id.clone(), attempt(number + 1), Disposition::Completed).await;
                assert!(matches!(late, Err(JournalError::LeaseLost(lost)) if lost == id));
            }
            Step::Heartbeat(_, by) => {
                let lost = self.journal().heartbeat(&owner(*by), vec![id.clone()], at(now + 900)).await.unwrap();
                if owner(*by) == holder {
                    assert!(lost.is_empty());
                    self.model.of(&id).lease = Some((holder, now + 900));
                } else {
                    assert_eq!(lost, [id]);
                }
            }
            Step::Unclaim(_) => {
                let claimed = Claimed {
                    id: id.clone(),
                    module: MODULES[0].into(),
                    event: self.model.of(&id).event.clone(),
                    attempt: number,
                    earlier: 0,
                    received_at: at(0),
                    calls: 0,
                };
                assert!(self.journal().unclaim(&claimed, &holder, at(now)).await.unwrap());
                self.model.enter(&id, State::Waiting);
                let it = self.model.of(&id);
                (it.attempt, it.timed) = (number - 1, false);
            }
            _ => unreachable!("only these four"),
        }
    }

    async fn with_any(&mut self, which: &Index, step: &Step) {
        let Some(id) = self.model.pick(which) else { return };
        let now = at(self.model.now);
        match step {
            Step::Drop(_) => {
                let waits = self.model.of(&id).state == State::Waiting;
                assert_eq!(self.journal().drop_waiting(&id, "not needed", now).await.unwrap(), waits);
                if waits {
                    self.model.enter(&id, State::Dropped);
                }
            }
            Step::Resend(_, fresh) => {
                let sent = self.journal().resend(&id, *fresh, now).await.unwrap();
                assert_eq!(sent, self.model.resend(&id, *fresh));
            }
            Step::Write(_, number, answer) => {
                let call = Call {
                    number: *number,
                    import: "search.search".into(),
                    arguments: vec![9; 32],
                    answer: answer.map(|length| vec![length as u8; length]),
                    at: now,
                };
                self.journal().write(&id, call.clone()).unwrap().on_disk().await.unwrap();
                self.model.of(&id).calls.insert(*number, call);
            }
            Step::Forget(_, from) => {
                self.journal().forget(&id, *from).unwrap().on_disk().await.unwrap();
                self.model.of(&id).calls.retain(|number, _| number < from);
            }
            _ => unreachable!("only these four"),
        }
    }

    /// Holds all the journal says against the model.
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
            let expected = Backlog { host: count(None), tenant: count(Some(tenant)) };
            assert_eq!(self.journal().backlog(&tenant.into()), expected);
        }
        let due = self.journal().due(at(self.model.now), 1000).await.unwrap();
        for (place, found) in
            (0..4).map(|place| (place, due.iter().find(|it| lane(it.tenant.as_str(), it.module.as_str()) == place)))
        {
            let sorted = |mut ids: Vec<DeliveryId>| {
                ids.sort();
                ids
            };
            let found = found.map(|it| it.deliveries.clone()).unwrap_or_default();
            assert_eq!(sorted(found), sorted(self.model.due(place)));
        }
        let due = self.journal().next_due().await.unwrap();
        let expected = self.model.next_due().map(|due| if due == 0 { std::time::UNIX_EPOCH } else { at(due) });
        assert_eq!(due, expected);
    }

    async fn compare_calls(&mut self) {
        for (id, it) in &self.model.deliveries {
            let calls = self.journal().calls(id).await.unwrap();
            assert_eq!(calls, it.calls.values().cloned().collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_says_what_the_model_says(steps in proptest::collection::vec(step(), 1..100)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in &steps {
                run.take(step).await;
                run.compare().await;
            }
            run.compare_calls().await;
        });
    }
}
