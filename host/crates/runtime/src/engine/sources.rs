//! Sources that a component has with it: what `modhost dev` builds of Python and JavaScript is a component that was made
//! before, with the sources as they are now behind it. It reads them when it starts. So whoever saves waits neither for the
//! language's tools to make a component, nor for the host to compile it.
//!
//! The sources are the last section of the file, a custom one, which nothing but this host reads. A component reads them from
//! standard input, or from the environment where it can't read that.

use std::sync::Arc;

/// What the section is called.
const SECTION: &[u8] = b"modhost:sources";

/// The variable with the sources in it.
pub(super) const VARIABLE: &str = "MODHOST_SOURCES";

/// The number of custom sections.
const CUSTOM: u8 = 0;

/// How long the header of a component is: `\0asm`, the version, and that it is a component.
const HEADER: usize = 8;

/// Takes the sources off a component, if it has some: what is left is what they were put behind.
pub(super) fn split_off(component: &mut Vec<u8>) -> Option<Arc<str>> {
    let section = last_section(component)?;
    let content = component.get(section.content.clone())?;
    let (length, bytes) = leb128(content)?;
    let name = content.get(bytes..bytes.checked_add(length)?)?;
    if section.number != CUSTOM || name != SECTION {
        return None;
    }
    let sources = Arc::from(std::str::from_utf8(content.get(bytes + length..)?).ok()?);
    component.truncate(section.start);
    Some(sources)
}

/// Where a section begins, and where what it holds is.
struct Section {
    number: u8,
    start: usize,
    content: std::ops::Range<usize>,
}

/// The last section, if the file is made of sections to its end.
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

/// Reads a number, and how many bytes it takes.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0_u64;
    // As many as 32 bits need.
    for (place, byte) in bytes.iter().take(5).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(number).ok()?, place + 1));
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
    fn sources_are_the_last_section_and_no_other() {
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
            let mut base = whole.clone();
            let split = split_off(&mut base);
            assert_eq!(split.as_deref(), found);
            let rest = if found.is_some() { component(&sections[..sections.len() - 1]) } else { whole };
            assert_eq!(base, rest);
        }
    }

    #[test]
    fn whatever_is_cut_short_has_none() {
        let whole = component(&[section("name", b"x"), section("modhost:sources", b"print()")]);
        for length in 0..whole.len() {
            let cut = whole[..length].to_vec();
            let mut base = cut.clone();
            assert_eq!(split_off(&mut base), None, "{length}");
            assert_eq!(base, cut);
        }
    }
}
