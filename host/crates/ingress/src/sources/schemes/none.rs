//! `none`: nothing is verified; whoever can send a request can send an event. For development, and for networks that see
//! to it themselves.
//!
//! It has to be asked for by name, and the host warns of it at every start. Without `from_anywhere` it takes requests of
//! this machine's programs only: the listener has to be on a loopback address then, and a request is refused that a proxy
//! passed on, or that a web page sent: browsers let any page post to this machine. A page gives itself away by the headers
//! its browser adds, or, with a name of its own that leads to this machine (DNS rebinding), by that name.

use std::net::Ipv4Addr;

use axum::http::{HeaderMap, Uri, header};

use super::{Key, Outgoing, Request, Scheme, SignatureError};
use crate::sources::envelope::Envelope;
use modhost_core::browser_guard::BrowserGuard;

/// What proxies write whom they pass a request on for.
const FORWARDED: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];

/// What browsers write on whose behalf they ask.
const OF_BROWSERS: [&str; 2] = ["origin", "sec-fetch-site"];

/// The scheme as one source uses it.
pub(super) struct None {
    pub(super) from_anywhere: bool,
}

impl Scheme for None {
    fn verify(&self, request: &Request<'_>, _: &[Key]) -> Result<(), SignatureError> {
        let has_one = |names: &[&str]| names.iter().any(|name| request.headers.contains_key(*name));
        match self.from_anywhere {
            false if has_one(&FORWARDED) => Err(SignatureError::PassedOn),
            false if has_one(&OF_BROWSERS) => Err(SignatureError::OfAPage),
            false if is_for_another_host(request.headers) => Err(SignatureError::ForeignHost),
            _ => Ok(()),
        }
    }

    fn sign(&self, _: &Outgoing<'_>, _: Option<&Key>) -> Result<HeaderMap, &'static str> {
        Ok(HeaderMap::new())
    }

    fn envelope(&self) -> Envelope {
        Envelope::whole()
    }
}

/// Whether a request names a host other than this machine. One that names none is no browser's.
fn is_for_another_host(headers: &HeaderMap) -> bool {
    let guard = BrowserGuard::new(Ipv4Addr::LOCALHOST.into(), Vec::new());
    headers.contains_key(header::HOST) && guard.check_host(&Uri::default(), headers).is_err()
}
