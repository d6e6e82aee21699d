//! NexusGPT events, as the NexusGPT webhook documentation describes them.
//!
//! ```no_run
//! use modhost_sdk::nexus::{MessageFinalized, Sender, Status};
//! use modhost_sdk::prelude::*;
//!
//! modhost_sdk::module!(answer);
//!
//! fn answer(event: MessageFinalized) -> Result<()> {
//!     // Messages from virtual employees arrive as events, too.
//!     if event.sender == Sender::User && event.status == Status::Processed {
//!         messages::create(format!("You said: {}", event.content)).complete()?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! On NexusGPT, a module can only write text messages to the event's thread, with
//! [`messages::create`](crate::messages::create). Every other platform call returns
//! [`Unsupported`](crate::ErrorKind::Unsupported).

use serde::{Deserialize, Serialize};

use crate::event::{Event, FromEvent};
use crate::failure::Result;
use crate::json::Json;

/// The maximum length of a message to a thread, in UTF-16 code units, as JavaScript counts them. The host doesn't send
/// longer messages.
///
/// ```
/// use modhost_sdk::nexus::MESSAGE_LIMIT;
///
/// fn fits(text: &str) -> bool {
///     text.encode_utf16().count() <= MESSAGE_LIMIT
/// }
/// # assert!(fits("Hello"));
/// ```
pub const MESSAGE_LIMIT: usize = 4000;

/// A message in a thread is finalized (`MESSAGE_FINALIZED`), from a person or a virtual employee.
///
/// ```
/// use modhost_sdk::nexus::MessageFinalized;
/// use modhost_sdk::{Event, FromEvent, json};
///
/// let event = Event::new("MESSAGE_FINALIZED", json!({
///     "id": "m_1", "chatId": "thread_1", "senderType": "USER", "status": "PROCESSED", "content": "Hello",
///     "priority": "high",
/// }));
/// let message = MessageFinalized::from_event(event)?;
/// assert_eq!(message.content, "Hello");
/// // The payload contains fields that this type doesn't have.
/// let payload: serde_json::Value = message.payload.parse()?;
/// assert_eq!(payload["priority"], "high");
/// # Ok::<(), modhost_sdk::Failure>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MessageFinalized {
    /// The message's id. A message that is changed later arrives again as another event.
    pub id: String,
    /// The thread, for information only: the host writes to no other thread.
    pub chat_id: String,
    /// The kind of sender.
    pub sender: Sender,
    /// The id of the person who wrote the message, if a person wrote it.
    pub user_sender_id: Option<String>,
    /// The id of the virtual employee that wrote the message or received it.
    pub virtual_sender_id: Option<String>,
    /// The text; empty if the message has none.
    pub content: String,
    /// The platform's `type` of the message.
    pub kind: Option<String>,
    /// Whether the message is complete.
    pub status: Status,
    /// When the message was written, in the platform's time format (RFC 3339).
    pub created_at: Option<String>,
    /// When the message was last changed.
    pub updated_at: Option<String>,
    /// The attached files, each in the platform's own shape.
    pub files: Vec<Json>,
    /// The plan of a virtual employee, in the platform's own shape.
    pub execution_plan: Option<Json>,
    /// The complete payload in the platform's own JSON.
    pub payload: Json,
}

/// The kind of sender of a message.
///
/// ```
/// use modhost_sdk::nexus::Sender;
///
/// assert_eq!(Sender::from("USER".to_owned()), Sender::User);
/// assert_eq!(Sender::from("SYSTEM".to_owned()), Sender::Other("SYSTEM".to_owned()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String")]
pub enum Sender {
    /// A person.
    User,
    /// A virtual employee, or a module that writes for it.
    VirtualEmployee,
    /// Any other sender, in the platform's terms.
    Other(String),
}

impl From<String> for Sender {
    fn from(name: String) -> Self {
        match name.as_str() {
            "USER" => Self::User,
            "VIRTUAL_EMPLOYEE" => Self::VirtualEmployee,
            _ => Self::Other(name),
        }
    }
}

/// Whether a message is complete.
///
/// ```
/// use modhost_sdk::nexus::Status;
///
/// assert_eq!(Status::from("IN_PROGRESS".to_owned()), Status::InProgress);
/// assert_eq!(Status::from("FAILED".to_owned()), Status::Other("FAILED".to_owned()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String")]
pub enum Status {
    /// The message is complete.
    Processed,
    /// The message is still being written.
    InProgress,
    /// Any other status, in the platform's terms.
    Other(String),
}

impl From<String> for Status {
    fn from(name: String) -> Self {
        match name.as_str() {
            "PROCESSED" => Self::Processed,
            "IN_PROGRESS" => Self::InProgress,
            _ => Self::Other(name),
        }
    }
}

const MESSAGE_FINALIZED: &str = "MESSAGE_FINALIZED";

impl FromEvent for MessageFinalized {
    fn from_event(event: Event) -> Result<Self> {
        if event.name != MESSAGE_FINALIZED {
            return Err(event.unexpected(MESSAGE_FINALIZED));
        }
        let message: Payload = event.read()?;
        let virtual_sender_id = message.virtual_sender.and_then(|sender| sender.id).or(message.virtual_sender_id);
        let content_of_json = message.content_json.and_then(|json| json["content"].as_str().map(str::to_owned));
        Ok(Self {
            id: message.id,
            chat_id: message.chat_id,
            sender: message.sender_type,
            user_sender_id: message.user_sender_id,
            virtual_sender_id,
            content: message.content.filter(|text| !text.is_empty()).or(content_of_json).unwrap_or_default(),
            kind: message.kind,
            status: message.status,
            created_at: message.created_at,
            updated_at: message.updated_at,
            files: message.files.unwrap_or_default().into_iter().map(Json::from).collect(),
            execution_plan: message.execution_plan.map(Json::from),
            payload: event.payload,
        })
    }
}

/// The payload. Fields are optional if the platform's documentation says so, or if most modules don't need them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    id: String,
    chat_id: String,
    sender_type: Sender,
    user_sender_id: Option<String>,
    virtual_sender: Option<VirtualSender>,
    virtual_sender_id: Option<String>,
    content: Option<String>,
    content_json: Option<serde_json::Value>,
    #[serde(rename = "type")]
    kind: Option<String>,
    status: Status,
    created_at: Option<String>,
    updated_at: Option<String>,
    files: Option<Vec<serde_json::Value>>,
    execution_plan: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct VirtualSender {
    id: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::failure::Retry;

    fn read(payload: Value) -> Result<MessageFinalized> {
        MessageFinalized::from_event(Event::new(MESSAGE_FINALIZED, payload))
    }

    fn complete() -> Value {
        json!({
            "id": "m_1",
            "chatId": "thread_1",
            "senderType": "VIRTUAL_EMPLOYEE",
            "virtualSender": { "id": "employee_1", "name": "Nova" },
            "content": "Good morning",
            "contentJson": { "content": "Good morning" },
            "type": "TEXT",
            "status": "PROCESSED",
            "createdAt": "2026-01-02T03:04:05.000Z",
            "updatedAt": "2026-01-02T03:04:06.000Z",
            "files": [{ "name": "a.pdf" }],
            "executionPlan": { "steps": 2 },
        })
    }

    #[test]
    fn parses_all_fields() {
        let message = read(complete()).unwrap();
        assert_eq!((message.id.as_str(), message.chat_id.as_str()), ("m_1", "thread_1"));
        assert_eq!((message.sender, message.status), (Sender::VirtualEmployee, Status::Processed));
        assert_eq!(message.virtual_sender_id.as_deref(), Some("employee_1"));
        assert_eq!(message.user_sender_id, None);
        assert_eq!((message.content.as_str(), message.kind.as_deref()), ("Good morning", Some("TEXT")));
        assert_eq!(message.updated_at.as_deref(), Some("2026-01-02T03:04:06.000Z"));
        assert_eq!(message.files[0].as_str(), r#"{"name":"a.pdf"}"#);
        assert_eq!(message.execution_plan.unwrap().as_str(), r#"{"steps":2}"#);
        assert_eq!(message.payload.parse::<Value>().unwrap(), complete());
    }

    #[test]
    fn accepts_missing_fields_and_unknown_values() {
        let message = read(json!({
            "id": "m_1", "chatId": "thread_1", "senderType": "SYSTEM", "status": "QUEUED",
            "virtualSender": null, "virtualSenderId": "employee_2", "content": null, "files": null, "mood": "sunny",
        }))
        .unwrap();
        assert_eq!(message.sender, Sender::Other("SYSTEM".into()));
        assert_eq!(message.status, Status::Other("QUEUED".into()));
        assert_eq!(message.virtual_sender_id.as_deref(), Some("employee_2"));
        assert_eq!((message.content.as_str(), message.files.len()), ("", 0));
    }

    #[test]
    fn falls_back_to_the_text_in_the_json_content() {
        let mut payload = complete();
        payload["content"] = "".into();
        payload["contentJson"] = json!({ "content": "Hello", "blocks": [] });
        assert_eq!(read(payload).unwrap().content, "Hello");
        let mut payload = complete();
        payload["contentJson"] = json!([1]);
        assert_eq!(read(payload).unwrap().content, "Good morning");
    }

    #[test]
    fn malformed_payload_fails_and_names_the_event() {
        for (field, detail) in [("chatId", "missing field `chatId`"), ("status", "missing field `status`")] {
            let mut payload = complete();
            payload.as_object_mut().unwrap().remove(field);
            let failure = read(payload).unwrap_err();
            let start = "cannot parse the payload of event `MESSAGE_FINALIZED` (evt_1): ";
            assert!(failure.reason.starts_with(start) && failure.reason.contains(detail), "{failure}");
            assert_eq!(failure.retry, Retry::No);
        }
        assert!(read(json!([])).is_err());
        assert!(read(json!(null)).is_err());
        let other = MessageFinalized::from_event(Event::new("document.failed", complete())).unwrap_err();
        assert!(other.reason.contains("`document.failed`"), "{other}");
    }
}
