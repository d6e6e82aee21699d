//! The settings of a platform: which one it is, and how it is reached.

use std::time::Duration;

use http::HeaderName;

use super::Reference;

/// The platform a tenant's modules answer on.
#[derive(Clone, Debug, PartialEq)]
pub enum PlatformSettings {
    /// Unique AI.
    Unique(UniquePlatform),
    /// NexusGPT.
    Nexus(NexusPlatform),
    /// None: its modules work on events and answer nobody.
    None,
}

impl PlatformSettings {
    /// The settings of Unique AI, if it is that.
    pub fn unique(&self) -> Option<&UniquePlatform> {
        match self {
            Self::Unique(unique) => Some(unique),
            Self::Nexus(_) | Self::None => None,
        }
    }

    /// Every reference to a value that stands elsewhere.
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
    /// The address its paths are appended to: `https://gateway.<tenant>.unique.app/public/chat`.
    pub api_base: Reference,
    /// The id of the app the host speaks as.
    pub app_id: Reference,
    /// The key of that app.
    pub api_key: Reference,
    /// The language model asked when a module names none.
    pub model: Option<String>,
    /// How long one call may take. Default 600 s, as in the official SDK.
    pub timeout: Duration,
    /// The header that carries a call's idempotency key; none: it isn't sent. Default `Idempotency-Key`.
    pub idempotency_header: Option<HeaderName>,
}

/// NexusGPT, as a tenant's platform.
#[derive(Clone, Debug, PartialEq)]
pub struct NexusPlatform {
    /// The address its paths are appended to. Default `https://api.nexusgpt.io`.
    pub api_base: Reference,
    /// The key of the workspace.
    pub api_key: Reference,
    /// How long one call may take. Default 30 s.
    pub timeout: Duration,
    /// The header that carries a call's idempotency key. Default none: NexusGPT documents no such header.
    pub idempotency_header: Option<HeaderName>,
}

/// An OpenAI-compatible endpoint, as what makes a tenant's completions in place of its platform's own model.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionSettings {
    /// The address its paths are appended to: `https://api.openai.com/v1`.
    pub api_base: Reference,
    /// The key; there are endpoints that need none.
    pub api_key: Option<Reference>,
    /// The model asked when a module names none.
    pub model: String,
    /// How long an answer may take, to its last piece. Default 600 s.
    pub timeout: Duration,
    /// The header that carries a call's idempotency key; none: it isn't sent. Default `Idempotency-Key`.
    pub idempotency_header: Option<HeaderName>,
}

impl CompletionSettings {
    /// Every reference to a value that stands elsewhere.
    pub(super) fn references(&self) -> impl Iterator<Item = &Reference> {
        [&self.api_base].into_iter().chain(&self.api_key)
    }
}
