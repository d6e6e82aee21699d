//! Tests that a tenant can't exhaust resources that other tenants need: two tenants on one host, one of them hostile.

use serde_json::Value;

use super::harness::{Host, Http2Model, Settings, chosen, signed_post, until};
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
    super::harness::chat(&host, "Test", "loop").await;
    let after = (ticks(&host, "modhost-guest"), ticks(&host, "tokio"));
    // A tick is 10 ms.
    let (guests, others) = (after.0 - before.0, after.1 - before.1);
    assert!(guests >= 40 && guests > 2 * others, "{guests} ticks on guest threads, {others} on others");
}
