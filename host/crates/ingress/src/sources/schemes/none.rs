//! `none`: no verification; anyone who can send a request can send an event. For development, and for networks that
//! control access themselves.
//!
//! The scheme must be named explicitly, and the host warns about it at every start. Without `from_anywhere` it accepts
//! requests of programs on this machine only: the listener must have a loopback address, and requests from proxies and
//! web pages are rejected, because browsers let any page post to this machine. A page is recognized by the headers that
//! browsers add or, with DNS rebinding, by its own name in the `Host` header.

use std::net::Ipv4Addr;

use axum::http::{HeaderMap, Uri, header};

use super::{Key, Outgoing, Request, Scheme, SignatureError};
use crate::sources::envelope::Envelope;
use modhost_core::browser_guard::BrowserGuard;

/// Headers that proxies add.
const PROXY_HEADERS: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];

/// Headers that browsers add.
const BROWSER_HEADERS: [&str; 2] = ["origin", "sec-fetch-site"];

/// The scheme as one source uses it.
pub(super) struct None {
    pub(super) from_anywhere: bool,
}

impl Scheme for None {
    fn verify(&self, request: &Request<'_>, _: &[Key]) -> Result<(), SignatureError> {
        let has_one = |names: &[&str]| names.iter().any(|name| request.headers.contains_key(*name));
        match self.from_anywhere {
            false if has_one(&PROXY_HEADERS) => Err(SignatureError::ViaProxy),
            false if has_one(&BROWSER_HEADERS) => Err(SignatureError::FromWebPage),
            false if is_for_another_host(request.headers) => Err(SignatureError::ForeignHost),
            _ => Ok(()),
        }
    }

    fn sign(&self, _: &Outgoing<'_>, _: Option<&Key>) -> Result<HeaderMap, &'static str> {
        Ok(HeaderMap::new())
    }

    fn envelope(&self) -> Envelope {
        Envelope::default()
    }
}

/// Returns whether the `Host` header names another host than this machine. Browsers always send the header, so a
/// request without it passes.
fn is_for_another_host(headers: &HeaderMap) -> bool {
    let guard = BrowserGuard::new(Ipv4Addr::LOCALHOST.into(), Vec::new());
    headers.contains_key(header::HOST) && guard.check_host(&Uri::default(), headers).is_err()
}
