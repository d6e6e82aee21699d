//! Parses OpenAI's chat completions in all the variants that servers send, complete and streamed.
//!
//! Many servers speak this format, and they differ: where an error is placed, whether `[DONE]` is sent, what a
//! keep-alive looks like, where a text is split. One [`Reader`] parses them all, for the endpoint of a tenant, for
//! Unique's own completions, and for the local platform. Its rule: an answer is complete only if it has a text, a tool
//! call or a real finish reason, and if nothing shows that it was cut off or failed.

mod chunk;
mod failure;
mod tools;

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;

use super::{Completion, Ending, Usage};
pub(crate) use chunk::usage;
use chunk::{Choice, Chunk, Finish};
pub(crate) use failure::failure;
use modhost_core::json::{SyntaxError, TextJoiner, Value};
use modhost_core::sse::{self, BodyFormat, Item, Parser, is_keep_alive};
pub use tools::ToolCall;
use tools::ToolCalls;

/// The largest answer, in bytes: its text and the arguments of its tool calls.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The largest event, in bytes. Far more than a piece of an answer needs.
pub const MAX_EVENT: usize = 1024 * 1024;

/// The overhead of a piece besides its text, in bytes, when it is kept and recorded.
const PIECE_OVERHEAD: usize = 32;

/// The reason why there is no answer, or no complete one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer can't be parsed.
    Unreadable {
        /// The reason.
        why: String,
        /// The bytes that can't be parsed.
        found: Bytes,
    },
    /// The answer reports a failure.
    Failed {
        /// The status of the failure, if it is known.
        status: Option<StatusCode>,
        /// The error that was sent, usually JSON.
        found: Bytes,
    },
    /// The answer was cut off.
    Truncated,
    /// The answer is complete, but empty.
    Empty,
    /// The answer contains nothing but calls of these tools.
    OnlyToolCalls(Vec<String>),
    /// The answer is larger than [`MAX_ANSWER`], or one of its events is larger than [`MAX_EVENT`]. Contains the
    /// subject and the limit.
    TooLarge(&'static str, usize),
}

impl Fault {
    fn unreadable(error: &SyntaxError, found: &[u8]) -> Self {
        Self::Unreadable { why: error.to_string(), found: Bytes::copy_from_slice(found) }
    }

    /// Describes the fault, as a sentence without its subject "the answer".
    pub fn describe(&self) -> String {
        match self {
            Self::Unreadable { why, .. } => format!("can't be understood ({why})"),
            Self::Failed { .. } => "is an error".to_owned(),
            Self::Truncated => "stopped without having come to its end".to_owned(),
            Self::Empty => "has no text, no tool call and no reason why the model stopped".to_owned(),
            Self::OnlyToolCalls(names) => {
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                format!(
                    "has no text, only a call of {}; modules can't receive tool calls by modhost:module@0.1: leave \
                     `tools` out of `options`",
                    if names.is_empty() { "a tool".to_owned() } else { names.join(", ") }
                )
            }
            Self::TooLarge(what, limit) => format!("is too large: {what} is larger than {limit} bytes"),
        }
    }
}

/// The result of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More text, never empty.
    Text(String),
    /// No text.
    Nothing,
    /// The end of the answer.
    Done,
}

/// A complete answer.
#[derive(Debug, Default)]
pub struct CompletedAnswer {
    /// The part of the text that was not returned yet.
    pub rest: String,
    /// The finish reason and token usage.
    pub ending: Ending,
    /// The tool calls.
    pub tool_calls: Vec<ToolCall>,
}

impl CompletedAnswer {
    /// Rejects an answer that consists only of tool calls, which a module can't receive.
    fn without_tools(self) -> Result<Self, Fault> {
        if self.tool_calls.is_empty() {
            return Ok(self);
        }
        let mut names: Vec<_> = self.tool_calls.into_iter().map(|call| call.name).collect();
        names.retain(|name| !name.is_empty());
        names.dedup();
        Err(Fault::OnlyToolCalls(names))
    }
}

/// Parses one answer, event by event.
#[derive(Default)]
pub struct Reader {
    /// The index of the choice that is used, once one has content.
    choice: Option<i64>,
    /// Whether other choices have content.
    has_others: bool,
    joiner: TextJoiner,
    /// The size of the answer so far, in bytes.
    size: usize,
    has_text: bool,
    tools: ToolCalls,
    finish: Option<String>,
    /// Whether text followed the finish reason, which is then not final.
    continued_after_finish: bool,
    /// Whether the answer was declared complete.
    is_done: bool,
    /// The finish reason of another choice.
    other_finish: Option<String>,
    usage: Option<Usage>,
}

impl Reader {
    /// Parses an event.
    pub(crate) fn event(&mut self, name: &str, data: &[u8]) -> Result<Progress, Fault> {
        if is_done(data) || (matches!(name, "done" | "end") && is_keep_alive("", data)) {
            return Ok(Progress::Done);
        }
        if failure::is_failure_event(name) {
            let status = Value::read(data).ok().and_then(|value| failure::status(&failure::fields(value)?));
            return Err(Fault::Failed { status, found: Bytes::copy_from_slice(data) });
        }
        if is_keep_alive(name, data) {
            return Ok(Progress::Nothing);
        }
        match Value::read(data) {
            Ok(value) => self.chunk(value, data),
            // Some servers omit the blank lines between events, so that several events arrive as one.
            Err(error) if data.contains(&b'\n') => {
                self.lines(data).unwrap_or_else(|| Err(Fault::unreadable(&error, data)))
            }
            Err(error) => Err(Fault::unreadable(&error, data)),
        }
    }

    /// Parses data whose lines are separate events. Returns `None` if they aren't.
    fn lines(&mut self, data: &[u8]) -> Option<Result<Progress, Fault>> {
        let lines = || data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        if !lines().all(|line| is_done(line) || Value::read(line).is_ok()) {
            return None;
        }
        let mut text = String::new();
        for line in lines() {
            match self.event("", line) {
                Ok(Progress::Text(addition)) => text.push_str(&addition),
                Ok(Progress::Nothing) => {}
                // The text before it is returned first.
                Ok(Progress::Done) => {
                    self.is_done = true;
                    break;
                }
                Err(fault) => return Some(Err(fault)),
            }
        }
        Some(Ok(if text.is_empty() { Progress::Nothing } else { Progress::Text(text) }))
    }

    /// Parses a body that is not an event stream.
    pub fn whole(&mut self, body: &[u8]) -> Result<Progress, Fault> {
        let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
        let value = Value::read(body).map_err(|error| Fault::unreadable(&error, body))?;
        let progress = self.chunk(value, body)?;
        if self.choice.is_none()
            && !self.has_others
            && self.finish.is_none()
            && Chunk::of(value).is_none_or(|chunk| chunk.choices.is_empty())
        {
            let why = "it has no choices".to_owned();
            return Err(Fault::Unreadable { why, found: Bytes::copy_from_slice(body) });
        }
        Ok(progress)
    }

    fn chunk(&mut self, value: Value<'_>, data: &[u8]) -> Result<Progress, Fault> {
        let found = || Bytes::copy_from_slice(data);
        let Some(chunk) = Chunk::of(value) else {
            return Err(Fault::Unreadable { why: "it is not an object".to_owned(), found: found() });
        };
        if let Some(status) = chunk.failure {
            return Err(Fault::Failed { status, found: found() });
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage);
        }
        let mut text = Vec::new();
        for choice in self.select(chunk.choices) {
            text.extend_from_slice(&self.choice(choice)?);
        }
        let text = self.joiner.push(&text);
        if text.is_empty() {
            return Ok(Progress::Nothing);
        }
        self.grow(text.len() + PIECE_OVERHEAD)?;
        Ok(Progress::Text(text))
    }

    /// Returns the choices of a chunk to use: those of one index, which is the first one with content.
    fn select<'a>(&mut self, choices: Vec<Choice<'a>>) -> Vec<Choice<'a>> {
        if self.choice.is_none() {
            let mut speaking: Vec<_> = choices.iter().filter(|choice| choice.has_content()).collect();
            speaking.sort_by_key(|choice| choice.index.unwrap_or(0).unsigned_abs());
            self.choice = speaking.first().map(|choice| choice.index.unwrap_or(0));
        }
        let mut selected = Vec::new();
        for choice in choices {
            // A choice without an index is the only one.
            if self.choice.is_none() || choice.index.is_none() || choice.index == self.choice {
                selected.push(choice);
                continue;
            }
            self.has_others |= choice.has_content();
            if let Finish::Stopped(reason) = &choice.finish {
                self.other_finish = Some(reason.clone());
            }
            if choice.failure.is_some() || matches!(choice.finish, Finish::Failed(_)) {
                selected.push(choice);
            }
        }
        selected
    }

    /// Parses a choice. Returns the text to append, with its JSON escapes.
    fn choice<'a>(&mut self, choice: Choice<'a>) -> Result<Cow<'a, [u8]>, Fault> {
        if let Some(status) = choice.failure {
            return Err(Fault::Failed { status, found: Bytes::copy_from_slice(choice.raw.as_bytes()) });
        }
        if let Finish::Failed(reason) = &choice.finish {
            let error = serde_json::json!({ "error": format!("the model stopped with `{reason}`") });
            return Err(Fault::Failed { status: None, found: error.to_string().into() });
        }
        // Some servers send the complete message after its pieces.
        let repeats = choice.is_whole && (self.has_text || !self.tools.is_empty());
        let text = if repeats { Cow::default() } else { choice.text };
        let has_new_content = !text.is_empty() || (!repeats && !choice.tools.is_empty());
        if has_new_content && self.finish.is_some() {
            self.continued_after_finish = true;
        }
        self.has_text |= !text.is_empty();
        if !repeats {
            for piece in choice.tools {
                let cost = self.tools.add(piece);
                self.grow(cost)?;
            }
        }
        if let Finish::Stopped(reason) = choice.finish {
            self.finish = Some(reason);
        }
        Ok(text)
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        self.size += bytes;
        if self.size > MAX_ANSWER { Err(Fault::TooLarge("it", MAX_ANSWER)) } else { Ok(()) }
    }

    /// Ends the answer. `is_explicit` is whether its end was declared, by `[DONE]` or as one complete JSON. Otherwise
    /// the connection just ended.
    pub(crate) fn end(self, is_explicit: bool) -> Result<CompletedAnswer, Fault> {
        let has_text = self.has_text;
        let answered = self.end_with_tools(is_explicit)?;
        if has_text { Ok(answered) } else { answered.without_tools() }
    }

    /// Ends the answer for a caller that can receive tool calls. All others use [`Reader::end`].
    pub fn end_with_tools(self, is_explicit: bool) -> Result<CompletedAnswer, Fault> {
        let Self {
            mut joiner,
            has_text,
            tools,
            finish,
            continued_after_finish,
            is_done,
            other_finish,
            has_others,
            usage,
            ..
        } = self;
        // Some servers send the finish reason of the only choice under another index.
        let finish_reason = finish.or_else(|| other_finish.filter(|_| !has_others));
        if !(is_explicit || is_done) && (finish_reason.is_none() || continued_after_finish) {
            return Err(Fault::Truncated);
        }
        if !has_text && tools.is_empty() && finish_reason.is_none() {
            return Err(Fault::Empty);
        }
        let rest = joiner.finish();
        Ok(CompletedAnswer { rest, ending: Ending { finish_reason, usage }, tool_calls: tools.into_list() })
    }
}

/// Returns whether this is the data of a stream's last event.
fn is_done(data: &[u8]) -> bool {
    let data = data.trim_ascii();
    let data = data.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\"")).unwrap_or(data);
    data.eq_ignore_ascii_case(b"[DONE]")
}

/// Parses a complete body in any form. Returns its text, and how it ended.
pub fn read(body: &[u8]) -> Result<(String, CompletedAnswer), Fault> {
    let body = &body[sse::leading_blank(body)..];
    let mut reader = Reader::default();
    if sse::detect_format(body) == BodyFormat::Events {
        return read_events(reader, body);
    }
    let mut text = match reader.whole(body)? {
        Progress::Text(text) => text,
        Progress::Nothing | Progress::Done => String::new(),
    };
    let answered = reader.end_with_tools(true)?;
    text.push_str(&answered.rest);
    Ok((text, answered))
}

/// Parses a stream that the server sent as a complete body.
fn read_events(mut reader: Reader, body: &[u8]) -> Result<(String, CompletedAnswer), Fault> {
    let (mut parser, mut piece, mut text) = (Parser::new(MAX_EVENT), Bytes::copy_from_slice(body), String::new());
    let mut is_over = false;
    let is_explicit = loop {
        let read = match parser.next(&mut piece) {
            None if is_over => break false,
            None => {
                is_over = true;
                match parser.finish() {
                    Some(read) => read,
                    None => break false,
                }
            }
            Some(read) => read,
        };
        match reader.read(read, is_over)? {
            Progress::Text(addition) => text.push_str(&addition),
            Progress::Nothing => {}
            Progress::Done => break true,
        }
    };
    let answered = reader.end_with_tools(is_explicit)?;
    text.push_str(&answered.rest);
    Ok((text, answered))
}

impl Reader {
    /// Parses an item of the event parser. `is_last` is whether the stream ended within it.
    pub fn read(&mut self, item: Item, is_last: bool) -> Result<Progress, Fault> {
        let progress = match &item {
            Item::Data(data) => self.event("", data),
            Item::Named(name, data) => self.event(name, data),
            Item::KeepAlive => Ok(Progress::Nothing),
            Item::TooLarge => Err(Fault::TooLarge("an event of it", MAX_EVENT)),
        };
        match progress {
            // A truncated event means that the stream was cut off.
            Err(Fault::Unreadable { .. }) if is_last => Err(Fault::Truncated),
            progress => progress,
        }
    }
}

/// Parses a complete body as a completion of a platform.
pub(crate) fn completion(body: &[u8]) -> Result<Completion, Fault> {
    let (text, answered) = read(body)?;
    let answered = if text.is_empty() { answered.without_tools()? } else { answered };
    let Ending { finish_reason, usage } = answered.ending;
    Ok(Completion { text, finish_reason, usage })
}
