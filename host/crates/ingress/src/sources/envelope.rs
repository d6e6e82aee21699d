//! Reads an [`Event`] from a request: an [`Envelope`] says where in the headers and the body its parts are.
//!
//! Fields that the envelope doesn't name are not read and can have any form. The body is passed on whole, so unknown
//! fields are kept.

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::schemes::HeaderCase;
use modhost_config::source::{EventFields, FieldSelector};
use modhost_core::event::body::{self as event_body, BodyKind};
use modhost_core::event::{Event, Header, Name};
use modhost_core::json::{Document, Kind, SyntaxError, Text};

/// Maximum length of an id in bytes; longer ones are replaced by their hash. No known platform has ids this long.
const MAX_ID: usize = 256;

/// Maximum length in bytes of names and of the ids of users and companies, since they appear in log lines.
const MAX_TEXT: usize = 1024;

/// Maximum number of headers stored with an unreadable request.
const MAX_HEADERS: usize = 32;

/// Times from here on are ignored, in seconds since 1970: the year 10000.
const MAX_TIME: f64 = 253_402_300_800.0;

/// Separator between the parts of an id.
const ID_SEPARATOR: &str = "@";

/// Separator between the parts of a name.
const NAME_SEPARATOR: &str = ".";

/// Where the parts of an event are in the requests of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The parts of the event's id; all are required.
    pub id: Vec<FieldSelector>,
    /// The parts of the event's name; at least one is required. Empty: the source's name.
    pub name: Vec<FieldSelector>,
    /// The company, if the source's events name one.
    pub company: Option<FieldSelector>,
    /// Whether every event of the platform names its company, so that an event without one can't be read.
    pub always_names_company: bool,
    /// The user.
    pub user: Option<FieldSelector>,
    /// The time of the event.
    pub created_at: Option<FieldSelector>,
    /// The path of the payload that the module gets; empty: the whole body.
    pub payload: Vec<String>,
    /// The kinds of forms that the platform sends besides JSON.
    pub forms: Forms,
}

/// The kinds of forms that a platform sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// No forms.
    None,
    /// Forms with JSON in a field `payload`.
    WithPayload,
    /// Any forms. The event of a form without `payload` is an object of its fields.
    Any,
}

/// Why a verified request can't be read as an event.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(#[from] SyntaxError),
    /// The body is a form of a kind the platform doesn't send.
    #[error("the body is not JSON: it is a form{}", if *.with_payload { ", and its field `payload` is missing, or there more than once" } else { "" })]
    Form {
        /// Whether a form with a `payload` would be accepted.
        with_payload: bool,
    },
    /// A required part is missing.
    #[error("its {what} is missing, {}", PartName(.place))]
    Missing {
        /// The part.
        what: &'static str,
        /// Where it should be.
        place: FieldSelector,
    },
    /// A part has a type that can't be an id or a name.
    #[error("its {what} is {found}, {}", PartName(.place))]
    WrongType {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: FieldSelector,
        /// The type that was found.
        found: Kind,
    },
    /// A part contains a lone surrogate or invalid UTF-8, so its value is ambiguous.
    #[error("its {what} is not written in Unicode, {}", PartName(.place))]
    NotText {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: FieldSelector,
    },
    /// A part occurs more than once with different values: ambiguous, since parsers differ in which one they use.
    #[error("its {what} is there more than once, {}", PartName(.place))]
    Ambiguous {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: FieldSelector,
    },
    /// A part is too long for an id or a name.
    #[error("its {what} is longer than {MAX_TEXT} bytes, {}", PartName(.place))]
    TooLong {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: FieldSelector,
    },
    /// The event chooses a module whose name can't be read.
    #[error("it chooses a module, and the module's name can't be read: {0}")]
    NoModule(String),
    /// A header with a part occurs more than once: ambiguous.
    #[error("more than one header {}", HeaderCase(.0))]
    TwoHeaders(HeaderName),
}

/// A parsed body with its headers.
pub(super) struct ParsedRequest<'a> {
    headers: &'a HeaderMap,
    raw: &'a Bytes,
    /// The JSON of the body.
    json: &'a [u8],
    document: Document<'a>,
}

/// The text of a part.
struct Named<'a> {
    text: Cow<'a, str>,
    /// The bytes of the value if they are not valid Unicode.
    lossy: Option<&'a [u8]>,
}

/// Returns a selector for a field of the body: keys separated by dots.
pub fn body(path: &str) -> FieldSelector {
    FieldSelector::Body(path.split('.').map(str::to_owned).collect())
}

/// Returns a selector for the first of several fields of the body that has a value.
pub fn first_in_body(paths: &[&str]) -> FieldSelector {
    FieldSelector::First(paths.iter().map(|path| body(path)).collect())
}

/// Returns a selector for a header.
pub fn header(name: &'static str) -> FieldSelector {
    FieldSelector::Header(HeaderName::from_static(name))
}

/// The id is the body's hash, the name is the source's, and the payload is the whole body.
impl Default for Envelope {
    fn default() -> Self {
        Self {
            id: vec![FieldSelector::Hash],
            name: Vec::new(),
            company: None,
            always_names_company: false,
            user: None,
            created_at: None,
            payload: Vec::new(),
            forms: Forms::None,
        }
    }
}

impl Envelope {
    /// Overrides the scheme's envelope with a source's settings.
    pub fn with(mut self, parts: &EventFields) -> Self {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        set(&mut self.id, &parts.id);
        set(&mut self.name, &parts.name);
        set(&mut self.company, &parts.company);
        self.always_names_company &= parts.company.is_none();
        set(&mut self.user, &parts.user);
        set(&mut self.created_at, &parts.created_at);
        set(&mut self.payload, &parts.payload);
        self
    }

    /// Returns the headers of a request to store for troubleshooting: the usual ones, and those that parts of the event
    /// are read from. Headers whose name suggests a secret or a signature are left out.
    pub fn headers_of(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        const USUAL: [&str; 3] = ["content-type", "user-agent", "x-request-id"];
        const SECRET: [&str; 9] =
            ["sign", "hmac", "secret", "token", "key", "auth", "cookie", "password", "credential"];
        let mut names: Vec<HeaderName> = USUAL.into_iter().map(HeaderName::from_static).collect();
        let single = [&self.company, &self.user, &self.created_at].into_iter().flatten();
        for part in self.id.iter().chain(&self.name).chain(single) {
            part.headers(&mut names);
        }
        names.retain(|name| !SECRET.iter().any(|word| name.as_str().contains(word)));
        let value = |value: &[u8]| String::from_utf8_lossy(value).chars().take(MAX_TEXT).collect();
        let lines = names.iter().flat_map(|name| headers.get_all(name).iter().map(move |it| (name, it)));
        lines.take(MAX_HEADERS).map(|(name, it)| (name.to_string(), value(it.as_bytes()))).collect()
    }
}

/// Returns the JSON of a verified body: the body itself, or the JSON of a form that the envelope accepts.
pub(super) fn json_of<'a>(envelope: &Envelope, raw: &'a Bytes) -> Result<Cow<'a, [u8]>, NotAnEvent> {
    let is_taken = match event_body::kind(raw) {
        BodyKind::Json => true,
        BodyKind::FormWithPayload => envelope.forms != Forms::None,
        BodyKind::Form => envelope.forms == Forms::Any,
    };
    if is_taken {
        Ok(event_body::json(raw))
    } else {
        Err(NotAnEvent::Form { with_payload: envelope.forms != Forms::None })
    }
}

impl<'a> ParsedRequest<'a> {
    /// Parses the JSON of a verified body.
    pub(super) fn new(headers: &'a HeaderMap, raw: &'a Bytes, json: &'a [u8]) -> Result<Self, NotAnEvent> {
        Ok(Self { headers, raw, json, document: Document::read(json)? })
    }

    /// Returns the text of a part; `None` if it is missing, null or empty.
    fn named(&self, what: &'static str, part: &FieldSelector) -> Result<Option<Named<'a>>, NotAnEvent> {
        let plain = |text: Option<String>| text.map(|text| Named { text: text.into(), lossy: None });
        let named = match part {
            FieldSelector::Text(text) => plain(Some(text.clone())),
            FieldSelector::Hash => plain(Some(hash(self.raw))),
            FieldSelector::Header(name) => plain(self.header(what, part, name)?),
            FieldSelector::EitherHeader(first, second) => {
                plain(self.header(what, part, if self.headers.contains_key(first) { first } else { second })?)
            }
            FieldSelector::Body(path) => self.in_body(what, part, path)?,
            FieldSelector::First(parts) => return self.first(what, parts),
        };
        Ok(named.filter(|named| !named.text.is_empty()))
    }

    /// Returns the text of the first of several parts that has one. A part of the wrong type is skipped if a later part
    /// has a text.
    fn first(&self, what: &'static str, parts: &[FieldSelector]) -> Result<Option<Named<'a>>, NotAnEvent> {
        let mut wrong_type = None;
        for part in parts {
            match self.named(what, part) {
                Ok(Some(named)) => return Ok(Some(named)),
                Ok(None) => {}
                Err(error @ NotAnEvent::WrongType { .. }) => wrong_type = wrong_type.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        wrong_type.map_or(Ok(None), Err)
    }

    fn in_body(
        &self,
        what: &'static str,
        part: &FieldSelector,
        path: &[String],
    ) -> Result<Option<Named<'a>>, NotAnEvent> {
        let Some(found) = self.document.find(path.iter().map(String::as_str)) else { return Ok(None) };
        let place = || part.clone();
        if found.is_ambiguous {
            return Err(NotAnEvent::Ambiguous { what, place: place() });
        }
        let value = found.value;
        match value.text_or_number() {
            Some(Text { text, is_lossy }) => Ok(Some(Named { text, lossy: is_lossy.then(|| value.as_bytes()) })),
            None if value.is_null() => Ok(None),
            None => Err(NotAnEvent::WrongType { what, place: place(), found: value.kind() }),
        }
    }

    fn header(
        &self,
        what: &'static str,
        part: &FieldSelector,
        name: &HeaderName,
    ) -> Result<Option<String>, NotAnEvent> {
        let mut values = self.headers.get_all(name).iter();
        let text = match (values.next(), values.next()) {
            (_, Some(_)) => return Err(NotAnEvent::TwoHeaders(name.clone())),
            (value, None) => value.map(|value| std::str::from_utf8(value.as_bytes())).transpose(),
        };
        text.map(|text| text.map(str::to_owned)).map_err(|_| NotAnEvent::NotText { what, place: part.clone() })
    }

    /// Returns the text of a part that is compared with configured names and shown to people.
    fn short(&self, what: &'static str, part: &FieldSelector) -> Result<Option<String>, NotAnEvent> {
        match self.named(what, part)? {
            Some(Named { lossy: Some(_), .. }) => Err(NotAnEvent::NotText { what, place: part.clone() }),
            Some(Named { text, .. }) if text.len() > MAX_TEXT => Err(NotAnEvent::TooLong { what, place: part.clone() }),
            named => Ok(named.map(|named| named.text.into_owned())),
        }
    }

    /// Returns the company that the event names.
    pub(super) fn company(&self, envelope: &Envelope) -> Result<Option<String>, NotAnEvent> {
        envelope.company.as_ref().map_or(Ok(None), |part| self.short("company", part))
    }

    /// Builds the event.
    pub(super) fn event(
        &self,
        envelope: &Envelope,
        source: &Name,
        tenant: Name,
        company_id: Option<String>,
    ) -> Result<Event, NotAnEvent> {
        let (id, earlier_id) = self.id(&envelope.id)?;
        let header = Header {
            id,
            name: self.name(&envelope.name, source)?,
            source: source.clone(),
            tenant,
            user_id: self.user(envelope)?,
            company_id,
            created_at: self.time(envelope),
        };
        let missing = || missing("payload", FieldSelector::Body(envelope.payload.clone()));
        let payload = self.document.find(envelope.payload.iter().map(String::as_str)).ok_or_else(missing)?;
        if payload.is_ambiguous {
            return Err(NotAnEvent::Ambiguous {
                what: "payload",
                place: FieldSelector::Body(envelope.payload.clone()),
            });
        }
        let event = Event::new(header, self.raw.clone(), payload.value.range_in(self.json));
        let event = event.with_earlier_id(earlier_id);
        match event.module() {
            None if event.is_for_one_module() => {
                Err(NotAnEvent::NoModule("its `name` is no text in the payload".into()))
            }
            _ => Ok(event),
        }
    }

    /// Returns the user. An unreadable user is treated as missing; an ambiguous one is an error.
    fn user(&self, envelope: &Envelope) -> Result<Option<String>, NotAnEvent> {
        let Some(part) = &envelope.user else { return Ok(None) };
        match self.short("user", part) {
            Err(error @ (NotAnEvent::Ambiguous { .. } | NotAnEvent::TwoHeaders(_))) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "cannot read the user of an event");
                Ok(None)
            }
            user => user,
        }
    }

    /// Returns the time of the event, which is informational: an unreadable time is `None`.
    fn time(&self, envelope: &Envelope) -> Option<u64> {
        let time = self.short("time", envelope.created_at.as_ref()?);
        time.ok().flatten().and_then(|time| seconds(&time))
    }

    /// Returns the id and, if it differs, the id that earlier versions of the host gave the event.
    fn id(&self, parts: &[FieldSelector]) -> Result<(String, Option<String>), NotAnEvent> {
        let text = |part: &FieldSelector| {
            let named = self.named("id", part)?.ok_or_else(|| missing("id", part.clone()))?;
            // Two ids with different bytes must not become the same id, so an invalid one is hashed.
            Ok(named.lossy.map_or_else(|| named.text.into_owned(), hash))
        };
        let texts: Vec<String> = parts.iter().map(text).collect::<Result<_, NotAnEvent>>()?;
        let joined = texts.join(ID_SEPARATOR);
        // If a part contains the separator, joining is ambiguous: `7@8` and `9` give the same id as `7` and `8@9`. Then
        // each part is prefixed with its length. An unambiguous id has fewer separators than a prefixed one, so no two
        // ids of a source collide.
        let is_ambiguous = texts.len() > 1 && texts.iter().any(|text| text.contains(ID_SEPARATOR));
        if !is_ambiguous {
            return Ok((shortened(joined), None));
        }
        let prefixed: Vec<String> = texts.iter().map(|text| format!("{}:{text}", text.len())).collect();
        Ok((shortened(prefixed.join(ID_SEPARATOR)), Some(shortened(joined))))
    }

    fn name(&self, parts: &[FieldSelector], source: &Name) -> Result<String, NotAnEvent> {
        let Some(first) = parts.first() else { return Ok(source.as_str().to_owned()) };
        let texts: Result<Vec<_>, _> = parts.iter().filter_map(|part| self.short("name", part).transpose()).collect();
        let texts = texts?;
        if texts.is_empty() { Err(missing("name", first.clone())) } else { Ok(texts.join(NAME_SEPARATOR)) }
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Returns an id, or its hash if it is too long.
fn shortened(id: String) -> String {
    if id.len() > MAX_ID { hash(id.as_bytes()) } else { id }
}

fn missing(what: &'static str, place: FieldSelector) -> NotAnEvent {
    NotAnEvent::Missing { what, place }
}

/// Parses a time as platforms write it: seconds or milliseconds since 1970, as a number or text, or RFC 3339. Returns
/// seconds; `None` for anything else.
fn seconds(text: &str) -> Option<u64> {
    /// Numbers from here on are milliseconds: as milliseconds this is the year 1973, as seconds 5138.
    const MILLISECONDS_FROM: f64 = 1e11;
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        let seconds = if number >= MILLISECONDS_FROM { number / 1000.0 } else { number };
        return (0.0..MAX_TIME).contains(&seconds).then_some(seconds as u64);
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

/// Displays the place of a part for people.
struct PartName<'a>(&'a FieldSelector);

impl fmt::Display for PartName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FieldSelector::Body(path) if !path.is_empty() => write!(f, "`{}` in the body", path.join(".")),
            FieldSelector::Header(name) => write!(f, "the header {}", HeaderCase(name)),
            FieldSelector::EitherHeader(first, second) => {
                write!(f, "the header {} or {}", HeaderCase(first), HeaderCase(second))
            }
            FieldSelector::First(parts) if !parts.is_empty() => {
                parts.iter().enumerate().try_for_each(|(number, part)| {
                    f.write_str(if number == 0 { "" } else { " or " })?;
                    PartName(part).fmt(f)
                })
            }
            FieldSelector::Body(_) | FieldSelector::Text(_) | FieldSelector::Hash | FieldSelector::First(_) => {
                f.write_str("the body")
            }
        }
    }
}
