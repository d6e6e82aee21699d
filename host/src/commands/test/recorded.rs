//! Generates the text of a test from a recorded delivery.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::testing::{Observed, ObservedCall, error_name, expect_section, toml_writer};
use modhost_config::redact::SECRET_WORDS;
use modhost_core::event::Event;
use modhost_core::import::{Import, RecordedImport};
use modhost_platform::{CallError, Ending, ErrorKind, Hit};
use modhost_runtime::call_log::replace_long_texts;
use modhost_runtime::engine::{Failure, GuestOutcome, Retry};
use modhost_server::admin_api::{CallView, DetailsView};
use modhost_storage::journal::FailureReason;

/// Calls whose results differ each time: ids of new objects, the pieces of a stream, the time.
const VARYING_CALLS: [Import; 4] =
    [Import::MessageLogEntryCreate, Import::MessagesCreate, Import::CompletionStream, Import::Clocks];

/// Clock readings above this, in nanoseconds, are from the wall clock: it corresponds to the year 2001.
const MIN_WALL_CLOCK: u64 = 1_000_000_000_000_000_000;

/// Replaces values that may be secrets.
const REDACTED: &str = "redacted";

/// Maximum number of words in the name of a test.
const MAX_NAME_WORDS: usize = 6;

/// The fields of a payload that a test with `text` generates.
const GENERATED_FIELDS: [&str; 9] = [
    "name",
    "description",
    "configuration",
    "chatId",
    "chatid",
    "assistantId",
    "text",
    "userMessage",
    "assistantMessage",
];

/// A delivery to record as a test.
pub(super) struct Recording<'d> {
    details: &'d DetailsView,
    payload: Json,
    calls: Vec<RecordedCall<'d>>,
}

struct RecordedCall<'d> {
    import: &'d RecordedImport,
    /// Each text that is recorded as a digest is a pattern here, its beginning with `*`.
    arguments: Json,
    answer: Result<Json, CallError>,
}

impl<'d> Recording<'d> {
    pub(super) fn new(details: &'d DetailsView) -> Self {
        let mut payload = serde_json::from_str(details.event.payload.get()).unwrap_or_default();
        if let Some(configuration) = Json::get_mut(&mut payload, "configuration") {
            redact(configuration);
        }
        let calls = details.calls.iter().filter_map(recorded_call).collect();
        Self { details, payload, calls }
    }

    /// Returns a name for the file.
    pub(super) fn name(&self) -> String {
        let text = self.text().unwrap_or(&self.details.event.name).to_lowercase();
        let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let name: String =
            words.into_iter().take(MAX_NAME_WORDS).collect::<Vec<_>>().join("-").chars().take(60).collect();
        if name.is_empty() { "recorded".to_owned() } else { name }
    }

    /// Returns the text of the user, if the event is a message.
    fn text(&self) -> Option<&str> {
        let field =
            if self.details.event.name == Event::MODULE_CHOSEN { &self.payload["userMessage"] } else { &self.payload };
        field["text"].as_str()
    }

    /// Returns the short form, as an author would write it. `None` if the event is not a chat message.
    pub(super) fn short(&self) -> Option<String> {
        if !["unique.chat.user-message.created", Event::MODULE_CHOSEN].contains(&self.details.event.name.as_str()) {
            return None;
        }
        let text = self.text()?;
        let mut file = self.heading();
        _ = writeln!(file, "text = {}", toml_writer::text(text));
        let message = &self.payload["userMessage"];
        if let Some(original) = message["originalText"].as_str().filter(|original| *original != text) {
            _ = writeln!(file, "original_text = {}", toml_writer::text(original));
        }
        if let Some(language) = message["language"].as_str().filter(|language| *language != "en") {
            _ = writeln!(file, "language = {}", toml_writer::line(language));
        }
        let configuration = self.payload["configuration"].as_object().filter(|it| !it.is_empty());
        let more: Map<_, _> = self.payload.as_object().into_iter().flatten().filter_map(extra_field).collect();
        let tables = [("configuration", configuration.cloned()), ("payload", Some(more).filter(|it| !it.is_empty()))];
        for (key, table) in tables {
            if let Some(table) = table.map(Json::Object) {
                // The complete form contains the payload as JSON.
                if !toml_writer::is_writable(&table) {
                    return None;
                }
                _ = writeln!(file, "{key} = {}", toml_writer::value(&table));
            }
        }
        Some(file + &self.rest(&[]))
    }

    /// Returns the complete form: with the event as the host received it, and with all recorded ids and times.
    pub(super) fn complete(&self) -> String {
        let event = &self.details.event;
        let mut file = self.heading();
        for (key, id) in [("user", &event.user_id), ("company", &event.company_id)] {
            if let Some(id) = id {
                _ = writeln!(file, "{key} = {}", toml_writer::line(id));
            }
        }
        let payload = serde_json::to_string_pretty(&self.payload).unwrap_or_default();
        let rest = self.rest(&VARYING_CALLS);
        // Top-level keys have to precede the first table.
        let (keys, tables) = rest.split_at(rest.find("\n[").map_or(rest.len(), |at| at + 1));
        _ = write!(
            file,
            "source = {}\n{keys}\n[event]\nid = {}\nname = {}\npayload = {}\n\n{tables}",
            toml_writer::line(&event.source),
            toml_writer::line(&event.id),
            toml_writer::line(&event.name),
            toml_writer::text(&payload)
        );
        file
    }

    fn heading(&self) -> String {
        format!("# Recorded from delivery {}.\n", self.details.delivery.id)
    }

    /// Returns the time, answers and expectations. Calls in `verbatim` are answered with their recorded results.
    fn rest(&self, verbatim: &[Import]) -> String {
        let mut file = format!("time = {}\n", jiff::Timestamp::try_from(self.time()).unwrap_or_default());
        file += &self.answers(verbatim);
        file.push('\n');
        file += &expect_section(&self.observed());
        file
    }

    /// Returns the clock readings as answers.
    fn clock_readings(&self) -> String {
        let clocks = self.details.calls.iter().filter(|call| call.import == Import::Clocks);
        let answers = clocks.filter_map(|call| Some(toml_writer::value(&call.answer.as_ref()?["ok"])));
        answers.map(|readings| format!("\n[[answer]]\ncall = \"{}\"\nok = {readings}\n", Import::Clocks)).collect()
    }

    /// Returns the start time: the first wall clock reading of the module, else the time of the event.
    fn time(&self) -> SystemTime {
        let clocks = self.details.calls.iter().filter(|call| call.import == Import::Clocks);
        let readings = clocks.filter_map(|call| Vec::<u64>::deserialize(&call.answer.as_ref()?["ok"]).ok()).flatten();
        let wall = readings.into_iter().find(|reading| *reading > MIN_WALL_CLOCK).map(Duration::from_nanos);
        let created = self.details.event.created_at.map(Duration::from_secs);
        SystemTime::UNIX_EPOCH + wall.or(created).unwrap_or_default()
    }

    /// Returns the recorded behavior.
    fn observed(&self) -> Observed {
        let calls = self.calls.iter().map(|call| ObservedCall {
            import: call.import.clone(),
            arguments: &call.arguments,
            answer: Some(&call.answer),
        });
        let reply_id = self.payload["assistantMessage"]["id"].as_str();
        Observed::new(self.ended(), calls, reply_id)
    }

    fn ended(&self) -> GuestOutcome {
        match self.details.attempts_made.last() {
            Some(last) if last.outcome != "completed" => {
                // Whether the user could be notified does not concern the module.
                let reason = FailureReason::parse(&last.outcome).reason().to_owned();
                GuestOutcome::Failed(Failure { reason, user_text: None, retry: Retry::No })
            }
            _ => GuestOutcome::Answered,
        }
    }

    fn answers(&self, verbatim: &[Import]) -> String {
        let state = KeyValueState::before(&self.calls);
        let mut text = String::new();
        for call in &self.calls {
            let (import, interface) = (call.import.known(), call.import.interface());
            let is_verbatim = import.is_some_and(|import| verbatim.contains(&import));
            match (import, &call.answer) {
                _ if is_verbatim || state.verbatim.contains(call.import) => write_answer(&mut text, call),
                (Some(Import::SearchSearch), Ok(hits)) => write_search(&mut text, hits),
                (Some(Import::SearchSearch), Err(error)) => write_error(&mut text, "[[search]]", error),
                (_, Ok(answer)) if interface == "completion" => write_completion(&mut text, answer),
                (_, Err(error)) if interface == "completion" => write_error(&mut text, "[[completion]]", error),
                _ => {}
            }
        }
        if verbatim.contains(&Import::Clocks) {
            text += &self.clock_readings();
        }
        for (bucket, values) in &state.content {
            _ = writeln!(text, "\n[keyvalue.{}]", toml_writer::key(bucket));
            for (key, value) in values {
                _ = writeln!(text, "{} = {}", toml_writer::key(key), value_of(value));
            }
        }
        text
    }
}

/// Returns a call with its result. `None` for calls without a result and for other entries of the call log.
fn recorded_call(call: &CallView) -> Option<RecordedCall<'_>> {
    let answer = match call.answer.as_ref()? {
        Json::Object(fields) if fields.contains_key("ok") => Ok(fields["ok"].clone()),
        // A call that was interrupted has no result.
        other => {
            let error = [&other["error"], &other["broken_off"]["error"]];
            Err(error.into_iter().find_map(|error| CallError::deserialize(error).ok())?)
        }
    };
    let mut arguments = call.arguments.clone();
    replace_long_texts(&mut arguments, &|text| text.beginning + "*");
    call.import.is_call().then_some(RecordedCall { import: &call.import, arguments, answer })
}

/// Returns a field of the payload that the test has to contain, unless it is null.
fn extra_field((key, value): (&String, &Json)) -> Option<(String, Json)> {
    (!GENERATED_FIELDS.contains(&key.as_str()) && !value.is_null()).then(|| (key.clone(), value.clone()))
}

/// Replaces every text whose key suggests a secret.
fn redact(value: &mut Json) {
    match value {
        Json::Object(fields) => {
            for (key, value) in fields {
                let key = key.to_lowercase();
                match value {
                    Json::String(text) if SECRET_WORDS.iter().any(|word| key.contains(word)) => {
                        REDACTED.clone_into(text)
                    }
                    value => redact(value),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn write_search(text: &mut String, hits: &Json) {
    text.push_str("\n[[search]]\n");
    for hit in Vec::<Hit>::deserialize(hits).unwrap_or_default() {
        let hit = serde_json::to_value(hit).unwrap_or_default();
        text.push_str("[[search.hits]]\n");
        for (key, value) in hit.as_object().into_iter().flatten() {
            if !value.is_null() && *value != json!({}) {
                _ = writeln!(text, "{key} = {}", value_of(value));
            }
        }
    }
}

fn write_completion(text: &mut String, answer: &Json) {
    let Ok(Ending { finish_reason, usage }) = Ending::deserialize(answer) else { return };
    _ = writeln!(text, "\n[[completion]]\n{}", completion_text(answer));
    if let Some(reason) = finish_reason {
        _ = writeln!(text, "finish_reason = {}", toml_writer::line(&reason));
    }
    if let Some(usage) = usage {
        let (prompt, completion) = (usage.prompt_tokens, usage.completion_tokens);
        _ = writeln!(text, "usage = {{ prompt_tokens = {prompt}, completion_tokens = {completion} }}");
    }
}

/// Returns the text of a completion, or its pieces if it was streamed.
fn completion_text(answer: &Json) -> String {
    match Vec::<String>::deserialize(&answer["pieces"]) {
        Ok(pieces) if pieces.len() != 1 => format!("pieces = {}", toml_writer::value(&json!(pieces))),
        Ok(pieces) => format!("text = {}", toml_writer::text(&pieces.concat())),
        Err(_) => format!("text = {}", toml_writer::text(answer["text"].as_str().unwrap_or_default())),
    }
}

fn write_error(text: &mut String, title: &str, error: &CallError) {
    _ = writeln!(text, "\n{title}\nerror = {}", error_value(error));
}

fn error_value(error: &CallError) -> String {
    let after = match error.kind {
        ErrorKind::RateLimited(Some(after)) => Some(humantime::format_duration(after).to_string()),
        _ => None,
    };
    toml_writer::value(&json!({ "kind": error_name(error.kind), "message": error.message, "after": after }))
}

/// Writes the recorded result of a call.
fn write_answer(text: &mut String, call: &RecordedCall<'_>) {
    _ = writeln!(text, "\n[[answer]]\ncall = {}", toml_writer::line(call.import.as_str()));
    match &call.answer {
        Ok(Json::Null) => {}
        Ok(value) if toml_writer::is_writable(value) => _ = writeln!(text, "ok = {}", toml_writer::value(value)),
        Ok(value) => _ = writeln!(text, "json = {}", toml_writer::text(&value.to_string())),
        Err(error) => _ = writeln!(text, "error = {}", error_value(error)),
    }
}

fn value_of(value: &Json) -> String {
    value.as_str().map_or_else(|| toml_writer::value(value), toml_writer::text)
}

/// The initial content of the key-value store as far as the calls reveal it, and the calls that it cannot answer.
#[derive(Default)]
struct KeyValueState<'d> {
    content: BTreeMap<String, BTreeMap<String, Json>>,
    /// Calls to answer with their recorded results.
    verbatim: HashSet<&'d RecordedImport>,
}

impl<'d> KeyValueState<'d> {
    fn before(calls: &[RecordedCall<'d>]) -> Self {
        let mut state = Self::default();
        let mut known = BTreeSet::new();
        for call in calls {
            if !state.apply(call, &mut known) {
                state.verbatim.insert(call.import);
            }
        }
        state
    }

    /// Applies a call to the content. Returns whether a test can answer the call without its recorded result.
    fn apply(&mut self, call: &RecordedCall<'d>, known: &mut BTreeSet<(String, String)>) -> bool {
        let interface = call.import.interface();
        let Ok(answer) = &call.answer else { return matches!(interface, "search" | "completion") };
        let field = |name: &str| call.arguments[name].as_str().unwrap_or_default().to_owned();
        let (bucket, key) = (field("bucket"), field("key"));
        match call.import.known() {
            Some(Import::KeyValueGet) => {
                if known.insert((bucket.clone(), key.clone())) && !answer.is_null() {
                    self.content.entry(bucket).or_default().insert(key, answer.clone());
                }
                true
            }
            Some(Import::KeyValueIncrement) => {
                let before = answer.as_i64().zip(call.arguments["delta"].as_i64());
                if known.insert((bucket.clone(), key.clone()))
                    && let Some((after, delta)) = before
                    && after != delta
                {
                    let before = json!((after.wrapping_sub(delta)).to_string());
                    self.content.entry(bucket).or_default().insert(key, before);
                }
                true
            }
            Some(Import::KeyValueSet | Import::KeyValueSetMany) => {
                let entries = call.arguments["entries"].as_array().into_iter().flatten();
                known.extend(entries.filter_map(|entry| Some((bucket.clone(), entry[0].as_str()?.to_owned()))));
                true
            }
            Some(Import::KeyValueDelete | Import::KeyValueDeleteMany) => {
                let keys = call.arguments["keys"].as_array().into_iter().flatten();
                known.extend(keys.filter_map(|key| Some((bucket.clone(), key.as_str()?.to_owned()))));
                true
            }
            // A test only contains the message of the event, and not the rest of the chat.
            Some(Import::MessagesHistory) => false,
            _ => matches!(interface, "search" | "completion" | "messages" | "message-log"),
        }
    }
}
