//! `standard-webhooks`: the scheme of <https://www.standardwebhooks.com>, and of Svix, whose scheme it is based on.
//!
//! Headers: `webhook-id`, `webhook-timestamp` in seconds, and `webhook-signature`, a space-separated list of signatures
//! of `{id}.{timestamp}.{raw body}`. `v1,<base64>` is an HMAC-SHA256; its key is base64 with the prefix `whsec_`.
//! `v1a,<base64>` is Ed25519; its public key has the prefix `whpk_`, its private key `whsk_`. Other versions are
//! ignored. Svix names the headers `svix-id`, `svix-timestamp` and `svix-signature`. Each retry has a new timestamp and
//! signature and the same id.

use axum::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD as BASE64};
use subtle::Choice;

use super::ed25519::{self, Ed25519};
use super::hmac::mac;
use super::{Key, MAX_SIGNATURES, Outgoing, Request, Scheme, SignatureError, check_time, matches, unix_seconds, value};
use crate::sources::envelope::{Envelope, body};
use modhost_config::source::{Algorithm, FieldSelector, Window};
use modhost_core::secret::Secret;

/// The base64 decoder for secrets; padding is optional because some senders omit it.
const SECRET_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The scheme as one source uses it.
pub(super) struct StandardWebhooks {
    pub(super) window: Window,
}

/// The names of the headers.
struct Names {
    id: HeaderName,
    timestamp: HeaderName,
    signature: HeaderName,
}

const STANDARD: Names = Names {
    id: HeaderName::from_static("webhook-id"),
    timestamp: HeaderName::from_static("webhook-timestamp"),
    signature: HeaderName::from_static("webhook-signature"),
};

const SVIX: Names = Names {
    id: HeaderName::from_static("svix-id"),
    timestamp: HeaderName::from_static("svix-timestamp"),
    signature: HeaderName::from_static("svix-signature"),
};

impl Names {
    /// Returns the header names of a request. The id header decides for all three, so that [`Scheme::envelope`] reads
    /// the id that was signed.
    fn of(headers: &HeaderMap) -> Self {
        let is_svix = !headers.contains_key(STANDARD.id) && headers.contains_key(SVIX.id);
        if is_svix { SVIX } else { STANDARD }
    }
}

impl Scheme for StandardWebhooks {
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        const FORM: &str = "it should be base64 with the prefix whsec_, or for Ed25519 whpk_ or whsk_";
        let text = secret.expose();
        let (kind, encoded) = match text.split_once('_') {
            Some((kind @ ("whsec" | "whpk" | "whsk"), encoded)) => (kind, encoded),
            // Like the official libraries, accept a shared secret without its prefix.
            _ => ("whsec", text),
        };
        let bytes = SECRET_BASE64.decode(encoded).ok().filter(|bytes| !bytes.is_empty()).ok_or(FORM)?;
        match kind {
            "whpk" => Ed25519::public(&bytes).map(Key::ed25519).ok_or("whpk_ should be followed by 32 bytes in base64"),
            "whsk" => {
                let pair = Ed25519::private(&bytes).map(Key::ed25519);
                pair.ok_or("whsk_ should be followed by a private key of 64 or 32 bytes in base64")
            }
            _ => Ok(Key::shared(bytes)),
        }
    }

    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        let names = Names::of(request.headers);
        let id = request.header(&names.id)?;
        let timestamp = request.timestamp(&names.timestamp)?;
        let time = request.header(&names.timestamp)?;
        let written: Vec<&[u8]> =
            request.header(&names.signature)?.split(|byte| *byte == b' ').filter(|it| !it.is_empty()).collect();
        if written.len() > MAX_SIGNATURES {
            return Err(SignatureError::BadHeader(names.signature, "a list of at most 16 signatures"));
        }
        let signed = [id, b".", time, b".", request.body];
        let mut any = Choice::from(0);
        for key in keys {
            any |= match key.as_ed25519() {
                Some(key) => verified(key, &signed.concat(), &written),
                None => matches(&written, symmetric(key, &signed).as_deref()),
            };
        }
        if !bool::from(any) {
            return Err(SignatureError::WrongSignature);
        }
        check_time(self.window, timestamp, request.now)
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        const NO_PRIVATE_KEY: &str = "it needs a secret, whsec_… or whsk_…; a public key can't sign";
        let key = key.ok_or(NO_PRIVATE_KEY)?;
        let time = unix_seconds(outgoing.now).to_string();
        // An id given by the caller is the one that is signed.
        let id = outgoing.headers.get(STANDARD.id).cloned().unwrap_or_else(|| value(outgoing.id));
        let signed: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", outgoing.body];
        let signature = match key.as_ed25519() {
            Some(key) => key.sign(&signed.concat()).map(|signature| format!("v1a,{}", BASE64.encode(signature))),
            None => symmetric(key, &signed),
        };
        Ok(HeaderMap::from_iter([
            (STANDARD.id, id),
            (STANDARD.timestamp, value(&time)),
            (STANDARD.signature, value(&signature.ok_or(NO_PRIVATE_KEY)?)),
        ]))
    }

    /// The sender defines the body; the specification recommends `type` and `timestamp`.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![FieldSelector::EitherHeader(STANDARD.id, SVIX.id)],
            name: vec![body("type")],
            created_at: Some(body("timestamp")),
            ..Envelope::default()
        }
    }
}

/// Returns the expected signature for a shared key.
fn symmetric(key: &Key, signed: &[&[u8]]) -> Option<String> {
    mac(Algorithm::Sha256, key, signed).map(|mac| format!("v1,{}", BASE64.encode(mac)))
}

/// Returns whether one of the signatures matches the message; all are tried.
fn verified(key: &Ed25519, message: &[u8], written: &[&[u8]]) -> Choice {
    let mut any = Choice::from(0);
    for signature in written.iter().filter_map(|written| written.strip_prefix(b"v1a,")) {
        let signature = BASE64.decode(signature).ok().filter(|bytes| bytes.len() == ed25519::SIGNATURE);
        any |= Choice::from(u8::from(signature.is_some_and(|signature| key.verifies(message, &signature))));
    }
    any
}
