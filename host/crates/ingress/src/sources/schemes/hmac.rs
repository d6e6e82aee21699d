//! `hmac`: a signature in a header, as modules.toml tells it; and what most named schemes are made of.
//!
//! The signature is compared as it is written: uppercase hex, a missing padding or another prefix are not what the sender
//! was told to write.

use axum::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::{Key, NO_KEY, Outgoing, Request, Scheme, SignatureError, any_fits, check_time, only, unix_seconds, value};
use crate::sources::envelope::{Envelope, Forms};
use modhost_config::source::{Algorithm, Encoding, HmacRules, KeyEncoding, SignedPart, Window};
use modhost_core::secret::Secret;

/// The scheme as one source uses it.
pub struct Hmac {
    rules: HmacRules,
}

impl Hmac {
    /// A scheme of these rules.
    pub fn new(rules: HmacRules) -> Self {
        Self { rules }
    }

    /// The simplest there is, and the commonest: the body's HMAC-SHA256, in hex behind a prefix.
    pub(super) fn of_body(header: HeaderName, prefix: &str) -> Self {
        Self::new(HmacRules {
            header,
            prefix: prefix.to_owned(),
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
            key: KeyEncoding::Text,
            signed: vec![SignedPart::Body],
            timestamp: None,
            window: Window::ANY,
        })
    }

    /// The same in base64, without a prefix.
    pub(super) fn of_body_in_base64(header: HeaderName) -> Self {
        let Self { rules } = Self::of_body(header, "");
        Self::new(HmacRules { encoding: Encoding::Base64, ..rules })
    }

    /// The same in hex, of what `signed` says, with a header for the time.
    pub(super) fn of_time_and_body(
        (header, prefix): (HeaderName, &str),
        timestamp: HeaderName,
        signed: Vec<SignedPart>,
        window: Window,
    ) -> Self {
        let Self { rules } = Self::of_body(header, prefix);
        Self::new(HmacRules { signed, timestamp: Some(timestamp), window, ..rules })
    }

    /// What is signed of a request.
    fn signed<'a>(&'a self, headers: &'a HeaderMap, body: &'a [u8]) -> Result<Vec<&'a [u8]>, SignatureError> {
        let part = |part: &'a SignedPart| match part {
            SignedPart::Text(text) => Ok(text.as_bytes()),
            SignedPart::Body => Ok(body),
            SignedPart::Header(name) => only(headers, name),
        };
        self.rules.signed.iter().map(part).collect()
    }

    /// What has to stand in the header.
    fn signature(&self, key: &Key, signed: &[&[u8]]) -> Option<String> {
        let mac = mac(self.rules.algorithm, key, signed)?;
        let written = match self.rules.encoding {
            Encoding::Hex => hex::encode(mac),
            Encoding::Base64 => BASE64.encode(mac),
        };
        Some(format!("{}{written}", self.rules.prefix))
    }
}

impl Scheme for Hmac {
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        let text = secret.expose();
        match self.rules.key {
            KeyEncoding::Text => Ok(Key::shared(text.as_bytes())),
            KeyEncoding::Hex => hex::decode(text).map(Key::shared).map_err(|_| "it should be written in hex"),
            KeyEncoding::Base64 => BASE64.decode(text).map(Key::shared).map_err(|_| "it should be written in base64"),
        }
    }

    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), SignatureError> {
        let written = request.header(&self.rules.header)?;
        let timestamp = self.rules.timestamp.as_ref().map(|name| request.timestamp(name)).transpose()?;
        let signed = self.signed(request.headers, request.body)?;
        any_fits(keys, &[written], |key| self.signature(key, &signed))?;
        timestamp.map_or(Ok(()), |timestamp| check_time(self.rules.window, timestamp, request.now))
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let key = key.ok_or(NO_KEY)?;
        let mut headers = HeaderMap::new();
        if let Some(name) = &self.rules.timestamp {
            headers.insert(name, unix_seconds(outgoing.now).into());
        }
        let mut all = outgoing.headers.clone();
        all.extend(headers.clone());
        let signed = self.signed(&all, outgoing.body);
        let signed = signed.map_err(|_| "a header that is part of what is signed has to be given, once")?;
        headers.insert(&self.rules.header, value(&self.signature(key, &signed).ok_or(NO_KEY)?));
        Ok(headers)
    }

    /// Nothing is known of the body but that it is JSON, or a form that holds some: it tells itself from others by what it is.
    fn envelope(&self) -> Envelope {
        Envelope { forms: Forms::WithPayload, ..Envelope::whole() }
    }
}

/// The HMAC of these parts, one after the other; none if the key is of another kind.
pub(super) fn mac(algorithm: Algorithm, key: &Key, parts: &[&[u8]]) -> Option<Vec<u8>> {
    fn of<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
        let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
        for part in parts {
            mac.update(part);
        }
        Some(mac.finalize().into_bytes().to_vec())
    }
    let key = key.as_shared()?;
    match algorithm {
        Algorithm::Sha1 => of::<hmac::Hmac<Sha1>>(key, parts),
        Algorithm::Sha256 => of::<hmac::Hmac<Sha256>>(key, parts),
        Algorithm::Sha512 => of::<hmac::Hmac<Sha512>>(key, parts),
    }
}
