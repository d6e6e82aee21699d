//! Classes of IP addresses, for rules on which addresses a module may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The class of an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressScope {
    /// A host on the internet.
    Public,
    /// This machine, or a private network.
    Private,
    /// Link-local addresses, and the metadata services of clouds, which hand out the machine's credentials.
    LinkLocal,
    /// Not a single host: unspecified, multicast, reserved, or for documentation.
    Reserved,
}

/// Metadata services of clouds outside the link-local ranges: Alibaba, Azure, Oracle, AWS and Google over IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

impl AddressScope {
    /// Returns the class of an address. An IPv6 address with an embedded IPv4 address has the class of the latter,
    /// unless the IPv6 address itself is private or link-local.
    pub fn of(address: IpAddr) -> Self {
        if METADATA.contains(&address) {
            return Self::LinkLocal;
        }
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => match (embedded(address), Self::of_v6(address)) {
                // A host on a private network chooses its interface identifier freely, so an embedded IPv4 address
                // means nothing there.
                (Some(_), scope @ (Self::Private | Self::LinkLocal)) => scope,
                (Some(embedded), _) => Self::of(embedded.into()),
                (None, scope) => scope,
            },
        }
    }

    /// Returns a description that follows "is" in an error message.
    pub fn description(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local or metadata address",
            Self::Reserved => "no machine's address",
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [10 | 127, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => Self::Private,
            // Protocol assignments and benchmarking: a network that uses them is private.
            [192, 0, 0, _] | [198, 18 | 19, ..] => Self::Private,
            [169, 254, ..] => Self::LinkLocal,
            [0 | 224..=255, ..] => Self::Reserved,
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [192, 88, 99, _] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Private,
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            // Local-use NAT64: only the operator knows what it maps to.
            [0x64, 0xff9b, 1, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            // Teredo, other special-purpose ranges, and documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3ff0..=0x3fff, ..] => Self::Reserved,
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Reserved,
        }
    }
}

/// Returns the IPv4 address embedded in an IPv6 address: mapped, compatible, translated, NAT64, 6to4, or ISATAP.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_addresses() {
        let cases = [
            (AddressScope::Public, "93.184.216.34 8.8.8.8 172.32.0.1 100.128.0.1 2606:4700::1111 2a00:1450::1"),
            (AddressScope::Public, "::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1"),
            (
                AddressScope::Private,
                "127.0.0.1 127.9.9.9 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1",
            ),
            (AddressScope::Private, "::1 fc00::1 fdab::1 fec0::1 64:ff9b:1::a00:1"),
            (AddressScope::Private, "::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::10.0.0.1 2002:7f00:1::1 2002:c0a8:101::"),
            (
                AddressScope::Private,
                "::ffff:0:10.0.0.1 2a00:1450::5efe:192.168.0.1 fd00::5efe:8.8.8.8 fec0::200:5efe:808:808",
            ),
            (AddressScope::LinkLocal, "fe80::5efe:8.8.8.8 fe80::200:5efe:808:808"),
            (AddressScope::LinkLocal, "169.254.169.254 169.254.0.1 fe80::1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe"),
            (AddressScope::LinkLocal, "100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254"),
            (
                AddressScope::Reserved,
                "0.0.0.0 0.1.2.3 224.0.0.1 239.1.1.1 255.255.255.255 240.0.0.1 192.0.2.1 198.51.100.7",
            ),
            (
                AddressScope::Reserved,
                ":: ff02::1 2001:db8::1 2001::1 100::1 ::ffff:0.0.0.0 2002:e000:1::1 4000::1 3fff::1",
            ),
        ];
        for (expected, addresses) in cases {
            for address in addresses.split(' ') {
                assert_eq!(AddressScope::of(address.parse().unwrap()), expected, "{address}");
            }
        }
    }
}
