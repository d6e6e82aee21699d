//! The event of a test: the text of a user's message, the body of a request, or the parts of an event.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use modhost_config::table::{Table, Value, to_json};
use modhost_config::{Module, Settings};
use modhost_core::event::event_filter::{Candidate, Mismatch};
use modhost_core::event::{Event, Header, Name};
use modhost_server::resolved_config::{TenantsOfSources, reader};

/// The name of the event of a user's message for modules that only listen.
const USER_MESSAGE_CREATED: &str = "unique.chat.user-message.created";

/// The event of a test file.
#[derive(Debug)]
pub(super) struct TestEvent {
    content: EventContent,
    source: Option<String>,
    user: String,
    company: String,
}

#[derive(Debug)]
enum EventContent {
    /// A user's message in a chat.
    Text(Box<ChatMessage>),
    /// The body of a request.
    Body { headers: HeaderMap, body: Bytes },
    /// The parts of an event.
    Parts { id: Option<String>, name: String, payload: String },
}

#[derive(Debug)]
struct ChatMessage {
    text: String,
    original_text: Option<String>,
    language: String,
    configuration: Json,
    chat: String,
    assistant: Option<String>,
    /// Additional fields of the payload.
    payload: Map<String, Json>,
}

/// Keys that are only allowed together with `text`.
const CHAT_KEYS: [&str; 6] = ["original_text", "language", "configuration", "chat", "assistant", "payload"];

impl TestEvent {
    /// Reads the event from the tables of a test file, and reports problems to the document.
    pub fn read(root: &Table<'_>, file: &Path) -> Option<Self> {
        let text_of = |key| root.get(key).and_then(|value| value.text().map(str::to_owned));
        let (source, user, company) = (text_of("source"), text_of("user"), text_of("company"));
        let headers = root.get("headers").and_then(|value| headers(&value)).unwrap_or_default();
        let content = match (root.get("text"), root.get("event")) {
            (Some(_), Some(event)) => {
                event.reject("this test has both `text` and `event`", "remove one of the two");
                None
            }
            (Some(text), None) => chat(root, &text).map(Box::new).map(EventContent::Text),
            (None, Some(event)) => {
                for key in CHAT_KEYS {
                    root.reject_key(
                        key,
                        format!("`{key}` requires `text`"),
                        "remove it; the event contains this value",
                    );
                }
                if event.is_table() { parts(&event) } else { body(&event, file, headers) }
            }
            (None, None) => {
                let advice = "add a user's message: text = \"What is our travel policy?\"; or a file with an event: \
                              event = \"event.json\"";
                root.document.report_whole("this test has no event", advice);
                None
            }
        };
        let user = user.unwrap_or_else(|| "user_1".to_owned());
        Some(Self { content: content?, source, user, company: company.unwrap_or_else(|| "company_1".to_owned()) })
    }

    /// Returns the event as the module receives it.
    ///
    /// # Errors
    ///
    /// If no source can read the event, or the module does not receive it.
    pub fn event(&self, module: &Module, settings: &Settings, time: SystemTime) -> anyhow::Result<Event> {
        let event = match &self.content {
            EventContent::Body { headers, body } => read(self.source.as_deref(), settings, headers, body)?,
            EventContent::Parts { id, name, payload } => {
                self.build(module, settings, time, id.as_deref(), name, payload)
            }
            EventContent::Text(chat) => {
                let chooses = module.wants.events.iter().any(|pattern| pattern.matches(Event::MODULE_CHOSEN));
                let name = if chooses { Event::MODULE_CHOSEN } else { USER_MESSAGE_CREATED };
                self.build(module, settings, time, None, name, &chat.payload(module, chooses, time).to_string())
            }
        };
        module
            .wants
            .check(module.id(), &Candidate::new(&event))
            .map_err(|reason| not_received(&reason, &event, module))?;
        Ok(event)
    }

    fn build(
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

impl ChatMessage {
    fn payload(&self, module: &Module, chooses: bool, time: SystemTime) -> Json {
        let at = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
        let assistant = self.assistant.clone().or_else(|| module.wants.assistants.first().cloned());
        let assistant = assistant.unwrap_or_else(|| "assistant_1".to_owned());
        let mut payload = match chooses {
            true => json!({
                "name": module.platform_name(),
                "description": module.platform_name(),
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

fn chat(root: &Table<'_>, text: &Value<'_>) -> Option<ChatMessage> {
    root.reject_key("headers", "`headers` requires `event` with the body of a request", "remove it");
    let text_of = |key| root.get(key).and_then(|value| value.any_text().map(str::to_owned));
    let object = |key, title| {
        let table = root.get(key).filter(|value| value.table(title).is_some());
        table.and_then(|value| value.json())
    };
    let payload = object("payload", "[payload]");
    Some(ChatMessage {
        text: text.any_text()?.to_owned(),
        original_text: text_of("original_text"),
        language: text_of("language").unwrap_or_else(|| "en".to_owned()),
        configuration: object("configuration", "[configuration]").unwrap_or_else(|| json!({})),
        chat: text_of("chat").unwrap_or_else(|| "chat_1".to_owned()),
        assistant: text_of("assistant"),
        payload: payload.and_then(|payload| payload.as_object().cloned()).unwrap_or_default(),
    })
}

/// Reads `event = "file.json"`, or the JSON itself.
fn body(value: &Value<'_>, file: &Path, headers: HeaderMap) -> Option<EventContent> {
    let text = value.text()?;
    if text.trim_start().starts_with('{') {
        return Some(EventContent::Body { headers, body: text.to_owned().into() });
    }
    let path = file.with_file_name("").join(text);
    match std::fs::read(&path) {
        Ok(body) => Some(EventContent::Body { headers, body: body.into() }),
        Err(error) => {
            let advice = "name a file beside this one that contains the body of a request, or write [event] with name and payload";
            value.reject(format!("cannot read {}: {error}", path.display()), advice);
            None
        }
    }
}

/// Reads `[event]` with the parts of an event.
fn parts(value: &Value<'_>) -> Option<EventContent> {
    let table = value.table("[event]")?;
    let text = |key| table.get(key).and_then(|value| value.text().map(str::to_owned));
    let name = table.require("name", "\"document.processed\"").and_then(|value| value.text()).map(str::to_owned);
    let id = text("id");
    let payload = match table.get("payload") {
        None => Some("{}".to_owned()),
        Some(value) if value.is_text() => value.text().and_then(|text| {
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
            if let Err(error) = &parsed {
                value.reject(format!("`payload` is not valid JSON: {error}"), "write it as JSON, or as a table");
            }
            parsed.is_ok().then(|| text.to_owned())
        }),
        Some(value) => value.json().map(|json| json.to_string()),
    };
    table.finish();
    Some(EventContent::Parts { id, name: name?, payload: payload? })
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
                table.document.report(value.span(), format!("`{name}` is not a valid header"), advice);
            }
        }
    }
    Some(headers)
}

/// Reads a body as its source does.
fn read(source: Option<&str>, settings: &Settings, headers: &HeaderMap, body: &Bytes) -> anyhow::Result<Event> {
    let named = settings.sources.iter().filter(|it| source.is_none_or(|name| it.name.as_str() == name));
    let mut problems = Vec::new();
    let tenants = TenantsOfSources::of(settings);
    for source in named {
        match reader(source, &tenants)?.read(headers, body) {
            Ok(event) => return Ok(event),
            Err(problem) => problems.push(format!("as source \"{}\": {problem}", source.name)),
        }
    }
    match (source, problems.is_empty()) {
        (Some(name), true) => bail!(settings.unknown_source(name)),
        (None, true) => bail!(
            "no [[source]] in {} can receive this event; write [event] with name and payload instead",
            settings.file.display()
        ),
        _ => Err(anyhow!(problems.join("; "))).context("no source can read the event"),
    }
}

fn not_received(reason: &Mismatch, event: &Event, module: &Module) -> anyhow::Error {
    let reason = match reason {
        Mismatch::Name => {
            let wanted: Vec<_> = module.wants.events.iter().map(ToString::to_string).collect();
            format!("`events` is {}; the event's name is `{}`", wanted.join(", "), event.name)
        }
        Mismatch::OtherModule(other) => format!("the user chose {other}"),
        Mismatch::OwnModule(other) => format!("the user chose {other}, and the tenant {} has its own", event.tenant),
        Mismatch::UnreadableModule => "the user chose a module, but its name cannot be read".to_owned(),
        Mismatch::Source => format!("`sources` does not contain its source, {}", event.source),
        Mismatch::Tenant => format!("`tenants` does not contain its tenant, {}", event.tenant),
        Mismatch::Assistant => "`assistants` does not contain its assistant".to_owned(),
        Mismatch::Field(path, found) => {
            format!("`match` requires another {path} than {}", found.as_deref().unwrap_or("none"))
        }
    };
    anyhow!("{} would not receive this event: {reason} ([[module]] at {})", module.name, module.location)
}
