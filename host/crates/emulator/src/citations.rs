//! Replaces `[sourceN]` in a model's answer with a footnote that cites the N-th source, counted from 0.

use serde::Deserialize;

use super::wire::Reference;

/// A source that an answer may cite, as the official Python SDK sends it in `searchContext`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    id: String,
    chunk_id: String,
    key: Option<String>,
    title: Option<String>,
    description: Option<String>,
    url: Option<String>,
}

/// A marker in a text.
#[derive(Debug, PartialEq)]
pub struct Marker {
    /// The byte offset of its start.
    pub begin: usize,
    /// The byte offset of its end.
    pub end: usize,
    /// The number of the source.
    pub number: usize,
}

/// Returns the markers `[sourceN]` of a text, in order.
pub fn markers(text: &str) -> Vec<Marker> {
    const OPEN: &str = "[source";
    let found = text.match_indices(OPEN).filter_map(|(begin, _)| {
        let after = &text[begin + OPEN.len()..];
        let digits = after.find(']')?;
        let number = after[..digits].trim().parse().ok()?;
        Some(Marker { begin, end: begin + OPEN.len() + digits + 1, number })
    });
    found.collect()
}

/// Replaces the markers of a text with footnotes and removes markers without a source.
pub fn cite(text: &str, sources: &[Source]) -> (String, Vec<Reference>) {
    let mut cited = String::with_capacity(text.len());
    let mut references: Vec<Reference> = Vec::new();
    let mut rest = 0;
    for Marker { begin, end, number } in markers(text) {
        cited.push_str(&text[rest..begin]);
        rest = end;
        let Some(source) = sources.get(number) else { continue };
        let reference = reference(source, number);
        cited.push_str(&format!("<sup>{}</sup>", reference.sequence_number));
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    cited.push_str(&text[rest..]);
    (cited, references)
}

/// Returns the part of an unfinished text that can be shown: without a marker that may still be incomplete.
pub fn complete_prefix(text: &str) -> &str {
    let Some(begin) = text.rfind('[') else { return text };
    let tail = &text[begin..];
    let letters = tail.trim_end_matches(|c: char| c.is_ascii_digit());
    let may_become_one = "[source".starts_with(letters) && (letters == "[source" || letters == tail);
    if may_become_one { &text[..begin] } else { text }
}

fn reference(source: &Source, number: usize) -> Reference {
    // The index of a source always fits into an `i64`.
    let index = i64::try_from(number).unwrap_or(i64::MAX - 1);
    Reference {
        name: source.title.clone().or_else(|| source.key.clone()).unwrap_or_else(|| source.id.clone()),
        description: source.description.clone().filter(|text| !text.is_empty()),
        url: Some(source.url.clone().unwrap_or_else(|| format!("unique://content/{}", source.id))),
        sequence_number: index + 1,
        original_index: Some(vec![index]),
        source_id: format!("{}_{}", source.id, source.chunk_id),
        source: "node-ingestion-chunks".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str) -> Source {
        Source {
            id: id.into(),
            chunk_id: "chunk".into(),
            key: Some("a.md".into()),
            title: None,
            description: None,
            url: None,
        }
    }

    #[test]
    fn replaces_markers_with_footnotes_and_removes_unknown_ones() {
        let (text, references) =
            cite("A [source1]. B [source0][source1]. C [source7]. [sources] [source]", &[source("a"), source("b")]);
        assert_eq!(text, "A <sup>2</sup>. B <sup>1</sup><sup>2</sup>. C . [sources] [source]");
        let named: Vec<_> =
            references.iter().map(|r| (r.sequence_number, r.source_id.as_str(), r.name.as_str())).collect();
        assert_eq!(named, [(2, "b_chunk", "a.md"), (1, "a_chunk", "a.md")]);
    }

    #[test]
    fn hides_incomplete_markers() {
        for tail in ["[", "[so", "[source", "[source1", "[source12"] {
            assert_eq!(complete_prefix(&format!("A{tail}")), "A", "{tail}");
        }
        for whole in ["A [source1] b", "A [sour grapes", "A [1", "A"] {
            assert_eq!(complete_prefix(whole), whole);
        }
    }
}
