//! What the user sees of an answer: steps while it is made, on a terminal the words as they come, then the answer with its
//! sources.
//!
//! The steps and remarks go to stderr, the answer to stdout, so that it can be piped on. What a module wrote is made safe: it
//! must not be able to drive the terminal.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::Outcome;
use super::client::{Message, Source, Status, Step};
use super::progress::Exchange;
use crate::commands::output;
use modhost_core::sanitize;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default();

/// Shows steps as they come and change.
pub trait Show {
    /// A step is new, or changed.
    fn step(&mut self, step: &Step);

    /// This is what there is of the answer by now.
    fn draft(&mut self, _text: &str) {}

    /// No more steps will come.
    fn close(&mut self) {}
}

/// The way to show steps that fits where stderr goes: nothing beside JSON, live lines on a terminal, else plain ones.
pub fn show(json: bool) -> Box<dyn Show> {
    match json {
        true => Box::new(Nothing),
        false if io::stderr().is_terminal() => Box::new(Live::new()),
        false => Box::new(Lines(io::stderr())),
    }
}

struct Nothing;

impl Show for Nothing {
    fn step(&mut self, _: &Step) {}
}

/// One plain line a change.
struct Lines<W>(W);

impl<W: Write> Show for Lines<W> {
    fn step(&mut self, step: &Step) {
        let status = match step.status {
            Status::Running => "running",
            Status::Completed => "done",
            Status::Failed => "failed",
        };
        // Nobody reads a stderr that can't be written to.
        let _ = writeln!(self.0, "{status:<8} {}", one_line(&step.text));
    }
}

/// One line a step, which changes in its place, and one that turns until the answer is there: with the end of what there is
/// of it by now.
struct Live {
    lines: MultiProgress,
    steps: HashMap<String, ProgressBar>,
    waiting: ProgressBar,
}

impl Live {
    const TICK: Duration = Duration::from_millis(100);

    fn new() -> Self {
        let lines = MultiProgress::new();
        let waiting = lines.add(ProgressBar::new_spinner().with_style(style("{spinner:.dim} {wide_msg:.dim}")));
        waiting.set_message("waiting for the answer");
        waiting.enable_steady_tick(Self::TICK);
        Self { lines, steps: HashMap::new(), waiting }
    }
}

impl Show for Live {
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
        self.waiting.set_message(end_of(&one_line(text)));
    }

    fn close(&mut self) {
        self.waiting.finish_and_clear();
        // Leaves the lines as they are.
        self.steps.values().for_each(ProgressBar::abandon);
        if !self.steps.is_empty() {
            // The last line is still open; an empty one sets the answer off.
            output::eprintln!("\n");
        }
    }
}

/// The end of a line, which is where something is being written.
fn end_of(line: &str) -> String {
    const SHOWN: usize = 60;
    match line.char_indices().nth_back(SHOWN - 1) {
        Some((start, _)) if start > 0 => format!("…{}", &line[start..]),
        _ => line.to_owned(),
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours and right; if one weren't, a plain spinner is no harm.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// All there is to tell in the end.
pub struct Report<'r> {
    /// How it went.
    pub outcome: Outcome,
    /// The module that was talked to.
    pub module: &'r str,
    /// The assistant that was talked to.
    pub assistant_id: &'r str,
    /// The chat.
    pub chat_id: &'r str,
    /// What came of it.
    pub turn: &'r Exchange,
}

impl Report<'_> {
    /// The answer and its sources, and whatever else was written, for stdout.
    pub fn answer(&self) -> String {
        let messages = self.turn.answer.iter().chain(&self.turn.further);
        let shown: Vec<String> = messages.filter(|message| !is_silent(message)).map(render_message).collect();
        if shown.is_empty() && self.outcome == Outcome::Answered {
            return format!("{DIM}(the answer is empty){DIM:#}\n");
        }
        shown.join("\n")
    }

    /// How it went, if it didn't go well, and how to go on; for stderr.
    pub fn remarks(&self, timeout: Duration, go_on: &str) -> String {
        let mut remarks = match self.outcome {
            Outcome::Answered => String::new(),
            Outcome::Failed => match self.turn.failure() {
                Some(reason) => {
                    // What a panic says, and where it was, stands on further lines.
                    let reason = sanitize::indented(reason, "    ");
                    let end = if reason.contains('\n') { "\nthe" } else { "; the" };
                    format!(
                        "\n{RED}{} failed{RED:#}: {reason}{end} output of `modhost dev` says more\n",
                        one_line(self.module)
                    )
                }
                None => format!("\n{RED}a step failed{RED:#}; the output of `modhost dev` says why\n"),
            },
            Outcome::Late => format!(
                "\n{RED}no answer within {}{RED:#}; the output of `modhost dev` says what {} is doing\n",
                humantime::format_duration(timeout),
                self.module
            ),
            Outcome::Listening => format!(
                "{} only listens: the message is sent, and no answer will come; the output of `modhost dev` has its log\n",
                self.module
            ),
        };
        // Writing to a String can't fail.
        let _ = writeln!(remarks, "\n{DIM}chat {}, go on with: {go_on}{DIM:#}", self.chat_id);
        remarks
    }
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 8)?;
        report.serialize_field("outcome", &self.outcome)?;
        report.serialize_field("failure", &self.turn.failure())?;
        report.serialize_field("module", self.module)?;
        report.serialize_field("assistantId", self.assistant_id)?;
        report.serialize_field("chatId", self.chat_id)?;
        report.serialize_field("steps", &self.turn.steps().collect::<Vec<_>>())?;
        report.serialize_field("answer", &self.turn.answer.as_ref().map(Written::from))?;
        report.serialize_field("further", &self.turn.further.iter().map(Written::from).collect::<Vec<_>>())?;
        report.end()
    }
}

/// A message, as the JSON has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'m> {
    message_id: &'m str,
    text: &'m str,
    references: &'m [Source],
}

impl<'m> From<&'m Message> for Written<'m> {
    fn from(message: &'m Message) -> Self {
        Self {
            message_id: &message.id,
            text: message.text.as_deref().unwrap_or_default(),
            references: &message.references,
        }
    }
}

fn is_silent(message: &Message) -> bool {
    message.text.as_deref().unwrap_or_default().trim().is_empty() && message.references.is_empty()
}

fn render_message(message: &Message) -> String {
    let mut shown = numbered(&sanitize::lines(message.text.as_deref().unwrap_or_default()));
    shown.truncate(shown.trim_end().len());
    shown.push('\n');
    if message.references.is_empty() {
        return shown;
    }
    let mut sources: Vec<&Source> = message.references.iter().collect();
    sources.sort_by_key(|source| source.sequence_number);
    // Writing to a String can't fail.
    let _ = writeln!(shown, "\n{BOLD}Sources{BOLD:#}");
    for source in sources {
        let url = source.url.as_deref().map(|url| format!("  {DIM}{}{DIM:#}", one_line(url))).unwrap_or_default();
        let _ = writeln!(shown, "  [{}] {}{url}", source.sequence_number, one_line(&source.name));
    }
    shown
}

/// The text with `<sup>1</sup>`, which is how the platform refers to a source, as `[1]`.
fn numbered(text: &str) -> String {
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

/// A text on one line, with a space in the place of its line ends.
fn one_line(text: &str) -> String {
    sanitize::line(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
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

    fn said(text: &str) -> Message {
        Message { id: "m".into(), text: Some(text.into()), ..Message::default() }
    }

    fn report(outcome: Outcome, turn: &Exchange) -> Report<'_> {
        Report { outcome, module: "Assistant", assistant_id: "assistant_Assistant", chat_id: "chat_1", turn }
    }

    #[test]
    fn plain_steps_are_a_line_each() {
        let mut written = Vec::new();
        let mut lines = Lines(&mut written);
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
    fn of_an_unfinished_answer_the_end_is_shown() {
        for short in ["", "ä", &"ä".repeat(60)] {
            assert_eq!(end_of(short), short);
        }
        assert_eq!(end_of(&format!("x{}", "ä".repeat(60))), format!("…{}", "ä".repeat(60)));
    }

    #[test]
    fn the_answer_comes_with_its_sources_and_what_else_was_written() {
        let references = vec![source(2, "Expenses", None), source(1, "Travel policy", Some("https://example.com/t"))];
        let turn = Exchange {
            answer: Some(Message { references, ..said("Book early.<sup>1</sup>\n\n") }),
            further: vec![said("One more thing.")],
        };
        assert_eq!(
            strip_str(&report(Outcome::Answered, &turn).answer()).to_string(),
            "Book early.[1]\n\nSources\n  [1] Travel policy  https://example.com/t\n  [2] Expenses\n\nOne more thing.\n"
        );
    }

    #[test]
    fn an_answer_in_another_message_is_not_called_empty() {
        let turn = Exchange { answer: Some(said("")), further: vec![said("Hello")] };
        assert_eq!(report(Outcome::Answered, &turn).answer(), "Hello\n");
        let turn = Exchange { answer: Some(said("")), further: Vec::new() };
        assert_eq!(strip_str(&report(Outcome::Answered, &turn).answer()).to_string(), "(the answer is empty)\n");
        assert_eq!(report(Outcome::Late, &Exchange::default()).answer(), "");
    }

    #[test]
    fn remarks_say_how_it_went_and_how_to_go_on() {
        let turn = Exchange::default();
        let remarks = |outcome| {
            let text = report(outcome, &turn).remarks(Duration::from_secs(120), "modhost send --chat chat_1 \"…\"");
            strip_str(&text).to_string()
        };
        assert_eq!(remarks(Outcome::Answered), "\nchat chat_1, go on with: modhost send --chat chat_1 \"…\"\n");
        assert!(remarks(Outcome::Failed).starts_with("\na step failed; "));
        let apology = Message { failure: Some("TypeError: no\n  at answer.js".into()), ..said("Sorry") };
        let turn = Exchange { answer: Some(apology), further: Vec::new() };
        let text = report(Outcome::Failed, &turn).remarks(Duration::from_secs(120), "…");
        assert!(
            strip_str(&text)
                .to_string()
                .starts_with("\nAssistant failed: TypeError: no\n      at answer.js\nthe output of "),
            "{text}"
        );
        assert!(remarks(Outcome::Late).starts_with("\nno answer within 2m; "));
        assert!(remarks(Outcome::Listening).starts_with("Assistant only listens: "));
    }

    #[test]
    fn numbers_stand_in_brackets() {
        assert_eq!(numbered("a<sup>1</sup><sup>12</sup> b"), "a[1][12] b");
        for left_alone in ["x<sup>2", "<sup>nd</sup>", "<sup></sup>", "plain"] {
            assert_eq!(numbered(left_alone), left_alone);
        }
    }

    #[test]
    fn a_module_cannot_drive_the_terminal() {
        let turn = Exchange { answer: Some(said("a\u{1b}]0;title\u{7}\tb\r\nc\u{9b}2J")), further: Vec::new() };
        assert_eq!(report(Outcome::Answered, &turn).answer(), "a\\u{1b}]0;title\\u{7}\tb\nc\\u{9b}2J\n");
    }

    #[test]
    fn json_has_it_all() {
        let references = vec![source(1, "Travel policy", None)];
        let steps = vec![step("s1", "Searching…", Status::Completed)];
        let turn = Exchange { answer: Some(Message { references, steps, ..said("Yes") }), further: Vec::new() };
        assert_eq!(
            serde_json::to_value(report(Outcome::Answered, &turn)).unwrap(),
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
