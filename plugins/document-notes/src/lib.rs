//! Stores a note about every document that Archivus has processed: its summary, or the error.

use modhost_sdk::archivus::{self, DocumentFailed, DocumentProcessed};
use modhost_sdk::prelude::*;
use modhost_sdk::{FromEvent, keyvalue::Store};
use serde::{Deserialize, Serialize};

modhost_sdk::module!(answer);

/// The bucket of the notes, which are stored under the document's id.
const BUCKET: &str = "notes";

/// A note about a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    /// When the event happened, in seconds since 1970.
    at: Option<u64>,
    /// The text, in Markdown.
    text: String,
}

fn answer(event: Event) -> Result<()> {
    let at = event.created_at;
    match archivus::Event::from_event(event)? {
        archivus::Event::DocumentProcessed(event) => {
            store_note(&event.document_id, Note { at, text: success_note(&event) })
        }
        archivus::Event::DocumentFailed(event) => {
            store_note(&event.document_id, Note { at, text: failure_note(&event) })
        }
        // An uploaded document has no result yet, and chat messages aren't about the state of a document.
        _ => Ok(()),
    }
}

/// Stores a note unless there is a later one about the same document. Events can arrive out of order, because
/// deliveries run concurrently and may be retried.
fn store_note(document_id: &str, note: Note) -> Result<()> {
    Store::named(BUCKET)?.update_json(document_id, |current| later(current, note.clone()))?;
    info!("stored a note about {document_id}");
    Ok(())
}

fn later(current: Option<Note>, new: Note) -> Note {
    current.filter(|current| current.at > new.at).unwrap_or(new)
}

/// Returns the note about a processed document.
fn success_note(event: &DocumentProcessed) -> String {
    let document = &event.document;
    let mut note = format!("# {}\n", document.filename);
    if !document.ai_tags.is_empty() {
        note += &format!("\nTags: {}\n", document.ai_tags.join(", "));
    }
    match document.ai_summary.as_deref().map(str::trim).filter(|summary| !summary.is_empty()) {
        Some(summary) => note + &format!("\n{summary}\n"),
        None => note + "\nNo summary is available.\n",
    }
}

/// Returns the note about a document that couldn't be processed. Its event doesn't contain the file name.
fn failure_note(event: &DocumentFailed) -> String {
    format!("# Document {}\n\nIt could not be processed: {}\n", event.document_id, event.error.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processed(data: impl Into<Json>) -> DocumentProcessed {
        DocumentProcessed::from_event(Event::new("document.processed", data)).unwrap()
    }

    #[test]
    fn note_has_name_tags_and_summary() {
        let tags = json!(["lease", "2026"]);
        let document = json!({ "id": "doc_1", "filename": "lease.pdf", "ai_summary": " Two years. ", "ai_tags": tags });
        let event = processed(json!({ "document_id": "doc_1", "document": document }));
        assert_eq!(success_note(&event), "# lease.pdf\n\nTags: lease, 2026\n\nTwo years.\n");
    }

    #[test]
    fn note_says_that_there_is_no_summary() {
        let document = json!({ "id": "doc_1", "filename": "scan.png", "ai_summary": "" });
        let event = processed(json!({ "document_id": "doc_1", "document": document }));
        assert_eq!(success_note(&event), "# scan.png\n\nNo summary is available.\n");
    }

    #[test]
    fn keeps_the_later_note() {
        let note = |at, text: &str| Note { at, text: text.into() };
        assert_eq!(later(None, note(None, "new")).text, "new");
        assert_eq!(later(Some(note(Some(5), "old")), note(Some(6), "new")).text, "new");
        assert_eq!(later(Some(note(Some(7), "old")), note(Some(6), "new")).text, "old");
        assert_eq!(later(Some(note(Some(6), "old")), note(Some(6), "new")).text, "new");
    }

    #[test]
    fn note_contains_the_error() {
        let data = json!({ "document_id": "doc_1", "error": "the file is encrypted\n" });
        let event = DocumentFailed::from_event(Event::new("document.failed", data)).unwrap();
        assert_eq!(failure_note(&event), "# Document doc_1\n\nIt could not be processed: the file is encrypted\n");
    }
}
