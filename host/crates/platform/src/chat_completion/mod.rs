//! OpenAI's chat completions as servers really answer them, whole and in events.
//!
//! Many servers speak this format, and each differs a little: where an error stands, whether `[DONE]` comes, what a
//! keep-alive looks like, how a text is cut. One [`Reader`] reads them all, for the endpoint of a tenant, for Unique's own
//! completions, and for the local platform. Its rule: an answer is only complete with a text, a call of a tool or a real
//! reason to stop, and only if nothing shows that it was cut off or failed.

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
use modhost_core::sse::{self, Beginning, Parser, Read, is_keep_alive};
pub use tools::ToolCall;
use tools::ToolCalls;

/// The most an answer may have, in bytes: its text and the arguments of its tool calls.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The most one event may have, in bytes: far more than a piece of an answer.
pub const MAX_EVENT: usize = 1024 * 1024;

/// What a piece costs beside its text, in bytes, when it is kept and written down.
const PIECE_COSTS: usize = 32;

/// Why there is no answer, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It can't be read; why, and what it is about.
    Unreadable {
        /// What is wrong with it.
        why: String,
        /// What can't be read.
        found: Bytes,
    },
    /// It says that it failed.
    Failed {
        /// The status that goes with it, as far as that can be told.
        status: Option<StatusCode>,
        /// Its words, most often as JSON.
        found: Bytes,
    },
    /// It ended before its end.
    Cut,
    /// It came to its end, with nothing in it.
    Empty,
    /// There is nothing in it but calls of these tools.
    OnlyToolCalls(Vec<String>),
    /// It is larger than [`MAX_ANSWER`], or an event of it is larger than [`MAX_EVENT`]; which.
    TooLarge(&'static str, usize),
}

impl Fault {
    fn unreadable(error: &SyntaxError, found: &[u8]) -> Self {
        Self::Unreadable { why: error.to_string(), found: Bytes::copy_from_slice(found) }
    }

    /// In a sentence that goes on from "the answer".
    pub fn describe(&self) -> String {
        match self {
            Self::Unreadable { why, .. } => format!("can't be understood ({why})"),
            Self::Failed { .. } => "is an error".to_owned(),
            Self::Cut => "stopped without having come to its end".to_owned(),
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

/// What an event brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More of the text, never empty.
    Text(String),
    /// Nothing to hand on.
    Nothing,
    /// The end of the answer.
    Done,
}

/// An answer that is complete.
#[derive(Debug, Default)]
pub struct Answered {
    /// Its text, as far as it wasn't handed on yet.
    pub rest: String,
    /// How it ended.
    pub ending: Ending,
    /// The tools it calls.
    pub tool_calls: Vec<ToolCall>,
}

impl Answered {
    /// Refuses an answer without text, if calls of tools are all it has: a module can't be handed those.
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

/// Reads one answer, event by event.
#[derive(Default)]
pub struct Reader {
    /// The index of the choice that is read, once one has said something.
    choice: Option<i64>,
    /// Whether other choices said something.
    has_others: bool,
    joiner: TextJoiner,
    /// How large the answer is so far, in bytes.
    size: usize,
    has_text: bool,
    tools: ToolCalls,
    finish: Option<String>,
    /// Whether text came behind a reason to stop: then it is none.
    went_on: bool,
    /// Whether the answer has said that it is at its end.
    is_done: bool,
    /// Why another choice stopped.
    other_finish: Option<String>,
    usage: Option<Usage>,
}

impl Reader {
    /// Reads an event.
    pub(crate) fn event(&mut self, name: &str, data: &[u8]) -> Result<Progress, Fault> {
        if is_done(data) || (matches!(name, "done" | "end") && is_keep_alive("", data)) {
            return Ok(Progress::Done);
        }
        if failure::is_name(name) {
            let status = Value::read(data).ok().and_then(|value| failure::status(&failure::fields(value)?));
            return Err(Fault::Failed { status, found: Bytes::copy_from_slice(data) });
        }
        if is_keep_alive(name, data) {
            return Ok(Progress::Nothing);
        }
        match Value::read(data) {
            Ok(value) => self.chunk(value, data),
            // Some servers leave out the blank lines between events, so that several become one.
            Err(error) if data.contains(&b'\n') => {
                self.lines(data).unwrap_or_else(|| Err(Fault::unreadable(&error, data)))
            }
            Err(error) => Err(Fault::unreadable(&error, data)),
        }
    }

    /// Reads data whose lines are events of their own; none if they aren't.
    fn lines(&mut self, data: &[u8]) -> Option<Result<Progress, Fault>> {
        let lines = || data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        if !lines().all(|line| is_done(line) || Value::read(line).is_ok()) {
            return None;
        }
        let mut text = String::new();
        for line in lines() {
            match self.event("", line) {
                Ok(Progress::Text(more)) => text.push_str(&more),
                Ok(Progress::Nothing) => {}
                // What came with it is handed on first.
                Ok(Progress::Done) => {
                    self.is_done = true;
                    break;
                }
                Err(fault) => return Some(Err(fault)),
            }
        }
        Some(Ok(if text.is_empty() { Progress::Nothing } else { Progress::Text(text) }))
    }

    /// Reads a body that is no stream of events.
    pub fn whole(&mut self, body: &[u8]) -> Result<Progress, Fault> {
        let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
        let value = Value::read(body).map_err(|error| Fault::unreadable(&error, body))?;
        let progress = self.chunk(value, body)?;
        if self.choice.is_none()
            && !self.has_others
            && self.finish.is_none()
            && Chunk::of(value).is_none_or(|chunk| chunk.choices.is_empty())
        {
            let why = "it has no choice".to_owned();
            return Err(Fault::Unreadable { why, found: Bytes::copy_from_slice(body) });
        }
        Ok(progress)
    }

    fn chunk(&mut self, value: Value<'_>, data: &[u8]) -> Result<Progress, Fault> {
        let found = || Bytes::copy_from_slice(data);
        let Some(chunk) = Chunk::of(value) else {
            return Err(Fault::Unreadable { why: "it is no object".to_owned(), found: found() });
        };
        if let Some(status) = chunk.failure {
            return Err(Fault::Failed { status, found: found() });
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage);
        }
        let mut text = Vec::new();
        for choice in self.own(chunk.choices) {
            text.extend_from_slice(&self.choice(choice)?);
        }
        let text = self.joiner.push(&text);
        if text.is_empty() {
            return Ok(Progress::Nothing);
        }
        self.grow(text.len() + PIECE_COSTS)?;
        Ok(Progress::Text(text))
    }

    /// The choices of a chunk that are read: those of one index, whichever that is.
    fn own<'a>(&mut self, choices: Vec<Choice<'a>>) -> Vec<Choice<'a>> {
        if self.choice.is_none() {
            let mut speaking: Vec<_> = choices.iter().filter(|choice| choice.says_something()).collect();
            speaking.sort_by_key(|choice| choice.index.unwrap_or(0).unsigned_abs());
            self.choice = speaking.first().map(|choice| choice.index.unwrap_or(0));
        }
        let mut own = Vec::new();
        for choice in choices {
            // A choice without an index is the only one.
            if self.choice.is_none() || choice.index.is_none() || choice.index == self.choice {
                own.push(choice);
                continue;
            }
            self.has_others |= choice.says_something();
            if let Finish::Stopped(reason) = &choice.finish {
                self.other_finish = Some(reason.clone());
            }
            if choice.failure.is_some() || matches!(choice.finish, Finish::Failed(_)) {
                own.push(choice);
            }
        }
        own
    }

    /// Reads a choice; returns its addition to the text as it is written.
    fn choice<'a>(&mut self, choice: Choice<'a>) -> Result<Cow<'a, [u8]>, Fault> {
        if let Some(status) = choice.failure {
            return Err(Fault::Failed { status, found: Bytes::copy_from_slice(choice.raw.as_bytes()) });
        }
        if let Finish::Failed(reason) = &choice.finish {
            let told = serde_json::json!({ "error": format!("the model stopped with `{reason}`") });
            return Err(Fault::Failed { status: None, found: told.to_string().into() });
        }
        // Some servers send the whole message behind its pieces.
        let repeats = choice.is_whole && (self.has_text || !self.tools.is_empty());
        let text = if repeats { Cow::default() } else { choice.text };
        let says_more = !text.is_empty() || (!repeats && !choice.tools.is_empty());
        if says_more && self.finish.is_some() {
            self.went_on = true;
        }
        self.has_text |= !text.is_empty();
        if !repeats {
            for piece in choice.tools {
                let costs = self.tools.add(piece);
                self.grow(costs)?;
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

    /// The end of the answer. `said` is whether it said so itself, by `[DONE]` or by being one whole JSON; else the
    /// connection has just ended.
    pub(crate) fn end(self, said: bool) -> Result<Answered, Fault> {
        let has_text = self.has_text;
        let answered = self.end_with_tools(said)?;
        if has_text { Ok(answered) } else { answered.without_tools() }
    }

    /// The end of an answer for somebody who can be handed calls of tools; the others want [`Reader::end`].
    pub fn end_with_tools(self, said: bool) -> Result<Answered, Fault> {
        let Self { mut joiner, has_text, tools, finish, went_on, is_done, other_finish, has_others, usage, .. } = self;
        // There are servers that say by another index why the only choice stopped.
        let finish_reason = finish.or_else(|| other_finish.filter(|_| !has_others));
        if !(said || is_done) && (finish_reason.is_none() || went_on) {
            return Err(Fault::Cut);
        }
        if !has_text && tools.is_empty() && finish_reason.is_none() {
            return Err(Fault::Empty);
        }
        let rest = joiner.finish();
        Ok(Answered { rest, ending: Ending { finish_reason, usage }, tool_calls: tools.into_list() })
    }
}

/// What the last event of a stream says.
fn is_done(data: &[u8]) -> bool {
    let data = data.trim_ascii();
    let data = data.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\"")).unwrap_or(data);
    data.eq_ignore_ascii_case(b"[DONE]")
}

/// An answer that came to its end, in whatever form: its text, and how it ended.
pub fn read(body: &[u8]) -> Result<(String, Answered), Fault> {
    let body = &body[sse::blank(body)..];
    let mut reader = Reader::default();
    if sse::beginning(body) == Beginning::Events {
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

/// A stream that was asked for as one answer.
fn read_events(mut reader: Reader, body: &[u8]) -> Result<(String, Answered), Fault> {
    let (mut parser, mut piece, mut text) = (Parser::new(MAX_EVENT), Bytes::copy_from_slice(body), String::new());
    let mut is_over = false;
    let said = loop {
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
            Progress::Text(more) => text.push_str(&more),
            Progress::Nothing => {}
            Progress::Done => break true,
        }
    };
    let answered = reader.end_with_tools(said)?;
    text.push_str(&answered.rest);
    Ok((text, answered))
}

impl Reader {
    /// Reads what a parser has read; `is_last` where the stream ended within it.
    pub fn read(&mut self, read: Read, is_last: bool) -> Result<Progress, Fault> {
        let progress = match &read {
            Read::Data(data) => self.event("", data),
            Read::Named(name, data) => self.event(name, data),
            Read::SignOfLife => Ok(Progress::Nothing),
            Read::TooLarge => Err(Fault::TooLarge("an event of it", MAX_EVENT)),
        };
        match progress {
            // Half an event is no event.
            Err(Fault::Unreadable { .. }) if is_last => Err(Fault::Cut),
            progress => progress,
        }
    }
}

/// An answer that came whole, as the platform's.
pub(crate) fn completion(body: &[u8]) -> Result<Completion, Fault> {
    let (text, answered) = read(body)?;
    let answered = if text.is_empty() { answered.without_tools()? } else { answered };
    let Ending { finish_reason, usage } = answered.ending;
    Ok(Completion { text, finish_reason, usage })
}
