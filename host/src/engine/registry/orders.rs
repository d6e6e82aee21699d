//! What people may say about a module: go back, stay, wait, decide on a trial.

use std::sync::Arc;

use super::intake::Found;
use super::slot::{Serving, Slot};
use super::{Registry, Status};
use crate::clock;
use crate::engine::LoadError;
use crate::engine::version::{Spec, Version};
use crate::event::Name;
use crate::telemetry::metrics::CanaryEnd;
use crate::versions::{ContentHash, Entry, Fact, HeldBack, Order, Origin, Role, VersionsError};

/// Why something that was asked isn't done.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no module of this name.
    #[error("there is no module {0} in modules.toml; `modhost modules` lists them")]
    NoModule(Name),
    /// There is no such version of it.
    #[error("{0}")]
    NoVersion(String),
    /// What was written is no version, or more than one.
    #[error("{0}")]
    Unclear(String),
    /// It doesn't go with how the module stands.
    #[error("{0}")]
    NotNow(String),
    /// The version can't serve.
    #[error("version {0} can't serve: {1}")]
    CantServe(ContentHash, LoadError),
    /// It can't be written down.
    #[error(transparent)]
    Versions(#[from] VersionsError),
}

type Result<T> = std::result::Result<T, OrderError>;

impl Registry {
    /// Makes the version serve that did before the one that does now. The file it goes back from isn't taken again until
    /// it changes.
    ///
    /// # Errors
    ///
    /// When there is none before, or it can't serve; then nothing is changed.
    pub async fn rollback(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        slot.roll_back(by).await?;
        drop(turn);
        Ok(slot.status())
    }

    /// Makes a version serve whose hash begins like this, and stay whatever the file says.
    ///
    /// # Errors
    ///
    /// When there is no such version, more than one, or it can't serve; then nothing is changed.
    pub async fn pin(&self, module: &Name, hash: &str, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        slot.pin(hash, by).await?;
        drop(turn);
        Ok(slot.status())
    }

    /// Lets a module follow its file again, whatever kept it from that.
    ///
    /// # Errors
    ///
    /// When it does so already.
    pub async fn unpin(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        let standing = slot.standing();
        if standing.pinned.is_none() && standing.held_back.is_none() {
            return Err(OrderError::NotNow(format!("{module} follows its file: it is neither pinned nor gone back")));
        }
        slot.shared.versions.note(module, vec![Fact::Pinned(None), Fact::HeldBack(None)]).await?;
        tracing::info!(%module, "follows its file again, as {by} asked");
        slot.take_in().await;
        drop(turn);
        Ok(slot.status())
    }

    /// Makes a module's deliveries wait: those that run end, no other begins, none fails.
    ///
    /// # Errors
    ///
    /// When it can't be written down.
    pub async fn pause(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        if !slot.is_paused() {
            let order = Order { by: by.to_owned(), at: clock::now() };
            slot.shared.versions.note(module, vec![Fact::Paused(Some(order))]).await?;
            slot.set_paused(true);
            tracing::info!(%module, "is paused, as {by} asked: its deliveries wait");
        }
        Ok(slot.status())
    }

    /// Lets a module's deliveries begin again; whoever runs them has to be told.
    ///
    /// # Errors
    ///
    /// When it can't be written down.
    pub async fn resume(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        if slot.is_paused() {
            slot.shared.versions.note(module, vec![Fact::Paused(None)]).await?;
            slot.set_paused(false);
            tracing::info!(%module, "is resumed, as {by} asked: its deliveries go on");
        }
        Ok(slot.status())
    }

    /// Makes the version that is tried serve, before its time is over.
    ///
    /// # Errors
    ///
    /// When none is tried.
    pub async fn promote(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        let serving = slot.on_trial()?;
        slot.take_over(&serving, format!("{by} promoted it"), Some(by.to_owned())).await;
        drop(turn);
        Ok(slot.status())
    }

    /// Ends the trial of a version; the one before goes on alone. The file isn't taken again until it changes.
    ///
    /// # Errors
    ///
    /// When none is tried.
    pub async fn abort(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        let serving = slot.on_trial()?;
        slot.go_back(&serving, format!("{by} ended its trial"), CanaryEnd::Aborted).await;
        tracing::info!(%module, version = %serving.stable.hash(), "serves alone again, as {by} ended the trial");
        drop(turn);
        Ok(slot.status())
    }

    fn known(&self, module: &Name) -> Result<Arc<Slot>> {
        self.slots.load().get(module).cloned().ok_or_else(|| OrderError::NoModule(module.clone()))
    }
}

impl Slot {
    async fn roll_back(&self, by: &str) -> Result<()> {
        let (name, standing) = (&self.name, self.standing());
        if let Some((pinned, order)) = &standing.pinned {
            let what = format!("{name} is pinned to {pinned} by {}; unpin it, or pin another version", order.by);
            return Err(OrderError::NotNow(what));
        }
        let serving = self.serving();
        if let Some(canary) = serving.as_ref().and_then(|serving| serving.canary.as_ref()) {
            let tried = canary.version.hash();
            let what = format!(
                "{tried} is on trial; `modhost modules abort {name}` ends that, and the version before goes on"
            );
            return Err(OrderError::NotNow(what));
        }
        let now = serving.map(|serving| serving.stable.hash());
        let history = self.shared.versions.history(name).await?;
        let target = before(&history, now).ok_or_else(|| {
            OrderError::NoVersion(format!("there is no earlier version of {name}: none served before, or none is kept"))
        })?;
        let version = self.load_kept(target, &self.spec()).await?;
        // What is in the file now is what was gone back from; if it is gone, what served.
        let file = Found::read(&self.component()).await.map(|found| found.hash).ok();
        let mut facts = Vec::new();
        if let Some(hash) = file.or(now).filter(|hash| *hash != target) {
            facts.push(Fact::HeldBack(Some(HeldBack { hash, why: format!("{by} went back from it") })));
        }
        Ok(self.serve(version, Origin::Rollback, by, facts).await?)
    }

    async fn pin(&self, prefix: &str, by: &str) -> Result<()> {
        let history = self.shared.versions.history(&self.name).await?;
        let file = Found::read(&self.component()).await.ok();
        let hash = self.find(prefix, &history, file.as_ref())?;
        let order = Order { by: by.to_owned(), at: clock::now() };
        let facts = vec![Fact::Pinned(Some((hash, order))), Fact::HeldBack(None)];
        let serving = self.serving();
        if serving.is_some_and(|serving| serving.stable.hash() == hash && serving.canary.is_none()) {
            self.shared.versions.note(&self.name, facts).await?;
            tracing::info!(module = %self.name, version = %hash, "is pinned, as {by} asked");
            return Ok(());
        }
        let spec = self.spec();
        let version = match file.filter(|file| file.hash == hash) {
            Some(file) => {
                let version = self.shared.engine.load(file.bytes.clone(), &spec).await;
                self.keep(hash, file.bytes).await;
                version.map_err(|error| OrderError::CantServe(hash, error))?
            }
            None => self.load_kept(hash, &spec).await?,
        };
        Ok(self.serve(version, Origin::Pin, by, facts).await?)
    }

    /// The version of this module whose hash begins like this.
    fn find(&self, prefix: &str, history: &[Entry], file: Option<&Found>) -> Result<ContentHash> {
        let (name, prefix) = (&self.name, prefix.trim().to_ascii_lowercase());
        if prefix.is_empty() || !prefix.chars().all(|digit| digit.is_ascii_hexdigit()) {
            let what =
                format!("`{prefix}` is not the beginning of a hash; `modhost modules history {name}` lists them");
            return Err(OrderError::Unclear(what));
        }
        let mut found: Vec<(ContentHash, bool)> = history.iter().map(|entry| (entry.hash, entry.kept)).collect();
        found.extend(file.map(|file| (file.hash, true)));
        found.retain(|(hash, _)| hash.in_full().starts_with(&prefix));
        // Of one that stands there twice, the one that is at hand.
        found.sort_by_key(|(hash, kept)| (*hash, !kept));
        found.dedup_by_key(|(hash, _)| *hash);
        match &found[..] {
            [(hash, true)] => Ok(*hash),
            [(hash, false)] => Err(OrderError::NoVersion(format!(
                "version {hash} of {name} is known, but its component is not kept: it couldn't serve, or it was so long ago"
            ))),
            [] => Err(OrderError::NoVersion(format!(
                "{name} has no version that begins with {prefix}; `modhost modules history {name}` lists them"
            ))),
            several => {
                let several: Vec<String> = several.iter().map(|(hash, _)| hash.to_string()).collect();
                let what = format!("more than one version of {name} begins with {prefix}: {}", several.join(", "));
                Err(OrderError::Unclear(what))
            }
        }
    }

    async fn load_kept(&self, hash: ContentHash, spec: &Spec) -> Result<Version> {
        let gone = || OrderError::NoVersion(format!("the component of version {hash} is not kept any more"));
        let bytes = self.shared.versions.component(hash).await.ok_or_else(gone)?;
        self.shared.engine.load(bytes, spec).await.map_err(|error| OrderError::CantServe(hash, error))
    }

    fn on_trial(&self) -> Result<Arc<Serving>> {
        let serving = self.serving().filter(|serving| serving.canary.is_some());
        serving.ok_or_else(|| OrderError::NotNow(format!("no version of {} is on trial", self.name)))
    }
}

/// The version that served before one first came to: so that who goes back twice goes back two versions.
fn before(history: &[Entry], now: Option<ContentHash>) -> Option<ContentHash> {
    let served: Vec<&Entry> = history.iter().filter(|entry| entry.role == Role::Serving).collect();
    let taken = |entry: &&Entry| Some(entry.hash) == now && !matches!(entry.origin, Origin::Rollback | Origin::Pin);
    let from = served.iter().position(taken).unwrap_or(0);
    let mut earlier = served.into_iter().skip(from).filter(|entry| Some(entry.hash) != now && entry.kept);
    earlier.next().map(|entry| entry.hash)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

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
    fn who_goes_back_twice_goes_back_two_versions() {
        let of = |name: u8| Some(ContentHash::of(&[name]));
        let mut history = vec![entry(b'c', Origin::File), entry(b'b', Origin::Canary), entry(b'a', Origin::File)];
        assert_eq!(before(&history, of(b'c')), of(b'b'));
        history.insert(0, entry(b'b', Origin::Rollback));
        assert_eq!(before(&history, of(b'b')), of(b'a'));
        history.insert(0, entry(b'a', Origin::Rollback));
        assert_eq!(before(&history, of(b'a')), None, "there was none before the first");
        // The same file deployed again is a new beginning.
        history.insert(0, entry(b'b', Origin::File));
        assert_eq!(before(&history, of(b'b')), of(b'a'));
    }

    #[test]
    fn what_is_not_kept_or_never_served_is_passed_over() {
        let of = |name: u8| Some(ContentHash::of(&[name]));
        let refused = Entry { role: Role::Refused, ..entry(b'x', Origin::File) };
        let gone = Entry { kept: false, ..entry(b'b', Origin::File) };
        let history = vec![entry(b'c', Origin::File), refused, gone, entry(b'a', Origin::File)];
        assert_eq!(before(&history, of(b'c')), of(b'a'));
        // Pinned to something that was never taken from the file: the one that served before that.
        assert_eq!(before(&history, of(b'p')), of(b'c'));
    }
}
