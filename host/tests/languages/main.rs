//! The samples in other languages than Rust, and the templates: each built by its own build command, and run through the front
//! door.
//!
//! Where their tools come from, and what happens where they are missing, is told in `toolchains`. Beside them: what modhost
//! itself has for such languages.

mod assistants;
mod calls;
mod commands;
mod dev_builds;
mod faults;
mod folder;
#[allow(dead_code, unused_imports, reason = "shared with tests that use all of it")]
#[path = "../front_door/harness/mod.rs"]
mod harness;
mod new;
#[path = "../support/notice.rs"]
mod notice;
mod progress;
mod reference;
mod sample;
mod templates;
mod toolchains;

/// The bindings that the Go SDK has to carry, as `go get` runs no generator: they are those of this host.
#[test]
fn the_go_sdk_carries_the_bindings_of_this_world() {
    use modhost_authoring::bindings::{Language, generate};

    let package = "github.com/modhost/modhost/sdk-guest/go/internal/bindings".to_owned();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk-guest/go/internal/bindings");
    for file in generate(&Language::Go { package }).unwrap() {
        let there = std::fs::read(folder.join(&file.path)).unwrap_or_default();
        assert!(
            there == file.content,
            "{} isn't what is generated now: `modhost bindings go --out sdk-guest/go/internal/bindings`",
            file.path.display()
        );
    }
}

/// An SDK goes with the host it came from: all have its version, and each folder that is published has the licence.
#[test]
fn the_sdks_have_the_version_of_the_host_and_the_licence() {
    let sdks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk-guest");
    let read = |path: &str| std::fs::read_to_string(sdks.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("rust/Cargo.toml", format!("\nversion = \"{version}\"\n")),
        ("python/pyproject.toml", format!("\nversion = \"{version}\"\n")),
        ("js/package.json", format!("\n  \"version\": \"{version}\",\n")),
        ("c/modhost.h", format!("\n#define MODHOST_VERSION \"{version}\"\n")),
    ] {
        assert!(read(file).contains(&line), "{file} unsupported the line {}", line.trim());
    }
    for language in ["rust", "python", "js", "go"] {
        assert_eq!(read(&format!("{language}/LICENSE")), read("../LICENSE"), "{language}");
    }
}
