//! NexusGPT: its public API.
//!
//! It has one call for modules, as its public documentation of webhooks describes it: a message is written into a thread
//! by `POST /api/public/thread/{id}/messages` with the header `api-key` and the body `{"content": "…"}`, and the answer is
//! `{"success": true}`. It documents no idempotency keys, so a message is sent again only if it certainly was not written.

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, Method};
use serde::Serialize;
use url::Url;

use super::chat_completion::failure;
use super::http_transport::{Call, HttpTransport, Repeat, check_base, credential, segment};
use super::{CallError, Caller, ErrorKind, Message, MessageChange, Platform, Result, Role, SetupError};
use modhost_core::backoff::RetryPolicy;
use modhost_core::json::Fields;
use modhost_core::platform_urls::NEXUS_API_BASE;
use modhost_core::secret::Secret;

/// The most characters a message may have.
pub const MESSAGE_LIMIT: usize = 4000;

const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// What it takes to write into the threads of a NexusGPT workspace.
#[derive(Clone, Debug)]
pub struct NexusSettings {
    /// Where the API is, with or without a slash at its end.
    pub api_base: Url,
    /// The workspace's key.
    pub api_key: Secret,
    /// The longest a call may take, attempts and waits included.
    pub timeout: Duration,
    /// How calls are tried again.
    pub retry: RetryPolicy,
    /// The header that carries a call's idempotency key; none: it isn't sent.
    pub idempotency_header: Option<HeaderName>,
}

impl NexusSettings {
    /// Settings with the defaults: 30 s for a call, four attempts, no idempotency key.
    pub fn new(api_base: Url, api_key: Secret) -> Self {
        let (timeout, retry) = (Duration::from_secs(30), RetryPolicy::REQUEST);
        Self { api_base, api_key, timeout, retry, idempotency_header: None }
    }
}

/// The client of one NexusGPT workspace.
#[derive(Debug)]
pub struct Nexus {
    exchange: HttpTransport,
    timeout: Duration,
}

impl Nexus {
    /// A client with these settings, on the connections of `client` (see [`http_client`](super::http_client)).
    ///
    /// # Errors
    /// [`SetupError`] where a setting can't be right. Nothing is sent yet.
    pub fn new(settings: NexusSettings, client: reqwest::Client) -> std::result::Result<Self, SetupError> {
        let NexusSettings { api_base, api_key: key, timeout, retry, idempotency_header } = settings;
        check_base(&api_base, NEXUS_API_BASE)?;
        let headers = HeaderMap::from_iter([(API_KEY, credential("api_key", key.expose())?)]);
        Ok(Self { exchange: HttpTransport { client, api_base, headers, key, retry, idempotency_header }, timeout })
    }
}

/// The body of the request.
#[derive(Serialize)]
struct NewMessage<'a> {
    content: &'a str,
}

#[async_trait]
impl Platform for Nexus {
    fn unsupported(&self, what: &str) -> CallError {
        let message = format!(
            "NexusGPT has no {what} for modules: all they can do there is to write messages of text into the event's \
             thread (`messages.create`)"
        );
        CallError::new(ErrorKind::Unsupported, message)
    }

    async fn create_message(
        &self,
        caller: &Caller,
        _assistant_id: Option<&str>,
        chat_id: &str,
        change: &MessageChange,
    ) -> Result<Message> {
        let content = self.content(change)?;
        let path = format!("/api/public/thread/{}/messages", segment("thread", chat_id)?);
        let call = Call::new(Method::POST, path, Repeat::IfNotCarriedOut, self.timeout)
            .idempotency_key(caller.idempotency_key.as_deref())
            .json(&NewMessage { content })?;
        let answer = self.exchange.send(&call).await?;
        let is_written = self.exchange.decode_any(&call, &answer, |value| {
            let fields = Fields::of(value, &["success"]).ok_or("it is no object")?;
            Ok(fields.get("success").is_some_and(|it| it.as_bytes() == b"true") && failure(value).is_none())
        })?;
        if !is_written {
            return Err(self.exchange.unexpected(&call, &answer, "doesn't say that the message was written"));
        }
        // Nothing else is told about it.
        let (id, text) = (String::new(), Some(content.to_owned()));
        Ok(Message { id, role: Role::Assistant, text, references: Vec::new(), created_at: None })
    }
}

impl Nexus {
    /// The text of a message, if it is one the platform takes. What would be left out of it silently is refused.
    fn content<'c>(&self, change: &'c MessageChange) -> Result<&'c str> {
        if !change.references.is_empty() {
            return Err(self.unsupported("references"));
        }
        if change.debug_info.is_some() {
            return Err(self.unsupported("debug information"));
        }
        let invalid = |message: String| Err(CallError::new(ErrorKind::Invalid, message));
        let content = change.text.as_deref().unwrap_or_default();
        if content.trim().is_empty() {
            return invalid("a message to a NexusGPT thread needs a text".into());
        }
        match length(content) {
            length if length > MESSAGE_LIMIT => invalid(format!(
                "a message to a NexusGPT thread has {MESSAGE_LIMIT} characters at most, this one has {length} (an emoji \
                 counts as two or more); nothing was sent"
            )),
            _ => Ok(content),
        }
    }
}

/// How many characters a text has: UTF-16 code units, as JavaScript counts them. The platform doesn't say how it counts;
/// whoever counts code points, or what a reader takes for one character, comes to no more than this.
fn length(text: &str) -> usize {
    text.encode_utf16().count()
}
