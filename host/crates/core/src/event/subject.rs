//! Parsers for the payloads that the host understands.
//!
//! Shapes follow Unique's webhook documentation and the models of its Python toolkit; where the two differ (`chatid`
//! and `chatId`), both are accepted. `MESSAGE_FINALIZED` follows NexusGPT's documentation of its webhooks.

use std::fmt;
use std::sync::Arc;

use crate::json::{Document, Kind, Value};

/// The name of events that choose a module.
pub(super) const MODULE_CHOSEN: &str = "unique.chat.external-module.chosen";
const USER_MESSAGE_CREATED: &str = "unique.chat.user-message.created";
const MESSAGE_FINALIZED: &str = "MESSAGE_FINALIZED";

/// The parsed payload of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A user's message chose a module to answer it.
    ModuleChosen(ModuleChosen),
    /// A user wrote a message.
    UserMessageCreated(UserMessageCreated),
    /// A NexusGPT thread has a new message. Modules see this as [`Subject::Other`], because the contract promises not
    /// to add kinds.
    MessageFinalized(MessageFinalized),
    /// Anything else: only the raw payload is available.
    Other,
}

/// `unique.chat.external-module.chosen`: a user's message chose a module to answer it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleChosen {
    /// The module's name on the platform, by which deliveries are routed.
    pub name: String,
    /// The description that the module's owner wrote.
    pub description: String,
    /// The module's settings in this assistant, as a JSON object.
    pub configuration: Arc<str>,
    /// The chat of the message.
    pub chat_id: String,
    /// The assistant (space) of the chat.
    pub assistant_id: String,
    /// The user's message.
    pub user_message: UserMessage,
    /// The empty message that the platform created for the reply.
    pub assistant_message_id: String,
}

/// The message of a user that chose a module.
#[derive(Clone, Debug, PartialEq)]
pub struct UserMessage {
    /// The platform's id of the message.
    pub id: String,
    /// The text, as processed by the platform.
    pub text: String,
    /// The text as the user wrote it, if the platform changed it.
    pub original_text: Option<String>,
    /// The language that the platform detected, as a BCP 47 tag.
    pub language: Option<String>,
    /// The time of the message, as the platform writes it (RFC 3339).
    pub created_at: String,
}

/// `unique.chat.user-message.created`: a user wrote a message.
#[derive(Clone, Debug, PartialEq)]
pub struct UserMessageCreated {
    /// The chat of the message.
    pub chat_id: String,
    /// The assistant (space) of the chat.
    pub assistant_id: String,
    /// The text of the message.
    pub text: String,
}

/// `MESSAGE_FINALIZED`: a person or a virtual employee wrote into a NexusGPT thread. Only the fields that the host
/// needs.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageFinalized {
    /// The thread.
    pub chat_id: String,
    /// The virtual employee, if the message names one.
    pub assistant_id: Option<String>,
}

/// The result of parsing a payload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ParsedPayload {
    /// The parsed payload.
    pub(super) subject: Subject,
    /// The ids that could be read, whatever else is wrong with the payload. With them the host can still find the
    /// module and close the user's reply.
    pub(super) ids: Ids,
    /// Why a payload of a known kind could not be parsed.
    pub(super) parse_error: Option<String>,
}

/// The ids of a payload of a known kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ids {
    /// The chosen module.
    pub(super) module: Option<String>,
    /// The chat.
    pub(super) chat: Option<String>,
    /// The assistant.
    pub(super) assistant: Option<String>,
    /// The empty message that the platform created for the reply.
    pub(super) assistant_message: Option<String>,
}

/// Parses the payload of an event with this name.
pub(super) fn read(name: &str, payload: Value<'_>) -> ParsedPayload {
    let payload = Payload(Document::new(payload));
    let (subject, ids) = match name {
        MODULE_CHOSEN => (
            payload.module_chosen().map(Subject::ModuleChosen),
            Ids {
                module: payload.id(&["name"]).ok(),
                chat: payload.id(&CHAT).ok(),
                assistant: payload.id(&["assistantId"]).ok(),
                assistant_message: payload.id(&["assistantMessage.id"]).ok(),
            },
        ),
        USER_MESSAGE_CREATED => (
            payload.user_message_created().map(Subject::UserMessageCreated),
            Ids { chat: payload.id(&CHAT).ok(), assistant: payload.id(&["assistantId"]).ok(), ..Ids::default() },
        ),
        MESSAGE_FINALIZED => (
            payload.message_finalized().map(Subject::MessageFinalized),
            Ids { chat: payload.id(&["chatId"]).ok(), assistant: payload.virtual_employee(), ..Ids::default() },
        ),
        _ => (Ok(Subject::Other), Ids::default()),
    };
    match subject {
        Ok(subject) => ParsedPayload { subject, ids, parse_error: None },
        Err(parse_error) => ParsedPayload { subject: Subject::Other, ids, parse_error: Some(parse_error.to_string()) },
    }
}

/// The fields that may contain the chat id: the toolkit's spelling, then the documentation's.
const CHAT: [&str; 2] = ["chatId", "chatid"];

/// A required field that cannot be read.
struct FieldError {
    path: &'static str,
    found: Option<Kind>,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            None => write!(f, "`{}` is missing", self.path),
            Some(Kind::Text) => write!(f, "`{}` is empty", self.path),
            Some(kind) => write!(f, "`{}` is {kind}", self.path),
        }
    }
}

struct Payload<'a>(Document<'a>);

impl<'a> Payload<'a> {
    fn find(&self, path: &str) -> Option<Value<'a>> {
        self.0.find(path.split('.')).map(|found| found.value)
    }

    /// Returns the path and value of the first of these fields that exists and is not null.
    fn first(&self, paths: &[&'static str]) -> Result<(&'static str, Value<'a>), FieldError> {
        let mut parse_error = FieldError { path: paths[0], found: None };
        for path in paths {
            match self.find(path) {
                Some(value) if value.is_null() => parse_error = FieldError { path, found: Some(Kind::Null) },
                Some(value) => return Ok((path, value)),
                None => {}
            }
        }
        Err(parse_error)
    }

    /// Returns a string.
    fn text(&self, paths: &[&'static str]) -> Result<String, FieldError> {
        let (path, value) = self.first(paths)?;
        let wrong = FieldError { path, found: Some(value.kind()) };
        value.text().map(|text| text.text.into_owned()).ok_or(wrong)
    }

    /// Returns an optional string; `None` also if the value is not a string.
    fn optional(&self, path: &'static str) -> Option<String> {
        self.text(&[path]).ok()
    }

    /// Returns an id: a non-empty string, or the digits of a number.
    fn id(&self, paths: &[&'static str]) -> Result<String, FieldError> {
        let (path, value) = self.first(paths)?;
        let id = value.text_or_number().map(|id| id.text.into_owned());
        id.filter(|id| !id.is_empty()).ok_or(FieldError { path, found: Some(value.kind()) })
    }

    /// Fields that a module cannot work without are required. Any other field of an unknown shape counts as missing.
    fn module_chosen(&self) -> Result<ModuleChosen, FieldError> {
        let configuration = self.find("configuration").filter(|value| value.kind() == Kind::Object);
        Ok(ModuleChosen {
            name: self.id(&["name"])?,
            description: self.optional("description").unwrap_or_default(),
            configuration: configuration.map_or("{}".into(), |value| value.to_strict().into()),
            chat_id: self.id(&CHAT)?,
            // The host only displays and compares this id, so an empty string is accepted.
            assistant_id: self.text(&["assistantId"]).or_else(|_| self.id(&["assistantId"]))?,
            user_message: UserMessage {
                id: self.id(&["userMessage.id"])?,
                text: self.text(&["userMessage.text"])?,
                original_text: self.optional("userMessage.originalText"),
                language: self.optional("userMessage.language"),
                created_at: self.optional("userMessage.createdAt").unwrap_or_default(),
            },
            assistant_message_id: self.id(&["assistantMessage.id"])?,
        })
    }

    fn user_message_created(&self) -> Result<UserMessageCreated, FieldError> {
        Ok(UserMessageCreated {
            chat_id: self.id(&CHAT)?,
            assistant_id: self.text(&["assistantId"]).or_else(|_| self.id(&["assistantId"]))?,
            text: self.text(&["text"])?,
        })
    }

    /// The thread is required; the virtual employee is not needed for a reply.
    fn message_finalized(&self) -> Result<MessageFinalized, FieldError> {
        Ok(MessageFinalized { chat_id: self.id(&["chatId"])?, assistant_id: self.virtual_employee() })
    }

    fn virtual_employee(&self) -> Option<String> {
        self.id(&["virtualSender.id"]).or_else(|_| self.id(&["virtualSenderId"])).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn chosen() -> Json {
        json!({
            "name": "Assistant", "description": "d", "configuration": { "a": 1 }, "chatId": "chat_1", "assistantId": "as_1",
            "userMessage": { "id": "msg_1", "text": "hello", "originalText": "Hello", "language": "en", "createdAt": "2026" },
            "assistantMessage": { "id": "msg_2", "createdAt": "2026" },
        })
    }

    fn read_json(payload: &Json) -> ParsedPayload {
        let text = payload.to_string();
        read(MODULE_CHOSEN, Value::read(text.as_bytes()).unwrap())
    }

    /// Replaces each field with values of each wrong type: the payload is parsed if the field is optional, and the
    /// other ids are read in any case.
    #[test]
    fn tolerates_malformed_fields() {
        let required = [
            "/name",
            "/chatId",
            "/assistantId",
            "/userMessage",
            "/userMessage/id",
            "/userMessage/text",
            "/assistantMessage",
            "/assistantMessage/id",
        ];
        let optional = [
            "/description",
            "/configuration",
            "/userMessage/originalText",
            "/userMessage/language",
            "/userMessage/createdAt",
            "/assistantMessage/createdAt",
        ];
        for malformed in [json!(null), json!([1]), json!(true), json!({}), json!([])] {
            for field in required.iter().chain(&optional) {
                let mut payload = chosen();
                *payload.pointer_mut(field).unwrap() = malformed.clone();
                let ParsedPayload { subject, ids, parse_error } = read_json(&payload);
                let is_understood = optional.contains(field);
                assert_eq!(matches!(subject, Subject::ModuleChosen(_)), is_understood, "{field} {malformed}");
                assert_eq!(parse_error.is_none(), is_understood, "{field} {malformed}: {parse_error:?}");
                assert_eq!(ids.module.is_some(), *field != "/name", "{field} {malformed}");
                assert_eq!(ids.chat.is_some(), *field != "/chatId", "{field} {malformed}");
                assert_eq!(
                    ids.assistant_message.is_some(),
                    !field.starts_with("/assistantMessage/id") && *field != "/assistantMessage",
                    "{field} {malformed}"
                );
                if let Subject::ModuleChosen(chosen) = subject {
                    assert!(
                        serde_json::from_str::<Json>(&chosen.configuration).unwrap().is_object(),
                        "{field} {malformed}"
                    );
                }
            }
        }
    }

    #[test]
    fn accepts_both_spellings_of_the_chat_id() {
        for (payload, chat) in [
            (json!({ "chatid": "a" }), Some("a")),
            (json!({ "chatId": null, "chatid": "a" }), Some("a")),
            (json!({ "chatId": "b", "chatid": "a" }), Some("b")),
            (json!({ "chatId": 7 }), Some("7")),
            (json!({}), None),
        ] {
            assert_eq!(read_json(&payload).ids.chat.as_deref(), chat, "{payload}");
        }
        let mut payload = chosen();
        payload["userMessage"]["text"] = Json::Null;
        assert_eq!(read_json(&payload).parse_error.unwrap(), "`userMessage.text` is null");
    }
}
