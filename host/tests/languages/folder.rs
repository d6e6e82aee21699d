//! Tests of a module in a folder of its own: its working directory, its tools, and the number of its builds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::harness::{Host, Settings, variant};

/// A script in place of a compiler, in the folder of Python's tools. It writes the component and other files.
const COMPILER: &str = "#!/bin/sh
set -e
pwd > where.txt
modhost --version >> tools.log
mkdir -p generated
cat source > generated/copy
cat generated/copy > made.wasm
";

/// Writes a module with its compiler and its first source.
fn lay_out(folder: &Path, name: &str) {
    let (module, tools) = (folder.join(name), folder.join(name).join(".venv/bin"));
    fs::create_dir_all(&tools).unwrap();
    fs::write(module.join("source"), variant("demo_app", 1)).unwrap();
    fs::write(tools.join("compile"), COMPILER).unwrap();
    fs::set_permissions(tools.join("compile"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn settings() -> Settings {
    let lines = |folder: &str| format!("folder = {folder:?}\nbuild = \"compile\"");
    Settings::new()
        .module_file("First", "first/made.wasm", &lines("first"))
        .module_file("Second", "second/made.wasm", &lines("second"))
        .building()
}

fn builds(host: &Host, module: &str) -> usize {
    host.lines(&["building module", &format!("module={module}")])
}

#[tokio::test]
async fn builds_a_saved_module_once_in_its_folder_with_its_tools() {
    let folder = tempfile::tempdir().unwrap();
    lay_out(folder.path(), "first");
    lay_out(folder.path(), "second");
    let host = settings().start_in(folder).await;
    host.serves("First", &variant("demo_app", 1)).await;
    let at = fs::read_to_string(host.file("first/where.txt")).unwrap();
    assert_eq!(fs::canonicalize(at.trim()).unwrap(), fs::canonicalize(host.file("first")).unwrap());
    let tools = fs::read_to_string(host.file("first/tools.log")).unwrap();
    assert_eq!(
        tools.trim(),
        format!("modhost {}", env!("CARGO_PKG_VERSION")),
        "`modhost` in PATH is another one than the one that builds"
    );

    for number in [2, 3] {
        host.save("first/source", variant("demo_app", number));
        host.serves("First", &variant("demo_app", number)).await;
        // Changes are processed in order: when the second module is built, every file left behind by the first build
        // has been examined.
        host.save("second/source", variant("demo_app", number));
        host.serves("Second", &variant("demo_app", number)).await;
        assert_eq!(builds(&host, "First"), usize::from(number), "{}", host.log());
    }
    assert_eq!(builds(&host, "Second"), 3);
}

#[tokio::test]
async fn reports_a_missing_folder() {
    let folder = tempfile::tempdir().unwrap();
    lay_out(folder.path(), "second");
    let host = settings().start_in(folder).await;
    let line = host.logged(&["cannot build module", "module=First"]).await;
    assert!(line.contains("there is no folder") && line.contains("set `folder` in modules.toml"), "{line}");
    host.serves("Second", &variant("demo_app", 1)).await;
}
