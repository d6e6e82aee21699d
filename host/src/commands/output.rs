//! Standard output and standard error of commands.
//!
//! The macros of the standard library panic if a stream cannot be written: `modhost deliveries | head -1` would end with a
//! panic. Here, a closed pipe only ends the output, and a full disk is an error that is reported once. A host never waits for
//! either stream, because a slow reader must not delay deliveries.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde::Serialize;

use modhost_core::sanitize;
use modhost_core::sync::lock;
use modhost_core::text::truncate;
use modhost_server::telemetry::{self, LossyWriter};

/// How long the end of a host waits until its output is written.
const MAX_FLUSH: Duration = Duration::from_secs(1);

/// The writer of a host's output; unset for other commands.
static HOST_OUTPUT: OnceLock<LossyWriter> = OnceLock::new();

/// Whether the reader of standard output has closed the pipe.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Why standard output could not be written.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes to standard output, as `print!` does.
macro_rules! print {
    ($($text:tt)*) => { $crate::commands::output::write_out(::std::format_args!($($text)*)) };
}

/// Writes a line to standard output, as `println!` does.
macro_rules! println {
    ($($text:tt)*) => { $crate::commands::output::write_out(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}

/// Writes to standard error, as `eprint!` does.
macro_rules! eprint {
    ($($text:tt)*) => { $crate::commands::output::write_err(::std::format_args!($($text)*)) };
}

/// Writes a line to standard error, as `eprintln!` does.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::commands::output::write_err(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}

pub(in crate::commands) use {eprint, eprintln, print, println};

/// Makes standard output non-blocking for a host: a thread writes it from now on.
///
/// # Errors
///
/// If the thread cannot be started.
pub(super) fn start_host_output() -> io::Result<()> {
    let writer = LossyWriter::start("output", telemetry::own_file(io::stdout())?, None)?;
    HOST_OUTPUT.get_or_init(|| writer);
    Ok(())
}

/// Writes to standard output. Colors are removed unless it is a terminal.
pub(super) fn write_out(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let text = sanitize_for(&text, anstream::AutoStream::choice(&io::stdout()));
    if let Some(host) = HOST_OUTPUT.get() {
        return host.record(text.as_bytes());
    }
    if is_closed() || has_failed() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        match error.kind() {
            ErrorKind::BrokenPipe => IS_CLOSED.store(true, Ordering::Relaxed),
            _ => _ = failure().get_or_insert(error),
        }
    }
}

/// Writes to standard error. Errors are ignored, because there is nowhere to report them.
pub(super) fn write_err(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let text = sanitize_for(&text, anstream::AutoStream::choice(&io::stderr()));
    if !telemetry::write_raw(&text) {
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// Removes colors unless the stream shows them, and always removes other terminal control sequences.
fn sanitize_for(text: &str, colors: anstream::ColorChoice) -> Cow<'_, str> {
    let text = sanitize::styled(text);
    match colors {
        anstream::ColorChoice::Never => anstream::adapter::strip_str(&text).to_string().into(),
        _ => text,
    }
}

/// Returns whether the reader of standard output has closed the pipe. Endless output stops then.
pub(super) fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::Relaxed)
}

fn failure() -> std::sync::MutexGuard<'static, Option<io::Error>> {
    lock(&FAILURE)
}

fn has_failed() -> bool {
    failure().is_some()
}

/// Returns the exit code of the process. If output could not be written, reports it and returns a failure. Waits up to one
/// second until a host's output is written.
pub(super) fn finish(code: ExitCode) -> ExitCode {
    if let Some(host) = HOST_OUTPUT.get() {
        host.flush(MAX_FLUSH);
    }
    let failure = failure().take();
    match failure {
        Some(error) => {
            super::diagnostics::report(&anyhow::anyhow!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        None => code,
    }
}

/// Formats a value as JSON over several lines.
///
/// # Errors
///
/// If the value cannot be serialized.
pub(super) fn pretty_json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| sanitize::json(&text).into_owned() + "\n")
}

/// Formats values as JSON, one per line.
///
/// # Errors
///
/// If a value cannot be serialized.
pub(super) fn json_lines(values: &[impl Serialize]) -> serde_json::Result<String> {
    values
        .iter()
        .map(|value| serde_json::to_string(value).map(|line| sanitize::json(&line).into_owned() + "\n"))
        .collect()
}

/// Formats a text on one line. On a terminal, it is truncated to `max_chars`.
pub(super) fn truncate_for_terminal(text: &str, max_chars: usize) -> String {
    truncate_if(text, max_chars, io::stdout().is_terminal())
}

fn truncate_if(text: &str, max_chars: usize, is_terminal: bool) -> String {
    let text = sanitize::line(text);
    if is_terminal { truncate(&text, max_chars).into_owned() } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncates_only_on_terminals() {
        assert_eq!(truncate_if("äbc", 2, true), "äb…");
        assert_eq!(truncate_if("äbc", 3, true), "äbc");
        assert_eq!(truncate_if("äbc\nd", 2, false), "äbc\\nd");
    }

    #[test]
    fn writes_colors_only_to_terminals() {
        let red = anstyle::AnsiColor::Red.on_default();
        let text = format!("{red}bad{red:#} \u{1b}[2J\n");
        assert_eq!(sanitize_for(&text, anstream::ColorChoice::Never), "bad \\u{1b}[2J\n");
        assert!(sanitize_for(&text, anstream::ColorChoice::Always).starts_with("\u{1b}[31mbad\u{1b}[0m \\u{1b}[2J"));
    }
}
