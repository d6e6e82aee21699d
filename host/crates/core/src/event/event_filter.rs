//! The filter that selects a module's events, and the reasons for rejecting the others.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::{Event, Name};
use crate::json::{self, Document};
use crate::text::truncate;

/// The maximum length of a displayed field value, in characters.
const MAX_SHOWN: usize = 200;

/// The events that a module wants. An empty list doesn't restrict the selection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFilter {
    /// The event names; never empty.
    pub events: Vec<NamePattern>,
    /// The sources.
    pub sources: Vec<Name>,
    /// The tenants.
    pub tenants: Vec<Name>,
    /// The platform's ids of the assistants (spaces). An event without an assistant doesn't match.
    pub assistants: Vec<String>,
    /// For each field of the payload, the accepted values.
    pub fields: BTreeMap<Path, Vec<Value>>,
}

/// A pattern of event names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// This name only.
    Exact(String),
    /// Names with this prefix: `unique.chat.*` in modules.toml.
    Prefix(String),
}

/// The path to a field of the payload: keys separated by dots. In a list, the key is the position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

/// An event to be matched against modules. Its payload is parsed once at most, and only if a filter reads a field.
pub struct Candidate<'a> {
    event: &'a Event,
    payload: OnceCell<Document<'a>>,
    own_modules: Option<&'a BTreeSet<String>>,
}

/// A module as events name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleId<'a> {
    /// The name on the platform: that of the settings file, without the tenant of an included file.
    pub platform_name: &'a str,
    /// Whether an included file has the module, so that it serves the tenant of that file only.
    pub is_own: bool,
}

impl<'a> ModuleId<'a> {
    /// Returns the id of a module of `modules.toml`.
    pub fn shared(platform_name: &'a str) -> Self {
        Self { platform_name, is_own: false }
    }
}

/// The reason a module doesn't receive an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    /// The module doesn't want events of this name.
    Name,
    /// The event names another module.
    OtherModule(String),
    /// The event names this module, and the event's tenant has a module of that name in its own file.
    OwnModule(String),
    /// The event is for a single module, but its name cannot be read.
    UnreadableModule,
    /// The module doesn't want events from this source.
    Source,
    /// The module doesn't serve this tenant.
    Tenant,
    /// The module doesn't want events of this assistant.
    Assistant,
    /// A field of the payload is missing or has an unwanted value, given as JSON and truncated.
    Field(Path, Option<String>),
}

impl NamePattern {
    /// Returns whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix),
        }
    }
}

/// As written in modules.toml.
impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Path {
    /// Parses a path; `None` if a key is empty.
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
    /// Prepares an event for matching.
    pub fn new(event: &'a Event) -> Self {
        Self { event, payload: OnceCell::new(), own_modules: None }
    }

    /// Sets the names on the platform of the modules in the own file of the event's tenant. An event that names one of
    /// them is for that module, and not for the one of that name in `modules.toml`.
    #[must_use]
    pub fn with_own_modules(self, own_modules: Option<&'a BTreeSet<String>>) -> Self {
        Self { own_modules, ..self }
    }

    fn tenant_has_own(&self, platform_name: &str) -> bool {
        self.own_modules.is_some_and(|names| names.contains(platform_name))
    }

    /// Returns the value at a path in the payload, whatever the rest of the payload looks like.
    fn find(&self, path: &Path) -> Option<json::Value<'a>> {
        let payload = self.payload.get_or_init(|| {
            // An event's payload is strict JSON, so this doesn't fail.
            Document::read(self.event.payload().as_bytes()).unwrap_or_else(|_| Document::new(json::Value::NULL))
        });
        payload.find(path.keys()).map(|found| found.value)
    }
}

impl EventFilter {
    /// Checks whether a module receives an event.
    ///
    /// # Errors
    ///
    /// Returns the first reason why it doesn't.
    pub fn check(&self, module: ModuleId<'_>, candidate: &Candidate<'_>) -> Result<(), Mismatch> {
        let event = candidate.event;
        let require = |wanted: bool, reason: Mismatch| if wanted { Ok(()) } else { Err(reason) };
        require(self.events.iter().any(|pattern| pattern.matches(&event.name)), Mismatch::Name)?;
        match event.module() {
            Some(chosen) if chosen != module.platform_name => return Err(Mismatch::OtherModule(chosen.to_owned())),
            Some(chosen) if !module.is_own && candidate.tenant_has_own(chosen) => {
                return Err(Mismatch::OwnModule(chosen.to_owned()));
            }
            // An event for a single module, whose name cannot be read, must not go to every module.
            None if event.is_for_one_module() => return Err(Mismatch::UnreadableModule),
            _ => {}
        }
        require(self.sources.is_empty() || self.sources.contains(&event.source), Mismatch::Source)?;
        require(self.tenants.is_empty() || self.tenants.contains(&event.tenant), Mismatch::Tenant)?;
        let is_listed = |assistant: &str| self.assistants.iter().any(|wanted| wanted == assistant);
        let is_wanted = match event.assistant_id() {
            Some(assistant) => is_listed(assistant),
            // The event names this module, but its assistant cannot be read: no other module would answer it.
            None => event.is_for_one_module() && event.parse_error().is_some(),
        };
        require(self.assistants.is_empty() || is_wanted, Mismatch::Assistant)?;
        for (path, wanted) in &self.fields {
            let found = candidate.find(path);
            if !found.is_some_and(|found| wanted.iter().any(|wanted| found.equals(wanted))) {
                return Err(Mismatch::Field(path.clone(), found.map(format_value)));
            }
        }
        Ok(())
    }
}

/// Formats a value for display.
fn format_value(value: json::Value<'_>) -> String {
    truncate(&value.to_strict(), MAX_SHOWN).into_owned()
}
