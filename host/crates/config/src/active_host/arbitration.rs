//! Decides which new settings of files are accepted, if several files claim the same name, path or company.
//!
//! A claim stays with the file that has it, as long as the new settings of that file still have it. If no file has it
//! yet, or its holder gives it up, modules.toml comes first, then the other files in order. A file is accepted or
//! refused as a whole; a refused file keeps the claims of its settings in effect. What a file only keeps for a grace
//! period yields to firm claims.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ActiveHost;
use crate::include::claims::Claim;
use crate::{ActiveSettings, ConfigErrors};

/// New settings of an included file.
pub(super) struct Candidate {
    next: Arc<ActiveSettings>,
}

impl Candidate {
    pub(super) fn new(next: ActiveSettings) -> Self {
        Self { next: Arc::new(next) }
    }
}

/// What was decided.
pub(super) struct Decided {
    /// The settings of modules.toml, if they changed.
    pub top: Option<Arc<ActiveSettings>>,
    /// The settings of each file that changed, or why they are refused.
    pub files: BTreeMap<PathBuf, Result<Arc<ActiveSettings>, ConfigErrors>>,
    /// Parts that files only keep for a grace period, and that other files claim. `None` is modules.toml.
    pub released: Vec<(Option<PathBuf>, Claim)>,
}

/// A file with its settings before the change and after it.
struct Entry<'a> {
    /// `None`: modules.toml.
    path: Option<&'a Path>,
    /// The settings in effect.
    before: Option<Arc<ActiveSettings>>,
    /// The new settings, unless the file has not changed.
    next: Option<Arc<ActiveSettings>>,
    /// Whether the new settings are refused.
    is_refused: bool,
}

impl Entry<'_> {
    /// Returns the settings that are in effect after the change.
    fn chosen(&self) -> Option<&Arc<ActiveSettings>> {
        if self.is_refused { self.before.as_ref() } else { self.next.as_ref().or(self.before.as_ref()) }
    }

    fn is_pending(&self) -> bool {
        self.next.is_some() && !self.is_refused
    }
}

/// The files that claim something, by their position; modules.toml has the first.
type Claimants = HashMap<Claim, BTreeSet<usize>>;

/// Decides which of the new settings are accepted.
///
/// # Errors
///
/// If modules.toml claims what another file has. Then nothing is decided.
pub(super) fn arbitrate(
    host: &ActiveHost,
    new_top: Option<Arc<ActiveSettings>>,
    mut candidates: BTreeMap<&Path, Candidate>,
) -> Result<Decided, ConfigErrors> {
    let top = Entry { path: None, before: Some(host.top.clone()), next: new_top, is_refused: false };
    let paths: BTreeSet<&Path> = host.files.keys().map(PathBuf::as_path).chain(candidates.keys().copied()).collect();
    let files = paths.into_iter().map(|path| Entry {
        path: Some(path),
        before: host.files.get(path).and_then(|file| file.active.clone()),
        next: candidates.remove(path).map(|candidate| candidate.next),
        is_refused: false,
    });
    let mut entries: Vec<Entry<'_>> = std::iter::once(top).chain(files).collect();
    let mut firm = Claimants::new();
    for (index, entry) in entries.iter().enumerate() {
        add(&mut firm, index, entry.chosen());
    }
    refuse_losers(&mut entries, &mut firm)?;
    // A file that lost against one that was refused later may be accepted after all.
    while let Some(index) = (1..entries.len()).find(|index| can_be_accepted(&entries, *index, &firm)) {
        remove(&mut firm, index, entries[index].chosen());
        entries[index].is_refused = false;
        add(&mut firm, index, entries[index].chosen());
    }
    let released = released(&entries, &firm);
    let mut decided = Decided { top: None, files: BTreeMap::new(), released };
    for (index, entry) in entries.iter().enumerate() {
        let Some(next) = &entry.next else { continue };
        match entry.path {
            Some(path) => {
                let decision = if entry.is_refused { Err(conflicts(&entries, index, &firm)) } else { Ok(next.clone()) };
                decided.files.insert(path.to_owned(), decision);
            }
            None => decided.top = Some(next.clone()),
        }
    }
    Ok(decided)
}

/// Refuses new settings until each claim has one file.
fn refuse_losers(entries: &mut [Entry<'_>], firm: &mut Claimants) -> Result<(), ConfigErrors> {
    let mut contested: BTreeSet<Claim> =
        firm.iter().filter(|(_, of)| of.len() > 1).map(|(claim, _)| claim.clone()).collect();
    while let Some(claim) = contested.pop_first() {
        let claimants = firm.get(&claim).cloned().unwrap_or_default();
        if claimants.len() < 2 {
            continue;
        }
        let has_before = |index: &&usize| {
            let before = entries[**index].before.as_ref();
            before.is_some_and(|before| before.claims().contains(&(claim.clone(), true)))
        };
        let Some(winner) = claimants.iter().find(has_before).or(claimants.first()).copied() else { continue };
        // modules.toml comes last, so that its errors name the holders.
        for loser in claimants.into_iter().rev().filter(|index| *index != winner) {
            if !entries[loser].is_pending() {
                // Settings in effect never conflict with each other.
                continue;
            }
            if loser == 0 {
                return Err(conflicts(entries, loser, firm));
            }
            remove(firm, loser, entries[loser].chosen());
            entries[loser].is_refused = true;
            add(firm, loser, entries[loser].chosen());
            let kept = entries[loser].chosen().map(|chosen| chosen.claims()).unwrap_or_default();
            let kept = kept.into_iter().filter(|(_, is_firm)| *is_firm).map(|(claim, _)| claim);
            contested.extend(kept.filter(|claim| firm.get(claim).is_some_and(|of| of.len() > 1)));
        }
    }
    Ok(())
}

/// Whether refused settings conflict with no settings in effect.
fn can_be_accepted(entries: &[Entry<'_>], index: usize, firm: &Claimants) -> bool {
    let entry = &entries[index];
    let Some(next) = entry.next.as_ref().filter(|_| entry.is_refused) else { return false };
    next.claims().iter().filter(|(_, is_firm)| *is_firm).all(|(claim, _)| others(firm, claim, index).next().is_none())
}

/// Returns an error for each claim of new settings that another file has.
fn conflicts(entries: &[Entry<'_>], index: usize, firm: &Claimants) -> ConfigErrors {
    let mut errors = Vec::new();
    if let Some(next) = entries[index].next.as_ref() {
        let claims = next.claims().into_iter().filter(|(_, is_firm)| *is_firm);
        let holder_of = |claim: &Claim| others(firm, claim, index).find_map(|other| entries[other].chosen());
        let held: Vec<_> = claims.filter_map(|(claim, _)| Some((holder_of(&claim)?, claim))).collect();
        // Another tenant of the same name also has the same full names.
        let has_same_tenant = held.iter().any(|(_, claim)| matches!(claim, Claim::Tenant(_)));
        let is_implied = |claim: &Claim| has_same_tenant && matches!(claim, Claim::Source(_) | Claim::Module(_));
        let held = held.iter().filter(|(_, claim)| !is_implied(claim));
        errors.extend(held.map(|(holder, claim)| conflict(next, claim, holder)));
    }
    ConfigErrors::of(errors)
}

fn conflict(next: &ActiveSettings, claim: &Claim, holder: &ActiveSettings) -> crate::ConfigError {
    let held = holder.holder_of(claim);
    let (message, advice) = match claim {
        Claim::Tenant(_) => (format!("{claim} is already defined at {held}"), "rename one of them, or remove one"),
        Claim::Source(_) | Claim::Module(_) => {
            (format!("the full name of this part, {claim}, is already used at {held}"), "rename one of them")
        }
        Claim::Path(_) => (format!("{claim} is already used by {held}"), "give each source its own path"),
        Claim::Company(_) => (format!("{claim} already belongs to {held}"), "list each company under one tenant only"),
    };
    next.error_at(claim, message).advice(advice)
}

/// Returns what files only keep for a grace period, and others claim.
fn released(entries: &[Entry<'_>], firm: &Claimants) -> Vec<(Option<PathBuf>, Claim)> {
    let mut released = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(chosen) = entry.chosen().filter(|chosen| !chosen.is_settled()) else { continue };
        for (claim, _) in chosen.claims().into_iter().filter(|(_, is_firm)| !is_firm) {
            if others(firm, &claim, index).next().is_some() {
                released.push((entry.path.map(Path::to_owned), claim));
            }
        }
    }
    released
}

fn others<'a>(firm: &'a Claimants, claim: &Claim, index: usize) -> impl Iterator<Item = usize> + 'a {
    firm.get(claim).into_iter().flatten().copied().filter(move |other| *other != index)
}

fn add(firm: &mut Claimants, index: usize, settings: Option<&Arc<ActiveSettings>>) {
    for (claim, _) in settings.iter().flat_map(|settings| settings.claims()).filter(|(_, is_firm)| *is_firm) {
        firm.entry(claim).or_default().insert(index);
    }
}

fn remove(firm: &mut Claimants, index: usize, settings: Option<&Arc<ActiveSettings>>) {
    for (claim, _) in settings.iter().flat_map(|settings| settings.claims()) {
        if let Some(of) = firm.get_mut(&claim) {
            of.remove(&index);
        }
    }
}
