//! Compares a result with the expectations, and computes the text that would expect the result instead.

use std::ops::Range;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::super::matcher::{Matcher, meets, relevant_part};
use super::super::observed::{Observed, ObservedStep};
use super::super::toml_writer;
use super::{Difference, ExpectedCall, ExpectedEntry, ExpectedFailure, ExpectedStep, Spanned};
use modhost_core::import::RecordedImport;
use modhost_core::text::truncate;
use modhost_runtime::engine::{Failure, GuestOutcome, Retry};

/// Maximum number of log lines to show if an expected one is missing.
const MAX_LOG_LINES: usize = 20;

/// Maximum length of an unexpected call to show, in characters.
const MAX_CALL_CHARS: usize = 160;

/// An item of a list in the result.
struct FoundItem {
    is_expected: bool,
    /// The item as TOML.
    text: String,
}

impl<T> Spanned<T> {
    fn difference(&self, subject: impl Into<String>, expected: String, found: String) -> Difference {
        Difference { line: self.line, subject: subject.into(), expected, found, replacements: Vec::new() }
    }
}

impl<T> Spanned<Vec<Spanned<T>>> {
    /// Returns the replacements that make the file expect the found items. If the number of items is the same, only those that
    /// differ are replaced, so that comments and formatting of the others remain.
    fn replace_items(&self, found: &[FoundItem]) -> Vec<(Range<usize>, String)> {
        if self.value.len() == found.len() {
            let changed = self.value.iter().zip(found).filter(|(_, found)| !found.is_expected);
            return changed.map(|(item, found)| (item.span.clone(), found.text.clone())).collect();
        }
        let all: Vec<_> = found.iter().map(|found| found.text.clone()).collect();
        vec![(self.span.clone(), toml_writer::rows(&all))]
    }
}

impl Difference {
    fn replaced_by(mut self, span: &Range<usize>, text: String) -> Self {
        self.replacements = vec![(span.clone(), text)];
        self
    }
}

/// Returns the failure of a module, with the reason that its delivery would have; `None` if it answered.
pub(in crate::testing) fn failure_of(ended: &GuestOutcome) -> Option<Failure> {
    let final_failure = |reason| Failure { reason, user_text: None, retry: Retry::No };
    match ended {
        GuestOutcome::Answered => None,
        GuestOutcome::Failed(failure) => Some(failure.clone()),
        GuestOutcome::Trapped { reason } => Some(final_failure(format!("trap: {reason}"))),
        GuestOutcome::LimitReached(limit) => Some(final_failure(format!("limit reached: {limit}"))),
    }
}

/// Compares the failure. If the module answered, `replacement` replaces the expectation.
pub(super) fn failure(
    expectation: &Spanned<ExpectedFailure>,
    observed: &Observed,
    replacement: Option<(Range<usize>, String)>,
) -> Option<Difference> {
    let Some(failure) = failure_of(&observed.ended) else {
        let mut difference = expectation.difference("the outcome", "a failure".into(), "the module answered".into());
        difference.replacements.extend(replacement);
        return Some(difference);
    };
    let ExpectedFailure { reason, user_text, retry } = &expectation.value;
    let found_text = failure.user_text.as_ref();
    let differences = [
        reason
            .as_ref()
            .filter(|expected| !expected.matches(&failure.reason))
            .map(|expected| ("reason", expected.describe(), failure.reason.clone())),
        user_text
            .as_ref()
            .filter(|expected| !found_text.is_some_and(|text| expected.matches(text)))
            .map(|expected| ("user text", expected.describe(), found_text.cloned().unwrap_or("(none)".to_owned()))),
        retry
            .filter(|expected| *expected != failure.retry)
            .map(|expected| ("retry", format_retry(expected), format_retry(failure.retry))),
    ];
    let (property, expected, found) = differences.into_iter().flatten().next()?;
    Some(
        expectation
            .difference(format!("the failure's {property}"), expected, found)
            .replaced_by(&expectation.span, toml_writer::value(&failure_as_json(&failure))),
    )
}

/// Returns a failure as a test expects it.
fn failure_as_json(failure: &Failure) -> Json {
    let reason = failure.reason.lines().next().unwrap_or_default();
    json!({ "reason": reason, "user_text": failure.user_text, "retry": format_retry(failure.retry) })
}

fn format_retry(retry: Retry) -> String {
    match retry {
        Retry::No => "no".into(),
        Retry::Yes => "yes".into(),
        Retry::After(delay) => humantime::format_duration(Duration::from_secs(delay.as_secs())).to_string(),
    }
}

pub(super) fn reply(expectation: &Spanned<Option<Matcher>>, observed: &Observed) -> Option<Difference> {
    let found = observed.reply.as_deref();
    let is_expected = match (&expectation.value, found) {
        (Some(matcher), Some(text)) => matcher.matches(text),
        (None, None) => true,
        _ => false,
    };
    if is_expected {
        return None;
    }
    let expected = expectation.value.as_ref().map_or_else(|| "(no reply)".to_owned(), Matcher::describe);
    let replacement = found.map_or_else(|| "false".to_owned(), toml_writer::text);
    let difference = expectation.difference("the reply", expected, found.unwrap_or("(no reply)").to_owned());
    Some(difference.replaced_by(&expectation.span, replacement))
}

/// Returns the replacement of an expected failure that did not happen, and its span: the line of the key, or the table with its
/// header. If the file does not mention the reply, the actual reply takes its place. `None` if the author has to edit the file.
pub(super) fn replace_failure(
    expectation: &Spanned<ExpectedFailure>,
    expected_reply: Option<&Spanned<Option<Matcher>>>,
    observed: &Observed,
    text: &str,
) -> Option<(Range<usize>, String)> {
    let start = text.get(..expectation.span.start)?.rfind('\n').map_or(0, |end| end + 1);
    let rest = text.get(expectation.span.end..)?;
    let end_of_line = expectation.span.end + rest.find('\n').map_or(rest.len(), |end| end + 1);
    let before: String = text.get(start..expectation.span.start)?.chars().filter(|c| !c.is_whitespace()).collect();
    if before == "failure=" {
        let reply = observed.reply.as_deref().filter(|_| expected_reply.is_none());
        let reply = reply.map(|reply| format!("reply = {}\n", toml_writer::text(reply))).unwrap_or_default();
        return Some((start..end_of_line, reply));
    }
    if !text.get(start..)?.starts_with("[expect.failure]") {
        return None;
    }
    let table = text.get(start..)?;
    let end = table.find("\n[").map_or(table.len(), |end| end + 1);
    Some((start..start + end, String::new()))
}

pub(super) fn references(expectation: &Spanned<Vec<Spanned<Json>>>, observed: &Observed) -> Option<Difference> {
    let references = observed.references.iter().enumerate();
    let found: Vec<_> = references
        .map(|(index, reference)| match expectation.value.get(index) {
            Some(expected) => FoundItem {
                is_expected: meets(reference, &expected.value),
                text: toml_writer::value(&relevant_part(reference, &expected.value)),
            },
            None => FoundItem { is_expected: false, text: toml_writer::value(&json!({ "name": reference["name"] })) },
        })
        .collect();
    if found.len() == expectation.value.len() && found.iter().all(|found| found.is_expected) {
        return None;
    }
    let expected = expectation.value.iter().map(|expected| toml_writer::value(&expected.value)).collect();
    let shown = found.iter().map(|found| found.text.clone()).collect();
    let mut difference = expectation.difference("the references", join_lines(expected), join_lines(shown));
    difference.replacements = expectation.replace_items(&found);
    Some(difference)
}

fn join_lines(lines: Vec<String>) -> String {
    if lines.is_empty() { "(none)".to_owned() } else { lines.join("\n") }
}

pub(super) fn steps(expectation: &Spanned<Vec<Spanned<ExpectedStep>>>, observed: &Observed) -> Option<Difference> {
    let line = |status: &str, text: &str| format!("{status:<9}  {text}");
    let expected_at = |index: usize, found: &ObservedStep| {
        let step = expectation.value.get(index).map(|step| &step.value)?;
        (step.status == found.status && step.text.matches(&found.text)).then_some(step)
    };
    let steps = observed.steps.iter().zip(steps_as_json(&observed.steps)).enumerate();
    let found: Vec<_> = steps
        .map(|(index, (step, json))| FoundItem {
            is_expected: expected_at(index, step).is_some(),
            text: toml_writer::value(&json),
        })
        .collect();
    if found.len() == expectation.value.len() && found.iter().all(|found| found.is_expected) {
        return None;
    }
    // Steps that match are shown as expected, so that only the others differ.
    let shown = observed.steps.iter().enumerate().map(|(index, step)| match expected_at(index, step) {
        Some(expected) => line(expected.status, &expected.text.describe()),
        None => line(&step.status, &step.text),
    });
    let expected = expectation.value.iter().map(|step| line(step.value.status, &step.value.text.describe())).collect();
    let mut difference = expectation.difference("the steps", join_lines(expected), join_lines(shown.collect()));
    difference.replacements = expectation.replace_items(&found);
    Some(difference)
}

/// Returns steps as a test expects them.
pub(in crate::testing) fn steps_as_json(steps: &[ObservedStep]) -> Vec<Json> {
    let step = |step: &ObservedStep| match step.status.as_str() {
        "completed" => json!(step.text),
        status => json!({ "text": step.text, "status": status }),
    };
    steps.iter().map(step).collect()
}

pub(super) fn messages(expectation: &Spanned<Vec<Spanned<Matcher>>>, observed: &Observed) -> Option<Difference> {
    let messages = observed.messages.iter().enumerate();
    let found: Vec<_> = messages
        .map(|(index, text)| FoundItem {
            is_expected: expectation.value.get(index).is_some_and(|expected| expected.value.matches(text)),
            text: toml_writer::text(text),
        })
        .collect();
    if found.len() == expectation.value.len() && found.iter().all(|found| found.is_expected) {
        return None;
    }
    let all = |texts: Vec<String>| if texts.is_empty() { "(none)".to_owned() } else { texts.join("\n---\n") };
    let expected = all(expectation.value.iter().map(|expected| expected.value.describe()).collect());
    let mut difference = expectation.difference("the other messages", expected, all(observed.messages.clone()));
    difference.replacements = expectation.replace_items(&found);
    Some(difference)
}

pub(super) fn log(expectation: &Spanned<Matcher>, observed: &Observed) -> Option<Difference> {
    if observed.log.iter().any(|line| expectation.value.matches(line)) {
        return None;
    }
    let skipped = observed.log.len().saturating_sub(MAX_LOG_LINES);
    let found = match observed.log.is_empty() {
        true => "(no log lines)".to_owned(),
        false => observed.log[skipped..].join("\n"),
    };
    Some(expectation.difference("the log", expectation.value.describe(), found))
}

pub(super) fn not_called(name: &Spanned<RecordedImport>, observed: &Observed) -> Option<Difference> {
    let (_, arguments) = observed.calls.iter().find(|(import, _)| *import == name.value)?;
    let call = truncate(&call_line(name.value.as_str(), arguments), MAX_CALL_CHARS).into_owned();
    Some(name.difference("a call", format!("no {}", name.value), call))
}

/// Compares calls. The expected calls have to occur in this order; other calls may occur between them.
pub(super) fn calls(expectation: &Spanned<Vec<Spanned<ExpectedCall>>>, observed: &Observed) -> Option<Difference> {
    let (matched, mut missing) = match_calls(&expectation.value, &observed.calls);
    if missing.is_empty() {
        return None;
    }
    // The calls that match an expectation, and calls of the same name in place of expected calls that are missing.
    let mut found: Vec<(usize, bool, &str, Map<String, Json>)> = Vec::new();
    for ((import, arguments), index) in observed.calls.iter().zip(&matched) {
        let is_expected = index.is_some();
        let mut of_same_name = || {
            let at = missing.iter().position(|index| expectation.value[*index].value.import == *import)?;
            Some(missing.remove(at))
        };
        let Some(index) = index.or_else(&mut of_same_name) else { continue };
        let expected = Json::Object(expectation.value[index].value.arguments.clone());
        let shown = relevant_part(&Json::Object(arguments.clone()), &expected);
        found.push((index, is_expected, import.as_str(), shown.as_object().cloned().unwrap_or_default()));
    }
    let all = |lines: Vec<String>| if lines.is_empty() { "(none of these)".to_owned() } else { lines.join("\n") };
    let expected =
        expectation.value.iter().map(|call| call_line(call.value.import.as_str(), &call.value.arguments)).collect();
    let shown = found.iter().map(|(_, _, import, arguments)| call_line(import, arguments)).collect();
    let mut difference = expectation.difference("the calls", all(expected), all(shown));
    let items: Vec<_> = found
        .iter()
        .map(|(_, is_expected, import, arguments)| FoundItem {
            is_expected: *is_expected,
            text: call_entry(import, arguments),
        })
        .collect();
    let is_in_order = found.iter().enumerate().all(|(at, (index, ..))| at == *index);
    difference.replacements = match is_in_order {
        true => expectation.replace_items(&items),
        false => {
            let rows: Vec<_> = items.into_iter().map(|item| item.text).collect();
            vec![(expectation.span.clone(), toml_writer::rows(&rows))]
        }
    };
    Some(difference)
}

/// Returns, for each call, the index of the expectation that it matches; and the indexes of expectations without a call.
fn match_calls(
    expected: &[Spanned<ExpectedCall>],
    calls: &[(RecordedImport, Map<String, Json>)],
) -> (Vec<Option<usize>>, Vec<usize>) {
    let matches = |expected: &ExpectedCall, (import, arguments): &(RecordedImport, Map<String, Json>)| {
        let expected_arguments = Json::Object(expected.arguments.clone());
        expected.import == *import && meets(&Json::Object(arguments.clone()), &expected_arguments)
    };
    let mut matched = vec![None; calls.len()];
    let (mut from, mut missing) = (0, Vec::new());
    for (index, call) in expected.iter().enumerate() {
        match (from..calls.len()).find(|at| matches(&call.value, &calls[*at])) {
            Some(at) => {
                matched[at] = Some(index);
                from = at + 1;
            }
            None => missing.push(index),
        }
    }
    (matched, missing)
}

fn call_line(import: &str, arguments: &Map<String, Json>) -> String {
    let fields = arguments.iter().filter(|(_, value)| !value.is_null());
    let fields: Vec<_> = fields.map(|(name, value)| format!("{name} = {}", toml_writer::value(value))).collect();
    format!("{import}  {}", fields.join(", ")).trim_end().to_owned()
}

/// Returns a call as a test expects it, with its name first.
pub(in crate::testing) fn call_entry(import: &str, arguments: &Map<String, Json>) -> String {
    let arguments = arguments.iter().filter(|(_, value)| !value.is_null());
    let arguments =
        arguments.map(|(name, value)| format!(", {} = {}", toml_writer::key(name), toml_writer::value(value)));
    format!("{{ call = {}{} }}", toml_writer::line(import), arguments.collect::<String>())
}

pub(super) fn keyvalue(expectation: &Spanned<ExpectedEntry>, observed: &Observed) -> Option<Difference> {
    let ExpectedEntry { bucket, key, value } = &expectation.value;
    let found = observed.keyvalue.get(bucket).and_then(|values| values.get(key));
    // Values are text. A module may store JSON, which the test can expect as a table.
    let parsed = found.and_then(Json::as_str).and_then(|text| serde_json::from_str(text).ok());
    let is_expected = match (value, found) {
        (None, None) => true,
        (Some(expected), Some(found)) => {
            meets(found, expected) || parsed.as_ref().is_some_and(|found| meets(found, expected))
        }
        _ => false,
    };
    if is_expected {
        return None;
    }
    let shown = |value: Option<&Json>| value.map_or_else(|| "(nothing)".to_owned(), toml_writer::value);
    let found = match (value, &parsed) {
        (Some(Json::String(_)), _) | (_, None) => shown(found),
        (_, Some(parsed)) => shown(Some(parsed)),
    };
    Some(expectation.difference(format!("the value of {key} in {bucket}"), shown(value.as_ref()), found))
}
