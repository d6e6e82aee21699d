//! Tests of malformed answers: a malformed item affects only itself, and an error with status 200 is an error.

use modhost_platform::{CallError, ErrorKind, Hit, Message, Platform, Role};
use serde_json::json;

use crate::calls::{self, Call};
use crate::client::caller;
use crate::server::{Server, answer};

async fn history(body: impl Into<String>) -> Result<Vec<Message>, CallError> {
    let body = body.into();
    let server = Server::always(move || answer(200, body.clone())).await;
    server.client().list_messages(&caller(), "chat_1").await
}

async fn search(body: impl Into<String>) -> Result<Vec<Hit>, CallError> {
    let body = body.into();
    let server = Server::always(move || answer(200, body.clone())).await;
    server.client().search(&caller(), None, &calls::query()).await
}

#[tokio::test]
async fn isolates_a_malformed_message() {
    // Between valid messages: lone surrogates, fields of other types, numbers beyond a double, control characters.
    let malformed = [
        (r#"{"id": "m", "role": "USER", "text": "How? \ud83d"}"#, Some("How? \u{fffd}")),
        (r#"{"id": "m", "role": "USER", "text": "\ude42?", "x\ud83d": {"y": "\ud83d"}}"#, Some("\u{fffd}?")),
        (r#"{"id": "m", "role": "USER", "text": null, "debugInfo": {"took": 1e999}}"#, None),
        (r#"{"id": "m", "role": "USER", "text": ["parts"], "references": "none"}"#, None),
        (r#"{"id": "m", "role": "USER", "text": 42, "createdAt": 1764489600}"#, Some("42")),
        (r#"{"id": "m", "role": "USER", "references": [null, {"name": 7, "originalIndex": ["x", 2]}]}"#, None),
        (r#"{"id": "m", "id": "m", "role": "USER", "text": "twice"}"#, Some("twice")),
        ("{\"id\": \"m\", \"role\": \"USER\", \"text\": \"a\nb\", \"score\": NaN}", Some("a\nb")),
        (r#"{"id": "m", "role": "USER", "hasMore": "yes"}"#, None),
    ];
    for (malformed, text) in malformed {
        let good = r#"{"id": "m_1", "role": "ASSISTANT", "text": "Hello 🙂"}"#;
        let last = r#"{"id": "m_3", "role": "USER", "text": "Bye"}"#;
        let messages =
            history(format!(r#"{{"object": "list", "data": [{good}, {malformed}, {last}]}}"#)).await.unwrap();
        let read: Vec<_> = messages.iter().map(|it| (it.id.as_str(), it.role, it.text.as_deref())).collect();
        let expected =
            [("m_1", Role::Assistant, Some("Hello 🙂")), ("m", Role::User, text), ("m_3", Role::User, Some("Bye"))];
        assert_eq!(read, expected, "{malformed}");
    }
    // Nested more deeply than JSON parsers usually accept.
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let messages =
        history(format!(r#"{{"data": [{{"id": "m_1", "debugInfo": {deep}, "text": "x"}}]}}"#)).await.unwrap();
    assert_eq!(messages[0].text.as_deref(), Some("x"));
}

#[tokio::test]
async fn replaces_invalid_utf8() {
    let server = Server::always(|| answer(200, b"[{\"id\": \"c\", \"text\": \"caf\xe9 \xf0\x9f\"}]".to_vec())).await;
    let hits = server.client().search(&caller(), None, &calls::query()).await.unwrap();
    assert_eq!(hits[0].text, "caf\u{fffd} \u{fffd}");
}

#[tokio::test]
async fn keeps_messages_without_id_and_skips_other_items() {
    let messages = history(r#"{"data": [{"text": "lost"}, null, "x", {"id": 7, "text": "found"}]}"#).await.unwrap();
    let read: Vec<_> = messages.iter().map(|it| (it.id.as_str(), it.text.as_deref().unwrap())).collect();
    assert_eq!(read, [("", "lost"), ("7", "found")]);
    // But it is an error if no item of a list has an id.
    for body in [r#"{"data": [{"text": "x"}, {"text": "y"}]}"#, r#"{"data": [1, null]}"#, r#"{"data": {}}"#] {
        let error = history(body).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{body}");
        assert!(error.message.contains("can't be understood ("), "{error}");
    }
}

#[tokio::test]
async fn isolates_a_malformed_passage() {
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(300), "]".repeat(300));
    let malformed = format!(
        r#"[
            {{"id": "c_1", "chunkId": "k_1", "text": "first", "order": 1, "startPage": 2, "metadata": {{"n": 1}}}},
            {{"id": "c_2", "chunkId": 5, "text": "half \ud83d", "order": "3", "startPage": [], "title": {{}},
              "metadata": {{"score": 1e400, "note": "\ud83d", "good": "yes"}}}},
            {{"text": "of no content"}},
            null,
            {{"id": "c_3", "text": null, "order": -4, "endPage": 2.0, "metadata": {deep}}}
        ]"#
    );
    let hits = search(malformed).await.unwrap();
    let read: Vec<_> = hits.iter().map(|it| (it.id.as_str(), it.chunk_id.as_str(), it.text.as_str())).collect();
    let expected = [("c_1", "k_1", "first"), ("c_2", "5", "half \u{fffd}"), ("", "", "of no content"), ("c_3", "", "")];
    assert_eq!(read, expected);
    assert_eq!((hits[1].order, hits[1].start_page, hits[1].title.as_deref()), (3, None, None));
    assert_eq!(hits[1].metadata, Some(json!({ "score": f64::MAX, "note": "\u{fffd}", "good": "yes" })));
    assert_eq!((hits[3].order, hits[3].end_page), (0, Some(2)));
    assert!(hits[3].metadata.as_ref().unwrap()["a"].is_array());
    let error = search(r#"[{"text": "x"}]"#).await.unwrap_err();
    assert!(error.message.contains("a hit has no id"), "{error}");
}

#[tokio::test]
async fn counts_repairs() {
    modhost_core::metrics::start();
    let line = |answer: &str, kind: &str| {
        let rendered = modhost_core::metrics::render();
        let labels = format!("modhost_platform_answers_repaired_total{{answer=\"{answer}\",kind=\"{kind}\"}} ");
        let value = rendered.lines().find_map(|line| line.strip_prefix(&labels).map(str::to_owned));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    let kinds = ["text", "field", "id", "item"];
    let before = kinds.map(|kind| line("hits", kind));
    search(r#"[{"id": "c", "text": "\ud83d", "title": []}, {"text": "x"}, 5]"#).await.unwrap();
    let after = kinds.map(|kind| line("hits", kind));
    for (kind, (before, after)) in kinds.iter().zip(before.into_iter().zip(after)) {
        assert!(after > before, "{kind}: {before}, {after}");
    }
}

/// Errors with status 200, which a module must not mistake for success.
#[tokio::test]
async fn rejects_errors_under_200() {
    for call in Call::ALL {
        for (body, kind, words) in [
            (r#"{"error": "chat is locked"}"#, ErrorKind::Unavailable, "chat is locked"),
            (r#"{"error": {"code": 404, "message": "gone"}}"#, ErrorKind::NotFound, "gone, code 404"),
            (r#"{"statusCode": 429, "message": "slow down"}"#, ErrorKind::RateLimited(None), "slow down"),
            (r#"{"object": "error", "message": "out of order"}"#, ErrorKind::Unavailable, "out of order"),
            ("<html><b>Sign in</b></html>", ErrorKind::Unavailable, "Sign in"),
            (r#"{"id": "#, ErrorKind::Unavailable, "can't be understood"),
        ] {
            let server = Server::always(move || answer(200, body)).await;
            let error = call.make(&server.client()).await.expect_err(&format!("{call:?}: {body}"));
            assert_eq!(error.kind, kind, "{call:?} {body}: {error}");
            assert!(error.message.contains(words) && error.message.contains(": 200 OK, but"), "{call:?}: {error}");
            assert_eq!(server.requests().len(), 1);
        }
    }
    // A created object has an id, and its own error isn't an error of the call.
    let server = Server::always(|| answer(200, r#"{"id": "msg_a", "error": "the answer failed", "text": "x"}"#)).await;
    Call::ModifyMessage.make(&server.client()).await.unwrap();
}

#[tokio::test]
async fn rejects_empty_completions() {
    for (call, body, kind, words) in [
        (
            Call::Complete,
            r#"{"choices": [{"message": {"content": null}, "finish_reason": null}]}"#,
            ErrorKind::Unavailable,
            "no text, no tool call and no reason",
        ),
        (
            Call::Complete,
            r#"{"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]}"#,
            ErrorKind::Unsupported,
            "only a call of `f`",
        ),
        (
            Call::Complete,
            r#"{"choices": [{"message": {"content": "Hal"}, "finishReason": "error"}]}"#,
            ErrorKind::Unavailable,
            "stopped with `error`",
        ),
        (
            Call::CompleteInto,
            r#"{"object": "streamResult", "message": {"id": "m", "text": null}, "toolCalls": []}"#,
            ErrorKind::Unavailable,
            "no text, no tool call and no reason",
        ),
        (
            Call::CompleteInto,
            r#"{"object": "streamResult", "message": {"id": "m"}, "toolCalls": [{"id": "t", "name": "search"}]}"#,
            ErrorKind::Unsupported,
            "only a call of `search`",
        ),
    ] {
        let server = Server::always(move || answer(200, body)).await;
        let error = call.make(&server.client()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{body}: {error}");
        assert!(error.message.contains(words), "{error}");
    }
    for (body, text) in [
        (r#"{"choices": [{"index": 1, "message": {"content": "x"}, "finishReason": "stop"}]}"#, "x"),
        (r#"{"choices": [{"message": {"content": [{"type": "text", "text": "par"}, "ts"]}}]}"#, "parts"),
        (r#"{"choices": [{"message": {"content": "\ud83d"}}], "usage": "none"}"#, "\u{fffd}"),
    ] {
        let server = Server::always(move || answer(200, body)).await;
        let completion = server.client().complete(&caller(), &calls::completion()).await.unwrap();
        assert_eq!(completion.text, text, "{body}");
    }
}
