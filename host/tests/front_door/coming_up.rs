//! A module that takes long to come up keeps nobody waiting but those who want something of it.

use std::fs;

use reqwest::StatusCode;
use serde_json::Value;

use super::harness::components::compiles_for_long;
use super::harness::{
    Host, Settings, chat, chosen, component, http, modules, say, signed_post, standing, until, variant, wait_for_answer,
};

/// Settings with the test guest, and with a module whose component is compiled for as long as the test runs.
fn with_slow(lines: &str) -> Settings {
    patient(Settings::test_guest(lines)).module_file("Slow", "slow.wasm", "")
}

fn patient(settings: Settings) -> Settings {
    settings.server(r#"compiler = { timeout = "1h", memory = "8GiB" }"#)
}

/// The deliveries to a module.
async fn deliveries(host: &Host, module: &str) -> Vec<Value> {
    let url = format!("{}/api/deliveries?module={module}", host.admin);
    let answer: Value = http().get(url).send().await.unwrap().json().await.unwrap();
    answer["deliveries"].as_array().unwrap().clone()
}

/// Waits until the one delivery to a module is in a state, after so many attempts.
async fn delivery_is(host: &Host, module: &str, state: &str, attempts: u32) {
    until(&format!("a delivery to {module} that is {state}"), async || {
        let all = deliveries(host, module).await;
        assert!(all.len() <= 1, "{all:?}");
        let delivery = all.first()?;
        (delivery["state"] == state && delivery["attempts"] == attempts).then_some(())
    })
    .await;
}

/// Talks to a module as soon as the local platform knows it; answers with the chat.
async fn say_to(host: &Host, module: &str, text: &str) -> String {
    until(&format!("somebody to talk to about {module}"), async || {
        let url = format!("{}/local/assistants", host.platform);
        let assistants: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        assistants.as_array().unwrap().iter().any(|assistant| assistant["module"] == module).then_some(())
    })
    .await;
    say(&host.platform, module, text).await
}

#[tokio::test]
async fn a_slow_component_keeps_no_change_waiting() {
    let host = patient(Settings::test_guest("")).start().await;
    host.save("slow.wasm", compiles_for_long());
    let settings = with_slow(r#"config = { greeting = "Salut" }"#).module("DemoApp", "demo_app", "");
    host.save_settings(&settings.server(r#"apology = "Nobody is in.""#));
    host.logged(&["the changed settings are taken in"]).await;

    // What was there has its new settings, and what is new serves.
    assert_eq!(chat(&host, "Test", "config greeting").await.text(), "Salut");
    assert_eq!(chat(&host, "Test", "fail now").await.text(), "Nobody is in.");
    host.serves("DemoApp", &fs::read(component("demo_app")).unwrap()).await;
    let slow = host.module("Slow").await;
    assert!(slow["coming_up"] == true && slow["version"].is_null() && slow["refused"].is_null(), "{slow}");
    let table = modules(&host, &[]).await;
    assert!(table.stdout.contains("coming up, its deliveries wait"), "{table:?}");
    assert!(modules(&host, &["show", "Slow"]).await.stdout.contains("is coming up; its deliveries wait"));

    // What is for the slow one waits, and what is for nobody doesn't.
    let asked = say_to(&host, "Slow", "reply at last").await;
    delivery_is(&host, "Slow", "waiting", 0).await;
    let nobodys = chosen("evt_1", "Nobody", "reply hi").to_string();
    assert_eq!(signed_post(&host.webhook, nobodys).await.status(), StatusCode::OK);
    host.logged(&["no such module here wants it", "evt_1"]).await;
    assert_eq!(chat(&host, "Test", "reply still here").await.text(), "still here");
    delivery_is(&host, "Slow", "waiting", 0).await;

    // A better file is taken at once: nobody wants what is being compiled any more.
    let better = variant("test_guest", 1);
    host.save("slow.wasm", &better);
    host.serves("Slow", &better).await;
    assert_eq!(wait_for_answer(&host, &asked).await.text(), "at last");
    delivery_is(&host, "Slow", "completed", 1).await;
    assert_eq!(standing(&host, "Slow").await["coming_up"], false);
}

#[tokio::test]
async fn a_host_listens_before_all_its_modules_have_come_up() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("slow.wasm"), compiles_for_long()).unwrap();
    let settings = with_slow("").at_once();
    let host = settings.start_in(folder).await;
    let told = ["module    Slow  no version serves yet: it comes up, and its events wait", "module    Test  "];
    assert!(told.iter().all(|line| host.output().contains(line)), "{}", host.output());
    let health = http().get(host.webhook.replace("/webhook", "/health")).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    assert_eq!(chat(&host, "Test", "reply hello").await.text(), "hello");
    let asked = say(&host.platform, "Slow", "reply at last").await;
    delivery_is(&host, "Slow", "waiting", 0).await;

    // It waits on disk.
    let host = settings.start_in(host.kill()).await;
    assert_eq!(chat(&host, "Test", "reply hello").await.text(), "hello");
    assert_eq!(host.module("Slow").await["coming_up"], true);
    delivery_is(&host, "Slow", "waiting", 0).await;
    host.save("slow.wasm", variant("test_guest", 1));
    assert_eq!(wait_for_answer(&host, &asked).await.text(), "at last");
    delivery_is(&host, "Slow", "completed", 1).await;
}

#[tokio::test]
async fn what_waits_for_a_module_that_does_not_come_up_is_not_kept_waiting() {
    let settings = Settings::test_guest("").server(r#"compiler = { timeout = "2s" }"#);
    let settings = settings.module_file("Slow", "slow.wasm", "retry = { attempts = 1 }");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("slow.wasm"), compiles_for_long()).unwrap();
    let host = settings.at_once().start_in(folder).await;
    let asked = say(&host.platform, "Slow", "reply hi").await;
    let answer = wait_for_answer(&host, &asked).await;
    assert!(answer.text().starts_with("Sorry"), "{}", answer.text());
    delivery_is(&host, "Slow", "dead", 1).await;
    let slow = host.module("Slow").await;
    assert!(slow["refused"].as_str().unwrap().contains("compiling it took longer than 2s"), "{slow}");
    assert_eq!(slow["coming_up"], false);
}
