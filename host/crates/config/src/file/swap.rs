//! Reads `[module.swap]`: the checks a new version must pass before it serves.

use std::time::Duration;

use crate::settings::{Canary, Swap};
use crate::table::{Table, Value};

/// The default duration of a canary.
const DEFAULT_PERIOD: Duration = Duration::from_secs(300);

/// The default minimum number of deliveries that must end on a new version.
const DEFAULT_MIN_DELIVERIES: u32 = 5;

/// The maximum number of deliveries in a dry run. Each may take as long as the module computes.
const MAX_REPLAY: u32 = 1000;

pub(super) fn swap(table: Table<'_>) -> Swap {
    let replay = table.get("replay").and_then(|value| replay(&value));
    let canary = table.get("canary");
    let period = table.get("for");
    if let Some(period) = &period
        && canary.is_none()
    {
        period.reject("`for` has no effect without `canary`", "add canary = \"10%\", or remove the line");
    }
    let min_deliveries = table.get("min_deliveries");
    if let Some(min_deliveries) = &min_deliveries
        && canary.is_none()
    {
        min_deliveries
            .reject("`min_deliveries` has no effect without `canary`", "add canary = \"10%\", or remove the line");
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
        value.reject(format!("`replay` must be at most {MAX_REPLAY}"), "the last 20 deliveries reveal most problems");
        return None;
    }
    Some(count)
}

/// Reads a share from 1% to 99%, in whole percent.
fn percent(value: &Value<'_>) -> Option<u8> {
    let read = |text: &str| {
        let number: u8 = text.trim().strip_suffix('%')?.trim_end().parse().ok()?;
        (1..100).contains(&number).then_some(number)
    };
    value.parse_text(read, "a percentage from 1% to 99%", r#"use whole percent, in quotes: "10%""#)
}
