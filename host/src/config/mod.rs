//! modules.toml and the environment, checked and typed.
//!
//! [`Settings::load`] reads the file and checks all of it before anything runs: what it returns can be used as it
//! is, and what it refuses it refuses with every mistake at once, each with its line. Secrets are not in the file;
//! it names where they are ([`Reference`]), and they are looked up in an [`Environment`] when they are needed.

mod active;
mod check;
pub(crate) mod document;
pub(crate) mod dotenv;
pub(crate) mod environment;
mod error;
mod file;
pub mod http;
mod listener;
mod platform;
pub(crate) mod redact;
mod reference;
mod secret;
mod settings;
pub mod source;
mod source_location;
pub(crate) mod suggest;
pub(crate) mod table;
mod units;
mod written;

pub use active::{ActiveSettings, LoadedSettings, Part, Why};
pub use environment::Environment;
pub use error::{ConfigError, ConfigErrors};
pub use listener::{ListenerLimits, Proxies, ProxyHeader, Tls};
pub use platform::{CompletionSettings, NexusPlatform, PlatformSettings, UniquePlatform};
pub use reference::Reference;
pub use secret::Secret;
pub(crate) use settings::decode;
pub(crate) use settings::unanswered;
pub use settings::{
    Canary, Ceilings, CompilerSettings, Module, ModuleLimits, Retention, Retry, Server, Settings, Swap, Tenant,
    TenantLimits,
};
pub use source::{EventSocket, Scheme, Source, SourceKind, Webhook};
pub use source_location::SourceLocation;
pub use written::Written;
