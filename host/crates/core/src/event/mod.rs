//! The event and its parts: the vocabulary everyone shares.
//!
//! A source makes an [`Event`] out of what a platform delivered, after it verified it. From then on the event is
//! the only authority on who is acted for: user, company, chat and message ids are read from here and never from
//! a guest.

pub mod body;
pub mod interest;
mod subject;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::json;
use subject::{Ids, Reading};
pub use subject::{MessageFinalized, ModuleChosen, Subject, UserMessage, UserMessageCreated};

/// A name out of `modules.toml`: of a source, a tenant or a module. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Something that happened on a platform, verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Where it comes from and whose it is.
    pub header: Header,
    /// What the host understood of the payload.
    pub subject: Subject,
    ids: Ids,
    flaw: Option<String>,
    /// The body as it was delivered and signed, unknown fields and all.
    raw: Bytes,
    /// Where in the body's JSON the payload stands.
    payload: Range<usize>,
    /// The payload as it is handed on, where that is not what stands there.
    handed_on: Option<Arc<str>>,
    /// The id that earlier versions gave the event, if it was another.
    earlier_id: Option<String>,
}

/// Where an event comes from and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The platform's id of the event; a redelivery carries the same one.
    pub id: String,
    /// The configured source it came through.
    pub source: Name,
    /// What happened, in the platform's words: `unique.chat.external-module.chosen`.
    pub name: String,
    /// The tenant it belongs to.
    pub tenant: Name,
    /// The user it happened to, in the platform's ids.
    pub user_id: Option<String>,
    /// The company of that user, in the platform's ids.
    pub company_id: Option<String>,
    /// When the platform says it happened, in seconds since 1970.
    pub created_at: Option<u64>,
}

impl std::ops::Deref for Event {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl Event {
    /// An event out of a verified body, in whose JSON the payload stands at `payload`. The body is that JSON, or a form that
    /// holds it.
    ///
    /// A payload in a shape that is not known is no error: the subject is [`Subject::Other`] then, [`Event::flaw`] says why,
    /// and the ids that can be read are known all the same.
    pub fn new(header: Header, raw: Bytes, payload: Range<usize>) -> Self {
        let json = body::json(&raw);
        let is_form = matches!(json, Cow::Owned(_));
        let read = json::Value::read(json.get(payload.clone()).unwrap_or_default());
        let (reading, handed_on) = match read {
            Ok(value) => {
                let strict = value.to_strict();
                // A payload that is strict already is not kept twice.
                let is_as_written = matches!(strict, Cow::Borrowed(_)) && !is_form;
                (subject::read(&header.name, value), (!is_as_written).then(|| strict.into()))
            }
            Err(error) => {
                let flaw = Some(format!("it is not JSON: {error}"));
                (Reading { subject: Subject::Other, ids: Ids::default(), flaw }, Some("null".into()))
            }
        };
        drop(json);
        let Reading { subject, ids, flaw } = reading;
        Self { header, subject, ids, flaw, raw, payload, handed_on, earlier_id: None }
    }

    /// Names the id that earlier versions gave the event: they may have recorded it under that one.
    #[must_use]
    pub fn with_earlier_id(mut self, id: Option<String>) -> Self {
        self.earlier_id = id;
        self
    }

    /// The id that earlier versions gave the event, if it was another.
    pub fn earlier_id(&self) -> Option<&str> {
        self.earlier_id.as_deref()
    }

    /// The body as it was delivered and signed.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Where in the body's JSON the payload stands.
    pub fn payload_range(&self) -> Range<usize> {
        self.payload.clone()
    }

    /// The source's own JSON of the payload, whole, written so that every parser takes it.
    pub fn payload(&self) -> &str {
        if let Some(payload) = &self.handed_on {
            return payload;
        }
        let bytes = self.raw.get(self.payload.clone()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or("null")
    }

    /// Why the payload was not understood, if its kind is known and it wasn't.
    pub fn flaw(&self) -> Option<&str> {
        self.flaw.as_deref()
    }

    /// The module the event names, if it is of a kind that names one.
    pub fn module(&self) -> Option<&str> {
        self.ids.module.as_deref()
    }

    /// The name of events that choose a module.
    pub const MODULE_CHOSEN: &str = subject::MODULE_CHOSEN;

    /// Whether the event is of a kind that is for one module alone, whether or not it could be read which.
    pub fn chooses(&self) -> bool {
        self.name == Self::MODULE_CHOSEN
    }

    /// The chat the event happened in, if it happened in one.
    pub fn chat_id(&self) -> Option<&str> {
        self.ids.chat.as_deref()
    }

    /// The assistant (space, virtual employee) the event happened in, if it names one.
    pub fn assistant_id(&self) -> Option<&str> {
        self.ids.assistant.as_deref()
    }

    /// The assistant message that waits to be filled, if the event brought one.
    pub fn assistant_message_id(&self) -> Option<&str> {
        self.ids.assistant_message.as_deref()
    }
}

/// The id of a delivery: the same for the same event and module, whenever and wherever it is made. Cheap to
/// clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(Arc<str>);

impl DeliveryId {
    /// The tenant every new host begins with. Its deliveries have the ids they always had, and with them the random numbers
    /// their modules draw.
    const FIRST_TENANT: &str = "default";

    /// The id of an event's delivery to a module. The tenant is a part of it, as two tenants behind one source may have
    /// events of the same id; of [the first](Self::FIRST_TENANT) it is as it was when no tenant was.
    ///
    /// What is on disk keeps the id it has there, and is never computed again.
    pub fn new(event: &Event, module: &Name) -> Self {
        let tenant = Some(event.tenant.as_str()).filter(|tenant| *tenant != Self::FIRST_TENANT);
        let mut hash = Sha256::new();
        // Each part after its length, so that other parts, or more of them, make another text.
        for part in [Some(event.source.as_str()), tenant, Some(&event.id), Some(module.as_str())].into_iter().flatten()
        {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut id = String::with_capacity(28);
        id.push_str("dlv_");
        push_hex(&mut id, &hash.finalize()[..12]);
        Self(id.into())
    }

    /// An id as it was written down or typed; it need not be one that exists.
    pub fn from_text(text: impl AsRef<str>) -> Self {
        Self(text.as_ref().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Appends bytes to a text, two digits each; without a text of their own, as each call of a guest has some.
pub fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn event(source: &str, tenant: &str, id: &str) -> Event {
        let header = Header {
            id: id.to_owned(),
            source: source.into(),
            name: "test".into(),
            tenant: tenant.into(),
            user_id: None,
            company_id: None,
            created_at: None,
        };
        Event::new(header, Bytes::from_static(b"{}"), 0..2)
    }

    #[test]
    fn every_part_of_a_delivery_id_counts_wherever_it_stands() {
        let words = ["a", "b", "ab", "default", "a@b"];
        let mut ids = HashSet::new();
        for source in words {
            for tenant in words {
                for id in words {
                    for module in words {
                        let id = DeliveryId::new(&event(source, tenant, id), &module.into());
                        assert!(ids.insert(id), "{source} {tenant} {module}");
                    }
                }
            }
        }
    }
}
