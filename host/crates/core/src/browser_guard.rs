//! Protects loopback listeners without authentication from web pages.
//!
//! A browser on this machine can connect, too. A page of any origin can make it send requests here, and with DNS
//! rebinding (the page's own host name resolves to 127.0.0.1) the page can read the responses as well. Two headers that
//! a page cannot change reveal such requests: `Host` contains the page's host name, and `Origin` or `Sec-Fetch-Site`
//! show that another site sent them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::text::truncate;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Maximum length of a foreign name in an error message, in characters.
const MAX_SHOWN: usize = 100;

/// The hosts and origins that a listener accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserGuard {
    /// The address of the listener.
    address: IpAddr,
    /// Additional names from the settings.
    names: Vec<HostName>,
}

/// A host in a `Host` header or an origin: an address, or a name in lower case without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostName {
    /// A DNS name.
    Name(String),
    /// An address. An IPv4-mapped IPv6 address is stored as IPv4.
    Address(IpAddr),
}

/// The reason a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The request has no `Host` header.
    #[error("the request has no Host header")]
    NoHost,
    /// The request has several `Host` headers.
    #[error("the request has more than one Host header")]
    SeveralHosts,
    /// The request is for another host.
    #[error(
        "the request is for the host {0:?}, which is not a name of this machine; use localhost or 127.0.0.1, or add the \
         name to `admin_hosts` in [server]"
    )]
    ForeignHost(String),
    /// A page of another origin sent the request.
    #[error(
        "the request comes from a web page of another origin ({0}), and only its own pages may use this listener; if the page \
         is yours, add the name of its host to `admin_hosts` in [server]"
    )]
    ForeignOrigin(String),
}

impl GuardError {
    /// Returns whether the request is malformed, regardless of the sender.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::NoHost | Self::SeveralHosts)
    }
}

impl BrowserGuard {
    /// Creates the guard of a listener with this address and these additional names.
    pub fn new(address: IpAddr, names: Vec<HostName>) -> Self {
        Self { address: address.to_canonical(), names }
    }

    /// Checks that a request is for a host of this listener: `localhost`, a loopback address, its own address, or a
    /// configured name. The port is ignored, because tunnels and containers change it.
    ///
    /// # Errors
    ///
    /// Returns an error if the request names no host, several hosts, or another host.
    pub fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), GuardError> {
        let authority = authority(uri, headers)?;
        let shown = || GuardError::ForeignHost(truncate(authority, MAX_SHOWN).into_owned());
        let (host, _) = split(authority).ok_or_else(shown)?;
        if self.is_own(&host) { Ok(()) } else { Err(shown()) }
    }

    /// Checks that no page of another origin sent a request. Following a link is allowed: the page that contains the
    /// link cannot read the response.
    ///
    /// # Errors
    ///
    /// Returns an error if a page of another origin sent the request.
    pub fn check_origin(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), GuardError> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if let Some(origin) = origins.next() {
            let origin = origin.to_str().unwrap_or("?");
            let foreign = || GuardError::ForeignOrigin(truncate(origin, MAX_SHOWN).into_owned());
            let (host, port) = parse_origin(origin).filter(|_| origins.next().is_none()).ok_or_else(foreign)?;
            let is_same = authority(uri, headers).ok().and_then(split).is_some_and(|(own, own_port)| {
                // A host without a port uses the default port of a scheme, which a proxy may have changed.
                own == host && own_port.map_or(port.is_default, |own_port| own_port == port.number)
            });
            return if is_same || self.names.contains(&host) { Ok(()) } else { Err(foreign()) };
        }
        let Some(site) = headers.get(&SEC_FETCH_SITE) else { return Ok(()) };
        let is = |name: &HeaderName, value: &str| headers.get(name).is_some_and(|it| it == value);
        let follows_link = (method == Method::GET || method == Method::HEAD)
            && is(&SEC_FETCH_MODE, "navigate")
            && is(&SEC_FETCH_DEST, "document");
        if site == "same-origin" || site == "none" || follows_link {
            return Ok(());
        }
        Err(GuardError::ForeignOrigin(format!("Sec-Fetch-Site: {}", truncate(site.to_str().unwrap_or("?"), MAX_SHOWN))))
    }

    fn is_own(&self, host: &HostName) -> bool {
        // Only names can be rebound; an address is not looked up.
        let is_own_address =
            |address: IpAddr| address.is_loopback() || address == self.address || self.address.is_unspecified();
        let is_builtin = match host {
            HostName::Name(name) => name == "localhost",
            HostName::Address(address) => is_own_address(*address),
        };
        is_builtin || self.names.contains(host)
    }
}

impl FromStr for HostName {
    type Err = ();

    /// Parses a name or an address. An IPv6 address may be in brackets.
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self::Address(IpAddr::from(address).to_canonical()));
        }
        match split(text) {
            // A colon would begin a port.
            Some((host, None)) if !text.ends_with(':') => Ok(host),
            _ => Err(()),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Adds security headers to a response: no content sniffing, no framing, no use by other origins, no referrer, and no
/// caching unless the response sets its own policy. Deliveries and chats contain user data.
pub fn add_security_headers(headers: &mut HeaderMap) {
    let lines = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in lines {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Returns the host and port of a request. The request target takes precedence over the header (RFC 9112, section
/// 3.2.2): HTTP/2 has only the target's authority, and HTTP/1.1 has one if the target is an absolute URL.
fn authority<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Result<&'r str, GuardError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(GuardError::SeveralHosts);
    }
    match (uri.authority(), first) {
        (Some(authority), _) => Ok(authority.as_str()),
        (None, Some(host)) => Ok(host.to_str().unwrap_or("?")),
        (None, None) => Err(GuardError::NoHost),
    }
}

/// Splits host and port; `None` for anything else, such as user names, zones, or lists.
fn split(authority: &str) -> Option<(HostName, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address = IpAddr::from(address.parse::<Ipv6Addr>().ok()?).to_canonical();
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
            (HostName::Address(address), port)
        }
        None => {
            let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
            (name_or_v4(host)?, port)
        }
    };
    let port = match port {
        None | Some("") => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
    };
    Some((host, port))
}

fn name_or_v4(host: &str) -> Option<HostName> {
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(HostName::Address(address.into()));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = !name.is_empty() && name.bytes().all(is_plain);
    is_name.then(|| HostName::Name(name.to_ascii_lowercase()))
}

/// The port of an origin.
struct OriginPort {
    number: u16,
    /// Whether this is the scheme's default port, which browsers omit.
    is_default: bool,
}

/// Parses an origin; `None` if it is opaque (`null`) or not `http` or `https`.
fn parse_origin(origin: &str) -> Option<(HostName, OriginPort)> {
    let (scheme, authority) = origin.split_once("://")?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = split(authority)?;
    let number = port.unwrap_or(default);
    Some((host, OriginPort { number, is_default: number == default }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(names: &[&str]) -> BrowserGuard {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        BrowserGuard::new(Ipv4Addr::LOCALHOST.into(), names)
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn path() -> Uri {
        Uri::from_static("/api/modules")
    }

    fn host(guard: &BrowserGuard, host: &str) -> bool {
        guard.check_host(&path(), &headers(&[("host", host)])).is_ok()
    }

    #[test]
    fn accepts_names_of_this_machine_with_any_port() {
        let guard = guard(&["Admin.Example.com.", "192.0.2.7", "[2001:db8::7]"]);
        for own in [
            "localhost",
            "localhost:8081",
            "LocalHost:1",
            "localhost.",
            "localhost.:8081",
            "localhost:",
            "127.0.0.1:8081",
            "127.8.9.10",
            "[::1]:8081",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:8081",
            "admin.example.com",
            "ADMIN.example.com.:443",
            "192.0.2.7:80",
            "[2001:db8:0::7]",
        ] {
            assert!(host(&guard, own), "{own}");
        }
    }

    #[test]
    fn rejects_all_other_names() {
        let guard = guard(&["admin.example.com"]);
        for foreign in [
            "",
            ":8081",
            ".",
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "evil.localhost",
            "localhost..",
            "127.0.0.1.evil.example",
            "127.0.0.1.",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "0.0.0.0",
            "[::]",
            "192.0.2.1",
            "::1",
            "::1:8081",
            "[::1",
            "[::1]8081",
            "[::1%25lo]",
            "[::1%lo]",
            "[127.0.0.1]",
            "localhost:80:80",
            "localhost:port",
            "localhost:+80",
            "localhost:65536",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost:80@evil.example",
            "localhost, evil.example",
            "localhost evil.example",
            "localhost/evil",
            "localhost#evil",
            "localhost\\evil",
            "%6cocalhost",
            "löcalhost",
            "sub.admin.example.com",
        ] {
            assert!(!host(&guard, foreign), "{foreign}");
        }
    }

    #[test]
    fn requires_one_host() {
        let guard = guard(&[]);
        let check = |uri: Uri, lines: &[(&'static str, &str)]| guard.check_host(&uri, &headers(lines));
        assert_eq!(check(path(), &[]), Err(GuardError::NoHost));
        assert_eq!(check(path(), &[("host", "localhost"), ("host", "localhost")]), Err(GuardError::SeveralHosts));
        // The target takes precedence over the header, whichever of them is foreign.
        let absolute = |host: &str| format!("http://{host}/api/modules").parse::<Uri>().unwrap();
        assert!(check(absolute("localhost:8081"), &[]).is_ok());
        assert!(check(absolute("127.0.0.1"), &[("host", "evil.example")]).is_ok());
        assert!(check(absolute("evil.example"), &[("host", "localhost")]).is_err());
        assert!(check(absolute("user@localhost"), &[]).is_err());
        let long = "x".repeat(10_000);
        assert!(check(path(), &[("host", &long)]).unwrap_err().to_string().len() < 400);
    }

    #[test]
    fn accepts_any_address_but_no_name_on_an_unspecified_listener() {
        let guard = BrowserGuard::new(Ipv4Addr::UNSPECIFIED.into(), Vec::new());
        assert!(host(&guard, "192.0.2.1:8092") && host(&guard, "[2001:db8::1]") && host(&guard, "localhost"));
        assert!(!host(&guard, "evil.example"));
        let one = BrowserGuard::new([192, 0, 2, 1].into(), Vec::new());
        assert!(host(&one, "192.0.2.1") && !host(&one, "192.0.2.2"));
    }

    fn origin(guard: &BrowserGuard, host: &str, origin: &str) -> bool {
        guard.check_origin(&Method::POST, &path(), &headers(&[("host", host), ("origin", origin)])).is_ok()
    }

    #[test]
    fn accepts_own_pages_and_rejects_other_origins() {
        let guard = guard(&["admin.example.com"]);
        for (own, page) in [
            ("localhost:8081", "http://localhost:8081"),
            ("LOCALHOST:8081", "http://localhost:8081"),
            ("127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("[::1]:8081", "http://[::1]:8081"),
            ("localhost", "http://localhost"),
            ("localhost:80", "http://localhost"),
            ("localhost", "https://localhost"),
            ("localhost:443", "https://localhost"),
            // A proxy that rewrites `Host` to the host behind it.
            ("127.0.0.1:8081", "https://admin.example.com"),
            ("127.0.0.1:8081", "https://admin.example.com:8443"),
        ] {
            assert!(origin(&guard, own, page), "{page} to {own}");
        }
        for (own, page) in [
            ("localhost:8081", "null"),
            ("localhost:8081", ""),
            ("localhost:8081", "http://evil.example"),
            ("localhost:8081", "http://localhost"),
            ("localhost:8081", "http://localhost:3000"),
            ("localhost:8081", "http://127.0.0.1:8081"),
            ("localhost", "http://localhost:8081"),
            ("localhost:8081", "http://localhost:8081/"),
            ("localhost:8081", "http://localhost:8081, http://evil.example"),
            ("localhost:8081", "localhost:8081"),
            ("localhost:8081", "file://"),
            ("localhost:8081", "chrome-extension://localhost:8081"),
            ("localhost:8081", "http://user@localhost:8081"),
            ("localhost:8081", "http://evil.admin.example.com"),
        ] {
            assert!(!origin(&guard, own, page), "{page} to {own}");
        }
        let two = headers(&[("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.example")]);
        assert!(guard.check_origin(&Method::GET, &path(), &two).is_err());
        let hostless = headers(&[("origin", "http://localhost")]);
        assert!(guard.check_origin(&Method::GET, &path(), &hostless).is_err());
    }

    #[test]
    fn checks_fetch_metadata_of_requests_without_an_origin() {
        let guard = guard(&[]);
        let check = |method: Method, lines: &[(&'static str, &str)]| {
            guard.check_origin(&method, &path(), &headers(lines)).is_ok()
        };
        assert!(check(Method::GET, &[]), "no browser headers");
        for site in ["same-origin", "none"] {
            assert!(check(Method::GET, &[("sec-fetch-site", site)]));
        }
        for site in ["cross-site", "same-site", "other"] {
            let link = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
            assert!(check(Method::GET, &link), "navigation by a link");
            assert!(!check(Method::POST, &link), "form submission");
            assert!(!check(Method::GET, &[link[0], link[1], ("sec-fetch-dest", "iframe")]), "load in a frame");
            assert!(!check(Method::GET, &[link[0], ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]));
            assert!(!check(Method::GET, &link[..1]));
        }
    }

    proptest! {
        /// No DNS name but `localhost` is a name of this machine.
        #[test]
        fn rejects_all_dns_names_but_localhost(name in "[a-zA-Z0-9_-]{1,20}(\\.[a-zA-Z0-9_-]{1,20}){0,4}", port in any::<u16>()) {
            prop_assume!(!name.eq_ignore_ascii_case("localhost") && name.parse::<Ipv4Addr>().is_err());
            let guard = guard(&[]);
            let (with_port, with_dot) = (format!("{name}:{port}"), format!("{name}."));
            prop_assert!(!host(&guard, &with_port) && !host(&guard, &with_dot));
        }

        /// Every accepted authority is `localhost` with an optional port.
        #[test]
        fn accepts_localhost_only_with_an_optional_port(before in "[ -~]{0,6}", after in "[ -~]{0,6}") {
            let authority = format!("{before}localhost{after}");
            if host(&guard(&[]), &authority) {
                let lower = authority.to_lowercase();
                let (name, port) = lower.split_once(':').unwrap_or((&lower, ""));
                prop_assert!(name == "localhost" || name == "localhost.", "{:?}", authority);
                prop_assert!(port.bytes().all(|byte| byte.is_ascii_digit()), "{:?}", authority);
            }
        }
    }
}
