//! Formats the backtrace of a trapped guest, with function names and source lines as far as the component has them.

use std::fmt::Write;

use rustc_demangle::demangle;
use wasmtime::{FrameSymbol, WasmBacktrace};

use modhost_core::sanitize;
use modhost_core::text::prefix;

/// The maximum number of frames shown.
const MAX_FRAMES: usize = 10;

/// The maximum length of a name or a path, in bytes. Names of generic functions can be very long.
const MAX_NAME: usize = 160;

/// The prefixes of function names that belong to the language's runtime instead of the module.
const RUNTIME_PREFIXES: [&str; 12] = [
    "std::", "core::", "alloc::", "<std::", "<core::", "<alloc::", "<T as ", "<&T as ", "<F as ", "__rust", "rust_",
    "_start",
];

/// Functions of the C library that end a program.
const EXIT_FUNCTIONS: [&str; 3] = ["abort", "exit", "__assert_fail"];

/// Parts of source paths that belong to the language's standard library or the SDK.
const FOREIGN_PATHS: [&str; 5] =
    ["/rustc/", "/library/std/", "/library/core/", "/sdk-guest/rust/src/", "/modhost-sdk-"];

/// Parts of the names of generated glue code between the host and the module.
const GLUE: [&str; 5] = ["export_handle", "exports_module_handle", "cabi_", "wit_bindgen", "__wasm_export"];

/// The text shown for a component without function names.
const NO_NAMES: &str = "(the component has no names of its functions: for Rust, set strip = false and \
                        debug = \"line-tables-only\" in the profile it is built with; for C and C++, compile with -g)";

/// Formats the guest's frames of an error, one per line, the innermost first. If the component has no function names,
/// returns a hint on how to build it with them. Returns an empty string for an error without guest frames.
pub(super) fn format_backtrace(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let mut named = false;
    let mut lines = Vec::new();
    for frame in backtrace.frames() {
        let symbols = frame.symbols();
        named |= frame.func_name().is_some() || symbols.iter().any(|symbol| symbol.name().is_some());
        // A frame has one symbol for each inlined function, the innermost first, and the last one for the function
        // itself. The frame has the full name of that function; its symbol may have only the last segment.
        let (own, inlined) = match symbols.split_last() {
            Some((own, inlined)) => (Some(own), inlined),
            None => (None, symbols),
        };
        lines.extend(inlined.iter().filter_map(|symbol| line(symbol.name()?, Some(symbol))));
        let name = frame.func_name().or_else(|| own.and_then(FrameSymbol::name));
        lines.extend(name.and_then(|name| line(name, own)));
    }
    if !named {
        return if backtrace.frames().is_empty() { String::new() } else { NO_NAMES.to_owned() };
    }
    lines.dedup();
    let is_truncated = lines.len() > MAX_FRAMES;
    lines.truncate(MAX_FRAMES);
    if is_truncated {
        lines.push("…".to_owned());
    }
    lines.join("\n")
}

/// Formats a frame; `None` for frames of the language's runtime and of glue code.
fn line(name: &str, symbol: Option<&FrameSymbol>) -> Option<String> {
    // `#` omits the hash at the end.
    let name = format!("{:#}", demangle(name));
    let file = symbol.and_then(FrameSymbol::file).unwrap_or_default().replace('\\', "/");
    let is_foreign = EXIT_FUNCTIONS.contains(&name.as_str())
        || RUNTIME_PREFIXES.iter().any(|start| name.starts_with(start))
        || FOREIGN_PATHS.iter().any(|part| file.contains(part))
        || GLUE.iter().any(|part| name.contains(part));
    if is_foreign {
        return None;
    }
    let mut line = format!("at {}", plain(without_types(&name)));
    if !file.is_empty() {
        _ = write!(line, " ({}", plain(short(&file)));
        if let Some(number) = symbol.and_then(FrameSymbol::line) {
            _ = write!(line, ":{number}");
        }
        line.push(')');
    }
    Some(line)
}

/// Returns a name without its generic arguments.
fn without_types(name: &str) -> &str {
    match name.find('<') {
        Some(at @ 1..) => name[..at].trim_end_matches("::"),
        _ => name,
    }
}

/// Returns the part of a path that starts at the parent folder of `src`, or the file name. This hides the folders of
/// the author's machine.
fn short(path: &str) -> &str {
    let Some((before, _)) = path.rsplit_once("/src/") else { return path.rsplit('/').next().unwrap_or(path) };
    let from = before.rfind('/').map_or(0, |slash| slash + 1);
    &path[from..]
}

/// Truncates and sanitizes a name from a component: it can't add lines or control the terminal.
fn plain(text: &str) -> String {
    sanitize::line(prefix(text, MAX_NAME)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortens_paths_to_the_package_folder() {
        assert_eq!(short("/home/me/work/plugins/assistant/src/lib.rs"), "assistant/src/lib.rs");
        assert_eq!(short("src/lib.rs"), "lib.rs");
        assert_eq!(short("/home/me/main.c"), "main.c");
    }

    #[test]
    fn omits_runtime_frames() {
        assert_eq!(line("_ZN4core9panicking5panic17h0123456789abcdefE", None), None);
        assert_eq!(line("abort", None), None);
        assert_eq!(line("exports_module_handle", None), None);
        assert_eq!(line("handle<a::b::Event>", None).as_deref(), Some("at handle"));
        let own = line("_ZN9assistant6answer17h0123456789abcdefE", None);
        assert_eq!(own.as_deref(), Some("at assistant::answer"));
        assert_eq!(line("evil\n\u{1b}[31mERROR", None).as_deref(), Some(r"at evil\n\u{1b}[31mERROR"));
    }
}
