//! Components that are refused when they are loaded, and the reasons.

use super::make::{HARMLESS, Parts};
use crate::harness::{Settings, until};

/// A component, the `limits` of its entry, and words of the reason.
struct Incompatibility {
    name: &'static str,
    bytes: Vec<u8>,
    limits: &'static str,
    said: &'static [&'static str],
}

fn incompatibilities() -> Vec<Incompatibility> {
    let text = |text: &str| wat::parse_str(text).unwrap();
    let parts = |fields| Parts { fields, ..HARMLESS }.component();
    let whole = HARMLESS.component();
    let incompatibility = |name, bytes, limits, said| Incompatibility { name, bytes, limits, said };
    vec![
        incompatibility("nothing", Vec::new(), "", &["the file is empty"]),
        incompatibility("a-letter", b"Dear host, please run me.".to_vec(), "", &["not WebAssembly"]),
        incompatibility("a-core-module", text("(module)"), "", &["core module", "component"]),
        incompatibility("half-a-component", whole[..whole.len() / 2].to_vec(), "", &["the file is truncated"]),
        incompatibility("another-world", text("(component)"), "", &["handle"]),
        incompatibility("too-large", vec![0; (64 << 20) + 1], "", &["64"]),
        incompatibility(
            "too-many-types",
            text(&format!("(component {})", "(type (func))".repeat(1_000_001))),
            "",
            &["types"],
        ),
        incompatibility(
            "unknown-import",
            text(r#"(component (import "evil:corp/backdoor@1.0.0" (instance)))"#),
            "",
            &["evil:corp"],
        ),
        incompatibility("ungranted-import", store(), "keyvalue = 0", &["`limits.keyvalue` is 0"]),
        incompatibility(
            "much-memory",
            parts("(memory $other 2000)"),
            "memory = \"16MiB\"",
            &["it can't start within its limits: memory: it asked for 125.5 MiB, `limits.memory` is 16.0 MiB"],
        ),
        incompatibility(
            "long-tables",
            parts("(table 6000 funcref) (table 6000 funcref)"),
            "tables = 10000",
            &["it can't start within its limits: tables: it asked for 120", "`limits.tables` is 10000"],
        ),
        incompatibility("many-instances", whole, "instances = 1", &["instances: it has ", "`limits.instances` is 1"]),
    ]
}

/// A component that uses keyvalue.
fn store() -> Vec<u8> {
    Parts {
        world: "import wasi:keyvalue/store@0.2.0-draft2;",
        imports: r#"(import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))"#,
        handle: "(call $open (i32.const 16) (i32.const 10) (i32.const 64))",
        ..HARMLESS
    }
    .component()
}

#[tokio::test]
async fn refuses_components_that_cannot_run_within_their_limits() {
    let folder = tempfile::tempdir().unwrap();
    let incompatibilities = incompatibilities();
    let mut settings = Settings::new();
    for incompatibility in &incompatibilities {
        let file = format!("{}.wasm", incompatibility.name);
        std::fs::write(folder.path().join(&file), &incompatibility.bytes).unwrap();
        settings =
            settings.module_file(incompatibility.name, &file, &format!("limits = {{ {} }}", incompatibility.limits));
    }
    let host = settings.start_in(folder).await;
    for Incompatibility { name, said, .. } in incompatibilities {
        let refused = until(name, async || {
            let module = host.module(name).await;
            assert!(module["version"].is_null(), "{name} serves");
            module["refused"].as_str().map(str::to_owned)
        })
        .await;
        assert!(said.iter().all(|words| refused.contains(words)), "{name}: {refused}");
        assert!(refused.len() < 4000, "{name}: {} bytes of text", refused.len());
    }
}
