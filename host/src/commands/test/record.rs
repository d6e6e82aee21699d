//! `modhost test --record`: records a delivery as a test.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};

use super::super::deliveries::records::{RecordFilter, Records};
use super::recorded::Recording;
use super::{TestArgs, engine, suite};
use crate::commands::diagnostics::{self, error_with_help};
use crate::commands::{find_module, output};
use crate::testing::{Test, TestOutcome, TestRun};
use modhost_config::{Module, Settings};
use modhost_core::sanitize;
use modhost_server::admin_api::DetailsView;

/// Stands for the newest delivery that has ended.
const LAST: &str = "last";

/// Maximum number of deliveries to search for one that has ended.
const MAX_SEARCHED: u32 = 50;

/// Writes the test and runs it.
///
/// The exit code is 0 if it passes on the current component, 1 if not.
///
/// # Errors
///
/// If there is no such delivery, its module is not in modules.toml, or the file cannot be written.
pub(super) async fn run(args: &TestArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let records = Records::open(&args.from, Some(&settings.file)).await?;
    let id = match args.record.as_deref().unwrap_or(LAST) {
        LAST => newest(&records, &args.modules).await?,
        id => id.to_owned(),
    };
    let details = records.show(&id).await?;
    let module = find_module(settings, &details.delivery.module)?;
    if details.attempts_made.is_empty() {
        bail!("delivery {id} is {}: it has no attempt yet that could be recorded", details.delivery.state);
    }
    let file = match &args.out {
        Some(file) => file.clone(),
        None => free_file(&suite::folder(module), &details)?,
    };
    let (text, verdict) = record_and_run(&details, module, settings, &file).await?;
    if file == Path::new("-") {
        output::print!("{text}");
    } else {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create the folder {}", folder.display()))?;
        }
        std::fs::write(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
        output::eprintln!("recorded {}", file.display());
    }
    match verdict {
        Verdict::Passes => {
            output::eprintln!("the test passes");
            diagnostics::hint("remove expectations that do not matter, so that the test fails only for a reason");
            Ok(ExitCode::SUCCESS)
        }
        Verdict::Fails(reason) => {
            let component = module.component.display();
            diagnostics::report(&anyhow!("the test fails on the current {component}:\n{reason}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

enum Verdict {
    Passes,
    /// The differences, or why the test cannot run.
    Fails(String),
}

/// Returns the short form of the test if it passes, else the complete form, and its verdict.
async fn record_and_run(
    details: &DetailsView,
    module: &Module,
    settings: &Settings,
    file: &Path,
) -> anyhow::Result<(String, Verdict)> {
    let recording = Recording::new(details);
    let test_run = TestRun::new(&engine(settings)?, settings, module).await;
    let complete = recording.complete();
    for text in [recording.short(), Some(complete.clone())].into_iter().flatten() {
        let Ok(test_run) = &test_run else { break };
        let test = Test::parse(&text, file)?;
        let outcome = test_run.run(&test).await;
        if outcome.passed() {
            return Ok((text, Verdict::Passes));
        }
        if text == complete {
            return Ok((text, Verdict::Fails(differences(&outcome))));
        }
    }
    let reason = test_run.err().map(|error| format!("{error:#}")).unwrap_or_default();
    Ok((complete, Verdict::Fails(reason)))
}

fn differences(outcome: &TestOutcome) -> String {
    let differences = outcome.differences.iter().map(|it| format!("{} is now:\n{}", it.subject, it.found));
    sanitize::lines(&outcome.problems.iter().cloned().chain(differences).collect::<Vec<_>>().join("\n")).into_owned()
}

/// Returns the newest delivery that has ended, to one of these modules if any are given.
async fn newest(records: &Records, modules: &[String]) -> anyhow::Result<String> {
    let mut filter =
        RecordFilter { state: None, module: None, tenant: None, event: None, since: None, limit: MAX_SEARCHED };
    if let [only] = modules {
        filter.module = Some(only.clone());
    }
    let found = records.list(&filter).await?;
    let is_selected = |module: &String| modules.is_empty() || modules.contains(module);
    let newest = found.into_iter().find(|delivery| delivery.ended_at.is_some() && is_selected(&delivery.module));
    match newest {
        Some(delivery) => Ok(delivery.id),
        None => {
            let help = format!("send a message to a module first: {} send \"Hello\"", crate::commands::program());
            Err(error_with_help("no delivery has ended yet", help))
        }
    }
}

/// Returns the path of a new file, named after the text of the event.
fn free_file(folder: &Path, details: &DetailsView) -> anyhow::Result<PathBuf> {
    let name = Recording::new(details).name();
    let mut names = std::iter::once(name.clone()).chain((2..1000).map(|n| format!("{name}-{n}")));
    let free = names.find_map(|name| {
        let file = folder.join(format!("{name}.toml"));
        (!file.exists()).then_some(file)
    });
    free.with_context(|| format!("{} contains too many tests named {name}; name a file with --out", folder.display()))
}
