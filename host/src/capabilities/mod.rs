//! The host side of the WIT imports.
//!
//! Every capability is a small type, one file an interface, and lives through three stages ([`Capability`]): it is
//! *linked* once a process, *prepared* once a module version, and *begun* once a delivery. A capability knows the
//! [`Delivery`] it serves, and takes user, company, chat and message ids from its verified event alone.

mod bindings;
mod carried;
mod chance;
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
mod search;
mod spending;
mod tape;

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};

pub use bindings::modhost::module::events;
pub use bindings::{Module as World, ModulePre as WorldPre};
pub use chance::{insecure as insecure_chance, secure as secure_chance};
pub use clock::{MonotonicClock, WallClock};
pub use delivery::{Begin, Delivery, Progress, Reply, Step};
pub use http::{HttpGrant, HttpGrants};
pub(crate) use http::{IMPORT as HTTP_IMPORT, conceal as conceal_http};
pub(crate) use log::shortened;
pub use log::{DeliveryLog, LineStream, Stream};
pub use spending::{Spending, TenantMemory};
pub use tape::{Answer, Asked, Known, Tape};

use chance::InsecureSeed;
use completion::CompletionCapability;
use config::ConfigCapability;
use http::HttpCapability;
use keyvalue::KeyValueCapability;
use logging::Logging;
use message_log::MessageLog;
use messages::Messages;
use search::Search;

use crate::limits::Resource;

/// The three life stages of a capability.
trait Capability: Sized + Send {
    /// What it keeps of a module version's settings and grants.
    type Prepared: Send + Sync;

    /// Offers the interface to every component of the process.
    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()>;

    /// Reads what a module version is granted.
    fn prepare(grants: &Grants) -> Self::Prepared;

    /// Begins to serve one delivery.
    fn begin(prepared: &Self::Prepared, delivery: &Arc<Delivery>) -> Self;
}

/// What a module version may do and know, out of its entry in `modules.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The module's `config` table, values as the guest reads them.
    pub config: Arc<BTreeMap<String, String>>,
    /// Where it may send HTTP requests.
    pub http: HttpGrants,
}

/// Gives a store's data access to the capabilities in it.
pub trait Host: Send + 'static {
    /// The capabilities of the delivery this store serves.
    fn capabilities(&mut self) -> &mut Capabilities;
}

/// The capabilities a module version was prepared for.
pub struct Prepared {
    message_log: <MessageLog as Capability>::Prepared,
    messages: <Messages as Capability>::Prepared,
    search: <Search as Capability>::Prepared,
    completion: <CompletionCapability as Capability>::Prepared,
    logging: <Logging as Capability>::Prepared,
    config: <ConfigCapability as Capability>::Prepared,
    keyvalue: <KeyValueCapability as Capability>::Prepared,
    http: <HttpCapability as Capability>::Prepared,
    insecure_seed: <InsecureSeed as Capability>::Prepared,
}

/// The capabilities that serve one delivery, and the resources its guest holds.
pub struct Capabilities {
    /// The guest's handles, those of WASI among them.
    pub table: ResourceTable,
    message_log: MessageLog,
    messages: Messages,
    search: Search,
    completion: CompletionCapability,
    logging: Logging,
    config: ConfigCapability,
    keyvalue: KeyValueCapability,
    http: HttpCapability,
    insecure_seed: InsecureSeed,
}

/// Offers all capabilities to every component of the process.
///
/// # Errors
///
/// When an interface is offered twice.
pub fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    MessageLog::link(linker)?;
    Messages::link(linker)?;
    Search::link(linker)?;
    CompletionCapability::link(linker)?;
    Logging::link(linker)?;
    ConfigCapability::link(linker)?;
    KeyValueCapability::link(linker)?;
    HttpCapability::link(linker)?;
    InsecureSeed::link(linker)
}

impl Prepared {
    /// Reads what a module version is granted.
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
            insecure_seed: InsecureSeed::prepare(grants),
        }
    }

    /// Begins to serve one delivery.
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
            insecure_seed: InsecureSeed::begin(&self.insecure_seed, delivery),
        }
    }
}

/// Words of `types.wit` that several capabilities translate.
mod types {
    use serde_json::Value;

    pub(super) use super::bindings::modhost::module::types::{Error, Reference, Role};
    use crate::platform::{self, ErrorKind, PlatformError};

    impl From<PlatformError> for Error {
        fn from(error: PlatformError) -> Self {
            match error.kind {
                ErrorKind::Invalid => Self::Invalid(error.message),
                ErrorKind::Denied => Self::Denied(error.message),
                ErrorKind::NotFound => Self::NotFound(error.message),
                ErrorKind::RateLimited(after) => Self::RateLimited(after.map(whole_seconds)),
                ErrorKind::Unavailable => Self::Unavailable(error.message),
                ErrorKind::Timeout => Self::Timeout,
                ErrorKind::Unsupported => Self::Unsupported(error.message),
            }
        }
    }

    /// Rounded up: who comes back after this time is not early.
    fn whole_seconds(time: std::time::Duration) -> u32 {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    impl From<Reference> for platform::Reference {
        fn from(reference: Reference) -> Self {
            Self {
                name: reference.name,
                description: reference.description,
                url: reference.url,
                sequence_number: reference.sequence_number,
                original_index: reference.original_index,
                source_id: reference.source_id,
                source: reference.source,
            }
        }
    }

    impl From<platform::Reference> for Reference {
        fn from(reference: platform::Reference) -> Self {
            Self {
                name: reference.name,
                description: reference.description,
                url: reference.url,
                sequence_number: reference.sequence_number,
                original_index: reference.original_index,
                source_id: reference.source_id,
                source: reference.source,
            }
        }
    }

    impl From<Role> for platform::Role {
        fn from(role: Role) -> Self {
            match role {
                Role::System => Self::System,
                Role::User => Self::User,
                Role::Assistant => Self::Assistant,
            }
        }
    }

    impl From<platform::Role> for Role {
        fn from(role: platform::Role) -> Self {
            match role {
                platform::Role::System => Self::System,
                platform::Role::User => Self::User,
                platform::Role::Assistant => Self::Assistant,
            }
        }
    }

    /// How many values the JSON of one argument may have. Each takes up to a hundred bytes of the host's memory for as long
    /// as the call lasts, and of the text, which is what counts as an argument, no more than two or three.
    const MOST_VALUES: usize = 100_000;

    /// Refuses JSON of more values than one argument may have, all its texts together.
    pub(super) fn check_values<'a>(what: &str, json: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        match json.into_iter().map(values).sum::<usize>() {
            0..=MOST_VALUES => Ok(()),
            many => Err(Error::Invalid(format!("`{what}` has {many} values in JSON, and may have {MOST_VALUES}"))),
        }
    }

    /// How many values a JSON text has at the most: one, and one for each comma and opening bracket that is not in a string.
    fn values(json: &str) -> usize {
        let (mut values, mut in_string, mut escaped) = (1, false, false);
        for byte in json.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = !in_string,
                b',' | b'[' | b'{' if !in_string => values += 1,
                _ => {}
            }
        }
        values
    }

    /// Reads a `json` argument that has to be an object; `what` names it to the module's author.
    pub(super) fn object(what: &str, json: Option<String>) -> Result<Option<Value>, Error> {
        let Some(json) = json else { return Ok(None) };
        check_values(what, [json.as_str()])?;
        match serde_json::from_str::<Value>(&json) {
            Ok(value @ Value::Object(_)) => Ok(Some(value)),
            Ok(_) => Err(Error::Invalid(format!("`{what}` has to be a JSON object"))),
            Err(error) => Err(Error::Invalid(format!("`{what}` is not JSON: {error}"))),
        }
    }

    pub(super) fn references<A, B: From<A>>(references: Vec<A>) -> Vec<B> {
        references.into_iter().map(B::from).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_in_a_string_is_no_value() {
            for (text, many) in [("7", 1), (r#"{"a": [1, 2], "b": {}}"#, 6), (r#"{"a": "1,2[3\\\",{\\", "b": 4}"#, 3)] {
                assert_eq!(values(text), many, "{text}");
                assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
            }
        }

        #[test]
        fn values_without_number_are_refused() {
            let many = |count| Some(format!(r#"{{"a": [{}[]]}}"#, "[],".repeat(count)));
            assert!(object("details", many(1000)).is_ok());
            let Err(Error::Invalid(why)) = object("details", many(100_000)) else { panic!("it is taken") };
            assert_eq!(why, "`details` has 200004 values in JSON, and may have 100000");
        }
    }
}
