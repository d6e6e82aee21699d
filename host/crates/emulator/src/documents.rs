//! Reads documents from disk and splits them into passages for search.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::wire::Stamp;

/// Target length of a passage in characters.
const PASSAGE_CHARS: usize = 1000;

/// Maximum file size in bytes; larger files are skipped, since nobody writes them by hand.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A file in the documents folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The path.
    pub path: PathBuf,
    /// The path relative to the folder, with slashes: the key of the content.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
    /// When it was last modified.
    pub modified: SystemTime,
    /// When it was created, if the file system records it.
    pub created: Option<SystemTime>,
}

/// A document of the knowledge base.
#[derive(Clone, Debug)]
pub struct Document {
    /// `cont_…`, derived from the key.
    pub id: String,
    /// The path relative to the documents folder.
    pub key: String,
    /// The first heading, or the file name.
    pub title: String,
    /// The whole text.
    pub text: String,
    /// `text/markdown` or `text/plain`.
    pub mime_type: &'static str,
    /// The scope ids of the folders that contain it, from the documents folder down.
    pub scopes: Vec<String>,
    /// When it was created; if unknown, when it was last modified.
    pub created_at: Stamp,
    /// When it was last modified.
    pub updated_at: Stamp,
    /// The passages in order.
    pub passages: Vec<Passage>,
}

/// A passage of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// `chunk_…`, derived from the key and the position.
    pub id: String,
    /// The text, starting with its heading.
    pub text: String,
    /// The position in the document, from 0.
    pub order: u32,
    /// The first page of the passage, from 1.
    pub start_page: u32,
    /// The last page of the passage.
    pub end_page: u32,
}

/// Lists the documents in a folder and its subfolders, ordered by key. Hidden files and folders are skipped, and so are
/// symbolic links to folders, which may be cyclic.
pub fn find(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    find_below(folder, "", &mut found)?;
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

fn find_below(folder: &Path, prefix: &str, found: &mut Vec<Found>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let key = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            find_below(&entry.path(), &format!("{key}/"), found)?;
        } else if mime_type(&name).is_some() {
            // A file removed since the listing, or a dangling link, is skipped.
            let Ok(metadata) = fs::metadata(entry.path()) else {
                continue;
            };
            if metadata.is_file() {
                let modified = metadata.modified()?;
                found.push(Found {
                    path: entry.path(),
                    key,
                    size: metadata.len(),
                    modified,
                    created: metadata.created().ok(),
                });
            }
        }
    }
    Ok(())
}

fn mime_type(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "md" | "markdown" => Some("text/markdown"),
        "txt" => Some("text/plain"),
        _ => None,
    }
}

/// Reads a document.
///
/// # Errors
///
/// If the file can't be read, is larger than 16 MiB or is not UTF-8.
pub fn read(found: &Found) -> io::Result<Document> {
    if found.size > MAX_FILE {
        return Err(io::Error::other(format!("it has {} bytes, more than the maximum of {MAX_FILE}", found.size)));
    }
    let text = fs::read_to_string(&found.path)?.replace("\r\n", "\n");
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let mime_type = mime_type(&found.key).unwrap_or("text/plain");
    let blocks = blocks(&text, mime_type == "text/markdown");
    let first_heading =
        blocks.iter().find(|block| block.heading).map(|block| block.text.trim_matches(['#', ' ']).to_owned());
    let passages = passages(&found.key, &blocks);
    Ok(Document {
        id: stable_id("cont", &found.key),
        title: first_heading.filter(|title| !title.is_empty()).unwrap_or_else(|| file_name(&found.key).to_owned()),
        key: found.key.clone(),
        mime_type,
        scopes: scopes(&found.key),
        created_at: stamp(found.created.unwrap_or(found.modified)),
        updated_at: stamp(found.modified),
        passages,
        text,
    })
}

fn file_name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// Returns the scope ids of the folders that contain a key, from the documents folder down.
fn scopes(key: &str) -> Vec<String> {
    let folders = key.match_indices('/').map(|(end, _)| &key[..end]);
    std::iter::once("").chain(folders).map(|folder| stable_id("scope", folder)).collect()
}

fn stable_id(kind: &str, name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    format!("{kind}_{}", hex::encode(&digest[..12]))
}

fn stamp(at: SystemTime) -> Stamp {
    // An out-of-range file time becomes 1970.
    Stamp::from(Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A heading or a paragraph with its page.
struct Block<'a> {
    page: u32,
    heading: bool,
    text: &'a str,
}

/// Splits a text into headings and paragraphs. A form feed starts a page; a blank line ends a paragraph, except in a
/// fenced code block.
fn blocks(text: &str, markdown: bool) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    for (page, page_text) in (1..).zip(text.split('\u{c}')) {
        let mut begin = 0;
        let mut at = 0;
        let mut fenced = false;
        let mut push = |heading, range: Range<usize>| {
            let text = page_text[range].trim();
            if !text.is_empty() {
                blocks.push(Block { page, heading, text });
            }
        };
        for line in page_text.split_inclusive('\n') {
            let end = at + line.len();
            if markdown && line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if markdown && !fenced && is_heading(line) {
                push(false, begin..at);
                push(true, at..end);
                begin = end;
            } else if !fenced && line.trim().is_empty() {
                push(false, begin..at);
                begin = end;
            }
            at = end;
        }
        push(false, begin..at);
    }
    blocks
}

fn is_heading(line: &str) -> bool {
    let text = line.trim_start_matches('#');
    let depth = line.len() - text.len();
    (1..=6).contains(&depth) && text.starts_with(' ') && !text.trim().is_empty()
}

/// Combines blocks into passages. A heading starts a passage, and so does a block that doesn't fit, which repeats the
/// heading.
fn passages(key: &str, blocks: &[Block<'_>]) -> Vec<Passage> {
    let mut passages = Vec::new();
    let mut draft = Draft::default();
    let mut heading = None;
    for block in blocks {
        if block.heading {
            if draft.has_body {
                draft.finish(key, &mut passages);
            }
            draft.add(block.text, block.page);
            heading = Some(block.text);
            continue;
        }
        for piece in pieces(block.text) {
            if draft.has_body && draft.chars + piece.chars().count() > PASSAGE_CHARS {
                draft.finish(key, &mut passages);
                heading.iter().for_each(|heading| draft.add(heading, block.page));
            }
            draft.add(piece, block.page);
            draft.has_body = true;
        }
    }
    draft.finish(key, &mut passages);
    passages
}

/// A passage being built.
#[derive(Default)]
struct Draft {
    text: String,
    chars: usize,
    has_body: bool,
    pages: Option<(u32, u32)>,
}

impl Draft {
    fn add(&mut self, text: &str, page: u32) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        self.text.push_str(text);
        self.chars += text.chars().count();
        self.pages = Some((self.pages.map_or(page, |(first, _)| first), page));
    }

    fn finish(&mut self, key: &str, passages: &mut Vec<Passage>) {
        let Draft { text, pages, .. } = std::mem::take(self);
        let Some((start_page, end_page)) = pages else { return };
        // A file of at most 16 MiB has fewer than 2^32 passages.
        let order = passages.len() as u32;
        passages.push(Passage { id: stable_id("chunk", &format!("{key}#{order}")), text, order, start_page, end_page });
    }
}

/// Splits a paragraph that is longer than a passage: at a line end if possible, otherwise at the end of a sentence or a
/// word. Words are never split.
fn pieces(paragraph: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = paragraph;
    while let Some((limit, _)) = rest.char_indices().nth(PASSAGE_CHARS) {
        let (piece, tail) = rest.split_at(cut(rest, limit));
        pieces.push(piece.trim_end());
        rest = tail.trim_start();
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// Returns where to split `text` so that the first part has at most `limit` bytes, if possible.
fn cut(text: &str, limit: usize) -> usize {
    let head = &text[..limit];
    let after_line = || head.rfind('\n');
    let after_sentence = || [". ", "! ", "? "].iter().filter_map(|end| head.rfind(end)).max().map(|at| at + 1);
    let after_word = || head.rfind(char::is_whitespace).filter(|at| *at > 0);
    let far_enough = |at: &usize| *at >= limit / 3;
    after_line()
        .filter(far_enough)
        .or_else(|| after_sentence().filter(far_enough))
        .or_else(after_word)
        .or_else(|| text.find(char::is_whitespace))
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        passages("a.md", &blocks(text, true)).into_iter().map(|passage| passage.text).collect()
    }

    #[test]
    fn heading_starts_a_passage_and_headings_without_a_body_join_the_next() {
        let passages = texts("# Travel\n\n## Booking\n\nBook early.\n\nBy train.\n\n## Hotels\nUp to 120 euros.\n");
        assert_eq!(passages, ["# Travel\n\n## Booking\n\nBook early.\n\nBy train.", "## Hotels\n\nUp to 120 euros."]);
    }

    #[test]
    fn ignores_headings_in_code_blocks() {
        assert_eq!(texts("# Setup\n\n```\n# a comment\n\nmake\n```\n"), ["# Setup\n\n```\n# a comment\n\nmake\n```"]);
    }

    #[test]
    fn splits_long_sections_between_sentences_and_repeats_the_heading() {
        let sentence = "The quick brown fox jumps over the lazy dog again. ";
        let text = format!("# Foxes\n\n{}", sentence.repeat(60));
        let passages = texts(&text);
        assert!(passages.len() > 2);
        for passage in &passages {
            assert!(passage.starts_with("# Foxes\n\n"), "{passage}");
            assert!(passage.ends_with("again."), "{passage}");
            assert!(passage.chars().count() <= PASSAGE_CHARS + "# Foxes\n\n".len());
        }
        let words_kept: usize = passages.iter().map(|passage| passage.split_whitespace().count() - 2).sum();
        assert_eq!(words_kept, sentence.split_whitespace().count() * 60);
    }

    #[test]
    fn does_not_split_a_word_longer_than_a_passage() {
        let word = "ä".repeat(3 * PASSAGE_CHARS);
        assert_eq!(texts(&format!("{word} end")), [word.as_str(), "end"]);
    }

    #[test]
    fn form_feed_starts_a_page() {
        let text = "# One\n\nfirst\n\u{c}second\n\n# Two\n\nthird\n";
        let pages: Vec<_> = passages("a.md", &blocks(text, true)).iter().map(|p| (p.start_page, p.end_page)).collect();
        assert_eq!(pages, [(1, 2), (2, 2)]);
    }
}
