//! Tests that the assistant answers the same in every language.

use serde_json::json;

use super::harness::{Host, Model, read_chat, say, wait_for_answer};
use super::sample::Sample;
use super::toolchains::Toolchain;

const QUESTION: &str = "How much may a hotel room cost in London?";

/// One test per sample with a single host, because compiling some of them takes longer than everything else.
macro_rules! assistants {
    ($($language:ident: $folder:literal needs $toolchain:ident, built by $build:literal;)*) => {
        $(#[tokio::test]
        async fn $language() {
            let sample = Sample { name: "Assistant", folder: $folder, toolchain: Toolchain::$toolchain, build: $build };
            answers_like_the_assistant(&sample).await;
        })*
    };
}

assistants! {
    python: "plugins/assistant-python" needs Python, built by "modhost-componentize assistant.py";
    javascript: "plugins/assistant-javascript" needs JavaScript, built by "npm run build";
    typescript: "plugins/assistant-typescript" needs JavaScript, built by "npm run build";
    go: "plugins/assistant-go" needs Go, built by "sh build.sh";
    c: "plugins/assistant-c" needs Zig, built by "sh build.sh";
    cpp: "plugins/assistant-cpp" needs Zig, built by "sh build.sh";
}

async fn answers_like_the_assistant(sample: &Sample) {
    let Some(settings) = sample.settings() else { return };
    let mut model = Model::start().await;
    let host = sample.start(settings.model(&model.url)).await;
    shows_its_steps_and_cites_the_models_sources(&host, &mut model).await;
    reports_an_empty_search(&host, &mut model).await;
    apologizes_when_the_model_fails(&host, model).await;
}

async fn shows_its_steps_and_cites_the_models_sources(host: &Host, model: &mut Model) {
    let chat_id = say(&host.platform, "Assistant", QUESTION).await;
    let question = model.asked().await;
    let steps = read_chat(&host.platform, &chat_id).await["messages"][1]["steps"].clone();
    let statuses: Vec<_> = steps.as_array().unwrap().iter().map(|step| &step["status"]).collect();
    assert_eq!(statuses, ["COMPLETED", "RUNNING"], "{steps}");
    assert_eq!(question.body["temperature"], 0.3);
    assert_eq!(question.body["messages"][1], json!({ "role": "user", "content": QUESTION }));
    let instructions = question.body["messages"][0]["content"].as_str().unwrap();
    assert!(instructions.contains("[source0], [source1] and so on"), "{instructions}");
    assert!(instructions.contains("\n<source2>\n") && instructions.contains("190 euros"), "{instructions}");

    question.answer("190 euros [source0, SOURCE 2], yachts are free [source7], [sic].");
    let answer = wait_for_answer(host, &chat_id).await;
    assert_eq!(answer.text(), "190 euros <sup>1</sup><sup>3</sup>, yachts are free, [sic].");
    let references = answer.reply["references"].as_array().unwrap();
    assert_eq!(references.iter().map(|reference| &reference["sequenceNumber"]).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(references[1]["originalIndex"], json!([2]));
    assert!(references.iter().all(|reference| reference["source"] == "node-ingestion-chunks"), "{references:?}");
    let done = [("Found 3 relevant documents", "COMPLETED"), ("Generating response…", "COMPLETED")];
    assert_eq!(answer.steps(), done);
    assert!(answer.reply["stoppedStreamingAt"].is_string(), "{}", answer.reply);
}

async fn reports_an_empty_search(host: &Host, model: &mut Model) {
    let chat_id = say(&host.platform, "Assistant", "Quixotic xylophones?").await;
    model.asked().await.answer("They are instruments.");
    let answer = wait_for_answer(host, &chat_id).await;
    let done = [("Found no relevant documents", "COMPLETED"), ("Generating response…", "COMPLETED")];
    assert_eq!(answer.steps(), done);
    let (begins, ends) =
        ("I found nothing about this in the knowledge base", "not based on any source.\n\nThey are instruments.");
    assert!(answer.text().starts_with(begins) && answer.text().ends_with(ends), "{}", answer.text());
    assert_eq!(answer.reply["references"], json!([]));
}

async fn apologizes_when_the_model_fails(host: &Host, mut model: Model) {
    let chat_id = say(&host.platform, "Assistant", QUESTION).await;
    // Fails every request, including repeated ones: the endpoint breaks the connection when its question is dropped.
    let refusing = tokio::spawn(async move {
        loop {
            drop(model.asked().await);
        }
    });
    let answer = wait_for_answer(host, &chat_id).await;
    refusing.abort();
    let steps = [("Found 3 relevant documents", "COMPLETED"), ("Generating response…", "FAILED")];
    assert_eq!(answer.steps(), steps);
    assert!(answer.text().starts_with("Sorry, something went wrong"), "{}", answer.text());
    host.logged(&["delivery failed", "completion.complete: unavailable: "]).await;
    // The reason has its own line in languages whose error message includes the location of the call.
    host.logged(&["(attempt 1 of 1)"]).await;
}
