//! Tests of the progress line of a build on a terminal, which `script` (util-linux) provides.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::harness::{component, modhost};
use super::notice::notice;

/// A module with a build that takes a moment and prints something.
fn lay_out(folder: &Path) {
    let settings = "[[source]]\nname = \"unique\"\npath = \"/webhook\"\nscheme = \"unique\"\nsecrets = [\"env:SECRET\"]\n\
         tenant = \"default\"\n[[tenant]]\nname = \"default\"\nplatform = { kind = \"none\" }\n[[module]]\nname = \"Mine\"\n\
         folder = \"mine\"\ncomponent = \"mine/module.wasm\"\nbuild = \"sh build.sh\"\n";
    fs::create_dir(folder.join("mine")).unwrap();
    fs::write(folder.join("modules.toml"), settings).unwrap();
    let build = format!("echo said by the compiler\nsleep 0.5\ncp '{}' module.wasm\n", component("demo_app").display());
    fs::write(folder.join("mine/build.sh"), build).unwrap();
}

#[tokio::test]
async fn terminal_shows_the_build_and_its_last_duration() {
    let folder = tempfile::tempdir().unwrap();
    lay_out(folder.path());
    let cache = folder.path().join("cache");
    let build = || {
        let command = format!("stty cols 120 rows 40; '{}' build", env!("CARGO_BIN_EXE_modhost"));
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).current_dir(folder.path());
        script.env("TERM", "xterm").env("XDG_CACHE_HOME", &cache).env_remove("NO_COLOR").env_remove("CI");
        script.output().map(|output| (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let Ok((built, first)) = build() else {
        notice("SKIPPED the line that shows a build: `script` is missing (Debian: bsdutils)");
        return;
    };
    assert!(built && first.contains("building Mine: sh build.sh"), "{first}");
    assert!(first.contains("said by the compiler") && !first.contains("last time"), "{first}");
    let (built, second) = build().unwrap();
    assert!(built && second.contains("sh build.sh, last time "), "{second}");

    // Without a terminal, there is a line at the start and one at the end, and the output of the build itself.
    let variables = [("XDG_CACHE_HOME", cache.to_str().unwrap())];
    let ran = modhost(folder.path(), "build", &[], &variables).await;
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!((lines.len(), lines[1]), (3, "said by the compiler"), "{ran:?}");
    assert!(ran.stderr.is_empty() && !ran.stdout.contains("last time"), "{ran:?}");
}
