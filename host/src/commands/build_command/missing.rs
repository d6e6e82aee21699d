//! Which tool a failed build lacked, and how to get it: a shell says no more than that a word was not found.

use std::fs;
use std::path::Path;

use crate::commands::shell_word;

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

/// Says what is missing, and what to do, if that is why a build failed. `is_there` tells whether a program is found.
pub(super) fn advice(code: Option<i32>, text: &str, folder: &Path, is_there: impl Fn(&str) -> bool) -> Option<String> {
    let called = called(text, folder);
    let is_npm = place(text, "npm").is_some() || place(text, "npx").is_some();
    // A compiler that lies elsewhere runs without the packages, and says anything but that they are missing.
    if is_npm && is_there("npm") && lacks_packages(folder) {
        let install = in_folder(folder, &installs(folder, "tsc")?);
        return Some(format!("the packages that package.json names are not installed; install them, once:\n{install}"));
    }
    code.filter(|code| NOT_FOUND.contains(code))?;
    // A script ends at the first program it doesn't find.
    let missing = TOOLS.iter().filter(|(program, _)| !is_there(program));
    let (_, (program, from)) =
        missing.filter_map(|tool| Some((place(&called, tool.0)?, tool))).min_by_key(|(place, _)| *place)?;
    Some(match installs(folder, program) {
        Some(commands) => {
            let install = in_folder(folder, &commands);
            format!("`{program}` is not installed: {from}; or, once, in {}:\n{install}", folder.display())
        }
        None => format!("`{program}` is not installed: {from}"),
    })
}

/// Commands that run in a folder, as they can be pasted where modhost was called.
fn in_folder(folder: &Path, commands: &[String]) -> String {
    let commands = commands.iter().map(|command| format!("  {command}"));
    if folder == Path::new(".") {
        return commands.collect::<Vec<_>>().join("\n");
    }
    let enter = format!("  cd {}", shell_word(&folder.to_string_lossy()));
    std::iter::once(enter).chain(commands).chain(["  cd -".to_owned()]).collect::<Vec<_>>().join("\n")
}

/// Whether a package.json names packages, and none of them lies where Node looks for them.
fn lacks_packages(folder: &Path) -> bool {
    let Some(package) = package(folder) else { return false };
    let names_some =
        ["dependencies", "devDependencies"].iter().any(|key| package[key].as_object().is_some_and(|it| !it.is_empty()));
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    names_some && !folder.ancestors().any(|above| above.join("node_modules").is_dir())
}

fn package(folder: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(folder.join("package.json")).ok()?).ok()
}

/// The command, and what the scripts say that it runs in its folder.
fn called(text: &str, folder: &Path) -> String {
    let mut called = text.to_owned();
    for script in text.split_whitespace().filter(|word| word.ends_with(".sh")) {
        called.push('\n');
        called += &fs::read_to_string(folder.join(script)).unwrap_or_default();
    }
    if place(text, "npm").is_some() || place(text, "npx").is_some() {
        // Only what it runs: the names of packages are among its words, too.
        let scripts = package(folder).map(|package| package["scripts"].clone()).unwrap_or_default();
        for script in scripts.as_object().into_iter().flatten().filter_map(|(_, script)| script.as_str()) {
            called.push('\n');
            called += script;
        }
    }
    called
}

/// Where a program is first among the words of a script, counted in words.
fn place(script: &str, program: &str) -> Option<usize> {
    let commands = script.lines().filter(|line| !line.trim_start().starts_with('#'));
    // With the marks of shell variables, so that `zig=…` and `$zig` are other words.
    let part = |it: char| it.is_alphanumeric() || "-_.=$".contains(it);
    let mut words = commands.flat_map(|line| line.split(|it| !part(it)));
    // `${ZIG:-zig}` names it, too.
    words.position(|word| word.strip_prefix('-').unwrap_or(word) == program)
}

/// The commands that install what a folder pins, if the tool is among that.
fn installs(folder: &Path, program: &str) -> Option<Vec<String>> {
    let there = |name: &str| folder.join(name).is_file();
    let runtime = ["modhost", "cargo", "node", "npm", "python3"].contains(&program);
    if !runtime && there("package.json") {
        return Some(vec![if there("package-lock.json") { "npm ci".into() } else { "npm install".into() }]);
    }
    if runtime || !there("requirements.txt") {
        return None;
    }
    let hashes = fs::read_to_string(folder.join("requirements.txt")).is_ok_and(|text| text.contains("--hash="));
    let hashes = if hashes { "--require-hashes " } else { "" };
    let mut commands =
        vec!["python3 -m venv .venv".to_owned(), format!(".venv/bin/pip install {hashes}-r requirements.txt")];
    if there("sdk/pyproject.toml") {
        commands.push(".venv/bin/pip install --no-deps --no-build-isolation ./sdk".to_owned());
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
                vec!["go", "python-zig"],
                "`modhost` is not installed: it is this program",
            ),
            // A script ends at the first that is missing.
            (vec![("build.sh", script), pinned], "sh build.sh", vec!["go"], "`python-zig` is not installed"),
            (
                vec![("build.sh", script), pinned],
                "sh build.sh",
                vec!["modhost"],
                "pip install --require-hashes -r requirements.txt",
            ),
            (vec![pinned, ("sdk/pyproject.toml", "")], "modhost-componentize a.py", vec![], "-isolation ./sdk"),
            (
                vec![("package.json", package), ("package-lock.json", "")],
                "npm run build",
                vec!["npm"],
                "  npm ci\n  cd -",
            ),
            (vec![("package.json", package)], "npm run build", vec!["npm"], "`tsc` is not installed"),
            (vec![("package.json", package)], "npm run build", vec![], "`npm` is not installed"),
        ] {
            let folder = folder(&files);
            let found = advice(Some(127), text, folder.path(), |program| there.contains(&program));
            let found = found.unwrap_or_else(|| panic!("nothing said of {text}"));
            assert!(found.contains(said), "{found}");
        }
    }

    #[test]
    fn packages_that_are_not_installed_are_the_cause_whatever_a_tool_says() {
        let package = r#"{ "scripts": { "build": "tsc" }, "devDependencies": { "typescript": "7.0.2" } }"#;
        let folder = folder(&[("package.json", package), ("package-lock.json", "")]);
        let said = |code| advice(Some(code), "npm run build", folder.path(), |_| true);
        let install = format!("  cd {}\n  npm ci\n  cd -", folder.path().display());
        for code in [2, 127] {
            assert_eq!(
                said(code).unwrap(),
                format!("the packages that package.json names are not installed; install them, once:\n{install}")
            );
        }
        fs::create_dir(folder.path().join("node_modules")).unwrap();
        assert_eq!(said(2), None);
        assert_eq!(in_folder(Path::new("."), &["npm ci".to_owned()]), "  npm ci");
        assert!(in_folder(Path::new("my module"), &["npm ci".to_owned()]).starts_with("  cd 'my module'\n"));
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
