//! What an author reads about a module that broke: its own message, where its language has one.

use serde_json::Value;

use super::harness::{Host, Ran, chat, modhost, until};
use super::sample::Sample;
use super::toolchains::Toolchain;

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

/// Has a module break, and answers with what `deliveries show` tells of it; none if its tools aren't there.
async fn told(folder: &'static str, toolchain: Toolchain) -> Option<String> {
    let sample = Sample { name: "Broken", folder, toolchain, build: "sh build.sh" };
    let host = sample.start(sample.settings()?).await;
    let answer = chat(&host, sample.name, "Break").await;
    assert_eq!(answer.steps(), [("Breaking…", "FAILED")]);
    assert!(answer.text().starts_with("Sorry, something went wrong"), "{}", answer.text());
    Some(story(&host).await)
}

#[tokio::test]
async fn a_panic_of_go_is_told_with_its_stack() {
    let Some(story) = told("host/tests/languages/faults/go", Toolchain::Go).await else { return };
    assert!(story.contains("panic: runtime error: index out of range [5] with length 5"), "{story}");
    assert!(story.contains("main.letter") && story.contains("broken.go:"), "{story}");
}

#[tokio::test]
async fn a_failed_assertion_of_c_is_told_with_its_place() {
    let Some(story) = told("host/tests/languages/faults/c", Toolchain::Zig).await else { return };
    assert!(story.contains("Assertion failed: at < text.len (broken.c: letter:"), "{story}");
    assert!(story.contains("trap"), "{story}");
}

#[tokio::test]
async fn an_exception_of_python_is_told_with_its_traceback() {
    let Some(story) = told("host/tests/languages/faults/python", Toolchain::Python).await else { return };
    assert!(story.contains("IndexError: string index out of range (broken.py, line 14, in letter)"), "{story}");
    assert!(story.contains("File \"broken.py\", line 10, in answer"), "{story}");
    // The line itself, which a component has no file to read from.
    assert!(story.contains("letter(event.user_message.text, 5)"), "{story}");
}

#[tokio::test]
async fn an_exception_of_javascript_is_told_in_the_lines_of_its_author() {
    let Some(story) = told("host/tests/languages/faults/javascript", Toolchain::JavaScript).await else { return };
    assert!(story.contains("RangeError: there is no letter 5 in 5"), "{story}");
    assert!(story.contains("at letter (broken.js:10:") && story.contains("at moduleChosen (broken.js:5:"), "{story}");
    // What is the SDK's own says nothing to the author.
    assert!(!story.contains("steps.js") && !story.contains("module.js"), "{story}");
}
