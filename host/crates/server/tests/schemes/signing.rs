//! Tests requests that the host signs in place of a platform: the host accepts them, and reports the reason if it can't
//! sign.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::http::HeaderMap;
use modhost_ingress::sources::schemes::Outgoing;
use modhost_ingress::sources::{Received, Source};
use serde_json::{Value, json};

use super::{headers, receive, source, time};

const NOW: u64 = 1_767_225_600;

/// A scheme, a secret of it, the headers before signing, and a body.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

/// Signs a body. Returns all headers and the body to send.
fn sign<'a>(source: &Source, given: &[(&str, &str)], body: &'a str) -> Result<(HeaderMap, Cow<'a, str>), &'static str> {
    sign_at(source, given, body, time(NOW))
}

/// Like `sign`, at another time.
fn sign_at<'a>(
    source: &Source,
    given: &[(&str, &str)],
    body: &'a str,
    now: SystemTime,
) -> Result<(HeaderMap, Cow<'a, str>), &'static str> {
    let mut all = headers(given.iter().copied());
    let body = match source.scheme.with_current_time(body.as_bytes(), now) {
        Cow::Borrowed(_) => Cow::Borrowed(body),
        Cow::Owned(body) => Cow::Owned(String::from_utf8(body).unwrap()),
    };
    let outgoing = Outgoing { body: body.as_bytes(), headers: &all, now, id: "id_1" };
    let signed = source.scheme.sign(&outgoing, source.keys.first())?;
    all.extend(signed);
    Ok((all, body))
}

#[test]
fn accepts_requests_that_it_signed() {
    let pair = format!("{}{}", "11".repeat(32), public_of_ones());
    let cases: &[Case<'_>] = &[
        ("unique", "usig_1", &[], r#"{"id":"id_1","event":"e","payload":{}}"#),
        ("archivus", "whk_1", &[], r#"{"id":"id_1","type":"e","data":{}}"#),
        ("standard-webhooks", "whsec_c2VzYW1l", &[], r#"{"type":"e"}"#),
        ("standard-webhooks", "whsk_ERERERERERERERERERERERERERERERERERERERERERE=", &[], r#"{"type":"e"}"#),
        ("github", "hush", &[("x-github-event", "e")], "{}"),
        ("stripe", "whsec_1", &[], r#"{"id":"id_1","type":"e"}"#),
        ("slack", "hush", &[], r#"{"event_id":"id_1","event":{"type":"e"}}"#),
        ("shopify", "hush", &[("x-shopify-topic", "e")], "{}"),
        ("linear", "lin_wh_1", &[], r#"{"type":"e","organizationId":"o"}"#),
        ("linear", "lin_wh_1", &[], r#"{"webhookTimestamp": 17, "type":"e"}"#),
        ("discord", &pair, &[], r#"{"type":1,"event":{"type":"e"}}"#),
    ];
    for (scheme, secret, given, body) in cases {
        let source = source(&format!("scheme = {scheme:?}\nsecrets = [\"env:S\"]"), &[("S", secret)]);
        let (headers, body) = sign(&source, given, body).unwrap_or_else(|why| panic!("{scheme}: {why}"));
        match receive(&source, &headers, &body, NOW) {
            Ok(Received::Event(event)) => assert_eq!(event.name, "e", "{scheme}"),
            Ok(Received::Challenge(answer)) => panic!("{scheme}: {answer:?}"),
            Err(rejection) => panic!("{scheme}: {rejection}: {headers:?} {body}"),
        }
    }
}

#[test]
fn sets_the_timestamp_in_the_body_for_linear() {
    let source = source("scheme = \"linear\"\nsecrets = [\"env:S\"]", &[("S", "lin_wh_1")]);
    let dated = |body: &str| {
        String::from_utf8(source.scheme.with_current_time(body.as_bytes(), time(NOW)).into_owned()).unwrap()
    };
    assert_eq!(dated("{}"), r#"{"webhookTimestamp":1767225600000}"#);
    assert_eq!(dated(" { \"a\": 1 }"), r#" {"webhookTimestamp":1767225600000, "a": 1 }"#);
    assert_eq!(
        dated(r#"{"a":{"webhookTimestamp":1}, "webhookTimestamp" : 2 ,"b":"ü"}"#),
        r#"{"a":{"webhookTimestamp":1}, "webhookTimestamp" : 1767225600000 ,"b":"ü"}"#
    );
    for other in ["", "[]", "[{}]", "{", "hello", r#"{"webhookTimestamp":1,"webhookTimestamp":2}"#] {
        assert_eq!(dated(other), other);
    }
}

#[test]
fn fails_to_sign_with_a_public_key() {
    let whpk = "whpk_0EqyMnQrtKs6E2i9RhXk5tAiSrcaAWuvhSCjMsl3hzc=";
    for (scheme, secret, words) in [
        ("standard-webhooks", whpk, "a public key can't sign"),
        ("discord", public_of_ones(), "a public key can't sign"),
    ] {
        let source = source(&format!("scheme = {scheme:?}\nsecrets = [\"env:S\"]"), &[("S", secret)]);
        let why = sign(&source, &[], "{}").unwrap_err();
        assert!(why.contains(words), "{why}");
    }
}

/// The public key of the private key whose bytes are all 0x11.
fn public_of_ones() -> &'static str {
    "d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737"
}

/// Writes requests that the host signs now to the file named by `MODHOST_SIGNED`. Other implementations verify them:
/// see `tests/independent`.
#[test]
#[ignore = "run by tests/independent/run"]
fn requests_for_others() {
    let cases: &[Case<'_>] = &[
        (
            "unique",
            "usig_new",
            &[],
            r#"{"id":"id_1","event":"e","userId":"u","companyId":"c","payload":{"text":"Zoë"}}"#,
        ),
        ("standard-webhooks", "whsec_c2VzYW1l", &[], r#"{"type":"e","name":"Zoë"}"#),
        ("stripe", "whsec_new", &[], r#"{"id":"id_1","object":"event","type":"e","name":"Zoë"}"#),
        ("slack", "hush", &[], r#"{"event_id":"id_1","event":{"type":"e","text":"Zoë"}}"#),
        ("github", "hush", &[("x-github-event", "e")], r#"{"name":"Zoë"}"#),
        (
            "shopify",
            "hush",
            &[
                ("x-shopify-topic", "e"),
                ("x-shopify-shop-domain", "shop.myshopify.com"),
                ("x-shopify-api-version", "2026-01"),
            ],
            r#"{"name":"Zoë"}"#,
        ),
        ("linear", "lin_wh_1", &[], r#"{"type":"e","name":"Zoë","webhookTimestamp":1}"#),
        ("discord", &format!("{}{}", "11".repeat(32), public_of_ones()), &[], r#"{"type":1,"event":{"type":"Zoë"}}"#),
    ];
    let now = SystemTime::now();
    let requests = cases.iter().map(|(scheme, secret, given, body)| {
        let source = source(&format!("scheme = {scheme:?}\nsecrets = [\"env:S\"]"), &[("S", secret)]);
        let (headers, body) = sign_at(&source, given, body, now).unwrap();
        let headers: BTreeMap<_, _> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        json!({ "scheme": scheme, "secrets": [secret], "headers": headers, "body": body })
    });
    let file = std::env::var_os("MODHOST_SIGNED").expect("MODHOST_SIGNED must name a file");
    std::fs::write(file, Value::from_iter(requests).to_string()).unwrap();
}
