//! Replaces a component many times under steady load: no delivery is lost or fails, none is answered by two versions,
//! and replaced versions are freed from memory.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use modhost_storage::versions::ContentHash;
use serde_json::Value;

use super::harness::{Behavior, Host, Settings, chat, http, module_state, small_with, until};

/// The number of replacements.
const SWAPS: usize = 200;

/// Every n-th replacement is a file that can't serve.
const BROKEN: usize = 10;

/// The number of concurrent users.
const USERS: usize = 3;

/// The pause of each user between answer and next question: the load is steady and leaves time for the replacements.
const THINK_TIME: Duration = Duration::from_millis(100);

/// The padding of each version, in bytes. If all versions stayed in memory, they would take 50 MiB.
const PADDING: usize = 256 * 1024;

/// The number of replacements after which memory use should be stable.
const WARM_UP: usize = 40;

/// The memory growth allowed for the remaining replacements, in bytes: enough for warm pool slots and allocator
/// fragmentation, but less than a third of the versions.
const MAX_GROWTH: u64 = 16 << 20;

fn text(number: usize) -> String {
    format!("version {number}")
}

/// The file with this number: a version that replies with its number, or a file that can't serve.
fn file(number: usize) -> Vec<u8> {
    let mut bytes = small_with(&text(number), Behavior::Replies(1), PADDING);
    match number % (3 * BROKEN) {
        0 if number > 0 => bytes.truncate(bytes.len() / 2),
        BROKEN => bytes.clear(),
        left if left == 2 * BROKEN => bytes = wat::parse_str("(component)").unwrap(),
        _ => {}
    }
    bytes
}

/// The memory of the host process, in bytes.
#[cfg(target_os = "linux")]
fn memory(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[cfg(not(target_os = "linux"))]
fn memory(_: &Host) -> u64 {
    0
}

#[tokio::test]
async fn two_hundred_replacements_lose_nothing_and_leak_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), file(0)).unwrap();
    // Each pool slot stays warm for its last version; with few slots, all are warm soon.
    let settings = Settings::new().server("concurrency = 8").module_file("Test", "module.wasm", "").log("modhost=info");
    let host = settings.start_in(folder).await;
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));

    let user = async || {
        while !done.load(Ordering::Relaxed) {
            let answer = chat(&host, "Test", "which one are you?").await;
            assert!(answer.text().starts_with("version "), "unexpected answer: {}", answer.text());
            answered.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(THINK_TIME).await;
        }
    };
    let swaps = async {
        let mut warm = 0;
        for number in 1..=SWAPS {
            let bytes = file(number);
            match number % 2 {
                0 => host.save("module.wasm", &bytes),
                _ => fs::write(host.file("module.wasm"), &bytes).unwrap(),
            }
            if number.is_multiple_of(BROKEN) {
                until("a refusal", async || host.module("Test").await["refused"].as_str().map(drop)).await;
            } else {
                host.serves("Test", &bytes).await;
            }
            if number == WARM_UP {
                warm = memory(&host);
            }
        }
        done.store(true, Ordering::Relaxed);
        warm
    };
    let (warm, _) = futures::join!(swaps, futures::future::join_all((0..USERS).map(|_| user())));

    // Every delivery has a single attempt and was answered by the version that ran it.
    let versions: HashMap<String, String> =
        (0..=SWAPS).map(|number| (ContentHash::of(&file(number)).to_string(), text(number))).collect();
    let api = async |path: &str| -> Value {
        http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap().json().await.unwrap()
    };
    let deliveries = until("every delivery to complete", async || {
        let all = api("deliveries?limit=10000").await["deliveries"].as_array().unwrap().clone();
        all.iter().all(|delivery| delivery["state"] == "completed").then_some(all)
    })
    .await;
    assert_eq!(deliveries.len(), answered.load(Ordering::Relaxed));
    for delivery in &deliveries {
        assert_eq!(delivery["attempts"], 1, "{delivery}");
        let story = api(&format!("deliveries/{}", delivery["id"].as_str().unwrap())).await;
        let said = format!("\"{}\"", versions[delivery["version"].as_str().unwrap()]);
        assert!(story["calls"][0]["arguments"].to_string().contains(&said), "{said}: {story}");
    }
    assert_eq!(host.lines(&["delivery failed"]) + host.lines(&["attempt failed; retrying"]), 0, "{}", host.log());

    let now = until("the replaced versions to be freed", async || {
        let now = module_state(&host, "Test").await;
        (now["versions_loaded"] == 1 && now["in_flight"] == 0).then_some(now)
    })
    .await;
    assert_eq!(now["name"], "Test");
    let grown = memory(&host).saturating_sub(warm);
    assert!(grown < MAX_GROWTH, "{} MiB more than after {WARM_UP} swaps", grown >> 20);
}
