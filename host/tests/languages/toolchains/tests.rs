//! Whatever a machine has: a toolchain is found, set up, or reported as missing in words.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Toolchain;
use super::machine::Mode;
use super::stubs::{Stubs, is_in};

const INSTALL_SDK: &str = "./sdk-guest/python";

/// What is missing, in words; panics if nothing is.
fn missing(stubs: &Stubs, toolchain: Toolchain) -> String {
    let why = stubs.machine().find(toolchain).expect_err("it is there");
    assert!(why.contains(". To "), "nothing says what to do: {why}");
    why
}

#[test]
fn every_combination_of_tools_is_used_as_far_as_it_goes() {
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
                // Go's own is taken where there is one.
                assert_eq!(stubs.installs("assistant-go"), usize::from(python && !go), "{case}");
                // What was set up is found again.
                let installs = stubs.installs("install") + stubs.installs("npm ci");
                let again = Toolchain::ALL.map(|toolchain| stubs.machine().find(toolchain).is_ok());
                assert_eq!((again, stubs.installs("install") + stubs.installs("npm ci")), (found, installs), "{case}");
            }
        }
    }
}

#[test]
fn what_is_broken_is_reported_in_words() {
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
fn what_lies_first_in_the_path_and_is_of_no_use_is_passed_over() {
    let stubs = Stubs::bare().broken_python("VERSION", "exit 127").python("3.9").python("3.12.1");
    let stubs = stubs.node("v16.0.0").node("v22.0.0").npm(":").go("1.20").go("1.27.3");
    assert_eq!(stubs.machine().find(Toolchain::Python).unwrap(), [stubs.environment().join("bin")]);
    assert_eq!(stubs.machine().find(Toolchain::JavaScript).unwrap(), [stubs.path("bin4")]);
    assert_eq!(stubs.machine().find(Toolchain::Go).unwrap(), [stubs.path("bin7")]);
}

#[test]
fn an_environment_that_is_outdated_or_broken_is_mended() {
    let stubs = Stubs::bare().python("3.12.1");
    let find = || stubs.machine().find(Toolchain::Python).unwrap();
    find();
    assert_eq!(stubs.installs(INSTALL_SDK), 1);

    stubs.write("sdk-guest/python/src/modhost/__init__.py", "SDK = 2");
    find();
    assert_eq!(stubs.installs(INSTALL_SDK), 2, "the SDK that was changed isn't installed");

    stubs.write("plugins/assistant-python/requirements.txt", "componentize-py==0.26.0 \\\n    --hash=sha256:0\n");
    find();
    assert_eq!(stubs.installs("assistant-python"), 3, "what is pinned now isn't installed");

    // As after an upgrade of the Python it was made with.
    let python = stubs.environment().join("bin/python");
    fs::remove_file(&python).unwrap();
    symlink("/nowhere/python3.11", &python).unwrap();
    find();
    assert_eq!(stubs.installs("-m venv"), 2, "it isn't made anew");

    // As a set-up leaves it that was broken off.
    fs::write(stubs.environment().join("installed"), "").unwrap();
    find();
    assert_eq!(stubs.installs("assistant-python"), 5, "it isn't completed");
}

#[test]
fn packages_that_are_outdated_or_broken_are_mended() {
    let stubs = Stubs::bare().node("v22.0.0").npm(":");
    let find = || stubs.machine().find(Toolchain::JavaScript).unwrap();
    find();
    assert_eq!(stubs.installs("npm ci"), 1);
    stubs.lock("2.0.0");
    find();
    assert_eq!(stubs.installs("npm ci"), 2, "what package-lock.json names now isn't installed");
    fs::remove_dir(stubs.path("sdk-guest/js/node_modules/esbuild")).unwrap();
    find();
    assert_eq!(stubs.installs("npm ci"), 3, "what is missing isn't installed");
    fs::remove_file(stubs.path("sdk-guest/js/node_modules/.package-lock.json")).unwrap();
    find();
    assert_eq!(stubs.installs("npm ci"), 4, "what an npm left that was broken off isn't mended");
}

#[test]
fn nobody_waits_for_ever() {
    let stubs = Stubs::bare().node("v22.0.0").npm("sleep 600");
    let mut machine = stubs.machine();
    machine.patience = Duration::from_millis(300);
    let why = machine.find(Toolchain::JavaScript).unwrap_err();
    assert!(why.contains("didn't end in time"), "{why}");

    let held = fs::File::create(stubs.path("target/toolchains/lock")).unwrap();
    held.lock().unwrap();
    let why = machine.find(Toolchain::JavaScript).unwrap_err();
    assert!(why.contains("another process is setting up toolchains"), "{why}");
}

#[test]
fn one_sets_up_what_many_wait_for() {
    let stubs = Stubs::bare().broken_python("INSTALL", "sleep 0.1");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| stubs.machine().find(Toolchain::Zig).unwrap());
        }
    });
    assert_eq!((stubs.installs("-m venv"), stubs.installs("assistant-c")), (1, 1));
}

#[test]
fn nothing_is_set_up_where_that_is_not_wanted() {
    let stubs = Stubs::bare().python("3.12.1").node("v22.0.0").npm(":");
    let mut machine = stubs.machine();
    machine.mode = Mode::Installed;
    for toolchain in Toolchain::ALL {
        let why = machine.find(toolchain).unwrap_err();
        assert!(why.contains("MODHOST_TOOLCHAINS=installed"), "{why}");
    }
    assert_eq!(stubs.installs("install") + stubs.installs("npm ci"), 0);
    // What is there is used.
    let found = Toolchain::ALL.map(|toolchain| stubs.machine().find(toolchain).unwrap());
    assert_eq!(Toolchain::ALL.map(|toolchain| machine.find(toolchain).unwrap()), found);
    assert!(is_in(&found[0], &stubs.environment().join("bin")));
}

/// The tests themselves, run as on a machine with these programs and a shell.
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
    "what_this_machine_lacks",
    "templates::python",
    "templates::javascript",
    "templates::typescript",
    "templates::go",
    "templates::c",
];

#[test]
fn without_tools_the_tests_are_skipped_and_say_so() {
    for stubs in [Stubs::bare(), Stubs::bare().node("v22.0.0").broken_python("VENV", "exit 1").go("1.4")] {
        let (passed, said) = tests_on(&stubs, false, &NEED_TOOLS);
        assert!(passed, "{said}");
        // Each of them, and none of those that passed by doing something.
        let listed = |word: &str| said.lines().filter(|line| line.contains(word)).count();
        assert_eq!(listed("=== SKIPPED "), listed(" ... ok") - 1, "{said}");
        assert_eq!(listed("MISSING, its tests are skipped"), 4, "{said}");
    }
}

#[test]
fn without_tools_the_tests_fail_where_they_are_required() {
    let (passed, said) = tests_on(&Stubs::bare(), true, &["calls::go", "what_this_machine_lacks"]);
    assert!(!passed && said.contains("2 failed") && said.contains("no Go in PATH"), "{said}");
}
