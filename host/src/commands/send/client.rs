//! A client of the local platform: sends messages through the public Space API, and reads chats through the local API.

use std::time::Duration;

use anyhow::{Context, anyhow};
use reqwest::{RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use crate::commands::diagnostics::error_with_help;
use modhost_core::event::Name;

/// Timeout of a request. The platform is on this machine and responds immediately.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The API version that the official Python SDK sends.
const API_VERSION: &str = "2023-12-06";

/// A client of the local platform.
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// An assistant of the local platform.
#[derive(Debug, Deserialize)]
pub struct Assistant {
    /// Its id on the platform.
    pub id: String,
    /// The module behind it.
    pub module: String,
    /// Whether the module answers. Otherwise it only listens.
    pub chooses: bool,
    /// The tenant whose own module it is.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// A message that was sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SentMessage {
    /// Its id.
    pub id: String,
    /// Its chat.
    pub chat_id: String,
}

/// A chat and its messages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// The assistant it belongs to.
    pub assistant_id: String,
    /// Its messages, oldest first.
    #[serde(default)]
    pub messages: Vec<Message>,
}

/// A message of a chat.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// `USER` or `ASSISTANT`.
    pub role: String,
    /// Its text.
    pub text: Option<String>,
    /// The text shown in its place while it is written.
    pub shown_text: Option<String>,
    /// Why the module that was to write it failed.
    pub failure: Option<String>,
    /// The message it answers.
    pub previous_message_id: Option<String>,
    /// Its references.
    pub references: Vec<Source>,
    /// When its text was complete.
    pub completed_at: Option<String>,
    /// When its streaming ended.
    pub stopped_streaming_at: Option<String>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

/// A reference of a message.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Its number in the text.
    pub sequence_number: i64,
    /// Its title.
    pub name: String,
    /// Its address.
    pub url: Option<String>,
}

/// A step of an answer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Step {
    /// Its id.
    pub id: String,
    /// The text shown to the user.
    pub text: String,
    /// Its status.
    pub status: Status,
}

/// The status of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// In progress.
    Running,
    /// Completed.
    Completed,
    /// Failed.
    Failed,
}

impl Client {
    /// Returns a client of the platform at this address.
    ///
    /// # Errors
    ///
    /// If the address is not an HTTP URL.
    pub fn new(base: Url) -> anyhow::Result<Self> {
        if !["http", "https"].contains(&base.scheme()) {
            let message = format!("{base} is not the address of a platform");
            return Err(error_with_help(message, "use an address like http://127.0.0.1:8092"));
        }
        // Required before the first client is built. Fails if a provider is already installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy would respond in place of a platform that is not running.
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().build()?;
        Ok(Self { http, base })
    }

    /// Returns the address of the platform.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Lists the assistants.
    pub async fn assistants(&self) -> anyhow::Result<Vec<Assistant>> {
        let result = self.fetch(self.http.get(self.url(&["local", "assistants"])?)).await?;
        let mut assistants: Vec<Assistant> =
            result.with_context(|| format!("{} is not a local platform", self.base))?;
        for assistant in &mut assistants {
            if let Some(tenant) = &assistant.tenant {
                // Elsewhere the module has its full name.
                assistant.module = Name::within(&tenant.as_str().into(), &assistant.module).to_string();
            }
        }
        Ok(assistants)
    }

    /// Sends a message to an assistant, in a new chat unless one is given.
    pub async fn send(&self, assistant_id: &str, text: &str, chat_id: Option<&str>) -> anyhow::Result<SentMessage> {
        let mut body = json!({ "assistantId": assistant_id, "text": text });
        if let Some(chat_id) = chat_id {
            body["chatId"] = chat_id.into();
        }
        let request = self
            .http
            .post(self.url(&["public", "chat", "space", "message"])?)
            .bearer_auth("ukey_local")
            .header("x-app-id", "app_local")
            .header("x-company-id", "company_local")
            .header("x-user-id", "user_local")
            .header("x-api-version", API_VERSION)
            .json(&body);
        self.fetch(request).await?.context("the platform rejected the message")
    }

    /// Reads a chat.
    pub async fn chat(&self, id: &str) -> anyhow::Result<Chat> {
        let result = self.fetch(self.http.get(self.url(&["local", "chats", id])?)).await?;
        result.with_context(|| format!("cannot read the chat {id}"))
    }

    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        let segments = url.path_segments_mut();
        // Only URLs such as `mailto:` have no path, and `new` rejects them.
        segments.map_err(|()| anyhow!("{} cannot have a path", self.base))?.pop_if_empty().extend(path);
        Ok(url)
    }

    /// Sends a request. The outer error means that no server responded, the inner one that the response is an error or has
    /// another format.
    async fn fetch<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<anyhow::Result<T>> {
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unreachable(error))?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body).context("the response has an unexpected format"));
        }
        Ok(Err(anyhow!(error_message(status, &body))))
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        if error.is_connect() {
            return error_with_help(
                format!("cannot connect to the local platform at {}", self.base),
                "start `modhost dev` in another terminal",
            );
        }
        let problem = if error.is_timeout() { "does not respond" } else { "closed the connection" };
        anyhow::Error::new(error.without_url()).context(format!("{} {problem}", self.base))
    }
}

/// Returns the error message of a response: `error` is a text, or an object with a `message`.
fn error_message(status: StatusCode, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &body["error"];
    match error.as_str().or_else(|| error["message"].as_str()) {
        Some(message) => format!("{message} ({status})"),
        None => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_of_error() {
        let status = StatusCode::NOT_FOUND;
        assert_eq!(error_message(status, br#"{"error":"no such chat"}"#), "no such chat (404 Not Found)");
        assert_eq!(
            error_message(status, br#"{"error":{"code":"x","message":"no such chat"}}"#),
            "no such chat (404 Not Found)"
        );
        assert_eq!(error_message(status, b"<html>"), "404 Not Found");
    }

    #[test]
    fn escapes_ids_in_paths() {
        let client = Client::new(Url::parse("http://localhost:1/").unwrap()).unwrap();
        let url = client.url(&["local", "chats", "a/../b?c"]).unwrap();
        assert_eq!(url.as_str(), "http://localhost:1/local/chats/a%2F..%2Fb%3Fc");
    }

    #[test]
    fn accepts_only_http_urls() {
        assert!(Client::new(Url::parse("mailto:me").unwrap()).is_err());
    }

    #[tokio::test]
    async fn suggests_to_start_dev_if_nothing_listens() {
        // Port 1 is reserved, and nothing listens on it.
        let client = Client::new(Url::parse("http://127.0.0.1:1").unwrap()).unwrap();
        assert_eq!(
            client.assistants().await.unwrap_err().to_string(),
            "cannot connect to the local platform at http://127.0.0.1:1/"
        );
    }

    #[test]
    fn ignores_unknown_fields_of_a_chat() {
        let chat: Chat = serde_json::from_value(json!({
            "id": "chat_1", "assistantId": "assistant_A", "new": true,
            "messages": [{
                "id": "m2", "role": "ASSISTANT", "text": null, "previousMessageId": "m1", "completedAt": null,
                "references": [{ "name": "n", "url": "u", "sequenceNumber": 1, "sourceId": "s", "source": "x" }],
                "steps": [{ "id": "s1", "text": "t", "status": "RUNNING", "order": 1 }],
            }],
        }))
        .unwrap();
        let message = &chat.messages[0];
        assert_eq!((message.previous_message_id.as_deref(), message.references[0].sequence_number), (Some("m1"), 1));
        assert_eq!(message.steps[0].status, Status::Running);
    }
}
