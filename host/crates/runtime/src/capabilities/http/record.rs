//! The recorded form of HTTP requests and answers.
//!
//! People read call logs, so a credential, recognized by its name, is recorded as a hash: enough to match the same
//! request in replay. The hash is keyed, because short secrets could be guessed otherwise.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, response};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::send::Request;
use crate::call_log::CallEffect;
use crate::capabilities::CallSpec;
use modhost_core::import::Import;
use modhost_storage::keyvalue::Value;

/// A request with a method that only reads.
const READ: CallSpec = CallSpec::new(Import::HttpHandle, CallEffect::Read);

/// Any other request.
const SEND: CallSpec = CallSpec::new(Import::HttpHandle, CallEffect::Send);

/// The calls that send requests.
pub(super) const CALLS: [CallSpec; 2] = [READ, SEND];

/// Returns the declaration of a request with this method.
pub(super) fn spec_of(method: &Method) -> &'static CallSpec {
    if method.is_safe() { &READ } else { &SEND }
}

/// The use of [`Delivery::random`](crate::capabilities::Delivery::random) for the key of the hashes; the guest's random
/// numbers have the others.
pub(super) const REDACTION_KEY: u8 = 3;

/// Maximum size of a body that is recorded as text, in bytes; a larger one is recorded as a hash.
const MAX_TEXT_BODY: usize = 16 * 1024;

/// Names that contain one of these denote credentials.
const CREDENTIALS: [&str; 9] =
    ["auth", "cookie", "token", "secret", "password", "key", "session", "signature", "credential"];

/// A recorded answer.
#[derive(Serialize, Deserialize)]
pub(super) struct Answered {
    pub status: u16,
    pub headers: Vec<(String, Value)>,
    pub body: Value,
}

impl Answered {
    pub fn new(status: StatusCode, headers: &HeaderMap, body: Vec<u8>) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), Value(value.as_bytes().to_vec())));
        Self { status: status.as_u16(), headers: headers.collect(), body: Value(body) }
    }

    /// Converts the recorded answer for the guest.
    pub fn into_parts(self) -> (response::Parts, Vec<u8>) {
        let (mut head, ()) = http::Response::new(()).into_parts();
        // The recorded values come from an answer, so they are valid.
        head.status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value.0)) {
                head.headers.append(name, value);
            }
        }
        (head, self.body.0)
    }
}

/// Returns the recorded form of a request, without the headers that the host adds.
pub(super) fn arguments(request: &Request, key: &[u8; 32]) -> Json {
    let head = &request.head;
    let headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.as_str(), header_value(name, value, key))).collect();
    let url = match &request.url {
        Ok(url) => without_credentials(url, key),
        Err(written) => hidden(written.as_bytes(), key),
    };
    json!({ "method": head.method.as_str(), "url": url, "headers": headers, "body": body(request, key) })
}

fn header_value(name: &HeaderName, value: &HeaderValue, key: &[u8; 32]) -> String {
    match value.to_str() {
        Ok(text) if !is_credential(name.as_str()) => text.to_owned(),
        _ => hidden(value.as_bytes(), key),
    }
}

/// Returns the URL, with credentials in the query hidden.
fn without_credentials(url: &Url, key: &[u8; 32]) -> String {
    let pairs: Vec<_> = url.query_pairs().collect();
    if !pairs.iter().any(|(name, _)| is_credential(name)) {
        return url.to_string();
    }
    let redacted = pairs.iter().map(|(name, value)| match is_credential(name) {
        true => (name.as_ref(), hidden(value.as_bytes(), key)),
        false => (name.as_ref(), value.to_string()),
    });
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(redacted.collect::<Vec<_>>());
    url.to_string()
}

/// Returns the recorded form of a body: short text as it is, anything else as a hash. Forms are hashed because
/// credentials are often sent as forms.
fn body(request: &Request, key: &[u8; 32]) -> Json {
    let (body, content_type) = (&request.body, request.head.headers.get(header::CONTENT_TYPE));
    let is_form =
        content_type.is_some_and(|it| it.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form"));
    match str::from_utf8(body) {
        _ if body.is_empty() => Json::Null,
        Ok(text) if body.len() <= MAX_TEXT_BODY && !is_form => text.into(),
        _ => json!({ "bytes": body.len(), "hash": hash(body, key) }),
    }
}

fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // An idempotency key grants no access.
    name != "idempotency-key" && CREDENTIALS.iter().any(|word| name.contains(word))
}

fn hidden(value: &[u8], key: &[u8; 32]) -> String {
    format!("(hidden, {})", hash(value, key))
}

fn hash(value: &[u8], key: &[u8; 32]) -> String {
    hex::encode(&Sha256::new_with_prefix(key).chain_update(value).finalize()[..16])
}

/// Hides the credentials in a recorded answer that is shown to people. The log keeps them, because the guest needs them
/// in replay.
pub fn redact(answer: &mut Json) {
    let Some(headers) = answer.pointer_mut("/ok/headers").and_then(Json::as_array_mut) else { return };
    for pair in headers.iter_mut().filter_map(Json::as_array_mut) {
        if let [name, value] = pair.as_mut_slice()
            && name.as_str().is_some_and(is_credential)
        {
            *value = "(hidden)".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_credentials_by_name() {
        for name in
            ["Authorization", "cookie", "x-api-key", "X-Auth-Token", "api_key", "client_secret", "sig-signature"]
        {
            assert!(is_credential(name), "{name}");
        }
        for name in ["accept", "content-type", "idempotency-key", "q", "page"] {
            assert!(!is_credential(name), "{name}");
        }
        let url = Url::parse("https://a.test/x?q=a%20b&api_key=opensesame").unwrap();
        let redacted = without_credentials(&url, &[1; 32]);
        assert!(
            redacted.starts_with("https://a.test/x?q=a+b&api_key=") && !redacted.contains("opensesame"),
            "{redacted}"
        );
        assert_ne!(redacted, without_credentials(&url, &[2; 32]), "the hash depends on the key");
    }

    #[test]
    fn recorded_answers_keep_status_headers_and_body() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_bytes(b"b=\xff").unwrap());
        let answered = Answered::new(StatusCode::IM_A_TEAPOT, &headers, vec![0xff, 0]);
        let recorded = serde_json::to_value(&answered).unwrap();
        let (head, body) = serde_json::from_value::<Answered>(recorded.clone()).unwrap().into_parts();
        assert_eq!((head.status, &head.headers, body), (StatusCode::IM_A_TEAPOT, &headers, vec![0xff, 0]));

        let mut redacted = json!({ "ok": recorded });
        redact(&mut redacted);
        assert_eq!(redacted["ok"]["headers"], json!([["set-cookie", "(hidden)"], ["set-cookie", "(hidden)"]]));
    }
}
