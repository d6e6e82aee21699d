//! A test file: an event, answers, and what is expected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value as Json;
use toml::de::DeTable;

use super::answers::Answers;
use super::event::Given;
use super::expect::{self, Expected};
use modhost_config::document::Document;
use modhost_config::table::{Table, Value};
use modhost_config::{ConfigError, ConfigErrors, decode};

/// A test, as its file says it.
#[derive(Debug)]
pub struct Test {
    /// The file.
    pub file: PathBuf,
    /// What it is called: the file without its ending.
    pub name: String,
    /// The module it is for, where a folder has tests of several.
    pub module: Option<String>,
    /// What is expected.
    pub expected: Expected,
    /// The file's text, for who changes it.
    pub text: String,
    pub(super) given: Given,
    pub(super) answers: Answers,
    /// Settings in place of those of modules.toml.
    pub(super) config: BTreeMap<String, String>,
    pub(super) time: SystemTime,
    pub(super) chance: u64,
    pub(super) attempt: u32,
}

impl Test {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// If it can't be read, isn't TOML, or says something that means nothing: then with everything that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let bytes = std::fs::read(path)
            .map_err(|error| ConfigError::new(format!("{} can't be read: {error}", path.display())))?;
        Self::parse(decode(path, &bytes)?, path)
    }

    /// Checks the text of a file; `path` is what it is called in errors, and what it names is looked up beside it.
    ///
    /// # Errors
    ///
    /// If it isn't TOML, or says something that means nothing.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        let document = Document::new(path, text);
        let parsed = DeTable::parse(text).map_err(|error| {
            let end = text.len();
            document.error(error.span().unwrap_or(end..end), format!("this is not TOML: {}", error.message()))
        })?;
        let root = Table::new(&document, "a test", parsed.span(), parsed.get_ref());
        let module = root.get("module").and_then(|value| value.text().map(str::to_owned));
        let given = Given::read(&root, path);
        let answers = Answers::read(&root);
        let config = root.get("config").and_then(|value| value.table("[config]")).map(|table| config(&table));
        let time = root.get("time").and_then(|value| time(&value));
        let chance = root.get("chance").and_then(|value| value.count());
        let attempt = root.get("attempt").and_then(|value| value.count());
        let expected = root.get("expect").and_then(|value| value.table("[expect]")).map(expect::read);
        root.finish();
        ConfigErrors::none_of(document.into_problems())?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // A test without an event was reported, and doesn't come here.
        let Some(given) = given else {
            return Err(ConfigError::new(format!("{}: this test has no event", path.display())).into());
        };
        Ok(Self {
            file: path.to_owned(),
            name,
            module,
            expected: expected.unwrap_or_default(),
            text: text.to_owned(),
            given,
            answers,
            config: config.unwrap_or_default(),
            time: time.unwrap_or_else(default_time),
            chance: chance.unwrap_or_default(),
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
        value.wrong(
            format!("`{}` should be a time with its offset", value.key),
            "write for example 2026-01-31T08:00:00Z",
        );
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
                let message = format!("`{key}` can't be handed to the module: {reason}");
                table.document.report(value.span(), message, "write it in quotes, as text");
            }
        }
    }
    config
}
