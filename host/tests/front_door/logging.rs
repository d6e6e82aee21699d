//! Tests of the log: its format, untrusted text in it, and a log that can't be written.

use std::fs::File;
use std::io::{PipeReader, Read};

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::harness::{Host, Settings, bare, chat, chosen, http, modhost, say, signed_post, until};

/// The number of dropped log lines in the metrics.
async fn dropped(host: &Host) -> u64 {
    let metrics = http().get(format!("{}/metrics", host.admin)).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("modhost_log_lines_dropped_total "));
    line.unwrap_or_else(|| panic!("not among the metrics:\n{metrics}")).parse().unwrap()
}

/// Sends deliveries that log, answer, fail and trap, all at once, and checks that each one ends.
async fn serves(host: &Host) {
    let commands =
        ["reply hi", "log info a line", "stdout a line", "panic at the disco", "fail no luck", "loop-not-there"];
    let answers = join_all((0..18).map(|number| chat(host, "Test", commands[number % commands.len()]))).await;
    assert!(answers.iter().all(|answer| !answer.text().is_empty()), "{answers:?}");
    let answer = signed_post(&host.webhook, chosen("evt_1", "Test", "reply hi").to_string()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(signed_post(&host.webhook, "not json").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    until("all deliveries to end", async || {
        let deliveries = http().get(format!("{}/api/deliveries", host.admin)).send().await.unwrap();
        let deliveries: Value = deliveries.json().await.unwrap();
        let states =
            deliveries["deliveries"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap().to_owned());
        states.into_iter().all(|state| ["completed", "dead"].contains(&state.as_str())).then_some(())
    })
    .await;
}

/// The test guest without a limit on its log.
fn loud() -> Settings {
    Settings::test_guest(r#"limits = { log_lines = 1000000, log_bytes = "256MiB" }"#)
        .server("[server.ceilings]\nlog_lines = 1000000\nlog_bytes = \"256MiB\"")
}

#[tokio::test]
async fn keeps_serving_with_the_log_on_a_full_disk() {
    let mut host = loud().start_logging_to(File::create("/dev/full").unwrap()).await;
    serves(&host).await;
    assert!(dropped(&host).await > 20);
    assert!(host.stop().await.success());
}

#[tokio::test]
async fn keeps_serving_after_the_log_reader_has_died() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut host = loud().start_logging_to(writer).await;
    serves(&host).await;
    assert!(dropped(&host).await > 20);
    assert!(host.stop().await.success());
}

#[tokio::test]
async fn keeps_serving_with_a_blocked_log_and_reports_dropped_lines() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut host = loud().start_logging_to(writer).await;
    until("the log to be full", async || {
        chat(&host, "Test", "flood 20000").await;
        (dropped(&host).await > 0).then_some(())
    })
    .await;
    serves(&host).await;
    // A reader that resumes gets the buffered lines and the number of dropped ones.
    let log = read(reader);
    let line = until("the log to report the dropped lines", async || {
        let log = log.lock().unwrap();
        log.lines().find(|line| line.contains("log lines were dropped")).map(str::to_owned)
    })
    .await;
    let (_, count) = line.rsplit_once("count=").unwrap();
    assert!(line.contains(" WARN ") && count.parse::<u64>().unwrap() > 0, "{line}");
    assert!(host.stop().await.success());
}

#[tokio::test]
async fn stops_with_a_blocked_log() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut host = loud().start_logging_to(writer).await;
    until("the log to be full", async || {
        chat(&host, "Test", "flood 20000").await;
        (dropped(&host).await > 0).then_some(())
    })
    .await;
    assert!(host.stop().await.success());
    drop(reader);
}

/// Reads a pipe to its end in the background.
fn read(mut reader: PipeReader) -> std::sync::Arc<std::sync::Mutex<String>> {
    let text = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let read = text.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 8192];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            read.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    });
    text
}

/// Text that forges log lines, contains terminal escapes, and reorders the text around it.
const HOSTILE: &str = "x\n2026-01-01T00:00:00Z ERROR forged module=Other\r\u{1b}[2J\u{9b}2J\u{85}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{2029}\u{feff}\u{200b}\u{7f}\u{7}y";

fn drives_a_terminal(c: char) -> bool {
    let bidi = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    bidi || c.is_control() && c != '\n' || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200b}')
}

/// Checks that a text has no control characters, and that none of its lines is a forged one: continuation lines of
/// untrusted text are indented.
fn assert_safe(text: &str) {
    for line in text.lines() {
        assert!(!line.starts_with("2026-01-01T00:00:00Z"), "forged: {line:?} in:\n{text}");
        assert_eq!(line.find(drives_a_terminal), None, "{line:?}");
    }
}

#[tokio::test]
async fn untrusted_text_forges_no_line_and_contains_no_escapes() {
    let host = Settings::test_guest("").start().await;
    // In the id and the name of an event, and in the text of a user and of a module.
    let mut event = chosen(&format!("evt_{HOSTILE}"), "Test", &format!("fail {HOSTILE}"));
    event["payload"]["userMessage"]["id"] = HOSTILE.into();
    for (name, text) in [
        ("unique.chat.external-module.chosen", "fail"),
        (HOSTILE, "fail"),
        ("unique.chat.external-module.chosen", "panic"),
    ] {
        event["event"] = name.into();
        event["id"] = format!("evt_{name}_{text}_{HOSTILE}").into();
        event["payload"]["userMessage"]["text"] = format!("{text} {HOSTILE}").into();
        signed_post(&host.webhook, event.to_string()).await;
    }
    event["payload"]["name"] = HOSTILE.into();
    event["id"] = format!("evt_for_another_{HOSTILE}").into();
    signed_post(&host.webhook, event.to_string()).await;
    for command in ["log info", "stdout", "stderr", "modify", "create", "reply"] {
        let chat_id = say(&host.platform, "Test", &format!("{command} {HOSTILE}")).await;
        super::harness::wait_for_answer(&host, &chat_id).await;
    }
    let admin = [("MODHOST_ADMIN", host.admin.as_str())];
    let listed = until("two deliveries to be dead", async || {
        let ran = modhost(host.folder(), "deliveries", &["--json"], &admin).await;
        assert_safe(&ran.stdout);
        let listed: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (listed.iter().filter(|it| it["state"] == "dead").count() >= 2).then_some(listed)
    })
    .await;
    assert!(
        listed.iter().any(|it| it["event_id"].as_str().unwrap().contains(HOSTILE)),
        "the JSON log must keep the text"
    );
    assert_safe(&host.log());
    assert_safe(&host.output());

    let table = modhost(host.folder(), "deliveries", &[], &admin).await.stdout;
    assert_eq!(table.lines().count(), listed.len() + 1, "{table}");
    assert_safe(&table);
    for delivery in &listed {
        let id = delivery["id"].as_str().unwrap();
        for json in [&["show", id][..], &["show", id, "--json"]] {
            let shown = modhost(host.folder(), "deliveries", json, &admin).await;
            assert_eq!(shown.code, 0, "{shown:?}");
            assert_safe(&shown.stdout);
        }
    }
    for text in [format!("reply {HOSTILE}"), format!("fail {HOSTILE}"), format!("step-and panic {HOSTILE}")] {
        let ran = modhost(host.folder(), "send", &["--platform", &host.platform, &text], &[]).await;
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(shown.find(|c: char| drives_a_terminal(c) && c != '\t'), None, "{shown:?}");
        assert!(shown.contains(r"\u{1b}[2J\u{9b}2J"), "{shown:?}");
    }
    std::fs::write(host.file("event.json"), event.to_string()).unwrap();
    let routes = modhost(host.folder(), "routes", &["test", "event.json"], &[]).await;
    assert!(routes.stdout.contains("evt_for_another_x\\n2026"), "{routes:?}");
    assert_safe(&routes.stdout);
}

#[tokio::test]
async fn json_log_has_one_object_per_record() {
    let mut host = Settings::test_guest("").args(&["--log-format", "json"]).start().await;
    chat(&host, "Test", "log info hello\u{202e} there").await;
    chat(&host, "Test", "panic at the disco").await;
    host.logged(&["at the disco", "delivery failed"]).await;
    assert!(host.stop().await.success());
    let log = host.log();
    let records: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    for record in &records {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(record[field].is_string(), "no {field} in {record}");
        }
    }
    let said = records.iter().find(|it| it["target"] == "module" && it["message"] == "hello\u{202e} there").unwrap();
    assert_eq!(
        (&said["module"], &said["level"], &said["user"]),
        (&json!("Test"), &json!("INFO"), &json!("user_local"))
    );
    assert!(said["delivery"].as_str().unwrap().starts_with("dlv_"), "{said}");
    let broke = records.iter().find(|it| it["message"].as_str().unwrap().contains("delivery failed")).unwrap();
    assert!(broke["reason"].as_str().unwrap().contains("\n") && broke["attempt"] == 1, "{broke}");
    assert_safe(&log);
}

#[tokio::test]
async fn trap_is_one_record() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", "panic first\nsecond").await;
    let line = host.logged(&["delivery failed", "module=Test", "attempt="]).await;
    assert!(line.contains(r"\nfirst\nsecond") && line.contains("delivery=dlv_"), "{line}");
}

#[tokio::test]
async fn log_level_and_filter_apply() {
    let quiet = Settings::test_guest("").args(&["--log-level", "error"]).start().await;
    chat(&quiet, "Test", "log info quiet please").await;
    chat(&quiet, "Test", "log error loud").await;
    quiet.logged(&["loud", "ERROR"]).await;
    assert!(!quiet.log().contains("quiet please") && !quiet.log().contains("INFO"), "{}", quiet.log());

    let folder = tempfile::tempdir().unwrap();
    for command in ["dev", "serve"] {
        for (variable, text, said) in [
            ("MODHOST_LOG", "nonsense", "`nonsense` is not a log level"),
            ("MODHOST_LOG", "modhost=nonsense", "`nonsense` is not a log level"),
            ("MODHOST_LOG", "modhots=debug", "did you mean modhost?"),
            ("MODHOST_LOG_FORMAT", "jsn", "did you mean json?"),
        ] {
            let ran = modhost(folder.path(), command, &[], &[(variable, text)]).await;
            assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
            assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(said), "{said}: {ran:?}");
            assert!(ran.stderr.contains(variable), "{ran:?}");
            let flag = if variable == "MODHOST_LOG" { "--log-level" } else { "--log-format" };
            let ran = modhost(folder.path(), command, &[flag, text], &[]).await;
            assert!(ran.code == 2 && ran.stderr.contains(said), "{ran:?}");
        }
        // An empty variable counts as unset.
        let ran = modhost(folder.path(), command, &[], &[("MODHOST_LOG", ""), ("MODHOST_LOG_FORMAT", "")]).await;
        assert!(ran.code == 1 && ran.stderr.contains("there is no file modules.toml"), "{ran:?}");
    }
}

#[tokio::test]
async fn startup_error_goes_to_the_log() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("modules.toml"), "[serverr]\n").unwrap();
    let ran = modhost(folder.path(), "serve", &["--log-format", "json"], &[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let record: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert!(record["level"] == "ERROR" && record["error"].as_str().unwrap().contains("serverr"), "{record}");

    let mut command = bare("serve", folder.path());
    let status = command.stderr(File::create("/dev/full").unwrap()).stdout(std::process::Stdio::null()).status();
    assert_eq!(status.unwrap().code(), Some(1));
}

#[tokio::test]
async fn spans_name_the_attempt_the_call_and_the_compile() {
    let host = Settings::test_guest("").start().await;
    host.logged(&["compile{version=", " tier=", "component compiled"]).await;
    chat(&host, "Test", "reply hello").await;
    let attempt = host.logged(&["attempt{module=Test delivery=dlv_", " attempt=1}", "attempt started"]).await;
    assert!(!attempt.contains("call{"), "{attempt}");
    host.logged(&["attempt{module=Test delivery=dlv_", ":call{import=messages.reply}", "called the platform"]).await;
    chat(&host, "Test", "log info from the module").await;
    let module = host.logged(&["from the module"]).await;
    assert!(!module.contains("attempt{"), "a module's record has the host's spans: {module}");
}
