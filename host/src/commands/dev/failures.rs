//! Shows a delivery that failed beside the event it was to answer, and tells the local platform, which has only the apology.

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

/// How many of the last log lines are shown.
const LOG: usize = 8;

/// How much of a text is shown, in characters.
const LONGEST: usize = 200;

/// Shows failures for as long as the host runs, whose operators' listener is at `admin`.
pub(super) async fn show(
    mut failures: Receiver<std::sync::Arc<FailedAttempt>>,
    platform: &LocalPlatform,
    admin: SocketAddr,
) {
    loop {
        match failures.recv().await {
            Ok(failed) => {
                if let (Subject::ModuleChosen(chosen), false) = (&failed.event.subject, failed.again) {
                    platform.note_failure(&chosen.assistant_message_id, &failed.reason);
                }
                output::println!("{}", told(&failed, admin));
            }
            Err(RecvError::Lagged(missed)) => output::println!("  … and {missed} more that failed"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// What happened: the event, the reason, the last of the log. Each line of a guest stands behind a bar, so that none can
/// pass for one of the host's.
fn told(failed: &FailedAttempt, admin: SocketAddr) -> String {
    let (bad, bold, dim) = (AnsiColor::Red.on_default().bold(), Style::new().bold(), Style::new().dimmed());
    let what = if failed.again { "failed, and is tried again" } else { "failed" };
    let module = plain(failed.module.as_str());
    let mut text = format!("\n{bad}✗ {module}{bad:#} {what}  {dim}{}{dim:#}\n", failed.delivery);
    _ = writeln!(text, "  {dim}event {dim:#} {}", plain(&asked(&failed.event)));
    let reason = failed.reason.lines().next().unwrap_or_default();
    _ = writeln!(text, "  {dim}reason{dim:#} {bold}{}{bold:#}", plain(reason));
    // Why it stopped often stands further down: the message of a panic, the frames of its stack.
    for line in failed.reason.lines().skip(1).filter(|line| !line.trim().is_empty()).take(LOG) {
        _ = writeln!(text, "         {dim}│{dim:#} {}", plain(line));
    }
    // The reason has what a guest printed before it broke; nobody wants to read that twice.
    let is_news = |line: &&LogLine| !line.text.trim().is_empty() && !failed.reason.contains(line.text.trim());
    let lines: Vec<_> = failed.log.iter().filter(is_news).collect();
    for (place, line) in lines[lines.len().saturating_sub(LOG)..].iter().enumerate() {
        let word = if place == 0 { "log   " } else { "      " };
        _ = writeln!(text, "  {dim}{word} │ {:<5} {}{dim:#} {}", line.level, plain(&line.context), plain(&line.text));
    }
    let admin = if admin.port() == 8081 { String::new() } else { format!(" --admin http://{admin}") };
    let program = crate::commands::program();
    _ = writeln!(text, "  {dim}more   {program} deliveries show {}{admin}{dim:#}", failed.delivery);
    text
}

/// What an event asks: its text where it has one.
fn asked(event: &Event) -> String {
    match &event.subject {
        Subject::ModuleChosen(chosen) => format!("\"{}\"", chosen.user_message.text),
        Subject::UserMessageCreated(created) => format!("\"{}\"", created.text),
        Subject::MessageFinalized(_) | Subject::Other => format!("{} {}", event.name, event.id),
    }
}

/// Text of others on one line, short on a terminal, and without what drives one. It is for a glance: a line end is a space.
fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    output::shortened(&text, LONGEST)
}
