//! `hmac`: a signature in a header, as modules.toml tells it; and what most named schemes are made of.
//!
//! The signature is compared as it is written: uppercase hex, a missing padding or another prefix are not what the sender
//! was told to write.

use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use super::{Forgery, Key, Outgoing, Request, Scheme, unix_seconds, value};
use crate::config::Secret;
use crate::config::source::{Algorithm, Encoding, HmacRules, KeyEncoding, SignedPart, Window};
use crate::sources::envelope::Envelope;

/// The scheme as one source uses it.
pub struct Hmac {
    rules: HmacRules,
}

impl Hmac {
    /// A scheme of these rules.
    pub fn new(rules: HmacRules) -> Self {
        Self { rules }
    }

    /// The simplest there is, and the commonest: the hex of the body's HMAC-SHA256 behind a prefix.
    pub(super) fn of_body(header: HeaderName, prefix: &str) -> Self {
        Self::new(HmacRules {
            header,
            prefix: prefix.to_owned(),
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
            key: KeyEncoding::Text,
            signed: vec![SignedPart::Body],
            timestamp: None,
            window: Window { past: None, ahead: None },
        })
    }

    /// What has to stand in the header.
    fn signature(&self, headers: &HeaderMap, body: &[u8], key: &Key) -> Result<String, Forgery> {
        let mut parts: Vec<&[u8]> = Vec::with_capacity(self.rules.signed.len());
        for part in &self.rules.signed {
            parts.push(match part {
                SignedPart::Text(text) => text.as_bytes(),
                SignedPart::Body => body,
                SignedPart::Header(name) => Request { headers, body, now: SystemTime::UNIX_EPOCH }.header(name)?,
            });
        }
        let mac = mac(self.rules.algorithm, key, &parts);
        Ok(match self.rules.encoding {
            Encoding::Hex => format!("{}{}", self.rules.prefix, hex::encode(mac)),
            Encoding::Base64 => format!("{}{}", self.rules.prefix, BASE64.encode(mac)),
        })
    }
}

impl Scheme for Hmac {
    fn key(&self, secret: &Secret) -> Result<Key, &'static str> {
        let text = secret.expose();
        match self.rules.key {
            KeyEncoding::Text => Ok(Key::new(text.as_bytes())),
            KeyEncoding::Hex => hex::decode(text).map(Key::new).map_err(|_| "it should be written in hex"),
            KeyEncoding::Base64 => BASE64.decode(text).map(Key::new).map_err(|_| "it should be written in base64"),
        }
    }

    fn verify(&self, request: &Request<'_>, keys: &[Key]) -> Result<(), Forgery> {
        let written = request.header(&self.rules.header)?;
        let timestamp = self.rules.timestamp.as_ref().map(|name| request.timestamp(name)).transpose()?;
        let mut any = Choice::from(0);
        for key in keys {
            any |= self.signature(request.headers, request.body, key)?.as_bytes().ct_eq(written);
        }
        if !bool::from(any) {
            return Err(Forgery::WrongSignature);
        }
        timestamp.map_or(Ok(()), |timestamp| self.rules.window.check(timestamp, request.now))
    }

    fn sign(&self, outgoing: &Outgoing<'_>, key: Option<&Key>) -> Result<HeaderMap, &'static str> {
        let key = key.ok_or("it needs a secret")?;
        let mut headers = HeaderMap::new();
        if let Some(name) = &self.rules.timestamp {
            headers.insert(name, unix_seconds(outgoing.now).into());
        }
        let mut all = outgoing.headers.clone();
        all.extend(headers.clone());
        let signature = self.signature(&all, outgoing.body, key);
        let signature = signature.map_err(|_| "a header is missing that is part of what is signed: give it too")?;
        headers.insert(&self.rules.header, value(&signature));
        Ok(headers)
    }

    /// Nothing is known of the body but that it is JSON: it tells itself from others by what it is.
    fn envelope(&self) -> Envelope {
        Envelope::whole()
    }
}

/// The HMAC of these parts, one after the other.
pub(super) fn mac(algorithm: Algorithm, key: &Key, parts: &[&[u8]]) -> Vec<u8> {
    fn of<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        // HMAC takes a key of any length, so that the empty answer, which no signature is, is never given.
        let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().to_vec()
    }
    match algorithm {
        Algorithm::Sha1 => of::<hmac::Hmac<Sha1>>(key.bytes(), parts),
        Algorithm::Sha256 => of::<hmac::Hmac<Sha256>>(key.bytes(), parts),
        Algorithm::Sha512 => of::<hmac::Hmac<Sha512>>(key.bytes(), parts),
    }
}
