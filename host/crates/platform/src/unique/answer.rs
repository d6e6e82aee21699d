//! The bodies of answers, as the official Python SDK (`unique-sdk` 2026.44.2) documents them. They are parsed
//! leniently: unknown fields are ignored, missing and null fields are `None` or empty, and a number may be a string.
//!
//! A malformed item of a list affects only itself: a lone surrogate becomes U+FFFD, a field of another type is `None`,
//! an item that is not an object is skipped, and a missing id is empty. [`Repairs`] counts these repairs for the log
//! and the metrics. Only a list without a single usable item is an error.

use crate::chat_completion::{self, Fault};
use crate::{Completion, Hit, Message, Reference, Role};
use modhost_core::json::{Fields, Kind, Value};
use modhost_core::metrics;

/// The parsed answer, or the reason why it can't be parsed.
type Parsed<T> = Result<T, &'static str>;

/// The repairs that were needed to parse an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Repairs {
    /// Texts with invalid Unicode.
    texts: u64,
    /// Fields of another type than documented, which are ignored.
    fields: u64,
    /// Items without an id.
    ids: u64,
    /// Items that are skipped.
    items: u64,
}

impl Repairs {
    /// Logs and counts the repairs. `answer` is the kind of the answer.
    pub(super) fn report(self, answer: &'static str) {
        let Self { texts, fields, ids, items } = self;
        let kinds = [("text", texts), ("field", fields), ("id", ids), ("item", items)];
        for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
            metrics::platform_answer_repaired(answer, kind, count);
        }
        if kinds.iter().any(|(_, count)| *count > 0) {
            tracing::warn!(answer, texts, fields, ids, items, "platform answer repaired");
        }
    }

    /// Returns a field's text.
    fn text(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        let value = fields.get(name)?;
        let text = value.text_or_number();
        match &text {
            None => self.fields += 1,
            Some(text) => self.texts += u64::from(text.is_lossy),
        }
        Some(text?.text.into_owned())
    }

    /// Returns a field's integer.
    fn integer<T: TryFrom<i64>>(&mut self, fields: &Fields<'_>, name: &str) -> Option<T> {
        let value = fields.get(name)?;
        let integer = value.integer();
        self.fields += u64::from(integer.is_none());
        integer
    }

    /// Returns a field's list. A missing one is empty.
    fn list<'a>(&mut self, fields: &Fields<'a>, name: &str) -> Vec<Value<'a>> {
        let Some(value) = fields.get(name) else { return Vec::new() };
        value.list().unwrap_or_else(|| {
            self.fields += 1;
            Vec::new()
        })
    }

    /// Parses the items of a list. Returns `error` if there are items, but none satisfies `is_one`.
    fn items<'a, T>(
        &mut self,
        list: Vec<Value<'a>>,
        mut read: impl FnMut(&mut Self, Value<'a>) -> Option<T>,
        is_one: impl Fn(&T) -> bool,
        error: &'static str,
    ) -> Parsed<Vec<T>> {
        let is_empty = list.is_empty();
        let mut items = Vec::with_capacity(list.len());
        for value in list {
            match read(self, value) {
                Some(item) => items.push(item),
                None => self.items += 1,
            }
        }
        if is_empty || items.iter().any(is_one) { Ok(items) } else { Err(error) }
    }
}

/// Returns the id of a created object.
pub(super) fn created_id(answer: Value<'_>) -> Parsed<String> {
    Fields::of(answer, &["id"]).and_then(|fields| fields.text("id")).ok_or("it has no id")
}

/// Parses a message. `id` is the default for a missing id.
pub(super) fn message(answer: Value<'_>, id: Option<&str>, repairs: &mut Repairs) -> Parsed<Message> {
    let mut message = message_of(repairs, answer).ok_or("it is not a message")?;
    if message.id.is_empty() {
        message.id = id.ok_or("the message has no id")?.to_owned();
    }
    Ok(message)
}

fn message_of(repairs: &mut Repairs, value: Value<'_>) -> Option<Message> {
    let fields = Fields::of(value, &["id", "role", "text", "references", "createdAt"])?;
    let references = repairs.list(&fields, "references");
    let references = references.into_iter().filter_map(|value| {
        let reference = reference(repairs, value);
        repairs.items += u64::from(reference.is_none());
        reference
    });
    let references = references.collect();
    Some(Message {
        id: repairs.text(&fields, "id").unwrap_or_default(),
        role: role(fields.text("role").as_deref()),
        text: repairs.text(&fields, "text"),
        references,
        created_at: repairs.text(&fields, "createdAt"),
    })
}

/// Returns the author of a message. An unknown role counts as the assistant's, because it must not be mistaken for a
/// person's words, or for instructions.
fn role(name: Option<&str>) -> Role {
    match name {
        Some(name) if name.eq_ignore_ascii_case("user") => Role::User,
        Some(name) if name.eq_ignore_ascii_case("system") => Role::System,
        _ => Role::Assistant,
    }
}

fn reference(repairs: &mut Repairs, value: Value<'_>) -> Option<Reference> {
    let names = &["name", "description", "url", "sequenceNumber", "originalIndex", "sourceId", "source"];
    let fields = Fields::of(value, names)?;
    let original_index = repairs.list(&fields, "originalIndex").into_iter().filter_map(Value::integer).collect();
    Some(Reference {
        name: repairs.text(&fields, "name").unwrap_or_default(),
        description: repairs.text(&fields, "description"),
        url: repairs.text(&fields, "url"),
        sequence_number: repairs.integer(&fields, "sequenceNumber").unwrap_or_default(),
        original_index,
        source_id: repairs.text(&fields, "sourceId").unwrap_or_default(),
        source: repairs.text(&fields, "source").unwrap_or_default(),
    })
}

/// A page of messages.
pub(super) struct MessagePage {
    pub(super) messages: Vec<Message>,
    pub(super) has_more: bool,
}

/// Parses a page of messages. A message without an id has an empty one.
pub(super) fn message_page(answer: Value<'_>, repairs: &mut Repairs) -> Parsed<MessagePage> {
    let fields = Fields::of(answer, &["data", "has_more", "hasMore"]).ok_or("it is not an object")?;
    // Null is an empty list, but a missing field is an error.
    let data = match fields.get("data") {
        None if fields.has("data") => Vec::new(),
        data => data.and_then(Value::list).ok_or("it has no list `data`")?,
    };
    let messages = repairs.items(data, message_of, |message| !message.id.is_empty(), "a message has no id")?;
    repairs.ids += messages.iter().filter(|message| message.id.is_empty()).count() as u64;
    Ok(MessagePage { messages, has_more: fields.first(&["has_more", "hasMore"]).is_some_and(Value::is_true) })
}

/// Parses the hits of a search, a bare list. A hit without an id has an empty one, since its text may be all that the
/// module needs.
pub(super) fn hits(answer: Value<'_>, repairs: &mut Repairs) -> Parsed<Vec<Hit>> {
    let list = if answer.is_null() { Vec::new() } else { answer.list().ok_or("it is not a list")? };
    let hits = repairs.items(list, hit, |hit| !hit.id.is_empty(), "a hit has no id")?;
    repairs.ids += hits.iter().filter(|hit| hit.id.is_empty()).count() as u64;
    Ok(hits)
}

fn hit(repairs: &mut Repairs, value: Value<'_>) -> Option<Hit> {
    let names = &["id", "chunkId", "text", "title", "key", "url", "order", "startPage", "endPage", "metadata"];
    let fields = Fields::of(value, names)?;
    Some(Hit {
        id: repairs.text(&fields, "id").unwrap_or_default(),
        chunk_id: repairs.text(&fields, "chunkId").unwrap_or_default(),
        text: repairs.text(&fields, "text").unwrap_or_default(),
        title: repairs.text(&fields, "title"),
        key: repairs.text(&fields, "key"),
        url: repairs.text(&fields, "url"),
        order: repairs.integer(&fields, "order").unwrap_or_default(),
        start_page: repairs.integer(&fields, "startPage"),
        end_page: repairs.integer(&fields, "endPage"),
        metadata: fields.get("metadata").map(Value::to_json),
    })
}

/// Parses the result of a streamed completion: the message as the platform stored it.
pub(super) fn stream_result(answer: Value<'_>, repairs: &mut Repairs) -> Parsed<Result<Completion, Fault>> {
    let fields = Fields::of(answer, &["message", "toolCalls", "usage"]).ok_or("it is not an object")?;
    let message = fields.get("message").filter(|it| it.kind() == Kind::Object).ok_or("it has no message")?;
    let text = message_of(repairs, message).and_then(|message| message.text).unwrap_or_default();
    if text.is_empty() {
        // The platform stored an empty message, and doesn't report the finish reason.
        let calls = fields.get("toolCalls").and_then(Value::list).unwrap_or_default();
        let names = calls.iter().filter_map(|call| Fields::of(*call, &["name"])?.text("name")).collect();
        return Ok(Err(if calls.is_empty() { Fault::Empty } else { Fault::OnlyToolCalls(names) }));
    }
    let usage = fields.get("usage").and_then(chat_completion::usage);
    Ok(Ok(Completion { text, finish_reason: None, usage }))
}
