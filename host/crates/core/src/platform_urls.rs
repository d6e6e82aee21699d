//! Base URLs of the platforms, as they appear in configuration errors and examples.

/// Example base URL of Unique's API.
pub const UNIQUE_API_BASE: &str = "https://gateway.<tenant>.unique.app/public/chat";

/// Base URL of NexusGPT's API, the same for all customers.
pub const NEXUS_API_BASE: &str = "https://api.nexusgpt.io";

/// Example base URL of an OpenAI-compatible endpoint.
pub const OPENAI_API_BASE: &str = "https://api.openai.com/v1";
