//! Deliveries for people: lists, and the whole story of one.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::commands::output::shortened;
use modhost_core::sanitize::{indented, json, line};
use modhost_server::admin_api::{AttemptView, CallView, DeliveryView, DetailsView};

/// What stands before the further lines of a reason and of an outcome: none can pass for a line of the story's own.
const REASON_INDENT: &str = "           ";
const OUTCOME_INDENT: &str = "    ";

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// How much of a value is shown on a terminal; `--json` has it whole.
const SHOWN: usize = 400;

/// How much of a reason a table shows on a terminal.
const REASON_SHOWN: usize = 120;

/// A table, one delivery a line.
pub(super) fn table(deliveries: &[DeliveryView], heading: bool) -> String {
    let mut text = String::new();
    if deliveries.is_empty() {
        return if heading { "no deliveries\n".into() } else { text };
    }
    let width = |of: fn(&DeliveryView) -> &str| {
        deliveries.iter().map(|it| line(of(it)).chars().count()).max().unwrap_or(0).max(6)
    };
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
            line(&it.id),
            line(&it.state),
            it.attempts,
            line(&it.tenant),
            line(&it.module),
            line(&it.changed_at),
            line(&it.event_id)
        );
        if let Some(reason) = &it.reason {
            let _ = write!(text, "  {}", shortened(reason, REASON_SHOWN));
        }
        text.push('\n');
    }
    text
}

/// Everything about one delivery.
pub(super) fn story(details: &DetailsView) -> String {
    let (it, mut text) = (&details.delivery, String::new());
    let style = colour(&it.state);
    let _ = writeln!(text, "{BOLD}{}{BOLD:#}  {style}{}{style:#}", line(&it.id), line(&it.state));
    if let Some(reason) = &it.reason {
        let _ = writeln!(text, "  reason   {}", indented(reason, REASON_INDENT));
    }
    let event = &details.event;
    let [id, name, source, tenant] = [&event.id, &event.name, &event.source, &event.tenant].map(|text| line(text));
    let _ = writeln!(text, "  event    {id} {name} (source {source}, tenant {tenant})");
    let _ = writeln!(text, "  module   {} version {}", line(&it.module), line(it.version.as_deref().unwrap_or("–")));
    if let Some(due) = &it.due_at {
        let _ = writeln!(text, "  due      {}", line(due));
    }
    let _ = writeln!(text, "\n{BOLD}changes{BOLD:#}");
    for change in &details.changes {
        let reason = change.reason.as_deref().map(|reason| format!("  {}", line(reason))).unwrap_or_default();
        let _ = writeln!(text, "  {}  {:<9}{reason}", line(&change.at), line(&change.state));
    }
    for attempt in &details.attempts_made {
        format_attempt(&mut text, attempt, earlier_than(details, attempt));
    }
    if !details.calls.is_empty() {
        let _ = writeln!(text, "\n{BOLD}calls{BOLD:#}");
    }
    for call in &details.calls {
        format_call(&mut text, call);
    }
    text
}

/// How many attempts belong to the sendings before this attempt's, if the delivery was sent again by then.
fn earlier_than(details: &DetailsView, attempt: &AttemptView) -> Option<u32> {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let started = time(&attempt.started_at)?;
    let sent =
        details.changes.iter().filter(|it| it.reason.as_deref().is_some_and(|why| why.starts_with("sent again")));
    let sent = sent.filter_map(|it| time(&it.at)).filter(|at| *at <= started).max()?;
    let before = details.attempts_made.iter().filter(|it| time(&it.started_at).is_some_and(|at| at < sent));
    before.map(|it| it.number).max()
}

/// Tells of an attempt; `earlier` is how many there were before the delivery was sent again. Those are counted anew, as the reasons
/// and the module do.
fn format_attempt(text: &mut String, attempt: &AttemptView, earlier: Option<u32>) {
    let version = line(attempt.version.as_deref().unwrap_or("–"));
    let _ = writeln!(
        text,
        "\n{BOLD}attempt {}{BOLD:#}{}  {} – {}  version {version}",
        attempt.number.saturating_sub(earlier.unwrap_or_default()),
        earlier.map(|_| format!(" since it was sent again ({} in all)", attempt.number)).unwrap_or_default(),
        line(&attempt.started_at),
        line(&attempt.ended_at)
    );
    let _ = writeln!(text, "  {}", indented(&attempt.outcome, OUTCOME_INDENT));
    for logged in &attempt.log {
        let [level, context, said] = [&logged.level, &logged.context, &logged.text].map(|text| line(text));
        let _ = writeln!(text, "  {DIM}{level:<5} {context}{DIM:#} {said}");
    }
}

fn format_call(text: &mut String, call: &CallView) {
    let _ = writeln!(text, "  {:>3}  {}  {}", call.number, line(call.import.as_str()), value(&call.arguments));
    let answer = match &call.answer {
        None => "in flight".to_owned(),
        Some(Value::Object(answer)) if answer.contains_key("ok") => value(&answer["ok"]),
        Some(other) => value(other),
    };
    let _ = writeln!(text, "       {DIM}→{DIM:#} {answer}");
}

/// A value, short enough to be read.
pub(super) fn value(value: &Value) -> String {
    // Escaped as JSON has it, so that it can be read by a program, too.
    shortened(&json(&value.to_string()), SHOWN)
}

fn colour(state: &str) -> Style {
    match state {
        "completed" => AnsiColor::Green.on_default(),
        "dead" => AnsiColor::Red.on_default(),
        "running" => AnsiColor::Cyan.on_default(),
        _ => DIM,
    }
}
