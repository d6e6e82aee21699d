//! The events of a user's message, as described in the platform's webhook documentation.

use serde::Serialize;
use serde_json::{Value, json};
use url::Url;

use super::settings::{Assistant, USER_ID};
use super::wire::{Message, Object, Stamp, new_id};

/// The version of the payloads, in every envelope and in `X-Unique-Version`.
pub const VERSION: &str = "1.0.0";

/// The event of a user's message.
const USER_MESSAGE_CREATED: &str = "unique.chat.user-message.created";

/// The event of a message that chose a module.
const MODULE_CHOSEN: &str = "unique.chat.external-module.chosen";

/// The names of all events that the local platform sends.
pub const EVENTS: [&str; 2] = [USER_MESSAGE_CREATED, MODULE_CHOSEN];

/// An event as it is delivered.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// `evt_…`.
    pub id: String,
    version: &'static str,
    /// The name of the event.
    pub event: &'static str,
    /// Unix seconds as a string, as documented.
    created_at: String,
    user_id: &'static str,
    /// The company of the assistant.
    pub company_id: String,
    /// Where it is posted, if not to the registered endpoint.
    #[serde(skip)]
    pub endpoint: Option<Url>,
    payload: Value,
}

impl Envelope {
    fn new(assistant: &Assistant, event: &'static str, payload: Value) -> Self {
        Self {
            id: new_id("evt"),
            version: VERSION,
            event,
            created_at: Stamp::now().unix_seconds().to_string(),
            user_id: USER_ID,
            company_id: assistant.company().to_owned(),
            endpoint: assistant.tenant.as_ref().and_then(|tenant| tenant.endpoint.clone()),
            payload,
        }
    }
}

/// `unique.chat.user-message.created`: a user wrote a message.
pub fn user_message_created(assistant: &Assistant, message: &Message) -> Envelope {
    let payload = json!({ "chatId": message.chat_id, "assistantId": assistant.id, "text": message.text });
    Envelope::new(assistant, USER_MESSAGE_CREATED, payload)
}

/// `unique.chat.external-module.chosen`: the message chose the assistant's module. `choices` are the optional fields of
/// the request, under the payload's names.
pub fn module_chosen(assistant: &Assistant, question: &Message, answer: &Message, choices: Object) -> Envelope {
    let mut payload = json!({
        "name": assistant.module,
        "description": assistant.name,
        "configuration": assistant.configuration,
        "chatId": question.chat_id,
        "assistantId": assistant.id,
        "text": question.text,
        "userMessage": {
            "id": question.id,
            "text": question.text,
            "originalText": question.original_text,
            "createdAt": question.created_at,
            // Constant: the index and the shipped documents are English, and the emulator doesn't detect languages.
            "language": "en",
        },
        "assistantMessage": { "id": answer.id, "createdAt": answer.created_at },
    });
    if let Value::Object(fields) = &mut payload {
        fields.extend(choices);
    }
    Envelope::new(assistant, MODULE_CHOSEN, payload)
}
