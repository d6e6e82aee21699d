//! Writes expectations: all of what was seen, or in the place of those that were not met.

use std::fmt::Write;
use std::ops::Range;

use serde_json::{Map, Value as Json, json};

use super::Difference;
use super::expect::{call_row, failed, step_list};
use super::observed::Observed;
use super::written;
use modhost_core::import::{Import, RecordedImport};

/// Texts that are longer, in bytes, are not expected of an argument: nobody would read them.
const LONG: usize = 200;

/// What the user sees stands in the reply and in the steps, and needn't stand among the calls.
const SHOWN: [Import; 6] = [
    Import::MessagesReply,
    Import::MessagesShow,
    Import::MessagesCreate,
    Import::MessagesModify,
    Import::MessageLogEntryCreate,
    Import::MessageLogEntryUpdate,
];

/// An `[expect]` that expects what was seen.
pub fn section(observed: &Observed) -> String {
    let mut text = "[expect]\n".to_owned();
    let is_shown = |import: &RecordedImport| import.known().is_some_and(|import| SHOWN.contains(&import));
    let calls: Vec<_> = observed.calls.iter().filter(|(import, _)| !is_shown(import)).map(call).collect();
    if !calls.is_empty() {
        _ = writeln!(text, "calls = {}", written::rows(&calls));
    }
    if !observed.steps.is_empty() {
        _ = writeln!(text, "steps = {}", written::list(&step_list(&observed.steps)));
    }
    if !observed.messages.is_empty() {
        let messages: Vec<_> = observed.messages.iter().map(|text| json!(text)).collect();
        _ = writeln!(text, "messages = {}", written::list(&messages));
    }
    if let Some(failure) = failed(&observed.ended) {
        // A record doesn't tell what else it said.
        _ = writeln!(text, "failure = {}", written::line(failure.reason.lines().next().unwrap_or_default()));
    }
    if let Some(reply) = &observed.reply {
        _ = writeln!(text, "reply = {}", written::text(reply));
    }
    if !observed.references.is_empty() {
        let references: Vec<_> =
            observed.references.iter().map(|it| json!({ "name": it["name"], "url": it["url"] })).collect();
        _ = writeln!(text, "references = {}", written::list(&references));
    }
    text
}

/// A call with those of its arguments that a person would have written down: what is short, and says something.
fn call((import, arguments): &(RecordedImport, Map<String, Json>)) -> String {
    let says = |value: &Json| match value {
        Json::String(text) => text.len() <= LONG && !text.contains('\n'),
        Json::Number(_) => true,
        Json::Bool(flag) => *flag,
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    };
    let arguments = arguments.iter().filter(|(_, value)| says(value));
    call_row(import.as_str(), &arguments.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// A file's text with what was found in the place of what was expected, as far as it can be put there; everything else
/// stays as it is.
pub fn accept(text: &str, differences: &[Difference]) -> String {
    let mut changes: Vec<&(Range<usize>, String)> = differences.iter().flat_map(|it| &it.accept).collect();
    changes.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    changes.dedup_by_key(|(span, _)| span.start);
    let mut text = text.to_owned();
    for (span, written) in changes {
        text.replace_range(span.clone(), written);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_leaves_the_rest() {
        let text = "a = 'x' # why\nb = [1, # one\n 2]\nc = 3\n";
        let difference = |span: Range<usize>, written: &str| Difference {
            line: 1,
            what: String::new(),
            expected: String::new(),
            found: String::new(),
            accept: vec![(span, written.to_owned())],
        };
        let accepted = accept(text, &[difference(4..7, "\"longer\""), difference(18..31, "[]")]);
        assert_eq!(accepted, "a = \"longer\" # why\nb = []\nc = 3\n");
    }
}
