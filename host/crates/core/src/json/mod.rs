//! A lenient JSON reader: a malformed value affects only itself.
//!
//! `serde_json` rejects a whole document because of one value that JavaScript, Python or Go writes: a lone surrogate, a
//! number out of range, `NaN`, or the 129th nesting level. This reader checks the syntax of a document once, without
//! recursion, and decodes a value only when the caller asks for it. Values borrow from the document.
//!
//! The grammar is RFC 8259, extended by:
//!
//! | input | read as |
//! |---|---|
//! | a lone surrogate escape (`\ud83d`) | U+FFFD |
//! | bytes in a string that are not UTF-8 | U+FFFD for each maximal invalid sequence |
//! | an unescaped control character in a string | itself |
//! | a number beyond the range of a double, `Infinity`, `-Infinity` | its digits; where a double is needed, ±[`f64::MAX`] |
//! | `NaN` | `null` |
//! | any nesting depth | itself; [`Value::to_json`] replaces containers below level 120 with `null` |
//! | a duplicate key | the last value; [`Found::is_ambiguous`] reports that the values differ |
//! | a byte order mark before the document | nothing |
//!
//! [`Value::to_strict`] writes a value so that every parser accepts it.

mod document;
mod fields;
mod number;
mod scan;
mod strict;
mod string;
mod syntax;
#[cfg(test)]
mod tests;
mod text_joiner;
mod value;

pub use document::{Document, Found};
pub use fields::Fields;
pub use scan::{Entries, Items};
pub use string::Text;
pub use syntax::SyntaxError;
pub use text_joiner::TextJoiner;
pub use value::{Kind, Value};
