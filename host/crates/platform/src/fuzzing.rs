//! Parsers of untrusted bytes without the network, for the property tests in `tests/fuzz`, the targets in `fuzz/` at
//! the top level, and tests with thousands of inputs. Not part of the crate's public API.

use bytes::Bytes;

use crate::chat_completion::{self, Progress, Reader};
use crate::{Completion, Hit, Message, unique};
use modhost_core::json::Value;
use modhost_core::sse::{Item, Parser};

/// Parses the body of a completion, either JSON or an event stream.
///
/// # Errors
/// Returns the reason why it is not an answer, as a sentence without its subject "the answer".
pub fn completion(body: &[u8]) -> Result<Completion, String> {
    chat_completion::completion(body).map_err(|fault| fault.describe())
}

/// Parses a streamed completion in pieces of this size, as a module reads it.
///
/// # Errors
/// Returns the text of the pieces before the failure, and its reason.
pub fn completion_in_pieces(body: &[u8], size: usize) -> Result<Completion, (String, String)> {
    let (mut reader, mut parser, mut text) =
        (Reader::default(), Parser::new(chat_completion::MAX_EVENT), String::new());
    let mut pieces = body.chunks(size.max(1));
    let is_explicit = loop {
        let Some(piece) = pieces.next() else {
            break match parser.finish().map(|item| reader.read(item, true)).transpose() {
                Ok(Some(Progress::Done)) => true,
                Ok(Some(Progress::Text(addition))) => {
                    text.push_str(&addition);
                    false
                }
                Ok(_) => false,
                Err(fault) => return Err((text, fault.describe())),
            };
        };
        let mut piece = Bytes::copy_from_slice(piece);
        let mut done = false;
        while let Some(item) = parser.next(&mut piece) {
            match reader.read(item, false) {
                Ok(Progress::Text(addition)) => text.push_str(&addition),
                Ok(Progress::Nothing) => {}
                Ok(Progress::Done) => {
                    done = true;
                    break;
                }
                Err(fault) => return Err((text, fault.describe())),
            }
        }
        if done {
            break true;
        }
    };
    match reader.end(is_explicit) {
        Ok(answered) => {
            text.push_str(&answered.rest);
            let (finish_reason, usage) = (answered.ending.finish_reason, answered.ending.usage);
            Ok(Completion { text, finish_reason, usage })
        }
        Err(fault) => Err((text, fault.describe())),
    }
}

/// Returns the names and data of a stream's events, parsed in pieces of this size. `None` stands for an event above the
/// limit.
pub fn events(stream: &[u8], size: usize, limit: usize) -> Vec<Option<(String, Bytes)>> {
    let mut parser = Parser::new(limit);
    let mut events = Vec::new();
    for piece in stream.chunks(size.max(1)) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(item) = parser.next(&mut piece) {
            events.extend(of(item));
        }
    }
    events.extend(parser.finish().and_then(of));
    events
}

fn of(item: Item) -> Option<Option<(String, Bytes)>> {
    match item {
        Item::Data(data) => Some(Some((String::new(), data))),
        Item::Named(name, data) => Some(Some((name, data))),
        Item::TooLarge => Some(None),
        Item::KeepAlive => None,
    }
}

/// Parses the hits of a Unique search.
///
/// # Errors
/// Returns the reason why the body is not a list of hits.
pub fn hits(body: &[u8]) -> Result<Vec<Hit>, String> {
    read(body, unique::read_hits)
}

/// Parses a page of a Unique chat's messages.
///
/// # Errors
/// Returns the reason why the body is not such a page.
pub fn messages(body: &[u8]) -> Result<Vec<Message>, String> {
    read(body, unique::read_messages)
}

fn read<T>(body: &[u8], read: impl FnOnce(Value<'_>) -> Result<T, &'static str>) -> Result<T, String> {
    let value = Value::read(body).map_err(|error| error.to_string())?;
    read(value).map_err(str::to_owned)
}
