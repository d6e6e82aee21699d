//! Tests of the samples in languages other than Rust, and of the templates: each is built by its own build command and
//! run through the front door.
//!
//! `toolchains` documents where their tools come from, and what happens if they are missing. The other files test
//! modhost's own tools for these languages.

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

/// The Go SDK contains generated bindings, because `go get` runs no generator. They must be the bindings of this host.
#[test]
fn go_sdk_has_current_bindings() {
    use modhost_authoring::bindings::{Language, generate};

    let package = "github.com/modhost/modhost/sdk-guest/go/internal/bindings".to_owned();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk-guest/go/internal/bindings");
    for file in generate(&Language::Go { package }).unwrap() {
        let there = std::fs::read(folder.join(&file.path)).unwrap_or_default();
        assert!(
            there == file.content,
            "{} is outdated; run `modhost bindings go --out sdk-guest/go/internal/bindings`",
            file.path.display()
        );
    }
}

/// SDKs are released with the host: they all have its version, and each published folder has the license.
#[test]
fn sdks_have_the_version_and_license_of_the_host() {
    let sdks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk-guest");
    let read = |path: &str| std::fs::read_to_string(sdks.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("rust/Cargo.toml", format!("\nversion = \"{version}\"\n")),
        ("python/pyproject.toml", format!("\nversion = \"{version}\"\n")),
        ("js/package.json", format!("\n  \"version\": \"{version}\",\n")),
        ("c/modhost.h", format!("\n#define MODHOST_VERSION \"{version}\"\n")),
    ] {
        assert!(read(file).contains(&line), "{file} lacks the line {}", line.trim());
    }
    for language in ["rust", "python", "js", "go"] {
        assert_eq!(read(&format!("{language}/LICENSE")), read("../LICENSE"), "{language}");
    }
}
