//! `modhost modules`: shows modules and their versions, and changes which version serves.

mod format;
mod offline;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::HostSettings;
use super::admin::{AdminApi, AdminArgs, OFFLINE_HINT};
use super::help::examples;
use super::output;
use modhost_server::admin_api::{ModuleView, VersionView, operator_name};
use offline::OfflineModules;

/// Arguments of `modhost modules`.
#[derive(Args)]
#[command(after_long_help = examples!(
    "modhost modules"
    "modhost modules show Mine"
    "modhost modules rollback Mine"
    "modhost modules pin Mine 3f9a1c"
    "modhost modules rollback Mine --data-dir .modhost   # on a stopped host"
))]
pub struct ModulesArgs {
    #[command(subcommand)]
    command: Option<ModulesCommand>,
    #[command(flatten)]
    print: PrintArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// The host to work on: a running host or the data directory of a stopped one.
#[derive(Args)]
struct TargetArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Data directory of a stopped host to work on, instead of a running host
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    settings: HostSettings,
}

#[derive(Subcommand)]
enum ModulesCommand {
    /// List modules with their version, deliveries in flight and state (the default)
    #[command(after_long_help = examples!("modhost modules list" "modhost modules list --json"))]
    List,
    /// Show a module's status
    #[command(after_long_help = examples!("modhost modules show Mine"))]
    Show(NameArgs),
    /// Show a module's versions, newest first
    ///
    /// Each with its origin, who requested it, and how it ended.
    #[command(after_long_help = examples!("modhost modules history Mine"))]
    History(NameArgs),
    /// Serve the previous version
    ///
    /// The current file is not used again until it changes, or until `unpin` or `retry`. A second rollback goes one version
    /// further back.
    #[command(after_long_help = examples!("modhost modules rollback Mine"))]
    Rollback(NameArgs),
    /// Serve a version and keep it, even if the file changes
    #[command(after_long_help = examples!("modhost modules history Mine" "modhost modules pin Mine 3f9a1c"))]
    Pin(PinArgs),
    /// Follow the file again, after a pin, a rollback or an aborted canary
    #[command(after_long_help = examples!("modhost modules unpin Mine"))]
    Unpin(NameArgs),
    /// Load a file again that was rejected or rolled back
    #[command(after_long_help = examples!("modhost modules retry Mine"))]
    Retry(NameArgs),
    /// Pause a module: its deliveries wait
    ///
    /// Events are accepted as before, running deliveries finish, and no delivery fails.
    #[command(after_long_help = examples!("modhost modules pause Mine"))]
    Pause(NameArgs),
    /// Resume a paused module
    #[command(after_long_help = examples!("modhost modules resume Mine"))]
    Resume(NameArgs),
    /// Promote the canary: it serves all deliveries now
    #[command(after_long_help = examples!("modhost modules promote Mine"))]
    Promote(NameArgs),
    /// Abort the canary: the previous version serves all deliveries
    ///
    /// The file is not used again until it changes, or until `unpin` or `retry`.
    #[command(after_long_help = examples!("modhost modules abort Mine"))]
    Abort(NameArgs),
}

#[derive(Args)]
struct NameArgs {
    /// Module name
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Args)]
struct PinArgs {
    /// Module name
    #[arg(value_name = "NAME")]
    name: String,
    /// Hash of the version, or a prefix of it
    #[arg(value_name = "HASH")]
    version: String,
}

#[derive(Args)]
struct PrintArgs {
    /// Print JSON: one object, or one object per line for lists
    #[arg(long, global = true)]
    json: bool,
}

/// An operator's command for a module.
#[derive(Clone, Copy)]
enum Order<'a> {
    Rollback,
    /// With a prefix of the version's hash.
    Pin(&'a str),
    Unpin,
    Retry,
    Pause,
    Resume,
    Promote,
    Abort,
}

/// Runs the command.
pub async fn run(args: ModulesArgs) -> anyhow::Result<ExitCode> {
    let modules = Modules::new(args.target)?;
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
        output::print!("{}", format::details(&module));
    }
    Ok(ExitCode::SUCCESS)
}

/// The modules of a running host, or of a stopped one.
enum Modules {
    Running(Box<AdminApi>),
    Offline(OfflineModules),
}

impl Modules {
    fn new(target: TargetArgs) -> anyhow::Result<Self> {
        Ok(match target.data_dir {
            Some(data_dir) => {
                super::check_is_own_storage(&data_dir)?;
                let config = target.settings.config.unwrap_or_else(|| "modules.toml".into());
                Self::Offline(OfflineModules { data_dir, config })
            }
            None => {
                Self::Running(Box::new(AdminApi::new(&target.admin, target.settings.config.as_deref(), OFFLINE_HINT)?))
            }
        })
    }

    async fn list(&self) -> anyhow::Result<Vec<ModuleView>> {
        let api = match self {
            Self::Running(api) => api,
            Self::Offline(offline) => return offline.list().await,
        };
        let response: Value = api.get(&["modules"], &[]).await?;
        Ok(serde_json::from_value(response["modules"].clone())?)
    }

    async fn show(&self, name: &str) -> anyhow::Result<ModuleView> {
        match self {
            Self::Running(api) => api.get(&["modules", name], &[]).await,
            Self::Offline(offline) => offline.show(name).await,
        }
    }

    async fn history(&self, name: &str) -> anyhow::Result<Vec<VersionView>> {
        let api = match self {
            Self::Running(api) => api,
            Self::Offline(offline) => return offline.history(name).await,
        };
        let response: Value = api.get(&["modules", name, "versions"], &[]).await?;
        Ok(serde_json::from_value(response["versions"].clone())?)
    }

    async fn order(&self, name: &str, order: Order<'_>) -> anyhow::Result<ModuleView> {
        let api = match self {
            Self::Running(api) => api,
            Self::Offline(offline) => {
                let by = operator_name(user()).map_err(anyhow::Error::msg)?;
                return offline.order(name, order, &by).await;
            }
        };
        let mut body = json!({ "by": user() });
        let action = match order {
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
        api.post(&["modules", name, action], &body).await
    }
}

/// Returns the user's name from the environment, for the history.
fn user() -> Option<String> {
    ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|it| !it.is_empty()))
}
