//! Formats deliveries as text.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;
use serde_json::Value;

use crate::commands::output::truncate_for_terminal;
use modhost_core::sanitize::{indented, json, line};
use modhost_runtime::call_log::{LongText, replace_long_texts};
use modhost_server::admin_api::{AttemptView, CallView, DeliveryView, DetailsView};

/// The indentation of the further lines of a reason and of an outcome, so that none can imitate a line of the host.
const REASON_INDENT: &str = "           ";
const OUTCOME_INDENT: &str = "    ";

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Maximum length of a value on a terminal, in characters. `--json` prints it whole.
const MAX_VALUE_CHARS: usize = 400;

/// Maximum length of a reason in the table on a terminal, in characters.
const MAX_REASON_CHARS: usize = 120;

/// Formats a table with one line per delivery.
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
        let style = state_style(&it.state);
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
            let _ = write!(text, "  {}", truncate_for_terminal(reason, MAX_REASON_CHARS));
        }
        text.push('\n');
    }
    text
}

/// Formats everything about one delivery.
pub(super) fn details(details: &DetailsView) -> String {
    let (it, mut text) = (&details.delivery, String::new());
    let style = state_style(&it.state);
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
        format_attempt(&mut text, attempt, attempts_before_retry(details, attempt));
    }
    if !details.calls.is_empty() {
        let _ = writeln!(text, "\n{BOLD}calls{BOLD:#}");
    }
    for call in &details.calls {
        format_call(&mut text, call);
    }
    text
}

/// Returns how many attempts were made before the operator's last retry, if there was one before this attempt.
fn attempts_before_retry(details: &DetailsView, attempt: &AttemptView) -> Option<u32> {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let started = time(&attempt.started_at)?;
    let retries =
        details.changes.iter().filter(|it| it.reason.as_deref().is_some_and(|why| why.starts_with("sent again")));
    let retried = retries.filter_map(|it| time(&it.at)).filter(|at| *at <= started).max()?;
    let before = details.attempts_made.iter().filter(|it| time(&it.started_at).is_some_and(|at| at < retried));
    before.map(|it| it.number).max()
}

/// Formats an attempt. `earlier` is the number of attempts before the operator's last retry: numbering starts over after it, as
/// in the reasons and for the module.
fn format_attempt(text: &mut String, attempt: &AttemptView, earlier: Option<u32>) {
    let version = line(attempt.version.as_deref().unwrap_or("–"));
    let _ = writeln!(
        text,
        "\n{BOLD}attempt {}{BOLD:#}{}  {} – {}  version {version}",
        attempt.number.saturating_sub(earlier.unwrap_or_default()),
        earlier.map(|_| format!(" since the retry ({} in total)", attempt.number)).unwrap_or_default(),
        line(&attempt.started_at),
        line(&attempt.ended_at)
    );
    let _ = writeln!(text, "  {}", indented(&attempt.outcome, OUTCOME_INDENT));
    for logged in &attempt.log {
        let [level, context, message] = [&logged.level, &logged.context, &logged.text].map(|text| line(text));
        let _ = writeln!(text, "  {DIM}{level:<5} {context}{DIM:#} {message}");
    }
}

fn format_call(text: &mut String, call: &CallView) {
    let _ = writeln!(text, "  {:>3}  {}  {}", call.number, line(call.import.as_str()), value(&call.arguments));
    let result = match &call.answer {
        None => "in flight".to_owned(),
        Some(Value::Object(answer)) if answer.contains_key("ok") => value(&answer["ok"]),
        Some(other) => value(other),
    };
    let _ = writeln!(text, "       {DIM}→{DIM:#} {result}");
}

/// Formats a JSON value on one line, truncated on a terminal. Of a text that is recorded as a digest, it has the beginning
/// and the size.
pub(super) fn value(value: &Value) -> String {
    let mut value = value.clone();
    replace_long_texts(&mut value, &|LongText { bytes, beginning, .. }| {
        format!("{beginning}… ({})", ByteSize::b(bytes).display().iec())
    });
    // With the escapes of JSON, so that programs can parse it.
    truncate_for_terminal(&json(&value.to_string()), MAX_VALUE_CHARS)
}

fn state_style(state: &str) -> Style {
    match state {
        "completed" => AnsiColor::Green.on_default(),
        "dead" => AnsiColor::Red.on_default(),
        "running" => AnsiColor::Cyan.on_default(),
        _ => DIM,
    }
}
