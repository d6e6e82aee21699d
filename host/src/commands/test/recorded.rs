//! The text of a test that is made of a delivery.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::testing::{Observed, SeenCall, error_word, section, written};
use modhost_config::redact::SECRET_WORDS;
use modhost_core::event::Event;
use modhost_core::import::{Import, RecordedImport};
use modhost_platform::{CallError, Ending, ErrorKind, Hit};
use modhost_runtime::engine::{Ended, Failure, Retry};
use modhost_server::admin_api::{CallView, DetailsView};
use modhost_storage::journal::FailureReason;

/// What gives the module something that only then was so: the ids of what it makes, the pieces an answer came in, the time.
const GIVING: [Import; 4] =
    [Import::MessageLogEntryCreate, Import::MessagesCreate, Import::CompletionStream, Import::Clocks];

/// A reading of a clock beyond this, in nanoseconds, is one of the wall's: the year 2001.
const WALL_FROM: u64 = 1_000_000_000_000_000_000;

/// What stands for a value that may be a secret.
const CONCEALED: &str = "concealed";

/// How many words of a text make a name.
const WORDS: usize = 6;

/// The fields of a payload that a test with a `text` makes by itself.
const MADE: [&str; 9] = [
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

/// A delivery that becomes a test.
pub(super) struct Recording<'d> {
    details: &'d DetailsView,
    payload: Json,
    calls: Vec<Call<'d>>,
}

struct Call<'d> {
    import: &'d RecordedImport,
    arguments: &'d Json,
    answer: Result<Json, CallError>,
}

impl<'d> Recording<'d> {
    pub(super) fn new(details: &'d DetailsView) -> Self {
        let mut payload = serde_json::from_str(details.event.payload.get()).unwrap_or_default();
        if let Some(configuration) = Json::get_mut(&mut payload, "configuration") {
            redact(configuration);
        }
        let calls = details.calls.iter().filter_map(call).collect();
        Self { details, payload, calls }
    }

    /// What the file may be called.
    pub(super) fn name(&self) -> String {
        let text = self.text().unwrap_or(&self.details.event.name).to_lowercase();
        let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let name: String = words.into_iter().take(WORDS).collect::<Vec<_>>().join("-").chars().take(60).collect();
        if name.is_empty() { "recorded".to_owned() } else { name }
    }

    /// What the user wrote, if the event is a message.
    fn text(&self) -> Option<&str> {
        let field =
            if self.details.event.name == Event::MODULE_CHOSEN { &self.payload["userMessage"] } else { &self.payload };
        field["text"].as_str()
    }

    /// The test as a person would write it; none where the event is no message in a chat.
    pub(super) fn short(&self) -> Option<String> {
        if !["unique.chat.user-message.created", Event::MODULE_CHOSEN].contains(&self.details.event.name.as_str()) {
            return None;
        }
        let text = self.text()?;
        let mut file = self.heading();
        _ = writeln!(file, "text = {}", written::text(text));
        let message = &self.payload["userMessage"];
        if let Some(original) = message["originalText"].as_str().filter(|original| *original != text) {
            _ = writeln!(file, "original_text = {}", written::text(original));
        }
        if let Some(language) = message["language"].as_str().filter(|language| *language != "en") {
            _ = writeln!(file, "language = {}", written::line(language));
        }
        let configuration = self.payload["configuration"].as_object().filter(|it| !it.is_empty());
        let more: Map<_, _> = self.payload.as_object().into_iter().flatten().filter_map(extra).collect();
        let tables = [("configuration", configuration.cloned()), ("payload", Some(more).filter(|it| !it.is_empty()))];
        for (key, table) in tables {
            if let Some(table) = table.map(Json::Object) {
                // What TOML can't say the whole event can.
                if !written::is_writable(&table) {
                    return None;
                }
                _ = writeln!(file, "{key} = {}", written::value(&table));
            }
        }
        Some(file + &self.rest(&[]))
    }

    /// The test with the event as the host had it, and with every id and time that was given to the module.
    pub(super) fn whole(&self) -> String {
        let event = &self.details.event;
        let mut file = self.heading();
        for (key, id) in [("user", &event.user_id), ("company", &event.company_id)] {
            if let Some(id) = id {
                _ = writeln!(file, "{key} = {}", written::line(id));
            }
        }
        let payload = serde_json::to_string_pretty(&self.payload).unwrap_or_default();
        let rest = self.rest(&GIVING);
        // Keys of the file itself stand before its first table.
        let (keys, tables) = rest.split_at(rest.find("\n[").map_or(rest.len(), |at| at + 1));
        _ = write!(
            file,
            "source = {}\n{keys}\n[event]\nid = {}\nname = {}\npayload = {}\n\n{tables}",
            written::line(&event.source),
            written::line(&event.id),
            written::line(&event.name),
            written::text(&payload)
        );
        file
    }

    fn heading(&self) -> String {
        format!("# Recorded from delivery {}.\n", self.details.delivery.id)
    }

    /// Time, answers and what is expected; `verbatim` are calls that are answered as they were then.
    fn rest(&self, verbatim: &[Import]) -> String {
        let mut file = format!("time = {}\n", jiff::Timestamp::try_from(self.time()).unwrap_or_default());
        file += &self.answers(verbatim);
        file.push('\n');
        file += &section(&self.seen());
        file
    }

    /// What the module read off the clocks.
    fn readings(&self) -> String {
        let clocks = self.details.calls.iter().filter(|call| call.import == Import::Clocks);
        let answers = clocks.filter_map(|call| Some(written::value(&call.answer.as_ref()?["ok"])));
        answers.map(|readings| format!("\n[[answer]]\ncall = \"{}\"\nok = {readings}\n", Import::Clocks)).collect()
    }

    /// When it began, as the module saw it; if it didn't look, when the event happened.
    fn time(&self) -> SystemTime {
        let clocks = self.details.calls.iter().filter(|call| call.import == Import::Clocks);
        let readings = clocks.filter_map(|call| Vec::<u64>::deserialize(&call.answer.as_ref()?["ok"]).ok()).flatten();
        let wall = readings.into_iter().find(|reading| *reading > WALL_FROM).map(Duration::from_nanos);
        let created = self.details.event.created_at.map(Duration::from_secs);
        SystemTime::UNIX_EPOCH + wall.or(created).unwrap_or_default()
    }

    /// What was seen then.
    fn seen(&self) -> Observed {
        let calls = self.calls.iter().map(|call| SeenCall {
            import: call.import.clone(),
            arguments: call.arguments,
            answer: Some(&call.answer),
        });
        let reply_id = self.payload["assistantMessage"]["id"].as_str();
        Observed::new(self.ended(), calls, reply_id)
    }

    fn ended(&self) -> Ended {
        match self.details.attempts_made.last() {
            Some(last) if last.outcome != "completed" => {
                // Whether the user could be notified does not concern the module.
                let reason = FailureReason::parse(&last.outcome).reason().to_owned();
                Ended::Failed(Failure { reason, user_text: None, retry: Retry::No })
            }
            _ => Ended::Answered,
        }
    }

    fn answers(&self, as_then: &[Import]) -> String {
        let kept = Kept::of(&self.calls);
        let mut text = String::new();
        for call in &self.calls {
            let (import, interface) = (call.import.known(), call.import.interface());
            let is_as_then = import.is_some_and(|import| as_then.contains(&import));
            match (import, &call.answer) {
                _ if is_as_then || kept.verbatim.contains(call.import) => verbatim(&mut text, call),
                (Some(Import::SearchSearch), Ok(hits)) => search(&mut text, hits),
                (Some(Import::SearchSearch), Err(error)) => failed(&mut text, "[[search]]", error),
                (_, Ok(answer)) if interface == "completion" => completion(&mut text, answer),
                (_, Err(error)) if interface == "completion" => failed(&mut text, "[[completion]]", error),
                _ => {}
            }
        }
        if as_then.contains(&Import::Clocks) {
            text += &self.readings();
        }
        for (bucket, values) in &kept.content {
            _ = writeln!(text, "\n[keyvalue.{}]", written::key(bucket));
            for (key, value) in values {
                _ = writeln!(text, "{} = {}", written::key(key), value_of(value));
            }
        }
        text
    }
}

/// A call that was answered; what the record has besides is none.
fn call(call: &CallView) -> Option<Call<'_>> {
    let answer = match call.answer.as_ref()? {
        Json::Object(fields) if fields.contains_key("ok") => Ok(fields["ok"].clone()),
        // One that is to be made again has no answer.
        other => {
            let error = [&other["error"], &other["broken_off"]["error"]];
            Err(error.into_iter().find_map(|error| CallError::deserialize(error).ok())?)
        }
    };
    call.import.is_call().then_some(Call { import: &call.import, arguments: &call.arguments, answer })
}

/// A field of the payload that a test has to say by itself; null is as good as not there.
fn extra((key, value): (&String, &Json)) -> Option<(String, Json)> {
    (!MADE.contains(&key.as_str()) && !value.is_null()).then(|| (key.clone(), value.clone()))
}

/// Puts a word in the place of every text whose key sounds like a secret's.
fn redact(value: &mut Json) {
    match value {
        Json::Object(fields) => {
            for (key, value) in fields {
                let key = key.to_lowercase();
                match value {
                    Json::String(text) if SECRET_WORDS.iter().any(|word| key.contains(word)) => {
                        CONCEALED.clone_into(text)
                    }
                    value => redact(value),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn search(text: &mut String, hits: &Json) {
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

fn completion(text: &mut String, answer: &Json) {
    let Ok(Ending { finish_reason, usage }) = Ending::deserialize(answer) else { return };
    _ = writeln!(text, "\n[[completion]]\n{}", said(answer));
    if let Some(reason) = finish_reason {
        _ = writeln!(text, "finish_reason = {}", written::line(&reason));
    }
    if let Some(usage) = usage {
        let (read, wrote) = (usage.prompt_tokens, usage.completion_tokens);
        _ = writeln!(text, "usage = {{ prompt_tokens = {read}, completion_tokens = {wrote} }}");
    }
}

/// What a language model said, as one text or as the pieces it came in.
fn said(answer: &Json) -> String {
    match Vec::<String>::deserialize(&answer["pieces"]) {
        Ok(pieces) if pieces.len() != 1 => format!("pieces = {}", written::value(&json!(pieces))),
        Ok(pieces) => format!("text = {}", written::text(&pieces.concat())),
        Err(_) => format!("text = {}", written::text(answer["text"].as_str().unwrap_or_default())),
    }
}

fn failed(text: &mut String, title: &str, error: &CallError) {
    _ = writeln!(text, "\n{title}\nerror = {}", error_value(error));
}

fn error_value(error: &CallError) -> String {
    let after = match error.kind {
        ErrorKind::RateLimited(Some(after)) => Some(humantime::format_duration(after).to_string()),
        _ => None,
    };
    written::value(&json!({ "kind": error_word(error.kind), "message": error.message, "after": after }))
}

/// An answer as the record has it.
fn verbatim(text: &mut String, call: &Call<'_>) {
    _ = writeln!(text, "\n[[answer]]\ncall = {}", written::line(call.import.as_str()));
    match &call.answer {
        Ok(Json::Null) => {}
        Ok(value) if written::is_writable(value) => _ = writeln!(text, "ok = {}", written::value(value)),
        Ok(value) => _ = writeln!(text, "json = {}", written::text(&value.to_string())),
        Err(error) => _ = writeln!(text, "error = {}", error_value(error)),
    }
}

fn value_of(value: &Json) -> String {
    value.as_str().map_or_else(|| written::value(value), written::text)
}

/// What stood in the key-value store at first, as far as the calls tell, and the calls whose answers it can't tell.
#[derive(Default)]
struct Kept<'d> {
    content: BTreeMap<String, BTreeMap<String, Json>>,
    /// Calls that are answered as they were then.
    verbatim: HashSet<&'d RecordedImport>,
}

impl<'d> Kept<'d> {
    fn of(calls: &[Call<'d>]) -> Self {
        let mut kept = Self::default();
        let mut known = BTreeSet::new();
        for call in calls {
            if !kept.take_in(call, &mut known) {
                kept.verbatim.insert(call.import);
            }
        }
        kept
    }

    /// Whether a test answers a call like this by itself, now that this is known.
    fn take_in(&mut self, call: &Call<'d>, known: &mut BTreeSet<(String, String)>) -> bool {
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
            // The user's own message is there by itself; the rest of the chat isn't.
            Some(Import::MessagesHistory) => false,
            _ => matches!(interface, "search" | "completion" | "messages" | "message-log"),
        }
    }
}
