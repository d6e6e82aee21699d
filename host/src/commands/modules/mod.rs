//! `modhost modules`: which versions serve, and what a person may say about them.

mod format;
mod offline;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::HostSettings;
use super::admin::{AT_REST, AdminApi, AdminArgs};
use super::output;
use modhost_server::admin_api::{ModuleView, VersionView, asking};
use offline::Directory;

/// What `modules` can be told.
#[derive(Args)]
pub struct ModulesArgs {
    #[command(subcommand)]
    command: Option<ModulesCommand>,
    #[command(flatten)]
    print: PrintArgs,
    #[command(flatten)]
    from: FromArgs,
}

/// Where modules are looked up.
#[derive(Args)]
struct FromArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Work on the data directory of a host that doesn't run
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    settings: HostSettings,
}

#[derive(Subcommand)]
enum ModulesCommand {
    /// List modules: version, since when, how they stand (what `modhost modules` alone does)
    List,
    /// Tell how one stands
    Show(NameArgs),
    /// Tell what happened to its versions, newest first: where each came from, who asked, how it ended
    History(NameArgs),
    /// Go back to the version before; the file isn't taken again until it changes
    Rollback(NameArgs),
    /// Stay on a version, whatever the file says
    Pin(PinArgs),
    /// Follow the file again, after a pin, a rollback or a trial that went back
    Unpin(NameArgs),
    /// Take in the file again, although what it holds was refused or was gone back from
    Retry(NameArgs),
    /// Let deliveries wait; those that run end, none fails, and events are taken as before
    Pause(NameArgs),
    /// Let deliveries that wait begin
    Resume(NameArgs),
    /// Let the version on trial serve now, whatever its trial has shown so far
    Promote(NameArgs),
    /// End the trial of a version; the one before goes on, and the file isn't taken again until it changes
    Abort(NameArgs),
}

#[derive(Args)]
struct NameArgs {
    /// The module
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Args)]
struct PinArgs {
    /// The module
    #[arg(value_name = "NAME")]
    name: String,
    /// The version: its hash, or the beginning of it
    #[arg(value_name = "HASH")]
    version: String,
}

#[derive(Args)]
struct PrintArgs {
    /// Print JSON: one object, or one a line
    #[arg(long, global = true)]
    json: bool,
}

/// Something a person asks of a module.
#[derive(Clone, Copy)]
enum Order<'a> {
    Rollback,
    /// With the beginning of a hash.
    Pin(&'a str),
    Unpin,
    Retry,
    Pause,
    Resume,
    Promote,
    Abort,
}

/// Does what is asked.
pub async fn run(args: ModulesArgs) -> anyhow::Result<ExitCode> {
    let modules = Modules::new(args.from)?;
    let json = args.print.json;
    let (name, order) = match &args.command {
        None | Some(ModulesCommand::List) => {
            let list = modules.list().await?;
            output::print!("{}", if json { output::json_lines(&list)? } else { format::table(&list) });
            return Ok(ExitCode::SUCCESS);
        }
        Some(ModulesCommand::History(args)) => {
            let history = modules.history(&args.name).await?;
            output::print!("{}", if json { output::json_lines(&history)? } else { format::history(&history) });
            return Ok(ExitCode::SUCCESS);
        }
        Some(ModulesCommand::Show(args)) => (&args.name, None),
        Some(ModulesCommand::Pin(args)) => (&args.name, Some(Order::Pin(&args.version))),
        Some(ModulesCommand::Rollback(args)) => (&args.name, Some(Order::Rollback)),
        Some(ModulesCommand::Unpin(args)) => (&args.name, Some(Order::Unpin)),
        Some(ModulesCommand::Retry(args)) => (&args.name, Some(Order::Retry)),
        Some(ModulesCommand::Pause(args)) => (&args.name, Some(Order::Pause)),
        Some(ModulesCommand::Resume(args)) => (&args.name, Some(Order::Resume)),
        Some(ModulesCommand::Promote(args)) => (&args.name, Some(Order::Promote)),
        Some(ModulesCommand::Abort(args)) => (&args.name, Some(Order::Abort)),
    };
    let module = match order {
        None => modules.show(name).await?,
        Some(order) => modules.order(name, order).await?,
    };
    if json {
        output::print!("{}", output::pretty_json(&module)?);
    } else {
        output::print!("{}", format::story(&module));
    }
    Ok(ExitCode::SUCCESS)
}

/// Where modules are looked up: a running host's admin API, or the data directory of one that doesn't run.
enum Modules {
    Running(Box<AdminApi>),
    AtRest(Directory),
}

impl Modules {
    fn new(from: FromArgs) -> anyhow::Result<Self> {
        Ok(match from.data_dir {
            Some(data_dir) => {
                let config = from.settings.config.unwrap_or_else(|| "modules.toml".into());
                Self::AtRest(Directory { data_dir, config })
            }
            None => Self::Running(Box::new(AdminApi::new(&from.admin, from.settings.config.as_deref(), AT_REST)?)),
        })
    }

    async fn list(&self) -> anyhow::Result<Vec<ModuleView>> {
        let api = match self {
            Self::Running(api) => api,
            Self::AtRest(directory) => return directory.list().await,
        };
        let answer: Value = api.get(&["modules"], &[]).await?;
        Ok(serde_json::from_value(answer["modules"].clone())?)
    }

    async fn show(&self, name: &str) -> anyhow::Result<ModuleView> {
        match self {
            Self::Running(api) => api.get(&["modules", name], &[]).await,
            Self::AtRest(directory) => directory.show(name).await,
        }
    }

    async fn history(&self, name: &str) -> anyhow::Result<Vec<VersionView>> {
        let api = match self {
            Self::Running(api) => api,
            Self::AtRest(directory) => return directory.history(name).await,
        };
        let answer: Value = api.get(&["modules", name, "versions"], &[]).await?;
        Ok(serde_json::from_value(answer["versions"].clone())?)
    }

    async fn order(&self, name: &str, order: Order<'_>) -> anyhow::Result<ModuleView> {
        let api = match self {
            Self::Running(api) => api,
            Self::AtRest(directory) => {
                let by = asking(user()).map_err(anyhow::Error::msg)?;
                return directory.order(name, order, &by).await;
            }
        };
        let mut body = json!({ "by": user() });
        let word = match order {
            Order::Rollback => "rollback",
            Order::Pin(version) => {
                body["version"] = version.into();
                "pin"
            }
            Order::Unpin => "unpin",
            Order::Retry => "retry",
            Order::Pause => "pause",
            Order::Resume => "resume",
            Order::Promote => "promote",
            Order::Abort => "abort",
        };
        api.post(&["modules", name, word], &body).await
    }
}

/// Who asks, as the system knows them; none if it doesn't.
fn user() -> Option<String> {
    ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|it| !it.is_empty()))
}
