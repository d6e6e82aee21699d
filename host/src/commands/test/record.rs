//! `modhost test --record`: writes a test from a delivery.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::super::deliveries::records::{RecordFilter, Records};
use super::recorded::Recording;
use super::{TestArgs, engine, suite};
use crate::commands::{module, output};
use crate::testing::{Outcome, Test, TestRun};
use modhost_config::{Module, Settings};
use modhost_core::sanitize;
use modhost_server::admin_api::DetailsView;

/// What names the newest delivery that has ended.
const LAST: &str = "last";

/// How many deliveries are looked through for one that has ended.
const LOOKED_THROUGH: u32 = 50;

/// Writes the test, and says whether it passes.
///
/// The exit code is 0 if it does, 1 if it doesn't on the component as it is now.
///
/// # Errors
///
/// When there is no such delivery, its module is not in modules.toml, or the file can't be written.
pub(super) async fn run(args: &TestArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let records = Records::open(&args.from, Some(&settings.file)).await?;
    let id = match args.record.as_deref().unwrap_or(LAST) {
        LAST => newest(&records, &args.modules).await?,
        id => id.to_owned(),
    };
    let details = records.show(&id).await?;
    let module = module(settings, &details.delivery.module)?;
    if details.attempts_made.is_empty() {
        bail!("delivery {id} is {}: it has no attempt to record yet", details.delivery.state);
    }
    let file = match &args.out {
        Some(file) => file.clone(),
        None => free_file(&suite::folder(module, settings), &details)?,
    };
    let (text, verdict) = passing(&details, module, settings, &file).await?;
    if file == Path::new("-") {
        output::print!("{text}");
    } else {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
        }
        std::fs::write(&file, &text).with_context(|| format!("{} can't be written", file.display()))?;
        output::eprintln!("written: {}", file.display());
    }
    match verdict {
        Verdict::Passes => {
            output::eprintln!("it passes; take out what is of no matter, so that it fails only where it should");
            Ok(ExitCode::SUCCESS)
        }
        Verdict::Differs(told) => {
            output::eprintln!("it doesn't pass on {} as it is now:\n{told}", module.component.display());
            Ok(ExitCode::FAILURE)
        }
    }
}

enum Verdict {
    Passes,
    /// What differs, or why it can't be run.
    Differs(String),
}

/// The test that is easiest to read and passes; else the one that says most.
async fn passing(
    details: &DetailsView,
    module: &Module,
    settings: &Settings,
    file: &Path,
) -> anyhow::Result<(String, Verdict)> {
    let recording = Recording::new(details);
    let bench = TestRun::new(&engine(settings)?, settings, module).await;
    let whole = recording.whole();
    for text in [recording.short(), Some(whole.clone())].into_iter().flatten() {
        let Ok(bench) = &bench else { break };
        // What was just written is read; a mistake in it is ours.
        let test = Test::parse(&text, file)?;
        let outcome = bench.run(&test).await;
        if outcome.passed() {
            return Ok((text, Verdict::Passes));
        }
        if text == whole {
            return Ok((text, Verdict::Differs(differences(&outcome))));
        }
    }
    let reason = bench.err().map(|error| format!("{error:#}")).unwrap_or_default();
    Ok((whole, Verdict::Differs(reason)))
}

fn differences(outcome: &Outcome) -> String {
    let differences = outcome.differences.iter().map(|it| format!("{}: it is now\n{}", it.what, it.found));
    sanitize::lines(&outcome.problems.iter().cloned().chain(differences).collect::<Vec<_>>().join("\n")).into_owned()
}

/// The newest delivery to one of these modules, or to any, that has ended.
async fn newest(records: &Records, modules: &[String]) -> anyhow::Result<String> {
    let mut wanted =
        RecordFilter { state: None, module: None, tenant: None, event: None, since: None, limit: LOOKED_THROUGH };
    if let [only] = modules {
        wanted.module = Some(only.clone());
    }
    let found = records.list(&wanted).await?;
    let fits = |module: &String| modules.is_empty() || modules.contains(module);
    let newest = found.into_iter().find(|delivery| delivery.ended_at.is_some() && fits(&delivery.module));
    match newest {
        Some(delivery) => Ok(delivery.id),
        None => {
            bail!("no delivery has ended yet; chat with a module first: {} send \"Hello\"", crate::commands::program())
        }
    }
}

/// A file that isn't there yet, named by what the event says.
fn free_file(folder: &Path, details: &DetailsView) -> anyhow::Result<PathBuf> {
    let name = Recording::new(details).name();
    let mut names = std::iter::once(name.clone()).chain((2..1000).map(|n| format!("{name}-{n}")));
    let free = names.find_map(|name| {
        let file = folder.join(format!("{name}.toml"));
        (!file.exists()).then_some(file)
    });
    free.with_context(|| format!("{} is full of tests called {name}; name a file: --out FILE", folder.display()))
}
