//! The measured components, built once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Builds the benchmark's guest and the assistant sample; returns the folder of their components.
pub fn build() -> anyhow::Result<PathBuf> {
    build_packages(&["bench-guest", "assistant"])
}

/// Builds these packages; returns the folder of their components.
pub fn build_packages(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in a workspace")?;
    let target = root.join("target/guests");
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--quiet"])
        .args(packages.iter().map(|package| format!("-p={package}")))
        .args(["--profile", "guest", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .status()?;
    ensure!(status.success(), "the guests can't be built; is the target there? rustup target add wasm32-wasip2");
    Ok(target.join("wasm32-wasip2/guest"))
}
