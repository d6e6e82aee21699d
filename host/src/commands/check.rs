//! `modhost check`: validates a component and shows its imports, compile time and entry for `modules.toml`; or validates
//! `modules.toml` with all its modules.

mod settings;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use bytesize::ByteSize;
use serde::Serialize;

use super::diagnostics::error_with_help;
use super::help::examples;
use super::{SettingsFile, output};
use modhost_contract::compat::{self, ComponentInfo, Export, Import, Incompatibility, Kind, Producers, Provider};
use modhost_core::files::{self, NotRegular, ReadError};
use modhost_core::limits::{DEFAULT_STACK, Resource};
use modhost_core::sanitize;
use modhost_runtime::engine::{Compiled, Engine, LoadError};

/// Arguments of `modhost check`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = examples!(
    "modhost check"
    "modhost check mine/module.wasm"
    "modhost check mine/module.wasm --json"
))]
pub struct CheckArgs {
    /// Component to validate: a .wasm file built for wasm32-wasip2 or by `modhost componentize` [default: modules.toml and the
    /// components of all its modules]
    #[arg(value_name = "COMPONENT")]
    pub component: Option<PathBuf>,

    #[command(flatten)]
    file: SettingsFile,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The result for a component, as `--json` prints it.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether the component is compatible with this host.
    fits: bool,
    /// Why it is incompatible.
    #[serde(rename = "misfit")]
    incompatibility: Option<String>,
    /// The world that this host provides.
    world: String,
    /// The contents, if the file is a component.
    component: Option<Contents<'a>>,
    /// The compiled component, if compilation succeeded.
    compiled: Option<CompiledReport>,
    /// Why a compatible component cannot be compiled.
    compile_error: Option<String>,
}

#[derive(Serialize)]
struct CompiledReport {
    /// Compile time on this machine.
    milliseconds: u64,
    /// In bytes.
    size: u64,
    /// Why its instances cannot be allocated from the pool.
    unpooled: Option<String>,
}

#[derive(Serialize)]
struct Contents<'a> {
    /// The contract version that the component was built against.
    built_against: Option<String>,
    /// In bytes.
    size: u64,
    /// In bytes.
    minimum_memory: u64,
    producers: &'a Producers,
    /// What its entry in modules.toml has to grant.
    grants: Vec<Grant>,
    imports: &'a [Import],
    exports: &'a [Export],
}

/// The event in the suggested entry.
const DEFAULT_EVENT: &str = "unique.chat.external-module.chosen";
/// Maximum initial memory, in bytes, for which the default memory limit leaves as much again.
const MAX_MEMORY_UNDER_DEFAULT_LIMIT: u64 = 64 << 20;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const HEADING: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// A permission that a component needs from its entry in `modules.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Grant {
    /// Prefix of the imports that need it.
    #[serde(skip)]
    imports: &'static str,
    /// The key in modules.toml.
    key: &'static str,
    /// What it grants.
    #[serde(rename = "what")]
    description: &'static str,
}

/// All permissions that an entry grants.
const GRANTS: [Grant; 3] = [
    Grant { imports: "wasi:config/", key: "config", description: "settings to read" },
    Grant { imports: "wasi:keyvalue/", key: "limits.keyvalue", description: "storage for values" },
    Grant { imports: "wasi:http/", key: "http", description: "hosts to send requests to" },
];

/// The result of validating a file.
pub(super) struct Validation {
    component_info: Option<ComponentInfo>,
    incompatibility: Option<Incompatibility>,
    /// The result of compiling it; `None` if it is incompatible.
    compiled: Option<Result<Compiled, LoadError>>,
}

impl Validation {
    /// Reads and validates a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub(super) async fn of_file(path: &Path, engine: &Engine) -> anyhow::Result<Self> {
        match bytes(path) {
            Err(ReadError::TooLarge { size, max }) => {
                let incompatibility = Some(Incompatibility::TooLarge { size, max_size: max });
                Ok(Self { component_info: None, incompatibility, compiled: None })
            }
            Err(error) => Err(cannot_read(path, &error)),
            Ok(bytes) => Ok(Self::of(bytes, engine).await),
        }
    }

    /// Validates the content of a file, and compiles it if it is compatible.
    pub(super) async fn of(bytes: Vec<u8>, engine: &Engine) -> Self {
        let (component_info, incompatibility) = match compat::examine(&bytes, compat::MAX_SIZE) {
            Ok(component_info) => (Some(component_info), None),
            Err(incompatibility) => (None, Some(incompatibility)),
        };
        let incompatibility = incompatibility
            .or_else(|| component_info.as_ref().and_then(|component_info| component_info.check_compatibility().err()));
        let compiled = match incompatibility {
            None => Some(engine.try_compile(bytes).await),
            Some(_) => None,
        };
        Self { component_info, incompatibility, compiled }
    }

    fn can_serve(&self) -> bool {
        matches!(self.compiled, Some(Ok(_)))
    }

    fn report(&self) -> Report<'_> {
        let compiled = self.compiled.as_ref();
        Report {
            fits: self.incompatibility.is_none(),
            incompatibility: self.incompatibility.as_ref().map(ToString::to_string),
            world: compat::world(),
            component: self.component_info.as_ref().map(|component_info| Contents {
                built_against: component_info.world.as_ref().map(ToString::to_string),
                size: component_info.size,
                minimum_memory: component_info.minimum_memory,
                producers: &component_info.producers,
                grants: grants(component_info).collect(),
                imports: &component_info.imports,
                exports: &component_info.exports,
            }),
            compiled: compiled.and_then(|compiled| compiled.as_ref().ok()).map(|compiled| CompiledReport {
                milliseconds: u64::try_from(compiled.took.as_millis()).unwrap_or(u64::MAX),
                size: compiled.size,
                unpooled: compiled.unpooled.clone(),
            }),
            compile_error: compiled.and_then(|compiled| compiled.as_ref().err()).map(ToString::to_string),
        }
    }

    /// Summarizes the component on one line.
    ///
    /// # Errors
    ///
    /// If the component cannot serve.
    pub(super) fn summary(&self) -> anyhow::Result<String> {
        let compiled = match (&self.incompatibility, &self.compiled) {
            (Some(incompatibility), _) => anyhow::bail!("incompatible: {incompatibility}"),
            (None, Some(Err(reason))) => anyhow::bail!("cannot serve: {reason}"),
            (None, compiled) => compiled.as_ref().and_then(|compiled| compiled.as_ref().ok()),
        };
        let Some(component_info) = &self.component_info else { return Ok(String::new()) };
        let mut parts = vec![size(component_info.size)];
        parts.extend(compiled.map(|compiled| format!("compiled in {}", duration(compiled))));
        parts.extend(grants(component_info).map(|grant| format!("may need `{}` ({})", grant.key, grant.description)));
        Ok(parts.join(", "))
    }
}

/// Validates the component, or the settings with all their components, and prints the result. Returns success if everything
/// is valid.
pub async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let (can_serve, printed) = match &args.component {
        Some(component) => {
            let validation = Validation::of_file(component, &super::engine(1, DEFAULT_STACK)?).await?;
            let mut out = Vec::new();
            let printed = match args.json {
                true => print_json(&mut out, &validation.report()),
                false => print(&mut out, component, &validation),
            };
            (validation.can_serve(), printed.map(|()| out))
        }
        None => {
            let report = settings::Report::of(&args.file).await?;
            let mut out = Vec::new();
            let printed = if args.json { print_json(&mut out, &report) } else { report.print(&mut out) };
            (report.serves(), printed.map(|()| out))
        }
    };
    output::print!("{}", String::from_utf8_lossy(&printed.context("cannot format the result")?));
    Ok(if can_serve { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads a component, up to its maximum size.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    bytes(path).map_err(|error| cannot_read(path, &error))
}

fn bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    let owned = path.to_owned();
    files::blocking_with_timeout(files::READ_TIMEOUT, move || files::read(&owned, compat::MAX_SIZE)).unwrap_or_else(
        |_| {
            let error = format!("the file system did not respond within {:?}", files::READ_TIMEOUT);
            Err(io::Error::new(io::ErrorKind::TimedOut, error).into())
        },
    )
}

/// Returns why a file cannot be read, and what to do about it.
fn read_problem(error: &ReadError) -> (String, Option<&'static str>) {
    match error {
        ReadError::NotRegular(NotRegular::Folder) => ("it is a folder".to_owned(), Some("name the .wasm file in it")),
        ReadError::NotRegular(kind) => (format!("it {}", kind.description()), None),
        ReadError::TooLarge { size, max } => {
            (Incompatibility::TooLarge { size: *size, max_size: *max }.to_string(), None)
        }
        ReadError::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => ("there is no such file".to_owned(), Some("build the module first")),
            io::ErrorKind::PermissionDenied => {
                ("permission denied".to_owned(), Some("change the owner or the mode of the file"))
            }
            _ => (error.to_string(), None),
        },
    }
}

fn cannot_read(path: &Path, error: &ReadError) -> anyhow::Error {
    let (problem, help) = read_problem(error);
    let message = format!("cannot read {}: {problem}", path.display());
    match help {
        Some(help) => error_with_help(message, help),
        None => anyhow::anyhow!(message),
    }
}

fn print_json(out: &mut impl Write, report: &impl Serialize) -> io::Result<()> {
    out.write_all(output::pretty_json(report)?.as_bytes())
}

fn print(out: &mut impl Write, path: &Path, validation: &Validation) -> io::Result<()> {
    let file = path.display();
    match (&validation.incompatibility, &validation.compiled) {
        (Some(incompatibility), _) => writeln!(out, "{BAD}incompatible{BAD:#}: {file}: {incompatibility}")?,
        (None, Some(Err(reason))) => writeln!(out, "{BAD}cannot serve{BAD:#}: {file}: {reason}")?,
        (None, _) => writeln!(out, "{GOOD}valid{GOOD:#}: {file} implements {}", compat::world())?,
    }
    let Some(component_info) = &validation.component_info else { return Ok(()) };
    print_facts(out, component_info)?;
    if let Some(Ok(compiled)) = &validation.compiled {
        print_compiled(out, compiled)?;
    }
    print_imports(out, component_info)?;
    if validation.can_serve() { print_entry(out, path, component_info) } else { Ok(()) }
}

/// Returns the permissions that a component needs.
fn grants(component_info: &ComponentInfo) -> impl Iterator<Item = Grant> {
    let imports = |grant: &Grant| component_info.imports.iter().any(|import| import.name.starts_with(grant.imports));
    GRANTS.into_iter().filter(imports)
}

/// Prints a labeled value, unless it is empty.
fn fact(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    if value.is_empty() { Ok(()) } else { writeln!(out, "  {DIM}{name:<14}{DIM:#}{}", sanitize::line(value)) }
}

fn print_facts(out: &mut impl Write, component_info: &ComponentInfo) -> io::Result<()> {
    let built_against =
        component_info.world.as_ref().map(|version| format!("modhost:module@{version}")).unwrap_or_default();
    fact(out, "built against", &built_against)?;
    fact(out, "size", &size(component_info.size))?;
    fact(out, "memory", &format!("{} at start", size(component_info.minimum_memory)))?;
    let Producers { languages, tools } = &component_info.producers;
    fact(out, "built with", &languages.iter().chain(tools).cloned().collect::<Vec<_>>().join(", "))?;
    let grants: Vec<_> = grants(component_info).map(|grant| format!("{} ({})", grant.key, grant.description)).collect();
    fact(out, "needs", &grants.join(", "))
}

fn print_compiled(out: &mut impl Write, compiled: &Compiled) -> io::Result<()> {
    let took = duration(compiled);
    fact(out, "compiled", &format!("{} in {took}; the host caches it", size(compiled.size)))?;
    match &compiled.unpooled {
        Some(reason) => fact(out, "instances", &format!("created on demand, which is slower: {reason}")),
        None => Ok(()),
    }
}

/// Formats the compile time.
fn duration(compiled: &Compiled) -> String {
    let took = compiled.took.as_millis();
    if took < 1000 { format!("{took} ms") } else { format!("{:.1} s", compiled.took.as_secs_f64()) }
}

/// Formats a number of bytes.
fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn print_imports(out: &mut impl Write, component_info: &ComponentInfo) -> io::Result<()> {
    let groups = [
        (Provider::World, "Imports from the module world"),
        (Provider::Wasi, "Imports from WASI (files and sockets are never available; HTTP requests require `http`)"),
        (Provider::Nobody, "Imports that this host does not provide"),
    ];
    for (provider, heading) in groups {
        let imports: Vec<_> = component_info
            .imports
            .iter()
            .filter(|import| import.provider == provider && import.kind != Kind::Type)
            .collect();
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

/// Prints one line per interface, with the functions that the component uses.
fn print_capabilities(out: &mut impl Write, imports: &[&Import]) -> io::Result<()> {
    for import in imports {
        let functions = match import.functions.as_slice() {
            [] => "types only".to_owned(),
            functions => functions.join(", "),
        };
        writeln!(out, "  {}  {DIM}{functions}{DIM:#}", import.name)?;
    }
    Ok(())
}

/// Prints one line per package, with the interfaces that the component uses. Toolchains import dozens of WASI interfaces.
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
        writeln!(out, "  {package}  {DIM}{}{DIM:#}", interfaces.join(", "))?;
    }
    Ok(())
}

/// Splits `wasi:io/poll@0.2.9` into `wasi:io@0.2.9` and `poll`.
fn package(name: &str) -> Option<(String, &str)> {
    let (package, interface) = name.split_once('/')?;
    let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
    let at = if version.is_empty() { "" } else { "@" };
    Some((format!("{package}{at}{version}"), interface))
}

fn print_entry(out: &mut impl Write, path: &Path, component_info: &ComponentInfo) -> io::Result<()> {
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    writeln!(
        out,
        "\n{HEADING}Entry for modules.toml{HEADING:#} {DIM}(`name` is the name of the module on the platform){DIM:#}"
    )?;
    writeln!(out, "[[module]]")?;
    writeln!(out, "name      = {}", quoted(&name)?)?;
    writeln!(out, "component = {}", quoted(&path.to_string_lossy())?)?;
    writeln!(out, "events    = [{}]", quoted(DEFAULT_EVENT)?)?;
    if component_info.imports.iter().any(|import| import.name.starts_with("wasi:config/store@")) {
        writeln!(out, "config    = {{}}  # settings for the module: key = \"value\"")?;
    }
    if component_info.imports.iter().any(|import| import.name.starts_with("wasi:http/outgoing-handler")) {
        writeln!(out, "http      = [\"api.example.com\"]  # hosts it may send requests to; required")?;
    }
    print_limits(out, component_info)
}

/// Prints the limits that the component needs or whose default matters to it, on one line.
fn print_limits(out: &mut impl Write, component_info: &ComponentInfo) -> io::Result<()> {
    let (mut limits, mut comment) = (Vec::new(), "");
    if component_info.minimum_memory > MAX_MEMORY_UNDER_DEFAULT_LIMIT {
        // Twice the initial memory, in whole MiB, so that the module can allocate.
        let mebibytes = component_info.minimum_memory.saturating_mul(2).div_ceil(1 << 20);
        limits.push(format!("memory = \"{mebibytes}MiB\""));
    }
    if component_info.imports.iter().any(|import| import.name.starts_with("wasi:keyvalue/")) {
        let default = Resource::KeyValue.default_amount() >> 20;
        limits.push(format!("keyvalue = \"{default}MiB\""));
        comment = "  # storage for values; with keyvalue = 0 the module is not loaded";
    }
    if limits.is_empty() { Ok(()) } else { writeln!(out, "limits    = {{ {} }}{comment}", limits.join(", ")) }
}

/// Quotes a string for TOML. JSON escapes are valid in TOML; only DEL has to be escaped in addition.
fn quoted(text: &str) -> io::Result<String> {
    Ok(serde_json::to_string(text)?.replace('\u{7f}', "\\u007f"))
}
