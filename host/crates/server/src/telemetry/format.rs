//! The format of a log record: one line of text, or one JSON object.
//!
//! Messages and fields contain untrusted text: ids of events, output of modules, errors of platforms. It is sanitized
//! here, once, so that no place that logs needs to.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use modhost_core::sanitize;

const DIM: anstyle::Style = anstyle::Style::new().dimmed();

/// Formats the message and the fields of a record as text: `message name=value other="more words"`.
pub(super) struct TextFields {
    /// Whether to print text of several lines as several lines: for people at a terminal, never for a log collector.
    pub multi_line: bool,
}

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = TextVisitor { writer, multi_line: self.multi_line, is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct TextVisitor<'w> {
    writer: Writer<'w>,
    multi_line: bool,
    is_first: bool,
    result: fmt::Result,
}

impl TextVisitor<'_> {
    fn write(&mut self, field: &Field, value: &str) {
        let name = field.name();
        // The source location of a record of the `log` crate, which the target already shows.
        if name.starts_with("log.") || self.result.is_err() {
            return;
        }
        let space = if std::mem::take(&mut self.is_first) { "" } else { " " };
        let value = match self.multi_line && value.contains('\n') {
            true => sanitize::indented(value, "    "),
            false => sanitize::line(value).into_owned(),
        };
        self.result = if name == "message" {
            write!(self.writer, "{space}{value}")
        } else {
            let name = name.strip_prefix("r#").unwrap_or(name);
            let name = if self.writer.has_ansi_escapes() { format!("{DIM}{name}={DIM:#}") } else { format!("{name}=") };
            write!(self.writer, "{space}{name}{value}")
        };
    }
}

impl Visit for TextVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.write(field, value),
            _ => self.write(field, &format!("{value:?}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.write(field, value.trim_end()),
            // Multi-line values are indented and need no quotes.
            _ if self.multi_line && value.contains('\n') => self.write(field, &value),
            _ => self.write(field, &quoted(value)),
        }
    }
}

/// Quotes a value that could be mistaken for several fields.
fn quoted(value: String) -> String {
    let is_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
    if is_quoted || !value.contains([' ', '"', '=']) {
        return value;
    }
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

/// Wraps another format, and escapes unsafe characters in its JSON strings.
pub(super) struct SafeJson<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for SafeJson<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut record = String::new();
        self.0.format_event(context, Writer::new(&mut record), event)?;
        writer.write_str(&sanitize::json(&record))
    }
}

/// Formats a text record of how many lines were dropped.
pub(super) fn text_notice(count: u64) -> Vec<u8> {
    format!("{}  WARN log lines were dropped because they could not be written count={count}\n", now()).into_bytes()
}

/// Formats a JSON record of how many lines were dropped.
pub(super) fn json_notice(count: u64) -> Vec<u8> {
    let record = serde_json::json!({
        "timestamp": now(),
        "level": "WARN",
        "message": "log lines were dropped because they could not be written",
        "count": count,
        "target": module_path!(),
    });
    format!("{record}\n").into_bytes()
}

/// Returns the current time in the format of the records.
fn now() -> String {
    let mut now = String::new();
    // Writing to a String can't fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut now));
    now
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::telemetry::{LogFormat, layer};

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Output {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(format: LogFormat, is_terminal: bool, log: impl FnOnce()) -> String {
        let written = Output::default();
        let subscriber = tracing_subscriber::registry().with(layer(format, is_terminal, written.clone()));
        tracing::subscriber::with_default(subscriber, log);
        let written = written.0.lock().unwrap();
        String::from_utf8(written.clone()).unwrap()
    }

    #[test]
    fn formats_each_record_as_one_line() {
        let log = || {
            let error = "first\nERROR second module=Other";
            tracing::warn!(module = %"Test", event = "id \u{202e}\u{1b}[2J", %error, attempt = 3, "call\u{85} failed\n");
        };
        let text = logged(LogFormat::Text, false, log);
        let (_, record) = text.split_once(" WARN ").unwrap();
        assert_eq!(
            record,
            "call\\u{85} failed module=Test event=\"id \\u{202e}\\u{1b}[2J\" error=\"first\\nERROR second module=Other\" \
             attempt=3\n"
        );
        let json = logged(LogFormat::Json, false, log);
        assert_eq!(json.lines().count(), 1);
        assert!(!json.trim_end().chars().any(sanitize::is_unsafe), "{json}");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((json["level"].as_str(), json["attempt"].as_u64()), (Some("WARN"), Some(3)));
        assert_eq!(json["event"], "id \u{202e}\u{1b}[2J");
        assert_eq!(json["error"], "first\nERROR second module=Other");
        assert_eq!(json["message"], "call\u{85} failed\n");
        assert!(json["target"].as_str().unwrap().starts_with("modhost"), "{json}");
    }

    #[test]
    fn indents_lines_on_a_terminal() {
        let text = logged(LogFormat::Text, true, || tracing::error!("trap\n2026-01-01 INFO forged\n\u{9b}2J"));
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.ends_with(" ERROR trap\n    2026-01-01 INFO forged\n    \\u{9b}2J\n"), "{text:?}");
    }

    #[test]
    fn formats_notices_as_records() {
        let text = String::from_utf8(text_notice(7)).unwrap();
        assert!(text.contains("  WARN log lines were dropped") && text.ends_with(" count=7\n"), "{text}");
        let json: serde_json::Value = serde_json::from_slice(&json_notice(7)).unwrap();
        assert_eq!((json["level"].as_str(), json["count"].as_u64()), (Some("WARN"), Some(7)));
    }

    proptest! {
        #[test]
        fn never_adds_a_line(text in "(\\PC|\\pC){0,20}") {
            let log = || tracing::info!(display = %text, debug = ?text, text = text.as_str(), "{text}");
            for format in [LogFormat::Text, LogFormat::Json] {
                let record = logged(format, false, log);
                prop_assert_eq!(record.matches('\n').count(), 1);
                prop_assert!(!record.trim_end_matches('\n').chars().any(sanitize::is_unsafe), "{:?}", record);
            }
        }
    }
}
