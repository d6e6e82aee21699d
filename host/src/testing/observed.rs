//! The observable behavior of a module, derived from its calls: the reply, the steps and the messages.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use modhost_core::import::{Import, RecordedImport};
use modhost_platform::CallError;
use modhost_runtime::engine::{Failure, GuestOutcome, NO_REPLY, Retry};

/// The observable behavior of a module.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How it ended.
    pub ended: GuestOutcome,
    /// The calls in order, with named arguments.
    pub calls: Vec<(RecordedImport, Map<String, Json>)>,
    /// The final text of the reply, if there is one.
    pub reply: Option<String>,
    /// The references of the reply.
    pub references: Vec<Json>,
    /// The steps, in order.
    pub steps: Vec<ObservedStep>,
    /// The final texts of other messages.
    pub messages: Vec<String>,
    /// The log lines, each with its level and context.
    pub log: Vec<String>,
    /// The final content of the key-value store, by bucket and key.
    pub keyvalue: BTreeMap<String, BTreeMap<String, Json>>,
}

/// The final state of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedStep {
    /// The text shown to the user.
    pub text: String,
    /// `completed` or `failed`.
    pub status: String,
}

/// A call and its result, if it has one.
pub struct ObservedCall<'c> {
    /// The name of the function.
    pub import: RecordedImport,
    /// Its arguments, as in the call log.
    pub arguments: &'c Json,
    /// Its result.
    pub answer: Option<&'c Result<Json, CallError>>,
}

/// What the user sees after the calls so far.
#[derive(Default)]
struct VisibleState {
    reply: Option<String>,
    references: Vec<Json>,
    steps: BTreeMap<u64, ObservedStep>,
    messages: Vec<(String, String)>,
}

impl Observed {
    /// Derives the behavior from the calls and the outcome of a delivery. `reply_id` is the id of the event's assistant message.
    pub fn new<'c>(
        ended: GuestOutcome,
        calls: impl IntoIterator<Item = ObservedCall<'c>>,
        reply_id: Option<&str>,
    ) -> Self {
        let mut visible = VisibleState::default();
        let mut named_calls = Vec::new();
        for call in calls {
            let arguments = named_arguments(call.import.known(), call.arguments);
            if let Some(Ok(answer)) = call.answer {
                visible.apply(&call, &arguments, answer, reply_id);
            }
            named_calls.push((call.import, arguments));
        }
        let ended = match ended {
            GuestOutcome::Answered if reply_id.is_some() && visible.reply.is_none() => GuestOutcome::Failed(no_reply()),
            ended => ended,
        };
        visible.close_steps(&ended);
        Self {
            ended,
            calls: named_calls,
            reply: visible.reply,
            references: visible.references,
            steps: visible.steps.into_values().collect(),
            messages: visible.messages.into_iter().map(|(_, text)| text).collect(),
            log: Vec::new(),
            keyvalue: BTreeMap::new(),
        }
    }
}

impl VisibleState {
    fn apply(&mut self, call: &ObservedCall<'_>, arguments: &Map<String, Json>, answer: &Json, reply_id: Option<&str>) {
        let text = |of: &Json| of["text"].as_str().map(str::to_owned);
        let new_text = arguments.get("text").and_then(Json::as_str).map(str::to_owned);
        let Some(import) = call.import.known() else { return };
        match import {
            Import::MessageLogEntryCreate | Import::MessageLogEntryUpdate => self.step(arguments, answer),
            Import::CompletionCompleteIntoReply => self.reply = text(answer).or(self.reply.take()),
            Import::MessagesReply => self.rewrite_reply(arguments, new_text),
            Import::MessagesCreate => {
                let id = answer["id"].as_str().unwrap_or_default();
                self.messages.push((id.to_owned(), new_text.unwrap_or_default()));
            }
            Import::MessagesModify => {
                let id = arguments.get("id").and_then(Json::as_str).unwrap_or_default();
                if Some(id) == reply_id {
                    self.rewrite_reply(arguments, new_text);
                } else if let Some(text) = new_text {
                    match self.messages.iter_mut().find(|(known, _)| known == id) {
                        Some(message) => message.1 = text,
                        None => self.messages.push((id.to_owned(), text)),
                    }
                }
            }
            _ => {}
        }
    }

    /// Closes running steps, as the host does at the end of a delivery.
    fn close_steps(&mut self, ended: &GuestOutcome) {
        let closed = if *ended == GuestOutcome::Answered { "completed" } else { "failed" };
        for step in self.steps.values_mut().filter(|step| step.status == "running") {
            closed.clone_into(&mut step.status);
        }
    }

    /// Changes the reply. Omitted fields keep their values.
    fn rewrite_reply(&mut self, arguments: &Map<String, Json>, text: Option<String>) {
        self.reply = text.or(self.reply.take());
        if let Some(Json::Array(references)) = arguments.get("references").filter(|it| **it != json!([])) {
            self.references.clone_from(references);
        }
    }

    fn step(&mut self, arguments: &Map<String, Json>, answer: &Json) {
        let Some(order) = answer["order"].as_u64() else { return };
        let step =
            self.steps.entry(order).or_insert_with(|| ObservedStep { text: String::new(), status: "running".into() });
        let text = |name: &str| arguments.get(name).and_then(Json::as_str).map(str::to_owned);
        step.text = text("text").unwrap_or_else(|| std::mem::take(&mut step.text));
        step.status = text("status").unwrap_or_else(|| std::mem::take(&mut step.status));
    }
}

/// The failure of a module that ends without completing the reply.
fn no_reply() -> Failure {
    Failure { reason: NO_REPLY.to_owned(), user_text: None, retry: Retry::No }
}

/// Returns the arguments of a call by name, with the names of the contract instead of a platform's.
fn named_arguments(import: Option<Import>, arguments: &Json) -> Map<String, Json> {
    let mut named = match (import, arguments) {
        (_, Json::Object(fields)) => fields.clone(),
        (Some(Import::MessagesReply | Import::MessagesModify), Json::Array(pair)) => name_pair("id", pair, "change"),
        (Some(Import::MessageLogEntryUpdate), Json::Array(pair)) => name_pair("step", pair, "change"),
        (Some(Import::MessageLogEntryCreate), Json::Array(pair)) => name_pair("text", pair, "status"),
        (Some(Import::CompletionCompleteIntoReply), Json::Array(pair)) => {
            name_pair("sources", &reversed(pair), "request")
        }
        (Some(Import::MessagesReply), Json::String(_)) => Map::from_iter([("completed".to_owned(), json!(true))]),
        (Some(Import::MessagesShow), text) => Map::from_iter([("text".to_owned(), text.clone())]),
        (Some(Import::MessagesHistory), limit) => Map::from_iter([("limit".to_owned(), limit.clone())]),
        (_, Json::Null) => Map::new(),
        (_, other) => Map::from_iter([("arguments".to_owned(), other.clone())]),
    };
    for name in ["kind", "status"] {
        // The call log has the values of a platform, in upper case.
        if let Some(Json::String(word)) = named.get_mut(name) {
            *word = word.to_lowercase().replace('_', "-");
        }
    }
    named
}

/// Returns the first element of a pair under `first`, and the fields of the second element; if the second is not an
/// object, it is returned under `second`.
fn name_pair(first: &str, pair: &[Json], second: &str) -> Map<String, Json> {
    let mut named = match pair.get(1) {
        Some(Json::Object(fields)) => fields.clone(),
        Some(other) => Map::from_iter([(second.to_owned(), other.clone())]),
        None => Map::new(),
    };
    named.insert(first.to_owned(), pair.first().cloned().unwrap_or_default());
    named
}

fn reversed(pair: &[Json]) -> Vec<Json> {
    pair.iter().rev().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_visible_state_from_the_calls() {
        let change = |text: Json| json!({ "text": text, "references": [], "debug_info": null, "completed": false });
        let calls = [
            ("message-log.entry.create", json!(["Searching…", "RUNNING"]), Some(json!({ "id": "s", "order": 1 }))),
            ("message-log.entry.update", json!([1, { "text": "Found", "status": null }]), Some(json!({ "order": 1 }))),
            ("message-log.entry.update", json!([1, { "status": "COMPLETED" }]), Some(json!({ "order": 1 }))),
            ("messages.reply", json!(["msg_2", change(json!("first"))]), Some(json!({}))),
            ("messages.reply", json!(["msg_2", change(Json::Null)]), Some(json!({}))),
            ("messages.create", change(json!("another")), Some(json!({ "id": "msg_3" }))),
            ("messages.modify", json!(["msg_3", change(json!("changed"))]), Some(json!({}))),
            ("messages.create", change(json!("refused")), None),
        ];
        let calls: Vec<_> = calls.map(|(import, arguments, answer)| (import, arguments, answer.map(Ok))).into();
        let calls = calls.iter().map(|(import, arguments, answer)| ObservedCall {
            import: (*import).into(),
            arguments,
            answer: answer.as_ref(),
        });
        let observed = Observed::new(GuestOutcome::Answered, calls, Some("msg_2"));
        assert_eq!(observed.reply.as_deref(), Some("first"));
        assert_eq!(observed.messages, ["changed"]);
        assert_eq!(observed.steps, [ObservedStep { text: "Found".into(), status: "completed".into() }]);
        assert_eq!(observed.calls[0].1["status"], "running");
        assert_eq!(observed.calls.len(), 8);
    }
}
