//! The file: refused untouched when it is no good, and full disks.

use std::path::{Path, PathBuf};

use modhost_storage::error::StorageErrorKind;
use modhost_storage::keyvalue::{KeyValue, Sqlite};
use rusqlite::Connection;

use crate::small_disk::SmallDisk;
use crate::support::{TestStore, bucket, get, open, set, storage_error};

/// A closed store with some values in it, and its file.
async fn filled() -> (tempfile::TempDir, PathBuf) {
    let store = TestStore::new().await;
    for number in 0..20_u8 {
        set(&store, &bucket("default"), &format!("key-{number}"), vec![number; 20_000]).await.unwrap();
    }
    let TestStore { directory, store } = store.reopened().await;
    store.close().await.unwrap();
    drop(store);
    let file = directory.path().join("keyvalue.sqlite");
    (directory, file)
}

/// The text with which a directory is refused.
async fn refused(directory: &Path) -> String {
    let (kind, text) = storage_error(Sqlite::open(directory.to_owned()).await.map(drop));
    assert_eq!(kind, StorageErrorKind::Unusable, "{text}");
    text
}

#[tokio::test]
async fn what_was_set_is_there_when_it_is_opened_again() {
    let (directory, _) = filled().await;
    let store = open(directory.path()).await;
    assert_eq!(get(&store, &bucket("default"), "key-7").await, Some(vec![7; 20_000]));
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_untouched() {
    let (directory, file) = filled().await;
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&file).unwrap();
    let text = refused(directory.path()).await;
    assert!(text.contains("the key-value store") && text.contains("written by a newer modhost"), "{text}");
    assert!(text.contains("version 99") && text.contains(file.to_str().unwrap()), "{text}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn what_is_no_store_is_refused_untouched() {
    let (directory, file) = filled().await;
    let journal = Connection::open(directory.path().join("other.sqlite")).unwrap();
    journal.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    drop(journal);
    let other = std::fs::read(directory.path().join("other.sqlite")).unwrap();
    for (content, why) in [
        (b"Dear diary, today it rained and I stayed in. ".repeat(100), "no SQLite database"),
        (other, "another program's SQLite database"),
        (Vec::new(), "is empty"),
    ] {
        std::fs::write(&file, &content).unwrap();
        let text = refused(directory.path()).await;
        assert!(text.contains(why) && text.contains(file.to_str().unwrap()) && text.contains("backup"), "{text}");
        assert_eq!(std::fs::read(&file).unwrap(), content);
    }
}

#[tokio::test]
async fn a_damaged_store_is_refused_untouched() {
    let (directory, file) = filled().await;
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 20 * 4096);
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
    for length in [1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        refused(directory.path()).await;
        assert_eq!(std::fs::read(&file).unwrap(), whole[..length], "{length}");
    }
}

#[tokio::test]
async fn nothing_is_asked_of_a_closed_store() {
    let store = TestStore::new().await;
    store.close().await.unwrap();
    let ended = set(&store, &bucket("default"), "a", "b").await;
    let closed = (StorageErrorKind::Broken, "the key-value store fails: it was closed".to_owned());
    assert_eq!(storage_error(ended), closed);
    assert_eq!(storage_error(store.get(&bucket("default"), vec!["a".into()]).await), closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_gets_over() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let ballast = disk.ballast(4 * 1024 * 1024);
    let directory = disk.path().join("data");
    let (store, default) = (open(&directory).await, bucket("default"));
    let mut kept = 0;
    let error = loop {
        match set(&store, &default, &format!("key-{kept}"), vec![7; 50_000]).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1000, "the disk never fills up");
    };
    let (kind, text) = storage_error::<()>(Err(error));
    assert!(kind == StorageErrorKind::Full && text.contains(directory.to_str().unwrap()), "{text}");
    assert_eq!(get(&store, &default, &format!("key-{kept}")).await, None);

    std::fs::remove_file(ballast).unwrap();
    set(&store, &default, "after", "room").await.unwrap();
    store.close().await.unwrap();
    let store = open(&directory).await;
    assert_eq!(store.keys(&default, None, 10_000).await.unwrap().len(), kept + 1);
    assert_eq!(get(&store, &default, "after").await, Some(b"room".to_vec()));
}
