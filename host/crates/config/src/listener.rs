//! The part of `[server]` that says what senders of requests may use: limits, certificate, proxies.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::table::{Table, Value};
use super::{Reference, SourceLocation, file, reference};

/// The fewest headers a limit may allow: a delivery that came through two proxies has some twenty of them.
const MIN_HEADERS: u64 = 32;

/// The most headers HTTP libraries take.
const MAX_HEADERS: u64 = 4096;

/// The smallest buffer for headers, in bytes: the HTTP library has none below that.
const MIN_HEADER_SIZE: u64 = 8 << 10;

/// The largest one: each connection may take as much before anything is known of who is behind it.
const MAX_HEADER_SIZE: u64 = 1 << 20;

/// What one who sends requests may use of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLimits {
    /// How many connections are open at once. Default 512.
    pub max_connections: usize,
    /// How many of them come from one address; none: as many as there may be. Default none.
    pub max_connections_per_address: Option<usize>,
    /// How long a request's head may take, and a new connection until its first one; a TLS handshake is part of that.
    /// Default 10 s.
    pub header_timeout: Duration,
    /// How large a head may be, in bytes. Default 64 KiB.
    pub max_header_size: u32,
    /// How many headers it may have. Default 100.
    pub max_headers: usize,
    /// How long a body may take from the end of its head. Default 30 s.
    pub body_timeout: Duration,
    /// How much all bodies on their way may take together, in bytes; what is beyond is put off, but for small ones.
    /// Default 256 MiB.
    pub max_bodies: u64,
    /// How long a connection may stay open without a request. Default 3 min, which is longer than the common proxies
    /// keep theirs.
    pub idle_timeout: Duration,
    /// How many forged requests a minute one address may send to one source before its requests are no longer looked at.
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

/// The certificate events are taken with.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The file of the certificate in PEM, those that vouch for it after it; resolved against the folder of the
    /// settings.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: Reference,
    /// Where it stands in the file.
    pub place: SourceLocation,
}

/// The proxies in front of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proxies {
    /// The networks they are in; none of any other is believed.
    pub networks: Vec<IpNet>,
    /// Where they write whom they speak for.
    pub header: ProxyHeader,
}

/// The header proxies write their clients' addresses into. Only one is read: what a proxy doesn't write itself, it
/// hands on as the client wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, as most do.
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
        let message = format!("one address can't have more connections than all together, {}", limits.max_connections);
        value.wrong(message, "write a smaller number, or raise `max_connections`");
    }
    table.finish();
    limits
}

fn header_size(value: &Value<'_>) -> Option<u32> {
    let bytes = value.size()?;
    if (MIN_HEADER_SIZE..=MAX_HEADER_SIZE).contains(&bytes) {
        return u32::try_from(bytes).ok();
    }
    value.wrong("the headers of a request have between 8KiB and 1MiB", r#"write for example "64KiB""#);
    None
}

fn headers(value: &Value<'_>) -> Option<usize> {
    let count = value.count::<u64>()?;
    if (MIN_HEADERS..=MAX_HEADERS).contains(&count) {
        return usize::try_from(count).ok();
    }
    value.wrong(
        format!("`max_headers` is between {MIN_HEADERS} and {MAX_HEADERS}"),
        "real deliveries have some twenty; leave the line out for the default",
    );
    None
}

/// Reads what `[server]` says of proxies.
pub(super) fn proxies(server: &Table<'_>) -> Proxies {
    let networks = server.get("trusted_proxies").and_then(|value| value.list()).unwrap_or_default();
    let choices = [("x-forwarded-for", ProxyHeader::XForwardedFor), ("forwarded", ProxyHeader::Forwarded)];
    let header = server.get("proxy_header");
    if let Some(value) = header.as_ref().filter(|_| networks.is_empty()) {
        value.wrong(
            "`proxy_header` says how proxies are read, and none is trusted",
            r#"name them: trusted_proxies = ["10.0.0.0/8"], or remove the line"#,
        );
    }
    Proxies {
        networks: networks.iter().filter_map(network).collect(),
        header: header.and_then(|value| file::one_of(&value, &choices)).unwrap_or_default(),
    }
}

/// A network, or one address.
fn network(value: &Value<'_>) -> Option<IpNet> {
    let advice = r#"write one as "10.0.0.0/8", an address as "10.0.0.7""#;
    let read = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = value.text_as(read, "a list of networks", advice)?;
    if network.prefix_len() == 0 {
        value.wrong(
            format!("{network} is everybody: any client could write the address it is taken for"),
            "name the network your proxies are in",
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
        place: table.document.place(table.span().start),
    };
    table.finish();
    Some(tls)
}

/// A plain path; `file:` before it, as the key has it, is a likely slip.
fn certificate_path(value: &Value<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    if let Some(path) = text.strip_prefix("file:") {
        value.wrong("a certificate is no secret: `certificate` is the path itself", format!("write \"{path}\""));
        return None;
    }
    Some(file::beside(value.document, Path::new(text)))
}
