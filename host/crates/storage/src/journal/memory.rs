//! The in-memory journal: for hosts without persistence, and for tests that control the clock.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::usage::{
    DELIVERY_BYTES, Part, PartBytes, Usage, attempt_bytes, call_bytes, event_bytes, id_bytes, recorded_bytes,
};
use super::{
    Attempt, AttemptReport, Backlog, Call, Change, Claim, Claimed, CommitHandle, Details, Disposition, Due, Filter,
    Heartbeat, Journal, JournalError, Lane, Lease, NewDelivery, NewLease, Recorded, Result, Retention, State, Summary,
    TenantUsage, Totals,
};
use crate::cluster::{self, Cluster, HostInfo, HostStatus, Members};
use crate::error::StorageError;
use modhost_core::clock::{Clock, from_millis, to_millis, to_millis_rounded_up, whole_millis};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::sync::lock;

/// The name of the store, as used in messages.
const STORE: &str = "journal";

/// How often the hosts of a shared journal look for the deliveries of others.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// A journal in memory. Its contents are lost when it is dropped.
///
/// Every operation takes effect at once and in the order of the calls: with a
/// [`ManualClock`](modhost_core::clock::ManualClock) it is deterministic.
pub struct Memory {
    clock: Arc<dyn Clock>,
    salt: [u8; 32],
    is_shared: bool,
    /// `None` once the journal is closed.
    tables: Mutex<Option<Tables>>,
}

impl Memory {
    /// Creates an empty journal. [`Journal::salt`] returns `salt`, which must be secret outside of tests.
    pub fn new(clock: Arc<dyn Clock>, salt: [u8; 32]) -> Self {
        Self { clock, salt, is_shared: false, tables: Mutex::new(Some(Tables::default())) }
    }

    /// Creates an empty journal that several hosts of one process share, as they share a database: for tests of what
    /// hosts do together.
    pub fn shared(clock: Arc<dyn Clock>, salt: [u8; 32]) -> Self {
        Self { is_shared: true, ..Self::new(clock, salt) }
    }

    /// Returns the current time, in milliseconds since 1970.
    fn now(&self) -> i64 {
        to_millis(self.clock.now())
    }

    /// Runs an operation on the tables, unless the journal is closed.
    fn with<T>(&self, operation: impl FnOnce(&mut Tables) -> Result<T>) -> Result<T> {
        // A poisoned lock can be used: no operation panics halfway through a change.
        let mut tables = lock(&self.tables);
        operation(tables.as_mut().ok_or_else(|| StorageError::closed(STORE))?)
    }

    fn with_members<T>(&self, operation: impl FnOnce(&mut Members, SystemTime) -> T) -> cluster::Result<T> {
        let now = self.clock.now();
        let mut tables = lock(&self.tables);
        let tables = tables.as_mut().ok_or_else(|| StorageError::closed(STORE))?;
        Ok(operation(&mut tables.members, now))
    }
}

#[async_trait]
impl Journal for Memory {
    async fn record(&self, event: Arc<Event>, deliveries: Vec<NewDelivery>) -> Result<Recorded> {
        let now = self.now();
        self.with(|tables| tables.record(&event, deliveries, now))
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        self.with(|tables| Ok(tables.lanes()))
    }

    fn backlog(&self, tenant: &Name) -> Backlog {
        self.with(|tables| Ok(tables.backlog(tenant))).unwrap_or_default()
    }

    async fn due(&self, limit: u32) -> Result<Vec<Due>> {
        let now = self.now();
        self.with(|tables| Ok(tables.due(limit, now)))
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        let now = self.now();
        self.with(|tables| Ok(tables.claim(&claim, now)))
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        let now = self.now();
        self.with(|tables| Ok(tables.next_due(now)))
    }

    async fn heartbeat(&self, owner: &str, running: Vec<Lease>, lease: Duration) -> Result<Heartbeat> {
        let until = self.now().saturating_add(whole_millis(lease));
        self.with(|tables| Ok(tables.heartbeat(owner, running, until)))
    }

    async fn reclaim(&self, gone: Option<&str>) -> Result<u64> {
        let now = self.now();
        self.with(|tables| Ok(tables.reclaim(gone, now)))
    }

    async fn unclaim(&self, lease: &Lease) -> Result<bool> {
        let now = self.now();
        self.with(|tables| Ok(tables.unclaim(lease, now)))
    }

    async fn complete_attempt(&self, lease: &Lease, report: AttemptReport, next: Disposition) -> Result<bool> {
        let now = self.clock.now();
        self.with(|tables| tables.complete_attempt(lease, report, next, now))
    }

    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>> {
        self.with(|tables| Ok(tables.row(delivery).map(Row::all_calls).unwrap_or_default()))
    }

    fn write(&self, lease: &Lease, call: Call) -> Result<CommitHandle> {
        self.with(|tables| Ok(CommitHandle::done(tables.write(lease, call))))
    }

    fn forget(&self, lease: &Lease, from: u32) -> Result<CommitHandle> {
        self.with(|tables| Ok(CommitHandle::done(tables.forget(lease, from))))
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        self.with(|tables| Ok(tables.list(&filter)))
    }

    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        self.with(|tables| Ok(tables.row(delivery).map(Row::details)))
    }

    async fn resend(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool> {
        let now = self.now();
        self.with(|tables| Ok(tables.resend(delivery, fresh, now)))
    }

    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str) -> Result<bool> {
        let now = self.now();
        self.with(|tables| Ok(tables.drop_waiting(delivery, reason, now)))
    }

    fn usage(&self) -> Vec<TenantUsage> {
        self.with(|tables| Ok(tables.usage.report())).unwrap_or_default()
    }

    async fn totals(&self) -> Result<Totals> {
        self.with(|tables| Ok(tables.totals()))
    }

    fn health(&self) -> Result<()> {
        self.with(|_| Ok(()))
    }

    async fn probe(&self) -> Result<()> {
        self.health()
    }

    fn salt(&self) -> [u8; 32] {
        self.salt
    }

    async fn purge(&self, keep: Retention, batch: u32) -> Result<u64> {
        let now = self.now();
        self.with(|tables| Ok(tables.purge(&keep, now, batch)))
    }

    async fn close(&self) -> Result<()> {
        self.with(|_| Ok(()))?;
        *lock(&self.tables) = None;
        Ok(())
    }
}

#[async_trait]
impl Cluster for Memory {
    async fn join(&self, host: &HostInfo, lease: Duration) -> cluster::Result<Vec<Arc<str>>> {
        self.with_members(|members, now| members.join(host, now, lease))
    }

    async fn beat(&self, owner: &str, lease: Duration) -> cluster::Result<bool> {
        self.with_members(|members, now| members.beat(owner, now, lease))
    }

    async fn leave(&self, owner: &str) -> cluster::Result<()> {
        self.with_members(|members, _| members.leave(owner))
    }

    async fn hosts(&self) -> cluster::Result<Vec<HostStatus>> {
        self.with_members(|members, now| members.list(now))
    }

    async fn hold_duty(&self, duty: &str, owner: &str, lease: Duration) -> cluster::Result<bool> {
        self.with_members(|members, now| members.hold_duty(duty, owner, now, lease))
    }

    fn poll_every(&self) -> Option<Duration> {
        self.is_shared.then_some(POLL_EVERY)
    }
}

/// A tenant and a module.
type LaneKey = (Name, Name);

/// The source, tenant and id of an event.
type EventKey = (Name, Name, String);

/// A time in milliseconds since 1970, and the sequence number of a delivery in the order of arrival.
type Position = (i64, u64);

/// A delivery. Times are in milliseconds since 1970.
struct Row {
    id: DeliveryId,
    event: Arc<Event>,
    received_at: i64,
    lane: LaneKey,
    /// The chat, if deliveries of the chat run one at a time.
    chat: Option<String>,
    /// Whether an unfinished delivery of the chat comes before it.
    blocked: bool,
    state: State,
    /// The number of attempts that began.
    attempt: u32,
    /// The number of attempts before the delivery was last resent.
    earlier_attempts: u32,
    /// The due time, which also determines the position in the queue.
    due_at: i64,
    /// Whether the delivery must not run before `due_at`.
    has_due_time: bool,
    /// The owner and the end of the lease, while the delivery is running.
    lease: Option<(Arc<str>, i64)>,
    version: Option<String>,
    reason: Option<String>,
    changed_at: i64,
    changes: Vec<Change>,
    attempts: Vec<Attempt>,
    /// The size of the attempts in bytes.
    attempt_bytes: u64,
    calls: BTreeMap<u32, Call>,
}

impl Row {
    fn is_held(&self, lease: &Lease) -> bool {
        let owner = self.lease.as_ref().map(|(owner, _)| owner);
        self.state == State::Running && self.attempt == lease.attempt && owner == Some(&lease.owner)
    }

    /// Returns the number of attempts since the delivery was last sent, without the current one, that were never
    /// completed.
    fn interrupted(&self) -> u32 {
        let completed = self.attempts.iter().filter(|attempt| attempt.number > self.earlier_attempts).count();
        let before = self.attempt.saturating_sub(self.earlier_attempts + 1);
        before.saturating_sub(u32::try_from(completed).unwrap_or(u32::MAX))
    }

    fn all_calls(&self) -> Vec<Call> {
        self.calls.values().cloned().collect()
    }

    /// Returns the part of the journal that the delivery belongs to.
    fn part(&self) -> Part {
        Part::of_delivery(self.state.is_final())
    }

    /// Returns the size of the delivery without its event, in bytes.
    fn bytes(&self) -> u64 {
        DELIVERY_BYTES + self.calls.values().map(call_bytes).sum::<u64>() + self.attempt_bytes
    }

    fn summary(&self) -> Summary {
        Summary {
            id: self.id.clone(),
            event_id: self.event.id.clone(),
            event_name: self.event.name.clone(),
            source: self.event.source.clone(),
            tenant: self.lane.0.clone(),
            module: self.lane.1.clone(),
            state: self.state,
            reason: self.reason.clone(),
            attempts: self.attempt,
            version: self.version.clone(),
            received_at: from_millis(self.received_at),
            changed_at: from_millis(self.changed_at),
            due_at: (self.state == State::Waiting).then(|| from_millis(self.due_at)),
        }
    }

    fn details(&self) -> Details {
        let recorded = Change { at: from_millis(self.received_at), state: State::Waiting, reason: None };
        Details {
            summary: self.summary(),
            event: self.event.clone(),
            changes: std::iter::once(recorded).chain(self.changes.iter().cloned()).collect(),
            attempts: self.attempts.clone(),
            calls: self.all_calls(),
        }
    }
}

/// The deliveries of a lane, by state and due time.
#[derive(Default)]
struct LaneIndex {
    states: [u64; State::ALL.len()],
    /// Waiting deliveries that are due at once.
    ready: BTreeSet<Position>,
    /// Waiting deliveries that are due at their `due_at`.
    timed: BTreeSet<Position>,
}

impl LaneIndex {
    fn unfinished(&self) -> u64 {
        self.states[State::Waiting as usize] + self.states[State::Running as usize]
    }

    /// Returns the due deliveries, longest waiting first.
    fn due(&self, now: i64, limit: u32) -> Vec<u64> {
        let timed = self.timed.iter().take_while(|(due_at, _)| *due_at <= now).take(limit as usize);
        let mut due: Vec<Position> = self.ready.iter().take(limit as usize).chain(timed).copied().collect();
        due.sort_unstable();
        due.into_iter().map(|(_, seq)| seq).take(limit as usize).collect()
    }
}

/// A recorded event whose id is kept.
struct KnownEvent {
    recorded_at: i64,
    /// The number of its deliveries that are not removed.
    deliveries: usize,
    /// The number of those that are unfinished.
    unfinished: usize,
    /// The size of the event.
    bytes: u64,
}

#[derive(Default)]
struct Tables {
    next_seq: u64,
    /// The deliveries by sequence number, that is, in the order of arrival.
    rows: BTreeMap<u64, Row>,
    seqs: HashMap<DeliveryId, u64>,
    lanes: BTreeMap<LaneKey, LaneIndex>,
    /// The unfinished deliveries of each chat with deliveries that run one at a time.
    chats: HashMap<(LaneKey, String), BTreeSet<u64>>,
    running: BTreeSet<u64>,
    /// The deliveries in each final state, by the time they ended.
    ended: [BTreeSet<Position>; State::ALL.len()],
    /// The same for each tenant.
    ended_of: HashMap<Name, [BTreeSet<Position>; State::ALL.len()]>,
    known: HashMap<EventKey, KnownEvent>,
    /// Known events without deliveries, by the time they were recorded.
    idle: BTreeSet<(i64, EventKey)>,
    usage: Usage,
    members: Members,
}

impl Tables {
    fn row(&self, delivery: &DeliveryId) -> Option<&Row> {
        self.rows.get(self.seqs.get(delivery)?)
    }

    /// Returns the sequence number of a delivery, if its row satisfies a condition.
    fn find(&self, delivery: &DeliveryId, condition: impl FnOnce(&Row) -> bool) -> Option<u64> {
        let seq = *self.seqs.get(delivery)?;
        self.rows.get(&seq).is_some_and(condition).then_some(seq)
    }

    fn leased_seq(&self, lease: &Lease) -> Result<u64> {
        let held = self.find(&lease.delivery, |row| row.is_held(lease));
        held.ok_or_else(|| JournalError::LeaseLost(lease.delivery.clone()))
    }

    /// Adds a row to the indexes.
    fn index(&mut self, seq: u64) {
        let Some(row) = self.rows.get(&seq) else { return };
        let lane = self.lanes.entry(row.lane.clone()).or_default();
        lane.states[row.state as usize] += 1;
        match row.state {
            State::Waiting if row.blocked => {}
            State::Waiting if row.has_due_time => drop(lane.timed.insert((row.due_at, seq))),
            State::Waiting => drop(lane.ready.insert((row.due_at, seq))),
            State::Running => drop(self.running.insert(seq)),
            ended => {
                self.ended[ended as usize].insert((row.changed_at, seq));
                self.ended_of.entry(row.lane.0.clone()).or_default()[ended as usize].insert((row.changed_at, seq));
            }
        }
        if let Some(chat) = row.chat.as_ref().filter(|_| !row.state.is_final()) {
            self.chats.entry((row.lane.clone(), chat.clone())).or_default().insert(seq);
        }
    }

    /// Removes a row from the indexes.
    fn unindex(&mut self, seq: u64) {
        let Some(row) = self.rows.get(&seq) else { return };
        if let Some(lane) = self.lanes.get_mut(&row.lane) {
            lane.states[row.state as usize] -= 1;
            lane.ready.remove(&(row.due_at, seq));
            lane.timed.remove(&(row.due_at, seq));
        }
        self.running.remove(&seq);
        self.ended[row.state as usize].remove(&(row.changed_at, seq));
        if let Some(ended) = self.ended_of.get_mut(&row.lane.0) {
            ended[row.state as usize].remove(&(row.changed_at, seq));
        }
        if let Some(chat) = &row.chat {
            let chat = (row.lane.clone(), chat.clone());
            if let Some(seqs) = self.chats.get_mut(&chat) {
                seqs.remove(&seq);
                if seqs.is_empty() {
                    self.chats.remove(&chat);
                }
            }
        }
    }

    /// Changes a row and updates the indexes.
    fn update<T>(&mut self, seq: u64, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        self.unindex(seq);
        let changed = self.rows.get_mut(&seq).map(change);
        self.index(seq);
        changed
    }

    /// Moves a delivery to a state. When the first delivery of a chat ends, the next one becomes claimable. Returns whether
    /// there is one.
    fn transition(
        &mut self,
        seq: u64,
        state: State,
        now: i64,
        reason: Option<&str>,
        change: impl FnOnce(&mut Row),
    ) -> bool {
        let Some(before) = self.rows.get(&seq).map(|row| row.state) else { return false };
        let moved = self.update(seq, |row| {
            change(row);
            let was_first = !row.blocked;
            row.state = state;
            if state != State::Running {
                row.lease = None;
            }
            if state.is_final() {
                row.blocked = false;
            }
            row.reason = reason.map(str::to_owned);
            row.changed_at = now;
            row.changes.push(Change { at: from_millis(now), state, reason: row.reason.clone() });
            (was_first && state.is_final()).then(|| row.lane.clone()).zip(row.chat.clone())
        });
        if before.is_final() != state.is_final() {
            self.move_usage(seq);
        }
        let next = moved.flatten().and_then(|chat| self.chats.get(&chat)?.first().copied());
        next.is_some_and(|next| self.update(next, |row| row.blocked = false).is_some())
    }

    fn add_usage(&mut self, tenant: &Name, part: Part, bytes: i64) {
        let mut change = PartBytes::default();
        change.add(part, bytes);
        self.usage.add(tenant, change);
    }

    /// Moves the bytes of a delivery that has just ended or was queued again, and of its event if no other delivery of
    /// the event is unfinished.
    fn move_usage(&mut self, seq: u64) {
        let Some(row) = self.rows.get(&seq) else { return };
        let (tenant, to, mut bytes) = (row.lane.0.clone(), row.part(), row.bytes());
        if let Some(event) = self.known.get_mut(&key_of(&row.event)) {
            let others = event.unfinished - usize::from(to == Part::Ended);
            event.unfinished = others + usize::from(to == Part::Unfinished);
            bytes += if others == 0 { event.bytes } else { 0 };
        }
        let from = if to == Part::Ended { Part::Unfinished } else { Part::Ended };
        self.add_usage(&tenant, from, -bytes.cast_signed());
        self.add_usage(&tenant, to, bytes.cast_signed());
    }

    fn chat_is_busy(&self, lane: &LaneKey, chat: Option<&String>) -> bool {
        chat.is_some_and(|chat| self.chats.contains_key(&(lane.clone(), chat.clone())))
    }

    fn record(&mut self, event: &Arc<Event>, deliveries: Vec<NewDelivery>, now: i64) -> Result<Recorded> {
        let key = key_of(event);
        if self.known.contains_key(&key) {
            return Ok(Recorded::Duplicate);
        }
        let mut new = HashSet::new();
        if let Some(duplicate) = deliveries.iter().find(|it| self.seqs.contains_key(&it.id) || !new.insert(&it.id)) {
            return Err(StorageError::broken(STORE, format!("delivery {} is recorded already", duplicate.id)).into());
        }
        if deliveries.is_empty() {
            self.idle.insert((now, key.clone()));
        }
        let (count, bytes) = (deliveries.len(), event_bytes(event.raw().len()));
        self.known.insert(key, KnownEvent { recorded_at: now, deliveries: count, unfinished: count, bytes });
        self.add_usage(&event.tenant, Part::Ids, id_bytes(&event.id).cast_signed());
        if count > 0 {
            self.add_usage(&event.tenant, Part::Unfinished, recorded_bytes(event, count).cast_signed());
        }
        let mut leases = Vec::new();
        for NewDelivery { id, module, ordered_chat: chat, lease: wanted } in deliveries {
            let lane = (event.tenant.clone(), module);
            let blocked = self.chat_is_busy(&lane, chat.as_ref());
            let row = Row {
                blocked,
                id: id.clone(),
                event: event.clone(),
                received_at: now,
                lane,
                chat,
                state: State::Waiting,
                attempt: 0,
                earlier_attempts: 0,
                due_at: now,
                has_due_time: false,
                lease: None,
                version: None,
                reason: None,
                changed_at: now,
                changes: Vec::new(),
                attempts: Vec::new(),
                attempt_bytes: 0,
                calls: BTreeMap::new(),
            };
            let seq = self.next_seq;
            self.next_seq += 1;
            self.seqs.insert(id, seq);
            self.rows.insert(seq, row);
            self.index(seq);
            let wanted = wanted.filter(|wanted| !blocked && !self.members.is_gone(&wanted.owner));
            if let Some(NewLease { owner, duration }) = wanted {
                let until = now.saturating_add(whole_millis(duration));
                self.lease(seq, &owner, until, now);
                leases.extend(self.rows.get(&seq).map(|row| lease(row, owner)));
            }
        }
        Ok(Recorded::New { at: from_millis(now), leases })
    }

    fn lanes(&self) -> Vec<Lane> {
        let lanes = self.lanes.iter().map(|((tenant, module), lane)| Lane {
            tenant: tenant.clone(),
            module: module.clone(),
            waiting: lane.states[State::Waiting as usize],
        });
        lanes.filter(|lane| lane.waiting > 0).collect()
    }

    fn backlog(&self, tenant: &Name) -> Backlog {
        let of_tenant = self.lanes.iter().filter(|((name, _), _)| name == tenant);
        Backlog {
            host: self.lanes.values().map(LaneIndex::unfinished).sum(),
            tenant: of_tenant.map(|(_, lane)| lane.unfinished()).sum(),
            host_bytes: self.usage.all().unfinished(),
            tenant_bytes: self.usage.of(tenant).unfinished(),
        }
    }

    fn due(&self, limit: u32, now: i64) -> Vec<Due> {
        let id = |seq: &u64| self.rows.get(seq).map(|row| row.id.clone());
        let lanes = self.lanes.iter().filter_map(|((tenant, module), lane)| {
            let due = lane.due(now, limit);
            let first = self.rows.get(due.first()?)?;
            Some(Due {
                tenant: tenant.clone(),
                module: module.clone(),
                deliveries: due.iter().filter_map(id).collect(),
                since: from_millis(first.due_at),
            })
        });
        lanes.collect()
    }

    fn claim(&mut self, claim: &Claim, now: i64) -> Vec<Claimed> {
        let lane = (claim.tenant.clone(), claim.module.clone());
        let lane = self.lanes.get(&lane).filter(|_| !self.members.is_gone(&claim.owner));
        let due = lane.map(|lane| lane.due(now, claim.limit)).unwrap_or_default();
        let until = now.saturating_add(whole_millis(claim.lease));
        for seq in &due {
            self.lease(*seq, &claim.owner, until, now);
        }
        let claimed = due.iter().filter_map(|seq| self.rows.get(seq)).map(|row| Claimed {
            lease: lease(row, claim.owner.clone()),
            module: claim.module.clone(),
            event: row.event.clone(),
            earlier_attempts: row.earlier_attempts,
            received_at: from_millis(row.received_at),
            // A delivery has no calls before its first attempt.
            calls: if row.attempt > 1 { u32::try_from(row.calls.len()).unwrap_or(u32::MAX) } else { 0 },
            interrupted: row.interrupted(),
        });
        claimed.collect()
    }

    /// Leases a waiting delivery for its next attempt.
    fn lease(&mut self, seq: u64, owner: &Arc<str>, until: i64, now: i64) {
        self.transition(seq, State::Running, now, None, |row| {
            row.attempt += 1;
            row.lease = Some((owner.clone(), until));
        });
    }

    fn next_due(&self, now: i64) -> Option<Duration> {
        let next = self.lanes.values().filter_map(|lane| {
            let timed = lane.timed.first().map(|(due_at, _)| due_at.saturating_sub(now).max(0).unsigned_abs());
            if lane.ready.is_empty() { timed } else { Some(0) }
        });
        next.min().map(Duration::from_millis)
    }

    fn heartbeat(&mut self, owner: &str, running: Vec<Lease>, until: i64) -> Heartbeat {
        let mut heartbeat = Heartbeat::default();
        let mut named = HashSet::new();
        for lease in running {
            let held = self.leased_seq(&lease).ok().filter(|_| *lease.owner == *owner);
            let row = held.and_then(|seq| self.rows.get_mut(&seq));
            match row.and_then(|row| row.lease.as_mut()) {
                Some(held) => held.1 = until,
                None => heartbeat.lost.push(lease.clone()),
            }
            named.insert(lease);
        }
        let held = self.running.iter().filter_map(|seq| self.rows.get(seq)).filter_map(|row| {
            let (holder, _) = row.lease.as_ref().filter(|(holder, _)| **holder == *owner)?;
            Some(lease(row, holder.clone()))
        });
        heartbeat.unknown = held.filter(|lease| !named.contains(lease)).collect();
        heartbeat
    }

    fn reclaim(&mut self, gone: Option<&str>, now: i64) -> u64 {
        self.members.expire(from_millis(now));
        let lost = self.running.iter().filter_map(|seq| {
            let (owner, until) = self.rows.get(seq)?.lease.as_ref()?;
            if *until <= now {
                return Some((*seq, "its host did not prolong its lease"));
            }
            let is_gone = gone == Some(owner) || self.members.is_gone(owner);
            is_gone.then_some((*seq, "its host stopped while it ran"))
        });
        let lost: Vec<(u64, &str)> = lost.collect();
        for (seq, reason) in &lost {
            self.transition(*seq, State::Waiting, now, Some(reason), |row| row.has_due_time = false);
        }
        lost.len() as u64
    }

    fn unclaim(&mut self, lease: &Lease, now: i64) -> bool {
        let Ok(seq) = self.leased_seq(lease) else { return false };
        self.transition(seq, State::Waiting, now, Some("no version of its module serves"), |row| {
            row.attempt = row.attempt.saturating_sub(1);
            row.has_due_time = false;
        });
        true
    }

    fn complete_attempt(
        &mut self,
        lease: &Lease,
        report: AttemptReport,
        next: Disposition,
        now: SystemTime,
    ) -> Result<bool> {
        let seq = self.leased_seq(lease)?;
        let log = serde_json::to_string(&report.log).map_err(|error| StorageError::broken(STORE, error.to_string()))?;
        let bytes = attempt_bytes(&report.outcome, &log);
        let (state, reason, after) = match next {
            Disposition::Completed => (State::Completed, None, None),
            Disposition::Retry { after, reason } => (State::Waiting, Some(reason.to_string()), Some(after)),
            Disposition::Dead { reason } => (State::Dead, Some(reason.to_string()), None),
            Disposition::Dropped { reason } => (State::Dropped, Some(reason), None),
        };
        let attempt = Attempt {
            number: lease.attempt,
            owner: lease.owner.to_string(),
            started: from_millis(to_millis(now.checked_sub(report.took).unwrap_or(now))),
            ended: from_millis(to_millis(now)),
            version: report.version.clone(),
            outcome: report.outcome,
            log: report.log,
        };
        self.add_usage(&lease.tenant, Part::Unfinished, bytes.cast_signed());
        let released = self.transition(seq, state, to_millis(now), reason.as_deref(), |row| {
            row.attempts.push(attempt);
            row.attempt_bytes += bytes;
            row.version = report.version;
            if let Some(after) = after {
                row.due_at = to_millis_rounded_up(now.checked_add(after).unwrap_or(now));
                row.has_due_time = true;
            }
        });
        Ok(released)
    }

    fn write(&mut self, lease: &Lease, call: Call) -> Result<()> {
        let seq = self.leased_seq(lease)?;
        let Some(row) = self.rows.get_mut(&seq) else { return Ok(()) };
        let (tenant, added) = (row.lane.0.clone(), call_bytes(&call).cast_signed());
        let replaced = row.calls.insert(call.number, call).as_ref().map_or(0, call_bytes).cast_signed();
        self.add_usage(&tenant, Part::Unfinished, added - replaced);
        Ok(())
    }

    fn forget(&mut self, lease: &Lease, from: u32) -> Result<()> {
        let seq = self.leased_seq(lease)?;
        self.forget_calls(seq, from);
        Ok(())
    }

    fn forget_calls(&mut self, seq: u64, from: u32) {
        let Some(row) = self.rows.get_mut(&seq) else { return };
        let forgotten = row.calls.split_off(&from).values().map(call_bytes).sum::<u64>();
        let (tenant, part) = (row.lane.0.clone(), row.part());
        self.add_usage(&tenant, part, -forgotten.cast_signed());
    }

    fn list(&self, filter: &Filter) -> Vec<Summary> {
        let since = filter.since.map(to_millis);
        let wanted = |row: &&Row| {
            filter.state.is_none_or(|state| row.state == state)
                && filter.tenant.as_ref().is_none_or(|tenant| row.lane.0 == *tenant)
                && filter.module.as_ref().is_none_or(|module| row.lane.1 == *module)
                && filter.event.as_ref().is_none_or(|event| row.event.id == *event)
                && since.is_none_or(|since| row.changed_at.max(row.received_at) >= since)
        };
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        self.rows.values().rev().filter(wanted).take(limit).map(Row::summary).collect()
    }

    fn resend(&mut self, delivery: &DeliveryId, fresh: bool, now: i64) -> bool {
        let Some(seq) = self.find(delivery, |row| row.state.is_final()) else { return false };
        if fresh {
            self.forget_calls(seq, 0);
        }
        let busy = self.rows.get(&seq).is_some_and(|row| self.chat_is_busy(&row.lane, row.chat.as_ref()));
        let reason = if fresh { "sent again, from the beginning" } else { "sent again" };
        self.transition(seq, State::Waiting, now, Some(reason), |row| {
            row.blocked = busy;
            row.earlier_attempts = row.attempt;
            row.due_at = now;
            row.has_due_time = false;
        });
        true
    }

    fn drop_waiting(&mut self, delivery: &DeliveryId, reason: &str, now: i64) -> bool {
        let Some(seq) = self.find(delivery, |row| row.state == State::Waiting) else { return false };
        self.transition(seq, State::Dropped, now, Some(reason), |_| {});
        true
    }

    fn totals(&self) -> Totals {
        let mut deliveries = [0; State::ALL.len()];
        for lane in self.lanes.values() {
            for (total, count) in deliveries.iter_mut().zip(lane.states) {
                *total += count;
            }
        }
        Totals { deliveries, bytes: self.bytes() }
    }

    /// Returns the size of the journal in bytes.
    fn bytes(&self) -> u64 {
        self.usage.all().total().max(0).unsigned_abs()
    }

    fn purge(&mut self, keep: &Retention, now: i64, batch: u32) -> u64 {
        let (mut removed, batch) = (0, u64::from(batch));
        for seq in self.too_old(keep, now) {
            if removed >= batch {
                return removed;
            }
            self.remove(seq);
            removed += 1;
        }
        let ids_before = now.saturating_sub(whole_millis(keep.ids));
        removed += self.forget_old_ids(ids_before, batch - removed);
        while removed < batch && self.free_space(keep) {
            removed += 1;
            removed += self.forget_old_ids(ids_before, u64::from(removed < batch));
        }
        removed
    }

    /// Removes up to `limit` ids that were recorded before a time and whose deliveries are removed. Returns their number.
    fn forget_old_ids(&mut self, before: i64, limit: u64) -> u64 {
        let mut removed = 0;
        while removed < limit && self.idle.first().is_some_and(|(recorded_at, _)| *recorded_at < before) {
            if let Some((_, key)) = self.idle.pop_first() {
                self.forget_id(&key);
            }
            removed += 1;
        }
        removed
    }

    /// Returns the deliveries that are old enough to be removed, in the order they ended.
    fn too_old(&self, keep: &Retention, now: i64) -> Vec<u64> {
        let mut too_old: Vec<Position> = Vec::new();
        for (state, kept) in
            [(State::Completed, keep.completed), (State::Dropped, keep.completed), (State::Dead, keep.dead)]
        {
            let before = now.saturating_sub(whole_millis(kept));
            too_old.extend(self.ended[state as usize].iter().take_while(|(at, _)| *at < before));
        }
        too_old.sort_unstable();
        too_old.into_iter().map(|(_, seq)| seq).collect()
    }

    /// Removes a record of a tenant that is above its limit, or, if the journal is too large, of the tenant that uses
    /// most. Returns whether it removed one.
    fn free_space(&mut self, keep: &Retention) -> bool {
        let is_too_large = keep.max_bytes.is_some_and(|max| self.bytes() > max);
        match self.usage.next_to_remove(&keep.tenant_limits, keep.max_bytes, is_too_large) {
            Some((tenant, Part::Ids)) => {
                let Some(oldest) = self.idle.iter().find(|(_, (_, owner, _))| *owner == tenant).cloned() else {
                    return false;
                };
                self.idle.remove(&oldest);
                self.forget_id(&oldest.1);
                true
            }
            Some((tenant, _)) => {
                let oldest = self.oldest_ended(&tenant);
                oldest.inspect(|seq| self.remove(*seq)).is_some()
            }
            None => false,
        }
    }

    /// Returns the tenant's delivery that ended first: a completed or dropped one if there is any, because a dead one may
    /// be sent again.
    fn oldest_ended(&self, tenant: &Name) -> Option<u64> {
        let ended = self.ended_of.get(tenant)?;
        let oldest = |states: &[State]| states.iter().filter_map(|state| ended[*state as usize].first()).min().copied();
        let first = oldest(&[State::Completed, State::Dropped]).or_else(|| oldest(&[State::Dead]));
        first.map(|(_, seq)| seq)
    }

    fn forget_id(&mut self, key: &EventKey) {
        if self.known.remove(key).is_some() {
            self.add_usage(&key.1, Part::Ids, -id_bytes(&key.2).cast_signed());
        }
    }

    /// Removes an ended delivery, and its event if it has no other delivery.
    fn remove(&mut self, seq: u64) {
        self.unindex(seq);
        let Some(row) = self.rows.remove(&seq) else { return };
        self.seqs.remove(&row.id);
        let (key, mut bytes) = (key_of(&row.event), row.bytes());
        if let Some(event) = self.known.get_mut(&key) {
            event.deliveries -= 1;
            if event.deliveries == 0 {
                bytes += event.bytes;
                self.idle.insert((event.recorded_at, key));
            }
        }
        self.add_usage(&row.lane.0, Part::Ended, -bytes.cast_signed());
    }
}

/// Returns the lease of a delivery.
fn lease(row: &Row, owner: Arc<str>) -> Lease {
    Lease { delivery: row.id.clone(), tenant: row.lane.0.clone(), owner, attempt: row.attempt }
}

fn key_of(event: &Event) -> EventKey {
    (event.source.clone(), event.tenant.clone(), event.id.clone())
}
