//! `check`: does a component fit, what is it made of, what would it need in `modules.toml`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use bytesize::ByteSize;
use serde::Serialize;

use crate::config::ModuleLimits;
use crate::engine::fit::{self, Anatomy, Export, Import, Kind, Misfit, Producers, Provider};

/// What `check` can be told.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The component: a .wasm file built for wasm32-wasip2 or made with `wasm-tools component new`
    #[arg(value_name = "COMPONENT")]
    pub component: PathBuf,

    /// Print JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// What was found: what `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether it can be a module of this host.
    fits: bool,
    /// Why not.
    misfit: Option<String>,
    /// The world this host serves.
    world: String,
    /// What it is made of, if it is a component.
    component: Option<Contents<'a>>,
}

#[derive(Serialize)]
struct Contents<'a> {
    /// The version of the contract it was built against.
    built_against: Option<String>,
    /// In bytes.
    size: u64,
    /// In bytes.
    minimum_memory: u64,
    producers: &'a Producers,
    imports: &'a [Import],
    exports: &'a [Export],
}

/// The events a module is for unless someone says otherwise.
const USUAL_EVENT: &str = "unique.chat.external-module.chosen";
/// What a module may begin with, in bytes, and still have as much again under the limit it gets without an entry.
const ORDINARY_MEMORY: u64 = 64 << 20;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const HEADING: Style = Style::new().bold();
const ASIDE: Style = Style::new().dimmed();

/// Checks the component and prints what was found: success if it fits, failure if it doesn't.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let bytes = read(&args.component)?;
    let examined = fit::examine(&bytes, fit::MAX_SIZE);
    let (anatomy, misfit) = match &examined {
        Ok(anatomy) => (Some(anatomy), anatomy.fit().err()),
        Err(misfit) => (None, Some(misfit.clone())),
    };
    let mut out = anstream::stdout().lock();
    let printed = match args.json {
        true => print_json(&mut out, anatomy, misfit.as_ref()),
        false => print(&mut out, &args.component, anatomy, misfit.as_ref()),
    };
    match printed {
        // Whoever reads has had enough (`check … | head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed.context("can't print what was found")?,
    }
    Ok(if misfit.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads the file, but no more of it than a component may have and the byte that makes it too large.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(fit::MAX_SIZE + 1).read_to_end(&mut bytes))
        .map_err(|error| anyhow::anyhow!("can't read {}: {}", path.display(), trouble(&error)))?;
    Ok(bytes)
}

fn trouble(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; has it been built?".to_owned(),
        io::ErrorKind::PermissionDenied => "you may not read it; `ls -l` shows whose it is".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder; give the .wasm file in it".to_owned(),
        _ => error.to_string(),
    }
}

fn print_json(out: &mut impl Write, anatomy: Option<&Anatomy>, misfit: Option<&Misfit>) -> io::Result<()> {
    let report = Report {
        fits: misfit.is_none(),
        misfit: misfit.map(ToString::to_string),
        world: fit::world(),
        component: anatomy.map(|anatomy| Contents {
            built_against: anatomy.world.as_ref().map(ToString::to_string),
            size: anatomy.size,
            minimum_memory: anatomy.minimum_memory,
            producers: &anatomy.producers,
            imports: &anatomy.imports,
            exports: &anatomy.exports,
        }),
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)
}

fn print(out: &mut impl Write, path: &Path, anatomy: Option<&Anatomy>, misfit: Option<&Misfit>) -> io::Result<()> {
    match misfit {
        None => {
            writeln!(out, "{GOOD}fits{GOOD:#}: {} can be a module of this host ({})", path.display(), fit::world())?
        }
        Some(misfit) => writeln!(out, "{BAD}doesn't fit{BAD:#}: {}: {misfit}", path.display())?,
    }
    let Some(anatomy) = anatomy else { return Ok(()) };
    print_facts(out, anatomy)?;
    print_imports(out, anatomy)?;
    match misfit {
        None => print_entry(out, path, anatomy),
        Some(_) => Ok(()),
    }
}

fn print_facts(out: &mut impl Write, anatomy: &Anatomy) -> io::Result<()> {
    let size = |bytes| ByteSize::b(bytes).display().iec();
    let mut fact = |name: &str, value: String| match value.is_empty() {
        true => Ok(()),
        false => writeln!(out, "  {ASIDE}{name:<14}{ASIDE:#}{value}"),
    };
    fact(
        "built against",
        anatomy.world.as_ref().map(|version| format!("modhost:module@{version}")).unwrap_or_default(),
    )?;
    fact("size", size(anatomy.size).to_string())?;
    fact("memory", format!("{} before it runs", size(anatomy.minimum_memory)))?;
    let Producers { languages, tools } = &anatomy.producers;
    fact("made with", languages.iter().chain(tools).cloned().collect::<Vec<_>>().join(", "))
}

fn print_imports(out: &mut impl Write, anatomy: &Anatomy) -> io::Result<()> {
    let groups = [
        (Provider::World, "Imports from the world of modules"),
        (Provider::Wasi, "Imports from WASI, which every module may (no files, no sockets are granted)"),
        (Provider::Nobody, "Imports that nobody on this host provides"),
    ];
    for (provider, heading) in groups {
        let imports: Vec<_> =
            anatomy.imports.iter().filter(|import| import.provider == provider && import.kind != Kind::Type).collect();
        if imports.is_empty() {
            continue;
        }
        writeln!(out, "\n{HEADING}{heading}{HEADING:#}")?;
        match provider {
            Provider::World => print_capabilities(out, &imports)?,
            _ => print_packages(out, &imports)?,
        }
    }
    Ok(())
}

/// One line an interface, with the functions that are used of it.
fn print_capabilities(out: &mut impl Write, imports: &[&Import]) -> io::Result<()> {
    for import in imports {
        let functions = match import.functions.as_slice() {
            [] => "types only".to_owned(),
            functions => functions.join(", "),
        };
        writeln!(out, "  {}  {ASIDE}{functions}{ASIDE:#}", import.name)?;
    }
    Ok(())
}

/// One line a package, with the interfaces that are used of it: toolchains bring in WASI by the dozen.
fn print_packages(out: &mut impl Write, imports: &[&Import]) -> io::Result<()> {
    let mut packages: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for import in imports {
        match package(&import.name) {
            Some((package, interface)) => packages.entry(package).or_default().push(interface),
            None => {
                packages.entry(import.name.clone()).or_default();
            }
        }
    }
    for (package, interfaces) in packages {
        writeln!(out, "  {package}  {ASIDE}{}{ASIDE:#}", interfaces.join(", "))?;
    }
    Ok(())
}

/// `wasi:io/poll@0.2.9` as `wasi:io@0.2.9` and `poll`.
fn package(name: &str) -> Option<(String, &str)> {
    let (package, interface) = name.split_once('/')?;
    let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
    let at = if version.is_empty() { "" } else { "@" };
    Some((format!("{package}{at}{version}"), interface))
}

fn print_entry(out: &mut impl Write, path: &Path, anatomy: &Anatomy) -> io::Result<()> {
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    writeln!(
        out,
        "\n{HEADING}For modules.toml{HEADING:#} {ASIDE}(the name is the one the module has on the platform){ASIDE:#}"
    )?;
    writeln!(out, "[[module]]")?;
    writeln!(out, "name      = {}", quoted(&name)?)?;
    writeln!(out, "component = {}", quoted(&path.to_string_lossy())?)?;
    writeln!(out, "events    = [{}]", quoted(USUAL_EVENT)?)?;
    if anatomy.imports.iter().any(|import| import.name.starts_with("wasi:config/store@")) {
        writeln!(out, "config    = {{}}  # it can read settings: key = \"value\"")?;
    }
    print_limits(out, anatomy)
}

/// The limits it needs or should know of, on one line.
fn print_limits(out: &mut impl Write, anatomy: &Anatomy) -> io::Result<()> {
    let (mut limits, mut aside) = (Vec::new(), "");
    if anatomy.minimum_memory > ORDINARY_MEMORY {
        // Twice what it begins with, in whole MiB: a module that can't grow can hardly answer.
        let mebibytes = anatomy.minimum_memory.saturating_mul(2).div_ceil(1 << 20);
        limits.push(format!("memory = \"{mebibytes}MiB\""));
    }
    if anatomy.imports.iter().any(|import| import.name.starts_with("wasi:keyvalue/")) {
        let default = ModuleLimits::default().keyvalue >> 20;
        limits.push(format!("keyvalue = \"{default}MiB\""));
        aside = "  # it keeps values from one event to the next; with keyvalue = 0 it isn't loaded";
    }
    if limits.is_empty() { Ok(()) } else { writeln!(out, "limits    = {{ {} }}{aside}", limits.join(", ")) }
}

/// A string as TOML writes it. JSON's escapes are among TOML's; the one character it leaves bare is none of a name's.
fn quoted(text: &str) -> io::Result<String> {
    Ok(serde_json::to_string(text)?.replace('\u{7f}', "\\u007f"))
}
