//! Sources appended to a component. For Python and JavaScript, `modhost dev` appends the current sources to a prebuilt
//! component, which reads them when it starts. After a save, neither the language's tools nor the compiler have to run.
//!
//! The sources are a custom section at the end of the file, which only this host reads. The component reads them from
//! standard input, or from the environment if it can't read standard input.

use std::sync::Arc;

/// The name of the custom section.
const SECTION: &[u8] = b"modhost:sources";

/// The environment variable that contains the sources.
pub(super) const VARIABLE: &str = "MODHOST_SOURCES";

/// The id of custom sections.
const CUSTOM: u8 = 0;

/// The length of a component's header in bytes: `\0asm`, the version, and the layer.
const HEADER: usize = 8;

/// Splits a component from its sources; `None` if it has none.
pub(super) fn split_off(component: &[u8]) -> Option<(&[u8], Arc<str>)> {
    let section = last_section(component)?;
    let content = component.get(section.content.clone())?;
    let (length, bytes) = leb128(content)?;
    let name = content.get(bytes..bytes.checked_add(length)?)?;
    if section.number != CUSTOM || name != SECTION {
        return None;
    }
    let sources = Arc::from(std::str::from_utf8(content.get(bytes + length..)?).ok()?);
    Some((&component[..section.start], sources))
}

/// The position of a section and of its content.
struct Section {
    number: u8,
    start: usize,
    content: std::ops::Range<usize>,
}

/// Returns the last section; `None` if the file doesn't consist of complete sections.
fn last_section(component: &[u8]) -> Option<Section> {
    let mut last = None;
    let mut start = HEADER;
    while start < component.len() {
        let number = *component.get(start)?;
        let (length, bytes) = leb128(component.get(start + 1..)?)?;
        let begin = start + 1 + bytes;
        let end = begin.checked_add(length).filter(|end| *end <= component.len())?;
        last = Some(Section { number, start, content: begin..end });
        start = end;
    }
    last
}

/// Decodes an unsigned LEB128 number; returns it with its length in bytes.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0_u64;
    // A 32-bit number takes at most 5 bytes.
    for (index, byte) in bytes.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(number).ok()?, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, content: &[u8]) -> Vec<u8> {
        let inside = [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), content].concat();
        let length = inside.len();
        let length = [u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()];
        [&[0], &length[..], &inside].concat()
    }

    fn component(sections: &[Vec<u8>]) -> Vec<u8> {
        [b"\0asm\x0d\0\x01\0".to_vec(), sections.concat()].concat()
    }

    #[test]
    fn finds_sources_only_in_the_last_section() {
        let other = section("name", b"x");
        let sources = section("modhost:sources", "print('ä')".as_bytes());
        for (sections, found) in [
            (vec![other.clone(), sources.clone()], Some("print('ä')")),
            (vec![sources.clone()], Some("print('ä')")),
            (vec![sources.clone(), other.clone()], None),
            (vec![other.clone()], None),
            (vec![section("modhost:sources", b"\xff")], None),
            (vec![], None),
        ] {
            let whole = component(&sections);
            let split = split_off(&whole);
            assert_eq!(split.as_ref().map(|(_, sources)| &**sources), found);
            if let Some((base, _)) = split {
                assert_eq!(base, component(&sections[..sections.len() - 1]));
            }
        }
    }

    #[test]
    fn finds_no_sources_in_truncated_components() {
        let whole = component(&[section("name", b"x"), section("modhost:sources", b"print()")]);
        for length in 0..whole.len() {
            assert_eq!(split_off(&whole[..length]), None, "{length}");
        }
    }
}
