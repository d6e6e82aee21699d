//! The file of an unreadable request: a line of JSON with its record, followed by its body.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::UnreadableRecord;

/// The prefix of file names, which are the ids of the requests.
const PREFIX: &str = "unr_";

/// Maximum size of the first line, in bytes.
const MAX_LINE: u64 = 1 << 20;

pub(super) fn path(directory: &Path, id: &str) -> PathBuf {
    directory.join(id)
}

/// Loads up to `limit` records of a directory; an empty list if it does not exist. Files that cannot be parsed, or have
/// the name of another request, are skipped and left in place.
pub(super) fn load(directory: &Path, limit: usize) -> io::Result<Vec<UnreadableRecord>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let entry = entry?;
        let is_request = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Only regular files: opening a named pipe would block.
        if !is_request || !entry.file_type()?.is_file() || records.len() == limit {
            continue;
        }
        match record(&entry.path()) {
            Ok(record) if entry.file_name() == *record.id => records.push(record),
            Ok(_) => tracing::warn!(file = %entry.path().display(), "unreadable request has the name of another"),
            Err(error) => tracing::warn!(file = %entry.path().display(), %error, "cannot read unreadable request"),
        }
    }
    Ok(records)
}

fn record(path: &Path) -> io::Result<UnreadableRecord> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).take(MAX_LINE).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// Reads the body of a request.
pub(super) fn body(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = BufReader::new(File::open(path)?);
    file.by_ref().take(MAX_LINE).read_until(b'\n', &mut Vec::new())?;
    let mut body = Vec::new();
    file.read_to_end(&mut body)?;
    Ok(body)
}

/// Writes a request to a temporary file and renames it, so that a file of the final name is complete. Only the host's
/// user can read it.
pub(super) fn write(directory: &Path, record: &UnreadableRecord, body: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer(&mut file, record)?;
    file.write_all(b"\n")?;
    file.write_all(body)?;
    file.as_file().sync_all()?;
    file.persist(path(directory, &record.id)).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}
