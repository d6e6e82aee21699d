//! Unique AI's signature: lowercase hex HMAC-SHA256 of the raw body, keyed with the endpoint secret as it stands.
//!
//! The rules and their order are those of `Webhook.construct_event` in Unique's Python SDK: both headers there, the
//! timestamp an integer, the signature right, and, if a tolerance is set, the timestamp not older than that. The
//! timestamp is not covered by the signature, so it can't hold off a replay: the event's id does.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use super::Forgery;
use crate::config::Secret;

/// The header with the signature.
pub const SIGNATURE: &str = "x-unique-signature";

/// The header with the time of the delivery, in seconds since 1970.
pub const CREATED_AT: &str = "x-unique-created-at";

/// The scheme as one source uses it.
pub struct Unique {
    secrets: Vec<Secret>,
    tolerance: Option<Duration>,
}

impl Unique {
    /// A scheme that accepts what any of these secrets signed, and nothing older than the tolerance.
    pub fn new(secrets: Vec<Secret>, tolerance: Option<Duration>) -> Self {
        Self { secrets, tolerance }
    }

    /// Checks that a request comes from who knows one of the secrets.
    ///
    /// # Errors
    ///
    /// When it doesn't.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Result<(), Forgery> {
        let signature = header(headers, SIGNATURE, "X-Unique-Signature")?;
        let created_at = header(headers, CREATED_AT, "X-Unique-Created-At")?;
        let created_at: i64 = std::str::from_utf8(created_at)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or(Forgery::BadHeader("X-Unique-Created-At", "a whole number of seconds"))?;
        if !self.signed(signature, body) {
            return Err(Forgery::WrongSignature);
        }
        let Some(tolerance) = self.tolerance else { return Ok(()) };
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let oldest = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub_unsigned(tolerance.as_secs());
        if created_at < oldest { Err(Forgery::Stale(tolerance.as_secs())) } else { Ok(()) }
    }

    /// Tries every secret and compares in constant time, so that the time taken tells nothing about any of them.
    fn signed(&self, signature: &[u8], body: &[u8]) -> bool {
        let mut any = Choice::from(0);
        for secret in &self.secrets {
            any |= sign(secret, body).as_bytes().ct_eq(signature);
        }
        any.into()
    }
}

/// The signature of a body, as the header has it.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    // HMAC takes a key of any length, so that this never fails.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn header<'a>(headers: &'a HeaderMap, name: &'static str, shown: &'static str) -> Result<&'a [u8], Forgery> {
    headers.get(name).map(|value| value.as_bytes()).ok_or(Forgery::MissingHeader(shown))
}
