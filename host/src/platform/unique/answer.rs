//! The bodies of answers, as the official Python SDK (`unique-sdk` 2026.44.2) documents them, read leniently: unknown
//! fields are skipped, missing and null ones are none or empty, and a number may come as a string.

use serde::Deserialize;
use serde_json::Value;

use crate::platform::{self, Role, lenient};

/// Anything that was made: what matters is its id.
#[derive(Deserialize)]
pub(super) struct Made {
    pub(super) id: String,
}

/// A message.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    role: Option<String>,
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    references: Vec<Reference>,
    #[serde(default, deserialize_with = "lenient::text")]
    created_at: Option<String>,
}

impl Message {
    /// The message; `id` is what it is called where it doesn't say. None if nobody knows.
    pub(super) fn into_message(self, id: Option<&str>) -> Option<platform::Message> {
        Some(platform::Message {
            id: self.id.or_else(|| id.map(str::to_owned))?,
            role: role(self.role.as_deref()),
            text: self.text,
            references: self.references.into_iter().map(Reference::into_reference).collect(),
            created_at: self.created_at,
        })
    }
}

/// Who wrote a message. A role nobody knows yet is taken for the assistant's: nobody should take it for a person's
/// words, and still less for instructions.
fn role(name: Option<&str>) -> Role {
    match name {
        Some(name) if name.eq_ignore_ascii_case("user") => Role::User,
        Some(name) if name.eq_ignore_ascii_case("system") => Role::System,
        _ => Role::Assistant,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    description: Option<String>,
    url: Option<String>,
    #[serde(default, deserialize_with = "lenient::integer")]
    sequence_number: Option<u32>,
    #[serde(default, deserialize_with = "lenient::list")]
    original_index: Vec<u32>,
    #[serde(default, deserialize_with = "lenient::text")]
    source_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    source: Option<String>,
}

impl Reference {
    fn into_reference(self) -> platform::Reference {
        platform::Reference {
            name: self.name.unwrap_or_default(),
            description: self.description,
            url: self.url,
            sequence_number: self.sequence_number.unwrap_or_default(),
            original_index: self.original_index,
            source_id: self.source_id.unwrap_or_default(),
            source: self.source.unwrap_or_default(),
        }
    }
}

/// A list object: a page of messages.
#[derive(Deserialize)]
pub(super) struct MessagePage {
    // Not optional: without it, it is no list.
    #[serde(deserialize_with = "lenient::list")]
    pub(super) data: Vec<Message>,
    #[serde(default, deserialize_with = "lenient::flag", alias = "hasMore")]
    pub(super) has_more: bool,
}

/// The hits of a search: a bare list.
#[derive(Deserialize)]
pub(super) struct Hits(#[serde(deserialize_with = "lenient::list")] Vec<Hit>);

impl Hits {
    pub(super) fn into_hits(self) -> Vec<platform::Hit> {
        self.0.into_iter().map(Hit::into_hit).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hit {
    id: String,
    #[serde(default, deserialize_with = "lenient::text")]
    chunk_id: Option<String>,
    text: Option<String>,
    title: Option<String>,
    key: Option<String>,
    url: Option<String>,
    #[serde(default, deserialize_with = "lenient::integer")]
    order: Option<u32>,
    #[serde(default, deserialize_with = "lenient::integer")]
    start_page: Option<i32>,
    #[serde(default, deserialize_with = "lenient::integer")]
    end_page: Option<i32>,
    metadata: Option<Value>,
}

impl Hit {
    fn into_hit(self) -> platform::Hit {
        platform::Hit {
            id: self.id,
            chunk_id: self.chunk_id.unwrap_or_default(),
            text: self.text.unwrap_or_default(),
            title: self.title,
            key: self.key,
            url: self.url,
            order: self.order.unwrap_or_default(),
            start_page: self.start_page,
            end_page: self.end_page,
            metadata: self.metadata,
        }
    }
}

/// A completion, in OpenAI's shape.
#[derive(Deserialize)]
pub(super) struct Completion {
    choices: Vec<Choice>,
    usage: Option<lenient::Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: ChoiceMessage,
    #[serde(alias = "finishReason")]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct ChoiceMessage {
    content: Option<String>,
}

impl Completion {
    /// The first choice; none if there is no choice.
    pub(super) fn into_completion(self) -> Option<platform::Completion> {
        let usage = self.usage.and_then(lenient::Usage::into_usage);
        let choice = self.choices.into_iter().next()?;
        let text = choice.message.content.unwrap_or_default();
        Some(platform::Completion { text, finish_reason: choice.finish_reason, usage })
    }
}

/// What a streamed completion ends in: the message as it was written.
#[derive(Deserialize)]
pub(super) struct StreamResult {
    message: Message,
    usage: Option<lenient::Usage>,
}

impl StreamResult {
    pub(super) fn into_completion(self) -> platform::Completion {
        let text = self.message.text.unwrap_or_default();
        platform::Completion { text, finish_reason: None, usage: self.usage.and_then(lenient::Usage::into_usage) }
    }
}
