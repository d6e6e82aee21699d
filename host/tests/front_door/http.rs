//! Tests of `wasi:http` through a real guest: allowed and refused requests, replay, and the records they leave.

use std::sync::Arc;

use modhost_emulator as local;
use modhost_emulator::{Assistant, LocalPlatform, LocalSettings};
use rcgen::CertifiedKey;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::harness::{
    Host, Settings, chat, chosen_in, component, http, modhost, read_chat, say, signed_post, until, wait_for_answer,
};
use super::server::{Reply, Server, answer, answer_with};

/// A host with the module that sends requests, and with these entries of `http`.
fn guest(entries: &str) -> Settings {
    guest_with(entries, "")
}

fn guest_with(entries: &str, lines: &str) -> Settings {
    Settings::new().module("Test", "http_guest", &format!("http = [{entries}]\n{lines}"))
}

/// An `http` entry for a server of the test, with further settings.
fn here(server: &Server, more: &str) -> String {
    format!("{{ host = \"http://{}\", private = true{more} }}", server.address)
}

async fn ok_server() -> Server {
    Server::always(|| answer(200, "hello")).await
}

/// The result of each command that the module was given.
async fn outcomes(host: &Host, todo: Value) -> Vec<Value> {
    serde_json::from_value(chat(host, "Test", &todo.to_string()).await.json()).unwrap()
}

/// The result of one request.
async fn sent(host: &Host, request: Value) -> Value {
    outcomes(host, json!([{ "send": request }])).await.remove(0)
}

/// The error that the module got for a request.
async fn refused(host: &Host, request: Value) -> String {
    let outcome = sent(host, request.clone()).await;
    outcome["error"].as_str().unwrap_or_else(|| panic!("{request} wasn't refused: {outcome}")).to_owned()
}

async fn api(host: &Host, path: &str) -> Value {
    http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap().json().await.unwrap()
}

/// The newest delivery that is in a state, with all details.
async fn delivery(host: &Host, state: &str) -> Value {
    let id = until(&format!("a delivery to be {state}"), async || {
        let all = api(host, &format!("deliveries?state={state}")).await;
        all["deliveries"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    api(host, &format!("deliveries/{id}")).await
}

/// Waits until the log of the newest completed delivery contains this line. The outcome is recorded after the answer,
/// so the log may be late.
async fn logged_in_delivery(host: &Host, line: &str) -> String {
    until(&format!("{line} in the log of a delivery"), async || {
        let log = delivery(host, "completed").await["attempts_made"].to_string();
        log.contains(line).then_some(log)
    })
    .await
}

#[tokio::test]
async fn sends_requests_and_returns_responses_unchanged() {
    let server = Server::always(|| answer_with(201, &[("x-answer", "yes"), ("set-cookie", "id=7")], "made")).await;
    let host = guest(&here(&server, "")).start().await;
    let url = format!("http://{}/things/%7Eone?a=b%20c&d", server.address);
    let request =
        json!({ "method": "POST", "url": url, "headers": [["x-asked", "so"], ["accept", "a/b"]], "body": "täxt" });
    let outcome = sent(&host, request).await;
    assert_eq!((&outcome["status"], &outcome["body"]), (&json!(201), &json!("made")));
    assert_eq!((&outcome["headers"]["x-answer"], &outcome["headers"]["set-cookie"]), (&json!("yes"), &json!("id=7")));

    let request = server.request();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/things/%7Eone"));
    assert_eq!((request.query.as_deref(), request.body.as_str()), (Some("a=b%20c&d"), "täxt"));
    assert_eq!(request.header("x-asked"), Some("so"));
    assert_eq!(request.header("accept"), Some("a/b"));
    assert_eq!(request.header("host"), Some(server.address.to_string().as_str()));
    assert_eq!(request.header("content-length"), Some("5"));
    assert!(request.header("user-agent").unwrap().starts_with("modhost/"));
}

#[tokio::test]
async fn unsafe_requests_carry_an_idempotency_key() {
    let server = ok_server().await;
    let host = guest(&here(&server, "")).start().await;
    let url = format!("http://{}/", server.address);
    let post = json!({ "send": { "method": "POST", "url": url, "body": "a" } });
    let own = json!({ "send": { "method": "PUT", "url": url, "headers": [["idempotency-key", "mine"]] } });
    let read = json!({ "send": { "url": url } });
    outcomes(&host, json!([post, post, own, read])).await;
    let keys: Vec<_> = server.requests().iter().map(|it| it.header("idempotency-key").map(str::to_owned)).collect();
    assert!(keys[0].as_ref().is_some_and(|key| key.starts_with("dlv_")), "{keys:?}");
    assert_ne!(keys[0], keys[1], "identical requests have different keys");
    assert_eq!(keys[2..], [Some("mine".to_owned()), None]);
}

/// Each line: the request, the error code in the module, the line in the delivery's log.
#[tokio::test]
async fn refuses_hosts_that_are_not_allowed_and_names_the_setting() {
    let (server, other) = (ok_server().await, ok_server().await);
    let host = guest(&here(&server, ", methods = [\"GET\"]")).start().await;
    let (at, elsewhere) = (server.address, other.address);
    let port = at.port();
    let cases = [
        (
            json!({ "url": "https://api.example.com/x?key=opensesame" }),
            "HttpRequestDenied",
            "`GET https://api.example.com/x` is not allowed: add \\\"api.example.com\\\" to `http` of the module (",
        ),
        (json!({ "url": format!("http://{elsewhere}/") }), "HttpRequestDenied", "means plain http on port"),
        (json!({ "url": format!("https://{at}/") }), "HttpRequestDenied", "is not allowed: \\\"http://127.0.0.1:"),
        (json!({ "url": format!("http://localhost:{port}/") }), "HttpRequestDenied", "add \\\"http://localhost:"),
        (
            json!({ "method": "POST", "url": format!("http://{at}/"), "body": "x" }),
            "HttpRequestDenied",
            "its entry allows GET only: add \\\"POST\\\" to `methods` (",
        ),
        (
            json!({ "method": "CONNECT", "url": format!("http://{at}/") }),
            "HttpRequestDenied",
            "CONNECT is closed to modules",
        ),
        (
            json!({ "method": "TRACE", "url": format!("http://{at}/") }),
            "HttpRequestDenied",
            "TRACE is closed to modules",
        ),
        (
            json!({ "method": "get", "url": format!("http://{at}/") }),
            "HttpRequestDenied",
            "add \\\"get\\\" to `methods`",
        ),
        (
            json!({ "url": format!("http://user:opensesame@{at}/") }),
            "HttpRequestUriInvalid",
            "`GET`: its URL is invalid or contains a user",
        ),
        (json!({ "url": format!("http://{at}@api.example.com/") }), "HttpRequestUriInvalid", "contains a user"),
    ];
    for (request, code, line) in cases {
        let error = refused(&host, request.clone()).await;
        assert!(error.contains(code), "{request}: {error}");
        let log = logged_in_delivery(&host, line).await;
        assert!(log.contains("modules.toml:") || code != "HttpRequestDenied" || line.contains("closed"), "{log}");
    }
    // Headers that belong to the connection are refused before the request is made.
    for header in
        ["Host", "Connection", "Transfer-Encoding", "Proxy-Authorization", "Upgrade", "Expect", "TE", "Trailer"]
    {
        let error = refused(&host, json!({ "url": format!("http://{at}/"), "headers": [[header, "x"]] })).await;
        assert!(error.contains("invalid: cannot send a header of the request"), "{header}: {error}");
    }
    let split = json!({ "url": format!("http://{at}/"), "headers": [["x-a", "b\r\nhost: evil.test"]] });
    assert!(refused(&host, split).await.contains("cannot send a header"));
    assert_eq!((server.requests().len(), other.requests().len()), (0, 0));
    assert!(!host.log().contains("opensesame"), "{}", host.log());
}

/// A module that sets a wrong `Content-Length` gets the standard error code, and its log an explanation. Nothing is
/// sent.
#[tokio::test]
async fn explains_a_wrong_content_length() {
    let server = ok_server().await;
    let host = guest(&here(&server, "")).start().await;
    let url = format!("http://{}/", server.address);
    let send = |length: &str, body: &str| json!({ "method": "POST", "url": url, "headers": [["content-length", length]], "body": body });
    let log = |announced: &str, has: &str| {
        format!(
            "its Content-Length says {announced} bytes, but its body has {has}; leave the header out, the host writes it"
        )
    };
    for (length, body, has) in [("3", "body", "more"), ("10", "body", "4"), ("7", "", "none")] {
        let raw = outcomes(&host, json!([{ "raw": send(length, body) }])).await[0].to_string();
        assert!(raw.contains("HttpRequestBodySize") && !raw.contains("HttpProtocolError"), "{length}: {raw}");
        logged_in_delivery(&host, &log(length, has)).await;
        // The Rust SDK detects this before it calls the host.
        let error = refused(&host, send(length, body)).await;
        let words = format!("the request's Content-Length is `{length}`, but its body has {} bytes", body.len());
        assert!(error.contains(&words), "{error}");
    }
    assert_eq!(server.requests().len(), 0, "nothing was sent");
    let raw = outcomes(&host, json!([{ "raw": send("4", "body") }])).await;
    assert_eq!(raw[0], json!(["status: 200"]));
    let server = server.requests();
    assert_eq!((server[0].header("content-length"), server[0].body.as_str()), (Some("4"), "body"));

    // An error names the invalid header.
    let bad = json!({ "url": url, "headers": [["x-good", "1"], ["x bad", "2"]] });
    assert!(refused(&host, bad).await.contains("`x bad` has an invalid name or value"));
    let host_header = json!({ "url": url, "headers": [["host", "x"]] });
    assert!(refused(&host, host_header).await.contains("`host` is set by the host"));
}

/// Private addresses are refused in every notation, even to a module that may send requests anywhere.
#[tokio::test]
async fn refuses_private_addresses_unless_allowed() {
    let server = ok_server().await;
    let port = server.address.port();
    let host = guest(&format!("\"http://*:{port}\"")).start().await;
    for place in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "[::]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "localhost",
        "LOCALHOST",
    ] {
        let error = refused(&host, json!({ "url": format!("http://{place}:{port}/") })).await;
        assert!(error.contains("DestinationIpProhibited"), "{place}: {error}");
        logged_in_delivery(&host, "if this is intended, add private = true to the entry").await;
    }
    assert!(server.requests().is_empty());

    let entry = format!("{{ host = \"http://localhost:{port}\", private = true }}");
    let host = guest(&entry).start().await;
    assert_eq!(sent(&host, json!({ "url": format!("http://localhost:{port}/") })).await["body"], "hello");
}

#[tokio::test]
async fn returns_redirects_without_following_them() {
    let inside = ok_server().await;
    let to = format!("http://{}/secrets", inside.address);
    let location = to.clone();
    let server = Server::always(move || answer_with(302, &[("location", &location)], "")).await;
    let host = guest(&here(&server, "")).start().await;
    let outcome = sent(&host, json!({ "url": format!("http://{}/", server.address) })).await;
    assert_eq!((&outcome["status"], &outcome["headers"]["location"]), (&json!(302), &json!(to)));
    // If the module follows the redirect, that request is checked too.
    assert!(refused(&host, json!({ "url": to })).await.contains("HttpRequestDenied"));
    assert!(inside.requests().is_empty());
}

#[tokio::test]
async fn ignores_proxy_variables() {
    let (server, proxy) = (ok_server().await, ok_server().await);
    let platform = platform().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("modules.toml"), guest(&here(&server, "")).text()).unwrap();
    let through = format!("http://{}", proxy.address);
    let base = platform.api_base().to_string();
    let mut variables = variables(&base);
    variables.extend([("HTTP_PROXY", through.as_str()), ("http_proxy", &through), ("ALL_PROXY", &through)]);
    let host = Host::serve(folder, &variables, Some(&platform)).await;
    let outcomes = deliver_and_wait(&host, json!([{ "send": { "url": format!("http://{}/", server.address) } }])).await;
    assert_eq!(outcomes[0]["body"], "hello");
    assert!(proxy.requests().is_empty());
}

#[tokio::test]
async fn limits_bodies_and_times() {
    let limits = r#"limits = { http = { request = "64KiB", answer = "100KiB", timeout = "700ms" } }"#;
    let large = Server::always(|| answer(200, "y".repeat(100 * 1024))).await;
    let larger = Server::always(|| answer(200, "y".repeat(100 * 1024 + 1))).await;
    let chunked = || {
        let piece = axum::body::Bytes::from("y".repeat(10_000));
        let pieces = (0..20).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
        answer(200, axum::body::Body::from_stream(futures::stream::iter(pieces)))
    };
    let endless = Server::always(chunked).await;
    let silent = Server::always(|| Reply::Silence).await;
    let dripping = || {
        let first = futures::stream::iter([Ok::<_, std::io::Error>("y")]);
        answer(200, axum::body::Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending())))
    };
    let slow = Server::always(dripping).await;
    let many = Server::always(|| answer_with(200, &[("x-large", &"z".repeat(70_000))], "")).await;
    let servers = [&large, &larger, &endless, &silent, &slow, &many];
    let entries: Vec<_> = servers.iter().map(|server| here(server, "")).collect();
    let host = guest_with(&entries.join(", "), limits).start().await;
    let url = |server: &Server| format!("http://{}/", server.address);

    assert_eq!(sent(&host, json!({ "url": url(&large), "length": true })).await, 100 * 1024);
    assert_eq!(
        sent(&host, json!({ "method": "POST", "url": url(&large), "fill": 64 << 10, "length": true })).await,
        100 * 1024
    );
    let cases = [
        (json!({ "url": url(&larger) }), "HttpResponseBodySize", "larger than 100.0 KiB, `limits.http.answer`"),
        (json!({ "url": url(&endless) }), "HttpResponseBodySize", "larger than 100.0 KiB"),
        (
            json!({ "method": "POST", "url": url(&large), "fill": (64 << 10) + 1 }),
            "HttpRequestBodySize",
            "larger than 64.0 KiB, `limits.http.request`",
        ),
        (json!({ "url": url(&silent) }), "timed out", "no whole answer after 700ms, `limits.http.timeout`"),
        (json!({ "url": url(&slow) }), "timed out", "no whole answer after 700ms, `limits.http.timeout`"),
        (json!({ "url": url(&silent), "timeout_ms": 50 }), "timed out", "no data received for 50ms"),
        (json!({ "url": url(&slow), "timeout_ms": 50 }), "timed out", "no data received for 50ms"),
        (json!({ "url": url(&many) }), "HttpResponseHeaderSectionSize", "the headers of the answer have 70"),
    ];
    for (request, code, line) in cases {
        let error = refused(&host, request.clone()).await;
        assert!(error.contains(code), "{request}: {error}");
        logged_in_delivery(&host, line).await;
    }
    assert_eq!(large.requests().len(), 2, "a body that is too large isn't sent");
}

#[tokio::test]
async fn tenant_and_server_ceilings_apply() {
    let large = Server::always(|| answer(200, "y".repeat(3 * 1024))).await;
    let silent = Server::always(|| Reply::Silence).await;
    let entries = [&large, &silent].map(|server| here(server, "")).join(", ");
    let host = guest_with(&entries, r#"limits = { http = { answer = "2KiB", timeout = "1m" } }"#)
        .tenant("[tenant.limits]\nhttp = { answer = \"1KiB\", timeout = \"300ms\" }")
        .server("[server.ceilings.http]\nrequest = \"1KiB\"\ntimeout = \"2m\"")
        .start()
        .await;
    let url = |server: &Server| format!("http://{}/", server.address);
    for (request, line) in [
        (json!({ "url": url(&large) }), "larger than 1.0 KiB, `limits.http.answer` of the tenant"),
        (json!({ "url": url(&silent) }), "no whole answer after 300ms, `limits.http.timeout` of the tenant"),
        (
            json!({ "method": "POST", "url": url(&large), "fill": 1025 }),
            "its body is larger than 1.0 KiB, `http.request` of [server.ceilings]",
        ),
    ] {
        refused(&host, request).await;
        logged_in_delivery(&host, line).await;
    }
}

#[tokio::test]
async fn network_errors_have_their_codes() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let broken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let breaks = broken.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = broken.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        }
    });
    let entries = format!(
        "{{ host = \"http://{closed}\", private = true }}, {{ host = \"http://{breaks}\", private = true }}, \
         \"http://nowhere.invalid\""
    );
    let host = guest(&entries).start().await;
    let cases = [
        (format!("http://{closed}/"), "ConnectionRefused", "`: the connection failed: "),
        (format!("http://{breaks}/"), "HttpResponseIncomplete", "the connection failed: end of file before"),
        ("http://nowhere.invalid/".to_owned(), "DnsError", "the name nowhere.invalid can't be resolved"),
    ];
    for (url, code, line) in cases {
        let error = refused(&host, json!({ "url": url })).await;
        assert!(error.contains(code) && error.contains("unavailable"), "{url}: {error}");
        logged_in_delivery(&host, line).await;
    }
}

/// A TLS server with this certificate that answers every request.
async fn tls_server(pair: &CertifiedKey<rcgen::KeyPair>) -> u16 {
    http(); // installs the TLS provider
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
            let _ = socket.shutdown().await;
        }
    });
    port
}

#[tokio::test]
async fn verifies_certificates_and_names() {
    let pair = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let port = tls_server(&pair).await;
    let entries =
        format!("{{ host = \"localhost:{port}\", private = true }}, {{ host = \"127.0.0.1:{port}\", private = true }}");
    let todo = json!([
        { "send": { "url": format!("https://localhost:{port}/") } },
        { "send": { "url": format!("https://127.0.0.1:{port}/") } },
    ]);
    let host = guest(&entries).start().await;
    for outcome in outcomes(&host, todo.clone()).await {
        assert!(outcome["error"].as_str().unwrap().contains("TlsCertificateError"), "{outcome}");
    }

    // A certificate of a trusted authority is accepted for its own name only.
    let (platform, folder) = (platform().await, tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("modules.toml"), guest(&entries).text()).unwrap();
    let file = folder.path().join("authorities.pem");
    std::fs::write(&file, pair.cert.pem()).unwrap();
    let base = platform.api_base().to_string();
    let mut variables = variables(&base);
    variables.push(("SSL_CERT_FILE", file.to_str().unwrap()));
    let host = Host::serve(folder, &variables, Some(&platform)).await;
    let outcomes = deliver_and_wait(&host, todo).await;
    assert_eq!(outcomes[0]["body"], "ok", "{outcomes:?}");
    assert!(outcomes[1]["error"].as_str().unwrap().contains("TlsCertificateError"), "{outcomes:?}");
}

#[tokio::test]
async fn refuses_to_load_a_module_without_http_entries() {
    let host = Settings::new().module("Test", "http_guest", "").start().await;
    let why = host.module("Test").await["refused"].as_str().unwrap().to_owned();
    assert!(why.starts_with("it imports wasi:http/outgoing-handler@0.2."), "{why}");
    assert!(
        why.contains("add http = [\"api.example.com\"], with the hosts it needs, to the module in modules.toml ("),
        "{why}"
    );
    // The line from the message is sufficient.
    host.save_settings(&guest("\"api.example.com\""));
    until("the module to serve", async || host.module("Test").await["refused"].is_null().then_some(())).await;
    // Removing it takes effect at once: the module still runs, but its requests are refused.
    host.save_settings(&Settings::new().module("Test", "http_guest", ""));
    host.logged(&["new settings in use"]).await;
    assert!(refused(&host, json!({ "url": "https://api.example.com/" })).await.contains("HttpRequestDenied"));

    let checked = modhost(host.folder(), "check", &[component("http_guest").to_str().unwrap()], &[]).await;
    assert!(checked.stdout.contains("http      = [\"api.example.com\"]"), "{}", checked.stdout);
}

#[tokio::test]
async fn retry_replays_requests() {
    let server = Server::always(|| answer_with(200, &[("set-cookie", "session=opensesame")], "sent")).await;
    let host = guest_with(&here(&server, ""), "retry = { attempts = 3, first = \"1ms\", max = \"2ms\" }").start().await;
    let url = format!("http://{}/?api_key=opensesame", server.address);
    let cookie = json!([["cookie", "a=opensesame"], ["authorization", "Bearer opensesame"], ["x-plain", "shown"]]);
    let todo = json!([
        { "send": { "method": "POST", "url": url, "body": "once" } },
        { "send": { "url": url, "headers": cookie } },
        { "send": { "url": "https://not.allowed.example" } },
        { "count": "runs" },
        { "fail": "not yet" },
    ]);
    chat(&host, "Test", &todo.to_string()).await;
    let dead = delivery(&host, "dead").await;
    assert_eq!(dead["attempts"], 3);
    let methods: Vec<_> = server.requests().iter().map(|it| it.method.to_string()).collect();
    assert_eq!(methods, ["POST", "GET"]);
    assert_eq!(server.requests()[1].header("cookie"), Some("a=opensesame"));

    // Operators see the request but no credentials.
    let calls = dead["calls"].as_array().unwrap();
    let imports: Vec<_> = calls.iter().map(|call| call["import"].as_str().unwrap()).collect();
    assert_eq!(imports[..4], ["wasi:http.handle", "wasi:http.handle", "wasi:http.handle", "keyvalue.increment"]);
    assert_eq!(calls[0]["arguments"]["body"], "once");
    assert!(calls[1]["arguments"].to_string().contains("shown"));
    assert_eq!(calls[2]["answer"]["error"]["code"], "HTTP-request-denied");
    let id = dead["id"].as_str().unwrap();
    let shown = modhost(host.folder(), "deliveries", &["show", id, "--admin", &host.admin], &[]).await;
    assert!(shown.stdout.contains("wasi:http.handle"), "{shown:?}");
    let (dead, log) = (calls.iter().map(Value::to_string).collect::<String>(), host.log());
    for text in [&dead, &shown.stdout[shown.stdout.find("calls").unwrap()..].to_owned()] {
        assert!(!text.contains("opensesame"), "{text}");
    }
    // The user's message contains the secret; it must not be in the log.
    assert!(!log.contains("opensesame"), "{log}");
}

/// A request that the guest stopped waiting for leaves no gap in the call log; a gap would truncate the log there.
#[tokio::test]
async fn replays_requests_after_an_abandoned_one() {
    let (silent, server) = (Server::always(|| Reply::Silence).await, ok_server().await);
    let retry = "retry = { attempts = 3, first = \"1ms\", max = \"2ms\" }";
    let host = guest_with(&format!("{}, {}", here(&silent, ""), here(&server, "")), retry).start().await;
    let todo = json!([
        { "begin": { "url": format!("http://{}/", silent.address) } },
        { "send": { "method": "POST", "url": format!("http://{}/", server.address), "body": "once" } },
        { "fail": "not yet" },
    ]);
    chat(&host, "Test", &todo.to_string()).await;
    assert_eq!(delivery(&host, "dead").await["attempts"], 3);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn concurrent_requests_are_recorded_in_guest_order() {
    let server = ok_server().await;
    let host = guest(&here(&server, "")).start().await;
    let url = format!("http://{}/", server.address);
    // Starts a request and makes another call before polling the response.
    let round = |n: usize| json!([{ "begin": { "method": "POST", "url": url, "fill": 20_000 + n } }, { "count": "n" }]);
    let mut todo: Vec<Value> = (0..20).flat_map(|n| round(n).as_array().unwrap().clone()).collect();
    todo.push(json!("finish"));
    let outcomes = outcomes(&host, Value::from(todo)).await;
    assert_eq!(outcomes.last().unwrap(), &json!(vec![200; 20]));
    let calls = delivery(&host, "completed").await["calls"].clone();
    let imports: Vec<_> = calls.as_array().unwrap().iter().map(|call| call["import"].as_str().unwrap()).collect();
    assert_eq!(imports[..40], ["wasi:http.handle", "keyvalue.increment"].repeat(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_requests_are_not_resent_after_a_kill() {
    let server = Server::scripted([answer(200, "first"), Reply::Silence, answer(200, "second")]).await;
    let (platform, folder) = (platform().await, tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("modules.toml"), guest(&here(&server, "")).text()).unwrap();
    let base = platform.api_base().to_string();
    let host = Host::serve(folder, &variables(&base), Some(&platform)).await;
    let post = |body: &str| json!({ "send": { "method": "POST", "url": format!("http://{}/", server.address), "body": body } });
    let chat_id = deliver_event(&host, &json!([post("one"), post("two")])).await;
    until("the second request", async || (server.requests().len() == 2).then_some(())).await;

    let host = Host::serve(host.kill(), &variables(&base), Some(&platform)).await;
    let answer = wait_for_answer(&host, &chat_id).await.json();
    assert_eq!((&answer[0]["body"], &answer[1]["body"]), (&json!("first"), &json!("second")));
    let requests = server.requests();
    let bodies: Vec<_> = requests.iter().map(|it| it.body.as_str()).collect();
    assert_eq!(bodies, ["one", "two", "two"], "the answered request must not be resent, the one in flight must");
    assert_eq!(requests[1].header("idempotency-key"), requests[2].header("idempotency-key"));
    // The attempt is counted when it has ended, after its reply is visible.
    until("the repeated call to be counted", async || {
        (api(&host, "totals").await["calls_made_again"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn guest_never_sees_host_credentials() {
    let server = ok_server().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |folder: &TempDir, value: &str| std::fs::write(folder.path().join("token"), value).unwrap();
    write(&folder, "opensesame-one\n");
    let headers = r#", headers = { authorization = "Bearer file:token", x-api-key = "file:token" }"#;
    let entry =
        here(&server, headers).replace("file:token", &format!("file:{}", folder.path().join("token").display()));
    let host = guest(&entry).start_in(folder).await;
    let url = format!("http://{}/", server.address);
    // A value that the module sets itself is overridden.
    let outcome = sent(&host, json!({ "url": url, "headers": [["authorization", "Bearer mine"]] })).await;
    assert_eq!(outcome["status"], 200);
    let request = server.request();
    assert_eq!(request.header("authorization"), Some("Bearer opensesame-one"));
    assert_eq!(request.headers.get_all("authorization").iter().count(), 1);
    assert_eq!(request.header("x-api-key"), Some("opensesame-one"));

    // After a rotation, the new credential is used.
    host.save("token", "opensesame-two");
    host.logged(&["new settings in use"]).await;
    sent(&host, json!({ "url": url })).await;
    assert_eq!(server.requests()[1].header("x-api-key"), Some("opensesame-two"));

    assert!(!host.log().contains("opensesame"), "{}", host.log());
    assert!(!delivery(&host, "completed").await.to_string().contains("opensesame"));
    for file in std::fs::read_dir(host.file(".modhost")).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = if file.is_file() { std::fs::read(&file).unwrap() } else { Vec::new() };
        assert!(!bytes.windows(10).any(|window| window == b"opensesame"), "{}", file.display());
    }
}

#[tokio::test]
async fn service_status_sample_reports_services() {
    let (up, down) = (ok_server().await, Server::always(|| answer(500, "")).await);
    let services =
        format!("Down = \"http://{}/\", Up = \"http://{}/\", X = \"https://x.example/\"", down.address, up.address);
    let lines = format!("config = {{ services = {{ {services} }} }}\nhttp = [{}, {}]", here(&up, ""), here(&down, ""));
    let host = Settings::new().module("Status", "service_status", &lines).start().await;
    let answer = chat(&host, "Status", "is everything up?").await;
    assert_eq!(
        answer.text(),
        "- **Down** answers with an error (500)\n- **Up** is up (200)\n- **X** is not an allowed host"
    );
    assert_eq!(answer.steps(), [("Asking 3 services…", "COMPLETED")]);
}

/// A platform with the module `Test` that doesn't deliver events itself.
pub async fn platform() -> LocalPlatform {
    let assistant = Assistant {
        id: "assistant_Test".into(),
        name: "Test".into(),
        module: "Test".into(),
        configuration: json!({}),
        chooses: true,
        tenant: None,
    };
    LocalPlatform::start(LocalSettings { assistants: vec![assistant], ..LocalSettings::default() }).await.unwrap()
}

/// The environment variables of a host for a platform at this address.
pub fn variables(base: &str) -> Vec<(&str, &str)> {
    vec![
        ("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET),
        ("TEST_API_BASE", base),
        ("TEST_APP_ID", local::APP_ID),
        ("TEST_API_KEY", local::API_KEY),
    ]
}

/// Delivers an event to the module on a platform that doesn't deliver itself; returns the chat's id.
pub async fn deliver_event(host: &Host, todo: &Value) -> String {
    let chat_id = say(&host.platform, "Test", &todo.to_string()).await;
    let event = chosen_in(&read_chat(&host.platform, &chat_id).await, "Test");
    assert!(signed_post(&host.webhook, event.to_string()).await.status().is_success());
    chat_id
}

async fn deliver_and_wait(host: &Host, todo: Value) -> Vec<Value> {
    let chat_id = deliver_event(host, &todo).await;
    serde_json::from_value(wait_for_answer(host, &chat_id).await.json()).unwrap()
}
