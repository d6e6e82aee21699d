//! Prints an answer: steps and, on a terminal, the text as it is written; then the answer with its sources.
//!
//! Steps and remarks go to standard error, the answer to standard output, so that it can be piped. Text of a module is
//! sanitized, because it must not control the terminal.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::Style;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::Outcome;
use super::client::{Message, Source, Status, Step};
use super::progress::Exchange;
use crate::commands::diagnostics::{ERROR, HELP};
use crate::commands::output;
use modhost_core::sanitize;
use modhost_core::text;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Shows steps as they start and change.
pub trait StepDisplay {
    /// Shows a new or changed step.
    fn step(&mut self, step: &Step);

    /// Shows the text of the answer so far.
    fn draft(&mut self, _text: &str) {}

    /// Ends the display: no more steps will follow.
    fn close(&mut self) {}
}

/// Returns the display for steps: none with JSON output, live lines on a terminal, plain lines otherwise.
pub fn step_display(json: bool) -> Box<dyn StepDisplay> {
    match json {
        true => Box::new(NoDisplay),
        false if io::stderr().is_terminal() => Box::new(LiveDisplay::new()),
        false => Box::new(LineDisplay(io::stderr())),
    }
}

struct NoDisplay;

impl StepDisplay for NoDisplay {
    fn step(&mut self, _: &Step) {}
}

/// Prints one line per change.
struct LineDisplay<W>(W);

impl<W: Write> StepDisplay for LineDisplay<W> {
    fn step(&mut self, step: &Step) {
        let status = match step.status {
            Status::Running => "running",
            Status::Completed => "done",
            Status::Failed => "failed",
        };
        // Errors are ignored, because there is nowhere to report them.
        let _ = writeln!(self.0, "{status:<8} {}", one_line(&step.text));
    }
}

/// Shows one line per step, which changes in place, and a spinner with the end of the answer so far.
struct LiveDisplay {
    lines: MultiProgress,
    steps: HashMap<String, ProgressBar>,
    waiting: ProgressBar,
}

impl LiveDisplay {
    const TICK: Duration = Duration::from_millis(100);

    fn new() -> Self {
        let lines = MultiProgress::new();
        let waiting = lines.add(ProgressBar::new_spinner().with_style(style("{spinner:.dim} {wide_msg:.dim}")));
        waiting.set_message("waiting for the answer");
        waiting.enable_steady_tick(Self::TICK);
        Self { lines, steps: HashMap::new(), waiting }
    }
}

impl StepDisplay for LiveDisplay {
    fn step(&mut self, step: &Step) {
        let line = self.steps.entry(step.id.clone()).or_insert_with(|| {
            let line = ProgressBar::new_spinner();
            self.lines.insert_before(&self.waiting, line)
        });
        line.set_style(style(match step.status {
            Status::Running => "{spinner:.cyan} {wide_msg}",
            Status::Completed => "{prefix:.green} {wide_msg}",
            Status::Failed => "{prefix:.red} {wide_msg}",
        }));
        line.set_prefix(if step.status == Status::Failed { "✘" } else { "✔" });
        line.set_message(one_line(&step.text));
        match step.status {
            Status::Running => line.enable_steady_tick(Self::TICK),
            Status::Completed | Status::Failed => line.disable_steady_tick(),
        }
        line.tick();
    }

    fn draft(&mut self, text: &str) {
        self.waiting.set_message(truncate_start(&one_line(text)));
    }

    fn close(&mut self) {
        self.waiting.finish_and_clear();
        // Keeps the lines on the terminal.
        self.steps.values().for_each(ProgressBar::abandon);
        if !self.steps.is_empty() {
            // Ends the last line, and separates it from the answer with an empty line.
            output::eprintln!("\n");
        }
    }
}

/// Returns the end of a line, where the answer is being written.
fn truncate_start(line: &str) -> String {
    const MAX_CHARS: usize = 60;
    match line.char_indices().nth_back(MAX_CHARS - 1) {
        Some((start, _)) if start > 0 => format!("…{}", &line[start..]),
        _ => line.to_owned(),
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants and valid.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The result of a message.
pub struct Report<'r> {
    /// The outcome.
    pub outcome: Outcome,
    /// The module that received the message.
    pub module: &'r str,
    /// The assistant that received the message.
    pub assistant_id: &'r str,
    /// The chat.
    pub chat_id: &'r str,
    /// The messages after it.
    pub exchange: &'r Exchange,
}

impl Report<'_> {
    /// Formats the answer with its sources, and other messages, for standard output.
    pub fn answer(&self) -> String {
        let messages = self.exchange.answer.iter().chain(&self.exchange.further);
        let shown: Vec<String> = messages.filter(|message| !is_empty(message)).map(render_message).collect();
        if shown.is_empty() && self.outcome == Outcome::Answered {
            return format!("{DIM}(the answer is empty){DIM:#}\n");
        }
        shown.join("\n")
    }

    /// Formats a failure, if there was one, and the command that continues the chat, for standard error.
    pub fn remarks(&self, timeout: Duration, continue_command: &str) -> String {
        let details = format!("{HELP}help:{HELP:#} see the output of `modhost dev` for details\n");
        let mut remarks = match self.outcome {
            Outcome::Answered => String::new(),
            Outcome::Failed => {
                let error = match self.exchange.failure() {
                    // The message and the location of a panic are on further lines.
                    Some(reason) => format!("{} failed: {}", one_line(self.module), sanitize::indented(reason, "    ")),
                    None => "a step failed".to_owned(),
                };
                format!("\n{ERROR}error:{ERROR:#} {error}\n{details}")
            }
            Outcome::Late => {
                let timeout = humantime::format_duration(timeout);
                format!("\n{ERROR}error:{ERROR:#} no answer from {} within {timeout}\n{details}", one_line(self.module))
            }
            Outcome::Listening => format!(
                "{} only listens: the message was sent, and no answer will follow\n\
                 {HELP}help:{HELP:#} see its log in the output of `modhost dev`\n",
                one_line(self.module)
            ),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(remarks, "\n{DIM}chat {}; to continue: {continue_command}{DIM:#}", self.chat_id);
        remarks
    }
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 8)?;
        report.serialize_field("outcome", &self.outcome)?;
        report.serialize_field("failure", &self.exchange.failure())?;
        report.serialize_field("module", self.module)?;
        report.serialize_field("assistantId", self.assistant_id)?;
        report.serialize_field("chatId", self.chat_id)?;
        report.serialize_field("steps", &self.exchange.steps().collect::<Vec<_>>())?;
        report.serialize_field("answer", &self.exchange.answer.as_ref().map(JsonMessage::from))?;
        report.serialize_field("further", &self.exchange.further.iter().map(JsonMessage::from).collect::<Vec<_>>())?;
        report.end()
    }
}

/// A message in the JSON output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonMessage<'m> {
    message_id: &'m str,
    text: &'m str,
    references: &'m [Source],
}

impl<'m> From<&'m Message> for JsonMessage<'m> {
    fn from(message: &'m Message) -> Self {
        Self {
            message_id: &message.id,
            text: message.text.as_deref().unwrap_or_default(),
            references: &message.references,
        }
    }
}

fn is_empty(message: &Message) -> bool {
    message.text.as_deref().unwrap_or_default().trim().is_empty() && message.references.is_empty()
}

fn render_message(message: &Message) -> String {
    let mut shown = cite_by_number(&sanitize::lines(message.text.as_deref().unwrap_or_default()));
    shown.truncate(shown.trim_end().len());
    shown.push('\n');
    if message.references.is_empty() {
        return shown;
    }
    let mut sources: Vec<&Source> = message.references.iter().collect();
    sources.sort_by_key(|source| source.sequence_number);
    // Writing to a String cannot fail.
    let _ = writeln!(shown, "\n{BOLD}Sources{BOLD:#}");
    for source in sources {
        let url = source.url.as_deref().map(|url| format!("  {DIM}{}{DIM:#}", one_line(url))).unwrap_or_default();
        let _ = writeln!(shown, "  [{}] {}{url}", source.sequence_number, one_line(&source.name));
    }
    shown
}

/// Replaces citations of the platform, `<sup>1</sup>`, with `[1]`.
fn cite_by_number(text: &str) -> String {
    let mut parts = text.split("<sup>");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("</sup>") {
            Some((number, rest)) if !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()) => {
                shown.extend(["[", number, "]", rest]);
            }
            _ => shown.extend(["<sup>", part]),
        }
    }
    shown
}

/// Formats a text on one line: white space, including line ends, becomes a single space.
fn one_line(text: &str) -> String {
    text::one_line(&sanitize::lines(text))
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    fn step(id: &str, text: &str, status: Status) -> Step {
        Step { id: id.into(), text: text.into(), status }
    }

    fn source(sequence_number: i64, name: &str, url: Option<&str>) -> Source {
        Source { sequence_number, name: name.into(), url: url.map(Into::into) }
    }

    fn message(text: &str) -> Message {
        Message { id: "m".into(), text: Some(text.into()), ..Message::default() }
    }

    fn report(outcome: Outcome, exchange: &Exchange) -> Report<'_> {
        Report { outcome, module: "Assistant", assistant_id: "assistant_Assistant", chat_id: "chat_1", exchange }
    }

    #[test]
    fn prints_one_line_per_step_change() {
        let mut written = Vec::new();
        let mut lines = LineDisplay(&mut written);
        lines.step(&step("1", "Searching\nthe knowledge base…", Status::Running));
        lines.step(&step("1", "Found 3\u{1b}[2J documents", Status::Completed));
        lines.step(&step("2", "Generating response…", Status::Failed));
        lines.close();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "running  Searching the knowledge base…\ndone     Found 3\\u{1b}[2J documents\nfailed   Generating response…\n"
        );
    }

    #[test]
    fn shows_the_end_of_an_incomplete_answer() {
        for short in ["", "ä", &"ä".repeat(60)] {
            assert_eq!(truncate_start(short), short);
        }
        assert_eq!(truncate_start(&format!("x{}", "ä".repeat(60))), format!("…{}", "ä".repeat(60)));
    }

    #[test]
    fn formats_the_answer_with_sources_and_other_messages() {
        let references = vec![source(2, "Expenses", None), source(1, "Travel policy", Some("https://example.com/t"))];
        let exchange = Exchange {
            answer: Some(Message { references, ..message("Book early.<sup>1</sup>\n\n") }),
            further: vec![message("One more thing.")],
        };
        assert_eq!(
            strip_str(&report(Outcome::Answered, &exchange).answer()).to_string(),
            "Book early.[1]\n\nSources\n  [1] Travel policy  https://example.com/t\n  [2] Expenses\n\nOne more thing.\n"
        );
    }

    #[test]
    fn other_messages_count_as_an_answer() {
        let exchange = Exchange { answer: Some(message("")), further: vec![message("Hello")] };
        assert_eq!(report(Outcome::Answered, &exchange).answer(), "Hello\n");
        let exchange = Exchange { answer: Some(message("")), further: Vec::new() };
        assert_eq!(strip_str(&report(Outcome::Answered, &exchange).answer()).to_string(), "(the answer is empty)\n");
        assert_eq!(report(Outcome::Late, &Exchange::default()).answer(), "");
    }

    #[test]
    fn remarks_name_the_failure_and_the_next_command() {
        let exchange = Exchange::default();
        let remarks = |outcome| {
            let text = report(outcome, &exchange).remarks(Duration::from_secs(120), "modhost send --chat chat_1 \"…\"");
            strip_str(&text).to_string()
        };
        assert_eq!(remarks(Outcome::Answered), "\nchat chat_1; to continue: modhost send --chat chat_1 \"…\"\n");
        assert!(remarks(Outcome::Failed).starts_with("\nerror: a step failed\nhelp: "));
        let apology = Message { failure: Some("TypeError: no\n  at answer.js".into()), ..message("Sorry") };
        let exchange = Exchange { answer: Some(apology), further: Vec::new() };
        let text = report(Outcome::Failed, &exchange).remarks(Duration::from_secs(120), "…");
        assert!(
            strip_str(&text)
                .to_string()
                .starts_with("\nerror: Assistant failed: TypeError: no\n      at answer.js\nhelp: see the output of "),
            "{text}"
        );
        assert!(remarks(Outcome::Late).starts_with("\nerror: no answer from Assistant within 2m\n"));
        assert!(remarks(Outcome::Listening).starts_with("Assistant only listens: "));
    }

    #[test]
    fn citations_are_numbers_in_brackets() {
        assert_eq!(cite_by_number("a<sup>1</sup><sup>12</sup> b"), "a[1][12] b");
        for unchanged in ["x<sup>2", "<sup>nd</sup>", "<sup></sup>", "plain"] {
            assert_eq!(cite_by_number(unchanged), unchanged);
        }
    }

    #[test]
    fn escapes_terminal_control_sequences() {
        let exchange = Exchange { answer: Some(message("a\u{1b}]0;title\u{7}\tb\r\nc\u{9b}2J")), further: Vec::new() };
        assert_eq!(report(Outcome::Answered, &exchange).answer(), "a\\u{1b}]0;title\\u{7}\tb\nc\\u{9b}2J\n");
    }

    #[test]
    fn json_contains_the_whole_result() {
        let references = vec![source(1, "Travel policy", None)];
        let steps = vec![step("s1", "Searching…", Status::Completed)];
        let exchange = Exchange { answer: Some(Message { references, steps, ..message("Yes") }), further: Vec::new() };
        assert_eq!(
            serde_json::to_value(report(Outcome::Answered, &exchange)).unwrap(),
            serde_json::json!({
                "outcome": "answered",
                "failure": null,
                "module": "Assistant",
                "assistantId": "assistant_Assistant",
                "chatId": "chat_1",
                "steps": [{ "id": "s1", "text": "Searching…", "status": "COMPLETED" }],
                "answer": {
                    "messageId": "m",
                    "text": "Yes",
                    "references": [{ "sequenceNumber": 1, "name": "Travel policy", "url": null }],
                },
                "further": [],
            })
        );
    }
}
