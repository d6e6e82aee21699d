//! What a test expects. Only what is written is compared.

mod compare;

use std::ops::Range;

use serde_json::{Map, Value as Json, json};

pub(super) use compare::{call_row, failed, step_list};

use super::answers::call_name;
use super::matcher::{Matcher, Plain};
use super::observed::Observed;
use modhost_config::table::{Table, Value, to_json};
use modhost_core::import::RecordedImport;
use modhost_core::suggest;
use modhost_runtime::engine::Retry;

/// What a test expects.
#[derive(Debug, Default)]
pub struct Expected {
    is_written: bool,
    reply: Option<At<Option<Matcher>>>,
    references: Option<At<Vec<At<Json>>>>,
    steps: Option<At<Vec<At<Step>>>>,
    messages: Option<At<Vec<At<Matcher>>>>,
    log: Vec<At<Matcher>>,
    failure: Option<At<Fails>>,
    calls: Option<At<Vec<At<Called>>>>,
    not_called: Vec<At<RecordedImport>>,
    keyvalue: Vec<At<Kept>>,
}

/// Something, and where it stands in the file.
#[derive(Debug)]
struct At<T> {
    line: usize,
    span: Range<usize>,
    is: T,
}

#[derive(Debug)]
struct Step {
    text: Matcher,
    status: &'static str,
}

#[derive(Debug, Default)]
struct Fails {
    reason: Option<Matcher>,
    user_text: Option<Matcher>,
    retry: Option<Retry>,
}

#[derive(Debug)]
struct Called {
    import: RecordedImport,
    arguments: Map<String, Json>,
}

#[derive(Debug)]
struct Kept {
    bucket: String,
    key: String,
    /// None: nothing.
    value: Option<Json>,
}

/// Something that is not as expected.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The line of the file that expects it.
    pub line: usize,
    /// What differs: "the reply".
    pub what: String,
    /// What was expected.
    pub expected: String,
    /// What there was.
    pub found: String,
    /// What to write in which parts of the file to expect what there was; nothing where a person has to.
    pub accept: Vec<(Range<usize>, String)>,
}

impl<T> At<T> {
    fn of(value: &Value<'_>, is: T) -> Self {
        let span = value.span();
        Self { line: value.document.place(span.start).line, span, is }
    }
}

/// Reads `[expect]`.
pub(super) fn read(table: Table<'_>) -> Expected {
    let expected = Expected {
        is_written: true,
        reply: table.get("reply").and_then(|value| reply(&value)),
        references: list(&table, "references", reference),
        steps: list(&table, "steps", step),
        messages: list(&table, "messages", |item| Matcher::read(item, Plain::Whole)),
        log: list(&table, "log", |item| Matcher::read(item, Plain::Part)).map(|lines| lines.is).unwrap_or_default(),
        failure: table.get("failure").and_then(|value| Some(At::of(&value, failure(&value)?))),
        calls: list(&table, "calls", called),
        not_called: list(&table, "not_called", call_name).map(|names| names.is).unwrap_or_default(),
        keyvalue: table.get("keyvalue").map(|value| kept(&value)).unwrap_or_default(),
    };
    table.finish();
    expected
}

fn list<T>(table: &Table<'_>, key: &'static str, read: impl Fn(&Value<'_>) -> Option<T>) -> Option<At<Vec<At<T>>>> {
    let value = table.get(key)?;
    let items = value.list()?;
    Some(At::of(&value, items.iter().filter_map(|item| Some(At::of(item, read(item)?))).collect()))
}

fn reply(value: &Value<'_>) -> Option<At<Option<Matcher>>> {
    if value.json() == Some(json!(false)) {
        return Some(At::of(value, None));
    }
    Some(At::of(value, Some(Matcher::read(value, Plain::Whole)?)))
}

fn reference(item: &Value<'_>) -> Option<Json> {
    if item.is_text() {
        return Some(json!({ "name": item.text()? }));
    }
    item.table("a reference").and_then(|_| item.json())
}

fn step(item: &Value<'_>) -> Option<Step> {
    const STATUS: [&str; 2] = ["completed", "failed"];
    if item.is_text() {
        return Some(Step { text: Matcher::read(item, Plain::Whole)?, status: "completed" });
    }
    let table = item.table("a step")?;
    let text = table.require("text", "\"…\"").and_then(|value| Matcher::read(&value, Plain::Whole));
    let status = table.get("status").and_then(|value| {
        let word = value.text()?;
        let known = STATUS.into_iter().find(|status| *status == word);
        if known.is_none() {
            value.wrong(format!("there is no status \"{word}\""), suggest::advice(word, &STATUS));
        }
        known
    });
    table.finish();
    Some(Step { text: text?, status: status.unwrap_or("completed") })
}

fn failure(value: &Value<'_>) -> Option<Fails> {
    if value.is_text() {
        return Some(Fails { reason: Matcher::read(value, Plain::Part), ..Fails::default() });
    }
    let table = value.table("[expect.failure]")?;
    let fails = Fails {
        reason: table.get("reason").and_then(|value| Matcher::read(&value, Plain::Part)),
        user_text: table.get("user_text").and_then(|value| Matcher::read(&value, Plain::Whole)),
        retry: table.get("retry").and_then(|value| retry(&value)),
    };
    table.finish();
    Some(fails)
}

fn retry(value: &Value<'_>) -> Option<Retry> {
    match value.text()? {
        "no" => Some(Retry::No),
        "yes" => Some(Retry::Yes),
        time => match humantime::parse_duration(time) {
            Ok(time) => Some(Retry::After(time)),
            Err(_) => {
                value.wrong(format!("`retry` can't be \"{time}\""), "write \"no\", \"yes\", or a time like \"30s\"");
                None
            }
        },
    }
}

fn called(item: &Value<'_>) -> Option<Called> {
    let table = item.table("a call")?;
    let import = table.require("call", "\"search.search\"").and_then(|value| call_name(&value));
    // What a call may be given is the contract's business.
    table.know_all();
    let mut arguments = item.json()?.as_object().cloned().unwrap_or_default();
    arguments.remove("call");
    table.finish();
    Some(Called { import: import?, arguments })
}

fn kept(value: &Value<'_>) -> Vec<At<Kept>> {
    let Some(buckets) = value.table("[expect.keyvalue]") else { return Vec::new() };
    let mut kept = Vec::new();
    for (bucket, entries) in buckets.entries() {
        let Ok(Json::Object(entries_json)) = to_json(entries.get_ref()) else {
            let advice = "write [expect.keyvalue.BUCKET] with a line for each key";
            buckets.document.report(entries.span(), format!("`{bucket}` is no bucket"), advice);
            continue;
        };
        for (key, value) in entries_json {
            let value = (value != json!(false)).then_some(value);
            let (line, span) = (buckets.document.place(entries.span().start).line, entries.span());
            kept.push(At { line, span, is: Kept { bucket: bucket.to_owned(), key, value } });
        }
    }
    kept
}

impl Expected {
    /// Whether the file says anything about what is expected.
    pub fn is_written(&self) -> bool {
        self.is_written
    }

    /// Whether the module is expected to fail.
    pub fn failure(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether anything is expected of the key-value store.
    pub(super) fn keeps(&self) -> bool {
        !self.keyvalue.is_empty()
    }

    /// Everything that is not as expected; `text` is that of the file.
    pub fn differences(&self, observed: &Observed, text: &str) -> Vec<Difference> {
        let mut found = Vec::new();
        found.extend(self.failure.as_ref().and_then(|wanted| {
            let instead = compare::without_failure(wanted, self.reply.as_ref(), observed, text);
            compare::ending(wanted, observed, instead)
        }));
        found.extend(self.calls.as_ref().and_then(|wanted| compare::calls(wanted, observed)));
        found.extend(self.not_called.iter().filter_map(|name| compare::not_called(name, observed)));
        found.extend(self.steps.as_ref().and_then(|wanted| compare::steps(wanted, observed)));
        found.extend(self.reply.as_ref().and_then(|wanted| compare::answered(wanted, observed)));
        found.extend(self.references.as_ref().and_then(|wanted| compare::references(wanted, observed)));
        found.extend(self.messages.as_ref().and_then(|wanted| compare::messages(wanted, observed)));
        found.extend(self.log.iter().filter_map(|wanted| compare::logged(wanted, observed)));
        found.extend(self.keyvalue.iter().filter_map(|wanted| compare::keeps(wanted, observed)));
        for difference in &mut found {
            // A table with a header of its own has no place in the text that a value could stand in.
            let has_header = |span: &Range<usize>| text.get(span.clone()).is_none_or(|it| it.starts_with("[["));
            let is_table = |span: &Range<usize>, written: &str| {
                written.starts_with('{') && text.get(span.clone()).is_none_or(|it| !it.starts_with(['{', '"', '\'']))
            };
            if difference.accept.iter().any(|(span, written)| has_header(span) || is_table(span, written)) {
                difference.accept.clear();
            }
        }
        found
    }
}
