//! What is kept and what goes: by age, by size, in small steps; and files that do not grow without bound.

use std::time::Duration;

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{Disposition, Filter, Journal, Recorded, Retention, State};

use crate::support::{Kept, at, call, dead, event, to};

const KEEP: Retention = Retention {
    completed: Duration::from_secs(10),
    dead: Duration::from_secs(100),
    ids: Duration::from_secs(1_000),
    max_bytes: None,
};

/// Removes until nothing need go; how many went.
async fn retain_all(journal: &Kept, keep: &Retention, millis: u64) -> u64 {
    let mut all = 0;
    loop {
        match journal.retain(keep.clone(), at(millis), 10).await.unwrap() {
            0 => return all,
            gone => {
                assert!(gone <= 10, "a step takes no more than it may: {gone}");
                all += gone;
            }
        }
    }
}

#[tokio::test]
async fn what_has_ended_goes_in_its_time_and_what_has_not_ended_stays() {
    let journal = Kept::new().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(journal.one(&format!("evt_{number}"), number).await);
    }
    let [completed, given_up, dropped, running, waiting] = &ids[..] else { unreachable!() };
    assert!(journal.drop_waiting(dropped, "not needed", at(0)).await.unwrap());
    let taken = journal.take(3, 10).await;
    journal.end(&taken[0], Disposition::Completed, 0).await;
    journal.end(&taken[1], dead(), 0).await;
    assert_eq!(&taken[2].id, running);

    assert_eq!(retain_all(&journal, &KEEP, 10_000).await, 0);
    assert_eq!(retain_all(&journal, &KEEP, 10_001).await, 2);
    assert!(journal.show(completed).await.unwrap().is_none());
    assert!(journal.show(dropped).await.unwrap().is_none());
    assert_eq!(journal.state(given_up).await, State::Dead);
    assert_eq!(retain_all(&journal, &KEEP, 100_001).await, 1);
    assert!(journal.show(given_up).await.unwrap().is_none());
    // The ids of what went go too; what has not ended stays for ever, and so does its id.
    assert_eq!(retain_all(&journal, &KEEP, 1_000_000_000).await, 3);
    assert_eq!(journal.state(running).await, State::Running);
    assert_eq!(journal.state(waiting).await, State::Waiting);
    assert_eq!(journal.totals().await.unwrap().deliveries, [1, 1, 0, 0, 0]);
    let journal = journal.reopened().await;
    assert_eq!(journal.totals().await.unwrap().deliveries, [1, 1, 0, 0, 0]);
}

#[tokio::test]
async fn a_redelivery_is_known_after_its_event_is_gone_for_as_long_as_ids_are_kept() {
    let journal = Kept::new().await;
    let again = async |journal: &Kept, millis| {
        let event = event("evt_1");
        let delivery = to(&event, "Echo");
        journal.record(event, vec![delivery], at(millis)).await.unwrap()
    };
    journal.one("evt_1", 0).await;
    journal.complete_next(0).await;
    assert_eq!(retain_all(&journal, &KEEP, 20_000).await, 1);
    assert_eq!(again(&journal, 20_000).await, Recorded::Duplicate);

    let journal = journal.reopened().await;
    assert_eq!(again(&journal, 30_000).await, Recorded::Duplicate);
    assert_eq!(retain_all(&journal, &KEEP, 1_000_000).await, 0);
    assert_eq!(retain_all(&journal, &KEEP, 1_000_001).await, 1);
    assert_eq!(again(&journal, 1_000_001).await, Recorded::New);
    assert_eq!(journal.take(5, 1_000_001).await.len(), 1);
}

#[tokio::test]
async fn an_id_is_known_for_as_long_as_its_event_is_there() {
    let journal = Kept::new().await;
    let keep = Retention { ids: Duration::ZERO, ..KEEP };
    journal.one("evt_1", 0).await;
    let claimed = journal.take(1, 0).await.pop().unwrap();
    journal.end(&claimed, dead(), 0).await;
    assert_eq!(retain_all(&journal, &keep, 50_000).await, 0);
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    assert_eq!(journal.record(event, vec![delivery], at(50_000)).await.unwrap(), Recorded::Duplicate);
}

#[tokio::test]
async fn an_event_stays_until_its_last_delivery_goes() {
    let journal = Kept::new().await;
    let event = event("evt_1");
    let (echo, log) = (to(&event, "Echo"), to(&event, "Log"));
    journal.record(event.clone(), vec![echo.clone(), log.clone()], at(0)).await.unwrap();
    journal.complete_next(0).await;
    assert_eq!(retain_all(&journal, &KEEP, 20_000).await, 1);
    assert!(journal.show(&echo.id).await.unwrap().is_none());
    assert_eq!(*journal.show(&log.id).await.unwrap().unwrap().event, *event);
}

#[tokio::test]
async fn a_large_answer_goes_with_the_last_call_that_got_it() {
    let journal = Kept::new().await;
    let answer = vec![3; 20_000];
    for number in 0..2 {
        let id = journal.one(&format!("evt_{number}"), 0).await;
        journal.write(&id, call(0, answer.clone())).unwrap().on_disk().await.unwrap();
    }
    journal.complete_next(0).await;
    assert_eq!(retain_all(&journal, &KEEP, 20_000).await, 1);
    let left = journal.list(Filter::default()).await.unwrap().pop().unwrap();
    assert_eq!(journal.calls(&left.id).await.unwrap(), [call(0, answer)]);
    journal.complete_next(20_000).await;
    assert_eq!(retain_all(&journal, &KEEP, 60_000).await, 1);

    let file = journal.directory.path().join("journal.sqlite");
    journal.close().await.unwrap();
    let tables = rusqlite::Connection::open(file).unwrap();
    for table in ["deliveries", "events", "calls", "large_answers", "attempts", "changes"] {
        let left: i64 = tables.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

/// Records and completes deliveries with an answer of 100 kB each, every one another.
async fn complete_with_large_answers(journal: &Kept, numbers: std::ops::Range<u32>) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    for number in numbers {
        let id = journal.one(&format!("evt_{number}"), u64::from(number)).await;
        let mut answer = vec![0; 100_000];
        answer[..4].copy_from_slice(&number.to_le_bytes());
        journal.write(&id, call(0, answer)).unwrap().on_disk().await.unwrap();
        assert_eq!(journal.complete_next(u64::from(number)).await, id);
        ids.push(id);
    }
    ids
}

#[tokio::test]
async fn beyond_the_size_the_oldest_of_those_that_ended_go_and_the_file_shrinks() {
    const MOST: u64 = 5_000_000;
    let journal = Kept::new().await;
    let waiting = journal.one("evt_waiting", 0).await;
    assert_eq!(journal.take_ids(1, 0).await, std::slice::from_ref(&waiting));
    let ids = complete_with_large_answers(&journal, 0..200).await;
    let file = journal.directory.path().join("journal.sqlite");
    let journal = journal.reopened().await;
    let before = std::fs::metadata(&file).unwrap().len();
    assert!(before > 20_000_000, "{before}");

    let keep = Retention { completed: Duration::from_secs(1_000_000), max_bytes: Some(MOST), ..KEEP };
    let gone = retain_all(&journal, &keep, 1_000).await;
    assert!((145..170).contains(&gone), "{gone}");
    // No more than has to, and the oldest.
    let left: Vec<DeliveryId> = journal
        .list(Filter { state: Some(State::Completed), ..Filter::default() })
        .await
        .unwrap()
        .into_iter()
        .map(|it| it.id)
        .rev()
        .collect();
    assert_eq!(left, ids[usize::try_from(gone).unwrap()..]);
    assert_eq!(journal.state(&waiting).await, State::Running);

    // The room is given back step by step.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        assert_eq!(journal.retain(keep.clone(), at(1_000), 10).await.unwrap(), 0);
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
async fn a_file_that_is_kept_small_stays_small() {
    let journal = Kept::new().await;
    let keep = Retention { completed: Duration::ZERO, max_bytes: None, ..KEEP };
    let mut sizes = Vec::new();
    for round in 0..6_u32 {
        complete_with_large_answers(&journal, round * 30..(round + 1) * 30).await;
        retain_all(&journal, &keep, 1_000).await;
        let tables = rusqlite::Connection::open(journal.directory.path().join("journal.sqlite")).unwrap();
        sizes.push(tables.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap());
    }
    assert!(sizes[5] <= sizes[0] + 300, "the file grows: {sizes:?} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_beside_the_file_does_not_grow_without_bound() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    let wal = journal.directory.path().join("journal.sqlite-wal");
    let mut largest = 0;
    for round in 0..40_u32 {
        let mut last = None;
        for number in 0..50 {
            let mut answer = vec![0; 100_000];
            answer[..8].copy_from_slice(&u64::from(round * 50 + number).to_le_bytes());
            last = Some(journal.write(&id, call(number, answer)).unwrap());
        }
        last.unwrap().on_disk().await.unwrap();
        largest = largest.max(std::fs::metadata(&wal).unwrap().len());
    }
    // 200 MB went through it.
    assert!(largest < 80_000_000, "{largest}");
    assert_eq!(journal.calls(&id).await.unwrap().len(), 50);
    journal.close().await.unwrap();
    assert!(!wal.exists(), "closing writes everything out");
}
