//! The rules for operators' requests: which version a request means, whether the state of the module allows it, and which facts
//! it records. They are the same for a running host and an offline data directory.

use std::time::SystemTime;

use super::{ContentHash, Entry, Fact, HeldBack, ModuleState, Order, Origin, Role};
use modhost_core::event::Name;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The module has no such version.
    #[error("{0}")]
    NoVersion(String),
    /// The text names no version, or more than one.
    #[error("{0}")]
    Unclear(String),
    /// The state of the module does not allow it.
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
    pub standing: &'a ModuleState,
    /// The version that serves, or that served last.
    pub serving: Option<ContentHash>,
    /// The version on trial.
    pub tried: Option<ContentHash>,
    /// The version in the module's file, if that can be read.
    pub file: Option<ContentHash>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The version that serves alone from now on; none if the serving version stays.
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
    /// Goes back to the version that served before the current one. `history` is newest first.
    ///
    /// # Errors
    ///
    /// If there is no earlier version, the module is pinned, or a version is on trial.
    pub fn roll_back(&self, history: &[Entry]) -> Result<Decision> {
        let (name, by) = (self.module, self.by);
        if let Some((pinned, order)) = &self.standing.pinned {
            let what = format!("{name} is pinned to {pinned} by {}; unpin it, or pin another version", order.by);
            return Err(Refusal::NotNow(what));
        }
        if let Some(tried) = self.tried {
            let what = format!(
                "{tried} is on trial; `modhost modules abort {name}` ends that, and the version before goes on"
            );
            return Err(Refusal::NotNow(what));
        }
        let target = before(history, self.serving).ok_or_else(|| {
            Refusal::NoVersion(format!("there is no earlier version of {name}: none served before, or none is kept"))
        })?;
        // The version in the file is held back; if the file is gone, the version that served.
        let left = self.file.or(self.serving).filter(|hash| *hash != target);
        let held_back = left.map(|hash| HeldBack { hash, why: format!("{by} went back from it") });
        Ok(self.serve(target, Origin::Rollback, held_back.map(|it| Fact::HeldBack(Some(it))).into_iter().collect()))
    }

    /// Pins the module to a version, which [`version`](Self::version) has found.
    pub fn pin(&self, hash: ContentHash, now: SystemTime) -> Decision {
        let order = Order { by: self.by.to_owned(), at: now };
        let facts = vec![Fact::Pinned(Some((hash, order))), Fact::HeldBack(None)];
        if self.serving == Some(hash) && self.tried.is_none() {
            return Decision { serves: None, facts };
        }
        self.serve(hash, Origin::Pin, facts)
    }

    /// Makes the module follow its file again, whatever kept it from that.
    ///
    /// # Errors
    ///
    /// If it follows its file already.
    pub fn unpin(&self) -> Result<Decision> {
        if self.standing.pinned.is_none() && self.standing.held_back.is_none() {
            let what = format!("{} follows its file: it is neither pinned nor gone back", self.module);
            return Err(Refusal::NotNow(what));
        }
        Ok(Decision { serves: None, facts: vec![Fact::Pinned(None), Fact::HeldBack(None)] })
    }

    /// Loads the module's file again, although its version was refused or rolled back.
    ///
    /// # Errors
    ///
    /// If the module is pinned, or the version in its file serves or is on trial already.
    pub fn retry(&self) -> Result<Decision> {
        let name = self.module;
        if let Some((pinned, order)) = &self.standing.pinned {
            let what =
                format!("{name} is pinned to {pinned} by {}; `modhost modules unpin {name}` ends that", order.by);
            return Err(Refusal::NotNow(what));
        }
        if let Some(file) = self.file.filter(|file| self.tried == Some(*file)) {
            return Err(Refusal::NotNow(format!(
                "version {file}, which the file of {name} holds, is on trial already"
            )));
        }
        if let Some(file) = self.file.filter(|file| self.serving == Some(*file) && self.standing.held_back.is_none()) {
            return Err(Refusal::NotNow(format!("version {file}, which the file of {name} holds, serves already")));
        }
        let facts = self.standing.held_back.iter().map(|_| Fact::HeldBack(None)).collect();
        Ok(Decision { serves: None, facts })
    }

    /// Promotes the version on trial.
    ///
    /// # Errors
    ///
    /// If no version is on trial.
    pub fn promote(&self) -> Result<Decision> {
        let hash = self.on_trial()?;
        let facts = took_over(hash, promoted_by(self.by), Some(self.by.to_owned()));
        Ok(Decision { serves: Some((hash, Origin::Canary)), facts })
    }

    /// Ends the trial of a version; the serving version stays.
    ///
    /// # Errors
    ///
    /// If no version is on trial.
    pub fn abort(&self) -> Result<Decision> {
        let facts = went_back(self.on_trial()?, ended_by(self.by));
        Ok(Decision { serves: None, facts })
    }

    fn on_trial(&self) -> Result<ContentHash> {
        self.tried.ok_or_else(|| Refusal::no_trial(self.module))
    }

    /// Makes a version serve on request.
    fn serve(&self, hash: ContentHash, origin: Origin, mut facts: Vec<Fact>) -> Decision {
        if self.standing.canary.is_some() {
            facts.push(Fact::TrialOver { reason: format!("{} asked for {hash}", self.by) });
        }
        facts.push(Fact::Serves { hash, origin, by: Some(self.by.to_owned()) });
        Decision { serves: Some((hash, origin)), facts }
    }

    /// Returns the version of this module whose hash has a prefix. `history` is newest first.
    ///
    /// # Errors
    ///
    /// If there is no such version, more than one, or its component is not kept.
    pub fn version(&self, prefix: &str, history: &[Entry]) -> Result<ContentHash> {
        let (name, prefix) = (self.module, prefix.trim().to_ascii_lowercase());
        if prefix.is_empty() || !prefix.chars().all(|digit| digit.is_ascii_hexdigit()) {
            let what =
                format!("`{prefix}` is not the beginning of a hash; `modhost modules history {name}` lists them");
            return Err(Refusal::Unclear(what));
        }
        let mut found: Vec<(ContentHash, bool)> = history.iter().map(|entry| (entry.hash, entry.kept)).collect();
        found.extend(self.file.map(|file| (file, true)));
        found.retain(|(hash, _)| hash.in_full().starts_with(&prefix));
        // Of a version that is listed twice, the entry with the component.
        found.sort_by_key(|(hash, kept)| (*hash, !kept));
        found.dedup_by_key(|(hash, _)| *hash);
        match &found[..] {
            [(hash, true)] => Ok(*hash),
            [(hash, false)] => Err(Refusal::NoVersion(format!(
                "version {hash} of {name} is known, but its component is not kept: it couldn't serve, or it was so long ago"
            ))),
            [] => Err(Refusal::NoVersion(format!(
                "{name} has no version that begins with {prefix}; `modhost modules history {name}` lists them"
            ))),
            several => {
                let several: Vec<String> = several.iter().map(|(hash, _)| hash.to_string()).collect();
                let what = format!("more than one version of {name} begins with {prefix}: {}", several.join(", "));
                Err(Refusal::Unclear(what))
            }
        }
    }
}

/// Returns the reason of a trial that an operator ended by promoting the version.
pub fn promoted_by(by: &str) -> String {
    format!("{by} promoted it")
}

/// Returns the reason of a trial that an operator aborted.
pub fn ended_by(by: &str) -> String {
    format!("{by} ended its trial")
}

/// Returns the facts to record when the version on trial serves from now on.
pub fn took_over(hash: ContentHash, reason: String, by: Option<String>) -> Vec<Fact> {
    vec![Fact::TrialOver { reason }, Fact::Serves { hash, origin: Origin::Canary, by }]
}

/// Returns the facts to record when the trial of a version fails, and its file must not bring it back.
pub fn went_back(hash: ContentHash, why: String) -> Vec<Fact> {
    vec![Fact::TrialOver { reason: why.clone() }, Fact::HeldBack(Some(HeldBack { hash, why }))]
}

/// Returns the version that served before the current one first did, so that two rollbacks go back two versions.
fn before(history: &[Entry], now: Option<ContentHash>) -> Option<ContentHash> {
    let served: Vec<&Entry> = history.iter().filter(|entry| entry.role == Role::Serving).collect();
    let taken = |entry: &&Entry| Some(entry.hash) == now && !matches!(entry.origin, Origin::Rollback | Origin::Pin);
    let from = served.iter().position(taken).unwrap_or(0);
    let mut earlier = served.into_iter().skip(from).filter(|entry| Some(entry.hash) != now && entry.kept);
    earlier.next().map(|entry| entry.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: u8, origin: Origin) -> Entry {
        Entry {
            hash: ContentHash::of(&[name]),
            role: Role::Serving,
            origin,
            by: None,
            began: SystemTime::UNIX_EPOCH,
            ended: None,
            reason: None,
            kept: true,
        }
    }

    #[test]
    fn goes_back_two_versions_by_two_rollbacks() {
        let of = |name: u8| Some(ContentHash::of(&[name]));
        let mut history = vec![entry(b'c', Origin::File), entry(b'b', Origin::Canary), entry(b'a', Origin::File)];
        assert_eq!(before(&history, of(b'c')), of(b'b'));
        history.insert(0, entry(b'b', Origin::Rollback));
        assert_eq!(before(&history, of(b'b')), of(b'a'));
        history.insert(0, entry(b'a', Origin::Rollback));
        assert_eq!(before(&history, of(b'a')), None, "there was none before the first");
        // The same file, deployed again, starts over.
        history.insert(0, entry(b'b', Origin::File));
        assert_eq!(before(&history, of(b'b')), of(b'a'));
    }

    #[test]
    fn skips_versions_that_are_not_kept_or_never_served() {
        let of = |name: u8| Some(ContentHash::of(&[name]));
        let refused = Entry { role: Role::Refused, ..entry(b'x', Origin::File) };
        let gone = Entry { kept: false, ..entry(b'b', Origin::File) };
        let history = vec![entry(b'c', Origin::File), refused, gone, entry(b'a', Origin::File)];
        assert_eq!(before(&history, of(b'c')), of(b'a'));
        // Pinned to a version that never came from the file: the one that served before.
        assert_eq!(before(&history, of(b'p')), of(b'c'));
    }
}
