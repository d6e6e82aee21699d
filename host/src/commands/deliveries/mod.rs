//! `modhost deliveries`: lists and shows deliveries; retries, drops and replays them.

mod format;
pub(super) mod records;
mod replay;
mod unreadable;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::{Args, Subcommand};

use super::HostSettings;
use super::admin::AdminArgs;
use super::diagnostics::{self, error_with_help};
use super::help::examples;
use super::output;
use modhost_core::sanitize;
use modhost_server::admin_api::DeliveryView;
use modhost_storage::journal::State;
use records::{RecordFilter, Records};

/// Default maximum number of deliveries to list.
const DEFAULT_LIMIT: u32 = 50;

/// How often `--follow` polls.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `modhost deliveries`.
#[derive(Args)]
#[command(after_long_help = examples!(
    "modhost deliveries --state dead"
    "modhost deliveries --module Mine --since 2h --json"
    "modhost deliveries show ID"
    "modhost deliveries retry ID"
    "modhost deliveries --data-dir .modhost   # of a stopped host"
))]
pub struct DeliveriesArgs {
    #[command(subcommand)]
    command: Option<DeliveriesCommand>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    settings: HostSettings,
}

#[derive(Subcommand)]
enum DeliveriesCommand {
    /// List deliveries, newest first (the default)
    #[command(after_long_help = examples!(
        "modhost deliveries list --state dead --limit 10"
        "modhost deliveries list --since 2026-01-31T08:00:00Z"
        "modhost deliveries list --follow"
    ))]
    List(ListArgs),
    /// Show a delivery: its state changes, attempts, log lines and calls
    #[command(after_long_help = examples!("modhost deliveries show ID" "modhost deliveries show ID --json"))]
    Show(ShowArgs),
    /// Retry deliveries that have ended
    ///
    /// A retry uses the recorded results of the calls of earlier attempts, unless --fresh is given.
    #[command(after_long_help = examples!(
        "modhost deliveries retry ID"
        "modhost deliveries retry ID ID --fresh"
    ))]
    Retry(RetryArgs),
    /// Drop waiting deliveries; their users get a message that there is no answer
    #[command(after_long_help = examples!("modhost deliveries drop ID --reason \"sent by mistake\""))]
    Drop(DropArgs),
    /// Run a recorded delivery against another component
    ///
    /// Calls of the component are answered with the recorded results, and none leaves this machine. The component runs with the
    /// settings that the delivery's module has in modules.toml. A call with different arguments gets the result of the recorded
    /// call of the same function. A call that was not recorded gets a made-up result if it changes something, and an error if
    /// it reads something. Exit code: 0 if all calls are the same, 1 if one differs or the module fails.
    #[command(after_long_help = examples!(
        "modhost deliveries replay ID --component mine/module.wasm"
        "modhost deliveries replay ID --component new.wasm --json"
    ))]
    Replay(replay::ReplayArgs),
    /// List verified requests that could not be read as events, or show one
    ///
    /// The host refused these requests with a status that asks the sender to try again, so no event is lost. To send one again
    /// to a host that can read it, save its body and use `modhost send --source`.
    #[command(after_long_help = examples!(
        "modhost deliveries unreadable --source unique"
        "modhost deliveries unreadable ID --body > event.json"
        "modhost send --source unique event.json"
    ))]
    Unreadable(unreadable::UnreadableArgs),
}

/// The host to read from: a running host or the data directory of a stopped one.
#[derive(Args, Clone)]
pub struct FromArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Data directory of a stopped host to read, instead of a running host
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Args)]
struct ListArgs {
    /// Filter by state: waiting, running, completed, dead or dropped
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Filter by module
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// Filter by tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Filter by the id of the event
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Filter by the last change: a time (2026-01-31T08:00:00Z), or a duration before now (2h)
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<SystemTime>,
    /// Maximum number of deliveries to list
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: u32,
    /// Continue to print deliveries as they change, until interrupted
    #[arg(long)]
    follow: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    /// Returns whether one of the flags was given.
    fn is_given(&self) -> bool {
        let Self { state, module, tenant, event, since, limit, follow, json } = self;
        let filtered = state.is_some() || module.is_some() || tenant.is_some() || event.is_some() || since.is_some();
        filtered || *limit != DEFAULT_LIMIT || *follow || *json
    }
}

#[derive(Args)]
struct ShowArgs {
    /// Delivery id
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RetryArgs {
    /// Delivery ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Make every call again, instead of using the recorded results
    #[arg(long)]
    fresh: bool,
}

#[derive(Args)]
struct DropArgs {
    /// Delivery ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Reason, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Runs the command.
pub async fn run(args: DeliveriesArgs) -> anyhow::Result<ExitCode> {
    // clap's `args_conflicts_with_subcommands` would also reject --admin and MODHOST_ADMIN before a subcommand.
    if args.command.is_some() && args.list.is_given() {
        return Err(error_with_help(
            "flags of `list` are not allowed before another command",
            "put them after the command: modhost deliveries list --state dead",
        ));
    }
    let config = args.settings.config.as_deref();
    if let Some(DeliveriesCommand::Unreadable(unreadable)) = &args.command {
        return unreadable::run(&args.from, config, unreadable).await;
    }
    let records = Records::open(&args.from, config).await?;
    match args.command {
        // Handled above.
        Some(DeliveriesCommand::Unreadable(_)) => Ok(ExitCode::SUCCESS),
        None => list(&records, &args.list).await,
        Some(DeliveriesCommand::List(args)) => list(&records, &args).await,
        Some(DeliveriesCommand::Show(args)) => show(&records, &args).await,
        Some(DeliveriesCommand::Retry(args)) => {
            for_each(&args.ids, async |id| records.retry(id, args.fresh).await).await
        }
        Some(DeliveriesCommand::Drop(args)) => {
            for_each(&args.ids, async |id| records.drop_waiting(id, args.reason.as_deref()).await).await
        }
        Some(DeliveriesCommand::Replay(args)) => replay::run(&records, &args, config).await,
    }
}

async fn list(records: &Records, args: &ListArgs) -> anyhow::Result<ExitCode> {
    if args.limit == 0 {
        bail!("--limit must be at least 1");
    }
    let mut filter = RecordFilter {
        state: args.state,
        module: args.module.clone(),
        tenant: args.tenant.clone(),
        event: args.event.clone(),
        since: args.since,
        limit: args.limit,
    };
    let found = records.list(&filter).await?;
    print(&found, args.json, true)?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown: Vec<DeliveryView> = found;
    while !output::is_closed() {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        let latest = shown.iter().map(|known| known.changed_at.as_str()).max();
        filter.since = latest.and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(SystemTime::from).or(filter.since);
        let mut changed = records.list(&filter).await?;
        changed.retain(|delivery| !shown.contains(delivery));
        changed.reverse();
        print(&changed, args.json, false)?;
        shown.retain(|known| changed.iter().all(|new| new.id != known.id));
        shown.extend(changed);
        let surplus = shown.len().saturating_sub(10 * args.limit as usize);
        shown.drain(..surplus);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(deliveries: &[DeliveryView], json: bool, heading: bool) -> anyhow::Result<()> {
    let text = if json { output::json_lines(deliveries)? } else { format::table(deliveries, heading) };
    output::print!("{text}");
    Ok(())
}

async fn show(records: &Records, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let details = records.show(&args.id).await?;
    if args.json {
        output::print!("{}", output::pretty_json(&details)?);
    } else {
        output::print!("{}", format::details(&details));
    }
    Ok(ExitCode::SUCCESS)
}

/// Applies an action to each delivery. If it fails for one, the error is printed and the next one follows.
async fn for_each(ids: &[String], action: impl AsyncFn(&str) -> anyhow::Result<String>) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        match action(id).await {
            Ok(state) => output::println!("{}  {}", sanitize::line(id), sanitize::line(&state)),
            Err(error) => {
                diagnostics::report(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn parse_since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.into());
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "expected a time like 2026-01-31T08:00:00Z, or a duration like 2h for two hours ago")?;
    SystemTime::now().checked_sub(ago).ok_or_else(|| "the time is too long ago".to_owned())
}
