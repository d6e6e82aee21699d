//! The settings of a source: the way its events come, how they are signed, and where in a request the parts of an event
//! stand.

use std::time::Duration;

use http::HeaderName;

use super::{Place, Reference};
use crate::event::Name;

/// A way events come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// The path of its webhook on [`Server::listen`](super::Server::listen).
    pub path: String,
    /// How its events are signed.
    pub scheme: Scheme,
    /// What they may be signed with; several while one replaces another. Empty for [`Scheme::None`] alone.
    pub secrets: Vec<Reference>,
    /// Where in a request the parts of an event stand, as far as that differs from the scheme's own.
    pub event: EventParts,
    /// The tenant all its events belong to; none: the event's company tells.
    pub tenant: Option<Name>,
    /// How many of its events are taken a second; none: as many as come.
    pub events_per_second: Option<u32>,
    /// Where it stands in the file.
    pub place: Place,
}

/// How a source's events are signed: one case a scheme.
#[derive(Clone, Debug, PartialEq)]
pub enum Scheme {
    /// As Unique AI signs its webhooks.
    Unique(Window),
    /// As NexusGPT names its requests: one header with a value of the operator's choice.
    Nexus {
        /// The header.
        header: HeaderName,
    },
    /// As Archivus signs its webhooks.
    Archivus,
    /// As Standard Webhooks has it, and Svix.
    StandardWebhooks(Window),
    /// As GitHub signs its webhooks.
    GitHub,
    /// As Stripe signs its webhooks.
    Stripe(Window),
    /// As Slack signs its requests.
    Slack(Window),
    /// As Shopify signs its webhooks.
    Shopify,
    /// As Linear signs its webhooks.
    Linear(Window),
    /// As Discord signs interactions and events.
    Discord(Window),
    /// An HMAC as the settings tell.
    Hmac(HmacRules),
    /// Not at all.
    None {
        /// Whether such requests may come from other machines. Default no.
        from_anywhere: bool,
    },
}

/// How far the time of a request may be from the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How old a request may be; none: as old as it likes.
    pub past: Option<Duration>,
    /// How far ahead of the host's clock it may be; none: as far as it likes.
    pub ahead: Option<Duration>,
}

impl Window {
    /// Any time will do.
    pub const ANY: Self = Self { past: None, ahead: None };
}

impl Default for Window {
    /// Five minutes either way: what the schemes that say anything say.
    fn default() -> Self {
        let five_minutes = Some(Duration::from_secs(300));
        Self { past: five_minutes, ahead: five_minutes }
    }
}

/// An HMAC in a header: what is signed, how, and how it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct HmacRules {
    /// The header with the signature.
    pub header: HeaderName,
    /// What stands before the signature in the header.
    pub prefix: String,
    /// The hash.
    pub algorithm: Algorithm,
    /// How the signature's bytes are written.
    pub encoding: Encoding,
    /// How the secret is written.
    pub key: KeyEncoding,
    /// What is signed, in this order.
    pub signed: Vec<SignedPart>,
    /// The header with the time of the request, in seconds since 1970.
    pub timestamp: Option<HeaderName>,
    /// How far that time may be from the host's.
    pub window: Window,
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1: broken as a hash, not yet as an HMAC; some platforms know nothing else.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signature's bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Lowercase hex.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEncoding {
    /// Its UTF-8 bytes are the key.
    Text,
    /// Hex digits of the key.
    Hex,
    /// The key in base64.
    Base64,
}

/// A part of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedPart {
    /// These characters.
    Text(String),
    /// The body, byte by byte.
    Body,
    /// The value of this header, as it stands.
    Header(HeaderName),
}

/// Where a part of an event stands in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// In the body, which is JSON: the keys that lead there; none: all of it.
    Body(Vec<String>),
    /// In this header. Most schemes don't sign headers.
    Header(HeaderName),
    /// In the first of these headers that is there. Only schemes say so, of headers that mean the same.
    EitherHeader(HeaderName, HeaderName),
    /// Nowhere: it is always this.
    Text(String),
    /// Nowhere: the SHA-256 of the body stands in for it.
    Hash,
}

/// Where the parts of an event stand, as a source's `[source.event]` says; what it doesn't say is as the scheme has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventParts {
    /// What tells one event from another: several parts are joined.
    pub id: Option<Vec<Part>>,
    /// What happened: several parts are joined, those that are missing left out.
    pub name: Option<Vec<Part>>,
    /// The company it belongs to; the inner none: it names no company.
    pub company: Option<Option<Part>>,
    /// The user it happened to; the inner none: it names no user.
    pub user: Option<Option<Part>>,
    /// When it happened; the inner none: it doesn't say.
    pub created_at: Option<Option<Part>>,
    /// The part of the body the module is given.
    pub payload: Option<Vec<String>>,
}
