//! `messages`: the reply to the event, and the other messages of its chat.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker};

use super::bindings::modhost::module::messages::{Change, Host as Imports, Message, add_to_linker};
use super::delivery::CallEffect;
use super::types::{Error, object, references};
use super::{Capability, Delivery, Grants, Host, Progress};
use modhost_platform as platform;
use modhost_platform::{MessageChange, Platform};

/// The call that writes a new message.
pub(super) const CREATE: &str = "messages.create";

/// The capability.
pub(super) struct Messages {
    delivery: Arc<Delivery>,
}

impl HasData for Messages {
    type Data<'a> = &'a mut Messages;
}

impl Capability for Messages {
    type Prepared = ();

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, Self>(linker, |data| &mut data.capabilities().messages)
    }

    fn prepare(_: &Grants) {}

    fn begin((): &(), delivery: &Arc<Delivery>) -> Self {
        Self { delivery: delivery.clone() }
    }
}

impl Imports for Messages {
    async fn reply(&mut self, change: Change) -> wasmtime::Result<Result<Message, Error>> {
        Ok(reply(&self.delivery, change).await)
    }

    async fn show(&mut self, text: String) -> wasmtime::Result<Result<(), Error>> {
        Ok(show(&self.delivery, text).await)
    }

    async fn create(&mut self, change: Change) -> wasmtime::Result<Result<Message, Error>> {
        Ok(create(&self.delivery, change).await)
    }

    async fn modify(&mut self, id: String, change: Change) -> wasmtime::Result<Result<Message, Error>> {
        Ok(modify(&self.delivery, "messages.modify", id, change).await)
    }

    async fn history(&mut self, limit: Option<u32>) -> wasmtime::Result<Result<Vec<Message>, Error>> {
        Ok(history(&self.delivery, limit).await)
    }
}

async fn reply(delivery: &Arc<Delivery>, change: Change) -> Result<Message, Error> {
    let id = delivery.reply_id()?.to_owned();
    modify(delivery, "messages.reply", id, change).await
}

async fn show(delivery: &Arc<Delivery>, text: String) -> Result<(), Error> {
    let (chat_id, id) = (delivery.chat_id()?.to_owned(), delivery.reply_id()?.to_owned());
    let pending = delivery.prepare(CallEffect::Change, "messages.show", &text)?;
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.show_message(&caller, &chat_id, &id, &text).await
    };
    Ok(pending.make(make, |_, ()| {}).await?)
}

async fn create(delivery: &Arc<Delivery>, change: Change) -> Result<Message, Error> {
    let chat_id = delivery.chat_id()?.to_owned();
    let assistant_id = delivery.event.assistant_id().map(str::to_owned);
    let change = MessageChange::try_from(change)?;
    let pending = delivery.prepare(CallEffect::Change, CREATE, &change)?;
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.create_message(&caller, assistant_id.as_deref(), &chat_id, &change).await
    };
    Ok(pending.make(make, |progress, _| progress.has_written = true).await?.into())
}

/// Changes a message of the event's chat; if it is the reply, what was written is kept for the delivery's end.
async fn modify(delivery: &Arc<Delivery>, import: &'static str, id: String, change: Change) -> Result<Message, Error> {
    let chat_id = delivery.chat_id()?.to_owned();
    let change = MessageChange::try_from(change)?;
    let written = delivery.reply_id().is_ok_and(|reply| reply == id).then(|| (change.text.clone(), change.completed));
    let pending = delivery.prepare(CallEffect::Change, import, &(&id, &change))?;
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.modify_message(&caller, &chat_id, &id, &change).await
    };
    let take_in = |progress: &mut Progress, _: &platform::Message| {
        progress.has_written = true;
        let Some((text, completed)) = written else { return };
        progress.reply.completed |= completed;
        if text.is_some() {
            progress.reply.text = text;
        }
    };
    Ok(pending.make(make, take_in).await?.into())
}

async fn history(delivery: &Arc<Delivery>, limit: Option<u32>) -> Result<Vec<Message>, Error> {
    let chat_id = delivery.chat_id()?.to_owned();
    let make = |platform: Arc<dyn Platform>, caller| async move { platform.list_messages(&caller, &chat_id).await };
    let mut messages = delivery.call(CallEffect::Read, "messages.history", &limit, make).await?;
    if let Some(limit) = limit {
        let surplus = messages.len().saturating_sub(limit as usize);
        messages.drain(..surplus);
    }
    Ok(messages.into_iter().map(Message::from).collect())
}

impl TryFrom<Change> for MessageChange {
    type Error = Error;

    fn try_from(change: Change) -> Result<Self, Error> {
        Ok(Self {
            text: change.text,
            references: references(change.references),
            debug_info: object("debug-info", change.debug_info)?,
            completed: change.completed,
        })
    }
}

impl From<platform::Message> for Message {
    fn from(message: platform::Message) -> Self {
        Self {
            id: message.id,
            role: message.role.into(),
            text: message.text,
            references: references(message.references),
            created_at: message.created_at,
        }
    }
}
