//! Search in the documents.

use std::fs;
use std::path::Path;

use modhost_emulator::LocalSettings;
use reqwest::Method;
use serde_json::{Value, json};

use crate::help::{Local, error, eventually, settings, text};

async fn library(files: &[(&str, &str)]) -> (Local, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (key, text) in files {
        let path = folder.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let local = Local::start(LocalSettings { documents: Some(folder.path().to_owned()), ..settings() }).await;
    (local, folder)
}

async fn search_with(local: &Local, text: &str, more: Value) -> Vec<Value> {
    let mut body = json!({ "searchString": text, "searchType": "COMBINED" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, hits) = local.post("/search/search", body).await;
    assert_eq!(status, 200, "{hits}");
    hits.as_array().unwrap().clone()
}

async fn search(local: &Local, text: &str) -> Vec<Value> {
    search_with(local, text, json!({})).await
}

fn keys(hits: &[Value]) -> Vec<String> {
    hits.iter().map(|hit| text(&hit["key"])).collect()
}

const TRAVEL: (&str, &str) =
    ("money/travel.md", "# Travelling\n\nTrains before planes.\n\n## Hotels\n\nA hotel costs at most 140 euros.\n");
const LEAVE: (&str, &str) =
    ("people/leave & care.txt", "Leave is granted\r\nto parents.\r\n\u{c}Care for parents is leave, too.\r\n");
const NOTES: (&str, &str) = ("notes.markdown", "No heading here, but a hotel.\n");

#[tokio::test]
async fn hits_have_every_field() {
    let (local, _folder) = library(&[TRAVEL, LEAVE, NOTES]).await;
    assert_eq!(local.platform.document_count(), 3);
    let hits = search(&local, "What does a HOTEL cost?").await;
    assert_eq!(keys(&hits), ["money/travel.md", "notes.markdown"]);
    let best = &hits[0];
    assert_eq!(best["text"], "## Hotels\n\nA hotel costs at most 140 euros.");
    assert_eq!((&best["title"], &best["order"]), (&json!("Travelling"), &json!(1)));
    assert_eq!((&best["startPage"], &best["endPage"]), (&json!(1), &json!(1)));
    assert_eq!(best["metadata"]["mimeType"], "text/markdown");
    assert!(text(&best["id"]).starts_with("cont_") && text(&best["chunkId"]).starts_with("chunk_"));
    assert!(text(&best["updatedAt"]).ends_with('Z'));
    assert_eq!(hits[1]["title"], "notes.markdown");

    let leave = &search(&local, "leave for parents").await[0];
    assert_eq!(leave["text"], "Leave is granted\nto parents.\n\nCare for parents is leave, too.");
    assert_eq!((&leave["startPage"], &leave["endPage"]), (&json!(1), &json!(2)));
    let read = reqwest::get(text(&leave["url"])).await.unwrap();
    assert_eq!(read.headers()["content-type"], "text/plain; charset=utf-8");
    assert!(read.text().await.unwrap().starts_with("Leave is granted\nto parents."));
}

#[tokio::test]
async fn matches_words_by_stem_and_ignores_stop_words() {
    let (local, _folder) =
        library(&[TRAVEL, LEAVE, ("noise.txt", "What is the and what is our of to in a is what is the?")]).await;
    let mut found = keys(&search(&local, "what is the traveller's parent").await);
    found.sort();
    found.dedup();
    assert_eq!(found, [TRAVEL.0, LEAVE.0]);
    assert_eq!(keys(&search(&local, "What is our hotel?").await), ["money/travel.md"]);
    assert_eq!(
        keys(&search(&local, "what is the?").await)[0],
        "noise.txt",
        "a query of stop words only searches for them"
    );
}

#[tokio::test]
async fn no_input_is_a_syntax_error() {
    let (local, _folder) = library(&[TRAVEL]).await;
    let long = "hotel train ".repeat(20_000);
    let many: String = (0..5_000).map(|n| format!("w{n} ")).collect();
    for text in [
        "\"",
        "'",
        "hotel*",
        "NEAR(hotel",
        "title:hotel",
        "hotel AND",
        "-hotel",
        "(",
        "^",
        "?!",
        "\u{0}",
        "🏨",
        "ｈｏｔｅｌ",
        &long,
        &many,
    ] {
        search(&local, text).await;
    }
    assert_eq!(keys(&search(&local, "\"hotel\" AND NOT (").await), ["money/travel.md"]);
    assert!(search(&local, "?!").await.is_empty());
}

#[tokio::test]
async fn search_is_restricted_by_ids_scopes_and_filters() {
    let (local, _folder) = library(&[TRAVEL, LEAVE, NOTES, ("people/deep/hotel.md", "# Deep\n\nA hotel.")]).await;
    let all = search(&local, "hotel leave").await;
    let leave = all.iter().find(|hit| hit["key"] == LEAVE.0).unwrap();
    assert_eq!(keys(&search_with(&local, "hotel leave", json!({ "contentIds": [leave["id"]] })).await), [LEAVE.0]);
    let folders = text(&leave["metadata"]["folderIdPath"]);
    let people = folders.rsplit('/').next().unwrap();
    let mut in_people = keys(&search_with(&local, "hotel leave", json!({ "scopeIds": [people] })).await);
    in_people.sort();
    assert_eq!(in_people, ["people/deep/hotel.md", LEAVE.0]);
    let markdown =
        json!({ "metaDataFilter": { "path": ["mimeType"], "operator": "notEquals", "value": "text/markdown" } });
    assert_eq!(keys(&search_with(&local, "hotel leave", markdown).await), [LEAVE.0]);
    assert!(search_with(&local, "hotel leave", json!({ "chatOnly": true })).await.is_empty());
    assert!(search_with(&local, "hotel leave", json!({ "contentIds": ["cont_none"] })).await.is_empty());
}

#[tokio::test]
async fn pages_are_consecutive() {
    let (local, _folder) = library(&[TRAVEL, NOTES, ("third.txt", "hotel hotel hotel")]).await;
    let all = search(&local, "hotel").await;
    assert_eq!(all.len(), 3);
    for (page, hit) in (1..).zip(&all) {
        assert_eq!(search_with(&local, "hotel", json!({ "limit": 1, "page": page })).await, std::slice::from_ref(hit));
    }
    assert!(search_with(&local, "hotel", json!({ "limit": 1, "page": 4 })).await.is_empty());
}

#[tokio::test]
async fn rejects_unsupported_and_invalid_parameters() {
    let (local, _folder) = library(&[TRAVEL]).await;
    for (field, value) in [
        ("limit", json!(0)),
        ("limit", json!(1001)),
        ("page", json!(0)),
        ("scoreThreshold", json!(0.5)),
        ("includeScores", json!(true)),
        ("reranker", json!({ "deploymentName": "x" })),
        ("metaDataFilter", json!({ "path": ["key"], "operator": "nested", "value": {} })),
    ] {
        let body = json!({ "searchString": "hotel", "searchType": "VECTOR", field: value });
        let message = error(local.post("/search/search", body).await, 400);
        assert!(message.contains(field), "{message}");
    }
    search_with(
        &local,
        "hotel",
        json!({ "scoreThreshold": 0, "metaDataFilter": {}, "reranker": null, "language": "english" }),
    )
    .await;
}

#[tokio::test]
async fn search_follows_changes_of_the_folder() {
    let (local, folder) = library(&[TRAVEL, LEAVE]).await;
    assert!(search(&local, "submarine").await.is_empty());
    let found = async |word: &str, expected: &[&str]| {
        eventually(async || {
            let found = keys(&search(&local, word).await);
            if found == expected { Ok(()) } else { Err(format!("{word} in {expected:?}, found in {found:?}")) }
        })
        .await;
    };
    fs::create_dir(folder.path().join("new")).unwrap();
    fs::write(folder.path().join("new/sea.md"), "# Sea\n\nBook a submarine.").unwrap();
    found("submarine", &["new/sea.md"]).await;
    fs::write(folder.path().join(TRAVEL.0), "# Travelling\n\nBy submarine, always.").unwrap();
    found("hotel", &[]).await;
    fs::remove_dir_all(folder.path().join("new")).unwrap();
    found("submarine", &[TRAVEL.0]).await;
}

#[tokio::test]
async fn ignores_files_that_are_not_documents() {
    let (local, folder) = library(&[TRAVEL, (".hidden.md", "hotel"), ("image.png", "hotel"), ("hotel", "hotel")]).await;
    fs::write(folder.path().join("latin1.txt"), b"hotel \xe9").unwrap();
    let circle = folder.path().join("circle");
    std::os::unix::fs::symlink(folder.path(), &circle).unwrap();
    assert_eq!(keys(&search(&local, "hotel").await), [TRAVEL.0]);
    for path in ["latin1.txt", "image.png", ".hidden.md", "..%2f..%2fetc%2fpasswd", "circle/money/travel.md"] {
        let response = local.bare(Method::GET, &format!("/local/documents/{path}")).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn search_without_documents_is_empty() {
    let local = Local::start(settings()).await;
    assert!(search(&local, "anything").await.is_empty());
}

#[tokio::test]
async fn shipped_documents_answer_common_questions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins/assistant/documents");
    let local = Local::start(LocalSettings { documents: Some(folder), ..settings() }).await;
    for (question, key) in [
        ("What is our travel policy?", "money/travel-policy.md"),
        ("How do I claim expenses?", "money/expenses.md"),
        ("May I work from home?", "people/working-from-home.md"),
        ("I lost my laptop", "it/information-security.md"),
        ("How long is parental leave?", "people/parental-leave.md"),
        ("How many days of holiday are there?", "people/holidays-and-sick-days.md"),
        ("What happens on my first day?", "people/onboarding.md"),
        ("When is my laptop replaced?", "it/equipment-and-support.md"),
    ] {
        assert_eq!(keys(&search(&local, question).await)[0], key, "{question}");
    }
}

#[tokio::test]
async fn search_string_keeps_significant_words() {
    let local = Local::start(settings()).await;
    let made = async |body: Value| local.post("/search/search-string", body).await.1["searchString"].clone();
    assert_eq!(made(json!({ "prompt": "What is our travel policy?" })).await, "travel policy");
    let (chat, ..) = local.chat().await;
    let question = json!({ "assistantId": "assistant_Answering", "chatId": chat, "text": "What does a hotel cost?" });
    local.post("/space/message", question).await;
    assert_eq!(made(json!({ "prompt": "And in Paris?", "chatId": chat })).await, "paris hotel cost");
    let messages = json!([{ "role": "user", "text": "Which train?" }, { "role": "assistant", "text": "The fast one" }]);
    assert_eq!(made(json!({ "prompt": "And in Paris?", "messages": messages })).await, "paris train");
}
