//! Checks the parts of the settings against each other.

mod event_socket;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use super::document::Document;
use super::file::{Located, Parts};
use super::settings::{Module, Settings, Tenant};
use super::source::{Scheme, SignedPart, Source, Webhook};
use super::{ConfigError, SourceLocation, include, suggest};
use modhost_core::event::Name;
use modhost_core::files::{self, NotRegular};

/// How long reading the file types of all components may take.
const COMPONENT_CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Reports all contradictions between parts. A value that could not be read was reported before; an empty name stands
/// in for it and is skipped here.
pub(super) fn check(document: &Document<'_>, parts: &Parts) {
    check_sources_and_modules(document, parts);
    check_unique_names(
        document,
        "[[tenant]]",
        parts.tenants.iter().map(|it| (it.part.name.as_str(), &it.name, &it.part.location)),
    );
    check_unique_companies(document, &parts.tenants);
    check_tenant_names(document, parts);
    check_source_names(document, parts);
    check_has_tenant(document, parts);
    check_any_company(document, parts);
    event_socket::check(document, parts);
}

/// Checks an included file by itself and against the settings of modules.toml, and gives its parts their full names.
pub(super) fn check_included(document: &Document<'_>, parts: &mut Parts, top: &Settings) {
    check_sources_and_modules(document, parts);
    // An event socket needs its tenant, which is clear in this file even if the source doesn't name it.
    let reported = document.has_errors();
    if let ([tenant], false) = (parts.tenants.as_slice(), reported) {
        let name = tenant.part.name.clone();
        parts
            .sources
            .iter_mut()
            .for_each(|source| source.part.tenant = source.part.tenant.take().or(Some(name.clone())));
    }
    event_socket::check(document, parts);
    include::scope(document, parts, top);
}

/// Reports contradictions between the sources and modules of one file.
fn check_sources_and_modules(document: &Document<'_>, parts: &Parts) {
    check_unique_names(
        document,
        "[[source]]",
        parts.sources.iter().map(|it| (it.part.name.as_str(), &it.name, &it.part.location)),
    );
    check_unique_names(
        document,
        "[[module]]",
        parts.modules.iter().map(|it| (it.part.name.as_str(), &it.name, &it.part.location)),
    );
    check_unique_paths(document, &parts.sources);
    check_unverified(document, parts);
}

/// Reports parts of one kind that share a name.
fn check_unique_names<'p>(
    document: &Document<'_>,
    title: &str,
    parts: impl Iterator<Item = (&'p str, &'p Range<usize>, &'p SourceLocation)>,
) {
    let mut seen: HashMap<&str, &SourceLocation> = HashMap::new();
    for (name, span, location) in parts.filter(|(name, ..)| !name.is_empty()) {
        if let Some(first) = seen.get(name) {
            let message = format!("the name \"{name}\" is already used by the {title} at line {}", first.line);
            document.report(span.clone(), message, "rename one of them");
        } else {
            seen.insert(name, location);
        }
    }
}

fn check_unique_paths(document: &Document<'_>, sources: &[Located<Source>]) {
    let mut seen: HashMap<&str, &Name> = HashMap::new();
    for (source, webhook) in webhooks(sources).filter(|(_, webhook)| !webhook.path.is_empty()) {
        if let Some(first) = seen.get(webhook.path.as_str()) {
            let message = format!("the path \"{}\" is already used by the source \"{first}\"", webhook.path);
            document.report(source.path.clone(), message, "give each source its own path");
        } else {
            seen.insert(&webhook.path, &source.part.name);
        }
    }
}

fn webhooks(sources: &[Located<Source>]) -> impl Iterator<Item = (&Located<Source>, &Webhook)> {
    sources.iter().filter_map(|source| Some((source, source.part.webhook()?)))
}

fn check_unique_companies(document: &Document<'_>, tenants: &[Located<Tenant>]) {
    let mut seen: HashMap<&str, &Name> = HashMap::new();
    for tenant in tenants {
        for (company, span) in
            tenant.part.companies.iter().zip(&tenant.companies).filter(|(company, _)| !company.is_empty())
        {
            let first = *seen.entry(company).or_insert(&tenant.part.name);
            if *first != tenant.part.name {
                let message = format!("the company \"{company}\" already belongs to the tenant \"{first}\"");
                document.report(span.clone(), message, "list each company under one tenant only");
            }
        }
    }
}

fn check_tenant_names(document: &Document<'_>, parts: &Parts) {
    let names: Vec<&str> = parts.tenants.iter().map(|tenant| tenant.part.name.as_str()).collect();
    if names.is_empty() && !parts.has_include || names.contains(&"") {
        // The missing name was reported before, and any unknown name may be it.
        return;
    }
    let from_sources = parts.sources.iter().flat_map(|source| source.part.tenant.iter().zip(&source.tenants));
    let from_modules = parts.modules.iter().flat_map(|module| module.part.wants.tenants.iter().zip(&module.tenants));
    for (name, span) in from_sources.chain(from_modules).filter(|(name, _)| !name.as_str().is_empty()) {
        if !names.contains(&name.as_str()) {
            let message = format!("there is no [[tenant]] named \"{name}\"");
            let in_its_file = "what is for the tenant of an included file belongs in that file";
            let advice = match (names.is_empty(), parts.has_include) {
                (true, _) => in_its_file.to_owned(),
                (false, true) => format!("{}; {in_its_file}", suggest::advice(name.as_str(), &names)),
                (false, false) => suggest::advice(name.as_str(), &names),
            };
            document.report(span.clone(), message, advice);
        }
    }
}

fn check_source_names(document: &Document<'_>, parts: &Parts) {
    let names: Vec<&str> = parts.sources.iter().map(|source| source.part.name.as_str()).collect();
    if names.contains(&"") {
        // The missing name was reported before, and any unknown name may be it.
        return;
    }
    let from_modules = parts.modules.iter().flat_map(|module| module.part.wants.sources.iter().zip(&module.sources));
    for (name, span) in from_modules.filter(|(name, _)| !name.as_str().is_empty()) {
        if !names.contains(&name.as_str()) {
            let message = format!("there is no [[source]] named \"{name}\"");
            let advice = if names.is_empty() { "add one".into() } else { suggest::advice(name.as_str(), &names) };
            document.report(span.clone(), message, advice);
        }
    }
}

fn check_has_tenant(document: &Document<'_>, parts: &Parts) {
    if parts.tenants.is_empty() && !parts.has_include {
        document.report_whole(
            "there is no [[tenant]], so there is no platform to answer on",
            "add a [[tenant]] with name = \"default\" and its platform",
        );
    }
}

/// Reports sources without a tenant if several tenants accept any company: then the event's company can't select the
/// tenant.
fn check_any_company(document: &Document<'_>, parts: &Parts) {
    let any_company: Vec<&str> =
        parts.tenants.iter().filter(|it| it.companies.is_empty()).map(|it| it.part.name.as_str()).collect();
    if any_company.len() < 2 {
        return;
    }
    for (source, _) in webhooks(&parts.sources).filter(|(source, _)| source.part.tenant.is_none()) {
        document.report(
            source.name.clone(),
            format!(
                "the tenant of this source's events is ambiguous: the tenants {} all accept any company",
                any_company.join(", ")
            ),
            "add tenant = \"…\" to the source, or companies = [\"…\"] to all but one of these tenants",
        );
    }
}

/// Reports a source that verifies nothing although other machines can reach it, unless the source allows that.
fn check_unverified(document: &Document<'_>, parts: &Parts) {
    for (source, webhook) in webhooks(&parts.sources) {
        if webhook.scheme == (Scheme::None { from_anywhere: false }) && !parts.server.listen.ip().is_loopback() {
            document.report(
                source.name.clone(),
                "this source verifies nothing and is reachable from other machines: anyone could send events",
                "listen on 127.0.0.1, set a scheme, or add from_anywhere = true if the network restricts access",
            );
        }
    }
}

/// Returns the warning for a source that reads the company from a header that is not signed.
fn company_in_a_header(source: &Source) -> Option<ConfigError> {
    let webhook = source.webhook()?;
    let company = webhook.event.company.as_ref()?.as_ref()?;
    let mut headers = Vec::new();
    company.headers(&mut headers);
    headers.retain(|header| match &webhook.scheme {
        Scheme::Hmac(rules) => !rules.signed.contains(&SignedPart::Header(header.clone())),
        // Another warning says that nothing is signed.
        Scheme::None { .. } | Scheme::Nexus { .. } => false,
        _ => true,
    });
    let header = headers.first()?;
    let warning = ConfigError::new(format!(
        "the source \"{}\" reads the company from the header {header}, which is not signed",
        source.name
    ));
    Some(warning.at(Some(source.location.clone())).advice(
        "anyone who captures a signed request can replay it for another company: read the company from the body if possible",
    ))
}

/// Returns an error for each component path that is not a regular file. A missing file may be created later; a folder
/// never becomes a component.
fn components(settings: &Settings) -> Vec<ConfigError> {
    let paths: Vec<_> = settings.modules.iter().map(|module| module.component.clone()).collect();
    // A file system that does not respond must not block the other modules.
    let kinds = files::blocking_with_timeout(COMPONENT_CHECK_TIMEOUT, move || {
        paths.iter().map(|path| NotRegular::at(path)).collect::<Vec<_>>()
    });
    let modules = settings.modules.iter().zip(kinds.unwrap_or_default());
    modules.filter_map(|(module, kind)| Some(invalid_component(module, kind?))).collect()
}

/// Returns the error for a component path that is not a regular file.
pub(super) fn invalid_component(module: &Module, kind: NotRegular) -> ConfigError {
    let message = format!("the component {} {}", module.component.display(), kind.description());
    let error = ConfigError::new(message).at(Some(module.component_location.clone()));
    error.advice("use the path of a .wasm file; the file does not have to exist yet")
}

/// Returns the warnings: mistakes the host can run with.
pub(super) fn warnings(settings: &Settings) -> Vec<ConfigError> {
    let mut warnings = Vec::new();
    let file = settings.file.display();
    // Included files may have them, even if they are refused now.
    let is_alone = settings.include.is_empty();
    if settings.modules.is_empty() && is_alone {
        let warning = ConfigError::new(format!("{file} has no [[module]]: events are accepted but never answered"));
        warnings.push(warning.advice("add a [[module]] with a name and a component"));
    }
    if settings.sources.is_empty() {
        if is_alone {
            let warning = ConfigError::new(format!("{file} has no [[source]]: no events can arrive"));
            warnings.push(warning.advice("add a [[source]] with name, path, scheme and secrets"));
        }
        warnings.extend(components(settings));
        return warnings;
    }
    for source in &settings.sources {
        if let Some(Webhook { scheme: Scheme::None { from_anywhere }, .. }) = source.webhook() {
            let sender = if *from_anywhere { "anyone who can reach the host" } else { "any program on this machine" };
            let warning =
                ConfigError::new(format!("the source \"{}\" verifies nothing: {sender} can send events", source.name));
            warnings.push(
                warning
                    .at(Some(source.location.clone()))
                    .advice("set `scheme` to the one that the platform signs with"),
            );
        }
    }
    warnings.extend(settings.sources.iter().filter_map(company_in_a_header));
    warnings.extend(event_socket::warnings(settings));
    warnings.extend(components(settings));
    let with_source: HashSet<&Name> = settings.sources.iter().filter_map(|source| source.tenant.as_ref()).collect();
    // A source without a tenant delivers events of all tenants, but of those in included files only by company.
    let has_shared = settings.sources.iter().any(|source| source.tenant.is_none());
    let included: HashSet<&Name> = settings.included.iter().filter_map(|file| file.tenant.as_ref()).collect();
    let only_own = settings.tenants.iter().filter(|it| it.companies.is_empty() && included.contains(&it.name));
    let only_own: HashSet<&Name> = only_own.map(|tenant| &tenant.name).collect();
    let is_served = |tenant: &Name| with_source.contains(tenant) || has_shared && !only_own.contains(tenant);
    for tenant in settings.tenants.iter().filter(|tenant| !is_served(&tenant.name)) {
        let warning = ConfigError::new(format!("no source delivers events of the tenant \"{}\"", tenant.name));
        warnings.push(warning.at(Some(tenant.location.clone())).advice("add a [[source]] with this tenant"));
    }
    for module in
        settings.modules.iter().filter(|it| !it.wants.tenants.is_empty() && !it.wants.tenants.iter().any(is_served))
    {
        let warning = ConfigError::new(format!("no source delivers events to the module \"{}\"", module.name));
        let advice = "none of its tenants has a [[source]]: add one, or change its `tenants`";
        warnings.push(warning.at(Some(module.location.clone())).advice(advice));
    }
    warnings
}
