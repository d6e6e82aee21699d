//! Unique's REST API.
//!
//! Paths, headers and bodies are those of the official Python SDK (`unique-sdk` 2026.44.2, on PyPI). The SDK repeats
//! every call that ends in a server error. This client repeats a call only if that can't execute it twice.

mod answer;
mod request;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use url::Url;

use super::http_transport::{
    Answer, Call, HttpClients, HttpTransport, Repeatability, check_base, credential, header, segment,
};
use super::{
    CallError, Caller, Completion, CompletionRequest, ErrorKind, Hit, Message, MessageChange, NewStep, Platform, Query,
    Result, SetupError, StepChange, StreamTarget, StreamedAnswer,
};
use answer::Repairs;
use modhost_core::backoff::RetryPolicy;
use modhost_core::json::Value;
use modhost_core::platform_urls::UNIQUE_API_BASE;
use modhost_core::secret::Secret;

/// The version of the API, as the official Python SDK sends it.
const API_VERSION: HeaderValue = HeaderValue::from_static("2023-12-06");

const X_API_VERSION: HeaderName = HeaderName::from_static("x-api-version");
const X_APP_ID: HeaderName = HeaderName::from_static("x-app-id");
const X_COMPANY_ID: HeaderName = HeaderName::from_static("x-company-id");
const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// The maximum number of pages of a chat's messages. Usually the platform sends a chat as one page.
const MAX_PAGES: usize = 100;

/// The settings of a Unique tenant.
#[derive(Clone, Debug)]
pub struct UniqueSettings {
    /// The base address of the API: `https://gateway.<tenant>.unique.app/public/chat`, with or without a trailing
    /// slash.
    pub api_base: Url,
    /// The id of the app on the platform.
    pub app_id: String,
    /// The app's key.
    pub api_key: Secret,
    /// The model of requests that name none. `None` selects the platform's default.
    pub model: Option<String>,
    /// The time limit of a completion, including attempts and delays. A request can only lower it.
    pub timeout: Duration,
    /// The time limit of any other call, including attempts and delays.
    pub call_timeout: Duration,
    /// The retry policy.
    pub retry: RetryPolicy,
    /// The header of the idempotency key. `None` sends no key.
    pub idempotency_header: Option<HeaderName>,
}

impl UniqueSettings {
    /// Creates settings with the defaults: the platform's model, 600 s for a completion (as the official SDK waits),
    /// 30 s for other calls, four attempts.
    pub fn new(api_base: Url, app_id: impl Into<String>, api_key: Secret) -> Self {
        Self {
            api_base,
            app_id: app_id.into(),
            api_key,
            model: None,
            timeout: Duration::from_secs(600),
            call_timeout: Duration::from_secs(30),
            retry: RetryPolicy::REQUEST,
            idempotency_header: Some(HeaderName::from_static("idempotency-key")),
        }
    }
}

/// The client of one Unique tenant.
#[derive(Debug)]
pub struct Unique {
    transport: HttpTransport,
    model: Option<String>,
    timeout: Duration,
    call_timeout: Duration,
}

impl Unique {
    /// Creates a client with these settings, on the connections of a tenant.
    ///
    /// # Errors
    /// Returns [`SetupError`] if a setting is invalid. Sends nothing.
    pub fn new(settings: UniqueSettings, clients: HttpClients) -> std::result::Result<Self, SetupError> {
        let UniqueSettings { api_base, app_id, api_key: key, model, timeout, call_timeout, retry, idempotency_header } =
            settings;
        check_base(&api_base, UNIQUE_API_BASE)?;
        header("api_key", key.expose())?;
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, credential("api_key", &format!("Bearer {}", key.expose()))?),
            (X_APP_ID, header("app_id", &app_id)?),
            (X_API_VERSION, API_VERSION),
        ]);
        let transport = HttpTransport { clients, api_base, headers, key, retry, idempotency_header };
        Ok(Self { transport, model, timeout, call_timeout })
    }

    /// Creates a call other than a completion.
    fn call(&self, caller: &Caller, method: Method, path: impl Into<String>, repeat: Repeatability) -> Result<Call> {
        on_behalf_of(caller, Call::new(method, path, repeat, self.call_timeout))
    }

    /// Creates the call of a completion. It costs money, so it is repeated only if it certainly was not carried out.
    fn completion(&self, caller: &Caller, path: &str, request: &CompletionRequest) -> Result<Call> {
        let limit = request.timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout));
        on_behalf_of(caller, Call::new(Method::POST, path, Repeatability::IfNotCarriedOut, limit))
    }

    /// Changes a message. Returns the new state.
    async fn patch_message(&self, caller: &Caller, id: &str, update: &request::MessageUpdate<'_>) -> Result<Message> {
        let path = format!("/messages/{}", segment("message", id)?);
        let call = self.call(caller, Method::PATCH, path, Repeatability::Safe)?.json(update)?;
        let answer = self.transport.send(&call).await?;
        self.read(&call, &answer, "message", |value, repairs| answer::message(value, Some(id), repairs))
    }

    /// Parses an answer and reports the repairs. `what` is the kind of the answer.
    fn read<T>(
        &self,
        call: &Call,
        answer: &Answer,
        what: &'static str,
        read: impl FnOnce(Value<'_>, &mut Repairs) -> std::result::Result<T, &'static str>,
    ) -> Result<T> {
        let mut repairs = Repairs::default();
        let read = self.transport.decode(call, answer, |value| read(value, &mut repairs))?;
        repairs.report(what);
        Ok(read)
    }

    /// Sets the streaming times of a new message. By default, clients wait for `stoppedStreamingAt`, which the platform
    /// accepts only for existing messages. A failure is only logged: the message exists, and reporting an error would
    /// create it again.
    async fn stamp_new_message(&self, caller: &Caller, chat_id: &str, id: &str, now: &str) {
        let update = request::MessageUpdate::new(chat_id, request::MessageContent::default()).streamed_at(now);
        // With the key of the call that created the message, the platform would take this call for its repetition. If
        // the platform ignores idempotency keys, the message may exist twice, so each one gets a key of its own.
        let stamped = async {
            let of = segment("message", id)?;
            let idempotency_key = caller.idempotency_key.as_ref().map(|key| format!("{key}-stamp-{of}").into());
            self.patch_message(&Caller { idempotency_key, ..caller.clone() }, id, &update).await
        };
        if let Err(error) = stamped.await {
            tracing::warn!(message_id = id, %error, "cannot mark the new message as streamed; clients may wait for it");
        }
    }
}

#[async_trait]
impl Platform for Unique {
    fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("Unique has no {what}"))
    }

    fn changes_messages(&self) -> bool {
        true
    }

    async fn create_step(&self, caller: &Caller, step: &NewStep) -> Result<String> {
        let create = request::StepCreate::from(step);
        let call = self.call(caller, Method::POST, "/message-log", Repeatability::IfNotCarriedOut)?.json(&create)?;
        let answer = self.transport.send(&call).await?;
        self.transport.decode(&call, &answer, answer::created_id)
    }

    async fn update_step(&self, caller: &Caller, id: &str, change: &StepChange) -> Result<()> {
        let path = format!("/message-log/{}", segment("step", id)?);
        let call =
            self.call(caller, Method::PATCH, path, Repeatability::Safe)?.json(&request::StepUpdate::from(change))?;
        let answer = self.transport.send(&call).await?;
        self.transport.check_done(&call, &answer)
    }

    async fn create_message(
        &self,
        caller: &Caller,
        assistant_id: Option<&str>,
        chat_id: &str,
        change: &MessageChange,
    ) -> Result<Message> {
        let assistant_id = assistant_id.ok_or_else(|| caller.unsupported("assistant"))?;
        let now = change.completed.then(now);
        let create = request::MessageCreate {
            chat_id,
            assistant_id,
            role: "ASSISTANT",
            content: change.into(),
            completed_at: now.as_deref(),
        };
        let call = self.call(caller, Method::POST, "/messages", Repeatability::IfNotCarriedOut)?.json(&create)?;
        let answer = self.transport.send(&call).await?;
        let message = self.read(&call, &answer, "message", |value, repairs| answer::message(value, None, repairs))?;
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
        // Nothing is stored, and showing the same text twice has no further effect.
        let path = format!("/messages/{}/event", segment("message", id)?);
        let call = self.call(caller, Method::POST, path, Repeatability::Safe)?.json(&update)?;
        let answer = self.transport.send(&call).await?;
        self.transport.check_done(&call, &answer)
    }

    async fn list_messages(&self, caller: &Caller, chat_id: &str) -> Result<Vec<Message>> {
        let mut call = self.call(caller, Method::GET, "/messages", Repeatability::Safe)?;
        let mut messages = Vec::new();
        let mut seen = HashSet::new();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = vec![("chatId", chat_id.to_owned())];
            query.extend(after.take().map(|id| ("starting_after", id)));
            call.set_query(query);

            let answer = self.transport.send(&call).await?;
            let page = self.read(&call, &answer, "messages", answer::message_page)?;
            // A repeated page contains nothing new, not even its messages without an id.
            let is_new = page.messages.iter().any(|message| !message.id.is_empty() && !seen.contains(&message.id));
            for message in page.messages.into_iter().filter(|_| is_new) {
                if message.id.is_empty() {
                    messages.push(message);
                } else if seen.insert(message.id.clone()) {
                    after = Some(message.id.clone());
                    messages.push(message);
                }
            }
            // A page with nothing new is also the end: a platform that ignores the parameter sends the first page
            // again.
            if !page.has_more || after.is_none() {
                return Ok(messages);
            }
        }
        let what = format!("{call}: the chat has more than {MAX_PAGES} pages of messages");
        Err(CallError::new(ErrorKind::Unavailable, what))
    }

    async fn search(&self, caller: &Caller, chat_id: Option<&str>, query: &Query) -> Result<Vec<Hit>> {
        let request = request::SearchRequest::new(chat_id, query)?;
        let call = self.call(caller, Method::POST, "/search/search", Repeatability::Safe)?.json(&request)?;
        let answer = self.transport.send(&call).await?;
        self.read(&call, &answer, "hits", answer::hits)
    }

    async fn complete(&self, caller: &Caller, request: &CompletionRequest) -> Result<Completion> {
        let create = request::CompletionCreate::new(request, self.model.as_deref())?;
        let call = self.completion(caller, "/openai/chat/completions", request)?.json(&create)?;
        let answer = self.transport.send(&call).await?;
        self.transport.completion(&call, &answer)
    }

    async fn complete_into(
        &self,
        caller: &Caller,
        target: &StreamTarget,
        request: &CompletionRequest,
        sources: &[Hit],
    ) -> Result<StreamedAnswer> {
        let create = request::CompletionCreate::new(request, self.model.as_deref())?;
        let create = request::StreamCreate::new(target, sources, create);
        let call = self.completion(caller, "/integrated/chat/stream-completions", request)?.json(&create)?;
        let answer = self.transport.send(&call).await?;
        let result = self.read(&call, &answer, "completion", answer::stream_result)?;
        let completion = result.map_err(|fault| self.transport.completion_error(&call, &answer, &fault))?;
        Ok(StreamedAnswer { completion, unwritten: None })
    }
}

/// Adds the headers that name the user and the company, as the official Python SDK does.
fn on_behalf_of(caller: &Caller, call: Call) -> Result<Call> {
    let company_id = caller.company_id.as_deref().ok_or_else(|| caller.unsupported("company"))?;
    let call = call.of_caller(caller);
    let call = call.header(X_COMPANY_ID, "company id", company_id)?;
    match &caller.user_id {
        Some(user_id) => call.header(X_USER_ID, "user id", user_id),
        None => Ok(call),
    }
}

/// Returns the current time in the platform's format: RFC 3339, UTC, milliseconds.
fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Parses the hits of a search, for [`fuzzing`](crate::fuzzing).
pub(crate) fn read_hits(answer: Value<'_>) -> std::result::Result<Vec<Hit>, &'static str> {
    answer::hits(answer, &mut Repairs::default())
}

/// Parses the messages of a page, for [`fuzzing`](crate::fuzzing).
pub(crate) fn read_messages(answer: Value<'_>) -> std::result::Result<Vec<Message>, &'static str> {
    answer::message_page(answer, &mut Repairs::default()).map(|page| page.messages)
}
