//! The messages of the chat in which the event happened.
//!
//! ```no_run
//! # use modhost_sdk::prelude::*;
//! # fn example() -> Result<()> {
//! messages::show("Let me think…")?;
//! messages::reply("Yes.").complete()?;
//! # Ok(())
//! # }
//! ```

use serde::Serialize;

use crate::bindings::modhost::module::messages as wit;
use crate::bindings::modhost::module::types;
use crate::error::Error;
use crate::json::Json;
use crate::reference::{Reference, cite};
use crate::search::Hit;

/// A message of the chat.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// for message in messages::history(10)? {
///     info!("{:?}: {}", message.role, message.text.unwrap_or_default());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// The platform's id of the message; empty if the platform doesn't report it.
    pub id: String,
    /// The author.
    pub role: Role,
    /// The text; `None` for a reply that isn't filled yet.
    pub text: Option<String>,
    /// The sources it cites.
    pub references: Vec<Reference>,
    /// When the message was written, in the platform's time format (RFC 3339).
    pub created_at: Option<String>,
}

/// The author of a message.
///
/// ```
/// use modhost_sdk::Role;
///
/// assert_ne!(Role::User, Role::Assistant);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that aren't part of the chat.
    System,
    /// A person.
    User,
    /// A module or a language model.
    Assistant,
}

/// Writes the event's reply: the assistant message that the platform created for it. Only an event that chose the
/// module has a reply.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// messages::reply("The office opens at **eight**.").complete()?;
/// # Ok(())
/// # }
/// ```
pub fn reply(text: impl Into<String>) -> Draft {
    Draft::new(Target::Reply).text(text)
}

/// Creates an assistant message in the chat, in addition to the reply.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// messages::create("By the way: the office is closed on Friday.").complete()?;
/// # Ok(())
/// # }
/// ```
pub fn create(text: impl Into<String>) -> Draft {
    Draft::new(Target::New).text(text)
}

/// Changes an assistant message in the chat, by its id, for example one that [`create`] returned.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let message = messages::create("Counting…").save()?;
/// messages::modify(&message.id).text("Ten.").complete()?;
/// # Ok(())
/// # }
/// ```
pub fn modify(id: impl Into<String>) -> Draft {
    Draft::new(Target::Existing(id.into()))
}

/// Shows a text in place of the reply while the module works on the answer. Nothing is stored: the text is gone after
/// the user reloads the page.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// messages::show("Half way through…")?;
/// # Ok(())
/// # }
/// ```
pub fn show(text: impl AsRef<str>) -> Result<(), Error> {
    wit::show(text.as_ref()).map_err(Error::of("messages.show"))
}

/// Returns the newest messages of the chat, oldest first: at most `limit`, or all for `None`. They include the message
/// being answered and the empty reply.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let latest = messages::history(10)?;
/// let all = messages::history(None)?;
/// # Ok(())
/// # }
/// ```
pub fn history(limit: impl Into<Option<u32>>) -> Result<Vec<Message>, Error> {
    let messages = wit::history(limit.into()).map_err(Error::of("messages.history"))?;
    Ok(messages.into_iter().map(Into::into).collect())
}

/// A message to be written. [`reply`], [`create`] and [`modify`] create a draft; [`complete`](Draft::complete) or
/// [`save`](Draft::save) sends it. Fields that aren't set leave an existing message unchanged.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example(hits: Vec<Hit>) -> Result<()> {
/// messages::reply("Book early [source0].")
///     .citing(&hits)
///     .debug_info(json!({ "hits": hits.len() }))
///     .complete()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "the message is not written until `complete` or `save` is called"]
pub struct Draft {
    target: Target,
    text: Option<String>,
    references: Vec<Reference>,
    /// The sources that the text may cite; `None` if its citations aren't parsed.
    sources: Option<Vec<Reference>>,
    debug_info: Option<Json>,
}

#[derive(Clone, Debug)]
enum Target {
    Reply,
    New,
    Existing(String),
}

impl Draft {
    fn new(target: Target) -> Self {
        Self { target, text: None, references: Vec::new(), sources: None, debug_info: None }
    }

    /// Sets the text, in Markdown.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(id: &str) -> Result<()> {
    /// messages::modify(id).text("Ten.").complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Adds references. `<sup>1</sup>` in the text refers to the reference with the sequence number 1.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(hits: Vec<Hit>) -> Result<()> {
    /// messages::reply("Book early.<sup>1</sup>").references([Reference::from_hit(1, &hits[0])]).complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn references(mut self, references: impl IntoIterator<Item = Reference>) -> Self {
        self.references.extend(references);
        self
    }

    /// Sets the hits that the text cites: `[source0]` in the text becomes a footnote that refers to the first hit,
    /// `[source1]` to the second, and so on. If the text cites no hit, the message references all of them. Citations of
    /// hits that don't exist are removed.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(hits: Vec<Hit>) -> Result<()> {
    /// // The user reads: Book early <sup>1</sup>, or pay more <sup>3</sup>.
    /// messages::reply("Book early [source0], or pay more [source2].").citing(&hits).complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn citing(mut self, hits: &[Hit]) -> Self {
        self.sources = Some(Reference::from_hits(hits));
        self
    }

    /// Sets debugging information, an object that the platform stores with the message.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// messages::reply("Yes.").debug_info(json!({ "rule": 7 })).complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn debug_info(mut self, info: impl Into<Json>) -> Self {
        self.debug_info = Some(info.into());
        self
    }

    /// Writes the message as the final text. Clients that wait for the answer receive it.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// messages::reply("That's all.").complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn complete(self) -> Result<Message, Error> {
        self.write(true)
    }

    /// Writes the message as an interim text.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// messages::reply("First: sit down.").save()?;
    /// messages::reply("First: sit down. Second: breathe.").complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn save(self) -> Result<Message, Error> {
        self.write(false)
    }

    fn write(mut self, completed: bool) -> Result<Message, Error> {
        let target = std::mem::replace(&mut self.target, Target::Reply);
        let change = self.into_change(completed);
        let written = match target {
            Target::Reply => wit::reply(&change).map_err(Error::of("messages.reply")),
            Target::New => wit::create(&change).map_err(Error::of("messages.create")),
            Target::Existing(id) => wit::modify(&id, &change).map_err(Error::of("messages.modify")),
        };
        written.map(Into::into)
    }

    fn into_change(self, completed: bool) -> wit::Change {
        let (text, cited) = match (self.text, self.sources) {
            (Some(text), Some(sources)) => {
                let (text, cited) = cite(&text, sources);
                (Some(text), cited)
            }
            (text, sources) => (text, sources.unwrap_or_default()),
        };
        wit::Change {
            text,
            references: self.references.into_iter().chain(cited).map(Into::into).collect(),
            debug_info: self.debug_info.map(Json::into_text),
            completed,
        }
    }
}

impl From<wit::Message> for Message {
    fn from(message: wit::Message) -> Self {
        Self {
            id: message.id,
            role: message.role.into(),
            text: message.text,
            references: message.references.into_iter().map(Into::into).collect(),
            created_at: message.created_at,
        }
    }
}

impl From<types::Role> for Role {
    fn from(role: types::Role) -> Self {
        match role {
            types::Role::System => Self::System,
            types::Role::User => Self::User,
            types::Role::Assistant => Self::Assistant,
        }
    }
}

impl From<Role> for types::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::System => Self::System,
            Role::User => Self::User,
            Role::Assistant => Self::Assistant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_citations_only_in_a_draft_with_sources() {
        let text = "As they say [source0].";
        assert_eq!(reply(text).into_change(true).text.as_deref(), Some(text));
        assert_eq!(reply(text).citing(&[]).into_change(true).text.as_deref(), Some("As they say."));
    }

    #[test]
    fn omits_fields_that_are_not_set() {
        let change = modify("msg_1").debug_info(crate::json!({ "n": 1 })).into_change(false);
        assert_eq!(change.text, None);
        assert!(change.references.is_empty());
        assert_eq!(change.debug_info.as_deref(), Some(r#"{"n":1}"#));
        assert!(!change.completed);
    }
}
