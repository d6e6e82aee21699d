//! Events that the host delivers to a module.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::modhost::module::events as wit;
use crate::failure::{Failure, Result};
use crate::json::Json;

/// An event on a platform, verified by the host.
///
/// A module with this argument type receives all kinds of events that `events` names in `modules.toml`.
///
/// ```no_run
/// use modhost_sdk::prelude::*;
/// use modhost_sdk::info;
///
/// modhost_sdk::module!(answer);
///
/// fn answer(event: Event) -> Result<()> {
///     match event.subject {
///         Subject::ModuleChosen(chosen) => {
///             messages::reply(format!("Hello from {}", chosen.name)).complete()?;
///         }
///         Subject::UserMessageCreated(message) => info!("a user wrote {}", message.text),
///         Subject::Other => {
///             let payload: serde_json::Value = event.payload.parse()?;
///             info!("payload of {}: {payload}", event.name);
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// The platform's id of the event.
    pub id: String,
    /// The name of the source that received the event, as in `modules.toml`.
    pub source: String,
    /// The event's name on the platform, such as `unique.chat.external-module.chosen`.
    pub name: String,
    /// When the event happened, as the platform reports it, in seconds since 1970.
    pub created_at: Option<u64>,
    /// The attempt number of this delivery, from 1.
    pub attempt: u32,
    /// The event as the host parsed it.
    pub subject: Subject,
    /// The complete payload in the platform's own JSON, whatever `subject` is.
    pub payload: Json,
}

/// An event as the host parsed it.
///
/// ```
/// use modhost_sdk::Subject;
///
/// fn text(subject: &Subject) -> Option<&str> {
///     match subject {
///         Subject::ModuleChosen(chosen) => Some(&chosen.user_message.text),
///         Subject::UserMessageCreated(created) => Some(&created.text),
///         Subject::Other => None,
///     }
/// }
/// # assert_eq!(text(&Subject::Other), None);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A user's message chose this module.
    ModuleChosen(ModuleChosen),
    /// A user wrote a message.
    UserMessageCreated(UserMessageCreated),
    /// Any other event: read [`Event::name`] and [`Event::payload`].
    Other,
}

/// A user's message chose this module to answer it (`unique.chat.external-module.chosen`).
///
/// ```no_run
/// use modhost_sdk::prelude::*;
///
/// fn answer(event: ModuleChosen) -> Result<()> {
///     messages::reply(format!("You said: {}", event.user_message.text)).complete()?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModuleChosen {
    /// The module's name on the platform.
    pub name: String,
    /// The description the module's owner wrote on the platform.
    pub description: String,
    /// The module's settings in this assistant, an object; [`config`](crate::config) reads them key by key.
    pub configuration: Json,
    /// The chat, for information only: the host acts on no other chat.
    pub chat_id: String,
    /// The assistant (space) the chat belongs to.
    pub assistant_id: String,
    /// The message to answer.
    pub user_message: UserMessage,
    /// The empty message shown below the user's message; [`messages::reply`](crate::messages::reply) fills it.
    pub assistant_message_id: String,
}

/// A message from a user who chose the module.
///
/// ```
/// use modhost_sdk::UserMessage;
///
/// fn as_typed(message: &UserMessage) -> &str {
///     message.original_text.as_deref().unwrap_or(&message.text)
/// }
/// # let message = UserMessage {
/// #     id: "m".into(), text: "t".into(), original_text: None, language: None, created_at: String::new(),
/// # };
/// # assert_eq!(as_typed(&message), "t");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UserMessage {
    /// The platform's id of the message.
    pub id: String,
    /// The text to answer.
    pub text: String,
    /// The text as the user wrote it, if the platform changed it (for example, rewrote it as a search query).
    pub original_text: Option<String>,
    /// The language the platform detected in the text, as a BCP 47 tag.
    pub language: Option<String>,
    /// When the message was written, in the platform's time format (RFC 3339).
    pub created_at: String,
}

/// A user wrote a message (`unique.chat.user-message.created`). It has no reply to fill.
///
/// ```
/// use modhost_sdk::prelude::*;
/// use modhost_sdk::info;
///
/// fn note(event: UserMessageCreated) -> Result<()> {
///     info!("chat {}: {}", event.chat_id, event.text);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UserMessageCreated {
    /// The chat it was written in.
    pub chat_id: String,
    /// The assistant (space) the chat belongs to.
    pub assistant_id: String,
    /// The text the user wrote.
    pub text: String,
}

/// A type that a module's function can take as its argument: see [`module!`](crate::module!).
///
/// Implement it for the events of another platform:
///
/// ```
/// use modhost_sdk::prelude::*;
/// use modhost_sdk::FromEvent;
///
/// #[derive(serde::Deserialize)]
/// struct InvoicePaid {
///     invoice: String,
/// }
///
/// impl FromEvent for InvoicePaid {
///     fn from_event(event: Event) -> Result<Self> {
///         match event.name.as_str() {
///             "invoice.paid" => event.read(),
///             _ => Err(event.unexpected("invoice.paid")),
///         }
///     }
/// }
///
/// modhost_sdk::module!(answer);
///
/// fn answer(event: InvoicePaid) -> Result<()> {
///     modhost_sdk::info!("{} is paid", event.invoice);
///     Ok(())
/// }
/// ```
pub trait FromEvent: Sized {
    /// Converts the event.
    ///
    /// # Errors
    ///
    /// If the event is of another kind (usually [`Event::unexpected`]), or its payload can't be parsed.
    ///
    /// ```
    /// # use modhost_sdk::{Event, FromEvent, ModuleChosen, json};
    /// let event = Event::new("document.failed", json!({}));
    /// assert!(ModuleChosen::from_event(event).is_err());
    /// ```
    fn from_event(event: Event) -> Result<Self>;
}

impl FromEvent for Event {
    fn from_event(event: Event) -> Result<Self> {
        Ok(event)
    }
}

impl FromEvent for ModuleChosen {
    fn from_event(event: Event) -> Result<Self> {
        match event.subject {
            Subject::ModuleChosen(chosen) => Ok(chosen),
            _ => Err(event.unexpected("unique.chat.external-module.chosen")),
        }
    }
}

impl FromEvent for UserMessageCreated {
    fn from_event(event: Event) -> Result<Self> {
        match event.subject {
            Subject::UserMessageCreated(created) => Ok(created),
            _ => Err(event.unexpected("unique.chat.user-message.created")),
        }
    }
}

impl Event {
    /// Creates an event with [`Subject::Other`], for tests of your module.
    ///
    /// ```
    /// use modhost_sdk::archivus::DocumentFailed;
    /// use modhost_sdk::{Event, FromEvent, json};
    ///
    /// let event = Event::new("document.failed", json!({ "document_id": "doc_1", "error": "it is encrypted" }));
    /// assert_eq!(DocumentFailed::from_event(event)?.error, "it is encrypted");
    /// # Ok::<(), modhost_sdk::Failure>(())
    /// ```
    pub fn new(name: impl Into<String>, payload: impl Into<Json>) -> Self {
        Self {
            id: "evt_1".to_owned(),
            source: "test".to_owned(),
            name: name.into(),
            created_at: None,
            attempt: 1,
            subject: Subject::Other,
            payload: payload.into(),
        }
    }

    /// Deserializes the payload into your own type.
    ///
    /// # Errors
    ///
    /// If the payload doesn't fit the type. The failure names the event.
    ///
    /// ```
    /// # use modhost_sdk::{Event, json};
    /// #[derive(Debug, serde::Deserialize)]
    /// struct InvoicePaid {
    ///     invoice: String,
    /// }
    ///
    /// let event = Event::new("invoice.paid", json!({ "invoice": 17 }));
    /// let failure = event.read::<InvoicePaid>().unwrap_err();
    /// assert!(failure.reason.contains("`invoice.paid`"));
    /// ```
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        self.payload.parse().map_err(|error| {
            let Self { name, id, .. } = self;
            Failure::new(format!("cannot parse the payload of event `{name}` ({id}): {error}"))
        })
    }

    /// Returns the failure for an event that the module can't handle: an event of another kind, or an event of the
    /// expected kind whose payload the host couldn't parse. It asks for no retry.
    ///
    /// ```
    /// # use modhost_sdk::{Event, Retry, json};
    /// let failure = Event::new("document.failed", json!({})).unexpected("document.processed");
    /// assert!(failure.reason.contains("document.failed"));
    /// assert_eq!(failure.retry, Retry::No);
    /// ```
    pub fn unexpected(&self, expected: &str) -> Failure {
        if self.name == expected {
            return Failure::new(format!(
                "the host couldn't parse the payload of event `{}` ({}); its log names the field. A module that takes \
                 `Event` can read the payload itself.",
                self.name, self.id
            ));
        }
        Failure::new(format!(
            "this module doesn't handle event `{}` ({}); it handles `{expected}`. List only that event under `events` of \
             the module in modules.toml.",
            self.name, self.id
        ))
    }
}

impl From<wit::Event> for Event {
    fn from(event: wit::Event) -> Self {
        Self {
            id: event.id,
            source: event.source,
            name: event.name,
            created_at: event.created_at,
            attempt: event.attempt,
            subject: event.subject.into(),
            payload: Json::from_host(event.payload),
        }
    }
}

impl From<wit::Subject> for Subject {
    fn from(subject: wit::Subject) -> Self {
        match subject {
            wit::Subject::ModuleChosen(chosen) => Self::ModuleChosen(chosen.into()),
            wit::Subject::UserMessageCreated(created) => Self::UserMessageCreated(created.into()),
            wit::Subject::Other => Self::Other,
        }
    }
}

impl From<wit::ModuleChosen> for ModuleChosen {
    fn from(chosen: wit::ModuleChosen) -> Self {
        Self {
            name: chosen.name,
            description: chosen.description,
            configuration: Json::from_host(chosen.configuration),
            chat_id: chosen.chat_id,
            assistant_id: chosen.assistant_id,
            user_message: chosen.user_message.into(),
            assistant_message_id: chosen.assistant_message_id,
        }
    }
}

impl From<wit::UserMessage> for UserMessage {
    fn from(message: wit::UserMessage) -> Self {
        Self {
            id: message.id,
            text: message.text,
            original_text: message.original_text,
            language: message.language,
            created_at: message.created_at,
        }
    }
}

impl From<wit::UserMessageCreated> for UserMessageCreated {
    fn from(created: wit::UserMessageCreated) -> Self {
        Self { chat_id: created.chat_id, assistant_id: created.assistant_id, text: created.text }
    }
}
