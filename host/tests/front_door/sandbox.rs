//! Tests of the sandbox: what a module can access on the machine, and its log output.

use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use modhost_emulator as local;
use serde_json::json;

use super::harness::{Host, Settings, chat, post, signed_post};

#[tokio::test]
async fn module_has_no_file_access() {
    let host = Settings::test_guest("").start().await;
    let file = host.file("modules.toml");
    assert!(std::fs::read_to_string(&file).unwrap().contains("Test"));
    for path in [file.to_str().unwrap(), "modules.toml", "./modules.toml", "/etc/passwd", "/proc/self/environ"] {
        let answer = chat(&host, "Test", &format!("read-file {path}")).await;
        assert!(answer.text().starts_with("error: "), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn module_has_no_sockets() {
    let host = Settings::test_guest("").start().await;
    let address = host.platform.strip_prefix("http://").unwrap();
    assert!(TcpStream::connect(address).is_ok());
    let port = address.rsplit(':').next().unwrap();
    for address in [address, &format!("localhost:{port}"), &format!("[::1]:{port}")] {
        let answer = chat(&host, "Test", &format!("connect {address}")).await;
        assert!(answer.text().starts_with("error: "), "{address}: {}", answer.text());
    }
}

#[tokio::test]
async fn module_has_an_empty_environment_a_clock_and_randomness() {
    let host = Settings::test_guest("").start().await;
    assert_eq!(chat(&host, "Test", "env").await.json(), json!({}));
    assert_eq!(chat(&host, "Test", "args").await.json(), json!([]));
    let (one, other) = tokio::join!(chat(&host, "Test", "random"), chat(&host, "Test", "random"));
    assert_ne!(one.text(), other.text());

    let milliseconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let before = milliseconds();
    let now: u128 = chat(&host, "Test", "now").await.text().parse().unwrap();
    assert!((before..=milliseconds()).contains(&now), "{now}");
}

#[tokio::test]
async fn logs_module_output_line_by_line() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", "stdout out one\nout two").await;
    chat(&host, "Test", "stderr to the operators").await;
    for (text, level, context) in [
        ("out one", " INFO ", "context=\"stdout\""),
        ("out two", " INFO ", "context=\"stdout\""),
        ("to the operators", " WARN ", "context=\"stderr\""),
    ] {
        let line = host.logged(&[text, level, "module=Test", "user=\"user_local\"", context]).await;
        // The delivery's last log line has the same id.
        host.logged(&["completed", "module=Test", delivery(&line)]).await;
    }
}

/// The `delivery=…` field of a log line.
fn delivery(line: &str) -> &str {
    let found = line.split_whitespace().find(|word| word.starts_with("delivery=dlv_"));
    found.unwrap_or_else(|| panic!("no delivery in {line}"))
}

/// The command `print-bytes` with these bytes.
fn print(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("print-bytes {hex}")
}

#[tokio::test]
async fn logs_output_without_newline_or_valid_utf8() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", &print(b"without an end")).await;
    chat(&host, "Test", &print(b"of Windows\r\nand after\r\n")).await;
    chat(&host, "Test", &print(b"broken \xff\xfe text\n")).await;
    for text in
        ["without an end module=", "of Windows module=", "and after module=", "broken \u{fffd}\u{fffd} text module="]
    {
        host.logged(&[text, "context=\"stdout\""]).await;
    }
}

#[tokio::test]
async fn truncates_long_lines_between_characters() {
    let host = Settings::test_guest("").start().await;
    for (start, letter) in [("ascii:", "~"), ("two:", "é"), ("odd two:", "é"), ("three:", "€"), ("four:", "🦀")] {
        let line = format!("{start}{}", letter.repeat(6000));
        for command in ["stdout", "log info"] {
            chat(&host, "Test", &format!("{command} {line}")).await;
            let context = if command == "stdout" { "stdout" } else { "test_guest" };
            let logged = host.logged(&[start, &format!("context=\"{context}")]).await;
            let room = (4096 - start.len()) / letter.len();
            assert_eq!(logged.matches(letter).count(), room, "{logged}");
            assert!(!logged.contains('\u{fffd}'), "{logged}");
        }
    }
}

#[tokio::test]
async fn drops_excess_log_lines_and_reports_it() {
    let host = Settings::test_guest("limits = { log_lines = 10 }").start().await;
    assert_eq!(chat(&host, "Test", "flood 10").await.text(), "printed");
    assert_eq!(chat(&host, "Test", "flood 20000").await.text(), "printed");
    for lines in [10, 20000] {
        let line = host.logged(&[&format!("line 10 of {lines} ")]).await;
        let delivery = delivery(&line).to_owned();
        host.logged(&["completed", &delivery]).await;
        let log = host.log();
        let of_module = log.lines().filter(|line| line.contains(&delivery) && line.contains("context="));
        assert_eq!(of_module.count(), 10);
        let reports = log.lines().filter(|line| line.contains(&delivery) && line.contains("`log_lines`")).count();
        assert_eq!(reports, usize::from(lines > 10), "reported once if lines were dropped, and only then");
    }
}

#[tokio::test]
async fn module_cannot_forge_log_lines() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", "log info first\n2026-01-01T00:00:00Z  INFO forged in the log module=Other").await;
    chat(&host, "Test", "fail first\n2026-01-01T00:00:00Z  INFO forged in a reason module=Other").await;
    let line = host.logged(&["forged in the log"]).await;
    assert!(line.contains("module=Test") && !line.starts_with("2026-01-01"), "{line}");
    let line = host.logged(&["forged in a reason"]).await;
    assert!(line.contains(r"first\n2026-01-01") && line.contains("module=Test"), "{line}");
    chat(&host, "Test", "modify first\n2026-01-01T00:00:00Z_INFO_forged_in_an_id x").await;
    host.logged(&["call failed", "module=Test"]).await;
    host.logged(&["forged_in_an_id"]).await;
    assert!(host.log().lines().all(|line| !line.starts_with("2026-01-01")), "{}", host.log());
}

#[tokio::test]
async fn log_contains_no_secrets() {
    let all = "debug,modhost=trace,module=trace,hyper=trace,hyper_util=trace,reqwest=trace,h2=trace";
    let host = Settings::test_guest("").module("Assistant", "assistant", "").log(all).start().await;
    let commands =
        ["reply hi", "search hotel", "complete hotel", "env", "panic", "modify msg_none x", "show x", "history"];
    join_all(commands.map(|command| chat(&host, "Test", command))).await;
    chat(&host, "Assistant", "What is our travel policy?").await;
    assert_eq!(signed_post(&host.webhook, "not json").await.status(), 503);
    assert_eq!(post(&host.webhook, &[("x-unique-signature", "00")], "{}").await.status(), 400);
    host.logged(&["there is no message", "msg_none"]).await;
    assert_no_secret(&host);
}

fn assert_no_secret(host: &Host) {
    let log = host.log();
    for secret in [local::API_KEY, local::ENDPOINT_SECRET] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "the log contains {secret}");
    }
}
