//! The log filter as users write it: a level, or directives.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use modhost_core::suggest;

/// The default filter: the host's own records and the modules' lines from info, all others from warn.
const DEFAULT: &str = "warn,modhost=info,module=info";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The targets that directives can name: the whole host, the modules' own lines, and the crates of the host.
const TARGETS: [&str; 10] = [
    "modhost",
    "module",
    "modhost_core",
    "modhost_storage",
    "modhost_config",
    "modhost_platform",
    "modhost_emulator",
    "modhost_ingress",
    "modhost_runtime",
    "modhost_server",
];

/// Modules that used to be part of the crate `modhost`, with their current targets. Older filters keep working.
const MOVED_TARGETS: [(&str, &str); 14] = [
    ("modhost::event", "modhost_core::event"),
    ("modhost::journal", "modhost_storage::journal"),
    ("modhost::keyvalue", "modhost_storage::keyvalue"),
    ("modhost::versions", "modhost_storage::versions"),
    ("modhost::unreadable", "modhost_storage::unreadable"),
    ("modhost::config", "modhost_config"),
    ("modhost::platform", "modhost_platform"),
    ("modhost::local", "modhost_emulator"),
    ("modhost::listener", "modhost_ingress::listener"),
    ("modhost::sources", "modhost_ingress::sources"),
    ("modhost::capabilities", "modhost_runtime::capabilities"),
    ("modhost::engine", "modhost_runtime::engine"),
    ("modhost::dispatch", "modhost_runtime::dispatch"),
    ("modhost::host", "modhost_server::host"),
];

/// The log filter: a level for the host and its modules, or directives in the syntax of tracing's `EnvFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl Default for LogFilter {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl LogFilter {
    /// Returns the filter. Its text was checked when it was parsed.
    pub(super) fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse(&self.0).unwrap_or_else(|_| EnvFilter::new(DEFAULT))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // An empty variable counts as unset.
        if text.is_empty() {
            return Ok(Self::default());
        }
        if let Some(level) = level(text) {
            // Dependencies stay at warn unless the filter names them: HTTP/2 alone logs a line per frame.
            let others = if ["off", "error"].contains(&level) { level } else { "warn" };
            return Ok(Self(format!("{others},modhost={level},module={level}")));
        }
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).try_for_each(check_directive)?;
        let text = text.split(',').map(with_current_target).collect::<Vec<_>>().join(",");
        match EnvFilter::builder().parse(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(format!("{error}; {ADVICE}")),
        }
    }
}

const ADVICE: &str =
    "write a level (off, error, warn, info, debug, trace), or a filter such as warn,modhost=debug,module=trace";

/// Rejects directives that tracing would misinterpret: it treats a misspelled level as a target and logs everything
/// under it, and a misspelled target silences the host.
fn check_directive(directive: &str) -> Result<(), String> {
    // A filter by span needs no level.
    let (head, in_span) = directive.split_once('[').map_or((directive, None), |(head, rest)| (head, Some(rest)));
    let (target, wanted) = match (in_span, head.split_once('=')) {
        (None, Some((target, wanted))) => (target, Some(wanted)),
        (None, None) => match level(head) {
            Some(_) => return Ok(()),
            None => {
                return Err(format!("`{head}` is not a log level ({}); {ADVICE}", suggest::advice(head, &LEVELS)));
            }
        },
        (Some(rest), _) => (head, rest.rsplit_once("]=").map(|(_, wanted)| wanted)),
    };
    if let Some(wanted) = wanted.filter(|wanted| level(wanted).is_none()) {
        return Err(format!("`{directive}`: `{wanted}` is not a log level ({})", suggest::advice(wanted, &LEVELS)));
    }
    if let Some(odd) = target.chars().find(|c| !(c.is_alphanumeric() || "_:-.".contains(*c))) {
        return Err(format!("`{target}` is not a log target: it contains {odd:?}; separate directives with commas"));
    }
    let first = target.split("::").next().unwrap_or_default();
    match suggest::suggest(first, TARGETS).filter(|name| *name != first) {
        Some(name) => Err(format!("there is no log target `{first}`; did you mean {name}?")),
        None => Ok(()),
    }
}

/// Returns a directive with the target its module logs under now.
fn with_current_target(directive: &str) -> Cow<'_, str> {
    let is_end = |rest: &str| rest.is_empty() || rest.starts_with("::") || rest.starts_with(['=', '[']);
    let renamed = MOVED_TARGETS.iter().find_map(|(before, now)| {
        directive.trim_start().strip_prefix(before).filter(|rest| is_end(rest)).map(|rest| format!("{now}{rest}"))
    });
    renamed.map_or(Cow::Borrowed(directive), Cow::Owned)
}

fn level(word: &str) -> Option<&'static str> {
    LEVELS.into_iter().find(|level| level.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applies_a_level_to_the_host_and_its_modules() {
        for (text, filter) in [
            ("", DEFAULT),
            ("debug", "warn,modhost=debug,module=debug"),
            (" TRACE ", "warn,modhost=trace,module=trace"),
            ("error", "error,modhost=error,module=error"),
            ("off", "off,modhost=off,module=off"),
            ("debug,hyper=warn", "debug,hyper=warn"),
            (
                "modhost_runtime::engine=debug,[call{delivery=a}]=trace,",
                "modhost_runtime::engine=debug,[call{delivery=a}]=trace,",
            ),
            ("warn, modhost::engine=debug", "warn,modhost_runtime::engine=debug"),
            ("modhost::engine::compile=debug", "modhost_runtime::engine::compile=debug"),
            ("modhost::local[chat]=debug", "modhost_emulator[chat]=debug"),
            ("modhost::engines=debug,modhost::commands=info", "modhost::engines=debug,modhost::commands=info"),
        ] {
            assert_eq!(text.parse::<LogFilter>().unwrap().to_string(), filter);
        }
    }

    #[test]
    fn rejects_invalid_filters_with_suggestions() {
        for (text, expected) in [
            ("nonsense", "`nonsense` is not a log level"),
            ("inof", "did you mean info?"),
            ("modhost", "`modhost` is not a log level"),
            ("modhost=loud", "`loud` is not a log level"),
            ("modhost=", "`` is not a log level"),
            ("warn,modhost=debg", "did you mean debug?"),
            ("modhsot=debug", "did you mean modhost?"),
            ("modules=debug", "did you mean module?"),
            ("warn modhost=debug", "contains ' '; separate directives with commas"),
            ("[{", ""),
        ] {
            let error = text.parse::<LogFilter>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
