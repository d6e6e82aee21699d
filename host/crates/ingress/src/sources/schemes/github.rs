//! `github`: `X-Hub-Signature-256: sha256=<hex HMAC-SHA256 of the raw body>`, keyed with the webhook's secret as text.
//!
//! Source: "Validating webhook deliveries" in GitHub's documentation. The body is JSON, or a form with the JSON in its
//! field `payload`, depending on the content type chosen for the webhook; the signature then covers the form. The
//! event's name and id are in headers that are not signed: a replayed request with a valid signature can carry another
//! id. The documentation still recommends that id for deduplication, since a redelivery keeps it.

use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;

use super::hmac::Hmac;
use super::{Key, Outgoing, Request, Scheme, SignatureError, value};
use crate::sources::envelope::{Envelope, Forms, body, header};
use crate::sources::http;

/// The header with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");

/// The header with the kind of the event: `issues`, `push`, `ping`.
const EVENT: &str = "x-github-event";

/// The header with the id of the delivery; a redelivery has the same id.
const DELIVERY: &str = "x-github-delivery";

pub(super) struct GitHub;

fn hmac() -> Hmac {
    Hmac::of_body(SIGNATURE, "sha256=")
}

impl Scheme for GitHub {
    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        hmac().verify(request, keys)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let mut headers = hmac().sign(outgoing, key)?;
        headers.insert(DELIVERY, value(outgoing.id));
        Ok(headers)
    }

    /// The name of an event is its kind and action: `issues.opened`. Some kinds have no action: `push`.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![header(DELIVERY)],
            name: vec![header(EVENT), body("action")],
            user: Some(body("sender.id")),
            forms: Forms::WithPayload,
            ..Envelope::default()
        }
    }

    /// GitHub sends a `ping` when a webhook is created.
    fn challenge(&self, request: &Request<'_>) -> Option<Response> {
        (request.headers.get(EVENT)?.as_bytes() == b"ping").then(http::success)
    }
}
