//! Tests of the compiled-code cache: entries are mapped if they are unmodified and private to the user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::harness::{Host, Settings, chat};

/// Counts how often a component was compiled or mapped.
fn count(host: &Host, word: &str) -> usize {
    host.log().lines().filter(|line| line.contains("DEBUG") && line.contains(word)).count()
}

/// Lists the compiled components in a data directory.
fn cache_entries(data: &Path) -> Vec<PathBuf> {
    fs::read_dir(data.join("components")).unwrap().map(|file| file.unwrap().path()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Settings with a data directory that outlives the host.
fn settings(data: &Path) -> Settings {
    Settings::test_guest("").args(&["--data-dir", data.to_str().unwrap()])
}

#[tokio::test]
async fn compiles_a_component_once() {
    let data = tempfile::tempdir().unwrap();
    // Three modules with the same component: it is compiled once for all of them.
    let more = settings(data.path()).module("Second", "test_guest", "").module("Third", "test_guest", "");
    let mut host = more.start().await;
    assert_eq!(chat(&host, "Third", "reply hello").await.text(), "hello");
    assert_eq!((count(&host, "component compiled"), count(&host, "loaded from the cache")), (1, 0), "{}", host.log());
    host.stop().await;

    let files = cache_entries(data.path());
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!((mode(&data.path().join("components")), mode(&files[0])), (0o700, 0o600));

    let host = more.start().await;
    assert_eq!(chat(&host, "Second", "reply hello").await.text(), "hello");
    assert_eq!((count(&host, "component compiled"), count(&host, "loaded from the cache")), (0, 1), "{}", host.log());
}

#[tokio::test]
async fn recompiles_a_modified_cache_entry() {
    let data = tempfile::tempdir().unwrap();
    let mut host = settings(data.path()).start().await;
    host.stop().await;
    let file = cache_entries(data.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    for damaged in [&changed[..], &whole[..whole.len() / 2], b""] {
        fs::write(&file, damaged).unwrap();
        let mut host = settings(data.path()).start().await;
        host.logged(&["WARN", "compiling it again", "its bytes don't match the hash in its name"]).await;
        assert_eq!(chat(&host, "Test", "reply hello").await.text(), "hello");
        host.stop().await;
        assert_eq!(fs::read(&file).unwrap().len(), whole.len());
    }
}

#[tokio::test]
async fn makes_the_cache_folder_private() {
    let data = tempfile::tempdir().unwrap();
    settings(data.path()).start().await.stop().await;
    let folder = data.path().join("components");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    // Another user could have planted a file under the name of a cache entry.
    let host = settings(data.path()).start().await;
    host.logged(&["WARN", "other users could write to the cache"]).await;
    assert_eq!(chat(&host, "Test", "reply hello").await.text(), "hello");
    assert_eq!((count(&host, "component compiled"), count(&host, "loaded from the cache")), (1, 0), "{}", host.log());
    assert_eq!(mode(&folder), 0o700);
}

#[tokio::test]
async fn serves_without_a_cache_folder() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("components"), "a file").unwrap();
    let host = settings(data.path()).start().await;
    host.logged(&["WARN", "compiled components are not kept"]).await;
    assert_eq!(chat(&host, "Test", "reply hello").await.text(), "hello");
}
