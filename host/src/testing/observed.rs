//! What a module did, made out of the calls it made: the reply as the user sees it, the steps, the messages.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use modhost_core::import::{Import, RecordedImport};
use modhost_platform::CallError;
use modhost_runtime::engine::{Ended, Failure, NO_REPLY, Retry};

/// What a module did.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How it ended.
    pub ended: Ended,
    /// The calls, in order, each with its arguments by name.
    pub calls: Vec<(RecordedImport, Map<String, Json>)>,
    /// The text of the reply as it was left, if there is one.
    pub reply: Option<String>,
    /// The sources the reply names.
    pub references: Vec<Json>,
    /// The steps, in order.
    pub steps: Vec<SeenStep>,
    /// The texts of other messages it wrote, as they were left.
    pub messages: Vec<String>,
    /// The lines it logged, each with its level and context in front.
    pub log: Vec<String>,
    /// What stands in the key-value store at the end, by bucket and key.
    pub keyvalue: BTreeMap<String, BTreeMap<String, Json>>,
}

/// A step, as the user sees it at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenStep {
    /// What the user reads.
    pub text: String,
    /// `completed` or `failed`.
    pub status: String,
}

/// A call and its answer, if it has one.
pub struct Call<'c> {
    /// What was called.
    pub import: RecordedImport,
    /// Its arguments as the record has them.
    pub arguments: &'c Json,
    /// Its answer.
    pub answer: Option<&'c Result<Json, CallError>>,
}

/// What the calls have written so far.
#[derive(Default)]
struct Page {
    reply: Option<String>,
    references: Vec<Json>,
    steps: BTreeMap<u64, SeenStep>,
    messages: Vec<(String, String)>,
}

impl Observed {
    /// What was seen of a delivery that ended like this after these calls; `reply_id` is the event's own assistant message.
    pub fn new<'c>(ended: Ended, calls: impl IntoIterator<Item = Call<'c>>, reply_id: Option<&str>) -> Self {
        let mut page = Page::default();
        let mut made = Vec::new();
        for call in calls {
            let arguments = named_arguments(call.import.known(), call.arguments);
            if let Some(Ok(answer)) = call.answer {
                page.take_in(&call, &arguments, answer, reply_id);
            }
            made.push((call.import, arguments));
        }
        let ended = match ended {
            Ended::Answered if reply_id.is_some() && page.reply.is_none() => Ended::Failed(no_reply()),
            ended => ended,
        };
        page.close_steps(&ended);
        Self {
            ended,
            calls: made,
            reply: page.reply,
            references: page.references,
            steps: page.steps.into_values().collect(),
            messages: page.messages.into_iter().map(|(_, text)| text).collect(),
            log: Vec::new(),
            keyvalue: BTreeMap::new(),
        }
    }
}

impl Page {
    fn take_in(&mut self, call: &Call<'_>, arguments: &Map<String, Json>, answer: &Json, reply_id: Option<&str>) {
        let text = |of: &Json| of["text"].as_str().map(str::to_owned);
        let written = arguments.get("text").and_then(Json::as_str).map(str::to_owned);
        let Some(import) = call.import.known() else { return };
        match import {
            Import::MessageLogEntryCreate | Import::MessageLogEntryUpdate => self.step(arguments, answer),
            Import::CompletionCompleteIntoReply => self.reply = text(answer).or(self.reply.take()),
            Import::MessagesReply => self.rewrite_reply(arguments, written),
            Import::MessagesCreate => {
                let id = answer["id"].as_str().unwrap_or_default();
                self.messages.push((id.to_owned(), written.unwrap_or_default()));
            }
            Import::MessagesModify => {
                let id = arguments.get("id").and_then(Json::as_str).unwrap_or_default();
                if Some(id) == reply_id {
                    self.rewrite_reply(arguments, written);
                } else if let Some(text) = written {
                    match self.messages.iter_mut().find(|(known, _)| known == id) {
                        Some(message) => message.1 = text,
                        None => self.messages.push((id.to_owned(), text)),
                    }
                }
            }
            _ => {}
        }
    }

    /// What is left running the host closes when the delivery is at its end.
    fn close_steps(&mut self, ended: &Ended) {
        let closed = if *ended == Ended::Answered { "completed" } else { "failed" };
        for step in self.steps.values_mut().filter(|step| step.status == "running") {
            closed.clone_into(&mut step.status);
        }
    }

    /// What a change leaves out stays.
    fn rewrite_reply(&mut self, arguments: &Map<String, Json>, text: Option<String>) {
        self.reply = text.or(self.reply.take());
        if let Some(Json::Array(references)) = arguments.get("references").filter(|it| **it != json!([])) {
            self.references.clone_from(references);
        }
    }

    fn step(&mut self, arguments: &Map<String, Json>, answer: &Json) {
        let Some(order) = answer["order"].as_u64() else { return };
        let step =
            self.steps.entry(order).or_insert_with(|| SeenStep { text: String::new(), status: "running".into() });
        let text = |name: &str| arguments.get(name).and_then(Json::as_str).map(str::to_owned);
        step.text = text("text").unwrap_or_else(|| std::mem::take(&mut step.text));
        step.status = text("status").unwrap_or_else(|| std::mem::take(&mut step.status));
    }
}

/// The host takes an answer without a reply, where one is waited for, for none.
fn no_reply() -> Failure {
    Failure { reason: NO_REPLY.to_owned(), user_text: None, retry: Retry::No }
}

/// The arguments of a call by name, in the words of the contract rather than a platform's.
fn named_arguments(import: Option<Import>, arguments: &Json) -> Map<String, Json> {
    let mut named = match (import, arguments) {
        (_, Json::Object(fields)) => fields.clone(),
        (Some(Import::MessagesReply | Import::MessagesModify), Json::Array(pair)) => with("id", pair, "change"),
        (Some(Import::MessageLogEntryUpdate), Json::Array(pair)) => with("step", pair, "change"),
        (Some(Import::MessageLogEntryCreate), Json::Array(pair)) => with("text", pair, "status"),
        (Some(Import::CompletionCompleteIntoReply), Json::Array(pair)) => with("sources", &reversed(pair), "request"),
        (Some(Import::MessagesReply), Json::String(_)) => Map::from_iter([("completed".to_owned(), json!(true))]),
        (Some(Import::MessagesShow), text) => Map::from_iter([("text".to_owned(), text.clone())]),
        (Some(Import::MessagesHistory), limit) => Map::from_iter([("limit".to_owned(), limit.clone())]),
        (_, Json::Null) => Map::new(),
        (_, other) => Map::from_iter([("arguments".to_owned(), other.clone())]),
    };
    for name in ["kind", "status"] {
        // The record has a platform's capitals, the contract its own words.
        if let Some(Json::String(word)) = named.get_mut(name) {
            *word = word.to_lowercase().replace('_', "-");
        }
    }
    named
}

/// The first of a pair under its name, and the fields of the second, or that under its own.
fn with(first: &str, pair: &[Json], second: &str) -> Map<String, Json> {
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
    fn what_the_user_sees_follows_from_the_calls() {
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
        let calls = calls.iter().map(|(import, arguments, answer)| Call {
            import: (*import).into(),
            arguments,
            answer: answer.as_ref(),
        });
        let observed = Observed::new(Ended::Answered, calls, Some("msg_2"));
        assert_eq!(observed.reply.as_deref(), Some("first"));
        assert_eq!(observed.messages, ["changed"]);
        assert_eq!(observed.steps, [SeenStep { text: "Found".into(), status: "completed".into() }]);
        assert_eq!(observed.calls[0].1["status"], "running");
        assert_eq!(observed.calls.len(), 8);
    }
}
