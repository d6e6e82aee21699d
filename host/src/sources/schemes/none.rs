//! `none`: nothing is verified; whoever can send a request can send an event. For development, and for networks that see
//! to it themselves.
//!
//! It has to be asked for by name, and the host warns of it at every start. Without `from_anywhere` it takes requests of
//! this machine only: the listener has to be on a loopback address then, and a request that a proxy passed on is refused.

use axum::http::HeaderMap;

use super::{Forgery, Key, Outgoing, Request, Scheme};
use crate::sources::envelope::Envelope;

/// What proxies write whom they pass a request on for.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

/// The scheme as one source uses it.
pub(super) struct None {
    pub(super) from_anywhere: bool,
}

impl Scheme for None {
    fn verify(&self, request: &Request<'_>, _: &[Key]) -> Result<(), Forgery> {
        let passed_on = FORWARDED.iter().any(|name| request.headers.contains_key(*name));
        if passed_on && !self.from_anywhere { Err(Forgery::PassedOn) } else { Ok(()) }
    }

    fn sign(&self, _: &Outgoing<'_>, _: Option<&Key>) -> Result<HeaderMap, &'static str> {
        Ok(HeaderMap::new())
    }

    fn envelope(&self) -> Envelope {
        Envelope::whole()
    }
}
