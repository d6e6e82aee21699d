//! Settings of the public listener: limits, certificate and proxies.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::table::{Table, Value};
use super::{Reference, SourceLocation, file, reference};

/// The minimum of `max_headers`: a delivery that passed two proxies has about twenty headers.
const MIN_HEADERS: u64 = 32;

/// The maximum of `max_headers`: HTTP libraries accept no more.
const MAX_HEADERS: u64 = 4096;

/// The minimum of `max_header_size`, in bytes: the HTTP library has no smaller buffer.
const MIN_HEADER_SIZE: u64 = 8 << 10;

/// The maximum of `max_header_size`, in bytes: each connection may use this much before the host knows the client.
const MAX_HEADER_SIZE: u64 = 1 << 20;

/// Limits for the clients of the public listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLimits {
    /// The maximum number of open connections. Default 512.
    pub max_connections: usize,
    /// The maximum number of open connections per client address, or `None` for no such limit. Default `None`.
    pub max_connections_per_address: Option<usize>,
    /// How long the head of a request may take, and how long a new connection may stay silent. A TLS handshake
    /// counts. Default 10 s.
    pub header_timeout: Duration,
    /// The maximum size of the head of a request, in bytes. Default 64 KiB.
    pub max_header_size: u32,
    /// The maximum number of headers of a request. Default 100.
    pub max_headers: usize,
    /// How long a body may take after the end of the head. Default 30 s.
    pub body_timeout: Duration,
    /// The maximum memory of all bodies that are being received, in bytes. Beyond it, larger bodies are refused with
    /// 503; bodies of up to 16 KiB are accepted. Default 256 MiB.
    pub max_bodies: u64,
    /// How long a connection may stay open without a request. Default 3 min, which is longer than common proxies keep
    /// theirs open.
    pub idle_timeout: Duration,
    /// How many requests with an invalid signature one address may send to one source per minute. Beyond it, a busy
    /// host rejects the requests of that address unread, unless the address has recently sent a valid signature.
    /// Default 120.
    pub max_forgeries: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            max_connections_per_address: None,
            header_timeout: Duration::from_secs(10),
            max_header_size: 64 << 10,
            max_headers: 100,
            body_timeout: Duration::from_secs(30),
            max_bodies: 256 << 20,
            idle_timeout: Duration::from_secs(180),
            max_forgeries: 120,
        }
    }
}

/// The TLS certificate of the public listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The path of the certificate in PEM, followed by its chain. Resolved against the folder of the settings file.
    pub certificate: PathBuf,
    /// The private key in PEM.
    pub key: Reference,
    /// The location in the file.
    pub location: SourceLocation,
}

/// The trusted proxies in front of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proxies {
    /// The networks of the proxies. The host ignores the header of any other client.
    pub networks: Vec<IpNet>,
    /// The header in which the proxies put the address of the client.
    pub header: ProxyHeader,
}

/// The header in which proxies put the address of the client. Only one header is read: a proxy forwards the other one
/// as the client sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, which most proxies use.
    #[default]
    XForwardedFor,
    /// `Forwarded`, as in RFC 7239.
    Forwarded,
}

/// Reads `[server.limits]`.
pub(super) fn limits(table: Table<'_>) -> ListenerLimits {
    let default = ListenerLimits::default();
    let time = |key, default| table.get(key).and_then(|value| value.duration()).unwrap_or(default);
    let per_address = table.get("max_connections_per_address");
    let limits = ListenerLimits {
        max_connections: table
            .get("max_connections")
            .and_then(|value| value.count())
            .unwrap_or(default.max_connections),
        max_connections_per_address: per_address.as_ref().and_then(Value::count),
        header_timeout: time("header_timeout", default.header_timeout),
        max_header_size: table
            .get("max_header_size")
            .and_then(|value| header_size(&value))
            .unwrap_or(default.max_header_size),
        max_headers: table.get("max_headers").and_then(|value| headers(&value)).unwrap_or(default.max_headers),
        body_timeout: time("body_timeout", default.body_timeout),
        max_bodies: table.get("max_bodies").and_then(|value| value.size()).unwrap_or(default.max_bodies),
        idle_timeout: time("idle_timeout", default.idle_timeout),
        max_forgeries: table.get("max_forgeries").and_then(|value| value.count()).unwrap_or(default.max_forgeries),
    };
    if let Some(value) = per_address
        && limits.max_connections_per_address.is_some_and(|each| each > limits.max_connections)
    {
        let message =
            format!("`max_connections_per_address` exceeds `max_connections`, which is {}", limits.max_connections);
        value.reject(message, "use a smaller number, or raise `max_connections`");
    }
    table.finish();
    limits
}

fn header_size(value: &Value<'_>) -> Option<u32> {
    let bytes = value.size()?;
    if (MIN_HEADER_SIZE..=MAX_HEADER_SIZE).contains(&bytes) {
        return u32::try_from(bytes).ok();
    }
    value.reject("`max_header_size` must be between 8KiB and 1MiB", r#"write, for example, "64KiB""#);
    None
}

fn headers(value: &Value<'_>) -> Option<usize> {
    let count = value.count::<u64>()?;
    if (MIN_HEADERS..=MAX_HEADERS).contains(&count) {
        return usize::try_from(count).ok();
    }
    value.reject(
        format!("`max_headers` must be between {MIN_HEADERS} and {MAX_HEADERS}"),
        "real deliveries have about twenty headers; remove the line to use the default",
    );
    None
}

/// Reads the settings of proxies in `[server]`.
pub(super) fn proxies(server: &Table<'_>) -> Proxies {
    let networks = server.get("trusted_proxies").and_then(|value| value.list()).unwrap_or_default();
    let choices = [("x-forwarded-for", ProxyHeader::XForwardedFor), ("forwarded", ProxyHeader::Forwarded)];
    let header = server.get("proxy_header");
    if let Some(value) = header.as_ref().filter(|_| networks.is_empty()) {
        value.reject(
            "`proxy_header` has no effect without `trusted_proxies`",
            r#"add, for example, trusted_proxies = ["10.0.0.0/8"], or remove the line"#,
        );
    }
    Proxies {
        networks: networks.iter().filter_map(network).collect(),
        header: header.and_then(|value| file::one_of(&value, &choices)).unwrap_or_default(),
    }
}

/// Reads a network or an address.
fn network(value: &Value<'_>) -> Option<IpNet> {
    let advice = r#"write a network as "10.0.0.0/8", an address as "10.0.0.7""#;
    let read = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = value.parse_text(read, "an array of networks", advice)?;
    if network.prefix_len() == 0 {
        value.reject(
            format!("{network} trusts every client: any client could forge its address"),
            "use the network of your proxies",
        );
        return None;
    }
    Some(network.trunc())
}

/// Reads `[server.tls]`.
pub(super) fn tls(table: Table<'_>) -> Option<Tls> {
    let certificate = table.require("certificate", "\"tls/certificate.pem\"");
    let key = table.require("key", "\"file:tls/key.pem\"");
    let tls = Tls {
        certificate: certificate.as_ref().and_then(certificate_path).unwrap_or_default(),
        key: key.as_ref().and_then(reference::read_secret).unwrap_or_else(|| Reference::given("")),
        location: table.document.location(table.span().start),
    };
    table.finish();
    Some(tls)
}

/// Reads a path. `file:` before it, as in the key, is a likely mistake.
fn certificate_path(value: &Value<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    if let Some(path) = text.strip_prefix("file:") {
        value.reject("`certificate` must be a path, not a reference", format!("write \"{path}\""));
        return None;
    }
    Some(file::resolve_path(value.document, Path::new(text)))
}
