//! `modhost tenants`: shows what each tenant of a running host uses.

mod format;

use std::cmp::Ordering;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::HostSettings;
use super::admin::{AdminApi, AdminArgs};
use super::help::examples;
use super::output;
use modhost_server::admin_api::TenantView;

/// Arguments of `modhost tenants`.
#[derive(Args)]
#[command(after_long_help = examples!(
    "modhost tenants"
    "modhost tenants --sort memory"
    "modhost tenants show acme"
    "modhost tenants --sort waiting --json"
))]
pub struct TenantsArgs {
    #[command(subcommand)]
    command: Option<TenantsCommand>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    settings: HostSettings,
}

#[derive(Subcommand)]
enum TenantsCommand {
    /// List tenants with what they use (the default)
    ///
    /// CPU time and calls count from the start of the host. The share is the tenant's part of the CPU time that all modules used
    /// in the last minute. Everything else is the current state.
    #[command(after_long_help = examples!("modhost tenants list --sort journal"))]
    List,
    /// Show what a tenant uses
    #[command(after_long_help = examples!("modhost tenants show acme"))]
    Show(NameArgs),
}

#[derive(Args)]
struct NameArgs {
    /// Tenant name
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Args)]
struct ListArgs {
    /// Column to sort the list by: the tenant that uses most comes first
    #[arg(long, global = true, value_name = "COLUMN", value_enum, default_value_t = Column::Cpu)]
    sort: Column,
    /// Print JSON: one object, or one object per line for lists
    #[arg(long, global = true)]
    json: bool,
}

/// A column that the list can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Column {
    /// By name
    Name,
    /// By the weight of the CPU time
    Weight,
    /// By running deliveries
    Running,
    /// By waiting deliveries
    Waiting,
    /// By the longest wait of a delivery that is due
    LongestWait,
    /// By CPU time since the start of the host
    Cpu,
    /// By the share of the CPU time in the last minute
    CpuShare,
    /// By memory of running deliveries
    Memory,
    /// By bytes in the journal
    Journal,
    /// By calls since the start of the host
    Calls,
    /// By connections in use
    Connections,
}

impl Column {
    /// Compares two tenants: the one that uses more comes first, and equal ones are in the order of their names.
    fn compare(self, a: &TenantView, b: &TenantView) -> Ordering {
        let descending = |value: fn(&TenantView) -> u64| value(b).cmp(&value(a));
        let descending_float = |value: fn(&TenantView) -> f64| value(b).total_cmp(&value(a));
        let by_column = match self {
            Self::Name => Ordering::Equal,
            Self::Weight => descending(|tenant| tenant.cpu_weight.unwrap_or_default().into()),
            Self::Running => descending(|tenant| tenant.running),
            Self::Waiting => descending(|tenant| tenant.waiting),
            Self::LongestWait => descending_float(|tenant| tenant.longest_wait_seconds.unwrap_or_default()),
            Self::Cpu => descending_float(|tenant| tenant.cpu_seconds),
            Self::CpuShare => descending_float(|tenant| tenant.cpu_share.unwrap_or_default()),
            Self::Memory => descending(|tenant| tenant.memory_bytes),
            Self::Journal => descending(|tenant| tenant.journal_bytes),
            Self::Calls => descending(|tenant| tenant.calls.values().sum()),
            Self::Connections => descending(|tenant| tenant.connections.values().sum()),
        };
        by_column.then_with(|| a.name.cmp(&b.name))
    }
}

/// Runs the command.
pub async fn run(args: TenantsArgs) -> anyhow::Result<ExitCode> {
    let api = AdminApi::new(&args.admin, args.settings.config.as_deref(), "")?;
    let ListArgs { sort, json } = args.list;
    match &args.command {
        None | Some(TenantsCommand::List) => {
            let response: Value = api.get(&["tenants"], &[]).await?;
            let mut tenants: Vec<TenantView> = serde_json::from_value(response["tenants"].clone())?;
            tenants.sort_by(|a, b| sort.compare(a, b));
            output::print!("{}", if json { output::json_lines(&tenants)? } else { format::table(&tenants) });
        }
        Some(TenantsCommand::Show(NameArgs { name })) => {
            let tenant: TenantView = api.get(&["tenants", name], &[]).await?;
            output::print!("{}", if json { output::pretty_json(&tenant)? } else { format::details(&tenant) });
        }
    }
    Ok(ExitCode::SUCCESS)
}
