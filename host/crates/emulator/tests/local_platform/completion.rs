//! Completions: quoted, forwarded, and streamed into messages.

use modhost_core::secret::Secret;
use modhost_emulator::{CompletionEndpoint, LocalSettings};
use serde_json::{Value, json};

use crate::help::{FarAnswer, FarSide, Local, error, settings, text};

const KEY: &str = "sk-very-secret";

fn json_answer(status: u16, body: &Value) -> FarAnswer {
    FarAnswer { status, headers: vec![("content-type", "application/json".into())], pieces: vec![body.to_string()] }
}

fn stream_answer(pieces: &[&str]) -> FarAnswer {
    let pieces = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    FarAnswer { status: 200, headers: vec![("content-type", "text/event-stream; charset=utf-8".into())], pieces }
}

async fn local_and_model(
    path: &str,
    model: Option<&str>,
    answers: impl IntoIterator<Item = FarAnswer>,
) -> (Local, FarSide) {
    let far_side = FarSide::answering(answers).await;
    let endpoint =
        CompletionEndpoint { url: far_side.url(path), key: Some(Secret::new(KEY)), model: model.map(str::to_owned) };
    (Local::start(LocalSettings { completion: Some(endpoint), ..settings() }).await, far_side)
}

fn question() -> Value {
    json!({ "messages": [{ "role": "user", "content": "Hello?" }], "model": "AZURE_GPT_4o", "options": { "temperature": 0.3, "stream": true } })
}

/// Builds a request to stream into the empty message of a new chat; returns it with the path of the message.
async fn stream_request(local: &Local) -> (Value, String) {
    let (chat, question, reply) = local.chat().await;
    let request = json!({
        "chatId": chat,
        "assistantId": "assistant_Answering",
        "userMessageId": question,
        "assistantMessageId": reply,
        "messages": [{ "role": "user", "content": "Hello?" }],
        "model": "AZURE_GPT_4o",
        "searchContext": [
            { "id": "cont_a", "chunkId": "chunk_a", "key": "a.md", "title": "A", "url": "http://a" },
            { "id": "cont_b", "chunkId": "chunk_b", "key": "b.md" },
        ],
    });
    (request, format!("/messages/{reply}?chatId={chat}"))
}

#[tokio::test]
async fn quotes_documents_without_a_model_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("hotels.md"),
        "# Hotels\n\nA hotel costs at most 140 euros. Breakfast is included.",
    )
    .unwrap();
    let local = Local::start(LocalSettings { documents: Some(folder.path().to_owned()), ..settings() }).await;
    let ask = async |question: &str| {
        let (status, answer) = local
            .post("/openai/chat/completions", json!({ "messages": [{ "role": "user", "content": question }] }))
            .await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!((&answer["object"], &answer["model"]), (&json!("openai.chat.completion"), &json!("local-quote")));
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        text(&answer["choices"][0]["message"]["content"])
    };
    let answer = ask("What does a hotel cost?").await;
    assert!(
        answer.starts_with("> A hotel costs at most 140 euros. Breakfast is included. ([Hotels](http://"),
        "{answer}"
    );
    assert!(answer.contains("No language model is connected") && answer.contains("--completion-url"), "{answer}");
    assert_eq!(ask("What does a hotel cost?").await, answer);
    let none = ask("Who sank the Titanic?").await;
    assert!(none.starts_with("Nothing in the documents fits") && none.contains("--completion-url"), "{none}");
}

#[tokio::test]
async fn streams_a_quotation_with_references_without_a_model() {
    let local = Local::start(settings()).await;
    let (mut request, message) = stream_request(&local).await;
    request["messages"] = json!([
        { "role": "system", "content": "[source0] Planes are loud and fast and dear.\n\n[source1] A hotel costs at most 140 euros." },
        { "role": "user", "content": "What does a hotel cost?" },
    ]);
    let (status, result) = local.post("/integrated/chat/stream-completions", request).await;
    assert_eq!((status, &result["object"]), (200, &json!("streamResult")), "{result}");
    assert_eq!(result["usage"], json!({ "promptTokens": 0, "completionTokens": 0, "totalTokens": 0 }));
    let (_, written) = local.get(&message).await;
    assert_eq!(result["message"], written);
    assert!(
        text(&written["text"]).starts_with("> A hotel costs at most 140 euros. <sup>2</sup>\n\n*No language model"),
        "{written}"
    );
    assert_eq!(
        written["references"],
        json!([{
            "name": "b.md", "url": "unique://content/cont_b", "sequenceNumber": 2, "originalIndex": [1],
            "sourceId": "cont_b_chunk_b", "source": "node-ingestion-chunks",
        }])
    );
}

#[tokio::test]
async fn forwards_requests_in_openai_format() {
    let reply = json!({ "id": "x", "object": "chat.completion", "model": "small", "choices": [
        { "index": 0, "message": { "role": "assistant", "content": "Hi" }, "finish_reason": "stop" },
    ]});
    for (path, model, asked) in [
        ("/v1", Some("small"), "small"),
        ("/v1/", None, "AZURE_GPT_4o"),
        ("/v1/chat/completions?api-version=1", None, "AZURE_GPT_4o"),
    ] {
        let (local, far_side) = local_and_model(path, model, [json_answer(200, &reply)]).await;
        let (status, answer) = local.post("/openai/chat/completions", question()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!((&answer["choices"], &answer["object"]), (&reply["choices"], &json!("openai.chat.completion")));
        let (headers, _) = &far_side.received()[0];
        assert_eq!(headers["authorization"], format!("Bearer {KEY}").as_str());
        let expected = json!({ "model": asked, "messages": [{ "role": "user", "content": "Hello?" }], "temperature": 0.3, "stream": false });
        assert_eq!(far_side.bodies(), [expected]);
    }
}

#[tokio::test]
async fn maps_endpoint_errors_and_never_shows_the_key() {
    let said = json!({ "error": { "message": format!("bad key {KEY}, or whatever") } });
    for (theirs, ours) in
        [(400, 400), (401, 502), (403, 502), (404, 400), (422, 400), (429, 429), (500, 503), (503, 503), (504, 504)]
    {
        let (local, _far_side) = local_and_model("/v1", None, [json_answer(theirs, &said)]).await;
        let message = error(local.post("/openai/chat/completions", question()).await, ours);
        assert!(message.contains("or whatever") && message.contains(&theirs.to_string()), "{message}");
        assert!(!message.contains(KEY), "{message}");
    }
    let (local, _far_side) = local_and_model("/v1", None, [json_answer(200, &json!({ "no": "choices" }))]).await;
    assert!(error(local.post("/openai/chat/completions", question()).await, 502).contains("--completion-url"));
    let mut nameless = question();
    nameless.as_object_mut().unwrap().remove("model");
    assert!(error(local.post("/openai/chat/completions", nameless).await, 400).contains("--completion-model"));
}

#[tokio::test]
async fn passes_on_rate_limits_with_retry_after() {
    let mut limited = json_answer(429, &json!({ "error": "slow down" }));
    limited.headers.push(("retry-after", "17".into()));
    let (local, _far_side) = local_and_model("/v1", None, [limited]).await;
    let response =
        local.request(reqwest::Method::POST, "/openai/chat/completions").json(&question()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"17".parse().unwrap()));
}

#[tokio::test]
async fn reports_an_unreachable_endpoint() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:{KEY}@{}/v1?key={KEY}", gone.local_addr().unwrap()).parse().unwrap();
    drop(gone);
    let endpoint = CompletionEndpoint { url, key: None, model: None };
    let local = Local::start(LocalSettings { completion: Some(endpoint), ..settings() }).await;
    let message = error(local.post("/openai/chat/completions", question()).await, 503);
    assert!(message.contains("unreachable") && !message.contains(KEY), "{message}");
}

#[tokio::test]
async fn times_out_on_a_slow_endpoint() {
    // Accepts connections and never responds.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", silent.local_addr().unwrap()).parse().unwrap();
    let endpoint = CompletionEndpoint { url, key: None, model: None };
    let local = Local::start(LocalSettings { completion: Some(endpoint), ..settings() }).await;
    let mut impatient = question();
    impatient["timeout"] = json!(50);
    assert!(error(local.post("/openai/chat/completions", impatient).await, 504).contains("in time"));
}

#[tokio::test]
async fn streams_an_answer_into_the_message() {
    let stream = stream_answer(&[
        ": a comment\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"It is A [sour\"}}]}\n\ndata: {\"choices\":[{\"del",
        "ta\":{\"content\":\"ce0], not B [source7].\"}}]}\r\n\r\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\ndata: [DONE]\n\n",
    ]);
    let (local, far_side) = local_and_model("/v1", None, [stream]).await;
    let (mut request, message) = stream_request(&local).await;
    request["startText"] = json!("So: ");
    request["debugInfo"] = json!({ "seen": true });
    let (status, result) = local.post("/integrated/chat/stream-completions", request).await;
    assert_eq!(status, 200, "{result}");
    assert_eq!(far_side.bodies()[0]["stream"], true);
    assert_eq!(result["usage"], json!({ "promptTokens": 5, "completionTokens": 7, "totalTokens": 12 }));
    assert_eq!(result["toolCalls"], json!([]));
    let (_, written) = local.get(&message).await;
    assert_eq!(result["message"], written);
    assert_eq!(written["text"], "So: It is A <sup>1</sup>, not B .");
    assert_eq!(written["originalText"], "So: It is A [source0], not B [source7].");
    assert_eq!(written["references"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&written["references"][0]["name"], &written["references"][0]["url"]),
        (&json!("A"), &json!("http://a"))
    );
    assert_eq!(written["debugInfo"], json!({ "seen": true }));
    for stamp in ["startedStreamingAt", "stoppedStreamingAt", "completedAt"] {
        assert!(written[stamp].is_string(), "{stamp}: {written}");
    }
}

#[tokio::test]
async fn assembles_tool_calls() {
    let stream = stream_answer(&[
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"function\":{\"name\":\"find\",\"arguments\":\"{\\\"a\\\"\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}},{\"index\":1,\"id\":\"call_2\",\"function\":{\"name\":\"stop\"}}]}}]}\n\n",
        "data: [DONE]\n\n",
    ]);
    let (local, _far_side) = local_and_model("/v1", None, [stream]).await;
    let (_, result) = local.post("/integrated/chat/stream-completions", stream_request(&local).await.0).await;
    assert_eq!(
        result["toolCalls"],
        json!([
            { "id": "call_1", "name": "find", "arguments": "{\"a\":1}" },
            { "id": "call_2", "name": "stop", "arguments": null },
        ])
    );
}

#[tokio::test]
async fn accepts_an_endpoint_that_does_not_stream() {
    let whole = json!({ "choices": [{ "message": { "content": "All at once" } }], "usage": { "prompt_tokens": 1, "completion_tokens": 2 } });
    let (local, _far_side) = local_and_model("/v1", None, [json_answer(200, &whole)]).await;
    let (_, result) = local.post("/integrated/chat/stream-completions", stream_request(&local).await.0).await;
    assert_eq!((&result["message"]["text"], &result["usage"]["totalTokens"]), (&json!("All at once"), &json!(3)));
}

#[tokio::test]
async fn interrupted_answer_marks_streaming_as_stopped() {
    let stream = stream_answer(&[
        "data: {\"choices\":[{\"delta\":{\"content\":\"It is\"}}]}\n\n",
        "data: {\"error\":{\"message\":\"out of memory\"}}\n\n",
    ]);
    let (local, _far_side) = local_and_model("/v1", None, [stream]).await;
    let (request, message) = stream_request(&local).await;
    let said = error(local.post("/integrated/chat/stream-completions", request).await, 503);
    assert!(said.contains("out of memory"), "{said}");
    let (_, written) = local.get(&message).await;
    assert_eq!(written["text"], "It is");
    assert!(written["stoppedStreamingAt"].is_string() && written["completedAt"].is_null(), "{written}");
}

#[tokio::test]
async fn answer_requires_a_message_of_the_assistant_in_the_chat() {
    let local = Local::start(settings()).await;
    let (request, _) = stream_request(&local).await;
    for (field, value, status) in [
        ("chatId", json!("chat_none"), 404),
        ("assistantMessageId", json!("msg_none"), 404),
        ("userMessageId", json!("msg_none"), 404),
        ("assistantMessageId", request["userMessageId"].clone(), 400),
        ("assistantId", json!("assistant_Listening"), 400),
        ("messages", json!([]), 400),
    ] {
        let mut wrong = request.clone();
        wrong[field] = value;
        error(local.post("/integrated/chat/stream-completions", wrong).await, status);
    }
}

#[tokio::test]
async fn lists_the_models_of_the_endpoint() {
    let listed = json!({ "object": "list", "data": [{ "id": "small" }, { "id": "large" }] });
    let (local, _far_side) = local_and_model("/v1", None, [json_answer(200, &listed)]).await;
    assert_eq!(local.get("/openai/models").await, (200, json!({ "models": ["small", "large"] })));
    let (local, far_side) = local_and_model("/v1", Some("large"), []).await;
    assert_eq!(local.get("/openai/models").await, (200, json!({ "models": ["large"] })));
    assert!(far_side.received().is_empty());
}

#[tokio::test]
async fn embeddings_are_unsupported() {
    let local = Local::start(settings()).await;
    let (status, body) = local.post("/openai/embeddings", json!({ "texts": ["x"] })).await;
    assert_eq!((status, &body["error"]["params"]["retryable"]), (501, &json!(false)));
}
