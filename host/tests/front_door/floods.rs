//! Tests of many connections and many bad signatures: they affect their sender and no other client.

use std::net::{IpAddr, Ipv4Addr};

use reqwest::{Response, StatusCode};

use super::harness::{Host, Settings, Wire, head, http, now, request, sign, signed_post, until, user_message};

const GOOD: Ipv4Addr = Ipv4Addr::LOCALHOST;
const BAD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn body() -> Vec<u8> {
    user_message("evt_1", "hello").to_string().into_bytes()
}

/// Posts with a chosen signature from a local address, optionally with a forwarded address.
async fn post(host: &Host, own: Ipv4Addr, speaks_for: Option<&str>, signature: &str) -> Response {
    http(); // installs the TLS provider
    let client = reqwest::Client::builder().no_proxy().local_address(IpAddr::V4(own)).build().unwrap();
    let mut request = client.post(&host.webhook).header("x-unique-signature", signature);
    if let Some(other) = speaks_for {
        request = request.header("x-forwarded-for", other);
    }
    request.header("x-unique-created-at", now().to_string()).body(body()).send().await.unwrap()
}

async fn forge(host: &Host, own: Ipv4Addr, speaks_for: Option<&str>) -> StatusCode {
    post(host, own, speaks_for, "00").await.status()
}

/// Keeps enough requests incomplete for the host to be busy soon. They come from an address of their own.
async fn make_busy(host: &Host) -> Vec<Wire> {
    let mut requests = Vec::new();
    for number in 0..70 {
        let mut wire = Wire::from(Ipv4Addr::new(127, 0, 1, number), host.socket()).await;
        wire.send(head(b"", "content-length: 1000\r\n")).await;
        requests.push(wire);
    }
    requests
}

#[tokio::test]
async fn closes_the_connection_that_waited_longest() {
    let limits = r#"limits = { max_connections = 4, header_timeout = "1h" }"#;
    let host = Settings::new().server(limits).start().await;
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(Wire::to(&host).await);
    }
    assert_eq!(signed_post(&host.webhook, body()).await.status(), StatusCode::OK);
    assert_eq!(wires.remove(0).closed().await, "", "the first connection should have been closed");
    for mut other in wires {
        other.send(request(&body())).await;
        assert!(other.answer().await.starts_with("HTTP/1.1 200 "));
    }
    host.logged(&["WARN", "`max_connections` in [server.limits] is reached"]).await;
}

#[tokio::test]
async fn closes_connections_of_the_address_with_the_most() {
    let limits = r#"limits = { max_connections = 20, header_timeout = "1h", body_timeout = "1h" }"#;
    let host = Settings::new().server(limits).start().await;
    let (body, mut swarm) = (body(), Vec::new());
    let whole = request(&body);
    let mut slow = Wire::from(GOOD, host.socket()).await;
    slow.send(&whole[..20]).await;
    let half = [String::new(), "POST /webhook".into(), head(&body, "content-length: 5000\r\n") + "{"];
    for said in half.iter().cycle().take(100) {
        let mut wire = Wire::from(BAD, host.socket()).await;
        wire.send(said).await;
        swarm.push(wire);
    }
    for _ in 0..20 {
        assert_eq!(signed_post(&host.webhook, body.clone()).await.status(), StatusCode::OK);
    }
    // This connection has waited longest, but it is the only one of its address.
    slow.send(&whole[20..]).await;
    assert!(slow.answer().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn limits_connections_per_address() {
    let limits = r#"limits = { max_connections_per_address = 2, header_timeout = "1h" }"#;
    let host = Settings::new().server(limits).start().await;
    let first = Wire::from(BAD, host.socket()).await;
    let second = Wire::from(BAD, host.socket()).await;
    assert_eq!(Wire::from(BAD, host.socket()).await.closed().await, "");
    host.logged(&["WARN", "connection refused", "max_connections_per_address", "client=127.0.0.2"]).await;
    assert_eq!(signed_post(&host.webhook, body()).await.status(), StatusCode::OK, "the limit is per address");
    drop((first, second));
    until("a free connection of the address", async || {
        let mut wire = Wire::from(BAD, host.socket()).await;
        wire.send(request(&body())).await;
        wire.answer().await.starts_with("HTTP/1.1 200 ").then_some(())
    })
    .await;
}

#[tokio::test]
async fn busy_host_refuses_an_address_with_many_bad_signatures() {
    let host = Settings::new().server("limits = { max_forgeries = 5 }").start().await;
    for _ in 0..50 {
        assert_eq!(forge(&host, BAD, None).await, StatusCode::BAD_REQUEST, "the host is idle and can verify it");
    }
    host.logged(&["WARN", "`max_forgeries` in [server.limits] is reached", "client=127.0.0.2", "source=unique"]).await;
    assert_eq!(host.lines(&["WARN", "request refused", "invalid signature"]), 5, "the log has a line per request");
    let busy = make_busy(&host).await;
    until("the address to be limited", async || {
        (forge(&host, BAD, None).await == StatusCode::TOO_MANY_REQUESTS).then_some(())
    })
    .await;
    let answer = post(&host, BAD, None, &sign(&body())).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "a correct signature should not be checked");
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // The host doesn't wait for the body and closes the connection.
    let mut wire = Wire::from(BAD, host.socket()).await;
    wire.send(head(b"", "content-length: 1000\r\n")).await;
    let answer = wire.closed().await.to_lowercase();
    assert!(answer.starts_with("http/1.1 429 ") && answer.contains("connection: close\r\n"), "{answer:?}");

    for _ in 0..50 {
        assert_eq!(forge(&host, BAD, None).await, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(post(&host, GOOD, None, &sign(&body())).await.status(), StatusCode::OK);
    }
    drop(busy);
    until("the host to verify again", async || {
        (post(&host, BAD, None, &sign(&body())).await.status() == StatusCode::OK).then_some(())
    })
    .await;
    // Now the address has sent a valid signature: a platform may send the events of several customers from it.
    let _busy = make_busy(&host).await;
    for _ in 0..50 {
        assert_eq!(forge(&host, BAD, None).await, StatusCode::BAD_REQUEST);
        assert_eq!(post(&host, BAD, None, &sign(&body())).await.status(), StatusCode::OK);
    }
    // Requests that fail for other reasons don't count.
    for _ in 0..10 {
        assert_eq!(signed_post(&host.webhook, "{}").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(post(&host, GOOD, None, &sign(&body())).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn limits_each_client_behind_a_trusted_proxy() {
    let host = Settings::new()
        .server("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\nlimits = { max_forgeries = 3 }")
        .start()
        .await;
    let bad = Some("8.8.8.8, 203.0.113.9, 10.0.0.7");
    for _ in 0..3 {
        assert_eq!(forge(&host, GOOD, bad).await, StatusCode::BAD_REQUEST);
    }
    host.logged(&["request refused", "client=203.0.113.9"]).await;
    let _busy = make_busy(&host).await;
    until("the client to be limited", async || {
        (forge(&host, GOOD, bad).await == StatusCode::TOO_MANY_REQUESTS).then_some(())
    })
    .await;
    let disguised = Some("192.0.2.200, 203.0.113.9");
    assert_eq!(
        forge(&host, GOOD, disguised).await,
        StatusCode::TOO_MANY_REQUESTS,
        "an address written by the client counts"
    );
    assert_eq!(post(&host, GOOD, Some("198.51.100.1"), &sign(&body())).await.status(), StatusCode::OK);
    // Clients that connect directly can't forge a forwarded address.
    assert_eq!(forge(&host, BAD, Some("198.51.100.1")).await, StatusCode::BAD_REQUEST);
    host.logged(&["request refused", "client=127.0.0.2"]).await;
}

#[tokio::test]
async fn reports_an_untrusted_proxy_without_limiting_it() {
    let host = Settings::new().server("limits = { max_forgeries = 3 }").start().await;
    for _ in 0..10 {
        assert_eq!(forge(&host, GOOD, Some("203.0.113.9")).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(post(&host, GOOD, Some("198.51.100.1"), &sign(&body())).await.status(), StatusCode::OK);
    host.logged(&["WARN", "through a proxy", "trusted_proxies", "client=127.0.0.1"]).await;
    assert_eq!(host.lines(&["client=203.0.113.9"]), 0, "an untrusted proxy's header was used");
}

#[tokio::test]
async fn reads_forwarded_if_configured() {
    let host = Settings::new().server("trusted_proxies = [\"127.0.0.1\"]\nproxy_header = \"forwarded\"").start().await;
    let forged = http().post(&host.webhook).header("x-forwarded-for", "8.8.8.8");
    let forged = forged.header("forwarded", "for=203.0.113.9;proto=https").body("{}").send().await.unwrap();
    assert_eq!(forged.status(), StatusCode::BAD_REQUEST);
    host.logged(&["request refused", "client=203.0.113.9"]).await;
    assert_eq!(host.lines(&["8.8.8.8"]), 0);
}
