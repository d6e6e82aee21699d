//! Prints failed attempts with their events, and passes the reasons to the local platform, whose chat only shows an apology.

use std::fmt::Write;
use std::net::SocketAddr;

use anstyle::{AnsiColor, Style};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::commands::output;
use modhost_core::event::{Event, Subject};
use modhost_emulator::LocalPlatform;
use modhost_runtime::dispatch::FailedAttempt;
use modhost_storage::journal::LogLine;

/// Maximum number of log lines to print.
const MAX_LOG_LINES: usize = 8;

/// Maximum length of a text, in characters.
const MAX_TEXT_CHARS: usize = 200;

/// Prints failures until the host shuts down. `admin` is its admin address.
pub(super) async fn show(
    mut failures: Receiver<std::sync::Arc<FailedAttempt>>,
    platform: &LocalPlatform,
    admin: SocketAddr,
) {
    loop {
        match failures.recv().await {
            Ok(failed) => {
                if let (Subject::ModuleChosen(chosen), false) = (&failed.event.subject, failed.will_retry) {
                    platform.note_failure(&chosen.assistant_message_id, &failed.reason);
                }
                output::println!("{}", format_failure(&failed, admin));
            }
            Err(RecvError::Lagged(missed)) => output::println!("  … and {missed} more failures"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Formats a failure: the event, the reason and the last log lines. Lines of the guest have a bar in front, so that none can
/// imitate a line of the host.
fn format_failure(failed: &FailedAttempt, admin: SocketAddr) -> String {
    let (bad, bold, dim) = (AnsiColor::Red.on_default().bold(), Style::new().bold(), Style::new().dimmed());
    let outcome = if failed.will_retry { "failed, will be retried" } else { "failed" };
    let module = plain(failed.module.as_str());
    let mut text = format!("\n{bad}✗ {module}{bad:#} {outcome}  {dim}{}{dim:#}\n", failed.delivery);
    _ = writeln!(text, "  {dim}event {dim:#} {}", plain(&event_summary(&failed.event)));
    let reason = failed.reason.lines().next().unwrap_or_default();
    _ = writeln!(text, "  {dim}reason{dim:#} {bold}{}{bold:#}", plain(reason));
    // Further lines contain the message of a panic and its stack frames.
    for line in failed.reason.lines().skip(1).filter(|line| !line.trim().is_empty()).take(MAX_LOG_LINES) {
        _ = writeln!(text, "         {dim}│{dim:#} {}", plain(line));
    }
    // The reason repeats what the guest printed before it failed.
    let is_new = |line: &&LogLine| !line.text.trim().is_empty() && !failed.reason.contains(line.text.trim());
    let lines: Vec<_> = failed.log.iter().filter(is_new).collect();
    for (index, line) in lines[lines.len().saturating_sub(MAX_LOG_LINES)..].iter().enumerate() {
        let label = if index == 0 { "log   " } else { "      " };
        _ = writeln!(text, "  {dim}{label} │ {:<5} {}{dim:#} {}", line.level, plain(&line.context), plain(&line.text));
    }
    let admin = if admin.port() == 8081 { String::new() } else { format!(" --admin http://{admin}") };
    let program = crate::commands::program();
    _ = writeln!(text, "  {dim}more   {program} deliveries show {}{admin}{dim:#}", failed.delivery);
    text
}

/// Returns the text of an event, or else its name and id.
fn event_summary(event: &Event) -> String {
    match &event.subject {
        Subject::ModuleChosen(chosen) => format!("\"{}\"", chosen.user_message.text),
        Subject::UserMessageCreated(created) => format!("\"{}\"", created.text),
        Subject::MessageFinalized(_) | Subject::Other => format!("{} {}", event.name, event.id),
    }
}

/// Formats untrusted text on one line, truncated on a terminal. Control characters become spaces.
fn plain(text: &str) -> String {
    output::truncate_for_terminal(&text.replace(char::is_control, " "), MAX_TEXT_CHARS)
}
