//! Tests with hostile components: each delivery ends with a reason that names the limit, the user gets an apology, the
//! host's memory doesn't grow, and another tenant's module keeps answering.
//!
//! The slowdown of the other module is printed (`--nocapture`); no test depends on it.

mod cases;
mod limits;
mod lines;
mod make;
mod neighbour;
mod refused;
mod stack;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use modhost_emulator as local;

use super::harness::{Gate, Host, Settings, chat, read_chat, say, until, wait_for_answer};
use cases::{Body, HOSTILE_GUESTS, HostileGuest};
use neighbour::Neighbour;

/// The default apology that a user reads when a module is ended.
const APOLOGY: &str = "Sorry, something went wrong and this can't be answered right now. Please try again later.";

/// The number of concurrent deliveries of a guest.
const CONCURRENT_DELIVERIES: usize = 3;

/// The maximum growth of the host during the deliveries of a guest, in bytes: the memory that its limits allow them,
/// and some more.
const MAX_GROWTH: u64 = 96 << 20;

#[tokio::test]
async fn every_hostile_guest_is_contained() {
    let nobody = Gate::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new()
        .tenants(&[("wild", local::COMPANY_ID), ("tame", neighbour::COMPANY)])
        .module("Neighbour", "test_guest", neighbour::ENTRY)
        .model(&nobody.url())
        .log("modhost=info,module=warn");
    for guest in HOSTILE_GUESTS {
        settings = guest.added_to(settings, folder.path());
    }
    let host = settings.start_in(folder).await;
    all_serve(&host).await;
    let neighbour = Neighbour::new(&host);
    let ((), quiet) = neighbour.answers_while(tokio::time::sleep(Duration::from_millis(300))).await;

    let mut table =
        format!("{:<32}{:>14}{:>10}{:>12}\n{:<32}{quiet}\n", "", "median", "worst", "host grew", "(nobody else)");
    for guest in HOSTILE_GUESTS {
        let before = Memory::of(&host);
        let (answers, neighbour) = neighbour.answers_while(guest.run_deliveries(&host)).await;
        let grew = Memory::of(&host).peak.saturating_sub(before.now);
        assert!(grew < MAX_GROWTH, "{}: the host grew by {} MiB", guest.name, grew >> 20);
        assert!(neighbour.count > 0, "{}: its neighbor never answered", guest.name);
        writeln!(table, "{:<32}{neighbour}{:>8} MiB", guest.name, grew >> 20).unwrap();
        for chat_id in answers {
            guest.check(&host, &chat_id).await;
        }
        guest.check_log(&host).await;
    }
    println!("time of a neighbor's delivery, post to end\n{table}");
    assert_eq!(chat(&host, "panics", "step-and reply still here").await.text(), "still here");
}

/// Waits until every module serves; panics if one is refused.
async fn all_serve(host: &Host) {
    for guest in HOSTILE_GUESTS {
        let module = until(guest.name, async || {
            let module = host.module(guest.name).await;
            (!module["version"].is_null() || !module["refused"].is_null()).then_some(module)
        })
        .await;
        assert!(module["refused"].is_null(), "{}: {}", guest.name, module["refused"]);
    }
}

impl HostileGuest {
    /// Adds the guest to the modules of a host and writes its component to the host's folder.
    fn added_to(&self, settings: Settings, folder: &Path) -> Settings {
        let common = r#"memory = "16MiB", answers = "256KiB""#;
        // On a busy machine, the CPU limit could be reached before the intended limit.
        let cpu = if self.reason == cases::CPU { ", cpu = \"200ms\"" } else { "" };
        let more = if self.limits.is_empty() { String::new() } else { format!(", {}", self.limits) };
        let lines = format!(
            "tenants = [\"wild\"]\nhttp = [\"nowhere.invalid\"]\nretry = {{ attempts = 1 }}\nlimits = {{ {common}{cpu}{more} }}"
        );
        match &self.body {
            Body::Command(_) => settings.module(self.name, "test_guest", &lines),
            Body::Parts(parts) => self.written(settings, folder, &parts.component(), &lines),
            Body::Whole(whole) => self.written(settings, folder, &whole.component(), &lines),
        }
    }

    fn written(&self, settings: Settings, folder: &Path, component: &[u8], lines: &str) -> Settings {
        let file = format!("{}.wasm", self.name);
        std::fs::write(folder.join(&file), component).unwrap();
        settings.module_file(self.name, &file, lines)
    }

    /// Runs the concurrent deliveries of the guest to their end; returns the ids of their chats.
    async fn run_deliveries(&self, host: &Host) -> Vec<String> {
        let text = match &self.body {
            Body::Command(command) => format!("step-and {command}"),
            Body::Parts(_) | Body::Whole(_) => "go".to_owned(),
        };
        join_all((0..CONCURRENT_DELIVERIES).map(async |_| {
            let chat_id = say(&host.platform, self.name, &text).await;
            wait_for_answer(host, &chat_id).await;
            chat_id
        }))
        .await
    }

    /// Checks the user's view: an apology without running steps, or an answer.
    async fn check(&self, host: &Host, chat_id: &str) {
        let chat = read_chat(&host.platform, chat_id).await;
        let reply = &chat["messages"][1];
        let contained = !self.reason.is_empty();
        assert_eq!(reply["text"] == APOLOGY, contained, "{}: {reply}", self.name);
        for step in reply["steps"].as_array().unwrap() {
            assert_eq!(step["status"], if contained { "FAILED" } else { "COMPLETED" }, "{}: {step}", self.name);
        }
    }

    /// Checks the operators' view: a log entry with the reason for every delivery.
    async fn check_log(&self, host: &Host) {
        let module = format!("module={} ", self.name);
        let what = format!("a log entry for {} with {:?} in:\n{}", self.name, self.reason, host.log());
        until(&what, async || {
            let words: Vec<&str> = match self.reason {
                [] => vec!["completed", &module],
                reason => [&["delivery failed", &module], reason].concat(),
            };
            (count_entries(host, &words) == CONCURRENT_DELIVERIES).then_some(())
        })
        .await;
    }
}

/// The number of log entries with all of these words. Continuation lines of an entry are indented.
fn count_entries(host: &Host, words: &[&str]) -> usize {
    let mut entries: Vec<String> = Vec::new();
    for line in host.log().lines() {
        match entries.last_mut().filter(|_| line.starts_with("    ")) {
            Some(entry) => entry.push_str(line),
            None => entries.push(line.to_owned()),
        }
    }
    entries.iter().filter(|entry| words.iter().all(|word| entry.contains(word))).count()
}

/// The memory of a host process, in bytes.
struct Memory {
    now: u64,
    peak: u64,
}

impl Memory {
    /// Returns the current memory, and the peak since the previous call.
    fn of(host: &Host) -> Self {
        let process = format!("/proc/{}", host.process_id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            kibibytes.unwrap_or_default() << 10
        };
        // If resetting the peak fails, the peak covers the whole lifetime, which makes the test only stricter.
        let _ = std::fs::write(format!("{process}/clear_refs"), "5");
        Self { now: field("VmRSS:"), peak: field("VmHWM:") }
    }
}
