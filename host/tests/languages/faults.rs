//! Tests of the error message of a module that fails, in languages that have one.

use serde_json::Value;

use super::harness::{CommandOutput, Host, chat, modhost, until};
use super::sample::Sample;
use super::toolchains::Toolchain;

/// The output of `deliveries show` for the failed delivery.
async fn story(host: &Host) -> String {
    let dead = until("a delivery that is dead", async || {
        let list = deliveries(host, &["list", "--state", "dead", "--json"]).await.stdout;
        list.lines().next().map(|line| serde_json::from_str::<Value>(line).unwrap())
    })
    .await;
    deliveries(host, &["show", dead["id"].as_str().unwrap()]).await.stdout
}

async fn deliveries(host: &Host, args: &[&str]) -> CommandOutput {
    let ran = modhost(host.folder(), "deliveries", &[&["--admin", host.admin.as_str()], args].concat(), &[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

/// Makes a module fail, and returns the output of `deliveries show`; `None` if its tools are missing.
async fn failure_details(folder: &'static str, toolchain: Toolchain) -> Option<String> {
    let sample = Sample { name: "Broken", folder, toolchain, build: "sh build.sh" };
    let host = sample.start(sample.settings()?).await;
    let answer = chat(&host, sample.name, "Break").await;
    assert_eq!(answer.steps(), [("Breaking…", "FAILED")]);
    assert!(answer.text().starts_with("Sorry, something went wrong"), "{}", answer.text());
    Some(story(&host).await)
}

#[tokio::test]
async fn go_panic_has_a_stack_trace() {
    let Some(story) = failure_details("host/tests/languages/faults/go", Toolchain::Go).await else { return };
    assert!(story.contains("panic: runtime error: index out of range [5] with length 5"), "{story}");
    assert!(story.contains("main.letter") && story.contains("broken.go:"), "{story}");
}

#[tokio::test]
async fn c_assertion_has_its_location() {
    let Some(story) = failure_details("host/tests/languages/faults/c", Toolchain::Zig).await else { return };
    assert!(story.contains("Assertion failed: at < text.len (broken.c: letter:"), "{story}");
    assert!(story.contains("trap"), "{story}");
}

#[tokio::test]
async fn python_exception_has_a_traceback() {
    let Some(story) = failure_details("host/tests/languages/faults/python", Toolchain::Python).await else { return };
    assert!(story.contains("IndexError: string index out of range (broken.py, line 14, in letter)"), "{story}");
    assert!(story.contains("File \"broken.py\", line 10, in answer"), "{story}");
    // The source line itself is missing: a component has no file to read it from.
    assert!(story.contains("letter(event.user_message.text, 5)"), "{story}");
}

#[tokio::test]
async fn javascript_exception_has_source_lines() {
    let Some(story) = failure_details("host/tests/languages/faults/javascript", Toolchain::JavaScript).await else {
        return;
    };
    assert!(story.contains("RangeError: there is no letter 5 in 5"), "{story}");
    assert!(story.contains("at letter (broken.js:10:") && story.contains("at moduleChosen (broken.js:5:"), "{story}");
    // Stack frames of the SDK are omitted.
    assert!(!story.contains("steps.js") && !story.contains("module.js"), "{story}");
}
