//! What the host tells operators while it runs: a log on standard error, and metrics.

mod filter;
mod format;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

pub use filter::LogFilter;
use modhost_core::suggest;
pub use writer::LossyWriter;

/// How long the end of the process waits for what it has logged to be written.
const MAX_FLUSH: Duration = Duration::from_secs(1);

/// The log of this process; none until one is started.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    writer: LossyWriter,
    format: LogFormat,
}

/// How records of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line a record; on a terminal, with colors, and with the lines of a longer text indented below it.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            // A variable that is set to nothing says nothing.
            "" | "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("there is no log format `{other}`; {}", suggest::advice(other, &["text", "json"]))),
        }
    }
}

/// Starts to write the log to standard error, and sends panics there. It is never waited for: see [`LossyWriter`].
///
/// # Errors
///
/// When the system starts no thread for it.
pub fn start(filter: &LogFilter, format: LogFormat) -> io::Result<()> {
    let notice = match format {
        LogFormat::Text => format::text_notice,
        LogFormat::Json => format::json_notice,
    };
    let writer = LossyWriter::start("log", own_file(io::stderr())?, Some(notice))?;
    let writer = LOG.get_or_init(|| Log { writer, format }).writer.clone();
    let layer = layer(format, io::stderr().is_terminal(), move || writer.clone());
    let started = tracing_subscriber::registry().with(layer.with_filter(filter.filter())).try_init();
    if started.is_err() {
        tracing::debug!("a log was started before this one");
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// What makes records and hands them to a writer.
fn layer<S, W>(format: LogFormat, is_terminal: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // It would say on standard error what it could not say on standard error.
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Text => layer
            .with_ansi(is_terminal)
            .with_target(false)
            .fmt_fields(format::TextFields { multi_line: is_terminal })
            .boxed(),
        LogFormat::Json => layer.json().flatten_event(true).map_event_format(format::SafeJson).boxed(),
    }
}

/// A standard stream as a file of its own: while it is being written, nobody waits for the lock of the one that all share, and
/// nothing stays behind in its buffer.
#[cfg(unix)]
pub fn own_file(stream: impl std::os::fd::AsFd) -> io::Result<std::fs::File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
pub(crate) fn own_file<S>(stream: S) -> io::Result<S> {
    Ok(stream)
}

/// Logs a panic: what the standard library does would wait for standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    let (location, thread) = (location.as_deref(), std::thread::current());
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        panic = message,
        location,
        thread = thread.name(),
        backtrace = backtrace.as_deref(),
        "a task of the host panicked: please report this"
    );
}

/// Writes a text to standard error where the log goes, behind what was logged before; answers whether there is a log.
pub fn say(text: &str) -> bool {
    let Some(log) = LOG.get() else { return false };
    log.writer.record(text.as_bytes());
    true
}

/// Logs why this process ends and what to do about it, if the log is JSON. Returns whether it is.
pub fn log_failure(error: &str, help: Option<&str>) -> bool {
    let is_json = LOG.get().is_some_and(|log| log.format == LogFormat::Json);
    if is_json {
        tracing::error!(error, help, "modhost cannot continue");
    }
    is_json
}

/// Waits, but not long, until what was logged is written.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.writer.flush(MAX_FLUSH);
    }
}

/// Waits, but not long, until what was logged is written, when it goes out of scope.
pub struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

/// How many lines of the log were dropped because they could not be written.
pub(crate) fn dropped_lines() -> u64 {
    LOG.get().map(|log| log.writer.dropped()).unwrap_or_default()
}
