//! `nexus`: NexusGPT signs nothing. The operator may configure one header with a fixed value that every request
//! carries.
//!
//! Source: NexusGPT's webhook documentation. The header's value is the secret. Anyone who can read one request can
//! forge others, so the connection to the host should be encrypted.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{Key, NO_KEY, Outgoing, Request, Scheme, SignatureError};
use crate::sources::envelope::{Envelope, body};
use modhost_core::secret::Secret;

const NOT_IN_A_HEADER: &str =
    "it is not a valid header value: it should be visible ASCII without leading or trailing spaces";

/// The scheme as one source uses it.
pub(super) struct Nexus {
    header: HeaderName,
}

impl Nexus {
    pub(super) fn new(header: HeaderName) -> Self {
        Self { header }
    }
}

impl Scheme for Nexus {
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        let text = secret.expose();
        let can_be_sent = text.trim() == text && HeaderValue::from_str(text).is_ok();
        if can_be_sent { Ok(Key::shared(text.as_bytes())) } else { Err(NOT_IN_A_HEADER) }
    }

    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        // Hashes have a fixed length, so the comparison's duration doesn't reveal the length of the secret.
        let written = Sha256::digest(request.header(&self.header)?);
        let mut any = Choice::from(0);
        for key in keys {
            any |= key.as_shared().map_or(Choice::from(0), |key| Sha256::digest(key).ct_eq(&written));
        }
        if bool::from(any) { Ok(()) } else { Err(SignatureError::WrongSignature) }
    }

    fn sign(&self, _: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let key = key.and_then(Key::as_shared).ok_or(NO_KEY)?;
        let value = HeaderValue::from_bytes(key).map_err(|_| NOT_IN_A_HEADER)?;
        Ok(HeaderMap::from_iter([(self.header.clone(), value)]))
    }

    /// `{"event": "MESSAGE_FINALIZED", "payload": {…}}`: an event has no id of its own; its id is the message's id and
    /// the time of the last change.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![body("payload.id"), body("payload.updatedAt")],
            name: vec![body("event")],
            user: Some(body("payload.userSenderId")),
            created_at: Some(body("payload.createdAt")),
            payload: vec!["payload".into()],
            ..Envelope::default()
        }
    }
}
