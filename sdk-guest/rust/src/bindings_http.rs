//! What `wit-bindgen` makes of `wasi:http`, apart from the contract's own: a component that uses nothing of it imports
//! nothing of it.
#![allow(missing_docs)]

wit_bindgen::generate!({
    path: "wit",
    world: "http-client",
    generate_all,
});
