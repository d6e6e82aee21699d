//! What the host understands of the payloads it knows.
//!
//! Shapes as in Unique's webhook documentation and in the models of its Python toolkit; where the two differ (`chatid`
//! and `chatId`) both are taken. `MESSAGE_FINALIZED` as in NexusGPT's documentation of its webhooks.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The name of events that choose a module.
pub(super) const MODULE_CHOSEN: &str = "unique.chat.external-module.chosen";
const USER_MESSAGE_CREATED: &str = "unique.chat.user-message.created";
const MESSAGE_FINALIZED: &str = "MESSAGE_FINALIZED";

/// What the host understood of an event's payload.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A user's message chose a module to answer it.
    ModuleChosen(ModuleChosen),
    /// A user wrote a message.
    UserMessageCreated(UserMessageCreated),
    /// A message of a NexusGPT thread is there. Only the host knows this one: to a module it is [`Subject::Other`], since
    /// the contract promises that it learns of no further kinds.
    MessageFinalized(MessageFinalized),
    /// Anything else: the payload has it all.
    Other,
}

/// `unique.chat.external-module.chosen`: a user's message chose a module to answer it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleChosen {
    /// The module's name on the platform: what deliveries are routed by.
    pub name: String,
    /// What the module's owner wrote about it.
    pub description: String,
    /// The module's settings in this assistant, a JSON object.
    pub configuration: Arc<str>,
    /// The chat the message stands in.
    pub chat_id: String,
    /// The assistant (space) the chat belongs to.
    pub assistant_id: String,
    /// The message that asks.
    pub user_message: UserMessage,
    /// The empty message the platform shows under it, to be filled.
    pub assistant_message_id: String,
}

/// The message of a user that chose a module.
#[derive(Clone, Debug, PartialEq)]
pub struct UserMessage {
    /// The platform's id of the message.
    pub id: String,
    /// What the platform makes of what the user wrote.
    pub text: String,
    /// What the user wrote, where the platform changed it.
    pub original_text: Option<String>,
    /// The language the platform believes it to be in, as a BCP 47 tag.
    pub language: Option<String>,
    /// When it was written, as the platform writes times (RFC 3339).
    pub created_at: String,
}

/// `unique.chat.user-message.created`: a user wrote a message.
#[derive(Clone, Debug, PartialEq)]
pub struct UserMessageCreated {
    /// The chat the message stands in.
    pub chat_id: String,
    /// The assistant (space) the chat belongs to.
    pub assistant_id: String,
    /// What the user wrote.
    pub text: String,
}

/// `MESSAGE_FINALIZED`: a person or a virtual employee wrote into a NexusGPT thread. What the host needs of it.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageFinalized {
    /// The thread.
    pub chat_id: String,
    /// The virtual employee, where the message says which.
    pub assistant_id: Option<String>,
}

impl Subject {
    /// Reads the payload of an event with this name.
    pub(super) fn of(name: &str, payload: &str) -> Result<Self, serde_json::Error> {
        match name {
            MODULE_CHOSEN => {
                serde_json::from_str::<ChosenPayload>(payload).map(|payload| Self::ModuleChosen(payload.into()))
            }
            USER_MESSAGE_CREATED => serde_json::from_str::<CreatedPayload>(payload).map(|payload| {
                Self::UserMessageCreated(UserMessageCreated {
                    chat_id: payload.chat_id,
                    assistant_id: payload.assistant_id,
                    text: payload.text,
                })
            }),
            MESSAGE_FINALIZED => {
                serde_json::from_str::<FinalizedPayload>(payload).map(|payload| Self::MessageFinalized(payload.into()))
            }
            _ => Ok(Self::Other),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChosenPayload<'a> {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, borrow)]
    configuration: Option<&'a RawValue>,
    #[serde(alias = "chatid")]
    chat_id: String,
    assistant_id: String,
    user_message: UserMessagePayload,
    assistant_message: AssistantMessagePayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserMessagePayload {
    id: String,
    text: String,
    #[serde(default)]
    original_text: Option<String>,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
}

#[derive(Deserialize)]
struct AssistantMessagePayload {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreatedPayload {
    #[serde(alias = "chatid")]
    chat_id: String,
    assistant_id: String,
    text: String,
}

/// Without the thread nothing can be done; without the virtual employee, answering can.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FinalizedPayload {
    chat_id: String,
    #[serde(default)]
    virtual_sender: Value,
    #[serde(default)]
    virtual_sender_id: Value,
}

impl From<FinalizedPayload> for MessageFinalized {
    fn from(payload: FinalizedPayload) -> Self {
        let id = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            chat_id: payload.chat_id,
            assistant_id: id(&payload.virtual_sender["id"]).or_else(|| id(&payload.virtual_sender_id)),
        }
    }
}

impl From<ChosenPayload<'_>> for ModuleChosen {
    fn from(payload: ChosenPayload<'_>) -> Self {
        let message = payload.user_message;
        Self {
            name: payload.name,
            description: payload.description.unwrap_or_default(),
            configuration: payload.configuration.map_or("{}", RawValue::get).into(),
            chat_id: payload.chat_id,
            assistant_id: payload.assistant_id,
            user_message: UserMessage {
                id: message.id,
                text: message.text,
                original_text: message.original_text,
                language: message.language,
                created_at: message.created_at.unwrap_or_default(),
            },
            assistant_message_id: payload.assistant_message.id,
        }
    }
}
