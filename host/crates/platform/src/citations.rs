//! Citations for platforms that don't resolve them: `[sourceN]` in a model's answer becomes a footnote that refers to
//! the N-th source, counted from 0.

use super::{Hit, Reference};

/// The prefix of a marker.
const MARKER: &str = "[source";

/// Returns the text with its markers replaced by footnotes, and the cited sources without duplicates. Markers without a
/// source are removed.
pub(super) fn cite(text: &str, sources: &[Hit]) -> (String, Vec<Reference>) {
    let mut written = String::with_capacity(text.len());
    let mut cited: Vec<usize> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(MARKER) {
        written.push_str(before);
        let Some((number, after)) = after.split_once(']').filter(|(number, _)| is_number(number)) else {
            written.push_str(MARKER);
            rest = after;
            continue;
        };
        rest = after;
        // A number that is too large to parse refers to no source.
        let number = number.parse().unwrap_or(usize::MAX);
        if number < sources.len() {
            written.push_str(&format!("<sup>{}</sup>", number + 1));
            if !cited.contains(&number) {
                cited.push(number);
            }
        }
    }
    written.push_str(rest);
    (written, cited.into_iter().map(|number| reference(number, &sources[number])).collect())
}

/// Returns the part of an unfinished text that can be shown: all of it except a partial marker at its end.
pub(super) fn showable_prefix(text: &str) -> &str {
    let Some(begin) = text.rfind('[') else { return text };
    let tail = &text[begin..];
    let is_partial = match tail.strip_prefix(MARKER) {
        Some(number) => number.is_empty() || is_number(number),
        None => MARKER.starts_with(tail),
    };
    if is_partial { &text[..begin] } else { text }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn reference(number: usize, hit: &Hit) -> Reference {
    let index = u32::try_from(number).unwrap_or(u32::MAX - 1);
    Reference {
        name: hit.title.as_ref().or(hit.key.as_ref()).unwrap_or(&hit.id).clone(),
        description: None,
        // The scheme with which Unique opens its own contents.
        url: Some(hit.url.clone().unwrap_or_else(|| format!("unique://content/{}", hit.id))),
        sequence_number: index + 1,
        original_index: vec![index],
        source_id: format!("{}_{}", hit.id, hit.chunk_id),
        source: "node-ingestion-chunks".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(count: usize) -> Vec<Hit> {
        let hit = |n| Hit {
            id: format!("cont_{n}"),
            chunk_id: format!("chunk_{n}"),
            text: "…".into(),
            title: Some(format!("Document {n}")),
            key: Some("document.md".into()),
            url: (n > 0).then(|| "https://example.com".into()),
            order: 0,
            start_page: None,
            end_page: None,
            metadata: None,
        };
        (0..count).map(hit).collect()
    }

    #[test]
    fn replaces_markers_by_footnotes_without_duplicates() {
        let (text, references) = cite("A [source1]. B [source0][source1].", &hits(3));
        assert_eq!(text, "A <sup>2</sup>. B <sup>1</sup><sup>2</sup>.");
        let named: Vec<_> = references.iter().map(|it| (it.sequence_number, &*it.source_id, &*it.name)).collect();
        assert_eq!(named, [(2, "cont_1_chunk_1", "Document 1"), (1, "cont_0_chunk_0", "Document 0")]);
        let urls: Vec<_> = references.iter().map(|it| it.url.as_deref().unwrap()).collect();
        assert_eq!(urls, ["https://example.com", "unique://content/cont_0"]);
    }

    #[test]
    fn removes_markers_without_a_source_and_keeps_other_brackets() {
        let (text, references) = cite("A [source7][source99999999999999999999999].", &hits(1));
        assert_eq!((text.as_str(), references.len()), ("A .", 0));
        for text in ["[source]", "[sources]", "[source-1]", "[source +1]", "[source", "[", "a [link](x)", "[sourceé]"]
        {
            assert_eq!(cite(text, &hits(1)).0, text);
        }
        assert_eq!(cite("[source [source0]]", &hits(1)).0, "[source <sup>1</sup>]");
    }

    #[test]
    fn hides_a_partial_marker() {
        for tail in ["[", "[s", "[source", "[source1", "[source12"] {
            assert_eq!(showable_prefix(&format!("A [source0]{tail}")), "A [source0]", "{tail}");
        }
        for whole in ["A [source1] b", "A [sour grapes", "A [source x", "A [1", "A", ""] {
            assert_eq!(showable_prefix(whole), whole);
        }
    }
}
