//! Verification of requests: one file per signature scheme.
//!
//! A scheme contains only rules; the source holds the keys. Schemes compare sender input in constant time and try every
//! key, whichever matches, so that timing reveals nothing about a key.

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

/// Maximum number of signatures in one header. Key rotation needs no more, and each costs time to verify.
const MAX_SIGNATURES: usize = 16;

/// The error of signing without a secret.
const NO_KEY: &str = "it needs a secret";

/// How a platform signs its requests and what responses it expects.
pub trait Scheme: Send + Sync {
    /// Parses a secret into a key in the form the scheme uses.
    ///
    /// # Errors
    ///
    /// If the secret doesn't have the scheme's format. The message describes the format and never contains the secret.
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        Ok(Key::shared(secret.expose().as_bytes()))
    }

    /// Verifies that a request was signed with one of the keys.
    ///
    /// # Errors
    ///
    /// If the signature is missing, invalid or outdated.
    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError>;

    /// Signs a body as the platform does and returns the headers.
    ///
    /// # Errors
    ///
    /// If the host can't sign for the platform. The message says why.
    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str>;

    /// Returns the body with the current time in it, for platforms that send a timestamp in the body.
    fn with_current_time<'a>(&self, body: &'a [u8], now: SystemTime) -> Cow<'a, [u8]> {
        let _ = now;
        Cow::Borrowed(body)
    }

    /// Returns where the parts of an event are in a request.
    fn envelope(&self) -> Envelope;

    /// Returns the response status for a rejected request.
    fn rejection_status(&self, signature_error: &SignatureError) -> StatusCode {
        let _ = signature_error;
        StatusCode::UNAUTHORIZED
    }

    /// Returns the response to a verified request that is addressed to the endpoint instead of a module, such as a
    /// platform's check that the endpoint exists. `None` for events.
    fn challenge(&self, request: &Request<'_>) -> Option<Response> {
        let _ = request;
        None
    }

    /// Returns the response to a recorded event.
    fn accepted_response(&self, request: &Request<'_>) -> Response {
        let _ = request;
        super::http::success()
    }

    /// Returns the response to an event that no module subscribes to or whose company no tenant has. It must be a
    /// success: otherwise the platform would retry and finally disable the endpoint.
    fn unhandled_response(&self, request: &Request<'_>) -> Response {
        self.accepted_response(request)
    }

    /// Returns the response status for an event of a company that no tenant has. The default is a success, for
    /// platforms whose apps are installed in many companies: they sign for all of them with one key and disable an
    /// endpoint that refuses some.
    fn unclaimed_status(&self) -> StatusCode {
        StatusCode::OK
    }

    /// Returns the response status for a verified request that can't be read as an event. The host stores the request
    /// for operators; a retry may reach a host that can read it.
    fn unreadable_status(&self, why: &NotAnEvent) -> StatusCode {
        let _ = why;
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// A request as received, before verification.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The raw body.
    pub body: &'a [u8],
    /// The time of arrival.
    pub now: SystemTime,
}

/// A request to sign as a platform would.
pub struct Outgoing<'a> {
    /// The raw body.
    pub body: &'a [u8],
    /// The headers set so far, for schemes that sign headers.
    pub headers: &'a HeaderMap,
    /// The time of the request.
    pub now: SystemTime,
    /// A unique id, for schemes whose requests carry one.
    pub id: &'a str,
}

/// A key of a source in the form its scheme uses. Its `Debug` output doesn't contain the key.
pub struct Key(Kind);

enum Kind {
    /// A shared secret.
    Shared(Box<[u8]>),
    /// The platform's private key, or only its public half.
    Ed25519(Box<Ed25519>),
}

/// Why a request failed verification. The text goes to the sender and to the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A required header is missing.
    #[error("missing header {}", HeaderCase(.0))]
    MissingHeader(HeaderName),
    /// A header has an invalid format.
    #[error("header {} is not {}", HeaderCase(.0), .1)]
    BadHeader(HeaderName, &'static str),
    /// A header occurs more than once: ambiguous.
    #[error("more than one header {}", HeaderCase(.0))]
    TwoHeaders(HeaderName),
    /// The body lacks a field that the scheme needs.
    #[error("the body has no {0}")]
    MissingInBody(&'static str),
    /// The signature matches none of the keys.
    #[error("invalid signature")]
    WrongSignature,
    /// Scheme `none`: a proxy forwarded the request, so its sender isn't on this machine.
    #[error(
        "the request was passed on by a proxy; without `from_anywhere` this source takes those of this machine only"
    )]
    ViaProxy,
    /// Scheme `none`: a web page in a browser sent the request.
    #[error("a web page sent the request; without `from_anywhere` this source takes those of programs only")]
    FromWebPage,
    /// Scheme `none`: the `Host` header names another host, as after DNS rebinding.
    #[error(
        "the Host header is not a name of this machine; without `from_anywhere` this source takes requests to localhost or \
         127.0.0.1 only"
    )]
    ForeignHost,
    /// The signature is valid, but older than the source allows.
    #[error("timestamp outside the tolerance of {0} seconds")]
    Stale(u64),
    /// The signature is valid, but its time is further ahead than the source allows.
    #[error("timestamp more than {0} seconds ahead of this host's clock")]
    Ahead(u64),
}

impl SignatureError {
    /// Returns whether only the time is wrong: the sender has a valid key, and one of the two clocks may be off.
    pub fn is_of_time(&self) -> bool {
        matches!(self, Self::Stale(_) | Self::Ahead(_))
    }
}

impl Key {
    /// Creates a shared key from these bytes.
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
    /// Returns the value of a header that must occur exactly once.
    fn header(&self, name: &HeaderName) -> Result<&'a [u8], SignatureError> {
        single_header(self.headers, name)
    }

    /// Returns the value of a header that contains seconds since 1970.
    fn timestamp(&self, name: &HeaderName) -> Result<i64, SignatureError> {
        let value = self.header(name)?;
        let seconds = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        seconds.ok_or_else(|| SignatureError::BadHeader(name.clone(), "a whole number of seconds"))
    }
}

/// Returns the value of a header that must occur exactly once.
fn single_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], SignatureError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        (None, _) => Err(SignatureError::MissingHeader(name.clone())),
        (Some(_), Some(_)) => Err(SignatureError::TwoHeaders(name.clone())),
    }
}

/// Parses the body of a request for schemes that read a field of it. Uses the same lenient reader as the envelope: an
/// invalid value elsewhere in the body is ignored.
fn document<'a>(json: &'a [u8]) -> Option<Document<'a>> {
    Document::read(json).ok()
}

/// Checks that one of the signatures matches one of the keys. Every key is tried and every signature compared,
/// whichever matches; a key of another kind, for which `make` returns `None`, matches nothing.
fn any_matches(keys: &[Key], written: &[&[u8]], make: impl Fn(&Key) -> Option<String>) -> Result<(), SignatureError> {
    let mut any = Choice::from(0);
    for key in keys {
        any |= matches(written, make(key).as_deref());
    }
    if bool::from(any) { Ok(()) } else { Err(SignatureError::WrongSignature) }
}

/// Returns whether one of the signatures equals `made`; all are compared.
fn matches(written: &[&[u8]], made: Option<&str>) -> Choice {
    let mut any = Choice::from(0);
    let Some(made) = made else { return any };
    for written in written {
        any |= made.as_bytes().ct_eq(written);
    }
    any
}

/// Checks that a time, in seconds since 1970, is within the window around `now`.
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

/// Creates the scheme named in the settings.
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

/// Converts text to a header value; text that can't be one becomes an empty value.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Displays a header name in the usual case: `X-Unique-Signature`.
pub(super) struct HeaderCase<'a>(pub(super) &'a HeaderName);

impl fmt::Display for HeaderCase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, word) in self.0.as_str().split('-').enumerate() {
            let (first, rest) = word.split_at(word.len().min(1));
            let dash = if place == 0 { "" } else { "-" };
            write!(f, "{dash}{}{rest}", first.to_ascii_uppercase())?;
        }
        Ok(())
    }
}
