//! An OpenAI-compatible endpoint: a language model for tenants whose platform has none for modules, or none that
//! streams.
//!
//! It calls `POST {api_base}/chat/completions`, as OpenAI documents it and other vendors implement it.
//! [`chat_completion`](super::chat_completion) parses the answers: leniently in their form, and strictly in what counts
//! as complete.

mod stream;

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderName, Method};
use serde_json::{Value, json};
use url::Url;

use super::http_transport::{Call, HttpClients, HttpTransport, Repeatability, check_base, credential};
use super::{Caller, Completion, CompletionRequest, Result, SetupError};
use modhost_core::backoff::RetryPolicy;
use modhost_core::platform_urls::OPENAI_API_BASE;
use modhost_core::secret::Secret;

pub use stream::Pieces;

/// The path of completions below `api_base`.
const COMPLETIONS: &str = "/chat/completions";

/// The settings of an endpoint.
#[derive(Clone, Debug)]
pub struct OpenAiSettings {
    /// The base address of its paths: `https://api.openai.com/v1`, with or without a trailing slash.
    pub api_base: Url,
    /// The API key. Some endpoints need none.
    pub api_key: Option<Secret>,
    /// The model of requests that name none.
    pub model: String,
    /// The time limit of a completion, from the first attempt to the last piece, including delays. A request can only
    /// lower it.
    pub timeout: Duration,
    /// The retry policy.
    pub retry: RetryPolicy,
    /// The header of the idempotency key. `None` sends no key.
    pub idempotency_header: Option<HeaderName>,
}

impl OpenAiSettings {
    /// Creates settings with the defaults: no key, 600 s for a completion (as OpenAI's own clients wait), four
    /// attempts.
    pub fn new(api_base: Url, model: impl Into<String>) -> Self {
        Self {
            api_base,
            api_key: None,
            model: model.into(),
            timeout: Duration::from_secs(600),
            retry: RetryPolicy::REQUEST,
            idempotency_header: Some(HeaderName::from_static("idempotency-key")),
        }
    }
}

/// The client of one endpoint.
#[derive(Debug)]
pub struct OpenAi {
    transport: Arc<HttpTransport>,
    model: String,
    timeout: Duration,
}

impl OpenAi {
    /// Creates a client with these settings, on the connections of a tenant.
    ///
    /// # Errors
    /// Returns [`SetupError`] if a setting is invalid. Sends nothing.
    pub fn new(settings: OpenAiSettings, clients: HttpClients) -> std::result::Result<Self, SetupError> {
        let OpenAiSettings { api_base, api_key, model, timeout, retry, idempotency_header } = settings;
        check_base(&api_base, OPENAI_API_BASE)?;
        let mut headers = HeaderMap::new();
        if let Some(key) = &api_key {
            headers.insert(AUTHORIZATION, bearer(key)?);
        }
        let key = api_key.unwrap_or_else(|| Secret::new(""));
        let transport = HttpTransport { clients, api_base, headers, key, retry, idempotency_header };
        Ok(Self { transport: Arc::new(transport), model, timeout })
    }

    /// Requests a complete answer.
    ///
    /// # Errors
    /// Like every call to a platform.
    pub async fn complete(&self, caller: &Caller, request: &CompletionRequest) -> Result<Completion> {
        let call = self.call(caller, request)?.json(&self.body_of(request, false)?)?;
        let answer = self.transport.send(&call).await?;
        self.transport.completion(&call, &answer)
    }

    /// Requests an answer that is read piece by piece.
    ///
    /// # Errors
    /// Like every call to a platform, until the answer starts.
    pub async fn stream(&self, caller: &Caller, request: &CompletionRequest) -> Result<Pieces> {
        let call = self.call(caller, request)?.header(ACCEPT, "kind of answer", "text/event-stream")?;
        let call = call.json(&self.body_of(request, true)?)?;
        let mut response = self.transport.open(call).await?;
        if response.has_events().await? {
            return Ok(Pieces::streamed(response));
        }
        // Some endpoints can't stream, or not with every model, and send a complete answer.
        let (call, answer) = response.whole().await?;
        Ok(Pieces::whole(self.transport.completion(&call, &answer)?))
    }

    /// Creates the call of a completion. It costs money, so it is repeated only if it certainly was not carried out.
    fn call(&self, caller: &Caller, request: &CompletionRequest) -> Result<Call> {
        let limit = request.timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout));
        let call = Call::new(Method::POST, COMPLETIONS, Repeatability::IfNotCarriedOut, limit);
        Ok(call.of_caller(caller))
    }

    /// Returns the request's body: the guest's options, overridden by the host's fields.
    fn body_of(&self, request: &CompletionRequest, stream: bool) -> Result<Value> {
        let mut body = request.model_options()?;
        body.insert("model".into(), request.model.as_ref().unwrap_or(&self.model).as_str().into());
        body.insert("messages".into(), json!(request.messages));
        if stream {
            body.insert("stream".into(), true.into());
            let options = body.entry("stream_options").or_insert_with(|| json!({}));
            if let Value::Object(options) = options {
                options.insert("include_usage".into(), true.into());
            }
        } else {
            body.remove("stream");
            body.remove("stream_options");
        }
        Ok(body.into())
    }
}

fn bearer(key: &Secret) -> std::result::Result<http::HeaderValue, SetupError> {
    super::http_transport::header("api_key", key.expose())?;
    credential("api_key", &format!("Bearer {}", key.expose()))
}
