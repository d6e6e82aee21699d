//! What a test answers: hits, completions, the chat so far, values that are kept, and the answer to any call at all.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::http;
use super::matcher::{Matcher, Plain};
use modhost_config::table::{Table, Value, to_json};
use modhost_core::import::{Import, RecordedImport};
use modhost_core::suggest;
use modhost_platform::{CallError, Completion, ErrorKind, Hit, Message, Role, Usage};
use modhost_storage::journal::Call;
use modhost_storage::keyvalue;

/// The errors a test can answer with.
const ERRORS: [(&str, ErrorKind); 7] = [
    ("invalid", ErrorKind::Invalid),
    ("denied", ErrorKind::Denied),
    ("not-found", ErrorKind::NotFound),
    ("rate-limited", ErrorKind::RateLimited(None)),
    ("unavailable", ErrorKind::Unavailable),
    ("timeout", ErrorKind::Timeout),
    ("unsupported", ErrorKind::Unsupported),
];

/// Names of calls that begin like this are accepted, whether or not this version knows them.
const OPEN: [&str; 2] = ["wasi:http", "keyvalue."];

impl<T: Clone> Scripted<T> {
    /// The next of these answers that is given to this.
    pub fn take(answers: &mut Vec<Self>, fits: impl Fn(&Matcher) -> bool) -> Option<Result<T, CallError>> {
        let place = answers.iter().position(|scripted| scripted.only.as_ref().is_none_or(&fits))?;
        if answers[place].always {
            return Some(answers[place].answer.clone());
        }
        Some(answers.remove(place).answer)
    }
}

/// Everything a test answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// To searches, in order.
    pub search: Vec<Scripted<Vec<Hit>>>,
    /// To requests to a language model, in order.
    pub completion: Vec<Scripted<Spoken>>,
    /// To HTTP requests of the module's own, in order, in the form the record has them.
    pub http: Vec<Scripted<Json>>,
    /// The messages of the chat before the event's own.
    pub history: Vec<Message>,
    /// What stands in the key-value store at first, by bucket and key.
    pub keyvalue: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// To any calls, by their names, each once and before everything else.
    pub calls: Vec<Call>,
}

/// What a language model says, whole or piece by piece.
#[derive(Clone, Debug)]
pub(super) struct Spoken {
    /// The pieces it comes in, for who reads it so.
    pub pieces: Vec<String>,
    /// All of it, and how it ended.
    pub whole: Completion,
    /// What breaks it off after the last piece.
    pub broken_off: Option<CallError>,
}

/// An answer, and to what it is given.
#[derive(Clone, Debug)]
pub(super) struct Scripted<T> {
    /// Only to what is asked like this.
    pub only: Option<Matcher>,
    /// As often as is asked, rather than once.
    pub always: bool,
    /// The answer.
    pub answer: Result<T, CallError>,
}

impl Answers {
    /// Reads them from the tables of a test file.
    pub fn read(root: &Table<'_>) -> Self {
        let tables = |key, title| root.get(key).map(|value| value.tables(title)).unwrap_or_default();
        let history = tables("history", "[[history]]");
        let mut answers = Self {
            search: tables("search", "[[search]]").into_iter().map(search).collect(),
            completion: tables("completion", "[[completion]]").into_iter().map(completion).collect(),
            http: tables("http", "[[http]]").into_iter().map(http::read).collect(),
            history: history.into_iter().enumerate().map(|(place, table)| message(place, table)).collect(),
            keyvalue: root.get("keyvalue").and_then(|value| keyvalue(&value)).unwrap_or_default(),
            calls: Vec::new(),
        };
        for table in tables("answer", "[[answer]]") {
            answers.calls.extend(call(answers.calls.len(), table));
        }
        answers
    }
}

fn search(table: Table<'_>) -> Scripted<Vec<Hit>> {
    let hits = table.get("hits").map(|value| value.tables("[[search.hits]]")).unwrap_or_default();
    let hits = hits.into_iter().enumerate().map(|(place, table)| hit(place, table)).collect();
    scripted(table, |_| hits)
}

fn hit(place: usize, table: Table<'_>) -> Hit {
    let text = |key| table.get(key).and_then(|value| value.any_text().map(str::to_owned));
    let page = |key| table.get(key).and_then(|value| integer(&value));
    let hit = Hit {
        id: text("id").unwrap_or_else(|| format!("cont_{}", place + 1)),
        chunk_id: text("chunk_id").unwrap_or_else(|| format!("chunk_{}", place + 1)),
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
        value.wrong(format!("`{}` should be a whole number that fits", value.key), "write it without quotes");
    }
    number
}

fn completion(table: Table<'_>) -> Scripted<Spoken> {
    let error = table.get("error");
    let pieces = table.get("pieces");
    let text = if error.is_some() || pieces.is_some() { table.get("text") } else { table.require("text", "\"…\"") };
    if let (Some(_), Some(pieces)) = (&text, &pieces) {
        pieces.wrong("this answer has a text, and pieces besides", "remove one of the two");
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
    let (only, always) = given(&table);
    let error = error.and_then(|value| self::error(&value));
    table.finish();
    let answer = match error {
        Some(error) if pieces.is_empty() => Err(error),
        broken_off => {
            let whole = Completion { text: pieces.concat(), finish_reason, usage };
            Ok(Spoken { pieces, whole, broken_off })
        }
    };
    Scripted { only, always, answer }
}

/// To what an answer is given, and how often.
fn given(table: &Table<'_>) -> (Option<Matcher>, bool) {
    let only = table.get("for").and_then(|value| Matcher::read(&value, Plain::Part));
    (only, table.get("always").and_then(|value| value.flag()).unwrap_or(false))
}

/// The rest of a table with an answer: to what, how often, and whether it is an error.
pub(super) fn scripted<T>(table: Table<'_>, answer: impl FnOnce(&Table<'_>) -> T) -> Scripted<T> {
    let (only, always) = given(&table);
    let error = table.get("error").and_then(|value| error(&value));
    let answer = match error {
        Some(error) => Err(error),
        None => Ok(answer(&table)),
    };
    table.finish();
    Scripted { only, always, answer }
}

/// An error: its kind, or a table with kind, message, and when to come back.
fn error(value: &Value<'_>) -> Option<CallError> {
    if !value.is_table() {
        let kind = kind(value)?;
        return Some(CallError::new(kind, "as the test says"));
    }
    let table = value.table("this error")?;
    let kind = table.require("kind", "\"unavailable\"").and_then(|value| kind(&value));
    let message = table.get("message").and_then(|value| value.any_text()).unwrap_or("as the test says");
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
        value.wrong(format!("there is no error \"{text}\""), suggest::advice(text, &ERRORS.map(|(word, _)| word)));
    }
    known.map(|(_, kind)| *kind)
}

/// The word for a kind of error.
pub fn error_word(kind: ErrorKind) -> &'static str {
    let same = |known: &ErrorKind| std::mem::discriminant(known) == std::mem::discriminant(&kind);
    ERRORS.iter().find(|(_, known)| same(known)).map_or("unavailable", |(word, _)| word)
}

fn message(place: usize, table: Table<'_>) -> Message {
    let text = |key| table.get(key).and_then(|value| value.any_text().map(str::to_owned));
    const ROLES: [(&str, Role); 3] = [("system", Role::System), ("user", Role::User), ("assistant", Role::Assistant)];
    let role = table.require("role", "\"user\"").and_then(|value| {
        let text = value.text()?;
        let role = ROLES.iter().find(|(word, _)| *word == text);
        if role.is_none() {
            value.wrong(format!("there is no role \"{text}\""), suggest::advice(text, &ROLES.map(|(word, _)| word)));
        }
        role.map(|(_, role)| *role)
    });
    let message = Message {
        id: text("id").unwrap_or_else(|| format!("msg_before_{}", place + 1)),
        role: role.unwrap_or(Role::User),
        text: text("text"),
        references: Vec::new(),
        created_at: text("created_at"),
    };
    table.finish();
    message
}

/// What stands in the key-value store: `[keyvalue.BUCKET]`, text as it is, `{ hex = "…" }` as bytes, all else as JSON.
fn keyvalue(value: &Value<'_>) -> Option<BTreeMap<String, BTreeMap<String, Vec<u8>>>> {
    const ADVICE: &str = "write [keyvalue.BUCKET] with a line for each key; the bucket a module opens without a name is \
                          `default`";
    let table = value.table("[keyvalue]")?;
    let mut buckets = BTreeMap::new();
    for (name, bucket) in table.entries() {
        match to_json(bucket.get_ref()) {
            Ok(Json::Object(entries)) => {
                let entries = entries.into_iter().map(|(key, value)| (key, bytes(value))).collect();
                buckets.insert(name.to_owned(), entries);
            }
            _ => table.document.report(bucket.span(), format!("`{name}` in [keyvalue] is no bucket"), ADVICE),
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

/// `[[answer]]`: the answer to a call by its name, in the form the record has it.
fn call(place: usize, table: Table<'_>) -> Option<Call> {
    let import = table.require("call", "\"messages.reply\"").and_then(|value| call_name(&value));
    let error = table.get("error").map(|value| error(&value));
    let ok = table.get("ok");
    let json = table.get("json");
    if let (Some(_), Some(both)) = (&error, ok.as_ref().or(json.as_ref())) {
        both.wrong("this answer is an error, and something else besides", "remove one of the two");
    }
    let json = json.and_then(|value| {
        let text = value.text()?;
        let read = serde_json::from_str::<Json>(text);
        if let Err(error) = &read {
            value.wrong(format!("`json` is not JSON: {error}"), "write the answer as JSON between ''' and '''");
        }
        read.ok()
    });
    let ok = ok.and_then(|value| value.json()).or(json).unwrap_or(Json::Null);
    table.finish();
    let answer = match error {
        Some(error) => json!({ "error": error? }),
        None => json!({ "ok": ok }),
    };
    recorded(place, import?, &answer)
}

/// An answer as a record has it, given to the next call of this name whatever its arguments.
fn recorded(place: usize, import: RecordedImport, answer: &Json) -> Option<Call> {
    Some(Call {
        number: u32::try_from(place).ok()?,
        import,
        arguments: b"null".to_vec(),
        answer: serde_json::to_vec(answer).ok(),
        at: SystemTime::UNIX_EPOCH,
    })
}

/// The name of a call, as the record has it.
pub(super) fn call_name(value: &Value<'_>) -> Option<RecordedImport> {
    let name = value.text()?;
    let import = RecordedImport::from(name);
    let is_known = import.known().is_some_and(|import| import != Import::KeptAside);
    if !is_known && !OPEN.iter().any(|open| name.starts_with(open)) {
        let known = Import::ALL.into_iter().filter(|import| *import != Import::KeptAside);
        let known: Vec<_> = known.map(Import::as_str).collect();
        value.wrong(format!("there is no call \"{name}\""), suggest::advice(name, &known));
        return None;
    }
    Some(import)
}
