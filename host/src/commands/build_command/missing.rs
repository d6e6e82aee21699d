//! Which tool a failed build lacked, and how to get it: a shell says no more than that a word was not found.

use std::fs;
use std::path::Path;

/// Programs that builds call, and where each comes from.
const TOOLS: [(&str, &str); 12] = [
    ("modhost", "it is this program, which has to lie in a folder of PATH under that name"),
    ("cargo", "it comes with Rust, from https://rustup.rs"),
    ("go", "it comes with Go (1.26 or newer), from https://go.dev/dl"),
    ("node", "it comes with Node (20 or newer), from https://nodejs.org"),
    ("npm", "it comes with Node (20 or newer), from https://nodejs.org"),
    ("python3", "it comes with Python (3.11 or newer), from https://www.python.org"),
    ("python-zig", "it comes with Zig, from PyPI: pip install ziglang==0.17.1"),
    ("zig", "it comes with Zig (0.17 or newer), from https://ziglang.org/download"),
    ("modhost-componentize", "it comes with the SDK for Python and that for JavaScript"),
    ("componentize-py", "it comes from PyPI: pip install componentize-py==0.25.1"),
    ("tsc", "it comes with TypeScript: npm install --save-dev typescript"),
    ("esbuild", "it comes from npm: npm install --save-dev esbuild"),
];

/// What a shell exits with when there is no such program, and what it exits with when a program can't be started.
const NOT_FOUND: [i32; 2] = [127, 126];

/// Says which tool is missing, and what to do, if that is why a build failed. `is_there` tells whether a program is found.
pub(super) fn advice(code: Option<i32>, text: &str, folder: &Path, is_there: impl Fn(&str) -> bool) -> Option<String> {
    code.filter(|code| NOT_FOUND.contains(code))?;
    let called = called(text, folder);
    let (program, from) = TOOLS.iter().find(|(program, _)| is_named(&called, program) && !is_there(program))?;
    let way = match installs(folder, program) {
        Some(commands) => format!("; or, once, in {}:\n{commands}", folder.display()),
        None => String::new(),
    };
    Some(format!("`{program}` is not installed: {from}{way}"))
}

/// The command, and what the scripts say that it runs in its folder.
fn called(text: &str, folder: &Path) -> String {
    let mut called = text.to_owned();
    let scripts = text.split_whitespace().filter(|word| word.ends_with(".sh"));
    let package = (is_named(text, "npm") || is_named(text, "npx")).then_some("package.json");
    for script in scripts.chain(package) {
        called.push('\n');
        called += &fs::read_to_string(folder.join(script)).unwrap_or_default();
    }
    called
}

/// Whether a program is among the words of a script.
fn is_named(script: &str, program: &str) -> bool {
    let commands = script.lines().filter(|line| !line.trim_start().starts_with('#'));
    // With the marks of shell variables, so that `zig=…` and `$zig` are other words.
    let part = |it: char| it.is_alphanumeric() || "-_.=$".contains(it);
    let mut words = commands.flat_map(|line| line.split(|it| !part(it)));
    // `${ZIG:-zig}` names it, too.
    words.any(|word| word.strip_prefix('-').unwrap_or(word) == program)
}

/// The commands that install what a folder pins, if the tool is among that.
fn installs(folder: &Path, program: &str) -> Option<String> {
    let there = |name: &str| folder.join(name).is_file();
    let runtime = ["modhost", "cargo", "node", "npm", "python3"].contains(&program);
    if !runtime && there("package.json") {
        return Some(if there("package-lock.json") { "  npm ci".into() } else { "  npm install".into() });
    }
    if runtime || !there("requirements.txt") {
        return None;
    }
    let hashes = fs::read_to_string(folder.join("requirements.txt")).is_ok_and(|text| text.contains("--hash="));
    let hashes = if hashes { "--require-hashes " } else { "" };
    let mut commands = format!("  python3 -m venv .venv\n  .venv/bin/pip install {hashes}-r requirements.txt");
    if there("sdk/pyproject.toml") {
        commands += "\n  .venv/bin/pip install --no-deps --no-build-isolation ./sdk";
    }
    Some(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_missing_tool_is_found_in_the_command_and_its_scripts() {
        let pinned = ("requirements.txt", "x==1 \\\n    --hash=sha256:00\n");
        let script = "#!/bin/sh\n# go is fine\nset -e\n${ZIG:-python-zig} cc a.c\nmodhost componentize a.wasm\n";
        let package = r#"{ "scripts": { "build": "tsc && modhost-componentize src/a.ts" } }"#;
        for (files, text, there, said) in [
            (vec![], "cargo build --release", vec![], "`cargo` is not installed: it comes with Rust"),
            (
                vec![("build.sh", script), pinned],
                "sh build.sh",
                vec!["go"],
                "`modhost` is not installed: it is this program",
            ),
            (vec![("build.sh", script), pinned], "sh build.sh", vec!["go", "modhost"], "`python-zig` is not installed"),
            (
                vec![("build.sh", script), pinned],
                "sh build.sh",
                vec!["modhost"],
                "pip install --require-hashes -r requirements.txt",
            ),
            (vec![pinned, ("sdk/pyproject.toml", "")], "modhost-componentize a.py", vec![], "-isolation ./sdk"),
            (vec![("package.json", package), ("package-lock.json", "")], "npm run build", vec!["npm"], "  npm ci"),
            (vec![("package.json", package)], "npm run build", vec![], "`npm` is not installed"),
        ] {
            let folder = folder(&files);
            let found = advice(Some(127), text, folder.path(), |program| there.contains(&program));
            let found = found.unwrap_or_else(|| panic!("nothing said of {text}"));
            assert!(found.contains(said), "{found}");
        }
    }

    #[test]
    fn other_failures_are_left_to_the_tools() {
        let folder = folder(&[("build.sh", "zig=${ZIG:-python-zig}\n$zig c++ a.cpp\nunknown b\n")]);
        assert_eq!(advice(Some(127), "sh build.sh", folder.path(), |program| program == "python-zig"), None);
        assert_eq!(advice(Some(1), "cargo build", folder.path(), |_| false), None);
        assert_eq!(advice(Some(127), "cargo build", folder.path(), |_| true), None);
        assert_eq!(advice(Some(127), "make", folder.path(), |_| false), None);
        assert_eq!(advice(None, "cargo build", folder.path(), |_| false), None);
    }
}
