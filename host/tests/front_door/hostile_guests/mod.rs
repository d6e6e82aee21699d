//! Hostile components: whatever they do, they end with the name of what ended them, their users read something, the host
//! doesn't grow by it, and the modules of another tenant go on answering.
//!
//! By how much the others slow down is printed (`--nocapture`), and no test depends on it.

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

/// What a user reads when a module is ended.
const APOLOGY: &str = "Sorry, something went wrong and this can't be answered right now. Please try again later.";

/// How many deliveries of a guest run at once.
const HERD: usize = 3;

/// How much the host may grow while a herd runs, in bytes: what its limits let each have, and some room to work in.
const GROWTH: u64 = 96 << 20;

#[tokio::test]
async fn every_animal_is_contained_and_its_neighbours_answer() {
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

    let mut told =
        format!("{:<32}{:>14}{:>10}{:>12}\n{:<32}{quiet}\n", "", "median", "worst", "host grew", "(nobody else)");
    for guest in HOSTILE_GUESTS {
        let before = Memory::of(&host);
        let (answers, neighbour) = neighbour.answers_while(guest.let_loose(&host)).await;
        let grew = Memory::of(&host).peak.saturating_sub(before.now);
        assert!(grew < GROWTH, "{}: the host grew by {} MiB", guest.name, grew >> 20);
        assert!(neighbour.count > 0, "{}: its neighbour never answered", guest.name);
        writeln!(told, "{:<32}{neighbour}{:>8} MiB", guest.name, grew >> 20).unwrap();
        for chat_id in answers {
            guest.check(&host, &chat_id).await;
        }
        guest.is_told_of(&host).await;
    }
    println!("how long a neighbour's delivery takes, post to end\n{told}");
    assert_eq!(chat(&host, "panics", "step-and reply still here").await.text(), "still here");
}

/// Waits until every module serves; one that is refused is told of.
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
    /// Adds it to a host's modules, its component to the host's folder.
    fn added_to(&self, settings: Settings, folder: &Path) -> Settings {
        let common = r#"memory = "16MiB", answers = "256KiB""#;
        // On a busy machine others could come to it first.
        let cpu = if self.reason == cases::CPU { ", cpu = \"200ms\"" } else { "" };
        let more = if self.limits.is_empty() { String::new() } else { format!(", {}", self.limits) };
        let lines = format!(
            "tenants = [\"wild\"]\nhttp = [\"nowhere.invalid\"]\nretry = {{ attempts = 1 }}\nlimits = {{ {common}{cpu}{more} }}"
        );
        match &self.body {
            Body::Told(_) => settings.module(self.name, "test_guest", &lines),
            Body::Parts(parts) => self.written(settings, folder, &parts.component(), &lines),
            Body::Whole(whole) => self.written(settings, folder, &whole.component(), &lines),
        }
    }

    fn written(&self, settings: Settings, folder: &Path, component: &[u8], lines: &str) -> Settings {
        let file = format!("{}.wasm", self.name);
        std::fs::write(folder.join(&file), component).unwrap();
        settings.module_file(self.name, &file, lines)
    }

    /// Runs a herd of it to the end; answers with their chats.
    async fn let_loose(&self, host: &Host) -> Vec<String> {
        let text = match &self.body {
            Body::Told(command) => format!("step-and {command}"),
            Body::Parts(_) | Body::Whole(_) => "go".to_owned(),
        };
        join_all((0..HERD).map(async |_| {
            let chat_id = say(&host.platform, self.name, &text).await;
            wait_for_answer(host, &chat_id).await;
            chat_id
        }))
        .await
    }

    /// What the user sees: an apology and no step that still runs, or an answer.
    async fn check(&self, host: &Host, chat_id: &str) {
        let chat = read_chat(&host.platform, chat_id).await;
        let reply = &chat["messages"][1];
        let contained = !self.reason.is_empty();
        assert_eq!(reply["text"] == APOLOGY, contained, "{}: {reply}", self.name);
        for step in reply["steps"].as_array().unwrap() {
            assert_eq!(step["status"], if contained { "FAILED" } else { "COMPLETED" }, "{}: {step}", self.name);
        }
    }

    /// What the operators read: every delivery of the herd, with its reason.
    async fn is_told_of(&self, host: &Host) {
        let module = format!("module={} ", self.name);
        let what = format!("{} to be told of with {:?} in:\n{}", self.name, self.reason, host.log());
        until(&what, async || {
            let words: Vec<&str> = match self.reason {
                [] => vec!["completed", &module],
                reason => [&["delivery failed", &module], reason].concat(),
            };
            (told(host, &words) == HERD).then_some(())
        })
        .await;
    }
}

/// How many entries of the log have all of these words; the further lines of an entry are indented.
fn told(host: &Host, words: &[&str]) -> usize {
    let mut entries: Vec<String> = Vec::new();
    for line in host.log().lines() {
        match entries.last_mut().filter(|_| line.starts_with("    ")) {
            Some(entry) => entry.push_str(line),
            None => entries.push(line.to_owned()),
        }
    }
    entries.iter().filter(|entry| words.iter().all(|word| entry.contains(word))).count()
}

/// The memory of a host's process, in bytes.
struct Memory {
    now: u64,
    peak: u64,
}

impl Memory {
    /// What it has now, and had at the most since it was asked last.
    fn of(host: &Host) -> Self {
        let process = format!("/proc/{}", host.process_id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            kibibytes.unwrap_or_default() << 10
        };
        // Where this can't be written, peaks are those since the start, which only makes the test stricter.
        let _ = std::fs::write(format!("{process}/clear_refs"), "5");
        Self { now: field("VmRSS:"), peak: field("VmHWM:") }
    }
}
