//! The platform's objects as they are on the wire, named and spelt as the official Python SDK reads and sends them.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

/// A JSON object whose shape the platform leaves open.
pub type Object = Map<String, Value>;

/// A point in time, written in RFC 3339 with milliseconds and `Z`. Read with any offset, and without one as UTC:
/// `datetime.now().isoformat()` in Python writes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(Timestamp);

impl Stamp {
    /// The present.
    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// Whole seconds since 1970.
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
        with_offset.or_else(|_| in_utc()).map(Self).map_err(|_| {
            de::Error::custom(format!("{text:?} is not a time as RFC 3339 writes it (2026-01-31T09:30:00Z)"))
        })
    }
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Instructions nobody wrote in the chat.
    System,
    /// A person.
    User,
    /// A module or a model.
    Assistant,
}

/// A source that a message or a step names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// What the user reads.
    pub name: String,
    /// More about it; an empty one is left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "none_if_empty")]
    pub description: Option<String>,
    /// Where it can be opened.
    #[serde(default)]
    pub url: Option<String>,
    /// The number it is shown with.
    pub sequence_number: i64,
    /// The places in the list of sources it was made from.
    #[serde(default)]
    pub original_index: Option<Vec<i64>>,
    /// The id of what it points to.
    pub source_id: String,
    /// The kind of source.
    pub source: String,
}

fn none_if_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// What links a message to the one in another chat it was sent for.
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
    /// The chat it stands in.
    pub chat_id: String,
    /// Who wrote it.
    pub role: Role,
    /// What it says; an assistant message nobody filled yet says nothing.
    pub text: Option<String>,
    /// What was written, where the platform made something else of it.
    pub original_text: Option<String>,
    /// The sources it names.
    pub references: Vec<Reference>,
    /// For people who look for mistakes.
    pub debug_info: Option<Object>,
    /// What was sent to a language model for it.
    pub gpt_request: Option<Value>,
    /// The message in another chat it was sent for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Correlation>,
    /// When its text was final.
    pub completed_at: Option<Stamp>,
    /// When it was made.
    pub created_at: Stamp,
    /// When it was last changed.
    pub updated_at: Stamp,
    /// When its text began to appear.
    pub started_streaming_at: Option<Stamp>,
    /// When no more text was to come.
    pub stopped_streaming_at: Option<Stamp>,
}

impl Message {
    /// A message that was written just now.
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

/// A message as `/messages` answers with it.
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

/// A message as `/space` answers with it.
#[derive(Debug, Serialize)]
pub struct SpaceMessage {
    #[serde(flatten)]
    message: Message,
    /// What people or models thought of it: nobody assesses here, so always empty.
    assessment: [Value; 0],
}

impl From<Message> for SpaceMessage {
    fn from(message: Message) -> Self {
        Self { message, assessment: [] }
    }
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StepStatus {
    /// Shown with a spinner.
    Running,
    /// Done.
    Completed,
    /// Ended without its result.
    Failed,
    /// Given up.
    Cancelled,
}

/// A step under a message: an entry of its message log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `message_log_…`.
    pub id: String,
    /// The message it stands under.
    pub message_id: String,
    /// How far it is.
    pub status: StepStatus,
    /// What the user reads.
    pub text: String,
    /// Details in a shape of the module's choice.
    pub details: Object,
    /// Sources that were found and not named.
    pub uncited_references: Object,
    /// Its place among the steps of the message.
    pub order: i64,
    /// Sources the step found.
    pub references: Vec<Reference>,
    /// When it was made.
    pub created_at: Stamp,
    /// When it was last changed.
    pub updated_at: Stamp,
}

/// A list as the SDK's `ListObject` reads it.
#[derive(Debug, Serialize)]
pub struct List<T> {
    object: &'static str,
    url: &'static str,
    data: Vec<T>,
    has_more: bool,
}

impl<T> List<T> {
    /// A list that is all there is, at this path.
    pub fn whole(url: &'static str, data: Vec<T>) -> Self {
        Self { object: "list", url, data, has_more: false }
    }
}

/// A new id of a kind, in the platform's form: `msg_k3…`.
pub fn new_id(kind: &str) -> String {
    let letters = std::iter::repeat_with(|| fastrand::char('a'..='z')).take(24);
    format!("{kind}_{}", letters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_offset_and_written_in_utc() {
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
