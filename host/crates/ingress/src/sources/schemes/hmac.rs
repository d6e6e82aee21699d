//! `hmac`: an HMAC in a header, as configured in modules.toml; most named schemes are built on it.
//!
//! Signatures are compared as text: uppercase hex, missing padding or another prefix don't match.

use axum::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::{
    Key, NO_KEY, Outgoing, Request, Scheme, SignatureError, any_matches, check_time, single_header, unix_seconds, value,
};
use crate::sources::envelope::{Envelope, Forms};
use modhost_config::source::{Algorithm, Encoding, HmacRules, KeyEncoding, SignedPart, Window};
use modhost_core::secret::Secret;

/// The scheme as one source uses it.
pub struct Hmac {
    rules: HmacRules,
}

impl Hmac {
    /// Creates a scheme with these rules.
    pub fn new(rules: HmacRules) -> Self {
        Self { rules }
    }

    /// Creates the simplest and most common scheme: the body's HMAC-SHA256 in hex with a prefix.
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

    /// Like [`Self::of_body`], but in base64 and without a prefix.
    pub(super) fn of_body_in_base64(header: HeaderName) -> Self {
        let Self { rules } = Self::of_body(header, "");
        Self::new(HmacRules { encoding: Encoding::Base64, ..rules })
    }

    /// Like [`Self::of_body`], but over the parts in `signed`, with a timestamp header.
    pub(super) fn of_time_and_body(
        (header, prefix): (HeaderName, &str),
        timestamp: HeaderName,
        signed: Vec<SignedPart>,
        window: Window,
    ) -> Self {
        let Self { rules } = Self::of_body(header, prefix);
        Self::new(HmacRules { signed, timestamp: Some(timestamp), window, ..rules })
    }

    /// Returns the signed parts of a request.
    fn signed<'a>(&'a self, headers: &'a HeaderMap, body: &'a [u8]) -> Result<Vec<&'a [u8]>, SignatureError> {
        let part = |part: &'a SignedPart| match part {
            SignedPart::Text(text) => Ok(text.as_bytes()),
            SignedPart::Body => Ok(body),
            SignedPart::Header(name) => single_header(headers, name),
        };
        self.rules.signed.iter().map(part).collect()
    }

    /// Returns the expected value of the signature header; `None` if the key is of another kind.
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
        any_matches(keys, &[written], |key| self.signature(key, &signed))?;
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
        let signed = signed.map_err(|_| "each signed header has to be given exactly once")?;
        headers.insert(&self.rules.header, value(&self.signature(key, &signed).ok_or(NO_KEY)?));
        Ok(headers)
    }

    /// The body is JSON or a form with a JSON payload; its hash is the event's id.
    fn envelope(&self) -> Envelope {
        Envelope { forms: Forms::WithPayload, ..Envelope::default() }
    }
}

/// Returns the HMAC of the concatenated parts; `None` if the key is of another kind.
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
