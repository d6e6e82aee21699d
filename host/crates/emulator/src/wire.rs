//! The platform's objects on the wire, with the names and spelling of the official Python SDK.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

/// A JSON object of unspecified shape.
pub type Object = Map<String, Value>;

/// A point in time, serialized in RFC 3339 with milliseconds and `Z`. Parsed with any offset, or as UTC without one, as
/// Python's `datetime.now().isoformat()` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(Timestamp);

impl Stamp {
    /// Returns the current time.
    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// Returns whole seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }
}

impl From<Timestamp> for Stamp {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let with_offset = text.parse::<Timestamp>();
        let in_utc = || Ok::<_, jiff::Error>(text.parse::<DateTime>()?.to_zoned(TimeZone::UTC)?.timestamp());
        with_offset
            .or_else(|_| in_utc())
            .map(Self)
            .map_err(|_| de::Error::custom(format!("{text:?} is not a time in RFC 3339 (2026-01-31T09:30:00Z)")))
    }
}

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Instructions that are not part of the chat.
    System,
    /// A person.
    User,
    /// A module or a model.
    Assistant,
}

/// A source cited by a message or a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// The text for the user.
    pub name: String,
    /// A description; an empty one is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "none_if_empty")]
    pub description: Option<String>,
    /// Where the user can open it.
    #[serde(default)]
    pub url: Option<String>,
    /// The number displayed.
    pub sequence_number: i64,
    /// The indexes in the list of sources it was made from.
    #[serde(default)]
    pub original_index: Option<Vec<i64>>,
    /// The id of the source.
    pub source_id: String,
    /// The kind of source.
    pub source: String,
}

fn none_if_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// The link from a message to the message in another chat that it was sent for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Correlation {
    /// The message it was sent for.
    pub parent_message_id: String,
    /// The chat of that message.
    pub parent_chat_id: String,
    /// The assistant of that chat.
    pub parent_assistant_id: String,
}

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// `msg_…`.
    pub id: String,
    /// The chat.
    pub chat_id: String,
    /// The author.
    pub role: Role,
    /// The text; `None` for an assistant message that has no text yet.
    pub text: Option<String>,
    /// The original text, if the platform changed it.
    pub original_text: Option<String>,
    /// The cited sources.
    pub references: Vec<Reference>,
    /// Information for debugging.
    pub debug_info: Option<Object>,
    /// The request to a language model that produced it.
    pub gpt_request: Option<Value>,
    /// The message in another chat it was sent for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Correlation>,
    /// When the text became final.
    pub completed_at: Option<Stamp>,
    /// When it was created.
    pub created_at: Stamp,
    /// When it was last changed.
    pub updated_at: Stamp,
    /// When streaming started.
    pub started_streaming_at: Option<Stamp>,
    /// When streaming stopped.
    pub stopped_streaming_at: Option<Stamp>,
}

impl Message {
    /// Creates a message with the current time.
    pub fn new(chat_id: &str, role: Role, text: Option<String>) -> Self {
        let now = Stamp::now();
        Self {
            id: new_id("msg"),
            chat_id: chat_id.to_owned(),
            role,
            original_text: text.clone().filter(|_| role == Role::User),
            text,
            references: Vec::new(),
            debug_info: None,
            gpt_request: None,
            correlation: None,
            completed_at: None,
            created_at: now,
            updated_at: now,
            started_streaming_at: None,
            stopped_streaming_at: None,
        }
    }
}

/// A message in the form of `/messages`.
#[derive(Debug, Serialize)]
pub struct MessageAnswer {
    object: &'static str,
    #[serde(flatten)]
    message: Message,
}

impl From<Message> for MessageAnswer {
    fn from(message: Message) -> Self {
        Self { object: "message", message }
    }
}

/// A message in the form of `/space`.
#[derive(Debug, Serialize)]
pub struct SpaceMessage {
    #[serde(flatten)]
    message: Message,
    /// Assessments by people or models; always empty.
    assessment: [Value; 0],
}

impl From<Message> for SpaceMessage {
    fn from(message: Message) -> Self {
        Self { message, assessment: [] }
    }
}

/// The status of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StepStatus {
    /// Shown with a spinner.
    Running,
    /// Done.
    Completed,
    /// Failed.
    Failed,
    /// Canceled.
    Cancelled,
}

/// A step under a message: an entry of its message log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `message_log_…`.
    pub id: String,
    /// The message it belongs to.
    pub message_id: String,
    /// The status.
    pub status: StepStatus,
    /// The text for the user.
    pub text: String,
    /// Details; the module chooses the shape.
    pub details: Object,
    /// Sources found but not cited.
    pub uncited_references: Object,
    /// The position among the steps of the message.
    pub order: i64,
    /// Sources the step found.
    pub references: Vec<Reference>,
    /// When it was created.
    pub created_at: Stamp,
    /// When it was last changed.
    pub updated_at: Stamp,
}

/// A list in the form of the SDK's `ListObject`.
#[derive(Debug, Serialize)]
pub struct List<T> {
    object: &'static str,
    url: &'static str,
    data: Vec<T>,
    has_more: bool,
}

impl<T> List<T> {
    /// Creates a list without further pages, at this path.
    pub fn single_page(url: &'static str, data: Vec<T>) -> Self {
        Self { object: "list", url, data, has_more: false }
    }
}

/// Returns a new id with the platform's format: `msg_k3…`.
pub fn new_id(kind: &str) -> String {
    let letters = std::iter::repeat_with(|| fastrand::char('a'..='z')).take(24);
    format!("{kind}_{}", letters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_times_with_and_without_offset_and_writes_utc() {
        for (sent, kept) in [
            ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00.000Z"),
            ("2026-01-31T09:30:00.123456+02:00", "2026-01-31T07:30:00.123Z"),
            ("2026-01-31T09:30:00.5", "2026-01-31T09:30:00.500Z"),
        ] {
            let stamp: Stamp = serde_json::from_value(sent.into()).unwrap();
            assert_eq!(serde_json::to_value(stamp).unwrap(), kept, "{sent}");
        }
        assert!(serde_json::from_value::<Stamp>("tomorrow".into()).is_err());
    }
}
