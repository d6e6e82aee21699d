//! Says how tests went.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

use super::suite::Suite;
use super::{Ran, Result};
use crate::commands::output;
use crate::testing::Difference;
use modhost_core::sanitize::{self, lines as safe};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// How many lines of a text or a difference are shown.
const LINES: usize = 80;

/// How many tests went which way.
#[derive(Default)]
pub(super) struct Totals {
    passed: usize,
    failed: usize,
    not_run: usize,
    updated: usize,
}

impl Totals {
    pub(super) fn of(all: &[Ran]) -> Self {
        let mut totals = Self::default();
        for ran in all {
            match &ran.result {
                Result::NotRun(_) => totals.not_run += 1,
                Result::Ran { .. } if ran.is_updated() => totals.updated += 1,
                Result::Ran { outcome, .. } if outcome.passed() => totals.passed += 1,
                Result::Ran { .. } => totals.failed += 1,
            }
        }
        totals
    }

    /// 0: all passed. 1: some failed. 2: some couldn't be run.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self { not_run: 1.., .. } => ExitCode::from(2),
            Self { failed: 1.., .. } => ExitCode::from(1),
            Self { .. } => ExitCode::SUCCESS,
        }
    }
}

pub(super) fn heading(suite: &Suite) {
    output::println!("{BOLD}{}{BOLD:#}  {DIM}{}{DIM:#}", suite.module.name, suite.folder.display());
}

pub(super) fn line(ran: &Ran) {
    let (style, word) = match &ran.result {
        Result::NotRun(_) => (BAD, "NOT RUN"),
        Result::Ran { .. } if ran.is_updated() => (GOOD, "updated"),
        Result::Ran { outcome, .. } if outcome.passed() => (GOOD, "ok"),
        Result::Ran { .. } => (BAD, "FAILED"),
    };
    let took = match &ran.result {
        Result::Ran { outcome, .. } => format!("  {DIM}{}{DIM:#}", time(outcome.took)),
        Result::NotRun(_) => String::new(),
    };
    output::println!("test {} ... {style}{word}{style:#}{took}", sanitize::line(&ran.name));
}

/// Everything that went wrong.
pub(super) fn failures(all: &[Ran]) {
    for ran in all {
        let text = failure(ran);
        if !text.is_empty() {
            output::print!(
                "\n{BOLD}---- {} {}{BOLD:#}  {DIM}{}{DIM:#}\n{text}",
                ran.module,
                ran.name,
                ran.file.display()
            );
        }
    }
}

pub(super) fn summary(totals: &Totals, took: Duration) {
    let Totals { passed, failed, not_run, updated } = totals;
    let (style, word) = if failed + not_run == 0 { (GOOD, "ok") } else { (BAD, "FAILED") };
    let mut text = format!("\n{style}{word}{style:#}: {passed} passed, {failed} failed");
    if *not_run > 0 {
        _ = write!(text, ", {not_run} not run");
    }
    if *updated > 0 {
        _ = write!(text, ", {updated} updated: look at what changed before you keep it");
    }
    output::println!("{text}; in {}", time(took));
}

/// What went wrong with a test, with colours; empty if nothing did.
pub(super) fn failure(ran: &Ran) -> String {
    let mut text = String::new();
    match &ran.result {
        Result::NotRun(reason) => _ = writeln!(text, "{}", safe(reason)),
        Result::Ran { outcome, updated } => {
            for problem in &outcome.problems {
                _ = writeln!(text, "{}", bounded(&safe(problem)));
            }
            // What could be accepted was.
            for difference in outcome.differences.iter().filter(|it| !updated || it.accept.is_empty()) {
                tell(&mut text, ran, difference);
                if *updated {
                    text.push_str("  --update can't write this: change it by hand\n");
                }
            }
        }
    }
    text
}

fn tell(text: &mut String, ran: &Ran, difference: &Difference) {
    let Difference { line, what, expected, found, .. } = difference;
    _ = writeln!(text, "{}:{line}: not as expected: {}", ran.file.display(), safe(what));
    let (expected, found) = (safe(expected), safe(found));
    if expected.contains('\n') || found.contains('\n') {
        _ = write!(text, "{}", compared(&expected, &found));
    } else {
        _ = writeln!(text, "  expected  {BAD}{expected}{BAD:#}\n  found     {GOOD}{found}{GOOD:#}");
    }
}

/// Two texts, line by line.
fn compared(expected: &str, found: &str) -> String {
    let mut text = format!("  {BAD}- expected{BAD:#}  {GOOD}+ found{GOOD:#}\n");
    let difference = TextDiff::from_lines(expected, found);
    for change in difference.iter_all_changes().take(LINES) {
        let (style, sign) = match change.tag() {
            ChangeTag::Delete => (BAD, '-'),
            ChangeTag::Insert => (GOOD, '+'),
            ChangeTag::Equal => (Style::new(), ' '),
        };
        _ = writeln!(text, "  {style}{sign} {}{style:#}", change.value().trim_end_matches('\n'));
    }
    if difference.iter_all_changes().nth(LINES).is_some() {
        text.push_str("  …\n");
    }
    text
}

fn bounded(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().take(LINES).collect();
    if text.lines().nth(LINES).is_some() {
        lines.push("…");
    }
    lines.join("\n")
}

fn time(time: Duration) -> String {
    match time.as_millis() {
        0..1000 => format!("{:.0} ms", time.as_secs_f64() * 1000.0),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
