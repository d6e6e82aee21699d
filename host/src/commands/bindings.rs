//! `modhost bindings`: generates bindings of the module world, for compilers that generate none themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::diagnostics::error_with_help;
use super::help::examples;
use super::output;
use modhost_authoring::bindings::{self, Language};
use modhost_core::plural::counted;

/// Arguments of `modhost bindings`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = examples!(
    "modhost bindings c"
    "modhost bindings go --out internal/bindings"
    "modhost bindings wit --out wit"
))]
pub struct BindingsArgs {
    /// Language; `wit` writes the WIT package itself, for other tools
    #[arg(value_enum, value_name = "LANGUAGE")]
    language: BindingsTarget,

    /// Folder to write to; it is created if necessary
    #[arg(long, short, value_name = "DIR", default_value = "bindings")]
    out: PathBuf,

    /// Go: import path of the folder [default: derived from go.mod in the folder or above it]
    #[arg(long, value_name = "PATH")]
    package: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum BindingsTarget {
    /// C, for C, C++ and Zig
    C,
    /// Go
    Go,
    /// WIT
    Wit,
}

/// Writes the bindings and prints the number of files.
pub fn run(args: &BindingsArgs) -> anyhow::Result<ExitCode> {
    if args.package.is_some() && args.language != BindingsTarget::Go {
        bail!("--package is only allowed with the language go: it is the import path of a Go package");
    }
    let language = match args.language {
        BindingsTarget::C => Language::C,
        BindingsTarget::Wit => Language::Wit,
        BindingsTarget::Go => Language::Go {
            package: match &args.package {
                Some(package) => package.clone(),
                None => import_path(&args.out)?,
            },
        },
    };
    let files = bindings::generate(&language).context("cannot generate the bindings")?;
    let written = bindings::write(&files, &args.out)
        .map_err(|(path, error)| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    let changes = if written == 0 { "unchanged".to_owned() } else { format!("{written} new or changed") };
    output::println!("{}: {}, {changes}", args.out.display(), counted(files.len(), "file", "files"));
    Ok(ExitCode::SUCCESS)
}

/// Returns the import path of a folder, from the go.mod in it or above it.
fn import_path(folder: &Path) -> anyhow::Result<String> {
    let folder = std::path::absolute(folder).with_context(|| format!("{} is not a folder", folder.display()))?;
    for above in folder.ancestors() {
        let file = above.join("go.mod");
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let Some(module) = module_path(&text) else { bail!("{} contains no line `module …`", file.display()) };
        let below = folder.strip_prefix(above).unwrap_or(Path::new(""));
        let parts = below.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        return Ok(std::iter::once(module.to_owned()).chain(parts).collect::<Vec<_>>().join("/"));
    }
    Err(error_with_help(
        format!("there is no go.mod in {} or above it", folder.display()),
        "create one with `go mod init NAME`, or pass the folder's import path with --package",
    ))
}

/// Returns the module path in a go.mod.
fn module_path(text: &str) -> Option<&str> {
    let mut words = text.lines().find_map(|line| line.trim_start().strip_prefix("module "))?.split_whitespace();
    words.next().map(|path| path.trim_matches('"')).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_module_path_of_a_go_mod() {
        for (text, path) in [
            ("module example.com/a\n\ngo 1.25\n", Some("example.com/a")),
            ("// A comment.\n\nmodule \"b\" // quoted\n", Some("b")),
            ("go 1.25\n", None),
        ] {
            assert_eq!(module_path(text), path, "{text:?}");
        }
    }
}
