//! Events as the platform signs and sends them.

use std::time::{SystemTime, UNIX_EPOCH};

use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_ingress::sources::schemes::unique;
use reqwest::Response;
use serde_json::{Value, json};

use super::http;

/// An event that chooses a module, with ids that don't exist on any platform.
pub fn chosen(id: &str, module: &str, text: &str) -> Value {
    json!({
        "id": id,
        "version": "1.0.0",
        "event": "unique.chat.external-module.chosen",
        "createdAt": "1700000000",
        "userId": local::USER_ID,
        "companyId": local::COMPANY_ID,
        "payload": {
            "name": module,
            "description": "",
            "configuration": {},
            "chatId": "chat_1",
            "assistantId": format!("assistant_{module}"),
            "userMessage": { "id": "msg_1", "text": text, "createdAt": "2026-01-01T00:00:00.000Z" },
            "assistantMessage": { "id": "msg_2", "createdAt": "2026-01-01T00:00:00.000Z" },
        },
    })
}

/// An event that chooses the module for the first message of a chat of the platform.
pub fn chosen_in(chat: &Value, module: &str) -> Value {
    let of = |role: &str| chat["messages"].as_array().unwrap().iter().find(|it| it["role"] == role).unwrap().clone();
    let (user, assistant) = (of("USER"), of("ASSISTANT"));
    let mut event = chosen(&format!("evt_{}", chat["id"]), module, user["text"].as_str().unwrap());
    event["payload"]["chatId"] = chat["id"].clone();
    event["payload"]["userMessage"]["id"] = user["id"].clone();
    event["payload"]["assistantMessage"]["id"] = assistant["id"].clone();
    event
}

/// An event for a user's message, without a chosen module.
pub fn user_message(id: &str, text: &str) -> Value {
    let mut event = chosen(id, "", "");
    event["event"] = "unique.chat.user-message.created".into();
    event["payload"] = json!({ "chatId": "chat_1", "assistantId": "assistant_Test", "text": text });
    event
}

/// The signature of a body with the local platform's secret.
pub fn sign(body: &[u8]) -> String {
    unique::sign(&Secret::new(local::ENDPOINT_SECRET), body)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Posts a body with these headers.
pub async fn post(url: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Response {
    let mut request = http().post(url).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).send().await.unwrap()
}

/// Posts a body with a valid signature.
pub async fn signed_post(url: &str, body: impl Into<Vec<u8>>) -> Response {
    signed_with(local::ENDPOINT_SECRET, url, body).await
}

/// Posts a body with the signature of this secret.
pub async fn signed_with(secret: &str, url: &str, body: impl Into<Vec<u8>>) -> Response {
    let body = body.into();
    let (signature, now) = (unique::sign(&Secret::new(secret), &body), now().to_string());
    post(url, &[("x-unique-signature", &signature), ("x-unique-created-at", &now)], body).await
}
