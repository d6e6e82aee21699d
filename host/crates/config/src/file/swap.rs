//! `[module.swap]`: what a new version has to show before it serves.

use std::time::Duration;

use crate::settings::{Canary, Swap};
use crate::table::{Table, Value};

/// How long a new version is tried unless it is said.
const DEFAULT_PERIOD: Duration = Duration::from_secs(300);

/// How many deliveries have to have ended on a new version unless it is said.
const DEFAULT_MIN_DELIVERIES: u32 = 5;

/// The most deliveries a version is dry-run on; each may take as long as the module computes.
const MAX_REPLAY: u32 = 1000;

pub(super) fn swap(table: Table<'_>) -> Swap {
    let replay = table.get("replay").and_then(|value| replay(&value));
    let canary = table.get("canary");
    let period = table.get("for");
    if let Some(period) = &period
        && canary.is_none()
    {
        period.wrong(
            "`for` says how long a new version is tried, and nothing says on how many deliveries",
            "add canary = \"10%\", or remove the line",
        );
    }
    let min_deliveries = table.get("min_deliveries");
    if let Some(min_deliveries) = &min_deliveries
        && canary.is_none()
    {
        min_deliveries.wrong(
            "`min_deliveries` says how many deliveries decide on a new version, and nothing says that it is tried",
            "add canary = \"10%\", or remove the line",
        );
    }
    let period = period.and_then(|value| value.duration()).unwrap_or(DEFAULT_PERIOD);
    let min_deliveries = min_deliveries.and_then(|value| value.count()).unwrap_or(DEFAULT_MIN_DELIVERIES);
    let percent = canary.and_then(|value| percent(&value));
    table.finish();
    let canary = percent.map(|percent| Canary { percent, period, min_deliveries });
    Swap { replay: replay.unwrap_or_default(), canary }
}

fn replay(value: &Value<'_>) -> Option<u32> {
    let count = value.count()?;
    if count > MAX_REPLAY {
        value.wrong(
            format!("`replay` is at most {MAX_REPLAY}"),
            "the last 20 deliveries tell most of what there is to tell",
        );
        return None;
    }
    Some(count)
}

/// A share, in whole percent: neither nothing nor all.
fn percent(value: &Value<'_>) -> Option<u8> {
    let read = |text: &str| {
        let number: u8 = text.trim().strip_suffix('%')?.trim_end().parse().ok()?;
        (1..100).contains(&number).then_some(number)
    };
    value.text_as(read, "a share from 1% to 99%", r#"write whole percent, in quotes: "10%""#)
}
