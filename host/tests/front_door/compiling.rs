//! Tests of the compiler process: it has no secrets, runs within limits, and blocks nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use modhost_contract::compat;

use super::harness::components::{compiles_for_long, large, outsized};
use super::harness::{
    Behavior, Host, Settings, Signal, chat, component, module_state, modules, modules_json, signal, small, small_with,
    until, variant,
};

/// Lists the running child processes of a process, from `/proc`.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_child = |path: &PathBuf| {
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        // `PID (NAME) STATE PARENT …`; only the name may contain spaces.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        fields.len() > 1 && fields[0] != "Z" && fields[1] == parent.to_string()
    };
    processes.filter(is_child).collect()
}

/// Waits until a host compiles, and returns the folder of the compiler process in `/proc`.
#[cfg(target_os = "linux")]
pub async fn compiling(host: &Host) -> PathBuf {
    until("a compiler process", async || compilers(host).pop()).await
}

/// Lists the compiler processes of a host.
#[cfg(target_os = "linux")]
fn compilers(host: &Host) -> Vec<PathBuf> {
    let mut processes = children(host.process_id());
    processes.retain(|process| {
        fs::read_to_string(process.join("cmdline")).is_ok_and(|line| line.contains("compile-component"))
    });
    processes
}

/// A folder with two components: `one.wasm` and `other.wasm`.
fn two_modules() -> (tempfile::TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one.wasm", "other.wasm"] {
        fs::copy(component("test_guest"), folder.path().join(name)).unwrap();
    }
    (folder, one_and_other())
}

fn one_and_other() -> Settings {
    Settings::new().module_file("One", "one.wasm", "").module_file("Other", "other.wasm", "")
}

/// Settings with a data directory that outlives the host.
fn keeping(settings: Settings, data: &Path) -> Settings {
    settings.args(&["--data-dir", data.to_str().unwrap()])
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn compiling_blocks_nothing_and_the_compiler_has_no_secrets() {
    let (folder, settings) = two_modules();
    let host = settings.server("compiler = { timeout = \"1h\", memory = \"8GiB\" }").start_in(folder).await;
    host.save("one.wasm", compiles_for_long());
    let process = compiling(&host).await;

    assert_eq!(fs::read_to_string(process.join("environ")).unwrap(), "", "the host's environment has no secrets");
    let folder = host.folder().canonicalize().unwrap().display().to_string();
    let output = format!("{folder}/.modhost/components/");
    // The process sets its limits itself, before anything else, and the memory limit first.
    let limits = until("the compiler to set its limits", async || {
        let limits = fs::read_to_string(process.join("limits")).unwrap();
        let set = |name: &str| limits.lines().any(|line| line.starts_with(name) && !line.contains("unlimited"));
        (set("Max data size") && set("Max cpu time") && set("Max file size")).then_some(limits)
    })
    .await;
    // Then it restricts itself, which includes closing what it inherited; seccomp comes last.
    until("the compiler to restrict itself", async || (status_of(&process, "Seccomp") == "2").then_some(())).await;
    assert_eq!(status_of(&process, "NoNewPrivs"), "1");
    assert_eq!(status_of(&process, "CapPrm"), "0000000000000000");
    assert_ne!(status_of(&process, "Uid").split_whitespace().next(), Some("0"), "root compiles");
    let files = open_files(&process);
    let [stdin, stdout, stderr] = &files[..] else { panic!("the compiler has other files open: {files:?}") };
    assert!(stdin.starts_with("pipe:") && stdout.starts_with(&output) && stderr.starts_with("pipe:"), "{files:?}");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max data size").contains(&(8u64 << 30).to_string()), "{limits}");
    assert!(limit("Max core file size").split_whitespace().nth(4) == Some("0"), "{limits}");

    // The old version answers, the other module answers, and the other module's file is replaced.
    assert_eq!(chat(&host, "One", "reply hello").await.text(), "hello");
    assert_eq!(chat(&host, "Other", "reply hello").await.text(), "hello");
    let next = variant("test_guest", 1);
    host.save("other.wasm", &next);
    host.serves("Other", &next).await;

    // The quick compile may have reached its limit by now; the optimizing one continues. A killed host leaves no
    // compiler process behind.
    let process = compiling(&host).await;
    signal(host.process_id(), Signal::KILL);
    until("the compiler to exit", async || (!runs(&process)).then_some(())).await;
}

/// The open files of a process by their numbers: the link targets in its folder of `/proc`.
#[cfg(target_os = "linux")]
fn open_files(process: &Path) -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(process.join("fd")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_link(file).unwrap().display().to_string()).collect()
}

/// A field of a process's status; empty if it has ended.
#[cfg(target_os = "linux")]
pub fn status_of(process: &Path, field: &str) -> String {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let field = format!("{field}:");
    status.lines().find_map(|line| line.strip_prefix(&field)).unwrap_or_default().trim().to_owned()
}

/// Reports whether a process runs; a zombie doesn't.
#[cfg(target_os = "linux")]
fn runs(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// Limits that let a component compile for as long as the test runs.
const PATIENT: &str = r#"timeout = "1h", memory = "8GiB""#;

#[cfg(target_os = "linux")]
#[tokio::test]
async fn cancels_a_compile_that_is_no_longer_needed() {
    let patient = |settings: Settings| settings.server(&format!("compiler = {{ {PATIENT} }}"));
    let (folder, settings) = two_modules();
    let host = patient(settings).start_in(folder).await;
    host.save("one.wasm", compiles_for_long());
    compiling(&host).await;
    // A reload that doesn't affect the component, or a rewrite of the same file, leaves the compile running.
    host.save_settings(&patient(one_and_other()).server("apology = \"Nobody is in.\""));
    host.logged(&["settings reloaded"]).await;
    host.save("one.wasm", compiles_for_long());
    let next = variant("test_guest", 1);
    host.save("other.wasm", &next);
    host.serves("Other", &next).await;
    assert_eq!(host.lines(&["load canceled"]), 0, "the compile was restarted");
    // Replacing the file cancels the compile,
    host.save("one.wasm", &next);
    host.serves("One", &next).await;
    host.logged(&["load canceled: the file has changed", "module=One"]).await;
    until("the compiler to exit", async || compilers(&host).is_empty().then_some(())).await;
    // and so does removing its module.
    host.save("one.wasm", compiles_for_long());
    compiling(&host).await;
    let without = Settings::new().server("removal_grace = \"0s\"").module_file("Other", "other.wasm", "");
    host.save_settings(&patient(without));
    until("the compiler to exit", async || compilers(&host).is_empty().then_some(())).await;
}

/// A compiler killed for lack of memory says nothing about the component: the host retries without a change of the
/// file.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn retries_after_the_compiler_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), compiles_for_long()).unwrap();
    let settings = Settings::new().server(&format!("compiler = {{ {PATIENT} }}"));
    let host = settings.module_file("Test", "module.wasm", "").at_once().start_in(folder).await;
    let process = compiling(&host).await;
    let id = process.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(std::process::Command::new("kill").args(["-KILL", &id]).status().unwrap().success());
    host.logged(&["was killed, and not by this host"]).await;
    assert_ne!(compiling(&host).await, process);
    assert!(module_state(&host, "Test").await["coming_up"] == true);
}

/// Starts a host that compiles its module's new file for as long as the test runs; also returns the compiler process.
#[cfg(target_os = "linux")]
async fn compiling_for_long(lines: &str, versions: &[Vec<u8>]) -> (Host, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("module.wasm"), &versions[0]).unwrap();
    let settings = Settings::new().server(&format!("compiler = {{ {PATIENT} }}"));
    let host = settings.module_file("Test", "module.wasm", lines).start_in(folder).await;
    for bytes in &versions[1..] {
        host.save("module.wasm", bytes);
        host.serves_or_tries("Test", bytes).await;
    }
    host.save("module.wasm", compiles_for_long());
    let process = compiling(&host).await;
    (host, process)
}

/// An admin operation takes effect at once. It doesn't wait for a compile, which may take minutes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn admin_operations_cancel_a_running_compile() {
    let [one, two] = ["one", "two"].map(small);
    let version = |bytes: &[u8]| modhost_storage::versions::ContentHash::of(bytes).to_string();
    let (host, process) = compiling_for_long("", &[one.clone(), two.clone()]).await;
    assert_eq!(modules_json(&host, &["pause", "Test"]).await[0]["paused"]["by"], "ann");
    modules_json(&host, &["resume", "Test"]).await;
    assert!(runs(&process), "pausing canceled the compile");
    let now = modules_json(&host, &["rollback", "Test"]).await.remove(0);
    assert_eq!(
        (&now["version"], &now["held_back"]["version"]),
        (&version(&one).into(), &version(&compiles_for_long()).into())
    );
    assert_eq!(chat(&host, "Test", "who are you?").await.text(), "one");
    until("the compile to be canceled", async || compilers(&host).is_empty().then_some(())).await;
    host.logged(&["version in the file is not loaded", "ann went back from it"]).await;

    let (host, _) = compiling_for_long("", &[one.clone(), two.clone()]).await;
    assert_eq!(modules_json(&host, &["pin", "Test", &version(&one)]).await[0]["version"], version(&one));
    until("the compile to be canceled", async || compilers(&host).is_empty().then_some(())).await;
    host.logged(&["version in the file is not loaded", "the module is pinned to", "by ann"]).await;
    assert_eq!(chat(&host, "Test", "who are you?").await.text(), "one");
}

/// A trial ends by its result or by an operator, even while the next version is compiled.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn trials_end_during_a_compile() {
    let swap = "swap = { canary = \"50%\", for = \"1h\" }";
    let (one, bad) = (small("one"), small_with("bad", Behavior::Fails, 0));
    let version = |bytes: &[u8]| modhost_storage::versions::ContentHash::of(bytes).to_string();
    let (host, process) = compiling_for_long(swap, &[one.clone(), bad.clone()]).await;
    let mut sent = 0;
    until("the bad version to be rolled back", async || {
        chat(&host, "Test", "hello").await;
        sent += 1;
        assert!(sent < 500, "keeps failing");
        host.log().contains("canary rolled back").then_some(())
    })
    .await;
    let now = until("the trial to end", async || {
        let now = module_state(&host, "Test").await;
        now["canary"].is_null().then_some(now)
    })
    .await;
    assert_eq!((&now["version"], &now["held_back"]["version"]), (&version(&one).into(), &version(&bad).into()));
    assert!(runs(&process), "the newest file is still the next version");

    for (order, serves) in [("promote", small("two")), ("abort", one.clone())] {
        let (host, process) = compiling_for_long(swap, &[one.clone(), small("two")]).await;
        let now = modules_json(&host, &[order, "Test"]).await.remove(0);
        assert_eq!((&now["version"], now["canary"].is_null()), (&version(&serves).into(), true));
        assert!(runs(&process), "the newest file is still the next version");
    }
}

/// A trial that continues after a restart can be ended before its version is loaded.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn ends_a_trial_whose_version_is_still_loading() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("module.wasm");
    fs::write(&file, small("one")).unwrap();
    let lines = "swap = { canary = \"50%\", for = \"1h\" }";
    let settings = || keeping(Settings::new(), &data.path().join("data"));
    let one_place = |settings: Settings| settings.server(&format!("compiler = {{ {PATIENT}, processes = 1 }}"));
    let test = |settings: Settings| settings.module_file("Test", file.to_str().unwrap(), lines);
    let mut host = test(settings()).start().await;
    fs::write(&file, large(0)).unwrap();
    host.logged(&["canary started", "percent=50"]).await;
    host.stop().await;
    fs::remove_dir_all(data.path().join("data/components")).unwrap();

    // Another module has the only compile permit.
    let slow = data.path().join("slow.wasm");
    fs::write(&slow, compiles_for_long()).unwrap();
    let slow = |settings: Settings| settings.module_file("Slow", slow.to_str().unwrap(), "");
    let host = one_place(slow(settings())).at_once().start().await;
    compiling(&host).await;
    host.save_settings(&one_place(test(slow(settings()))));
    host.serves("Test", &small("one")).await;
    assert!(module_state(&host, "Test").await["canary"].is_null(), "the version isn't loaded yet");
    let now = modules_json(&host, &["abort", "Test"]).await.remove(0);
    assert_eq!(now["held_back"]["why"], "ann ended its trial");
    host.logged(&["version in the file is not loaded", "ann ended its trial"]).await;
    let none = modules(&host, &["abort", "Test"]).await;
    assert!(none.code == 1 && none.stderr.contains("no version of Test is on trial"), "{none:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_tenant_does_not_block_the_compiles_of_another() {
    for processes in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new()
            .tenants(&[("acme", "company_1"), ("other", "company_2")])
            .server(&format!("compiler = {{ {PATIENT}, processes = {processes} }}"));
        for (module, tenant) in [("One", "acme"), ("Two", "acme"), ("Other", "other")] {
            let file = format!("{module}.wasm");
            fs::write(folder.path().join(&file), small("before")).unwrap();
            settings = settings.module_file(module, &file, &format!("tenants = [\"{tenant}\"]"));
        }
        let host = settings.start_in(folder).await;
        for file in ["One.wasm", "Two.wasm"] {
            host.save(file, compiles_for_long());
        }
        compiling(&host).await;
        for text in ["after", "and after that"] {
            host.save("Other.wasm", small(text));
            host.serves("Other", &small(text)).await;
        }
        if processes > 1 {
            // A large component isn't blocked either.
            host.save("Other.wasm", large(1));
            host.serves("Other", &large(1)).await;
            host.logged(&["optimized code in use"]).await;
        }
        assert_eq!(compilers(&host).len(), 1, "acme's second compile must wait with {processes} processes");
    }
}

#[tokio::test]
async fn compile_timeout_ends_the_compiler() {
    let data = tempfile::tempdir().unwrap();
    let (folder, settings) = two_modules();
    let mut host = keeping(settings, data.path()).start_in(folder).await;
    host.stop().await;

    // A component in the cache is mapped, so the time limit doesn't matter.
    let (folder, settings) = two_modules();
    let settings = settings.server("compiler = { timeout = \"300ms\" }");
    let host = keeping(settings, data.path()).start_in(folder).await;
    host.save("one.wasm", compiles_for_long());
    host.logged(&[
        "ERROR",
        "One",
        "the stable version stays",
        "compiling it took longer than 300ms, `timeout` in [server.compiler]",
    ])
    .await;
    assert_eq!(chat(&host, "One", "reply hello").await.text(), "hello");
    assert_eq!(chat(&host, "Other", "reply hello").await.text(), "hello");
    left_nothing(data.path());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn compile_memory_limit_ends_the_compiler() {
    let data = tempfile::tempdir().unwrap();
    let (folder, settings) = two_modules();
    let mut host = keeping(settings, data.path()).start_in(folder).await;
    host.stop().await;

    let (folder, settings) = two_modules();
    let settings = settings.server("compiler = { memory = \"64MiB\" }");
    let host = keeping(settings, data.path()).start_in(folder).await;
    host.save("one.wasm", compiles_for_long());
    host.logged(&[
        "ERROR",
        "One",
        "the stable version stays",
        "took more memory than 64.0 MiB, `memory` in [server.compiler]",
    ])
    .await;
    assert_eq!(chat(&host, "One", "reply hello").await.text(), "hello");
    left_nothing(data.path());
}

/// Checks that the cache contains no partial entries.
fn left_nothing(data: &Path) {
    let files: Vec<_> = fs::read_dir(data.join("components")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

#[tokio::test]
async fn serves_a_component_too_large_for_the_pool() {
    let data = tempfile::tempdir().unwrap();
    let folder = || {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("outsized.wasm"), outsized()).unwrap();
        folder
    };
    let settings = keeping(Settings::new().module_file("Outsized", "outsized.wasm", ""), data.path());
    for how in ["component compiled", "compiled component loaded from the cache"] {
        let mut host = settings.start_in(folder()).await;
        host.logged(&["INFO", "component does not fit the instance pool", "core module instances"]).await;
        host.logged(&["DEBUG", how]).await;
        assert_eq!(chat(&host, "Outsized", "reply hello").await.text(), "hello");
        // The same limits apply to it.
        let answer = chat(&host, "Outsized", "panic on purpose").await;
        assert!(answer.text().contains("Sorry"), "{}", answer.text());
        host.stop().await;
    }
}

#[tokio::test]
async fn large_component_serves_before_it_is_optimized() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large.wasm"), large(0)).unwrap();
    let settings = Settings::new().module_file("Large", "large.wasm", "limits = { cpu = \"200ms\" }");
    let host = settings.start_in(folder).await;
    // The optimized code takes over during these calls.
    for _ in 0..5 {
        assert_eq!(chat(&host, "Large", "reply hello").await.text(), "hello");
        let looped = chat(&host, "Large", "loop").await;
        assert!(looped.text().contains("Sorry"), "{}", looped.text());
    }
    host.logged(&["DEBUG", "optimized code in use"]).await;
    assert_eq!(chat(&host, "Large", "reply hello").await.text(), "hello");
    let log = host.log();
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("no {words:?} in {log}"));
    assert!(at("baseline code compiled") < at("version serves"), "the version must serve before the optimized code");
    assert!(at("version serves") < at("optimized code in use"));
    assert_eq!(host.lines(&["limits.cpu"]), 5, "not every loop ended at its limit: {log}");
    assert_eq!(host.lines(&["new version serves"]), 0, "the optimized code counted as another version: {log}");
}

#[test]
fn large_test_components_are_compatible() {
    for bytes in [compiles_for_long(), outsized(), large(0)] {
        let fits =
            compat::examine(&bytes, compat::MAX_SIZE).and_then(|component_info| component_info.check_compatibility());
        fits.unwrap_or_else(|incompatibility| panic!("{incompatibility}"));
    }
}
