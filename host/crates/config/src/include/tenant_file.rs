//! The names in an included file: checks them, and replaces them by the full names of the whole host.

use std::ops::Range;

use crate::document::Document;
use crate::file::{Located, Parts};
use crate::settings::{Settings, Tenant};
use crate::suggest;
use modhost_core::event::Name;

/// Gives the sources and modules of an included file to its tenant, and their full names to all of them. Reports names
/// that are not allowed there. `top` are the settings of modules.toml.
pub(crate) fn scope(document: &Document<'_>, parts: &mut Parts, top: &Settings) {
    let [tenant] = parts.tenants.as_slice() else { return check_one_tenant(document, &parts.tenants) };
    let name = tenant.part.name.clone();
    check_names(document, parts);
    check_tenants(document, parts, &name);
    check_sources(document, parts, top);
    let local: Vec<Name> = parts.sources.iter().map(|source| source.part.name.clone()).collect();
    for source in &mut parts.sources {
        source.part.name = Name::within(&name, source.part.name.as_str());
        source.part.tenant = Some(name.clone());
    }
    for module in &mut parts.modules {
        let module = &mut module.part;
        module.name = Name::within(&name, module.name.as_str());
        module.owner = Some(name.clone());
        module.wants.tenants = vec![name.clone()];
        for source in module.wants.sources.iter_mut().filter(|source| local.contains(source)) {
            *source = Name::within(&name, source.as_str());
        }
    }
}

fn check_one_tenant(document: &Document<'_>, tenants: &[Located<Tenant>]) {
    match tenants.get(1) {
        None => document.report_whole(
            "there is no [[tenant]], and an included file is for one tenant",
            "add a [[tenant]] with its name and its platform",
        ),
        Some(second) => document.report(
            second.name.clone(),
            "this is the second [[tenant]] of the file, and an included file is for one tenant",
            "move it to a file of its own, with its sources and modules",
        ),
    }
}

/// Reports names that contain the separator of full names.
fn check_names(document: &Document<'_>, parts: &Parts) {
    let tenants = parts.tenants.iter().map(|it| (&it.part.name, &it.name));
    let sources = parts.sources.iter().map(|it| (&it.part.name, &it.name));
    let modules = parts.modules.iter().map(|it| (&it.part.name, &it.name));
    for (name, span) in tenants.chain(sources).chain(modules) {
        if name.as_str().contains(Name::SEPARATOR) {
            document.report(
                span.clone(),
                format!("the name \"{name}\" contains a slash"),
                "use another name: outside of this file, names are TENANT/NAME",
            );
        }
    }
}

/// Reports sources and modules that name another tenant.
fn check_tenants(document: &Document<'_>, parts: &Parts, tenant: &Name) {
    if tenant.as_str().is_empty() {
        // The missing name was reported before, and any name may be it.
        return;
    }
    let of_sources = parts.sources.iter().flat_map(|source| source.part.tenant.iter().zip(&source.tenants));
    let of_modules = parts.modules.iter().flat_map(|module| module.part.wants.tenants.iter().zip(&module.tenants));
    let others = of_sources.chain(of_modules).filter(|(name, _)| *name != tenant && !name.as_str().is_empty());
    for (name, span) in others {
        document.report(
            span.clone(),
            format!("\"{name}\" is not the tenant of this file, \"{tenant}\""),
            "remove it: everything in an included file is for the tenant of the file",
        );
    }
}

/// Reports modules that name an unknown source: neither one of the file nor one of modules.toml.
fn check_sources(document: &Document<'_>, parts: &Parts, top: &Settings) {
    let local = parts.sources.iter().map(|source| source.part.name.as_str());
    let shared = top.sources.iter().filter(|source| source.tenant.is_none()).map(|source| source.name.as_str());
    let names: Vec<&str> = local.chain(shared).collect();
    if parts.sources.iter().any(|source| source.part.name.as_str().is_empty()) {
        // The missing name was reported before, and any unknown name may be it.
        return;
    }
    let of_modules: Vec<(&Name, &Range<usize>)> =
        parts.modules.iter().flat_map(|module| module.part.wants.sources.iter().zip(&module.sources)).collect();
    for (name, span) in of_modules {
        if name.as_str().is_empty() || names.contains(&name.as_str()) {
            continue;
        }
        let of_other = top.sources.iter().find(|source| source.name == *name).and_then(|source| source.tenant.as_ref());
        let (message, advice) = match of_other {
            Some(tenant) => (
                format!("the source \"{name}\" of {} is for the tenant \"{tenant}\"", top.file.display()),
                "use a source of this file, or one of modules.toml without `tenant`".to_owned(),
            ),
            None => (
                format!("there is no [[source]] named \"{name}\" in this file or in {}", top.file.display()),
                if names.is_empty() { "add one".to_owned() } else { suggest::advice(name.as_str(), &names) },
            ),
        };
        document.report(span.clone(), message, advice);
    }
}
