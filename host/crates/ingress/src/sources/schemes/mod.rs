//! How a source tells a real event from a forged one: one file a signature scheme.
//!
//! A scheme is the rules alone; the keys are the source's. Whatever is compared with what a sender wrote is compared in
//! constant time, and every key is tried whichever fits, so that the time taken tells nothing about any of them.

mod archivus;
mod discord;
mod ed25519;
mod github;
pub mod hmac;
mod linear;
mod nexus;
mod none;
mod shopify;
mod slack;
mod standard_webhooks;
mod stripe;
pub mod unique;

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use subtle::{Choice, ConstantTimeEq};

use self::ed25519::Ed25519;
use super::envelope::{Envelope, NotAnEvent};
use modhost_config as config;
use modhost_config::source::Window;
use modhost_core::json::Document;
use modhost_core::secret::Secret;

/// More signatures than this in one header nobody needs while secrets are replaced; each costs time to try.
const MAX_SIGNATURES: usize = 16;

/// Why nothing can be signed without a secret.
const NO_KEY: &str = "it needs a secret";

/// The rules by which a source's requests are told from forged ones, and what its platform expects of a receiver.
pub trait Scheme: Send + Sync {
    /// Makes a key of a secret, in the form the scheme works with.
    ///
    /// # Errors
    ///
    /// When the secret is not written as the scheme wants it; says how that is, and never what was written.
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        Ok(Key::shared(secret.expose().as_bytes()))
    }

    /// Checks that a request comes from who knows one of the keys.
    ///
    /// # Errors
    ///
    /// When it doesn't.
    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError>;

    /// The headers with which the platform would send a body.
    ///
    /// # Errors
    ///
    /// When the host can't sign in the platform's place; says why.
    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str>;

    /// A body as the platform would send it at this time: another one only where it says when it is sent.
    fn dated<'a>(&self, body: &'a [u8], now: SystemTime) -> Cow<'a, [u8]> {
        let _ = now;
        Cow::Borrowed(body)
    }

    /// Where in a request the parts of an event stand.
    fn envelope(&self) -> Envelope;

    /// The status that answers a request which is refused.
    fn refusal(&self, signature_error: &SignatureError) -> StatusCode {
        let _ = signature_error;
        StatusCode::UNAUTHORIZED
    }

    /// The answer to a verified request that is meant for the endpoint and not for a module: a platform's question
    /// whether anybody is there.
    fn challenge(&self, request: &Request<'_>) -> Option<Response> {
        let _ = request;
        None
    }

    /// The answer to a request whose event was taken.
    fn taken(&self, request: &Request<'_>) -> Response {
        let _ = request;
        super::http::success()
    }

    /// The answer to a request whose event nobody wants here: no module subscribed to it, or no tenant has its company.
    /// A success, or the platform would bring it again and give the endpoint up.
    fn nobody(&self, request: &Request<'_>) -> Response {
        self.taken(request)
    }

    /// The status that answers an event of a company that no tenant here has. A success, for platforms whose apps are
    /// installed in many companies: they sign for all of them alike, and give an endpoint up that refuses some.
    fn unclaimed(&self) -> StatusCode {
        StatusCode::OK
    }

    /// The status that answers a verified request that can't be read as an event. It is kept for operators; what brings it
    /// again may find a host that can read it.
    fn unreadable(&self, why: &NotAnEvent) -> StatusCode {
        let _ = why;
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// A request as it came, before anything about it is believed.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, as it came.
    pub body: &'a [u8],
    /// When it came.
    pub now: SystemTime,
}

/// A request to be made in a platform's place.
pub struct Outgoing<'a> {
    /// Its body, byte by byte.
    pub body: &'a [u8],
    /// The headers that are there already, for schemes that sign some.
    pub headers: &'a HeaderMap,
    /// When it is made.
    pub now: SystemTime,
    /// An id that no request had before, for schemes that give each one.
    pub id: &'a str,
}

/// A key of a source, in the form its scheme works with. Never shown.
pub struct Key(Kind);

enum Kind {
    /// What both sides know.
    Shared(Box<[u8]>),
    /// What the platform signs with, or the public half of it.
    Ed25519(Box<Ed25519>),
}

/// Why a request is taken for a forgery. The text goes to the sender and to the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header the scheme needs is not there.
    #[error("missing header {}", Shown(.0))]
    MissingHeader(HeaderName),
    /// A header can't be read.
    #[error("header {} is not {}", Shown(.0), .1)]
    BadHeader(HeaderName, &'static str),
    /// A header stands there more than once: which of them counts is anybody's guess.
    #[error("more than one header {}", Shown(.0))]
    TwoHeaders(HeaderName),
    /// The body lacks what the scheme needs of it.
    #[error("the body has no {0}")]
    MissingInBody(&'static str),
    /// No secret makes this signature of this body.
    #[error("invalid signature")]
    WrongSignature,
    /// Nothing is verified, and who sent it is not on this machine.
    #[error(
        "the request was passed on by a proxy; without `from_anywhere` this source takes those of this machine only"
    )]
    PassedOn,
    /// Nothing is verified, and a page in somebody's browser sent it.
    #[error("a web page sent the request; without `from_anywhere` this source takes those of programs only")]
    OfAPage,
    /// Nothing is verified, and it is for a host of another name: a web page whose name leads to this machine.
    #[error(
        "the Host header is not a name of this machine; without `from_anywhere` this source takes requests to localhost or \
         127.0.0.1 only"
    )]
    ForeignHost,
    /// The signature is right, and older than the source allows.
    #[error("timestamp outside the tolerance of {0} seconds")]
    Stale(u64),
    /// The signature is right, and from further ahead than the source allows.
    #[error("timestamp more than {0} seconds ahead of this host's clock")]
    Ahead(u64),
}

impl SignatureError {
    /// Whether all that is wrong is the time: the sender knew a key, and one of the two clocks may be off.
    pub fn is_of_time(&self) -> bool {
        matches!(self, Self::Stale(_) | Self::Ahead(_))
    }
}

impl Key {
    /// A key that both sides know, of these bytes.
    pub fn shared(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(Kind::Shared(bytes.into()))
    }

    fn ed25519(key: Ed25519) -> Self {
        Self(Kind::Ed25519(Box::new(key)))
    }

    fn as_shared(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Shared(bytes) => Some(bytes),
            Kind::Ed25519(_) => None,
        }
    }

    fn as_ed25519(&self) -> Option<&Ed25519> {
        match &self.0 {
            Kind::Ed25519(key) => Some(key),
            Kind::Shared(_) => None,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl<'a> Request<'a> {
    /// The value of a header the scheme needs, which stands there once.
    fn header(&self, name: &HeaderName) -> Result<&'a [u8], SignatureError> {
        only(self.headers, name)
    }

    /// The value of a header that holds a time in seconds since 1970.
    fn timestamp(&self, name: &HeaderName) -> Result<i64, SignatureError> {
        let value = self.header(name)?;
        let seconds = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        seconds.ok_or_else(|| SignatureError::BadHeader(name.clone(), "a whole number of seconds"))
    }
}

/// The value of a header that stands there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], SignatureError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        (None, _) => Err(SignatureError::MissingHeader(name.clone())),
        (Some(_), Some(_)) => Err(SignatureError::TwoHeaders(name.clone())),
    }
}

/// The JSON of a body, for schemes that look at something in it. Lenient, as everything is that decides on an answer.
fn document<'a>(json: &'a [u8]) -> Option<Document<'a>> {
    Document::read(json).ok()
}

/// Checks that one of the signatures is what one of the keys makes. All keys make theirs and all are compared, whichever
/// fits; a key that makes none fits none.
fn any_fits(keys: &[Key], written: &[&[u8]], make: impl Fn(&Key) -> Option<String>) -> Result<(), SignatureError> {
    let mut any = Choice::from(0);
    for key in keys {
        any |= fit(written, make(key).as_deref());
    }
    if bool::from(any) { Ok(()) } else { Err(SignatureError::WrongSignature) }
}

/// Whether one of these is the signature that was made; all are compared.
fn fit(written: &[&[u8]], made: Option<&str>) -> Choice {
    let mut any = Choice::from(0);
    let Some(made) = made else { return any };
    for written in written {
        any |= made.as_bytes().ct_eq(written);
    }
    any
}

/// Checks a time, in seconds since 1970, against the host's.
fn check_time(window: Window, timestamp: i64, now: SystemTime) -> Result<(), SignatureError> {
    let now = i64::try_from(unix_seconds(now)).unwrap_or(i64::MAX);
    match (window.past, window.ahead) {
        (Some(past), _) if timestamp < now.saturating_sub_unsigned(past.as_secs()) => {
            Err(SignatureError::Stale(past.as_secs()))
        }
        (_, Some(ahead)) if timestamp > now.saturating_add_unsigned(ahead.as_secs()) => {
            Err(SignatureError::Ahead(ahead.as_secs()))
        }
        _ => Ok(()),
    }
}

/// The scheme that settings name.
pub fn scheme(settings: &config::Scheme) -> Box<dyn Scheme> {
    match settings {
        config::Scheme::Unique(window) => Box::new(unique::Unique::new(*window)),
        config::Scheme::Nexus { header } => Box::new(nexus::Nexus::new(header.clone())),
        config::Scheme::Archivus => Box::new(archivus::Archivus),
        config::Scheme::StandardWebhooks(window) => Box::new(standard_webhooks::StandardWebhooks { window: *window }),
        config::Scheme::GitHub => Box::new(github::GitHub),
        config::Scheme::Stripe(window) => Box::new(stripe::Stripe { window: *window }),
        config::Scheme::Slack(window) => Box::new(slack::Slack::new(*window)),
        config::Scheme::Shopify => Box::new(shopify::Shopify),
        config::Scheme::Linear(window) => Box::new(linear::Linear { window: *window }),
        config::Scheme::Discord(window) => Box::new(discord::Discord { window: *window }),
        config::Scheme::Hmac(rules) => Box::new(hmac::Hmac::new(rules.clone())),
        config::Scheme::None { from_anywhere } => Box::new(none::None { from_anywhere: *from_anywhere }),
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Text as the value of a header; what can't stand in one is left out.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// A header's name as people write it: `X-Unique-Signature`.
pub(super) struct Shown<'a>(pub(super) &'a HeaderName);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, word) in self.0.as_str().split('-').enumerate() {
            let (first, rest) = word.split_at(word.len().min(1));
            let dash = if place == 0 { "" } else { "-" };
            write!(f, "{dash}{}{rest}", first.to_ascii_uppercase())?;
        }
        Ok(())
    }
}
