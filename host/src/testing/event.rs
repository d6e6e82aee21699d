//! The event of a test: a user's text, the body of a request as the platform sends it, or its parts.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use modhost_config::table::{Table, Value, to_json};
use modhost_config::{Module, Settings};
use modhost_core::event::interest::{Candidate, Unwanted};
use modhost_core::event::{Event, Header, Name};
use modhost_server::resolved_config::reader;

/// The name of the event that only tells of a user's message.
const USER_MESSAGE_CREATED: &str = "unique.chat.user-message.created";

/// The event, as a test file says it.
#[derive(Debug)]
pub(super) struct Given {
    what: What,
    source: Option<String>,
    user: String,
    company: String,
}

#[derive(Debug)]
enum What {
    /// A user's message in a chat.
    Text(Box<Chat>),
    /// The body of a request.
    Body { headers: HeaderMap, body: Bytes },
    /// The parts that the host makes of a body.
    Parts { id: Option<String>, name: String, payload: String },
}

#[derive(Debug)]
struct Chat {
    text: String,
    original_text: Option<String>,
    language: String,
    configuration: Json,
    chat: String,
    assistant: Option<String>,
    /// Further fields of the payload.
    payload: Map<String, Json>,
}

/// What may only stand beside `text`.
const OF_A_CHAT: [&str; 6] = ["original_text", "language", "configuration", "chat", "assistant", "payload"];

impl Given {
    /// Reads it from the tables of a test file; what is wrong is reported there.
    pub fn read(root: &Table<'_>, file: &Path) -> Option<Self> {
        let own = |key| root.get(key).and_then(|value| value.text().map(str::to_owned));
        let (source, user, company) = (own("source"), own("user"), own("company"));
        let headers = root.get("headers").and_then(|value| headers(&value)).unwrap_or_default();
        let what = match (root.get("text"), root.get("event")) {
            (Some(_), Some(event)) => {
                event.wrong("there is a `text` and an `event`", "a test has one event: remove one of the two");
                None
            }
            (Some(text), None) => chat(root, &text).map(Box::new).map(What::Text),
            (None, Some(event)) => {
                for key in OF_A_CHAT {
                    root.refuse(key, format!("`{key}` goes with `text`"), "the event has it already: remove the line");
                }
                if event.is_table() { parts(&event) } else { body(&event, file, headers) }
            }
            (None, None) => {
                let advice = "begin with what a user writes: text = \"What is our travel policy?\"; or with a file that \
                              holds an event: event = \"event.json\"";
                root.document.report_whole("this test has no event", advice);
                None
            }
        };
        let user = user.unwrap_or_else(|| "user_1".to_owned());
        Some(Self { what: what?, source, user, company: company.unwrap_or_else(|| "company_1".to_owned()) })
    }

    /// The event as a module gets it.
    ///
    /// # Errors
    ///
    /// When no source can read it, or the module doesn't want it.
    pub fn event(&self, module: &Module, settings: &Settings, time: SystemTime) -> anyhow::Result<Event> {
        let event = match &self.what {
            What::Body { headers, body } => read(self.source.as_deref(), settings, headers, body)?,
            What::Parts { id, name, payload } => self.made(module, settings, time, id.as_deref(), name, payload),
            What::Text(chat) => {
                let chooses = module.wants.events.iter().any(|pattern| pattern.matches(Event::MODULE_CHOSEN));
                let name = if chooses { Event::MODULE_CHOSEN } else { USER_MESSAGE_CREATED };
                self.made(module, settings, time, None, name, &chat.payload(module, chooses, time).to_string())
            }
        };
        module.wants.judge(&module.name, &Candidate::new(&event)).map_err(|why| unwanted(&why, &event, module))?;
        Ok(event)
    }

    fn made(
        &self,
        module: &Module,
        settings: &Settings,
        time: SystemTime,
        id: Option<&str>,
        name: &str,
        payload: &str,
    ) -> Event {
        let first_source = || settings.sources.first().map(|source| source.name.clone());
        let first_tenant = || settings.tenants.first().map(|tenant| tenant.name.clone());
        let source = self.source.as_deref().map(Name::from).or_else(|| module.wants.sources.first().cloned());
        let tenant = module.wants.tenants.first().cloned().or_else(first_tenant);
        let header = Header {
            id: id.unwrap_or("evt_test").to_owned(),
            source: source.or_else(first_source).unwrap_or_else(|| "test".into()),
            name: name.to_owned(),
            tenant: tenant.unwrap_or_else(|| "test".into()),
            user_id: Some(self.user.clone()),
            company_id: Some(self.company.clone()),
            created_at: time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs()),
        };
        let payload = Bytes::from(payload.to_owned());
        let whole = 0..payload.len();
        Event::new(header, payload, whole)
    }
}

impl Chat {
    fn payload(&self, module: &Module, chooses: bool, time: SystemTime) -> Json {
        let at = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
        let assistant = self.assistant.clone().or_else(|| module.wants.assistants.first().cloned());
        let assistant = assistant.unwrap_or_else(|| "assistant_1".to_owned());
        let mut payload = match chooses {
            true => json!({
                "name": module.name,
                "description": module.name,
                "configuration": self.configuration,
                "chatId": self.chat,
                "assistantId": assistant,
                "text": self.text,
                "userMessage": {
                    "id": "msg_user",
                    "text": self.text,
                    "originalText": self.original_text.as_ref().unwrap_or(&self.text),
                    "createdAt": at,
                    "language": self.language,
                },
                "assistantMessage": { "id": "msg_reply", "createdAt": at },
            }),
            false => json!({ "chatId": self.chat, "assistantId": assistant, "text": self.text }),
        };
        if let Json::Object(fields) = &mut payload {
            fields.extend(self.payload.clone());
        }
        payload
    }
}

fn chat(root: &Table<'_>, text: &Value<'_>) -> Option<Chat> {
    root.refuse("headers", "`headers` go with the body of a request", "remove them: a text needs none");
    let own = |key| root.get(key).and_then(|value| value.any_text().map(str::to_owned));
    let object = |key, title| {
        let table = root.get(key).filter(|value| value.table(title).is_some());
        table.and_then(|value| value.json())
    };
    let payload = object("payload", "[payload]");
    Some(Chat {
        text: text.any_text()?.to_owned(),
        original_text: own("original_text"),
        language: own("language").unwrap_or_else(|| "en".to_owned()),
        configuration: object("configuration", "[configuration]").unwrap_or_else(|| json!({})),
        chat: own("chat").unwrap_or_else(|| "chat_1".to_owned()),
        assistant: own("assistant"),
        payload: payload.and_then(|payload| payload.as_object().cloned()).unwrap_or_default(),
    })
}

/// `event = "file.json"`, or the JSON itself.
fn body(value: &Value<'_>, file: &Path, headers: HeaderMap) -> Option<What> {
    let text = value.text()?;
    if text.trim_start().starts_with('{') {
        return Some(What::Body { headers, body: text.to_owned().into() });
    }
    let path = file.with_file_name("").join(text);
    match std::fs::read(&path) {
        Ok(body) => Some(What::Body { headers, body: body.into() }),
        Err(error) => {
            let advice =
                "name a file beside this one that holds the body of a request, or write [event] with name and payload";
            value.wrong(format!("{} can't be read: {error}", path.display()), advice);
            None
        }
    }
}

/// `[event]` with what the host makes of a request.
fn parts(value: &Value<'_>) -> Option<What> {
    let table = value.table("[event]")?;
    let text = |key| table.get(key).and_then(|value| value.text().map(str::to_owned));
    let name = table.require("name", "\"document.processed\"").and_then(|value| value.text()).map(str::to_owned);
    let id = text("id");
    let payload = match table.get("payload") {
        None => Some("{}".to_owned()),
        Some(value) if value.is_text() => value.text().and_then(|text| {
            let read = serde_json::from_str::<serde::de::IgnoredAny>(text);
            if let Err(error) = &read {
                value.wrong(format!("`payload` is not JSON: {error}"), "write it as JSON, or as a table");
            }
            read.is_ok().then(|| text.to_owned())
        }),
        Some(value) => value.json().map(|json| json.to_string()),
    };
    table.finish();
    Some(What::Parts { id, name: name?, payload: payload? })
}

fn headers(value: &Value<'_>) -> Option<HeaderMap> {
    let table = value.table("[headers]")?;
    let mut headers = HeaderMap::new();
    for (name, value) in table.entries() {
        let text = to_json(value.get_ref()).ok().and_then(|json| json.as_str().map(str::to_owned));
        let header = name.parse::<HeaderName>().ok().zip(text.and_then(|text| HeaderValue::from_str(&text).ok()));
        match header {
            Some((name, value)) => drop(headers.insert(name, value)),
            None => {
                let advice = "write it as \"X-GitHub-Event\" = \"push\"";
                table.document.report(value.span(), format!("`{name}` can't be a header"), advice);
            }
        }
    }
    Some(headers)
}

/// Reads a body as the source would that brings it.
fn read(source: Option<&str>, settings: &Settings, headers: &HeaderMap, body: &Bytes) -> anyhow::Result<Event> {
    let named = settings.sources.iter().filter(|it| source.is_none_or(|name| it.name.as_str() == name));
    let mut problems = Vec::new();
    for source in named {
        match reader(source, settings)?.read(headers, body) {
            Ok(event) => return Ok(event),
            Err(problem) => problems.push(format!("as source \"{}\": {problem}", source.name)),
        }
    }
    match (source, problems.is_empty()) {
        (Some(name), true) => bail!(settings.no_source(name)),
        (None, true) => bail!(
            "there is no [[source]] in {} that could bring this event; write [event] with name and payload instead",
            settings.file.display()
        ),
        _ => Err(anyhow!(problems.join("; "))).context("the event can't be read"),
    }
}

fn unwanted(why: &Unwanted, event: &Event, module: &Module) -> anyhow::Error {
    let why = match why {
        Unwanted::Name => {
            let wanted: Vec<_> = module.wants.events.iter().map(ToString::to_string).collect();
            format!("it is called `{}`, and `events` has {}", event.name, wanted.join(", "))
        }
        Unwanted::ForAnother(other) => format!("it chose {other}"),
        Unwanted::ForNobody => "it chose a module, and can't be read which".to_owned(),
        Unwanted::Source => format!("it comes from the source {}, and `sources` has others", event.source),
        Unwanted::Tenant => format!("it is of the tenant {}, and `tenants` has others", event.tenant),
        Unwanted::Assistant => "`assistants` has others than its own".to_owned(),
        Unwanted::Field(path, found) => {
            format!("`match` wants another {path} than {}", found.as_deref().unwrap_or("none"))
        }
    };
    anyhow!("{} would not get this event: {why} ([[module]] at {})", module.name, module.place)
}
