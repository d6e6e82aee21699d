//! Tests of complete answers.

use std::time::Duration;

use modhost_platform::{Completion, CompletionRequest, ErrorKind, SetupError, Usage};
use serde_json::json;

use crate::client::{KEY, caller, question};
use crate::server::{Reply, Server, answer};

#[tokio::test]
async fn sends_requests_as_openai_documents_them() {
    let body = json!({
        "id": "chatcmpl-1",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "There." }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 7, "completion_tokens": "2", "total_tokens": 9 },
        "service_tier": null,
    });
    let server = Server::always(move || answer(200, body.to_string())).await;
    let completion = server.client().complete(&caller(), &question()).await.unwrap();
    let usage = Some(Usage { prompt_tokens: 7, completion_tokens: 2 });
    assert_eq!(completion, Completion { text: "There.".into(), finish_reason: Some("stop".into()), usage });
    let request = server.request();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/chat/completions"));
    assert_eq!(request.query, None);
    assert_eq!(request.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(request.header("idempotency-key"), Some("dlv_1-0-abc"));
    assert_eq!(request.json(), json!({ "model": "own-model", "messages": [{ "role": "user", "content": "Where?" }] }));
}

#[tokio::test]
async fn merges_options_by_precedence() {
    let server = Server::always(|| answer(200, r#"{"choices": [{"message": {"content": "x"}}]}"#)).await;
    let mut request = question();
    request.model = Some("their-model".into());
    (request.temperature, request.max_tokens) = (Some(0.3), Some(50));
    request.options = Some(
        json!({ "temperature": 1, "top_p": 0.9, "stream": true, "stream_options": {}, "messages": [], "model": "x" }),
    );
    let completion = server.client().complete(&caller(), &request).await.unwrap();
    assert_eq!(completion, Completion { text: "x".into(), finish_reason: None, usage: None });
    let expected = json!({
        "model": "their-model",
        "messages": [{ "role": "user", "content": "Where?" }],
        "temperature": 0.3,
        "max_tokens": 50,
        "top_p": 0.9,
    });
    assert_eq!(server.request().json(), expected);
}

#[tokio::test]
async fn applies_the_shorter_time_limit() {
    let server = Server::always(|| Reply::Silence).await;
    let (short, long) = (Duration::from_millis(30), Duration::from_secs(600));
    for (configured, requested) in [(short, None), (short, Some(long)), (long, Some(short))] {
        let client = server.client_with(|settings| settings.timeout = configured);
        let request = CompletionRequest { timeout: requested, ..question() };
        let whole = client.complete(&caller(), &request).await.unwrap_err();
        let stream = client.stream(&caller(), &request).await.err().unwrap();
        for error in [whole, stream] {
            assert_eq!(error.kind, ErrorKind::Timeout);
            assert!(error.message.contains("no answer within 30ms"), "{error}");
        }
    }
}

#[tokio::test]
async fn calls_an_endpoint_without_a_key() {
    let server = Server::always(|| answer(401, r#"{"error": {"message": "Who are you?", "code": null}}"#)).await;
    let client = server.client_with(|settings| settings.api_key = None);
    let error = client.complete(&caller(), &question()).await.unwrap_err();
    assert_eq!(server.request().header("authorization"), None);
    assert_eq!(error.to_string(), "denied: POST /chat/completions: 401 Unauthorized: Who are you?");
}

#[tokio::test]
async fn redacts_the_key() {
    let body =
        format!(r#"{{"error": {{"message": "Incorrect API key provided: {KEY}.", "type": "invalid_request_error"}}}}"#);
    let server = Server::always(move || answer(401, body.clone())).await;
    let error = server.client().complete(&caller(), &question()).await.unwrap_err();
    assert!(error.message.ends_with("Incorrect API key provided: (api key)."), "{error}");
    assert!(!format!("{:?}", server.client()).contains(KEY));
}

#[tokio::test]
async fn rejects_an_answer_without_choices() {
    let server = Server::always(|| answer(200, r#"{"choices": []}"#)).await;
    let error = server.client().complete(&caller(), &question()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("it has no choices"), "{error}");
}

#[tokio::test]
async fn retries_only_if_the_request_was_certainly_not_carried_out() {
    let server = Server::always(|| answer(500, "{}")).await;
    server.client().complete(&caller(), &question()).await.unwrap_err();
    assert_eq!(server.requests().len(), 1);
    let server =
        Server::scripted([answer(429, "{}"), answer(200, r#"{"choices": [{"message": {"content": "x"}}]}"#)]).await;
    assert_eq!(server.client().complete(&caller(), &question()).await.unwrap().text, "x");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn rejects_invalid_settings() {
    let server = Server::scripted([]).await;
    let error = |address: &str, key: &str| {
        let mut settings = modhost_platform::openai::OpenAiSettings::new(address.parse().unwrap(), "m");
        settings.api_key = Some(modhost_core::secret::Secret::new(key));
        settings.timeout = Duration::from_secs(1);
        modhost_platform::openai::OpenAi::new(settings, modhost_platform::HttpClients::new().unwrap()).unwrap_err()
    };
    assert!(matches!(error("ftp://x/v1", "k"), SetupError::ApiBase { example: "https://api.openai.com/v1", .. }));
    assert!(matches!(error("https://x/v1?api-version=1", "k"), SetupError::ApiBase { .. }));
    assert!(matches!(error("https://x/v1", "k\n"), SetupError::Header("api_key")));
    assert!(matches!(error("https://x/v1", ""), SetupError::Header("api_key")));
    assert_eq!(server.requests().len(), 0);
}
