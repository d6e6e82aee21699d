//! Server-sent events, as the [HTML standard] has them, as far as the host reads any: their data.
//!
//! The crates there are for this keep a line and an event until they are complete, however large they get. This one
//! passes over what is too large and goes on behind it, so that neither a mistake nor malice on the far side costs more
//! memory than one event may have, nor any event but that one.
//!
//! [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

use bytes::{Buf, Bytes};

/// What may stand at the beginning of a stream, and means nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The one field that is read, as it begins a line.
const FIELD: &[u8] = b"data:";

/// What stands before data in a line, at most, in bytes: the field, and a space.
const BEFORE_DATA: usize = FIELD.len() + 1;

/// Reads a stream piece by piece, wherever it is cut.
pub(crate) struct Parser {
    /// How many bytes an event may have.
    limit: usize,
    /// The line that is being read, but for what is passed over.
    line: Vec<u8>,
    /// Whether anything at all stands in that line.
    line_begun: bool,
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
pub(crate) enum Read {
    /// The data of an event.
    Data(Bytes),
    /// An event that was larger than may be, and passed over.
    TooLarge,
    /// A comment, or an event whose data is empty: somebody is there, and that is all.
    SignOfLife,
}

impl Parser {
    /// A parser at the beginning of a stream; `limit` is how many bytes an event may have.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            line_begun: false,
            data: None,
            too_large: false,
            after_return: false,
            at_start: true,
        }
    }

    /// Reads on in a piece of the stream, until something was read or the piece is used up.
    pub(crate) fn next(&mut self, piece: &mut Bytes) -> Option<Read> {
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

    /// Whether the stream so far ends within an event.
    pub(crate) fn is_within_event(&self) -> bool {
        self.line_begun || self.data.is_some() || self.too_large
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        self.line_begun |= !bytes.is_empty();
        let known = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if self.too_large || known + bytes.len() > self.limit.saturating_add(BEFORE_DATA) {
            (self.too_large, self.data) = (true, None);
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
        // Of the other fields, none tells anything here: there is no replay to go on from an `id`.
        let value = if line == b"data" { b"" } else { line.strip_prefix(FIELD)? };
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
        let data = self.data.take();
        if std::mem::take(&mut self.too_large) {
            return Some(Read::TooLarge);
        }
        data.map(|data| if data.trim_ascii().is_empty() { Read::SignOfLife } else { Read::Data(data.into()) })
    }
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
        is_read_as("event: x\nid: 1\nretry: 5\nnonsense\ndatas: 2\n data: 3\n\n", &[]);
        is_read_as("id: 1\nevent: message\ndata: x\n\n", &[data("x")]);
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
