//! The answers of a test: search hits, completions, the chat history, stored values, and results of arbitrary calls.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::http;
use super::matcher::{BareText, Matcher};
use modhost_config::table::{Table, Value, to_json};
use modhost_core::import::{Import, RecordedImport};
use modhost_core::suggest;
use modhost_platform::{CallError, Completion, ErrorKind, Hit, Message, Role, Usage};
use modhost_storage::journal::Call;
use modhost_storage::keyvalue;

/// The errors that a test can return.
const ERRORS: [(&str, ErrorKind); 7] = [
    ("invalid", ErrorKind::Invalid),
    ("denied", ErrorKind::Denied),
    ("not-found", ErrorKind::NotFound),
    ("rate-limited", ErrorKind::RateLimited(None)),
    ("unavailable", ErrorKind::Unavailable),
    ("timeout", ErrorKind::Timeout),
    ("unsupported", ErrorKind::Unsupported),
];

/// Prefixes of calls whose names are accepted even if this version does not know them.
const CALL_PREFIXES: [&str; 2] = ["wasi:http", "keyvalue."];

impl<T: Clone> ScriptedAnswer<T> {
    /// Returns the next answer whose condition is true, and removes it unless it repeats.
    pub fn next_match(answers: &mut Vec<Self>, is_true: impl Fn(&Matcher) -> bool) -> Option<Result<T, CallError>> {
        let index = answers.iter().position(|scripted| scripted.condition.as_ref().is_none_or(&is_true))?;
        if answers[index].repeats {
            return Some(answers[index].answer.clone());
        }
        Some(answers.remove(index).answer)
    }
}

/// All answers of a test.
#[derive(Debug, Default)]
pub(super) struct ScriptedAnswers {
    /// Results of searches, in order.
    pub search: Vec<ScriptedAnswer<Vec<Hit>>>,
    /// Results of completions, in order.
    pub completion: Vec<ScriptedAnswer<ScriptedCompletion>>,
    /// Responses to HTTP requests, in order, in the format of the call log.
    pub http: Vec<ScriptedAnswer<Json>>,
    /// The messages of the chat before that of the event.
    pub history: Vec<Message>,
    /// The initial content of the key-value store, by bucket and key.
    pub keyvalue: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Results of arbitrary calls by name. Each is used once, before all other answers.
    pub calls: Vec<Call>,
}

/// A completion, as a whole and in pieces.
#[derive(Clone, Debug)]
pub(super) struct ScriptedCompletion {
    /// The pieces of a streamed completion.
    pub pieces: Vec<String>,
    /// The complete text, and how it ended.
    pub whole: Completion,
    /// The error after the last piece.
    pub stream_error: Option<CallError>,
}

/// An answer and its condition.
#[derive(Clone, Debug)]
pub(super) struct ScriptedAnswer<T> {
    /// Which requests it answers; all if `None`.
    pub condition: Option<Matcher>,
    /// Whether it answers every request, instead of one.
    pub repeats: bool,
    /// The answer.
    pub answer: Result<T, CallError>,
}

impl ScriptedAnswers {
    /// Reads the answers from the tables of a test file.
    pub fn read(root: &Table<'_>) -> Self {
        let tables = |key, title| root.get(key).map(|value| value.tables(title)).unwrap_or_default();
        let history = tables("history", "[[history]]");
        let mut answers = Self {
            search: tables("search", "[[search]]").into_iter().map(search).collect(),
            completion: tables("completion", "[[completion]]").into_iter().map(completion).collect(),
            http: tables("http", "[[http]]").into_iter().map(http::read).collect(),
            history: history.into_iter().enumerate().map(|(index, table)| message(index, table)).collect(),
            keyvalue: root.get("keyvalue").and_then(|value| keyvalue(&value)).unwrap_or_default(),
            calls: Vec::new(),
        };
        for table in tables("answer", "[[answer]]") {
            answers.calls.extend(call(answers.calls.len(), table));
        }
        answers
    }
}

fn search(table: Table<'_>) -> ScriptedAnswer<Vec<Hit>> {
    let hits = table.get("hits").map(|value| value.tables("[[search.hits]]")).unwrap_or_default();
    let hits = hits.into_iter().enumerate().map(|(index, table)| hit(index, table)).collect();
    scripted(table, |_| hits)
}

fn hit(index: usize, table: Table<'_>) -> Hit {
    let text = |key| table.get(key).and_then(|value| value.any_text().map(str::to_owned));
    let page = |key| table.get(key).and_then(|value| integer(&value));
    let hit = Hit {
        id: text("id").unwrap_or_else(|| format!("cont_{}", index + 1)),
        chunk_id: text("chunk_id").unwrap_or_else(|| format!("chunk_{}", index + 1)),
        text: table.require("text", "\"…\"").and_then(|value| value.any_text()).unwrap_or_default().to_owned(),
        title: text("title"),
        key: text("key"),
        url: text("url"),
        order: table.get("order").and_then(|value| integer(&value)).unwrap_or_default(),
        start_page: page("start_page"),
        end_page: page("end_page"),
        metadata: table.get("metadata").and_then(|value| value.json()),
    };
    table.finish();
    hit
}

fn integer<T: TryFrom<i64>>(value: &Value<'_>) -> Option<T> {
    let number = value.json()?.as_i64().and_then(|number| T::try_from(number).ok());
    if number.is_none() {
        value.reject(format!("`{}` must be an integer in range", value.key), "write it without quotes");
    }
    number
}

fn completion(table: Table<'_>) -> ScriptedAnswer<ScriptedCompletion> {
    let error = table.get("error");
    let pieces = table.get("pieces");
    let text = if error.is_some() || pieces.is_some() { table.get("text") } else { table.require("text", "\"…\"") };
    if let (Some(_), Some(pieces)) = (&text, &pieces) {
        pieces.reject("this answer has both `text` and `pieces`", "remove one of the two");
    }
    let pieces: Vec<String> = match pieces {
        Some(pieces) => {
            pieces.list().unwrap_or_default().iter().filter_map(|it| it.any_text().map(str::to_owned)).collect()
        }
        None => text.iter().filter_map(|text| text.any_text().map(str::to_owned)).collect(),
    };
    let finish_reason = table.get("finish_reason").and_then(|value| value.text()).map(str::to_owned);
    let usage = table.get("usage").and_then(|value| value.table("[completion.usage]")).map(|table| {
        let tokens = |key| table.get(key).and_then(|value| integer(&value)).unwrap_or_default();
        let usage = Usage { prompt_tokens: tokens("prompt_tokens"), completion_tokens: tokens("completion_tokens") };
        table.finish();
        usage
    });
    let (condition, repeats) = condition(&table);
    let error = error.and_then(|value| self::error(&value));
    table.finish();
    let answer = match error {
        Some(error) if pieces.is_empty() => Err(error),
        stream_error => {
            let whole = Completion { text: pieces.concat(), finish_reason, usage };
            Ok(ScriptedCompletion { pieces, whole, stream_error })
        }
    };
    ScriptedAnswer { condition, repeats, answer }
}

/// Reads which requests an answer applies to, and whether it repeats.
fn condition(table: &Table<'_>) -> (Option<Matcher>, bool) {
    let condition = table.get("for").and_then(|value| Matcher::read(&value, BareText::Part));
    (condition, table.get("always").and_then(|value| value.flag()).unwrap_or(false))
}

/// Reads the keys that all answers share: the condition, whether it repeats, and the error.
pub(super) fn scripted<T>(table: Table<'_>, answer: impl FnOnce(&Table<'_>) -> T) -> ScriptedAnswer<T> {
    let (condition, repeats) = condition(&table);
    let error = table.get("error").and_then(|value| error(&value));
    let answer = match error {
        Some(error) => Err(error),
        None => Ok(answer(&table)),
    };
    table.finish();
    ScriptedAnswer { condition, repeats, answer }
}

/// Reads an error: its kind, or a table with kind, message, and retry delay.
fn error(value: &Value<'_>) -> Option<CallError> {
    if !value.is_table() {
        let kind = kind(value)?;
        return Some(CallError::new(kind, "error of the test"));
    }
    let table = value.table("this error")?;
    let kind = table.require("kind", "\"unavailable\"").and_then(|value| kind(&value));
    let message = table.get("message").and_then(|value| value.any_text()).unwrap_or("error of the test");
    let after: Option<Duration> = table.get("after").and_then(|value| value.duration_or_zero());
    table.finish();
    match (kind?, after) {
        (ErrorKind::RateLimited(_), after) => Some(CallError::new(ErrorKind::RateLimited(after), message)),
        (kind, _) => Some(CallError::new(kind, message)),
    }
}

fn kind(value: &Value<'_>) -> Option<ErrorKind> {
    let text = value.text()?;
    let known = ERRORS.iter().find(|(word, _)| *word == text);
    if known.is_none() {
        value.reject(format!("unknown error \"{text}\""), suggest::advice(text, &ERRORS.map(|(word, _)| word)));
    }
    known.map(|(_, kind)| *kind)
}

/// Returns the name of a kind of error in test files.
pub fn error_name(kind: ErrorKind) -> &'static str {
    let same = |known: &ErrorKind| std::mem::discriminant(known) == std::mem::discriminant(&kind);
    ERRORS.iter().find(|(_, known)| same(known)).map_or("unavailable", |(word, _)| word)
}

fn message(index: usize, table: Table<'_>) -> Message {
    let text = |key| table.get(key).and_then(|value| value.any_text().map(str::to_owned));
    const ROLES: [(&str, Role); 3] = [("system", Role::System), ("user", Role::User), ("assistant", Role::Assistant)];
    let role = table.require("role", "\"user\"").and_then(|value| {
        let text = value.text()?;
        let role = ROLES.iter().find(|(word, _)| *word == text);
        if role.is_none() {
            value.reject(format!("unknown role \"{text}\""), suggest::advice(text, &ROLES.map(|(word, _)| word)));
        }
        role.map(|(_, role)| *role)
    });
    let message = Message {
        id: text("id").unwrap_or_else(|| format!("msg_before_{}", index + 1)),
        role: role.unwrap_or(Role::User),
        text: text("text"),
        references: Vec::new(),
        created_at: text("created_at"),
    };
    table.finish();
    message
}

/// Reads the content of the key-value store: `[keyvalue.BUCKET]`. Text is stored unchanged, `{ hex = "…" }` as bytes, other values as
/// JSON.
fn keyvalue(value: &Value<'_>) -> Option<BTreeMap<String, BTreeMap<String, Vec<u8>>>> {
    const ADVICE: &str = "write [keyvalue.BUCKET] with a line for each key; the bucket without a name is `default`";
    let table = value.table("[keyvalue]")?;
    let mut buckets = BTreeMap::new();
    for (name, bucket) in table.entries() {
        match to_json(bucket.get_ref()) {
            Ok(Json::Object(entries)) => {
                let entries = entries.into_iter().map(|(key, value)| (key, bytes(value))).collect();
                buckets.insert(name.to_owned(), entries);
            }
            _ => table.document.report(bucket.span(), format!("`{name}` in [keyvalue] is not a bucket"), ADVICE),
        }
    }
    Some(buckets)
}

fn bytes(value: Json) -> Vec<u8> {
    match serde_json::from_value::<keyvalue::Value>(value.clone()) {
        Ok(keyvalue::Value(bytes)) => bytes,
        Err(_) => value.to_string().into_bytes(),
    }
}

/// Reads `[[answer]]`: the result of a call by name, in the format of the call log.
fn call(index: usize, table: Table<'_>) -> Option<Call> {
    let import = table.require("call", "\"messages.reply\"").and_then(|value| call_name(&value));
    let error = table.get("error").map(|value| error(&value));
    let ok = table.get("ok");
    let json = table.get("json");
    if let (Some(_), Some(both)) = (&error, ok.as_ref().or(json.as_ref())) {
        both.reject("this answer has both an error and a result", "remove one of the two");
    }
    let json = json.and_then(|value| {
        let text = value.text()?;
        let read = serde_json::from_str::<Json>(text);
        if let Err(error) = &read {
            value.reject(format!("`json` is not valid JSON: {error}"), "write the answer as JSON between ''' and '''");
        }
        read.ok()
    });
    let ok = ok.and_then(|value| value.json()).or(json).unwrap_or(Json::Null);
    table.finish();
    let answer = match error {
        Some(error) => json!({ "error": error? }),
        None => json!({ "ok": ok }),
    };
    recorded_call(index, import?, &answer)
}

/// Returns a call log entry that answers the next call of this name, whatever its arguments.
fn recorded_call(index: usize, import: RecordedImport, answer: &Json) -> Option<Call> {
    Some(Call {
        number: u32::try_from(index).ok()?,
        import,
        arguments: b"null".to_vec(),
        answer: serde_json::to_vec(answer).ok(),
        at: SystemTime::UNIX_EPOCH,
    })
}

/// Reads the name of a call, as in the call log.
pub(super) fn call_name(value: &Value<'_>) -> Option<RecordedImport> {
    let name = value.text()?;
    let import = RecordedImport::from(name);
    let is_known = import.known().is_some_and(|import| import != Import::KeptAside);
    if !is_known && !CALL_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        let known = Import::ALL.into_iter().filter(|import| *import != Import::KeptAside);
        let known: Vec<_> = known.map(Import::as_str).collect();
        value.reject(format!("unknown call \"{name}\""), suggest::advice(name, &known));
        return None;
    }
    Some(import)
}
