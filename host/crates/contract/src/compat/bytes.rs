//! What a file is, told from its bytes before anything is decoded: most files that aren't components are something a
//! person can name.

use wasmparser::BinaryReader;

use super::incompatibility::{Incompatibility, Lookalike, truncate};

/// What every WebAssembly file begins with.
const MAGIC: &[u8] = b"\0asm";
/// What follows in a core module: version 1, layer 0.
const MODULE: [u8; 4] = [1, 0, 0, 0];
/// The length of both.
const PREAMBLE: usize = 8;
/// The highest number a section of a component has (values).
const LAST_SECTION: u8 = 12;

/// Refuses what can't be a whole component.
pub(super) fn refuse_others(bytes: &[u8], max_size: u64) -> Result<(), Incompatibility> {
    let size = bytes.len() as u64;
    if bytes.is_empty() {
        return Err(Incompatibility::Empty);
    }
    if size > max_size {
        return Err(Incompatibility::TooLarge { size, max_size });
    }
    let magic = &bytes[..bytes.len().min(MAGIC.len())];
    if !MAGIC.starts_with(magic) {
        return Err(Incompatibility::NotWebAssembly(lookalike(bytes)));
    }
    let Some(version) = bytes.get(MAGIC.len()..PREAMBLE) else {
        return Err(Incompatibility::Truncated { size, goes_on_to: PREAMBLE as u64 });
    };
    if version == MODULE {
        return Err(Incompatibility::CoreModule);
    }
    match end_beyond(bytes) {
        Some(goes_on_to) => Err(Incompatibility::Truncated { size, goes_on_to }),
        None => Ok(()),
    }
}

/// Where the last section would end, if that is beyond the end of the file.
fn end_beyond(bytes: &[u8]) -> Option<u64> {
    let mut reader = BinaryReader::new(bytes, 0);
    reader.read_bytes(PREAMBLE).ok()?;
    while !reader.eof() {
        if reader.read_u8().ok()? > LAST_SECTION {
            return None; // Not a section: damaged rather than cut short.
        }
        let Ok(length) = reader.read_var_u32() else {
            // The length itself is cut off, or nonsense; only the first is a file's end.
            return reader.eof().then_some(bytes.len() as u64 + 1);
        };
        if length as usize > reader.bytes_remaining() {
            return Some(reader.original_position() as u64 + u64::from(length));
        }
        reader.read_bytes(length as usize).ok()?;
    }
    None
}

/// What a file that isn't WebAssembly looks like.
fn lookalike(bytes: &[u8]) -> Lookalike {
    let signatures: [(&[u8], Lookalike); 3] =
        [(b"PK\x03\x04", Lookalike::Archive), (b"\x1f\x8b", Lookalike::Archive), (b"\x7fELF", Lookalike::Native)];
    if let Some((_, lookalike)) = signatures.into_iter().find(|(signature, _)| bytes.starts_with(signature)) {
        return lookalike;
    }
    match text(bytes) {
        Some(text) => text_lookalike(&text),
        None => Lookalike::Other(bytes.iter().take(MAGIC.len()).copied().collect()),
    }
}

/// The beginning of a file, if it is text.
fn text(bytes: &[u8]) -> Option<String> {
    const READ: usize = 4096;
    let beginning = &bytes[..bytes.len().min(READ)];
    let text = match std::str::from_utf8(beginning) {
        Ok(text) => text,
        // A character cut in two by the end of what is looked at is no reason to call it binary.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&beginning[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let binary = text.chars().any(|c| c.is_control() && !c.is_whitespace());
    (!binary).then(|| text.trim_start_matches('\u{feff}').trim_start().to_owned())
}

fn text_lookalike(text: &str) -> Lookalike {
    let lower = text.to_ascii_lowercase();
    if text.starts_with("version https://git-lfs") {
        Lookalike::LfsPointer
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        Lookalike::Html
    } else if text.starts_with("(module")
        || text.starts_with("(component")
        || text.starts_with(";;")
        || text.starts_with("(;")
    {
        Lookalike::Wat
    } else {
        const SHOWN: usize = 40;
        Lookalike::Text(truncate(text.lines().next().unwrap_or_default(), SHOWN).into_owned())
    }
}
