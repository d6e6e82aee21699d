//! `modhost build`: builds modules and validates their components.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use clap::Args;

use super::build_command::{BuildCommand, Purpose};
use super::diagnostics::{self, error_with_help};
use super::help::examples;
use super::{SettingsFile, check, output};
use modhost_config::Module;
use modhost_runtime::engine::Engine;

/// Arguments of `modhost build`.
#[derive(Args)]
#[command(after_long_help = examples!("modhost build" "modhost build Mine Other"))]
pub struct BuildArgs {
    /// Modules to build [default: all modules with a `build` command in modules.toml]
    #[arg(value_name = "NAME")]
    modules: Vec<String>,

    #[command(flatten)]
    file: SettingsFile,
}

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// Builds the modules one after the other, because compilers use all cores. Returns success if all can serve.
pub async fn run(args: BuildArgs) -> anyhow::Result<ExitCode> {
    let targets = match targets(&args) {
        Ok(targets) => targets,
        Err(error) => {
            diagnostics::report(&error);
            return Ok(ExitCode::from(2));
        }
    };
    let mut failed = 0;
    for (module, command) in &targets.modules {
        output::println!("{DIM}building {}: {}{DIM:#}", module.name, command.text);
        match build(module, command, &targets.engine).await {
            Ok(summary) => output::println!("{GOOD}built{GOOD:#} {}: {summary}", module.name),
            Err(error) => {
                failed += 1;
                output::println!("{BAD}failed{BAD:#} {}: {error:#}", module.name);
            }
        }
    }
    if failed > 0 && targets.modules.len() > 1 {
        output::println!("{failed} of {} modules cannot serve", targets.modules.len());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The modules to build.
struct BuildTargets {
    /// The modules with their build commands.
    modules: Vec<(Module, BuildCommand)>,
    /// Compiles the components, and caches them for `modhost test`.
    engine: Engine,
}

fn targets(args: &BuildArgs) -> anyhow::Result<BuildTargets> {
    let settings = args.file.load()?;
    let modules: Vec<&Module> = match args.modules.is_empty() {
        true => settings.modules.iter().filter(|module| module.build.is_some()).collect(),
        false => args.modules.iter().map(|name| super::find_module(&settings, name)).collect::<Result<_, _>>()?,
    };
    if modules.is_empty() {
        return Err(error_with_help(
            format!("no module in {} has a `build` command", settings.file.display()),
            "add `build = \"…\"`, the command that builds the component",
        ));
    }
    let command = |module: &Module| {
        BuildCommand::of(module)
            .with_context(|| format!("{}: module {} has no `build` command", module.location, module.name))
    };
    let modules = modules.into_iter().map(|module| Ok((module.clone(), command(module)?)));
    let modules = modules.collect::<anyhow::Result<_>>()?;
    Ok(BuildTargets { modules, engine: super::caching_engine(&settings, 1)? })
}

/// Runs a module's build command and validates the component. Returns its summary.
async fn build(module: &Module, command: &BuildCommand, engine: &Engine) -> anyhow::Result<String> {
    let started = Instant::now();
    let status = command.run(Purpose::Serve).await.map_err(anyhow::Error::msg)?;
    if !status.success() {
        match command.missing_tool_advice(status) {
            Some(advice) => bail!(advice),
            None => bail!("the build command failed ({status}); its output is above"),
        }
    }
    let took = started.elapsed();
    let component = validate(&module.component, engine).await?;
    Ok(format!("{}, {component}{DIM}; built in {:.1} s{DIM:#}", module.component.display(), took.as_secs_f64()))
}

/// Returns a summary of a component that can serve.
async fn validate(path: &Path, engine: &Engine) -> anyhow::Result<String> {
    if !path.exists() {
        bail!(
            "the build command did not create {}; set `component` in modules.toml to the file it creates",
            path.display()
        );
    }
    check::Validation::of_file(path, engine).await?.summary().with_context(|| path.display().to_string())
}
