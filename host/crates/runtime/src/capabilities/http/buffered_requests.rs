//! Counts the host memory that a guest's unsent requests take.
//!
//! A guest may have as many requests as handles, and write any amount into each: URLs and methods of megabytes,
//! headers, bodies that nothing reads yet. That memory is the host's, not the guest's, so it is counted here.

use std::collections::HashSet;

use http::HeaderMap;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::{Method, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};

/// Maximum size of one write to a body, in bytes. Toolchains write 4 KiB.
pub(super) const CHUNK: usize = 16 << 10;

/// Maximum unread size of a body, in bytes: two writes.
const BODY: usize = 2 * CHUNK;

/// The overhead of a header beyond its name and value, in bytes.
const HEADER: usize = 64;

/// Returns the size of a guest's unsent requests, in bytes.
pub(super) fn bytes(table: &mut ResourceTable) -> u64 {
    // Headers of answers are counted with the answers. Several handles may share the same headers.
    let mut counted: HashSet<*const HeaderMap> = HashSet::new();
    for answer in table.iter_mut().filter_map(|entry| entry.downcast_ref::<HostIncomingResponse>()) {
        counted.insert(&raw const *answer.headers);
    }
    let mut new = |fields: &FieldMap| if counted.insert(&raw const **fields) { headers(fields) } else { 0 };
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

/// Returns the size of the request line, in bytes.
fn line(request: &HostOutgoingRequest) -> usize {
    let method = if let Method::Other(method) = &request.method { method.len() } else { 0 };
    let scheme = if let Some(Scheme::Other(scheme)) = &request.scheme { scheme.len() } else { 0 };
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    method + scheme + text(&request.authority) + text(&request.path_with_query)
}
