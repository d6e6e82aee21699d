//! Modules and versions for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use crate::commands::columns;
use crate::commands::output::shortened;
use modhost_core::plural::counted;
use modhost_core::sanitize::{indented, line};
use modhost_server::admin_api::{CanaryView, ModuleView, VersionView};

const BOLD: Style = Style::new().bold();

/// How much of a reason a table shows on a terminal; `show` and `--json` have it whole.
const SHOWN: usize = 100;

/// What stands before the further lines of a reason.
const INDENT: &str = "             ";

/// One module a line.
pub(super) fn table(modules: &[ModuleView]) -> String {
    if modules.is_empty() {
        return "no modules\n".into();
    }
    let rows = modules.iter().map(|module| {
        let since = module.since.clone().unwrap_or_else(|| "–".into());
        let version = module.version.clone().unwrap_or_else(|| "–".into());
        let in_flight = module.in_flight.map_or_else(|| "–".into(), |count| count.to_string());
        [module.name.clone(), version, since, in_flight, shortened(&state(module), SHOWN)]
    });
    columns(["module", "version", "since", "in flight", "state"], rows.collect())
}

/// How a module stands, in a few words.
fn state(module: &ModuleView) -> String {
    let mut words = Vec::new();
    if module.paused.is_some() {
        words.push("paused".to_owned());
    }
    if module.pinned.is_some() {
        words.push("pinned".to_owned());
    }
    if let Some(canary) = &module.canary {
        let mut tried = format!("canary {}", canary.version);
        if let Some(percent) = canary.percent {
            let _ = write!(tried, ": {percent}%");
        }
        if let Some(missing) = &canary.waits_for {
            let _ = write!(tried, ", waits: {missing}");
        }
        words.push(tried);
    }
    if let Some(held_back) = &module.held_back {
        words.push(format!("held back {}: {}", held_back.version, held_back.why));
    }
    if let Some(refused) = &module.refused {
        let what = match (module.version.is_some(), module.waiting.is_some()) {
            (true, _) => "serving; its file is refused",
            (false, true) => "no version serves, its deliveries wait",
            (false, false) => "no version serves",
        };
        words.push(format!("{what}: {refused}"));
    }
    match (words.is_empty(), module.version.is_some(), module.in_flight.is_some()) {
        (true, _, false) => "at rest".into(),
        (true, true, true) => "serving".into(),
        (true, false, true) if module.coming_up => "coming up, its deliveries wait".into(),
        (true, false, true) => "no version serves".into(),
        (false, ..) => words.join(", "),
    }
}

/// How one module stands, in full.
pub(super) fn story(module: &ModuleView) -> String {
    let mut text = String::new();
    let name = line(&module.name);
    let [green, yellow, red] = [AnsiColor::Green, AnsiColor::Yellow, AnsiColor::Red].map(AnsiColor::on_default);
    let (serves, nothing) = match module.in_flight {
        Some(_) => ("serves", "no version serves"),
        None => ("is the one on record", "no version is on record"),
    };
    let _ = match (&module.version, &module.since) {
        (Some(version), Some(since)) => {
            writeln!(text, "{BOLD}{name}{BOLD:#}  {green}version {version}{green:#} {serves} since {since}")
        }
        (Some(version), None) => {
            writeln!(text, "{BOLD}{name}{BOLD:#}  {green}version {version}{green:#} {serves}")
        }
        (None, _) if module.coming_up => {
            writeln!(text, "{BOLD}{name}{BOLD:#}  {yellow}is coming up{yellow:#}; its deliveries wait")
        }
        (None, _) => {
            let waits = module
                .waiting
                .as_ref()
                .map(|it| format!("; its deliveries have been waiting since {}", line(&it.since)));
            writeln!(text, "{BOLD}{name}{BOLD:#}  {red}{nothing}{red:#}{}", waits.unwrap_or_default())
        }
    };
    if let Some(hash) = &module.hash {
        let _ = writeln!(text, "  hash       {hash}");
    }
    if let Some(refused) = &module.refused {
        let _ = writeln!(text, "  refused    what is in the file: {}", indented(refused, INDENT));
    }
    if let Some(paused) = &module.paused {
        let _ = writeln!(text, "  paused     by {}, {}; its deliveries wait", line(&paused.by), line(&paused.at));
    }
    if let Some(pinned) = &module.pinned {
        let (by, at) = (line(&pinned.order.by), line(&pinned.order.at));
        let _ = writeln!(text, "  pinned     to {} by {by}, {at}", line(&pinned.version));
    }
    if let Some(held_back) = &module.held_back {
        let _ = writeln!(
            text,
            "  held back  {}, which is in the file: {}; `modhost modules unpin {name}` takes it",
            line(&held_back.version),
            indented(&held_back.why, INDENT)
        );
    }
    if let Some(canary) = &module.canary {
        let CanaryView { version, since, failed, runs, stable_failed, stable_runs, .. } = canary;
        let how = match (canary.percent, canary.seconds_left) {
            (Some(percent), Some(_)) if canary.waits_for.is_some() => {
                format!("gets {percent}% since {since}, until there is enough to decide")
            }
            (Some(percent), Some(left)) => format!("gets {percent}% since {since}, for another {left} s"),
            _ => format!("is on trial since {since}"),
        };
        let _ = writeln!(
            text,
            "  canary     {version} {how}: {failed} of {runs} failed, {stable_failed} of {stable_runs} on the version that \
             serves"
        );
        if let Some(missing) = &canary.waits_for {
            let _ = writeln!(
                text,
                "             it waits: {missing}; `modhost modules promote {0}` or `modhost modules abort {0}` decides",
                module.name
            );
        }
    }
    match module.in_flight {
        Some(count) => {
            let _ = writeln!(text, "  in flight  {count}");
        }
        None => text.push_str("  at rest    its host doesn't run; what is in its file is looked at when one does\n"),
    }
    if let Some(count) = module.versions_loaded.filter(|count| *count > 1) {
        let _ = writeln!(text, "  in memory  {}", counted(count, "version", "versions"));
    }
    text
}

/// What happened to versions, newest first.
pub(super) fn history(versions: &[VersionView]) -> String {
    if versions.is_empty() {
        return "no versions yet\n".into();
    }
    let rows = versions.iter().map(|version| {
        let from = match &version.by {
            Some(by) => format!("{}, {by}", version.origin),
            None => version.origin.clone(),
        };
        let mut how = match (&version.ended_at, version.role.as_str()) {
            (_, "refused") => String::new(),
            (Some(ended), _) => format!("until {ended}: "),
            (None, _) => String::new(),
        };
        how += version.reason.as_deref().unwrap_or_default();
        let kept = if version.kept { "kept" } else { "" };
        let mark = version.version.clone();
        [version.began_at.clone(), mark, version.role.clone(), from, kept.into(), shortened(&how, SHOWN)]
    });
    columns(["when", "version", "came to be", "from", "", "how it ended"], rows.collect())
}
