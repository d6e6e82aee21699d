//! Several engines, each with the records of some tenants, so that writes grow past one database.

use std::collections::HashMap;
use std::sync::Arc;

use modhost_core::event::Name;

/// Engines by tenant.
pub struct Shards<T: ?Sized> {
    /// The main engine comes first: it has every tenant that no other one has.
    engines: Vec<Arc<T>>,
    /// The position of the engine of each tenant that isn't in the main one.
    tenants: HashMap<Name, usize>,
}

impl<T: ?Sized> Shards<T> {
    /// Creates the shards of a main engine and of others with their tenants.
    pub fn new(main: Arc<T>, others: impl IntoIterator<Item = (Arc<T>, Vec<Name>)>) -> Self {
        let (mut engines, mut tenants) = (vec![main], HashMap::new());
        for (engine, of_engine) in others {
            tenants.extend(of_engine.into_iter().map(|tenant| (tenant, engines.len())));
            engines.push(engine);
        }
        Self { engines, tenants }
    }

    /// Returns the main engine.
    pub fn main(&self) -> &Arc<T> {
        &self.engines[0]
    }

    /// Returns the engine of a tenant.
    pub fn of(&self, tenant: &Name) -> &Arc<T> {
        &self.engines[self.position(tenant)]
    }

    /// Returns the position of the engine of a tenant in [`Shards::all`].
    pub fn position(&self, tenant: &Name) -> usize {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    /// Returns all engines, the main one first.
    pub fn all(&self) -> &[Arc<T>] {
        &self.engines
    }
}
