//! Operations for operators: lists, the history of a delivery, resending, dropping.

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{AttemptReport, Disposition, Filter, LogLine, OfflineJournal, SqliteSettings, State};

use crate::support::{
    Engine, TestJournal, at, attempt, call, committed, dead, event, event_of, on_every_engine, report, retry, to,
};

on_every_engine! {
    lists_deliveries_newest_first_and_filtered,
    summarizes_the_state_of_a_delivery,
    shows_everything_recorded_of_a_delivery,
    resends_only_ended_deliveries_and_restarts_their_schedule,
    drops_only_waiting_deliveries,
    keeps_the_salt_of_each_journal,
}

async fn ids(journal: &TestJournal, filter: Filter) -> Vec<String> {
    journal.list(filter).await.unwrap().into_iter().map(|summary| summary.event_id).collect()
}

async fn lists_deliveries_newest_first_and_filtered(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    for number in 0..6 {
        let tenant = if number % 2 == 0 { "acme" } else { "other" };
        let event = event_of(tenant, &format!("evt_{number}"));
        let deliveries = vec![to(&event, "Echo"), to(&event, "Log")];
        journal.at(number).record(event, deliveries).await.unwrap();
    }
    let taken = journal.take(2, 10).await; // evt_0, evt_2
    journal.end(&taken[0], Disposition::Completed, 1_000).await;
    journal.end(&taken[1], dead(), 2_000).await;

    let all = Filter::default();
    let echo = Filter { module: Some("Echo".into()), ..all.clone() };
    assert_eq!(journal.list(all.clone()).await.unwrap().len(), 12);
    assert_eq!(ids(&journal, echo.clone()).await, ["evt_5", "evt_4", "evt_3", "evt_2", "evt_1", "evt_0"]);
    assert_eq!(ids(&journal, Filter { limit: Some(2), ..echo.clone() }).await, ["evt_5", "evt_4"]);
    assert_eq!(
        ids(&journal, Filter { tenant: Some("other".into()), ..echo.clone() }).await,
        ["evt_5", "evt_3", "evt_1"]
    );
    assert_eq!(ids(&journal, Filter { state: Some(State::Dead), ..all.clone() }).await, ["evt_2"]);
    assert_eq!(
        ids(&journal, Filter { state: Some(State::Waiting), ..echo.clone() }).await,
        ["evt_5", "evt_4", "evt_3", "evt_1"]
    );
    assert_eq!(ids(&journal, Filter { since: Some(at(1_000)), ..all.clone() }).await, ["evt_2", "evt_0"]);
    assert_eq!(ids(&journal, Filter { since: Some(at(5)), ..echo.clone() }).await, ["evt_5", "evt_2", "evt_0"]);
    assert_eq!(ids(&journal, Filter { event: Some("evt_3".into()), ..all.clone() }).await, ["evt_3", "evt_3"]);
    let one =
        Filter { event: Some("evt_2".into()), state: Some(State::Dead), module: Some("Echo".into()), ..all.clone() };
    assert_eq!(ids(&journal, one).await, ["evt_2"]);
    assert!(ids(&journal, Filter { event: Some("evt_unknown".into()), ..all.clone() }).await.is_empty());
    assert!(ids(&journal, Filter { limit: Some(0), ..all }).await.is_empty());
}

async fn summarizes_the_state_of_a_delivery(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let id = journal.one("evt_1", 3).await;
    let read = async || journal.list(Filter::default()).await.unwrap().pop().unwrap();

    let waiting = read().await;
    assert_eq!((&waiting.id, waiting.event_name.as_str(), waiting.source.as_str()), (&id, "test.happened", "unique"));
    assert_eq!((waiting.tenant.as_str(), waiting.module.as_str()), ("acme", "Echo"));
    assert_eq!((waiting.state, waiting.attempts, waiting.due_at), (State::Waiting, 0, Some(at(3))));
    assert_eq!((waiting.received_at, waiting.changed_at, waiting.reason, waiting.version), (at(3), at(3), None, None));

    let claimed = journal.take(1, 10).await.pop().unwrap();
    let running = read().await;
    assert_eq!(
        (running.state, running.attempts, running.due_at, running.changed_at),
        (State::Running, 1, None, at(10))
    );

    journal.retry_at(&claimed, 700, 20).await;
    let retrying = read().await;
    assert_eq!((retrying.state, retrying.due_at, retrying.changed_at), (State::Waiting, Some(at(700)), at(20)));
    assert_eq!(retrying.reason.as_deref(), Some("the platform is down"));
    assert_eq!(retrying.version.as_deref(), Some("v1"));
}

async fn shows_everything_recorded_of_a_delivery(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let id = journal.one("evt_1", 0).await;
    let line =
        LogLine { at: 11, level: "info".into(), context: "stdout".into(), text: "größer \"und\" mehr\n".into() };
    let first = journal.take(1, 10).await.pop().unwrap();
    committed(journal.write(&first.lease, call(0, "answer"))).await;
    let failed = AttemptReport { outcome: "the platform is down".into(), log: vec![line], ..report() };
    journal.at(20).complete_attempt(&first.lease, failed.clone(), retry(80)).await.unwrap();
    let second = journal.take(1, 100).await.pop().unwrap();
    let answered = AttemptReport { version: None, ..report() };
    journal.at(110).complete_attempt(&second.lease, answered.clone(), Disposition::Completed).await.unwrap();

    let journal = journal.reopened().await;
    let details = journal.show(&id).await.unwrap().unwrap();
    assert_eq!(details.attempts, [attempt(&first, failed, 20), attempt(&second, answered, 110)]);
    assert_eq!(details.calls, [call(0, "answer")]);
    assert_eq!(*details.event, *event("evt_1"));
    let changes: Vec<_> =
        details.changes.iter().map(|change| (change.at, change.state, change.reason.as_deref())).collect();
    let expected = [
        (at(0), State::Waiting, None),
        (at(10), State::Running, None),
        (at(20), State::Waiting, Some("the platform is down")),
        (at(100), State::Running, None),
        (at(110), State::Completed, None),
    ];
    assert_eq!(changes, expected);
    assert!(journal.show(&DeliveryId::from_text("dlv_unknown")).await.unwrap().is_none());
}

async fn resends_only_ended_deliveries_and_restarts_their_schedule(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let id = journal.one("evt_1", 0).await;
    assert!(!journal.at(1).resend(&id, false).await.unwrap());
    let claimed = journal.take(1, 2).await.pop().unwrap();
    assert!(!journal.at(3).resend(&id, false).await.unwrap());
    committed(journal.write(&claimed.lease, call(0, "answer"))).await;
    journal.end(&claimed, dead(), 4).await;
    assert!(!journal.at(5).resend(&DeliveryId::from_text("dlv_unknown"), false).await.unwrap());

    assert!(journal.at(5).resend(&id, false).await.unwrap());
    let again = journal.take(1, 6).await.pop().unwrap();
    assert_eq!((again.attempt(), again.earlier_attempts, again.calls), (2, 1, 1));
    journal.end(&again, Disposition::Completed, 7).await;

    assert!(journal.at(8).resend(&id, true).await.unwrap());
    let fresh = journal.take(1, 9).await.pop().unwrap();
    assert_eq!((fresh.attempt(), fresh.earlier_attempts, fresh.calls), (3, 2, 0));
    assert!(journal.calls(&id).await.unwrap().is_empty());
}

async fn drops_only_waiting_deliveries(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let id = journal.one("evt_1", 0).await;
    let claimed = journal.take(1, 1).await.pop().unwrap();
    assert!(!journal.at(2).drop_waiting(&id, "not needed").await.unwrap());
    journal.retry_at(&claimed, 100, 3).await;
    assert!(journal.at(4).drop_waiting(&id, "not needed").await.unwrap());
    assert!(!journal.at(5).drop_waiting(&id, "not needed").await.unwrap());
    assert!(!journal.at(5).drop_waiting(&DeliveryId::from_text("dlv_unknown"), "not needed").await.unwrap());

    let summary = journal.show(&id).await.unwrap().unwrap().summary;
    assert_eq!((summary.state, summary.reason.as_deref()), (State::Dropped, Some("not needed")));
    assert!(journal.take(1, 1_000).await.is_empty());
    assert_eq!(journal.next_due().await.unwrap(), None);
}

#[tokio::test]
async fn reads_an_offline_journal_without_changing_it() {
    let journal = TestJournal::sqlite().await;
    let lease = journal.claimed("evt_1", 0).await.lease;
    let id = lease.delivery.clone();
    committed(journal.write(&lease, call(0, "answer"))).await;
    // The files of a killed host, whose commits are in the write-ahead log.
    let left = tempfile::tempdir().unwrap();
    let files = ["journal.sqlite", "journal.sqlite-wal"];
    for file in files {
        std::fs::copy(journal.directory.path().join(file), left.path().join(file)).unwrap();
    }
    let contents = || files.map(|file| std::fs::read(left.path().join(file)).unwrap());
    let before = contents();

    let offline = OfflineJournal::open(SqliteSettings { directory: left.path().to_owned() }).await.unwrap();
    let listed = offline.list(Filter { state: Some(State::Running), ..Filter::default() }).await.unwrap();
    assert_eq!(listed, journal.list(Filter::default()).await.unwrap());
    let details = offline.show(&id).await.unwrap().unwrap();
    assert_eq!(details.calls, [call(0, "answer")]);
    assert_eq!(offline.salt(), journal.salt());
    drop(offline);
    assert!(contents() == before, "reading changed the files");
}

#[tokio::test]
async fn creates_no_journal_when_reading() {
    let empty = tempfile::tempdir().unwrap();
    let Err(error) = OfflineJournal::open(SqliteSettings { directory: empty.path().to_owned() }).await else {
        panic!("the journal was opened")
    };
    assert!(error.to_string().contains("no journal"), "{error:?}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

async fn keeps_the_salt_of_each_journal(engine: Engine) {
    let (one, another) = (TestJournal::new(engine).await, TestJournal::new(engine).await);
    let salt = one.salt();
    assert_ne!(salt, another.salt());
    assert_eq!(one.reopened().await.salt(), salt);
}
