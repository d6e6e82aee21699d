//! Components of worlds other than the host's, and the message for each incompatibility.

use wit_parser::LiftLowerAbi;

use crate::incompatibility;
use crate::make::{Contract, HANDLE, wat};

/// The first line of every message.
const FIRST: &str = "the component doesn't fit the world modhost:module/module@0.1.0 of this host:\n";
/// The advice for a component that was built for the host's version, but from other WIT files.
const OTHER_FILES: &str =
    "\nit was built from other WIT files of modhost:module@0.1.0 than this host's: build it from the host's";
/// The list of offered interfaces, added if a component imports from an unknown package.
const OFFERED: &str = "\nthis host offers modhost:module@0.1.0, wasi:config/store@0.2.0-rc.1, wasi:keyvalue/atomics@0.2.0-draft2, \
                       wasi:keyvalue/batch@0.2.0-draft2, wasi:keyvalue/store@0.2.0-draft2, wasi:logging/logging@0.1.0-draft and, of \
                       WASI 0.2, cli, clocks, filesystem, http, io, random, sockets";

#[test]
fn reports_a_missing_handle() {
    let expected = "- it doesn't export `handle: func(event: event) -> result<_, failure>`; it exports ";
    assert_eq!(incompatibility(&wat("(component)")), format!("{FIRST}{expected}nothing"));
    let contract = Contract::read().world("export run: func(); export modes: interface { all: func(); }");
    assert_eq!(incompatibility(&contract.build()), format!("{FIRST}{expected}`function run` and `interface modes`"));
    let contract = Contract::read().world("export handle: interface { all: func(); }");
    assert_eq!(incompatibility(&contract.build()), format!("{FIRST}{expected}`interface handle`"));
}

#[test]
fn reports_a_different_handle() {
    let contract = Contract::read().world("export handle: func(text: string) -> string;");
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- its `handle` has another type:\n    \
             expected  handle: func(event: event) -> result<_, failure>\n    \
             found     handle: func(text: string) -> string"
        )
    );
}

#[test]
fn reports_an_asynchronous_handle() {
    let contract = Contract::read()
        .world("use events.{event, failure}; export handle: async func(event: event) -> result<_, failure>;");
    assert_eq!(
        incompatibility(&contract.build_as(LiftLowerAbi::AsyncCallback)),
        format!(
            "{FIRST}- its `handle` has another type:\n    \
             expected  handle: func(event: event) -> result<_, failure>\n    \
             found     handle: async func(event: event) -> result<_, failure>{OTHER_FILES}"
        )
    );
}

#[test]
fn reports_another_version_of_the_contract() {
    let newer = Contract::read().version("0.2.0").with("events.wit", "attempt: u32,", "attempt: u64,");
    assert_eq!(
        incompatibility(&newer.build()),
        format!(
            "{FIRST}- it was built against modhost:module@0.2.0 (for `types`, `message-log`, `messages`, `search`, `completion` \
             and `events`); this host serves 0.1.x: build it against modhost:module@0.1.0, or use a newer host"
        )
    );
    let older = Contract::read().version("0.0.9").world(HANDLE);
    assert_eq!(
        incompatibility(&older.build()),
        format!(
            "{FIRST}- it was built against modhost:module@0.0.9 (for `types` and `events`); this host serves 0.1.x: build it \
             against modhost:module@0.1.0"
        )
    );
}

#[test]
fn reports_an_import_without_a_version() {
    let component = wat(r#"(component (import "modhost:module/search" (instance)))"#);
    let first =
        "- it imports `search` of modhost:module without a version; this host serves 0.1.x\n- it doesn't export";
    assert!(incompatibility(&component).starts_with(&format!("{FIRST}{first}")), "{}", incompatibility(&component));
}

#[test]
fn reports_a_draft_of_a_standard_interface() {
    let contract = Contract::read()
        .world(&format!("import wasi:config/store@0.2.0-draft; {HANDLE}"))
        .dependency("package wasi:config@0.2.0-draft; interface store { get: func(key: string) -> option<string>; }");
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- it was built against wasi:config@0.2.0-draft (for `store`); this host serves 0.2.0-rc.1: build it against \
             wasi:config@0.2.0-rc.1"
        )
    );
}

#[test]
fn reports_wasi_0_3() {
    let contract = Contract::read()
        .world(&format!("import wasi:cli/stdout@0.3.0; import wasi:cli/exit@0.3.0; {HANDLE}"))
        .dependency("package wasi:cli@0.3.0; interface stdout { write: func(); } interface exit { exit: func(); }");
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- it was built against wasi:cli@0.3.0 (for `stdout` and `exit`); this host serves 0.2.x: build it for WASI 0.2 \
             (wasm32-wasip2)"
        )
    );
}

#[test]
fn reports_an_http_server() {
    let contract = Contract::read()
        .world(&format!("import wasi:http/types@0.2.3; import wasi:http/incoming-handler@0.2.3; {HANDLE}"))
        .dependency(
            "package wasi:http@0.2.3; interface types { a: func(); } interface incoming-handler { handle: func(); }",
        );
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- it imports `incoming-handler` of wasi:http@0.2.3, but a module can only send requests, with `outgoing-handler` and \
             `types`: build it without (componentize-js: `--disable fetch-event`)"
        )
    );
}

#[test]
fn reports_an_unknown_interface() {
    let contract = Contract::read()
        .world(&format!("import acme:db/store@1.2.3; {HANDLE}"))
        .dependency("package acme:db@1.2.3; interface store { get: func(key: string) -> option<string>; }");
    assert_eq!(
        incompatibility(&contract.build()),
        format!("{FIRST}- it imports `store` of acme:db@1.2.3, which this host doesn't offer{OFFERED}")
    );
}

#[test]
fn reports_an_interface_missing_from_its_package() {
    let contract = Contract::read()
        .with("search.wit", "interface search {", "interface weather { today: func() -> string; }\ninterface search {")
        .world(&format!("import weather; {HANDLE}"));
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- it imports `weather` of modhost:module@0.1.0, which this host doesn't offer; of that package it has `types`, \
             `message-log`, `messages`, `search`, `completion` and `events`{OTHER_FILES}"
        )
    );
    let contract = Contract::read()
        .world(&format!("import wasi:clocks/timezone@0.2.3; {HANDLE}"))
        .dependency("package wasi:clocks@0.2.3; interface timezone { display: func(); }");
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- it imports `timezone` of wasi:clocks@0.2.3, which this host doesn't offer; of that package it has \
             `monotonic-clock` and `wall-clock`"
        )
    );
}

#[test]
fn reports_imports_without_a_package() {
    let contract =
        Contract::read().world(&format!("import tick: func(); import toolbox: interface {{ saw: func(); }} {HANDLE}"));
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- it imports the interface `toolbox`, which belongs to no package; a module imports interfaces only\n\
             - it imports the function `tick`, which belongs to no package; a module imports interfaces only{OFFERED}"
        )
    );
    let component = wat(r#"(component (import "part" (component)) (import "thing" (type (sub resource))))"#);
    let problems = "- it imports the component `part`, which belongs to no package; a module imports interfaces only\n\
                    - it imports the resource `thing`, which belongs to no package; a module imports interfaces only\n\
                    - it doesn't export";
    assert!(incompatibility(&component).starts_with(&format!("{FIRST}{problems}")), "{}", incompatibility(&component));
}

#[test]
fn reports_a_function_missing_from_its_interface() {
    let contract = Contract::read().with(
        "search.wit",
        "  /// Returns the hits",
        "  find: func();\n  lose: func();\n  /// Returns the hits",
    );
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- it imports the functions `find` and `lose` of modhost:module/search@0.1.0, which has `search`{OTHER_FILES}"
        )
    );
    let newer = Contract::read().version("0.1.4").with(
        "search.wit",
        "  /// Returns the hits",
        "  find: func();\n  /// Returns the hits",
    );
    assert_eq!(
        incompatibility(&newer.build()),
        format!(
            "{FIRST}- it imports the function `find` of modhost:module/search@0.1.4, which has `search`\n\
             it was built against modhost:module@0.1.4: run it on a host of that version"
        )
    );
}

#[test]
fn reports_a_resource_missing_from_its_interface() {
    let contract = Contract::read().with(
        "search.wit",
        "  /// Returns the hits",
        "  resource cursor { next: func(); }\n  /// Returns the hits",
    );
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- it imports the resource `cursor` of modhost:module/search@0.1.0, which has no resources{OTHER_FILES}"
        )
    );
}

#[test]
fn reports_a_function_with_a_different_type() {
    let contract = Contract::read()
        .with("messages.wit", "history: func(limit: option<u32>)", "history: func(limit: option<u64>)")
        .with(
            "message-log.wit",
            "create: static func(text: string, status: status)",
            "create: static func(text: string)",
        )
        .with("message-log.wit", "update: func(change: change) -> result<_, error>;", "update: func(change: change);");
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}\
             - `entry.create` of modhost:module/message-log@0.1.0 has another type:\n    \
             expected  entry.create: static func(text: string, status: status) -> result<entry, error>\n    \
             found     entry.create: static func(text: string) -> result<entry, error>\n\
             - `entry.update` of modhost:module/message-log@0.1.0 has another type:\n    \
             expected  entry.update: func(change: change) -> result<_, error>\n    \
             found     entry.update: func(change: change)\n\
             - `history` of modhost:module/messages@0.1.0 has another type:\n    \
             expected  history: func(limit: option<u32>) -> result<list<message>, error>\n    \
             found     history: func(limit: option<u64>) -> result<list<message>, error>{OTHER_FILES}"
        )
    );
}

#[test]
fn reports_a_record_with_different_fields() {
    let contract = Contract::read().with("search.wit", "limit: option<u32>,", "limit: option<u64>,").with(
        "search.wit",
        "chat-only: bool,",
        "only-chat: bool,",
    );
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- record `query` of modhost:module/search differs from the host's, so `search.search` can't be called:\n    \
             field `limit`: expected `option<u32>`, found `option<u64>`\n    \
             field `chat-only: bool` is missing\n    \
             field `only-chat: bool` is unknown to the host{OTHER_FILES}"
        )
    );
}

#[test]
fn reports_a_record_with_reordered_fields() {
    let contract = Contract::read().with("completion.wit", "    /// Tokens read.\n    prompt-tokens: u32,\n", "").with(
        "completion.wit",
        "completion-tokens: u32,",
        "completion-tokens: u32, prompt-tokens: u32,",
    );
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- record `usage` of modhost:module/completion differs from the host's, so \
             `completion.{{complete, complete-into-reply}}` can't be called:\n    \
             the fields are in another order: expected prompt-tokens, completion-tokens, found completion-tokens, \
             prompt-tokens{OTHER_FILES}"
        )
    );
}

/// A type that many functions use is reported once, where it is defined.
#[test]
fn reports_a_shared_variant_with_different_cases() {
    let contract = Contract::read().with("types.wit", "rate-limited(option<u32>)", "rate-limited(u32)").with(
        "types.wit",
        "    timeout,",
        "    timeout(string),\n    gone,",
    );
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- variant `error` of modhost:module/types differs from the host's, so `message-log.{{entry.create, \
             entry.update}}`, `messages.{{reply, show, create, modify, history}}`, `search.search` and \
             `completion.{{tokens.next, complete, complete-into-reply, stream}}` can't be called:\n    \
             case `rate-limited`: expected `option<u32>`, found `u32`\n    \
             case `timeout`: expected nothing, found `string`\n    \
             case `gone` is unknown to the host{OTHER_FILES}"
        )
    );
}

#[test]
fn reports_an_enum_with_different_cases() {
    let contract = Contract::read().world(&format!("import message-log; {HANDLE}")).with(
        "message-log.wit",
        "    failed,",
        "    aborted,",
    );
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- enum `status` of modhost:module/message-log differs from the host's, so \
             `message-log.{{entry.create, entry.update}}` can't be called:\n    \
             case `failed` is missing\n    \
             case `aborted` is unknown to the host{OTHER_FILES}"
        )
    );
}

#[test]
fn reports_a_type_of_a_different_kind() {
    let contract = Contract::read().with("search.wit", "enum kind {", "flags kind {");
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- enum `kind` of modhost:module/search differs from the host's, so `search.search` can't be called:\n    \
             expected `enum`, found `flags`{OTHER_FILES}"
        )
    );
}

/// A difference in the event, four records deep.
#[test]
fn reports_a_difference_inside_the_event() {
    let contract =
        Contract::read().world(HANDLE).with("events.wit", "original-text: option<string>,", "original-text: string,");
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- record `user-message` of modhost:module/events differs from the host's, so `handle` can't be called:\n    \
             field `original-text`: expected `option<string>`, found `string`{OTHER_FILES}"
        )
    );
}

#[test]
fn reports_a_different_resource() {
    let contract = Contract::read().with(
        "completion.wit",
        "%stream: func(request: request) -> result<tokens, error>;",
        "%stream: func(request: request) -> result<borrowed, error>; resource borrowed { next: func(); }",
    );
    assert_eq!(
        incompatibility(&contract.build()),
        format!(
            "{FIRST}- `stream` of modhost:module/completion@0.1.0 has another type:\n    \
             expected  stream: func(request: request) -> result<tokens, error>\n    \
             found     stream: func(request: request) -> result<borrowed, error>\n\
             - it imports the resource `borrowed` of modhost:module/completion@0.1.0, which has `tokens`{OTHER_FILES}"
        )
    );
}

#[test]
fn limits_the_listed_problems() {
    let functions: String = (0..40).map(|n| format!("import part{n}: func(); ")).collect();
    let text = incompatibility(&Contract::read().world(&format!("{functions}{HANDLE}")).build());
    assert_eq!(text.lines().filter(|line| line.starts_with("- it imports")).count(), 20);
    assert!(text.contains("\n- and more\n"), "{text}");
}
