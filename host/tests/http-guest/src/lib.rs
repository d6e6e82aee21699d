//! A module that sends the HTTP requests the user's text tells it to, for the host's tests: apart from the other test
//! module, since one that can send requests is loaded only where it may.
//!
//! The text is a JSON list of things to do, one after the other. The reply says what came of each, as JSON.

mod raw;

use std::time::Duration;

use modhost_sdk::http::{Request, Sent};
use modhost_sdk::prelude::*;
use serde::Deserialize;

modhost_sdk::module!(answer);

/// One thing to do.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Do {
    /// Send a request.
    Send(Sending),
    /// Send a request, and leave its answer for later.
    AttemptContext(Sending),
    /// Send a request by the standard's own functions, and tell what they answer.
    Raw(Sending),
    /// Wait for the answers that were left, and tell their statuses.
    Finish,
    /// Wait for so many milliseconds.
    Wait(u64),
    /// Count in the key-value store.
    Count(String),
    /// Fail, so that another try follows.
    Fail(String),
}

#[derive(Deserialize)]
struct Sending {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// As many bytes of body instead.
    #[serde(default)]
    fill: usize,
    /// The module's setting of this name as `Authorization`.
    token: Option<String>,
    timeout_ms: Option<u64>,
    /// Reply with the length of the answer only.
    #[serde(default)]
    length: bool,
}

fn get() -> String {
    "GET".into()
}

fn answer(event: ModuleChosen) -> Result<()> {
    let todo: Vec<Do> = serde_json::from_str(&event.user_message.text)?;
    let mut begun = Vec::new();
    let came = todo.into_iter().map(|what| run(what, &mut begun)).collect::<Result<Vec<_>>>()?;
    messages::reply(serde_json::to_string(&came)?).complete()?;
    Ok(())
}

fn run(what: Do, begun: &mut Vec<Sent>) -> Result<serde_json::Value> {
    Ok(match what {
        Do::Send(sending) => send(sending)?,
        Do::AttemptContext(sending) => {
            begun.push(request(sending)?.begin()?);
            json!("begun")
        }
        Do::Raw(sending) => {
            let (headers, body) = (sending.headers, sending.body);
            json!(raw::send(&sending.method, &sending.url, &headers, body.as_bytes()))
        }
        Do::Finish => {
            let statuses = begun.drain(..).map(|sent| Ok(sent.answer()?.status())).collect::<Result<Vec<_>>>()?;
            json!(statuses)
        }
        Do::Wait(milliseconds) => {
            std::thread::sleep(Duration::from_millis(milliseconds));
            json!("waited")
        }
        Do::Count(key) => json!(Store::open()?.increment(&key, 1)?),
        Do::Fail(reason) => return Err(Failure::new(reason).retry_after(Duration::from_millis(1))),
    })
}

fn request(asked: Sending) -> Result<Request> {
    let body = if asked.fill > 0 { "x".repeat(asked.fill) } else { asked.body };
    let mut request = Request::new(asked.method, asked.url).body(body);
    for (name, value) in asked.headers {
        request = request.header(name, value);
    }
    if let Some(setting) = asked.token {
        request = request.header("authorization", config::get(&setting)?.unwrap_or_default());
    }
    if let Some(timeout) = asked.timeout_ms {
        request = request.timeout(Duration::from_millis(timeout));
    }
    Ok(request)
}

fn send(asked: Sending) -> Result<serde_json::Value> {
    let length = asked.length;
    let response = match request(asked)?.send() {
        Ok(response) => response,
        Err(error) => return Ok(json!({ "error": error.to_string() })),
    };
    if length {
        return Ok(json!(response.bytes().len()));
    }
    let headers: serde_json::Map<_, _> = response
        .headers()
        .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned().into()))
        .collect();
    Ok(json!({ "status": response.status(), "headers": headers, "body": response.text()? }))
}
