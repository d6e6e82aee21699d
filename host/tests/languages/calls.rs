//! A module that makes calls the samples don't (answers in pieces, HTTP requests), in each language whose SDK has them: all of
//! them keep the same tests.

use std::path::Path;

use super::sample::{is_there, path};
use super::templates::{modhost, succeeds};

macro_rules! modules {
    ($($language:ident: $module:literal needs $tool:literal;)*) => {
        $(#[test]
        fn $language() {
            super::calls::keeps_the_tests($module, $tool);
        })*
    };
}

modules! {
    python: "Python" needs "modhost-componentize";
    javascript: "JavaScript" needs "npm";
    go: "Go" needs "go";
}

fn keeps_the_tests(module: &str, tool: &str) {
    if !is_there(&format!("the module that makes such calls, in {module},"), tool) {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/languages/calls");
    // Go's build calls this very modhost.
    let own = Path::new(env!("CARGO_BIN_EXE_modhost")).parent().unwrap().to_owned();
    let path = std::env::join_paths(path().into_iter().chain([own])).unwrap();
    succeeds(modhost(&folder, &["build", module]).env("PATH", path));
    let tested = succeeds(modhost(&folder, &["test", module, "--no-build"]));
    assert!(tested.contains("7 passed, 0 failed"), "{tested}");
}
