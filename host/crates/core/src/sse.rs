//! A parser for server-sent events, as defined by the [HTML standard], limited to what the host uses: event names and
//! data.
//!
//! The available crates buffer a line and an event until they are complete, whatever their size. This parser skips an
//! event that is too large and continues after it. So memory is bounded by the size of one event, and only the
//! oversized event is lost.
//!
//! [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

use bytes::{Buf, Bytes};

/// An optional byte order mark at the beginning of a stream, which is ignored.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The beginning of a line with data.
const DATA: &[u8] = b"data:";

/// The beginning of a line with an event's name.
const NAME: &[u8] = b"event:";

/// Maximum length of an event's name in bytes; longer names are truncated. All known names are short.
const MAX_NAME: usize = 64;

/// A nonstandard field: llama.cpp's server sends it in place of `event: error` and data.
const ERROR: &[u8] = b"error:";

/// The fields that a stream may begin with.
const FIELDS: [&str; 5] = ["data", "event", "id", "retry", "error"];

/// Maximum number of bytes before the data in a line: the field and a space.
const BEFORE_DATA: usize = DATA.len() + 1;

/// An incremental parser, independent of how the stream is divided into chunks.
pub struct Parser {
    /// Maximum size of an event in bytes.
    limit: usize,
    /// The current line, without skipped bytes.
    line: Vec<u8>,
    /// Whether the current line has any bytes, skipped ones included.
    line_has_bytes: bool,
    /// The name of the current event, unless it is the default, `message`.
    name: Option<String>,
    /// The data of the current event so far.
    data: Option<Vec<u8>>,
    /// Whether the current event is too large and skipped.
    too_large: bool,
    /// Whether the last line ended with a carriage return: a line feed that follows belongs to the same line end.
    after_return: bool,
    /// Whether the current line is the first one.
    at_start: bool,
}

/// An item of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// The data of an event.
    Data(Bytes),
    /// An event with a name, and its data, which may be empty.
    Named(String, Bytes),
    /// An event that exceeded the limit and was skipped.
    TooLarge,
    /// A comment or an event without data, which shows that the connection is alive.
    KeepAlive,
}

impl Parser {
    /// Returns the size of the unfinished event, in bytes.
    pub fn buffered(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, Vec::len)
    }

    /// Creates a parser for a new stream; `limit` is the maximum size of an event in bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            line_has_bytes: false,
            name: None,
            data: None,
            too_large: false,
            after_return: false,
            at_start: true,
        }
    }

    /// Parses a chunk of the stream up to the next item, and removes the parsed bytes from the chunk. Returns `None`
    /// when the chunk is used up.
    pub fn next(&mut self, piece: &mut Bytes) -> Option<Item> {
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

    /// Returns the last event as if the stream had ended with a line end and a blank line, which some servers omit. The
    /// caller must check the data to find out whether the event is complete.
    pub fn finish(&mut self) -> Option<Item> {
        if self.line_has_bytes {
            self.end_line();
        }
        self.end_event()
    }

    /// Returns whether the stream so far ends within an event.
    pub fn is_within_event(&self) -> bool {
        self.line_has_bytes || self.data.is_some() || self.too_large
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        self.line_has_bytes |= !bytes.is_empty();
        let buffered = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if self.too_large || buffered + bytes.len() > self.limit.saturating_add(BEFORE_DATA) {
            (self.too_large, self.data, self.name) = (true, None, None);
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) -> Option<Item> {
        let line = std::mem::take(&mut self.line);
        let at_start = std::mem::take(&mut self.at_start);
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| at_start).unwrap_or(&line);
        let is_empty = !std::mem::take(&mut self.line_has_bytes) || (at_start && line.is_empty() && !self.too_large);
        if is_empty {
            return self.end_event();
        }
        if self.too_large {
            return None;
        }
        if line.starts_with(b":") {
            return Some(Item::KeepAlive);
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
        // The other fields are ignored; the parser doesn't support resuming from an `id`. A line with a bare JSON
        // object counts as data, because servers that abort in the middle of a stream write their error that way.
        let value = match line {
            b"data" => b"",
            [b'{', ..] => line,
            _ => line.strip_prefix(DATA)?,
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

    fn end_event(&mut self) -> Option<Item> {
        let (name, data) = (self.name.take(), self.data.take());
        if std::mem::take(&mut self.too_large) {
            return Some(Item::TooLarge);
        }
        // The standard ignores events without data, but `event: error` must not get lost.
        if let Some(name) = name {
            return Some(Item::Named(name, data.unwrap_or_default().into()));
        }
        data.map(|data| if data.trim_ascii().is_empty() { Item::KeepAlive } else { Item::Data(data.into()) })
    }
}

/// The format of a body, detected from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// Server-sent events.
    Events,
    /// Any other format.
    Other,
    /// Undecided: more bytes are needed.
    Unknown,
}

/// Returns the number of leading bytes that don't indicate the format: byte order marks and white space.
pub fn leading_blank(body: &[u8]) -> usize {
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

/// Detects the format of a body from its first bytes, after the [`leading_blank`] ones. The content type is ignored.
pub fn detect_format(body: &[u8]) -> BodyFormat {
    if body.first() == Some(&b':') {
        return BodyFormat::Events;
    }
    let mut format = BodyFormat::Other;
    for field in FIELDS {
        match body.strip_prefix(field.as_bytes()) {
            Some([b':' | b'\n' | b'\r', ..]) => return BodyFormat::Events,
            Some([]) => format = BodyFormat::Unknown,
            None if field.as_bytes().starts_with(body) => format = BodyFormat::Unknown,
            _ => {}
        }
    }
    if BYTE_ORDER_MARK.starts_with(body) { BodyFormat::Unknown } else { format }
}

/// Returns whether an event only keeps the connection alive: its name or its data is a keep-alive word, or its data is
/// an empty value, as JSON or plain text.
pub fn is_keep_alive(name: &str, data: &[u8]) -> bool {
    let is_ping =
        |word: &str| matches!(word, "ping" | "pong" | "heartbeat" | "keepalive" | "keep-alive" | "keep_alive");
    if is_ping(name) {
        return true;
    }
    // Longer data has content.
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

    /// Parses a stream in chunks of this many bytes.
    fn read(stream: &[u8], piece: usize) -> Vec<Item> {
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

    fn data(text: &str) -> Item {
        Item::Data(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Checks that a stream is parsed to the same items with every chunk size.
    #[track_caller]
    fn assert_parses(stream: &str, expected: &[Item]) {
        for piece in 1..=stream.len() {
            assert_eq!(read(stream.as_bytes(), piece), expected, "{stream:?} in pieces of {piece}");
        }
    }

    #[test]
    fn accepts_all_three_line_ends() {
        assert_parses(
            "data: 1\n\ndata: 2\r\n\r\ndata: 3\r\rdata: 4\n\r\ndata: 5\r\n\n",
            &["1", "2", "3", "4", "5"].map(data),
        );
    }

    #[test]
    fn joins_data_lines() {
        assert_parses("data: {\ndata:\"a\":\ndata:  1}\n\n", &[data("{\n\"a\":\n 1}")]);
        assert_parses("data\ndata: x\ndata\n\n", &[data("\nx\n")]);
    }

    #[test]
    fn reports_comments_and_empty_data_as_signs_of_life() {
        assert_parses(": hello\n\n:\n", &[Item::KeepAlive, Item::KeepAlive]);
        assert_parses(
            "data:\n\ndata: \n\ndata\n\ndata: x\n: in between\ndata: y\n\n",
            &[Item::KeepAlive, Item::KeepAlive, Item::KeepAlive, Item::KeepAlive, data("x\ny")],
        );
    }

    #[test]
    fn ignores_other_fields() {
        assert_parses("id: 1\nretry: 5\nnonsense\ndatas: 2\n data: 3\nevents: x\n\n", &[]);
        assert_parses("id: 1\nevent: message\ndata: x\n\n", &[data("x")]);
    }

    #[test]
    fn accepts_a_bare_object_as_data() {
        assert_parses("data: x\n\n{\"error\": 1}\n\ndata: y\n\n", &[data("x"), data("{\"error\": 1}"), data("y")]);
    }

    #[test]
    fn returns_names_with_data() {
        let named = |name: &str, data: &'static str| Item::Named(name.into(), data.into());
        assert_parses("event: Error\ndata: x\n\ndata: y\n\n", &[named("error", "x"), data("y")]);
        assert_parses("data: x\nevent:error\n\n", &[named("error", "x")]);
        assert_parses("event: error\n\nevent:\ndata: y\n\n", &[named("error", ""), data("y")]);
        assert_parses("error: {}\n\ndata: y\n\n", &[named("error", "{}"), data("y")]);
        let long = "x".repeat(LIMIT);
        assert_parses(&format!("event:{long}\ndata: y\n\n"), &[named(&long[..MAX_NAME], "y")]);
    }

    #[test]
    fn returns_the_unterminated_last_event_on_finish() {
        for (stream, last) in [("data: x", Some(data("x"))), ("data: x\n", Some(data("x"))), ("data: x\n\n", None)] {
            let mut parser = Parser::new(LIMIT);
            let mut piece = Bytes::from(stream);
            while parser.next(&mut piece).is_some() {}
            assert_eq!((parser.finish(), parser.finish()), (last, None), "{stream:?}");
        }
    }

    #[test]
    fn detects_the_format_of_a_body() {
        for body in ["data: x", "data:", "data\n", "event: x", "id: 1", "retry: 5", ": hello", ":"] {
            assert_eq!(detect_format(body.as_bytes()), BodyFormat::Events, "{body:?}");
        }
        for body in ["{", "[", "\"", "<html>", "database", "x", "datum", "events: 1", "identity"] {
            assert_eq!(detect_format(body.as_bytes()), BodyFormat::Other, "{body:?}");
        }
        for body in [&b""[..], b"d", b"dat", b"data", b"ev", b"id", b"re", b"\xef", b"\xef\xbb"] {
            assert_eq!(detect_format(body), BodyFormat::Unknown, "{body:?}");
        }
        assert_eq!(leading_blank("\u{feff} \r\n\u{feff}data".as_bytes()), 9);
    }

    #[test]
    fn recognizes_keep_alives() {
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
    fn skips_a_byte_order_mark() {
        assert_parses("\u{feff}data: x\n\n", &[data("x")]);
        assert_parses("\u{feff}\n\u{feff}data: x\n\n", &[]);
    }

    #[test]
    fn returns_only_complete_events() {
        assert_parses("data: x", &[]);
        assert_parses("data: x\n", &[]);
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
    fn skips_oversized_events_and_continues() {
        let (whole, large) = ("x".repeat(LIMIT), "x".repeat(LIMIT + 1));
        assert_parses(&format!("data:{whole}\n\n"), &[data(&whole)]);
        let expected = [data("1"), Item::TooLarge, data("2")];
        assert_parses(&format!("data: 1\n\ndata:{large}\n\ndata: 2\n\n"), &expected);
        let lines = "data: 345678\n".repeat(LIMIT / 4);
        assert_parses(&format!("data: 1\n\n{lines}\ndata: 2\n\n"), &expected);
        assert_parses(&format!("data: 1\n\n: {large}{large}\r\ndata: x\r\n\r\ndata: 2\n\n"), &expected);
    }

    proptest! {
        /// For any bytes, memory is bounded and the chunk size doesn't change the result.
        #[test]
        fn bounds_memory_for_any_bytes(stream in prop::collection::vec(prop_oneof![
            Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'x'), any::<u8>(),
        ], 0..400), piece in 1..50usize) {
            let mut parser = Parser::new(LIMIT);
            for piece in stream.chunks(piece) {
                let mut piece = Bytes::copy_from_slice(piece);
                while parser.next(&mut piece).is_some() {}
                let buffered = parser.line.len() + parser.data.as_ref().map_or(0, Vec::len);
                prop_assert!(buffered <= LIMIT + BEFORE_DATA);
            }
            prop_assert_eq!(read(&stream, piece), read(&stream, stream.len()));
        }
    }
}
