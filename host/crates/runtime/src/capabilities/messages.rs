//! `messages`: the reply to the event, and the other messages of its chat.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker};

use super::bindings::modhost::module::messages::{Change, Host as Imports, Message, add_to_linker};
use super::types::{Error, object, references};
use super::{CallSpec, Capability, Delivery, Grants, Host, Progress};
use crate::call_log::CallEffect;
use modhost_core::import::Import;
use modhost_platform as platform;
use modhost_platform::{MessageChange, Platform};

/// The call that changes the reply.
pub(super) const REPLY: CallSpec = CallSpec::new(Import::MessagesReply, CallEffect::Change);

/// The call that shows a text while the reply is being made.
const SHOW: CallSpec = CallSpec::new(Import::MessagesShow, CallEffect::Change);

/// The call that writes a new message.
const CREATE: CallSpec = CallSpec::new(Import::MessagesCreate, CallEffect::Change).keeping_result();

/// The call that changes any message of the chat.
const MODIFY: CallSpec = CallSpec::new(Import::MessagesModify, CallEffect::Change);

/// The call that lists the messages of the chat.
const HISTORY: CallSpec = CallSpec::new(Import::MessagesHistory, CallEffect::Read);

/// The capability.
pub(super) struct Messages {
    delivery: Arc<Delivery>,
}

impl HasData for Messages {
    type Data<'a> = &'a mut Messages;
}

impl Capability for Messages {
    const CALLS: &'static [CallSpec] = &[REPLY, SHOW, CREATE, MODIFY, HISTORY];
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
        Ok(modify(&self.delivery, &MODIFY, id, change).await)
    }

    async fn history(&mut self, limit: Option<u32>) -> wasmtime::Result<Result<Vec<Message>, Error>> {
        Ok(history(&self.delivery, limit).await)
    }
}

async fn reply(delivery: &Arc<Delivery>, change: Change) -> Result<Message, Error> {
    let id = delivery.reply_id()?.to_owned();
    modify(delivery, &REPLY, id, change).await
}

async fn show(delivery: &Arc<Delivery>, text: String) -> Result<(), Error> {
    let (chat_id, id) = (delivery.chat_id()?.to_owned(), delivery.reply_id()?.to_owned());
    let call = delivery.request(&SHOW, &text)?;
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.show_message(&caller, &chat_id, &id, &text).await
    };
    Ok(delivery.make(call, make, |_, ()| {}).await?)
}

async fn create(delivery: &Arc<Delivery>, change: Change) -> Result<Message, Error> {
    let chat_id = delivery.chat_id()?.to_owned();
    let assistant_id = delivery.event.assistant_id().map(str::to_owned);
    let change = MessageChange::try_from(change)?;
    let call = delivery.request(&CREATE, &change)?;
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.create_message(&caller, assistant_id.as_deref(), &chat_id, &change).await
    };
    Ok(delivery.make(call, make, |progress, _| progress.has_written = true).await?.into())
}

/// Changes a message of the event's chat. If it is the reply, its text and state are recorded in the progress.
async fn modify(delivery: &Arc<Delivery>, spec: &CallSpec, id: String, change: Change) -> Result<Message, Error> {
    let chat_id = delivery.chat_id()?.to_owned();
    let change = MessageChange::try_from(change)?;
    let written = delivery.reply_id().is_ok_and(|reply| reply == id).then(|| (change.text.clone(), change.completed));
    let call = delivery.request(spec, &(&id, &change))?;
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.modify_message(&caller, &chat_id, &id, &change).await
    };
    let apply = |progress: &mut Progress, _: &platform::Message| {
        progress.has_written = true;
        let Some((text, completed)) = written else { return };
        progress.reply.completed |= completed;
        if text.is_some() {
            progress.reply.text = text;
        }
    };
    Ok(delivery.make(call, make, apply).await?.into())
}

async fn history(delivery: &Arc<Delivery>, limit: Option<u32>) -> Result<Vec<Message>, Error> {
    let chat_id = delivery.chat_id()?.to_owned();
    let make = |platform: Arc<dyn Platform>, caller| async move { platform.list_messages(&caller, &chat_id).await };
    let call = delivery.request(&HISTORY, &limit)?;
    let mut messages = delivery.make(call, make, |_, _| {}).await?;
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
