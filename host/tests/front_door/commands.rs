//! Tests of the commands, as users and scripts run them.

use std::fs;
use std::path::{Path, PathBuf};

use modhost_emulator::{Assistant, CompletionEndpoint, LocalPlatform, LocalSettings};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{
    CommandOutput, Gate, Host, Settings, chat, chosen_in, component, http, modhost, read_chat, say, signed_post,
    signed_with, until, wait_for_answer,
};

/// Runs a command in an empty folder.
async fn run(command: &str, args: &[&str]) -> CommandOutput {
    modhost(tempfile::tempdir().unwrap().path(), command, args, &[]).await
}

/// Checks that a command failed with exit code 1 and that its error contains these words.
fn failed(ran: &CommandOutput, words: &[&str]) {
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in:\n{}", ran.stderr);
    }
}

#[tokio::test]
async fn every_command_has_help() {
    let of_the_host = ["--config", "--port", "--admin-port", "--data-dir"];
    let of_dev = ["--platform-port", "--documents", "--no-build", "--completion-url"];
    let commands: [(&str, &[&str]); 8] = [
        ("--help", &["dev", "serve", "send", "check", "routes"]),
        ("dev", &[&of_the_host[..], &of_dev].concat()),
        ("serve", &of_the_host),
        (
            "send",
            &["<TEXT|FILE>", "--to", "--chat", "--platform-port", "--json", "--timeout", "--source", "--print-curl"],
        ),
        ("routes", &["list", "test", "--config", "--json"]),
        ("deliveries", &["waiting", "dead", "--data-dir", "--state"]),
        ("modules", &["rollback", "pin", "roll back, pin or pause", "--admin"]),
        ("check", &["[COMPONENT]", "--config", "--json"]),
    ];
    for (command, named) in commands {
        let ran = run(command, if command == "--help" { &[] } else { &["--help"] }).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
        for name in named {
            assert!(ran.stdout.contains(name), "{name} is not in the help of {command}:\n{}", ran.stdout);
        }
        assert!(!ran.stdout.contains('\u{1b}'), "colored output without a terminal");
    }
    let version = run("--version", &[]).await;
    assert_eq!((version.code, version.stdout.trim()), (0, concat!("modhost ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn usage_errors_and_failures_have_different_exit_codes() {
    let wrong: [(&str, &[&str]); 8] = [
        ("develop", &[]),
        ("dev", &["--ports", "1"]),
        ("dev", &["--port", "many"]),
        ("dev", &["--port", "65536"]),
        ("dev", &["--completion-key", "env:KEY"]),
        ("send", &[]),
        ("send", &["hi", "--to", "A", "--assistant", "b"]),
        ("check", &["a.wasm", "b.wasm"]),
    ];
    for (command, args) in wrong {
        let ran = run(command, args).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{command} {args:?}: {ran:?}");
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains("--help"), "{ran:?}");
    }
}

#[tokio::test]
async fn dev_names_the_port_that_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), Settings::new().text()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for flag in ["--port", "--admin-port", "--platform-port"] {
        let ports = ["--port", "--admin-port", "--platform-port"].map(|it| [it, if it == flag { &port } else { "0" }]);
        let ran = modhost(folder.path(), "dev", ports.as_flattened(), &[]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
        let error = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(&format!("127.0.0.1:{port}")), "{ran:?}");
        assert!(error.contains(&format!("{flag} takes")) || error.contains(&format!("with {flag}")), "{ran:?}");
    }
}

#[tokio::test]
async fn dev_and_serve_report_missing_files_and_settings() {
    for command in ["dev", "serve"] {
        failed(&run(command, &[]).await, &["there is no file modules.toml", "--config"]);
        failed(&run(command, &["--config", "other.toml"]).await, &["there is no file other.toml"]);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), Settings::new().module("A", "chat_log", "").text()).unwrap();
    let ran = modhost(folder.path(), "dev", &["--documents", "papers"], &[]).await;
    failed(&ran, &["--documents papers: there is no such folder"]);
}

#[tokio::test]
async fn checks_the_settings_with_all_components() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |settings: &Settings, args: &[&str], variables: &[(&str, &str)]| {
        fs::write(folder.path().join("modules.toml"), settings.text()).unwrap();
        modhost(folder.path(), "check", args, variables).await
    };
    let there = [
        ("TEST_ENDPOINT_SECRET", "usig_1"),
        ("TEST_API_BASE", "https://gateway.example.com/public/chat"),
        ("TEST_APP_ID", "app_1"),
        ("TEST_API_KEY", "ukey_1"),
    ];
    let fine = Settings::new().module("Demo", "demo_app", "");
    let ran = check(&fine, &[], &there).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    assert!(ran.stdout.starts_with("valid: modules.toml: the host can start\ncan serve Demo: "), "{ran:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "`check` left files behind");

    let ran = check(&fine, &[], &there[1..]).await;
    assert!(ran.code == 1 && ran.stdout.starts_with("invalid: modules.toml: the host cannot start\n"), "{ran:?}");
    assert!(ran.stdout.contains("TEST_ENDPOINT_SECRET") && ran.stdout.contains("\ncan serve Demo: "), "{ran:?}");

    fs::write(folder.path().join("empty.wasm"), "").unwrap();
    let unfit = fine
        .module("Sends", "http_guest", "")
        .module_file("Unbuilt", "unbuilt.wasm", r#"build = "make""#)
        .module_file("Empty", "empty.wasm", "");
    let ran = check(&unfit, &[], &there).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    for said in [
        "valid: modules.toml: the host can start\n",
        "can serve Demo: ",
        "and the module may send no HTTP requests: add http = [\"api.example.com\"]",
        "cannot serve Unbuilt: unbuilt.wasm: there is no such file; to build it, run `modhost build Unbuilt`\n",
        "cannot serve Empty: empty.wasm: the file is empty: ",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
    }
    let ran = check(&unfit, &["--json"], &there[1..]).await;
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(ran.code == 1 && report["serves"] == false, "{ran:?}");
    assert_eq!(report["problems"].as_array().unwrap().len(), 1, "{report}");
    let refused: Vec<_> = report["modules"].as_array().unwrap().iter().map(|it| it["refused"].is_string()).collect();
    assert_eq!(refused, [false, true, true, true], "{report}");

    fs::write(folder.path().join("modules.toml"), "[serverr]\n").unwrap();
    let ran = modhost(folder.path(), "check", &[], &there).await;
    assert!(ran.code == 1 && ran.stdout.contains("did you mean server?"), "{ran:?}");
}

#[tokio::test]
async fn dev_prints_its_addresses_and_stops_on_a_signal() {
    let mut host = Settings::samples().start().await;
    let last_line = "change a module's source";
    let output = until("the last line", async || Some(host.output()).filter(|output| output.contains(last_line))).await;
    let platform_port = host.platform.rsplit(':').next().unwrap();
    let expected = [
        "ukey_local",
        "app_local",
        "usig_local",
        "company_local",
        "user_local",
        "module    Assistant",
        "module    DemoApp",
        "module    ChatLog",
        &format!("modhost send --platform-port {platform_port} "),
    ];
    for word in expected {
        assert!(output.contains(word), "{word:?} is not in:\n{output}");
    }
    assert!(!output.contains('\u{1b}') && !host.log().contains('\u{1b}'), "colored output without a terminal");
    assert!(host.stop().await.success());
}

#[tokio::test]
async fn check_reports_compatibility() {
    let fits = |file: PathBuf| async move { run("check", &[file.to_str().unwrap()]).await };
    for built in ["assistant", "demo_app", "chat_log", "test_guest"] {
        let ran = fits(component(built)).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
        assert!(ran.stdout.starts_with("valid: ") && ran.stdout.contains("[[module]]"), "{ran:?}");
    }
    let assistant = fits(component("assistant")).await.stdout;
    for import in ["modhost:module/search@", "modhost:module/completion@", "modhost:module/message-log@"] {
        assert!(assistant.contains(import), "{assistant}");
    }
    let folder = tempfile::tempdir().unwrap();
    let core = folder.path().join("core.wasm");
    fs::write(&core, wat::parse_str("(module)").unwrap()).unwrap();
    let ran = fits(core).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("incompatible") && ran.stdout.contains("modhost componentize"), "{ran:?}");
    failed(&fits(folder.path().join("none.wasm")).await, &["none.wasm", "there is no such file"]);
    failed(&fits(folder.path().to_owned()).await, &["it is a folder"]);
}

/// Runs `modhost send` against the local platform of a host.
async fn send(host: &Host, args: &[&str]) -> CommandOutput {
    modhost(host.folder(), "send", &[&["--platform", &host.platform], args].concat(), &[]).await
}

#[tokio::test]
async fn send_prints_the_steps_and_the_answer() {
    let host = Settings::samples().start().await;
    let ran = send(&host, &["What is our travel policy?"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("\nSources\n  [1] "), "{ran:?}");
    let steps: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("done ")).collect();
    assert!(steps.len() == 2 && steps[0].contains("Found") && steps[1].contains("Generat"), "{ran:?}");
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "colored output without a terminal");

    let json = send(&host, &["What is our travel policy?", "--json"]).await;
    assert_eq!((json.code, json.stderr.as_str()), (0, ""));
    let result: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&result["outcome"], &result["module"]), (&json!("answered"), &json!("Assistant")));
    let chat_id = result["chatId"].as_str().unwrap();
    let reply = read_chat(&host.platform, chat_id).await["messages"][1].clone();
    assert_eq!((&result["answer"]["text"], &result["answer"]["messageId"]), (&reply["text"], &reply["id"]));
    let statuses = |steps: &Value| {
        let steps = steps.as_array().unwrap().iter();
        steps.map(|step| (step["text"].clone(), step["status"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&result["steps"]), statuses(&reply["steps"]));
    assert!(!result["answer"]["references"].as_array().unwrap().is_empty(), "{result}");

    let port = host.platform.rsplit(':').next().unwrap();
    let echo = modhost(host.folder(), "send", &["--platform-port", port, "--to", "DemoApp", "to and fro"], &[]).await;
    assert_eq!(echo.code, 0, "{echo:?}");
    assert!(echo.stdout.contains("Hello! ") && echo.stdout.contains("\nto and fro\n"), "{echo:?}");

    let listens = send(&host, &["--to", "ChatLog", "note this"]).await;
    assert_eq!((listens.code, listens.stdout.as_str()), (0, ""));
    assert!(listens.stderr.contains("ChatLog only listens"), "{listens:?}");
    host.logged(&["note this", "module=ChatLog"]).await;
}

#[tokio::test]
async fn send_continues_a_chat_and_reports_failures() {
    let host = Settings::test_guest("").start().await;
    let first: Value = serde_json::from_str(&send(&host, &["reply one", "--json"]).await.stdout).unwrap();
    let chat_id = first["chatId"].as_str().unwrap();
    let second = send(&host, &["reply two", "--chat", chat_id]).await;
    assert_eq!((second.code, second.stdout.as_str()), (0, "two\n"), "{second:?}");
    assert!(second.stderr.contains(&format!("--chat {chat_id}")), "{second:?}");
    let chat = read_chat(&host.platform, chat_id).await;
    let texts: Vec<_> = chat["messages"].as_array().unwrap().iter().map(|it| it["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["reply one", "one", "reply two", "two"]);

    let fails = send(&host, &["step-and fail for a test"]).await;
    assert_eq!(fails.code, 1, "{fails:?}");
    assert!(fails.stdout.starts_with("Sorry, ") && fails.stderr.contains("failed   Working…"), "{fails:?}");
    // The host logs the reason just after it writes the apology.
    until("the reason of the failure", async || {
        let ran = send(&host, &["fail no seats"]).await;
        assert!(ran.stdout.starts_with("Sorry, "), "{ran:?}");
        (ran.code == 1 && ran.stderr.contains("error: Test failed: no seats\nhelp: see the output of `modhost dev`"))
            .then_some(())
    })
    .await;

    let unknown = send(&host, &["hi", "--to", "Tset"]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (2, ""), "{unknown:?}");
    let suggest = "did you mean Test? Expected one of: Test";
    assert_eq!(unknown.stderr, format!("error: there is no module \"Tset\" on the local platform\nhelp: {suggest}\n"));
    failed(&send(&host, &["hi", "--chat", "chat_none"]).await, &["chat_none"]);
}

#[tokio::test]
async fn send_explains_a_refused_connection() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let ran = run("send", &["hi", "--platform-port", &port]).await;
    failed(
        &ran,
        &[&format!("cannot connect to the local platform at http://127.0.0.1:{port}/"), "help: start `modhost dev`"],
    );
}

#[tokio::test]
async fn send_times_out() {
    let gate = Gate::start().await;
    let host = Settings::test_guest("").args(&["--completion-url", &gate.url()]).start().await;
    let ran = send(&host, &["complete what is it?", "--timeout", "1ms"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("error: no answer from Test within 1ms"), "{ran:?}");
    gate.open();
}

/// Settings with a module that is built from the folder `source`: the build copies the component to `module.wasm`, and
/// fails if `source` contains a file `broken`.
fn built(lines: &str) -> (Settings, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("source")).unwrap();
    fs::copy(component("test_guest"), folder.path().join("source/module.wasm")).unwrap();
    let build = r#"
build = "echo a line of the build >&2; test ! -e source/broken && cp source/module.wasm module.wasm && echo >> builds"
watch = ["source"]
"#;
    (Settings::new().module_file("DemoApp", "module.wasm", &format!("{build}{lines}")), folder)
}

#[tokio::test]
async fn dev_rebuilds_and_replaces_a_saved_module() {
    let (settings, folder) = built("");
    let host = settings.building().start_in(folder).await;
    host.logged(&["a line of the build"]).await;
    assert_eq!(chat(&host, "DemoApp", "reply hi").await.text(), "hi");

    let next = fs::read(component("demo_app")).unwrap();
    fs::write(host.file("source/broken"), "").unwrap();
    host.logged(&["ERROR", "build failed", "the previous version continues to serve", "module=DemoApp"]).await;
    host.save("source/module.wasm", &next);
    assert_eq!(chat(&host, "DemoApp", "reply still here").await.text(), "still here");

    fs::remove_file(host.file("source/broken")).unwrap();
    host.serves("DemoApp", &next).await;
    assert!(chat(&host, "DemoApp", "reply hi").await.text().starts_with("Hello! "));
}

#[tokio::test]
async fn dev_starts_although_a_build_fails() {
    let (settings, folder) = built("");
    fs::write(folder.path().join("source/broken"), "").unwrap();
    let host = settings.building().start_in(folder).await;
    assert!(host.output().contains("no version serves"), "{}", host.output());
    host.logged(&["ERROR", "build failed", "module=DemoApp"]).await;
    fs::remove_file(host.file("source/broken")).unwrap();
    host.serves("DemoApp", &fs::read(component("test_guest")).unwrap()).await;
    assert_eq!(chat(&host, "DemoApp", "reply hi").await.text(), "hi");
}

#[tokio::test]
async fn dev_does_not_build_with_no_build() {
    let (settings, folder) = built("");
    let host = settings.start_in(folder).await;
    fs::write(host.file("source/another"), "").unwrap();
    // Changes of settings and of sources are detected together: once the second change of settings is applied, any
    // build that the first had started would have ended.
    for module in ["A", "B"] {
        host.save_settings(&built("").0.module(module, "chat_log", ""));
        until("the other module", async || {
            let url = format!("{}/local/assistants", host.platform);
            let assistants: Value = http().get(url).send().await.unwrap().json().await.unwrap();
            assistants.as_array().unwrap().iter().any(|it| it["module"] == module).then_some(())
        })
        .await;
    }
    assert!(!host.file("builds").exists() && !host.log().contains("building module"), "{}", host.log());
    assert!(host.module("DemoApp").await["version"].is_null());
}

/// Starts a platform in the test's process that delivers no events itself.
pub async fn platform(modules: &[&str], gate: Option<&Gate>) -> LocalPlatform {
    let assistant = |module: &&str| Assistant {
        id: format!("assistant_{module}"),
        name: (*module).to_owned(),
        module: (*module).to_owned(),
        configuration: json!({}),
        chooses: true,
        tenant: None,
    };
    let completion = gate.map(|gate| CompletionEndpoint { url: gate.url().parse().unwrap(), key: None, model: None });
    let assistants = modules.iter().map(assistant).collect();
    LocalPlatform::start(LocalSettings { assistants, completion, ..LocalSettings::default() }).await.unwrap()
}

/// Returns a folder with the repository's modules.toml, with absolute component paths.
fn shipped() -> TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("modules.toml")).unwrap();
    let built = component("assistant").parent().unwrap().to_owned();
    let whole = text.replace("\"target/guests/wasm32-wasip2/guest/", &format!("\"{}/", built.display()));
    assert_ne!(text, whole, "modules.toml has no component path to replace");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), whole).unwrap();
    folder
}

/// Writes a message to a module of a `modhost serve` host, and posts its event, signed with this secret; returns the
/// chat's id.
pub async fn post_signed_event(host: &Host, secret: &str, module: &str, text: &str) -> String {
    let chat_id = say(&host.platform, module, text).await;
    let event = chosen_in(&read_chat(&host.platform, &chat_id).await, module);
    let answer = signed_with(secret, &host.webhook, event.to_string()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    chat_id
}

#[tokio::test]
async fn serve_accepts_the_variables_of_the_python_sdk() {
    let platform = platform(&["DemoApp"], None).await;
    let base = platform.api_base().to_string();
    let sets: [[&str; 4]; 3] = [
        ["ENDPOINT_SECRET", "API_BASE", "APP_ID", "API_KEY"],
        ["UNIQUE_ENDPOINT_SECRET", "UNIQUE_API_BASE", "UNIQUE_APP_ID", "UNIQUE_API_KEY"],
        ["UNIQUE_APP_ENDPOINT_SECRET", "UNIQUE_API_BASE_URL", "UNIQUE_APP_ID", "UNIQUE_APP_KEY"],
    ];
    for (round, names) in sets.into_iter().enumerate() {
        let values = ["usig_ours", &base, "app_local", "ukey_local"];
        let variables: Vec<_> = names.into_iter().zip(values).collect();
        let folder = shipped();
        // The first round reads them from a file, as in the tutorial.
        let host = if round == 0 {
            let lines: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            fs::write(folder.path().join(".env"), lines).unwrap();
            Host::serve(folder, &[], Some(&platform)).await
        } else {
            Host::serve(folder, &variables, Some(&platform)).await
        };
        let chat_id = post_signed_event(&host, "usig_ours", "DemoApp", "to and fro").await;
        let answer = wait_for_answer(&host, &chat_id).await;
        assert!(answer.text().starts_with("Hello! "), "{}", answer.text());
        assert_eq!(answer.chat["messages"][2]["text"], "to and fro");
        assert!(host.output().contains("module    DemoApp  version "), "{}", host.output());
        assert!(!host.log().contains("usig_ours") && !host.log().contains("ukey_local"), "the log contains a secret");
    }
    platform.shutdown().await;
}

#[tokio::test]
async fn serve_lists_missing_variables_with_their_places() {
    let folder = shipped();
    let text = fs::read_to_string(folder.path().join("modules.toml")).unwrap();
    let line = |setting: &str| text.lines().position(|line| line.starts_with(setting)).unwrap() + 1;
    let ran = modhost(folder.path(), "serve", &["--port", "0", "--admin-port", "0"], &[]).await;
    let missing = [
        ("secrets", "UNIQUE_ENDPOINT_SECRET, UNIQUE_APP_ENDPOINT_SECRET, ENDPOINT_SECRET"),
        ("api_base", "UNIQUE_API_BASE, UNIQUE_API_BASE_URL, API_BASE"),
        ("app_id", "UNIQUE_APP_ID, APP_ID"),
        ("api_key", "UNIQUE_API_KEY, UNIQUE_APP_KEY, API_KEY"),
    ];
    for (setting, names) in missing {
        let place = format!("modules.toml:{}:", line(setting));
        let found = ran.stderr.lines().any(|line| line.contains(&place) && line.contains(names));
        assert!(found, "{place} … {names} is not in:\n{}", ran.stderr);
    }
    failed(&ran, &[".env"]);
    // Variables that are set aren't reported.
    let some = [("API_BASE", "http://127.0.0.1:1"), ("APP_ID", "app"), ("API_KEY", "")];
    let ran = modhost(folder.path(), "serve", &["--port", "0", "--admin-port", "0"], &some).await;
    failed(&ran, &["ENDPOINT_SECRET", "API_KEY"]);
    assert!(!ran.stderr.contains("API_BASE") && !ran.stderr.contains("APP_ID"), "{ran:?}");
}

#[tokio::test]
async fn serve_finishes_deliveries_before_it_stops() {
    let gate = Gate::start().await;
    let platform = platform(&["Test"], Some(&gate)).await;
    let base = platform.api_base().to_string();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), Settings::test_guest("").text()).unwrap();
    let variables = [
        ("TEST_ENDPOINT_SECRET", "usig_local"),
        ("TEST_API_BASE", &base),
        ("TEST_APP_ID", "app_local"),
        ("TEST_API_KEY", "ukey_local"),
    ];
    let mut host = Host::serve(folder, &variables, Some(&platform)).await;
    // The webhook has been answered while the delivery is still blocked.
    let chat_id = post_signed_event(&host, "usig_local", "Test", "complete what is it?").await;
    gate.reached_by(1).await;
    assert!(read_chat(&host.platform, &chat_id).await["messages"][1]["completedAt"].is_null());

    host.terminate();
    host.logged(&["stopping"]).await;
    let late = super::harness::chosen("evt_late", "Test", "reply hi").to_string();
    let late = until("events to be refused with Retry-After", async || {
        let answer = signed_post(&host.webhook, late.clone()).await;
        (answer.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert_eq!(late.headers()["retry-after"], "5");
    gate.open();
    assert!(host.ended().await.success());
    let reply = read_chat(&host.platform, &chat_id).await["messages"][1].clone();
    assert_eq!((&reply["text"], reply["completedAt"].is_string()), (&json!(Gate::ANSWER), true), "{reply}");
    platform.shutdown().await;
}
