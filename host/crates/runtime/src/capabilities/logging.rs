//! `wasi:logging`: log lines of the module, for its author and the operators.

use std::sync::Arc;

use tracing::Level as Severity;
use wasmtime::component::{HasData, Linker};

use super::bindings::wasi::logging::logging::{Host as Imports, Level, add_to_linker};
use super::{Capability, Delivery, DeliveryLog, Grants, Host};

/// The capability.
pub(super) struct Logging {
    log: DeliveryLog,
}

impl HasData for Logging {
    type Data<'a> = &'a mut Logging;
}

impl Capability for Logging {
    type Prepared = ();

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, Self>(linker, |data| &mut data.capabilities().logging)
    }

    fn prepare(_: &Grants) {}

    fn begin((): &(), delivery: &Arc<Delivery>) -> Self {
        Self { log: delivery.log.clone() }
    }
}

impl Imports for Logging {
    async fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let severity = match level {
            Level::Trace => Severity::TRACE,
            Level::Debug => Severity::DEBUG,
            Level::Info => Severity::INFO,
            Level::Warn => Severity::WARN,
            Level::Error | Level::Critical => Severity::ERROR,
        };
        self.log.text(severity, &context, &message);
        Ok(())
    }
}
