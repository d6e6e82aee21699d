//! What an event looks like on the wire: where in a request its parts stand, read into an [`Event`].
//!
//! The body is looked through once, and what isn't asked for is passed over unread. What isn't known here is kept: the
//! body is handed on whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::schemes::Shown;
use crate::config::source::{EventParts, Part};
use crate::event::{Event, Header, Name};

/// Ids longer than this are not kept as they are, in bytes; no platform has any like it.
const LONGEST_ID: usize = 256;

/// Longer than this, in bytes, nothing is that names something: it would stand in every line of the log.
const LONGEST_TEXT: usize = 1024;

/// Times from here on nobody means, in seconds since 1970: the year 10000.
const NO_TIME_FROM: f64 = 253_402_300_800.0;

/// What stands between the parts of an id.
const BETWEEN_IDS: &str = "@";

/// What stands between the parts of a name.
const BETWEEN_NAMES: &str = ".";

/// Where in a source's requests the parts of an event stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// What tells one event from another; all of it has to be there.
    pub id: Vec<Part>,
    /// What happened; some of it has to be there. Empty: the source's own name stands for it.
    pub name: Vec<Part>,
    /// The company it belongs to, if its events name one.
    pub company: Option<Part>,
    /// The user it happened to.
    pub user: Option<Part>,
    /// When it happened.
    pub created_at: Option<Part>,
    /// The keys that lead to what the module is given; none: the body.
    pub payload: Vec<String>,
}

/// Why a verified request is no event.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    /// The body is not written in UTF-8, and so not JSON.
    #[error("the body is not JSON: it is not written in UTF-8")]
    NotText,
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// A part that has to be there isn't.
    #[error("its {what} is missing, {}", Place(.place))]
    Missing {
        /// The part.
        what: &'static str,
        /// Where it should be.
        place: Part,
    },
    /// A part is too long to be what it should be.
    #[error("its {what} is longer than {LONGEST_TEXT} bytes, {}", Place(.place))]
    TooLong {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: Part,
    },
    /// A header that a part is read from stands there more than once: which of them counts is anybody's guess.
    #[error("more than one header {}", Shown(.0))]
    TwoHeaders(HeaderName),
}

/// A body, and the headers it came with.
pub(super) struct Opened<'a> {
    headers: &'a HeaderMap,
    raw: &'a Bytes,
    /// The JSON of the body.
    whole: &'a str,
    /// The fields of the outermost object; none if it isn't one.
    fields: Fields<'a>,
}

/// The fields of an object, each with its JSON.
type Fields<'a> = HashMap<Cow<'a, str>, &'a str>;

/// A place in the body: keys with dots between them.
pub fn body(path: &str) -> Part {
    Part::Body(path.split('.').map(str::to_owned).collect())
}

/// A place in the headers.
pub fn header(name: &'static str) -> Part {
    Part::Header(HeaderName::from_static(name))
}

impl Envelope {
    /// An envelope of which nothing is known.
    pub fn whole() -> Self {
        Self {
            id: vec![Part::Hash],
            name: Vec::new(),
            company: None,
            user: None,
            created_at: None,
            payload: Vec::new(),
        }
    }

    /// The same, with what a source's settings say in place of what the scheme says.
    pub fn with(mut self, parts: &EventParts) -> Self {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        set(&mut self.id, &parts.id);
        set(&mut self.name, &parts.name);
        set(&mut self.company, &parts.company);
        set(&mut self.user, &parts.user);
        set(&mut self.created_at, &parts.created_at);
        set(&mut self.payload, &parts.payload);
        self
    }
}

impl<'a> Opened<'a> {
    /// Reads a body that was verified.
    pub(super) fn new(headers: &'a HeaderMap, raw: &'a Bytes) -> Result<Self, NotAnEvent> {
        let whole = std::str::from_utf8(raw).map_err(|_| NotAnEvent::NotText)?;
        let whole = whole.trim_matches([' ', '\t', '\r', '\n']);
        if !whole.starts_with('{') {
            serde_json::from_str::<IgnoredAny>(whole)?;
        }
        Ok(Self { headers, raw, whole, fields: fields(whole)? })
    }

    /// The text of a part that names one thing.
    pub(super) fn text(&self, part: &Part) -> Result<Option<String>, NotAnEvent> {
        Ok(match part {
            Part::Text(text) => Some(text.clone()),
            Part::Hash => Some(format!("sha256:{}", hex::encode(Sha256::digest(self.raw)))),
            Part::Header(name) => self.header(name)?,
            Part::EitherHeader(first, second) => {
                self.header(if self.headers.contains_key(first) { first } else { second })?
            }
            Part::Body(path) => self.find(path)?.and_then(scalar),
        }
        .filter(|text| !text.is_empty()))
    }

    /// The same, for what is held against a list of names and shown to people.
    fn short(&self, what: &'static str, part: &Part) -> Result<Option<String>, NotAnEvent> {
        match self.text(part)? {
            Some(text) if text.len() > LONGEST_TEXT => Err(NotAnEvent::TooLong { what, place: part.clone() }),
            text => Ok(text),
        }
    }

    fn header(&self, name: &HeaderName) -> Result<Option<String>, NotAnEvent> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(NotAnEvent::TwoHeaders(name.clone())),
            (value, None) => Ok(value.and_then(|value| value.to_str().ok()).map(str::to_owned)),
        }
    }

    /// The company the event names, if it names one.
    pub(super) fn company(&self, envelope: &Envelope) -> Result<Option<String>, NotAnEvent> {
        envelope.company.as_ref().map_or(Ok(None), |part| self.short("company", part))
    }

    /// Makes the event of it.
    pub(super) fn event(
        &self,
        envelope: &Envelope,
        source: &Name,
        tenant: Name,
        company_id: Option<String>,
    ) -> Result<Event, NotAnEvent> {
        let optional = |what, part: &Option<Part>| part.as_ref().map_or(Ok(None), |part| self.short(what, part));
        let (id, earlier_id) = self.id(&envelope.id)?;
        let header = Header {
            id,
            name: self.name(&envelope.name, source)?,
            source: source.clone(),
            tenant,
            user_id: optional("user", &envelope.user)?,
            company_id,
            created_at: optional("time", &envelope.created_at)?.and_then(|time| seconds(&time)),
        };
        let payload =
            self.find(&envelope.payload)?.ok_or_else(|| missing("payload", Part::Body(envelope.payload.clone())))?;
        // It is borrowed from the body: its place is the distance between the two.
        let start = payload.as_ptr().addr() - self.raw.as_ptr().addr();
        Ok(Event::new(header, self.raw.clone(), start..start + payload.len()).with_earlier_id(earlier_id))
    }

    /// The id, and the one that earlier versions gave the event if it was another.
    fn id(&self, parts: &[Part]) -> Result<(String, Option<String>), NotAnEvent> {
        let texts = parts.iter().map(|part| self.text(part)?.ok_or_else(|| missing("id", part.clone())));
        let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
        let joined = texts.join(BETWEEN_IDS);
        // Where a part has the separator in it, `7@8` and `9` would be joined to what `7` and `8@9` are joined to. Each part
        // has its length in front then. Without one, there are fewer separators in the id than there are then, so that no
        // two ids of a source are the same.
        let is_ambiguous = texts.len() > 1 && texts.iter().any(|text| text.contains(BETWEEN_IDS));
        if !is_ambiguous {
            return Ok((shortened(joined), None));
        }
        let prefixed: Vec<String> = texts.iter().map(|text| format!("{}:{text}", text.len())).collect();
        Ok((shortened(prefixed.join(BETWEEN_IDS)), Some(shortened(joined))))
    }

    fn name(&self, parts: &[Part], source: &Name) -> Result<String, NotAnEvent> {
        let Some(first) = parts.first() else { return Ok(source.as_str().to_owned()) };
        let texts: Result<Vec<_>, _> = parts.iter().filter_map(|part| self.short("name", part).transpose()).collect();
        let texts = texts?;
        if texts.is_empty() { Err(missing("name", first.clone())) } else { Ok(texts.join(BETWEEN_NAMES)) }
    }

    /// The value these keys lead to; the place of an item in a list is a key too.
    fn find(&self, path: &[String]) -> Result<Option<&'a str>, NotAnEvent> {
        let Some((first, rest)) = path.split_first() else { return Ok(Some(self.whole)) };
        let mut found = self.fields.get(first.as_str()).copied();
        for key in rest {
            let Some(value) = found else { break };
            found = if value.starts_with('[') {
                let items: Vec<&RawValue> = serde_json::from_str(value)?;
                key.parse().ok().and_then(|place: usize| items.get(place).map(|item| item.get()))
            } else {
                fields(value)?.get(key.as_str()).copied()
            };
        }
        Ok(found)
    }
}

/// An id, or its hash where it is too long to be kept as it is.
fn shortened(id: String) -> String {
    if id.len() > LONGEST_ID { format!("sha256:{}", hex::encode(Sha256::digest(&id))) } else { id }
}

fn missing(what: &'static str, place: Part) -> NotAnEvent {
    NotAnEvent::Missing { what, place }
}

/// The text of a value that names something: of text and of numbers.
fn scalar(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b'-' | b'0'..=b'9' => Some(json.to_owned()),
        _ => None,
    }
}

/// A time as platforms write them: seconds or milliseconds since 1970, as a number or as text, or RFC 3339. In seconds;
/// anything else is as good as nothing.
fn seconds(text: &str) -> Option<u64> {
    /// In milliseconds, the year 1973; in seconds, the year 5138.
    const MILLISECONDS_FROM: f64 = 1e11;
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        let seconds = if number >= MILLISECONDS_FROM { number / 1000.0 } else { number };
        return (0.0..NO_TIME_FROM).contains(&seconds).then_some(seconds as u64);
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

/// The fields of an object, unread; none if it is something else.
///
/// A field that stands there twice makes it unreadable: what another reader takes it for is anybody's guess.
fn fields(json: &str) -> serde_json::Result<Fields<'_>> {
    struct Object<'a>(Fields<'a>);

    #[derive(Deserialize)]
    struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

    struct ObjectVisitor;

    impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(ObjectVisitor)
        }
    }

    impl<'de> Visitor<'de> for ObjectVisitor {
        type Value = Object<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Fields::with_capacity(8);
            while let Some(Key(key)) = map.next_key()? {
                match fields.entry(key) {
                    Entry::Occupied(twice) => {
                        return Err(A::Error::custom(format_args!("duplicate field `{}`", twice.key())));
                    }
                    Entry::Vacant(place) => place.insert(map.next_value::<&RawValue>()?.get()),
                };
            }
            Ok(Object(fields))
        }
    }

    if !json.starts_with('{') {
        return Ok(Fields::new());
    }
    serde_json::from_str::<Object>(json).map(|object| object.0)
}

/// A place in a request, in people's words.
struct Place<'a>(&'a Part);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Part::Body(path) if !path.is_empty() => write!(f, "`{}` in the body", path.join(".")),
            Part::Header(name) => write!(f, "the header {}", Shown(name)),
            Part::EitherHeader(first, second) => write!(f, "the header {} or {}", Shown(first), Shown(second)),
            Part::Body(_) | Part::Text(_) | Part::Hash => f.write_str("the body"),
        }
    }
}
