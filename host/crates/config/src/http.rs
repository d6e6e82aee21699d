//! Where a module may send HTTP requests: the settings behind `http` of a `[[module]]`.

use http::{HeaderName, Method};

use modhost_core::origin::Origin;

use super::{Reference, SourceLocation};

/// The methods an entry allows that names none. `CONNECT` and `TRACE` nobody is allowed.
pub const USUAL_METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// One entry of `http`: where requests may go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpEntry {
    /// Where to.
    pub origin: Origin,
    /// What may be asked for there. Default [`USUAL_METHODS`].
    pub methods: Vec<Method>,
    /// Whether it may be this machine, or one of the operator's own networks. Default no.
    pub private: bool,
    /// What the host adds to each request there.
    pub headers: Vec<HttpHeader>,
    /// Where it stands in the file.
    pub place: SourceLocation,
}

/// A header the host adds, whose value the module never sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHeader {
    /// Its name.
    pub name: HeaderName,
    /// What stands before the secret, its space included: `Bearer `.
    pub before: String,
    /// Where the secret is.
    pub secret: Reference,
}
