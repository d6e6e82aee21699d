//! `[[http]]`: the answers to HTTP requests of a module's own, and what is wrong about requests and answers.

use serde_json::{Value as Json, json};

use super::answers::{Scripted, scripted};
use modhost_config::table::{Table, to_json};
use modhost_core::import::Import;
use modhost_platform::ErrorKind;
use modhost_runtime::call_log::{CallRequest, Lookup};
use modhost_runtime::capabilities::HttpGrants;

/// Reads an answer, in the form the record has it.
pub(super) fn read(table: Table<'_>) -> Scripted<Json> {
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
    let answer = json!({ "status": status, "headers": headers, "body": body });
    scripted(table, |_| answer)
}

/// Who gives these answers, in the form the record has them: by a call's name and its arguments.
pub(super) fn answering(mut answers: Vec<Scripted<Json>>) -> impl FnMut(Import, &Json) -> Option<Vec<u8>> + Send {
    move |import, request| {
        if import != Import::HttpHandle {
            return None;
        }
        let line = line(request);
        let answer = match Scripted::take(&mut answers, |only| only.fits(&line))? {
            Ok(answer) => json!({ "ok": answer }),
            Err(error) => json!({ "error": error }),
        };
        serde_json::to_vec(&answer).ok()
    }
}

/// What is wrong about a request: one that is answered and would not be sent, or the other way round. One that is refused, and
/// has no answer, is nobody's mistake: the module is to cope with it.
pub(super) fn problem(grants: &HttpGrants, asked: &CallRequest) -> Option<String> {
    if asked.import != Import::HttpHandle {
        return None;
    }
    match &asked.answer {
        Some(Ok(_)) => {
            let refusal = grants.refusal(&asked.arguments)?;
            Some(format!("the test has an answer to what would not be sent: {refusal}"))
        }
        Some(Err(error)) if asked.known == Lookup::Added && error.kind == ErrorKind::Unavailable => Some(format!(
            "it sends `{}`, and the test has no answer left to that; add:\n\n[[http]]\nstatus = 200\nbody = \"…\"",
            line(&asked.arguments)
        )),
        _ => None,
    }
}

/// A request's method and address.
fn line(request: &Json) -> String {
    let text = |key| request[key].as_str().unwrap_or_default();
    format!("{} {}", text("method"), text("url"))
}
