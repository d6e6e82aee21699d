//! What a module may send where, and what is said when it may not.

use std::fmt::Write;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use url::Url;

use super::failure::{Failure, HttpErrorCode};
use modhost_core::origin::Origin;
use modhost_core::source_location::SourceLocation;
use modhost_core::text::truncate;

/// What a module may send where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpGrants {
    /// The entries of its `http`; the first that fits a request counts.
    pub allowed: Arc<[HttpGrant]>,
    /// Where the module stands in the file.
    pub place: Option<SourceLocation>,
}

/// One entry, with its headers' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// Where requests may go.
    pub origin: Origin,
    /// The allowed methods.
    pub methods: Vec<Method>,
    /// Whether private and link-local addresses are allowed.
    pub private: bool,
    /// Where the entry is in the configuration.
    pub location: SourceLocation,
    /// What the host adds to each request; never to be seen by the guest, nor to be recorded.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpGrants {
    /// The grant by which a request may go.
    pub(super) fn find(&self, method: &Method, url: &Url) -> Result<&HttpGrant, Failure> {
        let denied =
            |why: String| Failure::new(HttpErrorCode::RequestDenied, format!("`{}` {why}", shown(method, url)));
        let Some(asked) = Origin::of(url) else {
            return Err(denied("is no request over HTTP".into()));
        };
        if [Method::CONNECT, Method::TRACE].contains(method) {
            return Err(denied(format!("is not allowed: {method} is closed to modules")));
        }
        let fits = |grant: &&HttpGrant| grant.origin.allows(&asked);
        let allows = |grant: &&HttpGrant| fits(grant) && grant.methods.contains(method);
        if let Some(grant) = self.allowed.iter().find(allows) {
            return Ok(grant);
        }
        let advice = match self.allowed.iter().find(fits) {
            Some(grant) => {
                let methods: Vec<_> = grant.methods.iter().map(Method::as_str).collect();
                format!(
                    "its entry allows {} only: add \"{method}\" to `methods` ({})",
                    methods.join(", "),
                    line(&grant.location)
                )
            }
            None => self.other_door(&asked),
        };
        Err(denied(format!("is not allowed: {advice}")))
    }

    /// Why a request that is on record would not be sent, in people's words; none: it would.
    pub fn refusal(&self, request: &serde_json::Value) -> Option<String> {
        let method = Method::from_bytes(request["method"].as_str()?.as_bytes()).ok()?;
        let url = Url::parse(request["url"].as_str()?).ok()?;
        self.find(&method, &url).err().map(|failure| failure.message)
    }

    /// What to add for a place no entry means.
    fn other_door(&self, asked: &Origin) -> String {
        let mut text = String::new();
        let same_host = |grant: &&HttpGrant| grant.origin.host.allows(&asked.host);
        if let Some(HttpGrant { origin, .. }) = self.allowed.iter().find(same_host) {
            let scheme = if origin.secure { "https" } else { "plain http" };
            // Writing to a string can't fail.
            let _ = write!(text, "\"{}\" means {scheme} on port {}; ", origin, origin.port);
        }
        let _ = write!(text, "add \"{asked}\" to `http` of the module");
        if let Some(place) = &self.place {
            let _ = write!(text, " ({})", line(place));
        }
        text
    }
}

/// A place as it is read in a sentence: the column says nothing here.
pub(super) fn line(place: &SourceLocation) -> String {
    format!("{}:{}", place.file.display(), place.line)
}

/// How long what is shown of an address may be, in characters.
const SHOWN: usize = 200;

/// A request as logs and errors have it. The query is left out: it may hold a credential.
pub(super) fn shown(method: &Method, url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    truncate(&format!("{method} {origin}{}", url.path()), SHOWN).into_owned()
}
