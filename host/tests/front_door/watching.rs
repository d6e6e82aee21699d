//! Tests of the file watcher: every way of changing a file is noticed, and partial content is never used.

#![cfg(unix)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::harness::{Host, Settings, modules_json, small, until};

async fn host(file: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, small("one")).unwrap();
    Settings::new().module_file("Test", file, "").start_in(folder).await
}

#[tokio::test]
async fn serves_a_slowly_written_file_once_complete() {
    let host = host("module.wasm").await;
    let whole = small("two");
    // A slow build tool: each partial file stays until the host has read and rejected it.
    let mut file = File::create(host.file("module.wasm")).unwrap();
    for (piece, words) in
        [(0..0, "the file is empty"), (0..20, "the file is truncated"), (20..whole.len() / 2, "the file is truncated")]
    {
        file.write_all(&whole[piece]).unwrap();
        until(words, async || host.module("Test").await["refused"].as_str()?.contains(words).then_some(())).await;
        assert_eq!(
            host.module("Test").await["version"],
            modhost_storage::versions::ContentHash::of(&small("one")).to_string()
        );
    }
    file.write_all(&whole[whole.len() / 2..]).unwrap();
    host.serves("Test", &whole).await;
}

#[tokio::test]
async fn notices_every_way_of_saving() {
    let host = host("module.wasm").await;
    // As vim saves with a backup: it renames the old file, writes the new one under its name, and deletes the backup.
    fs::rename(host.file("module.wasm"), host.file("module.wasm~")).unwrap();
    fs::write(host.file("module.wasm"), small("two")).unwrap();
    fs::remove_file(host.file("module.wasm~")).unwrap();
    host.serves("Test", &small("two")).await;
    // As `cp -p`: same length, same modification time, same inode.
    let time = fs::metadata(host.file("module.wasm")).unwrap().modified().unwrap();
    let mut file = File::options().write(true).open(host.file("module.wasm")).unwrap();
    assert_eq!(small("two").len(), small("own").len());
    file.write_all(&small("own")).unwrap();
    file.set_modified(time).unwrap();
    host.serves("Test", &small("own")).await;
}

#[tokio::test]
async fn ignores_rewrites_of_the_same_content() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["same", "other"] {
        fs::write(folder.path().join(format!("{name}.wasm")), small("one")).unwrap();
    }
    let settings = Settings::new().module_file("Same", "same.wasm", "").module_file("Other", "other.wasm", "");
    let host = settings.start_in(folder).await;
    for reply in ["two", "three"] {
        host.save("same.wasm", small("one"));
        host.save("other.wasm", small(reply));
        host.serves("Other", &small(reply)).await;
    }
    assert_eq!(modules_json(&host, &["history", "Other"]).await.len(), 3);
    assert_eq!(modules_json(&host, &["history", "Same"]).await.len(), 1);
    assert_eq!(host.lines(&["serves", "module=Same"]), 1, "{}", host.log());
}

/// As Kubernetes mounts a config map: the files are links into `..data`, which links to a folder per version and is
/// replaced by a rename.
#[tokio::test]
async fn follows_a_replaced_config_map() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("mount");
    let release = |name: &str, reply: &str| {
        fs::create_dir_all(mount.join(name)).unwrap();
        fs::write(mount.join(name).join("module.wasm"), small(reply)).unwrap();
    };
    release("..2026_01", "one");
    symlink("..2026_01", mount.join("..data")).unwrap();
    symlink("..data/module.wasm", mount.join("module.wasm")).unwrap();
    let host = Settings::new().module_file("Test", "mount/module.wasm", "").start_in(folder).await;
    for (now, before, reply) in [("..2026_02", "..2026_01", "two"), ("..2026_03", "..2026_02", "three")] {
        release(now, reply);
        symlink(now, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        fs::remove_dir_all(mount.join(before)).unwrap();
        host.serves("Test", &small(reply)).await;
    }
    assert_eq!(host.lines(&["ERROR"]), 0, "{}", host.log());
}

#[tokio::test]
async fn notices_deleted_and_recreated_folders() {
    let host = host("built/release/module.wasm").await;
    for reply in ["two", "three"] {
        fs::remove_dir_all(host.file("built")).unwrap();
        fs::create_dir_all(host.file("built/release")).unwrap();
        host.save("built/release/module.wasm", small(reply));
        host.serves("Test", &small(reply)).await;
        // Changes in the new folder are noticed.
        let more = format!("{reply} and more");
        host.save("built/release/module.wasm", small(&more));
        host.serves("Test", &small(&more)).await;
    }
    fs::rename(host.file("built"), host.file("moved")).unwrap();
    until("the deleted file to be noticed", async || {
        host.module("Test").await["refused"].as_str()?.contains("can't read").then_some(())
    })
    .await;
    fs::rename(host.file("moved"), host.file("built")).unwrap();
    host.serves("Test", &small("three and more")).await;
}

#[tokio::test]
async fn notices_many_concurrent_changes() {
    const MODULES: usize = 30;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new();
    for number in 0..MODULES {
        fs::write(folder.path().join(format!("{number}.wasm")), small(&format!("{number}"))).unwrap();
        settings = settings.module_file(&format!("M{number}"), &format!("{number}.wasm"), "");
    }
    let host = settings.start_in(folder).await;
    for number in 0..MODULES {
        fs::write(host.file(&format!("{number}.wasm")), small(&format!("{number} again"))).unwrap();
    }
    for number in 0..MODULES {
        host.serves(&format!("M{number}"), &small(&format!("{number} again"))).await;
    }
}

#[tokio::test]
async fn endlessly_written_file_does_not_delay_others() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::write(folder.path().join(format!("{name}.wasm")), small("one")).unwrap();
    }
    let host = Settings::new().module_file("A", "a.wasm", "").module_file("B", "b.wasm", "").start_in(folder).await;
    let done = AtomicBool::new(false);
    let writing = async {
        let mut file = File::create(host.file("a.wasm")).unwrap();
        while !done.load(Ordering::Relaxed) {
            file.write_all(b"more").unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let other = async {
        host.save("b.wasm", small("two"));
        host.serves("B", &small("two")).await;
        done.store(true, Ordering::Relaxed);
    };
    futures::join!(writing, other);
    until("the endlessly written file to be read eventually", async || {
        host.module("A").await["refused"].as_str().map(drop)
    })
    .await;
}
