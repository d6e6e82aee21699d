//! `modhost deliveries`: what became of events, and what can be done about it.

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
use super::output;
use modhost_core::sanitize;
use modhost_server::admin_api::DeliveryView;
use modhost_storage::journal::State;
use records::{RecordFilter, Records};

/// How many deliveries a list has unless it is asked for more.
const LISTED: u32 = 50;

/// How often a list that is followed is asked for again.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// What `deliveries` can be told.
#[derive(Args)]
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
    /// List deliveries, newest first (what `modhost deliveries` alone does)
    List(ListArgs),
    /// Tell the whole story of one: changes, attempts, log lines, every call with its answer
    Show(ShowArgs),
    /// Send deliveries that have ended on their way again
    Retry(RetryArgs),
    /// End deliveries that wait; their users read that there is no answer
    Drop(DropArgs),
    /// Run a recorded delivery against another component, with the recorded answers; no call leaves this machine
    Replay(replay::ReplayArgs),
    /// List verified requests that could not be read as events, or show one with its body
    ///
    /// Their senders were told to come back, so nothing is acknowledged and lost. What is shown can be sent again to a host
    /// that reads it: modhost deliveries unreadable ID --body > event.json, then modhost send --source NAME event.json.
    Unreadable(unreadable::UnreadableArgs),
}

/// Where deliveries are looked up.
#[derive(Args, Clone)]
pub struct FromArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Read the data directory of a host that doesn't run
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Args)]
struct ListArgs {
    /// Only those in this state
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Only those to this module
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only those of the event with this id
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Only those that came or changed since: a time (2026-01-31T08:00:00Z) or so long ago (2h)
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<SystemTime>,
    /// So many at the most
    #[arg(long, value_name = "N", default_value_t = LISTED)]
    limit: u32,
    /// Go on with what changes, until stopped
    #[arg(long)]
    follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    /// Whether anything of it was asked for.
    fn is_given(&self) -> bool {
        let Self { state, module, tenant, event, since, limit, follow, json } = self;
        let filtered = state.is_some() || module.is_some() || tenant.is_some() || event.is_some() || since.is_some();
        filtered || *limit != LISTED || *follow || *json
    }
}

#[derive(Args)]
struct ShowArgs {
    /// The delivery
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RetryArgs {
    /// The deliveries
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Forget the answers they got before: every call is made again
    #[arg(long)]
    fresh: bool,
}

#[derive(Args)]
struct DropArgs {
    /// The deliveries
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Does what is asked.
pub async fn run(args: DeliveriesArgs) -> anyhow::Result<ExitCode> {
    // Left to clap, --admin and MODHOST_ADMIN could not stand before a subcommand either.
    if args.command.is_some() && args.list.is_given() {
        bail!("what a list is to show is said behind its name: modhost deliveries list --state dead");
    }
    let config = args.settings.config.as_deref();
    if let Some(DeliveriesCommand::Unreadable(unreadable)) = &args.command {
        return unreadable::run(&args.from, config, unreadable).await;
    }
    let records = Records::open(&args.from, config).await?;
    match args.command {
        // Looked up elsewhere, above.
        Some(DeliveriesCommand::Unreadable(_)) => Ok(ExitCode::SUCCESS),
        None => list(&records, &args.list).await,
        Some(DeliveriesCommand::List(args)) => list(&records, &args).await,
        Some(DeliveriesCommand::Show(args)) => show(&records, &args).await,
        Some(DeliveriesCommand::Retry(args)) => each(&args.ids, async |id| records.retry(id, args.fresh).await).await,
        Some(DeliveriesCommand::Drop(args)) => {
            each(&args.ids, async |id| records.drop_waiting(id, args.reason.as_deref()).await).await
        }
        Some(DeliveriesCommand::Replay(args)) => replay::run(&records, &args, config).await,
    }
}

async fn list(records: &Records, args: &ListArgs) -> anyhow::Result<ExitCode> {
    if args.limit == 0 {
        bail!("--limit has to be at least 1");
    }
    let mut wanted = RecordFilter {
        state: args.state,
        module: args.module.clone(),
        tenant: args.tenant.clone(),
        event: args.event.clone(),
        since: args.since,
        limit: args.limit,
    };
    let found = records.list(&wanted).await?;
    print(&found, args.json, true)?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown: Vec<DeliveryView> = found;
    // Nobody is to be told of what comes when nobody reads.
    while !output::is_closed() {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let latest = shown.iter().map(|known| known.changed_at.as_str()).max();
        wanted.since = latest.and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(SystemTime::from).or(wanted.since);
        let mut news = records.list(&wanted).await?;
        news.retain(|delivery| !shown.contains(delivery));
        news.reverse();
        print(&news, args.json, false)?;
        shown.retain(|known| news.iter().all(|new| new.id != known.id));
        shown.extend(news);
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
        output::print!("{}", format::story(&details));
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something to each delivery; one that can't be done doesn't keep the others from it.
async fn each(ids: &[String], act: impl AsyncFn(&str) -> anyhow::Result<String>) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        match act(id).await {
            Ok(state) => output::println!("{}  {}", sanitize::line(id), sanitize::line(&state)),
            Err(error) => {
                output::eprintln!("error: {error:#}");
                code = ExitCode::from(1);
            }
        }
    }
    Ok(code)
}

fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.into());
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "write a time like 2026-01-31T08:00:00Z, or 2h for two hours ago")?;
    SystemTime::now().checked_sub(ago).ok_or_else(|| "that is too long ago".to_owned())
}
