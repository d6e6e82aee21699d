//! `modhost deliveries unreadable`: verified requests that could not be read as events.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde_json::{Value, json};

use super::FromArgs;
use super::records::read_only;
use crate::commands::admin::{AdminApi, OFFLINE_HINT};
use crate::commands::format_table;
use crate::commands::output::{self, truncate_for_terminal};
use modhost_core::sanitize::{line, lines};
use modhost_server::admin_api::{UnreadableDetailsView, UnreadableView};
use modhost_storage::unreadable::{UnreadableLimits, UnreadableStore};

/// Maximum length of a body on a terminal, in characters. `--body` prints it whole.
const MAX_BODY_CHARS: usize = 2_000;

#[derive(Args)]
pub(super) struct UnreadableArgs {
    /// Id of a request to show, with its body
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Filter by source
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    source: Option<String>,
    /// Print only the body, unchanged
    #[arg(long, requires = "id", conflicts_with_all = ["json", "drop"])]
    body: bool,
    /// Delete the request
    #[arg(long, requires = "id", conflicts_with = "json")]
    drop: bool,
    /// Print JSON: one object, or one object per line for lists
    #[arg(long)]
    json: bool,
}

/// The unreadable requests of a running host, or of a stopped one.
enum UnreadableRequests {
    Running(AdminApi),
    Offline(UnreadableStore),
}

/// Lists the requests, or shows or deletes one.
pub(super) async fn run(from: &FromArgs, config: Option<&Path>, args: &UnreadableArgs) -> anyhow::Result<ExitCode> {
    let requests = match &from.data_dir {
        Some(directory) => UnreadableRequests::Offline(open_offline(directory)?),
        None => UnreadableRequests::Running(AdminApi::new(&from.admin, config, OFFLINE_HINT)?),
    };
    let Some(id) = &args.id else {
        let found = requests.list(args.source.as_deref()).await?;
        output::print!("{}", if args.json { output::json_lines(&found)? } else { table(&found) });
        return Ok(ExitCode::SUCCESS);
    };
    if args.drop {
        requests.remove(id).await?;
        output::println!("{}  dropped", line(id));
        return Ok(ExitCode::SUCCESS);
    }
    let details = requests.show(id).await?;
    if args.body {
        std::io::stdout().write_all(&BASE64.decode(&details.body_base64)?)?;
    } else if args.json {
        output::print!("{}", output::pretty_json(&details)?);
    } else {
        output::print!("{}", format_details(&details));
    }
    Ok(ExitCode::SUCCESS)
}

fn open_offline(directory: &Path) -> anyhow::Result<UnreadableStore> {
    if !directory.is_dir() {
        bail!("there is no data directory {}", directory.display());
    }
    Ok(UnreadableStore::open(directory, UnreadableLimits::default()))
}

impl UnreadableRequests {
    async fn list(&self, source: Option<&str>) -> anyhow::Result<Vec<UnreadableView>> {
        match self {
            Self::Running(api) => {
                let query: Vec<_> = source.map(|source| ("source", source.to_owned())).into_iter().collect();
                let response: Value = api.get(&["unreadable"], &query).await?;
                Ok(serde_json::from_value(response["unreadable"].clone())?)
            }
            Self::Offline(store) => {
                let mut records = store.list();
                records.retain(|record| source.is_none_or(|source| record.source == source));
                Ok(records.into_iter().map(UnreadableView::from).collect())
            }
        }
    }

    async fn show(&self, id: &str) -> anyhow::Result<UnreadableDetailsView> {
        match self {
            Self::Running(api) => api.get(&["unreadable", id], &[]).await,
            Self::Offline(store) => {
                let found = store.read(id).await?;
                let (record, body) =
                    found.ok_or_else(|| anyhow!("there is no unreadable request {id} in this data directory"))?;
                Ok(UnreadableDetailsView::new(record, body))
            }
        }
    }

    async fn remove(&self, id: &str) -> anyhow::Result<()> {
        match self {
            Self::Running(api) => api.post::<Value>(&["unreadable", id, "drop"], &json!({})).await.map(drop),
            Self::Offline(_) => Err(read_only()),
        }
    }
}

fn table(found: &[UnreadableView]) -> String {
    if found.is_empty() {
        return "no unreadable requests\n".into();
    }
    let row = |it: &UnreadableView| {
        let status = it.status.map_or("–".to_owned(), |status| status.to_string());
        let reason = truncate_for_terminal(&line(&it.reason), 120);
        [
            it.id.clone(),
            it.source.clone(),
            it.last_at.clone(),
            it.times.to_string(),
            status,
            it.size.to_string(),
            reason,
        ]
    };
    format_table(["request", "source", "last", "count", "status", "bytes", "reason"], found.iter().map(row).collect())
}

fn format_details(details: &UnreadableDetailsView) -> String {
    let it = &details.request;
    let mut text = format!("{}\n  reason   {}\n  source   {}", it.id, line(&it.reason), line(&it.source));
    if let Some(tenant) = &it.tenant {
        text += &format!(" (tenant {})", line(tenant));
    }
    if let Some(status) = it.status {
        text += &format!("\n  answered {status}");
    }
    text += &format!("\n  received {} (count: {}), last {}", it.first_at, it.times, it.last_at);
    for (name, value) in &it.headers {
        text += &format!("\n  header   {}: {}", line(name), line(value));
    }
    text += &format!("\n  body     {} bytes{}", it.size, if it.cut { ", truncated" } else { "" });
    let body = details.body.as_deref().map_or("(not text; --body prints it)".into(), |body| lines(body).into_owned());
    text + "\n\n" + &truncate_for_terminal(&body, MAX_BODY_CHARS) + "\n"
}
