//! Answers that are not as documented: what is odd in one item costs no more than that, and a failure that comes under 200
//! is a failure.

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
async fn one_odd_message_does_not_cost_the_others() {
    // Beside good ones: halves of emojis, fields of other types, numbers no double holds, control characters.
    let odd = [
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
    for (odd, text) in odd {
        let good = r#"{"id": "m_1", "role": "ASSISTANT", "text": "Hello 🙂"}"#;
        let last = r#"{"id": "m_3", "role": "USER", "text": "Bye"}"#;
        let messages = history(format!(r#"{{"object": "list", "data": [{good}, {odd}, {last}]}}"#)).await.unwrap();
        let read: Vec<_> = messages.iter().map(|it| (it.id.as_str(), it.role, it.text.as_deref())).collect();
        let wanted =
            [("m_1", Role::Assistant, Some("Hello 🙂")), ("m", Role::User, text), ("m_3", Role::User, Some("Bye"))];
        assert_eq!(read, wanted, "{odd}");
    }
    // Deeper than JSON is read as a rule.
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let messages =
        history(format!(r#"{{"data": [{{"id": "m_1", "debugInfo": {deep}, "text": "x"}}]}}"#)).await.unwrap();
    assert_eq!(messages[0].text.as_deref(), Some("x"));
}

#[tokio::test]
async fn bytes_that_are_no_text_are_replaced() {
    let server = Server::always(|| answer(200, b"[{\"id\": \"c\", \"text\": \"caf\xe9 \xf0\x9f\"}]".to_vec())).await;
    let hits = server.client().search(&caller(), None, &calls::query()).await.unwrap();
    assert_eq!(hits[0].text, "caf\u{fffd} \u{fffd}");
}

#[tokio::test]
async fn a_message_without_an_id_is_kept_and_what_is_no_message_is_left_out() {
    let messages = history(r#"{"data": [{"text": "lost"}, null, "x", {"id": 7, "text": "found"}]}"#).await.unwrap();
    let read: Vec<_> = messages.iter().map(|it| (it.id.as_str(), it.text.as_deref().unwrap())).collect();
    assert_eq!(read, [("", "lost"), ("7", "found")]);
    // But a list none of whose items has an id is no list of messages.
    for body in [r#"{"data": [{"text": "x"}, {"text": "y"}]}"#, r#"{"data": [1, null]}"#, r#"{"data": {}}"#] {
        let error = history(body).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{body}");
        assert!(error.message.contains("can't be understood ("), "{error}");
    }
}

#[tokio::test]
async fn one_odd_passage_does_not_cost_the_others() {
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(300), "]".repeat(300));
    let odd = format!(
        r#"[
            {{"id": "c_1", "chunkId": "k_1", "text": "first", "order": 1, "startPage": 2, "metadata": {{"n": 1}}}},
            {{"id": "c_2", "chunkId": 5, "text": "half \ud83d", "order": "3", "startPage": [], "title": {{}},
              "metadata": {{"score": 1e400, "note": "\ud83d", "good": "yes"}}}},
            {{"text": "of no content"}},
            null,
            {{"id": "c_3", "text": null, "order": -4, "endPage": 2.0, "metadata": {deep}}}
        ]"#
    );
    let hits = search(odd).await.unwrap();
    let read: Vec<_> = hits.iter().map(|it| (it.id.as_str(), it.chunk_id.as_str(), it.text.as_str())).collect();
    let wanted = [("c_1", "k_1", "first"), ("c_2", "5", "half \u{fffd}"), ("", "", "of no content"), ("c_3", "", "")];
    assert_eq!(read, wanted);
    assert_eq!((hits[1].order, hits[1].start_page, hits[1].title.as_deref()), (3, None, None));
    assert_eq!(hits[1].metadata, Some(json!({ "score": f64::MAX, "note": "\u{fffd}", "good": "yes" })));
    assert_eq!((hits[3].order, hits[3].end_page), (0, Some(2)));
    assert!(hits[3].metadata.as_ref().unwrap()["a"].is_array());
    let error = search(r#"[{"text": "x"}]"#).await.unwrap_err();
    assert!(error.message.contains("a hit has no id"), "{error}");
}

#[tokio::test]
async fn what_was_repaired_is_counted() {
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

/// Under 200, and still failures: what a module must never take for done.
#[tokio::test]
async fn a_failure_under_200_is_a_failure() {
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
    // What was made has an id, and its own error is its own affair.
    let server = Server::always(|| answer(200, r#"{"id": "msg_a", "error": "the answer failed", "text": "x"}"#)).await;
    Call::ModifyMessage.make(&server.client()).await.unwrap();
}

#[tokio::test]
async fn a_completion_without_anything_in_it_is_no_answer() {
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
