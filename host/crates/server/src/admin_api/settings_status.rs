//! The state of the settings files, for operators.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

use modhost_config::{ActiveHost, ConfigError};

/// The included settings files that the host refuses.
#[derive(Default)]
pub struct SettingsStatus {
    refused: ArcSwap<Vec<RefusedFile>>,
}

/// An included settings file that the host refuses.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RefusedFile {
    file: String,
    /// Its tenant, if settings of it are in effect.
    tenant: Option<String>,
    /// Why it is refused, with lines.
    errors: Vec<String>,
}

impl SettingsStatus {
    /// Sets the files.
    pub fn set(&self, host: &ActiveHost) {
        let refused = host.files().iter().filter_map(|(path, file)| {
            Some(RefusedFile {
                file: path.display().to_string(),
                tenant: file.tenant().map(ToString::to_string),
                errors: file.refused()?.iter().map(ConfigError::to_string).collect(),
            })
        });
        self.refused.store(Arc::new(refused.collect()));
    }

    pub(super) fn refused(&self) -> Arc<Vec<RefusedFile>> {
        self.refused.load_full()
    }
}
