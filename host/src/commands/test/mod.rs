//! `modhost test`: runs modules on events with scripted answers.

mod junit;
mod record;
mod recorded;
mod report;
mod suite;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures::StreamExt;

use super::deliveries::FromArgs;
use super::dev::build::Builder;
use super::{SettingsFile, output};
use crate::testing::{Outcome, TestRun};
use modhost_config::{Module, Settings};
use modhost_core::event::Name;
use modhost_runtime::engine::{Engine, FileWatch};
use report::Totals;
use suite::{Loaded, Suite};

/// Where a module's tests lie, in its folder.
pub(super) const TESTS: &str = "tests";

/// How many tests run at once, beyond one for each core: they wait little.
const AT_ONCE: usize = 8;

/// What `test` can be told.
#[derive(Args)]
pub struct TestArgs {
    /// The modules to test [default: all that have tests]
    #[arg(value_name = "NAME")]
    modules: Vec<String>,
    #[command(flatten)]
    file: SettingsFile,
    /// Only the tests whose name has this in it
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Test the components as they are
    #[arg(long)]
    no_build: bool,
    /// Expect what there is: rewrite what was expected and not found, and nothing else in the file
    #[arg(long)]
    update: bool,
    /// Run again whenever a source or a test changes, until stopped
    #[arg(long, conflicts_with_all = ["update", "junit", "record"])]
    watch: bool,
    /// Write a report in JUnit's format to this file, besides
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a test from a delivery: its id, or `last` for the newest that has ended
    #[arg(long, value_name = "DELIVERY", conflicts_with_all = ["filter", "update", "junit"])]
    record: Option<String>,
    /// Write the recorded test to this file, or to standard output: - [default: a new file in the module's tests]
    #[arg(long, value_name = "FILE", requires = "record")]
    out: Option<PathBuf>,
    #[command(flatten)]
    from: FromArgs,
}

/// A test that was run, or couldn't be.
struct Ran {
    module: Name,
    name: String,
    file: PathBuf,
    result: Result,
}

enum Result {
    Ran {
        outcome: Box<Outcome>,
        updated: bool,
    },
    /// The file is no test, or its module can't run; why.
    NotRun(String),
}

impl Ran {
    /// Whether its file now expects all that there was.
    fn is_updated(&self) -> bool {
        let Result::Ran { outcome, updated: true } = &self.result else { return false };
        outcome.problems.is_empty() && outcome.differences.iter().all(|it| !it.accept.is_empty())
    }
}

/// Runs the tests, or records one.
///
/// # Errors
///
/// When there is nothing to run, or the settings are no good.
pub async fn run(args: TestArgs) -> anyhow::Result<ExitCode> {
    if args.record.is_some() {
        let settings = args.file.load()?;
        return record::run(&args, &settings).await;
    }
    if args.watch {
        return watch(&args).await;
    }
    match once(&args).await {
        Ok(totals) => Ok(totals.exit_code()),
        Err(error) => {
            super::failed(&error);
            Ok(ExitCode::from(2))
        }
    }
}

/// Runs the tests once.
async fn once(args: &TestArgs) -> anyhow::Result<Totals> {
    let settings = args.file.load()?;
    let suites = suite::find(&settings, &args.modules, args.filter.as_deref())?;
    let names: Vec<Name> = suites.iter().map(|suite| suite.module.name.clone()).collect();
    let unbuilt = if args.no_build { Vec::new() } else { Builder::new(&settings).build_outdated(&names).await };
    let started = Instant::now();
    let engine = engine(&settings)?;
    let mut all = Vec::new();
    for suite in suites {
        report::heading(&suite);
        let built = !unbuilt.contains(&suite.module.name);
        all.extend(run_suite(&engine, &settings, suite, built, args.update).await);
    }
    let took = started.elapsed();
    report::failures(&all);
    if let Some(file) = &args.junit {
        let report = junit::report(&all, took)?;
        std::fs::write(file, report).with_context(|| format!("the report can't be written to {}", file.display()))?;
    }
    let totals = Totals::of(&all);
    report::summary(&totals, took);
    Ok(totals)
}

/// Runs the tests of a module side by side, and says how each went, in their order.
async fn run_suite(engine: &Engine, settings: &Settings, suite: Suite, built: bool, update: bool) -> Vec<Ran> {
    let bench = match built {
        true => TestRun::new(engine, settings, &suite.module).await.map_err(|error| format!("{error:#}")),
        false => Err("its module can't be built".to_owned()),
    };
    let bench = bench.map(Arc::new);
    let runs = suite.tests.into_iter().map(|loaded| {
        let (bench, module) = (bench.clone(), suite.module.name.clone());
        tokio::spawn(run_test(bench, module, loaded, update))
    });
    let mut running = futures::stream::iter(runs.collect::<Vec<_>>()).buffered(AT_ONCE + cores());
    let mut all = Vec::new();
    while let Some(ran) = running.next().await {
        match ran {
            Ok(ran) => {
                report::line(&ran);
                all.push(ran);
            }
            // A panic of ours; what it said stands on standard error.
            Err(error) => output::eprintln!("a test broke off: {error}"),
        }
    }
    all
}

async fn run_test(bench: std::result::Result<Arc<TestRun>, String>, module: Name, loaded: Loaded, update: bool) -> Ran {
    let Loaded { file, name, test } = loaded;
    let result = match (bench, test) {
        (_, Err(errors)) => Result::NotRun(errors.to_string()),
        (Err(reason), _) => Result::NotRun(reason),
        (Ok(bench), Ok(test)) => {
            let outcome = bench.run(&test).await;
            let accepted = if update { test.accepting(&outcome) } else { None };
            match accepted.map(|text| std::fs::write(&file, text)).transpose() {
                Ok(written) => Result::Ran { outcome: Box::new(outcome), updated: written.is_some() },
                Err(error) => Result::NotRun(format!("{} can't be written: {error}", file.display())),
            }
        }
    };
    Ran { module, name, file, result }
}

/// An engine for these settings' modules.
fn engine(settings: &Settings) -> anyhow::Result<Engine> {
    super::keeping_engine(settings, AT_ONCE + cores())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs the tests now and whenever something of them changes.
async fn watch(args: &TestArgs) -> anyhow::Result<ExitCode> {
    // Other settings may name other files to watch.
    let file = args.file.config.clone();
    let modules = args.modules.clone();
    let mut watch = FileWatch::new(move || watched(&file, &modules));
    loop {
        if let Err(error) = once(args).await {
            super::failed(&error);
        }
        output::println!("\nwaiting for a change …\n");
        // What a build wrote just now is no change of the sources.
        watch.look();
        tokio::select! {
            stop = super::signals::stop_requested() => {
                stop?;
                return Ok(ExitCode::SUCCESS);
            }
            _ = watch.changed() => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn watched(file: &std::path::Path, modules: &[String]) -> BTreeSet<PathBuf> {
    let Ok(settings) = Settings::load(file) else { return BTreeSet::from([file.to_owned()]) };
    let mut files = Builder::new(&settings).files();
    let named = |module: &&Module| modules.is_empty() || modules.iter().any(|name| name == module.name.as_str());
    for module in settings.modules.iter().filter(named) {
        files.insert(module.component.clone());
        files.extend(suite::around(&suite::folder(module, &settings)));
    }
    files
}
