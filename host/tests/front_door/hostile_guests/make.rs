//! Components with a hand-written core module that no compiler would produce.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The WASI interfaces that the guests use.
const WASI: &[&str] = &[
    "package wasi:random@0.2.0;
     interface random { get-random-bytes: func(len: u64) -> list<u8>; }",
    "package wasi:io@0.2.0;
     interface poll {
       resource pollable { block: func(); }
       poll: func(in: list<borrow<pollable>>) -> list<u32>;
     }
     interface error { resource error; }
     interface streams {
       use error.{error};
       variant stream-error { last-operation-failed(error), closed }
       resource output-stream {
         write: func(contents: list<u8>) -> result<_, stream-error>;
         blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
         write-zeroes: func(len: u64) -> result<_, stream-error>;
       }
     }",
    "package wasi:clocks@0.2.0;
     interface monotonic-clock {
       use wasi:io/poll@0.2.0.{pollable};
       now: func() -> u64;
       subscribe-duration: func(when: u64) -> pollable;
     }",
    "package wasi:cli@0.2.0;
     interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
     interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }",
    "package wasi:sockets@0.2.0;
     interface network {
       enum error-code { unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout,
         concurrency-conflict, not-in-progress, would-block, invalid-state, new-socket-limit, address-not-bindable,
         address-in-use, remote-unreachable, connection-refused, connection-reset, connection-aborted,
         datagram-too-large, name-unresolvable, temporary-resolver-failure, permanent-resolver-failure }
       enum ip-address-family { ipv4, ipv6 }
     }
     interface tcp { resource tcp-socket; }
     interface tcp-create-socket {
       use network.{error-code, ip-address-family};
       use tcp.{tcp-socket};
       create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
     }",
];

/// A component around a core module. `imports` are the lines of its world, `sections` custom sections of the module.
fn component(imports: &str, module: &str, sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
    for package in WASI {
        resolve.push_str("wasi.wit", package).unwrap();
    }
    let world = format!(
        "package test:hostile; world guest {{ use modhost:module/events@0.1.0.{{event, failure}}; \
         import modhost:module/message-log@0.1.0; {imports} \
         export handle: func(event: event) -> result<_, failure>; }}"
    );
    let package = resolve.push_str("hostile.wit", &world).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut module = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}\n{module}"));
    for (name, content) in sections {
        let mut section = Vec::new();
        number(&mut section, name.len());
        section.extend(name.bytes().chain(content.iter().copied()));
        module.push(0);
        number(&mut module, section.len());
        module.extend(section);
    }
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .encode()
        .unwrap_or_else(|error| panic!("{error:#}\n{module:?}"))
}

/// Appends a number in unsigned LEB128.
fn number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The parts of a guest's core module that differ between guests.
#[derive(Clone, Copy)]
pub struct Parts {
    /// Lines of its world.
    pub world: &'static str,
    /// Core imports.
    pub imports: &'static str,
    /// Additional fields: functions, tables, memories, a start function.
    pub fields: &'static str,
    /// The body of `handle`.
    pub handle: &'static str,
    /// The body of `cabi_realloc`.
    pub realloc: &'static str,
    /// The body of the post-return function of `handle`.
    pub post_return: &'static str,
}

/// A guest that only shows a step.
pub const HARMLESS: Parts = Parts {
    world: "",
    imports: "",
    fields: "",
    handle: "",
    realloc: "(call $room (local.get 2) (local.get 3))",
    post_return: "",
};

impl Parts {
    /// Returns the component. Before anything else it shows a step and leaves it running.
    pub fn component(&self) -> Vec<u8> {
        self.component_with(&[])
    }

    /// Returns the component with custom sections in its core module.
    pub fn component_with(&self, sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let Self { world, imports, fields, handle, realloc, post_return } = self;
        let module = format!(
            r#"(module
              (import "modhost:module/message-log@0.1.0" "[static]entry.create" (func $create (param i32 i32 i32 i32)))
              {imports}
              (memory (export "memory") 8)
              (global $top (mut i32) (i32.const 65536))
              (data (i32.const 16) "Working…")
              (func $room (param $align i32) (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
                                        (i32.sub (i32.const 0) (local.get $align))))
                (global.set $top (i32.add (local.get $at) (local.get $size)))
                (block $enough
                  (loop $more
                    (br_if $enough (i32.ge_u (i32.shl (memory.size) (i32.const 16)) (global.get $top)))
                    (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
                    unreachable))
                (local.get $at))
              {fields}
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
              (func (export "handle") (param i32) (result i32)
                (call $create (i32.const 16) (i32.const 10) (i32.const 0) (i32.const 64))
                {handle}
                (i32.const 128))
              (func (export "cabi_post_handle") (param i32) {post_return}))"#
        );
        component(world, &module, sections)
    }
}

/// The parts of a guest written by hand as a whole component that defines its own resource.
#[derive(Clone, Copy)]
pub struct Whole {
    /// The body of `handle`; `$new` and `$drop` create and drop a resource.
    pub handle: &'static str,
    /// The body of the resource's destructor.
    pub destructor: &'static str,
    /// Additional fields of the component.
    pub fields: &'static str,
}

impl Whole {
    /// Returns the component.
    pub fn component(&self) -> Vec<u8> {
        let Self { handle, destructor, fields } = self;
        let text = format!(
            r#"(component
              (import "modhost:module/events@0.1.0" (instance $events
                (type $um (record (field "id" string) (field "text" string) (field "original-text" (option string))
                  (field "language" (option string)) (field "created-at" string)))
                (export "user-message" (type $user-message (eq $um)))
                (type $mc (record (field "name" string) (field "description" string) (field "configuration" string)
                  (field "chat-id" string) (field "assistant-id" string) (field "user-message" $user-message)
                  (field "assistant-message-id" string)))
                (export "module-chosen" (type $module-chosen (eq $mc)))
                (type $umc (record (field "chat-id" string) (field "assistant-id" string) (field "text" string)))
                (export "user-message-created" (type $user-message-created (eq $umc)))
                (type $sub (variant (case "module-chosen" $module-chosen)
                  (case "user-message-created" $user-message-created) (case "other")))
                (export "subject" (type $subject (eq $sub)))
                (type $ev (record (field "id" string) (field "source" string) (field "name" string)
                  (field "created-at" (option u64)) (field "attempt" u32) (field "subject" $subject) (field "payload" string)))
                (export "event" (type $event (eq $ev)))
                (type $re (variant (case "no") (case "yes") (case "after" u32)))
                (export "retry" (type $retry (eq $re)))
                (type $fa (record (field "reason" string) (field "user-text" (option string)) (field "retry" $retry)))
                (export "failure" (type $failure (eq $fa)))))
              (alias export $events "event" (type $event))
              (alias export $events "failure" (type $failure))
              (core module $base
                (memory (export "memory") 16)
                (global $top (mut i32) (i32.const 65536))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                  (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                  (global.get $top)
                  (global.set $top (i32.add (global.get $top) (local.get 3))))
                (func (export "destructor") (param i32) {destructor}))
              (core instance $base (instantiate $base))
              {fields}
              (type $thing (resource (rep i32) (dtor (core func $base "destructor"))))
              (core func $new (canon resource.new $thing))
              (core func $drop (canon resource.drop $thing))
              (core module $guest
                (import "" "new" (func $new (param i32) (result i32)))
                (import "" "drop" (func $drop (param i32)))
                (func (export "handle") (param i32) (result i32) {handle} (i32.const 128)))
              (core instance $guest (instantiate $guest
                (with "" (instance (export "new" (func $new)) (export "drop" (func $drop))))))
              (func (export "handle") (param "event" $event) (result (result (error $failure)))
                (canon lift (core func $guest "handle") (memory (core memory $base "memory")) (realloc (core func $base "realloc")))))"#
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }
}
