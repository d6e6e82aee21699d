//! `http` of a `[[module]]`: where its requests may go.

use std::net::IpAddr;

use http::{HeaderName, Method};
use url::Host;

use super::items;
use crate::http::{HttpEntry, HttpHeader, USUAL_METHODS};
use crate::reference;
use crate::table::{Table, Value};
use modhost_core::address::AddressScope;
use modhost_core::origin::{HostPattern, Origin};

/// Headers that belong to the connection, or say where a request goes: the host's to write.
const OF_THE_CONNECTION: [&str; 12] = [
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

/// Reads the list.
pub(super) fn entries(value: Option<Value<'_>>) -> Vec<HttpEntry> {
    items(value).iter().filter_map(entry).collect()
}

fn entry(value: &Value<'_>) -> Option<HttpEntry> {
    let place = value.document.place(value.span().start);
    let methods = USUAL_METHODS.to_vec();
    if !value.is_table() {
        let entry = HttpEntry { origin: origin(value)?, methods, private: false, headers: Vec::new(), place };
        leads_somewhere(value, &entry);
        return Some(entry);
    }
    let table = value.table("entry of `http`")?;
    let host = table.require("host", "\"api.example.com\"");
    let private = table.get("private").and_then(|value| value.flag()).unwrap_or(false);
    let methods = table.get("methods").map_or(methods, |value| self::methods(&value));
    let headers = table.get("headers").and_then(|value| value.table("`headers` of an entry of `http`"));
    let headers = headers.map(self::headers).unwrap_or_default();
    let entry = host.as_ref().and_then(origin).map(|origin| HttpEntry { origin, methods, private, headers, place });
    if let (Some(entry), Some(host)) = (&entry, &host) {
        leads_somewhere(host, entry);
        means_one_host(host, entry);
    }
    table.finish();
    entry
}

fn origin(value: &Value<'_>) -> Option<Origin> {
    let text = value.text()?;
    Origin::parse(text).map_err(|(problem, advice)| value.wrong(problem, advice)).ok()
}

/// An address nobody would ever be let through to.
fn leads_somewhere(value: &Value<'_>, entry: &HttpEntry) {
    let address: IpAddr = match &entry.origin.host {
        HostPattern::One(Host::Ipv4(address)) => (*address).into(),
        HostPattern::One(Host::Ipv6(address)) => (*address).into(),
        _ => return,
    };
    let reach = AddressScope::of(address);
    let message = format!("{address} is {}", reach.words());
    match reach {
        AddressScope::Reserved => value.wrong(message, "name the address of a machine"),
        AddressScope::Private | AddressScope::LinkLocal if !entry.private => {
            let advice = format!("if that is meant: {{ host = \"{}\", private = true }}", entry.origin);
            value.wrong(format!("{message}, and those are closed to modules"), advice);
        }
        _ => {}
    }
}

/// What is granted beyond the usual has to be granted for hosts somebody has thought of.
fn means_one_host(value: &Value<'_>, entry: &HttpEntry) {
    if entry.origin.host != HostPattern::Any {
        return;
    }
    if entry.private {
        let advice = "name the hosts, each with private = true, in entries of their own";
        value.wrong("with private = true, `*` opens every machine of your networks to the module", advice);
    }
    if !entry.headers.is_empty() {
        let advice = "name the host the headers are for, in an entry of its own";
        value.wrong("with `headers`, `*` would give these credentials to every host", advice);
    }
}

fn methods(value: &Value<'_>) -> Vec<Method> {
    if value.list_is_empty() {
        value.wrong("`methods` is an empty list: nothing could be asked for", "leave it out for the usual ones");
    }
    items(Some(value.clone())).iter().filter_map(method).collect()
}

fn method(value: &Value<'_>) -> Option<Method> {
    let text = value.text()?;
    let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| text == text.to_ascii_uppercase());
    let Some(method) = method else {
        value.wrong(format!("\"{text}\" is no method of HTTP"), r#"write it in capitals, as in "GET""#);
        return None;
    };
    if method == Method::CONNECT || method == Method::TRACE {
        value
            .wrong(format!("{method} is closed to modules"), "remove it: a module sends requests, it opens no tunnels");
        return None;
    }
    Some(method)
}

fn headers(table: Table<'_>) -> Vec<HttpHeader> {
    table.values().filter_map(|value| header(&value)).collect()
}

/// A header and where its value is: a reference, or `Bearer` and the like, a space, and a reference.
fn header(value: &Value<'_>) -> Option<HttpHeader> {
    let Ok(name) = HeaderName::from_bytes(value.key.as_bytes()) else {
        value.wrong(
            format!("`{}` can't be the name of a header", value.key),
            r#"write for example authorization = "Bearer env:API_TOKEN""#,
        );
        return None;
    };
    if OF_THE_CONNECTION.contains(&name.as_str()) {
        value.wrong(format!("the header `{name}` is the host's own to write"), "remove it");
        return None;
    }
    let (before, secret) = reference::read_secret_behind(value)?;
    Some(HttpHeader { name, before, secret })
}
