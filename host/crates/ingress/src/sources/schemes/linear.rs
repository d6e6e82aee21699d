//! `linear`: `Linear-Signature`, the hex HMAC-SHA256 of the raw body, keyed with the webhook's signing secret.
//!
//! Source: Linear's webhook documentation. The timestamp is in the body, in milliseconds, and so is signed; the
//! documentation recommends rejecting requests older than a minute. The only id of a delivery is in a header that is
//! not signed; the time window limits replays under another id.

use std::borrow::Cow;
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName};

use super::hmac::Hmac;
use super::{Key, Outgoing, Request, Scheme, SignatureError, check_time, document, unix_seconds, value};
use crate::sources::envelope::{Envelope, body, header};
use modhost_config::source::Window;
use modhost_core::json::Kind;

/// The header with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("linear-signature");

/// The header with the id of the delivery; a retry has the same id.
const DELIVERY: &str = "linear-delivery";

/// The field with the time, in milliseconds since 1970.
const TIMESTAMP: &str = "webhookTimestamp";

/// The scheme as one source uses it.
pub(super) struct Linear {
    pub(super) window: Window,
}

fn hmac() -> Hmac {
    Hmac::of_body(SIGNATURE, "")
}

impl Scheme for Linear {
    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        hmac().verify(request, keys)?;
        let found = document(request.body).and_then(|document| document.find([TIMESTAMP]));
        let written = found.filter(|found| !found.is_ambiguous).and_then(|found| found.value.number());
        let milliseconds = written.and_then(|written| written.parse::<i64>().ok());
        let milliseconds = milliseconds.ok_or(SignatureError::MissingInBody("`webhookTimestamp` in milliseconds"))?;
        check_time(self.window, milliseconds.div_euclid(1000), request.now)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let mut headers = hmac().sign(outgoing, key)?;
        headers.insert(DELIVERY, value(outgoing.id));
        Ok(headers)
    }

    fn with_current_time<'a>(&self, body: &'a [u8], now: SystemTime) -> Cow<'a, [u8]> {
        let Some(document) = document(body).filter(|document| document.root().kind() == Kind::Object) else {
            return Cow::Borrowed(body);
        };
        let now = unix_seconds(now).saturating_mul(1000);
        let (before, written, after) = match document.find([TIMESTAMP]) {
            // The field occurs more than once: ambiguous.
            Some(old) if old.is_ambiguous => return Cow::Borrowed(body),
            Some(old) => {
                let place = old.value.range_in(body);
                (&body[..place.start], now.to_string(), &body[place.end..])
            }
            None => {
                let (before, after) = body.split_at(document.root().range_in(body).start + 1);
                let is_empty = after.trim_ascii_start().starts_with(b"}");
                (before, format!("\"{TIMESTAMP}\":{now}{}", if is_empty { "" } else { "," }), after)
            }
        };
        Cow::Owned([before, written.as_bytes(), after].concat())
    }

    /// The name of an event is the type of its object and the action: `Issue.create`.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![header(DELIVERY)],
            name: vec![body("type"), body("action")],
            company: Some(body("organizationId")),
            always_names_company: true,
            user: Some(body("actor.id")),
            created_at: Some(body("createdAt")),
            ..Envelope::default()
        }
    }
}
