//! The bodies of requests, as the official Python SDK (`unique-sdk` 2026.44.2) sends them. Fields without a value are
//! omitted, never null.

use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::completion::number;
use crate::{
    CompletionRequest, Hit, MessageChange, ModelMessage, NewStep, Query, Reference, Result, SearchKind, StepChange,
    StepStatus, StreamTarget,
};

/// `POST /message-log`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StepCreate<'a> {
    message_id: &'a str,
    text: &'a str,
    status: StepStatus,
    order: u32,
}

impl<'a> From<&'a NewStep> for StepCreate<'a> {
    fn from(step: &'a NewStep) -> Self {
        Self { message_id: &step.message_id, text: &step.text, status: step.status, order: step.order }
    }
}

/// `PATCH /message-log/{id}`.
#[derive(Serialize)]
pub(super) struct StepUpdate<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StepStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<WireReference<'a>>,
}

impl<'a> From<&'a StepChange> for StepUpdate<'a> {
    fn from(change: &'a StepChange) -> Self {
        Self {
            text: change.text.as_deref(),
            status: change.status,
            details: present(&change.details),
            references: references(&change.references),
        }
    }
}

/// `POST /messages`. Of the times, the platform accepts only `completedAt` here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageCreate<'a> {
    pub(super) chat_id: &'a str,
    pub(super) assistant_id: &'a str,
    pub(super) role: &'static str,
    #[serde(flatten)]
    pub(super) content: MessageContent<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) completed_at: Option<&'a str>,
}

/// `PATCH /messages/{id}`, and `POST /messages/{id}/event`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageUpdate<'a> {
    chat_id: &'a str,
    #[serde(flatten)]
    content: MessageContent<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_streaming_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_streaming_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<&'a str>,
}

impl<'a> MessageUpdate<'a> {
    pub(super) fn new(chat_id: &'a str, content: MessageContent<'a>) -> Self {
        Self { chat_id, content, started_streaming_at: None, stopped_streaming_at: None, completed_at: None }
    }

    /// Sets the start and the end of streaming to the same time.
    pub(super) fn streamed_at(self, time: &'a str) -> Self {
        Self { started_streaming_at: Some(time), stopped_streaming_at: Some(time), ..self }
    }

    /// Sets the completion time.
    pub(super) fn completed_at(self, time: &'a str) -> Self {
        Self { completed_at: Some(time), ..self }
    }
}

/// The content of a message, without its times.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageContent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<WireReference<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    debug_info: Option<&'a Value>,
}

impl<'a> From<&'a str> for MessageContent<'a> {
    fn from(text: &'a str) -> Self {
        Self { text: Some(text), ..Self::default() }
    }
}

impl<'a> From<&'a MessageChange> for MessageContent<'a> {
    fn from(change: &'a MessageChange) -> Self {
        Self {
            text: change.text.as_deref(),
            references: references(&change.references),
            debug_info: present(&change.debug_info),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireReference<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    sequence_number: u32,
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    original_index: &'a [u32],
    source_id: &'a str,
    source: &'a str,
}

fn references<'a>(references: &'a [Reference]) -> Vec<WireReference<'a>> {
    let out = |reference: &'a Reference| {
        let Reference { name, description, url, sequence_number, original_index, source_id, source } = reference;
        WireReference {
            name,
            // The platform rejects an empty one, and the SDK removes it too.
            description: description.as_deref().filter(|text| !text.is_empty()),
            url: url.as_deref(),
            sequence_number: *sequence_number,
            original_index,
            source_id,
            source,
        }
    };
    references.iter().map(out).collect()
}

/// `POST /search/search`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SearchRequest<'a> {
    search_string: &'a str,
    search_type: SearchKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    scope_ids: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    content_ids: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    chat_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reranker: Option<Reranker<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta_data_filter: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score_threshold: Option<Number>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reranker<'a> {
    deployment_name: &'a str,
}

impl<'a> SearchRequest<'a> {
    pub(super) fn new(chat_id: Option<&'a str>, query: &'a Query) -> Result<Self> {
        Ok(Self {
            search_string: &query.text,
            search_type: query.kind,
            chat_id,
            scope_ids: &query.scope_ids,
            content_ids: &query.content_ids,
            chat_only: query.chat_only,
            limit: query.limit,
            page: query.page,
            language: query.language.as_deref(),
            reranker: query.reranker.as_deref().map(|deployment_name| Reranker { deployment_name }),
            meta_data_filter: present(&query.metadata_filter),
            score_threshold: query.score_threshold.map(|score| number("score threshold", score)).transpose()?,
        })
    }
}

/// `POST /openai/chat/completions`.
#[derive(Serialize)]
pub(super) struct CompletionCreate<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: &'a [ModelMessage],
    #[serde(skip_serializing_if = "Map::is_empty")]
    options: Map<String, Value>,
    /// In milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
}

impl<'a> CompletionCreate<'a> {
    /// Converts a request. `default_model` is for requests that name none.
    pub(super) fn new(request: &'a CompletionRequest, default_model: Option<&'a str>) -> Result<Self> {
        let timeout = request.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        Ok(Self {
            model: request.model.as_deref().or(default_model),
            messages: &request.messages,
            options: request.model_options()?,
            timeout,
        })
    }
}

/// `POST /integrated/chat/stream-completions`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StreamCreate<'a> {
    chat_id: &'a str,
    assistant_id: &'a str,
    user_message_id: &'a str,
    assistant_message_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search_context: Vec<ContextItem<'a>>,
    #[serde(flatten)]
    completion: CompletionCreate<'a>,
}

/// A passage that the model may cite as `[sourceN]`, counted from 0. The pages are a part of the reference's name, so
/// they are sent if they are known, as Unique's Python toolkit does.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContextItem<'a> {
    id: &'a str,
    chunk_id: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_page: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_page: Option<i32>,
}

impl<'a> StreamCreate<'a> {
    pub(super) fn new(target: &'a StreamTarget, sources: &'a [Hit], completion: CompletionCreate<'a>) -> Self {
        let item = |hit: &'a Hit| ContextItem {
            id: &hit.id,
            chunk_id: &hit.chunk_id,
            // The platform requires this name. The title and the id replace a missing key.
            key: hit.key.as_deref().or(hit.title.as_deref()).unwrap_or(&hit.id),
            title: hit.title.as_deref(),
            url: hit.url.as_deref(),
            start_page: hit.start_page,
            end_page: hit.end_page,
        };
        Self {
            chat_id: &target.chat_id,
            assistant_id: &target.assistant_id,
            user_message_id: &target.user_message_id,
            assistant_message_id: &target.assistant_message_id,
            search_context: sources.iter().map(item).collect(),
            completion,
        }
    }
}

/// Returns the value, unless it is missing or null.
fn present(value: &Option<Value>) -> Option<&Value> {
    value.as_ref().filter(|value| !value.is_null())
}
