//! The table, and its position in the page.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use bytesize::ByteSize;

/// The page, and the lines before and after the table.
const PAGE: &str = "../docs/choosing-a-language.md";
const BEGIN: &str = "<!-- figures: `cargo bench --bench languages` writes what is between these lines -->\n";
const END: &str = "<!-- end of figures -->\n";

/// The figures of a language: times in seconds, sizes in bytes.
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

/// Returns the table in Markdown.
pub fn text(rows: &[Row]) -> String {
    let mut text =
        "| | component | compiled | saved | instance | delivery | memory |\n|---|---:|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for row in rows {
        let Row { language, size, compiled, saved, instance, delivery, memory, .. } = row;
        let (size, memory) = (ByteSize::b(*size).display().iec(), ByteSize::b(*memory).display().iec());
        let [compiled, saved, instance, delivery] = [compiled, saved, instance, delivery].map(|seconds| time(*seconds));
        // Writing to a String can't fail.
        let _ = writeln!(text, "| {language} | {size} | {compiled} | {saved} | {instance} | {delivery} | {memory} |");
    }
    text += "\nMade with: ";
    let tools: Vec<_> = rows.iter().map(|row| format!("{}: {}", row.language, row.tools)).collect();
    text + &tools.join("; ") + ".\n"
}

/// Formats a time with two significant digits in a suitable unit.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        long if long >= 1.0 => (seconds, "s"),
        middling if middling >= 1e-3 => (middling * 1e3, "ms"),
        short => (short * 1e6, "µs"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Replaces the table in the page.
pub fn put_into_the_page(table: &str) -> anyhow::Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let text = std::fs::read_to_string(&page)?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{PAGE} has no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} has no line {END}"))?;
    std::fs::write(page, format!("{before}{BEGIN}\n{table}\n{END}{after}"))?;
    Ok(())
}
