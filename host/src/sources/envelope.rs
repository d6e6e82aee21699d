//! Unique AI's envelope: what an event looks like on the wire, made into an [`Event`].
//!
//! Shapes as in Unique's webhook documentation and in the models of its Python toolkit; where the two differ
//! (`chatid` and `chatId`, `createdAt` as a string and as a number) both are taken. What isn't known here is kept:
//! the payload is handed on whole.

use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::event::{Event, Header, Name};

/// An envelope that was read, before it is known whose it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope<'a> {
    id: String,
    event: String,
    #[serde(default, deserialize_with = "seconds")]
    created_at: Option<u64>,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    pub(super) company_id: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Reads a body that was verified.
pub(super) fn open(body: &[u8]) -> Result<Envelope<'_>, serde_json::Error> {
    let envelope: Envelope = serde_json::from_slice(body)?;
    // Events are told apart by their ids: without one, all would be taken for the same.
    if envelope.id.is_empty() {
        return Err(serde_json::Error::custom("`id` is empty"));
    }
    Ok(envelope)
}

impl Envelope<'_> {
    /// Makes the event of it; `raw` is the body it was read from.
    pub(super) fn into_event(self, source: Name, tenant: Name, raw: &Bytes) -> Event {
        // The payload is borrowed from the body: its place is the distance between the two.
        let start = self.payload.get().as_ptr().addr() - raw.as_ptr().addr();
        let header = Header {
            id: self.id,
            source,
            name: self.event,
            tenant,
            user_id: self.user_id,
            company_id: self.company_id,
            created_at: self.created_at,
        };
        Event::new(header, raw.clone(), start..start + self.payload.get().len())
    }
}

/// Seconds since 1970, as a number or as text; anything else is as good as nothing.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Number(f64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Option::<Seconds>::deserialize(deserializer)? {
        Some(Seconds::Number(number)) if number >= 0.0 => Some(number as u64),
        Some(Seconds::Text(text)) => text.trim().parse().ok(),
        _ => None,
    })
}
