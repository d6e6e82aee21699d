//! The equivalent of `benches/guest` as an Extism plug-in: four calls for an event that chose it, none for any other.
//! Values that a component receives as WIT types are text and JSON here, as is usual with Extism.

use extism_pdk::{FnResult, host_fn, plugin_fn};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[host_fn]
extern "ExtismHost" {
    fn create_step(step: String) -> String;
    fn search(query: String) -> String;
    fn complete(request: String) -> String;
    fn reply(change: String) -> String;
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    user_message: Option<UserMessage>,
}

#[derive(Deserialize)]
struct UserMessage {
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hit {
    id: String,
    chunk_id: String,
    title: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    name: String,
    url: Option<String>,
    sequence_number: usize,
    source_id: String,
}

/// Handles an event.
#[plugin_fn]
pub fn handle(event: String) -> FnResult<()> {
    let event: Event = serde_json::from_str(&event)?;
    match event.payload.user_message {
        Some(message) => four_calls(&message.text),
        None => Ok(()),
    }
}

fn four_calls(question: &str) -> FnResult<()> {
    // SAFETY: the host functions with these names take and return text; see `beside.c`.
    unsafe {
        create_step(json!({ "text": "Searching knowledge base…", "status": "RUNNING" }).to_string())?;
        let hits: Vec<Hit> = serde_json::from_str(&search(json!({ "text": question, "limit": 3 }).to_string())?)?;
        let messages = json!({ "messages": [{ "role": "user", "content": question }] });
        let answer: Answer = serde_json::from_str(&complete(messages.to_string())?)?;
        let references: Vec<Reference> = hits.into_iter().enumerate().map(reference).collect();
        reply(json!({ "text": answer.text, "references": references, "completed": true }).to_string())?;
    }
    Ok(())
}

fn reference((index, hit): (usize, Hit)) -> Reference {
    Reference {
        name: hit.title.unwrap_or_else(|| hit.id.clone()),
        url: hit.url,
        sequence_number: index + 1,
        source_id: format!("{}_{}", hit.id, hit.chunk_id),
    }
}
