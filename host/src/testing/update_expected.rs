//! Writes expectations: all of a result, or only those that the result does not meet.

use std::fmt::Write;
use std::ops::Range;

use serde_json::{Map, Value as Json, json};

use super::Difference;
use super::expect::{call_entry, failure_of, steps_as_json};
use super::observed::Observed;
use super::toml_writer;
use modhost_core::import::{Import, RecordedImport};

/// Maximum length, in bytes, of a text argument to write as an expectation.
const MAX_TEXT_BYTES: usize = 200;

/// Calls whose effect is visible in the reply, the steps and the messages.
const VISIBLE_CALLS: [Import; 6] = [
    Import::MessagesReply,
    Import::MessagesShow,
    Import::MessagesCreate,
    Import::MessagesModify,
    Import::MessageLogEntryCreate,
    Import::MessageLogEntryUpdate,
];

/// Returns a section `[expect]` that expects a result.
pub fn expect_section(observed: &Observed) -> String {
    let mut text = "[expect]\n".to_owned();
    let is_visible = |import: &RecordedImport| import.known().is_some_and(|import| VISIBLE_CALLS.contains(&import));
    let calls: Vec<_> = observed.calls.iter().filter(|(import, _)| !is_visible(import)).map(call).collect();
    if !calls.is_empty() {
        _ = writeln!(text, "calls = {}", toml_writer::rows(&calls));
    }
    if !observed.steps.is_empty() {
        _ = writeln!(text, "steps = {}", toml_writer::list(&steps_as_json(&observed.steps)));
    }
    if !observed.messages.is_empty() {
        let messages: Vec<_> = observed.messages.iter().map(|text| json!(text)).collect();
        _ = writeln!(text, "messages = {}", toml_writer::list(&messages));
    }
    if let Some(failure) = failure_of(&observed.ended) {
        // A recorded delivery only contains the reason.
        _ = writeln!(text, "failure = {}", toml_writer::line(failure.reason.lines().next().unwrap_or_default()));
    }
    if let Some(reply) = &observed.reply {
        _ = writeln!(text, "reply = {}", toml_writer::text(reply));
    }
    if !observed.references.is_empty() {
        let references: Vec<_> =
            observed.references.iter().map(|it| json!({ "name": it["name"], "url": it["url"] })).collect();
        _ = writeln!(text, "references = {}", toml_writer::list(&references));
    }
    text
}

/// Returns a call with its informative arguments: short texts, numbers, and flags that are set.
fn call((import, arguments): &(RecordedImport, Map<String, Json>)) -> String {
    let is_informative = |value: &Json| match value {
        Json::String(text) => text.len() <= MAX_TEXT_BYTES && !text.contains('\n'),
        Json::Number(_) => true,
        Json::Bool(flag) => *flag,
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    };
    let arguments = arguments.iter().filter(|(_, value)| is_informative(value));
    call_entry(import.as_str(), &arguments.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Applies the replacements of differences to the text of a file.
pub fn apply_replacements(text: &str, differences: &[Difference]) -> String {
    let mut changes: Vec<&(Range<usize>, String)> = differences.iter().flat_map(|it| &it.replacements).collect();
    changes.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    changes.dedup_by_key(|(span, _)| span.start);
    let mut text = text.to_owned();
    for (span, replacement) in changes {
        text.replace_range(span.clone(), replacement);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_only_what_differs() {
        let text = "a = 'x' # why\nb = [1, # one\n 2]\nc = 3\n";
        let difference = |span: Range<usize>, replacement: &str| Difference {
            line: 1,
            subject: String::new(),
            expected: String::new(),
            found: String::new(),
            replacements: vec![(span, replacement.to_owned())],
        };
        let replaced = apply_replacements(text, &[difference(4..7, "\"longer\""), difference(18..31, "[]")]);
        assert_eq!(replaced, "a = \"longer\" # why\nb = []\nc = 3\n");
    }
}
