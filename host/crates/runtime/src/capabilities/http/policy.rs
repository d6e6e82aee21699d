//! The HTTP policy of a module: which requests it may send, and the errors for those it may not.

use std::fmt::Write;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use url::Url;

use super::failure::{Failure, HttpErrorCode};
use modhost_core::origin::Origin;
use modhost_core::source_location::SourceLocation;
use modhost_core::text::truncate;

/// The HTTP requests that a module may send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpGrants {
    /// The entries of the module's `http`; the first match applies.
    pub allowed: Arc<[HttpGrant]>,
    /// The location of the module in the configuration.
    pub location: Option<SourceLocation>,
}

/// One entry, with the values of its headers.
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
    /// The headers that the host adds to each request. The guest never sees them, and they are never recorded.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpGrants {
    /// Returns the grant that allows a request.
    ///
    /// # Errors
    ///
    /// When no grant does; the message names the change to the configuration that would allow it.
    pub(super) fn find(&self, method: &Method, url: &Url) -> Result<&HttpGrant, Failure> {
        let denied =
            |why: String| Failure::new(HttpErrorCode::RequestDenied, format!("`{}` {why}", describe(method, url)));
        let Some(requested) = Origin::of(url) else {
            return Err(denied("is not an HTTP request".into()));
        };
        if [Method::CONNECT, Method::TRACE].contains(method) {
            return Err(denied(format!("is not allowed: {method} is closed to modules")));
        }
        let fits = |grant: &&HttpGrant| grant.origin.allows(&requested);
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
            None => self.missing_entry_advice(&requested),
        };
        Err(denied(format!("is not allowed: {advice}")))
    }

    /// Returns why a recorded request would be refused now; none if it would be sent.
    pub fn refusal(&self, request: &serde_json::Value) -> Option<String> {
        let method = Method::from_bytes(request["method"].as_str()?.as_bytes()).ok()?;
        let url = Url::parse(request["url"].as_str()?).ok()?;
        self.find(&method, &url).err().map(|failure| failure.message)
    }

    /// Returns the advice for a request to a host that no entry matches.
    fn missing_entry_advice(&self, requested: &Origin) -> String {
        let mut text = String::new();
        let same_host = |grant: &&HttpGrant| grant.origin.host.allows(&requested.host);
        if let Some(HttpGrant { origin, .. }) = self.allowed.iter().find(same_host) {
            let scheme = if origin.secure { "https" } else { "plain http" };
            // Writing to a string can't fail.
            let _ = write!(text, "\"{}\" means {scheme} on port {}; ", origin, origin.port);
        }
        let _ = write!(text, "add \"{requested}\" to `http` of the module");
        if let Some(location) = &self.location {
            let _ = write!(text, " ({})", line(location));
        }
        text
    }
}

/// Returns a location for a message, without the column.
pub(super) fn line(location: &SourceLocation) -> String {
    format!("{}:{}", location.file.display(), location.line)
}

/// Maximum length of a request in logs and errors, in characters.
const MAX_DESCRIPTION: usize = 200;

/// Returns a request as logs and errors show it. The query is omitted: it may contain a credential.
pub(super) fn describe(method: &Method, url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    truncate(&format!("{method} {origin}{}", url.path()), MAX_DESCRIPTION).into_owned()
}
