//! Tests that a tenant can't exhaust resources that other tenants need: two tenants on one host, one of them hostile.

use axum::body::{Body, Bytes};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::harness::{Host, Http2Model, Settings, chat, chosen, http, signed_post, until};
use super::server::{Server, answer};
use modhost_emulator as local;

/// The number of streams that the hostile tenant doesn't read.
const UNREAD: usize = 8;

/// The number of bytes that the host's HTTP/2 client accepts on one stream before the guest reads. On one connection it
/// accepts 5 MiB.
const STREAM_WINDOW: usize = 2 << 20;

/// Posts an event of a tenant, whose company has its name.
async fn post(host: &Host, tenant: &str, id: &str, module: &str, text: &str) {
    let mut event: Value = chosen(id, module, text);
    event["companyId"] = tenant.into();
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
}

/// A tenant's table, with a completion at this endpoint and no platform.
fn tenant(name: &str, api_base: &str, api_key: &str) -> String {
    format!(
        "[[tenant]]\nname = {name:?}\ncompanies = [{name:?}]\nplatform = {{ kind = \"none\" }}\n\
         [tenant.completion]\napi_base = {api_base:?}\napi_key = \"env:{api_key}\"\nmodel = \"own-model\"\n"
    )
}

/// One tenant opens streams and never reads them, at an endpoint that another tenant uses too. Over HTTP/2 the streams
/// of one connection share a flow control window.
#[tokio::test]
async fn unread_streams_block_no_other_completion() {
    let model = Http2Model::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), &model.certificate).unwrap();
    let settings = Settings::test_guest("retry = { attempts = 1 }").text();
    let (before, _) = settings.split_once("[[tenant]]").unwrap();
    let (_, modules) = settings.split_once("[[module]]").unwrap();
    let tenants =
        ["alpha", "beta"].map(|name| tenant(name, &model.api_base(), &format!("KEY_{}", name.to_uppercase())));
    let settings = format!("{before}{}\n[[module]]{modules}", tenants.join("\n"));
    std::fs::write(folder.path().join("modules.toml"), settings).unwrap();
    let ca = folder.path().join("ca.pem");
    let variables = [
        ("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET),
        ("KEY_ALPHA", "endless"),
        ("KEY_BETA", "short"),
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
    ];
    let host = Host::serve(folder, &variables, None).await;

    for number in 0..UNREAD {
        post(&host, "alpha", &format!("evt_{number}"), "Test", "stream-open 1 Tell me.|sleep 600000").await;
    }
    // One connection's flow control window is too small for that, so the host must use several connections.
    until("each stream to fill its window", async || (model.sent() >= UNREAD * STREAM_WINDOW).then_some(())).await;
    post(&host, "beta", "evt_beta", "Test", "stream-log Tell me.").await;
    host.logged(&["read Once| upon"]).await;
}

/// A tenant requests many large answers at once, which arrive without end. What has arrived counts as its memory, although
/// no guest has it yet, and is given back when its deliveries end.
#[tokio::test]
async fn answers_in_flight_count_as_memory_of_the_tenant() {
    const ARRIVING: usize = 3 << 20;
    let endless = Server::always(|| {
        let pieces = (0..ARRIVING / 4096).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 4096])));
        answer(200, Body::from_stream(stream::iter(pieces).chain(stream::pending())))
    })
    .await;
    let short = Server::always(|| answer(200, "short")).await;
    let tenant = |name: &str, limits: &str| {
        format!(
            "[[tenant]]\nname = {name:?}\ncompanies = [{name:?}]\nplatform = {{ kind = \"none\" }}\nlimits = {{ {limits} }}\n"
        )
    };
    let http = [&endless, &short].map(|server| format!("{{ host = \"http://{}\", private = true }}", server.address));
    let lines = format!("http = [{}]\ntenants = [\"alpha\"]\nretry = {{ attempts = 1 }}", http.join(", "));
    let settings = Settings::test_guest("tenants = [\"beta\"]").module("Http", "http_guest", &lines).text();
    let (before, _) = settings.split_once("[[tenant]]").unwrap();
    let (_, modules) = settings.split_once("[[module]]").unwrap();
    let tenants = tenant("alpha", "total_memory = \"16MiB\"") + &tenant("beta", "");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("modules.toml"), format!("{before}{tenants}\n[[module]]{modules}")).unwrap();
    let host = Host::serve(folder, &[("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET)], None).await;

    let begin = json!({ "begin": { "url": format!("http://{}/", endless.address) } });
    let many = Value::from([vec![begin; 6], vec!["finish".into()]].concat()).to_string();
    for number in 0..2 {
        post(&host, "alpha", &format!("evt_{number}"), "Http", &many).await;
    }
    // Its answers don't fit: one of its deliveries ends, which leaves memory to the other one.
    host.logged(&["module=Http", "limit reached: tenant memory", "`limits.total_memory` of the tenant"]).await;
    post(&host, "beta", "evt_beta", "Test", "stdout beta has memory").await;
    host.logged(&["beta has memory"]).await;

    // Once its deliveries have ended, nothing of theirs counts any more.
    let state = async |state: &str| -> usize {
        let url = format!("{}/api/deliveries?module=Http&state={state}", host.admin);
        let answer: Value = super::harness::http().get(url).send().await.unwrap().json().await.unwrap();
        answer["deliveries"].as_array().unwrap().len()
    };
    until("a delivery of alpha to end", async || (state("dead").await > 0).then_some(())).await;
    let send = json!([{ "send": { "url": format!("http://{}/", short.address) } }]).to_string();
    post(&host, "alpha", "evt_last", "Http", &send).await;
    until("the last request of alpha", async || (!short.requests().is_empty()).then_some(())).await;
}

/// The CPU time of the host's threads whose name begins like this, in clock ticks.
#[cfg(target_os = "linux")]
fn ticks(host: &Host, threads: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", host.process_id())).unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let of = |stat: &str| {
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
        // The user and system time of proc_pid_stat(5), counted from the field after the name.
        let times = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
        name.starts_with(threads).then(|| times.sum::<u64>())
    };
    stats.filter_map(|stat| of(&stat)).sum::<u64>()
}

/// Guests that compute occupy none of the threads that accept events.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn guests_compute_on_threads_of_their_own() {
    let settings = Settings::test_guest("limits = { cpu = \"500ms\" }\nretry = { attempts = 1 }");
    let host = settings.start().await;
    let before = (ticks(&host, "modhost-guest"), ticks(&host, "tokio"));
    chat(&host, "Test", "loop").await;
    let after = (ticks(&host, "modhost-guest"), ticks(&host, "tokio"));
    // A tick is 10 ms.
    let (guests, others) = (after.0 - before.0, after.1 - before.1);
    assert!(guests >= 40 && guests > 2 * others, "{guests} ticks on guest threads, {others} on others");
}

/// A host with tenants `alpha` and `beta`, whose companies have their names, and without a platform.
async fn two_tenants(limits_of_alpha: &str, retention: &str) -> Host {
    let quiet = "events = [\"quiet.*\"]\nretry = { attempts = 1 }";
    let settings = Settings::test_guest("retry = { attempts = 1 }").module("Quiet", "test_guest", quiet);
    let settings = settings.server(retention).text();
    let (before, _) = settings.split_once("[[tenant]]").unwrap();
    let (_, modules) = settings.split_once("[[module]]").unwrap();
    let [alpha, beta] = ["alpha", "beta"]
        .map(|name| format!("[[tenant]]\nname = {name:?}\ncompanies = [{name:?}]\nplatform = {{ kind = \"none\" }}\n"));
    let never = "[[module]]\nname = \"Missing\"\ncomponent = \"missing.wasm\"\n";
    let settings = format!("{before}{alpha}{limits_of_alpha}\n{beta}\n{never}[[module]]{modules}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("modules.toml"), settings).unwrap();
    Host::serve(folder, &[("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET)], None).await
}

/// Posts an event of a tenant to a module whose component is missing, so that the delivery waits. Returns the status.
async fn post_waiting(host: &Host, tenant: &str, id: &str, size: usize) -> u16 {
    let mut event: Value = chosen(id, "Missing", &"x".repeat(size));
    event["companyId"] = tenant.into();
    signed_post(&host.webhook, event.to_string()).await.status().as_u16()
}

/// Posts an event of a tenant that module `Quiet` completes without a reply.
async fn post_quiet(host: &Host, tenant: &str, id: &str, size: usize) {
    let mut event: Value = chosen(id, "Quiet", &"x".repeat(size));
    (event["companyId"], event["event"]) = (tenant.into(), "quiet.happened".into());
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
}

/// The states of a tenant's deliveries.
async fn states(host: &Host, tenant: &str) -> Vec<String> {
    let url = format!("{}/api/deliveries?tenant={tenant}&limit=1000", host.admin);
    let listed: Value = http().get(url).send().await.unwrap().json().await.unwrap();
    let states = listed["deliveries"].as_array().unwrap().iter();
    states.map(|delivery| delivery["state"].as_str().unwrap().to_owned()).collect()
}

/// Waiting events are never removed, so their size is limited before they are accepted.
#[tokio::test]
async fn waiting_events_of_a_tenant_leave_space_in_the_journal() {
    let host = two_tenants("", "[server.retention]\nmax_size = \"4MiB\"").await;
    let mut statuses = Vec::new();
    for number in 0..20 {
        statuses.push(post_waiting(&host, "alpha", &format!("evt_{number}"), 400_000).await);
    }
    let accepted = statuses.iter().filter(|status| **status == 200).count();
    assert!((6..=7).contains(&accepted), "three quarters of 4 MiB: {statuses:?}");
    assert!(statuses[accepted..].iter().all(|status| *status == 503), "{statuses:?}");
    host.logged(&["event refused for now", "journal full for tenant alpha", "`max_size` of [server.retention]"]).await;
    assert_eq!(post_waiting(&host, "beta", "evt_large", 400_000).await, 200);
    post(&host, "beta", "evt_beta", "Test", "log info beta runs").await;
    host.logged(&["beta runs"]).await;
}

#[tokio::test]
async fn waiting_events_of_a_tenant_stay_within_its_own_limit() {
    let host = two_tenants("[tenant.limits]\ntotal_journal = \"1MiB\"", "").await;
    let mut statuses = Vec::new();
    for number in 0..4 {
        statuses.push(post_waiting(&host, "alpha", &format!("evt_{number}"), 400_000).await);
    }
    assert_eq!(statuses, [200, 200, 503, 503]);
    host.logged(&["event refused for now", "`limits.total_journal` of the tenant"]).await;
    assert_eq!(post_waiting(&host, "beta", "evt_large", 900_000).await, 200);
}

/// Calls of running deliveries count, too: an event is small, but what its delivery records need not be.
#[tokio::test]
async fn calls_of_a_tenant_stay_within_its_own_limit() {
    let limits = "[tenant.limits]\ntotal_journal = \"16KiB\"";
    let host = Settings::new()
        .tenants(&[("acme", local::COMPANY_ID)])
        .tenant(limits)
        .module("Test", "test_guest", "retry = { attempts = 2, first = \"10ms\" }")
        .start()
        .await;
    assert!(chat(&host, "Test", "steps-left 200").await.text().starts_with("Sorry, "));
    host.logged(&["attempt failed; retrying", "limit reached: tenant journal", "`limits.total_journal` of the tenant"])
        .await;
    // The dead delivery is not unfinished any more, and makes room when it has to.
    assert_eq!(chat(&host, "Test", "reply room").await.text(), "room");
}

#[tokio::test]
async fn flood_removes_the_history_of_no_other_tenant() {
    let host = two_tenants("", "[server.retention]\nmax_size = \"3MiB\"").await;
    post(&host, "beta", "evt_dead", "Test", "fail on purpose").await;
    post_quiet(&host, "beta", "evt_completed", 10).await;
    until("beta's deliveries to end", async || {
        let mut states = states(&host, "beta").await;
        states.sort();
        (states == ["completed", "dead"]).then_some(())
    })
    .await;
    for number in 0..24 {
        post_quiet(&host, "alpha", &format!("evt_{number}"), 200_000).await;
    }
    until("alpha's oldest deliveries to be removed", async || {
        let states = states(&host, "alpha").await;
        (states.len() < 20 && states.iter().all(|state| state == "completed")).then_some(())
    })
    .await;
    let mut states = states(&host, "beta").await;
    states.sort();
    assert_eq!(states, ["completed", "dead"]);
}

/// The log is shared, so a tenant's modules may only write to it so fast. The delivery keeps all its lines.
#[tokio::test]
async fn tenant_that_logs_too_fast_loses_lines_of_its_own() {
    let host = two_tenants("[tenant.limits]\nlog_rate = \"1KiB\"", "").await;
    post(&host, "alpha", "evt_flood", "Test", &format!("stdout {}", "alpha logs\n".repeat(100))).await;
    host.logged(&["the tenant logs faster than its `limits.log_rate`", "tenant=alpha"]).await;
    post(&host, "beta", "evt_beta", "Test", &format!("stdout {}beta is done", "beta logs\n".repeat(100))).await;
    host.logged(&["beta is done"]).await;
    assert_eq!(host.lines(&["beta logs"]), 100);
    let lines = host.lines(&["alpha logs"]);
    // Five seconds' worth, and what the bucket gained meanwhile.
    assert!((20..60).contains(&lines), "{lines} lines of alpha");
    let kept = until("alpha's delivery to end", async || {
        let url = format!("{}/api/deliveries?tenant=alpha", host.admin);
        let listed: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        let id = listed["deliveries"][0]["id"].as_str().unwrap().to_owned();
        let url = format!("{}/api/deliveries/{id}", host.admin);
        let delivery: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        let log = delivery["attempts_made"][0]["log"].as_array()?.iter();
        Some(log.filter(|line| line["text"] == "alpha logs").count())
    });
    assert_eq!(kept.await, 100);
}
