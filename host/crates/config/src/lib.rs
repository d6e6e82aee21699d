//! modules.toml and the environment, checked and typed.
//!
//! [`Settings::load`] reads the file and checks all of it before anything runs: what it returns can be used as it
//! is, and what it refuses it refuses with every mistake at once, each with its line. Secrets are not in the file;
//! it names where they are ([`Reference`]), and they are looked up in an [`Environment`] when they are needed.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod active;
mod check;
pub mod document;
pub(crate) mod dotenv;
pub mod environment;
mod error;
mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod listener;
mod platform;
pub mod redact;
mod reference;
mod settings;
pub mod source;
pub mod table;
mod units;
mod written;

pub use active::{ActiveSettings, LoadedSettings, Part, Why};
pub use environment::Environment;
pub use error::{ConfigError, ConfigErrors};
pub use listener::{ListenerLimits, Proxies, ProxyHeader, Tls};
use modhost_core::secret::Secret;
use modhost_core::source_location::SourceLocation;
use modhost_core::suggest;
pub use platform::{CompletionSettings, NexusPlatform, PlatformSettings, UniquePlatform};
pub use reference::Reference;
pub use settings::decode;
pub use settings::unanswered;
pub use settings::{
    Canary, Ceilings, CompilerSettings, Module, ModuleLimits, Retention, Server, Settings, Swap, Tenant, TenantLimits,
};
pub use source::{EventSocket, Scheme, Source, SourceKind, Webhook};
pub use written::Written;
