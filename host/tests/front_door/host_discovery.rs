//! Tests of how commands find their host: flags and variables, the host's `running.json`, and the settings.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::harness::{ADMIN_TOKEN, CommandOutput, Host, Settings, modhost, user_message};

/// Checks that a command succeeded.
fn done(ran: &CommandOutput) {
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Checks that a command failed and that its error contains these words.
fn failed(ran: &CommandOutput, words: &[&str]) {
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    for words in words {
        assert!(ran.stderr.contains(words), "{words:?} is not in {}", ran.stderr);
    }
}

fn names(ran: &CommandOutput) -> Vec<String> {
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().to_owned();
    ran.stdout.lines().map(line).collect()
}

async fn modules(folder: &Path, args: &[&str]) -> CommandOutput {
    modhost(folder, "modules", &[args, &["--json"]].concat(), &[]).await
}

#[tokio::test]
async fn commands_find_the_host_on_any_port() {
    let host = Settings::test_guest("").start().await;
    done(&modhost(host.folder(), "send", &["reply hello"], &[]).await);
    let go_on = modhost(host.folder(), "send", &["reply hello"], &[]).await;
    assert!(go_on.stderr.contains("send --chat "), "the restarted host wasn't found: {go_on:?}");
    let listed = modhost(host.folder(), "deliveries", &["--json"], &[]).await;
    done(&listed);
    let id = serde_json::from_str::<Value>(listed.stdout.lines().next().unwrap()).unwrap()["id"].clone();
    done(&modhost(host.folder(), "deliveries", &["show", id.as_str().unwrap()], &[]).await);
    assert_eq!(names(&modules(host.folder(), &[]).await), ["Test"]);
    fs::write(host.file("event.json"), user_message("evt_1", "hello").to_string()).unwrap();
    done(&modhost(host.folder(), "send", &["--source", "unique", "event.json"], &[]).await);

    // From another folder, by its settings.
    let elsewhere = tempfile::tempdir().unwrap();
    let config = host.file("modules.toml");
    let config = config.to_str().unwrap();
    for args in [&["-c", config][..], &["--config", config], &["list", "-c", config]] {
        assert_eq!(names(&modules(elsewhere.path(), args).await), ["Test"]);
    }
    done(&modhost(elsewhere.path(), "deliveries", &["-c", config], &[]).await);
    done(&modhost(elsewhere.path(), "deliveries", &[], &[("MODHOST_CONFIG", config)]).await);
    done(&modhost(elsewhere.path(), "send", &["-c", config, "reply hello"], &[]).await);
    let nowhere = elsewhere.path().join("none.toml");
    failed(&modules(elsewhere.path(), &["-c", nowhere.to_str().unwrap()]).await, &["there is no file", "--admin"]);

    // Invalid settings don't stop the commands: operators need them most then.
    let settings = fs::read_to_string(config).unwrap();
    host.save("modules.toml", format!("{settings}\nnonsense = 1\n"));
    assert_eq!(names(&modules(host.folder(), &[]).await), ["Test"]);
    done(&modhost(host.folder(), "send", &["reply hello"], &[]).await);
}

#[tokio::test]
async fn ignores_the_file_of_a_dead_host() {
    let host = Settings::test_guest("").start().await;
    let admin = host.admin.clone();
    let folder = host.kill();
    assert!(folder.path().join(".modhost/running.json").is_file(), "the host was killed");
    // `running.json` names a dead process, so the settings count; they have no port.
    let ran = modules(folder.path(), &[]).await;
    failed(
        &ran,
        &[
            "no host answers at http://127.0.0.1:8081/, `admin_listen` in modules.toml\n",
            "help: start the host",
            "--admin",
        ],
    );
    assert!(!ran.stderr.contains(&admin), "{ran:?}");
    let settings = fs::read_to_string(folder.path().join("modules.toml")).unwrap();
    let with_port = |port: u16| {
        settings
            .replace("[server]\n", &format!("[server]\nadmin_listen = \"0.0.0.0:{port}\"\nadmin_token = \"env:T\"\n"))
    };
    fs::write(folder.path().join("modules.toml"), with_port(0)).unwrap();
    failed(&modules(folder.path(), &[]).await, &["the host of modules.toml is not running", "selects no fixed port"]);
    fs::write(folder.path().join("modules.toml"), with_port(1)).unwrap();
    failed(&modules(folder.path(), &[]).await, &["no host answers at http://127.0.0.1:1/"]);
    // A command run in somebody else's folder must not send the token to a foreign address.
    fs::write(folder.path().join("modules.toml"), with_port(8081).replace("0.0.0.0", "203.0.113.1")).unwrap();
    failed(
        &modules(folder.path(), &[]).await,
        &["203.0.113.1:8081", "not an address of this machine", "--admin-token"],
    );
    fs::write(folder.path().join("modules.toml"), "nonsense = 1").unwrap();
    failed(
        &modules(folder.path(), &[]).await,
        &["modules.toml:1:1", "help: correct modules.toml, or name the host: --admin"],
    );
}

#[tokio::test]
async fn stopping_removes_the_running_file() {
    let mut host = Settings::new().start().await;
    let file = host.file(".modhost/running.json");
    assert!(file.is_file());
    assert!(host.stop().await.success());
    assert!(!file.exists());
}

#[tokio::test]
async fn commands_send_the_configured_token_only_to_their_own_host() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), format!("ADMIN={ADMIN_TOKEN}\n")).unwrap();
    let settings = || Settings::test_guest("").server("admin_token = \"env:ADMIN\"");
    let host = settings().start_in(folder).await;
    assert_eq!(names(&modules(host.folder(), &[]).await), ["Test"]);
    done(&modhost(host.folder(), "deliveries", &[], &[]).await);
    // To an address given by a flag, commands send only a token that was given explicitly.
    let at = ["--admin", host.admin.as_str()];
    failed(&modules(host.folder(), &at).await, &["admin_token", "MODHOST_ADMIN_TOKEN"]);
    assert_eq!(names(&modules(host.folder(), &[&at[..], &["--admin-token", "env:ADMIN"]].concat()).await), ["Test"]);
    let usual = [("MODHOST_ADMIN_TOKEN", ADMIN_TOKEN)];
    done(&modhost(host.folder(), "modules", &at, &usual).await);
    failed(
        &modules(host.folder(), &["--admin-token", "env:NONE"]).await,
        &["the environment variable NONE is not set"],
    );
    failed(&modules(host.folder(), &["--admin-token", ADMIN_TOKEN]).await, &["--admin-token takes a reference"]);
    let wrong = modhost(host.folder(), "modules", &[], &[("ADMIN", "wrong-wrong-wrong-wrong")]).await;
    failed(&wrong, &["the host rejected the token that was sent", "--admin-token"]);

    // An operator without access to the token's file gets an error that names the file.
    host.save_settings(&Settings::test_guest("").server("admin_token = \"file:secrets/token\""));
    host.logged(&["cannot reload the settings"]).await;
    failed(&modules(host.folder(), &[]).await, &["requires the token", "there is no file", "secrets/token"]);
    done(&modhost(host.folder(), "modules", &[], &usual).await);
}

/// `serve` is found like `dev`, but has no local platform.
#[tokio::test]
async fn finds_a_serving_host() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("modules.toml"), Settings::new().text()).unwrap();
    let variables = [
        ("TEST_API_BASE", "http://127.0.0.1:1"),
        ("TEST_APP_ID", "app"),
        ("TEST_API_KEY", "key"),
        ("TEST_ENDPOINT_SECRET", "usig"),
    ];
    let host = Host::serve(folder, &variables, None).await;
    done(&modhost(host.folder(), "modules", &[], &[]).await);
    fs::write(host.file("event.json"), user_message("evt_1", "hello").to_string()).unwrap();
    done(&modhost(host.folder(), "send", &["--source", "unique", "event.json"], &variables).await);
}
