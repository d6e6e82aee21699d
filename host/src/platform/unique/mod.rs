//! Unique AI: its REST API.
//!
//! Paths, headers and bodies are those of the official Python SDK (`unique-sdk` 2026.44.2, on PyPI). Where the SDK
//! repeats every call that ends in a server error, this client repeats only what can't happen twice by it; see
//! [`RetryPolicy`].

mod answer;
mod exchange;
mod failure;
mod http_client;
mod lenient;
mod request;
mod retry;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, Method};
use jiff::Timestamp;
use url::Url;

use self::exchange::{Call, Exchange};
use self::retry::Repeat;
use super::{
    Caller, Completion, CompletionRequest, ErrorKind, Hit, Message, MessageChange, NewStep, Platform, PlatformError,
    Query, Result, StepChange, StreamTarget,
};
use crate::config::Secret;

pub use http_client::http_client;
pub use retry::RetryPolicy;

/// How many pages of a chat's messages are read. The platform sends a chat as one page as a rule.
const MAX_PAGES: usize = 100;

/// What it takes to talk to a Unique tenant.
#[derive(Clone, Debug)]
pub struct UniqueSettings {
    /// Where the API is: `https://gateway.<tenant>.unique.app/public/chat`, with or without a slash at its end.
    pub api_base: Url,
    /// The app, as the platform registered it.
    pub app_id: String,
    /// The app's key.
    pub api_key: Secret,
    /// The model of completions that name none; without it the platform's own default.
    pub model: Option<String>,
    /// The longest a completion may take, attempts and waits included; a request can only ask for less.
    pub timeout: Duration,
    /// The longest any other call may take, attempts and waits included.
    pub call_timeout: Duration,
    /// How calls are tried again.
    pub retry: RetryPolicy,
    /// The header that carries a call's idempotency key; none: it isn't sent.
    pub idempotency_header: Option<HeaderName>,
}

impl UniqueSettings {
    /// Settings with the defaults: the platform's model, 600 s for a completion (as the official SDK waits), 30 s for
    /// other calls, four attempts.
    pub fn new(api_base: Url, app_id: impl Into<String>, api_key: Secret) -> Self {
        Self {
            api_base,
            app_id: app_id.into(),
            api_key,
            model: None,
            timeout: Duration::from_secs(600),
            call_timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            idempotency_header: Some(HeaderName::from_static("idempotency-key")),
        }
    }
}

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No path can be appended to the address, or it holds a secret.
    #[error("api_base {0}; it should look like https://gateway.<tenant>.unique.app/public/chat")]
    ApiBase(&'static str),
    /// It can't stand in a header.
    #[error("app_id is empty, or holds a control character (a line break at its end, perhaps)")]
    AppId,
    /// It can't stand in a header. The key itself is never told.
    #[error("api_key is empty, or holds a control character (a line break at its end, perhaps)")]
    ApiKey,
    /// TLS can't be set up.
    #[error("the HTTP client can't be set up; are the system's CA certificates installed?")]
    HttpClient(#[source] reqwest::Error),
}

/// The client of one Unique tenant.
#[derive(Debug)]
pub struct Unique {
    exchange: Exchange,
    model: Option<String>,
    timeout: Duration,
    call_timeout: Duration,
}

impl Unique {
    /// A client with these settings, on the connections of `client` (see [`http_client`]).
    ///
    /// # Errors
    /// [`SetupError`] where a setting can't be right. Nothing is sent yet.
    pub fn new(settings: UniqueSettings, client: reqwest::Client) -> std::result::Result<Self, SetupError> {
        let exchange = Exchange::new(&settings, client)?;
        let UniqueSettings { model, timeout, call_timeout, .. } = settings;
        Ok(Self { exchange, model, timeout, call_timeout })
    }

    /// A call that isn't a completion.
    fn call(&self, method: Method, path: impl Into<String>, repeat: Repeat) -> Call {
        Call::new(method, path, repeat, self.call_timeout)
    }

    /// A completion: it costs money, so it is repeated only if it certainly was not begun.
    fn completion(&self, path: &str, request: &CompletionRequest) -> Call {
        let limit = request.timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout));
        Call::new(Method::POST, path, Repeat::IfNotCarriedOut, limit)
    }

    /// Changes a message and answers with what it became.
    async fn patch_message(&self, caller: &Caller, id: &str, update: &request::MessageUpdate<'_>) -> Result<Message> {
        let call =
            self.call(Method::PATCH, format!("/messages/{}", segment("message", id)?), Repeat::Safe).json(update)?;
        let answer = self.exchange.send(caller, &call).await?;
        let message: answer::Message = self.exchange.decode(&call, &answer)?;
        message.into_message(Some(id)).ok_or_else(|| self.exchange.unreadable(&call, &answer, "the message has no id"))
    }

    /// Stamps a new message as streamed. Whoever waits for an answer waits for `stoppedStreamingAt` by default, which
    /// the platform takes for a message that exists only. The message being there, a failure is no reason to report
    /// it as not made: it would be made once more.
    async fn stamp_new_message(&self, caller: &Caller, chat_id: &str, id: &str, now: &str) {
        // Under the key of the call that made the message it would be taken for that call's repetition.
        let caller = &Caller { idempotency_key: None, ..caller.clone() };
        let update = request::MessageUpdate::new(chat_id, request::MessageContent::default()).streamed_at(now);
        // Another request than the one that made it, and so another key.
        let idempotency_key = caller.idempotency_key.as_ref().map(|key| format!("{key}-stamp"));
        let caller = Caller { idempotency_key, ..caller.clone() };
        if let Err(error) = self.patch_message(&caller, id, &update).await {
            tracing::warn!(message_id = id, %error, "a new message was not stamped as streamed; who waits for that, waits on");
        }
    }
}

#[async_trait]
impl Platform for Unique {
    async fn create_step(&self, caller: &Caller, step: &NewStep) -> Result<String> {
        let call =
            self.call(Method::POST, "/message-log", Repeat::IfNotCarriedOut).json(&request::StepCreate::from(step))?;
        let answer = self.exchange.send(caller, &call).await?;
        let made: answer::Made = self.exchange.decode(&call, &answer)?;
        Ok(made.id)
    }

    async fn update_step(&self, caller: &Caller, id: &str, change: &StepChange) -> Result<()> {
        let path = format!("/message-log/{}", segment("step", id)?);
        let call = self.call(Method::PATCH, path, Repeat::Safe).json(&request::StepUpdate::from(change))?;
        self.exchange.send(caller, &call).await?;
        Ok(())
    }

    async fn create_message(
        &self,
        caller: &Caller,
        assistant_id: &str,
        chat_id: &str,
        change: &MessageChange,
    ) -> Result<Message> {
        let now = change.completed.then(now);
        let create = request::MessageCreate {
            chat_id,
            assistant_id,
            role: "ASSISTANT",
            content: change.into(),
            completed_at: now.as_deref(),
        };
        let call = self.call(Method::POST, "/messages", Repeat::IfNotCarriedOut).json(&create)?;
        let answer = self.exchange.send(caller, &call).await?;
        let message: answer::Message = self.exchange.decode(&call, &answer)?;
        let message = message
            .into_message(None)
            .ok_or_else(|| self.exchange.unreadable(&call, &answer, "the message has no id"))?;
        if let Some(now) = now {
            self.stamp_new_message(caller, chat_id, &message.id, &now).await;
        }
        Ok(message)
    }

    async fn modify_message(
        &self,
        caller: &Caller,
        chat_id: &str,
        id: &str,
        change: &MessageChange,
    ) -> Result<Message> {
        let now = change.completed.then(now);
        let mut update = request::MessageUpdate::new(chat_id, change.into());
        if let Some(now) = &now {
            update = update.streamed_at(now).completed_at(now);
        }
        self.patch_message(caller, id, &update).await
    }

    async fn show_message(&self, caller: &Caller, chat_id: &str, id: &str, text: &str) -> Result<()> {
        let update = request::MessageUpdate::new(chat_id, text.into());
        // Nothing is stored, and the same text shown twice is the same picture.
        let path = format!("/messages/{}/event", segment("message", id)?);
        let call = self.call(Method::POST, path, Repeat::Safe).json(&update)?;
        self.exchange.send(caller, &call).await?;
        Ok(())
    }

    async fn list_messages(&self, caller: &Caller, chat_id: &str) -> Result<Vec<Message>> {
        let mut call = self.call(Method::GET, "/messages", Repeat::Safe);
        let mut messages = Vec::new();
        let mut seen = HashSet::new();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = vec![("chatId", chat_id.to_owned())];
            query.extend(after.take().map(|id| ("starting_after", id)));
            call.set_query(query);

            let answer = self.exchange.send(caller, &call).await?;
            let page: answer::MessagePage = self.exchange.decode(&call, &answer)?;
            for message in page.data {
                let message = message.into_message(None);
                let message = message.ok_or_else(|| self.exchange.unreadable(&call, &answer, "a message has no id"))?;
                if seen.insert(message.id.clone()) {
                    after = Some(message.id.clone());
                    messages.push(message);
                }
            }
            // A page with nothing new is the end too: a platform that doesn't know the parameter sends the first again.
            if !page.has_more || after.is_none() {
                return Ok(messages);
            }
        }
        let what = format!("{call}: the chat goes on after {MAX_PAGES} pages of messages");
        Err(PlatformError::new(ErrorKind::Unavailable, what))
    }

    async fn search(&self, caller: &Caller, chat_id: Option<&str>, query: &Query) -> Result<Vec<Hit>> {
        let request = request::SearchRequest::new(chat_id, query)?;
        let call = self.call(Method::POST, "/search/search", Repeat::Safe).json(&request)?;
        let answer = self.exchange.send(caller, &call).await?;
        let hits: answer::Hits = self.exchange.decode(&call, &answer)?;
        Ok(hits.into_hits())
    }

    async fn complete(&self, caller: &Caller, request: &CompletionRequest) -> Result<Completion> {
        let create = request::CompletionCreate::new(request, self.model.as_deref())?;
        let call = self.completion("/openai/chat/completions", request).json(&create)?;
        let answer = self.exchange.send(caller, &call).await?;
        let completion: answer::Completion = self.exchange.decode(&call, &answer)?;
        completion.into_completion().ok_or_else(|| self.exchange.unreadable(&call, &answer, "it has no choice"))
    }

    async fn complete_into(
        &self,
        caller: &Caller,
        target: &StreamTarget,
        request: &CompletionRequest,
        sources: &[Hit],
    ) -> Result<Completion> {
        let create = request::CompletionCreate::new(request, self.model.as_deref())?;
        let create = request::StreamCreate::new(target, sources, create);
        let call = self.completion("/integrated/chat/stream-completions", request).json(&create)?;
        let answer = self.exchange.send(caller, &call).await?;
        let result: answer::StreamResult = self.exchange.decode(&call, &answer)?;
        Ok(result.into_completion())
    }
}

/// An id as a segment of a path. Whatever it holds, it stays one segment; the names of no segment at all can't be
/// encoded and are refused.
fn segment(what: &str, id: &str) -> Result<String> {
    if matches!(id, "" | "." | "..") {
        return Err(PlatformError::new(ErrorKind::Invalid, format!("{id:?} is not the id of a {what}")));
    }
    // Form encoding but for the space, which is a plus sign in forms only.
    Ok(url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20"))
}

/// The time as the platform writes it: RFC 3339, UTC, milliseconds.
fn now() -> String {
    format!("{:.3}", Timestamp::now())
}
