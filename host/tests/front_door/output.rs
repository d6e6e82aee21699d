//! Tests of commands whose output can't be written.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use super::harness::{Host, Settings, bare, chat, component, modhost, until};

/// Runs a command with its output redirected; returns its exit status and elapsed time.
async fn run(folder: &Path, args: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> (ExitStatus, String) {
    let (command, args) = args.split_first().unwrap();
    let mut bare = bare(command, folder);
    bare.args(args).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let ran = tokio::process::Command::from(bare).kill_on_drop(true).spawn().unwrap().wait_with_output();
    let ran = tokio::time::timeout(super::harness::PATIENCE, ran).await.expect("the command exits in time").unwrap();
    (ran.status, String::from_utf8(ran.stderr).unwrap())
}

/// A pipe whose reader is closed.
fn closed() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

/// Commands that print, with the arguments to find the host.
fn printing(host: &Host) -> Vec<Vec<String>> {
    let fits = component("demo_app").display().to_string();
    let commands: [&[&str]; 12] = [
        &["--help"],
        &["deliveries", "--admin", &host.admin],
        &["deliveries", "--admin", &host.admin, "--json"],
        &["modules", "--admin", &host.admin],
        &["modules", "show", "Test", "--admin", &host.admin, "--json"],
        &["modules", "history", "Test", "--admin", &host.admin],
        &["routes"],
        &["routes", "--json"],
        &["check", &fits],
        &["check", &fits, "--json"],
        &["send", "--platform", &host.platform, "reply hi"],
        &["bindings", "wit"],
    ];
    commands.iter().map(|args| args.iter().map(|arg| (*arg).to_owned()).collect()).collect()
}

#[tokio::test]
async fn closed_pipe_is_no_failure() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", "reply hi").await;
    for args in printing(&host) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (status, stderr) = run(host.folder(), &args, closed(), Stdio::piped()).await;
        assert_eq!(status.code(), Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{args:?}: {stderr}");
        // With both streams closed, the exit code is the same.
        let (status, _) = run(host.folder(), &args, closed(), closed()).await;
        assert_eq!(status.code(), Some(0), "{args:?}");
    }
    // A command that follows forever ends when its reader closes: here at the second delivery.
    let follow =
        run(host.folder(), &["deliveries", "--follow", "--admin", &host.admin], closed(), Stdio::piped()).await;
    assert_eq!((follow.0.code(), follow.1.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn unwritable_output_is_reported_as_a_failure() {
    let host = Settings::test_guest("").start().await;
    chat(&host, "Test", "reply hi").await;
    let full = || File::create("/dev/full").unwrap();
    for args in printing(&host).iter().skip(1) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (status, stderr) = run(host.folder(), &args, full(), Stdio::piped()).await;
        assert_eq!(status.code(), Some(1), "{args:?}: {stderr}");
        assert_eq!(stderr.matches("error: cannot write to standard output: ").count(), 1, "{args:?}: {stderr}");
        let (status, _) = run(host.folder(), &args, full(), full()).await;
        assert_eq!(status.code(), Some(1), "{args:?}");
    }
    for wrong in [&["deliveries", "show", "dlv_none", "--admin", &host.admin][..], &["check", "none.wasm"]] {
        let (status, _) = run(host.folder(), wrong, Stdio::null(), full()).await;
        assert_eq!(status.code(), Some(1), "{wrong:?}");
    }
    let (status, _) = run(host.folder(), &["deliveries", "--no-such-flag"], Stdio::null(), full()).await;
    assert_eq!(status.code(), Some(2));
}

#[tokio::test]
async fn host_runs_with_blocked_output() {
    // The failures that `dev` prints fill the pipe soon.
    let (reader, writer) = std::io::pipe().unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("modules.toml"), Settings::test_guest("").text()).unwrap();
    let [port, admin, platform] = [free(), free(), free()];
    let mut command = bare("dev", folder.path());
    command.args(["--no-build", "--port", &port, "--admin-port", &admin, "--platform-port", &platform]);
    let mut process = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let platform = format!("http://127.0.0.1:{platform}");
    let admin = format!("http://127.0.0.1:{admin}");
    // The admin API answers before the local platform has the webhook address.
    until("an answer of the module", async || {
        let hello = ["--platform", &platform, "--timeout", "1s", "reply hi"];
        let ran = modhost(folder.path(), "send", &hello, &[]).await;
        (ran.code == 0).then_some(())
    })
    .await;
    let long = "x".repeat(4000);
    for number in 0..60 {
        let text = format!("fail {number} {long}\n{long}\n{long}");
        let ran = modhost(folder.path(), "send", &["--platform", &platform, &text], &[]).await;
        assert!(ran.stdout.starts_with("Sorry"), "{ran:?}");
    }
    let args = ["--admin", &admin, "--state", "dead", "--limit", "100", "--json"];
    let dead = modhost(folder.path(), "deliveries", &args, &[]).await;
    assert_eq!(dead.stdout.lines().count(), 60);
    assert!(std::process::Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
    let status = until("the host to stop", async || process.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));
    drop(reader);
}
