//! Formats modules and versions as text.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use crate::commands::format_table;
use crate::commands::output::truncate_for_terminal;
use modhost_core::plural::counted;
use modhost_core::sanitize::{indented, line};
use modhost_server::admin_api::{CanaryView, ModuleView, VersionView};

const BOLD: Style = Style::new().bold();

/// Maximum length of a state in the table on a terminal, in characters. `show` and `--json` print it whole.
const MAX_STATE_CHARS: usize = 100;

/// The indentation of the further lines of a reason.
const INDENT: &str = "             ";

/// Formats a table with one line per module.
pub(super) fn table(modules: &[ModuleView]) -> String {
    if modules.is_empty() {
        return "no modules\n".into();
    }
    let rows = modules.iter().map(|module| {
        let since = module.since.clone().unwrap_or_else(|| "–".into());
        let version = module.version.clone().unwrap_or_else(|| "–".into());
        let in_flight = module.in_flight.map_or_else(|| "–".into(), |count| count.to_string());
        [module.name.clone(), version, since, in_flight, truncate_for_terminal(&state(module), MAX_STATE_CHARS)]
    });
    format_table(["module", "version", "since", "in flight", "state"], rows.collect())
}

/// Returns the state of a module as a short text.
fn state(module: &ModuleView) -> String {
    let mut parts = Vec::new();
    if module.paused.is_some() {
        parts.push("paused".to_owned());
    }
    if module.pinned.is_some() {
        parts.push("pinned".to_owned());
    }
    if let Some(canary) = &module.canary {
        let mut text = format!("canary {}", canary.version);
        if let Some(percent) = canary.percent {
            let _ = write!(text, ": {percent}%");
        }
        if let Some(missing) = &canary.waits_for {
            let _ = write!(text, ", undecided: {missing}");
        }
        parts.push(text);
    }
    if let Some(held_back) = &module.held_back {
        parts.push(format!("version {} not used: {}", held_back.version, held_back.why));
    }
    if let Some(refused) = &module.refused {
        let consequence = match (module.version.is_some(), module.waiting.is_some()) {
            (true, _) => "serving; its file is rejected",
            (false, true) => "no version serves; its deliveries wait",
            (false, false) => "no version serves",
        };
        parts.push(format!("{consequence}: {refused}"));
    }
    match (parts.is_empty(), module.version.is_some(), module.in_flight.is_some()) {
        (true, _, false) => "host stopped".into(),
        (true, true, true) => "serving".into(),
        (true, false, true) if module.coming_up => "coming up; its deliveries wait".into(),
        (true, false, true) => "no version serves".into(),
        (false, ..) => parts.join(", "),
    }
}

/// Formats everything about one module.
pub(super) fn details(module: &ModuleView) -> String {
    let mut text = String::new();
    let name = line(&module.name);
    let [green, yellow, red] = [AnsiColor::Green, AnsiColor::Yellow, AnsiColor::Red].map(AnsiColor::on_default);
    let (serves, no_version) = match module.in_flight {
        Some(_) => ("serves", "no version serves"),
        None => ("is recorded as serving", "no version is recorded"),
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
            let waits = module.waiting.as_ref().map(|it| format!("; its deliveries wait since {}", line(&it.since)));
            writeln!(text, "{BOLD}{name}{BOLD:#}  {red}{no_version}{red:#}{}", waits.unwrap_or_default())
        }
    };
    if let Some(hash) = &module.hash {
        let _ = writeln!(text, "  hash       {hash}");
    }
    if let Some(refused) = &module.refused {
        let _ = writeln!(text, "  rejected   the version in the file: {}", indented(refused, INDENT));
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
            "  not used   version {} in the file: {}; to use it, run `modhost modules unpin {name}`",
            line(&held_back.version),
            indented(&held_back.why, INDENT)
        );
    }
    if let Some(canary) = &module.canary {
        let CanaryView { version, since, failed, runs, stable_failed, stable_runs, .. } = canary;
        let share = match (canary.percent, canary.seconds_left) {
            (Some(percent), Some(_)) if canary.waits_for.is_some() => {
                format!("receives {percent}% since {since}, until there is enough data to decide")
            }
            (Some(percent), Some(left)) => format!("receives {percent}% since {since}, for another {left} s"),
            _ => format!("is the canary since {since}"),
        };
        let _ = writeln!(
            text,
            "  canary     {version} {share}: {failed} of {runs} failed, {stable_failed} of {stable_runs} on the serving \
             version"
        );
        if let Some(missing) = &canary.waits_for {
            let _ = writeln!(
                text,
                "             undecided: {missing}; to decide, run `modhost modules promote {0}` or `modhost modules abort {0}`",
                module.name
            );
        }
    }
    match module.in_flight {
        Some(count) => {
            let _ = writeln!(text, "  in flight  {count}");
        }
        None => text.push_str("  stopped    the host is not running; it loads the file when it starts\n"),
    }
    if let Some(count) = module.versions_loaded.filter(|count| *count > 1) {
        let _ = writeln!(text, "  in memory  {}", counted(count, "version", "versions"));
    }
    text
}

/// Formats a table of versions, newest first.
pub(super) fn history(versions: &[VersionView]) -> String {
    if versions.is_empty() {
        return "no versions yet\n".into();
    }
    let rows = versions.iter().map(|version| {
        let origin = match &version.by {
            Some(by) => format!("{}, {by}", version.origin),
            None => version.origin.clone(),
        };
        let mut end = match (&version.ended_at, version.role.as_str()) {
            (_, "refused") => String::new(),
            (Some(ended), _) => format!("until {ended}: "),
            (None, _) => String::new(),
        };
        end += version.reason.as_deref().unwrap_or_default();
        let stored = if version.kept { "stored" } else { "" };
        [
            version.began_at.clone(),
            version.version.clone(),
            version.role.clone(),
            origin,
            stored.into(),
            truncate_for_terminal(&end, MAX_STATE_CHARS),
        ]
    });
    format_table(["when", "version", "role", "origin", "", "end"], rows.collect())
}
