//! Components of a few kilobytes that are generated on the spot. They compile in milliseconds, and each does a single
//! thing.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The behavior of a small component for every event.
#[derive(Clone, Copy)]
pub enum Behavior {
    /// Writes the reply this many times, then returns ok.
    Replies(usize),
    /// Returns a permanent failure.
    Fails,
    /// Traps.
    Traps,
    /// Reads the chat's history, then writes the reply.
    Reads,
    /// Loops until it reaches a limit.
    Loops,
}

/// A component that replies with this text. Different texts make different versions.
pub fn small(text: &str) -> Vec<u8> {
    small_with(text, Behavior::Replies(1), 0)
}

/// A component with another behavior, or padded with this many bytes.
pub fn small_with(text: &str, does: Behavior, carries: usize) -> Vec<u8> {
    let length = text.len();
    assert!(length < 1000, "the text is too long");
    // `change`: text some(16, length), no references, no debug info, completed; the answer goes to 1024.
    let call = format!(
        "(call $reply (i32.const 1) (i32.const 16) (i32.const {length}) (i32.const 0) (i32.const 0) \
         (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1024))"
    );
    let (body, failed) = match does {
        Behavior::Replies(times) => (call.repeat(times), 0),
        Behavior::Fails => (String::new(), 1),
        Behavior::Traps => ("unreachable".into(), 0),
        Behavior::Reads => (format!("(call $history (i32.const 0) (i32.const 0) (i32.const 1024)) {call}"), 0),
        Behavior::Loops => ("(loop (br 0))".into(), 0),
    };
    let history = match does {
        Behavior::Reads => r#"(import "modhost:module/messages@0.1.0" "history" (func $history (param i32 i32 i32)))"#,
        _ => "",
    };
    let (text, load) = (text.escape_default(), "x".repeat(carries));
    // The result of `handle` is at 2048: ok, or a failure with the text as its reason. The host's data is allocated
    // behind the padding and never freed: an instance handles a single event.
    let module = format!(
        r#"(module
            (import "modhost:module/messages@0.1.0" "reply"
                (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
            {history}
            (memory (export "memory") {pages})
            (global $free (mut i32) (i32.const {free}))
            (data (i32.const 16) "{text}")
            (data (i32.const 2048) "\0{failed}\00\00\00\10\00\00\00\{low:02x}\{high:02x}\00\00")
            (data (i32.const 4096) "{load}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
                (global.get $free)
                (global.set $free (i32.add (global.get $free) (local.get 3))))
            (func (export "handle") (param i32) (result i32) {body} (i32.const 2048)))"#,
        pages = (4096 + carries) / 65536 + 5,
        free = 4096 + carries,
        low = length % 256,
        high = length / 256,
    );
    let mut module = wat::parse_str(module).unwrap();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
    let world = resolve.select_world(&[package], Some("module")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}
