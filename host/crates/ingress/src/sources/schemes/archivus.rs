//! `archivus`: `X-Archivus-Signature: sha256=<hex HMAC-SHA256 of the raw body>`.
//!
//! Source: Archivus's webhook page. It specifies the responses: 401 for a missing or wrong signature, 400 for a body
//! that is not JSON, 200 for everything else, within five seconds.

use axum::http::{HeaderMap, HeaderName, StatusCode};

use super::hmac::Hmac;
use super::{Key, Outgoing, Request, Scheme, SignatureError};
use crate::sources::envelope::{Envelope, NotAnEvent, body};

/// The header with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-archivus-signature");

pub(super) struct Archivus;

fn hmac() -> Hmac {
    Hmac::of_body(SIGNATURE, "sha256=")
}

impl Scheme for Archivus {
    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        hmac().verify(request, keys)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        hmac().sign(outgoing, key)
    }

    /// `{"id": "event_…", "type": "…", "timestamp": "…", "data": {…}}`.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![body("id")],
            name: vec![body("type")],
            created_at: Some(body("timestamp")),
            payload: vec!["data".into()],
            ..Envelope::default()
        }
    }

    /// The documentation requires 400 for a body that is not JSON.
    fn unreadable_status(&self, why: &NotAnEvent) -> StatusCode {
        match why {
            NotAnEvent::NotJson(_) | NotAnEvent::Form { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
