//! Hosts whose clocks differ: retries are due by the clock of the database.

use std::path::Path;

use http::Method;
use serde_json::Value;

use super::super::faulty_platform::Fault;
use super::super::harness::until;
use super::super::host::Config;
use super::super::machine::FAKETIME;
use super::super::small_disk::notice::notice;
use super::{PostgresServer, platform};

const COMPLETIONS: &str = "/openai/chat/completions";

/// The seconds after which the platform wants to be asked again.
const RETRY_AFTER: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_by_minutes_do_not_move_retries() {
    let Some(server) = PostgresServer::shared() else { return };
    if !Path::new(FAKETIME).exists() {
        // CI has it installed.
        assert!(std::env::var_os("CI").is_none(), "{FAKETIME} is missing");
        notice(&format!("SKIPPED hosts whose clocks differ: {FAKETIME} is missing (Debian: faketime)"));
        return;
    }
    let faulty_platform = platform().await;
    let url = server.new_database();
    let hosts = ["+10m", "-10m", "+0m"].map(|offset| {
        Config::new()
            .module("Test", "test_guest", "")
            .database(&url)
            // Shorter than the `Retry-After` of the platform, so that the delivery waits for a retry, not the call.
            .platform(r#"timeout = "3s""#)
            // The test signs with the real clock.
            .source("tolerance = \"0s\"\ntolerance_ahead = \"0s\"")
            .variable("LD_PRELOAD", FAKETIME)
            .variable("FAKETIME", offset)
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .lay_out(&faulty_platform)
    });
    for host in &hosts {
        host.start().await;
    }
    let mut questions = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let marker = format!("marker {number}.");
        let slow_down = Fault::Answer(429, Some(RETRY_AFTER), r#"{"error":"slow down"}"#);
        faulty_platform.plan(Method::POST, COMPLETIONS, &marker, 1, slow_down);
        let question = faulty_platform.ask("Test", &format!("complete {marker}"), None).await;
        host.post_acknowledged(&question).await;
        questions.push(question);
    }
    for question in &questions {
        let host = &hosts[0];
        host.in_state_after(question, "completed", 2).await;
        let id = host.delivery_id(question).await;
        let details = host.get(&format!("/api/deliveries/{id}")).await;
        let at = |change: &Value| -> jiff::Timestamp { change["at"].as_str().unwrap().parse().unwrap() };
        let changes = details["changes"].as_array().unwrap();
        let retried = changes.iter().position(|change| change["state"] == "waiting" && change["reason"].is_string());
        let [waiting, running, ..] = &changes[retried.unwrap()..] else { panic!("{details}") };
        let waited = at(running).duration_since(at(waiting)).as_secs_f64();
        println!("retried after {waited} s");
        let due = RETRY_AFTER as f64;
        assert!((due - 1.0..due + 3.0).contains(&waited), "{waited}: {details}");
    }
    // The hosts see each other alive.
    until("all hosts to be alive", async || {
        let listed = hosts[1].get("/api/hosts").await;
        let alive = listed["hosts"].as_array()?.iter().filter(|host| host["alive"] == true).count();
        (alive == hosts.len()).then_some(())
    })
    .await;
}
