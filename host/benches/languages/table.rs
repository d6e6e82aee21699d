//! The table, and its place in the page.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use bytesize::ByteSize;

/// Where the page is, and what the table stands between there.
const PAGE: &str = "../docs/choosing-a-language.md";
const BEGIN: &str = "<!-- figures: `cargo bench --bench languages` writes what is between these lines -->\n";
const END: &str = "<!-- end of figures -->\n";

/// What was measured of a language; times in seconds, sizes in bytes.
pub struct Row {
    pub language: String,
    pub tools: String,
    pub size: u64,
    pub compiled: f64,
    pub instance: f64,
    pub delivery: f64,
    pub saved: f64,
    pub memory: u64,
}

/// The table, in Markdown.
pub fn text(rows: &[Row]) -> String {
    let mut text =
        "| | component | compiled | saved | instance | delivery | memory |\n|---|---:|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for row in rows {
        let Row { language, size, compiled, saved, instance, delivery, memory, .. } = row;
        let (size, memory) = (ByteSize::b(*size).display().iec(), ByteSize::b(*memory).display().iec());
        let [compiled, saved, instance, delivery] = [compiled, saved, instance, delivery].map(|seconds| time(*seconds));
        // A String takes whatever is written to it.
        let _ = writeln!(text, "| {language} | {size} | {compiled} | {saved} | {instance} | {delivery} | {memory} |");
    }
    text += "\nMade with: ";
    let tools: Vec<_> = rows.iter().map(|row| format!("{}: {}", row.language, row.tools)).collect();
    text + &tools.join("; ") + ".\n"
}

/// A time with two digits that count, in the unit that suits it.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        long if long >= 1.0 => (seconds, "s"),
        middling if middling >= 1e-3 => (middling * 1e3, "ms"),
        short => (short * 1e6, "µs"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Puts the table in the place of the one before.
pub fn put_into_the_page(table: &str) -> anyhow::Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let text = std::fs::read_to_string(&page)?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{PAGE} has no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} has no line {END}"))?;
    std::fs::write(page, format!("{before}{BEGIN}\n{table}\n{END}{after}"))?;
    Ok(())
}
