//! `[tenant.platform]`: which platform it is, and the settings of that one; `[tenant.completion]`: the model in the place
//! of its own.

use std::time::Duration;

use http::HeaderName;

use super::{one_of, text};
use crate::platform::{CompletionSettings, NexusPlatform, PlatformSettings, UniquePlatform};
use crate::table::{Table, Value};
use crate::{Reference, reference};
use modhost_core::platform_urls::{NEXUS_API_BASE, OPENAI_API_BASE, UNIQUE_API_BASE};

/// Which platform it is.
#[derive(Clone, Copy)]
enum Kind {
    Unique,
    Nexus,
    None,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Unique, Self::Nexus, Self::None];

    fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Nexus => "nexus",
            Self::None => "none",
        }
    }

    /// What a platform of this kind has besides `kind`.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Unique => &["api_base", "app_id", "api_key", "model", "timeout", "idempotency_header"],
            Self::Nexus => &["api_base", "api_key", "timeout", "idempotency_header"],
            Self::None => &[],
        }
    }
}

/// Reads the table.
pub(super) fn platform(table: Table<'_>) -> PlatformSettings {
    let kind = table.require("kind", "\"unique\"");
    let known = kind.as_ref().and_then(|value| one_of(value, &Kind::ALL.map(|kind| (kind.name(), kind))));
    if kind.is_some() && known.is_none() {
        // What it lacks nobody can say; what is wrong with what is there is worth telling all the same.
        read_unique(&table, |table, key, _| table.get(key));
        table.know_all();
        table.finish();
        return PlatformSettings::None;
    }
    let kind = known.unwrap_or(Kind::Unique);
    refuse_others(&table, kind);
    let settings = match kind {
        Kind::Unique => PlatformSettings::Unique(read_unique(&table, Table::require)),
        Kind::Nexus => PlatformSettings::Nexus(read_nexus(&table)),
        Kind::None => PlatformSettings::None,
    };
    table.finish();
    settings
}

/// Refuses settings that only other kinds have.
fn refuse_others(table: &Table<'_>, kind: Kind) {
    for (key, _) in table.entries().filter(|(key, _)| !kind.settings().contains(key)) {
        let others = Kind::ALL.into_iter().filter(|other| other.settings().contains(&key));
        let others: Vec<_> = others.map(|other| format!("\"{}\"", other.name())).collect();
        if !others.is_empty() {
            let message = format!("a platform of kind \"{}\" has no setting `{key}`", kind.name());
            table.refuse(key, message, format!("remove it, or change `kind`: it is for {}", others.join(" and ")));
        }
    }
}

fn read_unique<'d>(
    table: &Table<'d>,
    needed: impl Fn(&Table<'d>, &'static str, &str) -> Option<Value<'d>>,
) -> UniquePlatform {
    let api_base = needed(table, "api_base", "\"env:UNIQUE_API_BASE\"");
    let app_id = needed(table, "app_id", "\"env:UNIQUE_APP_ID\"");
    let api_key = needed(table, "api_key", "\"env:UNIQUE_API_KEY\"");
    UniquePlatform {
        api_base: api_base
            .and_then(|value| api_base_of(&value, "env:UNIQUE_API_BASE", UNIQUE_API_BASE))
            .unwrap_or_else(nothing),
        app_id: app_id.and_then(|value| reference::read(&value)).unwrap_or_else(nothing),
        api_key: api_key.and_then(|value| reference::read_secret(&value)).unwrap_or_else(nothing),
        model: text(table.get("model")),
        timeout: timeout(table, 600),
        idempotency_header: usual_header(table),
    }
}

fn read_nexus(table: &Table<'_>) -> NexusPlatform {
    let api_base = table.get("api_base");
    let api_key = table.require("api_key", "\"env:NEXUS_API_KEY\"");
    NexusPlatform {
        api_base: api_base
            .and_then(|value| api_base_of(&value, "env:NEXUS_API_BASE", NEXUS_API_BASE))
            .unwrap_or_else(|| Reference::given(NEXUS_API_BASE)),
        api_key: api_key.and_then(|value| reference::read_secret(&value)).unwrap_or_else(nothing),
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
            .unwrap_or_else(nothing),
        api_key: table.get("api_key").and_then(|value| reference::read_secret(&value)),
        model: text(model).unwrap_or_default(),
        timeout: timeout(&table, 600),
        idempotency_header: usual_header(&table),
    };
    table.finish();
    settings
}

/// How long a call may take; `default` is in seconds.
fn timeout(table: &Table<'_>, default: u64) -> Duration {
    table.get("timeout").and_then(|value| value.duration()).unwrap_or(Duration::from_secs(default))
}

/// The header of idempotency keys: the usual one unless another is named.
fn usual_header(table: &Table<'_>) -> Option<HeaderName> {
    match table.get("idempotency_header") {
        Some(value) => header_name(&value),
        None => Some(HeaderName::from_static("idempotency-key")),
    }
}

/// Stands in for a reference that couldn't be read.
fn nothing() -> Reference {
    Reference::given("")
}

/// An address, or a reference to one; `variable` and `example` are how it may be written.
fn api_base_of(value: &Value<'_>, variable: &str, example: &str) -> Option<Reference> {
    let reference = reference::read(value)?;
    if reference.literal().is_some_and(|text| reference::web_address(text).is_none()) {
        value.wrong(
            "`api_base` is neither a reference nor an address",
            format!("write \"{variable}\", or the address itself: \"{example}\""),
        );
        return None;
    }
    Some(reference)
}

/// The name of a header; `none` is no name.
fn header_name(value: &Value<'_>) -> Option<HeaderName> {
    let text = value.text().filter(|text| *text != "none")?;
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        value.wrong(
            format!("`{}` can't be the name of a header", value.key),
            r#"write for example "Idempotency-Key", or "none""#,
        );
    }
    name
}
