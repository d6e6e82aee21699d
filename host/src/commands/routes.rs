//! `modhost routes`: who gets which events, and why the others don't.

use std::fmt::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::bail;
use axum::http::HeaderMap;
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::event_file::{EventFile, parse_header};
use super::{SettingsFile, columns, output};
use modhost_config::{Module, Settings, Source, SourceKind};
use modhost_core::event::interest::{Candidate, Interest, Unwanted};
use modhost_core::event::{Event, Name};
use modhost_core::sanitize::line;
use modhost_server::resolved_config::reader;

const DIM: Style = Style::new().dimmed();

/// What `routes` can be told.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RoutesArgs {
    #[command(flatten)]
    list: ListArgs,
    #[command(subcommand)]
    command: Option<RoutesCommand>,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    file: SettingsFile,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum RoutesCommand {
    /// Print which module gets which events (what `modhost routes` alone does)
    List(ListArgs),
    /// Tell which modules would get an event, and why the others wouldn't
    ///
    /// The file holds the body of a request, as the platform would send it. Nothing is verified and nothing is sent. The
    /// exit code is 0 if some module gets it, 1 if none does.
    Test(TestArgs),
}

#[derive(Args)]
struct TestArgs {
    /// The body of the request: a file, or - for standard input
    #[arg(value_name = "FILE")]
    event: EventFile,
    /// The source that brings it, by its name in modules.toml [default: the first that can read it]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// A header of the request, for sources that read some: 'X-GitHub-Event: push'
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<super::event_file::HeaderLine>,
    #[command(flatten)]
    file: SettingsFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the routes, or who gets an event.
///
/// # Errors
///
/// When the settings are no good, or the event can't be read.
pub fn run(args: RoutesArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(RoutesCommand::Test(test)) => run_test(&test),
        Some(RoutesCommand::List(list)) => run_list(&list),
        None => run_list(&args.list),
    }
}

fn run_list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let settings = args.file.load()?;
    output::print!("{}", if args.json { as_json(&settings)? } else { as_table(&settings) });
    Ok(ExitCode::SUCCESS)
}

fn as_table(settings: &Settings) -> String {
    let sources = settings.sources.iter().map(|source| {
        let tenant = source.tenant.as_ref().map_or("as the event's company tells", Name::as_str);
        let only = settings.tenants.first().filter(|_| settings.tenants.len() == 1);
        let way = match &source.kind {
            SourceKind::Webhook(webhook) => webhook.path.clone(),
            SourceKind::EventSocket(_) => "event socket".to_owned(),
        };
        [source.name.to_string(), way, only.map_or(tenant, |only| only.name.as_str()).to_owned()]
    });
    let modules = settings.modules.iter().flat_map(|module| {
        let conditions = conditions(&module.wants);
        module.wants.events.iter().enumerate().map(move |(place, pattern)| {
            let once = |text: &str| if place == 0 { text.to_owned() } else { String::new() };
            [once(module.name.as_str()), pattern.to_string(), once(&conditions)]
        })
    });
    format!(
        "{}\n{}",
        columns(["source", "comes by", "tenant"], sources.collect()),
        columns(["module", "events", "only"], modules.collect())
    )
}

/// What an event has to be besides its name.
fn conditions(wants: &Interest) -> String {
    let mut conditions = Vec::new();
    if wants.events.iter().any(|pattern| pattern.matches(Event::MODULE_CHOSEN)) {
        conditions.push("that choose it".to_owned());
    }
    for (what, names) in [("source", &wants.sources), ("tenant", &wants.tenants)] {
        if !names.is_empty() {
            conditions.push(format!("{what} {}", any_of(names)));
        }
    }
    if !wants.assistants.is_empty() {
        conditions.push(format!("assistant {}", any_of(&wants.assistants)));
    }
    conditions.extend(wants.fields.iter().map(|(path, values)| format!("{path} = {}", any_of(values))));
    conditions.join(", ")
}

fn any_of(these: &[impl ToString]) -> String {
    these.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn as_json(settings: &Settings) -> anyhow::Result<String> {
    let source = |source: &Source| match &source.kind {
        SourceKind::Webhook(webhook) => {
            json!({ "name": source.name, "kind": "webhook", "path": webhook.path, "tenant": source.tenant })
        }
        SourceKind::EventSocket(_) => json!({ "name": source.name, "kind": "event-socket", "tenant": source.tenant }),
    };
    let module = |module: &Module| {
        let wants = &module.wants;
        let events: Vec<_> = wants.events.iter().map(ToString::to_string).collect();
        let fields: serde_json::Map<_, _> =
            wants.fields.iter().map(|(path, values)| (path.to_string(), json!(values))).collect();
        json!({
            "name": module.name, "events": events, "sources": wants.sources, "tenants": wants.tenants,
            "assistants": wants.assistants, "match": fields,
        })
    };
    let routes = json!({
        "sources": settings.sources.iter().map(source).collect::<Vec<_>>(),
        "modules": settings.modules.iter().map(module).collect::<Vec<_>>(),
    });
    Ok(output::pretty_json(&routes)?)
}

fn run_test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let settings = args.file.load()?;
    let event = read(args, &settings)?;
    let candidate = Candidate::new(&event);
    let verdicts: Vec<_> =
        settings.modules.iter().map(|module| (module, module.wants.judge(&module.name, &candidate))).collect();
    let is_wanted = verdicts.iter().any(|(_, verdict)| verdict.is_ok());
    output::print!("{}", if args.json { verdicts_as_json(&event, &verdicts)? } else { told(&event, &verdicts) });
    Ok(if is_wanted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads the event as the source would that brings it.
fn read(args: &TestArgs, settings: &Settings) -> anyhow::Result<Event> {
    let body = Bytes::from(args.event.read()?);
    let headers: HeaderMap = args.headers.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
    let named = |source: &&Source| args.source.as_ref().is_none_or(|name| source.name.as_str() == name);
    let sources: Vec<_> = settings.sources.iter().filter(named).collect();
    let mut problems = String::new();
    for source in &sources {
        match reader(source, settings)?.read(&headers, &body) {
            Ok(event) => return Ok(event),
            Err(problem) => _ = write!(problems, "\n  {}: {problem}", source.name),
        }
    }
    match (&args.source, sources.is_empty()) {
        (Some(name), true) => bail!(settings.no_source(name)),
        (None, true) => bail!("there is no [[source]] in {}", settings.file.display()),
        _ => bail!("{} can't be read as an event:{problems}", args.event),
    }
}

type Verdict<'s> = (&'s Module, Result<(), Unwanted>);

fn told(event: &Event, verdicts: &[Verdict<'_>]) -> String {
    let mut text = format!(
        "{} {}  {DIM}as source \"{}\" brings it, of tenant \"{}\"{DIM:#}\n\n",
        line(&event.name),
        line(&event.id),
        event.source,
        event.tenant
    );
    let width = verdicts.iter().map(|(module, _)| module.name.as_str().chars().count()).max().unwrap_or(0);
    let (good, bad) = (AnsiColor::Green.on_default(), DIM);
    for (module, verdict) in verdicts {
        _ = match verdict {
            Ok(()) => writeln!(text, "  {good}gets it{good:#}  {}", module.name),
            Err(reason) => {
                writeln!(
                    text,
                    "  {bad}doesn't{bad:#}  {:<width$}  {}",
                    module.name.as_str(),
                    line(&why(reason, event, &module.wants))
                )
            }
        };
    }
    if let Some(flaw) = event.flaw() {
        _ = writeln!(text, "\nThe payload has an unknown shape, {flaw}: a module gets the event as `other`.");
    }
    if verdicts.iter().all(|(_, verdict)| verdict.is_err()) {
        _ = writeln!(text, "\nNobody gets it: it would be acknowledged and forgotten.");
    }
    text
}

fn verdicts_as_json(event: &Event, verdicts: &[Verdict<'_>]) -> anyhow::Result<String> {
    let modules = verdicts.iter().map(|(module, verdict)| match verdict {
        Ok(()) => json!({ "name": module.name, "gets": true }),
        Err(reason) => json!({ "name": module.name, "gets": false, "reason": why(reason, event, &module.wants) }),
    });
    let told = json!({
        "event": {
            "id": event.id, "name": event.name, "source": event.source, "tenant": event.tenant, "flaw": event.flaw(),
        },
        "modules": modules.collect::<Vec<Value>>(),
    });
    Ok(output::pretty_json(&told)?)
}

/// Why a module doesn't get an event, in words.
fn why(reason: &Unwanted, event: &Event, wants: &Interest) -> String {
    match reason {
        Unwanted::Name => format!("it wants {}", any_of(&wants.events)),
        Unwanted::ForAnother(module) => format!("the event chose the module \"{module}\""),
        Unwanted::ForNobody => "the event chose a module, and the module's name can't be read".to_owned(),
        Unwanted::Source => format!("it wants those of the source {}", any_of(&wants.sources)),
        Unwanted::Tenant => format!("it works for the tenant {}", any_of(&wants.tenants)),
        Unwanted::Assistant => {
            let found = event.assistant_id().map_or("none".into(), |id| format!("\"{id}\""));
            format!("it wants those of the assistant {}, and the event's is {found}", any_of(&wants.assistants))
        }
        Unwanted::Field(path, found) => {
            let wanted = wants.fields.get(path).map(|values| any_of(values)).unwrap_or_default();
            let found = found.as_deref().unwrap_or("not there");
            format!("it wants {path} = {wanted}, and that is {found}")
        }
    }
}
