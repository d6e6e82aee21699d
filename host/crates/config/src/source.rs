//! The settings of a source: how its events arrive, how they are signed, and where in a request the fields of an
//! event are.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderName;

use super::{Module, Reference, SourceLocation, Tenant, WrittenKeys};
use modhost_core::event::Name;
use modhost_core::event::event_filter::NamePattern;

/// The prefix of the names of Unique AI's events.
const UNIQUE_PREFIX: &str = "unique.";

/// A source of events.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The name.
    pub name: Name,
    /// The kind, with its settings.
    pub kind: SourceKind,
    /// The tenant of all its events. `None`: the only tenant, or the tenant of the event's company.
    pub tenant: Option<Name>,
    /// The location in the file.
    pub location: SourceLocation,
    /// The keys that are in the file.
    pub written: WrittenKeys,
}

/// The kinds of sources.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    /// The platform posts each event to a path of this host.
    Webhook(Box<Webhook>),
    /// The host receives the events over a connection to the platform's event socket.
    EventSocket(EventSocket),
}

/// A path that a platform posts events to.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// The path on [`Server::listen`](super::Server::listen).
    pub path: String,
    /// The signature scheme of its events.
    pub scheme: Scheme,
    /// The accepted secrets: several during a rotation. Empty only for [`Scheme::None`].
    pub secrets: Vec<Reference>,
    /// Where in a request the fields of an event are, where that differs from the scheme's defaults.
    pub event: EventFields,
    /// The maximum number of its events per second, or `None` for no limit.
    pub events_per_second: Option<u32>,
}

/// A connection to Unique AI's event socket, with the credentials of the tenant's platform.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSocket {
    /// The URL of the stream. `None`: `/public/event-socket/events/stream` on the host of the tenant's `api_base`.
    pub url: Option<Reference>,
    /// The company whose events arrive. `None`: the only company of the tenant.
    pub company: Option<Reference>,
    /// The names of the events to subscribe to. `None`: the events of Unique AI that modules of the tenant handle.
    pub subscriptions: Option<Vec<String>>,
    /// How old a connection may get before the host replaces it. Default 9 minutes: the platform closes it without
    /// notice after 10.
    pub reconnect_after: Duration,
    /// How long a connection may be silent before the host replaces it. Default 2 minutes.
    pub silence: Duration,
}

impl Source {
    /// Returns the webhook, if it is one.
    pub fn webhook(&self) -> Option<&Webhook> {
        match &self.kind {
            SourceKind::Webhook(webhook) => Some(webhook),
            SourceKind::EventSocket(_) => None,
        }
    }

    /// Returns the tenant of all its events if it is one of these: the one it names, or the only one.
    pub fn sole_tenant<'t>(&self, tenants: impl IntoIterator<Item = &'t Tenant>) -> Option<&'t Tenant> {
        let mut tenants = tenants.into_iter();
        match &self.tenant {
            Some(name) => tenants.find(|tenant| tenant.name == *name),
            None => tenants.next().filter(|_| tenants.next().is_none()),
        }
    }

    /// Returns the event socket, if it is one.
    pub fn event_socket(&self) -> Option<&EventSocket> {
        match &self.kind {
            SourceKind::Webhook(_) => None,
            SourceKind::EventSocket(socket) => Some(socket),
        }
    }
}

impl Source {
    /// Returns the event patterns of a module for this source, or none if the module does not handle events of this
    /// source and tenant.
    fn patterns_of<'m>(&self, tenant: &Tenant, module: &'m Module) -> &'m [NamePattern] {
        let wants = &module.wants;
        let is_for_module = (wants.sources.is_empty() || wants.sources.contains(&self.name))
            && (wants.tenants.is_empty() || wants.tenants.contains(&tenant.name));
        if is_for_module { &wants.events } else { &[] }
    }

    /// Returns the names to subscribe to: the configured ones, or those of Unique AI that these modules handle. The
    /// platform does not support patterns, so events that a module handles by pattern are not included.
    pub fn subscriptions<'m>(&self, tenant: &Tenant, modules: impl IntoIterator<Item = &'m Module>) -> Vec<String> {
        if let Some(named) = self.event_socket().and_then(|socket| socket.subscriptions.as_ref()) {
            return named.clone();
        }
        let patterns = modules.into_iter().flat_map(|module| self.patterns_of(tenant, module));
        let exact = patterns.filter_map(|pattern| match pattern {
            NamePattern::Exact(name) if name.starts_with(UNIQUE_PREFIX) && can_be_subscribed_to(name) => {
                Some(name.clone())
            }
            _ => None,
        });
        exact.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns a pattern of a module that matches events of Unique AI from this source.
    pub(super) fn unique_prefix_pattern<'m>(&self, tenant: &Tenant, module: &'m Module) -> Option<&'m NamePattern> {
        self.patterns_of(tenant, module).iter().find(|pattern| match pattern {
            NamePattern::Prefix(prefix) => {
                prefix.starts_with(UNIQUE_PREFIX) || UNIQUE_PREFIX.starts_with(prefix.as_str())
            }
            NamePattern::Exact(_) => false,
        })
    }
}

/// Whether the platform accepts the name of an event in a subscription: whole names only.
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

/// The signature scheme of a source's events.
#[derive(Clone, Debug, PartialEq)]
pub enum Scheme {
    /// Webhooks of Unique AI.
    Unique(Window),
    /// Webhooks of NexusGPT: one header with a value that the operator chooses.
    Nexus {
        /// The header.
        header: HeaderName,
    },
    /// Webhooks of Archivus.
    Archivus,
    /// Standard Webhooks, also used by Svix.
    StandardWebhooks(Window),
    /// Webhooks of GitHub.
    GitHub,
    /// Webhooks of Stripe.
    Stripe(Window),
    /// Requests of Slack.
    Slack(Window),
    /// Webhooks of Shopify.
    Shopify,
    /// Webhooks of Linear.
    Linear(Window),
    /// Interactions and events of Discord.
    Discord(Window),
    /// An HMAC that the settings describe.
    Hmac(HmacRules),
    /// No signature.
    None {
        /// Whether requests may come from other machines. Default `false`.
        from_anywhere: bool,
    },
}

/// How far the time of a request may differ from the clock of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The maximum age of a request, or `None` for any age.
    pub past: Option<Duration>,
    /// How far a request may be ahead of the clock, or `None` for any time.
    pub ahead: Option<Duration>,
}

impl Window {
    /// A window that accepts any time.
    pub const ANY: Self = Self { past: None, ahead: None };
}

impl Default for Window {
    /// Five minutes either way, which is what the schemes that specify a window use.
    fn default() -> Self {
        let five_minutes = Some(Duration::from_secs(300));
        Self { past: five_minutes, ahead: five_minutes }
    }
}

/// An HMAC in a header: what is signed, with which algorithm, and how it is encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct HmacRules {
    /// The header that contains the signature.
    pub header: HeaderName,
    /// The text before the signature in the header.
    pub prefix: String,
    /// The hash function.
    pub algorithm: Algorithm,
    /// The encoding of the signature.
    pub encoding: Encoding,
    /// The encoding of the secret.
    pub key: KeyEncoding,
    /// The signed parts, in order.
    pub signed: Vec<SignedPart>,
    /// The header with the time of the request, in seconds since 1970.
    pub timestamp: Option<HeaderName>,
    /// How far that time may differ from the clock of the host.
    pub window: Window,
}

/// The hash function of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1: broken as a hash function, but not yet as an HMAC. Some platforms support nothing else.
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

/// A part of the signed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedPart {
    /// Constant text.
    Text(String),
    /// The bytes of the body.
    Body,
    /// The unchanged value of a header.
    Header(HeaderName),
}

/// Where in a request a field of an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldSelector {
    /// In the JSON body, at this path of keys. Empty: the whole body.
    Body(Vec<String>),
    /// In a header. Most schemes do not sign headers.
    Header(HeaderName),
    /// In the first of two equivalent headers that is present. Only schemes use this.
    EitherHeader(HeaderName, HeaderName),
    /// In the first of these places that has a usable value.
    First(Vec<FieldSelector>),
    /// Constant text.
    Text(String),
    /// The SHA-256 of the body.
    Hash,
}

impl FieldSelector {
    /// Appends the headers that the field is read from.
    pub fn headers(&self, names: &mut Vec<HeaderName>) {
        match self {
            Self::Header(name) => names.push(name.clone()),
            Self::EitherHeader(first, second) => names.extend([first.clone(), second.clone()]),
            Self::First(parts) => parts.iter().for_each(|part| part.headers(names)),
            Self::Body(_) | Self::Text(_) | Self::Hash => {}
        }
    }
}

/// Where the fields of an event are, as configured in `[source.event]`. `None`: as in the scheme.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFields {
    /// The id of the event. Several selectors are joined.
    pub id: Option<Vec<FieldSelector>>,
    /// The name of the event. Several selectors are joined, missing values left out.
    pub name: Option<Vec<FieldSelector>>,
    /// The company of the event. The inner `None`: events name no company.
    pub company: Option<Option<FieldSelector>>,
    /// The user of the event. The inner `None`: events name no user.
    pub user: Option<Option<FieldSelector>>,
    /// The time of the event. The inner `None`: events have no time.
    pub created_at: Option<Option<FieldSelector>>,
    /// The part of the body that is the payload.
    pub payload: Option<Vec<String>>,
}
