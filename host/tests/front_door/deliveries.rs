//! Tests of the operator's view of deliveries: the command, the admin API, and the offline data directory.

use serde_json::{Value, json};

use super::harness::{
    ADMIN_TOKEN, CommandOutput, Gate, Host, Settings, chat, component, http, modhost, say, signed_post, until,
    user_message, wait_for_answer,
};

/// Runs `modhost deliveries` against a running host.
async fn deliveries(host: &Host, args: &[&str]) -> CommandOutput {
    let mut all = vec!["--admin", host.admin.as_str()];
    all.extend(args);
    modhost(host.folder(), "deliveries", &all, &[]).await
}

/// Parses the output of a list: one JSON object per line.
fn parse_lines(ran: &CommandOutput) -> Vec<Value> {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the only delivery of a module is in a state, and returns it.
async fn in_state(host: &Host, state: &str) -> Value {
    until(&format!("a delivery that is {state}"), async || {
        parse_lines(&deliveries(host, &["--json", "--state", state]).await).into_iter().next()
    })
    .await
}

fn id(delivery: &Value) -> &str {
    delivery["id"].as_str().unwrap()
}

#[tokio::test]
async fn list_prints_one_delivery_per_line() {
    let host = Settings::samples().start().await;
    chat(&host, "DemoApp", "good morning").await;
    let all = until("both deliveries to end", async || {
        let all = parse_lines(&deliveries(&host, &["list", "--json"]).await);
        (all.len() == 2 && all.iter().all(|it| it["state"] == "completed")).then_some(all)
    })
    .await;
    let demo = all.iter().find(|it| it["module"] == "DemoApp").unwrap();
    for key in ["event_id", "version", "created_at", "ended_at"] {
        assert!(demo[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {demo}");
    }
    assert_eq!((&demo["source"], &demo["tenant"], &demo["attempts"]), (&json!("unique"), &json!("default"), &json!(1)));
    assert_eq!(demo["reason"], Value::Null);

    let event = demo["event_id"].as_str().unwrap();
    let of_event = parse_lines(&deliveries(&host, &["--json", "--event", event]).await);
    assert_eq!(of_event.iter().map(id).collect::<Vec<_>>(), [id(demo)]);
    let of_module = parse_lines(&deliveries(&host, &["--json", "--module", "ChatLog", "--tenant", "default"]).await);
    assert!(of_module.iter().all(|it| it["module"] == "ChatLog") && of_module.len() == 1, "{of_module:?}");
    assert!(parse_lines(&deliveries(&host, &["--json", "--state", "dead"]).await).is_empty());
    assert!(parse_lines(&deliveries(&host, &["--json", "--tenant", "nobody"]).await).is_empty());
    assert_eq!(parse_lines(&deliveries(&host, &["--json", "--limit", "1"]).await).len(), 1);
    assert_eq!(parse_lines(&deliveries(&host, &["--json", "--since", "1h"]).await).len(), 2);
    assert!(parse_lines(&deliveries(&host, &["--json", "--since", "2999-01-01T00:00:00Z"]).await).is_empty());

    let table = deliveries(&host, &[]).await;
    assert!(table.stdout.contains("DemoApp") && table.stdout.contains("completed"), "{table:?}");
}

#[tokio::test]
async fn show_includes_states_attempts_logs_and_calls() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", "reply good morning").await;
    let delivery = in_state(&host, "completed").await;
    let story: Value =
        serde_json::from_str(&deliveries(&host, &["show", id(&delivery), "--json"]).await.stdout).unwrap();
    let states: Vec<&str> =
        story["changes"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["waiting", "running", "completed"]);
    assert_eq!(story["attempts_made"][0]["outcome"], "completed");
    assert_eq!(story["event"]["payload"]["userMessage"]["text"], "reply good morning");
    let reply = story["calls"].as_array().unwrap().iter().find(|call| call["import"] == "messages.reply").unwrap();
    assert!(reply["arguments"].to_string().contains("good morning"), "{reply}");
    assert!(reply["answer"]["ok"].is_object(), "{reply}");

    let text = deliveries(&host, &["show", id(&delivery)]).await.stdout;
    assert!(text.contains("messages.reply") && text.contains("attempt 1"), "{text}");
}

#[tokio::test]
async fn retries_a_dead_delivery() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", "fail no luck").await;
    let dead = in_state(&host, "dead").await;
    assert_eq!(dead["reason"], "no luck");

    let again = deliveries(&host, &["retry", id(&dead)]).await;
    assert_eq!((again.code, again.stdout.trim()), (0, format!("{}  waiting", id(&dead)).as_str()), "{again:?}");
    until("the second attempt to end", async || (in_state(&host, "dead").await["attempts"] == 2).then_some(())).await;

    let unknown = deliveries(&host, &["retry", "dlv_nobody"]).await;
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("there is no delivery dlv_nobody"), "{unknown:?}");
}

#[tokio::test]
async fn drops_a_waiting_delivery_and_apologizes() {
    let host = Settings::test_guest("retry = { first = \"1h\", max = \"1h\" }").start().await;
    let chat_id = say(&host.platform, "Test", "retry 3600").await;
    let waits = until("a delivery that failed once", async || {
        parse_lines(&deliveries(&host, &["--json", "--state", "waiting"]).await)
            .into_iter()
            .find(|it| it["attempts"] == 1)
    })
    .await;
    assert!(waits["due_at"].is_string(), "{waits}");

    let dropped = deliveries(&host, &["drop", id(&waits), "--reason", "nobody needs it"]).await;
    assert_eq!(dropped.code, 0, "{dropped:?}");
    assert_eq!(in_state(&host, "dropped").await["reason"], "nobody needs it");
    let answer = wait_for_answer(&host, &chat_id).await;
    assert!(answer.text().starts_with("Sorry"), "{answer:?}");
    assert_eq!(deliveries(&host, &["drop", id(&waits)]).await.code, 1, "a dropped delivery was dropped again");
}

#[tokio::test]
async fn ends_waiting_deliveries_of_a_removed_module() {
    let gate = Gate::start().await;
    let with_module = Settings::test_guest("limits = { concurrency = 1 }").args(&["--completion-url", &gate.url()]);
    let host = with_module.start().await;
    let runs = say(&host.platform, "Test", "complete what is it?").await;
    gate.reached_by(1).await;
    let waits = say(&host.platform, "Test", "reply good morning").await;
    let waiting = in_state(&host, "waiting").await;

    host.save_settings(&Settings::new().server("removal_grace = \"0s\""));
    let dead = in_state(&host, "dead").await;
    assert_eq!(id(&dead), id(&waiting));
    assert!(dead["reason"].as_str().unwrap().contains("no longer in modules.toml"), "{dead}");
    let answer = wait_for_answer(&host, &waits).await;
    assert!(answer.text().starts_with("Sorry"), "{answer:?}");
    gate.open();
    assert_eq!(wait_for_answer(&host, &runs).await.text(), Gate::ANSWER, "the running delivery completes");

    host.save_settings(&with_module);
    host.serves("Test", &std::fs::read(component("test_guest")).unwrap()).await;
    assert_eq!(deliveries(&host, &["retry", id(&dead)]).await.code, 0);
    until("the retried delivery to complete", async || {
        let all = parse_lines(&deliveries(&host, &["--json", "--state", "completed"]).await);
        all.iter().any(|it| id(it) == id(&dead)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn deduplicates_events_after_their_deliveries_were_purged() {
    let listens = r#"events = ["unique.chat.user-message.created"]"#;
    let host = Settings::test_guest(listens).server("retention = { completed = \"1ms\" }").start().await;
    let event = user_message("evt_1", "good morning").to_string();
    assert!(signed_post(&host.webhook, event.clone()).await.status().is_success());
    host.logged(&["completed", "module=Test"]).await;
    until("the delivery to be removed", async || {
        parse_lines(&deliveries(&host, &["--json"]).await).is_empty().then_some(())
    })
    .await;
    assert!(signed_post(&host.webhook, event).await.status().is_success());
    host.logged(&["duplicate event", "evt_1"]).await;
    assert!(parse_lines(&deliveries(&host, &["--json"]).await).is_empty());
}

#[tokio::test]
async fn replays_a_recorded_delivery_with_another_component() {
    let host = Settings::samples().start().await;
    chat(&host, "DemoApp", "good morning").await;
    let all = until("the deliveries to end", async || {
        let all = parse_lines(&deliveries(&host, &["--json", "--module", "DemoApp", "--state", "completed"]).await);
        (!all.is_empty()).then_some(all)
    })
    .await;
    let config = host.file("modules.toml");
    let dry_run = async |file: &std::path::Path| {
        let args = ["replay", id(&all[0]), "--component", file.to_str().unwrap(), "--config", config.to_str().unwrap()];
        deliveries(&host, &args).await
    };
    let same = dry_run(&component("demo_app")).await;
    assert_eq!(same.code, 0, "{same:?}");
    assert!(
        same.stdout.contains("same     messages.create") && same.stdout.contains("the reply is the same"),
        "{same:?}"
    );

    let other = dry_run(&component("assistant")).await;
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.stdout.contains("- removed  messages.create"), "{other:?}");
    assert!(other.stdout.contains("+ added    message-log.entry.create"), "{other:?}");
    let chats: Value = http().get(format!("{}/local/chats", host.platform)).send().await.unwrap().json().await.unwrap();
    assert!(!chats.to_string().contains("_dry_run_"), "a dry run wrote to the platform: {chats}");
}

#[tokio::test]
async fn reads_an_offline_data_directory_without_changing_it() {
    let mut host = Settings::test_guest("").start().await;
    chat(&host, "Test", "reply good morning").await;
    let known = in_state(&host, "completed").await;
    host.stop().await;
    let data = host.file(".modhost");
    let data = data.to_str().unwrap();
    let list = modhost(host.folder(), "deliveries", &["--data-dir", data, "--json"], &[]).await;
    assert_eq!(parse_lines(&list).iter().map(id).collect::<Vec<_>>(), [id(&known)]);
    let refused = modhost(host.folder(), "deliveries", &["retry", id(&known), "--data-dir", data], &[]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("read-only"), "{refused:?}");
    let nothing = modhost(host.folder(), "deliveries", &["--data-dir", "elsewhere"], &[]).await;
    assert!(nothing.code == 1 && nothing.stderr.contains("there is no journal"), "{nothing:?}");
}

#[tokio::test]
async fn admin_api_matches_its_openapi_and_rejects_bad_requests() {
    let host = Settings::test_guest("").start().await;
    let get = async |path: &str| http().get(format!("{}{path}", host.admin)).send().await.unwrap();
    let described: Value = get("/api/openapi.json").await.json().await.unwrap();
    for path in described["paths"].as_object().unwrap().keys() {
        let answer = get(&path.replace("{id}", "dlv_nobody").replace("{name}", "Test")).await;
        let answer = answer.text().await.unwrap();
        assert!(!answer.contains("no such path"), "{path} is in the OpenAPI document but has no route: {answer}");
    }
    assert_eq!(get("/api/deliveries?state=lost").await.status(), 400);
    assert_eq!(get("/api/deliveries?limit=0").await.status(), 400);
    assert_eq!(get("/api/nothing").await.status(), 404);
    // Requests that fail before they reach a handler also get a JSON error.
    for (path, words) in [
        ("/api/deliveries?limit=x", "limit"),
        ("/api/deliveries?nonsense=1", "nonsense"),
        ("/api/deliveries/%ff", "UTF-8"),
    ] {
        let refused = get(path).await;
        assert_eq!(refused.status(), 400, "{path}");
        let error = refused.json::<Value>().await.unwrap()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words), "{path}: {error}");
    }
    for path in ["/api/totals", "/health", "/metrics"] {
        let refused = http().delete(format!("{}{path}", host.admin)).send().await.unwrap();
        assert_eq!((refused.status().as_u16(), &refused.headers()["allow"]), (405, &"GET,HEAD".parse().unwrap()));
        assert_eq!(
            refused.json::<Value>().await.unwrap()["error"],
            "this path doesn't support the method; the Allow header lists those it supports"
        );
    }
    // A page in a browser can post a form to this address cross-origin, but not JSON.
    let form = http().post(format!("{}/api/deliveries/dlv_1/retry", host.admin)).body("{}").send().await.unwrap();
    assert_eq!(form.status(), 415);
    let totals: Value = get("/api/totals").await.json().await.unwrap();
    assert_eq!(totals["deliveries"]["completed"], 0);
}

#[tokio::test]
async fn admin_api_requires_its_token() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), format!("ADMIN={ADMIN_TOKEN}\n")).unwrap();
    let host = Settings::test_guest("").server("admin_token = \"env:ADMIN\"").start_in(folder).await;
    let totals = format!("{}/api/totals", host.admin);
    assert_eq!(http().get(&totals).send().await.unwrap().status(), 401);
    assert_eq!(http().get(&totals).bearer_auth("wrong").send().await.unwrap().status(), 401);
    assert_eq!(http().get(&totals).bearer_auth(ADMIN_TOKEN).send().await.unwrap().status(), 200);
    assert_eq!(http().get(format!("{}/health", host.admin)).send().await.unwrap().status(), 200);

    let without = deliveries(&host, &[]).await;
    assert!(without.code == 1 && without.stderr.contains("admin_token"), "{without:?}");
    let with = deliveries(&host, &["--admin-token", "env:ADMIN"]).await;
    assert_eq!(with.code, 0, "{with:?}");
    assert!(!host.log().contains(ADMIN_TOKEN));
}
