//! `discord`: Ed25519 over `{X-Signature-Timestamp}{raw body}` in `X-Signature-Ed25519`; keys and signature are in hex.
//!
//! Source: Discord's developer documentation, for the interactions endpoint and the event webhooks alike. The key is
//! the application's public key. A wrong signature must be answered with 401: Discord sends invalid ones on purpose,
//! before it accepts an endpoint and regularly afterwards. The documentation specifies no tolerance for the timestamp.
//! An event has no id, so the host recognizes a replay by the hash of the body.
//!
//! A module can't answer within the three seconds that an interaction allows. So the host answers a command or a form
//! with "thinking" and a click with a deferred update, and the module has fifteen minutes to edit the response with the
//! interaction's token.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::ed25519::{self, Ed25519};
use super::{Key, Outgoing, Request, Scheme, SignatureError, check_time, document, unix_seconds, value};
use crate::sources::envelope::{Envelope, body, first_in_body};
use modhost_config::source::Window;
use modhost_core::secret::Secret;

/// The header with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-signature-ed25519");

/// The header with the time, in seconds since 1970.
const TIMESTAMP: HeaderName = HeaderName::from_static("x-signature-timestamp");

/// The message for users whose interaction no module handles.
const UNHANDLED: &str = "Nothing here answers this.";

/// The flag of a message that only the interacting user sees.
const EPHEMERAL: u32 = 1 << 6;

/// The scheme as one source uses it.
pub(super) struct Discord {
    pub(super) window: Window,
}

/// The kind of a request, determined from its body.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A ping of the event webhooks.
    EventPing,
    /// A ping of the interactions endpoint.
    Ping,
    /// An event. It has the same type number as a ping of the interactions endpoint.
    Event,
    /// A command.
    Command,
    /// A button or menu of a message.
    Component,
    /// A request for autocomplete choices while a user types a command.
    Autocomplete,
    /// A submitted form (modal).
    Form,
    /// Any other request.
    Other,
}

impl Kind {
    fn of(body: &[u8]) -> Self {
        let Some(document) = document(body) else { return Self::Other };
        let find = |key| document.find([key]).map(|found| found.value).filter(|value| !value.is_null());
        let is_object = document.root().entries().is_some();
        let number = find("type").filter(|_| is_object).and_then(|kind| kind.number()?.parse::<u8>().ok());
        match (number, find("event").is_some()) {
            (Some(0), _) => Self::EventPing,
            (Some(1), true) => Self::Event,
            (Some(1), false) => Self::Ping,
            (Some(2), _) => Self::Command,
            (Some(3), _) => Self::Component,
            (Some(4), _) => Self::Autocomplete,
            (Some(5), _) => Self::Form,
            _ => Self::Other,
        }
    }
}

impl Scheme for Discord {
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        let bytes = hex::decode(secret.expose()).ok();
        let key = bytes.and_then(|bytes| match bytes.len() {
            32 => Ed25519::public(&bytes),
            64 => Ed25519::private(&bytes),
            _ => None,
        });
        key.map(Key::ed25519).ok_or(
            "it should be the application's public key, 64 hex digits; or for signing, the private and the public one, 128",
        )
    }

    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        let written = request.header(&SIGNATURE)?;
        let time = request.header(&TIMESTAMP)?;
        let signature = hex::decode(written).ok().filter(|bytes| bytes.len() == ed25519::SIGNATURE);
        // Only lowercase hex is accepted, so that each signature has one representation.
        let signature = signature.filter(|bytes| hex::encode(bytes).as_bytes() == written);
        let signature = signature.ok_or(SignatureError::WrongSignature)?;
        let message = [time, request.body].concat();
        let mut any = false;
        for key in keys.iter().filter_map(Key::as_ed25519) {
            any |= key.verifies(&message, &signature);
        }
        if !any {
            return Err(SignatureError::WrongSignature);
        }
        if self.window == Window::ANY {
            Ok(())
        } else {
            check_time(self.window, request.timestamp(&TIMESTAMP)?, request.now)
        }
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let key = key.and_then(Key::as_ed25519).ok_or("it needs a key")?;
        let time = unix_seconds(outgoing.now).to_string();
        let signature = key.sign(&[time.as_bytes(), outgoing.body].concat()).ok_or(
            "a public key can't sign, and Discord doesn't publish its private key: generate a key pair for tests",
        )?;
        Ok(HeaderMap::from_iter([(SIGNATURE, value(&hex::encode(signature))), (TIMESTAMP, value(&time))]))
    }

    /// The name of an event is its type, that of a command the command's name, and that of a click or a form the custom
    /// id that the app's developer gave it.
    fn envelope(&self) -> Envelope {
        Envelope {
            name: vec![body("event.type"), body("data.name"), body("data.custom_id")],
            // In a server, in a direct message, and in the event webhooks.
            user: Some(first_in_body(&["member.user.id", "user.id", "event.data.user.id"])),
            created_at: Some(body("event.timestamp")),
            ..Envelope::default()
        }
    }

    fn challenge(&self, request: &Request<'_>) -> Option<Response> {
        match Kind::of(request.body) {
            Kind::EventPing => Some(no_content()),
            Kind::Ping => Some(answer(json!({ "type": 1 }))),
            // A user who is typing can't wait for a module.
            Kind::Autocomplete => Some(answer(json!({ "type": 8, "data": { "choices": [] } }))),
            _ => None,
        }
    }

    fn accepted_response(&self, request: &Request<'_>) -> Response {
        match Kind::of(request.body) {
            Kind::Command | Kind::Form => answer(json!({ "type": 5 })),
            Kind::Component => answer(json!({ "type": 6 })),
            _ => no_content(),
        }
    }

    /// An unhandled interaction gets a message that only its user sees: "thinking" would never end.
    fn unhandled_response(&self, request: &Request<'_>) -> Response {
        match Kind::of(request.body) {
            Kind::Command | Kind::Form | Kind::Component => {
                answer(json!({ "type": 4, "data": { "content": UNHANDLED, "flags": EPHEMERAL } }))
            }
            _ => no_content(),
        }
    }
}

fn answer(body: Value) -> Response {
    Json(body).into_response()
}

/// Discord requires a content type even without content.
fn no_content() -> Response {
    (StatusCode::NO_CONTENT, [(CONTENT_TYPE, "application/json")]).into_response()
}
