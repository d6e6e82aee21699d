//! `wasi:config/store`: the module's settings, those of the assistant before those of `modules.toml`.

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
    /// The event's own configuration, read when it is first asked for.
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
    /// Each by itself: one that is odd takes none of the others away.
    fn assistant(&mut self) -> &HashMap<String, String> {
        let delivery = &self.delivery;
        self.assistant.get_or_insert_with(|| match &delivery.event.subject {
            Subject::ModuleChosen(chosen) => {
                let configuration = Value::read(chosen.configuration.as_bytes()).unwrap_or(Value::NULL);
                let entries = configuration.entries().into_iter().flatten();
                // Of a duplicate key, the last value counts, even if it is null.
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

/// Text as it is, any other value as JSON; `null` is as good as not there.
fn text(value: Value<'_>) -> Option<String> {
    match value.text() {
        Some(text) => Some(text.text.into_owned()),
        None if value.is_null() => None,
        None => Some(value.to_strict().into_owned()),
    }
}
