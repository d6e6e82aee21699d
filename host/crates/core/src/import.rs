//! The names of the calls that a module can make.
//!
//! A name consists of the interface and the function: `messages.reply`. Call logs, metrics, the admin API and tests of
//! modules use these names. They are on disk and on the wire, so they never change.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A call that this version of the host knows, or an entry that the host itself adds to a call log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Import {
    /// `search.search`
    SearchSearch,
    /// `completion.complete`
    CompletionComplete,
    /// `completion.complete-into-reply`
    CompletionCompleteIntoReply,
    /// `completion.stream`
    CompletionStream,
    /// `messages.reply`
    MessagesReply,
    /// `messages.show`
    MessagesShow,
    /// `messages.create`
    MessagesCreate,
    /// `messages.modify`
    MessagesModify,
    /// `messages.history`
    MessagesHistory,
    /// `message-log.entry.create`
    MessageLogEntryCreate,
    /// `message-log.entry.update`
    MessageLogEntryUpdate,
    /// `keyvalue.get`
    KeyValueGet,
    /// `keyvalue.get-many`
    KeyValueGetMany,
    /// `keyvalue.exists`
    KeyValueExists,
    /// `keyvalue.list-keys`
    KeyValueListKeys,
    /// `keyvalue.set`
    KeyValueSet,
    /// `keyvalue.set-many`
    KeyValueSetMany,
    /// `keyvalue.delete`
    KeyValueDelete,
    /// `keyvalue.delete-many`
    KeyValueDeleteMany,
    /// `keyvalue.increment`
    KeyValueIncrement,
    /// `keyvalue.cas.new`
    KeyValueCasNew,
    /// `keyvalue.swap`
    KeyValueSwap,
    /// `wasi:http.handle`
    HttpHandle,
    /// `wasi:clocks`: readings of the clocks, several in one entry. Not a call.
    Clocks,
    /// `modhost:kept-aside`: results removed when the call log was truncated, kept for reuse. Not a call.
    KeptAside,
}

impl Import {
    /// All names, calls first.
    pub const ALL: [Self; 25] = [
        Self::SearchSearch,
        Self::CompletionComplete,
        Self::CompletionCompleteIntoReply,
        Self::CompletionStream,
        Self::MessagesReply,
        Self::MessagesShow,
        Self::MessagesCreate,
        Self::MessagesModify,
        Self::MessagesHistory,
        Self::MessageLogEntryCreate,
        Self::MessageLogEntryUpdate,
        Self::KeyValueGet,
        Self::KeyValueGetMany,
        Self::KeyValueExists,
        Self::KeyValueListKeys,
        Self::KeyValueSet,
        Self::KeyValueSetMany,
        Self::KeyValueDelete,
        Self::KeyValueDeleteMany,
        Self::KeyValueIncrement,
        Self::KeyValueCasNew,
        Self::KeyValueSwap,
        Self::HttpHandle,
        Self::Clocks,
        Self::KeptAside,
    ];

    /// Returns the name on disk and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SearchSearch => "search.search",
            Self::CompletionComplete => "completion.complete",
            Self::CompletionCompleteIntoReply => "completion.complete-into-reply",
            Self::CompletionStream => "completion.stream",
            Self::MessagesReply => "messages.reply",
            Self::MessagesShow => "messages.show",
            Self::MessagesCreate => "messages.create",
            Self::MessagesModify => "messages.modify",
            Self::MessagesHistory => "messages.history",
            Self::MessageLogEntryCreate => "message-log.entry.create",
            Self::MessageLogEntryUpdate => "message-log.entry.update",
            Self::KeyValueGet => "keyvalue.get",
            Self::KeyValueGetMany => "keyvalue.get-many",
            Self::KeyValueExists => "keyvalue.exists",
            Self::KeyValueListKeys => "keyvalue.list-keys",
            Self::KeyValueSet => "keyvalue.set",
            Self::KeyValueSetMany => "keyvalue.set-many",
            Self::KeyValueDelete => "keyvalue.delete",
            Self::KeyValueDeleteMany => "keyvalue.delete-many",
            Self::KeyValueIncrement => "keyvalue.increment",
            Self::KeyValueCasNew => "keyvalue.cas.new",
            Self::KeyValueSwap => "keyvalue.swap",
            Self::HttpHandle => "wasi:http.handle",
            Self::Clocks => "wasi:clocks",
            Self::KeptAside => "modhost:kept-aside",
        }
    }

    /// Returns the interface of a call. Entries that the host itself adds have none.
    pub fn interface(self) -> Option<Interface> {
        Some(match self {
            Self::SearchSearch => Interface::Search,
            Self::CompletionComplete | Self::CompletionCompleteIntoReply | Self::CompletionStream => {
                Interface::Completion
            }
            Self::MessagesReply
            | Self::MessagesShow
            | Self::MessagesCreate
            | Self::MessagesModify
            | Self::MessagesHistory => Interface::Messages,
            Self::MessageLogEntryCreate | Self::MessageLogEntryUpdate => Interface::MessageLog,
            Self::KeyValueGet
            | Self::KeyValueGetMany
            | Self::KeyValueExists
            | Self::KeyValueListKeys
            | Self::KeyValueSet
            | Self::KeyValueSetMany
            | Self::KeyValueDelete
            | Self::KeyValueDeleteMany
            | Self::KeyValueIncrement
            | Self::KeyValueCasNew
            | Self::KeyValueSwap => Interface::KeyValue,
            Self::HttpHandle => Interface::Http,
            Self::Clocks | Self::KeptAside => return None,
        })
    }

    /// Returns whether modules make this call. The host itself writes the other entries.
    pub fn is_call(self) -> bool {
        !matches!(self, Self::Clocks | Self::KeptAside)
    }
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An interface whose calls are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// `search`
    Search,
    /// `completion`
    Completion,
    /// `messages`
    Messages,
    /// `message-log`
    MessageLog,
    /// `keyvalue`
    KeyValue,
    /// `wasi:http`
    Http,
}

impl Interface {
    /// All interfaces, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::Search, Self::Completion, Self::Messages, Self::MessageLog, Self::KeyValue, Self::Http];

    /// Returns the name: the part of an import's name before the first dot.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Completion => "completion",
            Self::Messages => "messages",
            Self::MessageLog => "message-log",
            Self::KeyValue => "keyvalue",
            Self::Http => "wasi:http",
        }
    }
}

/// A name that this version of the host doesn't know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no call has this name")]
pub struct UnknownImport;

impl FromStr for Import {
    type Err = UnknownImport;

    fn from_str(name: &str) -> Result<Self, UnknownImport> {
        Self::ALL.into_iter().find(|import| import.as_str() == name).ok_or(UnknownImport)
    }
}

impl Serialize for Import {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The name of a recorded call. Another version of the host may have written it, so this version may not know the name.
/// An unknown name is preserved and matches no call of this version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordedImport(Result<Import, Box<str>>);

impl RecordedImport {
    /// Returns the call, if this version knows it.
    pub fn known(&self) -> Option<Import> {
        self.0.as_ref().ok().copied()
    }

    /// Returns the name on disk and on the wire.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Ok(import) => import.as_str(),
            Err(name) => name,
        }
    }

    /// Returns the part of the name before the first dot: `messages`, `wasi:http`.
    pub fn interface(&self) -> &str {
        let name = self.as_str();
        name.split_once('.').map_or(name, |(interface, _)| interface)
    }

    /// Returns whether a module made this call. The names of the host's own entries begin with `modhost:`.
    pub fn is_call(&self) -> bool {
        match &self.0 {
            Ok(import) => import.is_call(),
            Err(name) => !name.starts_with("modhost:"),
        }
    }
}

impl From<Import> for RecordedImport {
    fn from(import: Import) -> Self {
        Self(Ok(import))
    }
}

impl From<&str> for RecordedImport {
    fn from(name: &str) -> Self {
        Self(name.parse().map_err(|UnknownImport| name.into()))
    }
}

impl From<String> for RecordedImport {
    fn from(name: String) -> Self {
        Self(name.parse().map_err(|UnknownImport| name.into()))
    }
}

impl PartialEq<Import> for RecordedImport {
    fn eq(&self, import: &Import) -> bool {
        self.known() == Some(*import)
    }
}

impl fmt::Display for RecordedImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for RecordedImport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RecordedImport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// These names are in existing journals: after a change, no delivery would find its recorded call.
    #[test]
    fn keeps_every_name_byte_for_byte() {
        let names = Import::ALL.map(Import::as_str).join(" ");
        assert_eq!(
            names,
            "search.search completion.complete completion.complete-into-reply completion.stream messages.reply \
             messages.show messages.create messages.modify messages.history message-log.entry.create \
             message-log.entry.update keyvalue.get keyvalue.get-many keyvalue.exists keyvalue.list-keys keyvalue.set \
             keyvalue.set-many keyvalue.delete keyvalue.delete-many keyvalue.increment keyvalue.cas.new keyvalue.swap \
             wasi:http.handle wasi:clocks modhost:kept-aside"
        );
    }

    #[test]
    fn every_call_has_an_interface() {
        for import in Import::ALL {
            let name = RecordedImport::from(import);
            let expected = import.is_call().then(|| name.interface());
            assert_eq!(import.interface().map(Interface::as_str), expected, "{import}");
        }
    }

    #[test]
    fn reads_every_name_back() {
        for import in Import::ALL {
            assert_eq!(import.as_str().parse(), Ok(import));
            assert_eq!(RecordedImport::from(import.as_str()), RecordedImport::from(import));
        }
        assert_eq!(Import::ALL.into_iter().collect::<HashSet<_>>().len(), Import::ALL.len());
    }

    #[test]
    fn keeps_a_name_of_another_version() {
        let json = r#""search.guess""#;
        let recorded: RecordedImport = serde_json::from_str(json).unwrap();
        assert_eq!((recorded.known(), recorded.interface(), recorded.is_call()), (None, "search", true));
        assert_eq!(serde_json::to_string(&recorded).unwrap(), json);
        assert!(!RecordedImport::from("modhost:something").is_call());
        assert_eq!(serde_json::to_string(&RecordedImport::from("messages.show")).unwrap(), r#""messages.show""#);
    }
}
