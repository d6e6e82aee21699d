//! Reads a `[[source]]`.

use http::HeaderName;
use std::time::Duration;

use super::event_socket::{SOCKET_SETTINGS, event_socket, reject_all};
use super::{Located, items, name_of, one_of, span_of};
use crate::Reference;
use crate::reference;
use crate::source::{
    Algorithm, Encoding, EventFields, FieldSelector, HmacRules, KeyEncoding, Scheme, SignedPart, Source, SourceKind,
    Webhook, Window,
};
use crate::table::{Table, Value};
use modhost_core::suggest;

/// Reads the settings of a scheme.
type ReadScheme = fn(&Table<'_>) -> Scheme;

/// The signature schemes: the name of each, and how its settings are read.
const SCHEMES: [(&str, ReadScheme); 12] = [
    ("unique", |table| Scheme::Unique(window(table, Window::default()))),
    ("nexus", nexus),
    ("archivus", |_| Scheme::Archivus),
    ("standard-webhooks", |table| Scheme::StandardWebhooks(window(table, Window::default()))),
    ("github", |_| Scheme::GitHub),
    ("stripe", |table| Scheme::Stripe(window(table, Window::default()))),
    ("slack", |table| Scheme::Slack(window(table, Window::default()))),
    ("shopify", |_| Scheme::Shopify),
    ("linear", |table| Scheme::Linear(window(table, ONE_MINUTE))),
    ("discord", |table| Scheme::Discord(window(table, Window::ANY))),
    ("hmac", |table| Scheme::Hmac(hmac(table))),
    ("none", |table| Scheme::None {
        from_anywhere: table.get("from_anywhere").and_then(|value| value.flag()).unwrap_or(false),
    }),
];

/// The window that Linear's documentation recommends.
const ONE_MINUTE: Window = Window { past: Some(Duration::from_secs(60)), ahead: Some(Duration::from_secs(60)) };

/// Reads the settings that belong to a kind of source.
type ReadKind = fn(&Table<'_>) -> SourceKind;

/// The kinds of sources: the name of each, and how its settings are read.
const KINDS: [(&str, ReadKind); 2] = [
    ("webhook", |table| SourceKind::Webhook(webhook(table).into())),
    ("event-socket", |table| SourceKind::EventSocket(event_socket(table))),
];

pub(super) fn source(table: Table<'_>) -> Located<Source> {
    let name = table.require("name", "\"unique\"");
    let kind = match table.get("kind") {
        None => SourceKind::Webhook(webhook(&table).into()),
        Some(value) => one_of(&value, &KINDS).map(|read| read(&table)).unwrap_or_else(|| {
            // The kind is unknown, so no setting can be reported as unknown.
            table.allow_unknown_keys();
            SourceKind::Webhook(placeholder_webhook().into())
        }),
    };
    let own = if matches!(kind, SourceKind::Webhook(_)) { table.get("path") } else { table.get("company") };
    let tenant = table.get("tenant");
    let source = Located {
        name: span_of(&name, &table),
        path: span_of(&own, &table),
        sources: Vec::new(),
        tenants: tenant.iter().map(Value::span).collect(),
        companies: Vec::new(),
        part: Source {
            name: name_of(name),
            kind,
            tenant: tenant.map(|value| name_of(Some(value))),
            location: table.document.location(table.span().start),
            written: table.written(),
        },
    };
    table.finish();
    source
}

fn webhook(table: &Table<'_>) -> Webhook {
    reject_all(table, &SOCKET_SETTINGS, "a webhook", "remove it, or set kind = \"event-socket\"");
    let path = table.require("path", "\"/webhook\"");
    let scheme = scheme(table);
    let secrets = secrets(table, &scheme);
    let event = table.get("event").and_then(|value| value.table("[source.event]"));
    Webhook {
        path: path.as_ref().and_then(webhook_path).unwrap_or_default(),
        scheme,
        secrets,
        event: event.map(event_fields).unwrap_or_default(),
        events_per_second: table.get("events_per_second").and_then(|value| value.count()),
    }
}

/// Returns a placeholder for a source of an unknown kind.
fn placeholder_webhook() -> Webhook {
    Webhook {
        path: String::new(),
        scheme: Scheme::Archivus,
        secrets: Vec::new(),
        event: EventFields::default(),
        events_per_second: None,
    }
}

fn scheme(table: &Table<'_>) -> Scheme {
    let read = table.require("scheme", "\"unique\"").and_then(|value| one_of(&value, &SCHEMES));
    match read {
        Some(read) => read(table),
        None => {
            // The kind is unknown, so no setting can be reported as unknown.
            table.allow_unknown_keys();
            Scheme::Archivus
        }
    }
}

fn secrets(table: &Table<'_>, scheme: &Scheme) -> Vec<Reference> {
    if !matches!(scheme, Scheme::None { .. }) {
        let example = match scheme {
            Scheme::Unique(_) => "[\"env:UNIQUE_ENDPOINT_SECRET\"]",
            Scheme::Discord(_) => "[\"env:DISCORD_PUBLIC_KEY\"]",
            _ => "[\"env:WEBHOOK_SECRET\"]",
        };
        let secrets = table.require("secrets", example);
        return secrets.as_ref().map(secret_list).unwrap_or_default();
    }
    if let Some(value) = table.get("secrets") {
        value.reject(
            "`secrets` has no effect: a source with the scheme \"none\" verifies nothing",
            "remove `secrets`, or set another scheme",
        );
    }
    Vec::new()
}

fn secret_list(value: &Value<'_>) -> Vec<Reference> {
    if value.list_is_empty() {
        value.reject(
            "`secrets` is empty: no event could be verified",
            r#"write where the secret is, for example, secrets = ["env:WEBHOOK_SECRET"]"#,
        );
    }
    items(Some(value.clone())).iter().filter_map(reference::read_secret).collect()
}

fn webhook_path(value: &Value<'_>) -> Option<String> {
    let path = value.text()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if !path.starts_with('/') {
        value.reject(format!("`path` must start with /, unlike \"{path}\""), format!("write \"/{path}\""));
    } else if ["/health", "/livez", "/readyz"].contains(&path) {
        let message = format!("`{path}` is reserved for the health checks of the host");
        value.reject(message, "use another path, such as \"/webhook\"");
    } else if !path.chars().all(is_plain) {
        value.reject(format!("\"{path}\" is not a valid path"), "use only letters, digits, and - . _ ~ /");
    } else {
        return Some(path.to_owned());
    }
    None
}

/// Reads how far the time of a request may differ from the clock of the host. Zero disables the check on that side.
fn window(table: &Table<'_>, default: Window) -> Window {
    let side = |key, default| match table.get(key).and_then(|value| value.duration_or_zero()) {
        Some(time) => Some(time).filter(|time: &Duration| !time.is_zero()),
        None => default,
    };
    Window { past: side("tolerance", default.past), ahead: side("tolerance_ahead", default.ahead) }
}

fn nexus(table: &Table<'_>) -> Scheme {
    let header = table.require("header", "\"nexus-signature\"").and_then(|value| header_name(&value));
    Scheme::Nexus { header: header.unwrap_or(HeaderName::from_static("nexus-signature")) }
}

fn hmac(table: &Table<'_>) -> HmacRules {
    let header = table.require("header", "\"X-Signature\"").and_then(|value| header_name(&value));
    let algorithms = [("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512), ("sha1", Algorithm::Sha1)];
    let keys = [("text", KeyEncoding::Text), ("hex", KeyEncoding::Hex), ("base64", KeyEncoding::Base64)];
    let encodings = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];
    let timestamp = table.get("timestamp_header").and_then(|value| header_name(&value));
    let signed = match table.get("signed") {
        Some(value) => signed_parts(&value, timestamp.as_ref()).unwrap_or_default(),
        None => vec![SignedPart::Body],
    };
    HmacRules {
        header: header.unwrap_or(HeaderName::from_static("x-signature")),
        prefix: table.get("prefix").and_then(|value| value.text().map(str::to_owned)).unwrap_or_default(),
        algorithm: table.get("algorithm").and_then(|it| one_of(&it, &algorithms)).unwrap_or(Algorithm::Sha256),
        encoding: table.get("encoding").and_then(|it| one_of(&it, &encodings)).unwrap_or(Encoding::Hex),
        key: table.get("secret_encoding").and_then(|it| one_of(&it, &keys)).unwrap_or(KeyEncoding::Text),
        // Without a timestamp there is nothing to check against the clock, so the settings of the window are unknown
        // settings.
        window: timestamp.as_ref().map_or(Window::ANY, |_| window(table, Window::default())),
        signed,
        timestamp,
    }
}

/// Reads what is signed: text that contains `{body}`, `{timestamp}` and `{header:NAME}`.
fn signed_parts(value: &Value<'_>, timestamp: Option<&HeaderName>) -> Option<Vec<SignedPart>> {
    const ADVICE: &str = r#"write, for example, "{body}" or "v0:{timestamp}:{body}""#;
    let reject = |message: String| {
        value.reject(message, ADVICE);
        None
    };
    let mut rest = value.text()?;
    let mut parts = Vec::new();
    while let Some((text, after)) = rest.split_once('{') {
        if !text.is_empty() {
            parts.push(SignedPart::Text(text.to_owned()));
        }
        let Some((placeholder, after)) = after.split_once('}') else {
            return reject(format!("`{}` has an unclosed brace", value.key));
        };
        parts.push(match (placeholder, timestamp) {
            ("body", _) => SignedPart::Body,
            ("timestamp", Some(header)) => SignedPart::Header(header.clone()),
            ("timestamp", None) => {
                return reject("`signed` contains {timestamp}, but there is no `timestamp_header`".into());
            }
            _ => {
                match placeholder.strip_prefix("header:").and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                {
                    Some(name) => SignedPart::Header(name),
                    None => return reject(format!("unknown placeholder {{{placeholder}}} in `{}`", value.key)),
                }
            }
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(SignedPart::Text(rest.to_owned()));
    }
    if !parts.contains(&SignedPart::Body) {
        return reject("`signed` does not contain {body}: a signature would be valid for any body".into());
    }
    Some(parts)
}

fn header_name(value: &Value<'_>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(value.text()?.as_bytes()).ok();
    if name.is_none() {
        value.reject(format!("`{}` is not a valid header name", value.key), r#"write, for example, "X-Signature""#);
    }
    name
}

fn event_fields(table: Table<'_>) -> EventFields {
    let parts = EventFields {
        id: table.get("id").and_then(|value| selectors(&value)),
        name: table.get("name").and_then(|value| selectors(&value)),
        company: table.get("company").and_then(|value| optional_selector(&value)),
        user: table.get("user").and_then(|value| optional_selector(&value)),
        created_at: table.get("created_at").and_then(|value| optional_selector(&value)),
        payload: table.get("payload").and_then(|value| match selector(&value)? {
            FieldSelector::Body(path) => Some(path),
            _ => {
                value.reject("`payload` must be a part of the body", r#"write, for example, "body:data""#);
                None
            }
        }),
    };
    table.finish();
    parts
}

/// Reads one field, or an array of fields that are joined. An array inside it is a list of alternatives: the first
/// one with a value is used.
fn selectors(value: &Value<'_>) -> Option<Vec<FieldSelector>> {
    if !value.is_list() {
        return selector(value).map(|selector| vec![selector]);
    }
    if value.list_is_empty() {
        value.reject(format!("`{}` is empty", value.key), r#"write, for example, ["body:id", "body:updatedAt"]"#);
    }
    let one_or_alternatives = |value: &Value<'_>| if value.is_list() { alternatives(value) } else { selector(value) };
    items(Some(value.clone())).iter().map(one_or_alternatives).collect()
}

/// Reads one field, `none` if events do not have it, or an array of alternatives: the first one with a value is used.
fn optional_selector(value: &Value<'_>) -> Option<Option<FieldSelector>> {
    if value.is_list() {
        return alternatives(value).map(Some);
    }
    if value.text()? == "none" { Some(None) } else { selector(value).map(Some) }
}

/// Reads alternatives: the first one with a value is used.
fn alternatives(value: &Value<'_>) -> Option<FieldSelector> {
    if value.list_is_empty() {
        value.reject(
            format!("`{}` contains an empty array", value.key),
            r#"write, for example, ["body:member.user.id", "body:user.id"]"#,
        );
    }
    items(Some(value.clone())).iter().map(selector).collect::<Option<Vec<_>>>().map(FieldSelector::First)
}

fn selector(value: &Value<'_>) -> Option<FieldSelector> {
    let text = value.text()?;
    match text.split_once(':') {
        None if text == "body" => return Some(FieldSelector::Body(Vec::new())),
        None if text == "hash" => return Some(FieldSelector::Hash),
        Some(("body", path)) if path.split('.').all(|key| !key.is_empty()) => {
            return Some(FieldSelector::Body(path.split('.').map(str::to_owned).collect()));
        }
        Some(("text", text)) if !text.is_empty() => return Some(FieldSelector::Text(text.to_owned())),
        Some(("header", name)) => {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                return Some(FieldSelector::Header(name));
            }
        }
        _ => {}
    }
    let advice = suggest::advice(text, &["body:KEY.KEY", "header:NAME", "text:WORDS", "body", "hash"]);
    value.reject(format!("`{}` is not a place in a request: \"{text}\"", value.key), advice);
    None
}
