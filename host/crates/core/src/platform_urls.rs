//! Base URLs of the platforms, as they appear in configuration errors and examples.

/// What the address of Unique's API looks like.
pub const UNIQUE_API_BASE: &str = "https://gateway.<tenant>.unique.app/public/chat";

/// Where NexusGPT's API is, for everyone.
pub const NEXUS_API_BASE: &str = "https://api.nexusgpt.io";

/// What the address of an OpenAI-compatible endpoint looks like.
pub const OPENAI_API_BASE: &str = "https://api.openai.com/v1";
