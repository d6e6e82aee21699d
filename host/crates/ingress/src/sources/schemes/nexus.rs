//! `nexus`: NexusGPT signs nothing. The operator may name one header and a value there, which every request carries.
//!
//! As its webhook documentation has it; the value is the secret. Whoever reads one request can write others, so the way
//! to the host should be encrypted.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{Key, NO_KEY, Outgoing, Request, Scheme, SignatureError};
use crate::sources::envelope::{Envelope, body};
use modhost_core::secret::Secret;

const NOT_IN_A_HEADER: &str = "it can't stand in a header: it should be plain characters, without spaces around it";

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
        // Hashes have one length: the time to compare them doesn't tell how long the secret is.
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

    /// `{"event": "MESSAGE_FINALIZED", "payload": {…}}`: an event has no id of its own; the message and the time it was
    /// last changed tell two apart.
    fn envelope(&self) -> Envelope {
        Envelope {
            id: vec![body("payload.id"), body("payload.updatedAt")],
            name: vec![body("event")],
            user: Some(body("payload.userSenderId")),
            created_at: Some(body("payload.createdAt")),
            payload: vec!["payload".into()],
            ..Envelope::whole()
        }
    }
}
