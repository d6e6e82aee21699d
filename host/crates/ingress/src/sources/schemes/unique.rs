//! `unique`: Unique AI's signature, the lowercase hex HMAC-SHA256 of the raw body, keyed with the endpoint secret as it
//! stands.
//!
//! The rules and their order are those of `Webhook.construct_event` in Unique's Python SDK: both headers there, the
//! timestamp an integer, the signature right, and, if a tolerance is set, the timestamp not older than that. What the
//! SDK lacks and the host has is a limit for times ahead of its clock. The timestamp is not covered by the signature, so
//! it can't hold off a replay: the event's id does.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;

use super::hmac::mac;
use super::{Key, NO_KEY, Outgoing, Request, Scheme, SignatureError, any_fits, check_time, unix_seconds, value};
use crate::sources::envelope::{Envelope, body};
use modhost_config::source::{Algorithm, Window};
use modhost_core::secret::Secret;

/// The header with the signature.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-unique-signature");

/// The header with the time of the delivery, in seconds since 1970.
pub const CREATED_AT: HeaderName = HeaderName::from_static("x-unique-created-at");

/// The scheme as one source uses it.
pub struct Unique {
    window: Window,
}

impl Unique {
    /// A scheme that accepts times within this window.
    pub fn new(window: Window) -> Self {
        Self { window }
    }
}

impl Scheme for Unique {
    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        let signature = request.header(&SIGNATURE)?;
        let created_at = request.timestamp(&CREATED_AT)?;
        any_fits(keys, &[signature], |key| signature_of(key, request.body))?;
        check_time(self.window, created_at, request.now)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let signature = signature_of(key.ok_or(NO_KEY)?, outgoing.body).ok_or(NO_KEY)?;
        let mut headers = HeaderMap::new();
        headers.insert(SIGNATURE, value(&signature));
        headers.insert(CREATED_AT, unix_seconds(outgoing.now).into());
        // What else the platform sends says what the body says.
        let event: Value = serde_json::from_slice(outgoing.body).unwrap_or_default();
        for (name, field) in [
            ("x-unique-id", "id"),
            ("x-unique-version", "version"),
            ("x-unique-user-id", "userId"),
            ("x-unique-company-id", "companyId"),
        ] {
            if let Some(text) = event[field].as_str() {
                headers.insert(HeaderName::from_static(name), value(text));
            }
        }
        Ok(headers)
    }

    fn envelope(&self) -> Envelope {
        envelope()
    }

    /// Unique takes any status but 2xx, 3xx, 429 and 5xx for an endpoint that has expired, and sends nothing more. That is
    /// right for a forgery; a signature that is right and only the time is wrong may be this host's own clock.
    fn refusal(&self, signature_error: &SignatureError) -> StatusCode {
        if signature_error.is_of_time() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST }
    }

    /// An endpoint belongs to an app of one company: that this host doesn't know it is most likely its settings' fault.
    fn unclaimed(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Where the parts of an event of Unique's stand, however it comes: as in its webhook documentation and in the models of
/// its Python toolkit.
pub fn envelope() -> Envelope {
    Envelope {
        id: vec![body("id")],
        name: vec![body("event")],
        company: Some(body("companyId")),
        always_names_company: true,
        user: Some(body("userId")),
        created_at: Some(body("createdAt")),
        payload: vec!["payload".into()],
        ..Envelope::whole()
    }
}

/// The signature of a body, as the header has it.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    // A shared key makes a signature of anything.
    signature_of(&Key::shared(secret.expose().as_bytes()), body).unwrap_or_default()
}

fn signature_of(key: &Key, body: &[u8]) -> Option<String> {
    mac(Algorithm::Sha256, key, &[body]).map(hex::encode)
}
