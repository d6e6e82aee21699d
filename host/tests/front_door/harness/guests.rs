//! Components: the shipped modules and the test guest, built once for all tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The file of a component: `assistant`, `demo_app`, `chat_log`, `document_notes`, `nexus_relay` or `test_guest`.
pub fn component(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).join(format!("{name}.wasm"))
}

/// The bytes of a component that differ from it in a custom section only: another version that does the same.
pub fn variant(name: &str, number: u8) -> Vec<u8> {
    let mut bytes = std::fs::read(component(name)).unwrap();
    // Section 0 is custom: its length, the length of its name, its name, and what it holds.
    bytes.extend([0, 9, 7]);
    bytes.extend(b"variant");
    bytes.push(number);
    bytes
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = root.join("target/guests");
    let packages = ["assistant", "demo-app", "chat-log", "document-notes", "nexus-relay", "test-guest"]
        .map(|package| format!("-p={package}"));
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--profile", "guest", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .args(packages)
        .status()
        .unwrap();
    assert!(status.success(), "the guests can't be built; is the target there? rustup target add wasm32-wasip2");
    target.join("wasm32-wasip2/guest")
}
