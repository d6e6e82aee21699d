//! `modhost hosts`: shows the hosts that share the storage of a running host.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::HostSettings;
use super::admin::{AdminApi, AdminArgs};
use super::help::examples;
use super::{format_table, output};
use modhost_server::admin_api::HostView;

/// Arguments of `modhost hosts`.
#[derive(Args)]
#[command(after_long_help = examples!("modhost hosts" "modhost hosts --json"))]
pub struct HostsArgs {
    /// Print JSON: one object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    settings: HostSettings,
}

/// Runs the command.
pub async fn run(args: HostsArgs) -> anyhow::Result<ExitCode> {
    let api = AdminApi::new(&args.admin, args.settings.config.as_deref(), "")?;
    let response: Value = api.get(&["hosts"], &[]).await?;
    let hosts: Vec<HostView> = serde_json::from_value(response["hosts"].clone())?;
    output::print!("{}", if args.json { output::json_lines(&hosts)? } else { table(&hosts) });
    Ok(ExitCode::SUCCESS)
}

/// Formats a table with one line per host.
fn table(hosts: &[HostView]) -> String {
    let rows = hosts.iter().map(|host| {
        [
            if host.this_host { format!("{} (answers)", host.name) } else { host.name.clone() },
            if host.alive { "alive" } else { "gone" }.to_owned(),
            host.admin.clone().unwrap_or_else(|| "-".to_owned()),
            host.version.clone(),
            if host.same_settings { "same" } else { "differ" }.to_owned(),
            host.modules.to_string(),
            host.joined_at.clone(),
            host.seen_at.clone(),
        ]
    });
    format_table(["host", "state", "admin", "version", "settings", "modules", "joined", "seen"], rows.collect())
}
