//! The components, which are files in the data directory, and in parts in PostgreSQL.

use std::path::Path;

use super::target::Target;
use super::{Moved, Progress, STORE, differs};
use crate::error::StorageError;
use crate::versions::{COMPONENT_PART, ContentHash, component_folder};

const TABLE: &str = "components";

/// Copies the components that match their hashes.
pub(super) async fn copy(
    directory: &Path,
    target: &Target,
    moved: &mut Moved,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), StorageError> {
    let mut copied = 0;
    for hash in hashes(directory).await? {
        let Some(bytes) = read(directory, hash).await? else {
            moved.damaged_components.push(hash.to_hex());
            continue;
        };
        let digits = hash.to_hex();
        let mut parts = 0;
        for part in bytes.chunks(COMPONENT_PART) {
            target.insert_part(&digits, parts, part).await?;
            parts += 1;
        }
        target.insert_component(&digits, i64::try_from(bytes.len()).unwrap_or(i64::MAX), parts).await?;
        copied += 1;
        progress(Progress { table: TABLE, is_verifying: false, rows: copied });
    }
    moved.tables.push((TABLE, copied));
    Ok(())
}

/// Compares the components on both sides.
pub(super) async fn verify(
    directory: &Path,
    target: &Target,
    moved: &Moved,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), StorageError> {
    let mut rows = 0;
    for hash in hashes(directory).await? {
        if moved.damaged_components.contains(&hash.to_hex()) {
            continue;
        }
        let bytes = read(directory, hash).await?.ok_or_else(|| differs(TABLE))?;
        for (number, part) in (0..).zip(bytes.chunks(COMPONENT_PART)) {
            if target.part(&hash.to_hex(), number).await?.as_deref() != Some(part) {
                return Err(differs(TABLE));
            }
        }
        rows += 1;
        progress(Progress { table: TABLE, is_verifying: true, rows });
    }
    match rows == moved.rows(TABLE) && target.count(TABLE).await? == rows {
        true => Ok(()),
        false => Err(differs(TABLE)),
    }
}

/// Returns the hashes of the components in the data directory, in order.
async fn hashes(directory: &Path) -> Result<Vec<ContentHash>, StorageError> {
    let folder = component_folder(directory);
    blocking(move || {
        let files = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let mut hashes = Vec::new();
        for file in files {
            let path = file?.path();
            let is_component = path.extension().is_some_and(|extension| extension == "wasm");
            let hash = path.file_stem().and_then(|name| name.to_str()).and_then(ContentHash::from_hex);
            hashes.extend(hash.filter(|_| is_component));
        }
        hashes.sort_unstable_by_key(|hash| hash.to_hex());
        Ok(hashes)
    })
    .await
}

/// Reads a component; `None` if its bytes don't have this hash.
async fn read(directory: &Path, hash: ContentHash) -> Result<Option<Vec<u8>>, StorageError> {
    let path = component_folder(directory).join(format!("{}.wasm", hash.to_hex()));
    blocking(move || {
        let bytes = std::fs::read(path)?;
        Ok((ContentHash::of(&bytes) == hash).then_some(bytes))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let broken = |error: String| StorageError::broken(STORE, format!("cannot read the components: {error}"));
    let worked = tokio::task::spawn_blocking(work).await.map_err(|error| broken(error.to_string()))?;
    worked.map_err(|error| broken(error.to_string()))
}
