//! Claims: the names, paths and companies that one part of the settings has for itself, in whatever file it is.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use crate::file::Parts;
use modhost_core::event::Name;

/// Something that only one part of the settings of a host can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// The name of a tenant.
    Tenant(Name),
    /// The full name of a source.
    Source(Name),
    /// The full name of a module.
    Module(Name),
    /// The path of a webhook.
    Path(String),
    /// A company of a tenant.
    Company(String),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(name) => write!(f, "the tenant \"{name}\""),
            Self::Source(name) => write!(f, "the source \"{name}\""),
            Self::Module(name) => write!(f, "the module \"{name}\""),
            Self::Path(path) => write!(f, "the path \"{path}\""),
            Self::Company(company) => write!(f, "the company \"{company}\""),
        }
    }
}

/// Where the claims of a file are in its text. All are equal, because settings mean the same wherever they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClaimSpans(HashMap<Claim, Range<usize>>);

impl PartialEq for ClaimSpans {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl ClaimSpans {
    /// Returns the spans of the claims of a file.
    pub(crate) fn of(parts: &Parts) -> Self {
        let sources = parts.sources.iter().flat_map(|source| {
            let path = source.part.webhook().map(|webhook| (Claim::Path(webhook.path.clone()), source.path.clone()));
            path.into_iter().chain([(Claim::Source(source.part.name.clone()), source.name.clone())])
        });
        let tenants = parts.tenants.iter().flat_map(|tenant| {
            let companies = tenant.part.companies.iter().cloned().map(Claim::Company);
            companies
                .zip(tenant.companies.iter().cloned())
                .chain([(Claim::Tenant(tenant.part.name.clone()), tenant.name.clone())])
        });
        let modules = parts.modules.iter().map(|module| (Claim::Module(module.part.name.clone()), module.name.clone()));
        Self(sources.chain(tenants).chain(modules).collect())
    }

    /// Returns the span of a claim.
    pub(crate) fn get(&self, claim: &Claim) -> Option<Range<usize>> {
        self.0.get(claim).cloned()
    }
}
