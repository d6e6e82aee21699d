//! Errors, warnings and hints on standard error. Each starts with its prefix: `error:`, `warning:` or `help:`.

use std::fmt;

use anstyle::{AnsiColor, Style};

use super::output;
use modhost_config::ConfigErrors;
use modhost_server::telemetry;

pub(super) const ERROR: Style = AnsiColor::Red.on_default().bold();
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const HELP: Style = AnsiColor::Cyan.on_default().bold();

/// An error and what the user can do about it. The hint is printed on a line of its own.
#[derive(Debug)]
struct ErrorWithHelp {
    error: anyhow::Error,
    help: String,
}

impl fmt::Display for ErrorWithHelp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for ErrorWithHelp {}

/// Returns an error that [`report`] prints together with this hint.
pub(super) fn error_with_help(message: impl Into<String>, help: impl Into<String>) -> anyhow::Error {
    with_help(anyhow::anyhow!(message.into()), help)
}

/// Adds a hint to an error.
pub(super) fn with_help(error: impl Into<anyhow::Error>, help: impl Into<String>) -> anyhow::Error {
    ErrorWithHelp { error: error.into(), help: help.into() }.into()
}

/// Returns the hint of an error.
pub(super) fn help_of(error: &anyhow::Error) -> Option<&str> {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<ErrorWithHelp>())?;
    Some(&cause.help)
}

/// Returns the messages of an error: several if the settings have several problems.
fn messages_of(error: &anyhow::Error) -> Vec<String> {
    if let Some(ErrorWithHelp { error, .. }) = error.downcast_ref() {
        return messages_of(error);
    }
    let mut contexts = Vec::new();
    for cause in error.chain() {
        if let Some(errors) = cause.downcast_ref::<ConfigErrors>() {
            let context = (!contexts.is_empty()).then(|| contexts.join(": "));
            return context.into_iter().chain(errors.iter().map(ToString::to_string)).collect();
        }
        contexts.push(cause.to_string());
    }
    vec![format!("{error:#}")]
}

/// Reports why a command failed. If the log is JSON, the error becomes a record of the log.
pub(super) fn report(error: &anyhow::Error) {
    let help = help_of(error);
    if telemetry::log_failure(&format!("{error:#}"), help) {
        return;
    }
    let messages = messages_of(error).into_iter().map(|message| format!("{ERROR}error:{ERROR:#} {message}\n"));
    output::eprint!("{}", messages.collect::<Vec<_>>().join("\n"));
    if let Some(help) = help {
        hint(help);
    }
}

/// Prints a warning: the command continues.
pub(super) fn warn(message: impl fmt::Display) {
    output::eprintln!("{WARNING}warning:{WARNING:#} {message}");
}

/// Prints a hint: what the user can do next.
pub(super) fn hint(message: impl fmt::Display) {
    output::eprintln!("{HELP}help:{HELP:#} {message}");
}
