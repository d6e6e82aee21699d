//! Events as the platform signs and sends them.

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use modhost_config::Scheme;
use modhost_config::source::Window;
use modhost_core::event::{Event, Name};
use modhost_core::secret::Secret;
use modhost_ingress::sources::schemes::{self, Request, unique};
use modhost_ingress::sources::{Reader, Received, Source, TenantResolver};

/// The secret shared by the platform and the host.
pub const SECRET: &str = "usig_benchmark";

/// The body of an event that chooses a module.
pub fn chosen(id: &str, module: &str) -> String {
    let payload = format!(
        r#"{{"name":"{module}","description":"Answers out of the knowledge base","configuration":{{}},"chatId":"chat_qwk3x8y0c5u7","assistantId":"assistant_x1","userMessage":{{"id":"msg_1","text":"May I fly business class to Singapore?","createdAt":"2026-01-01T00:00:00.000Z"}},"assistantMessage":{{"id":"msg_2","createdAt":"2026-01-01T00:00:00.000Z"}}}}"#
    );
    envelope(id, "unique.chat.external-module.chosen", &payload)
}

/// The body of an event for a user's message.
pub fn created(id: &str) -> String {
    let payload = r#"{"chatId":"chat_qwk3x8y0c5u7","assistantId":"assistant_x1","text":"May I fly business class to Singapore?"}"#;
    envelope(id, "unique.chat.user-message.created", payload)
}

/// The body of an event with this name, which the host doesn't know.
pub fn for_module(id: &str, name: &str) -> String {
    envelope(id, name, r#"{"text":"May I fly business class to Singapore?"}"#)
}

fn envelope(id: &str, name: &str, payload: &str) -> String {
    format!(
        r#"{{"id":"{id}","version":"1.0.0","event":"{name}","createdAt":"1700000000","userId":"user_1","companyId":"company_1","payload":{payload}}}"#
    )
}

/// The bytes of a signed request for a kept-alive connection.
pub fn request(path: &str, body: &str) -> Vec<u8> {
    let (signature, created_at) = (sign(body.as_bytes()), now());
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         X-Unique-Created-At: {created_at}\r\nX-Unique-Signature: {signature}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Returns the event that a source makes of a body.
pub fn event(body: Bytes) -> anyhow::Result<Event> {
    let scheme = schemes::scheme(&Scheme::Unique(Window::default()));
    let source = Source {
        path: "/webhook".into(),
        keys: vec![scheme.key(&Secret::new(SECRET)).map_err(anyhow::Error::msg)?],
        reader: Reader {
            name: Name::from("unique"),
            envelope: scheme.envelope(),
            owners: TenantResolver::One {
                tenant: Name::from("default"),
                companies: Vec::new(),
                owners: Arc::default(),
                also: Arc::default(),
            },
        },
        scheme,
        events_per_second: None,
    };
    let mut headers = HeaderMap::new();
    headers.insert(unique::SIGNATURE, HeaderValue::try_from(sign(&body))?);
    headers.insert(unique::CREATED_AT, HeaderValue::from(now()));
    let request = Request { headers: &headers, body: &body, now: SystemTime::now() };
    match source.receive(&request, &body)? {
        Received::Event(event) => Ok(*event),
        Received::Challenge(_) => anyhow::bail!("an event was taken for a challenge"),
    }
}

fn sign(body: &[u8]) -> String {
    unique::sign(&Secret::new(SECRET), body)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
