//! Bindings that `wit-bindgen` generates from the contract in `wit/`. Modules don't need them, because the rest of the
//! crate wraps them. They are public because [`module!`](crate::module!) expands to them in the author's crate.
#![allow(missing_docs)]

wit_bindgen::generate!({
    path: "wit",
    world: "module",
    generate_all,
    pub_export_macro: true,
    default_bindings_module: "modhost_sdk::bindings",
});
