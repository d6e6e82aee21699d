//! High-water mark: a journal that has lost its last commits is refused unchanged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modhost_storage::error::StorageErrorKind;
use modhost_storage::journal::{Filter, Journal, OfflineJournal, Sqlite, SqliteSettings, State};
use tempfile::TempDir;

use crate::support::{TestJournal, call, claim, committed, event, lease, open, storage_error, to, try_open};

const WAL: &str = "journal.sqlite-wal";

/// Returns the files of a killed host: copied while a journal with that many events was open.
async fn killed(events: u64) -> TempDir {
    let journal = TestJournal::sqlite().await;
    for number in 0..events {
        let lease = journal.claimed(&format!("evt_{number}"), number).await.lease;
        committed(journal.write(&lease, call(0, vec![number as u8; 3_000]))).await;
    }
    copy(journal.directory.path())
}

/// Copies the files of a directory into a new one.
fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "journal.sqlite-shm" {
            fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

fn path(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}

async fn refused(directory: &Path) -> String {
    let (kind, text) = storage_error(try_open(directory).await.map(drop));
    assert_eq!(kind, StorageErrorKind::Unusable, "{text}");
    text
}

async fn events(journal: &Sqlite) -> u64 {
    journal.totals().await.unwrap().of(State::Running)
}

#[tokio::test]
async fn opens_the_files_of_a_killed_host_with_all_events() {
    let directory = killed(20).await;
    assert_eq!(events(&open(directory.path()).await).await, 20);
}

#[tokio::test]
async fn refuses_a_journal_without_its_log_and_opens_it_once_the_log_is_back() {
    let directory = killed(20).await;
    let (wal, file) = (path(&directory, WAL), path(&directory, "journal.sqlite"));
    let (saved, before) = (fs::read(&wal).unwrap(), fs::read(&file).unwrap());
    fs::remove_file(&wal).unwrap();
    let offline = OfflineJournal::open(SqliteSettings { directory: directory.path().to_owned() }).await.unwrap();
    assert!(offline.missing().is_some_and(|missing| missing.contains("60 of 60 changes are missing")));
    drop(offline);
    for _ in 0..2 {
        let text = refused(directory.path()).await;
        for words in ["60 of 60 changes are missing", WAL, "--accept-data-loss", "Nothing was changed"] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
        assert!(fs::read(&file).unwrap() == before);
    }
    fs::write(&wal, saved).unwrap();
    assert_eq!(events(&open(directory.path()).await).await, 20);
}

#[tokio::test]
async fn refuses_a_log_that_is_damaged_or_cut_short_anywhere() {
    let directory = killed(12).await;
    let whole = fs::read(path(&directory, WAL)).unwrap();
    let mut refusals = 0;
    // 4120 bytes are one page of the log with its header. The last page ends a commit.
    let offsets: Vec<usize> = (0..whole.len()).step_by(4120).chain([5, 30, whole.len() - 1]).collect();
    for offset in offsets {
        let mut damaged = whole.clone();
        damaged[offset] ^= 0xff;
        for content in [damaged, whole[..offset].to_vec()] {
            let copy = copy(directory.path());
            fs::write(path(&copy, WAL), &content).unwrap();
            match try_open(copy.path()).await {
                Ok(journal) => assert_eq!(events(&journal).await, 12, "commits were lost without an error at {offset}"),
                Err(error) => {
                    let (kind, text) = storage_error::<()>(Err(error));
                    assert_eq!(kind, StorageErrorKind::Unusable, "{text}");
                    refusals += 1;
                    assert!(text.contains("changes are missing") || text.contains("damaged"), "{text}");
                    assert!(fs::read(path(&copy, WAL)).unwrap() == content, "the log was changed ({offset})");
                }
            }
        }
    }
    assert!(refusals > 20, "only {refusals} were refused");
}

#[tokio::test]
async fn reports_the_time_of_the_missing_changes() {
    let journal = TestJournal::sqlite().await;
    journal.one("evt_1", 0).await;
    let older = copy(journal.directory.path());
    for number in 2..5 {
        journal.one(&format!("evt_{number}"), 0).await;
    }
    let newer = copy(journal.directory.path());
    // An older copy of the journal with a newer mark.
    fs::copy(path(&newer, "journal.mark"), path(&older, "journal.mark")).unwrap();
    let text = refused(older.path()).await;
    assert!(text.contains("3 of 4 changes are missing, committed after 2") && text.contains(" and up to 2"), "{text}");
}

#[tokio::test]
async fn opens_beside_a_mark_that_is_behind_missing_or_damaged() {
    let directory = killed(3).await;
    let mark = path(&directory, "journal.mark");
    let first = fs::read(&mark).unwrap();
    let other = fs::read(path(&killed(9).await, "journal.mark")).unwrap();
    let journal = open(directory.path()).await;
    journal.record(event("evt_new"), Vec::new()).await.unwrap();
    drop(journal);
    for content in [Some(first.clone()), None, Some(b"nonsense".to_vec()), Some(Vec::new()), Some(other)] {
        match &content {
            Some(content) => fs::write(&mark, content).unwrap(),
            None => fs::remove_file(&mark).unwrap(),
        }
        let journal = open(directory.path()).await;
        assert_eq!(events(&journal).await, 3);
        drop(journal);
        // The mark is written again, with the right count.
        assert_eq!(fs::read(&mark).unwrap().len(), first.len());
        assert_eq!(events(&open(directory.path()).await).await, 3);
    }
}

#[tokio::test]
async fn opens_an_empty_journal_in_place_of_one_that_was_moved_away() {
    let directory = killed(3).await;
    for name in ["journal.sqlite", WAL] {
        fs::remove_file(path(&directory, name)).unwrap();
    }
    for _ in 0..2 {
        let journal = open(directory.path()).await;
        assert!(journal.list(Filter::default()).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn raises_no_mark_when_nothing_changes() {
    let journal = TestJournal::sqlite().await;
    journal.one("evt_1", 0).await;
    let mark = fs::read(journal.directory.path().join("journal.mark")).unwrap();
    journal.heartbeat("host-1", Vec::new(), Duration::from_secs(30)).await.unwrap();
    journal.reclaim(Some("host-1")).await.unwrap();
    assert!(journal.claim(claim("nobody", 5)).await.unwrap().is_empty());
    journal.record(event("evt_1"), vec![to(&event("evt_1"), "Echo")]).await.unwrap();
    let stale = journal.write(&lease(&to(&event("evt_1"), "Echo").id), call(0, "answer")).unwrap().durable().await;
    assert!(stale.is_err());
    assert_eq!(fs::read(journal.directory.path().join("journal.mark")).unwrap(), mark);
    journal.probe().await.unwrap();
    assert_ne!(fs::read(journal.directory.path().join("journal.mark")).unwrap(), mark);
}
