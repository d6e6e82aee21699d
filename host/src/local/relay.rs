//! Handing completions on to an OpenAI-compatible endpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::{Host, Url};

use super::completion::CompletionRequest;
use super::deliver::{describe, retry_after};
use super::error::ApiError;
use super::settings::CompletionEndpoint;

/// How long the list of models may take.
const MODELS_WITHIN: Duration = Duration::from_secs(20);

/// How much of an endpoint's error is passed on.
const MOST_OF_AN_ERROR: usize = 500;

/// A client of the endpoint.
pub struct Relay {
    client: Client,
    endpoint: CompletionEndpoint,
    /// Ends in `/chat/completions`.
    completions: Url,
    models: Url,
}

impl Relay {
    /// A client of this endpoint.
    pub fn new(endpoint: CompletionEndpoint) -> reqwest::Result<Self> {
        let client = Client::builder().connect_timeout(Duration::from_secs(10));
        // A model on this machine is not behind the proxy that others are reached through.
        let client = if is_loopback(&endpoint.url) { client.no_proxy() } else { client }.build()?;
        let base = endpoint.url.path().trim_end_matches('/');
        let base = base.strip_suffix("/chat/completions").unwrap_or(base);
        // What else is in the address stays: some endpoints want a query (`?api-version=`).
        let at = |path: &str| {
            let mut url = endpoint.url.clone();
            url.set_path(&format!("{base}{path}"));
            url
        };
        Ok(Self { client, completions: at("/chat/completions"), models: at("/models"), endpoint })
    }

    /// Waits for a whole answer, in OpenAI's shape.
    pub async fn complete(&self, request: &CompletionRequest) -> Result<Value, ApiError> {
        let response = self.ask(request, false).await?;
        let answer: Value = response.json().await.map_err(|error| self.unreadable(&error))?;
        if answer["choices"].is_array() {
            Ok(answer)
        } else {
            Err(self.strange("there are no `choices` in its answer"))
        }
    }

    /// Begins an answer that is read piece by piece.
    pub async fn stream(&self, request: &CompletionRequest) -> Result<Pieces<'_>, ApiError> {
        let response = self.ask(request, true).await?;
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let streams = content_type.starts_with("text/event-stream");
        Ok(Pieces { relay: self, response, streams, buffer: Vec::new(), ended: false })
    }

    /// Begins an answer that is handed on as it comes.
    pub async fn begin(&self, request: &CompletionRequest) -> Result<Response, ApiError> {
        self.ask(request, true).await
    }

    /// The models the endpoint offers: the one it is set to, or all it lists.
    pub async fn models(&self) -> Result<Vec<String>, ApiError> {
        if let Some(model) = &self.endpoint.model {
            return Ok(vec![model.clone()]);
        }
        let request = self.client.get(self.models.clone()).timeout(MODELS_WITHIN);
        let response = self.send(request).await?;
        let answer: Value = response.json().await.map_err(|error| self.unreadable(&error))?;
        let listed = answer["data"].as_array().ok_or_else(|| self.strange("there is no list `data` in its answer"))?;
        Ok(listed.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect())
    }

    async fn ask(&self, request: &CompletionRequest, stream: bool) -> Result<Response, ApiError> {
        let model = self.endpoint.model.as_ref().or(request.model.as_ref()).ok_or_else(|| {
            ApiError::invalid(
                "model is missing: name one in the request, or start the local platform with --completion-model",
            )
        })?;
        let mut body = request.options.clone().unwrap_or_default();
        body.insert("model".to_owned(), json!(model));
        body.insert("messages".to_owned(), json!(request.messages));
        body.insert("stream".to_owned(), json!(stream));
        if stream {
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        } else {
            body.remove("stream_options");
        }
        self.send(self.client.post(self.completions.clone()).timeout(request.time_limit()).json(&body)).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let request = match &self.endpoint.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// What a request that wasn't answered is for our own client.
    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        if error.is_timeout() {
            return ApiError::upstream_timeout(format!(
                "the completion endpoint {} did not answer in time",
                self.name()
            ));
        }
        ApiError::upstream_unavailable(format!(
            "the completion endpoint {} is out of reach: {}",
            self.name(),
            self.clean(&describe(error))
        ))
    }

    fn unreadable(&self, error: &reqwest::Error) -> ApiError {
        if error.is_decode() { self.strange("its answer is not JSON") } else { self.unreachable(error) }
    }

    fn strange(&self, what: &str) -> ApiError {
        let message = format!(
            "the completion endpoint {} does not speak as OpenAI's API does: {what}; check --completion-url",
            self.name()
        );
        ApiError::bad_upstream(message)
    }

    /// What an error of the endpoint is for our own client: its credentials are ours, its overload and its opinion of
    /// the request are passed on.
    async fn refused(&self, response: Response) -> ApiError {
        let status = response.status();
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = header.and_then(|value| retry_after(value, jiff::Timestamp::now()));
        let said = self.clean(&response.text().await.map(|body| error_text(&body)).unwrap_or_default());
        let message = format!("the completion endpoint {} answered {status}: {said}", self.name());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                ApiError::bad_upstream(format!("{message}; check --completion-key"))
            }
            StatusCode::TOO_MANY_REQUESTS => ApiError::rate_limited(message, wait),
            StatusCode::NOT_FOUND => ApiError::invalid(format!("{message}; check the model and --completion-url")),
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ApiError::upstream_timeout(message),
            _ if status.is_client_error() => ApiError::invalid(message),
            _ if status.is_server_error() => ApiError::upstream_unavailable(message),
            _ => ApiError::bad_upstream(message),
        }
    }

    /// The address without what may be secret in it.
    fn name(&self) -> String {
        format!("{}{}", self.completions.origin().ascii_serialization(), self.completions.path())
    }

    /// An endpoint's words without our key, should it repeat it.
    fn clean(&self, text: &str) -> String {
        match &self.endpoint.key {
            Some(key) if !key.expose().is_empty() => text.replace(key.expose(), "…"),
            _ => text.to_owned(),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The text of an error as OpenAI's API and its likes write it.
fn error_text(body: &str) -> String {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let text =
        parsed["error"]["message"].as_str().or(parsed["error"].as_str()).or(parsed["message"].as_str()).unwrap_or(body);
    text.chars().take(MOST_OF_AN_ERROR).collect()
}

/// An answer on its way.
pub struct Pieces<'a> {
    relay: &'a Relay,
    response: Response,
    streams: bool,
    buffer: Vec<u8>,
    ended: bool,
}

/// A piece of an answer: what a server-sent event of the endpoint brings.
#[derive(Debug, Default, Deserialize)]
pub struct Piece {
    #[serde(default)]
    choices: Vec<Choice>,
    /// What the answer cost: only in the last piece.
    pub usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    /// In a piece of a stream.
    delta: Option<Delta>,
    /// In an answer that came whole.
    message: Option<Delta>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    content: Option<String>,
    tool_calls: Option<Vec<ToolCallDelta>>,
}

#[derive(Debug, Deserialize)]
struct ToolCallDelta {
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Debug, Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

/// What an answer cost, in the model's tokens, as OpenAI's API writes it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Usage {
    /// Read.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Written.
    #[serde(default)]
    pub completion_tokens: u64,
}

impl Piece {
    /// The text the piece adds.
    pub fn text(&self) -> &str {
        self.delta().and_then(|delta| delta.content.as_deref()).unwrap_or_default()
    }

    fn delta(&self) -> Option<&Delta> {
        let choice = self.choices.first()?;
        choice.delta.as_ref().or(choice.message.as_ref())
    }
}

/// The calls of tools a model asks for, put together from the pieces they come in.
#[derive(Debug, Default)]
pub struct ToolCalls(BTreeMap<usize, ToolCall>);

/// A call of a tool, as the platform answers with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ToolCall {
    id: String,
    name: Option<String>,
    arguments: Option<String>,
}

impl ToolCalls {
    /// Adds what a piece brings.
    pub fn add(&mut self, piece: &Piece) {
        let deltas = piece.delta().and_then(|delta| delta.tool_calls.as_deref()).unwrap_or_default();
        for (place, delta) in deltas.iter().enumerate() {
            let call = self.0.entry(delta.index.unwrap_or(place)).or_default();
            call.id.push_str(delta.id.as_deref().unwrap_or_default());
            let Some(function) = &delta.function else { continue };
            let append = |to: &mut Option<String>, text: &Option<String>| {
                if let Some(text) = text {
                    to.get_or_insert_default().push_str(text);
                }
            };
            append(&mut call.name, &function.name);
            append(&mut call.arguments, &function.arguments);
        }
    }

    /// The calls in the model's order.
    pub fn into_list(self) -> Vec<ToolCall> {
        self.0.into_values().collect()
    }
}

impl Pieces<'_> {
    /// Waits for the next piece; none is the end.
    pub async fn next(&mut self) -> Result<Option<Piece>, ApiError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n').filter(|_| self.streams) {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                match self.read_line(&line)? {
                    Some(piece) => return Ok(Some(piece)),
                    None => continue,
                }
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return if self.streams { self.read_line(&rest) } else { self.read_whole(&rest) };
            }
            match self.response.chunk().await.map_err(|error| self.relay.unreadable(&error))? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => self.ended = true,
            }
        }
    }

    /// Reads a line of the event stream; lines that bring nothing are comments, other fields and `[DONE]`.
    fn read_line(&self, line: &[u8]) -> Result<Option<Piece>, ApiError> {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else {
            return Ok(None);
        };
        if data.is_empty() || data == b"[DONE]" { Ok(None) } else { self.read_piece(data).map(Some) }
    }

    /// Reads the answer of an endpoint that doesn't stream though it was asked to.
    fn read_whole(&self, body: &[u8]) -> Result<Option<Piece>, ApiError> {
        if body.is_empty() { Ok(None) } else { self.read_piece(body).map(Some) }
    }

    fn read_piece(&self, json: &[u8]) -> Result<Piece, ApiError> {
        let piece: Piece = serde_json::from_slice(json)
            .map_err(|error| self.relay.strange(&format!("a piece of its stream is {error}")))?;
        match &piece.error {
            Some(error) => {
                let said = self.relay.clean(&error_text(&json!({ "error": error }).to_string()));
                Err(ApiError::upstream_unavailable(format!(
                    "the completion endpoint {} broke off: {said}",
                    self.relay.name()
                )))
            }
            None => Ok(piece),
        }
    }
}
