//! `modhost routes`: shows which modules receive which events, and why others do not.

use std::fmt::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::bail;
use axum::http::HeaderMap;
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::diagnostics::{self, error_with_help};
use super::event_file::{EventFile, parse_header};
use super::help::examples;
use super::{SettingsFile, format_table, output};
use modhost_config::{Module, Settings, Source, SourceKind};
use modhost_core::event::event_filter::{Candidate, EventFilter, Mismatch};
use modhost_core::event::{Event, Name};
use modhost_core::plural::counted;
use modhost_core::sanitize::line;
use modhost_server::resolved_config::{TenantsOfSources, reader};

const DIM: Style = Style::new().dimmed();

/// Arguments of `modhost routes`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = examples!(
    "modhost routes"
    "modhost routes --json"
    "modhost routes test event.json --source github -H 'X-GitHub-Event: push'"
))]
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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum RoutesCommand {
    /// List the sources, and the events that each module receives (the default)
    #[command(after_long_help = examples!("modhost routes list" "modhost routes list --json"))]
    List(ListArgs),
    /// Show which modules would receive an event, and why others would not
    ///
    /// The file contains the body of a request, as the platform sends it. The signature is not verified, and nothing is sent.
    /// Exit code: 0 if a module receives the event, 1 if none does.
    #[command(after_long_help = examples!(
        "modhost routes test event.json"
        "modhost routes test event.json --source github -H 'X-GitHub-Event: push'"
        "cat event.json | modhost routes test -"
    ))]
    Test(TestArgs),
}

#[derive(Args)]
struct TestArgs {
    /// File with the body of the request, or - for standard input
    #[arg(value_name = "FILE")]
    event: EventFile,
    /// Name of the source in modules.toml [default: the first source that can read the event]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Request header, such as 'X-GitHub-Event: push'; can be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<super::event_file::HeaderLine>,
    #[command(flatten)]
    file: SettingsFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the routes, or the modules that receive an event.
///
/// # Errors
///
/// If the settings are invalid or the event cannot be read.
pub fn run(args: RoutesArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(RoutesCommand::Test(test)) => run_test(&test),
        Some(RoutesCommand::List(list)) => run_list(&list),
        None => run_list(&args.list),
    }
}

fn run_list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let settings = args.file.load()?;
    warn_of_refused(&settings);
    output::print!("{}", if args.json { as_json(&settings)? } else { as_table(&settings) });
    Ok(ExitCode::SUCCESS)
}

/// Warns that included files with errors are missing.
fn warn_of_refused(settings: &Settings) {
    let refused: Vec<_> = settings.included.iter().filter(|file| file.refused.is_some()).collect();
    if let Some(first) = refused.first() {
        let files = counted(refused.len(), "included file is", "included files are");
        diagnostics::warn(format_args!(
            "{files} invalid and not shown, the first is {}; `modhost check` shows the errors",
            first.path.display()
        ));
    }
}

fn as_table(settings: &Settings) -> String {
    let sources = settings.sources.iter().map(|source| {
        let tenant = source.tenant.as_ref().map_or("by the event's company", Name::as_str);
        let only = settings.tenants.first().filter(|_| settings.tenants.len() == 1);
        let endpoint = match &source.kind {
            SourceKind::Webhook(webhook) => webhook.path.clone(),
            SourceKind::EventSocket(_) => "event socket".to_owned(),
        };
        [source.name.to_string(), endpoint, only.map_or(tenant, |only| only.name.as_str()).to_owned()]
    });
    let modules = settings.modules.iter().flat_map(|module| {
        let conditions = conditions(&module.wants);
        module.wants.events.iter().enumerate().map(move |(index, pattern)| {
            let once = |text: &str| if index == 0 { text.to_owned() } else { String::new() };
            [once(module.name.as_str()), pattern.to_string(), once(&conditions)]
        })
    });
    format!(
        "{}\n{}",
        format_table(["source", "endpoint", "tenant"], sources.collect()),
        format_table(["module", "events", "conditions"], modules.collect())
    )
}

/// Formats the conditions on an event other than its name.
fn conditions(wants: &EventFilter) -> String {
    let mut conditions = Vec::new();
    if wants.events.iter().any(|pattern| pattern.matches(Event::MODULE_CHOSEN)) {
        conditions.push("chosen by the user".to_owned());
    }
    for (property, names) in [("source", &wants.sources), ("tenant", &wants.tenants)] {
        if !names.is_empty() {
            conditions.push(format!("{property} {}", any_of(names)));
        }
    }
    if !wants.assistants.is_empty() {
        conditions.push(format!("assistant {}", any_of(&wants.assistants)));
    }
    conditions.extend(wants.fields.iter().map(|(path, values)| format!("{path} = {}", any_of(values))));
    conditions.join(", ")
}

fn any_of(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
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
    warn_of_refused(&settings);
    let event = read(args, &settings)?;
    let own_modules = settings.own_modules(&event.tenant);
    let candidate = Candidate::new(&event).with_own_modules(Some(&own_modules));
    // The own modules of other tenants never receive the event.
    let modules = settings.modules.iter().filter(|it| it.owner.as_ref().is_none_or(|owner| *owner == event.tenant));
    let verdicts: Vec<_> = modules.map(|module| (module, module.wants.check(module.id(), &candidate))).collect();
    let is_received = verdicts.iter().any(|(_, verdict)| verdict.is_ok());
    output::print!(
        "{}",
        if args.json { verdicts_as_json(&event, &verdicts)? } else { verdicts_as_text(&event, &verdicts) }
    );
    Ok(if is_received { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads the event as its source does.
fn read(args: &TestArgs, settings: &Settings) -> anyhow::Result<Event> {
    let body = Bytes::from(args.event.read()?);
    let headers: HeaderMap = args.headers.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
    let named = |source: &&Source| args.source.as_ref().is_none_or(|name| source.name.as_str() == name);
    let sources: Vec<_> = settings.sources.iter().filter(named).collect();
    let mut problems = String::new();
    let tenants = TenantsOfSources::of(settings);
    for source in &sources {
        match reader(source, &tenants)?.read(&headers, &body) {
            Ok(event) => return Ok(event),
            Err(problem) => _ = write!(problems, "\n  {}: {problem}", source.name),
        }
    }
    match (&args.source, sources.is_empty()) {
        (Some(name), true) => bail!(settings.unknown_source(name)),
        (None, true) => {
            let message = format!("there is no [[source]] in {}", settings.file.display());
            Err(error_with_help(message, "add one, with name, path, scheme and secrets"))
        }
        _ => bail!("no source can read {} as an event:{problems}", args.event),
    }
}

type Verdict<'s> = (&'s Module, Result<(), Mismatch>);

fn verdicts_as_text(event: &Event, verdicts: &[Verdict<'_>]) -> String {
    let mut text = format!(
        "{} {}  {DIM}source \"{}\", tenant \"{}\"{DIM:#}\n\n",
        line(&event.name),
        line(&event.id),
        event.source,
        event.tenant
    );
    let width = verdicts.iter().map(|(module, _)| module.name.as_str().chars().count()).max().unwrap_or(0);
    let (good, bad) = (AnsiColor::Green.on_default(), DIM);
    for (module, verdict) in verdicts {
        _ = match verdict {
            Ok(()) => writeln!(text, "  {good}receives{good:#}  {}", module.name),
            Err(reason) => {
                writeln!(
                    text,
                    "  {bad}ignores {bad:#}  {:<width$}  {}",
                    module.name.as_str(),
                    line(&explain(reason, event, &module.wants))
                )
            }
        };
    }
    if let Some(error) = event.parse_error() {
        _ = writeln!(text, "\nThe payload has an unknown shape, {error}: a module receives the event as `other`.");
    }
    if verdicts.iter().all(|(_, verdict)| verdict.is_err()) {
        _ = writeln!(text, "\nNo module receives the event: the host would acknowledge and discard it.");
    }
    text
}

fn verdicts_as_json(event: &Event, verdicts: &[Verdict<'_>]) -> anyhow::Result<String> {
    let modules = verdicts.iter().map(|(module, verdict)| match verdict {
        Ok(()) => json!({ "name": module.name, "gets": true }),
        Err(reason) => json!({ "name": module.name, "gets": false, "reason": explain(reason, event, &module.wants) }),
    });
    let verdicts = json!({
        "event": {
            "id": event.id, "name": event.name, "source": event.source, "tenant": event.tenant, "flaw": event.parse_error(),
        },
        "modules": modules.collect::<Vec<Value>>(),
    });
    Ok(output::pretty_json(&verdicts)?)
}

/// Explains why a module does not receive an event.
fn explain(reason: &Mismatch, event: &Event, wants: &EventFilter) -> String {
    match reason {
        Mismatch::Name => format!("`events` are {}", any_of(&wants.events)),
        Mismatch::OtherModule(module) => format!("the user chose the module \"{module}\""),
        Mismatch::OwnModule(module) => {
            format!("the user chose the module \"{module}\", and the tenant \"{}\" has its own", event.tenant)
        }
        Mismatch::UnreadableModule => "the user chose a module, but its name cannot be read".to_owned(),
        Mismatch::Source => format!("`sources` are {}", any_of(&wants.sources)),
        Mismatch::Tenant => format!("`tenants` are {}", any_of(&wants.tenants)),
        Mismatch::Assistant => {
            let found = event.assistant_id().map_or("none".into(), |id| format!("\"{id}\""));
            format!("`assistants` are {}; the event's assistant is {found}", any_of(&wants.assistants))
        }
        Mismatch::Field(path, found) => {
            let wanted = wants.fields.get(path).map(|values| any_of(values)).unwrap_or_default();
            let found = found.as_deref().unwrap_or("missing");
            format!("`match` requires {path} = {wanted}; it is {found}")
        }
    }
}
