//! A module that sends the HTTP requests in the user's text, for the host's tests. It is separate from the other test
//! module, because the host loads a module that sends requests only if they are granted.
//!
//! The text is a JSON list of actions, executed in order. The reply contains the result of each, as JSON.

mod raw;

use std::time::Duration;

use modhost_sdk::http::{Request, Sent};
use modhost_sdk::prelude::*;
use serde::Deserialize;

modhost_sdk::module!(answer);

/// An action.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    /// Sends a request.
    Send(RequestSpec),
    /// Sends a request without waiting for the response.
    Begin(RequestSpec),
    /// Sends a request with the functions of `wasi:http`, and returns their results.
    Raw(RequestSpec),
    /// Waits for the responses of all begun requests, and returns their statuses.
    Finish,
    /// Waits for this many milliseconds.
    Wait(u64),
    /// Increments a key in the key-value store.
    Count(String),
    /// Fails and asks for a retry.
    Fail(String),
}

#[derive(Deserialize)]
struct RequestSpec {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// The length of a generated body, instead of `body`.
    #[serde(default)]
    fill: usize,
    /// The name of a setting to send as `Authorization`.
    token: Option<String>,
    timeout_ms: Option<u64>,
    /// Whether to return only the length of the response body.
    #[serde(default)]
    length: bool,
}

fn get() -> String {
    "GET".into()
}

fn answer(event: ModuleChosen) -> Result<()> {
    let actions: Vec<Action> = serde_json::from_str(&event.user_message.text)?;
    let mut pending = Vec::new();
    let results = actions.into_iter().map(|action| run(action, &mut pending)).collect::<Result<Vec<_>>>()?;
    messages::reply(serde_json::to_string(&results)?).complete()?;
    Ok(())
}

fn run(action: Action, pending: &mut Vec<Sent>) -> Result<serde_json::Value> {
    Ok(match action {
        Action::Send(spec) => send(spec)?,
        Action::Begin(spec) => {
            pending.push(request(spec)?.begin()?);
            json!("begun")
        }
        Action::Raw(spec) => {
            let (headers, body) = (spec.headers, spec.body);
            json!(raw::send(&spec.method, &spec.url, &headers, body.as_bytes()))
        }
        Action::Finish => {
            let statuses = pending.drain(..).map(|sent| Ok(sent.answer()?.status())).collect::<Result<Vec<_>>>()?;
            json!(statuses)
        }
        Action::Wait(milliseconds) => {
            std::thread::sleep(Duration::from_millis(milliseconds));
            json!("waited")
        }
        Action::Count(key) => json!(Store::open()?.increment(&key, 1)?),
        Action::Fail(reason) => return Err(Failure::new(reason).retry_after(Duration::from_millis(1))),
    })
}

fn request(spec: RequestSpec) -> Result<Request> {
    let body = if spec.fill > 0 { "x".repeat(spec.fill) } else { spec.body };
    let mut request = Request::new(spec.method, spec.url).body(body);
    for (name, value) in spec.headers {
        request = request.header(name, value);
    }
    if let Some(setting) = spec.token {
        request = request.header("authorization", config::get(&setting)?.unwrap_or_default());
    }
    if let Some(timeout) = spec.timeout_ms {
        request = request.timeout(Duration::from_millis(timeout));
    }
    Ok(request)
}

fn send(spec: RequestSpec) -> Result<serde_json::Value> {
    let length = spec.length;
    let response = match request(spec)?.send() {
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
