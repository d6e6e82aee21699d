//! What the host holds of requests that a guest has begun to write and not yet sent.
//!
//! A guest may have as many of them as it has handles, and write what it likes into each: addresses and methods of
//! megabytes, headers, bodies that nobody reads yet. None of it is in the guest's own memory. So it is counted.

use std::collections::HashSet;

use http::HeaderMap;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::{Method, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};

/// How much may be written to a body at once, in bytes. Toolchains write 4 KiB.
pub(super) const CHUNK: usize = 16 << 10;

/// How much may wait in a body until somebody reads it: two writes.
const BODY: usize = 2 * CHUNK;

/// What a header takes beside its name and its value.
const HEADER: usize = 64;

/// How much the requests of a guest hold, in bytes.
pub(super) fn bytes(table: &mut ResourceTable) -> u64 {
    // Headers of answers are counted with the answers. A guest may have several handles of the same.
    let mut known: HashSet<*const HeaderMap> = HashSet::new();
    for answer in table.iter_mut().filter_map(|entry| entry.downcast_ref::<HostIncomingResponse>()) {
        known.insert(&raw const *answer.headers);
    }
    let mut new = |fields: &FieldMap| if known.insert(&raw const **fields) { headers(fields) } else { 0 };
    let mut bytes = 0;
    for entry in table.iter_mut() {
        bytes += if let Some(fields) = entry.downcast_ref::<FieldMap>() {
            new(fields)
        } else if let Some(request) = entry.downcast_ref::<HostOutgoingRequest>() {
            new(&request.headers) + line(request) + request.body.as_ref().map_or(0, |_| BODY)
        } else if let Some(answer) = entry.downcast_ref::<HostOutgoingResponse>() {
            new(&answer.headers) + answer.body.as_ref().map_or(0, |_| BODY)
        } else {
            0
        };
    }
    bytes as u64
}

fn headers(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum()
}

/// What stands before the headers.
fn line(request: &HostOutgoingRequest) -> usize {
    let method = if let Method::Other(method) = &request.method { method.len() } else { 0 };
    let scheme = if let Some(Scheme::Other(scheme)) = &request.scheme { scheme.len() } else { 0 };
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    method + scheme + text(&request.authority) + text(&request.path_with_query)
}
