//! The bindings that Wasmtime generates from `wit/`: the traits that capabilities implement and the types that cross
//! the sandbox.
#![allow(missing_docs, reason = "generated; the documentation is in wit/")]

wasmtime::component::bindgen!({
    path: "../../../wit",
    world: "module",
    imports: { default: async | trappable },
    exports: { default: async },
    // The event is passed to the guest by reference, not cloned.
    ownership: Borrowing { duplicate_if_necessary: true },
    with: {
        "modhost:module/message-log.entry": crate::capabilities::message_log::Entry,
        "modhost:module/completion.tokens": crate::capabilities::completion::Tokens,
        "wasi:keyvalue/store.bucket": modhost_storage::keyvalue::Bucket,
        "wasi:keyvalue/atomics.cas": crate::capabilities::keyvalue::Cas,
    },
});
