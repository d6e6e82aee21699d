//! Which events a module wants, and why not the others.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{Event, Name};
use crate::json::{self, Document};
use crate::text::truncate;

/// How much of a value is shown that a module doesn't want, in characters.
const SHOWN: usize = 200;

/// Which events a module wants. What is empty leaves nothing out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interest {
    /// By their names; never empty.
    pub events: Vec<NamePattern>,
    /// Of these sources.
    pub sources: Vec<Name>,
    /// Of these tenants.
    pub tenants: Vec<Name>,
    /// Of these assistants (spaces), in the platform's ids; an event that happened in none is left out.
    pub assistants: Vec<String>,
    /// With one of these values in each of these fields of the payload.
    pub fields: BTreeMap<Path, Vec<Value>>,
}

/// The names of some events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// This name.
    Exact(String),
    /// All that begin with this: `unique.chat.*` in modules.toml.
    Prefix(String),
}

/// The way to a field of the payload: keys with dots between them; the place of an item in a list is a key too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

/// An event that modules are asked about. Its payload is looked through once at most, and not if nobody asks.
pub struct Candidate<'a> {
    event: &'a Event,
    payload: OnceCell<Document<'a>>,
}

/// Why a module doesn't get an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Unwanted {
    /// It wants others, by name.
    Name,
    /// The event chose another module.
    ForAnother(String),
    /// The event chose a module, and can't be read which.
    ForNobody,
    /// It wants those of other sources.
    Source,
    /// It works for other tenants.
    Tenant,
    /// It wants those of other assistants.
    Assistant,
    /// A field of the payload has another value (as JSON, shortened), or isn't there.
    Field(Path, Option<String>),
}

impl NamePattern {
    /// Whether this is one of the names.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix),
        }
    }
}

/// As modules.toml has it.
impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Path {
    /// A way along these keys; none if one of them is empty.
    pub fn new(keys: &str) -> Option<Self> {
        keys.split('.').all(|key| !key.is_empty()).then(|| Self(keys.to_owned()))
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> Candidate<'a> {
    /// An event that modules are asked about.
    pub fn new(event: &'a Event) -> Self {
        Self { event, payload: OnceCell::new() }
    }

    /// What a path leads to in the payload, however odd the rest of it is.
    fn find(&self, path: &Path) -> Option<json::Value<'a>> {
        let payload = self.payload.get_or_init(|| {
            // What an event hands on is JSON that any parser takes.
            Document::read(self.event.payload().as_bytes()).unwrap_or_else(|_| Document::new(json::Value::NULL))
        });
        payload.find(path.keys()).map(|found| found.value)
    }
}

impl Interest {
    /// Whether a module of this name gets an event.
    ///
    /// # Errors
    ///
    /// The first reason why it doesn't.
    pub fn judge(&self, module: &Name, candidate: &Candidate<'_>) -> Result<(), Unwanted> {
        let event = candidate.event;
        let holds = |wanted: bool, reason: Unwanted| if wanted { Ok(()) } else { Err(reason) };
        holds(self.events.iter().any(|pattern| pattern.matches(&event.name)), Unwanted::Name)?;
        match event.module() {
            Some(chosen) if chosen != module.as_str() => return Err(Unwanted::ForAnother(chosen.to_owned())),
            // One that chose a module, and couldn't be read, is not for all of them.
            None if event.chooses() => return Err(Unwanted::ForNobody),
            _ => {}
        }
        holds(self.sources.is_empty() || self.sources.contains(&event.source), Unwanted::Source)?;
        holds(self.tenants.is_empty() || self.tenants.contains(&event.tenant), Unwanted::Tenant)?;
        let is_in = |assistant: &str| self.assistants.iter().any(|wanted| wanted == assistant);
        let is_wanted = match event.assistant_id() {
            Some(assistant) => is_in(assistant),
            // It chose this module, and where can't be read: nobody else would answer it.
            None => event.chooses() && event.flaw().is_some(),
        };
        holds(self.assistants.is_empty() || is_wanted, Unwanted::Assistant)?;
        for (path, wanted) in &self.fields {
            let found = candidate.find(path);
            if !found.is_some_and(|found| wanted.iter().any(|wanted| found.equals(wanted))) {
                return Err(Unwanted::Field(path.clone(), found.map(shown)));
            }
        }
        Ok(())
    }
}

/// A value as people are shown it.
fn shown(value: json::Value<'_>) -> String {
    truncate(&value.to_strict(), SHOWN).into_owned()
}
