//! `unique`: Unique AI's signature, the lowercase hex HMAC-SHA256 of the raw body, keyed with the endpoint secret as
//! text.
//!
//! The rules and their order are those of `Webhook.construct_event` in Unique's Python SDK: both headers present, the
//! timestamp an integer, the signature valid, and the timestamp not older than the tolerance, if one is set. The host
//! also limits timestamps ahead of its clock, which the SDK doesn't. The signature doesn't cover the timestamp, so the
//! timestamp can't prevent replays; deduplication by the event's id does.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;

use super::hmac::mac;
use super::{Key, NO_KEY, Outgoing, Request, Scheme, SignatureError, any_matches, check_time, unix_seconds, value};
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
    /// Creates a scheme that accepts timestamps within this window.
    pub fn new(window: Window) -> Self {
        Self { window }
    }
}

impl Scheme for Unique {
    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        let signature = request.header(&SIGNATURE)?;
        let created_at = request.timestamp(&CREATED_AT)?;
        any_matches(keys, &[signature], |key| signature_of(key, request.body))?;
        check_time(self.window, created_at, request.now)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let signature = signature_of(key.ok_or(NO_KEY)?, outgoing.body).ok_or(NO_KEY)?;
        let mut headers = HeaderMap::new();
        headers.insert(SIGNATURE, value(&signature));
        headers.insert(CREATED_AT, unix_seconds(outgoing.now).into());
        // The platform's other headers repeat fields of the body.
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

    /// After any status but 2xx, 3xx, 429 and 5xx, Unique marks the endpoint as expired and sends no further events.
    /// That is right for a forged request. If only the time is wrong, the cause may be this host's clock.
    fn rejection_status(&self, signature_error: &SignatureError) -> StatusCode {
        if signature_error.is_of_time() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST }
    }

    /// An endpoint belongs to an app of one company. If no tenant has that company, the host's settings are most likely
    /// wrong.
    fn unclaimed_status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Returns where the parts of an event of Unique are, for webhooks and the event socket: from its webhook documentation
/// and the models of its Python toolkit.
pub fn envelope() -> Envelope {
    Envelope {
        id: vec![body("id")],
        name: vec![body("event")],
        company: Some(body("companyId")),
        always_names_company: true,
        user: Some(body("userId")),
        created_at: Some(body("createdAt")),
        payload: vec!["payload".into()],
        ..Envelope::default()
    }
}

/// Returns the signature of a body, as sent in the header.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    // Signing with a shared key always succeeds.
    signature_of(&Key::shared(secret.expose().as_bytes()), body).unwrap_or_default()
}

fn signature_of(key: &Key, body: &[u8]) -> Option<String> {
    mac(Algorithm::Sha256, key, &[body]).map(hex::encode)
}
