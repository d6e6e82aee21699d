//! Write modhost modules in Rust: an ordinary function that takes an event and answers it.
//!
//! ```no_run
//! use modhost_sdk::prelude::*;
//!
//! modhost_sdk::module!(answer);
//!
//! fn answer(event: ModuleChosen) -> Result<()> {
//!     let question = &event.user_message.text;
//!
//!     let step = Step::start("Searching knowledge base…")?;
//!     let hits = Search::new(question).combined().limit(3).run()?;
//!     step.text(format!("Found {}", hits.len())).done()?;
//!
//!     let passages: String = hits.iter().map(|hit| format!("{}\n\n", hit.text)).collect();
//!     let answer = Completion::new().system(passages).user(question).temperature(0.3).run()?;
//!     messages::reply(answer.text).citing(&hits).complete()?;
//!     Ok(())
//! }
//! ```
//!
//! Build it as a `cdylib` for `wasm32-wasip2`; the result is a component that the host runs once for each event.
//!
//! - [`module!`](crate::module!) names the function; [`event`] is what it may take, [`nexus`] and [`archivus`] are events of
//!   other systems.
//! - [`Step`] shows the user what is being done, [`Search`] asks the knowledge base, [`Completion`] a language model,
//!   and [`messages`] writes the reply.
//! - [`Store`] keeps values from one event to the next, and [`http`] sends requests where the operator allows it.
//! - [`config`] reads the module's settings; [`info!`] and its like write to the operators' log.
//! - `?` works on every call, and on any other error: see [`Failure`].
//!
//! Who is acted for is not a module's to say: every call acts on the event that is being answered.
//!
//! The crate also builds for the machine you work on, so that what your module does besides calling the host can be
//! tested with `cargo test`. There, calls panic, as there is no host to answer them; logging goes to standard error.

pub mod archivus;
#[doc(hidden)]
pub mod bindings;
mod bindings_http;
pub mod completion;
pub mod config;
mod error;
pub mod event;
mod failure;
pub mod http;
mod json;
pub mod keyvalue;
pub mod log;
pub mod messages;
#[doc(hidden)]
pub mod module;
pub mod nexus;
mod reference;
pub mod search;
mod step;

pub use completion::Completion;
pub use error::{Error, ErrorKind};
pub use event::{Event, FromEvent, ModuleChosen, Subject, UserMessage, UserMessageCreated};
pub use failure::{Failure, Result, Retry};
pub use json::Json;
pub use keyvalue::Store;
pub use messages::Role;
pub use reference::Reference;
pub use search::{Hit, Search};
pub use serde_json::json;
pub use step::Step;

/// What almost every module uses, for `use modhost_sdk::prelude::*`.
///
/// ```
/// use modhost_sdk::prelude::*;
///
/// fn refuse(event: ModuleChosen) -> Result<()> {
///     Err(Failure::new(format!("nobody taught me to answer {}", event.user_message.text)))
/// }
/// ```
pub mod prelude {
    pub use crate::{
        Completion, Event, Failure, Hit, Json, ModuleChosen, Reference, Result, Search, Step, Store, Subject,
        UserMessageCreated, config, json, messages,
    };
    pub use crate::{critical, debug, error, info, trace, warn};
}
