//! What each tenant uses: it survives restarts and crashes, it is counted for journals of earlier versions, and it decides
//! whose deliveries are removed when there is no space.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, TryStreamExt};
use modhost_core::event::DeliveryId;
use modhost_storage::error::StorageErrorKind;
use modhost_storage::journal::{
    Call, Disposition, Filter, JournalError, Retention, State, TenantLimits, TenantUsage, recorded_bytes,
};
use rusqlite::Connection;

use crate::support::{
    Engine, TO_VERSION_4, TestJournal, at, call, claim, committed, dead, event, event_of, on_every_engine, open, retry,
    to,
};

on_every_engine! {
    counts_what_an_event_takes_before_it_is_recorded,
    counts_an_event_as_unfinished_until_its_last_delivery_has_ended,
    removes_the_deliveries_of_the_tenant_that_uses_most,
    removes_dead_deliveries_after_all_others,
    keeps_a_tenant_within_its_own_limit,
    removes_the_oldest_ids_above_a_quarter_of_the_limit,
}

const FOREVER: Duration = Duration::from_secs(1_000_000);

fn keep(max_bytes: Option<u64>, tenant_limits: &[(&str, u64)]) -> Retention {
    let tenant_limits = tenant_limits.iter().map(|(tenant, limit)| ((*tenant).into(), *limit)).collect();
    Retention { completed: FOREVER, dead: FOREVER, ids: FOREVER, max_bytes, tenant_limits }
}

async fn purge_all(journal: &TestJournal, keep: &Retention) -> u64 {
    let mut total = 0;
    loop {
        match journal.purge(keep.clone(), 10).await.unwrap() {
            0 => return total,
            removed => total += removed,
        }
    }
}

fn usage_of(journal: &TestJournal, tenant: &str) -> TenantUsage {
    let none = TenantUsage { tenant: tenant.into(), bytes: 0, unfinished_bytes: 0 };
    journal.usage().into_iter().find(|usage| usage.tenant.as_str() == tenant).unwrap_or(none)
}

/// Records an event of a tenant, claims its delivery, and writes a call with an answer of that size.
async fn answered(journal: &TestJournal, tenant: &str, number: u32, size: usize) -> modhost_storage::journal::Claimed {
    let event = event_of(tenant, &format!("evt_{number}"));
    journal.at(u64::from(number)).record(event.clone(), vec![to(&event, "Echo")]).await.unwrap();
    let claimed = journal.claim(claim(tenant, 1)).await.unwrap().pop().unwrap();
    let mut answer = vec![0; size];
    answer[..4].copy_from_slice(&number.to_le_bytes());
    committed(journal.write(&claimed.lease, call(0, answer))).await;
    claimed
}

async fn end(journal: &TestJournal, tenant: &str, number: u32, size: usize, next: Disposition) -> DeliveryId {
    let claimed = answered(journal, tenant, number, size).await;
    journal.end(&claimed, next, u64::from(number)).await;
    claimed.lease.delivery
}

/// Returns the ids of a tenant's ended deliveries, oldest first.
async fn ended(journal: &TestJournal, tenant: &str) -> Vec<DeliveryId> {
    let listed = journal.list(Filter { tenant: Some(tenant.into()), ..Filter::default() }).await.unwrap();
    listed.into_iter().filter(|it| it.state.is_final()).map(|it| it.id).rev().collect()
}

async fn counts_what_an_event_takes_before_it_is_recorded(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let event = event("evt_1");
    journal.record(event.clone(), vec![to(&event, "Echo"), to(&event, "Log")]).await.unwrap();
    let backlog = journal.backlog(&"acme".into());
    assert_eq!(backlog.tenant_bytes, recorded_bytes(&event, 2));
    assert_eq!(backlog.host_bytes, recorded_bytes(&event, 2));
    assert_eq!(journal.backlog(&"globex".into()).tenant_bytes, 0);
}

async fn counts_an_event_as_unfinished_until_its_last_delivery_has_ended(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let event = event("evt_1");
    let (echo, log) = (to(&event, "Echo"), to(&event, "Log"));
    journal.record(event.clone(), vec![echo.clone(), log.clone()]).await.unwrap();
    assert!(journal.drop_waiting(&echo.id, "not needed").await.unwrap());
    assert_eq!(usage_of(&journal, "acme").unfinished_bytes, recorded_bytes(&event, 1));
    assert!(journal.drop_waiting(&log.id, "not needed").await.unwrap());
    assert_eq!(usage_of(&journal, "acme").unfinished_bytes, 0);
    assert!(journal.resend(&log.id, false).await.unwrap());
    assert_eq!(usage_of(&journal, "acme").unfinished_bytes, recorded_bytes(&event, 1));
}

async fn removes_the_deliveries_of_the_tenant_that_uses_most(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    // The quiet tenant's deliveries are the oldest, and one of them is dead.
    let mut quiet = Vec::new();
    for number in 0..4 {
        let next = if number == 2 { dead() } else { Disposition::Completed };
        quiet.push(end(&journal, "acme", number, 50_000, next).await);
    }
    for number in 10..110 {
        end(&journal, "globex", number, 100_000, Disposition::Completed).await;
    }
    let removed = purge_all(&journal, &keep(Some(4_000_000), &[])).await;
    assert!((55..80).contains(&removed), "{removed}");
    assert_eq!(ended(&journal, "acme").await, quiet);
    // Once both use as much, both lose deliveries.
    purge_all(&journal, &keep(Some(200_000), &[])).await;
    assert!(ended(&journal, "globex").await.len() < 4);
}

async fn removes_dead_deliveries_after_all_others(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = end(&journal, "acme", 0, 10_000, dead()).await;
    for number in 1..20 {
        end(&journal, "acme", number, 10_000, Disposition::Completed).await;
    }
    let last = end(&journal, "acme", 20, 10_000, Disposition::Completed).await;
    purge_all(&journal, &keep(None, &[("acme", 30_000)])).await;
    assert_eq!(ended(&journal, "acme").await, [first.clone(), last]);
    purge_all(&journal, &keep(None, &[("acme", 15_000)])).await;
    assert_eq!(ended(&journal, "acme").await, [first]);
}

async fn keeps_a_tenant_within_its_own_limit(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    for (number, tenant) in (0..40).zip(["acme", "globex"].into_iter().cycle()) {
        end(&journal, tenant, number, 10_000, Disposition::Completed).await;
    }
    let waiting = answered(&journal, "acme", 50, 30_000).await;
    assert_eq!(purge_all(&journal, &keep(None, &[])).await, 0);
    let keep = keep(None, &[("acme", 100_000)]);
    assert!(purge_all(&journal, &keep).await > 0);
    let usage = usage_of(&journal, "acme");
    assert!((80_000..=100_000).contains(&usage.bytes), "{usage:?}");
    assert_eq!(ended(&journal, "globex").await.len(), 20);
    assert_eq!(journal.state(waiting.id()).await, State::Running);
    // Unfinished deliveries are never removed, whatever the limit.
    let tiny = Retention { tenant_limits: TenantLimits::from([("acme".into(), 1)]), ..keep };
    purge_all(&journal, &tiny).await;
    assert_eq!(ended(&journal, "acme").await, []);
    assert_eq!(usage_of(&journal, "acme").unfinished_bytes, usage.unfinished_bytes);
    let journal = journal.reopened().await;
    assert_eq!(usage_of(&journal, "acme").unfinished_bytes, usage.unfinished_bytes);
}

async fn removes_the_oldest_ids_above_a_quarter_of_the_limit(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    for number in 0..100 {
        journal.at(number).record(event(&format!("evt_{number}")), Vec::new()).await.unwrap();
    }
    journal.record(event_of("globex", "evt_other"), Vec::new()).await.unwrap();
    let all = usage_of(&journal, "acme").bytes;
    purge_all(&journal, &keep(Some(all * 2), &[])).await;
    let left = usage_of(&journal, "acme").bytes;
    assert!(left <= all / 2, "{left} of {all}");
    let is_known = async |tenant, number| {
        let event = event_of(tenant, number);
        journal.record(event, Vec::new()).await.unwrap() == modhost_storage::journal::Recorded::Duplicate
    };
    assert!(is_known("acme", "evt_99").await);
    assert!(is_known("globex", "evt_other").await, "another tenant's id was removed");
    assert!(!is_known("acme", "evt_0").await);
}

#[tokio::test]
async fn counts_the_records_of_earlier_versions() {
    let journal = TestJournal::sqlite().await;
    for number in 0..6 {
        let next = [Disposition::Completed, dead(), retry(10)][number as usize % 3].clone();
        let size = if number % 2 == 0 { 100 } else { 20_000 };
        end(&journal, ["acme", "globex"][number as usize / 3], number, size, next).await;
    }
    let event = event("evt_9");
    let (echo, log) = (to(&event, "Größe"), to(&event, "Log"));
    journal.record(event, vec![echo.clone(), log]).await.unwrap();
    journal.drop_waiting(&echo.id, "not needed").await.unwrap();
    journal.record(event_of("initech", "evt_ü"), Vec::new()).await.unwrap();
    let (expected, file) = (journal.usage(), journal.directory.path().join("journal.sqlite"));
    assert_eq!(expected.len(), 3);
    journal.close().await.unwrap();

    let tables = Connection::open(&file).unwrap();
    tables.execute_batch(TO_VERSION_4).unwrap();
    tables
        .execute_batch(
            "DROP TABLE tenant_usage; DROP INDEX deliveries_ended; DROP INDEX known_events_by_tenant; \
             CREATE INDEX known_events_by_age ON known_events (at) WHERE event IS NULL; PRAGMA user_version = 3",
        )
        .unwrap();
    drop(tables);
    let migrated = open(journal.directory.path()).await;
    assert_eq!(modhost_storage::journal::Journal::usage(&migrated), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_of_a_tenant_stops_only_its_own_writes() {
    let journal = TestJournal::sqlite().await;
    let busy = answered(&journal, "acme", 0, 10).await.lease;
    let quiet = answered(&journal, "globex", 1, 10).await.lease;
    // The writer thread waits in a write, so that everything behind it stays queued.
    let lock = Connection::open(journal.directory.path().join("journal.sqlite")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut queued = Vec::new();
    let refused = loop {
        let number = 1 + queued.len() as u32;
        match journal.write(&busy, Call { number, at: at(0), ..call(0, vec![1; 1 << 20]) }) {
            Ok(handle) => queued.push(handle),
            Err(error) => break error,
        }
    };
    let text = refused.to_string();
    assert!(matches!(&refused, JournalError::Storage(error) if error.kind == StorageErrorKind::Full), "{text}");
    assert!(text.contains("tenant acme"), "{text}");
    assert!((40..64).contains(&queued.len()), "{}", queued.len());
    let others = (1..5).map(|number| journal.write(&quiet, Call { number, ..call(0, vec![1; 1 << 20]) }).unwrap());
    let others: Vec<_> = others.collect();
    lock.execute_batch("ROLLBACK").unwrap();
    for handle in queued.into_iter().chain(others) {
        handle.durable().await.unwrap();
    }
}

/// The writer lets tenants take turns, so that an event isn't recorded only behind everything that another tenant writes.
#[tokio::test]
async fn queued_writes_of_a_tenant_delay_no_other() {
    let journal = TestJournal::sqlite().await;
    let busy = answered(&journal, "acme", 0, 10).await.lease;
    let lock = Connection::open(journal.directory.path().join("journal.sqlite")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writes = FuturesUnordered::new();
    for number in 1..30 {
        let written = journal.write(&busy, call(number, vec![1; 1 << 20])).unwrap();
        writes.push(async move { written.durable().await.map(|()| "acme") }.boxed());
    }
    let event = event_of("globex", "evt_1");
    let delivery = to(&event, "Echo");
    let recorded = journal.record(event, vec![delivery]);
    writes.push(async move { recorded.await.map(|_| "globex") }.boxed());
    lock.execute_batch("ROLLBACK").unwrap();
    let done: Vec<&str> = writes.try_collect().await.unwrap();
    let position = done.iter().position(|tenant| *tenant == "globex").unwrap();
    assert!(position <= 3, "it was recorded after {position} of 29 writes of another tenant");
}
