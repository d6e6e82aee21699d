//! What Wasmtime makes of `wit/`: the traits the capabilities implement and the types that cross the sandbox.
#![allow(missing_docs, reason = "generated; the documentation is in wit/")]

wasmtime::component::bindgen!({
    path: "../../../wit",
    world: "module",
    imports: { default: async | trappable },
    exports: { default: async },
    // The event is lent to the guest, not copied for it.
    ownership: Borrowing { duplicate_if_necessary: true },
    with: {
        "modhost:module/message-log.entry": crate::capabilities::message_log::Entry,
        "modhost:module/completion.tokens": crate::capabilities::completion::Tokens,
        "wasi:keyvalue/store.bucket": modhost_storage::keyvalue::Bucket,
        "wasi:keyvalue/atomics.cas": crate::capabilities::keyvalue::Cas,
    },
});
