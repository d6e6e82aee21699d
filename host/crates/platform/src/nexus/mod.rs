//! NexusGPT's public API.
//!
//! Its public documentation of webhooks describes one call for modules. `POST /api/public/thread/{id}/messages`, with
//! the header `api-key` and the body `{"content": "…"}`, writes a message into a thread and returns
//! `{"success": true}`. No idempotency keys are documented, so a message is sent again only if it certainly was not
//! written.

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, Method};
use serde::Serialize;
use url::Url;

use super::chat_completion::failure;
use super::http_transport::{Call, HttpClients, HttpTransport, Repeatability, check_base, credential, segment};
use super::{CallError, Caller, ErrorKind, Message, MessageChange, Platform, Result, Role, SetupError};
use modhost_core::backoff::RetryPolicy;
use modhost_core::json::Fields;
use modhost_core::platform_urls::NEXUS_API_BASE;
use modhost_core::secret::Secret;

/// The maximum length of a message, in characters.
pub const MESSAGE_LIMIT: usize = 4000;

const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// The settings for the threads of a NexusGPT workspace.
#[derive(Clone, Debug)]
pub struct NexusSettings {
    /// The base address of the API, with or without a trailing slash.
    pub api_base: Url,
    /// The workspace's key.
    pub api_key: Secret,
    /// The time limit of a call, including attempts and delays.
    pub timeout: Duration,
    /// The retry policy.
    pub retry: RetryPolicy,
    /// The header of the idempotency key. `None` sends no key.
    pub idempotency_header: Option<HeaderName>,
}

impl NexusSettings {
    /// Creates settings with the defaults: 30 s for a call, four attempts, no idempotency key.
    pub fn new(api_base: Url, api_key: Secret) -> Self {
        let (timeout, retry) = (Duration::from_secs(30), RetryPolicy::REQUEST);
        Self { api_base, api_key, timeout, retry, idempotency_header: None }
    }
}

/// The client of one NexusGPT workspace.
#[derive(Debug)]
pub struct Nexus {
    transport: HttpTransport,
    timeout: Duration,
}

impl Nexus {
    /// Creates a client with these settings, on the connections of a tenant.
    ///
    /// # Errors
    /// Returns [`SetupError`] if a setting is invalid. Sends nothing.
    pub fn new(settings: NexusSettings, clients: HttpClients) -> std::result::Result<Self, SetupError> {
        let NexusSettings { api_base, api_key: key, timeout, retry, idempotency_header } = settings;
        check_base(&api_base, NEXUS_API_BASE)?;
        let headers = HeaderMap::from_iter([(API_KEY, credential("api_key", key.expose())?)]);
        Ok(Self { transport: HttpTransport { clients, api_base, headers, key, retry, idempotency_header }, timeout })
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
            "NexusGPT has no {what} for modules: they can only write text messages into the event's thread \
             (`messages.create`)"
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
        let call = Call::new(Method::POST, path, Repeatability::IfNotCarriedOut, self.timeout)
            .of_caller(caller)
            .json(&NewMessage { content })?;
        let answer = self.transport.send(&call).await?;
        let is_written = self.transport.decode_any(&call, &answer, |value| {
            let fields = Fields::of(value, &["success"]).ok_or("it is not an object")?;
            Ok(fields.get("success").is_some_and(|it| it.as_bytes() == b"true") && failure(value).is_none())
        })?;
        if !is_written {
            return Err(self.transport.unexpected(&call, &answer, "doesn't confirm that the message was written"));
        }
        // The answer contains no more about the message.
        let (id, text) = (String::new(), Some(content.to_owned()));
        Ok(Message { id, role: Role::Assistant, text, references: Vec::new(), created_at: None })
    }
}

impl Nexus {
    /// Returns the text of a message that the platform accepts. Content that would be dropped silently is rejected.
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
                "a message to a NexusGPT thread has at most {MESSAGE_LIMIT} characters; this one has {length} (an emoji \
                 counts as two or more); nothing was sent"
            )),
            _ => Ok(content),
        }
    }
}

/// Returns the length of a text in UTF-16 code units, as JavaScript counts. The platform doesn't specify its unit, but
/// neither code points nor grapheme clusters exceed this number.
fn length(text: &str) -> usize {
    text.encode_utf16().count()
}
