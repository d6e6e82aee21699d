//! A webhook without modhost: a `wasi:http` component for `wasmtime serve`, which verifies the signature of an event, answers
//! 200, and stores nothing.

// Its exports are no names that a linker of another target accepts.
#![cfg(target_family = "wasm")]

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::StreamError;

struct Webhook;

wasi::http::proxy::export!(Webhook);

/// The size of one read of the body, in bytes.
const PIECE: u64 = 64 * 1024;

impl Guest for Webhook {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        match verify(&request) {
            Some(()) => respond(response, 200, br#"{"success":true}"#),
            None => respond(response, 401, br#"{"success":false}"#),
        }
    }
}

/// Returns whether the signature is that of the body.
fn verify(request: &IncomingRequest) -> Option<()> {
    let signature = hex::decode(request.headers().get("x-unique-signature").pop()?).ok()?;
    let body = body_of(request)?;
    let secret = std::env::var("BENCH_SECRET").ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(&body);
    mac.verify_slice(&signature).ok()
}

fn body_of(request: &IncomingRequest) -> Option<Vec<u8>> {
    let incoming = request.consume().ok()?;
    let stream = incoming.stream().ok()?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(PIECE) {
            Ok(piece) => body.extend_from_slice(&piece),
            Err(StreamError::Closed) => return Some(body),
            Err(StreamError::LastOperationFailed(_)) => return None,
        }
    }
}

/// Sends a response. If the client is gone, nobody misses it.
fn respond(to: ResponseOutparam, status: u16, text: &[u8]) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"application/json".to_vec()]);
    let _ = headers.set("content-length", &[text.len().to_string().into_bytes()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(to, Ok(response));
    let Ok(stream) = body.write() else { return };
    let _ = stream.blocking_write_and_flush(text);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
