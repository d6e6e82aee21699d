//! The settings of platforms and models.

use std::time::Duration;

use http::HeaderName;

use super::Reference;

/// The platform that a tenant's modules answer on.
#[derive(Clone, Debug, PartialEq)]
pub enum PlatformSettings {
    /// Unique AI.
    Unique(UniquePlatform),
    /// NexusGPT.
    Nexus(NexusPlatform),
    /// None: the modules process events and answer nobody.
    None,
}

impl PlatformSettings {
    /// Returns the settings of Unique AI, if that is the platform.
    pub fn unique(&self) -> Option<&UniquePlatform> {
        match self {
            Self::Unique(unique) => Some(unique),
            Self::Nexus(_) | Self::None => None,
        }
    }

    /// Returns all references to values outside the file.
    pub(super) fn references(&self) -> Vec<&Reference> {
        match self {
            Self::Unique(unique) => vec![&unique.api_base, &unique.app_id, &unique.api_key],
            Self::Nexus(nexus) => vec![&nexus.api_base, &nexus.api_key],
            Self::None => Vec::new(),
        }
    }
}

/// Unique AI, as a tenant's platform.
#[derive(Clone, Debug, PartialEq)]
pub struct UniquePlatform {
    /// The base URL: `https://gateway.<tenant>.unique.app/public/chat`.
    pub api_base: Reference,
    /// The id of the app that the host authenticates as.
    pub app_id: Reference,
    /// The key of that app.
    pub api_key: Reference,
    /// The language model to use if a module names none.
    pub model: Option<String>,
    /// How long one call may take. Default 600 s, as in the official SDK.
    pub timeout: Duration,
    /// The header for idempotency keys, or `None` to send none. Default `Idempotency-Key`.
    pub idempotency_header: Option<HeaderName>,
}

/// NexusGPT, as a tenant's platform.
#[derive(Clone, Debug, PartialEq)]
pub struct NexusPlatform {
    /// The base URL. Default `https://api.nexusgpt.io`.
    pub api_base: Reference,
    /// The key of the workspace.
    pub api_key: Reference,
    /// How long one call may take. Default 30 s.
    pub timeout: Duration,
    /// The header for idempotency keys. Default `None`: NexusGPT documents no such header.
    pub idempotency_header: Option<HeaderName>,
}

/// An OpenAI-compatible endpoint that replaces the model of a tenant's platform.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionSettings {
    /// The base URL: `https://api.openai.com/v1`.
    pub api_base: Reference,
    /// The key. Some endpoints need none.
    pub api_key: Option<Reference>,
    /// The model to use if a module names none.
    pub model: String,
    /// How long an answer may take, up to its last chunk. Default 600 s.
    pub timeout: Duration,
    /// The header for idempotency keys, or `None` to send none. Default `Idempotency-Key`.
    pub idempotency_header: Option<HeaderName>,
}

impl CompletionSettings {
    /// Returns all references to values outside the file.
    pub(super) fn references(&self) -> impl Iterator<Item = &Reference> {
        [&self.api_base].into_iter().chain(&self.api_key)
    }
}
