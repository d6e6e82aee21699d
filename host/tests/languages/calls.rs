//! Tests of calls that the samples don't make (streams, HTTP requests), in each language whose SDK has them. All
//! languages share the same test files.

use std::path::Path;

use super::templates::{modhost, succeeds};
use super::toolchains::{self, Toolchain};

macro_rules! modules {
    ($($language:ident: $module:literal needs $toolchain:ident;)*) => {
        $(#[test]
        fn $language() {
            super::calls::passes_the_tests($module, Toolchain::$toolchain);
        })*
    };
}

modules! {
    python: "Python" needs Python;
    javascript: "JavaScript" needs JavaScript;
    go: "Go" needs Go;
}

fn passes_the_tests(module: &str, toolchain: Toolchain) {
    let what = format!("the module with streams and requests in {module}");
    let Some(mut tools) = toolchains::find(toolchain, &what) else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/languages/calls");
    // Go's build runs this modhost.
    tools.push(Path::new(env!("CARGO_BIN_EXE_modhost")).parent().unwrap().to_owned());
    succeeds(modhost(&folder, &["build", module], &tools));
    let tested = succeeds(modhost(&folder, &["test", module, "--no-build"], &tools));
    assert!(tested.contains("7 passed, 0 failed"), "{tested}");
}
