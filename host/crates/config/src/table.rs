//! Reads tables and values of a modules.toml or a test file, and reports errors.
//!
//! This walks the parsed document by hand instead of deriving `Deserialize`: serde stops at the first error, and its
//! error for a value of the wrong type quotes the value, which may be a secret.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::document::Document;
use super::{WrittenKeys, suggest, units};

/// The tables that users may write above a key that belongs to the whole file.
const TOP_TABLES: [&str; 5] = ["[server]", "[storage]", "[[source]]", "[[tenant]]", "[[module]]"];

/// A table of the file. Records which settings were read: all others are errors.
pub struct Table<'d> {
    /// The document.
    pub document: &'d Document<'d>,
    /// The name in errors: `[server]`, `[[source]]`.
    title: &'static str,
    span: Range<usize>,
    entries: &'d DeTable<'d>,
    known: RefCell<Vec<&'static str>>,
    rejected: RefCell<Vec<&'d str>>,
    allow_unknown_keys: Cell<bool>,
}

impl<'d> Table<'d> {
    /// Creates a table of which no setting was read yet. `title` names it in errors.
    pub fn new(document: &'d Document<'d>, title: &'static str, span: Range<usize>, entries: &'d DeTable<'d>) -> Self {
        let (known, rejected) = (RefCell::default(), RefCell::default());
        Self { document, title, span, entries, known, rejected, allow_unknown_keys: Cell::new(false) }
    }

    /// Returns the byte range of the table.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Returns the keys that are in the file.
    pub fn written(&self) -> WrittenKeys {
        WrittenKeys::of(self.document.text(), self.span(), self.entries)
    }

    /// Returns an optional setting.
    pub fn get(&self, key: &'static str) -> Option<Value<'d>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        let (_, value) = self.entries.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value { document: self.document, key, value })
    }

    /// Returns a required setting. Reports an error if it is missing; `example` is an example value.
    pub fn require(&self, key: &'static str, example: &str) -> Option<Value<'d>> {
        let value = self.get(key);
        if value.is_none() {
            let message = format!("missing setting `{key}` in {}", self.title);
            self.document.report(self.span(), message, format!("add it, for example, {key} = {example}"));
        }
        value
    }

    /// Reports a setting that is not allowed here, if it is present. The message is more specific than that of
    /// [`Table::finish`].
    pub fn reject_key(&self, key: &'d str, message: impl Into<String>, advice: impl Into<String>) {
        if let Some(written) = self.entries.keys().find(|written| written.get_ref() == key) {
            self.document.report(written.span(), message, advice);
            self.rejected.borrow_mut().push(key);
        }
    }

    /// Returns all entries, for tables with arbitrary keys.
    pub fn entries(&self) -> impl Iterator<Item = (&'d str, &'d Spanned<DeValue<'d>>)> {
        self.entries.iter().map(|(key, value)| (key.get_ref().as_ref(), value))
    }

    /// Returns all entries as [`Value`]s, for tables with arbitrary keys.
    pub fn values(&self) -> impl Iterator<Item = Value<'d>> {
        let document = self.document;
        self.entries.iter().map(move |(key, value)| Value { document, key: key.get_ref(), value })
    }

    /// Accepts settings that were not read.
    pub fn allow_unknown_keys(&self) {
        self.allow_unknown_keys.set(true);
    }

    /// Reports every setting that was not read.
    pub fn finish(self) {
        if self.allow_unknown_keys.get() {
            return;
        }
        let (known, rejected) = (self.known.into_inner(), self.rejected.into_inner());
        for key in self.entries.keys() {
            let written = key.get_ref().as_ref();
            if known.contains(&written) || rejected.contains(&written) {
                continue;
            }
            let message = format!("unknown setting `{written}` in {}", self.title);
            let advice = match (written, TOP_TABLES.contains(&self.title)) {
                ("include", true) => "move it above the first table: a key belongs to the table above it".to_owned(),
                _ => suggest::advice(written, &known),
            };
            self.document.report(key.span(), message, advice);
        }
    }
}

/// A value of the file, with its setting. Reading it as the wrong type reports an error and returns `None`.
#[derive(Clone)]
pub struct Value<'d> {
    /// The document.
    pub document: &'d Document<'d>,
    /// The key of the setting.
    pub key: &'d str,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Value<'d> {
    /// Returns the byte range of the value.
    pub fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// Reports an error about the value.
    pub fn reject(&self, message: impl Into<String>, advice: impl Into<String>) {
        self.document.report(self.span(), message, advice);
    }

    fn reject_type<T>(&self, expected: &str, advice: impl Into<String>) -> Option<T> {
        self.reject(format!("`{}` must be {expected}, not {}", self.key, ValueType(self.value.get_ref())), advice);
        None
    }

    /// Reads a string that is not blank.
    pub fn text(&self) -> Option<&'d str> {
        let DeValue::String(text) = self.value.get_ref() else {
            return self.reject_type("a string", "write it in quotes");
        };
        if text.trim().is_empty() {
            self.reject(
                format!("`{}` is empty", self.key),
                "fill it in, or remove the line if the setting is optional",
            );
            return None;
        }
        Some(text)
    }

    /// Reads a string, which may be empty.
    pub fn any_text(&self) -> Option<&'d str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => self.reject_type("a string", "write it in quotes"),
        }
    }

    /// Whether it is a string.
    pub fn is_text(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::String(_))
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    /// Reads any value as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        match to_json(self.value.get_ref()) {
            Ok(json) => Some(json),
            Err(reason) => {
                self.reject(
                    format!("`{}` cannot be converted to JSON: {reason}", self.key),
                    "write it as a string, in quotes",
                );
                None
            }
        }
    }

    /// Reads a string with a parser. `expected` describes a valid value in the error.
    pub fn parse_text<T>(&self, read: impl FnOnce(&str) -> Option<T>, expected: &str, advice: &str) -> Option<T> {
        let DeValue::String(text) = self.value.get_ref() else {
            return self.reject_type(expected, advice);
        };
        let value = read(text);
        if value.is_none() {
            self.reject(format!("`{}` must be {expected}, not \"{text}\"", self.key), advice);
        }
        value
    }

    /// Reads a duration, which may be zero.
    pub fn duration_or_zero(&self) -> Option<Duration> {
        self.parse_text(units::duration, "a duration", units::DURATION_ADVICE)
    }

    /// Reads a duration of at least one millisecond, the resolution of the clocks.
    pub fn duration(&self) -> Option<Duration> {
        let duration = self.duration_or_zero()?;
        if duration < Duration::from_millis(1) {
            return self.too_small("one millisecond", r#"with 0 nothing could finish; write, for example, "60s""#);
        }
        Some(duration)
    }

    /// Reads a size in bytes, which may be zero.
    pub fn size_or_zero(&self) -> Option<u64> {
        match self.value.get_ref() {
            DeValue::Integer(number) => self.whole_number(number),
            _ => self.parse_text(units::size, "a size", units::SIZE_ADVICE),
        }
    }

    /// Reads a size in bytes, at least 1.
    pub fn size(&self) -> Option<u64> {
        let size = self.size_or_zero()?;
        if size == 0 { self.too_small("1 byte", units::SIZE_ADVICE) } else { Some(size) }
    }

    /// Reads an integer of at least 1 that fits the type of the setting.
    pub fn count<T: TryFrom<u64>>(&self) -> Option<T> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.reject_type("an integer", "write it without quotes, unit or fraction");
        };
        let count = self.whole_number(number)?;
        if count == 0 {
            return self.too_small("1", "with 0 nothing would run; remove the line to use the default");
        }
        let count = T::try_from(count);
        if count.is_err() {
            self.reject(format!("`{}` is too large", self.key), "use a smaller number");
        }
        count.ok()
    }

    /// Reads a boolean.
    pub fn flag(&self) -> Option<bool> {
        let DeValue::Boolean(flag) = self.value.get_ref() else {
            return self.reject_type("true or false", "write it without quotes");
        };
        Some(*flag)
    }

    fn whole_number(&self, number: &DeInteger<'_>) -> Option<u64> {
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        if value.is_none() {
            let negative = number.as_str().starts_with('-');
            let (problem, advice) = if negative { ("negative", "positive") } else { ("too large", "smaller") };
            self.reject(format!("`{}` is {problem}", self.key), format!("use a {advice} number"));
        }
        value
    }

    fn too_small<T>(&self, minimum: &str, advice: &str) -> Option<T> {
        self.reject(format!("`{}` must be at least {minimum}", self.key), advice);
        None
    }

    /// Reads an array. Its items belong to the same setting.
    pub fn list(&self) -> Option<Vec<Value<'d>>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            return self.reject_type("an array", "write it in brackets, with its items in quotes: [\"…\", \"…\"]");
        };
        Some(items.iter().map(|value| Self { value, ..self.clone() }).collect())
    }

    /// Whether it is an array.
    pub fn is_list(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(_))
    }

    /// Whether it is an empty array.
    pub fn list_is_empty(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(items) if items.is_empty())
    }

    /// Reads a table that occurs once.
    pub fn table(&self, title: &'static str) -> Option<Table<'d>> {
        match self.value.get_ref() {
            DeValue::Table(entries) => Some(Table::new(self.document, title, self.span(), entries)),
            _ => self.reject_type("a table", format!("write {title} on its own line, with the settings below it")),
        }
    }

    /// Reads a table that may occur several times.
    pub fn tables(&self, title: &'static str) -> Vec<Table<'d>> {
        match self.value.get_ref() {
            DeValue::Array(_) => self.list().into_iter().flatten().filter_map(|item| item.table(title)).collect(),
            DeValue::Table(entries) => {
                let message = format!("`{}` is an array of tables and needs double brackets", self.key);
                self.reject(message, format!("write {title}"));
                // Read it anyway, so that errors inside it are reported too.
                vec![Table::new(self.document, title, self.span(), entries)]
            }
            _ => self
                .reject_type("a table", format!("write {title} on its own line, with the settings below it"))
                .into_iter()
                .collect(),
        }
    }
}

/// The type of a value, for display.
struct ValueType<'v>(&'v DeValue<'v>);

impl fmt::Display for ValueType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        })
    }
}

/// Converts a TOML value to JSON. Dates and times become strings.
///
/// # Errors
///
/// Returns an error for numbers that JSON does not support: infinities, NaN, and integers beyond 64 bits.
pub fn to_json(value: &DeValue<'_>) -> Result<serde_json::Value, &'static str> {
    use serde_json::Value as Json;
    Ok(match value {
        DeValue::String(text) => Json::String(text.to_string()),
        DeValue::Boolean(value) => Json::Bool(*value),
        DeValue::Datetime(time) => Json::String(time.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Json::from)
            .map_err(|_| "this number does not fit in 64 bits")?,
        DeValue::Float(number) => {
            let number: Option<f64> = number.as_str().parse().ok();
            let number = number.and_then(serde_json::Number::from_f64);
            Json::Number(number.ok_or("JSON does not support this number")?)
        }
        DeValue::Array(items) => {
            Json::Array(items.iter().map(|item| to_json(item.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(entries) => {
            let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                to_json(value.get_ref()).map(|json| (key.get_ref().to_string(), json))
            };
            Json::Object(entries.iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}
