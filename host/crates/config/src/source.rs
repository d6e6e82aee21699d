//! The settings of a source: the way its events come, how they are signed, and where in a request the parts of an event
//! stand.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderName;

use super::{Module, Reference, SourceLocation, Tenant, Written};
use modhost_core::event::Name;
use modhost_core::event::interest::NamePattern;

/// What the names of Unique's events begin with.
const OF_UNIQUE: &str = "unique.";

/// A way events come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// The way, with the settings that belong to it.
    pub kind: SourceKind,
    /// The tenant all its events belong to; none: the only tenant, or the event's company tells.
    pub tenant: Option<Name>,
    /// Where it stands in the file.
    pub place: SourceLocation,
    /// Which of its keys are written down.
    pub written: Written,
}

/// The ways events can come in.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// The platform brings them: it posts each to a path of this host.
    Webhook(Box<Webhook>),
    /// The host fetches them: it holds a connection to the platform's event socket.
    EventSocket(EventSocket),
}

/// A path that events are posted to.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// The path on [`Server::listen`](super::Server::listen).
    pub path: String,
    /// How its events are signed.
    pub scheme: Scheme,
    /// What they may be signed with; several while one replaces another. Empty for [`Scheme::None`] alone.
    pub secrets: Vec<Reference>,
    /// Where in a request the parts of an event stand, as far as that differs from the scheme's own.
    pub event: EventParts,
    /// How many of its events are taken a second; none: as many as come.
    pub events_per_second: Option<u32>,
}

/// A connection to Unique AI's event socket, made with the credentials of its tenant's platform.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSocket {
    /// The address of the stream; none: `/public/event-socket/events/stream` on the host of the tenant's `api_base`.
    pub url: Option<Reference>,
    /// The company whose events come; none: the only one of the tenant.
    pub company: Option<Reference>,
    /// The names of the events that come; none: those of Unique's that modules of the tenant want.
    pub subscriptions: Option<Vec<String>>,
    /// How old a connection gets before the next one takes its place. Default 9 minutes: the platform closes it after
    /// 10 without a word.
    pub reconnect_after: Duration,
    /// How long nothing at all may come over a connection before another one takes its place. Default 2 minutes.
    pub silence: Duration,
}

impl Source {
    /// Its webhook, if it is one.
    pub fn webhook(&self) -> Option<&Webhook> {
        match &self.kind {
            SourceKind::Webhook(webhook) => Some(webhook),
            SourceKind::EventSocket(_) => None,
        }
    }

    /// The tenant all its events belong to, if that is one of these: the one it names, or the only one there is.
    pub fn sole_tenant<'t>(&self, tenants: impl IntoIterator<Item = &'t Tenant>) -> Option<&'t Tenant> {
        let mut tenants = tenants.into_iter();
        match &self.tenant {
            Some(name) => tenants.find(|tenant| tenant.name == *name),
            None => tenants.next().filter(|_| tenants.next().is_none()),
        }
    }

    /// Its event socket, if it is one.
    pub fn event_socket(&self) -> Option<&EventSocket> {
        match &self.kind {
            SourceKind::Webhook(_) => None,
            SourceKind::EventSocket(socket) => Some(socket),
        }
    }
}

impl Source {
    /// What a module wants of this source's events, if they belong to this tenant.
    fn wanted_of<'m>(&self, tenant: &Tenant, module: &'m Module) -> &'m [NamePattern] {
        let wants = &module.wants;
        let is_wanted = (wants.sources.is_empty() || wants.sources.contains(&self.name))
            && (wants.tenants.is_empty() || wants.tenants.contains(&tenant.name));
        if is_wanted { &wants.events } else { &[] }
    }

    /// The names of the events that come over its event socket: those it names, or those of Unique's that these modules
    /// want of it. The platform knows no patterns, so what is wanted by one isn't among them.
    pub fn subscriptions<'m>(&self, tenant: &Tenant, modules: impl IntoIterator<Item = &'m Module>) -> Vec<String> {
        if let Some(named) = self.event_socket().and_then(|socket| socket.subscriptions.as_ref()) {
            return named.clone();
        }
        let wanted = modules.into_iter().flat_map(|module| self.wanted_of(tenant, module));
        let exact = wanted.filter_map(|pattern| match pattern {
            NamePattern::Exact(name) if name.starts_with(OF_UNIQUE) && can_be_subscribed_to(name) => Some(name.clone()),
            _ => None,
        });
        exact.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A pattern by which a module wants events of Unique's from this source.
    pub(super) fn wanted_pattern<'m>(&self, tenant: &Tenant, module: &'m Module) -> Option<&'m NamePattern> {
        self.wanted_of(tenant, module).iter().find(|pattern| match pattern {
            NamePattern::Prefix(prefix) => prefix.starts_with(OF_UNIQUE) || OF_UNIQUE.starts_with(prefix.as_str()),
            NamePattern::Exact(_) => false,
        })
    }
}

/// Whether an event's name can stand in a subscription: whole names only.
pub(super) fn can_be_subscribed_to(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}

impl Default for EventSocket {
    fn default() -> Self {
        Self {
            url: None,
            company: None,
            subscriptions: None,
            reconnect_after: Duration::from_secs(9 * 60),
            silence: Duration::from_secs(2 * 60),
        }
    }
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
    /// In the first of these places where something stands that can name it.
    First(Vec<Part>),
    /// Nowhere: it is always this.
    Text(String),
    /// Nowhere: the SHA-256 of the body stands in for it.
    Hash,
}

impl Part {
    /// Adds the headers it is read from.
    pub fn headers(&self, names: &mut Vec<HeaderName>) {
        match self {
            Self::Header(name) => names.push(name.clone()),
            Self::EitherHeader(first, second) => names.extend([first.clone(), second.clone()]),
            Self::First(parts) => parts.iter().for_each(|part| part.headers(names)),
            Self::Body(_) | Self::Text(_) | Self::Hash => {}
        }
    }
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
