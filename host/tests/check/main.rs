//! Tests of the command `check`, as a user or a script runs it.

#[path = "../../crates/contract/tests/compat/make.rs"]
mod make;

use std::path::Path;
use std::process::{Command, Output};

use wasmparser::{Parser, Payload};

use make::{Contract, HANDLE, wat};

fn check(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_modhost"))
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("modhost runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The output and exit code of `check` for a file with this content.
fn checked(name: &str, content: &[u8], arguments: &[&str]) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(name), content).expect("a file");
    let output = check(folder.path(), &[&[name], arguments].concat());
    assert_eq!(text(&output.stderr), "");
    (text(&output.stdout), output.status.code())
}

#[test]
fn describes_a_compatible_component() {
    let bytes =
        Contract::read().world(&format!("import search; import wasi:config/store@0.2.0-rc.1; {HANDLE}")).build();
    let (printed, code) = checked("my \"module\".wasm", &bytes, &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("valid: my \"module\".wasm implements modhost:module/module@0.1.0\n"), "{printed}");
    assert!(printed.contains("\n  built against modhost:module@0.1.0\n"), "{printed}");
    assert!(
        printed.contains(
            "\nImports from the module world\n  modhost:module/types@0.1.0  types only\n  \
             modhost:module/search@0.1.0  search\n  wasi:config/store@0.2.0-rc.1  get, get-all\n  \
             modhost:module/events@0.1.0  types only\n"
        ),
        "{printed}"
    );
    assert!(!printed.contains("Imports from WASI"), "{printed}");
    assert!(printed.contains("\n  needs         config (settings to read)\n"), "{printed}");
    assert!(printed.contains("\n  compiled      ") && printed.contains("; the host caches it\n"), "{printed}");
    let entry = printed.split_once("[[module]]").expect("an entry for modules.toml").1;
    let entry: toml::Table = toml::from_str(entry).expect("TOML that can be pasted");
    assert_eq!(entry["name"].as_str(), Some("my \"module\""));
    assert_eq!(entry["component"].as_str(), Some("my \"module\".wasm"));
    assert_eq!(entry["events"].as_array().map(Vec::len), Some(1));
    assert!(entry.contains_key("config"), "it reads settings");
    assert!(!entry.contains_key("limits"), "a small component needs no limits");
    assert!(!printed.contains('\u{1b}'), "colored output without a terminal");
}

#[test]
fn describes_an_incompatible_component() {
    let bytes = Contract::read()
        .world(&format!("import wasi:nn/graph@0.2.3; {HANDLE}"))
        .dependency("package wasi:nn@0.2.3; interface graph { a: func(); }")
        .build();
    let (printed, code) = checked("a.wasm", &bytes, &[]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.starts_with("incompatible: a.wasm: the component doesn't fit the world modhost:module/module@0.1.0 of this host:\n- it imports `graph` of wasi:nn@0.2.3,"), "{printed}");
    assert!(printed.contains("\nImports that this host does not provide\n  wasi:nn@0.2.3  graph\n"), "{printed}");
    assert!(!printed.contains("[[module]]"), "an incompatible component has no entry: {printed}");
}

#[test]
fn refuses_other_files() {
    let (printed, code) = checked("a.wasm", b"", &[]);
    assert_eq!(
        (printed.as_str(), code),
        ("incompatible: a.wasm: the file is empty: its build failed, or is still writing it\n", Some(1))
    );
}

#[test]
fn json() {
    let (printed, code) = checked("a.wasm", &Contract::read().build(), &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(report["fits"], true);
    assert_eq!(report["misfit"], serde_json::Value::Null);
    assert_eq!(report["component"]["built_against"], "0.1.0");
    assert_eq!(report["component"]["exports"][0]["name"], "handle");
    let keys: Vec<_> = report["component"]["grants"].as_array().expect("grants").iter().map(|it| &it["key"]).collect();
    assert_eq!(keys, ["config", "limits.keyvalue"]);
    assert!(
        report["compiled"]["size"].as_u64() > Some(1000) && report["compiled"]["milliseconds"].is_u64(),
        "{printed}"
    );
    assert_eq!(
        (&report["compiled"]["unpooled"], &report["compile_error"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert!(
        report["component"]["imports"]
            .as_array()
            .is_some_and(|imports| imports.iter().all(|import| import["provider"] == "world"))
    );

    let (printed, code) = checked("a.wasm", &wat("(module)"), &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(code, Some(1));
    assert_eq!(report["fits"], false);
    assert!(
        report["misfit"]
            .as_str()
            .is_some_and(|incompatibility| incompatibility.starts_with("the file is a core module"))
    );
    assert_eq!(report["component"], serde_json::Value::Null);
}

#[test]
fn reports_a_component_too_large_for_the_pool() {
    let mut component = Contract::read().world(HANDLE).build();
    // Five modules with a memory each, and an instance of each; the pool supports four.
    let modules = Parser::new(0).parse_all(&component);
    let modules = modules.filter(|payload| matches!(payload, Ok(Payload::ModuleSection { .. }))).count();
    for number in 0..5 {
        let module = wat("(module (memory 1))");
        component.extend([1, u8::try_from(module.len()).expect("a length of one byte")]);
        component.extend(module);
        component.extend([2, 4, 1, 0, u8::try_from(modules + number).expect("a small number"), 0]);
    }
    let (printed, code) = checked("a.wasm", &component, &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("\n  instances     created on demand, which is slower: "), "{printed}");
    let (printed, _) = checked("a.wasm", &component, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert!(report["compiled"]["unpooled"].as_str().is_some_and(|reason| reason.contains("memories")), "{printed}");
}

#[test]
fn reports_a_component_that_cannot_be_compiled() {
    let mut component = Contract::read().world(HANDLE).build();
    // Function bodies are validated when they are compiled: this one adds without operands.
    let module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x05\x01\x03\0\x6a\x0b";
    component.extend([1, u8::try_from(module.len()).expect("a length of one byte")]);
    component.extend(module);
    let (printed, code) = checked("a.wasm", &component, &[]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.starts_with("cannot serve: a.wasm: it can't be compiled: "), "{printed}");
    assert!(!printed.contains("[[module]]"), "an incompatible component has no entry: {printed}");
}

#[test]
fn suggests_a_memory_limit_for_a_large_module() {
    // Larger than the default limit: 2000 pages are 125 MiB.
    let mut component = Contract::read().world(HANDLE).build();
    let module = wat("(module (memory 2000))");
    component.extend([1, u8::try_from(module.len()).expect("a length of one byte")]); // a section with a core module
    component.extend(module);
    let (printed, code) = checked("a.wasm", &component, &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("\nlimits    = { memory = \"250MiB\" }\n"), "{printed}");
}

#[test]
fn names_the_keyvalue_quota() {
    let bytes = Contract::read().world(&format!("import wasi:keyvalue/atomics@0.2.0-draft2; {HANDLE}")).build();
    let (printed, code) = checked("a.wasm", &bytes, &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("\n  wasi:keyvalue/atomics@0.2.0-draft2  cas.new, cas.current, increment, swap\n"),
        "{printed}"
    );
    let entry = printed.split_once("[[module]]").expect("an entry for modules.toml").1;
    assert!(entry.contains("with keyvalue = 0 the module is not loaded"), "{entry}");
    let entry: toml::Table = toml::from_str(entry).expect("TOML that can be pasted");
    assert_eq!(entry["limits"]["keyvalue"].as_str(), Some("10MiB"));
}

#[test]
fn suggests_http_entries() {
    let world = |interface: &str| {
        let import = format!("import wasi:http/{interface}@0.2.2; {HANDLE}");
        checked("a.wasm", &Contract::read().world(&import).build(), &[])
    };
    let (printed, code) = world("outgoing-handler");
    assert_eq!(code, Some(0), "{printed}");
    let entry = printed.split_once("[[module]]").expect("an entry for modules.toml").1;
    let entry: toml::Table = toml::from_str(entry).expect("TOML that can be pasted");
    assert_eq!(entry["http"].as_array().map(Vec::len), Some(1));
    // A component that imports only the types, as some tools make it, can't send requests and needs no grant.
    let (printed, code) = world("types");
    assert_eq!(code, Some(0), "{printed}");
    assert!(!printed.contains("http      ="), "{printed}");
}

#[test]
fn reports_unreadable_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = check(folder.path(), &["missing.wasm"]);
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stderr);
    assert!(
        printed.contains("error: cannot read missing.wasm: there is no such file\nhelp: build the module first\n"),
        "{printed}"
    );
    let output = check(folder.path(), &["."]);
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stderr);
    assert!(printed.contains("error: cannot read .: it is a folder\nhelp: name the .wasm file in it\n"), "{printed}");
}
