//! What an event looks like on the wire: where in a request its parts stand, read into an [`Event`].
//!
//! What isn't asked for is passed over unread, however odd it is. What isn't known here is kept: the body is handed on whole.

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::schemes::Shown;
use modhost_config::source::{EventFields, FieldSelector};
use modhost_core::event::body::{self as event_body, BodyKind};
use modhost_core::event::{Event, Header, Name};
use modhost_core::json::{Document, Kind, SyntaxError, Text};

/// Ids longer than this are not kept as they are, in bytes; no platform has any like it.
const MAX_ID: usize = 256;

/// Longer than this, in bytes, nothing is that names something: it would stand in every line of the log.
const MAX_TEXT: usize = 1024;

/// No more headers than this are kept of a request that can't be read.
const MAX_HEADERS: usize = 32;

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
    pub id: Vec<FieldSelector>,
    /// What happened; some of it has to be there. Empty: the source's own name stands for it.
    pub name: Vec<FieldSelector>,
    /// The company it belongs to, if its events name one.
    pub company: Option<FieldSelector>,
    /// Whether every event of the platform names its company: one that doesn't can't be read.
    pub always_names_company: bool,
    /// The user it happened to.
    pub user: Option<FieldSelector>,
    /// When it happened.
    pub created_at: Option<FieldSelector>,
    /// The keys that lead to what the module is given; none: the body.
    pub payload: Vec<String>,
    /// Which forms the platform sends besides JSON.
    pub forms: Forms,
}

/// The forms a platform sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// None.
    None,
    /// Those with JSON in a field `payload`.
    WithPayload,
    /// Those, and others: an object of their fields is the event.
    Any,
}

/// Why a verified request is no event.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(#[from] SyntaxError),
    /// The body is a form of a kind the platform doesn't send.
    #[error("the body is not JSON: it is a form{}", if *.with_payload { ", and its field `payload` is missing, or there more than once" } else { "" })]
    Form {
        /// Whether a form with a `payload` would be taken.
        with_payload: bool,
    },
    /// A part that has to be there isn't.
    #[error("its {what} is missing, {}", PartName(.place))]
    Missing {
        /// The part.
        what: &'static str,
        /// Where it should be.
        place: FieldSelector,
    },
    /// A part is of a kind nothing is named with.
    #[error("its {what} is {found}, {}", PartName(.place))]
    Odd {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: FieldSelector,
        /// What it is.
        found: Kind,
    },
    /// A part holds half a character, or bytes that are none: what it names can't be told.
    #[error("its {what} is not written in Unicode, {}", PartName(.place))]
    NotText {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: FieldSelector,
    },
    /// A part is there more than once, and is not the same each time: ambiguous, as readers differ in which they take.
    #[error("its {what} is there more than once, {}", PartName(.place))]
    Ambiguous {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: FieldSelector,
    },
    /// A part is too long to be what it should be.
    #[error("its {what} is longer than {MAX_TEXT} bytes, {}", PartName(.place))]
    TooLong {
        /// The part.
        what: &'static str,
        /// Where it is.
        place: FieldSelector,
    },
    /// It chose a module, and which one can't be read.
    #[error("it chooses a module, and the module's name can't be read: {0}")]
    NoModule(String),
    /// A header that a part is read from is there more than once: ambiguous.
    #[error("more than one header {}", Shown(.0))]
    TwoHeaders(HeaderName),
}

/// A body, and the headers it came with.
pub(super) struct Opened<'a> {
    headers: &'a HeaderMap,
    raw: &'a Bytes,
    /// The JSON of the body.
    json: &'a [u8],
    document: Document<'a>,
}

/// The text of a part that names something.
struct Named<'a> {
    text: Cow<'a, str>,
    /// What it is written with, where that was not all characters.
    lossy: Option<&'a [u8]>,
}

/// A place in the body: keys with dots between them.
pub fn body(path: &str) -> FieldSelector {
    FieldSelector::Body(path.split('.').map(str::to_owned).collect())
}

/// The first of several places in the body that names something.
pub fn first_in_body(paths: &[&str]) -> FieldSelector {
    FieldSelector::First(paths.iter().map(|path| body(path)).collect())
}

/// A place in the headers.
pub fn header(name: &'static str) -> FieldSelector {
    FieldSelector::Header(HeaderName::from_static(name))
}

impl Envelope {
    /// An envelope of which nothing is known.
    pub fn whole() -> Self {
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

    /// The same, with what a source's settings say in place of what the scheme says.
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

    /// The headers of a request that help to understand it: what bodies are, and what parts of an event are read from.
    /// Never what is a secret, or signed with one.
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

/// The JSON of a body that was verified, as a source with this envelope takes it.
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

impl<'a> Opened<'a> {
    /// Reads the JSON of a body that was verified.
    pub(super) fn new(headers: &'a HeaderMap, raw: &'a Bytes, json: &'a [u8]) -> Result<Self, NotAnEvent> {
        Ok(Self { headers, raw, json, document: Document::read(json)? })
    }

    /// A part that names one thing; none if it is not there, or says nothing.
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

    /// The first of several places that names something. One of another kind is passed over where a further one does.
    fn first(&self, what: &'static str, parts: &[FieldSelector]) -> Result<Option<Named<'a>>, NotAnEvent> {
        let mut odd = None;
        for part in parts {
            match self.named(what, part) {
                Ok(Some(named)) => return Ok(Some(named)),
                Ok(None) => {}
                Err(error @ NotAnEvent::Odd { .. }) => odd = odd.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        odd.map_or(Ok(None), Err)
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
            None => Err(NotAnEvent::Odd { what, place: place(), found: value.kind() }),
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

    /// A part that is held against a list of names and shown to people.
    fn short(&self, what: &'static str, part: &FieldSelector) -> Result<Option<String>, NotAnEvent> {
        match self.named(what, part)? {
            Some(Named { lossy: Some(_), .. }) => Err(NotAnEvent::NotText { what, place: part.clone() }),
            Some(Named { text, .. }) if text.len() > MAX_TEXT => Err(NotAnEvent::TooLong { what, place: part.clone() }),
            named => Ok(named.map(|named| named.text.into_owned())),
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
            None if event.chooses() => Err(NotAnEvent::NoModule("its `name` is no text in the payload".into())),
            _ => Ok(event),
        }
    }

    /// The user it happened to: one that can't be read is as good as none, but one that could be either of two is not.
    fn user(&self, envelope: &Envelope) -> Result<Option<String>, NotAnEvent> {
        let Some(part) = &envelope.user else { return Ok(None) };
        match self.short("user", part) {
            Err(error @ (NotAnEvent::Ambiguous { .. } | NotAnEvent::TwoHeaders(_))) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the user of an event can't be read");
                Ok(None)
            }
            user => user,
        }
    }

    /// When it happened: information only.
    fn time(&self, envelope: &Envelope) -> Option<u64> {
        let time = self.short("time", envelope.created_at.as_ref()?);
        time.ok().flatten().and_then(|time| seconds(&time))
    }

    /// The id, and the one that earlier versions gave the event if it was another.
    fn id(&self, parts: &[FieldSelector]) -> Result<(String, Option<String>), NotAnEvent> {
        let text = |part: &FieldSelector| {
            let named = self.named("id", part)?.ok_or_else(|| missing("id", part.clone()))?;
            // Two that are written differently must not be taken for the same event.
            Ok(named.lossy.map_or_else(|| named.text.into_owned(), hash))
        };
        let texts: Vec<String> = parts.iter().map(text).collect::<Result<_, NotAnEvent>>()?;
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

    fn name(&self, parts: &[FieldSelector], source: &Name) -> Result<String, NotAnEvent> {
        let Some(first) = parts.first() else { return Ok(source.as_str().to_owned()) };
        let texts: Result<Vec<_>, _> = parts.iter().filter_map(|part| self.short("name", part).transpose()).collect();
        let texts = texts?;
        if texts.is_empty() { Err(missing("name", first.clone())) } else { Ok(texts.join(BETWEEN_NAMES)) }
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// An id, or its hash where it is too long to be kept as it is.
fn shortened(id: String) -> String {
    if id.len() > MAX_ID { hash(id.as_bytes()) } else { id }
}

fn missing(what: &'static str, place: FieldSelector) -> NotAnEvent {
    NotAnEvent::Missing { what, place }
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

/// A place in a request, in people's words.
struct PartName<'a>(&'a FieldSelector);

impl fmt::Display for PartName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FieldSelector::Body(path) if !path.is_empty() => write!(f, "`{}` in the body", path.join(".")),
            FieldSelector::Header(name) => write!(f, "the header {}", Shown(name)),
            FieldSelector::EitherHeader(first, second) => write!(f, "the header {} or {}", Shown(first), Shown(second)),
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
