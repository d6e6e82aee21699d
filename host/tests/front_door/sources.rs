//! Tests of sources of every scheme through the real listener: responses, secrets that change at run time, and
//! deduplication.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use modhost_config::{Environment, Settings as Config};
use modhost_ingress::sources::schemes::{self, Outgoing};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::harness::{CommandOutput, Host, Variables, component, http, modhost, until};

const VARIABLES: Variables<'static> = &[
    ("TEST_API_BASE", "http://127.0.0.1:1"),
    ("TEST_APP_ID", "app"),
    ("TEST_API_KEY", "key"),
    ("UNIQUE", "usig_1"),
    ("NEXUS", "open sesame"),
    ("ARCHIVUS", "whk_1"),
    ("STANDARD", "whsec_c2VzYW1l"),
    ("HUSH", "hush"),
    ("STRIPE", "whsec_1"),
    // A key pair for the test to sign with; every byte of the private key is 0x11.
    (
        "DISCORD",
        "1111111111111111111111111111111111111111111111111111111111111111\
         d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737",
    ),
];

/// Header names and values.
type Lines<'a> = &'a [(&'a str, &'a str)];

const TENANT: &str = r#"
[[tenant]]
name = "default"
platform = { kind = "unique", api_base = "env:TEST_API_BASE", app_id = "env:TEST_APP_ID", api_key = "env:TEST_API_KEY" }
"#;

/// One source of each scheme.
const EACH: &str = r#"
[[source]]
name = "unique"
path = "/unique"
scheme = "unique"
secrets = ["env:UNIQUE"]

[[source]]
name = "nexus"
path = "/nexus"
scheme = "nexus"
header = "nexus-signature"
secrets = ["env:NEXUS"]

[[source]]
name = "archivus"
path = "/archivus"
scheme = "archivus"
secrets = ["env:ARCHIVUS"]

[[source]]
name = "standard-webhooks"
path = "/standard-webhooks"
scheme = "standard-webhooks"
secrets = ["env:STANDARD"]

[[source]]
name = "github"
path = "/github"
scheme = "github"
secrets = ["env:HUSH"]

[[source]]
name = "stripe"
path = "/stripe"
scheme = "stripe"
secrets = ["env:STRIPE"]

[[source]]
name = "slack"
path = "/slack"
scheme = "slack"
secrets = ["env:HUSH"]

[[source]]
name = "shopify"
path = "/shopify"
scheme = "shopify"
secrets = ["env:HUSH"]

[[source]]
name = "linear"
path = "/linear"
scheme = "linear"
secrets = ["env:HUSH"]

[[source]]
name = "discord"
path = "/discord"
scheme = "discord"
secrets = ["env:DISCORD"]

[[source]]
name = "hmac"
path = "/hmac"
scheme = "hmac"
header = "X-Signature"
secrets = ["env:HUSH"]

[[source]]
name = "none"
path = "/none"
scheme = "none"
"#;

/// Starts a host with these sources and a module that logs each event with one of these names.
async fn host(sources: &str, events: &[&str]) -> Host {
    Host::serve(folder("", sources, events), VARIABLES, None).await
}

fn folder(server: &str, sources: &str, events: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let component = component("test_guest");
    let module = format!("[[module]]\nname = \"Test\"\ncomponent = {component:?}\nevents = {events:?}\n");
    let text = format!("[server]\n{server}\n{sources}\n{TENANT}\n{}", if events.is_empty() { "" } else { &module });
    fs::write(folder.path().join("modules.toml"), text).unwrap();
    folder
}

/// Posts a body as the platform of a source would, with additional headers.
async fn send(host: &Host, source: &str, given: Lines<'_>, body: &str) -> Response {
    let config = Config::load(host.file("modules.toml")).unwrap();
    let settings = config.sources.iter().find(|it| it.name.as_str() == source).unwrap().webhook().unwrap();
    let scheme = schemes::scheme(&settings.scheme);
    let environment: Environment = VARIABLES.iter().copied().collect();
    let keys = settings.secrets.iter().map(|it| scheme.key(&it.resolve(&environment).unwrap()).unwrap());
    let key = keys.collect::<Vec<_>>().pop();
    let now = SystemTime::now();
    let body = scheme.with_current_time(body.as_bytes(), now).into_owned();
    let mut headers = headers(given);
    let id = "id_1";
    headers.extend(scheme.sign(&Outgoing { body: &body, headers: &headers, now, id }, key.as_ref()).unwrap());
    post(host, &settings.path, headers, body).await
}

async fn post(host: &Host, path: &str, headers: HeaderMap, body: Vec<u8>) -> Response {
    // The host prints the webhook address with the path of the first source.
    let address = host.webhook.split('/').take(3).collect::<Vec<_>>().join("/");
    http().post(format!("{address}{path}")).headers(headers).body(body).send().await.unwrap()
}

fn headers(lines: Lines<'_>) -> HeaderMap {
    let line = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    lines.iter().map(line).collect()
}

/// Checks the status of a response, and its body unless `body` is null.
async fn answered(answer: Response, status: u16, body: Value) {
    let found = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let json: Value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    assert_eq!((found, json), (status, body));
}

async fn refused(answer: Response, status: StatusCode, words: &str) {
    let (found, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(found, status, "{body}");
    assert!(body["error"].as_str().unwrap().contains(words), "{words:?} is not in {body}");
}

#[tokio::test]
async fn answers_in_the_format_of_each_scheme() {
    let host = host(EACH, &[]).await;
    let success = json!({ "success": true });
    let events: [(&str, Lines<'_>, &str); 11] = [
        ("unique", &[], r#"{"id":"1","event":"e","payload":{}}"#),
        ("nexus", &[], r#"{"event":"e","payload":{"id":"1","updatedAt":"2"}}"#),
        ("archivus", &[], r#"{"id":"1","type":"e","data":{}}"#),
        ("standard-webhooks", &[], r#"{"type":"e"}"#),
        ("github", &[("x-github-event", "issues")], r#"{"action":"opened"}"#),
        ("stripe", &[], r#"{"id":"1","type":"e"}"#),
        ("slack", &[], r#"{"type":"event_callback","event_id":"1","event":{"type":"e"}}"#),
        ("shopify", &[("x-shopify-topic", "orders/create")], "{}"),
        ("linear", &[], r#"{"type":"Issue","action":"create"}"#),
        ("hmac", &[], r#"{"any":1}"#),
        ("none", &[], r#"{"any":1}"#),
    ];
    for (source, headers, body) in events {
        answered(send(&host, source, headers, body).await, 200, success.clone()).await;
        // Not JSON, but signed.
        let answer = send(&host, source, headers, "hello").await;
        assert_eq!(answer.headers().contains_key("retry-after"), answer.status().is_server_error(), "{source}");
        refused(answer, not_json(source), not_json_words(source)).await;
        if source != "none" {
            let forged = post(&host, &format!("/{source}"), HeaderMap::new(), body.into()).await;
            let status = if ["unique", "stripe"].contains(&source) { 400 } else { 401 };
            refused(forged, StatusCode::from_u16(status).unwrap(), "missing header").await;
        }
    }
    // Challenges of the platform to the endpoint.
    let ping = r#"{"zen":"Keep it logically awesome.","hook_id":1}"#;
    answered(send(&host, "github", &[("x-github-event", "ping")], ping).await, 200, success.clone()).await;
    let challenge = r#"{"type":"url_verification","challenge":"3eZbrw1a\"<b>"}"#;
    answered(send(&host, "slack", &[], challenge).await, 200, json!({ "challenge": "3eZbrw1a\"<b>" })).await;
    refused(
        post(&host, "/slack", HeaderMap::new(), challenge.into()).await,
        StatusCode::UNAUTHORIZED,
        "missing header X-Slack-Signature",
    )
    .await;
}

fn not_json(source: &str) -> StatusCode {
    match source {
        // Linear's timestamp is in the body.
        "linear" => StatusCode::UNAUTHORIZED,
        // As Archivus' documentation requires.
        "archivus" => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn not_json_words(source: &str) -> &'static str {
    if source == "linear" { "the body has no `webhookTimestamp`" } else { "the body is not JSON" }
}

#[tokio::test]
async fn answers_discord_in_its_protocol() {
    let host = host(EACH, &["blep", "click", "form"]).await;
    let ask = async |body: &str| send(&host, "discord", &[], body).await;
    answered(ask(r#"{"type":1,"id":"1"}"#).await, 200, json!({ "type": 1 })).await;
    let ping = ask(r#"{"type":0,"version":1}"#).await;
    assert_eq!(ping.headers()["content-type"], "application/json");
    answered(ping, 204, Value::Null).await;
    answered(ask(r#"{"type":1,"event":{"type":"QUEST_USER_ENROLLMENT"}}"#).await, 204, Value::Null).await;
    answered(ask(r#"{"type":2,"data":{"name":"blep"}}"#).await, 200, json!({ "type": 5 })).await;
    answered(ask(r#"{"type":3,"data":{"custom_id":"click"}}"#).await, 200, json!({ "type": 6 })).await;
    answered(ask(r#"{"type":5,"data":{"custom_id":"form"}}"#).await, 200, json!({ "type": 5 })).await;
    // Unusual values elsewhere in the body don't matter.
    let unusual = r#"{"type":2,"data":{"name":"blep","options":[{"value":"\ud83d"},1e400]},"user":{"id":"U1"}}"#;
    answered(ask(unusual).await, 200, json!({ "type": 5 })).await;
    // An event that no module answers gets a visible reply instead of a pending one.
    let nobody = json!({ "type": 4, "data": { "content": "Nothing here answers this.", "flags": 64 } });
    for body in [r#"{"type":2,"data":{"name":"other"}}"#, r#"{"type":3,"data":{"custom_id":"other"}}"#] {
        answered(ask(body).await, 200, nobody.clone()).await;
    }
    let proposals = json!({ "type": 8, "data": { "choices": [] } });
    answered(ask(r#"{"type":4,"data":{"name":"blep"}}"#).await, 200, proposals).await;
    // Discord probes endpoints with a bad signature.
    let wrong = [("x-signature-ed25519", "00".repeat(64)), ("x-signature-timestamp", "1767225600".to_owned())];
    let wrong = headers(&wrong.each_ref().map(|(name, value)| (*name, value.as_str())));
    refused(
        post(&host, "/discord", wrong, br#"{"type":1}"#.into()).await,
        StatusCode::UNAUTHORIZED,
        "invalid signature",
    )
    .await;
}

#[tokio::test]
async fn reloads_secrets_from_files() {
    let source = r#"
[[source]]
name = "in"
path = "/in"
scheme = "standard-webhooks"
secrets = ["file:new", "file:old"]
"#;
    let folder = folder("removal_grace = \"0s\"", source, &[]);
    let secret = |bytes: &str| format!("whsec_{}", base64(bytes));
    fs::write(folder.path().join("new"), secret("first")).unwrap();
    fs::write(folder.path().join("old"), secret("older")).unwrap();
    let host = Host::serve(folder, VARIABLES, None).await;
    let knock = async |key: &str| {
        let scheme =
            schemes::scheme(&Config::load(host.file("modules.toml")).unwrap().sources[0].webhook().unwrap().scheme);
        let key = scheme.key(&modhost_core::secret::Secret::new(secret(key))).unwrap();
        let body = br#"{"type":"e"}"#;
        let outgoing = Outgoing { body, headers: &HeaderMap::new(), now: SystemTime::now(), id: "id_1" };
        let headers = scheme.sign(&outgoing, Some(&key)).unwrap();
        post(&host, "/in", headers, body.into()).await.status()
    };
    assert_eq!((knock("first").await, knock("older").await), (StatusCode::OK, StatusCode::OK));
    assert_eq!(knock("second").await, StatusCode::UNAUTHORIZED);

    host.save("new", secret("second"));
    until("the new secret to be accepted", async || (knock("second").await == StatusCode::OK).then_some(())).await;
    assert_eq!((knock("first").await, knock("older").await), (StatusCode::UNAUTHORIZED, StatusCode::OK));

    // A secret in a wrong format changes nothing and isn't printed.
    host.save("new", "open sesame, dear door");
    let line = host.logged(&["a secret of the source", "can't be used with its scheme"]).await;
    assert!(line.contains("modules.toml:"), "{line}");
    host.logged(&["it should be base64 with the prefix whsec_"]).await;
    assert_eq!((knock("second").await, knock("older").await), (StatusCode::OK, StatusCode::OK));
    assert!(!host.log().contains("open sesame"), "{}", host.log());
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn refuses_to_start_with_a_malformed_secret() {
    let wrong = [
        (
            "standard-webhooks",
            "STRIPE",
            "",
            "it should be base64 with the prefix whsec_, or for Ed25519 whpk_ or whsk_",
        ),
        ("standard-webhooks", "PUBLIC", "", "whpk_ should be followed by 32 bytes in base64"),
        ("stripe", "HUSH", "", "it should start with whsec_: the endpoint's signing secret, not an API key"),
        ("slack", "TOKEN", "", "it is a token; Slack signs with the app's signing secret"),
        ("discord", "HUSH", "", "it should be the application's public key, 64 hex digits"),
        ("nexus", "SPACED", "header = \"x\"", "it is not a valid header value"),
        ("hmac", "HUSH", "header = \"x\"\nsecret_encoding = \"hex\"", "it should be written in hex"),
        ("hmac", "HUSH!", "header = \"x\"\nsecret_encoding = \"base64\"", "it should be written in base64"),
    ];
    let more =
        [("PUBLIC", "whpk_c2VzYW1l"), ("TOKEN", "xoxb-sesame"), ("SPACED", " sesame"), ("STRIPE", "whsec_sesame!")];
    let variables = [&VARIABLES[..3], &[("HUSH", "hush sesame!")], &more].concat();
    for (scheme, secret, lines, form) in wrong {
        let secret = secret.trim_end_matches('!');
        let source = format!(
            "[[source]]\nname = \"in\"\npath = \"/in\"\nscheme = {scheme:?}\nsecrets = [\"env:{secret}\"]\n{lines}\n"
        );
        let folder = folder("", &source, &[]);
        let CommandOutput { code, stderr, .. } = modhost(folder.path(), "serve", &["--port", "0"], &variables).await;
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("a secret of the source \"in\" can't be used with its scheme"), "{stderr}");
        assert!(stderr.contains(form) && stderr.contains("modules.toml:7:"), "{form}: {stderr}");
        assert!(!stderr.contains("sesame"), "{stderr}");
    }
}

#[tokio::test]
async fn deduplicates_by_configured_fields_across_restarts() {
    let sources = r#"
[[source]]
name = "configured"
path = "/configured"
scheme = "hmac"
header = "X-Signature"
secrets = ["env:HUSH"]
event = { id = ["body:order.id", "body:order.version"], name = "text:order" }

[[source]]
name = "hashed"
path = "/hashed"
scheme = "hmac"
header = "X-Signature"
secrets = ["env:HUSH"]
event = { name = "text:order" }
"#;
    let data = tempfile::tempdir().unwrap();
    let folder = || folder(&format!("data_dir = {:?}", data.path()), sources, &["order"]);
    let lines = |host: &Host, words: &str| host.log().lines().filter(|line| line.contains(words)).count();
    // Each event is either new or a duplicate.
    let counted = |host: &Host| (lines(host, " accepted "), lines(host, "duplicate event"));
    let deliver = async |host: &Host, source: &str, body: &str, again: usize| {
        let (new, known) = counted(host);
        assert_eq!(send(host, source, &[], body).await.status(), StatusCode::OK);
        let next =
            until("the event to be counted", async || Some(counted(host)).filter(|it| *it != (new, known))).await;
        assert_eq!(next, (new + 1 - again, known + again), "{body}");
    };
    let mut host = Host::serve(folder(), VARIABLES, None).await;
    deliver(&host, "configured", r#"{"order":{"id":1,"version":1}}"#, 0).await;
    deliver(&host, "configured", r#"{"order":{"version":1,"id":1},"attempt":2}"#, 1).await;
    deliver(&host, "configured", r#"{"order":{"id":1,"version":2}}"#, 0).await;
    deliver(&host, "hashed", r#"{"order":{"id":1}}"#, 0).await;
    deliver(&host, "hashed", r#"{"order":{"id":1}}"#, 1).await;
    deliver(&host, "hashed", r#"{"order":{"id": 1}}"#, 0).await;
    refused(
        send(&host, "configured", &[], r#"{"order":{"id":1}}"#).await,
        StatusCode::SERVICE_UNAVAILABLE,
        "its id is missing, `order.version` in the body",
    )
    .await;
    assert!(host.stop().await.success());

    let host = Host::serve(folder(), VARIABLES, None).await;
    for (source, body) in [
        ("configured", r#"{"order":{"id":1,"version":2},"attempt":3}"#),
        ("hashed", r#"{"order":{"id":1}}"#),
        ("hashed", r#"{"order":{"id": 1}}"#),
    ] {
        deliver(&host, source, body, 1).await;
    }
    deliver(&host, "hashed", r#"{"order":{"id":2}}"#, 0).await;
}

#[tokio::test]
async fn unverified_source_accepts_only_local_requests() {
    let host = host(EACH, &[]).await;
    host.logged(&["WARN", "the source \"none\" verifies nothing: any program on this machine can send events"]).await;
    let knock = async |lines: Lines<'_>| post(&host, "/none", headers(lines), b"{}".into()).await;
    assert_eq!(knock(&[]).await.status(), StatusCode::OK);
    for name in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"] {
        refused(knock(&[(name, "1")]).await, StatusCode::UNAUTHORIZED, "passed on by a proxy").await;
    }
    for name in ["origin", "sec-fetch-site"] {
        refused(knock(&[(name, "null")]).await, StatusCode::UNAUTHORIZED, "a web page sent the request").await;
    }

    let source = "[[source]]\nname = \"open\"\npath = \"/open\"\nscheme = \"none\"\n";
    let open = folder("listen = \"0.0.0.0:0\"", source, &[]);
    let CommandOutput { code, stderr, .. } = modhost(open.path(), "serve", &["--admin-port", "0"], VARIABLES).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("this source verifies nothing and is reachable from other machines"), "{stderr}");

    let anywhere = folder("listen = \"0.0.0.0:0\"", &format!("{source}from_anywhere = true\n"), &[]);
    let host = Host::serve(anywhere, VARIABLES, None).await;
    host.logged(&["WARN", "the source \"open\" verifies nothing: anyone who can reach the host can send events"]).await;
    let port = host.webhook.replace("0.0.0.0", "127.0.0.1");
    let answer = http().post(port).header("x-forwarded-for", "203.0.113.7").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn limits_events_per_source_without_counting_bad_signatures() {
    let sources = r#"
[[source]]
name = "slow"
path = "/slow"
scheme = "hmac"
header = "X-Signature"
secrets = ["env:HUSH"]
events_per_second = 1

[[source]]
name = "quick"
path = "/quick"
scheme = "hmac"
header = "X-Signature"
secrets = ["env:HUSH"]
"#;
    let host = host(sources, &[]).await;
    for _ in 0..20 {
        let forged = post(&host, "/slow", headers(&[("x-signature", "00")]), b"{}".into()).await;
        assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
    }
    // The burst is five seconds of events; on a slow machine one or two more are accepted meanwhile.
    let mut accepted_count = 0;
    let answer = loop {
        let answer = send(&host, "slow", &[], &format!("{{\"number\":{accepted_count}}}")).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        accepted_count += 1;
    };
    assert!(accepted_count >= 5, "only {accepted_count} events were accepted");
    assert_eq!(answer.headers()["retry-after"], "1");
    refused(
        answer,
        StatusCode::TOO_MANY_REQUESTS,
        "events arrive faster than `events_per_second` of this source allows",
    )
    .await;
    assert_eq!(send(&host, "quick", &[], "{}").await.status(), StatusCode::OK);
    host.logged(&["WARN", "`events_per_second` of the source is reached", "source=slow"]).await;
}

/// Checks that `EACH` covers every scheme.
#[test]
fn test_sources_cover_every_scheme() {
    let vectors =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/server/tests/schemes/vectors")).unwrap();
    for vector in vectors {
        let name = vector.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(EACH.contains(&format!("scheme = {name:?}\n")), "{name}");
    }
}
