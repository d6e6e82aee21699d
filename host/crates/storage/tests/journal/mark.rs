//! A journal that has lost its last changes, whatever became of them, says so and is left as it is.

use std::fs;
use std::path::{Path, PathBuf};

use modhost_storage::journal::{AtRest, Filter, Journal, JournalError, Sqlite, SqliteSettings, State};
use tempfile::TempDir;

use crate::support::{Kept, at, call, event, open, to, try_open};

const WAL: &str = "journal.sqlite-wal";

/// What a host that was killed left behind: the files as they were while a journal with so many events was open.
async fn killed(events: u64) -> TempDir {
    let journal = Kept::new().await;
    for number in 0..events {
        let event = event(&format!("evt_{number}"));
        let delivery = to(&event, "Echo");
        journal.record(event, vec![delivery.clone()], at(number)).await.unwrap();
        journal.write(&delivery.id, call(0, vec![number as u8; 3_000])).unwrap().on_disk().await.unwrap();
    }
    copy(journal.directory.path())
}

/// The files of a directory, in one of their own.
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
    match try_open(directory).await {
        Err(JournalError::Unusable(text)) => text,
        Err(other) => panic!("refused as something else: {other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

async fn events(journal: &Sqlite) -> u64 {
    journal.totals().await.unwrap().of(State::Waiting)
}

#[tokio::test]
async fn what_a_killed_host_left_opens_with_all_its_events() {
    let directory = killed(20).await;
    assert_eq!(events(&open(directory.path()).await).await, 20);
}

#[tokio::test]
async fn a_removed_log_is_refused_with_what_is_missing_and_opens_once_it_is_back() {
    let directory = killed(20).await;
    let (wal, file) = (path(&directory, WAL), path(&directory, "journal.sqlite"));
    let (saved, before) = (fs::read(&wal).unwrap(), fs::read(&file).unwrap());
    fs::remove_file(&wal).unwrap();
    let at_rest = AtRest::open(SqliteSettings { directory: directory.path().to_owned() }).await.unwrap();
    assert!(at_rest.missing().is_some_and(|missing| missing.contains("40 of 40 changes are missing")));
    drop(at_rest);
    for _ in 0..2 {
        let text = refused(directory.path()).await;
        for words in ["40 of 40 changes are missing", WAL, "--accept-data-loss", "Nothing was changed"] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
        assert!(fs::read(&file).unwrap() == before);
    }
    fs::write(&wal, saved).unwrap();
    assert_eq!(events(&open(directory.path()).await).await, 20);
}

#[tokio::test]
async fn a_log_damaged_or_cut_short_anywhere_is_refused_or_loses_nothing() {
    let directory = killed(12).await;
    let whole = fs::read(path(&directory, WAL)).unwrap();
    let mut refusals = 0;
    // A page of the log with its header; the last one is a commit.
    let places: Vec<usize> = (0..whole.len()).step_by(4120).chain([5, 30, whole.len() - 1]).collect();
    for place in places {
        let mut damaged = whole.clone();
        damaged[place] ^= 0xff;
        for content in [damaged, whole[..place].to_vec()] {
            let copy = copy(directory.path());
            fs::write(path(&copy, WAL), &content).unwrap();
            match try_open(copy.path()).await {
                Ok(journal) => assert_eq!(events(&journal).await, 12, "silently shortened at {place}"),
                Err(JournalError::Unusable(text)) => {
                    refusals += 1;
                    assert!(text.contains("changes are missing") || text.contains("damaged"), "{text}");
                    assert!(fs::read(path(&copy, WAL)).unwrap() == content, "the log was changed at {place}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(refusals > 20, "only {refusals} were refused");
}

#[tokio::test]
async fn it_says_of_which_time_the_missing_changes_are() {
    let journal = Kept::new().await;
    journal.one("evt_1", 0).await;
    let older = copy(journal.directory.path());
    for number in 2..5 {
        journal.one(&format!("evt_{number}"), 0).await;
    }
    let newer = copy(journal.directory.path());
    // An older copy of both files, beside a newer mark.
    fs::copy(path(&newer, "journal.mark"), path(&older, "journal.mark")).unwrap();
    let text = refused(older.path()).await;
    assert!(text.contains("3 of 4 changes are missing, committed after 2") && text.contains(" and up to 2"), "{text}");
}

#[tokio::test]
async fn a_mark_that_is_behind_missing_damaged_or_anothers_keeps_nobody_out() {
    let directory = killed(3).await;
    let mark = path(&directory, "journal.mark");
    let first = fs::read(&mark).unwrap();
    let other = fs::read(path(&killed(9).await, "journal.mark")).unwrap();
    let journal = open(directory.path()).await;
    journal.record(event("evt_new"), Vec::new(), at(9)).await.unwrap();
    drop(journal);
    for content in [Some(first.clone()), None, Some(b"nonsense".to_vec()), Some(Vec::new()), Some(other)] {
        match &content {
            Some(content) => fs::write(&mark, content).unwrap(),
            None => fs::remove_file(&mark).unwrap(),
        }
        let journal = open(directory.path()).await;
        assert_eq!(events(&journal).await, 3);
        drop(journal);
        // It is there again, and true.
        assert_eq!(fs::read(&mark).unwrap().len(), first.len());
        assert_eq!(events(&open(directory.path()).await).await, 3);
    }
}

#[tokio::test]
async fn an_empty_journal_in_the_place_of_one_that_was_moved_away_opens() {
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
async fn what_changes_nothing_raises_no_mark() {
    let journal = Kept::new().await;
    journal.one("evt_1", 0).await;
    let mark = fs::read(journal.directory.path().join("journal.mark")).unwrap();
    journal.heartbeat("host-1", Vec::new(), at(1)).await.unwrap();
    journal.reclaim(Some("host-1"), at(1)).await.unwrap();
    assert!(journal.claim(crate::support::claim("nobody", 5, 1)).await.unwrap().is_empty());
    journal.record(event("evt_1"), vec![to(&event("evt_1"), "Echo")], at(1)).await.unwrap();
    assert_eq!(fs::read(journal.directory.path().join("journal.mark")).unwrap(), mark);
    journal.probe().await.unwrap();
    assert_ne!(fs::read(journal.directory.path().join("journal.mark")).unwrap(), mark);
}
