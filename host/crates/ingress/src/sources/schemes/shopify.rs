//! `shopify`: `X-Shopify-Hmac-Sha256`, the base64 HMAC-SHA256 of the raw body, keyed with the app's client secret.
//!
//! Source: Shopify's page on webhooks over HTTPS: 401 for a wrong signature, 200 within five seconds for everything
//! else. Topic, ids and the shop's domain are in headers that are not signed; the documentation recommends
//! `X-Shopify-Event-Id` for deduplication. One action of a merchant can produce events with several topics, so the
//! topic is part of the id.

use axum::http::{HeaderMap, HeaderName};

use super::hmac::Hmac;
use super::{Key, Outgoing, Request, Scheme, SignatureError, value};
use crate::sources::envelope::{Envelope, header};

/// The header with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-shopify-hmac-sha256");

/// The header with the topic: `orders/create`.
const TOPIC: &str = "x-shopify-topic";

/// The header with the id of the event.
const EVENT_ID: &str = "x-shopify-event-id";

pub(super) struct Shopify;

fn hmac() -> Hmac {
    Hmac::of_body_in_base64(SIGNATURE)
}

impl Scheme for Shopify {
    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        hmac().verify(request, keys)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let mut headers = hmac().sign(outgoing, key)?;
        headers.insert(EVENT_ID, value(outgoing.id));
        headers.insert("x-shopify-webhook-id", value(outgoing.id));
        Ok(headers)
    }

    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![header(EVENT_ID), header(TOPIC)],
            name: vec![header(TOPIC)],
            created_at: Some(header("x-shopify-triggered-at")),
            ..Envelope::default()
        }
    }
}
