//! What an author reads about a module that broke: its own message, where its language has one.

use serde_json::Value;

use super::harness::{Host, Ran, chat, modhost, until};
use super::sample::Sample;

/// What `deliveries show` tells of the delivery that failed.
async fn story(host: &Host) -> String {
    let dead = until("a delivery that is dead", async || {
        let list = deliveries(host, &["list", "--state", "dead", "--json"]).await.stdout;
        list.lines().next().map(|line| serde_json::from_str::<Value>(line).unwrap())
    })
    .await;
    deliveries(host, &["show", dead["id"].as_str().unwrap()]).await.stdout
}

async fn deliveries(host: &Host, args: &[&str]) -> Ran {
    let ran = modhost(host.folder(), "deliveries", &[&["--admin", host.admin.as_str()], args].concat(), &[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

#[tokio::test]
async fn a_panic_of_go_is_told_with_its_stack() {
    let sample = Sample { name: "Broken", folder: "host/tests/languages/faults/go", tool: "go" };
    let Some(settings) = sample.settings() else { return };
    let host = sample.start(settings).await;
    let answer = chat(&host, sample.name, "Break").await;
    assert_eq!(answer.steps(), [("Breaking…", "FAILED")]);
    assert!(answer.text().starts_with("Sorry, something went wrong"), "{}", answer.text());
    let story = story(&host).await;
    assert!(story.contains("panic: runtime error: index out of range [5] with length 5"), "{story}");
    assert!(story.contains("main.letter") && story.contains("broken.go:"), "{story}");
}

#[tokio::test]
async fn a_failed_assertion_of_c_is_told_with_its_place() {
    let sample = Sample { name: "Broken", folder: "host/tests/languages/faults/c", tool: "python-zig" };
    let Some(settings) = sample.settings() else { return };
    let host = sample.start(settings).await;
    let answer = chat(&host, sample.name, "Break").await;
    assert_eq!(answer.steps(), [("Breaking…", "FAILED")]);
    assert!(answer.text().starts_with("Sorry, something went wrong"), "{}", answer.text());
    let story = story(&host).await;
    assert!(story.contains("Assertion failed: at < text.len (broken.c: letter:"), "{story}");
    assert!(story.contains("trap"), "{story}");
}
