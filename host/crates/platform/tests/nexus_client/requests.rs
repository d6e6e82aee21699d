//! Tests of the exact requests, and of operations that send none.

use http::Method;
use modhost_platform::nexus::MESSAGE_LIMIT;
use modhost_platform::{
    CompletionRequest, ErrorKind, MessageChange, NewStep, Platform, Query, Reference, Role, SearchKind, StepChange,
    StepStatus, StreamTarget,
};
use serde_json::json;

use crate::client::{KEY, caller, says, write};
use crate::server::{Server, answer};

const WRITTEN: &str = r#"{"success": true}"#;

#[tokio::test]
async fn sends_a_message_as_documented() {
    let server = Server::always(|| answer(200, WRITTEN)).await;
    let message = write(&server.client(), "thread_1", "Good morning").await.unwrap();
    assert_eq!((message.id.as_str(), message.role), ("", Role::Assistant));
    assert_eq!(message.text.as_deref(), Some("Good morning"));

    let request = server.request();
    assert_eq!(request.method, Method::POST);
    assert_eq!((request.path.as_str(), request.query.as_deref()), ("/api/public/thread/thread_1/messages", None));
    assert_eq!(request.json(), json!({ "content": "Good morning" }));
    assert_eq!(request.header("api-key"), Some(KEY));
    assert_eq!(request.header("content-type"), Some("application/json"));
    for name in ["authorization", "idempotency-key", "x-company-id", "x-user-id"] {
        assert_eq!(request.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn sends_the_idempotency_key_if_its_header_is_configured() {
    let server = Server::always(|| answer(200, WRITTEN)).await;
    let client = server.client_with(|settings| settings.idempotency_header = Some("x-request-key".parse().unwrap()));
    write(&client, "thread_1", "Good morning").await.unwrap();
    assert_eq!(server.request().header("x-request-key"), Some("dlv_1-0-abc"));
}

#[tokio::test]
async fn encodes_an_id_as_one_path_segment() {
    for (id, path) in [
        ("../../admin", "..%2F..%2Fadmin"),
        ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("50% ä", "50%25%20%C3%A4"),
        ("%2e%2e", "%252e%252e"),
    ] {
        let server = Server::always(|| answer(200, WRITTEN)).await;
        write(&server.client(), id, "Hi").await.unwrap();
        assert_eq!(server.request().path, format!("/api/public/thread/{path}/messages"));
    }
    let server = Server::always(|| answer(200, WRITTEN)).await;
    for id in ["", ".", ".."] {
        assert_eq!(write(&server.client(), id, "Hi").await.unwrap_err().kind, ErrorKind::Invalid, "{id:?}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn limits_the_length_of_a_message() {
    let server = Server::always(|| answer(200, WRITTEN)).await;
    let client = server.client();
    for text in ["x".repeat(MESSAGE_LIMIT), "ä".repeat(MESSAGE_LIMIT), "😀".repeat(MESSAGE_LIMIT / 2)] {
        write(&client, "thread_1", text).await.unwrap();
    }
    assert_eq!(server.requests().len(), 3);

    let too_long = [("x".repeat(4001), 4001), ("ä".repeat(5000), 5000), ("😀".repeat(2001), 4002)];
    for (text, length) in too_long {
        let error = write(&client, "thread_1", text).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        let expected = format!("has at most 4000 characters; this one has {length} ");
        assert!(error.message.contains(&expected) && error.message.ends_with("nothing was sent"), "{error}");
    }
    assert_eq!(server.requests().len(), 3, "a message above the limit was sent");
}

#[tokio::test]
async fn rejects_content_that_a_message_cannot_contain() {
    let server = Server::always(|| answer(200, WRITTEN)).await;
    let reference = Reference {
        name: "Travel policy".into(),
        description: None,
        url: None,
        sequence_number: 1,
        original_index: vec![],
        source_id: "cont_1".into(),
        source: "node-ingestion-chunks".into(),
    };
    for (change, kind, expected) in [
        (MessageChange::default(), ErrorKind::Invalid, "needs a text"),
        (says(" \n"), ErrorKind::Invalid, "needs a text"),
        (MessageChange { references: vec![reference], ..says("x") }, ErrorKind::Unsupported, "has no references"),
        (MessageChange { debug_info: Some(json!({})), ..says("x") }, ErrorKind::Unsupported, "no debug information"),
    ] {
        let error = server.client().create_message(&caller(), None, "thread_1", &change).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(expected), "{error}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn reports_unsupported_operations_by_name() {
    let server = Server::always(|| answer(200, WRITTEN)).await;
    let (client, caller) = (server.client(), caller());
    let step = NewStep { message_id: "m".into(), text: "…".into(), status: StepStatus::Running, order: 1 };
    let query = Query {
        text: "travel".into(),
        kind: SearchKind::Combined,
        limit: None,
        page: None,
        scope_ids: vec![],
        content_ids: vec![],
        chat_only: false,
        language: None,
        score_threshold: None,
        metadata_filter: None,
        reranker: None,
    };
    let completion = CompletionRequest {
        model: None,
        messages: vec![],
        temperature: None,
        max_tokens: None,
        options: None,
        timeout: None,
    };
    let target = StreamTarget {
        chat_id: "c".into(),
        assistant_id: "a".into(),
        user_message_id: "u".into(),
        assistant_message_id: "m".into(),
    };
    for (what, result) in [
        ("steps", client.create_step(&caller, &step).await.map(drop)),
        ("steps", client.update_step(&caller, "s", &StepChange::default()).await),
        ("changes of messages", client.modify_message(&caller, "c", "m", &says("x")).await.map(drop)),
        ("changes of messages", client.show_message(&caller, "c", "m", "x").await),
        ("history", client.list_messages(&caller, "c").await.map(drop)),
        ("search", client.search(&caller, None, &query).await.map(drop)),
        ("completion", client.complete(&caller, &completion).await.map(drop)),
        ("completion", client.complete_into(&caller, &target, &completion, &[]).await.map(drop)),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
        assert!(error.message.starts_with(&format!("NexusGPT has no {what} for modules")), "{error}");
        assert!(error.message.contains("`messages.create`"), "{error}");
    }
    assert!(server.requests().is_empty());
}
