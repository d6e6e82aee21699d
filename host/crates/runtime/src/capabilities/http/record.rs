//! What the record of a delivery has of a request and its answer.
//!
//! A record is read by people, so what is a credential by its name stands in it as a hash: enough to know the same
//! request again. The hash is keyed, or short secrets could be guessed from it.

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

/// The declaration of a request with this method.
pub(super) fn spec_of(method: &Method) -> &'static CallSpec {
    if method.is_safe() { &READ } else { &SEND }
}

/// What the seed of a delivery's chance is drawn for here; the others are the guest's random numbers.
pub(super) const HIDING: u8 = 3;

/// How large a body may be to be recorded as it is, in bytes; a larger one is known by its hash.
const WHOLE: usize = 16 * 1024;

/// What names of credentials have in them.
const CREDENTIALS: [&str; 9] =
    ["auth", "cookie", "token", "secret", "password", "key", "session", "signature", "credential"];

/// An answer, as it is recorded.
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

    /// As the guest is given it.
    pub fn into_parts(self) -> (response::Parts, Vec<u8>) {
        let (mut head, ()) = http::Response::new(()).into_parts();
        // What was recorded came out of an answer, so all of it can stand in one.
        head.status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value.0)) {
                head.headers.append(name, value);
            }
        }
        (head, self.body.0)
    }
}

/// A request, as it is recorded. What the host adds to it is no part of that.
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

/// The address, with what its query has of credentials hidden.
fn without_credentials(url: &Url, key: &[u8; 32]) -> String {
    let pairs: Vec<_> = url.query_pairs().collect();
    if !pairs.iter().any(|(name, _)| is_credential(name)) {
        return url.to_string();
    }
    let shown = pairs.iter().map(|(name, value)| match is_credential(name) {
        true => (name.as_ref(), hidden(value.as_bytes(), key)),
        false => (name.as_ref(), value.to_string()),
    });
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(shown.collect::<Vec<_>>());
    url.to_string()
}

/// Text that isn't long, as it is; what is sent as a form by its hash, since that is how credentials are sent.
fn body(request: &Request, key: &[u8; 32]) -> Json {
    let (body, content_type) = (&request.body, request.head.headers.get(header::CONTENT_TYPE));
    let is_form =
        content_type.is_some_and(|it| it.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form"));
    match str::from_utf8(body) {
        _ if body.is_empty() => Json::Null,
        Ok(text) if body.len() <= WHOLE && !is_form => text.into(),
        _ => json!({ "bytes": body.len(), "hash": hash(body, key) }),
    }
}

fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A key that says which request this is, and opens nothing.
    name != "idempotency-key" && CREDENTIALS.iter().any(|word| name.contains(word))
}

fn hidden(value: &[u8], key: &[u8; 32]) -> String {
    format!("(hidden, {})", hash(value, key))
}

fn hash(value: &[u8], key: &[u8; 32]) -> String {
    hex::encode(&Sha256::new_with_prefix(key).chain_update(value).finalize()[..16])
}

/// Takes out of a recorded answer, for people, what is a credential by its name: the guest needs it again, and nobody else.
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
    fn what_is_a_credential_by_its_name_is_hidden() {
        for name in
            ["Authorization", "cookie", "x-api-key", "X-Auth-Token", "api_key", "client_secret", "sig-signature"]
        {
            assert!(is_credential(name), "{name}");
        }
        for name in ["accept", "content-type", "idempotency-key", "q", "page"] {
            assert!(!is_credential(name), "{name}");
        }
        let url = Url::parse("https://a.test/x?q=a%20b&api_key=opensesame").unwrap();
        let shown = without_credentials(&url, &[1; 32]);
        assert!(shown.starts_with("https://a.test/x?q=a+b&api_key=") && !shown.contains("opensesame"), "{shown}");
        assert_ne!(shown, without_credentials(&url, &[2; 32]), "who doesn't know the key can't try values");
    }

    #[test]
    fn an_answer_comes_out_of_the_record_as_it_went_in() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_bytes(b"b=\xff").unwrap());
        let answered = Answered::new(StatusCode::IM_A_TEAPOT, &headers, vec![0xff, 0]);
        let recorded = serde_json::to_value(&answered).unwrap();
        let (head, body) = serde_json::from_value::<Answered>(recorded.clone()).unwrap().into_parts();
        assert_eq!((head.status, &head.headers, body), (StatusCode::IM_A_TEAPOT, &headers, vec![0xff, 0]));

        let mut shown = json!({ "ok": recorded });
        redact(&mut shown);
        assert_eq!(shown["ok"]["headers"], json!([["set-cookie", "(hidden)"], ["set-cookie", "(hidden)"]]));
    }
}
