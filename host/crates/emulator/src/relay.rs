//! Forwards completions to an OpenAI-compatible endpoint.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use url::{Host, Url};

use super::completion::CompletionRequest;
use super::deliver::{describe, retry_after};
use super::error::ApiError;
use super::settings::CompletionEndpoint;
use super::wire::{Stamp, new_id};
use modhost_core::json;
use modhost_core::sse::{self, BodyFormat, Parser};
use modhost_core::text::truncate;
use modhost_platform::chat_completion::{self, CompletedAnswer, Fault, MAX_ANSWER, MAX_EVENT, Progress, Reader};

/// Time limit for the list of models.
const MODELS_WITHIN: Duration = Duration::from_secs(20);

/// Maximum length of an endpoint's error message that is passed on.
const MAX_ERROR_BODY: usize = 500;

/// A client of the completion endpoint.
pub struct Relay {
    client: Client,
    endpoint: CompletionEndpoint,
    /// Ends in `/chat/completions`.
    completions: Url,
    models: Url,
}

impl Relay {
    /// Creates a client of this endpoint.
    pub fn new(endpoint: CompletionEndpoint) -> reqwest::Result<Self> {
        let client = Client::builder().connect_timeout(Duration::from_secs(10));
        // A model on this machine is not behind the proxy.
        let client = if is_loopback(&endpoint.url) { client.no_proxy() } else { client }.build()?;
        let base = endpoint.url.path().trim_end_matches('/');
        let base = base.strip_suffix("/chat/completions").unwrap_or(base);
        // The rest of the URL stays: some endpoints need a query (`?api-version=`).
        let at = |path: &str| {
            let mut url = endpoint.url.clone();
            url.set_path(&format!("{base}{path}"));
            url
        };
        Ok(Self { client, completions: at("/chat/completions"), models: at("/models"), endpoint })
    }

    /// Requests a complete answer in OpenAI's shape.
    pub async fn complete(&self, request: &CompletionRequest) -> Result<Value, ApiError> {
        let response = self.ask(request, false).await?;
        let body = response.bytes().await.map_err(|error| self.unreadable(&error))?;
        let (text, answered) = chat_completion::read(&body).map_err(|fault| self.fault(&fault))?;
        match json::Value::read(&body).ok().map(json::Value::to_json) {
            Some(answer) if answer["choices"].is_array() => Ok(answer),
            // The endpoint streamed the answer.
            _ => Ok(complete_answer(text, answered)),
        }
    }

    /// Requests an answer to read piece by piece.
    pub async fn stream(&self, request: &CompletionRequest) -> Result<AnswerStream<'_>, ApiError> {
        let response = self.ask(request, true).await?;
        Ok(AnswerStream {
            relay: self,
            response,
            reader: Reader::default(),
            parser: Parser::new(MAX_EVENT),
            body: Bytes::new(),
            complete_body: BytesMut::new(),
            has_events: None,
            is_over: false,
        })
    }

    /// Requests a streamed answer to forward unparsed.
    pub async fn begin(&self, request: &CompletionRequest) -> Result<Response, ApiError> {
        self.ask(request, true).await
    }

    /// Returns the models of the endpoint: the configured one, or all it lists.
    pub async fn models(&self) -> Result<Vec<String>, ApiError> {
        if let Some(model) = &self.endpoint.model {
            return Ok(vec![model.clone()]);
        }
        let request = self.client.get(self.models.clone()).timeout(MODELS_WITHIN);
        let response = self.send(request).await?;
        let answer: Value = response.json().await.map_err(|error| self.unreadable(&error))?;
        let listed = answer["data"].as_array().ok_or_else(|| self.incompatible("its answer has no list `data`"))?;
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

    /// Converts a failed request to an error for the client.
    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        if error.is_timeout() {
            return ApiError::upstream_timeout(format!(
                "the completion endpoint {} did not answer in time",
                self.name()
            ));
        }
        ApiError::upstream_unavailable(format!(
            "the completion endpoint {} is unreachable: {}",
            self.name(),
            self.clean(&describe(error))
        ))
    }

    fn unreadable(&self, error: &reqwest::Error) -> ApiError {
        if error.is_decode() { self.incompatible("its answer is not JSON") } else { self.unreachable(error) }
    }

    fn incompatible(&self, what: &str) -> ApiError {
        let message = format!(
            "the completion endpoint {} is not compatible with OpenAI's API: {what}; check --completion-url",
            self.name()
        );
        ApiError::bad_upstream(message)
    }

    /// Converts an invalid answer to an error for the client.
    fn fault(&self, fault: &Fault) -> ApiError {
        match fault {
            Fault::Unreadable { why, .. } => self.incompatible(&format!("its answer can't be read: {why}")),
            Fault::Failed { status, found } => {
                let said = self.clean(&error_text(&String::from_utf8_lossy(found)));
                let message = format!("the completion endpoint {} failed: {said}", self.name());
                match status {
                    Some(StatusCode::TOO_MANY_REQUESTS) => ApiError::rate_limited(message, None),
                    Some(status) if status.is_client_error() => ApiError::invalid(message),
                    _ => ApiError::upstream_unavailable(message),
                }
            }
            fault => ApiError::upstream_unavailable(format!(
                "the completion endpoint {} failed: its answer {}",
                self.name(),
                fault.describe()
            )),
        }
    }

    /// Converts an error response of the endpoint to an error for the client. Rejected credentials are the emulator's
    /// own; rate limits and rejected requests are passed on.
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

    /// Returns the URL without its parts that may be secret.
    fn name(&self) -> String {
        format!("{}{}", self.completions.origin().ascii_serialization(), self.completions.path())
    }

    /// Removes the key from an endpoint's text, in case the endpoint repeats it.
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

/// Returns the message of an error in the formats of OpenAI's API and compatible ones.
fn error_text(body: &str) -> String {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let text =
        parsed["error"]["message"].as_str().or(parsed["error"].as_str()).or(parsed["message"].as_str()).unwrap_or(body);
    truncate(text, MAX_ERROR_BODY).into_owned()
}

/// Builds an answer in OpenAI's shape.
fn complete_answer(text: String, answered: CompletedAnswer) -> Value {
    let CompletedAnswer { ending, tool_calls, .. } = answered;
    let calls: Vec<_> = tool_calls
        .iter()
        .map(|call| {
            json!({
                "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.arguments },
            })
        })
        .collect();
    let mut message = json!({ "role": "assistant", "content": text });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let mut answer = json!({
        "id": new_id("chatcmpl"),
        "created": Stamp::now().unix_seconds(),
        "choices": [{ "index": 0, "message": message, "finish_reason": ending.finish_reason }],
    });
    if let Some(usage) = ending.usage {
        answer["usage"] = json!({
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        });
    }
    answer
}

/// An answer that is being read.
pub struct AnswerStream<'a> {
    relay: &'a Relay,
    response: Response,
    reader: Reader,
    parser: Parser,
    /// Received bytes that are not parsed yet.
    body: Bytes,
    /// The received bytes of an answer that is not streamed.
    complete_body: BytesMut,
    /// Whether the answer is an event stream; `None` until that is known.
    has_events: Option<bool>,
    /// Whether the body has ended.
    is_over: bool,
}

/// A piece of an answer.
pub enum AnswerPiece {
    /// A piece of the text.
    Text(String),
    /// The end.
    End(CompletedAnswer),
}

impl AnswerStream<'_> {
    /// Waits for the next piece. Must not be called after the end.
    pub async fn next(&mut self) -> Result<AnswerPiece, ApiError> {
        loop {
            if self.has_events()? {
                if let Some(piece) = self.read_events()? {
                    return Ok(piece);
                }
            } else if self.is_over {
                return self.read_complete();
            }
            match self.response.chunk().await.map_err(|error| self.relay.unreadable(&error))? {
                Some(chunk) if self.has_events == Some(false) => self.complete_body.extend_from_slice(&chunk),
                Some(chunk) if self.body.is_empty() => self.body = chunk,
                Some(chunk) => self.body = [&self.body[..], &chunk].concat().into(),
                None => self.is_over = true,
            }
            if self.complete_body.len() > MAX_ANSWER {
                return Err(self.relay.fault(&Fault::TooLarge("it", MAX_ANSWER)));
            }
        }
    }

    /// Returns whether the answer is known to be an event stream.
    fn has_events(&mut self) -> Result<bool, ApiError> {
        if self.has_events.is_none() {
            self.body.advance(sse::leading_blank(&self.body));
            match sse::detect_format(&self.body) {
                BodyFormat::Events => self.has_events = Some(true),
                BodyFormat::Other => {
                    self.has_events = Some(false);
                    self.complete_body = std::mem::take(&mut self.body).into();
                }
                BodyFormat::Unknown => {}
            }
        }
        Ok(self.has_events == Some(true))
    }

    /// Parses the received events.
    fn read_events(&mut self) -> Result<Option<AnswerPiece>, ApiError> {
        loop {
            let read = self.parser.next(&mut self.body);
            let (read, is_last) = match read {
                None if self.is_over => (self.parser.finish(), true),
                read => (read, false),
            };
            let Some(read) = read else {
                return if is_last { self.end(false).map(Some) } else { Ok(None) };
            };
            let progress = self.reader.read(read, is_last).map_err(|fault| self.relay.fault(&fault))?;
            match progress {
                Progress::Text(text) => return Ok(Some(AnswerPiece::Text(text))),
                Progress::Nothing => {}
                Progress::Done => return self.end(true).map(Some),
            }
        }
    }

    /// Reads the answer of an endpoint that doesn't stream although it was asked to.
    fn read_complete(&mut self) -> Result<AnswerPiece, ApiError> {
        if self.complete_body.is_empty() && self.body.is_empty() {
            return self.end(true);
        }
        // An answer too short to be classified is still in `body`.
        let mut body = std::mem::take(&mut self.complete_body);
        body.extend_from_slice(&std::mem::take(&mut self.body));
        match self.reader.whole(&body).map_err(|fault| self.relay.fault(&fault))? {
            Progress::Text(text) => Ok(AnswerPiece::Text(text)),
            Progress::Nothing | Progress::Done => self.end(true),
        }
    }

    fn end(&mut self, said: bool) -> Result<AnswerPiece, ApiError> {
        let answered = std::mem::take(&mut self.reader).end_with_tools(said);
        answered.map(AnswerPiece::End).map_err(|fault| self.relay.fault(&fault))
    }
}
