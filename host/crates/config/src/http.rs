//! The settings in `http` of a `[[module]]`: where the module may send HTTP requests.

use http::{HeaderName, Method};

use modhost_core::origin::Origin;

use super::{Reference, SourceLocation};

/// The methods that an entry allows by default. `CONNECT` and `TRACE` are never allowed.
pub const DEFAULT_METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// An entry of `http`: where requests may go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpEntry {
    /// The allowed origin.
    pub origin: Origin,
    /// The allowed methods. Default [`DEFAULT_METHODS`].
    pub methods: Vec<Method>,
    /// Whether the address may be this machine or in one of the operator's networks. Default `false`.
    pub private: bool,
    /// The headers that the host adds to each request.
    pub headers: Vec<HttpHeader>,
    /// The location in the file.
    pub location: SourceLocation,
}

/// A header that the host adds. The module never sees its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHeader {
    /// The name.
    pub name: HeaderName,
    /// The text before the secret, its trailing space included: `Bearer `.
    pub prefix: String,
    /// The reference to the secret.
    pub secret: Reference,
}
