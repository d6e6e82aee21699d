//! Errors that are reported as answers: with status 200, or in the middle of a stream.

use http::StatusCode;

use modhost_core::json::{Fields, Kind, Value};

/// The fields by which a failure is recognized.
pub(super) const NAMES: &[&str] = &[
    "error",
    "errors",
    "object",
    "type",
    "status",
    "status_code",
    "statusCode",
    "code",
    "error_code",
    "success",
    "message",
    "detail",
    "msg",
    "base_resp",
    "choices",
];

/// The fields of an error that determine its kind.
const ERROR: &[&str] = &["code", "type", "status", "status_code", "statusCode", "http_status", "http_code"];

/// Returns the fields by which a failure is recognized.
pub(super) fn fields(value: Value<'_>) -> Option<Fields<'_>> {
    Fields::of(value, NAMES)
}

/// Returns whether an event with this name reports a failure.
pub(super) fn is_failure_event(name: &str) -> bool {
    ["error", "exception", "fail"].iter().any(|word| name.contains(word))
}

/// Returns the failure that an answer to any call reports, if any, with its status if it is known.
pub(crate) fn failure(value: Value<'_>) -> Option<Option<StatusCode>> {
    let fields = fields(value)?;
    is_error(&fields).then(|| status(&fields))
}

/// Returns the failure that an event of a completion or a complete answer reports. There, an object without choices but
/// with a message is a failure, because it is not part of an answer.
pub(super) fn completion_failure(value: Value<'_>) -> Option<Option<StatusCode>> {
    let fields = fields(value)?;
    let is_failure = is_error(&fields) || (!has_value(&fields, "choices") && describes_failure(&fields));
    is_failure.then(|| status(&fields))
}

fn has_value(fields: &Fields<'_>, name: &str) -> bool {
    fields.get(name).is_some_and(|it| !it.is_empty())
}

fn contains_word(fields: &Fields<'_>, name: &str, word: &str) -> bool {
    fields.text(name).is_some_and(|text| text.to_ascii_lowercase().contains(word))
}

/// Returns whether an object is declared as an error.
fn is_error(fields: &Fields<'_>) -> bool {
    if has_value(fields, "error") || has_value(fields, "errors") || contains_word(fields, "object", "error") {
        return true;
    }
    let is_bad = |name: &&str| fields.integer::<i64>(name).is_some_and(|code| (400..600).contains(&code));
    !has_value(fields, "choices")
        && (contains_word(fields, "type", "error")
            || fields.get("success").is_some_and(|it| it.as_bytes() == b"false")
            || ["code", "status", "status_code", "statusCode"].iter().any(is_bad))
}

/// Returns whether an object without choices describes a failure in other common fields.
fn describes_failure(fields: &Fields<'_>) -> bool {
    let has_description = |name: &&str| {
        has_value(fields, name) && fields.get(name).is_some_and(|it| matches!(it.kind(), Kind::Text | Kind::List))
    };
    let base = fields.get("base_resp").and_then(|it| Fields::of(it, &["status_code"]));
    contains_word(fields, "status", "error")
        || contains_word(fields, "status", "fail")
        || has_value(fields, "error_code")
        || base.is_some_and(|base| base.integer::<i64>("status_code").is_some_and(|code| code != 0))
        || ["message", "detail", "msg"].iter().any(has_description)
}

/// Returns the status that an error names, by number or by name.
pub(super) fn status(fields: &Fields<'_>) -> Option<StatusCode> {
    let error = fields.get("error").filter(|it| it.kind() == Kind::Object).and_then(|it| Fields::of(it, ERROR));
    let error = error.as_ref().unwrap_or(fields);
    let number = ["code", "status", "status_code", "statusCode", "http_status", "http_code", "error_code"]
        .iter()
        .find_map(|name| error.integer::<u16>(name).and_then(|code| StatusCode::from_u16(code).ok()))
        .filter(|status| status.is_client_error() || status.is_server_error());
    number.or_else(|| ["code", "type", "status"].iter().find_map(|name| by_word(&error.text(name)?)))
}

/// Returns the status for an error name of OpenAI, Anthropic, vLLM or Google.
fn by_word(word: &str) -> Option<StatusCode> {
    let word: String = word.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let has = |parts: &[&str]| parts.iter().any(|part| word.contains(part));
    Some(match word.as_str() {
        "tokens" | "requests" => StatusCode::TOO_MANY_REQUESTS,
        _ if has(&["ratelimit", "quota", "toomanyrequests", "resourceexhausted"]) => StatusCode::TOO_MANY_REQUESTS,
        _ if has(&["authentication", "unauthorized", "unauthenticated", "invalidapikey"]) => StatusCode::UNAUTHORIZED,
        _ if has(&["permission", "forbidden"]) => StatusCode::FORBIDDEN,
        _ if has(&["notfound"]) => StatusCode::NOT_FOUND,
        _ if has(&["timeout", "deadlineexceeded"]) => StatusCode::GATEWAY_TIMEOUT,
        _ if has(&["invalidrequest", "invalidargument", "badrequest", "contextlength", "contentfilter"]) => {
            StatusCode::BAD_REQUEST
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Option<u16>> {
        completion_failure(Value::read(text.as_bytes()).unwrap()).map(|status| status.map(|status| status.as_u16()))
    }

    #[test]
    fn distinguishes_failures_from_answers() {
        for (text, status) in [
            (r#"{"error": "overloaded"}"#, None),
            (r#"{"error": {"message": "x", "code": 503}, "choices": [{"index": 0}]}"#, Some(503)),
            (r#"{"error": {"message": "x", "type": "BadRequestError", "code": null}}"#, Some(400)),
            (
                r#"{"object": "error", "message": "out of memory", "type": "InternalServerError", "code": 500}"#,
                Some(500),
            ),
            (r#"{"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}"#, Some(429)),
            (r#"{"error": {"status": "RESOURCE_EXHAUSTED", "code": 429}}"#, Some(429)),
            (r#"{"detail": "Internal Server Error"}"#, None),
            (r#"{"message": "no healthy upstream", "statusCode": 503}"#, Some(503)),
            (r#"{"success": false}"#, None),
            (r#"{"base_resp": {"status_code": 1004, "status_msg": "x"}, "choices": null}"#, None),
            (r#"{"code": "500", "data": null}"#, Some(500)),
        ] {
            assert_eq!(of(text), Some(status), "{text}");
        }
        for text in [
            r#"{"choices": [{"index": 0}], "error": null}"#,
            r#"{"choices": [{"index": 0}], "error": {}, "code": 500, "message": "fine"}"#,
            r#"{"choices": [], "prompt_filter_results": []}"#,
            r#"{"object": "chat.completion.chunk", "usage": {}}"#,
            r#"{"type": "ping"}"#,
            r#"{"code": 200, "status": "ok", "success": true, "base_resp": {"status_code": 0}}"#,
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        for text in [r#"{"success": true, "message": "sent"}"#, r#"{"object": "streamResult", "message": {}}"#] {
            assert_eq!(failure(Value::read(text.as_bytes()).unwrap()), None, "{text}");
        }
    }
}
