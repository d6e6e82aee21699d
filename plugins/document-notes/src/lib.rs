//! Keeps a note about every document that Archivus has read: what it is about, or why it could not be read.

use modhost_sdk::archivus::{self, DocumentFailed, DocumentProcessed};
use modhost_sdk::prelude::*;
use modhost_sdk::{FromEvent, keyvalue::Store};
use serde::{Deserialize, Serialize};

modhost_sdk::module!(answer);

/// The bucket the notes are kept in, each under its document's id.
const BUCKET: &str = "notes";

/// What is kept about a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    /// When what it tells of happened, in seconds since 1970.
    at: Option<u64>,
    /// What it says, in Markdown.
    text: String,
}

fn answer(event: Event) -> Result<()> {
    let at = event.created_at;
    match archivus::Event::from_event(event)? {
        archivus::Event::DocumentProcessed(event) => keep(&event.document_id, Note { at, text: about(&event) }),
        archivus::Event::DocumentFailed(event) => keep(&event.document_id, Note { at, text: why(&event) }),
        // Of one that just came in nothing is known yet, and what happens in chats is no document's matter.
        _ => Ok(()),
    }
}

/// Keeps a note, unless there is a later one about the same document: deliveries run side by side, and an event that is
/// tried again comes late.
fn keep(document_id: &str, note: Note) -> Result<()> {
    Store::named(BUCKET)?.update_json(document_id, |known| later(known, note.clone()))?;
    info!("noted what became of {document_id}");
    Ok(())
}

fn later(known: Option<Note>, new: Note) -> Note {
    known.filter(|known| known.at > new.at).unwrap_or(new)
}

/// The note about a document that was read.
fn about(event: &DocumentProcessed) -> String {
    let document = &event.document;
    let mut note = format!("# {}\n", document.filename);
    if !document.ai_tags.is_empty() {
        note += &format!("\nTags: {}\n", document.ai_tags.join(", "));
    }
    match document.ai_summary.as_deref().map(str::trim).filter(|summary| !summary.is_empty()) {
        Some(summary) => note + &format!("\n{summary}\n"),
        None => note + "\nNo summary was made of it.\n",
    }
}

/// The note about a document that could not be read. Its event doesn't tell the name of the file.
fn why(event: &DocumentFailed) -> String {
    format!("# Document {}\n\nIt could not be processed: {}\n", event.document_id, event.error.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processed(data: impl Into<Json>) -> DocumentProcessed {
        DocumentProcessed::from_event(Event::new("document.processed", data)).unwrap()
    }

    #[test]
    fn a_note_has_name_tags_and_summary() {
        let tags = json!(["lease", "2026"]);
        let document = json!({ "id": "doc_1", "filename": "lease.pdf", "ai_summary": " Two years. ", "ai_tags": tags });
        let event = processed(json!({ "document_id": "doc_1", "document": document }));
        assert_eq!(about(&event), "# lease.pdf\n\nTags: lease, 2026\n\nTwo years.\n");
    }

    #[test]
    fn a_note_says_what_is_missing() {
        let document = json!({ "id": "doc_1", "filename": "scan.png", "ai_summary": "" });
        let event = processed(json!({ "document_id": "doc_1", "document": document }));
        assert_eq!(about(&event), "# scan.png\n\nNo summary was made of it.\n");
    }

    #[test]
    fn the_later_note_stays() {
        let note = |at, text: &str| Note { at, text: text.into() };
        assert_eq!(later(None, note(None, "new")).text, "new");
        assert_eq!(later(Some(note(Some(5), "old")), note(Some(6), "new")).text, "new");
        assert_eq!(later(Some(note(Some(7), "old")), note(Some(6), "new")).text, "old");
        assert_eq!(later(Some(note(Some(6), "old")), note(Some(6), "new")).text, "new");
    }

    #[test]
    fn a_note_says_why() {
        let data = json!({ "document_id": "doc_1", "error": "the file is encrypted\n" });
        let event = DocumentFailed::from_event(Event::new("document.failed", data)).unwrap();
        assert_eq!(why(&event), "# Document doc_1\n\nIt could not be processed: the file is encrypted\n");
    }
}
