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
use crate::commands::admin::{AT_REST, AdminApi};
use crate::commands::columns;
use crate::commands::output::{self, shortened};
use modhost_core::sanitize::{line, lines};
use modhost_server::admin_api::{UnreadableDetailsView, UnreadableView};
use modhost_storage::unreadable::{Bounds, UnreadableStore};

/// How much of a body is shown; `--body` has it whole.
const SHOWN: usize = 2_000;

#[derive(Args)]
pub(super) struct UnreadableArgs {
    /// Show this one, with its body
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// List only those of this source
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    source: Option<String>,
    /// Print the body alone, byte by byte
    #[arg(long, requires = "id", conflicts_with_all = ["json", "drop"])]
    body: bool,
    /// Remove it
    #[arg(long, requires = "id", conflicts_with = "json")]
    drop: bool,
    /// Print JSON; a list is one object a line
    #[arg(long)]
    json: bool,
}

/// Where requests are looked up.
enum Kept {
    Running(AdminApi),
    AtRest(UnreadableStore),
}

/// Lists them, or shows, prints or removes one.
pub(super) async fn run(from: &FromArgs, config: Option<&Path>, args: &UnreadableArgs) -> anyhow::Result<ExitCode> {
    let kept = match &from.data_dir {
        Some(directory) => Kept::AtRest(at_rest(directory)?),
        None => Kept::Running(AdminApi::new(&from.admin, config, AT_REST)?),
    };
    let Some(id) = &args.id else {
        let found = kept.list(args.source.as_deref()).await?;
        output::print!("{}", if args.json { output::json_lines(&found)? } else { table(&found) });
        return Ok(ExitCode::SUCCESS);
    };
    if args.drop {
        kept.remove(id).await?;
        output::println!("{}  dropped", line(id));
        return Ok(ExitCode::SUCCESS);
    }
    let details = kept.show(id).await?;
    if args.body {
        std::io::stdout().write_all(&BASE64.decode(&details.body_base64)?)?;
    } else if args.json {
        output::print!("{}", output::pretty_json(&details)?);
    } else {
        output::print!("{}", story(&details));
    }
    Ok(ExitCode::SUCCESS)
}

fn at_rest(directory: &Path) -> anyhow::Result<UnreadableStore> {
    if !directory.is_dir() {
        bail!("there is no data directory {}", directory.display());
    }
    Ok(UnreadableStore::open(directory, Bounds::default()))
}

impl Kept {
    async fn list(&self, source: Option<&str>) -> anyhow::Result<Vec<UnreadableView>> {
        match self {
            Self::Running(api) => {
                let query: Vec<_> = source.map(|source| ("source", source.to_owned())).into_iter().collect();
                let answer: Value = api.get(&["unreadable"], &query).await?;
                Ok(serde_json::from_value(answer["unreadable"].clone())?)
            }
            Self::AtRest(store) => {
                let mut records = store.list();
                records.retain(|record| source.is_none_or(|source| record.source == source));
                Ok(records.into_iter().map(UnreadableView::from).collect())
            }
        }
    }

    async fn show(&self, id: &str) -> anyhow::Result<UnreadableDetailsView> {
        match self {
            Self::Running(api) => api.get(&["unreadable", id], &[]).await,
            Self::AtRest(store) => {
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
            Self::AtRest(_) => bail!("a data directory at rest is only read; start the host, and leave --data-dir out"),
        }
    }
}

fn table(found: &[UnreadableView]) -> String {
    if found.is_empty() {
        return "no unreadable requests\n".into();
    }
    let row = |it: &UnreadableView| {
        let status = it.status.map_or("–".to_owned(), |status| status.to_string());
        let reason = shortened(&line(&it.reason), 120);
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
    columns(["request", "source", "last", "times", "status", "bytes", "reason"], found.iter().map(row).collect())
}

fn story(details: &UnreadableDetailsView) -> String {
    let it = &details.request;
    let mut text = format!("{}\n  reason   {}\n  source   {}", it.id, line(&it.reason), line(&it.source));
    if let Some(tenant) = &it.tenant {
        text += &format!(" (tenant {})", line(tenant));
    }
    if let Some(status) = it.status {
        text += &format!("\n  answered {status}");
    }
    text += &format!("\n  came     {} (times: {}), last {}", it.first_at, it.times, it.last_at);
    for (name, value) in &it.headers {
        text += &format!("\n  header   {}: {}", line(name), line(value));
    }
    text += &format!("\n  body     {} bytes{}", it.size, if it.cut { ", cut off at its end" } else { "" });
    let body = details.body.as_deref().map_or("(not text: --body prints it)".into(), |body| lines(body).into_owned());
    text + "\n\n" + &shortened(&body, SHOWN) + "\n"
}
