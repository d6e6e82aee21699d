//! An OpenAI-compatible endpoint: a language model for tenants whose platform has none for modules, or none that streams.
//!
//! `POST {api_base}/chat/completions`, as OpenAI documents it and others offer it, too. What they answer is read by
//! [`chat_completion`](super::chat_completion): leniently in its form, and strictly in what counts as an answer.

mod stream;

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderName, Method};
use serde_json::{Value, json};
use url::Url;

use super::http_transport::{Call, HttpTransport, Repeat, check_base, credential};
use super::{Caller, Completion, CompletionRequest, Result, SetupError};
use modhost_core::backoff::RetryPolicy;
use modhost_core::platform_urls::OPENAI_API_BASE;
use modhost_core::secret::Secret;

pub use stream::Pieces;

/// Where completions are asked for, below `api_base`.
const COMPLETIONS: &str = "/chat/completions";

/// What it takes to talk to an endpoint.
#[derive(Clone, Debug)]
pub struct OpenAiSettings {
    /// The address its paths are appended to: `https://api.openai.com/v1`, with or without a slash at its end.
    pub api_base: Url,
    /// The key; there are endpoints that need none.
    pub api_key: Option<Secret>,
    /// The model of completions that name none.
    pub model: String,
    /// The longest a completion may take, attempts and waits included, and to its last piece; a request can only ask for
    /// less.
    pub timeout: Duration,
    /// How calls are tried again.
    pub retry: RetryPolicy,
    /// The header that carries a call's idempotency key; none: it isn't sent.
    pub idempotency_header: Option<HeaderName>,
}

impl OpenAiSettings {
    /// Settings with the defaults: no key, 600 s for a completion (as OpenAI's own clients wait), four attempts.
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
    exchange: Arc<HttpTransport>,
    model: String,
    timeout: Duration,
}

impl OpenAi {
    /// A client with these settings, on the connections of `client` (see [`http_client`](super::http_client)).
    ///
    /// # Errors
    /// [`SetupError`] where a setting can't be right. Nothing is sent yet.
    pub fn new(settings: OpenAiSettings, client: reqwest::Client) -> std::result::Result<Self, SetupError> {
        let OpenAiSettings { api_base, api_key, model, timeout, retry, idempotency_header } = settings;
        check_base(&api_base, OPENAI_API_BASE)?;
        let mut headers = HeaderMap::new();
        if let Some(key) = &api_key {
            headers.insert(AUTHORIZATION, bearer(key)?);
        }
        let key = api_key.unwrap_or_else(|| Secret::new(""));
        let exchange = HttpTransport { client, api_base, headers, key, retry, idempotency_header };
        Ok(Self { exchange: Arc::new(exchange), model, timeout })
    }

    /// Waits for a whole answer.
    ///
    /// # Errors
    /// As every call to a platform.
    pub async fn complete(&self, caller: &Caller, request: &CompletionRequest) -> Result<Completion> {
        let call = self.call(caller, request)?.json(&self.question(request, false)?)?;
        let answer = self.exchange.send(&call).await?;
        self.exchange.completion(&call, &answer)
    }

    /// Begins an answer that is read piece by piece.
    ///
    /// # Errors
    /// As every call to a platform, until the answer begins.
    pub async fn stream(&self, caller: &Caller, request: &CompletionRequest) -> Result<Pieces> {
        let call = self.call(caller, request)?.header(ACCEPT, "kind of answer", "text/event-stream")?;
        let call = call.json(&self.question(request, true)?)?;
        let mut opened = self.exchange.open(call).await?;
        if opened.has_events().await? {
            return Ok(Pieces::streamed(opened));
        }
        // Some endpoints can't stream, or not with every model, and answer whole.
        let (call, answer) = opened.whole().await?;
        Ok(Pieces::whole(self.exchange.completion(&call, &answer)?))
    }

    /// A completion costs money, so it is repeated only if it certainly was not begun.
    fn call(&self, caller: &Caller, request: &CompletionRequest) -> Result<Call> {
        let limit = request.timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout));
        let call = Call::new(Method::POST, COMPLETIONS, Repeat::IfNotCarriedOut, limit);
        Ok(call.idempotency_key(caller.idempotency_key.as_deref()))
    }

    /// The body of the request: the guest's options, and over them what the host has to say.
    fn question(&self, request: &CompletionRequest, stream: bool) -> Result<Value> {
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
