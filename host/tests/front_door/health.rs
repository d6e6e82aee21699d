//! Tests of `/livez`, `/readyz` and `/health` on both listeners, as load balancers and orchestrators use them.

use std::fs;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::harness::{ADMIN_TOKEN, Gate, Host, PATIENCE, Settings, bare, http, say, signed_post, until, user_message};
use super::small_disk::SmallDisk;

const PROBES: [&str; 3] = ["/livez", "/readyz", "/health"];

/// The base URLs of both listeners.
fn listeners(host: &Host) -> [String; 2] {
    [host.webhook.strip_suffix("/webhook").unwrap().to_owned(), host.admin.clone()]
}

async fn get(url: &str) -> Response {
    http().get(url).send().await.unwrap()
}

/// The status and JSON body of a response.
async fn get_json(url: &str) -> (u16, Value) {
    let answer = get(url).await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn ready() -> Value {
    json!({ "status": "ok", "checks": { "startup": "ok", "shutdown": "ok", "journal": "ok" }, "reasons": [] })
}

/// The `/readyz` body of a ready host without waiting modules; the admin listener's has one more field.
fn ready_of(host: &Host, listener: &str) -> Value {
    let mut ready = ready();
    if listener == host.admin {
        ready["waiting"] = json!([]);
    }
    ready
}

/// The value of a metric, named with its labels.
async fn metric(host: &Host, name: &str) -> String {
    let metrics = http().get(format!("{}/metrics", host.admin)).bearer_auth(ADMIN_TOKEN).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no {name} in {metrics}")).to_owned()
}

#[tokio::test]
async fn host_without_modules_is_live_and_ready() {
    let host = Settings::new().start().await;
    for listener in listeners(&host) {
        assert_eq!(get_json(&format!("{listener}/livez")).await, (200, json!({ "status": "ok" })));
        assert_eq!(get_json(&format!("{listener}/readyz")).await, (200, ready_of(&host, &listener)));
        assert_eq!(get_json(&format!("{listener}/health")).await.0, 200);
        for path in PROBES {
            let url = format!("{listener}{path}");
            assert_eq!(get(&url).await.headers()["cache-control"], "no-store");
            let head = http().head(&url).send().await.unwrap();
            assert_eq!(head.status(), StatusCode::OK);
            assert!(head.bytes().await.unwrap().is_empty());
            let post = http().request(Method::POST, &url).send().await.unwrap();
            assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
        }
        // Orchestrators probe by address, load balancers by any host name.
        for path in ["/livez", "/readyz"] {
            let asked = http().get(format!("{listener}{path}")).header("host", "10.1.2.3:9999");
            assert_eq!(asked.send().await.unwrap().status(), StatusCode::OK);
        }
    }
    assert_eq!(metric(&host, "modhost_ready").await, "1");
    assert_eq!(metric(&host, r#"modhost_ready_check{check="journal"}"#).await, "1");
}

#[tokio::test]
async fn missing_component_is_reported_only_to_operators() {
    let host = Settings::test_guest("").module_file("Missing", "missing.wasm", "").start().await;
    let [public, admin] = listeners(&host);
    assert_eq!(get_json(&format!("{public}/readyz")).await, (200, ready()));
    let (code, mut body) = get_json(&format!("{admin}/readyz")).await;
    let waiting = body.as_object_mut().unwrap().remove("waiting").unwrap();
    assert_eq!((code, body), (200, ready()));
    assert_eq!((waiting.as_array().unwrap().len(), &waiting[0]["module"]), (1, &json!("Missing")), "{waiting}");
    assert!(waiting[0]["reason"].as_str().unwrap().contains("missing.wasm"), "{waiting}");
    // Pages don't get it: probes are answered under any host name, but without details.
    let page = http().get(format!("{admin}/readyz")).header("host", "evil.example").send().await.unwrap();
    assert_eq!(page.json::<Value>().await.unwrap(), ready());
    assert_eq!(get_json(&format!("{public}/health")).await, (200, json!({ "status": "ok" })));
    let (code, health) = get_json(&format!("{admin}/health")).await;
    assert_eq!((code, &health["status"], &health["reasons"]), (200, &json!("ok"), &json!([])));
    let missing = host.module("Missing").await;
    assert!(missing["version"].is_null(), "{missing}");
    assert!(missing["waiting"]["reason"].as_str().unwrap().contains("missing.wasm"), "{missing}");
    assert_eq!(metric(&host, r#"modhost_module_serves{module="Missing"}"#).await, "0");
    assert_eq!(metric(&host, "modhost_ready").await, "1");
}

#[tokio::test]
async fn health_without_the_token_has_no_details() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), format!("ADMIN={ADMIN_TOKEN}\n")).unwrap();
    let settings = Settings::test_guest("").server("admin_token = \"env:ADMIN\"");
    let host = settings.module_file("Missing", "missing.wasm", "").start_in(folder).await;
    assert_eq!(get_json(&format!("{}/health", host.admin)).await, (200, json!({ "status": "ok" })));
    let wrong = http().get(format!("{}/health", host.admin)).bearer_auth("wrong-wrong-wrong").send().await.unwrap();
    assert_eq!(wrong.json::<Value>().await.unwrap(), json!({ "status": "ok" }));
    assert_eq!(get_json(&format!("{}/readyz", host.admin)).await, (200, ready()));
    assert_eq!(get_json(&format!("{}/livez", host.admin)).await.0, 200);
    let names: Vec<_> =
        host.health().await["modules"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["Missing", "Test"]);
}

#[tokio::test]
async fn reports_draining_until_the_last_delivery_has_ended() {
    let gate = Gate::start().await;
    let mut host = Settings::test_guest("").model(&gate.url()).start().await;
    say(&host.platform, "Test", "complete what is it?").await;
    gate.reached_by(1).await;
    host.terminate();
    for listener in listeners(&host) {
        let draining = until("the host to report draining", async || {
            let (code, body) = get_json(&format!("{listener}/readyz")).await;
            (code == 503).then_some(body)
        })
        .await;
        assert_eq!((&draining["status"], &draining["checks"]["shutdown"]), (&json!("draining"), &json!("failing")));
        assert!(draining["reasons"][0].as_str().unwrap().contains("stopping"), "{draining}");
        let (code, health) = get_json(&format!("{listener}/health")).await;
        assert_eq!((code, &health["status"]), (503, &json!("draining")));
        assert_eq!(get_json(&format!("{listener}/livez")).await.0, 200);
    }
    assert_eq!(metric(&host, "modhost_ready").await, "0");
    assert_eq!(metric(&host, r#"modhost_ready_check{check="shutdown"}"#).await, "0");
    assert_eq!(metric(&host, r#"modhost_ready_check{check="journal"}"#).await, "1");
    gate.open();
    assert!(host.ended().await.success());
}

#[tokio::test]
async fn reports_a_full_disk_and_its_recovery() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let data_dir = format!("data_dir = {:?}", disk.path().join("data"));
    let host = Settings::test_guest("").server(&data_dir).start().await;
    let listeners = listeners(&host);
    // Larger than the disk: the write fails when the disk is full.
    let ballast = disk.path().join("ballast");
    let _ = fs::write(&ballast, vec![1; 16 << 20]);
    for listener in &listeners {
        let full = until("the host to find the disk full", async || {
            let (code, body) = get_json(&format!("{listener}/readyz")).await;
            (code == 503).then_some(body)
        })
        .await;
        assert_eq!((&full["status"], &full["checks"]["journal"]), (&json!("failing"), &json!("failing")), "{full}");
        let reason = full["reasons"][0].as_str().unwrap();
        assert!(reason.contains("no room is left on the disk"), "{full}");
        // Only operators see which directory is full.
        assert_eq!(reason.contains(disk.path().to_str().unwrap()), *listener == host.admin, "{full}");
        assert_eq!(get_json(&format!("{listener}/livez")).await.0, 200);
        assert_eq!(get_json(&format!("{listener}/health")).await.0, 503);
    }
    assert_eq!(metric(&host, "modhost_ready").await, "0");
    host.logged(&["ERROR", "cannot record events"]).await;
    let refused = signed_post(&host.webhook, user_message("evt_1", "hello").to_string()).await;
    assert!(
        [200, 503].contains(&refused.status().as_u16()),
        "either no module wants the event or it can't be written: {refused:?}"
    );

    fs::remove_file(ballast).unwrap();
    for listener in &listeners {
        until("the host to recover", async || {
            (get_json(&format!("{listener}/readyz")).await == (200, ready_of(&host, listener))).then_some(())
        })
        .await;
    }
    host.logged(&["can record events again"]).await;
}

#[tokio::test]
async fn starting_host_answers_probes_and_refuses_requests() {
    let settings = Settings::new();
    let mut host = settings.start().await;
    host.stop().await;
    let folder = host.kill();
    // The host waits five seconds for a locked journal; on a slower machine it gives up, and the test tries again.
    for _ in 0..10 {
        let locked = rusqlite::Connection::open(folder.path().join(".modhost/journal.sqlite")).unwrap();
        locked.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut command = bare("dev", folder.path());
        command.args(["--port", "0", "--admin-port", "0", "--platform-port", "0", "--no-build"]);
        let mut command = tokio::process::Command::from(command);
        let mut process = command
            .kill_on_drop(true)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let bases = async {
            while let Some(line) = log.next_line().await.unwrap() {
                let field = |name: &str| Some(line.split_once(name)?.1.split_whitespace().next()?.to_owned());
                if let (true, Some(public), Some(admin)) =
                    (line.contains("listening"), field("public="), field("admin="))
                {
                    return [public, admin].map(|address| format!("http://{address}"));
                }
            }
            panic!("the host didn't log its addresses");
        };
        let bases = tokio::time::timeout(PATIENCE, bases).await.expect("the host logs its addresses in time");
        for base in &bases {
            let (code, body) = get_json(&format!("{base}/readyz")).await;
            assert_eq!(
                (code, &body["status"], &body["checks"]["startup"]),
                (503, &json!("starting"), &json!("failing"))
            );
            assert_eq!(get_json(&format!("{base}/livez")).await, (200, json!({ "status": "ok" })));
            assert_eq!(get_json(&format!("{base}/health")).await.0, 503);
            let other = get(&format!("{base}/api/modules")).await;
            assert_eq!((other.status().as_u16(), &other.headers()["retry-after"]), (503, &"1".parse().unwrap()));
        }
        let early = signed_post(&format!("{}/webhook", bases[0]), user_message("evt_1", "hello").to_string()).await;
        assert_eq!(early.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(locked);
        let mut came_up = false;
        let outcome = until("the host to be ready or to exit", async || {
            if let Some(status) = process.try_wait().unwrap() {
                return Some(Err(status));
            }
            let answer = http().get(format!("{}/readyz", bases[0])).send().await.ok()?;
            came_up = answer.status() == StatusCode::OK;
            came_up.then_some(Ok(()))
        })
        .await;
        if outcome.is_ok() {
            return;
        }
    }
    panic!("the host never became ready");
}
