//! The files of the SQLite engine: locked by one host, migrated if they are of an older version, and refused unchanged
//! if they cannot be used.

use std::path::Path;

use modhost_core::event::DeliveryId;
use modhost_storage::error::StorageErrorKind;
use modhost_storage::journal::{Details, Disposition, Filter, Journal, OfflineJournal, SqliteSettings, State};
use rusqlite::Connection;

use crate::support::{
    Engine, TO_VERSION_4, TestJournal, call, claim, committed, dead, on_every_engine, open, storage_error, try_open,
};

on_every_engine! { fails_every_operation_after_close }

/// Opens the journal in a directory, which must be refused as unusable. Returns the error.
async fn refused(directory: &Path) -> String {
    let (kind, text) = storage_error(try_open(directory).await.map(drop));
    assert_eq!(kind, StorageErrorKind::Unusable, "{text}");
    text
}

/// Creates a closed journal with a few deliveries. Returns its directory and file.
async fn filled() -> (tempfile::TempDir, std::path::PathBuf) {
    let journal = TestJournal::sqlite().await;
    for number in 0..20 {
        let lease = journal.claimed(&format!("evt_{number}"), number).await.lease;
        committed(journal.write(&lease, call(0, vec![number as u8; 20_000]))).await;
    }
    journal.close().await.unwrap();
    let TestJournal { directory, journal, .. } = journal;
    drop(journal);
    let file = directory.path().join("journal.sqlite");
    (directory, file)
}

#[tokio::test]
async fn refuses_a_second_host() {
    let journal = TestJournal::sqlite().await;
    let text = refused(journal.directory.path()).await;
    assert!(text.contains("another modhost"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    assert!(text.contains(journal.directory.path().to_str().unwrap()), "{text}");
    // The first host continues. Once it closes the journal, another host can open it.
    journal.one("evt_1", 0).await;
    journal.reopened().await.one("evt_2", 0).await;
}

async fn fails_every_operation_after_close(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let lease = journal.claimed("evt_1", 0).await.lease;
    journal.close().await.unwrap();
    for error in [
        storage_error(journal.list(Filter::default()).await),
        storage_error(journal.reclaim(None).await),
        storage_error(journal.write(&lease, call(0, "")).map(drop)),
        storage_error(journal.close().await),
    ] {
        assert_eq!(error, (StorageErrorKind::Broken, "the journal fails: it was closed".to_owned()));
    }
}

#[tokio::test]
async fn refuses_a_journal_of_a_newer_version_unchanged() {
    let (directory, file) = filled().await;
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&file).unwrap();
    let text = refused(directory.path()).await;
    assert!(text.contains("version 99") && text.contains("up to 5"), "{text}");
    assert!(text.contains(file.to_str().unwrap()), "{text}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

/// `v1.sql` is a dump of a journal that the first version wrote. It is never regenerated.
#[tokio::test]
async fn opens_a_journal_of_the_first_version() {
    let directory = tempfile::tempdir().unwrap();
    let tables = Connection::open(directory.path().join("journal.sqlite")).unwrap();
    tables.execute_batch(include_str!("v1.sql")).unwrap();
    drop(tables);

    let journal = open(directory.path()).await;
    assert_eq!(journal.totals().await.unwrap().deliveries, [2, 0, 1, 1, 0]);
    let listed = journal.list(Filter::default()).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|it| (it.event_id.as_str(), it.state)).collect();
    assert_eq!(
        listed,
        [("evt_4", State::Waiting), ("evt_3", State::Waiting), ("evt_2", State::Dead), ("evt_1", State::Completed)]
    );
    let completed = journal.list(Filter { event: Some("evt_1".into()), ..Filter::default() }).await.unwrap();
    let details = journal.show(&completed[0].id).await.unwrap().unwrap();
    assert_eq!(details.calls, [call(0, "answer"), call(1, vec![1; 9_000])]);
    assert_eq!(details.attempts.len(), 1);
    assert_eq!(details.attempts[0].log[0].text, "hello");
    assert_eq!(*details.event, *crate::support::event("evt_1"));
    // The two waiting deliveries are in one chat, so only the first can be claimed.
    let claimed = journal.claim(claim("acme", 10)).await.unwrap();
    assert_eq!(claimed.iter().map(|it| it.event.id.as_str()).collect::<Vec<_>>(), ["evt_3"]);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn refuses_a_file_that_is_no_journal_unchanged() {
    let other = tempfile::tempdir().unwrap().path().join("other.sqlite");
    std::fs::create_dir_all(other.parent().unwrap()).unwrap();
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    for (content, why) in [
        (b"Dear diary, today it rained and I stayed in. ".repeat(100), "not a SQLite database"),
        (std::fs::read(&other).unwrap(), "another program's SQLite database"),
        (Vec::new(), "is empty"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("journal.sqlite");
        std::fs::write(&file, &content).unwrap();
        let text = refused(directory.path()).await;
        assert!(text.contains(why), "{text}");
        assert!(text.contains(file.to_str().unwrap()) && text.contains("backup"), "{text}");
        assert_eq!(std::fs::read(&file).unwrap(), content);
    }
}

#[tokio::test]
async fn refuses_a_truncated_journal_unchanged() {
    let (directory, file) = filled().await;
    let whole = std::fs::read(&file).unwrap();
    for length in [1, 50, 100, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let text = refused(directory.path()).await;
        assert!(text.contains("left as it is") || text.contains("was left as it is"), "{length}: {text}");
        assert_eq!(std::fs::read(&file).unwrap(), whole[..length], "{length}");
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(open(directory.path()).await.totals().await.unwrap().of(State::Running), 20);
}

#[tokio::test]
async fn refuses_a_damaged_journal_unchanged() {
    let (directory, file) = filled().await;
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 20 * 4096);
    // The first bytes of a page contain its type or the number of the next page.
    for page in 0..whole.len() / 4096 {
        let mut damaged = whole.clone();
        for byte in &mut damaged[page * 4096..page * 4096 + 8] {
            *byte ^= 0xff;
        }
        std::fs::write(&file, &damaged).unwrap();
        let text = refused(directory.path()).await;
        assert!(text.contains("backup") && text.contains(file.to_str().unwrap()), "page {page}: {text}");
        assert!(std::fs::read(&file).unwrap() == damaged, "page {page} was changed");
    }
}

#[tokio::test]
async fn reports_damage_that_occurs_while_open() {
    let (directory, file) = filled().await;
    let journal = open(directory.path()).await;
    let id = journal.list(Filter { limit: Some(1), ..Filter::default() }).await.unwrap().pop().unwrap().id;
    // Removes all pages except the first one while the journal is open.
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(4096).unwrap();
    let another = DeliveryId::from_text(id.as_str());
    let shown = match journal.show(&another).await {
        // The page cache may still contain the pages of the delivery, but not those of its calls.
        Ok(Some(_)) => journal.calls(&id).await.map(drop),
        Ok(None) => return,
        Err(error) => Err(error),
    };
    let (kind, text) = storage_error(shown);
    assert!(matches!(kind, StorageErrorKind::Unusable | StorageErrorKind::Broken), "{text}");
}

#[tokio::test]
async fn refuses_a_write_ahead_log_without_its_database() {
    let journal = TestJournal::sqlite().await;
    journal.one("evt_1", 0).await;
    let saved = tempfile::tempdir().unwrap();
    let wal = journal.directory.path().join("journal.sqlite-wal");
    std::fs::copy(&wal, saved.path().join("journal.sqlite-wal")).unwrap();
    let text = refused(saved.path()).await;
    assert!(text.contains("journal.sqlite-wal") && text.contains("restore that file"), "{text}");
    assert!(!saved.path().join("journal.sqlite").exists());
}

#[tokio::test]
async fn repeats_an_interrupted_creation() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("journal.sqlite.new"), b"half of a journal").unwrap();
    let journal = open(directory.path()).await;
    journal.close().await.unwrap();
    assert!(!directory.path().join("journal.sqlite.new").exists());
}

#[tokio::test]
async fn names_a_directory_it_cannot_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let Err(error) = try_open(&path.join("data")).await else { panic!("the journal was opened") };
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

/// The rows of version 5 contain their last change and attempt; those that version 4 wrote have rows of their own for them.
#[tokio::test]
async fn keeps_the_history_of_deliveries_that_version_4_wrote() {
    let journal = TestJournal::sqlite().await;
    for number in 0..12 {
        let claimed = journal.claimed(&format!("evt_{number}"), number).await;
        match number % 4 {
            0 => {}
            1 => journal.end(&claimed, dead(), number + 20).await,
            2 => journal.retry_at(&claimed, 5_000, number + 20).await,
            _ => journal.end(&claimed, Disposition::Completed, number + 20).await,
        }
    }
    journal.one("evt_waiting", 50).await;
    let all = async |journal: &TestJournal| {
        let mut all = Vec::new();
        for summary in journal.list(Filter::default()).await.unwrap() {
            let Details { changes, attempts, .. } = journal.show(&summary.id).await.unwrap().unwrap();
            let of_event = Filter { event: Some(summary.event_id.clone()), ..Filter::default() };
            assert_eq!(journal.list(of_event).await.unwrap(), std::slice::from_ref(&summary));
            all.push((summary, changes, attempts));
        }
        all
    };
    let before = all(&journal).await;
    let (directory, clock) = journal.closed().await;
    Connection::open(directory.path().join("journal.sqlite")).unwrap().execute_batch(TO_VERSION_4).unwrap();
    let offline = OfflineJournal::open(SqliteSettings { directory: directory.path().to_owned() }).await.unwrap();
    for (summary, changes, attempts) in &before {
        let read = offline.show(&summary.id).await.unwrap().unwrap();
        assert_eq!((&read.summary, &read.changes, &read.attempts), (summary, changes, attempts), "offline");
    }
    drop(offline);
    let journal = TestJournal::in_directory(directory, clock).await;
    assert_eq!(all(&journal).await, before);
    // They go on as others do.
    for (summary, changes, _) in &before {
        if journal.at(9_000).resend(&summary.id, false).await.unwrap() {
            let after = journal.show(&summary.id).await.unwrap().unwrap().changes;
            assert_eq!(after[..changes.len()], changes[..]);
            assert_eq!(after.len(), changes.len() + 1);
        }
    }
    assert_eq!(journal.take(100, 9_000).await.len(), 10);
}
