//! `message-log`: the steps shown under the reply while it is being made.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::bindings::modhost::module::message_log::{Change, Host as Imports, HostEntry, Status, add_to_linker};
use super::types::{Error, object, references};
use super::{CallSpec, Capability, Delivery, Grants, Host, Progress};
use crate::call_log::CallEffect;
use modhost_core::import::Import;
use modhost_platform::{NewStep, Platform, StepChange, StepStatus};

/// The call that shows a step.
const CREATE: CallSpec = CallSpec::new(Import::MessageLogEntryCreate, CallEffect::Change)
    .keeping_result()
    .restored_by(RecordedStep::restore);

/// The call that changes a step.
const UPDATE: CallSpec =
    CallSpec::new(Import::MessageLogEntryUpdate, CallEffect::Change).restored_by(RecordedStep::restore);

/// The capability.
pub(super) struct MessageLog {
    delivery: Arc<Delivery>,
}

/// A guest's handle of a step.
pub struct Entry {
    id: String,
    order: u32,
}

/// The recorded answer of a call that created or changed a step.
#[derive(Serialize, Deserialize)]
struct RecordedStep {
    id: String,
    order: u32,
    /// None if the change left it as it was.
    status: Option<StepStatus>,
}

/// The capability and the guest's handles, for the duration of one call.
pub(super) struct View<'a> {
    delivery: &'a Arc<Delivery>,
    table: &'a mut ResourceTable,
}

impl HasData for MessageLog {
    type Data<'a> = View<'a>;
}

impl Capability for MessageLog {
    const CALLS: &'static [CallSpec] = &[CREATE, UPDATE];
    type Prepared = ();

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, Self>(linker, |data| {
            let capabilities = data.capabilities();
            View { delivery: &capabilities.message_log.delivery, table: &mut capabilities.table }
        })
    }

    fn prepare(_: &Grants) {}

    fn begin((): &(), delivery: &Arc<Delivery>) -> Self {
        Self { delivery: delivery.clone() }
    }
}

impl Imports for View<'_> {}

impl HostEntry for View<'_> {
    async fn create(&mut self, text: String, status: Status) -> wasmtime::Result<Result<Resource<Entry>, Error>> {
        match create(self.delivery, text, status.into()).await {
            Ok(entry) => Ok(Ok(self.table.push(entry)?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn update(&mut self, entry: Resource<Entry>, change: Change) -> wasmtime::Result<Result<(), Error>> {
        let entry = self.table.get(&entry)?;
        Ok(update(self.delivery, entry, change).await)
    }

    async fn id(&mut self, entry: Resource<Entry>) -> wasmtime::Result<String> {
        Ok(self.table.get(&entry)?.id.clone())
    }

    async fn drop(&mut self, entry: Resource<Entry>) -> wasmtime::Result<()> {
        self.table.delete(entry)?;
        Ok(())
    }
}

async fn create(delivery: &Arc<Delivery>, text: String, status: StepStatus) -> Result<Entry, Error> {
    let message_id = delivery.reply_id()?.to_owned();
    let call = delivery.request(&CREATE, &(&text, status))?;
    let orders = delivery.clone();
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        let order = orders.progress().next_order();
        let step = NewStep { message_id, text, status, order };
        let id = platform.create_step(&caller, &step).await?;
        Ok(RecordedStep { id, order, status: Some(status) })
    };
    let recorded = delivery.make(call, make, RecordedStep::apply).await?;
    Ok(Entry { id: recorded.id, order: recorded.order })
}

async fn update(delivery: &Arc<Delivery>, entry: &Entry, change: Change) -> Result<(), Error> {
    let change = StepChange {
        text: change.text,
        status: change.status.map(StepStatus::from),
        details: object("details", change.details)?,
        references: references(change.references),
    };
    let (id, order) = (entry.id.clone(), entry.order);
    let call = delivery.request(&UPDATE, &(order, &change))?;
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.update_step(&caller, &id, &change).await?;
        Ok(RecordedStep { id, order, status: change.status })
    };
    delivery.make(call, make, RecordedStep::apply).await?;
    Ok(())
}

impl RecordedStep {
    fn apply(progress: &mut Progress, recorded: &Self) {
        if let Some(status) = recorded.status {
            progress.step_shown(recorded.order, &recorded.id, status);
        }
    }

    /// Applies the recorded answer of an earlier attempt.
    fn restore(progress: &mut Progress, answer: &Value) {
        if let Ok(recorded) = Self::deserialize(answer) {
            Self::apply(progress, &recorded);
        }
    }
}

impl From<Status> for StepStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Running => Self::Running,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
        }
    }
}
