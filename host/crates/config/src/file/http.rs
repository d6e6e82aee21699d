//! Reads `http` of a `[[module]]`: where its requests may go.

use std::net::IpAddr;

use http::{HeaderName, Method};
use url::Host;

use super::items;
use crate::http::{DEFAULT_METHODS, HttpEntry, HttpHeader};
use crate::reference;
use crate::table::{Table, Value};
use modhost_core::address::AddressScope;
use modhost_core::origin::{HostPattern, Origin};

/// Headers that control the connection or the destination of a request: only the host sets them.
const RESERVED_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Reads the array.
pub(super) fn entries(value: Option<Value<'_>>) -> Vec<HttpEntry> {
    items(value).iter().filter_map(entry).collect()
}

fn entry(value: &Value<'_>) -> Option<HttpEntry> {
    let location = value.document.location(value.span().start);
    let methods = DEFAULT_METHODS.to_vec();
    if !value.is_table() {
        let entry = HttpEntry { origin: origin(value)?, methods, private: false, headers: Vec::new(), location };
        check_address(value, &entry);
        return Some(entry);
    }
    let table = value.table("this entry of `http`")?;
    let host = table.require("host", "\"api.example.com\"");
    let private = table.get("private").and_then(|value| value.flag()).unwrap_or(false);
    let methods = table.get("methods").map_or(methods, |value| self::methods(&value));
    let headers = table.get("headers").and_then(|value| value.table("`headers` of an entry of `http`"));
    let headers = headers.map(self::headers).unwrap_or_default();
    let entry = host.as_ref().and_then(origin).map(|origin| HttpEntry { origin, methods, private, headers, location });
    if let (Some(entry), Some(host)) = (&entry, &host) {
        check_address(host, entry);
        check_wildcard(host, entry);
    }
    table.finish();
    entry
}

fn origin(value: &Value<'_>) -> Option<Origin> {
    let text = value.text()?;
    Origin::parse(text).map_err(|(problem, advice)| value.reject(problem, advice)).ok()
}

/// Reports an address that no request could reach.
fn check_address(value: &Value<'_>, entry: &HttpEntry) {
    let address: IpAddr = match &entry.origin.host {
        HostPattern::Exact(Host::Ipv4(address)) => (*address).into(),
        HostPattern::Exact(Host::Ipv6(address)) => (*address).into(),
        _ => return,
    };
    let reach = AddressScope::of(address);
    let message = format!("{address} is {}", reach.description());
    match reach {
        AddressScope::Reserved => value.reject(message, "use the address of a single machine"),
        AddressScope::Private | AddressScope::LinkLocal if !entry.private => {
            let advice = format!("to allow it, write {{ host = \"{}\", private = true }}", entry.origin);
            value.reject(format!("{message}, which modules may not reach by default"), advice);
        }
        _ => {}
    }
}

/// Reports `*` with `private` or `headers`: these must be granted to named hosts.
fn check_wildcard(value: &Value<'_>, entry: &HttpEntry) {
    if entry.origin.host != HostPattern::Any {
        return;
    }
    if entry.private {
        let advice = "add an entry with private = true for each host";
        value.reject("`*` with private = true lets the module reach every machine in your networks", advice);
    }
    if !entry.headers.is_empty() {
        let advice = "add an entry for the host that needs the headers";
        value.reject("`*` with `headers` would send these credentials to every host", advice);
    }
}

fn methods(value: &Value<'_>) -> Vec<Method> {
    if value.list_is_empty() {
        value.reject("`methods` is empty: no request would be allowed", "remove it to allow the default methods");
    }
    items(Some(value.clone())).iter().filter_map(method).collect()
}

fn method(value: &Value<'_>) -> Option<Method> {
    let text = value.text()?;
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| text == text.to_ascii_uppercase());
    let Some(method) = method else {
        value.reject(format!("\"{text}\" is not an HTTP method"), r#"use upper case, for example "GET""#);
        return None;
    };
    if method == Method::CONNECT || method == Method::TRACE {
        value.reject(format!("modules may not use {method}"), "remove it");
        return None;
    }
    Some(method)
}

fn headers(table: Table<'_>) -> Vec<HttpHeader> {
    table.values().filter_map(|value| header(&value)).collect()
}

/// Reads a header and the reference to its value. A prefix such as `Bearer` and a space may precede the reference.
fn header(value: &Value<'_>) -> Option<HttpHeader> {
    let Ok(name) = HeaderName::from_bytes(value.key.as_bytes()) else {
        value.reject(
            format!("`{}` is not a valid header name", value.key),
            r#"write, for example, authorization = "Bearer env:API_TOKEN""#,
        );
        return None;
    };
    if RESERVED_HEADERS.contains(&name.as_str()) {
        value.reject(format!("the header `{name}` is reserved for the host"), "remove it");
        return None;
    }
    let (prefix, secret) = reference::read_prefixed_secret(value)?;
    Some(HttpHeader { name, prefix, secret })
}
