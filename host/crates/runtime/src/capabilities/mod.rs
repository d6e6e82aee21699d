//! Implements the WIT imports.
//!
//! Each capability is a small type in its own file, one per interface, with three stages ([`Capability`]): it is
//! *linked* once per process, *prepared* once per module version, and *begun* once per delivery. A capability takes
//! user, company, chat and message ids only from the verified event of its [`Delivery`].

mod bindings;
mod clock;
mod completion;
mod config;
mod delivery;
mod http;
mod keyvalue;
mod log;
mod logging;
mod message_log;
mod messages;
mod random;
mod search;
mod tenant_log;
mod tenant_memory;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};

pub use bindings::modhost::module::events;
pub use bindings::{Module as World, ModulePre as WorldPre};
pub use clock::{MonotonicClock, WallClock};
pub use delivery::{AttemptContext, Delivery, Progress, Reply, Step};
pub use http::{HttpGrant, HttpGrants, redact as redact_http};
pub use log::{DeliveryLog, LineStream, Stream};
pub use tenant_log::TenantLog;
pub use tenant_memory::{GuestMemory, TenantMemory};

use completion::CompletionCapability;
use config::ConfigCapability;
use http::HttpCapability;
use keyvalue::KeyValueCapability;
use logging::Logging;
use message_log::MessageLog;
use messages::Messages;
use random::RandomCapability;
use search::Search;

use crate::call_log;
use modhost_core::import::Import;
use modhost_core::limits::Resource;

/// The declaration of a call.
type CallSpec = call_log::CallSpec<Progress>;

/// The declared calls of all capabilities.
const CALLS: [&[CallSpec]; 6] = [
    MessageLog::CALLS,
    Messages::CALLS,
    Search::CALLS,
    CompletionCapability::CALLS,
    KeyValueCapability::CALLS,
    HttpCapability::CALLS,
];

/// Returns the declaration of a call; none for the host's own log entries.
fn spec_of(import: Import) -> Option<CallSpec> {
    CALLS.iter().copied().flatten().find(|spec| spec.import == import).copied()
}

/// The three stages of a capability.
trait Capability: Sized + Send {
    /// The calls it declares.
    const CALLS: &'static [CallSpec] = &[];

    /// What it keeps from the grants of a module version.
    type Prepared: Send + Sync;

    /// Links the interface for every component of the process.
    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()>;

    /// Prepares the capability for a module version.
    fn prepare(grants: &Grants) -> Self::Prepared;

    /// Creates the capability of one delivery.
    fn begin(prepared: &Self::Prepared, delivery: &Arc<Delivery>) -> Self;
}

/// The settings and permissions of a module version, from its entry in `modules.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The module's `config` table, with values as the guest reads them.
    pub config: Arc<BTreeMap<String, String>>,
    /// The HTTP requests it may send.
    pub http: HttpGrants,
}

/// Gives a store's data access to the capabilities in it.
pub trait Host: Send + 'static {
    /// Returns the capabilities of the delivery that this store serves.
    fn capabilities(&mut self) -> &mut Capabilities;
}

/// The capabilities prepared for a module version.
pub struct Prepared {
    message_log: <MessageLog as Capability>::Prepared,
    messages: <Messages as Capability>::Prepared,
    search: <Search as Capability>::Prepared,
    completion: <CompletionCapability as Capability>::Prepared,
    logging: <Logging as Capability>::Prepared,
    config: <ConfigCapability as Capability>::Prepared,
    keyvalue: <KeyValueCapability as Capability>::Prepared,
    http: <HttpCapability as Capability>::Prepared,
    random: <RandomCapability as Capability>::Prepared,
}

/// The capabilities of one delivery, and the resources that its guest holds.
pub struct Capabilities {
    /// The guest's handles, including those of WASI.
    pub table: ResourceTable,
    message_log: MessageLog,
    messages: Messages,
    search: Search,
    completion: CompletionCapability,
    logging: Logging,
    config: ConfigCapability,
    keyvalue: KeyValueCapability,
    http: HttpCapability,
    random: RandomCapability,
}

/// Links all capabilities for every component of the process.
///
/// # Errors
///
/// When an interface is linked twice.
pub fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    MessageLog::link(linker)?;
    Messages::link(linker)?;
    Search::link(linker)?;
    CompletionCapability::link(linker)?;
    Logging::link(linker)?;
    ConfigCapability::link(linker)?;
    KeyValueCapability::link(linker)?;
    HttpCapability::link(linker)?;
    RandomCapability::link(linker)
}

impl Prepared {
    /// Prepares all capabilities for a module version.
    pub fn new(grants: &Grants) -> Self {
        Self {
            message_log: MessageLog::prepare(grants),
            messages: Messages::prepare(grants),
            search: Search::prepare(grants),
            completion: CompletionCapability::prepare(grants),
            logging: Logging::prepare(grants),
            config: ConfigCapability::prepare(grants),
            keyvalue: KeyValueCapability::prepare(grants),
            http: HttpCapability::prepare(grants),
            random: RandomCapability::prepare(grants),
        }
    }

    /// Creates the capabilities of one delivery.
    pub fn begin(&self, delivery: &Arc<Delivery>) -> Capabilities {
        let mut table = ResourceTable::new();
        table.set_max_capacity(delivery.limits().size(Resource::Handles));
        Capabilities {
            table,
            message_log: MessageLog::begin(&self.message_log, delivery),
            messages: Messages::begin(&self.messages, delivery),
            search: Search::begin(&self.search, delivery),
            completion: CompletionCapability::begin(&self.completion, delivery),
            logging: Logging::begin(&self.logging, delivery),
            config: ConfigCapability::begin(&self.config, delivery),
            keyvalue: KeyValueCapability::begin(&self.keyvalue, delivery),
            http: HttpCapability::begin(&self.http, delivery),
            random: RandomCapability::begin(&self.random, delivery),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declares_exactly_the_calls() {
        for import in Import::ALL {
            assert_eq!(spec_of(import).is_some(), import.is_call(), "{import}");
        }
    }
}
