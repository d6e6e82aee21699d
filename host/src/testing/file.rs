//! A test file: an event, answers, and expectations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value as Json;
use toml::de::DeTable;

use super::answers::ScriptedAnswers;
use super::event::TestEvent;
use super::expect::{self, Expected};
use modhost_config::document::Document;
use modhost_config::table::{Table, Value};
use modhost_config::{ConfigError, ConfigErrors, decode};

/// A test, read from its file.
#[derive(Debug)]
pub struct Test {
    /// The file.
    pub file: PathBuf,
    /// Its name: the file name without extension.
    pub name: String,
    /// Its module, for folders with tests of several modules.
    pub module: Option<String>,
    /// The expectations.
    pub expected: Expected,
    /// The text of the file, for updates.
    pub text: String,
    pub(super) event: TestEvent,
    pub(super) answers: ScriptedAnswers,
    /// Settings that override those of modules.toml.
    pub(super) config: BTreeMap<String, String>,
    pub(super) time: SystemTime,
    pub(super) seed: u64,
    pub(super) attempt: u32,
}

impl Test {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not TOML, or is invalid. Reports all problems.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let bytes = std::fs::read(path)
            .map_err(|error| ConfigError::new(format!("cannot read {}: {error}", path.display())))?;
        Self::parse(decode(path, &bytes)?, path)
    }

    /// Parses the text of a file. `path` is used in errors, and to resolve relative paths.
    ///
    /// # Errors
    ///
    /// If the text is not TOML, or is invalid.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        let document = Document::new(path, text);
        let parsed = DeTable::parse(text).map_err(|error| {
            let end = text.len();
            document.error(error.span().unwrap_or(end..end), format!("invalid TOML: {}", error.message()))
        })?;
        let root = Table::new(&document, "a test", parsed.span(), parsed.get_ref());
        let module = root.get("module").and_then(|value| value.text().map(str::to_owned));
        let event = TestEvent::read(&root, path);
        let answers = ScriptedAnswers::read(&root);
        let config = root.get("config").and_then(|value| value.table("[config]")).map(|table| config(&table));
        let time = root.get("time").and_then(|value| time(&value));
        let seed = root.get("chance").and_then(|value| value.count());
        let attempt = root.get("attempt").and_then(|value| value.count());
        let expected = root.get("expect").and_then(|value| value.table("[expect]")).map(expect::read);
        root.finish();
        ConfigErrors::ok_if_empty(document.into_errors())?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // A missing event was reported above.
        let Some(event) = event else {
            return Err(ConfigError::new(format!("{}: this test has no event", path.display())).into());
        };
        Ok(Self {
            file: path.to_owned(),
            name,
            module,
            expected: expected.unwrap_or_default(),
            text: text.to_owned(),
            event,
            answers,
            config: config.unwrap_or_default(),
            time: time.unwrap_or_else(default_time),
            seed: seed.unwrap_or_default(),
            attempt: attempt.unwrap_or(1),
        })
    }
}

fn default_time() -> SystemTime {
    super::DEFAULT_TIME.parse::<jiff::Timestamp>().map_or(SystemTime::UNIX_EPOCH, SystemTime::from)
}

fn time(value: &Value<'_>) -> Option<SystemTime> {
    let text = value.json()?;
    let time = text.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(SystemTime::from);
    if time.is_none() {
        value.reject(format!("`{}` must be a time with an offset", value.key), "write it like 2026-01-31T08:00:00Z");
    }
    time
}

fn config(table: &Table<'_>) -> BTreeMap<String, String> {
    let mut config = BTreeMap::new();
    for (key, value) in table.entries() {
        match modhost_config::table::to_json(value.get_ref()) {
            Ok(Json::String(text)) => drop(config.insert(key.to_owned(), text)),
            Ok(json) => drop(config.insert(key.to_owned(), json.to_string())),
            Err(reason) => {
                let message = format!("`{key}` cannot be passed to the module: {reason}");
                table.document.report(value.span(), message, "write it in quotes, as text");
            }
        }
    }
    config
}
