//! `new`: a folder with a module to begin with, and its entry in `modules.toml`.

mod entry;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use dialoguer::Select;

use super::{SettingsFile, output, program, shell_word};
use entry::{Entry, EntryPosition};
use modhost_authoring::bindings;
use modhost_authoring::names::Names;
use modhost_authoring::template::{self, Language, Template};
use modhost_core::plural::counted;

/// What `new` can be told.
#[derive(clap::Args)]
pub struct NewArgs {
    /// What the platform calls the module
    #[arg(value_name = "NAME")]
    name: String,

    /// What it is written in [default: asked for, on a terminal]
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    lang: Option<Language>,

    /// Make it from the template in this folder instead of one of those that come along
    #[arg(long, value_name = "DIR", conflicts_with = "lang")]
    template: Option<PathBuf>,

    /// The folder to make [default: the package's name, beside modules.toml]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// What its package is called: lower-case words with dashes [default: made from NAME]
    #[arg(long, value_name = "NAME")]
    package: Option<String>,

    /// Put its entry into modules.toml, too
    #[arg(long)]
    add: bool,

    #[command(flatten)]
    file: SettingsFile,
}

/// Makes the module. Nothing is written unless all of it can be.
pub fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let names = Names::new(&args.name, args.package.as_deref()).map_err(anyhow::Error::msg)?;
    let settings = &args.file.config;
    let beside = settings.parent().unwrap_or(Path::new(""));
    let folder = args.dir.clone().unwrap_or_else(|| beside.join(&names.package));
    vacant(&folder)?;
    let place = EntryPosition::find(settings, &names)?;
    let template = template(args)?;
    let entry = Entry::new(template.entry(&names, &entry::seen_from(beside, &folder)?));
    let place = place.with(&entry, args.add)?;

    let files = template.files(&names);
    let unwritten = |(path, error): (PathBuf, io::Error)| anyhow::anyhow!("can't write {}: {error}", path.display());
    bindings::write(&files, &folder).map_err(unwritten)?;
    let count = counted(files.len(), "file", "files");
    output::println!("{}: a module in {}, {count}", folder.display(), template.language());
    place.write(&entry)?;
    tell(args, &names, &template, &folder);
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that nothing is written over.
fn vacant(folder: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            bail!("there is something in {} already; name another folder with --dir, or remove it", folder.display())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => bail!("{} can't be the module's folder: {error}", folder.display()),
    }
}

/// The template that is wanted.
fn template(args: &NewArgs) -> anyhow::Result<Template> {
    if let Some(folder) = &args.template {
        return Template::read(folder).context("the template can't be used");
    }
    Ok(Template::of(args.lang.map_or_else(ask, Ok)?))
}

/// Asks for the language, if there is somebody to ask.
fn ask() -> anyhow::Result<Language> {
    let languages = Language::value_variants();
    let names: Vec<&str> = languages.iter().map(|language| language.folder()).collect();
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        bail!("which language? Say it with --lang: {}", names.join(", "));
    }
    let chosen = Select::new().with_prompt("Which language").items(&names).default(0).interact();
    chosen.ok().and_then(|number| languages.get(number)).copied().context("no language was chosen")
}

/// Says what to do next.
fn tell(args: &NewArgs, names: &Names, template: &Template, folder: &Path) {
    let program = program();
    let config = match args.file.config == Path::new("modules.toml") {
        true => String::new(),
        false => format!(" --config {}", shell_word(&args.file.config.to_string_lossy())),
    };
    let name = shell_word(&names.module);
    let mut steps = Vec::new();
    if !template.setup().is_empty() {
        steps.push(format!("cd {}", shell_word(&folder.to_string_lossy())));
        steps.extend(template.setup().iter().cloned());
        steps.push("cd -".to_owned());
    }
    steps.extend(["build", "test"].map(|command| format!("{program} {command}{config} {name}")));
    steps.push(format!("{program} dev{config}"));
    output::println!("\nThen, as {} tells:\n", folder.join("README.md").display());
    for step in steps {
        output::println!("  {step}");
    }
    output::println!("\nand, while that runs, in another terminal:\n");
    output::println!("  {program} send --to {name} \"How much may a hotel room cost in London?\"");
}

/// What is written where there is no `modules.toml`: its text, and documents to search.
fn first() -> (String, Vec<bindings::File>) {
    let (settings, others): (Vec<_>, Vec<_>) =
        template::first().into_iter().partition(|file| file.path == Path::new("modules.toml"));
    let text = settings.into_iter().map(|file| String::from_utf8_lossy(&file.content).into_owned()).collect();
    (text, others)
}
