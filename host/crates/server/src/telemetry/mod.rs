//! The log on standard error.

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

/// The longest time that the process waits at its end for the log to be written.
const MAX_FLUSH: Duration = Duration::from_secs(1);

/// The log of this process, once it is started.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    writer: LossyWriter,
    format: LogFormat,
}

/// The format of log records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line per record. On a terminal, with colors, and with text of several lines indented below it.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            // An empty variable counts as unset.
            "" | "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown log format `{other}`; {}", suggest::advice(other, &["text", "json"]))),
        }
    }
}

/// Starts writing the log, panics included, to standard error. Logging never blocks: see [`LossyWriter`].
///
/// # Errors
///
/// Fails if the operating system can't start a thread.
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

/// Returns the layer that formats records and passes them to a writer.
fn layer<S, W>(format: LogFormat, is_terminal: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // Internal errors would go to standard error, which has just failed.
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

/// Returns a standard stream as a separate file. Writing it doesn't hold the lock of the shared stream, and nothing is
/// buffered.
#[cfg(unix)]
pub fn own_file(stream: impl std::os::fd::AsFd) -> io::Result<std::fs::File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
pub(crate) fn own_file<S>(stream: S) -> io::Result<S> {
    Ok(stream)
}

/// Logs a panic. The default hook would block on standard error.
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

/// Writes text to the log on standard error, after everything logged before. Returns false if no log is started.
pub fn write_raw(text: &str) -> bool {
    let Some(log) = LOG.get() else { return false };
    log.writer.record(text.as_bytes());
    true
}

/// Logs the reason why this process ends and how to fix it, if the format is JSON. Returns whether it is.
pub fn log_failure(error: &str, help: Option<&str>) -> bool {
    let is_json = LOG.get().is_some_and(|log| log.format == LogFormat::Json);
    if is_json {
        tracing::error!(error, help, "modhost cannot continue");
    }
    is_json
}

/// Waits briefly until everything logged is written.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.writer.flush(MAX_FLUSH);
    }
}

/// Waits briefly, when dropped, until everything logged is written.
pub struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

/// Returns the number of log lines that were dropped because they could not be written.
pub(crate) fn dropped_lines() -> u64 {
    LOG.get().map(|log| log.writer.dropped()).unwrap_or_default()
}
