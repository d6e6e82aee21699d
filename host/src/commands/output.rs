//! What commands write to standard output and standard error.
//!
//! The macros of the standard library panic when a stream can't be written: `modhost deliveries | head -1` would end with a
//! panic. Here a reader who has gone ends the output and nothing else, and a disk that is full is an error that is said once. A
//! host doesn't wait for either stream: a line of output is never worth a delivery.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;

use modhost_core::sanitize;
use modhost_server::telemetry::{self, LossyWriter};

/// How long the end of a host waits for its output to be read.
const MAX_FLUSH: Duration = Duration::from_secs(1);

/// Where the output of a host goes; none for the commands that end by themselves.
static OF_HOST: OnceLock<LossyWriter> = OnceLock::new();

/// Whether the reader of standard output has gone.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Why standard output could not be written, if it couldn't.
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

/// From now on nobody waits for standard output: a host runs.
///
/// # Errors
///
/// When the system starts no thread.
pub(super) fn of_a_host() -> io::Result<()> {
    let writer = LossyWriter::start("output", telemetry::own_file(io::stdout())?, None)?;
    OF_HOST.get_or_init(|| writer);
    Ok(())
}

/// Writes to standard output; colors only reach a terminal.
pub(super) fn write_out(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let text = for_stream(&text, anstream::AutoStream::choice(&io::stdout()));
    if let Some(host) = OF_HOST.get() {
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

/// Writes to standard error. Nobody is left to be told where that fails.
pub(super) fn write_err(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let text = for_stream(&text, anstream::AutoStream::choice(&io::stderr()));
    if !telemetry::say(&text) {
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// A text for people: without colors where they aren't shown, and without anything else that drives a terminal.
fn for_stream(text: &str, colors: anstream::ColorChoice) -> Cow<'_, str> {
    let text = sanitize::styled(text);
    match colors {
        anstream::ColorChoice::Never => anstream::adapter::strip_str(&text).to_string().into(),
        _ => text,
    }
}

/// Whether nobody reads standard output any more: what would print for ever has no more to do.
pub(super) fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::Relaxed)
}

fn failure() -> std::sync::MutexGuard<'static, Option<io::Error>> {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has_failed() -> bool {
    failure().is_some()
}

/// The exit code of a command that wants this one: output that could not be written is a failure, and is said. Waits, but not
/// long, until a host's output is written.
pub(super) fn finish(code: ExitCode) -> ExitCode {
    if let Some(host) = OF_HOST.get() {
        host.flush(MAX_FLUSH);
    }
    let failure = failure().take();
    match failure {
        Some(error) => {
            super::failed(&anyhow::anyhow!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        None => code,
    }
}

/// A value as JSON over several lines.
///
/// # Errors
///
/// When it can't be written as JSON.
pub(super) fn pretty_json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| sanitize::json(&text).into_owned() + "\n")
}

/// Values as JSON, one a line.
///
/// # Errors
///
/// When one can't be written as JSON.
pub(super) fn json_lines(values: &[impl Serialize]) -> serde_json::Result<String> {
    values
        .iter()
        .map(|value| serde_json::to_string(value).map(|line| sanitize::json(&line).into_owned() + "\n"))
        .collect()
}

/// A text on one line that a person can read: on a terminal cut to so many characters, for a program whole.
pub(super) fn shortened(text: &str, longest: usize) -> String {
    shortened_for(text, longest, io::stdout().is_terminal())
}

fn shortened_for(text: &str, longest: usize, is_terminal: bool) -> String {
    let text = sanitize::line(text);
    match text.char_indices().nth(longest) {
        Some((end, _)) if is_terminal => format!("{}…", &text[..end]),
        _ => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_terminals_get_less() {
        assert_eq!(shortened_for("äbc", 2, true), "äb…");
        assert_eq!(shortened_for("äbc", 3, true), "äbc");
        assert_eq!(shortened_for("äbc\nd", 2, false), "äbc\\nd");
    }

    #[test]
    fn colors_are_for_terminals() {
        let red = anstyle::AnsiColor::Red.on_default();
        let text = format!("{red}bad{red:#} \u{1b}[2J\n");
        assert_eq!(for_stream(&text, anstream::ColorChoice::Never), "bad \\u{1b}[2J\n");
        assert!(for_stream(&text, anstream::ColorChoice::Always).starts_with("\u{1b}[31mbad\u{1b}[0m \\u{1b}[2J"));
    }
}
