//! The commands: one file each.

mod admin;
mod bindings;
mod build;
mod build_command;
mod check;
mod componentize;
mod deliveries;
mod dev;
mod event_file;
mod modules;
mod new;
mod output;
mod routes;
mod running;
mod sdk;
mod send;
mod serve;
mod signals;
mod test;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};

use modhost_config::{CompilerSettings, ConfigErrors, Module, Settings};
use modhost_core::sanitize;
use modhost_core::suggest;
use modhost_runtime::engine::{self, Compiler, CompilerLimits, Engine};
use modhost_server::host::{self, StartError};
use modhost_server::telemetry::{self, LogFilter, LogFormat};

/// How long deliveries may go on after the host was told to stop.
const GRACE: Duration = Duration::from_secs(30);

/// How long work that blocks may go on when a command is done.
const UNTIL_ABANDONED: Duration = Duration::from_secs(2);

/// The folder of compiled components, in a data directory and in the user's cache.
const COMPONENTS: &str = "components";

/// What modhost can be told to do.
#[derive(Subcommand)]
pub enum Command {
    /// Make a folder with a module to begin with, in the language you like, and its entry in modules.toml
    ///
    /// It builds as it is, wherever it lies: the SDK is in it. It comes with a README, tests, and the versions of its tools.
    /// Where there is no modules.toml, one is written that `modhost dev` runs. Nothing that is there is written over.
    New(new::NewArgs),
    /// Build modules as `modhost dev` does, and say of each what came out
    ///
    /// A tool that isn't installed is named, with how to get it. The exit code is 0 if all of them can serve, 1 if some can't,
    /// 2 if there is no such module.
    Build(build::BuildArgs),
    /// Build the modules, and run them on this machine with a local platform to chat with
    ///
    /// Whatever platform modules.toml names, the local one takes its place, with credentials of its own, so that
    /// nothing has to be set up. Save a module's source and it is built again and swapped in; if it doesn't compile,
    /// the version before goes on answering.
    Dev(dev::DevArgs),
    /// Run the host against the platform that modules.toml names
    ///
    /// Secrets come from environment variables, from a file `.env` beside modules.toml, or from files: modules.toml
    /// says which. Components run as they are; nothing is built. A change of modules.toml, of `.env` or of a component
    /// is taken in while the host runs.
    Serve(serve::ServeArgs),
    /// Run the tests of modules: events with scripted answers, and what is expected
    ///
    /// Tests are the files tests/*.toml in a module's folder. Nothing is sent anywhere, and no server is started. A component
    /// that is missing or older than its sources is built first. The exit code is 0 if all passed, 1 if some failed, 2 if
    /// some could not be run.
    Test(test::TestArgs),
    /// Chat with a module through the local platform of `modhost dev`, or send an event as a platform would
    ///
    /// Steps go to standard error as they happen, the answer to standard output. The exit code is 0 if there is an
    /// answer, 1 if the module or a step failed or no answer came in time, 2 if there is nobody of that name.
    ///
    /// With --source, the event in a file is signed as that source's platform signs, and sent to the host. The exit code
    /// is 0 if the host took it, 1 if it didn't.
    Send(send::SendArgs),
    /// List deliveries, tell the whole story of one, send it again, drop it, or run it against other code
    ///
    /// A delivery is an event on its way to a module that wants it: `waiting`, `running`, `completed`, `dead` (given up; it
    /// can be sent again) or `dropped`. A running host is asked by its admin address; --data-dir reads what a host that
    /// doesn't run has left on disk.
    Deliveries(deliveries::DeliveriesArgs),
    /// List modules and their versions, go back to one, pin one, pause a module, decide on a trial
    ///
    /// The running host is asked by its admin address; with --data-dir, what a host that doesn't run has left on disk: there
    /// what is asked for is done when the host starts. What is said here lasts across restarts. The exit code is 0 if it is
    /// done, 1 if it can't be.
    Modules(modules::ModulesArgs),
    /// Print which module gets which events, or who would get one and why
    Routes(routes::RoutesArgs),
    /// Tell whether a component fits, and what it needs; or, without one, whether modules.toml and all its modules are fine
    ///
    /// Of a component it says what it imports, what it was made with, what compiling it takes, and what its entry in
    /// modules.toml needs. Without one, it says whether `modhost serve` would start, with every variable and file it refers
    /// to, and which modules could serve with what they are granted. Components are compiled, and nothing of them is run;
    /// nobody is asked over the network. The exit code is 0 if all is fine, 1 if something isn't.
    Check(check::CheckArgs),
    /// Compile a component as the host asks: what the host starts itself with
    #[command(hide = true)]
    CompileComponent(engine::ChildArgs),
    /// Write the SDK of a language into a folder, for modules that build without a registry
    ///
    /// `modhost new` does, too; this brings it to the version of this modhost.
    Sdk(sdk::SdkArgs),
    /// Write the world of modules as a language has it, for compilers that make no bindings themselves
    ///
    /// Rust, Python and JavaScript need none of it: their tools make their own.
    Bindings(bindings::BindingsArgs),
    /// Make a component of what the compilers of C, C++, Zig and Go make
    ///
    /// It is checked as `modhost check` does, and written only if it can be a module of this host.
    Componentize(componentize::ComponentizeArgs),
}

/// Where settings come from.
#[derive(Args, Clone, Debug)]
pub struct SettingsFile {
    /// The settings file
    #[arg(long, short, value_name = "FILE", default_value = "modules.toml", env = "MODHOST_CONFIG")]
    config: PathBuf,
}

impl SettingsFile {
    fn load(&self) -> Result<Settings, ConfigErrors> {
        Settings::load_in_time(&self.config)
    }

    /// Without a time limit; of a text that the file held before, if there is one.
    fn load_from(&self, text: Option<&str>) -> Result<Settings, ConfigErrors> {
        match text {
            Some(text) => Settings::parse(text, &self.config),
            None => Settings::load(&self.config),
        }
    }

    /// The data directory of a host with these settings: the usual one, if they can't be read.
    fn data_dir(&self) -> PathBuf {
        self.load().map_or_else(|_| self.config.with_file_name(".modhost"), |settings| settings.server.data_dir)
    }
}

/// Which settings the host has that a command is about.
#[derive(Args, Clone, Debug)]
pub struct HostSettings {
    /// The settings of the host, which say where it listens [default: modules.toml, if there is one]
    #[arg(long, short, global = true, value_name = "FILE", env = "MODHOST_CONFIG")]
    config: Option<PathBuf>,
}

/// Where settings come from, and what the command line says in their place.
#[derive(Args, Clone)]
pub struct HostArgs {
    #[command(flatten)]
    file: SettingsFile,
    /// Take events on this port [default: that of `listen` in modules.toml, 8080]; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Answer operators on this port [default: that of `admin_listen` in modules.toml, 8081]; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Keep what has to last in this folder [default: `data_dir` in modules.toml, .modhost]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Go on where a file in the data directory has lost changes, without them. For once: the host says which are missing,
    /// and refuses to start without this
    #[arg(long)]
    accept_data_loss: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// What a host logs, and how.
#[derive(Args, Clone)]
struct LogArgs {
    /// Log at this level (off, error, warn, info, debug, trace), or by a filter such as warn,modhost=debug,module=trace
    /// [default: info; of the libraries it is made of, warn]
    #[arg(
        long,
        value_name = "LEVEL",
        env = LogArgs::LEVEL,
        value_parser = LogArgs::parse::<LogFilter>(LogArgs::LEVEL),
        default_value = "",
        hide_default_value = true
    )]
    log_level: LogFilter,
    /// How the log looks: a line of text a record, or a JSON object [default: text]
    #[arg(
        long,
        value_name = "FORMAT",
        env = LogArgs::FORMAT,
        value_parser = LogArgs::parse::<LogFormat>(LogArgs::FORMAT),
        default_value = "",
        hide_default_value = true
    )]
    log_format: LogFormat,
}

impl LogArgs {
    const LEVEL: &str = "MODHOST_LOG";
    const FORMAT: &str = "MODHOST_LOG_FORMAT";

    /// Reads what a flag says, or a variable in its place: an error names the variable, which clap doesn't.
    fn parse<T: FromStr<Err = String>>(variable: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone {
        move |text| {
            let is_set = std::env::var_os(variable).is_some_and(|set| set == text);
            text.parse().map_err(|error| if is_set { format!("{error} (that is what {variable} says)") } else { error })
        }
    }
}

impl HostArgs {
    /// Gives up what is missing from the data directory, if the command line says so.
    fn accept_data_loss(&self, settings: &Settings) -> Result<(), StartError> {
        if !self.accept_data_loss {
            return Ok(());
        }
        let accepted = host::accept_data_loss(&settings.server.data_dir)?;
        for missing in &accepted {
            tracing::warn!(missing, "going on without lost changes");
        }
        if accepted.is_empty() {
            tracing::info!("no changes are missing from the data directory");
        }
        Ok(())
    }

    /// Reads the settings, with what the command line says in place of what the file says.
    fn load(&self) -> Result<Settings, ConfigErrors> {
        self.file.load().map(|settings| self.over(settings))
    }

    /// Without a time limit; of a text that the file held before, if there is one.
    fn load_from(&self, text: Option<&str>) -> Result<Settings, ConfigErrors> {
        self.file.load_from(text).map(|settings| self.over(settings))
    }

    fn over(&self, mut settings: Settings) -> Settings {
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

/// Runs a command; the exit code is 0 when it did what it was told, 1 when it could not, and 2 for wrong use.
pub fn run(command: Command) -> ExitCode {
    // However it ends: a panic is logged, too.
    let _flushed = telemetry::FlushAtEnd;
    let done = match command {
        Command::Dev(args) => host(&args.host.log.clone(), dev::run(args)),
        Command::Serve(args) => host(&args.host.log.clone(), serve::run(args)),
        Command::Deliveries(args) => block_on(deliveries::run(args)),
        Command::Test(args) => block_on(test::run(args)),
        Command::Send(args) => block_on(send::run(args)),
        Command::Modules(args) => block_on(modules::run(args)),
        Command::Routes(args) => routes::run(args),
        Command::Check(args) => block_on(check::run(args)),
        // Without the threads of a runtime: what they take is missing where it compiles.
        Command::CompileComponent(args) => Ok(engine::run_child(&args)),
        Command::New(args) => new::run(&args),
        Command::Build(args) => block_on(build::run(args)),
        Command::Sdk(args) => sdk::run(&args),
        Command::Bindings(args) => bindings::run(&args),
        Command::Componentize(args) => componentize::run(&args),
    };
    output::finish(done.unwrap_or_else(|error| failed(&error)))
}

/// Runs a host, which waits neither for its log nor for its output.
fn host(log: &LogArgs, command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    telemetry::start(&log.log_level, log.log_format).context("cannot start the log")?;
    output::of_a_host().context("cannot start the output")?;
    block_on(command)
}

/// Runs what waits for others.
fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // What still waits for a file system that doesn't answer is not waited for.
    runtime.shutdown_timeout(UNTIL_ABANDONED);
    done
}

/// The program that compiles components for a command: this one.
fn compiling_program() -> anyhow::Result<PathBuf> {
    engine::this_program().context("it isn't known where this program lies, which starts itself to compile")
}

/// An engine for a command that has no host, with this stack; it compiles as a host does that isn't told other limits.
fn engine(instances: usize, stack: u64) -> anyhow::Result<Engine> {
    let compiler = Compiler::Apart { program: compiling_program()?, limits: CompilerLimits::default() };
    let engine = Engine::for_authors(instances, stack)
        .map_err(|error| anyhow::anyhow!("the engine can't be started: {error:#}"))?;
    Ok(engine.with_compiler(compiler))
}

/// The same, for these settings: it compiles under their limits, and keeps what it compiles in the host's data directory if
/// there is one, else in the user's cache. What one command has compiled, the next finds.
fn keeping_engine(settings: &Settings, instances: usize) -> anyhow::Result<Engine> {
    let CompilerSettings { timeout, memory, processes } = settings.server.compiler;
    let limits = CompilerLimits { timeout, memory, processes };
    let engine = engine(instances, settings.server.stack)?
        .with_compiler(Compiler::Apart { program: compiling_program()?, limits });
    let data_dir = &settings.server.data_dir;
    let cache = if data_dir.is_dir() { Some(data_dir.clone()) } else { user_cache() };
    Ok(match cache {
        Some(folder) => engine.with_cache(folder.join(COMPONENTS)),
        None => engine,
    })
}

/// Where components are kept that were compiled for their authors, whichever command did it.
fn authors_cache() -> Option<PathBuf> {
    Some(user_cache()?.join(COMPONENTS))
}

/// `$XDG_CACHE_HOME/modhost`, else `~/.cache/modhost`.
fn user_cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("modhost"))
}

/// The module of this name.
///
/// # Errors
///
/// When there is none; says which there are.
fn module<'s>(settings: &'s Settings, name: &str) -> anyhow::Result<&'s Module> {
    let Some(found) = settings.modules.iter().find(|module| module.name.as_str() == name) else {
        let names: Vec<_> = settings.modules.iter().map(|module| module.name.as_str()).collect();
        anyhow::bail!("there is no module {name} in {}; {}", settings.file.display(), suggest::advice(name, &names));
    };
    Ok(found)
}

/// This program as it was called, for commands that people copy out of what it says.
fn program() -> String {
    let called = std::env::args_os().next().and_then(|program| program.into_string().ok());
    // What a shell would take apart is no help.
    called.filter(|program| !program.is_empty() && !program.contains(char::is_whitespace)).unwrap_or("modhost".into())
}

/// A word as a shell takes it.
fn shell_word(word: &str) -> String {
    let plain = |it: char| it.is_alphanumeric() || "-_./".contains(it);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A table for people: each column as wide as its widest cell, and nothing behind the last. No cell makes a second line, or
/// drives the terminal.
fn columns<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
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

fn failed(error: &anyhow::Error) -> ExitCode {
    let style = anstyle::AnsiColor::Red.on_default().bold();
    // Who reads JSON reads nothing else.
    if !telemetry::log_failure(&format!("{error:#}")) {
        output::eprintln!("{style}error{style:#}: {error:#}");
    }
    ExitCode::from(1)
}
