//! The same components on Wasmtime alone: with the engine's settings, a minimal store, and host functions that return
//! constants. The difference to a delivery is the cost of the host.

use std::path::Path;

use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Engine, Result, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::platform::{ANSWER, HITS, PASSAGE, STEP_ID};
use bindings::modhost::module::{completion, events, message_log, messages, search, types};
use bindings::wasi::config::store;
use bindings::wasi::logging::logging;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "module",
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

pub use events::Event;

/// Links the imports of the benchmark's guests.
fn link(linker: &mut Linker<State>) -> Result<()> {
    types::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    events::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    message_log::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    messages::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    search::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    completion::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    logging::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    store::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

/// Never reached: no thread advances the epoch here.
const NO_DEADLINE: u64 = 1 << 40;

/// A component, ready to be instantiated.
pub struct Bare {
    engine: Engine,
    world: bindings::ModulePre<State>,
}

/// The data of an instance.
pub struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Bare {
    /// Compiles a component for a pool of this many instances.
    pub fn new(component: &Path, instances: usize) -> Result<Self> {
        let engine = Engine::new(&modhost_runtime::engine::wasmtime_config(Some(instances)))?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        link(&mut linker)?;
        let component = Component::from_file(&engine, component)?;
        let world = bindings::ModulePre::new(linker.instantiate_pre(&component)?)?;
        Ok(Self { engine, world })
    }

    /// Creates an instance, calls it once and drops it.
    pub async fn run(&self, event: &Event) -> Result<std::result::Result<(), events::Failure>> {
        let (mut store, instance) = self.instance().await?;
        instance.call_handle(&mut store, event).await
    }

    /// Creates an instance.
    pub async fn instance(&self) -> Result<(Store<State>, bindings::Module)> {
        let state = State { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(&self.engine, state);
        store.set_epoch_deadline(NO_DEADLINE);
        let instance = self.world.instantiate_async(&mut store).await?;
        Ok((store, instance))
    }
}

/// Converts an event to the guest's type, once for all calls.
pub fn guest_event(event: &modhost_core::event::Event) -> Event {
    use modhost_core::event::Subject;
    let subject = match &event.subject {
        Subject::ModuleChosen(chosen) => events::Subject::ModuleChosen(events::ModuleChosen {
            name: chosen.name.clone(),
            description: chosen.description.clone(),
            configuration: chosen.configuration.to_string(),
            chat_id: chosen.chat_id.clone(),
            assistant_id: chosen.assistant_id.clone(),
            user_message: events::UserMessage {
                id: chosen.user_message.id.clone(),
                text: chosen.user_message.text.clone(),
                original_text: chosen.user_message.original_text.clone(),
                language: chosen.user_message.language.clone(),
                created_at: chosen.user_message.created_at.clone(),
            },
            assistant_message_id: chosen.assistant_message_id.clone(),
        }),
        _ => events::Subject::Other,
    };
    Event {
        id: event.id.clone(),
        source: event.source.to_string(),
        name: event.name.clone(),
        created_at: event.created_at,
        attempt: 1,
        subject,
        payload: event.payload().to_owned(),
    }
}

type Answer<T> = Result<std::result::Result<T, types::Error>>;

impl types::Host for State {}
impl events::Host for State {}
impl message_log::Host for State {}

impl message_log::HostEntry for State {
    async fn create(&mut self, _: String, _: message_log::Status) -> Answer<Resource<message_log::Entry>> {
        Ok(Ok(Resource::new_own(1)))
    }

    async fn update(&mut self, _: Resource<message_log::Entry>, _: message_log::Change) -> Answer<()> {
        Ok(Ok(()))
    }

    async fn id(&mut self, _: Resource<message_log::Entry>) -> Result<String> {
        Ok(STEP_ID.into())
    }

    async fn drop(&mut self, _: Resource<message_log::Entry>) -> Result<()> {
        Ok(())
    }
}

impl messages::Host for State {
    async fn reply(&mut self, _: messages::Change) -> Answer<messages::Message> {
        Ok(Ok(message()))
    }

    async fn show(&mut self, _: String) -> Answer<()> {
        Ok(Ok(()))
    }

    async fn create(&mut self, _: messages::Change) -> Answer<messages::Message> {
        Ok(Ok(message()))
    }

    async fn modify(&mut self, _: String, _: messages::Change) -> Answer<messages::Message> {
        Ok(Ok(message()))
    }

    async fn history(&mut self, _: Option<u32>) -> Answer<Vec<messages::Message>> {
        Ok(Ok(Vec::new()))
    }
}

impl search::Host for State {
    async fn search(&mut self, _: search::Query) -> Answer<Vec<search::Hit>> {
        Ok(Ok((0..HITS).map(hit).collect()))
    }
}

impl completion::Host for State {
    async fn complete(&mut self, _: completion::Request) -> Answer<completion::Answer> {
        Ok(Ok(answer()))
    }

    async fn complete_into_reply(&mut self, _: completion::Request, _: Vec<search::Hit>) -> Answer<completion::Answer> {
        Ok(Ok(answer()))
    }

    async fn stream(&mut self, _: completion::Request) -> Answer<Resource<completion::Tokens>> {
        Ok(Ok(Resource::new_own(1)))
    }
}

impl completion::HostTokens for State {
    async fn next(&mut self, _: Resource<completion::Tokens>) -> Answer<Option<String>> {
        Ok(Ok(None))
    }

    async fn drop(&mut self, _: Resource<completion::Tokens>) -> Result<()> {
        Ok(())
    }
}

impl logging::Host for State {
    async fn log(&mut self, _: logging::Level, _: String, _: String) -> Result<()> {
        Ok(())
    }
}

impl store::Host for State {
    async fn get(&mut self, _: String) -> Result<std::result::Result<Option<String>, store::Error>> {
        Ok(Ok(None))
    }

    async fn get_all(&mut self) -> Result<std::result::Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(Vec::new()))
    }
}

fn message() -> messages::Message {
    messages::Message {
        id: "msg_2".into(),
        role: types::Role::Assistant,
        text: Some(ANSWER.into()),
        references: Vec::new(),
        created_at: None,
    }
}

fn answer() -> completion::Answer {
    completion::Answer {
        text: ANSWER.into(),
        finish_reason: Some("stop".into()),
        usage: Some(completion::Usage { prompt_tokens: 400, completion_tokens: 20 }),
    }
}

fn hit(order: u32) -> search::Hit {
    search::Hit {
        id: "cont_travel_policy".into(),
        chunk_id: "chunk_1".into(),
        text: PASSAGE.into(),
        title: Some("Travel policy".into()),
        key: Some("travel-policy.md".into()),
        url: None,
        order,
        start_page: None,
        end_page: None,
        metadata: None,
    }
}
