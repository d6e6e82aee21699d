//! Tests of the exact requests, and of valid answers.

use http::Method;
use modhost_platform::{Caller, CompletionRequest, ErrorKind, MessageChange, Platform, Query, Role, StepChange, Usage};
use serde_json::{Value, json};

use crate::calls::{self, Call};
use crate::client::caller;
use crate::sdk;
use crate::server::{Recorded, Server, answer};

/// Checks the times in a body, and replaces them by the time of the captures.
fn stamped(mut body: Value) -> Value {
    for field in ["completedAt", "startedStreamingAt", "stoppedStreamingAt"] {
        if let Some(stamp) = body.get_mut(field) {
            let text = stamp.as_str().unwrap();
            text.parse::<jiff::Timestamp>().unwrap();
            assert_eq!(text.len(), sdk::STAMP.len(), "{text}");
            assert!(text.ends_with('Z'), "{text}");
            *stamp = sdk::STAMP.into();
        }
    }
    body
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

/// Returns the request of a call that succeeds.
async fn request_of(call: Call) -> Recorded {
    let server = Server::always(move || answer(200, call.good_answer())).await;
    call.make(&server.client()).await.unwrap();
    server.request()
}

#[tokio::test]
async fn sends_every_call_like_the_official_sdk() {
    let calls = [
        (Call::CreateStep, Method::POST, "/message-log", sdk::MESSAGE_LOG_CREATE),
        (Call::UpdateStep, Method::PATCH, "/message-log/log_1", sdk::MESSAGE_LOG_UPDATE),
        (Call::ModifyMessage, Method::PATCH, "/messages/msg_a", sdk::MESSAGE_MODIFY),
        (Call::ShowMessage, Method::POST, "/messages/msg_a/event", sdk::MESSAGE_EVENT),
        (Call::Search, Method::POST, "/search/search", sdk::SEARCH),
        (Call::Complete, Method::POST, "/openai/chat/completions", sdk::CHAT_COMPLETION),
        (Call::CompleteInto, Method::POST, "/integrated/chat/stream-completions", sdk::STREAM_COMPLETION),
    ];
    for (call, method, path, body) in calls {
        let request = request_of(call).await;
        assert_eq!(request.method, method, "{call:?}");
        assert_eq!(request.path, format!("/public/chat{path}"), "{call:?}");
        assert_eq!(request.query, None, "{call:?}");
        assert_eq!(stamped(request.json()), parsed(body), "{call:?}");
        assert_eq!(request.header("content-type"), Some("application/json"), "{call:?}");
    }
}

#[tokio::test]
async fn sends_the_headers_with_every_call() {
    for call in Call::ALL {
        let request = request_of(call).await;
        for (name, value) in sdk::HEADERS {
            assert_eq!(request.header(name), Some(value), "{call:?}");
        }
        assert_eq!(request.header("user-agent"), Some(concat!("modhost/", env!("CARGO_PKG_VERSION"))));
    }
}

#[tokio::test]
async fn omits_the_user_header_without_a_user() {
    let server = Server::always(|| answer(200, Call::Complete.good_answer())).await;
    let caller = Caller { company_id: Some("company_2".into()), user_id: None, ..caller() };
    server.client().complete(&caller, &calls::completion()).await.unwrap();
    let request = server.request();
    assert_eq!(request.header("x-user-id"), None);
    assert_eq!(request.header("x-company-id"), Some("company_2"));
}

#[tokio::test]
async fn sends_the_idempotency_key() {
    let server = Server::always(|| answer(200, Call::Complete.good_answer())).await;
    let caller = Caller { idempotency_key: Some("dlv_1-4".into()), ..caller() };
    server.client().complete(&caller, &calls::completion()).await.unwrap();
    assert_eq!(server.request().header("idempotency-key"), Some("dlv_1-4"));
}

#[tokio::test]
async fn sets_the_streaming_times_of_a_complete_new_message() {
    let server = Server::always(|| answer(200, r#"{"id": "msg_new", "role": "ASSISTANT", "text": "Hello"}"#)).await;
    let change = calls::message_change();
    let message = server.client().create_message(&caller(), Some("assistant_1"), "chat_1", &change).await.unwrap();
    assert_eq!(message.id, "msg_new");

    let [create, stamp] = server.requests().try_into().unwrap();
    assert_eq!((create.method, create.path.as_str()), (Method::POST, "/public/chat/messages"));
    assert_eq!(stamped(parsed(&create.body)), parsed(sdk::MESSAGE_CREATE));
    assert_eq!((stamp.method, stamp.path.as_str()), (Method::PATCH, "/public/chat/messages/msg_new"));
    let stamps = json!({"chatId": "chat_1", "startedStreamingAt": sdk::STAMP, "stoppedStreamingAt": sdk::STAMP});
    assert_eq!(stamped(parsed(&stamp.body)), stamps);
}

#[tokio::test]
async fn sets_the_streaming_times_with_another_idempotency_key() {
    let server = Server::always(|| answer(200, r#"{"id": "msg_new"}"#)).await;
    let caller = Caller { idempotency_key: Some("dlv_1-4".into()), ..caller() };
    server.client().create_message(&caller, Some("assistant_1"), "chat_1", &calls::message_change()).await.unwrap();
    let [create, stamp] = server.requests().try_into().unwrap();
    assert_eq!(create.header("idempotency-key"), Some("dlv_1-4"));
    assert_eq!(stamp.header("idempotency-key"), Some("dlv_1-4-stamp-msg_new"));
}

#[tokio::test]
async fn requires_a_company_and_an_assistant() {
    let server = Server::always(|| answer(200, r#"{"id": "msg_new"}"#)).await;
    let (client, change) = (server.client(), calls::message_change());
    let without_company = Caller { event: "MESSAGE_FINALIZED".into(), company_id: None, ..caller() };
    let error = client.create_message(&without_company, Some("assistant_1"), "chat_1", &change).await.unwrap_err();
    assert_eq!(error.to_string(), "unsupported: an event `MESSAGE_FINALIZED` has no company to act on");
    let error = client.create_message(&caller(), None, "chat_1", &change).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.ends_with("has no assistant to act on"), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn succeeds_if_only_the_streaming_times_fail() {
    let server = Server::scripted([answer(200, r#"{"id": "msg_new"}"#), answer(403, r#"{"error": "no"}"#)]).await;
    let change = calls::message_change();
    let message = server.client().create_message(&caller(), Some("assistant_1"), "chat_1", &change).await.unwrap();
    assert_eq!(message.id, "msg_new");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn omits_fields_without_a_value() {
    let server = Server::always(|| answer(200, r#"{"id": "msg_a"}"#)).await;
    let client = server.client();
    let nothing = MessageChange { debug_info: Some(Value::Null), ..MessageChange::default() };
    client.create_message(&caller(), Some("assistant_1"), "chat_1", &nothing).await.unwrap();
    client.modify_message(&caller(), "chat_1", "msg_a", &nothing).await.unwrap();
    client.update_step(&caller(), "log_1", &StepChange::default()).await.unwrap();

    let bodies: Vec<_> = server.requests().iter().map(Recorded::json).collect();
    let create = json!({"chatId": "chat_1", "assistantId": "assistant_1", "role": "ASSISTANT"});
    assert_eq!(bodies, [create, json!({"chatId": "chat_1"}), json!({})]);
}

#[tokio::test]
async fn sends_only_text_and_kind_of_a_plain_search() {
    let server = Server::always(|| answer(200, "[]")).await;
    let query = Query {
        limit: None,
        page: None,
        scope_ids: vec![],
        content_ids: vec![],
        chat_only: false,
        language: None,
        score_threshold: None,
        metadata_filter: None,
        reranker: None,
        ..calls::query()
    };
    server.client().search(&caller(), None, &query).await.unwrap();
    assert_eq!(server.request().json(), json!({"searchString": "travel policy", "searchType": "COMBINED"}));
}

fn plain_completion() -> CompletionRequest {
    CompletionRequest {
        model: None,
        temperature: None,
        max_tokens: None,
        options: None,
        timeout: None,
        ..calls::completion()
    }
}

#[tokio::test]
async fn uses_the_configured_model_by_default() {
    for (configured, requested, sent) in [
        (Some("default"), None, Some("default")),
        (Some("default"), Some("other"), Some("other")),
        (None, Some("other"), Some("other")),
        (None, None, None),
    ] {
        let server = Server::always(|| answer(200, Call::Complete.good_answer())).await;
        let client = server.client_with(|settings| settings.model = configured.map(str::to_owned));
        let request = CompletionRequest { model: requested.map(str::to_owned), ..plain_completion() };
        client.complete(&caller(), &request).await.unwrap();
        let body = server.request().json();
        assert_eq!(body.get("model").and_then(Value::as_str), sent);
        let fields = body.as_object().unwrap().len();
        assert_eq!(fields, if sent.is_some() { 2 } else { 1 }, "{body}");
    }
}

#[tokio::test]
async fn overrides_options_by_named_fields() {
    let server = Server::always(|| answer(200, Call::Complete.good_answer())).await;
    let options = Some(json!({"temperature": 1.5, "max_tokens": 5, "top_p": 0.5}));
    let request = CompletionRequest { options, temperature: Some(0.1), max_tokens: Some(7), ..plain_completion() };
    server.client().complete(&caller(), &request).await.unwrap();
    assert_eq!(server.request().json()["options"], json!({"temperature": 0.1, "max_tokens": 7, "top_p": 0.5}));
}

#[tokio::test]
async fn rejects_values_that_json_cannot_represent() {
    let server = Server::always(|| answer(200, Call::Complete.good_answer())).await;
    let client = server.client();
    for request in [
        CompletionRequest { temperature: Some(f32::NAN), ..plain_completion() },
        CompletionRequest { temperature: Some(f32::INFINITY), ..plain_completion() },
        CompletionRequest { options: Some(json!(["top_p"])), ..plain_completion() },
    ] {
        assert_eq!(client.complete(&caller(), &request).await.unwrap_err().kind, ErrorKind::Invalid, "{request:?}");
    }
    let query = Query { score_threshold: Some(f32::NAN), ..calls::query() };
    assert_eq!(client.search(&caller(), None, &query).await.unwrap_err().kind, ErrorKind::Invalid);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn sends_sources_with_their_pages_and_names() {
    let server = Server::always(|| answer(200, Call::CompleteInto.good_answer())).await;
    let mut sources = [calls::hit(), calls::hit(), calls::hit()];
    sources[0].start_page = Some(3);
    sources[0].end_page = Some(5);
    (sources[1].key, sources[1].url) = (None, None);
    (sources[2].key, sources[2].url, sources[2].title) = (None, None, None);
    server.client().complete_into(&caller(), &calls::target(), &plain_completion(), &sources).await.unwrap();
    let context = json!([
        {
            "id": "cont_1", "chunkId": "chunk_1", "key": "travel.pdf", "title": "Travel policy",
            "url": "https://example.com/travel.pdf", "startPage": 3, "endPage": 5
        },
        {"id": "cont_1", "chunkId": "chunk_1", "key": "Travel policy", "title": "Travel policy"},
        {"id": "cont_1", "chunkId": "chunk_1", "key": "cont_1"},
    ]);
    assert_eq!(server.request().json()["searchContext"], context);
}

#[tokio::test]
async fn appends_paths_to_any_base() {
    for (base, path) in [
        ("", "/messages"),
        ("/", "/messages"),
        ("/public", "/public/messages"),
        ("/public/chat/", "/public/chat/messages"),
        ("/public/chat//", "/public/chat/messages"),
        ("/a%2Fb", "/a%2Fb/messages"),
    ] {
        let server = Server::always(|| answer(200, Call::ListMessages.good_answer())).await;
        let address = server.address;
        let client =
            server.client_with(|settings| settings.api_base = format!("http://{address}{base}").parse().unwrap());
        client.list_messages(&caller(), "chat_1").await.unwrap();
        assert_eq!(server.request().path, path, "{base:?}");
    }
}

#[tokio::test]
async fn encodes_an_id_as_one_path_segment() {
    for (id, segment) in [
        ("a/../b", "a%2F..%2Fb"),
        ("../chats", "..%2Fchats"),
        ("..\\chats", "..%5Cchats"),
        ("%2e%2e", "%252e%252e"),
        (".\t.", ".%09."),
        ("a\r\nb", "a%0D%0Ab"),
        ("a?b=c#d", "a%3Fb%3Dc%23d"),
        ("a b+c", "a%20b%2Bc"),
        ("ä;x", "%C3%A4%3Bx"),
        ("...", "..."),
    ] {
        let server = Server::always(|| answer(200, "{}")).await;
        let client = server.client();
        client.modify_message(&caller(), "chat_1", id, &MessageChange::default()).await.unwrap();
        client.show_message(&caller(), "chat_1", id, "x").await.unwrap();
        client.update_step(&caller(), id, &StepChange::default()).await.unwrap();
        let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
        let expected = ["/messages/{}", "/messages/{}/event", "/message-log/{}"];
        assert_eq!(paths, expected.map(|path| format!("/public/chat{}", path.replace("{}", segment))), "{id:?}");
        assert!(server.requests().iter().all(|request| request.query.is_none()));
    }
}

#[tokio::test]
async fn rejects_ids_that_are_no_path_segment() {
    let server = Server::always(|| answer(200, "{}")).await;
    let client = server.client();
    for id in ["", ".", ".."] {
        let change = MessageChange::default();
        let errors = [
            client.modify_message(&caller(), "chat_1", id, &change).await.unwrap_err(),
            client.show_message(&caller(), "chat_1", id, "x").await.unwrap_err(),
            client.update_step(&caller(), id, &StepChange::default()).await.unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.kind == ErrorKind::Invalid), "{id:?}: {errors:?}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn encodes_any_id_in_the_query() {
    let server = Server::always(|| answer(200, Call::ListMessages.good_answer())).await;
    server.client().list_messages(&caller(), "a&role=x#ä b").await.unwrap();
    assert_eq!(server.request().query.as_deref(), Some("chatId=a%26role%3Dx%23%C3%A4+b"));
}

#[tokio::test]
async fn lists_messages_page_by_page() {
    let server = Server::scripted([
        answer(200, r#"{"data": [{"id": "m1", "role": "USER"}, {"id": "m2", "role": "ASSISTANT"}], "has_more": true}"#),
        answer(200, r#"{"data": [{"id": "m3", "role": "SYSTEM"}], "has_more": false}"#),
    ])
    .await;
    let messages = server.client().list_messages(&caller(), "chat_1").await.unwrap();
    let read: Vec<_> = messages.iter().map(|message| (message.id.as_str(), message.role)).collect();
    assert_eq!(read, [("m1", Role::User), ("m2", Role::Assistant), ("m3", Role::System)]);
    let queries: Vec<_> = server.requests().into_iter().map(|request| request.query.unwrap()).collect();
    assert_eq!(queries, ["chatId=chat_1", "chatId=chat_1&starting_after=m2"]);
}

#[tokio::test]
async fn stops_at_a_repeated_page() {
    let page = r#"{"data": [{"id": "m1"}, {"id": "m2"}], "has_more": true}"#;
    let server = Server::always(move || answer(200, page)).await;
    let messages = server.client().list_messages(&caller(), "chat_1").await.unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn limits_the_number_of_pages() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let next = move || count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let server =
        Server::always(move || answer(200, format!(r#"{{"data": [{{"id": "m{}"}}], "has_more": true}}"#, next())))
            .await;
    let error = server.client().list_messages(&caller(), "chat_1").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("100 pages"), "{error}");
}

#[tokio::test]
async fn parses_messages_leniently() {
    let message = r#"{
        "object": "message", "id": "m1", "role": "ASSISTANT", "text": null, "createdAt": "2026-11-21T07:30:00.000Z",
        "references": [{"name": "A", "sequenceNumber": "2", "originalIndex": null, "sourceId": "s", "source": "x", "new": 1}],
        "debugInfo": {"a": 1}, "novelty": [1, 2]
    }"#;
    let list =
        format!(r#"{{"object": "list", "data": [{message}, {{"id": "m2", "references": null, "role": "TOOL"}}]}}"#);
    let server = Server::always(move || answer(200, list.clone())).await;
    let messages = server.client().list_messages(&caller(), "chat_1").await.unwrap();
    let [first, second] = messages.try_into().unwrap();
    assert_eq!((first.text, first.created_at.as_deref()), (None, Some("2026-11-21T07:30:00.000Z")));
    assert_eq!(first.references[0].sequence_number, 2);
    assert_eq!(first.references[0].original_index, [0; 0]);
    assert_eq!((second.role, second.references.len(), second.created_at), (Role::Assistant, 0, None));

    let nothing = Server::always(|| answer(200, r#"{"data": null, "has_more": null}"#)).await;
    assert_eq!(nothing.client().list_messages(&caller(), "chat_1").await.unwrap(), []);
}

#[tokio::test]
async fn parses_hits_leniently() {
    let hits = r#"[
        {"id": "c1", "chunkId": "k1", "text": "Book early.", "order": "3", "startPage": 1.0, "endPage": "-1", "metadata": {"a": 1},
         "url": null, "title": "T", "key": "t.pdf", "createdAt": "2026-11-21", "score": 0.5, "internallyStoredAt": null},
        {"id": "c2"},
        {"id": "c3", "order": -1, "startPage": 99999999999, "metadata": null, "text": null}
    ]"#;
    let server = Server::always(move || answer(200, hits)).await;
    let [first, second, third] =
        server.client().search(&caller(), None, &calls::query()).await.unwrap().try_into().unwrap();
    assert_eq!((first.order, first.start_page, first.end_page), (3, Some(1), Some(-1)));
    assert_eq!((first.metadata, first.url, first.title.as_deref()), (Some(json!({"a": 1})), None, Some("T")));
    assert_eq!((second.chunk_id.as_str(), second.text.as_str(), second.order), ("", "", 0));
    assert_eq!((third.order, third.start_page, third.metadata), (0, None, None));

    let nothing = Server::always(|| answer(200, "null")).await;
    assert_eq!(nothing.client().search(&caller(), None, &calls::query()).await.unwrap(), []);
}

#[tokio::test]
async fn parses_completions_leniently() {
    let usage = |prompt_tokens, completion_tokens| Some(Usage { prompt_tokens, completion_tokens });
    for (body, text, finish_reason, used) in [
        (
            r#"{"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 12, "completion_tokens": "3", "total_tokens": 15}}"#,
            "Hi",
            Some("stop"),
            usage(12, 3),
        ),
        (
            r#"{"choices": [{"message": {"content": null}, "finishReason": "length"}], "usage": null}"#,
            "",
            Some("length"),
            None,
        ),
        (
            r#"{"choices": [{"message": {"content": "Hi"}}, {"message": {"content": "Ho"}}], "usage": {}}"#,
            "Hi",
            None,
            None,
        ),
    ] {
        let server = Server::always(move || answer(200, body)).await;
        let completion = server.client().complete(&caller(), &calls::completion()).await.unwrap();
        let read = (completion.text.as_str(), completion.finish_reason.as_deref(), completion.usage);
        assert_eq!(read, (text, finish_reason, used), "{body}");
    }
}

#[tokio::test]
async fn returns_the_stored_text_of_a_streamed_completion() {
    let body = r#"{"object": "streamResult", "message": {"id": "msg_a", "text": "Hello<sup>1</sup>", "references": []},
        "toolCalls": [], "usage": {"promptTokens": 5, "completionTokens": 2, "totalTokens": 7}}"#;
    let server = Server::always(move || answer(200, body)).await;
    let client = server.client();
    let completion =
        client.complete_into(&caller(), &calls::target(), &calls::completion(), &[]).await.unwrap().completion;
    assert_eq!(completion.text, "Hello<sup>1</sup>");
    assert_eq!(completion.usage, Some(Usage { prompt_tokens: 5, completion_tokens: 2 }));
    assert_eq!(server.request().json().get("searchContext"), None);
}
