//! What the host tells operators while it runs: lines on standard error, and figures.

pub mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is told when `MODHOST_LOG` doesn't say: the host's own news, the modules' lines, and others' warnings.
const DEFAULT: &str = "warn,modhost=info,module=info";

/// Starts to write the log. `MODHOST_LOG` chooses what is told, in the words of tracing's `EnvFilter`
/// (`modhost=debug`); colours only on a terminal.
pub fn start() {
    let filter = EnvFilter::try_from_env("MODHOST_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    if started.is_err() {
        tracing::debug!("a log was started before this one");
    }
}

/// A text that a guest has a part in, as the log has it: indented from its second line on, so that none of its lines can pass
/// for a line of the log.
pub(crate) fn indented(text: &str) -> String {
    text.trim().replace(['\r', '\n'], "\n    ")
}
