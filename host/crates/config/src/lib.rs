//! Typed and validated settings from modules.toml and the environment.
//!
//! [`Settings::load`] reads the file and validates all of it before anything runs. It reports every error at once,
//! each with its line. Secrets are not in the file: the file says where they are ([`Reference`]), and the host looks
//! them up in an [`Environment`] when it needs them.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod active;
mod active_host;
mod check;
pub mod document;
pub(crate) mod dotenv;
pub mod environment;
mod error;
mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod include;
mod listener;
mod platform;
pub mod redact;
mod reference;
mod settings;
pub mod source;
pub mod table;
mod units;
mod written_keys;

pub use active::{ActiveSettings, GraceReason, LoadedSettings, SettingsPart};
pub use active_host::{ActiveFile, ActiveHost, Changes, FileContent, LoadIncluded};
pub use environment::Environment;
pub use error::{ConfigError, ConfigErrors};
pub use include::claims::Claim;
pub use include::{Include, IncludedFiles, MAX_FILES, included_files};
pub use listener::{ListenerLimits, Proxies, ProxyHeader, Tls};
use modhost_core::secret::Secret;
use modhost_core::source_location::SourceLocation;
use modhost_core::suggest;
pub use platform::{CompletionSettings, NexusPlatform, PlatformSettings, UniquePlatform};
pub use reference::Reference;
pub use settings::decode;
pub use settings::read_failed;
pub use settings::{
    Canary, Ceilings, CompilerSettings, IncludedFile, Module, ModuleLimits, Retention, Server, Settings, Shard,
    StorageSettings, Swap, Tenant, TenantLimits,
};
pub use source::{EventSocket, Scheme, Source, SourceKind, Webhook};
pub use written_keys::WrittenKeys;
