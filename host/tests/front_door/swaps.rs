//! Swaps without end under steady load: no delivery is lost or fails, none is answered by two versions, and what no longer
//! serves is gone from memory.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use modhost_storage::versions::ContentHash;
use serde_json::Value;

use super::harness::{Does, Host, Settings, chat, http, small_that, standing, until};

/// How often the file is replaced.
const SWAPS: usize = 200;

/// Every so many times by something that can't serve.
const BROKEN: usize = 10;

/// How many people talk to the module meanwhile.
const PEOPLE: usize = 3;

/// How long each of them reads an answer before the next question: the load is steady, and leaves room for the swaps.
const READING: Duration = Duration::from_millis(100);

/// What each version carries along: kept in memory, the versions would be 50 MiB.
const LOAD: usize = 256 * 1024;

/// After so many swaps the host has all the memory it needs to make them.
const WARM: usize = 40;

/// How much more memory it may take for the others: the pool's places and the allocator's holes, and not one in three of
/// the versions.
const ROOM: u64 = 16 << 20;

fn text(number: usize) -> String {
    format!("version {number}")
}

/// The file of a number: a version that says its number, or nothing that can serve.
fn file(number: usize) -> Vec<u8> {
    let mut bytes = small_that(&text(number), Does::Replies(1), LOAD);
    match number % (3 * BROKEN) {
        0 if number > 0 => bytes.truncate(bytes.len() / 2),
        BROKEN => bytes.clear(),
        left if left == 2 * BROKEN => bytes = wat::parse_str("(component)").unwrap(),
        _ => {}
    }
    bytes
}

/// The memory of a process, in bytes.
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
async fn two_hundred_swaps_lose_and_mix_nothing_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), file(0)).unwrap();
    // Each place of the pool stays warm for the version it had last: with few, all are warm soon.
    let settings = Settings::new().server("concurrency = 8").module_file("Test", "module.wasm", "").log("modhost=info");
    let host = settings.start_in(folder).await;
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));

    let person = async || {
        while !over.load(Ordering::Relaxed) {
            let answer = chat(&host, "Test", "which one are you?").await;
            assert!(answer.text().starts_with("version "), "no version says this: {}", answer.text());
            answered.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(READING).await;
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
            if number == WARM {
                warm = memory(&host);
            }
        }
        over.store(true, Ordering::Relaxed);
        warm
    };
    let (warm, _) = futures::join!(swaps, futures::future::join_all((0..PEOPLE).map(|_| person())));

    // No delivery was lost or tried twice, and each was answered by the version that ran.
    let versions: HashMap<String, String> =
        (0..=SWAPS).map(|number| (ContentHash::of(&file(number)).to_string(), text(number))).collect();
    let api = async |path: &str| -> Value {
        http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap().json().await.unwrap()
    };
    let deliveries = until("every delivery to be settled", async || {
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

    let now = until("the versions before to be gone", async || {
        let now = standing(&host, "Test").await;
        (now["versions_loaded"] == 1 && now["in_flight"] == 0).then_some(now)
    })
    .await;
    assert_eq!(now["name"], "Test");
    let grown = memory(&host).saturating_sub(warm);
    assert!(grown < ROOM, "{} MiB more than after {WARM} swaps", grown >> 20);
}
