//! Reads `[tenant.platform]`, the platform of a tenant, and `[tenant.completion]`, the model that replaces the model
//! of the platform.

use std::time::Duration;

use http::HeaderName;

use super::{one_of, text};
use crate::platform::{CompletionSettings, NexusPlatform, PlatformSettings, UniquePlatform};
use crate::table::{Table, Value};
use crate::{Reference, reference};
use modhost_core::platform_urls::{NEXUS_API_BASE, OPENAI_API_BASE, UNIQUE_API_BASE};

/// The kind of a platform.
#[derive(Clone, Copy)]
enum PlatformKind {
    Unique,
    Nexus,
    None,
}

impl PlatformKind {
    const ALL: [Self; 3] = [Self::Unique, Self::Nexus, Self::None];

    fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Nexus => "nexus",
            Self::None => "none",
        }
    }

    /// Returns the settings of a platform of this kind, except `kind`.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Unique => &["api_base", "app_id", "api_key", "model", "timeout", "idempotency_header"],
            Self::Nexus => &["api_base", "api_key", "timeout", "idempotency_header"],
            Self::None => &[],
        }
    }
}

/// Reads `[tenant.platform]`.
pub(super) fn platform(table: Table<'_>) -> PlatformSettings {
    let kind = table.require("kind", "\"unique\"");
    let known = kind.as_ref().and_then(|value| one_of(value, &PlatformKind::ALL.map(|kind| (kind.name(), kind))));
    if kind.is_some() && known.is_none() {
        // Which settings are missing depends on the kind. Errors in the settings that are present are reported
        // anyway.
        read_unique(&table, |table, key, _| table.get(key));
        table.allow_unknown_keys();
        table.finish();
        return PlatformSettings::None;
    }
    let kind = known.unwrap_or(PlatformKind::Unique);
    reject_other_kinds(&table, kind);
    let settings = match kind {
        PlatformKind::Unique => PlatformSettings::Unique(read_unique(&table, Table::require)),
        PlatformKind::Nexus => PlatformSettings::Nexus(read_nexus(&table)),
        PlatformKind::None => PlatformSettings::None,
    };
    table.finish();
    settings
}

/// Reports settings that only other kinds have.
fn reject_other_kinds(table: &Table<'_>, kind: PlatformKind) {
    for (key, _) in table.entries().filter(|(key, _)| !kind.settings().contains(key)) {
        let others = PlatformKind::ALL.into_iter().filter(|other| other.settings().contains(&key));
        let others: Vec<_> = others.map(|other| format!("\"{}\"", other.name())).collect();
        if !others.is_empty() {
            let message = format!("unknown setting `{key}` for a platform of kind \"{}\"", kind.name());
            table.reject_key(key, message, format!("remove it, or change `kind` to {}", others.join(" or ")));
        }
    }
}

fn read_unique<'d>(
    table: &Table<'d>,
    get: impl Fn(&Table<'d>, &'static str, &str) -> Option<Value<'d>>,
) -> UniquePlatform {
    let api_base = get(table, "api_base", "\"env:UNIQUE_API_BASE\"");
    let app_id = get(table, "app_id", "\"env:UNIQUE_APP_ID\"");
    let api_key = get(table, "api_key", "\"env:UNIQUE_API_KEY\"");
    UniquePlatform {
        api_base: api_base
            .and_then(|value| api_base_of(&value, "env:UNIQUE_API_BASE", UNIQUE_API_BASE))
            .unwrap_or_else(placeholder),
        app_id: app_id.and_then(|value| reference::read(&value)).unwrap_or_else(placeholder),
        api_key: api_key.and_then(|value| reference::read_secret(&value)).unwrap_or_else(placeholder),
        model: text(table.get("model")),
        timeout: timeout(table, 600),
        idempotency_header: idempotency_header(table),
    }
}

fn read_nexus(table: &Table<'_>) -> NexusPlatform {
    let api_base = table.get("api_base");
    let api_key = table.require("api_key", "\"env:NEXUS_API_KEY\"");
    NexusPlatform {
        api_base: api_base
            .and_then(|value| api_base_of(&value, "env:NEXUS_API_BASE", NEXUS_API_BASE))
            .unwrap_or_else(|| Reference::given(NEXUS_API_BASE)),
        api_key: api_key.and_then(|value| reference::read_secret(&value)).unwrap_or_else(placeholder),
        timeout: timeout(table, 30),
        idempotency_header: table.get("idempotency_header").and_then(|value| header_name(&value)),
    }
}

/// Reads `[tenant.completion]`.
pub(super) fn completion(table: Table<'_>) -> CompletionSettings {
    let api_base = table.require("api_base", "\"env:OPENAI_API_BASE\"");
    let model = table.require("model", "\"gpt-5-mini\"");
    let settings = CompletionSettings {
        api_base: api_base
            .and_then(|value| api_base_of(&value, "env:OPENAI_API_BASE", OPENAI_API_BASE))
            .unwrap_or_else(placeholder),
        api_key: table.get("api_key").and_then(|value| reference::read_secret(&value)),
        model: text(model).unwrap_or_default(),
        timeout: timeout(&table, 600),
        idempotency_header: idempotency_header(&table),
    };
    table.finish();
    settings
}

/// Reads how long a call may take. `default` is in seconds.
fn timeout(table: &Table<'_>, default: u64) -> Duration {
    table.get("timeout").and_then(|value| value.duration()).unwrap_or(Duration::from_secs(default))
}

/// Reads the header of idempotency keys. The default is `Idempotency-Key`.
fn idempotency_header(table: &Table<'_>) -> Option<HeaderName> {
    match table.get("idempotency_header") {
        Some(value) => header_name(&value),
        None => Some(HeaderName::from_static("idempotency-key")),
    }
}

/// Returns a placeholder for a reference that could not be read.
fn placeholder() -> Reference {
    Reference::given("")
}

/// Reads a URL, or a reference to one. `variable` and `example` are examples for the error.
fn api_base_of(value: &Value<'_>, variable: &str, example: &str) -> Option<Reference> {
    let reference = reference::read(value)?;
    if reference.literal().is_some_and(|text| reference::parse_url(text).is_none()) {
        value.reject(
            "`api_base` is neither a reference nor a URL",
            format!("write \"{variable}\", or the URL itself: \"{example}\""),
        );
        return None;
    }
    Some(reference)
}

/// Reads the name of a header. The value `none` means no header.
fn header_name(value: &Value<'_>) -> Option<HeaderName> {
    let text = value.text().filter(|text| *text != "none")?;
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        value.reject(
            format!("`{}` is not a valid header name", value.key),
            r#"write, for example, "Idempotency-Key", or "none" for no header"#,
        );
    }
    name
}
