//! What every engine records.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use modhost_core::event::Name;
use modhost_storage::versions::{
    ContentHash, Fact, HeldBack, Keep, ModuleState, NoteError, Origin, Progress, Role, Tally,
};

use crate::support::{Engine, TestRecord, by, component, echo, keep, note, on_every_engine, serves, version};

on_every_engine! {
    records_what_served_and_why_it_ended,
    keeps_the_state_over_a_restart,
    records_nothing_if_the_state_has_changed,
    one_of_concurrent_decisions_is_recorded,
    a_pause_conflicts_with_no_decision_about_versions,
    counts_a_trial_over_restarts,
    drops_results_of_a_trial_that_has_ended,
    keeps_components_within_the_limits,
    rejects_a_damaged_component,
    keeps_the_components_of_modules_that_come_up_together,
    forgets_the_oldest_entries,
}

fn tally(canary_runs: u64, canary_failed: u64, stable_runs: u64, stable_failed: u64) -> Tally {
    Tally { canary_runs, canary_failed, stable_runs, stable_failed }
}

async fn records_what_served_and_why_it_ended(engine: Engine) {
    let record = TestRecord::new(engine).await;
    keep(&*record, 1).await;
    note(&*record, vec![serves(1)]).await.unwrap();
    note(&*record, vec![Fact::Refused { hash: version(2), reason: "it traps".into() }]).await.unwrap();
    let rollback = Fact::Serves { hash: version(3), origin: Origin::Rollback, by: Some("ann".into()) };
    note(&*record, vec![rollback]).await.unwrap();
    let history = record.history(&echo()).await.unwrap();
    let summary: Vec<_> = history
        .iter()
        .map(|it| (it.hash, it.role, it.origin, it.requested_by.as_deref(), it.reason.as_deref(), it.has_component))
        .collect();
    let replaced = format!("replaced by {}", version(3));
    assert_eq!(
        summary,
        [
            (version(3), Role::Serving, Origin::Rollback, Some("ann"), None, false),
            (version(2), Role::Refused, Origin::File, None, Some("it traps"), false),
            (version(1), Role::Serving, Origin::File, None, Some(&*replaced), true),
        ]
    );
    assert!(history.windows(2).all(|pair| pair[0].id > pair[1].id && pair[0].started_at >= pair[1].started_at));
    assert!(history[0].ended_at.is_none() && history[1].ended_at.is_some());
    assert!(record.history(&Name::from("Other")).await.unwrap().is_empty());
}

async fn keeps_the_state_over_a_restart(engine: Engine) {
    let record = TestRecord::new(engine).await;
    let held_back = HeldBack { hash: version(3), why: "ann went back from it".into() };
    let facts = vec![
        serves(1),
        Fact::CanaryStarted { hash: version(2) },
        Fact::Pinned(Some((version(1), by("ann")))),
        Fact::HeldBack(Some(held_back.clone())),
        Fact::Paused(Some(by("bob"))),
    ];
    note(&*record, facts).await.unwrap();
    let before = record.module_state(&echo());
    let record = record.reopened().await;
    let after = record.module_state(&echo());
    assert_eq!(ModuleState { epoch: before.epoch, ..after.clone() }, before);
    assert_eq!(after.serving.map(|entry| entry.hash), Some(version(1)));
    assert_eq!(after.canary.map(|entry| entry.hash), Some(version(2)));
    assert_eq!((after.pinned, after.held_back), (Some((version(1), by("ann"))), Some(held_back)));
    assert_eq!(after.paused, Some(by("bob")));

    let facts = vec![
        Fact::CanaryEnded { reason: "ann ended its trial".into() },
        Fact::Pinned(None),
        Fact::HeldBack(None),
        Fact::Paused(None),
    ];
    note(&*record, facts).await.unwrap();
    let state = record.reopened().await.module_state(&echo());
    assert_eq!((state.canary, state.pinned, state.held_back, state.paused), (None, None, None, None));
    assert_eq!(state.serving.map(|entry| entry.hash), Some(version(1)));
}

async fn records_nothing_if_the_state_has_changed(engine: Engine) {
    let record = TestRecord::new(engine).await;
    let first = record.module_state(&echo()).epoch;
    let second = record.note(&echo(), first, vec![serves(1)]).await.unwrap();
    assert!(second > first);
    assert_eq!(record.module_state(&echo()).epoch, second);
    let facts = vec![serves(2), Fact::Pinned(Some((version(2), by("ann"))))];
    assert_eq!(record.note(&echo(), first, facts.clone()).await, Err(NoteError::Conflict));
    assert_eq!(record.history(&echo()).await.unwrap().len(), 1);
    assert_eq!(record.module_state(&echo()).pinned, None);
    // Another module has an epoch of its own.
    let other = Name::from("Other");
    record.note(&other, record.module_state(&other).epoch, vec![serves(2)]).await.unwrap();
    record.note(&echo(), second, facts).await.unwrap();
}

async fn one_of_concurrent_decisions_is_recorded(engine: Engine) {
    let record = Arc::new(TestRecord::new(engine).await);
    for round in 0..5 {
        let epoch = record.module_state(&echo()).epoch;
        let decisions = (0..8).map(|number| {
            let record = record.clone();
            tokio::spawn(async move { record.note(&echo(), epoch, vec![serves(round * 8 + number)]).await })
        });
        let results: Vec<_> = join_all(decisions).await.into_iter().map(|result| result.unwrap()).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| **result == Err(NoteError::Conflict)).count(), 7, "{results:?}");
    }
    assert_eq!(record.history(&echo()).await.unwrap().len(), 5);
}

async fn a_pause_conflicts_with_no_decision_about_versions(engine: Engine) {
    let record = TestRecord::new(engine).await;
    let epoch = note(&*record, vec![serves(1)]).await.unwrap();
    let paused = record.note(&echo(), epoch, vec![Fact::Paused(Some(by("ann")))]).await.unwrap();
    assert_eq!(paused, epoch);
    record.note(&echo(), epoch, vec![serves(2)]).await.unwrap();
    assert_eq!(record.module_state(&echo()).paused, Some(by("ann")));
}

async fn counts_a_trial_over_restarts(engine: Engine) {
    let record = TestRecord::new(engine).await;
    note(&*record, vec![serves(1), Fact::CanaryStarted { hash: version(2) }]).await.unwrap();
    let trial = record.module_state(&echo()).canary.unwrap().id;
    let count = async |record: &TestRecord, ended, seconds| {
        record.count_trial(&echo(), trial, ended, Duration::from_secs(seconds)).await.unwrap()
    };
    assert_eq!(count(&record, tally(3, 1, 10, 0), 5).await.tally, tally(3, 1, 10, 0));
    assert_eq!(count(&record, tally(1, 1, 0, 0), 6).await.tally, tally(4, 2, 10, 0));
    // Whatever else is recorded meanwhile.
    note(&*record, vec![Fact::Refused { hash: version(3), reason: "it traps".into() }]).await.unwrap();
    let record = record.reopened().await;
    let so_far = Progress { observed: Duration::from_secs(6), tally: tally(4, 2, 10, 0) };
    assert_eq!(record.module_state(&echo()).progress, so_far);
    let progress = Progress { observed: Duration::from_secs(9), tally: tally(5, 2, 10, 1) };
    assert_eq!(count(&record, tally(1, 0, 0, 1), 9).await, progress);
    assert_eq!(record.module_state(&echo()).progress, progress);
}

async fn drops_results_of_a_trial_that_has_ended(engine: Engine) {
    let record = TestRecord::new(engine).await;
    note(&*record, vec![serves(1), Fact::CanaryStarted { hash: version(2) }]).await.unwrap();
    let first = record.module_state(&echo()).canary.unwrap().id;
    let minute = Duration::from_secs(60);
    record.count_trial(&echo(), first, tally(9, 9, 9, 0), minute).await.unwrap();
    // Tried again: the results of the first trial don't count.
    let again = vec![Fact::CanaryEnded { reason: "it did worse".into() }, Fact::CanaryStarted { hash: version(2) }];
    note(&*record, again).await.unwrap();
    assert_eq!(record.count_trial(&echo(), first, tally(1, 1, 1, 1), minute).await.unwrap(), Progress::default());
    let state = record.module_state(&echo());
    let second = state.canary.unwrap().id;
    assert!(second > first && state.progress == Progress::default());
    let counted = record.count_trial(&echo(), second, tally(1, 0, 0, 0), Duration::from_secs(1)).await.unwrap();
    assert_eq!(counted, Progress { observed: Duration::from_secs(1), tally: tally(1, 0, 0, 0) });
}

async fn keeps_components_within_the_limits(engine: Engine) {
    let record = TestRecord::with(engine, Keep { of_module: 2, bytes: 1 << 20 }).await;
    for number in 0..6 {
        keep(&*record, number).await;
        note(&*record, vec![serves(number)]).await.unwrap();
    }
    note(&*record, vec![Fact::Pinned(Some((version(4), by("ann"))))]).await.unwrap();
    for number in 6..9 {
        keep(&*record, number).await;
        note(&*record, vec![serves(number)]).await.unwrap();
    }
    // The one kept last was not recorded when the others were removed.
    let mut kept = Vec::new();
    for number in 0..9 {
        kept.extend(record.component(version(number)).await.unwrap().map(|bytes| {
            assert_eq!(bytes, component(number));
            number
        }));
    }
    assert_eq!(kept, [4, 6, 7, 8]);
    let history = record.history(&echo()).await.unwrap();
    let has = |number| history.iter().any(|entry| entry.hash == version(number) && entry.has_component);
    assert!(has(8) && has(4) && !has(5));
}

async fn rejects_a_damaged_component(engine: Engine) {
    let record = TestRecord::new(engine).await;
    keep(&*record, 1).await;
    note(&*record, vec![serves(1)]).await.unwrap();
    let folder = if engine == Engine::Sqlite { "versions" } else { "versions-cache" };
    let file = record.directory.path().join(folder).join(format!("{}.wasm", version(1).to_hex()));
    std::fs::write(&file, component(2)).unwrap();
    // The copy of the database replaces a damaged one of the host.
    let expected = if engine == Engine::Sqlite { None } else { Some(component(1)) };
    assert_eq!(record.component(version(1)).await.unwrap(), expected);
    assert_eq!(std::fs::read(&file).ok(), expected);
}

/// Many modules come up at once: each component is written before its version is recorded, while others are purged.
async fn keeps_the_components_of_modules_that_come_up_together(engine: Engine) {
    let record = Arc::new(TestRecord::with(engine, Keep { of_module: 2, bytes: 1 << 20 }).await);
    let hash = |number: u16| ContentHash::of(&number.to_be_bytes());
    let come_up = |number: u16| {
        let record = record.clone();
        tokio::spawn(async move {
            record.keep(hash(number), Arc::from(number.to_be_bytes())).await.unwrap();
            let module = Name::from(format!("module-{number}").as_str());
            let serves = Fact::Serves { hash: hash(number), origin: Origin::File, by: None };
            record.note(&module, record.module_state(&module).epoch, vec![serves]).await.unwrap();
        })
    };
    join_all((0..100).map(come_up)).await.into_iter().for_each(|task| task.unwrap());
    for number in 0..100 {
        assert!(record.component(hash(number)).await.unwrap().is_some(), "the component of module-{number} is gone");
    }
}

async fn forgets_the_oldest_entries(engine: Engine) {
    let record = TestRecord::new(engine).await;
    note(&*record, vec![serves(1)]).await.unwrap();
    for number in 0..210 {
        let refused = Fact::Refused { hash: version(number), reason: format!("reason {number}") };
        note(&*record, vec![refused]).await.unwrap();
    }
    let history = record.history(&echo()).await.unwrap();
    assert_eq!(history.len(), 201, "the version that serves stays");
    assert_eq!(history[0].reason.as_deref(), Some("reason 209"));
    assert_eq!(history.last().map(|entry| entry.hash), Some(version(1)));
}
