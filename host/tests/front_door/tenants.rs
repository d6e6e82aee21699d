//! Tests of what operators see of each tenant: the metrics, `modhost tenants` and the admin API, and of the weights that
//! divide the CPU time.

use std::collections::HashMap;
use std::fmt::Write;

use modhost_emulator as local;
use serde_json::Value;
use tempfile::TempDir;

use super::harness::{CommandOutput, Gate, Host, Settings, chosen, http, modhost, signed_post, until};

/// The settings of tenants whose companies have their names and whose model is at the gate. `limits` are lines of each
/// `[tenant.limits]`.
fn settings(server: &str, tenants: &[(&str, &str)], modules: &Settings, gate: &Gate) -> String {
    let text = modules.text();
    let (before, _) = text.split_once("[[tenant]]").unwrap();
    let (_, modules) = text.split_once("[[module]]").unwrap();
    let mut text = before.replace("[server]", &format!("[server]\n{server}"));
    for (name, limits) in tenants {
        let completion = format!("[tenant.completion]\napi_base = \"{}\"\nmodel = \"model\"", gate.url());
        let platform = "platform = { kind = \"none\" }";
        write!(text, "[[tenant]]\nname = {name:?}\ncompanies = [{name:?}]\n{platform}\n{completion}\n").unwrap();
        writeln!(text, "[tenant.limits]\n{limits}").unwrap();
    }
    format!("{text}\n[[module]]{modules}")
}

async fn serve(settings: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    serve_in(folder, settings).await
}

async fn serve_in(folder: TempDir, settings: &str) -> Host {
    std::fs::write(folder.path().join("modules.toml"), settings).unwrap();
    Host::serve(folder, &[("TEST_ENDPOINT_SECRET", local::ENDPOINT_SECRET)], None).await
}

/// Posts an event of a tenant.
async fn post(host: &Host, tenant: &str, id: &str, module: &str, text: &str) {
    let mut event = chosen(id, module, text);
    event["companyId"] = tenant.into();
    assert_eq!(signed_post(&host.webhook, event.to_string()).await.status(), 200);
}

/// The text of the metrics.
async fn exposition(host: &Host) -> String {
    http().get(format!("{}/metrics", host.admin)).send().await.unwrap().text().await.unwrap()
}

/// The metrics, by name with labels.
async fn metrics(host: &Host) -> HashMap<String, f64> {
    let text = exposition(host).await;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let values = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    values.collect()
}

/// A tenant in the admin API.
async fn tenant(host: &Host, name: &str) -> Value {
    http().get(format!("{}/api/tenants/{name}", host.admin)).send().await.unwrap().json().await.unwrap()
}

/// Waits until a tenant fulfills a condition, and returns it.
async fn until_tenant(host: &Host, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    until(&format!("{what} of {name}"), async || Some(tenant(host, name).await).filter(&condition)).await
}

/// Runs `modhost tenants`.
async fn tenants(host: &Host, args: &[&str]) -> CommandOutput {
    modhost(host.folder(), "tenants", &[args, &["--admin", &host.admin]].concat(), &[]).await
}

/// The names of the tenants that a command lists, in order.
async fn names(host: &Host, args: &[&str]) -> Vec<String> {
    let listed = tenants(host, &[args, &["--json"]].concat()).await;
    assert_eq!(listed.code, 0, "{listed:?}");
    let tenants = listed.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    tenants.map(|tenant| tenant["name"].as_str().unwrap().to_owned()).collect()
}

/// One tenant computes, allocates, makes calls and waits for a model; the other one only answers. Metrics, the admin API
/// and the command tell them apart.
#[tokio::test]
async fn tells_who_uses_what() {
    let gate = Gate::start().await;
    let modules = Settings::test_guest("limits = { cpu = \"300ms\" }\nretry = { attempts = 1 }");
    let host =
        serve(&settings("", &[("busy", "concurrency = 2\ncpu_weight = 50"), ("quiet", "")], &modules, &gate)).await;
    post(&host, "busy", "evt_loop", "Test", "loop").await;
    post(&host, "quiet", "evt_log", "Test", "log info hello").await;
    host.logged(&["delivery failed", "cpu: it computed for 300ms"]).await;
    host.logged(&["module=Test", "hello"]).await;
    for number in 0..3 {
        let text = "allocate-and 16|kv-count-and key|complete hi";
        post(&host, "busy", &format!("evt_{number}"), "Test", text).await;
    }
    // Two of them run, one waits.
    gate.reached_by(2).await;
    let is_settled = |tenant: &Value| tenant["running"] == 2 && tenant["waiting"] == 1;
    let busy = until_tenant(&host, "busy", "two running deliveries", is_settled).await;
    let quiet = until_tenant(&host, "quiet", "an ended delivery", |tenant| tenant["running"] == 0).await;

    let number = |tenant: &Value, field: &str| tenant[field].as_f64().unwrap_or_else(|| panic!("{field}: {tenant}"));
    assert!((0.3..5.0).contains(&number(&busy, "cpu_seconds")), "{busy}");
    assert!(number(&quiet, "cpu_seconds") < 0.2, "{quiet}");
    assert!(number(&busy, "cpu_share") > 0.6, "{busy}");
    assert!(number(&busy, "cpu_cores") > number(&quiet, "cpu_cores"), "{busy}");
    assert!(number(&busy, "longest_wait_seconds") >= 0.0 && quiet["longest_wait_seconds"].is_null(), "{quiet}");
    assert!((32 << 20..128 << 20).contains(&busy["memory_bytes"].as_u64().unwrap()), "{busy}");
    assert_eq!((&busy["cpu_weight"], &quiet["cpu_weight"]), (&50.into(), &100.into()));
    assert!(number(&busy, "journal_bytes") > number(&quiet, "journal_bytes"), "{busy}");
    assert!(number(&quiet, "journal_bytes") > 0.0 && number(&busy, "journal_unfinished_bytes") > 0.0, "{busy}");
    assert_eq!((&quiet["waiting"], &quiet["memory_bytes"]), (&0.into(), &0.into()));
    let counts = |tenant: &Value| (tenant["calls"]["keyvalue"].clone(), tenant["connections"]["platform"].clone());
    assert_eq!(counts(&busy), (2.into(), 2.into()), "{busy}");
    assert_eq!(counts(&quiet), (0.into(), 0.into()), "{quiet}");

    let metrics = metrics(&host).await;
    for (name, expected) in [
        (r#"modhost_tenant_deliveries{tenant="busy",state="running"}"#, 2.0),
        (r#"modhost_tenant_deliveries{tenant="busy",state="waiting"}"#, 1.0),
        (r#"modhost_tenant_deliveries{tenant="quiet",state="running"}"#, 0.0),
        (r#"modhost_tenant_calls_total{tenant="busy",interface="keyvalue"}"#, 2.0),
        (r#"modhost_tenant_calls_total{tenant="quiet",interface="keyvalue"}"#, 0.0),
        (r#"modhost_tenant_connections{tenant="busy",to="platform"}"#, 2.0),
        (r#"modhost_tenant_connections{tenant="quiet",to="platform"}"#, 0.0),
        (r#"modhost_tenant_delivery_wait_seconds_count{tenant="busy"}"#, 3.0),
        (r#"modhost_tenant_delivery_wait_seconds_bucket{tenant="quiet",le="+Inf"}"#, 1.0),
        (r#"modhost_tenant_memory_bytes{tenant="quiet"}"#, 0.0),
    ] {
        assert_eq!(metrics.get(name), Some(&expected), "{name} among {metrics:#?}");
    }
    let of = |metric: &str, tenant: &str| metrics[&format!("modhost_tenant_{metric}{{tenant=\"{tenant}\"}}")];
    for metric in ["cpu_seconds_total", "memory_bytes", "longest_wait_seconds"] {
        assert!(of(metric, "busy") > of(metric, "quiet"), "{metric} among {metrics:#?}");
    }
    // A guest that computes is queued again whenever it yields.
    assert!(of("cpu_wait_seconds_total", "busy") > 0.0);
    assert!(!metrics.keys().any(|name| name.contains("tenant=\"other\"")), "{metrics:#?}");

    let table = tenants(&host, &[]).await;
    assert_eq!(table.code, 0, "{table:?}");
    let lines: Vec<Vec<&str>> = table
        .stdout
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let heading = [
        "tenant",
        "weight",
        "running",
        "waiting",
        "longest wait",
        "cpu",
        "cpu share",
        "memory",
        "journal",
        "calls",
        "connections",
    ];
    assert_eq!(lines[0], heading, "{table:?}");
    assert_eq!((lines[1][0], lines[1][1], lines[1][2], lines[1][10]), ("busy", "50", "2", "2"), "{table:?}");
    assert_eq!((lines[2][0], lines[2][1], lines[2][2], lines[2][4]), ("quiet", "100", "0", "–"), "{table:?}");
    let shown = tenants(&host, &["show", "busy"]).await;
    for words in ["2 running, 1 waiting, the longest for ", "cpu weight   50", "2 keyvalue", "2 platform"] {
        assert!(shown.stdout.contains(words), "{words} is not in {shown:?}");
    }
    gate.open();
    until_tenant(&host, "busy", "no running delivery", |tenant| tenant["running"] == 0 && tenant["waiting"] == 0).await;
    let busy = until_tenant(&host, "busy", "freed memory", |tenant| tenant["memory_bytes"] == 0).await;
    assert_eq!(busy["connections"]["platform"], 0, "{busy}");
    assert_eq!(
        (busy["calls"]["completion"].clone(), busy["calls"]["keyvalue"].clone()),
        (3.into(), 3.into()),
        "{busy}"
    );
}

#[tokio::test]
async fn lists_tenants_by_any_column_and_explains_mistakes() {
    let gate = Gate::start().await;
    let modules = Settings::test_guest("retry = { attempts = 1 }");
    let host =
        serve(&settings("", &[("a", "cpu_weight = 7"), ("b", "cpu_weight = 9"), ("c", "")], &modules, &gate)).await;
    post(&host, "b", "evt_1", "Test", "kv-set key value").await;
    until_tenant(&host, "b", "a call", |tenant| tenant["calls"]["keyvalue"] == 1).await;
    assert_eq!(names(&host, &["--sort", "name"]).await, ["a", "b", "c"]);
    assert_eq!(names(&host, &[]).await, ["b", "a", "c"], "by CPU time");
    assert_eq!(names(&host, &["list", "--sort", "calls"]).await, ["b", "a", "c"]);
    assert_eq!(names(&host, &["--sort", "weight"]).await, ["c", "b", "a"]);
    for column in ["running", "waiting", "longest-wait", "cpu", "cpu-share", "memory", "journal", "connections"] {
        assert_eq!(names(&host, &["--sort", column]).await.len(), 3, "{column}");
    }

    let unknown = tenants(&host, &["--sort", "memry"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.stderr.contains("invalid value 'memry' for '--sort <COLUMN>'"), "{unknown:?}");
    assert!(unknown.stderr.contains("a similar value exists: 'memory'"), "{unknown:?}");
    let nobody = tenants(&host, &["show", "d"]).await;
    assert_eq!((nobody.code, nobody.stdout.as_str()), (1, ""), "{nobody:?}");
    assert!(
        nobody.stderr.contains("there is no tenant d in modules.toml; did you mean a? Expected one of: a, b, c"),
        "{nobody:?}"
    );

    // Every field is in the OpenAPI document.
    let api = async |path: &str| -> Value {
        http().get(format!("{}/api/{path}", host.admin)).send().await.unwrap().json().await.unwrap()
    };
    let described = api("openapi.json").await["components"]["schemas"]["Tenant"].clone();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let shown = api("tenants/a").await;
    assert_eq!(keys(&shown), keys(&described["properties"]));
    for field in ["calls", "connections"] {
        assert_eq!(keys(&shown[field]), keys(&described["properties"][field]["properties"]));
    }

    let folder = host.kill();
    let stopped = modhost(folder.path(), "tenants", &[], &[]).await;
    assert_eq!((stopped.code, stopped.stdout.as_str()), (1, ""), "{stopped:?}");
    assert!(stopped.stderr.contains("no host answers at ") && stopped.stderr.contains("start the host"), "{stopped:?}");
}

/// A connection of `wasi:http` counts while its request waits for an answer.
#[tokio::test]
async fn counts_connections_of_http_requests() {
    let (gate, silent) = (Gate::start().await, tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = silent.local_addr().unwrap();
    let entry = format!("http = [{{ host = \"http://{address}\", private = true }}]\nretry = {{ attempts = 1 }}");
    let modules = Settings::new().module("Test", "http_guest", &entry);
    let host = serve(&settings("", &[("a", ""), ("b", "")], &modules, &gate)).await;
    let text = format!(r#"[{{"send": {{"url": "http://{address}/"}}}}]"#);
    post(&host, "a", "evt_1", "Test", &text).await;
    let (connection, _) = silent.accept().await.unwrap();
    let a = until_tenant(&host, "a", "a connection", |tenant| tenant["connections"]["http"] == 1).await;
    assert_eq!(a["connections"]["platform"], 0, "{a}");
    assert_eq!(tenant(&host, "b").await["connections"]["http"], 0);
    assert_eq!(metrics(&host).await[r#"modhost_tenant_connections{tenant="a",to="http"}"#], 1.0);
    drop((connection, silent));
    let a = until_tenant(&host, "a", "a call", |tenant| tenant["calls"]["wasi:http"] == 1).await;
    assert_eq!(a["connections"]["http"], 0, "{a}");
}

/// With many tenants, the number of series stays bounded, and those without a label are summed.
#[tokio::test]
async fn labels_are_bounded() {
    let gate = Gate::start().await;
    let many: Vec<String> = (0..60).map(|number| format!("tenant-{number:02}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
    let modules = Settings::test_guest("retry = { attempts = 1 }");
    let of = |server: &str, tenants: &[(&str, &str)]| settings(server, tenants, &modules, &gate);
    let host = serve(&of("max_tenant_labels = 3", &many)).await;
    for (number, tenant) in ["tenant-00", "tenant-03", "tenant-59"].into_iter().enumerate() {
        post(&host, tenant, &format!("evt_{number}"), "Test", "kv-set key value").await;
        until_tenant(&host, tenant, "a call", |tenant| tenant["calls"]["keyvalue"] == 1).await;
    }
    let call = |tenant: &str| format!("modhost_tenant_calls_total{{tenant=\"{tenant}\",interface=\"keyvalue\"}}");
    let labels = |metrics: &HashMap<String, f64>| {
        let label = |name: &str| Some(name.split_once("tenant=\"")?.1.split_once('"')?.0.to_owned());
        let mut labels: Vec<String> = metrics.keys().filter_map(|name| label(name)).collect();
        labels.sort();
        labels.dedup();
        labels
    };
    // The end of an attempt is counted after its calls.
    let ended = |metrics: &HashMap<String, f64>| {
        let ended = metrics.iter().filter(|(name, _)| name.starts_with("modhost_attempts_total"));
        ended.map(|(_, count)| count).sum::<f64>()
    };
    let before = until("three attempts", async || Some(metrics(&host).await).filter(|it| ended(it) == 3.0)).await;
    assert_eq!(labels(&before), ["other", "tenant-00", "tenant-01", "tenant-02"]);
    assert_eq!([before[&call("tenant-00")], before[&call("other")]], [1.0, 2.0]);
    assert_eq!(names(&host, &[]).await.len(), 60);

    // A higher maximum applies at once, and decreases no counter.
    host.save("modules.toml", of("max_tenant_labels = 4", &many));
    let after = until("a label for tenant-03", async || {
        Some(metrics(&host).await).filter(|metrics| metrics.contains_key(&call("tenant-03")))
    })
    .await;
    assert_eq!([after[&call("tenant-03")], after[&call("other")]], [0.0, 2.0]);
    post(&host, "tenant-03", "evt_again", "Test", "kv-set key value").await;
    until("its own count", async || (metrics(&host).await[&call("tenant-03")] == 1.0).then_some(())).await;
    let text = exposition(&host).await;
    assert!(text.lines().filter(|line| line.contains("tenant=\"")).count() < 5 * 40, "{text}");
}

/// The weight applies while tenants compute, and a reload changes it for deliveries that run.
#[tokio::test]
async fn weights_divide_the_cpu_time() {
    let gate = Gate::start().await;
    let modules = Settings::test_guest("limits = { cpu = \"10m\", timeout = \"10m\" }\nretry = { attempts = 1 }");
    let weights = |heavy: &str, light: &str| settings("", &[("heavy", heavy), ("light", light)], &modules, &gate);
    let host = serve(&weights("cpu_weight = 900", "")).await;
    // More guests than guest threads, so that each tenant could use them all.
    let threads = std::thread::available_parallelism().unwrap().get();
    for number in 0..2 * threads {
        for tenant in ["heavy", "light"] {
            post(&host, tenant, &format!("{tenant}_{number}"), "Test", "loop").await;
        }
    }
    for tenant in ["heavy", "light"] {
        until_tenant(&host, tenant, "running deliveries", |it| it["running"] == 2 * threads).await;
    }
    let shares = async || {
        let times = async || {
            let mut times = [0.0; 2];
            for (time, name) in times.iter_mut().zip(["heavy", "light"]) {
                *time = tenant(&host, name).await["cpu_seconds"].as_f64().unwrap();
            }
            times
        };
        let start = times().await;
        // Until they have used two seconds of CPU time, however long that takes.
        until("CPU time", async || {
            let used: Vec<f64> = times().await.iter().zip(start).map(|(now, start)| now - start).collect();
            (used.iter().sum::<f64>() > 2.0).then(|| used[0] / (used[0] + used[1]))
        })
        .await
    };
    let share = shares().await;
    assert!((0.85..0.95).contains(&share), "it got {share:.3} instead of 0.9");
    host.save("modules.toml", weights("", "cpu_weight = 300"));
    until_tenant(&host, "light", "the new weight", |tenant| tenant["cpu_weight"] == 300).await;
    let share = shares().await;
    assert!((0.2..0.3).contains(&share), "it got {share:.3} instead of 0.25");

    host.save("modules.toml", weights("cpu_weight = 0", "cpu_weight = 10001"));
    host.logged(&["cannot reload the settings", "modules.toml:", "`cpu_weight` must be at least 1"]).await;
    host.logged(&["cannot reload the settings", "`cpu_weight` must be between 1 and 10000"]).await;
    assert_eq!(tenant(&host, "light").await["cpu_weight"], 300, "the previous settings stay in effect");
}
