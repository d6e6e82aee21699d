//! A report for other people's CI, in JUnit's format.

use std::time::Duration;

use anyhow::Context;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::report::failure;
use super::{Ran, Result};

/// The report: a suite a module, a case a test.
///
/// # Errors
///
/// When it can't be written as XML.
pub(super) fn report(all: &[Ran], took: Duration) -> anyhow::Result<String> {
    let mut report = Report::new("modhost test");
    report.set_time(took);
    let mut suite: Option<TestSuite> = None;
    for ran in all {
        if suite.as_ref().is_some_and(|suite| suite.name.as_str() != ran.module.as_str()) {
            report.add_test_suites(suite.take());
        }
        suite.get_or_insert_with(|| TestSuite::new(ran.module.as_str())).add_test_case(case(ran));
    }
    report.add_test_suites(suite);
    report.to_string().context("the report can't be written as XML")
}

fn case(ran: &Ran) -> TestCase {
    let (kind, log) = match &ran.result {
        Result::NotRun(_) => (Some(NonSuccessKind::Error), None),
        Result::Ran { outcome, .. } => {
            let failed = !ran.is_updated() && !outcome.passed();
            (failed.then_some(NonSuccessKind::Failure), outcome.observed.as_ref().map(|seen| seen.log.join("\n")))
        }
    };
    let status = kind.map_or_else(TestCaseStatus::success, |kind| {
        let told = anstream::adapter::strip_str(&failure(ran)).to_string();
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(told.lines().next().unwrap_or_default()).set_description(told);
        status
    });
    let mut case = TestCase::new(ran.name.as_str(), status);
    case.set_classname(ran.module.as_str());
    if let Result::Ran { outcome, .. } = &ran.result {
        case.set_time(outcome.took);
    }
    if let Some(log) = log.filter(|log| !log.is_empty()) {
        case.set_system_out(log);
    }
    case
}
