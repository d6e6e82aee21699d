//! Server-sent events, as the [HTML standard] has them, as far as the host reads any: their names and data.
//!
//! The crates there are for this keep a line and an event until they are complete, however large they get. This one
//! passes over what is too large and goes on behind it, so that neither a mistake nor malice on the far side costs more
//! memory than one event may have, nor any event but that one.
//!
//! [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

use bytes::{Buf, Bytes};

/// What may stand at the beginning of a stream, and means nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The field that holds data, as it begins a line.
const FIELD: &[u8] = b"data:";

/// The field that names an event.
const NAME: &[u8] = b"event:";

/// How much of an event's name is kept, in bytes. Those that mean anything are short.
const MAX_NAME: usize = 64;

/// A field that no standard knows: llama.cpp's server says by it what `event: error` and data say.
const ERROR: &[u8] = b"error:";

/// The fields a stream may begin with.
const FIELDS: [&str; 5] = ["data", "event", "id", "retry", "error"];

/// What stands before data in a line, at most, in bytes: the field, and a space.
const BEFORE_DATA: usize = FIELD.len() + 1;

/// Reads a stream piece by piece, wherever it is cut.
pub struct Parser {
    /// How many bytes an event may have.
    limit: usize,
    /// The line that is being read, but for what is passed over.
    line: Vec<u8>,
    /// Whether anything at all stands in that line.
    line_begun: bool,
    /// The name of the event that is being read, if it has one other than the usual.
    name: Option<String>,
    /// The data of the event that is being read, if it has any yet.
    data: Option<Vec<u8>>,
    /// Whether the event that is being read is passed over.
    too_large: bool,
    /// Whether the last line ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    /// Whether no line has ended yet.
    at_start: bool,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The data of an event.
    Data(Bytes),
    /// An event with a name, and its data, which may be empty.
    Named(String, Bytes),
    /// An event that was larger than may be, and passed over.
    TooLarge,
    /// A comment, or an event whose data is empty: somebody is there, and that is all.
    SignOfLife,
}

impl Parser {
    /// A parser at the beginning of a stream; `limit` is how many bytes an event may have.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            line_begun: false,
            name: None,
            data: None,
            too_large: false,
            after_return: false,
            at_start: true,
        }
    }

    /// Reads on in a piece of the stream, until something was read or the piece is used up.
    pub fn next(&mut self, piece: &mut Bytes) -> Option<Read> {
        while !piece.is_empty() {
            if std::mem::take(&mut self.after_return) && piece[0] == b'\n' {
                piece.advance(1);
                continue;
            }
            let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.extend_line(piece);
                piece.clear();
                return None;
            };
            self.extend_line(&piece[..end]);
            self.after_return = piece[end] == b'\r';
            piece.advance(end + 1);
            if let Some(read) = self.end_line() {
                return Some(read);
            }
        }
        None
    }

    /// Reads what the stream ended with, as if the line and the event had ended there, too: some servers leave the last
    /// blank line out. Whether the event was cut off, its data has to show.
    pub fn finish(&mut self) -> Option<Read> {
        if self.line_begun {
            self.end_line();
        }
        self.end_event()
    }

    /// Whether the stream so far ends within an event.
    pub fn is_within_event(&self) -> bool {
        self.line_begun || self.data.is_some() || self.too_large
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        self.line_begun |= !bytes.is_empty();
        let known = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if self.too_large || known + bytes.len() > self.limit.saturating_add(BEFORE_DATA) {
            (self.too_large, self.data, self.name) = (true, None, None);
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) -> Option<Read> {
        let line = std::mem::take(&mut self.line);
        let at_start = std::mem::take(&mut self.at_start);
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| at_start).unwrap_or(&line);
        let is_empty = !std::mem::take(&mut self.line_begun) || (at_start && line.is_empty() && !self.too_large);
        if is_empty {
            return self.end_event();
        }
        if self.too_large {
            return None;
        }
        if line.starts_with(b":") {
            return Some(Read::SignOfLife);
        }
        if let Some(name) = line.strip_prefix(NAME) {
            let name = String::from_utf8_lossy(&name[..name.len().min(MAX_NAME)]).trim().to_ascii_lowercase();
            self.name = Some(name).filter(|name| !matches!(name.as_str(), "" | "message"));
            return None;
        }
        if let Some(error) = line.strip_prefix(ERROR) {
            (self.name, self.data) = (Some("error".to_owned()), Some(error.trim_ascii().to_vec()));
            return None;
        }
        // Of the other fields, none tells anything here: there is no replay to go on from an `id`. But a bare object is what
        // a server writes that breaks off in the middle of its events, and says why.
        let value = match line {
            b"data" => b"",
            [b'{', ..] => line,
            _ => line.strip_prefix(FIELD)?,
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let data = match self.data.take() {
            Some(mut data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
                data
            }
            None => value.to_vec(),
        };
        self.too_large = data.len() > self.limit;
        self.data = Some(data).filter(|_| !self.too_large);
        None
    }

    fn end_event(&mut self) -> Option<Read> {
        let (name, data) = (self.name.take(), self.data.take());
        if std::mem::take(&mut self.too_large) {
            return Some(Read::TooLarge);
        }
        // By the standard an event without data is none. But `event: error` must not be passed over.
        if let Some(name) = name {
            return Some(Read::Named(name, data.unwrap_or_default().into()));
        }
        data.map(|data| if data.trim_ascii().is_empty() { Read::SignOfLife } else { Read::Data(data.into()) })
    }
}

/// What a body is, by how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Events.
    Events,
    /// Something else.
    Other,
    /// Too little of it is there to tell.
    Unknown,
}

/// How much of a body says nothing about what it is, in bytes: a byte order mark and white space.
pub fn blank(body: &[u8]) -> usize {
    let is_blank = |rest: &[u8]| rest.first().is_some_and(u8::is_ascii_whitespace);
    let mut at = 0;
    loop {
        let rest = &body[at..];
        at += match rest.strip_prefix(BYTE_ORDER_MARK) {
            Some(_) => BYTE_ORDER_MARK.len(),
            None if is_blank(rest) => 1,
            None => return at,
        };
    }
}

/// Tells what a body is by its beginning, without what is [`blank`], whatever its content type says.
pub fn beginning(body: &[u8]) -> Beginning {
    if body.first() == Some(&b':') {
        return Beginning::Events;
    }
    let mut told = Beginning::Other;
    for field in FIELDS {
        match body.strip_prefix(field.as_bytes()) {
            Some([b':' | b'\n' | b'\r', ..]) => return Beginning::Events,
            Some([]) => told = Beginning::Unknown,
            None if field.as_bytes().starts_with(body) => told = Beginning::Unknown,
            _ => {}
        }
    }
    if BYTE_ORDER_MARK.starts_with(body) { Beginning::Unknown } else { told }
}

/// Whether an event only keeps the connection alive: its data is nothing, or a word for that, as JSON or plain.
pub fn is_keep_alive(name: &str, data: &[u8]) -> bool {
    let is_ping =
        |word: &str| matches!(word, "ping" | "pong" | "heartbeat" | "keepalive" | "keep-alive" | "keep_alive");
    if is_ping(name) {
        return true;
    }
    // Longer data says something.
    let Some(data) = str::from_utf8(data.trim_ascii()).ok().filter(|data| data.len() <= 64) else { return false };
    let data: String = data.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    let word = data.trim_matches(['"', ':']);
    matches!(data.as_str(), "" | "null" | "{}" | "[]" | "\"\"" | "undefined" | "none")
        || is_ping(word)
        || data.strip_prefix("{\"type\":\"").and_then(|it| it.strip_suffix("\"}")).is_some_and(is_ping)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 64;

    /// All that is read of a stream which comes in pieces of so many bytes.
    fn read(stream: &[u8], piece: usize) -> Vec<Read> {
        let mut parser = Parser::new(LIMIT);
        let mut all = Vec::new();
        for piece in stream.chunks(piece.max(1)) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(read) = parser.next(&mut piece) {
                all.push(read);
            }
            assert!(piece.is_empty());
        }
        all
    }

    fn data(text: &str) -> Read {
        Read::Data(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Wherever the stream is cut, the same is read.
    #[track_caller]
    fn is_read_as(stream: &str, wanted: &[Read]) {
        for piece in 1..=stream.len() {
            assert_eq!(read(stream.as_bytes(), piece), wanted, "{stream:?} in pieces of {piece}");
        }
    }

    #[test]
    fn lines_end_in_three_ways() {
        is_read_as(
            "data: 1\n\ndata: 2\r\n\r\ndata: 3\r\rdata: 4\n\r\ndata: 5\r\n\n",
            &["1", "2", "3", "4", "5"].map(data),
        );
    }

    #[test]
    fn data_may_have_several_lines() {
        is_read_as("data: {\ndata:\"a\":\ndata:  1}\n\n", &[data("{\n\"a\":\n 1}")]);
        is_read_as("data\ndata: x\ndata\n\n", &[data("\nx\n")]);
    }

    #[test]
    fn comments_and_empty_data_are_signs_of_life() {
        is_read_as(": hello\n\n:\n", &[Read::SignOfLife, Read::SignOfLife]);
        is_read_as(
            "data:\n\ndata: \n\ndata\n\ndata: x\n: in between\ndata: y\n\n",
            &[Read::SignOfLife, Read::SignOfLife, Read::SignOfLife, Read::SignOfLife, data("x\ny")],
        );
    }

    #[test]
    fn other_fields_say_nothing() {
        is_read_as("id: 1\nretry: 5\nnonsense\ndatas: 2\n data: 3\nevents: x\n\n", &[]);
        is_read_as("id: 1\nevent: message\ndata: x\n\n", &[data("x")]);
    }

    #[test]
    fn a_bare_object_is_data() {
        is_read_as("data: x\n\n{\"error\": 1}\n\ndata: y\n\n", &[data("x"), data("{\"error\": 1}"), data("y")]);
    }

    #[test]
    fn names_are_read_with_their_data() {
        let named = |name: &str, data: &'static str| Read::Named(name.into(), data.into());
        is_read_as("event: Error\ndata: x\n\ndata: y\n\n", &[named("error", "x"), data("y")]);
        is_read_as("data: x\nevent:error\n\n", &[named("error", "x")]);
        is_read_as("event: error\n\nevent:\ndata: y\n\n", &[named("error", ""), data("y")]);
        is_read_as("error: {}\n\ndata: y\n\n", &[named("error", "{}"), data("y")]);
        let long = "x".repeat(LIMIT);
        is_read_as(&format!("event:{long}\ndata: y\n\n"), &[named(&long[..MAX_NAME], "y")]);
    }

    #[test]
    fn what_a_stream_ended_with_is_read() {
        for (stream, last) in [("data: x", Some(data("x"))), ("data: x\n", Some(data("x"))), ("data: x\n\n", None)] {
            let mut parser = Parser::new(LIMIT);
            let mut piece = Bytes::from(stream);
            while parser.next(&mut piece).is_some() {}
            assert_eq!((parser.finish(), parser.finish()), (last, None), "{stream:?}");
        }
    }

    #[test]
    fn a_body_is_known_by_its_beginning() {
        for body in ["data: x", "data:", "data\n", "event: x", "id: 1", "retry: 5", ": hello", ":"] {
            assert_eq!(beginning(body.as_bytes()), Beginning::Events, "{body:?}");
        }
        for body in ["{", "[", "\"", "<html>", "database", "x", "datum", "events: 1", "identity"] {
            assert_eq!(beginning(body.as_bytes()), Beginning::Other, "{body:?}");
        }
        for body in [&b""[..], b"d", b"dat", b"data", b"ev", b"id", b"re", b"\xef", b"\xef\xbb"] {
            assert_eq!(beginning(body), Beginning::Unknown, "{body:?}");
        }
        assert_eq!(blank("\u{feff} \r\n\u{feff}data".as_bytes()), 9);
    }

    #[test]
    fn keep_alives_are_known_whatever_they_look_like() {
        for (name, data) in [
            ("", ""),
            ("", "null"),
            ("", " {} "),
            ("", "\"\""),
            ("", "[]"),
            ("", "ping"),
            ("", "\"keep-alive\""),
            ("", "{\"type\": \"ping\"}"),
            ("ping", "{\"type\":\"ping\",\"x\":1}"),
            ("heartbeat", "2026-01-01"),
        ] {
            assert!(is_keep_alive(name, data.as_bytes()), "{name} {data}");
        }
        for (name, data) in
            [("", "[DONE]"), ("", "{\"choices\":[]}"), ("", "error"), ("error", "x"), ("", "{\"type\":\"error\"}")]
        {
            assert!(!is_keep_alive(name, data.as_bytes()), "{name} {data}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_stream() {
        is_read_as("\u{feff}data: x\n\n", &[data("x")]);
        is_read_as("\u{feff}\n\u{feff}data: x\n\n", &[]);
    }

    #[test]
    fn what_is_not_complete_is_not_read() {
        is_read_as("data: x", &[]);
        is_read_as("data: x\n", &[]);
        let mut parser = Parser::new(LIMIT);
        assert!(!parser.is_within_event());
        for piece in ["da", "ta: x\n"] {
            assert_eq!(parser.next(&mut Bytes::from(piece)), None);
            assert!(parser.is_within_event());
        }
        assert_eq!(parser.next(&mut Bytes::from("\n")), Some(data("x")));
        assert!(!parser.is_within_event());
    }

    #[test]
    fn what_is_too_large_is_passed_over_and_the_rest_goes_on() {
        let (whole, large) = ("x".repeat(LIMIT), "x".repeat(LIMIT + 1));
        is_read_as(&format!("data:{whole}\n\n"), &[data(&whole)]);
        let wanted = [data("1"), Read::TooLarge, data("2")];
        is_read_as(&format!("data: 1\n\ndata:{large}\n\ndata: 2\n\n"), &wanted);
        let lines = "data: 345678\n".repeat(LIMIT / 4);
        is_read_as(&format!("data: 1\n\n{lines}\ndata: 2\n\n"), &wanted);
        is_read_as(&format!("data: 1\n\n: {large}{large}\r\ndata: x\r\n\r\ndata: 2\n\n"), &wanted);
    }

    proptest! {
        /// Whatever comes, memory is bounded, and where it is cut makes no difference.
        #[test]
        fn any_bytes_are_read_in_bounds(stream in prop::collection::vec(prop_oneof![
            Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'x'), any::<u8>(),
        ], 0..400), piece in 1..50usize) {
            let mut parser = Parser::new(LIMIT);
            for piece in stream.chunks(piece) {
                let mut piece = Bytes::copy_from_slice(piece);
                while parser.next(&mut piece).is_some() {}
                let held = parser.line.len() + parser.data.as_ref().map_or(0, Vec::len);
                prop_assert!(held <= LIMIT + BEFORE_DATA);
            }
            prop_assert_eq!(read(&stream, piece), read(&stream, stream.len()));
        }
    }
}
