//! Tests of routing, and of the commands that print and try it.

use std::fs;

use modhost_emulator as local;
use serde_json::{Value, json};

use super::harness::{CommandOutput, Host, Settings, chosen, modhost, post, signed_post, until, user_message};

/// A second source; two fields of the body identify its events.
const TICKETS: &str = r#"
[[source]]
name = "tickets"
path = "/tickets"
scheme = "hmac"
header = "X-Tickets-Signature"
prefix = "v1="
signed = "{timestamp}.{body}"
timestamp_header = "X-Tickets-Time"
secrets = ["env:TICKETS_SECRET"]

[source.event]
id = ["body:ticket.number", "body:ticket.changed"]
name = ["text:ticket", "body:what"]
payload = "body:ticket"
"#;

fn ticket(number: u32, changed: u32, what: &str, urgent: bool) -> Value {
    json!({ "what": what, "ticket": { "number": number, "changed": changed, "urgent": urgent, "tags": ["a", "b"] } })
}

fn all_modules() -> Settings {
    Settings::new()
        .more(TICKETS)
        .module("Everything", "test_guest", r#"events = ["*"]"#)
        .module("Chat", "test_guest", r#"events = ["unique.chat.*"]"#)
        .module("OneSpace", "test_guest", "events = [\"unique.chat.*\"]\nassistants = [\"assistant_one\"]")
        .module("Tickets", "test_guest", "events = [\"*\"]\nsources = [\"tickets\"]")
        .module("Closed", "test_guest", r#"events = ["ticket.closed"]"#)
        .module(
            "Urgent",
            "test_guest",
            "events = [\"ticket.*\"]\nmatch = { urgent = true, number = [7, 8], tags.1 = \"b\" }",
        )
}

/// Waits until exactly these modules have completed a delivery of an event, and no other module got one.
async fn reached(host: &Host, event: &str, modules: &[&str]) {
    let delivered = |words: &[&str]| {
        let mut modules: Vec<_> = host
            .log()
            .lines()
            .filter(|line| words.iter().all(|word| line.contains(word)) && line.contains(&format!("event={event:?}")))
            .filter_map(|line| line.split_once("module=")?.1.split_whitespace().next().map(str::to_owned))
            .collect();
        modules.sort();
        modules
    };
    let mut wanted: Vec<_> = modules.iter().map(|module| (*module).to_owned()).collect();
    wanted.sort();
    until(&format!("{event} at {wanted:?}"), async || {
        (delivered(&["attempt started"]).len() >= wanted.len()).then_some(())
    })
    .await;
    assert_eq!(delivered(&["attempt started"]), wanted, "{}", host.log());
}

/// Sends a ticket as its platform would.
async fn send_ticket(host: &Host, body: &Value) -> CommandOutput {
    fs::write(host.file("ticket.json"), body.to_string()).unwrap();
    let to = host.webhook.replace("/webhook", "");
    modhost(host.folder(), "send", &["--source", "tickets", "ticket.json", "--to", &to], &[]).await
}

#[tokio::test]
async fn delivers_events_only_to_modules_that_want_them() {
    let host = all_modules().start().await;
    let mut said = user_message("evt_said", "hello");
    signed_post(&host.webhook, said.to_string()).await;
    reached(&host, "evt_said", &["Everything", "Chat"]).await;
    said["id"] = "evt_there".into();
    said["payload"]["assistantId"] = "assistant_one".into();
    signed_post(&host.webhook, said.to_string()).await;
    reached(&host, "evt_there", &["Everything", "Chat", "OneSpace"]).await;
    // An event that names a module goes only to that module, even if others subscribe to it.
    signed_post(&host.webhook, chosen("evt_chosen", "Chat", "hello").to_string()).await;
    reached(&host, "evt_chosen", &["Chat"]).await;

    for (number, what, urgent, also) in
        [(7, "opened", true, &["Urgent"][..]), (6, "opened", true, &[]), (8, "closed", false, &["Closed"])]
    {
        let ran = send_ticket(&host, &ticket(number, 1, what, urgent)).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        reached(&host, &format!("{number}@1"), &[&["Everything", "Tickets"], also].concat()).await;
    }
}

#[tokio::test]
async fn derives_event_ids_from_configured_fields() {
    let host = all_modules().start().await;
    for (number, changed) in [(1, 1), (1, 2), (1, 1), (2, 1)] {
        assert_eq!(send_ticket(&host, &ticket(number, changed, "opened", false)).await.code, 0);
    }
    for event in ["1@1", "1@2", "2@1"] {
        reached(&host, event, &["Everything", "Tickets"]).await;
    }
    host.logged(&["duplicate event", "1@1"]).await;
    let nameless = send_ticket(&host, &json!({ "what": "opened", "ticket": { "number": 1 } })).await;
    assert_eq!(nameless.code, 1, "{nameless:?}");
    assert!(nameless.stdout.contains("its id is missing, `ticket.changed` in the body"), "{nameless:?}");
}

#[tokio::test]
async fn send_signs_an_event() {
    let host = all_modules().start().await;
    let to = host.webhook.replace("/webhook", "");
    fs::write(host.file("event.json"), user_message("evt_1", "from afar").to_string()).unwrap();
    let ran = modhost(host.folder(), "send", &["--source", "unique", "event.json", "--to", &to], &[]).await;
    assert_eq!((ran.code, ran.stdout.trim()), (0, r#"{"success":true}"#), "{ran:?}");
    reached(&host, "evt_1", &["Everything", "Chat"]).await;

    // Signed with another secret.
    let other = [("OTHER", "usig_other")];
    let args = ["--source", "unique", "event.json", "--to", &to, "--secret", "env:OTHER"];
    let ran = modhost(host.folder(), "send", &args, &other).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("rejected: 400") && ran.stdout.contains("invalid signature"), "{ran:?}");

    // The development secret is used only for hosts on this machine.
    let ran = modhost(host.folder(), "send", &["--source", "unique", "event.json", "--to", "https://example.com"], &[]);
    let ran = ran.await;
    assert!(ran.code == 1 && ran.stderr.contains("TEST_ENDPOINT_SECRET is not set"), "{ran:?}");
    for (args, words) in [
        (["--source", "nobody", "event.json"], "expected one of: unique, tickets"),
        (["--source", "unique", "nothing.json"], "cannot read nothing.json"),
    ] {
        let ran = modhost(host.folder(), "send", &args, &[]).await;
        assert!(ran.code == 1 && ran.stderr.contains(words), "{ran:?}");
    }
}

#[tokio::test]
async fn print_writes_a_valid_curl_command() {
    let host = all_modules().start().await;
    fs::write(host.file("ticket.json"), ticket(1, 1, "opened", false).to_string()).unwrap();
    let to = host.webhook.replace("/webhook", "");
    let args = ["--source", "tickets", "ticket.json", "--to", &to, "--print-curl", "-H", "X-Also: it's here"];
    let ran = modhost(host.folder(), "send", &args, &[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let command = ran.stdout;
    assert!(
        command.contains(r"'x-also: it'\''s here'") && command.contains("--data-binary '@ticket.json'"),
        "{command}"
    );
    assert!(!command.contains(local::ENDPOINT_SECRET), "{command}");
    let headers: Vec<(&str, &str)> = command
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-H '")?.split_once('\'')?.0.split_once(": "))
        .filter(|(name, _)| name.starts_with("x-tickets"))
        .collect();
    assert_eq!(headers.len(), 2, "{command}");
    let body = fs::read(host.file("ticket.json")).unwrap();
    assert_eq!(post(&format!("{to}/tickets"), &headers, body).await.status(), 200);
    reached(&host, "1@1", &["Everything", "Tickets"]).await;
}

#[tokio::test]
async fn print_never_prints_a_static_secret() {
    let folder = tempfile::tempdir().unwrap();
    let nexus = "[[source]]\nname = \"nexus\"\npath = \"/nexus\"\nscheme = \"nexus\"\nheader = \"nexus-signature\"\n\
                 secrets = [\"env:OLD|NEW\"]\n";
    fs::write(folder.path().join("modules.toml"), Settings::new().more(nexus).text()).unwrap();
    fs::write(folder.path().join("event.json"), "{}").unwrap();
    let args = ["--source", "nexus", "event.json", "--print-curl"];
    let ran = modhost(folder.path(), "send", &args, &[("NEW", "sesame")]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains(r#"-H "nexus-signature: ${OLD:-${NEW}}""#), "{}", ran.stdout);
    assert!(!format!("{ran:?}").contains("sesame"), "{ran:?}");
}

#[tokio::test]
async fn prints_the_routes() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), all_modules().text()).unwrap();
    let ran = modhost(folder.path(), "routes", &[], &[]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (
            0,
            "\
source   endpoint  tenant
unique   /webhook  default
tickets  /tickets  default

module      events         conditions
Everything  *              chosen by the user
Chat        unique.chat.*  chosen by the user
OneSpace    unique.chat.*  chosen by the user, assistant assistant_one
Tickets     *              chosen by the user, source tickets
Closed      ticket.closed
Urgent      ticket.*       number = 7 or 8, tags.1 = \"b\", urgent = true
"
        ),
        "{ran:?}"
    );
    let ran = modhost(folder.path(), "routes", &["--json"], &[]).await;
    let routes: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(routes["modules"][5]["match"], json!({ "number": [7, 8], "tags.1": ["b"], "urgent": [true] }));
}

#[tokio::test]
async fn explains_where_an_event_would_go() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), all_modules().text()).unwrap();
    let test = async |event: &Value, args: &[&str]| {
        fs::write(folder.path().join("event.json"), event.to_string()).unwrap();
        modhost(folder.path(), "routes", &[&["test", "event.json"], args].concat(), &[]).await
    };
    let ran = test(&ticket(7, 1, "opened", false), &[]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in [
        "ticket.opened 7@1  source \"tickets\", tenant \"default\"",
        "  receives  Everything",
        "  ignores   Chat        `events` are unique.chat.*",
        "  receives  Tickets",
        "  ignores   Urgent      `match` requires urgent = true; it is false",
    ] {
        assert!(ran.stdout.lines().any(|it| it == line), "{line:?} is not in:\n{}", ran.stdout);
    }
    let ran = test(&user_message("evt_1", "hello"), &["--json"]).await;
    let result: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&result["event"]["source"], &result["modules"][0]["gets"]), (&json!("unique"), &json!(true)));
    let reason = result["modules"][2]["reason"].as_str().unwrap();
    assert_eq!(reason, "`assistants` are assistant_one; the event's assistant is \"assistant_Test\"");

    let ran = test(&chosen("evt_1", "Nobody", "hello"), &[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stdout.contains("the user chose the module \"Nobody\"")
            && ran.stdout.contains("No module receives the event")
    );
    let ran = test(&json!({ "what": "opened" }), &[]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in ["unique: this is not an event: its id is missing", "tickets: this is not an event: its id is missing"]
    {
        assert!(ran.stderr.contains(words), "{ran:?}");
    }
    let ran = test(&json!({}), &["--source", "nobody"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("there is no [[source]] named \"nobody\""), "{ran:?}");
}
