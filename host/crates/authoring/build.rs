//! Embeds the files that `modhost new` writes, the templates and the SDKs, into the program as lists.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The lists: the name of each, its folder from the top of the repository, and the parts of it that are only for
/// development of the SDK or template itself.
const LISTS: [(&str, &str, &[&str]); 6] = [
    ("TEMPLATES", "templates", &["README.md"]),
    ("RUST", "sdk-guest/rust", &[]),
    ("PYTHON", "sdk-guest/python", &["tests"]),
    ("JAVASCRIPT", "sdk-guest/js", &["test", "tsconfig.json", "package-lock.json"]),
    ("GO", "sdk-guest/go", &[]),
    ("C", "sdk-guest/c", &[]),
];

/// Files and folders that tools create. `wit` is where an SDK's own tools expect the contract, which the program embeds
/// anyway.
const GENERATED: [&str; 7] = ["target", "node_modules", "__pycache__", "build", "dist", "bindings", "wit"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let top = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../..");
    let mut text = String::new();
    for (name, folder, private) in LISTS {
        let folder = top.join(folder);
        let mut files = Vec::new();
        gather(&folder, &mut files)?;
        files.retain(|file| {
            let is_private = file.strip_prefix(&folder).is_ok_and(|it| private.iter().any(|name| it.starts_with(name)));
            // Go's tests are next to the code they test.
            !is_private && !file.to_string_lossy().ends_with("_test.go")
        });
        writeln!(text, "pub(super) const {name}: &[(&str, &[u8])] = &[")?;
        for file in &files {
            println!("cargo::rerun-if-changed={}", file.display());
            let path: Vec<_> = file.strip_prefix(&folder)?.iter().map(|part| part.to_string_lossy()).collect();
            writeln!(text, "    ({:?}, include_bytes!({:?})),", path.join("/"), fs::canonicalize(file)?)?;
        }
        writeln!(text, "];")?;
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("authoring.rs"), text)?;
    Ok(())
}

/// Adds the files below a folder in order of their names, without those that tools created.
fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    let mut entries =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    let all = entries.len();
    entries.retain(|path| !is_generated(path));
    // Cargo watches a folder recursively. A folder with tool output would trigger a rebuild whenever a tool runs.
    if entries.len() == all {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    for path in entries {
        if path.is_dir() {
            gather(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn is_generated(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.is_dir();
    let generated = if path.is_symlink() || folder { GENERATED.contains(&&*name) } else { name.ends_with(".wasm") };
    // Go's bindings are in version control.
    let is_tracked = path.ends_with("internal/bindings") || path.ends_with("internal/bindings/wit");
    (generated && !is_tracked) || (folder && (name.starts_with('.') || name.ends_with(".egg-info")))
}
