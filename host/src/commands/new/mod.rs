//! `modhost new`: creates a module from a template, and its entry in `modules.toml`.

mod entry;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use dialoguer::Select;

use super::diagnostics::error_with_help;
use super::help::examples;
use super::{SettingsFile, output, program, shell_word};
use entry::{EntryTarget, ModuleEntry};
use modhost_authoring::bindings;
use modhost_authoring::names::Names;
use modhost_authoring::template::{self, Language, Template};
use modhost_core::plural::counted;

/// Arguments of `modhost new`.
#[derive(clap::Args)]
#[command(after_long_help = examples!(
    "modhost new Mine --lang rust"
    "modhost new Other --lang python --add"
    "modhost new Mine --template my-template --dir modules/mine"
))]
pub struct NewArgs {
    /// Name of the module on the platform
    #[arg(value_name = "NAME")]
    name: String,

    /// Programming language [default: asked for on a terminal]
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    lang: Option<Language>,

    /// Folder of a template to use instead of a built-in one
    #[arg(long, value_name = "DIR", conflicts_with = "lang")]
    template: Option<PathBuf>,

    /// Folder to create [default: the name of the package, beside modules.toml]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Name of the package: lowercase words separated by hyphens [default: derived from NAME]
    #[arg(long, value_name = "NAME")]
    package: Option<String>,

    /// Add the module to an existing modules.toml
    #[arg(long)]
    add: bool,

    #[command(flatten)]
    file: SettingsFile,
}

/// Creates the module. Checks everything before it writes the first file.
pub fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let names = Names::new(&args.name, args.package.as_deref()).map_err(anyhow::Error::msg)?;
    let settings = &args.file.config;
    let beside = settings.parent().unwrap_or(Path::new(""));
    let folder = args.dir.clone().unwrap_or_else(|| beside.join(&names.package));
    ensure_vacant(&folder)?;
    let target = EntryTarget::find(settings, &names)?;
    let template = template(args)?;
    let entry = ModuleEntry::new(template.entry(&names, &entry::path_from(beside, &folder)?));
    let target = target.choose(&entry, args.add)?;

    let files = template.files(&names);
    let cannot_write =
        |(path, error): (PathBuf, io::Error)| anyhow::anyhow!("cannot write {}: {error}", path.display());
    bindings::write(&files, &folder).map_err(cannot_write)?;
    let count = counted(files.len(), "file", "files");
    output::println!("created {}, a module in {} ({count})", folder.display(), template.language());
    target.write(&entry)?;
    print_next_steps(args, &names, &template, &folder);
    Ok(ExitCode::SUCCESS)
}

/// Checks that a folder is empty or missing.
fn ensure_vacant(folder: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(error_with_help(
            format!("the folder {} is not empty", folder.display()),
            "choose another folder with --dir, or remove this one",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => bail!("cannot use {} as the module's folder: {error}", folder.display()),
    }
}

/// Returns the template to use.
fn template(args: &NewArgs) -> anyhow::Result<Template> {
    if let Some(folder) = &args.template {
        return Template::read(folder).context("cannot use the template");
    }
    Ok(Template::of(args.lang.map_or_else(ask_language, Ok)?))
}

/// Asks for the language on the terminal.
///
/// # Errors
///
/// If there is no terminal, or the user cancels.
fn ask_language() -> anyhow::Result<Language> {
    let languages = Language::value_variants();
    let names: Vec<&str> = languages.iter().map(|language| language.folder()).collect();
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(error_with_help("no language is given", format!("choose one with --lang: {}", names.join(", "))));
    }
    let chosen = Select::new().with_prompt("Language").items(&names).default(0).interact();
    chosen.ok().and_then(|number| languages.get(number)).copied().context("no language was selected")
}

/// Prints the commands to run next.
fn print_next_steps(args: &NewArgs, names: &Names, template: &Template, folder: &Path) {
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
    output::println!("\nNext steps (see {}):\n", folder.join("README.md").display());
    for step in steps {
        output::println!("  {step}");
    }
    output::println!("\nThen, in a second terminal:\n");
    output::println!("  {program} send --to {name} \"How much may a hotel room cost in London?\"");
}

/// Returns the text of a new `modules.toml`, and the documents to search that are created with it.
fn initial_files() -> (String, Vec<bindings::File>) {
    let (settings, documents): (Vec<_>, Vec<_>) =
        template::initial_files().into_iter().partition(|file| file.path == Path::new("modules.toml"));
    let text = settings.into_iter().map(|file| String::from_utf8_lossy(&file.content).into_owned()).collect();
    (text, documents)
}
