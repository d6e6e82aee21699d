//! What `wit-bindgen` makes of the contract in `wit/`. Nobody should need it: the rest of the crate says the same in
//! Rust's words. It is public because [`module!`](crate::module!) expands to it in the author's crate.
#![allow(missing_docs)]

wit_bindgen::generate!({
    path: "wit",
    world: "module",
    generate_all,
    pub_export_macro: true,
    default_bindings_module: "modhost_sdk::bindings",
});
