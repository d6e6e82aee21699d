//! `slack`: `X-Slack-Signature: v0=<hex HMAC-SHA256 of v0:{X-Slack-Request-Timestamp}:{raw body}>`, keyed with the
//! app's signing secret as text.
//!
//! Source: "Verifying requests from Slack", which recommends rejecting requests older than five minutes. The Events API
//! expects a 2xx within three seconds; otherwise it retries up to three times (`X-Slack-Retry-Num`), with the same
//! `event_id` and a new timestamp and signature. Slack disables the events of an app that fails too often, so events
//! without a module get a success. Slash commands, buttons and dialogs arrive as forms, signed in the same way.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::hmac::Hmac;
use super::{Key, Outgoing, Request, Scheme, SignatureError, document};
use crate::sources::envelope::{Envelope, Forms, body, first_in_body};
use crate::sources::http;
use modhost_config::source::{FieldSelector, SignedPart, Window};
use modhost_core::event::body::{self as event_body, BodyKind};
use modhost_core::secret::Secret;

/// The header with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-slack-signature");

/// The header with the time of the request, in seconds since 1970.
const TIMESTAMP: HeaderName = HeaderName::from_static("x-slack-request-timestamp");

/// The fields with the user: of most events, of events about a user, of changed and deleted messages, of channels and
/// files, of buttons and dialogs, of slash commands.
const USERS: [&str; 9] = [
    "event.user",
    "event.user.id",
    "event.user_id",
    "event.message.user",
    "event.previous_message.user",
    "event.channel.creator",
    "event.file.user",
    "user.id",
    "user_id",
];

/// The message for users whose command no module handles.
const UNHANDLED: &str = "Nothing here answers this command.";

/// The scheme as one source uses it.
pub(super) struct Slack {
    hmac: Hmac,
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

    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        self.hmac.verify(request, keys)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        self.hmac.sign(outgoing, key)
    }

    /// The name of an event is the type and subtype of the inner event: `app_mention`, `message`,
    /// `message.bot_message`. Forms have neither ids nor retries: the name of a button, menu or dialog is its type
    /// (`block_actions`, `view_submission`), that of a slash command the command (`/weather`).
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![FieldSelector::First(vec![body("event_id"), FieldSelector::Hash])],
            name: vec![first_in_body(&["event.type", "type", "command"]), body("event.subtype")],
            company: Some(first_in_body(&["team_id", "team.id", "enterprise_id", "enterprise.id"])),
            always_names_company: true,
            user: Some(first_in_body(&USERS)),
            created_at: Some(FieldSelector::First(vec![
                first_in_body(&["event_time", "event.event_ts", "action_ts"]),
                FieldSelector::Header(TIMESTAMP),
            ])),
            forms: Forms::Any,
            ..Envelope::default()
        }
    }

    /// Slack sends a challenge before it sends events, and a notice when it drops events above the rate limit.
    fn challenge(&self, request: &Request<'_>) -> Option<Response> {
        let document = document(request.body)?;
        let text = |key| document.find([key]).and_then(|found| found.value.text());
        match (&*text("type")?.text, text("challenge")) {
            ("url_verification", Some(challenge)) => Some(Json(json!({ "challenge": challenge.text })).into_response()),
            ("app_rate_limited", _) => {
                tracing::warn!("Slack is rate limiting this app: it drops events above its limit");
                Some(http::success())
            }
            _ => None,
        }
    }

    /// The response to a form is shown to the user or changes the dialog, so it must be empty.
    fn accepted_response(&self, request: &Request<'_>) -> Response {
        match event_body::kind(request.body) {
            BodyKind::Json => http::success(),
            BodyKind::Form | BodyKind::FormWithPayload => StatusCode::OK.into_response(),
        }
    }

    /// An unhandled slash command gets a message that only its user sees.
    fn unhandled_response(&self, request: &Request<'_>) -> Response {
        match event_body::kind(request.body) {
            BodyKind::Form => Json(json!({ "response_type": "ephemeral", "text": UNHANDLED })).into_response(),
            _ => self.accepted_response(request),
        }
    }
}
