//! The command `check`, as a person or a script runs it.

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

/// What `check` says of a file of this content, and how it exits.
fn checked(name: &str, content: &[u8], arguments: &[&str]) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(name), content).expect("a file");
    let output = check(folder.path(), &[&[name], arguments].concat());
    assert_eq!(text(&output.stderr), "");
    (text(&output.stdout), output.status.code())
}

#[test]
fn a_component_that_fits() {
    let bytes =
        Contract::read().world(&format!("import search; import wasi:config/store@0.2.0-rc.1; {HANDLE}")).build();
    let (said, code) = checked("my \"module\".wasm", &bytes, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("valid: my \"module\".wasm implements modhost:module/module@0.1.0\n"), "{said}");
    assert!(said.contains("\n  built against modhost:module@0.1.0\n"), "{said}");
    assert!(
        said.contains(
            "\nImports from the module world\n  modhost:module/types@0.1.0  types only\n  \
             modhost:module/search@0.1.0  search\n  wasi:config/store@0.2.0-rc.1  get, get-all\n  \
             modhost:module/events@0.1.0  types only\n"
        ),
        "{said}"
    );
    assert!(!said.contains("Imports from WASI"), "{said}");
    assert!(said.contains("\n  needs         config (settings to read)\n"), "{said}");
    assert!(said.contains("\n  compiled      ") && said.contains("; the host caches it\n"), "{said}");
    let entry = said.split_once("[[module]]").expect("an entry for modules.toml").1;
    let entry: toml::Table = toml::from_str(entry).expect("TOML that can be pasted");
    assert_eq!(entry["name"].as_str(), Some("my \"module\""));
    assert_eq!(entry["component"].as_str(), Some("my \"module\".wasm"));
    assert_eq!(entry["events"].as_array().map(Vec::len), Some(1));
    assert!(entry.contains_key("config"), "it reads settings");
    assert!(!entry.contains_key("limits"), "it takes little memory");
    assert!(!said.contains('\u{1b}'), "colours are for terminals");
}

#[test]
fn a_component_that_does_not_fit() {
    let bytes = Contract::read()
        .world(&format!("import wasi:nn/graph@0.2.3; {HANDLE}"))
        .dependency("package wasi:nn@0.2.3; interface graph { a: func(); }")
        .build();
    let (said, code) = checked("a.wasm", &bytes, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("incompatible: a.wasm: the component doesn't fit the world modhost:module/module@0.1.0 of this host:\n- it imports `graph` of wasi:nn@0.2.3,"), "{said}");
    assert!(said.contains("\nImports that this host does not provide\n  wasi:nn@0.2.3  graph\n"), "{said}");
    assert!(!said.contains("[[module]]"), "an entry would not help: {said}");
}

#[test]
fn a_file_that_is_no_component() {
    let (said, code) = checked("a.wasm", b"", &[]);
    assert_eq!(
        (said.as_str(), code),
        ("incompatible: a.wasm: the file is empty: its build failed, or is still writing it\n", Some(1))
    );
}

#[test]
fn json() {
    let (said, code) = checked("a.wasm", &Contract::read().build(), &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(report["fits"], true);
    assert_eq!(report["misfit"], serde_json::Value::Null);
    assert_eq!(report["component"]["built_against"], "0.1.0");
    assert_eq!(report["component"]["exports"][0]["name"], "handle");
    let keys: Vec<_> = report["component"]["grants"].as_array().expect("grants").iter().map(|it| &it["key"]).collect();
    assert_eq!(keys, ["config", "limits.keyvalue"]);
    assert!(report["compiled"]["size"].as_u64() > Some(1000) && report["compiled"]["milliseconds"].is_u64(), "{said}");
    assert_eq!(
        (&report["compiled"]["unpooled"], &report["compile_error"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert!(
        report["component"]["imports"]
            .as_array()
            .is_some_and(|imports| imports.iter().all(|import| import["provider"] == "world"))
    );

    let (said, code) = checked("a.wasm", &wat("(module)"), &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
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
fn a_component_that_does_not_fit_the_pool() {
    let mut component = Contract::read().world(HANDLE).build();
    // Five modules with a memory each, and an instance of each: the pool has room for four.
    let modules = Parser::new(0).parse_all(&component);
    let modules = modules.filter(|payload| matches!(payload, Ok(Payload::ModuleSection { .. }))).count();
    for number in 0..5 {
        let module = wat("(module (memory 1))");
        component.extend([1, u8::try_from(module.len()).expect("a length of one byte")]);
        component.extend(module);
        component.extend([2, 4, 1, 0, u8::try_from(modules + number).expect("a small number"), 0]);
    }
    let (said, code) = checked("a.wasm", &component, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\n  instances     created on demand, which is slower: "), "{said}");
    let (said, _) = checked("a.wasm", &component, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert!(report["compiled"]["unpooled"].as_str().is_some_and(|reason| reason.contains("memories")), "{said}");
}

#[test]
fn a_component_that_fits_and_cannot_be_compiled() {
    let mut component = Contract::read().world(HANDLE).build();
    // The body of a function is looked at when it is compiled: this one adds what isn't there.
    let module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x05\x01\x03\0\x6a\x0b";
    component.extend([1, u8::try_from(module.len()).expect("a length of one byte")]);
    component.extend(module);
    let (said, code) = checked("a.wasm", &component, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("cannot serve: a.wasm: it can't be compiled: "), "{said}");
    assert!(!said.contains("[[module]]"), "an entry would not help: {said}");
}

#[test]
fn a_module_that_begins_large_is_given_a_limit() {
    // The host's default wouldn't hold it: 2000 pages are 125 MiB.
    let mut component = Contract::read().world(HANDLE).build();
    let module = wat("(module (memory 2000))");
    component.extend([1, u8::try_from(module.len()).expect("a length of one byte")]); // a section with a core module
    component.extend(module);
    let (said, code) = checked("a.wasm", &component, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\nlimits    = { memory = \"250MiB\" }\n"), "{said}");
}

#[test]
fn a_module_that_keeps_values_is_told_of_their_limit() {
    let bytes = Contract::read().world(&format!("import wasi:keyvalue/atomics@0.2.0-draft2; {HANDLE}")).build();
    let (said, code) = checked("a.wasm", &bytes, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\n  wasi:keyvalue/atomics@0.2.0-draft2  cas.new, cas.current, increment, swap\n"), "{said}");
    let entry = said.split_once("[[module]]").expect("an entry for modules.toml").1;
    assert!(entry.contains("with keyvalue = 0 the module is not loaded"), "{entry}");
    let entry: toml::Table = toml::from_str(entry).expect("TOML that can be pasted");
    assert_eq!(entry["limits"]["keyvalue"].as_str(), Some("10MiB"));
}

#[test]
fn a_component_that_sends_requests() {
    let world = |interface: &str| {
        let import = format!("import wasi:http/{interface}@0.2.2; {HANDLE}");
        checked("a.wasm", &Contract::read().world(&import).build(), &[])
    };
    let (said, code) = world("outgoing-handler");
    assert_eq!(code, Some(0), "{said}");
    let entry = said.split_once("[[module]]").expect("an entry for modules.toml").1;
    let entry: toml::Table = toml::from_str(entry).expect("TOML that can be pasted");
    assert_eq!(entry["http"].as_array().map(Vec::len), Some(1));
    // The types alone, which some tools bring along, send nothing.
    let (said, code) = world("types");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("http      ="), "{said}");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = check(folder.path(), &["missing.wasm"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("error: cannot read missing.wasm: there is no such file\nhelp: build the module first\n"),
        "{said}"
    );
    let output = check(folder.path(), &["."]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("error: cannot read .: it is a folder\nhelp: name the .wasm file in it\n"), "{said}");
}
