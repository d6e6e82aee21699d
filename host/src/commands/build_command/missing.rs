//! Finds the missing tool after a failed build, and how to install it. A shell only reports "not found".

use std::fs;
use std::path::Path;

use crate::commands::shell_word;

/// Programs that builds call, and how to install each.
const TOOLS: [(&str, &str); 12] = [
    ("modhost", "it is this program; add its folder to PATH"),
    ("cargo", "install Rust from https://rustup.rs"),
    ("go", "install Go 1.26 or newer from https://go.dev/dl"),
    ("node", "install Node 20 or newer from https://nodejs.org"),
    ("npm", "install Node 20 or newer from https://nodejs.org"),
    ("python3", "install Python 3.11 or newer from https://www.python.org"),
    ("python-zig", "install Zig from PyPI: pip install ziglang==0.17.1"),
    ("zig", "install Zig 0.17 or newer from https://ziglang.org/download"),
    ("modhost-componentize", "it is part of the SDKs for Python and JavaScript"),
    ("componentize-py", "install it from PyPI: pip install componentize-py==0.25.1"),
    ("tsc", "install TypeScript: npm install --save-dev typescript"),
    ("esbuild", "install it from npm: npm install --save-dev esbuild"),
];

/// Exit codes of a shell: program not found, program cannot be started.
const NOT_FOUND_CODES: [i32; 2] = [127, 126];

/// Returns what is missing and how to install it, if that is why a build failed. `is_installed` looks up a program.
pub(super) fn advice(
    code: Option<i32>,
    text: &str,
    folder: &Path,
    is_installed: impl Fn(&str) -> bool,
) -> Option<String> {
    let script = script_text(text, folder);
    let is_npm = position_of(text, "npm").is_some() || position_of(text, "npx").is_some();
    // A globally installed compiler runs without the packages, and fails with an unrelated error.
    if is_npm && is_installed("npm") && has_uninstalled_packages(folder) {
        let install = commands_in(folder, &install_commands(folder, "tsc")?);
        return Some(format!("the packages in package.json are not installed; to install them, run once:\n{install}"));
    }
    code.filter(|code| NOT_FOUND_CODES.contains(code))?;
    // A script ends at the first missing program.
    let missing = TOOLS.iter().filter(|(program, _)| !is_installed(program));
    let (_, (program, source)) =
        missing.filter_map(|tool| Some((position_of(&script, tool.0)?, tool))).min_by_key(|(position, _)| *position)?;
    Some(match install_commands(folder, program) {
        Some(commands) => {
            let install = commands_in(folder, &commands);
            format!("`{program}` is not installed: {source}; or run once for {}:\n{install}", folder.display())
        }
        None => format!("`{program}` is not installed: {source}"),
    })
}

/// Formats commands that run in a folder, to be pasted into the shell that called modhost.
fn commands_in(folder: &Path, commands: &[String]) -> String {
    let commands = commands.iter().map(|command| format!("  {command}"));
    if folder == Path::new(".") {
        return commands.collect::<Vec<_>>().join("\n");
    }
    let enter = format!("  cd {}", shell_word(&folder.to_string_lossy()));
    std::iter::once(enter).chain(commands).chain(["  cd -".to_owned()]).collect::<Vec<_>>().join("\n")
}

/// Returns whether package.json has dependencies and Node finds no `node_modules`.
fn has_uninstalled_packages(folder: &Path) -> bool {
    let Some(package) = read_package(folder) else { return false };
    let has_dependencies =
        ["dependencies", "devDependencies"].iter().any(|key| package[key].as_object().is_some_and(|it| !it.is_empty()));
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    has_dependencies && !folder.ancestors().any(|above| above.join("node_modules").is_dir())
}

fn read_package(folder: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(folder.join("package.json")).ok()?).ok()
}

/// Returns the command and the text of the scripts that it runs in its folder.
fn script_text(text: &str, folder: &Path) -> String {
    let mut script_text = text.to_owned();
    for script in text.split_whitespace().filter(|word| word.ends_with(".sh")) {
        script_text.push('\n');
        script_text += &fs::read_to_string(folder.join(script)).unwrap_or_default();
    }
    if position_of(text, "npm").is_some() || position_of(text, "npx").is_some() {
        // Only the scripts: package names are not commands.
        let scripts = read_package(folder).map(|package| package["scripts"].clone()).unwrap_or_default();
        for script in scripts.as_object().into_iter().flatten().filter_map(|(_, script)| script.as_str()) {
            script_text.push('\n');
            script_text += script;
        }
    }
    script_text
}

/// Returns the position of the first word of a script that calls a program.
fn position_of(script: &str, program: &str) -> Option<usize> {
    let commands = script.lines().filter(|line| !line.trim_start().starts_with('#'));
    // Includes the characters of shell variables, so that `zig=…` and `$zig` do not match.
    let is_word = |it: char| it.is_alphanumeric() || "-_.=$".contains(it);
    let mut words = commands.flat_map(|line| line.split(|it| !is_word(it)));
    // Matches `${ZIG:-zig}` as well.
    words.position(|word| word.strip_prefix('-').unwrap_or(word) == program)
}

/// Returns the commands that install the pinned packages of a folder, if they include the program.
fn install_commands(folder: &Path, program: &str) -> Option<Vec<String>> {
    let exists = |name: &str| folder.join(name).is_file();
    let runtime = ["modhost", "cargo", "node", "npm", "python3"].contains(&program);
    if !runtime && exists("package.json") {
        return Some(vec![if exists("package-lock.json") { "npm ci".into() } else { "npm install".into() }]);
    }
    if runtime || !exists("requirements.txt") {
        return None;
    }
    let hashes = fs::read_to_string(folder.join("requirements.txt")).is_ok_and(|text| text.contains("--hash="));
    let hashes = if hashes { "--require-hashes " } else { "" };
    let mut commands =
        vec!["python3 -m venv .venv".to_owned(), format!(".venv/bin/pip install {hashes}-r requirements.txt")];
    if exists("sdk/pyproject.toml") {
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
    fn finds_the_missing_tool_in_the_command_and_its_scripts() {
        let pinned = ("requirements.txt", "x==1 \\\n    --hash=sha256:00\n");
        let script = "#!/bin/sh\n# go is fine\nset -e\n${ZIG:-python-zig} cc a.c\nmodhost componentize a.wasm\n";
        let package = r#"{ "scripts": { "build": "tsc && modhost-componentize src/a.ts" } }"#;
        for (files, text, installed, expected) in [
            (vec![], "cargo build --release", vec![], "`cargo` is not installed: install Rust"),
            (
                vec![("build.sh", script), pinned],
                "sh build.sh",
                vec!["go", "python-zig"],
                "`modhost` is not installed: it is this program",
            ),
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
            let found = advice(Some(127), text, folder.path(), |program| installed.contains(&program));
            let found = found.unwrap_or_else(|| panic!("no advice for {text}"));
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn reports_uninstalled_packages_whatever_the_exit_code() {
        let package = r#"{ "scripts": { "build": "tsc" }, "devDependencies": { "typescript": "7.0.2" } }"#;
        let folder = folder(&[("package.json", package), ("package-lock.json", "")]);
        let advice_for = |code| advice(Some(code), "npm run build", folder.path(), |_| true);
        let install = format!("  cd {}\n  npm ci\n  cd -", folder.path().display());
        for code in [2, 127] {
            assert_eq!(
                advice_for(code).unwrap(),
                format!("the packages in package.json are not installed; to install them, run once:\n{install}")
            );
        }
        fs::create_dir(folder.path().join("node_modules")).unwrap();
        assert_eq!(advice_for(2), None);
        assert_eq!(commands_in(Path::new("."), &["npm ci".to_owned()]), "  npm ci");
        assert!(commands_in(Path::new("my module"), &["npm ci".to_owned()]).starts_with("  cd 'my module'\n"));
    }

    #[test]
    fn gives_no_advice_for_other_failures() {
        let folder = folder(&[("build.sh", "zig=${ZIG:-python-zig}\n$zig c++ a.cpp\nunknown b\n")]);
        assert_eq!(advice(Some(127), "sh build.sh", folder.path(), |program| program == "python-zig"), None);
        assert_eq!(advice(Some(1), "cargo build", folder.path(), |_| false), None);
        assert_eq!(advice(Some(127), "cargo build", folder.path(), |_| true), None);
        assert_eq!(advice(Some(127), "make", folder.path(), |_| false), None);
        assert_eq!(advice(None, "cargo build", folder.path(), |_| false), None);
    }
}
