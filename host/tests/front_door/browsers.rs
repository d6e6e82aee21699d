//! Tests that a web page can't use the user's browser to attack a host on the same machine.
//!
//! A page can send requests to 127.0.0.1. With DNS rebinding (its own name resolves to 127.0.0.1) it can also read the
//! responses.

use std::fs;
use std::net::SocketAddr;

use reqwest::{Client, Method, StatusCode, Version};
use serde_json::{Value, json};

use super::harness::{
    ADMIN_TOKEN, CommandOutput, Host, Settings, Wire, http, modhost, signed_post, until, user_message,
};

/// Requests to the admin listener that must be refused if a web page sends them.
const ADMIN: [(Method, &str); 8] = [
    (Method::GET, "/health"),
    (Method::GET, "/metrics"),
    (Method::GET, "/api/modules"),
    (Method::GET, "/api/deliveries"),
    (Method::GET, "/api/openapi.json"),
    (Method::POST, "/api/modules/Test/pause"),
    (Method::GET, "/"),
    (Method::GET, "/ui/"),
];

/// The same, for the local platform.
const PLATFORM: [(Method, &str); 6] = [
    (Method::GET, "/"),
    (Method::GET, "/health"),
    (Method::GET, "/local/chats"),
    (Method::GET, "/local/deliveries"),
    (Method::POST, "/local/endpoint/revive"),
    (Method::POST, "/public/chat/space/message"),
];

fn address(base: &str) -> SocketAddr {
    base.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Starts a host with an admin token and the test guest.
async fn test_guest_with_token() -> Host {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), format!("ADMIN={ADMIN_TOKEN}\n")).unwrap();
    let settings = Settings::test_guest("").server("admin_token = \"env:ADMIN\"");
    settings.server(r#"admin_hosts = ["admin.example.org"]"#).start_in(folder).await
}

/// Returns a client that resolves `name` to `to`, as a browser does after DNS rebinding.
fn rebound(name: &str, to: SocketAddr) -> Client {
    http(); // installs the TLS provider
    Client::builder().no_proxy().resolve(name, to).build().unwrap()
}

/// The addresses of the two listeners that are protected from pages, with their paths.
fn surfaces(host: &Host) -> [(&str, &'static [(Method, &'static str)]); 2] {
    [(&host.admin, &ADMIN), (&host.platform, &PLATFORM)]
}

/// Sends a raw request and returns everything received until the connection closes.
async fn raw(to: SocketAddr, request: &str) -> String {
    let mut wire = Wire::from([127, 0, 0, 1].into(), to).await;
    wire.send(request).await;
    wire.closed().await
}

#[tokio::test]
async fn refuses_a_rebound_host_name() {
    let host = Settings::test_guest("").start().await;
    for (base, paths) in surfaces(&host) {
        let to = address(base);
        let page = rebound("evil.example", to);
        for (method, path) in paths {
            let url = format!("http://evil.example:{}{path}", to.port());
            let answer = page.request(method.clone(), &url).json(&json!({})).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method} {url}");
            let body = answer.text().await.unwrap();
            assert!(body.contains("admin_hosts") && body.contains("evil.example"), "{body}");
            assert!(!body.contains("Test"), "{body}");
        }
        // HTTP/2 has no Host header; the `:authority` pseudo-header replaces it.
        let page = Client::builder().no_proxy().http2_prior_knowledge().resolve("evil.example", to).build().unwrap();
        let answer = page.get(format!("http://evil.example:{}{}", to.port(), paths[2].1)).send().await.unwrap();
        assert_eq!((answer.version(), answer.status()), (Version::HTTP_2, StatusCode::FORBIDDEN));
        let own = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let answer = own.get(format!("{base}{}", paths[2].1)).send().await.unwrap();
        assert_eq!((answer.version(), answer.status()), (Version::HTTP_2, StatusCode::OK));
    }
    host.logged(&["WARN", "admin request refused", "evil.example"]).await;
}

#[tokio::test]
async fn requires_a_host_header_that_names_this_machine() {
    let host = Settings::test_guest("").start().await;
    for (base, path) in [(&host.admin, "/api/modules"), (&host.platform, "/local/chats")] {
        let to = address(base);
        let port = to.port();
        let status = async |head: &str| {
            let answer = raw(to, &format!("{head}connection: close\r\n\r\n")).await;
            answer
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .parse::<u16>()
                .unwrap_or_else(|_| panic!("{head:?}: {answer:?}"))
        };
        let with_host = async |host: &str| status(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n")).await;
        for own in [
            &format!("127.0.0.1:{port}"),
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "127.1.2.3",
            "[::1]",
            "[::ffff:127.0.0.1]:9",
        ] {
            assert_eq!(with_host(own).await, 200, "{own}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example",
            "0.0.0.0",
            "192.0.2.1",
            "2130706433",
            "127.1",
            "::1",
            "[::1%25lo]",
            "evil.example@localhost",
            "localhost@evil.example",
            "localhost, evil.example",
            "localhost..",
        ] {
            assert_eq!(with_host(foreign).await, 403, "{foreign}");
        }
        assert_eq!(status(&format!("GET {path} HTTP/1.1\r\n")).await, 400, "none");
        assert_eq!(status(&format!("GET {path} HTTP/1.0\r\n")).await, 400, "none, as HTTP/1.0 allows");
        assert_eq!(status(&format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n")).await, 200);
        for two in
            ["localhost\r\nhost: evil.example", "evil.example\r\nhost: localhost", "localhost\r\nhost: localhost"]
        {
            assert_eq!(with_host(two).await, 400, "{two:?}");
        }
        // In an absolute-form request target, the host of the target wins over the Host header.
        assert_eq!(status(&format!("GET http://evil.example{path} HTTP/1.1\r\nhost: localhost\r\n")).await, 403);
        assert_eq!(status(&format!("GET http://localhost:{port}{path} HTTP/1.1\r\nhost: localhost\r\n")).await, 200);
        // Other spellings of a path neither bypass the check nor reach a handler.
        for other in
            [format!("/{path}"), path.replace('s', "%73") + "/.", format!("/x/..{path}"), format!("/%2e{path}")]
        {
            let foreign = status(&format!("GET {other} HTTP/1.1\r\nhost: evil.example\r\n")).await;
            assert_eq!(foreign, 403, "{other}");
            assert_eq!(status(&format!("GET {other} HTTP/1.1\r\nhost: localhost\r\n")).await, 404, "{other}");
        }
    }
}

#[tokio::test]
async fn refuses_cross_origin_requests() {
    let host = Settings::test_guest("").start().await;
    for (base, paths) in surfaces(&host) {
        let port = address(base).port();
        let pages = [
            "null".to_owned(),
            "https://evil.example".to_owned(),
            "http://localhost:3000".to_owned(),
            format!("http://localhost:{port}"),
            format!("{base}.evil.example"),
        ];
        for (method, path) in paths {
            let url = format!("{base}{path}");
            for origin in &pages {
                let sent = http().request(method.clone(), &url).header("origin", origin).json(&json!({}));
                let answer = sent.send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method} {url} from {origin}");
                assert!(!answer.headers().contains_key("access-control-allow-origin"));
                let asked = http().request(Method::OPTIONS, &url).header("origin", origin);
                let asked = asked.header("access-control-request-method", method.as_str());
                let preflight = asked.header("access-control-request-headers", "content-type").send().await.unwrap();
                assert_eq!(preflight.status(), StatusCode::FORBIDDEN, "{url} from {origin}");
            }
            // Images, scripts, frames and forms of foreign pages: browsers send some of these requests without an
            // Origin header.
            for dest in ["image", "script", "iframe"] {
                let sent = http().request(method.clone(), &url).header("sec-fetch-site", "cross-site");
                let answer =
                    sent.header("sec-fetch-mode", "no-cors").header("sec-fetch-dest", dest).send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method} {url} as {dest}");
            }
        }
        // Same-origin requests, links to the page, and typed addresses are accepted.
        let path = paths[2].1;
        let own = http().get(format!("{base}{path}")).header("origin", base).header("sec-fetch-site", "same-origin");
        assert_eq!(own.send().await.unwrap().status(), StatusCode::OK);
        for site in ["none", "cross-site"] {
            let visit = http().get(format!("{base}{path}")).header("sec-fetch-site", site);
            let visit = visit.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
            let answer = visit.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{site}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("cross-origin-resource-policy", "same-origin"),
                ("cache-control", "no-store"),
            ] {
                assert_eq!(answer.headers()[name], value);
            }
        }
    }
    assert_eq!(host.module("Test").await["paused"], false);
}

#[tokio::test]
async fn reloads_the_allowed_hosts() {
    let settings = Settings::test_guest("").server(r#"admin_hosts = ["Admin.Example.com", "192.0.2.7"]"#);
    let host = settings.start().await;
    for (base, path) in [(&host.admin, "/api/modules"), (&host.platform, "/local/chats")] {
        let status = async |name: &str, origin: &str| {
            let request = http().get(format!("{base}{path}")).header("host", name);
            let request = if origin.is_empty() { request } else { request.header("origin", origin) };
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(status("admin.example.com:443", "").await, 200);
        assert_eq!(status("192.0.2.7", "").await, 200);
        assert_eq!(status("admin.example.com", "https://admin.example.com").await, 200);
        // A proxy that replaces the Host header with its own name for the host.
        assert_eq!(status("127.0.0.1:8081", "https://admin.example.com").await, 200);
        assert_eq!(status("other.example.com", "").await, 403);
        assert_eq!(status("admin.example.com", "https://other.example.com").await, 403);
    }
    host.save_settings(&Settings::test_guest("").server(r#"admin_hosts = ["other.example.com"]"#));
    host.logged(&["settings reloaded"]).await;
    for (name, wanted) in [("other.example.com", 200), ("admin.example.com", 403)] {
        let answer = http().get(format!("{}/health", host.admin)).header("host", name).send().await.unwrap();
        assert_eq!(answer.status(), wanted, "{name}");
        until("the local platform to reload the allowed hosts", async || {
            let chats = http().get(format!("{}/local/chats", host.platform)).header("host", name);
            (chats.send().await.unwrap().status() == wanted).then_some(())
        })
        .await;
    }
}

/// Pages can't read the token, so a request with the token is accepted under any host name: proxies may forward any.
#[tokio::test]
async fn accepts_any_host_name_with_a_token_but_no_foreign_origin() {
    let host = test_guest_with_token().await;
    let ask = |path: &str| http().get(format!("{}{path}", host.admin)).header("host", "admin.example.com");
    assert_eq!(ask("/api/modules").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(ask("/api/modules").bearer_auth(ADMIN_TOKEN).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(ask("/health").send().await.unwrap().json::<Value>().await.unwrap(), json!({ "status": "ok" }));
    for (origin, wanted) in [("https://admin.example.com", 200), ("https://evil.example", 403), ("null", 403)] {
        let asked = ask("/api/modules").bearer_auth(ADMIN_TOKEN).header("origin", origin);
        assert_eq!(asked.send().await.unwrap().status(), wanted, "{origin}");
    }
    let two = format!(
        "GET /api/modules HTTP/1.1\r\nhost: a\r\nhost: b\r\nauthorization: Bearer {ADMIN_TOKEN}\r\nconnection: close\r\n\r\n"
    );
    let answer = raw(address(&host.admin), &two).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // A page behind a proxy that replaces the Host header with its own name for the host.
    let asked = http().get(format!("{}/api/modules", host.admin)).bearer_auth(ADMIN_TOKEN);
    let asked = asked.header("origin", "https://admin.example.org").send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::OK);
    // The local platform has no token and always checks the host name.
    let chats = http().get(format!("{}/local/chats", host.platform)).header("host", "admin.example.com");
    assert_eq!(chats.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn accepts_exactly_one_bearer_token() {
    let host = test_guest_with_token().await;
    let totals = format!("{}/api/totals", host.admin);
    let status = async |lines: &[&str]| {
        let ask = lines.iter().fold(http().get(&totals), |ask, line| ask.header("authorization", *line));
        let answer = ask.send().await.unwrap();
        if answer.status() == StatusCode::UNAUTHORIZED {
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        }
        answer.status().as_u16()
    };
    let good = format!("Bearer {ADMIN_TOKEN}");
    assert_eq!(status(&[&good]).await, 200);
    assert_eq!(status(&[&good.replace("Bearer", "bearer")]).await, 200, "RFC 9110: case does not count");
    let cut = &good[..good.len() - 1];
    let wrong = [cut, &format!("{good}x"), ADMIN_TOKEN, &format!("Basic {ADMIN_TOKEN}"), "Bearer", "Bearer ", ""];
    for wrong in wrong {
        assert_eq!(status(&[wrong]).await, 401, "{wrong}");
    }
    assert_eq!(status(&[&good, &good]).await, 401);
    assert_eq!(status(&["Bearer other", &good]).await, 401);
    assert_eq!(http().get(format!("{totals}?token={ADMIN_TOKEN}")).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn reloads_the_admin_token() {
    let host = test_guest_with_token().await;
    let status = async |token: &str| {
        http().get(format!("{}/api/totals", host.admin)).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(ADMIN_TOKEN).await, 200);
    let other = "open-open-open-open";
    host.save(".env", format!("ADMIN={other}\n"));
    until("the new token to be accepted", async || (status(other).await == 200).then_some(())).await;
    assert_eq!(status(ADMIN_TOKEN).await, 401);
    // A token that is too short is not applied.
    host.save(".env", "ADMIN=short\n");
    host.logged(&["cannot reload the settings"]).await;
    host.logged(&["fewer than 16 characters"]).await;
    assert_eq!((status(other).await, status("short").await), (200, 401));
    assert!(!host.log().contains(ADMIN_TOKEN) && !host.log().contains(other), "{}", host.log());
}

#[tokio::test]
async fn refuses_to_start_with_a_short_token() {
    let folder = tempfile::tempdir().unwrap();
    for (reference, content) in [("env:ADMIN", "fifteen-letters"), ("file:token", "fifteen-letters"), ("env:ADMIN", "")]
    {
        let settings = Settings::new().server(&format!("# first\nadmin_token = {reference:?}"));
        fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
        fs::write(folder.path().join("token"), format!("{content}\n")).unwrap();
        let variables = [
            ("ADMIN", content),
            ("TEST_API_BASE", "http://127.0.0.1:1"),
            ("TEST_APP_ID", "app"),
            ("TEST_API_KEY", "key"),
            ("TEST_ENDPOINT_SECRET", "usig"),
        ];
        for (command, args) in [("serve", &["--port", "0", "--admin-port", "0"][..]), ("check", &[])] {
            let CommandOutput { code, stdout, stderr } = modhost(folder.path(), command, args, &variables).await;
            let output = format!("{stdout}{stderr}");
            assert_eq!(code, 1, "{output}");
            assert!(output.contains("modules.toml:4:15"), "{output}");
            let words = if content.is_empty() { "is empty" } else { "fewer than 16 characters" };
            assert!(output.contains(words) && !output.contains("fifteen"), "{output}");
        }
    }
}

/// A setting that is safe only on a loopback address isn't applied while the host still listens on another address.
#[tokio::test]
async fn reload_exposes_nothing_to_other_machines() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), format!("ADMIN={ADMIN_TOKEN}\n")).unwrap();
    let open = "listen = \"0.0.0.0:0\"\nadmin_listen = \"0.0.0.0:0\"\nadmin_token = \"env:ADMIN\"";
    let host = Settings::test_guest("").server(open).start_in(folder).await;
    let admin = host.admin.replace("0.0.0.0", "127.0.0.1");
    let status = async || http().get(format!("{admin}/api/totals")).send().await.unwrap().status().as_u16();
    assert_eq!(status().await, 401);
    host.save_settings(&Settings::test_guest(""));
    host.logged(&["cannot reload the settings"]).await;
    host.logged(&["without `admin_token` everyone could use the admin API"]).await;
    assert_eq!(status().await, 401);
    let unverified = "[[source]]\nname = \"open\"\npath = \"/open\"\nscheme = \"none\"\ntenant = \"default\"";
    let loopback = "admin_listen = \"0.0.0.0:0\"\nadmin_token = \"env:ADMIN\"";
    host.save_settings(&Settings::test_guest("").server(loopback).more(unverified));
    host.logged(&["everyone could send events to the source"]).await;
    let public = host.webhook.replace("0.0.0.0", "127.0.0.1").replace("/webhook", "/open");
    assert_eq!(http().post(public).body("{}").send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

/// A source without verification accepts requests only from programs of this machine, not from pages.
#[tokio::test]
async fn unverified_source_refuses_other_host_names() {
    let unverified = "[[source]]\nname = \"open\"\npath = \"/open\"\nscheme = \"none\"\n";
    let host = Settings::new().more(unverified).start().await;
    let base = host.webhook.strip_suffix("/webhook").unwrap();
    let to = address(base);
    let url = format!("http://evil.example:{}/open", to.port());
    let pages = [
        rebound("evil.example", to),
        Client::builder().no_proxy().http2_prior_knowledge().resolve("evil.example", to).build().unwrap(),
    ];
    for page in pages {
        let answer = page.post(&url).body(r#"{"id":"1"}"#).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let body = answer.text().await.unwrap();
        assert!(body.contains("the Host header is not a name of this machine"), "{body}");
    }
    for own in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
        let answer = http().post(format!("{base}/open")).header("host", own).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{own}");
    }
    let none = raw(to, "POST /open HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}").await;
    assert!(none.contains(" 200 OK"), "{none}");
    // Signed events are accepted under any host name.
    let body = user_message("evt_1", "hello").to_string();
    let signed = signed_post(&host.webhook.replace("127.0.0.1", "localhost"), body).await;
    assert_eq!(signed.status(), StatusCode::OK);
}

/// Requests of a page with bad signatures, sent from the address of a proxy or of the local platform, don't trigger the
/// rate limit for that address.
#[tokio::test]
async fn bad_signatures_from_a_page_do_not_limit_local_programs() {
    let host = Settings::new().server("limits = { max_forgeries = 3 }").start().await;
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        for _ in 0..10 {
            let forged = http().post(&host.webhook).header(name, value).body("{}").send().await.unwrap();
            assert_eq!(forged.status(), StatusCode::BAD_REQUEST);
        }
        let event = user_message(&format!("evt_{name}"), "hello").to_string();
        assert_eq!(signed_post(&host.webhook, event).await.status(), StatusCode::OK);
    }
    assert_eq!(host.lines(&["`max_forgeries` in [server.limits] is reached"]), 0);
    // Bad signatures of a program of this machine do trigger the limit.
    for _ in 0..3 {
        assert_eq!(http().post(&host.webhook).body("{}").send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    }
    host.logged(&["`max_forgeries` in [server.limits] is reached"]).await;
}
