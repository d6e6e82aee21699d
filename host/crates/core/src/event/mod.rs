//! The event and its parts, shared by all crates.
//!
//! A source creates an [`Event`] from verified input of a platform. From then on the event is the only authority on
//! user, company, chat and message: their ids are read from the event and never from a guest.

pub mod body;
pub mod event_filter;
mod subject;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::json;
use subject::{Ids, ParsedPayload};
pub use subject::{MessageFinalized, ModuleChosen, Subject, UserMessage, UserMessageCreated};

/// A name from `modules.toml`: of a source, a tenant or a module. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the full name of a source or module that a tenant's own file calls `local`: `tenant/local`.
    #[must_use]
    pub fn within(tenant: &Self, local: &str) -> Self {
        Self(format!("{tenant}{}{local}", Self::SEPARATOR).into())
    }

    /// Separates the tenant from the local name in a full name.
    pub const SEPARATOR: char = '/';
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

/// Something that happened on a platform, verified by the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The source, the tenant and the platform's ids.
    pub header: Header,
    /// The parsed payload.
    pub subject: Subject,
    ids: Ids,
    parse_error: Option<String>,
    /// The body as it was delivered and signed, with unknown fields.
    raw: Bytes,
    /// The byte range of the payload in the body's JSON.
    payload: Range<usize>,
    /// The payload as strict JSON, if that differs from the bytes in the body.
    strict_payload: Option<Arc<str>>,
    /// The event id that earlier versions of the host computed, if it differs.
    earlier_id: Option<String>,
}

/// The source and the tenant of an event, and the platform's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The platform's id of the event. A redelivery has the same id.
    pub id: String,
    /// The configured source that received it.
    pub source: Name,
    /// The platform's name of the event: `unique.chat.external-module.chosen`.
    pub name: String,
    /// The tenant it belongs to.
    pub tenant: Name,
    /// The platform's id of the user.
    pub user_id: Option<String>,
    /// The platform's id of the user's company.
    pub company_id: Option<String>,
    /// The platform's time of the event, in seconds since 1970.
    pub created_at: Option<u64>,
}

impl std::ops::Deref for Event {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl Event {
    /// Creates an event from a verified body. `payload` is the byte range of the payload in the body's JSON, which is
    /// the body itself or the JSON that a form contains.
    ///
    /// A payload of an unknown shape is not an error: the subject is [`Subject::Other`], [`Event::parse_error`] returns
    /// the reason, and the ids that can be read are available.
    pub fn new(header: Header, raw: Bytes, payload: Range<usize>) -> Self {
        let json = body::json(&raw);
        let is_form = matches!(json, Cow::Owned(_));
        let read = json::Value::read(json.get(payload.clone()).unwrap_or_default());
        let (parsed, strict_payload) = match read {
            Ok(value) => {
                let strict = value.to_strict();
                // Don't store a second copy of a payload whose bytes in the body are strict JSON.
                let is_in_raw = matches!(strict, Cow::Borrowed(_)) && !is_form;
                (subject::read(&header.name, value), (!is_in_raw).then(|| strict.into()))
            }
            Err(error) => {
                let parse_error = Some(format!("it is not JSON: {error}"));
                (ParsedPayload { subject: Subject::Other, ids: Ids::default(), parse_error }, Some("null".into()))
            }
        };
        drop(json);
        let ParsedPayload { subject, ids, parse_error } = parsed;
        Self { header, subject, ids, parse_error, raw, payload, strict_payload, earlier_id: None }
    }

    /// Sets the id that earlier versions of the host computed for the event: they may have recorded it under that id.
    #[must_use]
    pub fn with_earlier_id(mut self, id: Option<String>) -> Self {
        self.earlier_id = id;
        self
    }

    /// Returns the event id that earlier versions of the host computed, if it differs.
    pub fn earlier_id(&self) -> Option<&str> {
        self.earlier_id.as_deref()
    }

    /// Returns the body as it was delivered and signed.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Returns the byte range of the payload in the body's JSON.
    pub fn payload_range(&self) -> Range<usize> {
        self.payload.clone()
    }

    /// Returns the complete payload as JSON that every parser accepts.
    pub fn payload(&self) -> &str {
        if let Some(payload) = &self.strict_payload {
            return payload;
        }
        let bytes = self.raw.get(self.payload.clone()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or("null")
    }

    /// Returns why the payload could not be parsed; `None` if it was parsed or its kind is unknown.
    pub fn parse_error(&self) -> Option<&str> {
        self.parse_error.as_deref()
    }

    /// Returns the module that the event names, if its kind names one.
    pub fn module(&self) -> Option<&str> {
        self.ids.module.as_deref()
    }

    /// The name of events that choose a module.
    pub const MODULE_CHOSEN: &str = subject::MODULE_CHOSEN;

    /// Returns whether events of this kind go to a single module, even if the module's name could not be read.
    pub fn is_for_one_module(&self) -> bool {
        self.name == Self::MODULE_CHOSEN
    }

    /// Returns the chat in which the event happened, if any.
    pub fn chat_id(&self) -> Option<&str> {
        self.ids.chat.as_deref()
    }

    /// Returns the assistant (space, virtual employee) that the event names, if any.
    pub fn assistant_id(&self) -> Option<&str> {
        self.ids.assistant.as_deref()
    }

    /// Returns the id of the empty assistant message that the platform created for the reply, if any.
    pub fn assistant_message_id(&self) -> Option<&str> {
        self.ids.assistant_message.as_deref()
    }
}

/// The id of a delivery, a hash of source, tenant, event id and module: every host computes the same one. Cheap to
/// clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(Arc<str>);

impl DeliveryId {
    /// The tenant that every new host starts with. The ids of its deliveries don't include the tenant, as in versions
    /// without tenants, so that the ids stay the same, and with them the random numbers that modules draw.
    const FIRST_TENANT: &str = "default";

    /// Computes the id of an event's delivery to a module. The tenant is part of it, because two tenants of one source
    /// may have events with the same id; the tenant `default` is left out.
    ///
    /// A delivery on disk keeps the id it has there; ids are never recomputed.
    pub fn new(event: &Event, module: &Name) -> Self {
        let tenant = Some(event.tenant.as_str()).filter(|tenant| *tenant != Self::FIRST_TENANT);
        let mut hash = Sha256::new();
        // Each part is prefixed with its length, so that different parts never hash the same bytes.
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

    /// Wraps an id from the journal or from user input. A delivery with this id need not exist.
    pub fn from_text(text: impl AsRef<str>) -> Self {
        Self(text.as_ref().into())
    }

    /// Returns the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Appends bytes as lower-case hex. Writes to an existing string to avoid an allocation, because every guest call
/// formats some.
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
    fn hashes_every_part_of_a_delivery_id() {
        let parts = ["a", "b", "ab", "default", "a@b"];
        let mut ids = HashSet::new();
        for source in parts {
            for tenant in parts {
                for id in parts {
                    for module in parts {
                        let id = DeliveryId::new(&event(source, tenant, id), &module.into());
                        assert!(ids.insert(id), "{source} {tenant} {module}");
                    }
                }
            }
        }
    }
}
