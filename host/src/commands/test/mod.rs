//! `modhost test`: runs the tests of modules: an event, scripted results of calls, and expectations.

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
use super::help::examples;
use super::{SettingsFile, caching_engine, diagnostics, output};
use crate::testing::{TestOutcome, TestRun};
use modhost_config::{Module, Settings};
use modhost_core::event::Name;
use modhost_runtime::engine::{Engine, FileWatch};
use report::Totals;
use suite::{LoadedTest, Suite};

/// The folder of tests, in a module's folder.
pub(super) const TESTS_FOLDER: &str = "tests";

/// How many tests run concurrently, in addition to one per core.
const EXTRA_CONCURRENCY: usize = 8;

/// Arguments of `modhost test`.
#[derive(Args)]
#[command(after_long_help = examples!(
    "modhost test"
    "modhost test Mine --filter travel --watch"
    "modhost test --record last"
    "modhost test --update"
    "modhost test --junit target/junit.xml"
))]
pub struct TestArgs {
    /// Modules to test [default: all modules with tests]
    #[arg(value_name = "NAME")]
    modules: Vec<String>,
    #[command(flatten)]
    file: SettingsFile,
    /// Run only tests whose name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Test the existing components; do not build
    #[arg(long)]
    no_build: bool,
    /// Replace expectations that are not met with the actual result; leave the rest of the file unchanged
    #[arg(long)]
    update: bool,
    /// Run again when a source or a test changes, until interrupted
    #[arg(long, conflicts_with_all = ["update", "junit", "record"])]
    watch: bool,
    /// File for a report in the JUnit XML format
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Delivery to record as a test: its id, or `last` for the newest that has ended
    #[arg(long, value_name = "DELIVERY", conflicts_with_all = ["filter", "update", "junit"])]
    record: Option<String>,
    /// File for the recorded test, or - for standard output [default: a new file among the module's tests]
    #[arg(long, value_name = "FILE", requires = "record")]
    out: Option<PathBuf>,
    #[command(flatten)]
    from: FromArgs,
}

/// A test and its result.
struct TestReport {
    module: Name,
    name: String,
    file: PathBuf,
    result: TestResult,
}

enum TestResult {
    Run {
        outcome: Box<TestOutcome>,
        updated: bool,
    },
    /// Why the test could not run: its file is invalid, or its module cannot run.
    NotRun(String),
}

impl TestReport {
    /// Returns whether the file was updated to expect the whole result.
    fn is_updated(&self) -> bool {
        let TestResult::Run { outcome, updated: true } = &self.result else { return false };
        outcome.problems.is_empty() && outcome.differences.iter().all(|it| !it.replacements.is_empty())
    }
}

/// Runs the tests, or records one.
///
/// # Errors
///
/// If there are no tests to run or the settings are invalid.
pub async fn run(args: TestArgs) -> anyhow::Result<ExitCode> {
    if args.record.is_some() {
        let settings = args.file.load()?;
        return record::run(&args, &settings).await;
    }
    if args.watch {
        return watch(&args).await;
    }
    match run_once(&args).await {
        Ok(totals) => Ok(totals.exit_code()),
        Err(error) => {
            diagnostics::report(&error);
            Ok(ExitCode::from(2))
        }
    }
}

/// Runs the tests once.
async fn run_once(args: &TestArgs) -> anyhow::Result<Totals> {
    let settings = args.file.load()?;
    let suites = suite::find(&settings, &args.modules, args.filter.as_deref())?;
    let names: Vec<Name> = suites.iter().map(|suite| suite.module.name.clone()).collect();
    let failed_builds = if args.no_build { Vec::new() } else { Builder::new(&settings).build_outdated(&names).await };
    let started = Instant::now();
    let engine = engine(&settings)?;
    let mut all = Vec::new();
    for suite in suites {
        report::print_heading(&suite);
        let built = !failed_builds.contains(&suite.module.name);
        all.extend(run_suite(&engine, &settings, suite, built, args.update).await);
    }
    let took = started.elapsed();
    report::print_failures(&all);
    if let Some(file) = &args.junit {
        let report = junit::report(&all, took)?;
        std::fs::write(file, report).with_context(|| format!("cannot write the report to {}", file.display()))?;
    }
    let totals = Totals::of(&all);
    report::print_summary(&totals, took);
    Ok(totals)
}

/// Runs the tests of a module concurrently, and prints their results in order.
async fn run_suite(engine: &Engine, settings: &Settings, suite: Suite, built: bool, update: bool) -> Vec<TestReport> {
    let test_run = match built {
        true => TestRun::new(engine, settings, &suite.module).await.map_err(|error| format!("{error:#}")),
        false => Err("its module cannot be built".to_owned()),
    };
    let test_run = test_run.map(Arc::new);
    let runs = suite.tests.into_iter().map(|loaded| {
        let (test_run, module) = (test_run.clone(), suite.module.name.clone());
        tokio::spawn(run_test(test_run, module, loaded, update))
    });
    let mut running = futures::stream::iter(runs.collect::<Vec<_>>()).buffered(EXTRA_CONCURRENCY + cores());
    let mut all = Vec::new();
    while let Some(report) = running.next().await {
        match report {
            Ok(report) => {
                report::print_result(&report);
                all.push(report);
            }
            // The panic message is on standard error.
            Err(error) => diagnostics::report(&anyhow::anyhow!("a test panicked; please report this: {error}")),
        }
    }
    all
}

async fn run_test(
    test_run: Result<Arc<TestRun>, String>,
    module: Name,
    loaded: LoadedTest,
    update: bool,
) -> TestReport {
    let LoadedTest { file, name, test } = loaded;
    let result = match (test_run, test) {
        (_, Err(errors)) => TestResult::NotRun(errors.to_string()),
        (Err(reason), _) => TestResult::NotRun(reason),
        (Ok(test_run), Ok(test)) => {
            let outcome = test_run.run(&test).await;
            let updated = if update { test.updated_text(&outcome) } else { None };
            match updated.map(|text| std::fs::write(&file, text)).transpose() {
                Ok(written) => TestResult::Run { outcome: Box::new(outcome), updated: written.is_some() },
                Err(error) => TestResult::NotRun(format!("cannot write {}: {error}", file.display())),
            }
        }
    };
    TestReport { module, name, file, result }
}

/// Returns an engine for the modules of these settings.
fn engine(settings: &Settings) -> anyhow::Result<Engine> {
    caching_engine(settings, EXTRA_CONCURRENCY + cores())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs the tests now, and again whenever a source or a test changes.
async fn watch(args: &TestArgs) -> anyhow::Result<ExitCode> {
    // The list of files is computed again after each change, because the settings may change.
    let file = args.file.config.clone();
    let modules = args.modules.clone();
    let mut watch = FileWatch::new(move || watched_files(&file, &modules));
    loop {
        if let Err(error) = run_once(args).await {
            diagnostics::report(&error);
        }
        output::println!("\nwaiting for changes…\n");
        // Ignores what the build has just written.
        watch.scan_now();
        tokio::select! {
            stop = super::signals::stop_requested() => {
                stop?;
                return Ok(ExitCode::SUCCESS);
            }
            _ = watch.changed() => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn watched_files(file: &std::path::Path, modules: &[String]) -> BTreeSet<PathBuf> {
    let Ok(settings) = Settings::load(file) else { return BTreeSet::from([file.to_owned()]) };
    let mut files = Builder::new(&settings).files();
    files.extend(settings.included.iter().map(|included| included.path.clone()));
    let named = |module: &&Module| modules.is_empty() || modules.iter().any(|name| name == module.name.as_str());
    for module in settings.modules.iter().filter(named) {
        files.insert(module.component.clone());
        files.extend(suite::files_in(&suite::folder(module)));
    }
    files
}
