//! A report in the JUnit XML format, for CI systems.

use std::time::Duration;

use anyhow::Context;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::report::failure_text;
use super::{TestReport, TestResult};

/// Returns the report, with one suite per module and one case per test.
///
/// # Errors
///
/// If it cannot be represented in XML.
pub(super) fn report(tests: &[TestReport], elapsed: Duration) -> anyhow::Result<String> {
    let mut report = Report::new("modhost test");
    report.set_time(elapsed);
    let mut suite: Option<TestSuite> = None;
    for test in tests {
        if suite.as_ref().is_some_and(|suite| suite.name.as_str() != test.module.as_str()) {
            report.add_test_suites(suite.take());
        }
        suite.get_or_insert_with(|| TestSuite::new(test.module.as_str())).add_test_case(test_case(test));
    }
    report.add_test_suites(suite);
    report.to_string().context("cannot write the report as XML")
}

fn test_case(test: &TestReport) -> TestCase {
    let (kind, log) = match &test.result {
        TestResult::NotRun(_) => (Some(NonSuccessKind::Error), None),
        TestResult::Run { outcome, .. } => {
            let failed = !test.is_updated() && !outcome.passed();
            (
                failed.then_some(NonSuccessKind::Failure),
                outcome.observed.as_ref().map(|observed| observed.log.join("\n")),
            )
        }
    };
    let status = kind.map_or_else(TestCaseStatus::success, |kind| {
        let text = anstream::adapter::strip_str(&failure_text(test)).to_string();
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(text.lines().next().unwrap_or_default()).set_description(text);
        status
    });
    let mut case = TestCase::new(test.name.as_str(), status);
    case.set_classname(test.module.as_str());
    if let TestResult::Run { outcome, .. } = &test.result {
        case.set_time(outcome.took);
    }
    if let Some(log) = log.filter(|log| !log.is_empty()) {
        case.set_system_out(log);
    }
    case
}
