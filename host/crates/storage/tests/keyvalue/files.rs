//! The file of the store: refused unchanged when it cannot be used. Also full disks.

use std::path::{Path, PathBuf};

use modhost_storage::error::StorageErrorKind;
use modhost_storage::keyvalue::{KeyValue, Sqlite};
use rusqlite::Connection;

use crate::small_disk::SmallDisk;
use crate::support::{Engine, TestStore, bucket, get, open, set, storage_error};

/// Creates a closed store with some values. Returns its directory and file.
async fn filled() -> (tempfile::TempDir, PathBuf) {
    let store = TestStore::new(Engine::Sqlite).await;
    for number in 0..20_u8 {
        set(&*store, &bucket("default"), &format!("key-{number}"), vec![number; 20_000]).await.unwrap();
    }
    let TestStore { directory, store, .. } = store.reopened().await;
    store.close().await.unwrap();
    drop(store);
    let file = directory.path().join("keyvalue.sqlite");
    (directory, file)
}

/// Opens the store in a directory, which must be refused as unusable. Returns the error.
async fn refused(directory: &Path) -> String {
    let (kind, text) = storage_error(Sqlite::open(directory.to_owned()).await.map(drop));
    assert_eq!(kind, StorageErrorKind::Unusable, "{text}");
    text
}

#[tokio::test]
async fn keeps_values_after_reopening() {
    let (directory, _) = filled().await;
    let store = open(directory.path()).await;
    assert_eq!(get(&store, &bucket("default"), "key-7").await, Some(vec![7; 20_000]));
}

#[tokio::test]
async fn refuses_a_store_of_a_newer_version_unchanged() {
    let (directory, file) = filled().await;
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&file).unwrap();
    let text = refused(directory.path()).await;
    assert!(text.contains("the key-value store") && text.contains("written by a newer modhost"), "{text}");
    assert!(text.contains("version 99") && text.contains(file.to_str().unwrap()), "{text}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn refuses_a_file_that_is_not_a_store_unchanged() {
    let (directory, file) = filled().await;
    let journal = Connection::open(directory.path().join("other.sqlite")).unwrap();
    journal.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    drop(journal);
    let other = std::fs::read(directory.path().join("other.sqlite")).unwrap();
    for (content, why) in [
        (b"Dear diary, today it rained and I stayed in. ".repeat(100), "not a SQLite database"),
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
async fn refuses_a_damaged_store_unchanged() {
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
async fn fails_operations_after_close() {
    let store = TestStore::new(Engine::Sqlite).await;
    store.close().await.unwrap();
    let result = set(&*store, &bucket("default"), "a", "b").await;
    let closed = (StorageErrorKind::Broken, "the key-value store fails: it was closed".to_owned());
    assert_eq!(storage_error(result), closed);
    assert_eq!(storage_error(store.get(&bucket("default"), vec!["a".into()]).await), closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_a_full_disk_and_recovers() {
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
