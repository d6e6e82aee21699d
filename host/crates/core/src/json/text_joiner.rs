//! Decoding of text that arrives in pieces.

use super::string::{complete_end, decode};

/// Joins strings that are pieces of one text.
///
/// A server that splits a text between tokens may split characters, too: between the escapes of a surrogate pair, or
/// between the bytes of a UTF-8 sequence. The joiner buffers an incomplete character until the next piece arrives.
#[derive(Debug, Default)]
pub struct TextJoiner {
    /// The beginning of an incomplete character, not decoded: at most six bytes.
    pending: Vec<u8>,
}

impl TextJoiner {
    /// Adds a piece, a [`Value::content`](super::Value::content), and returns the text that is now complete.
    pub fn push(&mut self, piece: &[u8]) -> String {
        let joined;
        let content = if self.pending.is_empty() {
            piece
        } else {
            joined = [&std::mem::take(&mut self.pending), piece].concat();
            &joined
        };
        let (complete, pending) = content.split_at(complete_end(content));
        self.pending.extend_from_slice(pending);
        decode(complete).text.into_owned()
    }

    /// Returns U+FFFD if the text ended within a character, otherwise an empty string.
    pub fn finish(&mut self) -> String {
        decode(&std::mem::take(&mut self.pending)).text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Value;
    use super::*;

    /// Joins pieces, each of them a JSON string.
    fn joined<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut joiner = TextJoiner::default();
        let pieces = pieces.into_iter().map(|piece| joiner.push(Value::read(piece).unwrap().content().unwrap()));
        let text: String = pieces.collect();
        text + &joiner.finish()
    }

    #[test]
    fn joins_or_replaces_cut_characters() {
        let cases: [(&[&[u8]], &str); 14] = [
            (&[br#""a\ud83d""#, br#""\ude42b""#], "a🙂b"),
            (&[br#""\ud83d""#, br#""""#, br#""\ude42""#], "🙂"),
            (&[br#""\ud83d""#, br#""x""#], "\u{fffd}x"),
            (&[br#""\ud83d""#, br#""\ud83d\ude42""#], "\u{fffd}🙂"),
            (&[br#""\ud83d""#, br#""\ud83d""#, br#""\ude42""#], "\u{fffd}🙂"),
            (&[br#""\ude42""#, br#""\ud83d""#], "\u{fffd}\u{fffd}"),
            (&[br#""x\ud83d""#], "x\u{fffd}"),
            (&[br#""\\ud83d""#, br#""\ude42""#], "\\ud83d\u{fffd}"),
            (&[br#""\\\ud83d""#, br#""\ude42""#], "\\🙂"),
            (&[b"\"\xf0\"", b"\"\x9f\"", b"\"\x99\x82\""], "🙂"),
            (&[b"\"\xf0\x9f\"", b"\"\\u0041\""], "\u{fffd}A"),
            (&[b"\"\xc3\"", b"\"x\""], "\u{fffd}x"),
            (&[b"\"\xff\xc3\"", b"\"\xa9\""], "\u{fffd}é"),
            (&[b"\"\xf0\x9f\""], "\u{fffd}"),
        ];
        for (pieces, wanted) in cases {
            assert_eq!(joined(pieces.iter().copied()), wanted, "{pieces:?}");
        }
    }

    proptest! {
        /// A text is restored wherever it was split: between code units or between bytes.
        #[test]
        fn joins_text_cut_anywhere(text in ".{0,20}", size in 1..5usize) {
            let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let pieces: Vec<_> = units.chunks(size).map(|units| format!("\"{}\"", units.concat())).collect();
            prop_assert_eq!(&joined(pieces.iter().map(String::as_bytes)), &text);

            let escaped = |bytes: &[u8]| -> Vec<u8> {
                let escaped = bytes.iter().flat_map(|byte| match byte {
                    b'"' | b'\\' => vec![b'\\', *byte],
                    byte => vec![*byte],
                });
                [b'"'].into_iter().chain(escaped).chain([b'"']).collect()
            };
            let pieces: Vec<_> = text.as_bytes().chunks(size).map(escaped).collect();
            prop_assert_eq!(joined(pieces.iter().map(Vec::as_slice)), text);
        }

        /// Joined pieces decode like their concatenation.
        #[test]
        fn decodes_pieces_like_their_concatenation(
            pieces in prop::collection::vec(
                prop_oneof![
                    r"(\\ud8[0-3][0-9a-f]|\\ude[0-9a-f]{2}|\\\\|\\n|\\u0041|x){0,3}".prop_map(String::into_bytes),
                    prop::collection::vec(prop_oneof![0xc2..=0xf4u8, 0x80..=0xbfu8, Just(b'x')], 0..4),
                ],
                0..6,
            ),
        ) {
            let quoted = |content: &[u8]| [b"\"", content, b"\""].concat();
            let whole = quoted(&pieces.concat());
            let pieces: Vec<_> = pieces.iter().map(|piece| quoted(piece)).collect();
            let text = Value::read(&whole).unwrap().text().unwrap().text;
            prop_assert_eq!(joined(pieces.iter().map(Vec::as_slice)), text);
        }
    }
}
