//! `modhost modules`: which versions serve, and what a person may say about them.

mod tell;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin::{AdminApi, AdminArgs};
use crate::console::{ModuleView, VersionView};

/// List modules and their versions, go back to one, pin one, pause a module, decide on a trial.
///
/// Works on a running host through its admin address. What is said here lasts across restarts. The exit code is 0 if it
/// is done, 1 if it can't be.
#[derive(Args)]
pub struct ModulesArgs {
    #[command(subcommand)]
    command: Option<ModulesCommand>,
    #[command(flatten)]
    print: PrintArgs,
    #[command(flatten)]
    admin: AdminArgs,
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
    /// Let deliveries wait; those that run end, none fails, and events are taken as before
    Pause(NameArgs),
    /// Let deliveries that wait begin
    Resume(NameArgs),
    /// Let the version on trial serve now
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

/// Does what is asked.
pub async fn run(args: ModulesArgs) -> anyhow::Result<ExitCode> {
    let host = Host { api: AdminApi::new(&args.admin, "")?, json: args.print.json };
    match args.command {
        None | Some(ModulesCommand::List) => host.list().await?,
        Some(ModulesCommand::Show(args)) => host.show(&args.name).await?,
        Some(ModulesCommand::History(args)) => host.history(&args.name).await?,
        Some(ModulesCommand::Pin(args)) => host.order(&args.name, "pin", Some(&args.version)).await?,
        Some(ModulesCommand::Rollback(args)) => host.order(&args.name, "rollback", None).await?,
        Some(ModulesCommand::Unpin(args)) => host.order(&args.name, "unpin", None).await?,
        Some(ModulesCommand::Pause(args)) => host.order(&args.name, "pause", None).await?,
        Some(ModulesCommand::Resume(args)) => host.order(&args.name, "resume", None).await?,
        Some(ModulesCommand::Promote(args)) => host.order(&args.name, "promote", None).await?,
        Some(ModulesCommand::Abort(args)) => host.order(&args.name, "abort", None).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The running host.
struct Host {
    api: AdminApi,
    json: bool,
}

impl Host {
    async fn list(&self) -> anyhow::Result<()> {
        let answer: Value = self.api.get(&["modules"], &[]).await?;
        let modules: Vec<ModuleView> = serde_json::from_value(answer["modules"].clone())?;
        let text = if self.json { tell::lines(&modules)? } else { tell::table(&modules) };
        anstream::print!("{text}");
        Ok(())
    }

    async fn show(&self, name: &str) -> anyhow::Result<()> {
        let module: ModuleView = self.api.get(&["modules", name], &[]).await?;
        self.print(&module)
    }

    async fn history(&self, name: &str) -> anyhow::Result<()> {
        let answer: Value = self.api.get(&["modules", name, "versions"], &[]).await?;
        let versions: Vec<VersionView> = serde_json::from_value(answer["versions"].clone())?;
        let text = if self.json { tell::lines(&versions)? } else { tell::history(&versions) };
        anstream::print!("{text}");
        Ok(())
    }

    async fn order(&self, name: &str, order: &str, version: Option<&str>) -> anyhow::Result<()> {
        let mut body = json!({ "by": user() });
        if let Some(version) = version {
            body["version"] = version.into();
        }
        let module: ModuleView = self.api.post(&["modules", name, order], &body).await?;
        self.print(&module)
    }

    fn print(&self, module: &ModuleView) -> anyhow::Result<()> {
        if self.json {
            anstream::println!("{}", serde_json::to_string_pretty(module)?);
        } else {
            anstream::print!("{}", tell::story(module));
        }
        Ok(())
    }
}

/// Who asks, as the system knows them; none if it doesn't.
fn user() -> Option<String> {
    ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|it| !it.is_empty()))
}
