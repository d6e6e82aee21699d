//! The local platform, seen from a client: the public Space API to speak, and the local one to look on.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::{RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

/// How long one request may take: the platform is on this machine, and answers at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The version of the API, as the official Python SDK sends it.
const API_VERSION: &str = "2023-12-06";

/// A client of the local platform.
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// Somebody to talk to.
#[derive(Debug, Deserialize)]
pub struct Assistant {
    /// Its id on the platform.
    pub id: String,
    /// The module behind it.
    pub module: String,
    /// Whether the module answers; else it only listens.
    pub chooses: bool,
}

/// The user's message, as it was stored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// Its id.
    pub id: String,
    /// The chat it stands in.
    pub chat_id: String,
}

/// A chat with all that is in it.
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
    /// What it says.
    pub text: Option<String>,
    /// What is shown in its place for the moment.
    pub shown_text: Option<String>,
    /// Why the module failed that was to fill it.
    pub failure: Option<String>,
    /// The message it answers.
    pub previous_message_id: Option<String>,
    /// The sources it names.
    pub references: Vec<Source>,
    /// When its text was final.
    pub completed_at: Option<String>,
    /// When the last word of it was streamed.
    pub stopped_streaming_at: Option<String>,
    /// What was done for it, in order.
    pub steps: Vec<Step>,
}

/// A source a message names.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The number it is shown with.
    pub sequence_number: i64,
    /// What the user reads.
    pub name: String,
    /// Where it can be opened.
    pub url: Option<String>,
}

/// Something done for an answer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Step {
    /// Its id.
    pub id: String,
    /// What the user reads.
    pub text: String,
    /// How far it is.
    pub status: Status,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// At it.
    Running,
    /// Done.
    Completed,
    /// Ended without its result.
    Failed,
}

impl Client {
    /// A client of the platform at this address.
    pub fn new(base: Url) -> anyhow::Result<Self> {
        if !["http", "https"].contains(&base.scheme()) {
            bail!("{base} is not the address of a platform; write for example http://127.0.0.1:8092");
        }
        // Needed before the first client is built; another command may have been first, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy is for the world outside, and would answer for a platform that isn't there.
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().build()?;
        Ok(Self { http, base })
    }

    /// The address of the platform.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Everybody there is to talk to.
    pub async fn assistants(&self) -> anyhow::Result<Vec<Assistant>> {
        let answer = self.fetch(self.http.get(self.url(&["local", "assistants"])?)).await?;
        answer.with_context(|| format!("{} answers, but not as a local platform does", self.base))
    }

    /// Says something to an assistant, in a new chat unless one is named.
    pub async fn say(&self, assistant_id: &str, text: &str, chat_id: Option<&str>) -> anyhow::Result<Said> {
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
        self.fetch(request).await?.context("the platform refused the message")
    }

    /// A chat, as it is now.
    pub async fn chat(&self, id: &str) -> anyhow::Result<Chat> {
        let answer = self.fetch(self.http.get(self.url(&["local", "chats", id])?)).await?;
        answer.with_context(|| format!("the chat {id} can't be read"))
    }

    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        let segments = url.path_segments_mut();
        // Only addresses such as `mailto:` have no path, and `new` refused them.
        segments.map_err(|()| anyhow!("{} can't have a path", self.base))?.pop_if_empty().extend(path);
        Ok(url)
    }

    /// Sends a request. The outer error is that nobody is there, the inner one that what is there doesn't comply.
    async fn fetch<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<anyhow::Result<T>> {
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| self.unreachable(error))?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body).context("the answer is of another shape than expected"));
        }
        Ok(Err(anyhow!(refusal(status, &body))))
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        if error.is_connect() {
            return anyhow!("nothing listens on {}; start `modhost dev` in another terminal", self.base);
        }
        let problem = if error.is_timeout() { "doesn't answer" } else { "broke off" };
        anyhow::Error::new(error.without_url()).context(format!("{} {problem}", self.base))
    }
}

/// What the platform said against a request: `error` is a text, or an object with a `message`.
fn refusal(status: StatusCode, body: &[u8]) -> String {
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
    fn understands_both_kinds_of_error() {
        let status = StatusCode::NOT_FOUND;
        assert_eq!(refusal(status, br#"{"error":"no such chat"}"#), "no such chat (404 Not Found)");
        assert_eq!(
            refusal(status, br#"{"error":{"code":"x","message":"no such chat"}}"#),
            "no such chat (404 Not Found)"
        );
        assert_eq!(refusal(status, b"<html>"), "404 Not Found");
    }

    #[test]
    fn ids_cannot_leave_their_place_in_the_path() {
        let client = Client::new(Url::parse("http://localhost:1/").unwrap()).unwrap();
        let url = client.url(&["local", "chats", "a/../b?c"]).unwrap();
        assert_eq!(url.as_str(), "http://localhost:1/local/chats/a%2F..%2Fb%3Fc");
    }

    #[test]
    fn only_speaks_http() {
        assert!(Client::new(Url::parse("mailto:me").unwrap()).is_err());
    }

    #[tokio::test]
    async fn says_what_to_do_when_nobody_listens() {
        // Port 1 is reserved, and nothing listens on it.
        let client = Client::new(Url::parse("http://127.0.0.1:1").unwrap()).unwrap();
        assert_eq!(
            client.assistants().await.unwrap_err().to_string(),
            "nothing listens on http://127.0.0.1:1/; start `modhost dev` in another terminal"
        );
    }

    #[test]
    fn reads_a_chat_and_passes_over_what_it_does_not_know() {
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
