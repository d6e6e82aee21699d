//! The Rust SDK for modhost modules. A module is a function that handles an event.
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
//! Build it as a `cdylib` for `wasm32-wasip2`. The result is a component that the host runs once for each event.
//!
//! - [`module!`](crate::module!) exports the function. [`event`] has the types it can take as its argument; [`nexus`]
//!   and [`archivus`] have the events of other systems.
//! - [`Step`] shows progress to the user, [`Search`] searches the knowledge base, [`Completion`] calls a language
//!   model, and [`messages`] writes the reply.
//! - [`Store`] keeps values between events, and [`http`] sends requests to hosts that the operator allows.
//! - [`config`] reads the module's settings. [`info!`] and the other macros write to the operators' log.
//! - `?` works on every call and on any other error: see [`Failure`].
//!
//! A module never says for whom it acts: every call acts on the event that is being handled.
//!
//! The crate also builds for your own machine, so `cargo test` can test all code that doesn't call the host. Calls
//! panic there, because there is no host. Log lines go to standard error.

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

/// The items that almost every module uses, for `use modhost_sdk::prelude::*`.
///
/// ```
/// use modhost_sdk::prelude::*;
///
/// fn refuse(event: ModuleChosen) -> Result<()> {
///     Err(Failure::new(format!("cannot answer {}", event.user_message.text)))
/// }
/// ```
pub mod prelude {
    pub use crate::{
        Completion, Event, Failure, Hit, Json, ModuleChosen, Reference, Result, Search, Step, Store, Subject,
        UserMessageCreated, config, json, messages,
    };
    pub use crate::{critical, debug, error, info, trace, warn};
}
