//! Tests of streamed completions: from an OpenAI-compatible endpoint to the guest and to the readers of the chat.

use std::path::Path;

use modhost_emulator as local;
use modhost_emulator::{Assistant, LocalPlatform, LocalSettings};
use serde_json::{Value, json};

use super::harness::{
    Answer, Host, Settings, Stream, StreamConnection, chat, chosen, http, read_chat, say, signed_post, until,
    wait_for_answer,
};

/// A host with a local platform in the test's process, and a tenant whose completions come from a model that the test
/// emulates.
struct Setup {
    host: Host,
    model: Stream,
    _platform: LocalPlatform,
}

impl Setup {
    /// Starts a host with these lines for the completion and for the entry of the test guest.
    async fn start(completion: &str, module: &str) -> Self {
        let model = Stream::start().await;
        let test = Assistant {
            id: "assistant_Test".into(),
            name: "Test".into(),
            module: "Test".into(),
            configuration: json!({}),
            chooses: true,
            tenant: None,
        };
        let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/assistant/documents");
        let (documents, assistants) = (Some(documents), vec![test]);
        let settings = LocalSettings { documents, assistants, ..LocalSettings::default() };
        let platform = LocalPlatform::start(settings).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::test_guest(module).tenant(&table(&model.api_base(), completion));
        std::fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
        let variables = [
            ("TEST_API_BASE", platform.api_base().to_string()),
            ("TEST_APP_ID", local::APP_ID.into()),
            ("TEST_API_KEY", local::API_KEY.into()),
            ("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET.into()),
            ("TEST_MODEL_KEY", "sk-sesame".into()),
        ];
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let host = Host::serve(folder, &variables, Some(&platform)).await;
        platform.set_webhook(host.webhook.parse().unwrap());
        Self { host, model, _platform: platform }
    }

    /// Sends a message to the test guest; returns the chat's id and the model's connection with a started response.
    async fn ask(&self, text: &str) -> (String, StreamConnection) {
        let chat = say(&self.host.platform, "Test", text).await;
        (chat, self.model.opened().await)
    }

    /// Waits until this text is shown as the reply.
    async fn shown(&self, chat: &str, text: &str) {
        until(&format!("{text:?} to be shown"), async || (self.reply(chat).await["shownText"] == text).then_some(()))
            .await;
    }

    /// The current state of the reply.
    async fn reply(&self, chat: &str) -> Value {
        let chat = read_chat(&self.host.platform, chat).await;
        chat["messages"].as_array().unwrap().iter().find(|message| message["role"] == "ASSISTANT").unwrap().clone()
    }

    async fn answer(&self, chat: &str) -> Answer {
        wait_for_answer(&self.host, chat).await
    }
}

fn table(api_base: &str, lines: &str) -> String {
    format!(
        "[tenant.completion]\napi_base = {api_base:?}\napi_key = \"env:TEST_MODEL_KEY\"\nmodel = \"own-model\"\n{lines}"
    )
}

#[tokio::test]
async fn guest_receives_each_chunk_before_the_next_is_sent() {
    let setup = Setup::start("", "").await;
    let chat = say(&setup.host.platform, "Test", "stream-shown Tell me.").await;
    let mut line = setup.model.accept().await;
    let head = line.request.to_lowercase();
    for part in ["post /v1/chat/completions http/1.1", "authorization: bearer sk-sesame", "idempotency-key: dlv_"] {
        assert!(head.contains(part), "{part} in {head}");
    }
    let expected = json!({
        "model": "own-model",
        "messages": [{ "role": "user", "content": "Tell me." }],
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    assert_eq!(line.body(), expected);
    line.begin().await;
    let mut shown_text = String::new();
    for piece in ["Once", " upon", " a time", "…"] {
        line.send(": keep-alive\n\n").await;
        line.send_chunk(piece).await;
        shown_text += piece;
        setup.shown(&chat, &shown_text).await;
        assert_eq!(setup.reply(&chat).await["text"], Value::Null, "the shown text must not be stored");
    }
    line.done().await;
    assert_eq!(setup.answer(&chat).await.text(), "Once upon a time…");
    let metrics = http().get(format!("{}/metrics", setup.host.admin)).send().await.unwrap().text().await.unwrap();
    let counted = metrics
        .lines()
        .find(|line| line.contains("calls") && line.contains("\"completion.stream\"") && line.contains("ok"));
    assert!(counted.is_some_and(|line| !line.starts_with('#')), "{metrics}");
}

#[tokio::test]
async fn sdk_shows_the_text_received_so_far() {
    let setup = Setup::start("", "").await;
    let (chat, mut line) = setup.ask("stream-show Tell me.").await;
    line.send_chunk("Once").await;
    setup.shown(&chat, "Once").await;
    line.send_chunk(" upon a time").await;
    line.done().await;
    assert_eq!(setup.answer(&chat).await.text(), "Once upon a time");
}

/// Backpressure: the host stops reading from the model when the guest doesn't read, and closes the connection when the
/// guest ends.
#[tokio::test]
async fn unread_stream_applies_backpressure_and_is_closed() {
    const MIB: usize = 64;
    let setup = Setup::start("", "limits = { timeout = \"4s\" }\nretry = { attempts = 1 }").await;
    let (chat, mut line) = setup.ask("stream-open 1 Tell me.|sleep 600000").await;
    line.send_chunk("Once").await;
    let writer = tokio::spawn(async move {
        let comment = format!(":{}\n\n", "x".repeat(1 << 20));
        let mut written = 0;
        while written < MIB && line.send(&comment).await {
            written += 1;
        }
        written
    });
    setup.shown(&chat, "Once").await;
    setup.host.logged(&["limit reached"]).await;
    let written = writer.await.unwrap();
    assert!(written < MIB, "the host read everything although the guest read nothing");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let setup = Setup::start("", "").await;
    let (chat, mut line) = setup.ask("stream-some 2 Tell me.|reply").await;
    line.send_chunk("Once").await;
    line.send_chunk(" upon").await;
    line.closed().await;
    assert_eq!(setup.answer(&chat).await.text(), "Once| upon");
}

#[tokio::test]
async fn interrupted_stream_is_reported_and_retried() {
    let setup = Setup::start("", "retry = { attempts = 2, first = \"10ms\", max = \"20ms\" }").await;
    let (chat, mut line) = setup.ask("stream-shown Tell me.").await;
    line.send_chunk("Once").await;
    setup.shown(&chat, "Once").await;
    line.event(&json!({ "error": { "message": "The model is overloaded, sk-sesame.", "type": "server_error" } })).await;
    line.closed().await;
    let said = "completion.tokens.next: unavailable: POST /chat/completions: the answer broke off: The model is overloaded, (api key).";
    setup.host.logged(&[said]).await;
    let mut line = setup.model.opened().await;
    line.send_chunk("Twice").await;
    line.done().await;
    assert_eq!(setup.answer(&chat).await.text(), "Twice");
}

/// A server that escapes all non-ASCII text and splits it at token boundaries.
#[tokio::test]
async fn joins_split_surrogate_pairs() {
    let setup = Setup::start("", "").await;
    let (chat, mut line) = setup.ask("stream-shown Tell me.").await;
    line.send_chunk("So ").await;
    for half in ["\\ud83d", "\\ude42!"] {
        line.send(&format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{half}\"}}}}]}}\n\n")).await;
    }
    line.done().await;
    assert_eq!(setup.answer(&chat).await.text(), "So 🙂!");
}

/// Failures that look like the end of a stream: errors of older servers, and connections that close within an answer.
#[tokio::test]
async fn truncated_stream_is_never_a_complete_answer() {
    let error = r#"{"object":"error","message":"out of memory","type":"InternalServerError","code":500}"#;
    let half = r#"{"choices":[{"index":0,"delta":{"content":" upon"},"finish_reason":""}]}"#;
    for (disguised, words) in [
        (format!("data: {error}\n\ndata: [DONE]\n\n"), "the answer broke off: out of memory, code 500"),
        (format!("event: error\ndata: {error}\n\ndata: [DONE]\n\n"), "the answer broke off: out of memory, code 500"),
        (format!("data: {half}\n\n"), "it stopped without having come to its end"),
    ] {
        for command in ["stream-shown Tell me.", "complete-into-reply Tell me."] {
            let setup = Setup::start("", "retry = { attempts = 2, first = \"10ms\", max = \"20ms\" }").await;
            let (chat, mut line) = setup.ask(command).await;
            line.send_chunk("Once").await;
            line.send(&disguised).await;
            line.end().await;
            setup.host.logged(&[words]).await;
            let mut line = setup.model.opened().await;
            line.send_chunk("Twice").await;
            line.done().await;
            assert_eq!(setup.answer(&chat).await.text(), "Twice", "{command}: {disguised}");
        }
    }
}

#[tokio::test]
async fn slow_stream_reaches_the_time_limits() {
    for (completion, command) in
        [("timeout = \"300ms\"", "stream-caught Tell me."), ("", "stream-caught-within 300 Tell me.")]
    {
        let setup = Setup::start(completion, "").await;
        let (chat, mut line) = setup.ask(command).await;
        line.send_chunk("Once").await;
        line.closed().await;
        let text = setup.answer(&chat).await.text().to_owned();
        assert_eq!(text, "Once|completion.tokens.next: timed out; the call may still have taken effect", "{command}");
    }
}

#[tokio::test]
async fn streams_into_the_reply() {
    let setup = Setup::start("", "").await;
    let (chat, mut line) = setup.ask("complete-into-reply What may a hotel cost?").await;
    line.send_chunk("At most 140 euros [sou").await;
    setup.shown(&chat, "At most 140 euros ").await;
    line.send_chunk("rce1]. In London [source0] more [").await;
    setup.shown(&chat, "At most 140 euros <sup>2</sup>. In London <sup>1</sup> more ").await;
    assert_eq!(setup.reply(&chat).await["text"], Value::Null);
    line.send_chunk("source7].").await;
    line.done().await;
    let answer = setup.answer(&chat).await;
    assert_eq!(answer.text(), "At most 140 euros <sup>2</sup>. In London <sup>1</sup> more .");
    let references: Vec<_> =
        answer.reply["references"].as_array().unwrap().iter().map(|it| it["sequenceNumber"].clone()).collect();
    assert_eq!(references, [2, 1]);
    for stamp in ["completedAt", "startedStreamingAt", "stoppedStreamingAt"] {
        assert!(answer.reply[stamp].is_string(), "{stamp}");
    }
}

/// Posts an event to a host, which must accept it.
async fn take(host: &Host, event: &Value) {
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
}

/// A tenant without a platform can still use its model. Completions that would write into a chat fail before the model
/// is called.
#[tokio::test]
async fn completes_without_a_platform() {
    let model = Stream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::test_guest("events = [\"*\"]\nretry = { attempts = 1 }").text();
    let (before, _) = settings.split_once("[tenant.platform]").unwrap();
    let (_, modules) = settings.split_once("[[module]]").unwrap();
    let completion = table(&model.api_base(), "");
    let settings = format!("{before}platform = {{ kind = \"none\" }}\n{completion}\n[[module]]{modules}");
    std::fs::write(folder.path().join("modules.toml"), settings).unwrap();
    let variables = [("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET), ("TEST_MODEL_KEY", "sk-sesame")];
    let host = Host::serve(folder, &variables, None).await;

    take(&host, &chosen("evt_1", "Test", "stream-log Tell me.")).await;
    let mut line = model.opened().await;
    line.send_chunk("Once").await;
    line.send_chunk(" upon").await;
    line.done().await;
    host.logged(&["read Once| upon"]).await;

    // If the model were called first, this would hang: the test doesn't answer.
    take(&host, &chosen("evt_2", "Test", "into-reply Tell me.")).await;
    host.logged(&["delivery failed", "there is no reply to stream into", "kind = "]).await;
}

/// `dev` replaces the tenant's model by that of the local platform.
#[tokio::test]
async fn dev_streams_without_a_configured_model() {
    let settings = Settings::test_guest("").tenant(&table("https://api.example.com/v1", ""));
    let host = settings.start().await;
    let question = "What may a hotel cost?";
    let whole = chat(&host, "Test", &format!("complete {question}")).await.text().to_owned();
    let pieces = chat(&host, "Test", &format!("stream {question}")).await.text().to_owned();
    assert!(whole.contains("140 euros a night"), "{whole}");
    assert!(pieces.split('|').count() > 10, "{pieces}");
    assert_eq!(pieces.replace('|', ""), whole);
}

/// `dev --completion-url`: the local platform forwards the stream of that model.
#[tokio::test]
async fn dev_forwards_the_stream_of_a_model() {
    let model = Stream::start().await;
    let settings = Settings::test_guest("").tenant(&table("https://api.example.com/v1", "")).model(&model.api_base());
    let host = settings.start().await;
    let chat = say(&host.platform, "Test", "stream-some 1 Tell me.|reply").await;
    let mut line = model.accept().await;
    assert_eq!(line.body()["model"], "own-model");
    line.begin().await;
    line.send_chunk("Once").await;
    line.closed().await;
    assert_eq!(wait_for_answer(&host, &chat).await.text(), "Once");
}
