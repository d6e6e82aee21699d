//! Tests of every function that a module can call, from the guest to the platform and back.

use serde_json::{Value, json};

use super::harness::{
    Host, Model, PendingReply, Settings, call, chat, chat_on, read_chat, read_message, say, signed_post, until,
    wait_for_answer,
};

const LISTENS: &str = r#"events = ["unique.chat.user-message.created"]"#;

/// Waits until a delivery of the module fails with a reason that contains these words, and returns the log line.
async fn failed(host: &Host, words: &[&str]) -> String {
    host.logged(&[&["delivery failed"], words].concat()).await
}

#[tokio::test]
async fn search_returns_the_hits_of_the_platform() {
    let host = Settings::test_guest("").start().await;
    let query = json!({ "searchString": "hotel in London", "searchType": "COMBINED", "limit": 3 });
    let expected = call(&host.platform, "search/search", &query).await;
    let hits = chat(&host, "Test", "search hotel in London").await.json();
    let (hits, expected) = (hits.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!(hits.len(), 3);
    for (hit, expected) in hits.iter().zip(expected) {
        for (ours, theirs) in [
            ("id", "id"),
            ("chunk_id", "chunkId"),
            ("text", "text"),
            ("title", "title"),
            ("key", "key"),
            ("url", "url"),
            ("order", "order"),
            ("start_page", "startPage"),
            ("end_page", "endPage"),
            ("metadata", "metadata"),
        ] {
            assert_eq!(hit[ours], expected[theirs], "{ours}");
            assert!(!hit[ours].is_null(), "{ours}");
        }
    }
    assert_eq!(hits[0]["key"], "money/travel-policy.md");

    let second = chat(&host, "Test", "search-page 2 hotel in London").await.json();
    assert_eq!(second, json!([hits[1]]));
    assert_eq!(chat(&host, "Test", "search xylophone").await.json(), json!([]));
}

#[tokio::test]
async fn refuses_invalid_arguments() {
    let host = Settings::test_guest("").start().await;
    for (command, reason) in [
        ("search-page 0 hotel", "search.search: invalid: `page` counts from 1"),
        ("complete-at 3 hello", "completion.complete: invalid: `temperature` has to be from 0 to 2"),
        ("complete-at NaN hello", "completion.complete: invalid: `temperature` has to be from 0 to 2"),
        ("debug [1, 2]", "messages.reply: invalid: `debug-info` has to be a JSON object"),
    ] {
        chat(&host, "Test", command).await;
        failed(&host, &[reason]).await;
    }
}

#[tokio::test]
async fn complete_calls_the_model_and_reports_usage() {
    let mut model = Model::start().await;
    let host = Settings::test_guest("").model(&model.url).start().await;
    let chat_id = say(&host.platform, "Test", "complete-at 0.7 Who are you?").await;
    let question = model.asked().await;
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "Who are you?" },
    ]);
    assert_eq!(question.body["messages"], messages);
    assert_eq!(question.body["temperature"], 0.7);
    assert_eq!(question.body["max_tokens"], 99);
    question.answer("Nobody.");
    let answer = wait_for_answer(&host, &chat_id).await.json();
    let usage = json!({ "prompt_tokens": 12, "completion_tokens": 3 });
    assert_eq!(answer, json!({ "text": "Nobody.", "finish_reason": "stop", "usage": usage }));
}

#[tokio::test]
async fn stream_returns_the_same_answer_in_chunks() {
    let host = Settings::test_guest("").start().await;
    let question = "What may a hotel cost?";
    let whole = chat(&host, "Test", &format!("complete {question}")).await;
    let pieces = chat(&host, "Test", &format!("stream {question}")).await;
    assert!(whole.text().contains("140 euros a night"), "{}", whole.text());
    assert_eq!(pieces.text(), whole.text(), "a platform without streaming sends a single chunk");
}

#[tokio::test]
async fn complete_into_reply_writes_the_reply_with_its_references() {
    let mut model = Model::start().await;
    let host = Settings::test_guest("").model(&model.url).start().await;
    let text = "What may a hotel cost?";
    let query = json!({ "searchString": text, "searchType": "COMBINED", "limit": 3 });
    let hits = call(&host.platform, "search/search", &query).await;
    let chat_id = say(&host.platform, "Test", &format!("complete-into-reply {text}")).await;
    model.asked().await.answer("At most 140 euros [source1]. More in London [source0].");

    let answer = wait_for_answer(&host, &chat_id).await;
    assert_eq!(answer.text(), "At most 140 euros <sup>2</sup>. More in London <sup>1</sup>.");
    let references = answer.reply["references"].as_array().unwrap();
    for (reference, (number, hit)) in references.iter().zip([(2, &hits[1]), (1, &hits[0])]) {
        let source_id = format!("{}_{}", hit["id"].as_str().unwrap(), hit["chunkId"].as_str().unwrap());
        assert_eq!((&reference["sequenceNumber"], &reference["sourceId"]), (&json!(number), &json!(source_id)));
        assert_eq!((&reference["name"], &reference["url"]), (&hit["title"], &hit["url"]));
    }
    assert_eq!(references.len(), 2);
    for stamp in ["completedAt", "startedStreamingAt", "stoppedStreamingAt"] {
        assert!(answer.reply[stamp].is_string(), "{stamp}");
    }
}

#[tokio::test]
async fn history_contains_only_messages_of_the_chat() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", "reply in another chat").await;
    let first = chat(&host, "Test", "reply one").await;
    let history = chat_on(&host, "Test", &first.chat_id, "history").await.json();
    let history = history.as_array().unwrap();
    let messages: Vec<_> = history.iter().map(|message| (&message["role"], &message["text"])).collect();
    let expected = [
        (json!("user"), json!("reply one")),
        (json!("assistant"), json!("one")),
        (json!("user"), json!("history")),
        (json!("assistant"), Value::Null),
    ];
    assert_eq!(messages, expected.iter().map(|(role, text)| (role, text)).collect::<Vec<_>>());
    assert_eq!((&history[1]["id"], &history[1]["created_at"]), (&first.reply["id"], &first.reply["createdAt"]));

    let newest = chat_on(&host, "Test", &first.chat_id, "history 2").await.json();
    let texts: Vec<_> = newest.as_array().unwrap().iter().map(|message| &message["text"]).collect();
    assert_eq!(texts, [&json!("history 2"), &Value::Null]);
}

#[tokio::test]
async fn create_and_modify_write_messages_of_the_chat() {
    let host = Settings::test_guest("").start().await;
    let created = chat(&host, "Test", "create Something new").await;
    let id = created.text();
    let message = read_message(&host, &created.chat_id, id).await;
    assert_eq!((&message["text"], &message["role"]), (&json!("Something new"), &json!("ASSISTANT")));
    assert!(message["completedAt"].is_string());

    let changed = chat_on(&host, "Test", &created.chat_id, &format!("modify {id} Something else")).await;
    assert_eq!(changed.text(), format!("changed {id}"));
    assert_eq!(read_message(&host, &created.chat_id, id).await["text"], "Something else");
}

#[tokio::test]
async fn cannot_modify_messages_of_another_chat() {
    let host = Settings::test_guest("").start().await;
    let theirs = chat(&host, "Test", "reply mine").await;
    let id = theirs.reply["id"].as_str().unwrap();
    let before = read_chat(&host.platform, &theirs.chat_id).await;
    for id in [id, "msg_none", "../space/message", ""] {
        let answer = chat(&host, "Test", &format!("modify {id} stolen")).await;
        assert!(answer.text().starts_with("Sorry"), "{id}: {}", answer.text());
    }
    failed(&host, &["messages.modify: not found:", id]).await;
    failed(&host, &["messages.modify: not found:", "msg_none"]).await;
    assert_eq!(read_chat(&host.platform, &theirs.chat_id).await, before);
}

#[tokio::test]
async fn streamed_text_is_shown_but_not_stored() {
    let host = Settings::test_guest("").start().await;
    let chat_id = say(&host.platform, "Test", "show-and Counting…|sleep 600000").await;
    let reply = until("streamed text to be shown", async || {
        let reply = read_chat(&host.platform, &chat_id).await["messages"][1].clone();
        (!reply["shownText"].is_null()).then_some(reply)
    })
    .await;
    assert_eq!((&reply["shownText"], &reply["text"]), (&json!("Counting…"), &Value::Null));

    let answer = chat(&host, "Test", "show Counting…").await;
    assert_eq!((answer.text(), &answer.reply["shownText"]), ("shown", &Value::Null));
}

#[tokio::test]
async fn shows_changes_and_closes_a_step() {
    let host = Settings::test_guest("").start().await;
    let answer = chat(&host, "Test", "step Counted to ten").await;
    let steps = answer.reply["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 1);
    let step = &steps[0];
    assert_eq!(step["id"], answer.text());
    assert_eq!((&step["text"], &step["status"]), (&json!("Counted to ten"), &json!("COMPLETED")));
    assert_eq!(step["details"], json!({ "data": [{ "type": "Test" }] }));
    let source = json!({
        "name": "A source",
        "url": "https://example.com/source",
        "sequenceNumber": 1,
        "originalIndex": null,
        "sourceId": "source_1",
        "source": "test",
    });
    assert_eq!(step["references"], json!([source]));
}

#[tokio::test]
async fn keeps_debug_info_on_the_message() {
    let host = Settings::test_guest("").start().await;
    let answer = chat(&host, "Test", r#"debug {"rule": 7}"#).await;
    assert_eq!(answer.reply["debugInfo"], json!({ "rule": 7 }));
}

#[tokio::test]
async fn assistant_settings_override_module_settings() {
    let config = r#"config = { name = "module", other = "module", gone = "module", list = [1, "two"], on = true }"#;
    let host = Settings::test_guest(config).start().await;
    let configuration = json!({ "name": "assistant", "gone": null, "new": { "n": 1 }, "count": 3 });
    let expected = json!({
        "name": "assistant",
        "other": "module",
        "gone": "module",
        "list": "[1,\"two\"]",
        "on": "true",
        "new": "{\"n\":1}",
        "count": "3",
    });
    assert_eq!(json_reply(&host, "settings", &configuration).await, expected);
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&answer_to(&host, &format!("config {key}"), &configuration).await, value.as_str().unwrap(), "{key}");
    }
    assert_eq!(answer_to(&host, "config none", &configuration).await, "there is no setting none");
    // Without a setting of the assistant, the module's own setting applies.
    assert_eq!(chat(&host, "Test", "config name").await.text(), "module");
}

/// Returns the module's answer to an event with this assistant configuration.
async fn answer_to(host: &Host, command: &str, configuration: &Value) -> String {
    let place = PendingReply::new(host, "Test").await;
    let mut event = place.chosen(&format!("evt_{}", place.reply_id), "Test", command);
    event["payload"]["configuration"] = configuration.clone();
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
    place.answer(host).await.text().to_owned()
}

async fn json_reply(host: &Host, command: &str, configuration: &Value) -> Value {
    let answer = answer_to(host, command, configuration).await;
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[tokio::test]
async fn logs_at_every_level() {
    let host = Settings::test_guest("").start().await;
    for (level, ours) in [
        ("trace", "TRACE"),
        ("debug", "DEBUG"),
        ("info", " INFO"),
        ("warn", " WARN"),
        ("error", "ERROR"),
        ("critical", "ERROR"),
    ] {
        let text = format!("something at {level}");
        chat(&host, "Test", &format!("log {level} {text}")).await;
        let words = [&format!(" {ours} {text} "), "module=Test", "delivery=dlv_", "context=\"test_guest::platform\""];
        host.logged(&words.map(|word: &str| word)).await;
    }
}

#[tokio::test]
async fn reply_is_unsupported_for_an_event_without_a_reply() {
    let host = Settings::test_guest(LISTENS).start().await;
    for (command, call) in [
        ("step-and nothing", "message-log.create"),
        ("reply nobody reads this", "messages.reply"),
        ("show nobody sees this", "messages.show"),
    ] {
        say(&host.platform, "Test", &format!("hear {command}")).await;
        let reason = format!("{call}: not supported: an event `unique.chat.user-message.created` has no reply");
        failed(&host, &[&reason]).await;
    }
    say(&host.platform, "Test", "hear complete-into-reply hotel").await;
    failed(&host, &["completion.complete-into-reply: not supported", "no reply"]).await;

    // Functions that need only the chat work.
    let chat_id = say(&host.platform, "Test", "hear create I heard you").await;
    until("a message of the listener", async || {
        let chat = read_chat(&host.platform, &chat_id).await;
        let messages = chat["messages"].as_array()?;
        messages.iter().any(|message| message["text"] == "I heard you").then_some(())
    })
    .await;
}

#[tokio::test]
async fn passes_the_event_to_the_module() {
    let host = Settings::test_guest("").start().await;
    let place = PendingReply::new(&host, "Test").await;
    let event = place.chosen("evt_plain", "Test", "event");
    let plain = sent(&host, &place, &event).await;
    assert_eq!(
        plain,
        json!({
            "id": "evt_plain",
            "source": "unique",
            "name": "unique.chat.external-module.chosen",
            "created_at": 1_700_000_000,
            "attempt": 1,
            "subject": { "module_chosen": {
                "name": "Test",
                "description": "",
                "configuration": {},
                "chat_id": place.chat_id,
                "assistant_id": "assistant_Test",
                "user_message": {
                    "id": "msg_1",
                    "text": "event",
                    "original_text": null,
                    "language": null,
                    "created_at": "2026-01-01T00:00:00.000Z",
                },
                "assistant_message_id": place.reply_id,
            }},
            "payload": event["payload"],
        })
    );
}

#[tokio::test]
async fn accepts_every_spelling_and_passes_unknown_fields() {
    let host = Settings::test_guest("").start().await;
    let place = PendingReply::new(&host, "Test").await;
    let mut event = place.chosen("evt_other_spelling", "Test", "event");
    event["createdAt"] = json!(1_700_000_001);
    event["userId"] = json!("user_local");
    let payload = event["payload"].as_object_mut().unwrap();
    let chat_id = payload.remove("chatId").unwrap();
    payload.insert("chatid".into(), chat_id);
    payload.insert("description".into(), json!("Does what it's told"));
    payload.insert("configuration".into(), json!({ "ünïcode": "\u{1f980} \" \\ \u{0}" }));
    payload.insert("additionalParameters".into(), json!({ "uploadedFiles": [{ "id": "cont_1", "size": 1.5e300 }] }));
    payload.insert("fieldOfTomorrow".into(), json!([null, true, { "deep": ["er"] }]));
    payload["userMessage"]["originalText"] = json!("as typed");
    payload["userMessage"]["language"] = json!("de-CH");

    let seen = sent(&host, &place, &event).await;
    assert_eq!(seen["created_at"], 1_700_000_001);
    assert_eq!(seen["payload"], event["payload"]);
    let chosen = &seen["subject"]["module_chosen"];
    assert_eq!(chosen["chat_id"], place.chat_id);
    assert_eq!(chosen["description"], "Does what it's told");
    assert_eq!(chosen["configuration"], event["payload"]["configuration"]);
    assert_eq!(chosen["user_message"]["original_text"], "as typed");
    assert_eq!(chosen["user_message"]["language"], "de-CH");
}

/// Sends an event whose text makes the module reply with the event it received, and returns that reply.
async fn sent(host: &Host, place: &PendingReply, event: &Value) -> Value {
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
    place.answer(host).await.json()
}

#[tokio::test]
async fn passes_unknown_events_unchanged() {
    let name = "unique.ingestion.content.uploaded";
    let host = Settings::test_guest(&format!("events = [{name:?}]")).start().await;
    let payload = r#"{"contentId": "cont_1",   "tags":[1, 2]}"#;
    let event = format!(
        r#"{{"id":"evt_content","version":"1.0.0","event":"{name}","createdAt":"1700000000","userId":"user_local","companyId":"company_local","payload":{payload}}}"#
    );
    assert_eq!(signed_post(&host.webhook, event).await.status(), 200);
    // The JSON is byte for byte the source's.
    host.logged(&[&format!(" {name} {payload} "), "module=Test"]).await;
    host.logged(&["completed", "module=Test"]).await;
}

#[tokio::test]
async fn calls_the_platform_for_the_company_of_the_event() {
    let host = Settings::test_guest("").start().await;
    let place = PendingReply::new(&host, "Test").await;
    let mut event = place.chosen("evt_foreign", "Test", "create from elsewhere");
    event["companyId"] = json!("company_elsewhere");
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
    // The local platform has a single company, and the host calls it for the company of the event.
    failed(&host, &["messages.create: not allowed:", "company_elsewhere"]).await;
    let chat = read_chat(&host.platform, &place.chat_id).await;
    assert_eq!(chat["messages"].as_array().unwrap().len(), 1, "{chat}");
}
