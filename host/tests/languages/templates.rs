//! Tests of the templates: outside this repository, a module is created from each, built, tested and used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::harness::{Host, chat};
use super::sample::until_compiled;
use super::toolchains::{self, Toolchain};

/// The name of the module; its package is `travel-desk`.
const NAME: &str = "TravelDesk";

macro_rules! templates {
    ($($language:ident needs $toolchain:ident;)*) => {
        $(#[tokio::test]
        async fn $language() {
            let language = stringify!($language);
            let what = format!("the template for {language}");
            let Some(tools) = toolchains::find(Toolchain::$toolchain, &what) else { return };
            super::templates::creates_builds_tests_and_chats(language, &tools).await;
        })*
    };
}

templates! {
    python needs Python;
    javascript needs JavaScript;
    typescript needs JavaScript;
    go needs Go;
    c needs Zig;
    cpp needs Zig;
}

#[tokio::test]
async fn rust() {
    creates_builds_tests_and_chats("rust", &[]).await;
}

async fn creates_builds_tests_and_chats(language: &str, tools: &[PathBuf]) {
    let folder = tempfile::tempdir().unwrap();
    let made = succeeds(modhost(folder.path(), &["new", NAME, "--lang", language], tools));
    assert!(made.contains("created travel-desk, a module in ") && made.contains("created modules.toml"), "{made}");

    let own = folder.path().join("travel-desk");
    let what = format!("the template for {language}");
    if own.join("package-lock.json").is_file() && !toolchains::install_packages(&own, &what) {
        return;
    }
    let built = succeeds(modhost(folder.path(), &["build", NAME], tools));
    assert!(built.contains("built TravelDesk: ") && built.contains(", compiled in "), "{built}");
    let tested = succeeds(modhost(folder.path(), &["test", "--no-build"], tools));
    assert!(tested.contains("3 passed, 0 failed"), "{tested}");
    if language == "rust" {
        let said = String::from_utf8_lossy(&fs::read(own.join("Cargo.lock")).unwrap()).into_owned();
        assert!(said.contains("name = \"travel-desk\""), "{said}");
    }

    let host = Host::dev(folder).await;
    until_compiled(&host, NAME).await;
    let answer = chat(&host, NAME, "How much may a hotel room cost in London?").await;
    let steps = answer.steps();
    assert!(
        matches!(steps[..], [(found, "COMPLETED"), ("Writing the answer…", "COMPLETED")] if found.starts_with("Passages found: "))
    );
    assert!(answer.text().contains("up to 190 euros in London"), "{}", answer.text());
}

/// The README's next steps after creating a module: replaces the template's code by the example, then runs `modhost
/// test --update`.
#[tokio::test]
async fn readme_example_passes_its_tests() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(modhost(folder.path(), &["new", "Mine", "--lang", "rust"], &[]));
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, rest) = readme.split_once("   ```rust\n").expect("an example in Rust");
    let (example, rest) = rest.split_once("   ```\n").unwrap();
    assert!(rest.contains("`modhost test --update`"), "the section after the example");
    let source: String =
        example.lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect();
    fs::write(folder.path().join("mine/src/lib.rs"), source).unwrap();

    let updated = succeeds(modhost(folder.path(), &["test", "--update"], &[]));
    assert!(updated.contains("ok: 0 passed, 0 failed, 3 updated"), "{updated}");
    let tested = succeeds(modhost(folder.path(), &["test"], &[]));
    assert!(tested.contains("ok: 3 passed, 0 failed"), "{tested}");
}

/// Runs this modhost as an author does: with the tools in PATH and the environment variables that they need.
pub(super) fn modhost(folder: &Path, args: &[&str], tools: &[PathBuf]) -> Command {
    let mut modhost = Command::new(env!("CARGO_BIN_EXE_modhost"));
    modhost.args(args).current_dir(folder).env("PATH", toolchains::path_with(tools));
    // Variables that cargo sets for this test must not affect the module's build.
    for variable in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "MODHOST_CONFIG"] {
        modhost.env_remove(variable);
    }
    modhost
}

/// Runs a command that must succeed; returns its output.
pub(super) fn succeeds(mut command: impl std::borrow::BorrowMut<Command>) -> String {
    let command = command.borrow_mut();
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}
