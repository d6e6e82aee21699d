//! Tests of the event socket: the events it delivers, reconnects, and what operators see of both.

use std::fmt::Write;
use std::time::Duration;

use modhost_emulator::{COMPANY_ID, LocalPlatform, LocalSettings};
use serde_json::{Value, json};

use super::harness::{Gate, Host, Settings, Stream, StreamConnection, chat, component, http, say, until, user_message};

/// The host's API key for the platform.
const KEY: &str = "ukey_sesame";

/// The event most of these tests subscribe to.
const CREATED: &str = "unique.chat.user-message.created";

/// The modules.toml of a host with one event socket and a module that logs the messages of users.
fn settings(stream: &Stream, lines: &str, events: &[&str]) -> String {
    settings_with(&format!("url = {:?}\n{lines}", stream.url()), "", events)
}

fn settings_with(source: &str, server: &str, events: &[&str]) -> String {
    let file = component("test_guest");
    let mut text = String::new();
    write!(
        text,
        r#"
[server]
{server}

[[source]]
name = "socket"
kind = "event-socket"
{source}

[[tenant]]
name = "default"
companies = [{COMPANY_ID:?}]
platform = {{ kind = "unique", api_base = "env:BASE", app_id = "app_1", api_key = "env:KEY" }}

[[module]]
name = "Test"
component = {file:?}
events = {events:?}
"#
    )
    .unwrap();
    text
}

/// Starts a host with these settings without waiting for the connection; its platform API is unreachable.
async fn serve(settings: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("modules.toml"), settings).unwrap();
    Host::serve_at_once(folder, &[("BASE", "http://127.0.0.1:1/public/chat"), ("KEY", KEY)], None).await
}

/// Starts a host with these lines in the settings of its source, and accepts its connection.
async fn connected(lines: &str) -> (Host, Stream, StreamConnection) {
    let stream = Stream::start().await;
    let host = serve(&settings(&stream, lines, &[CREATED])).await;
    let line = stream.opened().await;
    host.logged(&["connected to the event socket"]).await;
    (host, stream, line)
}

/// The status of the event socket in the admin API.
async fn status(host: &Host) -> Value {
    let answer = http().get(format!("{}/api/sources", host.admin)).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let sources = answer["sources"].as_array().unwrap();
    sources.iter().find(|source| source["kind"] == "event-socket").cloned().unwrap_or_default()
}

async fn status_is(host: &Host, field: &str, wanted: Value) -> Value {
    until(&format!("`{field}` of the event socket to be {wanted}"), async || {
        Some(status(host).await).filter(|it| it[field] == wanted)
    })
    .await
}

/// Waits until the module has received this message.
async fn wait_for_message(host: &Host, text: &str) {
    host.logged(&[&format!("user-message-created {text}")]).await;
}

fn count(host: &Host, words: &str) -> usize {
    host.log().lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn chats_through_the_event_socket_of_the_local_platform() {
    let host = Settings::samples().args(&["--event-socket"]).start().await;
    host.logged(&["connected to the event socket"]).await;
    assert_eq!(chat(&host, "DemoApp", "hi").await.text(), "Hello! What you wrote comes back in the next message.");
    host.logged(&["module=ChatLog", "hi"]).await;
    let delivered: Value =
        http().get(format!("{}/local/deliveries", host.platform)).send().await.unwrap().json().await.unwrap();
    let answers: Vec<_> = delivered.as_array().unwrap().iter().map(|it| (&it["status"], &it["answer"])).collect();
    let sent = (&json!("delivered"), &json!("sent over the event socket, subscribers: 1"));
    assert_eq!(answers, [sent, sent]);
    let status = status(&host).await;
    assert_eq!(status["subscriptions"], json!([CREATED, "unique.chat.external-module.chosen"]));
    assert_eq!((&status["events"], &status["gaps"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn sends_the_request_of_the_platforms_toolkit() {
    let stream = Stream::start().await;
    let events = [CREATED, "unique.ingestion.content.finished", "document.processed"];
    let _host = serve(&settings(&stream, "", &events)).await;
    let request = stream.accept().await.request.to_lowercase();
    let path = "get /stream?subscriptions=unique.chat.user-message.created,unique.ingestion.content.finished http/1.1";
    assert_eq!(request.lines().next(), Some(path));
    let company = format!("x-company-id: {COMPANY_ID}");
    for header in ["authorization: bearer ukey_sesame", "x-app-id: app_1", &company, "accept: text/event-stream"] {
        assert!(request.lines().any(|line| line == header), "{header} is not in {request}");
    }
}

#[tokio::test]
async fn reads_every_form_of_an_event_stream() {
    let (host, _stream, mut line) = connected("").await;
    line.send(": hello\r\n\r\ndata:\n\ndata: \r\n\r\n").await;
    line.send(&format!("id: 1\r\nevent: message\r\ndata:{}\r\n\r\n", user_message("evt_1", "one"))).await;
    let pretty = serde_json::to_string_pretty(&user_message("evt_2", "two")).unwrap().replace('\n', "\ndata: ");
    line.send(&format!("data: {pretty}\n\n")).await;
    for byte in format!("data: {}\r\r", user_message("evt_3", "three")).chars() {
        line.send(&byte.to_string()).await;
    }
    for text in ["one", "two", "three"] {
        wait_for_message(&host, text).await;
    }
    let status = status(&host).await;
    assert_eq!((&status["events"], &status["refused"], &status["gaps"]), (&json!(3), &json!(0), &json!(0)));
}

/// Some gateways send keep-alives as data lines: they are neither events nor unreadable.
#[tokio::test]
async fn ignores_keep_alives_in_data_lines() {
    let (host, _stream, mut line) = connected("").await;
    line.send("data: null\n\ndata: {}\n\nevent: ping\ndata: 1764489600\n\ndata: \"keep-alive\"\n\nevent: ping\n\n")
        .await;
    line.event(&user_message("evt_1", "one")).await;
    wait_for_message(&host, "one").await;
    let status = status(&host).await;
    assert_eq!((&status["events"], &status["refused"]), (&json!(1), &json!(0)), "{status}");
}

/// A stream whose content looks like events is read even if a gateway changed the content type.
#[tokio::test]
async fn reads_a_stream_with_another_content_type() {
    let stream = Stream::start().await;
    let host = serve(&settings(&stream, "reconnect_after = '5m'", &[CREATED])).await;
    for (round, (headers, begins)) in [
        ("content-type: application/json\r\n", "\u{feff}\n: hello\n\n"),
        ("", "da"),
        ("content-type: text/plain\r\n", "id: 1\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut line = stream.accept().await;
        line.begin_as(headers).await;
        line.send(begins).await;
        let event = format!("data: {}\n\n", user_message(&format!("evt_{round}"), &format!("round {round}")));
        line.send(event.strip_prefix(begins).unwrap_or(&event)).await;
        wait_for_message(&host, &format!("round {round}")).await;
        line.end().await;
    }
    // JSON is not accepted.
    let mut line = stream.accept().await;
    line.begin_as("content-type: application/json\r\n").await;
    line.send("{\"error\": \"not here\"}").await;
    host.logged(&[
        "ERROR",
        "cannot connect to the event socket",
        "the response is application/json instead of text/event-stream",
    ])
    .await;
}

#[tokio::test]
async fn rejects_events_of_other_companies_and_continues() {
    let stream = Stream::start().await;
    let source = format!("url = {:?}", stream.url());
    let host = serve(&settings_with(&source, "max_body = '4KiB'", &[CREATED])).await;
    let mut line = stream.opened().await;
    line.send("data: hello\n\ndata: {\"id\":\n\ndata: [1]\n\n").await;
    let mut foreign = user_message("evt_1", "of another");
    foreign["companyId"] = "company_other".into();
    line.event(&foreign).await;
    line.event(&user_message("evt_2", &"x".repeat(5000))).await;
    line.event(&user_message("evt_3", "mine")).await;
    wait_for_message(&host, "mine").await;
    assert_eq!(count(&host, "cannot read event"), 3, "{}", host.log());
    // They are not sent again, so the host keeps them for the operators.
    let admin = format!("{}/api/unreadable", host.admin);
    let kept: Value = http().get(&admin).send().await.unwrap().json().await.unwrap();
    let kept: Vec<_> = kept["unreadable"].as_array().unwrap().iter().map(|it| (&it["source"], &it["size"])).collect();
    assert_eq!(kept.len(), 3, "{kept:?}");
    host.logged(&["WARN", "event belongs to no tenant", "company_other", "source=socket"]).await;
    host.logged(&["ERROR", "event lost: larger than `max_body` in [server]", "max_body=4096"]).await;
    assert_eq!(count(&host, "user-message-created"), 1, "{}", host.log());
    assert_eq!(status(&host).await["refused"], 5);
    assert!(!host.log().contains("sesame"), "the log contains the key");
}

#[tokio::test]
async fn reconnects_and_reports_the_gap() {
    let (host, stream, mut line) = connected("").await;
    line.event(&user_message("evt_1", "before")).await;
    // The connection breaks in the middle of an event.
    line.send("data: {\"id\": \"evt_2\", ").await;
    wait_for_message(&host, "before").await;
    drop(line);
    host.logged(&["WARN", "event socket disconnected"]).await;
    let mut line = stream.opened().await;
    host.logged(&["WARN", "event socket was disconnected", "from=", "to="]).await;
    line.event(&user_message("evt_3", "after")).await;
    wait_for_message(&host, "after").await;
    let once = status(&host).await;
    assert_eq!((&once["gaps"], &once["events"], &once["gap_since"]), (&json!(1), &json!(2), &Value::Null));
    let (from, to) = (once["last_gap"]["from"].as_str().unwrap(), once["last_gap"]["to"].as_str().unwrap());
    assert!(from < to && once["connected_since"] == to, "{once}");

    // A clean end leaves a gap too: nothing is sent again.
    line.end().await;
    host.logged(&["event socket disconnected", "the platform closed the connection"]).await;
    let _line = stream.opened().await;
    status_is(&host, "gaps", json!(2)).await;
}

#[tokio::test]
async fn opens_the_next_connection_before_the_old_one_ends() {
    let (host, stream, mut first) = connected("reconnect_after = '1s'").await;
    let mut second = stream.opened().await;
    let both = user_message("evt_both", "by both");
    first.event(&both).await;
    second.event(&both).await;
    first.event(&user_message("evt_old", "by the old one")).await;
    second.event(&user_message("evt_new", "by the new one")).await;
    for text in ["by both", "by the old one", "by the new one"] {
        wait_for_message(&host, text).await;
    }
    first.closed().await;
    host.logged(&["duplicate event", "evt_both"]).await;
    assert_eq!(count(&host, "user-message-created by both"), 1);
    let mut third = stream.opened().await;
    third.event(&user_message("evt_third", "by the third")).await;
    wait_for_message(&host, "by the third").await;
    let status = status(&host).await;
    assert_eq!(status["gaps"], 0, "{}", host.log());
    assert!(status["connections"].as_u64().unwrap() >= 3, "{status}");
}

/// Some platforms allow one connection per app and close the second one at once.
#[tokio::test]
async fn keeps_the_connection_if_the_platform_closes_the_second() {
    let (host, stream, mut first) = connected("reconnect_after = '1s'").await;
    stream.opened().await.end().await;
    host.logged(&["WARN", "new event socket connection ended early; the previous one continues"]).await;
    stream.opened().await.end().await;
    first.event(&user_message("evt_1", "still here")).await;
    wait_for_message(&host, "still here").await;
    let mut lasting = stream.opened().await;
    first.closed().await;
    lasting.event(&user_message("evt_2", "at last")).await;
    wait_for_message(&host, "at last").await;
    assert_eq!(status(&host).await["gaps"], 0);
}

#[tokio::test]
async fn explains_a_refusal_and_reconnects_after_a_reload() {
    let stream = Stream::start().await;
    let host = serve(&settings(&stream, "", &[CREATED])).await;
    let refusals = [
        ("401 Unauthorized", "", "check `api_key` and `app_id`"),
        ("403 Forbidden", "", "the app is not authorized for events of company `company_local`"),
        ("404 Not Found", "", "check `api_base` of the tenant's platform, or set `url` of the source"),
        ("302 Found", "location: http://127.0.0.1:1/\r\n", "redirects are not followed"),
        ("200 OK", "content-type: text/html\r\n", "the response is text/html instead of text/event-stream"),
        ("204 No Content", "", "is not an event stream"),
    ];
    for (tries, (status, headers, words)) in refusals.into_iter().enumerate() {
        stream.accept().await.refuse(status, headers).await;
        host.logged(&["ERROR", "cannot connect to the event socket", "retry_in=5m", words]).await;
        assert!(super::event_socket::status(&host).await["problem"].as_str().unwrap().contains(words));
        let changed = format!("reconnect_after = '{}m'", 5 + tries);
        host.save("modules.toml", settings(&stream, &changed, &[CREATED]));
    }
    // Temporary failures are retried.
    stream.accept().await.refuse("503 Service Unavailable", "").await;
    host.logged(&["WARN", "cannot connect to the event socket", "503 Service Unavailable"]).await;
    stream.accept().await.refuse("429 Too Many Requests", "retry-after: 1\r\n").await;
    host.logged(&["WARN", "retry_in=1s", "429 Too Many Requests"]).await;
    let mut line = stream.opened().await;
    line.event(&user_message("evt_1", "at last")).await;
    wait_for_message(&host, "at last").await;
    let status = status(&host).await;
    assert_eq!((&status["problem"], &status["gaps"]), (&Value::Null, &json!(0)), "{status}");
    assert!(!host.log().contains("sesame"), "the log contains the key");
}

#[tokio::test]
async fn times_out_when_the_platform_does_not_answer() {
    let stream = Stream::start().await;
    let host = serve(&settings(&stream, "silence = '1s'", &[CREATED])).await;
    let _unanswered = stream.accept().await;
    host.logged(&["WARN", "no answer within 1s"]).await;
    let _line = stream.opened().await;
    host.logged(&["connected to the event socket"]).await;
}

#[tokio::test]
async fn reconnects_when_keep_alives_stop() {
    let (host, stream, mut line) = connected("silence = '1s'").await;
    line.send(": one\n\n: two\n\ndata:\n\n").await;
    host.logged(&["WARN", "no data for 1s, although the platform had sent keep-alives before"]).await;
    let _next = stream.opened().await;
    status_is(&host, "gaps", json!(1)).await;
    line.closed().await;
}

/// A platform without keep-alives may simply have no events: the silence is not reported as a failure.
#[tokio::test]
async fn replaces_a_connection_without_keep_alives_without_a_gap() {
    let (host, stream, first) = connected("silence = '1s'").await;
    let mut second = stream.opened().await;
    second.event(&user_message("evt_1", "hello")).await;
    wait_for_message(&host, "hello").await;
    first.closed().await;
    assert_eq!(status(&host).await["gaps"], 0);
}

#[tokio::test]
async fn backpressure_stops_reading() {
    let gate = Gate::start().await;
    let events = format!("events = [{CREATED:?}, \"unique.chat.external-module.chosen\"]");
    let host = Settings::test_guest(&events)
        .server("max_deliveries = 1")
        .args(&["--event-socket", "--completion-url", &gate.url()])
        .start()
        .await;
    host.logged(&["connected to the event socket"]).await;
    say(&host.platform, "Test", "complete what is it?").await;
    gate.reached_by(1).await;
    say(&host.platform, "Test", "help").await;
    host.logged(&["WARN", "cannot record the event now; pausing the event socket"]).await;
    let held =
        until("an event to wait for capacity", async || status(&host).await["held"].as_str().map(str::to_owned)).await;
    gate.open();
    host.logged(&["delayed event recorded", &held]).await;
    status_is(&host, "held", Value::Null).await;
    // All four events were accepted: two messages, and two that chose the module.
    status_is(&host, "events", json!(4)).await;
}

#[tokio::test]
async fn changes_subscriptions_without_losing_events() {
    let (host, stream, mut old) = connected("").await;
    host.save("modules.toml", settings(&stream, "", &[CREATED, "unique.ingestion.content.finished"]));
    let unanswered = stream.accept().await;
    let wanted = "subscriptions=unique.chat.user-message.created,unique.ingestion.content.finished ";
    assert!(unanswered.request.contains(wanted), "{}", unanswered.request);
    // The old connection is read until the new one is open.
    old.event(&user_message("evt_1", "meanwhile")).await;
    wait_for_message(&host, "meanwhile").await;
    unanswered.refuse("503 Service Unavailable", "").await;
    let mut new = stream.opened().await;
    new.event(&user_message("evt_2", "from then on")).await;
    wait_for_message(&host, "from then on").await;
    old.closed().await;
    assert_eq!(status(&host).await["gaps"], 0);

    // Changes that don't affect the source leave the connection open.
    let same = settings(&stream, "", &[CREATED, "unique.ingestion.content.finished"]);
    host.save("modules.toml", same.replace("[server]", "[server]\napology = 'Sorry.'"));
    host.logged(&["settings reloaded"]).await;
    assert!(!stream.is_asked_within(Duration::from_millis(500)).await, "the host reconnected");
    new.event(&user_message("evt_3", "and on")).await;
    wait_for_message(&host, "and on").await;

    // The connection of a removed source is closed.
    host.save(
        "modules.toml",
        same.replace("\"event-socket\"", "\"webhook\"\npath = '/x'\nscheme = 'none'").replace("url", "#"),
    );
    new.closed().await;
    host.logged(&["event socket closed"]).await;
    assert_eq!(status(&host).await, Value::Null);
}

#[tokio::test]
async fn stopping_accepts_received_events_and_closes_the_socket() {
    let (mut host, _stream, mut line) = connected("").await;
    line.event(&user_message("evt_1", "the last one")).await;
    wait_for_message(&host, "the last one").await;
    assert!(host.stop().await.success());
    line.closed().await;
    host.logged(&["event socket closed"]).await;
}

/// Simulates the platform that closes each connection after ten minutes: every chat is answered exactly once.
#[tokio::test]
async fn chats_continue_across_reconnects() {
    let assistant = modhost_emulator::Assistant {
        id: "assistant_Test".into(),
        name: "Test".into(),
        module: "Test".into(),
        configuration: json!({}),
        chooses: true,
        tenant: None,
    };
    let platform = LocalPlatform::start(LocalSettings {
        assistants: vec![assistant],
        socket_lifetime: Duration::from_secs(3),
        ..LocalSettings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = settings_with("reconnect_after = '2s'", "", &["unique.chat.external-module.chosen"]);
    std::fs::write(folder.path().join("modules.toml"), text.replace("app_1", "app_local")).unwrap();
    let base = platform.api_base();
    let host = Host::serve(folder, &[("BASE", base.as_str()), ("KEY", "ukey_local")], Some(&platform)).await;
    host.logged(&["connected to the event socket"]).await;
    let mut chats = 0;
    until("four connections", async || {
        assert!(chat(&host, "Test", "help").await.text().contains("help"));
        chats += 1;
        (status(&host).await["connections"].as_u64()? >= 4).then_some(())
    })
    .await;
    let status = status(&host).await;
    assert_eq!((&status["gaps"], status["events"].as_u64() >= Some(chats)), (&json!(0), true), "{status}");
}
