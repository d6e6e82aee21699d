//! Tests of which limit ends a delivery (the module's, its tenant's, the server's), and of limits shared by deliveries.

use futures::future::join_all;
use modhost_emulator as local;
use serde_json::Value;

use super::APOLOGY;
use crate::harness::{Gate, Host, Settings, chat, http, say, until, wait_for_answer};

/// Settings whose tenant has these limits.
fn of_tenant(limits: &str) -> Settings {
    Settings::new().tenants(&[("acme", local::COMPANY_ID)]).tenant(&format!("[tenant.limits]\n{limits}"))
}

const ONCE: &str = "retry = { attempts = 1 }";

#[tokio::test]
async fn lowest_limit_applies_and_is_named() {
    let host = of_tenant("memory = \"8MiB\"\ncpu = \"100ms\"\nlog_lines = 5")
        .server("[server.ceilings]\ncalls = 3\ntimeout = \"1h\"\nmemory = \"32MiB\"\nanswers = \"64KiB\"")
        .module("Test", "test_guest", ONCE)
        .module("Small", "test_guest", &format!("{ONCE}\nlimits = {{ memory = \"4MiB\", calls = 2 }}"))
        .start()
        .await;
    let cases = [
        ("Test", "allocate 64", "memory: it asked for 8.", "`limits.memory` of the tenant is 8.0 MiB"),
        ("Small", "allocate 64", "memory: it asked for 4.", "`limits.memory` is 4.0 MiB"),
        ("Test", "loop", "cpu: it computed for 100ms, ", "`limits.cpu` of the tenant"),
        ("Test", "steps-left 9", "calls: it made more than 3, ", "`calls` of [server.ceilings]"),
        ("Small", "steps-left 9", "calls: it made more than 2, ", "`limits.calls`"),
    ];
    for (module, command, what, whose) in cases {
        assert_eq!(chat(&host, module, command).await.text(), APOLOGY, "{command}");
        host.logged(&["delivery failed", "limit reached: ", what, whose, &format!("module={module} ")]).await;
    }
    assert_eq!(chat(&host, "Test", "flood 6").await.text(), "printed");
    host.logged(&["more lines than `log_lines` allows", "module=Test "]).await;
}

#[tokio::test]
async fn keyvalue_quota_is_capped_by_tenant_and_server() {
    let host = of_tenant("keyvalue = \"8KiB\"")
        .server("[server.ceilings]\nkeyvalue = \"16KiB\"")
        .module("Test", "test_guest", ONCE)
        .module("Small", "test_guest", &format!("{ONCE}\nlimits = {{ keyvalue = \"4KiB\" }}"))
        .start()
        .await;
    host.logged(&["[server.ceilings] lowers the default limits", "`keyvalue` is 16.0 KiB instead of 10.0 MiB"]).await;
    for (module, kept) in
        [("Test", "8.0 KiB that `limits.keyvalue` of the tenant"), ("Small", "4.0 KiB that `limits.keyvalue` in")]
    {
        chat(&host, module, "kv-fill 9000 a").await;
        host.logged(&["delivery failed", "take 0 B of the ", kept, &format!("module={module} ")]).await;
    }
}

#[tokio::test]
async fn ceiling_limits_concurrent_deliveries() {
    let gate = Gate::start().await;
    let host = Settings::new()
        .module("Test", "test_guest", "")
        .module("Other", "test_guest", "")
        .server("[server.ceilings]\nconcurrency = 2")
        .model(&gate.url())
        .start()
        .await;
    host.logged(&["`concurrency` of a module is 2 instead of 16, `concurrency` of a tenant is 2 instead of 32"]).await;
    let mut waiting = Vec::new();
    for module in ["Test", "Test", "Test", "Other"] {
        waiting.push(say(&host.platform, module, "complete hi").await);
    }
    gate.reached_by(2).await;
    let running = until("all deliveries to be recorded", async || {
        let url = format!("{}/api/totals", host.admin);
        let totals: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        let [waiting, running] = ["waiting", "running"].map(|state| totals["deliveries"][state].as_u64());
        (waiting? + running? == 4).then_some(running)
    });
    assert_eq!(running.await, Some(2), "the limit applies to both modules of the tenant together");
    gate.open();
    for chat_id in &waiting {
        assert_eq!(wait_for_answer(&host, chat_id).await.text(), Gate::ANSWER);
    }
}

#[tokio::test]
async fn limits_the_size_of_all_calls_and_of_one_answer() {
    let host = Settings::test_guest(&format!("{ONCE}\nlimits = {{ answers = \"100B\" }}"))
        .module("Journal", "test_guest", &format!("{ONCE}\nlimits = {{ journal = \"2KiB\" }}"))
        .start()
        .await;
    assert_eq!(chat(&host, "Test", "history").await.text(), APOLOGY);
    host.logged(&["limit reached: answers: one call's answer comes to ", "`limits.answers` is 100 B"]).await;
    assert_eq!(chat(&host, "Journal", "steps-left 40").await.text(), APOLOGY);
    host.logged(&["limit reached: journal: its calls and their answers come to more than 2.0 KiB"]).await;
}

#[tokio::test]
async fn reports_log_output_above_the_limit() {
    let host = Settings::test_guest("limits = { log_bytes = \"1KiB\" }").start().await;
    assert_eq!(chat(&host, "Test", &format!("stdout {}", "words ".repeat(300))).await.text(), "printed");
    host.logged(&["more text than `log_bytes` allows: the rest is left out", "module=Test"]).await;
    assert_eq!(host.lines(&["words words"]), 0);
    // A panic message is logged even after the limit is reached.
    let host = Settings::test_guest(&format!("{ONCE}\nlimits = {{ log_lines = 1 }}")).start().await;
    chat(&host, "Test", "panic the end").await;
    host.logged(&["module=Test", "more lines than"]).await;
    until("the panic message", async || host.log().contains(r"\nthe end").then_some(())).await;
}

#[tokio::test]
async fn limits_the_total_memory_of_a_tenant() {
    let settings = of_tenant("total_memory = \"12MiB\"");
    exceed_total_memory(settings, ["limit reached: tenant memory: ", "`limits.total_memory` of the tenant"]).await;
}

#[tokio::test]
async fn limits_the_total_memory_of_the_host() {
    // A single tenant gets three quarters.
    let settings = Settings::new().server("guest_memory = \"16MiB\"");
    exceed_total_memory(settings, ["limit reached: host memory: ", "`guest_memory` of [server]"]).await;
}

/// Runs deliveries that together need more than 12 MiB, the limit of the settings.
async fn exceed_total_memory(settings: Settings, reason: [&str; 2]) {
    let gate = Gate::start().await;
    let host = settings
        .module("Test", "test_guest", "retry = { attempts = 5, first = \"100ms\", max = \"200ms\" }")
        .model(&gate.url())
        .start()
        .await;
    // Each delivery starts with a little over 1 MiB. Some wait for an answer; the others exceed the total.
    let waiting = join_all((0..8).map(|_| say(&host.platform, "Test", "allocate-and 4|complete hi"))).await;
    host.logged(&["attempt failed; retrying", reason[0], reason[1]]).await;
    gate.open();
    let mut answered = 0;
    for chat_id in &waiting {
        answered += usize::from(wait_for_answer(&host, chat_id).await.text() == Gate::ANSWER);
    }
    assert!(answered > 0, "no delivery had enough memory");
    // Their memory is free again.
    assert_eq!(chat(&host, "Test", "allocate-and 8|reply room").await.text(), "room");
}

#[tokio::test]
async fn limits_the_size_of_failure_texts() {
    let host = Settings::test_guest(ONCE).start().await;
    let long = "é".repeat(40_000);
    let answer = chat(&host, "Test", &format!("fail-with-text {long}|{long}")).await;
    assert!((16_000..17_000).contains(&answer.text().len()), "{} bytes of user text", answer.text().len());
    assert!(answer.text().ends_with("é…"));
    let reason = reason(&host).await;
    assert!((16_000..17_000).contains(&reason.len()), "{} bytes of reason", reason.len());
}

/// The reason of the only dead delivery.
async fn reason(host: &Host) -> String {
    until("a dead delivery", async || {
        let url = format!("{}/api/deliveries?state=dead", host.admin);
        let dead: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        Some(dead["deliveries"].as_array()?.first()?["reason"].as_str()?.to_owned())
    })
    .await
}
