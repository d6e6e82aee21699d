//! Components: the sample modules and the test guest, built once for all tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of a component: `assistant`, `demo_app`, `chat_log`, `document_notes`, `nexus_relay`, `service_status`,
/// `test_guest` or `http_guest`.
pub fn component(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    const ALL: [&str; 8] = [
        "assistant",
        "demo-app",
        "chat-log",
        "document-notes",
        "nexus-relay",
        "service-status",
        "test-guest",
        "http-guest",
    ];
    BUILT.get_or_init(|| build("target/guests", &ALL, &[])).join(format!("{name}.wasm"))
}

/// The test guest, built with function names and line numbers.
pub fn test_guest_with_names() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let kept = [("CARGO_PROFILE_GUEST_STRIP", "none"), ("CARGO_PROFILE_GUEST_DEBUG", "line-tables-only")];
            build("target/guests-with-names", &["test-guest"], &kept)
        })
        .join("test_guest.wasm")
}

/// The bytes of a component with a different custom section: another version with the same behavior.
pub fn variant(name: &str, number: u8) -> Vec<u8> {
    let mut bytes = std::fs::read(component(name)).unwrap();
    // Section 0 is custom: its length, the length of its name, its name, and its content.
    bytes.extend([0, 9, 7]);
    bytes.extend(b"variant");
    bytes.push(number);
    bytes
}

fn build(folder: &str, packages: &[&str], variables: super::Variables) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = root.join(folder);
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--profile", "guest", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .args(packages.iter().map(|package| format!("-p={package}")))
        .envs(variables.iter().copied())
        .status()
        .unwrap();
    assert!(status.success(), "the guests can't be built; is the target there? rustup target add wasm32-wasip2");
    target.join("wasm32-wasip2/guest")
}
