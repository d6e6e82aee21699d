//! Detects the format of a file before anything is decoded, so that common mistakes get a specific error.

use wasmparser::BinaryReader;

use super::incompatibility::{Incompatibility, Lookalike, truncate};

/// The first bytes of every WebAssembly file.
const MAGIC: &[u8] = b"\0asm";
/// The next bytes of a core module: version 1, layer 0.
const MODULE: [u8; 4] = [1, 0, 0, 0];
/// The length of magic and version, in bytes.
const PREAMBLE: usize = 8;
/// The highest section id of a component (values).
const LAST_SECTION: u8 = 12;

/// Rejects files that cannot be a complete component.
pub(super) fn check_format(bytes: &[u8], max_size: u64) -> Result<(), Incompatibility> {
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
        return Err(Incompatibility::Truncated { size, expected_size: PREAMBLE as u64 });
    };
    if version == MODULE {
        return Err(Incompatibility::CoreModule);
    }
    match end_beyond(bytes) {
        Some(expected_size) => Err(Incompatibility::Truncated { size, expected_size }),
        None => Ok(()),
    }
}

/// Returns the position where the last section would end, if that is beyond the end of the file.
fn end_beyond(bytes: &[u8]) -> Option<u64> {
    let mut reader = BinaryReader::new(bytes, 0);
    reader.read_bytes(PREAMBLE).ok()?;
    while !reader.eof() {
        if reader.read_u8().ok()? > LAST_SECTION {
            return None; // Not a section: damaged rather than cut short.
        }
        let Ok(length) = reader.read_var_u32() else {
            // The length is truncated, or malformed; only a truncated one ends at the end of the file.
            return reader.eof().then_some(bytes.len() as u64 + 1);
        };
        if length as usize > reader.bytes_remaining() {
            return Some(reader.original_position() as u64 + u64::from(length));
        }
        reader.read_bytes(length as usize).ok()?;
    }
    None
}

/// Guesses the format of a file that isn't WebAssembly.
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

/// Returns the prefix of a file, if it is text.
fn text(bytes: &[u8]) -> Option<String> {
    const MAX_READ: usize = 4096;
    let prefix = &bytes[..bytes.len().min(MAX_READ)];
    let text = match std::str::from_utf8(prefix) {
        Ok(text) => text,
        // The end of the range may split a character; the file is still text.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&prefix[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_binary = text.chars().any(|c| c.is_control() && !c.is_whitespace());
    (!is_binary).then(|| text.trim_start_matches('\u{feff}').trim_start().to_owned())
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
        const MAX_SHOWN: usize = 40;
        Lookalike::Text(truncate(text.lines().next().unwrap_or_default(), MAX_SHOWN).into_owned())
    }
}
