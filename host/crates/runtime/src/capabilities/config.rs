//! `wasi:config/store`: the module's settings; those of the assistant override those of `modules.toml`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wasmtime::component::{HasData, Linker};

use super::bindings::wasi::config::store::{Error, Host as Imports, add_to_linker};
use super::{Capability, Delivery, Grants, Host};
use modhost_core::event::Subject;
use modhost_core::json::Value;

/// The capability.
pub(super) struct ConfigCapability {
    module: Arc<BTreeMap<String, String>>,
    delivery: Arc<Delivery>,
    /// The configuration in the event, parsed on first use.
    assistant: Option<HashMap<String, String>>,
}

impl HasData for ConfigCapability {
    type Data<'a> = &'a mut ConfigCapability;
}

impl Capability for ConfigCapability {
    type Prepared = Arc<BTreeMap<String, String>>;

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, Self>(linker, |data| &mut data.capabilities().config)
    }

    fn prepare(grants: &Grants) -> Self::Prepared {
        grants.config.clone()
    }

    fn begin(module: &Self::Prepared, delivery: &Arc<Delivery>) -> Self {
        Self { module: module.clone(), delivery: delivery.clone(), assistant: None }
    }
}

impl ConfigCapability {
    /// Returns the configuration of the assistant. An invalid entry doesn't affect the others.
    fn assistant(&mut self) -> &HashMap<String, String> {
        let delivery = &self.delivery;
        self.assistant.get_or_insert_with(|| match &delivery.event.subject {
            Subject::ModuleChosen(chosen) => {
                let configuration = Value::read(chosen.configuration.as_bytes()).unwrap_or(Value::NULL);
                let entries = configuration.entries().into_iter().flatten();
                // The last value of a duplicate key wins, even if it is null.
                let entries: HashMap<_, _> = entries.filter_map(|(key, value)| Some((text(key)?, value))).collect();
                entries.into_iter().filter_map(|(key, value)| Some((key, text(value)?))).collect()
            }
            _ => HashMap::new(),
        })
    }
}

impl Imports for ConfigCapability {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        let assistant = self.assistant().get(&key).cloned();
        Ok(Ok(assistant.or_else(|| self.module.get(&key).cloned())))
    }

    async fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        let mut all = (*self.module).clone();
        all.extend(self.assistant().iter().map(|(key, value)| (key.clone(), value.clone())));
        Ok(Ok(all.into_iter().collect()))
    }
}

/// Returns a string as it is and any other value as JSON; `null` counts as missing.
fn text(value: Value<'_>) -> Option<String> {
    match value.text() {
        Some(text) => Some(text.text.into_owned()),
        None if value.is_null() => None,
        None => Some(value.to_strict().into_owned()),
    }
}
