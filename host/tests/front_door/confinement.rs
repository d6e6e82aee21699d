//! Tests of the restrictions of a running host and of the processes that compile for it, as root and as another user.
//! What the restrictions prevent is tested in the crate `modhost-sandbox`.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use modhost_emulator::LocalPlatform;
use serde_json::Value;
use tempfile::TempDir;

use super::commands::{platform, post_signed_event};
use super::compiling::{compiling, status_of};
use super::harness::components::compiles_for_long;
use super::harness::{Host, Settings, component, until, variant, wait_for_answer};
use super::small_disk::notice::notice;

/// The user that a host runs as beside root.
const NOBODY: u32 = 65534;

/// The user of compile processes of a host that runs as root.
const COMPILER: u32 = 65530;

/// Settings with a module whose component is in the host's folder, and a compiler that may take long.
fn settings(sandbox: &str) -> Settings {
    let server = format!("sandbox = {sandbox:?}\ncompiler = {{ timeout = \"1h\", memory = \"8GiB\" }}");
    Settings::new().server(&server).module_file("Test", "test.wasm", "")
}

/// A folder with the settings, the component and the program, which belongs to a user. That user may not be able to
/// reach the program at its own place.
fn folder(settings: &Settings, user: Option<u32>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let [file, module, program] = ["modules.toml", "test.wasm", "modhost"].map(|name| folder.path().join(name));
    fs::write(&file, settings.text()).unwrap();
    fs::copy(component("test_guest"), &module).unwrap();
    // A separate process writes the program: see `program` in the tests of the engine.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_modhost")).arg(&program).status().unwrap().success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for path in [folder.path(), &file, &module, &program] {
        if user.is_some() {
            chown(path, user, user).unwrap();
        }
    }
    folder
}

/// The command `modhost serve` in a folder, for a platform; `through` are the words of a command that starts it.
fn serve(through: &[&str], folder: &Path, user: Option<u32>, platform: &LocalPlatform) -> Command {
    let program = folder.join("modhost").display().to_string();
    let words: Vec<&str> = through.iter().copied().chain([program.as_str()]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["serve", "--port", "0", "--admin-port", "0"]).current_dir(folder).env_clear();
    command.env("TEST_API_BASE", platform.api_base().as_str()).env("TEST_APP_ID", "app_local");
    command.env("TEST_API_KEY", "ukey_local").env("TEST_ENDPOINT_SECRET", "usig_local");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command
}

/// The users to run a host as.
fn users() -> &'static [Option<u32>] {
    if rustix::process::geteuid().is_root() {
        return &[None, Some(NOBODY)];
    }
    notice("the tests don't run as root, so the user of the compiler is NOT TESTED");
    &[None]
}

/// The process of a host in `/proc`.
fn process(host: &Host) -> PathBuf {
    PathBuf::from(format!("/proc/{}", host.process_id()))
}

/// Waits until a module has answered a message.
async fn answers(host: &Host, text: &str) -> String {
    let chat_id = post_signed_event(host, "usig_local", "Test", text).await;
    wait_for_answer(host, &chat_id).await.text().to_owned()
}

#[tokio::test]
async fn host_and_compiler_restrict_themselves_and_work() {
    let platform = platform(&["Test"], None).await;
    for user in users() {
        let is_root = user.is_none() && rustix::process::geteuid().is_root();
        let (settings, folder) = (settings("auto"), folder(&settings("auto"), *user));
        let command = serve(&[], folder.path(), *user, &platform);
        let host = Host::serve_with(command, folder, &platform).await;
        // Compiled under the restrictions, with SQLite, sockets and threads of the host under theirs.
        assert_eq!(answers(&host, "reply hello").await, "hello");

        host.logged(&["INFO", "restrictions in force", "mode=\"auto\"", "host=\"no_new_privs, seccomp"]).await;
        let sandbox = host.health().await["sandbox"].clone();
        for (what, uid) in [("host", Value::Null), ("compiler", is_root.then_some(COMPILER).into())] {
            let in_force = &sandbox[what];
            assert!(in_force["seccomp"] == true && in_force["no_new_privs"] == true, "{what}: {sandbox}");
            assert_eq!(in_force["uid"], uid, "{what}: {sandbox}");
            match in_force["landlock"].as_u64() {
                None => notice("the kernel has no Landlock, so the files of the host are NOT TESTED"),
                Some(_) => assert_eq!(in_force["missing"], Value::Array(Vec::new()), "{what}: {sandbox}"),
            }
        }
        // Every thread is restricted, not only the first.
        let tasks = fs::read_dir(process(&host).join("task")).unwrap().map(|task| task.unwrap().path());
        for task in tasks.filter(|task| task.exists()) {
            let (seccomp, privileges) = (status_of(&task, "Seccomp"), status_of(&task, "NoNewPrivs"));
            // A thread may end meanwhile.
            let has_ended = seccomp.is_empty() || privileges.is_empty();
            assert!(has_ended || seccomp == "2" && privileges == "1", "{}", task.display());
        }
        // The kernel gives the files of a process that others must not inspect to root.
        assert_eq!(fs::metadata(process(&host).join("environ")).unwrap().uid(), 0);

        host.save("test.wasm", compiles_for_long());
        let compiler = compiling(&host).await;
        // It inherits the filters of the host, and seccomp is its last restriction.
        let filters = |process: &Path| status_of(process, "Seccomp_filters").parse::<u32>().unwrap_or_default();
        let of_host = filters(&process(&host));
        until("the compiler to restrict itself", async || (filters(&compiler) > of_host + 2).then_some(())).await;
        let uid = if is_root { COMPILER } else { user.unwrap_or(rustix::process::geteuid().as_raw()) };
        for field in ["Uid", "Gid"] {
            assert_eq!(status_of(&compiler, field), [uid.to_string().as_str(); 4].join("\t"), "{field}");
        }
        assert_eq!(status_of(&compiler, "CapPrm"), "0000000000000000");
        if is_root {
            assert_eq!(status_of(&compiler, "Groups"), "");
            let limits = fs::read_to_string(compiler.join("limits")).unwrap();
            let threads = limits.lines().find(|line| line.starts_with("Max processes")).unwrap();
            assert_eq!(threads.split_whitespace().nth(3), Some("4096"), "{limits}");
        }
        // A canceled compiler is killed, although it is another user.
        let next = variant("test_guest", 1);
        host.save("test.wasm", &next);
        host.serves("Test", &next).await;
        until("the compiler to exit", async || status_of(&compiler, "Seccomp").is_empty().then_some(())).await;
        host.save_settings(&settings.server("apology = \"Nobody is in.\""));
        host.logged(&["settings reloaded"]).await;
        assert_eq!(answers(&host, "reply hello again").await, "hello again");
    }
    platform.shutdown().await;
}

#[tokio::test]
async fn restrictions_can_be_turned_off() {
    let platform = platform(&["Test"], None).await;
    let folder = folder(&settings("off"), None);
    let command = serve(&[], folder.path(), None, &platform);
    let host = Host::serve_with(command, folder, &platform).await;
    assert_eq!(answers(&host, "reply hello").await, "hello");
    host.logged(&["INFO", "restrictions in force", "mode=\"off\"", "host=none", "compiler=none"]).await;
    assert_eq!(host.lines(&["WARN", "restriction"]), 0, "{}", host.log());
    assert_eq!(status_of(&process(&host), "Seccomp"), status_of(Path::new("/proc/self"), "Seccomp"));
    host.save_settings(&settings("required"));
    host.logged(&["sandbox", "restart"]).await;
    platform.shutdown().await;
}

/// Root without the capability to change its user, as in containers with few capabilities.
#[tokio::test]
async fn missing_restriction_is_reported_or_refused() {
    const LIMITED: &[&str] = &["setpriv", "--bounding-set=-setuid,-setgid", "--inh-caps=-setuid,-setgid"];
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !rustix::process::geteuid().is_root() || !has_setpriv {
        return notice("without root or setpriv, missing restrictions are NOT TESTED");
    }
    let path = ("PATH", std::env::var_os("PATH").unwrap());
    let platform = platform(&["Test"], None).await;
    let lenient = folder(&settings("auto"), None);
    let mut command = serve(LIMITED, lenient.path(), None, &platform);
    command.env(path.0, &path.1);
    let host = Host::serve_with(command, lenient, &platform).await;
    assert_eq!(answers(&host, "reply hello").await, "hello");
    host.logged(&["WARN", "a restriction is not in force", "process=\"compiler\"", "a user of its own"]).await;
    let missing = host.health().await["sandbox"]["compiler"]["missing"].clone();
    assert!(missing[0].as_str().is_some_and(|missing| missing.contains("CAP_SETUID")), "{missing}");

    let strict = folder(&settings("required"), None);
    let refused = serve(LIMITED, strict.path(), None, &platform).env(path.0, &path.1).output().unwrap();
    let stderr = String::from_utf8(refused.stderr).unwrap();
    let words = ["`sandbox = \"required\"` in [server]", "a user of its own", "CAP_SETUID", "operating.md"];
    assert!(!refused.status.success() && words.iter().all(|word| stderr.contains(word)), "{stderr}");
    platform.shutdown().await;
}
