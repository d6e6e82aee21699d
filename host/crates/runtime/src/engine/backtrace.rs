//! Where in its own code a guest broke: the frames of its stack by name and line, as far as its component has them.

use std::fmt::Write;

use rustc_demangle::demangle;
use wasmtime::{FrameSymbol, WasmBacktrace};

use modhost_core::sanitize;
use modhost_core::text::prefix;

/// How many frames are told: where it broke, and how it came there.
const FRAMES: usize = 10;

/// How long a name or a path may be, in bytes; names of generic functions can be longer than anybody reads.
const LONGEST: usize = 160;

/// What names begin with that belong to the language, and not to the module.
const OF_THE_LANGUAGE: [&str; 12] = [
    "std::", "core::", "alloc::", "<std::", "<core::", "<alloc::", "<T as ", "<&T as ", "<F as ", "__rust", "rust_",
    "_start",
];

/// Functions of the C library that end a program.
const ENDS: [&str; 3] = ["abort", "exit", "__assert_fail"];

/// Where paths lead that belong to the language or to the SDK.
const ELSEWHERE: [&str; 5] = ["/rustc/", "/library/std/", "/library/core/", "/sdk-guest/rust/src/", "/modhost-sdk-"];

/// What is in the names of the code every module has between the host and its own.
const GLUE: [&str; 5] = ["export_handle", "exports_module_handle", "cabi_", "wit_bindgen", "__wasm_export"];

/// What to say where a component has no names.
const NAMELESS: &str = "(the component has no names of its functions: for Rust, set strip = false and \
                        debug = \"line-tables-only\" in the profile it is built with; for C and C++, compile with -g)";

/// The guest's frames of an error, the innermost first, one a line; what to do where there are no names. Empty for an error
/// that came from no guest.
pub(super) fn told(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let mut named = false;
    let mut lines = Vec::new();
    for frame in backtrace.frames() {
        let symbols = frame.symbols();
        named |= frame.func_name().is_some() || symbols.iter().any(|symbol| symbol.name().is_some());
        // A function that others were inlined into has a symbol for each, the innermost first. Its own name is the frame's,
        // whole; the symbols may have no more than the last word of it.
        let (own, inlined) = match symbols.split_last() {
            Some((own, inlined)) => (Some(own), inlined),
            None => (None, symbols),
        };
        lines.extend(inlined.iter().filter_map(|symbol| line(symbol.name()?, Some(symbol))));
        let name = frame.func_name().or_else(|| own.and_then(FrameSymbol::name));
        lines.extend(name.and_then(|name| line(name, own)));
    }
    if !named {
        return if backtrace.frames().is_empty() { String::new() } else { NAMELESS.to_owned() };
    }
    lines.dedup();
    let more = lines.len() > FRAMES;
    lines.truncate(FRAMES);
    if more {
        lines.push("…".to_owned());
    }
    lines.join("\n")
}

/// A frame as people read it; none for one of the language's own.
fn line(name: &str, symbol: Option<&FrameSymbol>) -> Option<String> {
    // Without the hash at its end.
    let name = format!("{:#}", demangle(name));
    let file = symbol.and_then(FrameSymbol::file).unwrap_or_default().replace('\\', "/");
    let elsewhere = ENDS.contains(&name.as_str())
        || OF_THE_LANGUAGE.iter().any(|start| name.starts_with(start))
        || ELSEWHERE.iter().any(|part| file.contains(part))
        || GLUE.iter().any(|part| name.contains(part));
    if elsewhere {
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

/// A name without the types it is made for.
fn without_types(name: &str) -> &str {
    match name.find('<') {
        Some(at @ 1..) => name[..at].trim_end_matches("::"),
        _ => name,
    }
}

/// A path from the folder in which `src` lies: where that is on the author's machine is nobody else's business.
fn short(path: &str) -> &str {
    let Some((before, _)) = path.rsplit_once("/src/") else { return path.rsplit('/').next().unwrap_or(path) };
    let from = before.rfind('/').map_or(0, |slash| slash + 1);
    &path[from..]
}

/// A name out of a component may say anything: it stays on its line, and drives no terminal.
fn plain(text: &str) -> String {
    sanitize::line(prefix(text, LONGEST)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_with_the_package() {
        assert_eq!(short("/home/me/work/plugins/assistant/src/lib.rs"), "assistant/src/lib.rs");
        assert_eq!(short("src/lib.rs"), "lib.rs");
        assert_eq!(short("/home/me/main.c"), "main.c");
    }

    #[test]
    fn frames_of_the_language_are_left_out() {
        assert_eq!(line("_ZN4core9panicking5panic17h0123456789abcdefE", None), None);
        assert_eq!(line("abort", None), None);
        assert_eq!(line("exports_module_handle", None), None);
        assert_eq!(line("handle<a::b::Event>", None).as_deref(), Some("at handle"));
        let own = line("_ZN9assistant6answer17h0123456789abcdefE", None);
        assert_eq!(own.as_deref(), Some("at assistant::answer"));
        assert_eq!(line("evil\n\u{1b}[31mERROR", None).as_deref(), Some(r"at evil\n\u{1b}[31mERROR"));
    }
}
