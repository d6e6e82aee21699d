//! `build`: makes the components of modules as `dev` does, and says of each what came out.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use clap::Args;

use super::build_command::{BuildCommand, Purpose};
use super::{SettingsFile, check, output};
use modhost_config::Module;
use modhost_runtime::engine::Engine;

/// What `build` can be told.
#[derive(Args)]
pub struct BuildArgs {
    /// The modules to build [default: all that have a `build` in modules.toml]
    #[arg(value_name = "NAME")]
    modules: Vec<String>,

    #[command(flatten)]
    file: SettingsFile,
}

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const ASIDE: Style = Style::new().dimmed();

/// Builds the modules, one after the other, as compilers use all cores: success if every one can serve now.
pub async fn run(args: BuildArgs) -> anyhow::Result<ExitCode> {
    let wanted = match wanted(&args) {
        Ok(wanted) => wanted,
        Err(error) => {
            super::failed(&error);
            return Ok(ExitCode::from(2));
        }
    };
    let mut failed = 0;
    for (module, command) in &wanted.modules {
        output::println!("{ASIDE}building {}: {}{ASIDE:#}", module.name, command.text);
        match build(module, command, &wanted.engine).await {
            Ok(made) => output::println!("{GOOD}built{GOOD:#} {}: {made}", module.name),
            Err(error) => {
                failed += 1;
                output::println!("{BAD}failed{BAD:#} {}: {error:#}", module.name);
            }
        }
    }
    if failed > 0 && wanted.modules.len() > 1 {
        output::println!("{failed} of {} modules can't serve", wanted.modules.len());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is to be built.
struct BuildTarget {
    /// The modules, and how each is built.
    modules: Vec<(Module, BuildCommand)>,
    /// What compiles them, and keeps that for `modhost test`.
    engine: Engine,
}

fn wanted(args: &BuildArgs) -> anyhow::Result<BuildTarget> {
    let settings = args.file.load()?;
    let modules: Vec<&Module> = match args.modules.is_empty() {
        true => settings.modules.iter().filter(|module| module.build.is_some()).collect(),
        false => args.modules.iter().map(|name| super::module(&settings, name)).collect::<Result<_, _>>()?,
    };
    if modules.is_empty() {
        bail!("no module in {} has a `build`, the command that makes its component", settings.file.display());
    }
    let command = |module: &Module| {
        BuildCommand::of(module, &settings.file).with_context(|| {
            format!("{}: {} has no `build`, the command that makes its component", module.place, module.name)
        })
    };
    let modules = modules.into_iter().map(|module| Ok((module.clone(), command(module)?)));
    let modules = modules.collect::<anyhow::Result<_>>()?;
    Ok(BuildTarget { modules, engine: super::keeping_engine(&settings, 1)? })
}

/// Runs a module's build command, and looks at the component; says what it is like.
async fn build(module: &Module, command: &BuildCommand, engine: &Engine) -> anyhow::Result<String> {
    let started = Instant::now();
    let status = command.run(Purpose::Serve).await.map_err(anyhow::Error::msg)?;
    if !status.success() {
        match command.missing(status) {
            Some(advice) => bail!("{advice}"),
            None => bail!("the build command failed ({status}), as said above"),
        }
    }
    let took = started.elapsed();
    let component = look(&module.component, engine).await?;
    Ok(format!("{}, {component}{ASIDE}; built in {:.1} s{ASIDE:#}", module.component.display(), took.as_secs_f64()))
}

/// What a component is like, if it can serve.
async fn look(path: &Path, engine: &Engine) -> anyhow::Result<String> {
    if !path.exists() {
        bail!("the build left no {}; `component` in modules.toml should be the file it makes", path.display());
    }
    check::Findings::of_file(path, engine).await?.summary().with_context(|| path.display().to_string())
}
