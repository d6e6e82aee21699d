//! `slack`: `X-Slack-Signature: v0=<hex HMAC-SHA256 of v0:{X-Slack-Request-Timestamp}:{raw body}>`, keyed with the app's
//! signing secret as it stands.
//!
//! As "Verifying requests from Slack" has it, which also advises to refuse what is older than five minutes. The Events API
//! wants any 2xx within three seconds, and brings an event again up to three times without it (`X-Slack-Retry-Num`), under
//! the same `event_id` and with a new time and signature.

use axum::Json;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::hmac::Hmac;
use super::{Forgery, Key, Outgoing, Request, Scheme, object};
use crate::config::Secret;
use crate::config::source::{SignedPart, Window};
use crate::sources::envelope::{Envelope, body};
use crate::sources::http;

/// The header with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-slack-signature");

/// The header with the time of the request, in seconds since 1970.
const TIMESTAMP: HeaderName = HeaderName::from_static("x-slack-request-timestamp");

/// The scheme as one source uses it.
pub(super) struct Slack {
    hmac: Hmac,
}

/// What of a body that is no event is looked at.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    challenge: Option<String>,
}

impl Slack {
    pub(super) fn new(window: Window) -> Self {
        let text = |text: &str| SignedPart::Text(text.into());
        let signed = vec![text("v0:"), SignedPart::Header(TIMESTAMP), text(":"), SignedPart::Body];
        Self { hmac: Hmac::of_time_and_body((SIGNATURE, "v0="), TIMESTAMP, signed, window) }
    }
}

impl Scheme for Slack {
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        if secret.expose().starts_with("xox") || secret.expose().starts_with("xapp-") {
            return Err("it is a token; Slack signs with the app's signing secret");
        }
        self.hmac.key(secret)
    }

    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), Forgery> {
        self.hmac.verify(request, keys)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        self.hmac.sign(outgoing, key)
    }

    /// An event is called by the type and subtype of what is inside: `app_mention`, `message`, `message.bot_message`.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![body("event_id")],
            name: vec![body("event.type"), body("event.subtype")],
            company: Some(body("team_id")),
            user: Some(body("event.user")),
            created_at: Some(body("event_time")),
            payload: Vec::new(),
        }
    }

    /// Slack asks with a challenge before it sends events, and tells when it holds some back.
    fn greeting(&self, request: &Request<'_>) -> Option<Response> {
        let told: Told = object(request.body)?;
        match (told.kind.as_str(), told.challenge) {
            ("url_verification", Some(challenge)) => Some(Json(json!({ "challenge": challenge })).into_response()),
            ("app_rate_limited", _) => {
                tracing::warn!("Slack holds events back: more come than it delivers, and those are lost");
                Some(http::success())
            }
            _ => None,
        }
    }
}
