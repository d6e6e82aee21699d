//! Prints the results of tests.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

use super::suite::Suite;
use super::{TestReport, TestResult};
use crate::commands::output;
use crate::testing::Difference;
use modhost_core::sanitize::{self, lines as safe};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// Maximum number of lines of a text or a difference to print.
const MAX_LINES: usize = 80;

/// The number of tests by result.
#[derive(Default)]
pub(super) struct Totals {
    passed: usize,
    failed: usize,
    not_run: usize,
    updated: usize,
}

impl Totals {
    pub(super) fn of(tests: &[TestReport]) -> Self {
        let mut totals = Self::default();
        for test in tests {
            match &test.result {
                TestResult::NotRun(_) => totals.not_run += 1,
                TestResult::Run { .. } if test.is_updated() => totals.updated += 1,
                TestResult::Run { outcome, .. } if outcome.passed() => totals.passed += 1,
                TestResult::Run { .. } => totals.failed += 1,
            }
        }
        totals
    }

    /// Returns 0 if all tests passed, 1 if some failed, 2 if some could not run.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self { not_run: 1.., .. } => ExitCode::from(2),
            Self { failed: 1.., .. } => ExitCode::from(1),
            Self { .. } => ExitCode::SUCCESS,
        }
    }
}

pub(super) fn print_heading(suite: &Suite) {
    output::println!("{BOLD}{}{BOLD:#}  {DIM}{}{DIM:#}", suite.module.name, suite.folder.display());
}

pub(super) fn print_result(test: &TestReport) {
    let (style, word) = match &test.result {
        TestResult::NotRun(_) => (BAD, "NOT RUN"),
        TestResult::Run { .. } if test.is_updated() => (GOOD, "updated"),
        TestResult::Run { outcome, .. } if outcome.passed() => (GOOD, "ok"),
        TestResult::Run { .. } => (BAD, "FAILED"),
    };
    let took = match &test.result {
        TestResult::Run { outcome, .. } => format!("  {DIM}{}{DIM:#}", format_time(outcome.took)),
        TestResult::NotRun(_) => String::new(),
    };
    output::println!("test {} ... {style}{word}{style:#}{took}", sanitize::line(&test.name));
}

/// Prints all failures.
pub(super) fn print_failures(tests: &[TestReport]) {
    for test in tests {
        let text = failure_text(test);
        if !text.is_empty() {
            output::print!(
                "\n{BOLD}---- {} {}{BOLD:#}  {DIM}{}{DIM:#}\n{text}",
                test.module,
                test.name,
                test.file.display()
            );
        }
    }
}

pub(super) fn print_summary(totals: &Totals, elapsed: Duration) {
    let Totals { passed, failed, not_run, updated } = totals;
    let (style, word) = if failed + not_run == 0 { (GOOD, "ok") } else { (BAD, "FAILED") };
    let mut text = format!("\n{style}{word}{style:#}: {passed} passed, {failed} failed");
    if *not_run > 0 {
        _ = write!(text, ", {not_run} not run");
    }
    if *updated > 0 {
        _ = write!(text, ", {updated} updated (review the changes before you commit them)");
    }
    output::println!("{text}; in {}", format_time(elapsed));
}

/// Returns the failure of a test, with colors. Empty if the test did not fail.
pub(super) fn failure_text(test: &TestReport) -> String {
    let mut text = String::new();
    match &test.result {
        TestResult::NotRun(reason) => _ = writeln!(text, "{}", safe(reason)),
        TestResult::Run { outcome, updated } => {
            for problem in &outcome.problems {
                _ = writeln!(text, "{}", truncate_lines(&safe(problem)));
            }
            // An update has removed the other differences.
            for difference in outcome.differences.iter().filter(|it| !updated || it.replacements.is_empty()) {
                write_difference(&mut text, test, difference);
                if *updated {
                    text.push_str("  --update cannot change this; edit the file\n");
                }
            }
        }
    }
    text
}

fn write_difference(text: &mut String, test: &TestReport, difference: &Difference) {
    let Difference { line, subject, expected, found, .. } = difference;
    _ = writeln!(text, "{}:{line}: mismatch in {}", test.file.display(), safe(subject));
    let (expected, found) = (safe(expected), safe(found));
    if expected.contains('\n') || found.contains('\n') {
        _ = write!(text, "{}", line_diff(&expected, &found));
    } else {
        _ = writeln!(text, "  expected  {BAD}{expected}{BAD:#}\n  found     {GOOD}{found}{GOOD:#}");
    }
}

/// Formats the difference of two texts line by line.
fn line_diff(expected: &str, found: &str) -> String {
    let mut text = format!("  {BAD}- expected{BAD:#}  {GOOD}+ found{GOOD:#}\n");
    let difference = TextDiff::from_lines(expected, found);
    for change in difference.iter_all_changes().take(MAX_LINES) {
        let (style, sign) = match change.tag() {
            ChangeTag::Delete => (BAD, '-'),
            ChangeTag::Insert => (GOOD, '+'),
            ChangeTag::Equal => (Style::new(), ' '),
        };
        _ = writeln!(text, "  {style}{sign} {}{style:#}", change.value().trim_end_matches('\n'));
    }
    if difference.iter_all_changes().nth(MAX_LINES).is_some() {
        text.push_str("  …\n");
    }
    text
}

fn truncate_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().take(MAX_LINES).collect();
    if text.lines().nth(MAX_LINES).is_some() {
        lines.push("…");
    }
    lines.join("\n")
}

fn format_time(time: Duration) -> String {
    match time.as_millis() {
        0..1000 => format!("{:.0} ms", time.as_secs_f64() * 1000.0),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
