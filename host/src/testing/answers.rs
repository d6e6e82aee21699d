//! What a test answers: hits, completions, the chat so far, values that are kept, and the answer to any call at all.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::likeness::{Likeness, Plain};
use crate::config::nearest;
use crate::config::table::{Table, Value, to_json};
use crate::journal::Call;
use crate::keyvalue;
use crate::platform::{Completion, ErrorKind, Hit, Message, PlatformError, Role, Usage};

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

/// What HTTP requests of a module's own are recorded as.
pub(super) const HTTP: &str = "wasi:http.handle";

/// The calls a module can make, as the record names them; those of `wasi:http` stand beside them.
const CALLS: [&str; 20] = [
    "search.search",
    "completion.complete",
    "completion.complete-into-reply",
    "completion.stream",
    "messages.reply",
    "messages.show",
    "messages.create",
    "messages.modify",
    "messages.history",
    "message-log.entry.create",
    "message-log.entry.update",
    "keyvalue.get",
    "keyvalue.get-many",
    "keyvalue.exists",
    "keyvalue.list-keys",
    "keyvalue.set",
    "keyvalue.delete",
    "keyvalue.increment",
    "keyvalue.swap",
    "wasi:clocks",
];

/// What the names of these calls begin with is not known one by one.
const OPEN: [&str; 2] = ["wasi:http", "keyvalue."];

/// Everything a test answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// To searches, in order.
    pub search: Vec<Scripted<Vec<Hit>>>,
    /// To requests to a language model, in order.
    pub completion: Vec<Scripted<Completion>>,
    /// The messages of the chat before the event's own.
    pub history: Vec<Message>,
    /// What stands in the key-value store at first, by bucket and key.
    pub keyvalue: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// To any calls, by their names, each once and before everything else.
    pub calls: Vec<Call>,
}

/// An answer, and to what it is given.
#[derive(Clone, Debug)]
pub(super) struct Scripted<T> {
    /// Only to what is asked like this.
    pub only: Option<Likeness>,
    /// As often as is asked, rather than once.
    pub always: bool,
    /// The answer.
    pub answer: Result<T, PlatformError>,
}

impl Answers {
    /// Reads them from the tables of a test file.
    pub fn read(root: &Table<'_>) -> Self {
        let tables = |key, title| root.get(key).map(|value| value.tables(title)).unwrap_or_default();
        let history = tables("history", "[[history]]");
        let mut answers = Self {
            search: tables("search", "[[search]]").into_iter().map(search).collect(),
            completion: tables("completion", "[[completion]]").into_iter().map(completion).collect(),
            history: history.into_iter().enumerate().map(|(place, table)| message(place, table)).collect(),
            keyvalue: root.get("keyvalue").and_then(|value| keyvalue(&value)).unwrap_or_default(),
            calls: Vec::new(),
        };
        for table in tables("answer", "[[answer]]") {
            answers.calls.extend(call(answers.calls.len(), table));
        }
        for table in tables("http", "[[http]]") {
            answers.calls.extend(http(answers.calls.len(), table));
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

fn completion(table: Table<'_>) -> Scripted<Completion> {
    let is_error = table.get("error").is_some();
    let text = if is_error { table.get("text") } else { table.require("text", "\"…\"") };
    let text = text.and_then(|value| value.any_text()).unwrap_or_default().to_owned();
    let finish_reason = table.get("finish_reason").and_then(|value| value.text()).map(str::to_owned);
    let usage = table.get("usage").and_then(|value| value.table("[completion.usage]")).map(|table| {
        let tokens = |key| table.get(key).and_then(|value| integer(&value)).unwrap_or_default();
        let usage = Usage { prompt_tokens: tokens("prompt_tokens"), completion_tokens: tokens("completion_tokens") };
        table.finish();
        usage
    });
    scripted(table, |_| Completion { text, finish_reason, usage })
}

/// The rest of a table with an answer: to what, how often, and whether it is an error.
fn scripted<T>(table: Table<'_>, answer: impl FnOnce(&Table<'_>) -> T) -> Scripted<T> {
    let only = table.get("for").and_then(|value| Likeness::read(&value, Plain::Part));
    let always = table.get("always").and_then(|value| value.flag()).unwrap_or(false);
    let error = table.get("error").and_then(|value| error(&value));
    let answer = match error {
        Some(error) => Err(error),
        None => Ok(answer(&table)),
    };
    table.finish();
    Scripted { only, always, answer }
}

/// An error: its kind, or a table with kind, message, and when to come back.
fn error(value: &Value<'_>) -> Option<PlatformError> {
    if !value.is_table() {
        let kind = kind(value)?;
        return Some(PlatformError::new(kind, "as the test says"));
    }
    let table = value.table("this error")?;
    let kind = table.require("kind", "\"unavailable\"").and_then(|value| kind(&value));
    let message = table.get("message").and_then(|value| value.any_text()).unwrap_or("as the test says");
    let after: Option<Duration> = table.get("after").and_then(|value| value.duration_or_zero());
    table.finish();
    match (kind?, after) {
        (ErrorKind::RateLimited(_), after) => Some(PlatformError::new(ErrorKind::RateLimited(after), message)),
        (kind, _) => Some(PlatformError::new(kind, message)),
    }
}

fn kind(value: &Value<'_>) -> Option<ErrorKind> {
    let text = value.text()?;
    let known = ERRORS.iter().find(|(word, _)| *word == text);
    if known.is_none() {
        value.wrong(format!("there is no error \"{text}\""), nearest::advice(text, &ERRORS.map(|(word, _)| word)));
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
            value.wrong(format!("there is no role \"{text}\""), nearest::advice(text, &ROLES.map(|(word, _)| word)));
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

/// `[[http]]`: the answer to an HTTP request of the module's own.
fn http(place: usize, table: Table<'_>) -> Option<Call> {
    let error = table.get("error").map(|value| error(&value));
    let status: u16 = table.get("status").and_then(|value| value.count()).unwrap_or(200);
    let body = table.get("body").and_then(|value| value.any_text()).unwrap_or_default();
    let mut headers = Vec::new();
    if let Some(given) = table.get("headers").and_then(|value| value.table("[http.headers]")) {
        for (name, value) in given.entries() {
            match to_json(value.get_ref()) {
                Ok(Json::String(text)) => headers.push(json!([name.to_lowercase(), text])),
                _ => given.document.report(value.span(), format!("`{name}` should be text"), "write it in quotes"),
            }
        }
    }
    table.finish();
    let answer = match error {
        Some(error) => json!({ "error": error? }),
        None => json!({ "ok": { "status": status, "headers": headers, "body": body } }),
    };
    recorded(place, HTTP.to_owned(), &answer)
}

/// An answer as a record has it, given to the next call of this name whatever its arguments.
fn recorded(place: usize, import: String, answer: &Json) -> Option<Call> {
    Some(Call {
        number: u32::try_from(place).ok()?,
        import,
        arguments: b"null".to_vec(),
        answer: serde_json::to_vec(answer).ok(),
        at: SystemTime::UNIX_EPOCH,
    })
}

/// The name of a call, as the record has it.
pub(super) fn call_name(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    if !CALLS.contains(&name) && !OPEN.iter().any(|open| name.starts_with(open)) {
        value.wrong(format!("there is no call \"{name}\""), nearest::advice(name, &CALLS));
        return None;
    }
    Some(name.to_owned())
}
