//! What the settings in effect claim for themselves among all files of a host.

use super::{ActiveSettings, GraceReason, SettingsPart};
use crate::ConfigError;
use crate::document::Document;
use crate::include::claims::Claim;

impl ActiveSettings {
    /// Returns all claims of the settings in effect. Each says whether it is firm: what was removed from the file, and
    /// is only kept for the grace period, yields to another file that claims it.
    pub(crate) fn claims(&self) -> Vec<(Claim, bool)> {
        let mut claims = Vec::new();
        let mut add = |claim: Claim, part: &SettingsPart| claims.push((claim, !self.is_removed(part)));
        for source in &self.settings.sources {
            let part = SettingsPart::Source(source.name.clone());
            add(Claim::Source(source.name.clone()), &part);
            if let Some(webhook) = source.webhook() {
                add(Claim::Path(webhook.path.clone()), &part);
            }
        }
        for tenant in &self.settings.tenants {
            let part = SettingsPart::Tenant(tenant.name.clone());
            add(Claim::Tenant(tenant.name.clone()), &part);
            let is_removed = self.is_removed(&part);
            for company in &tenant.companies {
                let of_company = SettingsPart::Company(tenant.name.clone(), company.clone());
                add(Claim::Company(company.clone()), if is_removed { &part } else { &of_company });
            }
        }
        for module in &self.settings.modules {
            add(Claim::Module(module.name.clone()), &SettingsPart::Module(module.name.clone()));
        }
        claims
    }

    /// Drops a part that is kept although it was removed, because another file claims it now.
    pub(crate) fn release(&mut self, claim: &Claim) {
        let settings = &mut self.settings;
        let mut dropped = Vec::new();
        let retained = &self.retained;
        let is_kept = |part: &SettingsPart| retained.get(part).is_some_and(|it| it.reason == GraceReason::Removed);
        match claim {
            Claim::Source(_) | Claim::Path(_) => settings.sources.retain(|source| {
                let part = SettingsPart::Source(source.name.clone());
                let is_claimed = match claim {
                    Claim::Path(path) => source.webhook().is_some_and(|webhook| webhook.path == *path),
                    _ => *claim == Claim::Source(source.name.clone()),
                };
                let is_dropped = is_claimed && is_kept(&part);
                if is_dropped {
                    dropped.push(part);
                }
                !is_dropped
            }),
            Claim::Tenant(name) => settings.tenants.retain(|tenant| {
                let part = SettingsPart::Tenant(tenant.name.clone());
                let is_dropped = tenant.name == *name && is_kept(&part);
                if is_dropped {
                    dropped.push(part);
                }
                !is_dropped
            }),
            Claim::Company(company) => {
                for tenant in &mut settings.tenants {
                    let part = SettingsPart::Company(tenant.name.clone(), company.clone());
                    let of_tenant = is_kept(&SettingsPart::Tenant(tenant.name.clone()));
                    if tenant.companies.contains(company) && (is_kept(&part) || of_tenant) {
                        tenant.companies.retain(|other| other != company);
                        // Without companies it would accept all of them.
                        if tenant.companies.is_empty() {
                            self.without_events.insert(tenant.name.clone());
                        }
                        dropped.push(part);
                    }
                }
            }
            Claim::Module(name) => settings.modules.retain(|module| {
                let part = SettingsPart::Module(module.name.clone());
                let is_dropped = module.name == *name && is_kept(&part);
                if is_dropped {
                    dropped.push(part);
                }
                !is_dropped
            }),
        }
        for part in dropped {
            self.retained.remove(&part);
        }
    }

    /// Returns an error at the place of a claim in the file, or about the whole file if it is no longer there.
    pub(crate) fn error_at(&self, claim: &Claim, message: String) -> ConfigError {
        let written = self.as_written();
        match written.claims.get(claim) {
            Some(span) => Document::new(&written.file, written.text.as_str()).error(span, message),
            None => ConfigError::new(format!("{}: {message}", written.file.display())),
        }
    }

    /// Describes who has a claim, with the place in its file.
    pub(crate) fn holder_of(&self, claim: &Claim) -> String {
        let place = self.error_at(claim, String::new());
        let place = match place.location() {
            Some(location) => location.to_string(),
            None => self.as_written().file.display().to_string(),
        };
        let owner = match claim {
            Claim::Path(path) => {
                let is_it = |path_of: &crate::Source| path_of.webhook().is_some_and(|webhook| webhook.path == *path);
                self.settings.sources.iter().find(|it| is_it(it)).map(|it| format!("the source \"{}\"", it.name))
            }
            Claim::Company(company) => {
                let tenant = self.settings.tenants.iter().find(|tenant| tenant.companies.contains(company));
                tenant.map(|tenant| format!("the tenant \"{}\"", tenant.name))
            }
            _ => None,
        };
        match owner {
            Some(owner) => format!("{owner} at {place}"),
            None => place,
        }
    }
}
