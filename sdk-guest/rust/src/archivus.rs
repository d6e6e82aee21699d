//! Archivus events, as the Archivus webhook documentation describes them.
//!
//! A module that handles one kind of event takes that type as its argument. A module that handles several kinds takes
//! [`Event`](enum@Event):
//!
//! ```no_run
//! use modhost_sdk::archivus;
//! use modhost_sdk::prelude::*;
//!
//! modhost_sdk::module!(note);
//!
//! fn note(event: archivus::Event) -> Result<()> {
//!     match event {
//!         archivus::Event::DocumentProcessed(it) => info!("{} is ready", it.document.filename),
//!         archivus::Event::DocumentFailed(it) => warn!("{} failed: {}", it.document_id, it.error),
//!         _ => {}
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Archivus has no API for replies: the tenant has `platform = { kind = "none" }` in `modules.toml`, and calls that
//! need a platform return [`Unsupported`](crate::ErrorKind::Unsupported).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{self, FromEvent};
use crate::failure::Result;
use crate::json::Json;

const DOCUMENT_PROCESSED: &str = "document.processed";
const DOCUMENT_FAILED: &str = "document.failed";
const DOCUMENT_UPLOADED: &str = "document.uploaded";
const CHAT_MESSAGE_CREATED: &str = "chat.message.created";

/// An Archivus event.
///
/// ```
/// use modhost_sdk::archivus::Event;
///
/// fn document(event: &Event) -> Option<&str> {
///     match event {
///         Event::DocumentProcessed(it) => Some(&it.document_id),
///         Event::DocumentFailed(it) => Some(&it.document_id),
///         Event::DocumentUploaded(it) => Some(&it.document_id),
///         _ => None,
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A document was processed.
    DocumentProcessed(DocumentProcessed),
    /// A document couldn't be processed.
    DocumentFailed(DocumentFailed),
    /// A document was uploaded.
    DocumentUploaded(DocumentUploaded),
    /// A message was written in a chat.
    ChatMessageCreated(ChatMessageCreated),
    /// Any other event.
    Other(event::Event),
}

/// A document was processed (`document.processed`).
///
/// ```
/// use modhost_sdk::archivus::DocumentProcessed;
/// use modhost_sdk::prelude::*;
///
/// fn note(event: DocumentProcessed) -> Result<()> {
///     info!("{}: {}", event.document.filename, event.document.ai_summary.unwrap_or_default());
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentProcessed {
    /// The document's id.
    pub document_id: String,
    /// The document.
    pub document: Document,
    /// The event's complete `data`, in the platform's own JSON.
    #[serde(skip_deserializing, default)]
    pub payload: Json,
}

/// A document on the platform.
///
/// ```
/// use modhost_sdk::archivus::Document;
///
/// fn is_about(document: &Document, tag: &str) -> bool {
///     document.ai_tags.iter().any(|known| known == tag)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The document's id.
    pub id: String,
    /// The file name.
    pub filename: String,
    /// The status, in the platform's terms.
    pub status: Option<String>,
    /// The status of the AI processing, in the platform's terms.
    pub ai_status: Option<String>,
    /// A summary by a language model.
    pub ai_summary: Option<String>,
    /// Tags by a language model.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub ai_tags: Vec<String>,
}

/// A document couldn't be processed (`document.failed`).
///
/// ```
/// use modhost_sdk::archivus::DocumentFailed;
/// use modhost_sdk::prelude::*;
///
/// fn note(event: DocumentFailed) -> Result<()> {
///     warn!("{} failed: {}", event.document_id, event.error);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentFailed {
    /// The document's id.
    pub document_id: String,
    /// The error, in the platform's terms. A value that isn't a string is given as JSON.
    #[serde(deserialize_with = "text_or_json")]
    pub error: String,
    /// The event's complete `data`, in the platform's own JSON.
    #[serde(skip_deserializing, default)]
    pub payload: Json,
}

/// A document was uploaded and isn't processed yet (`document.uploaded`).
///
/// ```
/// use modhost_sdk::archivus::DocumentUploaded;
/// use modhost_sdk::prelude::*;
///
/// fn note(event: DocumentUploaded) -> Result<()> {
///     info!("{} was uploaded", event.document_id);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentUploaded {
    /// The document's id.
    pub document_id: String,
    /// The event's complete `data`, in the platform's own JSON.
    #[serde(skip_deserializing, default)]
    pub payload: Json,
}

/// A message was written in a chat about documents (`chat.message.created`). The event doesn't contain the text.
///
/// ```
/// use modhost_sdk::archivus::ChatMessageCreated;
/// use modhost_sdk::prelude::*;
///
/// fn note(event: ChatMessageCreated) -> Result<()> {
///     info!("{} wrote in {}", event.role, event.session_id);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatMessageCreated {
    /// The chat's id.
    pub session_id: String,
    /// The message's id.
    pub message_id: String,
    /// The author's role, in the platform's terms.
    pub role: String,
    /// The id of the document that the message is about, if any.
    pub document_id: Option<String>,
    /// The event's complete `data`, in the platform's own JSON.
    #[serde(skip_deserializing, default)]
    pub payload: Json,
}

impl FromEvent for Event {
    fn from_event(event: event::Event) -> Result<Self> {
        Ok(match event.name.as_str() {
            DOCUMENT_PROCESSED => Self::DocumentProcessed(FromEvent::from_event(event)?),
            DOCUMENT_FAILED => Self::DocumentFailed(FromEvent::from_event(event)?),
            DOCUMENT_UPLOADED => Self::DocumentUploaded(FromEvent::from_event(event)?),
            CHAT_MESSAGE_CREATED => Self::ChatMessageCreated(FromEvent::from_event(event)?),
            _ => Self::Other(event),
        })
    }
}

macro_rules! from_event {
    ($($event:ident is $name:ident),* $(,)?) => {$(
        impl FromEvent for $event {
            fn from_event(event: event::Event) -> Result<Self> {
                if event.name != $name {
                    return Err(event.unexpected($name));
                }
                let read: Self = event.read()?;
                Ok(Self { payload: event.payload, ..read })
            }
        }
    )*};
}

from_event! {
    DocumentProcessed is DOCUMENT_PROCESSED,
    DocumentFailed is DOCUMENT_FAILED,
    DocumentUploaded is DOCUMENT_UPLOADED,
    ChatMessageCreated is CHAT_MESSAGE_CREATED,
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(field: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(field)?.unwrap_or_default())
}

fn text_or_json<'de, D: serde::Deserializer<'de>>(field: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(field)? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::failure::Retry;

    fn read(name: &str, data: Value) -> Result<Event> {
        Event::from_event(event::Event::new(name, data))
    }

    fn processed() -> Value {
        json!({
            "document_id": "doc_1",
            "document": {
                "id": "doc_1",
                "filename": "contract.pdf",
                "status": "processed",
                "ai_status": "completed",
                "ai_summary": "A lease of two years.",
                "ai_tags": ["lease", "2026"],
                "pages": 12,
            },
        })
    }

    #[test]
    fn parses_every_kind() {
        let Event::DocumentProcessed(event) = read(DOCUMENT_PROCESSED, processed()).unwrap() else { panic!() };
        assert_eq!((event.document_id.as_str(), event.document.filename.as_str()), ("doc_1", "contract.pdf"));
        assert_eq!(event.document.ai_summary.as_deref(), Some("A lease of two years."));
        assert_eq!(event.document.ai_tags, ["lease", "2026"]);
        // The payload contains fields that the type doesn't have.
        assert_eq!(event.payload.parse::<Value>().unwrap()["document"]["pages"], 12);

        let data = json!({ "document_id": "doc_1", "error": "the file is encrypted" });
        let Event::DocumentFailed(event) = read(DOCUMENT_FAILED, data).unwrap() else { panic!() };
        assert_eq!((event.document_id.as_str(), event.error.as_str()), ("doc_1", "the file is encrypted"));

        let Event::DocumentUploaded(event) = read(DOCUMENT_UPLOADED, json!({ "document_id": "doc_1" })).unwrap() else {
            panic!()
        };
        assert_eq!((event.document_id.as_str(), event.payload.as_str()), ("doc_1", r#"{"document_id":"doc_1"}"#));

        let data = json!({ "session_id": "s_1", "message_id": "m_1", "role": "robot", "document_id": null });
        let Event::ChatMessageCreated(event) = read(CHAT_MESSAGE_CREATED, data).unwrap() else { panic!() };
        assert_eq!((event.role.as_str(), event.document_id), ("robot", None));

        let Event::Other(event) = read("dag.task.created", json!({ "x": 1 })).unwrap() else { panic!() };
        assert_eq!((event.name.as_str(), event.payload.as_str()), ("dag.task.created", r#"{"x":1}"#));
    }

    #[test]
    fn accepts_missing_ai_fields_and_unknown_statuses() {
        let data = json!({
            "document_id": "doc_1",
            "document": { "id": "doc_1", "filename": "a.pdf", "status": "archived", "ai_summary": null, "ai_tags": null },
        });
        let Event::DocumentProcessed(event) = read(DOCUMENT_PROCESSED, data).unwrap() else { panic!() };
        let document = event.document;
        assert_eq!((document.status.as_deref(), document.ai_status), (Some("archived"), None));
        assert_eq!((document.ai_summary, document.ai_tags.len()), (None, 0));

        let data = json!({ "document_id": "doc_1", "error": { "code": 7 } });
        let Event::DocumentFailed(event) = read(DOCUMENT_FAILED, data).unwrap() else { panic!() };
        assert_eq!(event.error, r#"{"code":7}"#);
    }

    #[test]
    fn malformed_payload_fails_and_names_the_event() {
        for (name, data, detail) in [
            (DOCUMENT_PROCESSED, json!({ "document_id": "doc_1" }), "missing field `document`"),
            (DOCUMENT_FAILED, json!({ "document_id": 7, "error": "x" }), "invalid type: integer `7`"),
            (DOCUMENT_UPLOADED, json!(null), "invalid type: null"),
            (CHAT_MESSAGE_CREATED, json!({}), "missing field `session_id`"),
        ] {
            let failure = read(name, data).unwrap_err();
            let start = format!("cannot parse the payload of event `{name}` (evt_1): ");
            assert!(failure.reason.starts_with(&start) && failure.reason.contains(detail), "{failure}");
            assert_eq!(failure.retry, Retry::No);
        }
    }

    #[test]
    fn type_rejects_other_kinds() {
        let failure = DocumentFailed::from_event(event::Event::new(DOCUMENT_PROCESSED, processed())).unwrap_err();
        assert!(failure.reason.contains("it handles `document.failed`"), "{failure}");
    }
}
