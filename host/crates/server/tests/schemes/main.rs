//! Tests of the signature schemes through the public API: a source from a modules.toml, and requests made by hand.

mod page;
mod signing;
mod tenants;
mod vectors;

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use modhost_config::{ConfigErrors, Settings};
use modhost_ingress::sources::schemes::Request;
use modhost_ingress::sources::{Received, Rejection, Source};
use modhost_platform::TenantHttpClients;
use modhost_server::resolved_config::ResolvedConfig;

/// The name and the value of each secret.
type Secrets<'a> = &'a [(&'a str, &'a str)];

/// The only tenant, for sources that name none.
const TENANT: &str = r#"
[[tenant]]
name = "default"
platform = { kind = "unique", api_base = "https://example.com", app_id = "app", api_key = "file:KEY" }
"#;

/// Resolves a complete modules.toml. `env:NAME` in it refers to these secrets.
fn resolve(text: &str, secrets: Secrets<'_>) -> Result<ResolvedConfig, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    for (name, secret) in secrets.iter().chain(&[("KEY", "key")]) {
        std::fs::write(folder.path().join(name), secret).unwrap();
    }
    let file = folder.path().join("modules.toml");
    std::fs::write(&file, text.replace("\"env:", "\"file:")).unwrap();
    ResolvedConfig::new(&Settings::load(&file)?, &TenantHttpClients::default())
}

/// Returns a source with these settings.
fn source(lines: &str, secrets: Secrets<'_>) -> Source {
    source_of(lines, TENANT, secrets)
}

/// Returns a source with these settings, for these tenants.
fn source_of(lines: &str, tenants: &str, secrets: Secrets<'_>) -> Source {
    let text = format!("[[source]]\nname = \"in\"\npath = \"/in\"\n{lines}\n{tenants}");
    let config = resolve(&text, secrets).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    config.webhooks.into_iter().next().unwrap()
}

/// Returns headers with these names and values.
fn headers<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let line = |(name, value): (&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    HeaderMap::from_iter(lines.into_iter().map(line))
}

/// Passes a request to a source at a time in seconds since 1970.
fn receive(source: &Source, headers: &HeaderMap, body: &str, now: u64) -> Result<Received, Rejection> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    source.receive(&Request { headers, body: &body, now: time(now) }, &body)
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
