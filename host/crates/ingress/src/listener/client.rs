//! The client of a request: the peer's address, or the address that a trusted proxy names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;

use modhost_config::{Proxies, ProxyHeader};

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";

/// The sender of a request, as far as can be determined. Every request of a [`Listener`](super::Listener) carries it as
/// an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's address. An IPv4-mapped IPv6 address is converted to IPv4.
    pub address: IpAddr,
    /// Whether the address may stand for many clients: it is on a private network and sends a forwarding header, so it
    /// seems to be a proxy, but not a trusted one. The misbehavior of one client must not count against all of them.
    pub may_be_shared: bool,
}

impl Client {
    /// The client of requests that didn't come through a listener.
    pub const UNKNOWN: Self = Self { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), may_be_shared: false };

    /// Determines the client of a request from a peer.
    pub(super) fn from_request(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> Self {
        if is_trusted(proxies, peer) {
            return Self { address: behind(peer, headers, proxies), may_be_shared: false };
        }
        let speaks_for_others = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        Self { address: peer, may_be_shared: speaks_for_others && is_near(peer) }
    }
}

/// Returns the address of a socket; an IPv4-mapped IPv6 address becomes IPv4.
pub(super) fn plain(socket: SocketAddr) -> IpAddr {
    socket.ip().to_canonical()
}

/// Returns the address that a client's limits are counted under: an IPv6 address counts with its /64, the smallest
/// network a client gets.
pub(super) fn group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

/// Returns whether an address is a trusted proxy.
pub(super) fn is_trusted(proxies: &Proxies, address: IpAddr) -> bool {
    proxies.networks.iter().any(|network| network.contains(&address))
}

/// Returns whether an address is a loopback, private or link-local one.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// Returns the right-most address that is not a trusted proxy. Each proxy appends the address it was connected to, so
/// anything left of an untrusted address may be forged.
fn behind(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> IpAddr {
    let (name, read): (_, fn(&str) -> Option<IpAddr>) = match proxies.header {
        ProxyHeader::XForwardedFor => (X_FORWARDED_FOR, address),
        ProxyHeader::Forwarded => (FORWARDED, forwarded_for),
    };
    let lines = headers.get_all(name).iter().rev();
    // A header that isn't text ends the search, as an unreadable address does.
    let hops = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
    let mut nearest = peer;
    for hop in hops {
        let Some(address) = read(hop.trim()) else { break };
        nearest = address;
        if !is_trusted(proxies, address) {
            break;
        }
    }
    nearest
}

/// Parses an address with or without brackets and port: proxies write all of these.
fn address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bare).map(|address: IpAddr| address.to_canonical())
}

/// Returns the address in an element of `Forwarded` (RFC 7239, section 4): `for=192.0.2.1;proto=https`, or quoted and
/// bracketed, `for="[2001:db8::1]:47011"`. Returns `None` for an obfuscated identifier (`for=_hidden`).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn proxies(networks: &[&str], header: ProxyHeader) -> Proxies {
        Proxies { networks: networks.iter().map(|network| network.parse().unwrap()).collect(), header }
    }

    fn client(peer: &str, headers: &[(&'static str, &str)], proxies: &Proxies) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        Client::from_request(peer.parse().unwrap(), &headers, proxies).address.to_string()
    }

    #[test]
    fn ignores_headers_of_untrusted_peers() {
        let none = Proxies::default();
        assert_eq!(client("192.0.2.1", &[("x-forwarded-for", "203.0.113.9")], &none), "192.0.2.1");
        let others = proxies(&["10.0.0.0/8"], ProxyHeader::XForwardedFor);
        assert_eq!(client("192.0.2.1", &[("x-forwarded-for", "203.0.113.9")], &others), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=203.0.113.9")], &others), "10.0.0.1");
    }

    #[test]
    fn right_most_untrusted_hop_is_the_client() {
        let own = proxies(&["10.0.0.0/8", "fd00::/8"], ProxyHeader::XForwardedFor);
        let seen = |lines: &[&str]| {
            let headers: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            client("10.0.0.1", &headers, &own)
        };
        assert_eq!(seen(&[]), "10.0.0.1");
        assert_eq!(seen(&["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            seen(&["8.8.8.8, 203.0.113.9, 10.0.0.2"]),
            "203.0.113.9",
            "addresses left of the client may be forged"
        );
        assert_eq!(seen(&["8.8.8.8", "203.0.113.9,10.0.0.2"]), "203.0.113.9", "several lines are one list");
        assert_eq!(seen(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "only proxies: the farthest one");
        assert_eq!(seen(&["203.0.113.9, unknown, 10.0.0.2"]), "10.0.0.2", "stops at an unreadable address");
        assert_eq!(seen(&["", "x"]), "10.0.0.1");
        assert_eq!(seen(&["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(seen(&["[2001:db8::9]:4711"]), "2001:db8::9");
        assert_eq!(seen(&["::ffff:203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn parses_forwarded_as_in_rfc_7239() {
        let own = proxies(&["10.0.0.0/8"], ProxyHeader::Forwarded);
        let seen = |line: &str| client("10.0.0.1", &[("forwarded", line), ("x-forwarded-for", "8.8.8.8")], &own);
        assert_eq!(seen("for=203.0.113.9;proto=https;by=10.0.0.1"), "203.0.113.9");
        assert_eq!(seen("for=8.8.8.8, For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
        assert_eq!(seen("for=_hidden"), "10.0.0.1");
        assert_eq!(seen("proto=https"), "10.0.0.1");
    }

    #[test]
    fn untrusted_private_proxy_may_be_shared() {
        let seen = |peer: &str, name| {
            let headers = [(HeaderName::from_static(name), HeaderValue::from_static("203.0.113.9"))].into_iter();
            Client::from_request(peer.parse().unwrap(), &headers.collect(), &Proxies::default()).may_be_shared
        };
        assert!(seen("127.0.0.1", "x-forwarded-for") && seen("172.17.0.1", "forwarded") && seen("fd00::1", FORWARDED));
        assert!(!seen("127.0.0.1", "host"));
        assert!(!seen("203.0.113.1", "x-forwarded-for"), "any public client can send the header");
    }

    #[test]
    fn ipv6_clients_are_grouped_by_network() {
        let group = |text: &str| group(text.parse().unwrap()).to_string();
        assert_eq!(group("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(group("192.0.2.7"), "192.0.2.7");
    }
}
