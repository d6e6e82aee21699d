//! `shopify`: `X-Shopify-Hmac-Sha256`, the base64 HMAC-SHA256 of the raw body, keyed with the app's client secret.
//!
//! As Shopify's page on webhooks over HTTPS has it: 401 for a signature that is wrong, 200 within five seconds for all else.
//! Topic, ids and the shop's domain stand in headers that are not signed; the documentation advises to tell duplicates by
//! `X-Shopify-Event-Id`. One thing a merchant does can come under several topics, so the topic is part of the id.

use axum::http::{HeaderMap, HeaderName};

use super::hmac::Hmac;
use super::{Key, Outgoing, Request, Scheme, SignatureError, value};
use crate::sources::envelope::{Envelope, header};

/// The header with the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-shopify-hmac-sha256");

/// The header that says what happened: `orders/create`.
const TOPIC: &str = "x-shopify-topic";

/// The header with the id of what happened.
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
            ..Envelope::whole()
        }
    }
}
