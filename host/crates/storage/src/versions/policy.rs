//! The rules for operators' requests about versions. They resolve the version that a request names, check whether the
//! state of the module allows the request, and determine the facts to record. The rules are the same for a running host
//! and for an offline data directory.

use std::time::SystemTime;

use super::{ContentHash, Entry, Fact, HeldBack, ModuleState, OperatorAction, Origin, Role};
use modhost_core::event::Name;

/// The reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The module has no such version, or its component is not kept.
    #[error("{0}")]
    NoVersion(String),
    /// The text is not a prefix of a hash, or matches several versions.
    #[error("{0}")]
    Unclear(String),
    /// The state of the module does not allow the request.
    #[error("{0}")]
    NotNow(String),
}

/// A request about the versions of a module.
pub struct VersionRequest<'a> {
    /// The module.
    pub module: &'a Name,
    /// The operator.
    pub by: &'a str,
    /// The state of the module.
    pub state: &'a ModuleState,
    /// The version that serves, or that served last.
    pub serving: Option<ContentHash>,
    /// The canary.
    pub canary: Option<ContentHash>,
    /// The version in the module's file, if the file can be read.
    pub file: Option<ContentHash>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The version that serves alone from now on; `None` if the serving version does not change.
    pub serves: Option<(ContentHash, Origin)>,
    /// The facts to record.
    pub facts: Vec<Fact>,
}

type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    /// Creates the refusal of a version whose component is no longer kept.
    pub fn not_kept(hash: ContentHash) -> Self {
        Self::NoVersion(format!("the component of version {hash} is not kept any more"))
    }

    /// Creates the refusal to end a trial when there is none.
    pub fn no_trial(module: &Name) -> Self {
        Self::NotNow(format!("no version of {module} is on trial"))
    }
}

impl VersionRequest<'_> {
    /// Rolls back to the version that served before the current one. `history` is ordered newest first.
    ///
    /// # Errors
    ///
    /// If there is no earlier version, the module is pinned, or it has a canary.
    pub fn roll_back(&self, history: &[Entry]) -> Result<Decision> {
        let (name, by) = (self.module, self.by);
        if let Some((pinned, order)) = &self.state.pinned {
            let message = format!("{name} is pinned to {pinned} by {}; unpin it, or pin another version", order.by);
            return Err(Refusal::NotNow(message));
        }
        if let Some(canary) = self.canary {
            let message = format!(
                "{canary} is on trial; `modhost modules abort {name}` ends that, and the serving version stays"
            );
            return Err(Refusal::NotNow(message));
        }
        let target = version_before(history, self.serving).ok_or_else(|| {
            Refusal::NoVersion(format!("there is no earlier version of {name} that served and is kept"))
        })?;
        // Holds back the version in the file; if there is no file, the version that served.
        let left = self.file.or(self.serving).filter(|hash| *hash != target);
        let held_back = left.map(|hash| HeldBack { hash, why: format!("{by} went back from it") });
        Ok(self.serve(target, Origin::Rollback, held_back.map(|it| Fact::HeldBack(Some(it))).into_iter().collect()))
    }

    /// Pins the module to a version, as returned by [`version`](Self::version).
    pub fn pin(&self, hash: ContentHash, now: SystemTime) -> Decision {
        let order = OperatorAction { by: self.by.to_owned(), at: now };
        let facts = vec![Fact::Pinned(Some((hash, order))), Fact::HeldBack(None)];
        if self.serving == Some(hash) && self.canary.is_none() {
            return Decision { serves: None, facts };
        }
        self.serve(hash, Origin::Pin, facts)
    }

    /// Makes the module follow its file again after a pin or a rollback.
    ///
    /// # Errors
    ///
    /// If the module follows its file already.
    pub fn unpin(&self) -> Result<Decision> {
        if self.state.pinned.is_none() && self.state.held_back.is_none() {
            let message = format!("{} follows its file: it is neither pinned nor rolled back", self.module);
            return Err(Refusal::NotNow(message));
        }
        Ok(Decision { serves: None, facts: vec![Fact::Pinned(None), Fact::HeldBack(None)] })
    }

    /// Loads the module's file again, even if its version was refused or rolled back.
    ///
    /// # Errors
    ///
    /// If the module is pinned, or the version in its file already serves or is the canary.
    pub fn retry(&self) -> Result<Decision> {
        let name = self.module;
        if let Some((pinned, order)) = &self.state.pinned {
            let message =
                format!("{name} is pinned to {pinned} by {}; `modhost modules unpin {name}` ends that", order.by);
            return Err(Refusal::NotNow(message));
        }
        if let Some(file) = self.file.filter(|file| self.canary == Some(*file)) {
            return Err(Refusal::NotNow(format!(
                "version {file}, which the file of {name} contains, is on trial already"
            )));
        }
        if let Some(file) = self.file.filter(|file| self.serving == Some(*file) && self.state.held_back.is_none()) {
            return Err(Refusal::NotNow(format!("version {file}, which the file of {name} contains, serves already")));
        }
        let facts = self.state.held_back.iter().map(|_| Fact::HeldBack(None)).collect();
        Ok(Decision { serves: None, facts })
    }

    /// Promotes the canary.
    ///
    /// # Errors
    ///
    /// If there is no canary.
    pub fn promote(&self) -> Result<Decision> {
        let hash = self.on_trial()?;
        let facts = canary_promoted_facts(hash, promoted_by(self.by), Some(self.by.to_owned()));
        Ok(Decision { serves: Some((hash, Origin::Canary)), facts })
    }

    /// Aborts the canary; the serving version does not change.
    ///
    /// # Errors
    ///
    /// If there is no canary.
    pub fn abort(&self) -> Result<Decision> {
        let facts = canary_failed_facts(self.on_trial()?, aborted_by(self.by));
        Ok(Decision { serves: None, facts })
    }

    fn on_trial(&self) -> Result<ContentHash> {
        self.canary.ok_or_else(|| Refusal::no_trial(self.module))
    }

    /// Makes a version serve at the operator's request, and ends a running trial.
    fn serve(&self, hash: ContentHash, origin: Origin, mut facts: Vec<Fact>) -> Decision {
        if self.state.canary.is_some() {
            facts.push(Fact::CanaryEnded { reason: format!("{} asked for {hash}", self.by) });
        }
        facts.push(Fact::Serves { hash, origin, by: Some(self.by.to_owned()) });
        Decision { serves: Some((hash, origin)), facts }
    }

    /// Returns the version of this module whose hash has a prefix. `history` is ordered newest first.
    ///
    /// # Errors
    ///
    /// If no version or several versions match, or the component of the version is not kept.
    pub fn version(&self, prefix: &str, history: &[Entry]) -> Result<ContentHash> {
        let (name, prefix) = (self.module, prefix.trim().to_ascii_lowercase());
        if prefix.is_empty() || !prefix.chars().all(|digit| digit.is_ascii_hexdigit()) {
            let message =
                format!("`{prefix}` is not the beginning of a hash; `modhost modules history {name}` lists them");
            return Err(Refusal::Unclear(message));
        }
        let mut found: Vec<(ContentHash, bool)> =
            history.iter().map(|entry| (entry.hash, entry.has_component)).collect();
        found.extend(self.file.map(|file| (file, true)));
        found.retain(|(hash, _)| hash.to_hex().starts_with(&prefix));
        // Of several entries of a version, keeps one whose component is kept.
        found.sort_by_key(|(hash, kept)| (*hash, !kept));
        found.dedup_by_key(|(hash, _)| *hash);
        match &found[..] {
            [(hash, true)] => Ok(*hash),
            [(hash, false)] => Err(Refusal::NoVersion(format!(
                "the component of version {hash} of {name} is not kept: it couldn't serve, or newer ones replaced it"
            ))),
            [] => Err(Refusal::NoVersion(format!(
                "{name} has no version that begins with {prefix}; `modhost modules history {name}` lists them"
            ))),
            several => {
                let several: Vec<String> = several.iter().map(|(hash, _)| hash.to_string()).collect();
                let message = format!("more than one version of {name} begins with {prefix}: {}", several.join(", "));
                Err(Refusal::Unclear(message))
            }
        }
    }
}

/// Returns the reason to record for a trial that an operator ended by promoting the canary.
pub fn promoted_by(by: &str) -> String {
    format!("{by} promoted it")
}

/// Returns the reason to record for a trial that an operator aborted.
pub fn aborted_by(by: &str) -> String {
    format!("{by} ended its trial")
}

/// Returns the facts to record when the canary is promoted.
pub fn canary_promoted_facts(hash: ContentHash, reason: String, by: Option<String>) -> Vec<Fact> {
    vec![Fact::CanaryEnded { reason }, Fact::Serves { hash, origin: Origin::Canary, by }]
}

/// Returns the facts to record when a canary fails or is aborted. Its version is held back, so that the module's file
/// does not start it again.
pub fn canary_failed_facts(hash: ContentHash, why: String) -> Vec<Fact> {
    vec![Fact::CanaryEnded { reason: why.clone() }, Fact::HeldBack(Some(HeldBack { hash, why }))]
}

/// Returns the version that served before the current one first served, so that two rollbacks go back two versions.
fn version_before(history: &[Entry], now: Option<ContentHash>) -> Option<ContentHash> {
    let served: Vec<&Entry> = history.iter().filter(|entry| entry.role == Role::Serving).collect();
    let taken = |entry: &&Entry| Some(entry.hash) == now && !matches!(entry.origin, Origin::Rollback | Origin::Pin);
    let from = served.iter().position(taken).unwrap_or(0);
    let mut earlier = served.into_iter().skip(from).filter(|entry| Some(entry.hash) != now && entry.has_component);
    earlier.next().map(|entry| entry.hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versions::EntryId;

    fn entry(name: u8, origin: Origin) -> Entry {
        Entry {
            id: EntryId(0),
            hash: ContentHash::of(&[name]),
            role: Role::Serving,
            origin,
            requested_by: None,
            started_at: SystemTime::UNIX_EPOCH,
            ended_at: None,
            reason: None,
            has_component: true,
        }
    }

    #[test]
    fn goes_back_two_versions_by_two_rollbacks() {
        let of = |name: u8| Some(ContentHash::of(&[name]));
        let mut history = vec![entry(b'c', Origin::File), entry(b'b', Origin::Canary), entry(b'a', Origin::File)];
        assert_eq!(version_before(&history, of(b'c')), of(b'b'));
        history.insert(0, entry(b'b', Origin::Rollback));
        assert_eq!(version_before(&history, of(b'b')), of(b'a'));
        history.insert(0, entry(b'a', Origin::Rollback));
        assert_eq!(version_before(&history, of(b'a')), None, "no version served before the first");
        // Deploying the same file again starts a new sequence.
        history.insert(0, entry(b'b', Origin::File));
        assert_eq!(version_before(&history, of(b'b')), of(b'a'));
    }

    #[test]
    fn skips_versions_that_are_not_kept_or_never_served() {
        let of = |name: u8| Some(ContentHash::of(&[name]));
        let refused = Entry { role: Role::Refused, ..entry(b'x', Origin::File) };
        let gone = Entry { has_component: false, ..entry(b'b', Origin::File) };
        let history = vec![entry(b'c', Origin::File), refused, gone, entry(b'a', Origin::File)];
        assert_eq!(version_before(&history, of(b'c')), of(b'a'));
        // The module is pinned to a version that never came from its file: the target is the version that served last.
        assert_eq!(version_before(&history, of(b'p')), of(b'c'));
    }
}
