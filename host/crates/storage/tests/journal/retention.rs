//! Retention: deliveries are removed by age and by size, in small steps, and the size of the files is bounded.

use std::time::Duration;

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{Disposition, Filter, Recorded, Retention, State, TenantLimits};

use crate::support::{Engine, TestJournal, call, committed, dead, event, on_every_engine, to};

on_every_engine! {
    removes_ended_deliveries_in_time_and_keeps_unfinished_ones,
    recognizes_a_redelivery_until_its_id_is_removed,
    keeps_an_id_as_long_as_its_event,
    keeps_an_event_until_its_last_delivery_is_removed,
    removes_the_deliveries_that_ended_first_beyond_the_maximum_size,
}

const KEEP: Retention = Retention {
    completed: Duration::from_secs(10),
    dead: Duration::from_secs(100),
    ids: Duration::from_secs(1_000),
    max_bytes: None,
    tenant_limits: TenantLimits::new(),
};

/// Purges until nothing is left to remove. Returns the number removed.
async fn purge_all(journal: &TestJournal, keep: &Retention, millis: u64) -> u64 {
    let mut total = 0;
    loop {
        match journal.at(millis).purge(keep.clone(), 10).await.unwrap() {
            0 => return total,
            removed => {
                assert!(removed <= 10, "a step removed more than its batch: {removed}");
                total += removed;
            }
        }
    }
}

async fn removes_ended_deliveries_in_time_and_keeps_unfinished_ones(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(journal.one(&format!("evt_{number}"), number).await);
    }
    let [completed, given_up, dropped, running, waiting] = &ids[..] else { unreachable!() };
    assert!(journal.at(0).drop_waiting(dropped, "not needed").await.unwrap());
    let taken = journal.take(3, 10).await;
    journal.end(&taken[0], Disposition::Completed, 0).await;
    journal.end(&taken[1], dead(), 0).await;
    assert_eq!(taken[2].id(), running);

    assert_eq!(purge_all(&journal, &KEEP, 10_000).await, 0);
    assert_eq!(purge_all(&journal, &KEEP, 10_001).await, 2);
    assert!(journal.show(completed).await.unwrap().is_none());
    assert!(journal.show(dropped).await.unwrap().is_none());
    assert_eq!(journal.state(given_up).await, State::Dead);
    assert_eq!(purge_all(&journal, &KEEP, 100_001).await, 1);
    assert!(journal.show(given_up).await.unwrap().is_none());
    // Removes the ids of removed events. Unfinished deliveries and their ids are never removed.
    assert_eq!(purge_all(&journal, &KEEP, 1_000_000_000).await, 3);
    assert_eq!(journal.state(running).await, State::Running);
    assert_eq!(journal.state(waiting).await, State::Waiting);
    assert_eq!(journal.totals().await.unwrap().deliveries, [1, 1, 0, 0, 0]);
    let journal = journal.reopened().await;
    assert_eq!(journal.totals().await.unwrap().deliveries, [1, 1, 0, 0, 0]);
}

async fn recognizes_a_redelivery_until_its_id_is_removed(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let again = async |journal: &TestJournal, millis| {
        let event = event("evt_1");
        let delivery = to(&event, "Echo");
        journal.at(millis).record(event, vec![delivery]).await.unwrap()
    };
    journal.one("evt_1", 0).await;
    journal.complete_next(0).await;
    assert_eq!(purge_all(&journal, &KEEP, 20_000).await, 1);
    assert_eq!(again(&journal, 20_000).await, Recorded::Duplicate);

    let journal = journal.reopened().await;
    assert_eq!(again(&journal, 30_000).await, Recorded::Duplicate);
    assert_eq!(purge_all(&journal, &KEEP, 1_000_000).await, 0);
    assert_eq!(purge_all(&journal, &KEEP, 1_000_001).await, 1);
    assert!(again(&journal, 1_000_001).await.is_new());
    assert_eq!(journal.take(5, 1_000_001).await.len(), 1);
}

async fn keeps_an_id_as_long_as_its_event(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let keep = Retention { ids: Duration::ZERO, ..KEEP };
    journal.one("evt_1", 0).await;
    let claimed = journal.take(1, 0).await.pop().unwrap();
    journal.end(&claimed, dead(), 0).await;
    assert_eq!(purge_all(&journal, &keep, 50_000).await, 0);
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    assert_eq!(journal.at(50_000).record(event, vec![delivery]).await.unwrap(), Recorded::Duplicate);
}

async fn keeps_an_event_until_its_last_delivery_is_removed(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let event = event("evt_1");
    let (echo, log) = (to(&event, "Echo"), to(&event, "Log"));
    journal.at(0).record(event.clone(), vec![echo.clone(), log.clone()]).await.unwrap();
    journal.complete_next(0).await;
    assert_eq!(purge_all(&journal, &KEEP, 20_000).await, 1);
    assert!(journal.show(&echo.id).await.unwrap().is_none());
    assert_eq!(*journal.show(&log.id).await.unwrap().unwrap().event, *event);
}

#[tokio::test]
async fn removes_a_large_answer_with_its_last_call() {
    let journal = TestJournal::sqlite().await;
    let answer = vec![3; 20_000];
    let first = journal.claimed("evt_0", 0).await;
    let second = journal.claimed("evt_1", 0).await;
    for claimed in [&first, &second] {
        committed(journal.write(&claimed.lease, call(0, answer.clone()))).await;
    }
    journal.end(&first, Disposition::Completed, 0).await;
    assert_eq!(purge_all(&journal, &KEEP, 20_000).await, 1);
    assert_eq!(journal.calls(second.id()).await.unwrap(), [call(0, answer)]);
    journal.end(&second, Disposition::Completed, 20_000).await;
    assert_eq!(purge_all(&journal, &KEEP, 60_000).await, 1);

    let file = journal.directory.path().join("journal.sqlite");
    journal.close().await.unwrap();
    let tables = rusqlite::Connection::open(file).unwrap();
    for table in ["deliveries", "events", "calls", "large_answers", "attempts", "changes"] {
        let left: i64 = tables.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

/// Records and completes deliveries, each with a different answer of 100 kB.
async fn complete_with_large_answers(journal: &TestJournal, numbers: std::ops::Range<u32>) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    for number in numbers {
        let claimed = journal.claimed(&format!("evt_{number}"), u64::from(number)).await;
        let mut answer = vec![0; 100_000];
        answer[..4].copy_from_slice(&number.to_le_bytes());
        committed(journal.write(&claimed.lease, call(0, answer))).await;
        journal.end(&claimed, Disposition::Completed, u64::from(number)).await;
        ids.push(claimed.lease.delivery);
    }
    ids
}

/// The size limit of the tests, in bytes.
const MAX_BYTES: u64 = 5_000_000;

async fn removes_the_deliveries_that_ended_first_beyond_the_maximum_size(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let running = journal.claimed("evt_running", 0).await.lease.delivery;
    let ids = complete_with_large_answers(&journal, 0..200).await;
    let keep = Retention { completed: Duration::from_secs(1_000_000), max_bytes: Some(MAX_BYTES), ..KEEP };
    let removed = purge_all(&journal, &keep, 1_000).await;
    // Removes no more than necessary.
    assert!((145..170).contains(&removed), "{removed}");
    let completed = Filter { state: Some(State::Completed), ..Filter::default() };
    let left: Vec<DeliveryId> = journal.list(completed).await.unwrap().into_iter().map(|it| it.id).rev().collect();
    assert_eq!(left, ids[usize::try_from(removed).unwrap()..]);
    assert_eq!(journal.state(&running).await, State::Running);
}

#[tokio::test]
async fn shrinks_the_file_to_its_maximum_size() {
    let journal = TestJournal::sqlite().await;
    complete_with_large_answers(&journal, 0..200).await;
    let file = journal.directory.path().join("journal.sqlite");
    let journal = journal.reopened().await;
    let before = std::fs::metadata(&file).unwrap().len();
    assert!(before > 20_000_000, "{before}");

    let keep = Retention { completed: Duration::from_secs(1_000_000), max_bytes: Some(MAX_BYTES), ..KEEP };
    purge_all(&journal, &keep, 1_000).await;
    // Each step returns some of the free pages to the operating system.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        assert_eq!(journal.at(1_000).purge(keep.clone(), 10).await.unwrap(), 0);
        let journal_size = rusqlite::Connection::open(&file)
            .and_then(|tables| tables.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)))
            .unwrap()
            * 4096;
        if journal_size < 7_000_000 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the file stays at {journal_size} bytes");
    }
    journal.close().await.unwrap();
    let after = std::fs::metadata(&file).unwrap().len();
    assert!(after < 7_000_000, "{after}");
}

#[tokio::test]
async fn does_not_grow_while_deliveries_are_removed() {
    let journal = TestJournal::sqlite().await;
    let keep = Retention { completed: Duration::ZERO, max_bytes: None, ..KEEP };
    let mut sizes = Vec::new();
    for round in 0..6_u32 {
        complete_with_large_answers(&journal, round * 30..(round + 1) * 30).await;
        purge_all(&journal, &keep, 1_000).await;
        let tables = rusqlite::Connection::open(journal.directory.path().join("journal.sqlite")).unwrap();
        sizes.push(tables.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap());
    }
    assert!(sizes[5] <= sizes[0] + 300, "the file grows: {sizes:?} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_the_write_ahead_log() {
    let journal = TestJournal::sqlite().await;
    let lease = journal.claimed("evt_1", 0).await.lease;
    let wal = journal.directory.path().join("journal.sqlite-wal");
    let mut largest = 0;
    for round in 0..40_u32 {
        let mut last = None;
        for number in 0..50 {
            let mut answer = vec![0; 100_000];
            answer[..8].copy_from_slice(&u64::from(round * 50 + number).to_le_bytes());
            last = Some(journal.write(&lease, call(number, answer)));
        }
        committed(last.unwrap()).await;
        largest = largest.max(std::fs::metadata(&wal).unwrap().len());
    }
    // 200 MB were written through the log.
    assert!(largest < 80_000_000, "{largest}");
    assert_eq!(journal.calls(&lease.delivery).await.unwrap().len(), 50);
    journal.close().await.unwrap();
    assert!(!wal.exists(), "closing did not checkpoint the log");
}
