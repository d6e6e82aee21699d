//! One version of a module: a compiled component with the settings it runs under.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::LoadError;
use super::fit::Anatomy;
use super::instance::{self, Ended};
use super::load::Loaded;
use super::machine::Code;
use crate::capabilities::{Delivery, Grants, Prepared};
use crate::event::Name;
use crate::limits::{Limits, Resource};

/// The hash of a component's bytes: what tells two versions of a module apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// All of its digits.
    pub(super) fn in_full(&self) -> String {
        hex::encode(self.0)
    }

    /// The hash these digits write; none if they don't write one.
    pub(super) fn from_hex(digits: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).ok().map(|()| Self(hash))
    }
}

/// The first twelve digits: enough for people.
impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a module is to be run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The module.
    pub name: Name,
    /// Where its component lies.
    pub component: std::path::PathBuf,
    /// What one delivery may use, the ceilings of its tenant left out.
    pub limits: Limits,
    /// What it may do and know.
    pub grants: Grants,
}

/// What a component can't do without.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    /// What it takes before it runs.
    begins_with: [(Resource, u64); 3],
    /// The interfaces it imports of the key-value store.
    keyvalue: Vec<String>,
}

impl Needs {
    pub(super) fn of(anatomy: &Anatomy) -> Self {
        let imports = anatomy.imports.iter().map(|import| &import.name);
        let keyvalue = imports.filter(|name| name.starts_with("wasi:keyvalue/")).cloned().collect();
        let begins_with = [
            (Resource::Memory, anatomy.minimum_memory),
            (Resource::Tables, anatomy.minimum_table_elements),
            (Resource::Instances, anatomy.core_instances),
        ];
        Self { begins_with, keyvalue }
    }

    /// Whether a module's settings give it that.
    ///
    /// # Errors
    ///
    /// What they don't.
    pub(super) fn met_by(&self, spec: &Spec) -> Result<(), LoadError> {
        let too_much = self.begins_with.iter().find(|(resource, wanted)| *wanted > spec.limits.amount(*resource));
        if let Some((resource, wanted)) = too_much {
            return Err(LoadError::Limit(spec.limits.reached(*resource, Some(*wanted))));
        }
        if !self.keyvalue.is_empty() && spec.grants.keyvalue == 0 {
            return Err(LoadError::NoKeyValue { imports: self.keyvalue.join(", ") });
        }
        Ok(())
    }
}

/// One version of a module, ready to answer.
pub struct Version {
    loaded: Arc<Loaded>,
    limits: Limits,
    grants: Grants,
    prepared: Prepared,
}

impl Version {
    pub(super) fn new(loaded: Arc<Loaded>, spec: &Spec) -> Self {
        Self { loaded, limits: spec.limits, grants: spec.grants.clone(), prepared: Prepared::new(&spec.grants) }
    }

    /// Whether this is already what a spec and a content hash ask for.
    pub(super) fn is(&self, hash: ContentHash, spec: &Spec) -> bool {
        self.loaded.hash() == hash && self.limits == spec.limits && self.grants == spec.grants
    }

    /// The same component under other settings.
    ///
    /// # Errors
    ///
    /// When they don't give it what it needs.
    pub(super) fn with_settings(&self, spec: &Spec) -> Result<Self, LoadError> {
        self.loaded.needs().met_by(spec)?;
        Ok(Self::new(self.loaded.clone(), spec))
    }

    /// The hash of its component.
    pub fn hash(&self) -> ContentHash {
        self.loaded.hash()
    }

    /// What one delivery may use, the ceilings of its tenant left out.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What an instance is made of; the next one may be made of other code of the same component.
    pub(super) fn code(&self) -> Arc<Code> {
        self.loaded.code()
    }

    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Runs a fresh instance on a delivery, to whatever end.
    pub async fn run(&self, delivery: &Arc<Delivery>) -> Ended {
        instance::run(self, delivery).await
    }
}
