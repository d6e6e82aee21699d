//! Chats with a module, as a client of the platform does.

use modhost_emulator as local;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Host, chosen, http, until};

/// A chat in which a module has answered.
#[derive(Debug)]
pub struct Answer {
    /// The chat's id.
    pub chat_id: String,
    /// The whole chat, as returned by `GET /local/chats/{id}`.
    pub chat: Value,
    /// The reply: the assistant message that the platform created.
    pub reply: Value,
}

impl Answer {
    /// The text of the reply.
    pub fn text(&self) -> &str {
        self.reply["text"].as_str().unwrap_or_default()
    }

    /// The text of the reply, parsed as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The steps of the reply, in order: text and status.
    pub fn steps(&self) -> Vec<(&str, &str)> {
        let steps = self.reply["steps"].as_array().unwrap();
        steps.iter().map(|step| (step["text"].as_str().unwrap(), step["status"].as_str().unwrap())).collect()
    }

    /// The messages of the chat, oldest first: role and text.
    pub fn messages(&self) -> Vec<(&str, &str)> {
        let messages = self.chat["messages"].as_array().unwrap();
        let pair = |message| (field(message, "role"), field(message, "text"));
        messages.iter().map(pair).collect()
    }
}

fn field<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// Sends a message to a module in a new chat, and waits until its reply is complete and no step is running.
pub async fn chat(host: &Host, module: &str, text: &str) -> Answer {
    let chat_id = say(&host.platform, module, text).await;
    wait_for_answer(host, &chat_id).await
}

/// Sends a message in a chat with a module, and waits for its reply.
pub async fn chat_on(host: &Host, module: &str, chat_id: &str, text: &str) -> Answer {
    let body = json!({ "assistantId": format!("assistant_{module}"), "chatId": chat_id, "text": text });
    let question = call(&host.platform, "space/message", &body).await;
    wait_for(host, chat_id, |messages| {
        // The platform creates the empty reply right after the question, before any other message.
        let question = messages.iter().position(|message| message["id"] == question["id"])?;
        messages.get(question + 1)
    })
    .await
}

/// Sends a message to a module on the local platform at this address; returns the chat's id.
pub async fn say(platform: &str, module: &str, text: &str) -> String {
    let body = json!({ "assistantId": format!("assistant_{module}"), "text": text });
    let message = call(platform, "space/message", &body).await;
    message["chatId"].as_str().unwrap_or_else(|| panic!("no chat in {message}")).to_owned()
}

/// A chat of the local platform at this address, with all messages.
pub async fn read_chat(platform: &str, chat_id: &str) -> Value {
    http().get(format!("{platform}/local/chats/{chat_id}")).send().await.unwrap().json().await.unwrap()
}

/// Waits until the first assistant message of a chat is complete and none of its steps is running.
pub async fn wait_for_answer(host: &Host, chat_id: &str) -> Answer {
    wait_for(host, chat_id, |messages| messages.iter().find(|message| message["role"] == "ASSISTANT")).await
}

async fn wait_for(host: &Host, chat_id: &str, find: impl Fn(&[Value]) -> Option<&Value>) -> Answer {
    until(&format!("an answer in chat {chat_id}"), async || {
        let chat = read_chat(&host.platform, chat_id).await;
        let reply = find(chat["messages"].as_array()?)?.clone();
        let spins = reply["steps"].as_array()?.iter().any(|step| step["status"] == "RUNNING");
        let done = !reply["completedAt"].is_null() && !spins;
        done.then(|| Answer { chat_id: chat_id.to_owned(), chat, reply })
    })
    .await
}

/// The current state of the message, with its steps.
pub async fn read_message(host: &Host, chat_id: &str, id: &str) -> Value {
    let chat = read_chat(&host.platform, chat_id).await;
    let found = chat["messages"].as_array().unwrap().iter().find(|message| message["id"] == id);
    found.unwrap_or_else(|| panic!("no message {id} in {chat}")).clone()
}

/// Posts to the public API of the local platform at this address.
pub async fn call(platform: &str, path: &str, body: &Value) -> Value {
    let response = http()
        .post(format!("{platform}/public/chat/{path}"))
        .bearer_auth(local::API_KEY)
        .header("x-app-id", local::APP_ID)
        .header("x-company-id", local::COMPANY_ID)
        .header("x-user-id", local::USER_ID)
        .header("x-api-version", "2023-12-06")
        .json(body)
        .send()
        .await
        .unwrap();
    let (status, answer) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

/// An empty reply in a chat of its own, to be filled by an event that the test makes.
pub struct PendingReply {
    pub chat_id: String,
    pub reply_id: String,
}

impl PendingReply {
    /// Creates one with the assistant of a module.
    pub async fn new(host: &Host, module: &str) -> Self {
        let assistant_id = format!("assistant_{module}");
        let chat = call(&host.platform, "space/chat", &json!({ "title": "Test", "assistantId": assistant_id })).await;
        let chat_id = field(&chat, "id").to_owned();
        let reply = json!({ "chatId": chat_id, "assistantId": assistant_id, "role": "ASSISTANT" });
        let reply_id = field(&call(&host.platform, "messages", &reply).await, "id").to_owned();
        Self { chat_id, reply_id }
    }

    /// An event that chooses a module to fill this reply.
    pub fn chosen(&self, event_id: &str, module: &str, text: &str) -> Value {
        let mut event = chosen(event_id, module, text);
        event["payload"]["chatId"] = self.chat_id.as_str().into();
        event["payload"]["assistantMessage"]["id"] = self.reply_id.as_str().into();
        event
    }

    /// Waits until the reply is complete.
    pub async fn answer(&self, host: &Host) -> Answer {
        wait_for_answer(host, &self.chat_id).await
    }
}
