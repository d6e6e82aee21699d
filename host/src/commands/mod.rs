//! The commands of the program: one module each.

mod admin;
mod bindings;
mod build;
mod build_command;
mod check;
mod componentize;
mod deliveries;
mod dev;
mod diagnostics;
mod event_file;
mod help;
mod hosts;
mod modules;
mod new;
mod output;
mod routes;
mod running;
mod sdk;
mod send;
mod serve;
mod signals;
mod storage;
mod tenants;
mod test;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use diagnostics::error_with_help;
use help::examples;
use modhost_config::{CompilerSettings, ConfigErrors, Module, Settings};
use modhost_core::event::Name;
use modhost_core::sanitize;
use modhost_core::suggest;
use modhost_runtime::engine::{self, Compiler, CompilerLimits, CompilerProgram, Engine};
use modhost_sandbox::SandboxMode;
use modhost_server::host::{self, StartError};
use modhost_server::telemetry::{self, LogFilter, LogFormat};

/// How long running deliveries may continue after the host was asked to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// How long the end of a command waits for blocking work.
const BLOCKING_TASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The folder of compiled components, in a data directory and in the user's cache.
const COMPONENTS: &str = "components";

/// A host for modules: WebAssembly components that answer webhook events
///
/// Start with `modhost new NAME`, which creates a module and everything it needs. `modhost dev` runs the modules of modules.toml
/// on this machine, with a local platform to chat with. `modhost serve` runs the same host against the real platform.
#[derive(Parser)]
#[command(
    name = "modhost",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Run `modhost COMMAND --help` for the description, all flags and examples of a command.",
    after_long_help = examples!(
        "modhost new Mine --lang rust"
        "modhost dev"
        "modhost send \"What is our travel policy?\""
        "modhost test Mine"
        "modhost serve --config modules.toml"
    )
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// A command of the program.
#[derive(Subcommand)]
enum Command {
    /// Create a module, in the language you choose
    ///
    /// The module builds as it is: its folder contains the SDK, tests, a README and the versions of its tools. If there is no
    /// modules.toml, one is created that `modhost dev` runs. Existing files are never overwritten.
    New(new::NewArgs),
    /// Build the modules and run them with a local platform
    ///
    /// The local platform takes the place of the platform in modules.toml, with its own credentials, so nothing has to be set
    /// up. When a source file of a module changes, the module is built again and replaced. If the build fails, the previous
    /// version continues to serve.
    Dev(dev::DevArgs),
    /// Send a chat message or an event
    ///
    /// Without --source, sends a chat message to a module through the local platform of `modhost dev`. Steps are printed to
    /// standard error as they happen, the answer to standard output. Exit code: 0 if the module answered, 1 if the module or a
    /// step failed or the time ran out, 2 if there is no such module.
    ///
    /// With --source, signs the event in a file as the platform of that source does, and sends it to the host. Exit code: 0 if
    /// the host accepted the event, 1 if not.
    Send(send::SendArgs),
    /// Build modules and validate the components
    ///
    /// Runs the build command of each module, as `modhost dev` does, but for use in production, then validates the component.
    /// If a tool is not installed, the output names it and how to install it. Exit code: 0 if all modules can serve, 1 if some
    /// cannot, 2 if there is no such module.
    Build(build::BuildArgs),
    /// Run the tests of modules
    ///
    /// A test is a file tests/*.toml in the module's folder: an event, scripted results of calls, and expectations. Tests need no
    /// server and send nothing. A component that is missing or older than its sources is built first. Exit code: 0 if all tests
    /// passed, 1 if some failed, 2 if some could not run.
    ///
    /// With --record, writes a test from a delivery of the running host, or of a stopped host with --data-dir.
    Test(test::TestArgs),
    /// Validate a component, or modules.toml and all its modules
    ///
    /// With a component: reports whether this host can run it, and prints its imports, the tools it was built with, its compile
    /// time, and its entry for modules.toml.
    ///
    /// Without a component: reports whether `modhost serve` would start, including every variable and file that modules.toml
    /// refers to, and whether each module can serve with the permissions it is granted.
    ///
    /// Components are compiled, but not run, and nothing is requested over the network. Exit code: 0 if everything is valid, 1
    /// if not.
    Check(check::CheckArgs),
    /// Run the host
    ///
    /// Runs the modules of modules.toml against its platform. Secrets come from environment variables, from a file `.env`
    /// beside modules.toml, or from files; modules.toml names them. Components are not built. The host applies changes of
    /// modules.toml, `.env` and components while it runs.
    Serve(serve::ServeArgs),
    /// Show modules and their versions; roll back, pin or pause them
    ///
    /// Commands go to the admin API of the running host. With --data-dir, they work on the data directory of a stopped host,
    /// which applies them when it starts. The effect of a command lasts across restarts. Exit code: 0 on success, 1 otherwise.
    Modules(modules::ModulesArgs),
    /// List and show deliveries; retry, drop or replay them
    ///
    /// A delivery is one event for one module. Its state is `waiting`, `running`, `completed`, `dead` (failed for good; it can
    /// be retried) or `dropped`. Commands go to the admin API of the running host. With --data-dir, they read the data
    /// directory of a stopped host.
    Deliveries(deliveries::DeliveriesArgs),
    /// Show what each tenant uses: CPU, memory, journal, calls, connections
    ///
    /// Tells which tenant keeps a running host busy. CPU time and calls count from the start of the host; everything else is the
    /// current state. Exit code: 0 on success, 1 otherwise.
    Tenants(tenants::TenantsArgs),
    /// Show the hosts that share a database
    ///
    /// Hosts with the same `url` in `[storage]` share the work. Tells which of them live, which version each runs, and whose
    /// modules.toml differs from that of the host that answers. Exit code: 0 on success, 1 otherwise.
    Hosts(hosts::HostsArgs),
    /// Move what a host keeps to another storage
    ///
    /// Moves a host from the files in its data directory to a PostgreSQL database, which several hosts can share.
    Storage(storage::StorageArgs),
    /// Show which modules receive which events
    Routes(routes::RoutesArgs),
    /// Compile a component; the host runs this command itself
    #[command(hide = true)]
    CompileComponent(engine::ChildArgs),
    /// Write the SDK of a language to a folder
    ///
    /// For modules that build without a package registry. `modhost new` includes the SDK; this command updates it to the
    /// version of this program.
    Sdk(sdk::SdkArgs),
    /// Generate bindings of the module world for C or Go
    ///
    /// For compilers that generate no bindings themselves. Rust, Python and JavaScript do not need this command: their tools
    /// generate the bindings.
    Bindings(bindings::BindingsArgs),
    /// Convert a core module to a component
    ///
    /// For core modules that the compilers of C, C++, Zig and Go produce. The component is validated as by `modhost check`, and
    /// written only if this host can run it.
    Componentize(componentize::ComponentizeArgs),
}

/// The settings file of a command that requires one.
#[derive(Args, Clone, Debug)]
pub struct SettingsFile {
    /// Settings file
    #[arg(long, short, value_name = "FILE", default_value = "modules.toml", env = "MODHOST_CONFIG")]
    config: PathBuf,
}

impl SettingsFile {
    fn load(&self) -> Result<Settings, ConfigErrors> {
        Settings::load_in_time(&self.config)
    }

    /// Loads the settings without included files and without a time limit, from `text` if it is given: an earlier
    /// content of the file.
    fn load_from(&self, text: Option<&str>) -> Result<Settings, ConfigErrors> {
        match text {
            Some(text) => Settings::parse(text, &self.config),
            None => Settings::load_file(&self.config),
        }
    }

    /// Returns the data directory of the host with these settings, or the default one if they cannot be read.
    fn data_dir(&self) -> PathBuf {
        Settings::load_file_in_time(&self.config)
            .map_or_else(|_| self.config.with_file_name(".modhost"), |settings| settings.server.data_dir)
    }
}

/// The settings file of a command that works without one.
#[derive(Args, Clone, Debug)]
pub struct HostSettings {
    /// Settings file of the host; it says where the host listens [default: modules.toml, if it exists]
    #[arg(long, short, global = true, value_name = "FILE", env = "MODHOST_CONFIG")]
    config: Option<PathBuf>,
}

/// The settings of a host, from the file and from flags that override it.
#[derive(Args, Clone)]
pub struct HostArgs {
    #[command(flatten)]
    file: SettingsFile,
    /// Port for events; 0 selects a free port [default: the port of `listen` in modules.toml, 8080]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Port for the admin API; 0 selects a free port [default: the port of `admin_listen` in modules.toml, 8081]
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Directory of the journal and all other persistent data [default: `data_dir` in modules.toml, .modhost]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Start once without changes that a file in the data directory has lost; without this flag, the host names them and does
    /// not start
    #[arg(long)]
    accept_data_loss: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// What a host logs, and in which format.
#[derive(Args, Clone)]
struct LogArgs {
    /// Log level (off, error, warn, info, debug or trace), or a filter such as warn,modhost=debug,module=trace [default: info,
    /// and warn for libraries]
    #[arg(
        long,
        value_name = "LEVEL",
        env = LogArgs::LEVEL_VARIABLE,
        value_parser = LogArgs::parse::<LogFilter>(LogArgs::LEVEL_VARIABLE),
        default_value = "",
        hide_default_value = true
    )]
    log_level: LogFilter,
    /// Log format: text, one line per record, or json, one object per line [default: text]
    #[arg(
        long,
        value_name = "FORMAT",
        env = LogArgs::FORMAT_VARIABLE,
        value_parser = LogArgs::parse::<LogFormat>(LogArgs::FORMAT_VARIABLE),
        default_value = "",
        hide_default_value = true
    )]
    log_format: LogFormat,
}

impl LogArgs {
    const LEVEL_VARIABLE: &str = "MODHOST_LOG";
    const FORMAT_VARIABLE: &str = "MODHOST_LOG_FORMAT";

    /// Parses a flag or the variable in its place. The error names the variable; clap's does not.
    fn parse<T: FromStr<Err = String>>(variable: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone {
        move |text| {
            let is_set = std::env::var_os(variable).is_some_and(|set| set == text);
            text.parse().map_err(|error| if is_set { format!("{error} (from the variable {variable})") } else { error })
        }
    }
}

impl HostArgs {
    /// Accepts the loss of changes that are missing from the data directory, if the command line says so.
    fn accept_data_loss(&self, settings: &Settings) -> Result<(), StartError> {
        if !self.accept_data_loss {
            return Ok(());
        }
        let accepted = host::accept_data_loss(&settings.server.data_dir)?;
        for missing in &accepted {
            tracing::warn!(missing, "continuing without lost changes");
        }
        if accepted.is_empty() {
            tracing::info!("no changes are missing from the data directory");
        }
        Ok(())
    }

    /// Loads the settings and applies the flags.
    fn load(&self) -> Result<Settings, ConfigErrors> {
        self.file.load().map(|settings| self.override_settings(settings))
    }

    /// Like [`load`](Self::load), without a time limit, from `text` if it is given: an earlier content of the file.
    fn load_from(&self, text: Option<&str>) -> Result<Settings, ConfigErrors> {
        self.file.load_from(text).map(|settings| self.override_settings(settings))
    }

    fn override_settings(&self, mut settings: Settings) -> Settings {
        let server = &mut settings.server;
        let ports = [(&mut server.listen, self.port), (&mut server.admin_listen, self.admin_port)];
        for (address, port) in ports {
            if let Some(port) = port {
                *address = SocketAddr::new(address.ip(), port);
            }
        }
        if let Some(data_dir) = &self.data_dir {
            server.data_dir.clone_from(data_dir);
        }
        settings
    }
}

/// Parses the command line and runs its command.
pub fn main() -> ExitCode {
    let matches = help::group_subcommands(CommandLine::command()).get_matches();
    match CommandLine::from_arg_matches(&matches) {
        Ok(CommandLine { command }) => run(command),
        Err(error) => error.exit(),
    }
}

/// Runs a command. The exit code is 0 on success, 1 on failure, and 2 for wrong use.
fn run(command: Command) -> ExitCode {
    // Also flushes the log of a panic.
    let _flush_at_end = telemetry::FlushAtEnd;
    let result = match command {
        Command::Dev(args) => run_host(&args.host.log.clone(), dev::run(args)),
        Command::Serve(args) => serve::start(args),
        Command::Deliveries(args) => block_on(deliveries::run(args)),
        Command::Test(args) => block_on(test::run(args)),
        Command::Send(args) => block_on(send::run(args)),
        Command::Modules(args) => block_on(modules::run(args)),
        Command::Tenants(args) => block_on(tenants::run(args)),
        Command::Hosts(args) => block_on(hosts::run(args)),
        Command::Storage(args) => block_on(storage::run(args)),
        Command::Routes(args) => routes::run(args),
        Command::Check(args) => block_on(check::run(args)),
        // Without a runtime: its threads would take resources from the compiler.
        Command::CompileComponent(args) => Ok(engine::run_child(&args)),
        Command::New(args) => new::run(&args),
        Command::Build(args) => block_on(build::run(args)),
        Command::Sdk(args) => sdk::run(&args),
        Command::Bindings(args) => bindings::run(&args),
        Command::Componentize(args) => componentize::run(&args),
    };
    output::finish(result.unwrap_or_else(|error| {
        diagnostics::report(&error);
        ExitCode::FAILURE
    }))
}

/// Runs a host. It never waits for its log or its output to be read.
fn run_host(log: &LogArgs, command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    telemetry::start(&log.log_level, log.log_format).context("cannot start the log")?;
    // Inherited by the threads that accept events and write the journal. They wait most of the time, and modules compute.
    if let Err(error) = modhost_sandbox::shorten_time_slice() {
        tracing::debug!(%error, "cannot shorten the time slice of the host's threads");
    }
    output::start_host_output().context("cannot start the output")?;
    block_on(command)
}

/// Runs a command on an async runtime.
fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // Blocking tasks may hang on a file system that does not respond.
    runtime.shutdown_timeout(BLOCKING_TASK_TIMEOUT);
    result
}

/// Returns the path of this program, which compiles components in child processes of itself.
fn compiler_program() -> anyhow::Result<PathBuf> {
    engine::this_program().context("cannot find the path of this program, which it needs to compile components")
}

/// Returns an engine for a command without a host. `stack` is in bytes; the compiler has the default limits.
fn engine(instances: usize, stack: u64) -> anyhow::Result<Engine> {
    let (program, limits, sandbox) = (compiler_program()?, CompilerLimits::default(), SandboxMode::Auto);
    let compiler = Compiler::Subprocess(CompilerProgram { program, limits, sandbox });
    let engine =
        Engine::for_authors(instances, stack).map_err(|error| anyhow::anyhow!("cannot start the engine: {error:#}"))?;
    Ok(engine.with_compiler(compiler))
}

/// Returns an engine with the limits of these settings, which caches compiled components for the next command: in the host's
/// data directory if it exists, else in the user's cache.
fn caching_engine(settings: &Settings, instances: usize) -> anyhow::Result<Engine> {
    let CompilerSettings { timeout, memory, processes } = settings.server.compiler;
    let limits = CompilerLimits { timeout, memory, processes };
    let compiler = CompilerProgram { program: compiler_program()?, limits, sandbox: settings.server.sandbox };
    let engine = engine(instances, settings.server.stack)?.with_compiler(Compiler::Subprocess(compiler));
    let data_dir = &settings.server.data_dir;
    let cache = if data_dir.is_dir() { Some(data_dir.clone()) } else { user_cache() };
    Ok(match cache {
        Some(folder) => engine.with_cache(folder.join(COMPONENTS)),
        None => engine,
    })
}

/// Returns the folder in the user's cache for compiled components. All commands share it.
fn shared_component_cache() -> Option<PathBuf> {
    Some(user_cache()?.join(COMPONENTS))
}

/// Returns `$XDG_CACHE_HOME/modhost`, or `~/.cache/modhost`.
fn user_cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("modhost"))
}

/// Returns the module of this name.
///
/// # Errors
///
/// If the name is unknown. The error lists the known modules.
fn find_module<'s>(settings: &'s Settings, name: &str) -> anyhow::Result<&'s Module> {
    let Some(found) = settings.modules.iter().find(|module| module.name.as_str() == name) else {
        let names: Vec<_> = settings.modules.iter().map(|module| module.name.as_str()).collect();
        let message = format!("there is no module {name} in {}", settings.file.display());
        let refused = settings.included.iter().find(|file| file.refused.is_some() && may_have(&file.path, name));
        if let Some(file) = refused {
            let message = format!("{message}; {} is refused", file.path.display());
            return Err(error_with_help(message, "`modhost check` shows why"));
        }
        return Err(error_with_help(message, suggest::advice(name, &names)));
    };
    Ok(found)
}

/// Whether an included file that could not be read may be that of a module: files have the names of their tenants.
fn may_have(file: &Path, module: &str) -> bool {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    module.split_once(Name::SEPARATOR).is_some_and(|(tenant, _)| stem == Some(tenant))
}

/// Logs the warnings of settings: mistakes the host can run with.
fn log_warnings(settings: &Settings) {
    const MAX_LOGGED: usize = 20;
    let warnings = settings.warnings();
    for warning in warnings.iter().take(MAX_LOGGED) {
        tracing::warn!("{warning}");
    }
    if warnings.len() > MAX_LOGGED {
        tracing::warn!(more = warnings.len() - MAX_LOGGED, "the settings have more warnings; see `modhost check`");
    }
}

/// Checks that a data directory has its own deliveries and versions.
///
/// # Errors
///
/// If the host with this directory keeps them in a database.
fn check_is_own_storage(data_dir: &Path) -> anyhow::Result<()> {
    if host::uses_database(data_dir) {
        let message = format!(
            "the host with the data directory {} keeps its deliveries and versions in a database",
            data_dir.display()
        );
        return Err(error_with_help(
            message,
            "omit --data-dir: any running host with that database answers, also `--admin URL` of another machine",
        ));
    }
    Ok(())
}

/// Returns this program as it was called, for commands that users copy from the output.
fn program() -> String {
    let called = std::env::args_os().next().and_then(|program| program.into_string().ok());
    // A path with spaces would have to be quoted.
    called.filter(|program| !program.is_empty() && !program.contains(char::is_whitespace)).unwrap_or("modhost".into())
}

/// Quotes a word for a shell, if necessary.
fn shell_word(word: &str) -> String {
    let plain = |it: char| it.is_alphanumeric() || "-_./".contains(it);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Formats a table. Cells are sanitized: none can add a line or control the terminal.
fn format_table<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    let rows: Vec<[String; N]> =
        rows.into_iter().map(|row| row.map(|cell| sanitize::line(&cell).into_owned())).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let dim = anstyle::Style::new().dimmed();
    let mut text = format!("{dim}{}{dim:#}\n", line(heading));
    for row in &rows {
        text.push_str(&line(std::array::from_fn(|column| row[column].as_str())));
        text.push('\n');
    }
    text
}
