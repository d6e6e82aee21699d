//! The files: one host's at a time, refused untouched when they are no good, brought up to date when they are old.

use std::path::Path;

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{Filter, Journal, JournalError, State};
use rusqlite::Connection;

use crate::support::{Kept, at, call, open, try_open};

/// The text with which a directory is refused.
async fn refused(directory: &Path) -> String {
    match try_open(directory).await {
        Err(JournalError::Unusable(text)) => text,
        Err(other) => panic!("refused as something else: {other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

/// A closed journal with a few deliveries in it, and its file.
async fn filled() -> (tempfile::TempDir, std::path::PathBuf) {
    let journal = Kept::new().await;
    for number in 0..20 {
        let id = journal.one(&format!("evt_{number}"), number).await;
        journal.write(&id, call(0, vec![number as u8; 20_000])).unwrap().on_disk().await.unwrap();
    }
    journal.close().await.unwrap();
    let Kept { directory, journal } = journal;
    drop(journal);
    let file = directory.path().join("journal.sqlite");
    (directory, file)
}

#[tokio::test]
async fn two_hosts_cannot_have_it_at_the_same_time() {
    let journal = Kept::new().await;
    let text = refused(journal.directory.path()).await;
    assert!(text.contains("another modhost"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    assert!(text.contains(journal.directory.path().to_str().unwrap()), "{text}");
    // The first goes on, and when it closes the next may come.
    journal.one("evt_1", 0).await;
    journal.reopened().await.one("evt_2", 0).await;
}

#[tokio::test]
async fn nothing_is_asked_of_a_closed_journal() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    journal.close().await.unwrap();
    assert!(matches!(journal.list(Filter::default()).await, Err(JournalError::Broken(why)) if why.contains("closed")));
    assert!(matches!(journal.reclaim(None, at(0)).await, Err(JournalError::Broken(why)) if why.contains("closed")));
    assert!(matches!(journal.write(&id, call(0, "")), Err(JournalError::Broken(why)) if why.contains("closed")));
    assert!(journal.close().await.is_err());
}

#[tokio::test]
async fn a_journal_of_a_newer_version_is_refused_untouched() {
    let (directory, file) = filled().await;
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&file).unwrap();
    let text = refused(directory.path()).await;
    assert!(text.contains("version 99") && text.contains("up to 3"), "{text}");
    assert!(text.contains(file.to_str().unwrap()), "{text}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

/// `v1.sql` is a journal as the first version wrote it; it is never made anew.
#[tokio::test]
async fn a_journal_of_the_first_version_opens() {
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
    let story = journal.show(&completed[0].id).await.unwrap().unwrap();
    assert_eq!(story.calls, [call(0, "answer"), call(1, vec![1; 9_000])]);
    assert_eq!(story.attempts.len(), 1);
    assert_eq!(story.attempts[0].log[0].text, "hello");
    assert_eq!(*story.event, *crate::support::event("evt_1"));
    // The two that wait are of one chat.
    let claimed = journal.claim(crate::support::claim("acme", 10, 100)).await.unwrap();
    assert_eq!(claimed.iter().map(|it| it.event.id.as_str()).collect::<Vec<_>>(), ["evt_3"]);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_journal_is_refused_untouched() {
    let other = tempfile::tempdir().unwrap().path().join("other.sqlite");
    std::fs::create_dir_all(other.parent().unwrap()).unwrap();
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    for (content, why) in [
        (b"Dear diary, today it rained and I stayed in. ".repeat(100), "no SQLite database"),
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
async fn a_truncated_journal_is_refused_untouched() {
    let (directory, file) = filled().await;
    let whole = std::fs::read(&file).unwrap();
    for length in [1, 50, 100, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let text = refused(directory.path()).await;
        assert!(text.contains("left as it is") || text.contains("was left as it is"), "{length}: {text}");
        assert_eq!(std::fs::read(&file).unwrap(), whole[..length], "{length}");
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(open(directory.path()).await.totals().await.unwrap().deliveries[0], 20);
}

#[tokio::test]
async fn a_damaged_journal_is_refused_untouched() {
    let (directory, file) = filled().await;
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 20 * 4096);
    // The first bytes of every page say what it is or where the next one is.
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
async fn damage_that_shows_only_later_is_told_as_such() {
    let (directory, file) = filled().await;
    let journal = open(directory.path()).await;
    let id = journal.list(Filter { limit: Some(1), ..Filter::default() }).await.unwrap().pop().unwrap().id;
    // Everything but the first page goes while it is open.
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(4096).unwrap();
    let another = DeliveryId::from_text(id.as_str());
    let Err(error) = journal.show(&another).await.and_then(|found| found.ok_or(JournalError::Broken("gone".into())))
    else {
        // What was read before may still be in memory; what was not can't be.
        assert!(journal.calls(&id).await.is_err());
        return;
    };
    assert!(matches!(error, JournalError::Unusable(_) | JournalError::Broken(_)), "{error:?}");
}

#[tokio::test]
async fn a_log_without_its_file_is_refused() {
    let journal = Kept::new().await;
    journal.one("evt_1", 0).await;
    let saved = tempfile::tempdir().unwrap();
    let wal = journal.directory.path().join("journal.sqlite-wal");
    std::fs::copy(&wal, saved.path().join("journal.sqlite-wal")).unwrap();
    let text = refused(saved.path()).await;
    assert!(text.contains("journal.sqlite-wal") && text.contains("bring that back"), "{text}");
    assert!(!saved.path().join("journal.sqlite").exists());
}

#[tokio::test]
async fn a_creation_that_broke_off_is_done_again() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("journal.sqlite.new"), b"half of a journal").unwrap();
    let journal = open(directory.path()).await;
    journal.close().await.unwrap();
    assert!(!directory.path().join("journal.sqlite.new").exists());
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let Err(error) = try_open(&path.join("data")).await else { panic!("it opened") };
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}
