//! Deliveries for people: lists, and the whole story of one.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::console::{AttemptView, CallView, DeliveryView, DetailsView};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// How much of a value is shown; `--json` has it whole.
const SHOWN: usize = 400;

/// One JSON object a line.
pub(super) fn lines(deliveries: &[DeliveryView]) -> String {
    deliveries.iter().filter_map(|delivery| serde_json::to_string(delivery).ok()).map(|line| line + "\n").collect()
}

/// A table, one delivery a line.
pub(super) fn table(deliveries: &[DeliveryView], heading: bool) -> String {
    let mut text = String::new();
    if deliveries.is_empty() {
        return if heading { "no deliveries\n".into() } else { text };
    }
    let width =
        |of: fn(&DeliveryView) -> &str| deliveries.iter().map(|it| of(it).chars().count()).max().unwrap_or(0).max(6);
    let (tenants, modules) = (width(|it| &it.tenant), width(|it| &it.module));
    if heading {
        let _ = writeln!(
            text,
            "{DIM}{:<28} {:<9} {:>3}  {:<tenants$} {:<modules$} {:<24} event / reason{DIM:#}",
            "delivery", "state", "try", "tenant", "module", "changed"
        );
    }
    for it in deliveries {
        let style = colour(&it.state);
        let _ = write!(
            text,
            "{:<28} {style}{:<9}{style:#} {:>3}  {:<tenants$} {:<modules$} {:<24} {}",
            it.id, it.state, it.attempts, it.tenant, it.module, it.changed_at, it.event_id
        );
        if let Some(reason) = &it.reason {
            let _ = write!(text, "  {}", shortened(&one_line(reason), 120));
        }
        text.push('\n');
    }
    text
}

/// Everything about one delivery.
pub(super) fn story(details: &DetailsView) -> String {
    let (it, mut text) = (&details.delivery, String::new());
    let style = colour(&it.state);
    let _ = writeln!(text, "{BOLD}{}{BOLD:#}  {style}{}{style:#}", it.id, it.state);
    if let Some(reason) = &it.reason {
        let _ = writeln!(text, "  reason   {}", indented(reason));
    }
    let event = &details.event;
    let _ = writeln!(text, "  event    {} {} (source {}, tenant {})", event.id, event.name, event.source, event.tenant);
    let _ = writeln!(text, "  module   {} version {}", it.module, it.version.as_deref().unwrap_or("–"));
    if let Some(due) = &it.due_at {
        let _ = writeln!(text, "  due      {due}");
    }
    let _ = writeln!(text, "\n{BOLD}changes{BOLD:#}");
    for change in &details.changes {
        let reason = change.reason.as_deref().map(|reason| format!("  {}", one_line(reason))).unwrap_or_default();
        let _ = writeln!(text, "  {}  {:<9}{reason}", change.at, change.state);
    }
    for attempt in &details.attempts_made {
        tell_attempt(&mut text, attempt);
    }
    if !details.calls.is_empty() {
        let _ = writeln!(text, "\n{BOLD}calls{BOLD:#}");
    }
    for call in &details.calls {
        tell_call(&mut text, call);
    }
    text
}

fn tell_attempt(text: &mut String, attempt: &AttemptView) {
    let version = attempt.version.as_deref().unwrap_or("–");
    let _ = writeln!(
        text,
        "\n{BOLD}attempt {}{BOLD:#}  {} – {}  version {version}",
        attempt.number, attempt.started_at, attempt.ended_at
    );
    let _ = writeln!(text, "  {}", indented(&attempt.outcome));
    for line in &attempt.log {
        let _ = writeln!(text, "  {DIM}{:<5} {}{DIM:#} {}", line.level, line.context, one_line(&line.text));
    }
}

fn tell_call(text: &mut String, call: &CallView) {
    let _ = writeln!(text, "  {:>3}  {}  {}", call.number, call.import, value(&call.arguments));
    let answer = match &call.answer {
        None => "in flight".to_owned(),
        Some(Value::Object(answer)) if answer.contains_key("ok") => value(&answer["ok"]),
        Some(other) => value(other),
    };
    let _ = writeln!(text, "       {DIM}→{DIM:#} {answer}");
}

/// A value, short enough to be read.
pub(super) fn value(value: &Value) -> String {
    shortened(&one_line(&value.to_string()), SHOWN)
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Text of a module on one line, and without what drives a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn indented(text: &str) -> String {
    text.lines().map(one_line).collect::<Vec<_>>().join("\n           ")
}

fn colour(state: &str) -> Style {
    match state {
        "completed" => AnsiColor::Green.on_default(),
        "dead" => AnsiColor::Red.on_default(),
        "running" => AnsiColor::Cyan.on_default(),
        _ => DIM,
    }
}
