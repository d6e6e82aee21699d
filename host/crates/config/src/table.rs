//! Reads tables and values of a modules.toml or a test file, and reports what doesn't fit.
//!
//! This walks the parsed document by hand, where deriving `Deserialize` would be shorter: serde stops at the first
//! mistake, and its message for a value of the wrong type quotes the value, which may be a secret.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::document::Document;
use super::{Written, suggest, units};

/// A table of the file. Remembers which settings were asked for: all others are mistakes.
pub struct Table<'d> {
    pub document: &'d Document<'d>,
    /// What people call it: `[server]`, `[[source]]`.
    title: &'static str,
    span: Range<usize>,
    entries: &'d DeTable<'d>,
    known: RefCell<Vec<&'static str>>,
    refused: RefCell<Vec<&'d str>>,
    know_all: Cell<bool>,
}

impl<'d> Table<'d> {
    pub fn new(document: &'d Document<'d>, title: &'static str, span: Range<usize>, entries: &'d DeTable<'d>) -> Self {
        let (known, refused) = (RefCell::default(), RefCell::default());
        Self { document, title, span, entries, known, refused, know_all: Cell::new(false) }
    }

    /// Where the table stands in the file.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Which of its keys are written down.
    pub fn written(&self) -> Written {
        Written::of(self.document.text(), self.span(), self.entries)
    }

    /// A setting that may be left out.
    pub fn get(&self, key: &'static str) -> Option<Value<'d>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        let (_, value) = self.entries.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value { document: self.document, key, value })
    }

    /// A setting that must be there; `example` is how it may be written.
    pub fn require(&self, key: &'static str, example: &str) -> Option<Value<'d>> {
        let value = self.get(key);
        if value.is_none() {
            let message = format!("this {} has no `{key}`", self.title);
            self.document.report(self.span(), message, format!("add for example: {key} = {example}"));
        }
        value
    }

    /// Reports a setting, if it is there, that can't be here: in better words than [`Table::finish`] has.
    pub fn refuse(&self, key: &'d str, message: impl Into<String>, advice: impl Into<String>) {
        if let Some(written) = self.entries.keys().find(|written| written.get_ref() == key) {
            self.document.report(written.span(), message, advice);
            self.refused.borrow_mut().push(key);
        }
    }

    /// Everything in the table, for tables whose keys are the author's own.
    pub fn entries(&self) -> impl Iterator<Item = (&'d str, &'d Spanned<DeValue<'d>>)> {
        self.entries.iter().map(|(key, value)| (key.get_ref().as_ref(), value))
    }

    /// Everything in the table as values that can be read, for tables whose keys are the author's own.
    pub fn values(&self) -> impl Iterator<Item = Value<'d>> {
        let document = self.document;
        self.entries.iter().map(move |(key, value)| Value { document, key: key.get_ref(), value })
    }

    /// Calls no setting a mistake that nobody asked for.
    pub fn know_all(&self) {
        self.know_all.set(true);
    }

    /// Reports every setting nobody asked for.
    pub fn finish(self) {
        if self.know_all.get() {
            return;
        }
        let (known, refused) = (self.known.into_inner(), self.refused.into_inner());
        for key in self.entries.keys() {
            let written = key.get_ref().as_ref();
            if known.contains(&written) || refused.contains(&written) {
                continue;
            }
            let message = format!("{} has no setting `{written}`", self.title);
            self.document.report(key.span(), message, suggest::advice(written, &known));
        }
    }
}

/// A value of the file, with the setting it belongs to. Reading it as what it isn't reports that and gives nothing.
#[derive(Clone)]
pub struct Value<'d> {
    pub document: &'d Document<'d>,
    /// The setting it belongs to.
    pub key: &'d str,
    value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Value<'d> {
    /// Where the value stands in the file.
    pub fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// Reports that the value is wrong.
    pub fn wrong(&self, message: impl Into<String>, advice: impl Into<String>) {
        self.document.report(self.span(), message, advice);
    }

    fn wrong_kind<T>(&self, wanted: &str, advice: impl Into<String>) -> Option<T> {
        self.wrong(format!("`{}` should be {wanted}, not {}", self.key, Kind(self.value.get_ref())), advice);
        None
    }

    /// Text that says something.
    pub fn text(&self) -> Option<&'d str> {
        let DeValue::String(text) = self.value.get_ref() else {
            return self.wrong_kind("text", "write it in quotes");
        };
        if text.trim().is_empty() {
            self.wrong(format!("`{}` is empty", self.key), "fill it in, or remove the line if it may be left out");
            return None;
        }
        Some(text)
    }

    /// Text, which may be empty.
    pub fn any_text(&self) -> Option<&'d str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => self.wrong_kind("text", "write it in quotes"),
        }
    }

    /// Whether it is text.
    pub fn is_text(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::String(_))
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    /// Whatever it is, as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        match to_json(self.value.get_ref()) {
            Ok(json) => Some(json),
            Err(reason) => {
                self.wrong(format!("`{}` can't be written as JSON: {reason}", self.key), "write it in quotes, as text");
                None
            }
        }
    }

    /// Text as `read` understands it.
    pub fn text_as<T>(&self, read: impl FnOnce(&str) -> Option<T>, what: &str, advice: &str) -> Option<T> {
        let DeValue::String(text) = self.value.get_ref() else {
            return self.wrong_kind(what, advice);
        };
        let value = read(text);
        if value.is_none() {
            self.wrong(format!("`{}` should be {what}, not \"{text}\"", self.key), advice);
        }
        value
    }

    /// A length of time; zero is one.
    pub fn duration_or_zero(&self) -> Option<Duration> {
        self.text_as(units::duration, "a length of time", units::DURATION_ADVICE)
    }

    /// A length of time, of at least a millisecond: clocks are read no finer.
    pub fn duration(&self) -> Option<Duration> {
        let duration = self.duration_or_zero()?;
        if duration < Duration::from_millis(1) {
            return self.too_small("a millisecond", r#"nothing could ever finish; write for example "60s""#);
        }
        Some(duration)
    }

    /// A size in bytes; zero is one.
    pub fn size_or_zero(&self) -> Option<u64> {
        match self.value.get_ref() {
            DeValue::Integer(number) => self.whole_number(number),
            _ => self.text_as(units::size, "a size", units::SIZE_ADVICE),
        }
    }

    /// A size in bytes, at least 1.
    pub fn size(&self) -> Option<u64> {
        let size = self.size_or_zero()?;
        if size == 0 { self.too_small("1 byte", units::SIZE_ADVICE) } else { Some(size) }
    }

    /// A whole number of at least 1 that the setting's type can hold.
    pub fn count<T: TryFrom<u64>>(&self) -> Option<T> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.wrong_kind("a whole number", "write it without quotes, unit or fraction");
        };
        let count = self.whole_number(number)?;
        if count == 0 {
            return self.too_small("1", "with 0 nothing would ever run; leave the line out for the default");
        }
        let count = T::try_from(count);
        if count.is_err() {
            self.wrong(format!("`{}` is too large", self.key), "write a smaller number");
        }
        count.ok()
    }

    /// Yes or no.
    pub fn flag(&self) -> Option<bool> {
        let DeValue::Boolean(flag) = self.value.get_ref() else {
            return self.wrong_kind("true or false", "write it without quotes");
        };
        Some(*flag)
    }

    fn whole_number(&self, number: &DeInteger<'_>) -> Option<u64> {
        let value = u64::from_str_radix(number.as_str(), number.radix()).ok();
        if value.is_none() {
            let negative = number.as_str().starts_with('-');
            let (problem, advice) = if negative { ("negative", "positive") } else { ("too large", "smaller") };
            self.wrong(format!("`{}` is {problem}", self.key), format!("write a {advice} number"));
        }
        value
    }

    fn too_small<T>(&self, least: &str, advice: &str) -> Option<T> {
        self.wrong(format!("`{}` must be at least {least}", self.key), advice);
        None
    }

    /// A list; its items belong to the same setting.
    pub fn list(&self) -> Option<Vec<Value<'d>>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            return self.wrong_kind("a list", "write it in brackets, its items in quotes: [\"…\", \"…\"]");
        };
        Some(items.iter().map(|value| Self { value, ..self.clone() }).collect())
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(_))
    }

    /// Whether it is a list without items.
    pub fn list_is_empty(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(items) if items.is_empty())
    }

    /// A table that stands once.
    pub fn table(&self, title: &'static str) -> Option<Table<'d>> {
        match self.value.get_ref() {
            DeValue::Table(entries) => Some(Table::new(self.document, title, self.span(), entries)),
            _ => self.wrong_kind("a table", format!("write {title} on a line of its own, its settings below")),
        }
    }

    /// A table that stands as often as there are things of its kind.
    pub fn tables(&self, title: &'static str) -> Vec<Table<'d>> {
        match self.value.get_ref() {
            DeValue::Array(_) => self.list().into_iter().flatten().filter_map(|item| item.table(title)).collect(),
            DeValue::Table(entries) => {
                let message = format!("there can be more than one `{}`, so its brackets are double", self.key);
                self.wrong(message, format!("write {title}"));
                // Read on all the same: what is wrong inside is worth telling in one go.
                vec![Table::new(self.document, title, self.span(), entries)]
            }
            _ => self
                .wrong_kind("a table", format!("write {title} on a line of its own, its settings below"))
                .into_iter()
                .collect(),
        }
    }
}

/// The names of a value's kind, in people's words.
struct Kind<'v>(&'v DeValue<'v>);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            DeValue::String(_) => "text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        })
    }
}

/// A TOML value as JSON: what a module's settings are handed on as. Dates and times become text.
///
/// Fails for the numbers JSON doesn't have: infinite ones, NaN, and integers beyond 64 bits.
pub fn to_json(value: &DeValue<'_>) -> Result<serde_json::Value, &'static str> {
    use serde_json::Value as Json;
    Ok(match value {
        DeValue::String(text) => Json::String(text.to_string()),
        DeValue::Boolean(value) => Json::Bool(*value),
        DeValue::Datetime(time) => Json::String(time.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Json::from)
            .map_err(|_| "this number is larger than 64 bits can hold")?,
        DeValue::Float(number) => {
            let number: Option<f64> = number.as_str().parse().ok();
            let number = number.and_then(serde_json::Number::from_f64);
            Json::Number(number.ok_or("JSON has no such number")?)
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
