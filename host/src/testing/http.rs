//! `[[http]]`: the responses to HTTP requests of a module, and problems with requests and responses.

use serde_json::{Value as Json, json};

use super::answers::{ScriptedAnswer, scripted};
use modhost_config::table::{Table, to_json};
use modhost_core::import::Import;
use modhost_platform::ErrorKind;
use modhost_runtime::call_log::{CallRequest, Lookup};
use modhost_runtime::capabilities::HttpGrants;

/// Reads a response, in the format of the call log.
pub(super) fn read(table: Table<'_>) -> ScriptedAnswer<Json> {
    let status: u16 = table.get("status").and_then(|value| value.count()).unwrap_or(200);
    let body = table.get("body").and_then(|value| value.any_text()).unwrap_or_default();
    let mut headers = Vec::new();
    if let Some(header_table) = table.get("headers").and_then(|value| value.table("[http.headers]")) {
        for (name, value) in header_table.entries() {
            match to_json(value.get_ref()) {
                Ok(Json::String(text)) => headers.push(json!([name.to_lowercase(), text])),
                _ => header_table.document.report(value.span(), format!("`{name}` must be text"), "write it in quotes"),
            }
        }
    }
    let answer = json!({ "status": status, "headers": headers, "body": body });
    scripted(table, |_| answer)
}

/// Returns a function that answers calls by name and arguments, in the format of the call log.
pub(super) fn responder(mut answers: Vec<ScriptedAnswer<Json>>) -> impl FnMut(Import, &Json) -> Option<Vec<u8>> + Send {
    move |import, request| {
        if import != Import::HttpHandle {
            return None;
        }
        let line = request_line(request);
        let answer = match ScriptedAnswer::next_match(&mut answers, |condition| condition.matches(&line))? {
            Ok(answer) => json!({ "ok": answer }),
            Err(error) => json!({ "error": error }),
        };
        serde_json::to_vec(&answer).ok()
    }
}

/// Returns the problem with a request: the test has a response, but the host would reject the request; or the test has no response.
/// A rejected request without a response is correct: the module has to handle the error.
pub(super) fn problem(grants: &HttpGrants, call: &CallRequest) -> Option<String> {
    if call.import != Import::HttpHandle {
        return None;
    }
    match &call.answer {
        Some(Ok(_)) => {
            let refusal = grants.refusal(&call.arguments)?;
            Some(format!("the test has a response to a request that the host would reject: {refusal}"))
        }
        Some(Err(error)) if call.known == Lookup::Added && error.kind == ErrorKind::Unavailable => Some(format!(
            "the module sends `{}`, and the test has no response left for it; add:\n\n[[http]]\nstatus = 200\nbody = \"…\"",
            request_line(&call.arguments)
        )),
        _ => None,
    }
}

/// Returns the method and the URL of a request.
fn request_line(request: &Json) -> String {
    let text = |key| request[key].as_str().unwrap_or_default();
    format!("{} {}", text("method"), text("url"))
}
