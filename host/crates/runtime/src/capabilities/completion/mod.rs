//! `completion`: completions of a language model.

mod tokens;

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

pub use tokens::Tokens;

use super::bindings::modhost::module::completion::{
    Answer, Host as Imports, HostTokens, Request, Usage, add_to_linker,
};
use super::bindings::modhost::module::search::Hit;
use super::messages::REPLY;
use super::types::{Error, check_values, object};
use super::{CallSpec, Capability, Delivery, Grants, Host, Progress};
use crate::call_log::CallEffect;
use modhost_core::import::Import;
use modhost_platform as platform;
use modhost_platform::{
    CallError, Completion, CompletionRequest, ErrorKind, MessageChange, ModelMessage, Platform, StreamTarget,
    StreamedAnswer,
};

/// The call that returns the complete answer.
const COMPLETE: CallSpec = CallSpec::new(Import::CompletionComplete, CallEffect::Paid);

/// The call whose answer the platform writes into the reply.
const COMPLETE_INTO_REPLY: CallSpec = CallSpec::new(Import::CompletionCompleteIntoReply, CallEffect::Paid);

/// The capability. `Completion` is the answer of a platform.
pub(super) struct CompletionCapability {
    delivery: Arc<Delivery>,
}

/// The capability and the guest's handles, for the duration of one call.
pub(super) struct View<'a> {
    delivery: &'a Arc<Delivery>,
    table: &'a mut ResourceTable,
}

impl HasData for CompletionCapability {
    type Data<'a> = View<'a>;
}

impl Capability for CompletionCapability {
    const CALLS: &'static [CallSpec] = &[COMPLETE, COMPLETE_INTO_REPLY, tokens::STREAM];
    type Prepared = ();

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, Self>(linker, |data| {
            let capabilities = data.capabilities();
            View { delivery: &capabilities.completion.delivery, table: &mut capabilities.table }
        })
    }

    fn prepare(_: &Grants) {}

    fn begin((): &(), delivery: &Arc<Delivery>) -> Self {
        Self { delivery: delivery.clone() }
    }
}

impl Imports for View<'_> {
    async fn complete(&mut self, request: Request) -> wasmtime::Result<Result<Answer, Error>> {
        Ok(complete(self.delivery, request).await)
    }

    async fn complete_into_reply(
        &mut self,
        request: Request,
        sources: Vec<Hit>,
    ) -> wasmtime::Result<Result<Answer, Error>> {
        Ok(complete_into_reply(self.delivery, request, sources).await)
    }

    async fn stream(&mut self, request: Request) -> wasmtime::Result<Result<Resource<Tokens>, Error>> {
        match start(self.delivery, request).await {
            Ok(tokens) => Ok(Ok(self.table.push(tokens)?)),
            Err(error) => Ok(Err(error)),
        }
    }
}

impl HostTokens for View<'_> {
    async fn next(&mut self, tokens: Resource<Tokens>) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(self.table.get_mut(&tokens)?.next().await.map_err(Error::from))
    }

    async fn drop(&mut self, tokens: Resource<Tokens>) -> wasmtime::Result<()> {
        let tokens = self.table.delete(tokens)?;
        if let Err(error) = tokens.finish_early().await {
            // `drop` can't return an error. Without a recorded answer, the call counts as in flight.
            let (module, delivery) = (&self.delivery.module, &self.delivery.id);
            tracing::warn!(%module, %delivery, %error, "cannot record the part of the answer that was read");
        }
        Ok(())
    }
}

async fn complete(delivery: &Arc<Delivery>, request: Request) -> Result<Answer, Error> {
    let request = CompletionRequest::try_from(request)?;
    let call = delivery.request(&COMPLETE, &request)?;
    let make = |platform: Arc<dyn Platform>, caller| async move { platform.complete(&caller, &request).await };
    Ok(delivery.make(call, make, |_, _| {}).await?.into())
}

async fn complete_into_reply(delivery: &Arc<Delivery>, request: Request, sources: Vec<Hit>) -> Result<Answer, Error> {
    let target = target(delivery)?;
    let request = CompletionRequest::try_from(request)?;
    check_values("sources", sources.iter().filter_map(|hit| hit.metadata.as_deref()))?;
    let sources = sources.into_iter().map(platform::Hit::try_from).collect::<Result<Vec<_>, _>>()?;
    let call = delivery.request(&COMPLETE_INTO_REPLY, &(&request, &sources))?;
    let (chat_id, message_id) = (target.chat_id.clone(), target.assistant_message_id.clone());
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.complete_into(&caller, &target, &request, &sources).await
    };
    let StreamedAnswer { completion, unwritten } = delivery.make(call, make, |_, _| {}).await?;
    // The platform may have written the text; the reply still has to be marked as final.
    let change = MessageChange { completed: true, ..unwritten.unwrap_or_default() };
    let text = change.text.clone();
    let call = delivery.request(&REPLY, &"completed")?;
    let make = move |platform: Arc<dyn Platform>, caller| async move {
        platform.modify_message(&caller, &chat_id, &message_id, &change).await
    };
    let apply = |progress: &mut Progress, _: &platform::Message| {
        progress.reply.completed = true;
        if text.is_some() {
            progress.reply.text = text;
        }
    };
    delivery.make(call, make, apply).await?;
    Ok(completion.into())
}

async fn start(delivery: &Arc<Delivery>, request: Request) -> Result<Tokens, Error> {
    Ok(Tokens::start(delivery, CompletionRequest::try_from(request)?).await?)
}

fn target(delivery: &Delivery) -> Result<StreamTarget, CallError> {
    match &delivery.event.subject {
        modhost_core::event::Subject::ModuleChosen(chosen) => Ok(StreamTarget {
            chat_id: chosen.chat_id.clone(),
            assistant_id: chosen.assistant_id.clone(),
            user_message_id: chosen.user_message.id.clone(),
            assistant_message_id: chosen.assistant_message_id.clone(),
        }),
        _ => Err(CallError::new(
            ErrorKind::Unsupported,
            format!("an event `{}` has no reply to stream into", delivery.event.name),
        )),
    }
}

impl TryFrom<Request> for CompletionRequest {
    type Error = Error;

    fn try_from(request: Request) -> Result<Self, Error> {
        if request.messages.is_empty() {
            return Err(Error::Invalid("`messages` is empty: add at least one message".into()));
        }
        if request.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err(Error::Invalid("`temperature` has to be from 0 to 2".into()));
        }
        Ok(Self {
            model: request.model,
            messages: request
                .messages
                .into_iter()
                .map(|message| ModelMessage { role: message.role.into(), content: message.content })
                .collect(),
            temperature: request.temperature,
            max_tokens: request.max_tokens,
            options: object("options", request.options)?,
            timeout: request.timeout_ms.map(|ms| Duration::from_millis(ms.into())),
        })
    }
}

impl From<Completion> for Answer {
    fn from(completion: Completion) -> Self {
        Self {
            text: completion.text,
            finish_reason: completion.finish_reason,
            usage: completion
                .usage
                .map(|usage| Usage { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens }),
        }
    }
}
