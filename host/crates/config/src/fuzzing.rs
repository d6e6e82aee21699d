//! Parsers that need no files, for the properties in `tests/fuzz` and the targets in `fuzz/`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dotenv;

/// Returns an error for the line that cannot be parsed.
pub fn dotenv(text: &str) -> Result<BTreeMap<String, String>, String> {
    let variables = dotenv::read(text, Path::new(".env")).map_err(|error| error.to_string())?;
    Ok(variables.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect())
}
