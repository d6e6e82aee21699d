//! The modules that deliveries run on: the engine's registry in a host, a script in tests of dispatch.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::capabilities::Delivery;
use crate::engine::{Chosen, GuestOutcome, Registry};
use modhost_core::event::{DeliveryId, Name};

/// The modules of a host, as dispatch sees them.
pub trait Modules: Send + Sync + 'static {
    /// Returns a receiver that is marked whenever deliveries of some module may be able to start.
    fn changes(&self) -> watch::Receiver<()>;

    /// Returns whether the deliveries of a module wait: it is paused, or no version serves yet.
    fn is_blocked(&self, module: &Name) -> bool;

    /// Returns whether the deliveries of any module wait.
    fn any_blocked(&self) -> bool;

    /// Returns the version for a delivery received at this time; none if the module has no version.
    fn choose(&self, module: &Name, delivery: &DeliveryId, received_at: SystemTime) -> Option<Box<dyn Runner>>;
}

/// One version of a module, chosen for one delivery.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Returns the content hash of the version.
    fn version(&self) -> String;

    /// Runs the module on the delivery until it ends. If `stop` is canceled first, ends the module and returns `None`
    /// once nothing of it runs.
    async fn run(&self, delivery: &Arc<Delivery>, stop: &CancellationToken) -> Option<GuestOutcome>;

    /// Records the outcome of the first attempt at the delivery, as evidence for or against a canary.
    fn ended(&self, completed: bool);
}

impl Modules for Registry {
    fn changes(&self) -> watch::Receiver<()> {
        Self::changes(self)
    }

    fn is_blocked(&self, module: &Name) -> bool {
        Self::is_blocked(self, module)
    }

    fn any_blocked(&self) -> bool {
        Self::any_blocked(self)
    }

    fn choose(&self, module: &Name, delivery: &DeliveryId, received_at: SystemTime) -> Option<Box<dyn Runner>> {
        Some(Box::new(Self::choose(self, module, delivery, received_at)?))
    }
}

#[async_trait]
impl Runner for Chosen {
    fn version(&self) -> String {
        self.version.hash().to_string()
    }

    async fn run(&self, delivery: &Arc<Delivery>, stop: &CancellationToken) -> Option<GuestOutcome> {
        self.version.run_until(delivery, stop).await
    }

    fn ended(&self, completed: bool) {
        Self::ended(self, completed);
    }
}
