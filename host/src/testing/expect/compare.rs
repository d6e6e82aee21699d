//! How what was seen differs from what is expected, and what to write to expect it instead.

use std::ops::Range;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::super::matcher::{Matcher, as_expected, has};
use super::super::observed::{Observed, SeenStep};
use super::super::written;
use super::{At, Called, Difference, Fails, Kept, Step};
use modhost_core::import::RecordedImport;
use modhost_runtime::engine::{Ended, Failure, Retry};

impl<T> At<T> {
    fn difference(&self, what: impl Into<String>, expected: String, found: String) -> Difference {
        Difference { line: self.line, what: what.into(), expected, found, accept: Vec::new() }
    }
}

impl<T> At<Vec<At<T>>> {
    /// What to write to expect these items instead: each that fits is left as it is, with whatever stands around it. Where
    /// there are more or fewer, the whole list.
    fn rewritten(&self, found: &[(bool, String)]) -> Vec<(Range<usize>, String)> {
        if self.is.len() == found.len() {
            let changed = self.is.iter().zip(found).filter(|(_, (fits, _))| !fits);
            return changed.map(|(item, (_, written))| (item.span.clone(), written.clone())).collect();
        }
        let all: Vec<_> = found.iter().map(|(_, written)| written.clone()).collect();
        vec![(self.span.clone(), written::rows(&all))]
    }
}

impl Difference {
    fn accepted_as(mut self, span: &Range<usize>, text: String) -> Self {
        self.accept = vec![(span.clone(), text)];
        self
    }
}

/// How many of the last lines of a log are shown beside one that is missing.
const LOG_SHOWN: usize = 20;

/// How much of a call is shown that should not be there, in characters.
const CALL_SHOWN: usize = 160;

/// Why a module didn't answer, in the words the delivery would have; none if it did.
pub(in crate::testing) fn failed(ended: &Ended) -> Option<Failure> {
    let given_up = |reason| Failure { reason, user_text: None, retry: Retry::No };
    match ended {
        Ended::Answered => None,
        Ended::Failed(failure) => Some(failure.clone()),
        Ended::Trapped { reason } => Some(given_up(format!("trap: {reason}"))),
        Ended::LimitReached(limit) => Some(given_up(format!("limit reached: {limit}"))),
    }
}

/// How the end differs. Where it answered, `instead` is what the whole entry of the failure becomes, and where that stands.
pub(super) fn ending(
    wanted: &At<Fails>,
    observed: &Observed,
    instead: Option<(Range<usize>, String)>,
) -> Option<Difference> {
    let Some(failure) = failed(&observed.ended) else {
        let mut difference = wanted.difference("the end", "a failure".into(), "it answered".into());
        difference.accept.extend(instead);
        return Some(difference);
    };
    let Fails { reason, user_text, retry } = &wanted.is;
    let none = "(none)".to_owned();
    let told = failure.user_text.as_ref();
    let pairs = [
        reason.as_ref().filter(|it| !it.fits(&failure.reason)).map(|it| ("reason", it.told(), failure.reason.clone())),
        user_text
            .as_ref()
            .filter(|it| !told.is_some_and(|text| it.fits(text)))
            .map(|it| ("text for the user", it.told(), told.cloned().unwrap_or(none))),
        retry
            .filter(|it| *it != failure.retry)
            .map(|it| ("answer to whether to try again", retry_word(it), retry_word(failure.retry))),
    ];
    let (what, expected, found) = pairs.into_iter().flatten().next()?;
    Some(
        wanted
            .difference(format!("the failure's {what}"), expected, found)
            .accepted_as(&wanted.span, written::value(&failure_json(&failure))),
    )
}

/// A failure, as a test expects it.
fn failure_json(failure: &Failure) -> Json {
    let reason = failure.reason.lines().next().unwrap_or_default();
    json!({ "reason": reason, "user_text": failure.user_text, "retry": retry_word(failure.retry) })
}

fn retry_word(retry: Retry) -> String {
    match retry {
        Retry::No => "no".into(),
        Retry::Yes => "yes".into(),
        Retry::After(time) => humantime::format_duration(Duration::from_secs(time.as_secs())).to_string(),
    }
}

pub(super) fn answered(wanted: &At<Option<Matcher>>, observed: &Observed) -> Option<Difference> {
    let found = observed.reply.as_deref();
    let fits = match (&wanted.is, found) {
        (Some(matcher), Some(text)) => matcher.fits(text),
        (None, None) => true,
        _ => false,
    };
    if fits {
        return None;
    }
    let expected = wanted.is.as_ref().map_or_else(|| "(no reply)".to_owned(), Matcher::told);
    let written = found.map_or_else(|| "false".to_owned(), written::text);
    let difference = wanted.difference("the reply", expected, found.unwrap_or("(no reply)").to_owned());
    Some(difference.accepted_as(&wanted.span, written))
}

/// What stands in the place of a failure that is no longer expected, and which part of the file that is: the line with its key,
/// or the table with its header. Where nothing else is said of the reply, the reply there was. None where a person has to look.
pub(super) fn without_failure(
    wanted: &At<Fails>,
    reply: Option<&At<Option<Matcher>>>,
    observed: &Observed,
    text: &str,
) -> Option<(Range<usize>, String)> {
    let start = text.get(..wanted.span.start)?.rfind('\n').map_or(0, |end| end + 1);
    let rest = text.get(wanted.span.end..)?;
    let end_of_line = wanted.span.end + rest.find('\n').map_or(rest.len(), |end| end + 1);
    let before: String = text.get(start..wanted.span.start)?.chars().filter(|c| !c.is_whitespace()).collect();
    if before == "failure=" {
        let reply = observed.reply.as_deref().filter(|_| reply.is_none());
        let reply = reply.map(|reply| format!("reply = {}\n", written::text(reply))).unwrap_or_default();
        return Some((start..end_of_line, reply));
    }
    if !text.get(start..)?.starts_with("[expect.failure]") {
        return None;
    }
    let table = text.get(start..)?;
    let end = table.find("\n[").map_or(table.len(), |end| end + 1);
    Some((start..start + end, String::new()))
}

pub(super) fn references(wanted: &At<Vec<At<Json>>>, observed: &Observed) -> Option<Difference> {
    let found: Vec<(bool, String)> = observed
        .references
        .iter()
        .enumerate()
        .map(|(place, it)| match wanted.is.get(place) {
            Some(like) => (has(it, &like.is), written::value(&as_expected(it, &like.is))),
            None => (false, written::value(&json!({ "name": it["name"] }))),
        })
        .collect();
    if found.len() == wanted.is.len() && found.iter().all(|(fits, _)| *fits) {
        return None;
    }
    let expected = wanted.is.iter().map(|like| written::value(&like.is)).collect();
    let shown = found.iter().map(|(_, written)| written.clone()).collect();
    let mut difference = wanted.difference("the references", lines(expected), lines(shown));
    difference.accept = wanted.rewritten(&found);
    Some(difference)
}

fn lines(lines: Vec<String>) -> String {
    if lines.is_empty() { "(none)".to_owned() } else { lines.join("\n") }
}

pub(super) fn steps(wanted: &At<Vec<At<Step>>>, observed: &Observed) -> Option<Difference> {
    let line = |status: &str, text: &str| format!("{status:<9}  {text}");
    let like = |place: usize, found: &SeenStep| {
        let step = wanted.is.get(place).map(|step| &step.is)?;
        (step.status == found.status && step.text.fits(&found.text)).then_some(step)
    };
    let found: Vec<(bool, String)> = observed
        .steps
        .iter()
        .zip(step_list(&observed.steps))
        .enumerate()
        .map(|(place, (step, json))| (like(place, step).is_some(), written::value(&json)))
        .collect();
    if found.len() == wanted.is.len() && found.iter().all(|(fits, _)| *fits) {
        return None;
    }
    // What fits is shown as it was expected, so that only what doesn't stands out.
    let shown = observed.steps.iter().enumerate().map(|(place, step)| match like(place, step) {
        Some(like) => line(like.status, &like.text.told()),
        None => line(&step.status, &step.text),
    });
    let expected = wanted.is.iter().map(|step| line(step.is.status, &step.is.text.told())).collect();
    let mut difference = wanted.difference("the steps", lines(expected), lines(shown.collect()));
    difference.accept = wanted.rewritten(&found);
    Some(difference)
}

/// Steps, as a test expects them.
pub(in crate::testing) fn step_list(steps: &[SeenStep]) -> Vec<Json> {
    let step = |step: &SeenStep| match step.status.as_str() {
        "completed" => json!(step.text),
        status => json!({ "text": step.text, "status": status }),
    };
    steps.iter().map(step).collect()
}

pub(super) fn messages(wanted: &At<Vec<At<Matcher>>>, observed: &Observed) -> Option<Difference> {
    let fits = |place: usize, text: &str| wanted.is.get(place).is_some_and(|like| like.is.fits(text));
    let found: Vec<(bool, String)> =
        observed.messages.iter().enumerate().map(|(place, text)| (fits(place, text), written::text(text))).collect();
    if found.len() == wanted.is.len() && found.iter().all(|(fits, _)| *fits) {
        return None;
    }
    let all = |texts: Vec<String>| if texts.is_empty() { "(none)".to_owned() } else { texts.join("\n---\n") };
    let expected = all(wanted.is.iter().map(|like| like.is.told()).collect());
    let mut difference = wanted.difference("the other messages", expected, all(observed.messages.clone()));
    difference.accept = wanted.rewritten(&found);
    Some(difference)
}

pub(super) fn logged(wanted: &At<Matcher>, observed: &Observed) -> Option<Difference> {
    if observed.log.iter().any(|line| wanted.is.fits(line)) {
        return None;
    }
    let left_out = observed.log.len().saturating_sub(LOG_SHOWN);
    let found = match observed.log.is_empty() {
        true => "(it logged nothing)".to_owned(),
        false => observed.log[left_out..].join("\n"),
    };
    Some(wanted.difference("the log", wanted.is.told(), found))
}

pub(super) fn not_called(name: &At<RecordedImport>, observed: &Observed) -> Option<Difference> {
    let (_, arguments) = observed.calls.iter().find(|(import, _)| *import == name.is)?;
    let mut call = call_line(name.is.as_str(), arguments);
    if let Some((end, _)) = call.char_indices().nth(CALL_SHOWN) {
        call.replace_range(end.., "…");
    }
    Some(name.difference("a call", format!("no {}", name.is), call))
}

/// The calls that are expected have to be there in their order; what is called in between is of no matter.
pub(super) fn calls(wanted: &At<Vec<At<Called>>>, observed: &Observed) -> Option<Difference> {
    let (matched, mut left) = matched(&wanted.is, &observed.calls);
    if left.is_empty() {
        return None;
    }
    // Of the calls there were, those that were expected, and those of the same name in the place of those that weren't found.
    let mut found: Vec<(usize, bool, &str, Map<String, Json>)> = Vec::new();
    for ((import, arguments), place) in observed.calls.iter().zip(&matched) {
        let fits = place.is_some();
        let mut instead = || {
            let at = left.iter().position(|place| wanted.is[*place].is.import == *import)?;
            Some(left.remove(at))
        };
        let Some(place) = place.or_else(&mut instead) else { continue };
        let like = Json::Object(wanted.is[place].is.arguments.clone());
        let shown = as_expected(&Json::Object(arguments.clone()), &like);
        found.push((place, fits, import.as_str(), shown.as_object().cloned().unwrap_or_default()));
    }
    let all = |lines: Vec<String>| if lines.is_empty() { "(none of these)".to_owned() } else { lines.join("\n") };
    let expected = wanted.is.iter().map(|called| call_line(called.is.import.as_str(), &called.is.arguments)).collect();
    let shown = found.iter().map(|(_, _, import, arguments)| call_line(import, arguments)).collect();
    let mut difference = wanted.difference("the calls", all(expected), all(shown));
    let rows: Vec<_> = found.iter().map(|(_, fits, import, arguments)| (*fits, call_row(import, arguments))).collect();
    let in_their_places = found.iter().enumerate().all(|(at, (place, ..))| at == *place);
    difference.accept = match in_their_places {
        true => wanted.rewritten(&rows),
        false => vec![(wanted.span.clone(), written::rows(&rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>()))],
    };
    Some(difference)
}

/// For each call there was, the place of the one that was expected; and the places of those that were not found.
fn matched(wanted: &[At<Called>], calls: &[(RecordedImport, Map<String, Json>)]) -> (Vec<Option<usize>>, Vec<usize>) {
    let fits = |called: &Called, (import, arguments): &(RecordedImport, Map<String, Json>)| {
        called.import == *import && has(&Json::Object(arguments.clone()), &Json::Object(called.arguments.clone()))
    };
    let mut matched = vec![None; calls.len()];
    let (mut from, mut missing) = (0, Vec::new());
    for (place, called) in wanted.iter().enumerate() {
        match (from..calls.len()).find(|at| fits(&called.is, &calls[*at])) {
            Some(at) => {
                matched[at] = Some(place);
                from = at + 1;
            }
            None => missing.push(place),
        }
    }
    (matched, missing)
}

fn call_line(import: &str, arguments: &Map<String, Json>) -> String {
    let fields = arguments.iter().filter(|(_, value)| !value.is_null());
    let fields: Vec<_> = fields.map(|(name, value)| format!("{name} = {}", written::value(value))).collect();
    format!("{import}  {}", fields.join(", ")).trim_end().to_owned()
}

/// A call, as a test expects it: its name first.
pub(in crate::testing) fn call_row(import: &str, arguments: &Map<String, Json>) -> String {
    let arguments = arguments.iter().filter(|(_, value)| !value.is_null());
    let arguments = arguments.map(|(name, value)| format!(", {} = {}", written::key(name), written::value(value)));
    format!("{{ call = {}{} }}", written::line(import), arguments.collect::<String>())
}

pub(super) fn keeps(wanted: &At<Kept>, observed: &Observed) -> Option<Difference> {
    let Kept { bucket, key, value } = &wanted.is;
    let found = observed.keyvalue.get(bucket).and_then(|values| values.get(key));
    // A value is text; that of a module that keeps JSON is expected as a table.
    let parsed = found.and_then(Json::as_str).and_then(|text| serde_json::from_str(text).ok());
    let fits = match (value, found) {
        (None, None) => true,
        (Some(wanted), Some(found)) => has(found, wanted) || parsed.as_ref().is_some_and(|found| has(found, wanted)),
        _ => false,
    };
    if fits {
        return None;
    }
    let shown = |value: Option<&Json>| value.map_or_else(|| "(nothing)".to_owned(), written::value);
    let found = match (value, &parsed) {
        (Some(Json::String(_)), _) | (_, None) => shown(found),
        (_, Some(parsed)) => shown(Some(parsed)),
    };
    Some(wanted.difference(format!("what is kept as {key} in {bucket}"), shown(value.as_ref()), found))
}
