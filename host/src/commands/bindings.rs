//! `bindings`: the world of modules in a language, for compilers that make no bindings themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::output;
use modhost_authoring::bindings::{self, Language};
use modhost_core::plural::counted;

/// What `bindings` can be told.
#[derive(Debug, clap::Args)]
pub struct BindingsArgs {
    /// The language; `wit` writes the WIT itself, for tools that read it
    #[arg(value_enum, value_name = "LANGUAGE")]
    language: BindingsTarget,

    /// The folder to write to; it is made if it isn't there
    #[arg(long, short, value_name = "DIR", default_value = "bindings")]
    out: PathBuf,

    /// Go: the import path of that folder [default: what the go.mod above it says]
    #[arg(long, value_name = "PATH")]
    package: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum BindingsTarget {
    /// For C, C++ and Zig
    C,
    Go,
    Wit,
}

/// Writes the bindings, and says what there is now.
pub fn run(args: &BindingsArgs) -> anyhow::Result<ExitCode> {
    if args.package.is_some() && args.language != BindingsTarget::Go {
        bail!("--package is the import path of a Go package; no other language has one");
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
    let files = bindings::generate(&language).context("the bindings can't be made")?;
    let written = bindings::write(&files, &args.out)
        .map_err(|(path, error)| anyhow::anyhow!("can't write {}: {error}", path.display()))?;
    output::println!(
        "{} in {}, {}",
        counted(files.len(), "file", "files"),
        args.out.display(),
        if written == 0 { "all as they were".to_owned() } else { format!("{written} of them new or changed") }
    );
    Ok(ExitCode::SUCCESS)
}

/// The import path of a folder, as the go.mod in it or above it has it.
fn import_path(folder: &Path) -> anyhow::Result<String> {
    let folder = std::path::absolute(folder).with_context(|| format!("{} is no folder", folder.display()))?;
    for above in folder.ancestors() {
        let file = above.join("go.mod");
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let Some(module) = module_path(&text) else { bail!("{} has no line `module …`", file.display()) };
        let below = folder.strip_prefix(above).unwrap_or(Path::new(""));
        let parts = below.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        return Ok(std::iter::once(module.to_owned()).chain(parts).collect::<Vec<_>>().join("/"));
    }
    bail!(
        "there is no go.mod in {} or above it: make one with `go mod init NAME`, or say the folder's import path with \
         --package",
        folder.display()
    )
}

/// What a go.mod calls its module.
fn module_path(text: &str) -> Option<&str> {
    let mut words = text.lines().find_map(|line| line.trim_start().strip_prefix("module "))?.split_whitespace();
    words.next().map(|path| path.trim_matches('"')).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_mod_says_what_its_module_is_called() {
        for (text, path) in [
            ("module example.com/a\n\ngo 1.25\n", Some("example.com/a")),
            ("// Of mine.\n\nmodule \"b\" // quoted\n", Some("b")),
            ("go 1.25\n", None),
        ] {
            assert_eq!(module_path(text), path, "{text:?}");
        }
    }
}
