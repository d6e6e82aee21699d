//! `stripe`: `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>…]`, the HMAC-SHA256 of `{t}.{raw body}`, keyed with the
//! endpoint's signing secret as text, including its prefix `whsec_`.
//!
//! Source: "Verify webhook signatures manually" in Stripe's documentation and `Webhook.construct_event` of its SDKs:
//! one `v1` per active secret during a rotation, other versions ignored, five minutes of tolerance. Each retry has a
//! new timestamp and signature. The documentation's examples answer a wrong signature with 400; Stripe retries after
//! any response but 2xx.

use axum::http::{HeaderMap, HeaderName, StatusCode};

use super::hmac::mac;
use super::{
    Key, MAX_SIGNATURES, NO_KEY, Outgoing, Request, Scheme, SignatureError, any_matches, check_time, unix_seconds,
    value,
};
use crate::sources::envelope::{Envelope, body};
use modhost_config::source::{Algorithm, Window};
use modhost_core::secret::Secret;

/// The header with the timestamp and the signatures.
const SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// The scheme as one source uses it.
pub(super) struct Stripe {
    pub(super) window: Window,
}

/// The parsed header.
struct Signed<'a> {
    /// The timestamp as text, as it is signed.
    written: &'a str,
    /// The timestamp in seconds since 1970.
    timestamp: i64,
    signatures: Vec<&'a [u8]>,
}

impl<'a> Signed<'a> {
    fn read(header: &'a [u8]) -> Result<Self, SignatureError> {
        let bad = |what| SignatureError::BadHeader(SIGNATURE, what);
        let text = std::str::from_utf8(header).map_err(|_| bad("readable"))?;
        let parts = || text.split(',').filter_map(|part| part.split_once('='));
        let mut times = parts().filter(|(key, _)| *key == "t").map(|(_, time)| time);
        let (Some(written), None) = (times.next(), times.next()) else {
            return Err(bad("one time t= and signatures v1="));
        };
        let timestamp = written.parse().map_err(|_| bad("one time t= in whole seconds and signatures v1="))?;
        let signatures: Vec<_> =
            parts().filter(|(key, _)| *key == "v1").map(|(_, signature)| signature.as_bytes()).collect();
        match signatures.len() {
            0 => Err(bad("one time t= and signatures v1=")),
            1..=MAX_SIGNATURES => Ok(Self { written, timestamp, signatures }),
            _ => Err(bad("a list of at most 16 signatures")),
        }
    }
}

fn signature_of(key: &Key, time: &str, body: &[u8]) -> Option<String> {
    mac(Algorithm::Sha256, key, &[time.as_bytes(), b".", body]).map(hex::encode)
}

impl Scheme for Stripe {
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        match secret.expose().strip_prefix("whsec_") {
            Some("") | None => Err("it should start with whsec_: the endpoint's signing secret, not an API key"),
            Some(_) => Ok(Key::shared(secret.expose().as_bytes())),
        }
    }

    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        let Signed { written, timestamp, signatures } = Signed::read(request.header(&SIGNATURE)?)?;
        any_matches(keys, &signatures, |key| signature_of(key, written, request.body))?;
        check_time(self.window, timestamp, request.now)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let time = unix_seconds(outgoing.now).to_string();
        let signature = signature_of(key.ok_or(NO_KEY)?, &time, outgoing.body).ok_or(NO_KEY)?;
        Ok(HeaderMap::from_iter([(SIGNATURE, value(&format!("t={time},v1={signature}")))]))
    }

    /// The payload is the whole body: not every event has `data`.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![body("id")],
            name: vec![body("type")],
            created_at: Some(body("created")),
            ..Envelope::default()
        }
    }

    fn rejection_status(&self, _: &SignatureError) -> StatusCode {
        StatusCode::BAD_REQUEST
    }
}
