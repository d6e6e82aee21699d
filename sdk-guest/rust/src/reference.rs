//! Sources that a message or a step cites.

use serde::Serialize;

use crate::bindings::modhost::module::types as wit;
use crate::search::Hit;

/// A source that a message or a step cites, shown as a footnote: `<sup>1</sup>` in the text refers to number 1.
///
/// ```
/// use modhost_sdk::Reference;
///
/// let handbook = Reference {
///     name: "Handbook".into(),
///     description: None,
///     url: Some("https://example.com/handbook".into()),
///     sequence_number: 1,
///     original_index: vec![],
///     source_id: "handbook".into(),
///     source: "website".into(),
/// };
/// # assert_eq!(handbook.sequence_number, 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// The name the user reads.
    pub name: String,
    /// A description.
    pub description: Option<String>,
    /// The URL that opens the source.
    pub url: Option<String>,
    /// The footnote number, from 1.
    pub sequence_number: u32,
    /// The positions, from 0, in the list of sources from which the reference was made, if it was made from one.
    pub original_index: Vec<u32>,
    /// The platform's id of the source; for a search hit, `<id>_<chunk id>`.
    pub source_id: String,
    /// The kind of source; for a search hit, `node-ingestion-chunks`.
    pub source: String,
}

impl Reference {
    /// Creates a reference to a hit, with this footnote number (from 1). Its name is [`Hit::name`].
    ///
    /// ```
    /// # use modhost_sdk::{Hit, Reference};
    /// # fn example(hit: &Hit) {
    /// let reference = Reference::from_hit(1, hit);
    /// assert_eq!(reference.source_id, format!("{}_{}", hit.id, hit.chunk_id));
    /// # }
    /// ```
    pub fn from_hit(number: u32, hit: &Hit) -> Self {
        Self {
            name: hit.name().to_owned(),
            description: hit.pages(),
            url: hit.url.clone(),
            sequence_number: number,
            original_index: number.checked_sub(1).into_iter().collect(),
            source_id: format!("{}_{}", hit.id, hit.chunk_id),
            source: "node-ingestion-chunks".to_owned(),
        }
    }

    /// Creates references to hits, numbered from 1 in the order of the hits.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(hits: Vec<Hit>) -> Result<()> {
    /// messages::reply("This is what I found.").references(Reference::from_hits(&hits)).complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_hits(hits: &[Hit]) -> Vec<Self> {
        (1..).zip(hits).map(|(number, hit)| Self::from_hit(number, hit)).collect()
    }
}

impl From<Reference> for wit::Reference {
    fn from(reference: Reference) -> Self {
        Self {
            name: reference.name,
            description: reference.description,
            url: reference.url,
            sequence_number: reference.sequence_number,
            original_index: reference.original_index,
            source_id: reference.source_id,
            source: reference.source,
        }
    }
}

impl From<wit::Reference> for Reference {
    fn from(reference: wit::Reference) -> Self {
        Self {
            name: reference.name,
            description: reference.description,
            url: reference.url,
            sequence_number: reference.sequence_number,
            original_index: reference.original_index,
            source_id: reference.source_id,
            source: reference.source,
        }
    }
}

/// Turns `[source0]`, `[source0, source2]` and the like in a model's text into footnotes, and filters the references
/// (one for each source, in order) to those that are cited. If the text cites none, keeps all, because the text is
/// still based on them. Citations of sources that don't exist are model hallucinations and are removed.
pub(crate) fn cite(text: &str, references: Vec<Reference>) -> (String, Vec<Reference>) {
    let mut written = String::with_capacity(text.len());
    let mut is_cited = vec![false; references.len()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        written.push_str(before);
        match citation(after) {
            Some((sources, after)) => {
                let known: Vec<usize> = sources.into_iter().filter(|&n| n < references.len()).collect();
                if known.is_empty() {
                    written.truncate(written.trim_end_matches(' ').len());
                }
                for source in known {
                    is_cited[source] = true;
                    written.push_str(&format!("<sup>{}</sup>", references[source].sequence_number));
                }
                rest = after;
            }
            None => {
                written.push('[');
                rest = after;
            }
        }
    }
    written.push_str(rest);

    let cites_none = !is_cited.contains(&true);
    let kept = references.into_iter().zip(is_cited).filter(|(_, cited)| *cited || cites_none);
    (written, kept.map(|(reference, _)| reference).collect())
}

/// Parses the sources between a `[` and its `]`. Returns them and the text after the `]`.
fn citation(text: &str) -> Option<(Vec<usize>, &str)> {
    let (inside, after) = text.split_once(']')?;
    let sources = inside.split(',').map(source).collect::<Option<_>>()?;
    Some((sources, after))
}

/// Parses the number in `source3`, in the spellings that models use.
fn source(word: &str) -> Option<usize> {
    let word = word.trim();
    let (source, number) = word.split_at_checked("source".len())?;
    let digits = number.trim_start();
    let is_source = source.eq_ignore_ascii_case("source") && digits.bytes().all(|b| b.is_ascii_digit());
    // A number too large to parse is treated like any other source that doesn't exist.
    (is_source && !digits.is_empty()).then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(count: usize) -> Vec<Hit> {
        (0..count)
            .map(|n| Hit {
                id: format!("cont_{n}"),
                chunk_id: format!("chunk_{n}"),
                text: "…".into(),
                title: Some(format!("Document {n}")),
                key: Some(format!("document-{n}.md")),
                url: Some(format!("https://example.com/{n}")),
                order: 0,
                start_page: None,
                end_page: None,
                metadata: None,
            })
            .collect()
    }

    fn cited(text: &str, sources: usize) -> (String, Vec<u32>) {
        let (text, references) = cite(text, Reference::from_hits(&hits(sources)));
        (text, references.iter().map(|reference| reference.sequence_number).collect())
    }

    #[test]
    fn creates_a_reference_from_a_hit() {
        let mut hit = hits(1).remove(0);
        hit.start_page = Some(3);
        hit.end_page = Some(4);
        let expected = Reference {
            name: "Document 0".into(),
            description: Some("pages 3–4".into()),
            url: Some("https://example.com/0".into()),
            sequence_number: 2,
            original_index: vec![1],
            source_id: "cont_0_chunk_0".into(),
            source: "node-ingestion-chunks".into(),
        };
        assert_eq!(Reference::from_hit(2, &hit), expected);
    }

    #[test]
    fn citations_become_footnotes_and_only_cited_sources_are_kept() {
        assert_eq!(
            cited("Book early [source0]. Or late [source2].", 3),
            ("Book early <sup>1</sup>. Or late <sup>3</sup>.".into(), vec![1, 3])
        );
        assert_eq!(cited("Twice [source1] [source1]", 2), ("Twice <sup>2</sup> <sup>2</sup>".into(), vec![2]));
    }

    #[test]
    fn parses_the_spellings_that_models_use() {
        for text in ["[source0, source2]", "[Source 0,source2]", "[source0][source2]", "[ source 0 , SOURCE2 ]"] {
            assert_eq!(cited(text, 3), ("<sup>1</sup><sup>3</sup>".into(), vec![1, 3]), "{text}");
        }
    }

    #[test]
    fn keeps_all_sources_if_none_is_cited() {
        assert_eq!(cited("Book early.", 2), ("Book early.".into(), vec![1, 2]));
    }

    #[test]
    fn removes_citations_of_unknown_sources() {
        assert_eq!(cited("Book early [source7].", 1), ("Book early.".into(), vec![1]));
        assert_eq!(cited("Book [source99999999999999999999999] early", 0), ("Book early".into(), vec![]));
        assert_eq!(cited("Book early [source7, source0].", 1), ("Book early <sup>1</sup>.".into(), vec![1]));
    }

    #[test]
    fn leaves_other_brackets_unchanged() {
        for text in [
            "a [link](https://x)",
            "[sources]",
            "[source]",
            "[source-1]",
            "[sourceé]",
            "[",
            "]",
            "[[]",
            "[x, source0]",
            "",
        ] {
            assert_eq!(cited(text, 1).0, text);
        }
        assert_eq!(cited("[see [source0]]", 1).0, "[see <sup>1</sup>]");
    }
}
