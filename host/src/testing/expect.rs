//! The expectations of a test. Only what the file mentions is compared.

mod compare;

use std::ops::Range;

use serde_json::{Map, Value as Json, json};

pub(super) use compare::{call_entry, failure_of, steps_as_json};

use super::answers::call_name;
use super::matcher::{BareText, Matcher};
use super::observed::Observed;
use modhost_config::table::{Table, Value, to_json};
use modhost_core::import::RecordedImport;
use modhost_core::suggest;
use modhost_runtime::engine::Retry;

/// The expectations of a test.
#[derive(Debug, Default)]
pub struct Expected {
    /// Whether the file has a section `[expect]`.
    is_present: bool,
    reply: Option<Spanned<Option<Matcher>>>,
    references: Option<Spanned<Vec<Spanned<Json>>>>,
    steps: Option<Spanned<Vec<Spanned<ExpectedStep>>>>,
    messages: Option<Spanned<Vec<Spanned<Matcher>>>>,
    log: Vec<Spanned<Matcher>>,
    failure: Option<Spanned<ExpectedFailure>>,
    calls: Option<Spanned<Vec<Spanned<ExpectedCall>>>>,
    not_called: Vec<Spanned<RecordedImport>>,
    keyvalue: Vec<Spanned<ExpectedEntry>>,
}

/// A value and its position in the file.
#[derive(Debug)]
struct Spanned<T> {
    line: usize,
    span: Range<usize>,
    value: T,
}

#[derive(Debug)]
struct ExpectedStep {
    text: Matcher,
    status: &'static str,
}

#[derive(Debug, Default)]
struct ExpectedFailure {
    reason: Option<Matcher>,
    user_text: Option<Matcher>,
    retry: Option<Retry>,
}

#[derive(Debug)]
struct ExpectedCall {
    import: RecordedImport,
    arguments: Map<String, Json>,
}

#[derive(Debug)]
struct ExpectedEntry {
    bucket: String,
    key: String,
    /// The expected value; `None` if the key must not exist.
    value: Option<Json>,
}

/// A difference between the expectations and the result.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The line of the expectation.
    pub line: usize,
    /// What differs, such as "the reply".
    pub subject: String,
    /// The expected value.
    pub expected: String,
    /// The actual value.
    pub found: String,
    /// Replacements of parts of the file that make it expect the actual value. Empty if the author has to edit the file.
    pub replacements: Vec<(Range<usize>, String)>,
}

impl<T> Spanned<T> {
    fn new(source: &Value<'_>, value: T) -> Self {
        let span = source.span();
        Self { line: source.document.location(span.start).line, span, value }
    }
}

/// Reads `[expect]`.
pub(super) fn read(table: Table<'_>) -> Expected {
    let expected = Expected {
        is_present: true,
        reply: table.get("reply").and_then(|value| reply(&value)),
        references: list(&table, "references", reference),
        steps: list(&table, "steps", step),
        messages: list(&table, "messages", |item| Matcher::read(item, BareText::Whole)),
        log: list(&table, "log", |item| Matcher::read(item, BareText::Part))
            .map(|lines| lines.value)
            .unwrap_or_default(),
        failure: table.get("failure").and_then(|value| Some(Spanned::new(&value, failure(&value)?))),
        calls: list(&table, "calls", call),
        not_called: list(&table, "not_called", call_name).map(|names| names.value).unwrap_or_default(),
        keyvalue: table.get("keyvalue").map(|value| keyvalue_entries(&value)).unwrap_or_default(),
    };
    table.finish();
    expected
}

fn list<T>(
    table: &Table<'_>,
    key: &'static str,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> Option<Spanned<Vec<Spanned<T>>>> {
    let value = table.get(key)?;
    let items = value.list()?;
    Some(Spanned::new(&value, items.iter().filter_map(|item| Some(Spanned::new(item, read(item)?))).collect()))
}

fn reply(value: &Value<'_>) -> Option<Spanned<Option<Matcher>>> {
    if value.json() == Some(json!(false)) {
        return Some(Spanned::new(value, None));
    }
    Some(Spanned::new(value, Some(Matcher::read(value, BareText::Whole)?)))
}

fn reference(item: &Value<'_>) -> Option<Json> {
    if item.is_text() {
        return Some(json!({ "name": item.text()? }));
    }
    item.table("a reference").and_then(|_| item.json())
}

fn step(item: &Value<'_>) -> Option<ExpectedStep> {
    const STATUS: [&str; 2] = ["completed", "failed"];
    if item.is_text() {
        return Some(ExpectedStep { text: Matcher::read(item, BareText::Whole)?, status: "completed" });
    }
    let table = item.table("a step")?;
    let text = table.require("text", "\"…\"").and_then(|value| Matcher::read(&value, BareText::Whole));
    let status = table.get("status").and_then(|value| {
        let word = value.text()?;
        let known = STATUS.into_iter().find(|status| *status == word);
        if known.is_none() {
            value.reject(format!("unknown status \"{word}\""), suggest::advice(word, &STATUS));
        }
        known
    });
    table.finish();
    Some(ExpectedStep { text: text?, status: status.unwrap_or("completed") })
}

fn failure(value: &Value<'_>) -> Option<ExpectedFailure> {
    if value.is_text() {
        return Some(ExpectedFailure { reason: Matcher::read(value, BareText::Part), ..ExpectedFailure::default() });
    }
    let table = value.table("[expect.failure]")?;
    let expected = ExpectedFailure {
        reason: table.get("reason").and_then(|value| Matcher::read(&value, BareText::Part)),
        user_text: table.get("user_text").and_then(|value| Matcher::read(&value, BareText::Whole)),
        retry: table.get("retry").and_then(|value| retry(&value)),
    };
    table.finish();
    Some(expected)
}

fn retry(value: &Value<'_>) -> Option<Retry> {
    match value.text()? {
        "no" => Some(Retry::No),
        "yes" => Some(Retry::Yes),
        time => match humantime::parse_duration(time) {
            Ok(time) => Some(Retry::After(time)),
            Err(_) => {
                value.reject(
                    format!("`retry` cannot be \"{time}\""),
                    "write \"no\", \"yes\", or a duration like \"30s\"",
                );
                None
            }
        },
    }
}

fn call(item: &Value<'_>) -> Option<ExpectedCall> {
    let table = item.table("a call")?;
    let import = table.require("call", "\"search.search\"").and_then(|value| call_name(&value));
    // The contract defines the arguments; all keys are allowed here.
    table.allow_unknown_keys();
    let mut arguments = item.json()?.as_object().cloned().unwrap_or_default();
    arguments.remove("call");
    table.finish();
    Some(ExpectedCall { import: import?, arguments })
}

fn keyvalue_entries(value: &Value<'_>) -> Vec<Spanned<ExpectedEntry>> {
    let Some(buckets) = value.table("[expect.keyvalue]") else { return Vec::new() };
    let mut expected = Vec::new();
    for (bucket, entries) in buckets.entries() {
        let Ok(Json::Object(entries_json)) = to_json(entries.get_ref()) else {
            let advice = "write [expect.keyvalue.BUCKET] with a line for each key";
            buckets.document.report(entries.span(), format!("`{bucket}` is not a bucket"), advice);
            continue;
        };
        for (key, value) in entries_json {
            let value = (value != json!(false)).then_some(value);
            let (line, span) = (buckets.document.location(entries.span().start).line, entries.span());
            expected.push(Spanned { line, span, value: ExpectedEntry { bucket: bucket.to_owned(), key, value } });
        }
    }
    expected
}

impl Expected {
    /// Returns whether the file has a section `[expect]`.
    pub fn is_present(&self) -> bool {
        self.is_present
    }

    /// Returns whether the module is expected to fail.
    pub fn expects_failure(&self) -> bool {
        self.failure.is_some()
    }

    /// Returns whether there are expectations on the key-value store.
    pub(super) fn expects_keyvalue(&self) -> bool {
        !self.keyvalue.is_empty()
    }

    /// Returns all differences between the expectations and the result. `text` is the text of the file.
    pub fn differences(&self, observed: &Observed, text: &str) -> Vec<Difference> {
        let mut found = Vec::new();
        found.extend(self.failure.as_ref().and_then(|expected| {
            let replacement = compare::replace_failure(expected, self.reply.as_ref(), observed, text);
            compare::failure(expected, observed, replacement)
        }));
        found.extend(self.calls.as_ref().and_then(|expected| compare::calls(expected, observed)));
        found.extend(self.not_called.iter().filter_map(|name| compare::not_called(name, observed)));
        found.extend(self.steps.as_ref().and_then(|expected| compare::steps(expected, observed)));
        found.extend(self.reply.as_ref().and_then(|expected| compare::reply(expected, observed)));
        found.extend(self.references.as_ref().and_then(|expected| compare::references(expected, observed)));
        found.extend(self.messages.as_ref().and_then(|expected| compare::messages(expected, observed)));
        found.extend(self.log.iter().filter_map(|expected| compare::log(expected, observed)));
        found.extend(self.keyvalue.iter().filter_map(|expected| compare::keyvalue(expected, observed)));
        for difference in &mut found {
            // A table with its own header cannot be replaced by an inline value.
            let has_header = |span: &Range<usize>| text.get(span.clone()).is_none_or(|it| it.starts_with("[["));
            let is_table = |span: &Range<usize>, replacement: &str| {
                replacement.starts_with('{')
                    && text.get(span.clone()).is_none_or(|it| !it.starts_with(['{', '"', '\'']))
            };
            if difference.replacements.iter().any(|(span, replacement)| has_header(span) || is_table(span, replacement))
            {
                difference.replacements.clear();
            }
        }
        found
    }
}
