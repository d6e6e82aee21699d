//! The hostile guests: what each one does, and the reason its deliveries must end with.

use super::make::{HARMLESS, Parts, Whole};

/// A hostile component that is contained while it runs.
pub struct HostileGuest {
    /// Its behavior, which is also the name of its module.
    pub name: &'static str,
    /// Its implementation: a component made of parts, or the test guest with a command.
    pub body: Body,
    /// Additional `limits` of its module's entry.
    pub limits: &'static str,
    /// Words of the reason in the log; empty if its deliveries complete.
    pub reason: &'static [&'static str],
}

/// The implementation of a guest.
pub enum Body {
    /// A core module written by hand.
    Parts(Parts),
    /// A component written by hand.
    Whole(Whole),
    /// The test guest with this command.
    Command(&'static str),
}

const fn core_guest(
    name: &'static str,
    limits: &'static str,
    reason: &'static [&'static str],
    parts: Parts,
) -> HostileGuest {
    HostileGuest { name, body: Body::Parts(parts), limits, reason }
}

const fn component_guest(
    name: &'static str,
    limits: &'static str,
    reason: &'static [&'static str],
    whole: Whole,
) -> HostileGuest {
    HostileGuest { name, body: Body::Whole(whole), limits, reason }
}

const fn command_guest(
    name: &'static str,
    limits: &'static str,
    reason: &'static [&'static str],
    command: &'static str,
) -> HostileGuest {
    HostileGuest { name, body: Body::Command(command), limits, reason }
}

/// The reason for using too much CPU time.
pub const CPU: &[&str] = &["limit reached: cpu: it computed for 200ms, `limits.cpu`"];
const STACK: &[&str] = &["limit reached: stack: its calls are nested too deep"];
const MEMORY: &[&str] = &["limit reached: memory: it asked for ", "`limits.memory` is 16.0 MiB"];
const HANDLES: &[&str] = &["limit reached: handles: it holds more than 500 at once, `limits.handles`"];
const ARGUMENTS: &[&str] =
    &["limit reached: arguments: it gave the host more than 64.0 KiB at once, `limits.arguments`"];
const HELD: &[&str] = &["limit reached: arguments: it gave the host more than 4.0 MiB at once, `limits.arguments`"];
const REENTRANCE: &[&str] = &["trap: ", "cannot leave component instance"];

const LOG: Parts = Parts {
    world: "import wasi:logging/logging@0.1.0-draft;",
    imports: r#"(import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))"#,
    ..HARMLESS
};

const SHOW: Parts = Parts {
    world: "import modhost:module/messages@0.1.0;",
    imports: r#"(import "modhost:module/messages@0.1.0" "show" (func $show (param i32 i32 i32)))"#,
    ..HARMLESS
};

const CLOCK: Parts = Parts {
    world: "import wasi:clocks/monotonic-clock@0.2.0; import wasi:io/poll@0.2.0;",
    imports: r#"
      (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
      (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $after (param i64) (result i32)))
      (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
      (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $forget (param i32)))
      (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))"#,
    ..HARMLESS
};

const STDOUT: Parts = Parts {
    world: "import wasi:cli/stdout@0.2.0; import wasi:io/streams@0.2.0;",
    imports: r#"
      (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
      (import "wasi:io/streams@0.2.0" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
      (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $print (param i32 i32 i32 i32)))
      (import "wasi:io/streams@0.2.0" "[method]output-stream.write-zeroes" (func $zeroes (param i32 i64 i32)))
      (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $forget (param i32)))"#,
    ..HARMLESS
};

const STDERR: Parts = Parts {
    world: "import wasi:cli/stderr@0.2.0; import wasi:io/streams@0.2.0;",
    imports: r#"
      (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
      (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $print (param i32 i32 i32 i32)))"#,
    ..HARMLESS
};

const RANDOM: Parts = Parts {
    world: "import wasi:random/random@0.2.0;",
    imports: r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))"#,
    ..HARMLESS
};

const SOCKETS: Parts = Parts {
    world: "import wasi:sockets/tcp-create-socket@0.2.0;",
    imports: r#"(import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $socket (param i32 i32)))"#,
    ..HARMLESS
};

const SEARCH: Parts = Parts {
    world: "import modhost:module/search@0.1.0;",
    imports: r#"(import "modhost:module/search@0.1.0" "search" (func $search (param i32 i32)))"#,
    ..HARMLESS
};

const STREAM: Parts = Parts {
    world: "import modhost:module/completion@0.1.0;",
    imports: r#"(import "modhost:module/completion@0.1.0" "stream" (func $stream
      (param i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32 i32 i32 i32 i32)))"#,
    ..HARMLESS
};

const REQUESTS: Parts = Parts {
    world: "import wasi:http/types@0.2.2; import wasi:http/outgoing-handler@0.2.2; import wasi:io/streams@0.2.2;",
    imports: r#"
      (import "wasi:http/types@0.2.2" "[constructor]fields" (func $fields (result i32)))
      (import "wasi:http/types@0.2.2" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
      (import "wasi:http/types@0.2.2" "[constructor]outgoing-request" (func $new (param i32) (result i32)))
      (import "wasi:http/types@0.2.2" "[method]outgoing-request.set-authority"
        (func $authority (param i32 i32 i32 i32) (result i32)))
      (import "wasi:http/types@0.2.2" "[method]outgoing-request.set-path-with-query"
        (func $path (param i32 i32 i32 i32) (result i32)))
      (import "wasi:http/types@0.2.2" "[method]outgoing-request.body" (func $body (param i32 i32)))
      (import "wasi:http/types@0.2.2" "[method]outgoing-body.write" (func $stream (param i32 i32)))
      (import "wasi:io/streams@0.2.2" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
      (import "wasi:http/outgoing-handler@0.2.2" "handle" (func $handle (param i32 i32 i32 i32)))"#,
    fields: "(global $it (mut i32) (i32.const 0))
             (func $fill (memory.fill (i32.const 70000) (i32.const 97) (i32.const 400000)))",
    ..HARMLESS
};

/// All hostile guests.
pub const HOSTILE_GUESTS: &[HostileGuest] = &[
    // Infinite loops.
    core_guest("loops", "", CPU, Parts { handle: "(loop $on (br $on))", ..HARMLESS }),
    core_guest(
        "loops-at-the-start",
        "",
        CPU,
        Parts { fields: "(func $start (loop $on (br $on))) (start $start)", ..HARMLESS },
    ),
    core_guest("loops-when-given-room", "", CPU, Parts { realloc: "(loop $on (br $on)) unreachable", ..HARMLESS }),
    core_guest("loops-after-its-answer", "", CPU, Parts { post_return: "(loop $on (br $on))", ..HARMLESS }),
    // Recursion.
    core_guest(
        "recurses",
        "",
        STACK,
        Parts {
            fields: "(func $r (param i32) (result i32) (i32.add (call $r (local.get 0)) (i32.const 1)))",
            handle: "(drop (call $r (i32.const 0)))",
            ..HARMLESS
        },
    ),
    core_guest(
        "recurses-when-given-room",
        "",
        STACK,
        Parts {
            fields: "(func $r (param i32) (result i32) (i32.add (call $r (local.get 0)) (i32.const 1)))",
            realloc: "(call $r (i32.const 0))",
            ..HARMLESS
        },
    ),
    command_guest("recurses-in-rust", "", &["trap: ", "a recursion without end?"], "recurse"),
    // Memory and tables.
    command_guest("takes-memory", "", MEMORY, "allocate 64"),
    component_guest(
        "takes-memory-twice",
        "",
        MEMORY,
        Whole {
            handle: "",
            destructor: "",
            // Each of the two instances grows by ten mebibytes, which together exceed the limit.
            fields: "(core module $greedy (memory 1)
                       (func $start
                         (loop $on (br_if $on (i32.and
                           (i32.ne (memory.grow (i32.const 16)) (i32.const -1))
                           (i32.lt_u (memory.size) (i32.const 160)))))
                         (if (i32.lt_u (memory.size) (i32.const 160)) (then unreachable)))
                       (start $start))
                     (core instance (instantiate $greedy)) (core instance (instantiate $greedy))",
        },
    ),
    component_guest(
        "takes-tables",
        "tables = 5000",
        &["limit reached: tables: it asked for 50", "`limits.tables` is 5000"],
        Whole {
            handle: "",
            destructor: "",
            fields: "(core module $greedy (table 1 funcref)
                       (func $start
                         (loop $on (br_if $on (i32.and
                           (i32.ne (table.grow 0 (ref.null func) (i32.const 50)) (i32.const -1))
                           (i32.lt_u (table.size 0) (i32.const 3000)))))
                         (if (i32.lt_u (table.size 0) (i32.const 3000)) (then unreachable)))
                       (start $start))
                     (core instance (instantiate $greedy)) (core instance (instantiate $greedy))",
        },
    ),
    core_guest(
        "takes-one-table",
        "tables = 150_000",
        &["limit reached: tables: it asked for 150", "`limits.tables` is 150000"],
        Parts {
            fields: "(table $one 1 funcref)",
            handle: "(loop $on (br_if $on (i32.ne (table.grow $one (ref.null func) (i32.const 100)) (i32.const -1))))
                     unreachable",
            ..HARMLESS
        },
    ),
    core_guest(
        "grows-beyond-all-numbers",
        "tables = 5000",
        &["limit reached: tables: it asked for 50", "`limits.tables` is 5000"],
        Parts {
            fields: "(table $wide i64 1 funcref)",
            handle: "(loop $on
                       (drop (table.grow $wide (ref.null func) (i64.const -1)))
                       (br_if $on (i64.ne (table.grow $wide (ref.null func) (i64.const 100)) (i64.const -1))))
                     unreachable",
            ..HARMLESS
        },
    ),
    component_guest(
        "has-many-memories",
        "",
        &["limit reached: memories: its core instances have more than 16, as many as any component may have"],
        Whole {
            handle: "",
            destructor: "",
            // Eight memories in the text, twenty-four after instantiation.
            fields: "(core module $eight (memory 0) (memory 0) (memory 0) (memory 0) (memory 0) (memory 0) (memory 0) (memory 0))
                     (core instance (instantiate $eight)) (core instance (instantiate $eight))
                     (core instance (instantiate $eight))",
        },
    ),
    core_guest(
        "keeps-handles",
        "handles = 500",
        HANDLES,
        Parts { handle: "(loop $on (drop (call $after (i64.const -1))) (br $on))", ..CLOCK },
    ),
    core_guest(
        "opens-sockets",
        "",
        CPU,
        Parts { handle: "(loop $on (call $socket (i32.const 0) (i32.const 64)) (br $on))", ..SOCKETS },
    ),
    // Endless output.
    command_guest("floods-the-log", "", &[], "flood 20000"),
    core_guest(
        "logs-without-end",
        "log_lines = 20",
        CPU,
        Parts {
            handle: "(loop $on (call $log (i32.const 2) (i32.const 16) (i32.const 10) (i32.const 16) (i32.const 10)) (br $on))",
            ..LOG
        },
    ),
    core_guest(
        "logs-with-long-contexts",
        "log_bytes = \"4KiB\", arguments = \"1MiB\"",
        CPU,
        Parts {
            fields: "(func $fill (memory.fill (i32.const 70000) (i32.const 120) (i32.const 400000)))",
            handle: "(call $fill) (loop $on (call $log (i32.const 2) (i32.const 70000) (i32.const 400000)
                       (i32.const 16) (i32.const 10)) (br $on))",
            ..LOG
        },
    ),
    core_guest(
        "prints-one-line-without-end",
        "",
        CPU,
        Parts {
            fields: "(global $to (mut i32) (i32.const 0))
                     (func $fill (memory.fill (i32.const 70000) (i32.const 120) (i32.const 4096)))",
            handle: "(call $fill) (global.set $to (call $stdout))
                     (loop $on (call $print (global.get $to) (i32.const 70000) (i32.const 4096) (i32.const 64)) (br $on))",
            ..STDOUT
        },
    ),
    core_guest(
        "complains-without-a-line-end",
        "",
        CPU,
        Parts {
            fields: "(global $to (mut i32) (i32.const 0))
                     (func $fill (memory.fill (i32.const 70000) (i32.const 120) (i32.const 4096)))",
            handle: "(call $fill) (global.set $to (call $stderr))
                     (loop $on (call $print (global.get $to) (i32.const 70000) (i32.const 4096) (i32.const 64)) (br $on))",
            ..STDERR
        },
    ),
    // Endless calls.
    core_guest(
        "calls-without-end",
        "calls = 50",
        &["limit reached: calls: it made more than 50, `limits.calls`"],
        Parts { handle: "(loop $on (call $show (i32.const 16) (i32.const 10) (i32.const 64)) (br $on))", ..SHOW },
    ),
    core_guest(
        "calls-in-vain",
        "",
        CPU,
        // A search limit of zero hits is refused by the host without calling the platform.
        Parts {
            handle: "(i32.store8 (i32.const 4108) (i32.const 1))
                     (loop $on (call $search (i32.const 4096) (i32.const 64)) (br $on))",
            ..SEARCH
        },
    ),
    core_guest(
        "calls-many-at-once",
        "concurrent_calls = 4",
        &["limit reached: concurrent calls: it had more than 4 in flight at once, `limits.concurrent_calls`"],
        Parts {
            // A user message with the text of the step.
            handle: "(i32.store8 (i32.const 4096) (i32.const 1)) (i32.store (i32.const 4100) (i32.const 16))
                     (i32.store (i32.const 4104) (i32.const 10))
                     (loop $on (call $stream (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 1)
                       (i32.const 0) (f32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                       (i32.const 0) (i32.const 0) (i32.const 64)) (br $on))",
            ..STREAM
        },
    ),
    command_guest("asks-who-never-answers", "timeout = \"1s\"", TIME, "complete anybody there?"),
    // Endless waiting.
    core_guest("waits-for-ever", "timeout = \"1s\"", TIME, Parts { handle: "(call $block (call $after (i64.const -1)))", ..CLOCK }),
    core_guest(
        "sleeps-again-and-again",
        "timeout = \"1s\"",
        TIME,
        Parts {
            fields: "(global $p (mut i32) (i32.const 0))",
            handle: "(loop $on (global.set $p (call $after (i64.const 20000000))) (call $block (global.get $p))
                       (call $forget (global.get $p)) (br $on))",
            ..CLOCK
        },
    ),
    core_guest(
        "waits-for-nothing",
        "",
        CPU,
        Parts {
            fields: "(global $p (mut i32) (i32.const 0))",
            handle: "(loop $on (global.set $p (call $after (i64.const 0))) (call $block (global.get $p))
                       (call $forget (global.get $p)) (br $on))",
            ..CLOCK
        },
    ),
    core_guest(
        "looks-at-the-clock",
        "journal = \"64KiB\"",
        &["limit reached: journal: its calls and their answers come to more than 64.0 KiB, `limits.journal`"],
        Parts { handle: "(loop $on (drop (call $now)) (br $on))", ..CLOCK },
    ),
    // More than a call can carry.
    core_guest(
        "asks-for-much-chance",
        "",
        &["limit reached: answers: it asked the host for more than 256.0 KiB at once, `limits.answers`"],
        Parts { handle: "(call $random (i64.const 4294967296) (i32.const 64))", ..RANDOM },
    ),
    core_guest(
        "asks-for-chance-without-end",
        "",
        CPU,
        // Overwrites the previous result, so that memory suffices.
        Parts {
            handle: "(loop $on (global.set $top (i32.const 65536)) (call $random (i64.const 65536) (i32.const 64)) (br $on))",
            ..RANDOM
        },
    ),
    core_guest(
        "hands-over-much-text",
        "arguments = \"64KiB\"",
        ARGUMENTS,
        Parts { handle: "(call $show (i32.const 65536) (i32.const 400000) (i32.const 64))", ..SHOW },
    ),
    core_guest(
        "hands-over-more-than-it-has",
        "",
        &["trap: ", "out of bounds"],
        Parts { handle: "(call $show (i32.const 16) (i32.const -1) (i32.const 64))", ..SHOW },
    ),
    core_guest(
        "hands-over-what-is-no-text",
        "",
        &["trap: ", "utf-8"],
        Parts {
            handle: "(i32.store8 (i32.const 4096) (i32.const 255))
                     (call $show (i32.const 4096) (i32.const 1) (i32.const 64))",
            ..SHOW
        },
    ),
    core_guest(
        "waits-for-one-thing-often",
        "arguments = \"64KiB\"",
        ARGUMENTS,
        Parts {
            fields: "(global $p (mut i32) (i32.const 0)) (global $i (mut i32) (i32.const 0))",
            handle: "(global.set $p (call $after (i64.const -1)))
                     (loop $on (i32.store (i32.add (i32.const 65536) (global.get $i)) (global.get $p))
                       (global.set $i (i32.add (global.get $i) (i32.const 4)))
                       (br_if $on (i32.lt_u (global.get $i) (i32.const 400000))))
                     (call $poll (i32.const 65536) (i32.const 100000) (i32.const 64))",
            ..CLOCK
        },
    ),
    // Requests that are never sent.
    core_guest(
        "writes-long-addresses",
        "handles = 1000",
        HELD,
        Parts {
            handle: "(call $fill) (loop $on (drop (call $authority (call $new (call $fields)) (i32.const 1)
                       (i32.const 70000) (i32.const 400000))) (br $on))",
            ..REQUESTS
        },
    ),
    core_guest(
        "writes-long-headers",
        "handles = 1000",
        HELD,
        Parts {
            handle: "(call $fill) (loop $on (call $append (call $fields) (i32.const 70000) (i32.const 1)
                       (i32.const 70000) (i32.const 30000) (i32.const 4096)) (br $on))",
            ..REQUESTS
        },
    ),
    core_guest(
        "writes-bodies-nobody-reads",
        "handles = 1000",
        HELD,
        Parts {
            handle: "(loop $on
                       (call $body (call $new (call $fields)) (i32.const 4096))
                       (call $stream (i32.load (i32.const 4100)) (i32.const 4096))
                       (call $write (i32.load (i32.const 4100)) (i32.const 65536) (i32.const 16384) (i32.const 4096))
                       (br $on))",
            ..REQUESTS
        },
    ),
    core_guest(
        "ends-no-request",
        "handles = 1000",
        &["limit reached: concurrent calls: it had more than 16 in flight at once, `limits.concurrent_calls`"],
        Parts {
            handle: "(loop $on
                       (global.set $it (call $new (call $fields)))
                       (drop (call $authority (global.get $it) (i32.const 1) (i32.const 4080) (i32.const 1)))
                       (drop (call $path (global.get $it) (i32.const 1) (i32.const 4081) (i32.const 1)))
                       (call $body (global.get $it) (i32.const 4096))
                       (call $handle (global.get $it) (i32.const 0) (i32.const 0) (i32.const 5120))
                       (br $on))",
            fields: "(global $it (mut i32) (i32.const 0)) (data (i32.const 4080) \"a/\")",
            ..REQUESTS
        },
    ),
    // Invalid uses of streams.
    core_guest(
        "writes-too-much-at-once",
        "arguments = \"1MiB\"",
        &["trap: ", "check-write"],
        Parts { handle: "(call $write (call $stdout) (i32.const 65536) (i32.const 400000) (i32.const 64))", ..STDOUT },
    ),
    core_guest(
        "prints-too-much-at-once",
        "",
        &["trap: ", "expected at most 4096"],
        Parts { handle: "(call $print (call $stdout) (i32.const 65536) (i32.const 8192) (i32.const 64))", ..STDOUT },
    ),
    core_guest(
        "prints-zeroes-without-number",
        "",
        &["trap: ", "more zeroes than"],
        Parts { handle: "(call $zeroes (call $stdout) (i64.const -1) (i32.const 64))", ..STDOUT },
    ),
    core_guest(
        "writes-to-what-it-closed",
        "",
        &["trap: ", "unknown handle"],
        Parts {
            fields: "(global $to (mut i32) (i32.const 0))",
            handle: "(global.set $to (call $stdout)) (call $forget (global.get $to))
                     (call $write (global.get $to) (i32.const 16) (i32.const 10) (i32.const 64))",
            ..STDOUT
        },
    ),
    // Reentrant calls.
    core_guest("traps-when-given-room", "", &["trap: wasm `unreachable`"], Parts { realloc: "unreachable", ..HARMLESS }),
    core_guest(
        "calls-back-when-given-room",
        "",
        REENTRANCE,
        Parts {
            realloc: "(call $show (i32.const 16) (i32.const 10) (i32.const 64)) (call $room (local.get 2) (local.get 3))",
            ..SHOW
        },
    ),
    core_guest(
        "calls-back-after-its-answer",
        "",
        REENTRANCE,
        Parts { post_return: "(call $show (i32.const 16) (i32.const 10) (i32.const 64))", ..SHOW },
    ),
    // Resources defined by the guest.
    component_guest(
        "traps-in-a-destructor",
        "",
        &["trap: wasm `unreachable`"],
        Whole { handle: "(call $drop (call $new (i32.const 1)))", destructor: "unreachable", fields: "" },
    ),
    component_guest(
        "loops-in-a-destructor",
        "",
        CPU,
        Whole { handle: "(call $drop (call $new (i32.const 1)))", destructor: "(loop $on (br $on))", fields: "" },
    ),
    component_guest(
        "keeps-resources-of-its-own",
        "handles = 500",
        HANDLES,
        Whole { handle: "(loop $on (drop (call $new (i32.const 1))) (br $on))", destructor: "", fields: "" },
    ),
    component_guest(
        "is-many",
        "instances = 20",
        &["limit reached: instances: it has more than 20 core instances, `limits.instances`"],
        Whole {
            handle: "",
            destructor: "",
            // Ten instances in the text, forty after instantiation.
            fields: "(component $ten (core module $m)
                       (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
                       (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
                       (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
                       (core instance (instantiate $m)))
                     (instance (instantiate $ten)) (instance (instantiate $ten))
                     (instance (instantiate $ten)) (instance (instantiate $ten))",
        },
    ),
    // Exits and panics.
    command_guest("exits", "", &["called exit(1) instead of returning"], "exit 3"),
    command_guest("panics", "", &["trap: ", "panicked at", "boo"], "panic boo"),
];

const TIME: &[&str] = &["limit reached: time: no answer after 1s, `limits.timeout`"];
