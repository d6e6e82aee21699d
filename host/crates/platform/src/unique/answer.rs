//! The bodies of answers, as the official Python SDK (`unique-sdk` 2026.44.2) documents them, read leniently: unknown
//! fields are skipped, missing and null ones are none or empty, and a number may come as a string.
//!
//! What is odd in one item of a list costs no more than that: half an emoji becomes U+FFFD, a field of another type is none,
//! an item that is no object is left out, and one without an id has an empty one. [`Repairs`] counts all of it, for the log
//! and the metrics. Only a list of which nothing can be read is no answer.

use crate::chat_completion::{self, Fault};
use crate::{Completion, Hit, Message, Reference, Role};
use modhost_core::json::{Fields, Kind, Value};
use modhost_core::metrics;

/// What an answer is read as; why it can't be, if it can't.
type Read<T> = Result<T, &'static str>;

/// What wasn't as it should be in an answer, and was read all the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Repairs {
    /// Texts with something in them that is not Unicode.
    texts: u64,
    /// Fields of another type than documented, which are left out.
    fields: u64,
    /// Items without an id.
    ids: u64,
    /// Items that are left out.
    items: u64,
}

impl Repairs {
    /// Tells operators; `answer` is what was read.
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

    /// A field's text.
    fn text(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        let value = fields.get(name)?;
        let text = value.text_or_number();
        match &text {
            None => self.fields += 1,
            Some(text) => self.texts += u64::from(text.is_lossy),
        }
        Some(text?.text.into_owned())
    }

    /// A field's integer.
    fn integer<T: TryFrom<i64>>(&mut self, fields: &Fields<'_>, name: &str) -> Option<T> {
        let value = fields.get(name)?;
        let integer = value.integer();
        self.fields += u64::from(integer.is_none());
        integer
    }

    /// A field's list; none is an empty one.
    fn list<'a>(&mut self, fields: &Fields<'a>, name: &str) -> Vec<Value<'a>> {
        let Some(value) = fields.get(name) else { return Vec::new() };
        value.list().unwrap_or_else(|| {
            self.fields += 1;
            Vec::new()
        })
    }

    /// Reads a list's items; an error if it has some, and none of them has what `is_one` looks for.
    fn items<'a, T>(
        &mut self,
        list: Vec<Value<'a>>,
        mut read: impl FnMut(&mut Self, Value<'a>) -> Option<T>,
        is_one: impl Fn(&T) -> bool,
        otherwise: &'static str,
    ) -> Read<Vec<T>> {
        let is_empty = list.is_empty();
        let mut items = Vec::with_capacity(list.len());
        for value in list {
            match read(self, value) {
                Some(item) => items.push(item),
                None => self.items += 1,
            }
        }
        if is_empty || items.iter().any(is_one) { Ok(items) } else { Err(otherwise) }
    }
}

/// The id of anything that was made.
pub(super) fn made(answer: Value<'_>) -> Read<String> {
    Fields::of(answer, &["id"]).and_then(|fields| fields.text("id")).ok_or("it has no id")
}

/// A message; `id` is what it is called where it doesn't say.
pub(super) fn message(answer: Value<'_>, id: Option<&str>, repairs: &mut Repairs) -> Read<Message> {
    let mut message = message_of(repairs, answer).ok_or("it is no message")?;
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

/// Who wrote a message. A role nobody knows yet is taken for the assistant's: nobody should take it for a person's
/// words, and still less for instructions.
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

/// A list object: a page of messages. One without an id has an empty one.
pub(super) fn message_page(answer: Value<'_>, repairs: &mut Repairs) -> Read<MessagePage> {
    let fields = Fields::of(answer, &["data", "has_more", "hasMore"]).ok_or("it is no object")?;
    // Null is an empty list; without it, it is no list.
    let data = match fields.get("data") {
        None if fields.has("data") => Vec::new(),
        data => data.and_then(Value::list).ok_or("it has no list `data`")?,
    };
    let messages = repairs.items(data, message_of, |message| !message.id.is_empty(), "a message has no id")?;
    repairs.ids += messages.iter().filter(|message| message.id.is_empty()).count() as u64;
    Ok(MessagePage { messages, has_more: fields.first(&["has_more", "hasMore"]).is_some_and(Value::is_true) })
}

/// The hits of a search: a bare list. A hit without an id has an empty one: its text may be what the module looks for.
pub(super) fn hits(answer: Value<'_>, repairs: &mut Repairs) -> Read<Vec<Hit>> {
    let list = if answer.is_null() { Vec::new() } else { answer.list().ok_or("it is no list")? };
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

/// What a streamed completion ends in: the message as it was written.
pub(super) fn stream_result(answer: Value<'_>, repairs: &mut Repairs) -> Read<Result<Completion, Fault>> {
    let fields = Fields::of(answer, &["message", "toolCalls", "usage"]).ok_or("it is no object")?;
    let message = fields.get("message").filter(|it| it.kind() == Kind::Object).ok_or("it has no message")?;
    let text = message_of(repairs, message).and_then(|message| message.text).unwrap_or_default();
    if text.is_empty() {
        // What the platform has written is nothing, and why the model stopped it doesn't tell.
        let calls = fields.get("toolCalls").and_then(Value::list).unwrap_or_default();
        let names = calls.iter().filter_map(|call| Fields::of(*call, &["name"])?.text("name")).collect();
        return Ok(Err(if calls.is_empty() { Fault::Empty } else { Fault::OnlyToolCalls(names) }));
    }
    let usage = fields.get("usage").and_then(chat_completion::usage);
    Ok(Ok(Completion { text, finish_reason: None, usage }))
}
