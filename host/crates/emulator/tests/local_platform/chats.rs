//! Messages, steps and chats.

use modhost_emulator::LocalSettings;
use serde_json::{Value, json};

use crate::help::{Local, error, settings, text};

fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| text(&item["id"])).collect()
}

#[tokio::test]
async fn chat_lists_messages_with_their_steps_in_order() {
    let local = Local::start(settings()).await;
    let (chat, question, reply) = local.chat().await;
    for (order, step) in [(2, "Writing…"), (1, "Searching…")] {
        let body = json!({ "messageId": reply, "text": step, "status": "RUNNING", "order": order });
        let (status, made) = local.post("/message-log", body).await;
        assert_eq!((status, &made["object"]), (200, &json!("message_log")), "{made}");
        let (status, done) =
            local.patch(&format!("/message-log/{}", text(&made["id"])), json!({ "status": "COMPLETED" })).await;
        assert_eq!((status, &done["text"]), (200, &json!(step)), "{done}");
    }
    let whole = local.local(&format!("/chats/{chat}")).await;
    assert_eq!(whole["assistantId"], "assistant_Answering");
    assert_eq!(ids(&whole["messages"]), [question, reply]);
    let steps = whole["messages"][1]["steps"].as_array().unwrap();
    let seen: Vec<_> =
        steps.iter().map(|step| (step["order"].as_i64(), text(&step["text"]), text(&step["status"]))).collect();
    assert_eq!(
        seen,
        [(Some(1), "Searching…".into(), "COMPLETED".into()), (Some(2), "Writing…".into(), "COMPLETED".into())]
    );
    assert_eq!(whole["messages"][0]["steps"], json!([]));
}

#[tokio::test]
async fn modifying_a_message_keeps_omitted_fields() {
    let local = Local::start(settings()).await;
    let (chat, _, reply) = local.chat().await;
    let path = format!("/messages/{reply}");
    let reference = json!({ "name": "Policy", "sequenceNumber": 1, "sourceId": "cont_chunk", "source": "node-ingestion-chunks", "description": "" });
    let first = json!({ "chatId": chat, "text": "Hello", "references": [reference], "debugInfo": { "a": 1 } });
    let (status, message) = local.patch(&path, first).await;
    assert_eq!(status, 200, "{message}");
    assert!(message["references"][0].get("description").is_none(), "an empty description is omitted: {message}");
    assert_eq!(message["completedAt"], Value::Null);
    let at = "2026-01-31T09:30:00.000Z";
    let second =
        json!({ "chatId": chat, "text": null, "completedAt": at, "startedStreamingAt": at, "stoppedStreamingAt": at });
    local.patch(&path, second).await;
    let (_, message) = local.get(&format!("{path}?chatId={chat}")).await;
    assert_eq!(message["text"], "Hello");
    assert_eq!(message["debugInfo"], json!({ "a": 1 }));
    assert_eq!(message["references"][0]["name"], "Policy");
    for stamp in ["completedAt", "startedStreamingAt", "stoppedStreamingAt"] {
        assert_eq!(message[stamp], at, "{stamp}");
    }
}

#[tokio::test]
async fn shown_text_is_not_stored_and_ends_with_the_next_stored_text() {
    let local = Local::start(settings()).await;
    let (chat, _, reply) = local.chat().await;
    let shown = async || local.local(&format!("/chats/{chat}")).await["messages"][1]["shownText"].clone();
    let (status, message) =
        local.post(&format!("/messages/{reply}/event"), json!({ "chatId": chat, "text": "Thinking" })).await;
    assert_eq!((status, &message["text"]), (200, &json!("Thinking")));
    assert_eq!(shown().await, "Thinking");
    let (_, stored) = local.get(&format!("/messages/{reply}?chatId={chat}")).await;
    assert_eq!(stored["text"], Value::Null);
    local.patch(&format!("/messages/{reply}"), json!({ "chatId": chat, "text": "Thought" })).await;
    assert_eq!(shown().await, Value::Null);
}

#[tokio::test]
async fn message_created_complete_has_all_timestamps() {
    let local = Local::start(settings()).await;
    let (chat, ..) = local.chat().await;
    let at = "2026-01-31T09:30:00.000Z";
    let new = json!({ "chatId": chat, "assistantId": "assistant_Answering", "role": "ASSISTANT", "text": "Done", "completedAt": at });
    let (status, message) = local.post("/messages", new).await;
    assert_eq!(status, 200, "{message}");
    let (_, latest) = local.get(&format!("/space/{chat}/messages/latest")).await;
    assert_eq!(latest["id"], message["id"]);
    assert_eq!((&latest["completedAt"], &latest["stoppedStreamingAt"]), (&json!(at), &json!(at)));
}

#[tokio::test]
async fn lists_are_oldest_first_without_deleted_messages() {
    let local = Local::start(settings()).await;
    let (chat, question, reply) = local.chat().await;
    let (_, list) = local.get(&format!("/messages?chatId={chat}")).await;
    assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
    assert_eq!(ids(&list["data"]), [question.clone(), reply.clone()]);
    let (_, part) = local.get(&format!("/space/chat/{chat}/messages?skip=1&take=1")).await;
    assert_eq!((ids(&part["messages"]), &part["totalCount"]), (vec![reply.clone()], &json!(2)));
    let (status, deleted) = local.delete(&format!("/messages/{reply}?chatId={chat}")).await;
    assert_eq!((status, text(&deleted["id"])), (200, reply.clone()));
    let (_, list) = local.get(&format!("/messages?chatId={chat}")).await;
    assert_eq!(ids(&list["data"]), [question]);
    error(local.delete(&format!("/messages/{reply}?chatId={chat}")).await, 404);
    assert_eq!(local.delete(&format!("/space/chat/{chat}")).await, (200, json!({ "chat_id": chat })));
    error(local.delete(&format!("/space/chat/{chat}")).await, 404);
    error(local.get(&format!("/messages?chatId={chat}")).await, 404);
}

#[tokio::test]
async fn message_is_accessible_only_through_its_chat() {
    let local = Local::start(settings()).await;
    let (_, _, reply) = local.chat().await;
    let (other, ..) = local.chat().await;
    error(local.get(&format!("/messages/{reply}?chatId={other}")).await, 404);
    error(local.patch(&format!("/messages/{reply}"), json!({ "chatId": other, "text": "x" })).await, 404);
    error(local.post(&format!("/messages/{reply}/event"), json!({ "chatId": other, "text": "x" })).await, 404);
    error(local.delete(&format!("/messages/{reply}?chatId={other}")).await, 404);
    let message = error(local.get(&format!("/messages/{reply}")).await, 400);
    assert!(message.contains("chatId"), "{message}");
}

#[tokio::test]
async fn chat_belongs_to_one_assistant() {
    let local = Local::start(settings()).await;
    let (chat, ..) = local.chat().await;
    let say = async |assistant: &str, chat: &str| {
        local.post("/space/message", json!({ "assistantId": assistant, "chatId": chat, "text": "x" })).await
    };
    assert_eq!(say("assistant_Answering", &chat).await.1["chatId"], json!(chat));
    assert!(error(say("assistant_Listening", &chat).await, 400).contains("assistant_Answering"));
    assert!(error(say("assistant_Nobody", &chat).await, 404).contains("assistant_Nobody"));
    assert!(error(say("assistant_Answering", "chat_none").await, 404).contains("chat_none"));
}

#[tokio::test]
async fn chats_in_a_data_directory_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || LocalSettings { data_dir: Some(folder.path().join("new")), ..settings() };
    let local = Local::start(settings()).await;
    let (chat, _, reply) = local.chat().await;
    let step = json!({ "messageId": reply, "text": "A step", "status": "FAILED", "order": 1 });
    assert_eq!(local.post("/message-log", step).await.0, 200);
    let before = local.local(&format!("/chats/{chat}")).await;
    local.platform.shutdown().await;
    let local = Local::start(settings()).await;
    assert_eq!(local.local(&format!("/chats/{chat}")).await, before);
    assert_eq!(local.local("/chats").await[0]["id"], json!(chat));
}
