//! `check`: does a component fit, what is it made of, what comes of compiling it, what would it need in `modules.toml`. And
//! without a component: are the settings fine.

mod settings;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use bytesize::ByteSize;
use serde::Serialize;

use super::{SettingsFile, output};
use modhost_contract::compat::{self, ComponentInfo, Export, Import, Incompatibility, Kind, Producers, Provider};
use modhost_core::files::{self, NotRegular, ReadError};
use modhost_core::limits::{DEFAULT_STACK, Resource};
use modhost_core::sanitize;
use modhost_runtime::engine::{Compiled, Engine, LoadError};

/// What `check` can be told.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The component: a .wasm file built for wasm32-wasip2 or made with `modhost componentize` [default: the settings, and
    /// the components of all modules]
    #[arg(value_name = "COMPONENT")]
    pub component: Option<PathBuf>,

    #[command(flatten)]
    file: SettingsFile,

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
    #[serde(rename = "misfit")]
    incompatibility: Option<String>,
    /// The world this host serves.
    world: String,
    /// What it is made of, if it is a component.
    component: Option<Contents<'a>>,
    /// What compiling it has come to, if it fits.
    compiled: Option<CompiledReport>,
    /// Why it can't be compiled, although it fits.
    compile_error: Option<String>,
}

#[derive(Serialize)]
struct CompiledReport {
    /// How long it took on this machine.
    milliseconds: u64,
    /// In bytes.
    size: u64,
    /// Why its instances don't come from the pool.
    unpooled: Option<String>,
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
    /// What it needs of its entry in modules.toml, by the key there.
    grants: Vec<Grant>,
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

/// Something a component can use that its entry in `modules.toml` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Grant {
    /// What the imports begin with that ask for it.
    #[serde(skip)]
    imports: &'static str,
    /// The key in modules.toml.
    key: &'static str,
    /// What is given by it.
    what: &'static str,
}

/// Everything an entry gives beyond what every module has.
const GRANTS: [Grant; 3] = [
    Grant { imports: "wasi:config/", key: "config", what: "the settings it reads" },
    Grant { imports: "wasi:keyvalue/", key: "limits.keyvalue", what: "room for the values it keeps" },
    Grant { imports: "wasi:http/", key: "http", what: "the hosts it sends requests to" },
];

/// What was found out about a file.
pub(super) struct Findings {
    component_info: Option<ComponentInfo>,
    incompatibility: Option<Incompatibility>,
    /// What came of compiling it; none if it doesn't fit.
    compiled: Option<Result<Compiled, LoadError>>,
}

impl Findings {
    /// Reads a file and examines it.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub(super) async fn of_file(path: &Path, engine: &Engine) -> anyhow::Result<Self> {
        match bytes(path) {
            Err(ReadError::TooLarge { size, max }) => {
                let incompatibility = Some(Incompatibility::TooLarge { size, max_size: max });
                Ok(Self { component_info: None, incompatibility, compiled: None })
            }
            Err(error) => anyhow::bail!("can't read {}: {}", path.display(), trouble(&error)),
            Ok(bytes) => Ok(Self::of(bytes, engine).await),
        }
    }

    /// Examines a file, and has this engine compile what fits.
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

    /// What it is like, on one line.
    ///
    /// # Errors
    ///
    /// When it can't serve: why.
    pub(super) fn summary(&self) -> anyhow::Result<String> {
        let compiled = match (&self.incompatibility, &self.compiled) {
            (Some(incompatibility), _) => anyhow::bail!("it doesn't fit: {incompatibility}"),
            (None, Some(Err(reason))) => anyhow::bail!("it can't serve: {reason}"),
            (None, compiled) => compiled.as_ref().and_then(|compiled| compiled.as_ref().ok()),
        };
        let Some(component_info) = &self.component_info else { return Ok(String::new()) };
        let mut parts = vec![size(component_info.size)];
        parts.extend(compiled.map(|compiled| format!("compiled in {}", duration(compiled))));
        parts.extend(grants(component_info).map(|grant| format!("may need `{}` ({})", grant.key, grant.what)));
        Ok(parts.join(", "))
    }
}

/// Checks the component, or the settings with all of theirs, and prints what was found: success if it can serve, failure if
/// it can't.
pub async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let (can_serve, printed) = match &args.component {
        Some(component) => {
            let findings = Findings::of_file(component, &super::engine(1, DEFAULT_STACK)?).await?;
            let mut out = Vec::new();
            let printed = match args.json {
                true => print_json(&mut out, &findings.report()),
                false => print(&mut out, component, &findings),
            };
            (findings.can_serve(), printed.map(|()| out))
        }
        None => {
            let report = settings::Report::of(&args.file).await?;
            let mut out = Vec::new();
            let printed = if args.json { print_json(&mut out, &report) } else { report.print(&mut out) };
            (report.serves(), printed.map(|()| out))
        }
    };
    output::print!("{}", String::from_utf8_lossy(&printed.context("can't print what was found")?));
    Ok(if can_serve { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads the file, but no more of it than a component may have.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    bytes(path).map_err(|error| anyhow::anyhow!("can't read {}: {}", path.display(), trouble(&error)))
}

fn bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    let owned = path.to_owned();
    files::within(files::READ_TIMEOUT, move || files::read(&owned, compat::MAX_SIZE)).unwrap_or_else(|_| {
        let error = format!("it could not be read within {:?}; is its file system there?", files::READ_TIMEOUT);
        Err(io::Error::new(io::ErrorKind::TimedOut, error).into())
    })
}

fn trouble(error: &ReadError) -> String {
    match error {
        ReadError::NotRegular(NotRegular::Folder) => "it is a folder; give the .wasm file in it".to_owned(),
        ReadError::NotRegular(kind) => format!("it {}", kind.described()),
        ReadError::TooLarge { size, max } => Incompatibility::TooLarge { size: *size, max_size: *max }.to_string(),
        ReadError::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => "there is no such file; has it been built?".to_owned(),
            io::ErrorKind::PermissionDenied => "you may not read it; `ls -l` shows whose it is".to_owned(),
            _ => error.to_string(),
        },
    }
}

fn print_json(out: &mut impl Write, report: &impl Serialize) -> io::Result<()> {
    out.write_all(output::pretty_json(report)?.as_bytes())
}

fn print(out: &mut impl Write, path: &Path, findings: &Findings) -> io::Result<()> {
    let file = path.display();
    match (&findings.incompatibility, &findings.compiled) {
        (Some(incompatibility), _) => writeln!(out, "{BAD}doesn't fit{BAD:#}: {file}: {incompatibility}")?,
        (None, Some(Err(reason))) => writeln!(out, "{BAD}can't serve{BAD:#}: {file}: {reason}")?,
        (None, _) => writeln!(out, "{GOOD}fits{GOOD:#}: {file} can be a module of this host ({})", compat::world())?,
    }
    let Some(component_info) = &findings.component_info else { return Ok(()) };
    print_facts(out, component_info)?;
    if let Some(Ok(compiled)) = &findings.compiled {
        print_compiled(out, compiled)?;
    }
    print_imports(out, component_info)?;
    if findings.can_serve() { print_entry(out, path, component_info) } else { Ok(()) }
}

/// What of its entry a component needs.
fn grants(component_info: &ComponentInfo) -> impl Iterator<Item = Grant> {
    let imports = |grant: &Grant| component_info.imports.iter().any(|import| import.name.starts_with(grant.imports));
    GRANTS.into_iter().filter(imports)
}

/// One line of what is known; none if it is empty.
fn fact(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    if value.is_empty() { Ok(()) } else { writeln!(out, "  {ASIDE}{name:<14}{ASIDE:#}{}", sanitize::line(value)) }
}

fn print_facts(out: &mut impl Write, component_info: &ComponentInfo) -> io::Result<()> {
    let built_against =
        component_info.world.as_ref().map(|version| format!("modhost:module@{version}")).unwrap_or_default();
    fact(out, "built against", &built_against)?;
    fact(out, "size", &size(component_info.size))?;
    fact(out, "memory", &format!("{} before it runs", size(component_info.minimum_memory)))?;
    let Producers { languages, tools } = &component_info.producers;
    fact(out, "made with", &languages.iter().chain(tools).cloned().collect::<Vec<_>>().join(", "))?;
    let grants: Vec<_> = grants(component_info).map(|grant| format!("{} ({})", grant.key, grant.what)).collect();
    fact(out, "needs", &grants.join(", "))
}

fn print_compiled(out: &mut impl Write, compiled: &Compiled) -> io::Result<()> {
    let took = duration(compiled);
    fact(out, "compiled", &format!("{} in {took}; the host keeps it for the next time", size(compiled.size)))?;
    match &compiled.unpooled {
        Some(reason) => fact(out, "instances", &format!("made on demand, which is slower: {reason}")),
        None => Ok(()),
    }
}

/// How long compiling it took, for people.
fn duration(compiled: &Compiled) -> String {
    let took = compiled.took.as_millis();
    if took < 1000 { format!("{took} ms") } else { format!("{:.1} s", compiled.took.as_secs_f64()) }
}

/// A number of bytes, for people.
fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn print_imports(out: &mut impl Write, component_info: &ComponentInfo) -> io::Result<()> {
    let groups = [
        (Provider::World, "Imports from the world of modules"),
        (
            Provider::Wasi,
            "Imports from WASI (no files and no sockets are ever granted, and HTTP requests by `http` alone)",
        ),
        (Provider::Nobody, "Imports that nobody on this host provides"),
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

fn print_entry(out: &mut impl Write, path: &Path, component_info: &ComponentInfo) -> io::Result<()> {
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    writeln!(
        out,
        "\n{HEADING}For modules.toml{HEADING:#} {ASIDE}(the name is the one the module has on the platform){ASIDE:#}"
    )?;
    writeln!(out, "[[module]]")?;
    writeln!(out, "name      = {}", quoted(&name)?)?;
    writeln!(out, "component = {}", quoted(&path.to_string_lossy())?)?;
    writeln!(out, "events    = [{}]", quoted(USUAL_EVENT)?)?;
    if component_info.imports.iter().any(|import| import.name.starts_with("wasi:config/store@")) {
        writeln!(out, "config    = {{}}  # it can read settings: key = \"value\"")?;
    }
    if component_info.imports.iter().any(|import| import.name.starts_with("wasi:http/outgoing-handler")) {
        writeln!(out, "http      = [\"api.example.com\"]  # where it may send requests; without any it isn't loaded")?;
    }
    print_limits(out, component_info)
}

/// The limits it needs or should know of, on one line.
fn print_limits(out: &mut impl Write, component_info: &ComponentInfo) -> io::Result<()> {
    let (mut limits, mut aside) = (Vec::new(), "");
    if component_info.minimum_memory > ORDINARY_MEMORY {
        // Twice what it begins with, in whole MiB: a module that can't grow can hardly answer.
        let mebibytes = component_info.minimum_memory.saturating_mul(2).div_ceil(1 << 20);
        limits.push(format!("memory = \"{mebibytes}MiB\""));
    }
    if component_info.imports.iter().any(|import| import.name.starts_with("wasi:keyvalue/")) {
        let default = Resource::KeyValue.default_amount() >> 20;
        limits.push(format!("keyvalue = \"{default}MiB\""));
        aside = "  # it keeps values from one event to the next; with keyvalue = 0 it isn't loaded";
    }
    if limits.is_empty() { Ok(()) } else { writeln!(out, "limits    = {{ {} }}{aside}", limits.join(", ")) }
}

/// A string as TOML writes it. JSON's escapes are among TOML's; the one character it leaves bare is none of a name's.
fn quoted(text: &str) -> io::Result<String> {
    Ok(serde_json::to_string(text)?.replace('\u{7f}', "\\u007f"))
}
