//! Answers that come piece by piece: from an OpenAI-compatible endpoint to the guest, and to who reads the chat.

use std::path::Path;

use modhost_emulator as local;
use modhost_emulator::{Assistant, LocalPlatform, LocalSettings};
use serde_json::{Value, json};

use super::harness::{
    Answer, Host, Line, Settings, Stream, chat, chosen, http, read_chat, say, signed_post, until, wait_for_answer,
};

/// A host whose tenant's completions are made by a model the test plays, on a local platform of the test's own.
struct Played {
    host: Host,
    model: Stream,
    _platform: LocalPlatform,
}

impl Played {
    /// Starts one with further lines for the completion, and for the entry of the test guest.
    async fn start(completion: &str, module: &str) -> Self {
        let model = Stream::start().await;
        let test = Assistant {
            id: "assistant_Test".into(),
            name: "Test".into(),
            module: "Test".into(),
            configuration: json!({}),
            chooses: true,
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

    /// Says something to the test guest; answers with the chat, and with the model's line, whose answer has begun.
    async fn ask(&self, text: &str) -> (String, Line) {
        let chat = say(&self.host.platform, "Test", text).await;
        (chat, self.model.opened().await)
    }

    /// Waits until this is shown in the place of the reply.
    async fn shown(&self, chat: &str, text: &str) {
        until(&format!("{text:?} to be shown"), async || (self.reply(chat).await["shownText"] == text).then_some(()))
            .await;
    }

    /// The reply as it is now.
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
async fn a_guest_acts_on_each_piece_before_the_next_is_sent() {
    let played = Played::start("", "").await;
    let chat = say(&played.host.platform, "Test", "stream-shown Tell me.").await;
    let mut line = played.model.asked().await;
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
    assert_eq!(line.body().await, expected);
    line.begin().await;
    let mut told = String::new();
    for piece in ["Once", " upon", " a time", "…"] {
        line.send(": keep-alive\n\n").await;
        line.says(piece).await;
        told += piece;
        played.shown(&chat, &told).await;
        assert_eq!(played.reply(&chat).await["text"], Value::Null, "what is shown is not stored");
    }
    line.done().await;
    assert_eq!(played.answer(&chat).await.text(), "Once upon a time…");
    let metrics = http().get(format!("{}/metrics", played.host.admin)).send().await.unwrap().text().await.unwrap();
    let counted = metrics
        .lines()
        .find(|line| line.contains("calls") && line.contains("\"completion.stream\"") && line.contains("ok"));
    assert!(counted.is_some_and(|line| !line.starts_with('#')), "{metrics}");
}

#[tokio::test]
async fn the_sdk_shows_what_there_is() {
    let played = Played::start("", "").await;
    let (chat, mut line) = played.ask("stream-show Tell me.").await;
    line.says("Once").await;
    played.shown(&chat, "Once").await;
    line.says(" upon a time").await;
    line.done().await;
    assert_eq!(played.answer(&chat).await.text(), "Once upon a time");
}

/// The model can't go on where the guest doesn't read; and when the guest is ended, its connection is closed.
#[tokio::test]
async fn what_nobody_reads_is_held_back_and_given_up() {
    const MIB: usize = 64;
    let played = Played::start("", "limits = { timeout = \"4s\" }\nretry = { attempts = 1 }").await;
    let (chat, mut line) = played.ask("stream-open 1 Tell me.|sleep 600000").await;
    line.says("Once").await;
    let writer = tokio::spawn(async move {
        let comment = format!(":{}\n\n", "x".repeat(1 << 20));
        let mut written = 0;
        while written < MIB && line.send(&comment).await {
            written += 1;
        }
        written
    });
    played.shown(&chat, "Once").await;
    played.host.logged(&["limit reached"]).await;
    let written = writer.await.unwrap();
    assert!(written < MIB, "all was taken, though nobody read it");
}

#[tokio::test]
async fn giving_up_closes_the_connection_at_once() {
    let played = Played::start("", "").await;
    let (chat, mut line) = played.ask("stream-some 2 Tell me.|reply").await;
    line.says("Once").await;
    line.says(" upon").await;
    line.closed().await;
    assert_eq!(played.answer(&chat).await.text(), "Once| upon");
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_so_and_is_asked_for_again() {
    let played = Played::start("", "retry = { attempts = 2, first = \"10ms\", max = \"20ms\" }").await;
    let (chat, mut line) = played.ask("stream-shown Tell me.").await;
    line.says("Once").await;
    played.shown(&chat, "Once").await;
    line.event(&json!({ "error": { "message": "The model is overloaded, sk-sesame.", "type": "server_error" } })).await;
    line.closed().await;
    let said = "completion.tokens.next: unavailable: POST /chat/completions: the answer broke off: The model is overloaded, (api key).";
    played.host.logged(&[said]).await;
    let mut line = played.model.opened().await;
    line.says("Twice").await;
    line.done().await;
    assert_eq!(played.answer(&chat).await.text(), "Twice");
}

/// A server that escapes all but ASCII, and cuts its text where a token ends.
#[tokio::test]
async fn half_an_emoji_is_put_together_for_the_guest() {
    let played = Played::start("", "").await;
    let (chat, mut line) = played.ask("stream-shown Tell me.").await;
    line.says("So ").await;
    for half in ["\\ud83d", "\\ude42!"] {
        line.send(&format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{half}\"}}}}]}}\n\n")).await;
    }
    line.done().await;
    assert_eq!(played.answer(&chat).await.text(), "So 🙂!");
}

/// What looks like an end and is none: errors of older servers, and connections that end within an answer.
#[tokio::test]
async fn a_failure_that_looks_like_an_end_is_never_the_answer() {
    let error = r#"{"object":"error","message":"out of memory","type":"InternalServerError","code":500}"#;
    let half = r#"{"choices":[{"index":0,"delta":{"content":" upon"},"finish_reason":""}]}"#;
    for (disguised, words) in [
        (format!("data: {error}\n\ndata: [DONE]\n\n"), "the answer broke off: out of memory, code 500"),
        (format!("event: error\ndata: {error}\n\ndata: [DONE]\n\n"), "the answer broke off: out of memory, code 500"),
        (format!("data: {half}\n\n"), "it stopped without having come to its end"),
    ] {
        for command in ["stream-shown Tell me.", "complete-into-reply Tell me."] {
            let played = Played::start("", "retry = { attempts = 2, first = \"10ms\", max = \"20ms\" }").await;
            let (chat, mut line) = played.ask(command).await;
            line.says("Once").await;
            line.send(&disguised).await;
            line.end().await;
            played.host.logged(&[words]).await;
            let mut line = played.model.opened().await;
            line.says("Twice").await;
            line.done().await;
            assert_eq!(played.answer(&chat).await.text(), "Twice", "{command}: {disguised}");
        }
    }
}

#[tokio::test]
async fn a_slow_answer_meets_the_time_limits() {
    for (completion, command) in
        [("timeout = \"300ms\"", "stream-caught Tell me."), ("", "stream-caught-within 300 Tell me.")]
    {
        let played = Played::start(completion, "").await;
        let (chat, mut line) = played.ask(command).await;
        line.says("Once").await;
        line.closed().await;
        let text = played.answer(&chat).await.text().to_owned();
        assert_eq!(text, "Once|completion.tokens.next: timed out; the call may still have taken effect", "{command}");
    }
}

#[tokio::test]
async fn an_answer_streams_into_the_reply() {
    let played = Played::start("", "").await;
    let (chat, mut line) = played.ask("complete-into-reply What may a hotel cost?").await;
    line.says("At most 140 euros [sou").await;
    played.shown(&chat, "At most 140 euros ").await;
    line.says("rce1]. In London [source0] more [").await;
    played.shown(&chat, "At most 140 euros <sup>2</sup>. In London <sup>1</sup> more ").await;
    assert_eq!(played.reply(&chat).await["text"], Value::Null);
    line.says("source7].").await;
    line.done().await;
    let answer = played.answer(&chat).await;
    assert_eq!(answer.text(), "At most 140 euros <sup>2</sup>. In London <sup>1</sup> more .");
    let references: Vec<_> =
        answer.reply["references"].as_array().unwrap().iter().map(|it| it["sequenceNumber"].clone()).collect();
    assert_eq!(references, [2, 1]);
    for stamp in ["completedAt", "startedStreamingAt", "stoppedStreamingAt"] {
        assert!(answer.reply[stamp].is_string(), "{stamp}");
    }
}

/// Brings an event to a host, which has to take it.
async fn take(host: &Host, event: &Value) {
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
}

/// A tenant without a platform has a model, too; what would have to be written into a chat, it doesn't ask for.
#[tokio::test]
async fn without_a_platform_there_are_completions() {
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
    line.says("Once").await;
    line.says(" upon").await;
    line.done().await;
    host.logged(&["read Once| upon"]).await;

    // Asked first, the model would leave it waiting.
    take(&host, &chosen("evt_2", "Test", "into-reply Tell me.")).await;
    host.logged(&["delivery failed", "there is no reply to stream into", "kind = "]).await;
}

/// `dev` puts the local platform's own model in the place of the tenant's.
#[tokio::test]
async fn dev_streams_with_nothing_set_up() {
    let settings = Settings::test_guest("").tenant(&table("https://api.example.com/v1", ""));
    let host = settings.start().await;
    let question = "What may a hotel cost?";
    let whole = chat(&host, "Test", &format!("complete {question}")).await.text().to_owned();
    let pieces = chat(&host, "Test", &format!("stream {question}")).await.text().to_owned();
    assert!(whole.contains("140 euros a night"), "{whole}");
    assert!(pieces.split('|').count() > 10, "{pieces}");
    assert_eq!(pieces.replace('|', ""), whole);
}

/// A model that `dev` is told of streams through the local platform.
#[tokio::test]
async fn dev_hands_the_stream_of_a_model_on() {
    let model = Stream::start().await;
    let settings = Settings::test_guest("").tenant(&table("https://api.example.com/v1", "")).model(&model.api_base());
    let host = settings.start().await;
    let chat = say(&host.platform, "Test", "stream-some 1 Tell me.|reply").await;
    let mut line = model.asked().await;
    assert_eq!(line.body().await["model"], "own-model");
    line.begin().await;
    line.says("Once").await;
    line.closed().await;
    assert_eq!(wait_for_answer(&host, &chat).await.text(), "Once");
}
