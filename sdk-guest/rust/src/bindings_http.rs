//! Bindings that `wit-bindgen` generates from `wasi:http`. They are separate from the contract's bindings, so that a
//! component that doesn't use them doesn't import `wasi:http`.
#![allow(missing_docs)]

wit_bindgen::generate!({
    path: "wit",
    world: "http-client",
    generate_all,
});
