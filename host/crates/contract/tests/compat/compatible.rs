//! Compatible components, and the information about them.

use modhost_contract::compat::{self, Kind, Provider};

use crate::make::{Contract, HANDLE, wat};

#[test]
fn accepts_the_whole_contract() {
    let component_info = compat::examine(&Contract::read().build(), compat::MAX_SIZE).expect("a valid component");
    component_info.check_compatibility().expect("compatible");
    assert_eq!(component_info.world.map(|version| version.to_string()).as_deref(), Some("0.1.0"));
    let capabilities: Vec<_> = component_info
        .imports
        .iter()
        .filter(|import| !import.functions.is_empty())
        .map(|import| import.name.as_str())
        .collect();
    assert_eq!(
        capabilities,
        [
            "modhost:module/message-log@0.1.0",
            "modhost:module/messages@0.1.0",
            "modhost:module/search@0.1.0",
            "modhost:module/completion@0.1.0",
            "wasi:logging/logging@0.1.0-draft",
            "wasi:config/store@0.2.0-rc.1",
            "wasi:keyvalue/store@0.2.0-draft2",
            "wasi:keyvalue/atomics@0.2.0-draft2",
            "wasi:keyvalue/batch@0.2.0-draft2",
        ]
    );
    assert!(
        component_info.imports.iter().all(|import| import.provider == Provider::World),
        "{:?}",
        component_info.imports
    );
    let log = component_info
        .imports
        .iter()
        .find(|import| import.name == "modhost:module/message-log@0.1.0")
        .expect("message-log");
    assert_eq!(log.functions, ["entry.create", "entry.update", "entry.id"]);
    assert_eq!(
        component_info.exports.iter().map(|export| (&*export.name, export.kind)).collect::<Vec<_>>(),
        [("handle", Kind::Function)]
    );
}

#[test]
fn accepts_a_component_that_imports_only_types() {
    let bytes = Contract::read().world(HANDLE).build();
    compat::examine(&bytes, compat::MAX_SIZE).expect("a valid component").check_compatibility().expect("compatible");
}

#[test]
fn accepts_another_patch_version() {
    let component_info =
        compat::examine(&Contract::read().version("0.1.7").build(), compat::MAX_SIZE).expect("a valid component");
    component_info.check_compatibility().expect("compatible");
    assert_eq!(component_info.world.map(|version| version.to_string()).as_deref(), Some("0.1.7"));
}

#[test]
fn ignores_names_of_parameters_and_types() {
    let contract = Contract::read()
        .with("search.wit", "search: func(query: query)", "search: func(wanted: query)")
        .with("search.wit", "record query {", "record question {")
        .with("search.wit", "(wanted: query)", "(wanted: question)");
    compat::examine(&contract.build(), compat::MAX_SIZE)
        .expect("a valid component")
        .check_compatibility()
        .expect("compatible");
}

#[test]
fn ignores_unused_types() {
    let contract = Contract::read().with("types.wit", "enum role {", "enum mood { merry }\n  enum role {");
    compat::examine(&contract.build(), compat::MAX_SIZE)
        .expect("a valid component")
        .check_compatibility()
        .expect("compatible");
}

#[test]
fn ignores_additional_exports() {
    let contract = Contract::read().world(&format!("{HANDLE} export describe: func() -> string;"));
    compat::examine(&contract.build(), compat::MAX_SIZE)
        .expect("a valid component")
        .check_compatibility()
        .expect("compatible");
}

#[test]
fn accepts_linked_wasi_0_2_interfaces() {
    let contract = Contract::read()
        .world(&format!("import wasi:cli/stdout@0.2.3; import wasi:clocks/wall-clock@0.2.12; {HANDLE}"))
        .dependency("package wasi:cli@0.2.3; interface stdout { get-stdout: func() -> u32; }")
        .dependency("package wasi:clocks@0.2.12; interface wall-clock { now: func() -> u64; }");
    let component_info = compat::examine(&contract.build(), compat::MAX_SIZE).expect("a valid component");
    component_info.check_compatibility().expect("compatible");
    let wasi: Vec<_> = component_info
        .imports
        .iter()
        .filter(|import| import.provider == Provider::Wasi)
        .map(|import| &*import.name)
        .collect();
    assert_eq!(wasi, ["wasi:cli/stdout@0.2.3", "wasi:clocks/wall-clock@0.2.12"]);
}

#[test]
fn reports_memory_and_producers() {
    let text = r#"(component
        (core module (memory 3)
            (@producers (language "Rust" "") (processed-by "rustc" "1.95.0")))
        (component (core module (memory 1 2) (@producers (sdk "a\1b[31m" "7"))))
        (core module (import "" "m" (memory 9))))"#;
    let bytes = wat(text);
    let component_info = compat::examine(&bytes, compat::MAX_SIZE).expect("a valid component");
    assert_eq!(component_info.minimum_memory, 4 * 65536, "three pages and one page; imported memories don't count");
    assert_eq!(component_info.size, bytes.len() as u64);
    assert_eq!(component_info.world, None);
    let strings = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>();
    assert_eq!(strings(&component_info.producers.languages), ["Rust"]);
    assert_eq!(
        strings(&component_info.producers.tools),
        ["a\u{fffd}[31m 7", "rustc 1.95.0"],
        "escape sequences are replaced"
    );
}
