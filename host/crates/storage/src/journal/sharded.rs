//! Journals in several databases, each with the deliveries of some tenants.
//!
//! Every operation that names a tenant or a lease goes to one of them. Lists and sums ask all. If a database is away, the
//! tenants of the others are not affected: its lanes are not seen, and the leases of its deliveries count as lost before
//! they could expire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;

use super::{
    AttemptReport, Backlog, Call, Claim, Claimed, CommitHandle, Details, Disposition, Due, Filter, Heartbeat, Journal,
    JournalError, Lane, Lease, NewDelivery, Recorded, Result, Retention, Summary, TenantUsage, Totals,
};
use crate::shards::Shards;
use modhost_core::clock::{Clock, timeout};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::sync::lock;

/// How long a heartbeat waits for one of the databases, so that one that hangs doesn't end the lease of the host.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(4);

/// The part of a lease after which the deliveries of a database that confirms no heartbeat count as lost: with the time of
/// one more heartbeat and its timeout, that is before the lease ends.
const LOST_AFTER: f64 = 0.5;

/// Journals by tenant.
pub struct Sharded {
    shards: Shards<dyn Journal>,
    clock: Arc<dyn Clock>,
    /// For each journal, when its last confirmed heartbeat was sent, by [`Clock::since_boot`]; `None`: never.
    confirmed: Mutex<Vec<Option<Duration>>>,
}

impl Sharded {
    /// Creates a journal from a main one and further ones with their tenants.
    pub fn new(
        main: Arc<dyn Journal>,
        others: impl IntoIterator<Item = (Arc<dyn Journal>, Vec<Name>)>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let shards = Shards::new(main, others);
        let confirmed = Mutex::new(vec![None; shards.all().len()]);
        Self { shards, clock, confirmed }
    }

    fn of(&self, tenant: &Name) -> &Arc<dyn Journal> {
        self.shards.of(tenant)
    }

    /// Asks all journals, and returns their results with their positions. Fails only if the main one does; the results of
    /// others that fail are missing.
    async fn ask_all<T, F: Future<Output = Result<T>>>(
        &self,
        ask: impl Fn(&Arc<dyn Journal>) -> F,
    ) -> Result<Vec<(usize, T)>> {
        let mut answers = Vec::new();
        for (position, answer) in join_all(self.shards.all().iter().map(ask)).await.into_iter().enumerate() {
            match answer {
                Ok(answer) => answers.push((position, answer)),
                Err(error) if position == 0 => return Err(error),
                Err(error) => tracing::debug!(%error, "a shard can't be asked"),
            }
        }
        Ok(answers)
    }

    /// Asks one journal after the other for a delivery, until one knows it.
    async fn first<T, F: Future<Output = Result<T>>>(
        &self,
        ask: impl Fn(&Arc<dyn Journal>) -> F,
        knows: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let mut last = ask(self.shards.main()).await;
        for shard in &self.shards.all()[1..] {
            if last.as_ref().is_ok_and(&knows) {
                return last;
            }
            let answer = ask(shard).await;
            // An error counts more than an answer that the delivery is unknown.
            last = match (last, answer) {
                (Err(error), Ok(answer)) if !knows(&answer) => Err(error),
                (_, answer) => answer,
            };
        }
        last
    }

    /// Extends the leases in one journal. Those in a journal that confirms none for too long are lost.
    async fn heartbeat_of(
        &self,
        position: usize,
        owner: &str,
        running: Vec<Lease>,
        lease: Duration,
    ) -> Result<Heartbeat> {
        let sent = self.clock.since_boot();
        let beating = self.shards.all()[position].heartbeat(owner, running.clone(), lease);
        let answer = timeout(&*self.clock, HEARTBEAT_TIMEOUT, beating).await;
        let error = match answer {
            Some(Ok(heartbeat)) => {
                lock(&self.confirmed)[position] = Some(sent);
                return Ok(heartbeat);
            }
            Some(Err(error)) if position == 0 => return Err(error),
            Some(Err(error)) => Some(error),
            None => None,
        };
        // A lease that was taken since then is cut short, too.
        let confirmed = lock(&self.confirmed)[position];
        let is_late = confirmed.is_none_or(|confirmed| sent.saturating_sub(confirmed) >= lease.mul_f64(LOST_AFTER));
        if is_late && !running.is_empty() {
            let error = error.map(|error: JournalError| error.to_string());
            tracing::error!(
                deliveries = running.len(),
                error,
                "a shard confirms no heartbeat; its deliveries are canceled"
            );
        }
        Ok(Heartbeat { lost: if is_late { running } else { Vec::new() }, unknown: Vec::new() })
    }
}

#[async_trait]
impl Journal for Sharded {
    async fn record(&self, event: Arc<Event>, deliveries: Vec<NewDelivery>) -> Result<Recorded> {
        self.of(&event.tenant).record(event.clone(), deliveries).await
    }

    async fn lanes(&self) -> Result<Vec<Lane>> {
        let lanes = self.ask_all(|shard| {
            let shard = shard.clone();
            async move { shard.lanes().await }
        });
        let lanes =
            lanes.await?.into_iter().flat_map(|(position, lanes)| lanes.into_iter().map(move |it| (position, it)));
        // A claim of another tenant's lane would go to that tenant's journal.
        Ok(lanes
            .filter(|(position, lane)| self.shards.position(&lane.tenant) == *position)
            .map(|(_, lane)| lane)
            .collect())
    }

    fn backlog(&self, tenant: &Name) -> Backlog {
        let own = self.shards.position(tenant);
        let mut sum = Backlog::default();
        for (position, shard) in self.shards.all().iter().enumerate() {
            let backlog = shard.backlog(tenant);
            sum.host += backlog.host;
            sum.host_bytes = sum.host_bytes.saturating_add(backlog.host_bytes);
            if position == own {
                (sum.tenant, sum.tenant_bytes) = (backlog.tenant, backlog.tenant_bytes);
            }
        }
        sum
    }

    async fn due(&self, limit: u32) -> Result<Vec<Due>> {
        let due = self.ask_all(|shard| {
            let shard = shard.clone();
            async move { shard.due(limit).await }
        });
        let due = due.await?.into_iter().flat_map(|(position, due)| due.into_iter().map(move |it| (position, it)));
        Ok(due.filter(|(position, due)| self.shards.position(&due.tenant) == *position).map(|(_, due)| due).collect())
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        self.of(&claim.tenant).claim(claim.clone()).await
    }

    async fn next_due(&self) -> Result<Option<Duration>> {
        let next = self
            .ask_all(|shard| {
                let shard = shard.clone();
                async move { shard.next_due().await }
            })
            .await?;
        Ok(next.into_iter().filter_map(|(_, next)| next).min())
    }

    async fn heartbeat(&self, owner: &str, running: Vec<Lease>, lease: Duration) -> Result<Heartbeat> {
        let mut of_shard = vec![Vec::new(); self.shards.all().len()];
        for lease in running {
            of_shard[self.shards.position(&lease.tenant)].push(lease);
        }
        let beats = of_shard.into_iter().enumerate();
        let beats = beats.map(|(position, running)| self.heartbeat_of(position, owner, running, lease));
        let mut all = Heartbeat::default();
        for heartbeat in join_all(beats).await {
            let Heartbeat { lost, unknown } = heartbeat?;
            all.lost.extend(lost);
            all.unknown.extend(unknown);
        }
        Ok(all)
    }

    async fn reclaim(&self, gone: Option<&str>) -> Result<u64> {
        // What can't be returned to the queue now is when its lease has expired.
        let reclaimed = self.ask_all(|shard| {
            let (shard, gone) = (shard.clone(), gone.map(str::to_owned));
            async move { shard.reclaim(gone.as_deref()).await }
        });
        Ok(reclaimed.await?.into_iter().map(|(_, count)| count).sum())
    }

    async fn unclaim(&self, lease: &Lease) -> Result<bool> {
        self.of(&lease.tenant).unclaim(lease).await
    }

    async fn complete_attempt(&self, lease: &Lease, report: AttemptReport, next: Disposition) -> Result<bool> {
        self.of(&lease.tenant).complete_attempt(lease, report, next).await
    }

    async fn calls(&self, delivery: &DeliveryId) -> Result<Vec<Call>> {
        let calls = |shard: &Arc<dyn Journal>| {
            let (shard, delivery) = (shard.clone(), delivery.clone());
            async move { shard.calls(&delivery).await }
        };
        self.first(calls, |calls| !calls.is_empty()).await
    }

    fn write(&self, lease: &Lease, call: Call) -> Result<CommitHandle> {
        self.of(&lease.tenant).write(lease, call)
    }

    fn forget(&self, lease: &Lease, from: u32) -> Result<CommitHandle> {
        self.of(&lease.tenant).forget(lease, from)
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        if let Some(tenant) = &filter.tenant {
            return self.of(tenant).list(filter.clone()).await;
        }
        // Deliveries that a list lacks would look as if they were lost, so every journal must answer.
        let lists = join_all(self.shards.all().iter().map(|shard| shard.list(filter.clone()))).await;
        let mut all: Vec<Summary> = lists.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        all.sort_by_key(|summary| std::cmp::Reverse(summary.received_at));
        all.truncate(filter.limit.map_or(usize::MAX, |limit| limit as usize));
        Ok(all)
    }

    async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        let show = |shard: &Arc<dyn Journal>| {
            let (shard, delivery) = (shard.clone(), delivery.clone());
            async move { shard.show(&delivery).await }
        };
        self.first(show, Option::is_some).await
    }

    async fn resend(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool> {
        let resend = |shard: &Arc<dyn Journal>| {
            let (shard, delivery) = (shard.clone(), delivery.clone());
            async move { shard.resend(&delivery, fresh).await }
        };
        self.first(resend, |resent| *resent).await
    }

    async fn drop_waiting(&self, delivery: &DeliveryId, reason: &str) -> Result<bool> {
        let drop_waiting = |shard: &Arc<dyn Journal>| {
            let (shard, delivery, reason) = (shard.clone(), delivery.clone(), reason.to_owned());
            async move { shard.drop_waiting(&delivery, &reason).await }
        };
        self.first(drop_waiting, |dropped| *dropped).await
    }

    fn usage(&self) -> Vec<TenantUsage> {
        let mut tenants: BTreeMap<Name, TenantUsage> = BTreeMap::new();
        for usage in self.shards.all().iter().flat_map(|shard| shard.usage()) {
            match tenants.get_mut(&usage.tenant) {
                Some(sum) => {
                    sum.bytes += usage.bytes;
                    sum.unfinished_bytes += usage.unfinished_bytes;
                }
                None => drop(tenants.insert(usage.tenant.clone(), usage)),
            }
        }
        tenants.into_values().collect()
    }

    async fn totals(&self) -> Result<Totals> {
        let totals = join_all(self.shards.all().iter().map(|shard| shard.totals())).await;
        let mut sum = Totals { deliveries: [0; 5], bytes: 0 };
        for totals in totals {
            let totals = totals?;
            sum.bytes += totals.bytes;
            for (sum, count) in sum.deliveries.iter_mut().zip(totals.deliveries) {
                *sum += count;
            }
        }
        Ok(sum)
    }

    fn health(&self) -> Result<()> {
        // While a shard is away, the host accepts the events of all other tenants.
        self.shards.main().health()
    }

    async fn probe(&self) -> Result<()> {
        let probed = join_all(self.shards.all().iter().map(|shard| shard.probe())).await;
        probed.into_iter().next().unwrap_or(Ok(()))
    }

    fn salt(&self) -> [u8; 32] {
        self.shards.main().salt()
    }

    async fn purge(&self, keep: Retention, batch: u32) -> Result<u64> {
        let purged = join_all(self.shards.all().iter().map(|shard| shard.purge(keep.clone(), batch))).await;
        purged.into_iter().sum()
    }

    async fn close(&self) -> Result<()> {
        join_all(self.shards.all().iter().map(|shard| shard.close())).await.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use modhost_core::clock::ManualClock;
    use modhost_core::event::Header;

    use super::*;
    use crate::journal::{Memory, State};

    const LEASE: Duration = Duration::from_secs(30);

    struct Fixture {
        clock: Arc<ManualClock>,
        main: Arc<Memory>,
        eu: Arc<Memory>,
        sharded: Sharded,
    }

    fn fixture() -> Fixture {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)));
        let [main, eu] = [1, 2].map(|salt| Arc::new(Memory::new(clock.clone(), [salt; 32])));
        let others: [(Arc<dyn Journal>, _); 1] = [(eu.clone(), vec!["acme".into()])];
        let sharded = Sharded::new(main.clone(), others, clock.clone());
        Fixture { clock, main, eu, sharded }
    }

    fn event(tenant: &str, id: &str) -> Arc<Event> {
        let header = Header {
            id: id.to_owned(),
            source: "test".into(),
            name: "a.b".to_owned(),
            tenant: tenant.into(),
            user_id: None,
            company_id: None,
            created_at: None,
        };
        Arc::new(Event::new(header, Bytes::from_static(b"{}"), 0..2))
    }

    impl Fixture {
        async fn record(&self, tenant: &str, id: &str) -> DeliveryId {
            let event = event(tenant, id);
            let delivery = DeliveryId::new(&event, &"Echo".into());
            let new = NewDelivery { id: delivery.clone(), module: "Echo".into(), ordered_chat: None, lease: None };
            self.sharded.record(event, vec![new]).await.unwrap();
            self.clock.advance(Duration::from_secs(1));
            delivery
        }

        async fn claim(&self, tenant: &str) -> Vec<Claimed> {
            let claim =
                Claim { tenant: tenant.into(), module: "Echo".into(), limit: 9, owner: "host".into(), lease: LEASE };
            self.sharded.claim(claim).await.unwrap()
        }
    }

    fn completed() -> AttemptReport {
        AttemptReport { took: Duration::ZERO, version: None, outcome: "completed".to_owned(), log: Vec::new() }
    }

    #[tokio::test]
    async fn keeps_the_deliveries_of_each_tenant_in_its_shard() {
        let it = fixture();
        let acme = it.record("acme", "1").await;
        let globex = it.record("globex", "2").await;
        let newest = it.record("acme", "3").await;
        assert_eq!(
            (it.main.totals().await.unwrap().of(State::Waiting), it.eu.list(Filter::default()).await.unwrap().len()),
            (1, 2)
        );
        let listed: Vec<DeliveryId> = it
            .sharded
            .list(Filter { limit: Some(2), ..Filter::default() })
            .await
            .unwrap()
            .into_iter()
            .map(|it| it.id)
            .collect();
        assert_eq!(listed, [newest, globex.clone()], "the newest of all shards");
        for delivery in [&acme, &globex] {
            assert!(it.sharded.show(delivery).await.unwrap().is_some());
        }
        assert_eq!(it.sharded.totals().await.unwrap().of(State::Waiting), 3);
        let backlog = it.sharded.backlog(&"acme".into());
        assert_eq!((backlog.host, backlog.tenant), (3, 2));
        let lanes = it.sharded.lanes().await.unwrap();
        assert_eq!(lanes.iter().map(|lane| lane.waiting).sum::<u64>(), 3);
        let [of_acme, of_globex] = [it.claim("acme").await, it.claim("globex").await];
        assert_eq!((of_acme.len(), of_globex.len()), (2, 1));
        let leases: Vec<Lease> = of_acme.iter().chain(&of_globex).map(|claimed| claimed.lease.clone()).collect();
        assert_eq!(it.sharded.heartbeat("host", leases[..2].to_vec(), LEASE).await.unwrap().unknown, leases[2..]);
        for lease in &leases {
            it.sharded.complete_attempt(lease, completed(), Disposition::Completed).await.unwrap();
        }
        assert!(it.sharded.resend(&acme, false).await.unwrap() && it.sharded.resend(&globex, false).await.unwrap());
        assert!(it.sharded.drop_waiting(&acme, "not needed").await.unwrap());
    }

    #[tokio::test]
    async fn a_shard_that_is_away_affects_only_its_tenants() {
        let it = fixture();
        it.record("acme", "1").await;
        it.record("globex", "2").await;
        let [of_acme, of_globex] = [it.claim("acme").await, it.claim("globex").await];
        let leases: Vec<Lease> = of_acme.iter().chain(&of_globex).map(|claimed| claimed.lease.clone()).collect();
        assert_eq!(it.sharded.heartbeat("host", leases.clone(), LEASE).await.unwrap(), Heartbeat::default());
        it.eu.close().await.unwrap();
        it.clock.advance(Duration::from_secs(5));
        let short = it.sharded.heartbeat("host", leases.clone(), LEASE).await.unwrap();
        assert_eq!(short, Heartbeat::default(), "it may come back");
        it.clock.advance(Duration::from_secs(10));
        let long = it.sharded.heartbeat("host", leases.clone(), LEASE).await.unwrap();
        assert_eq!(long.lost, leases[..1], "before its lease ends");
        it.record("globex", "3").await;
        assert_eq!(it.sharded.lanes().await.unwrap().len(), 1);
        assert!(it.sharded.health().is_ok() && it.sharded.reclaim(Some("host")).await.unwrap() == 1);
        assert!(it.sharded.list(Filter::default()).await.is_err(), "a list never lacks deliveries silently");
        assert!(it.sharded.record(event("acme", "4"), Vec::new()).await.is_err());
        it.main.close().await.unwrap();
        assert!(it.sharded.lanes().await.is_err() && it.sharded.heartbeat("host", Vec::new(), LEASE).await.is_err());
    }
}
